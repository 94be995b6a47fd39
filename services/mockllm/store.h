/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the mock knows about its own past, as the ground truth of tests: counters, the requests as
 * they came, and how answers ended. Any thread.
 */
#ifndef STORE_H
#define STORE_H

#include "base/clock.h"
#include "base/metric.h"
#include "http/h1.h"
#include "rt/json.h"

struct store;

struct store *store_new(const struct clock *clock, bool record_all, size_t body_max);
void store_free(struct store *s);
void store_reset(struct store *s);

void store_connection(struct store *s, bool opened);
void store_bad_request(struct store *s);
/* A number that no other request of this process has. */
uint64_t store_serial(struct store *s);
/* Counts another request of this id for which a fault is limited: 1 for the first. */
uint64_t store_strike(struct store *s, struct str id);

/* Keeps the request when it has an id, or all are kept. head: its raw bytes. Returns the record's
 * number for store_end(), or 0. */
uint64_t store_record(struct store *s, struct str id, uint64_t connection, struct str head,
                      struct str body);

enum ended {
    ENDED_DONE,          /* all was sent */
    ENDED_CLIENT_CLOSED, /* the client closed first (FIN) */
    ENDED_CLIENT_RESET,  /* the client reset, or could not be written to */
    ENDED_FAULT,         /* as the behaviour asked */
    ENDED_ERROR,         /* an error status */
    ENDED_SHUTDOWN,      /* the mock ended */
    ENDED_MAX
};

/* How one request to a model endpoint ended. Strings are borrowed. */
struct ending {
    uint64_t record;
    struct str id, endpoint, model, user, tag;
    bool stream;
    int status;
    enum ended how;
    uint64_t prompt_tokens, completion_tokens; /* those that were sent */
    uint64_t events, bytes;
    uint64_t began_ns; /* monotonic */
};
/* An answer begins; and: it is a stream. */
void store_begin(struct store *s);
void store_stream(struct store *s);
void store_end(struct store *s, const struct ending *e);
size_t store_inflight(struct store *s);

/* New objects; the caller frees them. */
struct json *store_stats(struct store *s);
struct json *store_requests(struct store *s, struct str id); /* p == NULL: all that are kept */

enum { METRIC_REQUESTS, METRIC_TOKENS, METRIC_OPEN_STREAMS, METRIC_ABORTED, METRIC_CONNECTIONS };
extern const struct metric_def store_metric_defs[];
extern const size_t store_metric_defs_len;
/* Sets the metrics from the counters. */
void store_scrape(struct store *s, struct metrics *m);

#endif
