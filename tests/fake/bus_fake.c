/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See bus_fake.h. One lock guards everything; one thread takes events off a queue and runs
 * callbacks without the lock.
 */
#include "bus_fake.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/buf.h"
#include "base/list.h"
#include "rt/bus.h"

struct bus_fake;
struct fake_pending;

/* --- in bus_fake_js.c and bus_fake_kv.c, which are included at the end */
static void fake_streams_free(struct bus_fake *f);
static void fake_buckets_free(struct bus_fake *f);
/* Puts a message into the stream that takes its subject, and answers p (may be NULL). */
static void fake_store(struct bus_fake *f, const char *subject, const char *id, struct str data,
                       struct fake_pending *p);

enum { FAKE_MAX_PAYLOAD = 1 << 20, FAKE_TICK_MS = 2, FAKE_SUBJECT = 256 };

struct bus_fake {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    pthread_t thread;
    bool stop, away, busy;
    char url[40];
    struct list_node buses, events, pending, streams, buckets;
    struct bus_sub *running;
    uint64_t next_id, turn;
    char lose[FAKE_SUBJECT];
    int lose_n;
};

struct bus {
    struct list_node node, subs;
    struct bus_fake *server;
    struct bus_options o;
    char *instance, *prefix;
    struct bus_stats stats;
};

struct bus_sub {
    struct list_node node;
    struct bus *bus;
    char subject[FAKE_SUBJECT], queue[FAKE_SUBJECT];
    bus_msg_fn fn;
    void *ctx;
    bool picked; /* while a message looks for its receivers */
};

/* A request, or a publish to a stream, that waits for its answer. */
struct fake_pending {
    struct list_node node;
    struct bus *bus;
    uint64_t id, deadline_ns;
    bus_reply_fn fn;
    bus_ack_fn ack_fn;
    void *ctx;
};

/* Something for the thread to do: exactly one of sub, done, state_of is set. */
struct fake_event {
    struct list_node node;
    struct bus_sub *sub;
    struct fake_pending *done;
    struct bus *state_of;
    enum err e;
    bool flag; /* dup of an acknowledgement; connected of a state */
    char subject[FAKE_SUBJECT], reply[FAKE_SUBJECT];
    struct buf data;
};

/* --- small things */

static uint64_t fake_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Waits for a change, at most a tick. Holding the lock. */
static void fake_wait(struct bus_fake *f)
{
    struct timespec t = clock_in_ms(FAKE_TICK_MS);
    pthread_cond_timedwait(&f->changed, &f->lock, &t);
}

static void fake_copy(char out[FAKE_SUBJECT], struct str s)
{
    ASSERT(str_copyz(out, FAKE_SUBJECT, s));
}

static void fake_fill(struct buf *b, struct str data)
{
    buf_init(b, FAKE_MAX_PAYLOAD);
    ASSERT(buf_append_str(b, data) == ERR_OK);
}

static bool fake_is_subject(const char *z, bool wildcards)
{
    struct str rest = str_of(z);
    if (rest.n == 0 || rest.n >= FAKE_SUBJECT) return false;
    while (rest.p != NULL) {
        struct str t = str_cut(&rest, '.');
        if (t.n == 0 || memchr(t.p, ' ', t.n) != NULL) return false;
        if (!wildcards && (str_eq(t, STR("*")) || str_eq(t, STR(">")))) return false;
    }
    return true;
}

static bool fake_matches(const char *pattern, const char *subject)
{
    struct str p = str_of(pattern), s = str_of(subject);
    while (p.p != NULL && s.p != NULL) {
        struct str want = str_cut(&p, '.'), have = str_cut(&s, '.');
        if (str_eq(want, STR(">"))) return true;
        if (!str_eq(want, STR("*")) && !str_eq(want, have)) return false;
    }
    return p.p == NULL && s.p == NULL;
}

static struct fake_event *fake_event_new(struct bus_fake *f)
{
    struct fake_event *ev = xcalloc(1, sizeof *ev);
    buf_init(&ev->data, FAKE_MAX_PAYLOAD);
    list_push_back(&f->events, &ev->node);
    pthread_cond_broadcast(&f->changed);
    return ev;
}

