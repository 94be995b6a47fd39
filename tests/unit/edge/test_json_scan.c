/* SPDX-License-Identifier: Apache-2.0 */
/* The JSON scanner: what it takes, what it refuses, and that slices and splices are where they
 * should be. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "services/edge/dialects/json_scan.h"

static const char *const good[] = {
    "{}",
    " [ ] ",
    "null",
    "-0.5e+10",
    "\"\\ud83d\\ude00\\n\"",
    "{\"a\":[1,2,{\"b\":null}],\"c\":\"}\"}",
    "[1E5,0,-1]",
    "\"\xe4\xbd\xa0\xe5\xa5\xbd\"",
};

static const char *const bad[] = {
    "",
    "{",
    "}",
    "[1,]",
    "{\"a\":1,}",
    "{\"a\" 1}",
    "{a:1}",
    "[01]",
    "[1.]",
    "[.5]",
    "[+1]",
    "[NaN]",
    "nul",
    "truex",
    "\"\t\"",
    "\"\\x\"",
    "\"\\u12\"",
    "\"open",
    "[1] [2]",
    "{\"a\":1]",
    "[1}",
    "\"\xff\"",
    "\"\xc0\x80\"",
    "[1e]",
    "{\"a\"}",
    "{\"a\":}",
    "[,1]",
    "{,}",
    "'a'",
    "[1 2]",
    "\xef\xbb\xbf{}",
};

static void takes_json_and_nothing_else(void **state)
{
    struct js_val v;
    struct why why;
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(good); i++) {
        if (js_parse(str_of(good[i]), &v, &why) != ERR_OK)
            fail_msg("refused %s: %s", good[i], why.text);
    }
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        if (js_parse(str_of(bad[i]), &v, &why) == ERR_OK) fail_msg("took %s", bad[i]);
    }
}

static void bounds_depth(void **state)
{
    char text[2 * (JS_MAX_DEPTH + 1)];
    struct js_val v;
    (void)state;
    memset(text, '[', JS_MAX_DEPTH);
    memset(text + JS_MAX_DEPTH, ']', JS_MAX_DEPTH);
    assert_int_equal(js_parse(str_n(text, 2 * JS_MAX_DEPTH), &v, NULL), ERR_OK);
    memset(text, '[', JS_MAX_DEPTH + 1);
    memset(text + JS_MAX_DEPTH + 1, ']', JS_MAX_DEPTH + 1);
    assert_int_equal(js_parse(str_n(text, sizeof text), &v, NULL), ERR_LIMIT);
}

static void walks_members(void **state)
{
    struct str text = STR(
        " { \"model\" : \"m\\\"x\" , \"n\":12, \"deep\":{\"a\":[1,\"]\",{}]},\"\\u0061\":true } ");
    struct js_val root, v;
    uint64_t n;
    (void)state;
    assert_int_equal(js_parse(text, &root, NULL), ERR_OK);
    v = js_get(root, "model");
    assert_true(str_eqz(v.raw, "\"m\\\"x\""));
    assert_int_equal(js_u64(js_get(root, "n"), &n), ERR_OK);
    assert_int_equal(n, 12);
    assert_true(str_eqz(js_get(root, "deep").raw, "{\"a\":[1,\"]\",{}]}"));
    assert_true(js_is(js_get(root, "a"), JS_TRUE)); /* an escaped key is the same key */
    assert_null(js_get(root, "b").raw.p);
    struct js_iter it;
    size_t elements = 0;
    js_iter_init(&it, js_get(js_get(root, "deep"), "a"));
    while (js_next_element(&it, &v)) elements++;
    assert_int_equal(elements, 3);
}

