/* SPDX-License-Identifier: Apache-2.0 */
#include "base/arena.h"

#include <stdlib.h>
#include <string.h>

/* Blocks double, so that a small request costs little and a large one few allocations. The first
 * one, with what stands in front of it, is of a size that malloc() keeps at hand for its thread. */
enum { FIRST_BLOCK = 992, LAST_BLOCK = 15872, ALIGN = 16 };

struct arena_block {
    struct arena_block *next;
    size_t cap, len;
    _Alignas(ALIGN) char data[];
};

void arena_init(struct arena *a, size_t budget)
{
    *a = (struct arena){ .budget = budget };
}

void arena_done(struct arena *a)
{
    while (a->blocks != NULL) {
        struct arena_block *next = a->blocks->next;
        free(a->blocks);
        a->blocks = next;
    }
    a->used = 0;
}

void arena_reset(struct arena *a)
{
#ifdef ARENA_MALLOC
    arena_done(a);
#else
    struct arena_block *keep = a->blocks;
    if (keep == NULL || keep->cap > LAST_BLOCK) {
        arena_done(a);
        return;
    }
    a->blocks = keep->next;
    keep->next = NULL;
    arena_done(a);
    keep->len = 0;
    a->blocks = keep;
    a->used = 0;
#endif
}

static struct arena_block *add_block(struct arena *a, size_t cap)
{
    struct arena_block *b = malloc(sizeof *b + cap);
    if (b == NULL) return NULL;
    *b = (struct arena_block){ .next = a->blocks, .cap = cap };
    a->blocks = b;
    return b;
}

void *arena_alloc(struct arena *a, size_t n)
{
    size_t need = (n + ALIGN - 1) & ~(size_t)(ALIGN - 1);
    if (need < n || need > a->budget - a->used) return NULL;
#ifdef ARENA_MALLOC
    struct arena_block *b = add_block(a, n);
    if (b == NULL) return NULL;
#else
    struct arena_block *b = a->blocks;
    if (b == NULL || need > b->cap - b->len) {
        size_t size = b == NULL ? FIRST_BLOCK : MIN(b->cap * 2, (size_t)LAST_BLOCK);
        b = add_block(a, MAX(need, size));
    }
    if (b == NULL) return NULL;
#endif
    void *p = b->data + b->len;
    b->len += need;
    a->used += need;
    return p;
}

void *arena_calloc(struct arena *a, size_t n)
{
    void *p = arena_alloc(a, n);
    return p != NULL ? memset(p, 0, n) : NULL;
}

char *arena_dupz(struct arena *a, struct str s)
{
    char *z = arena_alloc(a, s.n + 1);
    if (z == NULL) return NULL;
    if (s.n > 0) memcpy(z, s.p, s.n);
    z[s.n] = '\0';
    return z;
}

enum err arena_dup(struct arena *a, struct str s, struct str *ret)
{
    const char *z = arena_dupz(a, s);
    if (z == NULL) return ERR_NOMEM;
    *ret = str_n(z, s.n);
    return ERR_OK;
}
