/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Counters in Redis, for any number of engines. Each op is one atomic script (scripts/lease.lua).
 *
 * What ends an epoch: its key is gone (a flush), it began on another run of Redis (a restart, a
 * failover: both may have lost what was acknowledged), or the clock of Redis did not go on as ours
 * did. The time that we expect travels with each script, so a step is found out before anything is
 * refilled by it. The new epoch is begun by store_tick() with compare-and-set, by one of the
 * engines.
 *
 * Any thread; `lock` is held while Redis answers, timeout_ms at most. After a failure nothing is
 * tried for PAUSE_MS, so that a Redis that hangs does not hold up the edges.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"
#include "base/uuid.h"
#include "store_redis_impl.h"

enum {
    AT_ONCE = 64, /* ops in one script */
    HEAD = 6,     /* arguments before the ops' */
    PER_OP = 19,
    RESULT = 6, /* figures per op in the reply */
    TIMEOUT_MS = 40,
    CONNECT_MS = 200,
    PAUSE_MS = 200,
    CHECK_S = 10,
    CHECK_AGAIN_S = 1, /* while something is wrong: to serve soon after it was changed */
    CLOCK_TOLERANCE_MS = 250
};

static uint64_t now_us(const struct redis_store *s)
{
    return clock_mono_ns(s->o.clock) / 1000;
}

static void report(struct redis_store *s, enum log_level level, const char *what, const char *why)
{
    if (s->o.report != NULL) s->o.report(s->o.ctx, level, what, why);
}

void redis_store_pause(struct redis_store *s, enum err e)
{
    s->errors++;
    s->epoch[0] = '\0'; /* whatever happened to it: read it again */
    if (e == ERR_UNAVAILABLE || e == ERR_TIMEOUT)
        s->paused_us = now_us(s) + PAUSE_MS * UINT64_C(1000);
}

/* --- the clock --- */

static int64_t offset_of(const struct redis_store *s, uint64_t sent_us, int64_t redis_us)
{
    return redis_us - (int64_t)(sent_us + (now_us(s) - sent_us) / 2);
}

static void sync_time(struct redis_store *s, int64_t offset_us)
{
    s->offset_us = offset_us;
    s->synced_us = now_us(s);
    memcpy(s->synced_run_id, s->run_id, sizeof s->run_id);
}

/* Follows a clock that runs a little faster or slower than ours: 1 % at most. */
static void follow_time(struct redis_store *s, int64_t offset_us)
{
    int64_t most = (int64_t)(now_us(s) - s->synced_us) / 100 + 1000;
    if (offset_us > s->offset_us + most) offset_us = s->offset_us + most;
    if (offset_us < s->offset_us - most) offset_us = s->offset_us - most;
    sync_time(s, offset_us);
}

/* Whether the clock of this run of Redis is not where it should be. */
static bool has_stepped(const struct redis_store *s, int64_t offset_us)
{
    int64_t apart = offset_us - s->offset_us;
    if (s->synced_us == 0 || strcmp(s->synced_run_id, s->run_id) != 0) return false;
    return apart > CLOCK_TOLERANCE_MS * 1000 || apart < -CLOCK_TOLERANCE_MS * 1000;
}

/* --- the epoch --- */

/* "<id> <first> <begun> <run_id>": false when it is not of our run of Redis, or nothing. */
static bool adopt(struct redis_store *s, struct str value)
{
    struct str rest = value, id = str_cut(&rest, ' ');
    (void)str_copyz(s->value, sizeof s->value, value);
    s->epoch[0] = '\0';
    (void)str_cut(&rest, ' ');
    (void)str_cut(&rest, ' ');
    if (id.n == 0 || id.n > LEASE_ID_MAX || !str_eqz(rest, s->run_id)) return false;
    (void)str_copyz(s->epoch, sizeof s->epoch, id);
    return true;
}

/* Reads the epoch; with a new id, begins one if the value that stands there is still the one we
 * know. */
