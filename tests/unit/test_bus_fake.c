/* SPDX-License-Identifier: Apache-2.0 */
/* The fake of the bus does what the real one does, as far as tests rely on it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>

#include <cmocka.h>

#include "../fake/bus_fake.c"

struct fixture {
    struct bus_fake *server;
    struct bus *a, *b;
    struct clock_fake clock;
    atomic_int msgs, replies, acks, ups, downs;
    _Atomic(enum err) e;
    atomic_bool dup;
    char text[64];
};

static void on_state(void *ctx, bool connected, const char *why)
{
    struct fixture *f = ctx;
    (void)why;
    atomic_fetch_add(connected ? &f->ups : &f->downs, 1);
}

static struct bus *new_bus(struct fixture *f, const struct clock *clock)
{
    const struct bus_options o = { .url = bus_fake_url(f->server),
                                   .instance = "a-1",
                                   .service = "a",
                                   .prefix = "aigw",
                                   .clock = clock,
                                   .rng = rng_system(),
                                   .on_state = on_state,
                                   .ctx = f };
    return bus_new(&o);
}

static int setup(void **state)
{
    struct fixture *f = xcalloc(1, sizeof *f);
    clock_fake_init(&f->clock, 1000000000, 0);
    f->server = bus_fake_new();
    f->a = new_bus(f, &f->clock.clock);
    f->b = new_bus(f, clock_system());
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    bus_free(f->a);
    bus_free(f->b);
    bus_fake_free(f->server);
    free(f);
    return 0;
}

static void on_msg(void *ctx, const struct bus_msg *m)
{
    struct fixture *f = ctx;
    atomic_fetch_add(&f->msgs, 1);
    str_copyz(f->text, sizeof f->text, m->data);
}

static void echo(void *ctx, const struct bus_msg *m)
{
    struct fixture *f = ctx;
    atomic_fetch_add(&f->msgs, 1);
    enum err e = bus_reply(f->b, m->reply, m->data);
    (void)e; /* whoever asked sees whether it came */
}

static void on_reply(void *ctx, enum err e, struct str data)
{
    struct fixture *f = ctx;
    atomic_store(&f->e, e);
    str_copyz(f->text, sizeof f->text, data);
    atomic_fetch_add(&f->replies, 1);
}

static void on_ack(void *ctx, enum err e, bool dup)
{
    struct fixture *f = ctx;
    atomic_store(&f->e, e);
    atomic_store(&f->dup, dup);
    atomic_fetch_add(&f->acks, 1);
}

static void messages_reach_subscribers_and_one_of_each_group(void **state)
{
    struct fixture *f = *state;
    struct bus_sub *plain, *one, *two;
    assert_int_equal(bus_subscribe(f->a, "x.*", NULL, on_msg, f, &plain), ERR_OK);
    assert_int_equal(bus_subscribe(f->a, "x.y", "g", on_msg, f, &one), ERR_OK);
    assert_int_equal(bus_subscribe(f->b, "x.>", "g", on_msg, f, &two), ERR_OK);
    assert_int_equal(bus_publish(f->b, "x.y", STR("hello")), ERR_OK);
    bus_fake_settle(f->server);
    assert_int_equal(atomic_load(&f->msgs), 2);
    assert_string_equal(f->text, "hello");
    bus_unsubscribe(plain);
    bus_unsubscribe(one);
    assert_int_equal(bus_publish(f->b, "x.y", STR("hello")), ERR_OK);
    assert_int_equal(bus_publish(f->b, "y", STR("nobody")), ERR_OK);
    bus_fake_settle(f->server);
    assert_int_equal(atomic_load(&f->msgs), 3);
    assert_int_equal(bus_publish(f->b, "x.*", STR("")), ERR_INVALID);
    bus_unsubscribe(two);
}

