/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What requests hold after their admission: slots, and units reserved for tokens that are still to
 * flow. Any thread; see lease.h.
 */
#include "lease_table.h"

/* --- one reservation --- */

static bool is_of_lease(const struct lease_claim *claim)
{
    return claim->counter->live && claim->number == claim->counter->number;
}

/* Forgets what died with its lease. */
static void refresh(struct lease_claim *claim)
{
    if (!is_of_lease(claim)) claim->reserved = claim->local;
}

void lease_reserve(struct lease_claim *claim, uint64_t units)
{
    struct lease_counter *c = claim->counter;
    refresh(claim);
    claim->number = c->number;
    claim->reserved += units;
    c->reserved += units;
}

uint64_t lease_usable(const struct lease_claim *claim, uint64_t now)
{
    return is_of_lease(claim) && lease_is_valid(claim->counter, now) ? claim->reserved
                                                                     : claim->local;
}

/* Spends units that are usable. */
static void spend(struct lease_claim *claim, uint64_t units)
{
    struct lease_counter *c = claim->counter;
    uint64_t local = MIN(units, claim->local), leased = units - local;
    refresh(claim);
    ASSERT(leased <= claim->reserved - claim->local && leased <= c->reserved);
    claim->local -= local;
    claim->reserved -= units;
    claim->spent += units;
    c->reserved -= leased;
    c->spent += leased;
}

/* Gives back what is left. */
static void refund(struct lease_claim *claim)
{
    struct lease_counter *c = claim->counter;
    refresh(claim);
    c->reserved -= claim->reserved - claim->local;
    if (!claim->allowed) lease_give_local(c, claim->local_of, claim->local);
    claim->reserved = claim->local = 0;
}

static void let_go(struct lease_claim *claim)
{
    ASSERT(claim->counter->pins > 0);
    claim->counter->pins--;
    claim->counter = NULL;
    claim->held = false;
}

static bool counts(const struct lease_claim *claim, bool shadow_too)
{
    return claim->reserve && claim->counter != NULL && (shadow_too || !claim->shadow);
}

/* Those who wait here may have what came back. */
static void came_back(struct lease_table *t, uint64_t now, struct lease_counter *c)
{
    if (!list_empty(&c->queue) && lease_available(c, now) > 0) lease_judge_at(t, c, now);
}

/* --- reservations --- */

/* Tokens that every claim covers. */
static uint64_t covered(const struct lease_waiter *w, uint64_t now, uint64_t input, bool output)
{
    uint64_t most = UINT64_MAX;
    for (size_t i = 0; i < w->claims_n; i++) {
        const struct lease_claim *claim = &w->claims[i];
        uint64_t per = output ? claim->per_output : claim->per_input, usable;
        if (!counts(claim, false) || per == 0) continue;
        usable = lease_usable(claim, now);
        usable -= MIN(usable, input * claim->per_input);
        most = MIN(most, usable / per);
    }
    return most;
}

uint64_t lease_covered(const struct lease_waiter *w, uint64_t now, uint64_t input)
{
    return covered(w, now, input, true);
}

static void spend_all(struct lease_waiter *w, uint64_t now, uint64_t tokens, bool output)
{
    for (size_t i = 0; i < w->claims_n; i++) {
        struct lease_claim *claim = &w->claims[i];
        uint64_t per = output ? claim->per_output : claim->per_input;
        if (counts(claim, true) && per > 0)
            spend(claim, MIN(tokens * per, lease_usable(claim, now)));
    }
}

uint64_t lease_covers(struct lease_table *t, uint64_t now, const struct lease_waiter *w,
                      uint64_t input)
{
    pthread_mutex_lock(&t->lock);
    uint64_t most = lease_covered(w, now, input);
    pthread_mutex_unlock(&t->lock);
    return most;
}

bool lease_spend_input(struct lease_table *t, uint64_t now, struct lease_waiter *w, uint64_t tokens)
{
    pthread_mutex_lock(&t->lock);
    bool good = covered(w, now, 0, false) >= tokens;
    if (good) spend_all(w, now, tokens, false);
    pthread_mutex_unlock(&t->lock);
    return good;
}

