/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The lease table: counters, and the decision over all claims of a request. Messages are in
 * lease_wire.c, what happens without an engine in lease_share.c. Any thread; see the header.
 */
#include "lease.h"

#include <stdlib.h>

#include "base/hash.h"
#include "lease_table.h"

enum { EVICT_TRIES = 16, MIN_BUCKETS = 256 };

struct lease_table *lease_table_new(const struct lease_table_options *o)
{
    struct lease_table *t = xcalloc(1, sizeof *t);
    ASSERT(strlen(o->instance) > 0 && strlen(o->incarnation) > 0);
    pthread_mutex_init(&t->lock, NULL);
    (void)str_copyz(t->instance, sizeof t->instance, str_of(o->instance));
    /* room for the number of a lease behind it */
    (void)str_copyz(t->incarnation, sizeof t->incarnation - 24, str_of(o->incarnation));
    t->max_counters = MAX(o->max_counters, (size_t)1);
    t->ask_timeout_ns = o->ask_timeout_ns;
    t->buckets_n = MIN_BUCKETS;
    while (t->buckets_n < t->max_counters) t->buckets_n *= 2;
    t->buckets = xcalloc(t->buckets_n, sizeof(struct lease_counter *));
    t->epoch_no = 1;
    t->next_due = LEASE_NEVER_NS;
    list_init(&t->lru);
    list_init(&t->waiters);
    return t;
}

void lease_table_free(struct lease_table *t)
{
    if (t == NULL) return;
    ASSERT(t->waiting == 0);
    for (size_t i = 0; i < t->buckets_n; i++)
        for (struct lease_counter *c = t->buckets[i], *next; c != NULL; c = next) {
            next = c->chain;
            free(c);
        }
    free(t->buckets);
    free(t->heap);
    pthread_mutex_destroy(&t->lock);
    free(t);
}

void lease_unlock(struct lease_table *t)
{
    uint64_t due = t->heap_n > 0 ? t->heap[1]->due_ns : LEASE_NEVER_NS;
    if (!list_empty(&t->waiters))
        due = MIN(due, LIST_ENTRY(t->waiters.next, struct lease_waiter, node)->deadline_ns);
    if (due != atomic_load_explicit(&t->next_due, memory_order_relaxed))
        atomic_store(&t->next_due, due);
    pthread_mutex_unlock(&t->lock);
}

/* --- when a counter is due: a heap --- */

static void heap_place(struct lease_table *t, size_t i, struct lease_counter *c)
{
    t->heap[i] = c;
    c->place = i;
}

static void heap_up(struct lease_table *t, size_t i)
{
    struct lease_counter *c = t->heap[i];
    for (; i > 1 && t->heap[i / 2]->due_ns > c->due_ns; i /= 2) heap_place(t, i, t->heap[i / 2]);
    heap_place(t, i, c);
}

static void heap_down(struct lease_table *t, size_t i)
{
    struct lease_counter *c = t->heap[i];
    for (size_t child; (child = 2 * i) <= t->heap_n; i = child) {
        if (child < t->heap_n && t->heap[child + 1]->due_ns < t->heap[child]->due_ns) child++;
        if (t->heap[child]->due_ns >= c->due_ns) break;
        heap_place(t, i, t->heap[child]);
    }
    heap_place(t, i, c);
}

void lease_set_due(struct lease_table *t, struct lease_counter *c, uint64_t due_ns)
{
    size_t i = c->place;
    c->due_ns = due_ns;
    if (due_ns == LEASE_NEVER_NS) {
        if (i == 0) return;
        struct lease_counter *last = t->heap[t->heap_n--];
        c->place = 0;
        if (last == c) return;
        c = last; /* it fills the gap, and then goes where it belongs */
        heap_place(t, i, c);
    } else if (i == 0) {
        if (t->heap_n + 1 >= t->heap_cap) {
            t->heap_cap = MAX(t->heap_cap * 2, (size_t)MIN_BUCKETS);
            t->heap = xrealloc(t->heap, t->heap_cap * sizeof(struct lease_counter *));
        }
        heap_place(t, ++t->heap_n, c);
    }
    heap_up(t, c->place);
    heap_down(t, c->place);
}

/* --- counters --- */

static struct lease_counter *find(const struct lease_table *t, uint64_t hash, struct str policy,
                                  struct str key)
{
    struct lease_counter *c = t->buckets[hash & (t->buckets_n - 1)];
    while (c != NULL && !(c->hash == hash && str_eq(c->policy, policy) && str_eq(c->key, key)))
        c = c->chain;
    return c;
}