static enum err run_epoch_script(struct redis_store *s, const char *id, bool first, bool *ret_ours,
                                 struct why *why)
{
    const struct redis_value *v = NULL;
    struct str keys[] = { str_of(s->epoch_key), str_of(s->lost_key) };
    enum err e = redis_connect(s->redis, s->run_id, why);
    struct str args[] = { str_of(s->value), str_of(id), first ? STR("1") : STR("0"),
                          str_of(s->run_id) };
    uint64_t sent = now_us(s);
    if (e == ERR_OK) e = redis_eval(s->redis, script_epoch, keys, 2, args, 4, &v, why);
    if (e == ERR_OK && redis_len(v) != 2) e = why_set(why, ERR_INVALID, "Redis: an odd reply");
    if (e != ERR_OK) {
        redis_store_pause(s, e);
        return e;
    }
    struct str value = redis_str(redis_at(v, 1));
    int64_t offset = offset_of(s, sent, redis_int(redis_at(v, 0)));
    /* a step that nobody has drawn the consequence of ends the epoch that it happened in */
    bool over = has_stepped(s, offset) && str_eqz(value, s->value);
    if (over) s->clock_steps++;
    sync_time(s, offset);
    *ret_ours = adopt(s, value) && !over;
    if (over) s->epoch[0] = '\0';
    return ERR_OK;
}

static enum err look_for_epoch(struct redis_store *s, struct why *why)
{
    char id[UUID_LEN + 1], was[REDIS_VALUE_MAX];
    bool ours = false, first = false, missed = s->missed;
    enum err e = run_epoch_script(s, "", false, &ours, why);
    s->missed = e == ERR_OK && !ours && s->value[0] == '\0';
    if (e != ERR_OK || ours) return e;
    /* none, or of a run of Redis that is over */
    memcpy(was, s->value, sizeof was);
    if (was[0] == '\0' && s->o.is_first != NULL) {
        pthread_mutex_unlock(&s->lock);
        e = s->o.is_first(s->o.ctx, &first);
        pthread_mutex_lock(&s->lock);
        if (e != ERR_OK) return why_set(why, e, "whether there was an epoch cannot be told");
        /* another engine may be beginning the first one at this moment */
        if (!first && !missed) return ERR_OK;
    }
    uuid_v7(s->o.clock, s->o.rng, id);
    e = run_epoch_script(s, id, first, &ours, why);
    if (e != ERR_OK) return e;
    if (!str_eqz(str_of(s->epoch), id)) return ERR_OK; /* another engine was first, or nobody */
    s->epochs++;
    if (!first && was[0] == '\0') s->losses++;
    report(s, first ? LOG_INFO : LOG_WARN,
           first ? "the first epoch begins" : "a new epoch begins with empty counters",
           was[0] == '\0'
               ? (first ? "Redis has none"
                        : "Redis lost all: quotas are rebuilt from the usage ledger")
               : "Redis was restarted or failed over, or its clock stepped: quotas of before are "
                 "compared with the usage ledger");
    return ERR_OK;
}

/* Time did not go on as it should have: the epoch that we know is over for all. */
static void clock_stepped(struct redis_store *s)
{
    char id[UUID_LEN + 1];
    bool ours = false;
    s->clock_steps++;
    s->synced_us = 0;
    uuid_v7(s->o.clock, s->o.rng, id);
    if (run_epoch_script(s, id, false, &ours, NULL) != ERR_OK) return;
    if (str_eqz(str_of(s->epoch), id)) s->epochs++;
    report(s, LOG_WARN, "a new epoch begins with empty counters",
           "the clock of Redis did not go on as ours did");
}

/* --- ops --- */

struct call_text {
    struct str keys[2 + AT_ONCE], args[HEAD + AT_ONCE * PER_OP];
    char key_text[AT_ONCE][REDIS_KEY_MAX];
    char numbers[HEAD + AT_ONCE * PER_OP][REDIS_NUMBER_MAX];
    size_t args_n;
};

static void add_arg(struct call_text *t, struct str s)
{
    t->args[t->args_n++] = s;
}

