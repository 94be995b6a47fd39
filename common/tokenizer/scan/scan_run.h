/* SPDX-License-Identifier: Apache-2.0 */
/* Runs of character classes: what the scanners are made of. Only for scan*.c. Pure. */
#ifndef TOKENIZER_SCAN_RUN_H
#define TOKENIZER_SCAN_RUN_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "base/err.h"
#include "tokenizer/scan/unicode.h"

#define SCAN_NONE SIZE_MAX /* this alternative does not match */

/* Behind the characters at p that are the one of `len` bytes in front of p again. */
static inline const char *scan_again(const char *p, const char *end, size_t len)
{
    for (uint64_t a, b; end - p >= 8; p += len == 3 ? 6 : 8) {
        memcpy(&a, p - len, 8);
        memcpy(&b, p, 8);
        if (a != b) break;
    }
    return p;
}

static inline const char *scan_run_in(const char *p, const char *end, unsigned classes)
{
    while (p < end) {
        size_t len;
        if ((unicode_class_at(p, &len) & classes) == 0) break;
        p = scan_again(p + len, end, len);
    }
    return p;
}

static inline const char *scan_run_out(const char *p, const char *end, unsigned classes)
{
    while (p < end) {
        size_t len;
        if ((unicode_class_at(p, &len) & classes) != 0) break;
        p = scan_again(p + len, end, len);
    }
    return p;
}

/* \p{N}{1,most} at p, which is a number. */
static inline size_t scan_digits(const char *p, const char *end, bool more, int most)
{
    const char *q = p;
    for (int i = 0; i < most; i++) {
        size_t len;
        if (q == end) return more ? 0 : (size_t)(q - p);
        if ((unicode_class_at(q, &len) & UC_N) == 0) break;
        q += len;
    }
    return (size_t)(q - p);
}

enum scan_newlines { SCAN_NEWLINES, SCAN_NEWLINES_SLASH }; /* [\r\n]* or [\r\n/]* */

/* ` ?[^\s\p{L}\p{N}]+[\r\n]*` at p, whose class and length are c and len. */
static inline size_t scan_other(const char *p, const char *end, bool more, unsigned c, size_t len,
                                enum scan_newlines newlines)
{
    const char *q = p + len;
    if (*p == ' ') {
        if (q == end) return more ? 0 : SCAN_NONE;
        size_t len1;
        if ((unicode_class_at(q, &len1) & (UC_S | UC_L | UC_N)) != 0) return SCAN_NONE;
        q += len1;
    } else if ((c & (UC_S | UC_L | UC_N)) != 0) {
        return SCAN_NONE;
    }
    q = scan_run_out(q, end, UC_S | UC_L | UC_N);
    while (q < end && (*q == '\r' || *q == '\n' || (*q == '/' && newlines == SCAN_NEWLINES_SLASH)))
        q++;
    if (q == end && more) return 0;
    return (size_t)(q - p);
}

/* `\s*[\r\n]+|\s+(?!\S)|\s+` at p, which is a space; without the first part if !newlines. */
static inline size_t scan_space(const char *p, const char *end, bool more, bool newlines)
{
    const char *q = scan_run_in(p, end, UC_S), *newline = q, *last = q - 1;
    if (q == end && more) return 0;
    while (newlines && newline > p && newline[-1] != '\n' && newline[-1] != '\r') newline--;
    if (newlines && newline > p) return (size_t)(newline - p);
    while (((unsigned char)*last & 0xc0) == 0x80) last--;
    if (q == end || last == p) return (size_t)(q - p);
    return (size_t)(last - p); /* the last one goes with the word behind it */
}

/* 's 't 'm 'd 're 've 'll at p, which is an apostrophe: its length, 0 if none, -1 if open. Folding
 * case, U+017F is an s. */
static inline int scan_contraction(const char *p, const char *end, bool more, bool fold)
{
    if (end - p < 2) return more ? -1 : 0;
    unsigned char c = (unsigned char)p[1];
    if (fold && c == 0xc5 && end - p >= 3 && (unsigned char)p[2] == 0xbf) return 3;
    if (fold && c >= 'A' && c <= 'Z') c = (unsigned char)(c + 32);
    if (c == 's' || c == 't' || c == 'm' || c == 'd') return 2;
    if (c != 'r' && c != 'v' && c != 'l') return 0;
    if (end - p < 3) return more ? -1 : 0;
    unsigned char d = (unsigned char)p[2];
    if (fold && d >= 'A' && d <= 'Z') d = (unsigned char)(d + 32);
    return d == (c == 'l' ? 'l' : 'e') ? 3 : 0;
}

bool scan_deepseek_cjk(uint32_t cp); /* of the second split */
size_t scan_deepseek(const char *p, const char *end, bool more);
size_t scan_gpt2_digits(const char *p, const char *end, bool more);

#endif
