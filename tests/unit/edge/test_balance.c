/* SPDX-License-Identifier: Apache-2.0 */
/* Which server is chosen, by algorithm, priority, health, room and weight. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>

#include "services/edge/upstreams/balance.h"

#define MS UINT64_C(1000000)
enum { T0 = 1000000000, MOST = 8 };

struct fixture {
    struct snap_upstream u;
    struct snap_server servers[MOST];
    struct balance_server states[MOST], *pointers[MOST];
    struct balance_ask ask;
    struct rng_fake rng;
    char ids[MOST][32];
};

static void make(struct fixture *x, enum snap_balance how, size_t n)
{
    memset(x, 0, sizeof *x);
    rng_fake_init(&x->rng, 7);
    x->ask = (struct balance_ask){ .now = T0, .rng = &x->rng.rng };
    x->u = (struct snap_upstream){ .balance = how,
                                   .servers = x->servers,
                                   .servers_n = n,
                                   .hash.load_percent = 1000,
                                   .eject = { .failures = 1, .base_ms = 1000, .most_ms = 1000 },
                                   .breaker = { .probes = 1, .window_ms = 1000 },
                                   .cooldown_max_ms = 60000 };
    for (size_t i = 0; i < n; i++) {
        x->pointers[i] = &x->states[i];
        (void)snprintf(x->ids[i], sizeof x->ids[i], "server-%zu", i);
        x->servers[i].weight = 1;
        x->servers[i].enabled = true;
        x->states[i].seed = balance_seed(str_of(x->ids[i]));
    }
}

/* The server chosen; -1: full, -2: none. */
static int choose(struct fixture *x)
{
    size_t i = 99;
    uint64_t at = 0;
    enum balance_verdict v = balance_choose(&x->u, x->pointers, &x->ask, &i, &at);
    return v == BALANCE_OK ? (int)i : v == BALANCE_FULL ? -1 : -2;
}

static void tally(struct fixture *x, int n, int counts[MOST])
{
    memset(counts, 0, MOST * sizeof *counts);
    for (int i = 0; i < n; i++) {
        int k = choose(x);
        assert_true(k >= 0);
        counts[k]++;
    }
}

static void eject(struct fixture *x, size_t i)
{
    assert_int_equal(health_failed(&x->states[i].health, &x->u, 0, true, x->ask.now),
                     HEALTH_GOT_EJECTED);
}

static void cool(struct fixture *x, size_t i, uint64_t ms)
{
    assert_true(health_cool(&x->states[i].health, &x->u, ms, true, x->ask.now));
}

static void round_robin_goes_round_whatever_the_weights(void **state)
{
    (void)state;
    struct fixture x;
    make(&x, SNAP_ROUND_ROBIN, 3);
    x.servers[0].weight = 10;
    for (int round = 0; round < 4; round++) {
        unsigned seen = 0;
        for (int i = 0; i < 3; i++) seen |= 1u << choose(&x);
        assert_int_equal(seen, 7);
    }
    x.servers[1].enabled = false;
    for (int i = 0; i < 6; i++) assert_int_not_equal(choose(&x), 1);
}

static void weighted_round_robin_is_exact_and_smooth(void **state)
{
    (void)state;
    struct fixture x;
    int counts[MOST], row = 0, last = -1;
    make(&x, SNAP_WEIGHTED_ROUND_ROBIN, 3);
    x.servers[0].weight = 5, x.servers[1].weight = 1, x.servers[2].weight = 1;
    tally(&x, 700, counts);
    assert_int_equal(counts[0], 500);
    assert_int_equal(counts[1], 100);
    assert_int_equal(counts[2], 100);
    for (int i = 0; i < 70; i++) {
        int k = choose(&x);
        row = k == last ? row + 1 : 1;
        last = k;
        assert_true(row <= 4); /* not five, one, one */
    }
}

static void random_follows_the_weights(void **state)
{
    (void)state;
    struct fixture x;
    int counts[MOST];
    make(&x, SNAP_RANDOM, 2);
    x.servers[0].weight = 3;
    tally(&x, 10000, counts);
    assert_in_range(counts[0], 7300, 7700);
}

static void least_requests_prefers_the_free_and_the_heavy(void **state)
{
    (void)state;
    struct fixture x;
    int counts[MOST];
    make(&x, SNAP_LEAST_REQUESTS, 3);
    x.states[0].active = 10, x.states[1].active = 5, x.states[2].active = 1;
    tally(&x, 3000, counts);
    assert_int_equal(counts[0], 0); /* loses each comparison */
    assert_in_range(counts[1], 900, 1100);
    x.servers[0].weight = 20; /* 11/20 is less than 2/1 */
    tally(&x, 3000, counts);
    assert_in_range(counts[0], 1900, 2100);
    make(&x, SNAP_LEAST_REQUESTS, 4);
    for (int i = 0; i < 4000; i++) x.states[choose(&x)].active++;
    for (int i = 0; i < 4; i++) assert_in_range(x.states[i].active, 995, 1005);
}

