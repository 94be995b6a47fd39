/* SPDX-License-Identifier: Apache-2.0 */
/* The bus's streams and buckets, against a real nats-server. */

#include "support_bus.h"

/* --- streams */

static const struct bus_stream usage = { .name = "T_USAGE",
                                         .subjects = { "t.usage.*" },
                                         .max_bytes = 64 << 10,
                                         .duplicates_ns = 60 * (int64_t)1000000000,
                                         .discard_new = true,
                                         .work_queue = true,
                                         .replicas = 1 };

static enum err publish_wait(struct bus *b, const char *subject, const char *id, struct str data,
                             bool *ret_dup)
{
    struct box got;
    box_init(&got);
    enum err e = bus_js_publish(b, subject, id, data, SOON_MS, box_ack, &got);
    if (e != ERR_OK) return e;
    ASSERT(box_wait(&got, 1, SOON_MS + 1000));
    if (ret_dup != NULL) *ret_dup = got.dup;
    return got.e;
}

static void a_message_published_twice_is_stored_once(void **state)
{
    struct fixture *f = *state;
    struct why why;
    bool dup = true;
    assert_int_equal(bus_stream_ensure(f->bus, &usage, &why), ERR_OK);
    assert_int_equal(bus_stream_ensure(f->bus, &usage, &why), ERR_OK);
    assert_int_equal(publish_wait(f->bus, "t.usage.a", "id-1", STR("one"), &dup), ERR_OK);
    assert_false(dup);
    assert_int_equal(publish_wait(f->bus, "t.usage.a", "id-1", STR("one"), &dup), ERR_OK);
    assert_true(dup);
    assert_int_equal(publish_wait(f->bus, "t.usage.a", "id-2", STR("two"), &dup), ERR_OK);
    assert_false(dup);

    struct bus_consumer *c;
    struct bus_js_msg *m[8];
    int n = 0;
    const struct bus_consumer_options o = { "T_USAGE", "reader", 30000, 100 };
    assert_int_equal(bus_consumer_open(f->bus, &o, &c, &why), ERR_OK);
    for (int more = 0; n < 2; n += more)
        assert_int_equal(bus_consumer_fetch(c, 8 - n, SOON_MS, m + n, &more), ERR_OK);
    assert_int_equal(n, 2);
    for (int i = 0; i < n; i++) bus_js_ack(m[i]);
    bus_consumer_close(c);
}

static void ensure_updates_a_stream_that_differs(void **state)
{
    struct fixture *f = *state;
    struct why why;
    struct bus_stream more = usage;
    assert_int_equal(bus_stream_ensure(f->bus, &usage, &why), ERR_OK);
    more.max_bytes = 1 << 20;
    more.subjects[1] = "t.more";
    assert_int_equal(bus_stream_ensure(f->bus, &more, &why), ERR_OK);
    assert_int_equal(publish_wait(f->bus, "t.more", "x", STR("y"), NULL), ERR_OK);
    more.work_queue = false; /* a server does not change that */
    assert_int_not_equal(bus_stream_ensure(f->bus, &more, &why), ERR_OK);
    assert_true(strlen(why.text) > 0);
    print_message("refused: %s\n", why.text);
}

static void a_full_stream_says_so(void **state)
{
    struct fixture *f = *state;
    struct why why;
    char *big = xcalloc(1, 20000);
    enum err e = ERR_OK;
    int stored = 0;
    assert_int_equal(bus_stream_ensure(f->bus, &usage, &why), ERR_OK);
    for (; stored < 20 && e == ERR_OK; stored++)
        e = publish_wait(f->bus, "t.usage.a", NULL, str_n(big, 20000), NULL);
    assert_int_equal(e, ERR_LIMIT);
    assert_in_range(stored, 2, 5);
    free(big);
}

static void publishing_to_no_stream_fails_at_once(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(publish_wait(f->bus, "t.nowhere", "x", STR("y"), NULL), ERR_UNAVAILABLE);
}

