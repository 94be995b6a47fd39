/* SPDX-License-Identifier: Apache-2.0 */
/*
 * JSON text into template values, in one pass without recursion. Children wait on a stack until
 * their array or object closes and then move to the arena in one piece, so nothing is ever grown
 * there.
 */
#include <stdlib.h>
#include <string.h>

#include "base/skip.h"
#include "base/utf8.h"
#include "tokenizer/jinja/jinja_value.h"

enum { STACK_INLINE = 96 };

struct reader {
    struct arena *a;
    const char *start, *p, *end;
    struct jv *stack; /* values (and keys) that wait for their container */
    size_t len, cap;
    uint32_t open[JV_JSON_DEPTH]; /* where each open container's children begin */
    bool is_object[JV_JSON_DEPTH];
    unsigned depth;
    struct why *why;
    struct jv first[STACK_INLINE];
};

static enum err bad(struct reader *r, const char *what)
{
    return why_set(r->why, ERR_INVALID, "%s at byte %zu of the JSON", what,
                   (size_t)(r->p - r->start));
}

static enum err push(struct reader *r, struct jv v)
{
    if (r->len == r->cap) {
        size_t cap = r->cap * 2;
        if (cap > UINT32_MAX / 4) return ERR_LIMIT;
        struct jv *s = r->stack == r->first ? malloc(cap * sizeof *s)
                                            : realloc(r->stack, cap * sizeof *s);
        if (s == NULL) return ERR_NOMEM;
        if (r->stack == r->first) memcpy(s, r->first, r->len * sizeof *s);
        r->stack = s;
        r->cap = cap;
    }
    r->stack[r->len++] = v;
    return ERR_OK;
}

static void skip_space(struct reader *r)
{
    while (r->p < r->end && (*r->p == ' ' || *r->p == '\n' || *r->p == '\r' || *r->p == '\t'))
        r->p++;
}

static bool hex4(struct reader *r, const char *p, uint32_t *ret)
{
    uint64_t v;
    if (r->end - p < 4 || str_hex_to_u64(str_n(p, 4), &v) != ERR_OK) return false;
    *ret = (uint32_t)v;
    return true;
}

/* \uXXXX at r->p (behind the u), with the second half of a pair when there is one. */
static enum err unicode_escape(struct reader *r, uint32_t *ret)
{
    uint32_t hi, lo;
    if (!hex4(r, r->p, &hi)) return bad(r, "bad \\u escape");
    r->p += 4;
    if (hi >= 0xd800 && hi < 0xdc00 && r->end - r->p >= 6 && r->p[0] == '\\' && r->p[1] == 'u' &&
        hex4(r, r->p + 2, &lo) && lo >= 0xdc00 && lo < 0xe000) {
        r->p += 6;
        *ret = 0x10000 + ((hi - 0xd800) << 10) + (lo - 0xdc00);
    } else {
        *ret = hi >= 0xd800 && hi < 0xe000 ? 0xfffd : hi;
    }
    return ERR_OK;
}

/* The first quote from p on that is not escaped, or NULL. In front of p there is no backslash. */
static const char *closing_quote(const char *p, const char *end)
{
    const char *at = p;
    while (at < end && (at = memchr(at, '"', (size_t)(end - at))) != NULL) {
        const char *slash = at;
        while (slash > p && slash[-1] == '\\') slash--;
        if ((at - slash) % 2 == 0) return at;
        at++;
    }
    return NULL;
}

