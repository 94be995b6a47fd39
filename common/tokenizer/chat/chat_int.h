/* SPDX-License-Identifier: Apache-2.0 */
/* Inside of chat counting: what chat.c, chat_normal.c, chat_template.c and chat_rule.c share. */
#ifndef TOKENIZER_CHAT_INT_H
#define TOKENIZER_CHAT_INT_H

#include "tokenizer/chat/chat.h"
#include "tokenizer/chat/images.h"
#include "tokenizer/jinja/jinja.h"

struct chat_template {
    struct jinja *usual, *with_tools; /* with_tools: NULL when there is one template only */
    char digest[65];
    unsigned char identity[32]; /* of all that its output depends on beside the request */
    struct jv *specials;        /* pairs of name and text, in `arena` */
    size_t specials_n;
    struct arena arena;
    /* Found out by trying: */
    bool keeps_parts;         /* walks over the parts of a content */
    bool wants_argument_text; /* fails on tool call arguments that are objects */
    bool shows_tools, shows_calls;
};

enum {
    CHAT_MAX_MESSAGES = 65536,
    CHAT_RENDER_MAX = 64 << 20, /* bytes of a rendered text */
};

/* What normalising found. */
struct chat_found {
    uint32_t images;
    uint32_t other_parts;   /* parts that are neither text nor image: audio, files */
    uint32_t bad_arguments; /* tool call arguments that are no JSON */
    bool has_calls;
};

struct chat_normal {
    bool keep_parts, keep_argument_text;
};

/* The messages in the form that templates take. */
enum err chat_normalise(struct arena *a, struct jv messages, const struct chat_normal *how,
                        struct jv *ret, struct chat_found *found, struct chat_error *error);
/* The tools in that form: type, function with name, description and parameters, none where there
 * is none. */
enum err chat_normalise_tools(struct arena *a, struct jv tools, struct jv *ret) MUSTCHECK;
bool chat_is_image(struct jv part);

/* What the images of a request cost by a line of the image rules. */
struct chat_images {
    uint64_t tokens;
    uint32_t n, assumed; /* how many there are, and of how many the size is not known */
    struct image_size assume;
};
enum err chat_images_count(struct str rule_line, struct jv messages, struct chat_images *ret,
                           struct why *why) MUSTCHECK;

/* Renders normalised messages into sink. */
enum err chat_render(const struct chat_template *t, struct arena *a, const struct chat_values *in,
                     struct jv messages, jinja_sink_fn *sink, void *sink_ctx, bool *ret_used_clock,
                     struct chat_error *error) MUSTCHECK;

/* Renders what has marked strings (jinja_plan.h), only to record it. ERR_UNSUPPORTED: spoilt. */
enum err chat_record(const struct chat_template *t, struct arena *a, const struct chat_values *in,
                     struct jv messages, struct jinja_record *rec) MUSTCHECK;

/* OpenAI's rule, and the two ways without any template; messages are normalised. */
enum err chat_rule_openai(const struct model_info *m, const struct chat_values *in,
                          struct jv messages, struct arena *a, struct chat_count *c) MUSTCHECK;
enum err chat_rule_texts(const struct model_info *m, const struct chat_values *in,
                         struct jv messages, struct arena *a, struct chat_count *c) MUSTCHECK;

enum err chat_fail(struct chat_error *error, enum err e, const char *param, const char *fmt, ...)
    PRINTF_LIKE(4, 5);

#endif
