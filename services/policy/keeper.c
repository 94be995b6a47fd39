/* SPDX-License-Identifier: Apache-2.0 */
/* See the header. `lock` guards the keeper's sleep only; what its thread owns nobody else touches.
 */
#include "keeper.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "claim.h"
#include "config/follower.h"
#include "counters.h"
#include "engine.h"
#include "proto/envelope.h"
#include "proto/gone_msg.h"
#include "proto/subjects.h"
#include "rebuild.h"

enum {
    OVERFLOW_QUIET_MS = 60000,
    REPLY_MAX = 512 * 1024,
    LEDGER_TIMEOUT_MS = 1000,
    SEEDS_AT_ONCE = 16
};
#define CLAIM_KEY "policy.memory"
#define REDIS_KEY "policy.redis"
static const char no_config[] = "no configuration yet";

struct keeper {
    struct daemon *daemon;
    struct bus *bus;
    struct store *store;
    struct engine *engine;
    struct follower *follower;
    bool memory;
    struct marks *marks; /* of quotas; NULL with Redis, which keeps them itself */
    char subject[SUBJECT_LEN], counters_subject[SUBJECT_LEN], query_subject[SUBJECT_LEN];
    char bucket[SUBJECT_LEN];
    struct bus_sub *presence, *gone;

    /* the thread's */
    pthread_t thread;
    bool thread_runs;
    struct bus_kv *kv;
    struct claim claim;
    char unready[192];                /* the reason that we gave, or "" */
    uint64_t overflows, overflows_ms; /* that were logged, and when */

    pthread_mutex_t lock;
    pthread_cond_t wake;
    bool end, again;

    _Atomic bool configured, quiesced, signed_off, serving;
    struct bus_sub *_Atomic lease, *_Atomic counters; /* NULL while we do not serve */
    struct engine_stats told;                         /* at the last scrape */
    struct store_status told_store;
};

/* --- asks --- */

static void on_ask(void *ctx, const struct bus_msg *msg)
{
    struct keeper *k = ctx;
    const struct clock *clock = daemon_clock(k->daemon);
    uint64_t begun = clock_mono_ns(clock);
    struct why why = { "" };
    struct buf reply;
    buf_init(&reply, REPLY_MAX);
    if (engine_serve(k->engine, msg->data, &reply, &why) != ERR_OK)
        bus_endpoint_error(atomic_load(&k->lease), why.text);
    if (bus_reply(k->bus, msg->reply, buf_str(&reply)) != ERR_OK)
        log_debug("a reply could not be sent: the bus is away");
    buf_done(&reply);
    metric_observe(metrics_get(daemon_metrics(k->daemon), M_SECONDS, NULL),
                   (double)(clock_mono_ns(clock) - begun) / 1e9);
}

static void on_counters(void *ctx, const struct bus_msg *msg)
{
    struct keeper *k = ctx;
    struct daemon *d = k->daemon;
    struct why why = { "" };
    struct buf reply;
    char note[256];
    buf_init(&reply, REPLY_MAX);
    if (counters_serve(k->engine, daemon_clock(d), daemon_rng(d), daemon_instance(d), msg->data,
                       &reply, note, &why) != ERR_OK)
        bus_endpoint_error(atomic_load(&k->counters), why.text);
    if (note[0] != '\0') log_info("an operator reset counters", LS("what", note));
    if (bus_reply(k->bus, msg->reply, buf_str(&reply)) != ERR_OK)
        log_debug("a reply could not be sent: the bus is away");
    buf_done(&reply);
}

/* Edges that are alive, so that each knows its share. */
static void on_presence(void *ctx, const struct bus_msg *msg)
{
    struct keeper *k = ctx;
    struct json *m;
    struct str from;
    uint64_t among;
    if (envelope_parse(msg->data, &m, NULL) != ERR_OK) return;
    if (str_eqz(json_str(json_get(m, "service")), "edge") &&
        json_get_str(m, "from", &from) == ERR_OK && from.n > 0 && from.n <= LEASE_ID_MAX) {
        if (str_eqz(json_str(json_get(m, "state")), "draining"))
            (void)engine_lost_edge(k->engine, from);
        else if (json_get_u64(m, "share_among", &among) == ERR_OK)
            engine_heard_edge(k->engine, from, among);
        else
            engine_saw_edge(k->engine, from);
    }
    json_free(m);
}

