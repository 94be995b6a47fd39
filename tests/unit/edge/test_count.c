/* SPDX-License-Identifier: Apache-2.0 */
/* Counting a request's input at the edge: on the caller's thread, and on the helper's when it is
 * long and no token service answers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "../support_bytes_vocab.h"
#include "services/edge/flow/count.h"

static struct counter *counter;
static struct bus *bus;
static struct loop *loop;
static struct count_scratch *scratch;
static struct vocab *vocab; /* a token per byte */
static struct model_info info;
static _Atomic bool given_up;

static int setup(void **state)
{
    (void)state;
    const struct bus_options b = { .url = "nats://127.0.0.1:1",
                                   .instance = "edge-1",
                                   .service = "edge",
                                   .version = "0",
                                   .description = "",
                                   .prefix = "aigw",
                                   .clock = clock_system(),
                                   .rng = rng_system() };
    bus = bus_new(&b); /* nobody is there */
    counter = counter_new(&(struct counter_options){ .precise = true,
                                                     .remote_bytes = 64,
                                                     .url = "",
                                                     .bus = bus,
                                                     .clock = clock_system(),
                                                     .rng = rng_system() });
    scratch = count_scratch_new();
    vocab = bytes_vocab("bytes", "", "");
    info = (struct model_info){ .vocab = vocab, .vocabulary = vocab_name(vocab) };
    given_up = false;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    counter_free(counter);
    count_scratch_free(scratch);
    bus_free(bus);
    vocab_unref(vocab);
    return 0;
}

struct answer_of {
    struct count_result r;
    unsigned times;
};

static void on_done(void *ctx, const struct count_result *r)
{
    struct answer_of *a = ctx;
    a->r = *r;
    a->times++;
    loop_stop(loop);
}

/* Of a completion's prompt, as JSON. */
static struct count_result count(const char *prompt, bool *ret_waited)
{
    struct request_scan scan = { .stream = false };
    struct answer_of a = { .times = 0 };
    loop = loop_new(clock_system()); /* one that was stopped stays so */
    assert_int_equal(js_parse(str_of(prompt), &scan.prompt, NULL), ERR_OK);
    const struct count_input in = { .ep = SNAP_EP_COMPLETIONS,
                                    .model = STR("m"),
                                    .info = &info,
                                    .scan = &scan,
                                    .loop = loop,
                                    .scratch = scratch,
                                    .given_up = &given_up };
    *ret_waited = !counter_count(counter, &in, &a.r, on_done, &a);
    if (*ret_waited) loop_run(loop);
    loop_free(loop);
    assert_int_equal(a.times, *ret_waited);
    return a.r;
}

static void a_short_text_is_counted_at_once(void **state)
{
    bool waited;
    (void)state;
    for (int i = 0; i < 3; i++) {
        struct count_result r = count("[\"abc\",\"d\\u0065\",[1,2,3]]", &waited);
        assert_false(waited);
        assert_int_equal(r.err, ERR_OK);
        assert_int_equal(r.tokens, 3 + 2 + 3);
        assert_true(r.exact);
    }
}

static void a_vocabulary_that_the_name_only_suggests_is_not_exact(void **state)
{
    bool waited;
    (void)state;
    info.guess = true;
    struct count_result r = count("\"abc\"", &waited);
    assert_int_equal(r.tokens, 3);
    assert_false(r.exact);
}

/* 80 bytes and their quotes. */
#define TEN "0123456789"
#define LONG "\"" TEN TEN TEN TEN TEN TEN TEN TEN "\""

static void a_long_text_is_counted_by_the_helper_when_no_service_is_there(void **state)
{
    bool waited;
    (void)state;
    struct count_result r = count(LONG, &waited);
    assert_true(waited);
    assert_int_equal(r.err, ERR_OK);
    assert_int_equal(r.tokens, 80);
    assert_true(r.exact);
}

static void what_was_given_up_is_not_counted_and_still_comes_back(void **state)
{
    bool waited;
    (void)state;
    given_up = true;
    struct count_result r = count(LONG, &waited);
    assert_true(waited);
    assert_int_equal(r.tokens, 0);
    given_up = false;
    r = count(LONG, &waited); /* the helper goes on with the next */
    assert_int_equal(r.tokens, 80);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(a_short_text_is_counted_at_once),
        T(a_vocabulary_that_the_name_only_suggests_is_not_exact),
        T(a_long_text_is_counted_by_the_helper_when_no_service_is_there),
        T(what_was_given_up_is_not_counted_and_still_comes_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
