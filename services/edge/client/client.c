/* SPDX-License-Identifier: Apache-2.0 */
#include "client.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/slab.h"
#include "client_flow.h"
#include "client_proxy.h"
#include "http/chunked.h"
#include "net/certs.h"
#include "reply.h"
#include "rt/tls.h"

enum {
    FIRST_READ = LOOP_BLOCK - 1,
    MOST_READ = 120 * 1024, /* at once; with the first, 128 KB */
    READ_AHEAD = 1024,
    PIPELINE_MAX = 64 * 1024,   /* bytes read ahead while a request is being answered */
    OUT_MAX = 64 * 1024 * 1024, /* of one answer: more than any that is held back as a whole */
    LINGER_MS = 2000,
    LINGER_BYTES = 4 * 1024 * 1024,
    READS_PER_TURN = 8
};

static void on_timer(void *ctx);
static void finish_answer(struct client *c);
static void try_request(struct client *c);
static void on_body_bytes(struct client *c);

/* The deadline moves with everything that happens; the timer only when it would come too late. */
static void set_timer(struct client *c, int64_t ms)
{
    c->deadline = loop_now_ns(c->w->loop) + (uint64_t)ms * 1000000u;
    if (!loop_timer_is_set(&c->timer) || c->deadline < c->timer.at_ns)
        loop_timer_set(c->w->loop, &c->timer, c->deadline, on_timer, c);
}

static void clear_timer(struct client *c)
{
    c->deadline = 0;
}

static const struct edge_settings *settings(const struct client *c)
{
    return c->w->edge->settings;
}

static struct h1_limits head_limits(const struct client *c)
{
    size_t head = (size_t)settings(c)->max_head;
    return (struct h1_limits){ .head = head,
                               .line = MIN(head, (size_t)(16 * 1024)),
                               .headers = (size_t)settings(c)->max_fields };
}

static void set_write_timer(struct client *c)
{
    c->taken_mark = conn_taken(&c->conn);
    (void)loop_refresh_now(c->w->loop); /* a large answer took its time to put together */
    set_timer(c, settings(c)->write_timeout_ms);
}

/* --- life and death --- */

void client_account(struct client *c)
{
    size_t now = sizeof *c + c->in.cap + conn_memory(&c->conn);
    if (c->request != NULL) now += sizeof *c->request;
    if (c->flow != NULL) now += flow_memory(c->flow);
    if (c->dead) now = 0;
    guard_move(c->w->edge->guard, &c->w->memory, (int64_t)now - c->accounted);
    c->accounted = (int64_t)now;
}

static void free_later(void *ctx)
{
    struct client *c = ctx;
    client_drop_request(c);
    client_drop_input(c);
    free(c);
}

static void leave_flush(struct client *c)
{
    if (c->state == CLIENT_FLUSH) atomic_fetch_sub(&c->w->edge->flushing, 1);
}

static void destroy(struct client *c, bool reset)
{
    if (c->dead) return;
    c->dead = true;
    leave_flush(c);
    loop_timer_clear(c->w->loop, &c->timer);
    conn_close(&c->conn, reset);
    list_remove(&c->node);
    client_account(c);
    struct sockaddr_storage addr;
    client_address(c, &addr);
    guard_leave(c->w->edge->guard, c->verdict, &addr);
    loop_defer(c->w->loop, free_later, c);
}

void client_kill(struct client *c)
{
    struct flow *f = c->flow;
    c->flow = NULL;
    if (f != NULL) flow_client_gone(f);
    destroy(c, true);
}

void client_stop(struct client *c)
{
    if (c->flow != NULL) flow_shutdown(c->flow);
    if (c->dead) return;
    destroy(c, conn_flush(&c->conn) != ERR_OK || conn_waiting(&c->conn) > 0);
}

/* --- reading --- */

static void linger(struct client *c)
{
    c->state = CLIENT_LINGER;
    client_drop_input(c);
    conn_end_output(&c->conn);
    conn_pause(&c->conn, false);
    set_timer(c, LINGER_MS);
}

/* Answers what cannot become a flow, and ends the connection. */
static void refuse(struct client *c, enum refusal r, int status, const char *why)
{
    struct buf body;
    buf_init(&body, 4096);
    c->must_close = true;
    if (reply_error_body(&dialect_openai, r, str_of(why), NULL, STR_NULL, &body) == ERR_OK) {
        client_answer(c, status,
                      status == 503 ? STR("content-type: application/json\r\nretry-after: 1\r\n")
                                    : STR("content-type: application/json\r\n"),
                      FRAME_LENGTH, body.len);
        if (client_send(c, buf_str(&body))) client_flush(c);
    }
    buf_done(&body);
    if (!c->dead) client_answer_end(c);
}

