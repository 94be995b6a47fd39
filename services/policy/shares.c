/* SPDX-License-Identifier: Apache-2.0 */
/* Who shares the limits; the contract is in the header. */
#include "shares.h"

#include <stdlib.h>

enum { MAX_EDGES = 4096 };
#define MILLION UINT64_C(1000000)

/* Numbers are among how many it shares; 0: none. */
struct share_edge {
    uint64_t seen_us;
    bool says; /* its own number, in `said` */
    uint64_t said;
    uint64_t told, told_before; /* by us: the least since turned_us and before; or the last two */
    uint64_t turned_us;
};

void shares_init(struct shares *s, uint64_t now_us, uint64_t silent_us)
{
    map_init(&s->edges, MAX_EDGES);
    s->silent_us = silent_us;
    s->known_us = now_us + silent_us;
}

void shares_done(struct shares *s)
{
    struct map_entry *it;
    for (size_t i = 0; (it = map_next(&s->edges, &i)) != NULL;) free(it->value);
    map_done(&s->edges);
}

static enum err see(struct shares *s, struct str instance, uint64_t now_us, struct share_edge **ret)
{
    struct share_edge *e = map_get(&s->edges, instance);
    enum err err;
    if (e == NULL) {
        e = calloc(1, sizeof *e);
        if (e == NULL) return ERR_NOMEM;
        err = map_put(&s->edges, instance, e, NULL);
        if (err != ERR_OK) {
            free(e);
            return err;
        }
    }
    e->seen_us = MAX(e->seen_us, now_us);
    *ret = e;
    return ERR_OK;
}

enum err shares_saw(struct shares *s, struct str instance, uint64_t now_us)
{
    struct share_edge *e;
    return see(s, instance, now_us, &e);
}

enum err shares_said(struct shares *s, struct str instance, uint64_t now_us, uint64_t among)
{
    struct share_edge *e;
    enum err err = see(s, instance, now_us, &e);
    if (err != ERR_OK) return err;
    if (!e->says || now_us >= e->turned_us + s->silent_us) {
        e->told_before = e->told;
        e->told = 0;
        e->turned_us = now_us;
    }
    e->says = true;
    e->said = among;
    return ERR_OK;
}

bool shares_left(struct shares *s, struct str instance)
{
    struct share_edge *e = map_remove(&s->edges, instance);
    free(e);
    return e != NULL;
}

uint64_t shares_count(const struct shares *s, uint64_t now_us)
{
    return now_us < s->known_us ? 0 : MAX(s->edges.len, (size_t)1);
}

/* 0 stands for none. */
static uint64_t less(uint64_t a, uint64_t b)
{
    return a == 0 ? b : b == 0 ? a : MIN(a, b);
}

void shares_tell(struct shares *s, struct str instance, uint64_t count)
{
    struct share_edge *e = map_get(&s->edges, instance);
    if (e == NULL || count == 0) return;
    if (e->says) {
        e->told = less(e->told, count);
    } else {
        e->told_before = e->told;
        e->told = count;
    }
}

static bool is_silent(const struct shares *s, const struct share_edge *e, uint64_t now_us)
{
    return now_us > e->seen_us && now_us - e->seen_us > s->silent_us;
}

uint64_t shares_aside_ppm(const struct shares *s, uint64_t now_us)
{
    struct map_entry *it;
    uint64_t ppm = 0;
    for (size_t i = 0; (it = map_next(&s->edges, &i)) != NULL;) {
        const struct share_edge *e = it->value;
        uint64_t among = less(e->said, less(e->told, e->told_before));
        if (!is_silent(s, e, now_us) || among == 0) continue;
        ppm += (MILLION + among - 1) / among;
    }
    return MIN(ppm, MILLION);
}

size_t shares_silent(const struct shares *s, uint64_t now_us)
{
    struct map_entry *it;
    size_t n = 0;
    for (size_t i = 0; (it = map_next(&s->edges, &i)) != NULL;)
        if (is_silent(s, it->value, now_us)) n++;
    return n;
}
