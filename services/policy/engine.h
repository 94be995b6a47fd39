/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The policy engine between the bus and the store: takes asks, knows the policies' limits and how
 * many edges there are, answers. No I/O of its own. Any thread.
 */
#ifndef POLICY_ENGINE_H
#define POLICY_ENGINE_H

#include "rules.h"
#include "store.h"

struct engine;

struct engine_options {
    struct store *store; /* borrowed */
    const struct clock *clock;
    const struct rng *rng;
    const char *instance;
};

struct engine *engine_new(const struct engine_options *o);
void engine_free(struct engine *e);

/* Takes over the limits of a snapshot; does not keep it. ERR_NOMEM, ERR_NOT_FOUND (a time zone):
 * the old ones stay. */
enum err engine_set_policies(struct engine *e, const struct snapshot *s, struct why *why) MUSTCHECK;
/* Those in use; NULL: none yet. rules_unref() when done. */
struct rules *engine_rules(struct engine *e);

/* Serves one message: appends the reply, which is an error message when the ask could not be served
 * (then that error is returned as well, for the endpoint's statistics, and *why says it). */
enum err engine_serve(struct engine *e, struct str ask, struct buf *reply, struct why *why);

/* An edge is alive (presence), or has signed off, or was removed by an operator (false: it was not
 * known). What an edge that is silent may be using by itself is set aside until then. */
void engine_saw_edge(struct engine *e, struct str instance);
/* The same, and it says among how many it shares the limits; 0: it was not told yet. */
void engine_heard_edge(struct engine *e, struct str instance, uint64_t among);
bool engine_lost_edge(struct engine *e, struct str instance);

struct engine_stats {
    uint64_t messages, bad_messages, failed_messages;
    uint64_t ops[LEASE_OP_MAX + 1];     /* by kind; the last: unknown */
    uint64_t results[LEASE_STATUS_MAX]; /* by status */
    uint64_t granted_units;
    uint64_t policies, revision;
    uint64_t edges, silent_edges;
    uint64_t lost, seeded; /* quotas that wait to be seeded, and that were */
};
void engine_stats(struct engine *e, struct engine_stats *ret);
/* For each policy: how full the counter was that was asked for last, and how many asks were refused
 * since this was called last. */
void engine_tell_policies(struct engine *e,
                          void (*fn)(void *ctx, struct str slug, double utilization,
                                     uint64_t refused),
                          void *ctx);

/* --- for operators --- */

/* store_look() and store_reset() for a policy; key.p == NULL: all its counters. ERR_NOT_FOUND: no
 * such policy. */
enum err engine_look(struct engine *e, struct str policy, struct str key, const char *cursor,
                     size_t most, store_view_fn fn, void *ctx, char ret_cursor[STORE_CURSOR_LEN],
                     struct why *why) MUSTCHECK;
enum err engine_reset(struct engine *e, struct str policy, struct str key, size_t *ret_n,
                      struct why *why) MUSTCHECK;

/* --- quotas whose use was lost --- */

struct engine_lost {
    char policy[LEASE_ID_MAX + 1], key[LEASE_KEY_MAX + 1];
};
/* One that an edge asked for, and that was not told within the last two seconds. */
bool engine_next_lost(struct engine *e, struct engine_lost *ret);
/* What was used of its window. */
enum err engine_seed(struct engine *e, const struct engine_lost *l, uint64_t used,
                     struct why *why) MUSTCHECK;

#endif
