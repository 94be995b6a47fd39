/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Builds a vocabulary file of tokens, merges, added tokens and texts. Internal to the tokenizer:
 * convert_*.c feed it. One owner thread.
 */
#ifndef TOKENIZER_VOCAB_BUILD_H
#define TOKENIZER_VOCAB_BUILD_H

#include "base/buf.h"
#include "tokenizer/models/vocab_file.h"

enum {
    BUILD_MAX_SIZE = 1 << 22,  /* ids */
    BUILD_MAX_TOKEN = 1 << 12, /* bytes of one token */
    BUILD_MAX_PAIRS = 1 << 23,
    BUILD_MAX_RANK = 1 << 26, /* keys of merges are 32 bits: see bpe_many.c */
    BUILD_MAX_ADDED = 1 << 17,
};

struct build_token {
    uint32_t at, n;
};

struct build {
    enum scan_shape shape;
    unsigned normal, lead, chars; /* as in struct vocab_header */
    uint32_t ids;                 /* the same; 0: all */
    bool whole_all; /* a piece that is a token is that token, whether merges make it or not */
    struct buf bytes;
    struct buf tokens; /* struct build_token by id */
    struct buf pairs;  /* struct vocab_pair, in order; a later one replaces an earlier */
    struct buf added;  /* struct vocab_added */
    struct buf texts;  /* struct vocab_text */
    struct buf strings;
};

void build_init(struct build *b);
void build_done(struct build *b);

/* ERR_INVALID when the id has bytes already, ERR_LIMIT beyond the bounds above. */
enum err build_token(struct build *b, uint32_t id, struct str bytes) MUSTCHECK;
enum err build_pair(struct build *b, uint32_t left, uint32_t right, uint32_t rank,
                    uint32_t id) MUSTCHECK;
/* flags: ADDED_... */
enum err build_added(struct build *b, struct str content, uint32_t id, unsigned flags) MUSTCHECK;
enum err build_text(struct build *b, const char *key, struct str value) MUSTCHECK;
struct str build_bytes(const struct build *b, uint32_t id);
/* How many ids there are places for; some may have no bytes. */
uint32_t build_size(const struct build *b);

/* Appends the file to ret. Checks what a counter relies on, and that the linear method agrees with
 * the merges. */
enum err build_finish(struct build *b, struct buf *ret, struct why *why) MUSTCHECK;

#endif