uint64_t lease_spend_output(struct lease_table *t, uint64_t now, struct lease_waiter *w,
                            uint64_t tokens)
{
    pthread_mutex_lock(&t->lock);
    uint64_t n = MIN(tokens, covered(w, now, 0, true));
    spend_all(w, now, n, true);
    pthread_mutex_unlock(&t->lock);
    return n;
}

/* Makes claim pay `charge` altogether. */
static void pay(struct lease_table *t, uint64_t now, struct lease_claim *claim, uint64_t charge)
{
    struct lease_counter *c = claim->counter;
    uint64_t missing, part;
    int64_t available;
    if (charge <= claim->spent) return;
    missing = charge - claim->spent;
    part = MIN(missing, lease_usable(claim, now));
    spend(claim, part);
    missing -= part;
    available = lease_available(c, now);
    if (missing > 0 && available > 0) {
        part = MIN(missing, (uint64_t)available);
        c->spent += part;
        claim->spent += part;
        missing -= part;
    }
    c->owed += missing;
    claim->spent += missing;
    t->stats.debt += missing;
}

static void settle(struct lease_table *t, uint64_t now, struct lease_waiter *w,
                   const uint64_t *charges)
{
    for (size_t i = 0; i < w->claims_n; i++) {
        struct lease_claim *claim = &w->claims[i];
        struct lease_counter *c = claim->counter;
        if (!counts(claim, true)) continue;
        if (charges != NULL && !claim->shadow) pay(t, now, claim, charges[i]);
        refund(claim);
        let_go(claim);
        lease_taken(t, now, c);
        came_back(t, now, c);
        if (c->owed > 0) lease_due_by(t, c, lease_next_tick(c, now));
    }
}

/* --- the end --- */

static void release_slots(struct lease_table *t, uint64_t now, struct lease_claim *claim)
{
    struct lease_counter *c = claim->counter;
    ASSERT(c->busy >= claim->units);
    c->busy -= claim->units;
    let_go(claim);
    came_back(t, now, c);
    /* where slots are few, somebody else may be waiting for this one */
    if (c->rule.limit > LEASE_EAGER_SLOTS || !c->live) return;
    c->touched = false;
    c->eager = true;
    lease_due_by(t, c, now);
}

static void release(struct lease_table *t, uint64_t now, struct lease_waiter *w)
{
    for (size_t i = 0; i < w->claims_n; i++) {
        struct lease_claim *claim = &w->claims[i];
        struct lease_counter *c = claim->counter;
        if (!claim->held || c == NULL) continue;
        if (claim->reserve) {
            refund(claim);
            let_go(claim);
            came_back(t, now, c);
        } else {
            release_slots(t, now, claim);
        }
    }
}

void lease_release(struct lease_table *t, uint64_t now, struct lease_waiter *w)
{
    ASSERT(!w->waiting);
    pthread_mutex_lock(&t->lock);
    release(t, now, w);
    lease_unlock(t);
}

void lease_end(struct lease_table *t, uint64_t now, struct lease_waiter *w, const uint64_t *charges)
{
    ASSERT(!w->waiting);
    pthread_mutex_lock(&t->lock);
    settle(t, now, w, charges);
    release(t, now, w);
    lease_unlock(t);
}

uint64_t lease_held_until(struct lease_table *t, uint64_t now, const struct lease_waiter *w)
{
    uint64_t until = UINT64_MAX, ns;
    pthread_mutex_lock(&t->lock);
    for (size_t i = 0; i < w->claims_n; i++) {
        const struct lease_claim *claim = &w->claims[i];
        struct lease_counter *c = claim->counter;
        uint64_t units;
        if (c == NULL || !claim->held || claim->reserve || claim->shadow || !c->rule.strict)
            continue;
        if (lease_available(c, now) >= 0) {
            until = MIN(until, c->end_ns);
            continue;
        }
        /* more run than are leased: our share may cover them */
        bool away = t->away || c->away_until_ns > now;
        c->busy -= claim->units;
        enum lease_look l = away ? lease_look_away(t, c, now, now, true, claim->units, claim->units,
                                                   &units, &ns)
                                 : LEASE_LOOK_REFUSE;
        c->busy += claim->units;
        bool covered = l == LEASE_LOOK_SHARE || l == LEASE_LOOK_ALLOW;
        until = MIN(until, covered ? now + LEASE_PROBE_MS * LEASE_MS : now);
    }
    lease_unlock(t);
    return until;
}
