/* SPDX-License-Identifier: Apache-2.0 */
/* OpenAI's .tiktoken (a line for each token: base64 of its bytes, its rank) and Mistral's
 * tekken.json (the same as JSON, ids behind the special tokens). Any thread. */
#include "tokenizer/scan/clean.h"
#include "tokenizer/convert/convert_parts.h"

enum err convert_base64(struct str s, struct buf *out)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    if (s.n == 0 || s.n % 4 != 0) return ERR_INVALID;
    size_t pad = s.p[s.n - 1] == '=' ? (s.p[s.n - 2] == '=' ? 2 : 1) : 0;
    for (size_t i = 0; i < s.n; i += 4) {
        uint32_t w = 0;
        size_t bytes = i + 4 == s.n ? 3 - pad : 3;
        for (size_t k = 0; k < 4; k++) {
            const char *at = k <= bytes ? memchr(digits, s.p[i + k], 64) : digits;
            if (at == NULL) return ERR_INVALID;
            w = w << 6 | (uint32_t)(at - digits);
        }
        char b[3] = { (char)(w >> 16), (char)(w >> 8), (char)w };
        enum err e = buf_append(out, b, bytes);
        if (e != ERR_OK) return e;
    }
    return ERR_OK;
}

/* Adds a token and enters its bytes in ids. */
static enum err add_token(struct build *b, struct map *ids, uint32_t id, struct str bytes)
{
    void *old = NULL;
    enum err e = build_token(b, id, bytes);
    if (e == ERR_OK) e = map_put(ids, bytes, convert_value(id), &old);
    return e == ERR_OK && old != NULL ? ERR_INVALID : e;
}

static enum err add_specials(struct build *b, struct str json, struct why *why)
{
    struct jpull j;
    struct str key;
    enum err e = ERR_OK;
    jpull_init(&j, json);
    for (jpull_enter(&j, '{'); e == ERR_OK && jpull_key(&j, &key);) {
        struct buf content;
        buf_init(&content, BUILD_MAX_TOKEN);
        e = buf_append_str(&content, key);
        uint32_t id = (uint32_t)jpull_uint(&j, BUILD_MAX_SIZE - 1);
        if (e == ERR_OK && !j.failed) e = build_added(b, buf_str(&content), id, ADDED_SPECIAL);
        buf_done(&content);
    }
    if (e == ERR_OK) e = jpull_end(&j, why);
    jpull_done(&j);
    return e;
}

static enum err add_reserved(struct build *b, uint32_t from, uint32_t to)
{
    enum err e = ERR_OK;
    for (uint32_t id = from; id < to && e == ERR_OK; id++) {
        char name[32];
        (void)snprintf(name, sizeof name, "<|reserved_%u|>", id);
        e = build_added(b, str_of(name), id, ADDED_SPECIAL);
    }
    return e;
}

enum err convert_tiktoken(struct str ranks, const struct convert_opts *o, struct buf *ret,
                          struct why *why)
{
    struct build b;
    struct map ids;
    struct buf bytes;
    enum err e = ERR_OK;
    build_init(&b);
    map_init(&ids, BUILD_MAX_SIZE);
    buf_init(&bytes, BUILD_MAX_TOKEN);
    b.shape = scan_shape_of(o->pattern);
    b.normal = b.shape == SCAN_QWEN ? CLEAN_NFC : 0;
    b.whole_all = true;
    if (b.shape == 0) {
        e = why_set(why, ERR_UNSUPPORTED,
                    "pattern \"%.*s\": known are cl100k, llama3, qwen, o200k, tekken, gpt2",
                    STR_ARG(o->pattern));
        goto out;
    }
    for (size_t line = 1; ranks.n > 0; line++) {
        struct str rest = str_cut(&ranks, '\n');
        if (rest.n > 0 && rest.p[rest.n - 1] == '\r') rest.n--;
        if (rest.n == 0) continue;
        struct str word = str_cut(&rest, ' ');
        uint64_t rank;
        buf_clear(&bytes);
        e = convert_base64(word, &bytes);
        if (e == ERR_OK) e = str_to_u64(rest, &rank);
        if (e == ERR_OK && rank >= BUILD_MAX_SIZE) e = ERR_LIMIT;
        if (e == ERR_OK) e = add_token(&b, &ids, (uint32_t)rank, buf_str(&bytes));
        if (e != ERR_OK) {
            e = why_set(why, e, "line %zu is not the base64 of a new token and its rank", line);
            goto out;
        }
    }
    e = convert_pairs_from_ranks(&b, 0, &ids, why);
    if (e == ERR_OK && o->specials.n > 0) e = add_specials(&b, o->specials, why);
    if (e == ERR_OK) e = add_reserved(&b, o->reserved, o->reserved_end);
    if (e == ERR_OK) e = convert_common(&b, o, why);
    if (e == ERR_OK) e = build_finish(&b, ret, why);
out:
    buf_done(&bytes);
    map_done(&ids);
    build_done(&b);
    return e;
}

