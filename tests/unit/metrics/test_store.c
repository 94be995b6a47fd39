/* SPDX-License-Identifier: Apache-2.0 */
/* The ledger in SQLite, and questions to it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/uuid.h"
#include "rt/json.h"
#include "services/metrics/query.h"
#include "services/metrics/store.h"

struct fixture {
    char dir[64], url[128];
    struct store *store;
};

static int setup(void **state)
{
    struct fixture *f = xcalloc(1, sizeof *f);
    struct why why = { "" };
    (void)snprintf(f->dir, sizeof f->dir, "/tmp/test-store-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    (void)snprintf(f->url, sizeof f->url, "sqlite:%s/usage.db", f->dir);
    if (store_open(f->url, 100, &f->store, &why) != ERR_OK) fail_msg("%s", why.text);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    static const char *const files[] = { "usage.db", "usage.db-wal", "usage.db-shm",
                                         "usage.db.lock" };
    struct fixture *f = *state;
    char path[128];
    store_close(f->store);
    for (size_t i = 0; i < ARRAY_LEN(files); i++) {
        (void)snprintf(path, sizeof path, "%s/%s", f->dir, files[i]);
        (void)unlink(path);
    }
    assert_int_equal(rmdir(f->dir), 0);
    free(f);
    return 0;
}

static const uint64_t day0 = 1736467200000u; /* 2025-01-10T00:00:00Z */

/* Record number n of a made-up day: every field follows from n. */
struct made {
    char id[UUID_LEN + 1];
    struct usage_record r;
};

static void make(struct made *m, unsigned n)
{
    static const char *const slugs[] = { "team-a", "team-b" };
    static const char *const ids[] = { "ns-a", "ns-b" };
    (void)snprintf(m->id, sizeof m->id, "01944d2e-8a00-7000-8000-%012x", n);
    m->r = (struct usage_record){ .id = str_of(m->id),
                                  .ts_ms = day0 + n * 1000,
                                  .edge = STR("edge-1"),
                                  .namespace_slug = str_of(slugs[n % 2]),
                                  .namespace_id = str_of(ids[n % 2]),
                                  .model = n % 3 == 0 ? STR("Qwen3-8B") : STR("gpt"),
                                  .status = 200,
                                  .outcome = n % 10 == 9 ? USAGE_CUT : USAGE_OK,
                                  .input_tokens = n,
                                  .output_tokens = 2 * n,
                                  .cost = { (int64_t)n * 100, n % 2 == 0 ? STR("USD") : STR("EUR"),
                                            1 },
                                  .duration_ms = 50,
                                  .client_ip = STR("10.0.0.1"),
                                  .user = STR("somebody") };
}

/* Stores the records [from, to); returns how many were new. */
static unsigned ingest(struct fixture *f, unsigned from, unsigned to)
{
    size_t n = to - from;
    struct made *made = xcalloc(n, sizeof *made);
    const struct usage_record **list = xcalloc(n, sizeof *list);
    enum store_verdict *verdicts = xcalloc(n, sizeof *verdicts);
    unsigned fresh = 0;
    struct why why = { "" };
    for (unsigned i = 0; i < n; i++) {
        make(&made[i], from + i);
        list[i] = &made[i].r;
    }
    if (store_ingest(f->store, list, n, day0 + from, verdicts, &why) != ERR_OK)
        fail_msg("%s", why.text);
    for (unsigned i = 0; i < n; i++) {
        assert_int_not_equal(verdicts[i], STORE_REFUSED);
        fresh += verdicts[i] == STORE_NEW ? 1 : 0;
    }
    free(made);
    free(list);
    free(verdicts);
    return fresh;
}

static struct json *ask(struct fixture *f, const struct metrics_query *q)
{
    struct buf b;
    struct json *j;
    struct why why = { "" };
    buf_init(&b, 8 << 20);
    if (query_answer(store_db(f->store), q, day0 + 86400000, &b, &why) != ERR_OK)
        fail_msg("%s", why.text);
    if (json_parse(buf_str(&b), 8 << 20, &j, &why) != ERR_OK)
        fail_msg("%s in %.*s", why.text, STR_ARG(buf_str(&b)));
    buf_done(&b);
    return j;
}

static uint64_t number(const struct json *o, const char *key)
{
    uint64_t v = UINT64_MAX;
    if (json_get_u64(o, key, &v) != ERR_OK) fail_msg("no number %s", key);
    return v;
}

static uint64_t sum_of(unsigned from, unsigned to)
{
    uint64_t s = 0;
    for (unsigned i = from; i < to; i++) s += i;
    return s;
}

static void duplicates_change_nothing(void **state)
{
    struct fixture *f = *state;
    struct metrics_query q = { .kind = METRICS_TOTALS };
    assert_int_equal(ingest(f, 0, 300), 300);
    assert_int_equal(ingest(f, 0, 300), 0);
    assert_int_equal(ingest(f, 250, 400), 100);
    struct json *j = ask(f, &q);
    const struct json *g = json_first(json_get(j, "groups"));
    assert_int_equal(json_len(json_get(j, "groups")), 1);
    assert_int_equal(number(g, "requests"), 400);
    assert_int_equal(number(g, "input_tokens"), sum_of(0, 400));
    assert_int_equal(number(g, "output_tokens"), 2 * sum_of(0, 400));
    assert_int_equal(json_len(json_get(g, "cost")), 2);
    json_free(j);
}

