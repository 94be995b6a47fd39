/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A counter's state machine; the contract is in the header. Changes here go into
 * scripts/lease.lua too.
 */
#include "ledger.h"

#include <math.h>
#include <stdlib.h>

enum { SLOTS_RETRY_MS = 50, FEW = 4 };
/* Refills are a billionth slow, so that rounding never adds a unit. */
#define SLOWLY (1.0 - 1e-9)

uint64_t ledger_chunk(uint64_t limit)
{
    return MIN(MAX(limit / 16, UINT64_C(1)), UINT64_C(8));
}

uint64_t ledger_capacity(const struct ledger_rule *r)
{
    return r->kind == LEDGER_BUCKET ? r->burst : r->limit;
}

static double rate(const struct ledger_rule *r) /* units per microsecond */
{
    return (double)r->limit / (double)r->window_us * SLOWLY;
}

static uint64_t held(const struct ledger_lease *lease, enum ledger_kind kind)
{
    uint64_t gone = lease->returned + (kind == LEDGER_SLOTS ? 0 : lease->spent);
    if (lease->over || gone >= lease->granted) return 0;
    return lease->granted - gone;
}

uint64_t ledger_outstanding(const struct ledger *l)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < l->leases_n; i++) sum += held(&l->leases[i], l->kind);
    return sum;
}

/* --- time --- */

static void refill(struct ledger *l, const struct ledger_rule *r, uint64_t now_us)
{
    double room = (double)r->burst - (double)ledger_outstanding(l);
    if (now_us > l->at_us) {
        l->level += (double)(now_us - l->at_us) * rate(r);
        l->at_us = now_us;
    }
    if (l->level > room) l->level = room;
}

/* Units that were spent, or count as spent, at this time or before. */
static enum err add_span(struct ledger *l, const struct ledger_rule *r, uint64_t at_us,
                         uint64_t units)
{
    struct ledger_span *last = l->spans_n > 0 ? &l->spans[l->spans_n - 1] : NULL;
    if (units == 0) return ERR_OK;
    if (last != NULL) {
        bool coarse = r->limit > LEDGER_SPANS;
        at_us = MAX(at_us, last->last_us);
        if ((coarse && at_us - last->first_us < r->window_us / LEDGER_SPANS) ||
            l->spans_n == LEDGER_SPANS + 2) {
            last->last_us = at_us;
            last->units += units;
            return ERR_OK;
        }
    }
    if (l->spans_n == l->spans_cap) {
        size_t cap = MIN(l->spans_cap * 2 + 4, (size_t)LEDGER_SPANS + 2);
        struct ledger_span *grown = realloc(l->spans, cap * sizeof *grown);
        if (grown == NULL) {
            if (last == NULL) return ERR_NOMEM;
            last->last_us = at_us; /* coarser, not wrong */
            last->units += units;
            return ERR_OK;
        }
        l->spans = grown;
        l->spans_cap = cap;
    }
    l->spans[l->spans_n++] = (struct ledger_span){ at_us, at_us, units };
    return ERR_OK;
}

static uint64_t spans_used(const struct ledger *l)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < l->spans_n; i++) sum += l->spans[i].units;
    return sum;
}

/* Units that leave the lease as spent. */
static void count_spent(struct ledger *l, const struct ledger_rule *r, uint64_t at_us,
                        uint64_t units)
{
    if (l->kind == LEDGER_FIXED) l->used += units;
    /* room for one span is kept from the first moment on: see ledger_init() */
    if (l->kind == LEDGER_SLIDING && add_span(l, r, at_us, units) != ERR_OK) abort();
}

static void end_lease(struct ledger *l, const struct ledger_rule *r, struct ledger_lease *lease)
{
    uint64_t lost = held(lease, l->kind);
    if (l->kind == LEDGER_BUCKET) refill(l, r, lease->end_us);
    lease->over = true;
    count_spent(l, r, lease->end_us, lost);
}

static struct ledger_lease *first_to_end(const struct ledger *l)
{
    struct ledger_lease *first = NULL;
    for (size_t i = 0; i < l->leases_n; i++) {
        struct ledger_lease *lease = &l->leases[i];
        if (!lease->over && (first == NULL || lease->end_us < first->end_us)) first = lease;
    }
    return first;
}

