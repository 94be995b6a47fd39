/* SPDX-License-Identifier: Apache-2.0 */
/* Members that are wanted by their pointers are found by the pass that validates. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "base/clock.h"
#include "services/edge/dialects/json_want.h"

static const char doc[] = "{\"model\":\"m\",\"metadata\":{\"team\":\"a b\",\"n\":12,\"x/y\":true,"
                          "\"deep\":[[1,{\"k\":\"v\"}],null]},\"tags\":[\"p\",\"q\",{\"r\":[]}],"
                          "\"\":1,\"t\\u0065mp\":0.5,\"a~b\":{}}";

static void pointers_lead_to_their_values(void **state)
{
    static const struct {
        const char *pointer, *raw;
        enum js_type type;
    } rows[] = {
        { "/model", "\"m\"", JS_STRING },
        { "/metadata/team", "\"a b\"", JS_STRING },
        { "/metadata/n", "12", JS_NUMBER },
        { "/metadata/x~1y", "true", JS_TRUE },
        { "/metadata/deep/0/1/k", "\"v\"", JS_STRING },
        { "/metadata/deep/0", "[1,{\"k\":\"v\"}]", JS_ARRAY },
        { "/metadata/deep/1", "null", JS_NULL },
        { "/metadata/deep/2", NULL, JS_NULL },
        { "/metadata/deep/00", NULL, JS_NULL },
        { "/tags", "[\"p\",\"q\",{\"r\":[]}]", JS_ARRAY },
        { "/tags/1", "\"q\"", JS_STRING },
        { "/tags/2/r", "[]", JS_ARRAY },
        { "/tags/q", NULL, JS_NULL },
        { "/", "1", JS_NUMBER },
        { "/temp", "0.5", JS_NUMBER },
        { "/a~0b", "{}", JS_OBJECT },
        { "/model/x", NULL, JS_NULL },
        { "/none", NULL, JS_NULL },
    };
    struct js_wants *w = js_wants_new();
    struct js_val root, found[JS_WANTS_MAX];
    struct why why;
    size_t place;
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        assert_int_equal(js_wants_add(w, str_of(rows[i].pointer), &place), ERR_OK);
        assert_int_equal(place, i);
    }
    assert_int_equal(js_wants_add(w, STR("/model"), &place), ERR_OK);
    assert_int_equal(place, 0);
    assert_int_equal(js_wants_count(w), ARRAY_LEN(rows));
    assert_int_equal(js_parse_wanting(str_of(doc), w, &root, found, &why), ERR_OK);
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        if (rows[i].raw == NULL) {
            if (found[i].raw.p != NULL) fail_msg("%s", rows[i].pointer);
        } else if (!str_eqz(found[i].raw, rows[i].raw) || found[i].type != rows[i].type) {
            fail_msg("%s: %.*s", rows[i].pointer, STR_ARG(found[i].raw));
        }
    }
    js_wants_free(w);
}

static void what_servers_could_read_otherwise_is_refused(void **state)
{
    static const struct {
        const char *text;
        bool good;
    } rows[] = {
        { "{\"metadata\":{\"team\":1}}", true },
        { "{\"metadata\":{\"team\":1,\"team\":2}}", false },
        { "{\"metadata\":{\"team\":1,\"t\\u0065am\":2}}", false },
        { "{\"metadata\":{\"team\":1},\"metadata\":{}}", false },
        { "{\"metadata\":{\"team\":1},\"Metadata\":{}}", false },
        { "{\"METADATA\":{\"team\":1}}", false },
        { "{\"metadata\":{\"Team\":1}}", false },
        { "{\"metadata\":{\"other\":1,\"other\":2}}", true },
        { "{\"x\":{\"team\":1},\"x\":{\"team\":2}}", true },
        { "{\"x\":{\"metadata\":{\"team\":1}},\"metadata\":{\"team\":2}}", true },
        { "[{\"metadata\":1},{\"metadata\":1}]", true },
    };
    struct js_wants *w = js_wants_new();
    struct js_val root, found[1];
    struct why why;
    size_t place;
    (void)state;
    assert_int_equal(js_wants_add(w, STR("/metadata/team"), &place), ERR_OK);
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        if ((js_parse_wanting(str_of(rows[i].text), w, &root, found, &why) == ERR_OK) !=
            rows[i].good)
            fail_msg("%s", rows[i].text);
    js_wants_free(w);
}

static void pointers_that_are_none(void **state)
{
    static const char *const bad[] = { "", "a", "/~", "/~2", "/a~", "/1/2/3/4/5/6/7/8/9" };
    struct js_wants *w = js_wants_new();
    char text[JS_WANT_POINTER_MAX + 2];
    size_t place;
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        assert_int_equal(js_wants_add(w, str_of(bad[i]), &place), ERR_INVALID);
    memset(text, '/', 1);
    memset(text + 1, 'a', JS_WANT_POINTER_MAX);
    assert_int_equal(js_wants_add(w, str_n(text, sizeof text - 1), &place), ERR_INVALID);
    assert_int_equal(js_wants_add(w, STR("/1/2/3/4/5/6/7/8"), &place), ERR_OK);
    for (int i = 1; i < JS_WANTS_MAX; i++) {
        (void)snprintf(text, sizeof text, "/w%d", i);
        assert_int_equal(js_wants_add(w, str_of(text), &place), ERR_OK);
    }
    assert_int_equal(js_wants_add(w, STR("/one/more"), &place), ERR_LIMIT);
    struct js_val root, found[JS_WANTS_MAX];
    assert_int_equal(js_parse_wanting(STR("{\"1\":{\"2\":{\"3\":{\"4\":{\"5\":{\"6\":{\"7\":{\"8\":"
                                          "[[{\"9\":0}]]}}}}}}},\"w63\":7}"),
                                      w, &root, found, NULL),
                     ERR_OK);
    assert_true(str_eqz(found[0].raw, "[[{\"9\":0}]]"));
    assert_true(str_eqz(found[63].raw, "7"));
    js_wants_free(w);
}

/* What a pointer leads to by walking, one step after the other. */
static struct js_val walk(struct js_val v, char steps[3][2], int n)
{
    for (int i = 0; i < n; i++) {
        struct js_val next = JS_ABSENT;
        if (js_is(v, JS_OBJECT)) {
            next = js_get(v, steps[i]);
        } else if (js_is(v, JS_ARRAY)) {
            struct js_iter it;
            struct js_val one;
            js_iter_init(&it, v);
            for (char at = '0'; js_next_element(&it, &one); at++)
                if (at == steps[i][0]) next = one;
        }
        v = next;
        if (v.raw.p == NULL) break;
    }
    return v;
}

