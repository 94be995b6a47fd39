/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An endless word, line, row of emoji or indentation: with every delta the tail would be looked at
 * and counted as a whole again. While it goes on as it did, its last piece grows, and the count is
 * that of a longer prefix. Only raw, open and `running` of a meter depend on each other here: when
 * in doubt a run ends, and the tail is counted anew. One owner thread.
 */
#include "base/utf8.h"
#include "tokenizer/merge/bpe.h"
#include "tokenizer/scan/clean.h"
#include "tokenizer/merge/joins.h"
#include "tokenizer/meter/meter_state.h"
#include "tokenizer/merge/piece_cache.h"
#include "tokenizer/scan/unicode.h"

enum {
    RUN_LEAST = 24,   /* bytes of a tail that may go on */
    RUN_ALIKE = 4,    /* characters at its end that are alike: 're ends a piece */
    RUN_BEHIND = 256, /* of white space behind the last newline */
    LONG_SIGNS = 16,  /* bytes of signs that a mark is one of, too */
    RUN_SPACES = 64,  /* so many of them are a run of their own */
};

#define REPLACEMENT STR("\xef\xbf\xbd")

/* What goes on; the piece that it is in takes every character of it, whatever stands before. */
enum kind {
    KIND_NONE,
    KIND_SAME, /* only the last character again */
    KIND_LETTERS,
    KIND_ASCII, /* letters of SCAN_DEEPSEEK behind a sign */
    KIND_CJK,   /* of SCAN_DEEPSEEK */
    KIND_CASED, /* of the shapes with words by case: U, W or both */
    KIND_NUMBERS,
    KIND_SIGNS,
    KIND_SPACES,   /* without newlines, where newlines end a piece */
    KIND_NEWLINES, /* behind signs, too */
    KIND_WHITE,    /* spaces and newlines: two pieces, cut behind the last newline */
};

static bool by_case(unsigned shape)
{
    return shape == SCAN_O200K || shape == SCAN_TEKKEN;
}

/* White space is one piece with all newlines in it. */
static bool newlines_alike(unsigned shape)
{
    return shape == SCAN_GPT2 || shape == SCAN_DIGITS;
}

static bool newline(uint32_t cp)
{
    return cp == '\n' || cp == '\r';
}

static bool is_cjk(uint32_t cp)
{
    return (cp >= 0x4e00 && cp <= 0x9fa5) || (cp >= 0x3040 && cp <= 0x30ff);
}

/* May a run of this kind whose last character is `last` go on with cp? */
static bool takes(unsigned shape, unsigned kind, uint32_t last, uint32_t cp)
{
    unsigned c = unicode_class(cp), other = UC_S | UC_L | UC_N;
    switch (kind) {
    case KIND_LETTERS:
        if (shape == SCAN_DEEPSEEK && (is_cjk(cp) || (c & UC_N) != 0)) return false;
        return (c & UC_L) != 0 || (shape == SCAN_DEEPSEEK && UC_IS_MARK(c));
    case KIND_ASCII: return cp < 0x80 && (c & UC_L) != 0;
    case KIND_CJK: return is_cjk(cp);
    case KIND_CASED:
        return (c & (UC_U | UC_W)) != 0 && ((c ^ unicode_class(last)) & (UC_U | UC_W)) == 0;
    case KIND_NUMBERS: return (c & UC_N) != 0;
    case KIND_SIGNS: return shape == SCAN_DEEPSEEK ? (c & UC_P) != 0 : (c & other) == 0;
    case KIND_SPACES: return (c & UC_S) != 0 && (newlines_alike(shape) || !newline(cp));
    case KIND_NEWLINES: return newline(cp);
    case KIND_WHITE: return cp < 0x80 && (c & UC_S) != 0;
    default: return cp == last;
    }
}

/* May an added token begin with it? */
static bool may_be_added(const struct token_meter *m, char c)
{
    unsigned char u = (unsigned char)c;
    return m->mode != SPECIAL_TEXT && (m->v->h->added_first[u / 64] >> u % 64 & 1) != 0;
}

static size_t last_char(const char *p, size_t n, uint32_t *ret)
{
    size_t at = n;
    while (at > 0 && n - at < 4 && ((unsigned char)p[--at] & 0xc0) == 0x80) continue;
    return n > 0 && utf8_decode(p + at, n - at, ret) == n - at ? n - at : 0;
}

