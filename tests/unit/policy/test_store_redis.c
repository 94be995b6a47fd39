/* SPDX-License-Identifier: Apache-2.0 */
/* Counters in a real Redis, started here: the script does what the ledger does, op by op; a
 * restart, a flush and several engines. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka wants the four above first */
#include <cmocka.h>
#include <arpa/inet.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../support_port.h"
#include "rt/redis.h"
#include "services/policy/store.h"

enum { SECOND = 1000000 };

struct server {
    pid_t pid;
    uint16_t port;
    char url[64];
};

/* Returns when it answers. */
static void start_server(struct server *s)
{
    char port[8];
    struct redis *r;
    struct why why = { "" };
    if (s->port == 0) s->port = support_free_port();
    snprintf(port, sizeof port, "%u", s->port);
    snprintf(s->url, sizeof s->url, "redis://:secret@127.0.0.1:%s/3", port);
    s->pid = fork();
    assert_true(s->pid >= 0);
    if (s->pid == 0) {
        int null = open("/dev/null", O_RDWR);
        dup2(null, 1);
        dup2(null, 2);
        execlp("redis-server", "redis-server", "--port", port, "--bind", "127.0.0.1", "--save", "",
               "--appendonly", "no", "--requirepass", "secret", (char *)NULL);
        _exit(127);
    }
    assert_int_equal(redis_new(s->url, 10000, 10000, &r, &why), ERR_OK);
    for (int i = 0; i < 6000; i++) {
        if (redis_connect(r, NULL, &why) == ERR_OK) {
            redis_free(r);
            return;
        }
        assert_int_equal(waitpid(s->pid, NULL, WNOHANG), 0);
        poll(NULL, 0, 10);
    }
    fail_msg("redis-server does not answer: %s", why.text);
}

static void stop_server(struct server *s)
{
    kill(s->pid, SIGKILL);
    waitpid(s->pid, NULL, 0);
}

static struct server server;

static int setup(void **state)
{
    (void)state;
    server = (struct server){ 0 };
    start_server(&server);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    stop_server(&server);
    return 0;
}

static enum err yes(void *ctx, bool *ret)
{
    (void)ctx;
    *ret = true;
    return ERR_OK;
}

static enum err cannot_tell(void *ctx, bool *ret)
{
    (void)ctx;
    (void)ret;
    return ERR_UNAVAILABLE;
}

static struct store *open_store(const char *prefix, bool first)
{
    struct store *s;
    struct why why = { "" };
    struct store_redis_options o = { .url = server.url,
                                     .prefix = prefix,
                                     .clock = clock_system(),
                                     .rng = rng_system(),
                                     .timeout_ms = 10000,
                                     .is_first = first ? yes : NULL };
    assert_int_equal(store_redis_new(&o, &s, &why), ERR_OK);
    store_tick(s);
    return s;
}

static char epoch[LEASE_ID_MAX + 1];

static struct lease_result serve_in(struct store *s, const struct ledger_rule *r,
                                    const struct ledger_window *w, struct lease_op op)
{
    struct store_item item = { .op = &op, .rule = r, .window = *w };
    struct why why = { "" };
    op.policy = STR("p");
    if (op.key.n == 0) op.key = STR("k");
    if (op.min == 0) op.min = 1;
    if (store_serve(s, str_of(epoch), &item, 1, epoch, &why) != ERR_OK)
        item.result.status = LEASE_UNAVAILABLE;
    return item.result;
}

static struct lease_result serve(struct store *s, const struct ledger_rule *r, struct lease_op op)
{
    return serve_in(s, r, &(struct ledger_window){ 0 }, op);
}

static const struct ledger_rule five = { LEDGER_BUCKET, 5, 5, 60 * SECOND, 2 * SECOND, 0 };

static struct lease_op ask(const char *lease, uint64_t known, uint64_t want)
{
    return (
        struct lease_op){ .kind = LEASE_ASK, .lease = str_of(lease), .known = known, .want = want };
}

