/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The lease table's messages: what is due goes out as a batch of ops, what comes back changes the
 * leases and decides those who wait. One op per counter is under way at a time; all figures are
 * cumulative (proto/lease_msg.h), so the only thing a lost reply costs is time.
 */
#include <stdio.h>

#include "lease_table.h"

/* --- going out --- */

/* A lease of an epoch that is over can be used up, but not renewed or asked for more. */
static bool stale(const struct lease_table *t, const struct lease_counter *c)
{
    return c->live && c->epoch_no != t->epoch_no;
}

/* Units to ask for on top of what the lease was granted; 0: none. */
static uint64_t to_ask(const struct lease_counter *c, uint64_t now)
{
    int64_t available = lease_available(c, now);
    uint64_t need = c->demanded || c->ahead ? 1 : 0;
    if (c->recheck_ns > now) need = 0; /* it was refused a moment ago */
    need = MAX(need, c->wanted);
    if (need == 0 && available >= 0) return 0;
    if (c->ahead && c->wanted == 0) return available >= 0 ? 1 : (uint64_t)-available;
    if (available >= (int64_t)need) return 0;
    return (uint64_t)((int64_t)need - available);
}

static uint64_t least_wanted(const struct lease_counter *c)
{
    uint64_t least = UINT64_MAX;
    LIST_EACH(it, &c->queue)
    {
        least = MIN(least, LIST_ENTRY(it, struct lease_claim, node)->units);
    }
    return least == UINT64_MAX ? 1 : MAX(least, UINT64_C(1));
}

/* Which op c needs now; false: none. Gives back what is idle: from here on it is not ours. */
static bool plan(struct lease_table *t, struct lease_counter *c, uint64_t now,
                 struct lease_batch_op *op)
{
    uint64_t want;
    lease_end_if_over(c, now);
    if (stale(t, c) && (c->wanted > 0 || c->rule.kind == LEASE_SLOTS)) lease_forget(c);
    if (stale(t, c)) {
        lease_set_due(t, c, c->end_ns);
        return false;
    }
    want = to_ask(c, now);
    int64_t available = lease_available(c, now);
    if (want > 0) {
        op->kind = LEASE_ASK;
        op->min = least_wanted(c);
        if (!c->live) c->number = ++t->numbers;
    } else if (!c->live) {
        return false;
    } else if (available > 0 && !c->touched) {
        c->returned += (uint64_t)available;
        op->kind = c->rule.kind == LEASE_SLOTS && c->busy > 0 ? LEASE_RENEW : LEASE_RETURN;
    } else if (available > 0 || c->rule.kind == LEASE_SLOTS) {
        op->kind = LEASE_RENEW;
    } else if (c->spent != c->told_spent || c->returned != c->told_returned) {
        op->kind = LEASE_SETTLE;
    } else {
        lease_forget(c); /* all spent, and the engine knows */
        return false;
    }
    op->want = want;
    return true;
}

static void write_op(struct lease_table *t, struct lease_counter *c, struct lease_batch_op *op)
{
    op->counter = c;
    op->policy = c->policy;
    op->key = c->key;
    op->known = c->granted;
    op->spent = c->spent;
    op->returned = c->returned;
    int n = snprintf(op->lease, sizeof op->lease, "%s.%llu", t->incarnation,
                     (unsigned long long)c->number);
    ASSERT(n > 0 && (size_t)n < sizeof op->lease);
    c->inflight = true;
    c->touched = c->ahead = c->demanded = false;
    c->pins++;
    lease_set_due(t, c, LEASE_NEVER_NS);
    switch (op->kind) {
    case LEASE_ASK: t->stats.asks++; break;
    case LEASE_RENEW: t->stats.renews++; break;
    case LEASE_RETURN: t->stats.returns++; break;
    default: t->stats.settles++;
    }
}

static void begin_batch(const struct lease_table *t, uint64_t now, struct lease_batch *b)
{
    b->asked_ns = now;
    b->n = 0;
    memcpy(b->epoch, t->epoch, sizeof b->epoch);
}

