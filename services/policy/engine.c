/* SPDX-License-Identifier: Apache-2.0 */
/* See the header. `lock` guards the table of rules and the list of edges; the store has its own. */
#include "engine.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/map.h"
#include "shares.h"

enum { MAX_LOST = 1024 };
/* In the map of lost counters, by "<policy>\n<key>". */
struct lost {
    uint64_t not_before_ns;
};
#define LOST_RETRY_NS (UINT64_C(2) * 1000000000)

struct engine {
    struct engine_options o;
    char instance[LEASE_ID_MAX + 1];
    pthread_mutex_t lock;
    struct rules *rules; /* NULL: no configuration yet */
    struct shares shares;
    struct map lost;
    _Atomic uint64_t messages, bad, failed, granted_units, seeded;
    _Atomic uint64_t ops[LEASE_OP_MAX + 1], results[LEASE_STATUS_MAX];
};

static struct rules *rules_take(struct engine *e)
{
    pthread_mutex_lock(&e->lock);
    struct rules *r = e->rules != NULL ? rules_ref(e->rules) : NULL;
    pthread_mutex_unlock(&e->lock);
    return r;
}

struct engine *engine_new(const struct engine_options *o)
{
    struct engine *e = xcalloc(1, sizeof *e);
    e->o = *o;
    (void)str_copyz(e->instance, sizeof e->instance, str_of(o->instance));
    pthread_mutex_init(&e->lock, NULL);
    shares_init(&e->shares, clock_mono_ns(o->clock) / 1000, LEASE_TTL_MS * UINT64_C(1000));
    map_init(&e->lost, MAX_LOST);
    return e;
}

static void free_lost(struct engine *e)
{
    struct map_entry *it;
    for (size_t i = 0; (it = map_next(&e->lost, &i)) != NULL;) free(it->value);
    map_done(&e->lost);
}

void engine_free(struct engine *e)
{
    if (e == NULL) return;
    shares_done(&e->shares);
    free_lost(e);
    rules_unref(e->rules);
    pthread_mutex_destroy(&e->lock);
    free(e);
}

enum err engine_set_policies(struct engine *e, const struct snapshot *s, struct why *why)
{
    struct rules *r, *old;
    const struct rule *rule, *was;
    struct str id;
    enum err err = rules_new(s, &r, why);
    if (err != ERR_OK) return err;
    pthread_mutex_lock(&e->lock);
    old = e->rules;
    for (size_t i = 0; old != NULL && (rule = rules_next(r, &i, &id)) != NULL;) {
        was = rules_get(old, id);
        if (was == NULL) continue;
        rule->use->refused = was->use->refused;
        rule->use->permille = was->use->permille;
    }
    e->rules = r;
    pthread_mutex_unlock(&e->lock);
    rules_unref(old);
    return ERR_OK;
}

/* --- quotas whose use is not known any more --- */

static void note_lost(struct engine *e, const struct store_item *item)
{
    char name[LEASE_ID_MAX + 1 + LEASE_KEY_MAX];
    size_t n = item->op->policy.n;
    memcpy(name, item->op->policy.p, n);
    name[n++] = '\n';
    memcpy(name + n, item->op->key.p, item->op->key.n);
    n += item->op->key.n;
    pthread_mutex_lock(&e->lock);
    if (map_get(&e->lost, str_n(name, n)) == NULL) {
        struct lost *l = calloc(1, sizeof *l);
        /* when there are too many, those come that are asked for again */
        if (l != NULL && map_put(&e->lost, str_n(name, n), l, NULL) != ERR_OK) free(l);
    }
    pthread_mutex_unlock(&e->lock);
}

bool engine_next_lost(struct engine *e, struct engine_lost *ret)
{
    struct map_entry *it;
    uint64_t now = clock_mono_ns(e->o.clock);
    bool found = false;
    pthread_mutex_lock(&e->lock);
    for (size_t i = 0; !found && (it = map_next(&e->lost, &i)) != NULL;) {
        struct lost *l = it->value;
        if (now < l->not_before_ns) continue;
        l->not_before_ns = now + LOST_RETRY_NS;
        struct str rest = it->key, policy = str_cut(&rest, '\n');
        (void)str_copyz(ret->policy, sizeof ret->policy, policy);
        (void)str_copyz(ret->key, sizeof ret->key, rest);
        found = true;
    }
    pthread_mutex_unlock(&e->lock);
    return found;
}

static enum err counter_of(struct engine *e, struct rules *rules, struct str policy, struct str key,
                           struct store_counter *ret, struct why *why)
{
    const struct rule *r = rules != NULL ? rules_get(rules, policy) : NULL;
    if (rules == NULL) return why_set(why, ERR_UNAVAILABLE, "no configuration yet");
    if (r == NULL)
        return why_set(why, ERR_NOT_FOUND, "%.*s is no policy that is counted", STR_ARG(policy));
    *ret = (struct store_counter){ .policy = policy,
                                   .key = key,
                                   .unit = r->unit,
                                   .durable = r->durable,
                                   .rule = &r->ledger,
                                   .window = rule_window(r, clock_wall_ns(e->o.clock) / 1000) };
    return ERR_OK;
}

