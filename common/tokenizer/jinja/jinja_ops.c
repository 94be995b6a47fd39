/* SPDX-License-Identifier: Apache-2.0 */
/* Truth, equality, order, arithmetic and slices of template values, as Python has them. */
#include <math.h>
#include <string.h>

#include "tokenizer/jinja/jinja_int.h"

enum {
    MAX_EQUAL_DEPTH = 130,
    KEY_COST = 4096 /* of comparing two keys of a dict: values in them, and their strings */
};

const char *jtype_name(struct jv v)
{
    static const char *const names[] = { "undefined", "None",  "bool",      "int",   "int",
                                         "float",     "str",   "list",      "tuple", "generator",
                                         "range",     "dict",  "namespace", "loop",  "macro",
                                         "function",  "method" };
    return v.type < ARRAY_LEN(names) ? names[v.type] : "value";
}

bool jtruth(struct jv v)
{
    switch (v.type) {
    case JV_UNDEFINED:
    case JV_NONE: return false;
    case JV_BOOL: return v.b;
    case JV_INT: return v.i != 0;
    case JV_FLOAT: return v.f != 0;
    case JV_STR: return v.n > 0;
    case JV_LIST:
    case JV_TUPLE:
    case JV_RANGE: return v.list->n > 0;
    case JV_DICT: return v.dict->n > 0;
    default: return true;
    }
}

bool jis_number(struct jv v)
{
    return v.type == JV_INT || v.type == JV_FLOAT || v.type == JV_BOOL || v.type == JV_BIGINT;
}

/* A number that fits 64 bits, as an integer; a bigint has no such value. */
static bool as_int(struct jv v, int64_t *ret)
{
    if (v.type != JV_INT && v.type != JV_BOOL) return false;
    *ret = v.type == JV_INT ? v.i : v.b;
    return true;
}

static double as_double(struct jv v)
{
    if (v.type == JV_FLOAT) return v.f;
    if (v.type == JV_BIGINT) return v.n > 0 && v.s[0] == '-' ? -9.3e18 : 9.3e18;
    return v.type == JV_INT ? (double)v.i : (double)v.b;
}

/* Values that share their parts are as trees far larger than in memory: *left is what comparing may
 * still cost; 0: it ended for that. */
static bool equal(struct jv a, struct jv b, unsigned depth, uint64_t *left);

static bool pay(uint64_t *left, uint64_t n)
{
    *left -= MIN(*left, n);
    return *left > 0;
}

static bool list_equal(const struct jv_list *a, const struct jv_list *b, unsigned depth,
                       uint64_t *left)
{
    if (a == b) return true;
    if (a->n != b->n) return false;
    for (uint32_t i = 0; i < a->n; i++)
        if (!pay(left, 1) || !equal(a->items[i], b->items[i], depth + 1, left)) return false;
    return true;
}

static bool dict_equal(const struct jv_dict *a, const struct jv_dict *b, unsigned depth,
                       uint64_t *left)
{
    if (a == b) return true;
    if (a->n != b->n) return false;
    for (uint32_t i = 0; i < a->n; i++) {
        const struct jv *other = pay(left, 1) ? jv_dict_get(b, a->pairs[i].key) : NULL;
        if (other == NULL || !equal(a->pairs[i].value, *other, depth + 1, left)) return false;
    }
    return true;
}

static bool str_equal(struct str a, struct str b, uint64_t *left)
{
    return a.n == b.n && (a.n < 64 || pay(left, a.n / 64)) && str_eq(a, b);
}

static bool equal(struct jv a, struct jv b, unsigned depth, uint64_t *left)
{
    if (depth > MAX_EQUAL_DEPTH) return *left = 0, false;
    if (jis_number(a) && jis_number(b)) {
        int64_t x, y;
        if (as_int(a, &x) && as_int(b, &y)) return x == y;
        if (a.type == JV_BIGINT && b.type == JV_BIGINT) return str_eq(jv_text(a), jv_text(b));
        if (a.type == JV_BIGINT || b.type == JV_BIGINT) return false;
        return as_double(a) == as_double(b);
    }
    if (a.type != b.type) return false;
    switch (a.type) {
    case JV_UNDEFINED:
    case JV_NONE: return true;
    case JV_STR: return str_equal(jv_text(a), jv_text(b), left);
    case JV_LIST:
    case JV_TUPLE:
    case JV_RANGE: return list_equal(a.list, b.list, depth, left);
    case JV_DICT: return dict_equal(a.dict, b.dict, depth, left);
    case JV_FUNCTION: return a.n == b.n;
    default: return a.p == b.p;
    }
}

bool jequal(struct jr *r, struct jv a, struct jv b)
{
    uint64_t left = r->steps_left;
    bool same = equal(a, b, 0, &left);
    return jpay(r, r->steps_left - left) && same;
}