static bool idle(const struct lease_counter *c)
{
    return c->pins == 0 && !c->live && c->busy == 0;
}

static void drop(struct lease_table *t, struct lease_counter *c)
{
    struct lease_counter **at = &t->buckets[c->hash & (t->buckets_n - 1)];
    while (*at != c) at = &(*at)->chain;
    *at = c->chain;
    list_remove(&c->lru);
    lease_set_due(t, c, LEASE_NEVER_NS);
    t->counters--;
    free(c);
}

/* Makes room for one more: false when the oldest ones are all in use. */
static bool evict(struct lease_table *t, uint64_t now)
{
    int tries = EVICT_TRIES;
    LIST_EACH_SAFE(it, &t->lru)
    {
        struct lease_counter *c = LIST_ENTRY(it, struct lease_counter, lru);
        if (tries-- == 0) return false;
        lease_end_if_over(c, now);
        if (!idle(c)) continue;
        drop(t, c);
        return true;
    }
    return false;
}

static struct lease_counter *make(struct lease_table *t, uint64_t hash, struct str policy,
                                  struct str key)
{
    struct lease_counter *c = calloc(1, sizeof *c + policy.n + key.n);
    if (c == NULL) return NULL;
    char *text = (char *)(c + 1);
    memcpy(text, policy.p, policy.n);
    memcpy(text + policy.n, key.p, key.n);
    c->policy = str_n(text, policy.n);
    c->key = str_n(text + policy.n, key.n);
    c->hash = hash;
    c->due_ns = LEASE_NEVER_NS;
    list_init(&c->queue);
    c->chain = t->buckets[hash & (t->buckets_n - 1)];
    t->buckets[hash & (t->buckets_n - 1)] = c;
    list_push_back(&t->lru, &c->lru);
    t->counters++;
    return c;
}

static uint64_t hash_of(struct str policy, struct str key)
{
    char both[LEASE_ID_MAX + 1 + LEASE_KEY_MAX];
    memcpy(both, policy.p, policy.n);
    both[policy.n] = '\n';
    memcpy(both + policy.n + 1, key.p, key.n);
    return hash_bytes(both, policy.n + 1 + key.n);
}

void lease_bind(struct lease_table *t, uint64_t now, struct lease_waiter *w, size_t i,
                struct str policy, struct str key, const struct lease_rule *rule)
{
    struct lease_claim *claim = &w->claims[i];
    ASSERT(i < LEASE_MAX_CLAIMS && claim->counter == NULL);
    ASSERT(policy.n <= LEASE_ID_MAX && key.n <= LEASE_KEY_MAX);
    uint64_t hash = hash_of(policy, key);
    pthread_mutex_lock(&t->lock);
    struct lease_counter *c = find(t, hash, policy, key);
    if (c == NULL && (t->counters < t->max_counters || evict(t, now)))
        c = make(t, hash, policy, key);
    if (c == NULL) { /* full of counters in use: one for all that find no place */
        key = STR("~");
        hash = hash_of(policy, key);
        t->stats.overflows++;
        c = find(t, hash, policy, key);
        if (c == NULL) c = make(t, hash, policy, key);
    }
    if (c != NULL) {
        list_remove(&c->lru);
        list_push_back(&t->lru, &c->lru);
        c->rule = *rule;
        c->pins++;
    }
    claim->counter = c;
    claim->waiter = w;
    claim->state = LEASE_CLAIM_NONE;
    lease_unlock(t);
}

/* --- what a lease holds --- */

void lease_forget(struct lease_counter *c)
{
    c->live = false;
    c->granted = c->spent = c->returned = c->told_spent = c->told_returned = c->last_grant = 0;
}

void lease_end_if_over(struct lease_counter *c, uint64_t now)
{
    if (c->live && now >= c->end_ns && !c->inflight) lease_forget(c);
}

int64_t lease_available(const struct lease_counter *c, uint64_t now)
{
    bool valid = c->live && now < c->end_ns;
    uint64_t held = valid ? c->granted - c->returned : 0;
    if (c->rule.kind == LEASE_SLOTS) return (int64_t)held - (int64_t)c->busy;
    return valid ? (int64_t)held - (int64_t)c->spent : 0;
}

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

/* --- the decision --- */

