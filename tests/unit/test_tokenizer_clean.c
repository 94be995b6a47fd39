/* SPDX-License-Identifier: Apache-2.0 */
/* Bytes that are cleaned many at a time are what they are cluster by cluster, and are known to come
 * from where they do. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/clock.h"
#include "tokenizer/scan/clean.h"
#include "tokenizer/scan/pieces_clean.h"

enum { N = 700 };
static const unsigned hows[] = { 0, CLEAN_NFC, CLEAN_SPACE };

/* Characters, halves of some, bytes that are none, marks; in other rounds any bytes. */
static void fill(struct rng_fake *rng, unsigned round, char *p, size_t n)
{
    static const char *const parts[] = {
        "a",
        " ",
        "\n",
        "\xff",
        "\x80",
        "\xc0",
        "\xc3\xa9",
        "\xd0\x96",
        "\xc3",
        "\xe4\xb8\xad",
        "\xe4\xb8",
        "\xe0\x80",
        "\xed\xa0\x80",
        "\xed\x95\x9c",
        "\xef\xbf\xbd",
        "\xf0\x9f\x98\x80",
        "\xf0\x9f\x98",
        "\xf0\x9f",
        "\xf0\x80\x80",
        "\xf4\x90\x80",
        "\xf1\x80\x80",
        "\xe2\x96\x81",
        "e\xcc\x81", /* becomes one character */
        "x\xcc\xa3\xcc\x81",
        "\xcc\x81",
        "\xe0\xb2\x95\xe0\xb3\x8d", /* with a mark that stays */
        "\xe1\x84\x80\xe1\x85\xa1",
        "\xe2\x84\xab",
    };
    size_t kinds = 1 + rng_below(&rng->rng, ARRAY_LEN(parts)), from = 0;
    if (round % 3 == 0) kinds = MIN(kinds, (size_t)21); /* nothing that NFC changes */
    if (round % 2 == 0) from = rng_below(&rng->rng, kinds);
    for (size_t at = 0; at < n;) {
        const char *part = parts[from + rng_below(&rng->rng, kinds - from)];
        char byte[2] = { (char)rng_below(&rng->rng, 256), 0 };
        if (round % 5 == 0) part = byte;
        size_t times = round % 7 == 0 ? 1 + rng_below(&rng->rng, 80) : 1;
        for (; times > 0 && at < n; times--) {
            size_t len = part == byte ? 1 : strlen(part);
            memcpy(p + at, part, MIN(len, n - at));
            at += MIN(len, n - at);
        }
    }
}

static void windows_are_what_their_clusters_are(void **state)
{
    struct rng_fake rng;
    struct buf points, want;
    char p[N], out[CLEAN_ROOM];
    size_t taken = 0;
    (void)state;
    rng_fake_init(&rng, 5);
    buf_init(&points, 1 << 20);
    buf_init(&want, 1 << 20);
    for (unsigned round = 0; round < 60000; round++) {
        size_t n = CLEAN_WINDOW + rng_below(&rng.rng, 8), clean_n, at = 0;
        unsigned how = hows[rng_below(&rng.rng, ARRAY_LEN(hows))];
        struct clean_bits bits;
        fill(&rng, round, p, n);
        /* nothing behind the window counts */
        size_t some = clean_window(p, how, out, &clean_n, &bits);
        assert_in_range(some, 0, CLEAN_WINDOW);
        if (some == 0) continue;
        taken += some;
        buf_clear(&want);
        while (at < some) {
            size_t len = clean_cluster(p + at, n - at, true, how), before = want.len;
            assert_in_range(len, 1, some - at);
            assert_int_equal(clean_append(p + at, len, how, &points, &want), ERR_OK);
            uint64_t those = ((uint64_t)2 << (len - 1)) - 1;
            assert_int_equal(bits.begins >> at & those, 1);
            bool same = want.len - before == len && memcmp(p + at, want.data + before, len) == 0;
            assert_int_equal(bits.faults >> at & those, same ? 0 : 1);
            if (!same) assert_int_equal(want.len - before, 3);
            at += len;
        }
        assert_int_equal(at, some);
        assert_true(some == 64 || bits.begins >> some == 0);
        assert_int_equal(clean_n, want.len);
        assert_memory_equal(out, want.data, want.len);
    }
    print_message("%zu bytes by windows\n", taken);
    buf_done(&points);
    buf_done(&want);
}

static void what_was_cleaned_is_known_to_come_from_where_it_does(void **state)
{
    struct rng_fake rng;
    struct pieces_scratch s;
    struct buf want;
    char p[N];
    (void)state;
    rng_fake_init(&rng, 6);
    pieces_scratch_init(&s);
    buf_init(&want, 1 << 20);
    for (unsigned round = 0; round < 4000; round++) {
        size_t n = 1 + rng_below(&rng.rng, N), at = 0, done, lead = round % 4 == 0, raw, clean;
        unsigned how = hows[rng_below(&rng.rng, ARRAY_LEN(hows))];
        bool closed = rng_below(&rng.rng, 2) == 0;
        fill(&rng, round, p, n);
        buf_clear(&s.clean);
        buf_clear(&s.map);
        buf_clear(&want);
        if (lead > 0) assert_int_equal(buf_append_char(&s.clean, ' '), ERR_OK);
        if (lead > 0) assert_int_equal(buf_append_char(&want, ' '), ERR_OK);
        assert_int_equal(pieces_clean(&s, p, n, how, closed, &done), ERR_OK);
        for (size_t len; at < n && (len = clean_cluster(p + at, n - at, !closed, how)) > 0;) {
            size_t before = want.len;
            assert_int_equal(clean_append(p + at, len, how, &s.points, &want), ERR_OK);
            for (size_t pos = before; pos < want.len; pos++) {
                pieces_clean_boundary(&s, pos, lead, &raw, &clean);
                assert_int_equal(raw, at);
                assert_int_equal(clean, before);
            }
            at += len;
        }
        assert_int_equal(done, at);
        assert_int_equal(s.clean.len, want.len);
        if (want.len > 0) assert_memory_equal(s.clean.data, want.data, want.len);
        pieces_clean_boundary(&s, want.len, lead, &raw, &clean);
        assert_int_equal(raw, at);
        assert_int_equal(clean, want.len);
    }
    buf_done(&want);
    pieces_scratch_done(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(windows_are_what_their_clusters_are),
        cmocka_unit_test(what_was_cleaned_is_known_to_come_from_where_it_does),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
