/* SPDX-License-Identifier: Apache-2.0 */
/* Listener and workers; see the header. */
#include "server.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "conn.h"

enum { BACKLOG = 4096, ACCEPT_BATCH = 64, ANSWER_MAX = 1 << 30 };

static enum err open_listener(const struct server_options *o, int *ret_fd, uint16_t *ret_port,
                              struct why *why)
{
    struct addrinfo hints = { .ai_family = AF_UNSPEC,
                              .ai_socktype = SOCK_STREAM,
                              .ai_flags = AI_PASSIVE | AI_NUMERICHOST | AI_NUMERICSERV };
    struct addrinfo *list = NULL;
    char port[8];
    int one = 1;
    snprintf(port, sizeof port, "%u", o->port);
    if (getaddrinfo(o->bind, port, &hints, &list) != 0)
        return why_set(why, ERR_INVALID, "'%s' is not an address", o->bind);
    int fd = socket(list->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    bool ok = fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) == 0 &&
              bind(fd, list->ai_addr, list->ai_addrlen) == 0 && listen(fd, BACKLOG) == 0;
    freeaddrinfo(list);
    struct sockaddr_storage at;
    socklen_t len = sizeof at;
    if (!ok || getsockname(fd, (struct sockaddr *)&at, &len) != 0) {
        enum err e = why_set(why, ERR_IO, "cannot listen on %s:%s: %s", o->bind, port,
                             strerror(errno));
        if (fd >= 0) close(fd);
        return e;
    }
    /* The port is at the same place in both families. */
    struct sockaddr_in in;
    memcpy(&in, &at, sizeof in);
    *ret_port = ntohs(in.sin_port);
    *ret_fd = fd;
    return ERR_OK;
}

static void on_accept(void *ctx, unsigned events)
{
    struct worker *w = ctx;
    (void)events;
    for (int i = 0; i < ACCEPT_BATCH; i++) {
        int fd = accept4(w->listen_io.fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) return; /* none is waiting, or one that left, or no descriptor is free */
        conn_open(w, fd);
    }
}

static void *run(void *ctx)
{
    struct worker *w = ctx;
    loop_run(w->loop);
    return NULL;
}

enum err server_new(const struct server_options *o, struct server **ret, struct why *why)
{
    struct behave check;
    struct server *s = xcalloc(1, sizeof *s);
    enum err e;
    s->listen_fd = -1;
    s->options = *o;
    s->counter.models = o->vocabs;
    s->bind = xstrdup(o->bind);
    s->api_key = xstrdup(o->api_key != NULL ? o->api_key : "");
    s->models = xstrdup(o->models != NULL ? o->models : "");
    s->options.bind = s->bind;
    s->options.api_key = s->api_key;
    s->options.models = s->models;
    s->options.behaviour = NULL;
    s->options.threads = MAX(o->threads, 1);
    pthread_mutex_init(&s->lock, NULL);
    s->store = store_new(o->clock, o->record_all, o->record_body);
    s->workers = xcalloc(s->options.threads, sizeof *s->workers);
    behave_init(&check);
    struct str behaviour = str_of(o->behaviour != NULL ? o->behaviour : "");
    e = behave_parse(&check, behaviour, ';', why);
    if (e == ERR_OK && !str_copyz(s->behaviour, sizeof s->behaviour, behaviour))
        e = why_set(why, ERR_LIMIT, "the default behaviour is too long");
    if (e == ERR_OK) e = open_listener(o, &s->listen_fd, &s->port, why);
    for (unsigned i = 0; i < s->options.threads; i++) {
        struct worker *w = &s->workers[i];
        w->server = s;
        w->loop = loop_new(o->clock);
        list_init(&w->conns);
        buf_init(&w->body, ANSWER_MAX);
        if (e == ERR_OK && loop_add(w->loop, &w->listen_io, s->listen_fd,
                                    LOOP_READ | LOOP_EXCLUSIVE, on_accept, w) != ERR_OK)
            e = why_set(why, ERR_IO, "cannot watch the listening socket");
    }
    for (unsigned i = 0; i < s->options.threads && e == ERR_OK; i++)
        ASSERT(pthread_create(&s->workers[i].thread, NULL, run, &s->workers[i]) == 0);
    if (e != ERR_OK) {
        s->counter.models = NULL; /* stays the caller's */
        server_free(s);
        return e;
    }
    *ret = s;
    return ERR_OK;
}

uint16_t server_port(const struct server *s)
{
    return s->port;
}

struct store *server_store(struct server *s)
{
    return s->store;
}

size_t server_inflight(struct server *s)
{
    return store_inflight(s->store);
}

static void quiesce_worker(void *ctx)
{
    struct worker *w = ctx;
    loop_remove(w->loop, &w->listen_io);
    LIST_EACH_SAFE(it, &w->conns)
    {
        struct conn *c = LIST_ENTRY(it, struct conn, node);
        if (c->state == CONN_READING && c->in.len == 0) conn_drop(c, ENDED_DONE);
    }
}

void server_quiesce(struct server *s)
{
    atomic_store(&s->draining, true);
    for (unsigned i = 0; i < s->options.threads; i++)
        ASSERT(loop_post(s->workers[i].loop, quiesce_worker, &s->workers[i]) == ERR_OK);
}

static void drop_all(void *ctx)
{
    struct worker *w = ctx;
    loop_remove(w->loop, &w->listen_io);
    LIST_EACH_SAFE(it, &w->conns)
    {
        conn_drop(LIST_ENTRY(it, struct conn, node), ENDED_SHUTDOWN);
    }
    loop_stop(w->loop);
}

void server_free(struct server *s)
{
    if (s == NULL) return;
    for (unsigned i = 0; i < s->options.threads; i++) {
        struct worker *w = &s->workers[i];
        if (w->thread != 0) {
            ASSERT(loop_post(w->loop, drop_all, w) == ERR_OK);
            pthread_join(w->thread, NULL);
        }
        loop_remove(w->loop, &w->listen_io);
        loop_free(w->loop);
        buf_done(&w->body);
    }
    if (s->listen_fd >= 0) close(s->listen_fd);
    models_unref(s->counter.models);
    store_free(s->store);
    pthread_mutex_destroy(&s->lock);
    free(s->workers);
    free(s->bind);
    free(s->api_key);
    free(s->models);
    free(s);
}