bool jv_same_key(struct jv a, struct jv b)
{
    uint64_t left = KEY_COST;
    return equal(a, b, 0, &left);
}

int jcompare(struct jr *r, struct jv a, struct jv b)
{
    if (jis_number(a) && jis_number(b)) {
        int64_t x, y;
        if (as_int(a, &x) && as_int(b, &y)) return x < y ? -1 : x > y;
        double f = as_double(a), g = as_double(b);
        return f < g ? -1 : f > g;
    }
    if (a.type == JV_STR && b.type == JV_STR) return str_cmp(jv_text(a), jv_text(b));
    if (a.type == b.type && (a.type == JV_LIST || a.type == JV_TUPLE)) {
        uint32_t n = MIN(a.list->n, b.list->n);
        for (uint32_t i = 0; i < n && r->err == ERR_OK && jpay(r, 1); i++) {
            struct jv x = a.list->items[i], y = b.list->items[i];
            /* An element that holds lists itself goes one level of C deeper. */
            if (jequal(r, x, y)) continue;
            if (++r->depth > JINJA_MAX_DEPTH) break;
            int c = jcompare(r, x, y);
            r->depth--;
            return c;
        }
        return a.list->n < b.list->n ? -1 : a.list->n > b.list->n;
    }
    struct jv undefined = a.type == JV_UNDEFINED ? a : b;
    if (undefined.type == JV_UNDEFINED)
        jfail(r, ERR_INVALID, "'%.*s' is undefined", STR_ARG(jv_text(undefined)));
    else
        jfail(r, ERR_INVALID, "%s and %s have no order", jtype_name(a), jtype_name(b));
    return 0;
}

static struct jv integers(struct jr *r, enum jop op, int64_t a, int64_t b)
{
    int64_t v = 0;
    switch (op) {
    case JOP_ADD:
        if (!__builtin_add_overflow(a, b, &v)) return jv_int(v);
        break;
    case JOP_SUB:
        if (!__builtin_sub_overflow(a, b, &v)) return jv_int(v);
        break;
    case JOP_MUL:
        if (!__builtin_mul_overflow(a, b, &v)) return jv_int(v);
        break;
    case JOP_FLOORDIV:
    case JOP_MOD:
        if (b == 0) return jfail(r, ERR_INVALID, "division by zero");
        if (b == -1) return integers(r, op == JOP_MOD ? JOP_MUL : JOP_SUB, 0, a);
        v = a % b;
        if (v != 0 && (v < 0) != (b < 0)) v += b; /* towards minus infinity */
        return jv_int(op == JOP_MOD ? v : (a - v) / b);
    case JOP_POW:
        if (b < 0) return jv_float(pow((double)a, (double)b));
        for (v = 1; b > 0; b >>= 1) {
            if ((b & 1) != 0 && __builtin_mul_overflow(v, a, &v)) goto big;
            if (b > 1 && __builtin_mul_overflow(a, a, &a)) goto big;
        }
        return jv_int(v);
    default: break;
    }
big:
    return jfail(r, ERR_LIMIT, "an integer of more than 64 bits");
}

static struct jv numbers(struct jr *r, enum jop op, struct jv a, struct jv b)
{
    int64_t x, y;
    if (a.type == JV_BIGINT || b.type == JV_BIGINT)
        return jfail(r, ERR_LIMIT, "arithmetic on an integer of more than 64 bits");
    if (op != JOP_DIV && as_int(a, &x) && as_int(b, &y)) return integers(r, op, x, y);
    double f = as_double(a), g = as_double(b), m;
    switch (op) {
    case JOP_ADD: return jv_float(f + g);
    case JOP_SUB: return jv_float(f - g);
    case JOP_MUL: return jv_float(f * g);
    case JOP_POW: return jv_float(pow(f, g));
    default: break;
    }
    if (g == 0) return jfail(r, ERR_INVALID, "division by zero");
    if (op == JOP_DIV) return jv_float(f / g);
    m = fmod(f, g);
    if (m != 0 && (m < 0) != (g < 0)) m += g;
    return jv_float(op == JOP_MOD ? m : floor((f - m) / g + 0.5));
}

static struct jv add_lists(struct jr *r, struct jv a, struct jv b)
{
    struct jv_list *l = jv_list_new(r->a, (size_t)a.list->n + b.list->n);
    if (l == NULL || !jpay(r, l->n)) return jnomem(r);
    if (a.list->n > 0) memcpy(l->items, a.list->items, a.list->n * sizeof(struct jv));
    if (b.list->n > 0) memcpy(l->items + a.list->n, b.list->items, b.list->n * sizeof(struct jv));
    return jv_of_list((enum jv_type)a.type, l);
}

