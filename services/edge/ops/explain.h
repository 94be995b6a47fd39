/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Says what this edge would do with a sample request, and why (proto/explain_msg.h): the namespace
 * and what chose it, the route, each policy of the namespace with what it would say or the counter
 * that decides. It asks the same pure functions as a real request does, and changes nothing.
 */
#ifndef EDGE_EXPLAIN_H
#define EDGE_EXPLAIN_H

#include "proto/explain_msg.h"
#include "match/ruleset.h"

struct explain_env {
    const struct ruleset *rules;
    const unsigned char *hash_key; /* 16 bytes: the limiter's */
    bool plain_addresses;          /* the limiter's */
    uint64_t now_wall_ms;          /* for keys that expire */
};

/* Puts the reply's members into `reply`. Pure; any thread that holds the ruleset. ERR_INVALID: the
 * request is none that HTTP allows. */
enum err explain(const struct explain_env *env, const struct explain_ask *ask, struct json *reply,
                 struct why *why) MUSTCHECK;

struct edge;
struct explainer;
/* Answers SUBJECT_EDGE_EXPLAIN for this edge from its rules of the moment. NULL: it cannot. */
struct explainer *explainer_new(struct edge *e);
void explainer_free(struct explainer *x); /* NULL is fine; before the edge's rules go */

#endif
