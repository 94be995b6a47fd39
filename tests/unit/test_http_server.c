/* SPDX-License-Identifier: Apache-2.0 */
/* The HTTP server and client over real sockets: routes, limits, what is refused, how both end. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "rt/http_client.h"
#include "rt/http_server.h"

enum { MAX_BODY = 1000 };

struct fixture {
    struct http_server *server;
    struct http_client *client;
    struct buf body;
    int status;
    char url[300];
    atomic_int before_calls, after_calls;
    atomic_bool deny, release, entered;
    atomic_bool gone;
    struct http_reply *later_reply;
    pthread_mutex_t lock; /* guards the two below */
    char after_route[64];
    int after_status;
};

/* What a thread that answers later works for: one test runs at a time. */
static struct fixture *_Atomic later_fixture;

/* --- handlers */

static void put(struct http_reply *r, struct str s)
{
    ASSERT(buf_append_str(&r->body, s) == ERR_OK);
}

/* method path [params] body */
static void show(void *ctx, const struct http_request *q, struct http_reply *r)
{
    (void)ctx;
    put(r, q->method);
    put(r, STR(" "));
    put(r, q->path);
    for (size_t i = 0; i < ARRAY_LEN(q->params) && q->params[i].p != NULL; i++) {
        put(r, STR(" ["));
        put(r, q->params[i]);
        put(r, STR("]"));
    }
    put(r, STR(" "));
    put(r, q->body);
}

static void arguments(void *ctx, const struct http_request *q, struct http_reply *r)
{
    (void)ctx;
    static const char *const names[] = { "a", "b c", "empty", "none" };
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        struct str v = http_query(q, names[i]);
        put(r, v.p == NULL ? STR("-") : v);
        put(r, STR("|"));
    }
    struct str h = http_header(q, "x-thing");
    put(r, h.p == NULL ? STR("-") : h);
    put(r, STR("|"));
    put(r, q->client_ip);
}

static void headers(void *ctx, const struct http_request *q, struct http_reply *r)
{
    (void)ctx;
    (void)q;
    r->status = 201;
    r->content_type = "text/plain";
    http_reply_header(r, "Location", "/x/%d", 7);
    http_reply_header(r, "X-Bad", "a\r\nSet-Cookie: b");
    put(r, STR("made"));
}

static void redirect(void *ctx, const struct http_request *q, struct http_reply *r)
{
    (void)ctx;
    (void)q;
    r->status = 302;
    http_reply_header(r, "Location", "/things");
    put(r, STR("elsewhere"));
}

static void nothing(void *ctx, const struct http_request *q, struct http_reply *r)
{
    (void)ctx;
    (void)q;
    r->status = 204;
}

static void nonsense(void *ctx, const struct http_request *q, struct http_reply *r)
{
    (void)ctx;
    (void)q;
    r->status = 42;
    put(r, STR("secret"));
}

static void block(void *ctx, const struct http_request *q, struct http_reply *r)
{
    struct fixture *f = ctx;
    (void)q;
    atomic_store(&f->entered, true);
    while (!atomic_load(&f->release)) {
        struct timespec t = { 0, 1000000 };
        nanosleep(&t, NULL);
    }
    put(r, STR("done"));
}

static void large(void *ctx, const struct http_request *q, struct http_reply *r)
{
    char *at;
    (void)ctx;
    (void)q;
    ASSERT(buf_reserve(&r->body, 5 << 20, &at) == ERR_OK);
    memset(at, 'x', 5 << 20);
    r->body.len += 5 << 20;
}

/* --- answering later */

static void *answer_later(void *arg)
{
    const struct http_request *q = arg;
    struct fixture *f = atomic_load(&later_fixture);
    while (!atomic_load(&f->release) && !http_client_is_gone(q)) sched_yield();
    atomic_store(&f->gone, http_client_is_gone(q));
    put(f->later_reply, q->body);
    http_reply_header(f->later_reply, "X-Later", "yes");
    http_answer(q);
    return NULL;
}

