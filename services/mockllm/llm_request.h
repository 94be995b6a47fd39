/* SPDX-License-Identifier: Apache-2.0 */
/* What a client asked: one form for the request bodies of all APIs that the mock speaks. Pure. */
#ifndef LLM_REQUEST_H
#define LLM_REQUEST_H

#include "rt/json.h"

enum api {
    API_CHAT,
    API_COMPLETIONS,
    API_EMBEDDINGS,
    API_MESSAGES,
    API_COUNT_TOKENS, /* Anthropic's */
    API_RESPONSES,
    API_MAX
};

enum { LLM_MAX_CHOICES = 128, LLM_MAX_INPUTS = 2048 };

struct llm_request {
    enum api api;
    struct json *root; /* owns everything below */
    struct str model, user;
    bool stream, include_usage;
    uint64_t n;          /* choices, at least 1; with several prompts: of all together */
    uint64_t max_tokens; /* UINT64_MAX: none given */
    uint64_t inputs;     /* texts of an embeddings request, prompts of completions */
    uint64_t dimensions; /* of embeddings */
    bool base64;         /* embeddings as base64 */
    bool tools, tool_forced;
    struct str tool_name; /* the one that is forced, else the first; p == NULL: none */
    struct str last_text; /* the last user message's (first) text, for echoes and seeds */
};

/* Reads a body; done with llm_request_done() if ERR_OK. ERR_INVALID: why is for the client. */
enum err llm_request_parse(enum api api, struct str body, struct llm_request *ret,
                           struct why *why) MUSTCHECK;
void llm_request_done(struct llm_request *r);

/* Calls fn with each text of the prompt (messages, system, prompts, inputs) and its role ("" when
 * it has none), in order; ids counts prompts given as token ids. */
typedef void (*llm_text_fn)(void *ctx, struct str role, struct str text);
void llm_request_texts(const struct llm_request *r, llm_text_fn fn, void *ctx, uint64_t *ret_ids);

/* The stand-in count where no vocabulary is there: words, single CJK characters and punctuation
 * marks, and 4 for each message. */
uint64_t llm_request_words(const struct llm_request *r);
uint64_t count_words(struct str s);

#endif
