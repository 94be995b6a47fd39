/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An answer of the mock: decided at once (how many tokens, which texts), then written as one body
 * or event by event. Each API has its own writer behind struct answer_api. Pure: time and sockets
 * are the caller's affair.
 */
#ifndef ANSWER_H
#define ANSWER_H

#include "behave.h"
#include "llm_request.h"
#include "text.h"

/* A choice is up to three texts, one after the other. */
enum part_kind { PART_REASONING, PART_CONTENT, PART_TOOL, PART_MAX };

struct choice {
    struct text parts[PART_MAX];
    struct buf tool_args; /* the text behind parts[PART_TOOL] */
    uint64_t len;         /* pieces of all parts */
    const char *finish;   /* OpenAI's word: stop, length, tool_calls, or what was asked for */
};

struct event_info {
    uint32_t tokens; /* that it carries */
    bool last;       /* the one that says that the stream is complete */
};

struct answer {
    const struct answer_api *api_fns;
    enum api api;
    const struct behave *behave; /* borrowed, as long as the answer */
    bool stream, send_usage;
    char id[40];
    uint64_t created_s;
    struct buf model; /* JSON string */
    char tool_name[64];
    struct choice *choices;
    size_t choices_len;
    uint64_t prompt_tokens;
    uint64_t completion_tokens, reasoning_tokens; /* of the whole answer, all choices */
    uint64_t embeddings, dimensions;
    bool base64;
    struct buf said; /* the text of copies, if any */
    bool has_said;
    const struct splitter *splitter; /* while it is made */

    /* Where the stream is. */
    unsigned phase;
    size_t at_choice;
    uint64_t at_piece;   /* of every choice: they advance together */
    unsigned open_parts; /* Anthropic, Responses: blocks that were begun, as a bit set */
    uint64_t sequence;   /* Responses: numbers of events */
    uint64_t sent_tokens;
    struct buf json; /* the event's data while it is made */
};

struct answer_api {
    /* Makes the next event with sse_event(). ERR_NOT_FOUND when there is none. */
    enum err (*next)(struct answer *a, struct buf *out, struct event_info *ret) MUSTCHECK;
    enum err (*whole)(struct answer *a, struct buf *out) MUSTCHECK;
    enum err (*error_event)(struct answer *a, struct buf *out) MUSTCHECK;
};

/* Cuts a text into pieces of one token each as far as it can; NULL: text_copy(). */
struct splitter {
    enum err (*split)(void *ctx, struct str borrowed, struct text *ret);
    void *ctx;
};

/* said: the text of every choice, in place of one of our own; p == NULL: none. It is copied.
 * ERR_NOMEM, ERR_LIMIT. */
enum err answer_init(struct answer *a, const struct llm_request *r, const struct behave *b,
                     uint64_t prompt_tokens, uint64_t wall_ns, uint64_t serial, struct str said,
                     const struct splitter *splitter) MUSTCHECK;
void answer_done(struct answer *a);

/* Does the next event carry tokens, and so has to wait for its time? */
bool answer_at_token(const struct answer *a);
enum err answer_next(struct answer *a, struct buf *out, struct event_info *ret) MUSTCHECK;
enum err answer_whole(struct answer *a, struct buf *out) MUSTCHECK;
enum err answer_error_event(struct answer *a, struct buf *out) MUSTCHECK;

/* An error body in the form of the API. */
enum err answer_error(enum api api, int status, const char *message, struct buf *out) MUSTCHECK;

/* --- for the writers --- */

/* One event: name p == NULL for none; in the style that b asks for. */
enum err sse_event(struct buf *out, const struct behave *b, struct str name,
                   struct str data) MUSTCHECK;

/* Up to per_event pieces of one part of a->at_choice, from a->at_piece on, appended to out as a
 * JSON string. */
enum err answer_take(struct answer *a, struct buf *out, enum part_kind *ret_part,
                     uint32_t *ret_tokens) MUSTCHECK;
/* The part that piece `at` of choice c belongs to. */
enum part_kind answer_part(const struct choice *c, uint64_t at);
/* A whole part as a JSON string. */
enum err answer_part_json(struct buf *out, const struct text *t) MUSTCHECK;
/* Moves to the next choice that still has pieces, or to the next piece of all. */
void answer_advance(struct answer *a);
/* Figures that the answer claims. */
void answer_usage(const struct answer *a, uint64_t *ret_prompt, uint64_t *ret_completion);

extern const struct answer_api answer_chat, answer_completions, answer_embeddings, answer_messages,
    answer_count_tokens, answer_responses;

#endif
