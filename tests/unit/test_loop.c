/* SPDX-License-Identifier: Apache-2.0 */
/* The event loop: timers in order, tasks of other threads, descriptors that go away while they have
 * events; and JSON. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include <pthread.h>
#include <unistd.h>

#include "rt/json.h"
#include "rt/loop.h"

struct trace {
    struct loop *loop;
    struct loop_timer timers[64];
    uint64_t fired[64];
    size_t n;
    struct loop_io a, b;
    int calls, posted;
};

static void fired(void *ctx)
{
    struct trace *t = ctx;
    t->fired[t->n++] = loop_now_ns(t->loop);
}

static void stop(void *ctx)
{
    struct trace *t = ctx;
    loop_stop(t->loop);
}

static void timers_fire_in_order(void **state)
{
    struct trace t = { .loop = loop_new(clock_system()) };
    uint64_t now = loop_now_ns(t.loop);
    (void)state;
    /* A permutation of 1..40 ms; some moved, some cleared. */
    for (uint64_t i = 0; i < 40; i++)
        loop_timer_set(t.loop, &t.timers[i], now + (i * 17 % 40 + 1) * 1000000, fired, &t);
    for (size_t i = 0; i < 10; i++) loop_timer_clear(t.loop, &t.timers[i * 4]);
    loop_timer_clear(t.loop, &t.timers[0]); /* twice does no harm */
    for (size_t i = 1; i < 40; i += 4)
        loop_timer_set(t.loop, &t.timers[i], now + i * 1000000, fired, &t);
    loop_timer_set(t.loop, &t.timers[63], now + 60 * 1000000, stop, &t);
    loop_run(t.loop);
    assert_int_equal(t.n, 30);
    for (size_t i = 1; i < t.n; i++) assert_true(t.fired[i - 1] <= t.fired[i]);
    loop_free(t.loop);
}

static void count_posted(void *ctx)
{
    struct trace *t = ctx;
    if (++t->posted == 3000) loop_stop(t->loop);
}

static void *poster(void *ctx)
{
    struct trace *t = ctx;
    for (int i = 0; i < 1000; i++)
        while (loop_post(t->loop, count_posted, t) != ERR_OK) sched_yield();
    return NULL;
}

static void tasks_of_other_threads_run(void **state)
{
    struct trace t = { .loop = loop_new(clock_system()) };
    pthread_t threads[3];
    (void)state;
    for (int i = 0; i < 3; i++) assert_int_equal(pthread_create(&threads[i], NULL, poster, &t), 0);
    loop_run(t.loop);
    for (int i = 0; i < 3; i++) pthread_join(threads[i], NULL);
    assert_int_equal(t.posted, 3000);
    loop_free(t.loop);
}

/* Whoever is called first removes the other: its event of the same turn must not arrive. */
static void remove_other(void *ctx, unsigned events)
{
    struct trace *t = ctx;
    assert_true(events & LOOP_READ);
    t->calls++;
    loop_remove(t->loop, &t->a);
    loop_remove(t->loop, &t->b);
    loop_timer_set(t->loop, &t->timers[0], loop_now_ns(t->loop) + 5000000, stop, t);
}

static void a_removed_descriptor_is_silent(void **state)
{
    struct trace t = { .loop = loop_new(clock_system()) };
    int p[2], q[2];
    (void)state;
    assert_true(pipe(p) == 0 && pipe(q) == 0);
    assert_int_equal(loop_add(t.loop, &t.a, p[0], LOOP_READ, remove_other, &t), ERR_OK);
    assert_int_equal(loop_add(t.loop, &t.b, q[0], LOOP_READ, remove_other, &t), ERR_OK);
    assert_true(write(p[1], "x", 1) == 1 && write(q[1], "x", 1) == 1);
    loop_run(t.loop);
    assert_int_equal(t.calls, 1);
    for (int i = 0; i < 2; i++) close(p[i]), close(q[i]);
    loop_free(t.loop);
}

/* --- quiet descriptors, and edges --- */

