/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the lease table does for a counter that cannot be asked for: deny, allow, or go on with the
 * share of the limit that we were told, beginning empty. Called with the table's lock held.
 *
 *   bucket    a bucket of its share, empty when the engine fell silent
 *   sliding   no window of it admits more than the share, and after t of the first window not more
 *             than that part of it
 *   calendar  its part of what remained; when the window is over, its share of the limit
 *   slots     as many as its share in use
 *
 * When the engine is back, it is told of what the limit still has to make up for (as debt): of a
 * window, what was spent in it; of a bucket, what was spent before the allocator could know that it
 * did not hear from us, and set our share aside.
 */
#include <stdlib.h>

#include "lease_table.h"

/* A refill that is a millionth slow, so that rounding never adds a unit. */
#define SLOWLY (1.0 - 1e-6)

/* Never more than by the number that we were told last, with whatever counter: it is what we say
 * that we share among. */
static uint64_t share_of(const struct lease_table *t, const struct lease_counter *c)
{
    uint64_t own = t->edges > 0 ? c->rule.limit / t->edges : 0;
    return c->share_told ? MIN(c->share, own) : own;
}

static uint64_t window_ns(const struct lease_counter *c)
{
    return MAX(c->rule.window_ms, UINT64_C(1)) * LEASE_MS;
}

static struct lease_local *open_local(struct lease_table *t, struct lease_counter *c, uint64_t now)
{
    struct lease_local *l = c->local;
    if (l != NULL) return l;
    l = c->local = calloc(1, sizeof *l);
    if (l == NULL) return NULL;
    /* since when nobody answers: the message that this request waited for, or the first in vain */
    l->begun_ns = t->away ? t->failing_since_ns : now - MIN(now, t->ask_timeout_ns);
    l->begun_ns = MAX(MIN(l->begun_ns, now), MAX(c->told_ns, UINT64_C(1)));
    l->at_ns = l->begun_ns;
    if (c->rule.calendar) {
        l->pool = t->edges > 0 && c->told ? c->remaining / t->edges : share_of(t, c);
        l->pool_end_ns = c->reset_ns > now ? c->reset_ns : now + window_ns(c);
    }
    return l;
}

void lease_end_local(struct lease_counter *c, uint64_t now)
{
    struct lease_local *l = c->local;
    if (l == NULL) return;
    if (c->rule.steady && !c->rule.calendar)
        for (size_t i = 0; i < l->spans_n; i++)
            if (l->spans[i].last_ns + window_ns(c) > now) c->owed += l->spans[i].units;
    if (!c->rule.steady || (c->rule.calendar && now < l->pool_end_ns)) c->owed += l->charged;
    free(l);
    c->local = NULL;
}

/* --- bucket --- */

/* Units that are there, and how long until there are `units`. */
static double look_bucket(struct lease_counter *c, uint64_t now, uint64_t share, double units,
                          double *ret_ns)
{
    struct lease_local *l = c->local;
    double per_ns = (double)share / (double)window_ns(c) * SLOWLY;
    double cap = MAX((double)c->rule.capacity * (double)share / (double)c->rule.limit, 1.0);
    if (now > l->at_ns) {
        l->level += (double)(now - l->at_ns) * per_ns;
        l->at_ns = now;
    }
    l->level = MIN(l->level, cap);
    *ret_ns = units > cap ? (double)window_ns(c) : (units - l->level) / per_ns;
    return l->level;
}

/* --- sliding --- */

static void spans_drop(struct lease_local *l, uint64_t before_ns)
{
    size_t gone = 0;
    while (gone < l->spans_n && l->spans[gone].last_ns <= before_ns) gone++;
    l->spans_n -= gone;
    memmove(l->spans, l->spans + gone, l->spans_n * sizeof l->spans[0]);
}

static void spans_add(struct lease_local *l, uint64_t now, uint64_t part_ns, uint64_t units)
{
    struct lease_local_span *last = l->spans_n > 0 ? &l->spans[l->spans_n - 1] : NULL;
    if (last != NULL && (now - last->first_ns < part_ns || l->spans_n == LEASE_LOCAL_SPANS)) {
        last->last_ns = now; /* leaves later: rounds against us */
        last->units += units;
    } else {
        l->spans[l->spans_n++] = (struct lease_local_span){ now, now, units };
    }
}

