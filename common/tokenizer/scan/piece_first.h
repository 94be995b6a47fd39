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

/* Pieces that stand one behind the other from p on and end at p + cuts[0..n), n at most
 * PIECE_TOGETHER: those that are in the first table. The others wait; there is room for them. 16
 * bytes are readable where the last one begins. */
static inline __attribute__((always_inline)) uint64_t
piece_count_first(struct piece_cache *c, const struct vocab *v, const char *p, const uint16_t *cuts,
                  size_t n)
{
    struct vocab_key *begin = c->waiting + c->waiting_n, *waiting = begin;
    uint64_t total = 0, from = 0;
    for (size_t i = 0; i < n; i++) {
        uint64_t to = cuts[i], len = to - from, lo, hi;
        const char *q = p + from;
        from = to;
        if (__builtin_expect(len > PIECE_CACHE_LONGEST, 0)) {
            total += piece_first_longer(c, v, q, len);
            continue;
        }
        /* without a branch: whether it is there cannot be foreseen */
        memcpy(&lo, q, 8);
        memcpy(&hi, q + 8, 8);
        struct vocab_key k = { lo & piece_shaping.lo[len],
                               (hi & piece_shaping.hi[len]) | piece_shaping.length[len] };
        const struct vocab_key *first = &c->first[piece_cache_first(piece_cache_hash(k))];
        uint64_t differ = piece_cache_differ(first, k), count = first->hi >> PIECE_KEY_COUNT;
        uint64_t other = (differ | -differ) >> 63; /* 0 or 1 */
        *waiting = k;
        waiting += other;
        total += count & (other - 1);
    }
    c->asked += n;
    c->waiting_n = (unsigned)(waiting - c->waiting);
    for (; begin < waiting; begin++)
        __builtin_prefetch(c->at[piece_cache_set(piece_cache_hash(*begin))]);
    if (c->waiting_n >= PIECE_WAITING + PIECE_TURN) piece_look_up(c, v, PIECE_WAITING);
    return total;
}

#endif
