/* SPDX-License-Identifier: Apache-2.0 */
/* What images cost: the rules as providers document them, sizes from headers, and bad input. */
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "tokenizer/chat/images.h"

static uint64_t cost(const char *model, uint32_t w, uint32_t h, bool low)
{
    struct image_rule r;
    struct why why;
    struct str line = image_rules_find(image_rules_builtin(), str_of(model));
    if (image_rule_parse(line, &r, &why) != ERR_OK) fail_msg("%s: %s", model, why.text);
    return image_tokens(&r, (struct image_size){ w, h }, low);
}

static void the_built_in_rules_are_well_formed(void **state)
{
    (void)state;
    struct why why = { "" };
    if (image_rules_check(image_rules_builtin(), &why) != ERR_OK) fail_msg("%s", why.text);
}

/* Numbers that OpenAI, Anthropic and Google give as examples. */
static void documented_examples_come_out(void **state)
{
    (void)state;
    assert_int_equal(cost("gpt-4o", 1024, 1024, false), 765);
    assert_int_equal(cost("gpt-4o-2024-08-06", 2048, 4096, false), 1105);
    assert_int_equal(cost("gpt-4.1", 4096, 8192, true), 85);
    assert_int_equal(cost("gpt-4o-mini", 128, 64, true), 2833);
    assert_int_equal(cost("gpt-4o-mini", 128, 64, false), 8500);
    assert_int_equal(cost("gpt-4.1-mini", 1024, 1024, false), (1024 * 1620 + 999) / 1000);
    assert_int_equal(cost("o4-mini", 1800, 2400, false), (1452 * 1720 + 999) / 1000);
    assert_int_equal(cost("claude-sonnet-4-5", 1000, 1000, false), 1334);
    assert_int_equal(cost("claude-3-5-sonnet", 200, 200, false), 54);
    assert_int_equal(cost("claude-3-opus", 8000, 8000, false), 1600);
    assert_int_equal(cost("gemini-2.0-flash", 384, 384, false), 258);
    assert_int_equal(cost("gemini-2.0-flash", 769, 768, false), 516);
    assert_int_equal(cost("gemma-3-27b-it", 5000, 5000, false), 256);
}

static void qwens_grid_rounds_grows_and_shrinks(void **state)
{
    (void)state;
    assert_int_equal(cost("Qwen2.5-VL-7B-Instruct", 280, 280, false), 102);
    assert_int_equal(cost("Qwen2.5-VL-7B-Instruct", 10, 10, false), 4 + 2);
    assert_int_equal(cost("Qwen2.5-VL-7B-Instruct", 20000, 20000, false), 127 * 127 + 2);
    assert_int_equal(cost("Qwen2.5-VL-7B-Instruct", 7000, 3000, false), 195 * 83 + 2);
    assert_int_equal(cost("Qwen3-VL-8B", 320, 320, false), 102);
    assert_int_equal(cost("Qwen2.5-VL-7B-Instruct", 70, 70, false), 2 * 2 + 2); /* half to even */
    assert_int_equal(cost("Qwen2.5-VL-7B-Instruct", 30, 30, false), 4 + 2);
}

static void no_size_breaks_a_rule(void **state)
{
    (void)state;
    static const char *const models[] = {
        "gpt-4o", "o4-mini", "qwen3-vl", "claude-x", "gemini", "x"
    };
    static const uint32_t sides[] = { 1, 2, 31, 33, 767, 769, 4097, IMAGE_SIDE_MAX };
    for (size_t m = 0; m < ARRAY_LEN(models); m++)
        for (size_t i = 0; i < ARRAY_LEN(sides); i++)
            for (size_t k = 0; k < ARRAY_LEN(sides); k++)
                assert_in_range(cost(models[m], sides[i], sides[k], false), 1, 1000000000);
}