bool lease_collect(struct lease_table *t, uint64_t now, struct lease_batch *b)
{
    size_t most = LEASE_BATCH_OPS;
    pthread_mutex_lock(&t->lock);
    begin_batch(t, now, b);
    if (t->away) most = now >= t->probe_ns ? LEASE_PROBE_OPS : 0;
    while (t->heap_n > 0 && t->heap[1]->due_ns <= now) {
        struct lease_counter *c = t->heap[1];
        struct lease_batch_op *op = &b->ops[b->n];
        if (b->n == most) {
            if (!t->away) break;
            lease_set_due(t, c, MAX(t->probe_ns, now) + (most > 0 ? LEASE_PROBE_MS * LEASE_MS : 1));
            continue;
        }
        *op = (struct lease_batch_op){ .min = 1 };
        lease_set_due(t, c, LEASE_NEVER_NS);
        if (!plan(t, c, now, op)) {
            c->demanded = c->ahead = false;
            continue;
        }
        write_op(t, c, op);
        b->n++;
    }
    if (t->away && b->n > 0) t->probe_ns = now + LEASE_PROBE_MS * LEASE_MS;
    lease_unlock(t);
    return b->n > 0;
}

bool lease_collect_all(struct lease_table *t, uint64_t now, struct lease_batch *b)
{
    pthread_mutex_lock(&t->lock);
    begin_batch(t, now, b);
    LIST_EACH(it, &t->lru)
    {
        struct lease_counter *c = LIST_ENTRY(it, struct lease_counter, lru);
        if (b->n == LEASE_BATCH_OPS) break;
        if (c->inflight) continue;
        lease_end_if_over(c, now);
        if (!c->live || stale(t, c)) continue;
        int64_t available = lease_available(c, now);
        if (available > 0) c->returned += (uint64_t)available;
        bool news = c->spent != c->told_spent || c->returned != c->told_returned;
        if (!news) continue;
        b->ops[b->n] = (struct lease_batch_op){ .kind = LEASE_RETURN, .min = 1 };
        write_op(t, c, &b->ops[b->n++]);
    }
    lease_unlock(t);
    return b->n > 0;
}

/* --- coming back --- */

/* When c needs its next turn. */
static void set_next_turn(struct lease_table *t, uint64_t now, struct lease_counter *c)
{
    bool uncovered = c->rule.kind == LEASE_SLOTS && c->busy > 0 && !c->live;
    uint64_t due = LEASE_NEVER_NS;
    if (c->live) due = stale(t, c) ? c->end_ns : MIN(MAX(c->half_ns, now), c->end_ns);
    if (uncovered) due = MAX(now, c->recheck_ns);
    if (c->wanted > 0 || c->demanded) due = now;
    due = MAX(due, MAX(c->not_before_ns, c->away_until_ns));
    if (t->away && due != LEASE_NEVER_NS) due = MAX(due, t->probe_ns);
    lease_set_due(t, c, due);
}

static void op_is_back(struct lease_counter *c)
{
    ASSERT(c->inflight && c->pins > 0);
    c->inflight = false;
    c->pins--;
}

static void is_away(struct lease_counter *c, uint64_t now, uint64_t retry_ms)
{
    uint64_t ms = MIN(MAX(retry_ms, (uint64_t)20), (uint64_t)LEASE_PROBE_MS);
    c->away_until_ns = now + ms * LEASE_MS;
}

/* The engine knows the counter and said how it stands. */
static void is_there(struct lease_counter *c, uint64_t now, const struct lease_result *r)
{
    c->told = true;
    c->limit = r->limit;
    c->remaining = r->remaining;
    c->reset_ns = now + r->reset_ms * LEASE_MS;
    c->share = r->share;
    c->share_told = true;
    c->away_until_ns = c->unknown_since_ns = c->not_before_ns = 0;
    c->local_ns = 0;
    c->never = false;
    c->retry_ns = c->recheck_ns = 0;
}

static void is_refused(struct lease_counter *c, uint64_t now, uint64_t retry_ms)
{
    uint64_t ms = MIN(MAX(retry_ms, (uint64_t)1), (uint64_t)LEASE_RECHECK_MAX_MS);
    c->retry_ns = now + MAX(retry_ms, (uint64_t)1) * LEASE_MS;
    c->recheck_ns = now + ms * LEASE_MS;
}

/* Rule 2: the lease lives from when we asked, less 1 % for clocks that run at other rates. */
static void prolong(struct lease_table *t, struct lease_counter *c, const struct lease_batch *b,
                    const struct lease_batch_op *op, const struct lease_result *r)
{
    uint64_t ttl_ns = MIN(r->ttl_ms, (uint64_t)LEASE_TTL_MS) * LEASE_MS;
    uint64_t end = b->asked_ns + ttl_ns - ttl_ns / 100;
    if (r->granted > c->granted) {
        t->stats.granted_units += r->granted - c->granted;
        c->last_grant = r->granted - c->granted;
        c->granted = r->granted;
    }
    c->live = c->granted > 0;
    c->epoch_no = t->epoch_no;
    c->told_spent = MAX(c->told_spent, op->spent);
    c->told_returned = MAX(c->told_returned, op->returned);
    if (op->kind == LEASE_ASK || op->kind == LEASE_RENEW) {
        c->end_ns = MAX(c->end_ns, end);
        c->half_ns = b->asked_ns + ttl_ns / 2;
    } else {
        c->half_ns = c->end_ns; /* it may end now */
    }
}

