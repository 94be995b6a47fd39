/* SPDX-License-Identifier: Apache-2.0 */
/* Looks at counters: what goes out comes in, and samples are what they are called. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include <dirent.h>
#include <stdio.h>

#include "proto/counters_msg.h"

static void an_ask_comes_in_as_it_went_out(void **state)
{
    (void)state;
    struct counters_ask in = { .op = COUNTERS_RESET,
                               .policy = STR("p1"),
                               .keys = { STR("ns=a"), STR("ns=b;\"x\"") },
                               .keys_n = 2,
                               .cursor = STR("17"),
                               .limit = 3 },
                        out;
    struct buf b;
    struct why why = { "" };
    buf_init(&b, 4096);
    assert_int_equal(counters_ask_encode(&in, clock_system(), rng_system(), "config-1", &b),
                     ERR_OK);
    assert_int_equal(counters_ask_decode(buf_str(&b), &out, &why), ERR_OK);
    assert_int_equal(out.op, COUNTERS_RESET);
    assert_true(str_eqz(out.policy, "p1") && str_eqz(out.from, "config-1"));
    assert_int_equal(out.keys_n, 2);
    assert_true(str_eqz(out.keys[1], "ns=b;\"x\""));
    assert_true(str_eqz(out.cursor, "17"));
    assert_int_equal(out.limit, 3);
    counters_ask_done(&out);
    buf_done(&b);
}

static int samples(bool good)
{
    char folder[128], path[512], text[4096];
    int n = 0;
    snprintf(folder, sizeof folder, "proto/samples/counters_ask/%s", good ? "good" : "bad");
    DIR *dir = opendir(folder);
    assert_non_null(dir);
    for (struct dirent *d; (d = readdir(dir)) != NULL;) {
        struct counters_ask ask;
        struct why why = { "" };
        if (!str_ends(str_of(d->d_name), STR(".json"))) continue;
        snprintf(path, sizeof path, "%s/%s", folder, d->d_name);
        FILE *f = fopen(path, "rb");
        size_t len = fread(text, 1, sizeof text, f);
        fclose(f);
        bool taken = counters_ask_decode(str_n(text, len), &ask, &why) == ERR_OK;
        if (taken != good) fail_msg("%s: %s", path, why.text);
        if (taken) counters_ask_done(&ask);
        n++;
    }
    closedir(dir);
    return n;
}

static void samples_are_what_they_are_called(void **state)
{
    (void)state;
    assert_int_equal(samples(true), 3);
    assert_int_equal(samples(false), 7);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_ask_comes_in_as_it_went_out),
        cmocka_unit_test(samples_are_what_they_are_called),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
