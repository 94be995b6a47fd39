/* SPDX-License-Identifier: Apache-2.0 */
/* The simulated requests: what they ask for, and how they go on once they were admitted. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "sim.h"

enum { SLICE = 64, INPUT = 20, LENGTH = 150, CHUNK = 8 };

static const struct str policies[SIM_POLICIES] = {
    { "p0", 2 }, { "p1", 2 }, { "p2", 2 }, { "p3", 2 }
};

static struct sim_request *request_new(struct sim *m, int e)
{
    struct list_node *n = list_pop_front(&m->spare);
    struct sim_request *r = n != NULL ? LIST_ENTRY(n, struct sim_request, node)
                                      : xcalloc(1, sizeof *r);
    *r = (struct sim_request){ .edge = e, .serial = ++m->serials, .arrived_ns = m->now };
    list_push_back(&m->edges[e].requests, &r->node);
    return r;
}

static void request_free(struct sim *m, struct sim_request *r)
{
    r->serial = 0; /* what is planned for it is void */
    list_remove(&r->node);
    list_push_front(&m->spare, &r->node);
}

static void count_slots(struct sim *m, const struct sim_request *r, int64_t by)
{
    for (size_t i = 0; i < m->s->rules_n; i++)
        if (m->s->rules[i].kind == LEDGER_SLOTS) sim_log_slot(m, i, r->key, by);
}

static void log_tokens(struct sim *m, const struct sim_request *r, uint64_t tokens, bool output)
{
    for (size_t i = 0; i < m->s->rules_n; i++) {
        const struct lease_claim *c = &r->w.claims[i];
        sim_log(m, i, r->key, tokens * (output ? c->per_output : c->per_input));
    }
}

static void plan_flow(struct sim *m, struct sim_request *r, double mean_ns)
{
    sim_push(m, m->now + 1000 + (uint64_t)sim_exponential(m, mean_ns), SIM_FLOW, r->edge, r,
             r->serial);
}

static void plan_look(struct sim *m, struct sim_request *r)
{
    uint64_t now = sim_edge_time(m, r->edge);
    uint64_t until = lease_held_until(m->edges[r->edge].table, now, &r->w);
    if (until == UINT64_MAX) return;
    double ns = until > now ? (double)(until - now) / m->edges[r->edge].rate : 0;
    sim_push(m, m->now + 1 + (uint64_t)ns, SIM_LOOK, r->edge, r, r->serial);
}

/* --- ends --- */

static void end_slot(struct sim *m, struct sim_request *r)
{
    count_slots(m, r, -1);
    m->edges[r->edge].running--;
    lease_release(m->edges[r->edge].table, sim_edge_time(m, r->edge), &r->w);
    request_free(m, r);
}

static void end_tokens(struct sim *m, struct sim_request *r)
{
    uint64_t charges[LEASE_MAX_CLAIMS] = { 0 };
    struct lease_table *t = m->edges[r->edge].table;
    uint64_t now = sim_edge_time(m, r->edge);
    for (size_t i = 0; i < r->w.claims_n; i++)
        charges[i] = r->w.claims[i].spent + r->hidden * r->w.claims[i].per_output;
    if (r->extends) (void)lease_cancel(t, now, &r->w);
    m->r.debt += r->hidden;
    if (r->delivered < r->length) m->r.cut++;
    lease_end(t, now, &r->w, charges);
    request_free(m, r);
}

void sim_abandon(struct sim *m, struct sim_request *r)
{
    if (r->w.waiting) (void)lease_cancel(m->edges[r->edge].table, 0, &r->w);
    if (r->admitted && m->s->load == SIM_SLOTS && !m->edges[r->edge].silent) count_slots(m, r, -1);
    request_free(m, r);
}

/* --- admission --- */

static void fill_claim(const struct sim *m, const struct sim_request *r, size_t i,
                       struct lease_claim *c)
{
    *c = (struct lease_claim){ .owner = &m->s->rules[i], .units = 1 };
    if (m->s->load != SIM_TOKENS) return;
    c->reserve = true;
    c->per_input = i == 1 ? 0 : 1; /* the second policy counts output, the third input */
    c->per_output = i == 2 ? 0 : 1;
    c->units = r->input * c->per_input + (r->streams ? SLICE : r->asked_for) * c->per_output;
    c->least = r->input * c->per_input + c->per_output;
}

static void dress_tokens(struct sim *m, struct sim_request *r)
{
    uint64_t most = MAX(m->s->rules[0].limit / 4, UINT64_C(1));
    r->input = MIN(1 + (uint64_t)sim_exponential(m, INPUT), most);
    r->length = 1 + (uint64_t)sim_exponential(m, LENGTH);
    r->hidden = sim_chance(m, 0.1) ? (uint64_t)sim_exponential(m, 30) : 0;
    r->streams = sim_chance(m, 0.7);
    r->asked_for = r->length + (uint64_t)sim_exponential(m, LENGTH);
}

