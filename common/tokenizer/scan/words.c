/* SPDX-License-Identifier: Apache-2.0 */
/* Runs of letters of three bytes. Pure; the cache is its owner's. */
#include "tokenizer/scan/words.h"

#include <endian.h>
#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "tokenizer/merge/joins.h"
#include "tokenizer/merge/piece_cache.h"
#include "tokenizer/scan/scan_run.h"
#include "tokenizer/scan/unicode.h"
#include "tokenizer/scan/words_pairs.h"

enum {
    MOST = 63, /* letters of a run; longer ones are looked at otherwise */
    STEP = 4,  /* letters looked up at a time */
};

/* ---- runs ---- */

/* Bit i stands for letter i. */
struct run {
    unsigned n;              /* letters; MOST: or more */
    uint64_t odd, two;       /* the number of tokens of each where it stands alone: its two bits */
    uint64_t joined;         /* it merges with the one before */
    uint64_t partial;        /* ... maybe, and not as whole characters */
    uint64_t pair[3];        /* the number of tokens of the two where they stand alone: its bits */
    uint32_t hash[MOST + 1]; /* of the two */
    uint32_t cp[MOST + 1];
};

/* The character at p, of which four bytes are there, if it has three; else 0. */
static inline uint32_t three(const char *p)
{
    uint32_t w;
    memcpy(&w, p, sizeof w);
    w = be32toh(w);
    return w >> 28 == 0xe ? (w >> 12 & 0xf000) | (w >> 10 & 0xfc0) | (w >> 8 & 0x3f) : 0;
}

/* Han, kana, Hangul: what runs are mostly made of, without a look into a table. */
static inline bool usual(uint32_t cp)
{
    return cp - 0x4e00 < 0x9fc0 - 0x4e00 || cp - 0xac00 < 0xd7a4 - 0xac00 ||
           (cp - 0x3041 < 0x3100 - 0x3041 && cp - 0x3097 >= 0x30a1 - 0x3097 && cp != 0x30fb);
}

/* The usual letters from p on: fills in n, cp and hash. What is in cp behind them is below 2^16. */
static inline void read_portable(const char *p, const char *end, struct run *r)
{
    uint32_t a = 0;
    unsigned n = 0;
    for (; n < MOST && end - p >= 4; n++, p += 3) {
        uint32_t b = three(p);
        if (!usual(b)) break;
        r->cp[n] = b;
        r->hash[n] = pair_hash(a, b);
        a = b;
    }
    r->n = n;
    for (unsigned i = n; i % STEP != 0; i++) r->cp[i] = r->hash[i] = 0;
}

#if defined(__x86_64__)

#define TARGET __attribute__((target("avx2,bmi,bmi2,popcnt,avx512f,avx512bw,avx512vbmi")))
#define EACH(x) _mm512_set1_epi32((int)(x))

/* The lanes from..to-1 */
#define WITHIN(x, from, to) \
    _mm512_cmplt_epu32_mask(_mm512_sub_epi32(x, EACH(from)), EACH((to) - (from)))

/* Sixteen letters at a time. */
TARGET static inline void read_avx512(const char *p, const char *end, struct run *r)
{
    /* each letter's three bytes, the last one lowest */
    const __m512i spread = _mm512_set_epi32(
        0x2d2e2f, 0x2a2b2c, 0x272829, 0x242526, 0x212223, 0x1e1f20, 0x1b1c1d, 0x18191a, 0x151617,
        0x121314, 0x0f1011, 0x0c0d0e, 0x090a0b, 0x060708, 0x030405, 0x000102);
    __m512i before = _mm512_setzero_si512();
    unsigned n = 0, some = 16;
    for (; some == 16 && n < MOST; n += some) {
        size_t left = (size_t)(end - p) - 3 * (size_t)n;
        uint64_t there = left >= 64 ? UINT64_MAX : ((uint64_t)1 << left) - 1;
        __m512i x = _mm512_maskz_loadu_epi8(there, p + (size_t)3 * n);
        x = _mm512_maskz_permutexvar_epi8(0x7777777777777777u, spread, x);
        uint32_t here = _mm512_cmpeq_epi32_mask(_mm512_and_si512(x, EACH(0xf00000)),
                                                EACH(0xe00000));
        __m512i cp = _mm512_or_si512(_mm512_and_si512(_mm512_srli_epi32(x, 4), EACH(0xf000)),
                                     _mm512_and_si512(x, EACH(0x3f)));
        cp = _mm512_or_si512(cp, _mm512_and_si512(_mm512_srli_epi32(x, 2), EACH(0xfc0)));
        here &= WITHIN(cp, 0x4e00, 0x9fc0) | WITHIN(cp, 0xac00, 0xd7a4) |
                (uint32_t)(WITHIN(cp, 0x3041, 0x3100) & ~WITHIN(cp, 0x3097, 0x30a1) &
                           ~WITHIN(cp, 0x30fb, 0x30fc));
        some = (unsigned)__builtin_ctz(~here);
        __m512i hash = _mm512_or_si512(_mm512_slli_epi32(_mm512_alignr_epi32(cp, before, 15), 16),
                                       cp);
        hash = _mm512_mullo_epi32(hash, EACH(HASH_A));
        hash = _mm512_xor_si512(hash, _mm512_srli_epi32(hash, 15));
        hash = _mm512_mullo_epi32(hash, EACH(HASH_B));
        hash = _mm512_xor_si512(hash, _mm512_srli_epi32(hash, 16));
        _mm512_storeu_si512(r->hash + n, hash);
        _mm512_storeu_si512(r->cp + n, cp);
        before = cp;
    }
    r->n = n < MOST ? n : MOST;
}