static void fake_complete(struct fake_pending *p, enum err e, struct str data, bool dup)
{
    struct fake_event *ev = fake_event_new(p->bus->server);
    list_remove(&p->node);
    ev->done = p;
    ev->e = e;
    ev->flag = dup;
    ASSERT(buf_append_str(&ev->data, data) == ERR_OK);
}

/* --- the thread */

static void fake_run(struct bus_fake *f, struct fake_event *ev)
{
    if (ev->sub != NULL) {
        const struct bus_msg m = { str_of(ev->subject), str_of(ev->reply), buf_str(&ev->data) };
        ev->sub->fn(ev->sub->ctx, &m);
    } else if (ev->done != NULL) {
        if (ev->done->fn != NULL)
            ev->done->fn(ev->done->ctx, ev->e, buf_str(&ev->data));
        else
            ev->done->ack_fn(ev->done->ctx, ev->e, ev->flag);
        free(ev->done);
    } else if (ev->state_of->o.on_state != NULL) {
        ev->state_of->o.on_state(ev->state_of->o.ctx, ev->flag, ev->flag ? "connected" : "away");
    }
    (void)f;
}

static void *fake_main(void *ctx)
{
    struct bus_fake *f = ctx;
    pthread_mutex_lock(&f->lock);
    while (!f->stop || !list_empty(&f->events)) {
        LIST_EACH_SAFE(n, &f->pending)
        {
            struct fake_pending *p = LIST_ENTRY(n, struct fake_pending, node);
            if (clock_mono_ns(p->bus->o.clock) >= p->deadline_ns)
                fake_complete(p, ERR_TIMEOUT, STR_NULL, false);
        }
        struct list_node *n = list_pop_front(&f->events);
        if (n == NULL) {
            fake_wait(f);
            continue;
        }
        struct fake_event *ev = LIST_ENTRY(n, struct fake_event, node);
        f->running = ev->sub;
        f->busy = true;
        pthread_mutex_unlock(&f->lock);
        fake_run(f, ev);
        buf_done(&ev->data);
        free(ev);
        pthread_mutex_lock(&f->lock);
        f->running = NULL;
        f->busy = false;
        pthread_cond_broadcast(&f->changed);
    }
    pthread_mutex_unlock(&f->lock);
    return NULL;
}

/* --- the server */

struct bus_fake *bus_fake_new(void)
{
    struct bus_fake *f = xcalloc(1, sizeof *f);
    pthread_condattr_t mono;
    pthread_condattr_init(&mono);
    pthread_condattr_setclock(&mono, CLOCK_MONOTONIC);
    pthread_cond_init(&f->changed, &mono);
    pthread_condattr_destroy(&mono);
    pthread_mutex_init(&f->lock, NULL);
    list_init(&f->buses);
    list_init(&f->events);
    list_init(&f->pending);
    list_init(&f->streams);
    list_init(&f->buckets);
    snprintf(f->url, sizeof f->url, "fake:%" PRIxPTR, (uintptr_t)f);
    ASSERT(pthread_create(&f->thread, NULL, fake_main, f) == 0);
    return f;
}

void bus_fake_free(struct bus_fake *f)
{
    pthread_mutex_lock(&f->lock);
    ASSERT(list_empty(&f->buses));
    f->stop = true;
    pthread_cond_broadcast(&f->changed);
    pthread_mutex_unlock(&f->lock);
    pthread_join(f->thread, NULL);
    fake_streams_free(f);
    fake_buckets_free(f);
    pthread_mutex_destroy(&f->lock);
    pthread_cond_destroy(&f->changed);
    free(f);
}

const char *bus_fake_url(const struct bus_fake *f)
{
    return f->url;
}

static void fake_tell_state(struct bus *b)
{
    struct fake_event *ev = fake_event_new(b->server);
    ev->state_of = b;
    ev->flag = !b->server->away;
}

