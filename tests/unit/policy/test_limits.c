/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Limits end to end but for the bus: limiters of several edges ask an engine with its counters in
 * memory, in the messages that go over the wire.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka wants the four above first */
#include <cmocka.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>

#include "services/edge/limits/admit.h"
#include "services/policy/engine.h"

static struct store *store;
static struct engine *engine;
static _Atomic bool cut; /* the engine cannot be reached */
static _Atomic int messages;

/* The bus: answers before it returns, or says at once that nobody is there. */
static enum err request(void *ctx, struct str data, int timeout_ms, bus_reply_fn fn, void *fn_ctx)
{
    struct buf reply;
    struct why why;
    (void)ctx;
    (void)timeout_ms;
    if (cut) return ERR_UNAVAILABLE;
    messages++;
    buf_init(&reply, 1 << 20);
    (void)engine_serve(engine, data, &reply, &why);
    fn(fn_ctx, ERR_OK, buf_str(&reply));
    buf_done(&reply);
    return ERR_OK;
}

static struct limiter *new_edge(const char *name)
{
    struct limiter_options o = { .prefix = "aigw",
                                 .instance = name,
                                 .clock = clock_system(),
                                 .rng = rng_system(),
                                 .ask_timeout_ms = 1000,
                                 .request = request };
    return limiter_new(&o);
}

static const struct snap_namespace namespaces[] = {
    { .id = { "n1", 2 }, .slug = { "team-a", 6 }, .enabled = true },
    { .id = { "n2", 2 }, .slug = { "team-b", 6 }, .enabled = true },
};
static struct snapshot snapshot;
static struct admit_policies *index_;

static void use(const struct snap_policy *policies, size_t n)
{
    struct why why;
    admit_policies_free(index_);
    index_ = NULL;
    snapshot = (struct snapshot){ .revision = snapshot.revision + 1,
                                  .namespaces = namespaces,
                                  .namespaces_n = 2,
                                  .policies = policies,
                                  .policies_n = n };
    assert_int_equal(admit_policies_new(&snapshot, &index_, &why), ERR_OK);
    assert_int_equal(engine_set_policies(engine, &snapshot, &why), ERR_OK);
}

static int setup(void **state)
{
    (void)state;
    cut = false;
    messages = 0;
    store = store_memory_new(clock_system(), 1000);
    store_memory_begin(store, "epoch-1", true);
    engine = engine_new(
        &(struct engine_options){ store, clock_system(), rng_system(), "policy-1" });
    return 0;
}
static int teardown(void **state)
{
    (void)state;
    admit_policies_free(index_);
    index_ = NULL;
    engine_free(engine);
    store_free(store);
    return 0;
}

static void done_fn(void *ctx, struct admit_ticket *t)
{
    _Atomic int *called = ctx;
    (void)t;
    (*called)++;
}

/* Waits for the decision. */
static struct admit_outcome admit(struct limiter *l, struct admit_ticket *t, size_t ns)
{
    struct admit_request r = { .policies = admit_policies_of(index_, &namespaces[ns]),
                               .subject = { .ns = &namespaces[ns], .model = STR("m") } };
    _Atomic int called = 0;
    if (limiter_admit(l, &r, t, done_fn, &called) == ADMIT_WAIT)
        for (int i = 0; atomic_load(&called) == 0; i++) {
            ASSERT(i < 60000);
            poll(NULL, 0, 1);
        }
    return t->outcome;
}

#define QPS(l, w)                                                                            \
    {                                                                                        \
        .id = { "p1", 2 }, .slug = { "qps", 3 }, .kind = SNAP_REQUEST_RATE, .enabled = true, \
        .per = { SNAP_PER_NAMESPACE }, .per_n = 1, .limit = l, .burst = l, .window_ms = w,   \
        .algorithm = SNAP_BUCKET, .on_unavailable = SNAP_DENY                                \
    }

static void of_ten_requests_at_once_the_first_five_pass(void **state)
{
    static const struct snap_policy p[] = { QPS(5, 600000) }; /* however long "at once" takes */
    struct limiter *l = new_edge("edge-1");
    struct admit_outcome o;
    (void)state;
    use(p, 1);
    for (unsigned i = 0; i < 10; i++) {
        struct admit_ticket t = { 0 };
        o = admit(l, &t, 0);
        assert_int_equal(o.verdict, i < 5 ? ADMIT_OK : ADMIT_REFUSED);
        assert_true(o.requests.present);
        assert_int_equal(o.requests.limit, 5);
        assert_int_equal(o.requests.remaining, i < 5 ? 4 - i : 0);
        limiter_release(l, &t);
    }
    assert_ptr_equal(o.policy, &p[0]);
    assert_string_equal(admit_dimension(o.policy), "requests");
    assert_int_equal(o.limit, 5);
    assert_int_equal(o.used, 5);
    assert_in_range(o.retry_after_ms, 1, 120001);
    assert_false(o.for_good);
    limiter_free(l);
}

