/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From the bytes of an answer to bytes on the wire: content coding, transfer coding, and where the
 * cuts fall. What goes in as events comes out as units: the caller writes each unit by itself.
 * Pure.
 */
#ifndef SHAPER_H
#define SHAPER_H

#include "base/clock.h"
#include "behave.h"
#include "http/gzip.h"

struct shaper {
    const struct behave *behave; /* borrowed */
    enum framing framing;        /* never AUTO */
    struct deflater *z;
    struct buf body; /* coded, not yet framed */
    uint64_t units, bad_unit, batched, next_split;
    struct rng_fake rng;
    bool ended, over; /* all went in; all came out */
};

/* stream: says which chunk is malformed when one has to be (the third; of a whole body the first).
 * ERR_NOMEM. */
enum err shaper_init(struct shaper *s, const struct behave *b, enum framing framing,
                     bool stream) MUSTCHECK;
void shaper_done(struct shaper *s);
enum err shaper_add(struct shaper *s, struct str event) MUSTCHECK;
enum err shaper_end(struct shaper *s) MUSTCHECK;
/* Appends the next unit to out. ERR_AGAIN: none is complete yet; ERR_CLOSED: that was all. */
enum err shaper_take(struct shaper *s, struct buf *out) MUSTCHECK;
/* Do units have to be written one by one? */
bool shaper_is_cut(const struct shaper *s);

#endif
