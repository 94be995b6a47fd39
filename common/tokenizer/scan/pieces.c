/* SPDX-License-Identifier: Apache-2.0 */
/* Walks a text piece by piece. One owner thread. */
#include "tokenizer/scan/pieces.h"

#include "tokenizer/added.h"
#include "tokenizer/merge/chars.h"
#include "tokenizer/scan/clean.h"
#include "tokenizer/scan/pieces_clean.h"

enum {
    BLOCK = 4096, /* raw bytes; more where a piece is longer */
    FIRST = 64,   /* of a stretch that gets a space in front: it is copied */
};

void pieces_scratch_init(struct pieces_scratch *s)
{
    buf_init(&s->clean, UINT32_MAX / 2);
    buf_init(&s->map, SIZE_MAX / 4);
    buf_init(&s->points, SIZE_MAX / 4);
}

void pieces_scratch_done(struct pieces_scratch *s)
{
    buf_done(&s->clean);
    buf_done(&s->map);
    buf_done(&s->points);
}

void pieces_init(struct pieces *it, const struct vocab *v, enum special_mode mode,
                 struct pieces_scratch *scratch, struct str raw, bool final, size_t skip)
{
    *it = (struct pieces){ .v = v,
                           .scratch = scratch,
                           .mode = mode,
                           .raw = raw.n > 0 ? raw.p : "",
                           .n = raw.n,
                           .final = final,
                           .skip = skip,
                           .want = skip == PIECES_FRESH ? FIRST : BLOCK };
}

/* ---- added tokens ---- */

/* Finds where the stretch that begins at it->at ends. */
static void find_stretch(struct pieces *it)
{
    it->stretch_known = true;
    it->stretch_end = it->n;
    it->stretch_closed = it->final;
    it->stretch_token = VOCAB_NO_TOKEN;
    if (it->mode == SPECIAL_TEXT || it->v->h->added == 0) return;
    struct added_match m = added_find(it->v, it->raw, it->at, it->n, it->final);
    it->stretch_end = m.at;
    if (m.n == 0) return;
    it->stretch_closed = true;
    it->stretch_token = m.id;
    it->stretch_token_n = m.n;
}

/* ---- blocks ---- */

/* Raw [at, at + n) as it stands, if it is clean; closed: the stretch ends there. */
static bool load_identity(struct pieces *it, size_t n, bool closed)
{
    unsigned how = it->v->h->normal;
    bool nfc = (how & CLEAN_NFC) != 0;
    const char *p = it->raw + it->at;
    size_t stretch = it->stretch_end - it->at;
    size_t clean = clean_prefix(p, n, how);
    if (clean < n && (n - clean >= 4 || n == stretch)) {
        /* A character cut in two at the end of the block is no fault, anything else is. */
        if (n - clean >= 4 || closed) return false;
        if (clean_cluster(p + clean, n - clean, true, how) != 0) return false;
    }
    n = clean;
    if (nfc && !closed && !(n > 0 && clean_settled(p[n - 1])) &&
        (n == stretch || !clean_boundary(p + n, stretch - n, how))) {
        while (n > 0 && ((unsigned char)p[n - 1] & 0xc0) == 0x80) n--;
        if (n > 0) n--; /* the last character is not settled */
    }
    if (n == 0 && !closed) return stretch == 0;
    it->clean = p;
    it->clean_n = n;
    it->block_end = it->at + n;
    it->identity = true;
    return true;
}

/* Does a stretch of n > 0 bytes at p get a space in front? (If it begins with half a U+2581 nothing
 * is done with it yet.) */
static bool lead_due(const struct vocab *v, const char *p, size_t n)
{
    bool space = *p == ' ' || (n >= 3 && memcmp(p, "\xe2\x96\x81", 3) == 0);
    return !space || (v->h->lead & VOCAB_LEAD_SPACES) != 0;
}

static enum err load_changed(struct pieces *it, size_t n, bool closed)
{
    struct pieces_scratch *s = it->scratch;
    unsigned how = it->v->h->normal;
    const char *p = it->raw + it->at;
    buf_clear(&s->clean);
    buf_clear(&s->map);
    if (it->skip == PIECES_FRESH && lead_due(it->v, p, n)) {
        enum err e = buf_append_char(&s->clean, ' ');
        if (e != ERR_OK) return e;
        it->lead = 1;
    }
    size_t i;
    enum err e = pieces_clean(s, p, n, how, closed, &i);
    if (e != ERR_OK) return e;
    it->clean = s->clean.data;
    it->clean_n = i > 0 ? s->clean.len : 0;
    it->block_end = it->at + i;
    it->identity = false;
    return ERR_OK;
}

