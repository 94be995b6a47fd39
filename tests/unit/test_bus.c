/* SPDX-License-Identifier: Apache-2.0 */
/* The bus against a real nats-server: messages, requests, breaks of the connection, streams,
 * buckets, $SRV. */
#include "support_bus.h"

/* --- publish and subscribe */

static void every_subscriber_gets_a_message(void **state)
{
    struct fixture *f = *state;
    struct box a, b;
    struct bus_sub *sa, *sb;
    box_init(&a);
    box_init(&b);
    assert_int_equal(bus_subscribe(f->bus, "test.news", NULL, box_msg, &a, &sa), ERR_OK);
    assert_int_equal(bus_subscribe(f->bus, "test.*", NULL, box_msg, &b, &sb), ERR_OK);
    assert_int_equal(bus_publish(f->bus, "test.news", STR("hello")), ERR_OK);
    assert_true(box_wait(&a, 1, SOON_MS));
    assert_true(box_wait(&b, 1, SOON_MS));
    assert_string_equal(a.text, "hello");
    bus_unsubscribe(sa);
    assert_int_equal(bus_publish(f->bus, "test.news", STR("again")), ERR_OK);
    assert_true(box_wait(&b, 2, SOON_MS));
    assert_int_equal(box_count(&a), 1);
    bus_unsubscribe(sb);
}

static void one_of_a_queue_group_gets_a_message(void **state)
{
    struct fixture *f = *state;
    struct box all;
    struct bus_sub *s[3], *last;
    box_init(&all);
    for (int i = 0; i < 3; i++)
        assert_int_equal(bus_subscribe(f->bus, "test.work", "workers", box_msg, &all, &s[i]),
                         ERR_OK);
    for (int i = 0; i < 60; i++)
        assert_int_equal(bus_publish(f->bus, "test.work", STR("w")), ERR_OK);
    assert_true(box_wait(&all, 60, SOON_MS));
    struct box end;
    box_init(&end);
    assert_int_equal(bus_subscribe(f->bus, "test.end", NULL, box_msg, &end, &last), ERR_OK);
    assert_int_equal(bus_publish(f->bus, "test.end", STR("e")), ERR_OK);
    assert_true(box_wait(&end, 1, SOON_MS));
    assert_int_equal(box_count(&all), 60);
    for (int i = 0; i < 3; i++) bus_unsubscribe(s[i]);
    bus_unsubscribe(last);
}

static void refuses_bad_subjects_and_too_long_messages(void **state)
{
    struct fixture *f = *state;
    struct bus_sub *s = NULL;
    static const char *const bad[] = { "",   ".",  "a..b", "a b", "a\r\nPUB x 0\r\n",
                                       "a.", ".a", "*",    "a.>" };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        assert_int_equal(bus_publish(f->bus, bad[i], STR("x")), ERR_INVALID);
    assert_int_equal(bus_subscribe(f->bus, "a..b", NULL, box_msg, NULL, &s), ERR_INVALID);
    assert_null(s);
    size_t n = (1 << 20) + 1;
    char *big = xcalloc(1, n);
    assert_int_equal(bus_publish(f->bus, "test.big", str_n(big, n)), ERR_LIMIT);
    assert_int_equal(bus_request(f->bus, "test.big", str_n(big, n), 100, box_reply, NULL),
                     ERR_LIMIT);
    assert_int_equal(bus_publish(f->bus, "test.big", str_n(big, n - 1)), ERR_OK);
    free(big);
}

struct slow {
    struct box started, finished;
    atomic_bool over;
};

static void slow_handler(void *ctx, const struct bus_msg *m)
{
    struct slow *s = ctx;
    struct timespec t = { 0, 100 * 1000000 };
    (void)m;
    box_put(&s->started, ERR_OK, STR_NULL, false);
    nanosleep(&t, NULL);
    atomic_store(&s->over, true);
}

