/* SPDX-License-Identifier: Apache-2.0 */
/* Who shares the limits: silent edges have their part set aside until they speak or are gone. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka wants the four above first */
#include <cmocka.h>

#include "services/policy/shares.h"

enum { SECOND = 1000000, START = 100 * SECOND };

static void hear(struct shares *s, const char *edge, uint64_t now)
{
    assert_int_equal(shares_saw(s, str_of(edge), now), ERR_OK);
}

static void nothing_is_told_until_all_could_make_themselves_heard(void **state)
{
    struct shares s;
    (void)state;
    shares_init(&s, START, 2 * SECOND);
    hear(&s, "a", START);
    assert_int_equal(shares_count(&s, START + 2 * SECOND - 1), 0);
    hear(&s, "b", START + SECOND);
    assert_int_equal(shares_count(&s, START + 2 * SECOND), 2);
    shares_done(&s);
}

static void
a_silent_edge_has_its_share_set_aside_until_it_speaks_signs_off_or_is_removed(void **state)
{
    struct shares s;
    uint64_t now = START + 10 * SECOND;
    (void)state;
    shares_init(&s, START, 2 * SECOND);
    hear(&s, "a", now);
    hear(&s, "b", now);
    hear(&s, "c", now);
    shares_tell(&s, STR("a"), 3);
    assert_int_equal(shares_aside_ppm(&s, now + 2 * SECOND), 0);
    hear(&s, "b", now + 3 * SECOND);
    /* c is silent too, but was never told of a share */
    assert_int_equal(shares_silent(&s, now + 3 * SECOND), 2);
    assert_int_equal(shares_aside_ppm(&s, now + 3 * SECOND), 333334);
    assert_int_equal(shares_aside_ppm(&s, now + 3000000 * (uint64_t)SECOND), 333334);
    hear(&s, "a", now + 4 * SECOND);
    assert_int_equal(shares_aside_ppm(&s, now + 4 * SECOND), 0);
    assert_int_equal(shares_aside_ppm(&s, now + 7 * SECOND), 333334);
    assert_true(shares_left(&s, STR("a")));
    assert_false(shares_left(&s, STR("a")));
    assert_int_equal(shares_aside_ppm(&s, now + 7 * SECOND), 0);
    shares_done(&s);
}

static void said(struct shares *s, const char *edge, uint64_t now, uint64_t among)
{
    assert_int_equal(shares_said(s, str_of(edge), now, among), ERR_OK);
}

/* Twice a second from `from` to `to`. */
static void keeps_saying(struct shares *s, const char *edge, uint64_t from, uint64_t to,
                         uint64_t among)
{
    for (uint64_t t = from; t <= to; t += SECOND / 2) said(s, edge, t, among);
}

/* It was heard first, and alone; what it would use when it is cut off is nothing. */
static void an_edge_that_was_never_told_has_no_share_to_be_set_aside(void **state)
{
    struct shares s;
    (void)state;
    shares_init(&s, START, 2 * SECOND);
    keeps_saying(&s, "a", START, START + 10 * SECOND, 0);
    assert_int_equal(shares_count(&s, START + 10 * SECOND), 1);
    assert_int_equal(shares_silent(&s, START + 13 * SECOND), 1);
    assert_int_equal(shares_aside_ppm(&s, START + 13 * SECOND), 0);
    shares_done(&s);
}

static void an_edge_has_set_aside_what_it_says_and_what_it_was_told_a_moment_ago(void **state)
{
    struct shares s;
    const uint64_t end = START + 20 * SECOND;
    (void)state;
    shares_init(&s, START, 2 * SECOND);
    /* told by somebody else, or before we began */
    said(&s, "a", START, 3);
    assert_int_equal(shares_aside_ppm(&s, START + 3 * SECOND), 333334);
    /* told that it is alone: it may know at once, or never */
    shares_tell(&s, STR("a"), 1);
    assert_int_equal(shares_aside_ppm(&s, START + 3 * SECOND), 1000000);
    keeps_saying(&s, "a", START, START + 2 * SECOND - 1, 3);
    assert_int_equal(shares_aside_ppm(&s, START + 6 * SECOND), 1000000);
    /* it knew, and was told of others since: an answer that may have got lost, twice */
    keeps_saying(&s, "a", START + 2 * SECOND, START + 10 * SECOND, 1);
    shares_tell(&s, STR("a"), 4);
    shares_tell(&s, STR("a"), 4);
    keeps_saying(&s, "a", START + 10 * SECOND, end, 1);
    assert_int_equal(shares_aside_ppm(&s, end + 3 * SECOND), 1000000);
    /* now it says that it knows */
    said(&s, "a", end + 3 * SECOND, 4);
    assert_int_equal(shares_aside_ppm(&s, end + 6 * SECOND), 250000);
    shares_done(&s);
}

static void what_was_told_counts_until_it_would_have_been_said(void **state)
{
    (void)state;
    /* whenever between two words it is told, it counts for two seconds, and not for ever */
    for (uint64_t at = 0; at < 3 * SECOND; at += SECOND / 16) {
        struct shares s;
        uint64_t told = START + 5 * SECOND + at;
        shares_init(&s, START, 2 * SECOND);
        keeps_saying(&s, "a", START, told, 4);
        shares_tell(&s, STR("a"), 2);
        uint64_t next = START + (told - START) / (SECOND / 2) * (SECOND / 2) + SECOND / 2;
        uint64_t last = told + 2 * SECOND - (told + 2 * SECOND - next) % (SECOND / 2);
        keeps_saying(&s, "a", next, last - 1, 4);
        assert_int_equal(shares_aside_ppm(&s, told + 60 * SECOND), 500000);
        keeps_saying(&s, "a", last, told + 6 * SECOND, 4);
        assert_int_equal(shares_aside_ppm(&s, told + 60 * SECOND), 250000);
        shares_done(&s);
    }
}

static void the_larger_share_of_the_last_two_that_were_told_counts(void **state)
{
    struct shares s;
    (void)state;
    shares_init(&s, START, 2 * SECOND);
    hear(&s, "a", START);
    shares_tell(&s, STR("a"), 2);
    shares_tell(&s, STR("a"), 4); /* this reply may have been lost */
    assert_int_equal(shares_aside_ppm(&s, START + 3 * SECOND), 500000);
    shares_tell(&s, STR("a"), 4);
    assert_int_equal(shares_aside_ppm(&s, START + 3 * SECOND), 250000);
    shares_done(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_is_told_until_all_could_make_themselves_heard),
        cmocka_unit_test(
            a_silent_edge_has_its_share_set_aside_until_it_speaks_signs_off_or_is_removed),
        cmocka_unit_test(an_edge_that_was_never_told_has_no_share_to_be_set_aside),
        cmocka_unit_test(an_edge_has_set_aside_what_it_says_and_what_it_was_told_a_moment_ago),
        cmocka_unit_test(what_was_told_counts_until_it_would_have_been_said),
        cmocka_unit_test(the_larger_share_of_the_last_two_that_were_told_counts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
