/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Counters in this process. Bounded: counters that stand as if unused are forgotten, oldest first;
 * when all are in use, a policy's further keys share one overflow counter. One mutex; any thread.
 */
#include <pthread.h>
#include <stdlib.h>

#include "base/list.h"
#include "base/map.h"
#include "store.h"

enum { EVICT_TRIES = 32, SWEEP = 2000, IDLE_S = 60 };

struct counter {
    struct list_node lru; /* most recently asked for last */
    struct ledger ledger;
    struct ledger_rule rule; /* as of the last op */
    uint64_t used_us;
    size_t name_n;
    char name[]; /* policy, '\n', key */
};

struct memory {
    struct store store;
    pthread_mutex_t lock;
    const struct clock *clock;
    struct map counters;
    struct list_node lru;
    struct ledger_birth birth;
    uint64_t warm_us; /* nothing is granted before */
    uint64_t until_us;
    uint64_t overflows, evictions, epochs;
    char epoch[LEASE_ID_MAX + 1];
};

static uint64_t now_us(const struct memory *m)
{
    return clock_mono_ns(m->clock) / 1000;
}

static void drop(struct memory *m, struct counter *c)
{
    (void)map_remove(&m->counters, str_n(c->name, c->name_n));
    list_remove(&c->lru);
    ledger_done(&c->ledger);
    free(c);
}

static void drop_all(struct memory *m)
{
    LIST_EACH_SAFE(it, &m->lru)
    {
        drop(m, LIST_ENTRY(it, struct counter, lru));
    }
}

/* Forgets idle ones among the `most` oldest, at most `enough` of them, not used since `before_us`.
 */
static size_t forget(struct memory *m, size_t most, size_t enough, uint64_t before_us)
{
    size_t gone = 0;
    LIST_EACH_SAFE(it, &m->lru)
    {
        struct counter *c = LIST_ENTRY(it, struct counter, lru);
        if (most-- == 0 || gone == enough || c->used_us > before_us) break;
        ledger_advance(&c->ledger, &c->rule, now_us(m), NULL);
        if (!ledger_is_idle(&c->ledger, &c->rule)) continue;
        drop(m, c);
        gone++;
    }
    m->evictions += gone;
    return gone;
}

static struct counter *make(struct memory *m, struct str name, const struct store_item *item)
{
    struct counter *c = calloc(1, sizeof *c + name.n);
    if (c == NULL) return NULL;
    memcpy(c->name, name.p, name.n);
    c->name_n = name.n;
    if (map_put(&m->counters, name, c, NULL) != ERR_OK) {
        free(c);
        return NULL;
    }
    list_push_back(&m->lru, &c->lru);
    ledger_init(&c->ledger, item->rule, now_us(m), &item->window, &m->birth);
    return c;
}

static struct str name_of(struct str policy, struct str key,
                          char out[LEASE_ID_MAX + 1 + LEASE_KEY_MAX])
{
    memcpy(out, policy.p, policy.n);
    out[policy.n] = '\n';
    memcpy(out + policy.n + 1, key.p, key.n);
    return str_n(out, policy.n + 1 + key.n);
}

static struct counter *counter_of(struct memory *m, const struct store_item *item)
{
    char text[LEASE_ID_MAX + 1 + LEASE_KEY_MAX];
    struct str name = name_of(item->op->policy, item->op->key, text);
    struct counter *c = map_get(&m->counters, name);
    /* one place in a sixteenth is kept for overflow counters */
    size_t most = m->counters.max - m->counters.max / 16;
    if (c == NULL && (m->counters.len < most || forget(m, EVICT_TRIES, 1, UINT64_MAX) > 0))
        c = make(m, name, item);
    if (c == NULL) {
        name = name_of(item->op->policy, STR("~"), text);
        m->overflows++;
        c = map_get(&m->counters, name);
        if (c == NULL) c = make(m, name, item);
    }
    return c;
}

