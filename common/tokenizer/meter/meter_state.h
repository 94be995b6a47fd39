/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The state of a meter, and the search for the place to cut. Only for meter*.c. One owner thread.
 *
 *   raw  | anchor ... | second ... | mid ... | open ............ |
 *          counted                           | could still change
 *
 * Each place is a raw offset at a cluster boundary and a number of clean bytes behind it. anchor,
 * second and mid are boundaries between pieces that are boundaries between clusters too; there are
 * at least two whole pieces between anchor and mid. A text cut off at some place tokenises like the
 * whole up to two pieces before it ("   7" is two, one space and the digit; without the digit the
 * spaces are one piece), so what is tried as a cut is counted from anchor on.
 */
#ifndef TOKENIZER_METER_STATE_H
#define TOKENIZER_METER_STATE_H

#include "tokenizer/scan/estimate.h"
#include "tokenizer/meter/meter.h"
#include "tokenizer/scan/pieces.h"

enum { METER_SHORT = 36 }; /* bytes of a text that is counted anew each time */

struct meter_place {
    size_t at, skip; /* in raw */
    uint64_t count;  /* tokens before it */
};

/* The last piece of the tail, while it goes on with more of its kind (meter_run.c). Of a piece in
 * parts (joins.h) only the last part is looked at again. */
struct meter_run {
    struct bpe_run *prefixes; /* borrowed while the text is long, which then is in there */
    size_t n;                 /* of the text: the piece, or its last part; clean */
    uint64_t before;          /* tokens of the tail before it */
    size_t began;             /* bytes of the tail when it began */
    size_t whole;       /* raw up to here is whole characters; up to three bytes more are not */
    size_t behind;      /* of white space: bytes behind its last newline */
    uint32_t last;      /* character */
    unsigned char same; /* how many of it, at least, are its end both raw and clean */
    unsigned char kind;
    bool parted;             /* parts of the piece are counted */
    bool chars;              /* the text is joined by whole characters */
    char small[METER_SHORT]; /* a text that is not long */
};

struct token_meter {
    struct vocab *v; /* NULL: estimate */
    enum special_mode mode;
    uint64_t limit;
    struct buf raw;
    uint64_t base; /* offset in the text of raw[0] */
    struct meter_place anchor, second, mid, open;
    uint64_t deliverable, cut_at;
    uint64_t cut_count;  /* tokens before cut_at; of an estimate, before deliverable */
    uint64_t tail_count; /* of the open tail as if the text ended here, when tail_known */
    uint64_t counted;    /* offset in the text up to where that is known */
    size_t looked;       /* bytes of a tail that is looked at anew each time, when it last was */
    bool tail_known, is_cut, finished, exact;
    bool running;              /* run holds the end of the tail */
    struct piece_cache *cache; /* borrowed for a call */
    struct meter_run run;
    struct token_estimate estimate;
};

static inline struct str meter_raw(const struct token_meter *m, size_t from, size_t to)
{
    return to > from ? str_n(m->raw.data + from, to - from) : STR("");
}

/* The cache, for as long as a call of the meter lasts; NULL when memory is out. */
struct piece_cache *meter_cache(struct token_meter *m);

/* Tokens of raw[from ... to) as if the text ended at `to`, not counting those before from. */
enum err meter_count_from(struct token_meter *m, struct meter_place from, size_t to,
                          uint64_t *ret) MUSTCHECK;

/* Is the end of the tail a long run? From then on, as long as meter_run_goes_on() says that it took
 * what was appended to raw, meter_run_count() is what meter_count_from(open) would be. */
bool meter_run_begins(struct token_meter *m);
void meter_run_ends(struct token_meter *m); /* gives back what it borrowed */
bool meter_run_goes_on(struct token_meter *m);
enum err meter_run_count(struct token_meter *m, uint64_t *ret) MUSTCHECK;

/*
 * Cuts: token number `limit` ends `clean` clean bytes behind m->open, and there is more. Chooses
 * the last boundary at or before it that counts at most the limit.
 */
enum err meter_choose_cut(struct token_meter *m, size_t clean) MUSTCHECK;

#endif
