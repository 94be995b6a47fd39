/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The lease table's messages coming back: they change the leases, decide those who wait, and say
 * when a counter has its next turn.
 */
#include "lease_table.h"

bool lease_is_stale(const struct lease_table *t, const struct lease_counter *c)
{
    return c->live && c->epoch_no != t->epoch_no;
}

void lease_next_turn(struct lease_table *t, uint64_t now, struct lease_counter *c)
{
    bool uncovered = c->rule.kind == LEASE_SLOTS && c->busy > 0 && !c->live;
    uint64_t due = LEASE_NEVER_NS;
    if (c->inflight) return;
    if (lease_is_stale(t, c))
        due = c->end_ns;
    else if (c->live)
        due = now < c->half_ns ? c->half_ns : now < c->renew_ns ? c->renew_ns : c->end_ns;
    if (uncovered) due = MAX(now, c->recheck_ns);
    if (c->owed > 0 || c->debt != c->told_debt || c->eager) due = MIN(due, lease_next_tick(c, now));
    if (c->demanded || (int64_t)c->wanted > MAX(lease_available(c, now), INT64_C(0))) {
        due = now;
    } else if (c->wanted > 0) { /* what came back is enough for them: nothing is to be asked */
        lease_judge_at(t, c, now);
        due = MIN(due, lease_next_tick(c, now));
    }
    if (due == LEASE_NEVER_NS) {
        lease_set_due(t, c, due);
        return;
    }
    due = MAX(due, MAX(c->not_before_ns, c->away_until_ns));
    if (t->away) due = MAX(due, t->probe_ns);
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
static void is_there(struct lease_counter *c, uint64_t now, const struct lease_result *r,
                     uint64_t edges)
{
    c->told = true;
    c->told_ns = now;
    c->limit = r->limit;
    c->remaining = r->remaining;
    c->reset_ns = now + r->reset_ms * LEASE_MS;
    if (edges > 0) c->share = r->share;
    if (edges > 0) c->share_told = true;
    c->away_until_ns = c->unknown_since_ns = c->not_before_ns = 0;
    c->never = false;
    c->retry_ns = c->recheck_ns = 0;
    lease_end_local(c, now);
}

/* How long a refusal is believed. Where units flow fast, asking for each would be all that we do:
 * so long as the counter does not overflow meanwhile, a few are waited for. */
static uint64_t believed_ns(const struct lease_counter *c, uint64_t retry_ms)
{
    uint64_t ms = MIN(MAX(retry_ms, (uint64_t)1), (uint64_t)LEASE_RECHECK_MAX_MS), flow;
    if (c->rule.kind != LEASE_RATE) return ms * LEASE_MS;
    flow = c->rule.window_ms * LEASE_MS / MAX(c->rule.limit, UINT64_C(1)) * c->rule.capacity / 4;
    return MAX(ms * LEASE_MS, MIN(flow, LEASE_RECHECK_MIN_MS * LEASE_MS));
}

static void is_refused(struct lease_counter *c, uint64_t now, uint64_t retry_ms)
{
    c->retry_ns = now + MAX(retry_ms, (uint64_t)1) * LEASE_MS;
    c->recheck_ns = now + believed_ns(c, retry_ms);
}

/* Rule 2: the lease lives from when we asked, less 1 % for clocks that run at other rates. */
static void prolong(struct lease_table *t, struct lease_counter *c, const struct lease_batch *b,
                    const struct lease_batch_op *op, const struct lease_result *r)
{
    uint64_t ttl_ns = MIN(r->ttl_ms, (uint64_t)LEASE_TTL_MS) * LEASE_MS, before = c->end_ns;
    uint64_t end = b->asked_ns + ttl_ns - ttl_ns / 100;
    if (!c->live) c->end_ns = before = 0;
    if (r->granted > c->granted) {
        t->stats.granted_units += r->granted - c->granted;
        c->last_grant = r->granted - c->granted;
        c->granted = r->granted;
    }
    c->live = c->granted > 0;
    c->epoch_no = t->epoch_no;
    if (op->kind != LEASE_ASK && op->kind != LEASE_RENEW) return;
    c->end_ns = MAX(c->end_ns, end);
    c->half_ns = b->asked_ns + ttl_ns / 2;
    c->renew_ns = b->asked_ns + ttl_ns - ttl_ns / 8;
    /* It ends with its window: renewing it again will not prolong it. (One that was prolonged a
     * moment ago is not prolonged by much either, but for its full life.) */
    bool cut = ttl_ns + LEASE_MS < lease_life_ns(c);
    if (cut && before != 0 && c->end_ns < before + ttl_ns / 4) c->renew_ns = LEASE_NEVER_NS;
}

/* It has our report. */
static void is_told(struct lease_counter *c, const struct lease_batch_op *op)
{
    c->told_spent = MAX(c->told_spent, op->spent);
    c->told_returned = MAX(c->told_returned, op->returned);
    c->told_debt = MAX(c->told_debt, op->debt);
}

static void apply_one(struct lease_table *t, uint64_t now, const struct lease_batch *b,
                      const struct lease_batch_op *op, const struct lease_result *r, uint64_t edges)
{
    struct lease_counter *c = op->counter;
    bool asked = op->kind == LEASE_ASK;
    switch (r->status) {
    case LEASE_GRANTED:
    case LEASE_REFUSED:
        is_there(c, now, r, edges);
        is_told(c, op);
        if (r->granted > 0 || c->live) prolong(t, c, b, op, r);
        if (asked && r->granted < op->known + op->want) is_refused(c, now, r->retry_ms);
        break;
    case LEASE_NEVER:
        is_there(c, now, r, edges);
        is_told(c, op);
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
        c->owed = 0; /* there is nothing to charge */
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
    /* one lost message says nothing, the less when others were answered meanwhile; nor does one
     * that nobody needs */
    if (b->n > 0 && t->answered_ns < b->asked_ns && t->failures++ == 0)
        t->failing_since_ns = b->asked_ns;
    if (t->failures >= LEASE_AWAY_FAILURES) {
        t->away = true;
        t->probe_ns = now + LEASE_PROBE_MS * LEASE_MS;
    }
    for (size_t i = 0; i < b->n; i++) {
        struct lease_counter *c = b->ops[i].counter;
        op_is_back(c);
        /* nothing is ours again that we wanted to give back, and renewing is tried again */
        c->touched = true;
        lease_end_if_over(c, now);
        lease_resolve(t, now, c, done);
        lease_next_turn(t, now, c);
        if (c->live && !lease_is_stale(t, c)) lease_due_by(t, c, lease_next_tick(c, now));
    }
}

void lease_fail(struct lease_table *t, uint64_t now, const struct lease_batch *b,
                struct list_node *done)
{
    pthread_mutex_lock(&t->lock);
    fail_locked(t, now, b, done);
    lease_unlock(t);
}

/* Among how many we share; 0: not known. A late answer makes our share smaller only. */
static void told_edges(struct lease_table *t, uint64_t edges, bool late)
{
    if (edges > 0 && (!late || (t->edges > 0 && edges > t->edges))) t->edges = edges;
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
    told_edges(t, r->edges, now - b->asked_ns > LEASE_LOWER_MS * LEASE_MS);
    if (!str_eqz(r->epoch, t->epoch)) {
        (void)str_copyz(t->epoch, sizeof t->epoch, r->epoch);
        t->epoch_no++;
        t->stats.epochs++;
    }
    /* all leases first, then the decisions: a waiter may lack several of these counters */
    for (size_t i = 0; i < b->n; i++) {
        struct lease_counter *c = b->ops[i].counter;
        apply_one(t, now, b, &b->ops[i], &r->results[i], r->edges);
        op_is_back(c);
        lease_end_if_over(c, now);
    }
    for (size_t i = 0; i < b->n; i++) {
        struct lease_counter *c = b->ops[i].counter;
        lease_resolve(t, now, c, done);
        lease_next_turn(t, now, c);
    }
out:
    lease_unlock(t);
    return e;
}
