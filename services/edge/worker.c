/* SPDX-License-Identifier: Apache-2.0 */
#include "worker.h"

#include <errno.h>
#include <netdb.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/client.h"
#include "flow/count.h"
#include "flow/flow.h"
#include "match/ruleset.h"
#include "match/tokens.h"
#include "upstreams/upstream.h"

enum {
    BACKLOG = 4096,
    ACCEPTS_PER_TURN = 64,
    HOUSEKEEPING_MS = 1000,
    ACCEPT_REST_MS = 100,
    RESTING = 256, /* pieces of memory of requests */
    GATHER_MAX = 256 * 1024,
    FIELDS_MAX = 128 * 1024
};

enum err worker_listen(const struct edge_settings *s, int *ret_fd, struct why *why)
{
    char port[16];
    struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICHOST },
                    *list = NULL;
    int one = 1;
    (void)snprintf(port, sizeof port, "%lld", (long long)s->port);
    if (getaddrinfo(s->bind, port, &hints, &list) != 0)
        return why_set(why, ERR_INVALID, "GATEWAY_BIND: %s is not an address", s->bind);
    int fd = socket(list->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    bool ok = fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) == 0 &&
              bind(fd, list->ai_addr, list->ai_addrlen) == 0 && listen(fd, BACKLOG) == 0;
    int failed = errno;
    freeaddrinfo(list);
    if (!ok) {
        if (fd >= 0) close(fd);
        return why_set(why, ERR_IO, "cannot listen on %s port %s: %s", s->bind, port,
                       strerror(failed));
    }
    *ret_fd = fd;
    return ERR_OK;
}

static void on_accept(void *ctx, unsigned events);

static void accept_again(void *ctx)
{
    struct worker *w = ctx;
    if (loop_add(w->loop, &w->listen_io, w->edge->listen_fd, LOOP_READ | LOOP_EXCLUSIVE, on_accept,
                 w) != ERR_OK)
        loop_timer_set(w->loop, &w->accept_timer,
                       loop_now_ns(w->loop) + ACCEPT_REST_MS * 1000000ull, accept_again, w);
}

/* Out of descriptors: the connection that waits would wake us without end. */
static void rest_from_accepting(struct worker *w)
{
    if (w->listen_io.generation == 0) return;
    loop_remove(w->loop, &w->listen_io);
    loop_timer_set(w->loop, &w->accept_timer, loop_now_ns(w->loop) + ACCEPT_REST_MS * 1000000ull,
                   accept_again, w);
}

/* Returns how many connections it took. */
static int accept_some(struct worker *w)
{
    for (int i = 0; i < ACCEPTS_PER_TURN; i++) {
        struct sockaddr_storage addr;
        socklen_t len = sizeof addr;
        int fd = accept4(w->edge->listen_fd, (struct sockaddr *)&addr, &len,
                         SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) {
            if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)
                rest_from_accepting(w);
            return i;
        }
        /* Who it is a PROXY header will tell. */
        if (w->edge->settings->proxy_protocol) addr.ss_family = AF_UNSPEC;
        enum guard_verdict v = guard_enter(w->edge->guard, &addr);
        if (v == GUARD_SHUT)
            close(fd);
        else
            client_accept(w, fd, &addr, v);
    }
    return ACCEPTS_PER_TURN;
}

static void on_accept(void *ctx, unsigned events)
{
    (void)events;
    (void)accept_some(ctx);
}

static void housekeeping(void *ctx)
{
    struct worker *w = ctx;
    pools_sweep(w->pools);
    loop_timer_set(w->loop, &w->housekeeping, loop_now_ns(w->loop) + HOUSEKEEPING_MS * 1000000ull,
                   housekeeping, w);
}

static void *run(void *ctx)
{
    struct worker *w = ctx;
    loop_run(w->loop);
    return NULL;
}

