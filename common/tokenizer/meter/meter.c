/* SPDX-License-Identifier: Apache-2.0 */
/* Counts a stream as it passes. One owner thread. */
#include "tokenizer/meter/meter.h"

#include <stdlib.h>

#include "base/prefetch.h"
#include "tokenizer/merge/bpe.h"
#include "tokenizer/meter/meter_state.h"
#include "tokenizer/merge/piece_cache.h"

enum {
    RAW_LEAST = 100, /* bytes that most tails make do with */
    RAW_KEPT = 2048, /* beyond it, room is given back when it is not needed any more */
    LONG_TAIL = 128, /* bytes: one that nothing can follow is not looked at with each feed */
};

/* anchor..mid and mid..open are a piece each, or pieces without a cluster boundary between them up
 * to METER_TAIL; each at most as long as a tail. */
enum { RAW_MAX = 8 * METER_TAIL };

struct token_meter *meter_new(struct vocab *v, enum special_mode mode)
{
    struct token_meter *m = calloc(1, sizeof *m);
    if (m == NULL) return NULL;
    m->v = v != NULL ? vocab_ref(v) : NULL;
    m->mode = mode;
    m->limit = METER_NO_LIMIT;
    m->exact = v != NULL && vocab_exact(v);
    if (v != NULL) m->open.skip = pieces_start(v);
    m->anchor = m->second = m->mid = m->open;
    buf_init(&m->raw, RAW_MAX);
    char *at;
    if (v != NULL && buf_reserve(&m->raw, RAW_LEAST, &at) != ERR_OK) {
        meter_free(m);
        return NULL;
    }
    return m;
}

void meter_prefetch(const struct token_meter *m)
{
    prefetch(m, sizeof *m);
}

void meter_free(struct token_meter *m)
{
    if (m == NULL) return;
    if (m->v != NULL) meter_run_ends(m);
    vocab_unref(m->v);
    buf_done(&m->raw);
    free(m);
}

struct piece_cache *meter_cache(struct token_meter *m)
{
    if (m->cache == NULL) m->cache = piece_cache_take(m->v);
    return m->cache;
}

static void give_cache(struct token_meter *m)
{
    if (m->cache == NULL) return;
    piece_cache_give(m->v, m->cache);
    m->cache = NULL;
}

void meter_set_limit(struct token_meter *m, uint64_t limit)
{
    m->limit = limit;
}

uint64_t meter_fed(const struct token_meter *m)
{
    return m->base + m->raw.len;
}

uint64_t meter_counted(const struct token_meter *m)
{
    return m->tail_known ? m->counted : meter_fed(m);
}

uint64_t meter_deliverable(const struct token_meter *m)
{
    return m->deliverable;
}

bool meter_cut(const struct token_meter *m, uint64_t *ret_offset)
{
    if (m->is_cut && ret_offset != NULL) *ret_offset = m->cut_at;
    return m->is_cut;
}

bool meter_exact(const struct token_meter *m)
{
    return m->exact;
}

/* ---- estimates ---- */

/* Takes all of it when all of it is within the limit: an estimate never falls. */
static bool estimate_all(struct token_meter *m, struct str bytes)
{
    struct token_estimate e = m->estimate;
    token_estimate_feed(&e, bytes);
    /* A character that has only begun is neither counted nor delivered where there is a limit. */
    struct token_estimate whole = e;
    if (m->limit != METER_NO_LIMIT) whole.part_n = 0;
    uint64_t count = token_estimate_count(&whole);
    if (count > m->limit) return false;
    m->estimate = e;
    m->base += bytes.n;
    m->deliverable = m->base - (uint64_t)(e.part_n - whole.part_n);
    m->cut_count = count;
    return true;
}

static void estimate_some(struct token_meter *m, struct str bytes)
{
    if (estimate_all(m, bytes)) return;
    for (size_t i = 0; i < bytes.n; i++)
        if (!estimate_all(m, str_n(bytes.p + i, 1))) break;
    m->is_cut = true;
    m->cut_at = m->deliverable;
}

/* ---- exact ---- */