static void two_edges_together_pass_no_more_than_one(void **state)
{
    static const struct snap_policy p[] = { QPS(5, 600000) };
    struct limiter *l[2] = { new_edge("edge-1"), new_edge("edge-2") };
    int passed = 0;
    (void)state;
    use(p, 1);
    for (int i = 0; i < 20; i++) {
        struct admit_ticket t = { 0 };
        if (admit(l[i % 2], &t, 0).verdict == ADMIT_OK) passed++;
    }
    assert_int_equal(passed, 5);
    /* another namespace has its own counter, and one without policies is not counted at all */
    struct admit_ticket t = { 0 };
    assert_int_equal(admit(l[0], &t, 1).verdict, ADMIT_OK);
    limiter_free(l[0]);
    limiter_free(l[1]);
}

static void without_policies_nothing_is_asked(void **state)
{
    static const struct snap_policy p[] = {
        { .id = { "p1", 2 },
          .kind = SNAP_REQUEST_RATE,
          .enabled = true,
          .ns = &namespaces[0],
          .limit = 1,
          .burst = 1,
          .window_ms = 1000 },
        { .id = { "p2", 2 },
          .kind = SNAP_REQUEST_RATE,
          .enabled = false,
          .limit = 1,
          .burst = 1,
          .window_ms = 1000 },
    };
    struct limiter *l = new_edge("edge-1");
    struct admit_ticket t = { 0 };
    (void)state;
    use(p, 2);
    assert_null(admit_policies_of(index_, &namespaces[1]));
    assert_int_equal(admit(l, &t, 1).verdict, ADMIT_OK);
    assert_false(t.outcome.requests.present);
    assert_int_equal(messages, 0);
    limiter_free(l);
}

static void slots_come_back_when_released_also_to_other_edges(void **state)
{
    static const struct snap_policy p[] = {
        { .id = { "c1", 2 },
          .slug = { "conc", 4 },
          .kind = SNAP_CONCURRENCY,
          .enabled = true,
          .per = { SNAP_PER_NAMESPACE },
          .per_n = 1,
          .limit = 2,
          .on_unavailable = SNAP_DENY },
    };
    struct limiter *a = new_edge("edge-1"), *b = new_edge("edge-2");
    struct admit_ticket t[3] = { 0 };
    struct admit_outcome o;
    (void)state;
    use(p, 1);
    assert_int_equal(admit(a, &t[0], 0).verdict, ADMIT_OK);
    assert_int_equal(admit(a, &t[1], 0).verdict, ADMIT_OK);
    o = admit(b, &t[2], 0);
    assert_int_equal(o.verdict, ADMIT_REFUSED);
    assert_string_equal(admit_dimension(o.policy), "concurrency");
    limiter_release(a, &t[1]);
    limiter_release(a, &t[1]);
    for (int i = 0; admit(b, &t[2], 0).verdict != ADMIT_OK; i++) {
        assert_true(i < 500); /* at once, not when a lease ends: that would be 2000 ms */
        poll(NULL, 0, 2);
    }
    limiter_release(a, &t[0]);
    limiter_release(b, &t[2]);
    limiter_free(a);
    limiter_free(b);
}

static void too_many_limits_for_one_namespace_are_refused(void **state)
{
    static struct snap_policy p[LEASE_MAX_CLAIMS + 1];
    struct admit_policies *ret = NULL;
    struct why why;
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(p); i++)
        p[i] = (struct snap_policy){
            .id = STR("p"), .kind = SNAP_CONCURRENCY, .enabled = true, .limit = 1
        };
    struct snapshot s = {
        .namespaces = namespaces, .namespaces_n = 2, .policies = p, .policies_n = ARRAY_LEN(p)
    };
    assert_int_equal(admit_policies_new(&s, &ret, &why), ERR_LIMIT);
    assert_non_null(strstr(why.text, "team-a"));
    s.policies_n--;
    assert_int_equal(admit_policies_new(&s, &ret, &why), ERR_OK);
    admit_policies_free(ret);
}

