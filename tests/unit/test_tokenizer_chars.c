/* SPDX-License-Identifier: Apache-2.0 */
/* Vocabularies over characters (SentencePiece's kind): ids against merges by the book. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "support_chars.h"
#include "tokenizer/meter/meter.h"
#include "tokenizer/tokenizer.h"

enum { MOST = 1500 };

static struct support_vocab made;

static int make(void **state)
{
    (void)state;
    chars_init(&made);
    return 0;
}

/* What stands between added tokens: normalised, cut before spaces if need be, merged. */
static size_t book_segment(const struct chars_shape *shape, const char *p, size_t n, bool first,
                           size_t *ids)
{
    static char text[3 * MOST + 1];
    size_t len = 0, total = 0;
    if (n == 0) return 0;
    bool space = *p == ' ' || (n >= 3 && memcmp(p, MARK, 3) == 0);
    if (shape->lead == LEAD_EACH || (shape->lead == LEAD_FIRST && first))
        if (!space || shape->lead_spaces) text[len++] = ' ';
    for (size_t i = 0; i < n; i++) {
        bool mark = n - i >= 3 && memcmp(p + i, MARK, 3) == 0;
        text[len++] = mark ? ' ' : p[i];
        if (mark) i += 2;
    }
    for (size_t from = 0, to; from < len; from = to) {
        to = from + 1;
        while (to < len && !(shape->split && text[to] == ' ')) to++;
        total += chars_merge(&made, text + from, to - from, ids + total);
    }
    return total;
}

static size_t book(const struct chars_shape *shape, const char *p, size_t n, bool control,
                   size_t *ids)
{
    size_t from = 0, total = 0;
    for (size_t i = 0; i < n && control;) {
        bool end = n - i >= 7 && memcmp(p + i, "<|end|>", 7) == 0;
        bool lines = n - i >= 3 && memcmp(p + i, "\n\n\n", 3) == 0;
        if (!end && !lines) {
            i++;
            continue;
        }
        total += book_segment(shape, p + from, i - from, from == 0, ids + total);
        ids[total++] = made.tokens_n + (end ? 0 : 1);
        i += end ? 7 : 3;
        from = i;
    }
    return total + book_segment(shape, p + from, n - from, from == 0, ids + total);
}

static bool valid(const char *p, size_t n)
{
    for (size_t i = 0, k; i < n; i += k) {
        uint32_t cp;
        if ((k = utf8_decode(p + i, n - i, &cp)) == 0) return false;
    }
    return true;
}

static size_t mean_text(const struct rng *rng, char *text)
{
    static const char *const bits[] = { MARK, MARK MARK, " ", "  ", "\n\n\n", "<|end|>", " the" };
    size_t n = support_text(rng, text, MOST - 400);
    for (size_t k = rng_below(rng, 12); k > 0; k--) {
        const char *s = bits[rng_below(rng, sizeof bits / sizeof bits[0])];
        size_t at = rng_below(rng, n + 1), len = strlen(s);
        memmove(text + at + len, text + at, n - at);
        memcpy(text + at, s, len);
        n += len;
    }
    return n;
}

static void ids_are_those_of_merges_by_the_book(void **state)
{
    (void)state;
    static char text[MOST];
    static size_t want[4 * MOST];
    size_t compared = 0;
    for (size_t k = 0; k < sizeof chars_shapes / sizeof chars_shapes[0]; k++) {
        struct vocab *v = chars_open(&made, &chars_shapes[k], "");
        struct token_list l = { .want_ends = true };
        struct rng_fake rng;
        rng_fake_init(&rng, 70 + k);
        for (int round = 0; round < 600; round++) {
            size_t n = mean_text(&rng.rng, text);
            bool control = round % 2 == 0;
            enum special_mode mode = control ? SPECIAL_CONTROL : SPECIAL_TEXT;
            if (!valid(text, n)) continue;
            size_t len = book(&chars_shapes[k], text, n, control, want);
            l.len = 0;
            assert_int_equal(token_encode(v, str_n(text, n), mode, &l), ERR_OK);
            assert_int_equal(l.len, len);
            for (size_t i = 0; i < len; i++) {
                assert_int_equal(l.ids[i], want[i]);
                assert_true(i == 0 || l.ends[i] >= l.ends[i - 1]);
            }
            if (len > 0) assert_int_equal(l.ends[len - 1], n);
            compared++;
        }
        token_list_done(&l);
        vocab_unref(v);
    }
    assert_true(compared > 500);
}

