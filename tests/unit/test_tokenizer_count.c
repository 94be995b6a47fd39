/* SPDX-License-Identifier: Apache-2.0 */
/* Exact counts: merges by every method, whole pieces, added tokens, texts that come in pieces. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "support_vocab.h"
#include "tokenizer/merge/bpe.h"
#include "tokenizer/scan/estimate.h"
#include "tokenizer/merge/joins.h"
#include "tokenizer/merge/piece_cache.h"

static struct support_vocab made;

static const struct support_vocab *made_now(void)
{
    support_init(&made, support_words, ARRAY_LEN(support_words));
    return &made;
}

static struct vocab *open_made(bool nfc)
{
    return support_open(made_now(), PATTERN_QWEN, nfc);
}

/* A real vocabulary, NULL when it was not fetched; of no name, the one that was made. */
static struct vocab *open_named(const char *name, const struct support_vocab *own, bool nfc)
{
    return name == NULL ? support_open(own, PATTERN_QWEN, nfc) : support_real(name);
}

static void all_methods_merge_alike(void **state)
{
    (void)state;
    struct vocab *v = open_made(false);
    struct rng_fake rng;
    rng_fake_init(&rng, 1);
    char p[BPE_SHORT];
    uint32_t plain[BPE_SHORT], heap[BPE_SHORT], last[BPE_SHORT], count[BPE_SHORT];
    size_t book[BPE_SHORT], long_pieces = 0;
    assert_int_equal(v->h->linear, 1);
    for (int round = 0; round < 20000; round++) {
        size_t n = 1 + rng_below(&rng.rng, BPE_SHORT);
        for (size_t i = 0; i < n; i++)
            p[i] = "aabcxy hel!\n"[rng_below(&rng.rng, round % 2 == 0 ? 4 : 12)];
        size_t want = support_merge(&made, p, n, book), got;
        assert_int_equal(bpe_merge_plain(v, p, n, plain), want);
        assert_int_equal(bpe_merge_heap(v, p, n, heap, &got), ERR_OK);
        assert_int_equal(got, want);
        bpe_prefixes(v, p, n, last, count);
        assert_int_equal(count[n - 1], want);
        size_t at = n;
        for (size_t k = want; k > 0; k--) {
            assert_int_equal(plain[k - 1], book[k - 1]);
            assert_int_equal(heap[k - 1], book[k - 1]);
            assert_int_equal(last[at - 1], book[k - 1]);
            at -= vocab_token_len(v, last[at - 1]);
        }
        for (size_t k = 1; k <= n; k++)
            assert_int_equal(count[k - 1], support_merge(&made, p, k, book));
        long_pieces += n > 30;
    }
    assert_true(long_pieces > 1000);
    vocab_unref(v);
}

/* Runs of one kind, broken at random places: tokens come again after those of the longest token, or
 * of a shorter one where that is what a run is made of. Every prefix is right. */
static void tokens_that_come_again_are_the_right_ones(void **state)
{
    const char *const names[] = { NULL, "mistral_nemo", "qwen3", "o200k_base" };
    const char *const words[] = { "bb",   "bbbb",         "bbbbbbbb",     "bbbbbbbbbbb",
                                  "cdcd", "cdcdcdcdcdcd", "cdcdcdcdcdcdc" };
    const char *const units[] = { "b", "cd", " ", "*", "=-", "\n", "a" };
    enum { N = 400 };
    static struct support_vocab own;
    (void)state;
    support_init(&own, words, ARRAY_LEN(words));
    for (size_t k = 0; k < ARRAY_LEN(names); k++) {
        struct vocab *v = open_named(names[k], &own, false);
        struct rng_fake rng;
        if (v == NULL) continue; /* not fetched */
        assert_int_equal(v->h->linear, 1);
        rng_fake_init(&rng, 70 + k);
        for (size_t round = 0; round < 40; round++) {
            char p[N];
            uint32_t last[N], count[N], heap[N];
            const char *unit = units[round % ARRAY_LEN(units)];
            for (size_t i = 0; i < N; i++) p[i] = unit[i % strlen(unit)];
            for (uint64_t breaks = rng_below(&rng.rng, 4); breaks > 0; breaks--)
                p[rng_below(&rng.rng, N)] = "bc *x"[rng_below(&rng.rng, 5)];
            bpe_prefixes(v, p, N, last, count);
            for (size_t n = 1; n <= N; n++) {
                size_t want;
                assert_int_equal(bpe_merge_heap(v, p, n, heap, &want), ERR_OK);
                assert_int_equal(count[n - 1], want);
                assert_int_equal(last[n - 1], heap[want - 1]);
            }
        }
        vocab_unref(v);
    }
}

