/* SPDX-License-Identifier: Apache-2.0 */
/* Methods of strings, and the two that lists have as well. One thread per rendering. */
#include <string.h>

#include "base/utf8.h"
#include "tokenizer/jinja/jinja_methods.h"

#define METHOD(name) struct jv name(struct jr *r, struct jv self, const struct jargs *args)

/* startswith and endswith take a string or a tuple of them, and a start. */
static struct jv affix(struct jr *r, struct jv self, const struct jargs *args, bool at_end)
{
    const struct jv *what = jarg(args, 0, "");
    if (what == NULL || args->npos > 1)
        return jfail(r, ERR_INVALID, "startswith and endswith take one argument");
    struct jv one[1] = { *what };
    const struct jv *v = what->type == JV_TUPLE ? what->list->items : one;
    uint32_t n = what->type == JV_TUPLE ? what->list->n : 1;
    for (uint32_t i = 0; i < n; i++) {
        if (v[i].type != JV_STR)
            return jfail(r, ERR_INVALID, "startswith and endswith need a string, not %s",
                         jtype_name(v[i]));
        struct str s = jv_text(self), a = jv_text(v[i]);
        if (at_end ? str_ends(s, a) : str_starts(s, a)) return jv_bool(true);
    }
    return jv_bool(false);
}

METHOD(jm_startswith)
{
    return affix(r, self, args, false);
}
METHOD(jm_endswith)
{
    return affix(r, self, args, true);
}

static struct jv strip(struct jr *r, struct jv self, const struct jargs *args, int which)
{
    const struct jv *v = jarg(args, 0, "");
    if (v == NULL || v->type == JV_NONE) return jv_str(jstr_strip(jv_text(self), NULL, which));
    struct str chars = jarg_str(r, args, 0, "chars", STR(""));
    return jv_str(jstr_strip(jv_text(self), &chars, which));
}

METHOD(jm_strip)
{
    return strip(r, self, args, 3);
}
METHOD(jm_lstrip)
{
    return strip(r, self, args, 1);
}
METHOD(jm_rstrip)
{
    return strip(r, self, args, 2);
}

/* Collects parts before their number is known. */
struct parts {
    struct jv *v;
    uint32_t n, cap;
};

static bool add_part(struct jr *r, struct parts *p, struct jv v)
{
    if (p->n == p->cap) {
        uint32_t cap = p->cap == 0 ? 8 : p->cap * 2;
        struct jv *more = arena_alloc(r->a, cap * sizeof *more);
        if (more == NULL) return jnomem(r), false;
        if (p->n > 0) memcpy(more, p->v, p->n * sizeof *more);
        p->v = more;
        p->cap = cap;
    }
    p->v[p->n++] = v;
    return jpay(r, 1);
}

static struct jv parts_list(struct jr *r, const struct parts *p)
{
    struct jv_list *l = jv_list_new(r->a, 0);
    if (l == NULL) return jnomem(r);
    l->items = p->v;
    l->n = p->n;
    return jv_of_list(JV_LIST, l);
}

/* split() without a separator: at runs of white space, none of it at the ends. */
static struct jv split_spaces(struct jr *r, struct str s, int64_t max)
{
    struct parts p = { NULL, 0, 0 };
    for (;;) {
        s = jstr_strip(s, NULL, 1);
        if (s.n == 0) break;
        if (max == 0) {
            (void)add_part(r, &p, jv_str(jstr_strip(s, NULL, 2)));
            break;
        }
        size_t end = 0;
        while (end < s.n) {
            uint32_t cp;
            size_t step = utf8_decode(s.p + end, s.n - end, &cp);
            if (step > 0 && jstr_is_space(cp)) break;
            end += step > 0 ? step : 1;
        }
        if (!add_part(r, &p, jv_str(str_n(s.p, end)))) break;
        s = str_n(s.p + end, s.n - end);
        if (max > 0) max--;
    }
    return parts_list(r, &p);
}

