/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The leases that this edge holds: a pure state machine with a lock around it.
 *
 * No I/O and no clock: time comes in as an argument (CLOCK_BOOTTIME, ns), messages come in decoded
 * and go out as structs, waiters that were decided come out as a list to call back. So the
 * simulator runs the code that runs in production.
 *
 * Any thread; one mutex inside, held for a few hundred ns, never while calling out.
 *
 * Rules (numbers of limits.md): a lease ends by our own clock, counted from when we ASKED, less 1 %
 * (2); one op per counter is under way at a time; what we report is cumulative, so a lost or
 * repeated message changes nothing (5); units that we return leave our hands before the message
 * does; idle leases go back at half their life (10).
 */
#ifndef EDGE_LEASE_H
#define EDGE_LEASE_H

#include "base/list.h"
#include "proto/lease_msg.h"

enum { LEASE_MAX_CLAIMS = 16, LEASE_BATCH_OPS = 64 };

struct lease_table;
struct lease_counter; /* one counter's entry in the table */

enum lease_kind { LEASE_RATE, LEASE_SLOTS };
enum lease_away { LEASE_AWAY_SHARE, LEASE_AWAY_DENY, LEASE_AWAY_ALLOW };

/* What the table must know of a policy. */
struct lease_rule {
    enum lease_kind kind;
    enum lease_away away;
    uint64_t limit;
    uint64_t capacity;  /* units it can hold at most: the burst of a bucket, else the limit */
    uint64_t window_ms; /* 0 for slots */
    bool steady;        /* of a rate: no interval of a window may admit more than the limit, so a
                           share is spent evenly and without burst */
};

struct lease_waiter;

enum lease_claim_state { LEASE_CLAIM_NONE, LEASE_CLAIM_WAITING, LEASE_CLAIM_HELD };

/* One policy of one request. The caller fills the first part and zeroes the rest. */
struct lease_claim {
    const void *owner; /* the caller's policy */
    uint64_t units;
    bool shadow;
    /* private */
    unsigned char state;
    struct lease_counter *counter;
    struct lease_waiter *waiter;
    struct list_node node; /* in the counter's queue */
};

enum lease_verdict {
    LEASE_VERDICT_OK,
    LEASE_VERDICT_WAIT,
    LEASE_VERDICT_REFUSED,
    LEASE_VERDICT_UNAVAILABLE
};

/* What one counter says, for headers and refusals. */
struct lease_view {
    uint64_t limit, remaining, reset_ms, retry_ms;
    bool never;
};

/* A request's claims, decided together. Embedded in the request; stays where it is while it waits
 * or holds slots. */
struct lease_waiter {
    struct lease_claim claims[LEASE_MAX_CLAIMS];
    size_t claims_n;
    /* the decision */
    enum lease_verdict verdict;
    uint64_t decided_ns;
    size_t refused_by; /* index of the claim that refused */
    struct lease_view refused_view;
    size_t tightest; /* index of the rate claim (not shadow) with the least left; claims_n: none */
    struct lease_view tightest_view;
    unsigned shadow_refused, allowed, shared; /* how many claims */
    uint32_t shadow_mask;                     /* bit i: claims[i] is in shadow mode and refused */
    /* private */
    uint64_t deadline_ns;
    bool waiting;
    struct list_node node; /* among all that wait, by deadline; then in the list of decided ones */
};

struct lease_table_options {
    const char *instance, *incarnation; /* incarnation is new at each start of the process */
    size_t max_counters;
    uint64_t ask_timeout_ns;
};

struct lease_table *lease_table_new(const struct lease_table_options *o);
void lease_table_free(struct lease_table *t);

/* Binds claims[i] of w to the counter (policy id, key), making it when it is new, and keeps it from
 * eviction until lease_admit() decided and, for slots, until lease_release(). When the table is
 * full of counters in use, the policy's overflow counter is taken. */
void lease_bind(struct lease_table *t, uint64_t now, struct lease_waiter *w, size_t i,
                struct str policy, struct str key, const struct lease_rule *rule);

/* Decides all claims of w together, or parks it (WAIT): then lease_due() asks for collecting. */
enum lease_verdict lease_admit(struct lease_table *t, uint64_t now, struct lease_waiter *w);
/* False when w does not wait (any more). */
bool lease_cancel(struct lease_table *t, uint64_t now, struct lease_waiter *w);
/* Gives back the slots that w holds. */
void lease_release(struct lease_table *t, uint64_t now, struct lease_waiter *w);

/* --- towards the engine --- */

/* When there is something to do next: to collect, or to end a wait. UINT64_MAX: nothing. */
uint64_t lease_due(const struct lease_table *t); /* takes no lock */

/* One message under way. */
struct lease_batch {
    uint64_t asked_ns;
    size_t n;
    char epoch[LEASE_ID_MAX + 1];
    struct lease_batch_op {
        struct lease_counter *counter;
        enum lease_op_kind kind;
        char lease[LEASE_ID_MAX + 1];
        struct str policy, key; /* of the counter, which stays while the batch is under way */
        uint64_t known, want, min, spent, returned;
    } ops[LEASE_BATCH_OPS];
};

/* Fills b with what is due: asks for those who wait, renewals, returns, settlements. False when
 * nothing is. Every batch goes back exactly once: to lease_apply() or to lease_fail(). */
bool lease_collect(struct lease_table *t, uint64_t now, struct lease_batch *b);
/* Everything back, at the end: all units that nobody uses. */
bool lease_collect_all(struct lease_table *t, uint64_t now, struct lease_batch *b);

/* Takes the reply. Waiters that are decided by it are appended to done (linked by their node). A
 * reply that does not fit the batch is an error, handled like lease_fail(). */
enum err lease_apply(struct lease_table *t, uint64_t now, const struct lease_batch *b,
                     const struct lease_reply *r, struct list_node *done) MUSTCHECK;
/* There was no reply: timed out, or could not be sent. */
void lease_fail(struct lease_table *t, uint64_t now, const struct lease_batch *b,
                struct list_node *done);
/* Ends the wait of those whose deadline has passed. */
void lease_expire(struct lease_table *t, uint64_t now, struct list_node *done);

struct lease_stats {
    size_t counters, waiting;
    uint64_t asks, renews, returns, settles, granted_units, overflows, epochs, invalid;
    bool away;
};
void lease_table_stats(struct lease_table *t, struct lease_stats *ret);

#endif
