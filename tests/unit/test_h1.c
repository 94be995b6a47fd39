/* SPDX-License-Identifier: Apache-2.0 */
/* Strictness of HTTP/1.1 heads: a table of what is accepted and refused (RFC 9112), and that the
 * result does not depend on how the bytes arrived. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "http/h1.h"

static const struct h1_limits limits = H1_LIMITS_DEFAULT;

/* status 0: accepted. */
struct row {
    int status;
    const char *text;
    size_t n;
};

#define R(status, text)                \
    {                                  \
        status, text, sizeof(text) - 1 \
    }
#define H "Host: a\r\n"
#define GET(fields) "GET / HTTP/1.1\r\n" H fields "\r\n"
#define POST(fields) "POST / HTTP/1.1\r\n" H fields "\r\n"
#define TARGET(t) "GET " t " HTTP/1.1\r\n" H "\r\n"
#define HOST(h) "GET / HTTP/1.1\r\nHost: " h "\r\n\r\n"

static const struct row requests[] = {
    /* accepted as they are */
    R(0, GET("")),
    R(0, "GET / HTTP/1.0\r\n\r\n"),
    R(0, "GET / HTTP/1.0\r\nHost: a\r\n\r\n"),
    R(0, "DELETE /x HTTP/1.1\r\nhost:a\r\n\r\n"),
    R(0, "PROPFIND /x HTTP/1.1\r\nHOST: a\r\n\r\n"),
    R(0, "get / HTTP/1.1\r\n" H "\r\n"), /* a method of its own: names are case-sensitive */
    R(0, "M-SEARCH / HTTP/1.1\r\n" H "\r\n"),
    R(0, "OPTIONS * HTTP/1.1\r\n" H "\r\n"),
    R(0, GET("X:\r\n")),
    R(0, GET("X: \t \r\n")),
    R(0, GET("X: a\tb  c\r\n")),
    R(0, GET("X: caf\xc3\xa9\r\n")),
    R(0, GET("X: \x80\xff\r\n")),
    R(0, GET("!#$%&'*+-.^_`|~09azAZ: v\r\n")),
    R(0, GET("x_custom_name: v\r\n")),
    R(0, GET("A: 1\r\nA: 2\r\n")),
    R(0, GET("Cookie: a=b; c=d\r\nCookie: e=f\r\n")),
    R(0, POST("Content-Length: 0\r\n")),
    R(0, POST("Content-Length: 5\r\n")),
    R(0, POST("Content-Length:5\r\n")),
    R(0, POST("Content-Length: \t5 \t\r\n")),
    R(0, POST("content-length: 0005\r\n")),
    R(0, POST("Content-Length: 9223372036854775807\r\n")),
    R(0, POST("Transfer-Encoding: chunked\r\n")),
    R(0, POST("transfer-encoding: Chunked\r\n")),
    R(0, POST("Expect: 100-continue\r\nContent-Length: 5\r\n")),
    R(0, POST("Expect: 100-Continue\r\nContent-Length: 5\r\n")),
    R(0, GET("Connection: close\r\n")),
    R(0, GET("Connection: , keep-alive,, x-a ,\r\n")),
    R(0, GET("Content-Length: 5\r\n")),
    /* request line */
    R(400, "\r\nGET / HTTP/1.1\r\n" H "\r\n"),
    R(400, "\nGET / HTTP/1.1\r\n" H "\r\n"),
    R(400, " GET / HTTP/1.1\r\n" H "\r\n"),
    R(400, "GET  / HTTP/1.1\r\n" H "\r\n"),
    R(400, "GET /  HTTP/1.1\r\n" H "\r\n"),
    R(400, "GET\t/ HTTP/1.1\r\n" H "\r\n"),
    R(400, "GET /\tHTTP/1.1\r\n" H "\r\n"),
    R(400, "GET / HTTP/1.1 \r\n" H "\r\n"),
    R(400, "GET / HTTP/1.1 x\r\n" H "\r\n"),
    R(400, "GET / x HTTP/1.1\r\n" H "\r\n"),
    R(400, "GET /\r\n" H "\r\n"),
    R(400, "GET /\r\n"),
    R(400, "GET\r\n\r\n"),
    R(400, "GET \r\n\r\n"),
    R(400, "GET  HTTP/1.1\r\n" H "\r\n"),
    R(400, "/ HTTP/1.1\r\n" H "\r\n"),
    R(400, "G(T / HTTP/1.1\r\n" H "\r\n"),
    R(400, "G\xc3\xa9T / HTTP/1.1\r\n" H "\r\n"),
    R(400, "G\0T / HTTP/1.1\r\n" H "\r\n"),
    R(400, "\x16\x03\x01\x02"),
    R(400, "\x80"),
    R(400, "GET / http/1.1\r\n" H "\r\n"),
    R(400, "GET / HTTP/1.10\r\n" H "\r\n"),
    R(400, "GET / HTTP/1\r\n" H "\r\n"),
    R(400, "GET / HTTP/11\r\n" H "\r\n"),
    R(400, "GET / HTTP/1.\r\n" H "\r\n"),
    R(400, "GET / HTTP/1,1\r\n" H "\r\n"),
    R(400, "GET / HTTP /1.1\r\n" H "\r\n"),
    R(400, "GET / HTTPS/1.1\r\n" H "\r\n"),
    R(400, "GET / HTTP/+1.1\r\n" H "\r\n"),
    R(505, "GET / HTTP/1.2\r\n" H "\r\n"),
    R(505, "GET / HTTP/0.9\r\n" H "\r\n"),
    R(505, "GET / HTTP/2.0\r\n" H "\r\n"),
    R(505, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    R(501, "CONNECT a:443 HTTP/1.1\r\n" H "\r\n"),
    R(501, "ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEFG / HTTP/1.1\r\n" H "\r\n"),
    /* targets */
    R(0, TARGET("/")),
    R(0, TARGET("/a/b;c=d/e:f@g,h")),
    R(0, TARGET("/a?b=c&d=e/f?g")),
    R(0, TARGET("/?")),
    R(0, TARGET("/a%20b%2Fc")),
    R(0, TARGET("/a?f[x]=1|2&j={}^`")),
    R(0, TARGET("//a//b")),
    R(0, TARGET("/a/../b")),
    R(0, TARGET("http://b.example/x?y")),
    R(0, TARGET("HTTP://b:80/x")),
    R(0, TARGET("https://[::1]:8443/x")),
    R(0, TARGET("http://b")),
    R(0, TARGET("http://b?x=y")),
    R(400, TARGET("a")),
    R(400, TARGET("a/b")),
    R(400, TARGET("*")),
    R(400, TARGET("**")),
    R(400, "OPTIONS *x HTTP/1.1\r\n" H "\r\n"),
    R(400, TARGET("?a=b")),
    R(400, TARGET("/a#b")),
    R(400, TARGET("/a?b#c")),
    R(400, TARGET("#")),
    R(400, TARGET("/a\\b")),
    R(400, TARGET("/a?b\\c")),
    R(400, TARGET("/a\"b")),
    R(400, TARGET("/a<b>")),
    R(400, TARGET("/a[b]")),
    R(400, TARGET("/a{b}")),
    R(400, TARGET("/a|b")),
    R(400, TARGET("/\xe4\xbd\xa0")),
    R(400, TARGET("/?q=\xe4\xbd\xa0")),
    R(400, TARGET("/a\x7f")),
    R(400, TARGET("/a\x01")),
    R(400, TARGET("/a\x0b")),
    R(400, TARGET("/a%")),
    R(400, TARGET("/a%2")),
    R(400, TARGET("/a%2g")),
    R(400, TARGET("/a?b=%zz")),
    R(400, "GET /a\0b HTTP/1.1\r\n" H "\r\n"),
    R(400, TARGET("http://")),
    R(400, TARGET("http:///x")),
    R(400, TARGET("http:/b/x")),
    R(400, TARGET("ftp://b/x")),
    R(400, TARGET("http://u@b/x")),
    R(400, TARGET("http://u:p@b/x")),
    R(400, TARGET("http://b:x/")),
    R(400, TARGET("http://b#f")),
    R(400, TARGET("b:80")),
    /* Host */
    R(0, HOST("a.example")),
    R(0, HOST("a.example:8080")),
    R(0, HOST("a_b-c.d")),
    R(0, HOST("127.0.0.1:1")),
    R(0, HOST("[::1]")),
    R(0, HOST("[::ffff:1.2.3.4]:80")),
    R(0, HOST("a:65535")),
    R(400, "GET / HTTP/1.1\r\n\r\n"),
    R(400, "GET http://a/ HTTP/1.1\r\n\r\n"),
    R(400, "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"),
    R(400, "GET / HTTP/1.1\r\nHost: a\r\nX: y\r\nhost: b\r\n\r\n"),
    R(400, "GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n"),
    R(400, HOST("")),
    R(400, HOST("a b")),
    R(400, HOST("a, b")),
    R(400, HOST("a/b")),
    R(400, HOST("a?b")),
    R(400, HOST("u@a")),
    R(400, HOST("http://a")),
    R(400, HOST("a:")),
    R(400, HOST(":80")),
    R(400, HOST("a:65536")),
    R(400, HOST("a:123456")),
    R(400, HOST("a:8o")),
    R(400, HOST("a:80:80")),
    R(400, HOST("a:-1")),
    R(400, HOST("[::1")),
    R(400, HOST("::1")),
    R(400, HOST("[]")),
    R(400, HOST("[1234]")),
    R(400, HOST("[::1]x")),
    R(400, HOST("[::g]")),
    R(400, HOST("a\tb")),
    R(400, HOST("b\xc3\xbc")),
    /* field lines */
    R(400, GET(" X: y\r\n")),
    R(400, GET("X: y\r\n z\r\n")),
    R(400, GET("X: y\r\n\tz\r\n")),
    R(400, GET("X: y\r\n \r\n")),
    R(400, "GET / HTTP/1.1\r\n Host: a\r\n\r\n"),
    R(400, GET("X : y\r\n")),
    R(400, GET("X\t: y\r\n")),
    R(400, GET("X y: z\r\n")),
    R(400, GET(": y\r\n")),
    R(400, GET(" : y\r\n")),
    R(400, GET("X\r\n")),
    R(400, GET("X(Y): z\r\n")),
    R(400, GET("X/Y: z\r\n")),
    R(400, GET("X@Y: z\r\n")),
    R(400, GET("X[Y]: z\r\n")),
    R(400, GET("\"X\": z\r\n")),
    R(400, GET("X\x01: z\r\n")),
    R(400, GET("X\xc3\xa9: z\r\n")),
    R(400, GET("\x7fX: z\r\n")),
    R(400, GET("X: a\x01z\r\n")),
    R(400, GET("X: a\x0bz\r\n")),
    R(400, GET("X: a\x0cz\r\n")),
    R(400, GET("X: a\x7fz\r\n")),
    R(400, GET("X: a\x1b[31mz\r\n")),
    R(400, GET("X: aaaaaaaaaaaaaaaaaaaaaaaa\x08\r\n")),
    R(400, "GET / HTTP/1.1\r\nX: a\0b\r\n\r\n"),
    R(400, "GET / HTTP/1.1\r\nX\0: b\r\n\r\n"),
    R(400, GET("X: a\rb\r\n")),
    R(400, GET("X: a\r\r\n")),
    R(400, GET("X: a\nY: b\r\n")),
    R(400, GET("\rX: a\r\n")),
    R(400, "GET / HTTP/1.1\n" H "\r\n"),
    R(400, "GET / HTTP/1.1\r\nHost: a\n\r\n"),
    R(400, "GET / HTTP/1.1\r\nHost: a\r\n\n"),
    R(400, "GET / HTTP/1.1\nHost: a\n\n"),
    R(400, "GET / HTTP/1.1\rHost: a\r\r"),
    R(400, "GET / HTTP/1.1\r\r\n" H "\r\n"),
    R(400, "GET / HTTP/1.1\r\n" H "\rX"),
    /* Content-Length */
    R(400, POST("Content-Length: 5\r\nContent-Length: 5\r\n")),
    R(400, POST("Content-Length: 5\r\nContent-Length: 6\r\n")),
    R(400, POST("Content-Length: 5\r\nX: y\r\ncontent-length: 5\r\n")),
    R(400, POST("Content-Length: 5, 5\r\n")),
    R(400, POST("Content-Length: 5,6\r\n")),
    R(400, POST("Content-Length: 5 5\r\n")),
    R(400, POST("Content-Length:\r\n")),
    R(400, POST("Content-Length: +5\r\n")),
    R(400, POST("Content-Length: -5\r\n")),
    R(400, POST("Content-Length: 0x5\r\n")),
    R(400, POST("Content-Length: 5.0\r\n")),
    R(400, POST("Content-Length: 1e3\r\n")),
    R(400, POST("Content-Length: five\r\n")),
    R(400, POST("Content-Length: 5;\r\n")),
    R(400, POST("Content-Length: \"5\"\r\n")),
    R(400, POST("Content-Length: 5_0\r\n")),
    R(400, POST("Content-Length: \xd9\xa5\r\n")),
    R(400, POST("Content-Length: 9223372036854775808\r\n")),
    R(400, POST("Content-Length: 18446744073709551616\r\n")),
    R(400, POST("Content-Length: 18446744073709551621\r\n")),
    R(400, POST("Content-Length: 99999999999999999999999999\r\n")),
    R(400, POST("Content_Length: 5\r\n")),
    R(400, POST("Content-Length: 5\r\nContent_Length: 6\r\n")),
    R(400, POST("Content-Length : 5\r\n")),
    R(400, POST(" Content-Length: 5\r\n")),
    R(400, POST("\0Content-Length: 5\r\n")),
    /* Transfer-Encoding */
    R(400, POST("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n")),
    R(400, POST("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n")),
    R(400, POST("Content-Length: 0\r\nTransfer-Encoding: chunked\r\n")),
    R(400, POST("Content-Length: 5\r\nTransfer-Encoding: identity\r\n")),
    R(400, POST("Content-Length: 5\r\nTransfer-Encoding:\r\n")),
    R(400, POST("Transfer-Encoding:\r\n")),
    R(400, POST("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n")),
    R(400, POST("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n")),
    R(400, POST("Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n")),
    R(400, POST("Transfer-Encoding: chunked, chunked\r\n")),
    R(400, POST("Transfer-Encoding: chunked, gzip\r\n")),
    R(400, POST("Transfer-Encoding: chunked, identity\r\n")),
    R(501, POST("Transfer-Encoding: gzip, chunked\r\n")),
    R(501, POST("Transfer-Encoding: identity, chunked\r\n")),
    R(400, POST("Transfer-Encoding: gzip\r\n")),
    R(400, POST("Transfer-Encoding: identity\r\n")),
    R(400, POST("Transfer-Encoding: xchunked\r\n")),
    R(400, POST("Transfer-Encoding: chunkedx\r\n")),
    R(400, POST("Transfer-Encoding: chunked;q=1\r\n")),
    R(400, POST("Transfer-Encoding: \"chunked\"\r\n")),
    R(400, POST("Transfer-Encoding: 'chunked'\r\n")),
    R(400, POST("Transfer-Encoding: ,chunked\r\n")),
    R(400, POST("Transfer-Encoding: chunked,\r\n")),
    R(400, POST("Transfer-Encoding: \x0b"
                "chunked\r\n")),
    R(400, POST("Transfer-Encoding: chu\xc5\x84ked\r\n")),
    R(400, POST("Transfer-Encoding : chunked\r\n")),
    R(400, POST(" Transfer-Encoding: chunked\r\n")),
    R(400, POST("X: y\r\n Transfer-Encoding: chunked\r\n")),
    R(400, POST("Transfer-Encoding:\r\n chunked\r\n")),
    R(400, POST("Transfer_Encoding: chunked\r\n")),
    R(400, POST("Transfer-Encoding\r\n: chunked\r\n")),
    R(400, "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"),
    R(400, "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n"),
    /* the rest */
    R(417, POST("Expect: 200-ok\r\n")),
    R(417, POST("Expect: 100-continue, x\r\n")),
    R(400, POST("Expect: 100-continue\r\nExpect: 100-continue\r\n")),
    R(0, "POST / HTTP/1.0\r\nExpect: 200-ok\r\nContent-Length: 1\r\n\r\n"),
    R(400, GET("Connection: a b\r\n")),
    R(400, GET("Connection: close;x\r\n")),
    R(400, GET("X_Api_Key: stolen\r\n")),
    R(400, GET("X_Forwarded-For: 1.2.3.4\r\n")),
};

static void show(const char *what, size_t row, const char *text)
{
    print_error("%s, row %zu: %.60s\n", what, row, text);
}

/* Every row at once, and byte by byte: refused with the same status, and never accepted early. */
static void test_request_table(void **state)
{
    (void)state;
    static struct h1_request r;
    struct h1_error e;
    assert_true(ARRAY_LEN(requests) >= 120);
    for (size_t i = 0; i < ARRAY_LEN(requests); i++) {
        const struct row *row = &requests[i];
        size_t n = row->n;
        char *copy = malloc(n); /* so that a read past the end is seen */
        memcpy(copy, row->text, n);
        h1_begin(&r.head);
        memset(&e, 0, sizeof e);
        enum h1_status s = h1_parse_request(copy, n, &limits, &r, &e);
        int got = s == H1_DONE ? 0 : s == H1_BAD ? e.status : -1;
        if (got != row->status) show("at once", i, row->text);
        assert_int_equal(got, row->status);
        if (s == H1_DONE) assert_int_equal(r.head.len, n);
        if (s == H1_BAD) assert_non_null(e.reason);

        h1_begin(&r.head);
        got = -1;
        for (size_t k = 1; k <= n && got == -1; k++) {
            s = h1_parse_request(copy, k, &limits, &r, &e);
            got = s == H1_DONE ? 0 : s == H1_BAD ? e.status : -1;
            if (got == 0 && k != n) show("early", i, row->text);
            if (got == 0) assert_int_equal(k, n);
        }
        if (got != row->status) show("byte by byte", i, row->text);
        assert_int_equal(got, row->status);
        free(copy);
    }
}

static const char full[] = "POST http://b.example:81/v1/x%20y?a=b&c HTTP/1.1\r\n"
                           "Host: ignored\r\n"
                           "Content-Type: application/json \t\r\n"
                           "X-Custom:   one two  \r\n"
                           "connection: Keep-Alive, X-Custom\r\n"
                           "X-Empty:\r\n"
                           "x-custom: second\r\n"
                           "Connection: te\r\n"
                           "Expect: 100-continue\r\n"
                           "Content-Length: 12\r\n"
                           "\r\n";

static void check_full(const struct h1_request *r)
{
    const struct h1_head *h = &r->head;
    assert_int_equal(h->len, sizeof full - 1);
    assert_int_equal(r->method, H1_POST);
    assert_true(str_eqz(r->method_str, "POST"));
    assert_true(str_eqz(r->target, "http://b.example:81/v1/x%20y?a=b&c"));
    assert_true(str_eqz(r->path, "/v1/x%20y"));
    assert_true(str_eqz(r->query, "a=b&c"));
    assert_true(str_eqz(r->host, "b.example:81"));
    assert_int_equal(h->version_minor, 1);
    assert_int_equal(h->framing, H1_BODY_LENGTH);
    assert_int_equal(h->content_length, 12);
    assert_true(h->keep_alive);
    assert_false(h->upgrade);
    assert_true(r->expect_continue);
    assert_int_equal(h->fields_len, 9);
    assert_true(str_eqz(h1_header(h, STR("CONTENT-TYPE")), "application/json"));
    assert_true(str_eqz(h1_header(h, STR("x-custom")), "one two"));
    assert_true(str_eqz(h1_header(h, STR("X-Empty")), ""));
    assert_non_null(h1_header(h, STR("X-Empty")).p);
    assert_null(h1_header(h, STR("absent")).p);
    assert_null(h1_header(h, STR("Authorization")).p);
    assert_true(h1_connection_has(h, STR("x-CUSTOM")));
    assert_true(h1_connection_has(h, STR("TE")));
    assert_false(h1_connection_has(h, STR("close")));
    assert_false(h1_connection_has(h, STR("custom")));
}

/* Cut in two at every byte, with the buffer moved in between. */
static void test_split_points_give_the_same_request(void **state)
{
    (void)state;
    static struct h1_request r;
    struct h1_error e;
    const char tail[] = "{\"next\": 1}\nGET ";
    for (size_t cut = 0; cut < sizeof full - 1; cut++) {
        h1_begin(&r.head);
        char *first = malloc(cut + 1);
        memcpy(first, full, cut);
        assert_int_equal(h1_parse_request(first, cut, &limits, &r, &e), H1_MORE);
        free(first);
        size_t n = sizeof full - 1 + sizeof tail - 1;
        char *second = malloc(n);
        memcpy(second, full, sizeof full - 1);
        memcpy(second + sizeof full - 1, tail, sizeof tail - 1);
        assert_int_equal(h1_parse_request(second, n, &limits, &r, &e), H1_DONE);
        check_full(&r);
        free(second);
    }
}

static enum h1_status parse(const char *text, struct h1_request *r)
{
    struct h1_error e;
    h1_begin(&r->head);
    return h1_parse_request(text, strlen(text), &limits, r, &e);
}

static void test_targets_are_taken_apart(void **state)
{
    (void)state;
    static struct h1_request r;
    assert_int_equal(parse(TARGET("http://b?x=y"), &r), H1_DONE);
    assert_true(str_eqz(r.path, "/") && str_eqz(r.query, "x=y") && str_eqz(r.host, "b"));
    assert_int_equal(parse(TARGET("/p?"), &r), H1_DONE);
    assert_true(str_eqz(r.path, "/p") && r.query.p != NULL && r.query.n == 0);
    assert_int_equal(parse(TARGET("/p"), &r), H1_DONE);
    assert_true(r.query.p == NULL && str_eqz(r.host, "a"));
    assert_int_equal(parse("OPTIONS * HTTP/1.1\r\n" H "\r\n", &r), H1_DONE);
    assert_true(str_eqz(r.path, "*") && r.method == H1_OPTIONS);
}

static void test_keep_alive_follows_version_and_connection(void **state)
{
    (void)state;
    static struct h1_request r;
    static const struct {
        const char *text;
        bool keep;
    } rows[] = {
        { GET(""), true },
        { GET("Connection: close\r\n"), false },
        { GET("Connection: x, CLOSE\r\n"), false },
        { GET("Connection: keep-alive\r\nConnection: close\r\n"), false },
        { "GET / HTTP/1.0\r\n\r\n", false },
        { "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", true },
        { "GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n", false },
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        assert_int_equal(parse(rows[i].text, &r), H1_DONE);
        assert_int_equal(r.head.keep_alive, rows[i].keep);
    }
    assert_int_equal(parse(GET("Connection: Upgrade\r\nUpgrade: websocket\r\n"), &r), H1_DONE);
    assert_true(r.head.upgrade);
}

/* Endless lines and heads end when the limit is there, whether or not the end is in sight. */
static void test_limits(void **state)
{
    (void)state;
    static struct h1_request r;
    static char big[8192];
    struct h1_error e;
    struct h1_limits small = { .head = 4096, .line = 100, .headers = 3 };

    memset(big, 'a', sizeof big);
    memcpy(big, "GET /", 5);
    h1_begin(&r.head);
    assert_int_equal(h1_parse_request(big, 90, &small, &r, &e), H1_MORE);
    assert_int_equal(h1_parse_request(big, 102, &small, &r, &e), H1_BAD);
    assert_int_equal(e.status, 414);
    h1_begin(&r.head);
    assert_int_equal(h1_parse_request(big, sizeof big, &small, &r, &e), H1_BAD);
    assert_int_equal(e.status, 414);

    int n = snprintf(big, sizeof big, "GET / HTTP/1.1\r\nX: ");
    big[n] = 'a';
    h1_begin(&r.head);
    assert_int_equal(h1_parse_request(big, 4095, &small, &r, &e), H1_MORE);
    assert_int_equal(h1_parse_request(big, 4096, &small, &r, &e), H1_BAD);
    assert_int_equal(e.status, 431);

    h1_begin(&r.head);
    const char *three = "GET / HTTP/1.1\r\nHost: a\r\nA: b\r\nC: d\r\n\r\n";
    assert_int_equal(h1_parse_request(three, strlen(three), &small, &r, &e), H1_DONE);
    h1_begin(&r.head);
    const char *four = "GET / HTTP/1.1\r\nHost: a\r\nA: b\r\nC: d\r\nE: f\r\n\r\n";
    assert_int_equal(h1_parse_request(four, strlen(four), &small, &r, &e), H1_BAD);
    assert_int_equal(e.status, 431);

    /* exactly the limit is fine */
    n = snprintf(big, sizeof big, "GET / HTTP/1.1\r\nHost: a\r\nX: ");
    memset(big + n, 'a', sizeof big - (size_t)n);
    memcpy(big + 4092, "\r\n\r\n", 4);
    h1_begin(&r.head);
    assert_int_equal(h1_parse_request(big, sizeof big, &small, &r, &e), H1_DONE);
    assert_int_equal(r.head.len, 4096);

    /* a table larger than the struct is not believed */
    small.headers = 1000;
    n = snprintf(big, sizeof big, "GET / HTTP/1.1\r\nHost: a\r\n");
    for (int i = 0; i < H1_MAX_HEADERS; i++)
        n += snprintf(big + n, sizeof big - (size_t)n, "A: b\r\n");
    n += snprintf(big + n, sizeof big - (size_t)n, "\r\n");
    h1_begin(&r.head);
    assert_int_equal(h1_parse_request(big, (size_t)n, &small, &r, &e), H1_BAD);
    assert_int_equal(e.status, 431);
}

static void test_every_known_name_is_found(void **state)
{
    (void)state;
    for (int k = H1_UNKNOWN + 1; k < H1_KNOWN_MAX; k++) {
        char upper[64];
        struct str name = h1_known_name((enum h1_known)k);
        assert_true(name.n > 0 && name.n < sizeof upper);
        assert_int_equal(h1_known_of(name), k);
        for (size_t i = 0; i < name.n; i++)
            upper[i] = (char)(name.p[i] >= 'a' && name.p[i] <= 'z' ? name.p[i] - 32 : name.p[i]);
        assert_int_equal(h1_known_of(str_n(upper, name.n)), k);
        for (size_t i = 0; i < name.n; i++) {
            char was = upper[i];
            upper[i] = '!';
            assert_int_equal(h1_known_of(str_n(upper, name.n)), H1_UNKNOWN);
            upper[i] = was;
        }
    }
    assert_int_equal(h1_known_of(STR("")), H1_UNKNOWN);
    assert_int_equal(h1_known_of(STR("content_length")), H1_UNKNOWN);
}

static void test_hop_by_hop_names(void **state)
{
    (void)state;
    static const char *const hop[] = { "Connection",
                                       "keep-alive",
                                       "TE",
                                       "Trailer",
                                       "Upgrade",
                                       "transfer-encoding",
                                       "Proxy-Connection",
                                       "Proxy-Authorization",
                                       "Proxy-Authenticate",
                                       "HTTP2-Settings" };
    static const char *const end[] = {
        "Authorization", "Host", "Content-Length", "X-Te", "Date", ""
    };
    for (size_t i = 0; i < ARRAY_LEN(hop); i++) assert_true(h1_is_hop_by_hop(str_of(hop[i])));
    for (size_t i = 0; i < ARRAY_LEN(end); i++) assert_false(h1_is_hop_by_hop(str_of(end[i])));
}

/* The eight-at-a-time check agrees with the definition for every byte at every place. */
static void test_field_value_check_agrees_with_its_definition(void **state)
{
    (void)state;
    char text[24];
    for (unsigned c = 0; c < 256; c++) {
        bool want = (c >= 0x20 && c != 0x7f) || c == '\t';
        for (size_t n = 1; n <= sizeof text; n++) {
            for (size_t at = 0; at < n; at++) {
                memset(text, 'x', sizeof text);
                if (at > 0) text[at - 1] = '\t';
                text[at] = (char)c;
                assert_int_equal(h1_is_field_value(str_n(text, n)), want);
            }
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_request_table),
        cmocka_unit_test(test_split_points_give_the_same_request),
        cmocka_unit_test(test_targets_are_taken_apart),
        cmocka_unit_test(test_keep_alive_follows_version_and_connection),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_every_known_name_is_found),
        cmocka_unit_test(test_hop_by_hop_names),
        cmocka_unit_test(test_field_value_check_agrees_with_its_definition),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
