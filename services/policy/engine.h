/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The policy engine between the bus and the store: takes asks, knows the policies' limits and how
 * many edges there are, answers. No I/O of its own. Any thread.
 */
#ifndef POLICY_ENGINE_H
#define POLICY_ENGINE_H

#include "proto/snapshot.h"
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

/* Takes over the limits of a snapshot; does not keep it. ERR_NOMEM: the old ones stay. */
enum err engine_set_policies(struct engine *e, const struct snapshot *s) MUSTCHECK;

/* Serves one message: appends the reply, which is an error message when the ask could not be served
 * (then that error is returned as well, for the endpoint's statistics, and *why says it). */
enum err engine_serve(struct engine *e, struct str ask, struct buf *reply, struct why *why);

/* An edge is alive (presence), or has signed off. */
void engine_saw_edge(struct engine *e, struct str instance);
void engine_lost_edge(struct engine *e, struct str instance);

struct engine_stats {
    uint64_t messages, bad_messages, failed_messages;
    uint64_t ops[LEASE_OP_MAX + 1];     /* by kind; the last: unknown */
    uint64_t results[LEASE_STATUS_MAX]; /* by status */
    uint64_t granted_units;
    uint64_t policies, revision;
    uint64_t edges;
};
void engine_stats(struct engine *e, struct engine_stats *ret);

/* How the ledger sees a policy; false when it is none that is leased. */
bool engine_rule_of(const struct snap_policy *p, struct ledger_rule *ret);

#endif
