/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The limiter: the lease table, its messages, and the thread that wakes up when a lease is due or a
 * wait is over.
 *
 * A batch lives from lease_collect() until the reply (bus thread), or the failure to send it, which
 * is handed to the thread so that limiter_admit() never calls back by itself. When half of the
 * time-out is over without a reply, and somebody waits for it, the thread sends the same message a
 * second time: one that is lost does not cost the requests their wait. The first reply counts.
 */
#include <stdlib.h>
#include <unistd.h>

#include "limiter_impl.h"

enum { DEFAULT_COUNTERS = 65536, MESSAGE_BYTES = 128 * 1024 };

struct sent {
    struct limiter *limiter;
    struct sent *next; /* among the failed */
    struct lease_batch batch;
    struct buf text;
    /* guarded by the limiter's lock */
    struct list_node node; /* in `once` */
    bool is_once;          /* it is there */
    bool answered;         /* the batch goes back, or went */
    int replies;           /* that are still to come */
    int refs;              /* the same, and who is at it */
};

/* --- messages --- */

static void kick(struct limiter *l)
{
    pthread_mutex_lock(&l->lock);
    l->kicked = true;
    pthread_cond_broadcast(&l->wake);
    pthread_mutex_unlock(&l->lock);
}

void limiter_kick_if_due(struct limiter *l)
{
    if (lease_due(l->table) < atomic_load(&l->sleeps_until)) kick(l);
}

static uint64_t half_ns(const struct limiter *l)
{
    return (uint64_t)l->o.ask_timeout_ms * 1000000 / 2;
}

static void drop(struct limiter *l, struct sent *s)
{
    pthread_mutex_lock(&l->lock);
    bool last = --s->refs == 0;
    if (last) {
        l->under_way--;
        if (atomic_load(&l->closing)) pthread_cond_broadcast(&l->wake);
    }
    pthread_mutex_unlock(&l->lock);
    if (!last) return;
    buf_done(&s->text);
    free(s);
}

/* A reply came, or will not. True for one: who gives the batch back. A failure does only when
 * nothing else is to come. */
static bool takes(struct limiter *l, struct sent *s, bool failure)
{
    pthread_mutex_lock(&l->lock);
    s->replies--;
    bool first = !s->answered && (!failure || s->replies == 0);
    if (first) {
        s->answered = true;
        if (s->is_once) list_remove(&s->node);
        s->is_once = false;
    }
    pthread_mutex_unlock(&l->lock);
    return first;
}

static void on_reply(void *ctx, enum err e, struct str data)
{
    struct sent *s = ctx;
    struct limiter *l = s->limiter;
    struct lease_reply r;
    struct list_node done;
    struct why why;
    list_init(&done);
    if (!takes(l, s, e != ERR_OK)) {
        drop(l, s);
        return;
    }
    if (e != ERR_OK) limiter_bump(&l->timeouts, 1);
    if (e == ERR_OK && (e = lease_reply_decode(data, &r, &why)) == ERR_OK) {
        if (lease_apply(l->table, limiter_now(l), &s->batch, &r, &done) != ERR_OK)
            limiter_bump(&l->errors, 1);
        lease_reply_done(&r);
    } else {
        if (e == ERR_INVALID || e == ERR_UNSUPPORTED) limiter_bump(&l->errors, 1);
        lease_fail(l->table, limiter_now(l), &s->batch, &done);
    }
    limiter_call_back(l, &done);
    limiter_flush(l);
    drop(l, s);
}

static enum err encode(struct limiter *l, struct sent *s, bool leaving)
{
    struct lease_op ops[LEASE_BATCH_OPS];
    struct lease_ask m = { .incarnation = str_of(l->incarnation),
                           .epoch = str_of(s->batch.epoch),
                           .revision = atomic_load(&l->revision),
                           .leaving = leaving,
                           .ops = ops,
                           .ops_n = s->batch.n };
    for (size_t i = 0; i < s->batch.n; i++) {
        const struct lease_batch_op *op = &s->batch.ops[i];
        ops[i] = (struct lease_op){ .kind = op->kind,
                                    .policy = op->policy,
                                    .key = op->key,
                                    .lease = str_of(op->lease),
                                    .known = op->known,
                                    .want = op->want,
                                    .ahead = op->ahead,
                                    .min = op->min,
                                    .spent = op->spent,
                                    .returned = op->returned,
                                    .debt = op->debt };
    }
    return lease_ask_encode(&m, l->o.clock, l->o.rng, l->instance, NULL, &s->text);
}

