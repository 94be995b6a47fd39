/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ingester: one thread that takes usage records from JetStream in batches, stores each batch in
 * one transaction, and acknowledges it only after the commit. Killed anywhere, it gets the same
 * records again, and the ledger knows them by their ids.
 *
 *      LOCK -> STORE -> STREAMS -> CONSUMER -> RUN, and back to where something broke
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "metrics.h"
#include "proto/envelope.h"
#include "proto/subjects.h"

enum {
    BATCH_MAX = 1024,
    FETCH_WAIT_MS = 500,
    ACK_WAIT_MS = 10000,
    UNKNOWN_VERSION_DELAY_MS = 30000,
    REFUSED_DELAY_MS = 30000,
    DEAD_TIMEOUT_MS = 5000,
    DEAD_MAX_BYTES = 64 * 1024 * 1024,
    BACKOFF_MIN_MS = 100,
    BACKOFF_MAX_MS = 2000,
    EXPIRE_EVERY_S = 60,
    ARENA_BUDGET = 48 * 1024 * 1024
};

static const char durable_name[] = "metrics";

enum step { STEP_LOCK, STEP_STORE, STEP_STREAMS, STEP_CONSUMER, STEP_RUN };

struct ingest {
    struct metrics_state *m;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    bool stopping; /* under lock */

    enum step step;
    int lock_fd;
    struct store *store;
    struct bus_consumer *consumer;
    unsigned failures;
    uint64_t expire_at_ms;
    struct why said; /* what was last complained about */

    struct arena arena;
    struct bus_js_msg *msgs[BATCH_MAX]; /* of the batch; NULL when dealt with */
    struct usage_record records[BATCH_MAX];
    const struct usage_record *list[BATCH_MAX];
    struct bus_js_msg *from[BATCH_MAX]; /* the message of list[i] */
    enum store_verdict verdicts[BATCH_MAX];
};

/* --- waiting --- */

static bool is_stopping(struct ingest *g)
{
    (void)pthread_mutex_lock(&g->lock);
    bool stopping = g->stopping;
    (void)pthread_mutex_unlock(&g->lock);
    return stopping;
}

/* Waits for the end, or a while that doubles with each failure. */
static void back_off(struct ingest *g)
{
    struct timespec until;
    unsigned ms = BACKOFF_MIN_MS;
    for (unsigned i = 0; i < g->failures && ms < BACKOFF_MAX_MS; i++) ms *= 2;
    ms = MIN(ms, (unsigned)BACKOFF_MAX_MS);
    g->failures++;
    (void)clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += ms / 1000;
    until.tv_nsec += (long)(ms % 1000) * 1000000;
    if (until.tv_nsec >= 1000000000) until.tv_sec++, until.tv_nsec -= 1000000000;
    (void)pthread_mutex_lock(&g->lock);
    int rc = 0;
    while (!g->stopping && rc == 0) rc = pthread_cond_timedwait(&g->wake, &g->lock, &until);
    (void)pthread_mutex_unlock(&g->lock);
}

/* Says once why it does not go on, and again when the reason changes. */
static void complain(struct ingest *g, const char *msg, enum err e, const struct why *why)
{
    if (strcmp(g->said.text, why->text) == 0) return;
    g->said = *why;
    log_warn(msg, LERR(e), LS("why", why->text));
}

/* --- getting ready --- */

static enum err ensure_streams(struct ingest *g, struct why *why)
{
    const struct metrics_settings *s = g->m->settings;
    struct bus *bus = daemon_bus(g->m->daemon);
    char name[SUBJECT_LEN], subject[SUBJECT_LEN];
    subject_store(bus_prefix(bus), STORE_STREAM_USAGE, name);
    subject_make(bus_prefix(bus), SUBJECT_USAGE, "*", subject);
    struct bus_stream usage = { .name = name,
                                .subjects = { subject },
                                .max_bytes = s->stream_max_bytes,
                                .max_age_ns = s->stream_max_age_s * 1000000000,
                                .duplicates_ns = s->duplicates_s * 1000000000,
                                .discard_new = true,
                                .work_queue = !s->stream_keep,
                                .replicas = (int)s->replicas };
    enum err e = bus_stream_ensure(bus, &usage, why);
    if (e != ERR_OK) return e;
    subject_store(bus_prefix(bus), STORE_STREAM_USAGE_DEAD, name);
    subject_make(bus_prefix(bus), SUBJECT_USAGE_DEAD, NULL, subject);
    struct bus_stream dead = { .name = name,
                               .subjects = { subject },
                               .max_bytes = MIN(s->stream_max_bytes, DEAD_MAX_BYTES),
                               .duplicates_ns = s->duplicates_s * 1000000000,
                               .discard_new = true,
                               .replicas = (int)s->replicas };
    return bus_stream_ensure(bus, &dead, why);
}

