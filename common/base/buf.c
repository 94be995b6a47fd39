/* SPDX-License-Identifier: Apache-2.0 */
#include "base/buf.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/skip.h"
#include "base/utf8.h"

void buf_init(struct buf *b, size_t max)
{
    *b = (struct buf){ .max = max };
}

void buf_done(struct buf *b)
{
    free(b->data);
    *b = (struct buf){ .max = b->max };
}

void buf_clear(struct buf *b)
{
    b->len = 0;
}

enum err buf_reserve(struct buf *b, size_t n, char **ret)
{
    if (n > b->max - b->len) return ERR_LIMIT;
    /* One byte more than asked, so that buf_z() finds room; the maximum counts content only. */
    size_t need = b->len + n + 1;
    if (need > b->cap) {
        size_t cap = b->cap < 64 ? 64 : b->cap;
        while (cap < need) cap = cap > SIZE_MAX / 2 ? need : cap * 2;
        if (cap > b->max + 1 && need <= b->max + 1) cap = b->max + 1;
        char *p = realloc(b->data, cap);
        if (p == NULL) return ERR_NOMEM;
        b->data = p;
        b->cap = cap;
    }
    *ret = b->data + b->len;
    return ERR_OK;
}

enum err buf_append_growing(struct buf *b, const void *data, size_t n)
{
    char *at;
    enum err e = buf_reserve(b, n, &at);
    if (e != ERR_OK) return e;
    memcpy(at, data, n);
    b->len += n;
    return ERR_OK;
}

/* Most parts are short: not worth a call. */
static inline void copy_part(char *to, const char *from, size_t n)
{
    if (n > 16 || n == 0) {
        if (n > 0) memcpy(to, from, n);
    } else if (n >= 8) {
        memcpy(to, from, 8);
        memcpy(to + n - 8, from + n - 8, 8);
    } else if (n >= 4) {
        memcpy(to, from, 4);
        memcpy(to + n - 4, from + n - 4, 4);
    } else {
        to[0] = from[0];
        to[n / 2] = from[n / 2];
        to[n - 1] = from[n - 1];
    }
}

enum err buf_append_all(struct buf *b, const struct str *parts, size_t n)
{
    size_t total = 0;
    char *at;
    for (size_t i = 0; i < n; i++) total += parts[i].n;
    enum err e = buf_reserve(b, total, &at);
    if (e != ERR_OK) return e;
    for (size_t i = 0; i < n; i++) {
        copy_part(at, parts[i].p, parts[i].n);
        at += parts[i].n;
    }
    b->len += total;
    return ERR_OK;
}

enum err buf_vprintf(struct buf *b, const char *fmt, va_list ap)
{
    va_list again;
    va_copy(again, ap);
    /* Most texts fit into the room that is there: once is enough then. */
    char *at = b->data != NULL ? b->data + b->len : NULL;
    size_t room = b->data != NULL ? b->cap - b->len : 0;
    int n = vsnprintf(at, room, fmt, ap);
    enum err e = n < 0 ? ERR_INVALID : buf_reserve(b, (size_t)n, &at);
    if (e == ERR_OK) {
        if ((size_t)n >= room) (void)vsnprintf(at, (size_t)n + 1, fmt, again);
        b->len += (size_t)n;
    }
    va_end(again);
    return e;
}

enum err buf_printf(struct buf *b, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    enum err e = buf_vprintf(b, fmt, ap);
    va_end(ap);
    return e;
}

/* The escape for a byte that JSON does not take as it is, or NULL. */
static const char *json_escape(unsigned char c, char tmp[8])
{
    switch (c) {
    case '"': return "\\\"";
    case '\\': return "\\\\";
    case '\n': return "\\n";
    case '\r': return "\\r";
    case '\t': return "\\t";
    case '\b': return "\\b";
    case '\f': return "\\f";
    default: break;
    }
    if (c >= 0x20 && c != 0x7f) return NULL;
    (void)snprintf(tmp, 8, "\\u%04x", c);
    return tmp;
}

enum err buf_append_json(struct buf *b, struct str s)
{
    size_t start = b->len, i = 0, plain = 0;
    enum err e = buf_append_char(b, '"');
    while (e == ERR_OK) {
        char tmp[8];
        i = (size_t)(skip_json_ascii(s.p + i, s.p + s.n) - s.p);
        if (i == s.n) break;
        const char *esc = NULL;
        size_t step = 1;
        unsigned char c = (unsigned char)s.p[i];
        if (c < 0x80) {
            esc = json_escape(c, tmp);
        } else {
            uint32_t cp;
            step = utf8_decode(s.p + i, s.n - i, &cp);
            if (step == 0) esc = "\xef\xbf\xbd", step = 1;
        }
        if (esc != NULL) {
            e = buf_append(b, s.p + plain, i - plain);
            if (e == ERR_OK) e = buf_appendz(b, esc);
            plain = i + step;
        }
        i += step;
    }
    if (e == ERR_OK && plain < s.n) e = buf_append(b, s.p + plain, s.n - plain);
    if (e == ERR_OK) e = buf_append_char(b, '"');
    if (e != ERR_OK) b->len = start;
    return e;
}

void buf_shrink(struct buf *b, size_t n)
{
    n = MAX(n, b->len);
    if (b->cap <= n) return;
    if (n == 0) {
        free(b->data);
        b->data = NULL;
        b->cap = 0;
        return;
    }
    char *data = realloc(b->data, n);
    if (data == NULL) return;
    b->data = data;
    b->cap = n;
}

void buf_consume(struct buf *b, size_t n)
{
    ASSERT(n <= b->len);
    b->len -= n;
    if (b->len > 0 && n > 0) memmove(b->data, b->data + n, b->len);
}

const char *buf_z(struct buf *b)
{
    char *at;
    if (buf_reserve(b, 0, &at) != ERR_OK) return "";
    *at = '\0';
    return b->data;
}
