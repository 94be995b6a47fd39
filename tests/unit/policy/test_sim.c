/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The simulator: the engine's counters and several edges' lease tables, the code of production,
 * in one process on a virtual clock. Messages are delayed, lost, repeated and overtaken; edges
 * crash, freeze and have clocks of other rates; the engine crashes and begins new epochs. Every
 * interval of the admission log is checked.
 *
 * The edge's lease table is compiled into this test, since it belongs to another process.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka wants the four above first */
#include <cmocka.h>
#include <math.h>
#include <stdio.h>

#include "interval_check.h"
#include "services/edge/lease.c"
#include "services/edge/lease_share.c"
#include "services/edge/lease_wire.c"
#include "services/policy/store.h"

#define MS UINT64_C(1000000)
#define SEC (1000 * MS)

enum { MAX_EDGES = 32, MAX_COUNTERS = 4 };

static const struct str policies[MAX_COUNTERS] = {
    { "p0", 2 }, { "p1", 2 }, { "p2", 2 }, { "p3", 2 }
};

struct scenario {
    const char *name;
    struct ledger_rule rules[MAX_COUNTERS];
    size_t counters; /* a request is counted on all of them */
    enum lease_away away;
    int edges;
    double per_edge_s;            /* requests per second and edge, on average */
    bool bursts;                  /* silence, then all at once */
    double loss, repeat, slow;    /* of messages: probabilities */
    uint64_t crash_ns, freeze_ns; /* an edge about so often; 0: never */
    uint64_t engine_crash_ns;     /* the engine */
    uint64_t hold_ns;             /* how long a request holds its slots, on average */
    uint64_t duration_ns;
    double rate_error; /* of the edges' clocks */
};

enum event_kind {
    EV_ARRIVE,
    EV_WAKE,
    EV_ASK,
    EV_REPLY,
    EV_TIMEOUT,
    EV_FINISH,
    EV_EDGE_CRASH,
    EV_FREEZE,
    EV_ENGINE_CRASH,
    EV_ENGINE_UP
};

struct event {
    uint64_t at, order;
    enum event_kind kind;
    int edge;
    uint64_t life; /* of the edge, or the engine, that it is meant for */
    void *p;
};

struct message { /* an ask and its reply; lives until the end of the run */
    struct message *all;
    int edge;
    bool back;                     /* given to lease_apply() or lease_fail() */
    size_t which[LEASE_BATCH_OPS]; /* rule of each op */
    struct lease_batch batch;
};
struct answer {
    struct answer *all;
    struct message *ask;
    char epoch[LEASE_ID_MAX + 1];
    size_t n;
    uint64_t edges;
    struct lease_result results[]; /* lease points into the batch */
};

struct request {
    struct list_node node;
    struct lease_waiter w;
    int edge;
    uint64_t life;
};

struct edge {
    struct lease_table *table;
    uint64_t life, frozen_until, offset;
    double rate;
    struct list_node requests; /* waiting or holding slots */
    uint64_t wake_at;
};

struct sim {
    const struct scenario *s;
    struct rng_fake rng;
    struct clock_fake clock;
    struct store *store;
    bool engine_up;
    uint64_t engine_life;
    struct edge edges[MAX_EDGES];
    struct event *heap;
    size_t heap_n, heap_cap;
    uint64_t now, order;
    struct message *messages;
    struct answer *answers;
    /* the log */
    struct bucket_check bucket[MAX_COUNTERS];
    struct window_check window[MAX_COUNTERS];
    uint64_t running, most_running;
    uint64_t decisions, admitted, refused, unavailable, waited, sent;
};

static double uniform(struct sim *m)
{
    return (double)(rng_u64(&m->rng.rng) >> 11) / 9007199254740992.0;
}
static bool chance(struct sim *m, double p)
{
    return uniform(m) < p;
}

/* --- events --- */

static bool before(const struct event *a, const struct event *b)
{
    return a->at != b->at ? a->at < b->at : a->order < b->order;
}

static void push(struct sim *m, uint64_t at, enum event_kind kind, int edge, uint64_t life, void *p)
{
    if (m->heap_n + 2 > m->heap_cap) {
        m->heap_cap = m->heap_cap * 2 + 1024;
        m->heap = xrealloc(m->heap, m->heap_cap * sizeof *m->heap);
    }
    size_t i = ++m->heap_n;
    struct event e = { at, m->order++, kind, edge, life, p };
    for (; i > 1 && before(&e, &m->heap[i / 2]); i /= 2) m->heap[i] = m->heap[i / 2];
    m->heap[i] = e;
}

