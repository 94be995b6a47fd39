/* SPDX-License-Identifier: Apache-2.0 */
#include "match_index.h"

#include <stdlib.h>

#include "base/map.h"

/* What is under one key. */
struct posting {
    uint32_t *v; /* `only`, as long as there is one */
    uint32_t n, cap, only;
};

/* The lengths that keys of a kind have in a group: bytes, or bits of networks. */
struct lengths {
    uint16_t *v;
    size_t n;
};

struct group {
    struct lengths lengths[INDEX_KINDS];
};

struct match_index {
    struct map postings; /* by group, kind and bytes */
    struct group *groups;
    size_t groups_n;
};

enum { KEY_HEAD = 5, KEY_ROOM = KEY_HEAD + INDEX_VALUE_MAX };

static struct str make_key(char room[KEY_ROOM], uint32_t group, enum index_kind kind,
                           struct str bytes)
{
    memcpy(room, &group, sizeof group);
    room[4] = (char)kind;
    if (bytes.n > 0) memcpy(room + KEY_HEAD, bytes.p, bytes.n);
    return str_n(room, KEY_HEAD + bytes.n);
}

/* The network's first bits and how many they are. */
static struct str network_bytes(char room[17], const unsigned char address[16], unsigned bits)
{
    memset(room, 0, 17);
    memcpy(room, address, bits / 8);
    if (bits % 8 != 0) room[bits / 8] = (char)(address[bits / 8] & (0xff00 >> bits % 8));
    room[16] = (char)bits;
    return str_n(room, 17);
}

struct match_index *match_index_new(void)
{
    struct match_index *x = xcalloc(1, sizeof *x);
    map_init(&x->postings, SIZE_MAX / 2);
    return x;
}

void match_index_free(struct match_index *x)
{
    struct map_entry *e;
    size_t i = 0;
    if (x == NULL) return;
    while ((e = map_next(&x->postings, &i)) != NULL) {
        struct posting *p = e->value;
        if (p->v != &p->only) free(p->v);
        free(p);
    }
    map_done(&x->postings);
    for (size_t g = 0; g < x->groups_n; g++)
        for (int k = 0; k < INDEX_KINDS; k++) free(x->groups[g].lengths[k].v);
    free(x->groups);
    free(x);
}

static struct group *group_at(struct match_index *x, uint32_t group)
{
    if (group >= x->groups_n) {
        size_t n = MAX((size_t)group + 1, x->groups_n * 2);
        x->groups = xrealloc(x->groups, n * sizeof *x->groups);
        memset(x->groups + x->groups_n, 0, (n - x->groups_n) * sizeof *x->groups);
        x->groups_n = n;
    }
    return &x->groups[group];
}

static void note_length(struct lengths *l, size_t length)
{
    for (size_t i = 0; i < l->n; i++)
        if (l->v[i] == length) return;
    l->v = xrealloc(l->v, (l->n + 1) * sizeof *l->v);
    l->v[l->n++] = (uint16_t)length;
}

static struct str bytes_of(const struct index_key *key, char network[17], size_t *ret_length)
{
    if (key->kind != INDEX_NETWORK) return *ret_length = key->bytes.n, key->bytes;
    *ret_length = key->network->bits;
    return network_bytes(network, key->network->address, key->network->bits);
}

void match_index_add(struct match_index *x, const struct index_key *key, uint32_t rank)
{
    char room[KEY_ROOM], network[17];
    size_t length;
    struct str bytes = bytes_of(key, network, &length);
    ASSERT(bytes.n <= INDEX_VALUE_MAX);
    struct str k = make_key(room, key->group, key->kind, bytes);
    struct posting *p = map_get(&x->postings, k);
    if (p == NULL) {
        p = xcalloc(1, sizeof *p);
        ASSERT(map_put(&x->postings, k, p, NULL) == ERR_OK);
        note_length(&group_at(x, key->group)->lengths[key->kind], length);
    }
    if (p->n > 0 && p->v[p->n - 1] == rank) return;
    ASSERT(p->n == 0 || p->v[p->n - 1] < rank);
    if (p->n == 0) {
        p->v = &p->only;
        p->cap = 1;
    } else if (p->n == p->cap) {
        uint32_t *had = p->v == &p->only ? NULL : p->v;
        p->cap *= 2;
        p->v = xrealloc(had, p->cap * sizeof *p->v);
        if (had == NULL) p->v[0] = p->only;
    }
    p->v[p->n++] = rank;
}

static const struct posting *find(const struct match_index *x, uint32_t group, enum index_kind kind,
                                  struct str bytes)
{
    char room[KEY_ROOM];
    return map_get(&x->postings, make_key(room, group, kind, bytes));
}

size_t match_index_count(const struct match_index *x, const struct index_key *key)
{
    char network[17];
    size_t length;
    const struct posting *p = find(x, key->group, key->kind, bytes_of(key, network, &length));
    return p != NULL ? p->n : 0;
}

static void take(struct index_walk *w, const struct posting *p)
{
    if (p == NULL) return;
    if (w->n == INDEX_LISTS_MAX)
        w->overflow = true;
    else
        w->lists[w->n++] = (struct index_list){ p->v, p->n };
}

void index_walk_find(struct index_walk *w, const struct match_index *x, uint32_t group,
                     struct str value)
{
    if (group >= x->groups_n) return;
    for (int k = 0; k < INDEX_KINDS; k++) {
        const struct lengths *l = &x->groups[group].lengths[k];
        for (size_t i = 0; i < l->n; i++) {
            char network[17];
            struct str bytes = value;
            size_t n = l->v[i];
            if (k == INDEX_NETWORK) {
                if (value.n != 16) continue;
                bytes = network_bytes(network, (const unsigned char *)value.p, (unsigned)n);
            } else if (k == INDEX_EXACT ? value.n != n : value.n < n) {
                continue;
            } else {
                bytes = str_n(k == INDEX_SUFFIX ? value.p + value.n - n : value.p, n);
            }
            take(w, find(x, group, (enum index_kind)k, bytes));
        }
    }
}

void index_walk_add(struct index_walk *w, const struct match_index *x, const struct index_key *key)
{
    char network[17];
    size_t length;
    if (key->group >= x->groups_n || x->groups[key->group].lengths[key->kind].n == 0) return;
    take(w, find(x, key->group, key->kind, bytes_of(key, network, &length)));
}

bool index_walk_next(struct index_walk *w, uint32_t *ret)
{
    uint32_t least = UINT32_MAX;
    ASSERT(!w->overflow);
    for (size_t i = 0; i < w->n;) {
        if (w->lists[i].n == 0) {
            w->lists[i] = w->lists[--w->n];
            continue;
        }
        least = MIN(least, w->lists[i].v[0]);
        i++;
    }
    if (w->n == 0) return false;
    for (size_t i = 0; i < w->n; i++)
        if (w->lists[i].v[0] == least) w->lists[i].v++, w->lists[i].n--;
    *ret = least;
    return true;
}
