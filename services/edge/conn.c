/* SPDX-License-Identifier: Apache-2.0 */
#include "conn.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/ioctl.h>
#include <unistd.h>

static void set_watch(struct conn *c)
{
    unsigned want = c->read_paused || c->connecting ? 0 : LOOP_READ;
    if (c->out.len > 0 || c->connecting) want |= LOOP_WRITE;
    if (c->read_paused && c->tell_end) want |= LOOP_PEER_CLOSED;
    loop_watch(c->loop, &c->io, want);
}

static void on_io(void *ctx, unsigned events)
{
    struct conn *c = ctx;
    if (c->connecting) {
        int failed = 0;
        socklen_t len = sizeof failed;
        if (getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &failed, &len) != 0 || failed != 0) {
            c->fn(c->ctx, CONN_BROKEN);
            return;
        }
        if (!(events & LOOP_WRITE)) return;
        c->connecting = false;
        set_watch(c);
        c->fn(c->ctx, CONN_CONNECTED);
        return;
    }
    if (events & LOOP_ERROR) {
        c->fn(c->ctx, CONN_BROKEN);
        return;
    }
    uint32_t generation = c->io.generation;
    if (events & LOOP_WRITE) {
        if (conn_flush(c) != ERR_OK) {
            c->fn(c->ctx, CONN_BROKEN);
            return;
        }
        if (c->out.len == 0) c->fn(c->ctx, CONN_DRAINED);
        if (c->io.generation != generation || generation == 0) return; /* closed meanwhile */
    }
    if (events & LOOP_READ) {
        c->fn(c->ctx, CONN_READABLE);
    } else if (events & LOOP_HANGUP ||
               (events & LOOP_PEER_CLOSED && c->read_paused && c->tell_end)) {
        c->fn(c->ctx, CONN_BROKEN);
    }
}

static enum err set_up(struct conn *c, struct loop *loop, int fd, size_t out_max, conn_fn fn,
                       void *ctx, unsigned watch)
{
    int one = 1;
    *c = (struct conn){ .loop = loop, .fd = fd, .fn = fn, .ctx = ctx };
    buf_init(&c->out, out_max);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    enum err e = loop_add(loop, &c->io, fd, watch, on_io, c);
    if (e != ERR_OK) {
        close(fd);
        c->fd = -1;
    }
    return e;
}

enum err conn_open(struct conn *c, struct loop *loop, int fd, size_t out_max, conn_fn fn, void *ctx)
{
    return set_up(c, loop, fd, out_max, fn, ctx, LOOP_READ);
}

enum err conn_connect(struct conn *c, struct loop *loop, const struct sockaddr *addr, socklen_t len,
                      size_t out_max, conn_fn fn, void *ctx)
{
    c->fd = -1;
    int fd = socket(addr->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) return ERR_IO;
    if (connect(fd, addr, len) != 0 && errno != EINPROGRESS) {
        close(fd);
        return ERR_UNAVAILABLE;
    }
    enum err e = set_up(c, loop, fd, out_max, fn, ctx, LOOP_WRITE);
    c->connecting = true;
    return e;
}

void conn_close(struct conn *c, bool reset)
{
    if (c->fd < 0) return;
    loop_remove(c->loop, &c->io);
    if (reset) {
        struct linger l = { .l_onoff = 1, .l_linger = 0 };
        (void)setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &l, sizeof l);
    }
    close(c->fd);
    c->fd = -1;
    buf_done(&c->out);
}

enum err conn_read(struct conn *c, void *into, size_t cap, size_t *ret_n)
{
    ssize_t n = recv(c->fd, into, cap, 0);
    if (n > 0) return *ret_n = (size_t)n, ERR_OK;
    if (n == 0) return ERR_CLOSED;
    return errno == EAGAIN || errno == EINTR ? ERR_AGAIN : ERR_IO;
}

bool conn_is_quiet(const struct conn *c)
{
    char byte;
    return recv(c->fd, &byte, 1, MSG_PEEK) < 0 && (errno == EAGAIN || errno == EINTR);
}

enum err conn_write(struct conn *c, struct str data)
{
    return buf_append_str(&c->out, data);
}

enum err conn_flush(struct conn *c)
{
    size_t sent = 0;
    if (c->connecting) return ERR_OK;
    while (sent < c->out.len) {
        ssize_t n = send(c->fd, c->out.data + sent, c->out.len - sent, MSG_NOSIGNAL);
        if (n > 0) {
            sent += (size_t)n;
            continue;
        }
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) break;
        return ERR_IO;
    }
    c->sent += sent;
    buf_consume(&c->out, sent);
    if (c->out.len == 0) buf_done(&c->out); /* idle connections keep no memory */
    set_watch(c);
    return ERR_OK;
}

uint64_t conn_taken(const struct conn *c)
{
    int queued = 0;
    if (ioctl(c->fd, TIOCOUTQ, &queued) != 0 || queued < 0) queued = 0;
    return c->sent - MIN(c->sent, (uint64_t)queued);
}

void conn_pause(struct conn *c, bool paused)
{
    if (c->read_paused == paused || c->fd < 0) return;
    c->read_paused = paused;
    set_watch(c);
}
