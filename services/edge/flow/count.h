/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Counts a request's input: in this process for ordinary prompts; long ones go to the token service
 * over the bus, so that they do not stall a worker's other streams, and to a helper thread when it
 * is silent for 50 ms or the prompt is too large for it. Without a vocabulary for the model the
 * count is an estimate and says so.
 */
#ifndef EDGE_COUNT_H
#define EDGE_COUNT_H

#include "dialects/dialect.h"
#include "proto/snapshot.h"
#include "rt/bus.h"
#include "rt/loop.h"
#include "tokenizer/models/models.h"

struct counter;

struct counter_options {
    bool precise;        /* false: estimate everything */
    size_t remote_bytes; /* prompts above this are counted elsewhere */
    const char *url;     /* of the token service: count there over HTTP; "": over the bus */
    struct bus *bus;
    const struct clock *clock;
    const struct rng *rng;
};
struct counter *counter_new(const struct counter_options *o); /* starts its thread */
/* Waits for counts under way: what they post must still find its loop. */
void counter_free(struct counter *c);

struct count_result {
    enum err err; /* ERR_INVALID: the template refused the messages, see why */
    struct why why;
    uint64_t tokens;
    bool exact;
};

/* Memory that a thread counts with again and again, so that an ordinary count allocates nothing.
 * One owner thread. */
struct count_scratch;
struct count_scratch *count_scratch_new(void);
void count_scratch_free(struct count_scratch *s); /* NULL is fine */
/* How a model counts, as models_find() says; names that come again are remembered. */
void count_model(struct count_scratch *s, struct models *m, struct str model,
                 struct model_info *ret);

/* What to count: views, copied when the answer has to be waited for. */
struct count_input {
    enum snap_endpoint ep;
    struct str model;              /* as the client wrote it */
    const struct model_info *info; /* borrowed until done() */
    const struct request_scan *scan;
    bool estimate;                 /* the server adds what the request does not hold: never exact */
    struct loop *loop;             /* done() is posted here */
    struct count_scratch *scratch; /* the calling thread's; not kept */
    const _Atomic bool *given_up;  /* borrowed until done(); true: nobody wants the count any more,
                                      it ends soon, as whatever */
};

typedef void (*count_done_fn)(void *ctx, const struct count_result *r);
/* True: *ret is filled and done() is not called. False: done(ctx) follows on in->loop, exactly
 * once, also when it was given up. */
bool counter_count(struct counter *c, const struct count_input *in, struct count_result *ret,
                   count_done_fn done, void *ctx);

#endif