static struct event pop(struct sim *m)
{
    struct event top = m->heap[1], last = m->heap[m->heap_n--];
    size_t i = 1;
    for (size_t c; (c = 2 * i) <= m->heap_n; i = c) {
        if (c < m->heap_n && before(&m->heap[c + 1], &m->heap[c])) c++;
        if (!before(&m->heap[c], &last)) break;
        m->heap[i] = m->heap[c];
    }
    m->heap[i] = last;
    return top;
}

/* --- edges --- */

static uint64_t edge_time(const struct sim *m, int e)
{
    return m->edges[e].offset + (uint64_t)((double)m->now * m->edges[e].rate);
}

static void make_table(struct sim *m, int e)
{
    char name[32], incarnation[48];
    struct edge *x = &m->edges[e];
    snprintf(name, sizeof name, "edge-%d", e);
    snprintf(incarnation, sizeof incarnation, "edge-%d-%llu", e, (unsigned long long)++x->life);
    x->table = lease_table_new(
        &(struct lease_table_options){ .instance = name,
                                       .incarnation = incarnation,
                                       .max_counters = 64,
                                       .ask_timeout_ns = LEASE_ASK_TIMEOUT_MS * MS });
    list_init(&x->requests);
    x->wake_at = UINT64_MAX;
}

static uint64_t delay(struct sim *m)
{
    if (chance(m, m->s->slow)) return (uint64_t)(uniform(m) * 3e9); /* overtaken by many */
    return 100000 + (uint64_t)(uniform(m) * 400000.0);
}

static void transmit(struct sim *m, enum event_kind kind, int edge, uint64_t life, void *p)
{
    int times = chance(m, m->s->loss) ? 0 : chance(m, m->s->repeat) ? 2 : 1;
    while (times-- > 0) push(m, m->now + delay(m), kind, edge, life, p);
}

static void log_admission(struct sim *m, struct request *r)
{
    bool holds = false;
    for (size_t i = 0; i < m->s->counters; i++) {
        const struct ledger_rule *rule = &m->s->rules[i];
        if (rule->kind == LEDGER_BUCKET) bucket_check_add(&m->bucket[i], m->now / 1000, 1);
        if (rule->kind == LEDGER_SLIDING) window_check_add(&m->window[i], m->now / 1000, 1);
        if (rule->kind == LEDGER_SLOTS) holds = true;
    }
    m->admitted++;
    if (!holds) {
        free(r);
        return;
    }
    if (++m->running > m->most_running) m->most_running = m->running;
    list_push_back(&m->edges[r->edge].requests, &r->node);
    push(m, m->now + (uint64_t)(uniform(m) * 2.0 * (double)m->s->hold_ns), EV_FINISH, r->edge,
         r->life, r);
}

static void conclude(struct sim *m, struct request *r)
{
    m->decisions++;
    if (r->w.verdict == LEASE_VERDICT_OK) {
        log_admission(m, r);
        return;
    }
    if (r->w.verdict == LEASE_VERDICT_REFUSED)
        m->refused++;
    else
        m->unavailable++;
    free(r);
}

static void conclude_all(struct sim *m, struct list_node *done)
{
    for (struct list_node *n; (n = list_pop_front(done)) != NULL;) {
        struct request *r = LIST_ENTRY(LIST_ENTRY(n, struct lease_waiter, node), struct request, w);
        list_remove(&r->node);
        conclude(m, r);
    }
}

/* Sends what is due and plans the next look. */
static void flush(struct sim *m, int e)
{
    struct edge *x = &m->edges[e];
    uint64_t now = edge_time(m, e);
    struct list_node done;
    list_init(&done);
    lease_expire(x->table, now, &done);
    conclude_all(m, &done);
    while (lease_due(x->table) <= now) {
        struct message *msg = xcalloc(1, sizeof *msg);
        msg->all = m->messages;
        m->messages = msg;
        msg->edge = e;
        if (!lease_collect(x->table, now, &msg->batch)) break;
        m->sent++;
        for (size_t i = 0; i < msg->batch.n; i++)
            msg->which[i] = (size_t)(msg->batch.ops[i].policy.p[1] - '0');
        transmit(m, EV_ASK, e, x->life, msg);
        push(m, m->now + LEASE_ASK_TIMEOUT_MS * MS, EV_TIMEOUT, e, x->life, msg);
    }
    uint64_t due = lease_due(x->table);
    if (due == UINT64_MAX) return;
    uint64_t at = m->now + (due > now ? (uint64_t)((double)(due - now) / x->rate) + 1 : 1);
    if (x->wake_at > m->now && x->wake_at <= at) return;
    x->wake_at = at;
    push(m, at, EV_WAKE, e, x->life, NULL);
}

