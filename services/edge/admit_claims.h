/* SPDX-License-Identifier: Apache-2.0 */
/* Between admit.c (which counters a request is counted on) and limiter.c (the object around it). */
#ifndef EDGE_ADMIT_CLAIMS_H
#define EDGE_ADMIT_CLAIMS_H

#include "admit.h"

/* Binds a claim for each policy that applies and needs a lease: w->claims_n of them. */
void admit_claim(struct lease_table *t, uint64_t now, const struct admit_request *r,
                 const unsigned char hash_key[16], struct lease_waiter *w);

/* Says in the policies' terms what was decided. Leaves output_limit and output_policy alone. */
void admit_conclude(const struct lease_waiter *w, struct admit_outcome *out);

#endif
