/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Filters on sequences. What Jinja2 computes lazily is computed at once here and marked as a
 * generator, which keeps what a template can tell: it is true, has no length, can be read once.
 */
#include <string.h>

#include "tokenizer/jinja/jinja_filters.h"

/* A dotted attribute ("function.name", "0") or item of v. */
static struct jv by_path(struct jr *r, struct jv v, struct jv path)
{
    if (path.type != JV_STR) return jgetitem(r, v, path);
    struct str rest = jv_text(path);
    while (rest.p != NULL && r->err == ERR_OK) {
        struct str part = str_cut(&rest, '.');
        int64_t i;
        bool number = str_to_i64(part, &i) == ERR_OK;
        v = jgetitem(r, v, number ? jv_int(i) : jv_str(part));
        if (v.type == JV_UNDEFINED && rest.p == NULL) break;
    }
    return v;
}

static struct jv_list *copy_of(struct jr *r, struct jv v)
{
    struct jv_list *l = jiterate(r, v);
    if (l == NULL) return NULL;
    struct jv_list *c = jv_list_new(r->a, l->n);
    if (c == NULL || !jpay(r, l->n)) return jnomem(r), NULL;
    if (l->n > 0) memcpy(c->items, l->items, l->n * sizeof *c->items);
    return c;
}

struct jv jf_join(struct jr *r, struct jv v, const struct jargs *args)
{
    const struct jv *sepv = jarg(args, 0, "d"), *attr = jarg(args, 1, "attribute");
    struct str sep = sepv != NULL ? jto_str(r, *sepv) : STR("");
    struct jv_list *l = jiterate(r, v);
    struct jsb b = { NULL, 0, 0 };
    for (uint32_t i = 0; l != NULL && i < l->n && r->err == ERR_OK; i++) {
        struct jv item = attr != NULL ? by_path(r, l->items[i], *attr) : l->items[i];
        struct str s = jto_str(r, item);
        if (i > 0) (void)jsb_add(r, &b, sep);
        if (r->err == ERR_OK) (void)jsb_add(r, &b, s);
    }
    return jv_str(jsb_str(&b));
}

struct jv jf_items(struct jr *r, struct jv v, const struct jargs *args)
{
    if (v.type == JV_UNDEFINED) {
        struct jv_list *none = jv_list_new(r->a, 0);
        return none != NULL ? jv_of_list(JV_GENERATOR, none) : jnomem(r);
    }
    if (v.type != JV_DICT) return jfail(r, ERR_INVALID, "items of a %s", jtype_name(v));
    struct jv items = jcall_method(r, v, jmethod_find(v, STR("items")), args);
    if (r->err == ERR_OK) items.type = JV_GENERATOR;
    return items;
}

struct jv jf_list(struct jr *r, struct jv v, const struct jargs *args)
{
    (void)args;
    struct jv_list *l = copy_of(r, v);
    return l != NULL ? jv_of_list(JV_LIST, l) : jv_none();
}

/* What select, reject, selectattr and rejectattr have in common: the arguments from `from` on are a
 * test and its operands; none: is it true? */
static struct jv choose(struct jr *r, struct jv v, const struct jargs *args, const struct jv *attr,
                        uint32_t from, bool keep)
{
    jtest_fn *test = NULL;
    struct jargs rest = { NULL, 0, 0, NULL };
    if (args->npos > from) {
        struct str name = jarg_str(r, args, from, "", STR(""));
        if (r->err != ERR_OK) return v;
        test = jtest_find(name);
        if (test == NULL) return jfail(r, ERR_INVALID, "no test is named '%.*s'", STR_ARG(name));
        rest = (struct jargs){ args->pos + from + 1, args->npos - from - 1, args->nkw, args->kw };
    }
    struct jv_list *l = jiterate(r, v), *out = l != NULL ? jv_list_new(r->a, l->n) : NULL;
    if (l == NULL) return v;
    if (out == NULL) return jnomem(r);
    uint32_t n = 0;
    for (uint32_t i = 0; i < l->n && r->err == ERR_OK && jpay(r, 1); i++) {
        struct jv item = attr != NULL ? by_path(r, l->items[i], *attr) : l->items[i];
        if (r->err != ERR_OK) break;
        bool yes = test != NULL ? test(r, item, &rest) : jtruth(item);
        if (yes == keep) out->items[n++] = l->items[i];
    }
    out->n = n;
    return jv_of_list(JV_GENERATOR, out);
}