static void a_line_that_is_wrong_is_refused(void **state)
{
    (void)state;
    static const char *const lines[] = {
        "",
        "x",
        "x ; cubes ; side=1",
        "x ; tiles ; side=0 assume=1x1",
        "x ; tiles ; side=512",
        "x ; tiles ; side=512 assume=0x1",
        "x ; tiles ; side=-1 assume=1x1",
        "x ; tiles ; side=512 wide=1 assume=1x1",
        "x ; grid ; side=28 min=9 max=8 assume=1x1",
        "x ; patches ; side=32 cap=0 factor=1 assume=1x1",
        "x ; tiles ; side=99999999999 assume=1x1",
    };
    for (size_t i = 0; i < ARRAY_LEN(lines); i++) {
        struct image_rule r;
        struct why why = { "" };
        if (image_rule_parse(str_of(lines[i]), &r, &why) != ERR_INVALID) fail_msg("%s", lines[i]);
        assert_true(why.text[0] != '\0');
    }
    assert_null(image_rules_find(STR("# x\n\n gpt-*; tiles"), STR("other")).p);
}

#define HEADER(bytes) str_n(bytes, sizeof bytes - 1)

static void expect_size(struct str text, bool base64, uint32_t w, uint32_t h)
{
    struct image_size s = { 0, 0 };
    assert_int_equal(image_size_read(text, base64, &s), ERR_OK);
    assert_int_equal(s.w, w);
    assert_int_equal(s.h, h);
}

static void headers_say_the_size(void **state)
{
    (void)state;
    expect_size(HEADER("\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\x08\0\0\0\x10\0"), false, 2048, 4096);
    expect_size(HEADER("GIF89a\x40\x01\xf0\0"), false, 320, 240);
    expect_size(HEADER("RIFF\0\0\0\0WEBPVP8X\0\0\0\0\0\0\0\0\xff\x03\0\xff\x01\0"), false, 1024,
                512);
    expect_size(HEADER("RIFF\0\0\0\0WEBPVP8 \0\0\0\0\0\0\0\x9d\x01\x2a\x80\x02\xe0\x01"), false,
                640, 480);
    expect_size(HEADER("RIFF\0\0\0\0WEBPVP8L\0\0\0\0\x2f\x7f\xc2\x77\0"), false, 640, 480);
    expect_size(
        HEADER("\xff\xd8\xff\xe0\0\x06JFIF\xff\xff\xdb\0\x03x\xff\xc2\0\x0b\x08\x01\xe0\x02\x80"),
        false, 640, 480);
    expect_size(STR("R0lGODlhQAHwAA=="), true, 320, 240);
    expect_size(STR("/9j/4AAGSkZJRv/AAAsIAeACgA"), true, 640, 480);
}

static void what_is_no_image_is_refused(void **state)
{
    (void)state;
    static const struct str bad[] = {
        { "", 0 },
        { "\x89PNG\r\n\x1a\n", 8 },
        { "GIF89a\0\0\1\0", 10 },
        { "\xff\xd8", 2 },
        { "\xff\xd8\xff\xd9\0\0", 6 },
        { "\xff\xd8\xff\xe0\0\1", 6 },
        { "RIFF....WEBPVP8?", 16 },
        { "BM", 2 },
    };
    struct image_size s;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        assert_int_equal(image_size_read(bad[i], false, &s), ERR_UNSUPPORTED);
    assert_int_equal(image_size_read(STR("R0lGODlhQ!HwAA=="), true, &s), ERR_UNSUPPORTED);
    assert_int_equal(image_size_of_url(STR("https://x/a.png"), &s), ERR_NOT_FOUND);
    assert_int_equal(image_size_of_url(STR("data:image/png;base64"), &s), ERR_NOT_FOUND);
    assert_int_equal(image_size_of_url(STR("DATA:image/gif;base64,R0lGODlhQAHwAA=="), &s), ERR_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_built_in_rules_are_well_formed),
        cmocka_unit_test(documented_examples_come_out),
        cmocka_unit_test(qwens_grid_rounds_grows_and_shrinks),
        cmocka_unit_test(no_size_breaks_a_rule),
        cmocka_unit_test(a_line_that_is_wrong_is_refused),
        cmocka_unit_test(headers_say_the_size),
        cmocka_unit_test(what_is_no_image_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
