/* SPDX-License-Identifier: Apache-2.0 */
/* Where to cut a text at its limit. One owner thread. */
#include "tokenizer/merge/bpe.h"
#include "tokenizer/scan/clean.h"
#include "tokenizer/meter/meter_state.h"
#include "tokenizer/merge/piece_cache.h"

enum {
    TRIES = 64,        /* boundaries that are counted before the choice becomes a coarse one */
    LONG_CLUSTER = 32, /* characters */
};

enum err meter_count_from(struct token_meter *m, struct meter_place from, size_t to, uint64_t *ret)
{
    struct pieces it;
    struct piece piece;
    uint64_t count = 0;
    enum err e;
    struct piece_cache *cache = meter_cache(m);
    if (cache == NULL) return ERR_NOMEM;
    pieces_init(&it, m->v, m->mode, &cache->scratch, meter_raw(m, from.at, to), true, from.skip);
    while ((e = pieces_next(&it, &piece)) == ERR_OK) {
        uint64_t n = 1;
        if (piece.added == VOCAB_NO_TOKEN) e = piece_count(cache, m->v, piece.p, piece.n, &n);
        if (e != ERR_OK) break;
        count += n;
    }
    if (e != ERR_AGAIN) return e;
    *ret = count;
    return ERR_OK;
}

/* Within a cluster of n bytes: behind every LONG_CLUSTER-th character there is a place too, if what
 * stands before it is at most `most` clean bytes. Without these a run of marks could not be cut. */
static enum err place_inside(struct token_meter *m, size_t at, size_t n, size_t below, size_t most,
                             size_t *ret, bool *ret_found)
{
    struct pieces_scratch *s = &m->cache->scratch;
    size_t chars = 0;
    for (size_t i = 1; i < n && at + i < below; i++) {
        if (((unsigned char)m->raw.data[at + i] & 0xc0) == 0x80 || ++chars % LONG_CLUSTER != 0)
            continue;
        buf_clear(&s->clean);
        enum err e = clean_append(m->raw.data + at, i, m->v->h->normal, &s->points, &s->clean);
        if (e != ERR_OK) return e;
        if (s->clean.len > most) return ERR_OK;
        *ret = at + i;
        *ret_found = true;
    }
    return ERR_OK;
}

/*
 * The last cluster boundary before `below` that lies at most `clean` clean bytes behind m->open,
 * and not before `from`. Returns false when there is none.
 */
static enum err boundary_before(struct token_meter *m, struct meter_place from, size_t below,
                                size_t clean, size_t *ret, bool *ret_found)
{
    struct pieces_scratch *s = &m->cache->scratch;
    unsigned how = m->v->h->normal;
    size_t at = from.at, gone = 0; /* clean bytes behind from.at */
    size_t most = SIZE_MAX;        /* clean bytes behind m->open.at, once there */
    *ret_found = false;
    for (;;) {
        if (at == m->open.at) {
            most = m->open.skip + clean;
            /* the space in front is of no raw byte */
            if (m->open.skip == PIECES_FRESH) most = clean > 0 ? clean - 1 : 0;
            gone = 0;
        }
        if (at >= below || (most != SIZE_MAX && gone > most)) return ERR_OK;
        if (at > from.at || !pieces_within(from.skip)) {
            *ret = at;
            *ret_found = true;
        }
        size_t n = clean_cluster(m->raw.data + at, m->raw.len - at, !m->finished, how);
        bool whole = n > 0;
        if (!whole) n = m->raw.len - at;
        if ((how & CLEAN_NFC) != 0 && n > LONG_CLUSTER) {
            enum err e = place_inside(m, at, n, below, most == SIZE_MAX ? most : most - gone, ret,
                                      ret_found);
            if (e != ERR_OK) return e;
        }
        if (!whole) return ERR_OK;
        buf_clear(&s->clean);
        enum err e = clean_append(m->raw.data + at, n, how, &s->points, &s->clean);
        if (e != ERR_OK) return e;
        at += n;
        gone += s->clean.len;
    }
}

static void settle(struct token_meter *m, size_t at, uint64_t count)
{
    m->is_cut = true;
    m->cut_at = m->base + at;
    m->cut_count = count;
    m->deliverable = m->cut_at;
}

enum err meter_choose_cut(struct token_meter *m, size_t clean)
{
    if (meter_cache(m) == NULL) return ERR_NOMEM;
    size_t at = 0, below = SIZE_MAX;
    /* What was called deliverable is not taken back. */
    size_t least = m->deliverable > m->base ? (size_t)(m->deliverable - m->base) : 0;
    for (int i = 0; i < TRIES; i++) {
        bool found;
        enum err e = boundary_before(m, m->anchor, below, clean, &at, &found);
        if (e != ERR_OK) return e;
        if (!found || at < least) break;
        uint64_t count;
        e = meter_count_from(m, m->anchor, at, &count);
        if (e != ERR_OK) return e;
        count += m->anchor.count;
        if (count <= m->limit) {
            settle(m, at, count);
            return ERR_OK;
        }
        below = at;
    }
    if (m->mid.count <= m->limit && !pieces_within(m->mid.skip) && m->mid.at >= least) {
        settle(m, m->mid.at, m->mid.count);
        return ERR_OK;
    }
    if (m->deliverable < m->base) { /* withheld for longer than raw reaches back */
        m->is_cut = true;
        m->cut_at = m->deliverable;
        m->cut_count = MIN(m->anchor.count, m->limit);
        return ERR_OK;
    }
    uint64_t count = 0;
    enum err e = meter_count_from(m, m->anchor, MAX(least, m->anchor.at), &count);
    if (e != ERR_OK) return e;
    settle(m, least, m->anchor.count + count);
    return ERR_OK;
}
