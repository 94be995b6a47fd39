/* SPDX-License-Identifier: Apache-2.0 */
/* Filters on single values, and the table of all. Those on sequences are in jinja_filters_seq.c. */
#include "tokenizer/jinja/jinja_filters.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

FILTER(f_tojson)
{
    const struct jv *indent = jarg(args, 0, "indent"), *sep = jarg(args, 2, "separators");
    struct jjson how = { false, false, -1, STR(", "), STR(": ") };
    /* Hugging Face's filter: tojson(ensure_ascii=False, indent=None, separators, sort_keys) */
    if (args->npos > 0) {
        how.ascii = jarg_bool(args, 0, "ensure_ascii", false);
        indent = jarg(args, 1, "indent");
        how.sort_keys = jarg_bool(args, 3, "sort_keys", false);
    } else {
        how.ascii = jarg_bool(args, UINT32_MAX, "ensure_ascii", false);
        how.sort_keys = jarg_bool(args, UINT32_MAX, "sort_keys", false);
    }
    if (indent != NULL && indent->type != JV_NONE) {
        if (indent->type != JV_INT || indent->i > 16)
            return jfail(r, ERR_UNSUPPORTED, "tojson: indent must be a number of at most 16");
        how.indent = indent->i < 0 ? 0 : (int)indent->i;
        how.item_sep = STR(",");
    }
    if (sep != NULL && (sep->type == JV_TUPLE || sep->type == JV_LIST)) {
        const struct jv *s = sep->list->items;
        if (sep->list->n != 2 || s[0].type != JV_STR || s[1].type != JV_STR)
            return jfail(r, ERR_INVALID, "tojson: separators must be two strings");
        how.item_sep = jv_text(s[0]);
        how.key_sep = jv_text(s[1]);
    }
    return jto_json(r, v, &how);
}

FILTER(f_trim)
{
    struct str s = jto_str(r, v);
    const struct jv *c = jarg(args, 0, "chars");
    if (c == NULL || c->type == JV_NONE) return jv_str(jstr_strip(s, NULL, 3));
    struct str chars = jarg_str(r, args, 0, "chars", STR(""));
    return jv_str(jstr_strip(s, &chars, 3));
}

FILTER(f_length)
{
    (void)args;
    switch (v.type) {
    case JV_STR: return jpay(r, v.n / 16) ? jv_int((int64_t)jstr_chars(jv_text(v))) : v;
    case JV_LIST:
    case JV_TUPLE:
    case JV_RANGE: return jv_int(v.list->n);
    case JV_DICT: return jv_int(v.dict->n);
    case JV_UNDEFINED: return jv_int(0);
    default: return jfail(r, ERR_INVALID, "a %s has no length", jtype_name(v));
    }
}

FILTER(f_string)
{
    (void)args;
    struct str s = jto_str(r, v);
    return jv_str(s);
}

FILTER(f_default)
{
    const struct jv *d = jarg(args, 0, "default_value");
    bool also_false = jarg_bool(args, 1, "boolean", false);
    (void)r;
    if (v.type == JV_UNDEFINED || (also_false && !jtruth(v)))
        return d != NULL ? *d : jv_str(STR(""));
    return v;
}

FILTER(f_upper)
{
    return (void)args, jstr_case(r, jto_str(r, v), JCASE_UPPER);
}
FILTER(f_lower)
{
    return (void)args, jstr_case(r, jto_str(r, v), JCASE_LOWER);
}
FILTER(f_title)
{
    return (void)args, jstr_case(r, jto_str(r, v), JCASE_WORDS);
}
FILTER(f_capitalize)
{
    return (void)args, jstr_case(r, jto_str(r, v), JCASE_CAPITALIZE);
}

FILTER(f_replace)
{
    if (args->npos + args->nkw < 2) return jfail(r, ERR_INVALID, "replace needs two strings");
    struct str s = jto_str(r, v), old = jarg_str(r, args, 0, "old", STR(""));
    struct str with = jarg_str(r, args, 1, "new", STR(""));
    int64_t max = jarg_int(r, args, 2, "count", -1);
    if (r->err != ERR_OK || !jpay(r, s.n / 64)) return v;
    return jstr_replace(r, s, old, with, max);
}

