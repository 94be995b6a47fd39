/* SPDX-License-Identifier: Apache-2.0 */
/* A policy engine in a function: grants what is asked for as long as a counter has it, and answers
 * at once on the asker's thread. The limit is in the policy's id: "NAME:LIMIT". */
#ifndef TESTS_SUPPORT_ENGINE_H
#define TESTS_SUPPORT_ENGINE_H

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "services/edge/limits/admit.h"

enum { ENGINE_COUNTERS = 64, ENGINE_LEASES = 256 };

struct engine {
    pthread_mutex_t lock; /* the limiter asks from its own thread too */
    const struct clock *clock;
    const struct rng *rng;
    bool away;   /* does not answer */
    size_t lose; /* so many messages get lost: their time-outs are told by engine_time_out() */
    struct engine_lost {
        bus_reply_fn fn;
        void *ctx;
    } lost[8];
    size_t lost_n;
    size_t messages;
    struct engine_counter {
        char name[LEASE_ID_MAX + LEASE_KEY_MAX + 2];
        uint64_t limit, out; /* out: granted, less what came back */
    } counters[ENGINE_COUNTERS];
    size_t counters_n;
    struct engine_lease {
        char id[LEASE_ID_MAX + 1];
        uint64_t granted, returned, debt;
    } leases[ENGINE_LEASES];
    size_t leases_n;
};

static inline struct engine_counter *engine_counter(struct engine *e, struct str policy,
                                                    struct str key)
{
    char name[LEASE_ID_MAX + LEASE_KEY_MAX + 2];
    int n = snprintf(name, sizeof name, "%.*s %.*s", STR_ARG(policy), STR_ARG(key));
    const char *colon = memchr(policy.p, ':', policy.n);
    ASSERT(n > 0 && (size_t)n < sizeof name && colon != NULL);
    for (size_t i = 0; i < e->counters_n; i++)
        if (strcmp(e->counters[i].name, name) == 0) return &e->counters[i];
    ASSERT(e->counters_n < ENGINE_COUNTERS);
    struct engine_counter *c = &e->counters[e->counters_n++];
    memcpy(c->name, name, (size_t)n + 1);
    c->limit = strtoull(colon + 1, NULL, 10);
    return c;
}

static inline struct engine_lease *engine_lease(struct engine *e, struct str id)
{
    for (size_t i = 0; i < e->leases_n; i++)
        if (str_eqz(id, e->leases[i].id)) return &e->leases[i];
    ASSERT(e->leases_n < ENGINE_LEASES && id.n <= LEASE_ID_MAX);
    struct engine_lease *l = &e->leases[e->leases_n++];
    *l = (struct engine_lease){ .granted = 0 };
    memcpy(l->id, id.p, id.n);
    return l;
}

static inline struct lease_result engine_serve(struct engine *e, const struct lease_op *op)
{
    struct engine_counter *c = engine_counter(e, op->policy, op->key);
    struct engine_lease *l = engine_lease(e, op->lease);
    struct lease_result r = { .status = LEASE_GRANTED, .lease = op->lease, .ttl_ms = LEASE_TTL_MS };
    c->out -= op->returned - l->returned;
    l->returned = op->returned;
    c->out += op->debt - l->debt;
    l->debt = op->debt;
    if (op->kind == LEASE_ASK && op->min > c->limit) {
        r.status = LEASE_NEVER;
    } else if (op->kind == LEASE_ASK) {
        uint64_t left = c->limit > c->out ? c->limit - c->out : 0;
        uint64_t grant = MIN(op->want + op->ahead, left);
        c->out += grant;
        l->granted += grant;
        if (grant < op->want) r.retry_ms = 1000;
        if (grant == 0) r.status = LEASE_REFUSED;
    }
    r.granted = l->granted;
    r.limit = c->limit;
    r.remaining = c->limit > c->out ? c->limit - c->out : 0;
    r.reset_ms = 6000;
    r.share = c->limit / 2;
    return r;
}

/* The time-outs of messages that got lost. */
static inline void engine_time_out(struct engine *e)
{
    for (size_t i = 0; i < e->lost_n; i++) e->lost[i].fn(e->lost[i].ctx, ERR_TIMEOUT, STR_NULL);
    e->lost_n = 0;
}

/* For limiter_options.request. */
static inline enum err engine_request(void *ctx, struct str data, int timeout_ms, bus_reply_fn fn,
                                      void *fn_ctx)
{
    struct engine *e = ctx;
    struct lease_ask ask;
    struct lease_result results[LEASE_MAX_OPS];
    struct why why;
    struct buf b;
    (void)timeout_ms;
    pthread_mutex_lock(&e->lock);
    e->messages++;
    bool away = e->away, lost = e->lose > 0;
    if (lost) {
        ASSERT(e->lost_n < ARRAY_LEN(e->lost));
        e->lost[e->lost_n++] = (struct engine_lost){ fn, fn_ctx };
        e->lose--;
    }
    pthread_mutex_unlock(&e->lock);
    if (lost) return ERR_OK;
    if (away) {
        fn(fn_ctx, ERR_TIMEOUT, STR_NULL);
        return ERR_OK;
    }
    ASSERT(lease_ask_decode(data, &ask, &why) == ERR_OK);
    pthread_mutex_lock(&e->lock);
    for (size_t i = 0; i < ask.ops_n; i++) results[i] = engine_serve(e, &ask.ops[i]);
    pthread_mutex_unlock(&e->lock);
    struct lease_reply reply = { .epoch = STR("epoch-1"),
                                 .re = ask.id,
                                 .edges = 1,
                                 .results = results,
                                 .results_n = ask.ops_n };
    buf_init(&b, 1 << 20);
    ASSERT(lease_reply_encode(&reply, e->clock, e->rng, "engine", &b) == ERR_OK);
    fn(fn_ctx, ERR_OK, buf_str(&b));
    buf_done(&b);
    lease_ask_done(&ask);
    return ERR_OK;
}

#endif
