/* SPDX-License-Identifier: Apache-2.0 */
/* Cleans blocks. One owner thread. */
#include "tokenizer/scan/pieces_clean.h"

#include "base/utf8.h"
#include "tokenizer/scan/clean.h"
#include "tokenizer/scan/unicode.h"

enum {
    BLOCK = 4096, /* bytes that room is made for at once */
    SOME = 32,    /* faulty bytes that are cleaned together */
    NEAR = 64,    /* bytes behind a mark: more of them may come, they are looked at one by one */
};

/*
 * Clusters that begin within 64 bytes from `raw` on, or one that may have become something else. A
 * last one, without any, says where all end.
 */
struct pieces_mark {
    uint32_t raw, clean;
    struct clean_bits bits;
};

#define REPLACEMENT "\xef\xbf\xbd"

/* A byte that is no text, whatever follows it. */
static inline bool never_text(unsigned char c)
{
    return (c >= 0x80 && c < 0xc2) || c > 0xf4;
}

/* SOME bytes at p, and the one behind them? */
static inline bool all_never_text(const char *p)
{
    for (int i = 0; i <= SOME; i++)
        if (!never_text((unsigned char)p[i])) return false;
    return true;
}

/* What the character at p is, of which n > 0 bytes are there. */
enum plain {
    PLAIN_NOT,   /* to be looked at more closely */
    PLAIN_FAULT, /* faulty bytes: become one U+FFFD */
    PLAIN_TEXT,  /* stays as it is, and begins a cluster */
    PLAIN_MARK,  /* text that may change or be part of the cluster before it */
};

struct plain_at {
    enum plain is;
    size_t len;
    uint32_t cp;
};

/* What is no whole character. */
static __attribute__((noinline)) struct plain_at broken_at(const char *p, size_t n)
{
    struct plain_at x = { .is = PLAIN_FAULT };
    bool open;
    x.len = clean_point(p, n, &x.cp, &open);
    if (open) x.is = PLAIN_NOT;
    return x;
}

static inline __attribute__((always_inline)) struct plain_at plain_at(const char *p, size_t n,
                                                                      unsigned how)
{
    unsigned char c = (unsigned char)*p;
    struct plain_at x = { .is = PLAIN_TEXT, .len = 1, .cp = c };
    if (c < 0x80) return x;
    x.is = PLAIN_FAULT;
    if (never_text(c) || (n > 1 && ((unsigned char)p[1] & 0xc0) != 0x80)) return x;
    x.len = utf8_decode(p, n, &x.cp);
    if (x.len == 0) return broken_at(p, n);
    bool space = x.cp == 0x2581 && (how & CLEAN_SPACE) != 0;
    bool care = (how & CLEAN_NFC) != 0 && (unicode_class(x.cp) & UC_CARE) != 0;
    x.is = space ? PLAIN_NOT : care ? PLAIN_MARK : PLAIN_TEXT;
    return x;
}

/* Where cleaning stands in p[0..n). */
struct work {
    const char *p;
    size_t n, at;
    unsigned how;
    char *out; /* behind `len` clean bytes */
    size_t len;
    struct pieces_mark *m; /* what is noted last */
};

static inline void begin_mark(struct work *w)
{
    if (w->m->bits.begins != 0) w->m++;
    *w->m = (struct pieces_mark){ (uint32_t)w->at, (uint32_t)w->len, { 0, 0 } };
}

/* `count` clusters of one byte or one of any begin here, and become what a fault or text does. */
static inline void note(struct work *w, unsigned count, enum plain is)
{
    size_t at = w->at - w->m->raw;
    if (at + count > 64) {
        begin_mark(w);
        at = 0;
    }
    uint64_t bits = (((uint64_t)1 << count) - 1) << at;
    w->m->bits.begins |= bits;
    if (is == PLAIN_FAULT) w->m->bits.faults |= bits;
}

/* As far as many bytes can be cleaned together. */
static void by_windows(struct work *w)
{
    size_t some = SOME, clean_n;
    while (some >= SOME && w->n - w->at >= CLEAN_WINDOW) {
        begin_mark(w);
        some = clean_window(w->p + w->at, w->how, w->out, &clean_n, &w->m->bits);
        if (some == 0) break;
        w->at += some;
        w->out += clean_n;
        w->len += clean_n;
    }
}