/* int(value, default=0, base=10): of a number, or of a string that is one; else the default. */
FILTER(f_int)
{
    const struct jv *d = jarg(args, 0, "default");
    struct jv i;
    double f;
    if (v.type == JV_INT || v.type == JV_BIGINT) return v;
    if (v.type == JV_BOOL) return jv_int(v.b);
    if (v.type == JV_FLOAT && isfinite(v.f)) return jnumber_truncated(r, v.f);
    if (v.type == JV_STR) {
        int64_t base = jarg_int(r, args, 1, "base", 10);
        bool is_base = base == 0 || (base >= 2 && base <= 36);
        if (r->err == ERR_OK && is_base && jnumber_int(r, jv_text(v), (int)base, &i)) return i;
        if (r->err == ERR_OK && jnumber_float(r, jv_text(v), &f) && isfinite(f))
            return jnumber_truncated(r, f);
    }
    return d != NULL ? *d : jv_int(0);
}

FILTER(f_float)
{
    const struct jv *d = jarg(args, 0, "default");
    double f;
    if (v.type == JV_FLOAT) return v;
    if (v.type == JV_INT) return jv_float((double)v.i);
    if (v.type == JV_BOOL) return jv_float(v.b);
    if ((v.type == JV_STR || v.type == JV_BIGINT) && jnumber_float(r, jv_text(v), &f))
        return jv_float(f);
    return d != NULL ? *d : jv_float(0.0);
}

FILTER(f_abs)
{
    (void)args;
    if (v.type == JV_FLOAT) return jv_float(fabs(v.f));
    if (!jis_number(v)) return jfail(r, ERR_INVALID, "abs of a %s", jtype_name(v));
    return v.type == JV_INT && v.i < 0 ? jbinary(r, JOP_SUB, jv_int(0), v) : v;
}

FILTER(f_round)
{
    int64_t digits = jarg_int(r, args, 0, "precision", 0);
    struct str how = jarg_str(r, args, 1, "method", STR("common"));
    if (!jis_number(v) || v.type == JV_BIGINT || digits > 15 || digits < -15)
        return jfail(r, ERR_INVALID, "round of a %s", jtype_name(v));
    double f = v.type == JV_FLOAT ? v.f : v.type == JV_INT ? (double)v.i : (double)v.b;
    double scale = pow(10.0, (double)digits);
    if (v.type == JV_INT && str_eqz(how, "common") && digits >= 0) return v;
    if (str_eqz(how, "ceil")) return jv_float(ceil(f * scale) / scale);
    if (str_eqz(how, "floor")) return jv_float(floor(f * scale) / scale);
    return jv_float(nearbyint(f * scale) / scale); /* half to even, as Python's round() */
}

FILTER(f_safe)
{
    (void)r, (void)args;
    return v.type == JV_UNDEFINED ? jv_str(STR("")) : v;
}

FILTER(f_escape)
{
    (void)args;
    struct str s = jto_str(r, v);
    struct jsb b = { NULL, 0, 0 };
    for (size_t i = 0; i < s.n && r->err == ERR_OK; i++) {
        char c = s.p[i];
        struct str to = c == '&'    ? STR("&amp;")
                        : c == '<'  ? STR("&lt;")
                        : c == '>'  ? STR("&gt;")
                        : c == '"'  ? STR("&#34;")
                        : c == '\'' ? STR("&#39;")
                                    : str_n(s.p + i, 1);
        (void)jsb_add(r, &b, to);
    }
    return jv_str(jsb_str(&b));
}