/* How often, up to RUN_ALIKE, the last character stands at the end. */
static unsigned repeats(const char *p, size_t n, uint32_t cp)
{
    unsigned k = 0;
    uint32_t c;
    for (size_t len; k < RUN_ALIKE && (len = last_char(p, n, &c)) > 0 && c == cp; n -= len) k++;
    return k;
}

/* Is the piece one of signs alone, behind a space perhaps? */
static bool all_signs(unsigned shape, const char *p, size_t n)
{
    size_t at = *p == ' ' ? 1 : 0, number = at;
    for (uint32_t cp; at < n; number++) {
        at += utf8_next_valid(p + at, &cp);
        if (!takes(shape, KIND_SIGNS, 0, cp)) return false;
        /* a mark at the beginning or behind one other character makes a word */
        if (by_case(shape) && number < 2 && (unicode_class(cp) & (UC_U | UC_W)) != 0) return false;
    }
    return true;
}

static bool all_white(const char *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!takes(0, KIND_WHITE, 0, (unsigned char)p[i])) return false;
    return true;
}

static bool ascii_sign(char c)
{
    return (unsigned char)c < 0x80 && (unicode_class_ascii((unsigned char)c) & UC_P) != 0;
}

/* Which run the piece ends in; one_will_do: the last character tells it alone. */
static enum kind kind_of(unsigned shape, const char *p, size_t n, uint32_t last, bool one_will_do)
{
    static const enum kind kinds[] = { KIND_LETTERS, KIND_CJK, KIND_NUMBERS, KIND_SPACES,
                                       KIND_NEWLINES };
    const int enough = one_will_do ? 1 : RUN_ALIKE;
    if (n >= LONG_SIGNS && all_signs(shape, p, n)) return KIND_SIGNS;
    for (size_t k = 0; k <= ARRAY_LEN(kinds); k++) {
        enum kind kind = k < ARRAY_LEN(kinds) ? kinds[k] : KIND_SAME;
        if (kind == KIND_LETTERS && by_case(shape)) kind = KIND_CASED;
        if (kind == KIND_LETTERS && shape == SCAN_DEEPSEEK && ascii_sign(*p)) kind = KIND_ASCII;
        if (kind == KIND_CJK && shape != SCAN_DEEPSEEK) continue;
        if (kind == KIND_NUMBERS && shape != SCAN_GPT2) continue;
        if (kind == KIND_NEWLINES && newlines_alike(shape)) continue;
        size_t end = n;
        int alike = 0;
        uint32_t cp;
        for (size_t len; alike < enough && (len = last_char(p, end, &cp)) > 0; end -= len) {
            if (!takes(shape, kind, last, cp)) break;
            alike++;
        }
        if (alike == enough) return kind;
    }
    return KIND_NONE;
}

/* Letters that never end a contraction and have no case: behind one of them a piece goes on with
 * every other. */
static bool tells_alone(unsigned shape, uint32_t cp)
{
    unsigned c = unicode_class(cp);
    if (cp < 0x180 || (c & UC_L) == 0 || (c & UC_CARE) != 0) return false;
    if (shape == SCAN_DEEPSEEK) return is_cjk(cp);
    return !by_case(shape) || (c & (UC_U | UC_W)) == (UC_U | UC_W);
}

/* The pieces of the tail: the last one, which stays where it is until the next walk, and the tokens
 * of those before it. */
static bool last_piece(struct token_meter *m, struct str tail, struct str *ret,
                       uint64_t *ret_before)
{
    struct pieces it;
    struct piece piece;
    uint64_t n = 0;
    enum err e;
    struct piece_cache *cache = meter_cache(m);
    if (cache == NULL) return false;
    *ret = STR_NULL;
    *ret_before = 0;
    pieces_init(&it, m->v, m->mode, &cache->scratch, tail, true, m->open.skip);
    while ((e = pieces_next(&it, &piece)) == ERR_OK) {
        if (ret->n > 0) e = piece_count(cache, m->v, ret->p, ret->n, &n);
        if (e != ERR_OK) break;
        *ret_before += n;
        *ret = str_n(piece.p, piece.n);
    }
    return e == ERR_AGAIN && ret->n > 0;
}

/* ---- the text ---- */

static char *text_of(struct meter_run *r)
{
    return r->prefixes != NULL ? bpe_run_text(r->prefixes) : r->small;
}

void meter_run_ends(struct token_meter *m)
{
    m->running = false;
    piece_run_give(m->v, m->run.prefixes);
    m->run.prefixes = NULL;
}

