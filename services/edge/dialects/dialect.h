/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an API's bodies, streams and errors look like. One table of functions per dialect; all pure.
 * Slices point into the text that was parsed.
 */
#ifndef EDGE_DIALECT_H
#define EDGE_DIALECT_H

#include "base/buf.h"
#include "json_scan.h"
#include "proto/snapshot.h"

/* --- requests --- */

enum { MAX_OUTPUT_PARAMS = 3 };

/* What the gateway needs to know of a request's body. Values are absent (raw.p == NULL) when the
 * body lacks them. */
struct request_scan {
    struct js_val root, model, messages, prompt, input, tools, system, stream_options,
        include_usage;
    struct js_val generation_prompt, template_kwargs, user;
    struct js_val instructions; /* Responses: what stands before its input */
    bool context_elsewhere;     /* Responses: the server adds what the request does not hold */
    struct js_val max_output[MAX_OUTPUT_PARAMS]; /* every parameter that bounds the output, in the
                                                    dialect's order */
    bool stream, wants_usage;
    uint64_t max_tokens; /* of a choice: the largest of max_output; 0: none given */
    uint64_t choices; /* texts that the model writes: prompts times the larger of n and best_of */
};

/* --- answers --- */

enum delta_kind { DELTA_CONTENT, DELTA_REASONING, DELTA_REFUSAL, DELTA_TOOL };

enum { CHUNK_FEW_DELTAS = 64, CHUNK_MAX_DELTAS = 65536, CHUNK_MAX_CHOICES = 32 };

enum delta_form {
    DELTA_PIECE,  /* goes on where the text's last piece ended */
    DELTA_SO_FAR, /* the whole text from its beginning: what is new of it is counted */
    DELTA_WHOLE,  /* the same, and the text ends with it */
    DELTA_OBJECT, /* a JSON value instead of a string: its bytes count, and a cut takes all of it */
    DELTA_MIRROR  /* the same text once more, under another name: not counted again */
};

/* A piece of text of one of the answer's texts. */
struct delta {
    enum delta_kind kind;
    enum delta_form form;
    uint32_t choice, item; /* choice index; tool call or content block index */
    uint32_t of;           /* a mirror: index of the delta that it repeats */
    struct js_val text;
};

struct reported_usage {
    bool present;
    uint64_t input, output, cached, reasoning;
};

/* What one event of a stream, or a whole answer, holds. Between chunk_init() and chunk_done(). */
struct chunk {
    bool is_done, is_error, usage_only;
    bool uncountable; /* it holds output that is no text, such as sound */
    struct delta *deltas;
    size_t deltas_n, deltas_cap;
    struct delta few[CHUNK_FEW_DELTAS]; /* deltas, as long as they fit */
    struct {
        uint32_t index;
        bool finished;
        struct js_val finish_reason, logprobs; /* for splices at a cut */
    } choices[CHUNK_MAX_CHOICES];
    size_t choices_n;
    bool block_started, block_stopped; /* Anthropic: a content block began, or ended */
    uint32_t block;
    struct js_val incomplete_details; /* Responses: of a whole answer */
    bool has_sequence;                /* Responses: the event's number */
    uint64_t sequence;
    struct js_val sequence_at;
    struct js_val padding;   /* a string that means nothing, and differs from event to event */
    struct js_val usage;     /* an object or null */
    struct str usage_member; /* "usage":… with the comma that goes with it */
    struct js_val completion_tokens, total_tokens; /* of usage */
    struct reported_usage reported;
};

/* What a stream's ending is made of. */
struct ending {
    struct str id, object, created,
        model; /* raw JSON of the last event that had them; p == NULL: none */
    const struct chunk *last;
    uint32_t open_choices[CHUNK_MAX_CHOICES];
    size_t open_n;
    bool block_open; /* Anthropic: a content block is open */
    uint32_t block;
    bool want_usage;
    uint64_t input_tokens, output_tokens, reasoning_tokens;
    struct transcript *transcript; /* of a dialect that keeps one; NULL: there was no memory */
};

