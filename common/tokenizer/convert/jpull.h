/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A pull reader of JSON (RFC 8259) for tokenizer files of tens of megabytes: no tree is built, the
 * caller walks. Internal to the tokenizer. One owner thread.
 *
 *     struct str key;
 *     for (jpull_enter(j, '{'); jpull_key(j, &key);) { ... one value ... }
 *
 * After an error every call answers "no more" and j->failed is set, so that a walk can be written
 * without a check at each step; jpull_end() says whether all went well.
 */
#ifndef TOKENIZER_JPULL_H
#define TOKENIZER_JPULL_H

#include "base/buf.h"

enum { JPULL_DEPTH = 64 };

struct jpull {
    const char *start, *p, *end;
    bool failed;
    bool nomem;
    const char *reason; /* of a failure */
    int depth;
    char closers[JPULL_DEPTH]; /* of the containers that are open */
    bool first;                /* nothing was read of the innermost yet */
    struct buf keys;           /* the key read last, unescaped */
};

void jpull_init(struct jpull *j, struct str text);
void jpull_done(struct jpull *j);

/* What comes next: '{' '[' '"' '0' (a number) 't' 'f' 'n', or 0 when something else or nothing. */
char jpull_peek(struct jpull *j);
/* Opens the object or array that must come next. */
void jpull_enter(struct jpull *j, char open);
/* The next key, valid until the next call of this; false (and the object closed) at its end. */
bool jpull_key(struct jpull *j, struct str *ret);
/* True when another element follows; false (and the array closed) at its end. */
bool jpull_element(struct jpull *j);

/* Appends the string that must come next, unescaped, to out. A lone surrogate becomes U+FFFD. */
void jpull_string(struct jpull *j, struct buf *out);
/* A number that must be a whole one of at most max. */
uint64_t jpull_uint(struct jpull *j, uint64_t max);
bool jpull_bool(struct jpull *j);
/* Passes over any value; its text, as it stands, is returned. */
struct str jpull_skip(struct jpull *j);

void jpull_fail(struct jpull *j, const char *reason);
/* The text must end here. ERR_INVALID with the reason and offset, ERR_NOMEM. */
enum err jpull_end(struct jpull *j, struct why *why) MUSTCHECK;

#endif
