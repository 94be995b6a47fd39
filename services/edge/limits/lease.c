/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The lease table: its counters, what their leases hold, and when they are due. lease_table.h says
 * where the rest is. Any thread; see lease.h.
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
    list_init(&t->soon);
    return t;
}

void lease_table_free(struct lease_table *t)
{
    if (t == NULL) return;
    ASSERT(t->waiting == 0);
    for (size_t i = 0; i < t->buckets_n; i++)
        for (struct lease_counter *c = t->buckets[i], *next; c != NULL; c = next) {
            next = c->chain;
            free(c->local);
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
    LIST_EACH(it, &t->soon)
    {
        due = MIN(due, LIST_ENTRY(it, struct lease_counter, soon)->soon_ns);
    }
    if (t->edges > 0) due = MIN(due, t->news_ns);
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

void lease_due_by(struct lease_table *t, struct lease_counter *c, uint64_t due_ns)
{
    if (c->inflight) return; /* the reply gives it its turn */
    due_ns = MAX(due_ns, c->not_before_ns);
    if (t->away) due_ns = MAX(due_ns, t->probe_ns);
    if (due_ns < c->due_ns) lease_set_due(t, c, due_ns);
}

uint64_t lease_life_ns(const struct lease_counter *c)
{
    return lease_ttl_ms(c->rule.window_ms) * LEASE_MS;
}

uint64_t lease_next_tick(const struct lease_counter *c, uint64_t now)
{
    uint64_t tick = MIN(lease_life_ns(c) / 16, LEASE_TICK_MS * LEASE_MS);
    tick = MAX(tick, LEASE_MS / 4);
    return (now / tick + 1) * tick;
}

void lease_judge_at(struct lease_table *t, struct lease_counter *c, uint64_t at)
{
    at = MAX(at, UINT64_C(1));
    if (c->soon_ns != 0 && c->soon_ns <= at) return;
    if (c->soon_ns == 0) list_push_back(&t->soon, &c->soon);
    c->soon_ns = at;
}

double lease_expected(const struct lease_counter *c, uint64_t ns)
{
    return c->rate * (double)ns;
}

bool lease_runs_low(const struct lease_counter *c, uint64_t now, uint64_t within_ns)
{
    uint64_t lead = MIN(LEASE_LEAD_MS * LEASE_MS, lease_life_ns(c) / 2), low;
    if (c->rule.kind != LEASE_RATE || c->last_grant < LEASE_PREFETCH_MIN || c->recheck_ns > now)
        return false;
    low = MAX(c->last_grant / 8, (uint64_t)lease_expected(c, lead + within_ns));
    return lease_available(c, now) <= (int64_t)low;
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
    return c->pins == 0 && !c->live && c->busy == 0 && c->owed == 0;
}

/* Where a counter stands among the recent ones. Who aims at one place has others found by hash, as
 * they would be without it. */
static struct lease_counter **recent_place(struct lease_table *t, struct str policy, struct str key)
{
    uint64_t h = hash_tail(policy.p, policy.n) * UINT64_C(0x9e3779b97f4a7c15);
    h ^= hash_tail(key.p, key.n);
    return &t->recent[h * UINT64_C(0x9e3779b97f4a7c15) >> (64 - LEASE_RECENT_BITS)];
}

static void drop(struct lease_table *t, struct lease_counter *c)
{
    struct lease_counter **at = &t->buckets[c->hash & (t->buckets_n - 1)];
    struct lease_counter **recent = recent_place(t, c->policy, c->key);
    if (*recent == c) *recent = NULL;
    while (*at != c) at = &(*at)->chain;
    *at = c->chain;
    list_remove(&c->lru);
    lease_set_due(t, c, LEASE_NEVER_NS);
    if (c->soon_ns != 0) list_remove(&c->soon);
    t->counters--;
    free(c->local);
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

static struct lease_counter *counter_of(struct lease_table *t, uint64_t now, struct str policy,
                                        struct str key)
{
    struct lease_counter **recent = recent_place(t, policy, key), *c = *recent;
    if (c != NULL && str_eq(c->key, key) && str_eq(c->policy, policy)) return c;
    uint64_t hash = hash_of(policy, key);
    c = find(t, hash, policy, key);
    if (c == NULL && (t->counters < t->max_counters || evict(t, now)))
        c = make(t, hash, policy, key);
    if (c == NULL) { /* full of counters in use: one for all that find no place */
        key = STR("~");
        hash = hash_of(policy, key);
        t->stats.overflows++;
        c = find(t, hash, policy, key);
        return c != NULL ? c : make(t, hash, policy, key);
    }
    if (c != NULL) *recent = c;
    return c;
}

static void bind(struct lease_table *t, uint64_t now, struct lease_waiter *w, size_t i,
                 struct str policy, struct str key, const struct lease_rule *rule)
{
    struct lease_claim *claim = &w->claims[i];
    ASSERT(i < LEASE_MAX_CLAIMS && claim->counter == NULL);
    ASSERT(policy.n <= LEASE_ID_MAX && key.n <= LEASE_KEY_MAX);
    struct lease_counter *c = counter_of(t, now, policy, key);
    if (rule->strict) atomic_store_explicit(&t->strict, true, memory_order_relaxed);
    if (c != NULL) {
        list_remove(&c->lru);
        list_push_back(&t->lru, &c->lru);
        c->rule = *rule;
        c->pins++;
    }
    claim->counter = c;
    claim->place = (unsigned char)i;
    claim->held = claim->queued = false;
}

void lease_bind(struct lease_table *t, uint64_t now, struct lease_waiter *w, size_t i,
                struct str policy, struct str key, const struct lease_rule *rule)
{
    pthread_mutex_lock(&t->lock);
    bind(t, now, w, i, policy, key, rule);
    lease_unlock(t);
}

void lease_bind_all(struct lease_table *t, uint64_t now, struct lease_waiter *w,
                    const struct lease_binding *b)
{
    for (size_t i = 0; i < w->claims_n; i++) bind(t, now, w, i, b[i].policy, b[i].key, &b[i].rule);
}

/* --- what a lease holds --- */

void lease_forget(struct lease_counter *c)
{
    /* what was not acknowledged is charged again, rather than not at all */
    c->owed += c->debt - c->told_debt;
    c->live = false;
    c->number = 0;
    c->granted = c->spent = c->returned = c->reserved = c->last_grant = 0;
    c->told_spent = c->told_returned = c->debt = c->told_debt = 0;
}

void lease_end_if_over(struct lease_counter *c, uint64_t now)
{
    if (c->live && now >= c->end_ns && !c->inflight) lease_forget(c);
}

bool lease_is_valid(const struct lease_counter *c, uint64_t now)
{
    return c->live && now < c->end_ns;
}

int64_t lease_available(const struct lease_counter *c, uint64_t now)
{
    bool valid = lease_is_valid(c, now);
    uint64_t held = valid ? c->granted - c->returned : 0;
    if (c->rule.kind == LEASE_SLOTS) return (int64_t)held - (int64_t)c->busy;
    return valid ? (int64_t)held - (int64_t)(c->spent + c->reserved) : 0;
}

/* --- looking in --- */

bool lease_may_be_strict(const struct lease_table *t)
{
    return atomic_load_explicit(&t->strict, memory_order_relaxed);
}

uint64_t lease_due(const struct lease_table *t)
{
    return atomic_load(&t->next_due);
}

uint64_t lease_share_among(struct lease_table *t)
{
    pthread_mutex_lock(&t->lock);
    uint64_t n = t->edges;
    pthread_mutex_unlock(&t->lock);
    return n;
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