static void requests_are_answered_refused_or_time_out(void **state)
{
    struct fixture *f = *state;
    struct bus_sub *s;
    struct buf out;
    buf_init(&out, 100);
    assert_int_equal(bus_subscribe(f->b, "echo", "q", echo, f, &s), ERR_OK);
    assert_int_equal(bus_request(f->a, "echo", STR("hi"), 100, on_reply, f), ERR_OK);
    bus_fake_settle(f->server);
    assert_int_equal(atomic_load(&f->replies), 1);
    assert_int_equal(atomic_load(&f->e), ERR_OK);
    assert_string_equal(f->text, "hi");
    assert_int_equal(bus_request_wait(f->a, "echo", STR("ho"), 100, &out), ERR_OK);
    assert_string_equal(buf_z(&out), "ho");
    assert_int_equal(bus_request(f->a, "nobody", STR("hi"), 100, on_reply, f), ERR_OK);
    bus_fake_settle(f->server);
    assert_int_equal(atomic_load(&f->e), ERR_UNAVAILABLE);

    /* A lost message times out on the bus's own clock, and not before. */
    bus_fake_lose(f->server, "echo", 1);
    assert_int_equal(bus_request(f->a, "echo", STR("hi"), 100, on_reply, f), ERR_OK);
    bus_fake_settle(f->server);
    assert_int_equal(atomic_load(&f->replies), 2);
    clock_fake_advance(&f->clock, 100 * 1000000);
    bus_drain(f->a, 5000);
    assert_int_equal(atomic_load(&f->replies), 3);
    assert_int_equal(atomic_load(&f->e), ERR_TIMEOUT);
    assert_int_equal(atomic_load(&f->msgs), 2);
    bus_unsubscribe(s);
    buf_done(&out);
}

static void away_fails_all_until_back(void **state)
{
    struct fixture *f = *state;
    struct bus_sub *s;
    assert_int_equal(bus_subscribe(f->b, "silent", NULL, on_msg, f, &s), ERR_OK);
    assert_int_equal(bus_request(f->a, "silent", STR(""), 100, on_reply, f), ERR_OK);
    bus_fake_away(f->server, true);
    bus_fake_settle(f->server);
    assert_int_equal(atomic_load(&f->replies), 1);
    assert_int_equal(atomic_load(&f->e), ERR_UNAVAILABLE);
    assert_int_equal(atomic_load(&f->downs), 2);
    assert_false(bus_is_connected(f->a));
    assert_int_equal(bus_publish(f->a, "silent", STR("")), ERR_UNAVAILABLE);
    assert_int_equal(bus_request(f->a, "silent", STR(""), 100, on_reply, f), ERR_UNAVAILABLE);
    bus_fake_away(f->server, false);
    assert_int_equal(bus_publish(f->a, "silent", STR("")), ERR_OK);
    bus_fake_settle(f->server);
    assert_int_equal(atomic_load(&f->ups), 4);
    assert_int_equal(atomic_load(&f->msgs), 2);
    bus_unsubscribe(s);
}

