/* SPDX-License-Identifier: Apache-2.0 */
/* Quotas' high-water marks: nothing that was acknowledged is forgotten, wherever the power goes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include <stdio.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "services/policy/marks.h"

#define NOW_NS UINT64_C(1800000000000000000)
#define DAY_US UINT64_C(86400000000)
#define NOW_US (NOW_NS / 1000)

static char folder[64], path[96];
static struct clock_fake fake;
static struct marks *marks;

static void reopen(void)
{
    struct why why = { "" };
    marks_free(marks);
    marks = NULL;
    if (marks_open(folder, 64, &fake.clock, rng_system(), &marks, &why) != ERR_OK)
        fail_msg("%s", why.text);
}

static int setup(void **state)
{
    (void)state;
    (void)str_copyz(folder, sizeof folder, STR("/tmp/aigw-marks-XXXXXX"));
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/quotas.marks", folder);
    clock_fake_init(&fake, 1000, NOW_NS);
    reopen();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    marks_free(marks);
    marks = NULL;
    (void)remove(path);
    (void)rmdir(folder);
    return 0;
}

static struct mark of(uint64_t used)
{
    return (struct mark){ NOW_US - DAY_US / 2, NOW_US + DAY_US / 2, used };
}

static void must_put(const char *name, uint64_t used)
{
    struct mark m = of(used);
    assert_int_equal(marks_put(marks, str_of(name), &m), ERR_OK);
}

static void must_flush(void)
{
    struct why why = { "" };
    if (marks_flush(marks, &why) != ERR_OK) fail_msg("%s", why.text);
}

static uint64_t used(const char *name)
{
    const struct mark *m = marks_get(marks, str_of(name));
    return m != NULL ? m->used : 0;
}

static void marks_are_there_after_a_restart(void **state)
{
    (void)state;
    char id[64];
    must_put("p\nns=1", 10);
    must_put("p\nns=2", 7);
    assert_int_equal(used("p\nns=1"), 0); /* not yet */
    must_flush();
    assert_int_equal(used("p\nns=1"), 10);
    must_put("p\nns=1", 300);
    must_flush();
    (void)str_copyz(id, sizeof id, str_of(marks_id(marks)));
    reopen();
    assert_string_equal(marks_id(marks), id);
    assert_int_equal(used("p\nns=1"), 300);
    assert_int_equal(used("p\nns=2"), 7);
    struct mark need = of(300);
    assert_true(marks_cover(marks, STR("p\nns=1"), &need));
    need.used = 301;
    assert_false(marks_cover(marks, STR("p\nns=1"), &need));
    need = of(1);
    need.begin += DAY_US;
    need.end += DAY_US;
    assert_false(marks_cover(marks, STR("p\nns=1"), &need));
}

static void what_was_put_but_not_flushed_was_never_granted(void **state)
{
    (void)state;
    must_put("a", 1);
    must_flush();
    must_put("a", 2);
    reopen();
    assert_int_equal(used("a"), 1);
}

/* The file as it may stand on the disk after a crash: the writes before are whole, the last one is
 * cut anywhere or its bytes are wrong. */
static void a_crash_in_any_write_loses_nothing_acknowledged(void **state)
{
    (void)state;
    enum { WRITES = 6 };
    static char text[65536];
    size_t ends[WRITES + 1];
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    ends[0] = (size_t)st.st_size;
    for (int i = 0; i < WRITES; i++) {
        char name[16];
        snprintf(name, sizeof name, "c%d", i % 3);
        must_put(name, (uint64_t)(i + 1));
        if (i % 4 == 3) must_put("other", (uint64_t)i);
        must_flush();
        assert_int_equal(stat(path, &st), 0);
        ends[i + 1] = (size_t)st.st_size;
    }
    FILE *f = fopen(path, "rb");
    size_t n = fread(text, 1, sizeof text, f);
    fclose(f);
    assert_int_equal(n, ends[WRITES]);
    for (size_t cut = ends[0]; cut <= n; cut++) {
        for (int garbage = 0; garbage < 2; garbage++) {
            uint64_t want[3] = { 0 };
            marks_free(marks);
            marks = NULL;
            f = fopen(path, "wb");
            assert_int_equal(fwrite(text, 1, cut, f), cut);
            for (size_t k = cut; garbage && k < n; k++) fputc(text[k] ^ 0x55, f);
            fclose(f);
            reopen();
            for (int i = 0; i < WRITES; i++)
                if (ends[i + 1] <= cut) want[i % 3] = (uint64_t)(i + 1);
            for (int k = 0; k < 3; k++) {
                char name[16];
                snprintf(name, sizeof name, "c%d", k);
                if (used(name) < want[k])
                    fail_msg("cut at %zu: %s has %llu, not %llu", cut, name,
                             (unsigned long long)used(name), (unsigned long long)want[k]);
            }
        }
    }
}