#endif

/* Letter i, which is at p, and the one before may merge by parts of characters. */
static void look_closer(const struct vocab *v, const char *p, struct run *r, unsigned i)
{
    bool whole = true;
    if (joins_between(v, r->cp[i - 1], r->cp[i], p, &whole) && !whole)
        r->partial |= (uint64_t)1 << i;
}

/* What merges in the run at p. False: it is not all letters. */
static inline __attribute__((always_inline)) bool join_run(const struct vocab *v, const char *p,
                                                           struct run *r)
{
    const uint64_t *set = (const uint64_t *)(const void *)v->words;
    const uint32_t set_bits = v->h->word_set;
    uint64_t odd = 0, two = 0, maybe = 0, close = 0, letter = 0, below = ((uint64_t)1 << r->n) - 1;
    unsigned before = 0;
    for (unsigned i = 0; i < r->n; i += STEP) {
        for (unsigned k = i; k < i + STEP; k++) {
            uint64_t facts = v->char_facts[r->cp[k]];
            odd |= (facts & 1) << k;
            two |= (facts >> 1 & 1) << k;
            letter |= (facts / CHAR_WORD & 1) << k;
            close |= ((facts / CHAR_TAIL & 1) | before) << k;
            before = facts / CHAR_HEAD & 1;
            maybe |= (uint64_t)in_set(set, set_bits, r->hash[k]) << k;
        }
    }
    if ((~letter & below) != 0) return false;
    r->odd = odd;
    r->two = two;
    uint64_t joined = pairs_joined(v->words, set_bits, v->h->word_pairs, r->hash,
                                   maybe & below & ~(uint64_t)1, r->pair);
    r->partial = 0;
    for (close &= below & ~(uint64_t)1; __builtin_expect(close != 0, 0); close &= close - 1) {
        unsigned i = (unsigned)__builtin_ctzll(close);
        look_closer(v, p + (size_t)3 * i, r, i);
    }
    r->joined = joined | r->partial;
    return true;
}

/* ---- counting ---- */

#define INLINE static inline __attribute__((always_inline))

INLINE unsigned ones(uint64_t x, bool quick)
{
    if (quick) return (unsigned)__builtin_popcountll(x);
    x -= x >> 1 & 0x5555555555555555u;
    x = (x & 0x3333333333333333u) + (x >> 2 & 0x3333333333333333u);
    x = (x + (x >> 4)) & 0x0f0f0f0f0f0f0f0fu;
    return (unsigned)(x * 0x0101010101010101u >> 56);
}

/* How many letters the part has whose first one is letter i. */
INLINE unsigned letters(uint64_t joined, unsigned i)
{
    return (unsigned)__builtin_ctzll(~(joined >> 1 >> i)) + 1;
}

/* The joints of n letters from i on. */
INLINE uint64_t inside(unsigned i, unsigned n)
{
    return (((uint64_t)1 << n) - 2) << i;
}

/* The letters from `from` on, where a part begins. */
INLINE uint64_t count_run(struct piece_cache *c, const struct vocab *v, const char *p,
                          const struct run *r, unsigned from, bool quick)
{
    uint64_t here = ~(((uint64_t)1 << from) - 1);
    uint64_t joined = r->joined & here, next = joined >> 1, last = joined & ~next;
    uint64_t alone = ~joined & ~next & (((uint64_t)1 << r->n) - 1) & here;
    uint64_t two = last & ~(joined << 1) & ~r->partial; /* its last letter */
    uint64_t total = ones(alone & r->odd, quick) + 2 * ones(alone & r->two, quick) +
                     ones(two & r->pair[0], quick);
    if ((two & (r->pair[1] | r->pair[2])) != 0)
        total += 2 * ones(two & r->pair[1], quick) + 4 * ones(two & r->pair[2], quick);
    for (uint64_t rest = next & ~joined & ~(two >> 1); rest != 0; rest &= rest - 1) {
        unsigned i = (unsigned)__builtin_ctzll(rest), n = letters(joined, i);
        total += piece_part_later(c, v, p + (size_t)3 * i, (size_t)3 * n,
                                  (r->partial & inside(i, n)) == 0);
    }
    return total;
}