/* An operator removed it. An edge that lives is there again with its next word. */
static void on_gone(void *ctx, const struct bus_msg *msg)
{
    struct keeper *k = ctx;
    char instance[GONE_INSTANCE_MAX + 1];
    if (gone_msg_decode(msg->data, instance, NULL) != ERR_OK) return;
    if (engine_lost_edge(k->engine, str_of(instance)))
        log_info("an operator removed an edge: its share is free", LS("edge", instance));
}

/* --- configuration --- */

static void wake_up(struct keeper *k)
{
    pthread_mutex_lock(&k->lock);
    k->again = true;
    pthread_cond_signal(&k->wake);
    pthread_mutex_unlock(&k->lock);
}

static enum err apply(void *ctx, struct snapshot *s, struct why *why)
{
    struct keeper *k = ctx;
    enum err e = engine_set_policies(k->engine, s, why);
    if (e != ERR_OK) return e;
    daemon_set_revision(k->daemon, s->revision);
    daemon_ready(k->daemon, no_config);
    if (!atomic_exchange(&k->configured, true)) wake_up(k);
    return ERR_OK;
}

/* --- the claim, and what else is in the bucket --- */

/* Opened when it is first needed: the bus may come long after us. */
static enum err open_kv(struct keeper *k)
{
    struct why why;
    if (k->kv != NULL) return ERR_OK;
    return bus_kv_open(k->bus, k->bucket, true, &k->kv, &why);
}

static enum err kv_get(void *ctx, const char *key, struct buf *ret, uint64_t *ret_revision)
{
    struct keeper *k = ctx;
    enum err e = open_kv(k);
    return e == ERR_OK          ? bus_kv_get(k->kv, key, ret, ret_revision)
           : e == ERR_NOT_FOUND ? ERR_UNAVAILABLE
                                : e;
}

static enum err kv_update(void *ctx, const char *key, struct str value, uint64_t expected,
                          uint64_t *ret_revision)
{
    struct keeper *k = ctx;
    enum err e = open_kv(k);
    return e == ERR_OK ? bus_kv_update(k->kv, key, value, expected, ret_revision) : e;
}

/* Whether Redis never had an epoch of ours: the bucket remembers the first. */
static enum err redis_is_first(void *ctx, bool *ret)
{
    struct keeper *k = ctx;
    struct buf b;
    uint64_t revision;
    buf_init(&b, 1024);
    enum err e = kv_get(k, REDIS_KEY, &b, &revision);
    buf_done(&b);
    if (e == ERR_NOT_FOUND) {
        e = kv_update(k, REDIS_KEY, STR("{}"), 0, &revision);
        if (e == ERR_OK) *ret = true;
        if (e == ERR_CONFLICT) e = ERR_OK; /* another one was told so */
    }
    return e;
}

static void report_store(void *ctx, int level, const char *what, const char *why)
{
    (void)ctx;
    LOG_AT((enum log_level)level, what, LS("why", why != NULL ? why : ""));
}

/* --- readiness and the subscription --- */

/* Replaces the reason that we gave; "": none is left. */
static void set_unready(struct keeper *k, const char *reason)
{
    char old[sizeof k->unready];
    if (strcmp(k->unready, reason) == 0) return;
    memcpy(old, k->unready, sizeof old);
    (void)str_copyz(k->unready, sizeof k->unready, str_of(reason));
    if (reason[0] != '\0') daemon_unready(k->daemon, reason);
    if (old[0] != '\0') daemon_ready(k->daemon, old);
}

