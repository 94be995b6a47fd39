/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Questions to the usage ledger: metrics.query on the bus, and the same as arguments of the HTTP
 * API. Schema of both messages: proto/schema/metrics_query.json. Any thread, no state.
 *
 *   request {"v","id","ts","from","kind":"totals"|"series"|"records","filter":{"namespace",…}?,
 *            "group_by":["namespace",…]?,"from_ts":RFC 3339?,"to_ts":?,"step":"1m"|"1h"|"1d"?,
 *            "limit"?,"cursor"?}
 *   reply   {"v","id","ts","from","result":{…}} or {…,"error":{"code","message"}}
 *
 * result of totals:  {"from","to","step","groups":[{<group>,<sums>}]}
 *           series:  {"from","to","step","points":[{"ts",<group>,<sums>}]}
 *           records: {"records":[<usage record>],"next":cursor|null}, newest first
 * <group>: one member per member of group_by. <sums>: "requests", "input_tokens", "output_tokens",
 * "cached_tokens", "reasoning_tokens", "duration_ms", "overhead_us", "ttft_ms", "ttft_count",
 * "cost":[{"currency","nano"}], "latency":[counts per bucket of "latency_bounds_ms" in the result,
 * and one beyond the last].
 */
#ifndef PROTO_QUERY_MSG_H
#define PROTO_QUERY_MSG_H

#include "base/arena.h"
#include "rt/json.h"

#define METRICS_DIMS(X)       \
    X(NAMESPACE, "namespace") \
    X(MODEL, "model")         \
    X(ROUTE, "route")         \
    X(UPSTREAM, "upstream")   \
    X(KEY, "key_id")          \
    X(OUTCOME, "outcome")     \
    X(STATUS, "status")

enum metrics_dim {
#define X(symbol, word) METRICS_DIM_##symbol,
    METRICS_DIMS(X)
#undef X
        METRICS_DIM_MAX
};

enum metrics_kind { METRICS_TOTALS, METRICS_SERIES, METRICS_RECORDS };

enum {
    METRICS_LIMIT_DEFAULT = 50,
    METRICS_LIMIT_MAX = 1000,  /* records */
    METRICS_POINTS_MAX = 2000, /* steps of a series */
    METRICS_ROWS_MAX = 20000   /* groups, or points of all groups */
};

struct metrics_query {
    enum metrics_kind kind;
    struct str filter[METRICS_DIM_MAX]; /* p == NULL: any. Namespace: slug or id. */
    bool group_by[METRICS_DIM_MAX];
    uint64_t from_ms, to_ms; /* wall clock; 0: open */
    unsigned step_s;         /* of a series: 60, 3600, 86400; 0: chosen by the range */
    unsigned limit;          /* of records; 0: METRICS_LIMIT_DEFAULT */
    struct str cursor;       /* of records: `next` of the page before */
};

const char *metrics_dim_name(enum metrics_dim d);
/* "namespace,model" */
enum err metrics_group_by_parse(struct str s, bool ret[METRICS_DIM_MAX], struct why *why) MUSTCHECK;
/* "1m", "1h", "1d", or seconds. */
enum err metrics_step_parse(struct str s, unsigned *ret_s) MUSTCHECK;
/* RFC 3339 in UTC, or milliseconds since 1970. */
enum err metrics_time_parse(struct str s, uint64_t *ret_ms) MUSTCHECK;
/* What holds between the members: ERR_INVALID. */
enum err metrics_query_check(const struct metrics_query *q, struct why *why) MUSTCHECK;

/* Sets the request's members beside those of the envelope. */
void metrics_query_encode(const struct metrics_query *q, struct json *message);
/* Checks as well. Strings are copied into the arena. */
enum err metrics_query_decode(const struct json *message, struct arena *arena,
                              struct metrics_query *ret, struct why *why) MUSTCHECK;

#endif
