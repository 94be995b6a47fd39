/* SPDX-License-Identifier: Apache-2.0 */
/* The access log: which requests are logged, and where their lines go when files are renamed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>
#include <unistd.h>

#include "services/edge/records/access_log.h"

static void fractions(void **state)
{
    static const struct {
        const char *text;
        int sample; /* -1: none */
    } rows[] = {
        { "0", 0 },       { "1", 10000 },  { "0.5", 5000 },     { "0.05", 500 },
        { "1.0", 10000 }, { "0.0001", 1 }, { ".25", 2500 },     { "0.123456", 1234 },
        { "0.", 0 },      { "1.", 10000 }, { "0.99999", 9999 }, { "", -1 },
        { "2", -1 },      { "1.1", -1 },   { "1.0001", -1 },    { "01", -1 },
        { "-0.1", -1 },   { "0,5", -1 },   { "0.5%", -1 },      { "1e-1", -1 },
        { "0.5.5", -1 },  { " 0.5", -1 },  { "half", -1 },      { "10", -1 },
        { "+1", -1 },
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        unsigned sample = 4711;
        enum err e = access_log_parse_sample(str_of(rows[i].text), &sample);
        int got = e == ERR_OK ? (int)sample : -1;
        if (got != rows[i].sample) fail_msg("\"%s\": %d", rows[i].text, got);
        if (e != ERR_OK) assert_int_equal(sample, 4711);
    }
}

static char dir[64], path[80], other[80];

static int setup(void **state)
{
    (void)state;
    (void)snprintf(dir, sizeof dir, "/tmp/test_access_log.XXXXXX");
    assert_non_null(mkdtemp(dir));
    (void)snprintf(path, sizeof path, "%s/log", dir);
    (void)snprintf(other, sizeof other, "%s/old", dir);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    (void)unlink(path);
    (void)unlink(other);
    return rmdir(dir);
}

static void expect(const char *file, const char *want)
{
    char got[200] = "";
    FILE *f = fopen(file, "r");
    assert_non_null(f);
    got[fread(got, 1, sizeof got - 1, f)] = '\0';
    (void)fclose(f);
    assert_string_equal(got, want);
}

static struct access_log *open_log(unsigned sample)
{
    struct access_log *l;
    struct why why;
    assert_int_equal(access_log_new(path, sample, &l, &why), ERR_OK);
    return l;
}

static void what_went_well_is_sampled(void **state)
{
    struct access_log *l = open_log(2500), *none;
    struct why why;
    size_t n = 0;
    (void)state;
    for (int i = 0; i < 4000; i++) {
        char id[20];
        (void)snprintf(id, sizeof id, "request-%d", i);
        bool wanted = access_log_wants(l, str_of(id), true);
        assert_int_equal(wanted, access_log_wants(l, str_of(id), true)); /* the same everywhere */
        assert_true(access_log_wants(l, str_of(id), false));
        n += wanted;
    }
    assert_in_range(n, 850, 1150);
    access_log_free(l);
    assert_int_equal(access_log_new("off", 10000, &none, &why), ERR_OK);
    assert_null(none);
    assert_false(access_log_wants(none, STR("x"), false));
    access_log_reopen(none);
    access_log_free(none);
    assert_int_equal(access_log_new("/nowhere/at/all", 10000, &none, &why), ERR_IO);
}

/* Behind a rename lines go on to the old file until somebody says so: none is lost or torn. */
static void a_file_is_opened_anew_when_asked(void **state)
{
    struct access_log *l = open_log(10000);
    (void)state;
    access_log_put(l, STR("one\n"));
    access_log_reopen(l);
    access_log_put(l, STR("two\n"));
    access_log_free(l);
    expect(path, "one\ntwo\n");
    l = open_log(10000);
    assert_int_equal(rename(path, other), 0);
    access_log_reopen(l);
    access_log_put(l, STR("three\n"));
    access_log_free(l);
    expect(other, "one\ntwo\n");
    expect(path, "three\n");
    assert_int_equal(access_log_dropped(NULL), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fractions),
        cmocka_unit_test_setup_teardown(what_went_well_is_sampled, setup, teardown),
        cmocka_unit_test_setup_teardown(a_file_is_opened_anew_when_asked, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
