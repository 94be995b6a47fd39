/* SPDX-License-Identifier: Apache-2.0 */
#include "conn.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/slab.h"
#include "rt/tls.h"

enum { SEND_TOGETHER = 4096 }; /* bytes */

/* A plain connection is watched for edges: the loop does not look again at what was told, and most
 * reads take all there is. TLS may leave a part of it, which is not to be seen from here. */
static void set_watch(struct conn *c)
{
    unsigned want = c->read_paused || c->connecting ? 0 : LOOP_READ;
    if (c->shaking && !c->connecting) {
        want = tls_wants_write(c->tls) ? LOOP_WRITE : LOOP_READ;
    } else if (c->connecting || c->read_waits_to_write ||
               (c->out.len > 0 && !c->write_waits_to_read)) {
        want |= LOOP_WRITE;
    }
    if (c->write_waits_to_read) want |= LOOP_READ;
    if (c->tls == NULL)
        want |= LOOP_EDGE | LOOP_PEER_CLOSED;
    else if (c->read_paused && c->tell_end)
        want |= LOOP_PEER_CLOSED;
    loop_watch(c->loop, &c->io, want);
}

/* --- TLS --- */

static void read_again(void *ctx)
{
    struct conn *c = ctx;
    c->again = false;
    if (c->fd >= 0 && !c->read_paused && !c->shaking) c->fn(c->ctx, CONN_READABLE);
}

/* What TLS has decrypted already is not seen by the loop. */
static void offer_rest(struct conn *c)
{
    if (c->tls == NULL || c->again || c->read_paused || c->shaking || !tls_has_more(c->tls)) return;
    c->again = true;
    loop_defer(c->loop, read_again, c);
}

static void shake(struct conn *c)
{
    enum err e = tls_handshake(c->tls);
    if (e == ERR_OK) {
        c->shaking = false;
        set_watch(c);
        c->fn(c->ctx, CONN_CONNECTED);
    } else if (e == ERR_AGAIN) {
        set_watch(c);
    } else {
        c->fn(c->ctx, CONN_BROKEN);
    }
}

void conn_secure(struct conn *c, struct tls *t)
{
    c->tls = t;
    c->shaking = true;
    set_watch(c);
}

const char *conn_tls_problem(const struct conn *c)
{
    return c->tls != NULL && tls_problem(c->tls)[0] != '\0' ? tls_problem(c->tls) : NULL;
}

/* --- events --- */

static void flush_due(void *ctx)
{
    struct conn *c = ctx;
    if (!c->flush_due) return;
    c->flush_due = false;
    c->fn(c->ctx, conn_flush(c) == ERR_OK ? CONN_FLUSHED : CONN_BROKEN);
}

/* Nothing can be told any more of what does not go. */
static void flush_last(struct conn *c)
{
    if (c->flush_due && conn_flush(c) != ERR_OK) buf_clear(&c->out);
}

void conn_flush_soon(struct conn *c)
{
    if (c->flush_due) return;
    c->flush_due = true;
    loop_defer(c->loop, flush_due, c);
}

static void readable(struct conn *c, unsigned events)
{
    uint32_t generation = c->io.generation;
    c->drained = false;
    c->ended = (events & (LOOP_PEER_CLOSED | LOOP_HANGUP)) != 0;
    c->fn(c->ctx, CONN_READABLE);
    if (c->io.generation != generation) return; /* closed meanwhile */
    offer_rest(c);
    if (c->tls == NULL && !c->drained && !c->read_paused) loop_rearm(c->loop, &c->io);
}