static void without_an_engine_requests_are_refused_as_unavailable_and_recover(void **state)
{
    static const struct snap_policy p[] = { QPS(100, 1000) };
    struct limiter *l = new_edge("edge-1");
    struct limiter_stats s;
    struct admit_outcome o;
    (void)state;
    use(p, 1);
    cut = true;
    for (int i = 0; i < 20; i++) {
        struct admit_ticket t = { 0 };
        o = admit(l, &t, 0);
        assert_int_equal(o.verdict, ADMIT_UNAVAILABLE);
        assert_ptr_equal(o.policy, &p[0]);
    }
    limiter_stats(l, &s);
    assert_true(s.away);
    assert_int_equal(s.unavailable, 20);
    cut = false;
    for (int i = 0;; i++) {
        struct admit_ticket t = { 0 };
        if (admit(l, &t, 0).verdict == ADMIT_OK) break;
        assert_true(i < 6000);
        poll(NULL, 0, 10);
    }
    limiter_stats(l, &s);
    assert_false(s.away);
    limiter_free(l);
}

static void a_new_epoch_is_noticed_and_refuses_until_it_is_warm(void **state)
{
    static const struct snap_policy p[] = { QPS(100, 1000) };
    struct limiter *l = new_edge("edge-1");
    struct admit_ticket t = { 0 };
    (void)state;
    use(p, 1);
    assert_int_equal(admit(l, &t, 0).verdict, ADMIT_OK);
    poll(NULL, 0, 60); /* the lease has ended */
    uint64_t since = clock_mono_ms(clock_system());
    store_memory_begin(store, "epoch-2", false);
    assert_int_equal(admit(l, &t, 0).verdict, ADMIT_UNAVAILABLE);
    while (admit(l, &t, 0).verdict != ADMIT_OK) poll(NULL, 0, 20);
    uint64_t took = clock_mono_ms(clock_system()) - since;
    assert_true(took >= LEASE_TTL_MS && took < LEASE_TTL_MS + 60000);
    limiter_free(l);
}

/* What edges do when they stop: nothing stays with them, and others need not wait. */
static void an_edge_that_leaves_gives_everything_back(void **state)
{
    static const struct snap_policy p[] = {
        { .id = { "p1", 2 },
          .slug = { "s", 1 },
          .kind = SNAP_REQUEST_RATE,
          .enabled = true,
          .per = { SNAP_PER_NAMESPACE },
          .per_n = 1,
          .limit = 128,
          .window_ms = 60000,
          .algorithm = SNAP_SLIDING,
          .on_unavailable = SNAP_DENY },
    };
    struct limiter *a = new_edge("edge-1"), *b = new_edge("edge-2");
    struct admit_ticket t = { 0 };
    int passed = 1;
    (void)state;
    use(p, 1);
    assert_int_equal(admit(a, &t, 0).verdict, ADMIT_OK); /* holds seven more */
    assert_int_equal(admit(b, &t, 0).verdict, ADMIT_OK);
    limiter_free(a);
    for (int i = 0; i < 200; i++)
        if (admit(b, &t, 0).verdict == ADMIT_OK) passed++;
    assert_int_equal(passed + 1, 128);
    limiter_free(b);
}

struct hammer {
    struct limiter *l;
    int passed;
};

static void *hammer_main(void *ctx)
{
    struct hammer *h = ctx;
    for (int i = 0; i < 2000; i++) {
        struct admit_ticket t = { 0 };
        if (admit(h->l, &t, 0).verdict == ADMIT_OK) h->passed++;
        limiter_release(h->l, &t);
    }
    return NULL;
}

static void many_threads_of_several_edges_share_one_limit(void **state)
{
    static const struct snap_policy p[] = { QPS(1000, 600000),
                                            { .id = { "c1", 2 },
                                              .slug = { "c", 1 },
                                              .kind = SNAP_CONCURRENCY,
                                              .enabled = true,
                                              .per = { SNAP_PER_NAMESPACE },
                                              .per_n = 1,
                                              .limit = 1000,
                                              .on_unavailable = SNAP_DENY } };
    struct limiter *l[2] = { new_edge("edge-1"), new_edge("edge-2") };
    struct hammer h[4] = { 0 };
    pthread_t threads[4];
    int passed = 0;
    (void)state;
    use(p, 2);
    for (int i = 0; i < 4; i++) {
        h[i].l = l[i / 2];
        assert_int_equal(pthread_create(&threads[i], NULL, hammer_main, &h[i]), 0);
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
        passed += h[i].passed;
    }
    /* 1000, and what came in at 1.67 per second meanwhile */
    assert_in_range(passed, 990, 1040);
    limiter_free(l[0]);
    limiter_free(l[1]);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(of_ten_requests_at_once_the_first_five_pass),
        T(two_edges_together_pass_no_more_than_one),
        T(without_policies_nothing_is_asked),
        T(slots_come_back_when_released_also_to_other_edges),
        T(too_many_limits_for_one_namespace_are_refused),
        T(without_an_engine_requests_are_refused_as_unavailable_and_recover),
        T(a_new_epoch_is_noticed_and_refuses_until_it_is_warm),
        T(an_edge_that_leaves_gives_everything_back),
        T(many_threads_of_several_edges_share_one_limit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