/* Too many connections: this one is told so, and goes. */
static void turn_away(struct client *c)
{
    refuse(c, REFUSE_OVERLOADED, 503,
           c->verdict == GUARD_ADDRESS
               ? "Too many connections from your address. Close some, or try again soon."
               : "The gateway has too many connections. Try again soon.");
}

/* From here to client_release_request() the flow holds slices of `in`: it must not move. A little
 * room stays for what the client pipelines, and for noticing its end. */
static void begin_flow(struct client *c)
{
    char *was = c->in.data, *at;
    if (buf_reserve(&c->in, READ_AHEAD, &at) != ERR_OK) {
        client_kill(c);
        return;
    }
    if (c->in.data != was) client_rebase(c);
    c->state = CLIENT_BUSY;
    clear_timer(c);
    flow_run(c->flow);
}

/* Whether the body is all there. Chunked bodies are decoded in place, behind the head. */
static void on_body_bytes(struct client *c)
{
    enum flow_body_status st = flow_take_body(c->flow);
    client_account(c);
    if (st == FLOW_BODY_MORE && c->in.len > PIPELINE_MAX && guard_is_full(c->w->edge->guard)) {
        guard_note_shed(c->w->edge->guard);
        flow_refuse_body(c->flow, REFUSE_OVERLOADED,
                         "The gateway is out of memory for requests. Try again soon.");
        return;
    }
    if (st == FLOW_BODY_MORE) return;
    if (st == FLOW_BODY_READY) begin_flow(c);
    /* Otherwise the flow has answered already. */
}

static void begin_body(struct client *c)
{
    struct h1_request *q = c->request;
    c->state = CLIENT_BODY;
    c->flow = flow_new(c);
    if (c->flow == NULL) {
        refuse(c, REFUSE_OVERLOADED, 503, "out of memory");
        return;
    }
    if (!flow_check_head(c->flow)) return; /* answered */
    if (q->expect_continue && q->head.framing != H1_BODY_NONE) {
        if (conn_write(&c->conn, STR("HTTP/1.1 100 Continue\r\n\r\n")) != ERR_OK ||
            conn_flush(&c->conn) != ERR_OK) {
            client_kill(c);
            return;
        }
    }
    set_timer(c, settings(c)->body_timeout_ms);
    on_body_bytes(c);
}

static void try_request(struct client *c)
{
    struct h1_error why;
    if (c->in.len == 0) return;
    if (c->request == NULL) {
        c->request = slab_get(&c->w->request_memory);
        if (c->request == NULL) {
            client_kill(c);
            return;
        }
        h1_begin(&c->request->head);
        c->head_began = loop_now_ns(c->w->loop);
        set_timer(c, settings(c)->head_timeout_ms);
    }
    struct h1_limits limits = head_limits(c);
    enum h1_status st = h1_parse_request(c->in.data, c->in.len, &limits, c->request, &why);
    if (st == H1_MORE) return;
    if (st == H1_BAD) {
        refuse(c, reply_refusal_of(why.status), why.status, why.reason);
        return;
    }
    c->requests++;
    if (!c->request->head.keep_alive || c->requests == (uint64_t)settings(c)->max_requests)
        c->must_close = true;
    begin_body(c);
}

/* How much may be read now: what the head or body still need, and a little ahead: a read that finds
 * less than it has room for has taken all there is. */
static size_t room(const struct client *c)
{
    size_t max = (size_t)settings(c)->max_head + PIPELINE_MAX;
    if (c->state == CLIENT_BODY) return flow_body_room(c->flow) + READ_AHEAD;
    if (c->state == CLIENT_BUSY && c->request != NULL) return c->in.cap - c->in.len - 1;
    return max - MIN(c->in.len, max);
}

/* No more is read; what is on its way to the client still goes. */
static void stop_reading(struct client *c)
{
    c->must_close = true;
    c->conn.tell_end = false;
    conn_pause(&c->conn, true);
}

/* The client has sent its end: it is gone, but it may still take an answer that is whole. */
static void on_eof(struct client *c)
{
    if (c->state == CLIENT_FLUSH)
        stop_reading(c);
    else if (c->state == CLIENT_HEAD || c->state == CLIENT_LINGER)
        destroy(c, false);
    else
        client_kill(c);
}

