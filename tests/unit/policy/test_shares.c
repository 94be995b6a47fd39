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
        cmocka_unit_test(the_larger_share_of_the_last_two_that_were_told_counts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