static enum err open_consumer(struct ingest *g, struct why *why)
{
    struct bus *bus = daemon_bus(g->m->daemon);
    char name[SUBJECT_LEN];
    subject_store(bus_prefix(bus), STORE_STREAM_USAGE, name);
    struct bus_consumer_options o = { .stream = name,
                                      .durable = durable_name,
                                      .ack_wait_ms = ACK_WAIT_MS,
                                      .max_ack_pending = 8 * (int)g->m->settings->batch };
    return bus_consumer_open(bus, &o, &g->consumer, why);
}

static enum err lock_store(struct ingest *g, struct why *why)
{
    static const char reason[] = "another instance has the sqlite ledger";
    enum err e = store_lock(g->m->url, &g->lock_fd, why);
    if (e == ERR_CONFLICT) daemon_unready(g->m->daemon, reason);
    if (e == ERR_OK) daemon_ready(g->m->daemon, reason);
    return e;
}

static enum err open_store(struct ingest *g, struct why *why)
{
    enum err e = store_open(g->m->url, (size_t)g->m->settings->models_max, &g->store, why);
    if (e != ERR_OK) return e;
    (void)pthread_mutex_lock(&g->m->lock);
    if (g->m->db == NULL) e = db_open(g->m->url, &g->m->db, why);
    (void)pthread_mutex_unlock(&g->m->lock);
    if (e != ERR_OK) {
        store_close(g->store);
        g->store = NULL;
        return e;
    }
    daemon_ready(g->m->daemon, "store");
    return ERR_OK;
}

static void close_consumer(struct ingest *g)
{
    if (g->consumer != NULL) bus_consumer_close(g->consumer);
    g->consumer = NULL;
}

/* --- what cannot be stored --- */

/* The reply of JetStream to a dead record, waited for: the original is acknowledged only then. */
struct dead_wait {
    pthread_mutex_t lock;
    pthread_cond_t done;
    bool is_done;
    enum err e;
};

static void on_dead_stored(void *ctx, enum err e, bool dup)
{
    struct dead_wait *w = ctx;
    (void)dup;
    (void)pthread_mutex_lock(&w->lock);
    w->e = e;
    w->is_done = true;
    (void)pthread_cond_signal(&w->done);
    (void)pthread_mutex_unlock(&w->lock);
}

static enum err publish_dead(struct ingest *g, const char *msg_id, struct str text)
{
    struct bus *bus = daemon_bus(g->m->daemon);
    char subject[SUBJECT_LEN];
    struct dead_wait w = { PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, false, ERR_OK };
    subject_make(bus_prefix(bus), SUBJECT_USAGE_DEAD, NULL, subject);
    enum err e = bus_js_publish(bus, subject, msg_id, text, DEAD_TIMEOUT_MS, on_dead_stored, &w);
    if (e != ERR_OK) return e;
    (void)pthread_mutex_lock(&w.lock);
    while (!w.is_done) (void)pthread_cond_wait(&w.done, &w.lock); /* comes within its timeout */
    (void)pthread_mutex_unlock(&w.lock);
    return w.e;
}

/* {"v","id","ts","from","subject","sequence","reason","data"}: what came, as text. */
static void bury(struct ingest *g, struct bus_js_msg *msg, const char *reason)
{
    struct daemon *d = g->m->daemon;
    char msg_id[64];
    struct buf text;
    struct str data = bus_js_data(msg);
    struct json *m = envelope_new(daemon_clock(d), daemon_rng(d), daemon_instance(d));
    (void)snprintf(msg_id, sizeof msg_id, "dead-%llu", (unsigned long long)bus_js_sequence(msg));
    buf_init(&text, MESSAGE_MAX_BYTES);
    json_set_str(m, "subject", bus_js_subject(msg));
    json_set_u64(m, "sequence", bus_js_sequence(msg));
    json_setz(m, "reason", reason);
    /* The text of a message that is too long to be a record is cut: it is not one anyway. */
    bool cut = data.n > USAGE_MAX_BYTES;
    if (cut) json_set_bool(m, "cut", true);
    enum err e = json_print(m, &text);
    json_free(m);
    if (e == ERR_OK) text.len--; /* "}" */
    if (e == ERR_OK) e = buf_appendz(&text, ",\"data\":");
    if (e == ERR_OK)
        e = buf_append_json(&text, str_n(data.p, cut ? (size_t)USAGE_MAX_BYTES : data.n));
    if (e == ERR_OK) e = buf_append_char(&text, '}');
    if (e == ERR_OK) e = publish_dead(g, msg_id, buf_str(&text));
    buf_done(&text);
    if (e != ERR_OK) {
        bus_js_nak(msg, REFUSED_DELAY_MS);
        log_warn("a record that cannot be read stays in the stream", LERR(e), LS("why", reason));
        return;
    }
    bus_js_ack(msg);
    metric_inc(metrics_get(daemon_metrics(d), M_DEAD, NULL));
    log_error("a usage record cannot be read: kept in the dead stream", LS("why", reason));
}