void bus_fake_away(struct bus_fake *f, bool away)
{
    pthread_mutex_lock(&f->lock);
    if (f->away != away) {
        f->away = away;
        LIST_EACH_SAFE(n, &f->pending)
        fake_complete(LIST_ENTRY(n, struct fake_pending, node), ERR_UNAVAILABLE, STR_NULL, false);
        LIST_EACH(n, &f->buses)
        {
            struct bus *b = LIST_ENTRY(n, struct bus, node);
            if (!away) b->stats.reconnects++;
            fake_tell_state(b);
        }
    }
    pthread_mutex_unlock(&f->lock);
}

void bus_fake_lose(struct bus_fake *f, const char *subject, int n)
{
    pthread_mutex_lock(&f->lock);
    fake_copy(f->lose, str_of(subject));
    f->lose_n = n;
    pthread_mutex_unlock(&f->lock);
}

void bus_fake_settle(struct bus_fake *f)
{
    pthread_mutex_lock(&f->lock);
    while (!list_empty(&f->events) || f->busy) fake_wait(f);
    pthread_mutex_unlock(&f->lock);
}

/* --- life of a bus */

struct bus *bus_new(const struct bus_options *o)
{
    uint64_t address = 0;
    ASSERT(str_starts(str_of(o->url), STR("fake:")));
    ASSERT(str_hex_to_u64(str_of(o->url + 5), &address) == ERR_OK);
    struct bus *b = xcalloc(1, sizeof *b);
    b->server = (struct bus_fake *)(uintptr_t)address;
    b->o = *o;
    b->instance = xstrdup(o->instance != NULL ? o->instance : "fake-1");
    b->prefix = xstrdup(o->prefix != NULL ? o->prefix : "aigw");
    list_init(&b->subs);
    pthread_mutex_lock(&b->server->lock);
    list_push_back(&b->server->buses, &b->node);
    if (!b->server->away) fake_tell_state(b);
    pthread_mutex_unlock(&b->server->lock);
    return b;
}

void bus_drain(struct bus *b, int timeout_ms)
{
    uint64_t end = fake_now() + (uint64_t)timeout_ms * 1000000;
    struct bus_fake *f = b->server;
    pthread_mutex_lock(&f->lock);
    while ((!list_empty(&f->events) || f->busy || !list_empty(&f->pending)) && fake_now() < end)
        fake_wait(f);
    pthread_mutex_unlock(&f->lock);
}

void bus_free(struct bus *b)
{
    if (b == NULL) return;
    struct bus_fake *f = b->server;
    pthread_mutex_lock(&f->lock);
    list_remove(&b->node);
    LIST_EACH_SAFE(n, &f->pending)
    {
        struct fake_pending *p = LIST_ENTRY(n, struct fake_pending, node);
        if (p->bus == b) fake_complete(p, ERR_UNAVAILABLE, STR_NULL, false);
    }
    pthread_mutex_unlock(&f->lock);
    bus_fake_settle(f);
    while (!list_empty(&b->subs)) bus_unsubscribe(LIST_ENTRY(b->subs.next, struct bus_sub, node));
    free(b->instance);
    free(b->prefix);
    free(b);
}

bool bus_is_connected(const struct bus *b)
{
    pthread_mutex_lock(&b->server->lock);
    bool yes = !b->server->away;
    pthread_mutex_unlock(&b->server->lock);
    return yes;
}

const char *bus_instance(const struct bus *b)
{
    return b->instance;
}

size_t bus_payload_max(const struct bus *b)
{
    (void)b;
    return 1 << 20;
}

const char *bus_prefix(const struct bus *b)
{
    return b->prefix;
}

void bus_stats(const struct bus *b, struct bus_stats *ret)
{
    pthread_mutex_lock(&b->server->lock);
    *ret = b->stats;
    pthread_mutex_unlock(&b->server->lock);
}

/* --- messages */