/* Can the character at p be the sign in front of a run? Its length, 0 if it cannot. */
INLINE size_t sign_at(const struct vocab *v, const char *p, uint32_t *ret)
{
    size_t len = 1;
    *ret = (unsigned char)*p;
    if (v->h->shape == SCAN_DEEPSEEK || *p == '\n' || *p == '\r') return 0;
    if (v->h->shape == SCAN_GPT2) return *p == ' ';
    if (*ret >= 0x80) {
        *ret = three(p);
        if (*ret == 0) return 0;
        len = 3;
    }
    return (unicode_class(*ret) & (UC_L | UC_N)) == 0 ? len : 0;
}

/* Does a piece end before the character at p, when such letters stand before it? */
INLINE bool ends_at(const struct vocab *v, const char *p)
{
    size_t len;
    switch ((enum scan_shape)v->h->shape) {
    case SCAN_CL100K:
    case SCAN_QWEN:
    case SCAN_GPT2: return (unicode_class_at(p, &len) & UC_L) == 0;
    case SCAN_TEKKEN: return (unicode_class_at(p, &len) & (UC_U | UC_W)) == 0;
    case SCAN_O200K: return *p != '\'' && (unicode_class_at(p, &len) & (UC_U | UC_W)) == 0;
    case SCAN_DEEPSEEK: return !scan_deepseek_cjk(three(p));
    case SCAN_CHARS:
    case SCAN_DIGITS:
    case SCAN_REGEX:
    case SCAN_END: break;
    }
    return false;
}

/* How many tokens the sign is; when it and the first letter may merge, the two, or with
 * *ret_letters more that they merge with. */
INLINE uint64_t count_sign(struct piece_cache *c, const struct vocab *v, const char *p, size_t lead,
                           uint32_t sign, const struct run *r, unsigned *ret_letters)
{
    const char *q = p + lead;
    uint32_t first = three(q);
    unsigned n = letters(r->joined, 0);
    bool whole = true;
    *ret_letters = 0;
    if (sign == ' ') {
        unsigned tokens = v->spaced[first];
        if (tokens == 0) return 1;
        if (n == 1) return *ret_letters = 1, tokens;
        whole = false;
    } else if (((v->char_facts[sign] & (CHAR_HEAD | CHAR_FIRST)) |
                (v->char_facts[first] & CHAR_TAIL)) == 0 ||
               !joins_between(v, sign, first, q, &whole)) {
        return lead == 1 ? 1 : v->char_facts[sign] & CHAR_TOKENS;
    }
    *ret_letters = n;
    return piece_part_later(c, v, p, lead + (size_t)3 * n,
                            whole && (r->partial & inside(0, n)) == 0);
}

typedef void read_fn(const char *p, const char *end, struct run *r);

INLINE size_t count_with(read_fn *read, bool quick, struct piece_cache *c, const struct vocab *v,
                         const char *p, size_t n, uint64_t *count)
{
    const char *begin = p, *end = p + n;
    struct run r;
    while (end - p >= 8) {
        uint32_t sign = 0;
        size_t lead = 0;
        if (!usual(three(p)) && (lead = sign_at(v, p, &sign)) == 0) break;
        const char *q = p + lead;
        if (lead > 0 && !usual(three(q))) break;
        read(q, end, &r);
        size_t run_n = (size_t)3 * r.n;
        if (r.n == 0 || r.n == MOST || end - q < (ptrdiff_t)run_n + 4 || !ends_at(v, q + run_n) ||
            !join_run(v, q, &r))
            break;
        unsigned from = 0;
        uint64_t tokens = 0;
        if (letters(r.joined, 0) < r.n) {
            if (lead > 0) tokens = count_sign(c, v, p, lead, sign, &r, &from);
            tokens += count_run(c, v, q, &r, from, quick);
        } else if (piece_count_later(c, v, p, lead + run_n, &tokens) != ERR_OK) {
            break; /* maybe one part: it may be a token for being whole */
        }
        *count += tokens;
        p = q + run_n;
    }
    return (size_t)(p - begin);
}

static size_t count_portable(struct piece_cache *c, const struct vocab *v, const char *p, size_t n,
                             uint64_t *count)
{
    return count_with(read_portable, false, c, v, p, n, count);
}

#if defined(__x86_64__)
TARGET static size_t count_avx512(struct piece_cache *c, const struct vocab *v, const char *p,
                                  size_t n, uint64_t *count)
{
    return count_with(read_avx512, true, c, v, p, n, count);
}
#endif

static size_t count_nothing(struct piece_cache *c, const struct vocab *v, const char *p, size_t n,
                            uint64_t *count)
{
    (void)c, (void)v, (void)p, (void)n, (void)count;
    return 0;
}

words_fn *words_for(const struct vocab *v, enum scan_isa isa)
{
    if (v->h->joins == 0 || !words_letter((enum scan_shape)v->h->shape, 0x4e00))
        return count_nothing;
    if (isa == SCAN_PORTABLE) return count_portable;
#if defined(__x86_64__)
    if (isa == SCAN_AVX512 && scan_isa_supported(isa)) return count_avx512;
#endif
    return NULL;
}

words_fn *words_best(const struct vocab *v)
{
    words_fn *f = words_for(v, SCAN_AVX512);
    return f != NULL ? f : words_for(v, SCAN_PORTABLE);
}