/* The rest of a string with escapes; plain..r->p was read already. Decoding never lengthens. */
static enum err read_escaped(struct reader *r, const char *plain, struct jv *ret)
{
    const char *close = closing_quote(r->p, r->end); /* bounds the copy */
    if (close == NULL) return bad(r, "unterminated string");
    char *out = arena_alloc(r->a, (size_t)(close - plain));
    if (out == NULL) return ERR_NOMEM;
    char *w = out;
    for (;;) {
        memcpy(w, plain, (size_t)(r->p - plain));
        w += r->p - plain;
        if (r->p >= r->end) return bad(r, "unterminated string");
        char c = *r->p;
        if (c == '"') break;
        if (c != '\\') return bad(r, "control character in a string");
        if (r->end - r->p < 2) return bad(r, "unterminated string");
        c = r->p[1];
        r->p += 2;
        switch (c) {
        case 'n': *w++ = '\n'; break;
        case 't': *w++ = '\t'; break;
        case 'r': *w++ = '\r'; break;
        case 'b': *w++ = '\b'; break;
        case 'f': *w++ = '\f'; break;
        case '"':
        case '\\':
        case '/': *w++ = c; break;
        case 'u': {
            uint32_t cp = 0;
            enum err e = unicode_escape(r, &cp);
            if (e != ERR_OK) return e;
            char enc[4];
            size_t n = utf8_encode(cp, enc);
            memcpy(w, enc, n);
            w += n;
            break;
        }
        default: r->p -= 2; return bad(r, "unknown escape in a string");
        }
        plain = r->p;
        r->p = skip_json_plain(plain, r->end);
    }
    r->p++;
    *ret = jv_str(str_n(out, (size_t)(w - out)));
    return ERR_OK;
}

static enum err read_string(struct reader *r, struct jv *ret)
{
    const char *plain = ++r->p;
    r->p = skip_json_plain(plain, r->end);
    if (r->p < r->end && *r->p == '"') {
        *ret = jv_str(str_n(plain, (size_t)(r->p - plain)));
        r->p++;
        return ERR_OK;
    }
    return read_escaped(r, plain, ret);
}

enum err jv_read_string(struct arena *a, const char **p, const char *end, struct jv *ret)
{
    struct reader r;
    r.a = a;
    r.start = r.p = *p;
    r.end = end;
    r.why = NULL;
    enum err e = read_string(&r, ret);
    if (e == ERR_OK) *p = r.p;
    return e;
}

static bool digit_at(const struct reader *r, const char *p)
{
    return p < r->end && *p >= '0' && *p <= '9';
}

static enum err read_number(struct reader *r, struct jv *ret)
{
    const char *p = r->p, *from = p;
    bool whole = true;
    if (*p == '-') p++;
    if (!digit_at(r, p)) return bad(r, "bad number");
    if (*p == '0')
        p++;
    else
        while (digit_at(r, p)) p++;
    if (p < r->end && *p == '.') {
        whole = false;
        if (!digit_at(r, ++p)) return bad(r, "bad number");
        while (digit_at(r, p)) p++;
    }
    if (p < r->end && (*p == 'e' || *p == 'E')) {
        whole = false;
        p++;
        if (p < r->end && (*p == '+' || *p == '-')) p++;
        if (!digit_at(r, p)) return bad(r, "bad number");
        while (digit_at(r, p)) p++;
    }
    struct str text = str_n(from, (size_t)(p - from));
    r->p = p;
    int64_t i;
    if (whole) {
        if (str_to_i64(text, &i) == ERR_OK)
            *ret = jv_int(i);
        else
            *ret = (struct jv){ .type = JV_BIGINT, .n = (uint32_t)text.n, .s = text.p };
        return ERR_OK;
    }
    char *z = arena_dupz(r->a, text);
    if (z == NULL) return ERR_NOMEM;
    *ret = jv_float(strtod(z, NULL));
    return ERR_OK;
}

static enum err read_word(struct reader *r, struct jv *ret)
{
    static const struct {
        const char *word;
        uint8_t n, type, b;
    } words[] = { { "true", 4, JV_BOOL, 1 },
                  { "false", 5, JV_BOOL, 0 },
                  { "null", 4, JV_NONE, 0 } };
    for (size_t i = 0; i < ARRAY_LEN(words); i++) {
        if (r->end - r->p < words[i].n || memcmp(r->p, words[i].word, words[i].n) != 0) continue;
        r->p += words[i].n;
        *ret = words[i].type == JV_NONE ? jv_none() : jv_bool(words[i].b != 0);
        return ERR_OK;
    }
    return bad(r, r->p < r->end ? "unexpected character" : "unexpected end");
}

static enum err open_container(struct reader *r, bool object)
{
    if (r->depth == JV_JSON_DEPTH)
        return why_set(r->why, ERR_LIMIT, "JSON is nested more than %d deep", JV_JSON_DEPTH);
    r->open[r->depth] = (uint32_t)r->len;
    r->is_object[r->depth++] = object;
    r->p++;
    return ERR_OK;
}

