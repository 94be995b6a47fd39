/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A counter's state machine: ops of leases. Changes here go into scripts/lease.lua too.
 */
#include <stdlib.h>

#include "ledger_impl.h"

/* What is granted ahead leaves at least this many times as much for each of the others. */
enum { AHEAD_PARTS = 4 };

static struct ledger_lease *find(const struct ledger *l, struct str id)
{
    for (size_t i = 0; i < l->leases_n; i++)
        if (str_eqz(id, l->leases[i].id)) return &l->leases[i];
    return NULL;
}

static uint64_t excess(const struct ledger_lease *lease)
{
    uint64_t sum = lease->spent + lease->returned;
    return lease->debt + (sum > lease->granted ? sum - lease->granted : 0);
}

/* A later op of the edge came first: it has one under way at a time, and its figures only grow. So
 * nobody waits for the answer to this one, and the edge may have ended since. */
static bool is_overtaken(const struct ledger_lease *lease, const struct lease_op *op)
{
    return op->spent < lease->spent || op->returned < lease->returned || op->debt < lease->debt;
}

/* Takes over what the edge says it has spent, given back and owes. */
static void report(struct ledger *l, const struct ledger_rule *r, uint64_t now_us,
                   struct ledger_lease *lease, const struct lease_op *op)
{
    struct ledger_lease before = *lease;
    uint64_t returnable;
    if (l->kind != LEDGER_SLOTS) {
        lease->spent = MAX(lease->spent, op->spent);
        lease->debt = MAX(lease->debt, op->debt);
    }
    returnable = lease->granted > lease->spent ? lease->granted - lease->spent : 0;
    lease->returned = MAX(lease->returned, MIN(op->returned, returnable));
    if (l->kind == LEDGER_BUCKET)
        l->level += (double)(lease->returned - before.returned) -
                    ((double)excess(lease) - (double)excess(&before));
    ledger_count_spent(l, r, now_us, lease->spent - before.spent + (lease->debt - before.debt));
}

static void extend(const struct ledger *l, const struct ledger_rule *r, uint64_t now_us,
                   struct ledger_lease *lease)
{
    uint64_t us = r->lease_us;
    if (l->kind == LEDGER_FIXED) us = MIN(us, ledger_window_left(l, now_us));
    lease->end_us = MAX(lease->end_us, now_us + us);
}

/* Forgets the ended lease that ended first, when the list is full. */
static bool make_room(struct ledger *l)
{
    struct ledger_lease *oldest = NULL;
    if (l->leases_n < LEDGER_MAX_LEASES) return true;
    for (size_t i = 0; i < l->leases_n; i++)
        if (l->leases[i].over && (oldest == NULL || l->leases[i].end_us < oldest->end_us))
            oldest = &l->leases[i];
    if (oldest == NULL) return false;
    memmove(oldest, oldest + 1, (size_t)(l->leases + --l->leases_n - oldest) * sizeof *oldest);
    return true;
}

/* ERR_LIMIT: as many live ones as there may be. */
static enum err add_lease(struct ledger *l, struct str id, struct ledger_lease **ret)
{
    if (id.n > LEASE_ID_MAX || !make_room(l)) return ERR_LIMIT;
    if (l->leases_n == l->leases_cap) {
        size_t cap = MIN(l->leases_cap * 2 + 2, (size_t)LEDGER_MAX_LEASES);
        struct ledger_lease *grown = realloc(l->leases, cap * sizeof *grown);
        if (grown == NULL) return ERR_NOMEM;
        l->leases = grown;
        l->leases_cap = cap;
    }
    *ret = &l->leases[l->leases_n++];
    **ret = (struct ledger_lease){ 0 };
    (void)str_copyz((*ret)->id, sizeof(*ret)->id, id);
    return ERR_OK;
}

static size_t live(const struct ledger *l)
{
    size_t n = 0;
    for (size_t i = 0; i < l->leases_n; i++)
        if (!l->leases[i].over) n++;
    return n;
}

/* How many units the ask gets: what it needs, as far as there is, and of what lies ahead so much
 * that the others will find enough. */
static uint64_t portion(const struct ledger *l, uint64_t left, uint64_t need, uint64_t ahead,
                        bool is_new)
{
    uint64_t sharers = live(l) + (is_new ? 1 : 0);
    if (left <= need) return left;
    return need + MIN(ahead, (left - need) / (AHEAD_PARTS * (sharers + 1)));
}

