/* SPDX-License-Identifier: Apache-2.0 */
/* Counting a chat request: normalise, render, count. Any thread; nothing is shared but what is
 * immutable. */
#include "tokenizer/chat/chat.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tokenizer/chat/chat_plan.h"
#include "tokenizer/scan/estimate.h"

enum {
    WHOLE = 64 << 10,     /* bytes: a rendered text up to this is counted in one go */
    ARENA_BASE = 8 << 20, /* bytes of scratch any request may use */
    ARENA_PER_BYTE = 24,  /* and more for each byte of it */
};

const char *chat_method_name(enum chat_method m)
{
    static const char *const names[] = { "template", "openai_rule", "text", "estimate" };
    return (unsigned)m < ARRAY_LEN(names) ? names[m] : "unknown";
}

void chat_warn(struct chat_count *c, const char *fmt, ...)
{
    if (c->warnings_n == CHAT_MAX_WARNINGS) return;
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(c->warnings[c->warnings_n++], CHAT_WARNING_LEN, fmt, ap);
    va_end(ap);
}

struct chat_scratch {
    struct arena arena;
    struct buf whole; /* the rendered text, as long as it is short */
    struct chat_plans *plans;
    struct chat_form form; /* of this request */
};

struct chat_scratch *chat_scratch_new(void)
{
    struct chat_scratch *s = calloc(1, sizeof *s);
    if (s == NULL) return NULL;
    arena_init(&s->arena, 0);
    buf_init(&s->whole, WHOLE);
    s->plans = chat_plans_new();
    if (s->plans != NULL) return s;
    chat_scratch_free(s);
    return NULL;
}

void chat_scratch_free(struct chat_scratch *s)
{
    if (s == NULL) return;
    arena_done(&s->arena);
    buf_done(&s->whole);
    buf_done(&s->form.key);
    chat_plans_free(s->plans);
    free(s);
}

/* Memory of one count. */
struct room {
    struct buf *whole;
    struct chat_scratch *learns; /* NULL, or where the request's form is to be known from now on */
};

/* Where rendered text goes: held while it is short, then straight into the counter. */
struct sink {
    struct buf *whole;
    struct token_counter counter;
    const struct vocab *vocab;
    struct token_list *to;
    struct buf *copy; /* or NULL */
    const struct stop *stop;
    bool streaming;
};

static enum err start_streaming(struct sink *s)
{
    token_counter_init(&s->counter, s->vocab, SPECIAL_CONTROL, s->to);
    s->counter.stop = s->stop;
    s->streaming = true;
    return token_counter_feed(&s->counter, buf_str(s->whole));
}

static enum err take(void *ctx, const char *p, size_t n)
{
    struct sink *s = ctx;
    enum err e = s->copy != NULL ? buf_append(s->copy, p, n) : ERR_OK;
    if (e != ERR_OK) return e;
    if (!s->streaming && n <= buf_room(s->whole)) return buf_append(s->whole, p, n);
    if (!s->streaming) e = start_streaming(s);
    return e == ERR_OK ? token_counter_feed(&s->counter, str_n(p, n)) : e;
}

static enum err finish(struct sink *s, uint64_t *ret)
{
    if (s->streaming) return token_counter_finish(&s->counter, ret);
    if (s->to == NULL) return token_count(s->vocab, buf_str(s->whole), SPECIAL_CONTROL, ret);
    size_t before = s->to->len;
    enum err e = token_encode(s->vocab, buf_str(s->whole), SPECIAL_CONTROL, s->to);
    if (e == ERR_OK) *ret = s->to->len - before;
    return e;
}

static void set_rendered(const struct model_info *m, uint64_t tokens, struct chat_count *c)
{
    c->tokens = tokens;
    c->exact = true;
    c->method = CHAT_TEMPLATE;
    c->template_digest = chat_template_digest(m->chat);
}

static enum err count_rendered(const struct model_info *m, const struct chat_values *in,
                               struct jv messages, struct arena *a, struct room *room,
                               struct chat_count *c, struct chat_error *error)
{
    struct buf *whole = room->whole;
    struct sink s = {
        .whole = whole, .vocab = m->vocab, .to = in->to, .copy = in->rendered, .stop = in->stop
    };
    bool used_clock = false;
    uint64_t tokens = 0;
    buf_clear(whole);
    enum err e = chat_render(m->chat, a, in, messages, take, &s, &used_clock, error);
    if (e == ERR_OK) e = finish(&s, &tokens);
    if (e == ERR_NOMEM) (void)chat_fail(error, e, "", "the request needs too much memory");
    if (s.streaming) token_counter_done(&s.counter);
    if (e != ERR_OK) return e;
    set_rendered(m, tokens, c);
    if (used_clock) chat_warn(c, "the template prints today's date (UTC)");
    if (room->learns != NULL && !s.streaming && !used_clock)
        chat_plans_learn(room->learns->plans, &room->learns->form, m->chat, m->vocab, a, in,
                         messages, buf_str(whole));
    return ERR_OK;
}

