/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A small vocabulary of our own, made as a tokenizer.json and converted: every byte, and merges
 * that build the words listed. Header of static functions for unit tests and fuzz targets.
 */
#ifndef TESTS_SUPPORT_VOCAB_H
#define TESTS_SUPPORT_VOCAB_H

#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/utf8.h"
#include "tokenizer/convert/convert.h"

#define PATTERN_QWEN                                                                  \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|\\\\p{N}| " \
    "?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+"
#define PATTERN_CL100K                                                                     \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|\\\\p{N}{1,3}| " \
    "?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+"

enum { SUPPORT_TOKENS = 2048, SUPPORT_TOKEN_MAX = 64 };

struct support_vocab {
    struct {
        char p[SUPPORT_TOKEN_MAX];
        size_t n;
    } tokens[SUPPORT_TOKENS];
    size_t tokens_n;
    struct {
        size_t left, right, whole;
    } merges[SUPPORT_TOKENS];
    size_t merges_n;
};

static inline size_t support_find(const struct support_vocab *s, const char *p, size_t n)
{
    for (size_t i = 0; i < s->tokens_n; i++)
        if (s->tokens[i].n == n && memcmp(s->tokens[i].p, p, n) == 0) return i;
    return SIZE_MAX;
}

static inline size_t support_token(struct support_vocab *s, const char *p, size_t n)
{
    size_t i = support_find(s, p, n);
    if (i != SIZE_MAX) return i;
    ASSERT(s->tokens_n < SUPPORT_TOKENS && n <= SUPPORT_TOKEN_MAX);
    memcpy(s->tokens[s->tokens_n].p, p, n);
    s->tokens[s->tokens_n].n = n;
    return s->tokens_n++;
}

/* The merges by the book, quadratic: what the library is compared with. Returns how many tokens. */
static inline size_t support_merge(const struct support_vocab *s, const char *p, size_t n,
                                   size_t *ids)
{
    for (size_t i = 0; i < n; i++) ids[i] = (unsigned char)p[i];
    for (;;) {
        size_t best = SIZE_MAX, at = 0;
        for (size_t i = 0; i + 1 < n; i++)
            for (size_t k = 0; k < s->merges_n && k < best; k++)
                if (s->merges[k].left == ids[i] && s->merges[k].right == ids[i + 1])
                    best = k, at = i;
        if (best == SIZE_MAX) return n;
        ids[at] = s->merges[best].whole;
        memmove(ids + at + 1, ids + at + 2, (n - at - 2) * sizeof *ids);
        n--;
    }
}

static inline void support_init(struct support_vocab *s, const char *const *words, size_t n)
{
    memset(s, 0, sizeof *s);
    for (int i = 0; i < 256; i++) {
        char c = (char)i;
        (void)support_token(s, &c, 1);
    }
    for (size_t w = 0; w < n; w++) {
        size_t ids[SUPPORT_TOKEN_MAX], len = strlen(words[w]);
        size_t k = support_merge(s, words[w], len, ids);
        for (; k > 1; k = support_merge(s, words[w], len, ids)) {
            char joined[2 * SUPPORT_TOKEN_MAX];
            size_t l = s->tokens[ids[0]].n, r = s->tokens[ids[1]].n;
            memcpy(joined, s->tokens[ids[0]].p, l);
            memcpy(joined + l, s->tokens[ids[1]].p, r);
            size_t whole = support_token(s, joined, l + r);
            s->merges[s->merges_n].left = ids[0];
            s->merges[s->merges_n].right = ids[1];
            s->merges[s->merges_n++].whole = whole;
        }
    }
}

static inline void support_letters(struct buf *b, const char *p, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        unsigned c = (unsigned char)p[i], cp = c, next = 256;
        bool prints = (c >= '!' && c <= '~') || (c >= 0xa1 && c <= 0xac) || c >= 0xae;
        for (unsigned k = 0; k < 256 && !prints; k++) {
            bool shown = (k >= '!' && k <= '~') || (k >= 0xa1 && k <= 0xac) || k >= 0xae;
            if (k == c) cp = next;
            if (!shown) next++;
        }
        char u[4];
        size_t len = utf8_encode(cp, u);
        if (cp == '"' || cp == '\\') ASSERT(buf_append_char(b, '\\') == ERR_OK);
        ASSERT(buf_append(b, u, len) == ERR_OK);
    }
}

static const char *const support_words[] = {
    "the",      " the", " them", "ing", " in",   "hello", " hello", "ll",   "aa",    "aaaa",
    "aaaaaaaa", "ab",   "abc",   "bc",  "cab",   "  ",    "    ",   "\n\n", " \n",   "中",
    "文",       "中文", "é",     "ééé", "e\xcc", "00",    "()",     "();",  "'s",    "'ll",
    "!!",       "!!!!", " =",    "==",  "ба",    "ab ab", "xyx",    "yxy",  "xyxyx", "\xf0\x9f\x99",
};

