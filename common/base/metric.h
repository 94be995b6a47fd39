/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Counters, gauges and histograms, declared in tables and rendered in the Prometheus text format
 * (version 0.0.4).
 *
 * A series is looked up once by its label values and then used as a handle: adding is one relaxed
 * atomic. Label sets are bounded: beyond max_series every further one is counted under the value
 * "other". Any thread; a thread that wants its own cache lines makes its own `struct metrics` from
 * the same table, and metrics_render() adds them up.
 */
#ifndef BASE_METRIC_H
#define BASE_METRIC_H

#include <stdint.h>

#include "base/buf.h"

/* METRIC_HISTOGRAM_OF is another name of an earlier or later def of the table, whose place
 * max_series says: its series are shown once more as a histogram, with as many labels of other
 * names; nothing is counted here. That def is a histogram, or a counter with buckets: that one is
 * observed, and shows its sum. */
enum metric_type { METRIC_COUNTER, METRIC_GAUGE, METRIC_HISTOGRAM, METRIC_HISTOGRAM_OF };

enum { METRIC_MAX_LABELS = 8, METRIC_MAX_BUCKETS = 24 };

struct metric_def {
    const char *name;
    enum metric_type type;
    const char *help;
    const char *labels[METRIC_MAX_LABELS]; /* NULL-terminated when fewer */
    double buckets[METRIC_MAX_BUCKETS];    /* ascending upper bounds, 0 ends; of histograms */
    size_t max_series;                     /* 0: 1000; see METRIC_HISTOGRAM_OF */
};

struct metrics;
struct metric; /* one series */

struct metrics *metrics_new(const struct metric_def *defs, size_t n); /* borrows defs */
void metrics_free(struct metrics *m);

/* The series of defs[which] with these label values (as many as it has labels). Never NULL. Lives
 * as long as m. */
struct metric *metrics_get(struct metrics *m, size_t which, const struct str *values);

void metric_add(struct metric *s, double v); /* counters and gauges */
void metric_inc(struct metric *s);
void metric_set(struct metric *s, double v); /* gauges */
void metric_observe(struct metric *s, double v);
double metric_value(const struct metric *s); /* of a histogram: its sum */

/* All series of all sets (made from the same table), added up by label values. */
enum err metrics_render(struct metrics *const *sets, size_t n, struct buf *out) MUSTCHECK;

/* Rows of the reference: | name | type | labels | help | */
enum err metrics_markdown(const struct metric_def *defs, size_t n, struct buf *out) MUSTCHECK;

#endif
