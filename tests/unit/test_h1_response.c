/* SPDX-License-Identifier: Apache-2.0 */
/* Heads of responses: what is accepted and refused, and where their bodies end. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "http/h1.h"

static const struct h1_limits limits = H1_LIMITS_DEFAULT;

/* status 0: accepted. */
struct row {
    int status;
    const char *text;
    size_t n;
};

#define R(status, text)                \
    {                                  \
        status, text, sizeof(text) - 1 \
    }

static const struct row responses[] = {
    R(0, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"),
    R(0, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
    R(0, "HTTP/1.1 200 OK\r\n\r\n"),
    R(0, "HTTP/1.0 200 OK\r\n\r\n"),
    R(0, "HTTP/1.1 200 \r\n\r\n"),
    R(0, "HTTP/1.1 200\r\n\r\n"),
    R(0, "HTTP/1.1 404 Not  Found \xc3\xa9\r\n\r\n"),
    R(0, "HTTP/1.1 599 x\r\n\r\n"),
    R(0, "HTTP/1.1 100 Continue\r\n\r\n"),
    R(0, "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"),
    R(0, "HTTP/1.1 204 No Content\r\n\r\n"),
    R(0, "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n"),
    R(0, "HTTP/1.1 304 Not Modified\r\nContent-Length: 100\r\n\r\n"),
    R(502, "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n"),
    R(502, "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n"),
    R(502, "HTTP/1.1 103 x\r\nTransfer-Encoding: chunked\r\n\r\n"),
    R(502, "HTTP/1.1 600 x\r\n\r\n"),
    R(502, "HTTP/1.1 099 x\r\n\r\n"),
    R(502, "HTTP/1.1 20 x\r\n\r\n"),
    R(502, "HTTP/1.1 2000 x\r\n\r\n"),
    R(502, "HTTP/1.1 2x0 x\r\n\r\n"),
    R(502, "HTTP/1.1  200 x\r\n\r\n"),
    R(502, "HTTP/1.1\t200 x\r\n\r\n"),
    R(502, "HTTP/1.1 200\tx\r\n\r\n"),
    R(502, "HTTP/2.0 200 x\r\n\r\n"),
    R(502, "HTTP/1.2 200 x\r\n\r\n"),
    R(502, "http/1.1 200 x\r\n\r\n"),
    R(502, "ICY 200 OK\r\n\r\n"),
    R(502, "\r\nHTTP/1.1 200 x\r\n\r\n"),
    R(502, "HTTP/1.1 200 x\x01\r\n\r\n"),
    R(502, "HTTP/1.1 200 x\n\r\n"),
    R(502, "HTTP/1.1 200 x\n\n"),
    R(502, "HTTP/1.1 200 x\r\nA: b\r\n c\r\n\r\n"),
    R(502, "HTTP/1.1 200 x\r\nA : b\r\n\r\n"),
    R(502, "HTTP/1.1 200 x\r\nA: b\rc\r\n\r\n"),
    R(502, "HTTP/1.1 200 x\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n"),
    R(502, "HTTP/1.1 200 x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"),
    R(502, "HTTP/1.1 200 x\r\nContent-Length: +5\r\n\r\n"),
    R(502, "HTTP/1.1 200 x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n"),
    R(502, "HTTP/1.1 200 x\r\nTransfer-Encoding: identity\r\n\r\n"),
    R(502, "HTTP/1.0 200 x\r\nTransfer-Encoding: chunked\r\n\r\n"),
    R(502, "<html>\r\n"),
};

static void show(const char *what, size_t row, const char *text)
{
    print_error("%s, row %zu: %.60s\n", what, row, text);
}

static void test_response_table(void **state)
{
    (void)state;
    static struct h1_response r;
    struct h1_error e;
    for (size_t i = 0; i < ARRAY_LEN(responses); i++) {
        const struct row *row = &responses[i];
        size_t n = row->n;
        h1_begin(&r.head);
        enum h1_status s = h1_parse_response(row->text, n, &limits, false, &r, &e);
        int got = s == H1_DONE ? 0 : s == H1_BAD ? e.status : -1;
        if (got != row->status) show("at once", i, row->text);
        assert_int_equal(got, row->status);
        h1_begin(&r.head);
        got = -1;
        for (size_t k = 1; k <= n && got == -1; k++) {
            s = h1_parse_response(row->text, k, &limits, false, &r, &e);
            got = s == H1_DONE ? 0 : s == H1_BAD ? e.status : -1;
            if (got == 0) assert_int_equal(k, n);
        }
        if (got != row->status) show("byte by byte", i, row->text);
        assert_int_equal(got, row->status);
    }
}

static void test_response_framing(void **state)
{
    (void)state;
    static struct h1_response r;
    struct h1_error e;
    static const struct {
        const char *text;
        bool to_head;
        enum h1_framing framing;
        uint64_t length;
        bool keep;
    } rows[] = {
        { "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n", false, H1_BODY_LENGTH, 7, true },
        { "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n", true, H1_BODY_NONE, 0, true },
        { "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", false, H1_BODY_CHUNKED, 0,
          true },
        { "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", true, H1_BODY_NONE, 0, true },
        { "HTTP/1.1 200 OK\r\n\r\n", false, H1_BODY_CLOSE, 0, false },
        { "HTTP/1.1 200 OK\r\n\r\n", true, H1_BODY_NONE, 0, true },
        { "HTTP/1.0 200 OK\r\nContent-Length: 7\r\n\r\n", false, H1_BODY_LENGTH, 7, false },
        { "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n\r\n", false, H1_BODY_CLOSE, 0, false },
        { "HTTP/1.1 304 x\r\nContent-Length: 7\r\n\r\n", false, H1_BODY_NONE, 0, true },
        { "HTTP/1.1 204 x\r\n\r\n", false, H1_BODY_NONE, 0, true },
        { "HTTP/1.1 100 x\r\n\r\n", false, H1_BODY_NONE, 0, true },
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        h1_begin(&r.head);
        assert_int_equal(
            h1_parse_response(rows[i].text, strlen(rows[i].text), &limits, rows[i].to_head, &r, &e),
            H1_DONE);
        assert_int_equal(r.head.framing, rows[i].framing);
        assert_int_equal(r.head.content_length, rows[i].length);
        assert_int_equal(r.head.keep_alive, rows[i].keep);
    }
    assert_int_equal(r.status, 100);
    assert_true(str_eqz(r.reason, "x"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_response_table),
        cmocka_unit_test(test_response_framing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
