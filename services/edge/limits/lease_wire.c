/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The lease table's messages: what is due goes out as a batch of ops. One op per counter is under
 * way at a time; all figures are cumulative (proto/lease_msg.h), so the only thing a lost reply
 * costs is time.
 */
#include <math.h>
#include <stdio.h>

#include "lease_table.h"

static bool has_news(const struct lease_counter *c)
{
    return c->spent != c->told_spent || c->returned != c->told_returned ||
           c->debt != c->told_debt || c->owed > 0;
}

/* Units to ask for on top of what the lease was granted; 0: none. */
static uint64_t to_ask(const struct lease_counter *c, uint64_t now)
{
    int64_t available = lease_available(c, now);
    uint64_t need = c->demanded ? 1 : 0;
    if (c->recheck_ns > now) need = 0; /* it was refused a moment ago */
    need = MAX(need, c->wanted);
    if (available < 0) return need + (uint64_t)-available;
    return need > (uint64_t)available ? need - (uint64_t)available : 0;
}

/* How fast it is used, by what was taken since the last op that looked. */
static void measure(struct lease_counter *c, uint64_t now)
{
    uint64_t ns = now - c->taken_ns;
    if (c->taken_ns == 0) {
        c->taken_ns = now;
        c->taken = 0;
        return;
    }
    if (ns < lease_life_ns(c) / 100) return;
    double rate = (double)c->taken / (double)ns;
    /* a pause much longer than a lease says nothing about the past */
    c->rate = c->rate == 0 || ns > 4 * lease_life_ns(c) ? rate : (c->rate + rate) / 2;
    c->taken = 0;
    c->taken_ns = now;
}

/* Units that a lease should hold to last for its life, when so many are expected to be used. */
static uint64_t supply(const struct lease_counter *c)
{
    double units = lease_expected(c, lease_life_ns(c));
    units += 2 * sqrt(units);
    return units < 1e12 ? (uint64_t)units : (uint64_t)1e12;
}

static uint64_t units_ahead(const struct lease_counter *c, uint64_t now)
{
    int64_t available = lease_available(c, now);
    uint64_t have = available > 0 ? (uint64_t)available : 0, want;
    if (c->rule.kind == LEASE_SLOTS)
        want = c->rule.limit > LEASE_EAGER_SLOTS ? c->busy / 4 + 1 : 0;
    else
        want = supply(c);
    return want > have ? want - have : 0;
}

/* Of what is held and not used, as much as will not be. From here on it is not ours. */
static void give_back(struct lease_counter *c, uint64_t now, uint64_t keep)
{
    int64_t available = lease_available(c, now);
    if (available > (int64_t)keep) c->returned += (uint64_t)available - keep;
}

static uint64_t least_wanted(const struct lease_counter *c)
{
    uint64_t least = UINT64_MAX;
    LIST_EACH(it, &c->queue)
    {
        least = MIN(least, LIST_ENTRY(it, struct lease_claim, node)->enough);
    }
    return least == UINT64_MAX ? 1 : MAX(least, UINT64_C(1));
}

/* Nobody used it for half its life, and others may need it or nobody is expected to. */
static bool is_idle(const struct lease_counter *c, uint64_t at)
{
    if (c->touched || at < c->half_ns) return false;
    return at >= c->renew_ns || c->rule.kind == LEASE_SLOTS || c->remaining < LEASE_FEW ||
           c->remaining < c->limit / 8 || lease_expected(c, lease_life_ns(c) / 2) < 1;
}

/* A lease that lives and is asked nothing of: idle ones go back, others are renewed in time. */
static bool plan_upkeep(struct lease_counter *c, uint64_t now, uint64_t at,
                        struct lease_batch_op *op)
{
    int64_t available = lease_available(c, now);
    bool slots = c->rule.kind == LEASE_SLOTS;
    bool in_use = slots ? c->busy > 0 : c->reserved > 0;
    uint64_t needs = slots ? 0 : supply(c);
    if ((c->eager && slots) || is_idle(c, at))
        give_back(c, now, 0);
    else if (at >= c->renew_ns)
        give_back(c, now, slots ? c->peak - c->busy : 2 * needs + 1);
    bool wanted = c->touched && (lease_available(c, now) > 0 || needs >= LEASE_PREFETCH_MIN);
    if (at >= c->renew_ns && (in_use || wanted)) {
        op->kind = LEASE_RENEW;
        if (needs >= LEASE_PREFETCH_MIN && (int64_t)needs > available && c->recheck_ns <= now) {
            op->kind = LEASE_ASK;
            op->want = 1;
        }
        return true;
    }
    if (!has_news(c) || !(c->eager || c->owed > 0 || c->returned != c->told_returned)) return false;
    op->kind = in_use ? LEASE_RENEW : c->returned != c->told_returned ? LEASE_RETURN : LEASE_SETTLE;
    return true;
}

/* Half of its life is over, and what is left is for little more than as long as asking ahead takes:
 * this turn asks, so that no request has to find out. */
static bool soon_low(const struct lease_counter *c, uint64_t at)
{
    return c->touched && at >= c->half_ns && lease_runs_low(c, at, lease_life_ns(c) / 4);
}