static void later(void *ctx, const struct http_request *q, struct http_reply *r)
{
    struct fixture *f = ctx;
    (void)r;
    f->later_reply = http_later(q);
    atomic_store(&later_fixture, f);
    pthread_t t;
    ASSERT(pthread_create(&t, NULL, answer_later, (void *)(uintptr_t)q) == 0);
    pthread_detach(t);
    atomic_store(&f->entered, true);
}

static const struct http_route routes[] = {
    { "POST", "/later", later },
    { "GET", "/", show },
    { "GET", "/things", show },
    { "POST", "/things", show },
    { "GET", "/things/{}", show },
    { "PUT", "/things/{}/parts/{}", show },
    { "GET", "/things/special", headers }, /* never reached: the first match wins */
    { "DELETE", "/things/{}", nothing },
    { "GET", "/files/*", show },
    { "GET", "/args", arguments },
    { "GET", "/headers", headers },
    { "GET", "/redirect", redirect },
    { "GET", "/nonsense", nonsense },
    { "GET", "/block", block },
    { "GET", "/large", large },
};

static bool before(void *ctx, const struct http_request *q, struct http_reply *r)
{
    struct fixture *f = ctx;
    (void)q;
    atomic_fetch_add(&f->before_calls, 1);
    if (!atomic_load(&f->deny)) return true;
    r->status = 401;
    http_reply_header(r, "WWW-Authenticate", "Bearer");
    put(r, STR("denied"));
    return false;
}

static void after(void *ctx, const struct http_request *q, const char *route, int status,
                  uint64_t ns)
{
    struct fixture *f = ctx;
    (void)q;
    ASSERT(ns > 0);
    pthread_mutex_lock(&f->lock);
    snprintf(f->after_route, sizeof f->after_route, "%s", route);
    f->after_status = status;
    pthread_mutex_unlock(&f->lock);
    atomic_fetch_add(&f->after_calls, 1);
}

/* --- fixture */

static void start(struct fixture *f, const struct http_server_options *more)
{
    struct http_server_options o = more != NULL ? *more : (struct http_server_options){ 0 };
    struct why why;
    if (o.bind == NULL) o.bind = "127.0.0.1";
    o.routes = routes;
    o.routes_len = ARRAY_LEN(routes);
    o.ctx = f;
    if (o.max_body == 0) o.max_body = MAX_BODY;
    if (o.threads == 0) o.threads = 3;
    o.before = before;
    o.after = after;
    if (http_server_new(&o, &f->server, &why) != ERR_OK) fail_msg("%s", why.text);
}

static int setup_plain(void **state)
{
    struct fixture *f = xcalloc(1, sizeof *f);
    pthread_mutex_init(&f->lock, NULL);
    f->client = http_client_new();
    buf_init(&f->body, 64 << 20);
    *state = f;
    return 0;
}

static int setup(void **state)
{
    setup_plain(state);
    start(*state, NULL);
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    atomic_store(&f->release, true);
    http_client_free(f->client);
    http_server_free(f->server);
    buf_done(&f->body);
    free(f);
    return 0;
}

static enum err call_with(struct fixture *f, struct http_call *c, const char *path)
{
    struct why why = { "" };
    snprintf(f->url, sizeof f->url, "http://127.0.0.1:%u%s", http_server_port(f->server), path);
    c->url = f->url;
    if (c->timeout_ms == 0) c->timeout_ms = 60000;
    buf_clear(&f->body);
    f->status = 0;
    return http_client_call(f->client, c, &f->status, &f->body, &why);
}

static void call(struct fixture *f, const char *method, const char *path, const char *body)
{
    struct http_call c = { .method = method, .body = str_of(body) };
    assert_int_equal(call_with(f, &c, path), ERR_OK);
}

