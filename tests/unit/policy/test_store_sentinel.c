/* SPDX-License-Identifier: Apache-2.0 */
/* Counters behind a real Redis Sentinel: the master is killed, its replica takes over, with all
 * that was granted or without the last of it, and no limit is passed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka wants the four above first */
#include <cmocka.h>
#include <arpa/inet.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../support_port.h"
#include "rt/redis.h"
#include "rt/redis_url.h"
#include "services/policy/store.h"

enum { SECOND = 1000000 };

static char folder[64], conf[96], url[128];
static uint16_t ports[3]; /* master, replica, Sentinel */
static pid_t pids[3];

static pid_t start(const char *const *args)
{
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid != 0) return pid;
    int null = open("/dev/null", O_RDWR);
    union {
        const char *const *in;
        char *const *out;
    } argv = { .in = args };
    dup2(null, 1);
    dup2(null, 2);
    if (chdir(folder) == 0) execvp("redis-server", argv.out);
    _exit(127);
}

/* Waits until a command's answer has a word in it. */
static void wait_for(uint16_t port, const char *const *words, size_t n, const char *want)
{
    char to[64], seen[512] = "";
    struct redis *r;
    struct why why = { "" };
    struct str args[4];
    snprintf(to, sizeof to, "redis://127.0.0.1:%u", port);
    for (size_t i = 0; i < n; i++) args[i] = str_of(words[i]);
    assert_int_equal(redis_new(to, 10000, 10000, &r, &why), ERR_OK);
    for (int i = 0; i < 6000; i++) {
        const struct redis_value *v;
        if (redis_command(r, args, n, &v, &why) == ERR_OK) {
            (void)str_copyz(seen, sizeof seen, redis_str(v));
            if (str_contains(redis_str(v), str_of(want))) {
                redis_free(r);
                return;
            }
        }
        poll(NULL, 0, 10);
    }
    fail_msg("%s at %u: no %s, but %s %s", words[0], port, want, seen, why.text);
}

static int setup(void **state)
{
    (void)state;
    char text[4][16];
    (void)str_copyz(folder, sizeof folder, STR("/tmp/aigw-sentinel-XXXXXX"));
    assert_non_null(mkdtemp(folder));
    for (int i = 0; i < 3; i++) {
        ports[i] = support_free_port();
        snprintf(text[i], sizeof text[i], "%u", ports[i]);
    }
    const char *master[] = { "redis-server",
                             "--port",
                             text[0],
                             "--bind",
                             "127.0.0.1",
                             "--save",
                             "",
                             "--appendonly",
                             "no",
                             "--repl-diskless-sync-delay",
                             "0",
                             NULL };
    const char *replica[] = {
        "redis-server", "--port", text[1],       "--bind",    "127.0.0.1", "--save", "",
        "--appendonly", "no",     "--replicaof", "127.0.0.1", text[0],     NULL
    };
    pids[0] = start(master);
    pids[1] = start(replica);
    wait_for(ports[1], (const char *const[]){ "INFO", "replication" }, 2, "master_link_status:up");
    snprintf(conf, sizeof conf, "%s/sentinel.conf", folder);
    FILE *f = fopen(conf, "w");
    fprintf(f,
            "port %u\nbind 127.0.0.1\nsentinel monitor main 127.0.0.1 %u 1\n"
            "sentinel down-after-milliseconds main 2000\nsentinel failover-timeout main 3000\n",
            ports[2], ports[0]);
    fclose(f);
    const char *sentinel[] = { "redis-server", conf, "--sentinel", NULL };
    pids[2] = start(sentinel);
    wait_for(ports[2], (const char *const[]){ "INFO", "sentinel" }, 2, "slaves=1");
    /* the first Sentinel of the list is not there */
    snprintf(url, sizeof url, "redis+sentinel://127.0.0.1:%u,127.0.0.1:%u/main/2",
             support_free_port(), ports[2]);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++) {
        kill(pids[i], SIGKILL);
        waitpid(pids[i], NULL, 0);
    }
    (void)remove(conf);
    (void)rmdir(folder);
    return 0;
}

