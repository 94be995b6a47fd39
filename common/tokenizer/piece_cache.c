/* SPDX-License-Identifier: Apache-2.0 */
/* Counts pieces by what was counted before. */
#include "tokenizer/piece_cache.h"

#include <stdlib.h>

#include "tokenizer/bpe.h"
#include "tokenizer/joins.h"

struct piece_cache *piece_cache_take(const struct vocab *v)
{
    for (int i = 0; i < PIECE_CACHE_POOL; i++) {
        if (atomic_load_explicit(&v->pool->idle[i], memory_order_relaxed) == NULL) continue;
        struct piece_cache *c = atomic_exchange_explicit(&v->pool->idle[i], NULL,
                                                         memory_order_acquire);
        if (c != NULL) return c;
    }
    enum { LINE = 64 };
    struct piece_cache *c = aligned_alloc(LINE, (sizeof *c + LINE - 1) / LINE * LINE);
    if (c == NULL) return NULL;
    memset(c, 0, sizeof *c);
    pieces_scratch_init(&c->scratch);
    return c;
}

static void cache_free(struct piece_cache *c)
{
    if (c == NULL) return;
    pieces_scratch_done(&c->scratch);
    free(c);
}

void piece_cache_give(const struct vocab *v, struct piece_cache *c)
{
    if (c == NULL) return;
    (void)atomic_fetch_add_explicit(&v->pool->asked, c->asked, memory_order_relaxed);
    (void)atomic_fetch_add_explicit(&v->pool->missed, c->missed, memory_order_relaxed);
    c->asked = c->missed = 0;
    for (int i = 0; i < PIECE_CACHE_POOL; i++) {
        struct piece_cache *none = NULL;
        if (atomic_compare_exchange_strong_explicit(&v->pool->idle[i], &none, c,
                                                    memory_order_release, memory_order_relaxed))
            return;
    }
    cache_free(c);
}

struct bpe_run *piece_run_take(const struct vocab *v)
{
    for (int i = 0; i < PIECE_CACHE_POOL; i++) {
        if (atomic_load_explicit(&v->pool->runs[i], memory_order_relaxed) == NULL) continue;
        struct bpe_run *r = atomic_exchange_explicit(&v->pool->runs[i], NULL, memory_order_acquire);
        if (r == NULL) continue;
        bpe_run_clear(r);
        return r;
    }
    return bpe_run_new(PIECE_RUN_MOST);
}

void piece_run_give(const struct vocab *v, struct bpe_run *r)
{
    if (r == NULL) return;
    for (int i = 0; i < PIECE_CACHE_POOL; i++) {
        struct bpe_run *none = NULL;
        if (atomic_compare_exchange_strong_explicit(&v->pool->runs[i], &none, r,
                                                    memory_order_release, memory_order_relaxed))
            return;
    }
    bpe_run_free(r);
}

void vocab_cache_stats(const struct vocab *v, struct vocab_cache_stats *ret)
{
    /* In this order: whoever is counting adds to `asked` first. */
    ret->misses = atomic_load_explicit(&v->pool->missed, memory_order_relaxed);
    uint64_t asked = atomic_load_explicit(&v->pool->asked, memory_order_relaxed);
    ret->hits = asked > ret->misses ? asked - ret->misses : 0;
}

void piece_pool_done(struct piece_pool *pool)
{
    for (int i = 0; i < PIECE_CACHE_POOL; i++) {
        cache_free(atomic_exchange_explicit(&pool->idle[i], NULL, memory_order_acquire));
        bpe_run_free(atomic_exchange_explicit(&pool->runs[i], NULL, memory_order_acquire));
    }
}

/* A piece, or a part of one: joined by whole characters or not. */
enum what { PIECE, PART, PART_OF_CHARS };

/*
 * A token that merges do not make is one only as a whole piece: such are not kept, since a part may
 * have the same bytes.
 */
static uint64_t count_now(const struct vocab *v, const char *p, size_t n, struct vocab_key k,
                          enum what what, bool *ret_keep)
{
    uint64_t count = 1;
    uint32_t at = vocab_short(v, k);
    *ret_keep = at == VOCAB_NO_TOKEN || v->shorts[at].hi >> VOCAB_KIND_AT == VOCAB_KIND_MERGED;
    if (at != VOCAB_NO_TOKEN && (what == PIECE || *ret_keep)) return 1;
    enum err e = bpe_part(v, p, n, what == PART_OF_CHARS, NULL, &count);
    ASSERT(e == ERR_OK && count > 0 && count <= n); /* so short a piece needs no memory */
    return count;
}

/* What is not the latest of its set, 1 to PIECE_CACHE_LONGEST bytes. */
static __attribute__((noinline)) uint64_t missed(struct piece_cache *c, struct vocab_key *at,
                                                 const struct vocab *v, const char *p, size_t n,
                                                 struct vocab_key k, enum what what)
{
    for (int i = 1; i < PIECE_CACHE_WAYS; i++) {
        unsigned count = piece_cache_get(&at[i], k);
        if (count == 0) continue;
        struct vocab_key found = at[i];
        for (; i > 0; i--) at[i] = at[i - 1];
        at[0] = found;
        return count;
    }
    bool keep;
    c->missed++;
    uint64_t count = count_now(v, p, n, k, what, &keep);
    if (!keep) return count;
    for (int i = PIECE_CACHE_WAYS - 1; i > 0; i--) at[i] = at[i - 1];
    at[0] = (struct vocab_key){ k.lo, k.hi | count << PIECE_KEY_COUNT };
    return count;
}

