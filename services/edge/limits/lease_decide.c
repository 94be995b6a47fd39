/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The decision over all claims of a request, at its admission and when it wants more; those who
 * wait for units. Any thread; see lease.h.
 */
#include "lease_table.h"

static struct lease_view view_of(const struct lease_counter *c, uint64_t now)
{
    int64_t available = lease_available(c, now);
    uint64_t own = available > 0 ? (uint64_t)available : 0;
    struct lease_view v = { .limit = c->rule.capacity };
    v.remaining = MIN(own + (c->told ? c->remaining : 0), v.limit);
    v.reset_ms = c->reset_ns > now ? (c->reset_ns - now + LEASE_MS - 1) / LEASE_MS : 0;
    v.retry_ms = c->retry_ns > now ? (c->retry_ns - now + LEASE_MS - 1) / LEASE_MS : 0;
    return v;
}

/* What one counter says, and to how many units. */
struct said {
    enum lease_look look;
    uint64_t units;
    uint64_t ns; /* of SOON: how long */
};

/* last: the time to wait is over. Changes nothing but a lease that is over. */
static struct said look(struct lease_table *t, struct lease_claim *claim, uint64_t now, bool last,
                        struct lease_view *ret_view)
{
    struct lease_counter *c = claim->counter;
    const struct lease_waiter *w = lease_waiter_of(claim);
    struct said a = { LEASE_LOOK_HAVE, claim->need, 0 };
    int64_t available;
    if (claim->need == 0) return a;
    a.look = LEASE_LOOK_UNAVAILABLE;
    if (c == NULL) return a; /* no memory for a counter */
    lease_end_if_over(c, now);
    available = lease_available(c, now);
    if (available >= (int64_t)claim->need) {
        a.look = LEASE_LOOK_HAVE;
        return a;
    }
    *ret_view = view_of(c, now);
    a.look = LEASE_LOOK_REFUSE;
    if (claim->enough > c->rule.capacity || claim->enough > c->rule.limit) {
        ret_view->never = true;
        return a;
    }
    bool refused = c->recheck_ns > now, cannot_ask = t->away || c->away_until_ns > now;
    if (!refused && !last && !cannot_ask) {
        a.look = LEASE_LOOK_LACK;
        return a;
    }
    if (available >= (int64_t)claim->enough) { /* less than it would like, but all there is */
        a.look = LEASE_LOOK_HAVE;
        a.units = (uint64_t)available;
        return a;
    }
    if (refused) {
        ret_view->never = c->never;
        return a;
    }
    uint64_t until = last ? now : w->waiting ? w->deadline_ns : now + t->ask_timeout_ns;
    a.look = lease_look_away(t, c, now, until, w->waiting, claim->need, claim->enough, &a.units,
                             &a.ns);
    if (a.look == LEASE_LOOK_REFUSE) ret_view->retry_ms = a.ns / LEASE_MS + 1;
    return a;
}

void lease_taken(struct lease_table *t, uint64_t now, struct lease_counter *c)
{
    c->touched = true;
    if (c->inflight || !c->live) return;
    if (!c->ahead && lease_runs_low(c, now, 0)) {
        c->ahead = true;
        lease_due_by(t, c, lease_next_tick(c, now));
    }
    /* where little is left, others want to know how it stands */
    if (c->rule.kind == LEASE_RATE && c->remaining < LEASE_FEW && !c->eager) {
        c->eager = true;
        lease_due_by(t, c, lease_next_tick(c, now));
    }
}

static void take(struct lease_table *t, uint64_t now, struct lease_claim *claim,
                 const struct said *a)
{
    struct lease_counter *c = claim->counter;
    bool leased = a->look == LEASE_LOOK_HAVE;
    if (c == NULL || claim->need == 0) return;
    if (c->rule.kind == LEASE_SLOTS) {
        c->busy += a->units;
        c->peak = MAX(c->peak, c->busy);
        claim->held = true;
    } else if (claim->reserve) {
        if (leased) {
            lease_reserve(claim, a->units);
        } else {
            claim->allowed = a->look == LEASE_LOOK_ALLOW;
            if (c->local != NULL) claim->local_of = c->local->begun_ns;
            claim->reserved += a->units;
            claim->local += a->units;
        }
        claim->held = true;
    } else if (leased) {
        c->spent += a->units;
    }
    if (a->look == LEASE_LOOK_ALLOW && c->rule.calendar) c->owed += a->units;
    if (a->look == LEASE_LOOK_SHARE) lease_take_local(c, now, a->units);
    c->taken += a->units;
    if (leased) lease_taken(t, now, c);
}

static void note_tightest(const struct lease_view *v, size_t i, size_t none, size_t *tightest,
                          struct lease_view *view)
{
    if (*tightest < none &&
        (double)v->remaining * (double)view->limit >= (double)view->remaining * (double)v->limit)
        return;
    *tightest = i;
    *view = *v;
}

