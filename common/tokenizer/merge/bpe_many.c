/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Merges several short pieces at once. A merge waits for two places of a table that is too large
 * for the processor's caches; while one piece waits, the others go on. Most of what is asked has no
 * answer, and a place's tag says so: the place itself is fetched only where its tag is right.
 * Whether it is cannot be foreseen, so nothing branches there. Pure.
 */
#include "tokenizer/merge/bpe.h"
#include "tokenizer/scan/unicode.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define INLINE static inline __attribute__((always_inline))

enum { LANES = BPE_MANY + 1, LANE_BITS = 5 };
_Static_assert(LANES == 1 << LANE_BITS, "a bit of 32 for each lane");
static const uint32_t NONE = UINT32_MAX; /* the key of what does not merge */

/* Tokens stay in their lanes: two that merge are in that of the left one from then on. */
struct merging {
    /* rank << LANE_BITS | lane of the merge with the next, so the least one is due */
    _Alignas(32) uint32_t keys[LANES];
    uint32_t ids[LANES], merged[LANES];
    uint64_t hash[LANES];               /* of what `asked` has bits for */
    const struct vocab_pair *at[LANES]; /* ... where it may be */
    unsigned n;                         /* tokens to begin with */
    unsigned alive;                     /* bit i: lane i has a token */
    unsigned asked;                     /* ... a pair whose rank is still to be found */
    struct bpe_short *piece;
};

/* The least key. */
typedef uint32_t least_fn(const struct merging *m);

static inline unsigned lowest(unsigned x) /* x != 0 */
{
    return (unsigned)__builtin_ctz(x);
}

/* The lane behind lane i; only if there is one. */
static inline unsigned behind(const struct merging *m, unsigned i)
{
    return lowest(m->alive & ~0u << 1 << i);
}

/* Fetches what says whether the tokens of lanes i and k merge. */
static inline void ask(const struct vocab *v, struct merging *m, unsigned i, unsigned k)
{
    m->hash[i] = vocab_hash_pair(m->ids[i], m->ids[k]);
    m->asked |= 1u << i;
    __builtin_prefetch(&v->pair_tags[m->hash[i] & v->h->pair_mask]);
}

/* Fetches the places that may have an answer. */
static inline void narrow(const struct vocab *v, struct merging *m)
{
    static const struct vocab_pair none = { .left = VOCAB_NO_TOKEN };
    uint64_t at;
    for (unsigned rest = m->asked; rest != 0; rest &= rest - 1) {
        unsigned i = lowest(rest);
        bool may = vocab_tagged(v->pair_tags, v->h->pair_mask, m->hash[i], &at);
        m->at[i] = may ? &v->pairs[at] : &none;
        __builtin_prefetch(m->at[i]);
    }
}

static inline void answer(const struct vocab *v, struct merging *m)
{
    for (; m->asked != 0; m->asked &= m->asked - 1) {
        unsigned i = lowest(m->asked);
        uint32_t left = m->ids[i], right = m->ids[behind(m, i)];
        const struct vocab_pair *p = m->at[i];
        bool is = p->left == left && p->right == right;
        if (!is && p->left != VOCAB_NO_TOKEN) { /* another one's tag was the same: rare */
            p = vocab_pair_at(v, left, right, m->hash[i]);
            is = p != NULL;
        }
        m->keys[i] = is ? p->rank << LANE_BITS | i : NONE;
        m->merged[i] = is ? p->id : 0;
    }
}

/* False when no two tokens merge. */
INLINE bool step(least_fn *least, const struct vocab *v, struct merging *m)
{
    uint32_t key = least(m);
    if (key == NONE) return false;
    unsigned at = key % LANES, gone = behind(m, at);
    unsigned before = m->alive & ((1u << at) - 1);
    m->ids[at] = m->merged[at];
    m->keys[gone] = m->keys[at] = NONE;
    m->alive &= ~(1u << gone);
    if (m->alive >> gone != 0) ask(v, m, at, behind(m, at));
    if (before != 0) ask(v, m, 31 - (unsigned)__builtin_clz(before), at);
    return true;
}

static void begin_bytes(const struct vocab *v, struct merging *m)
{
    const unsigned char *p = (const unsigned char *)m->piece->p;
    m->n = m->piece->n;
    for (unsigned i = 0; i < m->n; i++) m->ids[i] = v->byte_ids[p[i]];
    for (unsigned i = 0; i + 1 < m->n; i++) {
        const struct vocab_byte_pair *b = &v->byte_pairs[(unsigned)p[i] << 8 | p[i + 1]];
        m->keys[i] = b->rank != VOCAB_NO_RANK ? b->rank << LANE_BITS | i : NONE;
        m->merged[i] = b->id;
    }
}

