/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Windows of letters of three bytes and ASCII. Masks have a bit per byte, per character or per
 * letter of the window: `pext` and `pdep` lead from one to the other. Pure; the cache is its
 * owner's.
 */
#include "tokenizer/scan/mixed.h"

#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "tokenizer/merge/joins.h"
#include "tokenizer/merge/piece_cache.h"
#include "tokenizer/scan/unicode.h"
#include "tokenizer/scan/words_pairs.h"

static size_t count_nothing(struct piece_cache *c, const struct vocab *v, const char *p, size_t n,
                            uint64_t *count)
{
    (void)c, (void)v, (void)p, (void)n, (void)count;
    return 0;
}

#if defined(__x86_64__)

#define TARGET \
    __attribute__((target("avx2,bmi,bmi2,popcnt,avx512f,avx512bw,avx512vbmi,avx512vbmi2")))
#define INLINE TARGET static inline __attribute__((always_inline))
#define BYTES(c) _mm512_set1_epi8((char)(c))
#define EACH(x) _mm512_set1_epi32((int)(x))
#define EQUAL(x, c) _mm512_cmpeq_epi8_mask(x, BYTES(c))
#define WITHIN(x, from, to) \
    _mm512_cmple_epu8_mask(_mm512_sub_epi8(x, BYTES(from)), BYTES((to) - (from)))

INLINE uint64_t below(unsigned n) /* n in 0..63 */
{
    return ((uint64_t)1 << n) - 1;
}

INLINE unsigned lowest(uint64_t x) /* x != 0 */
{
    return (unsigned)__builtin_ctzll(x);
}

/* A bit per byte; of characters of three bytes, the first. */
struct kinds {
    uint64_t begins; /* characters */
    uint64_t high;   /* not ASCII */
    uint64_t letter, sign, blank;
};

/* `usual` letters as in words.c, and signs and white space that often stand beside them. */
INLINE void kinds_of(__m512i x, struct kinds *k)
{
    uint64_t follows = _mm512_cmplt_epi8_mask(x, BYTES(0xc0)), two = follows >> 1 & follows >> 2;
    uint64_t letter = WITHIN(x, 0xe5, 0xe8); /* U+5000 to U+8FFF */
    letter |= (EQUAL(x, 0xe4) & _mm512_cmpge_epu8_mask(x, BYTES(0xb8)) >> 1) |
              (EQUAL(x, 0xe9) & _mm512_cmple_epu8_mask(x, BYTES(0xbe)) >> 1);
    letter |= WITHIN(x, 0xeb, 0xec) | /* U+AC00 to U+D77F */
              (EQUAL(x, 0xea) & _mm512_cmpge_epu8_mask(x, BYTES(0xb0)) >> 1) |
              (EQUAL(x, 0xed) & _mm512_cmple_epu8_mask(x, BYTES(0x9d)) >> 1);
    uint64_t e3 = EQUAL(x, 0xe3), is80 = EQUAL(x, 0x80) >> 1, is81 = EQUAL(x, 0x81);
    letter |= e3 & ((is81 >> 1 & _mm512_cmpge_epu8_mask(x, BYTES(0x81)) >> 2) |
                    (EQUAL(x, 0x82) >> 1 & ~(WITHIN(x, 0x97, 0xa0) >> 2)) |
                    (EQUAL(x, 0x83) >> 1 & ~(EQUAL(x, 0xbb) >> 2)));
    k->begins = ~follows;
    k->high = _mm512_movepi8_mask(x);
    k->letter = letter & two;
    k->blank = e3 & is80 & EQUAL(x, 0x80) >> 2;
    k->sign = (e3 & is80 & (WITHIN(x, 0x81, 0x84) | WITHIN(x, 0x88, 0x9f)) >> 2) |
              (EQUAL(x, 0xe2) & is80 & WITHIN(x, 0x90, 0xa7) >> 2) |
              (EQUAL(x, 0xef) & EQUAL(x, 0xbc) >> 1 &
               (WITHIN(x, 0x81, 0x8f) | WITHIN(x, 0x9a, 0xa0) | WITHIN(x, 0xbb, 0xbf)) >> 2) |
              (EQUAL(x, 0xef) & EQUAL(x, 0xbf) >> 1 & EQUAL(x, 0xbd) >> 2);
}

/*
 * Of the letters without case that stand before some of upper case, those that are as good as upper
 * case where words are cut by case: nothing of lower case stands before them in the word, and the
 * ones of upper case are not its end. All others are as good as lower case. *ret_unknown has the
 * first letter of upper case where that is not known.
 */
