/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Keeps the engine going: the claim on counters in memory, the store's upkeep, and the
 * subscription, which stands only while this engine may serve. One thread of its own.
 */
#ifndef POLICY_KEEPER_H
#define POLICY_KEEPER_H

#include "rt/daemon.h"

struct settings {
    const char *counter_url;
    int64_t max_counters, timeout_ms, quota_margin;
};

enum metric_id {
    M_MESSAGES,
    M_OPS,
    M_RESULTS,
    M_GRANTED,
    M_EPOCHS,
    M_CLOCK_STEPS,
    M_STORE_ERRORS,
    M_OVERFLOWS,
    M_LOSSES,
    M_LOST,
    M_SEEDED,
    M_MARK_WRITES,
    M_UTILIZATION,
    M_REFUSALS,
    M_COUNTERS,
    M_EDGES,
    M_SILENT,
    M_POLICIES,
    M_SERVING,
    M_SECONDS,
    M_MAX
};

struct keeper;

enum err keeper_new(struct daemon *d, struct keeper **ret, struct why *why) MUSTCHECK;
/* Stops serving and signs off, so that another takes over at once; inflight is 1 from the
 * drain's beginning until that is done. */
void keeper_quiesce(struct keeper *k);
size_t keeper_inflight(struct keeper *k);
void keeper_free(struct keeper *k);
void keeper_scrape(struct keeper *k);

#endif
