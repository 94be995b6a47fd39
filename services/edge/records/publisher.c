/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The publisher: see publisher.h. A message of the window is FILLING while the publisher's thread
 * adds records, FLYING while the bus has it, WAITING between a failure and the next attempt, else
 * FREE. Its state is under the lock; what it holds belongs to the bus's thread while it flies, else
 * to the publisher's.
 */
#include "publisher.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/uuid.h"
#include "proto/subjects.h"
#include "proto/usage_batch.h"

enum {
    WINDOW = 256,   /* messages under way */
    OPEN_MAX = 128, /* messages, each of a namespace, that are being filled */
    PUBLISH_TIMEOUT_MS = 5000,
    POLL_MS = 20, /* how soon it sees a new record: nobody wakes it on the hot path */
    BACKOFF_MIN_MS = 100,
    BACKOFF_MAX_MS = 5000,
    SLUG_CAP = 64
};

enum state { FREE, FILLING, FLYING, WAITING };

struct message {
    struct publisher *publisher;
    enum state state;
    char slug[SLUG_CAP];
    char id[UUID_LEN + 1]; /* of a batch; "" until it is sent */
    size_t slug_n, bytes;
    unsigned failures;
    uint64_t retry_ns; /* of WAITING */
    size_t n;
    struct spool_ref refs[USAGE_BATCH_RECORDS];
};

/* Its text is written while records come, each read in the spool once: behind room for the head of
 * a batch, which a record that stays alone does not need. */
struct filling {
    struct message *message;
    struct buf text;
    enum err e; /* whether the text is of use */
};

struct publisher {
    struct publisher_options o;
    pthread_t thread;

    pthread_mutex_t lock;
    pthread_cond_t room;   /* for the thread: there is room again, or the end */
    pthread_cond_t landed; /* for who waits: a message was answered */
    struct message messages[WINDOW];
    struct message *free[WINDOW];
    size_t free_n, flying, waiting; /* messages of each state */
    unsigned waiters;
    bool stopping;
    bool full; /* there is more to send than there is room for */

    /* The thread's own. */
    struct filling filling[OPEN_MAX]; /* oldest first */
    uint64_t keys[OPEN_MAX];          /* hash_tail() of their namespaces */
    size_t filling_n;
    size_t head_n;      /* of a batch: as long for each */
    size_t known_free;  /* so many messages at least */
    size_t payload_max; /* what the server takes */
    struct buf text;    /* of others */

    _Atomic uint64_t published, duplicates, retries, sent;
};

/* --- messages; the lock is held --- */

/* When a message that failed goes again: doubling, with a random part, so that edges do not come
 * together. */
static uint64_t retry_at(struct publisher *p, unsigned failures)
{
    uint64_t ms = BACKOFF_MIN_MS;
    for (unsigned i = 1; i < failures && ms < BACKOFF_MAX_MS; i++) ms *= 2;
    ms = MIN(ms, (uint64_t)BACKOFF_MAX_MS);
    /* Not the caller's generator: this runs on threads of the bus too. */
    ms += rng_below(rng_system(), ms / 2 + 1);
    return clock_mono_ns(p->o.clock) + ms * 1000000u;
}

static void failed(struct publisher *p, struct message *m)
{
    m->failures++;
    m->state = WAITING;
    m->retry_ns = retry_at(p, m->failures);
    p->waiting++;
    p->retries++;
}

/* The thread is not woken for an answer unless it waits for room: it looks in time by itself. */
static void landed(struct publisher *p)
{
    p->flying--;
    if (p->waiters > 0) (void)pthread_cond_broadcast(&p->landed);
    if (!p->full || p->flying > WINDOW / 2) return;
    p->full = false;
    (void)pthread_cond_signal(&p->room);
}

/* --- sending --- */

/* The record of a request whose edge died, as far as it is known: from its opening and its
 * progress. */
static enum err put_crashed(struct publisher *p, const struct spool_item *i)
{
    struct usage_record r;
    struct arena arena;
    arena_init(&arena, 64 * 1024);
    enum err e = usage_decode(i->text, &arena, &r, NULL);
    if (e == ERR_OK) {
        r.from = str_of(p->o.instance);
        r.outcome = USAGE_CRASHED;
        if (i->progress.duration_ms > 0) {
            r.output_tokens = i->progress.output_tokens;
            r.duration_ms = i->progress.duration_ms;
            r.cost.nano = i->progress.cost_nano;
        }
        if (r.output_tokens > 0 && r.output_source == USAGE_SOURCE_NONE)
            r.output_source = USAGE_SOURCE_ESTIMATE;
        e = usage_encode(&r, &p->text);
    }
    arena_done(&arena);
    /* Then it goes as it is: the ledger's reader says what is wrong with it. */
    return e == ERR_OK ? ERR_OK : buf_append_str(&p->text, i->text);
}

