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

/*
 * The places of a text at which every text that holds it may be cut, whatever stands around it:
 * from *ret_from to *ret_to it is certain to become added tokens, with text between them, and what
 * is before and behind is then counted as if it stood alone. False: it has none. So that this may
 * be said, such a token takes no white space along and matches in raw text, is not the beginning of
 * another one, and none has its first byte but at the front; and the vocabulary puts no space in
 * front of texts.
 */
struct added_cuts {
    const struct vocab *v;
    uint64_t inner[4]; /* bitmap: the bytes that added tokens have behind their first */
};
void added_cuts_init(struct added_cuts *c, const struct vocab *v);
bool added_cuts_find(const struct added_cuts *c, struct str text, size_t *ret_from, size_t *ret_to);

#endif
