/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Finds, among many rules in an order, those that a request may fulfil, in that order, by hash
 * look-ups: what it costs does not grow with the rules. Built once, then immutable; any thread.
 *
 * A rule is a rank (its place in the order) and is put down under one or more keys, of which at
 * least one holds whenever the rule does. A key belongs to a group: rules about the same thing
 * (one header, the paths of one namespace).
 *
 *     key                         holds for a value v
 *     INDEX_EXACT   bytes         v is these bytes
 *     INDEX_PREFIX  bytes         v begins with them; with none: always
 *     INDEX_SUFFIX  bytes         v ends with them
 *     INDEX_NETWORK network       v, an address of 16 bytes, lies in it
 */
#ifndef EDGE_MATCH_INDEX_H
#define EDGE_MATCH_INDEX_H

#include "proto/snapshot.h"

struct match_index;

enum index_kind { INDEX_EXACT, INDEX_PREFIX, INDEX_SUFFIX, INDEX_NETWORK, INDEX_KINDS };
enum { INDEX_VALUE_MAX = 1024 }; /* bytes of a key; longer values can only have shorter keys */

struct index_key {
    uint32_t group;
    enum index_kind kind;
    struct str bytes;                   /* of all kinds but NETWORK; borrowed for the call */
    const struct snap_network *network; /* of NETWORK */
};

struct match_index *match_index_new(void);
void match_index_free(struct match_index *x); /* NULL is fine */
/* Puts a rule down under a key. Ranks of one key come in ascending order; the same one twice is
 * once. */
void match_index_add(struct match_index *x, const struct index_key *key, uint32_t rank);
/* How many rules are under the key. */
size_t match_index_count(const struct match_index *x, const struct index_key *key);

/* The rules that are found for some values, merged in their order. */
enum { INDEX_LISTS_MAX = 64 };
struct index_list {
    const uint32_t *v;
    uint32_t n;
};
struct index_walk {
    struct index_list lists[INDEX_LISTS_MAX];
    size_t n;
    bool overflow; /* there were more lists: every rule has to be looked at */
};
static inline void index_walk_init(struct index_walk *w)
{
    w->n = 0;
    w->overflow = false;
}
/* Adds what is under keys of the group that hold for the value. */
void index_walk_find(struct index_walk *w, const struct match_index *x, uint32_t group,
                     struct str value);
/* Adds all rules of one key. */
void index_walk_add(struct index_walk *w, const struct match_index *x, const struct index_key *key);
/* The next rank. False at the end. Not when it has overflown. */
bool index_walk_next(struct index_walk *w, uint32_t *ret);

#endif