/* "ab" * 3, [0] * 3 */
static struct jv repeat(struct jr *r, struct jv v, int64_t times)
{
    size_t n = v.type == JV_STR ? v.n : v.list->n, size = v.type == JV_STR ? 1 : sizeof(struct jv);
    if (times < 0 || n == 0) times = 0;
    if (times > 0 && n > UINT32_MAX / 32 / (uint64_t)times) return jnomem(r);
    if (!jpay(r, n * (uint64_t)times * size / 64 + (uint64_t)times)) return v;
    struct jv_list *l = jv_list_new(r->a, v.type == JV_STR ? 0 : n * (size_t)times);
    char *p = v.type == JV_STR ? arena_alloc(r->a, n * (size_t)times + 1) : NULL;
    if (l == NULL || (v.type == JV_STR && p == NULL)) return jnomem(r);
    const void *from = v.type == JV_STR ? (const void *)v.s : (const void *)v.list->items;
    char *to = v.type == JV_STR ? p : (char *)(void *)l->items;
    for (int64_t i = 0; i < times; i++) memcpy(to + (size_t)i * n * size, from, n * size);
    if (v.type == JV_STR) return jv_str(str_n(p, n * (size_t)times));
    return jv_of_list((enum jv_type)v.type, l);
}

/* "%s is %d" % (a, b) */
static struct jv format(struct jr *r, struct str f, struct jv with)
{
    struct jsb b = { NULL, 0, 0 };
    const struct jv *v = with.type == JV_TUPLE ? with.list->items : &with;
    uint32_t n = with.type == JV_TUPLE ? with.list->n : 1, used = 0;
    for (size_t i = 0; i < f.n && r->err == ERR_OK; i++) {
        if (f.p[i] != '%') {
            (void)jsb_add(r, &b, str_n(f.p + i, 1));
            continue;
        }
        char c = i + 1 < f.n ? f.p[++i] : '\0';
        if (c == '%') {
            (void)jsb_add(r, &b, STR("%"));
        } else if ((c == 's' || c == 'd' || c == 'i') && used < n) {
            if (c != 's' && !jis_number(v[used]))
                return jfail(r, ERR_INVALID, "%%%c of a %s", c, jtype_name(v[used]));
            struct jv item = v[used++];
            if (c != 's' && item.type == JV_FLOAT) {
                if (!(fabs(item.f) < 9e18))
                    return jfail(r, ERR_LIMIT, "an integer of more than 64 bits");
                item = jv_int((int64_t)item.f);
            }
            if (c != 's' && item.type == JV_BOOL) item = jv_int(item.b);
            struct str s = jto_str(r, item);
            if (r->err == ERR_OK) (void)jsb_add(r, &b, s);
        } else {
            return jfail(r, ERR_INVALID, "the format string asks for what is not there");
        }
    }
    return jv_str(jsb_str(&b));
}

struct jv jbinary(struct jr *r, enum jop op, struct jv a, struct jv b)
{
    if (op == JOP_ADD && a.type == JV_STR && b.type == JV_STR)
        return jconcat(r, jv_text(a), jv_text(b));
    if (jis_number(a) && jis_number(b)) return numbers(r, op, a, b);
    if (op == JOP_ADD && a.type == b.type && (a.type == JV_LIST || a.type == JV_TUPLE))
        return add_lists(r, a, b);
    if (op == JOP_MUL && (a.type == JV_STR || a.type == JV_LIST) && b.type == JV_INT)
        return repeat(r, a, b.i);
    if (op == JOP_MUL && (b.type == JV_STR || b.type == JV_LIST) && a.type == JV_INT)
        return repeat(r, b, a.i);
    if (op == JOP_MOD && a.type == JV_STR) return format(r, jv_text(a), b);
    struct jv undefined = a.type == JV_UNDEFINED ? a : b;
    if (undefined.type == JV_UNDEFINED)
        return jfail(r, ERR_INVALID, "'%.*s' is undefined", STR_ARG(jv_text(undefined)));
    static const char *const signs[] = { "", "+", "-", "*", "/", "//", "%", "**" };
    return jfail(r, ERR_INVALID, "%s %s %s makes no sense", jtype_name(a),
                 op <= JOP_POW ? signs[op] : "and", jtype_name(b));
}

bool jcontains(struct jr *r, struct jv needle, struct jv hay)
{
    if (hay.type == JV_DICT) return jv_dict_get(hay.dict, needle) != NULL;
    if (hay.type == JV_STR) {
        if (needle.type != JV_STR) {
            jfail(r, ERR_INVALID, "'in' a string needs a string, not %s", jtype_name(needle));
            return false;
        }
        return jpay(r, hay.n / 64) && jstr_find(jv_text(hay), jv_text(needle), 0) != SIZE_MAX;
    }
    struct jv_list *l = jiterate(r, hay);
    for (uint32_t i = 0; l != NULL && i < l->n && jpay(r, 1); i++)
        if (jequal(r, l->items[i], needle)) return true;
    return false;
}

