/* SPDX-License-Identifier: Apache-2.0 */
/* Between store_redis.c (connection, epoch, ops) and store_redis_admin.c (looks, resets). The lock
 * is held. */
#ifndef POLICY_STORE_REDIS_IMPL_H
#define POLICY_STORE_REDIS_IMPL_H

#include <pthread.h>

#include "rt/redis.h"
#include "scripts.h"
#include "store.h"

enum {
    REDIS_KEY_MAX = 64 + LEASE_ID_MAX * 2 + LEASE_KEY_MAX,
    REDIS_VALUE_MAX = 256,
    REDIS_NUMBER_MAX = 24
};

struct redis_store {
    struct store store;
    struct store_redis_options o;
    char prefix[40], epoch_key[96], lost_key[96];
    pthread_mutex_t lock;
    struct redis *redis;
    char value[REDIS_VALUE_MAX]; /* of the epoch's key, as read last */
    char epoch[LEASE_ID_MAX + 1];
    char run_id[41], synced_run_id[41];
    char problem[160];   /* why this Redis is not to be used, or "" */
    bool away;           /* and it was reported */
    bool missed;         /* there was no epoch at the last look */
    int64_t offset_us;   /* Redis's clock less ours, as far as known */
    uint64_t synced_us;  /* our time when the offset was learned */
    uint64_t checked_us; /* when its settings were looked at last; 0: not on this connection */
    uint64_t paused_us;  /* nothing is tried before */
    uint64_t errors, epochs, clock_steps, losses;
};

/* Connects, and reads the epoch when it is not known. */
enum err redis_store_ensure(struct redis_store *s, struct why *why) MUSTCHECK;
/* After a call that failed. */
void redis_store_pause(struct redis_store *s, enum err e);
/* The place of a counter: "<prefix>:counter:<epoch>:<policy>:<unit>:<key>", or
 * "<prefix>:quota:<policy>:<unit>:<key>" of a durable one. */
struct str redis_store_key(const struct redis_store *s, struct str policy, char unit, bool durable,
                           struct str key, char out[REDIS_KEY_MAX]);

/* Of the store's type. */
enum err redis_store_look(struct store *s, const struct store_counter *c, const char *cursor,
                          size_t most, store_view_fn fn, void *ctx,
                          char ret_cursor[STORE_CURSOR_LEN], struct why *why);
enum err redis_store_reset(struct store *s, const struct store_counter *c, size_t *ret_n,
                           struct why *why);
enum err redis_store_seed(struct store *s, const struct store_counter *c, uint64_t used,
                          struct why *why);

#endif