void workers_start(struct edge *e)
{
    for (unsigned i = 0; i < e->workers_n; i++) {
        struct worker *w = &e->workers[i];
        w->edge = e;
        w->index = i;
        w->loop = loop_new(e->clock);
        w->metrics = daemon_more_metrics(e->daemon);
        struct pools_options po = { .loop = w->loop,
                                    .resolver = e->resolver,
                                    .body_max = (size_t)e->settings->max_body,
                                    .scratch = w->scratch };
        w->pools = pools_new(&po);
        w->tokens = tokens_new(e->keyring);
        list_init(&w->clients);
        list_init(&w->drained);
        slab_init(&w->request_memory, sizeof(struct h1_request), RESTING);
        flow_slabs(w, RESTING);
        buf_init(&w->gather, GATHER_MAX);
        buf_init(&w->fields, FIELDS_MAX);
        w->counting = count_scratch_new();
        ASSERT(loop_add(w->loop, &w->listen_io, e->listen_fd, LOOP_READ | LOOP_EXCLUSIVE, on_accept,
                        w) == ERR_OK);
        housekeeping(w);
        ASSERT(pthread_create(&w->thread, NULL, run, w) == 0);
        char name[16];
        (void)snprintf(name, sizeof name, "worker-%u", i % 1000);
        (void)pthread_setname_np(w->thread, name);
    }
}

/* --- tasks for all workers --- */

struct task {
    struct worker *w;
    struct ruleset *rules;
    sem_t *done;
};

static void post_and_wait(struct edge *e, loop_fn fn, struct ruleset *rules)
{
    sem_t done;
    sem_init(&done, 0, 0);
    struct task *tasks = xcalloc(e->workers_n, sizeof *tasks);
    for (unsigned i = 0; i < e->workers_n; i++) {
        tasks[i] = (struct task){ &e->workers[i], rules, &done };
        while (loop_post(e->workers[i].loop, fn, &tasks[i]) != ERR_OK) sched_yield();
    }
    for (unsigned i = 0; i < e->workers_n; i++)
        while (sem_wait(&done) != 0) {
        }
    sem_destroy(&done);
    free(tasks);
}

static void use_rules(void *ctx)
{
    struct task *t = ctx;
    ruleset_unref(t->w->rules);
    t->w->rules = ruleset_ref(t->rules);
    tokens_forget(t->w->tokens);
    pools_forget_servers(t->w->pools);
    sem_post(t->done);
}

void workers_use_rules(struct edge *e, struct ruleset *r)
{
    post_and_wait(e, use_rules, r);
}

static void quiesce(void *ctx)
{
    struct task *t = ctx;
    struct worker *w = t->w;
    /* What the kernel took for us already is served. */
    while (accept_some(w) == ACCEPTS_PER_TURN) {
    }
    loop_remove(w->loop, &w->listen_io);
    loop_timer_clear(w->loop, &w->accept_timer);
    LIST_EACH_SAFE(n, &w->clients) client_drain(LIST_ENTRY(n, struct client, node));
    sem_post(t->done);
}

void workers_quiesce(struct edge *e)
{
    post_and_wait(e, quiesce, NULL);
    close(e->listen_fd);
    e->listen_fd = -1;
}

static void end(void *ctx)
{
    struct task *t = ctx;
    struct worker *w = t->w;
    LIST_EACH_SAFE(n, &w->clients) client_stop(LIST_ENTRY(n, struct client, node));
    while (!list_empty(&w->drained)) flow_shutdown_drained(w->drained.next);
    if (w->flows == 0)
        sem_post(t->done);
    else
        w->ended = t->done;
}

void worker_flow_gone(struct worker *w)
{
    if (--w->flows > 0 || w->ended == NULL) return;
    sem_post(w->ended);
    w->ended = NULL;
}

void workers_end(struct edge *e)
{
    post_and_wait(e, end, NULL);
}

void workers_stop(struct edge *e)
{
    for (unsigned i = 0; i < e->workers_n; i++) {
        struct worker *w = &e->workers[i];
        loop_stop(w->loop);
        pthread_join(w->thread, NULL);
        pools_free(w->pools);
        tokens_free(w->tokens);
        ruleset_unref(w->rules);
        buf_done(&w->gather);
        buf_done(&w->fields);
        count_scratch_free(w->counting);
        loop_free(w->loop); /* what it still had to free comes back to the slabs */
        slab_done(&w->request_memory);
        slab_done(&w->flow_memory);
        slab_done(&w->asked_memory);
    }
    free(e->workers);
}
