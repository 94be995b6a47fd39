/* SPDX-License-Identifier: Apache-2.0 */
/* How much of the edge clients may have. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <arpa/inet.h>
#include <cmocka.h>

#include "services/edge/net/guard.h"

enum { PLENTY = 1 << 20 };

static struct sockaddr_storage address(const char *text)
{
    struct sockaddr_storage a = { 0 };
    struct sockaddr_in *v4 = (void *)&a;
    struct sockaddr_in6 *v6 = (void *)&a;
    if (inet_pton(AF_INET, text, &v4->sin_addr) == 1) {
        v4->sin_family = AF_INET;
    } else {
        assert_int_equal(inet_pton(AF_INET6, text, &v6->sin6_addr), 1);
        v6->sin6_family = AF_INET6;
    }
    return a;
}

static uint64_t connections(const struct guard *g)
{
    struct guard_stats s;
    guard_stats(g, &s);
    return s.connections;
}

static void connections_in_all(void **state)
{
    (void)state;
    struct sockaddr_storage a = address("203.0.113.1");
    struct guard *g = guard_new(3, 0, 0, PLENTY);
    for (int i = 0; i < 3; i++) assert_int_equal(guard_enter(g, &a), GUARD_IN);
    assert_int_equal(guard_enter(g, &a), GUARD_FULL);
    assert_int_equal(connections(g), 3);
    guard_leave(g, GUARD_FULL, &a);
    guard_leave(g, GUARD_IN, &a);
    assert_int_equal(guard_enter(g, &a), GUARD_IN);
    assert_int_equal(guard_enter(g, &a), GUARD_FULL);
    guard_free(g);
}

static void only_so_many_are_told(void **state)
{
    (void)state;
    struct guard_stats s;
    struct sockaddr_storage a = address("203.0.113.1");
    struct guard *g = guard_new(1, 0, 0, PLENTY);
    assert_int_equal(guard_enter(g, &a), GUARD_IN);
    for (int i = 0; i < GUARD_TOLD_MAX; i++) assert_int_equal(guard_enter(g, &a), GUARD_FULL);
    for (int i = 0; i < 5; i++) {
        assert_int_equal(guard_enter(g, &a), GUARD_SHUT);
        guard_leave(g, GUARD_SHUT, &a);
    }
    guard_leave(g, GUARD_FULL, &a);
    assert_int_equal(guard_enter(g, &a), GUARD_FULL);
    guard_stats(g, &s);
    assert_int_equal(s.connections, 1);
    assert_int_equal(s.full, GUARD_TOLD_MAX + 1);
    assert_int_equal(s.shut, 5);
    guard_free(g);
}

static void addresses_have_shares(void **state)
{
    (void)state;
    static const struct {
        const char *one, *other;
        bool same;
    } rows[] = {
        { "203.0.113.1", "203.0.113.2", false },
        { "203.0.113.1", "::ffff:203.0.113.1", true }, /* the same client, over another socket */
        { "2001:db8:0:1::1", "2001:db8:0:1:ffff::2", true }, /* a network is one client */
        { "2001:db8:0:1::1", "2001:db8:0:2::1", false },
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct sockaddr_storage one = address(rows[i].one), other = address(rows[i].other);
        struct guard *g = guard_new(100, 2, 0, PLENTY);
        assert_int_equal(guard_enter(g, &one), GUARD_IN);
        assert_int_equal(guard_enter(g, &one), GUARD_IN);
        assert_int_equal(guard_enter(g, &one), GUARD_ADDRESS);
        assert_int_equal(guard_enter(g, &other), rows[i].same ? GUARD_ADDRESS : GUARD_IN);
        assert_int_equal(connections(g), rows[i].same ? 2 : 3);
        guard_leave(g, GUARD_IN, &one);
        assert_int_equal(guard_enter(g, &one), GUARD_IN);
        guard_free(g);
    }
}

/* An address that is not known yet (a PROXY header will tell) has no share. */
static void unknown_addresses_are_not_counted(void **state)
{
    (void)state;
    struct sockaddr_storage none = { .ss_family = AF_UNSPEC };
    struct guard *g = guard_new(10, 1, 0, PLENTY);
    for (int i = 0; i < 10; i++) assert_int_equal(guard_enter(g, &none), GUARD_IN);
    assert_int_equal(guard_enter(g, &none), GUARD_FULL);
    for (int i = 0; i < 10; i++) guard_leave(g, GUARD_IN, &none);
    assert_int_equal(connections(g), 0);
    guard_free(g);
}

static void descriptors_bound_connections(void **state)
{
    (void)state;
    static const uint64_t limits[] = { 0, 1, 16, 64, 256, 1024, 20000, UINT64_MAX };
    for (size_t i = 0; i < ARRAY_LEN(limits); i++) {
        struct sockaddr_storage a = address("203.0.113.1");
        struct guard *g = guard_new(60000, 0, 0, limits[i]);
        uint64_t most = guard_connections_max(g), in = 0, told = 0;
        for (enum guard_verdict v; (v = guard_enter(g, &a)) != GUARD_SHUT;)
            *(v == GUARD_IN ? &in : &told) += 1;
        assert_int_equal(in, most);
        assert_true(most >= 1 && most <= 60000 && told <= GUARD_TOLD_MAX);
        /* Each has one for its upstream, and something is left. */
        if (limits[i] >= 16)
            assert_true(2 * in + told <= limits[i] - MIN(limits[i] / 2, UINT64_C(128)));
        guard_free(g);
    }
}

static void memory_is_moved_in_steps(void **state)
{
    (void)state;
    struct guard_stats s;
    struct guard_share one = { 0 }, two = { 0 };
    struct guard *g = guard_new(10, 0, 3 * GUARD_STEP, PLENTY), *open = guard_new(10, 0, 0, PLENTY);
    guard_move(g, &one, GUARD_STEP - 1);
    guard_stats(g, &s);
    assert_int_equal(s.memory, 0);
    guard_move(g, &one, 1);
    guard_move(g, &two, 3 * GUARD_STEP);
    guard_stats(g, &s);
    assert_int_equal(s.memory, 4 * GUARD_STEP);
    assert_true(guard_is_full(g));
    guard_note_shed(g);
    guard_move(g, &two, -2 * GUARD_STEP);
    assert_false(guard_is_full(g));
    /* What one worker frees of another's may show first. */
    guard_move(g, &one, -5 * GUARD_STEP);
    guard_stats(g, &s);
    assert_int_equal(s.memory, 0);
    assert_false(guard_is_full(g));
    assert_int_equal(s.shed, 1);
    guard_move(open, &one, INT64_MAX / 2);
    assert_false(guard_is_full(open));
    guard_free(g);
    guard_free(open);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(connections_in_all),
        cmocka_unit_test(only_so_many_are_told),
        cmocka_unit_test(addresses_have_shares),
        cmocka_unit_test(unknown_addresses_are_not_counted),
        cmocka_unit_test(descriptors_bound_connections),
        cmocka_unit_test(memory_is_moved_in_steps),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
