/* SPDX-License-Identifier: Apache-2.0 */
#include "upstream.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/list.h"
#include "base/map.h"
#include "exchange_impl.h"
#include "http/chunked.h"
#include "net/conn.h"
#include "resolve.h"
#include "rt/tls.h"

enum {
    HEAD_MAX = 64 * 1024,
    OUT_EXTRA = 256 * 1024, /* of a request, beside the client's body: head and splices */
    INTERIM_MAX = 10,
    READS_PER_TURN = 8,
    IDLE_PER_SERVER = 256,
    DISCARD_MAX = 64 * 1024, /* bytes of an answer that nobody wants */
    KNOWN_SERVERS = 64
};
static const uint64_t idle_ns = 30000000000u, forget_ns = 600000000000u, discard_ns = 1000000000u;

struct pool {
    struct pools *pools;
    struct list_node idle;  /* of exchange, latest first */
    struct list_node fresh; /* those that became idle in this turn: whether they are quiet is not
                               known yet */
    uint64_t fresh_turn;
    size_t idle_n; /* of both */
    unsigned turn; /* among a name's addresses */
    uint64_t used_at;
    size_t exchanges;          /* all that point here */
    struct tls_context *tls;   /* what its connections were made with; NULL: plain */
    struct tls_ticket *ticket; /* for the next one */
};

struct pools {
    struct pools_options o;
    struct h1_response response; /* parsed heads of answers, one at a time */
    struct map by_server;        /* server id and URL -> struct pool */
    struct {
        const struct snap_server *server;
        struct pool *pool;
    } known[KNOWN_SERVERS]; /* of this configuration, by address */
    struct curl_links *curl;
};

enum exchange_state { X_CONNECTING, X_WAIT_HEAD, X_BODY, X_IDLE, X_DEAD };

/* A connection, and the request that it carries. */
struct exchange {
    struct exchange_base base;
    struct pool *pool;
    struct conn conn;
    struct list_node node; /* in the idle list */
    enum exchange_state state;
    const struct exchange_events *ev;
    void *ctx;
    bool reused, is_head, keep_alive, got_bytes;
    unsigned interims;
    struct buf in; /* an incomplete head */
    enum h1_framing framing;
    uint64_t left, discarded;
    struct chunked chunked;
    uint64_t idle_since;
    struct loop_timer fail_timer;
    const char *fail_why;
};

/* --- pools --- */

struct pools *pools_new(const struct pools_options *o)
{
    struct pools *p = xcalloc(1, sizeof *p);
    p->o = *o;
    map_init(&p->by_server, SIZE_MAX / 64); /* as many as configurations have */
    p->curl = curl_links_new(o);
    return p;
}

static void free_later(void *ctx)
{
    free(ctx);
}

/* Closes and lets go; the memory goes at the end of the turn, since callers up the stack may look
 * at it. */
static void bury(struct exchange *x, bool reset)
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

static void settle_fresh(struct pool *p)
{
    list_splice_front(&p->idle, &p->fresh);
}

static void drop_idle(struct pool *p)
{
    settle_fresh(p);
    while (!list_empty(&p->idle)) bury(LIST_ENTRY(p->idle.next, struct exchange, node), false);
}

static void pool_free(struct pool *p)
{
    tls_ticket_unref(p->ticket);
    tls_context_unref(p->tls);
    free(p);
}

/* Certificates or authorities changed: what was made with the old ones is not used again. */
static void pool_use_tls(struct pool *p, struct tls_context *tls)
{
    if (p->tls == tls) return;
    drop_idle(p);
    tls_ticket_unref(p->ticket);
    tls_context_unref(p->tls);
    p->tls = tls != NULL ? tls_context_ref(tls) : NULL;
    p->ticket = tls != NULL ? tls_ticket_new() : NULL;
}

void pools_free(struct pools *p)
{
    struct map_entry *e;
    size_t i = 0;
    if (p == NULL) return;
    while ((e = map_next(&p->by_server, &i)) != NULL) {
        drop_idle(e->value);
        pool_free(e->value);
    }
    map_done(&p->by_server);
    curl_links_free(p->curl);
    free(p);
}

void pools_forget_servers(struct pools *p)
{
    memset(p->known, 0, sizeof p->known);
}

void pools_sweep(struct pools *p)
{
    uint64_t now = loop_now_ns(p->o.loop);
    struct map_entry *e;
    size_t i = 0;
    while ((e = map_next(&p->by_server, &i)) != NULL) {
        struct pool *pool = e->value;
        settle_fresh(pool);
        LIST_EACH_SAFE(n, &pool->idle)
        {
            struct exchange *x = LIST_ENTRY(n, struct exchange, node);
            if (now - x->idle_since > idle_ns) bury(x, false);
        }
        if (pool->exchanges > 0 || now - pool->used_at < forget_ns) continue;
        /* No configuration names this server any more, or nobody uses it. */
        (void)map_remove(&p->by_server, e->key);
        pool_free(pool);
        pools_forget_servers(p);
    }
    curl_links_sweep(p->curl);
}

