/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An estimate for models whose vocabulary nobody has: a weight per kind of character, fitted to the
 * mean of several public vocabularies. Never exact, and everything that carries it must say so.
 * Pure.
 */
#ifndef TOKENIZER_ESTIMATE_H
#define TOKENIZER_ESTIMATE_H

#include <stdint.h>

#include "base/str.h"

struct token_estimate {
    uint64_t weight; /* in 1/1000 token */
    uint8_t last;    /* kind of the last character */
    uint8_t part[4]; /* the beginning of a character */
    uint8_t part_n;
};

/* Zeroed is the start. Any split of the same bytes gives the same result. */
void token_estimate_feed(struct token_estimate *e, struct str bytes);
/* Rounded up; at least 1 for any text that is not empty. */
uint64_t token_estimate_count(const struct token_estimate *e);

/* The estimate of a whole text. */
uint64_t token_estimate(struct str text);

#endif
