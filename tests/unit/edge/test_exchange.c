/* SPDX-License-Identifier: Apache-2.0 */
/* Exchanges with a server whose every byte is told to it: whatever it does, both transports have to
 * tell the same of it. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "rt/loop.h"
#include "services/edge/edge.h"
#include "services/edge/upstreams/resolve.h"
#include "services/edge/upstreams/transport.h"
#include "services/edge/upstreams/upstream.h"

enum { SAID_MAX = 64 * 1024, PATIENCE_MS = 60000 };

/* What the server answers to one request, and then does. */
enum then { KEEP, CLOSE, RESET };
struct answer {
    const char *text;
    enum then then;
    size_t filler; /* bytes of 'x' behind the text */
};

struct server {
    pthread_t thread;
    int fd;
    uint16_t port;
    const struct answer *answers;
    size_t answers_n;
    /* told when the thread has ended */
    size_t connections, served;
    char said[SAID_MAX]; /* the requests, one behind another */
    size_t said_n;
};

struct fixture {
    struct server server;
    struct loop *loop;
    struct resolver *resolver;
    struct snap_server target;
    struct snap_upstream upstream;
    struct snapshot snap;
    struct pools *pools;
    char *scratch;
    struct transport *transport; /* NULL: direct */
    struct loop_timer patience;
    /* what came */
    struct exchange *x;
    struct buf seen; /* a word for each event; bodies in one piece */
    size_t body_n;
    unsigned connections;
    /* what is done about it */
    enum { NOTHING, CANCEL_AT_HEAD, CANCEL_AT_BODY, CANCEL_AT_FLUSH, PAUSE_AT_FLUSH } act;
    bool again; /* once more from inside of the end */
    size_t body_when_paused;
};

/* --- the server --- */

static size_t body_length(const char *head)
{
    const char *at = strcasestr(head, "\r\ncontent-length:");
    return at != NULL ? (size_t)strtoul(at + 17, NULL, 10) : 0;
}

/* One request into s->said; false: the connection ended. */
static bool hear(struct server *s, int fd)
{
    size_t from = s->said_n;
    for (;;) {
        s->said[s->said_n] = '\0';
        const char *end = strstr(s->said + from, "\r\n\r\n");
        if (end != NULL && s->said_n >= (size_t)(end - s->said) + 4 + body_length(s->said + from))
            return true;
        struct pollfd p = { .fd = fd, .events = POLLIN };
        if (poll(&p, 1, PATIENCE_MS) != 1) return false;
        ssize_t n = recv(fd, s->said + s->said_n, SAID_MAX - 1 - s->said_n, 0);
        if (n <= 0) return false;
        s->said_n += (size_t)n;
    }
}

static void say(int fd, const struct answer *a)
{
    static const char filler[4096] = { 'x' };
    size_t n = strlen(a->text);
    for (size_t sent = 0; sent < n;) {
        ssize_t k = send(fd, a->text + sent, MIN(n - sent, (size_t)7), MSG_NOSIGNAL);
        if (k <= 0) return;
        sent += (size_t)k;
    }
    for (size_t left = a->filler; left > 0;) {
        ssize_t k = send(fd, filler, MIN(left, sizeof filler), MSG_NOSIGNAL);
        if (k <= 0) return;
        left -= (size_t)k;
    }
}

