/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Exchanges by libcurl (`transport: curl`): HTTP/2, and egress proxies. The request's head is the
 * same that would go out directly; it is taken apart for curl, which frames it. The answer's head
 * comes as curl has it and goes through the same strict parser as any other.
 *
 * A link is what leads to one server in one way: connections with several exchanges on each where
 * it speaks HTTP/2. Where there is no proxy, the edge's own resolver says where the server is;
 * where there is one, it says where the proxy is, and the proxy looks the server's name up.
 * A connection that turns out to be closed is replaced by curl itself: EXCHANGE_STALE never comes.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/map.h"
#include "exchange_impl.h"
#include "resolve.h"
#include "rt/http_client_multi.h"
#include "rt/loop.h"
#include "rt/tls.h"
#include "transport.h"

enum {
    HEAD_MAX = 64 * 1024,
    FIELDS_MAX = 2 * H1_MAX_HEADERS, /* a client's, and those that were added */
    KEY_MAX = 1400,
    HOST_PORT_MAX = 300,
    MULTIS = 8,
    TRANSFER_MEMORY = 16 * 1024 /* about what libcurl has for itself */
};
static const uint64_t idle_ns = 60000000000u;

struct link {
    struct curl_links *links;
    struct transport *transport;
    /* The first takes what comes, the others while those before them have a stream that is stuck
     * (its client does not read, and connections are shared), or are worn. */
    struct http_multi *multis[MULTIS];
    bool whole_url; /* a plain server behind a plain proxy: the target is its whole URL */
    char *origin;   /* http://host:port */
    unsigned turn;  /* among a name's addresses */
    size_t exchanges;
    uint64_t used_at;
};

struct curl_links {
    struct pools_options o;
    struct map by_way;           /* server id, URL and transport -> struct link */
    struct h1_response response; /* parsed heads of answers, one at a time */
};

struct curl_exchange {
    struct exchange_base base;
    struct link *link;
    struct http_transfer *transfer; /* NULL: it never began, or is over */
    const struct exchange_events *ev;
    void *ctx;
    bool is_head, dead;
    struct loop_timer fail_timer;
    const char *fail_why;
};

static const struct exchange_ops ops;

/* --- links --- */

struct curl_links *curl_links_new(const struct pools_options *o)
{
    struct curl_links *l = xcalloc(1, sizeof *l);
    l->o = *o;
    map_init(&l->by_way, SIZE_MAX / 64); /* as many as configurations have */
    return l;
}

static void link_free(struct link *k)
{
    for (size_t i = 0; i < MULTIS; i++) http_multi_free(k->multis[i]);
    transport_unref(k->transport);
    free(k->origin);
    free(k);
}

void curl_links_free(struct curl_links *l)
{
    struct map_entry *e;
    size_t i = 0;
    if (l == NULL) return;
    while ((e = map_next(&l->by_way, &i)) != NULL) link_free(e->value);
    map_done(&l->by_way);
    free(l);
}

/* Others had better not join those that are on it. */
static bool is_spent(const struct http_multi *m)
{
    return m != NULL && (http_multi_is_stuck(m) || http_multi_is_worn(m));
}

/* Unless something is on it. */
static void multi_drop(struct http_multi **m)
{
    if (*m == NULL || !http_multi_is_idle(*m)) return;
    http_multi_free(*m);
    *m = NULL;
}

void curl_links_sweep(struct curl_links *l)
{
    uint64_t now = loop_now_ns(l->o.loop);
    struct map_entry *e;
    size_t i = 0;
    while ((e = map_next(&l->by_way, &i)) != NULL) {
        struct link *k = e->value;
        for (size_t j = 0; j < MULTIS; j++)
            if (j > 0 || is_spent(k->multis[j])) multi_drop(&k->multis[j]);
        if (k->exchanges > 0 || now - k->used_at < idle_ns) continue;
        (void)map_remove(&l->by_way, e->key);
        link_free(k);
    }
}

/* host:port, with brackets around an IPv6 address. */
static void host_port(char *out, size_t cap, struct str host, unsigned port)
{
    bool v6 = memchr(host.p, ':', host.n) != NULL;
    (void)snprintf(out, cap, "%s%.*s%s:%u", v6 ? "[" : "", STR_ARG(host), v6 ? "]" : "", port);
}

