/* SPDX-License-Identifier: Apache-2.0 */
/* Places at servers, the queue for them, the retry budget, and what outlives a configuration. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <stdlib.h>

#include "services/edge/upstreams/fleet.h"

#define MS UINT64_C(1000000)

struct fixture {
    struct clock_fake clock;
    struct rng_fake rng;
    struct fleet *fleet;
    struct snap_server servers[2];
    struct snap_upstream u;
    struct group *group;
    struct loop *loop;
    enum fleet_news last;
    int news;
};

static void on_event(void *ctx, const struct fleet_event *ev)
{
    struct fixture *x = ctx;
    x->last = ev->what;
    x->news++;
    ASSERT(ev->why != NULL);
}

static int setup(void **state)
{
    struct fixture *x = xcalloc(1, sizeof *x);
    clock_fake_init(&x->clock, 1000000 * MS, 0);
    rng_fake_init(&x->rng, 3);
    x->fleet = fleet_new(&(struct fleet_options){
        .clock = &x->clock.clock, .rng = &x->rng.rng, .event = on_event, .ctx = x });
    x->servers[0] = (struct snap_server){
        .id = STR("s0"), .url = STR("http://a"), .enabled = true, .weight = 1, .max_requests = 1
    };
    x->servers[1] = (struct snap_server){
        .id = STR("s1"), .url = STR("http://b"), .enabled = true, .weight = 1, .max_requests = 1
    };
    x->u = (struct snap_upstream){
        .id = STR("u"),
        .servers = x->servers,
        .servers_n = 2,
        .queue_max = 3,
        .queue_ms = 1000,
        .cooldown_max_ms = 60000,
        .eject = { .failures = 1, .base_ms = 1000, .most_ms = 1000, .max_percent = 50 },
        .breaker = { .probes = 1, .window_ms = 1000 },
        .retry = { .budget_percent = 20, .budget_min = 2 }
    };
    x->group = group_new(x->fleet, &x->u);
    x->loop = loop_new(clock_system());
    *state = x;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *x = *state;
    group_free(x->group);
    fleet_free(x->fleet);
    loop_free(x->loop);
    free(x);
    return 0;
}

static enum balance_verdict take(const struct fixture *x, struct seat *ret)
{
    struct balance_ask ask = { .hash = 0 };
    uint64_t wait;
    return group_take(x->group, &ask, x->clock.mono, true, ret, &wait);
}

static void stop(void *ctx)
{
    loop_stop(ctx);
}

/* Runs what was posted to the loop; once. */
static void run(struct fixture *x)
{
    assert_int_equal(loop_post(x->loop, stop, x->loop), ERR_OK);
    loop_run(x->loop);
}

struct one {
    struct waiter w;
    int called, *turn, when;
};

static void on_place(void *ctx)
{
    struct one *o = ctx;
    o->called++;
    o->when = ++*o->turn;
}

static enum err wait_for(struct fixture *x, struct one *o, int *turn)
{
    struct balance_ask ask = { .hash = 0 };
    *o = (struct one){ .turn = turn };
    return group_wait(x->group, &ask, x->loop, on_place, o, &o->w);
}

static void places_go_to_those_who_wait_in_order(void **state)
{
    struct fixture *x = *state;
    struct seat a = { .group = NULL }, b = { .group = NULL }, c = { .group = NULL };
    struct one w[4];
    int turn = 0;
    assert_int_equal(take(x, &a), BALANCE_OK);
    assert_int_equal(take(x, &b), BALANCE_OK);
    assert_int_not_equal(a.server, b.server);
    assert_int_equal(take(x, &c), BALANCE_FULL);
    for (int i = 0; i < 3; i++) assert_int_equal(wait_for(x, &w[i], &turn), ERR_OK);
    assert_int_equal(wait_for(x, &w[3], &turn), ERR_LIMIT); /* it is full */
    seat_leave(&a);
    assert_int_equal(take(x, &c), BALANCE_FULL); /* nobody passes those who wait */
    seat_leave(&b);
    run(x);
    assert_int_equal(w[0].when, 1);
    assert_int_equal(w[1].when, 2);
    assert_int_equal(w[2].called, 0);
    assert_true(group_forget(&w[2].w));  /* it leaves */
    assert_false(group_forget(&w[0].w)); /* it has a place */
    seat_leave(&w[0].w.seat);
    seat_leave(&w[1].w.seat);
    assert_int_equal(take(x, &c), BALANCE_OK);
    seat_leave(&c);
    seat_leave(&c); /* there is none any more */
    struct fleet_group_stats g;
    struct fleet_server_stats s[2];
    group_stats(x->group, &g, s);
    assert_int_equal(g.queued, 0);
    assert_int_equal(g.queue_refused, 1);
    assert_int_equal(s[0].active + s[1].active, 0);
}

