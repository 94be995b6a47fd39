/* SPDX-License-Identifier: Apache-2.0 */
/* See the header: what was recorded, written for other texts. Immutable, but for being cut once;
 * any thread. */
#include "tokenizer/jinja/jinja_plan.h"

#include <stdlib.h>
#include <string.h>

#include "tokenizer/jinja/jinja_int.h"

struct jinja_plan {
    uint32_t given, values_n, guards_n, parts_n, cut_n;
    struct jplan_value *values;
    struct jplan_guard *guards;
    struct jplan_part *parts; /* no two literals side by side */
    struct jplan_part *cut;   /* NULL: not cut */
    char *literals;
};

bool jplan_answer(const struct jplan_guard *g, struct str v, struct str with)
{
    switch ((enum jplan_question)g->question) {
    case JPLAN_NOT_EMPTY: return v.n > 0;
    case JPLAN_HAS: return jstr_find(v, with, 0) != SIZE_MAX;
    case JPLAN_STARTS: return str_starts(v, with);
    case JPLAN_ENDS: return str_ends(v, with);
    case JPLAN_IS: return str_eq(v, with);
    }
    return false;
}

/* --- made of a recording --- */

/* Copies a text of the recording behind what is there. */
static void take(char *literals, uint32_t *len, const struct jinja_record *rec,
                 struct jplan_text *text)
{
    if (text->n > 0) memcpy(literals + *len, rec->literals.data + text->at, text->n);
    text->at = *len;
    *len += text->n;
}

/* Each text was kept for one use: together they are no longer than the recording's. */
static void take_all(struct jinja_plan *p, const struct jinja_record *rec)
{
    uint32_t len = 0;
    for (uint32_t i = 0; i < p->values_n; i++) take(p->literals, &len, rec, &p->values[i].chars);
    for (uint32_t i = 0; i < p->guards_n; i++) take(p->literals, &len, rec, &p->guards[i].with);
    for (uint32_t i = 0; i < rec->parts_n; i++) {
        struct jplan_part part = rec->parts[i];
        struct jplan_part *last = p->parts_n > 0 ? &p->parts[p->parts_n - 1] : NULL;
        bool literal = part.value == JINJA_PLAN_WHOLE;
        if (literal) take(p->literals, &len, rec, &part.text);
        if (literal && last != NULL && last->value == JINJA_PLAN_WHOLE)
            last->text.n += part.text.n;
        else
            p->parts[p->parts_n++] = part;
    }
    ASSERT(len <= rec->literals.len);
}

struct jinja_plan *jinja_record_plan(const struct jinja_record *rec)
{
    size_t values = rec->values_n * sizeof *rec->values;
    size_t guards = rec->guards_n * sizeof *rec->guards;
    size_t parts = rec->parts_n * sizeof *rec->parts;
    struct jinja_plan *p = calloc(1, sizeof *p + values + guards + parts + rec->literals.len);
    if (p == NULL) return NULL;
    p->given = rec->given;
    p->values_n = rec->values_n;
    p->guards_n = rec->guards_n;
    p->values = (void *)(p + 1);
    p->guards = (void *)((char *)p->values + values);
    p->parts = (void *)((char *)p->guards + guards);
    p->literals = (char *)p->parts + parts;
    memcpy(p->values, rec->values, values);
    memcpy(p->guards, rec->guards, guards);
    take_all(p, rec);
    return p;
}

void jinja_plan_free(struct jinja_plan *p)
{
    if (p == NULL) return;
    free(p->cut);
    free(p);
}

static struct str literal(const struct jinja_plan *p, struct jplan_text t)
{
    return str_n(p->literals + t.at, t.n);
}

/* --- cut --- */

/* Of a literal, or of a part of one; nothing of an empty one. */
static void add_literal(struct jinja_plan *p, size_t at, size_t n)
{
    if (n == 0) return;
    p->cut[p->cut_n++] = (struct jplan_part){ .value = JINJA_PLAN_WHOLE,
                                              .text = { (uint32_t)at, (uint32_t)n } };
}

/* The stretch whose parts begin at `first` ends. What is the same for all texts is left out. */
static enum err end_stretch(struct jinja_plan *p, uint32_t first, const struct jplan_cutter *c)
{
    if (p->cut_n == first) return ERR_OK;
    struct jplan_part *last = &p->cut[p->cut_n - 1];
    last->ends = true;
    if (p->cut_n - first > 1 || last->value != JINJA_PLAN_WHOLE) return ERR_OK;
    p->cut_n = first;
    return c->left_out(c->ctx, literal(p, last->text));
}

