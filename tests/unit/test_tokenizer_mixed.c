/* SPDX-License-Identifier: Apache-2.0 */
/* Letters without case, signs and ASCII mixed, many at once: counted like what the scanner and the
 * merges find piece by piece. With VOCAB_DIR, for the vocabularies that are there. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/utf8.h"
#include "support_pieces.h"
#include "tokenizer/scan/mixed.h"
#include "tokenizer/merge/piece_cache.h"
#include "tokenizer/scan/unicode.h"

enum { TEXT = 400, ROUNDS = 6000, LEAST = 8 /* bytes that a window has */ };

static size_t put(char *t, size_t n, const char *s, size_t len)
{
    if (n + len > TEXT) return n;
    memcpy(t + n, s, len);
    return n + len;
}

/* Short runs of everything that a window takes, tokens, and now and then what it does not. */
static size_t make_text(const struct rng *rng, const struct vocab *v, char *t)
{
    static const struct {
        uint32_t from, n;
    } letters[] = {
        { 0x4e00, 300 }, { 0x4e00, 0x51c0 }, { 0x3041, 180 }, { 0xac00, 11172 }, { 0x9fa0, 0x60 },
    };
    static const char *const others[] = {
        " ",     "  ",    "\n", "\r\n", " \n",    "\t",    "，", "。",       "。\n", "、",
        "（",    "）",    "：", "“",    "”",      "'",     "'s", "'S",       "'LL",  "'re",
        "a",     "b",     "ab", "the",  "A",      "B",     "AB", "API",      "Ab",   "aB",
        "Linux", "macOS", "1",  "12",   "2026",   "12345", "-",  "--",       "/",    "/\n",
        "(",     ")",     ": ", ", ",   "\u3000", "…",     "—",  "—",        "　",   "？",
        "！",    "é",     "É",  "〇",   "々",     "·",     "😀",  "\xcc\x81",
    };
    enum { USUAL = 48 }; /* of others */
    size_t n = 0, want = rng_below(rng, TEXT), kinds = 1 + rng_below(rng, ARRAY_LEN(letters));
    bool rare = rng_below(rng, 4) == 0;
    while (n < want) {
        char u[5];
        size_t kind = rng_below(rng, 8), k = rng_below(rng, kinds);
        if (kind < 3) {
            for (size_t i = 1 + rng_below(rng, kind == 0 ? 24 : 4); i > 0; i--) {
                uint32_t cp = letters[k].from + (uint32_t)rng_below(rng, letters[k].n);
                n = put(t, n, u, utf8_encode(cp, u));
            }
        } else if (kind < 7) {
            const char *s = others[rng_below(rng, rare ? ARRAY_LEN(others) : (size_t)USUAL)];
            n = put(t, n, s, strlen(s));
        } else {
            struct str token = vocab_token(v, (uint32_t)rng_below(rng, vocab_size(v)));
            uint32_t cp;
            bool whole = token.n > 0 && token.n < 30;
            for (size_t i = 0, len; whole && i < token.n; i += len) {
                len = utf8_decode(token.p + i, token.n - i, &cp);
                whole = len > 0;
            }
            if (whole) n = put(t, n, token.p, token.n);
        }
    }
    return n;
}

static void check_vocab(struct vocab *v, uint64_t seed)
{
    struct rng_fake rng;
    struct piece_cache *cache = piece_cache_take(v);
    words_fn *f = mixed_best(v);
    size_t taken = 0, bytes = 0;
    rng_fake_init(&rng, seed);
    assert_non_null(cache);
    for (int round = 0; round < ROUNDS; round++) {
        char t[TEXT];
        size_t n = make_text(&rng.rng, v, t);
        for (size_t at = 0; at < n;) {
            uint64_t tokens = 0;
            size_t some = f(cache, v, t + at, n - at, &tokens);
            tokens += piece_settle(cache, v);
            taken += some;
            at += support_pieces(v, str_n(t + at, n - at), some, tokens);
        }
        bytes += n;
        support_count(v, str_n(t, n));
    }
    bool plain = v->h->shape != SCAN_DEEPSEEK;
    if (plain && mixed_kind("x", 1) >= 0) assert_true(taken > bytes / 4);
    piece_cache_give(v, cache);
}

static void windows_count_like_their_pieces(void **state)
{
    (void)state;
    support_each_vocab(check_vocab);
}

/* Each character is of the class that its stand-in has. */
static void stand_ins_are_alike(void **state)
{
    const unsigned letter = UC_L | UC_U | UC_W, all = letter | UC_N | UC_S;
    size_t letters = 0, signs = 0;
    (void)state;
    if (mixed_kind("x", 1) < 0) skip();
    for (uint32_t cp = 1; cp < 0x110000; cp++) {
        char u[LEAST] = "";
        if (cp >= 0xd800 && cp < 0xe000) continue;
        size_t n = utf8_encode(cp, u);
        int kind = mixed_kind(u, n);
        unsigned class = unicode_class(cp);
        if (cp < 0x80) {
            assert_int_equal(kind, cp);
        } else if (kind == 'x') {
            assert_int_equal(class & all, letter);
            letters++;
        } else if (kind == '#') {
            assert_int_equal(class & all, 0);
            signs++;
        } else if (kind == '\t') {
            assert_int_equal(class & all, UC_S);
        } else {
            assert_int_equal(kind, 0);
        }
        for (size_t k = 1; k < n; k++) /* cut off */
            if (cp >= 0x80) assert_int_equal(mixed_kind(u, k), 0);
    }
    assert_true(letters > 30000);
    assert_true(signs > 60);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(windows_count_like_their_pieces),
        cmocka_unit_test(stand_ins_are_alike),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
