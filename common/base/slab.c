/* SPDX-License-Identifier: Apache-2.0 */
#include "base/slab.h"

#include <stdlib.h>

#ifdef ARENA_MALLOC
enum { RESTING = 0 };
#else
enum { RESTING = 1 };
#endif

void slab_init(struct slab *s, size_t size, size_t most)
{
    ASSERT(size >= sizeof(void *));
    *s = (struct slab){ .size = size, .most = RESTING ? most : 0 };
}

void slab_done(struct slab *s)
{
    for (void *p = s->first, *next; p != NULL; p = next) {
        memcpy(&next, p, sizeof next);
        free(p);
    }
    s->first = NULL;
    s->rest = 0;
}

void *slab_get(struct slab *s)
{
    void *p = s->first;
    if (p == NULL) return malloc(s->size);
    memcpy(&s->first, p, sizeof s->first);
    s->rest--;
    return p;
}

void slab_put(struct slab *s, void *p)
{
    if (p == NULL || s->rest >= s->most) {
        free(p);
        return;
    }
    memcpy(p, &s->first, sizeof s->first);
    s->first = p;
    s->rest++;
}

void slab_lend(struct slab *s, struct buf *b)
{
    if (b->data != NULL || b->max < s->size) return;
    b->data = slab_get(s);
    b->cap = b->data != NULL ? s->size : 0;
}

void slab_take_back(struct slab *s, struct buf *b)
{
    if (b->data != NULL && b->cap == s->size)
        slab_put(s, b->data);
    else
        free(b->data);
    *b = (struct buf){ .max = b->max };
}
