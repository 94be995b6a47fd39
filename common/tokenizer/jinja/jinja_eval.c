/* SPDX-License-Identifier: Apache-2.0 */
/* Statements of a template being rendered: output, loops, assignment. One thread per rendering. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "tokenizer/jinja/jinja_int.h"

#define NOINLINE __attribute__((noinline))

enum {
    STAGE = 2048,       /* small pieces are gathered before they go to the sink */
    ASK_STEPS = 1 << 14 /* steps between two questions whether to stop; a power of two */
};

struct jv jfail(struct jr *r, enum err e, const char *fmt, ...)
{
    if (r->err == ERR_OK) {
        char text[240];
        va_list ap;
        va_start(ap, fmt);
        (void)vsnprintf(text, sizeof text, fmt, ap);
        va_end(ap);
        r->err = why_set(r->why, e, "template line %u: %s", r->line, text);
    }
    return jv_undefined(STR_NULL);
}

struct jv jnomem(struct jr *r)
{
    return jfail(r, ERR_NOMEM, "rendering needs more memory than it may have");
}

bool jpay(struct jr *r, uint64_t n)
{
    if (r->steps_left > n) {
        uint64_t before = r->steps_left;
        r->steps_left -= n;
        if ((before ^ r->steps_left) < ASK_STEPS || !stop_asked(r->run->stop)) return true;
        jfail(r, ERR_CLOSED, "nobody waits for this rendering any more");
        return false;
    }
    r->steps_left = 0;
    jfail(r, ERR_LIMIT, "rendering takes too many steps");
    return false;
}

static enum err give(struct jr *r, struct str s)
{
    if (r->run->record != NULL) return jrec_literal(r, s);
    return r->run->sink(r->run->sink_ctx, s.p, s.n);
}

static bool flush(struct jr *r, struct jout *o)
{
    if (o->len == 0) return true;
    enum err e = give(r, str_n(o->data, o->len));
    o->len = 0;
    if (e == ERR_OK) return true;
    if (r->err == ERR_OK) r->err = e;
    return false;
}

bool jflush(struct jr *r)
{
    return flush(r, r->out);
}

bool jemit(struct jr *r, struct str s)
{
    struct jout *o = r->out;
    if (r->err != ERR_OK) return false;
    if (s.n > o->cap - o->len) {
        if (o->capture) {
            struct jsb b = { o->data, o->len, o->cap };
            bool ok = jsb_add(r, &b, s);
            *o = (struct jout){ b.p, b.n, b.cap, true };
            return ok;
        }
        if (!flush(r, o)) return false;
    }
    if (!o->capture) {
        if (s.n > r->output_left) {
            jfail(r, ERR_LIMIT, "the rendered text is too long");
            return false;
        }
        r->output_left -= s.n;
        if (s.n > o->cap) {
            r->err = give(r, s);
            return r->err == ERR_OK;
        }
    } else if (!jpay(r, s.n / 64)) {
        return false;
    }
    if (s.n > 0) memcpy(o->data + o->len, s.p, s.n);
    o->len += s.n;
    return true;
}

bool jemit_value(struct jr *r, struct jv v)
{
    if (r->err != ERR_OK) return false;
    if (v.mark != 0) return jrec_emit(r, v);
    if (v.type == JV_STR) return jemit(r, jv_text(v));
    struct str s = jto_str(r, v);
    return r->err == ERR_OK && jemit(r, s);
}

/* a + b + c where all are strings is written piece by piece: nothing is joined. Evaluates the
 * operands of the sum n from left to right into v; returns how many, 0 when there are too many. */
static uint32_t sum_operands(struct jr *r, const struct jn *n, struct jv *v, uint32_t max)
{
    const struct jn *chain[24];
    uint32_t depth = 0;
    for (; n->kind == JN_BINARY && n->op == JOP_ADD; n = n->a) {
        if (depth + 1 >= max || depth == ARRAY_LEN(chain)) return 0;
        chain[depth++] = n->b;
    }
    uint32_t count = 0;
    v[count++] = jeval(r, n);
    while (depth > 0 && r->err == ERR_OK) v[count++] = jeval(r, chain[--depth]);
    return count;
}