/* The children of the innermost container become its value. */
static enum err close_container(struct reader *r, struct jv *ret)
{
    unsigned d = --r->depth;
    struct jv *from = r->stack + r->open[d];
    size_t n = r->len - r->open[d];
    r->len = r->open[d];
    r->p++;
    if (!r->is_object[d]) {
        struct jv_list *l = jv_list_new(r->a, n);
        if (l == NULL) return ERR_NOMEM;
        if (n > 0) memcpy(l->items, from, n * sizeof *from);
        *ret = jv_of_list(JV_LIST, l);
        return ERR_OK;
    }
    struct jv_dict *dict = jv_dict_new(r->a, n / 2);
    if (dict == NULL) return ERR_NOMEM;
    for (size_t i = 0; i + 1 < n; i += 2) {
        enum err e = jv_dict_set(r->a, dict, from[i], from[i + 1]);
        if (e != ERR_OK) return e;
    }
    *ret = jv_of_dict(dict);
    return ERR_OK;
}

/* Reads `"key" :` and leaves r->p before the value. */
static enum err read_key(struct reader *r)
{
    struct jv key;
    skip_space(r);
    if (r->p >= r->end || *r->p != '"') return bad(r, "expected a key in quotes");
    enum err e = read_string(r, &key);
    if (e != ERR_OK) return e;
    skip_space(r);
    if (r->p >= r->end || *r->p != ':') return bad(r, "expected ':' after a key");
    r->p++;
    return push(r, key);
}

/* Reads one value, or opens a container and sets *ret_opened. */
static enum err read_value(struct reader *r, struct jv *ret, bool *ret_opened)
{
    *ret_opened = false;
    skip_space(r);
    if (r->p >= r->end) return bad(r, "unexpected end");
    char c = *r->p;
    if (c == '"') return read_string(r, ret);
    if (c == '-' || (c >= '0' && c <= '9')) return read_number(r, ret);
    if (c != '{' && c != '[') return read_word(r, ret);
    enum err e = open_container(r, c == '{');
    if (e != ERR_OK) return e;
    skip_space(r);
    if (r->p < r->end && *r->p == (c == '{' ? '}' : ']')) return close_container(r, ret);
    *ret_opened = true;
    return c == '{' ? read_key(r) : ERR_OK;
}

static enum err read_all(struct reader *r, struct jv *ret)
{
    for (;;) {
        struct jv v;
        bool opened;
        enum err e = read_value(r, &v, &opened);
        if (e != ERR_OK) return e;
        if (opened) continue;
        for (;;) { /* v is complete: it belongs to the container it stands in */
            if (r->depth == 0) {
                *ret = v;
                return ERR_OK;
            }
            e = push(r, v);
            if (e != ERR_OK) return e;
            bool object = r->is_object[r->depth - 1];
            skip_space(r);
            if (r->p >= r->end) return bad(r, "unexpected end");
            if (*r->p == ',') {
                r->p++;
                if (object) e = read_key(r);
                if (e != ERR_OK) return e;
                break;
            }
            if (*r->p != (object ? '}' : ']')) return bad(r, "expected ',' or a closing bracket");
            e = close_container(r, &v);
            if (e != ERR_OK) return e;
        }
    }
}

enum err jv_read_json(struct arena *a, struct str text, struct jv *ret, struct why *why)
{
    if (text.n > JV_JSON_MAX) return why_set(why, ERR_LIMIT, "JSON is too long");
    struct reader r;
    r.a = a;
    r.start = r.p = text.p;
    r.end = text.p + text.n;
    r.stack = r.first;
    r.len = 0;
    r.cap = STACK_INLINE;
    r.depth = 0;
    r.why = why;
    struct jv v;
    enum err e = read_all(&r, &v);
    if (e == ERR_OK) {
        skip_space(&r);
        if (r.p != r.end) e = bad(&r, "something follows the value");
    }
    if (r.stack != r.first) free(r.stack);
    if (e == ERR_NOMEM) why_set(why, e, "the JSON needs more memory than it may have");
    if (e != ERR_OK) return e;
    *ret = v;
    return ERR_OK;
}
