/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Admission: all limits of a request at once, or none.
 *
 * `struct limiter` is one per edge process, shared by all workers. It decides from leases, in well
 * under a microsecond; when a lease does not cover a request it asks the policy engine for all that
 * is missing in one message, and the request waits, at most LEASE_ASK_TIMEOUT_MS. Requests that
 * lack the same counter share one ask. Its own thread renews leases, gives idle ones back, and ends
 * the wait of requests whose time is up. Limits that need no counter are in admit_local.h.
 *
 *   at each new snapshot:  admit_policies_new()            -> keep beside the snapshot
 *   per request:           admit_policies_of(p, ns)        -> NULL: no policy, nothing to do
 *                          limiter_admit()                 -> ADMIT_OK, ADMIT_REFUSED, ADMIT_WAIT
 *                          … limiter_release()             on EVERY way out after ADMIT_OK
 *
 * Tokens and cost are reserved: the input, known exactly, and of the output a first slice, which
 * limiter_extend() renews while the answer flows, or all of it when it comes in one piece.
 *
 *                          limiter_covers()                how many tokens of output are had
 *                          limiter_spend_input()           when it is sent upstream
 *                          limiter_spend_output()          before tokens go to the client
 *                          limiter_end()                   instead of limiter_release() when it
 *                                                          went upstream: the rest goes back,
 *                                                          what is beyond becomes debt
 *
 * Threads: every function may be called from any thread, those of one ticket from one at a time.
 * The callback of a request that waited runs on a thread of the bus or of the limiter, with no lock
 * held: hand it to the request's own thread (loop_post). It may run before the call that returns
 * ADMIT_WAIT has returned, so set up what it needs first.
 */
#ifndef EDGE_ADMIT_H
#define EDGE_ADMIT_H

#include "admit_key.h"
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

/* What is to be decided. */
struct admit_request {
    const struct admit_list *policies; /* may be NULL: everything is allowed */
    struct admit_subject subject;
    bool counted;          /* its tokens are counted; else limits of tokens and cost do not apply */
    bool answers;          /* and its answer's too */
    bool stream;           /* the answer comes in events, and its tokens are had in slices */
    uint64_t input_tokens; /* of the request */
    uint64_t output_most;  /* tokens that the answer may have, all choices together */
    uint64_t choices;      /* at least 1 */
};

/* --- the decision --- */

enum admit_verdict {
    ADMIT_OK,
    ADMIT_WAIT,       /* the callback will tell */
    ADMIT_REFUSED,    /* over a limit: 429 */
    ADMIT_UNAVAILABLE /* the engine is away and the policy says deny: 503 limiter_unavailable */
};

/* What a policy counts: requests, concurrency, tokens, cost, input_tokens, output_tokens, access,
 * body_size. */
const char *admit_dimension(const struct snap_policy *p);

/* For x-ratelimit-*: of the tightest policy in force. */
struct admit_rate {
    bool present;
    uint64_t limit, remaining, reset_ms;
};

struct admit_outcome {
    enum admit_verdict verdict;
    uint64_t decided_ns;              /* the clock reading that decided it (rule 11) */
    const struct snap_policy *policy; /* which refused; NULL when admitted */
    uint64_t limit, used;
    uint64_t retry_after_ms; /* 0 with for_good */
    bool for_good;           /* can never be admitted: no Retry-After */
    struct admit_rate requests, tokens;
    unsigned unavailable_allowed; /* policies that were away and let it pass (allow) */
};

struct admit_ticket;
typedef void (*admit_done_fn)(void *ctx, struct admit_ticket *t);

/* Zeroed before the first use. Stays where it is from limiter_admit() until limiter_release() (or
 * until it was refused), unless admit_ticket_shrink() moves it. */
struct admit_ticket {
    struct admit_outcome outcome; /* of the admission */
    enum admit_verdict extended;  /* of the last extension */
    uint64_t slice;               /* tokens to extend a stream by; 0: its tokens are not limited */
    uint64_t covers;   /* of an admission that did not wait: limiter_covers() of its input */
    unsigned unpriced; /* quotas of cost that could not count it: the model has no price in their
                          currency */
    /* private */
    struct admit_note *note; /* for the admission log */
    admit_done_fn done;
    void *done_ctx;
    const struct snap_namespace *ns;
    bool held, extending;
    struct lease_waiter waiter; /* the last: its claims end the memory */
};