static struct http_multi *multi_new(const struct link *k, const struct snap_server *s)
{
    const struct transport *t = k->transport;
    char url[HOST_PORT_MAX + 16], at[HOST_PORT_MAX];
    bool renamed = s->tls && t->server_name != NULL;
    host_port(at, sizeof at, renamed ? str_of(t->server_name) : s->host, s->port);
    (void)snprintf(url, sizeof url, "%s://%s", s->tls ? "https" : "http", at);
    host_port(at, sizeof at, s->host, s->port);
    return http_multi_new(&(struct http_multi_options){
        .loop = k->links->o.loop,
        .url = renamed ? url : k->origin,
        .connect_to = renamed && t->proxy != NULL ? at : NULL,
        .version = t->http == SNAP_HTTP_1_1 ? HTTP_MULTI_1_1
                   : t->http == SNAP_HTTP_2 ? HTTP_MULTI_2
                                            : HTTP_MULTI_AUTO,
        .max_streams = t->max_streams,
        .ca_file = t->ca_file,
        .cert_file = t->cert_file,
        .key_file = t->key_file,
        .proxy = t->proxy,
        .proxy_user = t->proxy_user,
        .proxy_password = t->proxy_password,
        .proxy_ca_file = t->proxy_ca_file,
        .tunnel = t->http == SNAP_HTTP_2,
    });
}

/* NULL: out of memory. */
static struct http_multi *multi_of(struct link *k, const struct snap_server *s)
{
    size_t i = 0;
    while (i < MULTIS - 1 && is_spent(k->multis[i])) {
        if (http_multi_is_worn(k->multis[i])) multi_drop(&k->multis[i]);
        if (k->multis[i] != NULL) i++;
    }
    if (k->multis[i] == NULL) k->multis[i] = multi_new(k, s);
    return k->multis[i];
}

static struct link *link_new(struct curl_links *l, struct transport *t, const struct snap_server *s)
{
    char origin[HOST_PORT_MAX + 16], at[HOST_PORT_MAX];
    host_port(at, sizeof at, s->host, s->port);
    (void)snprintf(origin, sizeof origin, "%s://%s", s->tls ? "https" : "http", at);
    struct link *k = xcalloc(1, sizeof *k);
    k->links = l;
    k->transport = transport_ref(t);
    k->origin = xstrdup(origin);
    k->whole_url = !s->tls && t->http != SNAP_HTTP_2 &&
                   (t->proxy_kind == SNAP_PROXY_HTTP || t->proxy_kind == SNAP_PROXY_HTTPS);
    return k;
}

/* NULL: too many. */
static struct link *link_to(struct curl_links *l, struct transport *t, const struct snap_server *s)
{
    char key[KEY_MAX];
    int n = snprintf(key, sizeof key, "%s %.*s %.*s", t->id, STR_ARG(s->id), STR_ARG(s->url));
    struct str way = str_n(key, MIN((size_t)n, sizeof key - 1));
    struct link *k = map_get(&l->by_way, way);
    if (k == NULL) {
        k = link_new(l, t, s);
        if (map_put(&l->by_way, way, k, NULL) != ERR_OK) {
            link_free(k);
            return NULL;
        }
    }
    k->used_at = loop_now_ns(l->o.loop);
    return k;
}

/* Tells curl where to connect to. */
static enum err locate(struct link *k, struct http_multi *m, const struct snap_server *s)
{
    struct transport *t = k->transport;
    struct snap_server proxy = { .host = str_of(t->proxy_host), .port = t->proxy_port };
    bool by_proxy = t->proxy_kind != SNAP_PROXY_NONE;
    struct sockaddr_storage addr;
    socklen_t len;
    char text[INET6_ADDRSTRLEN], at[HOST_PORT_MAX], entry[2 * HOST_PORT_MAX];
    enum err e = resolver_get(k->links->o.resolver, by_proxy ? &proxy : s, k->turn, &addr, &len);
    if (e != ERR_OK) return e;
    const void *from = addr.ss_family == AF_INET
                           ? (const void *)&((struct sockaddr_in *)(void *)&addr)->sin_addr
                           : (const void *)&((struct sockaddr_in6 *)(void *)&addr)->sin6_addr;
    if (inet_ntop(addr.ss_family, from, text, sizeof text) == NULL) return ERR_INVALID;
    if (!by_proxy) {
        host_port(at, sizeof at, str_of(text), s->port);
        http_multi_connect_to(m, at);
        return ERR_OK;
    }
    bool v6 = addr.ss_family == AF_INET6;
    (void)snprintf(entry, sizeof entry, "%s:%u:%s%s%s", t->proxy_host, t->proxy_port, v6 ? "[" : "",
                   text, v6 ? "]" : "");
    /* A proxy that is named by an address needs no look-up, nor does curl take one for [::1]. */
    http_multi_resolve(m, strchr(t->proxy_host, ':') == NULL ? entry : NULL);
    return ERR_OK;
}