/* Moves the open end up to where the walk stands, behind a piece of n tokens. */
static void commit(struct token_meter *m, const struct pieces *it, size_t walked_from, uint64_t n,
                   bool added)
{
    size_t at;
    pieces_position(it, &at, &m->open.skip);
    m->open.at = walked_from + at;
    m->open.count += n;
    if (added) {
        m->anchor = m->second = m->mid = m->open;
    } else if (m->open.skip == 0 || m->open.at - m->mid.at > METER_TAIL) {
        m->anchor = m->second;
        m->second = m->mid;
        m->mid = m->open;
    }
}

static void forget(struct token_meter *m)
{
    size_t n = m->anchor.at;
    if (n == 0) return;
    buf_consume(&m->raw, n);
    m->base += n;
    m->anchor.at = 0;
    m->second.at -= n;
    m->mid.at -= n;
    m->open.at -= n;
}

/* The first `left` tokens of a piece are within the limit: where do they end? */
static enum err cut_inside(struct token_meter *m, const struct piece *piece, uint64_t left)
{
    struct token_list l = { 0 };
    uint64_t n;
    size_t clean = 0;
    enum err e = ERR_OK;
    if (piece->added == VOCAB_NO_TOKEN && left > 0) {
        e = bpe_piece(m->v, piece->p, piece->n, &l, &n);
        if (e == ERR_OK)
            for (uint64_t i = 0; i < left; i++) clean += vocab_token_len(m->v, l.ids[i]);
    }
    token_list_done(&l);
    return e == ERR_OK ? meter_choose_cut(m, clean) : e;
}

/* Counts the pieces of raw[open ... to) that are decided; all of them when `final`. */
static enum err process(struct token_meter *m, size_t to, bool final)
{
    struct pieces it;
    struct piece piece;
    enum err e;
    size_t from = m->open.at;
    struct piece_cache *cache = meter_cache(m);
    if (cache == NULL) return ERR_NOMEM;
    pieces_init(&it, m->v, m->mode, &cache->scratch, meter_raw(m, from, to), final, m->open.skip);
    while ((e = pieces_next(&it, &piece)) == ERR_OK) {
        uint64_t n = 1;
        bool added = piece.added != VOCAB_NO_TOKEN;
        if (!added) e = piece_count(cache, m->v, piece.p, piece.n, &n);
        if (e != ERR_OK) break;
        if (n > m->limit - m->open.count) return cut_inside(m, &piece, m->limit - m->open.count);
        commit(m, &it, from, n, added);
    }
    if (e != ERR_AGAIN) return e;
    if (m->open.count == m->limit && (to > m->open.at || pieces_within(m->open.skip)))
        return meter_choose_cut(m, 0);
    return ERR_OK;
}

/* The tail is as long as it may be and nothing of it decided: take it as it stands. */
static enum err force(struct token_meter *m)
{
    size_t to = m->raw.len;
    while (to > m->open.at + 4 && ((unsigned char)m->raw.data[to - 1] & 0xc0) == 0x80) to--;
    if (to > m->open.at + 4 && (unsigned char)m->raw.data[to - 1] >= 0xc0) to--;
    if (to < m->raw.len && m->raw.len - to > 4) to = m->raw.len;
    m->exact = false;
    return process(m, to, true);
}

static void deliver(struct token_meter *m)
{
    uint64_t fed = meter_fed(m), most = METER_MARGIN + 3 * (uint64_t)(m->raw.len - m->anchor.at);
    if (m->is_cut) return;
    if (m->limit == METER_NO_LIMIT || m->finished ||
        (m->anchor.count <= m->limit && most <= m->limit - m->anchor.count)) {
        m->deliverable = fed;
        return;
    }
    /* Behind the last whole piece, or before the cluster that it ends in. Only if the text does not
     * count more when it ends there: then it counts at most the limit, whatever follows. */
    uint64_t count, known = pieces_within(m->open.skip) && m->mid.at < m->open.at ? m->mid.count
                                                                                  : m->open.count;
    if (m->base + m->open.at > m->deliverable &&
        meter_count_from(m, m->anchor, m->open.at, &count) == ERR_OK &&
        m->anchor.count + count <= known)
        m->deliverable = m->base + m->open.at;
}

static enum err cut_if_lowered(struct token_meter *m)
{
    /* Pieces were counted that the limit, as it is now, does not allow. */
    return m->open.count > m->limit ? meter_choose_cut(m, 0) : ERR_OK;
}

