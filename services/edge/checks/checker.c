/* SPDX-License-Identifier: Apache-2.0 */
/* See the header. */
#include "checker.h"

#include <pthread.h>
#include <sched.h>
#include <stdlib.h>

#include "base/log.h"
#include "base/map.h"
#include "net/conn.h"
#include "probe.h"
#include "proto/health_msg.h"
#include "proto/subjects.h"

enum {
    MESSAGE_MAX = 4096,
    TICK_MS = 50,
    TICKS_PER_SWEEP = 100,
    SERVERS_TOLD_MAX = 65536,
    HEARD_ID_MAX = 64
};
static const uint64_t ms = 1000000, told_every_ns = 1000000000;

/* A server that is looked at. */
struct watched {
    struct checker *checker;
    struct group *group;
    size_t server;
    struct probe probe;
    struct loop_timer timer;
    uint64_t acted_at; /* upon what another edge said */
};

struct checker {
    struct checker_options o;
    struct loop *loop;
    pthread_t thread;
    struct pools *pools;
    char *scratch;
    struct ruleset *rules; /* of the loop */
    struct watched *watched;
    size_t watched_n;
    struct loop_timer tick;
    unsigned ticks;
    struct bus_sub *sub;
    char subject[SUBJECT_LEN];
    pthread_mutex_t lock; /* guards told */
    struct map told;      /* server id -> when a message went out, ns as a pointer-sized number */
};

/* --- checks --- */

static void look(void *ctx);

static void schedule(struct watched *w)
{
    uint64_t interval = w->probe.upstream->check.interval_ms;
    uint64_t jitter = rng_below(w->checker->o.rng, interval / 5 + 1);
    loop_timer_set(w->checker->loop, &w->timer,
                   loop_now_ns(w->checker->loop) + (interval - interval / 10 + jitter) * ms, look,
                   w);
}

static void on_result(void *ctx, const char *why)
{
    struct watched *w = ctx;
    group_checked(w->group, w->server, why == NULL, why != NULL ? why : "");
    schedule(w);
}

static void look(void *ctx)
{
    struct watched *w = ctx;
    if (!w->probe.busy) probe_start(&w->probe);
}

static bool is_checked(const struct watched *w)
{
    return w->probe.upstream->check.kind != SNAP_CHECK_NONE && w->probe.server->enabled;
}

static void watch(struct checker *c, struct watched *w, const struct snap_upstream *u, size_t i)
{
    *w = (struct watched){ .checker = c, .group = c->rules->groups[u->index], .server = i };
    w->probe = (struct probe){ .loop = c->loop,
                               .pools = c->pools,
                               .resolver = c->o.resolver,
                               .rules = c->rules,
                               .upstream = u,
                               .server = &u->servers[i],
                               .fn = on_result,
                               .ctx = w };
    if (!is_checked(w)) return;
    /* The first ones soon, but not all at once. */
    uint64_t within = MIN(u->check.interval_ms, UINT64_C(1000));
    loop_timer_set(c->loop, &w->timer, loop_now_ns(c->loop) + rng_below(c->o.rng, within + 1) * ms,
                   look, w);
}

static void forget(struct checker *c)
{
    for (size_t i = 0; i < c->watched_n; i++) {
        loop_timer_clear(c->loop, &c->watched[i].timer);
        probe_stop(&c->watched[i].probe);
    }
    free(c->watched);
    c->watched = NULL;
    c->watched_n = 0;
    ruleset_unref(c->rules);
    c->rules = NULL;
}

struct new_rules {
    struct checker *checker;
    struct ruleset *rules;
};

static void use_rules(void *ctx)
{
    struct new_rules *n = ctx;
    struct checker *c = n->checker;
    const struct snapshot *s = n->rules->snap;
    size_t all = 0;
    forget(c);
    c->rules = n->rules;
    free(n);
    for (size_t i = 0; i < s->upstreams_n; i++) all += s->upstreams[i].servers_n;
    c->watched = xcalloc(all + 1, sizeof *c->watched);
    for (size_t i = 0; i < s->upstreams_n; i++)
        for (size_t k = 0; k < s->upstreams[i].servers_n; k++)
            watch(c, &c->watched[c->watched_n++], &s->upstreams[i], k);
}

void checker_use(struct checker *c, struct ruleset *r)
{
    struct new_rules *n = xcalloc(1, sizeof *n);
    *n = (struct new_rules){ c, ruleset_ref(r) };
    while (loop_post(c->loop, use_rules, n) != ERR_OK) sched_yield();
}

/* --- what edges tell each other --- */

/* Whether a message about it may go out now. */
static bool may_tell(struct checker *c, struct str server)
{
    uint64_t now = clock_mono_ns(c->o.clock);
    pthread_mutex_lock(&c->lock);
    uint64_t last = (uint64_t)(uintptr_t)map_get(&c->told, server);
    bool may = last == 0 || now - last >= told_every_ns;
    if (may && map_put(&c->told, server, (void *)(uintptr_t)now, NULL) != ERR_OK) may = false;
    pthread_mutex_unlock(&c->lock);
    return may;
}

