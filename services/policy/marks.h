/* SPDX-License-Identifier: Apache-2.0 */
/*
 * High-water marks of quotas in a file, so that they survive the process: how much of a counter's
 * calendar window was granted, or could be. A mark is on the disk BEFORE anything is granted
 * beneath it; to save writes it is set ahead by a two-hundred-and-fifty-sixth of the limit, which
 * is what a crash may cost of a window (nothing at limits below 256, nor after an orderly stop).
 *
 * The file (quotas.marks in STATE_DIR) is a log: a head with the file's own name (a UUID), then one
 * record per rise, the last one of a counter counts. What is behind the first record that is torn
 * or wrong was never granted: it is cut off. It is written anew, without what is over, when it is
 * opened and when it has outgrown what it holds. A claim on the counters (claim.h) remembers the
 * name of the file that it was served with: an engine that finds another name has lost the marks.
 *
 * Not thread-safe: the store's lock is held.
 */
#ifndef POLICY_MARKS_H
#define POLICY_MARKS_H

#include <stdint.h>

#include "base/clock.h"
#include "base/str.h"

struct marks;

struct mark {
    uint64_t begin, end; /* of the window, microseconds since 1970 */
    uint64_t used;
};

enum { MARKS_AHEAD = 256 };

/* Opens or makes the file in a folder that exists. most: counters at most. ERR_IO, ERR_NOMEM,
 * ERR_UNSUPPORTED (a file of a later version). */
enum err marks_open(const char *folder, size_t most, const struct clock *clock,
                    const struct rng *rng, struct marks **ret, struct why *why) MUSTCHECK;
/* Closes; what was put but not flushed is lost. NULL is fine. */
void marks_free(struct marks *m);
/* The file's name; another one after marks_forget_all(). */
const char *marks_id(const struct marks *m);

/* What is on the disk for a counter; NULL: nothing. Until the next call that changes something. */
const struct mark *marks_get(const struct marks *m, struct str name);
/* The counters that have a mark, one after the other from *i = 0 on. */
bool marks_next(const struct marks *m, size_t *i, struct str *ret_name);
/* Whether this much of this window may be granted as things are on the disk. */
bool marks_cover(const struct marks *m, struct str name, const struct mark *needed);
/* Puts a mark into the next flush. ERR_LIMIT: too many. */
enum err marks_put(struct marks *m, struct str name, const struct mark *mark) MUSTCHECK;
/* Writes what was put and waits until it is on the disk (fdatasync). ERR_IO: nothing of it counts,
 * and the file is written anew with the next flush. */
enum err marks_flush(struct marks *m, struct why *why) MUSTCHECK;
/* Forgets all and takes another name: the marks are those of a time that is over. */
enum err marks_forget_all(struct marks *m, struct why *why) MUSTCHECK;

struct marks_stats {
    uint64_t writes, failures; /* flushes that reached the disk, or did not */
    size_t counters, bytes;
};
void marks_stats(const struct marks *m, struct marks_stats *ret);

#endif