static void keys(struct fixture *x, int n, int where[])
{
    for (int i = 0; i < n; i++) {
        x->ask.hash = balance_hash(str_n((const char *)&i, sizeof i));
        where[i] = choose(x);
    }
}

static void a_key_stays_with_its_server_whoever_else_comes_and_goes(void **state)
{
    (void)state;
    static int before[10000], now[10000];
    struct fixture x;
    int counts[MOST] = { 0 };
    make(&x, SNAP_HASH, 5);
    keys(&x, 10000, before);
    for (int i = 0; i < 10000; i++) counts[before[i]]++;
    for (int k = 0; k < 5; k++) assert_in_range(counts[k], 1850, 2150);
    cool(&x, 2, 1000);
    keys(&x, 10000, now);
    for (int i = 0; i < 10000; i++) {
        if (before[i] == 2)
            assert_int_not_equal(now[i], 2);
        else
            assert_int_equal(now[i], before[i]);
    }
    x.ask.now += 1000 * MS; /* it is back: all is as it was */
    keys(&x, 10000, now);
    assert_memory_equal(now, before, sizeof now);
    make(&x, SNAP_HASH, 6); /* a sixth server takes a sixth of each, and nothing else moves */
    keys(&x, 10000, now);
    int moved = 0;
    for (int i = 0; i < 10000; i++) {
        if (now[i] == before[i]) continue;
        assert_int_equal(now[i], 5);
        moved++;
    }
    assert_in_range(moved, 1550, 1780);
    make(&x, SNAP_HASH, 2); /* by weight */
    x.servers[0].weight = 3;
    keys(&x, 10000, now);
    memset(counts, 0, sizeof counts);
    for (int i = 0; i < 10000; i++) counts[now[i]]++;
    assert_in_range(counts[0], 7300, 7700);
}

static void a_hot_key_overflows_to_the_next_of_its_own(void **state)
{
    (void)state;
    struct fixture x;
    make(&x, SNAP_HASH, 4);
    x.u.hash.load_percent = 150;
    x.ask.hash = balance_hash(STR("hot"));
    int first = choose(&x);
    for (int i = 0; i < 400; i++) x.states[choose(&x)].active++;
    for (int k = 0; k < 4; k++) assert_true(x.states[k].active <= 151);
    assert_true(x.states[first].active >= 148); /* what it may have, the others less */
    x.ask.hash = 0;                             /* without a key: wherever there is room */
    for (int i = 0; i < 40; i++) assert_in_range(choose(&x), 0, 3);
}

static void the_hash_is_the_same_on_every_edge(void **state)
{
    (void)state;
    /* Written down once: another value sends every key elsewhere while edges are updated. */
    assert_true(balance_hash(STR("conversation-1")) == UINT64_C(5536288982457386798));
    assert_true(balance_seed(STR("server-1")) == UINT64_C(6780248765738457855));
    assert_true(balance_hash(STR("")) != 0);
}

static void later_priorities_serve_when_nobody_before_can(void **state)
{
    (void)state;
    struct fixture x;
    make(&x, SNAP_ROUND_ROBIN, 4);
    x.servers[2].priority = 1, x.servers[3].priority = 7;
    for (int i = 0; i < 10; i++) assert_in_range(choose(&x), 0, 1);
    cool(&x, 0, 1000);
    for (int i = 0; i < 10; i++) assert_int_equal(choose(&x), 1);
    x.servers[1].max_requests = 1, x.states[1].active = 1; /* full: over to the next */
    for (int i = 0; i < 10; i++) assert_int_equal(choose(&x), 2);
    cool(&x, 2, 1000);
    for (int i = 0; i < 10; i++) assert_int_equal(choose(&x), 3);
    x.states[1].active = 0;
    for (int i = 0; i < 10; i++) assert_int_equal(choose(&x), 1); /* and back */
}

static void what_was_tried_is_left_out(void **state)
{
    (void)state;
    struct fixture x;
    make(&x, SNAP_ROUND_ROBIN, 3);
    balance_mark_tried(x.ask.tried, 0);
    balance_mark_tried(x.ask.tried, 2);
    for (int i = 0; i < 5; i++) assert_int_equal(choose(&x), 1);
    balance_mark_tried(x.ask.tried, 1);
    assert_int_equal(choose(&x), -2);
}

