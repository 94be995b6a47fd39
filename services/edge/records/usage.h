/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Exactly one usage record per request, from the edge to JetStream.
 *
 *      usage_open()      before anything is sent upstream; the record is on disk when it returns
 *      usage_progress()  now and then while a stream runs (every second, or every 100 tokens)
 *      usage_settle()    on every way out, once
 *
 * An edge that is killed in between is accounted for by its successor (outcome crashed, with what
 * progress said). A thread publishes what is settled, many in flight, for ever, and forgets it when
 * JetStream has it; message id = record id, so that nothing counts twice.
 *
 * A request that ends before it goes upstream (a refusal) only settles: handle NULL.
 *
 * With USAGE_RECORDS=false there are none: struct usage is NULL then, which every function takes.
 * Nothing is opened for it, no thread runs, and requests are not accounted for.
 *
 * Threads: a worker passes its own index and keeps its handles to itself. Nothing here blocks but
 * usage_new(), usage_flush() and usage_free().
 */
#ifndef EDGE_USAGE_H
#define EDGE_USAGE_H

#include "base/clock.h"
#include "base/opt.h"
#include "proto/usage_msg.h"
#include "rt/bus.h"

struct usage;
struct usage_handle; /* an open record; NULL is fine everywhere: not in the spool */

/* Settings of the edge: put the struct into its settings and the rows into its table, such as
 * USAGE_OPTS(struct edge_settings, usage). */
struct usage_settings {
    int64_t max_bytes, sync_ms;
    bool records, full_refuses;
};
/* clang-format off */
#define USAGE_OPTS(type, member)                                                                   \
    { "USAGE_RECORDS", OPT_BOOL, offsetof(type, member.records), "true", 0, 0, NULL,               \
      "false: no usage record is kept of any request. Nothing is accounted for, and what ran when " \
      "an edge was killed is known to nobody; limits work as ever. For a bare proxy." },           \
    { "SPOOL_MAX_BYTES", OPT_INT, offsetof(type, member.max_bytes), "1073741824", 16 << 20,        \
      INT64_C(1) << 40, "bytes",                                                                   \
      "Most bytes of usage records on disk that JetStream has not acknowledged yet." },            \
    { "SPOOL_SYNC_MS", OPT_INT, offsetof(type, member.sync_ms), "100", 1, 60000, "ms",             \
      "How often usage records are forced to disk: a power failure loses at most this much; a "    \
      "killed process loses nothing." },                                                           \
    { "SPOOL_FULL_REFUSES", OPT_BOOL, offsetof(type, member.full_refuses), "false", 0, 0, NULL,    \
      "When the spool is full: true refuses requests (503), false serves them and counts records " \
      "that are lost." }
/* clang-format on */

struct usage_options {
    const char *state_dir; /* the spool is <state_dir>/spool */
    unsigned workers;
    const struct usage_settings *settings;
    struct bus *bus; /* borrowed until usage_free() */
    const char *instance;
    const struct clock *clock;
    const struct rng *rng;
};

/* *ret is NULL when settings say that no records are kept. */
enum err usage_new(const struct usage_options *o, struct usage **ret, struct why *why) MUSTCHECK;
/* Records not acknowledged by now stay on disk; the next edge with this state_dir sends them. Call
 * before bus_free(). */
void usage_free(struct usage *u);

/* What is known of the request by now: id, ts, edge, namespace, key, route, model, input tokens
 * with their source and cost, revision. outcome is not looked at. ERR_LIMIT or ERR_IO: the spool is
 * full or its disk refuses, and settings say to refuse the request (503); otherwise it is counted,
 * and *ret is NULL: go on with that. */
enum err usage_open(struct usage *u, unsigned worker, const struct usage_record *r,
                    struct usage_handle **ret) MUSTCHECK;

/* So far: tokens delivered, cost of input and output together, time since the beginning. Three
 * stores into memory. */
void usage_progress(struct usage_handle *h, uint64_t output_tokens, int64_t cost_nano,
                    uint64_t duration_ms);

/* Completes the record and lets go of the handle; with handle NULL opens and settles at once.
 * Strings of r that lie where they lay at usage_open() must have what they had then: only what
 * follows them is written. A record that cannot be written is counted as lost (stats, and an error
 * in the log now and then). */
void usage_settle(struct usage *u, unsigned worker, struct usage_handle *h,
                  const struct usage_record *r);

/* Records that are open, or settled and not acknowledged. */
size_t usage_pending(struct usage *u);
/* Waits until everything settled is acknowledged: true, or false after timeout_ms. For draining,
 * when no request is in flight any more. */
bool usage_flush(struct usage *u, int timeout_ms);

struct usage_stats {
    uint64_t open, settled; /* now */
    uint64_t spool_bytes;   /* on disk now */
    uint64_t published;     /* acknowledged by JetStream … */
    uint64_t messages;      /* … in so many messages */
    uint64_t duplicates;    /* of those, known to it before */
    uint64_t retries;       /* attempts that failed */
    uint64_t refused;       /* usage_open() calls that said no */
    uint64_t unprotected;   /* requests served without a record on disk while they ran */
    uint64_t unsettled;     /* records left open on disk because they could not be settled */
    uint64_t lost;          /* records that could not be written at all */
    uint64_t adopted;       /* records taken over from dead edges … */
    uint64_t crashed;       /* … of which these were open */
    uint64_t damaged;       /* stretches of their segments that could not be read */
    uint64_t sync_errors;   /* the disk refused a sync: tried again */
};
void usage_stats(struct usage *u, struct usage_stats *ret);

#endif
