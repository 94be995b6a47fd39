/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Verified tokens, remembered by their digest: the second request with a token costs a hash. One
 * per worker, its thread.
 */
#ifndef EDGE_TOKENS_H
#define EDGE_TOKENS_H

#include "keyring.h"
#include "match.h"

enum { TOKENS_MAX = 4096 };

struct tokens;

/* A token that was verified. */
struct token {
    struct arena arena;
    const struct match_values *claims; /* by place in matching_claim_wants() */
    double from_s, until_s;            /* when it is valid, with leeway */
    uint32_t refs;
};

struct tokens *tokens_new(struct keyring *keys);
void tokens_free(struct tokens *t); /* NULL is fine */
/* The rules have changed. */
void tokens_forget(struct tokens *t);

/* Returns a reference. ERR_DENIED with why: it is not valid; ERR_AGAIN with why: it is not by the
 * keys that are there, and they are being fetched anew (keyring_wait()); ERR_UNAVAILABLE: the
 * issuer's keys cannot be had; ERR_NOMEM. */
enum err tokens_verify(struct tokens *t, const struct snapshot *s, const struct matching *m,
                       struct str text, uint64_t now_s, struct token **ret,
                       struct why *why) MUSTCHECK;
void token_unref(struct token *t); /* NULL is fine */

#endif
