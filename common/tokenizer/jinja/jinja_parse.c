/* SPDX-License-Identifier: Apache-2.0 */
/* Statements of a template: tokens into a tree of blocks. Pure; runs where a template is compiled.
 */
#include <string.h>

#include "tokenizer/jinja/jinja_int.h"

static bool parse_body(struct jparser *p, struct jnlist *ret, const char *const *ends);

static bool out_of_memory(struct jparser *p)
{
    return jparse_fail(p, ERR_NOMEM, "the template needs too much memory") != NULL;
}

static bool block_end(struct jparser *p)
{
    if (p->err != ERR_OK) return false;
    if (p->t->type != JT_BLOCK_END)
        return jparse_fail(p, ERR_INVALID, "expected the end of the tag") != NULL;
    p->t++;
    return true;
}

/* Behind a block's opening words: `%}`, its body, and the `{% word %}` that ends it. */
static bool body_until(struct jparser *p, struct jnlist *ret, const char *end)
{
    const char *const ends[] = { end, NULL };
    if (!block_end(p) || !parse_body(p, ret, ends)) return false;
    p->t++; /* the word */
    /* endset, endmacro and so on may repeat a name */
    if (p->t->type == JT_NAME && strcmp(end, "endmacro") == 0) p->t++;
    return block_end(p);
}

static struct jn *parse_if(struct jparser *p)
{
    static const char *const ends[] = { "elif", "else", "endif", NULL };
    static const char *const closing[] = { "endif", NULL };
    struct jn *first = jnode(p, JN_IF), *n = first;
    while (n != NULL) {
        n->a = jparse_tuple(p, false);
        if (n->a != NULL && jtok_is_name(p->t, "if")) {
            /* an inline if as the condition */
            return jparse_fail(p, ERR_INVALID, "write the condition in parentheses");
        }
        if (n->a == NULL || !block_end(p) || !parse_body(p, &n->list, ends)) return NULL;
        if (jtok_is_name(p->t, "elif")) {
            p->t++;
            struct jn *next = jnode(p, JN_IF);
            if (next == NULL || !jnlist_add(p, &n->orelse, next)) return NULL;
            n = next;
            continue;
        }
        bool other = jtok_is_name(p->t, "else");
        p->t++;
        if (other) {
            if (!block_end(p) || !parse_body(p, &n->orelse, closing)) return NULL;
            p->t++;
        }
        return block_end(p) ? first : NULL;
    }
    return NULL;
}

static struct jn *parse_for(struct jparser *p)
{
    static const char *const ends[] = { "else", "endfor", NULL };
    static const char *const closing[] = { "endfor", NULL };
    struct jn *n = jnode(p, JN_FOR);
    struct jn_for *f = arena_calloc(p->a, sizeof *f);
    if (n == NULL) return NULL;
    if (f == NULL) return jparse_fail(p, ERR_NOMEM, "the template needs too much memory");
    n->loop = f;
    f->target = jparse_target(p, true);
    if (f->target == NULL) return NULL;
    if (!jtok_is_name(p->t, "in")) return jparse_fail(p, ERR_INVALID, "expected 'in'");
    p->t++;
    f->iter = jparse_tuple(p, false);
    if (f->iter == NULL) return NULL;
    if (jtok_is_name(p->t, "if")) {
        p->t++;
        f->test = jparse_expression(p);
        if (f->test == NULL) return NULL;
    }
    if (jtok_is_name(p->t, "recursive")) {
        f->recursive = true;
        p->t++;
    }
    if (!block_end(p) || !parse_body(p, &f->body, ends)) return NULL;
    bool other = jtok_is_name(p->t, "else");
    p->t++;
    if (other) {
        if (!block_end(p) || !parse_body(p, &f->orelse, closing)) return NULL;
        p->t++;
    }
    return block_end(p) ? n : NULL;
}