static bool append(struct token_meter *m, const char *p, size_t n)
{
    struct meter_run *r = &m->run;
    if (r->n + n > PIECE_RUN_MOST) return false;
    if (r->prefixes == NULL && r->n + n > METER_SHORT) {
        struct bpe_run *run = piece_run_take(m->v);
        if (run == NULL) return false;
        memcpy(bpe_run_text(run), r->small, r->n);
        r->prefixes = run;
    }
    memcpy(text_of(r) + r->n, p, n);
    r->n += n;
    return true;
}

static enum err count_part(struct token_meter *m, const char *p, size_t n, bool chars,
                           uint64_t *sum)
{
    uint64_t count = m->v->h->joins > 0 ? joins_one(m->v, p, n) : 0;
    enum err e = ERR_OK;
    if (count == 0 && meter_cache(m) == NULL) return ERR_NOMEM;
    if (count == 0 && n > BPE_STACK)
        e = bpe_part(m->v, p, n, chars, NULL, &count);
    else if (count == 0)
        count = piece_count_part(m->cache, m->v, p, n, chars);
    *sum += count;
    return e;
}

static enum err count_piece(struct token_meter *m, const char *p, size_t n, uint64_t *sum)
{
    uint64_t count = 0;
    if (meter_cache(m) == NULL) return ERR_NOMEM;
    enum err e = piece_count(m->cache, m->v, p, n, &count);
    *sum += count;
    return e;
}

/* Of the text's first `to` bytes, of which n will stay as they are. */
static enum err count_text(struct token_meter *m, size_t n, size_t to, uint64_t *sum)
{
    struct meter_run *r = &m->run;
    const char *p = text_of(r);
    if (to == 0) return ERR_OK;
    if (r->prefixes == NULL && r->parted) return count_part(m, p, to, r->chars, sum);
    if (r->prefixes == NULL) return count_piece(m, p, to, sum);
    bool whole = !r->parted && vocab_whole(m->v, p, to) != VOCAB_NO_TOKEN;
    *sum += whole ? 1 : bpe_run_peek(r->prefixes, m->v, n, to);
    return ERR_OK;
}

/* What comes next does not merge with the text: it is counted for good. */
static bool close_part(struct token_meter *m, uint32_t next)
{
    struct meter_run *r = &m->run;
    r->parted = true;
    if (count_text(m, r->n, r->n, &r->before) != ERR_OK) return false;
    piece_run_give(m->v, r->prefixes);
    r->prefixes = NULL;
    r->n = 0;
    r->chars = next < 0x10000;
    return true;
}

/* Takes one character more. */
static bool take_char(struct token_meter *m, const char *p, size_t len, uint32_t cp)
{
    struct meter_run *r = &m->run;
    bool care = (m->v->h->normal & CLEAN_NFC) != 0 && cp >= 0x300 &&
                (unicode_class(cp) & UC_CARE) != 0;
    /* Normalization moves no mark over one like it, and does not join the two. */
    if (care && (cp != r->last || r->same < RUN_ALIKE)) return false;
    if (cp != r->last || r->kind == KIND_WHITE) {
        if (!takes(m->v->h->shape, r->kind, r->last, cp)) return false;
        r->same = cp == r->last ? r->same : 0;
    }
    if (m->v->h->joins > 0 && !joins_between(m->v, r->last, cp, p, &r->chars) && !close_part(m, cp))
        return false;
    if (!append(m, p, len)) return false;
    r->behind = newline(cp) ? 0 : r->behind + len;
    r->same = (unsigned char)MIN(r->same + 1, (int)RUN_ALIKE);
    r->last = cp;
    return r->kind != KIND_WHITE || r->behind <= RUN_BEHIND;
}

/* May the beginning of a character, which counts as U+FFFD until it is whole, stand behind it? */
static bool may_be_open(unsigned kind)
{
    return kind != KIND_SPACES && kind != KIND_SAME && kind != KIND_WHITE;
}

bool meter_run_goes_on(struct token_meter *m)
{
    struct meter_run *r = &m->run;
    const char *p = m->raw.data;
    while (r->whole < m->raw.len) {
        uint32_t cp;
        size_t n = m->raw.len - r->whole, len = utf8_decode(p + r->whole, n, &cp);
        if (may_be_added(m, p[r->whole])) return false;
        if (len > 0) {
            if (!take_char(m, p + r->whole, len, cp)) return false;
        } else {
            len = clean_cluster(p + r->whole, n, true, 0);
            if (len == 0) return may_be_open(r->kind);
            if (!take_char(m, REPLACEMENT.p, REPLACEMENT.n, 0xfffd)) return false;
        }
        r->whole += len;
    }
    return true;
}

