/* SPDX-License-Identifier: Apache-2.0 */
#include "json_scan.h"

#include "base/skip.h"
#include "base/utf8.h"
#include "json_want.h"

static bool is_space(char c)
{
    return c == ' ' || c == '\n' || c == '\r' || c == '\t';
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_hex(char c)
{
    return is_digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

static inline const char *skip_space(const char *p, const char *end)
{
    while (p < end && (unsigned char)*p <= ' ' && is_space(*p)) p++;
    return p;
}

/* Each check_*() returns the byte behind what it read, or NULL. */

static const char *check_string(const char *p, const char *end)
{
    const char *start = ++p;
    bool high = false;
    for (; (p = skip_json_noting(p, end, &high)) < end; p++) {
        if (*p == '"' && high && !str_is_utf8(str_n(start, (size_t)(p - start)))) return NULL;
        if (*p == '"') return p + 1;
        if (*p != '\\' || ++p >= end) return NULL;
        if (*p == 'u') {
            if (end - p < 5) return NULL;
            for (int i = 1; i <= 4; i++)
                if (!is_hex(p[i])) return NULL;
            p += 4;
        } else if (memchr("\"\\/bfnrt", *p, 8) == NULL) {
            return NULL;
        }
    }
    return NULL;
}

/* The same, sooner for the short ones of plain letters that keys and most values are. */
static inline const char *check_short(const char *p, const char *end)
{
    if (end - p > 16) {
        skip_bytes v = skip_load(p + 1);
        unsigned at = skip_first(skip_hits_json(v) | (skip_bytes)(v >= 0x80));
        if (at < 16 && p[1 + at] == '"') return p + at + 2;
    }
    return check_string(p, end);
}

static const char *check_digits(const char *p, const char *end)
{
    if (p >= end || !is_digit(*p)) return NULL;
    while (p < end && is_digit(*p)) p++;
    return p;
}

static const char *check_number(const char *p, const char *end)
{
    if (*p == '-') p++;
    if (p >= end) return NULL;
    p = *p == '0' ? p + 1 : check_digits(p, end);
    if (p != NULL && p < end && *p == '.') p = check_digits(p + 1, end);
    if (p != NULL && p < end && (*p == 'e' || *p == 'E')) {
        p++;
        if (p < end && (*p == '+' || *p == '-')) p++;
        p = check_digits(p, end);
    }
    return p;
}

static const char *check_word(const char *p, const char *end, struct str word)
{
    return str_starts(str_n(p, (size_t)(end - p)), word) ? p + word.n : NULL;
}

static inline const char *check_scalar(const char *p, const char *end)
{
    switch (*p) {
    case '"': return check_short(p, end);
    case 't': return check_word(p, end, STR("true"));
    case 'f': return check_word(p, end, STR("false"));
    case 'n': return check_word(p, end, STR("null"));
    default: return *p == '-' || is_digit(*p) ? check_number(p, end) : NULL;
    }
}

static enum js_type type_of(char first)
{
    switch (first) {
    case '{': return JS_OBJECT;
    case '[': return JS_ARRAY;
    case '"': return JS_STRING;
    case 't': return JS_TRUE;
    case 'f': return JS_FALSE;
    case 'n': return JS_NULL;
    default: return JS_NUMBER;
    }
}

static enum err bad(struct why *why, struct str text, const char *at, const char *what)
{
    return why_set(why, ERR_INVALID, "not valid JSON: %s at byte %zu", what, (size_t)(at - text.p));
}

/* Marks that are set while the text is checked. */
struct marker {
    struct js_mark *v;
    size_t n, most; /* n > most: they did not fit */
    uint16_t open[JS_MAX_DEPTH];
};

static inline void mark_one(struct marker *m, const char *p, const char *end)
{
    if (m->n < m->most) m->v[m->n] = (struct js_mark){ p, (uint32_t)(end - p), 1 };
    m->n++;
}

static inline void mark_open(struct marker *m, size_t depth, const char *p)
{
    m->open[depth] = (uint16_t)MIN(m->n, m->most);
    mark_one(m, p, p);
}

static inline void mark_close(struct marker *m, size_t depth, const char *end)
{
    size_t at = m->open[depth];
    if (at >= m->most) return;
    m->v[at].n = (uint32_t)(end - m->v[at].p);
    m->v[at].marks = (uint32_t)(m->n - at);
}

/* Both kinds of brackets are two apart in ASCII. */
static inline bool closes(char c, char bracket)
{
    return c == bracket + 2;
}

/* One pass with an explicit stack of brackets; each turn takes a value, with its key where it has
 * one, and what ends with it. */
static inline __attribute__((always_inline)) enum err parse(struct str text, struct js_seek *seek,
                                                            struct marker *marker,
                                                            struct js_val *ret, struct why *why)
{
    char stack[1 + JS_MAX_DEPTH];
    size_t depth = 0;
    bool opened = false; /* right behind an opening bracket */
    if (text.n == 0) return bad(why, text, text.p, "unexpected end"); /* text.p may be NULL */
    const char *p = skip_space(text.p, text.p + text.n), *end = text.p + text.n, *start = p;
    stack[0] = '\0'; /* the document is in none */
    do {
        p = skip_space(p, end);
        if (p >= end) return bad(why, text, p, "unexpected end");
        bool empty = opened && closes(*p, stack[depth]);
        if (!empty && stack[depth] == '{') {
            const char *key_end = *p == '"' ? check_short(p, end) : NULL, *problem;
            if (key_end == NULL) return bad(why, text, p, "expected a key");
            if (seek != NULL && (problem = js_seek_key(
                                     seek, depth, str_n(p + 1, (size_t)(key_end - p) - 2))) != NULL)
                return why_set(why, ERR_DENIED, "%s: byte %zu", problem, (size_t)(p - text.p));
            if (marker != NULL) mark_one(marker, p, key_end);
            p = skip_space(key_end, end);
            if (p >= end || *p != ':') return bad(why, text, p, "expected a colon");
            p = skip_space(p + 1, end);
            if (p >= end) return bad(why, text, p, "unexpected end");
        }
        opened = !empty && (*p == '{' || *p == '[');
        if (opened) {
            if (depth == JS_MAX_DEPTH)
                return why_set(why, ERR_LIMIT, "nested deeper than %d levels", JS_MAX_DEPTH);
            if (seek != NULL) js_seek_open(seek, depth, stack[depth] == '[', p);
            if (marker != NULL) mark_open(marker, depth, p);
            stack[++depth] = *p++;
            continue;
        }
        if (!empty) {
            const char *next = check_scalar(p, end);
            if (next == NULL) return bad(why, text, p, "unexpected character");
            if (seek != NULL)
                js_seek_scalar(seek, depth, stack[depth] == '[',
                               (struct js_val){ type_of(*p), str_n(p, (size_t)(next - p)), NULL });
            if (marker != NULL) mark_one(marker, p, next);
            p = next;
        }
        for (; depth > 0; depth--) {
            p = skip_space(p, end);
            if (p >= end) return bad(why, text, p, "unexpected end");
            if (*p == ',') break;
            if (!closes(*p, stack[depth]))
                return bad(why, text, p,
                           *p == '}' || *p == ']' ? "unexpected bracket" : "expected a comma");
            p++;
            if (seek != NULL) js_seek_close(seek, depth, p[-1] == ']' ? JS_ARRAY : JS_OBJECT, p);
            if (marker != NULL) mark_close(marker, depth - 1, p);
        }
        if (depth > 0) p++; /* the comma */
    } while (depth > 0);
    if (skip_space(p, end) != end) return bad(why, text, p, "bytes behind the document");
    bool marked = marker != NULL && marker->n <= marker->most;
    *ret = (struct js_val){ type_of(*start), str_n(start, (size_t)(p - start)),
                            marked ? marker->v : NULL };
    return ERR_OK;
}

/* Strings are checked as they pass, and nothing else may hold what is not ASCII: whether the whole
 * is UTF-8 is asked only to say what is wrong. */
static enum err told(enum err e, struct str text, struct why *why)
{
    if (e == ERR_OK || str_is_utf8(text)) return e;
    return why_set(why, ERR_INVALID, "not valid UTF-8");
}

/* Three copies of the pass: most documents are looked into for nothing. */
enum err js_parse_wanting(struct str text, const struct js_wants *wants, struct js_val *ret,
                          struct js_val *ret_found, struct why *why)
{
    struct js_seek seek;
    if (js_wants_count(wants) == 0) return js_parse(text, ret, why);
    js_seek_init(&seek, wants, ret_found);
    return told(parse(text, &seek, NULL, ret, why), text, why);
}

enum err js_parse(struct str text, struct js_val *ret, struct why *why)
{
    return told(parse(text, NULL, NULL, ret, why), text, why);
}

enum err js_parse_marked(struct str text, struct js_mark *marks, size_t marks_n, struct js_val *ret,
                         struct why *why)
{
    struct marker m;
    ASSERT(marks_n <= JS_MARKS_MAX);
    if (text.n > UINT32_MAX) return js_parse(text, ret, why);
    m.v = marks, m.n = 0, m.most = marks_n;
    return told(parse(text, NULL, &m, ret, why), text, why);
}

/* --- walking what was validated --- */

static const char *skip_string(const char *p, const char *end)
{
    const char *start = p++, *near = end - p > 32 ? p + 32 : end;
    for (;; p += 2) { /* keys are short */
        p = skip_json_plain(p, near);
        if (p >= near) break;
        if (*p == '"') return p + 1;
    }
    for (p = near - 1;;) { /* texts are long, and few of their quotes are escaped */
        p = memchr(p + 1, '"', (size_t)(end - p - 1));
        size_t slashes = 0;
        ASSERT(p != NULL); /* it was validated */
        while (p - 1 - slashes > start && p[-1 - (ptrdiff_t)slashes] == '\\') slashes++;
        if (slashes % 2 == 0) return p + 1;
    }
}

/* The byte behind the value at p. */
static const char *skip_value(const char *p, const char *end)
{
    size_t depth = 0;
    do {
        switch (*p) {
        case '"': p = skip_string(p, end); continue;
        case '{':
        case '[': depth++; break;
        case '}':
        case ']': depth--; break;
        default:
            if (depth == 0) {
                while (p < end && *p != ',' && *p != '}' && *p != ']' && !is_space(*p)) p++;
                return p;
            }
        }
        p++;
    } while (depth > 0);
    return p;
}

void js_iter_init(struct js_iter *it, struct js_val container)
{
    bool inside = js_is(container, JS_OBJECT) || js_is(container, JS_ARRAY);
    it->p = inside ? container.raw.p + 1 : NULL;
    it->end = inside ? container.raw.p + container.raw.n - 1 : NULL;
    it->members = js_is(container, JS_OBJECT);
    it->mark = inside && container.mark != NULL ? container.mark + 1 : NULL;
    it->mark_end = it->mark != NULL ? container.mark + container.mark->marks : NULL;
}

/* The value whose mark comes. */
static void take_marked(struct js_iter *it, struct js_val *ret)
{
    const struct js_mark *m = it->mark;
    it->mark = m + m->marks;
    *ret = (struct js_val){ type_of(*m->p), str_n(m->p, m->n), m };
}

static bool at_next(struct js_iter *it)
{
    it->p = skip_space(it->p, it->end);
    if (it->p < it->end && *it->p == ',') it->p = skip_space(it->p + 1, it->end);
    return it->p < it->end;
}

static void take_value(struct js_iter *it, struct js_val *ret)
{
    const char *start = it->p;
    it->p = skip_value(start, it->end);
    *ret = (struct js_val){ type_of(*start), str_n(start, (size_t)(it->p - start)), NULL };
}

/* Without marks; apart, so that those who have them do not pay for it. */
static __attribute__((noinline)) bool find_element(struct js_iter *it, struct js_val *ret)
{
    if (!at_next(it)) return false;
    take_value(it, ret);
    return true;
}

static __attribute__((noinline)) bool find_member(struct js_iter *it, struct str *ret_key,
                                                  struct js_val *ret)
{
    if (!at_next(it)) return false;
    const char *key = it->p + 1;
    it->p = skip_string(it->p, it->end);
    *ret_key = str_n(key, (size_t)(it->p - 1 - key));
    it->p = skip_space(it->p, it->end) + 1; /* the colon */
    it->p = skip_space(it->p, it->end);
    take_value(it, ret);
    return true;
}

bool js_next_element(struct js_iter *it, struct js_val *ret)
{
    if (it->members) return false;
    if (it->mark == NULL) return find_element(it, ret);
    if (it->mark == it->mark_end) return false;
    take_marked(it, ret);
    return true;
}

bool js_next_member(struct js_iter *it, struct str *ret_key, struct js_val *ret)
{
    if (!it->members) return false;
    if (it->mark == NULL) return find_member(it, ret_key, ret);
    if (it->mark == it->mark_end) return false;
    *ret_key = str_n(it->mark->p + 1, it->mark->n - 2);
    it->mark++;
    take_marked(it, ret);
    return true;
}

struct js_val js_get(struct js_val object, const char *key)
{
    struct js_iter it;
    struct str k;
    struct js_val v;
    if (js_is(object, JS_OBJECT)) {
        js_iter_init(&it, object);
        while (js_next_member(&it, &k, &v))
            if (js_key_is(k, key)) return v;
    }
    return JS_ABSENT;
}

enum err js_u64(struct js_val v, uint64_t *ret)
{
    return js_is(v, JS_NUMBER) ? str_to_u64(v.raw, ret) : ERR_INVALID;
}

/* How many bytes the character has that begins with this one, in valid UTF-8. */
static size_t utf8_length(char first)
{
    unsigned char c = (unsigned char)first;
    return c < 0x80 ? 1 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4;
}

/* --- strings --- */

const char *js_string_end(const char *p, const char *end)
{
    const char *behind = check_string(p - 1, end);
    return behind != NULL ? behind - 1 : NULL;
}

static uint32_t hex4(const char *p)
{
    uint64_t v = 0;
    return str_hex_to_u64(str_n(p, 4), &v) == ERR_OK ? (uint32_t)v : 0;
}

/* Decodes the escape at p (a backslash). Returns its raw length, and its bytes in out. */
static size_t decode_escape(const char *p, const char *end, char out[4], size_t *ret_n)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    if (p[1] != 'u') {
        const char *at = memchr(from, p[1], 8);
        out[0] = to[at - from];
        *ret_n = 1;
        return 2;
    }
    uint32_t cp = hex4(p + 2);
    size_t raw = 6;
    if (cp >= 0xd800 && cp <= 0xdbff && end - p >= 12 && p[6] == '\\' && p[7] == 'u') {
        uint32_t low = hex4(p + 8);
        if (low >= 0xdc00 && low <= 0xdfff) {
            cp = 0x10000 + ((cp - 0xd800) << 10) + (low - 0xdc00);
            raw = 12;
        }
    }
    if (cp >= 0xd800 && cp <= 0xdfff) cp = 0xfffd;
    *ret_n = utf8_encode(cp, out);
    return raw;
}

enum err js_decode(struct js_val string, struct buf *out)
{
    const char *p = string.raw.p + 1, *end = string.raw.p + string.raw.n - 1;
    enum err e = ERR_OK;
    while (p < end && e == ERR_OK) {
        const char *slash = memchr(p, '\\', (size_t)(end - p));
        e = buf_append(out, p, (size_t)((slash != NULL ? slash : end) - p));
        if (slash == NULL || e != ERR_OK) break;
        char bytes[4];
        size_t n;
        p = slash + decode_escape(slash, end, bytes, &n);
        e = buf_append(out, bytes, n);
    }
    return e;
}

size_t js_raw_prefix(struct js_val string, uint64_t n)
{
    const char *start = string.raw.p + 1, *end = string.raw.p + string.raw.n - 1, *p = start;
    while (p < end && n > 0) {
        char bytes[4];
        size_t len = 1;
        const char *next = *p == '\\' ? p + decode_escape(p, end, bytes, &len) : p + 1;
        if (len > n) break;
        n -= len;
        p = next;
    }
    return (size_t)(p - start);
}

bool js_escaped_key_is(struct str raw_key, const char *name)
{
    struct str want = str_of(name);
    const char *p = raw_key.p, *end = raw_key.p + raw_key.n;
    size_t at = 0;
    while (p < end) {
        char bytes[4] = { *p };
        size_t len = 1;
        p = *p == '\\' ? p + decode_escape(p, end, bytes, &len) : p + 1;
        if (len > want.n - at || memcmp(want.p + at, bytes, len) != 0) return false;
        at += len;
    }
    return at == want.n;
}

bool js_key_is_like(struct str raw_key, const char *name)
{
    const char *p = raw_key.p, *end = raw_key.p + raw_key.n;
    for (; *name != '\0'; name++) {
        char bytes[4];
        size_t len = 1;
        if (p >= end) return false;
        if (*p == '\\') {
            p += decode_escape(p, end, bytes, &len);
        } else {
            len = MIN(utf8_length(*p), (size_t)(end - p));
            memcpy(bytes, p, len);
            p += len;
        }
        struct str c = str_n(bytes, len);
        char folded = len == 1                     ? bytes[0]
                      : str_eqz(c, "\xc5\xbf")     ? 's'
                      : str_eqz(c, "\xe2\x84\xaa") ? 'k'
                                                   : '\0';
        if (folded >= 'A' && folded <= 'Z') folded = (char)(folded + ('a' - 'A'));
        if (folded != *name) return false;
    }
    return p == end;
}
