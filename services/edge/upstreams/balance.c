/* SPDX-License-Identifier: Apache-2.0 */
/* See the header. Pure; the owner's lock. */
#include "balance.h"

#include <math.h>

#include "base/hash.h"

/* Servers that may be chosen, with what each should get. */
struct choice {
    const struct snap_upstream *u;
    struct balance_server *const *states;
    const struct balance_ask *ask;
    unsigned char at[SNAP_SERVERS_MAX];
    uint64_t weight[SNAP_SERVERS_MAX]; /* in thousandths */
    size_t n;
};

static const uint64_t seed_key[2] = { 0x61696777756c6231u, 0x72656e64657a7673u };

uint64_t balance_seed(struct str server_id)
{
    return hash_sip(server_id.p, server_id.n, seed_key);
}

uint64_t balance_hash(struct str key)
{
    uint64_t h = hash_sip(key.p, key.n, seed_key);
    return h != 0 ? h : 1;
}

static bool was_tried(const struct balance_ask *ask, size_t i)
{
    return (ask->tried[i / 64] >> i % 64 & 1) != 0;
}

/* --- the algorithms, each of a choice that is not empty: a place in it --- */

static size_t by_turn(struct choice *c)
{
    size_t best = 0;
    int64_t all = 0;
    for (size_t k = 0; k < c->n; k++) {
        struct balance_server *s = c->states[c->at[k]];
        s->behind += (int64_t)c->weight[k];
        all += (int64_t)c->weight[k];
        if (s->behind > c->states[c->at[best]]->behind) best = k;
    }
    c->states[c->at[best]]->behind -= all;
    return best;
}

static size_t by_lot(const struct choice *c)
{
    uint64_t all = 0;
    for (size_t k = 0; k < c->n; k++) all += c->weight[k];
    uint64_t lot = rng_below(c->ask->rng, all);
    size_t k = 0;
    while (lot >= c->weight[k]) lot -= c->weight[k++];
    return k;
}

/* Whether a has less to do for its weight than b. */
static bool is_freer(const struct choice *c, size_t a, size_t b)
{
    return (c->states[c->at[a]]->active + 1) * c->weight[b] <
           (c->states[c->at[b]]->active + 1) * c->weight[a];
}

static size_t by_requests(const struct choice *c)
{
    if (c->n == 1) return 0;
    size_t a = (size_t)rng_below(c->ask->rng, c->n), b = (size_t)rng_below(c->ask->rng, c->n - 1);
    if (b >= a) b++;
    return is_freer(c, b, a) ? b : a;
}

static uint64_t mix(uint64_t x)
{
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

/* The key's order of servers: the configured weight decides, so that it does not change. */
static double rank(const struct choice *c, size_t k)
{
    const struct balance_server *s = c->states[c->at[k]];
    double x = ((double)(mix(c->ask->hash ^ s->seed) >> 11) + 0.5) / 9007199254740992.0;
    return (double)c->u->servers[c->at[k]].weight / -log(x);
}

static size_t by_hash(const struct choice *c)
{
    uint64_t all = 0, active = 1;
    size_t best = c->n;
    double best_rank = 0;
    for (size_t k = 0; k < c->n; k++) {
        all += c->weight[k];
        active += c->states[c->at[k]]->active;
    }
    for (size_t k = 0; k < c->n; k++) {
        double most = ceil((double)active * (double)c->u->hash.load_percent / 100.0 *
                           (double)c->weight[k] / (double)all);
        if (c->n > 1 && (double)c->states[c->at[k]]->active + 1 > most) continue;
        double r = rank(c, k);
        if (best < c->n && r <= best_rank) continue;
        best = k;
        best_rank = r;
    }
    /* Someone has no more than its share; with rounding it may be none. */
    return best < c->n ? best : by_requests(c);
}

static size_t pick(struct choice *c)
{
    switch (c->u->balance) {
    case SNAP_ROUND_ROBIN:
    case SNAP_WEIGHTED_ROUND_ROBIN: return by_turn(c);
    case SNAP_RANDOM: return by_lot(c);
    case SNAP_LEAST_REQUESTS: return by_requests(c);
    case SNAP_HASH: return c->ask->hash != 0 ? by_hash(c) : by_requests(c);
    }
    return 0;
}

/* --- who may be chosen --- */

static bool has_room(const struct choice *c, size_t i)
{
    uint64_t most = c->u->servers[i].max_requests;
    return most == 0 || c->states[i]->active < most;
}

/* The places are not zeroed: there may be many. */
static void choice_init(struct choice *c, const struct snap_upstream *u,
                        struct balance_server *const *states, const struct balance_ask *ask)
{
    c->u = u;
    c->states = states;
    c->ask = ask;
    c->n = 0;
}

static void add(struct choice *c, size_t i)
{
    uint64_t w = c->u->balance == SNAP_ROUND_ROBIN ? 1 : c->u->servers[i].weight;
    c->at[c->n] = (unsigned char)i;
    c->weight[c->n++] = w * health_share(&c->states[i]->health, c->u, c->ask->now);
}

enum balance_verdict balance_choose(const struct snap_upstream *u,
                                    struct balance_server *const *states,
                                    const struct balance_ask *ask, size_t *ret, uint64_t *ret_at)
{
    struct choice c, last; /* fit; only ejected */
    choice_init(&c, u, states, ask);
    choice_init(&last, u, states, ask);
    bool full = false, limited = false, last_full = false;
    unsigned last_level = 0;
    uint64_t first_at = 0, at;
    for (unsigned level = 0, next = 0; c.n == 0 && next != UINT32_MAX; level = next) {
        next = UINT32_MAX;
        for (size_t i = 0; i < u->servers_n; i++) {
            const struct snap_server *s = &u->servers[i];
            if (!s->enabled || was_tried(ask, i) || s->priority < level) continue;
            if (s->priority > level) {
                next = MIN(next, s->priority);
                continue;
            }
            enum health_bar bar = health_look(&states[i]->health, u, ask->now, &at);
            if (bar == HEALTH_EJECTED && !has_room(&c, i)) {
                last_full = true;
            } else if (bar == HEALTH_EJECTED && (last.n == 0 || level == last_level)) {
                add(&last, i);
                last_level = level;
            }
            if (bar != HEALTH_FIT && at > 0 && (first_at == 0 || at < first_at)) {
                first_at = at;
                limited = bar == HEALTH_COOLING && states[i]->health.limited;
            }
            if (bar != HEALTH_FIT) continue;
            if (has_room(&c, i))
                add(&c, i);
            else
                full = true;
        }
    }
    if (last.n == 0 && last_full) full = true;
    struct choice *from = c.n > 0 ? &c : !full && last.n > 0 ? &last : NULL;
    if (from != NULL) {
        *ret = from->at[pick(from)];
        return BALANCE_OK;
    }
    *ret_at = first_at;
    return full ? BALANCE_FULL : limited ? BALANCE_LIMITED : BALANCE_NONE;
}

bool balance_may_eject(const struct snap_upstream *u, struct balance_server *const *states,
                       uint64_t now)
{
    size_t all = 0, out = 1;
    for (size_t i = 0; i < u->servers_n; i++) {
        if (!u->servers[i].enabled) continue;
        all++;
        if (health_is_ejected(&states[i]->health, now)) out++;
    }
    return out * 100 <= all * u->eject.max_percent;
}