static void roll_window(struct ledger *l, const struct ledger_rule *r, uint64_t now_us,
                        uint64_t wall_us)
{
    uint64_t no = wall_us / r->window_us;
    if (no <= l->window_no) return; /* a wall clock that goes back does not open a window again */
    l->window_no = no;
    l->used = 0;
    for (size_t i = 0; i < l->leases_n; i++) {
        l->leases[i].over = true;
        l->leases[i].end_us = MIN(l->leases[i].end_us, now_us);
    }
}

static void drop_old(struct ledger *l, const struct ledger_rule *r, uint64_t now_us)
{
    size_t kept = 0, gone = 0;
    for (size_t i = 0; i < l->leases_n; i++)
        if (!l->leases[i].over || l->leases[i].end_us + r->lease_us > now_us)
            l->leases[kept++] = l->leases[i];
    l->leases_n = kept;
    if (l->kind != LEDGER_SLIDING) return;
    while (gone < l->spans_n && l->spans[gone].last_us + r->window_us <= now_us) gone++;
    if (gone == 0) return;
    l->spans_n -= gone;
    memmove(l->spans, l->spans + gone, l->spans_n * sizeof *l->spans);
}

void ledger_advance(struct ledger *l, const struct ledger_rule *r, uint64_t now_us,
                    uint64_t wall_us)
{
    struct ledger_lease *lease;
    if (l->kind == LEDGER_FIXED) roll_window(l, r, now_us, wall_us);
    while ((lease = first_to_end(l)) != NULL && lease->end_us <= now_us) end_lease(l, r, lease);
    if (l->kind == LEDGER_BUCKET) refill(l, r, now_us);
    drop_old(l, r, now_us);
}

/* --- birth --- */

void ledger_init(struct ledger *l, const struct ledger_rule *r, uint64_t now_us, uint64_t wall_us,
                 const struct ledger_birth *birth)
{
    *l = (struct ledger){ .kind = r->kind, .at_us = now_us };
    if (r->kind == LEDGER_BUCKET) {
        l->level = birth->full ? (double)r->burst : 0;
        if (!birth->full) l->at_us = birth->empty_us;
        if (now_us > l->at_us) refill(l, r, now_us);
    } else if (r->kind == LEDGER_SLIDING) {
        l->spans_cap = 4;
        l->spans = xcalloc(l->spans_cap, sizeof *l->spans);
        if (!birth->full)
            l->spans[l->spans_n++] = (struct ledger_span){ birth->empty_us, birth->empty_us,
                                                           r->limit };
        drop_old(l, r, now_us);
    } else if (r->kind == LEDGER_FIXED) {
        uint64_t into_us = wall_us % r->window_us;
        l->window_no = wall_us / r->window_us;
        if (!birth->full && birth->empty_us + into_us >= now_us) l->used = r->limit;
    }
}

void ledger_done(struct ledger *l)
{
    free(l->leases);
    free(l->spans);
    *l = (struct ledger){ 0 };
}

/* A policy that became of another kind: what was counted cannot be compared, so it begins used up,
 * when the leases of before have ended. */
static void become(struct ledger *l, const struct ledger_rule *r, uint64_t now_us, uint64_t wall_us)
{
    ledger_done(l);
    ledger_init(l, r, now_us, wall_us, &(struct ledger_birth){ false, now_us + r->lease_us });
}

/* --- what is left --- */

static double level(const struct ledger *l, const struct ledger_rule *r)
{
    double out = (double)ledger_outstanding(l);
    switch (l->kind) {
    case LEDGER_BUCKET: return l->level;
    case LEDGER_SLIDING: return (double)r->limit - (double)spans_used(l) - out;
    case LEDGER_FIXED: return (double)r->limit - (double)l->used - out;
    case LEDGER_SLOTS: break;
    }
    return (double)r->limit - out;
}

uint64_t ledger_left(const struct ledger *l, const struct ledger_rule *r)
{
    double v = floor(level(l, r));
    return v > 0 ? (uint64_t)v : 0;
}

