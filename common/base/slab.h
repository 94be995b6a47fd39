/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pieces of memory of one size, for what comes and goes with each request: what was put back is
 * handed out again, still warm in the cache. A bounded number rests here; the rest goes back to
 * malloc. With ARENA_MALLOC nothing rests, so that a sanitizer sees each piece. One owner thread.
 */
#ifndef BASE_SLAB_H
#define BASE_SLAB_H

#include "base/buf.h"

struct slab {
    size_t size;       /* of a piece */
    size_t rest, most; /* pieces that rest; how many may */
    void *first;       /* of those; each begins with a pointer to the next */
};

void slab_init(struct slab *s, size_t size, size_t most);
void slab_done(struct slab *s);
void *slab_get(struct slab *s); /* not zeroed; NULL: out of memory */
void slab_put(struct slab *s, void *p);

/* An empty buffer without memory gets a piece; without one it is as it was. */
void slab_lend(struct slab *s, struct buf *b);
/* Like buf_done(): the memory goes back here if it is still a piece. */
void slab_take_back(struct slab *s, struct buf *b);

#endif
