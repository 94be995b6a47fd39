/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Usage records on their way: workers write them into the spool, one thread (the publisher) sends
 * what is settled to JetStream, up to WINDOW at a time, and threads of the bus bring the
 * acknowledgements. A slot of the window belongs to the bus while it flies, else to the publisher;
 * its state is under the lock. See usage.h.
 */
#include "usage.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/log.h"
#include "proto/subjects.h"
#include "spool.h"

enum {
    WINDOW = 1024,
    PUBLISH_TIMEOUT_MS = 5000,
    POLL_MS = 20, /* how soon the publisher sees a new record: nobody wakes it on the hot path */
    BACKOFF_MIN_MS = 100,
    BACKOFF_MAX_MS = 5000,
    SEGMENT_MIN = 256 * 1024,
    SEGMENT_MAX = 4 * 1024 * 1024
};

enum slot_state { SLOT_FREE, SLOT_WAITING, SLOT_FLYING };

struct slot {
    struct usage *usage;
    enum slot_state state;
    struct spool_item item;
    unsigned failures;
    uint64_t retry_ns; /* of WAITING */
};

struct worker {
    struct buf text; /* of the record being written */
} __attribute__((aligned(64)));

struct usage {
    struct usage_options o;
    struct usage_settings settings;
    struct spool *spool;
    struct worker *workers;
    pthread_t publisher;

    pthread_mutex_t lock;
    pthread_cond_t acked; /* there is room again for who waits for it, nothing flies, or the end */
    struct slot slots[WINDOW];
    struct slot *free_slots[WINDOW]; /* the publisher takes them, answers give them back */
    size_t free_n, flying, waiting;  /* slots of each state */
    bool stopping;
    bool full; /* the publisher has more to send than there is room for */

    struct buf crash_text; /* the publisher's own */
    _Atomic uint64_t published, duplicates, retries, refused, unprotected, lost, unsettled;
    _Atomic uint64_t complain_at_ns;
};

/* --- writing --- */

static struct str slug_of(const struct usage_record *r)
{
    return str_is_slug(r->namespace_slug) ? r->namespace_slug : STR(USAGE_NO_NAMESPACE);
}

/* At most one line per second, however many records fail. */
static void complain(struct usage *u, const char *msg, enum err e)
{
    uint64_t now = clock_mono_ns(u->o.clock), at = u->complain_at_ns;
    if (now < at || !atomic_compare_exchange_strong(&u->complain_at_ns, &at, now + 1000000000u))
        return;
    log_error(msg, LERR(e), LI("lost", u->lost), LI("unprotected", u->unprotected));
}

enum err usage_open(struct usage *u, unsigned worker, const struct usage_record *r,
                    struct usage_handle **ret)
{
    ASSERT(worker < u->o.workers);
    struct buf *text = &u->workers[worker].text;
    struct spool_ticket *t = NULL;
    struct usage_record open = *r;
    open.outcome = USAGE_CRASHED; /* what it is unless it is settled */
    buf_clear(text);
    enum err e = usage_encode(&open, text);
    if (e == ERR_OK) e = spool_begin(u->spool, worker, r->id, slug_of(r), buf_str(text), &t);
    if (e != ERR_OK) {
        if (u->settings.full_refuses) {
            u->refused++;
            complain(u, "usage spool: a request is refused", e);
            return e;
        }
        u->unprotected++;
        complain(u, "usage spool: a request is served without its record on disk", e);
    }
    *ret = (struct usage_handle *)t;
    return ERR_OK;
}

void usage_progress(struct usage_handle *h, uint64_t output_tokens, int64_t cost_nano,
                    uint64_t duration_ms)
{
    struct spool_progress p = { output_tokens, cost_nano, duration_ms };
    if (h != NULL) spool_progress((struct spool_ticket *)h, &p);
}