static void subscribe_one(struct keeper *k, bool want, const struct bus_endpoint *endpoint,
                          bus_msg_fn fn, struct bus_sub *_Atomic *ret)
{
    struct bus_sub *sub = atomic_load(ret);
    if (want == (sub != NULL)) return;
    if (!want) {
        atomic_store(ret, NULL);
        bus_unsubscribe(sub);
    } else if (bus_serve(k->bus, endpoint, fn, k, &sub) == ERR_OK) {
        atomic_store(ret, sub);
    }
}

static void subscribe(struct keeper *k, bool want)
{
    struct bus_endpoint lease = { "lease", k->subject, subject_queue(SUBJECT_POLICY_LEASE) };
    struct bus_endpoint counters = { "counters", k->counters_subject,
                                     subject_queue(SUBJECT_POLICY_COUNTERS) };
    subscribe_one(k, want, &lease, on_ask, &k->lease);
    subscribe_one(k, want, &counters, on_counters, &k->counters);
    atomic_store(&k->serving, atomic_load(&k->lease) != NULL);
}

/* --- quotas that were lost --- */

static enum err ask_ledger(struct keeper *k, const struct rule *r, const struct engine_lost *l,
                           uint64_t *ret_used, struct why *why)
{
    struct daemon *d = k->daemon;
    const struct settings *s = daemon_settings(d);
    struct ledger_window w = rule_window(r, clock_wall_ns(daemon_clock(d)) / 1000);
    struct metrics_query q;
    struct buf text, reply;
    struct json *m = envelope_new(daemon_clock(d), daemon_rng(d), daemon_instance(d));
    buf_init(&text, 64 * 1024);
    buf_init(&reply, MESSAGE_MAX_BYTES);
    rebuild_ask(r, str_of(l->key), &w, &q);
    metrics_query_encode(&q, m);
    enum err e = json_print(m, &text);
    if (e == ERR_OK)
        e = bus_request_wait(k->bus, k->query_subject, buf_str(&text), LEDGER_TIMEOUT_MS, &reply);
    if (e != ERR_OK)
        (void)why_set(why, e, "the usage ledger does not answer");
    else
        e = rebuild_answer(r, buf_str(&reply), (unsigned)s->quota_margin, ret_used, why);
    json_free(m);
    buf_done(&text);
    buf_done(&reply);
    return e;
}

/* Until it is done, the engine answers that it warms: edges do as their policies say for an engine
 * that is away. */
static void rebuild_lost(struct keeper *k)
{
    struct engine_lost l;
    for (int i = 0; i < SEEDS_AT_ONCE && engine_next_lost(k->engine, &l); i++) {
        struct rules *rules = engine_rules(k->engine);
        const struct rule *r = rules_get(rules, str_of(l.policy));
        struct why why = { "" };
        uint64_t used = 0;
        enum err e = r != NULL ? ask_ledger(k, r, &l, &used, &why) : ERR_OK;
        if (e == ERR_OK) e = engine_seed(k->engine, &l, used, &why);
        if (e == ERR_OK && r != NULL)
            log_warn("a quota was lost and is rebuilt from the usage ledger", LS("policy", r->slug),
                     LS("key", l.key), LI("used", (int64_t)used),
                     LI("limit", (int64_t)r->ledger.limit));
        else if (e != ERR_OK)
            log_warn("a quota was lost and cannot be rebuilt: trying on", LS("policy", l.policy),
                     LS("key", l.key), LS("why", why.text));
        rules_unref(rules);
        if (e != ERR_OK) return; /* whoever did not answer will not answer the next one */
    }
}

/* --- the claim --- */

/* Whether the marks are those that the counters before us were written down in. */
static enum err take_marks(struct keeper *k)
{
    struct why why = { "" };
    const char *before = claim_marks(&k->claim);
    bool lost = before[0] != '\0' && strcmp(before, marks_id(k->marks)) != 0;
    if (lost) {
        enum err e = store_memory_lose(k->store, &why);
        if (e != ERR_OK) {
            log_error("the file of quotas cannot be written", LS("why", why.text));
            return e;
        }
        log_warn("quotas were counted elsewhere before: they are rebuilt from the usage ledger");
    }
    claim_set_marks(&k->claim, marks_id(k->marks));
    return ERR_OK;
}

