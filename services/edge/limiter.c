/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The limiter: the lease table, its messages, and the thread that wakes up when a lease is due or a
 * wait is over. What is not lock-free here is short: the table's own mutex, `lock` (the thread's
 * sleep, failed batches), `events_lock` (when a policy's refusal was published last). No lock is
 * held while calling out, and none is taken inside another.
 *
 * A batch lives from lease_collect() until the reply (bus thread), or the failure to send it, which
 * is handed to the thread so that limiter_admit() never calls back by itself.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

#include "admit_claims.h"
#include "base/uuid.h"
#include "proto/rejected_msg.h"
#include "proto/subjects.h"

enum {
    DEFAULT_COUNTERS = 65536,
    EVENT_SLOTS = 256,
    EVENT_MAX_BYTES = 4096,
    MESSAGE_BYTES = 128 * 1024
};
#define EVENT_EVERY_NS UINT64_C(1000000000)

struct sent {
    struct limiter *limiter;
    struct sent *next; /* among the failed */
    struct lease_batch batch;
};

struct event_slot {
    const void *policy;
    uint64_t at_ns, count;
};

struct limiter {
    struct limiter_options o;
    struct lease_table *table;
    char prefix[40], instance[LEASE_ID_MAX + 1], incarnation[UUID_LEN + 1];
    char subject[SUBJECT_LEN], rejected_subject[SUBJECT_LEN];
    _Atomic uint64_t revision;
    _Atomic bool flushing, again;

    _Atomic bool closing; /* nothing new is sent but what limiter_free() sends */

    pthread_t thread;
    pthread_mutex_t lock; /* guards the next four */
    pthread_cond_t wake;
    bool stop, kicked;
    struct sent *failed;
    size_t under_way; /* requests whose callback has not returned */
    /* Until when the thread sleeps; 0 while it is awake. It writes this before it reads
     * lease_due(), the others change the table before they read this: one of them notices. */
    _Atomic uint64_t sleeps_until;

    pthread_mutex_t events_lock;
    struct event_slot events[EVENT_SLOTS];

    _Atomic uint64_t admitted, waited, refused, unavailable, allowed, shared, shadow_refused;
    _Atomic uint64_t messages, timeouts, errors;
};

static uint64_t now_of(const struct limiter *l)
{
    return clock_mono_ns(l->o.clock);
}

static void bump(_Atomic uint64_t *counter, uint64_t by)
{
    if (by > 0) atomic_fetch_add_explicit(counter, by, memory_order_relaxed);
}

/* --- events --- */

/* How many refusals the event stands for; 0: not now. */
static uint64_t sample(struct limiter *l, const struct snap_policy *p, uint64_t now)
{
    struct event_slot *s = &l->events[((uintptr_t)p / sizeof *p) % EVENT_SLOTS];
    uint64_t count = 0;
    pthread_mutex_lock(&l->events_lock);
    if (s->policy != p) *s = (struct event_slot){ .policy = p };
    s->count++;
    if (s->at_ns == 0 || now - s->at_ns >= EVENT_EVERY_NS) {
        count = s->count;
        s->count = 0;
        s->at_ns = now;
    }
    pthread_mutex_unlock(&l->events_lock);
    return count;
}

static void publish(struct limiter *l, const struct snap_namespace *ns, const struct snap_policy *p,
                    const struct admit_outcome *o, bool shadow, uint64_t now)
{
    struct rejected_msg m = { .policy = p->id, .slug = p->slug, .ns = STR("-"), .shadow = shadow };
    struct buf b;
    if (l->o.bus == NULL || (m.count = sample(l, p, now)) == 0) return;
    if (ns != NULL) m.ns = ns->slug;
    m.dimension = str_of(
        admit_dimension_name(p->kind == SNAP_CONCURRENCY ? ADMIT_CONCURRENCY : ADMIT_REQUESTS));
    m.limit = m.used = p->limit;
    if (!shadow) {
        m.used = o->used;
        m.retry_ms = o->retry_after_ms;
        m.for_good = o->for_good;
        m.unavailable = o->verdict == ADMIT_UNAVAILABLE;
    }
    buf_init(&b, EVENT_MAX_BYTES);
    if (rejected_msg_encode(&m, l->o.clock, l->o.rng, l->instance, &b) == ERR_OK &&
        bus_publish(l->o.bus, l->rejected_subject, buf_str(&b)) != ERR_OK)
        bump(&l->errors, 1); /* an event that is lost is only that */
    buf_done(&b);
}

/* Fills the outcome of a ticket that was decided, and counts it. */
static void conclude(struct limiter *l, struct admit_ticket *t)
{
    const struct lease_waiter *w = &t->waiter;
    struct admit_outcome *o = &t->outcome;
    admit_conclude(w, o);
    t->held = o->verdict == ADMIT_OK;
    bump(&l->shadow_refused, w->shadow_refused);
    bump(&l->allowed, w->allowed);
    bump(&l->shared, w->shared);
    bump(o->verdict == ADMIT_OK        ? &l->admitted
         : o->verdict == ADMIT_REFUSED ? &l->refused
                                       : &l->unavailable,
         1);
    if (o->policy != NULL) publish(l, t->ns, o->policy, o, false, o->decided_ns);
    for (size_t i = 0; w->shadow_mask >> i != 0; i++)
        if ((w->shadow_mask >> i & 1) != 0)
            publish(l, t->ns, w->claims[i].owner, o, true, o->decided_ns);
}

static void call_back(struct limiter *l, struct list_node *done)
{
    for (struct list_node *n; (n = list_pop_front(done)) != NULL;) {
        struct lease_waiter *w = LIST_ENTRY(n, struct lease_waiter, node);
        struct admit_ticket *t = LIST_ENTRY(w, struct admit_ticket, waiter);
        conclude(l, t);
        t->done(t->done_ctx, t); /* t may be gone now */
    }
}

/* --- messages --- */

static void flush(struct limiter *l);

static void kick(struct limiter *l)
{
    pthread_mutex_lock(&l->lock);
    l->kicked = true;
    pthread_cond_broadcast(&l->wake);
    pthread_mutex_unlock(&l->lock);
}

/* Makes the thread look again when there is something to do before it would. */
static void kick_if_due(struct limiter *l)
{
    if (lease_due(l->table) < atomic_load(&l->sleeps_until)) kick(l);
}

static void is_back(struct limiter *l)
{
    pthread_mutex_lock(&l->lock);
    l->under_way--;
    pthread_cond_broadcast(&l->wake);
    pthread_mutex_unlock(&l->lock);
}

static void on_reply(void *ctx, enum err e, struct str data)
{
    struct sent *s = ctx;
    struct limiter *l = s->limiter;
    struct lease_reply r;
    struct list_node done;
    struct why why;
    list_init(&done);
    if (e != ERR_OK) bump(&l->timeouts, 1);
    if (e == ERR_OK && (e = lease_reply_decode(data, &r, &why)) == ERR_OK) {
        if (lease_apply(l->table, now_of(l), &s->batch, &r, &done) != ERR_OK) bump(&l->errors, 1);
        lease_reply_done(&r);
    } else {
        if (e == ERR_INVALID || e == ERR_UNSUPPORTED) bump(&l->errors, 1);
        lease_fail(l->table, now_of(l), &s->batch, &done);
    }
    call_back(l, &done);
    flush(l);
    free(s);
    is_back(l);
}

static enum err send(struct limiter *l, struct sent *s, bool leaving)
{
    struct lease_op ops[LEASE_BATCH_OPS];
    struct lease_ask m = { .incarnation = str_of(l->incarnation),
                           .epoch = str_of(s->batch.epoch),
                           .revision = atomic_load(&l->revision),
                           .leaving = leaving,
                           .ops = ops,
                           .ops_n = s->batch.n };
    struct buf b;
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
    buf_init(&b, MESSAGE_BYTES);
    enum err e = lease_ask_encode(&m, l->o.clock, l->o.rng, l->instance, NULL, &b);
    bump(&l->messages, 1);
    if (e == ERR_OK && l->o.request != NULL)
        e = l->o.request(l->o.request_ctx, buf_str(&b), l->o.ask_timeout_ms, on_reply, s);
    else if (e == ERR_OK)
        e = bus_request(l->o.bus, l->subject, buf_str(&b), l->o.ask_timeout_ms, on_reply, s);
    buf_done(&b);
    return e;
}

static void send_or_fail(struct limiter *l, struct sent *s, bool leaving)
{
    pthread_mutex_lock(&l->lock);
    l->under_way++;
    pthread_mutex_unlock(&l->lock);
    if (send(l, s, leaving) == ERR_OK) return;
    bump(&l->errors, 1);
    pthread_mutex_lock(&l->lock);
    s->next = l->failed;
    l->failed = s;
    pthread_cond_broadcast(&l->wake);
    pthread_mutex_unlock(&l->lock);
}

/* Sends what is due. When another thread is at it, that one goes round once more. */
static void flush(struct limiter *l)
{
    struct sent *s = NULL;
    atomic_store(&l->again, true);
    while (atomic_load(&l->again) && !atomic_load(&l->closing) &&
           !atomic_exchange(&l->flushing, true)) {
        atomic_store(&l->again, false);
        while (lease_due(l->table) <= now_of(l)) {
            if (s == NULL) s = malloc(sizeof *s);
            if (s == NULL) break; /* no memory: the waiters' deadline decides */
            s->limiter = l;
            if (!lease_collect(l->table, now_of(l), &s->batch)) break;
            send_or_fail(l, s, false);
            s = NULL;
        }
        atomic_store(&l->flushing, false);
    }
    free(s);
    kick_if_due(l);
}

/* --- the thread --- */

static void fail_unsent(struct limiter *l, struct sent *s)
{
    struct list_node done;
    while (s != NULL) {
        struct sent *next = s->next;
        list_init(&done);
        lease_fail(l->table, now_of(l), &s->batch, &done);
        call_back(l, &done);
        free(s);
        is_back(l);
        s = next;
    }
}

/* Waits until `at`, or until somebody wakes us. */
static void sleep_until(struct limiter *l, uint64_t at)
{
    uint64_t now = now_of(l);
    struct timespec ts;
    if (at <= now) return;
    if (at == UINT64_MAX) {
        pthread_cond_wait(&l->wake, &l->lock);
        return;
    }
    clock_gettime(CLOCK_MONOTONIC, &ts);
    uint64_t ns = (uint64_t)ts.tv_nsec + (at - now) % 1000000000;
    ts.tv_sec += (time_t)((at - now) / 1000000000 + ns / 1000000000);
    ts.tv_nsec = (long)(ns % 1000000000);
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
            atomic_store(&l->sleeps_until, due);
            sleep_until(l, due);
            atomic_store(&l->sleeps_until, 0);
        }
        l->kicked = false;
        pthread_mutex_unlock(&l->lock);
        fail_unsent(l, failed);
        list_init(&done);
        lease_expire(l->table, now_of(l), &done);
        call_back(l, &done);
        flush(l);
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
    make_cond(&l->wake);
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
        more = lease_collect_all(l->table, now_of(l), &s->batch);
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
    free(l);
}