/* What is as if the text ended here, for meter_count(). */
static enum err count_tail(struct token_meter *m)
{
    if (m->is_cut || m->tail_known) return ERR_OK;
    enum err e = m->running ? meter_run_count(m, &m->tail_count)
                            : meter_count_from(m, m->open, m->raw.len, &m->tail_count);
    m->tail_known = e == ERR_OK;
    m->counted = meter_fed(m);
    return e;
}

/* Of a long tail that is looked at as a whole each time an eighth more is gathered first: so no
 * byte is looked at more than nine times. */
static bool can_wait(const struct token_meter *m, size_t n)
{
    size_t open = m->raw.len - m->open.at + n;
    return m->looked >= LONG_TAIL && open < m->looked + m->looked / 8 && open < METER_TAIL &&
           m->open.count < m->limit;
}

static enum err look(struct token_meter *m, struct str bytes, bool brief)
{
    enum err e = cut_if_lowered(m);
    while (e == ERR_OK && bytes.n > 0 && !m->is_cut) {
        size_t open = m->raw.len - m->open.at;
        size_t take = MIN(bytes.n, METER_TAIL - open);
        e = buf_append(&m->raw, bytes.p, take);
        if (e != ERR_OK) return e;
        bytes = str_n(bytes.p + take, bytes.n - take);
        e = process(m, m->raw.len, false);
        if (e == ERR_OK && !m->is_cut && m->raw.len - m->open.at == METER_TAIL) e = force(m);
        if (e == ERR_OK) forget(m);
    }
    size_t open = m->raw.len - m->open.at;
    m->running = e == ERR_OK && !(brief && open >= LONG_TAIL) && meter_run_begins(m);
    m->looked = m->running ? 0 : open;
    if (e == ERR_OK) e = count_tail(m);
    if (m->raw.cap > RAW_KEPT && m->raw.len < RAW_LEAST) buf_shrink(&m->raw, RAW_LEAST);
    return e;
}

enum err meter_feed(struct token_meter *m, struct str bytes)
{
    enum err e = ERR_OK;
    bool done = can_wait(m, bytes.n);
    ASSERT(!m->finished);
    if (m->is_cut || bytes.n == 0) return ERR_OK;
    if (m->v == NULL) {
        estimate_some(m, bytes);
        return ERR_OK;
    }
    if (done)
        e = buf_append(&m->raw, bytes.p, bytes.n);
    else
        m->tail_known = false;
    if (m->running && bytes.n < METER_TAIL - (m->raw.len - m->open.at) &&
        m->open.count < m->limit) {
        e = buf_append(&m->raw, bytes.p, bytes.n);
        if (e != ERR_OK) return e;
        done = meter_run_goes_on(m);
        if (!done) m->raw.len -= bytes.n;
    }
    if (!done) {
        /* Of runs that always end at once another is not begun each time. */
        bool brief = m->running && m->raw.len - m->open.at < m->run.began + m->run.began / 8;
        meter_run_ends(m);
        e = look(m, bytes, brief);
    }
    if (e == ERR_OK) deliver(m);
    give_cache(m);
    return e;
}

enum err meter_finish(struct token_meter *m)
{
    enum err e = ERR_OK;
    ASSERT(!m->finished);
    m->finished = true;
    if (m->v != NULL) meter_run_ends(m);
    if (m->is_cut) return ERR_OK;
    if (m->v == NULL) {
        if (token_estimate_count(&m->estimate) > m->limit) {
            m->is_cut = true;
            m->cut_at = m->deliverable;
        } else {
            m->deliverable = m->base;
        }
        return ERR_OK;
    }
    m->tail_known = false;
    e = cut_if_lowered(m);
    if (e == ERR_OK && !m->is_cut) e = process(m, m->raw.len, true);
    if (e == ERR_OK) deliver(m);
    give_cache(m);
    return e;
}

uint64_t meter_count(struct token_meter *m)
{
    if (m->is_cut) return m->cut_count;
    if (m->v == NULL) return token_estimate_count(&m->estimate);
    enum err e = count_tail(m);
    give_cache(m);
    return e == ERR_OK ? m->open.count + m->tail_count : m->open.count;
}