static void arrive(struct sim *m, int e)
{
    struct edge *x = &m->edges[e];
    struct request *r = xcalloc(1, sizeof *r);
    uint64_t now = edge_time(m, e);
    r->edge = e;
    r->life = x->life;
    for (size_t i = 0; i < m->s->counters; i++) {
        const struct ledger_rule *rule = &m->s->rules[i];
        struct lease_rule lr = { .kind = rule->kind == LEDGER_SLOTS ? LEASE_SLOTS : LEASE_RATE,
                                 .away = m->s->away,
                                 .limit = rule->limit,
                                 .capacity = ledger_capacity(rule),
                                 .window_ms = rule->window_us / 1000,
                                 .steady = rule->kind != LEDGER_BUCKET };
        r->w.claims[r->w.claims_n++] = (struct lease_claim){ .owner = rule, .units = 1 };
        lease_bind(x->table, now, &r->w, i, policies[i], STR("ns=1"), &lr);
    }
    if (lease_admit(x->table, now, &r->w) == LEASE_VERDICT_WAIT) {
        m->waited++;
        list_push_back(&x->requests, &r->node);
    } else {
        conclude(m, r);
    }
    flush(m, e);
}

static void plan_arrival(struct sim *m, int e)
{
    uint64_t gap;
    if (m->s->bursts && chance(m, 1.0 / 200))
        gap = 3 * SEC + (uint64_t)(uniform(m) * 2e9); /* long enough for every lease to end */
    else
        gap = (uint64_t)(-log(1.0 - uniform(m)) * 1e9 / m->s->per_edge_s);
    push(m, m->now + gap, EV_ARRIVE, e, 0, NULL);
}

static void crash(struct sim *m, int e)
{
    struct edge *x = &m->edges[e];
    LIST_EACH_SAFE(it, &x->requests)
    {
        struct request *r = LIST_ENTRY(it, struct request, node);
        list_remove(&r->node);
        if (!lease_cancel(x->table, 0, &r->w)) m->running--; /* it ran, and died with its edge */
        /* one that held slots is freed when its end comes up: see EV_FINISH */
        if (r->w.verdict != LEASE_VERDICT_OK) free(r);
    }
    lease_table_free(x->table);
    make_table(m, e);
}

/* --- the engine --- */

static void engine_serves(struct sim *m, struct message *msg, uint64_t life)
{
    const struct lease_batch *b = &msg->batch;
    struct store_item items[LEASE_BATCH_OPS] = { 0 };
    struct lease_op ops[LEASE_BATCH_OPS];
    struct answer *a = xcalloc(1, sizeof *a + b->n * sizeof a->results[0]);
    a->all = m->answers;
    m->answers = a;
    a->ask = msg;
    a->n = b->n;
    a->edges = (uint64_t)m->s->edges;
    for (size_t i = 0; i < b->n; i++) {
        const struct lease_batch_op *op = &b->ops[i];
        size_t which = msg->which[i];
        ops[i] = (struct lease_op){ .kind = op->kind,
                                    .policy = policies[which],
                                    .key = STR("ns=1"),
                                    .lease = str_of(op->lease),
                                    .known = op->known,
                                    .want = op->want,
                                    .min = op->min,
                                    .spent = op->spent,
                                    .returned = op->returned };
        items[i] = (struct store_item){ .op = &ops[i], .rule = &m->s->rules[which] };
        items[i].result.lease = str_of(op->lease);
        items[i].result.share = m->s->rules[which].limit / a->edges;
    }
    m->clock.mono = m->clock.wall = 1000 * SEC + m->now;
    if (store_serve(m->store, str_of(b->epoch), items, b->n, a->epoch, NULL) != ERR_OK) return;
    for (size_t i = 0; i < b->n; i++) a->results[i] = items[i].result;
    transmit(m, EV_REPLY, msg->edge, life, a);
}

