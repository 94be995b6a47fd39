/* SPDX-License-Identifier: Apache-2.0 */
/* Heads of answers, well-formed or as faults ask. Pure. */
#ifndef REPLY_H
#define REPLY_H

#include "behave.h"

struct reply_head {
    int status;
    const char *content_type;
    enum framing framing; /* never AUTO */
    uint64_t length;      /* of FRAMING_LENGTH */
    bool keep_alive;
    const struct behave *behave; /* headers, encoding, faults of heads; may be NULL */
    uint64_t serial;             /* goes out as x-mock-serial */
};

enum err reply_head(struct buf *out, const struct reply_head *h) MUSTCHECK;

/* Changes one event in place: cut in the middle of its JSON; without the line ends behind it; with
 * n more bytes in its text. */
enum err event_cut_json(struct buf *event, const struct behave *b) MUSTCHECK;
void event_cut_newlines(struct buf *event);
enum err event_grow(struct buf *event, uint64_t n) MUSTCHECK;

#endif
