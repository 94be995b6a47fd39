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
 * repeated message changes nothing (5); what is reserved for a running request stays ours while its
 * lease is renewed, and dies with it (4); we ask for as much as we are likely to use in a lease's
 * life, and for what lies ahead before it runs out (9); units that we return leave our hands before
 * the message does; idle leases go back at half their life, sooner where little is left (10).
 *
 * The life of a request whose tokens are limited:
 *
 *   lease_bind() …                  claims with `reserve`: units = its input and a first slice of
 *                                   output (of a stream), or its input and all it may answer
 *   lease_admit()                   all claims or none; a reservation may get less than `units`,
 *                                   but `least`; WAIT is called back as ever
 *   lease_covers(.., input)         how many tokens of output are covered once `input` tokens are
 *                                   paid for: what max_tokens of an answer in one piece is clamped
 *                                   to, before it is sent
 *   lease_spend_input()             when it is sent upstream
 *   lease_spend_output(), often     as tokens go to the client. Fewer came back than were asked
 *                                   for: no more is covered. Extend, or cut the stream there
 *   lease_extend()                  ahead of time, while tokens flow: another slice for all of its
 *                                   claims or none. OK at once when the lease holds units; WAIT is
 *                                   called back through the same list as an admission, and
 *                                   spending goes on meanwhile
 *   lease_end(), once               at the end, with what each claim has to pay altogether:
 *                                   the rest goes back, what is beyond becomes debt; and slots
 *
 * A request that dies on the way needs lease_release() only. When a lease ends because the engine
 * is away, what is left of the reservations on it is gone: lease_covers() says 0, and
 * lease_extend() gets new units, from a share when the policy says so.
 */
#ifndef EDGE_LEASE_H
#define EDGE_LEASE_H

#include <stddef.h>

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
    uint64_t window_ms; /* 0 for slots; of a calendar window the longest it can be */
    bool steady;        /* of a rate: no interval of a window may admit more than the limit (sliding
                           and fixed) */
    bool calendar;      /* steady, and its window is one of a calendar (fixed): when the engine is
                           away, what remained is shared */
    bool strict;        /* of slots: who runs without a lease is to be cut, lease_held_until() */
};

struct lease_waiter;

