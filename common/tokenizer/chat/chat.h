/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a chat request costs: the messages as the model's own template renders them, counted.
 *
 * A struct chat_template is made once per vocabulary and immutable: all threads share it. A count
 * makes its values in an arena of its own, or in one that the caller lends.
 *
 * Normalisation. Before a template sees a request it is put into the form in which a serving engine
 * (vLLM) hands it to the same template, because that is what the model will be given:
 *  - Of a message there remain, in this order, `role`, `content`; of an assistant's `tool_calls`
 *    (unless null or empty), `reasoning` and `reasoning_content` (both, from either); of a tool's
 *    `tool_call_id`; `name` if it is a string; of a developer's `tools`. All else is left out.
 *  - `content` that is null or absent becomes "".
 *  - `content` that is a list of parts: the texts of its text parts (`text`, `input_text`,
 *    `output_text`, `refusal`, `thinking`, or a bare string) are joined by "\n". When the template
 *    itself walks over parts, every content, but a tool's, is a list of {"type": "text", "text":
 * ...} and {"type": "image"}, "audio", "video", also when it was a string.
 *  - Images are counted by a rule (images.h), added to what the template prints; other parts that
 *    are no text are not counted. In both cases the answer is not exact and says so.
 *  - `tool_calls[].function.arguments` that is a string becomes the JSON value it holds, {} when it
 *    is empty or null; a string that is no JSON stays, with a warning. A template that fails on
 *    objects but works with strings (tried when it is loaded) is given the strings.
 *  - Of a tool there come first `type` ("function" when it has none), then `function` with `name`,
 *    `description`, `parameters`, each none when it is absent; then whatever else it has.
 *  - `tools` and `documents` that are absent are none; every special token that the model defines
 *    (bos_token, eos_token, ...) is there under its name; `add_generation_prompt` is true unless
 *    the request says otherwise; members of `chat_template_kwargs` come on top, but never replace
 *    `messages`, `tools`, `documents` or `add_generation_prompt`.
 *  - Numbers stay as Python would print them, and keys of objects in their order.
 * Strings of special tokens inside a user's text become the tokens themselves, as they do at a
 * server that tokenizes the rendered text.
 */
#ifndef TOKENIZER_CHAT_H
#define TOKENIZER_CHAT_H

#include "base/arena.h"
#include "base/buf.h"
#include "tokenizer/jinja/jinja_value.h"
#include "tokenizer/tokenizer.h"

struct chat_template;

/* Compiles the templates that v carries and tries what they do with tools. ERR_NOT_FOUND: v has
 * none; ERR_INVALID, ERR_UNSUPPORTED: it does not compile, why says where; ERR_NOMEM. */
enum err chat_template_new(const struct vocab *v, struct chat_template **ret,
                           struct why *why) MUSTCHECK;
/* The same from a source. `config` gives the special tokens, may be NULL. */
enum err chat_template_new_source(struct str source, const struct vocab *config,
                                  struct chat_template **ret, struct why *why) MUSTCHECK;
void chat_template_free(struct chat_template *t);
/* SHA-256 of the template's source as 64 hex digits. */
struct str chat_template_digest(const struct chat_template *t);

enum chat_method {
    CHAT_TEMPLATE, /* the model's template, its vocabulary */
    CHAT_OPENAI,   /* OpenAI's documented rule over its vocabulary: their template is not public */
    CHAT_TEXT,     /* a text; or the texts of a chat for a model that has no template */
    CHAT_ESTIMATE, /* no vocabulary is known */
};
const char *chat_method_name(enum chat_method m); /* "template", "openai_rule", ... */

/* What is known about how a model counts (models.h finds it by name). Borrowed: lives as long as
 * the registry that gave it. */
