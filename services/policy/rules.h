/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The leased policies of one revision as the ledger and the stores see them, with their calendars.
 * Immutable once made, reference counted; any thread.
 */
#ifndef POLICY_RULES_H
#define POLICY_RULES_H

#include <stdatomic.h>

#include "base/zone.h"
#include "ledger.h"
#include "proto/snapshot.h"

struct rule {
    struct ledger_rule ledger;
    /* What is counted, part of a counter's name: r(equests), s(lots), t(otal), i(nput), o(utput)
     * tokens, or c(ost). So a policy that counts something else begins anew, and one that has only
     * another number keeps what was used. */
    char unit;
    bool durable; /* a quota: its counters survive restarts */
    bool shares;  /* on_unavailable: share */
    char slug[64];
    char ns[LEASE_ID_MAX + 1]; /* the namespace's id, "" for all */
    char currency[4];          /* of quotas of cost */
    struct snap_strings models;
    bool calendar;
    enum zone_period period;
    const struct zone *zone;
    struct rule_use *use; /* figures, which change */
};

/* Any thread. */
struct rule_use {
    _Atomic uint64_t permille; /* used or leased, of the counter that was asked for last */
    _Atomic uint64_t refused;  /* since it was told last */
};

/* "requests", "slots", "tokens", "input_tokens", "output_tokens", "cost". */
const char *rule_unit_name(const struct rule *r);

struct rules;

/* How the ledger sees a policy; false when it is none that is leased. */
bool rule_of(const struct snap_policy *p, struct rule *ret);

/* Does not keep the snapshot. ERR_NOT_FOUND: a time zone that this machine does not have.
 * ERR_NOMEM. */
enum err rules_new(const struct snapshot *s, struct rules **ret, struct why *why) MUSTCHECK;
struct rules *rules_ref(struct rules *r);
void rules_unref(struct rules *r); /* NULL is fine */

/* NULL: no such policy, or none that is leased. */
const struct rule *rules_get(const struct rules *r, struct str policy);
size_t rules_count(const struct rules *r);
uint64_t rules_revision(const struct rules *r);
/* One after the other, from *i = 0 on; NULL: no more. */
const struct rule *rules_next(const struct rules *r, size_t *i, struct str *ret_policy);

/* The window that is open; all zero for what has none. wall_us: since 1970. */
struct ledger_window rule_window(const struct rule *r, uint64_t wall_us);

#endif