enum err engine_seed(struct engine *e, const struct engine_lost *l, uint64_t used, struct why *why)
{
    char name[LEASE_ID_MAX + 1 + LEASE_KEY_MAX + 1];
    struct store_counter c;
    struct rules *rules = rules_take(e);
    enum err err = counter_of(e, rules, str_of(l->policy), str_of(l->key), &c, why);
    if (err == ERR_OK) err = store_seed(e->o.store, &c, used, why);
    if (err == ERR_OK || err == ERR_NOT_FOUND) { /* or the policy is gone */
        int n = snprintf(name, sizeof name, "%s\n%s", l->policy, l->key);
        pthread_mutex_lock(&e->lock);
        free(map_remove(&e->lost, str_n(name, (size_t)n)));
        pthread_mutex_unlock(&e->lock);
    }
    if (err == ERR_OK) e->seeded++;
    rules_unref(rules);
    return err;
}

struct rules *engine_rules(struct engine *e)
{
    return rules_take(e);
}

/* --- edges --- */

void engine_saw_edge(struct engine *e, struct str instance)
{
    uint64_t now = clock_mono_ns(e->o.clock) / 1000;
    pthread_mutex_lock(&e->lock);
    size_t known = e->shares.edges.len;
    if (shares_saw(&e->shares, instance, now) == ERR_OK && e->shares.edges.len > known)
        /* another engine may have told it its share */
        shares_tell(&e->shares, instance, shares_count(&e->shares, now));
    pthread_mutex_unlock(&e->lock);
}

void engine_heard_edge(struct engine *e, struct str instance, uint64_t among)
{
    pthread_mutex_lock(&e->lock);
    /* one that there is no room for shares nothing */
    (void)!shares_said(&e->shares, instance, clock_mono_ns(e->o.clock) / 1000, among);
    pthread_mutex_unlock(&e->lock);
}

bool engine_lost_edge(struct engine *e, struct str instance)
{
    pthread_mutex_lock(&e->lock);
    bool known = shares_left(&e->shares, instance);
    pthread_mutex_unlock(&e->lock);
    return known;
}

/* Among how many the asker shares, 0: not known yet; and what is set aside for those that are
 * silent. */
static uint64_t tell_share(struct engine *e, struct str instance, uint64_t *ret_aside_ppm)
{
    uint64_t now = clock_mono_ns(e->o.clock) / 1000;
    pthread_mutex_lock(&e->lock);
    uint64_t n = shares_count(&e->shares, now);
    shares_tell(&e->shares, instance, n);
    *ret_aside_ppm = shares_aside_ppm(&e->shares, now);
    pthread_mutex_unlock(&e->lock);
    return n;
}

/* --- serving --- */

static void note_use(const struct rule *r, const struct lease_result *result)
{
    uint64_t most = ledger_capacity(&r->ledger);
    if (result->status == LEASE_REFUSED || result->status == LEASE_NEVER) r->use->refused++;
    if (result->status != LEASE_GRANTED && result->status != LEASE_REFUSED) return;
    r->use->permille = (most - MIN(result->remaining, most)) * 1000 / MAX(most, UINT64_C(1));
}

void engine_tell_policies(struct engine *e,
                          void (*fn)(void *ctx, struct str slug, double utilization,
                                     uint64_t refused),
                          void *ctx)
{
    struct rules *rules = rules_take(e);
    const struct rule *r;
    struct str id;
    for (size_t i = 0; rules != NULL && (r = rules_next(rules, &i, &id)) != NULL;)
        fn(ctx, str_of(r->slug), (double)r->use->permille / 1000,
           atomic_exchange(&r->use->refused, 0));
    rules_unref(rules);
}

/* Of a quota what remains is shared; of what flows the whole. */
static uint64_t share_of(const struct ledger_rule *r, const struct lease_result *result,
                         uint64_t edges)
{
    uint64_t all = r->kind == LEDGER_FIXED ? result->remaining : r->limit;
    return edges > 0 ? all / edges : 0;
}