INLINE uint64_t as_upper(uint64_t letter, uint64_t upper, uint64_t lower, uint64_t quote,
                         uint64_t known, uint64_t *ret_unknown)
{
    uint64_t all = 0;
    for (uint64_t rest = letter & upper >> 1; rest != 0; rest &= rest - 1) {
        unsigned last = lowest(rest);
        uint64_t before = ~letter & below(last);
        unsigned first = before == 0 ? 0 : 64 - (unsigned)__builtin_clzll(before);
        uint64_t behind = ~upper & ~below(last + 1);
        bool begun = first > 0 && (lower >> (first - 1) & 1) != 0;
        bool maybe = begun && (quote << 3 >> first & 3) != 0; /* that was of a contraction */
        if (maybe || behind == 0 || (behind & -behind & known) == 0) {
            *ret_unknown |= (uint64_t)2 << last;
            break;
        }
        bool more = (behind & -behind & (lower | letter)) != 0;
        if (more && !begun) all |= below(last + 1) & ~below(first);
    }
    return all;
}

/* Where pieces end, a bit per character: as scan_window_fn. */
INLINE uint64_t ends_of(const struct vocab *v, __m512i x, const struct kinds *k)
{
    const __m512i unknown = BYTES(0xff);
    char chars[SCAN_WINDOW];
    uint64_t known = ~k->high | k->letter | k->sign | k->blank;
    x = _mm512_mask_mov_epi8(unknown, known, x);
    x = _mm512_mask_mov_epi8(x, k->letter, BYTES('x'));
    x = _mm512_mask_mov_epi8(x, k->sign, BYTES('#'));
    x = _mm512_mask_mov_epi8(x, k->blank, BYTES('\t'));
    x = _mm512_mask_compress_epi8(unknown, k->begins, x);
    if (v->h->shape == SCAN_O200K || v->h->shape == SCAN_TEKKEN) {
        uint64_t upper = WITHIN(x, 'A', 'Z'), letter = _pext_u64(k->letter, k->begins);
        if ((letter & upper >> 1) != 0) {
            uint64_t lost = 0, lower = WITHIN(x, 'a', 'z') & ~letter;
            uint64_t there = ~_mm512_movepi8_mask(x);
            uint64_t change = as_upper(letter, upper, lower, EQUAL(x, '\''), there, &lost);
            x = _mm512_mask_mov_epi8(x, change, BYTES('X'));
            x = _mm512_mask_mov_epi8(x, lost, unknown);
        }
    }
    _mm512_storeu_si512(chars, x);
    return v->window(chars);
}

/* Bit i stands for letter i of the window. */
struct letters {
    unsigned n;
    uint64_t first;     /* of its run */
    uint64_t ends;      /* the last one of its run and of its piece */
    uint64_t odd, two;  /* the number of tokens of each where it stands alone: its two bits */
    uint64_t joined;    /* it merges with the one before */
    uint64_t partial;   /* ... maybe, and not as whole characters */
    uint64_t pair[3];   /* the number of tokens of the two where they stand alone: its bits */
    char text[64 + 16]; /* all of them */
    uint32_t hash[2 * 16], cp[2 * 16];
};

INLINE __m512i sixteen(__m512i x, __m512i spread, __m512i before, uint32_t *hash, uint32_t *cp)
{
    x = _mm512_maskz_permutexvar_epi8(0x7777777777777777u, spread, x);
    __m512i c = _mm512_or_si512(_mm512_and_si512(_mm512_srli_epi32(x, 4), EACH(0xf000)),
                                _mm512_and_si512(x, EACH(0x3f)));
    c = _mm512_or_si512(c, _mm512_and_si512(_mm512_srli_epi32(x, 2), EACH(0xfc0)));
    __m512i h = _mm512_or_si512(_mm512_slli_epi32(_mm512_alignr_epi32(c, before, 15), 16), c);
    h = _mm512_mullo_epi32(h, EACH(HASH_A));
    h = _mm512_xor_si512(h, _mm512_srli_epi32(h, 15));
    h = _mm512_mullo_epi32(h, EACH(HASH_B));
    h = _mm512_xor_si512(h, _mm512_srli_epi32(h, 16));
    _mm512_storeu_si512(hash, h);
    _mm512_storeu_si512(cp, c);
    return c;
}

