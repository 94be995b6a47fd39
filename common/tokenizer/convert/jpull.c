/* SPDX-License-Identifier: Apache-2.0 */
/* A pull reader of JSON. One owner thread. */
#include "tokenizer/convert/jpull.h"

#include "base/utf8.h"

void jpull_init(struct jpull *j, struct str text)
{
    memset(j, 0, sizeof *j);
    j->start = j->p = text.n > 0 ? text.p : "";
    j->end = j->p + text.n;
    j->first = true;
    buf_init(&j->keys, 1u << 20);
}

void jpull_done(struct jpull *j)
{
    buf_done(&j->keys);
}

void jpull_fail(struct jpull *j, const char *reason)
{
    if (!j->failed) j->reason = reason;
    j->failed = true;
}

static void space(struct jpull *j)
{
    while (j->p < j->end && (*j->p == ' ' || *j->p == '\n' || *j->p == '\t' || *j->p == '\r'))
        j->p++;
}

static bool take(struct jpull *j, char c, const char *reason)
{
    if (j->failed) return false;
    if (j->p < j->end && *j->p == c) return j->p++, true;
    jpull_fail(j, reason);
    return false;
}

char jpull_peek(struct jpull *j)
{
    if (j->failed) return 0;
    space(j);
    if (j->p == j->end) return 0;
    char c = *j->p;
    if (c == '-' || (c >= '0' && c <= '9')) return '0';
    return memchr("{[\"tfn", c, 6) != NULL ? c : 0;
}

void jpull_enter(struct jpull *j, char open)
{
    space(j);
    if (!take(j, open, open == '{' ? "an object should be here" : "an array should be here"))
        return;
    if (j->depth == JPULL_DEPTH) {
        jpull_fail(j, "nested too deeply");
        return;
    }
    j->closers[j->depth++] = open == '{' ? '}' : ']';
    j->first = true;
}

/* True when another member follows in the innermost container. */
static bool another(struct jpull *j, char closer)
{
    if (j->failed) return false;
    ASSERT(j->depth > 0 && j->closers[j->depth - 1] == closer);
    space(j);
    if (j->p < j->end && *j->p == closer) {
        j->p++;
        j->depth--;
        j->first = false;
        return false;
    }
    if (!j->first) {
        if (!take(j, ',', "a comma should be here")) return false;
        space(j);
    }
    j->first = false;
    return true;
}

bool jpull_key(struct jpull *j, struct str *ret)
{
    if (!another(j, '}')) return false;
    buf_clear(&j->keys);
    jpull_string(j, &j->keys);
    space(j);
    if (!take(j, ':', "a colon should be here")) return false;
    *ret = buf_str(&j->keys);
    return true;
}

bool jpull_element(struct jpull *j)
{
    return another(j, ']');
}

static void put(struct jpull *j, struct buf *out, const char *p, size_t n)
{
    if (out == NULL || j->failed) return;
    enum err e = buf_append(out, p, n);
    if (e == ERR_OK) return;
    j->nomem = e == ERR_NOMEM;
    jpull_fail(j, "a string is too long");
}

static uint32_t hex4(struct jpull *j)
{
    uint64_t x = 0;
    if (j->end - j->p < 4 || str_hex_to_u64(str_n(j->p, 4), &x) != ERR_OK) {
        jpull_fail(j, "bad \\u escape");
        return 0xfffd;
    }
    j->p += 4;
    return (uint32_t)x;
}