void usage_settle(struct usage *u, unsigned worker, struct usage_handle *h,
                  const struct usage_record *r)
{
    ASSERT(worker < u->o.workers);
    struct buf *text = &u->workers[worker].text;
    struct spool_ticket *t = (struct spool_ticket *)h;
    buf_clear(text);
    enum err e = usage_encode(r, text);
    if (e == ERR_OK)
        e = t != NULL ? spool_settle(u->spool, t, buf_str(text))
                      : spool_put(u->spool, worker, r->id, slug_of(r), buf_str(text));
    if (e == ERR_OK) return;
    if (t != NULL) {
        /* It stays open on disk with its final amounts: a successor sends it as crashed. */
        usage_progress(h, r->output_tokens, r->cost.nano, r->duration_ms);
        spool_abandon(u->spool, t);
        u->unsettled++;
        complain(u, "usage spool: a record could not be settled, and is kept for the next start",
                 e);
    } else {
        u->lost++;
        complain(u, "usage spool: a record is lost", e);
    }
}

/* --- publishing --- */

/* The record of a request whose edge died, as far as it is known: from its opening and its
 * progress. */
static struct str crashed_text(struct usage *u, const struct spool_item *i)
{
    struct usage_record r;
    struct arena arena;
    struct str text = i->text;
    arena_init(&arena, 64 * 1024);
    buf_clear(&u->crash_text);
    if (usage_decode(i->text, &arena, &r, NULL) == ERR_OK) {
        r.from = str_of(u->o.instance);
        r.outcome = USAGE_CRASHED;
        if (i->progress.duration_ms > 0) {
            r.output_tokens = i->progress.output_tokens;
            r.duration_ms = i->progress.duration_ms;
            r.cost.nano = i->progress.cost_nano;
        }
        if (r.output_tokens > 0 && r.output_source == USAGE_SOURCE_NONE)
            r.output_source = USAGE_SOURCE_ESTIMATE;
        if (usage_encode(&r, &u->crash_text) == ERR_OK) text = buf_str(&u->crash_text);
    }
    arena_done(&arena);
    return text;
}

/* When a slot that failed goes again: doubling, with a random part, so that edges do not come
 * together. */
static uint64_t retry_at(struct usage *u, unsigned failures)
{
    uint64_t ms = BACKOFF_MIN_MS;
    for (unsigned i = 1; i < failures && ms < BACKOFF_MAX_MS; i++) ms *= 2;
    ms = MIN(ms, (uint64_t)BACKOFF_MAX_MS);
    /* Not the caller's generator: this runs on threads of the bus too. */
    ms += rng_below(rng_system(), ms / 2 + 1);
    return clock_mono_ns(u->o.clock) + ms * 1000000u;
}

/* The lock is held. */
static void slot_failed(struct usage *u, struct slot *s)
{
    s->failures++;
    s->state = SLOT_WAITING;
    s->retry_ns = retry_at(u, s->failures);
    u->waiting++;
    u->retries++;
}

/* The lock is held. Nobody is woken for each answer: records are sent, and answered, in batches. */
static void landed(struct usage *u)
{
    u->flying--;
    if (u->flying > 0 && !(u->full && u->flying <= WINDOW / 2)) return;
    u->full = false;
    (void)pthread_cond_broadcast(&u->acked);
}

/* On a thread of the bus. */
static void on_ack(void *ctx, enum err e, bool dup)
{
    struct slot *s = ctx;
    struct usage *u = s->usage;
    if (e == ERR_OK) spool_done(u->spool, &s->item);
    (void)pthread_mutex_lock(&u->lock);
    if (e == ERR_OK) {
        s->state = SLOT_FREE;
        u->free_slots[u->free_n++] = s;
        u->published++;
        if (dup) u->duplicates++;
    } else {
        slot_failed(u, s);
    }
    landed(u);
    (void)pthread_mutex_unlock(&u->lock);
}

