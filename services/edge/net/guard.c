/* SPDX-License-Identifier: Apache-2.0 */
#include "guard.h"

#include <netinet/in.h>
#include <pthread.h>
#include <stdlib.h>

#include "base/map.h"

struct guard {
    uint64_t connections_max, per_address, memory_max, told_max;
    _Atomic uint64_t connections, told;
    _Atomic int64_t memory;
    _Atomic uint64_t full, address, shut, shed;
    pthread_mutex_t lock;
    struct map by_address; /* how many, as a pointer-sized number; only with per_address */
};

struct guard *guard_new(uint64_t connections, uint64_t per_address, uint64_t memory,
                        uint64_t descriptors)
{
    struct guard *g = xcalloc(1, sizeof *g);
    uint64_t own = MIN((uint64_t)GUARD_OWN_DESCRIPTORS, descriptors / 2), rest = descriptors - own;
    g->told_max = MIN((uint64_t)GUARD_TOLD_MAX, rest / 8);
    g->connections_max = MIN(connections, MAX((rest - g->told_max) / 2, UINT64_C(1)));
    g->per_address = per_address;
    g->memory_max = memory;
    pthread_mutex_init(&g->lock, NULL);
    map_init(&g->by_address, (size_t)g->connections_max + 1);
    return g;
}

void guard_free(struct guard *g)
{
    if (g == NULL) return;
    map_done(&g->by_address);
    pthread_mutex_destroy(&g->lock);
    free(g);
}

uint64_t guard_connections_max(const struct guard *g)
{
    return g->connections_max;
}

/* One client's addresses: an IPv4 address, or the /64 that an IPv6 network hands to one. */
static struct str key_of(const struct sockaddr_storage *a)
{
    if (a->ss_family == AF_INET) {
        const struct sockaddr_in *v4 = (const void *)a;
        return str_n((const char *)&v4->sin_addr, 4);
    }
    if (a->ss_family == AF_INET6) {
        const struct in6_addr *v6 = &((const struct sockaddr_in6 *)(const void *)a)->sin6_addr;
        if (IN6_IS_ADDR_V4MAPPED(v6)) return str_n((const char *)v6->s6_addr + 12, 4);
        return str_n((const char *)v6->s6_addr, 8);
    }
    return STR("-");
}

/* False when its address has too many. */
static bool enter_address(struct guard *g, const struct sockaddr_storage *addr)
{
    struct str key = key_of(addr);
    if (g->per_address == 0 || addr->ss_family == AF_UNSPEC) return true;
    (void)pthread_mutex_lock(&g->lock);
    uint64_t n = (uintptr_t)map_get(&g->by_address, key);
    bool ok = n < g->per_address &&
              map_put(&g->by_address, key, (void *)(uintptr_t)(n + 1), NULL) == ERR_OK;
    (void)pthread_mutex_unlock(&g->lock);
    return ok;
}

static void leave_address(struct guard *g, const struct sockaddr_storage *addr)
{
    struct str key = key_of(addr);
    if (g->per_address == 0 || addr->ss_family == AF_UNSPEC) return;
    (void)pthread_mutex_lock(&g->lock);
    uint64_t n = (uintptr_t)map_get(&g->by_address, key);
    ASSERT(n > 0);
    /* Replacing a value takes no memory: it cannot fail. */
    if (n == 1)
        (void)map_remove(&g->by_address, key);
    else if (map_put(&g->by_address, key, (void *)(uintptr_t)(n - 1), NULL) != ERR_OK)
        ASSERT(false);
    (void)pthread_mutex_unlock(&g->lock);
}

static enum guard_verdict turn_away(struct guard *g, enum guard_verdict v)
{
    if (atomic_fetch_add(&g->told, 1) < g->told_max) {
        atomic_fetch_add(v == GUARD_FULL ? &g->full : &g->address, 1);
        return v;
    }
    atomic_fetch_sub(&g->told, 1);
    atomic_fetch_add(&g->shut, 1);
    return GUARD_SHUT;
}

enum guard_verdict guard_enter(struct guard *g, const struct sockaddr_storage *addr)
{
    if (atomic_fetch_add(&g->connections, 1) >= g->connections_max) {
        atomic_fetch_sub(&g->connections, 1);
        return turn_away(g, GUARD_FULL);
    }
    if (enter_address(g, addr)) return GUARD_IN;
    atomic_fetch_sub(&g->connections, 1);
    return turn_away(g, GUARD_ADDRESS);
}

void guard_leave(struct guard *g, enum guard_verdict v, const struct sockaddr_storage *addr)
{
    if (v == GUARD_SHUT) return;
    if (v != GUARD_IN) {
        atomic_fetch_sub(&g->told, 1);
        return;
    }
    leave_address(g, addr);
    atomic_fetch_sub(&g->connections, 1);
}

void guard_move(struct guard *g, struct guard_share *s, int64_t bytes)
{
    s->owed += bytes;
    if (s->owed < GUARD_STEP && s->owed > -GUARD_STEP) return;
    atomic_fetch_add_explicit(&g->memory, s->owed, memory_order_relaxed);
    s->owed = 0;
}

bool guard_is_full(const struct guard *g)
{
    int64_t now = atomic_load_explicit(&g->memory, memory_order_relaxed);
    return g->memory_max > 0 && now > 0 && (uint64_t)now > g->memory_max;
}

void guard_note_shed(struct guard *g)
{
    atomic_fetch_add(&g->shed, 1);
}

void guard_stats(const struct guard *g, struct guard_stats *ret)
{
    int64_t memory = atomic_load(&g->memory);
    *ret = (struct guard_stats){ .connections = atomic_load(&g->connections),
                                 .memory = memory > 0 ? (uint64_t)memory : 0,
                                 .full = atomic_load(&g->full),
                                 .address = atomic_load(&g->address),
                                 .shut = atomic_load(&g->shut),
                                 .shed = atomic_load(&g->shed) };
}