/* The same of longer ones, which are not looked at byte by byte any more. */
static void tokens_of_long_runs_are_the_right_ones(void **state)
{
    const char *const names[] = { NULL, "mistral_nemo", "qwen3", "o200k_base" };
    const char *const words[] = { "bb", "bbbb", "bbbbbbb", "cdcd", "cdcdcdcdcdcdc", "\xef\xbf" };
    const char *const units[] = { "b", "cd", "\xef\xbf\xbd", " ", "bcd", "=-", "\xf0\x9f\x98\x80" };
    enum { N = 3000, PREFIXES = 4 };
    static struct support_vocab own;
    static uint32_t last[N], count[N], heap[N];
    (void)state;
    support_init(&own, words, ARRAY_LEN(words));
    for (size_t k = 0; k < ARRAY_LEN(names); k++) {
        struct vocab *v = open_named(names[k], &own, false);
        struct rng_fake rng;
        if (v == NULL) continue; /* not fetched */
        rng_fake_init(&rng, 90 + k);
        for (size_t round = 0; round < 28; round++) {
            char p[N];
            const char *unit = units[round % ARRAY_LEN(units)];
            for (size_t i = 0; i < N; i++) p[i] = unit[i % strlen(unit)];
            for (size_t breaks = round / ARRAY_LEN(units); breaks > 0; breaks--)
                p[rng_below(&rng.rng, N)] = "bc *x"[rng_below(&rng.rng, 5)];
            bpe_prefixes(v, p, N, last, count);
            for (size_t i = 0; i < PREFIXES; i++) {
                size_t n = i == 0 ? N : 1 + rng_below(&rng.rng, N), want;
                assert_int_equal(bpe_merge_heap(v, p, n, heap, &want), ERR_OK);
                assert_int_equal(count[n - 1], want);
                for (size_t at = n; at > 0; at -= vocab_token_len(v, last[at - 1]))
                    assert_int_equal(last[at - 1], heap[--want]);
            }
            uint64_t counted;
            assert_int_equal(bpe_part(v, p, N, false, NULL, &counted), ERR_OK);
            assert_int_equal(counted, count[N - 1]);
        }
        vocab_unref(v);
    }
}

/* Counting alone keeps only the last prefixes: the same as with all of them, also where runs and
 * other text meet at the places where it moves on. */
static void counting_keeps_the_prefixes_it_needs(void **state)
{
    const char *const names[] = { NULL, "mistral_nemo", "qwen3", "o200k_base" };
    const char *const words[] = { "bb", "bbbb", "bbbbbbb", "cdcd", "cdcdcdcdcdcdc", "\xef\xbf" };
    const char *const units[] = { "b", "cd", "\xef\xbf\xbd", " ", "bcd", "=-" };
    enum { N = 70000 };
    static struct support_vocab own;
    static uint32_t last[N], count[N];
    static char p[N];
    (void)state;
    support_init(&own, words, ARRAY_LEN(words));
    for (size_t k = 0; k < ARRAY_LEN(names); k++) {
        struct vocab *v = open_named(names[k], &own, false);
        struct rng_fake rng;
        if (v == NULL) continue; /* not fetched */
        rng_fake_init(&rng, 110 + k);
        for (size_t round = 0; round < 12; round++) {
            for (size_t at = 0; at < N;) {
                const char *unit = units[rng_below(&rng.rng, ARRAY_LEN(units))];
                size_t some = round == 0 ? N : 1 + rng_below(&rng.rng, 1u << (6 + round));
                for (size_t i = 0; i < some && at < N; i++) p[at++] = unit[i % strlen(unit)];
            }
            bpe_prefixes(v, p, N, last, count);
            size_t n = N - rng_below(&rng.rng, round < 6 ? 10 : N - 1);
            uint32_t counted;
            assert_int_equal(bpe_prefixes_count(v, p, n, NULL, &counted), ERR_OK);
            assert_int_equal(counted, count[n - 1]);
        }
        vocab_unref(v);
    }
}