static double look_sliding(struct lease_counter *c, uint64_t now, uint64_t share, double units,
                           double *ret_ns)
{
    struct lease_local *l = c->local;
    uint64_t w = window_ns(c), used = 0;
    double ramp = MIN((double)(now - l->begun_ns) / (double)w, 1.0) * SLOWLY, need, left, at;
    if (ramp > 0.999999 * SLOWLY) ramp = 1.0;
    if (now > w) spans_drop(l, now - w);
    for (size_t i = 0; i < l->spans_n; i++) used += l->spans[i].units;
    /* when the ramp is long enough, and when enough of what is used has left */
    need = (double)used + units;
    at = (double)l->begun_ns + MIN(need / (double)share, 1.0) * (double)w / SLOWLY;
    for (size_t i = 0; i < l->spans_n && need > (double)share; i++) {
        need -= (double)l->spans[i].units;
        at = MAX(at, (double)(l->spans[i].last_ns + w));
    }
    *ret_ns = at > (double)now ? at - (double)now : 0;
    left = (double)share * ramp - (double)used;
    return left > 0 ? left : 0;
}

/* --- calendar --- */

static double look_calendar(const struct lease_table *t, struct lease_counter *c, uint64_t now,
                            double *ret_ns)
{
    struct lease_local *l = c->local;
    while (now >= l->pool_end_ns) {
        /* what was told is a share of what remained of the window before */
        l->pool = t->edges > 0 ? c->rule.limit / t->edges : share_of(t, c);
        l->charged = 0;
        l->pool_end_ns += window_ns(c);
    }
    *ret_ns = (double)(l->pool_end_ns - now);
    return (double)l->pool;
}

/* --- what the others see --- */

static enum lease_look look_share(struct lease_table *t, struct lease_counter *c, uint64_t now,
                                  uint64_t until, bool queued, uint64_t need, uint64_t enough,
                                  uint64_t *ret_units, uint64_t *ret_ns)
{
    uint64_t share = share_of(t, c), ahead = queued ? 0 : c->wanted;
    double have, ns = 0, least = (double)(ahead + enough);
    *ret_ns = 1000 * LEASE_MS;
    if (share == 0 && !c->rule.calendar) return LEASE_LOOK_UNAVAILABLE;
    if (c->rule.kind == LEASE_SLOTS) {
        *ret_units = need;
        return c->busy + need <= share ? LEASE_LOOK_SHARE : LEASE_LOOK_REFUSE;
    }
    if (c->rule.window_ms == 0 || open_local(t, c, now) == NULL) return LEASE_LOOK_UNAVAILABLE;
    if (c->rule.calendar)
        have = look_calendar(t, c, now, &ns);
    else if (c->rule.steady)
        have = look_sliding(c, now, share, least, &ns);
    else
        have = look_bucket(c, now, share, least, &ns);
    if (have >= least) {
        *ret_units = MIN(need, (uint64_t)(have - (double)ahead));
        return LEASE_LOOK_SHARE;
    }
    *ret_ns = ns < 1e18 ? (uint64_t)ns + 1000 : UINT64_C(1000000000000000000);
    return until > now && *ret_ns <= until - now ? LEASE_LOOK_SOON : LEASE_LOOK_REFUSE;
}

enum lease_look lease_look_away(struct lease_table *t, struct lease_counter *c, uint64_t now,
                                uint64_t until, bool queued, uint64_t need, uint64_t enough,
                                uint64_t *ret_units, uint64_t *ret_ns)
{
    *ret_units = need;
    *ret_ns = 0;
    if (!c->demanded) {
        c->demanded = true;
        lease_due_by(t, c, MAX(now, c->away_until_ns));
    }
    switch (c->rule.away) {
    case LEASE_AWAY_ALLOW: return LEASE_LOOK_ALLOW;
    case LEASE_AWAY_SHARE:
        return look_share(t, c, now, until, queued, need, enough, ret_units, ret_ns);
    case LEASE_AWAY_DENY: break;
    }
    return LEASE_LOOK_UNAVAILABLE;
}

void lease_take_local(struct lease_counter *c, uint64_t now, uint64_t units)
{
    struct lease_local *l = c->local;
    if (c->rule.kind == LEASE_SLOTS || l == NULL) return;
    if (c->rule.calendar)
        l->pool -= MIN(units, l->pool);
    else if (c->rule.steady)
        spans_add(l, now, window_ns(c) / (LEASE_LOCAL_SPANS - 2), units);
    else
        l->level -= (double)units;
    if (c->rule.calendar || now < l->begun_ns + LEASE_TTL_MS * LEASE_MS) l->charged += units;
}

void lease_give_local(struct lease_counter *c, uint64_t begun_ns, uint64_t units)
{
    struct lease_local *l = c->local;
    if (l == NULL || l->begun_ns != begun_ns || units == 0) return;
    l->charged -= MIN(units, l->charged);
    if (c->rule.calendar) {
        l->pool += units;
    } else if (c->rule.steady) {
        for (size_t i = l->spans_n; i-- > 0 && units > 0;) {
            uint64_t part = MIN(units, l->spans[i].units);
            l->spans[i].units -= part;
            units -= part;
        }
    } else {
        l->level += (double)units;
    }
}