static void unsubscribe_waits_for_the_handler(void **state)
{
    struct fixture *f = *state;
    struct slow slow;
    struct bus_sub *s;
    box_init(&slow.started);
    atomic_init(&slow.over, false);
    assert_int_equal(bus_subscribe(f->bus, "test.slow", NULL, slow_handler, &slow, &s), ERR_OK);
    assert_int_equal(bus_publish(f->bus, "test.slow", STR("x")), ERR_OK);
    assert_true(box_wait(&slow.started, 1, SOON_MS));
    bus_unsubscribe(s);
    assert_true(atomic_load(&slow.over));
}

struct stuck {
    struct box seen;
    atomic_bool release;
};

static void stuck_handler(void *ctx, const struct bus_msg *m)
{
    struct stuck *s = ctx;
    while (!atomic_load(&s->release)) {
        struct timespec t = { 0, 1000000 };
        nanosleep(&t, NULL);
    }
    box_put(&s->seen, ERR_OK, m->data, false);
}

static void what_a_slow_handler_leaves_is_dropped_and_counted(void **state)
{
    enum { SENT = 20000, KEPT = 16384 };
    struct fixture *f = *state;
    struct stuck stuck;
    struct bus_sub *s;
    struct bus_stats stats;
    box_init(&stuck.seen);
    atomic_init(&stuck.release, false);
    assert_int_equal(bus_subscribe(f->bus, "test.flood", NULL, stuck_handler, &stuck, &s), ERR_OK);
    for (int i = 0; i < SENT; i++)
        assert_int_equal(bus_publish(f->bus, "test.flood", STR("x")), ERR_OK);
    sync_bus(f->bus);
    assert_true(box_wait(&f->errors, 1, SOON_MS));
    assert_non_null(strstr(f->errors.text, "test.flood"));
    bus_stats(f->bus, &stats);
    assert_in_range(stats.dropped, SENT - KEPT - 1, SENT - KEPT);
    assert_true(stats.out_msgs >= SENT && stats.in_msgs >= SENT);
    atomic_store(&stuck.release, true);
    assert_true(box_wait(&stuck.seen, (int)(SENT - stats.dropped), SOON_MS));
    bus_unsubscribe(s);
    struct bus_stats after;
    bus_stats(f->bus, &after);
    assert_int_equal(after.dropped, stats.dropped);
}

struct flood {
    struct bus *bus;
    atomic_bool stop;
};

static void *flood_main(void *ctx)
{
    struct flood *flood = ctx;
    while (!atomic_load(&flood->stop)) {
        enum err e = bus_publish(flood->bus, "test.flood", STR("x"));
        (void)e; /* what arrives is looked at */
    }
    return NULL;
}

static void subscriptions_may_end_while_their_messages_come(void **state)
{
    enum { ROUNDS = 1000 };
    struct fixture *f = *state;
    struct flood flood = { .bus = f->bus };
    pthread_t thread;
    int rounds = 0;
    enum err e = ERR_OK;
    assert_int_equal(pthread_create(&thread, NULL, flood_main, &flood), 0);
    for (; rounds < ROUNDS && e == ERR_OK; rounds++) {
        struct bus_sub *s;
        struct box got;
        box_init(&got);
        e = bus_subscribe(f->bus, "test.flood", NULL, box_msg, &got, &s);
        if (e != ERR_OK) break;
        if (!box_wait(&got, 1, SOON_MS)) e = ERR_TIMEOUT;
        bus_unsubscribe(s);
    }
    atomic_store(&flood.stop, true);
    pthread_join(thread, NULL);
    assert_int_equal(e, ERR_OK);
    assert_int_equal(rounds, ROUNDS);
}

/* --- requests */

static void echo(void *ctx, const struct bus_msg *m)
{
    enum err e = bus_reply(ctx, m->reply, m->data);
    (void)e; /* whoever asked sees whether it came */
}

