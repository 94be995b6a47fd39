/* SPDX-License-Identifier: Apache-2.0 */
/* See the header. Locks: the fleet's for the table of upstreams, one per upstream for all of its
 * state; never both. */
#include "fleet.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/map.h"

enum { UPSTREAMS_MAX = 65536, MEMBERS_MAX = 65536, BUDGET_SLOTS = 10 };
static const uint64_t ms = 1000000, second = 1000000000;

/* A server, as long as a group names it. */
struct member {
    struct balance_server state;
    char *key;
    unsigned refs;
    uint64_t news[FLEET_NEWS_MAX];
    uint64_t checks[2]; /* bad, good */
};

/* An upstream over all configurations. */
struct herd {
    struct fleet *fleet;
    char *id;
    unsigned refs; /* under the fleet's lock */
    pthread_mutex_t lock;
    struct map members;     /* server id and URL -> struct member */
    struct list_node queue; /* of waiter */
    struct fleet_group_stats stats;
    struct {
        uint64_t slot;
        unsigned requests, retries;
    } budget[BUDGET_SLOTS]; /* of one second each */
};

struct group {
    struct herd *herd;
    const struct snap_upstream *u;
    struct balance_server **states; /* the members', by place */
};

struct fleet {
    struct fleet_options o;
    pthread_mutex_t lock;
    struct map herds;        /* by upstream id */
    _Atomic uint64_t queued; /* over all of them: mostly none */
};

const char *fleet_news_name(enum fleet_news n)
{
    static const char *const names[] = { "check_down",     "check_up", "ejected",  "breaker_opened",
                                         "breaker_closed", "cooling",  "suspected" };
    return names[n];
}

static uint64_t now_ns(const struct group *g)
{
    return clock_mono_ns(g->herd->fleet->o.clock);
}

static struct member *member_at(const struct group *g, size_t i)
{
    return (struct member *)(void *)((char *)g->states[i] - offsetof(struct member, state));
}

/* --- coming and going --- */

struct fleet *fleet_new(const struct fleet_options *o)
{
    struct fleet *f = xcalloc(1, sizeof *f);
    f->o = *o;
    pthread_mutex_init(&f->lock, NULL);
    map_init(&f->herds, UPSTREAMS_MAX);
    return f;
}

void fleet_free(struct fleet *f)
{
    if (f == NULL) return;
    ASSERT(f->herds.len == 0);
    map_done(&f->herds);
    pthread_mutex_destroy(&f->lock);
    free(f);
}

static void herd_free(struct herd *h)
{
    map_done(&h->members);
    pthread_mutex_destroy(&h->lock);
    free(h->id);
    free(h);
}

/* With a reference for the caller. */
static struct herd *herd_of(struct fleet *f, struct str id)
{
    pthread_mutex_lock(&f->lock);
    struct herd *h = map_get(&f->herds, id);
    if (h == NULL) {
        h = xcalloc(1, sizeof *h);
        h->fleet = f;
        h->id = str_dupz(id);
        pthread_mutex_init(&h->lock, NULL);
        map_init(&h->members, MEMBERS_MAX);
        list_init(&h->queue);
        ASSERT(map_put(&f->herds, id, h, NULL) == ERR_OK); /* snapshots have fewer upstreams */
    }
    h->refs++;
    pthread_mutex_unlock(&f->lock);
    return h;
}

static void herd_unref(struct herd *h)
{
    struct fleet *f = h->fleet;
    pthread_mutex_lock(&f->lock);
    bool last = --h->refs == 0;
    if (last) (void)map_remove(&f->herds, str_of(h->id));
    pthread_mutex_unlock(&f->lock);
    if (last) herd_free(h);
}

static struct member *member_of(struct herd *h, const struct snap_server *s, uint64_t now)
{
    char key[1200];
    int n = snprintf(key, sizeof key, "%.*s %.*s", STR_ARG(s->id), STR_ARG(s->url));
    struct str k = str_n(key, MIN((size_t)n, sizeof key - 1));
    struct member *m = map_get(&h->members, k);
    if (m == NULL) {
        m = xcalloc(1, sizeof *m);
        m->key = str_dupz(k);
        health_init(&m->state.health, now);
        m->state.seed = balance_seed(s->id);
        ASSERT(map_put(&h->members, k, m, NULL) == ERR_OK);
    }
    m->refs++;
    return m;
}

