/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Threads that count, for both faces of the service. Two lanes with a queue and threads of their
 * own: small requests never wait behind large ones, and threads of the large lane give way to
 * everything else on the machine. Both queues are bounded, in jobs and in bytes. Any thread.
 */
#ifndef TOKEN_POOL_H
#define TOKEN_POOL_H

#include <stdint.h>

#include "base/err.h"

struct pool;

enum pool_lane { POOL_SMALL, POOL_LARGE, POOL_LANES };
enum { POOL_SMALL_BYTES = 64 << 10 }; /* a request of up to so many bytes is a small one */

struct pool_options {
    unsigned threads;   /* of each lane, 1..64 */
    size_t jobs, bytes; /* that may wait in each lane */
};
/* ERR_NOMEM: a thread could not be started. */
enum err pool_new(const struct pool_options *o, struct pool **ret, struct why *why) MUSTCHECK;
/* Takes no more jobs, tells those there are to hurry (pool_is_ending), runs what still waits,
 * joins. NULL is fine, and so is a second time. */
void pool_end(struct pool *p);
void pool_free(struct pool *p); /* ends it first; NULL is fine */

/* run(ctx) follows exactly once, on a thread of the lane that `bytes` falls in. ERR_LIMIT: too many
 * jobs or bytes wait already; ERR_CLOSED: pool_end() has begun. */
enum err pool_add(struct pool *p, size_t bytes, void (*run)(void *ctx), void *ctx) MUSTCHECK;
/* Jobs that ask should give up. */
bool pool_is_ending(const struct pool *p);

struct pool_stats {
    size_t waiting, running, bytes; /* bytes: of those that wait */
};
void pool_stats(const struct pool *p, enum pool_lane lane, struct pool_stats *ret);
/* Jobs that wait or run. */
size_t pool_inflight(const struct pool *p);

#endif
