/* SPDX-License-Identifier: Apache-2.0 */
/* Questions to the ledger: the message and its arguments. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <dirent.h>
#include <stdio.h>

#include "proto/envelope.h"
#include "proto/query_msg.h"

static void what_is_encoded_is_decoded(void **state)
{
    struct metrics_query q = { .kind = METRICS_SERIES,
                               .from_ms = 1736467200000u,
                               .to_ms = 1736470800000u,
                               .step_s = 60,
                               .limit = 7 };
    struct metrics_query back;
    struct json *m = json_object();
    struct arena arena;
    struct why why = { "" };
    (void)state;
    q.filter[METRICS_DIM_NAMESPACE] = STR("team-a");
    q.filter[METRICS_DIM_STATUS] = STR("200");
    q.group_by[METRICS_DIM_MODEL] = true;
    q.cursor = STR("01944d2e-8a00-7cc3-98c4-dc0c0c07398f");
    metrics_query_encode(&q, m);
    arena_init(&arena, 4096);
    if (metrics_query_decode(m, &arena, &back, &why) != ERR_OK) fail_msg("%s", why.text);
    assert_int_equal(back.kind, q.kind);
    assert_int_equal(back.from_ms, q.from_ms);
    assert_int_equal(back.to_ms, q.to_ms);
    assert_int_equal(back.step_s, 60);
    assert_int_equal(back.limit, 7);
    assert_true(str_eq(back.cursor, q.cursor));
    for (size_t i = 0; i < METRICS_DIM_MAX; i++) {
        assert_true(str_eq(back.filter[i], q.filter[i]));
        assert_int_equal(back.group_by[i], q.group_by[i]);
    }
    arena_done(&arena);
    json_free(m);
}

static void bad_questions_are_refused(void **state)
{
    static const char *const bad[] = {
        "{}",
        "{\"kind\":\"everything\"}",
        "{\"kind\":\"totals\",\"group_by\":[\"user\"]}",
        "{\"kind\":\"totals\",\"group_by\":\"model\"}",
        "{\"kind\":\"totals\",\"filter\":[]}",
        "{\"kind\":\"totals\",\"filter\":{\"model\":5}}",
        "{\"kind\":\"totals\",\"from_ts\":\"yesterday\"}",
        "{\"kind\":\"totals\",\"from_ts\":\"2025-01-10T00:00:00Z\",\"to_ts\":\"2025-01-10T00:00:00Z\"}",
        "{\"kind\":\"series\",\"step\":\"5m\"}",
        "{\"kind\":\"records\",\"limit\":100000}",
        "{\"kind\":\"records\",\"cursor\":\"x\"}",
        "{\"kind\":\"records\",\"filter\":{\"route\":\"chat\"}}",
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct metrics_query q = { .limit = 99 };
        struct json *m;
        struct arena arena;
        struct why why = { "" };
        arena_init(&arena, 4096);
        assert_int_equal(json_parse(str_of(bad[i]), 4096, &m, NULL), ERR_OK);
        if (metrics_query_decode(m, &arena, &q, &why) != ERR_INVALID) fail_msg("took %s", bad[i]);
        assert_true(why.text[0] != '\0');
        assert_int_equal(q.limit, 99);
        json_free(m);
        arena_done(&arena);
    }
}

static void arguments_are_read(void **state)
{
    bool g[METRICS_DIM_MAX] = { false };
    unsigned step = 0;
    uint64_t ms = 0;
    (void)state;
    assert_int_equal(metrics_group_by_parse(STR("namespace, model"), g, NULL), ERR_OK);
    assert_true(g[METRICS_DIM_NAMESPACE] && g[METRICS_DIM_MODEL] && !g[METRICS_DIM_KEY]);
    assert_int_equal(metrics_group_by_parse(STR("namespace,"), g, NULL), ERR_OK);
    assert_int_equal(metrics_group_by_parse(STR("nothing"), g, NULL), ERR_INVALID);
    assert_int_equal(metrics_step_parse(STR("1h"), &step), ERR_OK);
    assert_int_equal(step, 3600);
    assert_int_equal(metrics_time_parse(STR("1736467200000"), &ms), ERR_OK);
    assert_int_equal(ms, 1736467200000u);
    assert_int_equal(metrics_time_parse(STR("2025-01-10T00:00:00Z"), &ms), ERR_OK);
    assert_int_equal(ms, 1736467200000u);
    assert_int_equal(metrics_time_parse(STR("9999-01-10T00:00:00Z"), &ms), ERR_INVALID);
    assert_int_equal(metrics_time_parse(STR("99999999999999999"), &ms), ERR_INVALID);
}

static enum err take(struct str text, struct why *why)
{
    struct metrics_query q;
    struct json *m = NULL;
    struct arena arena;
    arena_init(&arena, 4096);
    enum err e = envelope_parse(text, &m, why);
    if (e == ERR_OK) e = metrics_query_decode(m, &arena, &q, why);
    json_free(m);
    arena_done(&arena);
    return e;
}

static int samples(const char *folder, bool good)
{
    int n = 0;
    struct dirent *entry;
    DIR *dir = opendir(folder);
    if (dir == NULL) fail_msg("%s", folder);
    while ((entry = readdir(dir)) != NULL) {
        char path[512], text[4096];
        struct why why = { "" };
        if (entry->d_name[0] == '.') continue;
        (void)snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
        FILE *f = fopen(path, "rb");
        assert_non_null(f);
        size_t len = fread(text, 1, sizeof text, f);
        fclose(f);
        enum err e = take(str_n(text, len), &why);
        if ((e == ERR_OK) != good) fail_msg("%s: %s %s", path, err_name(e), why.text);
        n++;
    }
    closedir(dir);
    return n;
}

static void samples_are_what_they_are_called(void **state)
{
    (void)state;
    assert_int_equal(samples("proto/samples/metrics_query/good", true), 4);
    assert_int_equal(samples("proto/samples/metrics_query/bad", false), 11);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_encoded_is_decoded),
        cmocka_unit_test(bad_questions_are_refused),
        cmocka_unit_test(arguments_are_read),
        cmocka_unit_test(samples_are_what_they_are_called),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
