/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Many HTTP exchanges with one server at a time on a loop of ours (libcurl's multi interface):
 * HTTP/1.1 and HTTP/2, several exchanges on one connection where the server speaks HTTP/2,
 * straight or by a proxy. Nothing blocks, nothing is read from the environment, no redirect is
 * followed, no coding is undone but the chunked one. Everything on the loop's thread.
 *
 * What curl brings is kept until curl is out of the way, and told then: from inside of any event
 * everything here may be called but http_multi_free().
 */
#ifndef RT_HTTP_CLIENT_MULTI_H
#define RT_HTTP_CLIENT_MULTI_H

#include "base/buf.h"

struct loop;
struct http_multi;    /* the connections to one server */
struct http_transfer; /* a request and its answer */

enum http_multi_version {
    HTTP_MULTI_AUTO, /* https: what the server chooses (ALPN: h2, http/1.1); http: 1.1 */
    HTTP_MULTI_1_1,
    HTTP_MULTI_2 /* https: as AUTO; http: HTTP/2 from the first byte, without an upgrade */
};

/* Texts are copied; NULL: none. Files are read whenever a connection is made. */
struct http_multi_options {
    struct loop *loop;
    const char *url;        /* scheme://host:port; the host is what a certificate must name */
    const char *connect_to; /* "host:port" to go to instead of the URL's */
    enum http_multi_version version;
    unsigned max_streams; /* at a time on a connection of HTTP/2 */
    const char *ca_file, *cert_file,
        *key_file;     /* PEM; the system's authorities without the first */
    const char *proxy; /* http://, https:// or socks5:// host:port; it resolves the server's name */
    const char *proxy_user, *proxy_password;
    const char *proxy_ca_file; /* of an https proxy */
    bool tunnel;               /* plain HTTP goes by CONNECT, too */
};

struct http_multi *http_multi_new(const struct http_multi_options *o); /* NULL: not to be had */
/* A transfer is paused and curl holds more of its answer: whatever else happens on its connection
 * brings more of it into memory. Others had better go elsewhere. */
bool http_multi_is_stuck(const struct http_multi *m);
/* So many streams were given up that a server of HTTP/2 may soon take it for an attack, and close
 * connections with everything on them. Others had better have new connections. */
bool http_multi_is_worn(const struct http_multi *m);
bool http_multi_is_idle(const struct http_multi *m); /* it has no transfer */
void http_multi_free(struct http_multi *m);          /* no transfer may be left; NULL is fine */
/* Where the proxy's name leads, "host:port:address"; connections that stand stay. */
void http_multi_resolve(struct http_multi *m, const char *entry);
/* Where the server is, instead of the connect_to it was made with. */
void http_multi_connect_to(struct http_multi *m, const char *host_port);

enum http_transfer_failure {
    HTTP_TRANSFER_CONNECT,   /* no connection, no tunnel, or a certificate that is not accepted */
    HTTP_TRANSFER_RESET,     /* broken before the answer's head */
    HTTP_TRANSFER_TRUNCATED, /* broken inside of the answer's body */
    HTTP_TRANSFER_MALFORMED  /* not HTTP as curl knows it, or beyond a bound */
};

struct http_transfer_events {
    /* Status line and fields with the empty line, as HTTP/1.1 would have them, whatever the
     * version; nothing but their size was checked. Valid during the call. */
    void (*head)(void *ctx, struct str head);
    void (*body)(void *ctx, struct str data); /* without chunks; valid during the call */
    void (*flush)(void *ctx);                 /* what came together was handed over */
    void (*end)(void *ctx);                   /* the body came whole: the transfer is gone */
    /* The transfer is gone; why: a sentence without anything secret. */
    void (*fail)(void *ctx, enum http_transfer_failure f, const char *why);
};

struct http_field {
    struct str name, value;
};

struct http_transfer_request {
    struct str method, target;       /* target: as it goes out; behind a proxy without a tunnel
                                        the whole URL */
    const struct http_field *fields; /* with host, without framing */
    size_t fields_n;
    struct str body;
    bool has_body; /* a body is announced, although it may be empty */
    bool is_head;  /* the answer has no body */
    bool last;     /* on a connection of its own, which is closed then */
};

/* Everything is copied. An event follows later, never from inside of this call. NULL: out of
 * memory. */
struct http_transfer *http_transfer_start(struct http_multi *m,
                                          const struct http_transfer_request *r,
                                          const struct http_transfer_events *ev, void *ctx);
/* No event follows. HTTP/2: the stream is reset; 1.1: the connection is closed. */
void http_transfer_cancel(struct http_transfer *t);
/* While it is paused nothing is told; what comes is kept up to a bound, and then no more is taken.
 */
void http_transfer_pause(struct http_transfer *t, bool paused);
bool http_transfer_is_connected(const struct http_transfer *t); /* or was */
/* Of the answer whose head was told: "1.1", "2"; else "". */
const char *http_transfer_version(const struct http_transfer *t);
/* Bytes that it holds: its request's body, and what nobody has taken of its answer; what libcurl
 * has beside that is not among them. */
size_t http_transfer_memory(const struct http_transfer *t);
/* Connections that were made for it: 0 where one was there. */
unsigned http_transfer_connections(const struct http_transfer *t);

#endif