static void *serve(void *ctx)
{
    struct server *s = ctx;
    while (s->served < s->answers_n) {
        int one = 1, fd = accept(s->fd, NULL, NULL);
        if (fd < 0) break;
        s->connections++;
        (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        enum then then = KEEP;
        while (then == KEEP && s->served < s->answers_n && hear(s, fd)) {
            const struct answer *a = &s->answers[s->served++];
            say(fd, a);
            then = a->then;
        }
        if (then == RESET) {
            struct linger hard = { 1, 0 };
            (void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
        } else if (then == KEEP) {
            char byte; /* until the other side has closed */
            while (recv(fd, &byte, 1, 0) > 0) {
            }
        }
        close(fd);
    }
    return NULL;
}

static void server_start(struct server *s, const struct answer *answers, size_t n)
{
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t len = sizeof a;
    s->answers = answers;
    s->answers_n = n;
    s->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(s->fd >= 0);
    assert_int_equal(bind(s->fd, (struct sockaddr *)(void *)&a, sizeof a), 0);
    assert_int_equal(listen(s->fd, 16), 0);
    assert_int_equal(getsockname(s->fd, (struct sockaddr *)(void *)&a, &len), 0);
    s->port = ntohs(a.sin_port);
    if (n > 0) assert_int_equal(pthread_create(&s->thread, NULL, serve, s), 0);
}

/* --- the client --- */

static void note(struct fixture *f, const char *word)
{
    assert_int_equal(buf_appendz(&f->seen, word), ERR_OK);
}

static void start(struct fixture *f, const char *method, const char *body);
static void too_late(void *ctx);

static void done(struct fixture *f)
{
    f->x = NULL;
    if (f->again) {
        f->again = false;
        start(f, "GET", NULL);
        return;
    }
    loop_stop(f->loop);
}

static void cancel(struct fixture *f)
{
    exchange_cancel(f->x);
    note(f, "cancelled ");
    done(f);
}

static void on_head(void *ctx, const struct h1_response *res)
{
    struct fixture *f = ctx;
    char text[64];
    (void)snprintf(text, sizeof text, "head:%d:%d ", res->status, (int)res->head.framing);
    note(f, text);
    struct str x = h1_header(&res->head, STR("x-more"));
    if (x.p != NULL) {
        assert_int_equal(buf_append_str(&f->seen, x), ERR_OK);
        note(f, " ");
    }
    f->connections += exchange_way(f->x).connections;
    assert_string_equal(exchange_way(f->x).http, "1.1");
    assert_string_equal(exchange_way(f->x).transport, f->transport != NULL ? "curl" : "direct");
    assert_true(exchange_is_connected(f->x));
    if (f->act == CANCEL_AT_HEAD) cancel(f);
}

static void on_body(void *ctx, struct str data)
{
    struct fixture *f = ctx;
    f->body_n += data.n;
    if (f->body_n <= 64) assert_int_equal(buf_append_str(&f->seen, data), ERR_OK);
    if (f->act == CANCEL_AT_BODY) cancel(f);
}

static void go_on(void *ctx)
{
    struct fixture *f = ctx;
    /* Nothing was told meanwhile. */
    assert_int_equal(f->body_n, f->body_when_paused);
    f->act = NOTHING;
    exchange_pause(f->x, false);
    loop_timer_set(f->loop, &f->patience, loop_now_ns(f->loop) + PATIENCE_MS * 1000000ull, too_late,
                   f);
}

static void on_flush(void *ctx)
{
    struct fixture *f = ctx;
    if (f->act == CANCEL_AT_FLUSH) cancel(f);
    if (f->act != PAUSE_AT_FLUSH || f->body_n == 0) return; /* the head may come alone */
    exchange_pause(f->x, true);
    f->body_when_paused = f->body_n;
    loop_timer_set(f->loop, &f->patience, loop_now_ns(f->loop) + 200 * 1000000ull, go_on, f);
}

static void on_end(void *ctx)
{
    note(ctx, " end ");
    done(ctx);
}

static void on_fail(void *ctx, enum exchange_failure e, const char *why)
{
    static const char *const names[] = { [EXCHANGE_CONNECT] = " connect",
                                         [EXCHANGE_STALE] = " stale",
                                         [EXCHANGE_RESET] = " reset",
                                         [EXCHANGE_TRUNCATED] = " truncated",
                                         [EXCHANGE_MALFORMED] = " malformed" };
    assert_true(strlen(why) > 0);
    note(ctx, names[e]);
    done(ctx);
}

static const struct exchange_events events = { on_head, on_body, on_flush, on_end, on_fail, NULL };

static void too_late(void *ctx)
{
    struct fixture *f = ctx;
    note(f, "nothing came in time");
    loop_stop(f->loop);
}

static void start(struct fixture *f, const char *method, const char *body)
{
    struct exchange_tls tls = { .transport = f->transport };
    char head[512];
    int n = snprintf(head, sizeof head,
                     "%s /v1/x?a=%%2e/../b HTTP/1.1\r\nhost: model.test\r\nx-own: a b\r\nx-none: "
                     "\r\n",
                     method);
    if (body != NULL)
        n += snprintf(head + n, sizeof head - (size_t)n, "content-length: %zu\r\n", strlen(body));
    n += snprintf(head + n, sizeof head - (size_t)n, "\r\n");
    f->x = exchange_start(f->pools, &f->target, &tls, str_n(head, (size_t)n),
                          str_of(body != NULL ? body : ""), strcmp(method, "HEAD") == 0, false,
                          &events, f);
    loop_timer_set(f->loop, &f->patience, loop_now_ns(f->loop) + PATIENCE_MS * 1000000ull, too_late,
                   f);
}

static void open_fixture(struct fixture *f, bool curl, const struct answer *answers, size_t n)
{
    static const unsigned char key[32];
    *f = (struct fixture){ .loop = loop_new(clock_system()), .resolver = resolver_new() };
    server_start(&f->server, answers, n);
    f->target = (struct snap_server){ .id = STR("s"),
                                      .url = STR("http://127.0.0.1"),
                                      .host = STR("127.0.0.1"),
                                      .base_path = STR(""),
                                      .port = f->server.port };
    f->upstream = (struct snap_upstream){ .id = STR("u"),
                                          .transport = curl ? SNAP_CURL : SNAP_DIRECT,
                                          .max_streams = 10,
                                          .servers = &f->target,
                                          .servers_n = 1 };
    f->snap = (struct snapshot){ .upstreams = &f->upstream, .upstreams_n = 1 };
    resolver_use(f->resolver, &f->snap);
    assert_int_equal(transport_new(&f->upstream, key, NULL, &f->transport, NULL), ERR_OK);
    assert_int_equal(f->transport != NULL, curl);
    f->scratch = xmalloc(SCRATCH_SIZE);
    f->pools = pools_new(&(struct pools_options){
        .loop = f->loop, .resolver = f->resolver, .body_max = 1000000, .scratch = f->scratch });
    buf_init(&f->seen, 4096);
}

static void close_fixture(struct fixture *f)
{
    pools_free(f->pools);
    loop_timer_clear(f->loop, &f->patience);
    transport_unref(f->transport);
    resolver_free(f->resolver);
    loop_free(f->loop);
    (void)shutdown(f->server.fd, SHUT_RDWR); /* a thread that still waits goes on */
    if (f->server.answers_n > 0) pthread_join(f->server.thread, NULL);
    close(f->server.fd);
    free(f->scratch);
    buf_done(&f->seen);
}

/* One request; what is seen of its answer must be `want`, with both transports. */
static void tells_of(const char *method, const struct answer *a, int act, const char *want)
{
    for (int curl = 0; curl < 2; curl++) {
        struct fixture f;
        open_fixture(&f, curl, a, 1);
        f.act = act;
        start(&f, method, NULL);
        loop_run(f.loop);
        assert_string_equal(buf_z(&f.seen), want);
        close_fixture(&f);
    }
}

static void tells(const char *answer, enum then then, const char *want)
{
    struct answer a = { answer, then, 0 };
    tells_of("GET", &a, NOTHING, want);
}

#define OK_5 "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-More: yes\r\n\r\nhello"

static void answers_are_told_in_order(void **state)
{
    (void)state;
    tells(OK_5, KEEP, "head:200:1 yes hello end ");
    tells("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", KEEP, "head:404:1  end ");
    tells("HTTP/1.1 204 No Content\r\n\r\n", KEEP, "head:204:0  end ");
    tells("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\nx: "
          "y\r\n\r\n",
          KEEP, "head:200:2 hello end ");
    tells("HTTP/1.1 200 OK\r\n\r\nhello", CLOSE, "head:200:3 hello end ");
    tells("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n" OK_5, KEEP,
          "head:200:1 yes hello end ");
    struct answer a = { "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", KEEP, 0 };
    tells_of("HEAD", &a, NOTHING, "head:200:0  end ");
}

static void what_breaks_is_told_as_what_it_is(void **state)
{
    (void)state;
    tells("", CLOSE, " reset");
    tells("", RESET, " reset");
    tells("HTTP/1.1 200 OK\r\nContent-Le", CLOSE, " reset");
    tells("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello", CLOSE, "head:200:1 hello truncated");
    tells("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", CLOSE,
          "head:200:2 hello truncated");
    tells("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello", RESET, "head:200:1 hello truncated");
}

static void what_is_no_http_is_refused(void **state)
{
    (void)state;
    tells("SSH-2.0-OpenSSH_9.2\r\n\r\n", CLOSE, " malformed");
    tells("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!", CLOSE,
          " malformed");
    tells("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
          CLOSE, " malformed");
    tells("HTTP/1.1 200 OK\r\nName : x\r\nContent-Length: 5\r\n\r\nhello", CLOSE, " malformed");
    tells("HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 5\r\n\r\nhello", CLOSE, " malformed");
    tells("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", KEEP,
          " malformed");
}

static void nobody_there_is_told_as_that(void **state)
{
    (void)state;
    for (int curl = 0; curl < 2; curl++) {
        struct fixture f;
        open_fixture(&f, curl, NULL, 0);
        close(f.server.fd);
        f.server.fd = dup(0);
        start(&f, "GET", NULL);
        loop_run(f.loop);
        assert_string_equal(buf_z(&f.seen), " connect");
        close_fixture(&f);
    }
}

static void it_can_be_cancelled_from_inside_of_every_event(void **state)
{
    (void)state;
    struct answer a = { OK_5, KEEP, 0 }, open = { OK_5, KEEP, 0 };
    open.text = "HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhello";
    tells_of("GET", &a, CANCEL_AT_HEAD, "head:200:1 yes cancelled ");
    for (int curl = 0; curl < 2; curl++) {
        for (int act = CANCEL_AT_BODY; act <= CANCEL_AT_FLUSH; act++) {
            struct fixture f;
            open_fixture(&f, curl, &open, 1);
            f.act = act;
            start(&f, "GET", NULL);
            loop_run(f.loop);
            assert_non_null(strstr(buf_z(&f.seen), "cancelled"));
            close_fixture(&f);
        }
    }
}

static void connections_are_used_again_also_from_inside_of_the_end(void **state)
{
    (void)state;
    const struct answer twice[] = { { OK_5, KEEP, 0 }, { OK_5, KEEP, 0 } };
    for (int curl = 0; curl < 2; curl++) {
        struct fixture f;
        open_fixture(&f, curl, twice, 2);
        f.again = true;
        start(&f, "POST", "a body");
        loop_run(f.loop);
        assert_string_equal(buf_z(&f.seen), "head:200:1 yes hello end head:200:1 yes hello end ");
        assert_int_equal(f.connections, 1);
        close_fixture(&f);
        assert_int_equal(f.server.connections, 1);
    }
}

/* Direct says so and is asked again by the flow; curl does it itself. */
static void a_connection_that_was_closed_meanwhile_is_replaced(void **state)
{
    (void)state;
    const struct answer closing[] = { { OK_5, CLOSE, 0 }, { OK_5, KEEP, 0 } };
    struct fixture f;
    open_fixture(&f, true, closing, 2);
    f.again = true;
    start(&f, "POST", "a body");
    loop_run(f.loop);
    assert_string_equal(buf_z(&f.seen), "head:200:1 yes hello end head:200:1 yes hello end ");
    close_fixture(&f);
    assert_int_equal(f.server.connections, 2);
}

/* What stands in the request: as it was given, framing apart. */
static void requests_go_out_as_they_were_built(void **state)
{
    (void)state;
    const struct answer a = { OK_5, KEEP, 0 };
    for (int curl = 0; curl < 2; curl++) {
        struct fixture f;
        open_fixture(&f, curl, &a, 1);
        start(&f, "POST", "{\"a\":1}");
        loop_run(f.loop);
        close_fixture(&f);
        const char *said = f.server.said;
        assert_ptr_equal(strstr(said, "POST /v1/x?a=%2e/../b HTTP/1.1\r\n"), said);
        assert_non_null(strcasestr(said, "\r\nhost: model.test\r\n"));
        assert_non_null(strstr(said, "\r\nx-own: a b\r\n"));
        assert_non_null(strstr(said, "\r\nx-none:"));
        assert_non_null(strcasestr(said, "\r\ncontent-length: 7\r\n"));
        assert_non_null(strstr(said, "\r\n\r\n{\"a\":1}"));
        size_t lines = 0;
        for (const char *p = said; (p = strstr(p, "\r\n")) != NULL; p += 2) lines++;
        assert_int_equal(lines, 6); /* none but those */
    }
}

/* MEMORY_MAX_BYTES is about these, too. */
static void the_memory_that_it_holds_is_known(void **state)
{
    (void)state;
    enum { BODY = 40000 };
    const struct answer a = { OK_5, KEEP, 0 };
    char *body = xmalloc(BODY + 1);
    memset(body, 'b', BODY);
    body[BODY] = '\0';
    for (int curl = 0; curl < 2; curl++) {
        struct fixture f;
        open_fixture(&f, curl, &a, 1);
        start(&f, "POST", body); /* nothing of it can have gone out */
        assert_in_range(exchange_memory(f.x), BODY, BODY + 64 * 1024);
        loop_run(f.loop);
        assert_string_equal(buf_z(&f.seen), "head:200:1 yes hello end ");
        close_fixture(&f);
    }
    free(body);
}

static void a_pause_keeps_everything_back_and_loses_nothing(void **state)
{
    (void)state;
    enum { ALL = 8 * 1024 * 1024 };
    char head[128];
    (void)snprintf(head, sizeof head, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", ALL);
    const struct answer a = { head, KEEP, ALL };
    for (int curl = 0; curl < 2; curl++) {
        struct fixture f;
        open_fixture(&f, curl, &a, 1);
        f.act = PAUSE_AT_FLUSH;
        start(&f, "GET", NULL);
        loop_run(f.loop);
        assert_non_null(strstr(buf_z(&f.seen), " end "));
        assert_int_equal(f.body_n, ALL);
        assert_true(f.body_when_paused > 0 && f.body_when_paused < ALL / 2);
        close_fixture(&f);
    }
}

/* The environment is no configuration. */
static void proxies_of_the_environment_are_not_asked(void **state)
{
    (void)state;
    static const char *const names[] = { "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY" };
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        assert_int_equal(setenv(names[i], "http://127.0.0.1:1", 1), 0);
    tells(OK_5, KEEP, "head:200:1 yes hello end ");
    for (size_t i = 0; i < ARRAY_LEN(names); i++) assert_int_equal(unsetenv(names[i]), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_are_told_in_order),
        cmocka_unit_test(what_breaks_is_told_as_what_it_is),
        cmocka_unit_test(what_is_no_http_is_refused),
        cmocka_unit_test(nobody_there_is_told_as_that),
        cmocka_unit_test(it_can_be_cancelled_from_inside_of_every_event),
        cmocka_unit_test(connections_are_used_again_also_from_inside_of_the_end),
        cmocka_unit_test(a_connection_that_was_closed_meanwhile_is_replaced),
        cmocka_unit_test(requests_go_out_as_they_were_built),
        cmocka_unit_test(the_memory_that_it_holds_is_known),
        cmocka_unit_test(a_pause_keeps_everything_back_and_loses_nothing),
        cmocka_unit_test(proxies_of_the_environment_are_not_asked),
    };
    return cmocka_run_group_tests_name("exchange", tests, NULL, NULL);
}
