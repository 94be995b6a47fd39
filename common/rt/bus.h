/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The message bus (NATS through cnats): publish, request-reply, queue groups, JetStream, key-value,
 * and the services protocol ($SRV) that tools find us by.
 *
 * The connection is made in the background and for ever: everything may be called before it stands.
 * Callbacks run on threads of the bus: hand what arrives to your own thread (loop_post) and return.
 * Functions marked "blocks" wait for an answer of the server: never call them from an event loop.
 */
#ifndef RT_BUS_H
#define RT_BUS_H

#include <stdint.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/str.h"

struct bus;
struct bus_sub;

enum { BUS_PAYLOAD_WANTED = 1024 * 1024 }; /* the usual max_payload of a server */

struct bus_options {
    const char *url;      /* nats://host:port[,nats://host2:port] */
    const char *user;     /* NULL or "": none */
    const char *password; /* may be NULL */
    const char *instance; /* our name among all, such as edge-1: connection name, `from`, $SRV id */
    const char *service;  /* such as edge */
    const char *version;
    const char *description;
    const char *prefix; /* of all subjects, such as aigw */
    const struct clock *clock;
    const struct rng *rng;
    bool batches; /* what is sent may wait for a millisecond, to go together with more */
    /* Called on every change of state, from a bus thread; may be NULL. */
    void (*on_state)(void *ctx, bool connected, const char *why);
    /* What went wrong beside any call: a refused log-in, a missing permission, a handler too slow
     * for its messages, a server that takes no messages of BUS_PAYLOAD_WANTED bytes. Comes again
     * while it lasts. From a bus thread; may be NULL. */
    void (*on_error)(void *ctx, const char *why);
    void *ctx;
};

/* Copies what it needs. Begins to connect at once, retrying with backoff (at most 2 s) until
 * bus_free(). */
struct bus *bus_new(const struct bus_options *o);
/* A connection of its own for what is sent in bulk: like that one, but that it batches, and that
 * nobody is told of its state. */
struct bus *bus_new_bulk(const struct bus *like);
/* Flushes and drains what is under way for at most timeout_ms. Blocks. */
void bus_drain(struct bus *b, int timeout_ms);
/* Calls back what still waits with ERR_UNAVAILABLE and frees the subscriptions that are left; no
 * callback runs afterwards. Consumers and buckets must be closed before. Blocks, at most some
 * seconds. */
void bus_free(struct bus *b);
bool bus_is_connected(const struct bus *b);
const char *bus_instance(const struct bus *b);
const char *bus_prefix(const struct bus *b);
/* Most bytes of a message that the server takes; 0: no connection. */
size_t bus_payload_max(const struct bus *b);

/* --- core --- */

struct bus_msg {
    struct str subject, reply,
        data; /* borrowed until the callback returns; reply.n == 0 when none is wanted */
};
typedef void (*bus_msg_fn)(void *ctx, const struct bus_msg *msg);

/* Subscribes, now or as soon as there is a connection, and again after each reconnect. queue NULL:
 * every subscriber gets each message. At most pending_max messages wait for the callback, beyond
 * that they are dropped and counted. */
enum err bus_subscribe(struct bus *b, const char *subject, const char *queue, bus_msg_fn fn,
                       void *ctx, struct bus_sub **ret) MUSTCHECK;
/* Waits until no callback runs: never call it from the subscription's own. NULL is fine. */
void bus_unsubscribe(struct bus_sub *s);

/* Sends at once, unless it batches. ERR_UNAVAILABLE when there is no connection: nothing is
 * buffered across a reconnect. ERR_LIMIT when over the server's payload limit. Any thread. */
enum err bus_publish(struct bus *b, const char *subject, struct str data) MUSTCHECK;
/* Answers a request; does nothing when no reply is wanted. */
enum err bus_reply(struct bus *b, struct str reply_to, struct str data) MUSTCHECK;

/* e: ERR_OK with data, ERR_TIMEOUT, ERR_UNAVAILABLE (no responders, or the connection broke).
 * Exactly once per request. */
typedef void (*bus_reply_fn)(void *ctx, enum err e, struct str data);
/* Returns at once; fn runs on a bus thread. When it returns an error, fn is not called. Never
 * buffered. */
enum err bus_request(struct bus *b, const char *subject, struct str data, int timeout_ms,
                     bus_reply_fn fn, void *ctx) MUSTCHECK;
/* Blocks. *ret is appended to. */
struct buf;
enum err bus_request_wait(struct bus *b, const char *subject, struct str data, int timeout_ms,
                          struct buf *ret) MUSTCHECK;

/* --- services protocol (ADR-32): $SRV.PING|INFO|STATS[.name[.id]], subscribed as
 * $SRV.*[.name[.id]] --- */

struct bus_endpoint {
    const char *name;    /* such as lease */
    const char *subject; /* full subject */
    const char *queue;
};
/* Subscribes like bus_subscribe() and lists the endpoint in $SRV with its counts, errors and times.
 * A handler that failed reports it with bus_endpoint_error(). Services without an endpoint still
 * answer $SRV. */
