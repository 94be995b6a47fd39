/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The inside of the lease table, shared by lease.c (decisions), lease_share.c (the engine is away)
 * and lease_wire.c (messages). Everything here is called with the table's lock held.
 */
#ifndef EDGE_LEASE_TABLE_H
#define EDGE_LEASE_TABLE_H

#include <pthread.h>
#include <stdatomic.h>

#include "lease.h"

#define LEASE_MS UINT64_C(1000000)

enum {
    LEASE_RECHECK_MAX_MS = 200, /* a refusal is remembered at most so long before asking again */
    LEASE_AWAY_FAILURES = 2,    /* messages without an answer, and the engine is away */
    LEASE_PROBE_MS = 250,       /* how often an engine that is away is tried */
    LEASE_PROBE_OPS = 8,        /* and with how many ops at most */
    LEASE_UNKNOWN_MS = 10,      /* how soon a policy that the engine lacks is asked for again */
    LEASE_PREFETCH_MIN = 4,     /* grants smaller than this are not asked for ahead */
    LEASE_EAGER_SLOTS = 32      /* slots of limits up to this go back as soon as they are free */
};
#define LEASE_NEVER_NS UINT64_MAX

struct lease_counter {
    struct lease_counter *chain; /* in its hash bucket */
    uint64_t hash;
    struct list_node lru; /* most recently bound last */
    struct str policy, key;
    struct lease_rule rule;
    unsigned pins; /* claims bound, and the op under way: not evicted */

    /* The lease. Held units = granted - spent - returned (slots: granted - returned, and busy of
     * them in use). Valid while live and now < end_ns; when it has ended with an op under way, the
     * figures stay until the reply, which may prolong it. */
    bool live;
    uint64_t number;
    uint64_t granted, spent, returned;
    uint64_t told_spent, told_returned; /* what the engine has acknowledged */
    uint64_t last_grant;
    uint64_t end_ns, half_ns; /* half_ns: half its life, when it is renewed or returned */
    uint64_t epoch_no;        /* the table's when it was granted */
    uint64_t busy;            /* slots in use by requests, leased or not */

    bool inflight; /* one op at a time */
    bool touched;  /* used since the last op */
    bool ahead;    /* ask before it runs out */
    bool demanded; /* somebody wanted it while the engine was away: worth a probe */

    struct list_node queue; /* claims that wait */
    uint64_t wanted;        /* their units */

    /* What the engine said last. */
    bool told;
    uint64_t limit, remaining, reset_ns;
    uint64_t retry_ns;   /* when there may be units again */
    uint64_t recheck_ns; /* until then a refusal is decided here */
    bool never;          /* with recheck_ns: more than it can ever hold was asked for */
    bool share_told;
    uint64_t share;
    uint64_t away_until_ns;    /* this counter cannot be asked for */
    uint64_t unknown_since_ns; /* the engine does not know the policy; 0: it does */
    uint64_t not_before_ns;    /* ask again then at the earliest */

    double local;      /* units of the share, while away */
    uint64_t local_ns; /* refilled up to here; 0: not begun */

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

    struct lease_counter **heap; /* by due_ns, 1-based */
    size_t heap_n, heap_cap;

    struct list_node waiters; /* by deadline: the time-out is the same for all */
    size_t waiting;

    uint64_t numbers; /* of leases given out */
    char epoch[LEASE_ID_MAX + 1];
    uint64_t epoch_no;
    uint64_t edges; /* that share, as told last; 0: never told */
    bool away;
    unsigned failures; /* in a row */
    uint64_t answered_ns, away_since_ns, probe_ns;

    _Atomic uint64_t next_due; /* when the lock was released last */
    struct lease_stats stats;
};

/* Releases the lock, and says when there is something to do next. */
void lease_unlock(struct lease_table *t);

/* Units that can be spent now; of slots also negative, when more are in use than leased. */
int64_t lease_available(const struct lease_counter *c, uint64_t now);
/* Forgets a lease that has ended, unless an op is under way. */
void lease_end_if_over(struct lease_counter *c, uint64_t now);
void lease_forget(struct lease_counter *c);

/* Puts c into the heap (LEASE_NEVER_NS: takes it out). */
void lease_set_due(struct lease_table *t, struct lease_counter *c, uint64_t due_ns);

/* Decides those who wait for c again. */
void lease_resolve(struct lease_table *t, uint64_t now, struct lease_counter *c,
                   struct list_node *done);

/* --- lease_share.c --- */

enum lease_look {
    LEASE_LOOK_HAVE,
    LEASE_LOOK_LACK, /* ask */
    LEASE_LOOK_REFUSE,
    LEASE_LOOK_SHARE,       /* away: there is enough of our share */
    LEASE_LOOK_ALLOW,       /* away: passes */
    LEASE_LOOK_UNAVAILABLE, /* away: no */
};
/* What the rule says while the engine is away. Fills ret_retry_ms for REFUSE. */
enum lease_look lease_look_away(struct lease_table *t, struct lease_counter *c, uint64_t now,
                                uint64_t units, uint64_t *ret_retry_ms);
void lease_take_away(struct lease_table *t, struct lease_counter *c, uint64_t units,
                     enum lease_look look);

#endif
