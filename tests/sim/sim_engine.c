/* SPDX-License-Identifier: Apache-2.0 */
/* The simulated allocator: the ledgers, epochs, and who shares. One process with counters in
 * memory; a crash may keep them, as a store outside of it does. */
#include <stdio.h>
#include <stdlib.h>

#include "sim.h"

uint64_t sim_time_us(const struct sim *m)
{
    return 1000 * SEC / 1000 + m->now / 1000;
}

static void forget(struct sim *m)
{
    for (size_t i = 0; i < m->s->rules_n * m->keys; i++) {
        if (m->counters[i].made) ledger_done(&m->counters[i].ledger);
        m->counters[i].made = false;
    }
    shares_done(&m->shares);
    shares_init(&m->shares, sim_time_us(m), LEASE_TTL_MS * UINT64_C(1000));
}

void sim_engine_begin(struct sim *m, bool first)
{
    m->engine_up = true;
    if (!first && m->s->engine_keeps) return;
    forget(m);
    snprintf(m->epoch, sizeof m->epoch, "epoch-%llu", (unsigned long long)++m->engine_no);
    m->warm_us = first ? 0 : sim_time_us(m) + LEASE_TTL_MS * UINT64_C(1000);
    m->birth = (struct ledger_birth){ .full = first, .empty_us = m->warm_us };
}

void sim_engine_free(struct sim *m)
{
    forget(m);
    shares_done(&m->shares);
    free(m->counters);
}

static struct ledger_rule rule_now(const struct sim *m, size_t policy)
{
    struct ledger_rule r = m->s->rules[policy];
    if (m->s->away == LEASE_AWAY_SHARE) r.aside_ppm = shares_aside_ppm(&m->shares, sim_time_us(m));
    return r;
}

static struct ledger *counter_of(struct sim *m, size_t at, const struct ledger_rule *r,
                                 const struct ledger_window *w)
{
    struct sim_counter *c = &m->counters[at];
    if (!c->made) ledger_init(&c->ledger, r, sim_time_us(m), w, &m->birth);
    c->made = true;
    return &c->ledger;
}

static void serve_one(struct sim *m, const struct sim_message *ask, size_t i, uint64_t edges,
                      struct lease_result *ret)
{
    const struct lease_batch *b = &ask->batch;
    const struct lease_batch_op *o = &b->ops[i];
    size_t policy = ask->places[i].policy, key = ask->places[i].key;
    struct ledger_rule r = rule_now(m, policy);
    uint64_t now_us = sim_time_us(m);
    struct ledger_window w = ledger_window_of(&r, now_us);
    struct lease_op op = { .kind = o->kind,
                           .lease = str_of(o->lease),
                           .known = o->known,
                           .want = o->want,
                           .ahead = o->ahead,
                           .min = o->min,
                           .spent = o->spent,
                           .returned = o->returned,
                           .debt = o->debt };
    bool new_lease = op.kind == LEASE_ASK && op.known == 0;
    *ret = (struct lease_result){ .lease = op.lease, .share = edges > 0 ? r.limit / edges : 0 };
    if (!new_lease && strcmp(b->epoch, m->epoch) != 0) {
        ret->status = LEASE_STALE_EPOCH;
    } else if (now_us < m->warm_us) {
        ret->status = LEASE_WARMING;
        ret->retry_ms = (m->warm_us - now_us + 999) / 1000;
    } else if (ledger_serve(counter_of(m, policy * m->keys + key, &r, &w), &r, now_us, &w, &op,
                            ret) != ERR_OK) {
        ret->status = LEASE_UNAVAILABLE;
    }
}

bool sim_engine_serve(struct sim *m, const struct sim_message *ask, struct sim_reply *ret)
{
    struct str name = str_of(m->edges[ask->edge].name);
    if (!m->engine_up || shares_saw(&m->shares, name, sim_time_us(m)) != ERR_OK) return false;
    memcpy(ret->epoch, m->epoch, sizeof m->epoch);
    ret->edges = shares_count(&m->shares, sim_time_us(m));
    shares_tell(&m->shares, name, ret->edges);
    ret->n = ask->batch.n;
    for (size_t i = 0; i < ret->n; i++) serve_one(m, ask, i, ret->edges, &ret->results[i]);
    return true;
}

bool sim_engine_has(struct sim *m, size_t policy, size_t key, uint64_t reserve)
{
    struct ledger_rule r = rule_now(m, policy);
    struct ledger_window w = ledger_window_of(&r, sim_time_us(m));
    struct ledger *l = counter_of(m, policy * m->keys + key, &r, &w);
    ledger_advance(l, &r, sim_time_us(m), &w);
    if (reserve > 0) return ledger_left(l, &r) >= reserve;
    return ledger_left(l, &r) > 0 || (r.kind != LEDGER_SLOTS && ledger_outstanding(l) > 0);
}