static void a_first_epoch_begins_full_and_two_engines_share_it(void **state)
{
    struct store *a = open_store("first", true), *b = open_store("first", true);
    struct store_status sa, sb;
    (void)state;
    store_status(a, &sa);
    store_status(b, &sb);
    assert_true(sa.ready && sb.ready);
    assert_string_equal(sa.epoch, sb.epoch);
    assert_int_equal(sa.epochs + sb.epochs, 1);
    assert_int_equal(serve(a, &five, ask("x", 0, 3)).granted, 3);
    assert_int_equal(serve(b, &five, ask("y", 0, 3)).granted, 2);
    assert_int_equal(serve(a, &five, ask("z", 0, 1)).status, LEASE_REFUSED);
    /* the same ask again, at the other engine */
    assert_int_equal(serve(b, &five, ask("x", 0, 3)).granted, 3);
    store_free(a);
    store_free(b);
}

static void an_epoch_after_a_loss_warms_first(void **state)
{
    uint64_t begun = clock_mono_ms(clock_system());
    struct store *s = open_store("warm", false);
    (void)state;
    struct lease_result r = serve(s, &five, ask("x", 0, 1));
    uint64_t took = clock_mono_ms(clock_system()) - begun;
    assert_int_equal(r.status, LEASE_WARMING);
    assert_in_range(r.retry_ms, took < LEASE_TTL_MS - 100 ? LEASE_TTL_MS - 100 - took : 1,
                    LEASE_TTL_MS);
    store_free(s);
}

static void while_it_cannot_be_told_whether_it_is_the_first_no_epoch_begins(void **state)
{
    struct store_redis_options o = { .url = server.url,
                                     .prefix = "unknown",
                                     .clock = clock_system(),
                                     .rng = rng_system(),
                                     .timeout_ms = 10000,
                                     .is_first = cannot_tell };
    struct store *s;
    struct store_status status;
    struct why why;
    (void)state;
    assert_int_equal(store_redis_new(&o, &s, &why), ERR_OK);
    for (int i = 0; i < 3; i++) store_tick(s);
    store_status(s, &status);
    assert_false(status.ready);
    assert_int_equal(serve(s, &five, ask("x", 0, 1)).status, LEASE_UNAVAILABLE);
    store_free(s);
}

static void a_flush_begins_a_new_epoch_and_nothing_is_granted_from_the_old(void **state)
{
    struct store *s = open_store("flush", true);
    struct redis *r;
    const struct redis_value *v;
    const struct str flush[] = { STR("FLUSHALL") };
    struct store_status status;
    struct why why;
    char old[LEASE_ID_MAX + 1];
    (void)state;
    assert_int_equal(serve(s, &five, ask("x", 0, 1)).granted, 1);
    memcpy(old, epoch, sizeof old);
    assert_int_equal(redis_new(server.url, 1000, 1000, &r, &why), ERR_OK);
    assert_int_equal(redis_command(r, flush, 1, &v, &why), ERR_OK);
    redis_free(r);
    assert_int_equal(serve(s, &five, ask("y", 0, 1)).status, LEASE_UNAVAILABLE);
    store_status(s, &status);
    assert_false(status.ready);
    store_tick(s); /* is_first says yes, but in production the bucket of claims remembers */
    store_status(s, &status);
    assert_true(status.ready);
    assert_string_not_equal(status.epoch, old);
    /* the lease of before is of an epoch that is over */
    assert_int_equal(serve(s, &five, ask("x", 1, 1)).status, LEASE_STALE_EPOCH);
    store_free(s);
}

static void a_restart_of_redis_begins_a_new_epoch_that_warms(void **state)
{
    struct store *s = open_store("restart", true);
    struct store_status status;
    (void)state;
    assert_int_equal(serve(s, &five, ask("x", 0, 1)).granted, 1);
    stop_server(&server);
    assert_int_equal(serve(s, &five, ask("x", 1, 1)).status, LEASE_UNAVAILABLE);
    start_server(&server);
    for (int i = 0; i < 1000; i++) {
        store_tick(s);
        store_status(s, &status);
        if (status.ready) break;
        poll(NULL, 0, 50);
    }
    assert_true(status.ready);
    assert_int_equal(status.epochs, 2);
    store_free(s);
}