static struct bus_js_msg *fetch_one(struct bus_consumer *c, int ms)
{
    struct bus_js_msg *m = NULL;
    int n = 0;
    enum err e = bus_consumer_fetch(c, 1, ms, &m, &n);
    if (e != ERR_OK) return NULL;
    assert_int_equal(n, 1);
    return m;
}

static void a_message_comes_until_it_is_acknowledged(void **state)
{
    struct fixture *f = *state;
    struct why why;
    struct bus_consumer *c;
    const struct bus_consumer_options o = { "T_USAGE", "reader", 1000, 100 };
    assert_int_equal(bus_stream_ensure(f->bus, &usage, &why), ERR_OK);
    assert_int_equal(bus_consumer_open(f->bus, &o, &c, &why), ERR_OK);
    struct bus_js_msg *m = fetch_one(c, 60);
    assert_null(m); /* nothing yet */
    assert_int_equal(publish_wait(f->bus, "t.usage.a", "1", STR("one"), NULL), ERR_OK);
    m = fetch_one(c, SOON_MS);
    assert_non_null(m);
    assert_true(str_eqz(bus_js_data(m), "one"));
    assert_true(str_eqz(bus_js_subject(m), "t.usage.a"));
    assert_int_equal(bus_js_sequence(m), 1);
    assert_int_equal(bus_js_deliveries(m), 1);
    uint64_t start = clock_mono_ns(clock_system());
    bus_js_nak(m, 150);
    m = fetch_one(c, SOON_MS);
    assert_non_null(m);
    uint64_t deliveries = bus_js_deliveries(m);
    assert_true(deliveries >= 2); /* more, when ack_wait was over before */
    assert_true(ms_since(start, clock_mono_ns(clock_system())) > 100);
    bus_js_release(m); /* nothing said: again after ack_wait */
    m = fetch_one(c, SOON_MS);
    assert_non_null(m);
    assert_true(bus_js_deliveries(m) > deliveries);
    bus_js_nak(m, 0);
    m = fetch_one(c, SOON_MS);
    assert_non_null(m);
    bus_js_ack(m);
    assert_null(fetch_one(c, 1600));
    assert_int_equal(publish_wait(f->bus, "t.usage.a", "2", STR("two"), NULL), ERR_OK);
    m = fetch_one(c, SOON_MS);
    assert_non_null(m);
    bus_js_term(m);
    assert_null(fetch_one(c, 1600));
    bus_consumer_close(c);
}

struct late_publish {
    struct bus *bus;
    int ms;
    enum err e;
};

static void *publish_later(void *ctx)
{
    struct late_publish *p = ctx;
    struct timespec t = { 0, p->ms * 1000000L };
    nanosleep(&t, NULL);
    p->e = publish_wait(p->bus, "t.usage.a", NULL, STR("later"), NULL);
    return NULL;
}

static void fetch_waits_for_the_first_and_takes_many(void **state)
{
    struct fixture *f = *state;
    struct why why;
    struct bus_consumer *c;
    struct bus_js_msg *m[64];
    int n = 0;
    const struct bus_consumer_options o = { "T_USAGE", "reader", 30000, 1000 };
    assert_int_equal(bus_stream_ensure(f->bus, &usage, &why), ERR_OK);
    assert_int_equal(bus_consumer_open(f->bus, &o, &c, &why), ERR_OK);
    pthread_t thread;
    struct late_publish late_one = { f->bus, 200, ERR_OK };
    uint64_t start = clock_mono_ns(clock_system());
    assert_int_equal(pthread_create(&thread, NULL, publish_later, &late_one), 0);
    enum err e = bus_consumer_fetch(c, 64, SOON_MS, m, &n);
    double took = ms_since(start, clock_mono_ns(clock_system()));
    pthread_join(thread, NULL);
    assert_int_equal(late_one.e, ERR_OK);
    assert_int_equal(e, ERR_OK);
    assert_int_equal(n, 1);
    print_message("one message sent after 200 ms was fetched after %.1f ms\n", took);
    assert_true(took < SOON_MS / 2);
    bus_js_ack(m[0]);

    for (int i = 0; i < 100; i++)
        assert_int_equal(publish_wait(f->bus, "t.usage.a", NULL, STR("x"), NULL), ERR_OK);
    start = clock_mono_ns(clock_system());
    int total = 0;
    while (total < 100) {
        assert_int_equal(bus_consumer_fetch(c, 64, SOON_MS, m, &n), ERR_OK);
        for (int i = 0; i < n; i++) bus_js_ack(m[i]);
        total += n;
    }
    assert_int_equal(total, 100);
    print_message("100 messages in batches took %.1f ms\n",
                  ms_since(start, clock_mono_ns(clock_system())));
    assert_int_equal(bus_consumer_fetch(c, 64, 100, m, &n), ERR_TIMEOUT);
    bus_consumer_close(c);
}

