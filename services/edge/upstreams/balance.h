/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The choice among the servers of an upstream. Pure: state, time and randomness come in; whoever
 * owns the state sees to it that one thread at a time uses it.
 *
 * Servers of the lowest `priority` are looked at first; those of the next only when none before is
 * fit and has room. Among what is left the upstream's algorithm decides:
 *   round robin, smooth weighted round robin   whoever is furthest behind its share
 *   random                                     by weight
 *   least requests                             the better of two drawn at random
 *   hash                                       weighted rendezvous hashing: a server that is away,
 *                                              or has more than load_percent of its share, gives
 *                                              its keys to each key's next one, and nobody else's
 *                                              keys move
 * When every server is barred and some only by ejection, those are better than none, by priority
 * and with their bounds as ever.
 */
#ifndef EDGE_BALANCE_H
#define EDGE_BALANCE_H

#include "base/clock.h"
#include "health.h"

/* One server's state; the servers of an upstream are in the order of its list. */
struct balance_server {
    struct health health;
    uint64_t active; /* requests it has now */
    int64_t behind;  /* of its share, in round robin */
    uint64_t seed;   /* its place among the hashes */
};

/* The same for every edge and every run, so that edges agree where a key goes. */
uint64_t balance_seed(struct str server_id);
uint64_t balance_hash(struct str key);

struct balance_ask {
    uint64_t hash; /* of the key, when the upstream hashes; 0: the request has none, any server */
    uint64_t tried[SNAP_SERVERS_MAX / 64]; /* a bit for each that is left out */
    uint64_t now;
    const struct rng *rng;
};
static inline void balance_mark_tried(uint64_t tried[SNAP_SERVERS_MAX / 64], size_t i)
{
    tried[i / 64] |= UINT64_C(1) << i % 64;
}

enum balance_verdict {
    BALANCE_OK,
    BALANCE_FULL,   /* those that are fit have max_requests each */
    BALANCE_NONE,   /* none is fit */
    BALANCE_LIMITED /* none is fit, and the first that will be waits for its rate limit */
};
/* states: as many as u has servers. BALANCE_OK: *ret is an index. When none is fit: *ret_at is when
 * the first may be fit again, 0 when time does not tell. */
enum balance_verdict balance_choose(const struct snap_upstream *u,
                                    struct balance_server *const *states,
                                    const struct balance_ask *ask, size_t *ret, uint64_t *ret_at);
/* Whether the share of ejected servers has room for one more. */
bool balance_may_eject(const struct snap_upstream *u, struct balance_server *const *states,
                       uint64_t now);

#endif
