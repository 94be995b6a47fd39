/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Asking for a token count: the request and answer of `token.count` on the bus (edge -> token), and
 * the same members in the bodies of the token service's HTTP API and of aigw-count's lines.
 *
 *   request  {"v","id","ts","from","model","messages":[...]|"text":"...","tools"?:[...],
 *             "add_generation_prompt"?:bool,"chat_template_kwargs"?:{...},"documents"?:[...],
 *             "special"?:"text"|"control","timeout_ms"?:how long the asker waits from when it is
 * read} answer   {"v","id","ts","from","model","tokens","exact","method","vocabulary",
 *             "template_digest"?,"warnings"?:[...]}
 *            or {"v","id","ts","from","error":{"code","message","param"?,"raised"?}}
 *
 * `messages`, `tools` and `chat_template_kwargs` are what a client sent, byte for byte: an edge
 * puts slices of the client's body into the message. So this codec does not go through cJSON, which
 * would turn numbers into doubles. At most TOKEN_MSG_MAX bytes.
 */
#ifndef PROTO_TOKEN_MSG_H
#define PROTO_TOKEN_MSG_H

#include "base/clock.h"
#include "rt/json.h"
#include "tokenizer/chat/chat.h"

enum { TOKEN_MSG_MAX = 512 * 1024, TOKEN_MSG_MODEL_MAX = 256, TOKEN_MSG_TIMEOUT_MAX_MS = 600000 };

/* What is to be counted; the values belong to the arena it was read into, or borrow the text. */
struct token_request {
    struct str model; /* p = NULL when the request names none */
    bool is_text;     /* count `text`; else `chat` */
    struct str text;
    enum special_mode special; /* of a text: SPECIAL_TEXT unless asked for */
    struct chat_values chat;   /* now, rendered, to and stop are the caller's to set */
    uint64_t timeout_ms; /* of a message: after that nobody waits for the answer; 0: not said */
};

/* Reads a request out of an object; members that it does not know are ignored. ERR_INVALID with the
 * field in error. */
enum err token_request_read(struct arena *a, struct jv object, struct token_request *ret,
                            struct chat_error *error) MUSTCHECK;
/* Counts it with what is known of its model. */
enum err token_request_count(const struct token_request *q, const struct model_info *m,
                             struct arena *a, struct chat_count *ret,
                             struct chat_error *error) MUSTCHECK;

/* Appends the members "model" to "warnings" of an answer, without braces. */
enum err token_count_members(struct buf *out, struct str model,
                             const struct chat_count *c) MUSTCHECK;

/* --- the bus --- */

/* JSON texts as a client sent them; p = NULL where there is none. One of messages and text. */
struct token_slices {
    struct str model;
    struct str messages, tools, kwargs, documents;
    struct str text; /* not JSON: the text itself */
    bool no_generation_prompt;
    unsigned timeout_ms; /* how long the answer is waited for; 0: not said */
};
/* Appends the request. ERR_LIMIT when it would be larger than TOKEN_MSG_MAX, ERR_NOMEM. */
enum err token_msg_request(struct buf *out, const struct clock *clock, const struct rng *rng,
                           const char *from, const struct token_slices *s) MUSTCHECK;
/* ERR_UNSUPPORTED: another version; ERR_INVALID, ERR_LIMIT, ERR_NOMEM. */
enum err token_msg_request_parse(struct arena *a, struct str data, struct token_request *ret,
                                 struct chat_error *error) MUSTCHECK;

enum err token_msg_answer(struct buf *out, const struct clock *clock, const struct rng *rng,
                          const char *from, struct str model, const struct chat_count *c) MUSTCHECK;
enum err token_msg_error(struct buf *out, const struct clock *clock, const struct rng *rng,
                         const char *from, enum err code, const struct chat_error *error) MUSTCHECK;

/* What an edge learns from the answer. */
struct token_answer {
    uint64_t tokens;
    bool exact;
    enum chat_method method;
    char vocabulary[64];
};
/* The error's own code when the answer is an error (error says what: param, raised, words);
 * ERR_INVALID or ERR_UNSUPPORTED with an empty param when it is no answer. */
enum err token_msg_answer_parse(struct str data, struct token_answer *ret,
                                struct chat_error *error) MUSTCHECK;

#endif