enum err bus_subscribe(struct bus *b, const char *subject, const char *queue, bus_msg_fn fn,
                       void *ctx, struct bus_sub **ret)
{
    if (!fake_is_subject(subject, true)) return ERR_INVALID;
    struct bus_sub *s = xcalloc(1, sizeof *s);
    s->bus = b;
    s->fn = fn;
    s->ctx = ctx;
    fake_copy(s->subject, str_of(subject));
    fake_copy(s->queue, str_of(queue));
    pthread_mutex_lock(&b->server->lock);
    list_push_back(&b->subs, &s->node);
    pthread_mutex_unlock(&b->server->lock);
    *ret = s;
    return ERR_OK;
}

void bus_unsubscribe(struct bus_sub *s)
{
    if (s == NULL) return;
    struct bus_fake *f = s->bus->server;
    pthread_mutex_lock(&f->lock);
    list_remove(&s->node);
    LIST_EACH_SAFE(n, &f->events)
    {
        struct fake_event *ev = LIST_ENTRY(n, struct fake_event, node);
        if (ev->sub != s) continue;
        list_remove(n);
        buf_done(&ev->data);
        free(ev);
    }
    while (f->running == s && !pthread_equal(pthread_self(), f->thread)) fake_wait(f);
    pthread_mutex_unlock(&f->lock);
    free(s);
}

enum err bus_serve(struct bus *b, const struct bus_endpoint *e, bus_msg_fn fn, void *ctx,
                   struct bus_sub **ret)
{
    return bus_subscribe(b, e->subject, e->queue, fn, ctx, ret);
}

void bus_endpoint_error(struct bus_sub *s, const char *why)
{
    (void)s;
    (void)why;
}

void bus_endpoint_time(struct bus_sub *s, uint64_t ns)
{
    (void)s;
    (void)ns;
}

static void fake_send(struct bus_sub *s, const char *subject, const char *reply, struct str data)
{
    struct fake_event *ev = fake_event_new(s->bus->server);
    s->bus->stats.in_msgs++;
    s->bus->stats.in_bytes += data.n;
    ev->sub = s;
    fake_copy(ev->subject, str_of(subject));
    fake_copy(ev->reply, str_of(reply));
    ASSERT(buf_append_str(&ev->data, data) == ERR_OK);
}

/* To each plain subscriber, and to one of each queue group, in turn. Returns to how many. */
static int fake_deliver(struct bus_fake *f, const char *subject, const char *reply, struct str data)
{
    struct bus_sub *hits[256];
    int n_hits = 0, sent = 0;
    LIST_EACH(bn, &f->buses)
    LIST_EACH(n, &LIST_ENTRY(bn, struct bus, node)->subs)
    {
        struct bus_sub *s = LIST_ENTRY(n, struct bus_sub, node);
        s->picked = false;
        if (!fake_matches(s->subject, subject)) continue;
        ASSERT(n_hits < (int)ARRAY_LEN(hits));
        hits[n_hits++] = s;
    }
    f->turn++;
    for (int i = 0; i < n_hits; i++) {
        struct bus_sub *group[256];
        int members = 0;
        if (hits[i]->picked) continue;
        for (int k = i; k < n_hits; k++) {
            if (k != i &&
                (hits[i]->queue[0] == '\0' || !str_eqz(str_of(hits[k]->queue), hits[i]->queue)))
                continue;
            hits[k]->picked = true;
            group[members++] = hits[k];
        }
        fake_send(group[f->turn % (uint64_t)members], subject, reply, data);
        sent++;
    }
    return sent;
}

/* What all ways of sending share. Holding the lock; *ret_lost: it goes nowhere. */
static enum err fake_check(struct bus *b, const char *subject, struct str data, bool *ret_lost)
{
    struct bus_fake *f = b->server;
    if (!fake_is_subject(subject, false)) return ERR_INVALID;
    if (f->away) return ERR_UNAVAILABLE;
    if (data.n > FAKE_MAX_PAYLOAD) return ERR_LIMIT;
    b->stats.out_msgs++;
    b->stats.out_bytes += data.n;
    *ret_lost = f->lose_n > 0 && str_eqz(str_of(subject), f->lose);
    if (*ret_lost) f->lose_n--;
    return ERR_OK;
}