static void answered(struct sim *m, int e, struct answer *a)
{
    struct list_node done;
    struct lease_reply reply = {
        .epoch = str_of(a->epoch), .edges = a->edges, .results = a->results, .results_n = a->n
    };
    if (a->ask->back) return; /* too late, or for the second time */
    a->ask->back = true;
    list_init(&done);
    assert_int_equal(lease_apply(m->edges[e].table, edge_time(m, e), &a->ask->batch, &reply, &done),
                     ERR_OK);
    conclude_all(m, &done);
    flush(m, e);
}

static void timed_out(struct sim *m, int e, struct message *msg)
{
    struct list_node done;
    if (msg->back) return;
    msg->back = true;
    list_init(&done);
    lease_fail(m->edges[e].table, edge_time(m, e), &msg->batch, &done);
    conclude_all(m, &done);
    flush(m, e);
}

static void begin_epoch(struct sim *m, bool first)
{
    char epoch[32];
    snprintf(epoch, sizeof epoch, "epoch-%llu", (unsigned long long)++m->engine_life);
    m->clock.mono = m->clock.wall = 1000 * SEC + m->now;
    store_memory_begin(m->store, epoch, first);
    m->engine_up = true;
}

static void plan_fault(struct sim *m, enum event_kind kind, uint64_t every)
{
    if (every > 0)
        push(m, m->now + (uint64_t)(uniform(m) * 2.0 * (double)every), kind, -1, 0, NULL);
}

static void edge_event(struct sim *m, const struct event *ev)
{
    struct edge *x = &m->edges[ev->edge];
    struct request *r = ev->p;
    if (ev->kind == EV_FINISH && ev->life != x->life) {
        free(r); /* its edge has crashed since */
        return;
    }
    if (ev->kind != EV_ARRIVE && ev->life != x->life) return;
    if (x->frozen_until > m->now) {
        push(m, x->frozen_until, ev->kind, ev->edge, ev->life, ev->p);
        return;
    }
    switch (ev->kind) {
    case EV_ARRIVE:
        arrive(m, ev->edge);
        plan_arrival(m, ev->edge);
        break;
    case EV_WAKE:
        x->wake_at = UINT64_MAX;
        flush(m, ev->edge);
        break;
    case EV_REPLY: answered(m, ev->edge, ev->p); break;
    case EV_TIMEOUT: timed_out(m, ev->edge, ev->p); break;
    default:
        m->running--;
        list_remove(&r->node);
        lease_release(x->table, edge_time(m, ev->edge), &r->w);
        free(r);
        flush(m, ev->edge);
    }
}

static void happen(struct sim *m, const struct event *ev)
{
    int any = (int)rng_below(&m->rng.rng, (uint64_t)m->s->edges);
    switch (ev->kind) {
    case EV_ASK:
        if (m->engine_up) engine_serves(m, ev->p, ev->life);
        break;
    case EV_EDGE_CRASH:
        if (m->edges[any].frozen_until <= m->now) crash(m, any);
        plan_fault(m, EV_EDGE_CRASH, m->s->crash_ns);
        break;
    case EV_FREEZE:
        m->edges[any].frozen_until = m->now + (uint64_t)(uniform(m) * 4e9);
        plan_fault(m, EV_FREEZE, m->s->freeze_ns);
        break;
    case EV_ENGINE_CRASH:
        m->engine_up = false;
        push(m, m->now + (uint64_t)(uniform(m) * 3e9), EV_ENGINE_UP, -1, 0, NULL);
        break;
    case EV_ENGINE_UP:
        begin_epoch(m, false);
        plan_fault(m, EV_ENGINE_CRASH, m->s->engine_crash_ns);
        break;
    default: edge_event(m, ev);
    }
}

static void finish(struct sim *m)
{
    for (int e = 0; e < m->s->edges; e++) {
        LIST_EACH_SAFE(it, &m->edges[e].requests)
        {
            struct request *r = LIST_ENTRY(it, struct request, node);
            if (!lease_cancel(m->edges[e].table, 0, &r->w)) continue;
            list_remove(&r->node);
            free(r);
        }
        lease_table_free(m->edges[e].table);
    }
    for (size_t i = 1; i <= m->heap_n; i++)
        if (m->heap[i].kind == EV_FINISH) free(m->heap[i].p);
    for (struct message *x = m->messages, *next; x != NULL; x = next) {
        next = x->all;
        free(x);
    }
    for (struct answer *x = m->answers, *next; x != NULL; x = next) {
        next = x->all;
        free(x);
    }
    for (size_t i = 0; i < MAX_COUNTERS; i++) window_check_done(&m->window[i]);
    store_free(m->store);
    free(m->heap);
}

