/* SPDX-License-Identifier: Apache-2.0 */
/* Builds the automaton of all tokens. One owner thread. */
#include "tokenizer/merge/automaton.h"

#include <stdlib.h>

enum { MAX_STATES = 1 << 24 }; /* a state and a byte make a key of 32 bits */

struct trie {
    struct vocab_edge *edges;
    uint32_t mask;
    uint32_t *parent, *depth;
    unsigned char *byte;
    uint32_t n, deepest;
};

static struct vocab_edge *place(struct vocab_edge *edges, uint32_t mask, uint32_t key)
{
    for (uint32_t i = vocab_hash_edge(key);; i++) {
        struct vocab_edge *e = &edges[i & mask];
        if (e->to == 0 || e->key == key) return e;
    }
}

static uint32_t descend(struct trie *t, uint32_t state, unsigned char byte)
{
    uint32_t key = state << 8 | byte;
    struct vocab_edge *e = place(t->edges, t->mask, key);
    if (e->to == 0) {
        *e = (struct vocab_edge){ key, t->n };
        t->parent[t->n] = state;
        t->byte[t->n] = byte;
        t->depth[t->n] = t->depth[state] + 1;
        t->deepest = MAX(t->deepest, t->depth[t->n]);
        t->n++;
    }
    return e->to;
}

/* All states but the root, by depth. */
static void sort_by_depth(const struct trie *t, uint32_t *order, uint32_t *from)
{
    for (uint32_t s = 1; s < t->n; s++) from[t->depth[s] + 1]++;
    for (uint32_t d = 1; d <= t->deepest + 1; d++) from[d] += from[d - 1];
    for (uint32_t s = 1; s < t->n; s++) order[from[t->depth[s]]++] = s;
}

static uint32_t follow(const struct trie *t, const struct vocab_state *states, uint32_t state,
                       unsigned char byte)
{
    for (;;) {
        uint32_t to = place(t->edges, t->mask, state << 8 | byte)->to;
        if (to != 0 || state == 0) return to;
        state = states[state].fail;
    }
}

static enum err shrink_edges(struct automaton *a, const struct trie *t)
{
    uint32_t size = 16;
    while (size < t->n + (uint64_t)t->n / 2) size *= 2;
    a->edge_mask = size - 1;
    a->edges = calloc(size, sizeof *a->edges);
    if (a->edges == NULL) return ERR_NOMEM;
    for (uint32_t i = 0; i <= t->mask; i++)
        if (t->edges[i].to != 0) *place(a->edges, a->edge_mask, t->edges[i].key) = t->edges[i];
    return ERR_OK;
}

enum err automaton_build(struct automaton *a, const char *bytes, const uint32_t *offsets,
                         uint32_t size, struct vocab_split *splits)
{
    size_t most = 1;
    for (uint32_t id = 0; id < size; id++)
        if (splits[id].rank != VOCAB_NO_RANK) most += offsets[id + 1] - offsets[id];
    if (most > MAX_STATES) return ERR_LIMIT;
    struct trie t = { .n = 1 };
    uint32_t cap = 16;
    while (cap < 2 * most) cap *= 2;
    t.mask = cap - 1;
    t.edges = calloc(cap, sizeof *t.edges);
    t.parent = calloc(most, sizeof *t.parent);
    t.depth = calloc(most, sizeof *t.depth);
    t.byte = calloc(most, sizeof *t.byte);
    uint32_t *order = calloc(most, sizeof *order);
    uint32_t *end = malloc((size_t)size * sizeof *end); /* the state of each token */
    uint32_t *from = NULL;
    enum err e = ERR_NOMEM;
    if (t.edges == NULL || t.parent == NULL || t.depth == NULL || t.byte == NULL || order == NULL ||
        end == NULL)
        goto out;
    for (uint32_t id = 0; id < size; id++) {
        end[id] = 0;
        if (splits[id].rank == VOCAB_NO_RANK) continue;
        for (uint32_t i = offsets[id]; i < offsets[id + 1]; i++)
            end[id] = descend(&t, end[id], (unsigned char)bytes[i]);
    }
    a->states_n = t.n;
    a->states = calloc(t.n, sizeof *a->states);
    from = calloc((size_t)t.deepest + 2, sizeof *from);
    if (a->states == NULL || from == NULL) goto out;
    for (uint32_t s = 0; s < t.n; s++) a->states[s].token = VOCAB_NO_TOKEN;
    for (uint32_t id = 0; id < size; id++)
        if (end[id] != 0) a->states[end[id]].token = id;
    sort_by_depth(&t, order, from);
    for (uint32_t i = 0; i + 1 < t.n; i++) {
        uint32_t s = order[i], up = t.parent[s];
        struct vocab_state *state = &a->states[s];
        state->fail = up == 0 ? 0 : follow(&t, a->states, a->states[up].fail, t.byte[s]);
        uint32_t suffix = a->states[state->fail].token;
        if (state->token == VOCAB_NO_TOKEN)
            state->token = suffix;
        else
            splits[state->token].suffix = suffix;
    }
    e = shrink_edges(a, &t);
out:
    free(t.edges);
    free(t.parent);
    free(t.depth);
    free(t.byte);
    free(order);
    free(end);
    free(from);
    return e;
}

void automaton_done(struct automaton *a)
{
    free(a->states);
    free(a->edges);
}
