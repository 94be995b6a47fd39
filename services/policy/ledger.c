/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A counter's state machine: how time changes it, and what is left; ops are in ledger_serve.c, the
 * contract in the header. Changes here go into scripts/lease.lua too.
 */
#include "ledger.h"

#include <math.h>
#include <stdlib.h>

#include "ledger_impl.h"

enum { SLOTS_RETRY_MS = 50 };
/* Refills are a billionth slow, so that rounding never adds a unit. */
#define SLOWLY (1.0 - 1e-9)
#define MILLION UINT64_C(1000000)

uint64_t ledger_capacity(const struct ledger_rule *r)
{
    return r->kind == LEDGER_BUCKET ? r->burst : r->limit;
}

struct ledger_window ledger_window_of(const struct ledger_rule *r, uint64_t wall_us)
{
    uint64_t us = MAX(r->window_us, UINT64_C(1)), begin = wall_us - wall_us % us;
    return (struct ledger_window){ begin, begin + us, begin + us - wall_us };
}

/* What is left of a figure of the rule when shares are set aside. Exact for all units there are. */
static uint64_t less_aside(const struct ledger_rule *r, uint64_t v)
{
    uint64_t ppm = MIN(r->aside_ppm, MILLION);
    return v - (v / MILLION * ppm + v % MILLION * ppm / MILLION);
}

static double rate(const struct ledger_rule *r) /* units per microsecond */
{
    return (double)less_aside(r, r->limit) / (double)r->window_us * SLOWLY;
}

uint64_t ledger_held(const struct ledger_lease *lease, enum ledger_kind kind)
{
    uint64_t gone = lease->returned + (kind == LEDGER_SLOTS ? 0 : lease->spent);
    if (lease->over || gone >= lease->granted) return 0;
    return lease->granted - gone;
}

uint64_t ledger_outstanding(const struct ledger *l)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < l->leases_n; i++) sum += ledger_held(&l->leases[i], l->kind);
    return sum;
}

/* --- time --- */

static void refill(struct ledger *l, const struct ledger_rule *r, uint64_t now_us)
{
    double room = (double)less_aside(r, r->burst) - (double)ledger_outstanding(l);
    if (now_us > l->at_us) {
        l->level += (double)(now_us - l->at_us) * rate(r);
        l->at_us = now_us;
    }
    if (l->level > room) l->level = room;
}

static void add_span(struct ledger *l, const struct ledger_rule *r, uint64_t at_us, uint64_t units)
{
    struct ledger_span *last = l->spans_n > 0 ? &l->spans[l->spans_n - 1] : NULL;
    if (last != NULL) {
        bool coarse = r->limit > LEDGER_SPANS;
        at_us = MAX(at_us, last->last_us);
        if ((coarse && at_us - last->first_us < r->window_us / LEDGER_SPANS) ||
            l->spans_n == LEDGER_SPANS + 2)
            goto merge;
    }
    if (l->spans_n == l->spans_cap) {
        size_t cap = MIN(l->spans_cap * 2, (size_t)LEDGER_SPANS + 2);
        struct ledger_span *grown = realloc(l->spans, cap * sizeof *grown);
        if (grown == NULL) goto merge; /* coarser, not wrong; there is always room for a first */
        l->spans = grown;
        l->spans_cap = cap;
    }
    l->spans[l->spans_n++] = (struct ledger_span){ at_us, at_us, units };
    return;
merge:
    last->last_us = at_us;
    last->units += units;
}

static uint64_t spans_used(const struct ledger *l)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < l->spans_n; i++) sum += l->spans[i].units;
    return sum;
}

void ledger_count_spent(struct ledger *l, const struct ledger_rule *r, uint64_t at_us,
                        uint64_t units)
{
    if (units == 0) return;
    if (l->kind == LEDGER_FIXED) l->used += units;
    if (l->kind == LEDGER_SLIDING) add_span(l, r, at_us, units);
}

