/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Counting for edges over the bus: token.count, in a queue group. The bus's thread only copies a
 * request into a bounded queue; worker threads count and answer, so a long prompt does not delay
 * short ones. When the queue is full the request is refused at once: the edge then counts itself.
 */
#include "service.h"

#include <stdlib.h>
#include <string.h>

#include "base/queue.h"
#include "proto/subjects.h"

enum {
    QUEUE_MAX = 1024,       /* requests that wait */
    QUEUE_BYTES = 64 << 20, /* and their bytes */
    ARENA_BASE = 8 << 20,
    ARENA_PER_BYTE = 32,
    ANSWER_MAX = 16 << 10,
    THREADS_MAX = 64,
};

struct job {
    size_t data_n, reply_n;
    char bytes[]; /* data, then the reply subject */
};

struct bus_workers {
    struct service *service;
    struct queue *queue;
    pthread_mutex_t lock; /* guards sub: workers note their times in it until it goes */
    struct bus_sub *sub;
    pthread_t threads[THREADS_MAX];
    unsigned threads_n;
    _Atomic size_t inflight, bytes; /* waiting and being counted */
};

static void reply_error(struct bus_workers *w, struct str to, enum err e,
                        const struct chat_error *error)
{
    struct service *s = w->service;
    struct bus *bus = s->bus;
    struct buf out;
    buf_init(&out, ANSWER_MAX);
    if (token_msg_error(&out, s->clock, s->rng, bus_instance(bus), e, error) == ERR_OK &&
        bus_reply(bus, to, buf_str(&out)) != ERR_OK)
        log_debug("an answer could not be sent");
    buf_done(&out);
    service_note_request(s, "bus", e == ERR_INVALID ? 400 : e == ERR_LIMIT ? 413 : 503);
}

static void serve_job(struct bus_workers *w, const struct job *j)
{
    struct service *s = w->service;
    struct bus *bus = s->bus;
    struct str data = str_n(j->bytes, j->data_n), to = str_n(j->bytes + j->data_n, j->reply_n);
    struct chat_error error = { .raised = false };
    struct token_request q;
    struct chat_count c;
    struct arena a;
    struct buf out;
    uint64_t start = clock_mono_ns(s->clock);
    struct models *models = service_models(s);
    arena_init(&a, ARENA_BASE + ARENA_PER_BYTE * data.n);
    buf_init(&out, ANSWER_MAX);
    enum err e = token_msg_request_parse(&a, data, &q, &error);
    if (e == ERR_OK) e = service_count(s, models, &q, data.n, &a, &c, &error);
    if (e == ERR_OK) e = token_msg_answer(&out, s->clock, s->rng, bus_instance(bus), q.model, &c);
    if (e == ERR_OK) {
        if (bus_reply(bus, to, buf_str(&out)) != ERR_OK) log_debug("an answer could not be sent");
        service_note_request(s, "bus", 200);
    } else {
        reply_error(w, to, e, &error);
    }
    pthread_mutex_lock(&w->lock);
    if (e != ERR_OK) bus_endpoint_error(w->sub, err_name(e)); /* not its words: they may quote */
    bus_endpoint_time(w->sub, clock_mono_ns(s->clock) - start);
    pthread_mutex_unlock(&w->lock);
    buf_done(&out);
    arena_done(&a);
    models_unref(models);
}

static void *work(void *arg)
{
    struct bus_workers *w = arg;
    void *item;
    while (queue_pop(w->queue, -1, &item) == ERR_OK) {
        struct job *j = item;
        serve_job(w, j);
        atomic_fetch_sub(&w->bytes, j->data_n);
        atomic_fetch_sub(&w->inflight, 1);
        free(j);
    }
    return NULL;
}

static void on_request(void *ctx, const struct bus_msg *msg)
{
    struct bus_workers *w = ctx;
    struct chat_error error = { .raised = false };
    enum err e = ERR_OK;
    if (msg->reply.n == 0) return; /* nobody waits for it */
    if (msg->data.n > TOKEN_MSG_MAX)
        e = why_set(&error.why, ERR_LIMIT, "the message is larger than %d bytes", TOKEN_MSG_MAX);
    else if (atomic_load(&w->bytes) + msg->data.n > QUEUE_BYTES)
        e = why_set(&error.why, ERR_UNAVAILABLE, "too many requests wait already");
    struct job *j = e == ERR_OK ? malloc(sizeof *j + msg->data.n + msg->reply.n) : NULL;
    if (j != NULL) {
        j->data_n = msg->data.n;
        j->reply_n = msg->reply.n;
        if (msg->data.n > 0) memcpy(j->bytes, msg->data.p, msg->data.n);
        memcpy(j->bytes + msg->data.n, msg->reply.p, msg->reply.n);
        atomic_fetch_add(&w->bytes, msg->data.n);
        atomic_fetch_add(&w->inflight, 1);
        if (queue_push(w->queue, j) == ERR_OK) return;
        atomic_fetch_sub(&w->bytes, msg->data.n);
        atomic_fetch_sub(&w->inflight, 1);
        free(j);
    }
    if (e == ERR_OK) e = why_set(&error.why, ERR_UNAVAILABLE, "too many requests wait already");
    reply_error(w, msg->reply, e, &error);
}

enum err bus_workers_start(struct service *s, unsigned threads, struct bus_workers **ret,
                           struct why *why)
{
    struct bus *bus = s->bus;
    char subject[SUBJECT_LEN];
    struct bus_workers *w = xcalloc(1, sizeof *w);
    struct bus_sub *sub = NULL;
    w->service = s;
    w->queue = queue_new(QUEUE_MAX);
    pthread_mutex_init(&w->lock, NULL);
    subject_make(bus_prefix(bus), SUBJECT_TOKEN_COUNT, NULL, subject);
    struct bus_endpoint endpoint = { .name = "count",
                                     .subject = subject,
                                     .queue = subject_queue(SUBJECT_TOKEN_COUNT) };
    enum err e = ERR_OK;
    for (unsigned i = 0; e == ERR_OK && i < MIN(threads, THREADS_MAX); i++) {
        if (pthread_create(&w->threads[i], NULL, work, w) != 0)
            e = why_set(why, ERR_NOMEM, "cannot start a thread");
        else
            w->threads_n++;
    }
    if (e == ERR_OK) {
        e = bus_serve(bus, &endpoint, on_request, w, &sub);
        if (e != ERR_OK) why_set(why, e, "cannot serve %s: %s", subject, err_name(e));
    }
    pthread_mutex_lock(&w->lock);
    w->sub = sub;
    pthread_mutex_unlock(&w->lock);
    if (e != ERR_OK) {
        bus_workers_free(w);
        return e;
    }
    *ret = w;
    return ERR_OK;
}

void bus_workers_quiesce(struct bus_workers *w)
{
    pthread_mutex_lock(&w->lock);
    struct bus_sub *sub = w->sub;
    w->sub = NULL;
    pthread_mutex_unlock(&w->lock);
    bus_unsubscribe(sub);
}

size_t bus_workers_inflight(const struct bus_workers *w)
{
    return atomic_load(&w->inflight);
}

void bus_workers_free(struct bus_workers *w)
{
    void *item;
    if (w == NULL) return;
    bus_workers_quiesce(w);
    queue_close(w->queue);
    for (unsigned i = 0; i < w->threads_n; i++) pthread_join(w->threads[i], NULL);
    while (queue_pop(w->queue, 0, &item) == ERR_OK) free(item);
    queue_free(w->queue);
    pthread_mutex_destroy(&w->lock);
    free(w);
}
