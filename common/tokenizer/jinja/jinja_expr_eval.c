/* SPDX-License-Identifier: Apache-2.0 */
/* Expressions of a template being rendered. One thread per rendering. */
#include <string.h>

#include "tokenizer/jinja/jinja_int.h"

static struct jv eval_name(struct jr *r, const struct jn *n)
{
    for (uint32_t i = 0; i < n->ref.nplaces; i++) {
        const struct jframe *f = r->frame;
        for (unsigned up = n->ref.places[i].up; up > 0; up--) f = f->outer;
        const struct jv *v = &f->slots[n->ref.places[i].slot];
        if (v->type != JV_UNSET) return *v;
    }
    if (n->ref.global == UINT32_MAX) return jv_undefined(n->name);
    return r->globals[n->ref.global];
}

/* Evaluates arguments into pos and kw (both long enough: the parser bounds them). */
static bool eval_args(struct jr *r, const struct jncall *c, struct jv *pos, struct jkw *kw,
                      struct jargs *ret)
{
    for (uint32_t i = 0; i < c->pos.n; i++) {
        pos[i] = jeval(r, c->pos.v[i]);
        if (r->err != ERR_OK) return false;
    }
    for (uint32_t i = 0; i < c->nkw; i++) {
        kw[i] = (struct jkw){ c->kw[i].name, jeval(r, c->kw[i].value) };
        if (r->err != ERR_OK) return false;
    }
    *ret = (struct jargs){ pos, c->pos.n, c->nkw, kw };
    return true;
}

/* Room for a call's arguments: on the arena, so that recursion does not eat the stack. */
static bool args_room(struct jr *r, const struct jncall *c, struct jv **pos, struct jkw **kw)
{
    *pos = NULL;
    *kw = NULL;
    if (c->pos.n > 0 && (*pos = arena_alloc(r->a, c->pos.n * sizeof **pos)) == NULL)
        return jnomem(r), false;
    if (c->nkw > 0 && (*kw = arena_alloc(r->a, c->nkw * sizeof **kw)) == NULL)
        return jnomem(r), false;
    return true;
}

static struct jv eval_call(struct jr *r, const struct jn *n)
{
    struct jv *pos;
    struct jkw *kw;
    struct jargs args;
    struct jv self = jv_none(), callee = jv_none();
    unsigned method = 0;
    if (n->a->kind == JN_ATTR) { /* a method: no bound value is made */
        self = jeval(r, n->a->a);
        if (r->err != ERR_OK) return self;
        method = jmethod_has(self, n->a->op) ? n->a->op : 0;
        if (method == 0) callee = jattr(r, self, n->a->name, 0);
    } else {
        callee = jeval(r, n->a);
    }
    if (r->err != ERR_OK || !args_room(r, &n->args, &pos, &kw) ||
        !eval_args(r, &n->args, pos, kw, &args))
        return jv_undefined(STR_NULL);
    r->line = n->line;
    struct jv noted;
    if (method != 0 && r->run->record != NULL && jrec_method(r, self, n->a->name, &args, &noted))
        return noted;
    return method != 0 ? jcall_method(r, self, method, &args) : jcall(r, callee, &args);
}

/* What a filter or a test is applied to, and its arguments. False: raised. */
static bool eval_subject(struct jr *r, const struct jn *n, struct jv *ret, struct jargs *ret_args)
{
    struct jv *pos;
    struct jkw *kw;
    *ret_args = (struct jargs){ NULL, 0, 0, NULL };
    *ret = jeval(r, n->a);
    if (r->err != ERR_OK) return false;
    if (n->args.pos.n + n->args.nkw > 0 &&
        (!args_room(r, &n->args, &pos, &kw) || !eval_args(r, &n->args, pos, kw, ret_args)))
        return false;
    r->line = n->line;
    return true;
}

static struct jv eval_filter(struct jr *r, const struct jn *n)
{
    struct jargs args;
    struct jv v;
    if (!eval_subject(r, n, &v, &args)) return v;
    struct jv noted;
    if (r->run->record != NULL && jrec_filter(r, n->called, v, &args, &noted)) return noted;
    return n->filter(r, v, &args);
}

