/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A small vocabulary over characters with byte fallback, made as a tokenizer.json and converted,
 * and its merges by the book. Header of static functions for unit tests and fuzz targets.
 */
#ifndef TESTS_SUPPORT_CHARS_H
#define TESTS_SUPPORT_CHARS_H

#include "support_vocab.h"

#define MARK "\xe2\x96\x81"

struct chars_shape {
    const char *normalizer, *pre_tokenizer; /* JSON */
    enum { LEAD_NEVER, LEAD_FIRST, LEAD_EACH } lead;
    bool lead_spaces; /* also before a space */
    bool split;       /* before every space */
};

#define CHARS_REPLACE \
    "{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},\"content\":\"" MARK "\"}"
#define CHARS_METASPACE(scheme, split)                                                  \
    "{\"type\":\"Metaspace\",\"replacement\":\"" MARK "\",\"prepend_scheme\":\"" scheme \
    "\",\"split\":" split "}"

static const struct chars_shape chars_shapes[] = {
    { CHARS_REPLACE, "null", LEAD_NEVER, false, false },
    { CHARS_REPLACE,
      "{\"type\":\"Split\",\"pattern\":{\"String\":\" \"},\"behavior\":\"MergedWithPrevious\","
      "\"invert\":false}",
      LEAD_NEVER, false, false },
    { "{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Prepend\",\"prepend\":\"" MARK
      "\"}," CHARS_REPLACE "]}",
      "null", LEAD_EACH, true, false },
    { "null", CHARS_METASPACE("first", "false"), LEAD_FIRST, false, false },
    { "null", CHARS_METASPACE("always", "true"), LEAD_EACH, false, true },
    { "null", CHARS_METASPACE("never", "true"), LEAD_NEVER, false, true },
};

/* Tokens by their strings, in which U+2581 is a space; merges by rank. */
struct chars_vocab {
    struct support_vocab v;
    size_t bytes; /* tokens [0, 256) are bytes, characters and what merges make follow */
};

static const char *const chars_words[] = {
    " the",   "the", " them", "ing",   " in",      "hello",
    " hello", "ll",  "aa",    "aaaa",  "aaaaaaaa", "ab",
    "abc",    "bc",  "  ",    "    ",  "        ", "\n\n",
    "中",     "文",  "中文",  "é",     "éé",       "00",
    "()",     "();", "'s",    "!!",    " =",       "==",
    " 中",    "xyx", "yxy",   "xyxyx", "ба",       "\xf0\x9f\x99\x82\xf0\x9f\x99\x82",
    "1",      "12",  "<",     "|",     "d",        ">",
    "k",      " <",
};

static inline size_t chars_find(const struct support_vocab *s, const char *p, size_t n)
{
    for (size_t i = 256; i < s->tokens_n; i++)
        if (s->tokens[i].n == n && memcmp(s->tokens[i].p, p, n) == 0) return i;
    return SIZE_MAX;
}

static inline size_t chars_token(struct support_vocab *s, const char *p, size_t n)
{
    size_t i = chars_find(s, p, n);
    if (i != SIZE_MAX) return i;
    ASSERT(s->tokens_n < SUPPORT_TOKENS && n <= SUPPORT_TOKEN_MAX);
    memcpy(s->tokens[s->tokens_n].p, p, n);
    s->tokens[s->tokens_n].n = n;
    return s->tokens_n++;
}

/* By the book, quadratic. The text is valid UTF-8. */
static inline size_t chars_merge(const struct support_vocab *s, const char *p, size_t n,
                                 size_t *ids)
{
    size_t len = 0;
    for (size_t i = 0, k; i < n; i += k) {
        uint32_t cp;
        k = utf8_decode(p + i, n - i, &cp);
        ASSERT(k > 0);
        size_t id = chars_find(s, p + i, k);
        if (id != SIZE_MAX)
            ids[len++] = id;
        else
            for (size_t j = 0; j < k; j++) ids[len++] = (unsigned char)p[i + j];
    }
    for (;;) {
        size_t best = SIZE_MAX, at = 0;
        for (size_t i = 0; i + 1 < len; i++)
            for (size_t k = 0; k < s->merges_n && k < best; k++)
                if (s->merges[k].left == ids[i] && s->merges[k].right == ids[i + 1])
                    best = k, at = i;
        if (best == SIZE_MAX) return len;
        ids[at] = s->merges[best].whole;
        memmove(ids + at + 1, ids + at + 2, (len - at - 2) * sizeof *ids);
        len--;
    }
}