/* False when a character is no token. */
static bool begin_chars(const struct vocab *v, struct merging *m)
{
    const char *p = m->piece->p, *end = p + m->piece->n;
    uint32_t cp;
    for (m->n = 0; p < end; m->n++) {
        p += utf8_next_valid(p, &cp);
        m->ids[m->n] = v->chars[cp];
        if (m->ids[m->n] == VOCAB_NO_TOKEN) return false;
    }
    for (unsigned i = 0; i + 1 < m->n; i++) ask(v, m, i, i + 1);
    return true;
}

static void begin(const struct vocab *v, struct merging *m, struct bpe_short *piece)
{
    ASSERT(piece->n > 0 && piece->n <= BPE_MANY);
    m->piece = piece;
    m->asked = 0;
    if (!piece->chars || !begin_chars(v, m)) {
        m->asked = 0;
        begin_bytes(v, m);
    }
    for (unsigned i = m->n - 1; i < LANES; i++) m->keys[i] = NONE;
    m->alive = (1u << m->n) - 1;
}

static inline void end(struct merging *m)
{
    uint32_t *ids = m->piece->ids;
    m->piece->count = (uint64_t)__builtin_popcount(m->alive);
    m->piece->starts = m->alive;
    if (ids == NULL) return;
    for (unsigned rest = m->alive; rest != 0; rest &= rest - 1) *ids++ = m->ids[lowest(rest)];
}

INLINE void merge_with(least_fn *least, const struct vocab *v, struct bpe_short *pieces, size_t n)
{
    enum { AT_ONCE = 12 };
    struct merging room[AT_ONCE], *all[AT_ONCE];
    size_t open = 0, next = 0;
    for (; open < AT_ONCE && next < n; open++) {
        all[open] = &room[open];
        begin(v, all[open], &pieces[next++]);
    }
    while (open > 0) {
        for (size_t i = 0; i < open; i++) narrow(v, all[i]);
        for (size_t i = 0; i < open; i++) answer(v, all[i]);
        for (size_t i = 0; i < open; i++) {
            struct merging *m = all[i];
            if (step(least, v, m)) continue;
            end(m);
            if (next < n)
                begin(v, m, &pieces[next++]);
            else
                all[i--] = all[--open];
        }
    }
}

INLINE uint32_t least_portable(const struct merging *m)
{
    uint32_t best = NONE;
    for (unsigned i = 0; i + 1 < m->n; i++) best = MIN(best, m->keys[i]);
    return best;
}

static void many_portable(const struct vocab *v, struct bpe_short *pieces, size_t n)
{
    merge_with(least_portable, v, pieces, n);
}

#if defined(__x86_64__)

#define TARGET_AVX2 __attribute__((target("avx2,bmi,bmi2,popcnt")))

INLINE TARGET_AVX2 uint32_t least_avx2(const struct merging *m)
{
    const __m256i *k = (const __m256i *)(const void *)m->keys;
    __m256i x = _mm256_min_epu32(_mm256_min_epu32(k[0], k[1]), _mm256_min_epu32(k[2], k[3]));
    __m128i y = _mm_min_epu32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
    y = _mm_min_epu32(y, _mm_shuffle_epi32(y, 0x4e));
    y = _mm_min_epu32(y, _mm_shuffle_epi32(y, 0xb1));
    return (uint32_t)_mm_cvtsi128_si32(y);
}

TARGET_AVX2 static void many_avx2(const struct vocab *v, struct bpe_short *pieces, size_t n)
{
    merge_with(least_avx2, v, pieces, n);
}

#endif

bpe_many_fn *bpe_many_for(enum scan_isa isa)
{
    if (!scan_isa_supported(isa)) return NULL;
#if defined(__x86_64__)
    if (isa == SCAN_AVX2) return many_avx2;
#endif
    return isa == SCAN_PORTABLE ? many_portable : NULL;
}

void bpe_many(const struct vocab *v, struct bpe_short *pieces, size_t n)
{
    bpe_many_fn *f = bpe_many_for(SCAN_AVX2);
    (f != NULL ? f : many_portable)(v, pieces, n);
}
