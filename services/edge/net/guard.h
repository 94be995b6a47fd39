/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How much of the edge clients may have: connections, in all and per address, and memory. Who comes
 * beyond a bound is still accepted and told so (503), up to GUARD_TOLD_MAX at a time (fewer where
 * the process may have few descriptors); only then are connections closed without a word. Any
 * thread; memory is one atomic, which workers move in steps.
 */
#ifndef EDGE_GUARD_H
#define EDGE_GUARD_H

#include <stdatomic.h>
#include <stdint.h>
#include <sys/socket.h>

#include "base/err.h"

enum { GUARD_TOLD_MAX = 1024, GUARD_STEP = 64 * 1024, GUARD_OWN_DESCRIPTORS = 128 };

enum guard_verdict {
    GUARD_IN,
    GUARD_FULL,    /* too many connections in all: tell it */
    GUARD_ADDRESS, /* too many from its address: tell it */
    GUARD_SHUT     /* close it */
};

struct guard;

/* connections: in all; per_address: of one IPv4 address or IPv6 /64, 0: unbounded; memory: bytes,
 * 0: unbounded; descriptors: that the process may have. Connections are at most as many as these
 * suffice for, with one for an upstream beside each, and what the process needs itself. */
struct guard *guard_new(uint64_t connections, uint64_t per_address, uint64_t memory,
                        uint64_t descriptors);
uint64_t guard_connections_max(const struct guard *g);
void guard_free(struct guard *g);

/* A connection comes; AF_UNSPEC: its address is not known yet, and not counted. All but SHUT end
 * with guard_leave(), with the same verdict and address. */
enum guard_verdict guard_enter(struct guard *g, const struct sockaddr_storage *addr);
void guard_leave(struct guard *g, enum guard_verdict v, const struct sockaddr_storage *addr);

/* A worker's share of the memory account; its thread. Moves the account when it has changed by
 * GUARD_STEP. */
struct guard_share {
    int64_t owed;
};
void guard_move(struct guard *g, struct guard_share *s, int64_t bytes);
/* Whether requests are to be refused until some are gone. */
bool guard_is_full(const struct guard *g);

struct guard_stats {
    uint64_t connections, memory;       /* now */
    uint64_t full, address, shut, shed; /* so far: by verdict, and requests refused for memory */
};
void guard_stats(const struct guard *g, struct guard_stats *ret);
void guard_note_shed(struct guard *g);

#endif
