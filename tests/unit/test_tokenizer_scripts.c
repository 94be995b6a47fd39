/* SPDX-License-Identifier: Apache-2.0 */
/* Windows of characters of all scripts: cut and counted like what the scanner and the merges find
 * piece by piece. With VOCAB_DIR, for the vocabularies that are there. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/utf8.h"
#include "support_pieces.h"
#include "tokenizer/merge/piece_cache.h"
#include "tokenizer/scan/scripts.h"

enum { TEXT = 700, CUT_ROUNDS = 20000, COUNT_ROUNDS = 3000 };

/* Words of one script or two with what stands between words, and now and then anything. */
static size_t make_text(const struct rng *rng, char *t)
{
    static const struct {
        uint32_t from, n;
    } scripts[] = {
        { 0x410, 64 },   { 0xc0, 64 },      { 0x370, 0x90 },  { 0x400, 0x130 }, { 0x100, 0x150 },
        { 0x530, 0x60 }, { 0x5d0, 27 },     { 0x610, 0x60 },  { 0x900, 0x80 },  { 0x980, 0x80 },
        { 0xc80, 0x80 }, { 0xe00, 0x60 },   { 0x1000, 0xa0 }, { 0x10a0, 0x60 }, { 0x1c90, 0x30 },
        { 0x1e00, 256 }, { 0x1f00, 256 },   { 0x2c80, 0x80 }, { 0x4e00, 300 },  { 0xac00, 300 },
        { 0x3041, 180 }, { 0x300, 0x70 },   { 0x2000, 0x70 }, { 0x660, 10 },    { 0xff00, 0x60 },
        { 0x1f600, 80 }, { 0x10400, 0x50 }, { 0x1d400, 256 }, { 'a', 26 },      { 'A', 26 },
        { 0xfffd, 1 },
    };
    static const char *const others[] = {
        " ",  " ",        " ",      "  ",     "\n",       "\r\n",   " \n",     "\t", "'",
        "'s", "'S",       "'ll",    "'re",    "a",        "A",      "The",     "x",  "1",
        "12", "12345",    "-",      "--",     "/",        "/\n",    "!",       "?!", ", ",
        ". ", "“",        "”",      "\u00a0", "\xc2\x85", "\u017f", "'\u017f", "²",  "½",
        "٣",  "\xcc\x81", "\u200d", "ʼ",      "ǅ",        "İ",      "\ufffd",
    };
    size_t n = 0, want = rng_below(rng, TEXT), a = rng_below(rng, ARRAY_LEN(scripts));
    size_t b = rng_below(rng, ARRAY_LEN(scripts));
    bool rare = rng_below(rng, 8) == 0;
    while (n < want) {
        char u[5];
        size_t kind = rng_below(rng, 8), k = kind < 3 ? a : b;
        if (kind < 5) {
            for (size_t i = 1 + rng_below(rng, 12); i > 0 && n + 4 < TEXT; i--)
                n += utf8_encode(scripts[k].from + (uint32_t)rng_below(rng, scripts[k].n), t + n);
        } else if (kind < 7 || !rare) {
            const char *s = others[rng_below(rng, ARRAY_LEN(others))];
            if (n + strlen(s) > TEXT) break;
            memcpy(t + n, s, strlen(s));
            n += strlen(s);
        } else {
            uint32_t cp = (uint32_t)rng_below(rng, 0x110000);
            size_t len = utf8_encode(cp >= 0xd800 && cp < 0xe000 ? 0xfffd : cp, u);
            if (n + len > TEXT) break;
            memcpy(t + n, u, len);
            n += len;
        }
        if (n + 4 >= TEXT) break;
    }
    return n;
}

static void cuts_are_those_of_the_scanner(void **state)
{
    size_t known[SCAN_END] = { 0 };
    struct rng_fake rng;
    (void)state;
    rng_fake_init(&rng, 1);
    for (int round = 0; round < CUT_ROUNDS; round++) {
        char t[TEXT];
        uint16_t cuts[SCAN_WINDOW];
        size_t n = make_text(&rng.rng, t);
        enum scan_shape shape = (enum scan_shape)(1 + round % SCAN_GPT2);
        for (size_t from = 0; from < n;) {
            size_t some = scripts_cuts(shape, t + from, n - from, cuts), at = 0;
            known[shape] += some;
            for (size_t i = 0; i < some; i++) {
                at += scan_piece(shape, t + from + at, n - from - at, false);
                assert_int_equal(at, cuts[i]);
            }
            from += some > 0 ? at : scan_piece(shape, t + from, n - from, false);
        }
    }
    for (int s = 1; s <= SCAN_GPT2; s++)
        if (s != SCAN_DEEPSEEK) assert_true(known[s] > CUT_ROUNDS);
    assert_int_equal(known[SCAN_DEEPSEEK], 0);
}

static void check_vocab(struct vocab *v, uint64_t seed)
{
    struct rng_fake rng;
    struct piece_cache *cache = piece_cache_take(v);
    words_fn *f = scripts_best(v);
    size_t taken = 0;
    rng_fake_init(&rng, seed);
    assert_non_null(cache);
    for (int round = 0; round < COUNT_ROUNDS; round++) {
        char text[TEXT], *t;
        size_t n = make_text(&rng.rng, text);
        if (n == 0) continue;
        t = malloc(n); /* nothing is read behind it */
        assert_non_null(t);
        memcpy(t, text, n);
        for (size_t at = 0; at < n;) {
            uint64_t tokens = 0;
            size_t some = f(cache, v, t + at, n - at, &tokens);
            tokens += piece_settle(cache, v);
            taken += some;
            at += support_pieces(v, str_n(t + at, n - at), some, tokens);
        }
        support_count(v, str_n(t, n));
        free(t);
    }
    if (v->h->shape != SCAN_DEEPSEEK) assert_true(taken > COUNT_ROUNDS * (size_t)20);
    piece_cache_give(v, cache);
}

static void windows_count_like_their_pieces(void **state)
{
    (void)state;
    support_each_vocab(check_vocab);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cuts_are_those_of_the_scanner),
        cmocka_unit_test(windows_count_like_their_pieces),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
