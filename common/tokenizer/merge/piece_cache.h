/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How many tokens the pieces seen last have. Keyed by the bytes themselves, so a hit is exact; each
 * place holds the latest piece that fell on it. Text repeats its pieces, and a place is 16 bytes:
 * what is looked up stays in the processor's own cache, which a vocabulary's tables are too large
 * for. Whoever counts borrows a cache from the vocabulary for as long as it counts: nothing is
 * cleared between calls, memory is bounded by how many count at the same time, and there are no
 * locks. Internal to the tokenizer. A cache has one owner thread at a time.
 */
#ifndef TOKENIZER_PIECE_CACHE_H
#define TOKENIZER_PIECE_CACHE_H

#include "tokenizer/merge/bpe.h"
#include "tokenizer/scan/pieces.h"
#include "tokenizer/models/vocab_file.h"

enum {
    PIECE_FIRST_BITS = 13,         /* places of what was asked for last: see `first` */
    PIECE_CACHE_BITS = 16,         /* sets */
    PIECE_CACHE_WAYS = 4,          /* pieces of a set, the latest first: one line of memory */
    PIECE_CACHE_LONGEST = 15,      /* bytes of a piece in it */
    PIECE_CACHE_POOL = 16,         /* caches that a vocabulary keeps */
    PIECE_RUN_MOST = 3 * 4096 + 4, /* bytes of a run that a meter follows: U+FFFD is three */
    PIECE_LATER = 32,              /* pieces that are counted at once */
    PIECE_LATER_LONGER = 12,       /* ... of more than PIECE_CACHE_LONGEST bytes */
    PIECE_WAITING = 16,            /* pieces whose sets are on their way from memory */
    PIECE_TURN = 32,               /* ... and that are looked up together */
    PIECE_TOGETHER = 256,          /* pieces of plain ASCII that are counted together, at most */
    PIECE_KEY_COUNT = 60,          /* the number of tokens is in the bits of `hi` from here on */
    PIECE_KEY_LENGTH = 56,         /* ... the number of bytes, four bits */

    /* Longer pieces are kept whole, each in a place of one of these sizes: their bytes, their
     * length, their number of tokens. */
    PIECE_PLACES = 4,
    PIECE_PLACE_LEAST = 32,
    PIECE_PLACE_MOST = PIECE_PLACE_LEAST << (PIECE_PLACES - 1),
    PIECE_CACHE_MOST = PIECE_PLACE_MOST - 2,
    PIECE_LONGER_BYTES = 1 << 21, /* for the places of all sizes: most are of the least */
};

/* struct vocab_key with the number of tokens in the high half of its last byte. */
struct piece_cache {
    /* What was asked for last, small enough to stay near the processor: nine of ten pieces of a
     * text are found here. What is not waits until its set has come from further away. */
    _Alignas(64) struct vocab_key first[1 << PIECE_FIRST_BITS];
    struct vocab_key at[1 << PIECE_CACHE_BITS][PIECE_CACHE_WAYS];
    unsigned char longer[PIECE_LONGER_BYTES];
    /* pieces and parts that are still to be counted: counting several at once is quicker */
    struct piece_later {
        struct vocab_key k;
        uint32_t n, times, what;
        uint64_t hash, at; /* where in VS_SHORT it may be */
        uint64_t count;
    } later[PIECE_LATER];
    struct vocab_key waiting[PIECE_WAITING + PIECE_TURN + PIECE_TOGETHER +
                             4]; /* what they are instead of a count */
    struct piece_longer {
        char p[BPE_MANY + 1];
        unsigned n;
        unsigned char *at; /* its place in `longer` */
    } later_longer[PIECE_LATER_LONGER];
    unsigned later_n, later_longer_n, waiting_n;
    uint64_t later_sum;     /* tokens of those that were counted since */
    uint64_t asked, missed; /* pieces looked up, and not found, since it was taken */
    struct bpe_run *run;    /* the latest long run: others begin like it; NULL: there was none */
    struct pieces_scratch scratch; /* for whoever has it */
};