static void pieces_merged_together_come_out_alike(void **state)
{
    const char *const names[] = { NULL, "qwen3", "o200k_base", "deepseek_v3" };
    enum { MANY = 40 };
    static char p[MANY][BPE_MANY];
    (void)state;
    for (size_t k = 0; k < sizeof names / sizeof names[0]; k++) {
        struct vocab *v = open_named(names[k], made_now(), false);
        struct rng_fake rng;
        if (v == NULL) continue; /* not fetched */
        rng_fake_init(&rng, 9 + k);
        for (int round = 0; round < 500; round++) {
            struct bpe_short pieces[MANY];
            static uint32_t ids[MANY][BPE_MANY];
            size_t n = 1 + rng_below(&rng.rng, MANY);
            for (size_t i = 0; i < n; i++) {
                pieces[i] = (struct bpe_short){ .p = p[i],
                                                .n = 1 + (unsigned)rng_below(&rng.rng, BPE_MANY),
                                                .ids = i % 3 > 0 ? ids[i] : NULL };
                for (unsigned b = 0; b < pieces[i].n; b++)
                    p[i][b] = "eeeaaaotinrsl hxyz_=-A!\n"[rng_below(&rng.rng, round % 2 ? 24 : 4)];
            }
            bpe_many_fn *f = bpe_many_for((enum scan_isa)(round % SCAN_ISA_END));
            (f != NULL ? f : bpe_many)(v, pieces, n);
            for (size_t i = 0; i < n; i++) {
                uint32_t heap[BPE_MANY];
                size_t want, at = 0;
                assert_int_equal(bpe_merge_heap(v, pieces[i].p, pieces[i].n, heap, &want), ERR_OK);
                assert_int_equal(pieces[i].count, want);
                if (pieces[i].ids == NULL) continue;
                assert_memory_equal(pieces[i].ids, heap, want * sizeof *heap);
                for (size_t t = 0; t < want; at += vocab_token_len(v, heap[t++]))
                    assert_true((pieces[i].starts >> at & 1) != 0);
                assert_int_equal(__builtin_popcount(pieces[i].starts), want);
            }
        }
        vocab_unref(v);
    }
}

static void runs_that_begin_alike_are_counted_on(void **state)
{
    const char *const names[] = { NULL, "qwen3", "o200k_base" };
    enum { MOST = 700 };
    static char p[MOST];
    static uint32_t heap[MOST];
    (void)state;
    for (size_t k = 0; k < sizeof names / sizeof names[0]; k++) {
        struct vocab *v = names[k] == NULL ? open_made(false) : support_real(names[k]);
        struct rng_fake rng;
        if (v == NULL) continue; /* not fetched */
        rng_fake_init(&rng, 11 + k);
        struct bpe_run *r = bpe_run_new(MOST);
        assert_non_null(r);
        for (int round = 0; round < 300; round++) {
            /* of one of a few units, broken off somewhere, and with some other end */
            static const char *const units[] = { " ", "a", "-=", "ab", "\t ", "*" };
            const char *unit = units[rng_below(&rng.rng, 6)];
            size_t n = 1 + rng_below(&rng.rng, MOST), want;
            for (size_t i = 0; i < n; i++) p[i] = unit[i % strlen(unit)];
            for (size_t i = n - rng_below(&rng.rng, MIN(n, (size_t)20)); i < n; i++)
                p[i] = "ea -=\n"[rng_below(&rng.rng, 6)];
            assert_int_equal(bpe_merge_heap(v, p, n, heap, &want), ERR_OK);
            assert_int_equal(bpe_run_count(r, v, p, n), want);
        }
        bpe_run_free(r);
        vocab_unref(v);
    }
}

