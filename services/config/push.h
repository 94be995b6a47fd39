/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The push thread: opens the store, and brings every revision from the database to the bus. It
 * reads the outbox, builds parts, pages and manifest, puts what the bucket lacks, sets `latest` by
 * compare-and-set, announces, and empties the outbox. Killed anywhere in between, it begins again
 * where the outbox says. It also keeps the bucket small, looks every few seconds whether the bucket
 * still holds what it should, and answers config.get.
 */
#ifndef CONFIG_PUSH_H
#define CONFIG_PUSH_H

#include "rt/bus.h"
#include "store.h"

struct push;

struct push_options {
    struct store *store;
    struct bus *bus;
    const struct clock *clock;
    const struct rng *rng;
    /* From the push thread: the store was opened; a revision was pushed after `ms`; something worth
     * a line in the log. */
    void (*on_open)(void *ctx);
    void (*on_pushed)(void *ctx, uint64_t revision, uint64_t ms);
    void (*report)(void *ctx, int level, const char *what, uint64_t revision, const char *why);
    void *ctx;
};

struct push *push_new(const struct push_options *o); /* starts the thread */
void push_free(struct push *p);                      /* joins it */
/* There is something to push, or the bus is back. Any thread. */
void push_wake(struct push *p);
/* Revision that was last seen to be on the bus; 0 before. Any thread. */
uint64_t push_revision(struct push *p);

#endif