/* The text of a tokenizer.json; added tokens <|end|> (special), <think> and <thinking> follow. */
static inline void support_json(const struct support_vocab *s, const char *pattern, bool nfc,
                                bool ignore_merges, struct buf *b)
{
    ASSERT(buf_printf(
               b,
               "{\"version\":\"1.0\",\"added_tokens\":["
               "{\"id\":%zu,\"content\":\"<|end|>\",\"special\":true,\"normalized\":false},"
               "{\"id\":%zu,\"content\":\"<think>\",\"special\":false},"
               "{\"id\":%zu,\"content\":\"<thinking>\",\"special\":false}],"
               "\"normalizer\":%s,\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":["
               "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"%s\"},\"behavior\":\"Isolated\","
               "\"invert\":false},{\"type\":\"ByteLevel\",\"add_prefix_space\":false,"
               "\"trim_offsets\":false,\"use_regex\":false}]},"
               "\"model\":{\"type\":\"BPE\",\"ignore_merges\":%s,\"vocab\":{",
               s->tokens_n, s->tokens_n + 1, s->tokens_n + 2, nfc ? "{\"type\":\"NFC\"}" : "null",
               pattern, ignore_merges ? "true" : "false") == ERR_OK);
    for (size_t i = 0; i < s->tokens_n; i++) {
        ASSERT(buf_appendz(b, i > 0 ? ",\"" : "\"") == ERR_OK);
        support_letters(b, s->tokens[i].p, s->tokens[i].n);
        ASSERT(buf_printf(b, "\":%zu", i) == ERR_OK);
    }
    ASSERT(buf_appendz(b, "},\"merges\":[") == ERR_OK);
    for (size_t i = 0; i < s->merges_n; i++) {
        ASSERT(buf_appendz(b, i > 0 ? ",[\"" : "[\"") == ERR_OK);
        support_letters(b, s->tokens[s->merges[i].left].p, s->tokens[s->merges[i].left].n);
        ASSERT(buf_appendz(b, "\",\"") == ERR_OK);
        support_letters(b, s->tokens[s->merges[i].right].p, s->tokens[s->merges[i].right].n);
        ASSERT(buf_appendz(b, "\"]") == ERR_OK);
    }
    ASSERT(buf_appendz(b, "]}}") == ERR_OK);
}

static inline struct vocab *support_open(const struct support_vocab *s, const char *pattern,
                                         bool nfc)
{
    struct buf json, file;
    struct why why = { "" };
    struct vocab *v = NULL;
    struct convert_opts o = { .name = STR("test") };
    buf_init(&json, 1 << 20);
    buf_init(&file, 64 << 20);
    support_json(s, pattern, nfc, false, &json);
    enum err e = convert_huggingface(buf_str(&json), &o, &file, &why);
    if (e == ERR_OK) e = vocab_open_mem(file.data, file.len, &v, &why);
    if (e != ERR_OK) fprintf(stderr, "%s: %s\n", err_name(e), why.text);
    ASSERT(e == ERR_OK);
    buf_done(&json);
    buf_done(&file);
    return v;
}

/* A vocabulary that `make vocab` fetched, or NULL. */
static inline struct vocab *support_real(const char *name)
{
    char path[4096];
    struct vocab *v;
    const char *dir = getenv("VOCAB_DIR");
    if (dir == NULL) return NULL;
    (void)snprintf(path, sizeof path, "%s/%s" VOCAB_SUFFIX, dir, name);
    return vocab_open(path, &v, NULL) == ERR_OK ? v : NULL;
}

/* Text that is mean to tokenizers: bits of words, runs, marks, broken bytes. Returns its length. */
static inline size_t support_text(const struct rng *rng, char *out, size_t max)
{
    static const char *const bits[] = {
        "the",
        " the",
        "hello",
        " in",
        "aaaaaaa",
        "ab",
        "xyxyxyx",
        "  ",
        "\n",
        "\r\n",
        "   ",
        "中文",
        "文",
        "é",
        "e\xcc\x81",
        "\xcc\x81",
        "\xcc\xa3",
        "1",
        "12345",
        "٣",
        "'",
        "'s",
        "'LL",
        "don't",
        "!!",
        "();",
        " == ",
        "<|end|>",
        "<think>",
        "<thinking>",
        "<thin",
        "<|",
        "\xe1\x84\x80",
        "\xe1\x85\xa1",
        "\xe1\x86\xa8",
        "가",
        "\xff",
        "\xe2\x82",
        "\xf0\x9f\x99\x82",
        "\xc2\xa0",
        "\xe3\x80\x80",
        "Ω",
        "q\xcc\x87\xcc\xa3",
        "\xcd\x84",
        "/",
        "ABc",
        "ʰ",
        ".",
        "\t",
    };
    size_t n = 0, parts = 1 + rng_below(rng, 40);
    while (parts-- > 0) {
        const char *s = bits[rng_below(rng, sizeof bits / sizeof bits[0])];
        size_t len = strlen(s), times = rng_below(rng, 8) == 0 ? 1 + rng_below(rng, 40) : 1;
        for (; times > 0 && n + len <= max; times--) {
            memcpy(out + n, s, len);
            n += len;
        }
    }
    if (n > 0 && rng_below(rng, 5) == 0) out[rng_below(rng, n)] = (char)rng_below(rng, 256);
    return n;
}

#endif
