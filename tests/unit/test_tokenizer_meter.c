/* SPDX-License-Identifier: Apache-2.0 */
/* Meters: the count of a stream, what may be delivered, where it is cut. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "support_chars.h"
#include "tokenizer/scan/estimate.h"
#include "tokenizer/meter/meter.h"
#include "tokenizer/scan/scripts.h"
#include "tokenizer/models/vocab_file.h"

static struct support_vocab made;

static struct vocab *open_made(const char *pattern, bool nfc)
{
    support_init(&made, support_words, sizeof support_words / sizeof support_words[0]);
    return support_open(&made, pattern, nfc);
}

/* The shape that a pre_tokenizer Digits in front makes of it. */
static struct vocab *open_digits(void)
{
    struct vocab *v = open_made("gpt2", true);
    struct vocab_header *h = (struct vocab_header *)(void *)v->map;
    assert_int_equal(h->shape, SCAN_GPT2);
    h->shape = SCAN_DIGITS;
    v->window = scan_window_best(SCAN_DIGITS);
    v->count_scripts = scripts_best(v);
    return v;
}

static uint64_t count_of(const struct vocab *v, const char *p, size_t n, enum special_mode mode)
{
    uint64_t count = 0;
    assert_int_equal(token_count(v, str_n(p, n), mode, &count), ERR_OK);
    return count;
}

struct outcome {
    uint64_t count, deliverable, cut;
    bool is_cut, exact;
};

/* Streams a text with `step` bytes per feed at most (0: all at once) and checks what must hold at
 * every moment. */
static struct outcome stream(struct vocab *v, enum special_mode mode, const char *p, size_t n,
                             uint64_t limit, size_t step, const struct rng *rng)
{
    struct token_meter *m = meter_new(v, mode);
    struct outcome r = { 0 };
    uint64_t before = 0;
    assert_non_null(m);
    meter_set_limit(m, limit);
    for (size_t i = 0, len; i < n; i += len) {
        len = step == 0 ? n : 1 + rng_below(rng, step);
        len = MIN(len, n - i);
        char *copy = malloc(len);
        assert_non_null(copy);
        memcpy(copy, p + i, len);
        assert_int_equal(meter_feed(m, str_n(copy, len)), ERR_OK);
        free(copy);
        uint64_t d = meter_deliverable(m);
        assert_true(d >= before && d <= i + len);
        before = d;
        if (v == NULL || rng_below(rng, 4) != 0) continue;
        if (!meter_cut(m, NULL) && meter_exact(m)) {
            uint64_t count = meter_count(m);
            assert_int_equal(count, count_of(v, p, meter_counted(m), mode));
        }
        if (limit == METER_NO_LIMIT)
            assert_int_equal(d, i + len);
        else if (meter_exact(m))
            assert_true(count_of(v, p, d, mode) <= limit);
    }
    assert_int_equal(meter_finish(m), ERR_OK);
    r.count = meter_count(m);
    r.deliverable = meter_deliverable(m);
    r.is_cut = meter_cut(m, &r.cut);
    r.exact = meter_exact(m);
    assert_int_equal(r.deliverable, r.is_cut ? r.cut : n);
    meter_free(m);
    return r;
}