static int dial(struct fixture *f)
{
    struct sockaddr_in at = { .sin_family = AF_INET,
                              .sin_port = htons(http_server_port(f->server)) };
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(connect(fd, (struct sockaddr *)&at, sizeof at), 0);
    return fd;
}

/* Sends bytes as they are and returns all that comes until the server closes. */
static size_t raw(struct fixture *f, const char *request, size_t n, char *out, size_t cap)
{
    struct timeval tv = { 5, 0 };
    size_t have = 0;
    int fd = dial(f);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv);
    assert_int_equal(send(fd, request, n, MSG_NOSIGNAL), n);
    while (have < cap - 1) {
        ssize_t more = recv(fd, out + have, cap - 1 - have, 0);
        if (more <= 0) break;
        have += (size_t)more;
    }
    out[have] = '\0';
    close(fd);
    return have;
}

static int raw_status(struct fixture *f, const char *target)
{
    char request[2000], answer[4000];
    int n = snprintf(request, sizeof request,
                     "GET %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", target);
    raw(f, request, (size_t)n, answer, sizeof answer);
    int status = 0;
    if (sscanf(answer, "HTTP/1.1 %d", &status) != 1) return 0;
    return status;
}

#define assert_body(f, want) assert_string_equal(buf_z(&(f)->body), want)

/* --- routes */

static void finds_the_route_and_its_params(void **state)
{
    struct fixture *f = *state;
    static const struct {
        const char *method, *path;
        int status;
        const char *body;
    } cases[] = {
        { "GET", "/", 200, "GET / " },
        { "GET", "/things", 200, "GET /things " },
        { "GET", "/things?x=1", 200, "GET /things " },
        { "GET", "/things/a%20b", 200, "GET /things/a b [a b] " },
        { "GET", "/things/a%2Fb", 200, "GET /things/a/b [a/b] " },
        { "GET", "/thin%67s", 200, "GET /things " },
        { "GET", "/things/special", 200, "GET /things/special [special] " },
        { "PUT", "/things/1/parts/2", 200, "PUT /things/1/parts/2 [1] [2] " },
        { "GET", "/files/a/b.js", 200, "GET /files/a/b.js [a/b.js] " },
        { "GET", "/files/", 200, "GET /files/ [] " },
        { "GET", "/files", 404, "{\"error\":{\"message\":\"not found\"}}" },
        { "GET", "/things/", 404, "{\"error\":{\"message\":\"not found\"}}" },
        { "GET", "/things/1/2", 404, "{\"error\":{\"message\":\"not found\"}}" },
        { "GET", "/nowhere", 404, "{\"error\":{\"message\":\"not found\"}}" },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        call(f, cases[i].method, cases[i].path, "");
        if (f->status != cases[i].status) fail_msg("%s: %d", cases[i].path, f->status);
        assert_body(f, cases[i].body);
    }
    call(f, "POST", "/things", "the body");
    assert_body(f, "POST /things the body");
}

static void other_methods_get_405_with_those_allowed(void **state)
{
    struct fixture *f = *state;
    char answer[4000];
    static const char q[] = "PATCH /things HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    raw(f, q, sizeof q - 1, answer, sizeof answer);
    assert_non_null(strstr(answer, "HTTP/1.1 405 "));
    assert_non_null(strstr(answer, "Allow: GET, HEAD, POST\r\n"));
    call(f, "POST", "/things/1", "");
    assert_int_equal(f->status, 405);
    assert_int_equal(atomic_load(&f->before_calls), 0);
}

static void head_is_get_without_a_body(void **state)
{
    struct fixture *f = *state;
    char answer[4000];
    static const char q[] = "HEAD /things HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    raw(f, q, sizeof q - 1, answer, sizeof answer);
    assert_non_null(strstr(answer, "HTTP/1.1 200 "));
    assert_non_null(strstr(answer, "Content-Length: 13\r\n"));
    assert_string_equal(strstr(answer, "\r\n\r\n"), "\r\n\r\n");
    call(f, "HEAD", "/things", "");
    assert_int_equal(f->status, 200);
}