static void add_images(const struct model_info *m, const struct chat_values *in, uint32_t images,
                       struct chat_count *c)
{
    struct chat_images found;
    struct why why;
    struct str rule = m->image_rule.p != NULL ? m->image_rule
                                              : image_rules_find(image_rules_builtin(), STR("?"));
    c->exact = false;
    if (rule.p == NULL || chat_images_count(rule, in->messages, &found, &why) != ERR_OK) {
        chat_warn(c, "%u images are not counted: no rule for them", images);
        return;
    }
    c->tokens += found.tokens;
    chat_warn(c, "%u images are counted by a rule, as %llu tokens: an estimate", found.n,
              (unsigned long long)found.tokens);
    if (found.assumed > 0)
        chat_warn(c, "the size of %u images is not in the request: %u x %u is assumed",
                  found.assumed, found.assume.w, found.assume.h);
}

static void warn_found(const struct model_info *m, const struct chat_values *in,
                       const struct chat_found *found, struct chat_count *c)
{
    bool tools = in->tools.type == JV_LIST && in->tools.list->n > 0;
    if (found->images > 0) add_images(m, in, found->images, c);
    if (found->other_parts > 0) {
        c->exact = false;
        chat_warn(c, "%u parts that are neither text nor image (audio, files) are not counted",
                  found->other_parts);
    }
    if (found->bad_arguments > 0)
        chat_warn(c, "the arguments of %u tool calls are no JSON and were left as text",
                  found->bad_arguments);
    if (c->method != CHAT_TEMPLATE) return;
    if (tools && !m->chat->shows_tools)
        chat_warn(c, "the model's template does not show it the tools");
    if (found->has_calls && !m->chat->shows_calls)
        chat_warn(c, "the model's template does not show it the tool calls of earlier turns");
}

/* What makes the vocabulary itself less than exact. */
static void warn_vocab(const struct model_info *m, struct chat_count *c)
{
    bool pattern = m->vocab != NULL && !vocab_exact(m->vocab);
    if (m->guess || pattern) c->exact = false;
    if (m->guess)
        chat_warn(c, "counted with the vocabulary %.*s, which the model's name suggests",
                  STR_ARG(m->vocabulary));
    if (pattern)
        chat_warn(c, "the vocabulary splits text by a pattern of its own, which PCRE2 runs: it "
                     "knows fewer characters");
}

/* Warnings are not cleared: warnings_n bounds them. */
static void begin(const struct model_info *m, struct chat_count *c)
{
    c->tokens = 0;
    c->exact = false;
    c->method = CHAT_ESTIMATE;
    c->vocabulary = m->vocab != NULL ? m->vocabulary : STR("");
    c->template_digest = STR_NULL;
    c->warnings_n = 0;
}

static void warn_sibling(const struct model_info *m, struct chat_count *c)
{
    if (!m->sibling) return;
    c->exact = false;
    chat_warn(c, "counted with the chat template of %.*s: this model's own may differ",
              STR_ARG(m->vocabulary));
}

static enum err count_values(const struct model_info *m, const struct chat_values *in,
                             struct arena *a, struct room *room, struct chat_count *ret,
                             struct chat_error *error)
{
    struct chat_found found;
    struct jv messages;
    struct chat_count c;
    begin(m, &c);
    bool rendered = m->vocab != NULL && m->chat != NULL;
    struct chat_normal how = { rendered && m->chat->keeps_parts,
                               !rendered || m->chat->wants_argument_text };
    if (in->tools.type != JV_UNDEFINED && in->tools.type != JV_NONE && in->tools.type != JV_LIST)
        return chat_fail(error, ERR_INVALID, "tools", "tools must be a list");
    if (in->kwargs.type != JV_UNDEFINED && in->kwargs.type != JV_NONE && in->kwargs.type != JV_DICT)
        return chat_fail(error, ERR_INVALID, "chat_template_kwargs",
                         "chat_template_kwargs must be an object");
    enum err e = chat_normalise(a, in->messages, &how, &messages, &found, error);
    if (e != ERR_OK) return e;
    struct chat_values shown = *in;
    if (rendered) e = chat_normalise_tools(a, in->tools, &shown.tools);
    if (e == ERR_NOMEM) chat_fail(error, e, "tools", "the request needs too much memory");
    if (e != ERR_OK) return e;
    if (rendered)
        e = count_rendered(m, &shown, messages, a, room, &c, error);
    else if (m->vocab != NULL && m->openai)
        e = chat_rule_openai(m, in, messages, a, &c);
    else
        e = chat_rule_texts(m, in, messages, a, &c);
    if (e != ERR_OK) return e;
    warn_vocab(m, &c);
    if (rendered) warn_sibling(m, &c);
    if (m->vocab == NULL && m->not_installed)
        chat_warn(&c, "an estimate: the vocabulary %.*s is not installed", STR_ARG(m->vocabulary));
    else if (m->vocab == NULL)
        chat_warn(&c, "an estimate: no vocabulary is known for this model");
    warn_found(m, in, &found, &c);
    *ret = c;
    return ERR_OK;
}