static void step_claim(struct keeper *k)
{
    char reason[192], epoch[UUID_LEN + 1];
    uint64_t until = 0;
    struct why why;
    switch (claim_step(&k->claim, &until)) {
    case CLAIM_WON:
        if (take_marks(k) != ERR_OK) {
            claim_release(&k->claim);
            set_unready(k, "the file of quotas cannot be written");
            break;
        }
        uuid_v7(daemon_clock(k->daemon), daemon_rng(k->daemon), epoch);
        store_memory_begin(k->store, epoch, claim_is_first(&k->claim));
        store_memory_until(k->store, until);
        set_unready(k, "");
        log_info("a new epoch begins", LS("epoch", epoch), LB("first", claim_is_first(&k->claim)));
        break;
    case CLAIM_HELD: store_memory_until(k->store, until); break;
    case CLAIM_OTHER:
        store_memory_end(k->store);
        (void)why_set(&why, ERR_CONFLICT, "COUNTER_URL=memory: allows one engine, and %.100s is it",
                      claim_holder(&k->claim));
        (void)str_copyz(reason, sizeof reason, str_of(why.text));
        set_unready(k, reason);
        break;
    case CLAIM_AWAY:
        /* what we hold ends by itself; when the bus comes back we go on where we were, unless
         * another one has taken over */
        if (!k->claim.held) set_unready(k, "the claim on the counters cannot be had: no bus");
        break;
    }
}

/* Keys that share one counter are limited together: worth a word, but not at each of them. */
static void warn_overflows(struct keeper *k, uint64_t overflows)
{
    uint64_t now = clock_mono_ms(daemon_clock(k->daemon));
    if (overflows == k->overflows) return;
    if (k->overflows_ms != 0 && now - k->overflows_ms < OVERFLOW_QUIET_MS) return;
    log_warn("there are more counters than COUNTERS_MAX: further keys of a policy share one",
             LI("ops", (int64_t)(overflows - k->overflows)));
    k->overflows = overflows;
    k->overflows_ms = now;
}

static void step(struct keeper *k)
{
    struct store_status status;
    if (atomic_load(&k->quiesced)) {
        subscribe(k, false);
        if (k->memory) {
            store_memory_settle(k->store);
            store_memory_end(k->store);
            claim_release(&k->claim);
        }
        atomic_store(&k->signed_off, true);
        return;
    }
    if (k->memory) step_claim(k);
    store_tick(k->store);
    store_status(k->store, &status);
    warn_overflows(k, status.overflows);
    if (!k->memory)
        set_unready(k, status.ready                ? ""
                       : status.problem[0] != '\0' ? status.problem
                                                   : "Redis is away, or has no epoch yet");
    if (atomic_load(&k->serving)) rebuild_lost(k);
    subscribe(k,
              atomic_load(&k->configured) && !atomic_load(&k->quiesced) && k->unready[0] == '\0');
}

static void *keeper_main(void *ctx)
{
    struct keeper *k = ctx;
    pthread_mutex_lock(&k->lock);
    while (!k->end) {
        k->again = false;
        pthread_mutex_unlock(&k->lock);
        step(k);
        pthread_mutex_lock(&k->lock);
        if (k->end || k->again) continue;
        /* a standby or a beginner looks more often, to take over soon */
        struct timespec ts = clock_in_ms(k->unready[0] != '\0' ? CLAIM_STEP_MS / 4 : CLAIM_STEP_MS);
        pthread_cond_timedwait(&k->wake, &k->lock, &ts);
    }
    pthread_mutex_unlock(&k->lock);
    return NULL;
}

/* --- the object --- */