static void a_request_gets_its_reply(void **state)
{
    struct fixture *f = *state;
    struct bus_sub *s;
    struct box got;
    struct buf out;
    box_init(&got);
    buf_init(&out, 1024);
    assert_int_equal(bus_subscribe(f->bus, "test.echo", "q", echo, f->bus, &s), ERR_OK);
    assert_int_equal(bus_request(f->bus, "test.echo", STR("ping"), SOON_MS, box_reply, &got),
                     ERR_OK);
    assert_true(box_wait(&got, 1, SOON_MS));
    assert_int_equal(got.e, ERR_OK);
    assert_string_equal(got.text, "ping");
    assert_int_equal(bus_request_wait(f->bus, "test.echo", STR("pong"), 1000, &out), ERR_OK);
    assert_string_equal(buf_z(&out), "pong");
    buf_done(&out);
    bus_unsubscribe(s);
}

static void many_requests_at_once_get_their_own_replies(void **state)
{
    enum { N = 2000 };
    struct fixture *f = *state;
    struct bus_sub *s;
    struct box *got = xcalloc(N, sizeof *got);
    assert_int_equal(bus_subscribe(f->bus, "test.echo", NULL, echo, f->bus, &s), ERR_OK);
    for (int i = 0; i < N; i++) {
        char text[16];
        box_init(&got[i]);
        snprintf(text, sizeof text, "%d", i);
        assert_int_equal(
            bus_request(f->bus, "test.echo", str_of(text), SOON_MS, box_reply, &got[i]), ERR_OK);
    }
    for (int i = 0; i < N; i++) {
        char text[16];
        snprintf(text, sizeof text, "%d", i);
        assert_true(box_wait(&got[i], 1, 20000));
        assert_int_equal(got[i].e, ERR_OK);
        assert_string_equal(got[i].text, text);
        assert_int_equal(got[i].count, 1);
    }
    bus_unsubscribe(s);
    free(got);
}

static void a_request_without_responders_fails_at_once(void **state)
{
    struct fixture *f = *state;
    struct box got;
    box_init(&got);
    assert_int_equal(bus_request(f->bus, "test.nobody", STR("x"), 60000, box_reply, &got), ERR_OK);
    assert_true(box_wait(&got, 1, SOON_MS));
    assert_int_equal(got.e, ERR_UNAVAILABLE);
}

static void silent(void *ctx, const struct bus_msg *m)
{
    (void)ctx;
    (void)m;
}

static void an_unanswered_request_times_out(void **state)
{
    struct fixture *f = *state;
    struct bus_sub *s;
    static const int timeouts[] = { 1600, 50, 400, 800 };
    struct box got[ARRAY_LEN(timeouts)];
    assert_int_equal(bus_subscribe(f->bus, "test.silent", NULL, silent, NULL, &s), ERR_OK);
    sync_bus(f->bus);
    uint64_t start = clock_mono_ns(clock_system());
    for (size_t i = 0; i < ARRAY_LEN(timeouts); i++) {
        box_init(&got[i]);
        assert_int_equal(
            bus_request(f->bus, "test.silent", STR("x"), timeouts[i], box_reply, &got[i]), ERR_OK);
    }
    for (size_t i = 0; i < ARRAY_LEN(timeouts); i++) {
        assert_true(box_wait(&got[i], 1, SOON_MS));
        assert_int_equal(got[i].e, ERR_TIMEOUT);
        assert_true(ms_since(start, got[i].at_ns) >= timeouts[i] - 1);
        print_message("time-out of %d ms came after %.1f ms\n", timeouts[i],
                      ms_since(start, got[i].at_ns));
    }
    assert_true(got[1].at_ns < got[2].at_ns && got[2].at_ns < got[3].at_ns &&
                got[3].at_ns < got[0].at_ns);
    bus_unsubscribe(s);
}

static void late(void *ctx, const struct bus_msg *m)
{
    struct timespec t = { 0, 800 * 1000000 };
    nanosleep(&t, NULL);
    echo(ctx, m);
}