void limiter_set_revision(struct limiter *l, uint64_t revision)
{
    atomic_store(&l->revision, revision);
}

/* --- requests --- */

enum admit_verdict limiter_admit(struct limiter *l, const struct admit_request *r,
                                 struct admit_ticket *t, admit_done_fn done, void *ctx)
{
    struct admit_outcome *o = &t->outcome;
    uint64_t now = now_of(l);
    *o = (struct admit_outcome){ .verdict = ADMIT_OK, .decided_ns = now };
    t->held = false;
    t->waiter.claims_n = 0;
    if (r->policies == NULL) return ADMIT_OK;
    (void)admit_output_limit(r, &o->output_limit, &o->output_policy, NULL);
    admit_claim(l->table, now, r, l->o.hash_key, &t->waiter);
    if (t->waiter.claims_n == 0) {
        bump(&l->admitted, 1);
        return ADMIT_OK;
    }
    t->done = done;
    t->done_ctx = ctx;
    t->ns = r->ns;
    if (lease_admit(l->table, now, &t->waiter) == LEASE_VERDICT_WAIT) {
        bump(&l->waited, 1);
        flush(l); /* from here on t may be decided by another thread */
        return ADMIT_WAIT;
    }
    conclude(l, t);
    kick_if_due(l); /* it may have run low, or been wanted while the engine is away */
    return o->verdict;
}

bool limiter_cancel(struct limiter *l, struct admit_ticket *t)
{
    return lease_cancel(l->table, now_of(l), &t->waiter);
}

void limiter_release(struct limiter *l, struct admit_ticket *t)
{
    if (!t->held) return;
    t->held = false;
    lease_release(l->table, now_of(l), &t->waiter);
    kick_if_due(l);
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
        .errors = l->errors,
        .overflows = s.overflows,
        .counters = s.counters,
        .away = s.away,
    };
}