static void any_split_gives_the_same_count_and_cut(void **state)
{
    const char *const names[] = { "nfc",        "raw",         "chars",  "spaces",     "qwen3",
                                  "o200k_base", "deepseek_v3", "gemma3", "mistral_v1", NULL };
    static struct support_vocab chars;
    chars_init(&chars);
    (void)state;
    for (size_t k = 0; k < sizeof names / sizeof names[0]; k++) {
        struct vocab *v = k == 0             ? open_made(PATTERN_QWEN, true)
                          : k == 1           ? open_made(PATTERN_CL100K, false)
                          : k == 2           ? chars_open(&chars, &chars_shapes[0], "")
                          : k == 3           ? chars_open(&chars, &chars_shapes[2], "")
                          : names[k] != NULL ? support_real(names[k])
                                             : NULL;
        struct rng_fake rng;
        char text[1500];
        size_t cuts = 0;
        if (names[k] != NULL && v == NULL) continue; /* not fetched */
        rng_fake_init(&rng, 30 + k);
        for (int round = 0; round < 600; round++) {
            size_t n = support_text(&rng.rng, text, sizeof text);
            enum special_mode mode = round % 2 == 0 ? SPECIAL_TEXT : SPECIAL_CONTROL;
            uint64_t total = v != NULL ? count_of(v, text, n, mode)
                                       : token_estimate(str_n(text, n));
            uint64_t limit = round % 5 == 0 ? METER_NO_LIMIT : rng_below(&rng.rng, total + 2);
            struct outcome a = stream(v, mode, text, n, limit, 0, &rng.rng);
            assert_int_equal(a.exact, v != NULL);
            if (a.is_cut) {
                cuts++;
                assert_true(total > limit);
                assert_true(a.count <= limit);
                if (v != NULL) assert_int_equal(a.count, count_of(v, text, a.cut, mode));
            } else {
                assert_int_equal(a.count, total);
                assert_true(total <= limit);
            }
            for (size_t step = 1; step <= 125; step *= 5) {
                struct outcome b = stream(v, mode, text, n, limit, step, &rng.rng);
                assert_memory_equal(&a.count, &b.count, sizeof a.count);
                assert_int_equal(a.is_cut, b.is_cut);
                assert_int_equal(a.cut, b.cut);
            }
        }
        assert_true(cuts > 100);
        vocab_unref(v);
    }
}

static void the_cut_is_the_end_of_token_n(void **state)
{
    (void)state;
    struct vocab *v = open_made(PATTERN_QWEN, true);
    static const char text[] = "hello the them xyxyx abc";
    struct token_list l = { .want_ends = true };
    struct rng_fake rng;
    rng_fake_init(&rng, 1);
    assert_int_equal(token_encode(v, str_of(text), SPECIAL_TEXT, &l), ERR_OK);
    for (size_t limit = 0; limit <= l.len; limit++) {
        struct outcome r = stream(v, SPECIAL_TEXT, text, strlen(text), limit, 3, &rng.rng);
        assert_int_equal(r.is_cut, limit < l.len);
        assert_int_equal(r.deliverable, limit == 0 ? 0 : l.ends[limit - 1]);
        assert_int_equal(r.count, limit);
    }
    token_list_done(&l);
    vocab_unref(v);
}

static void the_cut_does_not_split_a_character(void **state)
{
    (void)state;
    struct vocab *v = open_made(PATTERN_QWEN, true);
    struct rng_fake rng;
    rng_fake_init(&rng, 1);
    /* 🚀 is two bytes that make a token, and two more: behind a letter, four tokens in all */
    for (uint64_t limit = 1; limit < 4; limit++) {
        struct outcome r = stream(v, SPECIAL_TEXT, "q\U0001f680", 5, limit, 1, &rng.rng);
        assert_true(r.is_cut);
        assert_int_equal(r.cut, 1);
        assert_int_equal(r.count, 1);
    }
    /* q and its dots: no cut between them */
    struct outcome r = stream(v, SPECIAL_TEXT, "h q\u0323\u0307", 7, 3, 1, &rng.rng);
    assert_true(r.is_cut);
    assert_true(r.cut <= 2);
    vocab_unref(v);
}

static void only_near_the_limit_anything_is_withheld(void **state)
{
    (void)state;
    struct vocab *v = open_made(PATTERN_QWEN, true);
    struct token_meter *m = meter_new(v, SPECIAL_TEXT);
    assert_non_null(m);
    meter_set_limit(m, 1000);
    assert_int_equal(meter_feed(m, STR("hello the")), ERR_OK);
    assert_int_equal(meter_deliverable(m), 9); /* far away: even an open word goes out */
    meter_set_limit(m, 3);
    assert_int_equal(meter_feed(m, STR("m hel")), ERR_OK);
    assert_int_equal(meter_deliverable(m),
                     10); /* "hello them" is whole; " hel" may become a token */
    assert_int_equal(meter_count(m), 4);
    assert_false(meter_cut(m, NULL));
    assert_int_equal(meter_feed(m, STR("lo ")), ERR_OK);
    assert_int_equal(meter_deliverable(m), 16);
    uint64_t at = 0;
    assert_true(meter_cut(m, &at)); /* three tokens, and a space too many */
    assert_int_equal(at, 16);
    assert_int_equal(meter_count(m), 3);
    assert_int_equal(meter_feed(m, STR("ignored")), ERR_OK);
    assert_int_equal(meter_finish(m), ERR_OK);
    assert_int_equal(meter_deliverable(m), 16);
    meter_free(m);
    vocab_unref(v);
}

