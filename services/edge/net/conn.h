/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A non-blocking connection, plain or TLS, the same for both sides: reads are taken by the owner,
 * writes are gathered and sent when the owner flushes; what the socket does not take waits here and
 * goes on by itself. One worker's thread.
 */
#ifndef EDGE_CONN_H
#define EDGE_CONN_H

#include <sys/socket.h>

#include "base/buf.h"
#include "rt/loop.h"

struct tls;

/* Of the memory that a loop's connections read into, one at a time. */
enum { SCRATCH_SIZE = 64 * 1024 };

enum conn_event {
    CONN_CONNECTED, /* conn_connect() came through, or conn_secure() */
    CONN_READABLE,
    CONN_FLUSHED, /* conn_flush_soon() was done; some may wait */
    CONN_DRAINED, /* all output that waited for the socket is sent */
    CONN_BROKEN   /* reset, or the connect failed: close it */
};

struct conn;
typedef void (*conn_fn)(void *ctx, enum conn_event ev);

struct conn {
    struct loop *loop;
    struct loop_io io;
    int fd; /* -1: none */
    bool connecting, read_paused;
    struct tls *tls;                               /* NULL: plain */
    bool shaking;                                  /* hands, of TLS */
    bool read_waits_to_write, write_waits_to_read; /* what TLS wants of the socket */
    bool again;                                    /* a deferred CONN_READABLE will come */
    bool ended, drained; /* the peer's end is there to be read; the socket was empty then */
    bool tell_end;       /* the peer's end is CONN_BROKEN also while reading is paused */
    bool flush_due;      /* conn_flush_soon() */
    uint64_t sent;       /* bytes the socket has taken so far */
    struct buf out;      /* not yet taken by the socket */
    conn_fn fn;
    void *ctx;
};

/* Adopts a connected, non-blocking fd (takes it) and begins to watch for input. out_max bounds what
 * may wait. */
enum err conn_open(struct conn *c, struct loop *loop, int fd, size_t out_max, conn_fn fn,
                   void *ctx) MUSTCHECK;
/* Begins to connect; CONN_CONNECTED or CONN_BROKEN follows, never from inside of this call. */
enum err conn_connect(struct conn *c, struct loop *loop, const struct sockaddr *addr, socklen_t len,
                      size_t out_max, conn_fn fn, void *ctx) MUSTCHECK;
/* Makes it TLS (takes t, also when it fails): before anything is read or written. CONN_CONNECTED or
 * CONN_BROKEN follows, never from inside of this call; after conn_connect() one event for both. */
void conn_secure(struct conn *c, struct tls *t);
/* Closes; no event follows. reset: with RST, so that the peer does not take it for an orderly end.
 */
void conn_close(struct conn *c, bool reset);
static inline bool conn_is_open(const struct conn *c)
{
    return c->fd >= 0;
}

/* ERR_OK with *ret_n > 0; ERR_AGAIN; ERR_CLOSED (the peer sent its end); ERR_IO. */
enum err conn_read(struct conn *c, void *into, size_t cap, size_t *ret_n) MUSTCHECK;
/* The same, of a plain connection, without taking it. */
enum err conn_peek(struct conn *c, void *into, size_t cap, size_t *ret_n) MUSTCHECK;
/* Whether the peer has neither sent anything nor ended: for a connection that should be idle. */
bool conn_is_quiet(struct conn *c);
/* Why the handshake failed; NULL when it did not. Valid until conn_close(). */
const char *conn_tls_problem(const struct conn *c);
/* Sends our end behind what was flushed; what the peer sends can still be read. */
void conn_end_output(struct conn *c);
/* Gathers; sent by conn_flush(). ERR_LIMIT when too much waits. */
enum err conn_write(struct conn *c, struct str data) MUSTCHECK;
/* Sends what it can: ERR_OK also when some waits (CONN_DRAINED follows); ERR_IO when broken. */
enum err conn_flush(struct conn *c) MUSTCHECK;
/* conn_flush() when the events at hand are handled, or before the next one of this connection is:
 * what many connections have to send goes one after the other, while the kernel's code for it is in
 * the cache, and whoever waits for it is woken once. CONN_FLUSHED or CONN_BROKEN follows, unless it
 * is closed; conn_close() sends first, but for a reset. */
void conn_flush_soon(struct conn *c);
/* conn_write() of each part, CONN_PARTS_MAX at most, and conn_flush(). What the socket takes at
 * once is not copied. */
enum { CONN_PARTS_MAX = 4 };
enum err conn_send(struct conn *c, const struct str *parts, size_t n) MUSTCHECK;
/* Bytes that the peer's side has taken so far: a slow reader frees the kernel's buffer long before
 * it can be written to again. */
uint64_t conn_taken(const struct conn *c);
static inline size_t conn_waiting(const struct conn *c)
{
    return c->out.len;
}
/* Bytes that it holds, of TLS about. */
size_t conn_memory(const struct conn *c);
/* Stops or goes on taking input. A reset of the peer is noticed either way, its end with tell_end.
 */
void conn_pause(struct conn *c, bool paused);

#endif
