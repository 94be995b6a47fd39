/* SPDX-License-Identifier: Apache-2.0 */
/* Every transition of one server's health. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "services/edge/upstreams/health.h"

#define MS UINT64_C(1000000)
enum { T0 = 1000000000 };

static struct snap_upstream rules(void)
{
    return (struct snap_upstream){
        .check = { .kind = SNAP_CHECK_HTTP, .healthy = 2, .unhealthy = 3 },
        .eject = { .failures = 3, .base_ms = 1000, .most_ms = 3000, .max_percent = 50 },
        .breaker = { .error_percent = 50,
                     .min_requests = 10,
                     .window_ms = 10000,
                     .open_ms = 2000,
                     .probes = 2 },
        .cooldown_max_ms = 60000,
        .slow_start_ms = 10000,
    };
}

static enum health_bar bar(const struct health *h, const struct snap_upstream *u, uint64_t now)
{
    uint64_t at;
    return health_look(h, u, now, &at);
}

static void checks_take_a_server_out_and_bring_it_back(void **state)
{
    (void)state;
    struct snap_upstream u = rules();
    struct health h;
    health_init(&h, 0);
    assert_int_equal(bar(&h, &u, T0), HEALTH_FIT); /* until something speaks against it */
    assert_int_equal(health_checked(&h, &u, true, T0), HEALTH_SAME);
    assert_int_equal(health_checked(&h, &u, false, T0), HEALTH_SAME);
    assert_int_equal(health_checked(&h, &u, false, T0), HEALTH_SAME);
    assert_int_equal(health_checked(&h, &u, true, T0), HEALTH_SAME); /* the row is broken */
    assert_int_equal(health_checked(&h, &u, false, T0), HEALTH_SAME);
    assert_int_equal(health_checked(&h, &u, false, T0), HEALTH_SAME);
    assert_int_equal(bar(&h, &u, T0), HEALTH_FIT);
    assert_int_equal(health_checked(&h, &u, false, T0), HEALTH_WENT_DOWN);
    assert_int_equal(bar(&h, &u, T0 + 3600000 * MS), HEALTH_DOWN); /* time alone does nothing */
    assert_int_equal(health_checked(&h, &u, false, T0), HEALTH_SAME);
    assert_int_equal(health_checked(&h, &u, true, T0), HEALTH_SAME);
    assert_int_equal(health_checked(&h, &u, true, T0 + MS), HEALTH_CAME_UP);
    assert_int_equal(bar(&h, &u, T0 + MS), HEALTH_FIT);
    assert_int_equal(health_share(&h, &u, T0 + MS), 100); /* slowly */
    u.check.kind = SNAP_CHECK_NONE;                       /* no checks any more: no verdict */
    h.checked = CHECK_DOWN;
    assert_int_equal(bar(&h, &u, T0), HEALTH_FIT);
}

static enum health_change failed(struct health *h, const struct snap_upstream *u, uint64_t now)
{
    return health_failed(h, u, 0, true, now);
}