static enum err open_store(struct keeper *k, const struct settings *s, struct why *why)
{
    const struct clock *clock = daemon_clock(k->daemon);
    k->memory = str_eqz(STR("memory:"), s->counter_url);
    if (k->memory) {
        k->store = store_memory_new(clock, (size_t)s->max_counters);
        enum err e = marks_open(daemon_state_dir(k->daemon), (size_t)s->max_counters + 1, clock,
                                daemon_rng(k->daemon), &k->marks, why);
        if (e == ERR_OK) store_memory_keep(k->store, k->marks);
        return e;
    }
    return store_redis_new(&(struct store_redis_options){ .url = s->counter_url,
                                                          .prefix = bus_prefix(k->bus),
                                                          .clock = clock,
                                                          .rng = daemon_rng(k->daemon),
                                                          .timeout_ms = (int)s->timeout_ms,
                                                          .is_first = redis_is_first,
                                                          .ctx = k,
                                                          .report = report_store },
                           &k->store, why);
}

static void start_following(struct keeper *k)
{
    struct daemon *d = k->daemon;
    char presence[SUBJECT_LEN], gone[SUBJECT_LEN];
    subject_make(bus_prefix(k->bus), SUBJECT_PRESENCE, NULL, presence);
    if (bus_subscribe(k->bus, presence, NULL, on_presence, k, &k->presence) != ERR_OK)
        log_warn("presence is not followed: shares are by the edges that ask here");
    subject_make(bus_prefix(k->bus), SUBJECT_INSTANCE_GONE, NULL, gone);
    if (bus_subscribe(k->bus, gone, NULL, on_gone, k, &k->gone) != ERR_OK)
        log_warn("edges that operators remove stay");
    daemon_unready(d, no_config);
    k->follower = follower_new(&(struct follower_options){ .bus = k->bus,
                                                           .state_dir = daemon_state_dir(d),
                                                           .clock = daemon_clock(d),
                                                           .rng = daemon_rng(d),
                                                           .apply = apply,
                                                           .report = daemon_log_report,
                                                           .ctx = k });
}

enum err keeper_new(struct daemon *d, struct keeper **ret, struct why *why)
{
    struct keeper *k = xcalloc(1, sizeof *k);
    const char *instance = daemon_instance(d);
    pthread_condattr_t attr;
    k->daemon = d;
    k->bus = daemon_bus(d);
    pthread_mutex_init(&k->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&k->wake, &attr);
    pthread_condattr_destroy(&attr);
    subject_make(bus_prefix(k->bus), SUBJECT_POLICY_LEASE, NULL, k->subject);
    subject_make(bus_prefix(k->bus), SUBJECT_POLICY_COUNTERS, NULL, k->counters_subject);
    subject_make(bus_prefix(k->bus), SUBJECT_METRICS_QUERY, NULL, k->query_subject);
    subject_store(bus_prefix(k->bus), STORE_BUCKET_CLAIMS, k->bucket);
    claim_init(&k->claim, &(struct claim_kv){ kv_get, kv_update, k }, CLAIM_KEY, instance,
               daemon_clock(d), daemon_rng(d));
    enum err e = open_store(k, daemon_settings(d), why);
    if (e != ERR_OK) {
        keeper_free(k);
        return e;
    }
    k->engine = engine_new(
        &(struct engine_options){ k->store, daemon_clock(d), daemon_rng(d), instance });
    set_unready(k, "the counters are not claimed yet");
    start_following(k);
    if (pthread_create(&k->thread, NULL, keeper_main, k) != 0) {
        keeper_free(k);
        return why_set(why, ERR_NOMEM, "no thread to be had");
    }
    k->thread_runs = true;
    *ret = k;
    return ERR_OK;
}

void keeper_quiesce(struct keeper *k)
{
    atomic_store(&k->quiesced, true);
    wake_up(k);
}

size_t keeper_inflight(struct keeper *k)
{
    return daemon_is_draining(k->daemon) && !atomic_load(&k->signed_off) ? 1 : 0;
}