static struct jv eval_test(struct jr *r, const struct jn *n)
{
    struct jargs args;
    struct jv v;
    if (!eval_subject(r, n, &v, &args)) return v;
    if (r->run->record != NULL && !jrec_may_test(r, n->called, v, &args)) return v;
    return jv_bool(n->test(r, v, &args) != (n->op == 1));
}

static struct jv eval_list(struct jr *r, const struct jn *n, enum jv_type type)
{
    struct jv_list *l = jv_list_new(r->a, n->list.n);
    if (l == NULL) return jnomem(r);
    for (uint32_t i = 0; i < n->list.n && r->err == ERR_OK; i++)
        l->items[i] = jeval(r, n->list.v[i]);
    return jv_of_list(type, l);
}

static bool hashable(struct jv v)
{
    return v.type != JV_LIST && v.type != JV_DICT && v.type != JV_NAMESPACE;
}

static struct jv eval_dict(struct jr *r, const struct jn *n)
{
    struct jv_dict *d = jv_dict_new(r->a, n->list.n / 2);
    if (d == NULL) return jnomem(r);
    for (uint32_t i = 0; i + 1 < n->list.n; i += 2) {
        struct jv k = jeval(r, n->list.v[i]);
        if (r->err != ERR_OK) return k;
        struct jv v = jeval(r, n->list.v[i + 1]);
        if (r->err != ERR_OK) return v;
        if (r->run->record != NULL && jrec_holds(k)) return jrec_spoil(r);
        if (!hashable(k)) return jfail(r, ERR_INVALID, "a %s cannot be a key", jtype_name(k));
        if (jv_dict_set(r->a, d, k, v) != ERR_OK) return jnomem(r);
    }
    return jv_of_dict(d);
}

static struct jv eval_slice(struct jr *r, const struct jn *n)
{
    struct jv v = jeval(r, n->a), part[3];
    for (unsigned i = 0; i < 3 && r->err == ERR_OK; i++)
        part[i] = n->list.v[i] != NULL ? jeval(r, n->list.v[i]) : jv_none();
    if (r->err != ERR_OK) return v;
    r->line = n->line;
    if (v.mark != 0) return jrec_spoil(r);
    return jslice(r, v, part[0], part[1], part[2]);
}

static struct jv eval_compare(struct jr *r, const struct jn *n)
{
    struct jv a = jeval(r, n->a);
    for (uint32_t i = 0; i < n->list.n; i++) {
        const struct jn *step = n->list.v[i];
        if (r->err != ERR_OK) return a;
        struct jv b = jeval(r, step->b);
        if (r->err != ERR_OK) return a;
        r->line = n->line;
        bool yes = false;
        bool noted = r->run->record != NULL && jrec_compare(r, (enum jop)step->op, a, b, &yes);
        switch (noted ? JOP_NONE : (enum jop)step->op) {
        case JOP_EQ: yes = jequal(r, a, b); break;
        case JOP_NE: yes = !jequal(r, a, b); break;
        case JOP_LT: yes = jcompare(r, a, b) < 0; break;
        case JOP_LE: yes = jcompare(r, a, b) <= 0; break;
        case JOP_GT: yes = jcompare(r, a, b) > 0; break;
        case JOP_GE: yes = jcompare(r, a, b) >= 0; break;
        case JOP_IN: yes = jcontains(r, a, b); break;
        case JOP_NOT_IN: yes = !jcontains(r, a, b); break;
        default: break;
        }
        if (!yes) return jv_bool(false);
        a = b;
    }
    return jv_bool(true);
}

static struct jv eval_concat(struct jr *r, const struct jn *n)
{
    struct jsb b = { NULL, 0, 0 };
    for (uint32_t i = 0; i < n->list.n; i++) {
        struct jv v = jeval(r, n->list.v[i]);
        if (r->err != ERR_OK) return v;
        if (r->run->record != NULL && jrec_holds(v)) return jrec_spoil(r);
        struct str s = jto_str(r, v);
        if (r->err != ERR_OK || !jsb_add(r, &b, s)) return v;
    }
    return jv_str(jsb_str(&b));
}

