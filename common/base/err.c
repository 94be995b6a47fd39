/* SPDX-License-Identifier: Apache-2.0 */
#include "base/err.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *err_name(enum err e)
{
    static const char *const names[ERR_MAX] = {
        "ok",     "no_memory", "limit",  "invalid",     "not_found",
        "exists", "conflict",  "denied", "timeout",     "unavailable",
        "io",     "again",     "closed", "unsupported", "internal",
    };
    return (unsigned)e < ERR_MAX ? names[e] : "unknown";
}

enum err why_set(struct why *w, enum err e, const char *fmt, ...)
{
    if (w != NULL) {
        va_list ap;
        va_start(ap, fmt);
        (void)vsnprintf(w->text, sizeof w->text, fmt, ap);
        va_end(ap);
    }
    return e;
}

void assert_failed(const char *cond, const char *file, int line)
{
    fprintf(stderr, "assertion failed: %s at %s:%d\n", cond, file, line);
    abort();
}

static void *checked(void *p)
{
    if (p == NULL) {
        fputs("out of memory\n", stderr);
        abort();
    }
    return p;
}

void *xmalloc(size_t n)
{
    return checked(malloc(n > 0 ? n : 1));
}

void *xcalloc(size_t n, size_t size)
{
    return checked(calloc(n > 0 ? n : 1, size > 0 ? size : 1));
}

void *xrealloc(void *p, size_t n)
{
    return checked(realloc(p, n > 0 ? n : 1));
}

char *xstrdup(const char *s)
{
    size_t n = strlen(s) + 1;
    return memcpy(xmalloc(n), s, n);
}