static inline void chars_init(struct support_vocab *s)
{
    memset(s, 0, sizeof *s);
    for (int i = 0; i < 256; i++) {
        s->tokens[i].p[0] = (char)i;
        s->tokens[i].n = 1;
    }
    s->tokens_n = 256;
    (void)chars_token(s, " ", 1);
    for (size_t w = 0; w < sizeof chars_words / sizeof chars_words[0]; w++) {
        const char *p = chars_words[w];
        size_t ids[SUPPORT_TOKEN_MAX], n = strlen(p), k;
        for (size_t i = 0; i < n; i += k) {
            uint32_t cp;
            k = utf8_decode(p + i, n - i, &cp);
            (void)chars_token(s, p + i, k);
        }
        while ((k = chars_merge(s, p, n, ids)) > 1) {
            char joined[2 * SUPPORT_TOKEN_MAX];
            size_t l = s->tokens[ids[0]].n, r = s->tokens[ids[1]].n;
            memcpy(joined, s->tokens[ids[0]].p, l);
            memcpy(joined + l, s->tokens[ids[1]].p, r);
            size_t whole = chars_token(s, joined, l + r);
            s->merges[s->merges_n].left = ids[0];
            s->merges[s->merges_n].right = ids[1];
            s->merges[s->merges_n++].whole = whole;
        }
    }
}

static inline void chars_json_string(struct buf *b, const char *p, size_t n)
{
    struct buf s;
    buf_init(&s, 4096);
    for (size_t i = 0; i < n; i++)
        ASSERT((p[i] == ' ' ? buf_appendz(&s, MARK) : buf_append_char(&s, p[i])) == ERR_OK);
    ASSERT(buf_append_json(b, buf_str(&s)) == ERR_OK);
    buf_done(&s);
}

/* added: more of the list of added tokens, as JSON with a comma in front, or "". */
static inline void chars_json(const struct support_vocab *s, const struct chars_shape *shape,
                              const char *added, struct buf *b)
{
    ASSERT(
        buf_printf(b,
                   "{\"added_tokens\":[{\"id\":%zu,\"content\":\"<|end|>\",\"special\":true},"
                   "{\"id\":%zu,\"content\":\"\\n\\n\\n\",\"special\":false}%s],"
                   "\"normalizer\":%s,\"pre_tokenizer\":%s,\"model\":{\"type\":\"BPE\","
                   "\"unk_token\":\"<unk>\",\"fuse_unk\":true,\"byte_fallback\":true,\"vocab\":{",
                   s->tokens_n, s->tokens_n + 1, added, shape->normalizer,
                   shape->pre_tokenizer) == ERR_OK);
    for (size_t i = 0; i < s->tokens_n; i++) {
        if (i > 0) ASSERT(buf_append_char(b, ',') == ERR_OK);
        if (i < 256)
            ASSERT(buf_printf(b, "\"<0x%02X>\"", (unsigned)i) == ERR_OK);
        else
            chars_json_string(b, s->tokens[i].p, s->tokens[i].n);
        ASSERT(buf_printf(b, ":%zu", i) == ERR_OK);
    }
    ASSERT(buf_appendz(b, "},\"merges\":[") == ERR_OK);
    for (size_t i = 0; i < s->merges_n; i++) {
        ASSERT(buf_appendz(b, i > 0 ? ",[" : "[") == ERR_OK);
        chars_json_string(b, s->tokens[s->merges[i].left].p, s->tokens[s->merges[i].left].n);
        ASSERT(buf_append_char(b, ',') == ERR_OK);
        chars_json_string(b, s->tokens[s->merges[i].right].p, s->tokens[s->merges[i].right].n);
        ASSERT(buf_append_char(b, ']') == ERR_OK);
    }
    ASSERT(buf_appendz(b, "]}}") == ERR_OK);
}

static inline struct vocab *chars_open(const struct support_vocab *s,
                                       const struct chars_shape *shape, const char *added)
{
    struct buf json, file;
    struct why why = { "" };
    struct vocab *v = NULL;
    struct convert_opts o = { .name = STR("test") };
    buf_init(&json, 1 << 20);
    buf_init(&file, 64 << 20);
    chars_json(s, shape, added, &json);
    enum err e = convert_huggingface(buf_str(&json), &o, &file, &why);
    if (e == ERR_OK) e = vocab_open_mem(file.data, file.len, &v, &why);
    if (e != ERR_OK) fprintf(stderr, "%s: %s\n", err_name(e), why.text);
    ASSERT(e == ERR_OK);
    buf_done(&json);
    buf_done(&file);
    return v;
}

#endif