/* {% set a = value %}, {% set ns.a = value %}, {% set a, b = pair %}, {% set a %}...{% endset %} */
static struct jn *parse_set(struct jparser *p)
{
    struct jn *target = jparse_target(p, true);
    if (target != NULL && target->kind == JN_NAME && jtok_is_op(p->t, JOP_DOT)) {
        struct jn *attr = jnode(p, JN_ATTR);
        p->t++;
        if (attr == NULL) return NULL;
        if (p->t->type != JT_NAME) return jparse_fail(p, ERR_INVALID, "expected a name behind '.'");
        attr->a = target;
        attr->name = p->t->text;
        p->t++;
        target = attr;
    }
    if (target == NULL) return NULL;
    if (jtok_is_op(p->t, JOP_ASSIGN)) {
        struct jn *n = jnode(p, JN_SET);
        p->t++;
        if (n == NULL) return NULL;
        n->scope.target = target;
        n->a = jparse_tuple(p, true);
        return n->a != NULL && block_end(p) ? n : NULL;
    }
    struct jn *n = jnode(p, JN_SET_BLOCK), *value = jnode(p, JN_BLOCK_VALUE);
    if (n == NULL || value == NULL) return NULL;
    n->scope.target = target;
    n->a = jparse_filters(p, value, false);
    return n->a != NULL && body_until(p, &n->list, "endset") ? n : NULL;
}

/* (a, b=default): parameters of a macro or of a call block */
static bool parse_params(struct jparser *p, struct jn_macro *m)
{
    enum { MAX_PARAMS = 32 };
    m->params = arena_alloc(p->a, MAX_PARAMS * sizeof *m->params);
    m->defaults = arena_calloc(p->a, MAX_PARAMS * sizeof *m->defaults);
    if (m->params == NULL || m->defaults == NULL) return out_of_memory(p);
    if (!jparse_expect_op(p, JOP_LPAREN, "'('")) return false;
    while (!jtok_is_op(p->t, JOP_RPAREN)) {
        if (p->t->type != JT_NAME)
            return jparse_fail(p, ERR_INVALID, "expected a parameter's name") != NULL;
        if (m->nparams == MAX_PARAMS)
            return jparse_fail(p, ERR_LIMIT, "too many parameters") != NULL;
        m->params[m->nparams] = p->t->text;
        p->t++;
        if (jtok_is_op(p->t, JOP_ASSIGN)) {
            p->t++;
            m->defaults[m->nparams] = jparse_expression(p);
            if (m->defaults[m->nparams] == NULL) return false;
        }
        m->nparams++;
        if (!jtok_is_op(p->t, JOP_RPAREN) && !jparse_expect_op(p, JOP_COMMA, "',' or ')'"))
            return false;
    }
    p->t++;
    return true;
}

static struct jn_macro *macro_new(struct jparser *p)
{
    struct jn_macro *m = arena_calloc(p->a, sizeof *m);
    if (m == NULL) (void)out_of_memory(p);
    return m;
}

static struct jn *parse_macro(struct jparser *p)
{
    struct jn *n = jnode(p, JN_MACRO);
    struct jn_macro *m = macro_new(p);
    if (n == NULL || m == NULL) return NULL;
    n->macro = m;
    if (p->t->type != JT_NAME) return jparse_fail(p, ERR_INVALID, "expected the macro's name");
    m->name = p->t->text;
    p->t++;
    return parse_params(p, m) && body_until(p, &m->body, "endmacro") ? n : NULL;
}

/* {% call(params) macro(args) %}...{% endcall %} */
static struct jn *parse_call_block(struct jparser *p)
{
    struct jn *n = jnode(p, JN_CALL_BLOCK);
    struct jn_macro *m = macro_new(p);
    if (n == NULL || m == NULL) return NULL;
    n->macro = m;
    m->name = STR("caller");
    if (jtok_is_op(p->t, JOP_LPAREN) && !parse_params(p, m)) return NULL;
    n->a = jparse_unary(p);
    if (n->a != NULL && n->a->kind != JN_CALL)
        return jparse_fail(p, ERR_INVALID, "expected a call of a macro");
    return n->a != NULL && body_until(p, &m->body, "endcall") ? n : NULL;
}

static struct jn *parse_filter_block(struct jparser *p)
{
    struct jn *n = jnode(p, JN_FILTER_BLOCK), *value = jnode(p, JN_BLOCK_VALUE);
    if (n == NULL || value == NULL) return NULL;
    n->a = jparse_filters(p, value, true);
    return n->a != NULL && body_until(p, &n->list, "endfilter") ? n : NULL;
}

