/* SPDX-License-Identifier: Apache-2.0 */
/*
 * HTTP server for admin, query and ops listeners (libmicrohttpd, its own thread pool). Not for the
 * proxy's traffic. A handler gets the whole body and fills a reply. It may block, but each pool
 * thread serves many connections: what takes long is answered later, by a thread of the handler's.
 */
#ifndef RT_HTTP_SERVER_H
#define RT_HTTP_SERVER_H

#include "base/arena.h"
#include "base/buf.h"

struct http_server;

struct http_request {
    struct str method, path; /* path is percent-decoded once, without the query; no "..", no NUL, no
                                empty segments */
    struct str body;
    struct str client_ip;
    struct arena *arena;  /* lives as long as the request */
    struct str params[4]; /* what the {…} of the route matched */
    void *impl;
};
/* A request header, case-insensitive; p == NULL when absent. */
struct str http_header(const struct http_request *r, const char *name);
/* A query argument, decoded; p == NULL when absent. */
struct str http_query(const struct http_request *r, const char *name);

struct http_reply {
    int status;               /* 200 unless set */
    const char *content_type; /* application/json unless set */
    struct buf body;          /* at most 64 MiB */
    struct {
        const char *name;
        char value[256];
    } headers[8]; /* set with http_reply_header */
    size_t headers_len;
};
void http_reply_header(struct http_reply *r, const char *name, const char *fmt, ...)
    PRINTF_LIKE(3, 4);

typedef void (*http_handler)(void *ctx, const struct http_request *req, struct http_reply *reply);

/*
 * Answering later. A handler that called http_later() has not answered when it returns: its
 * connection rests, and the request, whose body and arena belong to whoever answers from now on,
 * lives until http_answer(). Any thread fills the reply returned and calls http_answer(), exactly
 * once, before http_server_free().
 */
struct http_reply *http_later(const struct http_request *r);
void http_answer(const struct http_request *r);
/* Between the two, by the thread that will answer: has the client closed its connection, or the
 * half it sends on? A system call. */
bool http_client_is_gone(const struct http_request *r);

/* path may hold {} segments: "/api/v2/namespaces/{}" ; a last segment "*" matches any rest (given
 * as a param). */
struct http_route {
    const char *method, *path;
    http_handler fn;
};

struct http_server_options {
    const char *bind; /* an address, such as 127.0.0.1, 0.0.0.0 or :: */
    uint16_t port;    /* 0: any */
    const struct http_route *routes;
    size_t routes_len;
    void *ctx;
    size_t max_body;   /* bytes: 413 beyond */
    size_t max_bodies; /* bytes of all bodies at a time: 503 beyond; 0: unlimited */
    unsigned threads, max_connections, timeout_s;
    /* Runs before the handler of any route (authorization): returns false when it has filled the
     * reply. May be NULL. */
    bool (*before)(void *ctx, const struct http_request *req, struct http_reply *reply);
    /* Runs after each reply, for metrics and the access log; route is the pattern, or "" when none
     * matched. May be NULL. */
    void (*after)(void *ctx, const struct http_request *req, const char *route, int status,
                  uint64_t ns);
    /* Shapes the body of the server's own errors (404, 405, 413, 400). NULL:
     * {"error":{"message":…}}. */
    void (*error_body)(void *ctx, int status, const char *message, struct http_reply *reply);
};

/* Copies the options, borrows the routes. Listens at once. */
enum err http_server_new(const struct http_server_options *o, struct http_server **ret,
                         struct why *why) MUSTCHECK;
uint16_t http_server_port(const struct http_server *s);
void http_server_quiesce(struct http_server *s); /* no new connections */
unsigned http_server_inflight(const struct http_server *s);
void http_server_free(struct http_server *s); /* waits for handlers */

#endif