/* What one counter says to units; changes nothing but a lease that is over. */
static enum lease_look look(struct lease_table *t, struct lease_claim *claim, uint64_t now,
                            bool last, struct lease_view *ret_view)
{
    struct lease_counter *c = claim->counter;
    uint64_t retry_ms = 0;
    enum lease_look verdict;
    if (c == NULL) return LEASE_LOOK_UNAVAILABLE; /* no memory for a counter */
    lease_end_if_over(c, now);
    if (lease_available(c, now) >= (int64_t)claim->units) return LEASE_LOOK_HAVE;
    *ret_view = view_of(c, now);
    if (claim->units > c->rule.capacity || claim->units > c->rule.limit) {
        ret_view->never = true;
        return LEASE_LOOK_REFUSE;
    }
    if (c->recheck_ns > now) {
        ret_view->never = c->never;
        return LEASE_LOOK_REFUSE;
    }
    if (!last && !t->away && c->away_until_ns <= now) return LEASE_LOOK_LACK;
    verdict = lease_look_away(t, c, now, claim->units, &retry_ms);
    if (verdict == LEASE_LOOK_REFUSE) ret_view->retry_ms = retry_ms;
    return verdict;
}

static void take(struct lease_table *t, uint64_t now, struct lease_claim *claim,
                 enum lease_look how)
{
    struct lease_counter *c = claim->counter;
    if (c == NULL) return;
    if (how != LEASE_LOOK_HAVE)
        lease_take_away(t, c, claim->units, how);
    else if (c->rule.kind == LEASE_SLOTS)
        c->busy += claim->units;
    else
        c->spent += claim->units;
    if (c->rule.kind == LEASE_SLOTS) claim->state = LEASE_CLAIM_HELD;
    if (how != LEASE_LOOK_HAVE) return;
    c->touched = true;
    if (!c->inflight && !c->ahead && c->last_grant >= LEASE_PREFETCH_MIN &&
        lease_available(c, now) <= (int64_t)(c->last_grant / 4) && c->recheck_ns <= now) {
        c->ahead = true;
        lease_set_due(t, c, now);
    }
}

static void note_tightest(struct lease_waiter *w, size_t i, const struct lease_view *v)
{
    if (w->tightest < w->claims_n && (double)v->remaining * (double)w->tightest_view.limit >=
                                         (double)w->tightest_view.remaining * (double)v->limit)
        return;
    w->tightest = i;
    w->tightest_view = *v;
}

/* Claims that hold no slots let their counters go. */
static void unpin(struct lease_waiter *w)
{
    for (size_t i = 0; i < w->claims_n; i++) {
        struct lease_claim *claim = &w->claims[i];
        if (claim->counter == NULL || claim->state == LEASE_CLAIM_HELD) continue;
        claim->counter->pins--;
        claim->counter = NULL;
    }
}

/* Decides all claims, or says WAIT and which lack (looks[i]). last: the time to wait is over. */
static enum lease_verdict judge(struct lease_table *t, uint64_t now, struct lease_waiter *w,
                                bool last, enum lease_look looks[LEASE_MAX_CLAIMS])
{
    enum lease_verdict verdict = LEASE_VERDICT_OK;
    w->shadow_refused = w->allowed = w->shared = 0;
    w->shadow_mask = 0;
    w->tightest = w->refused_by = w->claims_n;
    for (size_t i = 0; i < w->claims_n; i++) {
        struct lease_claim *claim = &w->claims[i];
        struct lease_view v = { 0 };
        looks[i] = look(t, claim, now, last, &v);
        if (looks[i] == LEASE_LOOK_LACK) {
            if (verdict == LEASE_VERDICT_OK) verdict = LEASE_VERDICT_WAIT;
        } else if (looks[i] == LEASE_LOOK_REFUSE || looks[i] == LEASE_LOOK_UNAVAILABLE) {
            if (claim->shadow || verdict >= LEASE_VERDICT_REFUSED) continue;
            verdict = looks[i] == LEASE_LOOK_REFUSE ? LEASE_VERDICT_REFUSED
                                                    : LEASE_VERDICT_UNAVAILABLE;
            w->refused_by = i;
            w->refused_view = v;
        }
    }
    w->verdict = verdict;
    w->decided_ns = now;
    if (verdict == LEASE_VERDICT_WAIT) return verdict;
    for (size_t i = 0; i < w->claims_n; i++) {
        struct lease_claim *claim = &w->claims[i];
        if (looks[i] == LEASE_LOOK_REFUSE || looks[i] == LEASE_LOOK_UNAVAILABLE) {
            if (claim->shadow) {
                w->shadow_refused++;
                w->shadow_mask |= UINT32_C(1) << i;
            }
        } else if (verdict == LEASE_VERDICT_OK) {
            take(t, now, claim, looks[i]);
            if (looks[i] == LEASE_LOOK_ALLOW) w->allowed++;
            if (looks[i] == LEASE_LOOK_SHARE) w->shared++;
        }
        if (claim->counter == NULL || claim->shadow || claim->counter->rule.kind != LEASE_RATE)
            continue;
        struct lease_view v = view_of(claim->counter, now);
        note_tightest(w, i, &v);
    }
    unpin(w);
    return verdict;
}

