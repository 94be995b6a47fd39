/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Admission: all limits of a request at once, or none.
 *
 * `struct limiter` is one per edge process, shared by all workers. It decides from leases, in well
 * under a microsecond; when a lease does not cover a request it asks the policy engine for all that
 * is missing in one message, and the request waits, at most LEASE_ASK_TIMEOUT_MS. Requests that
 * lack the same counter share one ask. Its own thread renews leases, gives idle ones back, and ends
 * the wait of requests whose time is up.
 *
 *   at each new snapshot:  admit_policies_new()            -> keep beside the snapshot
 *   per request:           admit_policies_of(p, ns)        -> NULL: no policy, nothing to do
 *                          limiter_admit()                 -> ADMIT_OK, ADMIT_REFUSED, ADMIT_WAIT
 *                          … limiter_release()             on EVERY way out after ADMIT_OK
 *
 * Threads: every function may be called from any thread. The callback of a request that waited runs
 * on a thread of the bus or of the limiter, with no lock held: hand it to the request's own thread
 * (loop_post). It may run before the call of limiter_admit() that returns ADMIT_WAIT has returned,
 * so set up what it needs first.
 */
#ifndef EDGE_ADMIT_H
#define EDGE_ADMIT_H

#include "lease.h"
#include "proto/snapshot.h"
#include "rt/bus.h"

/* --- which policies apply (immutable, made once per snapshot) --- */

struct admit_policies;
struct admit_list; /* the enabled policies of one namespace, its own and those for all */

/* Borrows the snapshot: free before it goes. ERR_LIMIT when more than LEASE_MAX_CLAIMS limits that
 * need leases apply to one namespace: refuse the snapshot. */
enum err admit_policies_new(const struct snapshot *s, struct admit_policies **ret,
                            struct why *why) MUSTCHECK;
void admit_policies_free(struct admit_policies *p);
/* NULL when none applies. ns is one of the snapshot's. */
const struct admit_list *admit_policies_of(const struct admit_policies *p,
                                           const struct snap_namespace *ns);

struct admit_request {
    const struct admit_list *policies; /* may be NULL: everything is allowed */
    const struct snap_namespace *ns;
    const struct snap_key *key;           /* NULL: none */
    const struct snap_upstream *upstream; /* NULL: none */
    struct str model;                     /* as the client wrote it; n == 0: none */
    const struct snap_model *model_known; /* the configured model it matched, or NULL */
};

/* The smallest output_tokens limit that applies; false when none does. A policy in shadow mode does
 * not count, but is told in ret_shadow (may be NULL; 0: none). ret_policy may be NULL. */
bool admit_output_limit(const struct admit_request *r, uint64_t *ret_tokens,
                        const struct snap_policy **ret_policy, uint64_t *ret_shadow);

/* --- the decision --- */

enum admit_verdict {
    ADMIT_OK,
    ADMIT_WAIT,       /* the callback will tell */
    ADMIT_REFUSED,    /* over a limit: 429 */
    ADMIT_UNAVAILABLE /* the engine is away and the policy says deny: 503 limiter_unavailable */
};

enum admit_dimension { ADMIT_REQUESTS, ADMIT_CONCURRENCY, ADMIT_TOKENS };
const char *admit_dimension_name(enum admit_dimension d); /* requests, concurrency, tokens */

/* For x-ratelimit-*: of the tightest policy in force. */
struct admit_rate {
    bool present;
    uint64_t limit, remaining, reset_ms;
};

struct admit_outcome {
    enum admit_verdict verdict;
    uint64_t decided_ns;              /* the clock reading that decided it (rule 11) */
    const struct snap_policy *policy; /* which refused; NULL when admitted */
    enum admit_dimension dimension;
    uint64_t limit, used;
    uint64_t retry_after_ms; /* 0 with for_good */
    bool for_good;           /* can never be admitted: no Retry-After */
    struct admit_rate requests, tokens;
    unsigned shadow_refused;      /* policies in shadow mode that would have refused */
    unsigned unavailable_allowed; /* policies that were away and let it pass (allow) */
    uint64_t output_limit;        /* smallest output_tokens limit, 0: none */
    const struct snap_policy *output_policy;
};

struct admit_ticket;
typedef void (*admit_done_fn)(void *ctx, struct admit_ticket *t);

/* Embedded in the request's flow; zero it before the first use. Stays where it is from
 * limiter_admit() until limiter_release() (or until it was refused). */
struct admit_ticket {
    struct admit_outcome outcome;
    /* private */
    struct lease_waiter waiter;
    admit_done_fn done;
    void *done_ctx;
    const struct snap_namespace *ns;
    bool held;
};

/* --- the limiter --- */

struct limiter;

struct limiter_options {
    struct bus *bus;
    const char *prefix;   /* of subjects */
    const char *instance; /* our name among the edges */
    const struct clock *clock;
    const struct rng *rng;
    unsigned char hash_key[16]; /* the same at all edges: what clients supply is hashed with it */
    size_t max_counters;        /* 0: 65536 */
    int ask_timeout_ms;         /* 0: LEASE_ASK_TIMEOUT_MS */
    /* How to ask; NULL: bus_request() on SUBJECT_POLICY_LEASE. A seam for tests. Same contract as
     * bus_request(). */
    enum err (*request)(void *ctx, struct str data, int timeout_ms, bus_reply_fn fn, void *fn_ctx);
    void *request_ctx;
};

struct limiter *limiter_new(const struct limiter_options *o); /* starts its thread */
/* Gives all leases back (waits at most ask_timeout_ms for that) and joins the thread. No request
 * may wait any more; callbacks of requests under way have returned. */
void limiter_free(struct limiter *l);
/* The revision that asks carry, for information. */
void limiter_set_revision(struct limiter *l, uint64_t revision);

/* Decides, or begins to. The outcome is in t->outcome, also after ADMIT_WAIT when done(ctx, t) is
 * called. r is not needed after the call, but the snapshot that its policies belong to is. */
enum admit_verdict limiter_admit(struct limiter *l, const struct admit_request *r,
                                 struct admit_ticket *t, admit_done_fn done, void *ctx);
/* Of a ticket that waits: true when it will not be called back, and nothing is held. False when the
 * callback has run or is about to: wait for it. */
bool limiter_cancel(struct limiter *l, struct admit_ticket *t);
/* Gives back what the request held (slots). Call once for each ADMIT_OK; harmless otherwise. */
void limiter_release(struct limiter *l, struct admit_ticket *t);

/* A refusal as event on SUBJECT_POLICY_REJECTED, sampled (at most one per policy and second; the
 * message says how many it stands for). Called by limiter_admit() itself: nothing to do. */

struct limiter_stats {
    uint64_t admitted, waited, refused, unavailable, allowed_unavailable, shared, shadow_refused;
    uint64_t messages, asks, renews, returns, settles; /* messages sent, and the ops in them */
    uint64_t granted_units, timeouts, errors, overflows;
    size_t counters; /* in the table now */
    bool away;       /* the engine does not answer */
};
void limiter_stats(struct limiter *l, struct limiter_stats *ret);

#endif
