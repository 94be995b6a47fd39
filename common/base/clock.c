/* SPDX-License-Identifier: Apache-2.0 */
#include "base/clock.h"

#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#include "base/err.h"

static uint64_t read_clock(clockid_t id)
{
    struct timespec t;
    clock_gettime(id, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint64_t system_mono(void *ctx)
{
    (void)ctx;
    return read_clock(CLOCK_BOOTTIME);
}

static uint64_t system_wall(void *ctx)
{
    (void)ctx;
    return read_clock(CLOCK_REALTIME);
}

const struct clock *clock_system(void)
{
    static const struct clock c = { system_mono, system_wall, NULL };
    return &c;
}

struct timespec clock_in_ns(uint64_t ns)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    uint64_t rest = (uint64_t)t.tv_nsec + ns % 1000000000u;
    t.tv_sec += (time_t)(ns / 1000000000u + rest / 1000000000u);
    t.tv_nsec = (long)(rest % 1000000000u);
    return t;
}

static void system_random(void *ctx, void *out, size_t n)
{
    static _Thread_local unsigned char pool[256];
    static _Thread_local size_t left;
    unsigned char *o = out;
    (void)ctx;
    while (n > 0) {
        if (left == 0) {
            ASSERT(getrandom(pool, sizeof pool, 0) == sizeof pool);
            left = sizeof pool;
        }
        size_t k = MIN(n, left);
        memcpy(o, pool + sizeof pool - left, k);
        memset(pool + sizeof pool - left, 0, k);
        left -= k, o += k, n -= k;
    }
}

const struct rng *rng_system(void)
{
    static const struct rng r = { system_random, NULL };
    return &r;
}

uint64_t rng_u64(const struct rng *r)
{
    uint64_t v;
    r->fill(r->ctx, &v, sizeof v);
    return v;
}

uint64_t rng_below(const struct rng *r, uint64_t n)
{
    ASSERT(n > 0);
    uint64_t limit = UINT64_MAX - UINT64_MAX % n, v;
    do v = rng_u64(r);
    while (v >= limit);
    return v % n;
}

static uint64_t fake_mono(void *ctx)
{
    return ((struct clock_fake *)ctx)->mono;
}
static uint64_t fake_wall(void *ctx)
{
    return ((struct clock_fake *)ctx)->wall;
}

void clock_fake_init(struct clock_fake *f, uint64_t mono_ns, uint64_t wall_ns)
{
    *f = (struct clock_fake){ .mono = mono_ns,
                              .wall = wall_ns,
                              .clock = { fake_mono, fake_wall, f } };
}

void clock_fake_advance(struct clock_fake *f, uint64_t ns)
{
    f->mono += ns;
    f->wall += ns;
}

static void fake_random(void *ctx, void *out, size_t n)
{
    struct rng_fake *f = ctx;
    unsigned char *o = out;
    while (n > 0) {
        uint64_t z = f->state += 0x9e3779b97f4a7c15u;
        z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
        z = (z ^ z >> 27) * 0x94d049bb133111ebu;
        z ^= z >> 31;
        size_t k = MIN(n, sizeof z);
        memcpy(o, &z, k);
        o += k, n -= k;
    }
}

void rng_fake_init(struct rng_fake *f, uint64_t seed)
{
    *f = (struct rng_fake){ seed, { fake_random, f } };
}

void time_rfc3339(uint64_t wall_ns, char out[TIME_RFC3339_LEN + 1])
{
    time_t s = (time_t)(wall_ns / 1000000000u);
    struct tm tm;
    gmtime_r(&s, &tm);
    (void)snprintf(out, TIME_RFC3339_LEN + 1, "%04u-%02u-%02uT%02u:%02u:%02u.%03uZ",
                   (unsigned)(tm.tm_year + 1900) % 10000, (unsigned)(tm.tm_mon + 1) % 100,
                   (unsigned)tm.tm_mday % 100, (unsigned)tm.tm_hour % 100,
                   (unsigned)tm.tm_min % 100, (unsigned)tm.tm_sec % 100,
                   (unsigned)(wall_ns / 1000000u % 1000u));
}
