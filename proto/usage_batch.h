/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a message on usage.<namespace slug> holds: one usage record (version 1, proto/usage_msg.h),
 * or several of the same namespace (version 2, proto/schema/usage_batch.json):
 *
 *      {"v":2,"id":"…","ts":"…","from":"edge-1","records":[
 *      {"v":1,"id":"…",…},
 *      {"v":1,"id":"…",…}
 *      ]}
 *
 * Each record is the message that it would be alone, with its own id, and counts by that. The
 * message's id is that of the set: the same when it is sent again. It is not longer than one record
 * may be, so a reader that does not know version 2 keeps it, as it does with any version it does
 * not know. Records stand in lines, so that a message that is no JSON because of one record still
 * gives the others. Any thread, no state.
 */
#ifndef PROTO_USAGE_BATCH_H
#define PROTO_USAGE_BATCH_H

#include "proto/usage_msg.h"

enum {
    USAGE_BATCH_VERSION = 2,
    USAGE_BATCH_RECORDS = 64,                /* at most, in a message */
    USAGE_BATCH_MAX_BYTES = USAGE_MAX_BYTES, /* of a message */
    USAGE_BATCH_HEAD = 2048                  /* of it, what all but the records takes at most */
};

/* Whether n records whose texts have so many bytes together go into a message. */
bool usage_batch_fits(size_t n, size_t bytes);

/* Writes a message: begin, add a record's text (of usage_encode(), head and tail of it) once or
 * more, end. ERR_LIMIT, ERR_NOMEM: out is of no use then. id: a UUID; from: at most USAGE_TEXT_MAX
 * bytes are kept. */
enum err usage_batch_begin(struct buf *out, struct str id, uint64_t ts_ms,
                           struct str from) MUSTCHECK;
enum err usage_batch_add(struct buf *out, struct str head, struct str tail) MUSTCHECK;
enum err usage_batch_end(struct buf *out) MUSTCHECK;

/* A record of a message that is read. */
struct usage_part {
    size_t index;
    bool alone;                        /* the message is this record and no batch */
    enum err e;                        /* as usage_decode() */
    const struct usage_record *record; /* of ERR_OK */
    struct str text;                   /* of others: what is no record … */
    const char *why;                   /* … and the reason */
};
typedef void (*usage_part_fn)(void *ctx, const struct usage_part *part);

/* Calls fn for each record of a message, whole or not, in their order; what a part points to is
 * valid during the call, but what is in the arena. An error is one of the message: fn was not
 * called, and why says what it is. ERR_UNSUPPORTED: a version that is not ours; ERR_INVALID:
 * neither a record nor a batch; ERR_LIMIT: too long, or too many records; ERR_NOMEM. */
enum err usage_read(struct str text, struct arena *arena, usage_part_fn fn, void *ctx,
                    struct why *why) MUSTCHECK;

#endif
