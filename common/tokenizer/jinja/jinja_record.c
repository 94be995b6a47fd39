/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Recording how an output depends on marked strings (see jinja_plan.h). The evaluator asks here
 * before it uses a value for anything but passing it on; what is not known to be harmless spoils
 * the recording. A marked value's own bytes are not those of the string that it stands for, so that
 * one that slipped through would show in the output. One thread per rendering.
 */
#include <stdlib.h>
#include <string.h>

#include "tokenizer/jinja/jinja_int.h"

enum { LOOK_DEPTH = 6, LOOK_ITEMS = 4096 };

static const char stand_in[] = "\x01\x02 aigw: a text stands here \x02\x01";

void jinja_record_init(struct jinja_record *rec, const struct str *given, size_t n)
{
    ASSERT(n <= JINJA_PLAN_GIVEN);
    rec->given = rec->values_n = (uint32_t)n;
    rec->guards_n = rec->parts_n = 0;
    buf_init(&rec->literals, JINJA_PLAN_LITERALS);
    for (size_t i = 0; i < n; i++) {
        rec->values[i] = (struct jplan_value){ .of = JINJA_PLAN_WHOLE };
        rec->texts[i] = given[i];
    }
}

void jinja_record_done(struct jinja_record *rec)
{
    buf_done(&rec->literals);
}

static struct jv marked(size_t i)
{
    struct jv v = jv_str(str_n(stand_in, sizeof stand_in - 1));
    v.mark = (uint8_t)(i + 1);
    return v;
}

struct jv jinja_record_given(size_t i)
{
    return marked(i);
}

struct jv jrec_spoil(struct jr *r)
{
    return jfail(r, ERR_UNSUPPORTED, "what it does depends on a text");
}

static enum err keep(struct jinja_record *rec, struct str s, struct jplan_text *ret)
{
    *ret = (struct jplan_text){ (uint32_t)rec->literals.len, (uint32_t)s.n };
    return buf_append_str(&rec->literals, s);
}

/* --- what a value may hold --- */

static bool holds(struct jv v, unsigned depth, unsigned *items)
{
    if (v.mark != 0) return true;
    if (depth > LOOK_DEPTH) return v.type >= JV_LIST;
    switch (v.type) {
    case JV_LIST:
    case JV_TUPLE:
    case JV_GENERATOR:
        for (uint32_t i = 0; i < v.list->n; i++)
            if (++*items > LOOK_ITEMS || holds(v.list->items[i], depth + 1, items)) return true;
        return false;
    case JV_DICT:
    case JV_NAMESPACE:
        for (uint32_t i = 0; i < v.dict->n; i++)
            if (++*items > LOOK_ITEMS || holds(v.dict->pairs[i].key, depth + 1, items) ||
                holds(v.dict->pairs[i].value, depth + 1, items))
                return true;
        return false;
    case JV_LOOP:
    case JV_MACRO:
    case JV_METHOD: return true; /* nobody looks */
    default: return false;
    }
}

bool jrec_holds(struct jv v)
{
    unsigned items = 0;
    return holds(v, 0, &items);
}

static bool args_hold(const struct jargs *args)
{
    for (uint32_t i = 0; i < args->npos; i++)
        if (jrec_holds(args->pos[i])) return true;
    for (uint32_t i = 0; i < args->nkw; i++)
        if (jrec_holds(args->kw[i].value)) return true;
    return false;
}

static bool is_one_of(struct str name, const char *const *names, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (str_eqz(name, names[i])) return true;
    return false;
}
#define ONE_OF(name, names) is_one_of(name, names, ARRAY_LEN(names))

/* --- what is noted --- */

static bool ask(struct jr *r, struct jv v, enum jplan_question question, struct str with)
{
    struct jinja_record *rec = r->run->record;
    struct jplan_guard g = { .question = (uint8_t)question, .value = (uint8_t)(v.mark - 1) };
    if (rec == NULL || rec->guards_n == JINJA_PLAN_GUARDS || keep(rec, with, &g.with) != ERR_OK) {
        (void)jrec_spoil(r);
        return false;
    }
    g.yes = jplan_answer(&g, rec->texts[g.value], with);
    rec->guards[rec->guards_n++] = g;
    return g.yes;
}

bool jrec_truth(struct jr *r, struct jv v)
{
    return ask(r, v, JPLAN_NOT_EMPTY, STR(""));
}

static struct jv strip(struct jr *r, struct jv v, const struct str *chars, int which)
{
    struct jinja_record *rec = r->run->record;
    struct jplan_value made = { .of = (uint8_t)(v.mark - 1),
                                .which = (uint8_t)which,
                                .has_chars = chars != NULL };
    if (rec == NULL || rec->values_n == JINJA_PLAN_VALUES ||
        (chars != NULL && keep(rec, *chars, &made.chars) != ERR_OK))
        return jrec_spoil(r);
    rec->values[rec->values_n] = made;
    rec->texts[rec->values_n] = jstr_strip(rec->texts[made.of], chars, which);
    return marked(rec->values_n++);
}

static bool add_part(struct jr *r, struct jplan_part part)
{
    struct jinja_record *rec = r->run->record;
    if (rec == NULL || rec->parts_n == JINJA_PLAN_PARTS) return jrec_spoil(r), false;
    rec->parts[rec->parts_n++] = part;
    return true;
}

bool jrec_emit(struct jr *r, struct jv v)
{
    if (r->out->capture) return jrec_spoil(r), false;
    return jflush(r) && add_part(r, (struct jplan_part){ .value = (uint8_t)(v.mark - 1) });
}