/* on_reply() comes once when this returns ERR_OK, and not otherwise. */
static enum err send(struct limiter *l, struct sent *s, uint64_t timeout_ns)
{
    int ms = (int)MAX(timeout_ns / 1000000, UINT64_C(1));
    limiter_bump(&l->messages, 1);
    return l->o.request != NULL
               ? l->o.request(l->o.request_ctx, buf_str(&s->text), ms, on_reply, s)
               : bus_request(l->o.bus, l->subject, buf_str(&s->text), ms, on_reply, s);
}

static void send_or_fail(struct limiter *l, struct sent *s, bool leaving)
{
    enum err e;
    buf_init(&s->text, MESSAGE_BYTES);
    s->answered = false;
    s->replies = 1;
    s->refs = 2; /* the reply's, and ours */
    e = encode(l, s, leaving);
    pthread_mutex_lock(&l->lock);
    l->under_way++;
    s->is_once = e == ERR_OK && !leaving;
    if (s->is_once) list_push_back(&l->once, &s->node);
    if (s->is_once && s->batch.asked_ns + half_ns(l) < atomic_load(&l->sleeps_until)) {
        l->kicked = true;
        pthread_cond_broadcast(&l->wake);
    }
    pthread_mutex_unlock(&l->lock);
    if (e == ERR_OK) e = send(l, s, 2 * half_ns(l));
    if (e != ERR_OK) {
        limiter_bump(&l->errors, 1);
        if (takes(l, s, true)) {
            pthread_mutex_lock(&l->lock);
            s->next = l->failed;
            l->failed = s;
            s->refs++;
            pthread_cond_broadcast(&l->wake);
            pthread_mutex_unlock(&l->lock);
        }
        drop(l, s); /* there will be no reply */
    }
    drop(l, s);
}

/* The oldest message that is to be sent again now, with a reference; NULL: none. */
static struct sent *next_to_repeat(struct limiter *l)
{
    struct sent *ret = NULL;
    uint64_t now = limiter_now(l);
    pthread_mutex_lock(&l->lock);
    while (ret == NULL && !list_empty(&l->once)) {
        struct sent *s = LIST_ENTRY(l->once.next, struct sent, node);
        if (now < s->batch.asked_ns + half_ns(l)) break;
        list_remove(&s->node);
        s->is_once = false;
        /* it has not gone back, and cannot while we hold the lock */
        if (!lease_is_awaited(l->table, &s->batch)) continue;
        s->replies++;
        s->refs += 2;
        ret = s;
    }
    pthread_mutex_unlock(&l->lock);
    return ret;
}

static void repeat(struct limiter *l)
{
    for (struct sent *s; (s = next_to_repeat(l)) != NULL;) {
        limiter_bump(&l->repeats, 1);
        /* what comes back is handed over as any reply: one that could not be sent as well */
        if (send(l, s, half_ns(l)) != ERR_OK) on_reply(s, ERR_UNAVAILABLE, STR_NULL);
        drop(l, s);
    }
}

void limiter_flush(struct limiter *l)
{
    struct sent *s = NULL;
    atomic_store(&l->again, true);
    while (atomic_load(&l->again) && !atomic_load(&l->closing) &&
           !atomic_exchange(&l->flushing, true)) {
        atomic_store(&l->again, false);
        while (lease_due(l->table) <= limiter_now(l)) {
            if (s == NULL) s = malloc(sizeof *s);
            if (s == NULL) break; /* no memory: the waiters' deadline decides */
            s->limiter = l;
            if (!lease_collect(l->table, limiter_now(l), &s->batch)) break;
            send_or_fail(l, s, false);
            s = NULL;
        }
        atomic_store(&l->flushing, false);
    }
    free(s);
    limiter_kick_if_due(l);
}

/* --- the thread --- */

static void fail_unsent(struct limiter *l, struct sent *s)
{
    struct list_node done;
    while (s != NULL) {
        struct sent *next = s->next;
        list_init(&done);
        lease_fail(l->table, limiter_now(l), &s->batch, &done);
        limiter_call_back(l, &done);
        drop(l, s);
        s = next;
    }
}

/* Waits until `at`, or until somebody wakes us. */
static void sleep_until(struct limiter *l, uint64_t at)
{
    uint64_t now = limiter_now(l);
    if (at <= now) return;
    if (at == UINT64_MAX) {
        pthread_cond_wait(&l->wake, &l->lock);
        return;
    }
    struct timespec ts = clock_in_ns(at - now);
    pthread_cond_timedwait(&l->wake, &l->lock, &ts);
}

