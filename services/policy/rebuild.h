/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What was used of a quota whose counter was lost, from the usage ledger. Pure: the question and
 * its answer (proto/query_msg.h); the keeper sends it. Any thread.
 *
 * The ledger can tell namespaces and keys apart. Of a counter that is kept per something else
 * besides (a model, a user, an address, a header), all that its namespace and key used is taken:
 * never too little. What edges have not reported yet is not in the ledger, so that a margin is
 * added, in hundredths of the limit.
 */
#ifndef POLICY_REBUILD_H
#define POLICY_REBUILD_H

#include "proto/query_msg.h"
#include "rules.h"

/* What is to be asked: totals since the window began. Strings point into r and key. */
void rebuild_ask(const struct rule *r, struct str key, const struct ledger_window *w,
                 struct metrics_query *ret);
/* What was used, with the margin. ERR_INVALID: no answer to that; or the ledger's own error. */
enum err rebuild_answer(const struct rule *r, struct str reply, unsigned margin_percent,
                        uint64_t *ret_used, struct why *why) MUSTCHECK;

#endif
