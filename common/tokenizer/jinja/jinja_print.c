/* SPDX-License-Identifier: Apache-2.0 */
/* How values print: Python's str() and repr(), and json.dumps(). One thread per rendering. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "tokenizer/jinja/jinja_int.h"

static void add(struct jr *r, struct jsb *b, struct str s)
{
    if (r->err == ERR_OK) (void)jsb_add(r, b, s);
}

/* repr(float): the shortest digits that read back as f; with an exponent below 1e-4 and from 1e16
 * on. Returns the length. */
static size_t float_repr(double f, char out[40])
{
    char e[40], digits[24];
    if (isnan(f)) return (size_t)snprintf(out, 40, "nan");
    if (isinf(f)) return (size_t)snprintf(out, 40, f > 0 ? "inf" : "-inf");
    int precision = 14; /* what has at most 15 digits comes out exact with 15 */
    do {
        (void)snprintf(e, sizeof e, "%.*e", precision, f);
    } while (strtod(e, NULL) != f && ++precision <= 16);
    size_t n = 0;
    const char *p = e;
    bool minus = *p == '-';
    for (p += minus; *p != 'e' && *p != '\0'; p++)
        if (*p != '.') digits[n++] = *p;
    int exp10 = *p == 'e' ? (int)strtol(p + 1, NULL, 10) : 0;
    while (n > 1 && digits[n - 1] == '0') n--;
    size_t w = 0;
    if (minus) out[w++] = '-';
    if (exp10 < -4 || exp10 >= 16) {
        out[w++] = digits[0];
        if (n > 1) out[w++] = '.';
        for (size_t i = 1; i < n; i++) out[w++] = digits[i];
        return w + (size_t)snprintf(out + w, 40 - w, "e%c%02d", exp10 < 0 ? '-' : '+', abs(exp10));
    }
    if (exp10 < 0) {
        out[w++] = '0';
        out[w++] = '.';
        for (int i = -1; i > exp10; i--) out[w++] = '0';
    }
    for (int i = 0; i < (int)n || i <= exp10; i++) {
        if (exp10 >= 0 && i == exp10 + 1) out[w++] = '.';
        out[w++] = i < (int)n ? digits[i] : '0';
    }
    if (exp10 >= (int)n - 1) {
        out[w++] = '.';
        out[w++] = '0';
    }
    return w;
}

static void add_number(struct jr *r, struct jsb *b, struct jv v, bool json)
{
    char z[48];
    size_t n;
    if (v.type == JV_BIGINT) {
        add(r, b, jv_text(v));
        return;
    }
    if (v.type == JV_INT) {
        n = (size_t)snprintf(z, sizeof z, "%lld", (long long)v.i);
    } else if (json && isnan(v.f)) {
        n = (size_t)snprintf(z, sizeof z, "NaN");
    } else if (json && isinf(v.f)) {
        n = (size_t)snprintf(z, sizeof z, v.f > 0 ? "Infinity" : "-Infinity");
    } else {
        n = float_repr(v.f, z);
    }
    add(r, b, str_n(z, n));
}

/* Characters that repr() escapes though they are not control characters: the separators and format
 * characters of Unicode, not the whole table. */
static bool unprintable(uint32_t c)
{
    return c < 0x20 || (c >= 0x7f && c < 0xa1) || c == 0xad || (c >= 0x600 && c <= 0x605) ||
           c == 0x61c || c == 0x6dd || c == 0x70f || c == 0x1680 || c == 0x180e ||
           (c >= 0x2000 && c <= 0x200f) || (c >= 0x2028 && c <= 0x202f) ||
           (c >= 0x205f && c <= 0x206f) || c == 0x3000 || (c >= 0xd800 && c <= 0xf8ff) ||
           c == 0xfeff || (c >= 0xfff0 && c <= 0xfffb) || c >= 0xe0000;
}

static void add_repr_string(struct jr *r, struct jsb *b, struct str s)
{
    bool has_single = s.n > 0 && memchr(s.p, '\'', s.n) != NULL;
    char quote = has_single && memchr(s.p, '"', s.n) == NULL ? '"' : '\'', z[16];
    add(r, b, str_n(&quote, 1));
    for (size_t i = 0; i < s.n && r->err == ERR_OK;) {
        uint32_t c;
        size_t step = utf8_decode(s.p + i, s.n - i, &c);
        if (step == 0) step = 1, c = 'x';
        const char *esc = NULL;
        if (step == 1 && (s.p[i] == quote || s.p[i] == '\\')) {
            z[0] = '\\', z[1] = s.p[i], z[2] = '\0';
            esc = z;
        } else if (c == '\n') {
            esc = "\\n";
        } else if (c == '\r') {
            esc = "\\r";
        } else if (c == '\t') {
            esc = "\\t";
        } else if (unprintable(c)) {
            (void)snprintf(z, sizeof z,
                           c < 0x100     ? "\\x%02x"
                           : c < 0x10000 ? "\\u%04x"
                                         : "\\U%08x",
                           (unsigned)c);
            esc = z;
        }
        add(r, b, esc != NULL ? str_of(esc) : str_n(s.p + i, step));
        i += step;
    }
    add(r, b, str_n(&quote, 1));
}