/* Not under the lock: an answer may come before we are back. */
static void send(struct usage *u, struct slot *s)
{
    char subject[SUBJECT_LEN], slug[64], id[64];
    struct str text = s->item.crashed ? crashed_text(u, &s->item) : s->item.text;
    /* The name may come from a dead edge's disk: it is input. */
    bool good = str_is_slug(s->item.name);
    (void)str_copyz(slug, sizeof slug, good ? s->item.name : STR(USAGE_NO_NAMESPACE));
    (void)str_copyz(id, sizeof id, s->item.id);
    subject_make(bus_prefix(u->o.bus), SUBJECT_USAGE, slug, subject);
    (void)pthread_mutex_lock(&u->lock);
    s->state = SLOT_FLYING;
    u->flying++;
    (void)pthread_mutex_unlock(&u->lock);
    if (bus_js_publish(u->o.bus, subject, id, text, PUBLISH_TIMEOUT_MS, on_ack, s) == ERR_OK)
        return;
    (void)pthread_mutex_lock(&u->lock);
    slot_failed(u, s);
    landed(u);
    (void)pthread_mutex_unlock(&u->lock);
}

/* A slot whose record goes again now; *from is where to look on. */
static struct slot *take_due(struct usage *u, size_t *from, uint64_t now)
{
    struct slot *s = NULL;
    (void)pthread_mutex_lock(&u->lock);
    for (; u->waiting > 0 && *from < WINDOW && s == NULL; (*from)++)
        if (u->slots[*from].state == SLOT_WAITING && u->slots[*from].retry_ns <= now)
            s = &u->slots[*from];
    if (s != NULL) u->waiting--;
    (void)pthread_mutex_unlock(&u->lock);
    return s;
}

/* A free slot with a new record. NULL: no slot, or no record. */
static struct slot *take_new(struct usage *u)
{
    struct slot *s = NULL;
    (void)pthread_mutex_lock(&u->lock);
    if (u->free_n > 0) s = u->free_slots[--u->free_n];
    (void)pthread_mutex_unlock(&u->lock);
    if (s == NULL) return NULL;
    if (spool_next(u->spool, &s->item) == ERR_OK) {
        s->failures = 0;
        return s;
    }
    (void)pthread_mutex_lock(&u->lock);
    u->free_slots[u->free_n++] = s;
    (void)pthread_mutex_unlock(&u->lock);
    return NULL;
}

static void wait_for_ack(struct usage *u, unsigned ms)
{
    struct timespec until;
    (void)clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += ms / 1000;
    until.tv_nsec += (long)(ms % 1000) * 1000000;
    if (until.tv_nsec >= 1000000000) until.tv_sec++, until.tv_nsec -= 1000000000;
    (void)pthread_cond_timedwait(&u->acked, &u->lock, &until);
}

/* Sends what is due and what is new, as far as there is room. */
static void send_all(struct usage *u)
{
    uint64_t now = clock_mono_ns(u->o.clock);
    struct slot *s;
    for (size_t from = 0; (s = take_due(u, &from, now)) != NULL;) send(u, s);
    while ((s = take_new(u)) != NULL) send(u, s);
}

static void *publish(void *arg)
{
    struct usage *u = arg;
    /* Not ahead of the workers: what it has waits, and goes together. */
    (void)pthread_setschedparam(pthread_self(), SCHED_BATCH, &(struct sched_param){ 0 });
    for (;;) {
        if (bus_is_connected(u->o.bus)) send_all(u);
        (void)pthread_mutex_lock(&u->lock);
        bool stopping = u->stopping;
        u->full = u->free_n == 0 && u->flying > WINDOW / 2;
        if (!stopping) wait_for_ack(u, POLL_MS);
        (void)pthread_mutex_unlock(&u->lock);
        if (stopping) return NULL;
    }
}

/* --- life --- */

static uint64_t segment_bytes(const struct usage_options *o)
{
    uint64_t n = (uint64_t)o->settings->max_bytes / (8 * (uint64_t)o->workers);
    return MIN(MAX(n, (uint64_t)SEGMENT_MIN), (uint64_t)SEGMENT_MAX);
}

static void free_all(struct usage *u)
{
    spool_free(u->spool);
    for (unsigned i = 0; u->workers != NULL && i < u->o.workers; i++) buf_done(&u->workers[i].text);
    free(u->workers);
    buf_done(&u->crash_text);
    (void)pthread_cond_destroy(&u->acked);
    (void)pthread_mutex_destroy(&u->lock);
    free(u);
}