static void a_late_reply_is_not_delivered_to_another_request(void **state)
{
    struct fixture *f = *state;
    struct bus_sub *s, *q;
    struct box first, second;
    box_init(&first);
    box_init(&second);
    assert_int_equal(bus_subscribe(f->bus, "test.late", NULL, late, f->bus, &s), ERR_OK);
    assert_int_equal(bus_subscribe(f->bus, "test.silent", NULL, silent, NULL, &q), ERR_OK);
    assert_int_equal(bus_request(f->bus, "test.late", STR("late"), 20, box_reply, &first), ERR_OK);
    assert_true(box_wait(&first, 1, SOON_MS));
    assert_int_equal(first.e, ERR_TIMEOUT);
    assert_int_equal(bus_request(f->bus, "test.silent", STR("x"), 1500, box_reply, &second),
                     ERR_OK);
    assert_true(box_wait(&second, 1, SOON_MS));
    assert_int_equal(second.e, ERR_TIMEOUT);
    assert_int_equal(box_count(&first), 1);
    bus_unsubscribe(s);
    bus_unsubscribe(q);
}

/* --- breaks of the connection */

static void nothing_works_without_a_server_and_all_does_when_it_comes(void **state)
{
    struct fixture *f = *state;
    struct box got;
    struct bus_sub *s;
    box_init(&got);
    nats_server_kill(&f->server);
    f->bus = another_bus(f, "edge", "edge-1", NULL, NULL);
    assert_int_equal(bus_subscribe(f->bus, "test.echo", NULL, echo, f->bus, &s), ERR_OK);
    assert_int_equal(bus_publish(f->bus, "test.echo", STR("x")), ERR_UNAVAILABLE);
    assert_int_equal(bus_request(f->bus, "test.echo", STR("x"), 100, box_reply, &got),
                     ERR_UNAVAILABLE);
    assert_false(bus_is_connected(f->bus));
    nats_server_start(&f->server, NULL);
    assert_true(box_wait(&f->up, 1, SOON_MS));
    assert_int_equal(bus_request(f->bus, "test.echo", STR("x"), SOON_MS, box_reply, &got), ERR_OK);
    assert_true(box_wait(&got, 1, SOON_MS));
    assert_int_equal(got.e, ERR_OK);
    bus_unsubscribe(s);
}

static void a_killed_server_fails_requests_soon_and_subscriptions_come_back(void **state)
{
    struct fixture *f = *state;
    struct bus_sub *s, *e;
    struct box got, after;
    box_init(&got);
    box_init(&after);
    assert_int_equal(bus_subscribe(f->bus, "test.silent", NULL, silent, NULL, &s), ERR_OK);
    assert_int_equal(bus_subscribe(f->bus, "test.echo", NULL, echo, f->bus, &e), ERR_OK);
    sync_bus(f->bus);
    for (int i = 0; i < 50; i++)
        assert_int_equal(bus_request(f->bus, "test.silent", STR("x"), 60000, box_reply, &got),
                         ERR_OK);
    uint64_t start = clock_mono_ns(clock_system());
    nats_server_kill(&f->server);
    assert_true(box_wait(&got, 50, SOON_MS));
    assert_int_equal(got.e, ERR_UNAVAILABLE);
    print_message("50 requests failed %.1f ms after the kill\n", ms_since(start, got.at_ns));
    assert_true(box_wait(&f->down, 1, SOON_MS));
    assert_false(bus_is_connected(f->bus));
    assert_int_equal(bus_publish(f->bus, "test.echo", STR("lost")), ERR_UNAVAILABLE);
    assert_int_equal(bus_request(f->bus, "test.echo", STR("x"), 100, box_reply, &after),
                     ERR_UNAVAILABLE);
    nats_server_start(&f->server, NULL);
    assert_true(box_wait(&f->up, 2, SOON_MS));
    assert_int_equal(bus_request(f->bus, "test.echo", STR("back"), SOON_MS, box_reply, &after),
                     ERR_OK);
    assert_true(box_wait(&after, 1, SOON_MS));
    assert_int_equal(after.e, ERR_OK);
    assert_string_equal(after.text, "back");
    struct bus_stats stats;
    bus_stats(f->bus, &stats);
    assert_int_equal(stats.reconnects, 1);
    assert_int_equal(box_count(&got), 50);
    bus_unsubscribe(s);
    bus_unsubscribe(e);
}