static void the_same_id_twice_in_a_batch_counts_once(void **state)
{
    struct fixture *f = *state;
    struct made m;
    enum store_verdict v[2];
    make(&m, 7);
    const struct usage_record *list[] = { &m.r, &m.r };
    assert_int_equal(store_ingest(f->store, list, 2, day0, v, NULL), ERR_OK);
    assert_int_equal(v[0], STORE_NEW);
    assert_int_equal(v[1], STORE_DUPLICATE);
    struct json *j = ask(f, &(struct metrics_query){ .kind = METRICS_TOTALS });
    assert_int_equal(number(json_first(json_get(j, "groups")), "requests"), 1);
    json_free(j);
}

static void sums_survive_a_restart_and_go_on(void **state)
{
    struct fixture *f = *state;
    struct why why = { "" };
    assert_int_equal(ingest(f, 0, 100), 100);
    store_close(f->store);
    f->store = NULL;
    if (store_open(f->url, 100, &f->store, &why) != ERR_OK) fail_msg("%s", why.text);
    assert_int_equal(ingest(f, 50, 150), 50);
    struct json *j = ask(f, &(struct metrics_query){ .kind = METRICS_TOTALS });
    assert_int_equal(number(json_first(json_get(j, "groups")), "requests"), 150);
    json_free(j);
}

static void groups_and_filters_pick_what_they_say(void **state)
{
    struct fixture *f = *state;
    struct metrics_query q = { .kind = METRICS_TOTALS };
    assert_int_equal(ingest(f, 0, 300), 300);
    q.group_by[METRICS_DIM_NAMESPACE] = q.group_by[METRICS_DIM_OUTCOME] = true;
    struct json *j = ask(f, &q);
    uint64_t requests = 0, cut = 0;
    for (const struct json *g = json_first(json_get(j, "groups")); g != NULL; g = json_next(g)) {
        requests += number(g, "requests");
        if (str_eqz(json_str(json_get(g, "outcome")), "cut")) {
            cut += number(g, "requests");
            assert_true(str_eqz(json_str(json_get(g, "namespace")), "team-b")); /* odd numbers */
        }
    }
    assert_int_equal(json_len(json_get(j, "groups")), 3);
    assert_int_equal(requests, 300);
    assert_int_equal(cut, 30);
    json_free(j);

    q = (struct metrics_query){ .kind = METRICS_TOTALS };
    q.filter[METRICS_DIM_NAMESPACE] = STR("team-b");
    q.filter[METRICS_DIM_MODEL] = STR("Qwen3-8B");
    q.filter[METRICS_DIM_STATUS] = STR("200");
    j = ask(f, &q);
    assert_int_equal(number(json_first(json_get(j, "groups")), "requests"), 50);
    json_free(j);
    q.filter[METRICS_DIM_NAMESPACE] = STR("ns-b"); /* the id does as well */
    j = ask(f, &q);
    assert_int_equal(number(json_first(json_get(j, "groups")), "requests"), 50);
    json_free(j);
    q.filter[METRICS_DIM_MODEL] = STR("' OR 1=1 --");
    j = ask(f, &q);
    assert_int_equal(json_len(json_get(j, "groups")), 0);
    json_free(j);
}

static void ranges_count_whole_steps(void **state)
{
    struct fixture *f = *state;
    struct metrics_query q = { .kind = METRICS_TOTALS };
    assert_int_equal(ingest(f, 0, 7200), 7200); /* one per second, two hours */
    q.from_ms = day0 + 60000;
    q.to_ms = day0 + 180000;
    struct json *j = ask(f, &q);
    assert_int_equal(number(j, "step"), 60);
    assert_int_equal(number(json_first(json_get(j, "groups")), "requests"), 120);
    json_free(j);
    q.from_ms = day0 + 3600000;
    q.to_ms = day0 + 7200000;
    j = ask(f, &q);
    assert_int_equal(number(j, "step"), 3600);
    assert_int_equal(number(json_first(json_get(j, "groups")), "input_tokens"), sum_of(3600, 7200));
    json_free(j);

    q = (struct metrics_query){
        .kind = METRICS_SERIES, .from_ms = day0, .to_ms = day0 + 7200000, .step_s = 60
    };
    j = ask(f, &q);
    assert_int_equal(json_len(json_get(j, "points")), 120);
    for (const struct json *p = json_first(json_get(j, "points")); p != NULL; p = json_next(p))
        assert_int_equal(number(p, "requests"), 60);
    json_free(j);
}

static void a_series_that_is_too_long_is_refused(void **state)
{
    struct fixture *f = *state;
    struct buf b;
    struct metrics_query q = {
        .kind = METRICS_SERIES, .from_ms = 60000, .to_ms = day0, .step_s = 60
    };
    buf_init(&b, 1 << 20);
    assert_int_equal(query_answer(store_db(f->store), &q, day0, &b, NULL), ERR_INVALID);
    assert_int_equal(b.len, 0);
    buf_done(&b);
}