/* Runs the ops of policies that we know through the store; index says where each result goes. */
static enum err run(struct engine *e, const struct lease_ask *ask, const struct rules *rules,
                    uint64_t aside_ppm, struct lease_reply *reply, char *ret_epoch, struct why *why)
{
    struct store_item *items = calloc(MAX(ask->ops_n, (size_t)1), sizeof *items);
    struct lease_result **place = calloc(MAX(ask->ops_n, (size_t)1), sizeof *place);
    struct ledger_rule *now = calloc(MAX(ask->ops_n, (size_t)1), sizeof *now);
    size_t n = 0;
    uint64_t wall_us = clock_wall_ns(e->o.clock) / 1000;
    enum err err = items == NULL || place == NULL || now == NULL ? ERR_NOMEM : ERR_OK;
    for (size_t i = 0; i < ask->ops_n && err == ERR_OK; i++) {
        const struct lease_op *op = &ask->ops[i];
        const struct rule *rule = rules_get(rules, op->policy);
        reply->results[i] = (struct lease_result){ .lease = op->lease };
        if (op->kind == LEASE_OP_MAX) {
            reply->results[i].status = LEASE_INVALID;
        } else if (rule == NULL) {
            reply->results[i].status = LEASE_UNKNOWN_POLICY;
        } else {
            now[n] = rule->ledger;
            if (rule->shares) now[n].aside_ppm = aside_ppm;
            items[n] = (struct store_item){ .op = op,
                                            .rule = &now[n],
                                            .window = rule_window(rule, wall_us),
                                            .unit = rule->unit,
                                            .durable = rule->durable,
                                            .result = reply->results[i] };
            place[n++] = &reply->results[i];
        }
    }
    if (err == ERR_OK) err = store_serve(e->o.store, ask->epoch, items, n, ret_epoch, why);
    for (size_t i = 0; i < n && err == ERR_OK; i++) {
        *place[i] = items[i].result;
        place[i]->share = share_of(items[i].rule, &items[i].result, reply->edges);
        if (items[i].lost) note_lost(e, &items[i]);
        note_use(rules_get(rules, items[i].op->policy), &items[i].result);
        if (items[i].result.status == LEASE_GRANTED && items[i].op->kind == LEASE_ASK &&
            items[i].result.granted > items[i].op->known)
            e->granted_units += items[i].result.granted - items[i].op->known;
    }
    free(items);
    free(place);
    free(now);
    return err;
}

static enum err serve(struct engine *e, const struct lease_ask *ask, struct buf *out,
                      struct why *why)
{
    char epoch[LEASE_ID_MAX + 1];
    struct rules *rules = rules_take(e);
    struct lease_reply reply = { .re = ask->id };
    uint64_t aside_ppm = 0;
    enum err err = ERR_OK;
    if (rules == NULL) return why_set(why, ERR_UNAVAILABLE, "no configuration yet");
    reply.edges = tell_share(e, ask->from, &aside_ppm);
    reply.revision = rules_revision(rules);
    reply.results_n = ask->ops_n;
    reply.results = calloc(MAX(ask->ops_n, (size_t)1), sizeof *reply.results);
    if (reply.results == NULL) err = why_set(why, ERR_NOMEM, "out of memory");
    if (err == ERR_OK) err = run(e, ask, rules, aside_ppm, &reply, epoch, why);
    if (err == ERR_OK) {
        for (size_t i = 0; i < ask->ops_n; i++) {
            e->ops[ask->ops[i].kind]++;
            e->results[reply.results[i].status]++;
        }
        reply.epoch = str_of(epoch);
        err = lease_reply_encode(&reply, e->o.clock, e->o.rng, e->instance, out);
    }
    free(reply.results);
    rules_unref(rules);
    return err;
}

enum err engine_look(struct engine *e, struct str policy, struct str key, const char *cursor,
                     size_t most, store_view_fn fn, void *ctx, char ret_cursor[STORE_CURSOR_LEN],
                     struct why *why)
{
    struct store_counter c;
    struct rules *rules = rules_take(e);
    enum err err = counter_of(e, rules, policy, key, &c, why);
    if (err == ERR_OK) err = store_look(e->o.store, &c, cursor, most, fn, ctx, ret_cursor, why);
    rules_unref(rules);
    return err;
}

enum err engine_reset(struct engine *e, struct str policy, struct str key, size_t *ret_n,
                      struct why *why)
{
    struct store_counter c;
    struct rules *rules = rules_take(e);
    enum err err = counter_of(e, rules, policy, key, &c, why);
    if (err == ERR_OK) err = store_reset(e->o.store, &c, ret_n, why);
    rules_unref(rules);
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
            (void)engine_lost_edge(e, ask.from);
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
                                  .granted_units = e->granted_units,
                                  .seeded = e->seeded };
    for (size_t i = 0; i <= LEASE_OP_MAX; i++) ret->ops[i] = e->ops[i];
    for (size_t i = 0; i < LEASE_STATUS_MAX; i++) ret->results[i] = e->results[i];
    pthread_mutex_lock(&e->lock);
    ret->edges = shares_count(&e->shares, clock_mono_ns(e->o.clock) / 1000);
    ret->silent_edges = shares_silent(&e->shares, clock_mono_ns(e->o.clock) / 1000);
    ret->lost = e->lost.len;
    ret->policies = e->rules != NULL ? rules_count(e->rules) : 0;
    ret->revision = e->rules != NULL ? rules_revision(e->rules) : 0;
    pthread_mutex_unlock(&e->lock);
}
