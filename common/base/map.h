/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hash map from byte strings to pointers: open addressing, keys copied, values borrowed. Keyed
 * hash, so clients cannot aim at collisions. One owner thread, or immutable and shared.
 */
#ifndef BASE_MAP_H
#define BASE_MAP_H

#include "base/err.h"
#include "base/str.h"

struct map_entry {
    struct str key; /* NUL-terminated copy; p = NULL when the place is free */
    uint64_t hash;
    void *value;
    bool gone; /* was removed: probing goes on */
};

struct map {
    struct map_entry *entries;
    size_t len, filled, cap, max; /* live, live and gone, places, most live entries allowed */
};

void map_init(struct map *m, size_t max);
void map_done(struct map *m); /* keys are freed, values are not */
/* Sets key to value (not NULL). Returns the value it replaces in *ret_old (may be NULL). */
enum err map_put(struct map *m, struct str key, void *value, void **ret_old) MUSTCHECK;
void *map_get(const struct map *m, struct str key);
/* Removes and returns the value, or NULL. */
void *map_remove(struct map *m, struct str key);
/* Iterates: size_t i = 0; while ((e = map_next(&m, &i)) != NULL). Removing the entry just returned
 * is allowed. */
struct map_entry *map_next(const struct map *m, size_t *i);

#endif
