/* SPDX-License-Identifier: Apache-2.0 */
/* See the header. */
#include "probe.h"

#include <stdio.h>

#include "rt/json.h"
#include "upstreams/resolve.h"

enum { BODY_MAX = 1024 * 1024, HEAD_MAX = 32 * 1024 };

static void end(struct probe *p)
{
    p->busy = false;
    loop_timer_clear(p->loop, &p->timer);
    exchange_cancel(p->exchange);
    p->exchange = NULL;
    if (conn_is_open(&p->conn)) conn_close(&p->conn, false);
    buf_done(&p->body);
}

void probe_stop(struct probe *p)
{
    if (p->busy) end(p);
}

static void result(struct probe *p, const char *why)
{
    if (why != NULL && why != p->why) (void)str_copyz(p->why, sizeof p->why, str_of(why));
    end(p);
    p->fn(p->ctx, why != NULL ? p->why : NULL);
}

static void too_late(void *ctx)
{
    result(ctx, "no answer in time");
}

static void fail_soon(void *ctx)
{
    struct probe *p = ctx;
    result(p, p->why);
}

/* Something is wrong before anything began. */
static void fail_later(struct probe *p, const char *why)
{
    (void)str_copyz(p->why, sizeof p->why, str_of(why));
    loop_timer_set(p->loop, &p->timer, loop_now_ns(p->loop), fail_soon, p);
}

/* --- a connection --- */

static void on_conn(void *ctx, enum conn_event ev)
{
    struct probe *p = ctx;
    if (ev == CONN_CONNECTED)
        result(p, NULL);
    else if (ev == CONN_BROKEN)
        result(p, "the connection was refused or could not be made");
}

static void connect_only(struct probe *p)
{
    struct sockaddr_storage addr;
    socklen_t len;
    if (resolver_get(p->resolver, p->server, 0, &addr, &len) != ERR_OK)
        fail_later(p, "its name has no address");
    else if (conn_connect(&p->conn, p->loop, (const struct sockaddr *)&addr, len, 1, on_conn, p) !=
             ERR_OK)
        fail_later(p, "no connection can be made");
}

/* --- a request --- */

static void on_head(void *ctx, const struct h1_response *res)
{
    struct probe *p = ctx;
    const struct snap_check *c = &p->upstream->check;
    unsigned want = c->kind == SNAP_CHECK_HTTP ? c->status : 200;
    if ((unsigned)res->status == want) return;
    (void)snprintf(p->why, sizeof p->why, "status %d instead of %u", res->status, want);
    result(p, p->why);
}

static void on_body(void *ctx, struct str data)
{
    struct probe *p = ctx;
    if (p->models && buf_append_str(&p->body, data) != ERR_OK)
        result(p, "its list of models is too long");
}

static void on_flush(void *ctx)
{
    (void)ctx;
}

static const char *look_at_models(const struct probe *p)
{
    const char *wrong = NULL;
    struct json *root;
    struct why why;
    struct str want = p->upstream->check.model;
    if (json_parse(buf_str(&p->body), BODY_MAX, &root, &why) != ERR_OK)
        return "its list of models is no JSON";
    const struct json *list = json_get(root, "data");
    if (!json_is(list, JSON_ARRAY)) wrong = "its list of models has no data";
    bool found = want.n == 0;
    for (const struct json *m = json_first(list); m != NULL && !found; m = json_next(m))
        found = str_eq(json_str(json_get(m, "id")), want);
    if (wrong == NULL && !found) wrong = "it does not serve the model";
    json_free(root);
    return wrong;
}

static void on_end(void *ctx)
{
    struct probe *p = ctx;
    p->exchange = NULL;
    result(p, p->models ? look_at_models(p) : NULL);
}

static void on_fail(void *ctx, enum exchange_failure f, const char *why)
{
    struct probe *p = ctx;
    (void)f;
    p->exchange = NULL;
    result(p, why);
}

static const struct exchange_events events = { on_head, on_body, on_flush, on_end, on_fail, NULL };

static enum err build_head(const struct probe *p, struct buf *b)
{
    const struct snap_server *s = p->server;
    const struct snap_upstream *u = p->upstream;
    bool v6 = memchr(s->host.p, ':', s->host.n) != NULL;
    enum err e = buf_printf(b, "GET %.*s%.*s HTTP/1.1\r\nhost: %s%.*s%s:%u\r\n",
                            STR_ARG(s->base_path), STR_ARG(u->check.path), v6 ? "[" : "",
                            STR_ARG(s->host), v6 ? "]" : "", s->port);
    if (e == ERR_OK) e = ruleset_put_credential(p->rules, u, b);
    if (e == ERR_OK)
        e = buf_appendz(b, "accept: */*\r\naccept-encoding: identity\r\n"
                           "user-agent: ai-gateway-health-check\r\nconnection: close\r\n\r\n");
    return e;
}

static void ask(struct probe *p)
{
    struct exchange_tls tls = { p->rules->tls[p->upstream->index], p->upstream->tls_server_name,
                                p->rules->transports[p->upstream->index] };
    struct buf head;
    buf_init(&head, HEAD_MAX);
    if (build_head(p, &head) == ERR_OK)
        p->exchange = exchange_start(p->pools, p->server, &tls, buf_str(&head), STR(""), false,
                                     true, &events, p);
    else
        fail_later(p, "the request is too long");
    if (head.data != NULL) explicit_bzero(head.data, head.len); /* it held a credential */
    buf_done(&head);
}

void probe_start(struct probe *p)
{
    ASSERT(!p->busy);
    p->busy = true;
    p->exchange = NULL;
    p->conn.fd = -1;
    p->models = p->upstream->check.kind == SNAP_CHECK_MODELS;
    buf_init(&p->body, BODY_MAX);
    loop_timer_set(p->loop, &p->timer,
                   loop_now_ns(p->loop) + p->upstream->check.timeout_ms * 1000000u, too_late, p);
    if (p->upstream->check.kind == SNAP_CHECK_TCP)
        connect_only(p);
    else
        ask(p);
}
