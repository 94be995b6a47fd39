/* SPDX-License-Identifier: Apache-2.0 */
/* The resolver, with a name server that is the test's: slow, away, and back again. */
#include <netdb.h>
#include <netinet/in.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <cmocka.h>

#include "services/edge/upstreams/resolve.h"

enum { NAMES = 100, LOOK_UP_MS = 100, PATIENCE_S = 60 };

static struct {
    pthread_t test;
    _Atomic bool away; /* takes its time, and knows nothing */
    _Atomic unsigned here, elsewhere;
} names;

static void rest(unsigned ms)
{
    struct timespec t = { ms / 1000, (long)(ms % 1000) * 1000000 };
    (void)nanosleep(&t, NULL);
}

/* In the place of libc's. */
int getaddrinfo(const char *name, const char *service, const struct addrinfo *hints,
                struct addrinfo **ret)
{
    (void)service, (void)hints;
    if (pthread_equal(pthread_self(), names.test))
        names.here++;
    else
        names.elsewhere++;
    if (names.away) {
        rest(LOOK_UP_MS); /* this is the name server, which takes its time */
        return EAI_AGAIN;
    }
    struct addrinfo *a = calloc(1, sizeof *a);
    struct sockaddr_in *addr = calloc(1, sizeof *addr);
    if (a == NULL || addr == NULL) abort();
    addr->sin_family = AF_INET;
    addr->sin_addr.s_addr = htonl(0x0a000000u + (uint32_t)strtoul(name + 1, NULL, 10));
    *a = (struct addrinfo){ .ai_family = AF_INET,
                            .ai_addr = (struct sockaddr *)(void *)addr,
                            .ai_addrlen = sizeof *addr };
    *ret = a;
    return 0;
}

void freeaddrinfo(struct addrinfo *a)
{
    free(a->ai_addr);
    free(a);
}

struct fixture {
    struct snap_upstream upstream;
    struct snap_server servers[NAMES];
    char text[NAMES][24];
    struct snapshot snap;
    struct resolver *r;
};

static void begin(struct fixture *f, size_t n)
{
    names.test = pthread_self();
    names.here = names.elsewhere = 0;
    *f = (struct fixture){ .snap = { .upstreams = &f->upstream, .upstreams_n = 1 } };
    for (size_t i = 0; i < n; i++) {
        (void)snprintf(f->text[i], sizeof f->text[i], "n%zu", i);
        f->servers[i] = (struct snap_server){ .host = str_of(f->text[i]), .port = 80 };
    }
    f->upstream.servers = f->servers;
    f->upstream.servers_n = n;
    f->r = resolver_new();
}

static bool has(const struct fixture *f, size_t i)
{
    struct sockaddr_storage a;
    socklen_t n;
    if (resolver_get(f->r, &f->servers[i], 0, &a, &n) != ERR_OK) return false;
    const struct sockaddr_in *in = (const void *)&a;
    assert_int_equal(ntohl(in->sin_addr.s_addr), 0x0a000000u + i);
    assert_int_equal(ntohs(in->sin_port), 80);
    return true;
}

static void wait_for_all(const struct fixture *f, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        unsigned waited = 0;
        for (; !has(f, i) && waited < PATIENCE_S * 1000; waited += 10) rest(10);
        assert_true(waited < PATIENCE_S * 1000);
    }
}

static void names_are_known_when_a_configuration_is_used(void **state)
{
    struct fixture f;
    (void)state;
    names.away = false;
    begin(&f, NAMES);
    resolver_use(f.r, &f.snap);
    wait_for_all(&f, NAMES);
    assert_true(names.here > 0);
    f.upstream.servers_n = 1; /* the others are not wanted any more */
    resolver_use(f.r, &f.snap);
    assert_true(has(&f, 0));
    assert_false(has(&f, 1));
    resolver_free(f.r);
}

/* A configuration does not wait for all of them: it may be what takes a key back. */
static void a_name_server_that_is_away_holds_nothing_up(void **state)
{
    struct fixture f;
    (void)state;
    names.away = true;
    begin(&f, NAMES);
    resolver_use(f.r, &f.snap); /* all of them would take three times as long */
    assert_true(names.here > 0 && names.here < NAMES);
    names.away = false; /* and when it is back they come by themselves */
    wait_for_all(&f, NAMES);
    assert_true(names.elsewhere > 0);
    resolver_free(f.r);
}

static void the_end_does_not_wait_for_all_either(void **state)
{
    struct fixture f;
    (void)state;
    names.away = true;
    begin(&f, NAMES);
    resolver_use(f.r, &f.snap);
    unsigned waited = 0; /* its thread is at work */
    for (; names.elsewhere == 0 && waited < PATIENCE_S * 1000; waited += 10) rest(10);
    assert_true(names.elsewhere > 0);
    unsigned before = names.elsewhere;
    resolver_free(f.r);
    assert_true(names.elsewhere < before + NAMES / 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_are_known_when_a_configuration_is_used),
        cmocka_unit_test(a_name_server_that_is_away_holds_nothing_up),
        cmocka_unit_test(the_end_does_not_wait_for_all_either),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