static void enqueue(struct lease_table *t, uint64_t now, struct lease_waiter *w,
                    const enum lease_look looks[LEASE_MAX_CLAIMS])
{
    for (size_t i = 0; i < w->claims_n; i++) {
        struct lease_claim *claim = &w->claims[i];
        struct lease_counter *c = claim->counter;
        if (looks[i] != LEASE_LOOK_LACK) continue;
        claim->state = LEASE_CLAIM_WAITING;
        list_push_back(&c->queue, &claim->node);
        c->wanted += claim->units;
        if (!c->inflight) lease_set_due(t, c, MAX(now, c->not_before_ns));
    }
}

static void dequeue(struct lease_waiter *w)
{
    for (size_t i = 0; i < w->claims_n; i++) {
        struct lease_claim *claim = &w->claims[i];
        if (claim->state != LEASE_CLAIM_WAITING) continue;
        claim->state = LEASE_CLAIM_NONE;
        list_remove(&claim->node);
        claim->counter->wanted -= claim->units;
    }
}

enum lease_verdict lease_admit(struct lease_table *t, uint64_t now, struct lease_waiter *w)
{
    enum lease_look looks[LEASE_MAX_CLAIMS];
    ASSERT(w->claims_n <= LEASE_MAX_CLAIMS && !w->waiting);
    pthread_mutex_lock(&t->lock);
    enum lease_verdict verdict = judge(t, now, w, false, looks);
    if (verdict == LEASE_VERDICT_WAIT) {
        w->deadline_ns = now + t->ask_timeout_ns;
        w->waiting = true;
        t->waiting++;
        list_push_back(&t->waiters, &w->node);
        enqueue(t, now, w, looks);
    }
    lease_unlock(t);
    return verdict;
}

/* A waiter that was taken out of all queues: decided now, or queued again. */
static void judge_again(struct lease_table *t, uint64_t now, struct lease_waiter *w,
                        struct list_node *done)
{
    enum lease_look looks[LEASE_MAX_CLAIMS];
    if (judge(t, now, w, now >= w->deadline_ns, looks) == LEASE_VERDICT_WAIT) {
        enqueue(t, now, w, looks);
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
        struct lease_waiter *w = LIST_ENTRY(queue.next, struct lease_claim, node)->waiter;
        dequeue(w);
        judge_again(t, now, w, done);
    }
}

void lease_expire(struct lease_table *t, uint64_t now, struct list_node *done)
{
    pthread_mutex_lock(&t->lock);
    while (!list_empty(&t->waiters)) {
        struct lease_waiter *w = LIST_ENTRY(t->waiters.next, struct lease_waiter, node);
        if (w->deadline_ns > now) break;
        dequeue(w);
        judge_again(t, now, w, done);
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

void lease_release(struct lease_table *t, uint64_t now, struct lease_waiter *w)
{
    pthread_mutex_lock(&t->lock);
    for (size_t i = 0; i < w->claims_n; i++) {
        struct lease_claim *claim = &w->claims[i];
        struct lease_counter *c = claim->counter;
        if (claim->state != LEASE_CLAIM_HELD) continue;
        ASSERT(c->busy >= claim->units && c->pins > 0);
        c->busy -= claim->units;
        c->pins--;
        claim->state = LEASE_CLAIM_NONE;
        claim->counter = NULL;
        /* where slots are few, somebody else may be waiting for this one */
        if (c->rule.limit <= LEASE_EAGER_SLOTS && c->live) {
            c->touched = false;
            if (!c->inflight) lease_set_due(t, c, now);
        }
    }
    lease_unlock(t);
}

/* --- looking in --- */

uint64_t lease_due(const struct lease_table *t)
{
    return atomic_load(&t->next_due);
}

void lease_table_stats(struct lease_table *t, struct lease_stats *ret)
{
    pthread_mutex_lock(&t->lock);
    *ret = t->stats;
    ret->counters = t->counters;
    ret->waiting = t->waiting;
    ret->away = t->away;
    pthread_mutex_unlock(&t->lock);
}