static void end_lease(struct ledger *l, const struct ledger_rule *r, struct ledger_lease *lease)
{
    uint64_t lost = ledger_held(lease, l->kind);
    if (l->kind == LEDGER_BUCKET) refill(l, r, lease->end_us);
    lease->over = true;
    ledger_count_spent(l, r, lease->end_us, lost);
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

static void open_window(struct ledger *l, const struct ledger_window *w, uint64_t now_us)
{
    l->begin = w->begin;
    l->end = w->end;
    l->end_us = now_us + w->left_us;
}

/* Follows the calendar. A window of before (a wall clock that was set back) opens nothing again. */
static void roll_window(struct ledger *l, uint64_t now_us, const struct ledger_window *w)
{
    if (w->end <= l->begin) {
        l->end_us = now_us + w->left_us; /* at the least */
        return;
    }
    bool next = w->begin >= l->end;
    open_window(l, w, now_us);
    if (!next) return;
    l->used = l->aside = l->aside_ppm = 0;
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

/* Of a calendar window, what remains is shared when an edge falls silent. */
static void set_aside(struct ledger *l, const struct ledger_rule *r)
{
    uint64_t gone = l->used + ledger_outstanding(l), remained;
    if (l->aside_ppm == r->aside_ppm) return;
    remained = gone < r->limit ? r->limit - gone : 0;
    l->aside_ppm = r->aside_ppm;
    l->aside = remained - less_aside(r, remained);
}

void ledger_advance(struct ledger *l, const struct ledger_rule *r, uint64_t now_us,
                    const struct ledger_window *w)
{
    struct ledger_lease *lease;
    if (l->kind == LEDGER_BUCKET && l->burst != r->burst) {
        l->level += (double)r->burst - (double)l->burst; /* what was used stays used */
        l->burst = r->burst;
    }
    if (l->kind == LEDGER_FIXED && w != NULL) roll_window(l, now_us, w);
    while ((lease = first_to_end(l)) != NULL && lease->end_us <= now_us) end_lease(l, r, lease);
    if (l->kind == LEDGER_BUCKET)
        refill(l, r, now_us);
    else
        l->at_us = MAX(l->at_us, now_us);
    if (l->kind == LEDGER_FIXED) set_aside(l, r);
    drop_old(l, r, now_us);
}

/* --- birth --- */

static void begin_fixed(struct ledger *l, const struct ledger_rule *r, uint64_t now_us,
                        const struct ledger_window *w, const struct ledger_birth *birth)
{
    uint64_t begun_us;
    open_window(l, w, now_us);
    if (birth->marked) {
        if (w->begin >= birth->end) return;
        l->used = birth->used;
        if (w->end > birth->begin) return;
        l->begin = birth->begin; /* a wall clock that was set back */
        l->end = birth->end;
    } else if (!birth->full) {
        /* what was spent of this window before the epoch began is not known */
        begun_us = w->end - w->begin > w->left_us ? w->end - w->begin - w->left_us : 0;
        if (birth->empty_us + begun_us >= now_us) l->used = r->limit;
    }
}

void ledger_init(struct ledger *l, const struct ledger_rule *r, uint64_t now_us,
                 const struct ledger_window *w, const struct ledger_birth *birth)
{
    *l = (struct ledger){ .kind = r->kind, .at_us = now_us, .burst = r->burst };
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
        begin_fixed(l, r, now_us, w, birth);
    }
}

void ledger_done(struct ledger *l)
{
    free(l->leases);
    free(l->spans);
    *l = (struct ledger){ 0 };
}

void ledger_reset(struct ledger *l, const struct ledger_rule *r, uint64_t now_us)
{
    ledger_advance(l, r, now_us, NULL);
    l->used = 0;
    l->spans_n = 0;
    l->level = (double)r->burst - (double)ledger_outstanding(l);
}

/* --- what is left --- */

static double level(const struct ledger *l, const struct ledger_rule *r)
{
    double out = (double)ledger_outstanding(l);
    switch (l->kind) {
    case LEDGER_BUCKET: return l->level;
    case LEDGER_SLIDING: return (double)less_aside(r, r->limit) - (double)spans_used(l) - out;
    case LEDGER_FIXED: return (double)r->limit - (double)l->used - (double)l->aside - out;
    case LEDGER_SLOTS: break;
    }
    return (double)less_aside(r, r->limit) - out;
}

uint64_t ledger_left(const struct ledger *l, const struct ledger_rule *r)
{
    double v = floor(level(l, r));
    return v > 0 ? (uint64_t)v : 0;
}

uint64_t ledger_used(const struct ledger *l, const struct ledger_rule *r)
{
    double used;
    if (l->kind == LEDGER_SLIDING) return spans_used(l);
    if (l->kind == LEDGER_FIXED) return l->used;
    if (l->kind == LEDGER_SLOTS) return 0;
    used = ceil((double)r->burst - (double)ledger_outstanding(l) - l->level);
    return used > 0 ? (uint64_t)used : 0;
}

uint64_t ledger_mark(const struct ledger *l)
{
    return l->used + ledger_outstanding(l);
}

bool ledger_is_idle(const struct ledger *l, const struct ledger_rule *r)
{
    if (l->leases_n > 0) return false;
    if (l->kind == LEDGER_FIXED) return l->used == 0 || l->at_us >= l->end_us;
    if (l->kind == LEDGER_BUCKET) return l->level >= (double)r->burst;
    return l->spans_n == 0;
}

uint64_t ledger_window_left(const struct ledger *l, uint64_t now_us)
{
    return l->end_us > now_us ? l->end_us - now_us : 0;
}

static uint64_t until_first_end(const struct ledger *l, uint64_t now_us)
{
    const struct ledger_lease *first = first_to_end(l);
    return first != NULL && first->end_us > now_us ? first->end_us - now_us : 0;
}

static uint64_t refill_time(const struct ledger_rule *r, double units)
{
    double us = units / MAX(rate(r), 1e-15);
    return us < 1e15 ? (uint64_t)ceil(MAX(us, 0.0)) : UINT64_C(1000000000000000);
}

uint64_t ledger_wait_for(const struct ledger *l, const struct ledger_rule *r, uint64_t now_us,
                         uint64_t units)
{
    double missing = (double)units - level(l, r);
    switch (l->kind) {
    case LEDGER_BUCKET: {
        double room = (double)less_aside(r, r->burst) - (double)ledger_outstanding(l);
        uint64_t refilled = refill_time(r, missing);
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
    case LEDGER_FIXED:
        if (l->used + l->aside + units <= r->limit) return until_first_end(l, now_us);
        return ledger_window_left(l, now_us);
    case LEDGER_SLOTS: break;
    }
    return SLOTS_RETRY_MS * UINT64_C(1000);
}

uint64_t ledger_until_unused(const struct ledger *l, const struct ledger_rule *r, uint64_t now_us)
{
    switch (l->kind) {
    case LEDGER_BUCKET: return refill_time(r, (double)r->burst - level(l, r));
    case LEDGER_SLIDING:
        if (ledger_outstanding(l) > 0) return r->window_us;
        return l->spans_n == 0 ? 0 : l->spans[l->spans_n - 1].last_us + r->window_us - now_us;
    case LEDGER_FIXED: return ledger_mark(l) == 0 ? 0 : ledger_window_left(l, now_us);
    case LEDGER_SLOTS: break;
    }
    return 0;
}