/* The letters of x, whose bytes are in `bytes`. */
INLINE void read_letters(__m512i x, uint64_t bytes, struct letters *l)
{
    /* each letter's three bytes, the last one lowest */
    const __m512i spread = _mm512_set_epi32(
        0x2d2e2f, 0x2a2b2c, 0x272829, 0x242526, 0x212223, 0x1e1f20, 0x1b1c1d, 0x18191a, 0x151617,
        0x121314, 0x0f1011, 0x0c0d0e, 0x090a0b, 0x060708, 0x030405, 0x000102);
    x = _mm512_maskz_compress_epi8(bytes, x);
    _mm512_storeu_si512(l->text, x);
    __m512i c = sixteen(x, spread, _mm512_setzero_si512(), l->hash, l->cp);
    if (l->n > 16)
        (void)sixteen(x, _mm512_add_epi8(spread, EACH(0x303030)), c, l->hash + 16, l->cp + 16);
}

/* Sixteen of them: what is known of each, and whether it may merge with the one before. */
INLINE uint64_t look_up(const struct vocab *v, const struct letters *l, unsigned at, uint64_t *odd,
                        uint64_t *two, uint64_t *tail, uint64_t *head)
{
    __m512i cp = _mm512_loadu_si512(l->cp + at), hash = _mm512_loadu_si512(l->hash + at);
    __m512i facts = _mm512_i32gather_epi32(cp, v->char_facts, 1);
    *odd |= (uint64_t)_mm512_test_epi32_mask(facts, EACH(1)) << at;
    *two |= (uint64_t)_mm512_test_epi32_mask(facts, EACH(2)) << at;
    *tail |= (uint64_t)_mm512_test_epi32_mask(facts, EACH(CHAR_TAIL)) << at;
    *head |= (uint64_t)_mm512_test_epi32_mask(facts, EACH(CHAR_HEAD)) << at;
    __m512i bit = _mm512_srl_epi32(hash, _mm_cvtsi32_si128(32 - (int)v->h->word_set));
    __m512i set = _mm512_i32gather_epi32(_mm512_srli_epi32(bit, 5), v->words, 4);
    set = _mm512_srlv_epi32(set, _mm512_and_si512(bit, EACH(31)));
    return (uint64_t)_mm512_test_epi32_mask(set, EACH(1)) << at;
}

/* What merges in them. */
INLINE void join_letters(const struct vocab *v, struct letters *l)
{
    uint64_t odd = 0, two = 0, tail = 0, head = 0, here = below(l->n);
    uint64_t maybe = look_up(v, l, 0, &odd, &two, &tail, &head);
    if (l->n > 16) maybe |= look_up(v, l, 16, &odd, &two, &tail, &head);
    l->odd = odd & here;
    l->two = two & here;
    here &= ~l->first;
    uint64_t joined = pairs_joined(v->words, v->h->word_set, v->h->word_pairs, l->hash,
                                   maybe & here, l->pair);
    l->partial = 0;
    uint64_t close = (tail | head << 1) & here;
    for (; __builtin_expect(close != 0, 0); close &= close - 1) {
        unsigned i = lowest(close);
        bool whole = true;
        if (joins_between(v, l->cp[i - 1], l->cp[i], l->text + (size_t)3 * i, &whole) && !whole)
            l->partial |= (uint64_t)1 << i;
    }
    l->joined = joined | l->partial;
}

/* How many letters the part has whose first one is letter i. */
INLINE unsigned part_of(const struct letters *l, unsigned i)
{
    return (unsigned)__builtin_ctzll(~(l->joined >> 1 >> i)) + 1;
}

/* The letters of a part. */
INLINE uint64_t those(unsigned i, unsigned n)
{
    return below(n) << i;
}

/* Is a part with letters joined by whole characters? */
INLINE bool whole_chars(const struct letters *l, unsigned i, unsigned n)
{
    return (l->partial & those(i, n) & ~((uint64_t)1 << i)) == 0;
}

/* Does the piece end with a part of n letters? */
INLINE bool ends_with(const struct letters *l, unsigned i, unsigned n)
{
    return (l->ends >> (i + n - 1) & 1) != 0;
}

/* A part, or the whole piece that it is. */
INLINE uint64_t count_part(struct piece_cache *c, const struct vocab *v, const char *p, size_t n,
                           bool chars, bool piece)
{
    if (!piece) return piece_part_later(c, v, p, n, chars);
    uint64_t count = 0;
    enum err e = piece_count_later(c, v, p, n, &count);
    ASSERT(e == ERR_OK); /* so short a piece needs no memory */
    return count;
}

