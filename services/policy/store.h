/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where counters live: in this process (store_memory.c) or in Redis (store_redis.c). A store serves
 * ops of leases, each atomically, and knows the epoch: one uninterrupted memory of its counters.
 *
 * A new epoch begins with one lease time in which nothing is granted (warming), so that leases of
 * the one before end, and its counters begin empty at the end of it. Only an epoch that is known to
 * be the first ever (`first`) begins full and at once.
 */
#ifndef POLICY_STORE_H
#define POLICY_STORE_H

#include "ledger.h"
#include "marks.h"

struct store_item {
    const struct lease_op *op;
    const struct ledger_rule *rule;
    struct ledger_window window; /* of `fixed` */
    char unit;                   /* what is counted: of the counter's name; 0: requests */
    bool durable;                /* a quota's: outlives epochs and processes */
    struct lease_result result;  /* lease and share are the caller's */
    bool lost; /* what was used of this window is not known any more: seed it; result is warming */
};

/* A counter, or all of a policy. */
struct store_counter {
    struct str policy, key; /* key.p == NULL: all */
    char unit;
    bool durable;
    const struct ledger_rule *rule;
    struct ledger_window window;
};
struct store_view {
    struct str key;
    uint64_t limit, used, leased, left, reset_ms;
};
typedef void (*store_view_fn)(void *ctx, const struct store_view *v);
enum { STORE_CURSOR_LEN = 32, STORE_LOST_RETRY_MS = 250 };

struct store_status {
    size_t counters; /* 0 when the store does not know */
    uint64_t overflows, evictions, errors, epochs, clock_steps, losses;
    uint64_t mark_writes, mark_failures; /* of the file of quotas */
    bool ready;
    char epoch[LEASE_ID_MAX + 1]; /* "" while there is none */
    char problem[160];            /* why it is not ready, "" when there is nothing to add */
};

struct store;
struct store_type {
    /* asked: the epoch that the edge knows. ERR_UNAVAILABLE: nothing was served (or nobody knows).
     * Fills ret_epoch (LEASE_ID_MAX + 1 bytes). */
    enum err (*serve)(struct store *s, struct str asked, struct store_item *items, size_t n,
                      char *ret_epoch, struct why *why);
    /* Calls fn for counters as they stand, about `most` of them, from a cursor on ("" to begin).
     * ret_cursor: where to go on, "" at the end. Counters that come or go meanwhile may be missed
     * or told twice. */
    enum err (*look)(struct store *s, const struct store_counter *c, const char *cursor,
                     size_t most, store_view_fn fn, void *ctx, char ret_cursor[STORE_CURSOR_LEN],
                     struct why *why);
    /* Nothing of it is used any more; leases that live stay. Durable ones that were lost and are
     * named by their key begin unused. Returns how many there were. */
    enum err (*reset)(struct store *s, const struct store_counter *c, size_t *ret_n,
                      struct why *why);
    /* A durable counter that is not there begins its window with so much used; of one that a
     * failover left in doubt at least that was used. */
    enum err (*seed)(struct store *s, const struct store_counter *c, uint64_t used,
                     struct why *why);
    /* About once a second: forgets idle counters, looks after the connection and the epoch. */
    void (*tick)(struct store *s);
    void (*status)(struct store *s, struct store_status *ret);
    void (*free)(struct store *s);
};
/* First member of each store. */
struct store {
    const struct store_type *type;
};

static inline enum err store_serve(struct store *s, struct str asked, struct store_item *items,
                                   size_t n, char *ret_epoch, struct why *why)
{
    return s->type->serve(s, asked, items, n, ret_epoch, why);
}
static inline enum err store_look(struct store *s, const struct store_counter *c,
                                  const char *cursor, size_t most, store_view_fn fn, void *ctx,
                                  char ret_cursor[STORE_CURSOR_LEN], struct why *why)
{
    return s->type->look(s, c, cursor, most, fn, ctx, ret_cursor, why);
}
static inline enum err store_reset(struct store *s, const struct store_counter *c, size_t *ret_n,
                                   struct why *why)
{
    return s->type->reset(s, c, ret_n, why);
}
static inline enum err store_seed(struct store *s, const struct store_counter *c, uint64_t used,
                                  struct why *why)
{
    return s->type->seed(s, c, used, why);
}
static inline void store_tick(struct store *s)
{
    s->type->tick(s);
}
static inline void store_status(struct store *s, struct store_status *ret)
{
    s->type->status(s, ret);
}
static inline void store_free(struct store *s)
{
    if (s != NULL) s->type->free(s);
}

/* An op can only be served under the epoch that its lease was granted in; a new lease always can.
 */
static inline bool store_op_is_stale(const struct lease_op *op, struct str asked, const char *epoch)
{
    bool new_lease = op->kind == LEASE_ASK && op->known == 0;
    return !new_lease && !str_eqz(asked, epoch);
}

/* --- memory --- */

/* Serves nothing until store_memory_begin(). Any thread. */
struct store *store_memory_new(const struct clock *clock, size_t max_counters);
/* Where durable counters are written down; borrowed. Without it they are lost with the epoch. */
void store_memory_keep(struct store *s, struct marks *m);
/* All counters are forgotten, but for the marks of durable ones; a new epoch begins now. */
void store_memory_begin(struct store *s, const char *epoch, bool first);
/* Before begin: the marks are not those of the time before, or there are none. Windows that have
 * begun by now have to be seeded. */
enum err store_memory_lose(struct store *s, struct why *why) MUSTCHECK;
/* What durable counters used, exactly, into the marks: at an orderly end. */
void store_memory_settle(struct store *s);
/* The right to grant is gone: serves nothing until the next begin. */
void store_memory_end(struct store *s);
/* Like begin's right, but for so long only (mono ns); 0: without end. */
void store_memory_until(struct store *s, uint64_t mono_ns);

/* --- Redis --- */

struct store_redis_options {
    const char *url;    /* redis://[:password@]host[:port][/db] */
    const char *prefix; /* of keys: that of the subjects */
    const struct clock *clock;
    const struct rng *rng;
    int timeout_ms; /* of one call; 0: 40 */
    /* Asked when Redis has no epoch: whether there has never been one; says so once, ever, to one
     * of the engines. While it fails no epoch begins. May be NULL: there has. */
    enum err (*is_first)(void *ctx, bool *ret);
    void *ctx;
    /* Something worth a log line. May be NULL. */
    void (*report)(void *ctx, int level, const char *what, const char *why);
};
/* ERR_INVALID when the address is not one. Does not connect yet. */
enum err store_redis_new(const struct store_redis_options *o, struct store **ret,
                         struct why *why) MUSTCHECK;

#endif
