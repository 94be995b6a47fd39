/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libmicrohttpd with a pool of epoll threads, each serving its own connections: handlers, before()
 * and after() run there. What MHD calls us for, in order, on one thread per connection:
 *
 *   on_request_line   makes the request (struct exchange), as the connection's context
 *   on_access         once with the headers, then with pieces of the body, then once without:
 * answers on_completed      the reply is sent or the client gone: frees the exchange
 *
 * A handler that answers later has its connection suspended: MHD leaves it alone until it is
 * resumed, and calls on_access once more then.
 */
#include "rt/http_server.h"

#include <arpa/inet.h>
#include <errno.h>
#include <microhttpd.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "rt/http_path.h"

enum {
    ARENA_BUDGET = 16 << 20,
    REPLY_MAX = 64 << 20,
    HEADERS_MAX = 32 << 10,
    /* Of a body that is too long, so much more is read and dropped, for the client to get to our
     * answer. */
    DROPPED_MAX = 1 << 20,
    /* A body may take so many time-outs to come, however it drips. */
    BODY_TIMEOUTS = 4,
    BACKLOG = 128
};

struct http_server {
    struct http_server_options o;
    char *bind;
    struct MHD_Daemon *daemon;
    int listen_fd, quiesced_fd; /* the second is ours to close; -1: MHD's */
    uint16_t port;
    atomic_bool quiesced;
    atomic_uint inflight;
    atomic_size_t bodies; /* bytes of bodies that are here */
};

/* One request and its reply. */
struct exchange {
    struct http_server *server;
    struct http_request req;
    struct http_reply reply;
    const char *route;
    struct http_target target;
    struct arena arena;
    struct buf body;
    struct MHD_Connection *conn;
    int fd;
    uint64_t start_ns;
    size_t dropped;
    int refused; /* a status that was decided before the body came; 0: none */
    const char *refused_why;
    bool begun; /* on_access has seen the headers */
    bool later, answered, noted;
    size_t held; /* bytes of server->bodies */
    char ip[INET6_ADDRSTRLEN];
};

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* --- requests -----------------------------------------------------------------------------------
 */

struct str http_header(const struct http_request *r, const char *name)
{
    const struct exchange *x = r->impl;
    const char *v = MHD_lookup_connection_value(x->conn, MHD_HEADER_KIND, name);
    return str_of(v);
}

struct str http_query(const struct http_request *r, const char *name)
{
    const struct exchange *x = r->impl;
    return http_query_find(x->target.query, name, r->arena);
}

void http_reply_header(struct http_reply *r, const char *name, const char *fmt, ...)
{
    ASSERT(r->headers_len < ARRAY_LEN(r->headers));
    char *value = r->headers[r->headers_len].value;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(value, sizeof r->headers[0].value, fmt, ap);
    va_end(ap);
    for (char *c = value; *c != '\0'; c++) /* no second header may be smuggled in a value */
        if ((unsigned char)*c < 0x20 || *c == 0x7f) *c = ' ';
    r->headers[r->headers_len++].name = name;
}