static enum err yes(void *ctx, bool *ret)
{
    (void)ctx;
    *ret = true;
    return ERR_OK;
}

static char epoch[LEASE_ID_MAX + 1];
static const struct ledger_window quota_window = { 1000000, 4000000000000000, 3600ull * SECOND };

static struct lease_result ask(struct store *s, const char *policy, const struct ledger_rule *rule,
                               const char *lease, uint64_t want)
{
    bool durable = rule->kind == LEDGER_FIXED;
    struct lease_op op = { .kind = LEASE_ASK,
                           .policy = str_of(policy),
                           .key = STR("k"),
                           .lease = str_of(lease),
                           .want = want,
                           .min = 1 };
    struct store_item item = { .op = &op, .rule = rule, .durable = durable };
    struct why why = { "" };
    if (durable) item.window = quota_window;
    if (store_serve(s, str_of(epoch), &item, 1, epoch, &why) != ERR_OK)
        item.result.status = LEASE_UNAVAILABLE;
    return item.result;
}

static const struct ledger_rule quota = { .kind = LEDGER_FIXED,
                                          .limit = 10,
                                          .lease_us = 2 * SECOND };
static const struct ledger_rule rate = {
    .kind = LEDGER_SLIDING, .limit = 5, .window_us = 60ull * SECOND, .lease_us = 2 * SECOND
};

static struct store *open_store(void)
{
    struct store *s;
    struct why why = { "" };
    struct store_redis_options o = { .url = url,
                                     .prefix = "aigw",
                                     .clock = clock_system(),
                                     .rng = rng_system(),
                                     .timeout_ms = 10000,
                                     .is_first = yes };
    assert_int_equal(store_redis_new(&o, &s, &why), ERR_OK);
    store_tick(s);
    return s;
}

/* The master dies, and its replica takes over. Until then nothing is granted, nor for the time of a
 * lease afterwards; then the rate is asked for, of which the new master knows nothing. */
static enum lease_status fail_over(struct store *s)
{
    struct lease_result r = { .status = LEASE_UNAVAILABLE };
    uint64_t begun_ms = 0;
    kill(pids[0], SIGKILL);
    assert_int_equal(ask(s, "quota", &quota, "c", 1).status, LEASE_UNAVAILABLE);
    wait_for(ports[1], (const char *const[]){ "INFO", "replication" }, 2, "role:master");
    for (int i = 0; i < 3000; i++) {
        store_tick(s);
        r = ask(s, "rate", &rate, "d", 1);
        if (r.status == LEASE_WARMING && begun_ms == 0) begun_ms = clock_mono_ms(clock_system());
        if (r.status != LEASE_UNAVAILABLE && r.status != LEASE_WARMING) break;
        poll(NULL, 0, 20);
    }
    assert_true(begun_ms > 0);
    assert_true(clock_mono_ms(clock_system()) - begun_ms >= LEASE_TTL_MS - 100);
    return r.status;
}

/* The usage ledger says so much. */
static void seed(struct store *s, uint64_t used)
{
    struct why why = { "" };
    struct store_counter c = { .policy = STR("quota"),
                               .key = STR("k"),
                               .durable = true,
                               .rule = &quota,
                               .window = quota_window };
    assert_int_equal(store_seed(s, &c, used, &why), ERR_OK);
}

static void a_failover_keeps_quotas_and_begins_rates_anew(void **state)
{
    (void)state;
    struct store *s = open_store();
    struct store_status status;
    char old[LEASE_ID_MAX + 1];
    assert_int_equal(ask(s, "quota", &quota, "a", 7).granted, 7);
    assert_int_equal(ask(s, "rate", &rate, "b", 5).granted, 5);
    memcpy(old, epoch, sizeof old);
    wait_for(ports[1], (const char *const[]){ "INFO", "keyspace" }, 2, "db2:keys=3");
    /* what the rate admitted within the last minute is not known: nothing, for a window */
    assert_int_equal(fail_over(s), LEASE_REFUSED);
    assert_string_not_equal(epoch, old);
    /* what the new master knows of the quota may not be all: the ledger is asked */
    assert_int_equal(ask(s, "quota", &quota, "d", 10).status, LEASE_WARMING);
    seed(s, 2);
    /* it knows more than the ledger: the first lease ended unreported, and counts as spent */
    assert_int_equal(ask(s, "quota", &quota, "d", 10).granted, 3);
    assert_int_equal(ask(s, "quota", &quota, "e", 1).status, LEASE_REFUSED);
    seed(s, 0); /* once is enough */
    assert_int_equal(ask(s, "quota", &quota, "e", 1).status, LEASE_REFUSED);
    store_status(s, &status);
    assert_true(status.ready);
    assert_int_equal(status.epochs, 2);
    assert_int_equal(status.losses, 0);
    store_free(s);
}