METHOD(jm_split)
{
    struct str s = jv_text(self);
    const struct jv *sepv = jarg(args, 0, "sep");
    int64_t max = jarg_int(r, args, 1, "maxsplit", -1);
    if (!jpay(r, s.n / 16)) return self;
    if (sepv == NULL || sepv->type == JV_NONE) return split_spaces(r, s, max);
    struct str sep = jarg_str(r, args, 0, "sep", STR(""));
    if (r->err != ERR_OK) return self;
    if (sep.n == 0) return jfail(r, ERR_INVALID, "split: empty separator");
    struct parts p = { NULL, 0, 0 };
    for (size_t at = 0;; max -= max > 0) {
        size_t hit = max == 0 ? SIZE_MAX : jstr_find(s, sep, at);
        size_t end = hit == SIZE_MAX ? s.n : hit;
        if (!add_part(r, &p, jv_str(str_n(s.p + at, end - at))) || hit == SIZE_MAX) break;
        at = hit + sep.n;
    }
    return parts_list(r, &p);
}

static size_t find_last(struct str s, struct str sep)
{
    if (sep.n > s.n) return SIZE_MAX;
    for (size_t i = s.n - sep.n + 1; i-- > 0;)
        if (memcmp(s.p + i, sep.p, sep.n) == 0) return i;
    return SIZE_MAX;
}

METHOD(jm_rsplit)
{
    struct str s = jv_text(self), sep = jarg_str(r, args, 0, "sep", STR(""));
    int64_t max = jarg_int(r, args, 1, "maxsplit", -1);
    if (max < 0 || jarg(args, 0, "sep") == NULL) return jm_split(r, self, args);
    if (sep.n == 0 && r->err == ERR_OK) return jfail(r, ERR_INVALID, "rsplit: empty separator");
    struct parts p = { NULL, 0, 0 };
    for (;; max--) {
        size_t hit = max == 0 || r->err != ERR_OK ? SIZE_MAX : find_last(s, sep);
        if (!jpay(r, s.n / 16)) return self;
        size_t from = hit == SIZE_MAX ? 0 : hit + sep.n;
        if (!add_part(r, &p, jv_str(str_n(s.p + from, s.n - from))) || hit == SIZE_MAX) break;
        s.n = hit;
    }
    for (uint32_t i = 0; i < p.n / 2; i++) {
        struct jv v = p.v[i];
        p.v[i] = p.v[p.n - 1 - i];
        p.v[p.n - 1 - i] = v;
    }
    return parts_list(r, &p);
}

METHOD(jm_splitlines)
{
    struct str s = jv_text(self);
    bool keep = jarg_bool(args, 0, "keepends", false);
    struct parts p = { NULL, 0, 0 };
    if (!jpay(r, s.n / 16)) return self;
    for (size_t at = 0; at < s.n;) {
        size_t end = at, next;
        while (end < s.n && s.p[end] != '\n' && s.p[end] != '\r') end++;
        next = end + (end < s.n);
        if (end + 1 < s.n && s.p[end] == '\r' && s.p[end + 1] == '\n') next++;
        if (!add_part(r, &p, jv_str(str_n(s.p + at, (keep ? next : end) - at)))) break;
        at = next;
    }
    return parts_list(r, &p);
}

static struct jv partition(struct jr *r, struct jv self, const struct jargs *args, bool last)
{
    struct str s = jv_text(self), sep = jarg_str(r, args, 0, "sep", STR(""));
    if (sep.n == 0 && r->err == ERR_OK) return jfail(r, ERR_INVALID, "partition: empty separator");
    struct jv_list *l = jv_list_new(r->a, 3);
    if (l == NULL || !jpay(r, s.n / 16)) return jnomem(r);
    size_t hit = last ? find_last(s, sep) : jstr_find(s, sep, 0);
    if (hit == SIZE_MAX) {
        for (unsigned i = 0; i < 3; i++) l->items[i] = jv_str(STR(""));
        l->items[last ? 2 : 0] = self;
    } else {
        l->items[0] = jv_str(str_n(s.p, hit));
        l->items[1] = jv_str(sep);
        l->items[2] = jv_str(str_n(s.p + hit + sep.n, s.n - hit - sep.n));
    }
    return jv_of_list(JV_TUPLE, l);
}

