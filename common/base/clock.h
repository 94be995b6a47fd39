/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Time and randomness as seams: production passes clock_system() and rng_system(), tests pass their
 * own.
 *
 * mono: CLOCK_BOOTTIME in nanoseconds, goes on while the machine sleeps, never steps; for deadlines
 * and leases. wall: nanoseconds since 1970 UTC; for records and people, never for decisions.
 */
#ifndef BASE_CLOCK_H
#define BASE_CLOCK_H

#include <stddef.h>
#include <stdint.h>
#include <time.h>

struct clock {
    uint64_t (*mono_ns)(void *ctx);
    uint64_t (*wall_ns)(void *ctx);
    void *ctx;
};

struct rng {
    void (*fill)(void *ctx, void *out, size_t n);
    void *ctx;
};

const struct clock *clock_system(void);
const struct rng *rng_system(void); /* getrandom(2), buffered per thread */

static inline uint64_t clock_mono_ns(const struct clock *c)
{
    return c->mono_ns(c->ctx);
}
static inline uint64_t clock_mono_ms(const struct clock *c)
{
    return c->mono_ns(c->ctx) / 1000000;
}
static inline uint64_t clock_wall_ns(const struct clock *c)
{
    return c->wall_ns(c->ctx);
}
static inline uint64_t clock_wall_ms(const struct clock *c)
{
    return c->wall_ns(c->ctx) / 1000000;
}

/* When so much has passed, for pthread_cond_timedwait(): on CLOCK_MONOTONIC, which is the clock to
 * give every condition (pthread_condattr_setclock()). */
struct timespec clock_in_ns(uint64_t ns);
static inline struct timespec clock_in_ms(uint64_t ms)
{
    return clock_in_ns(ms * 1000000);
}

uint64_t rng_u64(const struct rng *r);
/* Uniform in [0, n); n > 0. */
uint64_t rng_below(const struct rng *r, uint64_t n);

/* A clock that a test moves by hand. */
struct clock_fake {
    uint64_t mono, wall; /* ns */
    struct clock clock;
};
void clock_fake_init(struct clock_fake *f, uint64_t mono_ns, uint64_t wall_ns);
void clock_fake_advance(struct clock_fake *f, uint64_t ns);

/* A repeatable generator (splitmix64) for tests and simulations. */
struct rng_fake {
    uint64_t state;
    struct rng rng;
};
void rng_fake_init(struct rng_fake *f, uint64_t seed);

/* RFC 3339 in UTC with milliseconds: 2026-01-31T23:59:59.123Z. out holds 25 bytes. */
enum { TIME_RFC3339_LEN = 24 };
void time_rfc3339(uint64_t wall_ns, char out[TIME_RFC3339_LEN + 1]);

#endif
