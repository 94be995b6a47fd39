/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The vocabulary file, as it lies on disk and in memory. Little-endian; every section begins at a
 * multiple of 64. Written by vocab_build.c, mapped by vocab.c, read by bpe.c and pieces.c; internal
 * to this folder.
 *
 *   header | section | section | ...
 *
 * Any change of the meaning of a section raises VOCAB_VERSION: files are made again, not migrated.
 */
#ifndef TOKENIZER_VOCAB_FILE_H
#define TOKENIZER_VOCAB_FILE_H

#include <stdatomic.h>
#include <stdint.h>

#include "tokenizer/scan/scan_regex.h"
#include "tokenizer/scan/scan_window.h"
#include "tokenizer/models/vocab.h"

#define VOCAB_MAGIC "AIGWVOCB"
enum { VOCAB_VERSION = 7, VOCAB_ALIGN = 64 };
#define VOCAB_NO_TOKEN UINT32_MAX
#define VOCAB_NO_RANK UINT32_MAX

enum vocab_section {
    VS_OFFSETS, /* u32[size + 1]: where each token's bytes begin in VS_BYTES */
    VS_BYTES,
    VS_BYTE_IDS,   /* u32[256]: the token of each single byte */
    VS_SHORT,      /* struct vocab_key[short_mask + 1]: whole pieces of at most 15 bytes, by kind */
    VS_SHORT_IDS,  /* u32[short_mask + 1] */
    VS_LONG,       /* u32[long_mask + 1]: ids of whole pieces of 16 bytes and more */
    VS_PAIRS,      /* struct vocab_pair[pair_mask + 1] */
    VS_ADDED,      /* struct vocab_added[added]: by content */
    VS_STRINGS,    /* what struct vocab_text points into */
    VS_TEXTS,      /* struct vocab_text[texts]: name, digest, config, special strings, templates */
    VS_SPLITS,     /* struct vocab_split[size]: the merge that makes each token */
    VS_STATES,     /* struct vocab_state[states] */
    VS_EDGES,      /* struct vocab_edge[edge_mask + 1] */
    VS_NEIGHBOURS, /* u64[neighbours]: which characters stand side by side in tokens, see chars.h */
    VS_JOINS,      /* u64[joins]: which characters may merge, see joins.h */
    VS_BYTE_PAIRS, /* struct vocab_byte_pair[65536]: merges of two single bytes */
    VS_CHARS,      /* u32[65536], with VS_JOINS: the token that a character is, or VOCAB_NO_TOKEN */
    VS_CHAR_FACTS, /* u8[65536], with VS_JOINS: see joins.h */
    VS_SHORT_TAGS, /* u8[short_mask + 1]: a byte of each one's hash, 0 for a free place */
    VS_PAIR_TAGS,  /* u8[pair_mask + 1] */
    VS_WORDS,      /* 2^word_set bits, then u32[2^word_pairs]: see words.h; with VS_JOINS */
    VS_SPACED,     /* u8[65536], with VS_JOINS: see words.h */
    VS_COUNT
};

struct vocab_header {
    char magic[8];
    uint32_t version, header_size;
    uint64_t file_size;
    uint64_t checksum; /* of the whole file: vocab_verify() */
    uint64_t sample;   /* of a part of every page: vocab_open() */
    uint32_t size;     /* one more than the largest id */
    uint32_t shape;    /* enum scan_shape */
    uint32_t normal;   /* CLEAN_NFC, CLEAN_SPACE */
    uint32_t longest;  /* bytes of the longest token */
    uint32_t short_mask, long_mask, pair_mask;
    uint32_t added, texts, states;
    uint32_t linear; /* 1: the linear method agreed with the merges when it was built */
    uint32_t edge_mask;
    uint32_t ids;         /* one more than the largest id that is given out; the rest is inner */
    uint32_t lead;        /* VOCAB_LEAD_... */
    uint32_t neighbours;  /* words of VS_NEIGHBOURS: 0, or a power of 2 */
    uint32_t chars;       /* CHARS_... */
    uint32_t added_flags; /* of all added tokens */
    uint32_t joins;       /* words of VS_JOINS, 0 for SCAN_CHARS */
    uint32_t word_set, word_pairs;
    uint64_t added_first[4]; /* bitmap: bytes that added tokens begin with */
    struct {
        uint64_t at, size;
    } sections[VS_COUNT];
};

/* Where a space comes in front: nowhere, or of the text, also of what follows added tokens, also
 * when there is one. */
enum {
    VOCAB_LEAD_NONE = 0,
    VOCAB_LEAD_FIRST = 1,
    VOCAB_LEAD_EACH = 2,
    VOCAB_LEAD_SPACES = 4,
};

