/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A bounded interpreter for the Jinja that chat templates are written in.
 *
 * A template is compiled once into an immutable tree (`struct jinja`), which any number of threads
 * may render at once; everything a rendering makes lives in the arena that the caller hands over.
 * Output goes to a sink, so that it can be counted without being held.
 *
 * The dialect is what Hugging Face's `apply_chat_template` sets up: trim_blocks and lstrip_blocks
 * on, loop controls, an immutable sandbox (no mutating methods), tojson as Python's json.dumps with
 * ensure_ascii=False, `raise_exception` and `strftime_now`. Semantics are those of Jinja2 3.1 on
 * Python 3: how a value prints, what an undefined name does, what is true, scoping of `set`.
 * Not there: include, import, extends, block, autoescape, i18n; they are refused when compiling.
 * upper, lower and title map the letters of ASCII, Latin-1, Greek and Cyrillic only.
 *
 * Templates and values are both input: steps, depth, memory and output are bounded.
 */
#ifndef TOKENIZER_JINJA_H
#define TOKENIZER_JINJA_H

#include "base/arena.h"
#include "base/err.h"
#include "base/stop.h"
#include "base/str.h"
#include "tokenizer/jinja/jinja_plan.h"
#include "tokenizer/jinja/jinja_value.h"

struct jinja; /* a compiled template: immutable, shared between threads */

enum {
    JINJA_MAX_SOURCE = 1 << 20, /* bytes of a template */
    JINJA_MAX_DEPTH = 200,      /* nesting of expressions, blocks and macro calls */
};

struct jinja_limits {
    uint64_t steps;  /* tree nodes visited, plus one per 64 bytes copied or compared */
    uint64_t output; /* bytes */
};
#define JINJA_LIMITS_DEFAULT ((struct jinja_limits){ 4u << 20, 64u << 20 })

/* Takes the next bytes of the output (borrowed until it returns). Not ERR_OK ends the rendering
 * with that error. */
typedef enum err jinja_sink_fn(void *ctx, const char *p, size_t n);

/* What a rendering is given and what it says besides its output. */
struct jinja_run {
    struct jv context;          /* a dict: messages, tools, bos_token ... */
    int64_t now;                /* seconds since 1970; strftime_now prints it in UTC */
    struct jinja_limits limits; /* 0 in a field: the default */
    jinja_sink_fn *sink;
    void *sink_ctx;
    const struct stop *stop; /* NULL, or asked now and then: ERR_CLOSED */
    /* NULL, or the recording: `sink` gets nothing then. ERR_UNSUPPORTED: it was spoilt. */
    struct jinja_record *record;
    /* Out: */
    bool used_clock;      /* strftime_now was called: the output depends on the day */
    bool template_raised; /* the template itself called raise_exception; why holds its message */
};

/* Compiles source (copied). ERR_INVALID with line and reason, ERR_UNSUPPORTED for a statement or
 * filter that is not there, ERR_LIMIT, ERR_NOMEM. */
enum err jinja_compile(struct str source, struct jinja **ret, struct why *why) MUSTCHECK;
void jinja_free(struct jinja *t);

/* Renders t with run->context. a holds what is made on the way: the caller resets it.
 * ERR_INVALID: the template refused or failed (why says; run->template_raised tells which),
 * ERR_LIMIT: a bound was passed, ERR_NOMEM: the arena's budget is out, ERR_CLOSED: run->stop said
 * so, or what the sink returned.
 * On failure part of the output may have reached the sink already. */
enum err jinja_render(const struct jinja *t, struct arena *a, struct jinja_run *run,
                      struct why *why) MUSTCHECK;

/* Does the template mention a variable of that name (in the context)? */
bool jinja_uses(const struct jinja *t, struct str name);
/* Does a loop of the template walk over the `content` of a message, that is: does it take content
 * as a list of parts? */
bool jinja_loops_over_content(const struct jinja *t);

#endif
