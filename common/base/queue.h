/* SPDX-License-Identifier: Apache-2.0 */
/* Bounded queue of pointers between threads: any number of producers and consumers; closable. */
#ifndef BASE_QUEUE_H
#define BASE_QUEUE_H

#include <stdint.h>

#include "base/err.h"

struct queue;

struct queue *queue_new(size_t cap); /* dies when memory is out */
void queue_free(struct queue *q);    /* NULL is fine; what it still holds is the caller's affair */

/* Never blocks: ERR_LIMIT when full, ERR_CLOSED after queue_close(). Does not take ownership unless
 * ERR_OK. */
enum err queue_push(struct queue *q, void *item) MUSTCHECK;
/* Waits up to timeout_ms (-1: for ever, 0: not at all): ERR_TIMEOUT when nothing came, ERR_CLOSED
 * when closed and empty. */
enum err queue_pop(struct queue *q, int timeout_ms, void **ret_item) MUSTCHECK;
void queue_close(struct queue *q); /* wakes all who wait */
size_t queue_len(struct queue *q);

#endif
