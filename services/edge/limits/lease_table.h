/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The inside of the lease table: lease.c has the counters and when they are due, lease_decide.c the
 * decision over a request's claims, lease_hold.c what requests hold, lease_share.c what happens
 * while the engine is away, lease_wire.c messages going out and lease_reply.c what comes back.
 * Everything here is called with the table's lock held.
 */
#ifndef EDGE_LEASE_TABLE_H
#define EDGE_LEASE_TABLE_H

#include <pthread.h>
#include <stdatomic.h>

#include "lease.h"

#define LEASE_MS UINT64_C(1000000)

enum {
    LEASE_TICK_MS = 25,         /* what is not urgent goes out at the next multiple of this */
    LEASE_ALONG_MS = 250,       /* and with any message that goes so long before */
    LEASE_LEAD_MS = 50,         /* so long before a lease is used up more is asked for, but not
                                   before half of its life: it would be asked for without end */
    LEASE_RECHECK_MAX_MS = 200, /* a refusal is remembered at most so long before asking again */
    LEASE_RECHECK_MIN_MS = 20,  /* and where units flow fast, at least so long */
    LEASE_AWAY_FAILURES = 2,    /* messages without an answer, and the engine is away */
    LEASE_PROBE_MS = 250,       /* how often an engine that is away is tried */
    LEASE_PROBE_OPS = 8,        /* and with how many ops at most */
    LEASE_NEWS_MS = 5000,   /* an engine that nothing was asked of for so long is asked among how
                               many we share, */
    LEASE_LOWER_MS = 1000,  /* and an answer that took longer never makes our share larger: what
                               the engine told us it counts for longer than that */
    LEASE_UNKNOWN_MS = 10,  /* how soon a policy that the engine lacks is asked for again */
    LEASE_PREFETCH_MIN = 4, /* grants smaller than this are not asked for ahead */
    LEASE_FEW = 16,         /* so few units left: every one is reported at once */
    LEASE_EAGER_SLOTS = 32, /* slots of limits up to this go back as soon as they are free */
    LEASE_LOCAL_SPANS = 16,
    LEASE_RECENT_BITS = 10 /* of the places of counters that were bound lately */
};
#define LEASE_NEVER_NS UINT64_MAX

/* What a counter lives on while its engine is away: see lease_share.c. */
struct lease_local {
    uint64_t begun_ns, at_ns;
    double level; /* bucket: units */
    struct lease_local_span {
        uint64_t first_ns, last_ns, units;
    } spans[LEASE_LOCAL_SPANS]; /* sliding */
    size_t spans_n;
    uint64_t pool, pool_end_ns; /* calendar */
    uint64_t charged;           /* calendar, bucket: what the engine is to be told of */
};

struct lease_counter {
    struct lease_counter *chain; /* in its hash bucket */
    uint64_t hash;
    struct list_node lru; /* most recently bound last */
    struct str policy, key;
    struct lease_rule rule;
    unsigned pins; /* claims bound, and the op under way: not evicted */

    /* The lease. Held units = granted - spent - returned, and `reserved` of them are kept for
     * requests (slots: granted - returned, and `busy` of them in use). Valid while live and now <
     * end_ns; when it has ended with an op under way, the figures stay until the reply, which may
     * prolong it. */
    bool live;
    uint64_t number; /* in its name; 0: it has none yet */
    uint64_t granted, spent, returned, reserved;
    uint64_t told_spent, told_returned; /* what the engine has acknowledged */
    uint64_t debt, told_debt;           /* reported on this lease */
    uint64_t owed;                      /* not yet on any */
    uint64_t last_grant;
    uint64_t end_ns;
    uint64_t half_ns, renew_ns; /* when it goes back if idle, and is renewed if not */
    uint64_t named_ns;          /* not live: until then an ask may use its name again */
    uint64_t epoch_no;          /* the table's when it was granted */
    uint64_t busy, peak;        /* slots in use, leased or not; the most since the last op */

    bool inflight; /* one op at a time */
    bool touched;  /* used since the last op */
    bool ahead;    /* ask before it runs out */
    bool eager;    /* report at the next turn */
    bool demanded; /* somebody wanted it while the engine was away: worth a probe */

    uint64_t taken, taken_ns; /* units since then: how fast it is used */
    double rate;              /* units per ns */

    struct list_node queue; /* claims that wait */
    uint64_t wanted;        /* their units */
    struct list_node soon;  /* among those whose queue is to be judged again at soon_ns */
    uint64_t soon_ns;       /* 0: it is not */

    /* What the engine said last. */
    bool told;
    uint64_t told_ns;
    uint64_t limit, remaining, reset_ns;
    uint64_t retry_ns;   /* when there may be units again */
    uint64_t recheck_ns; /* until then a refusal is decided here */
    bool never;          /* with recheck_ns: more than it can ever hold was asked for */
    bool share_told;
    uint64_t share;
    uint64_t away_until_ns;    /* this counter cannot be asked for */
    uint64_t unknown_since_ns; /* the engine does not know the policy; 0: it does */
    uint64_t not_before_ns;    /* ask again then at the earliest */

    struct lease_local *local; /* NULL unless the engine is away */

    uint64_t due_ns;
    size_t place; /* in the heap, 1-based; 0: not in it */
};

