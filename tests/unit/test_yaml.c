/* SPDX-License-Identifier: Apache-2.0 */
/* YAML as JSON: what scalars mean, what is refused, and that printing and parsing agree. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "rt/yaml.h"

static void becomes(const char *yaml, const char *json)
{
    struct json *a = NULL, *b = NULL;
    struct why why = { "" };
    if (yaml_parse(str_of(yaml), 65536, &a, &why) != ERR_OK) fail_msg("%s: %s", yaml, why.text);
    assert_int_equal(json_parse(str_of(json), 65536, &b, &why), ERR_OK);
    if (!json_equal(a, b)) {
        struct buf text;
        buf_init(&text, 65536);
        assert_int_equal(json_print(a, &text), ERR_OK);
        fail_msg("%s gives %s, not %s", yaml, buf_z(&text), json);
    }
    json_free(a);
    json_free(b);
}

static void scalars_mean_what_the_core_schema_says(void **state)
{
    (void)state;
    becomes("a: 1", "{\"a\":1}");
    becomes("[null, ~, Null, true, False, -1, 1.5e3, 0]", "[null,null,null,true,false,-1,1500,0]");
    becomes("a:\nb: x", "{\"a\":null,\"b\":\"x\"}");
    becomes("['1', \"true\", !!str 7, yes, on, 007, +1, 0x1f, .5, 1., 1s]",
            "[\"1\",\"true\",\"7\",\"yes\",\"on\",\"007\",\"+1\",\"0x1f\",\".5\",\"1.\",\"1s\"]");
    becomes("- |\n  two\n  lines\n- >\n  one\n  line\n", "[\"two\\nlines\\n\",\"one line\\n\"]");
    becomes("{a: [b, {c: d}], e: {}}", "{\"a\":[\"b\",{\"c\":\"d\"}],\"e\":{}}");
    becomes("{\"json\": [1, \"\\u00e9\"]}", "{\"json\":[1,\"\xc3\xa9\"]}");
}

static void what_is_no_plain_document_is_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",
        "a: 1\na: 2",
        "a: &x 1\nb: *x",
        "&a [*a]",
        "a: !!int 1",
        "a: !custom x",
        "--- 1\n--- 2",
        "? [1]\n: 2",
        "a: [1",
        "a: \"\\0\"",
        "\xff\xfe",
        "a: b: c",
        "!!map {a: b}",
        "*x",
    };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct json *o = NULL;
        struct why why = { "" };
        if (yaml_parse(str_of(bad[i]), 65536, &o, &why) != ERR_INVALID) fail_msg("%s", bad[i]);
        assert_null(o);
        assert_true(why.text[0] != '\0');
    }
    char deep[400];
    memset(deep, '[', 200);
    memset(deep + 200, ']', 200);
    struct json *o = NULL;
    assert_int_equal(yaml_parse(str_n(deep, 400), 65536, &o, NULL), ERR_INVALID);
    assert_int_equal(yaml_parse(STR("a: b"), 3, &o, NULL), ERR_LIMIT);
}

static void what_is_printed_reads_back_the_same(void **state)
{
    (void)state;
    static const char text[] =
        "{\"a\":[1,-2.5,true,false,null,[],{},\"\",\"true\",\"null\",\"~\",\"1\",\"1e5\",\"- "
        "x\",\"a: b\",\"#c\",\" lead\",\"trail \",\"two\\nlines\",\"tab\\t\",\"\xe4\xbd\xa0\xe5\xa5"
        "\xbd\",\"*x\",\"&x\",\"!x\",\"'q'\",\"{\"],\"true\":{\"nested\":{\"deep\":[[1],[{\"x\":1}]"
        "]}},\"12\":\"key\"}";
    struct json *o = NULL, *again = NULL;
    struct buf yaml;
    struct why why = { "" };
    buf_init(&yaml, 65536);
    assert_int_equal(json_parse(str_of(text), 65536, &o, NULL), ERR_OK);
    assert_int_equal(yaml_print(o, &yaml), ERR_OK);
    if (yaml_parse(buf_str(&yaml), 65536, &again, &why) != ERR_OK)
        fail_msg("%s: %s", why.text, buf_z(&yaml));
    if (!json_equal(o, again)) fail_msg("%s", buf_z(&yaml));
    json_free(o);
    json_free(again);
    buf_done(&yaml);
    buf_init(&yaml, 4);
    assert_int_equal(json_parse(STR("[\"too long\"]"), 65536, &o, NULL), ERR_OK);
    assert_int_equal(yaml_print(o, &yaml), ERR_LIMIT);
    assert_int_equal(yaml.len, 0);
    json_free(o);
    buf_done(&yaml);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scalars_mean_what_the_core_schema_says),
        cmocka_unit_test(what_is_no_plain_document_is_refused),
        cmocka_unit_test(what_is_printed_reads_back_the_same),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