static uint64_t short_piece(struct piece_cache *c, const struct vocab *v, const char *p, size_t n,
                            enum what what)
{
    struct vocab_key k = vocab_key_of(p, n), *at = c->at[piece_cache_set(k)];
    uint64_t count = piece_cache_get(at, k);
    c->asked++;
    return count > 0 ? count : missed(c, at, v, p, n, k, what);
}

/* A piece of more than PIECE_CACHE_LONGEST bytes, part by part: most of them are short. */
static enum err parts(struct piece_cache *c, const struct vocab *v, const char *p, size_t n,
                      uint64_t *ret)
{
    uint64_t total = 0, count = 0;
    bool chars;
    size_t part = joins_part(v, p, n, &chars);
    if (part == n && vocab_whole(v, p, n) != VOCAB_NO_TOKEN) { /* no token has several parts */
        *ret = 1;
        return ERR_OK;
    }
    for (;;) {
        count = joins_one(v, p, part);
        if (count == 0 && part <= PIECE_CACHE_LONGEST) {
            count = short_piece(c, v, p, part, chars ? PART_OF_CHARS : PART);
        } else if (count == 0) {
            enum err e = bpe_part(v, p, part, chars, NULL, &count);
            if (e != ERR_OK) return e;
        }
        total += count;
        p += part;
        n -= part;
        if (n == 0) break;
        part = joins_part(v, p, n, &chars);
    }
    *ret = total;
    return ERR_OK;
}

static uint64_t hash_of(const char *p, size_t n)
{
    uint64_t x = n, w;
    for (size_t i = 0; i + 8 < n; i += 8) {
        memcpy(&w, p + i, 8);
        x = (x ^ w) * 0x9e3779b97f4a7c15u;
        x ^= x >> 32;
    }
    memcpy(&w, p + n - 8, 8);
    x = (x ^ w) * 0xd6e8feb86659fd93u;
    return x ^ x >> 32;
}

/* The place of a piece in its part of the cache. */
static unsigned char *place_of(struct piece_cache *c, const char *p, size_t n, unsigned *ret_size)
{
    unsigned kind = 0, size = PIECE_PLACE_LEAST;
    for (; n + 2 > size; size *= 2) kind++;
    *ret_size = size;
    return c->longer[kind] + (hash_of(p, n) * size & ((1u << PIECE_CACHE_LONG_BITS) - 1));
}

/* A whole piece of more than PIECE_CACHE_LONGEST bytes. */
static __attribute__((noinline)) enum err longer_piece(struct piece_cache *c, const struct vocab *v,
                                                       const char *p, size_t n, uint64_t *ret)
{
    unsigned size = 0;
    unsigned char *at = n <= PIECE_CACHE_MOST ? place_of(c, p, n, &size) : NULL;
    c->asked++;
    if (at != NULL && at[size - 2] == n && memcmp(at, p, n) == 0) {
        *ret = at[size - 1];
        return ERR_OK;
    }
    c->missed++;
    enum err e = joins_none(v, p, n) ? bpe_piece(v, p, n, NULL, ret) : parts(c, v, p, n, ret);
    if (e == ERR_OK && at != NULL) {
        ASSERT(*ret > 0 && *ret <= n);
        memcpy(at, p, n);
        at[size - 2] = (unsigned char)n;
        at[size - 1] = (unsigned char)*ret;
    }
    return e;
}

enum err piece_count(struct piece_cache *c, const struct vocab *v, const char *p, size_t n,
                     uint64_t *ret)
{
    if (c == NULL) return bpe_piece(v, p, n, NULL, ret);
    if (n > PIECE_CACHE_LONGEST) return longer_piece(c, v, p, n, ret);
    *ret = short_piece(c, v, p, n, PIECE);
    return ERR_OK;
}

uint64_t piece_count_part(struct piece_cache *c, const struct vocab *v, const char *p, size_t n,
                          bool chars)
{
    if (n <= PIECE_CACHE_LONGEST) return short_piece(c, v, p, n, chars ? PART_OF_CHARS : PART);
    uint64_t count = 0;
    enum err e = bpe_part(v, p, n, chars, NULL, &count);
    ASSERT(e == ERR_OK && count > 0 && count <= n);
    return count;
}

static uint64_t in_window(struct piece_cache *c, const struct vocab *v, const char *p, size_t n)
{
    uint64_t count = 0;
    enum err e = piece_count(c, v, p, n, &count);
    ASSERT(e == ERR_OK); /* so short a piece needs no memory */
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
    struct {
        struct vocab_key k, *at;
        const char *p;
        unsigned n;
    } pieces[SCAN_WINDOW];
    uint64_t total = 0;
    unsigned from = 0, asked = 0;
    for (; ends != 0; ends &= ends - 1) {
        unsigned to = (unsigned)__builtin_ctzll(ends), n = to - from;
        const char *q = p + from;
        from = to;
        if (__builtin_expect(n > PIECE_CACHE_LONGEST || c == NULL, 0)) {
            total += in_window(c, v, q, n);
            continue;
        }
        struct vocab_key k;
        memcpy(&k, q, sizeof k);
        k.lo &= keep[n].lo;
        k.hi = (k.hi & keep[n].hi) | (uint64_t)n << 56;
        pieces[asked].k = k;
        pieces[asked].p = q;
        pieces[asked].n = n;
        pieces[asked].at = c->at[piece_cache_set(k)];
        __builtin_prefetch(pieces[asked++].at);
    }
    for (unsigned i = 0; i < asked; i++) {
        unsigned count = piece_cache_get(pieces[i].at, pieces[i].k);
        total += __builtin_expect(count > 0, 1)
                     ? count
                     : missed(c, pieces[i].at, v, pieces[i].p, pieces[i].n, pieces[i].k, PIECE);
    }
    if (asked > 0) c->asked += asked;
    return total;
}
