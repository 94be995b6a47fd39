/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The spool: what must not be lost when the edge is killed. A log of records on disk, each opened
 * before its request goes upstream, settled once, and forgotten when it was delivered.
 *
 *      <dir>/lock                     held while directories are made, adopted and removed
 *      <dir>/<incarnation>/lock       held (flock) as long as the incarnation lives
 *      <dir>/<incarnation>/<no>.seg   segments: see spool_segment.h for their format
 *
 * Writing is a copy into a preallocated, mapped segment: no system call on the way of a request,
 * and what was written survives kill -9 of the process from the moment the call returns. A thread
 * of the spool (the keeper) has the disk take it every sync_ms (fdatasync) unless all of its
 * segment is delivered by then: a power failure loses at most that (of progress, what the system
 * has written back by itself). The keeper also makes spare segments, moves records that would hold
 * an old segment, takes segments whose records are all delivered for use again (some; others are
 * deleted), and adopts directories whose owner is dead: what was open there comes out of
 * spool_next() marked as crashed, what was settled as it is.
 *
 * Threads: a worker writes through its own writer (a short lock of its own, shared with the keeper
 * only); ONE thread calls spool_next(); spool_done() may be called by any.
 */
#ifndef EDGE_SPOOL_H
#define EDGE_SPOOL_H

#include <stdint.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/str.h"

struct spool;
struct spool_ticket; /* an open record */

struct spool_options {
    const char *dir; /* made when it does not exist, mode 0700 */
    unsigned workers;
    uint64_t segment_bytes; /* of one file; a record must fit into a quarter of it */
    uint64_t max_bytes;     /* of all files: beyond it nothing is opened */
    unsigned sync_ms;
    unsigned spares; /* segments that are kept for use again; 0: 2 */
    unsigned keep;   /* an open record is moved when so many were used since; 0: 8 */
    const struct clock *clock;
    const struct rng *rng;
};

/* Makes this incarnation's directory, adopts what dead ones left, starts the keeper. */
enum err spool_new(const struct spool_options *o, struct spool **ret, struct why *why) MUSTCHECK;
/* No other call may be under way. What is not delivered stays on disk for a successor. */
void spool_free(struct spool *s);

/* Opens a record: id (36 bytes), name (a slug) and text are copied. text is what is delivered if
 * the edge dies before the record is settled. ERR_LIMIT: the spool is full, or the record too
 * large; ERR_IO: the disk refused a segment. */
enum err spool_begin(struct spool *s, unsigned worker, struct str id, struct str name,
                     struct str text, struct spool_ticket **ret) MUSTCHECK;

/* What is known of an open record beside its text; stored in place, three words. */
struct spool_progress {
    uint64_t output_tokens;
    int64_t cost_nano;
    uint64_t duration_ms;
};
void spool_progress(struct spool_ticket *t, const struct spool_progress *p);

/* Ends an open record with its final text; consumes the ticket unless it fails. Goes on beyond
 * max_bytes (the excess is bounded by the records that were open). ERR_LIMIT, ERR_IO. */
enum err spool_settle(struct spool *s, struct spool_ticket *t, struct str text) MUSTCHECK;
/* What the caller knows of the text of an open record: that its first head_n bytes (at most
 * UINT16_MAX) go with a stamp. spool_marked() is their number, 0 when it is another stamp; so many
 * may be left out of the final text, in front. */
void spool_mark(struct spool_ticket *t, size_t head_n, uint64_t stamp);
size_t spool_marked(const struct spool_ticket *t, uint64_t stamp);
/* As spool_settle(), with a text that is head_n bytes of that of spool_begin(), then tail. */
enum err spool_settle_tail(struct spool *s, struct spool_ticket *t, size_t head_n,
                           struct str tail) MUSTCHECK;
/* Lets go of a ticket that could not be settled: the record stays open on disk, and comes out as
 * crashed after the next start, with what progress said. */
void spool_abandon(struct spool *s, struct spool_ticket *t);
/* Opens and settles in one: errors as spool_begin(). */
enum err spool_put(struct spool *s, unsigned worker, struct str id, struct str name,
                   struct str text) MUSTCHECK;

/* Which record: for as long as it is not done. */
struct spool_ref {
    void *segment, *opened_in; /* private, all of it */
    uint64_t offset, opened_at;
};

/* A record to deliver. The views are valid until spool_done(). */
struct spool_item {
    struct str id, name;
    struct str head, text; /* the record's text is that of both; head may be empty */
    bool adopted;          /* another process wrote it: it may be anything */
    bool crashed; /* was open when its edge died: text is that of spool_begin(), with progress */
    struct spool_progress progress;
    struct spool_ref ref;
};
/* The next record that is settled and was not given out yet, oldest first per worker.
 * ERR_NOT_FOUND: none now. */
enum err spool_next(struct spool *s, struct spool_item *ret) MUSTCHECK;
/* Another look at one that was given out. */
void spool_look(struct spool *s, const struct spool_ref *ref, struct spool_item *ret);
/* They were delivered: never come out again, of a successor's spool either. */
void spool_done(struct spool *s, const struct spool_ref *refs, size_t n);

/* Has the disk take what was written before the call. Blocks. */
void spool_sync(struct spool *s);

struct spool_stats {
    uint64_t open;     /* records now open */
    uint64_t settled;  /* settled and not delivered */
    uint64_t bytes;    /* of all segments on disk, adopted ones included */
    uint64_t segments; /* files */
    uint64_t adopted;  /* records taken over from dead incarnations, settled and crashed */
    uint64_t crashed;  /* those of them that were open */
    uint64_t moved;    /* open records moved out of the way */
    uint64_t damaged;  /* stretches of adopted segments that were no records */
    uint64_t sync_errors;
};
void spool_stats(struct spool *s, struct spool_stats *ret);

#endif
