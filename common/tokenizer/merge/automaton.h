/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The automaton of Aho and Corasick (CACM 18, 1975) over the tokens that merges can make: fed byte
 * by byte it knows the longest token that ends there, and from it all shorter ones. Built when a
 * vocabulary is converted, walked by bpe.c. Internal to the tokenizer. One owner thread.
 */
#ifndef TOKENIZER_AUTOMATON_H
#define TOKENIZER_AUTOMATON_H

#include "tokenizer/models/vocab_file.h"

struct automaton {
    struct vocab_state *states;
    struct vocab_edge *edges;
    uint32_t states_n, edge_mask;
};

/* Reads the tokens with a rank and fills in splits[].suffix. ERR_LIMIT: too many states. */
enum err automaton_build(struct automaton *a, const char *bytes, const uint32_t *offsets,
                         uint32_t size, struct vocab_split *splits) MUSTCHECK;
void automaton_done(struct automaton *a);

#endif
