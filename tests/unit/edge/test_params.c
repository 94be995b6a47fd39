/* SPDX-License-Identifier: Apache-2.0 */
/* A route's default and maximum parameters, and its edits of header fields. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "services/edge/match/edits.h"
#include "services/edge/match/params.h"

static const struct snap_param list[] = {
    { .name = { "temperature", 11 }, .value = { "0.7", 3 }, .max = { "1", 1 }, .max_number = 1 },
    { .name = { "top_p", 5 }, .max = { "0.9", 3 }, .max_number = 0.9 },
    { .name = { "stop", 4 }, .value = { "[\"END\"]", 7 } },
    { .name = { "max_tokens", 10 }, .value = { "64", 2 }, .max = { "100", 3 }, .max_number = 100 },
    { .name = { "n", 1 }, .max = { "2", 1 }, .max_number = 2 },
};
static const struct snap_route route = { .params = list, .params_n = ARRAY_LEN(list) };

/* What becomes of a body: its edits, as "name=value" each. */
static const char *edits_of(const char *body, struct request_scan *scan, struct params *p)
{
    static char text[256];
    struct js_val found[ARRAY_LEN(list)], root;
    const struct js_val *places[ARRAY_LEN(list)];
    struct buf b;
    assert_int_equal(js_parse(str_of(body), &root, NULL), ERR_OK);
    for (size_t i = 0; i < ARRAY_LEN(list); i++) {
        found[i] = js_get(root, list[i].name.p);
        places[i] = &found[i];
    }
    scan->root = root;
    params_apply(&route, places, scan, p);
    buf_init(&b, sizeof text);
    for (size_t i = 0; i < p->edits_n; i++)
        assert_int_equal(buf_printf(&b, "%s%.*s%s%.*s", i > 0 ? " " : "", STR_ARG(p->edits[i].name),
                                    p->edits[i].at.raw.p ? ":=" : "=", STR_ARG(p->edits[i].value)),
                         ERR_OK);
    (void)str_copyz(text, sizeof text, buf_str(&b));
    buf_done(&b);
    return text;
}

static void what_is_missing_comes_and_what_is_too_large_is_lowered(void **state)
{
    static const struct {
        const char *body, *edits;
    } rows[] = {
        { "{}", "temperature=0.7 stop=[\"END\"]" },
        { "{\"temperature\":0.2,\"stop\":\"x\"}", "" },
        { "{\"temperature\":2,\"stop\":null}", "temperature:=1 stop:=[\"END\"]" },
        { "{\"temperature\":null,\"stop\":[]}", "temperature:=0.7" },
        { "{\"temperature\":1.0,\"stop\":0,\"top_p\":0.95}", "top_p:=0.9" },
        { "{\"temperature\":1e400,\"stop\":0}", "temperature:=1" },
        { "{\"temperature\":-3,\"stop\":0}", "" },
        { "{\"temperature\":\"hot\",\"stop\":0}", "" },
        { "{\"temperature\":0,\"stop\":0,\"n\":5}", "n:=2" },
        { "{\"temperature\":11111111111111111111111111111111111111111111111111111111111111111,"
          "\"stop\":0}",
          "temperature:=1" },
    };
    struct request_scan scan = { .choices = 1 };
    struct params p;
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        const char *got = edits_of(rows[i].body, &scan, &p);
        if (strcmp(got, rows[i].edits) != 0) fail_msg("%s: %s", rows[i].body, got);
    }
}

static void the_bound_of_the_output_enters_what_is_reserved(void **state)
{
    struct params p;
    struct request_scan scan = { .choices = 1 };
    (void)state;
    (void)edits_of("{}", &scan, &p);
    assert_int_equal(p.output_max, 100);
    assert_true(str_eqz(p.output_name, "max_tokens"));
    assert_int_equal(p.output_default, 64);
    assert_int_equal(scan.max_tokens, 64);
    scan.max_tokens = 5000;
    (void)edits_of("{\"max_completion_tokens\":5000}", &scan, &p);
    assert_int_equal(scan.max_tokens, 100);
    scan.max_tokens = 7;
    (void)edits_of("{\"max_tokens\":7}", &scan, &p);
    assert_int_equal(scan.max_tokens, 7);
}

static void fewer_choices_are_counted(void **state)
{
    struct params p;
    struct request_scan scan = { .choices = 15 }; /* three prompts, five texts each */
    (void)state;
    (void)edits_of("{\"n\":5,\"temperature\":0,\"stop\":0}", &scan, &p);
    assert_int_equal(scan.choices, 6);
    scan.choices = 5;
    (void)edits_of("{\"n\":4,\"best_of\":5,\"temperature\":0,\"stop\":0}", &scan, &p);
    assert_int_equal(scan.choices, 5);
}

static void fields_are_removed_set_and_added(void **state)
{
    static const struct str gone[] = { { "X-Internal", 10 } };
    static const struct snap_field set[] = { { { "x-team", 6 }, { "red", 3 } } },
                                   more[] = { { { "x-tag", 5 }, { "a", 1 } },
                                              { { "x-tag", 5 }, { "", 0 } } };
    const struct snap_header_edits e = {
        .set = set, .set_n = 1, .add = more, .add_n = 2, .remove = { gone, 1 }
    };
    struct buf b;
    (void)state;
    buf_init(&b, 256);
    assert_true(edits_drop(&e, STR("x-internal")));
    assert_true(edits_drop(&e, STR("X-TEAM")));
    assert_false(edits_drop(&e, STR("x-tag")));
    assert_int_equal(edits_append(&e, &b), ERR_OK);
    assert_string_equal(buf_z(&b), "x-team: red\r\nx-tag: a\r\nx-tag: \r\n");
    buf_done(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_missing_comes_and_what_is_too_large_is_lowered),
        cmocka_unit_test(the_bound_of_the_output_enters_what_is_reserved),
        cmocka_unit_test(fewer_choices_are_counted),
        cmocka_unit_test(fields_are_removed_set_and_added),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
