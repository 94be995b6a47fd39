/* SPDX-License-Identifier: Apache-2.0 */
#include "debug.h"

#include <stdlib.h>

#include "base/clock.h"
#include "client/client.h"
#include "edge.h"
#include "flow/flow.h"

enum { PER_WORKER = 1000, TEXT_MAX = 4 * 1024 * 1024, WAIT_S = 1 };

/* What one worker says. Belongs to the inquiry. */
struct part {
    struct inquiry *inquiry;
    struct worker *worker;
    struct buf text;
    size_t listed, flows;
    bool there;
};

/* Kept until the asker and every worker have let go: a worker may be later than the asker waits. */
struct inquiry {
    pthread_mutex_t lock;
    pthread_cond_t came;
    unsigned users, missing, n;
    struct part parts[];
};

static void let_go(struct inquiry *q)
{
    (void)pthread_mutex_lock(&q->lock);
    bool last = --q->users == 0;
    (void)pthread_mutex_unlock(&q->lock);
    if (!last) return;
    for (unsigned i = 0; i < q->n; i++) buf_done(&q->parts[i].text);
    (void)pthread_cond_destroy(&q->came);
    (void)pthread_mutex_destroy(&q->lock);
    free(q);
}

static void collect(void *ctx)
{
    struct part *p = ctx;
    struct inquiry *q = p->inquiry;
    struct worker *w = p->worker;
    enum err e = ERR_OK;
    p->flows = w->flows;
    LIST_EACH_SAFE(n, &w->clients)
    {
        const struct client *c = LIST_ENTRY(n, struct client, node);
        if (c->flow == NULL || p->listed == PER_WORKER || e != ERR_OK) continue;
        size_t before = p->text.len;
        if (before > 0) e = buf_appendz(&p->text, ",\n");
        if (e == ERR_OK) e = flow_describe(c->flow, &p->text);
        if (e == ERR_OK)
            p->listed++;
        else
            p->text.len = before;
    }
    (void)pthread_mutex_lock(&q->lock);
    p->there = true;
    q->missing--;
    (void)pthread_cond_signal(&q->came);
    (void)pthread_mutex_unlock(&q->lock);
    let_go(q);
}

static struct inquiry *ask(struct edge *e)
{
    struct inquiry *q = xcalloc(1, sizeof *q + e->workers_n * sizeof q->parts[0]);
    pthread_condattr_t attr;
    (void)pthread_mutex_init(&q->lock, NULL);
    (void)pthread_condattr_init(&attr);
    (void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&q->came, &attr);
    (void)pthread_condattr_destroy(&attr);
    q->n = q->missing = e->workers_n;
    q->users = 1 + e->workers_n;
    for (unsigned i = 0; i < e->workers_n; i++) {
        q->parts[i].inquiry = q;
        q->parts[i].worker = &e->workers[i];
        buf_init(&q->parts[i].text, TEXT_MAX);
        /* One that takes no more tasks stays missing. */
        if (loop_post(e->workers[i].loop, collect, &q->parts[i]) != ERR_OK) let_go(q);
    }
    return q;
}

void debug_requests(void *ctx, const struct http_request *req, struct http_reply *reply)
{
    struct edge *e = daemon_state(ctx);
    (void)req;
    if (e == NULL || !atomic_load(&e->running)) {
        reply->status = 503;
        return;
    }
    struct inquiry *q = ask(e);
    struct timespec until = clock_in_ms(WAIT_S * 1000);
    (void)pthread_mutex_lock(&q->lock);
    while (q->missing > 0 && pthread_cond_timedwait(&q->came, &q->lock, &until) == 0) {
    }
    size_t flows = 0, listed = 0;
    enum err err = buf_appendz(&reply->body, "{\"requests\":[");
    for (unsigned i = 0; i < q->n && err == ERR_OK; i++) {
        const struct part *p = &q->parts[i];
        if (!p->there) continue;
        flows += p->flows, listed += p->listed;
        if (p->text.len > 0 && reply->body.data[reply->body.len - 1] != '[')
            err = buf_appendz(&reply->body, ",\n");
        if (err == ERR_OK) err = buf_append_str(&reply->body, buf_str(&p->text));
    }
    if (err == ERR_OK)
        err = buf_printf(
            &reply->body,
            "],\n\"in_flight\":%zu,\"listed\":%zu,\"complete\":%s,\"usage_records\":%s}\n", flows,
            listed, q->missing == 0 && flows == listed ? "true" : "false",
            e->usage != NULL ? "true" : "false");
    (void)pthread_mutex_unlock(&q->lock);
    let_go(q);
    if (err != ERR_OK) reply->status = 500;
}