bool ledger_is_idle(const struct ledger *l, const struct ledger_rule *r)
{
    return l->leases_n == 0 && level(l, r) >= (double)ledger_capacity(r);
}

static uint64_t until_first_end(const struct ledger *l, uint64_t now_us)
{
    const struct ledger_lease *first = first_to_end(l);
    return first != NULL && first->end_us > now_us ? first->end_us - now_us : 0;
}

static uint64_t window_left(const struct ledger_rule *r, uint64_t wall_us)
{
    return r->window_us - wall_us % r->window_us;
}

/* How long until `units` may be had, as far as can be known. */
static uint64_t wait_for(const struct ledger *l, const struct ledger_rule *r, uint64_t now_us,
                         uint64_t wall_us, uint64_t units)
{
    double missing = (double)units - level(l, r);
    switch (l->kind) {
    case LEDGER_BUCKET: {
        double room = (double)r->burst - (double)ledger_outstanding(l);
        uint64_t refilled = (uint64_t)ceil(missing / rate(r));
        /* while leases hold the room, nothing is refilled */
        if ((double)units > room) return MAX(refilled, until_first_end(l, now_us));
        return refilled;
    }
    case LEDGER_SLIDING:
        for (size_t i = 0; i < l->spans_n; i++) {
            missing -= (double)l->spans[i].units;
            if (missing <= 0) return l->spans[i].last_us + r->window_us - now_us;
        }
        return until_first_end(l, now_us);
    case LEDGER_FIXED: return window_left(r, wall_us);
    case LEDGER_SLOTS: break;
    }
    return SLOTS_RETRY_MS * UINT64_C(1000);
}

static uint64_t until_unused(const struct ledger *l, const struct ledger_rule *r, uint64_t now_us,
                             uint64_t wall_us)
{
    double missing = (double)ledger_capacity(r) - level(l, r);
    if (missing <= 0) return 0;
    switch (l->kind) {
    case LEDGER_BUCKET: return (uint64_t)ceil(missing / rate(r));
    case LEDGER_SLIDING:
        if (ledger_outstanding(l) > 0) return r->window_us;
        return l->spans[l->spans_n - 1].last_us + r->window_us - now_us;
    case LEDGER_FIXED: return window_left(r, wall_us);
    case LEDGER_SLOTS: break;
    }
    return 0;
}

/* --- ops --- */

static struct ledger_lease *find(const struct ledger *l, struct str id)
{
    for (size_t i = 0; i < l->leases_n; i++)
        if (str_eqz(id, l->leases[i].id)) return &l->leases[i];
    return NULL;
}

static uint64_t excess(const struct ledger_lease *lease)
{
    uint64_t sum = lease->spent + lease->returned;
    return sum > lease->granted ? sum - lease->granted : 0;
}

/* Takes over what the edge says it has spent and given back. */
static void report(struct ledger *l, const struct ledger_rule *r, uint64_t now_us,
                   struct ledger_lease *lease, const struct lease_op *op)
{
    uint64_t before = lease->spent, debt = excess(lease), returnable, returned = lease->returned;
    if (l->kind != LEDGER_SLOTS) lease->spent = MAX(lease->spent, op->spent);
    returnable = lease->granted > lease->spent ? lease->granted - lease->spent : 0;
    lease->returned = MAX(lease->returned, MIN(op->returned, returnable));
    if (l->kind == LEDGER_BUCKET)
        l->level += (double)(lease->returned - returned) - (double)(excess(lease) - debt);
    count_spent(l, r, now_us, lease->spent - before);
}

static void extend(const struct ledger *l, const struct ledger_rule *r, uint64_t now_us,
                   uint64_t wall_us, struct ledger_lease *lease)
{
    uint64_t us = r->lease_us;
    if (l->kind == LEDGER_FIXED) us = MIN(us, window_left(r, wall_us));
    lease->end_us = MAX(lease->end_us, now_us + us);
}