struct jv jf_select(struct jr *r, struct jv v, const struct jargs *args)
{
    return choose(r, v, args, NULL, 0, true);
}

struct jv jf_reject(struct jr *r, struct jv v, const struct jargs *args)
{
    return choose(r, v, args, NULL, 0, false);
}

static struct jv choose_attr(struct jr *r, struct jv v, const struct jargs *args, bool keep)
{
    if (args->npos == 0) return jfail(r, ERR_INVALID, "selectattr needs the name of an attribute");
    return choose(r, v, args, &args->pos[0], 1, keep);
}

struct jv jf_selectattr(struct jr *r, struct jv v, const struct jargs *args)
{
    return choose_attr(r, v, args, true);
}

struct jv jf_rejectattr(struct jr *r, struct jv v, const struct jargs *args)
{
    return choose_attr(r, v, args, false);
}

/* map(attribute="a.b", default=x), or map("filter", operands) */
struct jv jf_map(struct jr *r, struct jv v, const struct jargs *args)
{
    const struct jv *attr = jarg(args, UINT32_MAX, "attribute");
    const struct jv *dflt = jarg(args, UINT32_MAX, "default");
    jfilter_fn *filter = NULL;
    struct jargs rest = { NULL, 0, 0, NULL };
    if (attr == NULL) {
        struct str name = jarg_str(r, args, 0, "", STR(""));
        filter = jfilter_find(name);
        if (filter == NULL)
            return jfail(r, ERR_INVALID, "map: no filter is named '%.*s'", STR_ARG(name));
        rest = (struct jargs){ args->pos + 1, args->npos - 1, args->nkw, args->kw };
    }
    struct jv_list *l = copy_of(r, v);
    for (uint32_t i = 0; l != NULL && i < l->n && r->err == ERR_OK && jpay(r, 1); i++) {
        struct jv item = l->items[i];
        item = attr != NULL ? by_path(r, item, *attr) : filter(r, item, &rest);
        if (attr != NULL && dflt != NULL && item.type == JV_UNDEFINED) item = *dflt;
        l->items[i] = item;
    }
    return l != NULL ? jv_of_list(JV_GENERATOR, l) : v;
}

/* ---- order ---- */

struct sorting {
    struct jr *r;
    bool reverse, case_sensitive;
    const struct jv *attr; /* or NULL */
    int part;              /* of a pair: 0 or 1; -1: the item itself */
};

static struct jv sort_key(const struct sorting *s, struct jv item)
{
    if (s->part >= 0) item = item.list->items[s->part];
    if (s->attr != NULL) item = by_path(s->r, item, *s->attr);
    if (item.type == JV_STR && !s->case_sensitive)
        item = jstr_case(s->r, jv_text(item), JCASE_LOWER);
    return item;
}

/* Merge sort, stable as Python's: keys[i] belongs to items[i]. */
static void sort_items(const struct sorting *s, struct jv *keys, struct jv *items, struct jv *tmp,
                       uint32_t n)
{
    if (n < 2 || s->r->err != ERR_OK) return;
    uint32_t half = n / 2, i = 0, j = half, w = 0;
    sort_items(s, keys, items, tmp, half);
    sort_items(s, keys + half, items + half, tmp, n - half);
    struct jv *out_keys = tmp, *out_items = tmp + n;
    while (i < half || j < n) {
        bool left = j == n;
        if (i < half && j < n && jpay(s->r, 1)) {
            int c = jcompare(s->r, keys[i], keys[j]);
            left = s->reverse ? c >= 0 : c <= 0;
        }
        if (s->r->err != ERR_OK) return;
        uint32_t from = left ? i++ : j++;
        out_keys[w] = keys[from];
        out_items[w++] = items[from];
    }
    memcpy(keys, out_keys, n * sizeof *keys);
    memcpy(items, out_items, n * sizeof *items);
}

