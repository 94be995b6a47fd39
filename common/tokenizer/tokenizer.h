/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Exact token counts and ids of texts: in time linear in the text (long pieces without a useful
 * boundary: n log n at worst), on any input. Pure; a counter belongs to one thread, the functions
 * may be called by any.
 *
 * Bytes that are not UTF-8 count as the U+FFFD that a reader puts in their place (one for each
 * maximal ill-formed subpart: Unicode 3.9, table 3-8, as browsers, Python and Rust do).
 * Nothing is added in front or behind (no BOS): templates bring it along.
 */
#ifndef TOKENIZER_TOKENIZER_H
#define TOKENIZER_TOKENIZER_H

#include "base/buf.h"
#include "base/stop.h"
#include "tokenizer/models/vocab.h"

/* What the strings of added tokens (<|im_end|>, <think>, ...) mean when they occur in a text. */
enum special_mode {
    SPECIAL_TEXT,   /* ordinary text, split like any other */
    SPECIAL_CONTROL /* the tokens themselves, as a server does with a rendered template */
};

/* The number of tokens. ERR_NOMEM only. */
enum err token_count(const struct vocab *v, struct str text, enum special_mode mode,
                     uint64_t *ret) MUSTCHECK;

/* The same, given up with ERR_CLOSED soon after stop (may be NULL) says so: asked every 64 KiB. */
enum err token_count_until(const struct vocab *v, struct str text, enum special_mode mode,
                           const struct stop *stop, uint64_t *ret) MUSTCHECK;

/* A growable list of tokens. Zeroed is empty; token_list_done() frees what it owns. */
struct token_list {
    uint32_t *ids;
    uint64_t *ends; /* see below; NULL unless want_ends */
    size_t len, cap;
    bool want_ends;          /* set before the first use */
    const struct stop *stop; /* NULL, or asked while a text is encoded: ERR_CLOSED */
};
void token_list_done(struct token_list *l);

/*
 * Appends the tokens of text to l. With want_ends, ends[i] is the offset in text behind token i:
 * non-decreasing, the last one text.n. A token that ends inside something the normalizer rewrote
 * has the end of the last character before it that was left whole. On failure l holds what it held.
 */
enum err token_encode(const struct vocab *v, struct str text, enum special_mode mode,
                      struct token_list *l) MUSTCHECK;

/*
 * The same piece by piece: the text is the concatenation of all that is fed, wherever it was split.
 * Holds only what later bytes could still change (the open word).
 */
struct token_counter {
    const struct vocab *vocab; /* borrowed */
    enum special_mode mode;
    struct buf tail;                /* raw bytes that are not fully counted */
    size_t skip;                    /* how many bytes of the tail, once normalised, are counted */
    struct token_list *to;          /* or NULL: only count */
    const struct stop *stop;        /* NULL, or asked every 64 KiB: ERR_CLOSED */
    size_t since_asked;             /* bytes */
    struct pieces_scratch *scratch; /* owned */
    uint64_t count;
};

/* `to` may be NULL; if given it is borrowed and receives the ids (without ends). */
void token_counter_init(struct token_counter *c, const struct vocab *v, enum special_mode mode,
                        struct token_list *to);
void token_counter_done(struct token_counter *c);
enum err token_counter_feed(struct token_counter *c, struct str bytes) MUSTCHECK;
/* Ends the text: *ret is the count of all that was fed. The counter may be used again for a new
 * text. */
enum err token_counter_finish(struct token_counter *c, uint64_t *ret) MUSTCHECK;

#endif
