/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Finds the strings of added tokens in raw text, as Hugging Face's engine does: the leftmost, of
 * those the longest; some take the white space beside them along. Internal to the tokenizer. Pure.
 */
#ifndef TOKENIZER_ADDED_H
#define TOKENIZER_ADDED_H

#include "tokenizer/models/vocab_file.h"

struct added_match {
    size_t at, n; /* n = 0: there is none before `at`, and what stands from there on is open */
    uint32_t id;
};

/* The first one in raw[from ... n); `final`: nothing follows. */
struct added_match added_find(const struct vocab *v, const char *raw, size_t from, size_t n,
                              bool final);

#endif