struct group *group_new(struct fleet *f, const struct snap_upstream *u)
{
    struct group *g = xcalloc(1, sizeof *g);
    g->u = u;
    g->states = xcalloc(u->servers_n + 1, sizeof *g->states);
    g->herd = herd_of(f, u->id);
    pthread_mutex_lock(&g->herd->lock);
    /* Servers that are there from the beginning all start alike: at once. */
    uint64_t now = g->herd->members.len > 0 ? now_ns(g) : 0;
    for (size_t i = 0; i < u->servers_n; i++)
        g->states[i] = &member_of(g->herd, &u->servers[i], now)->state;
    pthread_mutex_unlock(&g->herd->lock);
    return g;
}

void group_free(struct group *g)
{
    if (g == NULL) return;
    pthread_mutex_lock(&g->herd->lock);
    for (size_t i = 0; i < g->u->servers_n; i++) {
        struct member *m = member_at(g, i);
        if (--m->refs > 0) continue;
        (void)map_remove(&g->herd->members, str_of(m->key));
        free(m->key);
        free(m);
    }
    pthread_mutex_unlock(&g->herd->lock);
    herd_unref(g->herd);
    free(g->states);
    free(g);
}

/* --- places --- */

/* With the lock. */
static enum balance_verdict take(struct group *g, struct balance_ask *ask, uint64_t now,
                                 struct seat *ret, uint64_t *ret_at)
{
    size_t i;
    ask->now = now;
    ask->rng = g->herd->fleet->o.rng;
    enum balance_verdict v = balance_choose(g->u, g->states, ask, &i, ret_at);
    if (v != BALANCE_OK) return v;
    *ret = (struct seat){ .group = g, .server = i };
    g->states[i]->active++;
    ret->probe = health_begin(&g->states[i]->health, ask->now);
    return BALANCE_OK;
}

/* With the lock. */
static void count_queued(struct herd *h, int by)
{
    h->stats.queued += (uint64_t)by;
    atomic_fetch_add_explicit(&h->fleet->queued, (uint64_t)by, memory_order_relaxed);
}

/* With the lock: gives places to those who wait, in order. They go to *given, to be called without
 * it. */
static void serve_queue(struct herd *h, struct list_node *given)
{
    uint64_t at;
    while (!list_empty(&h->queue)) {
        struct waiter *w = LIST_ENTRY(h->queue.next, struct waiter, node);
        if (take(w->group, &w->ask, now_ns(w->group), &w->seat, &at) != BALANCE_OK) return;
        list_remove(&w->node);
        count_queued(h, -1);
        list_push_back(given, &w->node);
    }
}

static void call(struct list_node *given)
{
    for (struct list_node *n; (n = list_pop_front(given)) != NULL;) {
        struct waiter *w = LIST_ENTRY(n, struct waiter, node);
        while (loop_post(w->loop, w->fn, w->ctx) != ERR_OK) sched_yield();
    }
}

enum balance_verdict group_take(struct group *g, const struct balance_ask *ask, uint64_t now,
                                bool queue, struct seat *ret, uint64_t *ret_wait_ms)
{
    struct balance_ask mine = *ask;
    uint64_t at = 0;
    pthread_mutex_lock(&g->herd->lock);
    enum balance_verdict v = queue && !list_empty(&g->herd->queue) ? BALANCE_FULL
                                                                   : take(g, &mine, now, ret, &at);
    pthread_mutex_unlock(&g->herd->lock);
    if (v == BALANCE_NONE || v == BALANCE_LIMITED)
        *ret_wait_ms = at > mine.now ? (at - mine.now + ms - 1) / ms : at > 0;
    return v;
}

/* A change as an event of this server; false: none to tell. With the lock. */
static bool note(struct group *g, size_t i, enum health_change c, const char *why,
                 struct fleet_event *ev)
{
    static const enum fleet_news of[] = { [HEALTH_WENT_DOWN] = FLEET_CHECK_DOWN,
                                          [HEALTH_CAME_UP] = FLEET_CHECK_UP,
                                          [HEALTH_GOT_EJECTED] = FLEET_EJECTED,
                                          [HEALTH_BREAKER_OPENED] = FLEET_BREAKER_OPENED,
                                          [HEALTH_BREAKER_CLOSED] = FLEET_BREAKER_CLOSED };
    if (c == HEALTH_SAME) return false;
    *ev = (struct fleet_event){ of[c], g->u, &g->u->servers[i], why };
    member_at(g, i)->news[of[c]]++;
    return true;
}

