/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Chats of the same form, rendered by copying. Most requests have the form of one that came before:
 * as many messages of the same roles, the same tools, other texts. When a form comes for the second
 * time its rendering is recorded (jinja_plan.h), and those that follow are written from the plan,
 * without reading their JSON into values and without running the template, as long as the template
 * would ask the same of them and be answered the same. Internal to the tokenizer; one owner thread.
 */
#ifndef TOKENIZER_CHAT_PLAN_H
#define TOKENIZER_CHAT_PLAN_H

#include "tokenizer/chat/chat_int.h"

/* What was seen and recorded. */
struct chat_plans;
struct chat_plans *chat_plans_new(void) MUSTCHECK;
void chat_plans_free(struct chat_plans *p);

/* A request's form, and the texts of its messages. */
struct chat_form {
    struct buf key; /* kept for the next request */
    struct str texts[JINJA_PLAN_GIVEN];
    size_t n;
    size_t bytes; /* of the texts */
};

/* Reads it into *f. False: it has none that is worth knowing, or is not what JSON allows. a: where
 * texts go that need decoding. */
bool chat_form_read(struct chat_form *f, const struct chat_template *t,
                    const struct chat_slices *in, struct arena *a);

/* Writes what the template makes of it. False: no plan is there, or none that holds. */
bool chat_plans_write(struct chat_plans *p, const struct chat_form *f, struct buf *out);
/* The tokens of what it would write. What is the same in all chats of the form was counted when
 * the form was recorded, where added tokens divide it from the rest. room: cleared and used. */
bool chat_plans_count(struct chat_plans *p, const struct chat_form *f, const struct vocab *v,
                      struct buf *room, uint64_t *ret);

/* Behind a rendering: notes the form, or records it. v: what it will be counted with. messages:
 * normalised, and spoilt for other use; rendered: what they gave. */
void chat_plans_learn(struct chat_plans *p, const struct chat_form *f,
                      const struct chat_template *t, const struct vocab *v, struct arena *a,
                      const struct chat_values *in, struct jv messages, struct str rendered);

#endif
