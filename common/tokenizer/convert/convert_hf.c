/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hugging Face's tokenizer.json. Everything in the file that could change a token is understood or
 * refused. Any thread.
 */
#include "tokenizer/convert/convert_hf.h"

#include "tokenizer/merge/chars.h"
#include "tokenizer/scan/clean.h"

void hf_refuse(struct hf *h, enum err e, const char *what, struct str detail)
{
    if (h->j != NULL) jpull_fail(h->j, "refused"); /* ends the walk */
    if (h->err != ERR_OK) return;
    h->err = why_set(h->why, e, "%s%s%.*s", what, detail.n > 0 ? ": " : "",
                     (int)MIN(detail.n, (size_t)160), detail.n > 0 ? detail.p : "");
}

void hf_walk(struct hf *h, const char *name, struct str raw, void (*read)(struct hf *h))
{
    struct jpull j, *outer = h->j;
    struct why why = { "" };
    if (h->err != ERR_OK) return;
    jpull_init(&j, raw);
    h->j = &j;
    read(h);
    h->j = outer;
    if (h->err == ERR_OK) {
        enum err e = jpull_end(&j, &why);
        if (e != ERR_OK) h->err = why_set(h->why, e, "%s: %s", name, why.text);
    }
    if (h->err != ERR_OK && outer != NULL) jpull_fail(outer, "refused");
    jpull_done(&j);
}

static void read_added(struct hf *h)
{
    struct jpull *j = h->j;
    struct str key;
    for (jpull_enter(j, '['); h->err == ERR_OK && jpull_element(j);) {
        uint64_t id = 0;
        bool normalized = false, single = false;
        unsigned flags = 0;
        buf_clear(&h->word);
        for (jpull_enter(j, '{'); jpull_key(j, &key);) {
            if (str_eqz(key, "id"))
                id = jpull_uint(j, BUILD_MAX_SIZE - 1);
            else if (str_eqz(key, "content") && h->word.len == 0)
                jpull_string(j, &h->word);
            else if (str_eqz(key, "special"))
                flags |= jpull_bool(j) ? ADDED_SPECIAL : 0;
            else if (str_eqz(key, "normalized"))
                normalized = jpull_bool(j);
            else if (str_eqz(key, "lstrip"))
                flags |= jpull_bool(j) ? ADDED_LSTRIP : 0;
            else if (str_eqz(key, "rstrip"))
                flags |= jpull_bool(j) ? ADDED_RSTRIP : 0;
            else if (str_eqz(key, "single_word"))
                single = jpull_bool(j);
            else
                (void)jpull_skip(j);
        }
        if (j->failed) return;
        if (h->word.len == 0) continue;
        if (single) hf_refuse(h, ERR_UNSUPPORTED, "added_tokens: single_word", buf_str(&h->word));
        if (normalized) flags |= ADDED_NORMALIZED;
        h->normalized_added |= normalized;
        enum err e = build_added(&h->b, buf_str(&h->word), (uint32_t)id, flags);
        if (e != ERR_OK) hf_refuse(h, e, "added_tokens", buf_str(&h->word));
    }
}

/* ASCII without the characters that others become in NFC (U+037E, U+1FEF, U+212A): such a string
 * stands in the normalised text only where it stood before. */
static bool stays_ascii(struct str s)
{
    for (size_t i = 0; i < s.n; i++)
        if ((unsigned char)s.p[i] >= 0x80 || strchr(";`K", s.p[i]) != NULL) return false;
    return true;
}

/* Added tokens that are marked "normalized" match in a second round, between the others. That is
 * the same as one round when no two tokens can overlap. */
static void check_normalized(struct hf *h)
{
    if (!h->normalized_added) return;
    const struct vocab_added *a = (const struct vocab_added *)(const void *)h->b.added.data;
    size_t n = h->b.added.len / sizeof *a;
    /* A mere Replace of spaces leaves strings without them alone. */
    if (h->b.normal == CLEAN_SPACE && h->replace && !h->prepend) {
        for (size_t i = 0; i < n && h->err == ERR_OK; i++) {
            struct str s = { h->b.strings.data + a[i].at, a[i].n };
            if ((a[i].flags & ADDED_NORMALIZED) == 0) continue;
            if (str_contains(s, STR(" ")) || str_contains(s, STR("\xe2\x96\x81")))
                hf_refuse(h, ERR_UNSUPPORTED, "added_tokens: normalized ones with spaces", s);
        }
    } else if (h->b.normal == CLEAN_NFC) {
        for (size_t i = 0; i < n && h->err == ERR_OK; i++) {
            struct str s = { h->b.strings.data + a[i].at, a[i].n };
            if ((a[i].flags & ADDED_NORMALIZED) != 0 && !stays_ascii(s))
                hf_refuse(h, ERR_UNSUPPORTED,
                          "added_tokens: normalized one that normalization could make", s);
        }
    } else if (h->b.normal != 0) {
        hf_refuse(h, ERR_UNSUPPORTED, "added_tokens: normalized ones with a normalizer", STR_NULL);
    }
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < n && h->err == ERR_OK; k++) {
            struct str s = { h->b.strings.data + a[i].at, a[i].n };
            struct str t = { h->b.strings.data + a[k].at, a[k].n };
            if (i == k || ((a[i].flags | a[k].flags) & ADDED_NORMALIZED) == 0) continue;
            bool overlap = str_contains(s, t);
            for (size_t cut = 1; cut < s.n && !overlap; cut++)
                overlap = str_starts(t, str_n(s.p + cut, s.n - cut));
            if (overlap)
                hf_refuse(h, ERR_UNSUPPORTED, "added_tokens: normalized ones that overlap", s);
        }
}

