/* SPDX-License-Identifier: Apache-2.0 */
/* The limiter as a request sees it, with an engine in a function: all limits or none, reservations
 * of tokens and cost, refusals in the policies' terms, shadow mode, the admission log. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

#include <cmocka.h>

#include "services/edge/limits/admit_list.h"
#include "support_engine.h"

static const struct snap_namespace ns = { .id = { "ns-1", 4 }, .slug = { "team", 4 } };
static struct engine engine;
static struct limiter *limiter;
enum { ASK_MS = 800, PATIENCE = 60000 };
static char log_file[] = "/tmp/aigw-test-admissions-XXXXXX";

static int start_with(bool log)
{
    engine = (struct engine){ .clock = clock_system(), .rng = rng_system() };
    pthread_mutex_init(&engine.lock, NULL);
    int fd = mkstemp(log_file);
    assert_true(fd >= 0);
    close(fd);
    limiter = limiter_new(&(struct limiter_options){ .prefix = "aigw",
                                                     .instance = "edge-1",
                                                     .clock = engine.clock,
                                                     .rng = engine.rng,
                                                     .admission_log = log ? log_file : NULL,
                                                     .request = engine_request,
                                                     .ask_timeout_ms = ASK_MS,
                                                     .request_ctx = &engine });
    return 0;
}

static int start(void **state)
{
    (void)state;
    return start_with(true);
}

static int start_without_log(void **state)
{
    (void)state;
    return start_with(false);
}

static int stop(void **state)
{
    (void)state;
    limiter_free(limiter);
    unlink(log_file);
    memcpy(log_file + sizeof log_file - 7, "XXXXXX", 6);
    return 0;
}

static void done(void *ctx, struct admit_ticket *t)
{
    (void)t;
    atomic_store((atomic_bool *)ctx, true);
}

/* The engine answers at once; but a message may be the limiter's own thread's to send. */
static void wait_for(const atomic_bool *called)
{
    for (int i = 0; i < PATIENCE && !atomic_load(called); i++) usleep(1000);
    assert_true(atomic_load(called));
}

/* Admits; what has to wait is decided when it returns. */
static enum admit_verdict admit_into(const struct admit_request *r, struct admit_ticket *t)
{
    atomic_bool called = false;
    enum admit_verdict v = limiter_admit(limiter, r, t, done, &called);
    if (v == ADMIT_WAIT) wait_for(&called);
    return t->outcome.verdict;
}

static enum admit_verdict admit(const struct admit_request *r, struct admit_ticket *t)
{
    memset(t, 0, sizeof *t);
    return admit_into(r, t);
}

static enum admit_verdict extend(struct admit_ticket *t, uint64_t tokens)
{
    atomic_bool called = false;
    enum admit_verdict v = limiter_extend(limiter, t, tokens, done, &called);
    if (v == ADMIT_WAIT) wait_for(&called);
    return t->extended;
}

static void end(struct admit_ticket *t, uint64_t input, uint64_t output)
{
    limiter_end(limiter, t, input, output);
}

#define POLICY(name, ...)                                                                       \
    {                                                                                           \
        .id = { name, sizeof(name) - 1 }, .slug = { name, sizeof(name) - 1 }, .enabled = true,  \
        .window_ms = 60000, .algorithm = SNAP_SLIDING, .on_unavailable = SNAP_DENY, .per_n = 1, \
        __VA_ARGS__                                                                             \
    }

static struct admit_request request(const struct admit_list *l)
{
    return (struct admit_request){ .policies = l,
                                   .subject = { .ns = &ns },
                                   .counted = true,
                                   .answers = true,
                                   .stream = true,
                                   .input_tokens = 10,
                                   .output_most = 1000000,
                                   .choices = 1 };
}

