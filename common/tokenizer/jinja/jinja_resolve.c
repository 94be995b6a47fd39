/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Gives every name of a template the places where it may be found, so that rendering looks nothing
 * up by name. A scope is the template, a macro, or the body of a for, with, set or filter block;
 * `if` makes none. What a scope assigns anywhere is its own; until it is assigned, the name means
 * what it means outside (as in Jinja2). The template and each macro call have one frame of slots.
 */
#include <string.h>

#include "tokenizer/jinja/jinja_int.h"

enum { MAX_GLOBALS = 1024, MAX_SLOTS = 4096 };

struct func {
    struct func *outer;
    unsigned nslots;
};

struct var {
    struct str name;
    uint16_t slot;
    bool always; /* never unset while the scope runs */
    struct var *next;
};

struct scope {
    struct scope *outer;
    struct func *func;
    struct var *vars;
};

struct resolver {
    struct jinja *t;
    struct why *why;
    enum err err;
    uint32_t globals_cap;
};

static void resolve_body(struct resolver *r, const struct jnlist *body, struct scope *s);
static void resolve(struct resolver *r, struct jn *n, struct scope *s);

static bool fail(struct resolver *r, enum err e, const char *what)
{
    if (r->err == ERR_OK) r->err = why_set(r->why, e, "template: %s", what);
    return false;
}

static void *take(struct resolver *r, size_t n)
{
    void *p = arena_calloc(&r->t->arena, n);
    if (p == NULL) fail(r, ERR_NOMEM, "needs too much memory");
    return p;
}

/* The variable of that name in scope s itself, made when it is not there. */
static struct var *declare(struct resolver *r, struct scope *s, struct str name, bool always)
{
    for (struct var *v = s->vars; v != NULL; v = v->next) {
        if (!str_eq(v->name, name)) continue;
        v->always = v->always || always;
        return v;
    }
    struct var *v = take(r, sizeof *v);
    if (v == NULL) return NULL;
    if (s->func->nslots >= MAX_SLOTS) {
        fail(r, ERR_LIMIT, "too many variables");
        return NULL;
    }
    *v = (struct var){ name, (uint16_t)s->func->nslots++, always, s->vars };
    s->vars = v;
    return v;
}

static void declare_target(struct resolver *r, struct scope *s, const struct jn *target,
                           bool always)
{
    if (target->kind == JN_NAME) (void)declare(r, s, target->name, always);
    if (target->kind == JN_TUPLE)
        for (uint32_t i = 0; i < target->list.n; i++)
            declare_target(r, s, target->list.v[i], always);
}

/* What the statements of body assign in this scope. */
static void declare_body(struct resolver *r, struct scope *s, const struct jnlist *body)
{
    for (uint32_t i = 0; i < body->n && r->err == ERR_OK; i++) {
        const struct jn *n = body->v[i];
        switch (n->kind) {
        case JN_SET:
        case JN_SET_BLOCK: declare_target(r, s, n->scope.target, false); break;
        case JN_MACRO: (void)declare(r, s, n->macro->name, false); break;
        case JN_IF:
            declare_body(r, s, &n->list);
            declare_body(r, s, &n->orelse);
            break;
        default: break;
        }
    }
}

static uint32_t global_index(struct resolver *r, struct str name)
{
    struct jinja *t = r->t;
    for (uint32_t i = 0; i < t->nglobals; i++)
        if (str_eq(t->globals[i], name)) return i;
    if (t->nglobals == MAX_GLOBALS) return fail(r, ERR_LIMIT, "too many names"), 0;
    if (t->nglobals == r->globals_cap) {
        uint32_t cap = r->globals_cap == 0 ? 16 : r->globals_cap * 2;
        struct str *v = take(r, cap * sizeof *v);
        if (v == NULL) return 0;
        if (t->nglobals > 0) memcpy(v, t->globals, t->nglobals * sizeof *v);
        t->globals = v;
        r->globals_cap = cap;
    }
    t->globals[t->nglobals] = name;
    return t->nglobals++;
}

