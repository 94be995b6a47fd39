/* SPDX-License-Identifier: Apache-2.0 */
/* Who runs what, from messages that may be anything. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include <dirent.h>
#include <stdio.h>

#include "../../../services/config/fleet.h"
#include "proto/gone_msg.h"

static void presence(struct fleet *f, const char *from, const char *service, int revision)
{
    char text[300];
    int n = snprintf(text, sizeof(text),
                     "{\"v\":1,\"id\":\"i\",\"ts\":\"t\",\"from\":\"%s\",\"service\":\"%s\","
                     "\"version\":\"1\",\"revision\":%d,\"load\":3,\"state\":\"serving\"}",
                     from, service, revision);
    fleet_presence(f, str_n(text, (size_t)n));
}

static void applied(struct fleet *f, const char *from, int revision, const char *more)
{
    char text[300];
    int n = snprintf(text, sizeof(text), "{\"v\":1,\"from\":\"%s\",\"revision\":%d,%s}", from,
                     revision, more);
    fleet_applied(f, str_n(text, (size_t)n));
}

static uint64_t number(const struct json *o, const char *key)
{
    uint64_t n = UINT64_MAX;
    (void)!json_get_u64(o, key, &n);
    return n;
}

static void instances_are_put_together_from_both_messages(void **state)
{
    (void)state;
    struct clock_fake clock;
    clock_fake_init(&clock, 1000000000, 1700000000000000000);
    struct fleet *f = fleet_new(&clock.clock);
    presence(f, "edge-1", "edge", 4);
    applied(f, "edge-1", 5, "\"ok\":true,\"digest\":\"d\"");
    applied(f, "policy-1", 5, "\"ok\":false,\"error\":\"no\"");
    struct json *list = fleet_list(f);
    assert_int_equal(json_len(list), 2);
    const struct json *edge = json_first(list), *policy = json_next(edge);
    bool alive = false, ok = true;
    assert_int_equal(number(edge, "revision"), 5);
    assert_int_equal(number(edge, "load"), 3);
    assert_int_equal(json_get_bool(edge, "alive", &alive), ERR_OK);
    assert_true(alive);
    assert_int_equal(json_get_bool(json_get(policy, "applied"), "ok", &ok), ERR_OK);
    assert_false(ok);
    assert_int_equal(number(policy, "revision"), 0); /* what it refused is not what it runs */
    json_free(list);
    clock_fake_advance(&clock, 16000000000ull);
    list = fleet_list(f);
    assert_int_equal(json_get_bool(json_first(list), "alive", &alive), ERR_OK);
    assert_false(alive);
    json_free(list);
    fleet_free(f);
}

static void who_is_gone_is_listed_no_more_until_it_is_heard_again(void **state)
{
    (void)state;
    struct clock_fake clock;
    struct buf b;
    clock_fake_init(&clock, 1000000000, 1700000000000000000);
    struct fleet *f = fleet_new(&clock.clock);
    presence(f, "edge-1", "edge", 4);
    presence(f, "edge-2", "edge", 4);
    assert_true(fleet_is_alive(f, STR("edge-1")));
    assert_false(fleet_is_alive(f, STR("edge-3")));
    clock_fake_advance(&clock, 16000000000ull);
    assert_false(fleet_is_alive(f, STR("edge-1")));
    buf_init(&b, 4096);
    assert_int_equal(gone_msg_encode(STR("edge-1"), &clock.clock, rng_system(), "config", &b),
                     ERR_OK);
    fleet_gone(f, buf_str(&b));
    fleet_gone(f, buf_str(&b)); /* twice is no more than once */
    buf_done(&b);
    struct json *list = fleet_list(f);
    assert_int_equal(json_len(list), 1);
    assert_true(str_eqz(json_str(json_get(json_first(list), "instance")), "edge-2"));
    json_free(list);
    presence(f, "edge-1", "edge", 4);
    assert_true(fleet_is_alive(f, STR("edge-1")));
    fleet_gone(f, STR("no message"));
    assert_int_equal(fleet_dropped(f), 1);
    fleet_free(f);
}