void sim_arrive(struct sim *m, int e)
{
    struct sim_edge *x = &m->edges[e];
    struct sim_request *r = request_new(m, e);
    uint64_t now = sim_edge_time(m, e);
    struct lease_binding bindings[LEASE_MAX_CLAIMS];
    uint64_t covers;
    char key[24];
    r->key = m->keys > 1 ? (size_t)rng_below(&m->rng.rng, m->keys) : 0;
    int n = snprintf(key, sizeof key, "k%zu", r->key);
    if (m->s->load == SIM_TOKENS) dress_tokens(m, r);
    for (size_t i = 0; i < m->s->rules_n; i++) {
        const struct ledger_rule *rule = &m->s->rules[i];
        bindings[i].policy = policies[i];
        bindings[i].key = str_n(key, (size_t)n);
        bindings[i].rule = (struct lease_rule){ .kind = rule->kind == LEDGER_SLOTS ? LEASE_SLOTS
                                                                                   : LEASE_RATE,
                                                .away = m->s->away,
                                                .limit = rule->limit,
                                                .capacity = ledger_capacity(rule),
                                                .window_ms = rule->window_us / 1000,
                                                .steady = rule->kind != LEDGER_BUCKET,
                                                .calendar = rule->kind == LEDGER_FIXED,
                                                .strict = m->s->strict };
        fill_claim(m, r, i, &r->w.claims[i]);
        r->w.claims_n++;
    }
    enum lease_verdict v = lease_bind_and_admit(x->table, now, &r->w, bindings, r->input, &covers);
    ASSERT(v != LEASE_VERDICT_OK || covers == lease_covers(x->table, now, &r->w, r->input));
    if (v == LEASE_VERDICT_WAIT) {
        r->waits = true;
        m->r.waited++;
    } else {
        sim_decided(m, r);
    }
}

static void begin_tokens(struct sim *m, struct sim_request *r)
{
    struct lease_table *t = m->edges[r->edge].table;
    uint64_t now = sim_edge_time(m, r->edge);
    if (!lease_spend_input(t, now, &r->w, r->input)) {
        end_tokens(m, r); /* its lease is over already */
        return;
    }
    log_tokens(m, r, r->input, false);
    if (!r->streams) r->length = MIN(r->length, lease_covers(t, now, &r->w, 0));
    plan_flow(m, r, r->streams ? 30e6 : 1.5e9);
}

static void admitted(struct sim *m, struct sim_request *r)
{
    r->admitted = true;
    m->r.admitted++;
    switch (m->s->load) {
    case SIM_REQUESTS:
        for (size_t i = 0; i < m->s->rules_n; i++) sim_log(m, i, r->key, 1);
        request_free(m, r);
        break;
    case SIM_SLOTS:
        count_slots(m, r, 1);
        m->edges[r->edge].running++;
        plan_flow(m, r, (double)m->s->hold_ns);
        if (m->s->strict) plan_look(m, r);
        break;
    case SIM_TOKENS: begin_tokens(m, r); break;
    }
}

void sim_decided(struct sim *m, struct sim_request *r)
{
    m->r.decisions++;
    m->r.longest_wait_ns = MAX(m->r.longest_wait_ns, r->waits ? m->now - r->arrived_ns : 0);
    r->waits = false;
    if (r->extends) {
        r->extends = false;
        return; /* the stream finds out by what is covered */
    }
    if (r->w.verdict == LEASE_VERDICT_OK) {
        admitted(m, r);
        return;
    }
    if (r->w.verdict == LEASE_VERDICT_REFUSED)
        m->r.refused++;
    else
        m->r.unavailable++;
    const struct lease_claim *by = &r->w.claims[r->w.refused_by];
    sim_log_refusal(m, r->w.refused_by, r->key, by->reserve ? by->enough : 0);
    request_free(m, r);
}

/* --- going on --- */

static void stream(struct sim *m, struct sim_request *r)
{
    struct lease_table *t = m->edges[r->edge].table;
    uint64_t now = sim_edge_time(m, r->edge);
    uint64_t chunk = MIN(1 + rng_below(&m->rng.rng, CHUNK), r->length - r->delivered);
    uint64_t n = lease_spend_output(t, now, &r->w, chunk);
    m->r.decisions++;
    r->delivered += n;
    log_tokens(m, r, n, true);
    if (r->delivered == r->length || (n < chunk && !r->extends && r->asked_for == 0)) {
        end_tokens(m, r);
        return;
    }
    if (!r->extends && lease_covers(t, now, &r->w, 0) < SLICE / 2) {
        r->arrived_ns = m->now;
        r->extends = true;
        r->waits = lease_extend(t, now, &r->w, 0, SLICE, 1) == LEASE_VERDICT_WAIT;
        if (!r->waits) sim_decided(m, r);
    }
    /* one that found nothing covered, and nothing more to be had, is cut at its next turn */
    if (n < chunk) r->asked_for = 0;
    plan_flow(m, r, 30e6);
}

void sim_flow(struct sim *m, struct sim_request *r)
{
    if (m->s->load == SIM_SLOTS) {
        end_slot(m, r);
    } else if (r->streams) {
        stream(m, r);
    } else {
        r->delivered = lease_spend_output(m->edges[r->edge].table, sim_edge_time(m, r->edge), &r->w,
                                          r->length);
        m->r.decisions++;
        log_tokens(m, r, r->delivered, true);
        end_tokens(m, r);
    }
}

static bool holds_slot(const struct sim *m, const struct sim_request *r)
{
    uint64_t now = sim_edge_time(m, r->edge);
    return lease_held_until(m->edges[r->edge].table, now, &r->w) > now;
}

void sim_look(struct sim *m, struct sim_request *r)
{
    if (holds_slot(m, r)) {
        plan_look(m, r);
        return;
    }
    m->r.cut++;
    end_slot(m, r);
}

void sim_thaw(struct sim *m, struct sim_request *r)
{
    bool held = holds_slot(m, r);
    if (held) count_slots(m, r, 1);
    if (held) return;
    m->r.cut++;
    m->edges[r->edge].running--;
    lease_release(m->edges[r->edge].table, sim_edge_time(m, r->edge), &r->w);
    request_free(m, r);
}
