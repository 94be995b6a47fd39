/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Operands of a template's expressions: constants, names, lists and dicts, and what may stand
 * behind them: attributes, subscripts, calls, filters, tests. Names that are assigned to, too. A
 * NULL node means that p->err is set. Pure; runs where a template is compiled.
 */
#include <string.h>

#include "tokenizer/jinja/jinja_int.h"

static struct jn *constant(struct jparser *p, struct jv v)
{
    struct jn *n = jnode(p, JN_CONST);
    if (n != NULL) n->value = v;
    return n;
}

/* Items up to the closing bracket; `pairs`: key : value. */
static struct jn *parse_items(struct jparser *p, enum jn_kind kind, enum jop close)
{
    struct jn *n = jnode(p, kind);
    p->t++;
    while (p->err == ERR_OK && !jtok_is_op(p->t, close)) {
        struct jn *item = jparse_expression(p);
        if (item == NULL || !jparse_under(p, n, item) || !jnlist_add(p, &n->list, item))
            return NULL;
        if (kind == JN_DICT) {
            if (!jparse_expect_op(p, JOP_COLON, "':'")) return NULL;
            item = jparse_expression(p);
            if (item == NULL || !jparse_under(p, n, item) || !jnlist_add(p, &n->list, item))
                return NULL;
        }
        if (!jtok_is_op(p->t, close) && !jparse_expect_op(p, JOP_COMMA, "',' or a closing bracket"))
            return NULL;
    }
    if (p->err != ERR_OK) return NULL;
    p->t++;
    return n;
}

static struct jn *parse_name(struct jparser *p)
{
    static const struct {
        const char *name;
        struct jv v;
    } words[] = {
        { "true", { .type = JV_BOOL, .b = true } },
        { "True", { .type = JV_BOOL, .b = true } },
        { "false", { .type = JV_BOOL, .b = false } },
        { "False", { .type = JV_BOOL, .b = false } },
        { "none", { .type = JV_NONE } },
        { "None", { .type = JV_NONE } },
    };
    struct str name = p->t->text;
    for (size_t i = 0; i < ARRAY_LEN(words); i++) {
        if (!str_eqz(name, words[i].name)) continue;
        p->t++;
        return constant(p, words[i].v);
    }
    struct jn *n = jnode(p, JN_NAME);
    p->t++;
    if (n != NULL) n->name = name;
    return n;
}

/* Adjacent literals are one. */
static struct jn *parse_string(struct jparser *p)
{
    struct str s = p->t->text;
    for (p->t++; p->t->type == JT_STRING; p->t++) {
        char *both = arena_alloc(p->a, s.n + p->t->text.n);
        if (both == NULL) return jparse_fail(p, ERR_NOMEM, "the template needs too much memory");
        memcpy(both, s.p, s.n);
        memcpy(both + s.n, p->t->text.p, p->t->text.n);
        s = str_n(both, s.n + p->t->text.n);
    }
    return constant(p, jv_str(s));
}

struct jn *jparse_operand(struct jparser *p)
{
    const struct jtok *t = p->t;
    struct jn *n;
    switch (t->type) {
    case JT_NAME: return parse_name(p);
    case JT_STRING: return parse_string(p);
    case JT_INT: p->t++; return constant(p, jv_int((int64_t)t->number));
    case JT_FLOAT: p->t++; return constant(p, jv_float(t->number));
    default: break;
    }
    if (jparse_skip_op(p, JOP_LPAREN)) {
        if (jparse_skip_op(p, JOP_RPAREN)) return jnode(p, JN_TUPLE);
        n = jparse_tuple(p, true);
        if (n == NULL || !jparse_expect_op(p, JOP_RPAREN, "')'")) return NULL;
        return n;
    }
    if (jtok_is_op(t, JOP_LBRACKET)) return parse_items(p, JN_LIST, JOP_RBRACKET);
    if (jtok_is_op(t, JOP_LBRACE)) return parse_items(p, JN_DICT, JOP_RBRACE);
    return jparse_fail(p, ERR_INVALID, "expected an expression");
}