static void decodes_strings_and_finds_prefixes(void **state)
{
    static const struct {
        const char *raw, *plain;
    } cases[] = {
        { "\"abc\"", "abc" },
        { "\"a\\u00e9\\n\"", "a\xc3\xa9\n" },
        { "\"\\ud83d\\ude00!\"", "\xf0\x9f\x98\x80!" },
        { "\"\\ud83d!\"", "\xef\xbf\xbd!" }, /* a lone surrogate */
        { "\"\\/\\\\\\\"\"", "/\\\"" },
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct js_val v;
        struct buf b, part;
        buf_init(&b, 100), buf_init(&part, 100);
        assert_int_equal(js_parse(str_of(cases[i].raw), &v, NULL), ERR_OK);
        assert_int_equal(js_decode(v, &b), ERR_OK);
        assert_true(str_eqz(buf_str(&b), cases[i].plain));
        /* Every prefix of the plain text at a character's end has its raw prefix. */
        for (size_t n = 0; n <= b.len; n++) {
            if (n < b.len && ((unsigned char)b.data[n] & 0xc0) == 0x80) continue;
            size_t raw = js_raw_prefix(v, n);
            char text[100];
            struct js_val w;
            text[0] = '"';
            memcpy(text + 1, v.raw.p + 1, raw);
            text[raw + 1] = '"';
            assert_int_equal(js_parse(str_n(text, raw + 2), &w, NULL), ERR_OK);
            buf_clear(&part);
            assert_int_equal(js_decode(w, &part), ERR_OK);
            assert_int_equal(part.len, n);
            if (n > 0) assert_memory_equal(part.data, b.data, n);
        }
        buf_done(&b), buf_done(&part);
    }
}

/* Long strings are passed over many bytes at a time: what ends or spoils one is found wherever it
 * stands. */
static void finds_what_spoils_a_string_anywhere(void **state)
{
    static const struct {
        const char *text;
        bool good;
    } pieces[] = {
        { "\\n", true },           { "\\u12aF", true },
        { "\\\\", true },          { "\\\"", true },
        { "\xc3\xa9", true },      { "\\n\xc3\xa9", true },
        { "\xc3\xa9\\n", true },   { "\xc3\\n\xa9", false },
        { "\xed\xa0\x80", false }, { "\xf0\x9f\x98\x80", true },
        { "\x7f", true },          { "\n", false },
        { "\x1f", false },         { "\\x", false },
        { "\\u12g4", false },      { "\"", false },
        { "\xc3", false },
    };
    struct js_val v;
    (void)state;
    for (size_t n = 0; n < 50; n++)
        for (size_t at = 0; at <= n; at++)
            for (size_t i = 0; i < ARRAY_LEN(pieces); i++) {
                struct buf b;
                buf_init(&b, 1000);
                enum err e = buf_append_char(&b, '"');
                for (size_t k = 0; k <= n && e == ERR_OK; k++)
                    e = k == at ? buf_appendz(&b, pieces[i].text) : buf_append_char(&b, 'a');
                if (e == ERR_OK) e = buf_append_char(&b, '"');
                assert_int_equal(e, ERR_OK);
                e = js_parse(buf_str(&b), &v, NULL);
                assert_int_equal(e, pieces[i].good ? ERR_OK : ERR_INVALID);
                if (e == ERR_OK) assert_int_equal(v.raw.n, b.len);
                buf_done(&b);
            }
}

/* An object has no elements, an array no members, and what is neither has none of both. */
static void walks_what_it_is(void **state)
{
    static const char *const texts[] = { "{\"a\":{\"b\":5},\"\":5}", "[[1],{\"a\":2}]", "5",
                                         "\"a\"" };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        struct js_val v, el;
        struct js_iter it;
        struct str key;
        assert_int_equal(js_parse(str_of(texts[i]), &v, NULL), ERR_OK);
        js_iter_init(&it, v);
        if (v.type != JS_ARRAY) assert_false(js_next_element(&it, &el));
        if (v.type != JS_OBJECT) assert_false(js_next_member(&it, &key, &el));
    }
}

static void assert_same(struct js_val v, struct js_val marked)
{
    struct js_iter it, marked_it;
    struct str key, marked_key;
    struct js_val el, marked_el;
    assert_null(v.mark);
    assert_int_equal(v.type, marked.type);
    assert_ptr_equal(v.raw.p, marked.raw.p);
    assert_int_equal(v.raw.n, marked.raw.n);
    js_iter_init(&it, v);
    js_iter_init(&marked_it, marked);
    while (js_next_member(&it, &key, &el)) {
        assert_true(js_next_member(&marked_it, &marked_key, &marked_el));
        assert_ptr_equal(key.p, marked_key.p);
        assert_int_equal(key.n, marked_key.n);
        assert_same(el, marked_el);
    }
    assert_false(js_next_member(&marked_it, &marked_key, &marked_el));
    while (js_next_element(&it, &el)) {
        assert_true(js_next_element(&marked_it, &marked_el));
        assert_same(el, marked_el);
    }
    assert_false(js_next_element(&marked_it, &marked_el));
}