static struct jn *parse_with(struct jparser *p)
{
    struct jn *n = jnode(p, JN_WITH), *inner = jnode(p, JN_SCOPE);
    if (n == NULL || inner == NULL) return NULL;
    n->b = inner;
    while (p->t->type != JT_BLOCK_END) {
        if (n->list.n > 0 && !jparse_expect_op(p, JOP_COMMA, "','")) return NULL;
        struct jn *target = jparse_target(p, false);
        if (target == NULL || !jparse_expect_op(p, JOP_ASSIGN, "'='")) return NULL;
        struct jn *value = jparse_expression(p);
        if (value == NULL || !jnlist_add(p, &n->list, target) || !jnlist_add(p, &n->list, value))
            return NULL;
    }
    return body_until(p, &inner->list, "endwith") ? n : NULL;
}

/* Marks what Hugging Face trains on; renders its body as it is, in a scope of its own. */
static struct jn *parse_generation(struct jparser *p)
{
    struct jn *n = jnode(p, JN_SCOPE);
    return n != NULL && body_until(p, &n->list, "endgeneration") ? n : NULL;
}

static struct jn *parse_jump(struct jparser *p, enum jn_kind kind)
{
    struct jn *n = jnode(p, kind);
    return n != NULL && block_end(p) ? n : NULL;
}

static struct jn *parse_statement(struct jparser *p)
{
    struct str word = p->t->text;
    if (p->t->type != JT_NAME) return jparse_fail(p, ERR_INVALID, "a tag without a name");
    p->t++;
    if (str_eqz(word, "if")) return parse_if(p);
    if (str_eqz(word, "for")) return parse_for(p);
    if (str_eqz(word, "set")) return parse_set(p);
    if (str_eqz(word, "macro")) return parse_macro(p);
    if (str_eqz(word, "call")) return parse_call_block(p);
    if (str_eqz(word, "filter")) return parse_filter_block(p);
    if (str_eqz(word, "with")) return parse_with(p);
    if (str_eqz(word, "generation")) return parse_generation(p);
    if (str_eqz(word, "break")) return parse_jump(p, JN_BREAK);
    if (str_eqz(word, "continue")) return parse_jump(p, JN_CONTINUE);
    p->t--;
    return jparse_fail(p, ERR_UNSUPPORTED, "the statement '%.*s' is not supported here",
                       STR_ARG(word));
}

static bool is_end(const struct jtok *t, const char *const *ends)
{
    for (; ends != NULL && *ends != NULL; ends++)
        if (jtok_is_name(t, *ends)) return true;
    return false;
}

/* The word that closes the block for good: the others only divide it. */
static const char *last(const char *const *ends)
{
    while (ends[1] != NULL) ends++;
    return *ends;
}

/* Statements up to a tag that begins with one of ends; p->t then stands on that word. */
static bool parse_body(struct jparser *p, struct jnlist *ret, const char *const *ends)
{
    if (++p->depth > JINJA_MAX_DEPTH)
        return jparse_fail(p, ERR_LIMIT, "blocks are nested too deep") != NULL;
    for (;;) {
        struct jn *n = NULL;
        switch (p->t->type) {
        case JT_EOF:
            p->depth--;
            if (ends == NULL) return true;
            return jparse_fail(p, ERR_INVALID, "the template ends before '%s'", last(ends)) != NULL;
        case JT_DATA:
            n = jnode(p, JN_TEXT);
            if (n != NULL) n->value = jv_str(p->t->text);
            p->t++;
            break;
        case JT_VAR_BEGIN:
            p->t++;
            n = jnode(p, JN_OUTPUT);
            if (n == NULL) return false;
            n->a = jparse_tuple(p, true);
            if (n->a == NULL) return false;
            if (p->t->type != JT_VAR_END)
                return jparse_fail(p, ERR_INVALID, "expected '}}'") != NULL;
            p->t++;
            break;
        case JT_BLOCK_BEGIN:
            p->t++;
            if (is_end(p->t, ends)) {
                p->depth--;
                return true;
            }
            n = parse_statement(p);
            break;
        default: return jparse_fail(p, ERR_INTERNAL, "a token out of place") != NULL;
        }
        if (n == NULL || !jnlist_add(p, ret, n)) return false;
    }
}

enum err jparse(struct arena *a, const struct jtoks *toks, struct jnlist *ret, struct why *why)
{
    struct jparser p = { .a = a, .t = toks->v, .why = why };
    struct jnlist body = { NULL, 0 };
    if (!parse_body(&p, &body, NULL)) return p.err != ERR_OK ? p.err : ERR_INTERNAL;
    *ret = body;
    return ERR_OK;
}