static void tell(struct group *g, const struct fleet_event *ev)
{
    const struct fleet_options *o = &g->herd->fleet->o;
    if (o->event != NULL) o->event(o->ctx, ev);
}

void seat_succeeded(struct seat *s, uint64_t now)
{
    struct group *g = s->group;
    struct fleet_event ev;
    struct list_node given;
    list_init(&given);
    pthread_mutex_lock(&g->herd->lock);
    bool news = note(g, s->server,
                     health_succeeded(&g->states[s->server]->health, g->u, s->probe, now),
                     "its probes succeeded", &ev);
    s->probe = 0;
    if (news) serve_queue(g->herd, &given);
    pthread_mutex_unlock(&g->herd->lock);
    call(&given);
    if (news) tell(g, &ev);
}

void seat_failed(struct seat *s, const char *why)
{
    struct group *g = s->group;
    struct fleet_event ev;
    pthread_mutex_lock(&g->herd->lock);
    uint64_t now = now_ns(g);
    bool may_eject = balance_may_eject(g->u, g->states, now);
    bool news = note(g, s->server,
                     health_failed(&g->states[s->server]->health, g->u, s->probe, may_eject, now),
                     why, &ev);
    s->probe = 0;
    pthread_mutex_unlock(&g->herd->lock);
    if (news) tell(g, &ev);
}

void seat_cool(struct seat *s, uint64_t wait_ms, bool limited)
{
    struct group *g = s->group;
    struct fleet_event ev = { FLEET_COOLING, g->u, &g->u->servers[s->server],
                              "it asked to be left alone" };
    pthread_mutex_lock(&g->herd->lock);
    bool news = health_cool(&g->states[s->server]->health, g->u, wait_ms, limited, now_ns(g));
    if (news) member_at(g, s->server)->news[FLEET_COOLING]++;
    pthread_mutex_unlock(&g->herd->lock);
    if (news) tell(g, &ev);
}

void seat_leave(struct seat *s)
{
    struct group *g = s->group;
    struct list_node given;
    if (g == NULL) return;
    list_init(&given);
    pthread_mutex_lock(&g->herd->lock);
    g->states[s->server]->active--;
    if (s->probe != 0) health_probe_lost(&g->states[s->server]->health, s->probe);
    serve_queue(g->herd, &given);
    pthread_mutex_unlock(&g->herd->lock);
    call(&given);
    *s = (struct seat){ .group = NULL };
}

/* --- the queue --- */

enum err group_wait(struct group *g, const struct balance_ask *ask, struct loop *loop, loop_fn fn,
                    void *ctx, struct waiter *w)
{
    struct herd *h = g->herd;
    uint64_t now = now_ns(g);
    *w = (struct waiter){ .group = g,
                          .ask = *ask,
                          .loop = loop,
                          .fn = fn,
                          .ctx = ctx,
                          .since = now,
                          .deadline = now + g->u->queue_ms * ms };
    struct list_node given;
    list_init(&given);
    pthread_mutex_lock(&h->lock);
    bool room = h->stats.queued < g->u->queue_max;
    if (room) {
        list_push_back(&h->queue, &w->node);
        count_queued(h, 1);
        /* A place may have come free since it was looked for. */
        serve_queue(h, &given);
    } else {
        h->stats.queue_refused++;
    }
    pthread_mutex_unlock(&h->lock);
    call(&given);
    return room ? ERR_OK : ERR_LIMIT;
}

bool group_forget(struct waiter *w)
{
    struct herd *h = w->group->herd;
    struct list_node given;
    list_init(&given);
    pthread_mutex_lock(&h->lock);
    bool waits = w->seat.group == NULL;
    if (waits) {
        list_remove(&w->node);
        count_queued(h, -1);
        if (now_ns(w->group) >= w->deadline) h->stats.queue_timeouts++;
        serve_queue(h, &given); /* whoever was behind it may go where it could not */
    }
    pthread_mutex_unlock(&h->lock);
    call(&given);
    return waits;
}

