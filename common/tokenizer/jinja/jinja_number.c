/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Numbers in strings, as Python's int() and float() read them: C's own functions take hexadecimal
 * where Python does not, and know nothing of 1_000. Digits are ASCII's. Pure.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "jinja_int.h"

/* What Python reads: more digits than these it refuses, since their time grows by the square. */
enum { INT_DIGITS_MAX = 4300 };

static int digit_of(char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'z') return c - 'a' + 10;
    if (c >= 'A' && c <= 'Z') return c - 'A' + 10;
    return 99;
}

static bool cut_sign(struct str *s)
{
    bool minus = s->n > 0 && s->p[0] == '-';
    if (minus || (s->n > 0 && s->p[0] == '+')) *s = str_n(s->p + 1, s->n - 1);
    return minus;
}

/* 0x, 0o or 0b, where the base is that or to be told by it. True: it was there. */
static bool cut_prefix(struct str *s, int *base)
{
    int is = s->n < 2 || s->p[0] != '0'         ? 0
             : s->p[1] == 'x' || s->p[1] == 'X' ? 16
             : s->p[1] == 'o' || s->p[1] == 'O' ? 8
             : s->p[1] == 'b' || s->p[1] == 'B' ? 2
                                                : 0;
    bool there = is != 0 && (*base == 0 || *base == is);
    if (there) *base = is;
    if (there) *s = str_n(s->p + 2, s->n - 2);
    return there;
}

bool jnumber_int(struct jr *r, struct str s, int base, struct jv *ret)
{
    s = jstr_strip(s, NULL, 3);
    bool minus = cut_sign(&s), told = base == 0, prefixed = cut_prefix(&s, &base), fits = true;
    bool zero_first = told && !prefixed && s.n > 0 && s.p[0] == '0';
    if (base == 0) base = 10;
    if (prefixed && s.n > 0 && s.p[0] == '_') s = str_n(s.p + 1, s.n - 1);
    char *digits = base == 10 ? arena_alloc(r->a, s.n + 2) : NULL;
    size_t n = 0, w = 0;
    int64_t v = 0; /* below zero: the lowest number has no opposite */
    bool between = false;
    if (base == 10 && digits == NULL) return *ret = jnomem(r), true;
    if (digits != NULL && minus) digits[w++] = '-';
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] == '_' && between) {
            between = false;
            continue;
        }
        int d = digit_of(s.p[i]);
        if (d >= base) return false;
        between = true;
        n++;
        fits = fits && !__builtin_mul_overflow(v, base, &v) && !__builtin_sub_overflow(v, d, &v);
        if (digits != NULL && (d > 0 || w > (size_t)minus)) digits[w++] = s.p[i];
    }
    if (!between || n > INT_DIGITS_MAX || (zero_first && v != 0)) return false;
    if (fits && (minus || v != INT64_MIN)) return *ret = jv_int(minus ? v : -v), true;
    if (digits == NULL) return *ret = jfail(r, ERR_LIMIT, "int takes more than 64 bits"), true;
    *ret = jv_str(str_n(digits, w));
    ret->type = JV_BIGINT;
    return true;
}

/* The letters, or digits with a point and an exponent: what strtod() may see. */
static bool is_float(const char *z)
{
    static const char *const words[] = { "inf", "infinity", "nan" };
    if (*z == '-' || *z == '+') z++;
    for (size_t i = 0; i < ARRAY_LEN(words); i++)
        if (str_ieqz(str_of(z), words[i])) return true;
    return z[strspn(z, "0123456789.eE+-")] == '\0';
}

bool jnumber_float(struct jr *r, struct str s, double *ret)
{
    s = jstr_strip(s, NULL, 3);
    char *end, *z = arena_alloc(r->a, s.n + 1);
    size_t n = 0;
    if (z == NULL) return (void)jnomem(r), false;
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] == '\0') return false;
        if (s.p[i] != '_')
            z[n++] = s.p[i];
        else if (i == 0 || i + 1 == s.n || digit_of(s.p[i - 1]) > 9 || digit_of(s.p[i + 1]) > 9)
            return false;
    }
    z[n] = '\0';
    if (n == 0 || !is_float(z)) return false;
    double f = strtod(z, &end);
    if (*end != '\0') return false;
    *ret = f;
    return true;
}

struct jv jnumber_truncated(struct jr *r, double f)
{
    char digits[400];
    struct str kept;
    if (fabs(f) < 9e18) return jv_int((int64_t)f);
    int n = snprintf(digits, sizeof digits, "%.0f", f);
    ASSERT(isfinite(f) && n > 0 && (size_t)n < sizeof digits);
    if (arena_dup(r->a, str_n(digits, (size_t)n), &kept) != ERR_OK) return jnomem(r);
    struct jv v = jv_str(kept);
    v.type = JV_BIGINT;
    return v;
}