/* ---- its beginning ---- */

/* The end of a tail without the beginning of a character. */
static size_t whole_chars(struct str tail)
{
    uint32_t cp;
    for (size_t i = 1; i <= 3 && i <= tail.n; i++) {
        unsigned char c = (unsigned char)tail.p[tail.n - i];
        if ((c & 0xc0) == 0x80) continue;
        return c >= 0xc0 && utf8_decode(tail.p + tail.n - i, i, &cp) == 0 ? tail.n - i : tail.n;
    }
    return tail.n;
}

/* White space with newlines that are not its end. */
static bool begin_white(struct token_meter *m, struct str tail, size_t last)
{
    struct meter_run *r = &m->run;
    size_t behind = 0;
    if (newlines_alike(m->v->h->shape) || m->open.skip != 0 || last >= RUN_SPACES ||
        !all_white(tail.p, tail.n))
        return false;
    while (behind < tail.n && !newline((unsigned char)tail.p[tail.n - behind - 1])) behind++;
    if (behind > RUN_BEHIND || behind == tail.n) return false;
    r->behind = behind;
    r->before = 0;
    r->kind = KIND_WHITE;
    return append(m, tail.p, tail.n);
}

static bool begin(struct token_meter *m, struct str tail)
{
    struct meter_run *r = &m->run;
    unsigned shape = m->v->h->shape;
    struct str piece;
    if (!last_piece(m, tail, &piece, &r->before)) return false;
    if (last_char(piece.p, piece.n, &r->last) == 0) return false;
    /* Is its end as it stands in the text? */
    r->same = (unsigned char)MIN(repeats(piece.p, piece.n, r->last),
                                 repeats(tail.p, tail.n, r->last));
    if (begin_white(m, tail, piece.n)) return true;
    r->kind = (unsigned char)kind_of(shape, piece.p, piece.n, r->last, tells_alone(shape, r->last));
    if (r->kind == KIND_NONE) return false;
    size_t part = piece.n;
    while (m->v->h->joins > 0 && (part = joins_part(m->v, piece.p, piece.n, &r->chars)) < piece.n) {
        if (count_part(m, piece.p, part, r->chars, &r->before) != ERR_OK) return false;
        r->parted = true;
        piece = str_n(piece.p + part, piece.n - part);
    }
    return append(m, piece.p, piece.n);
}

bool meter_run_begins(struct token_meter *m)
{
    const struct vocab_header *h = m->v->h;
    struct str tail = meter_raw(m, m->open.at, m->raw.len);
    uint32_t last;
    /* What may become a character is for meter_run_goes_on(). */
    tail.n = whole_chars(tail);
    if (tail.n < 3 || m->open.skip == PIECES_FRESH || h->linear == 0 || m->is_cut) return false;
    if ((h->shape > SCAN_GPT2 && h->shape != SCAN_DIGITS) || (h->normal & CLEAN_SPACE) != 0)
        return false;
    if (tail.n < RUN_LEAST &&
        (last_char(tail.p, tail.n, &last) == 0 || !tells_alone(h->shape, last)))
        return false;
    for (size_t i = 0; i < tail.n; i++)
        if (may_be_added(m, tail.p[i])) return false;
    m->run = (struct meter_run){ .began = tail.n, .whole = m->open.at + tail.n };
    if (begin(m, tail) && meter_run_goes_on(m)) return true;
    meter_run_ends(m);
    return false;
}

enum err meter_run_count(struct token_meter *m, uint64_t *ret)
{
    struct meter_run *r = &m->run;
    bool open = r->whole < m->raw.len, signs = r->kind == KIND_SIGNS;
    size_t n = r->n, behind = r->kind == KIND_WHITE ? r->behind : 0;
    uint64_t sum = r->before;
    enum err e;
    if (open && signs) { /* U+FFFD is a sign */
        if (!append(m, REPLACEMENT.p, REPLACEMENT.n)) return ERR_NOMEM;
        bool chars = r->chars;
        r->chars = false;
        e = count_text(m, n, n + REPLACEMENT.n, &sum);
        r->chars = chars;
        r->n = n;
    } else {
        e = count_text(m, n - behind, n - behind, &sum);
    }
    if (e == ERR_OK && behind > 0) e = count_piece(m, text_of(r) + n - behind, behind, &sum);
    if (e == ERR_OK && open && !signs) e = count_piece(m, REPLACEMENT.p, REPLACEMENT.n, &sum);
    if (e == ERR_OK) *ret = sum;
    return e;
}
