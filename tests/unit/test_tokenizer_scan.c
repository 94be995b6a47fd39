/* SPDX-License-Identifier: Apache-2.0 */
/* Pre-tokenizers: which pieces a text is cut into, and that a stream sees the same ones. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "support_vocab.h"
#include "tokenizer/scan/clean.h"
#include "tokenizer/scan/scan.h"
#include "tokenizer/scan/unicode.h"

/* `pieces` is the text with | between pieces. */
static void cuts(enum scan_shape shape, const char *pieces)
{
    char text[256], got[256];
    size_t n = 0, at = 0;
    for (const char *p = pieces; *p != '\0'; p++)
        if (*p != '|') text[n++] = *p;
    for (size_t i = 0; i < n;) {
        size_t len = scan_piece(shape, text + i, n - i, false);
        assert_in_range(len, 1, n - i);
        if (i > 0) got[at++] = '|';
        memcpy(got + at, text + i, len);
        at += len;
        i += len;
    }
    got[at] = '\0';
    assert_string_equal(got, pieces);
}

static void cl100k_takes_a_space_before_words_and_three_digits(void **state)
{
    (void)state;
    cuts(SCAN_CL100K, "Hello| world|,| it|'s| |123|456|7|!!\n\n|x");
    cuts(SCAN_CL100K, "a|  | b|   |\tc");
    cuts(SCAN_CL100K, "  | |1");
    cuts(SCAN_CL100K, "a|  \n \n|  | b");
    cuts(SCAN_CL100K, "we|'LL| they|'Re|'x|'ſ|t");
    cuts(SCAN_CL100K, "\u00a0 \u2003|\u00a0x");
}

static void qwen_takes_single_digits(void **state)
{
    (void)state;
    cuts(SCAN_QWEN, "a| |1|2|.|3|…|٣|½");
    cuts(SCAN_QWEN, "x|̱y|̱| z"); /* marks are not letters */
}

static void o200k_splits_words_by_case_and_keeps_contractions(void **state)
{
    (void)state;
    cuts(SCAN_O200K, "camel|Case|HTTPServer's|x");
    cuts(SCAN_O200K, "don't| we'LL|x| |12");
    cuts(SCAN_O200K, "中|ABC|!//\n|x");
    cuts(SCAN_O200K, "中ABCd| ABC");
    cuts(SCAN_TEKKEN, "don|'t|1|2|//\r\n| x");
}

static void deepseek_isolates_digits_and_kana(void **state)
{
    (void)state;
    cuts(SCAN_DEEPSEEK, "価は|128|0|円です|,ab|.|中");
    cuts(SCAN_DEEPSEEK, "a|   |5|!!|x| ;\n|y");
    cuts(SCAN_DEEPSEEK, "\x01|\x01x|\x01\x02|!");
}

static void gpt2_has_no_newline_rule(void **state)
{
    (void)state;
    cuts(SCAN_GPT2, "a|\n|\n|b| 12| !!'|s|'|S| a|'s|  ");
}

static void a_piece_is_final_when_it_is_told_before_the_end(void **state)
{
    (void)state;
    struct rng_fake rng;
    char raw[2000];
    struct buf text, points;
    rng_fake_init(&rng, 4);
    buf_init(&text, 1 << 16);
    buf_init(&points, 1 << 16);
    for (int round = 0; round < 3000; round++) {
        size_t n = support_text(&rng.rng, raw, sizeof raw);
        buf_clear(&text);
        for (size_t i = 0, len; i < n; i += len) {
            len = clean_cluster(raw + i, n - i, false, false);
            assert_int_equal(clean_append(raw + i, len, false, &points, &text), ERR_OK);
        }
        for (int shape = 1; shape < SCAN_END; shape++) {
            if (shape == SCAN_CHARS || shape == SCAN_REGEX) continue; /* no scanner */
            if (text.len == 0) continue;
            size_t whole = scan_piece((enum scan_shape)shape, text.data, text.len, false);
            for (size_t k = 1; k <= text.len; k++) {
                if (k < text.len && ((unsigned char)text.data[k] & 0xc0) == 0x80) continue;
                size_t part = scan_piece((enum scan_shape)shape, text.data, k, true);
                if (part != 0) assert_int_equal(part, whole);
            }
        }
    }
    buf_done(&text);
    buf_done(&points);
}

static void normal(const char *in, const char *out)
{
    struct buf text, points;
    buf_init(&text, 4096);
    buf_init(&points, 4096);
    for (size_t i = 0, n = strlen(in), len; i < n; i += len) {
        len = clean_cluster(in + i, n - i, false, true);
        assert_int_equal(clean_append(in + i, len, true, &points, &text), ERR_OK);
    }
    assert_string_equal(buf_z(&text), out);
    buf_done(&text);
    buf_done(&points);
}

