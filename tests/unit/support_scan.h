/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pre-tokenizers written down straight from their regular expressions, for a backtracking matcher
 * that knows no more than it must: slow, and what the scanners are compared with. One thread.
 */
#ifndef TESTS_SUPPORT_SCAN_H
#define TESTS_SUPPORT_SCAN_H

#include <stdbool.h>
#include <string.h>

#include "tokenizer/scan/scan.h"
#include "tokenizer/scan/unicode.h"

/* What one character may be: of all classes in `has` at least one bit (0: any), none of `not`, and
 * (without a class) one of `chars`. */
struct re_item {
    enum { RE_END, RE_SET, RE_CONTRACTION, RE_CONTRACTION_OLD, RE_AT_SPACE_OR_END } kind;
    unsigned has, not ;
    const char *chars, *but;
    int min, max; /* max < 0: without end */
};

enum { RE_ITEMS = 6, RE_ALTERNATIVES = 8 };

struct re {
    struct re_item alternatives[RE_ALTERNATIVES][RE_ITEMS];
};

#define RE_CLASS(has, not, min, max)           \
    {                                          \
        RE_SET, has, not, NULL, NULL, min, max \
    }
#define RE_BUT(not, but, min, max)          \
    {                                       \
        RE_SET, 0, not, NULL, but, min, max \
    }
#define RE_CHARS(chars, min, max)           \
    {                                       \
        RE_SET, 0, 0, chars, NULL, min, max \
    }
#define RE_PREFIX RE_BUT(UC_L | UC_N, "\r\n", 0, 1)
#define RE_OTHER                                                    \
    {                                                               \
        RE_CHARS(" ", 0, 1), RE_CLASS(0, UC_S | UC_L | UC_N, 1, -1) \
    }
#define RE_LINES                                          \
    {                                                     \
        RE_CLASS(UC_S, 0, 0, -1), RE_CHARS("\r\n", 1, -1) \
    }
#define RE_SPACES                                                                     \
    { RE_CLASS(UC_S, 0, 1, -1), { .kind = RE_AT_SPACE_OR_END, .min = 1, .max = 1 } }, \
    {                                                                                 \
        RE_CLASS(UC_S, 0, 1, -1)                                                      \
    }
#define RE_SHORT(kind_, min_)                \
    {                                        \
        .kind = kind_, .min = min_, .max = 1 \
    }

static const struct re re_shapes[SCAN_GPT2 + 1] = {
    [SCAN_CL100K] = { { { RE_SHORT(RE_CONTRACTION, 1) },
                        { RE_PREFIX, RE_CLASS(UC_L, 0, 1, -1) },
                        { RE_CLASS(UC_N, 0, 1, 3) },
                        { RE_CHARS(" ", 0, 1), RE_CLASS(0, UC_S | UC_L | UC_N, 1, -1),
                          RE_CHARS("\r\n", 0, -1) },
                        RE_LINES,
                        RE_SPACES } },
    [SCAN_QWEN] = { { { RE_SHORT(RE_CONTRACTION, 1) },
                      { RE_PREFIX, RE_CLASS(UC_L, 0, 1, -1) },
                      { RE_CLASS(UC_N, 0, 1, 1) },
                      { RE_CHARS(" ", 0, 1), RE_CLASS(0, UC_S | UC_L | UC_N, 1, -1),
                        RE_CHARS("\r\n", 0, -1) },
                      RE_LINES,
                      RE_SPACES } },
    [SCAN_O200K] = { { { RE_PREFIX, RE_CLASS(UC_U, 0, 0, -1), RE_CLASS(UC_W, 0, 1, -1),
                         RE_SHORT(RE_CONTRACTION, 0) },
                       { RE_PREFIX, RE_CLASS(UC_U, 0, 1, -1), RE_CLASS(UC_W, 0, 0, -1),
                         RE_SHORT(RE_CONTRACTION, 0) },
                       { RE_CLASS(UC_N, 0, 1, 3) },
                       { RE_CHARS(" ", 0, 1), RE_CLASS(0, UC_S | UC_L | UC_N, 1, -1),
                         RE_CHARS("\r\n/", 0, -1) },
                       RE_LINES,
                       RE_SPACES } },
    [SCAN_TEKKEN] = { { { RE_PREFIX, RE_CLASS(UC_U, 0, 0, -1), RE_CLASS(UC_W, 0, 1, -1) },
                        { RE_PREFIX, RE_CLASS(UC_U, 0, 1, -1), RE_CLASS(UC_W, 0, 0, -1) },
                        { RE_CLASS(UC_N, 0, 1, 1) },
                        { RE_CHARS(" ", 0, 1), RE_CLASS(0, UC_S | UC_L | UC_N, 1, -1),
                          RE_CHARS("\r\n/", 0, -1) },
                        RE_LINES,
                        RE_SPACES } },
    [SCAN_GPT2] = { { { RE_SHORT(RE_CONTRACTION_OLD, 1) },
                      { RE_CHARS(" ", 0, 1), RE_CLASS(UC_L, 0, 1, -1) },
                      { RE_CHARS(" ", 0, 1), RE_CLASS(UC_N, 0, 1, -1) },
                      RE_OTHER,
                      RE_SPACES } },
};