static void arguments_and_headers_are_decoded_once(void **state)
{
    struct fixture *f = *state;
    struct http_call c = { .method = "GET", .headers = { "X-THING: value" } };
    assert_int_equal(call_with(f, &c, "/args?z=1&a=x%2By+z&b%20c=%2525&empty=&a=second"), ERR_OK);
    assert_body(f, "x+y z|%25||-|value|127.0.0.1");
    call(f, "GET", "/args?a&%61=2", "");
    assert_body(f, "|-|-|-|-|127.0.0.1");
}

static void replies_carry_status_type_and_headers(void **state)
{
    struct fixture *f = *state;
    char answer[4000];
    static const char q[] = "GET /headers HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    raw(f, q, sizeof q - 1, answer, sizeof answer);
    assert_non_null(strstr(answer, "HTTP/1.1 201 "));
    assert_non_null(strstr(answer, "Content-Type: text/plain\r\n"));
    assert_non_null(strstr(answer, "Location: /x/7\r\n"));
    assert_non_null(strstr(answer, "X-Bad: a  Set-Cookie: b\r\n"));
    call(f, "DELETE", "/things/1", "");
    assert_int_equal(f->status, 204);
    assert_int_equal(f->body.len, 0);
    call(f, "GET", "/nonsense", "");
    assert_int_equal(f->status, 500);
    assert_null(strstr(buf_z(&f->body), "secret"));
    call(f, "GET", "/large", "");
    assert_int_equal(f->body.len, 5 << 20);
}

static void hooks_run_around_handlers(void **state)
{
    struct fixture *f = *state;
    call(f, "GET", "/things/1", "");
    assert_int_equal(atomic_load(&f->before_calls), 1);
    pthread_mutex_lock(&f->lock);
    assert_string_equal(f->after_route, "/things/{}");
    assert_int_equal(f->after_status, 200);
    pthread_mutex_unlock(&f->lock);
    atomic_store(&f->deny, true);
    call(f, "GET", "/things/1", "");
    assert_int_equal(f->status, 401);
    assert_body(f, "denied");
    call(f, "GET", "/nowhere", "");
    assert_int_equal(f->status, 404);
    assert_int_equal(atomic_load(&f->before_calls), 2);
    assert_int_equal(atomic_load(&f->after_calls), 3);
    pthread_mutex_lock(&f->lock);
    assert_string_equal(f->after_route, "");
    assert_int_equal(f->after_status, 404);
    pthread_mutex_unlock(&f->lock);
}

/* --- what is refused */

static void bad_targets_get_400(void **state)
{
    struct fixture *f = *state;
    static const char *const bad[] = {
        "/a/../b", "/a/%2e%2e/b", "/..",      "/files/..%2f..%2fetc",
        "/a/./b",  "/a//b",       "//a",      "/a%00b",
        "/a%0ab",  "/a%7f",       "/a%zz",    "/a%2",
        "/a%",     "/%ff",        "/a?b=%zz", "/a?b=%00",
        "*",       "a",           "http://x", "/a#b",
    };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        int status = raw_status(f, bad[i]);
        if (status != 400) fail_msg("%s: %d", bad[i], status);
    }
    /* This one the library refuses itself, by closing. */
    assert_int_not_equal(raw_status(f, "/a b"), 200);
    assert_int_equal(raw_status(f, "http://somewhere:99/things"), 200);
    assert_int_equal(raw_status(f, "/things"), 200);
    assert_int_equal(atomic_load(&f->before_calls), 2);
}

