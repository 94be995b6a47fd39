/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Follows the configuration: fetches manifests and the parts it lacks from the bus, checks digests,
 * builds the new snapshot beside the old on its own thread, swaps, keeps the last good one on disk,
 * and publishes what was applied or refused.
 *
 * Announcements (config.changed), a check by revision every 2 s and at each reconnect, so that a
 * lost message is found out. At start it loads the last good snapshot from disk first, so that a
 * daemon serves while everything else is down.
 */
#ifndef CONFIG_FOLLOWER_H
#define CONFIG_FOLLOWER_H

#include "proto/snapshot.h"
#include "rt/bus.h"

struct follower;

struct follower_options {
    struct bus *bus;
    const char *state_dir; /* the folder "snapshot" is made in it; NULL: nothing is kept */
    const struct clock *clock;
    const struct rng *rng;
    /* Runs on the follower's thread when a snapshot was built and checked, before it is announced
     * as applied. The callee takes its own reference when it keeps it, and may refuse it (returns
     * an error and why): then the old one stays. */
    enum err (*apply)(void *ctx, struct snapshot *s, struct why *why);
    /* Something worth a log line: level as in log.h. May be NULL. */
    void (*report)(void *ctx, int level, const char *what, uint64_t revision, const char *why);
    void *ctx;
};

struct follower *follower_new(const struct follower_options *o); /* starts its thread */
void follower_free(struct follower *f);                          /* joins it */
/* Offers the snapshot in use to apply() once more, on the follower's thread: something else that it
 * is built of has changed. Nothing is announced; when apply() refuses, that is reported. Before the
 * first snapshot it does nothing. Any thread. */
void follower_reapply(struct follower *f);
/* The snapshot in use with a reference of its own, or NULL when there is none yet. Any thread. */
struct snapshot *follower_snapshot(struct follower *f);
/* Parts (pages do not count) fetched over the bus since the start (tests: a change moves only its
 * parts). */
uint64_t follower_parts_fetched(const struct follower *f);

#endif
