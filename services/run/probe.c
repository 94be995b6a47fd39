/* SPDX-License-Identifier: Apache-2.0 */
#include "probe.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

int probe_status(struct str head)
{
    static const size_t code_at = sizeof "HTTP/1.1 " - 1;
    if (head.n < code_at + 3 || !str_starts(head, STR("HTTP/1.")) || head.p[code_at - 1] != ' ')
        return 0;
    uint64_t code;
    if (str_to_u64(str_n(head.p + code_at, 3), &code) != ERR_OK || code < 100) return 0;
    return (int)code;
}

void probe_said(struct str answer, char ret[PROBE_SAID_MAX])
{
    static const struct str not_ready = { "not ready: ", sizeof "not ready: " - 1 };
    size_t n = 0, at = 0;
    while (at + 4 <= answer.n && memcmp(answer.p + at, "\r\n\r\n", 4) != 0) at++;
    struct str body = str_n(answer.p + at, answer.n - at);
    body = body.n > 4 ? str_n(body.p + 4, body.n - 4) : STR("");
    struct str line = str_cut(&body, '\n');
    if (str_starts(line, not_ready)) line = str_n(line.p + not_ready.n, line.n - not_ready.n);
    for (size_t i = 0; i < line.n && n < PROBE_SAID_MAX - 1; i++)
        if (line.p[i] >= ' ' && line.p[i] <= '~') ret[n++] = line.p[i];
    ret[n] = '\0';
}

void probe_cancel(struct probe *p)
{
    if (!p->running) return;
    p->running = false;
    loop_timer_clear(p->loop, &p->deadline);
    if (p->io.fd < 0) return;
    if (p->io.generation != 0) loop_remove(p->loop, &p->io);
    close(p->io.fd);
    p->io.fd = -1;
}

static void finish(struct probe *p, int status)
{
    probe_cancel(p);
    p->fn(p->ctx, status);
}

static int status_so_far(const struct probe *p)
{
    return probe_status(str_n(p->answer, p->answer_n));
}

static void on_deadline(void *ctx)
{
    struct probe *p = ctx;
    finish(p, status_so_far(p));
}

static void on_io(void *ctx, unsigned events)
{
    struct probe *p = ctx;
    if (p->sent < p->request_n && (events & (LOOP_WRITE | LOOP_ERROR | LOOP_HANGUP)) != 0) {
        ssize_t n = send(p->io.fd, p->request + p->sent, p->request_n - p->sent,
                         MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno != EAGAIN && errno != EINTR) {
            finish(p, 0);
            return;
        }
        if (n > 0) p->sent += (size_t)n;
        if (p->sent == p->request_n) loop_watch(p->loop, &p->io, LOOP_READ);
        return;
    }
    ssize_t n = recv(p->io.fd, p->answer + p->answer_n, sizeof p->answer - p->answer_n,
                     MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (n > 0) p->answer_n += (size_t)n;
    int status = status_so_far(p);
    bool is_other = status == 0 && p->answer_n >= sizeof "HTTP/1.1 200" - 1; /* no HTTP */
    if (status == 200 || is_other || n <= 0 || p->answer_n == sizeof p->answer) finish(p, status);
}

/* A connection under way; its errors show up at the first send. */
static int begin_connect(const struct plan_url *url)
{
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
    } a = { 0 };
    socklen_t n;
    if (inet_pton(AF_INET, url->host, &a.v4.sin_addr) == 1) {
        a.v4.sin_family = AF_INET;
        a.v4.sin_port = htons(url->port);
        n = sizeof a.v4;
    } else if (inet_pton(AF_INET6, url->host, &a.v6.sin6_addr) == 1) {
        a.v6.sin6_family = AF_INET6;
        a.v6.sin6_port = htons(url->port);
        n = sizeof a.v6;
    } else {
        return -1;
    }
    int fd = socket(a.any.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect(fd, &a.any, n) != 0 && errno != EINPROGRESS) {
        close(fd);
        return -1;
    }
    return fd;
}

void probe_start(struct probe *p, struct loop *loop, const struct plan_url *url, probe_fn fn,
                 void *ctx)
{
    if (p->running) return;
    *p = (struct probe){ .loop = loop, .fn = fn, .ctx = ctx, .running = true };
    p->io.fd = -1;
    bool v6 = strchr(url->host, ':') != NULL;
    int n = snprintf(p->request, sizeof p->request,
                     "GET %s HTTP/1.1\r\nHost: %s%s%s:%u\r\nConnection: close\r\n\r\n", url->path,
                     v6 ? "[" : "", url->host, v6 ? "]" : "", (unsigned)url->port);
    int fd = n > 0 && (size_t)n < sizeof p->request ? begin_connect(url) : -1;
    p->request_n = (size_t)n;
    uint64_t wait_ms = PROBE_TIMEOUT_MS;
    if (fd < 0) {
        wait_ms = 0; /* the answer "none" comes by the timer, never from in here */
    } else if (loop_add(loop, &p->io, fd, LOOP_WRITE, on_io, p) != ERR_OK) {
        close(fd);
        p->io.fd = -1;
        wait_ms = 0;
    }
    loop_timer_set(loop, &p->deadline, loop_now_ns(loop) + wait_ms * 1000000, on_deadline, p);
}