static size_t counted[2];
static void count(void *ctx, const char *service, size_t current, size_t behind)
{
    (void)ctx;
    assert_string_equal(service, "edge");
    counted[0] = current;
    counted[1] = behind;
}

static void the_living_are_counted_by_revision(void **state)
{
    (void)state;
    struct clock_fake clock;
    clock_fake_init(&clock, 1000000000, 1700000000000000000);
    struct fleet *f = fleet_new(&clock.clock);
    presence(f, "edge-0", "edge", 7);
    clock_fake_advance(&clock, 16000000000ull); /* that one is gone */
    presence(f, "edge-1", "edge", 7);
    presence(f, "edge-2", "edge", 6);
    presence(f, "edge-3", "edge", 6);
    fleet_count(f, 7, count, NULL);
    assert_int_equal(counted[0], 1);
    assert_int_equal(counted[1], 2);
    fleet_free(f);
}

static void rubbish_is_counted_and_dropped(void **state)
{
    (void)state;
    static const char *const bad[] = { "",
                                       "x",
                                       "[]",
                                       "{\"v\":1}",
                                       "{\"v\":2,\"from\":\"e\"}",
                                       "{\"v\":1,\"from\":\"\"}",
                                       "{\"v\":1,\"from\":7}" };
    struct fleet *f = fleet_new(clock_system());
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        fleet_presence(f, str_of(bad[i]));
        fleet_applied(f, str_of(bad[i]));
    }
    assert_int_equal(fleet_dropped(f), 2 * ARRAY_LEN(bad));
    struct json *list = fleet_list(f);
    assert_int_equal(json_len(list), 0);
    json_free(list);
    fleet_free(f);
}

static void no_flood_of_names_takes_all_memory(void **state)
{
    (void)state;
    char name[32];
    struct fleet *f = fleet_new(clock_system());
    for (int i = 0; i < 5000; i++) {
        (void)snprintf(name, sizeof(name), "i-%d", i);
        presence(f, name, "edge", 1);
    }
    assert_int_equal(fleet_dropped(f), 5000 - 4096);
    presence(f, "i-1", "edge", 2); /* those that are known go on */
    assert_int_equal(fleet_dropped(f), 5000 - 4096);
    fleet_free(f);
}

/* Bad samples are those that do not count as an applied revision, or as an instance. */
static int samples(const char *folder, bool good, bool is_presence)
{
    int n = 0;
    DIR *dir = opendir(folder);
    struct dirent *entry;
    if (dir == NULL) fail_msg("%s", folder);
    while ((entry = readdir(dir)) != NULL) {
        char path[512], text[4096];
        if (entry->d_name[0] == '.') continue;
        (void)snprintf(path, sizeof(path), "%s/%s", folder, entry->d_name);
        FILE *file = fopen(path, "rb");
        assert_non_null(file);
        size_t len = fread(text, 1, sizeof(text), file);
        fclose(file);
        struct fleet *f = fleet_new(clock_system());
        if (is_presence)
            fleet_presence(f, str_n(text, len));
        else
            fleet_applied(f, str_n(text, len));
        struct json *list = fleet_list(f);
        bool taken = is_presence ? json_first(list) != NULL
                                 : json_get(json_first(list), "applied") != NULL;
        if (taken != good) fail_msg("%s", path);
        json_free(list);
        fleet_free(f);
        n++;
    }
    closedir(dir);
    return n;
}

static void samples_are_what_they_are_called(void **state)
{
    (void)state;
    assert_int_equal(samples("proto/samples/config_applied/good", true, false), 2);
    assert_int_equal(samples("proto/samples/config_applied/bad", false, false), 5);
    assert_int_equal(samples("proto/samples/presence/good", true, true), 2);
    assert_int_equal(samples("proto/samples/presence/bad", false, true), 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(instances_are_put_together_from_both_messages),
        cmocka_unit_test(who_is_gone_is_listed_no_more_until_it_is_heard_again),
        cmocka_unit_test(the_living_are_counted_by_revision),
        cmocka_unit_test(rubbish_is_counted_and_dropped),
        cmocka_unit_test(no_flood_of_names_takes_all_memory),
        cmocka_unit_test(samples_are_what_they_are_called),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
