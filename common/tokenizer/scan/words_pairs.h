/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table of pairs of letters in a vocabulary file: 2^bits places of 32 bits. Only for words*.c.
 * Pure.
 */
#ifndef TOKENIZER_WORDS_PAIRS_H
#define TOKENIZER_WORDS_PAIRS_H

#include <stdbool.h>
#include <stdint.h>

enum { COUNT_AT = 29 /* in a place: the number of tokens */ };

#define HASH_A 0x9e3779b1u
#define HASH_B 0x85ebca6bu

/* Each pair has a hash of its own: what the place of an entry says of it, and the rest beside it,
 * are the pair. */
static inline uint32_t pair_hash(uint32_t a, uint32_t b)
{
    uint32_t x = (a << 16 | b) * HASH_A;
    x ^= x >> 15;
    x *= HASH_B;
    return x ^ x >> 16;
}

static inline bool in_set(const uint64_t *set, uint32_t bits, uint32_t hash)
{
    uint32_t at = hash >> (32 - bits);
    return (set[at / 64] >> at % 64 & 1) != 0;
}

/* The entry of a pair, without its count, `far` places behind its own. */
static inline uint32_t entry(uint32_t hash, uint32_t bits, uint32_t far)
{
    return (hash & ((1u << (32 - bits)) - 1)) | far << (32 - bits);
}

/* The number of tokens of two letters side by side; 0 when no token joins them. */
static inline uint32_t pair_tokens(const uint32_t *places, uint32_t bits, uint32_t hash)
{
    uint32_t at = hash >> (32 - bits), mask = (1u << bits) - 1;
    for (uint32_t far = 0;; far++) {
        uint32_t x = places[(at + far) & mask];
        if (x == 0) return 0;
        if ((x & ((1u << COUNT_AT) - 1)) == entry(hash, bits, far)) return x >> COUNT_AT;
    }
}

/*
 * Of the letters that may merge with the one before (bits of `maybe`), those that do; hash[i] is
 * that of letter i with the one before. ret_pair[k] has bit k of the number of tokens of the two.
 */
static inline __attribute__((always_inline)) uint64_t
pairs_joined(const unsigned char *words, uint32_t set_bits, uint32_t pair_bits,
             const uint32_t *hash, uint64_t maybe, uint64_t ret_pair[3])
{
    const unsigned char *behind = words + ((uint64_t)1 << set_bits) / 8;
    const uint32_t *places = (const uint32_t *)(const void *)behind;
    uint64_t joined = 0, pair0 = 0, pair1 = 0, pair2 = 0;
    for (; maybe != 0; maybe &= maybe - 1) {
        unsigned i = (unsigned)__builtin_ctzll(maybe);
        uint64_t tokens = pair_tokens(places, pair_bits, hash[i]);
        joined |= (uint64_t)(tokens != 0) << i;
        pair0 |= (tokens & 1) << i;
        pair1 |= (tokens >> 1 & 1) << i;
        pair2 |= (tokens >> 2) << i;
    }
    ret_pair[0] = pair0;
    ret_pair[1] = pair1;
    ret_pair[2] = pair2;
    return joined;
}

#endif
