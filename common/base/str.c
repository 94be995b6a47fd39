/* SPDX-License-Identifier: Apache-2.0 */
#include "base/str.h"

#include <stdlib.h>

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c | 0x20) : c;
}

bool str_ieq(struct str a, struct str b)
{
    if (a.n != b.n) return false;
    for (size_t i = 0; i < a.n;) {
        /* Most are of one case, too. */
        if (a.n - i >= 8 && memcmp(a.p + i, b.p + i, 8) == 0) {
            i += 8;
            continue;
        }
        if (lower(a.p[i]) != lower(b.p[i])) return false;
        i++;
    }
    return true;
}

bool str_ieqz(struct str a, const char *z)
{
    return str_ieq(a, str_of(z));
}

bool str_starts(struct str s, struct str prefix)
{
    return s.n >= prefix.n && (prefix.n == 0 || memcmp(s.p, prefix.p, prefix.n) == 0);
}

bool str_ends(struct str s, struct str suffix)
{
    return s.n >= suffix.n &&
           (suffix.n == 0 || memcmp(s.p + s.n - suffix.n, suffix.p, suffix.n) == 0);
}

bool str_contains(struct str s, struct str needle)
{
    return needle.n == 0 || (s.n >= needle.n && memmem(s.p, s.n, needle.p, needle.n) != NULL);
}

int str_cmp(struct str a, struct str b)
{
    size_t n = MIN(a.n, b.n);
    int c = n > 0 ? memcmp(a.p, b.p, n) : 0;
    return c != 0 ? c : (a.n > b.n) - (a.n < b.n);
}

struct str str_trim(struct str s)
{
    while (s.n > 0 && (s.p[0] == ' ' || s.p[0] == '\t')) s.p++, s.n--;
    while (s.n > 0 && (s.p[s.n - 1] == ' ' || s.p[s.n - 1] == '\t')) s.n--;
    return s;
}

struct str str_cut(struct str *rest, char sep)
{
    struct str head = *rest;
    const char *at = rest->n > 0 ? memchr(rest->p, sep, rest->n) : NULL;
    if (at == NULL) {
        *rest = STR_NULL;
        return head;
    }
    head.n = (size_t)(at - head.p);
    rest->p = at + 1;
    rest->n -= head.n + 1;
    return head;
}

enum err str_to_u64(struct str s, uint64_t *ret)
{
    uint64_t v = 0;
    if (s.n == 0) return ERR_INVALID;
    for (size_t i = 0; i < s.n; i++) {
        unsigned d = (unsigned char)s.p[i] - '0';
        if (d > 9) return ERR_INVALID;
        if (v > (UINT64_MAX - d) / 10) return ERR_LIMIT;
        v = v * 10 + d;
    }
    *ret = v;
    return ERR_OK;
}

struct str str_of_u64(uint64_t n, char room[STR_U64_ROOM])
{
    static const char pairs[] = "0001020304050607080910111213141516171819"
                                "2021222324252627282930313233343536373839"
                                "4041424344454647484950515253545556575859"
                                "6061626364656667686970717273747576777879"
                                "8081828384858687888990919293949596979899";
    char *p = room + STR_U64_ROOM;
    for (; n >= 100; n /= 100) memcpy(p -= 2, pairs + n % 100 * 2, 2);
    if (n >= 10)
        memcpy(p -= 2, pairs + n * 2, 2);
    else
        *--p = (char)('0' + n);
    return str_n(p, (size_t)(room + STR_U64_ROOM - p));
}