static void if_one_refuses_nothing_is_spent_of_the_others(void **state)
{
    struct snap_policy many = POLICY("many:100", .kind = SNAP_REQUEST_RATE, .limit = 100),
                       few = POLICY("few:2", .kind = SNAP_REQUEST_RATE, .limit = 2),
                       tokens = POLICY("tokens:1000", .kind = SNAP_TOKEN_RATE, .limit = 1000);
    const struct snap_policy *all[] = { &many, &tokens, &few };
    struct admit_list l = { all, 3 };
    struct admit_request r = request(&l);
    struct admit_ticket t;
    (void)state;
    for (int i = 0; i < 2; i++) {
        assert_int_equal(admit(&r, &t), ADMIT_OK);
        assert_true(t.outcome.requests.present && t.outcome.tokens.present);
        assert_int_equal(t.outcome.requests.limit, 2); /* the tightest */
        assert_int_equal(t.outcome.tokens.limit, 1000);
        end(&t, 10, 0);
    }
    for (int i = 0; i < 50; i++) {
        assert_int_equal(admit(&r, &t), ADMIT_REFUSED);
        assert_ptr_equal(t.outcome.policy, &few);
        assert_true(t.outcome.retry_after_ms > 0 && !t.outcome.for_good);
        assert_int_equal(t.outcome.used, 2);
    }
    l.n = 2; /* without `few` */
    assert_int_equal(admit(&r, &t), ADMIT_OK);
    assert_true(t.outcome.requests.remaining >= 97);
    assert_true(limiter_covers(limiter, &t, 10) > 0);
    end(&t, 10, 0);
}

static void tokens_are_had_in_slices_and_the_rest_goes_back(void **state)
{
    struct snap_policy p = POLICY("tokens:800", .kind = SNAP_TOKEN_RATE, .limit = 800,
                                  .count = SNAP_COUNT_TOTAL);
    const struct snap_policy *all[] = { &p };
    struct admit_list l = { all, 1 };
    struct admit_request r = request(&l);
    struct admit_ticket t, other;
    (void)state;
    assert_int_equal(admit(&r, &t), ADMIT_OK);
    assert_int_equal(t.slice, 100); /* of a small limit a part */
    assert_int_equal(limiter_covers(limiter, &t, 10), 100);
    assert_true(limiter_spend_input(limiter, &t, 10));
    assert_int_equal(limiter_spend_output(limiter, &t, 70), 70);
    assert_int_equal(limiter_covers(limiter, &t, 0), 30);
    assert_int_equal(extend(&t, 100), ADMIT_OK);
    assert_int_equal(limiter_covers(limiter, &t, 0), 130);
    /* all that is left, and then no more */
    assert_int_equal(extend(&t, 5000), ADMIT_OK);
    assert_int_equal(limiter_covers(limiter, &t, 0), 800 - 10 - 70);
    assert_int_equal(extend(&t, 1), ADMIT_REFUSED);
    assert_int_equal(admit(&r, &other), ADMIT_REFUSED);
    assert_int_equal(limiter_spend_output(limiter, &t, 30), 30);
    end(&t, 10, 100);
    /* 110 were used: the rest is there again, for an answer in one piece */
    r.stream = false;
    for (int i = 0; i < PATIENCE && admit(&r, &t) != ADMIT_OK; i++) usleep(1000);
    assert_int_equal(t.outcome.verdict, ADMIT_OK);
    assert_int_equal(limiter_covers(limiter, &t, 10), 800 - 110 - 10);
    limiter_release(limiter, &t); /* never sent: nothing to pay */
}

