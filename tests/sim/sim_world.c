/* SPDX-License-Identifier: Apache-2.0 */
/* The simulated world: events in the order of their time, edges with clocks of their own, messages
 * that go astray, and what breaks. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "sim.h"

#define TTL_NS (LEASE_TTL_MS * MS)

double sim_uniform(struct sim *m)
{
    return (double)(rng_u64(&m->rng.rng) >> 11) / 9007199254740992.0;
}
bool sim_chance(struct sim *m, double p)
{
    return p > 0 && sim_uniform(m) < p;
}
double sim_exponential(struct sim *m, double mean)
{
    return -log(1.0 - sim_uniform(m)) * mean;
}

/* --- events: a heap --- */

static bool before(const struct sim_event *a, const struct sim_event *b)
{
    return a->at != b->at ? a->at < b->at : a->order < b->order;
}

static void put(struct sim *m, struct sim_event e)
{
    if (m->heap_n + 2 > m->heap_cap) {
        m->heap_cap = m->heap_cap * 2 + 1024;
        m->heap = xrealloc(m->heap, m->heap_cap * sizeof *m->heap);
    }
    size_t i = ++m->heap_n;
    e.order = m->order++;
    for (; i > 1 && before(&e, &m->heap[i / 2]); i /= 2) m->heap[i] = m->heap[i / 2];
    m->heap[i] = e;
}

static struct sim_event pop(struct sim *m)
{
    struct sim_event top = m->heap[1], last = m->heap[m->heap_n--];
    size_t i = 1;
    for (size_t c; (c = 2 * i) <= m->heap_n; i = c) {
        if (c < m->heap_n && before(&m->heap[c + 1], &m->heap[c])) c++;
        if (!before(&m->heap[c], &last)) break;
        m->heap[i] = m->heap[c];
    }
    m->heap[i] = last;
    return top;
}

void sim_push(struct sim *m, uint64_t at, enum sim_event_kind kind, int edge, void *p,
              uint64_t serial)
{
    put(m, (struct sim_event){ .at = at,
                               .kind = kind,
                               .edge = edge,
                               .life = edge >= 0 ? m->edges[edge].life : 0,
                               .p = p,
                               .serial = serial });
}

/* --- messages --- */

static void ask_drop(struct sim_message *a)
{
    if (--a->refs == 0) free(a);
}

static void reply_drop(struct sim_reply *r)
{
    if (--r->refs > 0) return;
    ask_drop(r->ask);
    free(r);
}

static uint64_t delay(struct sim *m)
{
    if (sim_chance(m, m->s->slow)) {
        return (uint64_t)(sim_uniform(m) * SIM_SLOWEST_MS * (double)MS); /* overtaken by many */
    }
    return 100000 + (uint64_t)(sim_uniform(m) * 400000.0);
}

/* How often it arrives. */
static int copies(struct sim *m, int edge)
{
    if (m->now < m->edges[edge].cut_until || sim_chance(m, m->s->loss)) return 0;
    return sim_chance(m, m->s->repeat) ? 2 : 1;
}

static void send_copies(struct sim *m, int e, struct sim_message *ask)
{
    for (int n = copies(m, e); n > 0; n--) {
        ask->refs++;
        sim_push(m, m->now + delay(m), SIM_ASK, e, ask, 0);
    }
}

static void send_ask(struct sim *m, int e, struct sim_message *ask)
{
    m->r.messages++;
    m->r.ops += ask->batch.n;
    for (size_t i = 0; i < ask->batch.n; i++) {
        const struct lease_batch_op *op = &ask->batch.ops[i];
        size_t key = 0;
        for (size_t k = 1; k < op->key.n; k++) key = key * 10 + (size_t)(op->key.p[k] - '0');
        ask->places[i] = (struct sim_place){ (size_t)(op->policy.p[1] - '0'), key };
    }
    send_copies(m, e, ask);
    ask->refs += 2;
    sim_push(m, m->now + LEASE_ASK_TIMEOUT_MS * MS / 2, SIM_AGAIN, e, ask, 0);
    sim_push(m, m->now + LEASE_ASK_TIMEOUT_MS * MS, SIM_TIMEOUT, e, ask, 0);
}

/* Half of the time-out is over: as the limiter does. */
static void ask_again(struct sim *m, int e, struct sim_message *ask)
{
    if (ask->back || !lease_is_awaited(m->edges[e].table, &ask->batch)) return;
    m->r.messages++;
    m->r.ops += ask->batch.n;
    send_copies(m, e, ask);
}

