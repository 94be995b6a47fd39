/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Text in which letters of three bytes (Han, kana, Hangul), their signs and ASCII alternate, 64
 * bytes at once: each such character becomes one byte of ASCII of the same class, so that the
 * windows of scan_window.h cut it, and all letters of a window are counted together by what words.h
 * keeps of them. What is not so plain is left to words.h and scan_piece(). Internal to the
 * tokenizer.
 */
#ifndef TOKENIZER_MIXED_H
#define TOKENIZER_MIXED_H

#include "tokenizer/scan/words.h"

/* A words_fn; counts nothing where this processor or this vocabulary has no such form. */
words_fn *mixed_best(const struct vocab *v); /* never NULL */

/* What the character at p is to these windows, which is clean text of n > 0 bytes: a letter 'x', a
 * sign '#', white space '\t', itself if it is ASCII, 0 if it is none of these; -1: there is no such
 * form. For tests. */
int mixed_kind(const char *p, size_t n);

#endif