static enum err load(struct pieces *it)
{
    size_t left = it->stretch_end - it->at, n = MIN(left, it->want);
    bool closed = n == left && it->stretch_closed;
    it->loaded = true;
    it->clean = it->raw + it->at;
    it->clean_n = 0;
    it->block_end = it->at;
    it->identity = true;
    it->lead = 0;
    bool fresh = it->skip == PIECES_FRESH;
    enum err e = ERR_OK;
    if (n > 0 && (fresh || !load_identity(it, n, closed))) e = load_changed(it, n, closed);
    it->pos = fresh ? 0 : it->skip;
    if (e == ERR_OK && it->clean_n < it->pos) {
        /* A cluster of which some was done is longer than what was looked at: none of it is here.
         */
        buf_clear(&it->scratch->map);
        it->identity = false;
        it->clean_n = it->pos;
        it->block_end = it->at;
    }
    return e;
}

void pieces_position(const struct pieces *it, size_t *ret_at, size_t *ret_skip)
{
    *ret_at = it->at;
    *ret_skip = it->skip;
    if (!it->loaded || (it->skip == PIECES_FRESH && it->pos == 0)) return;
    if (it->identity) {
        *ret_at = it->at + it->pos;
        *ret_skip = 0;
        return;
    }
    size_t raw, clean;
    pieces_clean_boundary(it->scratch, it->pos, it->lead, &raw, &clean);
    *ret_at = it->at + raw;
    *ret_skip = it->pos - clean;
}

size_t pieces_raw_offset(const struct pieces *it, size_t back)
{
    size_t pos = it->pos - back, raw, clean;
    if (it->identity) return it->at + pos;
    pieces_clean_boundary(it->scratch, pos, it->lead, &raw, &clean);
    return it->at + raw;
}

/* Moves the block up to where the walk stands. */
static void move_up(struct pieces *it)
{
    size_t at, skip;
    pieces_position(it, &at, &skip);
    it->at = at;
    it->skip = skip;
    it->loaded = false;
}

uint64_t pieces_window(struct pieces *it, const char **ret_p)
{
    size_t left = it->clean_n - it->pos;
    if (!it->loaded || left < 2) return 0;
    const char *p = it->clean + it->pos;
    if ((((unsigned char)p[0] | (unsigned char)p[1]) & 0x80) != 0) return 0;
    if (left < PIECES_ROOM) {
        memcpy(it->room, p, left);
        memset(it->room + left, 0xff, PIECES_ROOM - left);
        p = it->room;
    }
    *ret_p = p;
    return it->v->window(p);
}

enum err pieces_load(struct pieces *it)
{
    if (!it->stretch_known) find_stretch(it);
    return it->loaded ? ERR_OK : load(it);
}

enum err pieces_next(struct pieces *it, struct piece *ret)
{
    for (;;) {
        enum err e = pieces_load(it);
        if (e != ERR_OK) return e;
        bool all = it->block_end == it->stretch_end;
        size_t left = it->clean_n - it->pos;
        if (left > 0) {
            bool more = !all || !it->stretch_closed;
            const char *p = it->clean + it->pos;
            enum scan_shape shape = (enum scan_shape)it->v->h->shape;
            size_t n = shape == SCAN_CHARS   ? chars_piece(it->v, p, left, more)
                       : shape == SCAN_REGEX ? scan_regex_piece(it->v->regex, p, left, more)
                                             : scan_piece(shape, p, left, more);
            if (n > 0) {
                *ret = (struct piece){ it->clean + it->pos, n, VOCAB_NO_TOKEN };
                it->pos += n;
                return ERR_OK;
            }
        }
        /* The block holds no more whole pieces: a longer one, or one that begins here, may. */
        bool progress = it->pos > (it->skip == PIECES_FRESH ? 0 : it->skip);
        bool seen = it->stretch_end - it->at <= it->want; /* all there is was looked at */
        if (!(all && left == 0) && !seen) {
            move_up(it);
            it->want = progress ? BLOCK : it->want * 4; /* it is scanned anew */
            continue;
        }
        if (!it->stretch_closed || !(all && left == 0)) return ERR_AGAIN;
        if (it->stretch_token == VOCAB_NO_TOKEN) return ERR_AGAIN; /* the end */
        *ret = (struct piece){ it->raw + it->stretch_end, it->stretch_token_n, it->stretch_token };
        it->at = it->stretch_end + it->stretch_token_n;
        it->skip = (it->v->h->lead & VOCAB_LEAD_EACH) != 0 ? PIECES_FRESH : 0;
        it->pos = 0;
        it->loaded = false;
        it->stretch_known = false;
        it->want = it->skip == PIECES_FRESH ? FIRST : BLOCK;
        return ERR_OK;
    }
}
