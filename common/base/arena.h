/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A bump allocator with a budget: everything of one request is freed at once. Compiled with
 * ARENA_MALLOC each allocation is a malloc of its own, so that a sanitizer sees overruns. One owner
 * thread.
 */
#ifndef BASE_ARENA_H
#define BASE_ARENA_H

#include "base/err.h"
#include "base/str.h"

struct arena_block;

struct arena {
    struct arena_block *blocks;
    size_t used, budget; /* bytes handed out, and how many may be */
};

void arena_init(struct arena *a, size_t budget);
void arena_done(struct arena *a);
/* Frees everything but the newest block, which the next user finds warm. */
void arena_reset(struct arena *a);

/* Aligned to 16, not cleared. NULL when the budget or memory is out. */
void *arena_alloc(struct arena *a, size_t n) MUSTCHECK;
void *arena_calloc(struct arena *a, size_t n) MUSTCHECK;
/* A copy of s with a NUL behind it. */
char *arena_dupz(struct arena *a, struct str s) MUSTCHECK;
enum err arena_dup(struct arena *a, struct str s, struct str *ret) MUSTCHECK;

#endif
