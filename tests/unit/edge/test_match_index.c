/* SPDX-License-Identifier: Apache-2.0 */
/* Finding rules among many: what a request meets does not grow with how many there are. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "services/edge/match/match_index.h"

enum { FEW = 10, MANY = 10000, NAME = 32 };

static struct str name(unsigned n, char room[NAME])
{
    return str_n(room, (size_t)snprintf(room, NAME, "team-%05u/", n));
}

/* An index with so many rules of each kind, each about a name of its own. */
static struct match_index *with(unsigned rules)
{
    static const enum index_kind kinds[] = { INDEX_EXACT, INDEX_PREFIX, INDEX_SUFFIX };
    struct match_index *x = match_index_new();
    char room[NAME];
    for (size_t k = 0; k < ARRAY_LEN(kinds); k++)
        for (unsigned n = 0; n < rules; n++)
            match_index_add(x,
                            &(struct index_key){
                                .group = (uint32_t)k, .kind = kinds[k], .bytes = name(n, room) },
                            n);
    return x;
}

/* How many rules have to be tried for the value; the first of them in *ret. */
static unsigned tried(const struct match_index *x, uint32_t group, struct str value, uint32_t *ret)
{
    struct index_walk w;
    uint32_t rank;
    unsigned n = 0;
    index_walk_init(&w);
    index_walk_find(&w, x, group, value);
    assert_false(w.overflow);
    while (index_walk_next(&w, &rank))
        if (n++ == 0) *ret = rank;
    return n;
}

static void of_ten_thousand_rules_one_is_tried_like_of_ten(void **state)
{
    (void)state;
    static const unsigned sizes[] = { FEW, MANY };
    for (size_t s = 0; s < ARRAY_LEN(sizes); s++) {
        struct match_index *x = with(sizes[s]);
        for (unsigned n = 0; n < sizes[s]; n++) {
            char room[NAME], text[2 * NAME];
            struct str own = name(n, room);
            uint32_t rank = MANY;
            assert_int_equal(tried(x, 0, own, &rank), 1);
            assert_int_equal(rank, n);
            int len = snprintf(text, sizeof text, "%.*sv1/chat", STR_ARG(own));
            assert_int_equal(tried(x, 0, str_n(text, (size_t)len), &rank), 0);
            assert_int_equal(tried(x, 1, str_n(text, (size_t)len), &rank), 1);
            assert_int_equal(rank, n);
            len = snprintf(text, sizeof text, "/of/%.*s", STR_ARG(own));
            assert_int_equal(tried(x, 1, str_n(text, (size_t)len), &rank), 0);
            assert_int_equal(tried(x, 2, str_n(text, (size_t)len), &rank), 1);
            assert_int_equal(rank, n);
        }
        uint32_t rank;
        assert_int_equal(tried(x, 0, STR("team-x"), &rank), 0);
        assert_int_equal(tried(x, 3, STR("team-00001/"), &rank), 0); /* nobody's group */
        match_index_free(x);
    }
}

static void what_several_hold_for_comes_once_and_in_order(void **state)
{
    (void)state;
    static const char *const begins[] = { "", "a", "ab", "b", "abc", "a" };
    struct match_index *x = match_index_new();
    struct index_walk w;
    uint32_t rank, want[] = { 0, 1, 2, 5 };
    for (uint32_t n = 0; n < ARRAY_LEN(begins); n++)
        match_index_add(x, &(struct index_key){ .kind = INDEX_PREFIX, .bytes = str_of(begins[n]) },
                        n);
    /* The same rule under another key that holds too. */
    match_index_add(x, &(struct index_key){ .kind = INDEX_SUFFIX, .bytes = STR("x") }, 2);
    index_walk_init(&w);
    index_walk_find(&w, x, 0, STR("abx"));
    for (size_t i = 0; i < ARRAY_LEN(want); i++) {
        assert_true(index_walk_next(&w, &rank));
        assert_int_equal(rank, want[i]);
    }
    assert_false(index_walk_next(&w, &rank));
    match_index_free(x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(of_ten_thousand_rules_one_is_tried_like_of_ten),
        cmocka_unit_test(what_several_hold_for_comes_once_and_in_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
