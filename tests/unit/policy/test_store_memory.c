/* SPDX-License-Identifier: Apache-2.0 */
/* Counters in memory: bounded, of one epoch, and only as long as the claim lasts. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka wants the four above first */
#include <cmocka.h>
#include <stdio.h>

#include "services/policy/store.h"

#define MS UINT64_C(1000000)

static const struct ledger_rule five = { LEDGER_SLIDING, 5, 0, 10000000, 500000, 0 };
static struct store *store;
static struct clock_fake fake;
static char epoch[LEASE_ID_MAX + 1];

static int setup(void **state)
{
    (void)state;
    clock_fake_init(&fake, 1000000 * MS, 1000000 * MS);
    store = store_memory_new(&fake.clock, 32);
    epoch[0] = '\0';
    return 0;
}
static int teardown(void **state)
{
    (void)state;
    store_free(store);
    return 0;
}

static struct lease_result serve(const char *key, enum lease_op_kind kind, const char *lease,
                                 uint64_t known, uint64_t want)
{
    struct lease_op op = { .kind = kind,
                           .policy = STR("p"),
                           .key = str_of(key),
                           .lease = str_of(lease),
                           .known = known,
                           .want = want,
                           .min = 1 };
    struct store_item item = { .op = &op, .rule = &five };
    struct why why;
    if (store_serve(store, str_of(epoch), &item, 1, epoch, &why) != ERR_OK)
        item.result.status = LEASE_UNAVAILABLE;
    return item.result;
}

static void it_serves_nothing_without_an_epoch_or_beyond_the_claim(void **state)
{
    (void)state;
    assert_int_equal(serve("k", LEASE_ASK, "a", 0, 1).status, LEASE_UNAVAILABLE);
    store_memory_begin(store, "e1", true);
    assert_int_equal(serve("k", LEASE_ASK, "a", 0, 1).status, LEASE_GRANTED);
    store_memory_until(store, fake.mono + 100 * MS);
    clock_fake_advance(&fake, 99 * MS);
    assert_int_equal(serve("k", LEASE_RENEW, "a", 1, 0).status, LEASE_GRANTED);
    clock_fake_advance(&fake, MS);
    assert_int_equal(serve("k", LEASE_RENEW, "a", 1, 0).status, LEASE_UNAVAILABLE);
    /* the claim is renewed late: nobody else had it, so the epoch goes on */
    store_memory_until(store, fake.mono + 100 * MS);
    assert_int_equal(serve("k", LEASE_RENEW, "a", 1, 0).status, LEASE_GRANTED);
    store_memory_end(store);
    assert_int_equal(serve("k", LEASE_RENEW, "a", 1, 0).status, LEASE_UNAVAILABLE);
}

static void a_new_epoch_warms_and_begins_empty(void **state)
{
    (void)state;
    store_memory_begin(store, "e1", true);
    assert_int_equal(serve("k", LEASE_ASK, "a", 0, 1).granted, 1);
    store_memory_begin(store, "e2", false);
    assert_int_equal(serve("k", LEASE_RENEW, "a", 1, 0).status, LEASE_STALE_EPOCH);
    assert_string_equal(epoch, "e2");
    assert_int_equal(serve("k", LEASE_ASK, "b", 0, 1).status, LEASE_WARMING);
    clock_fake_advance(&fake, LEASE_TTL_MS * MS);
    struct lease_result r = serve("k", LEASE_ASK, "b", 0, 1);
    assert_int_equal(r.status, LEASE_REFUSED);
    assert_int_equal(r.retry_ms, 10000);
    clock_fake_advance(&fake, 10000 * MS);
    assert_int_equal(serve("k", LEASE_ASK, "b", 0, 5).granted, 5);
}

static void idle_counters_make_room_and_used_ones_do_not(void **state)
{
    struct store_status s;
    char key[16];
    (void)state;
    store_memory_begin(store, "e1", true);
    for (int i = 0; i < 40; i++) { /* all in use */
        snprintf(key, sizeof key, "k%d", i);
        serve(key, LEASE_ASK, key, 0, 1);
    }
    store_status(store, &s);
    assert_int_equal(s.counters, 31); /* 30, and the one for all others */
    assert_int_equal(s.overflows, 10);
    assert_int_equal(serve("k35", LEASE_ASK, "x", 0, 1).status, LEASE_REFUSED);
    assert_int_equal(serve("k3", LEASE_ASK, "x", 0, 1).status, LEASE_GRANTED);
    /* after the window nothing is left of them */
    clock_fake_advance(&fake, 20000 * MS);
    assert_int_equal(serve("new", LEASE_ASK, "x", 0, 1).status, LEASE_GRANTED);
    store_status(store, &s);
    assert_true(s.evictions >= 1);
    clock_fake_advance(&fake, 120000 * MS);
    store_tick(store);
    store_status(store, &s);
    assert_int_equal(s.counters, 0);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(it_serves_nothing_without_an_epoch_or_beyond_the_claim),
        T(a_new_epoch_warms_and_begins_empty),
        T(idle_counters_make_room_and_used_ones_do_not),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