static void a_server_that_hangs_is_noticed(void **state)
{
    struct fixture *f = *state;
    nats_server_signal(&f->server, SIGSTOP);
    bool noticed = box_wait(&f->down, 1, 15000);
    nats_server_signal(&f->server, SIGCONT);
    assert_true(noticed);
    assert_true(box_wait(&f->up, 2, SOON_MS));
    sync_bus(f->bus);
}

static void goes_on_trying_after_refused_logins(void **state)
{
    static const char locked[] = "authorization { users = [ { user: other, password: x } ] }\n";
    static const char open[] =
        "authorization { users = [ { user: edge, password: \"s3cret\" } ] }\n";
    struct fixture *f = *state;
    struct bus_sub *s;
    struct buf out;
    buf_init(&out, 1024);
    nats_server_kill(&f->server);
    nats_server_start(&f->server, locked);
    f->bus = another_bus(f, "edge", "edge-1", "edge", "s3cret");
    assert_int_equal(bus_subscribe(f->bus, "test.echo", NULL, echo, f->bus, &s), ERR_OK);
    assert_false(box_wait(&f->up, 1, 3000)); /* time for more than two refusals */
    assert_true(atomic_load(&f->refusals) > 0);
    nats_server_kill(&f->server);
    nats_server_start(&f->server, open);
    assert_true(box_wait(&f->up, 1, SOON_MS));
    assert_int_equal(bus_request_wait(f->bus, "test.echo", STR("in"), 2000, &out), ERR_OK);
    assert_string_equal(buf_z(&out), "in");

    /* The same while it was connected before. */
    nats_server_kill(&f->server);
    nats_server_start(&f->server, locked);
    assert_true(box_wait(&f->down, 1, SOON_MS));
    assert_false(box_wait(&f->up, 2, 4000));
    nats_server_kill(&f->server);
    nats_server_start(&f->server, open);
    assert_true(box_wait(&f->up, 2, SOON_MS));
    buf_clear(&out);
    assert_int_equal(bus_request_wait(f->bus, "test.echo", STR("in"), 2000, &out), ERR_OK);
    buf_done(&out);
    bus_unsubscribe(s);
}

static void works_with_nothing_but_its_own_inbox(void **state)
{
    static const char conf[] =
        "authorization { users = [ { user: edge, password: x, permissions: {\n"
        "  publish: [\"test.>\", \"_INBOX_edge.>\", \"$JS.API.STREAM.CREATE.*\", \"$KV.>\"\n"
        "    \"$JS.API.STREAM.INFO.*\", \"$JS.API.STREAM.MSG.GET.*\", \"$JS.API.DIRECT.GET.>\"]\n"
        "  subscribe: [\"test.>\", \"_INBOX_edge.>\", \"$SRV.>\"] } } ] }\n";
    struct fixture *f = *state;
    struct bus_sub *s, *no;
    struct buf out;
    struct why why;
    struct bus_kv *kv;
    buf_init(&out, 1024);
    nats_server_kill(&f->server);
    nats_server_start(&f->server, conf);
    f->bus = another_bus(f, "edge", "edge-1", "edge", "x");
    assert_true(box_wait(&f->up, 1, SOON_MS));
    assert_int_equal(bus_subscribe(f->bus, "test.echo", NULL, echo, f->bus, &s), ERR_OK);
    assert_int_equal(bus_request_wait(f->bus, "test.echo", STR("in"), 2000, &out), ERR_OK);
    assert_int_equal(bus_kv_open(f->bus, "AIGW_TEST", true, &kv, &why), ERR_OK);
    assert_int_equal(bus_kv_put(kv, "a", STR("1")), ERR_OK);
    buf_clear(&out);
    assert_int_equal(bus_kv_get(kv, "a", &out, NULL), ERR_OK);
    assert_int_equal(bus_kv_update(kv, "a", STR("2"), 0, NULL), ERR_CONFLICT);
    assert_int_equal(bus_kv_delete(kv, "a"), ERR_OK);
    assert_int_equal(bus_kv_update(kv, "a", STR("3"), 0, NULL), ERR_OK);
    bus_kv_close(kv);
    assert_int_equal(box_count(&f->errors), 0);
    assert_int_equal(bus_subscribe(f->bus, "secret.>", NULL, box_msg, &f->up, &no), ERR_OK);
    assert_true(box_wait(&f->errors, 1, SOON_MS));
    assert_non_null(strstr(f->errors.text, "secret"));
    bus_unsubscribe(no);
    bus_unsubscribe(s);
    buf_done(&out);
}