static void resolve_name(struct resolver *r, struct jn *n, const struct scope *s)
{
    struct jplace places[64];
    uint32_t found = 0;
    unsigned up = 0;
    n->ref = (struct jref){ .global = UINT32_MAX };
    bool always = false;
    for (const struct scope *at = s; at != NULL && !always; at = at->outer) {
        for (const struct var *v = at->vars; v != NULL; v = v->next) {
            if (!str_eq(v->name, n->name)) continue;
            if (found == ARRAY_LEN(places)) {
                fail(r, ERR_LIMIT, "scopes are nested too deep");
                return;
            }
            places[found++] = (struct jplace){ (uint16_t)up, v->slot };
            always = v->always;
            break;
        }
        if (at->outer != NULL && at->outer->func != at->func) up++;
    }
    if (!always) n->ref.global = global_index(r, n->name);
    n->ref.nplaces = found;
    if (found == 0) return;
    n->ref.places = take(r, found * sizeof *places);
    if (n->ref.places != NULL) memcpy(n->ref.places, places, found * sizeof *places);
}

static void resolve_list(struct resolver *r, const struct jnlist *l, struct scope *s)
{
    for (uint32_t i = 0; i < l->n && r->err == ERR_OK; i++)
        if (l->v[i] != NULL) resolve(r, l->v[i], s);
}

static void resolve_args(struct resolver *r, const struct jncall *args, struct scope *s)
{
    resolve_list(r, &args->pos, s);
    for (uint32_t i = 0; i < args->nkw; i++) resolve(r, args->kw[i].value, s);
}

/* m.content or m['content'], behind filters and slices or not */
static bool is_content(const struct jn *n)
{
    while (n->kind == JN_FILTER || n->kind == JN_SLICE) n = n->a;
    if (n->kind == JN_ATTR) return n->a->kind == JN_NAME && str_eqz(n->name, "content");
    return n->kind == JN_ITEM && n->a->kind == JN_NAME && n->b->kind == JN_CONST &&
           n->b->value.type == JV_STR && str_eqz(jv_text(n->b->value), "content");
}

static void resolve_for(struct resolver *r, struct jn_for *f, struct scope *s)
{
    resolve(r, f->iter, s);
    if (is_content(f->iter)) r->t->loops_over_content = true;
    struct scope inner = { s, s->func, NULL };
    f->first = (uint16_t)s->func->nslots;
    declare_target(r, &inner, f->target, true);
    if (f->test != NULL) resolve(r, f->test, &inner); /* `loop` there means the loop outside */
    struct var *loop = declare(r, &inner, STR("loop"), true);
    declare_body(r, &inner, &f->body);
    if (r->err != ERR_OK) return;
    f->loop = (struct jplace){ 0, loop->slot };
    f->count = (uint16_t)(s->func->nslots - f->first);
    resolve(r, f->target, &inner);
    resolve_body(r, &f->body, &inner);
    f->all = (uint16_t)(s->func->nslots - f->first);
    struct scope other = { s, s->func, NULL };
    f->else_first = (uint16_t)s->func->nslots;
    declare_body(r, &other, &f->orelse);
    f->else_count = (uint16_t)(s->func->nslots - f->else_first);
    resolve_body(r, &f->orelse, &other);
}

static void resolve_macro(struct resolver *r, struct jn_macro *m, struct scope *s)
{
    struct func fn = { s->func, 0 };
    struct scope inner = { s, &fn, NULL };
    m->param_slots = take(r, (m->nparams + 1) * sizeof *m->param_slots);
    for (uint32_t i = 0; i < m->nparams && r->err == ERR_OK; i++) {
        struct var *v = declare(r, &inner, m->params[i], true);
        if (v != NULL) m->param_slots[i] = v->slot;
    }
    struct var *caller = declare(r, &inner, STR("caller"), true);
    struct var *varargs = declare(r, &inner, STR("varargs"), true);
    struct var *kwargs = declare(r, &inner, STR("kwargs"), true);
    if (r->err != ERR_OK) return;
    m->caller_slot = caller->slot;
    m->varargs_slot = varargs->slot;
    m->kwargs_slot = kwargs->slot;
    for (uint32_t i = 0; i < m->nparams; i++)
        if (m->defaults[i] != NULL) resolve(r, m->defaults[i], &inner);
    declare_body(r, &inner, &m->body);
    resolve_body(r, &m->body, &inner);
    m->nslots = (uint16_t)fn.nslots;
}