/* Which op c needs now; false: none. at: the time that it is done for, now or a little later. */
static bool plan(struct lease_table *t, struct lease_counter *c, uint64_t now, uint64_t at,
                 struct lease_batch_op *op)
{
    lease_end_if_over(c, now);
    measure(c, now);
    if (lease_is_stale(t, c)) {
        /* what runs on it goes on to its end; who wants more lives on the share till then */
        if (c->reserved > 0 || (c->wanted == 0 && c->rule.kind == LEASE_RATE)) {
            if (c->wanted > 0) c->away_until_ns = c->end_ns;
            return false;
        }
        lease_forget(c);
    }
    op->want = to_ask(c, now);
    op->min = 1;
    if (op->want == 0 && c->wanted > 0) return false; /* what is here is for them */
    if (op->want > 0) {
        op->kind = LEASE_ASK;
        op->min = least_wanted(c);
    } else if (c->live && c->recheck_ns <= now && (c->ahead || soon_low(c, at))) {
        op->kind = LEASE_ASK;
        op->want = 1;
    } else if (!c->live && (c->owed > 0 || c->debt != c->told_debt)) {
        op->kind = LEASE_ASK; /* of nothing, to bring the debt */
    } else if (!c->live || !plan_upkeep(c, now, at, op)) {
        return false;
    }
    if (op->kind == LEASE_ASK && op->want > 0) op->ahead = units_ahead(c, now);
    return true;
}

static void name_lease(struct lease_table *t, struct lease_counter *c, uint64_t now)
{
    uint64_t life = lease_life_ns(c);
    if (c->live) return;
    /* an ask whose reply was lost may have made it: asking by the same name finds out */
    if (c->number != 0 && now < c->named_ns) return;
    lease_forget(c);
    c->number = ++t->numbers;
    c->named_ns = now + life - life / 10;
}

static void write_op(struct lease_table *t, struct lease_counter *c, uint64_t now,
                     struct lease_batch_op *op)
{
    name_lease(t, c, now);
    c->debt += c->owed;
    c->owed = 0;
    op->counter = c;
    op->policy = c->policy;
    op->key = c->key;
    op->known = c->granted;
    op->spent = c->spent;
    op->returned = c->returned;
    op->debt = c->debt;
    int n = snprintf(op->lease, sizeof op->lease, "%s.%llu", t->incarnation,
                     (unsigned long long)c->number);
    ASSERT(n > 0 && (size_t)n < sizeof op->lease);
    c->inflight = true;
    c->touched = c->ahead = c->eager = c->demanded = false;
    c->peak = c->busy;
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

/* Whether c, which is not due yet, goes along with a message. */
static bool goes_along(const struct lease_table *t, const struct lease_counter *c, uint64_t now)
{
    uint64_t early = MIN(lease_life_ns(c) / 8, LEASE_ALONG_MS * LEASE_MS);
    if (t->away || c->due_ns > now + early || lease_is_stale(t, c)) return false;
    return c->ahead || c->eager || c->owed > 0 || (c->live && c->due_ns == c->renew_ns);
}

bool lease_collect(struct lease_table *t, uint64_t now, struct lease_batch *b)
{
    size_t most = LEASE_BATCH_OPS;
    pthread_mutex_lock(&t->lock);
    begin_batch(t, now, b);
    if (t->away) most = now >= t->probe_ns ? LEASE_PROBE_OPS : 0;
    while (t->heap_n > 0) {
        struct lease_counter *c = t->heap[1];
        struct lease_batch_op *op = &b->ops[b->n];
        uint64_t due = c->due_ns;
        if (due > now && (b->n == 0 || !goes_along(t, c, now))) break;
        if (b->n == most) {
            if (!t->away) break;
            lease_set_due(t, c, MAX(t->probe_ns, now) + (most > 0 ? LEASE_PROBE_MS * LEASE_MS : 1));
            continue;
        }
        *op = (struct lease_batch_op){ .min = 1 };
        lease_set_due(t, c, LEASE_NEVER_NS);
        if (plan(t, c, now, MAX(now, due), op)) {
            write_op(t, c, now, op);
            b->n++;
        } else {
            c->demanded = c->ahead = c->eager = false;
            lease_next_turn(t, MAX(now, due), c);
            /* with nothing to do now it is not due now, or this would never end */
            if (c->due_ns <= now) lease_set_due(t, c, lease_next_tick(c, now));
        }
    }
    if (t->away && b->n > 0) t->probe_ns = now + LEASE_PROBE_MS * LEASE_MS;
    bool any = b->n > 0 || (t->edges > 0 && now >= t->news_ns);
    if (any) t->news_ns = now + LEASE_NEWS_MS * LEASE_MS;
    lease_unlock(t);
    return any;
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
        if (lease_is_stale(t, c)) continue;
        if (c->live) give_back(c, now, 0);
        if (!has_news(c)) continue;
        b->ops[b->n] = (struct lease_batch_op){ .kind = c->live ? LEASE_RETURN : LEASE_ASK,
                                                .min = 1 };
        write_op(t, c, now, &b->ops[b->n++]);
    }
    lease_unlock(t);
    return b->n > 0;
}

bool lease_is_awaited(struct lease_table *t, const struct lease_batch *b)
{
    bool awaited = false;
    pthread_mutex_lock(&t->lock);
    for (size_t i = 0; i < b->n && !awaited; i++) awaited = b->ops[i].counter->wanted > 0;
    pthread_mutex_unlock(&t->lock);
    return awaited;
}