static void add_number(struct call_text *t, uint64_t v)
{
    char *text = t->numbers[t->args_n];
    int n = snprintf(text, REDIS_NUMBER_MAX, "%" PRIu64, v);
    add_arg(t, str_n(text, (size_t)n));
}

static void add_op(const struct redis_store *s, struct call_text *t, size_t i,
                   const struct store_item *item)
{
    static const char *const kinds[] = { [LEDGER_BUCKET] = "bucket",
                                         [LEDGER_SLIDING] = "sliding",
                                         [LEDGER_FIXED] = "fixed",
                                         [LEDGER_SLOTS] = "slots" };
    const struct ledger_rule *r = item->rule;
    const struct lease_op *op = item->op;
    t->keys[2 + i] = redis_store_key(s, op->policy, item->unit, item->durable, op->key,
                                     t->key_text[i]);
    add_arg(t, str_of(kinds[r->kind]));
    add_number(t, r->limit);
    add_number(t, r->burst);
    add_number(t, r->window_us);
    add_number(t, r->lease_us);
    add_number(t, r->aside_ppm);
    add_number(t, item->window.begin);
    add_number(t, item->window.end);
    add_number(t, item->window.left_us);
    add_arg(t, str_of(lease_op_name(op->kind)));
    add_arg(t, op->lease);
    add_number(t, op->known);
    add_number(t, op->want);
    add_number(t, op->ahead);
    add_number(t, op->min);
    add_number(t, op->spent);
    add_number(t, op->returned);
    add_number(t, op->debt);
    add_number(t, item->durable ? 1 : 0);
}

static uint64_t figure(const struct redis_value *v, size_t i)
{
    int64_t n = redis_int(redis_at(v, i));
    return n > 0 ? (uint64_t)n : 0;
}

static enum err read_results(const struct redis_value *v, struct store_item *items, size_t n)
{
    if (redis_len(v) != 2 + n * RESULT) return ERR_INVALID;
    for (size_t i = 0; i < n; i++) {
        size_t at = 2 + i * RESULT;
        struct str word = redis_str(redis_at(v, at));
        struct lease_result r = items[i].result;
        r.status = LEASE_STATUS_MAX;
        items[i].lost = str_eqz(word, "lost");
        if (items[i].lost) r.status = LEASE_WARMING;
        for (int k = 0; k < LEASE_STATUS_MAX; k++)
            if (str_eqz(word, lease_status_name((enum lease_status)k)))
                r.status = (enum lease_status)k;
        if (r.status == LEASE_STATUS_MAX) return ERR_INVALID;
        r.granted = figure(v, at + 1);
        r.ttl_ms = figure(v, at + 2);
        r.remaining = figure(v, at + 3);
        r.reset_ms = figure(v, at + 4);
        r.retry_ms = figure(v, at + 5);
        r.limit = items[i].rule->limit;
        items[i].result = r;
    }
    return ERR_OK;
}

static enum err serve_some(struct redis_store *s, struct call_text *t, struct str asked,
                           struct store_item *items, size_t n, struct why *why)
{
    const struct redis_value *v = NULL;
    uint64_t sent = now_us(s), tolerance = CLOCK_TOLERANCE_MS * UINT64_C(1000);
    t->args_n = 0;
    t->keys[0] = str_of(s->epoch_key);
    t->keys[1] = str_of(s->lost_key);
    add_arg(t, str_of(s->epoch));
    add_arg(t, asked.n > 0 ? asked : STR("-"));
    add_number(t, (uint64_t)((int64_t)sent + s->offset_us));
    add_number(t, tolerance + (uint64_t)s->o.timeout_ms * 1000);
    add_number(t, tolerance);
    add_number(t, LEASE_TTL_MS * UINT64_C(1000));
    for (size_t i = 0; i < n; i++) add_op(s, t, i, &items[i]);
    enum err e = redis_eval(s->redis, script_lease, t->keys, 2 + n, t->args, t->args_n, &v, why);
    if (e == ERR_OK && redis_len(v) < 2) e = why_set(why, ERR_INVALID, "Redis: an odd reply");
    if (e != ERR_OK) {
        redis_store_pause(s, e);
        return ERR_UNAVAILABLE;
    }
    struct str word = redis_str(redis_at(v, 0));
    if (str_eqz(word, "ok")) {
        follow_time(s, offset_of(s, sent, redis_int(redis_at(v, 1))));
        if (read_results(v, items, n) == ERR_OK) return ERR_OK;
        redis_store_pause(s, ERR_INVALID);
        return why_set(why, ERR_UNAVAILABLE, "Redis: an odd reply");
    }
    if (str_eqz(word, "clock")) {
        clock_stepped(s);
        return why_set(why, ERR_UNAVAILABLE, "the clock of Redis stepped");
    }
    s->epoch[0] = '\0';
    return why_set(why, ERR_UNAVAILABLE, "the epoch is over");
}

