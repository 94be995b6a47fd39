/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Expressions of a template: precedence as in Jinja2's parser, loosest first: inline if, or, and,
 * not, comparisons, + and -, ~, * / // %, **, unary sign; then what jinja_operand.c has. A NULL
 * node means that p->err is set. Pure; runs where a template is compiled.
 */
#include "tokenizer/jinja/jinja_int.h"

static struct jn *unary(struct jparser *p, bool with_filters)
{
    struct jn *n;
    if (++p->depth > JINJA_MAX_DEPTH)
        return jparse_fail(p, ERR_LIMIT, "an expression is nested too deep");
    if (jtok_is_op(p->t, JOP_SUB) || jtok_is_op(p->t, JOP_ADD)) {
        n = jnode(p, jtok_is_op(p->t, JOP_SUB) ? JN_NEG : JN_POS);
        p->t++;
        struct jn *of = unary(p, false);
        if (n == NULL || of == NULL || !jparse_under(p, n, of)) return NULL;
        n->a = of;
    } else {
        n = jparse_operand(p);
    }
    p->depth--;
    n = jparse_postfix(p, n);
    return with_filters ? jparse_filters(p, n, false) : n;
}

struct jn *jparse_unary(struct jparser *p)
{
    return unary(p, true);
}

static struct jn *binary(struct jparser *p, enum jn_kind kind, enum jop op, struct jn *a,
                         struct jn *b)
{
    struct jn *n = jnode(p, kind);
    if (n == NULL || b == NULL || !jparse_under(p, n, a) || !jparse_under(p, n, b)) return NULL;
    n->op = (uint8_t)op;
    n->a = a;
    n->b = b;
    return n;
}

static struct jn *parse_pow(struct jparser *p)
{
    struct jn *n = unary(p, true);
    while (n != NULL && jparse_skip_op(p, JOP_POW))
        n = binary(p, JN_BINARY, JOP_POW, n, unary(p, true));
    return n;
}

static struct jn *parse_product(struct jparser *p)
{
    struct jn *n = parse_pow(p);
    while (n != NULL && p->t->type == JT_OP && p->t->op >= JOP_MUL && p->t->op <= JOP_MOD) {
        enum jop op = (enum jop)p->t->op;
        p->t++;
        n = binary(p, JN_BINARY, op, n, parse_pow(p));
    }
    return n;
}

static struct jn *parse_concat(struct jparser *p)
{
    struct jn *first = parse_product(p), *n = NULL;
    while (first != NULL && jparse_skip_op(p, JOP_CONCAT)) {
        if (n == NULL) {
            n = jnode(p, JN_CONCAT);
            if (n == NULL || !jparse_under(p, n, first) || !jnlist_add(p, &n->list, first))
                return NULL;
        }
        struct jn *next = parse_product(p);
        if (next == NULL || !jparse_under(p, n, next) || !jnlist_add(p, &n->list, next))
            return NULL;
    }
    return p->err != ERR_OK ? NULL : n != NULL ? n : first;
}

static struct jn *parse_sum(struct jparser *p)
{
    struct jn *n = parse_concat(p);
    while (n != NULL && (jtok_is_op(p->t, JOP_ADD) || jtok_is_op(p->t, JOP_SUB))) {
        enum jop op = (enum jop)p->t->op;
        p->t++;
        n = binary(p, JN_BINARY, op, n, parse_concat(p));
    }
    return n;
}

static enum jop comparison(struct jparser *p)
{
    if (p->t->type == JT_OP && p->t->op >= JOP_EQ && p->t->op <= JOP_GE)
        return (enum jop)(p->t++)->op;
    if (jparse_skip_name(p, "in")) return JOP_IN;
    if (jtok_is_name(p->t, "not") && jtok_is_name(p->t + 1, "in")) {
        p->t += 2;
        return JOP_NOT_IN;
    }
    return JOP_NONE;
}

static struct jn *parse_compare(struct jparser *p)
{
    struct jn *first = parse_sum(p), *n = NULL;
    enum jop op;
    while (first != NULL && (op = comparison(p)) != JOP_NONE) {
        if (n == NULL) {
            n = jnode(p, JN_COMPARE);
            if (n == NULL || !jparse_under(p, n, first)) return NULL;
            n->a = first;
        }
        struct jn *step = jnode(p, JN_BINARY), *b = parse_sum(p);
        if (step == NULL || b == NULL || !jparse_under(p, n, b) || !jnlist_add(p, &n->list, step))
            return NULL;
        step->op = (uint8_t)op;
        step->b = b;
    }
    return p->err != ERR_OK ? NULL : n != NULL ? n : first;
}

static struct jn *parse_not(struct jparser *p)
{
    if (!jparse_skip_name(p, "not")) return parse_compare(p);
    struct jn *n = jnode(p, JN_NOT);
    if (++p->depth > JINJA_MAX_DEPTH)
        return jparse_fail(p, ERR_LIMIT, "an expression is nested too deep");
    struct jn *of = parse_not(p);
    p->depth--;
    if (n == NULL || of == NULL || !jparse_under(p, n, of)) return NULL;
    n->a = of;
    return n;
}

static struct jn *parse_and(struct jparser *p)
{
    struct jn *n = parse_not(p);
    while (n != NULL && jparse_skip_name(p, "and"))
        n = binary(p, JN_AND, JOP_NONE, n, parse_not(p));
    return n;
}

static struct jn *parse_or(struct jparser *p)
{
    struct jn *n = parse_and(p);
    while (n != NULL && jparse_skip_name(p, "or")) n = binary(p, JN_OR, JOP_NONE, n, parse_and(p));
    return n;
}

struct jn *jparse_expression(struct jparser *p)
{
    if (++p->depth > JINJA_MAX_DEPTH)
        return jparse_fail(p, ERR_LIMIT, "an expression is nested too deep");
    struct jn *n = parse_or(p);
    while (n != NULL && jparse_skip_name(p, "if")) {
        struct jn *cond = jnode(p, JN_COND), *test = parse_or(p);
        if (cond == NULL || test == NULL || !jparse_under(p, cond, n) ||
            !jparse_under(p, cond, test))
            return NULL;
        cond->a = n;
        cond->b = test;
        if (jparse_skip_name(p, "else")) {
            cond->c = jparse_expression(p);
            if (cond->c == NULL || !jparse_under(p, cond, cond->c)) return NULL;
        }
        n = cond;
    }
    p->depth--;
    return n;
}

struct jn *jparse_tuple(struct jparser *p, bool with_cond)
{
    struct jn *first = with_cond ? jparse_expression(p) : parse_or(p);
    if (first == NULL || !jtok_is_op(p->t, JOP_COMMA)) return first;
    struct jn *n = jnode(p, JN_TUPLE);
    if (n == NULL || !jparse_under(p, n, first) || !jnlist_add(p, &n->list, first)) return NULL;
    while (jparse_skip_op(p, JOP_COMMA)) {
        if (p->t->type == JT_VAR_END || p->t->type == JT_BLOCK_END || jtok_is_op(p->t, JOP_RPAREN))
            break;
        struct jn *item = with_cond ? jparse_expression(p) : parse_or(p);
        if (item == NULL || !jparse_under(p, n, item) || !jnlist_add(p, &n->list, item))
            return NULL;
    }
    return n;
}