static void on_io(void *ctx, unsigned events)
{
    struct conn *c = ctx;
    uint32_t generation = c->io.generation;
    flush_due(c);
    if (c->io.generation != generation) return; /* closed meanwhile */
    if (c->connecting) {
        int failed = 0;
        socklen_t len = sizeof failed;
        if (getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &failed, &len) != 0 || failed != 0) {
            c->fn(c->ctx, CONN_BROKEN);
            return;
        }
        if (!(events & LOOP_WRITE)) return;
        c->connecting = false;
        if (c->shaking) {
            shake(c);
            return;
        }
        set_watch(c);
        c->fn(c->ctx, CONN_CONNECTED);
        return;
    }
    if (events & LOOP_ERROR) {
        c->fn(c->ctx, CONN_BROKEN);
        return;
    }
    if (c->shaking) {
        shake(c);
        return;
    }
    if (events & LOOP_WRITE && c->read_waits_to_write) events |= LOOP_READ;
    if (events & LOOP_WRITE || (events & LOOP_READ && c->write_waits_to_read)) {
        if (conn_flush(c) != ERR_OK) {
            c->fn(c->ctx, CONN_BROKEN);
            return;
        }
        if (c->out.len == 0 && events & LOOP_WRITE) c->fn(c->ctx, CONN_DRAINED);
        if (c->io.generation != generation || generation == 0) return; /* closed meanwhile */
    }
    if (events & LOOP_READ && !(c->read_paused && c->write_waits_to_read)) {
        readable(c, events);
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
    return set_up(c, loop, fd, out_max, fn, ctx, LOOP_READ | LOOP_EDGE | LOOP_PEER_CLOSED);
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
    enum err e = set_up(c, loop, fd, out_max, fn, ctx, LOOP_WRITE | LOOP_EDGE | LOOP_PEER_CLOSED);
    c->connecting = true;
    return e;
}

void conn_close(struct conn *c, bool reset)
{
    if (c->fd < 0) return;
    if (!reset) flush_last(c);
    c->flush_due = false;
    loop_remove(c->loop, &c->io);
    if (!reset && c->tls != NULL) tls_end(c->tls);
    tls_free(c->tls);
    c->tls = NULL;
    if (reset) {
        struct linger l = { .l_onoff = 1, .l_linger = 0 };
        (void)setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &l, sizeof l);
    }
    close(c->fd);
    c->fd = -1;
    slab_take_back(loop_blocks(c->loop), &c->out);
}

void conn_end_output(struct conn *c)
{
    flush_last(c);
    if (c->tls != NULL) tls_end(c->tls);
    (void)shutdown(c->fd, SHUT_WR);
}

static enum err plain_read(struct conn *c, void *into, size_t cap, size_t *ret_n, int flags)
{
    ssize_t n = recv(c->fd, into, cap, flags);
    if (n > 0) return *ret_n = (size_t)n, ERR_OK;
    if (n == 0) return ERR_CLOSED;
    return errno == EAGAIN || errno == EINTR ? ERR_AGAIN : ERR_IO;
}

enum err conn_read(struct conn *c, void *into, size_t cap, size_t *ret_n)
{
    if (c->tls == NULL) {
        enum err plain = plain_read(c, into, cap, ret_n, 0);
        c->drained = plain == ERR_OK ? *ret_n < cap && !c->ended : true;
        return plain;
    }
    if (c->shaking) return ERR_AGAIN;
    enum err e = tls_read(c->tls, into, cap, ret_n);
    bool waits = e == ERR_AGAIN && tls_wants_write(c->tls);
    if (waits != c->read_waits_to_write) {
        c->read_waits_to_write = waits;
        set_watch(c);
    }
    return e;
}

enum err conn_peek(struct conn *c, void *into, size_t cap, size_t *ret_n)
{
    ASSERT(c->tls == NULL);
    return plain_read(c, into, cap, ret_n, MSG_PEEK);
}

bool conn_is_quiet(struct conn *c)
{
    char byte;
    if (c->tls == NULL && !c->read_paused && loop_is_quiet(c->loop, &c->io)) return true;
    if (c->tls != NULL) return tls_is_quiet(c->tls);
    return recv(c->fd, &byte, 1, MSG_PEEK) < 0 && (errno == EAGAIN || errno == EINTR);
}

enum err conn_write(struct conn *c, struct str data)
{
    if (data.n == 0) return ERR_OK;
    slab_lend(loop_blocks(c->loop), &c->out);
    return buf_append_str(&c->out, data);
}

