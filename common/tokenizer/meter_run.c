/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An endless word, line, row of emoji or indentation: with every delta the tail would be looked at
 * and counted as a whole again. While it goes on as it did, its last piece grows, and the count is
 * that of a longer prefix. Only raw, open and `running` of a meter depend on each other here: when
 * in doubt a run ends, and the tail is counted anew. One owner thread.
 */
#include "base/utf8.h"
#include "tokenizer/bpe.h"
#include "tokenizer/clean.h"
#include "tokenizer/meter_state.h"
#include "tokenizer/piece_cache.h"
#include "tokenizer/unicode.h"

enum {
    RUN_LEAST = 64,
    RUN_ALIKE = 4,    /* characters at its end that are alike: 're ends a piece */
    RUN_BEHIND = 256, /* of white space behind the last newline */
};

#define REPLACEMENT STR("\xef\xbf\xbd")

/* What goes on; the piece that it is in takes every character of it, whatever stands before. */
enum kind {
    KIND_NONE,
    KIND_SAME, /* only the last character again */
    KIND_LETTERS,
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
    case KIND_CJK: return is_cjk(cp);
    case KIND_CASED:
        return (c & (UC_U | UC_W)) != 0 && ((c ^ unicode_class(last)) & (UC_U | UC_W)) == 0;
    case KIND_NUMBERS: return (c & UC_N) != 0;
    case KIND_SIGNS: return shape == SCAN_DEEPSEEK ? (c & UC_P) != 0 : (c & other) == 0;
    case KIND_SPACES: return (c & UC_S) != 0 && (shape == SCAN_GPT2 || !newline(cp));
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

static enum kind kind_of(unsigned shape, const char *p, size_t n, uint32_t last)
{
    static const enum kind kinds[] = { KIND_LETTERS, KIND_CJK, KIND_NUMBERS, KIND_SPACES,
                                       KIND_NEWLINES };
    if (all_signs(shape, p, n)) return KIND_SIGNS;
    for (size_t k = 0; k <= ARRAY_LEN(kinds); k++) {
        enum kind kind = k < ARRAY_LEN(kinds) ? kinds[k] : KIND_SAME;
        if (kind == KIND_LETTERS && by_case(shape)) kind = KIND_CASED;
        if (kind == KIND_CJK && shape != SCAN_DEEPSEEK) continue;
        if (kind == KIND_NUMBERS && shape != SCAN_GPT2) continue;
        if (kind == KIND_NEWLINES && shape == SCAN_GPT2) continue;
        size_t end = n;
        int alike = 0;
        uint32_t cp;
        for (size_t len; alike < RUN_ALIKE && (len = last_char(p, end, &cp)) > 0; end -= len) {
            if (!takes(shape, kind, last, cp)) break;
            alike++;
        }
        if (alike == RUN_ALIKE) return kind;
    }
    return KIND_NONE;
}

/* The pieces of the tail: the tokens of all but the last, which goes to run.text. */
static bool take_last(struct token_meter *m, struct str tail)
{
    struct pieces it;
    struct piece piece;
    uint64_t sum = 0, n = 0;
    enum err e;
    struct piece_cache *cache = piece_cache_take(m->v);
    pieces_init(&it, m->v, m->mode, &m->scratch, tail, true, m->open.skip);
    while ((e = pieces_next(&it, &piece)) == ERR_OK) {
        if (piece.n >= RUN_LEAST) {
            buf_clear(&m->run.text);
            e = buf_append(&m->run.text, piece.p, piece.n);
        }
        if (e == ERR_OK) e = piece_count(cache, m->v, piece.p, piece.n, &n);
        if (e != ERR_OK) break;
        sum += n;
    }
    piece_cache_give(m->v, cache);
    m->run.before = sum - n;
    return e == ERR_AGAIN && n > 0 && piece.n >= RUN_LEAST;
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
    if (r->text.len + len > METER_TAIL || buf_append(&r->text, p, len) != ERR_OK) return false;
    r->behind = newline(cp) ? 0 : r->behind + len;
    r->same = MIN(r->same + 1, (unsigned)RUN_ALIKE);
    r->last = cp;
    return r->kind != KIND_WHITE || r->behind <= RUN_BEHIND;
}

/* Are the n bytes the beginning of a character, which counts as U+FFFD until it is whole? */
static bool partial(const struct token_meter *m, const char *p, size_t n)
{
    char c[4] = { 0 };
    uint32_t cp;
    size_t want = (unsigned char)*p >= 0xf0 ? 4 : (unsigned char)*p >= 0xe0 ? 3 : 2;
    if (n >= want || m->run.kind == KIND_SPACES || m->run.kind == KIND_SAME ||
        m->run.kind == KIND_WHITE)
        return false;
    memcpy(c, p, n);
    /* Whole with some continuation? The second byte alone has narrower limits. */
    for (size_t i = n; i < want; i++) c[i] = (char)(i == 1 && (*p & 0x0f) == 0 ? 0xbf : 0x80);
    return utf8_decode(c, want, &cp) == want;
}

bool meter_run_goes_on(struct token_meter *m)
{
    struct meter_run *r = &m->run;
    const char *p = m->raw.data;
    while (r->whole < m->raw.len) {
        uint32_t cp;
        size_t n = m->raw.len - r->whole, len = utf8_decode(p + r->whole, n, &cp);
        if (may_be_added(m, p[r->whole])) return false;
        if (len == 0) return partial(m, p + r->whole, n);
        if (!take_char(m, p + r->whole, len, cp)) return false;
        r->whole += len;
    }
    return true;
}

bool meter_run_begins(struct token_meter *m)
{
    const struct vocab_header *h = m->v->h;
    struct meter_run *r = &m->run;
    struct str tail = meter_raw(m, m->open.at, m->raw.len);
    uint32_t last;
    /* What may become a character is for meter_run_goes_on(). */
    for (size_t i = 1; i <= 3 && i <= tail.n; i++) {
        unsigned char c = (unsigned char)tail.p[tail.n - i];
        if ((c & 0xc0) == 0x80) continue;
        if (c >= 0xc0 && utf8_decode(tail.p + tail.n - i, i, &last) == 0) tail.n -= i;
        break;
    }
    if (tail.n < RUN_LEAST || m->open.skip == PIECES_FRESH || h->linear == 0 || m->is_cut)
        return false;
    if (h->shape > SCAN_GPT2 || (h->normal & CLEAN_SPACE) != 0) return false;
    if (last_char(tail.p, tail.n, &last) == 0) return false;
    for (size_t i = 0; i < tail.n; i++)
        if (may_be_added(m, tail.p[i])) return false;
    r->whole = m->open.at + tail.n;
    r->last = last;
    r->behind = 0;
    if (take_last(m, tail)) {
        const char *p = r->text.data;
        size_t n = r->text.len;
        r->kind = kind_of(h->shape, p, n, last);
        /* Is its end as it stands in the text? */
        r->same = repeats(p, n, last);
        if (memcmp(p + n - MIN(n, tail.n), tail.p + tail.n - MIN(n, tail.n), MIN(n, tail.n)) != 0)
            r->same = MIN(r->same, repeats(tail.p, tail.n, last));
    } else if (h->shape != SCAN_GPT2 && m->open.skip == 0 && all_white(tail.p, tail.n)) {
        buf_clear(&r->text);
        if (buf_append(&r->text, tail.p, tail.n) != ERR_OK) return false;
        r->kind = KIND_WHITE;
        r->before = 0;
        while (r->behind < tail.n && !newline((unsigned char)tail.p[tail.n - r->behind - 1]))
            r->behind++;
        if (r->behind > RUN_BEHIND || r->behind == tail.n) return false;
    } else {
        return false;
    }
    if (r->kind == KIND_NONE || r->text.len > METER_TAIL) return false;
    if (r->prefixes == NULL) { /* all at once */
        char *at;
        if (buf_reserve(&r->text, METER_TAIL + 4 - r->text.len, &at) != ERR_OK) return false;
        r->prefixes = bpe_run_new(METER_TAIL + 4);
    }
    if (r->prefixes != NULL) bpe_run_clear(r->prefixes);
    return r->prefixes != NULL && meter_run_goes_on(m);
}

static enum err count_piece(const struct token_meter *m, struct str piece, uint64_t *sum)
{
    uint64_t n = 0;
    enum err e = piece.n > 0 ? bpe_piece(m->v, piece.p, piece.n, NULL, &n) : ERR_OK;
    *sum += n;
    return e;
}

enum err meter_run_count(struct token_meter *m, uint64_t *ret)
{
    struct meter_run *r = &m->run;
    bool open = r->whole < m->raw.len, signs = r->kind == KIND_SIGNS;
    const char *p = r->text.data;
    size_t n = r->text.len, behind = r->kind == KIND_WHITE ? r->behind : 0;
    uint64_t sum = r->before;
    enum err e = ERR_OK;
    if (open && signs) { /* U+FFFD is a sign */
        e = buf_append(&r->text, REPLACEMENT.p, REPLACEMENT.n);
        if (e != ERR_OK) return e;
        p = r->text.data;
        sum += bpe_run_peek(r->prefixes, m->v, p, n, n + REPLACEMENT.n);
        r->text.len = n;
    } else if (vocab_whole(m->v, p, n - behind) != VOCAB_NO_TOKEN) {
        sum++;
    } else {
        sum += bpe_run_peek(r->prefixes, m->v, p, n - behind, n - behind);
    }
    if (behind > 0) e = count_piece(m, str_n(p + n - behind, behind), &sum);
    if (e == ERR_OK && open && !signs) e = count_piece(m, REPLACEMENT, &sum);
    if (e == ERR_OK) *ret = sum;
    return e;
}
