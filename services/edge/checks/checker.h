/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Looks after upstream servers: active checks, and what edges tell each other about them. One
 * thread with a loop; results go to the fleet.
 *
 * Each server of an upstream with `health_check` is asked every interval_ms, give or take a tenth,
 * on a connection of its own. What another edge saw is no verdict here: it makes this edge look at
 * once where there are checks, and suspicious for ten seconds (health.h), so that a server that
 * fails here too is out at its first failure. An edge that cannot reach a server takes it from
 * nobody else. At most one message per server and second goes out, and one is acted upon.
 */
#ifndef EDGE_CHECKER_H
#define EDGE_CHECKER_H

#include "upstreams/fleet.h"
#include "rt/bus.h"

struct checker;
struct resolver;
struct ruleset;

struct checker_options {
    const struct clock *clock;
    const struct rng *rng;
    struct bus *bus;
    struct resolver *resolver;
    struct fleet *fleet;
};

struct checker *checker_new(const struct checker_options *o);
void checker_free(struct checker *c); /* waits for its thread; NULL is fine */
/* From now on the servers of these rules; takes a reference. Any thread. */
void checker_use(struct checker *c, struct ruleset *r);
/* The fleet saw this: for the log and the other edges. Any thread. */
void checker_tell(struct checker *c, const struct fleet_event *ev);

#endif