/* The head of a batch, in p->text. */
static enum err write_head(struct publisher *p, const char *id)
{
    buf_clear(&p->text);
    return usage_batch_begin(&p->text, str_of(id), clock_wall_ms(p->o.clock),
                             str_of(p->o.instance));
}

static enum err write_batch(struct publisher *p, struct message *m)
{
    struct spool_item item;
    enum err e = write_head(p, m->id);
    for (size_t i = 0; i < m->n && e == ERR_OK; i++) {
        spool_look(p->o.spool, &m->refs[i], &item);
        e = usage_batch_add(&p->text, item.head, item.text);
    }
    return e == ERR_OK ? usage_batch_end(&p->text) : e;
}

/* Writes the message's text. */
static enum err write_text(struct publisher *p, struct message *m)
{
    struct spool_item item;
    buf_clear(&p->text);
    if (m->n > 1) return write_batch(p, m);
    spool_look(p->o.spool, &m->refs[0], &item);
    if (item.crashed) return put_crashed(p, &item);
    enum err e = buf_append_str(&p->text, item.head);
    return e == ERR_OK ? buf_append_str(&p->text, item.text) : e;
}

/* On a thread of the bus. */
static void on_ack(void *ctx, enum err e, bool dup)
{
    struct message *m = ctx;
    struct publisher *p = m->publisher;
    if (e == ERR_OK) spool_done(p->o.spool, m->refs, m->n);
    (void)pthread_mutex_lock(&p->lock);
    if (e == ERR_OK) {
        m->state = FREE;
        p->free[p->free_n++] = m;
        p->published += m->n;
        p->sent++;
        if (dup) p->duplicates += m->n;
    } else {
        failed(p, m);
    }
    landed(p);
    (void)pthread_mutex_unlock(&p->lock);
}

/* What the stream knows a message by. */
static void id_of(struct publisher *p, const struct message *m, char id[UUID_LEN + 1])
{
    struct spool_item item;
    if (m->n > 1) {
        memcpy(id, m->id, UUID_LEN + 1);
        return;
    }
    spool_look(p->o.spool, &m->refs[0], &item);
    (void)str_copyz(id, UUID_LEN + 1, item.id);
}

/* Sends a message with its text, or says that it failed. Not under the lock: an answer may come
 * before we are back. */
static void send_text(struct publisher *p, struct message *m, struct str text, enum err e)
{
    char subject[SUBJECT_LEN], id[UUID_LEN + 1];
    subject_make(bus_prefix(p->o.bus), SUBJECT_USAGE, m->slug, subject);
    id_of(p, m, id);
    (void)pthread_mutex_lock(&p->lock);
    m->state = FLYING;
    p->flying++;
    (void)pthread_mutex_unlock(&p->lock);
    if (e == ERR_OK) e = bus_js_publish(p->o.bus, subject, id, text, PUBLISH_TIMEOUT_MS, on_ack, m);
    if (e == ERR_OK) return;
    (void)pthread_mutex_lock(&p->lock);
    failed(p, m);
    landed(p);
    (void)pthread_mutex_unlock(&p->lock);
}

static void send(struct publisher *p, struct message *m)
{
    enum err e = write_text(p, m);
    send_text(p, m, buf_str(&p->text), e);
}

/* --- filling --- */

/* Messages are freed by others, and taken by this thread alone. */
static bool has_room(struct publisher *p)
{
    if (p->known_free > 0) return true;
    (void)pthread_mutex_lock(&p->lock);
    p->known_free = p->free_n;
    (void)pthread_mutex_unlock(&p->lock);
    return p->known_free > 0;
}

