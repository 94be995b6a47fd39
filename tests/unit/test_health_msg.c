/* SPDX-License-Identifier: Apache-2.0 */
/* What edges tell each other of servers: there and back, and the samples. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <stdio.h>

#include "proto/health_msg.h"

static void a_message_comes_back_as_it_went(void **state)
{
    (void)state;
    struct health_msg m = { .upstream = STR("u1"),
                            .upstream_slug = STR("qwen"),
                            .server = STR("s1"),
                            .server_slug = STR("gpu-1"),
                            .up = false,
                            .by_check = true,
                            .why = STR("status 500") },
                      back;
    struct buf b;
    struct why why;
    buf_init(&b, 4096);
    assert_int_equal(health_msg_encode(&m, clock_system(), rng_system(), "edge-1", &b), ERR_OK);
    assert_int_equal(health_msg_decode(buf_str(&b), &back, &why), ERR_OK);
    assert_true(str_eqz(back.from, "edge-1") && str_eq(back.upstream, m.upstream) &&
                str_eq(back.upstream_slug, m.upstream_slug) && str_eq(back.server, m.server) &&
                str_eq(back.server_slug, m.server_slug) && str_eq(back.why, m.why));
    assert_true(!back.up && back.by_check);
    health_msg_done(&back);
    buf_done(&b);
}

static int each_sample(const char *kind, bool good)
{
    char dir[128], path[512], text[8192];
    int n = 0;
    (void)snprintf(dir, sizeof dir, "proto/samples/upstream_health/%s", kind);
    DIR *d = opendir(dir);
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d)) != NULL;) {
        struct health_msg m;
        struct why why = { .text = "" };
        if (e->d_name[0] == '.') continue;
        (void)snprintf(path, sizeof path, "%s/%s", dir, e->d_name);
        FILE *f = fopen(path, "rb");
        assert_non_null(f);
        size_t len = fread(text, 1, sizeof text, f);
        (void)fclose(f);
        bool taken = health_msg_decode(str_n(text, len), &m, &why) == ERR_OK;
        if (taken) health_msg_done(&m);
        if (taken != good) fail_msg("%s: %s %s", path, taken ? "taken" : "refused", why.text);
        if (!good && why.text[0] == '\0') fail_msg("%s: no reason", path);
        n++;
    }
    (void)closedir(d);
    return n;
}

static void good_samples_are_taken_and_bad_ones_refused_with_a_reason(void **state)
{
    (void)state;
    assert_int_equal(each_sample("good", true), 2);
    assert_int_equal(each_sample("bad", false), 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_message_comes_back_as_it_went),
        cmocka_unit_test(good_samples_are_taken_and_bad_ones_refused_with_a_reason),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