struct tekken {
    struct build b;
    struct map ids;
    uint32_t specials, size;
    uint64_t tokens; /* entries of the list so far */
    struct buf word, bytes;
};

static void tekken_config(struct tekken *t, struct jpull *j)
{
    struct str key;
    for (jpull_enter(j, '{'); jpull_key(j, &key);) {
        if (str_eqz(key, "pattern")) {
            buf_clear(&t->word);
            jpull_string(j, &t->word);
            t->b.shape = scan_shape_of(buf_str(&t->word));
        } else if (str_eqz(key, "default_vocab_size")) {
            t->size = (uint32_t)jpull_uint(j, BUILD_MAX_SIZE);
        } else if (str_eqz(key, "default_num_special_tokens")) {
            t->specials = (uint32_t)jpull_uint(j, BUILD_MAX_SIZE);
        } else {
            (void)jpull_skip(j);
        }
    }
}

/* The rank that the object has, UINT64_MAX when there is none, and what it has as `text` in
 * t->word.
 */
static uint64_t tekken_entry(struct tekken *t, struct jpull *j, const char *text)
{
    struct str key;
    uint64_t rank = UINT64_MAX;
    buf_clear(&t->word);
    for (jpull_enter(j, '{'); jpull_key(j, &key);) {
        if (str_eqz(key, "rank"))
            rank = jpull_uint(j, BUILD_MAX_SIZE);
        else if (str_eqz(key, text) && t->word.len == 0)
            jpull_string(j, &t->word);
        else
            (void)jpull_skip(j);
    }
    return rank;
}

/* {"rank": 0, "token_bytes": "AA==", "token_str": ...}, in the order of ranks */
static enum err tekken_token(struct tekken *t, struct jpull *j)
{
    uint64_t rank = tekken_entry(t, j, "token_bytes");
    if (j->failed) return ERR_OK;
    if (rank != t->tokens++) return ERR_INVALID;
    if (rank + t->specials >= t->size) return ERR_OK; /* models use the beginning of the list */
    buf_clear(&t->bytes);
    enum err e = convert_base64(buf_str(&t->word), &t->bytes);
    if (e != ERR_OK) return e;
    return add_token(&t->b, &t->ids, (uint32_t)rank + t->specials, buf_str(&t->bytes));
}

/* {"rank": 0, "token_str": "<unk>", "is_control": true} */
static enum err tekken_special(struct tekken *t, struct jpull *j)
{
    uint64_t rank = tekken_entry(t, j, "token_str");
    if (j->failed) return ERR_OK;
    if (rank >= t->specials) return ERR_INVALID;
    return build_added(&t->b, buf_str(&t->word), (uint32_t)rank, ADDED_SPECIAL);
}

enum err convert_tekken(struct str json, const struct convert_opts *o, struct buf *ret,
                        struct why *why)
{
    struct tekken t = { .size = 131072, .specials = 1000 };
    struct jpull j;
    struct str key;
    enum err e = ERR_OK;
    bool configured = false;
    build_init(&t.b);
    map_init(&t.ids, BUILD_MAX_SIZE);
    buf_init(&t.word, 4 * BUILD_MAX_TOKEN);
    buf_init(&t.bytes, BUILD_MAX_TOKEN);
    jpull_init(&j, json);
    t.b.whole_all = true;
    for (jpull_enter(&j, '{'); e == ERR_OK && jpull_key(&j, &key);) {
        if (str_eqz(key, "config")) {
            tekken_config(&t, &j);
            configured = true;
        } else if (str_eqz(key, "vocab") || str_eqz(key, "special_tokens")) {
            bool special = key.p[0] == 's';
            if (!configured) e = why_set(why, ERR_UNSUPPORTED, "\"config\" does not come first");
            for (jpull_enter(&j, '['); e == ERR_OK && jpull_element(&j);) {
                e = special ? tekken_special(&t, &j) : tekken_token(&t, &j);
                if (e != ERR_OK)
                    e = why_set(why, e, "token %llu is not as it should be",
                                (unsigned long long)t.tokens);
            }
        } else {
            (void)jpull_skip(&j);
        }
    }
    if (e == ERR_OK) e = jpull_end(&j, why);
    if (e == ERR_OK && t.b.shape == 0)
        e = why_set(why, ERR_UNSUPPORTED, "no pattern, or one that is not known");
    if (e == ERR_OK) e = convert_pairs_from_ranks(&t.b, t.specials, &t.ids, why);
    if (e == ERR_OK) e = convert_common(&t.b, o, why);
    if (e == ERR_OK) e = build_finish(&t.b, ret, why);
    jpull_done(&j);
    buf_done(&t.word);
    buf_done(&t.bytes);
    map_done(&t.ids);
    build_done(&t.b);
    return e;
}