static void pieces_that_come_again_are_found(void **state)
{
    (void)state;
    struct vocab *v = open_made(false);
    struct vocab_cache_stats s;
    uint64_t n;
    vocab_cache_stats(v, &s);
    assert_int_equal(s.hits + s.misses, 0);
    for (uint64_t i = 1; i <= 10; i++) {
        assert_int_equal(token_count(v, STR("abca abca abca xyx"), SPECIAL_TEXT, &n), ERR_OK);
        vocab_cache_stats(v, &s);
        assert_int_equal(s.misses, 3); /* abca, _abca, _xyx */
        assert_int_equal(s.hits, 4 * i - 3);
    }
    vocab_unref(v);
}

/* A piece of n bytes, n <= room, of valid UTF-8: characters of tokens, and others near them. */
static size_t make_piece(const struct rng *rng, const struct vocab *v, char *p, size_t room)
{
    size_t n = 0, want = 1 + rng_below(rng, room);
    for (int tries = 0; tries < 200 && n < want; tries++) {
        struct str t = vocab_token(v, (uint32_t)rng_below(rng, v->h->size));
        uint32_t cp;
        for (size_t i = 0, len; i < t.n && n + 4 <= want; i += len) {
            len = utf8_decode(t.p + i, t.n - i, &cp);
            if (len == 0) {
                /* a token that begins or ends within a character: any character around it */
                char u[4];
                unsigned char c = (unsigned char)t.p[i];
                cp = c < 0xc0 ? 0x4e00 + (uint32_t)rng_below(rng, 300) * 64 + (c & 63)
                              : ((c & 15u) << 12 | (uint32_t)rng_below(rng, 4096));
                len = 1;
                if (cp < 0x800 || (cp >= 0xd800 && cp < 0xe000)) continue;
                size_t k = utf8_encode(cp, u);
                memcpy(p + n, u, k);
                n += k;
            } else {
                memcpy(p + n, t.p + i, len);
                n += len;
            }
        }
    }
    return n;
}

static void parts_of_a_piece_merge_like_the_whole(void **state)
{
    const char *const names[] = { NULL, "qwen3", "o200k_base", "deepseek_v3", "llama3_2" };
    (void)state;
    for (size_t k = 0; k < sizeof names / sizeof names[0]; k++) {
        struct vocab *v = open_named(names[k], made_now(), false);
        struct rng_fake rng;
        if (v == NULL) continue; /* not fetched */
        rng_fake_init(&rng, 11 + k);
        struct piece_cache *cache = piece_cache_take(v);
        size_t parts = 0;
        assert_non_null(cache);
        for (int round = 0; round < 40000; round++) {
            char p[96];
            uint32_t heap[96];
            size_t n = make_piece(&rng.rng, v, p, sizeof p), want = 1;
            struct token_list l = { 0 };
            uint64_t got, counted;
            bool chars;
            if (n == 0) continue;
            uint32_t whole = vocab_whole(v, p, n);
            if (whole == VOCAB_NO_TOKEN)
                assert_int_equal(bpe_merge_heap(v, p, n, heap, &want), ERR_OK);
            else
                heap[0] = whole;
            assert_int_equal(bpe_piece(v, p, n, &l, &got), ERR_OK);
            assert_int_equal(piece_count(cache, v, p, n, &counted), ERR_OK);
            assert_int_equal(got, want);
            assert_int_equal(counted, want);
            assert_int_equal(piece_count(cache, v, p, n, &counted), ERR_OK); /* from the cache */
            assert_int_equal(counted, want);
            assert_memory_equal(l.ids, heap, want * sizeof *heap);
            token_list_done(&l);
            parts += joins_part(v, p, n, &chars) < n;
        }
        assert_true(parts > 1000);
        piece_cache_give(v, cache);
        vocab_unref(v);
    }
}

