/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Adds usage records up, per minute, hour, day and for all time, by namespace, model, route,
 * upstream, key, outcome, status and currency. Pure: no clock, no database. The thread that
 * ingests.
 */
#ifndef METRICS_ROLLUP_H
#define METRICS_ROLLUP_H

#include "base/map.h"
#include "proto/usage_msg.h"

enum {
    ROLLUP_STEPS = 4, /* all time (0), minute, hour, day */
    ROLLUP_BUCKETS = 15,
    ROLLUP_ID_LEN = 32
};

extern const uint32_t rollup_steps_s[ROLLUP_STEPS];
/* Upper bounds of the latency histogram in milliseconds; the last bucket has none. Those of the
 * OpenTelemetry GenAI conventions for gen_ai.server.request.duration. */
extern const uint32_t rollup_bounds_ms[ROLLUP_BUCKETS - 1];

struct rollup_counts {
    uint64_t requests, input_tokens, output_tokens, cached_tokens, reasoning_tokens;
    int64_t cost_nano;
    uint64_t duration_ms, overhead_us;
    uint64_t ttft_ms, ttft_count; /* of the requests that had a first token */
    uint64_t latency[ROLLUP_BUCKETS];
};

struct rollup_dim {
    char id[ROLLUP_ID_LEN + 1]; /* a digest of what follows */
    struct str namespace_id;    /* or the slug, of records without an id */
    struct str namespace_slug;  /* not part of the digest: may change */
    struct str model, route, upstream, key_id, currency;
    enum usage_outcome outcome;
    unsigned status;
};

struct rollup_row {
    uint32_t step_s;
    uint64_t start_ms; /* of the step; 0 for all time */
    const struct rollup_dim *dim;
    struct rollup_counts counts;
};

/* The values of one label that have been seen: at most max, every further one is "other". */
struct rollup_labels {
    struct map seen;
    size_t max;
};
void rollup_labels_init(struct rollup_labels *l, size_t max);
void rollup_labels_done(struct rollup_labels *l);
struct str rollup_label(struct rollup_labels *l, struct str value);

struct rollup;
/* models: borrowed; bounds the label that clients can make up. */
struct rollup *rollup_new(struct rollup_labels *models);
void rollup_free(struct rollup *r);
void rollup_clear(struct rollup *r);
/* ERR_NOMEM: nothing was added. */
enum err rollup_add(struct rollup *r, const struct usage_record *u) MUSTCHECK;
/* What was added since the last clear. Rows by step, start and dimension (an order that is the same
 * in every instance, so that their transactions do not lock each other out); owned by r. */
const struct rollup_row *rollup_rows(struct rollup *r, size_t *ret_n);
const struct rollup_dim *const *rollup_dims(const struct rollup *r, size_t *ret_n);

#endif
