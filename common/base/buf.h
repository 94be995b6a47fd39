/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Growable bytes with a maximum given at birth. Appending past it fails with ERR_LIMIT, running out
 * of memory with ERR_NOMEM; both must be checked, and neither changes what the buffer held. Not
 * thread-safe: one owner.
 *
 *      0            len             cap       max
 *      |   content   |  room, owned  |  may grow to
 */
#ifndef BASE_BUF_H
#define BASE_BUF_H

#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include "base/err.h"
#include "base/str.h"

struct buf {
    char *data; /* NULL until first use; NUL-terminated at len only after buf_z() */
    size_t len, cap, max;
};

void buf_init(struct buf *b, size_t max);
void buf_done(struct buf *b);  /* frees; the buffer can be initialised again */
void buf_clear(struct buf *b); /* forgets the content, keeps the memory */

static inline enum err buf_append(struct buf *b, const void *data, size_t n) MUSTCHECK;
static inline enum err buf_append_str(struct buf *b, struct str s) MUSTCHECK;
static inline enum err buf_appendz(struct buf *b, const char *z) MUSTCHECK;
static inline enum err buf_append_char(struct buf *b, char c) MUSTCHECK;
/* All of them, one behind the other, or nothing: buf_put(b, STR("x-id: "), id, STR("\r\n")). */
enum err buf_append_all(struct buf *b, const struct str *parts, size_t n) MUSTCHECK;
#define buf_put(b, ...)                                    \
    buf_append_all(b, (const struct str[]){ __VA_ARGS__ }, \
                   sizeof((const struct str[]){ __VA_ARGS__ }) / sizeof(struct str))
enum err buf_printf(struct buf *b, const char *fmt, ...) PRINTF_LIKE(2, 3) MUSTCHECK;
enum err buf_vprintf(struct buf *b, const char *fmt, va_list ap) PRINTF_LIKE(2, 0) MUSTCHECK;
/* Appends s as a JSON string literal with its quotes; bytes that are not UTF-8 become U+FFFD. */
enum err buf_append_json(struct buf *b, struct str s) MUSTCHECK;

/* Makes room for n more bytes and points *ret at it; the caller writes there and then adds to
 * b->len. */
enum err buf_reserve(struct buf *b, size_t n, char **ret) MUSTCHECK;
/* Removes n bytes at the front. */
void buf_consume(struct buf *b, size_t n);
/* Gives back memory beyond n bytes and what is in it. */
void buf_shrink(struct buf *b, size_t n);
/* The content with a NUL behind it (not part of len); "" when it could not get the byte for it. */
const char *buf_z(struct buf *b);

/* Most appends find room: that is decided where they are made. */
enum err buf_append_growing(struct buf *b, const void *data, size_t n) MUSTCHECK;
static inline enum err buf_append(struct buf *b, const void *data, size_t n)
{
    if (n >= b->cap - b->len) return n > 0 ? buf_append_growing(b, data, n) : ERR_OK;
    if (n > 0) memcpy(b->data + b->len, data, n);
    b->len += n;
    return ERR_OK;
}
static inline enum err buf_append_str(struct buf *b, struct str s)
{
    return buf_append(b, s.p, s.n);
}
static inline enum err buf_appendz(struct buf *b, const char *z)
{
    return buf_append(b, z, strlen(z));
}
static inline enum err buf_append_char(struct buf *b, char c)
{
    return buf_append(b, &c, 1);
}

static inline struct str buf_str(const struct buf *b)
{
    return (struct str){ b->data, b->len };
}
static inline size_t buf_room(const struct buf *b)
{
    return b->max - b->len;
}

#endif
