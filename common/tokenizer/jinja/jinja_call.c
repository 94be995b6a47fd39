/* SPDX-License-Identifier: Apache-2.0 */
/* Macros, built-in functions, and what attributes a value has. One thread per rendering. */
#include <string.h>
#include <time.h>

#include "tokenizer/jinja/jinja_int.h"

enum function { FN_RAISE = 1, FN_STRFTIME, FN_NAMESPACE, FN_RANGE, FN_DICT };
enum { MAX_RANGE = 100000 };

const struct jv *jarg(const struct jargs *args, uint32_t i, const char *name)
{
    if (i < args->npos) return &args->pos[i];
    for (uint32_t k = 0; k < args->nkw; k++)
        if (str_eqz(args->kw[k].name, name)) return &args->kw[k].value;
    return NULL;
}

int64_t jarg_int(struct jr *r, const struct jargs *args, uint32_t i, const char *name, int64_t dflt)
{
    const struct jv *v = jarg(args, i, name);
    if (v == NULL || v->type == JV_NONE) return dflt;
    if (v->type == JV_INT) return v->i;
    if (v->type == JV_BOOL) return v->b;
    jfail(r, ERR_INVALID, "'%s' must be an integer, not %s", name, jtype_name(*v));
    return dflt;
}

bool jarg_bool(const struct jargs *args, uint32_t i, const char *name, bool dflt)
{
    const struct jv *v = jarg(args, i, name);
    return v != NULL ? jtruth(*v) : dflt;
}

struct str jarg_str(struct jr *r, const struct jargs *args, uint32_t i, const char *name,
                    struct str dflt)
{
    const struct jv *v = jarg(args, i, name);
    if (v == NULL) return dflt;
    if (v->type == JV_STR) return jv_text(*v);
    jfail(r, ERR_INVALID, "'%s' must be a string, not %s", name, jtype_name(*v));
    return dflt;
}

/* ---- macros ---- */

static const struct jv *named(const struct jargs *args, struct str name)
{
    for (uint32_t k = 0; k < args->nkw; k++)
        if (str_eq(args->kw[k].name, name)) return &args->kw[k].value;
    return NULL;
}

/* varargs and kwargs: what no parameter takes. */
static bool bind_rest(struct jr *r, const struct jn_macro *m, struct jframe *f,
                      const struct jargs *args)
{
    uint32_t extra = args->npos > m->nparams ? args->npos - m->nparams : 0;
    struct jv_list *l = jv_list_new(r->a, extra);
    struct jv_dict *d = jv_dict_new(r->a, args->nkw);
    if (l == NULL || d == NULL) return jnomem(r), false;
    for (uint32_t i = 0; i < extra; i++) l->items[i] = args->pos[m->nparams + i];
    for (uint32_t k = 0; k < args->nkw; k++) {
        bool taken = str_eqz(args->kw[k].name, "caller");
        for (uint32_t i = 0; i < m->nparams; i++)
            taken = taken || str_eq(m->params[i], args->kw[k].name);
        if (!taken && jv_dict_set(r->a, d, jv_str(args->kw[k].name), args->kw[k].value) != ERR_OK)
            return jnomem(r), false;
    }
    f->slots[m->varargs_slot] = jv_of_list(JV_TUPLE, l);
    f->slots[m->kwargs_slot] = jv_of_dict(d);
    return true;
}

static struct jframe *bind(struct jr *r, const struct jmacro_value *mv, const struct jargs *args)
{
    const struct jn_macro *m = mv->def;
    struct jframe *f = arena_alloc(r->a, sizeof *f + m->nslots * sizeof(struct jv));
    if (f == NULL) return jnomem(r), NULL;
    f->outer = mv->closure;
    for (unsigned i = 0; i < m->nslots; i++) f->slots[i].type = JV_UNSET;
    for (uint32_t i = 0; i < m->nparams; i++) {
        const struct jv *v = i < args->npos ? &args->pos[i] : named(args, m->params[i]);
        f->slots[m->param_slots[i]] = v != NULL ? *v : jv_undefined(m->params[i]);
    }
    const struct jv *caller = named(args, STR("caller"));
    f->slots[m->caller_slot] = caller != NULL ? *caller : jv_undefined(STR("caller"));
    if (!bind_rest(r, m, f, args)) return NULL;
    struct jframe *before = r->frame;
    r->frame = f; /* defaults may use the parameters before them */
    for (uint32_t i = args->npos; i < m->nparams && r->err == ERR_OK; i++)
        if (m->defaults[i] != NULL && named(args, m->params[i]) == NULL)
            f->slots[m->param_slots[i]] = jeval(r, m->defaults[i]);
    r->frame = before;
    return r->err == ERR_OK ? f : NULL;
}

static struct jv call_macro(struct jr *r, const struct jmacro_value *mv, const struct jargs *args)
{
    struct jframe *f = bind(r, mv, args), *before = r->frame;
    if (f == NULL) return jv_undefined(STR_NULL);
    r->frame = f;
    struct jv v = jcapture(r, &mv->def->body);
    r->frame = before;
    return v;
}