METHOD(jm_partition)
{
    return partition(r, self, args, false);
}
METHOD(jm_rpartition)
{
    return partition(r, self, args, true);
}

METHOD(jm_upper)
{
    return (void)args, jstr_case(r, jv_text(self), JCASE_UPPER);
}
METHOD(jm_lower)
{
    return (void)args, jstr_case(r, jv_text(self), JCASE_LOWER);
}
METHOD(jm_title)
{
    return (void)args, jstr_case(r, jv_text(self), JCASE_TITLE);
}
METHOD(jm_capitalize)
{
    return (void)args, jstr_case(r, jv_text(self), JCASE_CAPITALIZE);
}
METHOD(jm_swapcase)
{
    return (void)args, jstr_case(r, jv_text(self), JCASE_SWAP);
}

METHOD(jm_replace)
{
    if (args->npos + args->nkw < 2) return jfail(r, ERR_INVALID, "replace needs two strings");
    struct str old = jarg_str(r, args, 0, "old", STR("")),
               with = jarg_str(r, args, 1, "new", STR(""));
    int64_t max = jarg_int(r, args, 2, "count", -1);
    if (r->err != ERR_OK || !jpay(r, self.n / 64)) return self;
    return jstr_replace(r, jv_text(self), old, with, max);
}

static struct jv find(struct jr *r, struct jv self, const struct jargs *args, bool last)
{
    struct str s = jv_text(self), needle = jarg_str(r, args, 0, "sub", STR(""));
    if (r->err != ERR_OK || !jpay(r, s.n / 16)) return self;
    size_t hit = last ? find_last(s, needle) : jstr_find(s, needle, 0);
    return jv_int(hit == SIZE_MAX ? -1 : (int64_t)jstr_chars(str_n(s.p, hit)));
}

METHOD(jm_find)
{
    return find(r, self, args, false);
}
METHOD(jm_rfind)
{
    return find(r, self, args, true);
}

METHOD(jm_index)
{
    if (self.type == JV_STR) {
        struct jv at = find(r, self, args, false);
        if (r->err == ERR_OK && at.i < 0)
            return jfail(r, ERR_INVALID, "index: substring not found");
        return at;
    }
    for (uint32_t i = 0; args->npos > 0 && i < self.list->n && jpay(r, 1); i++)
        if (jequal(r, self.list->items[i], args->pos[0])) return jv_int(i);
    return jfail(r, ERR_INVALID, "index: the value is not in the list");
}

METHOD(jm_count)
{
    int64_t n = 0;
    if (args->npos != 1) return jfail(r, ERR_INVALID, "count takes one argument");
    if (self.type == JV_STR) {
        struct str s = jv_text(self), needle = jarg_str(r, args, 0, "sub", STR(""));
        if (r->err != ERR_OK || !jpay(r, s.n / 16)) return self;
        if (needle.n == 0) return jv_int((int64_t)jstr_chars(s) + 1);
        for (size_t at = 0; (at = jstr_find(s, needle, at)) != SIZE_MAX; at += needle.n) n++;
        return jv_int(n);
    }
    for (uint32_t i = 0; i < self.list->n && jpay(r, 1); i++)
        n += jequal(r, self.list->items[i], args->pos[0]);
    return jv_int(n);
}

METHOD(jm_join)
{
    struct jsb b = { NULL, 0, 0 };
    struct jv_list *l = args->npos == 1 ? jiterate(r, args->pos[0]) : NULL;
    if (l == NULL) return jfail(r, ERR_INVALID, "join takes one list");
    for (uint32_t i = 0; i < l->n && r->err == ERR_OK; i++) {
        if (l->items[i].type != JV_STR)
            return jfail(r, ERR_INVALID, "join: item %u is a %s", i, jtype_name(l->items[i]));
        if (i > 0 && !jsb_add(r, &b, jv_text(self))) break;
        (void)jsb_add(r, &b, jv_text(l->items[i]));
    }
    return jv_str(jsb_str(&b));
}

