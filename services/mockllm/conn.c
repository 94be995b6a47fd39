/* SPDX-License-Identifier: Apache-2.0 */
/* Reading, writing and closing of one connection; see the header. Runs on its worker's thread. */
#include "conn.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

enum { LINGER_MS = 2000, PIPELINE_MAX = 1 << 20, KEEP_BUFFER = 64 * 1024 };

static const struct h1_limits limits = H1_LIMITS_DEFAULT;

static void on_io(void *ctx, unsigned events);
static void on_timer(void *ctx);

/* --- life --- */

void conn_open(struct worker *w, int fd)
{
    int one = 1;
    struct conn *c = calloc(1, sizeof *c);
    if (c == NULL) {
        close(fd);
        return;
    }
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    c->worker = w;
    buf_init(&c->in, IN_MAX + limits.head);
    buf_init(&c->body, IN_MAX);
    buf_init(&c->out, 1 << 30);
    buf_init(&c->event, 1 << 30);
    if (loop_add(w->loop, &c->io, fd, LOOP_READ | LOOP_PEER_CLOSED, on_io, c) != ERR_OK) {
        close(fd);
        free(c);
        return;
    }
    c->number = store_serial(w->server->store);
    store_connection(w->server->store, true);
    list_push_back(&w->conns, &c->node);
    conn_wait(c, conn_now(c) + w->server->options.idle_ms * 1000000);
}

static void destroy(void *ctx)
{
    struct conn *c = ctx;
    buf_done(&c->in);
    buf_done(&c->body);
    buf_done(&c->out);
    buf_done(&c->event);
    free(c);
}

void conn_drop(struct conn *c, enum ended how)
{
    if (c->state == CONN_DEAD) return;
    c->state = CONN_DEAD;
    respond_ended(c, how);
    loop_timer_clear(c->worker->loop, &c->timer);
    int fd = c->io.fd;
    loop_remove(c->worker->loop, &c->io);
    close(fd);
    list_remove(&c->node);
    store_connection(c->worker->server->store, false);
    loop_defer(c->worker->loop, destroy, c);
}