enum err bus_serve(struct bus *b, const struct bus_endpoint *e, bus_msg_fn fn, void *ctx,
                   struct bus_sub **ret) MUSTCHECK;
void bus_endpoint_error(struct bus_sub *s, const char *why); /* NULL is fine */
/* For handlers that answer later than they return: adds to the endpoint's processing time. */
void bus_endpoint_time(struct bus_sub *s, uint64_t ns);

/* --- JetStream --- */

struct bus_stream {
    const char *name;
    const char *subjects[4]; /* NULL-terminated */
    int64_t max_bytes;       /* 0: unlimited */
    int64_t max_age_ns, duplicates_ns;
    bool discard_new; /* refuse when full instead of dropping the oldest */
    bool work_queue;  /* a message goes away when it is acknowledged */
    int replicas;
};
/* Creates the stream, or updates one that differs. Blocks. */
enum err bus_stream_ensure(struct bus *b, const struct bus_stream *s, struct why *why) MUSTCHECK;

/* e: ERR_OK when stored (dup: the server had it already), ERR_TIMEOUT, ERR_UNAVAILABLE, ERR_LIMIT
 * (stream full). */
typedef void (*bus_ack_fn)(void *ctx, enum err e, bool dup);
/* Publishes with an id for de-duplication and waits for the acknowledgement without blocking; fn
 * runs exactly once, on a bus thread, unless an error is returned. */
enum err bus_js_publish(struct bus *b, const char *subject, const char *msg_id, struct str data,
                        int timeout_ms, bus_ack_fn fn, void *ctx) MUSTCHECK;

struct bus_js_msg; /* freed by exactly one of ack, nak, term, release */
struct str bus_js_data(const struct bus_js_msg *m);
struct str bus_js_subject(const struct bus_js_msg *m);
uint64_t bus_js_sequence(const struct bus_js_msg *m);
uint64_t bus_js_deliveries(const struct bus_js_msg *m); /* 1 at the first */
void bus_js_ack(struct bus_js_msg *m);                  /* done with it */
void bus_js_nak(struct bus_js_msg *m, int delay_ms);    /* again, later */
void bus_js_term(struct bus_js_msg *m);                 /* never again */
void bus_js_release(struct bus_js_msg *m); /* says nothing: again after ack_wait; NULL is fine */

struct bus_consumer;
struct bus_consumer_options {
    const char *stream, *durable;
    int ack_wait_ms, max_ack_pending;
};
/* A durable pull consumer, shared by all who name it. Creates it when needed. Blocks. */
enum err bus_consumer_open(struct bus *b, const struct bus_consumer_options *o,
                           struct bus_consumer **ret, struct why *why) MUSTCHECK;
/* Waits for 1..max messages, at most timeout_ms: ERR_TIMEOUT when none came, ERR_UNAVAILABLE when
 * the connection is away or the stream is gone. These too take until the time-out, so that a loop
 * around a fetch does not spin; a consumer that the server lost, or hands out nothing of, is made
 * again. One thread at a time. ret holds max pointers. */
enum err bus_consumer_fetch(struct bus_consumer *c, int max, int timeout_ms,
                            struct bus_js_msg **ret, int *ret_n) MUSTCHECK;
void bus_consumer_close(struct bus_consumer *c);

/* --- key-value --- */

struct bus_kv; /* one thread at a time */
/* Opens the bucket, creating it when create is set. Blocks. */
enum err bus_kv_open(struct bus *b, const char *bucket, bool create, struct bus_kv **ret,
                     struct why *why) MUSTCHECK;
void bus_kv_close(struct bus_kv *kv);
/* *ret is appended to; ret_revision may be NULL. ERR_NOT_FOUND. All block, at most a few seconds.
 */
enum err bus_kv_get(struct bus_kv *kv, const char *key, struct buf *ret,
                    uint64_t *ret_revision) MUSTCHECK;
enum err bus_kv_put(struct bus_kv *kv, const char *key, struct str value) MUSTCHECK;
/* Compare-and-set: expected 0 creates. ERR_CONFLICT when it is not at that revision. */
enum err bus_kv_update(struct bus_kv *kv, const char *key, struct str value, uint64_t expected,
                       uint64_t *ret_revision) MUSTCHECK;
enum err bus_kv_delete(struct bus_kv *kv, const char *key) MUSTCHECK; /* purges its history */
/* Calls fn for each live key. */
enum err bus_kv_keys(struct bus_kv *kv, void (*fn)(void *ctx, struct str key), void *ctx) MUSTCHECK;

/* --- what the connection has done, for metrics --- */

struct bus_stats {
    uint64_t in_msgs, out_msgs, in_bytes, out_bytes, reconnects, dropped;
};
void bus_stats(const struct bus *b, struct bus_stats *ret);

#endif
