/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Subscriptions: a list that outlives connections. Each has a thread of cnats that runs its
 * handler, behind a gate that unsubscribing shuts and waits at.
 */
#include <nats/nats.h>
#include <stdlib.h>

#include "rt/bus_impl.h"

static void sub_unref(struct bus_sub *s)
{
    if (atomic_fetch_sub(&s->refs, 1) != 1) return;
    pthread_mutex_destroy(&s->gate);
    pthread_cond_destroy(&s->idle);
    if (s->endpoint != NULL) free(s->endpoint->name);
    free(s->endpoint);
    free(s->subject);
    free(s->queue);
    free(s);
}

/* cnats will call this subscription no more. */
static void on_complete(void *ctx)
{
    struct bus_sub *s = ctx;
    pthread_mutex_lock(&s->gate);
    s->attached--;
    pthread_cond_broadcast(&s->idle);
    pthread_mutex_unlock(&s->gate);
    sub_unref(s);
}

static void call_handler(struct bus_sub *s, natsMsg *m)
{
    if (s->raw != NULL) {
        s->raw(s->ctx, m);
        return;
    }
    const struct bus_msg msg = { str_of(natsMsg_GetSubject(m)), str_of(natsMsg_GetReply(m)),
                                 str_n(natsMsg_GetData(m), (size_t)natsMsg_GetDataLength(m)) };
    s->fn(s->ctx, &msg);
}

static void on_msg(natsConnection *nc, natsSubscription *sub, natsMsg *m, void *ctx)
{
    struct bus_sub *s = ctx;
    (void)nc;
    (void)sub;
    pthread_mutex_lock(&s->gate);
    bool open = !s->closed;
    if (open) {
        s->running++;
        if (s->endpoint != NULL) s->endpoint->requests++;
    }
    pthread_mutex_unlock(&s->gate);
    if (open) {
        uint64_t start = s->endpoint != NULL ? clock_mono_ns(s->bus->o.clock) : 0;
        call_handler(s, m);
        pthread_mutex_lock(&s->gate);
        if (s->endpoint != NULL) s->endpoint->ns += clock_mono_ns(s->bus->o.clock) - start;
        if (--s->running == 0) pthread_cond_broadcast(&s->idle);
        pthread_mutex_unlock(&s->gate);
    }
    bus_msg_done(s->bus, m);
}

/* Subscribes on nc, which may be NULL. Holding b->lock. */
static enum err attach(struct bus *b, natsConnection *nc, struct bus_sub *s)
{
    if (nc == NULL || s->sub != NULL || (b->drained && s->raw == NULL)) return ERR_OK;
    atomic_fetch_add(&s->refs, 1);
    natsStatus st = s->queue != NULL ? natsConnection_QueueSubscribe(&s->sub, nc, s->subject,
                                                                     s->queue, on_msg, s)
                                     : natsConnection_Subscribe(&s->sub, nc, s->subject, on_msg, s);
    if (st != NATS_OK) {
        s->sub = NULL;
        sub_unref(s);
        /* A closed connection is replaced soon, and then it is tried again. */
        return bus_err(st) == ERR_UNAVAILABLE ? ERR_OK : bus_err(st);
    }
    (void)natsSubscription_SetPendingLimits(s->sub, BUS_PENDING_MSGS, BUS_PENDING_BYTES);
    pthread_mutex_lock(&s->gate);
    s->attached++;
    pthread_mutex_unlock(&s->gate);
    if (natsSubscription_SetOnCompleteCB(s->sub, on_complete, s) != NATS_OK) {
        /* The connection has just been closed, and nobody will say when cnats is done with s: the
         * reference stays. */
        pthread_mutex_lock(&s->gate);
        s->attached--;
        pthread_mutex_unlock(&s->gate);
    }
    return ERR_OK;
}

/* Frees the ended ones of before that count; all of them when it is NULL. Holding b->lock. */
static void free_ended(struct bus *b, const struct bus_stats *now)
{
    size_t kept = 0;
    for (size_t i = 0; i < b->ended_n; i++) {
        if (now != NULL && now->in_msgs <= b->ended[i].in_msgs)
            b->ended[kept++] = b->ended[i];
        else
            natsSubscription_Destroy(b->ended[i].sub);
    }
    b->ended_n = kept;
}

/*
 * The thread that reads from the server counts a message, looks its subscription up, lets go of the
 * table's lock and then takes the subscription's, holding no reference to it (until 3.6 of cnats):
 * one that is unsubscribed and freed in between is used after. So ours stays until the count has
 * moved on, by when that thread is done with what it was at, or the connection is closed.
 */