static void a_redis_that_hangs_costs_one_timeout_and_then_nothing(void **state)
{
    struct store_redis_options o = { .url = server.url,
                                     .prefix = "hang",
                                     .clock = clock_system(),
                                     .rng = rng_system(),
                                     .timeout_ms = 400,
                                     .is_first = yes };
    struct store *s;
    struct why why;
    (void)state;
    assert_int_equal(store_redis_new(&o, &s, &why), ERR_OK);
    store_tick(s);
    assert_int_equal(serve(s, &five, ask("x", 0, 1)).status, LEASE_GRANTED);
    kill(server.pid, SIGSTOP);
    uint64_t t0 = clock_mono_ms(clock_system());
    assert_int_equal(serve(s, &five, ask("x", 1, 1)).status, LEASE_UNAVAILABLE);
    uint64_t t1 = clock_mono_ms(clock_system());
    for (int i = 0; i < 100; i++)
        assert_int_equal(serve(s, &five, ask("x", 1, 1)).status, LEASE_UNAVAILABLE);
    uint64_t t2 = clock_mono_ms(clock_system());
    kill(server.pid, SIGCONT);
    assert_true(t1 - t0 >= 400);
    assert_true(t2 - t1 < 100 * 400 / 2);
    store_free(s);
}

/* A server that takes 1200 ms for each command of the first connection, and none after them. */
static void *slow_server(void *ctx)
{
    static const char *const replies[] = { "+OK\r\n", "+OK\r\n", "$12\r\nrun_id:abc\r\n\r\n" };
    char text[512];
    int fd = accept(*(int *)ctx, NULL, NULL);
    for (size_t i = 0; i < 8 && read(fd, text, sizeof text) > 0; i++) {
        bool setting_up = i < ARRAY_LEN(replies);
        const char *reply = setting_up ? replies[i] : "+PONG\r\n";
        if (setting_up) poll(NULL, 0, 1200);
        if (write(fd, reply, strlen(reply)) < 0) break;
        if (!setting_up && read(fd, text, sizeof text) > 0) { /* and then it hangs */
            (void)!read(fd, text, sizeof text);
            break;
        }
    }
    close(fd);
    return NULL;
}

static void a_redis_that_recovers_may_take_longer_to_be_set_up_than_a_call(void **state)
{
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t n = sizeof a;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    char url[64], run_id[41];
    pthread_t thread;
    struct redis *r;
    const struct redis_value *v;
    const struct str ping[] = { STR("PING") };
    struct why why = { "" };
    (void)state;
    assert_true(fd >= 0 && bind(fd, (struct sockaddr *)&a, sizeof a) == 0 && listen(fd, 1) == 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &n), 0);
    assert_int_equal(pthread_create(&thread, NULL, slow_server, &fd), 0);
    snprintf(url, sizeof url, "redis://:secret@127.0.0.1:%u/3", ntohs(a.sin_port));
    assert_int_equal(redis_new(url, 60000, 1000, &r, &why), ERR_OK);
    if (redis_connect(r, run_id, &why) != ERR_OK) fail_msg("%s", why.text);
    assert_string_equal(run_id, "abc");
    assert_int_equal(redis_command(r, ping, 1, &v, &why), ERR_OK);
    /* a call has its own time again */
    uint64_t begun = clock_mono_ms(clock_system());
    assert_int_equal(redis_command(r, ping, 1, &v, &why), ERR_TIMEOUT);
    assert_in_range(clock_mono_ms(clock_system()) - begun, 950, 60000);
    redis_free(r);
    pthread_join(thread, NULL);
    close(fd);
}

static void a_clock_that_steps_ends_the_epoch(void **state)
{
    /* our own clock jumps instead of that of Redis: only their difference can be seen */
    struct clock_fake fake;
    struct store_redis_options o = { .url = server.url,
                                     .prefix = "step",
                                     .clock = &fake.clock,
                                     .rng = rng_system(),
                                     .timeout_ms = 10000,
                                     .is_first = yes };
    struct store *s;
    struct store_status status;
    struct why why;
    char old[LEASE_ID_MAX + 1];
    (void)state;
    clock_fake_init(&fake, 1000 * UINT64_C(1000000000), UINT64_C(1000000000));
    assert_int_equal(store_redis_new(&o, &s, &why), ERR_OK);
    store_tick(s);
    assert_int_equal(serve(s, &five, ask("x", 0, 1)).status, LEASE_GRANTED);
    memcpy(old, epoch, sizeof old);
    clock_fake_advance(&fake, UINT64_C(3600) * 1000000000);
    assert_int_equal(serve(s, &five, ask("x", 1, 1)).status, LEASE_UNAVAILABLE);
    store_status(s, &status);
    assert_int_equal(status.clock_steps, 1);
    assert_string_not_equal(status.epoch, old);
    assert_int_equal(serve(s, &five, ask("y", 0, 1)).status, LEASE_WARMING);
    /* found out by the upkeep, too */
    clock_fake_advance(&fake, UINT64_C(3600) * 1000000000);
    memcpy(old, status.epoch, sizeof old);
    store_tick(s);
    store_status(s, &status);
    assert_int_equal(status.clock_steps, 2);
    assert_string_not_equal(status.epoch, old);
    store_free(s);
}

