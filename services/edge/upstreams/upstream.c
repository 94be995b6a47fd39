/* SPDX-License-Identifier: Apache-2.0 */
/* Exchanges over connections of our own: their beginning and end; see the header. */
#include "upstream.h"

#include <stdlib.h>

#include "resolve.h"
#include "rt/tls.h"
#include "upstream_impl.h"

enum {
    OUT_EXTRA = 256 * 1024,  /* of a request, beside the client's body: head and splices */
    DISCARD_MAX = 64 * 1024, /* bytes of an answer that nobody wants */
    SEND_LATER = 4096        /* bytes: a block */
};
static const uint64_t discard_ns = 1000000000u;

static void free_later(void *ctx)
{
    free(ctx);
}

void exchange_bury(struct exchange *x, bool reset)
{
    if (x->state == X_DEAD) return;
    struct loop *loop = x->pool->pools->o.loop;
    if (x->state == X_IDLE) {
        list_remove(&x->node);
        x->pool->idle_n--;
    }
    x->state = X_DEAD;
    x->pool->exchanges--;
    loop_timer_clear(loop, &x->fail_timer);
    conn_close(&x->conn, reset);
    buf_done(&x->in);
    loop_defer(loop, free_later, x);
}

void exchange_fail(struct exchange *x, enum exchange_failure f, const char *why)
{
    const struct exchange_events *ev = x->ev;
    void *ctx = x->ctx;
    exchange_bury(x, true);
    ev->fail(ctx, f, why);
}

/* Broken while we wrote, or reset. A server may have answered before it closed on a body that it
 * did not want: what it sent is still there to be read. */
static void on_broken(struct exchange *x)
{
    if (x->state == X_CONNECTING) {
        const char *tls = conn_tls_problem(&x->conn);
        char why[200]; /* the connection's own goes with it */
        (void)str_copyz(
            why, sizeof why,
            str_of(tls != NULL ? tls : "the connection was refused or could not be made"));
        exchange_fail(x, EXCHANGE_CONNECT, why);
        return;
    }
    if (!x->conn.read_paused) exchange_read(x);
    if (x->state == X_IDLE)
        exchange_bury(x, true);
    else if (x->state != X_DEAD)
        exchange_gone(x, false);
}

static void on_conn(void *ctx, enum conn_event ev)
{
    struct exchange *x = ctx;
    switch (ev) {
    case CONN_CONNECTED:
        x->state = X_WAIT_HEAD;
        if (conn_flush(&x->conn) != ERR_OK) on_broken(x);
        break;
    case CONN_READABLE: exchange_read(x); break;
    case CONN_FLUSHED:
    case CONN_DRAINED: break;
    case CONN_BROKEN: on_broken(x); break;
    }
}

static void fail_now(void *ctx)
{
    struct exchange *x = ctx;
    if (x->reused)
        on_broken(x);
    else
        exchange_fail(x, EXCHANGE_CONNECT, x->fail_why);
}

static enum err secure(struct exchange *x, const struct snap_server *s,
                       const struct exchange_tls *tls)
{
    struct str name = tls->server_name.n > 0 ? tls->server_name : s->host;
    struct tls *t = tls_connect(tls->context, x->conn.fd, name, x->pool->ticket);
    x->fail_why = "TLS cannot be set up";
    if (t == NULL) return ERR_NOMEM;
    conn_secure(&x->conn, t);
    return ERR_OK;
}

static enum err connect_to(struct exchange *x, const struct snap_server *s,
                           const struct exchange_tls *tls)
{
    struct pools *p = x->pool->pools;
    struct sockaddr_storage addr;
    socklen_t len;
    x->fail_why = "its name has no address";
    enum err e = resolver_get(p->o.resolver, s, x->pool->turn++, &addr, &len);
    if (e != ERR_OK) return e;
    x->fail_why = "no connection can be made";
    size_t out_max = p->o.body_max + OUT_EXTRA;
    e = conn_connect(&x->conn, p->o.loop, (const struct sockaddr *)&addr, len, out_max, on_conn, x);
    return e == ERR_OK && s->tls ? secure(x, s, tls) : e;
}