METHOD(jm_removeprefix)
{
    struct str s = jv_text(self), a = jarg_str(r, args, 0, "prefix", STR(""));
    return str_starts(s, a) ? jv_str(str_n(s.p + a.n, s.n - a.n)) : self;
}

METHOD(jm_removesuffix)
{
    struct str s = jv_text(self), a = jarg_str(r, args, 0, "suffix", STR(""));
    return str_ends(s, a) ? jv_str(str_n(s.p, s.n - a.n)) : self;
}

/* Does every character satisfy `what` (and is there one)? */
static struct jv all_chars(struct jr *r, struct jv self, bool (*what)(uint32_t cp))
{
    struct str s = jv_text(self);
    if (!jpay(r, s.n / 16)) return self;
    for (size_t i = 0; i < s.n;) {
        uint32_t cp;
        size_t step = utf8_decode(s.p + i, s.n - i, &cp);
        if (step == 0 || !what(cp)) return jv_bool(false);
        i += step;
    }
    return jv_bool(s.n > 0);
}

static bool is_ascii_digit(uint32_t c)
{
    return c >= '0' && c <= '9';
}

static bool is_alnum(uint32_t c)
{
    return is_ascii_digit(c) || jchar_is_alpha(c);
}

METHOD(jm_isspace)
{
    return (void)args, all_chars(r, self, jstr_is_space);
}
METHOD(jm_isdigit)
{
    return (void)args, all_chars(r, self, is_ascii_digit);
}
METHOD(jm_isalpha)
{
    return (void)args, all_chars(r, self, jchar_is_alpha);
}
METHOD(jm_isalnum)
{
    return (void)args, all_chars(r, self, is_alnum);
}

METHOD(jm_isupper)
{
    (void)args;
    return jv_bool(jtest_find(STR("upper"))(r, self, args));
}

METHOD(jm_islower)
{
    (void)args;
    return jv_bool(jtest_find(STR("lower"))(r, self, args));
}

/* "{} and {}".format(a, b): plain fields, by place or by name. */
METHOD(jm_format)
{
    struct str f = jv_text(self);
    struct jsb b = { NULL, 0, 0 };
    uint32_t next = 0;
    for (size_t i = 0; i < f.n && r->err == ERR_OK; i++) {
        char c = f.p[i];
        if ((c == '{' || c == '}') && i + 1 < f.n && f.p[i + 1] == c) {
            (void)jsb_add(r, &b, str_n(f.p + i++, 1));
        } else if (c != '{') {
            (void)jsb_add(r, &b, str_n(f.p + i, 1));
        } else {
            const char *close = memchr(f.p + i, '}', f.n - i);
            if (close == NULL) return jfail(r, ERR_INVALID, "format: a field is not closed");
            struct str name = str_n(f.p + i + 1, (size_t)(close - f.p) - i - 1);
            char z[64];
            uint64_t at = name.n == 0 ? next++ : UINT32_MAX;
            if (!str_copyz(z, sizeof z, name)) at = UINT32_MAX;
            if (name.n > 0 && str_to_u64(name, &at) != ERR_OK) at = UINT32_MAX;
            const struct jv *v = jarg(args, (uint32_t)MIN(at, UINT32_MAX), z);
            if (v == NULL) return jfail(r, ERR_INVALID, "format: no value for '{%s}'", z);
            struct str s = v->type == JV_UNDEFINED ? STR("") : jto_str(r, *v);
            if (r->err == ERR_OK) (void)jsb_add(r, &b, s);
            i = (size_t)(close - f.p);
        }
    }
    return jv_str(jsb_str(&b));
}
