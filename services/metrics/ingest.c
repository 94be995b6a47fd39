/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ingester: one thread that takes messages from JetStream, each with one usage record or with
 * several. It stores the records of many messages in one transaction, those of a message together,
 * and acknowledges a message only after the commit. Killed anywhere, it gets the same records
 * again, and the ledger knows them by their ids. A record that cannot be read or stored keeps back
 * no other: a message that holds one comes again, if it must, when its others are in the ledger.
 *
 *      LOCK -> STORE -> STREAMS -> CONSUMER -> RUN, and back to where something broke
 */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "metrics.h"
#include "proto/envelope.h"
#include "proto/subjects.h"
#include "proto/usage_batch.h"

enum {
    BATCH_MAX = 1024,                              /* messages of a fetch */
    RECORDS_MAX = BATCH_MAX + USAGE_BATCH_RECORDS, /* of a transaction */
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
    /* The messages of a fetch. later_ms of one: when it is to come again, 0: it is done with. */
    struct bus_js_msg *msgs[BATCH_MAX];
    int later_ms[BATCH_MAX];
    /* The records of a transaction, and the index of the message of each. */
    struct usage_record records[RECORDS_MAX];
    const struct usage_record *list[RECORDS_MAX];
    size_t from[RECORDS_MAX];
    enum store_verdict verdicts[RECORDS_MAX];
    size_t records_n;
    size_t reading;   /* the message that is being read … */
    bool dead_failed; /* … and whether one of its records could not be kept as dead */
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
    unsigned ms = BACKOFF_MIN_MS;
    for (unsigned i = 0; i < g->failures && ms < BACKOFF_MAX_MS; i++) ms *= 2;
    ms = MIN(ms, (unsigned)BACKOFF_MAX_MS);
    g->failures++;
    struct timespec until = clock_in_ms(ms);
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

/* {"v","id","ts","from","subject","sequence","reason","data"}: what came, as text. id: of the
 * message to the dead stream. */
static enum err bury(struct ingest *g, const struct bus_js_msg *msg, const char *id,
                     struct str data, const char *reason)
{
    struct daemon *d = g->m->daemon;
    struct buf text;
    struct json *m = envelope_new(daemon_clock(d), daemon_rng(d), daemon_instance(d));
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
    if (e == ERR_OK) e = publish_dead(g, id, buf_str(&text));
    buf_done(&text);
    if (e != ERR_OK) {
        log_warn("a record that cannot be read stays in the stream", LERR(e), LS("why", reason));
        return e;
    }
    metric_inc(metrics_get(daemon_metrics(d), M_DEAD, NULL));
    log_error("a usage record cannot be read: kept in the dead stream", LS("why", reason));
    return ERR_OK;
}

/* --- reading --- */

static void come_again(struct ingest *g, int delay_ms)
{
    g->later_ms[g->reading] = MAX(g->later_ms[g->reading], delay_ms);
}

/* What is no record of ours, a whole message or (part >= 0) one of it, is dealt with. */
static void cannot_read(struct ingest *g, enum err e, int part, struct str data, const char *reason)
{
    const struct bus_js_msg *msg = g->msgs[g->reading];
    unsigned long long sequence = bus_js_sequence(msg);
    char id[64];
    struct why why;
    switch (e) {
    case ERR_UNSUPPORTED: /* of a newer edge: a newer one of us can read it */
        (void)why_set(&why, e, "%s", reason);
        complain(g, "a usage record of another version stays in the stream", e, &why);
        come_again(g, UNKNOWN_VERSION_DELAY_MS);
        return;
    case ERR_NOMEM: come_again(g, BACKOFF_MAX_MS); return;
    default: break;
    }
    if (part < 0)
        (void)snprintf(id, sizeof id, "dead-%llu", sequence);
    else
        (void)snprintf(id, sizeof id, "dead-%llu-%d", sequence, part);
    /* Where one of a message could not be kept, the message comes again: no use in waiting for the
     * others. */
    if (!g->dead_failed && bury(g, msg, id, data, reason) == ERR_OK) return;
    g->dead_failed = true;
    come_again(g, REFUSED_DELAY_MS);
}

static void on_part(void *ctx, const struct usage_part *p)
{
    struct ingest *g = ctx;
    if (p->e != ERR_OK) {
        cannot_read(g, p->e, (int)p->index, p->text, p->why);
        return;
    }
    ASSERT(g->records_n < RECORDS_MAX);
    g->records[g->records_n] = *p->record;
    g->list[g->records_n] = &g->records[g->records_n];
    g->from[g->records_n++] = g->reading;
}

/* Reads messages from index `at` until a transaction is full; returns the index of the next. */
static size_t read_messages(struct ingest *g, size_t at, size_t n)
{
    size_t most = (size_t)g->m->settings->batch;
    arena_reset(&g->arena);
    g->records_n = 0;
    for (; at < n && g->records_n < most; at++) {
        struct why why = { "" };
        struct str data = bus_js_data(g->msgs[at]);
        g->reading = at;
        g->later_ms[at] = 0;
        g->dead_failed = false;
        enum err e = usage_read(data, &g->arena, on_part, g, &why);
        if (e != ERR_OK) cannot_read(g, e, -1, data, why.text);
    }
    return at;
}

/* --- storing --- */

static void count_stored(struct ingest *g)
{
    static const char *const words[] = {
        [STORE_NEW] = "new", [STORE_DUPLICATE] = "duplicate", [STORE_REFUSED] = "refused"
    };
    struct metrics *metrics = daemon_metrics(g->m->daemon);
    size_t counts[ARRAY_LEN(words)] = { 0 };
    uint64_t newest = 0, now = clock_wall_ms(daemon_clock(g->m->daemon));
    for (size_t i = 0; i < g->records_n; i++) {
        counts[g->verdicts[i]]++;
        newest = MAX(newest, g->list[i]->ts_ms);
        /* The message comes again with all of its records: the ledger knows those it took. */
        if (g->verdicts[i] == STORE_REFUSED)
            g->later_ms[g->from[i]] = MAX(g->later_ms[g->from[i]], REFUSED_DELAY_MS);
    }
    for (size_t v = 0; v < ARRAY_LEN(words); v++) {
        struct str label = str_of(words[v]);
        if (counts[v] > 0) metric_add(metrics_get(metrics, M_INGESTED, &label), (double)counts[v]);
    }
    metric_set(metrics_get(metrics, M_LAG, NULL), newest < now ? (double)(now - newest) / 1e3 : 0);
    if (counts[STORE_REFUSED] > 0)
        log_error("the database refuses usage records: they stay in the stream",
                  LI("records", counts[STORE_REFUSED]));
}

/* Messages of which all is stored, or will come again, are answered. */
static void acknowledge(struct ingest *g, size_t from, size_t to)
{
    for (size_t i = from; i < to; i++) {
        if (g->later_ms[i] > 0)
            bus_js_nak(g->msgs[i], g->later_ms[i]);
        else
            bus_js_ack(g->msgs[i]);
    }
}

/* Goes on trying for as long as the messages are ours; then they come again by themselves. */
static enum err store_records(struct ingest *g)
{
    struct why why = { "" };
    const struct clock *clock = daemon_clock(g->m->daemon);
    uint64_t until = clock_mono_ms(clock) + ACK_WAIT_MS / 2;
    while (g->records_n > 0) {
        enum err e = store_ingest(g->store, g->list, g->records_n, clock_wall_ms(clock),
                                  g->verdicts, &why);
        if (e == ERR_OK) {
            g->failures = 0;
            g->said.text[0] = '\0';
            count_stored(g);
            return ERR_OK;
        }
        metric_inc(metrics_get(daemon_metrics(g->m->daemon), M_BATCH_ERRORS, NULL));
        complain(g, "cannot store usage records: they stay in the stream", e, &why);
        if (is_stopping(g) || clock_mono_ms(clock) > until) return e;
        back_off(g);
    }
    return ERR_OK;
}

/* Stores what was fetched, in as many transactions as it takes. What could not be stored comes
 * again. */
static void store_messages(struct ingest *g, size_t n)
{
    size_t done = 0;
    while (done < n) {
        size_t next = read_messages(g, done, n);
        if (store_records(g) != ERR_OK) break;
        acknowledge(g, done, next);
        done = next;
    }
    for (; done < n; done++) bus_js_nak(g->msgs[done], BACKOFF_MAX_MS);
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
    store_messages(g, (size_t)n);
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