static bool is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r') || (unsigned char)c >= 0x80;
}

/* White space that one token takes along must be part of no other. (Beyond ASCII any character may
 * be white space here.) */
static void check_strips(struct hf *h)
{
    const struct vocab_added *a = (const struct vocab_added *)(const void *)h->b.added.data;
    size_t n = h->b.added.len / sizeof *a;
    unsigned flags = 0;
    for (size_t i = 0; i < n; i++) flags |= a[i].flags;
    if ((flags & (ADDED_LSTRIP | ADDED_RSTRIP)) == 0) return;
    if ((flags & ADDED_NORMALIZED) != 0 && (h->b.normal & CLEAN_SPACE) != 0)
        hf_refuse(h, ERR_UNSUPPORTED, "added_tokens: lstrip or rstrip with normalized ones",
                  STR_NULL);
    for (size_t i = 0; i < n && h->err == ERR_OK; i++) {
        struct str s = { h->b.strings.data + a[i].at, a[i].n };
        if (is_space(s.p[0]) || is_space(s.p[s.n - 1]))
            hf_refuse(h, ERR_UNSUPPORTED, "added_tokens: lstrip or rstrip beside white space", s);
    }
}

struct parts {
    struct str model, added, normalizer, pre_tokenizer;
};

/* What is not listed does not count: the post-processor adds what templates bring along. */
static enum err find_parts(struct str json, struct parts *p, struct why *why)
{
    const struct {
        const char *name;
        struct str *to;
    } wanted[] = {
        { "model", &p->model },
        { "added_tokens", &p->added },
        { "normalizer", &p->normalizer },
        { "pre_tokenizer", &p->pre_tokenizer },
    };
    struct jpull j;
    struct str key;
    jpull_init(&j, json);
    for (jpull_enter(&j, '{'); jpull_key(&j, &key);) {
        size_t i = 0;
        while (i < ARRAY_LEN(wanted) && !str_eqz(key, wanted[i].name)) i++;
        struct str raw = jpull_skip(&j);
        if (i == ARRAY_LEN(wanted)) continue;
        if (wanted[i].to->p != NULL) jpull_fail(&j, "listed twice");
        *wanted[i].to = raw;
    }
    enum err e = jpull_end(&j, why);
    jpull_done(&j);
    return e;
}

enum err convert_huggingface(struct str json, const struct convert_opts *o, struct buf *ret,
                             struct why *why)
{
    struct parts parts = { .model = STR_NULL };
    struct hf h = { .why = why };
    enum err e = find_parts(json, &parts, why);
    if (e != ERR_OK) return e;
    build_init(&h.b);
    map_init(&h.ids, BUILD_MAX_SIZE);
    buf_init(&h.word, 4 * BUILD_MAX_TOKEN);
    buf_init(&h.left, 4 * BUILD_MAX_TOKEN);
    buf_init(&h.right, 4 * BUILD_MAX_TOKEN);
    buf_init(&h.bytes, BUILD_MAX_TOKEN);
    buf_init(&h.pattern, BUILD_MAX_TOKEN);
    hf_read_model_type(&h, parts.model);
    if (h.err == ERR_OK && parts.normalizer.p != NULL) hf_read_normalizer(&h, parts.normalizer);
    if (h.err == ERR_OK) hf_read_pre_tokenizer(&h, parts.pre_tokenizer);
    if (h.err == ERR_OK) hf_read_model(&h, parts.model);
    if (h.err == ERR_OK && parts.added.p != NULL)
        hf_walk(&h, "added_tokens", parts.added, read_added);
    if (h.err == ERR_OK) check_normalized(&h);
    if (h.err == ERR_OK) check_strips(&h);
    e = h.err;
    h.b.whole_all = h.ignore_merges;
    if (e == ERR_OK) e = convert_common(&h.b, o, why);
    if (e == ERR_OK && h.b.shape == SCAN_REGEX)
        e = build_text(&h.b, "pattern", buf_str(&h.pattern));
    if (e == ERR_OK && h.b.shape == SCAN_CHARS) e = chars_add_inner(&h.b, why);
    if (e == ERR_OK) e = build_finish(&h.b, ret, why);
    buf_done(&h.word);
    buf_done(&h.left);
    buf_done(&h.right);
    buf_done(&h.bytes);
    buf_done(&h.pattern);
    map_done(&h.ids);
    build_done(&h.b);
    return e;
}
