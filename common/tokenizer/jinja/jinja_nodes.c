/* SPDX-License-Identifier: Apache-2.0 */
/* What the parsers of statements, expressions and operands share: nodes of the tree, the next
 * token, and what is wrong. Pure; runs where a template is compiled. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "tokenizer/jinja/jinja_int.h"

struct jn *jparse_fail(struct jparser *p, enum err e, const char *fmt, ...)
{
    if (p->err != ERR_OK) return NULL;
    char text[200];
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    p->err = why_set(p->why, e, "template line %u: %s", p->t->line, text);
    return NULL;
}

struct jn *jnode(struct jparser *p, enum jn_kind kind)
{
    struct jn *n = arena_calloc(p->a, sizeof *n);
    if (n == NULL) return jparse_fail(p, ERR_NOMEM, "the template needs too much memory");
    n->kind = (uint8_t)kind;
    n->line = p->t->line;
    n->height = 1;
    return n;
}

bool jparse_under(struct jparser *p, struct jn *n, const struct jn *child)
{
    if (child == NULL) return p->err == ERR_OK;
    if (child->height >= n->height) n->height = (uint16_t)(child->height + 1);
    if (n->height <= JINJA_MAX_DEPTH) return true;
    jparse_fail(p, ERR_LIMIT, "an expression is nested more than %d deep", JINJA_MAX_DEPTH);
    return false;
}

bool jnlist_add(struct jparser *p, struct jnlist *l, struct jn *n)
{
    if (p->err != ERR_OK) return false;
    if ((l->n & (l->n - 1)) == 0) { /* full at powers of two */
        struct jn **v = arena_alloc(p->a, (l->n == 0 ? 1 : l->n * 2) * sizeof *v);
        if (v == NULL) {
            jparse_fail(p, ERR_NOMEM, "the template needs too much memory");
            return false;
        }
        if (l->n > 0) memcpy(v, l->v, l->n * sizeof *v);
        l->v = v;
    }
    l->v[l->n++] = n;
    return true;
}

bool jtok_is_op(const struct jtok *t, enum jop op)
{
    return t->type == JT_OP && t->op == op;
}

bool jtok_is_name(const struct jtok *t, const char *name)
{
    return t->type == JT_NAME && str_eqz(t->text, name);
}

bool jparse_skip_op(struct jparser *p, enum jop op)
{
    if (!jtok_is_op(p->t, op)) return false;
    p->t++;
    return true;
}

bool jparse_skip_name(struct jparser *p, const char *name)
{
    if (!jtok_is_name(p->t, name)) return false;
    p->t++;
    return true;
}

bool jparse_expect_op(struct jparser *p, enum jop op, const char *what)
{
    if (p->err == ERR_OK && jparse_skip_op(p, op)) return true;
    jparse_fail(p, ERR_INVALID, "expected %s", what);
    return false;
}