/* ERR_AGAIN when the socket takes no more. */
static enum err send_some(struct conn *c, size_t from, size_t *ret_n)
{
    if (c->tls != NULL) {
        enum err e = tls_write(c->tls, c->out.data + from, c->out.len - from, ret_n);
        c->write_waits_to_read = e == ERR_AGAIN && !tls_wants_write(c->tls);
        return e;
    }
    ssize_t n = send(c->fd, c->out.data + from, c->out.len - from, MSG_NOSIGNAL);
    if (n > 0) return *ret_n = (size_t)n, ERR_OK;
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return ERR_AGAIN;
    return n < 0 && errno == EINTR ? (*ret_n = 0, ERR_OK) : ERR_IO;
}

enum err conn_flush(struct conn *c)
{
    size_t sent = 0, n;
    if (c->connecting || c->shaking) return ERR_OK;
    while (sent < c->out.len) {
        enum err e = send_some(c, sent, &n);
        if (e == ERR_AGAIN) break;
        if (e != ERR_OK) return ERR_IO;
        sent += n;
    }
    c->sent = c->tls != NULL ? tls_bytes_written(c->tls) : c->sent + sent;
    buf_consume(&c->out, sent);
    /* Idle connections keep no memory. */
    if (c->out.len == 0) slab_take_back(loop_blocks(c->loop), &c->out);
    set_watch(c);
    return ERR_OK;
}

/* A little is put together here: the kernel is faster with one piece than with some. */
static ssize_t send_pieces(int fd, struct iovec *v, size_t n)
{
    char together[SEND_TOGETHER];
    struct msghdr m = { .msg_iov = v, .msg_iovlen = n };
    size_t total = 0, at = 0;
    for (size_t i = 0; i < n; i++) total += v[i].iov_len;
    if (total > sizeof together) return sendmsg(fd, &m, MSG_NOSIGNAL);
    for (size_t i = 0; i < n; i++) {
        if (v[i].iov_len > 0) memcpy(together + at, v[i].iov_base, v[i].iov_len);
        at += v[i].iov_len;
    }
    return send(fd, together, total, MSG_NOSIGNAL);
}

/* Of a plain connection: what waits, and the parts behind it. */
static enum err send_parts(struct conn *c, const struct str *parts, size_t n, size_t *ret_n)
{
    struct iovec v[CONN_PARTS_MAX + 1] = { { c->out.data, c->out.len } };
    size_t first = c->out.len > 0 ? 0 : 1;
    ASSERT(n <= CONN_PARTS_MAX);
    for (size_t i = 0; i < n; i++)
        v[i + 1] = (struct iovec){ (void *)(uintptr_t)parts[i].p, parts[i].n };
    ssize_t sent = send_pieces(c->fd, v + first, n + 1 - first);
    if (sent < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR) return ERR_IO;
    *ret_n = sent > 0 ? (size_t)sent : 0;
    c->sent += *ret_n;
    return ERR_OK;
}

enum err conn_send(struct conn *c, const struct str *parts, size_t n)
{
    size_t sent = 0;
    bool direct = c->tls == NULL && !c->connecting;
    enum err e = direct ? send_parts(c, parts, n, &sent) : ERR_OK;
    if (e != ERR_OK) return e;
    size_t waited = MIN(sent, c->out.len);
    sent -= waited;
    buf_consume(&c->out, waited);
    for (size_t i = 0; i < n && e == ERR_OK; i++) {
        size_t skip = MIN(sent, parts[i].n);
        sent -= skip;
        e = conn_write(c, str_n(parts[i].p + skip, parts[i].n - skip));
    }
    if (e != ERR_OK || !direct) return e == ERR_OK ? conn_flush(c) : e;
    if (c->out.len == 0) slab_take_back(loop_blocks(c->loop), &c->out);
    set_watch(c);
    return ERR_OK;
}

uint64_t conn_taken(const struct conn *c)
{
    int queued = 0;
    if (ioctl(c->fd, TIOCOUTQ, &queued) != 0 || queued < 0) queued = 0;
    return c->sent - MIN(c->sent, (uint64_t)queued);
}

size_t conn_memory(const struct conn *c)
{
    return c->out.cap + (c->tls != NULL ? TLS_MEMORY : 0);
}

void conn_pause(struct conn *c, bool paused)
{
    if (c->read_paused == paused || c->fd < 0) return;
    c->read_paused = paused;
    set_watch(c);
    offer_rest(c);
}
