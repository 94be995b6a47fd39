/* SPDX-License-Identifier: Apache-2.0 */
/* The chunked coding: what is accepted and refused, in every split, and the encoder's way back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/buf.h"
#include "http/chunked.h"

static const struct {
    const char *in;
    const char *body; /* NULL: refused */
    const char *rest; /* behind the message */
} rows[] = {
    { "0\r\n\r\n", "", "" },
    { "0\r\n\r\nGET", "", "GET" },
    { "000\r\n\r\n", "", "" },
    { "5\r\nhello\r\n0\r\n\r\n", "hello", "" },
    { "05\r\nhello\r\n0\r\n\r\n", "hello", "" },
    { "0000000000000005\r\nhello\r\n0\r\n\r\n", "hello", "" },
    { "a\r\n0123456789\r\n0\r\n\r\n", "0123456789", "" },
    { "A\r\n0123456789\r\n0\r\n\r\n", "0123456789", "" },
    { "1\r\n\r\r\n2\r\n\r\n\r\n0\r\n\r\n", "\r\r\n", "" },
    { "1;a\r\nx\r\n0;b=c\r\n\r\n", "x", "" },
    { "1;a=\"q;\\\"\\\\ \t\"\r\nx\r\n0\r\n\r\n", "x", "" },
    { "1;a;b=c;d=\"\"\r\nx\r\n0\r\n\r\n", "x", "" },
    { "0\r\nX: y\r\n\r\n", "", "" },
    { "0\r\nX:\r\nContent-Length: 5\r\n\r\nrest", "", "rest" },
    { "\r\n", NULL, NULL },
    { "\n", NULL, NULL },
    { ";a\r\n\r\n", NULL, NULL },
    { " 5\r\nhello\r\n0\r\n\r\n", NULL, NULL },
    { "5 \r\nhello\r\n0\r\n\r\n", NULL, NULL },
    { "5\t\r\nhello\r\n0\r\n\r\n", NULL, NULL },
    { "5 ;a\r\nhello\r\n0\r\n\r\n", NULL, NULL },
    { "5; a\r\nhello\r\n0\r\n\r\n", NULL, NULL },
    { "5;\r\nhello\r\n0\r\n\r\n", NULL, NULL },
    { "5;a=\r\nhello\r\n0\r\n\r\n", NULL, NULL },
    { "5;a==b\r\nhello\r\n0\r\n\r\n", NULL, NULL },
    { "5;a=b=c\r\nhello\r\n0\r\n\r\n", NULL, NULL },
    { "5;a=\"b\r\nhello\r\n0\r\n\r\n", NULL, NULL },
    { "5;a=\"b\"c\r\nhello\r\n0\r\n\r\n", NULL, NULL },
    { "5;a=\"\x01\"\r\nhello\r\n0\r\n\r\n", NULL, NULL },
    { "5;a b\r\nhello\r\n0\r\n\r\n", NULL, NULL },
    { "5;a\nhello\r\n0\r\n\r\n", NULL, NULL },
    { "5;a\rx\nhello\r\n0\r\n\r\n", NULL, NULL },
    { "5;;\r\nhello\r\n0\r\n\r\n", NULL, NULL },
    { "5,a\r\nhello\r\n0\r\n\r\n", NULL, NULL },
    { "+5\r\nhello\r\n0\r\n\r\n", NULL, NULL },
    { "-5\r\nhello\r\n0\r\n\r\n", NULL, NULL },
    { "0x5\r\nhello\r\n0\r\n\r\n", NULL, NULL },
    { "5h\r\nhello\r\n0\r\n\r\n", NULL, NULL },
    { "g\r\n", NULL, NULL },
    { "5_0\r\n", NULL, NULL },
    { "5.0\r\n", NULL, NULL },
    { "00000000000000005\r\nhello\r\n0\r\n\r\n", NULL, NULL },
    { "8000000000000000\r\n", NULL, NULL },
    { "ffffffffffffffff\r\n", NULL, NULL },
    { "10000000000000005\r\n", NULL, NULL },
    { "5\nhello\r\n0\r\n\r\n", NULL, NULL },
    { "5\rhello\r\n0\r\n\r\n", NULL, NULL },
    { "5\r\nhello\n0\r\n\r\n", NULL, NULL },
    { "5\r\nhello\r0\r\n\r\n", NULL, NULL },
    { "5\r\nhello0\r\n\r\n", NULL, NULL },
    { "5\r\nhelloo\r\n0\r\n\r\n", NULL, NULL },
    { "6\r\nhello\r\n0\r\n\r\n", NULL, NULL },
    { "5\r\nhello\r\n\r\n", NULL, NULL },
    { "0\n\n", NULL, NULL },
    { "0\r\n\n", NULL, NULL },
    { "0\r\n\rx", NULL, NULL },
    { "0\r\nX y\r\n\r\n", NULL, NULL },
    { "0\r\nX\r\n\r\n", NULL, NULL },
    { "0\r\n: y\r\n\r\n", NULL, NULL },
    { "0\r\nX : y\r\n\r\n", NULL, NULL },
    { "0\r\n X: y\r\n\r\n", NULL, NULL },
    { "0\r\nX: y\r\n z\r\n\r\n", NULL, NULL },
    { "0\r\nX: a\nY: b\r\n\r\n", NULL, NULL },
    { "0\r\nX: a\x01\r\n\r\n", NULL, NULL },
    { "0\r\nGET / HTTP/1.1\r\n\r\n", NULL, NULL },
};