static void records_page_from_the_newest(void **state)
{
    struct fixture *f = *state;
    char cursor[64] = "";
    unsigned seen = 0;
    assert_int_equal(ingest(f, 0, 95), 95);
    for (int page = 0; page < 10; page++) {
        struct metrics_query q = { .kind = METRICS_RECORDS, .limit = 10, .cursor = str_of(cursor) };
        struct json *j = ask(f, &q);
        for (const struct json *r = json_first(json_get(j, "records")); r != NULL;
             r = json_next(r)) {
            assert_int_equal(number(r, "input_tokens"), 94 - seen);
            assert_true(str_eqz(json_str(json_get(r, "client_ip")), "10.0.0.1"));
            assert_true(str_eqz(json_str(json_get(r, "user")), "somebody"));
            seen++;
        }
        struct str next = json_str(json_get(j, "next"));
        assert_int_equal(next.p != NULL, page < 9);
        (void)str_copyz(cursor, sizeof cursor, next);
        json_free(j);
    }
    assert_int_equal(seen, 95);
    struct metrics_query q = { .kind = METRICS_RECORDS, .limit = 1000 };
    q.filter[METRICS_DIM_OUTCOME] = STR("cut");
    struct json *j = ask(f, &q);
    assert_int_equal(json_len(json_get(j, "records")), 9);
    json_free(j);
}

static void a_renamed_namespace_keeps_its_usage(void **state)
{
    struct fixture *f = *state;
    struct made m;
    enum store_verdict v;
    assert_int_equal(ingest(f, 0, 10), 10);
    make(&m, 10);
    m.r.namespace_slug = STR("team-new");
    const struct usage_record *list[] = { &m.r };
    assert_int_equal(store_ingest(f->store, list, 1, day0, &v, NULL), ERR_OK);
    struct metrics_query q = { .kind = METRICS_TOTALS };
    q.group_by[METRICS_DIM_NAMESPACE] = true;
    q.filter[METRICS_DIM_NAMESPACE] = STR("team-new");
    struct json *j = ask(f, &q);
    assert_int_equal(json_len(json_get(j, "groups")), 1);
    assert_int_equal(number(json_first(json_get(j, "groups")), "requests"), 6);
    json_free(j);
}

static void what_is_too_old_goes_but_sums_stay(void **state)
{
    struct fixture *f = *state;
    bool more = true;
    for (unsigned n = 0; n < 100; n += 10) assert_int_equal(ingest(f, n, n + 10), 10);
    struct store_retention r = { .records_before_ms = day0 + 50, /* that is when they were stored */
                                 .clients_before_ms = day0 + 80,
                                 .minutes_before_ms = day0 + 60000 };
    assert_int_equal(store_expire(f->store, &r, &more, NULL), ERR_OK);
    assert_false(more);
    struct metrics_query q = { .kind = METRICS_RECORDS, .limit = 1000 };
    struct json *j = ask(f, &q);
    unsigned with_client = 0;
    assert_int_equal(json_len(json_get(j, "records")), 50);
    for (const struct json *n = json_first(json_get(j, "records")); n != NULL; n = json_next(n))
        with_client += json_get(n, "client_ip") != NULL || json_get(n, "user") != NULL ? 1 : 0;
    assert_int_equal(with_client, 20);
    json_free(j);
    j = ask(f, &(struct metrics_query){ .kind = METRICS_TOTALS });
    assert_int_equal(number(json_first(json_get(j, "groups")), "requests"), 100);
    json_free(j);
    q = (struct metrics_query){
        .kind = METRICS_SERIES, .from_ms = day0, .to_ms = day0 + 120000, .step_s = 60
    };
    j = ask(f, &q);
    assert_int_equal(json_len(json_get(j, "points")), 1);
    json_free(j);
}

static void two_instances_cannot_have_one_file(void **state)
{
    struct fixture *f = *state;
    int a = -1, b = -1, c = 7;
    struct why why = { "" };
    assert_int_equal(store_lock(f->url, &a, &why), ERR_OK);
    assert_int_equal(store_lock(f->url, &b, &why), ERR_CONFLICT);
    assert_non_null(strstr(why.text, "another instance"));
    assert_int_equal(b, -1);
    assert_int_equal(store_lock("mysql://a:b@c/d", &c, &why), ERR_OK);
    assert_int_equal(c, -1);
    (void)close(a);
    assert_int_equal(store_lock(f->url, &b, &why), ERR_OK);
    (void)close(b);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(duplicates_change_nothing),          T(the_same_id_twice_in_a_batch_counts_once),
        T(sums_survive_a_restart_and_go_on),   T(groups_and_filters_pick_what_they_say),
        T(ranges_count_whole_steps),           T(a_series_that_is_too_long_is_refused),
        T(records_page_from_the_newest),       T(a_renamed_namespace_keeps_its_usage),
        T(what_is_too_old_goes_but_sums_stay), T(two_instances_cannot_have_one_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