/* With room for as many claims as these policies can make, which is a fraction of the whole struct.
 * policies may be NULL. free() it. NULL: out of memory. */
struct admit_ticket *admit_ticket_new(const struct admit_list *policies);

/* After ADMIT_OK, while nothing of it waits: forgets all but what the request holds. Returns where
 * the ticket is from now on. */
struct admit_ticket *admit_ticket_shrink(struct admit_ticket *t);

/* The i-th policy that would have refused the request, were it not in shadow mode; NULL: no more.
 */
const struct snap_policy *admit_shadow(const struct admit_ticket *t, size_t i);

/* --- the limiter --- */

struct limiter;

struct limiter_options {
    struct bus *bus;
    const char *prefix;   /* of subjects */
    const char *instance; /* our name among the edges */
    const struct clock *clock;
    const struct rng *rng;
    unsigned char hash_key[16]; /* the same at all edges: what clients supply is hashed with it */
    bool plain_addresses;       /* clients' addresses enter keys as they are */
    const char *admission_log; /* a file that every decision is written to, for tests; NULL: none */
    size_t max_counters;       /* 0: 65536 */
    int ask_timeout_ms;        /* 0: LEASE_ASK_TIMEOUT_MS */
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
/* Gives back what the request held. Call once for each ADMIT_OK; harmless otherwise. Not while an
 * extension waits: limiter_cancel() it, or wait for its callback. */
void limiter_release(struct limiter *l, struct admit_ticket *t);

/* --- tokens, after ADMIT_OK --- */

/* Tokens of output that are had now, once `input` more tokens of input are paid for. UINT64_MAX:
 * nothing limits them. */
uint64_t limiter_covers(struct limiter *l, const struct admit_ticket *t, uint64_t input);
/* False: they are not to be had any more. */
bool limiter_spend_input(struct limiter *l, struct admit_ticket *t, uint64_t tokens);
/* Pays for tokens before they go to the client; says how many are paid for. */
uint64_t limiter_spend_output(struct limiter *l, struct admit_ticket *t, uint64_t tokens);
/* Reserves `tokens` more of output, or what is left. The verdict is in t->extended, also after
 * ADMIT_WAIT when done(ctx, t) is called. */
enum admit_verdict limiter_extend(struct limiter *l, struct admit_ticket *t, uint64_t tokens,
                                  admit_done_fn done, void *ctx);
/* The end: the request has used so many tokens, as far as it went upstream. What is reserved and
 * not used goes back; what it used beyond what was paid becomes debt; slots go back, as by
 * limiter_release(), which is for a request that never went upstream: everything goes back. */
void limiter_end(struct limiter *l, struct admit_ticket *t, uint64_t input, uint64_t output);
/* Until when the request's strict slots are held for certain: look again then. 0: they are lost,
 * cut the request. UINT64_MAX: it holds none. */
uint64_t limiter_held_until(struct limiter *l, const struct admit_ticket *t);

/* A refusal, by a policy that needs no counter or one in shadow mode, as event on
 * SUBJECT_POLICY_REJECTED, sampled (at most one per policy and second; the message says how many it
 * stands for). limiter_admit() does it for its own. */
void limiter_report(struct limiter *l, const struct snap_namespace *ns, const struct snap_policy *p,
                    uint64_t used, bool shadow);

/* For each counter that is known: of its policy's limit the part in use, 0 to 1. fn is called with
 * the table's lock held: it may only note it. */
typedef void (*limiter_use_fn)(void *ctx, struct str policy_id, double part);
void limiter_each_use(struct limiter *l, limiter_use_fn fn, void *ctx);

struct limiter_stats {
    uint64_t admitted, waited, refused, unavailable, allowed_unavailable, shared, shadow_refused;
    uint64_t messages, asks, renews, returns, settles; /* messages sent, and the ops in them */
    uint64_t granted_units, repeats, timeouts, errors, overflows, debt;
    uint64_t extensions, extensions_refused, unpriced;
    size_t counters; /* in the table now */
    bool away;       /* the engine does not answer */
};
void limiter_stats(struct limiter *l, struct limiter_stats *ret);
/* As lease_share_among(). */
uint64_t limiter_share_among(struct limiter *l);

#endif