/* Claims that hold nothing let their counters go. */
static void unpin(struct lease_waiter *w)
{
    for (size_t i = 0; i < w->claims_n; i++) {
        struct lease_claim *claim = &w->claims[i];
        if (claim->counter == NULL || claim->held) continue;
        claim->counter->pins--;
        claim->counter = NULL;
    }
}

static void note_shadow(struct lease_waiter *w, size_t i, enum lease_look l)
{
    if (!w->claims[i].shadow || (l != LEASE_LOOK_REFUSE && l != LEASE_LOOK_UNAVAILABLE)) return;
    w->shadow_refused++;
    w->shadow_mask |= UINT32_C(1) << i;
}

static void settle_claims(struct lease_table *t, uint64_t now, struct lease_waiter *w,
                          const struct said answers[LEASE_MAX_CLAIMS])
{
    for (size_t i = 0; i < w->claims_n; i++) {
        struct lease_claim *claim = &w->claims[i];
        const struct said *a = &answers[i];
        note_shadow(w, i, a->look);
        if (w->verdict == LEASE_VERDICT_OK && a->look != LEASE_LOOK_REFUSE &&
            a->look != LEASE_LOOK_UNAVAILABLE) {
            take(t, now, claim, a);
            if (a->look == LEASE_LOOK_ALLOW) w->allowed++;
            if (a->look == LEASE_LOOK_SHARE) w->shared++;
        }
        claim->need = 0;
        if (claim->counter == NULL || claim->shadow || claim->quiet ||
            claim->counter->rule.kind != LEASE_RATE)
            continue;
        struct lease_view v = view_of(claim->counter, now);
        if (claim->reserve)
            note_tightest(&v, i, w->claims_n, &w->tightest_reserve, &w->tightest_reserve_view);
        else
            note_tightest(&v, i, w->claims_n, &w->tightest, &w->tightest_view);
    }
    unpin(w);
}

/* Decides all claims, or says WAIT and which lack. */
static enum lease_verdict judge(struct lease_table *t, uint64_t now, struct lease_waiter *w,
                                bool last, struct said answers[LEASE_MAX_CLAIMS])
{
    enum lease_verdict verdict = LEASE_VERDICT_OK;
    w->shadow_refused = w->allowed = w->shared = 0;
    w->shadow_mask = 0;
    w->tightest = w->tightest_reserve = w->refused_by = w->claims_n;
    for (size_t i = 0; i < w->claims_n; i++) {
        struct lease_view v = { 0 };
        answers[i] = look(t, &w->claims[i], now, last, &v);
        enum lease_look l = answers[i].look;
        if (l == LEASE_LOOK_LACK || l == LEASE_LOOK_SOON) {
            if (verdict == LEASE_VERDICT_OK) verdict = LEASE_VERDICT_WAIT;
        } else if (l == LEASE_LOOK_REFUSE || l == LEASE_LOOK_UNAVAILABLE) {
            if (w->claims[i].shadow || verdict >= LEASE_VERDICT_REFUSED) continue;
            verdict = l == LEASE_LOOK_REFUSE ? LEASE_VERDICT_REFUSED : LEASE_VERDICT_UNAVAILABLE;
            w->refused_by = i;
            w->refused_view = v;
        }
    }
    w->verdict = verdict;
    w->decided_ns = now;
    if (verdict != LEASE_VERDICT_WAIT) settle_claims(t, now, w, answers);
    return verdict;
}

/* --- waiting --- */

static void enqueue(struct lease_table *t, uint64_t now, struct lease_waiter *w,
                    const struct said answers[LEASE_MAX_CLAIMS])
{
    for (size_t i = 0; i < w->claims_n; i++) {
        struct lease_claim *claim = &w->claims[i];
        struct lease_counter *c = claim->counter;
        if (answers[i].look != LEASE_LOOK_LACK && answers[i].look != LEASE_LOOK_SOON) continue;
        claim->queued = true;
        list_push_back(&c->queue, &claim->node);
        c->wanted += claim->need;
        if (answers[i].look == LEASE_LOOK_SOON)
            lease_judge_at(t, c, now + answers[i].ns);
        else
            lease_due_by(t, c, now);
    }
}

static void dequeue(struct lease_waiter *w)
{
    for (size_t i = 0; i < w->claims_n; i++) {
        struct lease_claim *claim = &w->claims[i];
        if (!claim->queued) continue;
        claim->queued = false;
        list_remove(&claim->node);
        claim->counter->wanted -= claim->need;
    }
}

static enum lease_verdict begin(struct lease_table *t, uint64_t now, struct lease_waiter *w)
{
    struct said answers[LEASE_MAX_CLAIMS];
    enum lease_verdict verdict = judge(t, now, w, false, answers);
    if (verdict != LEASE_VERDICT_WAIT) return verdict;
    w->deadline_ns = now + t->ask_timeout_ns;
    w->waiting = true;
    t->waiting++;
    list_push_back(&t->waiters, &w->node);
    enqueue(t, now, w, answers);
    return verdict;
}