/* loop(items) in a recursive loop: the loop's own text over other items. */
static struct jv call_loop(struct jr *r, struct jloop *loop, const struct jargs *args)
{
    const struct jn_for *f = loop->def;
    struct jframe *caller = r->frame, *frame = loop->frame; /* a macro may have been given it */
    if (!f->recursive || args->npos != 1)
        return jfail(r, ERR_INVALID, "only a recursive loop can be called, with one argument");
    struct jv *saved = arena_alloc(r->a, (f->all + 1u) * sizeof *saved);
    if (saved == NULL) return jnomem(r);
    if (++r->depth > JINJA_MAX_DEPTH)
        return jfail(r, ERR_LIMIT, "macros or loops call each other too deep");
    memcpy(saved, &frame->slots[f->first], f->all * sizeof *saved);
    struct jout *before = r->out, o = { NULL, 0, 0, true };
    r->out = &o;
    r->frame = frame;
    (void)jrun_loop(r, f, args->pos[0], loop->depth + 1);
    r->frame = caller;
    r->out = before;
    memcpy(&frame->slots[f->first], saved, f->all * sizeof *saved);
    r->depth--;
    return jv_str(str_n(o.data != NULL ? o.data : "", o.len));
}

/* ---- built-in functions ---- */

struct jv jbuiltin(struct str name)
{
    static const struct {
        const char *name;
        enum function fn;
    } table[] = {
        { "raise_exception", FN_RAISE },
        { "strftime_now", FN_STRFTIME },
        { "namespace", FN_NAMESPACE },
        { "range", FN_RANGE },
        { "dict", FN_DICT },
    };
    for (size_t i = 0; i < ARRAY_LEN(table); i++)
        if (str_eqz(name, table[i].name))
            return (struct jv){ .type = JV_FUNCTION, .n = (uint32_t)table[i].fn };
    return jv_undefined(name);
}

struct jv jstrftime(struct jr *r, struct str format)
{
    char z[128], out[512];
    struct tm tm;
    time_t now = (time_t)r->run->now;
    r->run->used_clock = true;
    if (!str_copyz(z, sizeof z, format) || gmtime_r(&now, &tm) == NULL)
        return jfail(r, ERR_LIMIT, "strftime_now: the format is too long");
    size_t n;
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    n = strftime(out, sizeof out, z, &tm);
#pragma GCC diagnostic pop
    struct str s;
    if (arena_dup(r->a, str_n(out, n), &s) != ERR_OK) return jnomem(r);
    return jv_str(s);
}

static struct jv call_range(struct jr *r, const struct jargs *args)
{
    int64_t lo = 0, hi = jarg_int(r, args, 0, "", 0), step = jarg_int(r, args, 2, "", 1);
    if (args->npos >= 2) {
        lo = hi;
        hi = jarg_int(r, args, 1, "", 0);
    }
    if (r->err != ERR_OK) return jv_none();
    if (args->npos == 0 || step == 0) return jfail(r, ERR_INVALID, "range() of nothing");
    uint64_t n = 0;
    if (step > 0 && hi > lo)
        n = ((uint64_t)hi - (uint64_t)lo - 1) / (uint64_t)step + 1;
    else if (step < 0 && lo > hi)
        n = ((uint64_t)lo - (uint64_t)hi - 1) / (0 - (uint64_t)step) + 1;
    if (n > MAX_RANGE) return jfail(r, ERR_LIMIT, "range() of more than %d", MAX_RANGE);
    struct jv_list *l = jv_list_new(r->a, n);
    if (l == NULL || !jpay(r, n)) return jnomem(r);
    for (uint64_t i = 0; i < n; i++)
        l->items[i] = jv_int((int64_t)((uint64_t)lo + i * (uint64_t)step));
    return jv_of_list(JV_RANGE, l);
}

/* namespace(a=1), namespace(dict), dict(a=1) */
static struct jv call_dict(struct jr *r, const struct jargs *args, bool as_namespace)
{
    struct jv_dict *d = jv_dict_new(r->a, args->nkw + 4);
    if (d == NULL) return jnomem(r);
    for (uint32_t i = 0; i < args->npos; i++) {
        struct jv v = args->pos[i];
        if (v.type != JV_DICT)
            return jfail(r, ERR_INVALID, "cannot make a dict of a %s", jtype_name(v));
        for (uint32_t k = 0; k < v.dict->n; k++)
            if (jv_dict_set(r->a, d, v.dict->pairs[k].key, v.dict->pairs[k].value) != ERR_OK)
                return jnomem(r);
    }
    for (uint32_t i = 0; i < args->nkw; i++)
        if (jv_dict_set(r->a, d, jv_str(args->kw[i].name), args->kw[i].value) != ERR_OK)
            return jnomem(r);
    struct jv v = jv_of_dict(d);
    if (as_namespace) v.type = JV_NAMESPACE;
    return v;
}