enum err bus_publish(struct bus *b, const char *subject, struct str data)
{
    bool lost;
    struct bus_fake *f = b->server;
    pthread_mutex_lock(&f->lock);
    enum err e = fake_check(b, subject, data, &lost);
    if (e == ERR_OK && !lost) {
        fake_deliver(f, subject, "", data);
        fake_store(f, subject, NULL, data, NULL);
    }
    pthread_mutex_unlock(&f->lock);
    return e;
}

enum err bus_reply(struct bus *b, struct str reply_to, struct str data)
{
    static const struct str inbox = { "_INBOX.", 7 };
    bool lost;
    uint64_t id;
    char subject[FAKE_SUBJECT];
    if (reply_to.n == 0) return ERR_OK;
    if (!str_starts(reply_to, inbox) ||
        str_hex_to_u64(str_n(reply_to.p + inbox.n, reply_to.n - inbox.n), &id) != ERR_OK)
        return ERR_INVALID;
    fake_copy(subject, reply_to);
    pthread_mutex_lock(&b->server->lock);
    enum err e = fake_check(b, subject, data, &lost);
    if (e == ERR_OK && !lost) LIST_EACH_SAFE(n, &b->server->pending)
        {
            struct fake_pending *p = LIST_ENTRY(n, struct fake_pending, node);
            if (p->id == id) fake_complete(p, ERR_OK, data, false);
        }
    pthread_mutex_unlock(&b->server->lock);
    return e;
}

static struct fake_pending *fake_pending_new(struct bus *b, int timeout_ms, void *ctx)
{
    struct fake_pending *p = xcalloc(1, sizeof *p);
    p->bus = b;
    p->id = ++b->server->next_id;
    p->deadline_ns = clock_mono_ns(b->o.clock) + (uint64_t)timeout_ms * 1000000;
    p->ctx = ctx;
    list_push_back(&b->server->pending, &p->node);
    return p;
}

enum err bus_request(struct bus *b, const char *subject, struct str data, int timeout_ms,
                     bus_reply_fn fn, void *ctx)
{
    bool lost;
    char reply[FAKE_SUBJECT];
    pthread_mutex_lock(&b->server->lock);
    enum err e = fake_check(b, subject, data, &lost);
    if (e == ERR_OK) {
        struct fake_pending *p = fake_pending_new(b, timeout_ms, ctx);
        p->fn = fn;
        snprintf(reply, sizeof reply, "_INBOX.%" PRIx64, p->id);
        if (!lost && fake_deliver(b->server, subject, reply, data) == 0)
            fake_complete(p, ERR_UNAVAILABLE, STR_NULL, false);
    }
    pthread_mutex_unlock(&b->server->lock);
    return e;
}

struct fake_waiter {
    struct bus_fake *server;
    struct buf *out;
    enum err e;
    bool done;
};

static void fake_waited(void *ctx, enum err e, struct str data)
{
    struct fake_waiter *w = ctx;
    pthread_mutex_lock(&w->server->lock);
    w->e = e == ERR_OK ? buf_append_str(w->out, data) : e;
    w->done = true;
    pthread_cond_broadcast(&w->server->changed);
    pthread_mutex_unlock(&w->server->lock);
}

enum err bus_request_wait(struct bus *b, const char *subject, struct str data, int timeout_ms,
                          struct buf *ret)
{
    struct fake_waiter w = { b->server, ret, ERR_OK, false };
    ASSERT(!pthread_equal(pthread_self(), b->server->thread));
    enum err e = bus_request(b, subject, data, timeout_ms, fake_waited, &w);
    if (e != ERR_OK) return e;
    pthread_mutex_lock(&b->server->lock);
    while (!w.done) fake_wait(b->server);
    pthread_mutex_unlock(&b->server->lock);
    return w.e;
}

#include "bus_fake_js.c"
#include "bus_fake_kv.c"
