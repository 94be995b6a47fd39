/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Regular expressions (PCRE2) that come from the configuration or from a vocabulary and are run on
 * what clients send: what one match may cost is bounded. Immutable once made; any thread.
 */
#ifndef RT_REGEX_H
#define RT_REGEX_H

#include "base/err.h"
#include "base/str.h"

enum { REGEX_PATTERN_MAX = 4096, REGEX_GROUPS_MAX = 10 };

enum {
    REGEX_WHOLE = 1,     /* must match all of the text */
    REGEX_FOLD = 2,      /* without regard to case */
    REGEX_ANY_BYTES = 4, /* the text may be no UTF-8, and then does not match; else it must be */
    REGEX_JIT = 8        /* compiled to machine code where that is possible */
};

struct regex;

/* Compiles a pattern (UTF-8, Unicode classes) whose matches may take so many steps. ERR_INVALID
 * with what is wrong with it and where; ERR_NOMEM. */
enum err regex_new(struct str pattern, unsigned flags, unsigned steps, struct regex **ret,
                   struct why *why) MUSTCHECK;
void regex_free(struct regex *r); /* NULL is fine */
/* How many groups in parentheses the pattern has. */
unsigned regex_groups(const struct regex *r);

struct regex_span {
    size_t from, to; /* from > to: the group took no part */
};

enum regex_result {
    REGEX_NO,
    REGEX_YES,
    REGEX_PARTIAL, /* with REGEX_MORE: what follows could decide otherwise */
    REGEX_GAVE_UP  /* its steps, or its memory, are used up */
};
enum { REGEX_NOT_EMPTY = 1, REGEX_MORE = 2 };
/* The first match in s. groups[0] is all of it, groups[i] the i-th group; n of them, at most
 * REGEX_GROUPS_MAX. */
enum regex_result regex_find(const struct regex *r, struct str s, unsigned how,
                             struct regex_span *groups, size_t n);

/* Whether it matches; giving up is no match. */
bool regex_matches(const struct regex *r, struct str s);

#endif
