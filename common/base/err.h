/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Error codes, and a bounded message that travels beside one.
 *
 * A function that can fail returns `enum err` and is marked MUSTCHECK; outputs come last, are
 * called ret_x, and stay untouched on failure. Where a person has to read why, the function takes a
 * `struct why *` (may be NULL) and fills it.
 */
#ifndef BASE_ERR_H
#define BASE_ERR_H

#include <stdbool.h>
#include <stddef.h>

#define MUSTCHECK __attribute__((warn_unused_result))
#define PRINTF_LIKE(fmt, first) __attribute__((format(printf, fmt, first)))

enum err {
    ERR_OK = 0,
    ERR_NOMEM,       /* allocation failed */
    ERR_LIMIT,       /* a stated bound would be passed */
    ERR_INVALID,     /* malformed or out-of-range input */
    ERR_NOT_FOUND,   /* no such thing */
    ERR_EXISTS,      /* there is one already */
    ERR_CONFLICT,    /* a precondition (ETag, epoch, compare-and-set) failed */
    ERR_DENIED,      /* not permitted */
    ERR_TIMEOUT,     /* a deadline passed */
    ERR_UNAVAILABLE, /* a dependency is away */
    ERR_IO,          /* the operating system said no; errno may tell more */
    ERR_AGAIN,       /* would block, or more input is needed */
    ERR_CLOSED,      /* the other side is gone */
    ERR_UNSUPPORTED, /* well-formed, but not something we do */
    ERR_INTERNAL,    /* a bug of ours */
    ERR_MAX
};

/* A stable lower-case word for logs and messages, such as "not_found". */
const char *err_name(enum err e);

/* A human-readable reason, always NUL-terminated, cut at its size. */
struct why {
    char text[320];
};

/* Fills w (which may be NULL) and returns e, so that `return why_set(w, ERR_INVALID, "...")` reads
 * well. */
enum err why_set(struct why *w, enum err e, const char *fmt, ...) PRINTF_LIKE(3, 4);

/* Aborts with file and line: for bugs only, never for input. Active in every build. */
#define ASSERT(cond) ((cond) ? (void)0 : assert_failed(#cond, __FILE__, __LINE__))
void assert_failed(const char *cond, const char *file, int line) __attribute__((noreturn));

/* Allocation for start-up and small fixed objects: dies when memory is out. */
void *xmalloc(size_t n) __attribute__((malloc));
void *xcalloc(size_t n, size_t size) __attribute__((malloc));
void *xrealloc(void *p, size_t n);
char *xstrdup(const char *s) __attribute__((malloc));

#define ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))

#endif