static enum lease_verdict admit(struct lease_table *t, uint64_t now, struct lease_waiter *w)
{
    for (size_t i = 0; i < w->claims_n; i++) {
        struct lease_claim *claim = &w->claims[i];
        claim->need = claim->enough = claim->units;
        if (!claim->reserve || claim->counter == NULL) continue;
        claim->reserved = claim->spent = claim->local = 0;
        if (claim->least > 0) claim->enough = MIN(claim->least, claim->units);
        claim->need = MAX(MIN(claim->need, claim->counter->rule.capacity), claim->enough);
    }
    return begin(t, now, w);
}

enum lease_verdict lease_admit(struct lease_table *t, uint64_t now, struct lease_waiter *w)
{
    ASSERT(w->claims_n <= LEASE_MAX_CLAIMS && !w->waiting);
    pthread_mutex_lock(&t->lock);
    enum lease_verdict verdict = admit(t, now, w);
    lease_unlock(t);
    return verdict;
}

enum lease_verdict lease_bind_and_admit(struct lease_table *t, uint64_t now, struct lease_waiter *w,
                                        const struct lease_binding *b, uint64_t input,
                                        uint64_t *ret_covers)
{
    ASSERT(w->claims_n <= LEASE_MAX_CLAIMS && !w->waiting);
    pthread_mutex_lock(&t->lock);
    lease_bind_all(t, now, w, b);
    enum lease_verdict verdict = admit(t, now, w);
    if (verdict == LEASE_VERDICT_OK) *ret_covers = lease_covered(w, now, input);
    lease_unlock(t);
    return verdict;
}

enum lease_verdict lease_extend(struct lease_table *t, uint64_t now, struct lease_waiter *w,
                                uint64_t input, uint64_t output, uint64_t least)
{
    ASSERT(!w->waiting);
    pthread_mutex_lock(&t->lock);
    for (size_t i = 0; i < w->claims_n; i++) {
        struct lease_claim *claim = &w->claims[i];
        claim->need = 0;
        if (!claim->reserve || claim->counter == NULL) continue;
        claim->enough = input * claim->per_input + MIN(least, output) * claim->per_output;
        claim->need = input * claim->per_input + output * claim->per_output;
        claim->need = MAX(MIN(claim->need, claim->counter->rule.capacity), claim->enough);
    }
    enum lease_verdict verdict = begin(t, now, w);
    lease_unlock(t);
    return verdict;
}

/* A waiter that was taken out of all queues: decided now, or queued again. */
static void judge_again(struct lease_table *t, uint64_t now, struct lease_waiter *w,
                        struct list_node *done)
{
    struct said answers[LEASE_MAX_CLAIMS];
    if (judge(t, now, w, now >= w->deadline_ns, answers) == LEASE_VERDICT_WAIT) {
        enqueue(t, now, w, answers);
        return;
    }
    w->waiting = false;
    t->waiting--;
    list_remove(&w->node);
    list_push_back(done, &w->node);
}

void lease_resolve(struct lease_table *t, uint64_t now, struct lease_counter *c,
                   struct list_node *done)
{
    struct list_node queue;
    list_init(&queue);
    for (struct list_node *n; (n = list_pop_front(&c->queue)) != NULL;) list_push_back(&queue, n);
    while (!list_empty(&queue)) {
        struct lease_waiter *w = lease_waiter_of(LIST_ENTRY(queue.next, struct lease_claim, node));
        dequeue(w);
        judge_again(t, now, w, done);
    }
}

void lease_expire(struct lease_table *t, uint64_t now, struct list_node *done)
{
    struct list_node soon;
    list_init(&soon);
    pthread_mutex_lock(&t->lock);
    while (!list_empty(&t->waiters)) {
        struct lease_waiter *w = LIST_ENTRY(t->waiters.next, struct lease_waiter, node);
        if (w->deadline_ns > now) break;
        dequeue(w);
        judge_again(t, now, w, done);
    }
    LIST_EACH_SAFE(it, &t->soon)
    {
        struct lease_counter *c = LIST_ENTRY(it, struct lease_counter, soon);
        if (c->soon_ns > now) continue;
        list_remove(&c->soon);
        list_push_back(&soon, &c->soon);
    }
    for (struct list_node *n; (n = list_pop_front(&soon)) != NULL;) {
        struct lease_counter *c = LIST_ENTRY(n, struct lease_counter, soon);
        c->soon_ns = 0;
        lease_resolve(t, now, c, done);
    }
    lease_unlock(t);
}

bool lease_cancel(struct lease_table *t, uint64_t now, struct lease_waiter *w)
{
    (void)now;
    pthread_mutex_lock(&t->lock);
    bool was = w->waiting;
    if (was) {
        dequeue(w);
        unpin(w);
        w->waiting = false;
        t->waiting--;
        list_remove(&w->node);
    }
    lease_unlock(t);
    return was;
}
