/* SPDX-License-Identifier: Apache-2.0 */
/* Finds added tokens. Pure. */
#include "tokenizer/added.h"

#include <string.h>

#include "base/skip.h"
#include "base/utf8.h"
#include "tokenizer/scan/clean.h"
#include "tokenizer/scan/unicode.h"

/*
 * The longest added token at p. NULL if there is none; sets *ret_open when p[0..n) is the beginning
 * of one that would be longer.
 */
static const struct vocab_added *added_at(const struct vocab *v, const char *p, size_t n,
                                          bool *ret_open)
{
    /* Narrow the sorted list down to those that begin with p[0..k), for growing k. */
    const struct vocab_added *a = v->added, *best = NULL;
    uint32_t lo = 0, hi = v->h->added;
    *ret_open = false;
    for (size_t k = 0;; k++) {
        if (lo < hi && a[lo].n == k) {
            if (k > 0) best = &a[lo];
            lo++;
        }
        if (lo == hi) return best;
        if (hi - lo == 1) { /* it, or none that is longer than best */
            size_t there = MIN(n, (size_t)a[lo].n);
            if (memcmp(p + k, v->strings + a[lo].at + k, there - k) != 0) return best;
            *ret_open = there < a[lo].n;
            return *ret_open ? best : &a[lo];
        }
        if (k == n) return *ret_open = true, best;
        unsigned char c = (unsigned char)p[k];
        if ((unsigned char)v->strings[a[lo].at + k] == c &&
            (unsigned char)v->strings[a[hi - 1].at + k] == c)
            continue; /* all of them go on with it */
        uint32_t l = lo, h = hi;
        while (l < h) {
            uint32_t mid = l + (h - l) / 2;
            if ((unsigned char)v->strings[a[mid].at + k] < c)
                l = mid + 1;
            else
                h = mid;
        }
        lo = l;
        h = hi;
        while (l < h) {
            uint32_t mid = l + (h - l) / 2;
            if ((unsigned char)v->strings[a[mid].at + k] <= c)
                l = mid + 1;
            else
                h = mid;
        }
        hi = l;
    }
}

/* The length of the white space at p, or 0. */
static size_t space_at(const char *p, size_t n)
{
    uint32_t cp;
    size_t len = n > 0 ? utf8_decode(p, n, &cp) : 0;
    return len > 0 && (unicode_class(cp) & UC_S) != 0 ? len : 0;
}

static size_t spaces_behind(const char *raw, size_t at, size_t n)
{
    size_t len;
    while ((len = space_at(raw + at, n - at)) > 0) at += len;
    return at;
}

/* Where the white space begins that ends at `at`. */
static size_t spaces_before(const char *raw, size_t from, size_t at)
{
    for (;;) {
        size_t i = at;
        while (i > from && at - i < 3 && ((unsigned char)raw[i - 1] & 0xc0) == 0x80) i--;
        if (i == from || space_at(raw + i - 1, at - (i - 1)) != at - (i - 1)) return at;
        at = i - 1;
    }
}

/* A token that matches in normalised text: would the last character be another there, with the
 * marks that follow? -1: not known yet. */
static int is_composed(const char *p, size_t n, bool final)
{
    if (clean_settled(*p)) return 0;
    size_t len = clean_cluster(p, n, !final, CLEAN_NFC);
    if (len == 0) return -1;
    struct buf points, out;
    buf_init(&points, SIZE_MAX / 4);
    buf_init(&out, SIZE_MAX / 4);
    bool same = clean_append(p, len, CLEAN_NFC, &points, &out) != ERR_OK || out.data[0] == *p;
    buf_done(&points);
    buf_done(&out);
    return same ? 0 : 1;
}

static struct added_match none(const struct vocab *v, const char *raw, size_t from, size_t at,
                               bool final)
{
    if (!final && (v->h->added_flags & ADDED_LSTRIP) != 0) at = spaces_before(raw, from, at);
    return (struct added_match){ .at = at };
}

/* The bytes that added tokens begin with, when they are few, as in most vocabularies: texts have
 * hardly any of them, and are passed over without looking at each byte. */
struct firsts {
    const uint64_t *bits;
    bool few, one;
    unsigned char any[4];
};

static void firsts_init(struct firsts *f, const struct vocab *v)
{
    size_t n = 0;
    f->bits = v->h->added_first;
    for (unsigned i = 0; i < 4; i++) {
        for (uint64_t w = f->bits[i]; w != 0 && n <= sizeof f->any; w &= w - 1, n++)
            if (n < sizeof f->any)
                f->any[n] = (unsigned char)(64 * i + (unsigned)__builtin_ctzll(w));
    }
    f->few = n > 0 && n <= sizeof f->any;
    f->one = n == 1;
    for (; f->few && n < sizeof f->any; n++) f->any[n] = f->any[0];
}

/* Where one of them stands, from i on; n: nowhere. */
static size_t firsts_next(const struct firsts *f, const char *raw, size_t i, size_t n)
{
    if (f->one) {
        const char *p = i < n ? memchr(raw + i, f->any[0], n - i) : NULL;
        return p != NULL ? (size_t)(p - raw) : n;
    }
    if (f->few) return (size_t)(skip_to_any(raw + i, raw + n, f->any) - raw);
    for (; i < n; i++) {
        unsigned char c = (unsigned char)raw[i];
        if ((f->bits[c / 64] >> c % 64 & 1) != 0) break;
    }
    return i;
}

struct added_match added_find(const struct vocab *v, const char *raw, size_t from, size_t n,
                              bool final)
{
    struct firsts firsts;
    firsts_init(&firsts, v);
    for (size_t i = from; (i = firsts_next(&firsts, raw, i, n)) < n; i++) {
        bool open;
        const struct vocab_added *a = added_at(v, raw + i, n - i, &open);
        if (open && !final) return none(v, raw, from, i, final); /* it may yet become one */
        if (a == NULL) continue;
        struct added_match m = { i, a->n, a->id };
        if ((a->flags & ADDED_NORMALIZED) != 0 && (v->h->normal & CLEAN_NFC) != 0) {
            int composed = is_composed(raw + i + a->n - 1, n - i - a->n + 1, final);
            if (composed < 0) return none(v, raw, from, i, final);
            if (composed > 0) continue;
        }
        if ((a->flags & ADDED_LSTRIP) != 0) m.at = spaces_before(raw, from, i);
        size_t end = i + a->n;
        if ((a->flags & ADDED_RSTRIP) != 0) {
            end = spaces_behind(raw, end, n);
            /* more of them may follow, or the rest of one */
            if (!final && n - end < 3) return none(v, raw, from, i, final);
        }
        m.n = end - m.at;
        return m;
    }
    return none(v, raw, from, n, final);
}