/* Ends it as its administrator would, so that all is on disk; then f does what it wants there. */
static void restart_in_order(struct fixture *f, int ups, const char *from, const char *to)
{
    char command[512];
    nats_server_signal(&f->server, SIGTERM);
    (void)waitpid(f->server.pid, NULL, 0);
    nats_server_kill(&f->server);
    (void)snprintf(command, sizeof command,
                   "cd '%s/jetstream/$G/streams/T_USAGE/obs/reader' && cp %s %s", f->server.dir,
                   from, to);
    assert_int_equal(system(command), 0);
    nats_server_start(&f->server, NULL);
    assert_true(box_wait(&f->up, ups, SOON_MS));
}

/* A crash may lose the latest of what a consumer knew: messages that were acknowledged, and so are
 * deleted, are out again. The server hands out the rest all the same, if it is helped. */
static void what_a_crash_makes_a_consumer_forget_holds_nothing_up(void **state)
{
    enum { OUT = 60, NEW = 3 };
    struct fixture *f = *state;
    struct why why;
    struct bus_consumer *c;
    struct bus_js_msg *m[64];
    int n = 0, got = 0;
    const struct bus_consumer_options o = { "T_USAGE", "reader", 2000, 100 };
    assert_int_equal(bus_stream_ensure(f->bus, &usage, &why), ERR_OK);
    for (int i = 0; i < OUT; i++)
        assert_int_equal(publish_wait(f->bus, "t.usage.a", NULL, STR("out"), NULL), ERR_OK);
    assert_int_equal(bus_consumer_open(f->bus, &o, &c, &why), ERR_OK);
    for (; got < OUT; got += n)
        assert_int_equal(bus_consumer_fetch(c, OUT - got, SOON_MS, m + got, &n), ERR_OK);
    restart_in_order(f, 2, "o.dat", "kept");
    bus_js_release(m[0]); /* the stream begins with one that stays */
    for (int i = 1; i < OUT; i++) bus_js_ack(m[i]);
    sync_bus(f->bus);
    restart_in_order(f, 3, "kept", "o.dat");

    uint64_t begin = clock_mono_ms(clock_system());
    while (clock_mono_ms(clock_system()) - begin < 3000) /* longer than ack_wait */
        if (bus_consumer_fetch(c, 1, 500, m, &n) == ERR_OK) bus_js_nak(m[0], 600000);
    for (int i = 0; i < NEW; i++)
        assert_int_equal(publish_wait(f->bus, "t.usage.a", NULL, STR("new"), NULL), ERR_OK);
    begin = clock_mono_ms(clock_system());
    for (got = 0; got < NEW && clock_mono_ms(clock_system()) - begin < SOON_MS;) {
        if (bus_consumer_fetch(c, 64, 500, m, &n) != ERR_OK) continue;
        for (int i = 0; i < n; i++) {
            bool is_new = str_eqz(bus_js_data(m[i]), "new");
            got += is_new;
            if (is_new)
                bus_js_ack(m[i]);
            else
                bus_js_nak(m[i], 600000);
        }
    }
    assert_int_equal(got, NEW);
    print_message("new messages came after %llu ms\n",
                  (unsigned long long)(clock_mono_ms(clock_system()) - begin));
    bus_consumer_close(c);
}