static void a_ticket_that_shrank_still_holds_what_it_held(void **state)
{
    struct snap_policy rate = POLICY("rate:100", .kind = SNAP_REQUEST_RATE, .limit = 100),
                       tokens = POLICY("tokens:800", .kind = SNAP_TOKEN_RATE, .limit = 800,
                                       .count = SNAP_COUNT_TOTAL),
                       once = POLICY("once:50", .kind = SNAP_REQUEST_RATE, .limit = 50),
                       slots = POLICY("slots:1", .kind = SNAP_CONCURRENCY, .limit = 1);
    const struct snap_policy *all[] = { &rate, &tokens, &once, &slots };
    struct admit_list l = { all, 4 };
    struct admit_request r = request(&l);
    struct admit_ticket *t = admit_ticket_new(&l), other;
    (void)state;
    assert_non_null(t);
    assert_int_equal(admit_into(&r, t), ADMIT_OK);
    assert_int_equal(t->waiter.claims_n, 4);
    t = admit_ticket_shrink(t);
    assert_int_equal(t->waiter.claims_n, 2);
    assert_int_equal(t->outcome.requests.limit, 50);
    assert_int_equal(admit(&r, &other), ADMIT_REFUSED); /* the one slot is taken */
    assert_ptr_equal(other.outcome.policy, &slots);
    assert_true(limiter_spend_input(limiter, t, 10));
    assert_int_equal(limiter_spend_output(limiter, t, 70), 70);
    assert_int_equal(extend(t, 200), ADMIT_OK);
    assert_int_equal(limiter_covers(limiter, t, 0), 230);
    end(t, 10, 100);
    free(t);
    for (int i = 0; i < PATIENCE && admit(&r, &other) != ADMIT_OK; i++) usleep(1000);
    assert_int_equal(other.outcome.verdict, ADMIT_OK);
    l.n = 2;
    end(&other, 0, 0);
    r.stream = false;
    uint64_t covers = 0;
    for (int i = 0; i < PATIENCE && covers != 800 - 110 - 10;
         i++) { /* what went back is on its way */
        usleep(1000);
        covers = admit(&r, &other) == ADMIT_OK ? limiter_covers(limiter, &other, 10) : 0;
        limiter_release(limiter, &other);
    }
    assert_int_equal(covers, 800 - 110 - 10);
}

static void what_the_upstream_reports_beyond_becomes_debt(void **state)
{
    struct snap_policy p = POLICY("tokens:200", .kind = SNAP_TOKEN_RATE, .limit = 200,
                                  .count = SNAP_COUNT_OUTPUT);
    const struct snap_policy *all[] = { &p };
    struct admit_list l = { all, 1 };
    struct admit_request r = request(&l);
    struct admit_ticket t;
    struct limiter_stats s;
    (void)state;
    assert_int_equal(admit(&r, &t), ADMIT_OK);
    assert_int_equal(limiter_spend_output(limiter, &t, 5), 5);
    end(&t, 10, 900);
    limiter_stats(limiter, &s);
    assert_true(s.debt >= 700);
    for (int i = 0; i < PATIENCE && admit(&r, &t) == ADMIT_OK; i++) {
        end(&t, 0, 0);
        usleep(1000);
    }
    assert_int_equal(t.outcome.verdict, ADMIT_REFUSED);
}

static void a_request_larger_than_the_limit_is_refused_for_good(void **state)
{
    struct snap_policy p = POLICY("tokens:100", .kind = SNAP_TOKEN_RATE, .limit = 100,
                                  .count = SNAP_COUNT_INPUT);
    const struct snap_policy *all[] = { &p };
    struct admit_list l = { all, 1 };
    struct admit_request r = request(&l);
    struct admit_ticket t;
    (void)state;
    r.input_tokens = 101;
    assert_int_equal(admit(&r, &t), ADMIT_REFUSED);
    assert_true(t.outcome.for_good && t.outcome.retry_after_ms == 0);
    assert_string_equal(admit_dimension(t.outcome.policy), "tokens");
    r.input_tokens = 100;
    assert_int_equal(admit(&r, &t), ADMIT_OK);
    assert_int_equal(t.slice, 0); /* output is not limited */
    assert_true(limiter_covers(limiter, &t, 100) == UINT64_MAX);
    assert_true(limiter_spend_input(limiter, &t, 100));
    end(&t, 100, 77777);
}

