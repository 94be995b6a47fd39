/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How many tokens a prompt has: by the model's own template and vocabulary where they are
 * installed, else words (see llm_request_words()). Any thread.
 */
#ifndef COUNT_H
#define COUNT_H

#include "answer.h"
#include "tokenizer/models/models.h"

struct counter {
    struct models *models; /* NULL: only words */
};

/* The prompt's tokens. A request that the model's template refuses is ERR_INVALID. */
enum err count_prompt(const struct counter *c, struct str model, const struct llm_request *r,
                      int64_t now_s, uint64_t *ret, struct why *why) MUSTCHECK;

/* Cuts texts at the tokens of one model's vocabulary: ctx is a struct model_info with one. */
enum err count_split(void *ctx, struct str borrowed, struct text *ret) MUSTCHECK;
/* Does the model have a vocabulary? *ret is what is known of it. */
bool count_knows(const struct counter *c, struct str model, struct model_info *ret);

/* Sets the answer's totals to what the vocabulary says where pieces and tokens can differ (echoes,
 * tool calls, other vocabularies than those the texts are made for). ERR_NOMEM. */
enum err count_answer(const struct counter *c, struct str model, struct answer *a) MUSTCHECK;

#endif
