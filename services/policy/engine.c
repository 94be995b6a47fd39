/* SPDX-License-Identifier: Apache-2.0 */
/* See the header. `lock` guards the table of rules and the list of edges; the store has its own. */
#include "engine.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "base/map.h"

enum { MAX_POLICIES = 1000000, MAX_EDGES = 4096 };
/* The share of an edge that fell silent is set aside for so long. */
#define EDGE_KEPT_NS (UINT64_C(600) * 1000000000)

struct rules {
    struct map by_id; /* -> struct ledger_rule in v */
    struct ledger_rule *v;
    uint64_t revision;
    unsigned refs; /* guarded by the engine's lock */
};

struct edge {
    uint64_t seen_ns;
};

struct engine {
    struct engine_options o;
    char instance[LEASE_ID_MAX + 1];
    pthread_mutex_t lock;
    struct rules *rules; /* NULL: no configuration yet */
    struct map edges;
    uint64_t swept_ns;
    _Atomic uint64_t messages, bad, failed, granted_units;
    _Atomic uint64_t ops[LEASE_OP_MAX + 1], results[LEASE_STATUS_MAX];
};

bool engine_rule_of(const struct snap_policy *p, struct ledger_rule *ret)
{
    static const enum ledger_kind kinds[] = {
        [SNAP_BUCKET] = LEDGER_BUCKET, [SNAP_SLIDING] = LEDGER_SLIDING, [SNAP_FIXED] = LEDGER_FIXED
    };
    struct ledger_rule r = { .limit = p->limit };
    if (p->kind == SNAP_REQUEST_RATE) {
        r.kind = kinds[p->algorithm];
        r.burst = p->burst;
        r.window_us = p->window_ms * 1000;
        r.lease_us = lease_ttl_ms(p->window_ms) * 1000;
    } else if (p->kind == SNAP_CONCURRENCY) {
        r.kind = LEDGER_SLOTS;
        r.lease_us = lease_ttl_ms(0) * 1000;
    } else {
        return false;
    }
    *ret = r;
    return true;
}

static void rules_free(struct rules *r)
{
    if (r == NULL) return;
    map_done(&r->by_id);
    free(r->v);
    free(r);
}

static struct rules *rules_take(struct engine *e)
{
    pthread_mutex_lock(&e->lock);
    struct rules *r = e->rules;
    if (r != NULL) r->refs++;
    pthread_mutex_unlock(&e->lock);
    return r;
}

static void rules_drop(struct engine *e, struct rules *r)
{
    if (r == NULL) return;
    pthread_mutex_lock(&e->lock);
    bool last = --r->refs == 0;
    pthread_mutex_unlock(&e->lock);
    if (last) rules_free(r);
}

struct engine *engine_new(const struct engine_options *o)
{
    struct engine *e = xcalloc(1, sizeof *e);
    e->o = *o;
    (void)str_copyz(e->instance, sizeof e->instance, str_of(o->instance));
    pthread_mutex_init(&e->lock, NULL);
    map_init(&e->edges, MAX_EDGES);
    return e;
}

static void free_edges(struct engine *e)
{
    struct map_entry *it;
    for (size_t i = 0; (it = map_next(&e->edges, &i)) != NULL;) free(it->value);
    map_done(&e->edges);
}

void engine_free(struct engine *e)
{
    if (e == NULL) return;
    free_edges(e);
    rules_free(e->rules);
    pthread_mutex_destroy(&e->lock);
    free(e);
}

enum err engine_set_policies(struct engine *e, const struct snapshot *s)
{
    struct rules *r = calloc(1, sizeof *r), *old;
    enum err err = ERR_OK;
    size_t n = 0;
    if (r == NULL) return ERR_NOMEM;
    map_init(&r->by_id, MAX_POLICIES);
    r->revision = s->revision;
    r->refs = 1;
    r->v = calloc(MAX(s->policies_n, (size_t)1), sizeof *r->v);
    if (r->v == NULL) err = ERR_NOMEM;
    for (size_t i = 0; i < s->policies_n && err == ERR_OK; i++)
        if (engine_rule_of(&s->policies[i], &r->v[n]))
            err = map_put(&r->by_id, s->policies[i].id, &r->v[n++], NULL);
    if (err != ERR_OK) {
        rules_free(r);
        return err;
    }
    pthread_mutex_lock(&e->lock);
    old = e->rules;
    e->rules = r;
    pthread_mutex_unlock(&e->lock);
    rules_drop(e, old);
    return ERR_OK;
}

/* --- edges --- */

static void sweep_edges(struct engine *e, uint64_t now)
{
    struct map_entry *it;
    if (now - e->swept_ns < EDGE_KEPT_NS / 60) return;
    e->swept_ns = now;
    for (size_t i = 0; (it = map_next(&e->edges, &i)) != NULL;) {
        struct edge *edge = it->value;
        if (now - edge->seen_ns > EDGE_KEPT_NS) free(map_remove(&e->edges, it->key));
    }
}

void engine_saw_edge(struct engine *e, struct str instance)
{
    uint64_t now = clock_mono_ns(e->o.clock);
    pthread_mutex_lock(&e->lock);
    sweep_edges(e, now);
    struct edge *edge = map_get(&e->edges, instance);
    if (edge == NULL && (edge = calloc(1, sizeof *edge)) != NULL &&
        map_put(&e->edges, instance, edge, NULL) != ERR_OK) {
        free(edge);
        edge = NULL;
    }
    if (edge != NULL) edge->seen_ns = now;
    pthread_mutex_unlock(&e->lock);
}

