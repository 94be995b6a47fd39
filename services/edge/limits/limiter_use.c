/* SPDX-License-Identifier: Apache-2.0 */
/* How much of each limit is in use, as this edge knows it: for the metrics. Looks at the lease
 * table's counters a few at a time, so that no decision waits long. The thread that scrapes. */
#include "lease_table.h"
#include "limiter_impl.h"

enum { BUCKETS_AT_ONCE = 512 };

/* Of a limit's units: what the engine has not left to grant and we do not hold unused. */
static double use_of(const struct lease_counter *c, uint64_t now)
{
    int64_t own = lease_available(c, now);
    uint64_t left = c->remaining + (own > 0 ? (uint64_t)own : 0);
    if (c->limit == 0 || c->reset_ns <= now || left >= c->limit) return 0;
    return (double)(c->limit - left) / (double)c->limit;
}

void limiter_each_use(struct limiter *l, limiter_use_fn fn, void *ctx)
{
    struct lease_table *t = l->table;
    uint64_t now = limiter_now(l);
    for (size_t from = 0; from < t->buckets_n; from += BUCKETS_AT_ONCE) {
        pthread_mutex_lock(&t->lock);
        for (size_t i = from; i < MIN(from + BUCKETS_AT_ONCE, t->buckets_n); i++)
            for (const struct lease_counter *c = t->buckets[i]; c != NULL; c = c->chain)
                if (c->told) fn(ctx, c->policy, use_of(c, now));
        pthread_mutex_unlock(&t->lock);
    }
}
