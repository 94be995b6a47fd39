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
    bool after_cr; /* pending ended in CR: a LF that follows belongs to it */
    bool begun;    /* a BOM is not expected any more */
};

typedef enum err (*sse_fn)(void *ctx, const struct sse_event *ev);

/* event_max: most bytes of one event. */
void sse_init(struct sse *s, size_t event_max);
void sse_done(struct sse *s);
/* Calls fn for each event that is complete. ERR_LIMIT: an event is larger than event_max. Errors of
 * fn end it. */
enum err sse_feed(struct sse *s, struct str bytes, sse_fn fn, void *ctx) MUSTCHECK;
/* The stream ended: what is left without its empty line is handed to fn as a last event, as some
 * servers end that way; its raw bytes have the line ends that it lacked. */
enum err sse_finish(struct sse *s, sse_fn fn, void *ctx) MUSTCHECK;

#endif