/* A free message for records of a namespace; there is one. */
static struct message *begin(struct publisher *p, struct str slug)
{
    (void)pthread_mutex_lock(&p->lock);
    struct message *m = p->free[--p->free_n];
    m->state = FILLING;
    (void)pthread_mutex_unlock(&p->lock);
    p->known_free--;
    (void)str_copyz(m->slug, sizeof m->slug, slug);
    m->slug_n = slug.n;
    m->id[0] = '\0';
    m->n = m->bytes = 0;
    m->failures = 0;
    return m;
}

static void add(struct message *m, const struct spool_item *item)
{
    m->refs[m->n++] = item->ref;
    m->bytes += item->head.n + item->text.n;
}

static void begin_filling(struct publisher *p, struct filling *f, struct str slug)
{
    char *room;
    f->message = begin(p, slug);
    buf_clear(&f->text);
    f->e = buf_reserve(&f->text, p->head_n, &room);
    if (f->e != ERR_OK) return;
    memset(room, '\n', p->head_n); /* what comes first stands behind one */
    f->text.len = p->head_n;
}

/* Puts a batch's head where room is left for it, and its end. */
static enum err end_filling(struct publisher *p, struct filling *f)
{
    enum err e = write_head(p, f->message->id);
    if (e != ERR_OK) return e;
    if (p->text.len != p->head_n) return ERR_LIMIT; /* then it is written anew */
    memcpy(f->text.data, p->text.data, p->head_n);
    return usage_batch_end(&f->text);
}

static void send_filling(struct publisher *p, size_t i)
{
    struct filling f = p->filling[i];
    size_t after = --p->filling_n - i, head_n = 0;
    memmove(p->filling + i, p->filling + i + 1, after * sizeof f);
    memmove(p->keys + i, p->keys + i + 1, after * sizeof *p->keys);
    if (f.message->n == 1) {
        head_n = p->head_n;
    } else {
        uuid_v7(p->o.clock, rng_system(), f.message->id);
        if (f.e == ERR_OK) f.e = end_filling(p, &f);
    }
    struct str text = f.e == ERR_OK ? str_n(f.text.data + head_n, f.text.len - head_n) : STR_NULL;
    send_text(p, f.message, text, f.e);
    p->filling[p->filling_n] = f; /* its memory is that of the next */
}

static bool fits(const struct publisher *p, size_t n, size_t bytes)
{
    return usage_batch_fits(n, bytes) && bytes + 2 * n + USAGE_BATCH_HEAD <= p->payload_max;
}

/* The message that is being filled for a namespace, or filling_n. */
static size_t find_filling(const struct publisher *p, uint64_t key, struct str slug)
{
    for (size_t i = 0; i < p->filling_n; i++) {
        const struct message *m = p->filling[i].message;
        if (p->keys[i] == key && str_eq(slug, str_n(m->slug, m->slug_n))) return i;
    }
    return p->filling_n;
}

static void put(struct publisher *p, const struct spool_item *item)
{
    /* The name may come from a dead edge's disk: it is input. */
    struct str slug = str_is_slug(item->name) ? item->name : STR(USAGE_NO_NAMESPACE);
    size_t bytes = item->head.n + item->text.n;
    if (item->adopted || !fits(p, 1, bytes)) {
        struct message *m = begin(p, slug);
        add(m, item);
        send(p, m);
        return;
    }
    uint64_t key = hash_tail(slug.p, slug.n);
    size_t i = find_filling(p, key, slug);
    if (i < p->filling_n &&
        !fits(p, p->filling[i].message->n + 1, p->filling[i].message->bytes + bytes)) {
        send_filling(p, i);
        i = p->filling_n;
    }
    if (i == p->filling_n) {
        if (p->filling_n == OPEN_MAX) send_filling(p, 0);
        i = p->filling_n++;
        p->keys[i] = key;
        begin_filling(p, &p->filling[i], slug);
    }
    struct filling *f = &p->filling[i];
    add(f->message, item);
    if (f->e == ERR_OK) f->e = usage_batch_add(&f->text, item->head, item->text);
}

/* A message that goes again now; *from is where to look on. */
static struct message *take_due(struct publisher *p, size_t *from, uint64_t now)
{
    struct message *m = NULL;
    (void)pthread_mutex_lock(&p->lock);
    for (; p->waiting > 0 && *from < WINDOW && m == NULL; (*from)++)
        if (p->messages[*from].state == WAITING && p->messages[*from].retry_ns <= now)
            m = &p->messages[*from];
    if (m != NULL) p->waiting--;
    (void)pthread_mutex_unlock(&p->lock);
    return m;
}