static void bodies_over_the_limit_get_413(void **state)
{
    struct fixture *f = *state;
    char body[MAX_BODY + 2], answer[4000];
    memset(body, 'b', sizeof body);
    body[MAX_BODY] = '\0';
    call(f, "POST", "/things", body);
    assert_int_equal(f->status, 200);
    assert_int_equal(f->body.len, MAX_BODY + strlen("POST /things "));
    body[MAX_BODY] = 'b';
    body[MAX_BODY + 1] = '\0';
    call(f, "POST", "/things", body);
    assert_int_equal(f->status, 413);
    assert_body(f, "{\"error\":{\"message\":\"body too large\"}}");

    /* By its length alone: the body never comes. */
    static const char q[] = "POST /things HTTP/1.1\r\nHost: x\r\nContent-Length: 1001\r\n\r\n";
    raw(f, q, sizeof q - 1, answer, sizeof answer);
    assert_non_null(strstr(answer, "HTTP/1.1 413 "));
    static const char huge[] =
        "POST /things HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999999\r\n\r\n";
    raw(f, huge, sizeof huge - 1, answer, sizeof answer);
    assert_null(strstr(answer, "HTTP/1.1 200"));

    /* In pieces of unknown number. */
    struct buf chunked;
    buf_init(&chunked, 1 << 20);
    assert_int_equal(buf_appendz(&chunked,
                                 "POST /things HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
                                 "Transfer-Encoding: chunked\r\n\r\n"),
                     ERR_OK);
    for (int i = 0; i < 20; i++)
        assert_int_equal(buf_printf(&chunked, "64\r\n%.100s\r\n", body), ERR_OK);
    assert_int_equal(buf_appendz(&chunked, "0\r\n\r\n"), ERR_OK);
    raw(f, chunked.data, chunked.len, answer, sizeof answer);
    assert_non_null(strstr(answer, "HTTP/1.1 413 "));
    buf_done(&chunked);
    assert_int_equal(http_server_inflight(f->server), 0);
}

static void too_many_headers_are_refused(void **state)
{
    struct fixture *f = *state;
    struct buf q;
    char answer[4000];
    buf_init(&q, 1 << 20);
    assert_int_equal(buf_appendz(&q, "GET /things HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"),
                     ERR_OK);
    for (int i = 0; i < 2000; i++)
        assert_int_equal(buf_printf(&q, "X-%d: %030d\r\n", i, i), ERR_OK);
    assert_int_equal(buf_appendz(&q, "\r\n"), ERR_OK);
    raw(f, q.data, q.len, answer, sizeof answer);
    assert_null(strstr(answer, "HTTP/1.1 200"));
    buf_done(&q);
    call(f, "GET", "/things", "");
    assert_int_equal(f->status, 200);
}

static void garbage_does_no_harm(void **state)
{
    struct fixture *f = *state;
    static const struct str bad[] = {
        { "\0\0\0\0\r\n\r\n", 8 },
        { "GET\r\n\r\n", 7 },
        { "GET /things HTTP/9.9\r\nHost: x\r\n\r\n", 33 },
        { "GET /things HTTP/1.1\r\n\r\n", 24 }, /* no Host */
        { "POST /things HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 67 },
    };
    char answer[4000];
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        raw(f, bad[i].p, bad[i].n, answer, sizeof answer);
        if (strstr(answer, "HTTP/1.1 200") != NULL) fail_msg("case %zu: %s", i, answer);
    }
    call(f, "GET", "/things", "");
    assert_int_equal(f->status, 200);
}

static void shape_error(void *ctx, int status, const char *message, struct http_reply *reply)
{
    (void)ctx;
    reply->content_type = "application/problem+json";
    ASSERT(buf_printf(&reply->body, "{\"status\":%d,\"title\":\"%s\"}", status, message) == ERR_OK);
}

static void errors_take_the_given_shape(void **state)
{
    struct fixture *f = *state;
    const struct http_server_options o = { .error_body = shape_error };
    start(f, &o);
    call(f, "GET", "/nowhere", "");
    assert_body(f, "{\"status\":404,\"title\":\"not found\"}");
    call(f, "PUT", "/things", "");
    assert_body(f, "{\"status\":405,\"title\":\"method not allowed\"}");
}

/* --- listening */

