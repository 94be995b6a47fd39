/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Counters in this process. Bounded: counters that stand as if unused are forgotten, oldest first;
 * when all are in use, a policy's further keys share one overflow counter. Durable ones are begun
 * from their marks (marks.h), and no grant of theirs is answered before its mark is on the disk.
 * One mutex, held while the disk is written; any thread.
 */
#include "base/list.h"
#include "base/map.h"
#include "store_memory_impl.h"

enum { EVICT_TRIES = 32, SWEEP = 2000, IDLE_S = 60 };

void memory_drop(struct memory *m, struct counter *c)
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
        memory_drop(m, LIST_ENTRY(it, struct counter, lru));
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
        ledger_advance(&c->ledger, &c->rule, memory_now_us(m), NULL);
        if (!ledger_is_idle(&c->ledger, &c->rule)) continue;
        memory_drop(m, c);
        gone++;
    }
    m->evictions += gone;
    return gone;
}

/* --- one counter --- */

struct str memory_name(const struct store_counter *c, struct str key, char out[MEMORY_NAME_MAX])
{
    memcpy(out, c->policy.p, c->policy.n);
    out[c->policy.n] = '\n';
    out[c->policy.n + 1] = c->unit != 0 ? c->unit : 'r';
    memcpy(out + c->policy.n + 2, key.p, key.n);
    return str_n(out, c->policy.n + 2 + key.n);
}

/* What is known of a durable counter's window. False: nothing is. */
static bool durable_birth(struct memory *m, struct str name, const struct store_counter *c,
                          struct ledger_birth *ret)
{
    const struct mark *mark = m->marks != NULL ? marks_get(m->marks, name) : NULL;
    *ret = (struct ledger_birth){ .full = true, .marked = true };
    if (mark != NULL) {
        ret->begin = mark->begin;
        ret->end = mark->end;
        ret->used = mark->used;
        return true;
    }
    return (m->marks != NULL || m->birth.full) && c->window.begin >= m->lost_us;
}

struct counter *memory_make(struct memory *m, struct str name, const struct store_counter *of,
                            bool *ret_lost)
{
    struct ledger_birth birth = m->birth;
    if (of->durable && !durable_birth(m, name, of, &birth)) {
        *ret_lost = true;
        return NULL;
    }
    struct counter *c = calloc(1, sizeof *c + name.n);
    if (c == NULL) return NULL;
    memcpy(c->name, name.p, name.n);
    c->name_n = name.n;
    c->rule = *of->rule;
    c->durable = of->durable;
    c->used_us = memory_now_us(m);
    if (map_put(&m->counters, name, c, NULL) != ERR_OK) {
        free(c);
        return NULL;
    }
    list_push_back(&m->lru, &c->lru);
    ledger_init(&c->ledger, of->rule, memory_now_us(m), &of->window, &birth);
    return c;
}

static struct counter *counter_of(struct memory *m, const struct store_counter *of, bool *ret_lost)
{
    char text[MEMORY_NAME_MAX];
    struct str name = memory_name(of, of->key, text);
    struct counter *c = map_get(&m->counters, name);
    /* one place in a sixteenth is kept for overflow counters */
    size_t most = m->counters.max - m->counters.max / 16;
    if (c == NULL && (m->counters.len < most || forget(m, EVICT_TRIES, 1, UINT64_MAX) > 0))
        c = memory_make(m, name, of, ret_lost);
    if (c == NULL && !*ret_lost) {
        name = memory_name(of, STR("~"), text);
        m->overflows++;
        c = map_get(&m->counters, name);
        if (c == NULL) c = memory_make(m, name, of, ret_lost);
    }
    return c;
}

/* --- marks --- */

struct mark memory_mark_of(const struct counter *c)
{
    return (struct mark){ c->ledger.begin, c->ledger.end, ledger_mark(&c->ledger) };
}

/* Puts a mark that covers what was granted, if the disk has none yet. Not when memory is out. */
static bool put_mark(struct memory *m, const struct counter *c)
{
    struct mark mark = memory_mark_of(c);
    struct str name = str_n(c->name, c->name_n);
    if (m->marks == NULL || marks_cover(m->marks, name, &mark)) return true;
    mark.used += c->rule.limit / MARKS_AHEAD;
    return marks_put(m->marks, name, &mark) == ERR_OK;
}

/* --- ops --- */

static void serve_one(struct memory *m, struct str asked, struct store_item *item)
{
    uint64_t now = memory_now_us(m);
    struct counter *c;
    const struct store_counter of = { .policy = item->op->policy,
                                      .key = item->op->key,
                                      .unit = item->unit,
                                      .durable = item->durable,
                                      .rule = item->rule,
                                      .window = item->window };
    item->lost = false;
    if (store_op_is_stale(item->op, asked, m->epoch)) {
        item->result.status = LEASE_STALE_EPOCH;
        return;
    }
    if (now < m->warm_us) {
        item->result.status = LEASE_WARMING;
        item->result.retry_ms = (m->warm_us - now + 999) / 1000;
        return;
    }
    c = counter_of(m, &of, &item->lost);
    if (item->lost) {
        item->result.status = LEASE_WARMING;
        item->result.retry_ms = STORE_LOST_RETRY_MS;
        return;
    }
    if (c != NULL) {
        list_remove(&c->lru);
        list_push_back(&m->lru, &c->lru);
        c->rule = *item->rule;
        c->used_us = now;
    }
    if (c == NULL || ledger_serve(&c->ledger, item->rule, now, &item->window, item->op,
                                  &item->result) != ERR_OK) {
        item->result.status = LEASE_UNAVAILABLE;
    } else if (item->durable && !put_mark(m, c)) {
        item->result.status = LEASE_UNAVAILABLE;
    }
}

