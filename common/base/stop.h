/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A wish to stop, for work that takes long and whose result may lose its taker: the work asks at
 * bounded intervals and gives up with ERR_CLOSED. Asked by the thread that works, so what stands
 * behind it needs no thread of its own: a look at a socket, a deadline.
 */
#ifndef BASE_STOP_H
#define BASE_STOP_H

#include <stdbool.h>
#include <stddef.h>

struct stop {
    bool (*asked)(void *ctx); /* cheap: a system call at most */
    void *ctx;
};

/* s may be NULL: never. */
static inline bool stop_asked(const struct stop *s)
{
    return s != NULL && s->asked(s->ctx);
}

#endif