void engine_lost_edge(struct engine *e, struct str instance)
{
    pthread_mutex_lock(&e->lock);
    free(map_remove(&e->edges, instance));
    pthread_mutex_unlock(&e->lock);
}

static uint64_t count_edges(struct engine *e)
{
    pthread_mutex_lock(&e->lock);
    size_t n = e->edges.len;
    pthread_mutex_unlock(&e->lock);
    return MAX(n, (size_t)1);
}

/* --- serving --- */

/* Runs the ops of policies that we know through the store; index says where each result goes. */
static enum err run(struct engine *e, const struct lease_ask *ask, const struct rules *rules,
                    struct lease_reply *reply, char *ret_epoch, struct why *why)
{
    struct store_item *items = calloc(MAX(ask->ops_n, (size_t)1), sizeof *items);
    struct lease_result **place = calloc(MAX(ask->ops_n, (size_t)1), sizeof *place);
    size_t n = 0;
    enum err err = items == NULL || place == NULL ? ERR_NOMEM : ERR_OK;
    for (size_t i = 0; i < ask->ops_n && err == ERR_OK; i++) {
        const struct lease_op *op = &ask->ops[i];
        const struct ledger_rule *rule = map_get(&rules->by_id, op->policy);
        reply->results[i] = (struct lease_result){ .lease = op->lease };
        if (op->kind == LEASE_OP_MAX) {
            reply->results[i].status = LEASE_INVALID;
        } else if (rule == NULL) {
            reply->results[i].status = LEASE_UNKNOWN_POLICY;
        } else {
            reply->results[i].share = rule->limit / reply->edges;
            items[n] = (struct store_item){ .op = op, .rule = rule, .result = reply->results[i] };
            if (rule->kind == LEDGER_FIXED)
                items[n].window = ledger_window_of(rule, clock_wall_ns(e->o.clock) / 1000);
            place[n++] = &reply->results[i];
        }
    }
    if (err == ERR_OK) err = store_serve(e->o.store, ask->epoch, items, n, ret_epoch, why);
    for (size_t i = 0; i < n && err == ERR_OK; i++) {
        *place[i] = items[i].result;
        if (items[i].result.status == LEASE_GRANTED && items[i].op->kind == LEASE_ASK &&
            items[i].result.granted > items[i].op->known)
            e->granted_units += items[i].result.granted - items[i].op->known;
    }
    free(items);
    free(place);
    return err;
}

static enum err serve(struct engine *e, const struct lease_ask *ask, struct buf *out,
                      struct why *why)
{
    char epoch[LEASE_ID_MAX + 1];
    struct rules *rules = rules_take(e);
    struct lease_reply reply = { .re = ask->id, .edges = count_edges(e) };
    enum err err = ERR_OK;
    if (rules == NULL) return why_set(why, ERR_UNAVAILABLE, "no configuration yet");
    reply.revision = rules->revision;
    reply.results_n = ask->ops_n;
    reply.results = calloc(MAX(ask->ops_n, (size_t)1), sizeof *reply.results);
    if (reply.results == NULL) err = why_set(why, ERR_NOMEM, "out of memory");
    if (err == ERR_OK) err = run(e, ask, rules, &reply, epoch, why);
    if (err == ERR_OK) {
        for (size_t i = 0; i < ask->ops_n; i++) {
            e->ops[ask->ops[i].kind]++;
            e->results[reply.results[i].status]++;
        }
        reply.epoch = str_of(epoch);
        err = lease_reply_encode(&reply, e->o.clock, e->o.rng, e->instance, out);
    }
    free(reply.results);
    rules_drop(e, rules);
    return err;
}

enum err engine_serve(struct engine *e, struct str data, struct buf *reply, struct why *why)
{
    struct lease_ask ask;
    enum err err = lease_ask_decode(data, &ask, why);
    e->messages++;
    if (err != ERR_OK) {
        e->bad++;
    } else {
        if (ask.leaving)
            engine_lost_edge(e, ask.from);
        else
            engine_saw_edge(e, ask.from);
        err = serve(e, &ask, reply, why);
        lease_ask_done(&ask);
        if (err != ERR_OK) e->failed++;
    }
    if (err == ERR_OK) return ERR_OK;
    struct json *m = envelope_error(e->o.clock, e->o.rng, e->instance, err, why->text);
    enum err printed = json_print(m, reply);
    json_free(m);
    return printed == ERR_OK ? err : printed;
}

void engine_stats(struct engine *e, struct engine_stats *ret)
{
    *ret = (struct engine_stats){ .messages = e->messages,
                                  .bad_messages = e->bad,
                                  .failed_messages = e->failed,
                                  .granted_units = e->granted_units };
    for (size_t i = 0; i <= LEASE_OP_MAX; i++) ret->ops[i] = e->ops[i];
    for (size_t i = 0; i < LEASE_STATUS_MAX; i++) ret->results[i] = e->results[i];
    pthread_mutex_lock(&e->lock);
    ret->edges = e->edges.len;
    ret->policies = e->rules != NULL ? e->rules->by_id.len : 0;
    ret->revision = e->rules != NULL ? e->rules->revision : 0;
    pthread_mutex_unlock(&e->lock);
}
