/* SPDX-License-Identifier: Apache-2.0 */
/* Counts and ids of whole texts, and of texts that come in pieces. Pure; a counter has one owner.
 */
#include "tokenizer/tokenizer.h"

#include <stdlib.h>

#include "tokenizer/merge/bpe.h"
#include "tokenizer/merge/piece_cache.h"
#include "tokenizer/scan/pieces.h"
#include "tokenizer/scan/words.h"

enum {
    FEED = 4096,       /* bytes that join the tail at least, as long as there is one */
    ASK = 64 << 10,    /* bytes between two questions whether to stop */
    ASK_PIECES = 8192, /* the same in pieces */
    END = 16,          /* bytes */
};

/* Some bytes of ASCII: their pieces would be known by now, were it known what stands behind them.
 */
static bool is_end_of_ascii(const char *p, size_t n)
{
    unsigned char all = 0;
    if (n > END) return false;
    for (size_t i = 0; i < n; i++) all |= (unsigned char)p[i];
    return all < 0x80;
}

/* All pieces up to where the text is undecided. */
static enum err walk(struct pieces *it, const struct stop *stop, struct token_list *to,
                     uint64_t *count)
{
    struct piece_cache *cache = to == NULL ? piece_cache_take(it->v) : NULL;
    struct piece piece;
    enum err e;
    for (;;) {
        const char *p;
        size_t left = 0;
        e = pieces_load(it);
        if (e != ERR_OK) break;
        if (cache != NULL) {
            *count += it->v->count_windows(cache, it);
            left = pieces_left(it, &p);
        }
        if (left > 0 && !is_end_of_ascii(p, left)) {
            size_t some = it->v->count_mixed(cache, it->v, p, left, count);
            if (some == 0) some = it->v->count_words(cache, it->v, p, left, count);
            if (some == 0) some = it->v->count_scripts(cache, it->v, p, left, count);
            pieces_pass(it, some);
            if (some > 0) continue;
        }
        e = pieces_next(it, &piece);
        if (e != ERR_OK) break;
        uint64_t n = 1;
        if (piece.added != VOCAB_NO_TOKEN)
            e = to != NULL ? token_list_push(to, piece.added) : ERR_OK;
        else
            e = to != NULL || piece.n > ASK ? bpe_piece_until(it->v, piece.p, piece.n, stop, to, &n)
                                            : piece_count_later(cache, it->v, piece.p, piece.n, &n);
        if (e != ERR_OK) break;
        *count += n;
    }
    *count += piece_settle(cache, it->v);
    piece_cache_give(it->v, cache);
    return e == ERR_AGAIN ? ERR_OK : e;
}

enum err token_count(const struct vocab *v, struct str text, enum special_mode mode, uint64_t *ret)
{
    struct pieces_scratch scratch;
    struct pieces it;
    uint64_t count = 0;
    pieces_scratch_init(&scratch);
    pieces_init(&it, v, mode, &scratch, text, true, pieces_start(v));
    enum err e = walk(&it, NULL, NULL, &count);
    pieces_scratch_done(&scratch);
    if (e == ERR_OK) *ret = count;
    return e;
}

/* The ends of the tokens from `first` on, which are those of the piece just returned. */
static void note_ends(const struct pieces *it, const struct piece *piece, struct token_list *l,
                      size_t first)
{
    size_t left = piece->n;
    for (size_t i = first; i < l->len; i++) {
        if (piece->added != VOCAB_NO_TOKEN) {
            l->ends[i] = it->at;
        } else {
            left -= vocab_token_len(it->v, l->ids[i]);
            l->ends[i] = pieces_raw_offset(it, left);
        }
    }
}

enum err token_encode(const struct vocab *v, struct str text, enum special_mode mode,
                      struct token_list *l)
{
    struct pieces_scratch scratch;
    struct pieces it;
    struct piece piece;
    size_t before = l->len, pieces = 0;
    enum err e;
    pieces_scratch_init(&scratch);
    pieces_init(&it, v, mode, &scratch, text, true, pieces_start(v));
    while ((e = pieces_next(&it, &piece)) == ERR_OK) {
        uint64_t n;
        size_t first = l->len;
        if (++pieces % ASK_PIECES == 0 && stop_asked(l->stop)) {
            e = ERR_CLOSED;
            break;
        }
        e = piece.added == VOCAB_NO_TOKEN ? bpe_piece_until(v, piece.p, piece.n, l->stop, l, &n)
                                          : token_list_push(l, piece.added);
        if (e != ERR_OK) break;
        if (l->want_ends) note_ends(&it, &piece, l, first);
    }
    pieces_scratch_done(&scratch);
    if (e != ERR_AGAIN) {
        l->len = before;
        return e;
    }
    return ERR_OK;
}