static void client_ip(struct MHD_Connection *conn, char out[INET6_ADDRSTRLEN])
{
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(
        conn, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
    out[0] = '\0';
    if (info == NULL || info->client_addr == NULL) return;
    if (info->client_addr->sa_family == AF_INET) {
        const struct sockaddr_in *in = (const void *)info->client_addr;
        inet_ntop(AF_INET, &in->sin_addr, out, INET6_ADDRSTRLEN);
    } else if (info->client_addr->sa_family == AF_INET6) {
        const struct sockaddr_in6 *in = (const void *)info->client_addr;
        if (IN6_IS_ADDR_V4MAPPED(&in->sin6_addr))
            inet_ntop(AF_INET, in->sin6_addr.s6_addr + 12, out, INET6_ADDRSTRLEN);
        else
            inet_ntop(AF_INET6, &in->sin6_addr, out, INET6_ADDRSTRLEN);
    }
}

static void *on_request_line(void *ctx, const char *uri, struct MHD_Connection *conn)
{
    struct http_server *s = ctx;
    struct exchange *x = calloc(1, sizeof *x);
    if (x == NULL) return NULL;
    x->server = s;
    x->conn = conn;
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(
        conn, MHD_CONNECTION_INFO_CONNECTION_FD);
    x->fd = info != NULL ? info->connect_fd : -1;
    x->start_ns = now_ns();
    arena_init(&x->arena, ARENA_BUDGET);
    buf_init(&x->body, s->o.max_body);
    buf_init(&x->reply.body, REPLY_MAX);
    client_ip(conn, x->ip);
    x->req.arena = &x->arena;
    x->req.client_ip = str_of(x->ip);
    x->req.impl = x;
    atomic_fetch_add(&s->inflight, 1);
    /* uri lives in the connection's memory, which later headers may move: the copy is ours. */
    struct str target;
    if (arena_dup(&x->arena, str_of(uri), &target) != ERR_OK ||
        http_target_parse(target, &x->arena, &x->target) != ERR_OK) {
        x->refused = MHD_HTTP_BAD_REQUEST;
        x->refused_why = "malformed request target";
    }
    x->req.path = x->target.path;
    return x;
}

static void note(struct exchange *x)
{
    const struct http_server *s = x->server;
    x->noted = true;
    if (s->o.after != NULL)
        s->o.after(s->o.ctx, &x->req, x->route, x->reply.status, now_ns() - x->start_ns);
}

static void drop_body(struct exchange *x)
{
    buf_done(&x->body);
    buf_init(&x->body, x->server->o.max_body);
    atomic_fetch_sub(&x->server->bodies, x->held);
    x->held = 0;
}

static void on_completed(void *ctx, struct MHD_Connection *conn, void **con_ctx,
                         enum MHD_RequestTerminationCode how)
{
    struct exchange *x = *con_ctx;
    struct http_server *s = ctx;
    (void)conn;
    (void)how;
    if (x == NULL) return;
    *con_ctx = NULL;
    if (x->answered && !x->noted) note(x); /* the client went before it could be told */
    drop_body(x);
    buf_done(&x->reply.body);
    arena_done(&x->arena);
    free(x);
    atomic_fetch_sub(&s->inflight, 1);
}

/* --- replies ------------------------------------------------------------------------------------
 */

static void reply_error(struct http_server *s, int status, const char *message,
                        struct http_reply *reply)
{
    reply->status = status;
    if (s->o.error_body != NULL) {
        s->o.error_body(s->o.ctx, status, message, reply);
        return;
    }
    buf_clear(&reply->body);
    enum err e = buf_appendz(&reply->body, "{\"error\":{\"message\":");
    if (e == ERR_OK) e = buf_append_json(&reply->body, str_of(message));
    if (e == ERR_OK) e = buf_appendz(&reply->body, "}}");
    if (e != ERR_OK) buf_clear(&reply->body);
}

/* Takes the reply's body. */
static enum MHD_Result send_reply(struct exchange *x, struct http_reply *reply)
{
    static char nothing[1];
    struct MHD_Response *r;
    if (reply->body.len == 0) {
        r = MHD_create_response_from_buffer(0, nothing, MHD_RESPMEM_PERSISTENT);
    } else {
        r = MHD_create_response_from_buffer_with_free_callback(reply->body.len, reply->body.data,
                                                               free);
        if (r != NULL) buf_init(&reply->body, REPLY_MAX); /* its memory belongs to r now */
    }
    if (r == NULL) return MHD_NO;

    bool ok = true;
    bool typed = reply->status != MHD_HTTP_NO_CONTENT && reply->status != MHD_HTTP_NOT_MODIFIED;
    if (typed)
        ok = MHD_add_response_header(r, MHD_HTTP_HEADER_CONTENT_TYPE, reply->content_type) ==
             MHD_YES;
    for (size_t i = 0; i < reply->headers_len && ok; i++)
        ok = MHD_add_response_header(r, reply->headers[i].name, reply->headers[i].value) == MHD_YES;
    if (ok && atomic_load(&x->server->quiesced))
        ok = MHD_add_response_header(r, MHD_HTTP_HEADER_CONNECTION, "close") == MHD_YES;
    enum MHD_Result result = MHD_NO;
    if (ok) result = MHD_queue_response(x->conn, (unsigned)reply->status, r);
    MHD_destroy_response(r);
    return result;
}

static bool method_matches(const struct http_route *r, struct str method)
{
    return str_eqz(method, r->method) ||
           (str_eq(method, STR("HEAD")) && str_eqz(STR("GET"), r->method));
}

/* The methods of the routes that match the path, as Allow wants them. */
static void allow_header(const struct exchange *x, struct http_reply *reply)
{
    const struct http_server *s = x->server;
    struct str unused[HTTP_PATH_PARAMS];
    char list[128] = "";
    size_t n = 0;
    for (size_t i = 0; i < s->o.routes_len; i++) {
        const struct http_route *r = &s->o.routes[i];
        if (!http_path_match(&x->target, r->path, x->req.arena, unused)) continue;
        bool get = str_eqz(STR("GET"), r->method);
        if (str_contains(str_n(list, n), str_of(r->method))) continue;
        int more = snprintf(list + n, sizeof list - n, "%s%s%s", n > 0 ? ", " : "", r->method,
                            get ? ", HEAD" : "");
        if (more < 0 || (size_t)more >= sizeof list - n) break;
        n += (size_t)more;
    }
    http_reply_header(reply, "Allow", "%.*s", (int)n, list);
}

/* Finds the route and runs its handler, or makes the error. Returns the route's pattern or ""; NULL
 * when the handler answers later. */
static const char *answer(struct exchange *x, struct http_reply *reply)
{
    struct http_server *s = x->server;
    bool other_method = false;
    if (x->refused != 0) {
        reply_error(s, x->refused, x->refused_why, reply);
        if (x->refused == MHD_HTTP_SERVICE_UNAVAILABLE)
            http_reply_header(reply, "Retry-After", "1");
        return "";
    }
    for (size_t i = 0; i < s->o.routes_len; i++) {
        const struct http_route *r = &s->o.routes[i];
        if (!http_path_match(&x->target, r->path, x->req.arena, x->req.params)) continue;
        if (!method_matches(r, x->req.method)) {
            other_method = true;
            continue;
        }
        x->route = r->path;
        if (s->o.before != NULL && !s->o.before(s->o.ctx, &x->req, reply)) return r->path;
        r->fn(s->o.ctx, &x->req, reply);
        return x->later ? NULL : r->path;
    }
    if (other_method) {
        reply_error(s, MHD_HTTP_METHOD_NOT_ALLOWED, "method not allowed", reply);
        allow_header(x, reply);
    } else {
        reply_error(s, MHD_HTTP_NOT_FOUND, "not found", reply);
    }
    return "";
}

static enum MHD_Result finish(struct exchange *x)
{
    struct http_server *s = x->server;
    if (x->reply.status < 200 || x->reply.status > 599) {
        buf_clear(&x->reply.body);
        x->reply.headers_len = 0;
        reply_error(s, MHD_HTTP_INTERNAL_SERVER_ERROR, "internal error", &x->reply);
    }
    enum MHD_Result result = send_reply(x, &x->reply);
    note(x);
    return result;
}

static enum MHD_Result serve(struct exchange *x)
{
    x->reply.status = 200;
    x->reply.content_type = "application/json";
    x->req.body = buf_str(&x->body);
    const char *route = answer(x, &x->reply);
    /* One that is answered later is in another thread's hands now, but for what MHD does. */
    return route != NULL ? (x->route = route, finish(x)) : MHD_YES;
}

struct http_reply *http_later(const struct http_request *r)
{
    struct exchange *x = r->impl;
    ASSERT(!x->later);
    x->later = true;
    MHD_suspend_connection(x->conn);
    return &x->reply;
}

void http_answer(const struct http_request *r)
{
    struct exchange *x = r->impl;
    ASSERT(x->later && !x->answered);
    x->answered = true;
    MHD_resume_connection(x->conn); /* x may be gone from here on */
}

bool http_client_is_gone(const struct http_request *r)
{
    const struct exchange *x = r->impl;
    struct pollfd p = { .fd = x->fd, .events = POLLRDHUP };
    return poll(&p, 1, 0) > 0 && (p.revents & (POLLRDHUP | POLLHUP | POLLERR | POLLNVAL)) != 0;
}

/* --- what MHD calls ------------------------------------------------------------------------------
 */

static void refuse_body(struct exchange *x)
{
    if (x->refused != 0) return;
    x->refused = MHD_HTTP_CONTENT_TOO_LARGE;
    x->refused_why = "body too large";
    drop_body(x);
}

static void refuse_for_now(struct exchange *x)
{
    if (x->refused != 0) return;
    x->refused = MHD_HTTP_SERVICE_UNAVAILABLE;
    x->refused_why = "too many large requests at a time";
    drop_body(x);
}

/* Refuses a body by what the headers announce. */
static void check_announced(struct exchange *x)
{
    struct http_server *s = x->server;
    struct str length = http_header(&x->req, MHD_HTTP_HEADER_CONTENT_LENGTH);
    uint64_t n;
    if (length.p == NULL) return;
    if (str_to_u64(str_trim(length), &n) != ERR_OK || n > s->o.max_body)
        refuse_body(x);
    else if (s->o.max_bodies > 0 && n + atomic_load(&s->bodies) > s->o.max_bodies)
        refuse_for_now(x);
}

/* Takes a part of the body, within what one may have and all together. */
static void take_body(struct exchange *x, const char *data, size_t n)
{
    struct http_server *s = x->server;
    size_t all = atomic_fetch_add(&s->bodies, n) + n;
    x->held += n;
    if (s->o.max_bodies > 0 && all > s->o.max_bodies)
        refuse_for_now(x);
    else if (buf_append(&x->body, data, n) != ERR_OK)
        refuse_body(x);
}

static enum MHD_Result on_access(void *ctx, struct MHD_Connection *conn, const char *url,
                                 const char *method, const char *version, const char *data,
                                 size_t *data_len, void **con_ctx)
{
    struct exchange *x = *con_ctx;
    (void)ctx;
    (void)conn;
    (void)url;
    (void)version;
    if (x == NULL) return MHD_NO;
    if (!x->begun) {
        x->begun = true;
        x->req.method = str_of(method);
        /* Answering now makes MHD close the connection instead of reading the body. */
        bool malformed = x->refused != 0;
        check_announced(x);
        return !malformed && x->refused != 0 ? serve(x) : MHD_YES;
    }
    if (x->answered) return finish(x);
    if (*data_len > 0) {
        if (x->refused == 0) take_body(x, data, *data_len);
        if (x->refused != 0) x->dropped += *data_len;
        *data_len = 0;
        uint64_t limit_ns = (uint64_t)x->server->o.timeout_s * BODY_TIMEOUTS * 1000000000u;
        return x->dropped > DROPPED_MAX || now_ns() - x->start_ns > limit_ns ? MHD_NO : MHD_YES;
    }
    return serve(x);
}

/* Arguments and paths are decoded by http_path.c, once. */
static size_t leave_escaped(void *ctx, struct MHD_Connection *conn, char *s)
{
    (void)ctx;
    (void)conn;
    return strlen(s);
}

/* --- life ----------------------------------------------------------------------------------------
 */

static enum err open_listener(struct http_server *s, struct why *why)
{
    struct addrinfo hints = { .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV | AI_PASSIVE,
                              .ai_socktype = SOCK_STREAM },
                    *ai = NULL;
    char port[8];
    int one = 1, zero = 0;
    enum err e = ERR_IO;
    snprintf(port, sizeof port, "%u", (unsigned)s->o.port);
    if (getaddrinfo(s->o.bind, port, &hints, &ai) != 0)
        return why_set(why, ERR_INVALID, "%s is not an address to listen on", s->o.bind);
    int fd = socket(ai->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        why_set(why, e, "socket: %s", strerror(errno));
        goto out;
    }
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (ai->ai_family == AF_INET6) setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &zero, sizeof zero);
    struct sockaddr_storage at;
    socklen_t at_len = sizeof at;
    if (bind(fd, ai->ai_addr, ai->ai_addrlen) != 0 || listen(fd, BACKLOG) != 0 ||
        getsockname(fd, (struct sockaddr *)&at, &at_len) != 0) {
        why_set(why, e, "cannot listen on %s port %s: %s", s->o.bind, port, strerror(errno));
        close(fd);
        goto out;
    }
    s->port = ntohs(at.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)(void *)&at)->sin6_port
                                             : ((struct sockaddr_in *)(void *)&at)->sin_port);
    s->listen_fd = fd;
    e = ERR_OK;
