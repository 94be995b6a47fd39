/* SPDX-License-Identifier: Apache-2.0 */
#include "base/queue.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "base/clock.h"

struct queue {
    pthread_mutex_t lock;
    pthread_cond_t filled;
    size_t cap, head, len;
    bool closed;
    void *items[];
};

struct queue *queue_new(size_t cap)
{
    struct queue *q = xcalloc(1, sizeof *q + cap * sizeof(void *));
    pthread_condattr_t attr;
    q->cap = cap;
    pthread_mutex_init(&q->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&q->filled, &attr);
    pthread_condattr_destroy(&attr);
    return q;
}

void queue_free(struct queue *q)
{
    if (q == NULL) return;
    pthread_cond_destroy(&q->filled);
    pthread_mutex_destroy(&q->lock);
    free(q);
}

enum err queue_push(struct queue *q, void *item)
{
    enum err e = ERR_OK;
    pthread_mutex_lock(&q->lock);
    if (q->closed) {
        e = ERR_CLOSED;
    } else if (q->len == q->cap) {
        e = ERR_LIMIT;
    } else {
        q->items[(q->head + q->len++) % q->cap] = item;
        pthread_cond_signal(&q->filled);
    }
    pthread_mutex_unlock(&q->lock);
    return e;
}

enum err queue_pop(struct queue *q, int timeout_ms, void **ret_item)
{
    struct timespec until = clock_in_ms((uint64_t)MAX(timeout_ms, 0));
    int rc = 0;
    enum err e = ERR_OK;
    pthread_mutex_lock(&q->lock);
    while (q->len == 0 && !q->closed && rc != ETIMEDOUT) {
        if (timeout_ms < 0)
            rc = pthread_cond_wait(&q->filled, &q->lock);
        else
            rc = pthread_cond_timedwait(&q->filled, &q->lock, &until);
    }
    if (q->len > 0) {
        *ret_item = q->items[q->head];
        q->head = (q->head + 1) % q->cap;
        q->len--;
    } else {
        e = q->closed ? ERR_CLOSED : ERR_TIMEOUT;
    }
    pthread_mutex_unlock(&q->lock);
    return e;
}

void queue_close(struct queue *q)
{
    pthread_mutex_lock(&q->lock);
    q->closed = true;
    pthread_cond_broadcast(&q->filled);
    pthread_mutex_unlock(&q->lock);
}

size_t queue_len(struct queue *q)
{
    pthread_mutex_lock(&q->lock);
    size_t n = q->len;
    pthread_mutex_unlock(&q->lock);
    return n;
}
