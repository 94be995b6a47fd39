/* SPDX-License-Identifier: Apache-2.0 */
/* Adding usage records up. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "services/metrics/rollup.h"

enum { MODELS = 3 };

struct fixture {
    struct rollup_labels models;
    struct rollup *rollup;
};

static int setup(void **state)
{
    struct fixture *f = xcalloc(1, sizeof *f);
    rollup_labels_init(&f->models, MODELS);
    f->rollup = rollup_new(&f->models);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    rollup_free(f->rollup);
    rollup_labels_done(&f->models);
    free(f);
    return 0;
}

static const uint64_t day0 = 1736467200000u; /* 2025-01-10T00:00:00Z */

static struct usage_record record(uint64_t ts_ms)
{
    return (struct usage_record){ .ts_ms = ts_ms,
                                  .namespace_slug = STR("team-a"),
                                  .namespace_id = STR("ns-1"),
                                  .key_id = STR("key-1"),
                                  .route = STR("chat"),
                                  .model = STR("Qwen3-8B"),
                                  .upstream = STR("vllm"),
                                  .status = 200,
                                  .outcome = USAGE_OK,
                                  .input_tokens = 9,
                                  .output_tokens = 30,
                                  .cached_tokens = 4,
                                  .reasoning_tokens = 5,
                                  .cost = { 1000, STR("USD"), 1 },
                                  .has_ttft = true,
                                  .ttft_ms = 100,
                                  .duration_ms = 320,
                                  .overhead_us = 50 };
}

static const struct rollup_row *find(struct rollup *r, uint32_t step_s, uint64_t start_ms)
{
    size_t n;
    const struct rollup_row *rows = rollup_rows(r, &n), *found = NULL;
    for (size_t i = 0; i < n; i++) {
        if (rows[i].step_s != step_s || rows[i].start_ms != start_ms) continue;
        assert_null(found);
        found = &rows[i];
    }
    return found;
}

static void one_record_counts_in_every_step(void **state)
{
    struct fixture *f = *state;
    struct usage_record u = record(day0 + 3 * 3600000 + 5 * 60000 + 7);
    size_t n;
    assert_int_equal(rollup_add(f->rollup, &u), ERR_OK);
    (void)rollup_rows(f->rollup, &n);
    assert_int_equal(n, ROLLUP_STEPS);
    const struct {
        uint32_t step;
        uint64_t start;
    } want[] = { { 0, 0 },
                 { 60, day0 + 3 * 3600000 + 5 * 60000 },
                 { 3600, day0 + 3 * 3600000 },
                 { 86400, day0 } };
    for (size_t i = 0; i < ARRAY_LEN(want); i++) {
        const struct rollup_row *r = find(f->rollup, want[i].step, want[i].start);
        assert_non_null(r);
        const struct rollup_counts *c = &r->counts;
        assert_int_equal(c->requests, 1);
        assert_int_equal(c->input_tokens, 9);
        assert_int_equal(c->output_tokens, 30);
        assert_int_equal(c->cached_tokens, 4);
        assert_int_equal(c->reasoning_tokens, 5);
        assert_int_equal(c->cost_nano, 1000);
        assert_int_equal(c->duration_ms, 320);
        assert_int_equal(c->overhead_us, 50);
        assert_int_equal(c->ttft_ms, 100);
        assert_int_equal(c->ttft_count, 1);
    }
}

static void sums_add_up_and_minutes_stay_apart(void **state)
{
    struct fixture *f = *state;
    for (unsigned i = 0; i < 120; i++) {
        struct usage_record u = record(day0 + i * 1000);
        u.cost.nano = i % 2 == 0 ? 10 : -3;
        u.has_ttft = i % 3 == 0;
        assert_int_equal(rollup_add(f->rollup, &u), ERR_OK);
    }
    assert_int_equal(find(f->rollup, 60, day0)->counts.requests, 60);
    assert_int_equal(find(f->rollup, 60, day0 + 60000)->counts.requests, 60);
    const struct rollup_counts *all = &find(f->rollup, 0, 0)->counts;
    assert_int_equal(all->requests, 120);
    assert_int_equal(all->input_tokens, 120 * 9);
    assert_int_equal(all->cost_nano, 60 * 10 - 60 * 3);
    assert_int_equal(all->ttft_count, 40);
    assert_int_equal(all->ttft_ms, 4000);
}

static void every_label_makes_its_own_row(void **state)
{
    struct fixture *f = *state;
    struct usage_record base = record(day0), u[9];
    size_t n;
    for (size_t i = 0; i < ARRAY_LEN(u); i++) u[i] = base;
    u[1].namespace_id = STR("ns-2");
    u[2].key_id = STR("key-2");
    u[3].route = STR("other-route");
    u[4].model = STR("gpt");
    u[5].upstream = STR("openai");
    u[6].status = 502;
    u[7].outcome = USAGE_CUT;
    u[8].cost.currency = STR("EUR");
    for (size_t i = 0; i < ARRAY_LEN(u); i++)
        assert_int_equal(rollup_add(f->rollup, &u[i]), ERR_OK);
    assert_int_equal(rollup_add(f->rollup, &base), ERR_OK);
    (void)rollup_dims(f->rollup, &n);
    assert_int_equal(n, ARRAY_LEN(u));
    (void)rollup_rows(f->rollup, &n);
    assert_int_equal(n, ROLLUP_STEPS * ARRAY_LEN(u));
}