void bus_sub_end(struct bus *b, natsSubscription *sub)
{
    struct bus_stats now = { 0 };
    if (sub == NULL) return;
    (void)natsSubscription_Unsubscribe(sub);
    natsConnection *nc = bus_nc_get(b);
    if (nc == NULL) {
        natsSubscription_Destroy(sub);
    } else {
        bool known = bus_add_counts(nc, &now);
        free_ended(b, &now);
        if (b->ended_n == b->ended_cap) {
            b->ended_cap = MAX(b->ended_cap * 2, 16);
            b->ended = xrealloc(b->ended, b->ended_cap * sizeof *b->ended);
        }
        b->ended[b->ended_n++] = (struct ended_sub){ sub, known ? now.in_msgs : UINT64_MAX };
    }
    bus_nc_put(b);
}

void bus_sub_name(struct bus *b, const natsSubscription *sub, char *out, size_t cap)
{
    const char *name = "a subscription";
    pthread_mutex_lock(&b->lock);
    LIST_EACH(n, &b->subs)
    {
        struct bus_sub *s = LIST_ENTRY(n, struct bus_sub, node);
        if (sub != NULL && s->sub == sub) name = s->subject;
    }
    (void)str_copyz(out, cap, str_of(name));
    pthread_mutex_unlock(&b->lock);
}

/* Holding b->lock. */
static void detach(struct bus *b, struct bus_sub *s)
{
    int64_t dropped = 0;
    if (s->sub == NULL) return;
    if (natsSubscription_GetDropped(s->sub, &dropped) == NATS_OK && dropped > 0)
        b->past.dropped += (uint64_t)dropped;
    bus_sub_end(b, s->sub);
    s->sub = NULL;
}

void bus_subs_attach(struct bus *b, natsConnection *nc)
{
    LIST_EACH(n, &b->subs)
    {
        enum err e = attach(b, nc, LIST_ENTRY(n, struct bus_sub, node));
        (void)e; /* out of memory: it will get no messages until the next connection */
    }
}

void bus_subs_detach(struct bus *b)
{
    LIST_EACH(n, &b->subs) detach(b, LIST_ENTRY(n, struct bus_sub, node));
    free_ended(b, NULL); /* that thread has ended */
}

enum err bus_sub_new(struct bus *b, const char *subject, const char *queue, bus_msg_fn fn,
                     void (*raw)(void *ctx, natsMsg *msg), void *ctx, const char *endpoint,
                     struct bus_sub **ret)
{
    if (!bus_subject_is_valid(subject, true)) return ERR_INVALID;
    if (queue != NULL && !bus_subject_is_valid(queue, false)) return ERR_INVALID;
    struct bus_sub *s = xcalloc(1, sizeof *s);
    s->bus = b;
    s->subject = xstrdup(subject);
    s->queue = queue != NULL ? xstrdup(queue) : NULL;
    s->fn = fn;
    s->raw = raw;
    s->ctx = ctx;
    atomic_init(&s->refs, 1);
    pthread_mutex_init(&s->gate, NULL);
    pthread_cond_init(&s->idle, NULL);
    if (endpoint != NULL) {
        s->endpoint = xcalloc(1, sizeof *s->endpoint);
        s->endpoint->name = xstrdup(endpoint);
    }
    pthread_mutex_lock(&b->lock);
    enum err e = attach(b, bus_nc_get(b), s);
    bus_nc_put(b);
    if (e == ERR_OK) list_push_back(&b->subs, &s->node);
    pthread_mutex_unlock(&b->lock);
    if (e != ERR_OK) {
        sub_unref(s);
        return e;
    }
    *ret = s;
    return ERR_OK;
}

enum err bus_subscribe(struct bus *b, const char *subject, const char *queue, bus_msg_fn fn,
                       void *ctx, struct bus_sub **ret)
{
    return bus_sub_new(b, subject, queue, fn, NULL, ctx, NULL, ret);
}

void bus_unsubscribe(struct bus_sub *s)
{
    if (s == NULL) return;
    struct bus *b = s->bus;
    pthread_mutex_lock(&b->lock);
    list_remove(&s->node);
    detach(b, s);
    pthread_mutex_unlock(&b->lock);
    pthread_mutex_lock(&s->gate);
    s->closed = true;
    /* The end of cnats's thread too, so that threads do not pile up. */
    while (s->running > 0 || s->attached > 0) pthread_cond_wait(&s->idle, &s->gate);
    pthread_mutex_unlock(&s->gate);
    sub_unref(s);
}
