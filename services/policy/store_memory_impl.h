/* SPDX-License-Identifier: Apache-2.0 */
/* Between store_memory.c (ops, epochs) and store_memory_admin.c (looks, resets). The lock is held.
 */
#ifndef POLICY_STORE_MEMORY_IMPL_H
#define POLICY_STORE_MEMORY_IMPL_H

#include <pthread.h>
#include <stdlib.h>

#include "base/list.h"
#include "base/map.h"
#include "store.h"

enum { MEMORY_NAME_MAX = LEASE_ID_MAX + 2 + LEASE_KEY_MAX };

struct counter {
    struct list_node lru; /* most recently asked for last */
    struct ledger ledger;
    struct ledger_rule rule; /* as of the last op */
    bool durable;
    uint64_t used_us;
    size_t name_n;
    char name[]; /* policy, '\n', unit, key */
};

struct memory {
    struct store store;
    pthread_mutex_t lock;
    const struct clock *clock;
    struct map counters;
    struct list_node lru;
    struct marks *marks; /* NULL: none are kept */
    struct ledger_birth birth;
    uint64_t warm_us; /* nothing is granted before */
    uint64_t until_us;
    uint64_t lost_us; /* wall clock: marks of windows that began before were lost; 0: never */
    uint64_t overflows, evictions, epochs, errors, losses;
    char epoch[LEASE_ID_MAX + 1];
};

static inline uint64_t memory_now_us(const struct memory *m)
{
    return clock_mono_ns(m->clock) / 1000;
}
static inline bool memory_may_serve(const struct memory *m)
{
    return m->epoch[0] != '\0' && memory_now_us(m) < m->until_us;
}

struct str memory_name(const struct store_counter *c, struct str key, char out[MEMORY_NAME_MAX]);
/* NULL: no memory, or (*ret_lost) what was used of its window is not known. */
struct counter *memory_make(struct memory *m, struct str name, const struct store_counter *of,
                            bool *ret_lost);
void memory_drop(struct memory *m, struct counter *c);
/* The mark that the counter needs as it stands. */
struct mark memory_mark_of(const struct counter *c);

/* Of the store's type. */
enum err memory_look(struct store *s, const struct store_counter *c, const char *cursor,
                     size_t most, store_view_fn fn, void *ctx, char ret_cursor[STORE_CURSOR_LEN],
                     struct why *why);
enum err memory_reset(struct store *s, const struct store_counter *c, size_t *ret_n,
                      struct why *why);
enum err memory_seed(struct store *s, const struct store_counter *c, uint64_t used,
                     struct why *why);

#endif
