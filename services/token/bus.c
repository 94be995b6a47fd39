/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Counting for edges over the bus: token.count, in a queue group. The bus's thread only copies a
 * request and hands it to the pool, whose threads count and answer. When too many wait the request
 * is refused at once: the edge then counts itself. A request says how long its asker waits
 * (timeout_ms, from when it comes in): what would be too late is given up, and not answered.
 */
#include "service.h"

#include <stdlib.h>
#include <string.h>

#include "proto/subjects.h"

enum {
    ARENA_BASE = 8 << 20,
    ARENA_PER_BYTE = 32,
    ANSWER_MAX = 16 << 10,
};

struct bus_face {
    struct service *service;
    pthread_mutex_t lock; /* guards sub: jobs note their times in it until it goes */
    struct bus_sub *sub;
};

struct job {
    struct bus_face *face;
    uint64_t came_ns;
    size_t data_n, reply_n;
    char bytes[]; /* data, then the reply subject */
};

static int status_of(enum err e)
{
    return e == ERR_OK || e == ERR_UNSUPPORTED      ? (e == ERR_OK ? 200 : 400)
           : e == ERR_INVALID                       ? 400
           : e == ERR_LIMIT                         ? 413
           : e == ERR_CLOSED                        ? SERVICE_GONE
           : e == ERR_UNAVAILABLE || e == ERR_NOMEM ? 503
                                                    : 500;
}

static void reply_error(struct service *s, struct str to, enum err e,
                        const struct chat_error *error)
{
    struct buf out;
    buf_init(&out, ANSWER_MAX);
    if (token_msg_error(&out, s->clock, s->rng, bus_instance(s->bus), e, error) == ERR_OK &&
        bus_reply(s->bus, to, buf_str(&out)) != ERR_OK)
        log_debug("an answer could not be sent");
    buf_done(&out);
}

static void note(struct bus_face *f, enum err e, uint64_t ns)
{
    pthread_mutex_lock(&f->lock);
    if (e != ERR_OK) bus_endpoint_error(f->sub, err_name(e)); /* not its words: they may quote */
    if (ns > 0) bus_endpoint_time(f->sub, ns);
    pthread_mutex_unlock(&f->lock);
    service_note_request(f->service, "bus", status_of(e));
}

static void serve_job(void *ctx)
{
    struct job *j = ctx;
    struct service *s = j->face->service;
    struct str data = str_n(j->bytes, j->data_n), to = str_n(j->bytes + j->data_n, j->reply_n);
    struct chat_error error = { .raised = false };
    struct token_request q;
    struct chat_count c;
    struct waiter w;
    struct arena a;
    struct buf out;
    uint64_t start = clock_mono_ns(s->clock);
    struct models *models = service_models(s);
    waiter_init(&w, s, NULL);
    arena_init(&a, ARENA_BASE + ARENA_PER_BYTE * data.n);
    buf_init(&out, ANSWER_MAX);
    enum err e = token_msg_request_parse(&a, data, &q, &error);
    if (e == ERR_OK && q.timeout_ms > 0) w.deadline_ns = j->came_ns + q.timeout_ms * 1000000;
    if (e == ERR_OK && stop_asked(&w.stop)) e = ERR_CLOSED;
    if (e == ERR_OK) e = service_count(s, models, &q, data.n, &w, &a, &c, &error);
    if (e == ERR_OK)
        e = token_msg_answer(&out, s->clock, s->rng, bus_instance(s->bus), q.model, &c);
    if (e == ERR_OK && bus_reply(s->bus, to, buf_str(&out)) != ERR_OK)
        log_debug("an answer could not be sent");
    if (e != ERR_OK && e != ERR_CLOSED) reply_error(s, to, e, &error);
    note(j->face, e, clock_mono_ns(s->clock) - start);
    buf_done(&out);
    arena_done(&a);
    models_unref(models);
    free(j);
}

static void on_request(void *ctx, const struct bus_msg *msg)
{
    struct bus_face *f = ctx;
    struct service *s = f->service;
    struct chat_error error = { .raised = false };
    enum err e = ERR_UNAVAILABLE;
    if (msg->reply.n == 0) return; /* nobody waits for it */
    struct job *j = NULL;
    if (msg->data.n > TOKEN_MSG_MAX)
        e = why_set(&error.why, ERR_LIMIT, "the message is larger than %d bytes", TOKEN_MSG_MAX);
    else
        j = malloc(sizeof *j + msg->data.n + msg->reply.n);
    if (j != NULL) {
        *j = (struct job){ f, clock_mono_ns(s->clock), msg->data.n, msg->reply.n };
        if (msg->data.n > 0) memcpy(j->bytes, msg->data.p, msg->data.n);
        memcpy(j->bytes + msg->data.n, msg->reply.p, msg->reply.n);
        if (pool_add(s->pool, msg->data.n, serve_job, j) == ERR_OK) return;
        free(j);
    }
    if (e == ERR_UNAVAILABLE) (void)why_set(&error.why, e, "too many requests wait already");
    reply_error(s, msg->reply, e, &error);
    note(f, e, 0);
}

enum err bus_face_start(struct service *s, struct bus_face **ret, struct why *why)
{
    char subject[SUBJECT_LEN];
    struct bus_face *f = xcalloc(1, sizeof *f);
    struct bus_sub *sub = NULL;
    f->service = s;
    pthread_mutex_init(&f->lock, NULL);
    subject_make(bus_prefix(s->bus), SUBJECT_TOKEN_COUNT, NULL, subject);
    struct bus_endpoint endpoint = { .name = "count",
                                     .subject = subject,
                                     .queue = subject_queue(SUBJECT_TOKEN_COUNT) };
    enum err e = bus_serve(s->bus, &endpoint, on_request, f, &sub);
    if (e != ERR_OK) {
        why_set(why, e, "cannot serve %s: %s", subject, err_name(e));
        bus_face_free(f);
        return e;
    }
    pthread_mutex_lock(&f->lock);
    f->sub = sub;
    pthread_mutex_unlock(&f->lock);
    *ret = f;
    return ERR_OK;
}

void bus_face_quiesce(struct bus_face *f)
{
    pthread_mutex_lock(&f->lock);
    struct bus_sub *sub = f->sub;
    f->sub = NULL;
    pthread_mutex_unlock(&f->lock);
    bus_unsubscribe(sub);
}

void bus_face_free(struct bus_face *f)
{
    if (f == NULL) return;
    bus_face_quiesce(f);
    pthread_mutex_destroy(&f->lock);
    free(f);
}
