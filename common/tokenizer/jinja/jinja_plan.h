/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a template makes of texts that it hardly looks at.
 *
 * A rendering can be recorded: some of its strings are then *marked*, and what the output has of
 * them is noted as such, beside what is written around them. Where the template looks at a marked
 * string (is it empty, does it hold "</think>"), the question is noted with its answer. The plan
 * that results writes the output for other strings in the same places by copying, as long as all
 * questions have the same answers. Whatever else a template does with a marked string (cutting it
 * up, joining it with another into a variable, printing it as JSON) spoils the recording: there is
 * no plan then, and the template is rendered each time.
 *
 * Where what is made of the output is made of stretches of it one by one (such as the number of its
 * tokens, between tokens that stand apart from all text), a plan can be cut there: then it writes
 * only the stretches that differ from text to text.
 *
 * A record belongs to one thread; a plan is immutable, but for being cut.
 */
#ifndef TOKENIZER_JINJA_PLAN_H
#define TOKENIZER_JINJA_PLAN_H

#include "base/buf.h"
#include "tokenizer/jinja/jinja_value.h"

enum {
    JINJA_PLAN_GIVEN = 32,  /* marked strings */
    JINJA_PLAN_VALUES = 64, /* with those that were made of them */
    JINJA_PLAN_GUARDS = 64,
    JINJA_PLAN_PARTS = 160,
    JINJA_PLAN_STRETCHES = JINJA_PLAN_PARTS + 1,
    JINJA_PLAN_LITERALS = 32 << 10, /* bytes */
    JINJA_PLAN_WHOLE = 0xff,
};

struct jplan_text { /* among the literals */
    uint32_t at, n;
};

/* A given string, or one that is another without what stands at its ends. */
struct jplan_value {
    uint8_t of;    /* JINJA_PLAN_WHOLE: given */
    uint8_t which; /* 1 left, 2 right, 3 both */
    bool has_chars;
    struct jplan_text chars; /* what is stripped; otherwise white space */
};

enum jplan_question { JPLAN_NOT_EMPTY, JPLAN_HAS, JPLAN_STARTS, JPLAN_ENDS, JPLAN_IS };
struct jplan_guard {
    uint8_t question, value;
    bool yes;
    struct jplan_text with;
};

struct jplan_part {
    uint8_t value; /* JINJA_PLAN_WHOLE: a literal */
    bool ends;     /* in a plan that was cut: a stretch ends behind it */
    struct jplan_text text;
};

/* A recording; opaque but for its size. */
struct jinja_record {
    struct jplan_value values[JINJA_PLAN_VALUES];
    struct str texts[JINJA_PLAN_VALUES];
    struct jplan_guard guards[JINJA_PLAN_GUARDS];
    struct jplan_part parts[JINJA_PLAN_PARTS];
    uint32_t given, values_n, guards_n, parts_n;
    struct buf literals;
};

struct jinja_plan;

/* given (at most JINJA_PLAN_GIVEN) must outlive the recording. */
void jinja_record_init(struct jinja_record *rec, const struct str *given, size_t n);
void jinja_record_done(struct jinja_record *rec);
/* The value that stands for given[i] in the context of the recorded rendering. */
struct jv jinja_record_given(size_t i);
/* Behind a rendering that went well. NULL: out of memory. */
struct jinja_plan *jinja_record_plan(const struct jinja_record *rec) MUSTCHECK;

void jinja_plan_free(struct jinja_plan *p);
/* Appends what the template would make of given, as many strings as were recorded. ERR_AGAIN: it
 * looked at one of them, and would go another way; ERR_LIMIT, ERR_NOMEM: of out. */
enum err jinja_plan_write(const struct jinja_plan *p, const struct str *given,
                          struct buf *out) MUSTCHECK;

/* Tells where literals may be cut: what find() finds in one is left out, what is before it ends a
 * stretch, and what follows begins one. left_out() is told of it, and of each stretch that no given
 * string is part of; an error of its own ends the cutting. */
struct jplan_cutter {
    bool (*find)(void *ctx, struct str literal, size_t *ret_from, size_t *ret_to);
    enum err (*left_out)(void *ctx, struct str text);
    void *ctx;
};
/* Once, before the plan is used. On failure it is as it was. */
enum err jinja_plan_cut(struct jinja_plan *p, const struct jplan_cutter *c) MUSTCHECK;
/* As jinja_plan_write() of a plan that was cut: the stretches that are left, one behind the other;
 * ends[i]: where in out each of them ends. */
enum err jinja_plan_write_cut(const struct jinja_plan *p, const struct str *given, struct buf *out,
                              size_t ends[JINJA_PLAN_STRETCHES], size_t *ret_n) MUSTCHECK;

#endif