void fleet_tick(struct fleet *f)
{
    struct map_entry *e;
    size_t i = 0, n = 0;
    if (atomic_load_explicit(&f->queued, memory_order_relaxed) == 0) return;
    pthread_mutex_lock(&f->lock);
    struct herd **herds = xcalloc(f->herds.len + 1, sizeof *herds);
    while ((e = map_next(&f->herds, &i)) != NULL) {
        herds[n] = e->value;
        herds[n++]->refs++;
    }
    pthread_mutex_unlock(&f->lock);
    for (i = 0; i < n; i++) {
        struct list_node given;
        list_init(&given);
        pthread_mutex_lock(&herds[i]->lock);
        serve_queue(herds[i], &given);
        pthread_mutex_unlock(&herds[i]->lock);
        call(&given);
        herd_unref(herds[i]);
    }
    free(herds);
}

/* --- the retry budget --- */

/* With the lock: this second's slot. */
static size_t budget_slot(struct herd *h, uint64_t now)
{
    uint64_t slot = now / second;
    size_t i = slot % BUDGET_SLOTS;
    if (h->budget[i].slot != slot) {
        h->budget[i].slot = slot;
        h->budget[i].requests = h->budget[i].retries = 0;
    }
    return i;
}

void group_count_request(struct group *g, uint64_t now)
{
    pthread_mutex_lock(&g->herd->lock);
    g->herd->budget[budget_slot(g->herd, now)].requests++;
    pthread_mutex_unlock(&g->herd->lock);
}

bool group_may_retry(struct group *g)
{
    struct herd *h = g->herd;
    uint64_t requests = 0, retries = 0;
    pthread_mutex_lock(&h->lock);
    uint64_t now = now_ns(g);
    size_t mine = budget_slot(h, now);
    for (size_t i = 0; i < BUDGET_SLOTS; i++) {
        if (h->budget[i].slot + BUDGET_SLOTS <= now / second) continue;
        requests += h->budget[i].requests;
        retries += h->budget[i].retries;
    }
    bool may = retries * 100 <
               requests * g->u->retry.budget_percent + (uint64_t)g->u->retry.budget_min * 100;
    if (may)
        h->budget[mine].retries++, h->stats.retries++;
    else
        h->stats.retries_refused++;
    pthread_mutex_unlock(&h->lock);
    return may;
}

/* --- checks, and what others say --- */

void group_checked(struct group *g, size_t server, bool ok, const char *why)
{
    struct fleet_event ev;
    struct list_node given;
    list_init(&given);
    pthread_mutex_lock(&g->herd->lock);
    bool news = note(g, server, health_checked(&g->states[server]->health, g->u, ok, now_ns(g)),
                     ok ? "its checks succeed" : why, &ev);
    member_at(g, server)->checks[ok]++;
    if (news) serve_queue(g->herd, &given);
    pthread_mutex_unlock(&g->herd->lock);
    call(&given);
    if (news) tell(g, &ev);
}

void group_suspect(struct group *g, size_t server)
{
    pthread_mutex_lock(&g->herd->lock);
    health_suspect(&g->states[server]->health, now_ns(g));
    member_at(g, server)->news[FLEET_SUSPECTED]++;
    pthread_mutex_unlock(&g->herd->lock);
}

void group_stats(struct group *g, struct fleet_group_stats *ret,
                 struct fleet_server_stats *ret_servers)
{
    uint64_t at;
    pthread_mutex_lock(&g->herd->lock);
    *ret = g->herd->stats;
    for (size_t i = 0; i < g->u->servers_n; i++) {
        const struct member *m = member_at(g, i);
        struct fleet_server_stats *s = &ret_servers[i];
        *s = (struct fleet_server_stats){ .server = &g->u->servers[i] };
        s->bar = health_look(&m->state.health, g->u, now_ns(g), &at);
        s->breaker = m->state.health.breaker;
        s->active = m->state.active;
        s->checks_good = m->checks[true];
        s->checks_bad = m->checks[false];
        memcpy(s->news, m->news, sizeof s->news);
    }
    pthread_mutex_unlock(&g->herd->lock);
}
