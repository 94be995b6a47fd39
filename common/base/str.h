/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Views of bytes (pointer and length, not NUL-terminated, borrowed) and strict parsing of what they
 * hold.
 */
#ifndef BASE_STR_H
#define BASE_STR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/err.h"

struct str {
    const char *p;
    size_t n;
};

#define STR(literal) ((struct str){ "" literal "", sizeof(literal) - 1 })
#define STR_NULL ((struct str){ NULL, 0 })
/* For printf: printf("%.*s", STR_ARG(s)) */
#define STR_ARG(s) (int)(s).n, (s).p

static inline struct str str_of(const char *z)
{
    return (struct str){ z, z != NULL ? strlen(z) : 0 };
}
static inline struct str str_n(const char *p, size_t n)
{
    return (struct str){ p, n };
}

static inline bool str_eq(struct str a, struct str b)
{
    return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}
static inline bool str_eqz(struct str a, const char *z)
{
    return str_eq(a, str_of(z));
}
bool str_ieq(struct str a, struct str b); /* ASCII case folded */
bool str_ieqz(struct str a, const char *z);
bool str_starts(struct str s, struct str prefix);
bool str_ends(struct str s, struct str suffix);
bool str_contains(struct str s, struct str needle);
int str_cmp(struct str a, struct str b);
struct str str_trim(struct str s); /* spaces and tabs, both ends */

/* Splits *rest at the first `sep`: returns what stood before it and moves *rest behind it (n = 0, p
 * = NULL at the end). */
struct str str_cut(struct str *rest, char sep);

/* Decimal digits only: no sign, no space, no overflow. */
enum err str_to_u64(struct str s, uint64_t *ret) MUSTCHECK;
/* An optional '-' and decimal digits. */
enum err str_to_i64(struct str s, int64_t *ret) MUSTCHECK;
/* Hexadecimal digits, 1 to 16 of them. */
enum err str_hex_to_u64(struct str s, uint64_t *ret) MUSTCHECK;
/* n in decimal digits: a view of the end of `room`. */
enum { STR_U64_ROOM = 20 };
struct str str_of_u64(uint64_t n, char room[STR_U64_ROOM]);
/* true/false/1/0/yes/no/on/off in any case. */
enum err str_to_bool(struct str s, bool *ret) MUSTCHECK;

/* Writes 2*n lower-case hex digits and a NUL: out holds 2*n+1. */
void hex_encode(const void *in, size_t n, char *out);
/* Exactly 2*n hex digits into n bytes. */
enum err hex_decode(struct str s, void *out, size_t n) MUSTCHECK;

/* [a-z0-9-]{1,63}: the form of slugs, which appear in subjects and labels. */
bool str_is_slug(struct str s);
/* Valid UTF-8 (no surrogates, no overlong forms, at most U+10FFFF). */
bool str_is_utf8(struct str s);

/* Copies with truncation and always terminates. Returns false when it had to cut. */
bool str_copyz(char *dst, size_t cap, struct str s);
/* A heap copy with a NUL; the caller frees it. Dies when memory is out: not for unbounded client
 * data. */
char *str_dupz(struct str s);

/* Compares in time that depends on n only: for secrets. */
bool mem_eq_const_time(const void *a, const void *b, size_t n);

#endif