static void time_makes_places_too(void **state)
{
    struct fixture *x = *state;
    struct seat a = { .group = NULL }, b = { .group = NULL };
    struct one w;
    int turn = 0;
    assert_int_equal(take(x, &a), BALANCE_OK);
    seat_cool(&a, 500, true);
    assert_int_equal(x->last, FLEET_COOLING);
    seat_leave(&a);
    assert_int_equal(take(x, &b), BALANCE_OK);
    assert_int_equal(wait_for(x, &w, &turn), ERR_OK);
    fleet_tick(x->fleet);
    assert_null(w.w.seat.group);
    clock_fake_advance(&x->clock, 500 * MS);
    fleet_tick(x->fleet);
    run(x);
    assert_int_equal(w.called, 1);
    seat_leave(&w.w.seat);
    seat_leave(&b);
}

static void retries_are_a_share_of_the_requests(void **state)
{
    struct fixture *x = *state;
    int n = 0;
    for (int i = 0; i < 50; i++) group_count_request(x->group, x->clock.mono);
    while (group_may_retry(x->group)) n++;
    assert_int_equal(n, 12); /* 20 % of 50, and 2 */
    clock_fake_advance(&x->clock, 5000 * MS);
    assert_false(group_may_retry(x->group));
    for (int i = 0; i < 5; i++) group_count_request(x->group, x->clock.mono);
    assert_true(group_may_retry(x->group));
    assert_false(group_may_retry(x->group));
    clock_fake_advance(&x->clock, 20000 * MS); /* all of it is past: what there always is */
    for (n = 0; group_may_retry(x->group);) n++;
    assert_int_equal(n, 2);
}

static void state_outlives_a_configuration_and_goes_with_the_last(void **state)
{
    struct fixture *x = *state;
    struct snap_server servers[2] = { x->servers[1], x->servers[0] }; /* in another order */
    struct snap_upstream u = x->u;
    struct seat a = { .group = NULL };
    struct fleet_group_stats g;
    struct fleet_server_stats s[2];
    u.servers = servers;
    assert_int_equal(take(x, &a), BALANCE_OK);
    size_t bad = a.server;
    seat_failed(&a, "broken");
    assert_int_equal(x->last, FLEET_EJECTED);
    struct group *next = group_new(x->fleet, &u);
    group_stats(next, &g, s);
    assert_int_equal(s[1 - bad].bar, HEALTH_EJECTED);
    assert_int_equal(s[1 - bad].active, 1);
    assert_int_equal(s[bad].bar, HEALTH_FIT);
    group_free(next);
    servers[1 - bad].url = STR("http://elsewhere"); /* another address is another server */
    next = group_new(x->fleet, &u);
    group_stats(next, &g, s);
    assert_int_equal(s[1 - bad].bar, HEALTH_FIT);
    assert_int_equal(s[1 - bad].active, 0);
    group_free(next);
    seat_leave(&a);
}

/* --- several threads --- */

enum { THREADS = 4, TURNS = 20000 };

static void *come_and_go(void *ctx)
{
    struct fixture *x = ctx;
    for (int i = 0; i < TURNS; i++) {
        struct seat s = { .group = NULL };
        if (take(x, &s) != BALANCE_OK) continue;
        if (i % 7 == 0)
            seat_failed(&s, "broken");
        else
            seat_succeeded(&s, x->clock.mono);
        seat_leave(&s);
    }
    return NULL;
}

static void workers_come_and_go_at_once(void **state)
{
    struct fixture *x = *state;
    pthread_t t[THREADS];
    struct fleet_group_stats g;
    struct fleet_server_stats s[2];
    x->u.eject.failures = 0;
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&t[i], NULL, come_and_go, x), 0);
    for (int i = 0; i < 200; i++) group_free(group_new(x->fleet, &x->u));
    for (int i = 0; i < THREADS; i++) assert_int_equal(pthread_join(t[i], NULL), 0);
    group_stats(x->group, &g, s);
    assert_int_equal(s[0].active + s[1].active, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(places_go_to_those_who_wait_in_order, setup, teardown),
        cmocka_unit_test_setup_teardown(time_makes_places_too, setup, teardown),
        cmocka_unit_test_setup_teardown(retries_are_a_share_of_the_requests, setup, teardown),
        cmocka_unit_test_setup_teardown(state_outlives_a_configuration_and_goes_with_the_last,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(workers_come_and_go_at_once, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