static void a_text_in_pieces_counts_like_the_whole(void **state)
{
    (void)state;
    static char text[MOST];
    for (size_t k = 0; k < sizeof chars_shapes / sizeof chars_shapes[0]; k++) {
        struct vocab *v = chars_open(&made, &chars_shapes[k], "");
        struct rng_fake rng;
        rng_fake_init(&rng, 90 + k);
        for (int round = 0; round < 300; round++) {
            size_t n = mean_text(&rng.rng, text);
            enum special_mode mode = round % 2 == 0 ? SPECIAL_CONTROL : SPECIAL_TEXT;
            uint64_t whole, pieces;
            struct token_counter c;
            assert_int_equal(token_count(v, str_n(text, n), mode, &whole), ERR_OK);
            token_counter_init(&c, v, mode, NULL);
            for (size_t i = 0, len; i < n; i += len) {
                len = 1 + rng_below(&rng.rng, round % 3 == 0 ? 3 : 60);
                len = MIN(len, n - i);
                assert_int_equal(token_counter_feed(&c, str_n(text + i, len)), ERR_OK);
            }
            assert_int_equal(token_counter_finish(&c, &pieces), ERR_OK);
            assert_int_equal(pieces, whole);
            token_counter_done(&c);
        }
        vocab_unref(v);
    }
}

static void tokens_have_their_bytes_and_inner_ones_do_not_show(void **state)
{
    (void)state;
    struct vocab *v = chars_open(&made, &chars_shapes[0], "");
    assert_int_equal(vocab_size(v), made.tokens_n + 2);
    assert_null(vocab_token(v, vocab_size(v)).p);
    size_t the = chars_find(&made, " the", 4);
    assert_true(str_eqz(vocab_token(v, (uint32_t)the), " the"));
    assert_true(str_eqz(vocab_token(v, (uint32_t)made.tokens_n), "<|end|>"));
    vocab_unref(v);
}

static void long_runs_are_exact_and_streams_of_them_bounded(void **state)
{
    (void)state;
    struct vocab *v = chars_open(&made, &chars_shapes[0], "");
    enum { N = 300000 };
    char *text = malloc(N);
    uint64_t count;
    assert_non_null(text);
    memset(text, 'a', N);
    assert_int_equal(token_count(v, str_n(text, N), SPECIAL_TEXT, &count), ERR_OK);
    assert_int_equal(count, N / 8);
    memset(text, ' ', N);
    assert_int_equal(token_count(v, str_n(text, N), SPECIAL_TEXT, &count), ERR_OK);
    assert_int_equal(count, N / 8);
    struct token_meter *m = meter_new(v, SPECIAL_TEXT);
    assert_non_null(m);
    for (size_t i = 0; i < N; i += 1000) assert_int_equal(meter_feed(m, str_n(text, 1000)), ERR_OK);
    assert_int_equal(meter_finish(m), ERR_OK);
    assert_int_equal(meter_count(m), count);
    meter_free(m);
    free(text);
    vocab_unref(v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ids_are_those_of_merges_by_the_book),
        cmocka_unit_test(a_text_in_pieces_counts_like_the_whole),
        cmocka_unit_test(tokens_have_their_bytes_and_inner_ones_do_not_show),
        cmocka_unit_test(long_runs_are_exact_and_streams_of_them_bounded),
    };
    return cmocka_run_group_tests(tests, make, NULL);
}