static struct jv call_function(struct jr *r, enum function fn, const struct jargs *args)
{
    switch (fn) {
    case FN_RAISE: {
        struct str text = args->npos > 0 ? jto_str(r, args->pos[0]) : STR("");
        if (r->err != ERR_OK) return jv_none();
        r->run->template_raised = true;
        r->err = why_set(r->why, ERR_INVALID, "%.*s", STR_ARG(text));
        return jv_none();
    }
    case FN_STRFTIME: {
        struct str format = jarg_str(r, args, 0, "format", STR("%Y-%m-%d"));
        return r->err == ERR_OK ? jstrftime(r, format) : jv_none();
    }
    case FN_NAMESPACE: return call_dict(r, args, true);
    case FN_RANGE: return call_range(r, args);
    case FN_DICT: return call_dict(r, args, false);
    }
    return jfail(r, ERR_INTERNAL, "an unknown function");
}

struct jv jcall(struct jr *r, struct jv callee, const struct jargs *args)
{
    if (r->run->record != NULL && !jrec_may_call(r, callee, args)) return jv_undefined(STR_NULL);
    switch (callee.type) {
    case JV_MACRO: return call_macro(r, callee.p, args);
    case JV_FUNCTION: return call_function(r, (enum function)callee.n, args);
    case JV_METHOD:
        return jcall_method(r, ((struct jmethod_value *)callee.p)->self, callee.n, args);
    case JV_LOOP: return call_loop(r, callee.p, args);
    case JV_UNDEFINED:
        return jfail(r, ERR_INVALID, "'%.*s' is undefined", STR_ARG(jv_text(callee)));
    default: return jfail(r, ERR_INVALID, "a %s cannot be called", jtype_name(callee));
    }
}

/* ---- attributes ---- */

static struct jv loop_attr(struct jr *r, struct jloop *l, struct str name)
{
    static const char *const names[] = { "index",  "index0",   "first",     "last",
                                         "length", "revindex", "revindex0", "depth",
                                         "depth0", "previtem", "nextitem" };
    size_t i = 0;
    while (i < ARRAY_LEN(names) && !str_eqz(name, names[i])) i++;
    switch (i) {
    case 0: return jv_int((int64_t)l->index + 1);
    case 1: return jv_int(l->index);
    case 2: return jv_bool(l->index == 0);
    case 3: return jv_bool(l->index + 1 == l->n);
    case 4: return jv_int(l->n);
    case 5: return jv_int((int64_t)l->n - l->index);
    case 6: return jv_int((int64_t)l->n - l->index - 1);
    case 7: return jv_int(l->depth);
    case 8: return jv_int((int64_t)l->depth - 1);
    case 9: return l->index > 0 ? l->items[l->index - 1] : jv_undefined(STR("previtem"));
    case 10: return l->index + 1 < l->n ? l->items[l->index + 1] : jv_undefined(STR("nextitem"));
    default: break;
    }
    (void)r;
    return jv_undefined(name);
}

struct jv jattr(struct jr *r, struct jv v, struct str name, unsigned method)
{
    if (v.type == JV_UNDEFINED)
        return jfail(r, ERR_INVALID, "'%.*s' is undefined", STR_ARG(jv_text(v)));
    if (jmethod_has(v, method)) {
        struct jmethod_value *m = arena_alloc(r->a, sizeof *m);
        if (m == NULL) return jnomem(r);
        m->self = v;
        return (struct jv){ .type = JV_METHOD, .n = method, .p = m };
    }
    if (v.type == JV_LOOP) return loop_attr(r, v.p, name);
    if (v.type == JV_DICT || v.type == JV_NAMESPACE) {
        const struct jv *m = jv_dict_get(v.dict, jv_str(name));
        if (m != NULL) return *m;
    }
    return jv_undefined(name);
}

struct jv jgetattr(struct jr *r, struct jv v, struct str name)
{
    return jattr(r, v, name, jmethod_named(name));
}

struct jv jgetitem(struct jr *r, struct jv v, struct jv key)
{
    if (v.type == JV_UNDEFINED)
        return jfail(r, ERR_INVALID, "'%.*s' is undefined", STR_ARG(jv_text(v)));
    if (v.type == JV_DICT) {
        const struct jv *m = jv_dict_get(v.dict, key);
        if (m != NULL) return *m;
    } else if (key.type == JV_INT || key.type == JV_BOOL) {
        int64_t i = key.type == JV_INT ? key.i : key.b;
        if (v.type == JV_LIST || v.type == JV_TUPLE || v.type == JV_RANGE) {
            if (i < 0) i += v.list->n;
            return i >= 0 && i < v.list->n ? v.list->items[i] : jv_undefined(STR("item"));
        }
        if (v.type == JV_STR) {
            struct str s = jv_text(v);
            if (i < 0) i += (int64_t)jstr_chars(s);
            size_t at = i >= 0 ? jstr_offset(s, (size_t)i) : s.n;
            if (!jpay(r, s.n / 64) || at >= s.n) return jv_undefined(STR("item"));
            return jv_str(str_n(s.p + at, jstr_step(s.p + at, s.n - at)));
        }
    }
    if (key.type == JV_STR) return jgetattr(r, v, jv_text(key));
    return jv_undefined(STR("item"));
}