/* ( positional, ..., name=value, ... ) */
static bool parse_args(struct jparser *p, struct jn *n, struct jncall *args)
{
    struct jkwarg kw[32];
    uint32_t nkw = 0;
    p->t++;
    while (p->err == ERR_OK && !jtok_is_op(p->t, JOP_RPAREN)) {
        bool named = p->t->type == JT_NAME && jtok_is_op(p->t + 1, JOP_ASSIGN);
        struct str name = p->t->text;
        if (jtok_is_op(p->t, JOP_MUL) || jtok_is_op(p->t, JOP_POW))
            return jparse_fail(p, ERR_UNSUPPORTED, "* and ** arguments are not supported") != NULL;
        if (named) p->t += 2;
        struct jn *v = jparse_expression(p);
        if (v == NULL || !jparse_under(p, n, v)) return false;
        if (named) {
            if (nkw == ARRAY_LEN(kw))
                return jparse_fail(p, ERR_LIMIT, "too many named arguments") != NULL;
            kw[nkw++] = (struct jkwarg){ name, v };
        } else if (!jnlist_add(p, &args->pos, v)) {
            return false;
        }
        if (!jtok_is_op(p->t, JOP_RPAREN) && !jparse_expect_op(p, JOP_COMMA, "',' or ')'"))
            return false;
    }
    if (p->err != ERR_OK) return false;
    p->t++;
    if (args->pos.n > 64) return jparse_fail(p, ERR_LIMIT, "too many arguments") != NULL;
    if (nkw == 0) return true;
    args->kw = arena_alloc(p->a, nkw * sizeof *kw);
    if (args->kw == NULL)
        return jparse_fail(p, ERR_NOMEM, "the template needs too much memory") != NULL;
    memcpy(args->kw, kw, nkw * sizeof *kw);
    args->nkw = nkw;
    return true;
}

static struct jn *parse_call(struct jparser *p, struct jn *callee)
{
    struct jn *n = jnode(p, JN_CALL);
    if (n == NULL || !jparse_under(p, n, callee)) return NULL;
    n->a = callee;
    return parse_args(p, n, &n->args) ? n : NULL;
}

/* [expr], [lo:hi:step] */
static struct jn *parse_subscript(struct jparser *p, struct jn *of)
{
    struct jn *part[3] = { NULL, NULL, NULL };
    unsigned parts = 0;
    struct jn *n = jnode(p, JN_ITEM);
    if (n == NULL || !jparse_under(p, n, of)) return NULL;
    n->a = of;
    p->t++;
    bool sliced = false;
    for (;;) {
        if (jtok_is_op(p->t, JOP_COLON)) {
            sliced = true;
            p->t++;
            if (++parts > 2) return jparse_fail(p, ERR_INVALID, "malformed slice");
        } else if (jtok_is_op(p->t, JOP_RBRACKET)) {
            p->t++;
            break;
        } else {
            if (part[parts] != NULL) return jparse_fail(p, ERR_INVALID, "expected ']'");
            part[parts] = jparse_expression(p);
            if (part[parts] == NULL || !jparse_under(p, n, part[parts])) return NULL;
        }
    }
    if (!sliced) {
        if (part[0] == NULL) return jparse_fail(p, ERR_INVALID, "an empty subscript");
        n->b = part[0];
        return n;
    }
    n->kind = JN_SLICE;
    for (unsigned i = 0; i < 3; i++)
        if (!jnlist_add(p, &n->list, part[i])) return NULL;
    return n;
}

/* a.name, or a.0 as a[0] */
static struct jn *parse_dot(struct jparser *p, struct jn *of)
{
    p->t++;
    struct jn *n = jnode(p, JN_ATTR);
    if (n == NULL || !jparse_under(p, n, of)) return NULL;
    n->a = of;
    if (p->t->type == JT_NAME) {
        n->name = p->t->text;
        n->op = (uint8_t)jmethod_named(n->name);
        p->t++;
        return n;
    }
    if (p->t->type != JT_INT) return jparse_fail(p, ERR_INVALID, "expected a name behind '.'");
    n->kind = JN_ITEM;
    n->b = constant(p, jv_int((int64_t)p->t->number));
    p->t++;
    return n->b != NULL ? n : NULL;
}

struct jn *jparse_postfix(struct jparser *p, struct jn *n)
{
    while (n != NULL) {
        if (jtok_is_op(p->t, JOP_DOT))
            n = parse_dot(p, n);
        else if (jtok_is_op(p->t, JOP_LBRACKET))
            n = parse_subscript(p, n);
        else if (jtok_is_op(p->t, JOP_LPAREN))
            n = parse_call(p, n);
        else
            break;
    }
    return n;
}