/* How many tokens the character in front of letter i's run is, at p: alone, or together with the
 * letters that it may merge with, which are put into *done. */
INLINE uint64_t count_lead(struct piece_cache *c, const struct vocab *v, const char *p, size_t lead,
                           const struct letters *l, unsigned i, uint64_t *done)
{
    unsigned n = part_of(l, i);
    bool piece = ends_with(l, i, n), whole = true;
    uint32_t first = l->cp[i], sign = (unsigned char)*p;
    if (sign == ' ') {
        unsigned tokens = v->spaced[first];
        if (tokens == 0) return 1;
        *done |= those(i, n);
        if (n == 1 && (!piece || tokens == 1)) return tokens;
        whole = false;
    } else {
        if (lead == 3)
            sign = (sign & 0xfu) << 12 | ((unsigned char)p[1] & 0x3fu) << 6 |
                   ((unsigned char)p[2] & 0x3fu);
        if (((v->char_facts[sign] & (CHAR_HEAD | CHAR_FIRST)) |
             (v->char_facts[first] & CHAR_TAIL)) == 0 ||
            !joins_between(v, sign, first, p + lead, &whole))
            return lead == 1 ? 1 : v->char_facts[sign] & CHAR_TOKENS;
        *done |= those(i, n);
    }
    return count_part(c, v, p, lead + (size_t)3 * n, whole && whole_chars(l, i, n), piece);
}

/* All letters but those that are done. alone: those that a piece begins with. */
INLINE uint64_t count_letters(struct piece_cache *c, const struct vocab *v, const struct letters *l,
                              uint64_t alone, uint64_t done)
{
    uint64_t joined = l->joined, next = joined >> 1, last = joined & ~next & ~done;
    uint64_t single = ~joined & ~next & below(l->n) & ~done;
    uint64_t two = last & ~(joined << 1) & ~l->partial; /* its second letter */
    uint64_t ends = l->ends, total = 0;
    /* Whole pieces may be a token that merges do not make. */
    uint64_t ask = (single & alone & ends & ~(l->odd & ~l->two)) |
                   ((two & ends & ~(l->pair[0] & ~l->pair[1] & ~l->pair[2])) >> 1 & alone);
    single &= ~ask;
    two &= ~(ask << 1);
    total += (unsigned)__builtin_popcountll(single & l->odd) +
             2 * (unsigned)__builtin_popcountll(single & l->two) +
             (unsigned)__builtin_popcountll(two & l->pair[0]);
    if ((two & (l->pair[1] | l->pair[2])) != 0)
        total += 2 * (unsigned)__builtin_popcountll(two & l->pair[1]) +
                 4 * (unsigned)__builtin_popcountll(two & l->pair[2]);
    for (uint64_t rest = (next & ~joined & ~done & ~(two >> 1)) | ask; rest != 0;
         rest &= rest - 1) {
        unsigned i = lowest(rest), n = part_of(l, i);
        total += count_part(c, v, l->text + (size_t)3 * i, (size_t)3 * n, whole_chars(l, i, n),
                            (alone >> i & 1) != 0 && ends_with(l, i, n));
    }
    return total;
}

/* A piece without letters of three bytes, or what is between those of one. */
INLINE uint64_t count_other(struct piece_cache *c, const struct vocab *v, const char *p, size_t n,
                            bool piece)
{
    if (n == 1 || (n == 3 && joins_one(v, p, n) == 1)) return 1;
    return count_part(c, v, p, n, false, piece);
}

/* Bits of characters. */
struct cut {
    uint64_t ends;   /* a piece ends before it */
    uint64_t begins; /* of pieces, the last end left out */
    uint64_t letter; /* in them */
    uint64_t lead;   /* begins a piece, and a letter follows */
};

INLINE struct cut cut_at(uint64_t ends, uint64_t letter)
{
    struct cut t = { .ends = ends };
    uint64_t all = below(63 - (unsigned)__builtin_clzll(ends));
    t.begins = (ends | 1) & all;
    t.letter = letter & all;
    t.lead = t.begins & ~t.letter & t.letter >> 1 & ~(ends >> 1);
    return t;
}

/* Leaves out what begins with a piece in which a letter may merge with what is beside it, but for
 * the character in front of it. False: nothing is left. */