static void failures_in_a_row_eject_for_longer_each_time(void **state)
{
    (void)state;
    struct snap_upstream u = rules();
    struct health h;
    uint64_t now = T0;
    u.breaker.error_percent = 0;
    health_init(&h, 0);
    assert_int_equal(failed(&h, &u, now), HEALTH_SAME);
    assert_int_equal(failed(&h, &u, now), HEALTH_SAME);
    assert_int_equal(health_succeeded(&h, &u, 0, now), HEALTH_SAME);
    assert_int_equal(failed(&h, &u, now), HEALTH_SAME);
    assert_int_equal(failed(&h, &u, now), HEALTH_SAME);
    assert_int_equal(failed(&h, &u, now), HEALTH_GOT_EJECTED);
    assert_int_equal(bar(&h, &u, now), HEALTH_EJECTED);
    assert_int_equal(failed(&h, &u, now), HEALTH_SAME); /* what was under way counts no more */
    assert_int_equal(bar(&h, &u, now + 999 * MS), HEALTH_EJECTED);
    now += 1000 * MS;
    assert_int_equal(bar(&h, &u, now), HEALTH_FIT);
    static const uint64_t waits[] = { 2000, 3000, 3000 };
    for (size_t i = 0; i < ARRAY_LEN(waits); i++) {
        assert_int_equal(failed(&h, &u, now), HEALTH_GOT_EJECTED); /* one is enough */
        assert_int_equal(bar(&h, &u, now + waits[i] * MS - 1), HEALTH_EJECTED);
        now += waits[i] * MS;
        assert_int_equal(bar(&h, &u, now), HEALTH_FIT);
    }
    assert_int_equal(health_succeeded(&h, &u, 0, now), HEALTH_SAME);
    assert_int_equal(failed(&h, &u, now), HEALTH_SAME); /* all is forgotten */
    assert_int_equal(failed(&h, &u, now), HEALTH_SAME);
    assert_int_equal(health_failed(&h, &u, 0, false, now), HEALTH_SAME); /* no room */
    assert_int_equal(bar(&h, &u, now), HEALTH_FIT);
    assert_int_equal(failed(&h, &u, now), HEALTH_GOT_EJECTED); /* now there is */
    u.eject.failures = 0;
    health_init(&h, 0);
    for (int i = 0; i < 100; i++) assert_int_equal(failed(&h, &u, now), HEALTH_SAME);
}

static void a_suspected_server_is_ejected_by_its_first_failure(void **state)
{
    (void)state;
    struct snap_upstream u = rules();
    struct health h;
    health_init(&h, 0);
    health_suspect(&h, T0);
    assert_int_equal(bar(&h, &u, T0), HEALTH_FIT); /* not on hearsay */
    assert_int_equal(failed(&h, &u, T0 + SUSPICION_MS * MS - 1), HEALTH_GOT_EJECTED);
    health_init(&h, 0);
    health_suspect(&h, T0);
    assert_int_equal(failed(&h, &u, T0 + SUSPICION_MS * MS), HEALTH_SAME); /* it is forgotten */
    health_init(&h, 0);
    health_suspect(&h, T0);
    assert_int_equal(health_succeeded(&h, &u, 0, T0), HEALTH_SAME);
    assert_int_equal(failed(&h, &u, T0 + 1), HEALTH_SAME); /* or disproved */
}

static void the_breaker_opens_by_rate_and_lets_probes_through(void **state)
{
    (void)state;
    struct snap_upstream u = rules();
    struct health h;
    uint64_t now = T0 * UINT64_C(100), at;
    u.eject.failures = 0;
    health_init(&h, 0);
    for (int i = 0; i < 5; i++) assert_int_equal(health_succeeded(&h, &u, 0, now), HEALTH_SAME);
    for (int i = 0; i < 4; i++)
        assert_int_equal(failed(&h, &u, now), HEALTH_SAME); /* 9 are too few */
    assert_int_equal(failed(&h, &u, now), HEALTH_BREAKER_OPENED);
    assert_int_equal(health_look(&h, &u, now, &at), HEALTH_OPEN);
    assert_true(at == now + 2000 * MS);
    assert_false(health_begin(&h, now)); /* as the last resort it may be asked, and tells nothing */
    assert_int_equal(health_succeeded(&h, &u, 0, now), HEALTH_SAME);
    assert_int_equal(bar(&h, &u, now), HEALTH_OPEN);
    now += 2000 * MS;
    assert_int_equal(bar(&h, &u, now), HEALTH_FIT);
    assert_true(health_begin(&h, now));
    assert_int_equal(h.breaker, BREAKER_HALF_OPEN);
    assert_int_equal(bar(&h, &u, now), HEALTH_FIT);
    assert_true(health_begin(&h, now));
    assert_int_equal(bar(&h, &u, now), HEALTH_OPEN); /* two probes at a time */
    health_probe_lost(&h, h.turn);                   /* its client left */
    assert_int_equal(bar(&h, &u, now), HEALTH_FIT);
    assert_true(health_begin(&h, now));
    assert_int_equal(health_succeeded(&h, &u, h.turn, now), HEALTH_SAME);
    assert_int_equal(health_failed(&h, &u, 0, true, now), HEALTH_SAME); /* of before */
    assert_int_equal(health_failed(&h, &u, h.turn, true, now), HEALTH_BREAKER_OPENED);
    assert_int_equal(bar(&h, &u, now + 3999 * MS), HEALTH_OPEN); /* twice as long */
    now += 4000 * MS;
    for (int i = 0; i < 2; i++) assert_true(health_begin(&h, now));
    assert_int_equal(health_succeeded(&h, &u, h.turn, now), HEALTH_SAME);
    assert_int_equal(health_succeeded(&h, &u, h.turn, now), HEALTH_BREAKER_CLOSED);
    assert_int_equal(bar(&h, &u, now), HEALTH_FIT);
    assert_false(health_begin(&h, now));
    assert_int_equal(health_share(&h, &u, now), 100);
    for (int i = 0; i < 9; i++)
        assert_int_equal(failed(&h, &u, now), HEALTH_SAME); /* from nothing */
    assert_int_equal(failed(&h, &u, now), HEALTH_BREAKER_OPENED);
    assert_int_equal(bar(&h, &u, now + 2000 * MS), HEALTH_FIT); /* the wait begins anew, too */
}