/* A little goes together with what others send; much goes at once, without a copy. */
static enum err send_request(struct exchange *x, struct str head, struct str body)
{
    if (head.n + body.n > SEND_LATER) return conn_send(&x->conn, (struct str[]){ head, body }, 2);
    enum err e = conn_write(&x->conn, head);
    if (e == ERR_OK) e = conn_write(&x->conn, body);
    if (e == ERR_OK) conn_flush_soon(&x->conn);
    return e;
}

struct exchange *exchange_start(struct pools *p, const struct snap_server *s,
                                const struct exchange_tls *tls, struct str head, struct str body,
                                bool is_head, bool fresh, const struct exchange_events *ev,
                                void *ctx)
{
    if (tls->transport != NULL)
        return curl_exchange_start(p->curl, s, tls, head, body, is_head, fresh, ev, ctx);
    struct pool *pool = pool_of(p, s);
    enum err e = ERR_OK;
    pool_use_tls(pool, s->tls ? tls->context : NULL);
    struct exchange *x = fresh ? NULL : pool_take_idle(pool);
    if (x == NULL) {
        x = xcalloc(1, sizeof *x);
        x->pool = pool;
        pool->exchanges++;
        x->conn.fd = -1;
        x->state = X_CONNECTING;
        e = connect_to(x, s, tls);
    }
    x->ev = ev;
    x->ctx = ctx;
    x->is_head = is_head;
    x->keep_alive = x->got_bytes = false;
    x->interims = 0;
    x->chunked = (struct chunked){ 0 };
    buf_init(&x->in, UPSTREAM_HEAD_MAX + SCRATCH_SIZE);
    if (e == ERR_OK) e = send_request(x, head, body);
    /* What is wrong by now is told later, like everything else. */
    if (e != ERR_OK) loop_timer_set(p->o.loop, &x->fail_timer, loop_now_ns(p->o.loop), fail_now, x);
    return x;
}

void exchange_cancel(struct exchange *x)
{
    if (x == NULL) return;
    if (x->base.ops != NULL)
        x->base.ops->cancel(x);
    else
        exchange_bury(x, true);
}

/* --- an answer that nobody wants --- */

static void discard_head(void *ctx, const struct h1_response *res)
{
    (void)ctx, (void)res;
}

static void discard_body(void *ctx, struct str data)
{
    struct exchange *x = ctx;
    x->discarded += data.n;
    if (x->discarded > DISCARD_MAX) exchange_bury(x, true);
}

static void discard_nothing(void *ctx)
{
    (void)ctx;
}

static void discard_fail(void *ctx, enum exchange_failure f, const char *why)
{
    (void)ctx, (void)f, (void)why;
}

static const struct exchange_events discarding = { discard_head,    discard_body, discard_nothing,
                                                   discard_nothing, discard_fail, NULL };

static void discard_late(void *ctx)
{
    exchange_bury(ctx, true);
}

void exchange_discard(struct exchange *x)
{
    if (x->base.ops != NULL) {
        x->base.ops->discard(x);
        return;
    }
    struct loop *loop = x->pool->pools->o.loop;
    if (x->state == X_DEAD || x->state == X_IDLE) return;
    if (x->state != X_BODY) {
        exchange_bury(x, true);
        return;
    }
    x->ev = &discarding;
    x->ctx = x;
    x->discarded = 0;
    exchange_pause(x, false);
    loop_timer_set(loop, &x->fail_timer, loop_now_ns(loop) + discard_ns, discard_late, x);
}

void exchange_redirect(struct exchange *x, const struct exchange_events *ev)
{
    if (x->base.ops != NULL)
        x->base.ops->redirect(x, ev);
    else
        x->ev = ev;
}

void exchange_pause(struct exchange *x, bool paused)
{
    if (x->base.ops != NULL)
        x->base.ops->pause(x, paused);
    else
        conn_pause(&x->conn, paused);
}

size_t exchange_memory(const struct exchange *x)
{
    if (x->base.ops != NULL) return x->base.ops->memory(x);
    return sizeof *x + x->in.cap + conn_memory(&x->conn);
}

bool exchange_is_connected(const struct exchange *x)
{
    return x->base.ops != NULL ? x->base.ops->is_connected(x) : x->state != X_CONNECTING;
}

struct exchange_way exchange_way(const struct exchange *x)
{
    if (x->base.ops != NULL) return x->base.ops->way(x);
    return (struct exchange_way){ "direct", "1.1", x->reused ? 0 : 1 };
}
