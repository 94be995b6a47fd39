/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the mock says: a text as a row of pieces, each of exactly one token in the vocabularies of
 * Qwen3, cl100k_base and o200k_base (whole words with the space before them, and punctuation), so
 * that a text of n pieces has n tokens in each of them, wherever it ends. Pure.
 */
#ifndef TEXT_H
#define TEXT_H

#include "base/buf.h"

struct text {
    uint64_t len;    /* pieces */
    size_t start;    /* where in the list of words it goes on after the first sentence */
    struct str copy; /* of text_copy(): the text itself, borrowed; else p == NULL */
    uint32_t *ends;  /* of text_copy(): where each piece ends; owned */
};

enum { TEXT_PIECE_MAX = 32 };

/* Some sentences, 30 to 60 pieces; the same for the same seed. */
void text_natural(struct text *t, uint64_t seed);
/* n pieces, whatever sentence that ends in. */
void text_exact(struct text *t, uint64_t seed, uint64_t n);
/* The text as it is, in pieces of a few bytes that never part a character. ERR_NOMEM. */
enum err text_copy(struct text *t, struct str borrowed) MUSTCHECK;
/* The same in pieces that end at ends[0..n), which is taken over (malloc); the last is the end of
 * the text. */
void text_pieces(struct text *t, struct str borrowed, uint32_t *ends, size_t n);
/* Some sentences in Chinese, for prompts in Chinese. Not made of pieces: see struct splitter. */
struct str text_chinese(uint64_t seed);
void text_done(struct text *t);

/* Piece i < t->len; in `scratch` or in the text. */
struct str text_piece(const struct text *t, uint64_t i, char scratch[TEXT_PIECE_MAX]);
/* Appends all of it. */
enum err text_append(const struct text *t, struct buf *out) MUSTCHECK;

#endif