static struct jv eval_sign(struct jr *r, const struct jn *n)
{
    struct jv v = jeval(r, n->a);
    if (r->err != ERR_OK) return v;
    r->line = n->line;
    if (!jis_number(v)) return jfail(r, ERR_INVALID, "a sign before a %s", jtype_name(v));
    return jbinary(r, n->kind == JN_NEG ? JOP_SUB : JOP_ADD, jv_int(0), v);
}

struct jv jeval_binary(struct jr *r, enum jop op, struct jv a, struct jv b)
{
    bool lists = op == JOP_ADD && jv_is_listy(a) && jv_is_listy(b);
    if (r->run->record != NULL && !lists && (jrec_holds(a) || jrec_holds(b))) return jrec_spoil(r);
    return jbinary(r, op, a, b);
}

static struct jv eval_kind(struct jr *r, const struct jn *n)
{
    struct jv v;
    switch (n->kind) {
    case JN_ATTR:
        v = jeval(r, n->a);
        if (r->err != ERR_OK) return v;
        r->line = n->line;
        if (v.mark != 0 && n->op != 0) return jrec_spoil(r); /* a method to be called later */
        return jattr(r, v, n->name, n->op);
    case JN_ITEM: {
        v = jeval(r, n->a);
        if (r->err != ERR_OK) return v;
        struct jv key = jeval(r, n->b);
        r->line = n->line;
        if (v.mark != 0 || key.mark != 0) return jrec_spoil(r);
        return r->err == ERR_OK ? jgetitem(r, v, key) : v;
    }
    case JN_SLICE: return eval_slice(r, n);
    case JN_CALL: return eval_call(r, n);
    case JN_FILTER: return eval_filter(r, n);
    case JN_TEST: return eval_test(r, n);
    case JN_NEG:
    case JN_POS: return eval_sign(r, n);
    case JN_NOT: v = jeval(r, n->a); return r->err == ERR_OK ? jv_bool(!jdecide(r, v)) : v;
    case JN_BINARY: {
        v = jeval(r, n->a);
        if (r->err != ERR_OK) return v;
        struct jv b = jeval(r, n->b);
        r->line = n->line;
        return r->err == ERR_OK ? jeval_binary(r, (enum jop)n->op, v, b) : v;
    }
    case JN_COMPARE: return eval_compare(r, n);
    case JN_AND: v = jeval(r, n->a); return r->err == ERR_OK && jdecide(r, v) ? jeval(r, n->b) : v;
    case JN_OR: v = jeval(r, n->a); return r->err == ERR_OK && !jdecide(r, v) ? jeval(r, n->b) : v;
    case JN_COND:
        v = jeval(r, n->b);
        if (r->err != ERR_OK) return v;
        if (jdecide(r, v)) return jeval(r, n->a);
        return n->c != NULL ? jeval(r, n->c) : jv_undefined(STR_NULL);
    case JN_CONCAT: return eval_concat(r, n);
    case JN_LIST: return eval_list(r, n, JV_LIST);
    case JN_TUPLE: return eval_list(r, n, JV_TUPLE);
    case JN_DICT: return eval_dict(r, n);
    case JN_BLOCK_VALUE: return r->block_value;
    default: return jfail(r, ERR_INTERNAL, "a statement where an expression should be");
    }
}

struct jv jeval(struct jr *r, const struct jn *n)
{
    if (n->kind == JN_CONST) return n->value;
    if (!jpay(r, 1)) return jv_undefined(STR_NULL);
    if (n->kind == JN_NAME) return eval_name(r, n);
    if (++r->depth > 2 * JINJA_MAX_DEPTH)
        return jfail(r, ERR_LIMIT, "macros or loops call each other too deep");
    struct jv v = eval_kind(r, n);
    r->depth--;
    return v;
}
