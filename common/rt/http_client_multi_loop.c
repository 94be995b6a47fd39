/* SPDX-License-Identifier: Apache-2.0 */
/* curl's sockets and its timer on a loop of ours. The loop's thread. */
#include <curl/curl.h>
#include <stdlib.h>

#include "rt/http_client_multi_impl.h"

enum { REST_MS = 10 /* of a socket that can be written to in vain */ };

/* A socket of curl's. */
struct http_socket {
    struct http_multi *m;
    struct loop_io io;
    unsigned want; /* what curl waits for */
    bool resting;  /* it is not asked whether it can be written to */
    struct loop_timer rest;
};

/* Bytes of bodies that went out, of the transfers there are. */
static uint64_t uploaded(const struct http_multi *m)
{
    uint64_t all = 0;
    LIST_EACH(n, &m->all)
    {
        const struct http_transfer *t = LIST_ENTRY(n, struct http_transfer, in_all);
        curl_off_t bytes = 0;
        if (t->easy != NULL) (void)curl_easy_getinfo(t->easy, CURLINFO_SIZE_UPLOAD_T, &bytes);
        all += (uint64_t)bytes;
    }
    return all;
}

static void watch(struct http_socket *s)
{
    loop_watch(s->m->loop, &s->io, s->resting ? s->want & ~(unsigned)LOOP_WRITE : s->want);
}

static void rested(void *ctx)
{
    struct http_socket *s = ctx;
    s->resting = false;
    watch(s);
}

static void on_io(void *ctx, unsigned events)
{
    struct http_socket *s = ctx;
    struct http_multi *m = s->m;
    bool writes = (events & LOOP_WRITE) != 0 && (events & LOOP_READ) == 0;
    uint64_t before = writes ? uploaded(m) : 0;
    int what = (events & LOOP_READ ? CURL_CSELECT_IN : 0) |
               (events & LOOP_WRITE ? CURL_CSELECT_OUT : 0) |
               (events & (LOOP_ERROR | LOOP_HANGUP) ? CURL_CSELECT_ERR : 0);
    if (s->resting && !writes) {
        loop_timer_clear(m->loop, &s->rest);
        rested(s); /* what came may let it go on */
    }
    m->acting = s;
    http_multi_act(m, s->io.fd, what);
    if (m->acting == NULL) return; /* the socket is gone */
    m->acting = NULL;
    /* A server of HTTP/2 that takes no more of a body leaves the socket writable, and libcurl (7.88
     * for one) wants to know of that again and again. */
    if (!writes || (s->want & LOOP_WRITE) == 0 || uploaded(m) != before) return;
    s->resting = true;
    loop_timer_set(m->loop, &s->rest, loop_now_ns(m->loop) + REST_MS * 1000000u, rested, s);
    watch(s);
}

int http_multi_on_socket(CURL *easy, curl_socket_t fd, int what, void *ctx, void *of_socket)
{
    struct http_multi *m = ctx;
    struct http_socket *s = of_socket;
    unsigned want = (what & CURL_POLL_IN ? LOOP_READ : 0u) |
                    (what & CURL_POLL_OUT ? LOOP_WRITE : 0u);
    (void)easy;
    if (what == CURL_POLL_REMOVE) {
        if (s == NULL) return 0;
        if (m->acting == s) m->acting = NULL;
        loop_timer_clear(m->loop, &s->rest);
        loop_remove(m->loop, &s->io);
        free(s);
        return 0;
    }
    if (s != NULL) {
        s->want = want;
        watch(s);
        return 0;
    }
    s = calloc(1, sizeof *s);
    if (s == NULL) return -1;
    s->m = m;
    s->want = want;
    if (loop_add(m->loop, &s->io, fd, want, on_io, s) != ERR_OK) {
        free(s);
        return -1;
    }
    (void)curl_multi_assign(m->multi, fd, s);
    return 0;
}

static void on_time(void *ctx)
{
    http_multi_act(ctx, CURL_SOCKET_TIMEOUT, 0);
}

int http_multi_on_timer(CURLM *multi, long ms, void *ctx)
{
    struct http_multi *m = ctx;
    (void)multi;
    if (ms < 0)
        loop_timer_clear(m->loop, &m->timer);
    else
        loop_timer_set(m->loop, &m->timer, loop_now_ns(m->loop) + (uint64_t)ms * 1000000u, on_time,
                       m);
    return 0;
}
