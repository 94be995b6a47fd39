/* SPDX-License-Identifier: Apache-2.0 */
/* Content codings: round trips in every split, raw deflate, damage, and bombs. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "http/gzip.h"

static const char text[] = "data: {\"a\": 1}\n\ndata: {\"a\": 2}\n\ndata: {\"a\": 3}\n\n";

static struct buf compress(enum http_coding coding, const char *s, size_t n, size_t step)
{
    struct buf out;
    struct deflater *d = deflater_new(coding);
    buf_init(&out, 1 << 20);
    for (size_t at = 0; at < n; at += step)
        assert_int_equal(deflater_add(d, str_n(s + at, MIN(step, n - at)), false, &out), ERR_OK);
    assert_int_equal(deflater_add(d, STR(""), true, &out), ERR_OK);
    deflater_free(d);
    return out;
}

static void test_round_trip_in_every_split(void **state)
{
    (void)state;
    for (int coding = CODING_GZIP; coding <= CODING_DEFLATE; coding++) {
        struct buf z = compress((enum http_coding)coding, text, sizeof text - 1, 7);
        for (size_t cut = 0; cut <= z.len; cut++) {
            struct inflater *i = inflater_new((enum http_coding)coding, sizeof text - 1);
            struct buf out;
            buf_init(&out, 1000);
            struct str in = str_n(z.data, cut);
            enum err e = inflater_feed(i, &in, &out);
            assert_int_equal(in.n, 0);
            if (e == ERR_OK) {
                in = str_n(z.data + cut, z.len - cut);
                e = inflater_feed(i, &in, &out);
            }
            assert_int_equal(e, ERR_CLOSED);
            assert_true(str_eqz(buf_str(&out), text));
            inflater_free(i);
            buf_done(&out);
        }
        buf_done(&z);
    }
}

/* gzip's members, one behind the other, are one text; what is none ends it. */
static void test_members_are_one_text_in_every_split(void **state)
{
    (void)state;
    struct buf z = compress(CODING_GZIP, text, 20, 20);
    struct buf second = compress(CODING_GZIP, text + 20, sizeof text - 21, sizeof text);
    size_t both = z.len + second.len;
    assert_int_equal(buf_append_str(&z, buf_str(&second)), ERR_OK);
    assert_int_equal(buf_append(&z, "\0?", 2), ERR_OK);
    for (size_t cut = 0; cut <= both; cut++) {
        struct inflater *i = inflater_new(CODING_GZIP, sizeof text - 1);
        struct buf out;
        buf_init(&out, 1000);
        struct str in = str_n(z.data, cut);
        enum err e = inflater_feed(i, &in, &out);
        assert_true(e == (cut == both || cut == both - second.len ? ERR_CLOSED : ERR_OK));
        in = str_n(z.data + cut, z.len - cut);
        assert_int_equal(inflater_feed(i, &in, &out), ERR_CLOSED);
        assert_int_equal(in.n, z.len - both);
        assert_true(str_eqz(buf_str(&out), text));
        inflater_free(i);
        buf_done(&out);
    }
    buf_done(&z);
    buf_done(&second);
}

/* What was put in can be read before the end is there. */
static void test_each_addition_can_be_read_at_once(void **state)
{
    (void)state;
    struct deflater *d = deflater_new(CODING_GZIP);
    struct inflater *i = inflater_new(CODING_GZIP, 1000);
    struct buf z, out;
    buf_init(&z, 10000);
    buf_init(&out, 1000);
    for (int n = 1; n <= 5; n++) {
        buf_clear(&z);
        assert_int_equal(deflater_add(d, STR("hello"), false, &z), ERR_OK);
        struct str in = buf_str(&z);
        assert_int_equal(inflater_feed(i, &in, &out), ERR_OK);
        assert_int_equal(out.len, n * 5);
    }
    deflater_free(d);
    inflater_free(i);
    buf_done(&z);
    buf_done(&out);
}

static void test_raw_deflate_is_understood(void **state)
{
    (void)state;
    /* The middle of the zlib form: without its two bytes in front and the checksum behind. */
    struct buf z = compress(CODING_DEFLATE, text, sizeof text - 1, sizeof text), out;
    struct inflater *i = inflater_new(CODING_DEFLATE, 1000);
    buf_init(&out, 1000);
    for (size_t k = 2; k < z.len - 4; k++) {
        struct str in = str_n(z.data + k, 1);
        enum err e = inflater_feed(i, &in, &out);
        assert_int_equal(e, k == z.len - 5 ? ERR_CLOSED : ERR_OK);
    }
    assert_true(str_eqz(buf_str(&out), text));
    inflater_free(i);
    buf_done(&z);
    buf_done(&out);
}

static void test_a_bomb_stops_at_its_bounds(void **state)
{
    (void)state;
    char *zeros = calloc(1, 1 << 20);
    struct buf z = compress(CODING_GZIP, zeros, 1 << 20, 1 << 20), out;
    assert_true(z.len < 4096);
    struct inflater *i = inflater_new(CODING_GZIP, 100000);
    buf_init(&out, 1 << 20);
    struct str in = buf_str(&z);
    assert_int_equal(inflater_feed(i, &in, &out), ERR_LIMIT);
    assert_true(out.len <= 100000);
    inflater_free(i);
    buf_done(&out);

    /* a small room is filled again and again, and nothing is lost */
    i = inflater_new(CODING_GZIP, 1 << 20);
    buf_init(&out, 1000);
    in = buf_str(&z);
    size_t total = 0;
    enum err e;
    while ((e = inflater_feed(i, &in, &out)) == ERR_AGAIN) {
        assert_int_equal(out.len, 1000);
        total += out.len;
        buf_clear(&out);
    }
    assert_int_equal(e, ERR_CLOSED);
    assert_int_equal(total + out.len, 1 << 20);
    inflater_free(i);
    buf_done(&out);
    buf_done(&z);
    free(zeros);
}

static void test_damage_is_noticed(void **state)
{
    (void)state;
    struct buf z = compress(CODING_GZIP, text, sizeof text - 1, sizeof text), out;
    z.data[0] ^= 1;
    struct inflater *i = inflater_new(CODING_GZIP, 1000);
    buf_init(&out, 1000);
    struct str in = buf_str(&z);
    assert_int_equal(inflater_feed(i, &in, &out), ERR_INVALID);
    inflater_free(i);

    z.data[0] ^= 1;
    z.data[z.len - 6] ^= 1; /* in the checksum */
    i = inflater_new(CODING_GZIP, 1000);
    in = buf_str(&z);
    assert_int_equal(inflater_feed(i, &in, &out), ERR_INVALID);
    inflater_free(i);
    buf_done(&z);
    buf_done(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip_in_every_split),
        cmocka_unit_test(test_members_are_one_text_in_every_split),
        cmocka_unit_test(test_each_addition_can_be_read_at_once),
        cmocka_unit_test(test_raw_deflate_is_understood),
        cmocka_unit_test(test_a_bomb_stops_at_its_bounds),
        cmocka_unit_test(test_damage_is_noticed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