struct jv_list *jiterate(struct jr *r, struct jv v)
{
    struct jv_list *l;
    if (v.mark != 0) return jrec_spoil(r), NULL;
    switch (v.type) {
    case JV_GENERATOR:
        if (!v.list->spent) {
            v.list->spent = true;
            return v.list;
        }
        l = jv_list_new(r->a, 0);
        break;
    case JV_LIST:
    case JV_TUPLE:
    case JV_RANGE: return v.list;
    case JV_UNDEFINED: l = jv_list_new(r->a, 0); break;
    case JV_DICT:
        l = jv_list_new(r->a, v.dict->n);
        for (uint32_t i = 0; l != NULL && i < l->n; i++) l->items[i] = v.dict->pairs[i].key;
        break;
    case JV_STR: {
        struct str s = jv_text(v);
        l = jv_list_new(r->a, jstr_chars(s));
        size_t at = 0;
        for (uint32_t i = 0; l != NULL && i < l->n; i++) {
            size_t step = jstr_step(s.p + at, s.n - at);
            l->items[i] = jv_str(str_n(s.p + at, step));
            at += step;
        }
        break;
    }
    default: jfail(r, ERR_INVALID, "a %s cannot be walked over", jtype_name(v)); return NULL;
    }
    if (l == NULL) (void)jnomem(r);
    return l != NULL && jpay(r, l->n / 4) ? l : NULL;
}

/* A slice bound in 0..n (0..n-1 and -1 when going down), as Python's slice.indices(). */
static int64_t bound(struct jv v, int64_t n, bool down, bool is_stop)
{
    if (v.type != JV_INT) return down ? (is_stop ? -1 : n - 1) : (is_stop ? n : 0);
    int64_t i = v.i;
    if (i < 0) {
        i = i < -n ? -1 : i + n;
        if (i < 0) return down ? -1 : 0;
    }
    int64_t top = down ? n - 1 : n;
    return i > top ? top : i;
}

struct jv jslice(struct jr *r, struct jv v, struct jv lo, struct jv hi, struct jv step)
{
    int64_t by = step.type == JV_INT ? step.i : 1;
    bool list = v.type == JV_LIST || v.type == JV_TUPLE || v.type == JV_RANGE;
    if (v.type == JV_UNDEFINED)
        return jfail(r, ERR_INVALID, "'%.*s' is undefined", STR_ARG(jv_text(v)));
    if (by == 0) return jfail(r, ERR_INVALID, "a slice with step 0");
    if (!list && v.type != JV_STR)
        return jfail(r, ERR_INVALID, "a %s cannot be sliced", jtype_name(v));
    if (v.type == JV_STR && !jpay(r, v.n / 16)) return v;
    int64_t n = list ? v.list->n : (int64_t)jstr_chars(jv_text(v));
    int64_t from = bound(lo, n, by < 0, false), to = bound(hi, n, by < 0, true);
    uint64_t count = 0;
    if (by > 0 && to > from)
        count = ((uint64_t)(to - from) - 1) / (uint64_t)by + 1;
    else if (by < 0 && from > to)
        count = ((uint64_t)(from - to) - 1) / (0 - (uint64_t)by) + 1;
    if (v.type == JV_STR && by == 1) {
        struct str s = jv_text(v);
        size_t a = jstr_offset(s, (size_t)from);
        return jv_str(str_n(s.p + a, jstr_offset(str_n(s.p + a, s.n - a), count)));
    }
    struct jv_list *l = jv_list_new(r->a, by == 1 ? 0 : count), *chars = NULL;
    if (l == NULL || !jpay(r, by == 1 ? 1 : count)) return jnomem(r);
    if (v.type == JV_STR && (chars = jiterate(r, v)) == NULL) return v;
    const struct jv *items = chars != NULL ? chars->items : v.list->items;
    if (by == 1) { /* immutable: the part is shared */
        l->items = v.list->items + from;
        l->n = (uint32_t)count;
        return jv_of_list((enum jv_type)v.type, l);
    }
    struct jsb b = { NULL, 0, 0 };
    for (uint64_t i = 0; i < count; i++) {
        l->items[i] = items[from + (int64_t)i * by];
        if (chars != NULL && !jsb_add(r, &b, jv_text(l->items[i]))) return v;
    }
    return chars != NULL ? jv_str(jsb_str(&b)) : jv_of_list((enum jv_type)v.type, l);
}