static void add_repr(struct jr *r, struct jsb *b, struct jv v);

static void add_repr_list(struct jr *r, struct jsb *b, const struct jv_list *l,
                          const char *brackets)
{
    add(r, b, str_n(brackets, 1));
    for (uint32_t i = 0; i < l->n && r->err == ERR_OK; i++) {
        if (i > 0) add(r, b, STR(", "));
        add_repr(r, b, l->items[i]);
    }
    if (brackets[0] == '(' && l->n == 1) add(r, b, STR(","));
    add(r, b, str_n(brackets + 1, 1));
}

static void add_repr_range(struct jr *r, struct jsb *b, const struct jv_list *l)
{
    int64_t step = l->n > 1 ? l->items[1].i - l->items[0].i : 1;
    int64_t from = l->n > 0 ? l->items[0].i : 0, to = l->n > 0 ? l->items[l->n - 1].i + step : 0;
    char z[80];
    size_t n = step == 1 ? (size_t)snprintf(z, sizeof z, "range(%lld, %lld)", (long long)from,
                                            (long long)to)
                         : (size_t)snprintf(z, sizeof z, "range(%lld, %lld, %lld)", (long long)from,
                                            (long long)to, (long long)step);
    add(r, b, str_n(z, n));
}

static void add_repr_dict(struct jr *r, struct jsb *b, const struct jv_dict *d)
{
    add(r, b, STR("{"));
    for (uint32_t i = 0; i < d->n && r->err == ERR_OK; i++) {
        if (i > 0) add(r, b, STR(", "));
        add_repr(r, b, d->pairs[i].key);
        add(r, b, STR(": "));
        add_repr(r, b, d->pairs[i].value);
    }
    add(r, b, STR("}"));
}

static void add_repr(struct jr *r, struct jsb *b, struct jv v)
{
    if (++r->depth > 2 * JINJA_MAX_DEPTH) jfail(r, ERR_LIMIT, "a value is nested too deep");
    if (r->err != ERR_OK || !jpay(r, 1)) return;
    switch (v.type) {
    case JV_UNDEFINED: add(r, b, STR("Undefined")); break;
    case JV_NONE: add(r, b, STR("None")); break;
    case JV_BOOL: add(r, b, v.b ? STR("True") : STR("False")); break;
    case JV_INT:
    case JV_BIGINT:
    case JV_FLOAT: add_number(r, b, v, false); break;
    case JV_STR: add_repr_string(r, b, jv_text(v)); break;
    case JV_LIST: add_repr_list(r, b, v.list, "[]"); break;
    case JV_TUPLE: add_repr_list(r, b, v.list, "()"); break;
    case JV_RANGE: add_repr_range(r, b, v.list); break;
    case JV_DICT: add_repr_dict(r, b, v.dict); break;
    case JV_NAMESPACE:
        add(r, b, STR("<Namespace "));
        add_repr_dict(r, b, v.dict);
        add(r, b, STR(">"));
        break;
    default:
        add(r, b, STR("<"));
        add(r, b, str_of(jtype_name(v)));
        add(r, b, STR(">"));
        break;
    }
    r->depth--;
}

struct str jto_str(struct jr *r, struct jv v)
{
    if (r->run->record != NULL && jrec_holds(v)) return jrec_spoil(r), STR("");
    if (v.type == JV_STR) return jv_text(v);
    if (v.type == JV_UNDEFINED) return STR("");
    struct jsb b = { NULL, 0, 0 };
    add_repr(r, &b, v);
    return str_n(b.p != NULL ? b.p : "", b.n);
}

/* ---- json.dumps ---- */

static void add_json_string(struct jr *r, struct jsb *b, struct str s, bool ascii)
{
    static const char short_from[] = "\"\\\n\r\t\f\b", short_to[] = "\"\\nrtfb";
    size_t plain = 0, i = 0;
    char z[16];
    add(r, b, STR("\""));
    while (i < s.n && r->err == ERR_OK) {
        unsigned char c = (unsigned char)s.p[i];
        if (c >= 0x20 && c != '"' && c != '\\' && (!ascii || c < 0x7f)) {
            i++;
            continue;
        }
        add(r, b, str_n(s.p + plain, i - plain));
        const char *hit = c != 0 && c < 0x80 ? strchr(short_from, c) : NULL;
        uint32_t cp = c;
        size_t step = 1;
        if (c >= 0x80 && (step = utf8_decode(s.p + i, s.n - i, &cp)) == 0) step = 1, cp = 0xfffd;
        if (hit != NULL)
            (void)snprintf(z, sizeof z, "\\%c", short_to[hit - short_from]);
        else if (cp < 0x10000)
            (void)snprintf(z, sizeof z, "\\u%04x", (unsigned)cp);
        else
            (void)snprintf(z, sizeof z, "\\u%04x\\u%04x",
                           (unsigned)(0xd800 + ((cp - 0x10000) >> 10)),
                           (unsigned)(0xdc00 + ((cp - 0x10000) & 0x3ff)));
        add(r, b, str_of(z));
        i += step;
        plain = i;
    }
    add(r, b, str_n(s.p + plain, s.n - plain));
    add(r, b, STR("\""));
}

