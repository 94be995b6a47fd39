/* SPDX-License-Identifier: Apache-2.0 */
/* Whatever the cuts and codings, the body that comes out is the one that went in. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "http/chunked.h"
#include "services/mockllm/shaper.h"

static const char *const events[] = { "data: one\n\n", "data: two, a longer one\n\n", "data: 3\n\n",
                                      "data: four\n\n", "data: [DONE]\n\n" };
static const char joined[] = "data: one\n\ndata: two, a longer one\n\ndata: 3\n\ndata: four\n\n"
                             "data: [DONE]\n\n";

struct result {
    struct buf wire;
    size_t units, sizes[200];
};

static struct result run(const char *spec, enum framing framing)
{
    struct result r = { .units = 0 };
    struct behave b;
    struct shaper s;
    enum err e = ERR_OK;
    buf_init(&r.wire, 1 << 16);
    behave_init(&b);
    assert_int_equal(behave_parse(&b, str_of(spec), ';', NULL), ERR_OK);
    assert_int_equal(shaper_init(&s, &b, framing, true), ERR_OK);
    for (size_t i = 0; i <= ARRAY_LEN(events) && e != ERR_CLOSED; i++) {
        if (i < ARRAY_LEN(events))
            assert_int_equal(shaper_add(&s, str_of(events[i])), ERR_OK);
        else
            assert_int_equal(shaper_end(&s), ERR_OK);
        for (;;) {
            size_t had = r.wire.len;
            e = shaper_take(&s, &r.wire);
            if (e != ERR_OK) break;
            assert_true(r.units < ARRAY_LEN(r.sizes));
            r.sizes[r.units++] = r.wire.len - had;
        }
        assert_int_equal(e, i < ARRAY_LEN(events) ? ERR_AGAIN : ERR_CLOSED);
    }
    shaper_done(&s);
    return r;
}

/* The body behind the framing. */
static struct buf unframe(const struct buf *wire, enum framing framing)
{
    struct buf body;
    buf_init(&body, 1 << 16);
    struct str in = buf_str(wire), data;
    if (framing != FRAMING_CHUNKED) {
        assert_int_equal(buf_append_str(&body, in), ERR_OK);
        return body;
    }
    struct chunked c = { 0 };
    enum chunked_status s;
    while ((s = chunked_decode(&c, &in, &data)) == CHUNKED_DATA)
        assert_int_equal(buf_append_str(&body, data), ERR_OK);
    assert_int_equal(s, CHUNKED_DONE);
    assert_int_equal(in.n, 0);
    return body;
}

static void test_the_body_survives_every_shape(void **state)
{
    (void)state;
    static const char *const specs[] = {
        "",
        "chunking=batch:2",
        "chunking=batch:100",
        "chunking=bytes:1",
        "chunking=bytes:7",
        "chunking=bytes:1000",
        "chunking=split:1",
        "chunking=split:99",
        "encoding=gzip",
        "encoding=gzip;chunking=bytes:5",
        "encoding=deflate;chunking=split:3",
    };
    for (size_t i = 0; i < ARRAY_LEN(specs); i++) {
        for (enum framing f = FRAMING_LENGTH; f <= FRAMING_CLOSE; f++) {
            struct result r = run(specs[i], f);
            struct buf body = unframe(&r.wire, f);
            if (strstr(specs[i], "encoding") != NULL) {
                struct inflater *z = inflater_new(
                    strstr(specs[i], "gzip") != NULL ? CODING_GZIP : CODING_DEFLATE, 1000);
                struct buf plain;
                struct str in = buf_str(&body);
                buf_init(&plain, 1000);
                assert_int_equal(inflater_feed(z, &in, &plain), ERR_CLOSED);
                inflater_free(z);
                buf_done(&body);
                body = plain;
            }
            assert_true(str_eqz(buf_str(&body), joined));
            buf_done(&body);
            buf_done(&r.wire);
        }
    }
}

static void test_units_are_what_was_asked_for(void **state)
{
    (void)state;
    struct result r = run("", FRAMING_CLOSE);
    assert_int_equal(r.units, 5);
    assert_int_equal(r.sizes[0], strlen(events[0]));
    buf_done(&r.wire);
    r = run("chunking=batch:2", FRAMING_CLOSE);
    assert_int_equal(r.units, 3);
    assert_int_equal(r.sizes[0], strlen(events[0]) + strlen(events[1]));
    buf_done(&r.wire);
    r = run("chunking=bytes:10", FRAMING_CLOSE);
    assert_int_equal(r.units, (sizeof joined - 1 + 9) / 10);
    for (size_t i = 0; i + 1 < r.units; i++) assert_int_equal(r.sizes[i], 10);
    buf_done(&r.wire);
    struct result a = run("chunking=split:5", FRAMING_CLOSE),
                  b = run("chunking=split:5", FRAMING_CLOSE);
    assert_int_equal(a.units, b.units);
    assert_memory_equal(a.sizes, b.sizes, a.units * sizeof a.sizes[0]);
    buf_done(&a.wire);
    buf_done(&b.wire);
}

static void test_a_malformed_chunk_is_malformed(void **state)
{
    (void)state;
    static const char *const kinds[] = {
        "letter", "plus", "prefix", "space", "long", "nocrlf", "lf"
    };
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
        char spec[64];
        struct buf text;
        buf_init(&text, sizeof spec);
        assert_int_equal(buf_printf(&text, "fail=bad_chunk:%s", kinds[i]), ERR_OK);
        str_copyz(spec, sizeof spec, buf_str(&text));
        buf_done(&text);
        struct result r = run(spec, FRAMING_CHUNKED);
        struct chunked c = { 0 };
        struct str in = buf_str(&r.wire), data;
        enum chunked_status s;
        size_t chunks = 0;
        while ((s = chunked_decode(&c, &in, &data)) == CHUNKED_DATA) chunks++;
        assert_int_equal(s, CHUNKED_BAD);
        assert_int_equal(chunks, strcmp(kinds[i], "nocrlf") == 0 ? 3 : 2);
        buf_done(&r.wire);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_body_survives_every_shape),
        cmocka_unit_test(test_units_are_what_was_asked_for),
        cmocka_unit_test(test_a_malformed_chunk_is_malformed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