/* No request is expected any more: what still comes is thrown away. */
static void discard(struct client *c)
{
    size_t n;
    enum err e;
    while ((e = conn_read(&c->conn, c->w->scratch, SCRATCH_SIZE, &n)) == ERR_OK)
        if ((c->linger_bytes += n) > LINGER_BYTES) break;
    if (e == ERR_CLOSED)
        on_eof(c);
    else if (e != ERR_AGAIN)
        destroy(c, true);
}

static bool wants_requests(const struct client *c)
{
    return c->state != CLIENT_LINGER && !(c->state == CLIENT_FLUSH && c->must_close);
}

/* Much at once only from those that have sent a block: connections that open and say little are
 * many. */
static size_t most_to_read(const struct client *c, bool filled)
{
    bool much = c->in.cap > LOOP_BLOCK || (filled && c->state == CLIENT_BODY);
    return MIN(room(c), (size_t)(much ? MOST_READ : FIRST_READ));
}

static void read_some(struct client *c)
{
    for (int i = 0; i < READS_PER_TURN && !c->dead && c->state != CLIENT_ENDING; i++) {
        if (!wants_requests(c)) {
            discard(c);
            return;
        }
        char *at;
        slab_lend(loop_blocks(c->w->loop), &c->in);
        size_t want = most_to_read(c, i > 0), n;
        if (want == 0) {
            conn_pause(&c->conn, true);
            return;
        }
        char *was = c->in.data;
        if (buf_reserve(&c->in, want, &at) != ERR_OK) {
            client_kill(c);
            return;
        }
        if (c->in.data != was && c->state == CLIENT_BODY) client_rebase(c);
        enum err e = conn_read(&c->conn, at, want, &n);
        if (e == ERR_AGAIN) {
            if (c->in.len == 0) client_drop_input(c);
            return;
        }
        if (e != ERR_OK) {
            on_eof(c);
            return;
        }
        c->in.len += n;
        if (c->state == CLIENT_HEAD)
            try_request(c);
        else if (c->state == CLIENT_BODY)
            on_body_bytes(c);
        if (n < want) return;
    }
}

/* Speaks TLS when the listener has a certificate. False: out of memory. */
static bool secure(struct client *c)
{
    struct tls_context *context = certs_listener(c->w->edge->certs);
    if (context == NULL) return true;
    struct tls *t = tls_accept(context, c->conn.fd);
    tls_context_unref(context);
    if (t != NULL) conn_secure(&c->conn, t);
    return t != NULL;
}

/* Who it is, is known: from here on it is as any connection. */
static void begin(struct client *c)
{
    c->state = CLIENT_HEAD;
    if (!secure(c))
        destroy(c, true);
    else if (c->verdict != GUARD_IN && c->conn.tls == NULL)
        turn_away(c);
}

static void take_proxy_header(struct client *c)
{
    enum err e = client_proxy_read(c);
    if (e == ERR_AGAIN) return;
    if (e != ERR_OK || c->verdict == GUARD_SHUT)
        destroy(c, true);
    else
        begin(c);
}

static void on_readable(struct client *c)
{
    if (c->state == CLIENT_PROXY)
        take_proxy_header(c);
    else
        read_some(c);
    if (!c->dead) client_account(c);
}

void client_drain(struct client *c)
{
    c->must_close = true;
    if (c->state == CLIENT_PROXY) destroy(c, true);
    /* What was sent before we said that we close is still served. */
    if (c->state == CLIENT_HEAD && c->in.len == 0) on_readable(c);
    if (c->state == CLIENT_HEAD && c->in.len == 0) destroy(c, false);
}

static void on_timer(void *ctx)
{
    struct client *c = ctx;
    if (c->deadline == 0) return;
    if (loop_now_ns(c->w->loop) < c->deadline) {
        loop_timer_set(c->w->loop, &c->timer, c->deadline, on_timer, c);
        return;
    }
    switch (c->state) {
    case CLIENT_PROXY: destroy(c, true); break;
    case CLIENT_HEAD:
        if (c->in.len > 0)
            refuse(c, REFUSE_CLIENT_TIMEOUT, 408, "the request's head did not come in time");
        else
            destroy(c, false);
        break;
    case CLIENT_BODY:
        flow_refuse_body(c->flow, REFUSE_CLIENT_TIMEOUT, "the request's body did not come in time");
        break;
    case CLIENT_BUSY:
    case CLIENT_ENDING: /* has no deadline */
    case CLIENT_FLUSH:
        if (!c->broken && conn_taken(&c->conn) != c->taken_mark)
            set_write_timer(c); /* slow, but it takes something */
        else
            client_kill(c);
        break;
    /* The kernel delivers what it has; a reset would throw that away. */
    case CLIENT_LINGER: destroy(c, false); break;
    }
}