enum err str_to_i64(struct str s, int64_t *ret)
{
    uint64_t v;
    bool neg = s.n > 0 && s.p[0] == '-';
    enum err e = str_to_u64(neg ? str_n(s.p + 1, s.n - 1) : s, &v);
    if (e != ERR_OK) return e;
    if (v > (uint64_t)INT64_MAX + (neg ? 1 : 0)) return ERR_LIMIT;
    *ret = neg ? (int64_t)(0 - v) : (int64_t)v;
    return ERR_OK;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    c = lower(c);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

enum err str_hex_to_u64(struct str s, uint64_t *ret)
{
    uint64_t v = 0;
    if (s.n == 0 || s.n > 16) return ERR_INVALID;
    for (size_t i = 0; i < s.n; i++) {
        int d = hex_digit(s.p[i]);
        if (d < 0) return ERR_INVALID;
        v = v << 4 | (uint64_t)d;
    }
    *ret = v;
    return ERR_OK;
}

enum err str_to_bool(struct str s, bool *ret)
{
    static const char *const yes[] = { "true", "1", "yes", "on" }, *const no[] = { "false", "0",
                                                                                   "no", "off" };
    for (size_t i = 0; i < ARRAY_LEN(yes); i++) {
        if (str_ieqz(s, yes[i])) return *ret = true, ERR_OK;
        if (str_ieqz(s, no[i])) return *ret = false, ERR_OK;
    }
    return ERR_INVALID;
}

void hex_encode(const void *in, size_t n, char *out)
{
    static const char digits[] = "0123456789abcdef";
    const unsigned char *b = in;
    for (size_t i = 0; i < n; i++) {
        *out++ = digits[b[i] >> 4];
        *out++ = digits[b[i] & 15];
    }
    *out = '\0';
}

enum err hex_decode(struct str s, void *out, size_t n)
{
    unsigned char *o = out;
    if (s.n != 2 * n) return ERR_INVALID;
    for (size_t i = 0; i < s.n; i++)
        if (hex_digit(s.p[i]) < 0) return ERR_INVALID;
    for (size_t i = 0; i < n; i++)
        o[i] = (unsigned char)(hex_digit(s.p[2 * i]) << 4 | hex_digit(s.p[2 * i + 1]));
    return ERR_OK;
}

bool str_is_slug(struct str s)
{
    if (s.n == 0 || s.n > 63) return false;
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];
        if (!((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-')) return false;
    }
    return true;
}

bool str_is_utf8(struct str s)
{
    const unsigned char *p = (const unsigned char *)s.p, *end = p + s.n;
    while (p < end) {
        uint64_t eight;
        for (; end - p >= 8; p += 8) {
            memcpy(&eight, p, 8);
            if (eight & 0x8080808080808080u) break;
        }
        if (p == end) break;
        unsigned c = *p++;
        unsigned extra, low = 0x80, high = 0xbf;
        if (c < 0x80) continue;
        if (c >= 0xc2 && c <= 0xdf) {
            extra = 1;
        } else if (c >= 0xe0 && c <= 0xef) {
            extra = 2;
            if (c == 0xe0) low = 0xa0;
            if (c == 0xed) high = 0x9f;
        } else if (c >= 0xf0 && c <= 0xf4) {
            extra = 3;
            if (c == 0xf0) low = 0x90;
            if (c == 0xf4) high = 0x8f;
        } else {
            return false;
        }
        if ((size_t)(end - p) < extra || *p < low || *p > high) return false;
        for (p++; --extra > 0; p++)
            if ((*p & 0xc0) != 0x80) return false;
    }
    return true;
}

bool str_copyz(char *dst, size_t cap, struct str s)
{
    size_t n = MIN(s.n, cap - 1);
    if (n > 0) memcpy(dst, s.p, n);
    dst[n] = '\0';
    return n == s.n;
}

char *str_dupz(struct str s)
{
    char *z = xmalloc(s.n + 1);
    if (s.n > 0) memcpy(z, s.p, s.n);
    z[s.n] = '\0';
    return z;
}

bool mem_eq_const_time(const void *a, const void *b, size_t n)
{
    const volatile unsigned char *x = a, *y = b;
    unsigned char diff = 0;
    for (size_t i = 0; i < n; i++) diff |= (unsigned char)(x[i] ^ y[i]);
    return diff == 0;
}