static void a_limit_below_what_went_out_cuts_right_there(void **state)
{
    (void)state;
    struct vocab *v = open_made(PATTERN_QWEN, false);
    struct token_meter *m = meter_new(v, SPECIAL_TEXT);
    uint64_t at = 0;
    assert_int_equal(meter_feed(m, STR("hello the them ab ")), ERR_OK);
    assert_int_equal(meter_deliverable(m), 18);
    meter_set_limit(m, 1);
    assert_int_equal(meter_feed(m, STR("more")), ERR_OK);
    assert_true(meter_cut(m, &at));
    assert_int_equal(at, 18);
    assert_int_equal(meter_count(m), count_of(v, "hello the them ab ", 18, SPECIAL_TEXT));
    meter_free(m);
    vocab_unref(v);
}

static void texts_that_share_a_budget_stay_within_it(void **state)
{
    (void)state;
    struct vocab *v = open_made(PATTERN_QWEN, true);
    struct rng_fake rng;
    rng_fake_init(&rng, 5);
    for (int round = 0; round < 300; round++) {
        enum { TEXTS = 3 };
        struct token_meter *m[TEXTS];
        char text[TEXTS][600];
        size_t n[TEXTS], fed[TEXTS] = { 0 };
        uint64_t budget = rng_below(&rng.rng, 200), sum = 0;
        bool cut = false;
        for (int i = 0; i < TEXTS; i++) {
            m[i] = meter_new(v, SPECIAL_TEXT);
            assert_non_null(m[i]);
            n[i] = support_text(&rng.rng, text[i], sizeof text[i]);
        }
        for (int turn = 0; turn < 400 && !cut; turn++) {
            size_t i = rng_below(&rng.rng, TEXTS), len = 1 + rng_below(&rng.rng, 12);
            len = MIN(len, n[i] - fed[i]);
            uint64_t others = 0;
            for (size_t k = 0; k < TEXTS; k++)
                if (k != i) others += meter_count(m[k]);
            meter_set_limit(m[i], others < budget ? budget - others : 0);
            assert_int_equal(meter_feed(m[i], str_n(text[i] + fed[i], len)), ERR_OK);
            fed[i] += len;
            cut = meter_cut(m[i], NULL);
        }
        /* What went out, each by itself. */
        for (int i = 0; i < TEXTS; i++)
            sum += count_of(v, text[i], meter_deliverable(m[i]), SPECIAL_TEXT);
        assert_true(sum <= budget);
        for (int i = 0; i < TEXTS; i++) meter_free(m[i]);
    }
    vocab_unref(v);
}

static void an_endless_piece_is_bounded_and_flagged(void **state)
{
    (void)state;
    struct vocab *v = open_made(PATTERN_QWEN, true);
    enum { N = 20000 };
    char *p = malloc(N);
    struct rng_fake rng;
    rng_fake_init(&rng, 5);
    assert_non_null(p);
    memset(p, 'a', N);
    struct outcome a = stream(v, SPECIAL_TEXT, p, N, METER_NO_LIMIT, 0, &rng.rng);
    struct outcome b = stream(v, SPECIAL_TEXT, p, N, METER_NO_LIMIT, 300, &rng.rng);
    assert_false(a.exact);
    assert_int_equal(a.count, b.count);
    assert_in_range(a.count, N / 8, N / 8 + 8);
    a = stream(v, SPECIAL_TEXT, p, N, 1000, 0, &rng.rng);
    b = stream(v, SPECIAL_TEXT, p, N, 1000, 7, &rng.rng);
    assert_true(a.is_cut && b.is_cut);
    assert_int_equal(a.cut, b.cut);
    assert_int_equal(a.cut, 8000);
    free(p);
    vocab_unref(v);
}