static struct jv sorted(const struct sorting *s, struct jv_list *l)
{
    struct jr *r = s->r;
    if (l == NULL) return jv_none();
    struct jv *keys = arena_alloc(r->a, ((size_t)l->n * 3 + 1) * sizeof *keys);
    if (keys == NULL) return jnomem(r);
    for (uint32_t i = 0; i < l->n && r->err == ERR_OK; i++) keys[i] = sort_key(s, l->items[i]);
    sort_items(s, keys, l->items, keys + l->n, l->n);
    return jv_of_list(JV_LIST, l);
}

struct jv jf_sort(struct jr *r, struct jv v, const struct jargs *args)
{
    struct sorting s = { r, jarg_bool(args, 0, "reverse", false),
                         jarg_bool(args, 1, "case_sensitive", false), jarg(args, 2, "attribute"),
                         -1 };
    return sorted(&s, copy_of(r, v));
}

/* dictsort(case_sensitive=false, by="key", reverse=false) */
struct jv jf_dictsort(struct jr *r, struct jv v, const struct jargs *args)
{
    struct str by = jarg_str(r, args, 1, "by", STR("key"));
    static const struct jargs none = { NULL, 0, 0, NULL };
    struct sorting s = { r, jarg_bool(args, 2, "reverse", false),
                         jarg_bool(args, 0, "case_sensitive", false), NULL,
                         str_eqz(by, "value") ? 1 : 0 };
    if (v.type != JV_DICT) return jfail(r, ERR_INVALID, "dictsort of a %s", jtype_name(v));
    struct jv items = jcall_method(r, v, jmethod_find(v, STR("items")), &none);
    return r->err == ERR_OK ? sorted(&s, items.list) : items;
}

static struct jv extreme(struct jr *r, struct jv v, const struct jargs *args, int sign)
{
    struct sorting s = { r, false, jarg_bool(args, 0, "case_sensitive", false),
                         jarg(args, 1, "attribute"), -1 };
    struct jv_list *l = jiterate(r, v);
    if (l == NULL) return v;
    if (l->n == 0) return jv_undefined(STR("min or max of nothing"));
    uint32_t best = 0;
    for (uint32_t i = 1; i < l->n && r->err == ERR_OK; i++)
        if (jcompare(r, sort_key(&s, l->items[i]), sort_key(&s, l->items[best])) * sign > 0)
            best = i;
    return l->items[best];
}

struct jv jf_min(struct jr *r, struct jv v, const struct jargs *args)
{
    return extreme(r, v, args, -1);
}

struct jv jf_max(struct jr *r, struct jv v, const struct jargs *args)
{
    return extreme(r, v, args, 1);
}

/* ---- parts ---- */

struct jv jf_first(struct jr *r, struct jv v, const struct jargs *args)
{
    (void)args;
    struct jv_list *l = jiterate(r, v);
    return l != NULL && l->n > 0 ? l->items[0] : jv_undefined(STR("first of nothing"));
}

struct jv jf_last(struct jr *r, struct jv v, const struct jargs *args)
{
    (void)args;
    if (v.type == JV_GENERATOR) return jfail(r, ERR_INVALID, "last of a generator");
    struct jv_list *l = jiterate(r, v);
    return l != NULL && l->n > 0 ? l->items[l->n - 1] : jv_undefined(STR("last of nothing"));
}

struct jv jf_reverse(struct jr *r, struct jv v, const struct jargs *args)
{
    (void)args;
    if (v.type == JV_STR) return jslice(r, v, jv_none(), jv_none(), jv_int(-1));
    struct jv_list *l = copy_of(r, v);
    for (uint32_t i = 0; l != NULL && i < l->n / 2; i++) {
        struct jv t = l->items[i];
        l->items[i] = l->items[l->n - 1 - i];
        l->items[l->n - 1 - i] = t;
    }
    return l != NULL ? jv_of_list(JV_GENERATOR, l) : v;
}

