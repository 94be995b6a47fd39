/* SPDX-License-Identifier: Apache-2.0 */
/* One active check of one server: a connection, or a GET and its answer. On the checker's loop. */
#ifndef EDGE_PROBE_H
#define EDGE_PROBE_H

#include "match/ruleset.h"
#include "net/conn.h"
#include "upstreams/upstream.h"

/* why: what is wrong; NULL when nothing is. Not called from inside of probe_start(). */
typedef void (*probe_fn)(void *ctx, const char *why);

struct probe {
    struct loop *loop;
    struct pools *pools;
    struct resolver *resolver;
    const struct ruleset *rules;
    const struct snap_upstream *upstream;
    const struct snap_server *server;
    probe_fn fn;
    void *ctx;
    /* private */
    bool busy;
    struct exchange *exchange;
    struct conn conn;
    struct buf body;
    bool models; /* the body is a list of models to be read */
    struct loop_timer timer;
    char why[160];
};

/* The public members are set; not while it is busy. */
void probe_start(struct probe *p);
/* Ends it, if it is busy, without a result. */
void probe_stop(struct probe *p);

#endif