/* Up to `end` or a little further; false when something else is to be done before. */
static bool one_by_one(struct work *w, size_t end)
{
    const char *p = w->p;
    const unsigned how = w->how;
    const size_t n = w->n;
    struct plain_at x = plain_at(p + w->at, n - w->at, how);
    while (w->at < end && (x.is == PLAIN_FAULT || x.is == PLAIN_TEXT)) {
        while (x.is == PLAIN_FAULT && n - w->at > SOME && all_never_text(p + w->at)) {
            for (uint32_t k = 0; k < SOME; k++) memcpy(w->out + 3 * k, REPLACEMENT, 3);
            note(w, SOME, PLAIN_FAULT);
            w->at += SOME;
            w->out += 3 * SOME;
            w->len += 3 * SOME;
        }
        size_t next_at = w->at + x.len;
        if (next_at >= n) return false;
        struct plain_at next = plain_at(p + next_at, n - next_at, how);
        if (next.is == PLAIN_MARK && x.is == PLAIN_TEXT && clean_stays(x.cp, next.cp)) {
            next_at += next.len;
            if (next_at >= n) return false;
            next = plain_at(p + next_at, n - next_at, how);
        }
        if ((how & CLEAN_NFC) != 0 && next.is != PLAIN_FAULT && next.is != PLAIN_TEXT) return false;
        size_t len = x.is == PLAIN_FAULT ? 3 : next_at - w->at;
        memcpy(w->out, x.is == PLAIN_FAULT ? REPLACEMENT : p + w->at, len);
        note(w, 1, x.is);
        w->out += len;
        w->len += len;
        w->at = next_at;
        x = next;
    }
    return w->at >= end;
}

/* Cleans some of what needs no closer look from raw p + *i on, as long as that is clusters of one
 * character, or of one and a mark that nothing is done with; what is last is left. */
static enum err clean_some(struct pieces_scratch *s, const char *p, size_t n, unsigned how,
                           bool slowly, size_t *i)
{
    char *out, *marks;
    size_t at = *i;
    n = MIN(n, at + BLOCK);
    if (at + 1 >= n) return ERR_OK;
    /* of windows that are short the next one is NEAR away, and others have SOME bytes */
    size_t most = 3 * (n - at) / SOME + 4;
    enum err e = buf_reserve(&s->clean, 3 * (n - at) + CLEAN_ROOM, &out);
    if (e == ERR_OK) e = buf_reserve(&s->map, most * sizeof(struct pieces_mark), &marks);
    if (e != ERR_OK) return e;
    struct pieces_mark *first = (struct pieces_mark *)(void *)marks;
    struct work w = { p, n, at, how, out, s->clean.len, first };
    *first = (struct pieces_mark){ (uint32_t)at, (uint32_t)w.len, { 0, 0 } };
    do {
        if (!slowly) by_windows(&w);
        slowly = false;
    } while (one_by_one(&w, w.at + NEAR));
    size_t count = (size_t)(w.m - first) + (w.m->bits.begins != 0 ? 1 : 0);
    s->clean.len = w.len;
    s->map.len += count * sizeof *first;
    *i = w.at;
    return ERR_OK;
}

enum err pieces_clean(struct pieces_scratch *s, const char *p, size_t n, unsigned how, bool closed,
                      size_t *ret)
{
    struct pieces_mark mark = { .bits = { .begins = 1 } };
    size_t i = 0;
    while (i < n) {
        enum err e = clean_some(s, p, n, how, i > 0, &i);
        if (e != ERR_OK) return e;
        size_t len = clean_cluster(p + i, n - i, !closed, how);
        if (len == 0) break;
        mark.raw = (uint32_t)i;
        mark.clean = (uint32_t)s->clean.len;
        e = buf_append(&s->map, &mark, sizeof mark);
        if (e == ERR_OK) e = clean_append(p + i, len, how, &s->points, &s->clean);
        if (e != ERR_OK) return e;
        i += len;
    }
    mark = (struct pieces_mark){ (uint32_t)i, (uint32_t)s->clean.len, { 0, 0 } };
    enum err e = buf_append(&s->map, &mark, sizeof mark);
    if (e == ERR_OK) *ret = i;
    return e;
}

void pieces_clean_boundary(const struct pieces_scratch *s, size_t pos, size_t lead, size_t *ret_raw,
                           size_t *ret_clean)
{
    const struct pieces_mark *m = (const struct pieces_mark *)(const void *)s->map.data;
    size_t lo = 0, hi = s->map.len / sizeof *m;
    *ret_raw = 0;
    *ret_clean = lead;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (m[mid].clean <= pos)
            lo = mid + 1;
        else
            hi = mid;
    }
    if (lo == 0) return;
    m += lo - 1;
    size_t raw = m->raw, clean = m->clean;
    /* to the last one: what is behind that is the next mark's */
    for (uint64_t rest = m->bits.begins, last; (rest & (rest - 1)) != 0; rest &= rest - 1) {
        size_t at = (size_t)__builtin_ctzll(rest);
        size_t next = (size_t)__builtin_ctzll(rest & (rest - 1));
        last = clean + ((m->bits.faults >> at & 1) != 0 ? 3 : next - at);
        if (last > pos) break;
        clean = last;
        raw = m->raw + next;
    }
    *ret_raw = raw;
    *ret_clean = clean;
}