static void long_pieces_merge_like_the_whole(void **state)
{
    const char *const names[] = { NULL, "qwen3", "o200k_base", "deepseek_v3", "llama3_2" };
    enum { MOST = 2000 };
    static char p[MOST];
    static uint32_t heap[MOST];
    (void)state;
    for (size_t k = 0; k < sizeof names / sizeof names[0]; k++) {
        struct vocab *v = open_named(names[k], made_now(), false);
        struct rng_fake rng;
        if (v == NULL) continue; /* not fetched */
        rng_fake_init(&rng, 5 + k);
        for (int round = 0; round < 600; round++) {
            /* letters, signs or bytes, with tokens and runs among them */
            const unsigned most = round % 4 == 3 ? 2 * BPE_PLAIN : MOST;
            size_t n = BPE_SHORT + 1 + rng_below(&rng.rng, most - BPE_SHORT), want;
            const unsigned from = round % 3 == 0 ? 'a' : round % 3 == 1 ? '!' : 0;
            const unsigned kinds = round % 3 == 0 ? 26 : round % 3 == 1 ? 15 : 256;
            for (size_t i = 0; i < n;) {
                uint64_t dice = rng_below(&rng.rng, 60);
                struct str t = vocab_token(v, (uint32_t)rng_below(&rng.rng, vocab_size(v)));
                size_t some = 1;
                if (dice == 0 && t.p != NULL && t.n > 0) {
                    some = MIN(t.n, n - i);
                    memcpy(p + i, t.p, some);
                } else {
                    if (dice == 1) some = 1 + rng_below(&rng.rng, 90);
                    some = MIN(some, n - i);
                    memset(p + i, (int)(from + rng_below(&rng.rng, kinds)), some);
                }
                i += some;
            }
            struct token_list l = { 0 };
            uint64_t got, counted;
            assert_int_equal(bpe_merge_heap(v, p, n, heap, &want), ERR_OK);
            assert_int_equal(bpe_part(v, p, n, false, &l, &got), ERR_OK);
            assert_int_equal(bpe_part(v, p, n, false, NULL, &counted), ERR_OK);
            assert_int_equal(got, want);
            assert_int_equal(counted, want);
            assert_int_equal(l.len, want);
            assert_memory_equal(l.ids, heap, want * sizeof *heap);
            token_list_done(&l);
        }
        vocab_unref(v);
    }
}

static void a_long_run_is_counted_in_time(void **state)
{
    (void)state;
    struct vocab *v = open_made(true);
    enum { N = 400000 };
    char *p = malloc(N);
    uint64_t n;
    assert_non_null(p);
    memset(p, 'a', N);
    assert_int_equal(token_count(v, str_n(p, N), SPECIAL_TEXT, &n), ERR_OK);
    assert_int_equal(n, N / 8);
    memset(p, ' ', N);
    assert_int_equal(token_count(v, str_n(p, N), SPECIAL_TEXT, &n), ERR_OK);
    assert_int_equal(n, N / 4);
    for (int i = 0; i < N; i += 2) p[i] = (char)0xcc, p[i + 1] = (char)(i % 4 == 0 ? 0x81 : 0xa3);
    assert_int_equal(token_count(v, str_n(p, N), SPECIAL_TEXT, &n), ERR_OK);
    assert_int_equal(n, N); /* each mark is two tokens of one byte */
    free(p);
    vocab_unref(v);
}