static void a_probe_of_an_earlier_opening_tells_nothing(void **state)
{
    (void)state;
    struct snap_upstream u = rules();
    struct health h;
    uint64_t now = T0 * UINT64_C(100);
    u.eject.failures = 0;
    u.breaker.min_requests = 1;
    health_init(&h, 0);
    assert_int_equal(failed(&h, &u, now), HEALTH_BREAKER_OPENED);
    now += 2000 * MS;
    unsigned late[3], probe[2];
    for (size_t i = 0; i < 2; i++) late[i] = health_begin(&h, now);
    health_probe_lost(&h, late[1]);
    late[2] = health_begin(&h, now);
    assert_int_equal(health_failed(&h, &u, late[1], true, now), HEALTH_BREAKER_OPENED);
    /* Two of then are still under way as the next two begin. */
    now += 4000 * MS;
    for (size_t i = 0; i < 2; i++) {
        probe[i] = health_begin(&h, now);
        assert_true(probe[i] != 0 && probe[i] != late[i]);
    }
    assert_int_equal(bar(&h, &u, now), HEALTH_OPEN);
    assert_int_equal(health_succeeded(&h, &u, late[0], now), HEALTH_SAME);
    assert_int_equal(h.probes, 2);
    assert_int_equal(h.probes_ok, 0);
    assert_int_equal(health_failed(&h, &u, late[2], true, now), HEALTH_SAME);
    health_probe_lost(&h, late[2]);
    assert_int_equal(h.breaker, BREAKER_HALF_OPEN);
    assert_int_equal(bar(&h, &u, now), HEALTH_OPEN); /* no third beside them */
    for (size_t i = 0; i < 2; i++)
        assert_int_equal(health_succeeded(&h, &u, probe[i], now),
                         i == 0 ? HEALTH_SAME : HEALTH_BREAKER_CLOSED);
    assert_int_equal(health_succeeded(&h, &u, late[2], now), HEALTH_SAME);
    assert_int_equal(h.breaker, BREAKER_CLOSED);
}

static void old_errors_leave_the_window(void **state)
{
    (void)state;
    struct snap_upstream u = rules();
    struct health h;
    uint64_t now = T0 * UINT64_C(100);
    u.eject.failures = 0;
    health_init(&h, 0);
    for (int i = 0; i < 9; i++) assert_int_equal(failed(&h, &u, now), HEALTH_SAME);
    now += 11000 * MS;
    for (int i = 0; i < 9; i++) assert_int_equal(failed(&h, &u, now), HEALTH_SAME);
    for (int i = 0; i < 9; i++) assert_int_equal(health_succeeded(&h, &u, 0, now), HEALTH_SAME);
    for (int i = 0; i < 9; i++) /* 49 % would be too few */
        assert_int_equal(health_succeeded(&h, &u, 0, now), HEALTH_SAME);
    for (int i = 0; i < 8; i++) assert_int_equal(failed(&h, &u, now), HEALTH_SAME);
    assert_int_equal(failed(&h, &u, now), HEALTH_BREAKER_OPENED); /* 18 of 36 */
}

