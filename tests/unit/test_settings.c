/* SPDX-License-Identifier: Apache-2.0 */
/* Settings and metrics: tables in, values, problems and text out. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include <unistd.h>

#include "base/log.h"
#include "base/metric.h"
#include "base/opt.h"

struct settings {
    const char *name, *secret, *url, *bind;
    int64_t port, level;
    bool on;
};
#define F(m) offsetof(struct settings, m)
static const struct opt table[] = {
    { "T_NAME", OPT_STR, F(name), "anna", 0, 0, NULL, "A name." },
    { "T_SECRET", OPT_SECRET, F(secret), NULL, 0, 0, NULL, "A secret." },
    { "T_URL", OPT_URL, F(url), "nats://127.0.0.1:4222", 0, 0, NULL, "Servers." },
    { "T_BIND", OPT_ADDRESS, F(bind), "127.0.0.1", 0, 0, NULL, "An address." },
    { "T_PORT", OPT_INT, F(port), "80", 1, 65535, "port", "A port." },
    { "T_ON", OPT_BOOL, F(on), "true", 0, 0, NULL, "A switch." },
    { "T_LEVEL", OPT_LEVEL, F(level), "info", 0, 0, NULL, "A level." },
};

static void clear(void)
{
    for (size_t i = 0; i < ARRAY_LEN(table); i++) unsetenv(table[i].name);
    unsetenv("T_SECRET_FILE");
    unsetenv("T_PORT_FILE");
}

static void defaults_and_values(void **state)
{
    struct settings s = { 0 };
    struct opt_problems p = { 0 };
    struct buf b;
    (void)state;
    clear();
    opt_read(table, ARRAY_LEN(table), &s, &p);
    assert_int_equal(p.count, 0);
    assert_string_equal(s.name, "anna");
    assert_true(s.port == 80 && s.on && s.level == LOG_INFO);
    opt_done(table, ARRAY_LEN(table), &s);

    setenv("T_PORT", "8081", 1), setenv("T_ON", "off", 1), setenv("T_SECRET", "hush", 1);
    opt_read(table, ARRAY_LEN(table), &s, &p);
    assert_true(p.count == 0 && s.port == 8081 && !s.on);
    buf_init(&b, 4096);
    assert_int_equal(opt_print(table, ARRAY_LEN(table), &s, &b), ERR_OK);
    assert_non_null(strstr(buf_z(&b), "T_SECRET=***"));
    assert_null(strstr(buf_z(&b), "hush"));
    buf_done(&b);
    opt_done(table, ARRAY_LEN(table), &s);
    clear();
}

static void all_problems_at_once(void **state)
{
    struct settings s = { 0 };
    struct opt_problems p = { 0 };
    (void)state;
    clear();
    setenv("T_PORT", "70000", 1), setenv("T_ON", "perhaps", 1), setenv("T_LEVEL", "loud", 1);
    setenv("T_SECRET_FILE", "/nowhere/at/all", 1);
    opt_read(table, ARRAY_LEN(table), &s, &p);
    assert_int_equal(p.count, 4);
    const char *text = buf_z(&p.text);
    assert_non_null(strstr(text, "T_PORT: 70000 is outside 1 to 65535"));
    assert_non_null(strstr(text, "T_ON"));
    assert_non_null(strstr(text, "T_LEVEL"));
    assert_non_null(strstr(text, "T_SECRET_FILE: cannot read /nowhere/at/all"));
    buf_done(&p.text);
    opt_done(table, ARRAY_LEN(table), &s);
    clear();
}

static void a_secret_comes_from_a_file(void **state)
{
    struct settings s = { 0 };
    struct opt_problems p = { 0 };
    char path[] = "/tmp/test_settings_XXXXXX";
    int fd = mkstemp(path);
    (void)state;
    clear();
    assert_true(fd >= 0 && write(fd, "from file\n", 10) == 10);
    close(fd);
    setenv("T_SECRET_FILE", path, 1);
    opt_read(table, ARRAY_LEN(table), &s, &p);
    assert_int_equal(p.count, 0);
    assert_string_equal(s.secret, "from file");
    opt_done(table, ARRAY_LEN(table), &s);
    setenv("T_SECRET", "both", 1);
    opt_read(table, ARRAY_LEN(table), &s, &p);
    assert_int_equal(p.count, 1);
    buf_done(&p.text);
    opt_done(table, ARRAY_LEN(table), &s);
    unlink(path);
    clear();
}

static void a_number_comes_from_a_file_too(void **state)
{
    struct settings s = { 0 };
    struct opt_problems p = { 0 };
    char path[] = "/tmp/test_settings_XXXXXX";
    int fd = mkstemp(path);
    (void)state;
    clear();
    assert_true(fd >= 0 && write(fd, "8123\n", 5) == 5);
    close(fd);
    setenv("T_PORT_FILE", path, 1);
    opt_read(table, ARRAY_LEN(table), &s, &p);
    assert_true(p.count == 0 && s.port == 8123);
    opt_done(table, ARRAY_LEN(table), &s);
    unlink(path);
    clear();
}

static void credentials_of_urls_are_not_printed(void **state)
{
    static const char *const cases[][2] = {
        { "nats://a:4222,tls://b:4222", "T_URL=nats://a:4222,tls://b:4222\n" },
        { "nats://joe:hush@a:4222", "T_URL=nats://***@a:4222\n" },
        { "nats://hush@a:4222,nats://joe:hu/sh,hush@b:4222", "T_URL=nats://***@b:4222\n" },
        { "joe:hush@a:4222", "T_URL=***@a:4222\n" },
        { "joe:hu://sh@a//b", "T_URL=***@a//b\n" },
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct settings s = { 0 };
        struct opt_problems p = { 0 };
        struct buf b;
        clear();
        setenv("T_URL", cases[i][0], 1);
        opt_read(table, ARRAY_LEN(table), &s, &p);
        assert_true(p.count == 0);
        assert_string_equal(s.url, cases[i][0]);
        buf_init(&b, 4096);
        assert_int_equal(opt_print(table, ARRAY_LEN(table), &s, &b), ERR_OK);
        assert_non_null(strstr(buf_z(&b), cases[i][1]));
        buf_done(&b);
        opt_done(table, ARRAY_LEN(table), &s);
    }
    clear();
}

static void addresses_are_numbers(void **state)
{
    static const char *const good[] = { "127.0.0.1", "0.0.0.0", "::", "::1", "fe80::1", "" };
    static const char *const bad[] = { "banana", "localhost", "300.1.1.1", "127.0.0.1:80",
                                       "::1::",  "[::1]",     "127.0.0.1 " };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(good) + ARRAY_LEN(bad); i++) {
        bool is_good = i < ARRAY_LEN(good);
        const char *text = is_good ? good[i] : bad[i - ARRAY_LEN(good)];
        struct settings s = { 0 };
        struct opt_problems p = { 0 };
        clear();
        setenv("T_BIND", text, 1);
        opt_read(table, ARRAY_LEN(table), &s, &p);
        assert_int_equal(p.count, is_good ? 0 : 1);
        if (!is_good) assert_non_null(strstr(buf_z(&p.text), "T_BIND: "));
        if (!is_good) buf_done(&p.text);
        opt_done(table, ARRAY_LEN(table), &s);
    }
    clear();
}

/* --- metrics --- */