static void addresses_that_are_none_are_refused_and_not_quoted(void **state)
{
    static const char *const bad[] = { "redis://",
                                       "redis://:hidden@",
                                       "http://localhost",
                                       "redis://localhost:0",
                                       "redis://localhost:70000",
                                       "redis://localhost/x",
                                       "redis://[::1",
                                       "redis://:hidden%2@localhost" };
    static const char *const good[] = { "redis://localhost", "redis://u:p%40ss@[::1]:6380/15",
                                        "redis://:p@ss@localhost:6379" };
    struct redis *r;
    struct why why;
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        assert_int_equal(redis_new(bad[i], 10, 10, &r, &why), ERR_INVALID);
        assert_null(strstr(why.text, "hidden"));
    }
    for (size_t i = 0; i < ARRAY_LEN(good); i++) {
        assert_int_equal(redis_new(good[i], 10, 10, &r, &why), ERR_OK);
        redis_free(r);
    }
}

static void a_wrong_password_is_said_and_not_quoted(void **state)
{
    char url[64];
    struct redis *r;
    struct why why;
    (void)state;
    snprintf(url, sizeof url, "redis://:hidden@127.0.0.1:%u", server.port);
    assert_int_equal(redis_new(url, 1000, 1000, &r, &why), ERR_OK);
    assert_int_equal(redis_connect(r, NULL, &why), ERR_UNAVAILABLE);
    assert_non_null(strstr(why.text, "password"));
    assert_null(strstr(why.text, "hidden"));
    redis_free(r);
}

/* --- the script against the ledger --- */

/* Runs the same random ops through Redis and through a ledger that is told Redis's times. The
 * script does not report its time: so the ledger is asked at both ends of the call, and where it
 * says the same, the script must say it too. */