/* indent(width=4, first=false, blank=false) */
FILTER(f_indent)
{
    static const char spaces[] = "                                                                ";
    struct str s = jto_str(r, v), pad = STR("    ");
    const struct jv *width = jarg(args, 0, "width");
    bool first = jarg_bool(args, 1, "first", false), blank = jarg_bool(args, 2, "blank", false);
    struct jsb b = { NULL, 0, 0 };
    if (width != NULL && width->type == JV_STR) {
        pad = jv_text(*width);
    } else {
        int64_t n = jarg_int(r, args, 0, "width", 4);
        if (n > (int64_t)sizeof spaces - 1) return jfail(r, ERR_LIMIT, "indent is too wide");
        pad = str_n(spaces, n < 0 ? 0 : (size_t)n);
    }
    if (first && r->err == ERR_OK) (void)jsb_add(r, &b, pad);
    for (size_t at = 0; at < s.n && r->err == ERR_OK;) {
        const char *nl = memchr(s.p + at, '\n', s.n - at);
        size_t end = nl != NULL ? (size_t)(nl - s.p) + 1 : s.n;
        if (at > 0 && (blank || s.p[at] != '\n')) (void)jsb_add(r, &b, pad);
        (void)jsb_add(r, &b, str_n(s.p + at, end - at));
        at = end;
    }
    if (blank && s.n > 0 && s.p[s.n - 1] == '\n') (void)jsb_add(r, &b, pad);
    return jv_str(jsb_str(&b));
}

FILTER(f_attr)
{
    struct str name = jarg_str(r, args, 0, "name", STR(""));
    if (r->err != ERR_OK) return v;
    /* attributes only, never items: what is left are those of loops and namespaces */
    if (v.type == JV_DICT && jmethod_find(v, name) == 0) return jv_undefined(name);
    return jgetattr(r, v, name);
}

FILTER(f_format)
{
    struct jv_list *l = jv_list_new(r->a, args->npos);
    if (l == NULL) return jnomem(r);
    if (args->npos > 0) memcpy(l->items, args->pos, args->npos * sizeof *l->items);
    return jbinary(r, JOP_MOD, jv_str(jto_str(r, v)), jv_of_list(JV_TUPLE, l));
}

FILTER(f_wordcount)
{
    (void)args;
    static const struct jargs none = { NULL, 0, 0, NULL };
    struct jv words = jcall_method(r, jv_str(jto_str(r, v)),
                                   jmethod_find(jv_str(STR("")), STR("split")), &none);
    return r->err == ERR_OK ? jv_int(words.list->n) : words;
}

jfilter_fn *jfilter_find(struct str name)
{
    static const struct {
        const char *name;
        jfilter_fn *fn;
    } table[] = {
        { "tojson", f_tojson },
        { "trim", f_trim },
        { "length", f_length },
        { "count", f_length },
        { "string", f_string },
        { "default", f_default },
        { "d", f_default },
        { "upper", f_upper },
        { "lower", f_lower },
        { "title", f_title },
        { "capitalize", f_capitalize },
        { "replace", f_replace },
        { "int", f_int },
        { "float", f_float },
        { "abs", f_abs },
        { "round", f_round },
        { "safe", f_safe },
        { "escape", f_escape },
        { "e", f_escape },
        { "indent", f_indent },
        { "attr", f_attr },
        { "format", f_format },
        { "wordcount", f_wordcount },
        { "join", jf_join },
        { "items", jf_items },
        { "list", jf_list },
        { "select", jf_select },
        { "reject", jf_reject },
        { "selectattr", jf_selectattr },
        { "rejectattr", jf_rejectattr },
        { "map", jf_map },
        { "dictsort", jf_dictsort },
        { "first", jf_first },
        { "last", jf_last },
        { "reverse", jf_reverse },
        { "sort", jf_sort },
        { "unique", jf_unique },
        { "sum", jf_sum },
        { "min", jf_min },
        { "max", jf_max },
        { "batch", jf_batch },
        { "groupby", jf_groupby },
    };
    for (size_t i = 0; i < ARRAY_LEN(table); i++)
        if (str_eqz(name, table[i].name)) return table[i].fn;
    return NULL;
}