static void asked(struct sim *m, struct sim_message *ask, uint64_t life)
{
    struct sim_reply *reply = xcalloc(1, sizeof *reply);
    reply->ask = ask;
    reply->refs = 1;
    ask->refs++;
    bool cut = m->now < m->edges[ask->edge].cut_until;
    int n = !cut && sim_engine_serve(m, ask, reply) ? copies(m, ask->edge) : 0;
    for (; n > 0; n--) {
        reply->refs++;
        put(m, (struct sim_event){ .at = m->now + delay(m),
                                   .kind = SIM_REPLY,
                                   .edge = ask->edge,
                                   .life = life,
                                   .p = reply });
    }
    reply_drop(reply);
}

static void conclude_all(struct sim *m, struct list_node *done)
{
    for (struct list_node *n; (n = list_pop_front(done)) != NULL;) {
        struct lease_waiter *w = LIST_ENTRY(n, struct lease_waiter, node);
        sim_decided(m, LIST_ENTRY(w, struct sim_request, w));
    }
}

static void came_back(struct sim *m, int e, struct sim_message *ask, const struct sim_reply *r)
{
    struct lease_table *t = m->edges[e].table;
    struct list_node done;
    if (ask->back) return; /* for the second time */
    ask->back = true;
    list_init(&done);
    if (r != NULL) {
        struct lease_result results[LEASE_BATCH_OPS];
        memcpy(results, r->results, sizeof results);
        struct lease_reply reply = {
            .epoch = str_of(r->epoch), .edges = r->edges, .results = results, .results_n = r->n
        };
        enum err err = lease_apply(t, sim_edge_time(m, e), &ask->batch, &reply, &done);
        ASSERT(err == ERR_OK);
    } else {
        lease_fail(t, sim_edge_time(m, e), &ask->batch, &done);
    }
    conclude_all(m, &done);
}

/* --- edges --- */

uint64_t sim_edge_time(const struct sim *m, int e)
{
    return m->edges[e].offset + (uint64_t)((double)m->now * m->edges[e].rate);
}

static void make_table(struct sim *m, int e)
{
    char incarnation[48];
    struct sim_edge *x = &m->edges[e];
    snprintf(x->name, sizeof x->name, "edge-%d", e);
    snprintf(incarnation, sizeof incarnation, "i%d-%llu", e, (unsigned long long)++x->life);
    x->table = lease_table_new(
        &(struct lease_table_options){ .instance = x->name,
                                       .incarnation = incarnation,
                                       .max_counters = 16 + m->s->rules_n * m->keys,
                                       .ask_timeout_ns = LEASE_ASK_TIMEOUT_MS * MS });
    list_init(&x->requests);
    x->running = 0;
    x->silent = false;
    x->wake_at = UINT64_MAX;
}

void sim_flush(struct sim *m, int e)
{
    struct sim_edge *x = &m->edges[e];
    uint64_t now = sim_edge_time(m, e), due;
    struct list_node done;
    for (int rounds = 0; (due = lease_due(x->table)) <= now; rounds++) {
        ASSERT(rounds < 10000); /* or the table wants something that it does not do */
        list_init(&done);
        lease_expire(x->table, now, &done);
        conclude_all(m, &done);
        struct sim_message *ask = xcalloc(1, sizeof *ask);
        ask->edge = e;
        ask->refs = 1;
        if (lease_collect(x->table, now, &ask->batch)) send_ask(m, e, ask);
        ask_drop(ask);
    }
    if (due == UINT64_MAX) return;
    uint64_t at = m->now + (uint64_t)((double)(due - now) / x->rate) + 1;
    if (x->wake_at > m->now && x->wake_at <= at) return;
    x->wake_at = at;
    sim_push(m, at, SIM_WAKE, e, NULL, at);
}

static void plan_arrival(struct sim *m, int e)
{
    double rate = m->s->per_edge_s;
    uint64_t gap;
    if (m->s->skew > 0)
        rate *= e == 0 ? m->s->skew * m->s->edges
                       : (1 - m->s->skew) * m->s->edges / MAX(m->s->edges - 1, 1);
    if (m->edges[e].bursts && sim_chance(m, 1.0 / 300))
        gap = 3 * SEC + (uint64_t)(sim_uniform(m) * 2e9); /* long enough for every lease to end */
    else
        gap = 1 + (uint64_t)sim_exponential(m, 1e9 / rate);
    put(m, (struct sim_event){ .at = m->now + gap, .kind = SIM_ARRIVE, .edge = e });
}