/* --- one exchange --- */

static void free_later(void *ctx)
{
    free(ctx);
}

static void bury(struct curl_exchange *x)
{
    if (x->dead) return;
    struct loop *loop = x->link->links->o.loop;
    x->dead = true;
    x->link->exchanges--;
    x->link->used_at = loop_now_ns(loop);
    loop_timer_clear(loop, &x->fail_timer);
    http_transfer_cancel(x->transfer);
    loop_defer(loop, free_later, x);
}

static void fail(struct curl_exchange *x, enum exchange_failure f, const char *why)
{
    const struct exchange_events *ev = x->ev;
    void *ctx = x->ctx;
    if (f == EXCHANGE_CONNECT) x->link->turn++; /* another address, if there is one */
    bury(x);
    ev->fail(ctx, f, why);
}

static void on_head(void *ctx, struct str head)
{
    static const struct h1_limits limits = { .head = HEAD_MAX,
                                             .line = 16 * 1024,
                                             .headers = H1_MAX_HEADERS };
    struct curl_exchange *x = ctx;
    struct h1_response *res = &x->link->links->response;
    struct h1_error why;
    h1_begin(&res->head);
    enum h1_status st = h1_parse_response(head.p, head.n, &limits, x->is_head, res, &why);
    if (st != H1_DONE)
        fail(x, EXCHANGE_MALFORMED, st == H1_BAD ? why.reason : "its head has no end");
    else if (res->status == 407 && x->link->whole_url)
        fail(x, EXCHANGE_CONNECT, "the egress proxy asks for another user or password");
    else
        x->ev->head(x->ctx, res);
}

static void on_body(void *ctx, struct str data)
{
    struct curl_exchange *x = ctx;
    x->ev->body(x->ctx, data);
}

static void on_flush(void *ctx)
{
    struct curl_exchange *x = ctx;
    x->ev->flush(x->ctx);
}

static void on_end(void *ctx)
{
    struct curl_exchange *x = ctx;
    const struct exchange_events *ev = x->ev;
    void *of = x->ctx;
    x->transfer = NULL;
    bury(x);
    ev->end(of);
}

static void on_fail(void *ctx, enum http_transfer_failure f, const char *why)
{
    static const enum exchange_failure same[] = {
        [HTTP_TRANSFER_CONNECT] = EXCHANGE_CONNECT,
        [HTTP_TRANSFER_RESET] = EXCHANGE_RESET,
        [HTTP_TRANSFER_TRUNCATED] = EXCHANGE_TRUNCATED,
        [HTTP_TRANSFER_MALFORMED] = EXCHANGE_MALFORMED,
    };
    struct curl_exchange *x = ctx;
    x->transfer = NULL;
    fail(x, same[f], why);
}

static const struct http_transfer_events events = { on_head, on_body, on_flush, on_end, on_fail };

static void fail_now(void *ctx)
{
    struct curl_exchange *x = ctx;
    fail(x, EXCHANGE_CONNECT, x->fail_why);
}

/* Takes apart the head that was built for HTTP/1.1: ours, so it is known to be one. Framing is
 * curl's affair. */
