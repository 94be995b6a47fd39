/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A block of raw bytes cleaned into a scratch, and where what is there came from: the clusters that
 * begin within 64 raw bytes share one note of 24 bytes. Only for pieces.c. One owner thread.
 */
#ifndef TOKENIZER_PIECES_CLEAN_H
#define TOKENIZER_PIECES_CLEAN_H

#include "tokenizer/scan/pieces.h"

/* Cleans the clusters of p[0..n), after what is in s->clean already, into s; closed: nothing
 * follows. *ret is how many of the bytes they are. */
enum err pieces_clean(struct pieces_scratch *s, const char *p, size_t n, unsigned how, bool closed,
                      size_t *ret) MUSTCHECK;

/* The last boundary of clusters that has at most `pos` clean bytes before it: how many there are,
 * of how many raw ones. The first `lead` clean bytes are of none. */
void pieces_clean_boundary(const struct pieces_scratch *s, size_t pos, size_t lead, size_t *ret_raw,
                           size_t *ret_clean);

#endif