/* Runs the scenario; the log's worst interval is in m->bucket and m->window. */
static void run(struct sim *m, const struct scenario *s, uint64_t seed)
{
    *m = (struct sim){ .s = s };
    rng_fake_init(&m->rng, seed);
    clock_fake_init(&m->clock, 1000 * SEC, 1000 * SEC);
    m->store = store_memory_new(&m->clock.clock, 1000);
    begin_epoch(m, true);
    for (size_t i = 0; i < s->counters; i++) {
        m->bucket[i].burst = (double)s->rules[i].burst;
        m->bucket[i].per_us = (double)s->rules[i].limit / (double)MAX(s->rules[i].window_us, 1u);
        m->window[i].limit = s->rules[i].limit;
        m->window[i].window_us = s->rules[i].window_us;
    }
    for (int e = 0; e < s->edges; e++) {
        m->edges[e].offset = rng_below(&m->rng.rng, 1000) * 1000 * SEC + SEC;
        m->edges[e].rate = 1.0 + (uniform(m) * 2 - 1) * s->rate_error;
        make_table(m, e);
        plan_arrival(m, e);
    }
    plan_fault(m, EV_EDGE_CRASH, s->crash_ns);
    plan_fault(m, EV_FREEZE, s->freeze_ns);
    plan_fault(m, EV_ENGINE_CRASH, s->engine_crash_ns);
    while (m->heap_n > 0 && m->heap[1].at <= s->duration_ns) {
        struct event ev = pop(m);
        m->now = ev.at;
        happen(m, &ev);
    }
}

#define BUCKET(limit, window, burst)                                                 \
    {                                                                                \
        LEDGER_BUCKET, limit, burst, (window)*1000u, ttl_us(window), chunk_of(limit) \
    }
#define SLIDING(limit, window)                                                    \
    {                                                                             \
        LEDGER_SLIDING, limit, 0, (window)*1000u, ttl_us(window), chunk_of(limit) \
    }
#define SLOTS(limit)                                        \
    {                                                       \
        LEDGER_SLOTS, limit, 0, 0, 2000000, chunk_of(limit) \
    }
#define chunk_of(limit) ((limit) / 16 < 1 ? 1 : (limit) / 16 > 8 ? 8 : (limit) / 16)
#define ttl_us(window) ((window) / 20 > 2000 ? 2000000u : (window) / 20 * 1000u)

static void check_bounds(struct sim *m, double share_factor)
{
    const struct scenario *s = m->s;
    for (size_t i = 0; i < s->counters; i++) {
        const struct ledger_rule *r = &s->rules[i];
        if (r->kind == LEDGER_BUCKET) assert_true(bucket_check_ok(&m->bucket[i]));
        if (r->kind == LEDGER_SLIDING)
            assert_true((double)m->window[i].worst <= (double)r->limit * share_factor);
        if (r->kind == LEDGER_SLOTS) assert_true(m->most_running <= r->limit);
    }
}

static void chaos_with(const struct scenario *base, const struct ledger_rule *rules, size_t n,
                       bool bursts, uint64_t seed)
{
    struct scenario s = *base;
    struct sim m;
    memcpy(s.rules, rules, n * sizeof *rules);
    s.counters = n;
    s.bursts = bursts;
    run(&m, &s, seed);
    check_bounds(&m, 1.0);
    print_message("limit %llu: %llu of %llu admitted, %llu unavailable\n",
                  (unsigned long long)rules[0].limit, (unsigned long long)m.admitted,
                  (unsigned long long)m.decisions, (unsigned long long)m.unavailable);
    assert_true(m.decisions > 10000);
    assert_true(m.admitted > 50 && m.refused > 50);
    finish(&m);
}

static const struct scenario chaos = {
    .name = "chaos",
    .away = LEASE_AWAY_DENY,
    .edges = 8,
    .per_edge_s = 200,
    .loss = 0.05,
    .repeat = 0.05,
    .slow = 0.02,
    .crash_ns = 5 * SEC,
    .freeze_ns = 5 * SEC,
    .engine_crash_ns = 20 * SEC,
    .duration_ns = 60 * SEC,
    .rate_error = 0.004,
};