struct traffic {
    struct fixture *f;
    atomic_bool stop;
    _Atomic(enum err) failed_with[2]; /* subscribing, publishing */
    atomic_uint accepted, answered, ok, unavailable, timeout, other;
};

static void on_traffic(void *ctx, enum err e, struct str data)
{
    struct traffic *t = ctx;
    (void)data;
    atomic_fetch_add(e == ERR_OK            ? &t->ok
                     : e == ERR_UNAVAILABLE ? &t->unavailable
                     : e == ERR_TIMEOUT     ? &t->timeout
                                            : &t->other,
                     1);
    atomic_fetch_add(&t->answered, 1);
}

static void *make_traffic(void *ctx)
{
    struct traffic *t = ctx;
    while (!atomic_load(&t->stop)) {
        if (bus_request(t->f->bus, "test.echo", STR("x"), 2000, on_traffic, t) == ERR_OK)
            atomic_fetch_add(&t->accepted, 1);
        struct timespec pause = { 0, 200000 };
        nanosleep(&pause, NULL);
    }
    return NULL;
}

static void *make_subscriptions(void *ctx)
{
    struct traffic *t = ctx;
    while (!atomic_load(&t->stop)) {
        struct bus_sub *s;
        struct box got;
        box_init(&got);
        enum err e = bus_subscribe(t->f->bus, "test.other", NULL, box_msg, &got, &s);
        if (e == ERR_OK) {
            e = bus_publish(t->f->bus, "test.other", STR("x"));
            bus_unsubscribe(s);
        } else {
            t->failed_with[0] = e;
        }
        if (e != ERR_OK && e != ERR_UNAVAILABLE) t->failed_with[1] = e;
    }
    return NULL;
}

static void each_request_is_answered_once_while_servers_are_killed(void **state)
{
    struct fixture *f = *state;
    struct traffic t = { .f = f };
    struct bus_sub *s;
    pthread_t threads[4];
    assert_int_equal(bus_subscribe(f->bus, "test.echo", NULL, echo, f->bus, &s), ERR_OK);
    for (int i = 0; i < 3; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, make_traffic, &t), 0);
    assert_int_equal(pthread_create(&threads[3], NULL, make_subscriptions, &t), 0);
    bool flows = true, back = true; /* no assertion may leave here while the threads run */
    for (int i = 0; i < 3 && flows && back; i++) {
        unsigned before = atomic_load(&t.ok);
        for (int k = 0; k < SOON_MS && atomic_load(&t.ok) < before + 200; k++) {
            struct timespec pause = { 0, 1000000 };
            nanosleep(&pause, NULL);
        }
        flows = atomic_load(&t.ok) >= before + 200;
        nats_server_kill(&f->server);
        nats_server_start(&f->server, NULL);
        back = box_wait(&f->up, 2 + i, SOON_MS);
    }
    atomic_store(&t.stop, true);
    for (size_t i = 0; i < ARRAY_LEN(threads); i++) pthread_join(threads[i], NULL);
    assert_true(flows);
    assert_true(back);
    assert_int_equal(t.failed_with[0], ERR_OK);
    assert_int_equal(t.failed_with[1], ERR_OK);
    bus_drain(f->bus, SOON_MS);
    assert_int_equal(atomic_load(&t.answered), atomic_load(&t.accepted));
    assert_int_equal(atomic_load(&t.other), 0);
    print_message("%u requests: %u answered, %u unavailable, %u timed out\n",
                  atomic_load(&t.accepted), atomic_load(&t.ok), atomic_load(&t.unavailable),
                  atomic_load(&t.timeout));
    bus_unsubscribe(s);
}