static size_t write_random(struct rng *rng, char *out, int depth)
{
    size_t n = 0;
    uint64_t kind = depth == 0 ? 2 : rng_below(rng, 4), members = rng_below(rng, 3);
    if (kind >= 2 && depth < 3 && rng_below(rng, 3) > 0) {
        out[n++] = kind == 2 ? '{' : '[';
        for (uint64_t i = 0; i < members; i++) {
            if (i > 0) out[n++] = ',';
            if (kind == 2)
                memcpy(out + n, "\"a\":", 4), out[n + 1] = (char)(out[n + 1] + (char)i), n += 4;
            n += write_random(rng, out + n, depth + 1);
        }
        out[n++] = kind == 2 ? '}' : ']';
        return n;
    }
    out[n++] = (char)('1' + (char)kind);
    return n;
}

static void the_same_as_walking(void **state)
{
    struct rng_fake rng;
    (void)state;
    rng_fake_init(&rng, 3);
    for (int round = 0; round < 20000; round++) {
        char text[512], pointers[8][8], steps[8][3][2];
        int depths[8];
        struct js_val root, found[8];
        struct js_wants *w = js_wants_new();
        size_t n = write_random(&rng.rng, text, 0), place;
        for (int i = 0; i < 8; i++) {
            size_t at = 0;
            depths[i] = 1 + (int)rng_below(&rng.rng, 3);
            for (int k = 0; k < depths[i]; k++) {
                char c = "ab01"[rng_below(&rng.rng, 4)];
                steps[i][k][0] = c, steps[i][k][1] = '\0';
                pointers[i][at++] = '/', pointers[i][at++] = c;
            }
            pointers[i][at] = '\0';
            assert_int_equal(js_wants_add(w, str_of(pointers[i]), &place), ERR_OK);
        }
        assert_int_equal(js_parse_wanting(str_n(text, n), w, &root, found, NULL), ERR_OK);
        for (int i = 0; i < 8; i++) {
            assert_int_equal(js_wants_add(w, str_of(pointers[i]), &place), ERR_OK);
            struct js_val want = walk(root, steps[i], depths[i]);
            if (want.raw.p != found[place].raw.p || want.raw.n != found[place].raw.n)
                fail_msg("%s in %.*s", pointers[i], (int)n, text);
        }
        js_wants_free(w);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pointers_lead_to_their_values),
        cmocka_unit_test(what_servers_could_read_otherwise_is_refused),
        cmocka_unit_test(pointers_that_are_none),
        cmocka_unit_test(the_same_as_walking),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