struct lease_table {
    pthread_mutex_t lock;
    char instance[LEASE_ID_MAX + 1], incarnation[LEASE_ID_MAX + 1];
    size_t max_counters;
    uint64_t ask_timeout_ns;

    struct lease_counter **buckets;
    size_t buckets_n; /* a power of two */
    size_t counters;
    struct list_node lru;
    struct lease_counter *recent[1 << LEASE_RECENT_BITS]; /* found without hashing; or NULL */

    struct lease_counter **heap; /* by due_ns, 1-based */
    size_t heap_n, heap_cap;

    struct list_node waiters; /* by deadline: the time-out is the same for all */
    size_t waiting;
    struct list_node soon; /* counters, see there */

    uint64_t numbers; /* of leases given out */
    char epoch[LEASE_ID_MAX + 1];
    uint64_t epoch_no;
    uint64_t edges;   /* that share, as told last; 0: never told */
    uint64_t news_ns; /* when to ask for that alone; while it is not 0 */
    bool away;
    unsigned failures;         /* in a row */
    uint64_t failing_since_ns; /* when the first of them was asked */
    uint64_t answered_ns, probe_ns;

    _Atomic uint64_t next_due; /* when the lock was released last */
    _Atomic bool strict;       /* some rule was, once */
    struct lease_stats stats;
};

/* --- lease.c --- */

/* Releases the lock, and says when there is something to do next. */
void lease_unlock(struct lease_table *t);
/* lease_bind() of all claims. */
void lease_bind_all(struct lease_table *t, uint64_t now, struct lease_waiter *w,
                    const struct lease_binding *b);
/* Units that can be spent now; of slots also negative, when more are in use than leased. */
int64_t lease_available(const struct lease_counter *c, uint64_t now);
bool lease_is_valid(const struct lease_counter *c, uint64_t now);
/* Forgets a lease that has ended, unless an op is under way. */
void lease_end_if_over(struct lease_counter *c, uint64_t now);
void lease_forget(struct lease_counter *c);
/* Puts c into the heap (LEASE_NEVER_NS: takes it out). */
void lease_set_due(struct lease_table *t, struct lease_counter *c, uint64_t due_ns);
/* The same, but not later than it is due already, and not while an op is under way. */
void lease_due_by(struct lease_table *t, struct lease_counter *c, uint64_t due_ns);
/* How long a lease of c lives; the next moment when things that are not urgent are done. */
uint64_t lease_life_ns(const struct lease_counter *c);
uint64_t lease_next_tick(const struct lease_counter *c, uint64_t now);
/* Has those who wait for c judged again at `at`, by lease_expire(). */
void lease_judge_at(struct lease_table *t, struct lease_counter *c, uint64_t at);
/* Units that c is likely to use in so long. */
double lease_expected(const struct lease_counter *c, uint64_t ns);
/* Of a rate: so little is left, or will be within that time, that more is to be asked for. */
bool lease_runs_low(const struct lease_counter *c, uint64_t now, uint64_t within_ns);

/* --- lease_decide.c --- */

/* Decides those who wait for c again. */
void lease_resolve(struct lease_table *t, uint64_t now, struct lease_counter *c,
                   struct list_node *done);
/* Units left c's lease: asks for more ahead, or reports. */
void lease_taken(struct lease_table *t, uint64_t now, struct lease_counter *c);

/* --- lease_hold.c --- */

/* Of the units that a claim has reserved, those that can be spent now. */
uint64_t lease_usable(const struct lease_claim *claim, uint64_t now);
/* As lease_covers(). */
uint64_t lease_covered(const struct lease_waiter *w, uint64_t now, uint64_t input);
void lease_reserve(struct lease_claim *claim, uint64_t units);

/* --- lease_reply.c --- */

/* Of an epoch that is over: it can be used up, but not renewed or asked for more. */
bool lease_is_stale(const struct lease_table *t, const struct lease_counter *c);
/* When c needs its next turn. */
void lease_next_turn(struct lease_table *t, uint64_t now, struct lease_counter *c);

/* --- lease_share.c --- */

enum lease_look {
    LEASE_LOOK_HAVE,
    LEASE_LOOK_LACK, /* ask */
    LEASE_LOOK_SOON, /* away: our share has grown enough before the wait is over */
    LEASE_LOOK_REFUSE,
    LEASE_LOOK_SHARE,       /* away: there is enough of our share */
    LEASE_LOOK_ALLOW,       /* away: passes */
    LEASE_LOOK_UNAVAILABLE, /* away: no */
};
/* What the rule says while the engine is away, to `need` units or as few as `enough`. until: how
 * long the request can wait; queued: it has waited already, others are behind it. ret_units: how
 * many it may have. ret_ns: for SOON and REFUSE, how long until there are enough. */
enum lease_look lease_look_away(struct lease_table *t, struct lease_counter *c, uint64_t now,
                                uint64_t until, bool queued, uint64_t need, uint64_t enough,
                                uint64_t *ret_units, uint64_t *ret_ns);
void lease_take_local(struct lease_counter *c, uint64_t now, uint64_t units);
/* Units of the share that began then, which were not used after all. */
void lease_give_local(struct lease_counter *c, uint64_t begun_ns, uint64_t units);
/* The engine is back. */
void lease_end_local(struct lease_counter *c, uint64_t now);

#endif
