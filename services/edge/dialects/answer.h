/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An answer on its way to the client: counts its tokens as it passes, cuts it at the token where
 * its budget ends, hides what the gateway asked for on its own account (the usage chunk), and notes
 * what the upstream reports. Streams or whole. Pure: bytes in, bytes out; one owner. What comes out
 * does not depend on how the bytes that went in were split.
 */
#ifndef EDGE_ANSWER_H
#define EDGE_ANSWER_H

#include "dialect.h"
#include "tokenizer/meter/meter.h"

enum {
    ANSWER_EVENT_MAX = 4 * 1024 * 1024, /* bytes of one event of a stream */
    ANSWER_HELD_MAX = 256 * 1024,       /* bytes of events that wait for a decision */
    ANSWER_MAX_TEXTS = 4096,
};

struct answer_options {
    const struct dialect *dialect;
    struct vocab *vocab; /* NULL: estimate */
    bool guess;          /* the vocabulary is only likely to be the model's: never exact */
    uint64_t limit;      /* output tokens over all choices; METER_NO_LIMIT: none */
    uint64_t allowance;  /* tokens of a stream that may be delivered by now, when reserved */
    bool reserved;       /* tokens are had piece by piece: see answer_allow() */
    /* With reserved: asked during a call when fewer than `ahead` are left, or an event would have
     * to wait for an allowance of `wants`; what may be delivered now. NULL: nobody is asked. */
    uint64_t (*more)(void *ctx, uint64_t wants);
    void *more_ctx;
    uint64_t ahead;
    bool hide_usage; /* the gateway asked for usage, the client did not */
    bool want_usage; /* the client asked for it: a cut ends with it */
    uint64_t input_tokens;
};

enum answer_state {
    ANSWER_OPEN,
    ANSWER_DONE, /* the dialect's terminator came */
    ANSWER_CUT   /* the limit was passed, and the ending written: close the upstream */
};

struct answer;

struct answer *answer_new(const struct answer_options *o); /* NULL: out of memory */
void answer_free(struct answer *a);                        /* NULL is fine */

/* Events are about to be fed: asks for what they will need of the answer. */
void answer_prefetch(const struct answer *a);
/* The next bytes of a stream; what the client shall get is appended to out. After ANSWER_CUT
 * nothing is taken any more. ERR_LIMIT: an event too large or too much to hold back, or out is
 * full; ERR_NOMEM. */
enum err answer_feed(struct answer *a, struct str bytes, struct buf *out) MUSTCHECK;
/* The upstream's body ended in good order. When events wait (answer_waits()) it is to be called
 * again behind answer_resume(). */
enum err answer_end(struct answer *a, struct buf *out) MUSTCHECK;

/*
 * Tokens that are had piece by piece. A stream takes no event that could bring it beyond its
 * allowance: it waits, with those behind it, until there is more, or until no more is to be had.
 * Nothing beyond the allowance is ever delivered.
 */
bool answer_waits(const struct answer *a);
/* The most tokens that what came out so far can have; at the end answer_tokens(). */
uint64_t answer_due(const struct answer *a);
/* The allowance at which the event that waits passes for certain; without one, of what was taken.
 */
uint64_t answer_wants(const struct answer *a);
void answer_allow(struct answer *a, uint64_t tokens); /* in all, since the beginning */
/* No more is to be had: the allowance is the limit from now on. */
void answer_deny(struct answer *a);
/* What was taken since `tokens` had been delivered is not to be delivered: ends there. */
enum err answer_stop(struct answer *a, uint64_t tokens, struct buf *out) MUSTCHECK;
/* Goes on with what waited, after any of the two. Like answer_feed(). */
enum err answer_resume(struct answer *a, struct buf *out) MUSTCHECK;

/* A whole body. *ret is what passes: body itself, or out, which gets it cut when it is over the
 * limit. What is no JSON of the dialect passes as it is, uncounted. */
enum err answer_whole(struct answer *a, struct str body, struct buf *out,
                      struct str *ret) MUSTCHECK;

enum answer_state answer_state(const struct answer *a);
/* Whether the stream came to its proper end: a terminator, or every choice finished. */
bool answer_is_complete(const struct answer *a);
/* Tokens delivered or about to be, all texts together; of those, reasoning. */
uint64_t answer_tokens(const struct answer *a);
uint64_t answer_reasoning_tokens(const struct answer *a);
/* Bytes that it holds, about. */
size_t answer_memory(const struct answer *a);
bool answer_is_exact(const struct answer *a);
/* A stream's events in front of its first output (Anthropic's message_start and pings, a chunk with
 * nothing but a role, response.created) only open it: should it break behind them, nothing is
 * lost. */
bool answer_has_opened(const struct answer *a);        /* an event came */
bool answer_has_begun(const struct answer *a);         /* one that does more than that */
bool answer_begins_with_error(const struct answer *a); /* and tells of an error */
bool answer_saw_error(const struct answer *a);         /* an error event passed */
/* The number that an event behind those which came has, where events have numbers. */
uint64_t answer_sequence(const struct answer *a);
const struct reported_usage *answer_reported(const struct answer *a);

#endif
