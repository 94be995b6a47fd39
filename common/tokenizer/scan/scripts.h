/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Text of any script, 64 characters at once: each becomes one byte of ASCII of the same class, so
 * that the windows of scan_window.h cut it, and the pieces are counted like those of plain ASCII.
 * What cannot be told so is left to scan_piece(). Internal to the tokenizer.
 */
#ifndef TOKENIZER_SCRIPTS_H
#define TOKENIZER_SCRIPTS_H

#include "tokenizer/scan/scan_window.h"
#include "tokenizer/scan/words.h"

/* A words_fn; counts nothing where this vocabulary has no such form. */
words_fn *scripts_best(const struct vocab *v); /* never NULL */

/* Where the first pieces of clean text p[0..n), n > 0, end, as far as that is known whatever stands
 * behind it, in bytes: room for SCAN_WINDOW. Returns how many there are. For tests. */
size_t scripts_cuts(enum scan_shape shape, const char *p, size_t n, uint16_t *cuts);

#endif