static void two_consumers_share_a_durable(void **state)
{
    struct fixture *f = *state;
    struct why why;
    struct bus_consumer *c[2];
    struct bus_js_msg *m[4];
    int n = 0, total = 0;
    bool seen[21] = { false };
    const struct bus_consumer_options o = { "T_USAGE", "reader", 30000, 1000 };
    assert_int_equal(bus_stream_ensure(f->bus, &usage, &why), ERR_OK);
    for (int i = 0; i < 2; i++)
        assert_int_equal(bus_consumer_open(f->bus, &o, &c[i], &why), ERR_OK);
    for (int i = 0; i < 20; i++)
        assert_int_equal(publish_wait(f->bus, "t.usage.a", NULL, STR("x"), NULL), ERR_OK);
    for (int turn = 0; total < 20 && turn < 40; turn++) {
        if (bus_consumer_fetch(c[turn % 2], 4, SOON_MS, m, &n) != ERR_OK) continue;
        for (int i = 0; i < n; i++) {
            uint64_t seq = bus_js_sequence(m[i]);
            assert_in_range(seq, 1, 20);
            assert_false(seen[seq]);
            seen[seq] = true;
            bus_js_ack(m[i]);
        }
        total += n;
    }
    assert_int_equal(total, 20);
    for (int i = 0; i < 2; i++) bus_consumer_close(c[i]);
}

static void unacknowledged_messages_hold_back_the_rest(void **state)
{
    struct fixture *f = *state;
    struct why why;
    struct bus_consumer *c;
    struct bus_js_msg *m[8], *more[8];
    int n = 0, n2 = 0;
    const struct bus_consumer_options o = { "T_USAGE", "reader", 30000, 3 };
    assert_int_equal(bus_stream_ensure(f->bus, &usage, &why), ERR_OK);
    assert_int_equal(bus_consumer_open(f->bus, &o, &c, &why), ERR_OK);
    for (int i = 0; i < 5; i++)
        assert_int_equal(publish_wait(f->bus, "t.usage.a", NULL, STR("x"), NULL), ERR_OK);
    uint64_t start = clock_mono_ns(clock_system());
    for (; n < 3; n += n2)
        assert_int_equal(bus_consumer_fetch(c, 8 - n, SOON_MS, m + n, &n2), ERR_OK);
    assert_int_equal(n, 3);
    assert_true(ms_since(start, clock_mono_ns(clock_system())) < SOON_MS / 2);
    assert_int_equal(bus_consumer_fetch(c, 8, 200, more, &n2), ERR_TIMEOUT);
    for (int i = 0; i < 3; i++) bus_js_ack(m[i]);
    for (n = 0; n < 2; n += n2) {
        assert_int_equal(bus_consumer_fetch(c, 8, SOON_MS, more, &n2), ERR_OK);
        for (int i = 0; i < n2; i++) bus_js_ack(more[i]);
    }
    assert_int_equal(n, 2);
    bus_consumer_close(c);
}

static void a_consumer_that_the_server_lost_is_made_again(void **state)
{
    struct fixture *f = *state;
    struct why why;
    struct bus_consumer *c;
    struct buf out;
    const struct bus_consumer_options o = { "T_USAGE", "reader", 30000, 100 };
    buf_init(&out, 4096);
    assert_int_equal(bus_stream_ensure(f->bus, &usage, &why), ERR_OK);
    assert_int_equal(bus_consumer_open(f->bus, &o, &c, &why), ERR_OK);
    assert_null(fetch_one(c, 50));
    assert_int_equal(
        bus_request_wait(f->bus, "$JS.API.STREAM.DELETE.T_USAGE", STR(""), SOON_MS, &out), ERR_OK);
    struct bus_js_msg *m = NULL;
    int n = 0;
    /* The first may still wait for an answer in vain, as may others while it is late. */
    enum err e = ERR_TIMEOUT;
    for (int i = 0; i < SOON_MS / 100 && e == ERR_TIMEOUT; i++)
        e = bus_consumer_fetch(c, 1, 100, &m, &n);
    assert_int_equal(e, ERR_UNAVAILABLE);
    assert_int_equal(bus_stream_ensure(f->bus, &usage, &why), ERR_OK);
    assert_int_equal(publish_wait(f->bus, "t.usage.a", NULL, STR("x"), NULL), ERR_OK);
    m = fetch_one(c, SOON_MS);
    assert_non_null(m);
    bus_js_ack(m);
    bus_consumer_close(c);
    buf_done(&out);
}

