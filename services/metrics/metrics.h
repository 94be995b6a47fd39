/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the parts of aigw-metrics share: settings, its own metrics, and its state.
 *
 * Threads: the ingester (ingest.c) owns one connection and writes; HTTP threads, bus threads and
 * scrapes ask questions over a second connection under `lock`.
 */
#ifndef METRICS_METRICS_H
#define METRICS_METRICS_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/buf.h"
#include "base/metric.h"
#include "proto/query_msg.h"
#include "rt/daemon.h"
#include "store.h"

struct metrics_settings {
    const char *bind;
    int64_t port;
    const char *store_url;
    const char *token;
    int64_t batch, models_max;
    int64_t stream_max_bytes, stream_max_age_s, duplicates_s, replicas;
    bool stream_keep;
    int64_t records_days, clients_days, minutes_days;
};

enum {
    /* of this process */
    M_INGESTED,
    M_BATCH_ERRORS,
    M_DEAD,
    M_LAG,
    M_QUERIES,
    /* of the fleet, from the ledger */
    M_FLEET_REQUESTS,
    M_FLEET_TOKENS,
    M_FLEET_COST,
    M_FLEET_DURATION,
    M_FLEET_TTFT_SUM,
    M_FLEET_TTFT_COUNT,
    M_MAX
};
extern const struct metric_def metrics_defs[M_MAX];

struct ingest;

struct metrics_state {
    struct daemon *daemon;
    const struct metrics_settings *settings;
    char url[1024]; /* of the database */

    struct ingest *ingest;
    struct http_server *http;
    struct bus_sub *query_sub;

    pthread_mutex_t lock; /* guards what follows */
    struct db *db;        /* for questions; NULL until it could be opened */
    uint64_t fleet_at_ms; /* when the fleet's metrics were read from the ledger */
};

/* Answers a question over the shared connection. ERR_UNAVAILABLE: the database is away, or not
 * there yet. Any thread; blocks. */
enum err metrics_answer(struct metrics_state *m, const struct metrics_query *q, struct buf *out,
                        struct why *why) MUSTCHECK;

/* --- api.c: HTTP and bus --- */
enum err api_start(struct metrics_state *m, struct why *why) MUSTCHECK;
void api_stop(struct metrics_state *m);

/* --- fleet.c --- */
/* Brings the aigw_fleet_* metrics up to date with the ledger, at most once per second. */
void fleet_refresh(struct metrics_state *m);

/* --- ingest.c --- */
enum err ingest_start(struct metrics_state *m, struct why *why) MUSTCHECK;
/* Ends after the batch under way. */
void ingest_stop(struct metrics_state *m);

#endif