static inline bool re_in(const struct re_item *it, const char *p)
{
    size_t len;
    unsigned c = unicode_class_at(p, &len);
    if (it->chars != NULL) return *p != '\0' && strchr(it->chars, *p) != NULL;
    if (it->but != NULL && *p != '\0' && strchr(it->but, *p) != NULL) return false;
    return (it->has == 0 || (c & it->has) != 0) && (c & it->not ) == 0;
}

/* The length of a contraction at p, 0 if there is none. */
static inline size_t re_contraction(const char *p, const char *end, bool fold)
{
    static const char *const all[] = { "'s", "'t", "'re", "'ve", "'m", "'ll", "'d" };
    if (fold && end - p >= 3 && memcmp(p, "'\xc5\xbf", 3) == 0) return 3;
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        size_t n = strlen(all[i]);
        if ((size_t)(end - p) >= n &&
            (fold ? strncasecmp(p, all[i], n) : strncmp(p, all[i], n)) == 0)
            return n;
    }
    return 0;
}

/* Where the rest of an alternative ends when it begins at p; NULL when it does not match. */
static const char *re_rest(const struct re_item *it, const char *p, const char *end)
{
    if (it->kind == RE_END) return p;
    if (it->kind == RE_AT_SPACE_OR_END) {
        size_t len;
        bool ok = p == end || (unicode_class_at(p, &len) & UC_S) != 0;
        return ok ? re_rest(it + 1, p, end) : NULL;
    }
    if (it->kind != RE_SET) {
        size_t n = re_contraction(p, end, it->kind == RE_CONTRACTION);
        const char *e = n > 0 ? re_rest(it + 1, p + n, end) : NULL;
        return e != NULL || it->min > 0 ? e : re_rest(it + 1, p, end);
    }
    /* As many as there are, then ever fewer. */
    const char *q = p;
    int count = 0;
    for (size_t len; q < end && (it->max < 0 || count < it->max) && re_in(it, q); q += len, count++)
        (void)unicode_class_at(q, &len);
    for (;; count--) {
        if (count < it->min) return NULL;
        const char *e = re_rest(it + 1, q, end);
        if (e != NULL || q == p) return e;
        do q--;
        while (((unsigned char)*q & 0xc0) == 0x80);
    }
}

/* The length of the first match, of n > 0 bytes of valid UTF-8; 0: none begins here. */
static inline size_t re_match(enum scan_shape shape, const char *p, size_t n)
{
    for (int i = 0; i < RE_ALTERNATIVES; i++) {
        const struct re_item *it = re_shapes[shape].alternatives[i];
        const char *e = it->kind == RE_END ? NULL : re_rest(it, p, p + n);
        if (e != NULL && e > p) return (size_t)(e - p);
    }
    return 0;
}

#endif