/* One policy of one request. The caller fills the first part and zeroes the rest. */
struct lease_claim {
    const void *owner; /* the caller's policy */
    uint64_t units;    /* to spend, to hold (slots), or to reserve; above 0 */
    bool shadow;
    bool quiet;          /* never the tightest one: there is nothing to tell clients of it */
    bool reserve;        /* of a rate: units are kept for this request, and spent step by step */
    bool held, queued;   /* private, as are the next two */
    bool allowed;        /* `local` is not of a share: the engine was away, and all may pass */
    unsigned char place; /* in its waiter */
    uint64_t least;      /* of a reservation: this many will do when there are not more;
                            0: all of `units` */
    uint64_t per_input;  /* of a reservation: units that a token of input costs; 0: not counted */
    uint64_t per_output; /* and one of output */
    /* told, of a reservation */
    uint64_t reserved; /* units it got or has left, from leases and shares */
    uint64_t spent;    /* units that it has spent */
    /* private */
    uint64_t need, enough; /* what the admission or extension under way is for */
    uint64_t local;        /* of `reserved`: not of a lease, but of the share that began then */
    uint64_t local_of;
    uint64_t number; /* of the lease that the rest is of */
    struct lease_counter *counter;
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

/* A request's claims, decided together. Stays where it is while it waits; counters know nothing of
 * those who hold something. Claims beyond claims_n are never looked at: the memory may end before
 * them. */
struct lease_waiter {
    size_t claims_n;
    /* the decision: of the admission, or of the last extension */
    enum lease_verdict verdict;
    uint64_t decided_ns;
    size_t refused_by; /* index of the claim that refused */
    struct lease_view refused_view;
    size_t tightest; /* index of the rate claim that is spent at once (requests; not shadow) with
                        the least left; claims_n: none */
    struct lease_view tightest_view;
    size_t tightest_reserve; /* the same of those that are reserved (tokens) */
    struct lease_view tightest_reserve_view;
    unsigned shadow_refused, allowed, shared; /* how many claims */
    uint32_t shadow_mask;                     /* bit i: claims[i] is in shadow mode and refused */
    /* private */
    uint64_t deadline_ns;
    bool waiting;
    struct list_node node; /* among all that wait, by deadline; then in the list of decided ones */
    struct lease_claim claims[LEASE_MAX_CLAIMS];
};

static inline struct lease_waiter *lease_waiter_of(struct lease_claim *claim)
{
    return (struct lease_waiter *)(void *)((char *)(claim - claim->place) -
                                           offsetof(struct lease_waiter, claims));
}

struct lease_table_options {
    const char *instance, *incarnation; /* incarnation is new at each start of the process */
    size_t max_counters;
    uint64_t ask_timeout_ns;
};

struct lease_table *lease_table_new(const struct lease_table_options *o);
void lease_table_free(struct lease_table *t);

/* Binds claims[i] of w to the counter (policy id, key), making it when it is new, and keeps it from
 * eviction until lease_admit() decided and, for slots and reservations, until lease_release(). When
 * the table is full of counters in use, the policy's overflow counter is taken. */
void lease_bind(struct lease_table *t, uint64_t now, struct lease_waiter *w, size_t i,
                struct str policy, struct str key, const struct lease_rule *rule);

/* What a claim is counted on. */
struct lease_binding {
    struct str policy, key;
    struct lease_rule rule;
};

/* Decides all claims of w together, or parks it (WAIT): then lease_due() asks for collecting. */
enum lease_verdict lease_admit(struct lease_table *t, uint64_t now, struct lease_waiter *w);
/* lease_bind() of each claim to b[its place], lease_admit(), and when that says OK lease_covers()
 * after `input` tokens: with the table locked once. */
enum lease_verdict lease_bind_and_admit(struct lease_table *t, uint64_t now, struct lease_waiter *w,
                                        const struct lease_binding *b, uint64_t input,
                                        uint64_t *ret_covers);
/* False when w does not wait (any more). Of an extension that waits: it is given up; what w holds
 * stays with it. */
bool lease_cancel(struct lease_table *t, uint64_t now, struct lease_waiter *w);
/* Gives back the slots and reservations that w holds. Must not wait. */
void lease_release(struct lease_table *t, uint64_t now, struct lease_waiter *w);

/* --- reservations: after lease_admit() said OK, until lease_end() or lease_release() --- */

/* Output tokens that all reservations of w (but shadow ones) cover now, after `input` more tokens
 * of input; UINT64_MAX: nothing counts output. */
uint64_t lease_covers(struct lease_table *t, uint64_t now, const struct lease_waiter *w,
                      uint64_t input);
/* Spends tokens of input, all or none. False: not covered (any more). */
bool lease_spend_input(struct lease_table *t, uint64_t now, struct lease_waiter *w,
                       uint64_t tokens);
/* Spends tokens of output as far as all cover them; says how many. */
uint64_t lease_spend_output(struct lease_table *t, uint64_t now, struct lease_waiter *w,
                            uint64_t tokens);
/* Reserves more: `input` tokens of input (usually 0) and `output` of output, or as few as `least`
 * when there are not more, on every claim that counts them, or on none. The verdict and what is
 * told with it are in w as for an admission. w must not wait. */
enum lease_verdict lease_extend(struct lease_table *t, uint64_t now, struct lease_waiter *w,
                                uint64_t input, uint64_t output, uint64_t least);
/* The end: charges[i] is what the reservation claims[i] has to pay altogether, in units (entries of
 * other claims are ignored); NULL: just what was spent. The rest goes back to the lease; what is
 * more than was spent or reserved is taken from the counter as debt, which may bring it below zero.
 * A refund of what was spent already is not possible. Slots go back too. Must not wait. Once. */
void lease_end(struct lease_table *t, uint64_t now, struct lease_waiter *w,
               const uint64_t *charges);

/* Until when w surely holds its strict slots: look again then, by that time they are usually
 * renewed. UINT64_MAX: it holds none. Not after `now`: they are lost, cut the request. */
uint64_t lease_held_until(struct lease_table *t, uint64_t now, const struct lease_waiter *w);
/* False: no slots that were ever bound are strict. Takes no lock. */
bool lease_may_be_strict(const struct lease_table *t);

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
        uint64_t known, want, ahead, min, spent, returned, debt;
    } ops[LEASE_BATCH_OPS];
};

/* Fills b with what is due: asks for those who wait, renewals, returns, settlements; or nothing at
 * all (n 0), which is sent as well, when the engine was not asked for LEASE_NEWS_MS: its answer
 * says among how many we share. False when nothing is due. Every batch goes back exactly once: to
 * lease_apply() or to lease_fail(). */
bool lease_collect(struct lease_table *t, uint64_t now, struct lease_batch *b);
/* Everything back, at the end: all units that nobody uses. */
bool lease_collect_all(struct lease_table *t, uint64_t now, struct lease_batch *b);

/* Whether somebody waits for what b asks for: then the same message is worth sending a second time
 * before the wait is over. It changes nothing when both arrive; the first reply counts. Only while
 * b has not gone back. */
bool lease_is_awaited(struct lease_table *t, const struct lease_batch *b);

/* Takes the reply. Waiters that are decided by it are appended to done (linked by their node). A
 * reply that does not fit the batch is an error, handled like lease_fail(). */
enum err lease_apply(struct lease_table *t, uint64_t now, const struct lease_batch *b,
                     const struct lease_reply *r, struct list_node *done) MUSTCHECK;
/* There was no reply: timed out, or could not be sent. */
void lease_fail(struct lease_table *t, uint64_t now, const struct lease_batch *b,
                struct list_node *done);
/* Ends the wait of those whose deadline has passed, or whose share has grown enough. */
void lease_expire(struct lease_table *t, uint64_t now, struct list_node *done);

/* Among how many this edge shares the limits when it is on its own, as it was told; 0: never told.
 * The engine is to hear of it: it sets our share aside when it hears no more. */
uint64_t lease_share_among(struct lease_table *t);

struct lease_stats {
    size_t counters, waiting;
    uint64_t asks, renews, returns, settles, granted_units, overflows, epochs, invalid;
    uint64_t debt; /* units charged beyond what was reserved */
    bool away;
};
void lease_table_stats(struct lease_table *t, struct lease_stats *ret);

#endif