static void finds_the_same_by_marks(void **state)
{
    static const char *const texts[] = {
        " { \"model\" : \"m\\\"x\" , \"n\":12, \"deep\":{\"a\":[1,\"]\",{}]},\"\\u0061\":true } ",
        "[[[ ] , {} ],[{\"\":{}},-1.5e3,null],false] ",
        "{\"a\":1,\"a\":[2],\"a\":{\"a\":3}}",
        "\"text\"",
        " 7 ",
        "{}",
        "[]",
        "{\"a\":}",
        "[1,2",
        "[\"\xff\"]",
        "",
    };
    struct js_mark marks[JS_MARKS_MAX];
    struct js_val v, marked;
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        enum err e = js_parse(str_of(texts[i]), &v, NULL);
        assert_int_equal(js_parse_marked(str_of(texts[i]), marks, JS_MARKS_MAX, &marked, NULL), e);
        if (e != ERR_OK) continue;
        assert_ptr_equal(marked.mark, marks);
        assert_same(v, marked);
    }
}

/* Arrays in arrays, with as many values as there is room for, and more or fewer. */
static void goes_without_marks_where_they_do_not_fit(void **state)
{
    struct js_mark marks[JS_MARKS_MAX];
    struct js_val v, marked;
    (void)state;
    for (size_t n = JS_MARKS_MAX - 10; n < JS_MARKS_MAX + 10; n++) {
        char text[4 * JS_MARKS_MAX];
        size_t at = 0;
        text[at++] = '[';
        for (size_t i = 1; i + 1 < n; i += 2) {
            memcpy(text + at, "[5],", 4);
            at += 4;
        }
        if (n % 2 == 0) text[at++] = '6';
        if (text[at - 1] == ',') at--;
        text[at++] = ']';
        assert_int_equal(js_parse(str_n(text, at), &v, NULL), ERR_OK);
        assert_int_equal(js_parse_marked(str_n(text, at), marks, JS_MARKS_MAX, &marked, NULL),
                         ERR_OK);
        assert_int_equal(marked.mark != NULL, n <= JS_MARKS_MAX);
        assert_same(v, marked);
        size_t few = n - JS_MARKS_MAX + 11; /* 1 to 20: no byte behind them is written */
        struct js_mark behind = marks[few];
        assert_int_equal(js_parse_marked(str_n(text, at), marks, few, &marked, NULL), ERR_OK);
        assert_null(marked.mark);
        assert_memory_equal(&behind, &marks[few], sizeof behind);
        assert_same(v, marked);
    }
}

/* Quotes and backslashes anywhere, near and far. */
static void passes_over_strings(void **state)
{
    (void)state;
    for (size_t n = 0; n < 100; n++) {
        for (size_t slashes = 0; slashes <= 3; slashes++) {
            char text[256];
            struct js_val v, el;
            struct js_iter it;
            size_t at = 0;
            memcpy(text, "[\"", 2), at = 2;
            memset(text + at, 'x', n), at += n;
            memset(text + at, '\\', 2 * slashes), at += 2 * slashes;
            memcpy(text + at, "\\\"y\",7]", 7), at += 7;
            assert_int_equal(js_parse(str_n(text, at), &v, NULL), ERR_OK);
            js_iter_init(&it, v);
            assert_true(js_next_element(&it, &el));
            assert_int_equal(el.raw.n, n + 2 * slashes + 5);
            assert_true(js_next_element(&it, &el) && str_eqz(el.raw, "7"));
        }
    }
}

static void compares_keys(void **state)
{
    (void)state;
    assert_true(js_key_is(STR("content"), "content") && js_key_is(STR(""), ""));
    assert_true(js_key_is(STR("\\u0063ontent"), "content"));
    assert_true(js_key_is(STR("a\\\\b"), "a\\b") && !js_key_is(STR("a\\b"), "a\\b"));
    assert_false(js_key_is(STR("content"), "contents") || js_key_is(STR("contents"), "content"));
    assert_false(js_key_is(STR("conten\\u0054"), "content") || js_key_is(STR("a"), ""));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(takes_json_and_nothing_else),
        cmocka_unit_test(bounds_depth),
        cmocka_unit_test(walks_members),
        cmocka_unit_test(walks_what_it_is),
        cmocka_unit_test(finds_the_same_by_marks),
        cmocka_unit_test(goes_without_marks_where_they_do_not_fit),
        cmocka_unit_test(passes_over_strings),
        cmocka_unit_test(compares_keys),
        cmocka_unit_test(decodes_strings_and_finds_prefixes),
        cmocka_unit_test(finds_what_spoils_a_string_anywhere),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