/* Runs are counted on from where they were; every way they can begin, go on and end is right. */
static void a_long_run_fed_bit_by_bit_counts_like_the_whole(void **state)
{
    static const char *const parts[] = { "a",
                                         "ab",
                                         "xyx",
                                         " ",
                                         "  ",
                                         "\n",
                                         "!",
                                         "=",
                                         "'re",
                                         "'s",
                                         "A",
                                         "中",
                                         "1",
                                         "<",
                                         "<think>",
                                         "\t",
                                         " a",
                                         "Ab",
                                         "aB",
                                         "/!",
                                         "!/\n",
                                         "/",
                                         "#$%",
                                         "!\'",
                                         "中文字",
                                         "かな",
                                         "한",
                                         "é",
                                         "é",
                                         "\xcc\x81",
                                         "\xcc\x81\xcc\xa3",
                                         "👩‍💻",
                                         "🤷‍♀️",
                                         "❤️",
                                         "€…–",
                                         "，",
                                         "\r\n",
                                         "\n \n",
                                         " \t",
                                         "\u3000",
                                         "ห้อง",
                                         "\u200d",
                                         "٣",
                                         "Жжж",
                                         "\xe4\xb8",
                                         "\xf0\x9f",
                                         "\xff",
                                         "\u0f71\u0f72",
                                         "\u1100\u1161",
                                         "\u2028",
                                         "ʰ",
                                         "𠀀",
                                         "!abc",
                                         "한글",
                                         "\xe4",
                                         "\xf0\x9f\x98",
                                         "ſ",
                                         "Éé",
                                         "ǅ",
                                         "़",
                                         "ﬁ",
                                         "Ⅷ",
                                         "½" };
    const char *const names[] = { "nfc",      "digits",    "regex", "o200k_base",  "deepseek_v3",
                                  "llama3_2", "r50k_base", "qwen3", "mistral_nemo" };
    (void)state;
    for (size_t k = 0; k < sizeof names / sizeof names[0]; k++) {
        struct vocab *v = k == 0   ? open_made(PATTERN_QWEN, true)
                          : k == 1 ? open_digits()
                          : k == 2 ? open_made("(?:" PATTERN_CL100K ")", false)
                                   : support_real(names[k]);
        struct rng_fake rng;
        if (v == NULL) continue; /* not fetched */
        rng_fake_init(&rng, 31 + k);
        for (int round = 0; round < 100; round++) {
            enum special_mode mode = round % 2 == 0 ? SPECIAL_TEXT : SPECIAL_CONTROL;
            struct token_meter *m = meter_new(v, mode);
            char p[1500];
            size_t n = 0, step = 1 + (size_t)round % 5;
            while (n < 1000) { /* a few long runs, of one kind or two; something short between */
                const char *s[2];
                for (int i = 0; i < 2; i++)
                    s[i] = parts[rng_below(&rng.rng, sizeof parts / sizeof parts[0])];
                if (rng_below(&rng.rng, 3) > 0) s[1] = s[0];
                size_t times = rng_below(&rng.rng, 3) == 0 ? 1 : 1 + rng_below(&rng.rng, 300);
                for (; times > 0; times--) {
                    const char *one = s[rng_below(&rng.rng, 2)];
                    if (n + strlen(one) > sizeof p) break;
                    memcpy(p + n, one, strlen(one));
                    n += strlen(one);
                }
            }
            assert_non_null(m);
            for (size_t i = 0, some; i < n; i += some) {
                some = 1 + rng_below(&rng.rng, step);
                some = MIN(some, n - i);
                assert_int_equal(meter_feed(m, str_n(p + i, some)), ERR_OK);
                if (rng_below(&rng.rng, 4) != 0 && i + 3 < n) continue;
                uint64_t counted = (meter_count(m), meter_counted(m));
                assert_int_equal(meter_count(m), count_of(v, p, counted, mode));
                assert_in_range(counted, i + some - (i + some) / 9, i + some);
            }
            assert_int_equal(meter_finish(m), ERR_OK);
            assert_int_equal(meter_count(m), count_of(v, p, n, mode));
            assert_int_equal(meter_exact(m), k != 2);
            meter_free(m);
        }
        vocab_unref(v);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_split_gives_the_same_count_and_cut),
        cmocka_unit_test(the_cut_is_the_end_of_token_n),
        cmocka_unit_test(the_cut_does_not_split_a_character),
        cmocka_unit_test(only_near_the_limit_anything_is_withheld),
        cmocka_unit_test(a_limit_below_what_went_out_cuts_right_there),
        cmocka_unit_test(texts_that_share_a_budget_stay_within_it),
        cmocka_unit_test(a_long_run_fed_bit_by_bit_counts_like_the_whole),
        cmocka_unit_test(an_endless_piece_is_bounded_and_flagged),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