static void chaos_never_overshoots_a_bucket(void **state)
{
    static const struct ledger_rule rules[][1] = { { BUCKET(5, 1000, 5) },
                                                   { BUCKET(200, 1000, 200) },
                                                   { BUCKET(1000, 10000, 50) } };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rules); i++)
        for (uint64_t seed = 1; seed <= 2; seed++) {
            chaos_with(&chaos, rules[i], 1, false, seed);
            chaos_with(&chaos, rules[i], 1, true, seed + 100);
        }
}

static void chaos_never_overshoots_a_sliding_window(void **state)
{
    static const struct ledger_rule rules[][1] = { { SLIDING(5, 2000) },
                                                   { SLIDING(500, 3000) },
                                                   { SLIDING(3000, 10000) } };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rules); i++)
        for (uint64_t seed = 1; seed <= 2; seed++) {
            chaos_with(&chaos, rules[i], 1, false, seed);
            chaos_with(&chaos, rules[i], 1, true, seed + 100);
        }
}

static void chaos_never_overshoots_any_of_several(void **state)
{
    static const struct ledger_rule rules[] = { BUCKET(100, 1000, 100), SLIDING(400, 5000),
                                                BUCKET(300, 2000, 10) };
    (void)state;
    for (uint64_t seed = 1; seed <= 3; seed++) chaos_with(&chaos, rules, 3, seed == 2, seed);
}

static void slots_are_never_overrun_while_the_engine_can_be_reached(void **state)
{
    struct scenario s = chaos;
    (void)state;
    s.rules[0] = (struct ledger_rule)SLOTS(40);
    s.counters = 1;
    s.hold_ns = 100 * MS;
    s.freeze_ns = s.engine_crash_ns = 0;
    s.loss = 0.01;
    for (uint64_t seed = 1; seed <= 3; seed++) {
        struct sim m;
        run(&m, &s, seed);
        check_bounds(&m, 1.0);
        assert_true(m.most_running >= 30);
        assert_true(m.admitted > 1000);
        finish(&m);
    }
}

/* Without faults a limit is also used: all of it by a bucket, nearly all by a sliding window. */
static void without_faults_the_limit_is_used(void **state)
{
    static const struct {
        struct ledger_rule rule;
        double least;
    } cases[] = { { BUCKET(200, 1000, 200), 0.97 },
                  { BUCKET(20, 1000, 20), 0.95 },
                  { SLIDING(600, 10000), 0.90 },
                  { SLIDING(3, 5000), 0.90 } };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct scenario s = {
            .away = LEASE_AWAY_DENY, .edges = 4, .per_edge_s = 400, .duration_ns = 60 * SEC
        };
        struct sim m;
        s.rules[0] = cases[i].rule;
        s.counters = 1;
        run(&m, &s, 7);
        check_bounds(&m, 1.0);
        double ideal = (double)cases[i].rule.burst +
                       (double)cases[i].rule.limit * 60e6 / (double)cases[i].rule.window_us;
        print_message("case %zu: %.4f of the limit used, %llu decisions, %llu messages\n", i,
                      (double)m.admitted / ideal, (unsigned long long)m.decisions,
                      (unsigned long long)m.sent);
        assert_true((double)m.admitted >= ideal * cases[i].least);
        assert_int_equal(m.unavailable, 0);
        finish(&m);
    }
}

/* share: each edge goes on with limit / edges, beginning empty: at most twice the limit together.
 */
static void shares_stay_within_their_bound_and_keep_serving(void **state)
{
    struct scenario s = chaos;
    (void)state;
    s.away = LEASE_AWAY_SHARE;
    s.crash_ns = 0;
    s.rules[0] = (struct ledger_rule)SLIDING(400, 2000);
    s.counters = 1;
    s.engine_crash_ns = 8 * SEC;
    for (uint64_t seed = 1; seed <= 3; seed++) {
        struct sim m;
        run(&m, &s, seed);
        check_bounds(&m, 2.0);
        assert_true(m.unavailable < m.decisions / 20);
        finish(&m);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(chaos_never_overshoots_a_bucket),
        cmocka_unit_test(chaos_never_overshoots_a_sliding_window),
        cmocka_unit_test(chaos_never_overshoots_any_of_several),
        cmocka_unit_test(slots_are_never_overrun_while_the_engine_can_be_reached),
        cmocka_unit_test(without_faults_the_limit_is_used),
        cmocka_unit_test(shares_stay_within_their_bound_and_keep_serving),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