static struct ledger_lease *add_lease(struct ledger *l, struct str id)
{
    if (l->leases_n == LEDGER_MAX_LEASES || id.n > LEASE_ID_MAX) return NULL;
    if (l->leases_n == l->leases_cap) {
        size_t cap = MIN(l->leases_cap * 2 + 2, (size_t)LEDGER_MAX_LEASES);
        struct ledger_lease *grown = realloc(l->leases, cap * sizeof *grown);
        if (grown == NULL) return NULL;
        l->leases = grown;
        l->leases_cap = cap;
    }
    struct ledger_lease *lease = &l->leases[l->leases_n++];
    *lease = (struct ledger_lease){ 0 };
    (void)str_copyz(lease->id, sizeof lease->id, id);
    return lease;
}

/* Grants what is wanted, as far as there is; *lease may be NULL and is made then. */
static enum err grant(struct ledger *l, const struct ledger_rule *r, uint64_t now_us,
                      uint64_t wall_us, const struct lease_op *op, struct ledger_lease **lease,
                      struct lease_result *ret)
{
    uint64_t have = *lease != NULL ? (*lease)->granted : 0, total = op->known + op->want;
    uint64_t least = MAX(op->min, UINT64_C(1)), left = ledger_left(l, r), need, units;
    ret->status = LEASE_GRANTED;
    if (have >= total) return ERR_OK; /* a repeated ask, or one whose reply was lost */
    need = total - have;
    least = have - op->known >= least ? 1 : least - (have - op->known);
    if (MAX(op->min, UINT64_C(1)) > ledger_capacity(r)) {
        ret->status = LEASE_NEVER;
        return ERR_OK;
    }
    if (left < least) {
        ret->status = LEASE_REFUSED;
        ret->retry_ms = (wait_for(l, r, now_us, wall_us, least) + 999) / 1000;
        return ERR_OK;
    }
    units = MIN(left, MAX(need, left >= FEW * r->chunk ? r->chunk : 1));
    if (*lease == NULL && (*lease = add_lease(l, op->lease)) == NULL) {
        if (l->leases_n < LEDGER_MAX_LEASES) return ERR_NOMEM;
        ret->status = LEASE_REFUSED;
        ret->retry_ms = (r->lease_us + 999) / 1000;
        return ERR_OK;
    }
    (*lease)->granted += units;
    if (l->kind == LEDGER_BUCKET) l->level -= (double)units;
    if (units < need) ret->retry_ms = (wait_for(l, r, now_us, wall_us, 1) + 999) / 1000;
    return ERR_OK;
}

enum err ledger_serve(struct ledger *l, const struct ledger_rule *r, uint64_t now_us,
                      uint64_t wall_us, const struct lease_op *op, struct lease_result *ret)
{
    struct lease_result res = { .status = LEASE_GRANTED, .limit = r->limit };
    struct ledger_lease *lease;
    enum err e = ERR_OK;
    if (l->kind != r->kind) become(l, r, now_us, wall_us);
    ledger_advance(l, r, now_us, wall_us);
    lease = find(l, op->lease);
    if (op->kind >= LEASE_OP_MAX || op->known > LEASE_UNITS_MAX || op->want > LEASE_UNITS_MAX) {
        res.status = LEASE_INVALID;
    } else if (lease == NULL ? op->kind != LEASE_ASK || op->known > 0
                             : lease->over || op->known > lease->granted) {
        res.status = LEASE_ENDED;
        lease = NULL;
    } else {
        if (lease != NULL) report(l, r, now_us, lease, op);
        if (op->kind == LEASE_ASK) e = grant(l, r, now_us, wall_us, op, &lease, &res);
        if (lease != NULL && (op->kind == LEASE_ASK || op->kind == LEASE_RENEW))
            extend(l, r, now_us, wall_us, lease);
    }
    if (e != ERR_OK) return e;
    if (lease != NULL) {
        res.granted = lease->granted;
        res.ttl_ms = (lease->end_us - now_us) / 1000;
    }
    res.remaining = ledger_left(l, r);
    res.reset_ms = (until_unused(l, r, now_us, wall_us) + 999) / 1000;
    res.lease = ret->lease;
    res.share = ret->share;
    *ret = res;
    return ERR_OK;
}