static void ids_are(const struct vocab *v, const char *text, enum special_mode mode, size_t n,
                    const char *const *tokens)
{
    struct token_list l = { .want_ends = true };
    size_t end = 0;
    assert_int_equal(token_encode(v, str_of(text), mode, &l), ERR_OK);
    assert_int_equal(l.len, n);
    for (size_t i = 0; i < n; i++) {
        struct str t = vocab_token(v, l.ids[i]);
        assert_true(str_eqz(t, tokens[i]));
        end += t.n;
        assert_int_equal(l.ends[i], end);
    }
    token_list_done(&l);
}

static void added_tokens_are_tokens_only_when_asked_for(void **state)
{
    (void)state;
    struct vocab *v = open_made(true);
    uint32_t id;
    ids_are(v, "ab<|end|>ab", SPECIAL_CONTROL, 3, (const char *[]){ "ab", "<|end|>", "ab" });
    ids_are(v, "ab<|end|>", SPECIAL_TEXT, 8,
            (const char *[]){ "ab", "<", "|", "e", "n", "d", "|", ">" });
    /* the longest one wins, and one that is cut off is text */
    ids_are(v, "<thinking><think>", SPECIAL_CONTROL, 2,
            (const char *[]){ "<thinking>", "<think>" });
    ids_are(v, "<<think", SPECIAL_CONTROL, 5, (const char *[]){ "<", "<", "th", "in", "k" });
    assert_int_equal(vocab_added_id(v, STR("<think>"), &id), ERR_OK);
    assert_true(str_eqz(vocab_token(v, id), "<think>"));
    assert_int_equal(vocab_added_id(v, STR("<thin"), &id), ERR_NOT_FOUND);
    vocab_unref(v);
}

/* What added tokens and the texts between them count, found the plain way: the longest one at each
 * place. */
static uint64_t count_plainly(struct vocab *v, struct str text)
{
    static const struct str added[] = { { "<thinking>", 10 }, { "<|end|>", 7 }, { "<think>", 7 } };
    uint64_t sum = 0, n;
    size_t from = 0, i = 0;
    while (i <= text.n) {
        size_t k = 0;
        while (k < ARRAY_LEN(added) && !str_starts(str_n(text.p + i, text.n - i), added[k])) k++;
        if (k == ARRAY_LEN(added) && i < text.n) {
            i++;
            continue;
        }
        assert_int_equal(token_count(v, str_n(text.p + from, i - from), SPECIAL_TEXT, &n), ERR_OK);
        sum += n + (i < text.n);
        from = i += i < text.n ? added[k].n : 1;
    }
    return sum;
}

static void added_tokens_are_found_wherever_they_stand(void **state)
{
    static const char *const parts[] = { "<think",          "ing", ">",  "<",       "|",
                                         "<|end",           "|>",  "ab", "<|end|>", "<thinking>",
                                         "abababababababab" };
    struct vocab *v = open_made(true);
    uint64_t random = 88172645463325252u;
    (void)state;
    for (int round = 0; round < 3000; round++) {
        struct token_counter c;
        struct buf text;
        uint64_t whole, streamed;
        buf_init(&text, 1000);
        for (int k = 0; k < round % 12; k++) {
            random ^= random << 13, random ^= random >> 7, random ^= random << 17;
            assert_int_equal(buf_appendz(&text, parts[random % ARRAY_LEN(parts)]), ERR_OK);
        }
        struct str all = str_n(text.len > 0 ? text.data : "", text.len);
        assert_int_equal(token_count(v, all, SPECIAL_CONTROL, &whole), ERR_OK);
        assert_int_equal(whole, count_plainly(v, all));
        token_counter_init(&c, v, SPECIAL_CONTROL, NULL);
        for (size_t at = 0, n; at < all.n; at += n) {
            n = MIN(all.n - at, 1 + random % 5);
            assert_int_equal(token_counter_feed(&c, str_n(all.p + at, n)), ERR_OK);
        }
        assert_int_equal(token_counter_finish(&c, &streamed), ERR_OK);
        assert_int_equal(streamed, whole);
        token_counter_done(&c);
        buf_done(&text);
    }
    vocab_unref(v);
}