static void end_requests(struct sim *m, int e)
{
    LIST_EACH_SAFE(it, &m->edges[e].requests)
    {
        sim_abandon(m, LIST_ENTRY(it, struct sim_request, node));
    }
    lease_table_free(m->edges[e].table);
}

static void thaw(struct sim *m, int e)
{
    struct sim_edge *x = &m->edges[e];
    if (!x->silent) return;
    x->silent = false;
    LIST_EACH_SAFE(it, &x->requests)
    {
        struct sim_request *r = LIST_ENTRY(it, struct sim_request, node);
        if (!r->admitted || m->s->load != SIM_SLOTS) continue;
        sim_thaw(m, r);
    }
}

static void silence(struct sim *m, int e)
{
    struct sim_edge *x = &m->edges[e];
    if (m->s->load != SIM_SLOTS || x->frozen_until <= m->now || x->silent) return;
    x->silent = true;
    sim_log_slot(m, 0, 0, -(int64_t)x->running);
}

static void edge_event(struct sim *m, const struct sim_event *ev)
{
    struct sim_edge *x = &m->edges[ev->edge];
    struct sim_request *r = ev->p;
    thaw(m, ev->edge);
    switch (ev->kind) {
    case SIM_ARRIVE:
        sim_arrive(m, ev->edge);
        plan_arrival(m, ev->edge);
        break;
    case SIM_WAKE:
        if (ev->serial != x->wake_at) return; /* an earlier one was planned since */
        x->wake_at = UINT64_MAX;
        break;
    case SIM_REPLY: came_back(m, ev->edge, ((struct sim_reply *)ev->p)->ask, ev->p); break;
    case SIM_AGAIN: ask_again(m, ev->edge, ev->p); break;
    case SIM_TIMEOUT: came_back(m, ev->edge, ev->p, NULL); break;
    case SIM_FLOW:
        if (r->serial == ev->serial) sim_flow(m, r);
        break;
    default:
        if (r->serial == ev->serial) sim_look(m, r);
    }
    sim_flush(m, ev->edge);
}

static void drop(const struct sim_event *ev)
{
    if (ev->kind == SIM_ASK || ev->kind == SIM_AGAIN || ev->kind == SIM_TIMEOUT) ask_drop(ev->p);
    if (ev->kind == SIM_REPLY) reply_drop(ev->p);
}

/* --- what breaks --- */

static void plan_fault(struct sim *m, enum sim_event_kind kind, uint64_t every)
{
    if (every > 0)
        sim_push(m, m->now + (uint64_t)(sim_uniform(m) * 2.0 * (double)every), kind, -1, NULL, 0);
}

/* How long the edge's slots are its own, when it can do nothing about it. */
static uint64_t holds_for(struct sim *m, int e)
{
    struct sim_edge *x = &m->edges[e];
    uint64_t now = sim_edge_time(m, e), until;
    LIST_EACH(it, &x->requests)
    {
        struct sim_request *r = LIST_ENTRY(it, struct sim_request, node);
        if (!r->admitted) continue;
        until = lease_held_until(x->table, now, &r->w);
        return until > now ? (uint64_t)((double)MIN(until - now, TTL_NS) / x->rate) : 0;
    }
    return 0;
}

static void fault(struct sim *m, enum sim_event_kind kind)
{
    int e = (int)rng_below(&m->rng.rng, (uint64_t)m->s->edges);
    struct sim_edge *x = &m->edges[e];
    switch (kind) {
    case SIM_CRASH:
        if (x->frozen_until <= m->now) {
            end_requests(m, e);
            make_table(m, e);
        }
        plan_fault(m, kind, m->s->crash_ns);
        break;
    case SIM_FREEZE:
        if (x->frozen_until <= m->now) {
            x->frozen_until = m->now + (uint64_t)(sim_uniform(m) * 4e9);
            sim_push(m, m->now + holds_for(m, e), SIM_SILENT, e, NULL, 0);
        }
        plan_fault(m, kind, m->s->freeze_ns);
        break;
    case SIM_CUT:
        x->cut_until = m->now + (uint64_t)(sim_uniform(m) * 8e9);
        plan_fault(m, kind, m->s->cut_ns);
        break;
    default: /* the engine */
        m->engine_up = false;
        sim_push(m, m->now + (uint64_t)(sim_uniform(m) * 3e9), SIM_ENGINE_UP, -1, NULL, 0);
    }
}