/* Decodes the batch; what is no record of ours is dealt with. Returns how many are in the list. */
static size_t decode_batch(struct ingest *g, size_t n)
{
    size_t kept = 0;
    arena_reset(&g->arena);
    for (size_t i = 0; i < n; i++) {
        struct why why = { "" };
        enum err e = usage_decode(bus_js_data(g->msgs[i]), &g->arena, &g->records[i], &why);
        switch (e) {
        case ERR_OK:
            g->list[kept] = &g->records[i];
            g->from[kept++] = g->msgs[i];
            break;
        case ERR_UNSUPPORTED: /* of a newer edge: a newer one of us can read it */
            complain(g, "a usage record of another version stays in the stream", e, &why);
            bus_js_nak(g->msgs[i], UNKNOWN_VERSION_DELAY_MS);
            break;
        case ERR_NOMEM: bus_js_nak(g->msgs[i], BACKOFF_MAX_MS); break;
        default: bury(g, g->msgs[i], why.text); break;
        }
    }
    return kept;
}

/* --- storing --- */

static void acknowledge(struct ingest *g, size_t n)
{
    static const char *const words[] = {
        [STORE_NEW] = "new", [STORE_DUPLICATE] = "duplicate", [STORE_REFUSED] = "refused"
    };
    struct metrics *metrics = daemon_metrics(g->m->daemon);
    size_t counts[ARRAY_LEN(words)] = { 0 };
    for (size_t i = 0; i < n; i++) {
        counts[g->verdicts[i]]++;
        if (g->verdicts[i] == STORE_REFUSED)
            bus_js_nak(g->from[i], REFUSED_DELAY_MS);
        else
            bus_js_ack(g->from[i]);
    }
    for (size_t v = 0; v < ARRAY_LEN(words); v++) {
        struct str label = str_of(words[v]);
        if (counts[v] > 0) metric_add(metrics_get(metrics, M_INGESTED, &label), (double)counts[v]);
    }
    uint64_t newest = 0, now = clock_wall_ms(daemon_clock(g->m->daemon));
    for (size_t i = 0; i < n; i++) newest = MAX(newest, g->list[i]->ts_ms);
    metric_set(metrics_get(metrics, M_LAG, NULL), newest < now ? (double)(now - newest) / 1e3 : 0);
    if (counts[STORE_REFUSED] > 0)
        log_error("the database refuses usage records: they stay in the stream",
                  LI("records", counts[STORE_REFUSED]));
}

/* Goes on trying for as long as the messages are ours; then they come again by themselves. */
static enum err store_batch(struct ingest *g, size_t n)
{
    struct why why = { "" };
    const struct clock *clock = daemon_clock(g->m->daemon);
    uint64_t until = clock_mono_ms(clock) + ACK_WAIT_MS / 2;
    for (;;) {
        enum err e = store_ingest(g->store, g->list, n, clock_wall_ms(clock), g->verdicts, &why);
        if (e == ERR_OK) {
            g->failures = 0;
            g->said.text[0] = '\0';
            acknowledge(g, n);
            return ERR_OK;
        }
        metric_inc(metrics_get(daemon_metrics(g->m->daemon), M_BATCH_ERRORS, NULL));
        complain(g, "cannot store usage records: they stay in the stream", e, &why);
        if (is_stopping(g) || clock_mono_ms(clock) > until) {
            for (size_t i = 0; i < n; i++) bus_js_nak(g->from[i], BACKOFF_MAX_MS);
            return e;
        }
        back_off(g);
    }
}