enum err usage_new(const struct usage_options *o, struct usage **ret, struct why *why)
{
    char dir[1024];
    pthread_condattr_t attr;
    ASSERT(o->workers > 0);
    int n = snprintf(dir, sizeof dir, "%s/spool", o->state_dir);
    if (n < 0 || (size_t)n >= sizeof dir)
        return why_set(why, ERR_INVALID, "spool: the path is too long");
    struct usage *u = xcalloc(1, sizeof *u);
    u->o = *o;
    u->settings = *o->settings;
    u->o.settings = &u->settings;
    (void)pthread_mutex_init(&u->lock, NULL);
    (void)pthread_condattr_init(&attr);
    (void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&u->acked, &attr);
    (void)pthread_condattr_destroy(&attr);
    buf_init(&u->crash_text, USAGE_MAX_BYTES);
    u->workers = aligned_alloc(64, o->workers * sizeof *u->workers);
    ASSERT(u->workers != NULL);
    for (unsigned i = 0; i < o->workers; i++) buf_init(&u->workers[i].text, USAGE_MAX_BYTES);
    for (size_t i = 0; i < WINDOW; i++) {
        u->slots[i].usage = u;
        u->free_slots[u->free_n++] = &u->slots[WINDOW - 1 - i];
    }
    enum err e = spool_new(&(struct spool_options){ .dir = dir,
                                                    .workers = o->workers,
                                                    .segment_bytes = segment_bytes(o),
                                                    .max_bytes = (uint64_t)o->settings->max_bytes,
                                                    .sync_ms = (unsigned)o->settings->sync_ms,
                                                    .clock = o->clock,
                                                    .rng = o->rng },
                           &u->spool, why);
    if (e == ERR_OK && pthread_create(&u->publisher, NULL, publish, u) != 0)
        e = why_set(why, ERR_IO, "usage: cannot start the publisher");
    if (e != ERR_OK) {
        free_all(u);
        return e;
    }
    *ret = u;
    return ERR_OK;
}

void usage_free(struct usage *u)
{
    if (u == NULL) return;
    (void)pthread_mutex_lock(&u->lock);
    u->stopping = true;
    (void)pthread_cond_broadcast(&u->acked);
    (void)pthread_mutex_unlock(&u->lock);
    (void)pthread_join(u->publisher, NULL);
    /* What flies comes back: with an answer, or when its time is over. */
    (void)pthread_mutex_lock(&u->lock);
    while (u->flying > 0) wait_for_ack(u, POLL_MS);
    (void)pthread_mutex_unlock(&u->lock);
    free_all(u);
}

static uint64_t count_settled(struct usage *u)
{
    struct spool_stats st;
    spool_stats(u->spool, &st);
    return st.settled;
}

size_t usage_pending(struct usage *u)
{
    struct spool_stats st;
    spool_stats(u->spool, &st);
    return (size_t)(st.open + st.settled);
}

bool usage_flush(struct usage *u, int timeout_ms)
{
    uint64_t deadline = clock_mono_ms(u->o.clock) + (uint64_t)MAX(timeout_ms, 0);
    (void)pthread_mutex_lock(&u->lock);
    while (count_settled(u) > 0 && clock_mono_ms(u->o.clock) < deadline) wait_for_ack(u, POLL_MS);
    (void)pthread_mutex_unlock(&u->lock);
    return count_settled(u) == 0;
}

void usage_stats(struct usage *u, struct usage_stats *ret)
{
    struct spool_stats st;
    spool_stats(u->spool, &st);
    *ret = (struct usage_stats){
        .open = st.open,
        .settled = st.settled,
        .spool_bytes = st.bytes,
        .published = u->published,
        .duplicates = u->duplicates,
        .retries = u->retries,
        .refused = u->refused,
        .unprotected = u->unprotected,
        .unsettled = u->unsettled,
        .lost = u->lost,
        .adopted = st.adopted,
        .crashed = st.crashed,
        .damaged = st.damaged,
        .sync_errors = st.sync_errors,
    };
}