static void the_script_is_the_ledger(void **state)
{
    static const struct ledger_rule rules[] = {
        { LEDGER_BUCKET, 50, 50, SECOND, 50000, 0 },
        { LEDGER_BUCKET, 5, 7, SECOND, 50000, 0 },
        { LEDGER_SLIDING, 20, 0, SECOND, 50000, 0 },
        { LEDGER_SLIDING, 400, 0, SECOND, 50000, 0 },
        { LEDGER_SLOTS, 12, 0, 0, 200000, 0 },
        { LEDGER_FIXED, 60, 0, 300000, 50000, 0 },
        { LEDGER_BUCKET, 50, 50, SECOND, 50000, 250000 },
    };
    struct store *s = open_store("same", true);
    struct rng_fake rng;
    size_t granted = 0, refused = 0, ended = 0, unlike = 0;
    (void)state;
    rng_fake_init(&rng, 5);
    serve(s, &five, ask("to learn the epoch", 0, 1));
    for (size_t k = 0; k < ARRAY_LEN(rules); k++) {
        const struct ledger_rule *r = &rules[k];
        struct ledger early, late;
        char key[16], id[16] = "1";
        uint64_t known = 0, spent = 0, returned = 0, debt = 0, number = 1;
        uint64_t t0 = clock_mono_ns(clock_system()) / 1000;
        snprintf(key, sizeof key, "k%zu", k);
        struct ledger_window w = ledger_window_of(r, t0);
        ledger_init(&early, r, t0, &w, &(struct ledger_birth){ .full = true });
        ledger_init(&late, r, t0, &w, &(struct ledger_birth){ .full = true });
        for (int i = 0; i < 400; i++) {
            struct lease_op op = { .kind = (enum lease_op_kind)rng_below(&rng.rng, LEASE_OP_MAX),
                                   .key = str_of(key),
                                   .min = 1 + rng_below(&rng.rng, 2) };
            struct lease_result a = { 0 }, b = { 0 }, res;
            if (rng_below(&rng.rng, 20) == 0) {
                snprintf(id, sizeof id, "%llu", (unsigned long long)++number);
                known = spent = returned = debt = 0;
            }
            op.lease = str_of(id);
            if (op.kind == LEASE_ASK) op.want = 1 + rng_below(&rng.rng, 9);
            if (op.kind == LEASE_ASK) op.ahead = rng_below(&rng.rng, 30);
            uint64_t holds = known - spent - returned;
            if (rng_below(&rng.rng, 2) == 0 && holds > 0) spent += rng_below(&rng.rng, holds + 1);
            holds = known - spent - returned;
            if (op.kind == LEASE_RETURN && holds > 0) returned += rng_below(&rng.rng, holds + 1);
            op.known = known;
            op.spent = spent;
            op.returned = returned;
            if (rng_below(&rng.rng, 10) == 0) op.debt = debt += 1 + rng_below(&rng.rng, 3);
            op.debt = debt;
            if (rng_below(&rng.rng, 8) == 0) op.spent = rng_below(&rng.rng, spent + 1); /* late */
            uint64_t before = clock_mono_ns(clock_system()) / 1000;
            w = ledger_window_of(r, before);
            res = serve_in(s, r, &w, op);
            uint64_t after = clock_mono_ns(clock_system()) / 1000;
            assert_int_equal(ledger_serve(&early, r, before, &w, &op, &a), ERR_OK);
            assert_int_equal(ledger_serve(&late, r, after, &w, &op, &b), ERR_OK);
            bool parted = a.status != b.status || a.granted != b.granted;
            bool like = res.status == a.status && res.granted == a.granted &&
                        res.remaining + 1 >= MIN(a.remaining, b.remaining) &&
                        res.remaining <= MAX(a.remaining, b.remaining) + 1;
            if (!parted && !like) unlike++;
            if (res.status == LEASE_GRANTED) granted++;
            if (res.status == LEASE_REFUSED) refused++;
            if (res.status == LEASE_ENDED) ended++;
            if (parted || !like) {
                /* by the length of a call, and the script was anywhere in between: begin anew with
                 * another counter */
                ledger_done(&early);
                ledger_done(&late);
                t0 = clock_mono_ns(clock_system()) / 1000;
                w = ledger_window_of(r, t0);
                ledger_init(&early, r, t0, &w, &(struct ledger_birth){ .full = true });
                ledger_init(&late, r, t0, &w, &(struct ledger_birth){ .full = true });
                snprintf(key, sizeof key, "k%zu-%d", k, i);
                snprintf(id, sizeof id, "%llu", (unsigned long long)++number);
                known = spent = returned = debt = 0;
                continue;
            }
            known = res.granted;
            if (res.status == LEASE_ENDED) {
                snprintf(id, sizeof id, "%llu", (unsigned long long)++number);
                known = spent = returned = debt = 0;
            }
            if (rng_below(&rng.rng, 12) == 0) poll(NULL, 0, 20);
        }
        ledger_done(&early);
        ledger_done(&late);
    }
    assert_true(granted > 300 && refused > 20 && ended > 20);
    /* a lease that ended in Redis within the call, though not in either ledger; a script that did
     * something else would be unlike far more often */
    assert_true(unlike <= 8);
    store_free(s);
}

/* --- quotas: durable counters, side by side with those in memory --- */

static const struct ledger_rule hundred = { .kind = LEDGER_FIXED,
                                            .limit = 100,
                                            .lease_us = 60 * SECOND };
enum { STORES = 2, QUOTA_KEYS = 3 };

struct side {
    struct store *s;
    char epoch[LEASE_ID_MAX + 1];
};

static struct store_counter quota_of(const char *key, const struct ledger_window *w)
{
    return (struct store_counter){ .policy = STR("q"),
                                   .key = key != NULL ? str_of(key) : STR_NULL,
                                   .unit = 't',
                                   .durable = true,
                                   .rule = &hundred,
                                   .window = *w };
}

