/* SPDX-License-Identifier: Apache-2.0 */
/* TLS between two ends of a socket pair, with certificates made for the test. */
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "rt/tls.h"

static char dir[] = "/tmp/aigw-tls-XXXXXX";

static const char *path(const char *name)
{
    static char all[4][128];
    static unsigned turn;
    char *p = all[turn++ % 4];
    (void)snprintf(p, sizeof all[0], "%s/%s", dir, name);
    return p;
}

static void shell(const char *command)
{
    char line[1024];
    (void)snprintf(line, sizeof line, "cd %s && { %s; } 2>/dev/null", dir, command);
    assert_int_equal(system(line), 0);
}

/* A CA, and a certificate of it for gateway.test and 127.0.0.1; another one that it did not sign.
 */
static int make_certificates(void **state)
{
    (void)state;
    assert_non_null(mkdtemp(dir));
    shell(
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=ca "
        "-keyout ca.key -out ca.pem");
    shell("openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=gateway.test "
          "-keyout server.key -out server.csr && printf "
          "'subjectAltName=DNS:gateway.test,IP:127.0.0.1' >ext && openssl x509 -req -in server.csr "
          "-CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile ext -out server.pem");
    shell("openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj "
          "/CN=other -keyout other.key -out other.pem");
    return 0;
}

static int remove_certificates(void **state)
{
    (void)state;
    shell("rm -f ca.* server.* other.* ext");
    return rmdir(dir);
}

struct pair {
    int fd[2];
    struct tls_context *server_context, *client_context;
    struct tls *server, *client;
};

static void pair_open(struct pair *p, const char *ca, struct str name, struct tls_ticket *ticket)
{
    struct why why;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, p->fd), 0);
    assert_int_equal(
        tls_server_context(path("server.pem"), path("server.key"), &p->server_context, &why),
        ERR_OK);
    assert_int_equal(tls_client_context(ca, NULL, NULL, &p->client_context, &why), ERR_OK);
    p->server = tls_accept(p->server_context, p->fd[0]);
    p->client = tls_connect(p->client_context, p->fd[1], name, ticket);
    assert_non_null(p->server);
    assert_non_null(p->client);
}

static void pair_close(struct pair *p)
{
    tls_free(p->server);
    tls_free(p->client);
    tls_context_unref(p->server_context);
    tls_context_unref(p->client_context);
    close(p->fd[0]);
    close(p->fd[1]);
}

/* Both in turn until both are through, or one has failed: what the client says. */
static enum err handshake(struct pair *p)
{
    enum err server = ERR_AGAIN, client = ERR_AGAIN;
    for (int i = 0; i < 20 && (server == ERR_AGAIN || client == ERR_AGAIN); i++) {
        if (client == ERR_AGAIN) client = tls_handshake(p->client);
        if (server == ERR_AGAIN) server = tls_handshake(p->server);
        if (client == ERR_DENIED) break;
    }
    return client;
}

static void both_ways(void **state)
{
    struct pair p;
    char got[8];
    size_t n;
    (void)state;
    pair_open(&p, path("ca.pem"), STR("gateway.test"), NULL);
    assert_int_equal(handshake(&p), ERR_OK);
    assert_int_equal(tls_read(p.server, got, sizeof got, &n), ERR_AGAIN);
    assert_int_equal(tls_write(p.client, "hello world!", 12, &n), ERR_OK);
    assert_int_equal(n, 12);
    assert_int_equal(tls_read(p.server, got, 5, &n), ERR_OK);
    assert_memory_equal(got, "hello", n);
    assert_true(tls_has_more(p.server));
    assert_int_equal(tls_read(p.server, got, sizeof got, &n), ERR_OK);
    assert_int_equal(n, 7);
    assert_false(tls_has_more(p.server));
    assert_int_equal(tls_write(p.server, "bye", 3, &n), ERR_OK);
    assert_int_equal(tls_read(p.client, got, sizeof got, &n), ERR_OK);
    assert_int_equal(n, 3);
    assert_true(tls_bytes_written(p.client) > 12);
    pair_close(&p);
}

static void an_address_is_verified_too(void **state)
{
    struct pair p;
    (void)state;
    pair_open(&p, path("ca.pem"), STR("127.0.0.1"), NULL);
    assert_int_equal(handshake(&p), ERR_OK);
    pair_close(&p);
}

