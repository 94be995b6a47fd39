/* SPDX-License-Identifier: Apache-2.0 */
/* Compiling a template, and asking what it is made of. Pure; any thread. */
#include "tokenizer/jinja/jinja.h"

#include <stdlib.h>
#include <string.h>

#include "tokenizer/jinja/jinja_int.h"

/* As Jinja2 reads a source: every line ends with \n, and one at the very end does not count. */
static enum err normalise(struct arena *a, struct str source, struct str *ret)
{
    char *out = arena_alloc(a, source.n + 1);
    if (out == NULL) return ERR_NOMEM;
    size_t n = 0;
    for (size_t i = 0; i < source.n; i++) {
        if (source.p[i] == '\r') {
            out[n++] = '\n';
            if (i + 1 < source.n && source.p[i + 1] == '\n') i++;
        } else {
            out[n++] = source.p[i];
        }
    }
    if (n > 0 && out[n - 1] == '\n') n--;
    *ret = str_n(out, n);
    return ERR_OK;
}

enum err jinja_compile(struct str source, struct jinja **ret, struct why *why)
{
    if (source.n > JINJA_MAX_SOURCE)
        return why_set(why, ERR_LIMIT, "a template of more than %d bytes", JINJA_MAX_SOURCE);
    struct jinja *t = calloc(1, sizeof *t);
    if (t == NULL) return why_set(why, ERR_NOMEM, "out of memory for a template");
    struct jtoks toks = { NULL, 0 };
    struct str src;
    arena_init(&t->arena, (4u << 20) + source.n * 256);
    enum err e = normalise(&t->arena, source, &src);
    if (e == ERR_OK) e = jlex(&t->arena, src, &toks, why);
    if (e == ERR_OK) e = jparse(&t->arena, &toks, &t->body, why);
    if (e == ERR_OK) e = jresolve(t, why);
    free(toks.v);
    if (e == ERR_NOMEM) why_set(why, e, "the template needs too much memory");
    if (e != ERR_OK) {
        jinja_free(t);
        return e;
    }
    *ret = t;
    return ERR_OK;
}

void jinja_free(struct jinja *t)
{
    if (t == NULL) return;
    arena_done(&t->arena);
    free(t);
}

bool jinja_uses(const struct jinja *t, struct str name)
{
    for (uint32_t i = 0; i < t->nglobals; i++)
        if (str_eq(t->globals[i], name)) return true;
    return false;
}

bool jinja_loops_over_content(const struct jinja *t)
{
    return t->loops_over_content;
}
