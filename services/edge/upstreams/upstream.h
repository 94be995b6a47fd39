/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One request to one upstream server: HTTP/1.1 over pooled connections, or by libcurl where the
 * upstream's transport says so (curl_exchange.c). Pools belong to a worker and outlive
 * configurations: they are keyed by the server's id and URL. Which server is asked is others'
 * affair (balance.h). All on the worker's thread.
 */
#ifndef EDGE_UPSTREAM_H
#define EDGE_UPSTREAM_H

#include "http/h1.h"
#include "proto/snapshot.h"

struct tls_context;
struct transport;
struct loop;
struct resolver;
struct pools;
struct exchange;

enum exchange_failure {
    EXCHANGE_CONNECT, /* no connection, or the name has no address */
    EXCHANGE_STALE,   /* a pooled connection was closed before anything of the answer came: safe to
                         try again */
    EXCHANGE_RESET,   /* broken before the answer's head */
    EXCHANGE_TRUNCATED, /* broken inside of the body */
    EXCHANGE_MALFORMED  /* not HTTP as we know it */
};

/* From inside of any of these exchange_cancel() may be called; then none follows. */
struct exchange_events {
    void (*head)(void *ctx, const struct h1_response *res); /* valid during the call */
    void (*body)(void *ctx, struct str data);
    void (*flush)(void *ctx); /* what one read brought was handed over */
    void (*end)(void *ctx);   /* the body came whole: the exchange is gone */
    void (*fail)(void *ctx, enum exchange_failure f, const char *why); /* the exchange is gone */
    /* More of the answer is about to be read: what the others will look at can be prefetched. It
     * changes nothing, and may not be told. NULL: nothing to prefetch. */
    void (*expect)(void *ctx);
};

struct pools_options {
    struct loop *loop;
    struct resolver *resolver;
    size_t body_max; /* bytes of a request's body */
    char *scratch;   /* SCRATCH_SIZE, borrowed: one read at a time */
};
struct pools *pools_new(const struct pools_options *o);
void pools_free(struct pools *p); /* no exchange may be left */
/* The configuration is another: servers of the old one may stand at the same addresses. */
void pools_forget_servers(struct pools *p);
/* Closes connections that were idle for too long. */
void pools_sweep(struct pools *p);

/* How a server is spoken to over https: NULL and "" for http. */
struct exchange_tls {
    struct tls_context *context; /* kept while connections made with it live */
    struct str server_name;      /* instead of the server's own; n == 0: its own */
    struct transport *transport; /* NULL: direct; else it says all of it */
};

/* Sends head and body (copied). An event follows later, never from inside of this call. fresh: not
 * on a pooled connection. */
struct exchange *exchange_start(struct pools *p, const struct snap_server *s,
                                const struct exchange_tls *tls, struct str head, struct str body,
                                bool is_head, bool fresh, const struct exchange_events *ev,
                                void *ctx);
void exchange_cancel(struct exchange *x); /* closes the connection; NULL is fine */
/* Nothing is told any more; what is left of the answer is read, if it is short and comes soon, so
 * that the connection can be used again. */
void exchange_discard(struct exchange *x);
/* From now on other functions are told, with the same context. */
void exchange_redirect(struct exchange *x, const struct exchange_events *ev);
void exchange_pause(struct exchange *x, bool paused);
/* Bytes that it holds; by curl about. */
size_t exchange_memory(const struct exchange *x);
bool exchange_is_connected(const struct exchange *x);

/* Which way it goes; when its answer's head is told. */
struct exchange_way {
    const char *transport; /* "direct", "curl" */
    const char *http;      /* "1.1", "2" */
    unsigned connections;  /* that were made for it */
};
struct exchange_way exchange_way(const struct exchange *x);

#endif
