/* SPDX-License-Identifier: Apache-2.0 */
/* Between admit.c (which counters a request is counted on, and for how much) and limiter*.c. Pure.
 */
#ifndef EDGE_ADMIT_CLAIMS_H
#define EDGE_ADMIT_CLAIMS_H

#include "admit.h"

/* A stream is given so many tokens at a time, of a small limit fewer. */
enum { ADMIT_SLICE = 256, ADMIT_SLICE_PARTS = 8 };

/* What the claims of a request are counted on, in their order. */
struct admit_bindings {
    struct lease_binding v[LEASE_MAX_CLAIMS];
    char keys[LEASE_MAX_CLAIMS * LEASE_KEY_MAX + ADMIT_KEY_ROOM]; /* one behind the other */
};

/* Prepares a claim for each policy that applies and needs a lease. Fills the ticket's slice and
 * unpriced, and of out what its claims need. */
void admit_claim(const struct admit_request *r, const unsigned char hash_key[16],
                 bool plain_addresses, struct admit_ticket *t, struct admit_bindings *out);

/* Says in the policies' terms what was decided. */
void admit_conclude(const struct lease_waiter *w, struct admit_outcome *out);
enum admit_verdict admit_verdict_of(enum lease_verdict v);

/* What so many tokens cost by that claim, in its units. */
uint64_t admit_charge(const struct lease_claim *c, uint64_t input, uint64_t output);

#endif