/* Grants what is wanted, as far as there is; *lease may be NULL and is made then. */
static enum err grant(struct ledger *l, const struct ledger_rule *r, uint64_t now_us,
                      const struct lease_op *op, struct ledger_lease **lease,
                      struct lease_result *ret)
{
    uint64_t have = *lease != NULL ? (*lease)->granted : 0, total = op->known + op->want;
    uint64_t least = MAX(op->min, UINT64_C(1)), left = ledger_left(l, r), need, units;
    if (have >= total) return ERR_OK; /* a repeated ask, or one whose reply was lost */
    need = total - have;
    if (least > ledger_capacity(r)) {
        ret->status = LEASE_NEVER;
        return ERR_OK;
    }
    least = have - op->known >= least ? 1 : least - (have - op->known);
    if (left < least) {
        ret->status = LEASE_REFUSED;
        ret->retry_ms = (ledger_wait_for(l, r, now_us, least) + 999) / 1000;
        return ERR_OK;
    }
    units = portion(l, left, need, op->ahead, *lease == NULL);
    if (*lease == NULL) {
        enum err e = add_lease(l, op->lease, lease);
        if (e == ERR_NOMEM) return e;
        if (e != ERR_OK) {
            ret->status = LEASE_REFUSED;
            ret->retry_ms = (r->lease_us + 999) / 1000;
            return ERR_OK;
        }
    }
    (*lease)->granted += units;
    if (l->kind == LEDGER_BUCKET) l->level -= (double)units;
    if (units < need)
        ret->retry_ms = (ledger_wait_for(l, r, now_us, MIN(need - units, least)) + 999) / 1000;
    return ERR_OK;
}

/* A policy that became of another kind: what was counted cannot be compared, so it begins used up,
 * when the leases of before have ended. */
static void become(struct ledger *l, const struct ledger_rule *r, uint64_t now_us,
                   const struct ledger_window *w)
{
    ledger_done(l);
    ledger_init(l, r, now_us, w, &(struct ledger_birth){ .empty_us = now_us + r->lease_us });
}

enum err ledger_serve(struct ledger *l, const struct ledger_rule *r, uint64_t now_us,
                      const struct ledger_window *w, const struct lease_op *op,
                      struct lease_result *ret)
{
    struct lease_result res = { .status = LEASE_GRANTED, .limit = r->limit };
    struct ledger_lease *lease;
    enum lease_op_kind kind = op->kind;
    enum err e = ERR_OK;
    if (l->kind != r->kind) become(l, r, now_us, w);
    ledger_advance(l, r, now_us, w);
    lease = find(l, op->lease);
    if (lease == NULL && op->kind == LEASE_ASK && op->known == 0 && op->debt > 0)
        e = add_lease(l, op->lease, &lease); /* to hold the debt, if nothing else */
    if (op->kind >= LEASE_OP_MAX || op->known > LEASE_UNITS_MAX || op->want > LEASE_UNITS_MAX ||
        op->ahead > LEASE_UNITS_MAX) {
        res.status = LEASE_INVALID;
    } else if (e == ERR_LIMIT) {
        res.status = LEASE_UNAVAILABLE;
        res.retry_ms = (r->lease_us + 999) / 1000;
        e = ERR_OK;
    } else if (e == ERR_OK && (lease == NULL ? op->kind != LEASE_ASK || op->known > 0
                                             : lease->over || op->known > lease->granted)) {
        res.status = LEASE_ENDED;
        lease = NULL;
    } else if (e == ERR_OK) {
        /* then it takes nothing, and does not keep from the others what the lease holds */
        if (lease != NULL && is_overtaken(lease, op)) kind = LEASE_SETTLE;
        if (lease != NULL) report(l, r, now_us, lease, op);
        if (kind == LEASE_ASK) e = grant(l, r, now_us, op, &lease, &res);
        if (lease != NULL && (kind == LEASE_ASK || kind == LEASE_RENEW))
            extend(l, r, now_us, lease);
    }
    if (e != ERR_OK) return e;
    if (lease != NULL) {
        res.granted = lease->granted;
        res.ttl_ms = (lease->end_us - now_us) / 1000;
    }
    res.remaining = ledger_left(l, r);
    res.reset_ms = (ledger_until_unused(l, r, now_us) + 999) / 1000;
    res.lease = ret->lease;
    res.share = ret->share;
    *ret = res;
    return ERR_OK;
}
