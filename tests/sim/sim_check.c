/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The admission logs. Every interval is checked in one pass, as the log is written:
 *   bucket   the level of an ideal meter that drains at the rate is at most the burst: that says
 *            it for all intervals at once. Where twice the algorithm's bound is stated, the meter
 *            drains twice as fast, and may hold twice the burst: 2 (B + L/W T) for any T
 *   sliding  two pointers: what is inside the window that ends now
 *   fixed    what was admitted in the calendar window
 *   slots    how many are held at once
 */
#include <stdlib.h>

#include "sim.h"

static struct sim_meter *meter_of(struct sim *m, size_t policy, size_t key)
{
    return &m->meters[policy * m->keys + key];
}

static void note(struct sim *m, const struct ledger_rule *r, double value)
{
    double own = (double)ledger_capacity(r);
    m->r.worst = MAX(m->r.worst, value / own);
    m->r.overshoot = MAX(m->r.overshoot, value - own);
}

/* times: of the algorithm's own bound. */
static void log_bucket(struct sim_meter *x, const struct ledger_rule *r, double times,
                       uint64_t now_us, uint64_t units)
{
    x->level -= (double)(now_us - x->at_us) * (double)r->limit / (double)r->window_us * times;
    if (x->level < 0) x->level = 0;
    x->at_us = now_us;
    x->level += (double)units;
}

static void log_sliding(struct sim_meter *x, const struct ledger_rule *r, uint64_t now_us,
                        uint64_t units)
{
    while (x->n > 0 && x->log[x->first].at_us + r->window_us <= now_us) {
        x->inside -= x->log[x->first].units;
        x->first = (x->first + 1) % x->cap;
        x->n--;
    }
    if (x->n == x->cap) {
        size_t cap = x->cap * 2 + 64;
        struct sim_entry *grown = xcalloc(cap, sizeof *grown);
        for (size_t i = 0; i < x->n; i++) grown[i] = x->log[(x->first + i) % x->cap];
        free(x->log);
        x->log = grown;
        x->cap = cap;
        x->first = 0;
    }
    x->log[(x->first + x->n++) % x->cap] = (struct sim_entry){ now_us, units };
    x->inside += units;
}

static void not_starving(struct sim *m, struct sim_meter *x)
{
    if (x->starving_ns != 0) m->r.starved_ns = MAX(m->r.starved_ns, m->now - x->starving_ns);
    x->starving_ns = 0;
}

void sim_log(struct sim *m, size_t policy, size_t key, uint64_t units)
{
    const struct ledger_rule *r = &m->s->rules[policy];
    struct sim_meter *x = meter_of(m, policy, key);
    uint64_t now_us = sim_time_us(m), window;
    if (units == 0) return;
    x->units += units;
    not_starving(m, x);
    switch (r->kind) {
    case LEDGER_BUCKET:
        log_bucket(x, r, MAX(m->s->bound, 1.0), now_us, units);
        note(m, r, x->level - 1e-6);
        break;
    case LEDGER_SLIDING:
        log_sliding(x, r, now_us, units);
        note(m, r, (double)x->inside);
        break;
    case LEDGER_FIXED:
        window = now_us / r->window_us;
        if (window != x->window) x->inside = 0;
        x->window = window;
        x->inside += units;
        note(m, r, (double)x->inside);
        break;
    case LEDGER_SLOTS: break;
    }
}

void sim_log_slot(struct sim *m, size_t policy, size_t key, int64_t by)
{
    struct sim_meter *x = meter_of(m, policy, key);
    x->inside = (uint64_t)((int64_t)x->inside + by);
    if (by > 0) {
        x->units += (uint64_t)by;
        not_starving(m, x);
        note(m, &m->s->rules[policy], (double)x->inside);
    }
}

/* A key starves while it is refused although the allocator has units, or edges hold unspent ones.
 * What edges hold of reservations is in use; there, units are those that the request would have
 * needed at least. */
void sim_log_refusal(struct sim *m, size_t policy, size_t key, uint64_t reserve)
{
    struct sim_meter *x = meter_of(m, policy, key);
    if (m->now - x->looked_ns < 20 * MS) return;
    x->looked_ns = m->now;
    bool has = m->s->rules[policy].kind == LEDGER_SLOTS ? x->inside < m->s->rules[policy].limit
                                                        : sim_engine_has(m, policy, key, reserve);
    if (!m->engine_up || sim_time_us(m) < m->warm_us + LEASE_TTL_MS * UINT64_C(1000) || !has) {
        x->starving_ns = 0; /* nothing could be had: not our doing */
    } else if (x->starving_ns == 0) {
        x->starving_ns = m->now;
    } else {
        m->r.starved_ns = MAX(m->r.starved_ns, m->now - x->starving_ns);
    }
}

void sim_check_finish(struct sim *m)
{
    const struct ledger_rule *r = &m->s->rules[0];
    double ideal, admitted = 0, t = (double)m->s->duration_ns / 1000;
    for (size_t k = 0; k < m->keys; k++) admitted += (double)m->meters[k].units;
    m->r.units = (uint64_t)admitted;
    if (r->kind == LEDGER_SLOTS) {
        ideal = (double)r->limit * (double)m->s->duration_ns / (double)MAX(m->s->hold_ns, MS);
    } else {
        ideal = (double)r->limit * t / (double)r->window_us;
        if (r->kind == LEDGER_BUCKET) ideal += (double)r->burst;
    }
    m->r.utilisation = admitted / (ideal * (double)m->keys);
    for (size_t i = 0; i < m->s->rules_n * m->keys; i++) free(m->meters[i].log);
    free(m->meters);
}
