/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Walks a text piece by piece: finds added tokens, cleans what lies between, and cuts it with the
 * vocabulary's scanner. Works in blocks, so that memory does not grow with the text; where a block
 * is clean as it stands nothing is copied. Internal to the tokenizer. One owner thread.
 *
 *   raw    | done | at ............ block_end | ......... n |
 *   clean         | skip: done | pos | ....... |
 */
#ifndef TOKENIZER_PIECES_H
#define TOKENIZER_PIECES_H

#include "tokenizer/tokenizer.h"
#include "tokenizer/models/vocab_file.h"

/* Kept by who walks, so that it is not allocated again and again. */
struct pieces_scratch {
    struct buf clean;  /* a block that had to be changed */
    struct buf map;    /* where its clusters came from: pieces_clean.h */
    struct buf points; /* of clean.c */
};
void pieces_scratch_init(struct pieces_scratch *s);
void pieces_scratch_done(struct pieces_scratch *s);

/* Instead of how many clean bytes are done: a stretch begins here, and the space that the
 * vocabulary wants in front of it is still to come. */
#define PIECES_FRESH SIZE_MAX

/* Where a walk of a whole text begins. */
static inline size_t pieces_start(const struct vocab *v)
{
    return v->h->lead != VOCAB_LEAD_NONE ? PIECES_FRESH : 0;
}
/* Is that in the middle of a cluster? */
static inline bool pieces_within(size_t skip)
{
    return skip > 0 && skip != PIECES_FRESH;
}

struct piece {
    const char *p; /* clean bytes, valid until the next call */
    size_t n;
    uint32_t added; /* an added token's id, or VOCAB_NO_TOKEN */
};

enum { PIECES_ROOM = SCAN_WINDOW + 16 };

struct pieces {
    const struct vocab *v;
    struct pieces_scratch *scratch;
    enum special_mode mode;
    const char *raw;
    size_t n;
    bool final;  /* nothing follows raw[n) */
    size_t at;   /* raw: the beginning of the block, at a cluster */
    size_t skip; /* clean bytes of the block that are done */
    /* the stretch between two added tokens that `at` is in */
    size_t stretch_end;
    bool stretch_known, stretch_closed; /* closed: nothing joins on behind stretch_end */
    uint32_t stretch_token;             /* the added token behind it */
    size_t stretch_token_n;
    /* the block */
    const char *clean;
    size_t clean_n, pos, block_end, want;
    size_t lead; /* bytes put in front of the block: 1 for a space, or 0 */
    bool loaded, identity;
    char room[PIECES_ROOM]; /* the end of a block, for pieces_window() */
};

/* Text raw[0..n) of which `skip` clean bytes were done before (pieces_start() for a whole text). */
void pieces_init(struct pieces *it, const struct vocab *v, enum special_mode mode,
                 struct pieces_scratch *scratch, struct str raw, bool final, size_t skip);

/* Makes what comes next ready to be looked at, if it is not: pieces_next() does so too. */
enum err pieces_load(struct pieces *it) MUSTCHECK;

/* The next piece; ERR_AGAIN at the end of what can be decided (with `final`: of the text). */
enum err pieces_next(struct pieces *it, struct piece *ret) MUSTCHECK;

/*
 * The next pieces all at once, where they are plain ASCII: *ret_p is where they begin, and bit k is
 * set when one ends at *ret_p + k. PIECES_ROOM bytes are readable there. pieces_pass() takes them.
 * 0 when there are none to be had that way: pieces_next() knows.
 */
uint64_t pieces_window(struct pieces *it, const char **ret_p);
/* What is left of the block, a piece begins at *ret_p; 0 when nothing is. */
static inline size_t pieces_left(const struct pieces *it, const char **ret_p)
{
    if (!it->loaded) return 0;
    *ret_p = it->clean + it->pos;
    return it->clean_n - it->pos;
}
static inline void pieces_pass(struct pieces *it, size_t n)
{
    it->pos += n;
}

/*
 * Where the walk stands, behind the piece returned last: raw bytes [0, *ret_at) are done and so are
 * *ret_skip clean bytes of what follows. A walk can be taken up again from there.
 */
void pieces_position(const struct pieces *it, size_t *ret_at, size_t *ret_skip);

/* The raw offset of the clean byte `back` bytes before the end of the piece returned last (not an
 * added token); where the text was changed, of the last cluster boundary at or before it. */
size_t pieces_raw_offset(const struct pieces *it, size_t back);

#endif