/* Kept out of exec_one, as its arrays would make every level of recursion larger. */
static NOINLINE void output(struct jr *r, const struct jn *e)
{
    if (e->kind == JN_BINARY && e->op == JOP_ADD) {
        struct jv v[24];
        uint32_t n = sum_operands(r, e, v, ARRAY_LEN(v));
        if (r->err != ERR_OK) return;
        uint32_t strings = 0;
        while (strings < n && v[strings].type == JV_STR) strings++;
        if (n > 0 && strings == n) {
            for (uint32_t i = 0; i < n && jemit_value(r, v[i]); i++) continue;
            return;
        }
        if (n > 0) {
            struct jv sum = v[0];
            for (uint32_t i = 1; i < n && r->err == ERR_OK; i++)
                sum = jeval_binary(r, JOP_ADD, sum, v[i]);
            (void)jemit_value(r, sum);
            return;
        }
    }
    (void)jemit_value(r, jeval(r, e));
}

struct jv jcapture(struct jr *r, const struct jnlist *body)
{
    struct jout *before = r->out, o = { NULL, 0, 0, true };
    r->out = &o;
    (void)jexec(r, body);
    r->out = before;
    return jv_str(str_n(o.data != NULL ? o.data : "", o.len));
}

static void unset(struct jr *r, uint16_t first, uint16_t count)
{
    for (unsigned i = 0; i < count; i++) r->frame->slots[first + i].type = JV_UNSET;
}

void jassign(struct jr *r, const struct jn *target, struct jv v)
{
    if (target->kind == JN_NAME) {
        r->frame->slots[target->ref.places[0].slot] = v;
    } else if (target->kind == JN_ATTR) {
        struct jv ns = jeval(r, target->a);
        if (r->err != ERR_OK) return;
        r->line = target->line;
        if (ns.type != JV_NAMESPACE) {
            jfail(r, ERR_INVALID, "cannot assign attribute on non-namespace object");
            return;
        }
        enum err e = jv_dict_set(r->a, ns.dict, jv_str(target->name), v);
        if (e != ERR_OK) (void)jnomem(r);
    } else {
        struct jv_list *l = jiterate(r, v);
        if (l == NULL) return;
        if (l->n != target->list.n) {
            jfail(r, ERR_INVALID, "cannot unpack %u values into %u names", l->n, target->list.n);
            return;
        }
        for (uint32_t i = 0; i < l->n && r->err == ERR_OK; i++)
            jassign(r, target->list.v[i], l->items[i]);
    }
}

/* The items that pass the loop's `if`. */
static struct jv_list *filter_items(struct jr *r, const struct jn_for *f, struct jv_list *l)
{
    struct jv_list *kept = jv_list_new(r->a, l->n);
    if (kept == NULL) return jnomem(r), NULL;
    uint32_t n = 0;
    for (uint32_t i = 0; i < l->n && r->err == ERR_OK; i++) {
        unset(r, f->first, f->count);
        jassign(r, f->target, l->items[i]);
        if (r->err == ERR_OK && jdecide(r, jeval(r, f->test))) kept->items[n++] = l->items[i];
    }
    kept->n = n;
    return kept;
}