static void cost_is_counted_at_the_prices_of_the_model(void **state)
{
    struct snap_policy p = POLICY("money:1000000", .kind = SNAP_QUOTA, .limit = 1000000,
                                  .unit = SNAP_UNIT_COST, .currency = STR("EUR"));
    struct snap_model priced = { .id = STR("m"),
                                 .currency = STR("EUR"),
                                 .input_nano = 1000,
                                 .output_nano = 9000 },
                      other = { .id = STR("o"), .currency = STR("USD"), .output_nano = 9000 };
    const struct snap_policy *all[] = { &p };
    struct admit_list l = { all, 1 };
    struct admit_request r = request(&l);
    struct admit_ticket t;
    (void)state;
    p.algorithm = SNAP_FIXED;
    r.stream = false;
    r.subject.model_known = &priced;
    assert_int_equal(admit(&r, &t), ADMIT_OK);
    assert_int_equal(limiter_covers(limiter, &t, 10), (1000000 - 10 * 1000) / 9000);
    assert_false(t.outcome.tokens.present); /* money is no number of tokens */
    limiter_release(limiter, &t);
    /* no price in the quota's currency: told */
    r.subject.model_known = &other;
    assert_int_equal(admit(&r, &t), ADMIT_OK);
    assert_int_equal(t.unpriced, 1);
    limiter_release(limiter, &t);
}

static void a_limit_of_cost_does_not_hide_that_of_tokens(void **state)
{
    struct snap_policy money = POLICY("money:100000", .kind = SNAP_QUOTA, .limit = 100000,
                                      .unit = SNAP_UNIT_COST, .currency = STR("EUR")),
                       tokens = POLICY("tokens:1000", .kind = SNAP_TOKEN_RATE, .limit = 1000);
    struct snap_model m = {
        .id = STR("m"), .currency = STR("EUR"), .input_nano = 1000, .output_nano = 9000
    };
    const struct snap_policy *all[] = { &money, &tokens };
    struct admit_list l = { all, 2 };
    struct admit_request r = request(&l);
    struct admit_ticket t;
    (void)state;
    r.subject.model_known = &m;
    assert_int_equal(admit(&r, &t), ADMIT_OK);
    /* of the money nothing much is left; what is told is what is left of the tokens */
    assert_true(t.outcome.tokens.present);
    assert_int_equal(t.outcome.tokens.limit, 1000);
    limiter_release(limiter, &t);
}

static void shadow_policies_only_tell(void **state)
{
    struct snap_policy shadow = POLICY("shadow:1", .kind = SNAP_REQUEST_RATE, .limit = 1,
                                       .shadow = true),
                       tokens = POLICY("quiet:20", .kind = SNAP_TOKEN_RATE, .limit = 20,
                                       .shadow = true);
    const struct snap_policy *all[] = { &shadow, &tokens };
    struct admit_list l = { all, 2 };
    struct admit_request r = request(&l);
    struct admit_ticket t;
    (void)state;
    assert_int_equal(admit(&r, &t), ADMIT_OK);
    assert_null(admit_shadow(&t, 0));
    assert_true(limiter_covers(limiter, &t, 10) == UINT64_MAX);
    assert_int_equal(limiter_spend_output(limiter, &t, 500), 500);
    end(&t, 10, 500);
    assert_int_equal(admit(&r, &t), ADMIT_OK);
    assert_ptr_equal(admit_shadow(&t, 0), &shadow);
    assert_false(t.outcome.requests.present);
    end(&t, 10, 0);
}

static void without_the_engine_deny_is_unavailable(void **state)
{
    struct snap_policy p = POLICY("p:10", .kind = SNAP_REQUEST_RATE, .limit = 10);
    const struct snap_policy *all[] = { &p };
    struct admit_list l = { all, 1 };
    struct admit_request r = request(&l);
    struct admit_ticket t;
    (void)state;
    engine.away = true;
    atomic_bool called = false;
    memset(&t, 0, sizeof t);
    /* in the background it is tried again until the time is up */
    if (limiter_admit(limiter, &r, &t, done, &called) == ADMIT_WAIT) wait_for(&called);
    assert_int_equal(t.outcome.verdict, ADMIT_UNAVAILABLE);
    assert_ptr_equal(t.outcome.policy, &p);
    assert_true(t.outcome.retry_after_ms > 0);
}