static void *thread_main(void *ctx)
{
    struct limiter *l = ctx;
    struct list_node done;
    pthread_mutex_lock(&l->lock);
    while (!l->stop) {
        struct sent *failed = l->failed;
        l->failed = NULL;
        if (failed == NULL && !l->kicked) {
            atomic_store(&l->sleeps_until, UINT64_MAX);
            uint64_t due = atomic_load(&l->closing) ? UINT64_MAX : lease_due(l->table);
            if (!list_empty(&l->once))
                due = MIN(due,
                          LIST_ENTRY(l->once.next, struct sent, node)->batch.asked_ns + half_ns(l));
            atomic_store(&l->sleeps_until, due);
            sleep_until(l, due);
            atomic_store(&l->sleeps_until, 0);
        }
        l->kicked = false;
        pthread_mutex_unlock(&l->lock);
        fail_unsent(l, failed);
        list_init(&done);
        lease_expire(l->table, limiter_now(l), &done);
        limiter_call_back(l, &done);
        limiter_flush(l);
        repeat(l);
        pthread_mutex_lock(&l->lock);
    }
    pthread_mutex_unlock(&l->lock);
    return NULL;
}

/* --- the object --- */

static void make_cond(pthread_cond_t *c)
{
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(c, &attr);
    pthread_condattr_destroy(&attr);
}

struct limiter *limiter_new(const struct limiter_options *o)
{
    struct limiter *l = xcalloc(1, sizeof *l);
    l->o = *o;
    if (l->o.ask_timeout_ms == 0) l->o.ask_timeout_ms = LEASE_ASK_TIMEOUT_MS;
    (void)str_copyz(l->instance, sizeof l->instance, str_of(o->instance));
    uuid_v7(o->clock, o->rng, l->incarnation);
    subject_make(o->prefix, SUBJECT_POLICY_LEASE, NULL, l->subject);
    subject_make(o->prefix, SUBJECT_POLICY_REJECTED, NULL, l->rejected_subject);
    l->table = lease_table_new(&(struct lease_table_options){
        .instance = l->instance,
        .incarnation = l->incarnation,
        .max_counters = o->max_counters > 0 ? o->max_counters : DEFAULT_COUNTERS,
        .ask_timeout_ns = (uint64_t)l->o.ask_timeout_ms * UINT64_C(1000000) });
    pthread_mutex_init(&l->lock, NULL);
    pthread_mutex_init(&l->events_lock, NULL);
    list_init(&l->once);
    make_cond(&l->wake);
    limiter_log_open(l);
    if (pthread_create(&l->thread, NULL, thread_main, l) != 0) abort();
    return l;
}

static void wait_for_replies(struct limiter *l)
{
    pthread_mutex_lock(&l->lock);
    while (l->under_way > 0) pthread_cond_wait(&l->wake, &l->lock);
    pthread_mutex_unlock(&l->lock);
}

/* Gives everything back and says that we leave: best effort, the leases end anyway. */
static void leave(struct limiter *l)
{
    for (bool more = true; more;) {
        struct sent *s = xcalloc(1, sizeof *s);
        s->limiter = l;
        more = lease_collect_all(l->table, limiter_now(l), &s->batch);
        send_or_fail(l, s, !more); /* the last one is empty but for its farewell */
    }
    wait_for_replies(l);
}

void limiter_free(struct limiter *l)
{
    if (l == NULL) return;
    atomic_store(&l->closing, true);
    wait_for_replies(l);
    leave(l);
    pthread_mutex_lock(&l->lock);
    l->stop = true;
    pthread_cond_broadcast(&l->wake);
    pthread_mutex_unlock(&l->lock);
    pthread_join(l->thread, NULL);
    lease_table_free(l->table);
    pthread_cond_destroy(&l->wake);
    pthread_mutex_destroy(&l->lock);
    pthread_mutex_destroy(&l->events_lock);
    if (l->log_fd >= 0) close(l->log_fd);
    free(l);
}

void limiter_set_revision(struct limiter *l, uint64_t revision)
{
    atomic_store(&l->revision, revision);
}

uint64_t limiter_share_among(struct limiter *l)
{
    return lease_share_among(l->table);
}

void limiter_stats(struct limiter *l, struct limiter_stats *ret)
{
    struct lease_stats s;
    lease_table_stats(l->table, &s);
    *ret = (struct limiter_stats){
        .admitted = l->admitted,
        .waited = l->waited,
        .refused = l->refused,
        .unavailable = l->unavailable,
        .allowed_unavailable = l->allowed,
        .shared = l->shared,
        .shadow_refused = l->shadow_refused,
        .messages = l->messages,
        .asks = s.asks,
        .renews = s.renews,
        .returns = s.returns,
        .settles = s.settles,
        .granted_units = s.granted_units,
        .timeouts = l->timeouts,
        .repeats = l->repeats,
        .errors = l->errors,
        .overflows = s.overflows,
        .debt = s.debt,
        .unpriced = l->unpriced,
        .extensions = l->extensions,
        .extensions_refused = l->extensions_refused,
        .counters = s.counters,
        .away = s.away,
    };
}
