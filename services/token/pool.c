/* SPDX-License-Identifier: Apache-2.0 */
/* See the header. A job's memory is counted from pool_add() until a thread takes it. */
#include "pool.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/queue.h"

enum { THREADS_MAX = 64, LARGE_NICE = 10 };

struct job {
    void (*run)(void *ctx);
    void *ctx;
    size_t bytes;
};

struct lane {
    struct queue *queue;
    pthread_t threads[THREADS_MAX];
    unsigned threads_n;
    bool nice;
    _Atomic size_t waiting, running, bytes;
};

struct pool {
    struct pool_options o;
    struct lane lanes[POOL_LANES];
    atomic_bool ending;
};

static void *work(void *arg)
{
    struct lane *l = arg;
    void *item;
    /* On Linux a thread has a niceness of its own. Not being allowed to is no harm. */
    if (l->nice) (void)setpriority(PRIO_PROCESS, (id_t)gettid(), LARGE_NICE);
    while (queue_pop(l->queue, -1, &item) == ERR_OK) {
        struct job *j = item;
        atomic_fetch_add(&l->running, 1);
        atomic_fetch_sub(&l->waiting, 1);
        atomic_fetch_sub(&l->bytes, j->bytes);
        j->run(j->ctx);
        atomic_fetch_sub(&l->running, 1);
        free(j);
    }
    return NULL;
}

enum err pool_add(struct pool *p, size_t bytes, void (*run)(void *ctx), void *ctx)
{
    struct lane *l = &p->lanes[bytes <= POOL_SMALL_BYTES ? POOL_SMALL : POOL_LARGE];
    struct job *j = malloc(sizeof *j);
    if (j == NULL) return ERR_LIMIT;
    *j = (struct job){ run, ctx, bytes };
    /* A single job of any size is let in. */
    size_t before = atomic_fetch_add(&l->bytes, bytes);
    atomic_fetch_add(&l->waiting, 1);
    enum err e = before > 0 && before + bytes > p->o.bytes ? ERR_LIMIT : queue_push(l->queue, j);
    if (e == ERR_OK) return ERR_OK;
    atomic_fetch_sub(&l->bytes, bytes);
    atomic_fetch_sub(&l->waiting, 1);
    free(j);
    return e;
}

bool pool_is_ending(const struct pool *p)
{
    return atomic_load_explicit(&p->ending, memory_order_relaxed);
}

void pool_stats(const struct pool *p, enum pool_lane lane, struct pool_stats *ret)
{
    const struct lane *l = &p->lanes[lane];
    *ret = (struct pool_stats){ atomic_load(&l->waiting), atomic_load(&l->running),
                                atomic_load(&l->bytes) };
}

size_t pool_inflight(const struct pool *p)
{
    size_t n = 0;
    for (int i = 0; i < POOL_LANES; i++)
        n += atomic_load(&p->lanes[i].waiting) + atomic_load(&p->lanes[i].running);
    return n;
}

enum err pool_new(const struct pool_options *o, struct pool **ret, struct why *why)
{
    struct pool *p = xcalloc(1, sizeof *p);
    enum err e = ERR_OK;
    p->o = *o;
    for (int i = 0; i < POOL_LANES; i++) {
        struct lane *l = &p->lanes[i];
        l->queue = queue_new(o->jobs);
        l->nice = i == POOL_LARGE;
        for (unsigned k = 0; e == ERR_OK && k < MIN(o->threads, THREADS_MAX); k++) {
            if (pthread_create(&l->threads[k], NULL, work, l) != 0)
                e = why_set(why, ERR_NOMEM, "cannot start a thread");
            else
                l->threads_n++;
        }
    }
    if (e != ERR_OK)
        pool_free(p);
    else
        *ret = p;
    return e;
}

void pool_end(struct pool *p)
{
    if (p == NULL) return;
    atomic_store(&p->ending, true);
    for (int i = 0; i < POOL_LANES; i++) queue_close(p->lanes[i].queue);
    for (int i = 0; i < POOL_LANES; i++) {
        struct lane *l = &p->lanes[i];
        for (; l->threads_n > 0; l->threads_n--) pthread_join(l->threads[l->threads_n - 1], NULL);
    }
}

void pool_free(struct pool *p)
{
    if (p == NULL) return;
    pool_end(p);
    for (int i = 0; i < POOL_LANES; i++) queue_free(p->lanes[i].queue);
    free(p);
}
