/* SPDX-License-Identifier: Apache-2.0 */
/* Quotas in memory: nothing granted is forgotten by a crash, what is lost is not guessed, and the
 * usage ledger says what was used. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka wants the four above first */
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "services/policy/rebuild.h"
#include "services/policy/store.h"

#define NOW_NS UINT64_C(1800000000000000000)
#define HOUR_US UINT64_C(3600000000)

static char folder[64], path[96], epoch[LEASE_ID_MAX + 1];
static struct clock_fake fake;
static struct marks *marks;
static struct store *store;
static struct ledger_rule quota = { .kind = LEDGER_FIXED, .limit = 1000, .lease_us = 2000000 };

static struct ledger_window window(void)
{
    uint64_t now = fake.wall / 1000, begin = now - now % (24 * HOUR_US);
    return (struct ledger_window){ begin, begin + 24 * HOUR_US, begin + 24 * HOUR_US - now };
}

/* The process begins (again), as the successor of itself. */
static void begin(bool first)
{
    struct why why = { "" };
    store_free(store);
    marks_free(marks);
    if (marks_open(folder, 64, &fake.clock, rng_system(), &marks, &why) != ERR_OK)
        fail_msg("%s", why.text);
    store = store_memory_new(&fake.clock, 64);
    store_memory_keep(store, marks);
    store_memory_begin(store, first ? "e1" : "e2", first);
    clock_fake_advance(&fake, first ? 0 : 3 * UINT64_C(1000000000));
}

static int setup(void **state)
{
    (void)state;
    (void)str_copyz(folder, sizeof folder, STR("/tmp/aigw-quota-XXXXXX"));
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/quotas.marks", folder);
    clock_fake_init(&fake, 1000000000000, NOW_NS);
    epoch[0] = '\0';
    store = NULL;
    marks = NULL;
    quota.limit = 1000;
    begin(true);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    store_free(store);
    marks_free(marks);
    (void)remove(path);
    (void)rmdir(folder);
    return 0;
}

static struct store_item serve(const char *lease, enum lease_op_kind kind, uint64_t known,
                               uint64_t want, uint64_t spent)
{
    struct lease_op op = { .kind = kind,
                           .policy = STR("p"),
                           .key = STR("ns=a"),
                           .lease = str_of(lease),
                           .known = known,
                           .want = want,
                           .min = 1,
                           .spent = spent };
    struct store_item item = {
        .op = &op, .rule = &quota, .window = window(), .unit = 't', .durable = true
    };
    struct why why;
    if (store_serve(store, str_of(epoch), &item, 1, epoch, &why) != ERR_OK)
        item.result.status = LEASE_UNAVAILABLE;
    item.op = NULL;
    return item;
}

static struct store_counter counter(void)
{
    return (struct store_counter){ .policy = STR("p"),
                                   .key = STR("ns=a"),
                                   .unit = 't',
                                   .durable = true,
                                   .rule = &quota,
                                   .window = window() };
}

static void on_view(void *ctx, const struct store_view *v)
{
    *(struct store_view *)ctx = *v;
}

static struct store_view look(void)
{
    struct store_view v = { .limit = 0 };
    struct store_counter c = counter();
    char next[STORE_CURSOR_LEN];
    struct why why = { "" };
    c.key = STR_NULL;
    if (store_look(store, &c, "", 10, on_view, &v, next, &why) != ERR_OK) fail_msg("%s", why.text);
    return v;
}

static void a_crash_costs_what_was_held_and_a_little(void **state)
{
    (void)state;
    assert_int_equal(serve("a", LEASE_ASK, 0, 300, 0).result.granted, 300);
    assert_int_equal(serve("a", LEASE_SETTLE, 300, 0, 200).result.status, LEASE_GRANTED);
    begin(false);
    struct store_view v = look();
    assert_true(v.used >= 300 && v.used <= 300 + 1000 / MARKS_AHEAD);
    uint64_t left = v.left;
    assert_int_equal(serve("b", LEASE_ASK, 0, 1000, 0).result.granted, left);
    assert_int_equal(serve("c", LEASE_ASK, 0, 1, 0).result.status, LEASE_REFUSED);
}

static void crashes_without_end_never_grant_more_than_the_quota(void **state)
{
    (void)state;
    uint64_t granted = 0;
    quota.limit = 100; /* exact */
    for (int i = 0; i < 40; i++) {
        char lease[16];
        snprintf(lease, sizeof lease, "l%d", i);
        struct store_item r = serve(lease, LEASE_ASK, 0, 7, 0);
        if (r.result.status == LEASE_GRANTED) granted += r.result.granted;
        begin(false);
    }
    assert_int_equal(granted, 100);
}

static void an_orderly_stop_costs_nothing(void **state)
{
    (void)state;
    assert_int_equal(serve("a", LEASE_ASK, 0, 300, 0).result.granted, 300);
    assert_int_equal(serve("a", LEASE_SETTLE, 300, 0, 200).result.status, LEASE_GRANTED);
    clock_fake_advance(&fake, UINT64_C(3000000000));
    store_memory_settle(store); /* the lease has ended: it counts as spent */
    begin(false);
    assert_int_equal(look().used, 300);
}

