/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Chats of one form after another, each rendered by the template and, when there is one, by the
 * plan: both must write the same. Header of static functions for unit tests and fuzz targets.
 */
#ifndef TESTS_SUPPORT_PLAN_H
#define TESTS_SUPPORT_PLAN_H

#include <stdio.h>
#include <stdlib.h>

#include "tokenizer/chat/chat_plan.h"

struct planned {
    struct chat_plans *plans;
    struct chat_form form;
    struct buf by_plan, by_template, room;
    struct arena arena;
    const struct vocab *vocab; /* NULL, or what they are counted with */
    size_t forms, written;     /* requests that had a form; that a plan wrote */
    size_t spared;             /* bytes that were not counted again */
};

static inline void planned_init(struct planned *s)
{
    *s = (struct planned){ .plans = chat_plans_new() };
    if (s->plans == NULL) abort();
    buf_init(&s->by_plan, 64 << 10);
    buf_init(&s->by_template, 16 << 20);
    buf_init(&s->room, 64 << 10);
    arena_init(&s->arena, 0);
}

static inline void planned_done(struct planned *s)
{
    chat_plans_free(s->plans);
    buf_done(&s->form.key);
    buf_done(&s->by_plan);
    buf_done(&s->by_template);
    buf_done(&s->room);
    arena_done(&s->arena);
}

static inline enum err planned_gather(void *ctx, const char *p, size_t n)
{
    return buf_append(ctx, p, n);
}

/* False: what was written is counted otherwise by the plan than as a whole. */
static inline bool planned_counts(struct planned *s, struct str written)
{
    uint64_t whole, by_plan;
    if (s->vocab == NULL) return true;
    if (token_count(s->vocab, written, SPECIAL_CONTROL, &whole) != ERR_OK) abort();
    if (!chat_plans_count(s->plans, &s->form, s->vocab, &s->room, &by_plan)) return false;
    s->spared += written.n - s->room.len;
    if (by_plan == whole) return true;
    fprintf(stderr, "%.*s\nby plan %llu, as a whole %llu\n", STR_ARG(written),
            (unsigned long long)by_plan, (unsigned long long)whole);
    return false;
}

/* False: the plan wrote something else than the template, or where the template refuses; or counts
 * it otherwise. */
static inline bool planned_agrees(struct planned *s, const struct chat_template *t,
                                  const struct chat_slices *in)
{
    struct jv read, messages = jv_none();
    struct chat_found found;
    struct chat_normal how = { t->keeps_parts, t->wants_argument_text };
    struct chat_values v = { .no_generation_prompt = in->no_generation_prompt, .now = in->now };
    bool used_clock = false;
    arena_reset(&s->arena);
    s->arena.budget = 8 << 20;
    buf_clear(&s->by_plan);
    buf_clear(&s->by_template);
    bool has_form = chat_form_read(&s->form, t, in, &s->arena);
    bool written = has_form && chat_plans_write(s->plans, &s->form, &s->by_plan);
    enum err e = jv_read_json(&s->arena, in->messages, &read, NULL);
    if (e == ERR_OK && in->tools.p != NULL) e = jv_read_json(&s->arena, in->tools, &v.tools, NULL);
    if (e == ERR_OK && in->kwargs.p != NULL)
        e = jv_read_json(&s->arena, in->kwargs, &v.kwargs, NULL);
    v.messages = read;
    if (e == ERR_OK) e = chat_normalise(&s->arena, read, &how, &messages, &found, NULL);
    if (e == ERR_OK) e = chat_normalise_tools(&s->arena, v.tools, &v.tools);
    if (e == ERR_OK)
        e = chat_render(t, &s->arena, &v, messages, planned_gather, &s->by_template, &used_clock,
                        NULL);
    s->forms += has_form;
    s->written += written;
    if (written &&
        (e != ERR_OK || used_clock || !str_eq(buf_str(&s->by_plan), buf_str(&s->by_template)))) {
        fprintf(stderr, "%.*s\nby plan:     %.*s\nby template: %.*s\n", STR_ARG(in->messages),
                STR_ARG(buf_str(&s->by_plan)), STR_ARG(buf_str(&s->by_template)));
        return false;
    }
    if (written) return planned_counts(s, buf_str(&s->by_plan));
    if (e == ERR_OK && has_form && !used_clock)
        chat_plans_learn(s->plans, &s->form, t, s->vocab, &s->arena, &v, messages,
                         buf_str(&s->by_template));
    return true;
}

#endif