static void streams_and_consumers_survive_a_kill(void **state)
{
    struct fixture *f = *state;
    struct why why;
    struct bus_consumer *c;
    struct bus_js_msg *m = NULL;
    int n = 0;
    const struct bus_consumer_options o = { "T_USAGE", "reader", 1000, 100 };
    assert_int_equal(bus_stream_ensure(f->bus, &usage, &why), ERR_OK);
    assert_int_equal(bus_consumer_open(f->bus, &o, &c, &why), ERR_OK);
    assert_int_equal(publish_wait(f->bus, "t.usage.a", "1", STR("kept"), NULL), ERR_OK);
    nats_server_kill(&f->server);
    assert_true(box_wait(&f->down, 1, SOON_MS));
    assert_int_equal(bus_consumer_fetch(c, 1, 200, &m, &n), ERR_UNAVAILABLE);
    assert_int_equal(bus_stream_ensure(f->bus, &usage, &why), ERR_UNAVAILABLE);
    nats_server_start(&f->server, NULL);
    assert_true(box_wait(&f->up, 2, SOON_MS));
    assert_int_equal(bus_consumer_fetch(c, 1, SOON_MS, &m, &n), ERR_OK);
    assert_true(str_eqz(bus_js_data(m), "kept"));
    bus_js_ack(m);
    bus_consumer_close(c);
}

static void a_fetch_that_waits_notices_the_kill_and_goes_on(void **state)
{
    struct fixture *f = *state;
    struct why why;
    struct bus_consumer *c;
    struct bus_js_msg *m = NULL;
    const struct bus_consumer_options o = { "T_USAGE", "reader", 30000, 100 };
    assert_int_equal(bus_stream_ensure(f->bus, &usage, &why), ERR_OK);
    assert_int_equal(bus_consumer_open(f->bus, &o, &c, &why), ERR_OK);
    struct late_publish late_one = { f->bus, 500, ERR_OK };
    pthread_t thread;
    int n = 0;
    assert_null(fetch_one(c, 50));
    nats_server_kill(&f->server);
    nats_server_start(&f->server, NULL);
    assert_true(box_wait(&f->up, 2, SOON_MS));
    assert_int_equal(pthread_create(&thread, NULL, publish_later, &late_one), 0);
    enum err e = bus_consumer_fetch(c, 1, SOON_MS, &m, &n);
    pthread_join(thread, NULL);
    assert_int_equal(late_one.e, ERR_OK);
    assert_int_equal(e, ERR_OK);
    bus_js_ack(m);
    bus_consumer_close(c);
}

/* --- buckets */

static void count_key(void *ctx, struct str key)
{
    struct buf *out = ctx;
    assert_int_equal(buf_append_str(out, key), ERR_OK);
    assert_int_equal(buf_append_char(out, ' '), ERR_OK);
}