/* A body in a scope of its own; notes its slots in n. */
static void resolve_scope(struct resolver *r, struct jn *n, const struct jnlist *targets,
                          struct scope *s)
{
    struct scope inner = { s, s->func, NULL };
    uint16_t first = (uint16_t)s->func->nslots;
    for (uint32_t i = 0; targets != NULL && i < targets->n; i += 2)
        declare_target(r, &inner, targets->v[i], true);
    declare_body(r, &inner, &n->list);
    n->scope.first = first;
    n->scope.count = (uint16_t)(s->func->nslots - first);
    for (uint32_t i = 0; targets != NULL && i < targets->n; i += 2)
        resolve(r, targets->v[i], &inner);
    resolve_body(r, &n->list, &inner);
}

static void resolve_statement(struct resolver *r, struct jn *n, struct scope *s)
{
    switch (n->kind) {
    case JN_IF:
        resolve(r, n->a, s);
        resolve_body(r, &n->list, s);
        resolve_body(r, &n->orelse, s);
        break;
    case JN_FOR: resolve_for(r, n->loop, s); break;
    case JN_SET:
        resolve(r, n->a, s);
        resolve(r, n->scope.target, s);
        break;
    case JN_SET_BLOCK:
        resolve(r, n->a, s);
        resolve(r, n->scope.target, s);
        resolve_scope(r, n, NULL, s);
        break;
    case JN_FILTER_BLOCK:
        resolve(r, n->a, s);
        resolve_scope(r, n, NULL, s);
        break;
    case JN_MACRO: {
        struct var *v = declare(r, s, n->macro->name, false);
        if (v != NULL) n->macro->self = (struct jplace){ 0, v->slot };
        resolve_macro(r, n->macro, s);
        break;
    }
    case JN_CALL_BLOCK:
        resolve(r, n->a, s);
        resolve_macro(r, n->macro, s);
        break;
    case JN_WITH:
        for (uint32_t i = 1; i < n->list.n; i += 2) resolve(r, n->list.v[i], s);
        resolve_scope(r, n->b, &n->list, s);
        break;
    case JN_SCOPE: resolve_scope(r, n, NULL, s); break;
    case JN_OUTPUT: resolve(r, n->a, s); break;
    default: break;
    }
}

static void resolve(struct resolver *r, struct jn *n, struct scope *s)
{
    if (r->err != ERR_OK) return;
    switch (n->kind) {
    case JN_NAME: resolve_name(r, n, s); return;
    case JN_CONST:
    case JN_BLOCK_VALUE: return;
    case JN_CALL:
    case JN_FILTER:
    case JN_TEST:
        resolve(r, n->a, s);
        resolve_args(r, &n->args, s);
        return;
    default: break;
    }
    if (n->a != NULL) resolve(r, n->a, s);
    if (n->b != NULL) resolve(r, n->b, s);
    if (n->c != NULL) resolve(r, n->c, s);
    resolve_list(r, &n->list, s);
}

static void resolve_body(struct resolver *r, const struct jnlist *body, struct scope *s)
{
    for (uint32_t i = 0; i < body->n && r->err == ERR_OK; i++) resolve_statement(r, body->v[i], s);
}

enum err jresolve(struct jinja *t, struct why *why)
{
    struct resolver r = { .t = t, .why = why };
    struct func fn = { NULL, 0 };
    struct scope root = { NULL, &fn, NULL };
    declare_body(&r, &root, &t->body);
    resolve_body(&r, &t->body, &root);
    if (r.err != ERR_OK) return r.err;
    t->nslots = (uint16_t)fn.nslots;
    return ERR_OK;
}
