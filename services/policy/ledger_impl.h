/* SPDX-License-Identifier: Apache-2.0 */
/* Between ledger.c (time, and what is left) and ledger_serve.c (ops). Not for anybody else. */
#ifndef POLICY_LEDGER_IMPL_H
#define POLICY_LEDGER_IMPL_H

#include "ledger.h"

/* Units that a lease holds. */
uint64_t ledger_held(const struct ledger_lease *lease, enum ledger_kind kind);
/* Units that were spent, or count as spent, at this time. */
void ledger_count_spent(struct ledger *l, const struct ledger_rule *r, uint64_t at_us,
                        uint64_t units);
/* How long until `units` may be had, and until all is as if unused, as far as can be known. */
uint64_t ledger_wait_for(const struct ledger *l, const struct ledger_rule *r, uint64_t now_us,
                         uint64_t units);
uint64_t ledger_until_unused(const struct ledger *l, const struct ledger_rule *r, uint64_t now_us);
/* Of a `fixed` counter: until its window ends. */
uint64_t ledger_window_left(const struct ledger *l, uint64_t now_us);

#endif