static void presence(struct sim *m, int e)
{
    struct sim_edge *x = &m->edges[e];
    sim_push(m, m->now + SEC / 2, SIM_PRESENCE, e, NULL, 0);
    if (!m->engine_up || m->now < x->frozen_until || m->now < x->cut_until) return;
    if (shares_said(&m->shares, str_of(x->name), sim_time_us(m), lease_share_among(x->table)) !=
        ERR_OK)
        abort();
}

static void join(struct sim *m, int e)
{
    plan_arrival(m, e);
    presence(m, e);
}

static void happen(struct sim *m, const struct sim_event *ev)
{
    switch (ev->kind) {
    case SIM_ASK: asked(m, ev->p, ev->life); break;
    case SIM_JOIN: join(m, ev->edge); return;
    case SIM_PRESENCE: presence(m, ev->edge); return;
    case SIM_SILENT: silence(m, ev->edge); return;
    case SIM_CRASH:
    case SIM_FREEZE:
    case SIM_CUT:
    case SIM_ENGINE_CRASH: fault(m, ev->kind); return;
    case SIM_ENGINE_UP:
        sim_engine_begin(m, false);
        plan_fault(m, SIM_ENGINE_CRASH, m->s->engine_crash_ns);
        return;
    default:
        if (ev->kind != SIM_ARRIVE && ev->life != m->edges[ev->edge].life)
            break; /* crashed since */
        if (m->edges[ev->edge].frozen_until > m->now) {
            struct sim_event later = *ev;
            later.at = m->edges[ev->edge].frozen_until;
            put(m, later);
            return;
        }
        edge_event(m, ev);
    }
    drop(ev);
}

/* --- a run --- */

static void begin(struct sim *m, const struct sim_scenario *s, uint64_t seed)
{
    m->s = s;
    m->keys = MAX(s->keys, (size_t)1);
    rng_fake_init(&m->rng, seed);
    list_init(&m->spare);
    m->counters = xcalloc(s->rules_n * m->keys, sizeof *m->counters);
    m->meters = xcalloc(s->rules_n * m->keys, sizeof *m->meters);
    shares_init(&m->shares, 0, TTL_NS / 1000);
    sim_engine_begin(m, true);
    for (int e = 0; e < s->edges; e++) {
        struct sim_edge *x = &m->edges[e];
        x->offset = rng_below(&m->rng.rng, 1000) * 1000 * SEC + SEC;
        x->rate = 1.0 + (sim_uniform(m) * 2 - 1) * s->rate_error;
        x->bursts = s->bursts && (!s->mixed || e % 2 == 0);
        make_table(m, e);
        if (s->joins_ns > 0 && e > 0)
            sim_push(m, (uint64_t)e * s->joins_ns, SIM_JOIN, e, NULL, 0);
        else
            join(m, e);
    }
    plan_fault(m, SIM_CRASH, s->crash_ns);
    plan_fault(m, SIM_FREEZE, s->freeze_ns);
    plan_fault(m, SIM_CUT, s->cut_ns);
    plan_fault(m, SIM_ENGINE_CRASH, s->engine_crash_ns);
}

struct sim_result sim_run(const struct sim_scenario *s, uint64_t seed)
{
    struct sim *m = xcalloc(1, sizeof *m);
    struct sim_result r;
    begin(m, s, seed);
    while (m->heap_n > 0 && m->heap[1].at <= s->duration_ns) {
        struct sim_event ev = pop(m);
        m->now = ev.at;
        happen(m, &ev);
    }
    sim_check_finish(m);
    r = m->r;
    m->meters = xcalloc(s->rules_n * m->keys, sizeof *m->meters); /* for what is abandoned now */
    for (int e = 0; e < s->edges; e++) end_requests(m, e);
    while (m->heap_n > 0) {
        struct sim_event ev = pop(m);
        drop(&ev);
    }
    for (struct list_node *n; (n = list_pop_front(&m->spare)) != NULL;)
        free(LIST_ENTRY(n, struct sim_request, node));
    free(m->meters);
    sim_engine_free(m);
    free(m->heap);
    free(m);
    return r;
}