void checker_tell(struct checker *c, const struct fleet_event *ev)
{
    bool up = ev->what == FLEET_CHECK_UP || ev->what == FLEET_BREAKER_CLOSED;
    struct health_msg m = { .upstream = ev->upstream->id,
                            .upstream_slug = ev->upstream->slug,
                            .server = ev->server->id,
                            .server_slug = ev->server->slug,
                            .up = up,
                            .by_check = ev->what == FLEET_CHECK_UP || ev->what == FLEET_CHECK_DOWN,
                            .why = str_of(ev->why) };
    struct buf b;
    LOG_AT(up ? LOG_INFO : LOG_WARN, "an upstream server changed",
           LSTR("upstream", m.upstream_slug), LSTR("server", m.server_slug),
           LS("what", fleet_news_name(ev->what)), LS("why", ev->why));
    if (ev->what == FLEET_COOLING || !may_tell(c, m.server)) return;
    buf_init(&b, MESSAGE_MAX);
    /* Without a bus nobody hears of it, and everybody looks for himself. */
    if (health_msg_encode(&m, c->o.clock, c->o.rng, bus_instance(c->o.bus), &b) == ERR_OK)
        (void)!bus_publish(c->o.bus, c->subject, buf_str(&b));
    buf_done(&b);
}

struct heard {
    struct checker *checker;
    char upstream[HEARD_ID_MAX + 1], server[HEARD_ID_MAX + 1];
    bool up;
};

static void act(void *ctx)
{
    struct heard *h = ctx;
    struct checker *c = h->checker;
    uint64_t now = loop_now_ns(c->loop);
    for (size_t i = 0; i < c->watched_n; i++) {
        struct watched *w = &c->watched[i];
        if (!str_eqz(w->probe.upstream->id, h->upstream) ||
            !str_eqz(w->probe.server->id, h->server))
            continue;
        if (w->acted_at > 0 && now - w->acted_at < told_every_ns) break;
        w->acted_at = now;
        if (!h->up) group_suspect(w->group, w->server);
        if (is_checked(w)) look(w);
        break;
    }
    free(h);
}

/* On a thread of the bus. */
static void on_heard(void *ctx, const struct bus_msg *msg)
{
    struct checker *c = ctx;
    struct health_msg m;
    struct why why;
    if (health_msg_decode(msg->data, &m, &why) != ERR_OK) return; /* input: dropped */
    struct heard *h = xcalloc(1, sizeof *h);
    h->checker = c;
    h->up = m.up;
    bool ok = !str_eqz(m.from, bus_instance(c->o.bus)) &&
              str_copyz(h->upstream, sizeof h->upstream, m.upstream) &&
              str_copyz(h->server, sizeof h->server, m.server);
    health_msg_done(&m);
    if (!ok || loop_post(c->loop, act, h) != ERR_OK) free(h);
}

/* --- its thread --- */

static void on_tick(void *ctx)
{
    struct checker *c = ctx;
    fleet_tick(c->o.fleet);
    if (++c->ticks % TICKS_PER_SWEEP == 0) pools_sweep(c->pools);
    loop_timer_set(c->loop, &c->tick, loop_now_ns(c->loop) + TICK_MS * ms, on_tick, c);
}

static void end(void *ctx)
{
    struct checker *c = ctx;
    loop_stop(c->loop);
}

static void *run(void *ctx)
{
    struct checker *c = ctx;
    loop_run(c->loop);
    return NULL;
}

struct checker *checker_new(const struct checker_options *o)
{
    struct checker *c = xcalloc(1, sizeof *c);
    c->o = *o;
    c->loop = loop_new(o->clock);
    c->scratch = xcalloc(1, SCRATCH_SIZE);
    c->pools = pools_new(
        &(struct pools_options){ .loop = c->loop, .resolver = o->resolver, .scratch = c->scratch });
    pthread_mutex_init(&c->lock, NULL);
    map_init(&c->told, SERVERS_TOLD_MAX);
    subject_make(bus_prefix(o->bus), SUBJECT_UPSTREAM_HEALTH, NULL, c->subject);
    if (bus_subscribe(o->bus, c->subject, NULL, on_heard, c, &c->sub) != ERR_OK)
        log_error("what other edges see of upstream servers cannot be heard");
    on_tick(c);
    ASSERT(pthread_create(&c->thread, NULL, run, c) == 0);
    return c;
}

void checker_free(struct checker *c)
{
    if (c == NULL) return;
    bus_unsubscribe(c->sub);
    /* Behind what was posted before: that holds memory, and references. */
    while (loop_post(c->loop, end, c) != ERR_OK) sched_yield();
    pthread_join(c->thread, NULL);
    forget(c);
    pools_free(c->pools);
    loop_free(c->loop);
    map_done(&c->told);
    pthread_mutex_destroy(&c->lock);
    free(c->scratch);
    free(c);
}