/* Decodes in[0..n) handed over in pieces that end at cut and at n. */
static enum chunked_status decode(const char *in, size_t n, size_t cut, struct buf *body,
                                  size_t *ret_used)
{
    struct chunked c = { 0 };
    enum chunked_status s = CHUNKED_MORE;
    size_t from = 0;
    for (int piece = 0; piece < 2 && s == CHUNKED_MORE; piece++) {
        size_t end = piece == 0 ? cut : n;
        char *copy = malloc(end - from + 1);
        memcpy(copy, in + from, end - from);
        struct str rest = { copy, end - from }, data;
        while ((s = chunked_decode(&c, &rest, &data)) == CHUNKED_DATA) {
            assert_true(data.n > 0);
            assert_int_equal(buf_append_str(body, data), ERR_OK);
        }
        *ret_used = end - rest.n;
        if (s == CHUNKED_MORE) assert_int_equal(rest.n, 0);
        if (s == CHUNKED_BAD) assert_non_null(c.reason);
        if (s != CHUNKED_MORE) { /* it stays that way */
            struct str more = STR("0\r\n\r\n");
            assert_int_equal(chunked_decode(&c, &more, &data), s);
            assert_int_equal(more.n, 5);
        } else {
            assert_int_equal(c.body, body->len);
        }
        from = end;
        free(copy);
    }
    return s;
}

static void test_table_in_every_split(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        size_t n = strlen(rows[i].in);
        for (size_t cut = 0; cut <= n; cut++) {
            struct buf body;
            size_t used = 0;
            buf_init(&body, 1024);
            enum chunked_status s = decode(rows[i].in, n, cut, &body, &used);
            if ((s == CHUNKED_DONE) != (rows[i].body != NULL)) print_error("row %zu\n", i);
            assert_int_equal(s, rows[i].body != NULL ? CHUNKED_DONE : CHUNKED_BAD);
            if (rows[i].body != NULL) {
                assert_true(str_eqz(buf_str(&body), rows[i].body));
                /* what follows is left, but for what had not been handed over */
                assert_int_equal(used, n - strlen(rows[i].rest));
            }
            buf_done(&body);
        }
    }
}

static enum chunked_status feed(struct chunked *c, const char *text)
{
    struct str in = str_of(text), data;
    enum chunked_status s;
    while ((s = chunked_decode(c, &in, &data)) == CHUNKED_DATA) {
    }
    return s;
}

static void test_extensions_and_trailers_are_bounded(void **state)
{
    (void)state;
    struct chunked c = { 0 };
    assert_int_equal(feed(&c, "1;"), CHUNKED_MORE);
    for (int i = 0; i < CHUNKED_MAX_EXTENSION; i++) assert_int_equal(feed(&c, "a"), CHUNKED_MORE);
    assert_int_equal(feed(&c, "a"), CHUNKED_BAD);

    c = (struct chunked){ 0 };
    int chunks = 0;
    while (feed(&c, "1;abcdefgh\r\nx\r\n") == CHUNKED_MORE) chunks++;
    assert_int_equal(chunks, CHUNKED_MAX_EXTENSIONS / 8);

    c = (struct chunked){ 0 };
    assert_int_equal(feed(&c, "0\r\n"), CHUNKED_MORE);
    int lines = 0;
    while (feed(&c, "a: bcde\r\n") == CHUNKED_MORE) lines++;
    assert_int_equal(lines, CHUNKED_MAX_TRAILER / 9);
}

static void test_encoded_sizes_decode_to_themselves(void **state)
{
    (void)state;
    static const uint64_t sizes[] = {
        1, 9, 10, 15, 16, 255, 256, 4095, 65536, 1u << 31, (uint64_t)1 << 40, INT64_MAX
    };
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
        char head[CHUNKED_HEADER_MAX];
        struct str in = { head, chunked_header(sizes[i], head) }, data;
        struct chunked c = { 0 };
        assert_int_equal(chunked_decode(&c, &in, &data), CHUNKED_MORE);
        assert_int_equal(c.left, sizes[i]);
    }
}

/* In one piece or two: the same body, and the same is left, as by the piece. */
static void test_unwraps_in_place(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        size_t n = strlen(rows[i].in);
        for (size_t cut = 0; cut <= n; cut++) {
            struct chunked c = { 0 };
            struct buf body;
            size_t used = 0, ends[2] = { cut, n };
            enum chunked_status st = CHUNKED_MORE;
            char *copy = strdup(rows[i].in);
            buf_init(&body, 1024);
            for (size_t k = 0, from = 0; k < 2 && st == CHUNKED_MORE; from = ends[k++]) {
                size_t have, took;
                st = chunked_unwrap(&c, copy + from, ends[k] - from, &have, &took);
                assert_int_equal(buf_append(&body, copy + from, have), ERR_OK);
                if (st == CHUNKED_MORE) assert_int_equal(took, ends[k] - from);
                used = from + took;
            }
            assert_int_equal(st, rows[i].body != NULL ? CHUNKED_DONE : CHUNKED_BAD);
            if (rows[i].body != NULL) {
                assert_true(str_eqz(buf_str(&body), rows[i].body));
                assert_int_equal(used, n - strlen(rows[i].rest));
            }
            buf_done(&body);
            free(copy);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table_in_every_split),
        cmocka_unit_test(test_extensions_and_trailers_are_bounded),
        cmocka_unit_test(test_unwraps_in_place),
        cmocka_unit_test(test_encoded_sizes_decode_to_themselves),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
