/* SPDX-License-Identifier: Apache-2.0 */
/* Counts pieces by what was counted before. */
#include "tokenizer/piece_cache.h"

#include <stdlib.h>

#include "tokenizer/bpe.h"

struct piece_cache *piece_cache_take(const struct vocab *v)
{
    for (int i = 0; i < PIECE_CACHE_POOL; i++) {
        if (atomic_load_explicit(&v->pool->idle[i], memory_order_relaxed) == NULL) continue;
        struct piece_cache *c = atomic_exchange_explicit(&v->pool->idle[i], NULL,
                                                         memory_order_acquire);
        if (c != NULL) return c;
    }
    struct piece_cache *c = aligned_alloc(64, sizeof *c);
    if (c != NULL) memset(c, 0, sizeof *c);
    return c;
}

void piece_cache_give(const struct vocab *v, struct piece_cache *c)
{
    for (int i = 0; i < PIECE_CACHE_POOL && c != NULL; i++) {
        struct piece_cache *none = NULL;
        if (atomic_compare_exchange_strong_explicit(&v->pool->idle[i], &none, c,
                                                    memory_order_release, memory_order_relaxed))
            return;
    }
    free(c);
}

void piece_pool_done(struct piece_pool *pool)
{
    for (int i = 0; i < PIECE_CACHE_POOL; i++)
        free(atomic_exchange_explicit(&pool->idle[i], NULL, memory_order_acquire));
}

/* What is not the latest of its set, 1 to PIECE_CACHE_LONGEST bytes. */
static __attribute__((noinline)) uint64_t missed(struct vocab_key *at, const struct vocab *v,
                                                 const char *p, size_t n, struct vocab_key k)
{
    uint64_t count = 0;
    for (int i = 1; i < PIECE_CACHE_WAYS; i++) {
        count = piece_cache_get(&at[i], k);
        if (count == 0) continue;
        struct vocab_key found = at[i];
        for (; i > 0; i--) at[i] = at[i - 1];
        at[0] = found;
        return count;
    }
    enum err e = bpe_piece(v, p, n, NULL, &count);
    ASSERT(e == ERR_OK && count > 0 && count <= n); /* so short a piece needs no memory */
    for (int i = PIECE_CACHE_WAYS - 1; i > 0; i--) at[i] = at[i - 1];
    at[0] = (struct vocab_key){ k.lo, k.hi | count << PIECE_KEY_COUNT };
    return count;
}

enum err piece_count(struct piece_cache *c, const struct vocab *v, const char *p, size_t n,
                     uint64_t *ret)
{
    if (c == NULL || n > PIECE_CACHE_LONGEST) return bpe_piece(v, p, n, NULL, ret);
    struct vocab_key k = vocab_key_of(p, n), *at = c->at[piece_cache_set(k)];
    uint64_t count = piece_cache_get(at, k);
    *ret = count > 0 ? count : missed(at, v, p, n, k);
    return ERR_OK;
}

static __attribute__((noinline)) uint64_t long_piece(const struct vocab *v, const char *p, size_t n)
{
    uint64_t count = 0;
    enum err e = bpe_piece(v, p, n, NULL, &count);
    ASSERT(e == ERR_OK); /* it is shorter than a window */
    return count;
}

uint64_t piece_count_window(struct piece_cache *c, const struct vocab *v, const char *p,
                            uint64_t ends)
{
    static const struct vocab_key keep[16] = {
#define KEEP(n)                                                   \
    { (n) >= 8 ? UINT64_MAX : ((uint64_t)1 << 8 * ((n) % 8)) - 1, \
      (n) <= 8 ? 0 : ((uint64_t)1 << 8 * ((n) % 8)) - 1 }
        KEEP(0), KEEP(1), KEEP(2),  KEEP(3),  KEEP(4),  KEEP(5),  KEEP(6),  KEEP(7),
        KEEP(8), KEEP(9), KEEP(10), KEEP(11), KEEP(12), KEEP(13), KEEP(14), KEEP(15),
#undef KEEP
    };
    uint64_t total = 0;
    unsigned from = 0;
    for (; ends != 0; ends &= ends - 1) {
        unsigned to = (unsigned)__builtin_ctzll(ends), n = to - from;
        const char *q = p + from;
        from = to;
        if (n > PIECE_CACHE_LONGEST || c == NULL) {
            total += long_piece(v, q, n);
            continue;
        }
        struct vocab_key k;
        memcpy(&k, q, sizeof k);
        k.lo &= keep[n].lo;
        k.hi = (k.hi & keep[n].hi) | (uint64_t)n << 56;
        struct vocab_key *at = c->at[piece_cache_set(k)];
        unsigned count = piece_cache_get(at, k);
        total += __builtin_expect(count > 0, 1) ? count : missed(at, v, q, n, k);
    }
    return total;
}