static void reset(struct conn *c, enum ended how)
{
    struct linger hard = { .l_onoff = 1, .l_linger = 0 };
    (void)setsockopt(c->io.fd, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
    conn_drop(c, how);
}

void conn_wait(struct conn *c, uint64_t at_ns)
{
    loop_timer_set(c->worker->loop, &c->timer, at_ns, on_timer, c);
}

/* --- writing --- */

enum flushed { FLUSHED, FLUSH_BLOCKED, FLUSH_PACED, FLUSH_GONE };

static enum flushed flush(struct conn *c)
{
    while (c->out.len > 0) {
        bool slow = c->slow_left > 0, wire = c->behave.wire > 0 && c->has_shaper;
        size_t n = slow ? 1 : wire ? MIN(c->out.len, (size_t)c->behave.wire) : c->out.len;
        if (c->paused) return FLUSH_PACED;
        ssize_t sent = send(c->io.fd, c->out.data, n, MSG_NOSIGNAL);
        if (sent < 0) {
            if (errno == EINTR) continue;
            return errno == EAGAIN ? FLUSH_BLOCKED : FLUSH_GONE;
        }
        c->ending.bytes += (uint64_t)sent;
        c->slow_left -= slow ? 1 : 0;
        buf_consume(&c->out, (size_t)sent);
        if ((slow || wire) && c->out.len > 0) {
            uint64_t gap = slow ? c->behave.fail_arg : (uint64_t)c->behave.gap_ms;
            c->paused = true;
            conn_wait(c, conn_now(c) + gap * 1000000 + 1);
        }
    }
    return FLUSHED;
}

static bool answering(const struct conn *c)
{
    return c->state != CONN_READING && c->state != CONN_LINGER && c->state != CONN_DEAD;
}

static void watch(struct conn *c)
{
    bool read = c->state == CONN_LINGER || !answering(c) || c->in.len < PIPELINE_MAX;
    bool write = c->out.len > 0 && !c->paused;
    loop_watch(c->worker->loop, &c->io,
               LOOP_PEER_CLOSED | (read ? LOOP_READ : 0) | (write ? LOOP_WRITE : 0));
}

static void begin_linger(struct conn *c)
{
    respond_ended(c, ENDED_DONE);
    (void)shutdown(c->io.fd, SHUT_WR);
    c->state = CONN_LINGER;
    conn_wait(c, conn_now(c) + (uint64_t)LINGER_MS * 1000000);
}

/* All of an answer is sent. */
static void sent_all(struct conn *c)
{
    switch (c->after) {
    case AFTER_HANG: c->state = CONN_HANGING; return;
    case AFTER_RESET: reset(c, ENDED_FAULT); return;
    case AFTER_CLOSE: begin_linger(c); return;
    case AFTER_NEXT: break;
    }
    respond_ended(c, ENDED_DONE);
    if (c->out.cap > KEEP_BUFFER) buf_done(&c->out), buf_init(&c->out, 1 << 30);
    c->state = CONN_READING;
    conn_wait(c, conn_now(c) + c->worker->server->options.idle_ms * 1000000);
}

/* Makes and sends what is due. Returns in a state where only a timer or the socket can go on. */
static void work(struct conn *c)
{
    for (;;) {
        switch (flush(c)) {
        case FLUSH_GONE: conn_drop(c, ENDED_CLIENT_RESET); return;
        case FLUSH_BLOCKED:
        case FLUSH_PACED: return;
        case FLUSHED: break;
        }
        if (c->state == CONN_SENDING) {
            sent_all(c);
            return;
        }
        if (c->state != CONN_STREAMING || c->paused) return;
        uint64_t at = 0;
        enum err e = respond_stream(c, &at);
        if (e == ERR_CLOSED) {
            c->state = CONN_SENDING;
        } else if (e == ERR_AGAIN) {
            if (c->out.len > 0) continue;
            conn_wait(c, at);
            return;
        } else if (e != ERR_OK) {
            reset(c, ENDED_FAULT);
            return;
        } else if (shaper_is_cut(&c->shaper)) {
            /* Each unit is a write of its own: send this one, then let the reader have its turn. */
            enum flushed f = flush(c);
            if (f == FLUSH_GONE) {
                conn_drop(c, ENDED_CLIENT_RESET);
                return;
            }
            if (f != FLUSHED) return;
            c->paused = true;
            conn_wait(c, conn_now(c) + (uint64_t)c->behave.gap_ms * 1000000 + 1);
            return;
        }
    }
}

/* --- reading --- */

static void bad_request(struct conn *c, const struct h1_error *err)
{
    struct buf *b = &c->worker->body;
    buf_clear(b);
    store_bad_request(c->worker->server->store);
    behave_init(&c->behave);
    if (answer_error(API_CHAT, err->status, err->reason, b) != ERR_OK) buf_clear(b);
    c->keep_alive = false;
    respond_simple(c, err->status, "application/json", buf_str(b), NULL, AFTER_CLOSE);
}

/* Takes what of the body is there. ERR_AGAIN: there must be more. */
static enum err take_body(struct conn *c, struct str *ret, size_t *ret_len)
{
    if (c->framing == H1_BODY_CHUNKED) {
        struct str in = str_n(c->in.data + c->body_at, c->in.len - c->body_at), data;
        enum chunked_status s;
        while ((s = chunked_decode(&c->chunked, &in, &data)) == CHUNKED_DATA)
            if (buf_append_str(&c->body, data) != ERR_OK) return ERR_LIMIT;
        c->body_at = c->in.len - in.n;
        if (s == CHUNKED_MORE) return ERR_AGAIN;
        if (s == CHUNKED_BAD) return ERR_INVALID;
        *ret = buf_str(&c->body);
        *ret_len = c->body_at;
        return ERR_OK;
    }
    if (c->content_length > IN_MAX) return ERR_LIMIT;
    if (c->in.len - c->head_len < c->content_length) return ERR_AGAIN;
    *ret = str_n(c->in.data + c->head_len, (size_t)c->content_length);
    *ret_len = c->head_len + (size_t)c->content_length;
    return ERR_OK;
}

/* The head that begins at in.data[0], again: the buffer may have moved since. */
static const struct h1_request *parsed(struct conn *c)
{
    struct h1_request *r = &c->worker->request;
    struct h1_error err;
    h1_begin(&r->head);
    enum h1_status s = h1_parse_request(c->in.data, c->in.len, &limits, r, &err);
    ASSERT(s == H1_DONE);
    return r;
}

static void read_head(struct conn *c)
{
    struct h1_request *r = &c->worker->request;
    struct h1_error err;
    r->head.scan_from = c->scan_from;
    r->head.start_checked = c->start_checked;
    enum h1_status s = h1_parse_request(c->in.data, c->in.len, &limits, r, &err);
    c->scan_from = r->head.scan_from;
    c->start_checked = r->head.start_checked;
    if (s == H1_BAD) bad_request(c, &err);
    if (s != H1_DONE) return;
    c->head_done = true;
    c->head_len = c->body_at = r->head.len;
    c->framing = r->head.framing;
    c->content_length = r->head.content_length;
    c->keep_alive = r->head.keep_alive;
    c->chunked = (struct chunked){ 0 };
    buf_clear(&c->body);
    if (respond_early(c, r) || !r->expect_continue) return;
    static const char go_on[] = "HTTP/1.1 100 Continue\r\n\r\n";
    if (send(c->io.fd, go_on, sizeof go_on - 1, MSG_NOSIGNAL) != (ssize_t)sizeof go_on - 1)
        conn_drop(c, ENDED_CLIENT_RESET);
}

/* Reads requests out of c->in and answers them until something has to be waited for. */
static void advance(struct conn *c)
{
    while (c->state == CONN_READING && c->in.len > 0) {
        if (!c->head_done) read_head(c);
        if (c->state == CONN_READING && c->head_done) {
            struct str body;
            size_t len;
            enum err e = take_body(c, &body, &len);
            if (e == ERR_AGAIN) return;
            if (e != ERR_OK) {
                struct h1_error err = { e == ERR_LIMIT ? 413 : 400,
                                        e == ERR_LIMIT ? "the body is too long"
                                                       : "the chunked body is malformed" };
                bad_request(c, &err);
            } else {
                respond(c, parsed(c), body);
                if (c->state == CONN_DEAD) return;
                buf_consume(&c->in, len);
                if (c->in.len == 0 && c->in.cap > KEEP_BUFFER)
                    buf_done(&c->in), buf_init(&c->in, IN_MAX + limits.head);
                c->scan_from = 0;
                c->start_checked = c->head_done = false;
            }
        } else if (c->state == CONN_READING) {
            return;
        }
        if (c->state == CONN_DEAD) return;
        work(c);
    }
}

void conn_pump(struct conn *c)
{
    if (c->state == CONN_DEAD) return;
    work(c);
    if (c->state == CONN_READING) advance(c);
    if (c->state != CONN_DEAD) watch(c);
}

static void read_some(struct conn *c)
{
    bool closed = false;
    for (;;) {
        if (answering(c) && c->in.len >= PIPELINE_MAX) break;
        ssize_t n = recv(c->io.fd, c->worker->chunk, sizeof c->worker->chunk, 0);
        if (n < 0) {
            if (errno == EINTR) continue;
            if (errno == EAGAIN) break;
            conn_drop(c, ENDED_CLIENT_RESET);
            return;
        }
        if (n == 0) {
            closed = true;
            break;
        }
        if (c->state == CONN_LINGER) continue;
        if (buf_append(&c->in, c->worker->chunk, (size_t)n) != ERR_OK) {
            conn_drop(c, ENDED_ERROR);
            return;
        }
        if ((size_t)n < sizeof c->worker->chunk) break;
    }
    if (c->state == CONN_READING) advance(c);
    /* A client that closes its side while an answer goes on has left. */
    if (closed) conn_drop(c, ENDED_CLIENT_CLOSED);
}

static void on_io(void *ctx, unsigned events)
{
    struct conn *c = ctx;
    if (events & (LOOP_READ | LOOP_PEER_CLOSED | LOOP_HANGUP | LOOP_ERROR)) {
        /* Input that is not being read hides a close: then the event itself is the news. */
        if (answering(c) && c->in.len >= PIPELINE_MAX &&
            (events & (LOOP_PEER_CLOSED | LOOP_HANGUP | LOOP_ERROR))) {
            conn_drop(c, events & LOOP_ERROR ? ENDED_CLIENT_RESET : ENDED_CLIENT_CLOSED);
            return;
        }
        read_some(c);
        if (c->state == CONN_DEAD) return;
    }
    if (events & LOOP_WRITE)
        conn_pump(c);
    else
        watch(c);
}

static void on_timer(void *ctx)
{
    struct conn *c = ctx;
    if (c->state == CONN_READING || c->state == CONN_LINGER) {
        conn_drop(c, ENDED_DONE);
        return;
    }
    c->paused = false;
    if (c->state == CONN_WAITING) respond_whole(c);
    conn_pump(c);
}