static void what_the_normalizer_rewrites_counts_as_rewritten(void **state)
{
    (void)state;
    struct vocab *v = open_made(true), *raw = open_made(false);
    struct token_list l = { .want_ends = true };
    uint64_t n;
    assert_int_equal(token_count(v, STR("e\u0301"), SPECIAL_TEXT, &n), ERR_OK);
    assert_int_equal(n, 1); /* é is a token */
    assert_int_equal(token_count(raw, STR("e\u0301"), SPECIAL_TEXT, &n), ERR_OK);
    assert_int_equal(n, 3); /* the letter is a piece, the mark's two bytes another */
    assert_int_equal(token_encode(v, STR("ab e\u0301ab"), SPECIAL_TEXT, &l), ERR_OK);
    assert_int_equal(l.ends[l.len - 1], 8);
    for (size_t i = 1; i < l.len; i++) assert_true(l.ends[i] >= l.ends[i - 1]);
    token_list_done(&l);
    vocab_unref(v);
    vocab_unref(raw);
}

static void a_text_in_pieces_counts_like_the_whole(void **state)
{
    const char *const names[] = { NULL, "qwen3", "o200k_base", "deepseek_v3", "mistral_nemo" };
    (void)state;
    for (size_t k = 0; k < sizeof names / sizeof names[0]; k++) {
        struct vocab *v = open_named(names[k], made_now(), true);
        struct rng_fake rng;
        char text[4000];
        if (v == NULL) continue; /* not fetched */
        rng_fake_init(&rng, 7 + k);
        for (int round = 0; round < 1500; round++) {
            size_t n = support_text(&rng.rng, text, sizeof text);
            enum special_mode mode = round % 2 == 0 ? SPECIAL_TEXT : SPECIAL_CONTROL;
            struct token_list whole = { 0 }, parts = { 0 };
            struct token_counter c;
            uint64_t count, total;
            assert_int_equal(token_encode(v, str_n(text, n), mode, &whole), ERR_OK);
            assert_int_equal(token_count(v, str_n(text, n), mode, &total), ERR_OK);
            assert_int_equal(total, whole.len);
            token_counter_init(&c, v, mode, &parts);
            for (size_t i = 0, len; i < n; i += len) {
                len = 1 + rng_below(&rng.rng, round % 3 == 0 ? 2 : 300);
                len = MIN(len, n - i);
                char *copy = malloc(len); /* so that a sanitizer sees reading beyond it */
                assert_non_null(copy);
                memcpy(copy, text + i, len);
                assert_int_equal(token_counter_feed(&c, str_n(copy, len)), ERR_OK);
                free(copy);
            }
            assert_int_equal(token_counter_finish(&c, &count), ERR_OK);
            assert_int_equal(count, total);
            assert_int_equal(parts.len, whole.len);
            if (whole.len > 0)
                assert_memory_equal(parts.ids, whole.ids, whole.len * sizeof *whole.ids);
            token_counter_done(&c);
            token_list_done(&whole);
            token_list_done(&parts);
        }
        vocab_unref(v);
    }
}

/* What normalization takes together is longer than a block, and its first piece is done before the
 * next bytes come: what is asked for then is not there yet. */
