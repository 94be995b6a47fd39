/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pre-tokenizers: they cut clean text into the pieces inside which tokens merge. One hand-written
 * scanner per shape of regular expression; each looks ahead by at most three characters behind the
 * class runs it reads, so a stream can be cut as it comes. Internal to the tokenizer. Pure.
 */
#ifndef TOKENIZER_SCAN_H
#define TOKENIZER_SCAN_H

#include <stdbool.h>
#include <stddef.h>

#include "base/str.h"

/* Kept in vocabulary files: never renumber. */
enum scan_shape {
    SCAN_CL100K = 1,   /* cl100k, Llama 3: up to three digits */
    SCAN_QWEN = 2,     /* the same with single digits */
    SCAN_O200K = 3,    /* words by case, contractions as suffixes */
    SCAN_TEKKEN = 4,   /* words by case, no contractions, single digits */
    SCAN_DEEPSEEK = 5, /* three successive splits */
    SCAN_GPT2 = 6,     /* the first byte-level one */
    SCAN_CHARS = 7,    /* none: merges of characters, see chars.h */
    SCAN_DIGITS = 8,   /* SCAN_GPT2 between digits, each of which is a piece */
    SCAN_REGEX = 9,    /* any other, see scan_regex.h */
    SCAN_END
};

/*
 * The length of the first piece of p, n > 0 bytes of valid UTF-8. With `more`, the text goes on
 * behind n: then 0 when what follows could change the piece.
 */
size_t scan_piece(enum scan_shape shape, const char *p, size_t n, bool more);

/* The shape that a regular expression (as written in a tokenizer.json or by its usual name, cl100k
 * and so on) stands for; 0 when it is none of ours. DeepSeek's comes in three parts, see convert.
 */
enum scan_shape scan_shape_of(struct str regex);

#endif