out:
    freeaddrinfo(ai);
    return e;
}

enum err http_server_new(const struct http_server_options *o, struct http_server **ret,
                         struct why *why)
{
    struct http_server *s = xcalloc(1, sizeof *s);
    s->o = *o;
    s->o.bind = s->bind = xstrdup(o->bind);
    s->quiesced_fd = -1;
    if (s->o.threads == 0) s->o.threads = 2;
    if (s->o.max_connections == 0) s->o.max_connections = 256;
    if (s->o.max_connections < s->o.threads) s->o.max_connections = s->o.threads;
    if (s->o.timeout_s == 0) s->o.timeout_s = 30;
    for (size_t i = 0; i < o->routes_len; i++) ASSERT(o->routes[i].path[0] == '/');

    enum err e = open_listener(s, why);
    if (e != ERR_OK) goto out;
    struct MHD_OptionItem more[] = {
        /* One thread is no pool. */
        { s->o.threads > 1 ? MHD_OPTION_THREAD_POOL_SIZE : MHD_OPTION_END, (intptr_t)s->o.threads,
          NULL },
        { MHD_OPTION_END, 0, NULL },
    };
    s->daemon = MHD_start_daemon(
        MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_EPOLL | MHD_USE_ITC | MHD_ALLOW_SUSPEND_RESUME, 0,
        NULL, NULL, on_access, s, MHD_OPTION_LISTEN_SOCKET, s->listen_fd,
        MHD_OPTION_URI_LOG_CALLBACK, on_request_line, s, MHD_OPTION_NOTIFY_COMPLETED, on_completed,
        s, MHD_OPTION_UNESCAPE_CALLBACK, leave_escaped, NULL, MHD_OPTION_CONNECTION_LIMIT,
        s->o.max_connections, MHD_OPTION_CONNECTION_TIMEOUT, s->o.timeout_s,
        MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)HEADERS_MAX, MHD_OPTION_STRICT_FOR_CLIENT, 1,
        MHD_OPTION_ARRAY, more, MHD_OPTION_END);
    if (s->daemon == NULL) {
        e = why_set(why, ERR_IO, "cannot start the HTTP server on port %u: %s", s->port,
                    strerror(errno));
        close(s->listen_fd);
        goto out;
    }
    *ret = s;
    return ERR_OK;
out:
    free(s->bind);
    free(s);
    return e;
}

uint16_t http_server_port(const struct http_server *s)
{
    return s->port;
}

void http_server_quiesce(struct http_server *s)
{
    if (atomic_exchange(&s->quiesced, true)) return;
    s->quiesced_fd = MHD_quiesce_daemon(s->daemon);
    /* Threads may still be about to accept on it: it is shut now, and closed when they have ended.
     */
    if (s->quiesced_fd >= 0) shutdown(s->quiesced_fd, SHUT_RDWR);
}

unsigned http_server_inflight(const struct http_server *s)
{
    return atomic_load(&s->inflight);
}

void http_server_free(struct http_server *s)
{
    if (s == NULL) return;
    MHD_stop_daemon(s->daemon);
    if (s->quiesced_fd >= 0) close(s->quiesced_fd);
    free(s->bind);
    free(s);
}