static void listens_on_ipv6_and_names_ipv4_clients_plainly(void **state)
{
    struct fixture *f = *state;
    const struct http_server_options o = { .bind = "::" };
    start(f, &o);
    call(f, "GET", "/args", "");
    assert_body(f, "-|-|-|-|-|127.0.0.1");
}

static void a_taken_port_is_reported(void **state)
{
    struct fixture *f = *state;
    struct http_server *second = NULL;
    struct why why;
    struct http_server_options o = { .bind = "127.0.0.1", .port = http_server_port(f->server) };
    assert_int_equal(http_server_new(&o, &second, &why), ERR_IO);
    assert_null(second);
    assert_non_null(strstr(why.text, "127.0.0.1"));
    o.bind = "not-an-address";
    assert_int_equal(http_server_new(&o, &second, &why), ERR_INVALID);
}

static void one_thread_is_enough(void **state)
{
    struct fixture *f = *state;
    const struct http_server_options o = { .threads = 1 };
    start(f, &o);
    for (int i = 0; i < 20; i++) {
        call(f, "GET", "/things", "");
        assert_int_equal(f->status, 200);
    }
}

static void silent_connections_are_closed(void **state)
{
    struct fixture *f = *state;
    const struct http_server_options o = { .timeout_s = 1 };
    char answer[1000];
    struct timespec a, b;
    start(f, &o);
    clock_gettime(CLOCK_MONOTONIC, &a);
    raw(f, "GET /thin", 9, answer, sizeof answer);
    clock_gettime(CLOCK_MONOTONIC, &b);
    assert_true(b.tv_sec - a.tv_sec < 30);
    assert_null(strstr(answer, "HTTP/1.1 200"));
}

/* --- endings */

/* What came of it is in the fixture: f->status, 0 when nothing did. */
static void *call_block(void *ctx)
{
    struct fixture *f = ctx;
    struct http_call c = { .method = "GET" };
    enum err e = call_with(f, &c, "/block");
    (void)e;
    return NULL;
}

static void wait_entered(struct fixture *f)
{
    while (!atomic_load(&f->entered)) {
        struct timespec t = { 0, 1000000 };
        nanosleep(&t, NULL);
    }
}

static void quiesce_refuses_new_and_finishes_old(void **state)
{
    struct fixture *f = *state;
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, call_block, f), 0);
    wait_entered(f);
    assert_int_equal(http_server_inflight(f->server), 1);
    http_server_quiesce(f->server);
    http_server_quiesce(f->server); /* twice is fine */

    struct http_client *other = http_client_new();
    struct http_call c = { .method = "GET", .timeout_ms = 60000 };
    struct buf body;
    struct why why;
    int status = 0;
    char url[100];
    buf_init(&body, 1000);
    snprintf(url, sizeof url, "http://127.0.0.1:%u/things", http_server_port(f->server));
    c.url = url;
    assert_int_equal(http_client_call(other, &c, &status, &body, &why), ERR_UNAVAILABLE);
    http_client_free(other);
    buf_done(&body);

    atomic_store(&f->release, true);
    pthread_join(thread, NULL);
    assert_int_equal(f->status, 200);
    assert_body(f, "done");
    /* The reply is sent, and a moment later the request is forgotten. */
    for (int i = 0; i < 60000 && http_server_inflight(f->server) > 0; i++) {
        struct timespec t = { 0, 1000000 };
        nanosleep(&t, NULL);
    }
    assert_int_equal(http_server_inflight(f->server), 0);
}

static void *release_later(void *ctx)
{
    struct fixture *f = ctx;
    struct timespec t = { 0, 100 * 1000000 };
    nanosleep(&t, NULL);
    atomic_store(&f->release, true);
    return NULL;
}

static void free_waits_for_handlers(void **state)
{
    struct fixture *f = *state;
    pthread_t caller, releaser;
    assert_int_equal(pthread_create(&caller, NULL, call_block, f), 0);
    wait_entered(f);
    assert_int_equal(pthread_create(&releaser, NULL, release_later, f), 0);
    http_server_free(f->server);
    f->server = NULL;
    assert_true(atomic_load(&f->release));
    assert_int_equal(atomic_load(&f->after_calls), 1);
    pthread_join(caller, NULL);
    pthread_join(releaser, NULL);
}