/* --- how full limits are --- */

struct use {
    size_t counters;
    double most;
};

static void note_use(void *ctx, struct str policy, double use)
{
    struct use *u = ctx;
    if (!str_eqz(policy, "full:10")) return;
    u->counters++;
    u->most = MAX(u->most, use);
}

static void how_full_a_limit_is_counts_what_was_spent_and_not_what_is_held(void **state)
{
    struct snap_policy p = POLICY("full:10", .kind = SNAP_REQUEST_RATE, .limit = 10);
    const struct snap_policy *all[] = { &p };
    struct admit_list l = { all, 1 };
    struct admit_request r = request(&l);
    struct admit_ticket t;
    (void)state;
    for (int i = 1; i <= 11; i++) {
        struct use u = { 0 };
        assert_int_equal(admit(&r, &t), i <= 10 ? ADMIT_OK : ADMIT_REFUSED);
        end(&t, 0, 0);
        limiter_each_use(limiter, note_use, &u);
        assert_int_equal(u.counters, 1);
        assert_int_equal((int)(u.most * 100 + 0.5), MIN(i, 10) * 10);
    }
}

/* --- messages that get lost --- */

struct decision {
    pthread_mutex_t lock;
    pthread_cond_t come;
    bool is;
    size_t messages; /* of the engine by then */
};

static void decided(void *ctx, struct admit_ticket *t)
{
    struct decision *d = ctx;
    (void)t;
    pthread_mutex_lock(&engine.lock);
    size_t messages = engine.messages;
    pthread_mutex_unlock(&engine.lock);
    pthread_mutex_lock(&d->lock);
    d->messages = messages;
    d->is = true;
    pthread_cond_signal(&d->come);
    pthread_mutex_unlock(&d->lock);
}

/* Admits one request, of whose asks the first `lost` get lost. */
static enum admit_verdict admit_by_lossy_bus(size_t lost, uint64_t *ret_ms, size_t *ret_messages)
{
    struct snap_policy p = POLICY("lossy:5", .kind = SNAP_REQUEST_RATE, .limit = 5);
    const struct snap_policy *all[] = { &p };
    struct admit_list l = { all, 1 };
    struct admit_request r = request(&l);
    struct admit_ticket t = { .held = false };
    struct decision d = { PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, false, 0 };
    size_t before = engine.messages;
    uint64_t begun = clock_mono_ms(engine.clock);
    engine.lose = lost;
    enum admit_verdict v = limiter_admit(limiter, &r, &t, decided, &d);
    pthread_mutex_lock(&d.lock);
    while (v == ADMIT_WAIT && !d.is) pthread_cond_wait(&d.come, &d.lock);
    pthread_mutex_unlock(&d.lock);
    *ret_ms = clock_mono_ms(engine.clock) - begun;
    *ret_messages = d.messages - before;
    engine_time_out(&engine);
    end(&t, 0, 0);
    return t.outcome.verdict;
}

static void an_ask_that_is_lost_is_repeated_before_the_wait_is_over(void **state)
{
    uint64_t ms;
    size_t messages;
    struct limiter_stats stats;
    (void)state;
    assert_int_equal(admit_by_lossy_bus(1, &ms, &messages), ADMIT_OK);
    assert_true(ms >= ASK_MS / 2 - 1);
    assert_int_equal(messages, 2);
    assert_int_equal(engine.counters[0].out, 1); /* once, though it was asked for twice */
    limiter_stats(limiter, &stats);
    assert_int_equal(stats.repeats, 1);
    assert_int_equal(stats.timeouts, 0);
    assert_int_equal(stats.unavailable, 0);
}