static struct lease_result serve_quota(struct side *x, const struct ledger_window *w,
                                       struct lease_op op)
{
    struct store_item item = {
        .op = &op, .rule = &hundred, .window = *w, .unit = 't', .durable = true
    };
    struct why why = { "" };
    op.policy = STR("q");
    if (op.min == 0) op.min = 1;
    if (store_serve(x->s, str_of(x->epoch), &item, 1, x->epoch, &why) != ERR_OK)
        fail_msg("not served: %s", why.text);
    return item.result;
}

struct views {
    size_t n;
    struct store_view v[QUOTA_KEYS + 1];
    char keys[QUOTA_KEYS + 1][16];
};

static void note_view(void *ctx, const struct store_view *v)
{
    struct views *all = ctx;
    assert_true(all->n <= QUOTA_KEYS);
    assert_true(str_copyz(all->keys[all->n], sizeof all->keys[0], v->key));
    all->v[all->n++] = *v;
}

/* Both tell the same of each key, and as much as when they are asked for all. */
static void both_tell_the_same(struct side sides[STORES], const struct ledger_window *w)
{
    char cursor[STORE_CURSOR_LEN];
    struct why why = { "" };
    size_t found[STORES] = { 0 };
    for (size_t k = 0; k < QUOTA_KEYS; k++) {
        struct views all[STORES] = { 0 };
        char key[8];
        snprintf(key, sizeof key, "k%zu", k);
        struct store_counter c = quota_of(key, w);
        for (int i = 0; i < STORES; i++) {
            assert_int_equal(store_look(sides[i].s, &c, "", 10, note_view, &all[i], cursor, &why),
                             ERR_OK);
            found[i] += all[i].n;
        }
        assert_int_equal(all[0].n, all[1].n);
        if (all[0].n == 0) continue;
        assert_int_equal(all[0].v[0].used, all[1].v[0].used);
        assert_int_equal(all[0].v[0].leased, all[1].v[0].leased);
        assert_int_equal(all[0].v[0].left, all[1].v[0].left);
        assert_int_equal(all[0].v[0].limit, 100);
    }
    for (int i = 0; i < STORES; i++) {
        struct views all = { 0 };
        struct store_counter c = quota_of(NULL, w);
        assert_int_equal(store_look(sides[i].s, &c, "", 10, note_view, &all, cursor, &why), ERR_OK);
        assert_int_equal(all.n, found[i]);
    }
}