struct jv jf_unique(struct jr *r, struct jv v, const struct jargs *args)
{
    struct sorting s = { r, false, jarg_bool(args, 0, "case_sensitive", false),
                         jarg(args, 1, "attribute"), -1 };
    struct jv_list *l = copy_of(r, v), *keys = l != NULL ? jv_list_new(r->a, l->n) : NULL;
    if (l == NULL) return v;
    if (keys == NULL) return jnomem(r);
    uint32_t n = 0;
    for (uint32_t i = 0; i < l->n && r->err == ERR_OK; i++) {
        struct jv key = sort_key(&s, l->items[i]);
        uint32_t k = 0;
        while (k < n && jpay(r, 1) && !jequal(r, keys->items[k], key)) k++;
        if (k < n) continue;
        keys->items[n] = key;
        l->items[n++] = l->items[i];
    }
    l->n = n;
    return jv_of_list(JV_GENERATOR, l);
}

struct jv jf_sum(struct jr *r, struct jv v, const struct jargs *args)
{
    const struct jv *attr = jarg(args, 0, "attribute"), *start = jarg(args, 1, "start");
    struct jv sum = start != NULL ? *start : jv_int(0);
    struct jv_list *l = jiterate(r, v);
    for (uint32_t i = 0; l != NULL && i < l->n && r->err == ERR_OK; i++)
        sum = jbinary(r, JOP_ADD, sum,
                      attr != NULL && attr->type != JV_NONE ? by_path(r, l->items[i], *attr)
                                                            : l->items[i]);
    return sum;
}

/* batch(linecount, fill_with) */
struct jv jf_batch(struct jr *r, struct jv v, const struct jargs *args)
{
    int64_t size = jarg_int(r, args, 0, "linecount", 1);
    const struct jv *fill = jarg(args, 1, "fill_with");
    struct jv_list *l = jiterate(r, v);
    if (l == NULL) return v;
    if (size < 1 || size > UINT32_MAX) return jfail(r, ERR_INVALID, "batch of no size");
    uint32_t rows = (uint32_t)(((int64_t)l->n + size - 1) / size);
    struct jv_list *out = jv_list_new(r->a, rows);
    if (out == NULL) return jnomem(r);
    for (uint32_t i = 0; i < rows; i++) {
        uint32_t from = (uint32_t)(i * size), n = MIN((uint32_t)size, l->n - from);
        bool fills = fill != NULL && fill->type != JV_NONE && n < size;
        struct jv_list *row = jv_list_new(r->a, fills ? (size_t)size : n);
        if (row == NULL || !jpay(r, row->n)) return jnomem(r);
        memcpy(row->items, l->items + from, n * sizeof *row->items);
        for (uint32_t k = n; k < row->n; k++) row->items[k] = *fill;
        out->items[i] = jv_of_list(JV_LIST, row);
    }
    return jv_of_list(JV_GENERATOR, out);
}

/* groupby(attribute): (key, items) pairs in order of the key */
struct jv jf_groupby(struct jr *r, struct jv v, const struct jargs *args)
{
    const struct jv *attr = jarg(args, 0, "attribute");
    if (attr == NULL) return jfail(r, ERR_INVALID, "groupby needs an attribute");
    struct sorting s = { r, false, false, attr, -1 };
    struct jv all = sorted(&s, copy_of(r, v));
    if (r->err != ERR_OK) return v;
    struct jv_list *l = all.list, *out = jv_list_new(r->a, l->n);
    if (out == NULL) return jnomem(r);
    uint32_t groups = 0;
    for (uint32_t i = 0, next; i < l->n && r->err == ERR_OK; i = next) {
        struct jv key = sort_key(&s, l->items[i]);
        for (next = i + 1; next < l->n && r->err == ERR_OK; next++)
            if (!jequal(r, sort_key(&s, l->items[next]), key)) break;
        struct jv_list *pair = jv_list_new(r->a, 2), *items = jv_list_new(r->a, next - i);
        if (pair == NULL || items == NULL) return jnomem(r);
        memcpy(items->items, l->items + i, (next - i) * sizeof *items->items);
        pair->items[0] = by_path(r, l->items[i], *attr);
        pair->items[1] = jv_of_list(JV_LIST, items);
        out->items[groups++] = jv_of_list(JV_TUPLE, pair);
    }
    out->n = groups;
    return jv_of_list(JV_LIST, out);
}
