/* SPDX-License-Identifier: Apache-2.0 */
/* Edits of a text that is otherwise kept byte for byte: a list of places where bytes are taken out
 * and others put in. Pure. */
#ifndef EDGE_SPLICE_H
#define EDGE_SPLICE_H

#include "base/buf.h"

struct splice {
    const char *at; /* inside of the text, or at its end */
    size_t del;     /* bytes taken out there */
    struct str ins; /* put there instead; lives until splice_apply() */
};

/* Appends text with the edits made. Sorts s by place. ERR_INVALID: they overlap; ERR_LIMIT,
 * ERR_NOMEM. On an error out is as it was. */
enum err splice_apply(struct str text, struct splice *s, size_t n, struct buf *out) MUSTCHECK;

#endif