static void the_next_window_begins_unused(void **state)
{
    (void)state;
    assert_int_equal(serve("a", LEASE_ASK, 0, 1000, 0).result.granted, 1000);
    begin(false);
    assert_int_equal(serve("b", LEASE_ASK, 0, 1, 0).result.status, LEASE_REFUSED);
    clock_fake_advance(&fake, 24 * HOUR_US * 1000);
    assert_int_equal(serve("c", LEASE_ASK, 0, 1000, 0).result.granted, 1000);
}

static void what_was_lost_waits_to_be_seeded(void **state)
{
    (void)state;
    struct why why = { "" };
    struct store_counter c = counter();
    assert_int_equal(serve("a", LEASE_ASK, 0, 300, 0).result.granted, 300);
    assert_int_equal(store_memory_lose(store, &why), ERR_OK);
    store_memory_begin(store, "e3", false);
    clock_fake_advance(&fake, UINT64_C(3000000000));
    struct store_item r = serve("b", LEASE_ASK, 0, 1, 0);
    assert_true(r.lost);
    assert_int_equal(r.result.status, LEASE_WARMING);
    begin(false); /* the loss is remembered */
    assert_true(serve("b", LEASE_ASK, 0, 1, 0).lost);
    assert_int_equal(store_seed(store, &c, 990, &why), ERR_OK);
    assert_int_equal(serve("b", LEASE_ASK, 0, 50, 0).result.granted, 10);
    assert_int_equal(store_seed(store, &c, 0, &why), ERR_OK); /* too late: it is there */
    assert_int_equal(serve("c", LEASE_ASK, 0, 1, 0).result.status, LEASE_REFUSED);
    /* windows that began after the loss are not touched by it */
    clock_fake_advance(&fake, 24 * HOUR_US * 1000);
    assert_int_equal(serve("d", LEASE_ASK, 0, 5, 0).result.granted, 5);
}

static void a_reset_is_remembered(void **state)
{
    (void)state;
    struct why why = { "" };
    struct store_counter c = counter();
    size_t n = 0;
    assert_int_equal(serve("a", LEASE_ASK, 0, 1000, 0).result.granted, 1000);
    clock_fake_advance(&fake, UINT64_C(3000000000));
    assert_int_equal(store_reset(store, &c, &n, &why), ERR_OK);
    assert_int_equal(n, 1);
    begin(false);
    assert_int_equal(look().used, 0);
    assert_int_equal(serve("b", LEASE_ASK, 0, 1000, 0).result.granted, 1000);
}

static void the_ledger_says_what_was_used(void **state)
{
    (void)state;
    static const char reply[] =
        "{\"v\":1,\"id\":\"x\",\"ts\":\"2026-11-23T02:27:53.390Z\",\"from\":\"m\",\"result\":{"
        "\"groups\":[{\"outcome\":\"ok\",\"requests\":3,\"input_tokens\":10,\"output_tokens\":20,"
        "\"cost\":[{\"currency\":\"USD\",\"nano\":7},{\"currency\":\"EUR\",\"nano\":1}]},"
        "{\"outcome\":\"cut\",\"requests\":1,\"input_tokens\":1,\"output_tokens\":2,\"cost\":[]},"
        "{\"outcome\":\"rejected\",\"requests\":9,\"input_tokens\":90,\"output_tokens\":0}]}}";
    static const struct {
        char unit;
        uint64_t want;
    } rows[] = { { 'r', 4 }, { 'i', 11 }, { 'o', 22 }, { 't', 33 }, { 'c', 7 } };
    struct why why = { "" };
    uint64_t used = 0;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct rule r = { .unit = rows[i].unit, .currency = "USD", .ledger = { .limit = 150 } };
        assert_int_equal(rebuild_answer(&r, str_of(reply), 0, &used, &why), ERR_OK);
        assert_int_equal(used, rows[i].want);
        assert_int_equal(rebuild_answer(&r, str_of(reply), 1, &used, &why), ERR_OK);
        assert_int_equal(used, rows[i].want + 2); /* 1.5, rounded up */
    }
    struct rule r = { .unit = 'r', .ns = "n9" };
    struct metrics_query q;
    struct ledger_window w = { .begin = 5000000 };
    rebuild_ask(&r, STR("ns=n1;key=k1;user=h:00"), &w, &q);
    assert_true(str_eqz(q.filter[METRICS_DIM_NAMESPACE], "n1"));
    assert_true(str_eqz(q.filter[METRICS_DIM_KEY], "k1"));
    assert_int_equal(q.from_ms, 5000);
    rebuild_ask(&r, STR("key=-"), &w, &q);
    assert_true(str_eqz(q.filter[METRICS_DIM_NAMESPACE], "n9"));
    assert_null(q.filter[METRICS_DIM_KEY].p);
    assert_int_not_equal(rebuild_answer(&r, STR("{\"v\":1}"), 1, &used, &why), ERR_OK);
    assert_int_not_equal(rebuild_answer(&r, STR("nonsense"), 1, &used, &why), ERR_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_crash_costs_what_was_held_and_a_little, setup, teardown),
        cmocka_unit_test_setup_teardown(crashes_without_end_never_grant_more_than_the_quota, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(an_orderly_stop_costs_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(the_next_window_begins_unused, setup, teardown),
        cmocka_unit_test_setup_teardown(what_was_lost_waits_to_be_seeded, setup, teardown),
        cmocka_unit_test_setup_teardown(a_reset_is_remembered, setup, teardown),
        cmocka_unit_test(the_ledger_says_what_was_used),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