static void streams_keep_until_acknowledged(void **state)
{
    struct fixture *f = *state;
    const struct bus_stream o = {
        .name = "S", .subjects = { "s.*" }, .max_bytes = 10, .discard_new = true, .work_queue = true
    };
    const struct bus_consumer_options co = { "S", "d", 1500, 10 };
    struct bus_consumer *c;
    struct bus_js_msg *m[4];
    struct why why;
    int n = 0;
    assert_int_equal(bus_js_publish(f->a, "s.a", "1", STR("x"), 100, on_ack, f), ERR_OK);
    bus_fake_settle(f->server);
    assert_int_equal(atomic_load(&f->e), ERR_UNAVAILABLE); /* no stream yet */
    assert_int_equal(bus_consumer_open(f->a, &co, &c, &why), ERR_NOT_FOUND);
    assert_int_equal(bus_stream_ensure(f->a, &o, &why), ERR_OK);
    assert_int_equal(bus_js_publish(f->a, "s.a", "1", STR("12345"), 100, on_ack, f), ERR_OK);
    bus_fake_settle(f->server);
    assert_int_equal(atomic_load(&f->e), ERR_OK);
    assert_false(atomic_load(&f->dup));
    assert_int_equal(bus_js_publish(f->a, "s.a", "1", STR("12345"), 100, on_ack, f), ERR_OK);
    bus_fake_settle(f->server);
    assert_true(atomic_load(&f->dup));
    assert_int_equal(bus_js_publish(f->a, "s.a", "2", STR("123456"), 100, on_ack, f), ERR_OK);
    bus_fake_settle(f->server);
    assert_int_equal(atomic_load(&f->e), ERR_LIMIT);
    assert_int_equal(atomic_load(&f->acks), 4);
    assert_int_equal(bus_fake_stored(f->server, "S"), 1);

    assert_int_equal(bus_consumer_open(f->a, &co, &c, &why), ERR_OK);
    assert_int_equal(bus_consumer_fetch(c, 4, 50, m, &n), ERR_OK);
    assert_int_equal(n, 1);
    assert_int_equal(bus_js_deliveries(m[0]), 1);
    bus_js_nak(m[0], 0);
    assert_int_equal(bus_consumer_fetch(c, 4, 50, m, &n), ERR_OK);
    bus_js_release(m[0]);
    assert_int_equal(bus_consumer_fetch(c, 4, 10, m, &n), ERR_TIMEOUT);
    assert_int_equal(bus_consumer_fetch(c, 4, 60000, m, &n), ERR_OK); /* after ack_wait */
    assert_int_equal(bus_js_deliveries(m[0]), 3);
    bus_js_ack(m[0]);
    assert_int_equal(bus_fake_stored(f->server, "S"), 0);
    assert_int_equal(bus_consumer_fetch(c, 4, 100, m, &n), ERR_TIMEOUT);
    bus_fake_away(f->server, true);
    assert_int_equal(bus_consumer_fetch(c, 4, 10, m, &n), ERR_UNAVAILABLE);
    bus_consumer_close(c);
}

static void count_key(void *ctx, struct str key)
{
    int *n = ctx;
    assert_true(str_eqz(key, "k"));
    (*n)++;
}

static void buckets_compare_and_set(void **state)
{
    struct fixture *f = *state;
    struct bus_kv *kv;
    struct buf out;
    struct why why;
    uint64_t rev = 0;
    int keys = 0;
    buf_init(&out, 100);
    assert_int_equal(bus_kv_open(f->a, "B", false, &kv, &why), ERR_NOT_FOUND);
    assert_int_equal(bus_kv_open(f->a, "B", true, &kv, &why), ERR_OK);
    assert_int_equal(bus_kv_get(kv, "k", &out, NULL), ERR_NOT_FOUND);
    assert_int_equal(bus_kv_update(kv, "k", STR("1"), 0, &rev), ERR_OK);
    assert_int_equal(bus_kv_update(kv, "k", STR("2"), 0, &rev), ERR_CONFLICT);
    assert_int_equal(bus_kv_update(kv, "k", STR("2"), rev, &rev), ERR_OK);
    assert_int_equal(bus_kv_get(kv, "k", &out, &rev), ERR_OK);
    assert_string_equal(buf_z(&out), "2");
    assert_int_equal(bus_kv_keys(kv, count_key, &keys), ERR_OK);
    assert_int_equal(keys, 1);
    assert_int_equal(bus_kv_delete(kv, "k"), ERR_OK);
    assert_int_equal(bus_kv_keys(kv, count_key, &keys), ERR_OK);
    assert_int_equal(keys, 1);
    assert_int_equal(bus_kv_update(kv, "k", STR("3"), rev, &rev), ERR_CONFLICT);
    assert_int_equal(bus_kv_update(kv, "k", STR("3"), 0, &rev), ERR_OK);
    bus_kv_close(kv);
    buf_done(&out);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(messages_reach_subscribers_and_one_of_each_group),
        T(requests_are_answered_refused_or_time_out),
        T(away_fails_all_until_back),
        T(streams_keep_until_acknowledged),
        T(buckets_compare_and_set),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