struct model_info {
    struct vocab *vocab;              /* NULL: none; then everything is an estimate */
    const struct chat_template *chat; /* NULL: none */
    struct str vocabulary;            /* its name; "" when it is none */
    bool openai;                      /* chats without a template follow OpenAI's rule */
    bool sibling;          /* the template is that of a close relative, the vocabulary fits */
    bool guess;            /* the name only suggests the vocabulary: never exact */
    bool not_installed;    /* the model is known, but its vocabulary `vocabulary` is not loaded */
    struct str image_rule; /* what an image costs (images.h); p = NULL: as for unknown models */
};

enum { CHAT_MAX_WARNINGS = 6, CHAT_WARNING_LEN = 160 };

struct chat_count {
    uint64_t tokens;
    bool exact; /* the number of tokens the model is given, not an estimate of it */
    enum chat_method method;
    struct str vocabulary;      /* borrowed from the model_info; "" for an estimate */
    struct str template_digest; /* p = NULL when no template took part */
    unsigned warnings_n;
    char warnings[CHAT_MAX_WARNINGS][CHAT_WARNING_LEN];
};

struct chat_error {
    char param[64]; /* the field that is wrong, such as "messages[2].role"; "" when none is */
    bool raised;    /* the template itself refused: why holds its own words */
    struct why why;
};

/* What to count, as values (of the arena or older). */
struct chat_values {
    struct jv messages; /* a list of objects */
    struct jv tools;    /* a list; undefined or none when there are none */
    struct jv kwargs;   /* a dict: chat_template_kwargs; undefined when there are none */
    struct jv documents;
    bool no_generation_prompt;
    int64_t now;             /* seconds since 1970, for templates that print the date (UTC) */
    struct buf *rendered;    /* NULL, or where the rendered text goes as well */
    struct token_list *to;   /* NULL, or where the ids go as well */
    const struct stop *stop; /* NULL, or asked now and then: ERR_CLOSED */
};

/*
 * Counts a chat. a: scratch, not reset. ERR_INVALID: the request is wrong or the template refused
 * (error says; 400 for a client); ERR_LIMIT: too large to render within bounds; ERR_NOMEM.
 * error may be NULL.
 */
enum err chat_count_values(const struct model_info *m, const struct chat_values *in,
                           struct arena *a, struct chat_count *ret,
                           struct chat_error *error) MUSTCHECK;

/* Memory that counts use again and again, so that a count allocates nothing. One owner thread. */
struct chat_scratch;
struct chat_scratch *chat_scratch_new(void) MUSTCHECK;
void chat_scratch_free(struct chat_scratch *s);

/* The same from slices of a request's body: JSON texts as the client sent them; p = NULL where
 * there is none. */
enum { CHAT_PLAIN_MAX = 32 };
struct chat_message { /* JSON strings, with their quotes */
    struct str role, content;
};
struct chat_slices {
    struct str messages, tools, kwargs;
    /* The messages once more, by those who have found already that each is nothing but a role and a
     * content, both strings. plain_n = 0: it is not known. */
    const struct chat_message *plain;
    size_t plain_n;
    bool no_generation_prompt;
    int64_t now;
    struct chat_scratch *scratch; /* or NULL: memory is got and given back for this count alone */
    const struct stop *stop;      /* NULL, or asked now and then: ERR_CLOSED */
};
enum err chat_count(const struct model_info *m, const struct chat_slices *in,
                    struct chat_count *ret, struct chat_error *error) MUSTCHECK;

/* Counts a text (a completion's prompt, an answer): nothing is put before or behind it. */
enum err chat_count_text(const struct model_info *m, struct str text, enum special_mode special,
                         struct token_list *to, struct chat_count *ret) MUSTCHECK;
/* The same, given up with ERR_CLOSED soon after stop (may be NULL) says so. */
enum err chat_count_text_until(const struct model_info *m, struct str text,
                               enum special_mode special, struct token_list *to,
                               const struct stop *stop, struct chat_count *ret) MUSTCHECK;

/* Adds to c's warnings; beyond CHAT_MAX_WARNINGS they are dropped. */
void chat_warn(struct chat_count *c, const char *fmt, ...) PRINTF_LIKE(2, 3);

#endif
