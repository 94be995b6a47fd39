/* SPDX-License-Identifier: Apache-2.0 */
#include "base/map.h"

#include <stdlib.h>

#include "base/hash.h"

void map_init(struct map *m, size_t max)
{
    *m = (struct map){ .max = max };
}

static void free_keys(struct map *m)
{
    for (size_t i = 0; i < m->cap; i++) free((void *)(uintptr_t)m->entries[i].key.p);
}

void map_done(struct map *m)
{
    free_keys(m);
    free(m->entries);
    *m = (struct map){ .max = m->max };
}

/* The entry that holds key, or NULL. */
static struct map_entry *find(const struct map *m, struct str key, uint64_t hash)
{
    if (m->cap == 0) return NULL;
    for (size_t i = hash & (m->cap - 1);; i = (i + 1) & (m->cap - 1)) {
        struct map_entry *e = &m->entries[i];
        if (e->key.p == NULL) {
            if (!e->gone) return NULL;
        } else if (e->hash == hash && str_eq(e->key, key)) {
            return e;
        }
    }
}

static struct map_entry *free_place(struct map_entry *entries, size_t cap, uint64_t hash)
{
    size_t i = hash & (cap - 1);
    while (entries[i].key.p != NULL) i = (i + 1) & (cap - 1);
    return &entries[i];
}

static enum err grow(struct map *m)
{
    size_t cap = 16;
    while (cap < (m->len + 1) * 2) cap *= 2;
    struct map_entry *entries = calloc(cap, sizeof *entries);
    if (entries == NULL) return ERR_NOMEM;
    for (size_t i = 0; i < m->cap; i++)
        if (m->entries[i].key.p != NULL)
            *free_place(entries, cap, m->entries[i].hash) = m->entries[i];
    free(m->entries);
    m->entries = entries;
    m->cap = cap;
    m->filled = m->len;
    return ERR_OK;
}

enum err map_put(struct map *m, struct str key, void *value, void **ret_old)
{
    ASSERT(value != NULL);
    uint64_t hash = hash_bytes(key.p, key.n);
    struct map_entry *e = find(m, key, hash);
    if (e != NULL) {
        if (ret_old != NULL) *ret_old = e->value;
        e->value = value;
        return ERR_OK;
    }
    if (m->len >= m->max) return ERR_LIMIT;
    if ((m->filled + 1) * 4 > m->cap * 3) {
        enum err err = grow(m);
        if (err != ERR_OK) return err;
    }
    char *copy = malloc(key.n + 1);
    if (copy == NULL) return ERR_NOMEM;
    if (key.n > 0) memcpy(copy, key.p, key.n);
    copy[key.n] = '\0';
    e = free_place(m->entries, m->cap, hash);
    if (!e->gone) m->filled++;
    *e = (struct map_entry){ .key = { copy, key.n }, .hash = hash, .value = value };
    m->len++;
    if (ret_old != NULL) *ret_old = NULL;
    return ERR_OK;
}

void *map_get(const struct map *m, struct str key)
{
    if (m->len == 0) return NULL;
    struct map_entry *e = find(m, key, hash_bytes(key.p, key.n));
    return e != NULL ? e->value : NULL;
}

void *map_remove(struct map *m, struct str key)
{
    struct map_entry *e = m->len > 0 ? find(m, key, hash_bytes(key.p, key.n)) : NULL;
    if (e == NULL) return NULL;
    void *value = e->value;
    free((void *)(uintptr_t)e->key.p);
    *e = (struct map_entry){ .gone = true };
    m->len--;
    return value;
}

struct map_entry *map_next(const struct map *m, size_t *i)
{
    while (*i < m->cap) {
        struct map_entry *e = &m->entries[(*i)++];
        if (e->key.p != NULL) return e;
    }
    return NULL;
}
