/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Server-sent events (WHATWG HTML, 9.2) found in a byte stream: LF, CRLF and CR line ends,
 * comments, multi-line data, BOM, any split. Each event is given with its raw bytes, so that it can
 * be passed on as it came. Pure; one owner.
 */
#ifndef EDGE_SSE_H
#define EDGE_SSE_H

#include "base/buf.h"

struct sse_event {
    struct str raw;  /* everything from its first line through the empty line that ends it */
    struct str data; /* data lines joined by \n; p == NULL when there was none */
    struct str name; /* the last event field; p == NULL when there was none */
};

struct sse {
    struct buf pending; /* bytes of an event that is not complete */
    struct buf data;    /* joined data when it had several lines */
    size_t scanned;     /* how far pending was looked through */
    size_t line_start;
    bool after_cr; /* what was taken ended in CR: a LF that follows belongs to it */
    bool begun;    /* a BOM is not expected any more */
    bool given;    /* the last event lies in pending */
};

/* event_max: most bytes of one event that does not come at once. */
void sse_init(struct sse *s, size_t event_max);
void sse_done(struct sse *s);
/* The next event that is complete; *bytes moves behind what was taken. Its slices live until the
 * next call, and as long as the bytes do. ERR_AGAIN: all bytes were taken, and no event is
 * complete. ERR_LIMIT: an event is larger than event_max; ERR_NOMEM. */
enum err sse_next(struct sse *s, struct str *bytes, struct sse_event *ret) MUSTCHECK;
/* The next byte is the first of an event behind the stream's first. */
bool sse_is_between(const struct sse *s);
/* The stream ended: what is left without its empty line is a last event, as some servers end that
 * way; its raw bytes have the line ends that it lacked. ERR_AGAIN: nothing is left. */
enum err sse_last(struct sse *s, struct sse_event *ret) MUSTCHECK;

#endif