/* A piece of 1..15 bytes: its bytes, zeros, and its length in the last byte. A free place is 0, 0.
 */
struct vocab_key {
    uint64_t lo, hi;
};
/* In VS_SHORT, in the high half of the last byte: whether merges make the token. */
enum { VOCAB_KIND_AT = 60, VOCAB_KIND_MERGED = 1, VOCAB_KIND_WHOLE = 2 };
/*
 * left and right merge to `id`, the sooner the lower the rank. A free place has left =
 * VOCAB_NO_TOKEN. Only the last merges of tokens are there: should two parts of a token stand side
 * by side, then the merges within them were those that make the token, so they are its last two.
 */
struct vocab_pair {
    uint32_t left, right, rank, id;
};
/* Of struct vocab_pair, by left byte << 8 | right byte; rank VOCAB_NO_RANK when they do not merge.
 */
struct vocab_byte_pair {
    uint32_t rank, id;
};
enum {
    ADDED_SPECIAL = 1,
    ADDED_LSTRIP = 2,     /* takes the white space before it along */
    ADDED_RSTRIP = 4,     /* ... behind it */
    ADDED_NORMALIZED = 8, /* matches in normalised text */
};
struct vocab_added {
    uint32_t at, n, id; /* content in VS_STRINGS */
    uint32_t flags;     /* ADDED_... */
};
struct vocab_text {
    uint32_t key_at, key_n, at, n;
};
/* The last merge that makes a token. A single byte has rank 0, what merges cannot make
 * VOCAB_NO_RANK; other ranks are 1 more than in struct vocab_pair. */
struct vocab_split {
    uint32_t left, right, rank;
    uint32_t suffix; /* the longest other token that it ends with, or VOCAB_NO_TOKEN */
};
/* The automaton of Aho and Corasick over all tokens that merges can make. State 0 is the root. */
struct vocab_state {
    uint32_t fail;
    uint32_t token; /* the longest that ends in this state; undefined for the root */
};
struct vocab_edge {
    uint32_t key; /* state << 8 | byte */
    uint32_t to;  /* 0: a free place */
};

struct piece_cache;
struct pieces;

struct vocab {
    atomic_uint refs;
    unsigned char *map;
    size_t map_size;
    bool mapped;
    const struct vocab_header *h;
    const uint32_t *offsets;
    const char *bytes;
    const uint32_t *byte_ids;
    const struct vocab_key *shorts;
    const uint32_t *short_ids;
    const uint32_t *longs;
    const struct vocab_pair *pairs;
    const struct vocab_added *added;
    const char *strings;
    const struct vocab_text *texts;
    const struct vocab_split *splits;
    const struct vocab_state *states;
    const struct vocab_edge *edges;
    const uint64_t *neighbours;
    struct scan_regex *regex; /* SCAN_REGEX */
    const uint64_t *joins;
    const struct vocab_byte_pair *byte_pairs;
    const uint32_t *chars;
    const unsigned char *char_facts, *short_tags, *pair_tags, *words, *spaced;
    scan_window_fn *window;
    size_t (*count_words)(struct piece_cache *c, const struct vocab *v, const char *p, size_t n,
                          uint64_t *count); /* words_fn */
    size_t (*count_mixed)(struct piece_cache *c, const struct vocab *v, const char *p, size_t n,
                          uint64_t *count);
    size_t (*count_scripts)(struct piece_cache *c, const struct vocab *v, const char *p, size_t n,
                            uint64_t *count);
    uint64_t (*count_windows)(struct piece_cache *c, struct pieces *it); /* piece_windows_fn */
    struct piece_pool *pool;                                             /* see piece_cache.h */
};

static inline uint64_t vocab_mix(uint64_t a, uint64_t b)
{
    uint64_t x = (a ^ (b << 32 | b >> 32)) * 0x9e3779b97f4a7c15u;
    x ^= x >> 32;
    x = (x + b) * 0xd6e8feb86659fd93u;
    return x ^ x >> 29;
}

/* n in 1..15 */
static inline struct vocab_key vocab_key_of(const char *p, size_t n)
{
    uint64_t lo = 0, hi = 0;
    if (n >= 8) { /* loads that overlap, but never reach beyond the piece */
        memcpy(&lo, p, 8);
        memcpy(&hi, p + n - 8, 8);
        hi = n == 8 ? 0 : hi >> 8 * (16 - n);
    } else if (n >= 4) {
        uint32_t a, b;
        memcpy(&a, p, 4);
        memcpy(&b, p + n - 4, 4);
        lo = a | (uint64_t)b << 8 * (n - 4);
    } else {
        lo = (unsigned char)p[0] | (uint64_t)(unsigned char)p[n / 2] << 8 * (n / 2) |
             (uint64_t)(unsigned char)p[n - 1] << 8 * (n - 1);
    }
    return (struct vocab_key){ lo, hi | (uint64_t)n << 56 };
}