static void apply_one(struct lease_table *t, uint64_t now, const struct lease_batch *b,
                      const struct lease_batch_op *op, const struct lease_result *r)
{
    struct lease_counter *c = op->counter;
    bool asked = op->kind == LEASE_ASK;
    switch (r->status) {
    case LEASE_GRANTED:
    case LEASE_REFUSED:
        is_there(c, now, r);
        if (!c->live) c->end_ns = 0;
        if (r->granted > 0 || c->live) prolong(t, c, b, op, r);
        if (asked && r->granted < op->known + op->want) is_refused(c, now, r->retry_ms);
        break;
    case LEASE_NEVER:
        is_there(c, now, r);
        is_refused(c, now, 1000);
        c->never = true;
        break;
    case LEASE_ENDED: lease_forget(c); break;
    case LEASE_STALE_EPOCH:
        c->epoch_no = 0; /* of no epoch that will ever be: use it up */
        if (!c->live) lease_forget(c);
        break;
    case LEASE_UNKNOWN_POLICY:
        lease_forget(c);
        if (c->unknown_since_ns == 0) c->unknown_since_ns = now;
        c->not_before_ns = now + LEASE_UNKNOWN_MS * LEASE_MS;
        if (now - c->unknown_since_ns >= t->ask_timeout_ns) is_away(c, now, LEASE_PROBE_MS);
        break;
    case LEASE_WARMING:
    case LEASE_UNAVAILABLE: is_away(c, now, r->retry_ms); break;
    default: is_away(c, now, LEASE_PROBE_MS); t->stats.invalid++;
    }
}

static bool fits(const struct lease_batch *b, const struct lease_reply *r)
{
    if (r->results_n != b->n) return false;
    for (size_t i = 0; i < b->n; i++)
        if (!str_eqz(r->results[i].lease, b->ops[i].lease)) return false;
    return true;
}

static void fail_locked(struct lease_table *t, uint64_t now, const struct lease_batch *b,
                        struct list_node *done)
{
    /* one lost message says nothing, the less when others were answered meanwhile */
    if (t->answered_ns < b->asked_ns) t->failures++;
    if (t->failures >= LEASE_AWAY_FAILURES) {
        if (!t->away) t->away_since_ns = now;
        t->away = true;
        t->probe_ns = now + LEASE_PROBE_MS * LEASE_MS;
    }
    for (size_t i = 0; i < b->n; i++) {
        struct lease_counter *c = b->ops[i].counter;
        op_is_back(c);
        lease_end_if_over(c, now);
        lease_resolve(t, now, c, done);
        set_next_turn(t, now, c);
    }
}

void lease_fail(struct lease_table *t, uint64_t now, const struct lease_batch *b,
                struct list_node *done)
{
    pthread_mutex_lock(&t->lock);
    fail_locked(t, now, b, done);
    lease_unlock(t);
}

enum err lease_apply(struct lease_table *t, uint64_t now, const struct lease_batch *b,
                     const struct lease_reply *r, struct list_node *done)
{
    enum err e = ERR_OK;
    pthread_mutex_lock(&t->lock);
    if (!fits(b, r)) {
        fail_locked(t, now, b, done);
        e = ERR_INVALID;
        goto out;
    }
    t->away = false;
    t->failures = 0;
    t->answered_ns = now;
    t->edges = r->edges;
    if (!str_eqz(r->epoch, t->epoch)) {
        (void)str_copyz(t->epoch, sizeof t->epoch, r->epoch);
        t->epoch_no++;
        t->stats.epochs++;
    }
    /* all leases first, then the decisions: a waiter may lack several of these counters */
    for (size_t i = 0; i < b->n; i++) {
        struct lease_counter *c = b->ops[i].counter;
        apply_one(t, now, b, &b->ops[i], &r->results[i]);
        op_is_back(c);
        lease_end_if_over(c, now);
    }
    for (size_t i = 0; i < b->n; i++) {
        struct lease_counter *c = b->ops[i].counter;
        lease_resolve(t, now, c, done);
        set_next_turn(t, now, c);
    }
out:
    lease_unlock(t);
    return e;
}
