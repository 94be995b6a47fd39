/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The state machine of one counter: what is left of a limit, and who holds leases of it. Pure: no
 * clock, no I/O; time comes in as an argument, microseconds on any clock that never goes back.
 * Not thread-safe.
 *
 * What must hold at every moment, whatever the messages say (numbers of limits.md):
 *   bucket   level + outstanding <= burst                                     (1)
 *   sliding  units reported or lost within the window + outstanding <= limit  (1, 7)
 *   fixed    the same within the calendar window; leases end with it          (8)
 *   slots    outstanding <= limit
 * where outstanding is what live leases hold: granted - spent - returned, reserved for running
 * requests (4) or not. A lease that ends counts
 * as spent as far as it was not reported or returned (3); what comes later gives no credit. All
 * figures of an op are cumulative, so repeating one changes nothing (5). proto/lease_msg.h has the
 * words. scripts/lease.lua is the same machine inside Redis; test_store_redis runs both side by
 * side.
 */
#ifndef POLICY_LEDGER_H
#define POLICY_LEDGER_H

#include "proto/lease_msg.h"

enum ledger_kind { LEDGER_BUCKET, LEDGER_SLIDING, LEDGER_FIXED, LEDGER_SLOTS };

/* A policy, as far as the ledger has to know. */
struct ledger_rule {
    enum ledger_kind kind;
    uint64_t limit;
    uint64_t burst;     /* of a bucket */
    uint64_t window_us; /* of buckets and sliding windows */
    uint64_t lease_us;  /* how long a lease lives */
    uint64_t aside_ppm; /* so many millionths of it are set aside for edges that fell silent, and
                           may be using their share (shares.h); 0 unless the policy shares */
};

/* The calendar window that is open, of `fixed` counters. The ledger reads no calendar: who calls it
 * knows time zones. begin and end only tell windows apart (seconds since 1970 will do): the next
 * one begins at or after the end of the one before; one that overlaps with it is the same one under
 * a policy that was changed, and keeps what was used. Windows never go back. */
struct ledger_window {
    uint64_t begin, end;
    uint64_t left_us; /* until it ends */
};
/* Windows without a calendar: wall time divided by window_us. */
struct ledger_window ledger_window_of(const struct ledger_rule *r, uint64_t wall_us);

/* The most units that the counter can ever hold. */
uint64_t ledger_capacity(const struct ledger_rule *r);

enum {
    LEDGER_SPANS = 128,     /* a sliding window is kept in at most so many parts */
    LEDGER_MAX_LEASES = 512 /* of one counter, ended ones included */
};

struct ledger_lease {
    char id[LEASE_ID_MAX + 1];
    uint64_t granted, spent, returned, debt;
    uint64_t end_us;
    bool over; /* kept for one lease time more, so that a late ask finds out */
};

/* Units that leave the window at last_us + window. Merging units makes last_us later, which rounds
 * against us. */
struct ledger_span {
    uint64_t first_us, last_us, units;
};

struct ledger {
    enum ledger_kind kind;
    struct ledger_lease *leases;
    size_t leases_n, leases_cap;
    /* bucket */
    double level; /* below 0: debt */
    uint64_t at_us;
    uint64_t burst; /* that the level belongs to: of the rule and what is set aside */
    /* sliding */
    struct ledger_span *spans; /* by time */
    size_t spans_n, spans_cap;
    /* fixed */
    uint64_t begin, end, end_us; /* the window, and when it ends by our clock */
    uint64_t used;
    uint64_t aside_ppm, aside; /* units set aside, and for how much of it */
};

/* What is known of the time before the counter was made. A counter that nobody has asked for since
 * its epoch began is as if unused since `empty_us`, and empty then; `full`: nothing was ever
 * granted before this epoch.
 *
 * Quotas survive the loss of a counter by a mark: when marked, a `fixed` counter begins in the
 * window that begins at `begin` with `used` units spent (whatever else is said here), and a later
 * window begins unused. See ledger_mark(). */
struct ledger_birth {
    bool full;
    uint64_t empty_us;
    bool marked;
    uint64_t begin, end, used;
};

/* w: the open window of a `fixed` counter, NULL for the other kinds. */
void ledger_init(struct ledger *l, const struct ledger_rule *r, uint64_t now_us,
                 const struct ledger_window *w, const struct ledger_birth *birth);
void ledger_done(struct ledger *l);

/* Serves one op. ret->lease and ret->share are left to the caller. ERR_NOMEM: nothing changed but
 * time. A rule with other numbers than before keeps what was used; one of another kind begins used
 * up. */
enum err ledger_serve(struct ledger *l, const struct ledger_rule *r, uint64_t now_us,
                      const struct ledger_window *w, const struct lease_op *op,
                      struct lease_result *ret) MUSTCHECK;

/* Lets time pass: ends leases, refills. ledger_serve() does it by itself. w may be NULL also of
 * `fixed`: its window then ends when it was said to end. */
void ledger_advance(struct ledger *l, const struct ledger_rule *r, uint64_t now_us,
                    const struct ledger_window *w);
/* After ledger_advance(): it could be forgotten, since a new one would stand no higher. */
bool ledger_is_idle(const struct ledger *l, const struct ledger_rule *r);

/* After ledger_advance(). Units held by leases; units that could be granted now (never below 0);
 * units used, of the limit (of a bucket: of the burst), leases left out. */
uint64_t ledger_outstanding(const struct ledger *l);
uint64_t ledger_left(const struct ledger *l, const struct ledger_rule *r);
uint64_t ledger_used(const struct ledger *l, const struct ledger_rule *r);

/* The high-water mark of a `fixed` counter: all that was spent of the window l->begin to l->end, or
 * could be by the leases that live. A quota's store writes down a mark at least as high BEFORE it
 * sends the reply of an op that raised it, and hands it to ledger_init() (birth.marked) when the
 * counter was lost. */
uint64_t ledger_mark(const struct ledger *l);

/* Nothing is used any more (an operator's reset). Leases that live stay as they are. */
void ledger_reset(struct ledger *l, const struct ledger_rule *r, uint64_t now_us);

#endif