static void a_file_that_was_replaced_has_another_name(void **state)
{
    (void)state;
    char id[64];
    (void)str_copyz(id, sizeof id, str_of(marks_id(marks)));
    must_put("a", 5);
    must_flush();
    struct why why;
    assert_int_equal(marks_forget_all(marks, &why), ERR_OK);
    assert_string_not_equal(marks_id(marks), id);
    assert_int_equal(used("a"), 0);
    (void)str_copyz(id, sizeof id, str_of(marks_id(marks)));
    assert_int_equal(remove(path), 0);
    reopen();
    assert_string_not_equal(marks_id(marks), id);
}

static void windows_that_are_over_are_dropped(void **state)
{
    (void)state;
    struct marks_stats st;
    must_put("old", 5);
    must_flush();
    clock_fake_advance(&fake, 2 * DAY_US * 1000);
    reopen();
    assert_int_equal(used("old"), 0);
    marks_stats(marks, &st);
    assert_int_equal(st.counters, 0);
}

static void the_file_does_not_grow_for_ever(void **state)
{
    (void)state;
    struct marks_stats st;
    size_t most = 0;
    for (uint64_t i = 1; i <= 40000; i++) {
        must_put("a counter that is asked for all the time", i);
        if (i % 200 == 0) must_flush();
        marks_stats(marks, &st);
        most = MAX(most, st.bytes);
    }
    assert_true(most < 3 * 1024 * 1024);
    assert_int_equal(used("a counter that is asked for all the time"), 40000);
    reopen();
    assert_int_equal(used("a counter that is asked for all the time"), 40000);
}

static void a_disk_that_fails_acknowledges_nothing(void **state)
{
    (void)state;
    struct why why;
    must_put("a", 1);
    must_flush();
    /* a folder in the place of the file that is to be written */
    char fresh[128];
    snprintf(fresh, sizeof fresh, "%s.new", path);
    assert_int_equal(mkdir(fresh, 0700), 0);
    assert_int_equal(marks_forget_all(marks, &why), ERR_IO);
    assert_int_equal(rmdir(fresh), 0);
}

static void there_are_only_so_many(void **state)
{
    (void)state;
    char name[16];
    struct mark m = of(1);
    for (int i = 0; i < 64; i++) {
        snprintf(name, sizeof name, "n%d", i);
        assert_int_equal(marks_put(marks, str_of(name), &m), ERR_OK);
    }
    assert_int_equal(marks_put(marks, STR("one more"), &m), ERR_LIMIT);
    must_flush();
    assert_int_equal(used("n63"), 1);
}

static void a_flush_costs(void **state)
{
    (void)state;
    struct timespec a, b;
    enum { N = 200 };
    clock_gettime(CLOCK_MONOTONIC, &a);
    for (uint64_t i = 1; i <= N; i++) {
        must_put("a", i);
        must_flush();
    }
    clock_gettime(CLOCK_MONOTONIC, &b);
    double us = ((double)(b.tv_sec - a.tv_sec) * 1e9 + (double)(b.tv_nsec - a.tv_nsec)) / 1e3 / N;
    print_message("a mark that is flushed takes %.0f us\n", us);
    assert_int_equal(used("a"), N);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(marks_are_there_after_a_restart, setup, teardown),
        cmocka_unit_test_setup_teardown(what_was_put_but_not_flushed_was_never_granted, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_crash_in_any_write_loses_nothing_acknowledged, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_file_that_was_replaced_has_another_name, setup, teardown),
        cmocka_unit_test_setup_teardown(windows_that_are_over_are_dropped, setup, teardown),
        cmocka_unit_test_setup_teardown(the_file_does_not_grow_for_ever, setup, teardown),
        cmocka_unit_test_setup_teardown(a_disk_that_fails_acknowledges_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(there_are_only_so_many, setup, teardown),
        cmocka_unit_test_setup_teardown(a_flush_costs, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