static const struct metric_def defs[] = {
    { "t_total", METRIC_COUNTER, "Things.", { "a", "b" }, { 0 }, 3 },
    { "t_now", METRIC_GAUGE, "Now.", { NULL }, { 0 }, 0 },
    { "t_seconds", METRIC_HISTOGRAM, "Times.", { "a" }, { 0.1, 1 }, 0 },
};

/* With other names: of a histogram, and of a counter whose values are looked at one by one. */
static const struct metric_def twice[] = {
    { "t_tokens_total", METRIC_COUNTER, "Tokens.", { "a", "b" }, { 4, 1048576 }, 2 },
    { "t_seconds", METRIC_HISTOGRAM, "Times.", { NULL }, { 0.25 }, 0 },
    { "u_tokens", METRIC_HISTOGRAM_OF, "The same.", { "c", "d" }, { 0 }, 0 },
    { "u_seconds", METRIC_HISTOGRAM_OF, "The same.", { NULL }, { 0 }, 1 },
};

static struct metric *get(struct metrics *m, size_t which, const char *a, const char *b)
{
    struct str values[] = { str_of(a), str_of(b) };
    return metrics_get(m, which, values);
}

static void series_add_up_over_sets(void **state)
{
    struct metrics *sets[] = { metrics_new(defs, ARRAY_LEN(defs)),
                               metrics_new(defs, ARRAY_LEN(defs)) };
    struct buf b;
    (void)state;
    metric_inc(get(sets[0], 0, "x", "y"));
    metric_add(get(sets[1], 0, "x", "y"), 2);
    metric_inc(get(sets[1], 0, "q\"\\\n", ""));
    metric_set(metrics_get(sets[0], 1, NULL), 2.5);
    metric_observe(get(sets[0], 2, "h", NULL), 0.1);
    metric_observe(get(sets[1], 2, "h", NULL), 0.5);
    metric_observe(get(sets[1], 2, "h", NULL), 7);
    buf_init(&b, 8192);
    assert_int_equal(metrics_render(sets, 2, &b), ERR_OK);
    assert_string_equal(
        buf_z(&b), "# HELP t_total Things.\n# TYPE t_total counter\n"
                   "t_total{a=\"x\",b=\"y\"} 3\nt_total{a=\"q\\\"\\\\\\n\",b=\"\"} 1\n"
                   "# HELP t_now Now.\n# TYPE t_now gauge\nt_now 2.5\n"
                   "# HELP t_seconds Times.\n# TYPE t_seconds histogram\n"
                   "t_seconds_bucket{a=\"h\",le=\"0.1\"} 1\nt_seconds_bucket{a=\"h\",le=\"1\"} 2\n"
                   "t_seconds_bucket{a=\"h\",le=\"+Inf\"} 3\nt_seconds_sum{a=\"h\"} 7.6\n"
                   "t_seconds_count{a=\"h\"} 3\n");
    buf_done(&b);
    metrics_free(sets[0]), metrics_free(sets[1]);
}