/* Why the gateway itself answers: the rows of the error table. */
enum refusal {
    REFUSE_BAD_KEY,
    REFUSE_FORBIDDEN,
    REFUSE_NO_ROUTE,
    REFUSE_NO_MODEL,
    REFUSE_BAD_BODY,
    REFUSE_CONTEXT_LENGTH,
    REFUSE_BODY_TOO_LARGE,
    REFUSE_REQUESTS,
    REFUSE_TOKENS,
    REFUSE_CONCURRENCY,
    REFUSE_QUOTA,
    REFUSE_NO_UPSTREAM,
    REFUSE_UPSTREAM_LIMIT,
    REFUSE_LIMITER_AWAY,
    REFUSE_OVERLOADED,
    REFUSE_DRAINING,
    REFUSE_UPSTREAM_BROKE,
    REFUSE_UPSTREAM_DENIED,
    REFUSE_UPSTREAM_TIMEOUT,
    REFUSE_METHOD,
    REFUSE_CLIENT_TIMEOUT,
    REFUSE_MEDIA_TYPE,
    REFUSE_HEAD_TOO_LARGE,
    REFUSE_UNKNOWN_CODING,
    REFUSE_BAD_REQUEST,
    REFUSE_INTERNAL,
    REFUSE_MAX
};
int refusal_status(enum refusal r);

struct dialect {
    /* Reads a request's body. ERR_INVALID: why, and the parameter's name in *ret_param (a literal).
     */
    enum err (*scan_request)(enum snap_endpoint ep, struct js_val root, struct request_scan *ret,
                             const char **ret_param, struct why *why);
    /* Reads an event (name may be p == NULL). ERR_INVALID: not what the dialect sends; pass it on
     * as it is. */
    enum err (*parse_event)(struct str name, struct str data, struct chunk *ret);
    /* Reads a whole answer. */
    enum err (*parse_answer)(struct js_val root, struct chunk *ret);
    /* Appends the events that end a stream which was cut. */
    enum err (*write_ending)(const struct ending *e, struct buf *out);
    /* Appends the event that tells of an error inside a stream. sequence: the number that the next
     * event has, where events have numbers. */
    enum err (*write_error_event)(enum refusal r, struct str message, struct str request_id,
                                  uint64_t sequence, struct buf *out);
    /* Appends the body of a refusal. param may be NULL. */
    enum err (*write_error)(enum refusal r, struct str message, const char *param,
                            struct str request_id, struct buf *out);
    const char
        *max_output_param;     /* what to insert when the request bounds nothing; NULL: nothing */
    uint64_t max_output_least; /* the least that servers take for it */
    struct str length_reason;  /* the finish reason of a cut answer, as JSON */
    bool keeps_transcript;     /* an ending repeats what went before it: transcript.h */
};

extern const struct dialect dialect_openai, dialect_responses, dialect_anthropic;

/* Of an endpoint that is not AUTO; and what AUTO means for a path. */
const struct dialect *dialect_of(enum snap_endpoint ep);
enum snap_endpoint endpoint_of_path(struct str path);
/* Of errors on that path: that of its endpoint, also where the body is passed through. */
const struct dialect *dialect_of_path(struct str path);
/* Whether the endpoint's answers are text whose tokens are counted. */
bool endpoint_is_metered(enum snap_endpoint ep);

/* --- for the dialects' own files --- */

/* Reads the integer parameter v named name into the scan; what is no positive whole number is
 * refused. */
enum err scan_positive(struct js_val v, const char *name, uint64_t *ret, const char **ret_param,
                       struct why *why) MUSTCHECK;
/* A key that only differs from a known one by the case of its letters: some servers take it for
 * that one, and would read another request than we did. */
enum err scan_spelling(struct str key, const char *name, const char **ret_param,
                       struct why *why) MUSTCHECK;
void chunk_init(struct chunk *c);
void chunk_done(struct chunk *c);
void chunk_clear(struct chunk *c); /* what was found is forgotten */
/* Adds a piece; what is no string, or empty, adds nothing. False: too many, or no memory. */
bool chunk_add_delta(struct chunk *c, enum delta_kind kind, uint64_t choice, uint64_t item,
                     struct js_val text);
bool chunk_add_form(struct chunk *c, enum delta_form form, enum delta_kind kind, uint64_t item,
                    struct js_val text);
/* The members of a request that are looked at; offsets into struct request_scan, whose values are
 * absent. Each at most once, spelled as it is. */
struct scan_member {
    const char *name;
    size_t name_n, offset;
};
enum err scan_members(struct js_val root, const struct scan_member *members, size_t n, void *into,
                      const char **ret_param, struct why *why) MUSTCHECK;
/* ERR_INVALID with the parameter and why, unless ok. */
enum err scan_want(bool ok, const char *name, const char *what, const char **ret_param,
                   struct why *why) MUSTCHECK;

#endif