struct pair {
    struct loop *loop;
    struct loop_io noisy, quiet;
    int fds[4], calls;
    bool new_was, quiet_was, noisy_was;
};

static void look(void *ctx, unsigned events)
{
    struct pair *p = ctx;
    assert_true(events & LOOP_READ);
    if (++p->calls == 1) {
        assert_int_equal(loop_add(p->loop, &p->quiet, p->fds[2], LOOP_READ | LOOP_EDGE, look, p),
                         ERR_OK);
        p->new_was = loop_is_quiet(p->loop, &p->quiet);
        loop_rearm(p->loop, &p->noisy); /* nothing was read: an edge is told once otherwise */
        return;
    }
    p->quiet_was = loop_is_quiet(p->loop, &p->quiet);
    p->noisy_was = loop_is_quiet(p->loop, &p->noisy);
    loop_stop(p->loop);
}

static void what_is_quiet_is_known_without_asking(void **state)
{
    struct pair p = { .loop = loop_new(clock_system()) };
    (void)state;
    assert_true(pipe(p.fds) == 0 && pipe(p.fds + 2) == 0);
    assert_int_equal(write(p.fds[1], "x", 1), 1);
    assert_int_equal(loop_add(p.loop, &p.noisy, p.fds[0], LOOP_READ | LOOP_EDGE, look, &p), ERR_OK);
    loop_run(p.loop);
    assert_int_equal(p.calls, 2);
    assert_false(p.new_was); /* it was not watched when that turn began */
    assert_true(p.quiet_was);
    assert_false(p.noisy_was);
    for (int i = 0; i < 4; i++) close(p.fds[i]);
    loop_free(p.loop);
}

static void json_is_bounded_and_strict(void **state)
{
    struct json *j;
    struct why why;
    struct buf b;
    uint64_t u = 5;
    char deep[200];
    (void)state;
    static const char *const bad[] = { "",         "{",    "{}x",     "{\"a\":1,\"a\":2}",
                                       "[\"\t\"]", "\xff", "{'a':1}", "nul" };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        assert_int_not_equal(json_parse(str_of(bad[i]), 100, &j, &why), ERR_OK);
    memset(deep, '[', 70), memset(deep + 70, ']', 70);
    assert_int_equal(json_parse(str_n(deep, 140), 200, &j, &why), ERR_LIMIT);
    assert_int_equal(json_parse(STR("[1,2,3]"), 3, &j, &why), ERR_LIMIT);

    assert_int_equal(
        json_parse(STR("{\"n\":9007199254740992,\"f\":1.5,\"neg\":-1,\"s\":\"x\",\"z\":null}"), 200,
                   &j, &why),
        ERR_OK);
    assert_int_equal(json_get_u64(j, "n", &u), ERR_OK);
    assert_true(u == 9007199254740992u);
    assert_int_equal(json_get_u64(j, "f", &u), ERR_INVALID);
    assert_int_equal(json_get_u64(j, "neg", &u), ERR_INVALID);
    assert_int_equal(json_get_u64(j, "s", &u), ERR_INVALID);
    assert_int_equal(json_get_u64(j, "z", &u), ERR_NOT_FOUND);
    assert_int_equal(json_get_u64(j, "none", &u), ERR_NOT_FOUND);
    json_set_u64(j, "n", UINT64_MAX); /* replaced, and printed exactly */
    json_remove(j, "f");
    buf_init(&b, 1000);
    assert_int_equal(json_print(j, &b), ERR_OK);
    assert_string_equal(buf_z(&b),
                        "{\"n\":18446744073709551615,\"neg\":-1,\"s\":\"x\",\"z\":null}");
    buf_done(&b);
    json_free(j);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(timers_fire_in_order),
        cmocka_unit_test(tasks_of_other_threads_run),
        cmocka_unit_test(a_removed_descriptor_is_silent),
        cmocka_unit_test(what_is_quiet_is_known_without_asking),
        cmocka_unit_test(json_is_bounded_and_strict),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
