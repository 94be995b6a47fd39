/* SPDX-License-Identifier: Apache-2.0 */
/* Patterns that nobody wrote a scanner for, and the limits of what runs them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "support_vocab.h"
#include "tokenizer/meter/meter.h"
#include "tokenizer/tokenizer.h"
#include "tokenizer/models/vocab_file.h"

static struct support_vocab made;

static struct vocab *open_made(const char *pattern)
{
    support_init(&made, support_words, sizeof support_words / sizeof support_words[0]);
    return support_open(&made, pattern, false);
}

static void a_pattern_spelled_otherwise_splits_the_same_but_is_not_called_exact(void **state)
{
    (void)state;
    struct vocab *known = open_made(PATTERN_CL100K), *other = open_made("(?:" PATTERN_CL100K ")");
    struct rng_fake rng;
    char text[1500];
    assert_true(vocab_exact(known));
    assert_false(vocab_exact(other));
    rng_fake_init(&rng, 8);
    for (int round = 0; round < 1000; round++) {
        size_t n = support_text(&rng.rng, text, sizeof text);
        enum special_mode mode = round % 2 == 0 ? SPECIAL_TEXT : SPECIAL_CONTROL;
        uint64_t a, b, c;
        struct token_counter fed;
        assert_int_equal(token_count(known, str_n(text, n), mode, &a), ERR_OK);
        assert_int_equal(token_count(other, str_n(text, n), mode, &b), ERR_OK);
        assert_int_equal(a, b);
        token_counter_init(&fed, other, mode, NULL);
        for (size_t i = 0, len; i < n; i += len) {
            len = 1 + rng_below(&rng.rng, 9);
            len = MIN(len, n - i);
            assert_int_equal(token_counter_feed(&fed, str_n(text + i, len)), ERR_OK);
        }
        assert_int_equal(token_counter_finish(&fed, &c), ERR_OK);
        assert_int_equal(a, c);
        token_counter_done(&fed);
    }
    struct token_meter *m = meter_new(other, SPECIAL_TEXT);
    assert_non_null(m);
    assert_int_equal(meter_feed(m, STR("hello the")), ERR_OK);
    assert_int_equal(meter_count(m), 2);
    assert_false(meter_exact(m));
    meter_free(m);
    vocab_unref(known);
    vocab_unref(other);
}

static void what_matches_nothing_is_a_piece_too(void **state)
{
    (void)state;
    struct vocab *v = open_made("[a-z]+");
    uint64_t n;
    assert_int_equal(token_count(v, STR("hello()();hello"), SPECIAL_TEXT, &n), ERR_OK);
    assert_int_equal(n, 4); /* hello, () and (); which merge within their piece, hello */
    vocab_unref(v);
}

static void a_pattern_that_takes_too_long_is_given_up(void **state)
{
    (void)state;
    struct vocab *v = open_made("(?:a+a+)+b");
    char text[64];
    uint64_t n;
    memset(text, 'a', sizeof text);
    assert_int_equal(token_count(v, str_n(text, sizeof text), SPECIAL_TEXT, &n), ERR_OK);
    assert_true(n >= 1 && n <= sizeof text);
    vocab_unref(v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_pattern_spelled_otherwise_splits_the_same_but_is_not_called_exact),
        cmocka_unit_test(what_matches_nothing_is_a_piece_too),
        cmocka_unit_test(a_pattern_that_takes_too_long_is_given_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