static struct pool *look_up(struct pools *p, const struct snap_server *s)
{
    char key[1200];
    int n = snprintf(key, sizeof key, "%.*s %.*s", STR_ARG(s->id), STR_ARG(s->url));
    struct str k = str_n(key, MIN((size_t)n, sizeof key - 1));
    struct pool *pool = map_get(&p->by_server, k);
    if (pool != NULL) return pool;
    pool = xcalloc(1, sizeof *pool);
    pool->pools = p;
    list_init(&pool->idle);
    list_init(&pool->fresh);
    if (map_put(&p->by_server, k, pool, NULL) != ERR_OK) {
        free(pool);
        return NULL;
    }
    return pool;
}

/* A server's address names it as long as its configuration is used. */
static struct pool *pool_of(struct pools *p, const struct snap_server *s)
{
    size_t i = (uintptr_t)s / sizeof *s % KNOWN_SERVERS;
    if (p->known[i].server != s) {
        p->known[i].pool = look_up(p, s);
        p->known[i].server = s;
    }
    struct pool *pool = p->known[i].pool;
    ASSERT(pool != NULL);
    pool->used_at = loop_now_ns(p->o.loop);
    return pool;
}

/* --- one exchange --- */

static void fail(struct exchange *x, enum exchange_failure f, const char *why)
{
    const struct exchange_events *ev = x->ev;
    void *ctx = x->ctx;
    bury(x, true);
    ev->fail(ctx, f, why);
}

static void become_idle(struct exchange *x)
{
    struct pool *p = x->pool;
    if (p->idle_n >= IDLE_PER_SERVER) {
        bury(x, false);
        return;
    }
    loop_timer_clear(p->pools->o.loop, &x->fail_timer);
    x->state = X_IDLE;
    x->idle_since = loop_now_ns(p->pools->o.loop);
    conn_pause(&x->conn, false);
    buf_done(&x->in);
    uint64_t turn = loop_turn(p->pools->o.loop);
    if (p->fresh_turn != turn) settle_fresh(p);
    p->fresh_turn = turn;
    list_push_front(&p->fresh, &x->node);
    p->idle_n++;
}

static void finish(struct exchange *x, bool clean)
{
    const struct exchange_events *ev = x->ev;
    void *ctx = x->ctx;
    if (clean && x->keep_alive && conn_waiting(&x->conn) == 0)
        become_idle(x);
    else
        bury(x, false);
    ev->end(ctx);
}

/* Each take_*() returns false when the exchange is over. */

/* All chunks that are here are handed on as one piece. */
static bool take_chunks(struct exchange *x, struct str data)
{
    size_t n, used;
    char *p = (char *)(uintptr_t)data.p; /* of a buffer of ours */
    enum chunked_status st = chunked_unwrap(&x->chunked, p, data.n, &n, &used);
    if (n > 0) x->ev->body(x->ctx, str_n(p, n));
    if (x->state != X_BODY) return false;
    if (st == CHUNKED_BAD) return fail(x, EXCHANGE_MALFORMED, x->chunked.reason), false;
    if (st == CHUNKED_DONE) return finish(x, used == data.n), false;
    return true;
}

static bool take_body(struct exchange *x, struct str data)
{
    if (x->framing == H1_BODY_CHUNKED) return data.n == 0 || take_chunks(x, data);
    while (data.n > 0) {
        struct str piece = data;
        if (x->framing == H1_BODY_LENGTH) {
            piece.n = (size_t)MIN((uint64_t)data.n, x->left);
            data.p += piece.n, data.n -= piece.n, x->left -= piece.n;
        } else {
            data.n = 0;
        }
        x->ev->body(x->ctx, piece);
        if (x->state != X_BODY) return false;
        if (x->framing == H1_BODY_LENGTH && x->left == 0) return finish(x, data.n == 0), false;
    }
    return true;
}

/* On a connection that was idle, what comes first may be no answer to our request: bytes behind the
 * answer before, or a 408 that crossed the request. A fresh connection tells. */
static bool is_leftover(const struct exchange *x, enum h1_status st, const struct h1_response *res)
{
    if (!x->reused || x->interims > 0) return false;
    return st == H1_BAD || (st == H1_DONE && res->status == 408 && !res->head.keep_alive);
}

static bool take_head(struct exchange *x, struct str *data)
{
    static const struct h1_limits limits = { .head = HEAD_MAX,
                                             .line = 16 * 1024,
                                             .headers = H1_MAX_HEADERS };
    struct h1_response *res = &x->pool->pools->response;
    struct h1_error why;
    for (;;) {
        h1_begin(&res->head);
        enum h1_status st = h1_parse_response(data->p, data->n, &limits, x->is_head, res, &why);
        if (is_leftover(x, st, res))
            return fail(x, EXCHANGE_STALE, "it said something while it was idle"), false;
        if (st == H1_BAD) return fail(x, EXCHANGE_MALFORMED, why.reason), false;
        if (st == H1_MORE) return true;
        data->p += res->head.len, data->n -= res->head.len;
        if (res->status >= 200) break;
        if (res->status == 101 || ++x->interims > INTERIM_MAX)
            return fail(x, EXCHANGE_MALFORMED,
                        "too many interim answers, or an upgrade nobody asked for"),
                   false;
    }
    x->framing = res->head.framing;
    x->left = res->head.content_length;
    x->keep_alive = res->head.keep_alive && x->framing != H1_BODY_CLOSE;
    x->state = X_BODY;
    x->ev->head(x->ctx, res);
    if (x->state != X_BODY) return false;
    if (x->framing == H1_BODY_NONE || (x->framing == H1_BODY_LENGTH && x->left == 0))
        return finish(x, data->n == 0), false;
    return true;
}