/* Returns NULL, or a fixture when one did not go well. */
static void *many_calls(void *ctx)
{
    struct fixture *f = ctx, *failed = NULL;
    struct http_client *client = http_client_new();
    struct buf body;
    char url[100];
    buf_init(&body, 10000);
    for (int i = 0; i < 100; i++) {
        struct http_call c = {
            .method = "POST", .timeout_ms = 60000, .body = STR("abc"), .url = url
        };
        struct why why;
        int status = 0;
        snprintf(url, sizeof url, "http://127.0.0.1:%u/things", http_server_port(f->server));
        buf_clear(&body);
        if (http_client_call(client, &c, &status, &body, &why) != ERR_OK || status != 200 ||
            strcmp(buf_z(&body), "POST /things abc") != 0)
            failed = f;
    }
    buf_done(&body);
    http_client_free(client);
    return failed;
}

static void serves_many_clients_at_once(void **state)
{
    struct fixture *f = *state;
    pthread_t t[6];
    for (size_t i = 0; i < ARRAY_LEN(t); i++)
        assert_int_equal(pthread_create(&t[i], NULL, many_calls, f), 0);
    void *failed = NULL, *any = NULL;
    for (size_t i = 0; i < ARRAY_LEN(t); i++) {
        pthread_join(t[i], &failed);
        if (failed != NULL) any = failed;
    }
    assert_null(any);
    assert_int_equal(atomic_load(&f->after_calls), 600);
}

/* --- answering later */

static void a_handler_may_answer_later_from_another_thread(void **state)
{
    struct fixture *f = *state;
    atomic_store(&f->release, true);
    for (int i = 0; i < 20; i++) {
        call(f, "POST", "/later", "its body");
        assert_int_equal(f->status, 200);
        assert_body(f, "its body");
        assert_false(atomic_load(&f->gone));
    }
    assert_int_equal(atomic_load(&f->after_calls), 20);
}

static void *call_later(void *ctx)
{
    struct fixture *f = ctx;
    struct http_call c = { .method = "POST", .body = STR("x") };
    enum err e = call_with(f, &c, "/later");
    (void)e; /* f->status tells */
    return NULL;
}

static void a_server_of_one_thread_serves_others_meanwhile(void **state)
{
    struct fixture *f = *state;
    struct http_server_options o = { .threads = 1 };
    pthread_t caller;
    start(f, &o);
    assert_int_equal(pthread_create(&caller, NULL, call_later, f), 0);
    wait_entered(f);
    struct http_client *client = http_client_new();
    struct buf body;
    char url[100];
    int status = 0;
    buf_init(&body, 1000);
    snprintf(url, sizeof url, "http://127.0.0.1:%u/things", http_server_port(f->server));
    struct http_call c = { .method = "GET", .timeout_ms = 60000, .url = url };
    assert_int_equal(http_client_call(client, &c, &status, &body, NULL), ERR_OK);
    assert_int_equal(status, 200);
    atomic_store(&f->release, true);
    pthread_join(caller, NULL);
    assert_int_equal(f->status, 200);
    buf_done(&body);
    http_client_free(client);
}

static void a_client_that_goes_is_noticed_by_who_answers(void **state)
{
    struct fixture *f = *state;
    int fd = dial(f);
    static const char request[] = "POST /later HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx";
    assert_int_equal(write(fd, request, sizeof request - 1), (ssize_t)sizeof request - 1);
    wait_entered(f);
    close(fd);
    for (int i = 0; i < 60000 && atomic_load(&f->after_calls) == 0; i++) {
        struct timespec t = { 0, 1000000 };
        nanosleep(&t, NULL);
    }
    assert_true(atomic_load(&f->gone));
    assert_int_equal(atomic_load(&f->after_calls), 1);
}

