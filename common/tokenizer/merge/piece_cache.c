/* SPDX-License-Identifier: Apache-2.0 */
/* Counts pieces by what was counted before. */
#include "tokenizer/merge/piece_cache.h"

#include <stdlib.h>

#include "tokenizer/merge/bpe.h"
#include "tokenizer/merge/joins.h"

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
    bpe_run_free(c->run);
    free(c);
}

void piece_cache_give(const struct vocab *v, struct piece_cache *c)
{
    if (c == NULL) return;
    (void)atomic_fetch_add_explicit(&v->pool->asked, c->asked, memory_order_relaxed);
    (void)atomic_fetch_add_explicit(&v->pool->missed, c->missed, memory_order_relaxed);
    c->asked = c->missed = 0;
    c->later_n = c->later_longer_n = c->waiting_n = 0; /* of a text that was given up */
    c->later_sum = 0;
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

/* ---- sets ---- */

/* Those of a set that the latest ones displace move to the set beside it. */
static struct vocab_key *beside(struct piece_cache *c, struct vocab_key *at)
{
    size_t set = (size_t)(at - c->at[0]) / PIECE_CACHE_WAYS;
    return c->at[set ^ 1];
}

/* Makes `k` the latest of its set; returns the one that had no room any more. */
static struct vocab_key put_first(struct vocab_key *at, struct vocab_key k)
{
    struct vocab_key last = at[PIECE_CACHE_WAYS - 1];
    for (int i = PIECE_CACHE_WAYS - 1; i > 0; i--) at[i] = at[i - 1];
    at[0] = k;
    return last;
}

static void put(struct piece_cache *c, uint64_t hash, struct vocab_key k, uint64_t count)
{
    struct vocab_key *at = c->at[piece_cache_set(hash)], *other = beside(c, at);
    k.hi |= count << PIECE_KEY_COUNT;
    struct vocab_key last = put_first(at, k);
    if (last.hi != 0) (void)put_first(other, last);
    c->first[piece_cache_first(hash)] = k;
}

/* What is not at its first place; 0 when it is not there at all. */
static unsigned find(struct piece_cache *c, uint64_t hash, struct vocab_key k)
{
    struct vocab_key *at = c->at[piece_cache_set(hash)];
    for (int i = 0; i < PIECE_CACHE_WAYS; i++) {
        unsigned count = piece_cache_get(&at[i], k);
        if (count == 0) continue;
        struct vocab_key found = at[i];
        for (; i > 0; i--) at[i] = at[i - 1];
        at[0] = c->first[piece_cache_first(hash)] = found;
        return count;
    }
    if (at[PIECE_CACHE_WAYS - 1].hi == 0) return 0; /* it never displaced one */
    struct vocab_key *other = beside(c, at);
    for (int i = 0; i < PIECE_CACHE_WAYS; i++) {
        unsigned count = piece_cache_get(&other[i], k);
        if (count == 0) continue;
        c->first[piece_cache_first(hash)] = other[i];
        other[i] = put_first(at, other[i]);
        return count;
    }
    return 0;
}

/* ---- counting at once, or later ---- */

static __attribute__((noinline)) uint64_t missed(struct piece_cache *c, uint64_t hash,
                                                 const struct vocab *v, const char *p, size_t n,
                                                 struct vocab_key k, enum what what)
{
    bool keep;
    uint64_t count = find(c, hash, k);
    if (count > 0) return count;
    c->missed++;
    count = count_now(v, p, n, k, what, &keep);
    if (keep) put(c, hash, k, count);
    return count;
}

/* Counts what was left for later. */
static void settle_short(struct piece_cache *c, const struct vocab *v)
{
    struct bpe_short pieces[PIECE_LATER];
    unsigned which[PIECE_LATER], n = 0;
    bool keep[PIECE_LATER];
    for (unsigned i = 0; i < c->later_n; i++) {
        struct piece_later *l = &c->later[i];
        if (vocab_tagged(v->short_tags, v->h->short_mask, l->hash, &l->at))
            __builtin_prefetch(&v->shorts[l->at]);
        else
            l->at = VOCAB_NO_TOKEN;
    }
    for (unsigned i = 0; i < c->later_n; i++) {
        struct piece_later *l = &c->later[i];
        uint32_t at = l->at != VOCAB_NO_TOKEN ? vocab_short_at(v, l->k, l->hash) : VOCAB_NO_TOKEN;
        keep[i] = at == VOCAB_NO_TOKEN || v->shorts[at].hi >> VOCAB_KIND_AT == VOCAB_KIND_MERGED;
        l->count = at != VOCAB_NO_TOKEN && (l->what == PIECE || keep[i]);
        if (l->count > 0) continue;
        which[n] = i;
        pieces[n++] = (struct bpe_short){ .p = (const char *)&l->k,
                                          .n = l->n,
                                          .chars = l->what == PART_OF_CHARS };
    }
    bpe_many(v, pieces, n);
    for (unsigned i = 0; i < n; i++) c->later[which[i]].count = pieces[i].count;
    for (unsigned i = 0; i < c->later_n; i++) {
        struct piece_later *l = &c->later[i];
        c->later_sum += l->count * l->times;
        if (keep[i]) put(c, piece_cache_hash(l->k), l->k, l->count);
    }
    c->later_n = 0;
}

/* What is not at its first place: its tokens, or 0 when that will be known later. */
static inline uint64_t missed_later(struct piece_cache *c, uint64_t hash, const struct vocab *v,
                                    struct vocab_key k, enum what what)
{
    uint64_t count = find(c, hash, k);
    if (count > 0) return count;
    for (unsigned i = 0; i < c->later_n; i++) {
        struct piece_later *l = &c->later[i];
        if (l->k.lo != k.lo || l->k.hi != k.hi || l->what != what) continue;
        l->times++;
        return 0;
    }
    c->missed++;
    uint64_t where = vocab_mix(k.lo, k.hi);
    __builtin_prefetch(&v->short_tags[where & v->h->short_mask]);
    c->later[c->later_n++] = (struct piece_later){
        .k = k, .n = k.hi >> PIECE_KEY_LENGTH, .times = 1, .what = what, .hash = where
    };
    if (c->later_n == PIECE_LATER) settle_short(c, v);
    return 0;
}

static uint64_t short_piece(struct piece_cache *c, const struct vocab *v, const char *p, size_t n,
                            enum what what)
{
    struct vocab_key k = vocab_key_of(p, n);
    uint64_t hash = piece_cache_hash(k);
    unsigned count = piece_cache_get(&c->first[piece_cache_first(hash)], k);
    c->asked++;
    return count > 0 ? count : missed(c, hash, v, p, n, k, what);
}

void piece_look_up(struct piece_cache *c, const struct vocab *v, unsigned but)
{
    uint64_t sum = 0;
    unsigned n = c->waiting_n - but;
    for (unsigned i = 0; i < n; i++) {
        struct vocab_key k = c->waiting[i];
        enum what what = (enum what)(k.hi >> PIECE_KEY_COUNT);
        k.hi &= ((uint64_t)1 << PIECE_KEY_COUNT) - 1;
        sum += missed_later(c, piece_cache_hash(k), v, k, what);
    }
    for (unsigned i = 0; i < but; i++) c->waiting[i] = c->waiting[n + i];
    c->waiting_n = but;
    c->later_sum += sum;
}

/* Counts the piece, or leaves it among those that wait. */
static inline void wait_for(struct piece_cache *c, const struct vocab *v, const char *p, size_t n,
                            enum what what)
{
    struct vocab_key k = vocab_key_of(p, n);
    uint64_t hash = piece_cache_hash(k);
    const struct vocab_key *first = &c->first[piece_cache_first(hash)];
    uint64_t differ = piece_cache_differ(first, k);
    c->asked++;
    c->later_sum += differ == 0 ? first->hi >> PIECE_KEY_COUNT : 0;
    k.hi |= (uint64_t)what << PIECE_KEY_COUNT;
    c->waiting[c->waiting_n] = k;
    c->waiting_n += differ != 0;
    __builtin_prefetch(c->at[piece_cache_set(hash)]);
    if (c->waiting_n >= PIECE_WAITING + PIECE_TURN) piece_look_up(c, v, PIECE_WAITING);
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

/* The place of a piece in its part of the cache: half of all is for places of the least size. */
static unsigned char *place_of(struct piece_cache *c, const char *p, size_t n, unsigned *ret_size)
{
    unsigned size = PIECE_PLACE_LEAST, begin = 0, room = PIECE_LONGER_BYTES / 2;
    for (; n + 2 > size; size *= 2) {
        begin += room;
        if (2 * size < PIECE_PLACE_MOST) room /= 2;
    }
    *ret_size = size;
    return c->longer + begin + (hash_of(p, n) * size & (room - 1));
}

void piece_longer_fetch(struct piece_cache *c, const char *p, size_t n)
{
    unsigned size;
    if (n > PIECE_CACHE_MOST) return;
    const unsigned char *at = place_of(c, p, n, &size);
    __builtin_prefetch(at);
    __builtin_prefetch(at + size - 1);
}

/* Where the piece goes that the latest one displaces. */
static unsigned char *other_place(struct piece_cache *c, unsigned char *at, unsigned size)
{
    bool second = ((size_t)(at - c->longer) & size) != 0;
    return second ? at - size : at + size;
}

static void keep_longer(struct piece_cache *c, unsigned char *at, unsigned size, const char *p,
                        size_t n, uint64_t count)
{
    ASSERT(count > 0 && count <= n && n + 2 <= size);
    if (at[size - 2] != 0) memcpy(other_place(c, at, size), at, size);
    memcpy(at, p, n);
    at[size - 2] = (unsigned char)n;
    at[size - 1] = (unsigned char)count;
}

/* Counts what was left for later, of more than PIECE_CACHE_LONGEST bytes. */
static void settle_longer(struct piece_cache *c, const struct vocab *v)
{
    struct bpe_short pieces[PIECE_LATER_LONGER];
    unsigned which[PIECE_LATER_LONGER], n = 0;
    uint64_t count[PIECE_LATER_LONGER];
    for (unsigned i = 0; i < c->later_longer_n; i++) {
        const struct piece_longer *l = &c->later_longer[i];
        count[i] = vocab_whole(v, l->p, l->n) != VOCAB_NO_TOKEN;
        if (count[i] > 0) continue;
        which[n] = i;
        pieces[n++] = (struct bpe_short){ .p = l->p, .n = l->n };
    }
    bpe_many(v, pieces, n);
    for (unsigned i = 0; i < n; i++) count[which[i]] = pieces[i].count;
    for (unsigned i = 0; i < c->later_longer_n; i++) {
        const struct piece_longer *l = &c->later_longer[i];
        c->later_sum += count[i];
        keep_longer(c, l->at, PIECE_PLACE_LEAST, l->p, l->n, count[i]);
    }
    c->later_longer_n = 0;
}

uint64_t piece_settle(struct piece_cache *c, const struct vocab *v)
{
    if (c == NULL) return 0;
    piece_look_up(c, v, 0);
    settle_short(c, v);
    settle_longer(c, v);
    uint64_t sum = c->later_sum;
    c->later_sum = 0;
    return sum;
}

/* A whole piece of more than PIECE_CACHE_LONGEST bytes that has no parts. */
static enum err whole_piece(struct piece_cache *c, const struct vocab *v, const char *p, size_t n,
                            uint64_t *ret)
{
    bool run = n <= PIECE_RUN_MOST && bpe_run_is(v, p, n);
    if (run && c->run == NULL) c->run = bpe_run_new(PIECE_RUN_MOST);
    if (!run || c->run == NULL || vocab_whole(v, p, n) != VOCAB_NO_TOKEN)
        return bpe_piece(v, p, n, NULL, ret);
    *ret = bpe_run_count(c->run, v, p, n);
    return ERR_OK;
}

/* A whole piece of more than PIECE_CACHE_LONGEST bytes; later: 0 when it is left for later. */
static __attribute__((noinline)) enum err longer_piece(struct piece_cache *c, const struct vocab *v,
                                                       const char *p, size_t n, bool later,
                                                       uint64_t *ret)
{
    unsigned size = 0;
    unsigned char *at = n <= PIECE_CACHE_MOST ? place_of(c, p, n, &size) : NULL;
    c->asked++;
    if (at != NULL) {
        for (unsigned i = 0; i < 2; i++) {
            const unsigned char *place = i == 0 ? at : other_place(c, at, size);
            if (place[size - 2] != n || memcmp(place, p, n) != 0) continue;
            *ret = place[size - 1];
            return ERR_OK;
        }
    }
    c->missed++;
    bool one_part = joins_none(v, p, n);
    if (later && one_part && size == PIECE_PLACE_LEAST) {
        struct piece_longer *l = &c->later_longer[c->later_longer_n++];
        memcpy(l->p, p, n);
        l->n = (unsigned)n;
        l->at = at;
        if (c->later_longer_n == PIECE_LATER_LONGER) settle_longer(c, v);
        *ret = 0;
        return ERR_OK;
    }
    enum err e = one_part ? whole_piece(c, v, p, n, ret) : parts(c, v, p, n, ret);
    if (e == ERR_OK && at != NULL) keep_longer(c, at, size, p, n, *ret);
    return e;
}

enum err piece_count(struct piece_cache *c, const struct vocab *v, const char *p, size_t n,
                     uint64_t *ret)
{
    if (c == NULL) return bpe_piece(v, p, n, NULL, ret);
    if (n > PIECE_CACHE_LONGEST) return longer_piece(c, v, p, n, false, ret);
    *ret = short_piece(c, v, p, n, PIECE);
    return ERR_OK;
}

/* Characters that are no token are bytes where vocabularies are over characters: see bpe_part(). */
static inline bool may_wait(const struct vocab *v)
{
    return v->h->shape != SCAN_CHARS;
}

enum err piece_count_later(struct piece_cache *c, const struct vocab *v, const char *p, size_t n,
                           uint64_t *ret)
{
    if (c == NULL || !may_wait(v)) return piece_count(c, v, p, n, ret);
    if (n > PIECE_CACHE_LONGEST) return longer_piece(c, v, p, n, true, ret);
    wait_for(c, v, p, n, PIECE);
    *ret = 0;
    return ERR_OK;
}

static inline uint64_t part(struct piece_cache *c, const struct vocab *v, const char *p, size_t n,
                            bool chars, bool later)
{
    enum what what = chars ? PART_OF_CHARS : PART;
    if (n <= PIECE_CACHE_LONGEST && later) return wait_for(c, v, p, n, what), 0;
    if (n <= PIECE_CACHE_LONGEST) return short_piece(c, v, p, n, what);
    uint64_t count = 0;
    enum err e = bpe_part(v, p, n, chars, NULL, &count);
    ASSERT(e == ERR_OK && count > 0 && count <= n);
    return count;
}

uint64_t piece_count_part(struct piece_cache *c, const struct vocab *v, const char *p, size_t n,
                          bool chars)
{
    return part(c, v, p, n, chars, false);
}

uint64_t piece_part_later(struct piece_cache *c, const struct vocab *v, const char *p, size_t n,
                          bool chars)
{
    return part(c, v, p, n, chars, may_wait(v));
}