static void an_ask_whose_repetition_is_lost_too_is_given_up(void **state)
{
    uint64_t ms;
    size_t messages;
    struct limiter_stats stats;
    (void)state;
    assert_int_equal(admit_by_lossy_bus(2, &ms, &messages), ADMIT_UNAVAILABLE);
    assert_true(ms >= ASK_MS - 1);
    assert_int_equal(messages, 2);
    limiter_stats(limiter, &stats);
    assert_int_equal(stats.repeats, 1);
    assert_int_equal(stats.timeouts, 1);
    /* and the next request has what it needs */
    assert_int_equal(admit_by_lossy_bus(0, &ms, &messages), ADMIT_OK);
}

static void the_admission_log_has_every_unit_once(void **state)
{
    struct snap_policy a = POLICY("a:100", .kind = SNAP_REQUEST_RATE, .limit = 100),
                       b = POLICY("b:500", .kind = SNAP_TOKEN_RATE, .limit = 500);
    const struct snap_policy *all[] = { &a, &b };
    struct admit_list l = { all, 2 };
    struct admit_request r = request(&l);
    struct admit_ticket t;
    char text[2000] = "";
    unsigned long long at, units, admits = 0, input = 0, output = 0;
    char policy[32], what[16], key[64];
    (void)state;
    assert_int_equal(admit(&r, &t), ADMIT_OK);
    assert_true(limiter_spend_input(limiter, &t, 10));
    assert_int_equal(limiter_spend_output(limiter, &t, 3), 3);
    assert_int_equal(limiter_spend_output(limiter, &t, 4), 4);
    end(&t, 10, 7);
    FILE *f = fopen(log_file, "r");
    assert_non_null(f);
    while (fgets(text, sizeof text, f) != NULL) {
        assert_int_equal(sscanf(text, "%llu %31s %llu %15s %63s", &at, policy, &units, what, key),
                         5);
        assert_string_equal(key, "ns=ns-1");
        if (strcmp(what, "admit") == 0) admits += units;
        if (strcmp(what, "input") == 0) input += units;
        if (strcmp(what, "output") == 0) output += units;
        assert_string_equal(policy, strcmp(what, "admit") == 0 ? "a:100" : "b:500");
    }
    fclose(f);
    assert_true(admits == 1 && input == 10 && output == 7);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(if_one_refuses_nothing_is_spent_of_the_others, start, stop),
        cmocka_unit_test_setup_teardown(tokens_are_had_in_slices_and_the_rest_goes_back, start,
                                        stop),
        cmocka_unit_test_setup_teardown(a_ticket_that_shrank_still_holds_what_it_held,
                                        start_without_log, stop),
        cmocka_unit_test_setup_teardown(what_the_upstream_reports_beyond_becomes_debt, start, stop),
        cmocka_unit_test_setup_teardown(a_request_larger_than_the_limit_is_refused_for_good, start,
                                        stop),
        cmocka_unit_test_setup_teardown(cost_is_counted_at_the_prices_of_the_model, start, stop),
        cmocka_unit_test_setup_teardown(a_limit_of_cost_does_not_hide_that_of_tokens, start, stop),
        cmocka_unit_test_setup_teardown(shadow_policies_only_tell, start, stop),
        cmocka_unit_test_setup_teardown(without_the_engine_deny_is_unavailable, start, stop),
        cmocka_unit_test_setup_teardown(
            how_full_a_limit_is_counts_what_was_spent_and_not_what_is_held, start, stop),
        cmocka_unit_test_setup_teardown(an_ask_that_is_lost_is_repeated_before_the_wait_is_over,
                                        start, stop),
        cmocka_unit_test_setup_teardown(an_ask_whose_repetition_is_lost_too_is_given_up, start,
                                        stop),
        cmocka_unit_test_setup_teardown(the_admission_log_has_every_unit_once, start, stop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