static void quotas_in_redis_are_those_in_memory(void **state)
{
    char folder[] = "/tmp/aigw-test-quotas-XXXXXX", file[64];
    struct ledger_window w = { 1000000, 4000000000000000, 3600 * UINT64_C(1000000) };
    struct marks *marks;
    struct rng_fake rng;
    struct why why = { "" };
    struct side sides[STORES] = { { .s = open_store("quotas", true) } };
    struct {
        char id[24];
        uint64_t known, spent, returned;
    } leases[QUOTA_KEYS] = { 0 };
    size_t granted = 0, refused = 0, resets = 0, number = 0;
    (void)state;
    rng_fake_init(&rng, 11);
    assert_non_null(mkdtemp(folder));
    assert_int_equal(marks_open(folder, 32, clock_system(), rng_system(), &marks, &why), ERR_OK);
    sides[1].s = store_memory_new(clock_system(), 32);
    store_memory_keep(sides[1].s, marks);
    store_memory_begin(sides[1].s, "e1", true);
    /* born from a mark: k0 begins with what was used of it; the others unused */
    struct store_counter born = quota_of("k0", &w);
    for (int i = 0; i < STORES; i++) {
        assert_int_equal(store_seed(sides[i].s, &born, 40, &why), ERR_OK);
        assert_int_equal(store_seed(sides[i].s, &born, 90, &why), ERR_OK); /* too late */
    }
    for (int round = 0; round < 300; round++) {
        size_t k = (size_t)rng_below(&rng.rng, QUOTA_KEYS);
        char key[8];
        snprintf(key, sizeof key, "k%zu", k);
        if (rng_below(&rng.rng, 40) == 0) { /* an operator's reset, of one or all */
            struct store_counter c = quota_of(rng_below(&rng.rng, 3) > 0 ? key : NULL, &w);
            size_t n[STORES] = { 0 };
            for (int i = 0; i < STORES; i++)
                assert_int_equal(store_reset(sides[i].s, &c, &n[i], &why), ERR_OK);
            assert_int_equal(n[0], n[1]);
            resets++;
        }
        if (round == 200) { /* the next window: nothing is used of it */
            w.begin = w.end;
            w.end += 1000000;
        }
        if (leases[k].id[0] == '\0' || rng_below(&rng.rng, 10) == 0) {
            snprintf(leases[k].id, sizeof leases[k].id, "l%zu", ++number);
            leases[k].known = leases[k].spent = leases[k].returned = 0;
        }
        uint64_t holds = leases[k].known - leases[k].spent - leases[k].returned;
        leases[k].spent += rng_below(&rng.rng, holds + 1);
        holds = leases[k].known - leases[k].spent - leases[k].returned;
        struct lease_op op = { .kind = (enum lease_op_kind)rng_below(&rng.rng, LEASE_OP_MAX),
                               .key = str_of(key),
                               .lease = str_of(leases[k].id),
                               .known = leases[k].known,
                               .spent = leases[k].spent };
        if (op.kind == LEASE_RETURN) leases[k].returned += rng_below(&rng.rng, holds + 1);
        op.returned = leases[k].returned;
        if (op.kind == LEASE_ASK) op.want = 1 + rng_below(&rng.rng, 25);
        struct lease_result a = serve_quota(&sides[0], &w, op), b = serve_quota(&sides[1], &w, op);
        if (a.status != b.status || a.granted != b.granted || a.remaining != b.remaining)
            fail_msg("round %d: Redis %s %llu left %llu, memory %s %llu left %llu", round,
                     lease_status_name(a.status), (unsigned long long)a.granted,
                     (unsigned long long)a.remaining, lease_status_name(b.status),
                     (unsigned long long)b.granted, (unsigned long long)b.remaining);
        if (a.status == LEASE_GRANTED) leases[k].known = a.granted;
        if (a.status == LEASE_ENDED) leases[k].id[0] = '\0';
        if (a.status == LEASE_GRANTED && op.kind == LEASE_ASK) granted++;
        if (a.status == LEASE_REFUSED) refused++;
        if (round % 10 == 0) both_tell_the_same(sides, &w);
    }
    assert_true(granted > 40 && refused > 5 && resets > 2);
    /* another epoch, and it goes on from there: no counter of Redis is of one */
    struct store_counter all = quota_of(NULL, &w);
    char cursor[STORE_CURSOR_LEN];
    struct views before = { 0 }, after = { 0 };
    assert_int_equal(store_look(sides[0].s, &all, "", 10, note_view, &before, cursor, &why),
                     ERR_OK);
    store_free(sides[0].s);
    sides[0].s = open_store("quotas", false);
    assert_int_equal(store_look(sides[0].s, &all, "", 10, note_view, &after, cursor, &why), ERR_OK);
    assert_int_equal(after.n, before.n);
    for (size_t i = 0; i < STORES; i++) store_free(sides[i].s);
    marks_free(marks);
    snprintf(file, sizeof file, "%s/quotas.marks", folder);
    (void)remove(file);
    (void)rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_first_epoch_begins_full_and_two_engines_share_it),
        cmocka_unit_test(an_epoch_after_a_loss_warms_first),
        cmocka_unit_test(while_it_cannot_be_told_whether_it_is_the_first_no_epoch_begins),
        cmocka_unit_test(a_flush_begins_a_new_epoch_and_nothing_is_granted_from_the_old),
        cmocka_unit_test(the_script_is_the_ledger),
        cmocka_unit_test(quotas_in_redis_are_those_in_memory),
        cmocka_unit_test(a_redis_that_recovers_may_take_longer_to_be_set_up_than_a_call),
        cmocka_unit_test(a_clock_that_steps_ends_the_epoch),
        cmocka_unit_test(a_redis_that_hangs_costs_one_timeout_and_then_nothing),
        cmocka_unit_test(addresses_that_are_none_are_refused_and_not_quoted),
        cmocka_unit_test(a_wrong_password_is_said_and_not_quoted),
        cmocka_unit_test(a_restart_of_redis_begins_a_new_epoch_that_warms),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