struct jv jrun_loop(struct jr *r, const struct jn_for *f, struct jv over, unsigned depth)
{
    struct jv_list *l = jiterate(r, over);
    if (l == NULL) return jv_none();
    if (f->test != NULL) l = filter_items(r, f, l);
    if (r->err != ERR_OK) return jv_none();
    if (l->n == 0) {
        unset(r, f->else_first, f->else_count);
        return jv_int(jexec(r, &f->orelse));
    }
    struct jloop *loop = arena_alloc(r->a, sizeof *loop);
    if (loop == NULL) return jnomem(r);
    *loop = (struct jloop){
        .def = f, .frame = r->frame, .items = l->items, .n = l->n, .depth = depth
    };
    struct jv self = { .type = JV_LOOP, .p = loop };
    enum jflow flow = JFLOW_NEXT;
    for (uint32_t i = 0; i < l->n && r->err == ERR_OK; i++) {
        loop->index = i;
        unset(r, f->first, f->count);
        r->frame->slots[f->loop.slot] = self;
        if (f->target->kind == JN_NAME)
            r->frame->slots[f->target->ref.places[0].slot] = l->items[i];
        else
            jassign(r, f->target, l->items[i]);
        flow = jexec(r, &f->body);
        if (flow == JFLOW_BREAK || flow == JFLOW_STOP) break;
    }
    return jv_int(flow == JFLOW_STOP ? JFLOW_STOP : JFLOW_NEXT);
}

static void define_macro(struct jr *r, const struct jn_macro *m, struct jv *ret)
{
    struct jmacro_value *mv = arena_alloc(r->a, sizeof *mv);
    if (mv == NULL) {
        (void)jnomem(r);
        return;
    }
    *mv = (struct jmacro_value){ m, r->frame };
    *ret = (struct jv){ .type = JV_MACRO, .p = mv };
}

/* Evaluates a call node with `caller` among its arguments, and writes what it gives. */
static NOINLINE void call_block(struct jr *r, const struct jn *n)
{
    struct jv caller = jv_none(), pos[64], callee = jeval(r, n->a->a);
    struct jkw kw[33];
    const struct jncall *args = &n->a->args;
    define_macro(r, n->macro, &caller);
    if (args->nkw + 1 > ARRAY_LEN(kw)) jfail(r, ERR_LIMIT, "too many named arguments");
    for (uint32_t i = 0; i < args->pos.n && r->err == ERR_OK; i++)
        pos[i] = jeval(r, args->pos.v[i]);
    for (uint32_t i = 0; i < args->nkw && r->err == ERR_OK; i++)
        kw[i] = (struct jkw){ args->kw[i].name, jeval(r, args->kw[i].value) };
    if (r->err != ERR_OK) return;
    kw[args->nkw] = (struct jkw){ STR("caller"), caller };
    struct jargs all = { pos, args->pos.n, args->nkw + 1, kw };
    (void)jemit_value(r, jcall(r, callee, &all));
}

/* A filter or set block: its text through its filters. */
static struct jv block_text(struct jr *r, const struct jn *n)
{
    unset(r, n->scope.first, n->scope.count);
    struct jv before = r->block_value, text = jcapture(r, &n->list);
    if (r->err != ERR_OK) return text;
    r->block_value = text;
    struct jv v = jeval(r, n->a);
    r->block_value = before;
    return v;
}

static NOINLINE enum jflow exec_with(struct jr *r, const struct jn *n)
{
    struct jv values[64];
    uint32_t pairs = n->list.n / 2;
    if (pairs > ARRAY_LEN(values)) jfail(r, ERR_LIMIT, "too many names in one 'with'");
    for (uint32_t i = 0; i < pairs && r->err == ERR_OK; i++)
        values[i] = jeval(r, n->list.v[2 * i + 1]);
    if (r->err != ERR_OK) return JFLOW_STOP;
    unset(r, n->b->scope.first, n->b->scope.count);
    for (uint32_t i = 0; i < pairs; i++) jassign(r, n->list.v[2 * i], values[i]);
    return jexec(r, &n->b->list);
}