static void another_name_is_refused(void **state)
{
    struct pair p;
    (void)state;
    pair_open(&p, path("ca.pem"), STR("other.test"), NULL);
    assert_int_equal(handshake(&p), ERR_DENIED);
    assert_non_null(strstr(tls_problem(p.client), "certificate is not accepted"));
    pair_close(&p);
}

static void an_unknown_authority_is_refused(void **state)
{
    struct pair p;
    (void)state;
    pair_open(&p, path("other.pem"), STR("gateway.test"), NULL);
    assert_int_equal(handshake(&p), ERR_DENIED);
    assert_non_null(strstr(tls_problem(p.client), "certificate is not accepted"));
    pair_close(&p);
}

static void what_is_no_tls_is_an_error(void **state)
{
    struct pair p;
    (void)state;
    pair_open(&p, path("ca.pem"), STR("gateway.test"), NULL);
    assert_int_equal(write(p.fd[1], "GET / HTTP/1.1\r\nHost: x\r\n\r\n", 27), 27);
    assert_int_equal(tls_handshake(p.server), ERR_DENIED);
    assert_string_not_equal(tls_problem(p.server), "");
    pair_close(&p);
}

static void an_end_is_told_from_a_cut(void **state)
{
    struct pair p;
    char got[8];
    size_t n;
    (void)state;
    pair_open(&p, path("ca.pem"), STR("gateway.test"), NULL);
    assert_int_equal(handshake(&p), ERR_OK);
    assert_true(tls_is_quiet(p.client));
    tls_end(p.server);
    assert_false(tls_is_quiet(p.client));
    assert_int_equal(tls_read(p.client, got, sizeof got, &n), ERR_CLOSED);
    pair_close(&p);

    pair_open(&p, path("ca.pem"), STR("gateway.test"), NULL);
    assert_int_equal(handshake(&p), ERR_OK);
    assert_int_equal(shutdown(p.fd[0], SHUT_RDWR), 0);
    assert_int_equal(tls_read(p.client, got, sizeof got, &n), ERR_IO);
    pair_close(&p);
}

static void tickets_come_while_idle_and_resume(void **state)
{
    struct pair p;
    struct tls_ticket *ticket = tls_ticket_new();
    (void)state;
    pair_open(&p, path("ca.pem"), STR("gateway.test"), ticket);
    assert_int_equal(handshake(&p), ERR_OK);
    assert_false(tls_was_resumed(p.client));
    assert_true(tls_is_quiet(p.client)); /* takes the tickets, which are no data */
    struct tls_context *server = p.server_context, *client = p.client_context;
    tls_free(p.server);
    tls_free(p.client);
    p.server = tls_accept(server, p.fd[0]);
    p.client = tls_connect(client, p.fd[1], STR("gateway.test"), ticket);
    assert_int_equal(handshake(&p), ERR_OK);
    assert_true(tls_was_resumed(p.client));
    pair_close(&p);
    tls_ticket_unref(ticket);
}

static void bad_files_are_named(void **state)
{
    struct tls_context *c = NULL;
    struct why why;
    (void)state;
    assert_int_equal(tls_server_context(path("none.pem"), path("server.key"), &c, &why),
                     ERR_INVALID);
    assert_non_null(strstr(why.text, "none.pem"));
    assert_int_equal(tls_server_context(path("server.pem"), path("other.key"), &c, &why),
                     ERR_INVALID);
    assert_non_null(strstr(why.text, "other.key"));
    assert_int_equal(tls_client_context(path("server.key"), NULL, NULL, &c, &why), ERR_INVALID);
    assert_non_null(strstr(why.text, "server.key"));
    assert_null(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_ways),
        cmocka_unit_test(an_address_is_verified_too),
        cmocka_unit_test(another_name_is_refused),
        cmocka_unit_test(an_unknown_authority_is_refused),
        cmocka_unit_test(what_is_no_tls_is_an_error),
        cmocka_unit_test(an_end_is_told_from_a_cut),
        cmocka_unit_test(tickets_come_while_idle_and_resume),
        cmocka_unit_test(bad_files_are_named),
    };
    (void)signal(SIGPIPE, SIG_IGN); /* as every daemon does */
    return cmocka_run_group_tests(tests, make_certificates, remove_certificates);
}
