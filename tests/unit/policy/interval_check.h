/* SPDX-License-Identifier: Apache-2.0 */
/* Checks EVERY interval of an admission log in one pass, as it is written. Test code only. */
#ifndef TEST_INTERVAL_CHECK_H
#define TEST_INTERVAL_CHECK_H

#include <stdint.h>
#include <stdlib.h>

#include "base/err.h"

/* Bucket: no interval of length T admits more than burst + rate * T. The level of an ideal meter
 * that drains at the rate says it for all intervals at once. */
struct bucket_check {
    double burst, per_us, level, worst;
    uint64_t at_us;
};
static inline void bucket_check_add(struct bucket_check *c, uint64_t at_us, uint64_t units)
{
    ASSERT(at_us >= c->at_us);
    c->level -= (double)(at_us - c->at_us) * c->per_us;
    if (c->level < 0) c->level = 0;
    c->at_us = at_us;
    c->level += (double)units;
    if (c->level > c->worst) c->worst = c->level;
}
static inline int bucket_check_ok(const struct bucket_check *c)
{
    return c->worst <= c->burst + 1e-6;
}

/* Sliding: no interval of length W (open at one end) admits more than the limit. Two pointers. */
struct window_check {
    uint64_t limit, window_us;
    struct {
        uint64_t at_us, units;
    } * log;
    size_t n, cap, first;
    uint64_t inside, worst;
};
static inline void window_check_add(struct window_check *c, uint64_t at_us, uint64_t units)
{
    if (c->n == c->cap) {
        c->cap = c->cap * 2 + 64;
        c->log = xrealloc(c->log, c->cap * sizeof *c->log);
    }
    ASSERT(c->n == 0 || at_us >= c->log[c->n - 1].at_us);
    c->log[c->n].at_us = at_us;
    c->log[c->n++].units = units;
    c->inside += units;
    while (c->log[c->first].at_us + c->window_us <= at_us) c->inside -= c->log[c->first++].units;
    if (c->inside > c->worst) c->worst = c->inside;
}
static inline int window_check_ok(const struct window_check *c)
{
    return c->worst <= c->limit;
}
static inline void window_check_done(struct window_check *c)
{
    free(c->log);
}

#endif