static void json_newline(struct jr *r, struct jsb *b, const struct jjson *how, unsigned level)
{
    static const char spaces[] = "                                ";
    if (how->indent < 0) return;
    add(r, b, STR("\n"));
    size_t n = (size_t)how->indent * level;
    for (; n > 0 && r->err == ERR_OK; n -= MIN(n, sizeof spaces - 1))
        add(r, b, str_n(spaces, MIN(n, sizeof spaces - 1)));
}

static void add_json(struct jr *r, struct jsb *b, struct jv v, const struct jjson *how,
                     unsigned level);

static void add_json_list(struct jr *r, struct jsb *b, const struct jv_list *l,
                          const struct jjson *how, unsigned level)
{
    add(r, b, STR("["));
    for (uint32_t i = 0; i < l->n && r->err == ERR_OK; i++) {
        if (i > 0) add(r, b, how->item_sep);
        json_newline(r, b, how, level + 1);
        add_json(r, b, l->items[i], how, level + 1);
    }
    if (l->n > 0) json_newline(r, b, how, level);
    add(r, b, STR("]"));
}

static void add_json_key(struct jr *r, struct jsb *b, struct jv key, const struct jjson *how)
{
    if (key.type == JV_STR) {
        add_json_string(r, b, jv_text(key), how->ascii);
    } else if (key.type == JV_NONE || key.type == JV_BOOL || jis_number(key)) {
        add(r, b, STR("\""));
        add_json(r, b, key, how, 0);
        add(r, b, STR("\""));
    } else {
        jfail(r, ERR_INVALID, "tojson: a key of type %s", jtype_name(key));
    }
}

static int by_key(const void *a, const void *b)
{
    const struct jv_pair *x = a, *y = b;
    return str_cmp(jv_text(x->key), jv_text(y->key));
}

static void add_json_dict(struct jr *r, struct jsb *b, const struct jv_dict *d,
                          const struct jjson *how, unsigned level)
{
    const struct jv_pair *pairs = d->pairs;
    if (how->sort_keys && d->n > 1) {
        struct jv_pair *sorted = arena_alloc(r->a, d->n * sizeof *sorted);
        if (sorted == NULL) {
            (void)jnomem(r);
            return;
        }
        for (uint32_t i = 0; i < d->n; i++)
            if (d->pairs[i].key.type != JV_STR) {
                jfail(r, ERR_UNSUPPORTED, "tojson: sort_keys with keys that are not strings");
                return;
            }
        memcpy(sorted, pairs, d->n * sizeof *sorted);
        qsort(sorted, d->n, sizeof *sorted, by_key);
        pairs = sorted;
    }
    add(r, b, STR("{"));
    for (uint32_t i = 0; i < d->n && r->err == ERR_OK; i++) {
        if (i > 0) add(r, b, how->item_sep);
        json_newline(r, b, how, level + 1);
        add_json_key(r, b, pairs[i].key, how);
        add(r, b, how->key_sep);
        add_json(r, b, pairs[i].value, how, level + 1);
    }
    if (d->n > 0) json_newline(r, b, how, level);
    add(r, b, STR("}"));
}

static void add_json(struct jr *r, struct jsb *b, struct jv v, const struct jjson *how,
                     unsigned level)
{
    if (level > JINJA_MAX_DEPTH) jfail(r, ERR_LIMIT, "a value is nested too deep");
    if (r->err != ERR_OK || !jpay(r, 1)) return;
    switch (v.type) {
    case JV_NONE: add(r, b, STR("null")); break;
    case JV_BOOL: add(r, b, v.b ? STR("true") : STR("false")); break;
    case JV_INT:
    case JV_BIGINT:
    case JV_FLOAT: add_number(r, b, v, true); break;
    case JV_STR: add_json_string(r, b, jv_text(v), how->ascii); break;
    case JV_LIST:
    case JV_TUPLE: add_json_list(r, b, v.list, how, level); break;
    case JV_DICT: add_json_dict(r, b, v.dict, how, level); break;
    case JV_UNDEFINED:
        jfail(r, ERR_INVALID, "tojson: '%.*s' is undefined", STR_ARG(jv_text(v)));
        break;
    default: jfail(r, ERR_INVALID, "tojson: a %s is no JSON", jtype_name(v)); break;
    }
}

struct jv jto_json(struct jr *r, struct jv v, const struct jjson *how)
{
    struct jsb b = { NULL, 0, 0 };
    add_json(r, &b, v, how, 0);
    return jv_str(jsb_str(&b));
}