static void text_is_composed_as_in_unicode_9(void **state)
{
    (void)state;
    normal("e\u0301", "é");
    normal("q\u0307\u0323", "q\u0323\u0307");
    normal("a\u0323\u0302", "ậ");
    normal("\u1100\u1161\u11a8", "각");
    normal("\u2126\u0344", "Ω\u0308\u0301");
    normal(".\u0301\u0323", ".\u0323\u0301");
    normal("<\u0338", "≮");
    normal("a\u1df6\u0323", "a\u1df6\u0323"); /* a mark of Unicode 10: unknown, does not move */
    normal("\u0915\u093c", "\u0915\u093c");   /* excluded from composition */
    normal("\xff\xe2\x82x\xed\xa0\x80", "\ufffd\ufffdx\ufffd\ufffd\ufffd");
}

/* The clean prefix, character by character. */
static size_t clean_slowly(const char *p, size_t n, unsigned how)
{
    size_t i = 0, len;
    for (uint32_t cp; i < n && (len = utf8_decode(p + i, n - i, &cp)) > 0; i += len) {
        if ((how & CLEAN_NFC) != 0 && cp >= 0x300 && (unicode_class(cp) & UC_CARE) != 0) break;
        if ((how & CLEAN_SPACE) != 0 && cp == 0x2581) break;
    }
    return i;
}

static void clean_text_is_found_whole(void **state)
{
    enum { SIZE = 300, UNITS = 30 };
    char t[SIZE + 8];
    struct rng_fake rng;
    (void)state;
    rng_fake_init(&rng, 21);
    for (uint32_t cp = 1; cp < 0x10000; cp++) { /* each character many times */
        char u[4];
        if (cp >= 0xd800 && cp < 0xe000) continue;
        size_t len = utf8_encode(cp, u);
        for (size_t i = 0; i < UNITS; i++) memcpy(t + i * len, u, len);
        for (unsigned how = 0; how < 4; how++)
            assert_int_equal(clean_prefix(t, UNITS * len, how), clean_slowly(t, UNITS * len, how));
    }
    for (int round = 0; round < 40000; round++) {
        static const uint32_t from[] = { 0x4e00, 0x3ff0, 0x9fe0, 0x2ff0, 0xfef8, 0x20, 0x2570 };
        size_t n = 0, kind = rng_below(&rng.rng, 12), want = rng_below(&rng.rng, SIZE);
        while (n < want) {
            size_t k = rng_below(&rng.rng, 40) == 0 ? rng_below(&rng.rng, 7) : kind % 7;
            n += utf8_encode(from[k] + (uint32_t)rng_below(&rng.rng, 80), t + n);
            if (rng_below(&rng.rng, 100) == 0) t[n++] = (char)rng_below(&rng.rng, 256);
        }
        for (unsigned how = 0; how < 4; how++)
            assert_int_equal(clean_prefix(t, n, how), clean_slowly(t, n, how));
    }
}

/* A character and a mark behind it that are said to stay do. */
static void what_stays_is_normal_as_it_stands(void **state)
{
    static const uint32_t first[] = { 'a',    '<',    ' ',    '1',    0xe0,   0x41,  0x915,
                                      0xcb0,  0xe30,  0x1100, 0x1160, 0x11a0, 0x300, 0x1f00,
                                      0x3000, 0x3042, 0x4e00, 0xac00, 0xff21, 0x5d0 };
    size_t found = 0;
    (void)state;
    for (uint32_t cp = 1; cp < 0x110000; cp++) {
        for (size_t i = 0; i < ARRAY_LEN(first); i++) {
            char t[9], *end = t + utf8_encode(first[i], t);
            struct buf text, points;
            if ((cp >= 0xd800 && cp < 0xe000) || (unicode_class(cp) & UC_CARE) == 0) break;
            if (!clean_stays(first[i], cp)) continue;
            end += utf8_encode(cp, end);
            size_t n = (size_t)(end - t);
            buf_init(&text, 4096);
            buf_init(&points, 4096);
            assert_int_equal(clean_cluster(t, n, false, CLEAN_NFC), n);
            assert_int_equal(clean_append(t, n, CLEAN_NFC, &points, &text), ERR_OK);
            assert_int_equal(text.len, n);
            assert_memory_equal(text.data, t, n);
            buf_done(&text);
            buf_done(&points);
            found++;
        }
    }
    assert_true(found > 1000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(clean_text_is_found_whole),
        cmocka_unit_test(cl100k_takes_a_space_before_words_and_three_digits),
        cmocka_unit_test(qwen_takes_single_digits),
        cmocka_unit_test(o200k_splits_words_by_case_and_keeps_contractions),
        cmocka_unit_test(deepseek_isolates_digits_and_kana),
        cmocka_unit_test(gpt2_has_no_newline_rule),
        cmocka_unit_test(a_piece_is_final_when_it_is_told_before_the_end),
        cmocka_unit_test(text_is_composed_as_in_unicode_9),
        cmocka_unit_test(what_stays_is_normal_as_it_stands),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