static bool take(struct exchange *x, struct str data)
{
    x->got_bytes = true;
    if (x->state == X_WAIT_HEAD) {
        if (x->in.len > 0) {
            if (buf_append_str(&x->in, data) != ERR_OK)
                return fail(x, EXCHANGE_MALFORMED, "the head is too large"), false;
            data = buf_str(&x->in);
        }
        if (!take_head(x, &data)) return false;
        if (x->state == X_WAIT_HEAD) {
            /* Keep what is there of the head. */
            if (x->in.len > 0)
                buf_consume(&x->in, (size_t)(data.p - x->in.data));
            else if (buf_append_str(&x->in, data) != ERR_OK)
                return fail(x, EXCHANGE_MALFORMED, "the head is too large"), false;
            return true;
        }
        bool more = take_body(x, data);
        if (more) buf_done(&x->in);
        return more;
    }
    return take_body(x, data);
}

/* The connection is over. orderly: the server sent its end; a reset ends nothing properly. */
static void on_gone(struct exchange *x, bool orderly)
{
    if (x->state == X_BODY && x->framing == H1_BODY_CLOSE && orderly)
        finish(x, false);
    else if (x->state == X_BODY)
        fail(x, EXCHANGE_TRUNCATED, "closed before the end of its answer");
    else if (x->reused && !x->got_bytes)
        fail(x, EXCHANGE_STALE, "closed while it was idle");
    else
        fail(x, EXCHANGE_RESET, "closed before it answered");
}

static void on_readable(struct exchange *x)
{
    char *scratch = x->pool->pools->o.scratch;
    for (int i = 0; i < READS_PER_TURN; i++) {
        size_t n;
        enum err e = conn_read(&x->conn, scratch, SCRATCH_SIZE, &n);
        if (e == ERR_AGAIN) break;
        if (x->state == X_IDLE) {
            bury(x, false); /* closed by the server, or bytes nobody asked for */
            return;
        }
        if (e != ERR_OK) {
            if (x->state == X_BODY) x->ev->flush(x->ctx);
            if (x->state != X_DEAD) on_gone(x, e == ERR_CLOSED);
            return;
        }
        if (!take(x, str_n(scratch, n))) return;
        if (x->conn.read_paused || n < SCRATCH_SIZE) break;
    }
    if (x->state == X_BODY) x->ev->flush(x->ctx);
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
        fail(x, EXCHANGE_CONNECT, why);
        return;
    }
    if (!x->conn.read_paused) on_readable(x);
    if (x->state == X_IDLE)
        bury(x, true);
    else if (x->state != X_DEAD)
        on_gone(x, false);
}

static void on_conn(void *ctx, enum conn_event ev)
{
    struct exchange *x = ctx;
    switch (ev) {
    case CONN_CONNECTED:
        x->state = X_WAIT_HEAD;
        if (conn_flush(&x->conn) != ERR_OK) on_broken(x);
        break;
    case CONN_READABLE: on_readable(x); break;
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
        fail(x, EXCHANGE_CONNECT, x->fail_why);
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

/* An idle connection on which nothing has happened: not closed, and no byte came that nobody asked
 * for (it would be taken for the answer to the next request). NULL: none. */
static struct exchange *take_idle(struct pool *pool)
{
    if (pool->fresh_turn != loop_turn(pool->pools->o.loop)) settle_fresh(pool);
    while (pool->idle_n > 0) {
        struct list_node *first = list_empty(&pool->idle) ? pool->fresh.next : pool->idle.next;
        struct exchange *x = LIST_ENTRY(first, struct exchange, node);
        if (!conn_is_quiet(&x->conn)) {
            bury(x, false);
            continue;
        }
        list_remove(&x->node);
        pool->idle_n--;
        x->reused = true;
        x->state = X_WAIT_HEAD;
        return x;
    }
    return NULL;
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
    struct exchange *x = fresh ? NULL : take_idle(pool);
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
    buf_init(&x->in, HEAD_MAX + SCRATCH_SIZE);
    if (e == ERR_OK) e = conn_send(&x->conn, (struct str[]){ head, body }, 2);
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
        bury(x, true);
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
    if (x->discarded > DISCARD_MAX) bury(x, true);
}

static void discard_nothing(void *ctx)
{
    (void)ctx;
}

static void discard_fail(void *ctx, enum exchange_failure f, const char *why)
{
    (void)ctx, (void)f, (void)why;
}

static const struct exchange_events discarding = { discard_head, discard_body, discard_nothing,
                                                   discard_nothing, discard_fail };

static void discard_late(void *ctx)
{
    bury(ctx, true);
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
        bury(x, true);
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
