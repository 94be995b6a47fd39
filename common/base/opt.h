/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Settings: environment variables, each defined once in a table with default, unit, bounds and a
 * sentence. The table fills a struct, prints the help, checks bounds, and is the source of the
 * generated reference. NAME_FILE=path gives the content of a file instead of NAME=value, for
 * secrets.
 */
#ifndef BASE_OPT_H
#define BASE_OPT_H

#include <stdint.h>

#include "base/buf.h"

enum opt_type {
    OPT_STR,     /* const char *; unset it is "" */
    OPT_SECRET,  /* the same, never printed */
    OPT_URL,     /* the same, printed without its credentials: one URL or several, by commas */
    OPT_ADDRESS, /* the same: an IPv4 or IPv6 address in numbers, or "" */
    OPT_INT,     /* int64_t */
    OPT_BOOL,    /* bool */
    OPT_LEVEL,   /* int64_t, an enum log_level */
};

struct opt {
    const char *name; /* of the environment variable */
    enum opt_type type;
    size_t offset;    /* in the settings struct */
    const char *def;  /* as text; NULL: unset ("", 0, false) */
    int64_t min, max; /* of OPT_INT; both 0: unbounded */
    const char *unit; /* ms, bytes, tokens … or NULL */
    const char *doc;  /* one sentence */
};

/* Collects everything that is wrong, so that it can be reported at once. */
struct opt_problems {
    struct buf text; /* one line each */
    size_t count;
};
void opt_problem(struct opt_problems *p, const char *fmt, ...) PRINTF_LIKE(2, 3);

/* Fills *settings from the environment. Strings belong to the settings: free with opt_done(). */
void opt_read(const struct opt *table, size_t n, void *settings, struct opt_problems *problems);
void opt_done(const struct opt *table, size_t n, void *settings);
/* NAME=value lines with secrets, and credentials of URLs, as "***"; secrets that are unset as "".
 */
enum err opt_print(const struct opt *table, size_t n, const void *settings,
                   struct buf *out) MUSTCHECK;
/* The help text: name, default, unit, bounds, sentence. */
enum err opt_help(const struct opt *table, size_t n, struct buf *out) MUSTCHECK;
/* The same as rows of a Markdown table. */
enum err opt_markdown(const struct opt *table, size_t n, struct buf *out) MUSTCHECK;

#endif