/* What is not on the disk was not granted. */
static void withhold(struct store_item *items, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (items[i].durable && items[i].result.status == LEASE_GRANTED)
            items[i].result = (struct lease_result){ .status = LEASE_UNAVAILABLE };
}

static enum err memory_serve(struct store *s, struct str asked, struct store_item *items, size_t n,
                             char *ret_epoch, struct why *why)
{
    struct memory *m = (struct memory *)s;
    enum err e = ERR_OK;
    pthread_mutex_lock(&m->lock);
    if (!memory_may_serve(m)) {
        e = why_set(why, ERR_UNAVAILABLE, "this engine does not hold the claim on the counters");
        goto out;
    }
    for (size_t i = 0; i < n; i++) serve_one(m, asked, &items[i]);
    if (m->marks != NULL && marks_flush(m->marks, why) != ERR_OK) {
        m->errors++;
        withhold(items, n);
    }
    /* the disk may have taken longer than the claim lasts */
    if (!memory_may_serve(m)) e = why_set(why, ERR_UNAVAILABLE, "the claim on the counters ended");
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
    now = memory_now_us(m);
    if (now > idle_us) (void)forget(m, SWEEP, SWEEP, now - idle_us);
    pthread_mutex_unlock(&m->lock);
}

static void memory_status(struct store *s, struct store_status *ret)
{
    struct memory *m = (struct memory *)s;
    struct marks_stats marks = { 0 };
    pthread_mutex_lock(&m->lock);
    if (m->marks != NULL) marks_stats(m->marks, &marks);
    *ret = (struct store_status){ .counters = m->counters.len,
                                  .overflows = m->overflows,
                                  .evictions = m->evictions,
                                  .errors = m->errors,
                                  .epochs = m->epochs,
                                  .losses = m->losses,
                                  .mark_writes = marks.writes,
                                  .mark_failures = marks.failures,
                                  .ready = memory_may_serve(m) };
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

static const struct store_type memory_type = { .serve = memory_serve,
                                               .look = memory_look,
                                               .reset = memory_reset,
                                               .seed = memory_seed,
                                               .tick = memory_tick,
                                               .status = memory_status,
                                               .free = memory_free };

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

/* --- epochs --- */

/* The marks remember by themselves that some were lost. */
#define LOST_NAME STR("\n")

void store_memory_keep(struct store *s, struct marks *marks)
{
    struct memory *m = (struct memory *)s;
    const struct mark *lost = marks_get(marks, LOST_NAME);
    pthread_mutex_lock(&m->lock);
    m->marks = marks;
    m->lost_us = lost != NULL ? lost->begin : 0;
    pthread_mutex_unlock(&m->lock);
}

enum err store_memory_lose(struct store *s, struct why *why)
{
    struct memory *m = (struct memory *)s;
    enum err e = ERR_OK;
    pthread_mutex_lock(&m->lock);
    uint64_t now = clock_wall_ns(m->clock) / 1000, longest = UINT64_C(32) * 86400000000;
    struct mark lost = { .begin = now, .end = now + longest };
    if (m->marks != NULL) e = marks_forget_all(m->marks, why);
    if (m->marks != NULL && e == ERR_OK) e = marks_put(m->marks, LOST_NAME, &lost);
    if (m->marks != NULL && e == ERR_OK) e = marks_flush(m->marks, why);
    m->lost_us = now;
    m->losses++;
    pthread_mutex_unlock(&m->lock);
    return e;
}

void store_memory_begin(struct store *s, const char *epoch, bool first)
{
    struct memory *m = (struct memory *)s;
    pthread_mutex_lock(&m->lock);
    drop_all(m);
    (void)str_copyz(m->epoch, sizeof m->epoch, str_of(epoch));
    m->epochs++;
    m->until_us = UINT64_MAX;
    m->warm_us = first ? 0 : memory_now_us(m) + LEASE_TTL_MS * UINT64_C(1000);
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

void store_memory_settle(struct store *s)
{
    struct memory *m = (struct memory *)s;
    struct why why;
    pthread_mutex_lock(&m->lock);
    LIST_EACH_SAFE(it, &m->lru)
    {
        struct counter *c = LIST_ENTRY(it, struct counter, lru);
        if (m->marks == NULL || !c->durable) continue;
        ledger_advance(&c->ledger, &c->rule, memory_now_us(m), NULL);
        struct mark mark = memory_mark_of(c);
        if (marks_put(m->marks, str_n(c->name, c->name_n), &mark) != ERR_OK) break;
    }
    if (m->marks != NULL && marks_flush(m->marks, &why) != ERR_OK) m->errors++;
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