static void drain_lets_requests_finish(void **state)
{
    struct fixture *f = *state;
    struct bus_sub *s;
    struct box got;
    box_init(&got);
    assert_int_equal(bus_subscribe(f->bus, "test.late", NULL, late, f->bus, &s), ERR_OK);
    sync_bus(f->bus);
    assert_int_equal(bus_request(f->bus, "test.late", STR("x"), SOON_MS, box_reply, &got), ERR_OK);
    /* The handler has it before the drain ends the subscription: messages of one publisher keep
     * their order. */
    sync_bus(f->bus);
    bus_drain(f->bus, SOON_MS);
    assert_int_equal(box_count(&got), 1);
    assert_int_equal(got.e, ERR_OK);
    bus_unsubscribe(s);
}

static void free_fails_what_waits(void **state)
{
    struct fixture *f = *state;
    struct bus_sub *s;
    struct box got;
    box_init(&got);
    assert_int_equal(bus_subscribe(f->bus, "test.silent", NULL, silent, NULL, &s), ERR_OK);
    sync_bus(f->bus);
    for (int i = 0; i < 10; i++)
        assert_int_equal(bus_request(f->bus, "test.silent", STR("x"), 60000, box_reply, &got),
                         ERR_OK);
    bus_free(f->bus); /* frees s too */
    f->bus = NULL;
    assert_int_equal(box_count(&got), 10);
    assert_int_equal(got.e, ERR_UNAVAILABLE);
}

/* --- $SRV */

struct served {
    struct bus *bus;
    struct bus_sub *sub;
};

static void failing(void *ctx, const struct bus_msg *m)
{
    struct served *s = ctx;
    bus_endpoint_error(s->sub, "it \"failed\"");
    bus_endpoint_time(s->sub, 5000000);
    echo(s->bus, m);
}

static struct json *ask_json(struct bus *b, const char *subject)
{
    struct buf out;
    struct json *doc = NULL;
    struct why why;
    buf_init(&out, 65536);
    assert_int_equal(bus_request_wait(b, subject, STR(""), 3000, &out), ERR_OK);
    if (json_parse(buf_str(&out), 65536, &doc, &why) != ERR_OK) fail_msg("%s", why.text);
    buf_done(&out);
    return doc;
}

static void assert_member(const struct json *o, const char *key, const char *want)
{
    struct str have;
    assert_int_equal(json_get_str(o, key, &have), ERR_OK);
    if (!str_eqz(have, want)) fail_msg("%s is %.*s, not %s", key, STR_ARG(have), want);
}

/* Asks with the bare protocol, as a tool would, and reads until `want` answers have come. */
static size_t ask_everyone(int port, const char *subject, int want, char *out, size_t cap)
{
    struct sockaddr_in at = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };
    struct timeval tv = { SOON_MS / 1000, 0 };
    size_t n = 0;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv), 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&at, sizeof at), 0);
    dprintf(fd, "CONNECT {\"verbose\":false}\r\nSUB answers 1\r\nPUB %s answers 0\r\n\r\n",
            subject);
    while (n < cap - 1) {
        ssize_t more = read(fd, out + n, cap - 1 - n);
        if (more <= 0) break;
        n += (size_t)more;
        out[n] = '\0';
        int have = 0;
        for (const char *p = out; (p = strstr(p, "_response\"")) != NULL; p++) have++;
        if (have >= want) break;
    }
    close(fd);
    return n;
}

