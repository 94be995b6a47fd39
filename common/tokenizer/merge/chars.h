/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Vocabularies whose merges begin with characters, not bytes, and that know no pre-tokenizer (those
 * made by SentencePiece: Gemma, Llama 2, Mistral before Tekken, Yi, InternLM2, ...).
 *
 * U+2581, which stands for the space in them, is a space here: in clean text and in the bytes of
 * tokens. A character that has no token is the tokens of its UTF-8 bytes.
 *
 * Two devices make them work like the others. Two characters that stand side by side in no token
 * can never merge: between them there is a boundary between pieces. And inner merges, sooner than
 * all others, make each character that has a token of its bytes, by way of inner tokens with ids
 * from vocab_header.ids on; they never remain, since characters without a token are pieces of their
 * own. Internal to the tokenizer. Pure.
 */
#ifndef TOKENIZER_CHARS_H
#define TOKENIZER_CHARS_H

#include "tokenizer/convert/vocab_build.h"

enum {
    CHARS_SPLIT = 1,            /* vocab_header.chars: a piece begins with every space */
    CHARS_FIRST_RANK = 1 << 22, /* of the merges that are the vocabulary's own */
};

/* scan_piece() for SCAN_CHARS. */
size_t chars_piece(const struct vocab *v, const char *p, size_t n, bool more);

/* Is the piece a single character of several bytes? Without a token of its own it is its bytes. */
static inline bool chars_one(const char *p, size_t n)
{
    unsigned char c = (unsigned char)*p;
    return n > 1 && n == (c >= 0xf0 ? 4u : c >= 0xe0 ? 3u : c >= 0xc0 ? 2u : 1u);
}

/* Adds the inner merges and tokens for all characters among the tokens of b. Call it last. */
enum err chars_add_inner(struct build *b, struct why *why) MUSTCHECK;

/* Collects the neighbours within the tokens of v that merges can make. *ret is the caller's to
 * free. */
enum err chars_neighbours(const struct vocab *v, uint64_t **ret, uint32_t *ret_n) MUSTCHECK;

#endif
