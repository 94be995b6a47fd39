/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside of the exchanges over connections of our own: what upstream.c (their beginning and end),
 * upstream_read.c (what comes) and upstream_pools.c (connections between requests) share. Nobody
 * else includes this.
 */
#ifndef EDGE_UPSTREAM_IMPL_H
#define EDGE_UPSTREAM_IMPL_H

#include "base/list.h"
#include "base/map.h"
#include "exchange_impl.h"
#include "http/chunked.h"
#include "net/conn.h"

struct tls_ticket;

enum { UPSTREAM_HEAD_MAX = 64 * 1024, KNOWN_SERVERS = 64 };

struct pool {
    struct pools *pools;
    struct list_node idle;  /* of exchange, latest first */
    struct list_node fresh; /* those that became idle in this turn: whether they are quiet is not
                               known yet */
    uint64_t fresh_turn;
    size_t idle_n; /* of both */
    unsigned turn; /* among a name's addresses */
    uint64_t used_at;
    size_t exchanges;          /* all that point here */
    struct tls_context *tls;   /* what its connections were made with; NULL: plain */
    struct tls_ticket *ticket; /* for the next one */
};

struct pools {
    struct pools_options o;
    struct h1_response response; /* parsed heads of answers, one at a time */
    struct map by_server;        /* server id and URL -> struct pool */
    struct {
        const struct snap_server *server;
        struct pool *pool;
    } known[KNOWN_SERVERS]; /* of this configuration, by address */
    struct curl_links *curl;
};

enum exchange_state { X_CONNECTING, X_WAIT_HEAD, X_BODY, X_IDLE, X_DEAD };

/* A connection, and the request that it carries. */
struct exchange {
    struct exchange_base base;
    struct pool *pool;
    struct conn conn;
    struct list_node node; /* in the idle list */
    enum exchange_state state;
    const struct exchange_events *ev;
    void *ctx;
    bool reused, is_head, keep_alive, got_bytes;
    unsigned interims;
    struct buf in; /* an incomplete head */
    enum h1_framing framing;
    uint64_t left, discarded;
    struct chunked chunked;
    uint64_t idle_since;
    struct loop_timer fail_timer;
    const char *fail_why;
};

/* --- upstream.c --- */

/* Closes and lets go; the memory goes at the end of the turn, since callers up the stack may look
 * at it. */
void exchange_bury(struct exchange *x, bool reset);
/* Buries it, and tells. */
void exchange_fail(struct exchange *x, enum exchange_failure f, const char *why);

/* --- upstream_read.c --- */

/* Takes what is there. */
void exchange_read(struct exchange *x);
/* The connection is over. orderly: the server sent its end; a reset ends nothing properly. */
void exchange_gone(struct exchange *x, bool orderly);

/* --- upstream_pools.c --- */

/* A server's address names it as long as its configuration is used. */
struct pool *pool_of(struct pools *p, const struct snap_server *s);
/* Certificates or authorities changed: what was made with the old ones is not used again. */
void pool_use_tls(struct pool *p, struct tls_context *tls);
/* An idle connection on which nothing has happened: not closed, and no byte came that nobody asked
 * for (it would be taken for the answer to the next request). NULL: none. */
struct exchange *pool_take_idle(struct pool *pool);
/* Its connection may carry another request. */
void pool_keep(struct exchange *x);

#endif