static void escape(struct jpull *j, struct buf *out)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    char utf8[4];
    if (j->p == j->end) return;
    char c = *j->p++;
    const char *at = c != '\0' ? strchr(from, c) : NULL;
    if (at != NULL) {
        put(j, out, &to[at - from], 1);
        return;
    }
    if (c != 'u') {
        jpull_fail(j, "unknown escape");
        return;
    }
    uint32_t cp = hex4(j);
    if (cp >= 0xd800 && cp < 0xdc00 && j->end - j->p >= 6 && j->p[0] == '\\' && j->p[1] == 'u') {
        const char *back = j->p;
        j->p += 2;
        uint32_t low = hex4(j);
        if (low >= 0xdc00 && low < 0xe000)
            cp = 0x10000 + ((cp - 0xd800) << 10) + (low - 0xdc00);
        else
            j->p = back;
    }
    if (cp >= 0xd800 && cp < 0xe000) cp = 0xfffd;
    put(j, out, utf8, utf8_encode(cp, utf8));
}

/* out NULL: only pass over it */
static void string(struct jpull *j, struct buf *out)
{
    space(j);
    if (!take(j, '"', "a string should be here")) return;
    while (!j->failed) {
        const char *run = j->p;
        while (j->p < j->end && *j->p != '"' && *j->p != '\\' && (unsigned char)*j->p >= 0x20)
            j->p++;
        if (!str_is_utf8(str_n(run, (size_t)(j->p - run)))) jpull_fail(j, "not UTF-8");
        put(j, out, run, (size_t)(j->p - run));
        if (j->p == j->end || (unsigned char)*j->p < 0x20) {
            jpull_fail(j, "a string does not end");
        } else if (*j->p++ == '"') {
            return;
        } else {
            escape(j, out);
        }
    }
}

void jpull_string(struct jpull *j, struct buf *out)
{
    string(j, out);
}

static struct str number(struct jpull *j)
{
    space(j);
    const char *from = j->p;
    while (j->p < j->end && memchr("+-.0123456789Ee", *j->p, 15) != NULL) j->p++;
    if (from == j->p) jpull_fail(j, "a value should be here");
    return str_n(from, (size_t)(j->p - from));
}

uint64_t jpull_uint(struct jpull *j, uint64_t max)
{
    uint64_t x = 0;
    if (j->failed) return 0;
    struct str s = number(j);
    if (!j->failed && (str_to_u64(s, &x) != ERR_OK || x > max))
        jpull_fail(j, "number out of range");
    return j->failed ? 0 : x;
}

static bool word(struct jpull *j, const char *z)
{
    size_t n = strlen(z);
    if ((size_t)(j->end - j->p) < n || memcmp(j->p, z, n) != 0) return false;
    j->p += n;
    return true;
}

bool jpull_bool(struct jpull *j)
{
    if (j->failed) return false;
    space(j);
    if (word(j, "true")) return true;
    if (!word(j, "false")) jpull_fail(j, "true or false should be here");
    return false;
}

struct str jpull_skip(struct jpull *j)
{
    struct str key;
    int outer = j->depth;
    space(j);
    const char *from = j->p;
    do {
        switch (jpull_peek(j)) {
        case '{': jpull_enter(j, '{'); break;
        case '[': jpull_enter(j, '['); break;
        case '"': string(j, NULL); break;
        case '0': (void)number(j); break;
        case 'n':
            if (!word(j, "null")) jpull_fail(j, "a value should be here");
            break;
        case 't':
        case 'f': (void)jpull_bool(j); break;
        default: jpull_fail(j, "a value should be here");
        }
        /* Close what ends here; stop at the next member of what goes on. */
        while (!j->failed && j->depth > outer &&
               !(j->closers[j->depth - 1] == '}' ? jpull_key(j, &key) : jpull_element(j))) {
        }
    } while (!j->failed && j->depth > outer);
    return j->failed ? STR("") : str_n(from, (size_t)(j->p - from));
}

enum err jpull_end(struct jpull *j, struct why *why)
{
    if (!j->failed) {
        space(j);
        if (j->p != j->end) jpull_fail(j, "something follows the end");
    }
    if (!j->failed) return ERR_OK;
    return why_set(why, j->nomem ? ERR_NOMEM : ERR_INVALID, "JSON at byte %zu: %s",
                   (size_t)(j->p - j->start), j->reason);
}