/* A dotted name, as filters and tests have. */
static bool dotted(struct jparser *p, struct str *ret)
{
    if (p->t->type != JT_NAME) return jparse_fail(p, ERR_INVALID, "expected a name") != NULL;
    *ret = p->t->text;
    p->t++;
    return true;
}

static struct jn *parse_filter(struct jparser *p, struct jn *over)
{
    struct jn *n = jnode(p, JN_FILTER);
    struct str name;
    if (n == NULL || !jparse_under(p, n, over) || !dotted(p, &name)) return NULL;
    n->a = over;
    n->called = name;
    n->filter = jfilter_find(name);
    if (n->filter == NULL)
        return jparse_fail(p, ERR_UNSUPPORTED, "no filter is named '%.*s'", STR_ARG(name));
    if (jtok_is_op(p->t, JOP_LPAREN) && !parse_args(p, n, &n->args)) return NULL;
    return n;
}

static struct jn *parse_test(struct jparser *p, struct jn *over)
{
    struct jn *n = jnode(p, JN_TEST);
    struct str name;
    if (n == NULL || !jparse_under(p, n, over)) return NULL;
    n->op = jparse_skip_name(p, "not");
    if (!dotted(p, &name)) return NULL;
    n->a = over;
    n->called = name;
    n->test = jtest_find(name);
    if (n->test == NULL)
        return jparse_fail(p, ERR_UNSUPPORTED, "no test is named '%.*s'", STR_ARG(name));
    const struct jtok *t = p->t;
    if (jtok_is_op(t, JOP_LPAREN)) return parse_args(p, n, &n->args) ? n : NULL;
    bool operand = t->type == JT_STRING || t->type == JT_INT || t->type == JT_FLOAT ||
                   jtok_is_op(t, JOP_LBRACKET) || jtok_is_op(t, JOP_LBRACE) ||
                   (t->type == JT_NAME && !jtok_is_name(t, "else") && !jtok_is_name(t, "or") &&
                    !jtok_is_name(t, "and") && !jtok_is_name(t, "if"));
    if (!operand) return n;
    if (jtok_is_name(t, "is")) return jparse_fail(p, ERR_INVALID, "tests cannot be chained");
    struct jn *arg = jparse_postfix(p, jparse_operand(p));
    if (arg == NULL || !jparse_under(p, n, arg) || !jnlist_add(p, &n->args.pos, arg)) return NULL;
    return n;
}

struct jn *jparse_filters(struct jparser *p, struct jn *n, bool start_inline)
{
    while (n != NULL) {
        if (start_inline) {
            start_inline = false;
            n = parse_filter(p, n);
        } else if (jparse_skip_op(p, JOP_PIPE)) {
            n = parse_filter(p, n);
        } else if (jparse_skip_name(p, "is")) {
            n = parse_test(p, n);
        } else if (jtok_is_op(p->t, JOP_LPAREN)) {
            n = parse_call(p, n);
        } else {
            break;
        }
    }
    return n;
}

struct jn *jparse_target(struct jparser *p, bool with_tuple)
{
    struct jn *tuple = NULL, *n;
    for (;;) {
        bool paren = with_tuple && jparse_skip_op(p, JOP_LPAREN);
        if (paren) {
            if (++p->depth > JINJA_MAX_DEPTH)
                return jparse_fail(p, ERR_LIMIT, "an expression is nested too deep");
            n = jparse_target(p, true);
            p->depth--;
            if (n == NULL || !jparse_expect_op(p, JOP_RPAREN, "')'")) return NULL;
        } else {
            if (p->t->type != JT_NAME)
                return jparse_fail(p, ERR_INVALID, "expected a name to assign to");
            n = parse_name(p);
            if (n == NULL) return NULL;
            if (n->kind != JN_NAME)
                return jparse_fail(p, ERR_INVALID, "a constant cannot be assigned to");
        }
        if (!with_tuple || (tuple == NULL && !jtok_is_op(p->t, JOP_COMMA))) return n;
        if (tuple == NULL && (tuple = jnode(p, JN_TUPLE)) == NULL) return NULL;
        if (!jparse_under(p, tuple, n) || !jnlist_add(p, &tuple->list, n)) return NULL;
        if (!jparse_skip_op(p, JOP_COMMA) || p->t->type != JT_NAME) return tuple;
        if (jtok_is_name(p->t, "in")) return tuple;
    }
}