static void after_drained(struct client *c)
{
    if (c->state == CLIENT_FLUSH) {
        finish_answer(c);
    } else if (c->state == CLIENT_BUSY) {
        clear_timer(c);
        if (c->flow != NULL) flow_client_drained(c->flow);
    }
}

/* The socket has taken what it takes. */
static void after_flush(struct client *c)
{
    bool all = conn_waiting(&c->conn) == 0;
    if (!c->dead) client_account(c);
    if (c->state == CLIENT_ENDING) {
        finish_answer(c);
    } else if (all) {
        after_drained(c);
    } else if (c->deadline == 0) {
        set_write_timer(c);
    }
}

static void on_conn(void *ctx, enum conn_event ev)
{
    struct client *c = ctx;
    switch (ev) {
    case CONN_CONNECTED: /* hands are shaken */
        if (c->verdict != GUARD_IN) turn_away(c);
        break;
    case CONN_READABLE: on_readable(c); break;
    case CONN_FLUSHED: after_flush(c); break;
    case CONN_DRAINED: after_drained(c); break;
    case CONN_BROKEN: client_kill(c); break;
    }
}

void client_accept(struct worker *w, int fd, const struct sockaddr_storage *addr,
                   enum guard_verdict verdict)
{
    struct client *c = calloc(1, sizeof *c);
    if (c == NULL) {
        close(fd);
        guard_leave(w->edge->guard, verdict, addr);
        return;
    }
    c->w = w;
    client_set_address(c, addr);
    c->verdict = verdict;
    buf_init(&c->in, (size_t)settings(c)->max_body + (size_t)settings(c)->max_head + PIPELINE_MAX);
    if (conn_open(&c->conn, w->loop, fd, OUT_MAX, on_conn, c) != ERR_OK) {
        guard_leave(w->edge->guard, verdict, addr);
        free(c);
        return;
    }
    c->conn.tell_end = true;
    list_push_back(&w->clients, &c->node);
    set_timer(c, w->edge->settings->head_timeout_ms);
    if (w->edge->settings->proxy_protocol)
        c->state = CLIENT_PROXY;
    else
        begin(c);
}

/* --- answering --- */

void client_flush(struct client *c)
{
    if (!c->dead) conn_flush_soon(&c->conn);
}

size_t client_waiting(const struct client *c)
{
    return conn_waiting(&c->conn);
}

void client_rebase(struct client *c)
{
    struct h1_error why;
    struct h1_limits limits = head_limits(c);
    h1_begin(&c->request->head);
    ASSERT(h1_parse_request(c->in.data, c->in.len, &limits, c->request, &why) == H1_DONE);
}

/* The answer is whole, or will never be, and the socket has what it takes of it: what comes next
 * begins when the client has taken all. So a client that sends requests and reads no answers is
 * stopped by the first. */
static void finish_answer(struct client *c)
{
    leave_flush(c);
    if (c->broken) {
        c->state = CLIENT_LINGER;
        client_kill(c);
    } else if (conn_waiting(&c->conn) > 0) {
        c->state = CLIENT_FLUSH;
        atomic_fetch_add(&c->w->edge->flushing, 1);
        set_write_timer(c);
    } else if (c->must_close) {
        linger(c);
    } else {
        c->state = CLIENT_HEAD;
        set_timer(c, settings(c)->idle_timeout_ms);
        conn_pause(&c->conn, false);
        try_request(c);
    }
}

static void end_with_flush(struct client *c)
{
    c->state = CLIENT_ENDING;
    clear_timer(c);
    client_flush(c);
}

void client_answer_end(struct client *c)
{
    if (c->dead) return;
    if (c->framing == FRAME_CHUNKED && !c->broken &&
        conn_write(&c->conn, STR(CHUNKED_END)) != ERR_OK)
        c->broken = true;
    client_release_request(c);
    c->flow = NULL;
    c->answer_begun = false;
    end_with_flush(c);
}

void client_answer_broken(struct client *c)
{
    if (c->dead) return;
    c->flow = NULL;
    c->must_close = true;
    /* An answer that ends with the connection would look whole after an orderly end. */
    if (c->framing == FRAME_CLOSE || !c->answer_begun) {
        if (conn_flush(&c->conn) != ERR_OK) c->broken = true;
        destroy(c, true);
    } else {
        end_with_flush(c);
    }
}
