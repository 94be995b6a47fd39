/* SPDX-License-Identifier: Apache-2.0 */
#include "json_want.h"

#include <stdlib.h>

enum { NO_INDEX = UINT32_MAX };

struct token {
    const char *name; /* in the pointer's room */
    uint32_t index;   /* in an array; NO_INDEX: no number */
    bool lower;       /* no capital letter: other spellings of it are refused */
};

struct pointer {
    char text[JS_WANT_POINTER_MAX + 1]; /* as it was given */
    char room[JS_WANT_POINTER_MAX + 1]; /* its tokens, decoded, each with a NUL */
    struct token tokens[JS_WANT_DEPTH];
    size_t depth;
};

struct js_wants {
    struct pointer *v;
    size_t n;
    uint64_t of_depth[JS_WANT_DEPTH + 1]; /* the pointers that have so many tokens */
};

struct js_wants *js_wants_new(void)
{
    return xcalloc(1, sizeof(struct js_wants));
}

void js_wants_free(struct js_wants *w)
{
    if (w == NULL) return;
    free(w->v);
    free(w);
}

size_t js_wants_count(const struct js_wants *w)
{
    return w != NULL ? w->n : 0;
}

/* An array's index has no leading zero. */
static uint32_t index_of(const char *name)
{
    uint64_t n;
    if (name[0] == '0' && name[1] != '\0') return NO_INDEX;
    if (str_to_u64(str_of(name), &n) != ERR_OK || n >= NO_INDEX) return NO_INDEX;
    return (uint32_t)n;
}

static bool has_capital(const char *name)
{
    for (; *name != '\0'; name++)
        if (*name >= 'A' && *name <= 'Z') return true;
    return false;
}

/* Decodes the tokens: ~0 is ~, ~1 is /. */
static enum err parse(struct str text, struct pointer *p)
{
    char *out = p->room;
    if (text.n == 0 || text.p[0] != '/' || text.n > JS_WANT_POINTER_MAX) return ERR_INVALID;
    if (memchr(text.p, '\0', text.n) != NULL) return ERR_INVALID;
    (void)str_copyz(p->text, sizeof p->text, text);
    for (size_t i = 0; i < text.n;) {
        if (p->depth == JS_WANT_DEPTH) return ERR_INVALID;
        struct token *t = &p->tokens[p->depth++];
        char *name = out;
        for (i++; i < text.n && text.p[i] != '/'; i++) {
            char c = text.p[i];
            if (c == '~') {
                if (++i == text.n || (text.p[i] != '0' && text.p[i] != '1')) return ERR_INVALID;
                c = text.p[i] == '0' ? '~' : '/';
            }
            *out++ = c;
        }
        *out++ = '\0';
        t->index = index_of(name);
        t->lower = !has_capital(name);
    }
    return ERR_OK;
}

/* Names point into their own pointer, which moves when the set grows. */
static void name_tokens(struct pointer *p)
{
    const char *at = p->room;
    for (size_t i = 0; i < p->depth; i++) {
        p->tokens[i].name = at;
        at += strlen(at) + 1;
    }
}

enum err js_wants_add(struct js_wants *w, struct str text, size_t *ret_place)
{
    struct pointer p = { .depth = 0 };
    enum err e = parse(text, &p);
    if (e != ERR_OK) return e;
    for (size_t i = 0; i < w->n; i++)
        if (strcmp(w->v[i].text, p.text) == 0) return *ret_place = i, ERR_OK;
    if (w->n == JS_WANTS_MAX) return ERR_LIMIT;
    w->v = xrealloc(w->v, (w->n + 1) * sizeof *w->v);
    w->v[w->n] = p;
    w->of_depth[p.depth] |= UINT64_C(1) << w->n;
    *ret_place = w->n++;
    for (size_t i = 0; i < w->n; i++) name_tokens(&w->v[i]);
    return ERR_OK;
}

/* --- while parsing --- */

/* EACH(i, mask): the places of the bits that are set. */
#define EACH(i, mask)                                                                         \
    for (uint64_t left_ = (mask), i; left_ != 0 && (i = (uint64_t)__builtin_ctzll(left_), 1); \
         left_ &= left_ - 1)

void js_seek_init(struct js_seek *s, const struct js_wants *w, struct js_val *found)
{
    s->wants = w;
    s->found = found;
    s->next = w->n == 64 ? UINT64_MAX : (UINT64_C(1) << w->n) - 1;
    for (size_t i = 0; i < w->n; i++) found[i] = JS_ABSENT;
}

const char *js_seek_key(struct js_seek *s, size_t depth, struct str raw_key)
{
    s->next = 0;
    if (depth > JS_WANT_DEPTH) return NULL;
    EACH(i, s->live[depth])
    {
        const struct token *t = &s->wants->v[i].tokens[depth - 1];
        if (js_key_is(raw_key, t->name))
            s->next |= UINT64_C(1) << i;
        else if (t->lower && js_key_is_like(raw_key, t->name))
            return "a field that decides over the request is not written in lower case";
    }
    if ((s->seen[depth] & s->next) != 0)
        return "a field that decides over the request occurs twice";
    s->seen[depth] |= s->next;
    return NULL;
}

/* The pointers that lead to, or through, the value that begins. */
static uint64_t leading(struct js_seek *s, size_t depth, bool in_array)
{
    uint64_t m = 0;
    if (!in_array) {
        m = s->next;
        s->next = 0;
        return m;
    }
    if (depth > JS_WANT_DEPTH) return 0;
    uint32_t at = s->element[depth]++;
    EACH(i, s->live[depth])
    {
        if (s->wants->v[i].tokens[depth - 1].index == at) m |= UINT64_C(1) << i;
    }
    return m;
}

void js_seek_open(struct js_seek *s, size_t depth, bool in_array, const char *p)
{
    uint64_t m = leading(s, depth, in_array);
    if (depth > JS_WANT_DEPTH) return;
    uint64_t ends = m & s->wants->of_depth[depth];
    s->live[depth + 1] = m & ~ends;
    s->ends[depth + 1] = ends;
    s->seen[depth + 1] = 0;
    s->element[depth + 1] = 0;
    s->start[depth + 1] = p;
}

void js_seek_scalar(struct js_seek *s, size_t depth, bool in_array, struct js_val v)
{
    uint64_t m = leading(s, depth, in_array);
    if (depth > JS_WANT_DEPTH) return;
    EACH(i, m & s->wants->of_depth[depth])
    s->found[i] = v;
}

void js_seek_close(struct js_seek *s, size_t depth, enum js_type type, const char *p)
{
    if (depth > JS_WANT_DEPTH + 1) return;
    EACH(i, s->ends[depth])
    s->found[i] = (struct js_val){ type, str_n(s->start[depth], (size_t)(p - s->start[depth])),
                                   NULL };
}