static enum jflow exec_one(struct jr *r, const struct jn *n)
{
    switch (n->kind) {
    case JN_TEXT: (void)jemit(r, jv_text(n->value)); return JFLOW_NEXT;
    case JN_OUTPUT: output(r, n->a); return JFLOW_NEXT;
    case JN_IF: {
        struct jv cond = jeval(r, n->a);
        if (r->err != ERR_OK) return JFLOW_STOP;
        return jexec(r, jdecide(r, cond) ? &n->list : &n->orelse);
    }
    case JN_FOR: {
        struct jv over = jeval(r, n->loop->iter);
        if (r->err != ERR_OK) return JFLOW_STOP;
        return (enum jflow)jrun_loop(r, n->loop, over, 1).i;
    }
    case JN_SET: {
        struct jv v = jeval(r, n->a);
        if (r->err == ERR_OK) jassign(r, n->scope.target, v);
        return JFLOW_NEXT;
    }
    case JN_SET_BLOCK: {
        struct jv v = block_text(r, n);
        if (r->err == ERR_OK) jassign(r, n->scope.target, v);
        return JFLOW_NEXT;
    }
    case JN_FILTER_BLOCK: (void)jemit_value(r, block_text(r, n)); return JFLOW_NEXT;
    case JN_MACRO: define_macro(r, n->macro, &r->frame->slots[n->macro->self.slot]); break;
    case JN_CALL_BLOCK: call_block(r, n); break;
    case JN_WITH: return exec_with(r, n);
    case JN_SCOPE: unset(r, n->scope.first, n->scope.count); return jexec(r, &n->list);
    case JN_BREAK: return JFLOW_BREAK;
    case JN_CONTINUE: return JFLOW_CONTINUE;
    default: jfail(r, ERR_INTERNAL, "an expression where a statement should be"); break;
    }
    return JFLOW_NEXT;
}

enum jflow jexec(struct jr *r, const struct jnlist *body)
{
    enum jflow flow = JFLOW_NEXT;
    if (++r->depth > JINJA_MAX_DEPTH) {
        jfail(r, ERR_LIMIT, "macros or loops call each other too deep");
        return JFLOW_STOP;
    }
    for (uint32_t i = 0; i < body->n && flow == JFLOW_NEXT; i++) {
        r->line = body->v[i]->line;
        if (!jpay(r, 1)) return JFLOW_STOP;
        flow = exec_one(r, body->v[i]);
        if (r->err != ERR_OK) return JFLOW_STOP;
    }
    r->depth--;
    return flow;
}

static bool start(struct jr *r, const struct jinja *t)
{
    r->globals = arena_alloc(r->a, (t->nglobals + 1) * sizeof *r->globals);
    r->frame = arena_alloc(r->a, sizeof *r->frame + (t->nslots + 1u) * sizeof(struct jv));
    if (r->globals == NULL || r->frame == NULL) return jnomem(r), false;
    r->frame->outer = NULL;
    unset(r, 0, t->nslots);
    for (uint32_t i = 0; i < t->nglobals; i++) {
        const struct jv *v = jv_member(r->run->context, t->globals[i]);
        r->globals[i] = v != NULL ? *v : jbuiltin(t->globals[i]);
    }
    return true;
}

enum err jinja_render(const struct jinja *t, struct arena *a, struct jinja_run *run,
                      struct why *why)
{
    char stage[STAGE];
    struct jout out = { stage, 0, sizeof stage, false };
    const struct jinja_limits dflt = JINJA_LIMITS_DEFAULT;
    struct jr r = {
        .t = t,
        .a = a,
        .run = run,
        .out = &out,
        .steps_left = run->limits.steps > 0 ? run->limits.steps : dflt.steps,
        .output_left = run->limits.output > 0 ? run->limits.output : dflt.output,
        .why = why,
    };
    r.steps_given = r.steps_left;
    run->used_clock = run->template_raised = false;
    if (start(&r, t)) (void)jexec(&r, &t->body);
    if (r.err == ERR_OK) (void)flush(&r, &out);
    /* Other texts may take some steps more: they would be enough for them, too. */
    if (run->record != NULL && r.steps_left < r.steps_given / 2) (void)jrec_spoil(&r);
    return r.err;
}
