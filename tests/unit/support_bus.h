/* SPDX-License-Identifier: Apache-2.0 */
/* A real nats-server and a bus for each test, and boxes that wait for callbacks. Included once by a
 * test program. */
#ifndef TESTS_SUPPORT_BUS_H
#define TESTS_SUPPORT_BUS_H

#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <sys/socket.h>
#include <time.h>

#include <cmocka.h>

#include "base/buf.h"
#include "rt/bus.h"
#include "rt/json.h"
#include "support_nats.h"

enum { SOON_MS = 60000 }; /* tells slow from never */

/* --- waiting for callbacks */

struct box {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int count;
    char text[256]; /* of the last */
    enum err e;
    bool dup;
    uint64_t at_ns;
};

__attribute__((unused)) static void box_init(struct box *x)
{
    pthread_condattr_t mono;
    memset(x, 0, sizeof *x);
    pthread_condattr_init(&mono);
    pthread_condattr_setclock(&mono, CLOCK_MONOTONIC);
    pthread_cond_init(&x->changed, &mono);
    pthread_condattr_destroy(&mono);
    pthread_mutex_init(&x->lock, NULL);
}

__attribute__((unused)) static void box_put(struct box *x, enum err e, struct str text, bool dup)
{
    pthread_mutex_lock(&x->lock);
    x->count++;
    x->e = e;
    x->dup = dup;
    x->at_ns = clock_mono_ns(clock_system());
    str_copyz(x->text, sizeof x->text, text);
    pthread_cond_broadcast(&x->changed);
    pthread_mutex_unlock(&x->lock);
}

/* Waits until count is at least n; false when that does not happen in ms. */
__attribute__((unused)) static bool box_wait(struct box *x, int n, int ms)
{
    struct timespec t = clock_in_ms((uint64_t)ms);
    pthread_mutex_lock(&x->lock);
    while (x->count < n)
        if (pthread_cond_timedwait(&x->changed, &x->lock, &t) != 0) break;
    bool ok = x->count >= n;
    pthread_mutex_unlock(&x->lock);
    return ok;
}

__attribute__((unused)) static int box_count(struct box *x)
{
    pthread_mutex_lock(&x->lock);
    int n = x->count;
    pthread_mutex_unlock(&x->lock);
    return n;
}

__attribute__((unused)) static void box_msg(void *ctx, const struct bus_msg *m)
{
    box_put(ctx, ERR_OK, m->data, false);
}

__attribute__((unused)) static void box_reply(void *ctx, enum err e, struct str data)
{
    box_put(ctx, e, data, false);
}

__attribute__((unused)) static void box_ack(void *ctx, enum err e, bool dup)
{
    box_put(ctx, e, STR_NULL, dup);
}

/* --- a server and a bus for each test */

struct fixture {
    struct nats_server server;
    struct bus *bus;
    struct box up, down, errors;
    atomic_int refusals; /* of a log-in, among the errors */
};

__attribute__((unused)) static void on_state(void *ctx, bool connected, const char *why)
{
    struct fixture *f = ctx;
    box_put(connected ? &f->up : &f->down, ERR_OK, str_of(why), false);
}

__attribute__((unused)) static void on_error(void *ctx, const char *why)
{
    struct fixture *f = ctx;
    print_message("reported: %s\n", why);
    if (strstr(why, "Authorization Violation") != NULL) atomic_fetch_add(&f->refusals, 1);
    box_put(&f->errors, ERR_OK, str_of(why), false);
}

__attribute__((unused)) static struct bus *another_bus(struct fixture *f, const char *service,
                                                       const char *instance, const char *user,
                                                       const char *password)
{
    const struct bus_options o = { .url = f->server.url,
                                   .user = user,
                                   .password = password,
                                   .instance = instance,
                                   .service = service,
                                   .version = "1.2.3",
                                   .description = "a service under test",
                                   .prefix = "aigw",
                                   .clock = clock_system(),
                                   .rng = rng_system(),
                                   .on_state = on_state,
                                   .on_error = on_error,
                                   .ctx = f };
    return bus_new(&o);
}

__attribute__((unused)) static int setup_server(void **state)
{
    struct fixture *f = xcalloc(1, sizeof *f);
    box_init(&f->up);
    box_init(&f->down);
    box_init(&f->errors);
    nats_server_start(&f->server, NULL);
    *state = f;
    return 0;
}

__attribute__((unused)) static int setup(void **state)
{
    setup_server(state);
    struct fixture *f = *state;
    f->bus = another_bus(f, "edge", "edge-1", NULL, NULL);
    assert_true(box_wait(&f->up, 1, SOON_MS));
    return 0;
}

__attribute__((unused)) static int teardown(void **state)
{
    struct fixture *f = *state;
    bus_free(f->bus);
    nats_server_done(&f->server);
    free(f);
    return 0;
}

/* A round trip: what was subscribed before is known to the server. */
__attribute__((unused)) static void sync_bus(struct bus *b)
{
    struct box done;
    struct bus_sub *s;
    box_init(&done);
    assert_int_equal(bus_subscribe(b, "test.sync", NULL, box_msg, &done, &s), ERR_OK);
    assert_int_equal(bus_publish(b, "test.sync", STR("x")), ERR_OK);
    assert_true(box_wait(&done, 1, SOON_MS));
    bus_unsubscribe(s);
}

__attribute__((unused)) static double ms_since(uint64_t start, uint64_t end)
{
    return (double)(end - start) / 1e6;
}

#endif