enum err jinja_plan_cut(struct jinja_plan *p, const struct jplan_cutter *c)
{
    enum err e = ERR_OK;
    uint32_t first = 0;
    ASSERT(p->cut == NULL);
    p->cut = calloc(2 * (size_t)p->parts_n + 1, sizeof *p->cut);
    if (p->cut == NULL) return ERR_NOMEM;
    for (uint32_t i = 0; i < p->parts_n && e == ERR_OK; i++) {
        struct jplan_text t = p->parts[i].text;
        size_t from, to;
        if (p->parts[i].value != JINJA_PLAN_WHOLE) {
            p->cut[p->cut_n++] = p->parts[i];
            continue;
        }
        if (!c->find(c->ctx, literal(p, t), &from, &to)) {
            add_literal(p, t.at, t.n);
            continue;
        }
        add_literal(p, t.at, from);
        e = end_stretch(p, first, c);
        if (e == ERR_OK) e = c->left_out(c->ctx, str_n(p->literals + t.at + from, to - from));
        first = p->cut_n;
        add_literal(p, t.at + to, t.n - to);
    }
    if (e == ERR_OK) e = end_stretch(p, first, c);
    if (e == ERR_OK) return e;
    free(p->cut);
    p->cut = NULL;
    p->cut_n = 0;
    return e;
}

/* --- written --- */

/* What stands for each value. ERR_AGAIN: not all questions have the same answers. */
static enum err find_values(const struct jinja_plan *p, const struct str *given,
                            struct str v[JINJA_PLAN_VALUES])
{
    for (uint32_t i = 0; i < p->given; i++) v[i] = given[i];
    for (uint32_t i = p->given; i < p->values_n; i++) {
        const struct jplan_value *made = &p->values[i];
        struct str chars = literal(p, made->chars);
        v[i] = jstr_strip(v[made->of], made->has_chars ? &chars : NULL, made->which);
    }
    for (uint32_t i = 0; i < p->guards_n; i++) {
        const struct jplan_guard *g = &p->guards[i];
        if (jplan_answer(g, v[g->value], literal(p, g->with)) != g->yes) return ERR_AGAIN;
    }
    return ERR_OK;
}

/* Appends parts; ends: NULL, or where the places go at which stretches end. */
static enum err write_parts(const struct jinja_plan *p, const struct jplan_part *parts, uint32_t n,
                            const struct str *v, struct buf *out, size_t *ends, size_t *ret_ends)
{
    size_t total = 0, stretches = 0, end = out->len;
    char *at;
    for (uint32_t i = 0; i < n; i++)
        total += parts[i].value == JINJA_PLAN_WHOLE ? parts[i].text.n : v[parts[i].value].n;
    enum err e = buf_reserve(out, total, &at);
    if (e != ERR_OK) return e;
    for (uint32_t i = 0; i < n; i++) {
        struct str s = parts[i].value == JINJA_PLAN_WHOLE ? literal(p, parts[i].text)
                                                          : v[parts[i].value];
        if (s.n > 0) memcpy(at, s.p, s.n);
        at += s.n;
        end += s.n;
        if (parts[i].ends) ends[stretches++] = end;
    }
    out->len += total;
    if (ret_ends != NULL) *ret_ends = stretches;
    return ERR_OK;
}

enum err jinja_plan_write(const struct jinja_plan *p, const struct str *given, struct buf *out)
{
    struct str v[JINJA_PLAN_VALUES];
    enum err e = find_values(p, given, v);
    return e == ERR_OK ? write_parts(p, p->parts, p->parts_n, v, out, NULL, NULL) : e;
}

enum err jinja_plan_write_cut(const struct jinja_plan *p, const struct str *given, struct buf *out,
                              size_t ends[JINJA_PLAN_STRETCHES], size_t *ret_n)
{
    struct str v[JINJA_PLAN_VALUES];
    ASSERT(p->cut != NULL);
    enum err e = find_values(p, given, v);
    return e == ERR_OK ? write_parts(p, p->cut, p->cut_n, v, out, ends, ret_n) : e;
}