static void a_series_has_a_second_name(void **state)
{
    struct metrics *sets[] = { metrics_new(twice, ARRAY_LEN(twice)),
                               metrics_new(twice, ARRAY_LEN(twice)) };
    struct buf b;
    (void)state;
    metric_observe(get(sets[0], 0, "x\"", ""), 3);
    metric_observe(get(sets[1], 0, "x\"", ""), 2000000);
    metric_observe(get(sets[1], 0, "y", "z"), 5);
    metric_observe(get(sets[1], 0, "y", "zz"), 5); /* one too many: other */
    metric_observe(metrics_get(sets[0], 1, NULL), 0.25);
    buf_init(&b, 8192);
    assert_int_equal(metrics_render(sets, 2, &b), ERR_OK);
    assert_string_equal(buf_z(&b),
                        "# HELP t_tokens_total Tokens.\n# TYPE t_tokens_total counter\n"
                        "t_tokens_total{a=\"x\\\"\",b=\"\"} 2000003\n"
                        "t_tokens_total{a=\"y\",b=\"z\"} 5\n"
                        "t_tokens_total{a=\"other\",b=\"other\"} 5\n"
                        "# HELP t_seconds Times.\n# TYPE t_seconds histogram\n"
                        "t_seconds_bucket{le=\"0.25\"} 1\nt_seconds_bucket{le=\"+Inf\"} 1\n"
                        "t_seconds_sum 0.25\nt_seconds_count 1\n"
                        "# HELP u_tokens The same.\n# TYPE u_tokens histogram\n"
                        "u_tokens_bucket{c=\"x\\\"\",d=\"\",le=\"4\"} 1\n"
                        "u_tokens_bucket{c=\"x\\\"\",d=\"\",le=\"1048576\"} 1\n"
                        "u_tokens_bucket{c=\"x\\\"\",d=\"\",le=\"+Inf\"} 2\n"
                        "u_tokens_sum{c=\"x\\\"\",d=\"\"} 2000003\n"
                        "u_tokens_count{c=\"x\\\"\",d=\"\"} 2\n"
                        "u_tokens_bucket{c=\"y\",d=\"z\",le=\"4\"} 0\n"
                        "u_tokens_bucket{c=\"y\",d=\"z\",le=\"1048576\"} 1\n"
                        "u_tokens_bucket{c=\"y\",d=\"z\",le=\"+Inf\"} 1\n"
                        "u_tokens_sum{c=\"y\",d=\"z\"} 5\n"
                        "u_tokens_count{c=\"y\",d=\"z\"} 1\n"
                        "u_tokens_bucket{c=\"other\",d=\"other\",le=\"4\"} 0\n"
                        "u_tokens_bucket{c=\"other\",d=\"other\",le=\"1048576\"} 1\n"
                        "u_tokens_bucket{c=\"other\",d=\"other\",le=\"+Inf\"} 1\n"
                        "u_tokens_sum{c=\"other\",d=\"other\"} 5\n"
                        "u_tokens_count{c=\"other\",d=\"other\"} 1\n"
                        "# HELP u_seconds The same.\n# TYPE u_seconds histogram\n"
                        "u_seconds_bucket{le=\"0.25\"} 1\nu_seconds_bucket{le=\"+Inf\"} 1\n"
                        "u_seconds_sum 0.25\nu_seconds_count 1\n");
    buf_done(&b);
    metrics_free(sets[0]), metrics_free(sets[1]);
}

static void label_sets_are_bounded(void **state)
{
    struct metrics *m = metrics_new(defs, ARRAY_LEN(defs));
    struct buf b;
    (void)state;
    for (int i = 0; i < 10; i++) {
        char name[16];
        (void)snprintf(name, sizeof name, "v%d", i);
        metric_inc(get(m, 0, name, ""));
    }
    buf_init(&b, 8192);
    assert_int_equal(metrics_render(&m, 1, &b), ERR_OK);
    assert_non_null(strstr(buf_z(&b), "t_total{a=\"v2\",b=\"\"} 1"));
    assert_null(strstr(buf_z(&b), "v3"));
    assert_non_null(strstr(buf_z(&b), "t_total{a=\"other\",b=\"other\"} 7"));
    buf_done(&b);
    metrics_free(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_number_comes_from_a_file_too),
        cmocka_unit_test(credentials_of_urls_are_not_printed),
        cmocka_unit_test(addresses_are_numbers),
        cmocka_unit_test(defaults_and_values),
        cmocka_unit_test(all_problems_at_once),
        cmocka_unit_test(a_secret_comes_from_a_file),
        cmocka_unit_test(series_add_up_over_sets),
        cmocka_unit_test(a_series_has_a_second_name),
        cmocka_unit_test(label_sets_are_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