static void answers_the_services_protocol(void **state)
{
    struct fixture *f = *state;
    struct served served = { 0 };
    struct buf out;
    buf_init(&out, 1024);
    struct bus *token = another_bus(f, "token", "token-1.x", NULL, NULL);
    assert_true(box_wait(&f->up, 2, SOON_MS));
    served.bus = token;
    const struct bus_endpoint endpoint = { "count", "test.count", "token" };
    assert_int_equal(bus_serve(token, &endpoint, failing, &served, &served.sub), ERR_OK);
    sync_bus(token);
    for (int i = 0; i < 3; i++)
        assert_int_equal(bus_request_wait(f->bus, "test.count", STR("x"), 2000, &out), ERR_OK);

    struct json *doc = ask_json(f->bus, "$SRV.PING.aigw-token");
    assert_member(doc, "type", "io.nats.micro.v1.ping_response");
    assert_member(doc, "name", "aigw-token");
    assert_member(doc, "id", "token-1-x");
    assert_member(doc, "version", "1.2.3");
    json_free(doc);

    doc = ask_json(f->bus, "$SRV.INFO.aigw-token.token-1-x");
    assert_member(doc, "type", "io.nats.micro.v1.info_response");
    assert_member(doc, "description", "a service under test");
    const struct json *e = json_first(json_get(doc, "endpoints"));
    assert_int_equal(json_len(json_get(doc, "endpoints")), 1);
    assert_member(e, "name", "count");
    assert_member(e, "subject", "test.count");
    assert_member(e, "queue_group", "token");
    json_free(doc);

    doc = ask_json(f->bus, "$SRV.STATS.aigw-token");
    uint64_t n = 0, time = 0, average = 0;
    assert_member(doc, "type", "io.nats.micro.v1.stats_response");
    e = json_first(json_get(doc, "endpoints"));
    assert_int_equal(json_get_u64(e, "num_requests", &n), ERR_OK);
    assert_int_equal(n, 3);
    assert_int_equal(json_get_u64(e, "num_errors", &n), ERR_OK);
    assert_int_equal(n, 3);
    assert_member(e, "last_error", "it \"failed\"");
    assert_int_equal(json_get_u64(e, "processing_time", &time), ERR_OK);
    assert_int_equal(json_get_u64(e, "average_processing_time", &average), ERR_OK);
    assert_true(time >= 15000000 && average == time / 3);
    assert_null(json_get(e, "data")); /* optional, and we have none */
    json_free(doc);

    /* A service without endpoints answers too; both answer the general question. */
    doc = ask_json(f->bus, "$SRV.INFO.aigw-edge");
    assert_int_equal(json_len(json_get(doc, "endpoints")), 0);
    json_free(doc);
    char all[4096];
    size_t got = ask_everyone(f->server.port, "$SRV.PING", 2, all, sizeof all);
    assert_true(got > 0);
    assert_non_null(strstr(all, "\"name\":\"aigw-token\""));
    assert_non_null(strstr(all, "\"name\":\"aigw-edge\""));
    bus_free(token);
    buf_done(&out);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
#define T_NO_BUS(name) cmocka_unit_test_setup_teardown(name, setup_server, teardown)

/* An argument names the tests to run, with * and ?. */
int main(int argc, char **argv)
{
    if (argc > 1) cmocka_set_test_filter(argv[1]);
    const struct CMUnitTest tests[] = {
        T(every_subscriber_gets_a_message),
        T(one_of_a_queue_group_gets_a_message),
        T(refuses_bad_subjects_and_too_long_messages),
        T(unsubscribe_waits_for_the_handler),
        T(what_a_slow_handler_leaves_is_dropped_and_counted),
        T(subscriptions_may_end_while_their_messages_come),
        T(a_request_gets_its_reply),
        T(many_requests_at_once_get_their_own_replies),
        T(a_request_without_responders_fails_at_once),
        T(an_unanswered_request_times_out),
        T(a_late_reply_is_not_delivered_to_another_request),
        T_NO_BUS(nothing_works_without_a_server_and_all_does_when_it_comes),
        T(a_killed_server_fails_requests_soon_and_subscriptions_come_back),
        T(a_server_that_hangs_is_noticed),
        T_NO_BUS(goes_on_trying_after_refused_logins),
        T_NO_BUS(works_with_nothing_but_its_own_inbox),
        T(each_request_is_answered_once_while_servers_are_killed),
        T(drain_lets_requests_finish),
        T(free_fails_what_waits),
        T(answers_the_services_protocol),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