struct str redis_store_key(const struct redis_store *s, struct str policy, char unit, bool durable,
                           struct str key, char out[REDIS_KEY_MAX])
{
    int n = durable ? snprintf(out, REDIS_KEY_MAX, "%s:quota:%.*s:%c:%.*s", s->prefix,
                               STR_ARG(policy), unit != 0 ? unit : 'r', STR_ARG(key))
                    : snprintf(out, REDIS_KEY_MAX, "%s:counter:%s:%.*s:%c:%.*s", s->prefix,
                               s->epoch, STR_ARG(policy), unit != 0 ? unit : 'r', STR_ARG(key));
    ASSERT(n > 0 && n < REDIS_KEY_MAX);
    return str_n(out, (size_t)n);
}

/* The figure of a line of INFO; false when there is none. */
static struct str info_of(struct str text, const char *name)
{
    while (text.n > 0) {
        struct str line = str_cut(&text, '\n'), word = str_cut(&line, ':');
        if (!str_eqz(word, name)) continue;
        if (line.n > 0 && line.p[line.n - 1] == '\r') line.n--;
        return line;
    }
    return STR_NULL;
}

/* A Redis that may evict counters holds no limit: it is not used. */
static enum err check_settings(struct redis_store *s, struct why *why)
{
    const struct redis_value *v = NULL;
    const struct str args[] = { STR("INFO"), STR("memory") };
    uint64_t now = now_us(s), every = s->problem[0] == '\0' ? CHECK_S : CHECK_AGAIN_S;
    if (s->checked_us != 0 && now - s->checked_us < every * UINT64_C(1000000)) goto known;
    enum err e = redis_command(s->redis, args, 2, &v, why);
    if (e != ERR_OK) {
        redis_store_pause(s, e);
        return ERR_UNAVAILABLE;
    }
    struct str most = info_of(redis_str(v), "maxmemory");
    struct str policy = info_of(redis_str(v), "maxmemory_policy");
    bool bounded = most.n > 0 && !str_eqz(most, "0");
    s->checked_us = now;
    s->problem[0] = '\0';
    if (bounded && policy.n > 0 && !str_eqz(policy, "noeviction"))
        snprintf(s->problem, sizeof s->problem,
                 "Redis may evict counters (maxmemory-policy %.*s): set it to noeviction",
                 (int)MIN(policy.n, (size_t)32), policy.p);
known:
    if (s->problem[0] == '\0') return ERR_OK;
    return why_set(why, ERR_UNAVAILABLE, "%s", s->problem);
}

/* Serves what this connection and this epoch can; reads a new epoch when another engine began one.
 */
