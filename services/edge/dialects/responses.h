/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a text of OpenAI's Responses is called in the events and objects of that API. Shared by
 * dialect_responses.c, which reads them, and transcript.c, which ends them. Constant.
 */
#ifndef EDGE_RESPONSES_H
#define EDGE_RESPONSES_H

#include "dialect.h"

enum responses_text {
    RT_OUTPUT,
    RT_REFUSAL,
    RT_REASONING,
    RT_SUMMARY,
    RT_FUNCTION,
    RT_CUSTOM,
    RT_MCP,
    RT_CODE,
    RT_MAX
};

struct responses_text_kind {
    const char *stem;      /* response.STEM.delta, response.STEM.done */
    const char *member;    /* the whole text, in the done event, in its part or its item */
    const char *index;     /* which part of the item; NULL: the item has but one text */
    const char *list;      /* the item's member that holds the parts; NULL: as above */
    const char *part_stem; /* response.PART_STEM.added, .done; NULL: as above */
    const char *type;      /* of the part, or of the item that has but one text */
    enum delta_kind kind;
};
extern const struct responses_text_kind responses_texts[RT_MAX];

/* A text's place in its answer as one number, which delta.item is. ERR_INVALID: beyond what any
 * server sends. */
enum { RT_MAX_ITEMS = 65536, RT_MAX_PARTS = 2048 };
enum err responses_place(enum responses_text t, uint64_t output_index, uint64_t part_index,
                         uint32_t *ret) MUSTCHECK;
/* The other way round. */
enum responses_text responses_at(uint32_t place, uint64_t *ret_output_index,
                                 uint64_t *ret_part_index);
/* The text that an event tells of by its type ("response.output_text.delta"): its kind, and what
 * stands behind the stem ("delta"). RT_MAX: of no text. */
enum responses_text responses_text_of(struct str type, struct str *ret_what);
/* A string's bytes between its quotes; p == NULL when it is none. */
struct str responses_word(struct js_val v);
/* 0 when it is no such number. */
uint64_t responses_index(struct js_val root, const char *name);

#endif