static void full_servers_are_not_the_same_as_none(void **state)
{
    (void)state;
    struct fixture x;
    uint64_t at = 0;
    size_t i;
    make(&x, SNAP_LEAST_REQUESTS, 2);
    x.servers[0].max_requests = x.servers[1].max_requests = 2;
    x.states[0].active = x.states[1].active = 2;
    assert_int_equal(choose(&x), -1);
    cool(&x, 0, 3000);
    assert_int_equal(choose(&x), -1);
    cool(&x, 1, 5000);
    assert_int_equal(balance_choose(&x.u, x.pointers, &x.ask, &i, &at), BALANCE_LIMITED);
    assert_true(at == T0 + 3000 * MS); /* when it is worth coming back */
    assert_true(health_cool(&x.states[0].health, &x.u, 4000, false, x.ask.now));
    assert_int_equal(balance_choose(&x.u, x.pointers, &x.ask, &i, &at), BALANCE_NONE);
    assert_true(at == T0 + 4000 * MS); /* for one that is overloaded, not limited */
}

static void the_ejected_are_better_than_nobody(void **state)
{
    (void)state;
    struct fixture x;
    make(&x, SNAP_ROUND_ROBIN, 2);
    eject(&x, 0);
    for (int i = 0; i < 5; i++) assert_int_equal(choose(&x), 1);
    cool(&x, 1, 1000);
    for (int i = 0; i < 5; i++) assert_int_equal(choose(&x), 0);
    cool(&x, 0, 1000); /* but not what asked to be left alone */
    assert_int_equal(choose(&x), -2);
}

static void the_ejected_keep_their_order_and_their_bounds(void **state)
{
    (void)state;
    struct fixture x;
    make(&x, SNAP_ROUND_ROBIN, 3);
    x.servers[2].priority = 1;
    for (size_t i = 0; i < 3; i++) eject(&x, i);
    for (int i = 0; i < 10; i++) assert_in_range(choose(&x), 0, 1);
    x.servers[0].max_requests = x.servers[1].max_requests = 1;
    x.states[0].active = 1;
    for (int i = 0; i < 5; i++) assert_int_equal(choose(&x), 1);
    x.states[1].active = 1;
    for (int i = 0; i < 5; i++) assert_int_equal(choose(&x), 2);
    x.servers[2].max_requests = 1, x.states[2].active = 1;
    assert_int_equal(choose(&x), -1); /* worth a wait, unlike none */
    x.states[0].active = 0;
    assert_int_equal(choose(&x), 0);
}

static void the_share_of_ejected_servers_is_bounded(void **state)
{
    (void)state;
    struct fixture x;
    make(&x, SNAP_ROUND_ROBIN, 5);
    x.u.eject.max_percent = 50;
    for (size_t out = 0; out < 2; out++) {
        assert_true(balance_may_eject(&x.u, x.pointers, x.ask.now));
        eject(&x, out);
    }
    assert_false(balance_may_eject(&x.u, x.pointers, x.ask.now)); /* 3 of 5 */
    assert_true(balance_may_eject(&x.u, x.pointers, x.ask.now + 1000 * MS));
    x.u.servers_n = 1; /* the only one never goes */
    x.states[0].health = (struct health){ 0 };
    assert_false(balance_may_eject(&x.u, x.pointers, x.ask.now));
    x.u.eject.max_percent = 100;
    assert_true(balance_may_eject(&x.u, x.pointers, x.ask.now));
}

static void one_that_came_back_starts_slowly(void **state)
{
    (void)state;
    static const enum snap_balance hows[] = { SNAP_ROUND_ROBIN, SNAP_WEIGHTED_ROUND_ROBIN,
                                              SNAP_RANDOM };
    for (size_t h = 0; h < ARRAY_LEN(hows); h++) {
        struct fixture x;
        int counts[MOST];
        make(&x, hows[h], 2);
        x.u.slow_start_ms = 10000;
        health_init(&x.states[1].health, T0);
        tally(&x, 1100, counts);
        assert_in_range(counts[1], 70, 130); /* a tenth of the other's */
        x.ask.now = T0 + 5000 * MS;
        tally(&x, 1500, counts);
        assert_in_range(counts[1], 440, 560);
        x.ask.now = T0 + 10000 * MS;
        tally(&x, 1000, counts);
        assert_in_range(counts[1], 440, 560);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(round_robin_goes_round_whatever_the_weights),
        cmocka_unit_test(weighted_round_robin_is_exact_and_smooth),
        cmocka_unit_test(random_follows_the_weights),
        cmocka_unit_test(least_requests_prefers_the_free_and_the_heavy),
        cmocka_unit_test(a_key_stays_with_its_server_whoever_else_comes_and_goes),
        cmocka_unit_test(a_hot_key_overflows_to_the_next_of_its_own),
        cmocka_unit_test(the_hash_is_the_same_on_every_edge),
        cmocka_unit_test(later_priorities_serve_when_nobody_before_can),
        cmocka_unit_test(what_was_tried_is_left_out),
        cmocka_unit_test(full_servers_are_not_the_same_as_none),
        cmocka_unit_test(the_ejected_are_better_than_nobody),
        cmocka_unit_test(the_ejected_keep_their_order_and_their_bounds),
        cmocka_unit_test(the_share_of_ejected_servers_is_bounded),
        cmocka_unit_test(one_that_came_back_starts_slowly),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
