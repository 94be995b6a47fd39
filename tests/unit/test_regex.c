/* SPDX-License-Identifier: Apache-2.0 */
/* Regular expressions of the configuration: what they match, and what a match may cost. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "rt/regex.h"

static struct regex *compile(const char *pattern, unsigned flags)
{
    struct regex *r = NULL;
    struct why why;
    if (regex_new(str_of(pattern), flags, 10000, &r, &why) != ERR_OK) fail_msg("%s", why.text);
    return r;
}

static void what_matches(void **state)
{
    static const struct {
        const char *pattern, *text;
        unsigned flags;
        bool matches;
    } rows[] = {
        { "b+", "abbc", 0, true },
        { "b+", "abbc", REGEX_WHOLE, false },
        { "ab+c", "abbc", REGEX_WHOLE, true },
        { "a|ab", "ab", REGEX_WHOLE, true },
        { "TEAM-[0-9]+", "team-7", 0, false },
        { "TEAM-[0-9]+", "team-7", REGEX_FOLD, true },
        { "^.$", "\xc3\xa4", 0, true },
        { "^.$", "\xff", REGEX_ANY_BYTES, false },
        { "b$",
          "\xff"
          "b",
          REGEX_ANY_BYTES, false },
        { "^$", "", 0, true },
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        for (unsigned jit = 0; jit <= REGEX_JIT; jit += REGEX_JIT) {
            struct regex *r = compile(rows[i].pattern, rows[i].flags | jit);
            if (regex_matches(r, str_of(rows[i].text)) != rows[i].matches)
                fail_msg("%s on %s", rows[i].pattern, rows[i].text);
            regex_free(r);
        }
    }
}

static void groups_and_those_that_took_no_part(void **state)
{
    struct regex_span g[4];
    struct regex *r = compile("/(v[0-9])/(?:(x)|(y))", REGEX_WHOLE | REGEX_JIT);
    (void)state;
    assert_int_equal(regex_groups(r), 3);
    assert_int_equal(regex_find(r, STR("/v1/y"), 0, g, 4), REGEX_YES);
    assert_int_equal(g[1].from, 1);
    assert_int_equal(g[1].to, 3);
    assert_true(g[2].from > g[2].to);
    assert_int_equal(g[3].from, 4);
    /* Less room than groups: the first ones. */
    assert_int_equal(regex_find(r, STR("/v1/x"), 0, g, 2), REGEX_YES);
    assert_int_equal(g[1].to, 3);
    regex_free(r);
}

static void what_would_take_for_ever_is_given_up(void **state)
{
    char text[4001];
    (void)state;
    memset(text, 'a', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    for (unsigned jit = 0; jit <= REGEX_JIT; jit += REGEX_JIT) {
        struct regex *r = compile("(a+)+$|(a*)*b", REGEX_WHOLE | jit);
        text[sizeof text - 2] = 'c';
        assert_int_equal(regex_find(r, str_of(text), 0, NULL, 0), REGEX_GAVE_UP);
        assert_false(regex_matches(r, str_of(text)));
        regex_free(r);
    }
}

static void patterns_that_are_none(void **state)
{
    static const char *const bad[] = { "", "(", "[a", "a{2,1}", "\\C", "(?<n>a)(?<n>b)", "*" };
    struct regex *r;
    struct why why;
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        if (regex_new(str_of(bad[i]), 0, 1000, &r, &why) != ERR_INVALID) fail_msg("%s", bad[i]);
        assert_true(why.text[0] != '\0');
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_matches),
        cmocka_unit_test(groups_and_those_that_took_no_part),
        cmocka_unit_test(what_would_take_for_ever_is_given_up),
        cmocka_unit_test(patterns_that_are_none),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
