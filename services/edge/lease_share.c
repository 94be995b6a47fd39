/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the lease table does for a counter that cannot be asked for: deny, allow, or go on with the
 * share of the limit that we were told, beginning empty. Called with the table's lock held.
 */
#include "lease_table.h"

/* A refill that is a millionth slow, so that rounding never adds a unit. */
#define SLOWLY (1.0 - 1e-6)

static uint64_t share_of(const struct lease_table *t, const struct lease_counter *c)
{
    if (c->share_told) return MIN(c->share, c->rule.limit);
    return t->edges > 0 ? c->rule.limit / t->edges : 0;
}

/* How much of the share can pile up. A steady limit (sliding, fixed) must hold in every window, so
 * its units come one by one, spaced over the window. */
static double share_cap(const struct lease_rule *r, uint64_t share)
{
    if (r->steady) return 1.0;
    double cap = (double)r->capacity * (double)share / (double)r->limit;
    return cap < 1.0 ? 1.0 : cap;
}

static void refill(const struct lease_table *t, struct lease_counter *c, uint64_t now,
                   uint64_t share)
{
    double per_ns = (double)share / ((double)c->rule.window_ms * (double)LEASE_MS) * SLOWLY;
    double cap = share_cap(&c->rule, share);
    if (c->local_ns == 0) {
        c->local = 0;
        c->local_ns = t->away ? MAX(t->away_since_ns, UINT64_C(1)) : now;
    }
    if (now > c->local_ns) {
        c->local += (double)(now - c->local_ns) * per_ns;
        c->local_ns = now;
    }
    if (c->local > cap) c->local = cap;
}

static enum lease_look look_share(struct lease_table *t, struct lease_counter *c, uint64_t now,
                                  uint64_t units, uint64_t *ret_retry_ms)
{
    uint64_t share = share_of(t, c);
    if (share == 0) return LEASE_LOOK_UNAVAILABLE;
    if (c->rule.kind == LEASE_SLOTS) {
        if (c->busy + units <= share) return LEASE_LOOK_SHARE;
        *ret_retry_ms = 1000;
        return LEASE_LOOK_REFUSE;
    }
    if (c->rule.window_ms == 0) return LEASE_LOOK_UNAVAILABLE;
    refill(t, c, now, share);
    if (c->local >= (double)units) return LEASE_LOOK_SHARE;
    *ret_retry_ms = (uint64_t)(((double)units - c->local) * (double)c->rule.window_ms /
                               (double)share) +
                    1;
    return LEASE_LOOK_REFUSE;
}

enum lease_look lease_look_away(struct lease_table *t, struct lease_counter *c, uint64_t now,
                                uint64_t units, uint64_t *ret_retry_ms)
{
    if (!c->demanded) {
        c->demanded = true;
        if (!c->inflight)
            lease_set_due(t, c, t->away ? MAX(t->probe_ns, c->away_until_ns) : c->away_until_ns);
    }
    switch (c->rule.away) {
    case LEASE_AWAY_ALLOW: return LEASE_LOOK_ALLOW;
    case LEASE_AWAY_SHARE: return look_share(t, c, now, units, ret_retry_ms);
    case LEASE_AWAY_DENY: break;
    }
    return LEASE_LOOK_UNAVAILABLE;
}

void lease_take_away(struct lease_table *t, struct lease_counter *c, uint64_t units,
                     enum lease_look look)
{
    (void)t;
    if (c->rule.kind == LEASE_SLOTS)
        c->busy += units;
    else if (look == LEASE_LOOK_SHARE)
        c->local -= (double)units;
}