static void command(uint16_t port, const char *const *words, size_t n)
{
    char to[64];
    struct redis *r;
    struct why why = { "" };
    struct str args[8];
    const struct redis_value *v;
    snprintf(to, sizeof to, "redis://127.0.0.1:%u", port);
    for (size_t i = 0; i < n; i++) args[i] = str_of(words[i]);
    assert_int_equal(redis_new(to, 10000, 10000, &r, &why), ERR_OK);
    if (redis_command(r, args, n, &v, &why) != ERR_OK) fail_msg("%s: %s", words[0], why.text);
    redis_free(r);
}

static void a_replica_that_lags_takes_over_and_no_quota_is_passed(void **state)
{
    (void)state;
    struct store *s = open_store();
    assert_int_equal(ask(s, "quota", &quota, "a", 3).granted, 3);
    wait_for(ports[1], (const char *const[]){ "INFO", "keyspace" }, 2, "db2:keys=2");
    /* from here on the replica hears nothing: it cannot log in any more */
    command(ports[1], (const char *const[]){ "CONFIG", "SET", "masterauth", "wrong" }, 4);
    command(ports[1], (const char *const[]){ "CLIENT", "KILL", "TYPE", "master" }, 4);
    wait_for(ports[1], (const char *const[]){ "INFO", "replication" }, 2,
             "master_link_status:down");
    assert_int_equal(ask(s, "quota", &quota, "b", 5).granted, 5);
    assert_int_equal(ask(s, "rate", &rate, "r", 5).granted, 5);
    /* the rate, of which the new master has never heard */
    assert_int_equal(fail_over(s), LEASE_REFUSED);
    assert_int_equal(ask(s, "quota", &quota, "d", 10).status, LEASE_WARMING);
    seed(s, 8); /* both, of which the new master knows one */
    assert_int_equal(ask(s, "quota", &quota, "d", 10).granted, 2);
    assert_int_equal(ask(s, "quota", &quota, "e", 1).status, LEASE_REFUSED);
    store_free(s);
}

static void addresses_of_sentinels(void **state)
{
    (void)state;
    struct redis_address a;
    struct why why;
    assert_int_equal(
        redis_url_parse(STR("redis+sentinel://u:p%40w@h1,[::1]:7,h3:8/my-master/4"), &a, &why),
        ERR_OK);
    assert_true(a.by_sentinel);
    assert_int_equal(a.places_n, 3);
    assert_string_equal(a.places[0].host, "h1");
    assert_int_equal(a.places[0].port, 26379);
    assert_string_equal(a.places[1].host, "::1");
    assert_int_equal(a.places[1].port, 7);
    assert_string_equal(a.master, "my-master");
    assert_string_equal(a.password, "p@w");
    assert_int_equal(a.db, 4);
    static const char *const bad[] = { "redis+sentinel://h1",      "redis+sentinel:///m",
                                       "redis+sentinel://h1,/m/x", "redis+sentinel://h1:0/m",
                                       "redis+sentinel://h1/",     "sentinel://h1/m",
                                       "redis+sentinel://,h/m",    "redis://h1,h2/0" };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        if (redis_url_parse(str_of(bad[i]), &a, &why) == ERR_OK) fail_msg("taken: %s", bad[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_failover_keeps_quotas_and_begins_rates_anew, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_replica_that_lags_takes_over_and_no_quota_is_passed,
                                        setup, teardown),
        cmocka_unit_test(addresses_of_sentinels),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
