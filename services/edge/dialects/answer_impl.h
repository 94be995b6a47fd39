/* SPDX-License-Identifier: Apache-2.0 */
/* The inside of an answer, shared by answer.c (events), answer_whole.c (answers that are no
 * streams), answer_texts.c (texts and their meters), answer_forms.c (events known by their form)
 * and answer_write.c (what goes to the client). */
#ifndef EDGE_ANSWER_IMPL_H
#define EDGE_ANSWER_IMPL_H

#include "answer.h"
#include "base/list.h"
#include "splice.h"
#include "sse.h"
#include "transcript.h"

struct text {
    enum delta_kind kind;
    uint32_t choice, item;
    struct token_meter *meter; /* NULL: it needed none yet */
    uint64_t count;            /* of the meter, when last asked, and of those before it */
    bool finished;
    /* What came before an end that was none, and the text went on with another meter; or all of it,
     * that was counted as a whole. */
    uint64_t before_bytes, before_tokens;
};

/* Where a delta lies in its text. */
struct mark {
    uint16_t text;
    uint64_t start, end;
};

/* An event that waits: its bytes, and what of which text it brings. */
struct held {
    struct list_node node;
    size_t raw_n, data_at, data_n, name_at, name_n; /* in bytes */
    bool has_data, has_name, hide;
    char *bytes; /* behind the marks */
    size_t marks_n;
    struct mark marks[];
};

struct forms; /* answer_forms.c */

struct answer {
    struct answer_options o;
    struct sse sse;
    struct text *texts;
    size_t texts_n, texts_cap;
    struct list_node queue; /* events that were taken and are not decided */
    struct list_node unfed; /* events behind the allowance, not taken yet */
    size_t held_bytes;      /* of both */
    uint64_t wants;         /* the allowance that the first of the unfed needs */
    uint64_t written;       /* tokens of what was passed on, while the allowance holds back */
    bool over, stopped;     /* the queue is beyond the allowance; it ended at what was written */
    bool asked;             /* in this call, and there was no more */
    struct buf scratch;     /* decoded text of a delta */
    struct forms *forms;    /* of events that were read; NULL: none yet */
    bool alike;             /* one came whose form is worth keeping, if there is another */
    struct chunk *chunk;    /* during a call, on its stack: streams that are idle are small */
    struct buf *out;        /* during a call */

    enum answer_state state;
    bool error, uncounted, opened, begun, error_first;
    uint32_t seen_choices, finished_choices; /* bit sets */
    bool at_end;                   /* the upstream's body ended: a last event may be torn */
    uint64_t sequence;             /* of the next event */
    uint64_t before_whole;         /* tokens before the last event with whole texts in it */
    struct transcript *transcript; /* when a cut may come, and its ending repeats things */
    bool block_open;
    uint32_t block;
    struct reported_usage reported;
    struct str id, object, created, model; /* raw JSON of the stream's head members */
    char *heads;                           /* their memory; NULL: not there yet */
};

/* --- answer.c --- */

/* Whether the allowance is so much; asks for more if not. */
bool answer_has_allowance(struct answer *a, uint64_t wants);
/* After text was fed: is it beyond the allowance? */
void answer_weigh(struct answer *a);
/* Takes over what the upstream reports of usage, as far as it can be true. */
void answer_note_usage(struct answer *a, const struct reported_usage *r);

/* --- answer_texts.c --- */

enum { MARKS_FEW = CHUNK_FEW_DELTAS };
/* Room for so many marks: few, when they fit, else to be given to answer_marks_done(). NULL: no
 * memory. */
struct mark *answer_marks(size_t n, struct mark few[MARKS_FEW]);
void answer_marks_done(struct mark *marks, const struct mark few[MARKS_FEW]);
/* Feeds all deltas of the parsed chunk; each: the text is whole with this event. */
enum err answer_feed_chunk(struct answer *a, bool each, struct mark *marks) MUSTCHECK;
/* Feeds bytes behind those that the text has. */
enum err answer_feed_text(struct answer *a, struct text *t, struct str bytes) MUSTCHECK;
bool answer_is_cut(const struct text *t);
/* Bytes that were fed, in all. */
uint64_t answer_fed(const struct text *t);
/* The most tokens that a string of JSON can bring, by what stands between its quotes. */
uint64_t answer_most_of(struct str raw);
/* The most tokens that the parsed chunk can bring. */
uint64_t answer_most_tokens(struct answer *a);
enum err answer_finish_text(struct answer *a, struct text *t) MUSTCHECK;
enum err answer_finish_all(struct answer *a) MUSTCHECK;
bool answer_any_cut(const struct answer *a);
/* Of all the text's bytes, how many may be delivered. */
uint64_t answer_deliverable(const struct text *t);
bool answer_is_deliverable(const struct answer *a, const struct mark *marks, size_t n);

/* --- answer_forms.c --- */

/* An event was parsed, and its texts fed: those of its form can be known from now on. */
void answer_learn(struct answer *a, const struct sse_event *ev, const struct mark *marks);
/* Takes events of known forms, as many as come in a row; *bytes moves behind them. */
enum err answer_feed_known(struct answer *a, struct str *bytes) MUSTCHECK;
void answer_forget_forms(struct answer *a);
void answer_prefetch_forms(const struct answer *a); /* answer_feed_known() follows */

/* --- answer_write.c --- */

enum err answer_write_event(struct answer *a, struct str raw, struct str name,
                            struct str data) MUSTCHECK;
/* Keeps an event, with a copy of its bytes, at the end of a queue. */
enum err answer_hold(struct answer *a, struct list_node *queue, const struct sse_event *ev,
                     const struct mark *marks, size_t marks_n, bool hide) MUSTCHECK;
/* Takes the first event out of a queue: *ret has slices of what is returned; free() that. */
struct held *answer_unhold(struct answer *a, struct list_node *queue, struct sse_event *ret);
/* The dialect's ending, here. */
enum err answer_write_ending(struct answer *a) MUSTCHECK;
/* Passes on what is decided, from the front. */
enum err answer_release(struct answer *a) MUSTCHECK;
size_t answer_cut_splices(struct answer *a, const struct mark *marks, size_t marks_n,
                          struct splice *s, bool *ret_any);

#endif