static inline uint64_t vocab_hash_pair(uint32_t left, uint32_t right)
{
    uint64_t x = ((uint64_t)left << 32 | right) * 0x9e3779b97f4a7c15u;
    return x ^ x >> 32;
}

/* What a place of a table says of its entry: most look-ups find nothing, and see it here. */
static inline unsigned char vocab_tag(uint64_t hash)
{
    unsigned char tag = (unsigned char)(hash >> 56);
    return tag != 0 ? tag : 1;
}

static inline uint32_t vocab_hash_edge(uint32_t key)
{
    return (uint32_t)(key * 0x9e3779b97f4a7c15u >> 32);
}

uint64_t vocab_hash_long(const char *p, size_t n);
/* Of a whole file, its header included, as if the checksums in there were 0. */
uint64_t vocab_file_checksum(const unsigned char *file, size_t n);
/* Of the header and the first line of each page: cheap, and finds a file that was cut short, has
 * holes, or is another one's in part. */
uint64_t vocab_file_sample(const unsigned char *file, size_t n);

/* Where in a table the first place is that may have what is looked for: *ret; false when none has.
 * Needs only the tags. Eight at a time: how many there are to look at cannot be foreseen. */
static inline bool vocab_tagged(const unsigned char *tags, uint64_t mask, uint64_t hash,
                                uint64_t *ret)
{
    const uint64_t ones = 0x0101010101010101u;
    uint64_t i = hash & mask;
    if (i + 8 <= mask) {
        uint64_t all, x;
        memcpy(&all, tags + i, 8);
        x = all ^ ones * vocab_tag(hash);
        /* of each the lowest bit is right */
        uint64_t same = (x - ones) & ~x & ones << 7, free = (all - ones) & ~all & ones << 7;
        uint64_t either = same | free;
        if (__builtin_expect(either != 0, 1)) {
            *ret = i + (unsigned)__builtin_ctzll(either) / 8;
            return (same & either & -either) != 0;
        }
    }
    for (;; i = (i + 1) & mask) {
        if (tags[i] == 0) return false;
        if (tags[i] != vocab_tag(hash)) continue;
        *ret = i;
        return true;
    }
}

/* NULL when the two do not merge; hash is theirs. */
static inline const struct vocab_pair *vocab_pair_at(const struct vocab *v, uint32_t left,
                                                     uint32_t right, uint64_t hash)
{
    uint64_t mask = v->h->pair_mask;
    for (uint64_t i = hash & mask;; i = (i + 1) & mask) {
        unsigned char tag = v->pair_tags[i];
        if (tag == 0) return NULL;
        if (tag != vocab_tag(hash)) continue;
        const struct vocab_pair *p = &v->pairs[i];
        if (p->left == left && p->right == right) return p;
    }
}

/* Brings what vocab_pair_at() looks at first. */
static inline void vocab_pair_fetch(const struct vocab *v, uint64_t hash)
{
    __builtin_prefetch(&v->pair_tags[hash & v->h->pair_mask]);
    __builtin_prefetch(&v->pairs[hash & v->h->pair_mask]);
}

static inline const struct vocab_pair *vocab_pair(const struct vocab *v, uint32_t left,
                                                  uint32_t right)
{
    return vocab_pair_at(v, left, right, vocab_hash_pair(left, right));
}

static inline uint32_t vocab_token_len(const struct vocab *v, uint32_t id)
{
    return v->offsets[id + 1] - v->offsets[id];
}

/* Where a whole piece of at most 15 bytes is in VS_SHORT, or VOCAB_NO_TOKEN; hash is vocab_mix() of
 * its key. */
static inline uint32_t vocab_short_at(const struct vocab *v, struct vocab_key k, uint64_t hash)
{
    const uint64_t kind = (uint64_t)15 << VOCAB_KIND_AT;
    uint64_t mask = v->h->short_mask;
    for (uint64_t i = hash & mask;; i = (i + 1) & mask) {
        unsigned char tag = v->short_tags[i];
        if (tag == 0) return VOCAB_NO_TOKEN;
        if (tag != vocab_tag(hash)) continue;
        const struct vocab_key *at = &v->shorts[i];
        if (at->lo == k.lo && (at->hi & ~kind) == k.hi) return (uint32_t)i;
    }
}

static inline uint32_t vocab_short(const struct vocab *v, struct vocab_key k)
{
    return vocab_short_at(v, k, vocab_mix(k.lo, k.hi));
}

/* The token that a whole piece is, or VOCAB_NO_TOKEN. */
uint32_t vocab_whole(const struct vocab *v, const char *p, size_t n);

#endif