/* Sends what is due and what is new, as far as there is room. */
static void send_all(struct publisher *p)
{
    uint64_t now = clock_mono_ns(p->o.clock);
    struct spool_item item;
    struct message *m;
    p->payload_max = bus_payload_max(p->o.bus);
    for (size_t from = 0; (m = take_due(p, &from, now)) != NULL;) send(p, m);
    while (has_room(p) && spool_next(p->o.spool, &item) == ERR_OK) put(p, &item);
    while (p->filling_n > 0) send_filling(p, p->filling_n - 1);
}

/* --- the thread --- */

/* The lock is held. */
static void wait_for(struct publisher *p, pthread_cond_t *c, unsigned ms)
{
    struct timespec until = clock_in_ms(ms);
    (void)pthread_cond_timedwait(c, &p->lock, &until);
}

static void *run(void *arg)
{
    struct publisher *p = arg;
    (void)pthread_setname_np(pthread_self(), "usage-publish");
    /* Not ahead of the workers: what it has waits, and goes together. */
    (void)pthread_setschedparam(pthread_self(), SCHED_BATCH, &(struct sched_param){ 0 });
    for (;;) {
        if (bus_is_connected(p->o.bus)) send_all(p);
        (void)pthread_mutex_lock(&p->lock);
        bool stopping = p->stopping;
        p->full = p->free_n == 0 && p->flying > WINDOW / 2;
        if (!stopping) wait_for(p, &p->room, POLL_MS);
        (void)pthread_mutex_unlock(&p->lock);
        if (stopping) return NULL;
    }
}

/* --- life --- */

static void free_all(struct publisher *p)
{
    for (size_t i = 0; i < OPEN_MAX; i++) buf_done(&p->filling[i].text);
    buf_done(&p->text);
    (void)pthread_cond_destroy(&p->room);
    (void)pthread_cond_destroy(&p->landed);
    (void)pthread_mutex_destroy(&p->lock);
    free(p);
}

enum err publisher_new(const struct publisher_options *o, struct publisher **ret)
{
    pthread_condattr_t attr;
    struct publisher *p = xcalloc(1, sizeof *p);
    p->o = *o;
    (void)pthread_mutex_init(&p->lock, NULL);
    (void)pthread_condattr_init(&attr);
    (void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&p->room, &attr);
    (void)pthread_cond_init(&p->landed, &attr);
    (void)pthread_condattr_destroy(&attr);
    buf_init(&p->text, USAGE_BATCH_MAX_BYTES);
    for (size_t i = 0; i < OPEN_MAX; i++) buf_init(&p->filling[i].text, USAGE_BATCH_MAX_BYTES);
    for (size_t i = 0; i < WINDOW; i++) {
        p->messages[i].publisher = p;
        p->free[p->free_n++] = &p->messages[WINDOW - 1 - i];
    }
    enum err e = write_head(p, "00000000-0000-7000-8000-000000000000");
    p->head_n = p->text.len;
    if (e == ERR_OK && pthread_create(&p->thread, NULL, run, p) != 0) e = ERR_IO;
    if (e != ERR_OK) {
        free_all(p);
        return e;
    }
    *ret = p;
    return ERR_OK;
}

void publisher_free(struct publisher *p)
{
    if (p == NULL) return;
    (void)pthread_mutex_lock(&p->lock);
    p->stopping = true;
    (void)pthread_cond_signal(&p->room);
    (void)pthread_mutex_unlock(&p->lock);
    (void)pthread_join(p->thread, NULL);
    /* What flies comes back: with an answer, or when its time is over. */
    (void)pthread_mutex_lock(&p->lock);
    p->waiters++;
    while (p->flying > 0) wait_for(p, &p->landed, POLL_MS);
    (void)pthread_mutex_unlock(&p->lock);
    free_all(p);
}

void publisher_wait(struct publisher *p, unsigned ms)
{
    (void)pthread_mutex_lock(&p->lock);
    p->waiters++;
    wait_for(p, &p->landed, ms);
    p->waiters--;
    (void)pthread_mutex_unlock(&p->lock);
}

void publisher_stats(struct publisher *p, struct publisher_stats *ret)
{
    *ret = (struct publisher_stats){ .published = p->published,
                                     .duplicates = p->duplicates,
                                     .retries = p->retries,
                                     .messages = p->sent };
}