struct piece_pool {
    _Atomic(struct piece_cache *) idle[PIECE_CACHE_POOL];
    _Atomic(struct bpe_run *) runs[PIECE_CACHE_POOL];
    _Atomic uint64_t asked, missed; /* of all caches, up to when they were given back */
};
void piece_pool_done(struct piece_pool *pool);

/* NULL when memory is out: count without. */
struct piece_cache *piece_cache_take(const struct vocab *v);
void piece_cache_give(const struct vocab *v, struct piece_cache *c); /* NULL is fine */

/* The same for the prefixes of a run: cleared, of PIECE_RUN_MOST bytes, always of this vocabulary.
 * A hundred kilobytes or two that only a stream that is in a long run needs. */
struct bpe_run *piece_run_take(const struct vocab *v);
void piece_run_give(const struct vocab *v, struct bpe_run *r); /* NULL is fine */

/* The bits of a product depend on all below them: its highest ones are good to find a place by. */
static inline uint64_t piece_cache_hash(struct vocab_key k)
{
    return (k.lo ^ (k.hi << 32 | k.hi >> 32)) * 0x9e3779b97f4a7c15u;
}

static inline size_t piece_cache_set(uint64_t hash)
{
    return (size_t)(hash >> (64 - PIECE_CACHE_BITS));
}

static inline size_t piece_cache_first(uint64_t hash)
{
    return (size_t)(hash >> (64 - PIECE_FIRST_BITS));
}

/* 0 when the piece k, without a count, is the one at `at`. */
static inline uint64_t piece_cache_differ(const struct vocab_key *at, struct vocab_key k)
{
    return (at->lo ^ k.lo) | (at->hi ^ k.hi) << (64 - PIECE_KEY_COUNT);
}

/* The number of tokens of the piece, 0 when it is not there. */
static inline unsigned piece_cache_get(const struct vocab_key *at, struct vocab_key k)
{
    return piece_cache_differ(at, k) == 0 ? (unsigned)(at->hi >> PIECE_KEY_COUNT) : 0;
}

/* The number of tokens of a piece, n > 0. c may be NULL. ERR_NOMEM. */
enum err piece_count(struct piece_cache *c, const struct vocab *v, const char *p, size_t n,
                     uint64_t *ret) MUSTCHECK;

/* The number of tokens of a part of a piece, n > 0, that needs no memory: at most BPE_HEAP bytes,
 * or BPE_STACK where the linear method holds. chars: merging may begin with characters, see
 * joins.h. */
uint64_t piece_count_part(struct piece_cache *c, const struct vocab *v, const char *p, size_t n,
                          bool chars);

/*
 * The same, and of windows: some count 0 for now, and piece_settle() tells the tokens of all those,
 * which is quicker than one by one. To be asked before the cache is given back.
 */
enum err piece_count_later(struct piece_cache *c, const struct vocab *v, const char *p, size_t n,
                           uint64_t *ret) MUSTCHECK;
uint64_t piece_part_later(struct piece_cache *c, const struct vocab *v, const char *p, size_t n,
                          bool chars);
uint64_t piece_settle(struct piece_cache *c, const struct vocab *v); /* c may be NULL */

/* Brings the place of a piece of more than PIECE_CACHE_LONGEST bytes, which is asked for soon. */
void piece_longer_fetch(struct piece_cache *c, const char *p, size_t n);

/* Looks for those that have waited, but for the last `but` of them. */
void piece_look_up(struct piece_cache *c, const struct vocab *v, unsigned but);

/* Takes all pieces that pieces_window() finds, and counts them, some only later. */
typedef uint64_t piece_windows_fn(struct piece_cache *c, struct pieces *it);

/* In the instructions of several processors, as in scan_window.h. */
piece_windows_fn *piece_windows_for(enum scan_isa isa); /* NULL when this one does not have them */
piece_windows_fn *piece_windows_best(void);             /* never NULL */

#endif
