/* SPDX-License-Identifier: Apache-2.0 */
/* Lists and dicts of template values. Pure; any thread, one owner per value being made. */
#include "tokenizer/jinja/jinja_value.h"

#include <string.h>

#include "base/hash.h"
#include "tokenizer/jinja/jinja_int.h"

enum { INDEX_FROM = 12 /* pairs: below, a walk is as quick as a hash */ };

struct jv_list *jv_list_new(struct arena *a, size_t n)
{
    if (n > UINT32_MAX / 2) return NULL;
    struct jv_list *l = arena_alloc(a, sizeof *l + n * sizeof(struct jv));
    if (l == NULL) return NULL;
    *l = (struct jv_list){ .items = (struct jv *)(void *)(l + 1), .n = (uint32_t)n };
    return l;
}

struct jv_dict *jv_dict_new(struct arena *a, size_t cap)
{
    if (cap > UINT32_MAX / 4) return NULL;
    struct jv_dict *d = arena_alloc(a, sizeof *d + cap * sizeof(struct jv_pair));
    if (d == NULL) return NULL;
    *d = (struct jv_dict){ .pairs = (struct jv_pair *)(void *)(d + 1), .cap = (uint32_t)cap };
    return d;
}

static bool str_key_eq(struct jv k, struct str key)
{
    return k.type == JV_STR && k.n == key.n && (key.n == 0 || memcmp(k.s, key.p, key.n) == 0);
}

/* The place of a string key in the index: of the key, or the free one where it would go. */
static uint32_t index_place(const struct jv_dict *d, struct str key)
{
    uint32_t mask = d->index_size - 1;
    uint32_t i = (uint32_t)hash_bytes(key.p, key.n) & mask;
    while (d->index[i] != 0 && !str_key_eq(d->pairs[d->index[i] - 1].key, key)) i = (i + 1) & mask;
    return i;
}

/* (Re)builds the index over all string keys. */
static enum err index_build(struct arena *a, struct jv_dict *d)
{
    uint32_t size = 64;
    while (size < d->cap * 2) size *= 2;
    uint32_t *index = arena_calloc(a, size * sizeof *index);
    if (index == NULL) return ERR_NOMEM;
    d->index = index;
    d->index_size = size;
    for (uint32_t i = 0; i < d->n; i++)
        if (d->pairs[i].key.type == JV_STR)
            d->index[index_place(d, jv_text(d->pairs[i].key))] = i + 1;
    return ERR_OK;
}

static struct jv_pair *find_pair(const struct jv_dict *d, struct jv key)
{
    if (key.type == JV_STR) {
        struct str s = jv_text(key);
        if (d->index != NULL) {
            uint32_t at = d->index[index_place(d, s)];
            return at != 0 ? &d->pairs[at - 1] : NULL;
        }
        for (uint32_t i = 0; i < d->n; i++)
            if (str_key_eq(d->pairs[i].key, s)) return &d->pairs[i];
        return NULL;
    }
    for (uint32_t i = 0; i < d->n; i++)
        if (d->pairs[i].key.type != JV_STR && jv_same_key(d->pairs[i].key, key))
            return &d->pairs[i];
    return NULL;
}

const struct jv *jv_dict_get(const struct jv_dict *d, struct jv key)
{
    const struct jv_pair *p = find_pair(d, key);
    return p != NULL ? &p->value : NULL;
}

const struct jv *jv_dict_getz(const struct jv_dict *d, struct str key)
{
    return jv_dict_get(d, jv_str(key));
}

const struct jv *jv_member(struct jv v, struct str key)
{
    return v.type == JV_DICT ? jv_dict_get(v.dict, jv_str(key)) : NULL;
}

enum err jv_dict_set(struct arena *a, struct jv_dict *d, struct jv key, struct jv value)
{
    struct jv_pair *there = find_pair(d, key);
    if (there != NULL) {
        there->value = value;
        return ERR_OK;
    }
    if (d->n == d->cap) {
        uint32_t cap = d->cap < 8 ? 8 : d->cap * 2;
        if (cap > UINT32_MAX / 4) return ERR_LIMIT;
        struct jv_pair *pairs = arena_alloc(a, cap * sizeof *pairs);
        if (pairs == NULL) return ERR_NOMEM;
        if (d->n > 0) memcpy(pairs, d->pairs, d->n * sizeof *pairs);
        d->pairs = pairs;
        d->cap = cap;
        d->index = NULL;
    }
    d->pairs[d->n++] = (struct jv_pair){ key, value };
    if (d->index != NULL) {
        if (key.type == JV_STR) d->index[index_place(d, jv_text(key))] = d->n;
    } else if (d->n > INDEX_FROM) {
        return index_build(a, d);
    }
    return ERR_OK;
}
