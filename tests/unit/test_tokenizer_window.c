/* SPDX-License-Identifier: Apache-2.0 */
/* Windows of ASCII: every processor's version finds the pieces that the scanners find one by one.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/clock.h"
#include "tokenizer/scan/scan_window.h"

enum { TEXT = 192 };

static size_t make_text(const struct rng *rng, char *t)
{
    static const char *const letters[] = {
        "ab '\n .",     "aB1 \t\r\n/!'slr", "'stmdrevl LVRE!a",       "a  \n\n!/",
        "0123456 a\n.", " \tab.A",          "'sS \x01\x7f\vlLveVEre",
    };
    size_t kind = rng_below(rng, sizeof letters / sizeof letters[0] + 1);
    for (size_t i = 0; i < TEXT; i++) {
        if (kind < sizeof letters / sizeof letters[0])
            t[i] = letters[kind][rng_below(rng, strlen(letters[kind]))];
        else
            t[i] = (char)rng_below(rng, 128);
    }
    static const char *const others[] = { "é", "\u00a0", "ſ", "中", "\u0301", "٣" };
    if (rng_below(rng, 3) == 0) {
        const char *s = others[rng_below(rng, sizeof others / sizeof others[0])];
        memcpy(t + rng_below(rng, 80), s, strlen(s));
    }
    return TEXT;
}

static void a_window_finds_what_the_scanner_finds(void **state)
{
    (void)state;
    struct rng_fake rng;
    uint64_t found = 0, all = 0;
    rng_fake_init(&rng, 5);
    for (int round = 0; round < 60000; round++) {
        char t[TEXT];
        size_t n = make_text(&rng.rng, t);
        for (int shape = 1; shape < SCAN_END; shape++) {
            if (shape == SCAN_CHARS || shape == SCAN_REGEX) continue; /* need a vocabulary */
            uint64_t truth = 0, first = 0;
            for (size_t i = 0; i < SCAN_WINDOW;) {
                i += scan_piece((enum scan_shape)shape, t + i, n - i, false);
                if (i < SCAN_WINDOW) truth |= (uint64_t)1 << i;
            }
            for (int isa = 0; isa < SCAN_ISA_END; isa++) {
                scan_window_fn *f = scan_window_for((enum scan_shape)shape, (enum scan_isa)isa);
                if (f == NULL) continue; /* not on this processor */
                uint64_t ends = f(t);
                if (isa == SCAN_PORTABLE) first = ends;
                assert_int_equal(ends, first);
                uint64_t known = ends == 0 ? 0 : ((uint64_t)2 << (63 - __builtin_clzll(ends))) - 1;
                assert_int_equal(ends, truth & known);
            }
            found += (uint64_t)__builtin_popcountll(first);
            all += (uint64_t)__builtin_popcountll(truth);
        }
    }
    assert_true(found > all / 2); /* not by finding nothing */
}

/* What follows the window may be anything. */
static void what_a_window_finds_holds_whatever_follows(void **state)
{
    (void)state;
    struct rng_fake rng;
    rng_fake_init(&rng, 6);
    for (int round = 0; round < 20000; round++) {
        char t[TEXT], cut[SCAN_WINDOW];
        make_text(&rng.rng, t);
        size_t keep = 1 + rng_below(&rng.rng, SCAN_WINDOW);
        memset(cut, 0xff, sizeof cut);
        memcpy(cut, t, keep);
        for (int shape = 1; shape < SCAN_END; shape++) {
            scan_window_fn *f = scan_window_best((enum scan_shape)shape);
            uint64_t whole = f(t), part = f(cut);
            assert_int_equal(part & ~whole & (whole == 0 ? 0 : UINT64_MAX), 0);
            assert_true(part == 0 || part >> (keep - 1) <= 1);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_window_finds_what_the_scanner_finds),
        cmocka_unit_test(what_a_window_finds_holds_whatever_follows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