enum err chat_count_values(const struct model_info *m, const struct chat_values *in,
                           struct arena *a, struct chat_count *ret, struct chat_error *error)
{
    struct buf whole;
    buf_init(&whole, WHOLE);
    struct room room = { &whole, NULL };
    enum err e = count_values(m, in, a, &room, ret, error);
    buf_done(&whole);
    return e;
}

static enum err read_slice(struct arena *a, struct str text, const char *param, struct jv *ret,
                           struct chat_error *error)
{
    struct why why = { "" };
    if (text.p == NULL) return ERR_OK;
    enum err e = jv_read_json(a, text, ret, &why);
    return e == ERR_OK ? e : chat_fail(error, e, param, "%s: %s", param, why.text);
}

/* Of a form that is known. False: it is not. */
static bool count_known(const struct model_info *m, struct chat_scratch *s, struct chat_count *ret)
{
    uint64_t tokens;
    if (!chat_plans_count(s->plans, &s->form, m->vocab, &s->whole, &tokens)) return false;
    begin(m, ret);
    set_rendered(m, tokens, ret);
    warn_vocab(m, ret);
    warn_sibling(m, ret);
    return true;
}

enum err chat_count(const struct model_info *m, const struct chat_slices *in,
                    struct chat_count *ret, struct chat_error *error)
{
    struct chat_values v = { .messages = jv_none(),
                             .no_generation_prompt = in->no_generation_prompt,
                             .now = in->now,
                             .stop = in->stop };
    struct chat_scratch *s = in->scratch, own = { .whole = { .data = NULL } };
    if (s == NULL) {
        s = &own;
        buf_init(&s->whole, WHOLE);
    }
    arena_reset(&s->arena);
    s->arena.budget = ARENA_BASE + ARENA_PER_BYTE * (in->messages.n + in->tools.n + in->kwargs.n);
    struct room room = { &s->whole, NULL };
    if (s != &own && m->vocab != NULL && m->chat != NULL &&
        chat_form_read(&s->form, m->chat, in, &s->arena)) {
        if (count_known(m, s, ret)) return ERR_OK;
        room.learns = s;
    }
    enum err e = read_slice(&s->arena, in->messages, "messages", &v.messages, error);
    if (e == ERR_OK) e = read_slice(&s->arena, in->tools, "tools", &v.tools, error);
    if (e == ERR_OK)
        e = read_slice(&s->arena, in->kwargs, "chat_template_kwargs", &v.kwargs, error);
    if (e == ERR_OK) e = count_values(m, &v, &s->arena, &room, ret, error);
    if (s == &own) {
        arena_done(&own.arena);
        buf_done(&own.whole);
    }
    return e;
}

enum err chat_count_text(const struct model_info *m, struct str text, enum special_mode special,
                         struct token_list *to, struct chat_count *ret)
{
    return chat_count_text_until(m, text, special, to, NULL, ret);
}

enum err chat_count_text_until(const struct model_info *m, struct str text,
                               enum special_mode special, struct token_list *to,
                               const struct stop *stop, struct chat_count *ret)
{
    uint64_t tokens = 0;
    enum err e = ERR_OK;
    if (m->vocab == NULL) {
        tokens = token_estimate(text);
    } else if (to == NULL) {
        e = token_count_until(m->vocab, text, special, stop, &tokens);
    } else {
        size_t before = to->len;
        to->stop = stop;
        e = token_encode(m->vocab, text, special, to);
        tokens = to->len - before;
    }
    if (e != ERR_OK) return e;
    ret->tokens = tokens;
    ret->exact = m->vocab != NULL;
    ret->method = m->vocab != NULL ? CHAT_TEXT : CHAT_ESTIMATE;
    ret->vocabulary = m->vocab != NULL ? m->vocabulary : STR("");
    ret->template_digest = STR_NULL;
    ret->warnings_n = 0;
    warn_vocab(m, ret);
    if (m->vocab == NULL && m->not_installed)
        chat_warn(ret, "an estimate: the vocabulary %.*s is not installed", STR_ARG(m->vocabulary));
    else if (m->vocab == NULL)
        chat_warn(ret, "an estimate: no vocabulary is known for this model");
    return ERR_OK;
}