static enum err take_apart(struct str head, struct http_field *fields, size_t max,
                           struct http_transfer_request *ret)
{
    struct str line = str_cut(&head, '\n');
    ret->method = str_cut(&line, ' ');
    ret->target = str_cut(&line, ' ');
    for (line = str_cut(&head, '\n'); line.n > 1; line = str_cut(&head, '\n')) {
        line.n--; /* CR */
        struct str name = str_cut(&line, ':'), value = str_trim(line);
        if (str_ieq(name, STR("content-length"))) {
            ret->has_body = true;
        } else if (str_ieq(name, STR("connection"))) {
            ret->last = str_ieq(value, STR("close"));
        } else {
            if (ret->fields_n == max) return ERR_LIMIT;
            fields[ret->fields_n++] = (struct http_field){ name, value };
        }
    }
    return ERR_OK;
}

static enum err send_request(struct curl_exchange *x, struct http_multi *m, struct str head,
                             struct str body, bool fresh)
{
    struct link *k = x->link;
    struct http_field fields[FIELDS_MAX];
    struct http_transfer_request r = { .fields = fields, .body = body, .is_head = x->is_head };
    struct buf target;
    enum err e = take_apart(head, fields, FIELDS_MAX, &r);
    buf_init(&target, HEAD_MAX + HOST_PORT_MAX);
    if (e == ERR_OK && k->whole_url) {
        e = buf_printf(&target, "%s%.*s", k->origin, STR_ARG(r.target));
        r.target = buf_str(&target);
    }
    r.last = r.last && fresh; /* a connection of its own is what a check asks for */
    if (e == ERR_OK) {
        x->transfer = http_transfer_start(m, &r, &events, x);
        if (x->transfer == NULL) e = ERR_NOMEM;
    }
    buf_done(&target);
    return e;
}

struct exchange *curl_exchange_start(struct curl_links *l, const struct snap_server *s,
                                     const struct exchange_tls *tls, struct str head,
                                     struct str body, bool is_head, bool fresh,
                                     const struct exchange_events *ev, void *ctx)
{
    struct link *k = link_to(l, tls->transport, s);
    ASSERT(k != NULL);
    struct curl_exchange *x = xcalloc(1, sizeof *x);
    x->base.ops = &ops;
    x->link = k;
    k->exchanges++;
    x->ev = ev;
    x->ctx = ctx;
    x->is_head = is_head;
    struct http_multi *m = multi_of(k, s);
    x->fail_why = "its name has no address";
    enum err e = m != NULL ? locate(k, m, s) : ERR_NOMEM;
    if (e == ERR_OK) {
        x->fail_why = "the request cannot be sent";
        e = send_request(x, m, head, body, fresh);
    }
    /* What is wrong by now is told later, like everything else. */
    if (e != ERR_OK) loop_timer_set(l->o.loop, &x->fail_timer, loop_now_ns(l->o.loop), fail_now, x);
    return (struct exchange *)(void *)x;
}

static struct curl_exchange *ours(struct exchange *x)
{
    return (struct curl_exchange *)(void *)x;
}

static void cancel(struct exchange *x)
{
    bury(ours(x));
}

static void redirect(struct exchange *x, const struct exchange_events *ev)
{
    ours(x)->ev = ev;
}

static void set_paused(struct exchange *x, bool paused)
{
    if (ours(x)->transfer != NULL) http_transfer_pause(ours(x)->transfer, paused);
}

static bool is_connected(const struct exchange *x)
{
    const struct curl_exchange *c = (const void *)x;
    return c->transfer != NULL && http_transfer_is_connected(c->transfer);
}

static size_t memory(const struct exchange *x)
{
    const struct curl_exchange *c = (const void *)x;
    size_t n = sizeof *c;
    return c->transfer != NULL ? n + TRANSFER_MEMORY + http_transfer_memory(c->transfer) : n;
}

static struct exchange_way way(const struct exchange *x)
{
    const struct curl_exchange *c = (const void *)x;
    if (c->transfer == NULL) return (struct exchange_way){ "curl", "", 0 };
    return (struct exchange_way){ "curl", http_transfer_version(c->transfer),
                                  http_transfer_connections(c->transfer) };
}

/* What is left of an answer on HTTP/2 disturbs nobody once its stream is reset. */
static const struct exchange_ops ops = { .cancel = cancel,
                                         .discard = cancel,
                                         .redirect = redirect,
                                         .pause = set_paused,
                                         .memory = memory,
                                         .is_connected = is_connected,
                                         .way = way };