static void serve_one(struct memory *m, struct str asked, struct store_item *item)
{
    uint64_t now = now_us(m);
    struct counter *c;
    if (store_op_is_stale(item->op, asked, m->epoch)) {
        item->result.status = LEASE_STALE_EPOCH;
        return;
    }
    if (now < m->warm_us) {
        item->result.status = LEASE_WARMING;
        item->result.retry_ms = (m->warm_us - now + 999) / 1000;
        return;
    }
    c = counter_of(m, item);
    if (c != NULL) {
        list_remove(&c->lru);
        list_push_back(&m->lru, &c->lru);
        c->rule = *item->rule;
        c->used_us = now;
    }
    if (c == NULL ||
        ledger_serve(&c->ledger, item->rule, now, &item->window, item->op, &item->result) != ERR_OK)
        item->result.status = LEASE_UNAVAILABLE;
}

static enum err memory_serve(struct store *s, struct str asked, struct store_item *items, size_t n,
                             char *ret_epoch, struct why *why)
{
    struct memory *m = (struct memory *)s;
    enum err e = ERR_OK;
    pthread_mutex_lock(&m->lock);
    if (m->epoch[0] == '\0' || now_us(m) >= m->until_us) {
        e = why_set(why, ERR_UNAVAILABLE, "this engine does not hold the claim on the counters");
        goto out;
    }
    for (size_t i = 0; i < n; i++) serve_one(m, asked, &items[i]);
    memcpy(ret_epoch, m->epoch, sizeof m->epoch);
out:
    pthread_mutex_unlock(&m->lock);
    return e;
}

static void memory_tick(struct store *s)
{
    struct memory *m = (struct memory *)s;
    uint64_t idle_us = IDLE_S * UINT64_C(1000000), now;
    pthread_mutex_lock(&m->lock);
    now = now_us(m);
    if (now > idle_us) (void)forget(m, SWEEP, SWEEP, now - idle_us);
    pthread_mutex_unlock(&m->lock);
}

static void memory_status(struct store *s, struct store_status *ret)
{
    struct memory *m = (struct memory *)s;
    pthread_mutex_lock(&m->lock);
    *ret = (struct store_status){ .counters = m->counters.len,
                                  .overflows = m->overflows,
                                  .evictions = m->evictions,
                                  .epochs = m->epochs,
                                  .ready = m->epoch[0] != '\0' && now_us(m) < m->until_us };
    memcpy(ret->epoch, m->epoch, sizeof ret->epoch);
    pthread_mutex_unlock(&m->lock);
}

static void memory_free(struct store *s)
{
    struct memory *m = (struct memory *)s;
    drop_all(m);
    map_done(&m->counters);
    pthread_mutex_destroy(&m->lock);
    free(m);
}

static const struct store_type memory_type = { memory_serve, memory_tick, memory_status,
                                               memory_free };

struct store *store_memory_new(const struct clock *clock, size_t max_counters)
{
    struct memory *m = xcalloc(1, sizeof *m);
    m->store.type = &memory_type;
    m->clock = clock;
    pthread_mutex_init(&m->lock, NULL);
    map_init(&m->counters, MAX(max_counters, (size_t)16));
    list_init(&m->lru);
    return &m->store;
}

void store_memory_begin(struct store *s, const char *epoch, bool first)
{
    struct memory *m = (struct memory *)s;
    pthread_mutex_lock(&m->lock);
    drop_all(m);
    (void)str_copyz(m->epoch, sizeof m->epoch, str_of(epoch));
    m->epochs++;
    m->until_us = UINT64_MAX;
    m->warm_us = first ? 0 : now_us(m) + LEASE_TTL_MS * UINT64_C(1000);
    m->birth = (struct ledger_birth){ .full = first, .empty_us = m->warm_us };
    pthread_mutex_unlock(&m->lock);
}

void store_memory_until(struct store *s, uint64_t mono_ns)
{
    struct memory *m = (struct memory *)s;
    pthread_mutex_lock(&m->lock);
    m->until_us = mono_ns == 0 ? UINT64_MAX : mono_ns / 1000;
    pthread_mutex_unlock(&m->lock);
}

void store_memory_end(struct store *s)
{
    struct memory *m = (struct memory *)s;
    pthread_mutex_lock(&m->lock);
    m->epoch[0] = '\0';
    drop_all(m);
    pthread_mutex_unlock(&m->lock);
}