static void values_do_not_run_into_each_other(void **state)
{
    struct fixture *f = *state;
    struct usage_record a = record(day0), b = record(day0);
    size_t n;
    a.route = STR("ab"), a.upstream = STR("c");
    b.route = STR("a"), b.upstream = STR("bc");
    assert_int_equal(rollup_add(f->rollup, &a), ERR_OK);
    assert_int_equal(rollup_add(f->rollup, &b), ERR_OK);
    (void)rollup_dims(f->rollup, &n);
    assert_int_equal(n, 2);
}

static void renaming_a_namespace_keeps_its_row(void **state)
{
    struct fixture *f = *state;
    struct usage_record a = record(day0), b = record(day0);
    size_t n;
    b.namespace_slug = STR("team-b");
    assert_int_equal(rollup_add(f->rollup, &a), ERR_OK);
    assert_int_equal(rollup_add(f->rollup, &b), ERR_OK);
    (void)rollup_dims(f->rollup, &n);
    assert_int_equal(n, 1);
    /* Without an id the slug has to do. */
    a.namespace_id = STR_NULL;
    assert_int_equal(rollup_add(f->rollup, &a), ERR_OK);
    const struct rollup_dim *const *dims = rollup_dims(f->rollup, &n);
    assert_int_equal(n, 2);
    assert_true(str_eqz(dims[1]->namespace_id, "team-a"));
}

static void models_beyond_the_bound_are_other(void **state)
{
    struct fixture *f = *state;
    char names[10][16];
    size_t n, others = 0;
    for (unsigned i = 0; i < 10; i++) {
        struct usage_record u = record(day0);
        (void)snprintf(names[i], sizeof names[i], "model-%u", i);
        u.model = str_of(names[i]);
        assert_int_equal(rollup_add(f->rollup, &u), ERR_OK);
    }
    const struct rollup_dim *const *dims = rollup_dims(f->rollup, &n);
    assert_int_equal(n, MODELS + 1);
    for (size_t i = 0; i < n; i++) others += str_eqz(dims[i]->model, "other") ? 1 : 0;
    assert_int_equal(others, 1);
    /* Those that were seen stay themselves after a clear. */
    rollup_clear(f->rollup);
    struct usage_record u = record(day0);
    u.model = STR("model-2");
    assert_int_equal(rollup_add(f->rollup, &u), ERR_OK);
    dims = rollup_dims(f->rollup, &n);
    assert_true(str_eqz(dims[0]->model, "model-2"));
}

static void latencies_fall_into_their_buckets(void **state)
{
    struct fixture *f = *state;
    static const uint64_t ms[] = { 0, 10, 11, 320, 81920, 81921, 5000000 };
    static const size_t want[] = { 0, 0, 1, 5, 13, 14, 14 };
    uint64_t counts[ROLLUP_BUCKETS] = { 0 };
    for (size_t i = 0; i < ARRAY_LEN(ms); i++) {
        struct usage_record u = record(day0);
        u.duration_ms = ms[i];
        assert_int_equal(rollup_add(f->rollup, &u), ERR_OK);
        counts[want[i]]++;
    }
    const struct rollup_row *r = find(f->rollup, 0, 0);
    assert_memory_equal(r->counts.latency, counts, sizeof counts);
}

static void rows_come_in_the_same_order_everywhere(void **state)
{
    struct fixture *f = *state;
    size_t n;
    for (unsigned i = 0; i < 200; i++) {
        struct usage_record u = record(day0 + (i * 7919 % 200) * 61000);
        u.status = 200 + i % 5;
        assert_int_equal(rollup_add(f->rollup, &u), ERR_OK);
    }
    const struct rollup_row *r = rollup_rows(f->rollup, &n);
    for (size_t i = 1; i < n; i++) {
        bool later = r[i - 1].step_s < r[i].step_s ||
                     (r[i - 1].step_s == r[i].step_s && r[i - 1].start_ms < r[i].start_ms) ||
                     (r[i - 1].step_s == r[i].step_s && r[i - 1].start_ms == r[i].start_ms &&
                      strcmp(r[i - 1].dim->id, r[i].dim->id) < 0);
        assert_true(later);
    }
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(one_record_counts_in_every_step),    T(sums_add_up_and_minutes_stay_apart),
        T(every_label_makes_its_own_row),      T(values_do_not_run_into_each_other),
        T(renaming_a_namespace_keeps_its_row), T(models_beyond_the_bound_are_other),
        T(latencies_fall_into_their_buckets),  T(rows_come_in_the_same_order_everywhere),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