static void bodies_together_are_bounded(void **state)
{
    struct fixture *f = *state;
    struct http_server_options o = { .max_bodies = 500 };
    static char big[501];
    memset(big, 'x', sizeof big - 1);
    start(f, &o);
    call(f, "POST", "/things", "small");
    assert_int_equal(f->status, 200);
    big[500] = '\0';
    call(f, "POST", "/things", big);
    assert_int_equal(f->status, 200);
    static char larger[502];
    memset(larger, 'x', sizeof larger - 1);
    call(f, "POST", "/things", larger);
    assert_int_equal(f->status, 503);
    call(f, "POST", "/things", big); /* what was held is given back */
    assert_int_equal(f->status, 200);
}

/* --- the client */

static void client_bounds_time_and_size(void **state)
{
    struct fixture *f = *state;
    struct http_call slow = { .method = "GET", .timeout_ms = 100 };
    assert_int_equal(call_with(f, &slow, "/block"), ERR_TIMEOUT);
    atomic_store(&f->release, true);
    struct buf small;
    buf_init(&small, 1000);
    int status = 7;
    struct why why;
    struct http_call c = { .method = "GET", .url = f->url, .timeout_ms = 60000 };
    snprintf(f->url, sizeof f->url, "http://127.0.0.1:%u/large", http_server_port(f->server));
    assert_int_equal(http_client_call(f->client, &c, &status, &small, &why), ERR_LIMIT);
    assert_int_equal(status, 7);
    assert_int_equal(small.len, 0);
    buf_done(&small);
}

static void client_speaks_nothing_but_http(void **state)
{
    struct fixture *f = *state;
    static const char *const urls[] = { "file:///etc/passwd", "ftp://127.0.0.1/x",
                                        "gopher://127.0.0.1:1/x", "dict://127.0.0.1:1/x",
                                        "nonsense" };
    for (size_t i = 0; i < ARRAY_LEN(urls); i++) {
        struct http_call c = { .method = "GET", .url = urls[i], .timeout_ms = 1000 };
        struct why why;
        int status = 0;
        assert_int_not_equal(http_client_call(f->client, &c, &status, &f->body, &why), ERR_OK);
        assert_int_equal(f->body.len, 0);
        assert_true(strlen(why.text) > 0);
    }
}

static void client_does_not_follow_redirects(void **state)
{
    struct fixture *f = *state;
    call(f, "GET", "/redirect", "");
    assert_int_equal(f->status, 302);
    assert_body(f, "elsewhere");
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
#define T_PLAIN(name) cmocka_unit_test_setup_teardown(name, setup_plain, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(finds_the_route_and_its_params),
        T(other_methods_get_405_with_those_allowed),
        T(head_is_get_without_a_body),
        T(arguments_and_headers_are_decoded_once),
        T(replies_carry_status_type_and_headers),
        T(hooks_run_around_handlers),
        T(bad_targets_get_400),
        T(bodies_over_the_limit_get_413),
        T(too_many_headers_are_refused),
        T(garbage_does_no_harm),
        T_PLAIN(errors_take_the_given_shape),
        T_PLAIN(listens_on_ipv6_and_names_ipv4_clients_plainly),
        T(a_taken_port_is_reported),
        T_PLAIN(one_thread_is_enough),
        T_PLAIN(silent_connections_are_closed),
        T(quiesce_refuses_new_and_finishes_old),
        T(free_waits_for_handlers),
        T(serves_many_clients_at_once),
        T(a_handler_may_answer_later_from_another_thread),
        T_PLAIN(a_server_of_one_thread_serves_others_meanwhile),
        T(a_client_that_goes_is_noticed_by_who_answers),
        T_PLAIN(bodies_together_are_bounded),
        T(client_bounds_time_and_size),
        T(client_speaks_nothing_but_http),
        T(client_does_not_follow_redirects),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
