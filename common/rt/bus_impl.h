/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of the bus share: bus.c (connection), bus_sub.c (subscriptions), bus_request.c
 * (replies and acknowledgements), bus_srv.c ($SRV), bus_js.c (streams, consumers), bus_kv.c.
 * Include nats/nats.h before this.
 *
 * Threads: cnats has one per subscription, one for changes of state and its own; we have one that
 * makes the connection (bus.c) and one for time-outs (bus_request.c).
 *
 * Locks, outermost first: bus.lock (list of subscriptions), bus.nc_lock (the connection; readers
 * use it, the connecting thread replaces it). bus_sub.gate, requests.lock and bus.wait_lock are
 * leaves. None is held while a callback of the caller runs, but bus.state_lock around on_state.
 */
#ifndef RT_BUS_IMPL_H
#define RT_BUS_IMPL_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/buf.h"
#include "base/list.h"
#include "rt/bus.h"

enum {
    BUS_TOKEN_LEN = 22,           /* of the random part of an inbox */
    BUS_INBOX_LEN = 128,          /* holds an inbox prefix, a token and a number */
    BUS_PENDING_MSGS = 16384,     /* that wait for one subscription's callback */
    BUS_PENDING_BYTES = 64 << 20, /* the same */
    BUS_REQUESTS_MAX = 65536,     /* that wait for a reply */
    BUS_BLOCKING_MS = 5000        /* of calls to the server that say "blocks" */
};

struct requests;
struct services;

enum { BUS_SPENT = 64, BUS_SPENT_BYTES = 64 * 1024 };

/* A subscription of cnats that has ended, and how many messages had been received by then. */
struct ended_sub {
    natsSubscription *sub;
    uint64_t in_msgs;
};

struct bus {
    struct bus_options o; /* its strings are ours */
    char *inbox_prefix;   /* such as _INBOX_edge */
    char **servers;       /* NULL-terminated */

    pthread_rwlock_t nc_lock;
    natsConnection *nc;           /* NULL: not made yet, or being replaced */
    uint64_t epoch;               /* of nc: counts up each time it is replaced */
    atomic_uint_least64_t breaks; /* counts connections lost: what waited for an answer lost it */

    pthread_mutex_t lock;
    struct list_node subs;   /* bus_sub.node */
    bool drained;            /* subscriptions of the caller are ended for good */
    struct ended_sub *ended; /* on nc, not freed yet */
    size_t ended_n, ended_cap;
    struct bus_stats past; /* of connections that are no more */

    pthread_t connector;
    pthread_mutex_t wait_lock; /* guards stop and nc_closed */
    pthread_cond_t wait;       /* these two changed, or the state did */
    bool stop, nc_closed;

    pthread_mutex_t spent_lock;
    natsMsg *spent[BUS_SPENT]; /* of one that batches: messages to be freed */
    size_t spent_n, spent_bytes;

    pthread_mutex_t state_lock;
    bool reported; /* what on_state was told last */

    atomic_uint_least64_t reconnects;
    struct requests *requests;
    struct services *services;
};

/* What a service's endpoint has done; guarded by bus_sub.gate. */
struct endpoint {
    char *name;
    uint64_t requests, errors, ns;
    char last_error[256];
};

struct bus_sub {
    struct list_node node;
    struct bus *bus;
    char *subject, *queue;
    bus_msg_fn fn;
    void (*raw)(void *ctx, natsMsg *msg); /* instead of fn, for our own subscriptions */
    void *ctx;
    natsSubscription *sub; /* on the present connection; guarded by bus.lock */
    atomic_uint refs;      /* the owner's, and one for each cnats subscription that may call */
    pthread_mutex_t gate;
    pthread_cond_t idle;
    bool closed;
    unsigned running;          /* handlers */
    unsigned attached;         /* cnats subscriptions that may still call */
    struct endpoint *endpoint; /* NULL: a plain subscription */
};

/* The connection, for use until bus_nc_put(); NULL when there is none (put all the same). */
natsConnection *bus_nc_get(struct bus *b);
void bus_nc_put(struct bus *b);
/* Frees a message, soon. */
void bus_msg_done(struct bus *b, natsMsg *m);
enum err bus_err(natsStatus s);
/* With the library's own words. */
enum err bus_why(struct why *why, natsStatus s, const char *what);
/* Adds what a connection has counted. False, and nothing added, without memory. */
bool bus_add_counts(natsConnection *nc, struct bus_stats *to);
/* Waits for a change of state or the stop, at most ms. False when the bus stops. */
bool bus_wait_change(struct bus *b, int ms);
/* A subject with a NUL behind it in out; ERR_INVALID when it is none. */
enum err bus_subject_z(struct str subject, char *out, size_t cap) MUSTCHECK;
bool bus_subject_is_valid(const char *subject, bool wildcards);
/* Fills out with BUS_TOKEN_LEN random letters and digits, and a NUL. */
void bus_token(struct bus *b, char out[BUS_TOKEN_LEN + 1]);
enum err bus_sub_new(struct bus *b, const char *subject, const char *queue, bus_msg_fn fn,
                     void (*raw)(void *ctx, natsMsg *msg), void *ctx, const char *endpoint,
                     struct bus_sub **ret) MUSTCHECK;

/* --- bus_sub.c */
/* All of them, on a connection. Holding bus.lock. */
void bus_subs_attach(struct bus *b, natsConnection *nc);
/* ... which is closed. */
void bus_subs_detach(struct bus *b);
/* Ends a subscription of cnats, which may be NULL, and frees it when its connection is done with
 * it. Holding bus.lock. */
void bus_sub_end(struct bus *b, natsSubscription *sub);
/* Writes the subject of the one that is sub's, which is only compared: it may be freed by now. */
void bus_sub_name(struct bus *b, const natsSubscription *sub, char *out, size_t cap);

/* --- bus_request.c */
struct requests *requests_new(struct bus *b);
void requests_break(struct requests *r); /* the connection is lost: fails them all */
bool requests_wait_idle(struct requests *r, uint64_t deadline_ns);
void requests_stop(struct requests *r); /* fails them all, ends the thread */
void requests_free(struct requests *r);

/* What the server said to a message that was published to a stream. */
struct js_ack {
    enum err e;
    uint64_t seq;
    bool dup;
};
/* Publishes headers and data to a stream and waits. headers: name, value, ..., NULL. Blocks. */
enum err bus_js_publish_wait(struct bus *b, const char *subject, const char *const *headers,
                             struct str data, int timeout_ms, uint64_t *ret_seq) MUSTCHECK;

/* --- bus_srv.c */
struct services *services_new(struct bus *b);
void services_free(struct services *s);

#endif
