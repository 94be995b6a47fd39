/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Addresses of upstream servers, or of the egress proxies in front of them. Names are looked up by
 * a thread of its own, at once when a configuration brings them and again every 30 s, those without
 * an address every 2 s; workers only read the table. An address that was once good stays while the
 * name server is away.
 */
#ifndef EDGE_RESOLVE_H
#define EDGE_RESOLVE_H

#include <sys/socket.h>

#include "base/str.h"
#include "proto/snapshot.h"

struct resolver;

struct resolver *resolver_new(void);
void resolver_free(struct resolver *r);
/* Looks up what is new in the snapshot and forgets the rest. Blocks for some seconds at most, and
 * one look-up; what is not known by then comes later. */
void resolver_use(struct resolver *r, const struct snapshot *s);
/* turn picks one of several addresses. ERR_NOT_FOUND while the name has none. Any thread. */
enum err resolver_get(struct resolver *r, const struct snap_server *server, unsigned turn,
                      struct sockaddr_storage *ret, socklen_t *ret_len) MUSTCHECK;

#endif