void keeper_free(struct keeper *k)
{
    if (k == NULL) return;
    follower_free(k->follower);
    pthread_mutex_lock(&k->lock);
    k->end = true;
    pthread_cond_signal(&k->wake);
    pthread_mutex_unlock(&k->lock);
    if (k->thread_runs) pthread_join(k->thread, NULL);
    bus_unsubscribe(k->presence);
    bus_unsubscribe(k->gone);
    subscribe(k, false);
    if (k->memory && k->thread_runs) claim_release(&k->claim);
    bus_kv_close(k->kv);
    engine_free(k->engine);
    store_free(k->store);
    marks_free(k->marks);
    pthread_cond_destroy(&k->wake);
    pthread_mutex_destroy(&k->lock);
    free(k);
}

/* --- metrics --- */

static void add(struct keeper *k, enum metric_id id, const char *label, uint64_t now, uint64_t told)
{
    struct str value = label != NULL ? str_of(label) : STR_NULL;
    struct metric *m = metrics_get(daemon_metrics(k->daemon), id, label != NULL ? &value : NULL);
    metric_add(m, (double)(now - told));
}

static void set(struct keeper *k, enum metric_id id, double v)
{
    metric_set(metrics_get(daemon_metrics(k->daemon), id, NULL), v);
}

/* Per policy: how full its fullest counter was at its last op, and what it refused. */
static void told_of_policy(void *ctx, struct str slug, double utilization, uint64_t refused)
{
    struct metrics *m = daemon_metrics(((struct keeper *)ctx)->daemon);
    metric_set(metrics_get(m, M_UTILIZATION, &slug), utilization);
    metric_add(metrics_get(m, M_REFUSALS, &slug), (double)refused);
}

static void scrape_policies(struct keeper *k)
{
    engine_tell_policies(k->engine, told_of_policy, k);
}

void keeper_scrape(struct keeper *k)
{
    struct engine_stats e, *t = &k->told;
    struct store_status s, *u = &k->told_store;
    if (k == NULL) return;
    engine_stats(k->engine, &e);
    store_status(k->store, &s);
    add(k, M_MESSAGES, "served", e.messages - e.bad_messages - e.failed_messages,
        t->messages - t->bad_messages - t->failed_messages);
    add(k, M_MESSAGES, "bad", e.bad_messages, t->bad_messages);
    add(k, M_MESSAGES, "failed", e.failed_messages, t->failed_messages);
    for (int i = 0; i <= LEASE_OP_MAX; i++)
        add(k, M_OPS, lease_op_name((enum lease_op_kind)i), e.ops[i], t->ops[i]);
    for (int i = 0; i < LEASE_STATUS_MAX; i++)
        add(k, M_RESULTS, lease_status_name((enum lease_status)i), e.results[i], t->results[i]);
    add(k, M_GRANTED, NULL, e.granted_units, t->granted_units);
    add(k, M_EPOCHS, NULL, s.epochs, u->epochs);
    add(k, M_CLOCK_STEPS, NULL, s.clock_steps, u->clock_steps);
    add(k, M_STORE_ERRORS, NULL, s.errors, u->errors);
    add(k, M_OVERFLOWS, NULL, s.overflows, u->overflows);
    add(k, M_LOSSES, NULL, s.losses, u->losses);
    add(k, M_SEEDED, NULL, e.seeded, t->seeded);
    add(k, M_MARK_WRITES, "done", s.mark_writes, u->mark_writes);
    add(k, M_MARK_WRITES, "failed", s.mark_failures, u->mark_failures);
    set(k, M_LOST, (double)e.lost);
    scrape_policies(k);
    set(k, M_COUNTERS, (double)s.counters);
    set(k, M_EDGES, (double)e.edges);
    set(k, M_SILENT, (double)e.silent_edges);
    set(k, M_POLICIES, (double)e.policies);
    set(k, M_SERVING, atomic_load(&k->serving) ? 1 : 0);
    *t = e;
    *u = s;
}