static void expire_old(struct ingest *g)
{
    const struct metrics_settings *s = g->m->settings;
    const struct clock *clock = daemon_clock(g->m->daemon);
    uint64_t now = clock_mono_ms(clock), wall = clock_wall_ms(clock);
    const uint64_t day = 86400000u;
    bool more = false;
    struct why why = { "" };
    if (now < g->expire_at_ms) return;
    struct store_retention r = {
        .records_before_ms = s->records_days > 0 ? wall - (uint64_t)s->records_days * day : 0,
        .clients_before_ms = s->clients_days > 0 ? wall - (uint64_t)s->clients_days * day : 0,
        .minutes_before_ms = s->minutes_days > 0 ? wall - (uint64_t)s->minutes_days * day : 0,
    };
    enum err e = store_expire(g->store, &r, &more, &why);
    if (e != ERR_OK) complain(g, "cannot remove old records", e, &why);
    g->expire_at_ms = e == ERR_OK && more ? now : now + EXPIRE_EVERY_S * 1000;
}

/* One batch. ERR_TIMEOUT: nothing came. */
static enum err run_once(struct ingest *g, struct why *why)
{
    int n = 0;
    enum err e = bus_consumer_fetch(g->consumer, (int)g->m->settings->batch, FETCH_WAIT_MS, g->msgs,
                                    &n);
    if (e == ERR_TIMEOUT) {
        expire_old(g);
        return e;
    }
    if (e != ERR_OK) return why_set(why, e, "cannot fetch from JetStream: %s", err_name(e));
    size_t kept = decode_batch(g, (size_t)n);
    if (kept > 0) (void)store_batch(g, kept); /* what it could not store stays in the stream */
    expire_old(g);
    return ERR_OK;
}

/* --- the thread --- */

static enum err take_step(struct ingest *g, struct why *why)
{
    switch (g->step) {
    case STEP_LOCK: return lock_store(g, why);
    case STEP_STORE: return open_store(g, why);
    case STEP_STREAMS: return ensure_streams(g, why);
    case STEP_CONSUMER: return open_consumer(g, why);
    case STEP_RUN: return run_once(g, why);
    }
    return ERR_INTERNAL;
}

static void step_failed(struct ingest *g, enum err e, const struct why *why)
{
    static const char *const doing[] = {
        [STEP_LOCK] = "waiting for the ledger",
        [STEP_STORE] = "cannot open the ledger yet",
        [STEP_STREAMS] = "cannot make the streams yet",
        [STEP_CONSUMER] = "cannot open the consumer yet",
        [STEP_RUN] = "cannot read the stream: trying again",
    };
    complain(g, doing[g->step], e, why);
    if (g->step == STEP_RUN) {
        /* Whoever restarted may have lost them: make sure of the streams again. */
        close_consumer(g);
        g->step = STEP_STREAMS;
    }
    back_off(g);
}

static void *run(void *arg)
{
    struct ingest *g = arg;
    while (!is_stopping(g)) {
        struct why why = { "" };
        enum err e = take_step(g, &why);
        if (e != ERR_OK && e != ERR_TIMEOUT) {
            step_failed(g, e, &why);
        } else if (e == ERR_TIMEOUT && g->step != STEP_RUN) {
            step_failed(g, e, &why);
        } else if (g->step != STEP_RUN) {
            g->step = (enum step)(g->step + 1);
            g->failures = 0;
            if (g->step == STEP_RUN) {
                g->said.text[0] = '\0';
                log_info("reading usage records");
            }
        }
    }
    return NULL;
}

enum err ingest_start(struct metrics_state *m, struct why *why)
{
    pthread_condattr_t attr;
    struct ingest *g = xcalloc(1, sizeof *g);
    g->m = m;
    g->lock_fd = -1;
    arena_init(&g->arena, ARENA_BUDGET);
    (void)pthread_mutex_init(&g->lock, NULL);
    (void)pthread_condattr_init(&attr);
    (void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&g->wake, &attr);
    (void)pthread_condattr_destroy(&attr);
    daemon_unready(m->daemon, "store");
    if (pthread_create(&g->thread, NULL, run, g) != 0) {
        arena_done(&g->arena);
        free(g);
        return why_set(why, ERR_IO, "cannot start the ingester");
    }
    m->ingest = g;
    return ERR_OK;
}

void ingest_stop(struct metrics_state *m)
{
    struct ingest *g = m->ingest;
    if (g == NULL) return;
    m->ingest = NULL;
    (void)pthread_mutex_lock(&g->lock);
    g->stopping = true;
    (void)pthread_cond_signal(&g->wake);
    (void)pthread_mutex_unlock(&g->lock);
    (void)pthread_join(g->thread, NULL);
    close_consumer(g);
    store_close(g->store);
    if (g->lock_fd >= 0) (void)close(g->lock_fd);
    arena_done(&g->arena);
    (void)pthread_cond_destroy(&g->wake);
    (void)pthread_mutex_destroy(&g->lock);
    free(g);
}
