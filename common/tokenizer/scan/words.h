/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Runs of letters of three bytes without case: Han, kana, Hangul and the like, which are no words
 * but long pieces. Pieces that are such a run, or one behind a sign, are found and counted here
 * without a branch per character: which neighbours may merge is one bit per character, and two that
 * do are looked up in a table made with the vocabulary. What is not so plain is left to
 * scan_piece() and joins.h. Internal to the tokenizer.
 */
#ifndef TOKENIZER_WORDS_H
#define TOKENIZER_WORDS_H

#include "tokenizer/scan/scan.h"
#include "tokenizer/models/vocab_file.h"

/* Is it such a letter to this pre-tokenizer? Kept in CHAR_WORD, see joins.h. */
bool words_letter(enum scan_shape shape, uint32_t cp);

/*
 * Counts the pieces at p[0..n), clean text in which a piece begins at p, as far as they are of that
 * kind: *count grows by their tokens. Returns how many bytes they have; 0: look otherwise.
 */
typedef size_t words_fn(struct piece_cache *c, const struct vocab *v, const char *p, size_t n,
                        uint64_t *count);

/* In the instructions of several processors, as in scan_window.h: NULL when this one does not have
 * them, or there is no such form. */
words_fn *words_for(const struct vocab *v, enum scan_isa isa);
words_fn *words_best(const struct vocab *v); /* never NULL */

/*
 * The pairs of such letters that stand side by side in tokens of v, whose facts are given: a set of
 * 2^*ret_set bits that may hold others too, and a table of 2^*ret_pairs places that says how many
 * tokens the two are. *ret is the caller's to free: the bits, then the places.
 */
enum err words_build(const struct vocab *v, const unsigned char *facts, uint64_t **ret,
                     uint32_t *ret_set, uint32_t *ret_pairs) MUSTCHECK;

/* How many tokens a space and a letter are that may merge, 0 where they do not: by letter, of
 * which there are WORDS_LETTERS. v has its joins and facts. *ret is the caller's to free. */
enum { WORDS_LETTERS = 0x10000 };
enum err words_spaced(const struct vocab *v, unsigned char **ret) MUSTCHECK;

/* False when a file has other sizes than words_build() makes. */
bool words_fit(uint32_t set, uint32_t pairs);

/* Bytes of both. */
static inline uint64_t words_size(uint32_t set, uint32_t pairs)
{
    return ((uint64_t)1 << set) / 8 + ((uint64_t)1 << pairs) * sizeof(uint32_t);
}

#endif