static void marks_beyond_a_block_count_like_the_whole(void **state)
{
    enum { MARKS = 2690, ALL = 1 + 2 * MARKS + 2 };
    struct vocab *v = open_made(true);
    char *text = malloc(ALL);
    (void)state;
    assert_non_null(text);
    text[0] = 'a';
    for (size_t i = 0; i < MARKS; i++)
        memcpy(text + 1 + 2 * i, i % 2 == 0 ? "\xcc\xa3" : "\xcc\x81", 2);
    memcpy(text + ALL - 2, "!!", 2);
    for (size_t first = ALL - 2; first <= ALL; first++) {
        struct token_counter c;
        uint64_t count, total;
        assert_int_equal(token_count(v, str_n(text, ALL), SPECIAL_TEXT, &total), ERR_OK);
        token_counter_init(&c, v, SPECIAL_TEXT, NULL);
        assert_int_equal(token_counter_feed(&c, str_n(text, first)), ERR_OK);
        for (size_t i = first; i < ALL; i++)
            assert_int_equal(token_counter_feed(&c, str_n(text + i, 1)), ERR_OK);
        assert_int_equal(token_counter_finish(&c, &count), ERR_OK);
        assert_int_equal(count, total);
        token_counter_done(&c);
    }
    free(text);
    vocab_unref(v);
}

/* Counts of fixed texts, as Hugging Face's and OpenAI's own engines give them. */
static void known_texts_have_their_known_counts(void **state)
{
    static const char text[] =
        "The gateway doesn't lose tokens: 1,234 of them, naïve café, 东京都 テスト, "
        "हिन्दी, \U0001f642\U0001f469\u200d\U0001f4bb\n\n\tif (x != 0) { return; }   \n";
    static const struct {
        const char *name;
        uint64_t tokens;
    } known[] = { { "qwen3", 52 },        { "deepseek_v3", 46 }, { "llama3_2", 47 },
                  { "mistral_nemo", 54 }, { "cl100k_base", 54 }, { "o200k_base", 43 } };
    (void)state;
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        struct vocab *v = support_real(known[i].name);
        uint64_t n;
        if (v == NULL) continue; /* not fetched */
        assert_int_equal(token_count(v, str_of(text), SPECIAL_TEXT, &n), ERR_OK);
        assert_int_equal(n, known[i].tokens);
        vocab_unref(v);
    }
}

static void an_estimate_does_not_depend_on_the_split(void **state)
{
    (void)state;
    struct rng_fake rng;
    char text[2000];
    rng_fake_init(&rng, 9);
    assert_int_equal(token_estimate(STR("")), 0);
    assert_int_equal(token_estimate(STR("\t")), 1);
    for (int round = 0; round < 600; round++) {
        size_t n = support_text(&rng.rng, text, sizeof text);
        struct token_estimate e = { 0 };
        for (size_t i = 0, len; i < n; i += len) {
            len = 1 + rng_below(&rng.rng, 5);
            len = MIN(len, n - i);
            token_estimate_feed(&e, str_n(text + i, len));
        }
        assert_int_equal(token_estimate_count(&e), token_estimate(str_n(text, n)));
        assert_true(n == 0 || token_estimate_count(&e) > 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_methods_merge_alike),
        cmocka_unit_test(tokens_that_come_again_are_the_right_ones),
        cmocka_unit_test(tokens_of_long_runs_are_the_right_ones),
        cmocka_unit_test(counting_keeps_the_prefixes_it_needs),
        cmocka_unit_test(pieces_merged_together_come_out_alike),
        cmocka_unit_test(runs_that_begin_alike_are_counted_on),
        cmocka_unit_test(pieces_that_come_again_are_found),
        cmocka_unit_test(parts_of_a_piece_merge_like_the_whole),
        cmocka_unit_test(long_pieces_merge_like_the_whole),
        cmocka_unit_test(a_long_run_is_counted_in_time),
        cmocka_unit_test(added_tokens_are_tokens_only_when_asked_for),
        cmocka_unit_test(added_tokens_are_found_wherever_they_stand),
        cmocka_unit_test(what_the_normalizer_rewrites_counts_as_rewritten),
        cmocka_unit_test(a_text_in_pieces_counts_like_the_whole),
        cmocka_unit_test(marks_beyond_a_block_count_like_the_whole),
        cmocka_unit_test(known_texts_have_their_known_counts),
        cmocka_unit_test(an_estimate_does_not_depend_on_the_split),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