static void a_bucket_keeps_values_and_compares(void **state)
{
    struct fixture *f = *state;
    struct why why;
    struct bus_kv *kv, *other = NULL;
    struct buf out;
    uint64_t rev = 0, rev2 = 0;
    buf_init(&out, 4096);
    assert_int_equal(bus_kv_open(f->bus, "T_CONF", false, &kv, &why), ERR_NOT_FOUND);
    assert_int_equal(bus_kv_open(f->bus, "T_CONF", true, &kv, &why), ERR_OK);
    assert_int_equal(bus_kv_open(f->bus, "T_CONF", false, &other, &why), ERR_OK);
    assert_int_equal(bus_kv_keys(kv, count_key, &out), ERR_OK);
    assert_int_equal(out.len, 0);
    assert_int_equal(bus_kv_get(kv, "a", &out, &rev), ERR_NOT_FOUND);
    assert_int_equal(bus_kv_put(kv, "a", STR("1")), ERR_OK);
    assert_int_equal(bus_kv_get(other, "a", &out, &rev), ERR_OK);
    assert_string_equal(buf_z(&out), "1");
    assert_int_equal(rev, 1);

    assert_int_equal(bus_kv_update(kv, "a", STR("2"), rev, &rev2), ERR_OK);
    assert_int_equal(rev2, 2);
    assert_int_equal(bus_kv_update(kv, "a", STR("3"), rev, &rev2), ERR_CONFLICT);
    assert_int_equal(rev2, 2);
    assert_int_equal(bus_kv_update(kv, "a", STR("new"), 0, NULL), ERR_CONFLICT);
    assert_int_equal(bus_kv_update(kv, "b/c.d", STR("new"), 0, &rev), ERR_OK);
    assert_int_equal(rev, 3);
    buf_clear(&out);
    assert_int_equal(bus_kv_keys(kv, count_key, &out), ERR_OK);
    assert_string_equal(buf_z(&out), "a b/c.d ");

    assert_int_equal(bus_kv_delete(kv, "a"), ERR_OK);
    buf_clear(&out);
    assert_int_equal(bus_kv_get(kv, "a", &out, NULL), ERR_NOT_FOUND);
    assert_int_equal(bus_kv_keys(kv, count_key, &out), ERR_OK);
    assert_string_equal(buf_z(&out), "b/c.d ");
    /* A deleted key may be created again, once. */
    assert_int_equal(bus_kv_update(kv, "a", STR("again"), 0, &rev), ERR_OK);
    assert_int_equal(bus_kv_update(kv, "a", STR("twice"), 0, &rev), ERR_CONFLICT);
    buf_clear(&out);
    assert_int_equal(bus_kv_get(kv, "a", &out, NULL), ERR_OK);
    assert_string_equal(buf_z(&out), "again");
    assert_int_equal(bus_kv_put(kv, "bad key", STR("x")), ERR_INVALID);
    assert_int_equal(bus_kv_put(kv, "a..b", STR("x")), ERR_INVALID);
    assert_int_equal(bus_kv_put(kv, "*", STR("x")), ERR_INVALID);
    assert_int_equal(bus_kv_put(kv, "empty", STR("")), ERR_OK);
    buf_clear(&out);
    assert_int_equal(bus_kv_get(kv, "empty", &out, NULL), ERR_OK);
    assert_int_equal(out.len, 0);

    nats_server_kill(&f->server);
    assert_true(box_wait(&f->down, 1, SOON_MS));
    assert_int_equal(bus_kv_get(kv, "a", &out, NULL), ERR_UNAVAILABLE);
    assert_int_equal(bus_kv_put(kv, "a", STR("x")), ERR_UNAVAILABLE);
    nats_server_start(&f->server, NULL);
    assert_true(box_wait(&f->up, 2, SOON_MS));
    buf_clear(&out);
    assert_int_equal(bus_kv_get(kv, "a", &out, NULL), ERR_OK);
    assert_string_equal(buf_z(&out), "again");
    bus_kv_close(kv);
    bus_kv_close(other);
    buf_done(&out);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
#define T_NO_BUS(name) cmocka_unit_test_setup_teardown(name, setup_server, teardown)

/* An argument names the tests to run, with * and ?. */
int main(int argc, char **argv)
{
    if (argc > 1) cmocka_set_test_filter(argv[1]);
    const struct CMUnitTest tests[] = {
        T(a_message_published_twice_is_stored_once),
        T(ensure_updates_a_stream_that_differs),
        T(a_full_stream_says_so),
        T(publishing_to_no_stream_fails_at_once),
        T(a_message_comes_until_it_is_acknowledged),
        T(fetch_waits_for_the_first_and_takes_many),
        T(what_a_crash_makes_a_consumer_forget_holds_nothing_up),
        T(two_consumers_share_a_durable),
        T(unacknowledged_messages_hold_back_the_rest),
        T(a_consumer_that_the_server_lost_is_made_again),
        T(streams_and_consumers_survive_a_kill),
        T(a_fetch_that_waits_notices_the_kill_and_goes_on),
        T(a_bucket_keeps_values_and_compares),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