INLINE bool cut_joined(const struct vocab *v, const char *p, uint64_t begins, uint64_t letter,
                       struct cut *t)
{
    uint64_t edges = (t->letter ^ t->letter << 1) & ~t->begins & ~t->ends & ~(t->lead << 1);
    for (; __builtin_expect(edges != 0, 0); edges &= edges - 1) {
        uint64_t at = _pdep_u64(edges & -edges, begins), before = begins & (at - 1);
        const char *q = p + lowest(at), *r = p + (63 - (unsigned)__builtin_clzll(before));
        uint32_t a, b;
        bool whole;
        (void)utf8_next_valid(r, &a);
        (void)utf8_next_valid(q, &b);
        if (!joins_between(v, a, b, q, &whole)) continue;
        uint64_t ends = t->ends & ((edges & -edges) - 1);
        if (ends == 0) return false;
        *t = cut_at(ends, letter);
        break;
    }
    return true;
}

TARGET static size_t count_avx512(struct piece_cache *c, const struct vocab *v, const char *p,
                                  size_t n, uint64_t *count)
{
    const char *begin = p, *end = p + n;
    struct kinds k;
    do {
        size_t left = (size_t)(end - p);
        __m512i x = left >= 64 ? _mm512_loadu_si512((const void *)p)
                               : _mm512_mask_loadu_epi8(BYTES(0xff), below((unsigned)left), p);
        kinds_of(x, &k);
        if ((k.letter | k.sign | k.blank) == 0) break;
        uint64_t ends = ends_of(v, x, &k), total = 0;
        if (ends == 0) break;
        uint64_t letter = _pext_u64(k.letter, k.begins);
        struct cut t = cut_at(ends, letter);
        if (!cut_joined(v, p, k.begins, letter, &t)) break;
        uint64_t end_bytes = _pdep_u64(t.ends, k.begins);
        unsigned size = 63 - (unsigned)__builtin_clzll(end_bytes);
        if (t.letter != 0) {
            struct letters l;
            uint64_t bytes = k.letter & below(size);
            l.n = (unsigned)__builtin_popcountll(t.letter);
            l.first = _pext_u64(t.letter & ~(t.letter << 1), t.letter);
            l.ends = _pext_u64(t.ends >> 1, t.letter);
            read_letters(x, bytes | bytes << 1 | bytes << 2, &l);
            join_letters(v, &l);
            uint64_t done = 0, at = _pdep_u64(t.lead, k.begins);
            for (uint64_t rest = t.lead; rest != 0; rest &= rest - 1, at &= at - 1) {
                unsigned i = (unsigned)__builtin_popcountll(t.letter & ((rest & -rest) - 1));
                const char *q = p + lowest(at);
                total += count_lead(c, v, q, *q < 0 ? 3 : 1, &l, i, &done);
            }
            total += count_letters(c, v, &l, _pext_u64(t.begins, t.letter), done);
        }
        uint64_t others = ~(t.letter | t.lead) & (t.begins | (t.letter << 1 & ~t.ends));
        uint64_t stops = _pdep_u64(t.ends | t.letter, k.begins);
        uint64_t rest = _pdep_u64(others, k.begins);
        for (; rest != 0; rest &= rest - 1, others &= others - 1) {
            unsigned from = lowest(rest), len = lowest(stops >> 1 >> from) + 1;
            bool piece = (t.begins & others & -others) != 0 && (end_bytes >> (from + len) & 1) != 0;
            total += count_other(c, v, p + from, len, piece);
        }
        *count += total;
        p += size;
    } while (end - p >= 8);
    return (size_t)(p - begin);
}

TARGET static unsigned char kind_of(const char *p, size_t n)
{
    struct kinds k;
    kinds_of(_mm512_mask_loadu_epi8(BYTES(0xff), below((unsigned)MIN(n, (size_t)8)), p), &k);
    return (k.high & 1) == 0     ? (unsigned char)*p
           : (k.letter & 1) != 0 ? 'x'
           : (k.sign & 1) != 0   ? '#'
           : (k.blank & 1) != 0  ? '\t'
                                 : 0;
}

#endif

int mixed_kind(const char *p, size_t n)
{
#if defined(__x86_64__)
    if (scan_compress_supported()) return kind_of(p, n);
#endif
    (void)p, (void)n;
    return -1;
}

words_fn *mixed_best(const struct vocab *v)
{
#if defined(__x86_64__)
    bool plain = v->h->shape == SCAN_CL100K || v->h->shape == SCAN_QWEN ||
                 v->h->shape == SCAN_O200K || v->h->shape == SCAN_TEKKEN ||
                 v->h->shape == SCAN_GPT2;
    if (plain && v->h->joins > 0 && scan_compress_supported()) return count_avx512;
#endif
    (void)v;
    return count_nothing;
}