enum err redis_store_ensure(struct redis_store *s, struct why *why)
{
    char run_id[41];
    bool ours = false;
    enum err e;
    if (now_us(s) < s->paused_us) return why_set(why, ERR_UNAVAILABLE, "Redis failed a moment ago");
    e = redis_connect(s->redis, run_id, why);
    if (e != ERR_OK) {
        redis_store_pause(s, e);
        return ERR_UNAVAILABLE;
    }
    if (strcmp(run_id, s->run_id) != 0) {
        s->epoch[0] = '\0';
        s->checked_us = 0;
    }
    e = check_settings(s, why);
    if (e != ERR_OK) return e;
    if (s->epoch[0] == '\0' && run_epoch_script(s, "", false, &ours, why) != ERR_OK)
        return ERR_UNAVAILABLE;
    if (s->epoch[0] != '\0') return ERR_OK;
    return why_set(why, ERR_UNAVAILABLE, "Redis has no epoch yet");
}

static enum err redis_serve(struct store *store, struct str asked, struct store_item *items,
                            size_t n, char *ret_epoch, struct why *why)
{
    struct redis_store *s = (struct redis_store *)store;
    struct call_text *t = malloc(sizeof *t);
    enum err e = ERR_NOMEM;
    if (t == NULL) return why_set(why, e, "out of memory");
    pthread_mutex_lock(&s->lock);
    e = redis_store_ensure(s, why);
    for (size_t i = 0; i < n && e == ERR_OK; i += AT_ONCE)
        e = serve_some(s, t, asked, items + i, MIN(n - i, (size_t)AT_ONCE), why);
    if (e == ERR_OK) memcpy(ret_epoch, s->epoch, sizeof s->epoch);
    pthread_mutex_unlock(&s->lock);
    free(t);
    return e;
}

static void redis_tick(struct store *store)
{
    struct redis_store *s = (struct redis_store *)store;
    struct why why = { "" };
    pthread_mutex_lock(&s->lock);
    if (now_us(s) >= s->paused_us) {
        bool away = look_for_epoch(s, &why) != ERR_OK || check_settings(s, &why) != ERR_OK;
        if (away && !s->away)
            report(s, LOG_WARN, "the counters cannot be served: trying on", why.text);
        if (!away && s->away) report(s, LOG_INFO, "the counters can be served again", NULL);
        s->away = away;
    }
    pthread_mutex_unlock(&s->lock);
}

static void redis_status(struct store *store, struct store_status *ret)
{
    struct redis_store *s = (struct redis_store *)store;
    pthread_mutex_lock(&s->lock);
    *ret = (struct store_status){ .errors = s->errors,
                                  .epochs = s->epochs,
                                  .clock_steps = s->clock_steps,
                                  .losses = s->losses,
                                  .ready = s->epoch[0] != '\0' && s->problem[0] == '\0' };
    memcpy(ret->epoch, s->epoch, sizeof ret->epoch);
    memcpy(ret->problem, s->problem, sizeof ret->problem);
    pthread_mutex_unlock(&s->lock);
}

static void redis_store_free(struct store *store)
{
    struct redis_store *s = (struct redis_store *)store;
    redis_free(s->redis);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

static const struct store_type redis_store_type = { .serve = redis_serve,
                                                    .look = redis_store_look,
                                                    .reset = redis_store_reset,
                                                    .seed = redis_store_seed,
                                                    .tick = redis_tick,
                                                    .status = redis_status,
                                                    .free = redis_store_free };

enum err store_redis_new(const struct store_redis_options *o, struct store **ret, struct why *why)
{
    struct redis_store *s = xcalloc(1, sizeof *s);
    s->store.type = &redis_store_type;
    s->o = *o;
    if (s->o.timeout_ms == 0) s->o.timeout_ms = TIMEOUT_MS;
    (void)str_copyz(s->prefix, sizeof s->prefix, str_of(o->prefix));
    snprintf(s->epoch_key, sizeof s->epoch_key, "%s:epoch", s->prefix);
    snprintf(s->lost_key, sizeof s->lost_key, "%s:quotas-lost", s->prefix);
    enum err e = redis_new(o->url, CONNECT_MS, s->o.timeout_ms, &s->redis, why);
    if (e != ERR_OK) {
        free(s);
        return e;
    }
    pthread_mutex_init(&s->lock, NULL);
    *ret = &s->store;
    return ERR_OK;
}