static void waits_of_the_breaker_have_a_bound(void **state)
{
    (void)state;
    struct snap_upstream u = rules();
    struct health h;
    uint64_t now = T0 * UINT64_C(100), at;
    health_init(&h, 0);
    u.eject.failures = 0;
    u.breaker.min_requests = 1;
    assert_int_equal(failed(&h, &u, now), HEALTH_BREAKER_OPENED);
    for (int i = 0; i < 100; i++) {
        assert_int_equal(health_look(&h, &u, now, &at), HEALTH_OPEN);
        assert_true(at - now <= BREAKER_MOST_MS * MS);
        now = at;
        assert_true(health_begin(&h, now));
        assert_int_equal(health_failed(&h, &u, h.turn, true, now), HEALTH_BREAKER_OPENED);
    }
    assert_int_equal(health_look(&h, &u, now, &at), HEALTH_OPEN);
    assert_true(at - now == BREAKER_MOST_MS * MS);
}

static void a_later_longer_cool_down_counts_and_a_shorter_does_not(void **state)
{
    (void)state;
    struct snap_upstream u = rules();
    struct health h;
    uint64_t at;
    health_init(&h, 0);
    assert_true(health_cool(&h, &u, 5000, true, T0));
    assert_int_equal(health_look(&h, &u, T0, &at), HEALTH_COOLING);
    assert_true(at == T0 + 5000 * MS);
    assert_false(health_cool(&h, &u, 1000, true, T0));
    assert_false(health_cool(&h, &u, 0, true, T0));
    assert_int_equal(bar(&h, &u, T0 + 4999 * MS), HEALTH_COOLING);
    assert_true(health_cool(&h, &u, 20000, true, T0 + 1));
    assert_int_equal(bar(&h, &u, T0 + 5000 * MS), HEALTH_COOLING);
    assert_true(
        health_cool(&h, &u, UINT64_C(86400000), true, T0 + 2)); /* at most what is allowed */
    assert_int_equal(bar(&h, &u, T0 + 60000 * MS), HEALTH_COOLING);
    assert_int_equal(bar(&h, &u, T0 + 2 + 60000 * MS), HEALTH_FIT);
    u.cooldown_max_ms = 0;
    assert_false(health_cool(&h, &u, 5000, true, T0 + 90000 * MS)); /* not honoured */
}

static void what_came_back_gets_its_share_slowly(void **state)
{
    (void)state;
    struct snap_upstream u = rules();
    struct health h;
    health_init(&h, 0);
    assert_int_equal(health_share(&h, &u, T0), HEALTH_FULL); /* was always here */
    health_init(&h, T0);
    assert_int_equal(health_share(&h, &u, T0), 100);
    assert_int_equal(health_share(&h, &u, T0 + 500 * MS), 100);
    assert_int_equal(health_share(&h, &u, T0 + 5000 * MS), 500);
    assert_int_equal(health_share(&h, &u, T0 + 10000 * MS), HEALTH_FULL);
    for (int i = 0; i < 3; i++) (void)failed(&h, &u, T0 + 20000 * MS);
    assert_int_equal(health_share(&h, &u, T0 + 21000 * MS), 100); /* from when it is back */
    assert_int_equal(health_share(&h, &u, T0 + 26000 * MS), 500);
    u.slow_start_ms = 0;
    assert_int_equal(health_share(&h, &u, T0 + 21000 * MS), HEALTH_FULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(checks_take_a_server_out_and_bring_it_back),
        cmocka_unit_test(failures_in_a_row_eject_for_longer_each_time),
        cmocka_unit_test(a_suspected_server_is_ejected_by_its_first_failure),
        cmocka_unit_test(the_breaker_opens_by_rate_and_lets_probes_through),
        cmocka_unit_test(a_probe_of_an_earlier_opening_tells_nothing),
        cmocka_unit_test(old_errors_leave_the_window),
        cmocka_unit_test(waits_of_the_breaker_have_a_bound),
        cmocka_unit_test(a_later_longer_cool_down_counts_and_a_shorter_does_not),
        cmocka_unit_test(what_came_back_gets_its_share_slowly),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
