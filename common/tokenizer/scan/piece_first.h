/* SPDX-License-Identifier: Apache-2.0 */
/* Pieces looked up in the first table of the cache, many one behind the other. Only for what finds
 * where they end. The thread is the cache's owner. */
#ifndef TOKENIZER_PIECE_FIRST_H
#define TOKENIZER_PIECE_FIRST_H

#include "tokenizer/merge/piece_cache.h"

/* Which bytes of 16 are of a piece of n, and its length where a key has it. */
struct piece_shaping {
    uint64_t lo[16], hi[16], length[16];
};
#define PIECE_EACH_LENGTH(f)                                                                    \
    {                                                                                           \
        f(0), f(1), f(2), f(3), f(4), f(5), f(6), f(7), f(8), f(9), f(10), f(11), f(12), f(13), \
            f(14), f(15)                                                                        \
    }
#define PIECE_KEEP_LO(n) (n) >= 8 ? UINT64_MAX : ((uint64_t)1 << 8 * ((n) % 8)) - 1
#define PIECE_KEEP_HI(n) (n) <= 8 ? 0 : ((uint64_t)1 << 8 * ((n) % 8)) - 1
#define PIECE_LENGTH(n) (uint64_t)(n) << PIECE_KEY_LENGTH
static const struct piece_shaping piece_shaping = { PIECE_EACH_LENGTH(PIECE_KEEP_LO),
                                                    PIECE_EACH_LENGTH(PIECE_KEEP_HI),
                                                    PIECE_EACH_LENGTH(PIECE_LENGTH) };

/* A piece that is longer than a key: up to 63 characters, 252 bytes. */
static __attribute__((noinline)) uint64_t
piece_first_longer(struct piece_cache *c, const struct vocab *v, const char *p, size_t n)
{
    uint64_t count = 0;
    enum err e = piece_count_later(c, v, p, n, &count);
    ASSERT(e == ERR_OK); /* of one window, so at most BPE_HEAP bytes: it needs no memory */
    return count;
}

/* Pieces that are looked up together. */
enum { PIECE_SPARE = 3 };
struct piece_turn {
    struct vocab_key *keys; /* of those that have one; room for PIECE_SPARE more */
    uint16_t places[PIECE_TOGETHER + PIECE_SPARE]; /* ... where they would be in the first table */
    uint16_t longer[PIECE_TOGETHER];               /* which have none */
    size_t n, longer_n;
};

/* Adds the pieces first..end-1, of which i stands at p + cuts[i] and ends at p + cuts[i + 1], and
 * fetches what is looked at next. */
typedef void piece_keys_fn(struct piece_cache *c, const char *p, const uint16_t *cuts, size_t first,
                           size_t end, struct piece_turn *t);

static inline __attribute__((always_inline)) void piece_keys(struct piece_cache *c, const char *p,
                                                             const uint16_t *cuts, size_t first,
                                                             size_t end, struct piece_turn *t)
{
    for (size_t i = first; i < end; i++) {
        uint64_t len = (uint64_t)cuts[i + 1] - cuts[i], lo, hi;
        const char *q = p + cuts[i];
        if (__builtin_expect(len > PIECE_CACHE_LONGEST, 0)) {
            piece_longer_fetch(c, q, len);
            t->longer[t->longer_n++] = (uint16_t)i;
            continue;
        }
        memcpy(&lo, q, 8);
        memcpy(&hi, q + 8, 8);
        struct vocab_key k = { lo & piece_shaping.lo[len],
                               (hi & piece_shaping.hi[len]) | piece_shaping.length[len] };
        size_t place = piece_cache_first(piece_cache_hash(k));
        __builtin_prefetch(&c->first[place]);
        t->places[t->n] = (uint16_t)place;
        t->keys[t->n++] = k;
    }
}

/* Of the keys, those that are in their places: their tokens. The others are moved up: *ret_n is how
 * many they are. */
typedef uint64_t piece_compare_fn(const struct piece_cache *c, const struct piece_turn *t,
                                  size_t *ret_n);

static inline __attribute__((always_inline)) uint64_t
piece_compare(const struct piece_cache *c, const struct piece_turn *t, size_t *ret_n)
{
    struct vocab_key *others = t->keys;
    uint64_t total = 0;
    for (size_t i = 0; i < t->n; i++) {
        /* without a branch: whether it is there cannot be foreseen */
        struct vocab_key k = t->keys[i];
        const struct vocab_key *at = &c->first[t->places[i]];
        uint64_t differ = piece_cache_differ(at, k), count = at->hi >> PIECE_KEY_COUNT;
        uint64_t other = (differ | -differ) >> 63; /* 0 or 1 */
        *others = k;                               /* never behind keys[i] */
        others += other;
        total += count & (other - 1);
    }
    *ret_n = (size_t)(others - t->keys);
    return total;
}

/*
 * Pieces that stand one behind the other from p on, the first one ending at p + cuts[1], the last
 * one at p + cuts[n]; cuts[0] is 0, n at most PIECE_TOGETHER: the tokens of those that are in the
 * first table. The others wait; there is room for them. 16 bytes are readable where the last one
 * begins.
 */
static inline __attribute__((always_inline)) uint64_t
piece_count_first(piece_keys_fn *keys, piece_compare_fn *compare, struct piece_cache *c,
                  const struct vocab *v, const char *p, const uint16_t *cuts, size_t n)
{
    struct piece_turn t;
    size_t others;
    t.keys = c->waiting + c->waiting_n;
    t.n = t.longer_n = 0;
    keys(c, p, cuts, 0, n, &t);
    for (size_t i = 0; i < PIECE_SPARE; i++) t.places[t.n + i] = 0;
    uint64_t total = compare(c, &t, &others);
    c->asked += t.n;
    c->waiting_n += (unsigned)others;
    for (size_t i = 0; i < others; i++)
        __builtin_prefetch(c->at[piece_cache_set(piece_cache_hash(t.keys[i]))]);
    for (size_t i = 0; i < t.longer_n; i++) {
        const uint16_t *at = &cuts[t.longer[i]];
        total += piece_first_longer(c, v, p + at[0], (size_t)at[1] - at[0]);
    }
    if (c->waiting_n >= PIECE_WAITING + PIECE_TURN) piece_look_up(c, v, PIECE_WAITING);
    return total;
}

#endif