/* ---- counter ---- */

void token_counter_init(struct token_counter *c, const struct vocab *v, enum special_mode mode,
                        struct token_list *to)
{
    *c = (struct token_counter){ .vocab = v, .mode = mode, .to = to, .skip = pieces_start(v) };
    buf_init(&c->tail, SIZE_MAX / 4);
}

void token_counter_done(struct token_counter *c)
{
    buf_done(&c->tail);
    if (c->scratch != NULL) pieces_scratch_done(c->scratch);
    free(c->scratch);
    c->scratch = NULL;
}

/* Walks `text`, whose first c->skip clean bytes are done; *ret_at becomes where the rest begins. */
static enum err advance(struct token_counter *c, struct str text, bool final, size_t *ret_at)
{
    struct pieces it;
    if (c->scratch == NULL) {
        c->scratch = malloc(sizeof *c->scratch);
        if (c->scratch == NULL) return ERR_NOMEM;
        pieces_scratch_init(c->scratch);
    }
    pieces_init(&it, c->vocab, c->mode, c->scratch, text, final, c->skip);
    enum err e = walk(&it, c->stop, c->to, &c->count);
    if (e == ERR_OK) pieces_position(&it, ret_at, &c->skip);
    return e;
}

static enum err feed(struct token_counter *c, struct str bytes)
{
    size_t at;
    enum err e;
    while (bytes.n > 0) {
        if (c->tail.len == 0) {
            e = advance(c, bytes, false, &at);
            if (e == ERR_OK) e = buf_append(&c->tail, bytes.p + at, bytes.n - at);
            return e;
        }
        size_t take = MIN(bytes.n, MAX((size_t)FEED, c->tail.len));
        e = buf_append(&c->tail, bytes.p, take);
        if (e == ERR_OK) e = advance(c, buf_str(&c->tail), false, &at);
        if (e != ERR_OK) return e;
        size_t left = c->tail.len - at;
        if (left <= take) { /* of what was fed before nothing is left: go on in place */
            buf_clear(&c->tail);
            take -= left;
        } else {
            buf_consume(&c->tail, at);
        }
        bytes = str_n(bytes.p + take, bytes.n - take);
    }
    return ERR_OK;
}

enum err token_counter_feed(struct token_counter *c, struct str bytes)
{
    if (c->stop == NULL) return feed(c, bytes);
    while (bytes.n > 0) {
        size_t n = MIN(bytes.n, (size_t)ASK - c->since_asked);
        enum err e = feed(c, str_n(bytes.p, n));
        if (e != ERR_OK) return e;
        bytes = str_n(bytes.p + n, bytes.n - n);
        c->since_asked += n;
        if (c->since_asked < ASK) break;
        c->since_asked = 0;
        if (stop_asked(c->stop)) return ERR_CLOSED;
    }
    return ERR_OK;
}

enum err token_count_until(const struct vocab *v, struct str text, enum special_mode mode,
                           const struct stop *stop, uint64_t *ret)
{
    struct token_counter c;
    if (stop == NULL || text.n <= ASK) return token_count(v, text, mode, ret);
    token_counter_init(&c, v, mode, NULL);
    c.stop = stop;
    enum err e = token_counter_feed(&c, text);
    if (e == ERR_OK) e = token_counter_finish(&c, ret);
    token_counter_done(&c);
    return e;
}

enum err token_counter_finish(struct token_counter *c, uint64_t *ret)
{
    size_t at;
    enum err e = advance(c, buf_str(&c->tail), true, &at);
    if (e != ERR_OK) return e;
    *ret = c->count;
    buf_clear(&c->tail);
    c->count = 0;
    c->skip = pieces_start(c->vocab);
    return ERR_OK;
}
