/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The inside of the limiter: limiter.c (the object, its messages and its thread), limiter_admit.c
 * (requests and their tokens), limiter_events.c (refusals told to others, the admission log).
 *
 * What is not lock-free here is short: the table's own mutex, `lock` (the thread's sleep, messages
 * under way), `events_lock` (when a policy's refusal was published last). No lock is held while
 * calling out, and none is taken inside another, but for the table's inside `lock`.
 */
#ifndef EDGE_LIMITER_IMPL_H
#define EDGE_LIMITER_IMPL_H

#include <pthread.h>
#include <stdatomic.h>

#include "admit_claims.h"
#include "base/uuid.h"
#include "proto/subjects.h"

enum { LIMITER_EVENT_SLOTS = 256 };

struct sent;

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
    pthread_mutex_t lock; /* guards the next five */
    pthread_cond_t wake;
    bool stop, kicked;
    struct sent *failed;
    struct list_node once; /* sent once and not answered, by time */
    size_t under_way;      /* messages that somebody still has to do with */
    /* Until when the thread sleeps; 0 while it is awake. It writes this before it reads
     * lease_due(), the others change the table before they read this: one of them notices. */
    _Atomic uint64_t sleeps_until;

    pthread_mutex_t events_lock;
    struct event_slot events[LIMITER_EVENT_SLOTS];

    _Atomic uint64_t admitted, waited, refused, unavailable, allowed, shared, shadow_refused;
    _Atomic uint64_t messages, repeats, timeouts, errors, extensions, extensions_refused, unpriced;
    _Atomic uint64_t allowed_told_ns, allowed_since; /* when it was logged last, and since then */

    int log_fd; /* the admission log; -1: none */
};

static inline uint64_t limiter_now(const struct limiter *l)
{
    return clock_mono_ns(l->o.clock);
}

static inline void limiter_bump(_Atomic uint64_t *counter, uint64_t by)
{
    if (by > 0) atomic_fetch_add_explicit(counter, by, memory_order_relaxed);
}

/* --- limiter.c --- */

/* Sends what is due. When another thread is at it, that one goes round once more. */
void limiter_flush(struct limiter *l);
/* Makes the thread look again when there is something to do before it would. */
void limiter_kick_if_due(struct limiter *l);

/* --- limiter_admit.c --- */

/* Concludes and calls back the waiters of a list. */
void limiter_call_back(struct limiter *l, struct list_node *done);

/* --- limiter_events.c --- */

void limiter_publish(struct limiter *l, const struct snap_namespace *ns,
                     const struct snap_policy *p, const struct admit_outcome *o, bool shadow,
                     uint64_t now);

/* Requests passed uncounted, as their policies say: never silently. */
void limiter_warn_allowed(struct limiter *l, uint64_t now, unsigned policies);

/* The admission log: what it says of a ticket is noted when its claims are bound. */
void limiter_log_open(struct limiter *l);
void limiter_log_bind(struct limiter *l, struct admit_ticket *t, size_t i, struct str key);
enum limiter_log_what {
    LIMITER_LOG_ADMIT,
    LIMITER_LOG_INPUT,
    LIMITER_LOG_OUTPUT,
    LIMITER_LOG_DEBT
};
/* One line for each claim that it concerns. tokens: of INPUT and OUTPUT. */
void limiter_log(struct limiter *l, const struct admit_ticket *t, uint64_t now,
                 enum limiter_log_what what, uint64_t tokens);
void limiter_log_forget(struct admit_ticket *t);

#endif