enum err jrec_literal(struct jr *r, struct str s)
{
    struct jinja_record *rec = r->run->record;
    struct jplan_part *last = rec->parts_n > 0 ? &rec->parts[rec->parts_n - 1] : NULL;
    struct jplan_text at;
    enum err e = keep(rec, s, &at);
    if (e != ERR_OK) return e;
    if (last != NULL && last->value == JINJA_PLAN_WHOLE && last->text.at + last->text.n == at.at)
        last->text.n += at.n;
    else
        (void)add_part(r, (struct jplan_part){ .value = JINJA_PLAN_WHOLE, .text = at });
    return r->err;
}

/* --- what the evaluator asks --- */

bool jrec_method(struct jr *r, struct jv self, struct str name, const struct jargs *args,
                 struct jv *ret)
{
    static const char *const passing[] = { "get", "items", "keys", "values", "copy" };
    static const char *const strips[] = { "", "lstrip", "rstrip", "strip" };
    const struct jv *first = args->npos > 0 ? &args->pos[0] : NULL;
    *ret = jv_none();
    if (args_hold(args)) return *ret = jrec_spoil(r), true;
    if (self.mark == 0) {
        if (ONE_OF(name, passing) || !jrec_holds(self)) return false;
        return *ret = jrec_spoil(r), true;
    }
    bool text = first != NULL && first->type == JV_STR && args->npos == 1 && args->nkw == 0;
    bool starts = str_eqz(name, "startswith");
    if (text && (starts || str_eqz(name, "endswith"))) {
        *ret = jv_bool(ask(r, self, starts ? JPLAN_STARTS : JPLAN_ENDS, jv_text(*first)));
        return true;
    }
    for (int which = 1; which <= 3; which++) {
        if (!str_eqz(name, strips[which]) || !(text || args->npos + args->nkw == 0)) continue;
        struct str chars = text ? jv_text(*first) : STR("");
        *ret = strip(r, self, text ? &chars : NULL, which);
        return true;
    }
    return *ret = jrec_spoil(r), true;
}

bool jrec_may_call(struct jr *r, struct jv callee, const struct jargs *args)
{
    if (callee.type == JV_MACRO || callee.type == JV_LOOP) return true;
    struct jv spaces = jbuiltin(STR("namespace")), dict = jbuiltin(STR("dict"));
    struct jv date = jbuiltin(STR("strftime_now"));
    bool function = callee.type == JV_FUNCTION;
    if (function && (callee.n == spaces.n || callee.n == dict.n)) return true;
    if (function && callee.n != date.n && !args_hold(args)) return true;
    if (callee.type == JV_UNDEFINED) return true; /* an error, whatever it is given */
    (void)jrec_spoil(r);
    return false;
}

bool jrec_filter(struct jr *r, struct str name, struct jv v, const struct jargs *args,
                 struct jv *ret)
{
    static const char *const passing[] = { "length", "count", "first", "last", "list", "reverse" };
    bool plain = args->npos + args->nkw == 0, dflt = str_eqz(name, "default") || str_eqz(name, "d");
    if (dflt && args->nkw == 0 && args->npos <= 2 &&
        (args->npos < 2 || !jrec_holds(args->pos[1]))) {
        bool empty = args->npos == 2 && jtruth(args->pos[1]);
        bool kept = v.type != JV_UNDEFINED && (!empty || jdecide(r, v));
        *ret = kept ? v : args->npos > 0 ? args->pos[0] : jv_str(STR(""));
        return true;
    }
    if (v.mark != 0 && plain && str_eqz(name, "trim"))
        *ret = strip(r, v, NULL, 3);
    else if (args_hold(args) || v.mark != 0)
        *ret = jrec_spoil(r);
    else if (!jrec_holds(v) || (plain && ONE_OF(name, passing)))
        return false;
    else
        *ret = jrec_spoil(r);
    return true;
}

bool jrec_may_test(struct jr *r, struct str name, struct jv v, const struct jargs *args)
{
    static const char *const by_type[] = { "defined", "undefined", "none",     "string",
                                           "mapping", "boolean",   "integer",  "float",
                                           "number",  "iterable",  "sequence", "callable" };
    if (ONE_OF(name, by_type) || (!jrec_holds(v) && !args_hold(args))) return true;
    (void)jrec_spoil(r);
    return false;
}

bool jrec_compare(struct jr *r, enum jop op, struct jv a, struct jv b, bool *ret)
{
    bool equal = op == JOP_EQ || op == JOP_NE;
    if (!jrec_holds(a) && !jrec_holds(b)) return false;
    if (equal && (a.mark != 0 || b.mark != 0) && (a.mark == 0 || b.mark == 0)) {
        struct jv text = a.mark != 0 ? a : b, other = a.mark != 0 ? b : a;
        bool same = other.type == JV_STR && ask(r, text, JPLAN_IS, jv_text(other));
        *ret = same == (op == JOP_EQ);
    } else if ((op == JOP_IN || op == JOP_NOT_IN) && b.mark != 0 && a.mark == 0 &&
               a.type == JV_STR) {
        *ret = ask(r, b, JPLAN_HAS, jv_text(a)) == (op == JOP_IN);
    } else if ((op == JOP_IN || op == JOP_NOT_IN) && b.type == JV_DICT && !jrec_holds(a)) {
        return false; /* keys are never marked */
    } else if (equal && a.type != b.type && a.mark == 0 && b.mark == 0) {
        return false; /* a list and none, say */
    } else {
        (void)jrec_spoil(r);
        *ret = false;
    }
    return true;
}
