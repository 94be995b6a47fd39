/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Passing over bytes that mean nothing, sixteen at a time: what a JSON string holds as it is, and
 * what is none of a few bytes. Pure; any thread. Vectors of the compiler, no instruction set: where
 * it has none for them, it writes plain code.
 */
#ifndef BASE_SKIP_H
#define BASE_SKIP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef unsigned char skip_bytes __attribute__((vector_size(16)));
typedef uint64_t skip_words __attribute__((vector_size(16)));

static inline skip_bytes skip_load(const char *p)
{
    skip_bytes v;
    memcpy(&v, p, sizeof v);
    return v;
}

/* Which of 16 bytes was hit first (0xff in `hits`); 16: none. */
static inline unsigned skip_first(skip_bytes hits)
{
    skip_words w = (skip_words)hits;
    uint64_t lo = w[0], hi = w[1];
    if ((lo | hi) == 0) return 16;
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    return lo != 0 ? (unsigned)__builtin_ctzll(lo) / 8 : 8 + (unsigned)__builtin_ctzll(hi) / 8;
#else
    return lo != 0 ? (unsigned)__builtin_clzll(lo) / 8 : 8 + (unsigned)__builtin_clzll(hi) / 8;
#endif
}

static inline skip_bytes skip_hits_json(skip_bytes v)
{
    return (skip_bytes)(v == '"') | (skip_bytes)(v == '\\') | (skip_bytes)(v < 0x20);
}

/* The first byte in p..end that a JSON string does not hold as it is: a quote, a backslash, a
 * control character; else end. */
static inline const char *skip_json_plain(const char *p, const char *end)
{
    for (; end - p >= 16; p += 16) {
        unsigned at = skip_first(skip_hits_json(skip_load(p)));
        if (at < 16) return p + at;
    }
    while (p < end && *p != '"' && *p != '\\' && (unsigned char)*p >= 0x20) p++;
    return p;
}

/* The same; sets *high when some of what is passed over, or may be, is not ASCII. */
static inline const char *skip_json_noting(const char *p, const char *end, bool *high)
{
    skip_bytes all = { 0 };
    unsigned at = 16;
    for (; at == 16 && end - p >= 16; p += at) {
        skip_bytes v = skip_load(p);
        at = skip_first(skip_hits_json(v));
        all |= v;
    }
    skip_words w = (skip_words)all;
    if (((w[0] | w[1]) & UINT64_C(0x8080808080808080)) != 0) *high = true;
    if (at < 16) return p;
    for (; p < end && *p != '"' && *p != '\\' && (unsigned char)*p >= 0x20; p++)
        if ((*p & 0x80) != 0) *high = true;
    return p;
}

/* The same, but DEL and what is not ASCII end it as well. */
static inline const char *skip_json_ascii(const char *p, const char *end)
{
    for (; end - p >= 16; p += 16) {
        skip_bytes v = skip_load(p);
        unsigned at = skip_first(skip_hits_json(v) | (skip_bytes)(v >= 0x7f));
        if (at < 16) return p + at;
    }
    while (p < end && *p != '"' && *p != '\\' && *p >= 0x20 && *p < 0x7f) p++;
    return p;
}

/* The first byte in p..end that is one of four (the same one may be given several times); else
 * end. */
static inline const char *skip_to_any(const char *p, const char *end, const unsigned char any[4])
{
    for (; end - p >= 16; p += 16) {
        skip_bytes v = skip_load(p);
        skip_bytes hits = (skip_bytes)(v == any[0]) | (skip_bytes)(v == any[1]) |
                          (skip_bytes)(v == any[2]) | (skip_bytes)(v == any[3]);
        unsigned at = skip_first(hits);
        if (at < 16) return p + at;
    }
    for (; p < end; p++) {
        unsigned char c = (unsigned char)*p;
        if (c == any[0] || c == any[1] || c == any[2] || c == any[3]) break;
    }
    return p;
}

#endif
