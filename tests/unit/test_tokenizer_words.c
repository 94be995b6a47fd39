/* SPDX-License-Identifier: Apache-2.0 */
/* Runs of letters without case: every processor's version counts what the scanner and the merges
 * find piece by piece. With VOCAB_DIR, for the vocabularies that are there. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/utf8.h"
#include "support_pieces.h"
#include "tokenizer/merge/piece_cache.h"
#include "tokenizer/scan/words.h"

enum { TEXT = 400, ROUNDS = 6000 };

static size_t put(char *t, size_t n, const char *s, size_t len)
{
    if (n + len > TEXT) return n;
    memcpy(t + n, s, len);
    return n + len;
}

/* A token of characters of three bytes. */
static bool whole_letters(struct str s)
{
    uint32_t cp;
    for (size_t i = 0; i < s.n; i += 3)
        if ((unsigned char)s.p[i] < 0xe3 || utf8_decode(s.p + i, s.n - i, &cp) != 3) return false;
    return s.n > 0;
}

/* Letters at random and from tokens, signs, and what ends a run or makes it something else. */
static size_t make_text(const struct rng *rng, const struct vocab *v, char *t)
{
    static const struct {
        uint32_t from, n;
    } letters[] = {
        { 0x4e00, 0x51c0 }, { 0x4e00, 400 }, { 0x3041, 180 },  { 0xac00, 11172 }, { 0x3400, 600 },
        { 0x9fa0, 0x60 },   { 0x30f8, 8 },   { 0x0e00, 0x60 }, { 0x1100, 200 },
    };
    static const char *const others[] = { " ",  "  ",       "，", "。", "。\n", "、",
                                          "（", "'",        "'s", "a",  "Abc",  "1",
                                          "\n", "\xcc\x81", "é",  "〇", "·",    "\u3000",
                                          "😀",  "ー",       "ﾞ",  "「", "々",   "-" };
    size_t n = 0, want = rng_below(rng, TEXT);
    while (n < want) {
        char u[5];
        struct str token = vocab_token(v, (uint32_t)rng_below(rng, vocab_size(v)));
        size_t kind = rng_below(rng, 8), k = rng_below(rng, ARRAY_LEN(letters));
        if (kind < 3) {
            for (size_t i = 1 + rng_below(rng, 20); i > 0; i--) {
                uint32_t cp = letters[k].from + (uint32_t)rng_below(rng, letters[k].n);
                n = put(t, n, u, utf8_encode(cp, u));
            }
        } else if (kind == 3) {
            const char *s = others[rng_below(rng, ARRAY_LEN(others))];
            n = put(t, n, s, strlen(s));
        } else if (whole_letters(token)) {
            n = put(t, n, token.p, token.n);
        }
    }
    return n;
}

static void check_vocab(struct vocab *v, uint64_t seed)
{
    struct rng_fake rng;
    struct piece_cache *cache = piece_cache_take(v);
    size_t taken = 0, bytes = 0;
    rng_fake_init(&rng, seed);
    assert_non_null(cache);
    for (int round = 0; round < ROUNDS; round++) {
        char t[TEXT];
        size_t n = make_text(&rng.rng, v, t);
        for (size_t at = 0; at < n;) {
            size_t first = SIZE_MAX;
            uint64_t tokens = 0;
            for (int isa = 0; isa < SCAN_ISA_END; isa++) {
                words_fn *f = words_for(v, (enum scan_isa)isa);
                if (f == NULL) continue;
                uint64_t sum = 0;
                size_t some = f(cache, v, t + at, n - at, &sum);
                sum += piece_settle(cache, v);
                if (first == SIZE_MAX) first = some, tokens = sum;
                assert_int_equal(some, first);
                assert_int_equal(sum, tokens);
            }
            taken += first;
            at += support_pieces(v, str_n(t + at, n - at), first, tokens);
        }
        bytes += n;
        support_count(v, str_n(t, n));
    }
    if (words_letter((enum scan_shape)v->h->shape, 0x4e00)) assert_true(taken > bytes / 20);
    piece_cache_give(v, cache);
}

static void runs_count_like_their_pieces(void **state)
{
    (void)state;
    support_each_vocab(check_vocab);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(runs_count_like_their_pieces),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
