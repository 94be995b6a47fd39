/* SPDX-License-Identifier: Apache-2.0 */
/* The edge's lease table, with an engine played by hand. The simulator is in ../policy/test_sim.c.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka wants the four above first */
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "services/edge/limits/lease.h"

#define MS UINT64_C(1000000)
#define START (UINT64_C(1000000) * MS)

static const struct lease_rule qps = { LEASE_RATE, LEASE_AWAY_DENY, 100,   100,
                                       1000,       false,           false, false };
static const struct lease_rule minute = {
    LEASE_RATE, LEASE_AWAY_SHARE, 100, 100, 60000, true, false, false
};
static const struct lease_rule slots = {
    LEASE_SLOTS, LEASE_AWAY_DENY, 3, 3, 0, true, false, false
};

static struct lease_table *table;
static struct lease_batch batch;
static struct list_node done;

static int setup(void **state)
{
    (void)state;
    table = lease_table_new(&(struct lease_table_options){ "edge-1", "inc-1", 8, 50 * MS });
    list_init(&done);
    return 0;
}
static int teardown(void **state)
{
    (void)state;
    lease_table_free(table);
    return 0;
}

static void bind(struct lease_waiter *w, uint64_t now, const char *policy,
                 const struct lease_rule *rule, bool shadow)
{
    size_t i = w->claims_n++;
    w->claims[i] = (struct lease_claim){ .owner = rule, .units = 1, .shadow = shadow };
    lease_bind(table, now, w, i, str_of(policy), STR("k"), rule);
}

static enum lease_verdict want(struct lease_waiter *w, uint64_t now, const char *policy,
                               const struct lease_rule *rule)
{
    *w = (struct lease_waiter){ 0 };
    bind(w, now, policy, rule, false);
    return lease_admit(table, now, w);
}

static size_t done_count(void)
{
    size_t n = 0;
    while (list_pop_front(&done) != NULL) n++;
    return n;
}

/* Answers every op of the batch with the same result. */
static void answer_as(uint64_t now, const char *epoch, struct lease_result like)
{
    struct lease_result results[LEASE_BATCH_OPS];
    struct lease_reply r = {
        .epoch = str_of(epoch), .edges = 2, .results = results, .results_n = batch.n
    };
    for (size_t i = 0; i < batch.n; i++) {
        results[i] = like;
        results[i].lease = str_of(batch.ops[i].lease);
    }
    assert_int_equal(lease_apply(table, now, &batch, &r, &done), ERR_OK);
}

static struct lease_result granted(uint64_t units, uint64_t ttl_ms)
{
    return (struct lease_result){ .status = LEASE_GRANTED,
                                  .granted = units,
                                  .ttl_ms = ttl_ms,
                                  .limit = 100,
                                  .remaining = 50,
                                  .share = 50 };
}

static void requests_that_lack_the_same_counter_share_one_ask(void **state)
{
    struct lease_waiter w[5];
    (void)state;
    for (int i = 0; i < 3; i++) assert_int_equal(want(&w[i], START, "p", &qps), LEASE_VERDICT_WAIT);
    assert_true(lease_collect(table, START, &batch));
    assert_int_equal(batch.n, 1);
    assert_int_equal(batch.ops[0].kind, LEASE_ASK);
    assert_int_equal(batch.ops[0].want, 3);
    assert_int_equal(batch.ops[0].known, 0);
    assert_true(str_starts(str_of(batch.ops[0].lease), STR("inc-1.")));
    /* one more comes while the ask is under way: it waits for the same answer */
    assert_int_equal(want(&w[3], START + MS, "p", &qps), LEASE_VERDICT_WAIT);
    assert_true(lease_due(table) > START + MS);
    answer_as(START + 2 * MS, "e1", granted(6, 50));
    assert_int_equal(done_count(), 4);
    for (int i = 0; i < 4; i++) assert_int_equal(w[i].verdict, LEASE_VERDICT_OK);
    /* and two are left for later ones */
    assert_int_equal(want(&w[4], START + 3 * MS, "p", &qps), LEASE_VERDICT_OK);
    assert_int_equal(w[4].tightest_view.remaining, 51);
}

static void a_lease_ends_one_percent_before_its_time_counted_from_the_ask(void **state)
{
    struct lease_waiter w;
    (void)state;
    for (int k = 0; k < 2; k++) {
        teardown(NULL);
        setup(NULL);
        want(&w, START, "p", &minute);
        assert_true(lease_collect(table, START, &batch));
        answer_as(START + 40 * MS, "e1", granted(8, 2000)); /* the reply took its time */
        done_count();
        uint64_t end = START + 1980 * MS;
        enum lease_verdict v = want(&w, k == 0 ? end - 1 : end, "p", &minute);
        assert_int_equal(v, k == 0 ? LEASE_VERDICT_OK : LEASE_VERDICT_WAIT);
        if (v == LEASE_VERDICT_WAIT) assert_true(lease_cancel(table, end, &w));
    }
}

static void if_one_limit_refuses_nothing_is_spent_of_any(void **state)
{
    struct lease_waiter w;
    (void)state;
    want(&w, START, "a", &qps);
    assert_true(lease_collect(table, START, &batch));
    answer_as(START, "e1", granted(3, 50));
    assert_int_equal(done_count(), 1);
    want(&w, START, "b", &qps);
    assert_true(lease_collect(table, START, &batch));
    answer_as(START, "e1",
              (struct lease_result){ .status = LEASE_REFUSED, .retry_ms = 100, .limit = 100 });
    assert_int_equal(done_count(), 1);
    assert_int_equal(w.verdict, LEASE_VERDICT_REFUSED);
    for (int i = 0; i < 5; i++) {
        w = (struct lease_waiter){ 0 };
        bind(&w, START, "a", &qps, false);
        bind(&w, START, "b", &qps, false);
        assert_int_equal(lease_admit(table, START, &w), LEASE_VERDICT_REFUSED);
        assert_int_equal(w.refused_by, 1);
        assert_int_equal(w.refused_view.retry_ms, 100);
    }
    for (int i = 0; i < 2; i++) assert_int_equal(want(&w, START, "a", &qps), LEASE_VERDICT_OK);
    assert_int_equal(want(&w, START, "a", &qps), LEASE_VERDICT_WAIT);
    assert_true(lease_cancel(table, START, &w));
}

static void a_limit_in_shadow_mode_is_counted_and_never_enforced(void **state)
{
    struct lease_waiter w;
    (void)state;
    want(&w, START, "s", &qps);
    assert_true(lease_collect(table, START, &batch));
    answer_as(START, "e1", (struct lease_result){ .status = LEASE_REFUSED, .retry_ms = 100 });
    done_count();
    w = (struct lease_waiter){ 0 };
    bind(&w, START, "s", &qps, true);
    assert_int_equal(lease_admit(table, START, &w), LEASE_VERDICT_OK);
    assert_int_equal(w.shadow_refused, 1);
    assert_int_equal(w.shadow_mask, 1);
}

static void a_refusal_is_remembered_and_then_asked_again(void **state)
{
    struct lease_waiter w;
    (void)state;
    want(&w, START, "p", &qps);
    assert_true(lease_collect(table, START, &batch));
    answer_as(START, "e1", (struct lease_result){ .status = LEASE_REFUSED, .retry_ms = 90 });
    assert_int_equal(done_count(), 1);
    for (int i = 0; i < 100; i++)
        assert_int_equal(want(&w, START + 10 * MS, "p", &qps), LEASE_VERDICT_REFUSED);
    assert_int_equal(w.refused_view.retry_ms, 80);
    assert_false(lease_collect(table, START + 10 * MS, &batch));
    assert_int_equal(want(&w, START + 90 * MS, "p", &qps), LEASE_VERDICT_WAIT);
    assert_true(lease_collect(table, START + 90 * MS, &batch));
    answer_as(START + 91 * MS, "e1", (struct lease_result){ .status = LEASE_NEVER });
    assert_int_equal(done_count(), 1);
    assert_true(w.refused_view.never);
}

static void idle_units_go_back_and_are_not_ours_from_then_on(void **state)
{
    struct lease_waiter w;
    (void)state;
    want(&w, START, "p", &minute);
    assert_true(lease_collect(table, START, &batch));
    answer_as(START, "e1", granted(8, 2000));
    done_count();
    assert_false(lease_collect(table, START + 1000 * MS, &batch));
    /* used since the ask: renewed before it ends */
    assert_true(lease_collect(table, START + 1750 * MS, &batch));
    assert_int_equal(batch.ops[0].kind, LEASE_RENEW);
    assert_int_equal(batch.ops[0].spent, 1);
    answer_as(START + 1750 * MS, "e1", granted(8, 2000));
    /* not used since: returned at half its life */
    assert_true(lease_collect(table, START + 2750 * MS, &batch));
    assert_int_equal(batch.ops[0].kind, LEASE_RETURN);
    assert_int_equal(batch.ops[0].returned, 7);
    assert_int_equal(want(&w, START + 2750 * MS, "p", &minute), LEASE_VERDICT_WAIT);
    answer_as(START + 2751 * MS, "e1", granted(8, 1000));
    assert_true(lease_collect(table, START + 2751 * MS, &batch));
    assert_int_equal(batch.ops[0].kind, LEASE_ASK);
    assert_int_equal(batch.ops[0].known, 8);
    assert_int_equal(batch.ops[0].returned, 7);
    answer_as(START + 2752 * MS, "e1", granted(9, 2000));
    assert_int_equal(done_count(), 1);
    assert_int_equal(w.verdict, LEASE_VERDICT_OK);
}

static void a_lease_that_was_prolonged_a_moment_ago_is_renewed_all_the_same(void **state)
{
    struct lease_waiter w[3];
    (void)state;
    want(&w[0], START, "p", &minute);
    assert_true(lease_collect(table, START, &batch));
    answer_as(START + MS, "e1", granted(1, 2000));
    want(&w[1], START + 5 * MS, "p", &minute); /* lacks a unit: asks again, soon after */
    assert_true(lease_collect(table, START + 5 * MS, &batch));
    answer_as(START + 6 * MS, "e1", granted(14, 2000));
    assert_int_equal(done_count(), 2);
    assert_int_equal(want(&w[2], START + 7 * MS, "p", &minute), LEASE_VERDICT_OK);
    /* what was spent is told before the lease ends, which would count all of it as spent */
    assert_true(lease_collect(table, START + 1755 * MS, &batch));
    assert_int_equal(batch.ops[0].kind, LEASE_RENEW);
    assert_int_equal(batch.ops[0].spent, 3);
    answer_as(START + 1756 * MS, "e1", granted(14, 2000));
}

/* Takes one unit each `step` from `from` to before `to`; how many messages that takes, each of
 * which is answered at once with as much as it likes, and how many requests had to wait for one. */
static size_t flow_of_requests(const struct lease_rule *rule, uint64_t ttl_ms, uint64_t from,
                               uint64_t to, uint64_t step, size_t *ret_waited)
{
    uint64_t granted_units = 0;
    size_t messages = 0;
    *ret_waited = 0;
    for (uint64_t now = from; now < to; now += step) {
        struct lease_waiter w;
        if (want(&w, now, "p", rule) == LEASE_VERDICT_WAIT) (*ret_waited)++;
        if (lease_due(table) > now || !lease_collect(table, now, &batch)) continue;
        assert_int_equal(batch.n, 1);
        granted_units = batch.ops[0].known;
        if (batch.ops[0].kind == LEASE_ASK)
            granted_units += batch.ops[0].want + batch.ops[0].ahead + 4;
        answer_as(now, "e1", granted(granted_units, ttl_ms));
        (void)done_count();
        messages++;
    }
    return messages;
}

/* Of a window of a second leases live for 50 ms: what is asked for lasts for all of that, and is
 * asked for once in half of it, however fast it is used. Nobody waits. */
static void a_short_lease_is_asked_for_twice_in_its_life(void **state)
{
    static const struct lease_rule rule = { .kind = LEASE_RATE,
                                            .away = LEASE_AWAY_DENY,
                                            .limit = 1000000,
                                            .capacity = 1000000,
                                            .window_ms = 1000 };
    (void)state;
    for (uint64_t step = MS / 32; step <= MS; step *= 2) {
        teardown(NULL);
        setup(NULL);
        size_t waited;
        uint64_t from = START + 200 * MS; /* by then the rate is known */
        (void)flow_of_requests(&rule, 50, START, from, step, &waited);
        size_t n = flow_of_requests(&rule, 50, from, from + 1000 * MS, step, &waited);
        assert_in_range(n, 20, 50);
        assert_int_equal(waited, 0);
    }
}

static void what_was_spent_is_reported_at_once_where_little_is_left(void **state)
{
    struct lease_result r = granted(1, 2000);
    struct lease_waiter w;
    (void)state;
    for (int little = 0; little < 2; little++) {
        uint64_t now = START + (uint64_t)little * 10000 * MS;
        want(&w, now, "p", &minute);
        assert_true(lease_collect(table, now, &batch));
        if (little == 1) r.remaining = 3;
        answer_as(now, "e1", r);
        done_count();
        /* else its end says the same, without a message */
        assert_int_equal(lease_collect(table, now + 100 * MS, &batch), little);
        if (little == 1) {
            assert_int_equal(batch.ops[0].kind, LEASE_SETTLE);
            assert_int_equal(batch.ops[0].spent, 1);
            answer_as(now + 100 * MS, "e1", r);
        }
        assert_false(lease_collect(table, now + 4900 * MS, &batch));
        assert_true(lease_due(table) >= now + 5000 * MS);
    }
}

static void slots_are_released_and_small_limits_give_them_back_at_once(void **state)
{
    struct lease_waiter w[3];
    (void)state;
    for (int i = 0; i < 2; i++) want(&w[i], START, "c", &slots);
    assert_true(lease_collect(table, START, &batch));
    answer_as(START, "e1", granted(2, 2000));
    assert_int_equal(done_count(), 2);
    assert_int_equal(want(&w[2], START, "c", &slots), LEASE_VERDICT_WAIT);
    assert_true(lease_cancel(table, START, &w[2]));
    lease_release(table, START, &w[0]);
    lease_release(table, START, &w[0]); /* twice is once */
    assert_true(lease_collect(table, START, &batch));
    assert_int_equal(batch.ops[0].kind, LEASE_RENEW); /* the other slot is in use */
    assert_int_equal(batch.ops[0].returned, 1);
    answer_as(START, "e1", granted(2, 2000));
    lease_release(table, START, &w[1]);
    assert_true(lease_collect(table, START, &batch));
    assert_int_equal(batch.ops[0].kind, LEASE_RETURN);
    assert_int_equal(batch.ops[0].returned, 2);
    answer_as(START, "e1", granted(2, 2000));
}

/* What a request waits for comes back before it was asked for: it is decided by that, nothing is
 * asked or given away, and the counter has its next turn later. */
static void a_slot_that_comes_back_is_for_those_who_wait(void **state)
{
    static const uint64_t limits[] = { 3, 1000 };
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct lease_rule rule = slots;
        struct lease_waiter a, b;
        rule.limit = rule.capacity = limits[i];
        teardown(NULL);
        setup(NULL);
        want(&a, START, "p", &rule);
        assert_true(lease_collect(table, START, &batch));
        answer_as(START, "e1", granted(1, 2000));
        assert_int_equal(done_count(), 1);
        assert_int_equal(want(&b, START + MS, "p", &rule), LEASE_VERDICT_WAIT);
        lease_release(table, START + MS, &a);
        assert_false(lease_collect(table, START + MS, &batch));
        assert_true(lease_due(table) <= START + MS);
        lease_expire(table, START + MS, &done);
        assert_int_equal(done_count(), 1);
        assert_int_equal(b.verdict, LEASE_VERDICT_OK);
        assert_true(lease_due(table) > START + MS);
        lease_release(table, START + 2 * MS, &b);
    }
}

static void running_requests_are_covered_again_after_a_lease_was_lost(void **state)
{
    struct lease_waiter w[2];
    (void)state;
    want(&w[0], START, "c", &slots);
    assert_true(lease_collect(table, START, &batch));
    answer_as(START, "e1", granted(1, 2000));
    done_count();
    assert_true(lease_collect(table, START + 1750 * MS, &batch));
    answer_as(START + 1750 * MS, "e2", (struct lease_result){ .status = LEASE_STALE_EPOCH });
    assert_true(lease_collect(table, START + 1980 * MS, &batch));
    assert_int_equal(batch.ops[0].kind, LEASE_ASK);
    assert_int_equal(batch.ops[0].known, 0);
    assert_int_equal(batch.ops[0].want, 1); /* for the one that runs */
    answer_as(START + 1990 * MS, "e2", granted(1, 2000));
    assert_int_equal(want(&w[1], START + 1995 * MS, "c", &slots), LEASE_VERDICT_WAIT);
    assert_true(lease_cancel(table, START, &w[1]));
    lease_release(table, START + 2000 * MS, &w[0]);
    assert_int_equal(want(&w[1], START + 2000 * MS, "c", &slots), LEASE_VERDICT_OK);
    lease_release(table, START + 2000 * MS, &w[1]);
}

static void nobody_waits_beyond_the_deadline(void **state)
{
    struct lease_waiter w, x;
    (void)state;
    want(&w, START, "p", &qps);
    assert_true(lease_collect(table, START, &batch));
    assert_int_equal(want(&x, START + 30 * MS, "p", &qps), LEASE_VERDICT_WAIT);
    assert_true(lease_due(table) <= START + 50 * MS);
    lease_expire(table, START + 50 * MS - 1, &done);
    assert_int_equal(done_count(), 0);
    lease_expire(table, START + 50 * MS, &done);
    assert_int_equal(done_count(), 1);
    assert_int_equal(w.verdict, LEASE_VERDICT_UNAVAILABLE);
    assert_false(lease_cancel(table, START, &w));
    assert_true(lease_cancel(table, START, &x));
    lease_fail(table, START + 51 * MS, &batch, &done);
    assert_int_equal(done_count(), 0);
}

/* Two messages without an answer, and it is known that the engine is away. */
static void go_away(uint64_t now, const struct lease_rule *rule)
{
    struct lease_waiter w;
    for (int i = 0; i < 2; i++) {
        want(&w, now, "gone", rule);
        assert_true(lease_collect(table, now, &batch));
        lease_expire(table, now + 50 * MS, &done);
        lease_fail(table, now + 50 * MS, &batch, &done);
        done_count();
    }
    struct lease_stats s;
    lease_table_stats(table, &s);
    assert_true(s.away);
}

static void without_an_engine_each_rule_says_what_happens(void **state)
{
    struct lease_rule deny = qps, allow = qps;
    struct lease_waiter w;
    (void)state;
    allow.away = LEASE_AWAY_ALLOW;
    go_away(START, &deny);
    assert_int_equal(want(&w, START + 60 * MS, "d", &deny), LEASE_VERDICT_UNAVAILABLE);
    assert_int_equal(want(&w, START + 60 * MS, "a", &allow), LEASE_VERDICT_OK);
    assert_int_equal(w.allowed, 1);
    /* it is tried again by itself, and a good answer ends it */
    assert_false(lease_collect(table, START + 100 * MS, &batch));
    assert_true(lease_collect(table, START + 400 * MS, &batch));
    answer_as(START + 401 * MS, "e1", granted(1, 50));
    assert_int_equal(want(&w, START + 402 * MS, "new", &deny), LEASE_VERDICT_WAIT);
    assert_true(lease_cancel(table, START, &w));
}

static void without_an_engine_a_quota_that_is_used_up_has_its_share_in_the_next_period(void **state)
{
    static const struct lease_rule hour = {
        LEASE_RATE, LEASE_AWAY_SHARE, 100, 100, 3600000, true, true, false
    };
    struct lease_waiter w;
    unsigned passed = 0;
    (void)state;
    assert_int_equal(want(&w, START, "q", &hour), LEASE_VERDICT_WAIT);
    assert_true(lease_collect(table, START, &batch));
    answer_as(START + MS, "e1",
              (struct lease_result){ .status = LEASE_REFUSED,
                                     .limit = 100,
                                     .retry_ms = 5000,
                                     .reset_ms = 5000 }); /* its share of what remains: 0 */
    assert_int_equal(w.verdict, LEASE_VERDICT_REFUSED);
    assert_int_equal(done_count(), 1);
    go_away(START + 300 * MS, &minute);
    assert_int_equal(want(&w, START + 1000 * MS, "q", &hour), LEASE_VERDICT_REFUSED);
    assert_int_equal(want(&w, START + 4900 * MS, "q", &hour), LEASE_VERDICT_REFUSED);
    for (int i = 0; i < 80; i++)
        if (want(&w, START + 5100 * MS, "q", &hour) == LEASE_VERDICT_OK) passed++;
    assert_int_equal(passed, 50); /* of 100, among two edges */
    assert_int_equal(want(&w, START + 3000000 * MS, "q", &hour), LEASE_VERDICT_REFUSED);
}

static void without_an_engine_a_share_begins_empty_and_is_spent_evenly(void **state)
{
    struct lease_waiter w;
    unsigned passed = 0, in_window[4] = { 0 };
    (void)state;
    want(&w, START, "gone", &minute);
    assert_true(lease_collect(table, START, &batch));
    answer_as(
        START, "e1",
        (struct lease_result){ .status = LEASE_REFUSED, .share = 50, .limit = 100, .retry_ms = 1 });
    done_count();
    go_away(START + 100 * MS, &minute);
    uint64_t since = START + 150 * MS;
    assert_int_equal(want(&w, since + MS, "gone", &minute), LEASE_VERDICT_REFUSED);
    assert_in_range(w.refused_view.retry_ms, 1000, 1300); /* 50 per minute: one each 1.2 s */
    for (uint64_t t = 10; t < 240000; t += 60) {
        /* one that can be served before its deadline waits for it */
        if (want(&w, since + t * MS, "gone", &minute) == LEASE_VERDICT_WAIT)
            lease_expire(table, since + (t + 50) * MS, &done);
        done_count();
        if (w.verdict != LEASE_VERDICT_OK) continue;
        assert_int_equal(w.shared, 1);
        in_window[t / 60000]++;
        passed++;
    }
    for (int i = 0; i < 4; i++) assert_in_range(in_window[i], 44, 50);
    assert_in_range(passed, 180, 200);
    /* a limit of which nothing was ever told has the part that each edge has */
    want(&w, since + 250000 * MS, "other", &minute);
    assert_int_equal(want(&w, since + 262000 * MS, "other", &minute), LEASE_VERDICT_OK);
}

/* What an engine answers that knows so many edges. */
static void answer_among(uint64_t now, uint64_t edges)
{
    struct lease_result results[LEASE_BATCH_OPS];
    struct lease_reply r = {
        .epoch = STR("e1"), .edges = edges, .results = results, .results_n = batch.n
    };
    for (size_t i = 0; i < batch.n; i++)
        results[i] = (struct lease_result){ .status = LEASE_REFUSED,
                                            .lease = str_of(batch.ops[i].lease),
                                            .share = 100 / MAX(edges, UINT64_C(1)),
                                            .limit = 100,
                                            .retry_ms = 1 };
    assert_int_equal(lease_apply(table, now, &batch, &r, &done), ERR_OK);
    done_count();
}

static void an_edge_without_work_learns_among_how_many_it_shares(void **state)
{
    struct lease_waiter w;
    (void)state;
    assert_int_equal(lease_share_among(table), 0);
    assert_false(lease_collect(table, START, &batch)); /* nothing was told: nothing to renew */
    want(&w, START, "gone", &minute);
    assert_true(lease_collect(table, START, &batch));
    answer_among(START, 1);
    assert_int_equal(lease_share_among(table), 1);
    assert_false(lease_collect(table, START + 4999 * MS, &batch));
    assert_int_equal(lease_due(table), START + 5000 * MS);
    assert_true(lease_collect(table, START + 5000 * MS, &batch));
    assert_int_equal(batch.n, 0);
    assert_false(lease_is_awaited(table, &batch));
    assert_int_equal(lease_due(table), START + 10000 * MS);
    answer_among(START + 5001 * MS, 4);
    assert_int_equal(lease_share_among(table), 4);
    /* an engine that does not know it yet says nothing */
    assert_true(lease_collect(table, START + 10000 * MS, &batch));
    answer_among(START + 10001 * MS, 0);
    assert_int_equal(lease_share_among(table), 4);
    /* when it is away, as its silence alone does not say, the share is by what was told last,
     * though this limit was asked for when there was one edge only */
    for (int i = 3; i < 6; i++) {
        assert_true(lease_collect(table, START + i * 5000 * MS, &batch));
        lease_fail(table, START + (i * 5000 + 50) * MS, &batch, &done);
    }
    struct lease_stats s;
    lease_table_stats(table, &s);
    assert_false(s.away);
    go_away(START + 30000 * MS, &minute);
    unsigned passed = 0;
    for (uint64_t t = 31000; t < 91000; t += 10) {
        passed += want(&w, START + t * MS, "gone", &minute) == LEASE_VERDICT_OK;
        if (w.waiting) (void)lease_cancel(table, START + t * MS, &w);
    }
    assert_in_range(passed, 23, 25); /* of 100, among four */
}

static void a_late_answer_makes_a_share_smaller_only(void **state)
{
    struct lease_waiter w;
    (void)state;
    want(&w, START, "p", &minute);
    assert_true(lease_collect(table, START, &batch));
    answer_among(START + 1001 * MS, 3);
    assert_int_equal(lease_share_among(table), 0);
    want(&w, START + 2000 * MS, "q", &minute);
    assert_true(lease_collect(table, START + 2000 * MS, &batch));
    answer_among(START + 3000 * MS, 3);
    assert_int_equal(lease_share_among(table), 3);
    assert_true(lease_collect(table, START + 8000 * MS, &batch));
    answer_among(START + 9001 * MS, 2);
    assert_int_equal(lease_share_among(table), 3);
    assert_true(lease_collect(table, START + 14000 * MS, &batch));
    answer_among(START + 15001 * MS, 4);
    assert_int_equal(lease_share_among(table), 4);
    assert_true(lease_collect(table, START + 20000 * MS, &batch));
    answer_among(START + 21000 * MS, 2);
    assert_int_equal(lease_share_among(table), 2);
}

static void an_unknown_policy_is_asked_for_again_until_the_deadline(void **state)
{
    struct lease_waiter w;
    (void)state;
    want(&w, START, "p", &qps);
    assert_true(lease_collect(table, START, &batch));
    answer_as(START + MS, "e1", (struct lease_result){ .status = LEASE_UNKNOWN_POLICY });
    assert_int_equal(done_count(), 0);
    assert_false(lease_collect(table, START + 5 * MS, &batch));
    assert_true(lease_collect(table, START + 11 * MS, &batch));
    answer_as(START + 12 * MS, "e1", granted(1, 50));
    assert_int_equal(done_count(), 1);
    assert_int_equal(w.verdict, LEASE_VERDICT_OK);
}

static void a_reply_that_does_not_fit_is_no_reply(void **state)
{
    struct lease_waiter w;
    struct lease_result other = {
        .status = LEASE_GRANTED, .lease = STR("somebody.1"), .granted = 9, .ttl_ms = 2000
    };
    struct lease_reply r = { .epoch = STR("e"), .results = &other, .results_n = 1 };
    (void)state;
    want(&w, START, "p", &qps);
    assert_true(lease_collect(table, START, &batch));
    assert_int_equal(lease_apply(table, START, &batch, &r, &done), ERR_INVALID);
    assert_int_equal(done_count(), 0);
    assert_true(lease_collect(table, START, &batch));
    answer_as(START, "e", granted(1, 50));
    assert_int_equal(done_count(), 1);
}

static void a_full_table_forgets_idle_counters_and_shares_one_when_all_are_in_use(void **state)
{
    struct lease_waiter w[12];
    struct lease_stats s;
    char name[16];
    (void)state;
    for (int i = 0; i < 12; i++) { /* waiting: in use */
        snprintf(name, sizeof name, "p%d", i);
        want(&w[i], START, name, &qps);
    }
    lease_table_stats(table, &s);
    assert_int_equal(s.overflows, 4);
    for (int i = 0; i < 12; i++) assert_true(lease_cancel(table, START, &w[i]));
    for (int i = 0; i < 4; i++) {
        snprintf(name, sizeof name, "q%d", i);
        want(&w[i], START, name, &qps);
        assert_true(lease_cancel(table, START, &w[i]));
    }
    lease_table_stats(table, &s);
    assert_int_equal(s.overflows, 4);
    assert_in_range(s.counters, 8, 12);
}

static void at_the_end_everything_is_given_back(void **state)
{
    struct lease_waiter w;
    (void)state;
    want(&w, START, "p", &minute);
    assert_true(lease_collect(table, START, &batch));
    answer_as(START, "e1", granted(8, 2000));
    done_count();
    assert_true(lease_collect_all(table, START + MS, &batch));
    assert_int_equal(batch.ops[0].kind, LEASE_RETURN);
    assert_int_equal(batch.ops[0].returned, 7);
    assert_int_equal(batch.ops[0].spent, 1);
    answer_as(START + 2 * MS, "e1", granted(8, 2000));
    assert_false(lease_collect_all(table, START + 3 * MS, &batch));
}

/* --- reservations --- */

static const struct lease_rule tokens = { LEASE_RATE, LEASE_AWAY_DENY, 1000, 1000, 60000,
                                          true,       false,           false };

/* A request of ten tokens of input whose output is reserved. */
static enum lease_verdict reserve(struct lease_waiter *w, uint64_t now, uint64_t output,
                                  const struct lease_rule *rule)
{
    *w = (struct lease_waiter){ .claims_n = 1 };
    w->claims[0] = (struct lease_claim){
        .units = 10 + output, .least = 11, .reserve = true, .per_input = 1, .per_output = 1
    };
    lease_bind(table, now, w, 0, STR("tokens"), STR("k"), rule);
    return lease_admit(table, now, w);
}

/* Asks, and is granted so many units in all, with so many left. */
static void grant(uint64_t now, uint64_t units, uint64_t left)
{
    struct lease_result r = granted(units, 2000);
    r.remaining = left;
    r.retry_ms = 1000;
    assert_true(lease_collect(table, now, &batch));
    answer_as(now, "e1", r);
}

static void tokens_are_reserved_spent_extended_and_settled(void **state)
{
    struct lease_waiter w, x;
    (void)state;
    assert_int_equal(reserve(&w, START, 64, &tokens), LEASE_VERDICT_WAIT);
    grant(START, 100, 800);
    assert_int_equal(batch.ops[0].want, 74);
    assert_int_equal(batch.ops[0].min, 11);
    assert_int_equal(done_count(), 1);
    assert_int_equal(w.claims[0].reserved, 74);
    assert_int_equal(w.tightest_reserve, 0);
    assert_int_equal(lease_covers(table, START, &w, 10), 64);
    assert_true(lease_spend_input(table, START, &w, 10));
    assert_int_equal(lease_spend_output(table, START, &w, 60), 60);
    /* what the lease holds besides is had at once */
    assert_int_equal(lease_extend(table, START, &w, 0, 20, 1), LEASE_VERDICT_OK);
    assert_int_equal(lease_covers(table, START, &w, 0), 24);
    /* more is asked for, and flows meanwhile */
    assert_int_equal(lease_extend(table, START, &w, 0, 50, 1), LEASE_VERDICT_WAIT);
    assert_int_equal(lease_spend_output(table, START, &w, 4), 4);
    grant(START + MS, 200, 700);
    assert_int_equal(batch.ops[0].spent, 74);
    assert_int_equal(done_count(), 1);
    assert_int_equal(lease_covers(table, START + MS, &w, 0), 70);
    /* the end: 5 more than were delivered; the rest serves the next */
    lease_end(table, START + MS, &w, &(uint64_t){ 79 });
    assert_int_equal(reserve(&x, START + MS, 100, &tokens), LEASE_VERDICT_OK);
    lease_release(table, START + MS, &x);
    assert_true(lease_collect_all(table, START + MS, &batch));
    assert_int_equal(batch.ops[0].spent, 79);
    assert_int_equal(batch.ops[0].returned, 121);
    answer_as(START + MS, "e1", granted(200, 2000));
}

static void a_reservation_gets_what_is_left_and_not_less_than_it_needs(void **state)
{
    struct lease_waiter w, x;
    (void)state;
    assert_int_equal(reserve(&w, START, 500, &tokens), LEASE_VERDICT_WAIT);
    grant(START, 30, 0);
    assert_int_equal(done_count(), 1);
    assert_int_equal(w.verdict, LEASE_VERDICT_OK);
    assert_int_equal(lease_covers(table, START, &w, 10), 20);
    assert_int_equal(lease_extend(table, START, &w, 0, 64, 1), LEASE_VERDICT_REFUSED);
    assert_int_equal(lease_covers(table, START, &w, 10), 20); /* what it has stays its own */
    assert_int_equal(reserve(&x, START, 64, &tokens), LEASE_VERDICT_REFUSED);
    assert_int_equal(x.refused_view.retry_ms, 1000);
    lease_release(table, START, &w);
    assert_int_equal(reserve(&x, START, 64, &tokens), LEASE_VERDICT_OK);
    assert_int_equal(x.claims[0].reserved, 30);
    lease_release(table, START, &x);
}

static void what_is_charged_beyond_the_reservation_is_debt_once(void **state)
{
    struct lease_waiter w;
    struct lease_stats s;
    (void)state;
    assert_int_equal(reserve(&w, START, 20, &tokens), LEASE_VERDICT_WAIT);
    grant(START, 30, 800);
    done_count();
    assert_true(lease_spend_input(table, START, &w, 10));
    assert_int_equal(lease_spend_output(table, START, &w, 20), 20);
    lease_end(table, START, &w, &(uint64_t){ 100 });
    lease_table_stats(table, &s);
    assert_int_equal(s.debt, 70);
    assert_true(lease_collect(table, START + 30 * MS, &batch));
    assert_int_equal(batch.ops[0].spent, 30);
    assert_int_equal(batch.ops[0].debt, 70);
    /* the reply is lost, and the lease ends: it is reported again, on a lease that asks nothing */
    lease_fail(table, START + 80 * MS, &batch, &done);
    assert_true(lease_collect(table, START + 2000 * MS, &batch));
    assert_int_equal(batch.ops[0].kind, LEASE_ASK);
    assert_int_equal(batch.ops[0].want, 0);
    assert_int_equal(batch.ops[0].debt, 70);
    answer_as(START + 2000 * MS, "e1", granted(0, 2000));
    assert_false(lease_collect(table, START + 6900 * MS, &batch));
}

static void a_reservation_is_renewed_and_dies_with_its_lease(void **state)
{
    struct lease_waiter w;
    (void)state;
    assert_int_equal(reserve(&w, START, 20, &tokens), LEASE_VERDICT_WAIT);
    grant(START, 30, 800);
    done_count();
    assert_true(lease_collect(table, START + 1750 * MS, &batch));
    /* though nobody took any of it */
    assert_true(batch.ops[0].kind == LEASE_RENEW || batch.ops[0].kind == LEASE_ASK);
    assert_int_equal(batch.ops[0].returned, 0);
    answer_as(START + 1750 * MS, "e1", granted(30, 2000));
    assert_int_equal(lease_covers(table, START + 3000 * MS, &w, 0), 30);
    assert_int_equal(lease_covers(table, START + 1750 * MS + 1980 * MS, &w, 0), 0);
    assert_int_equal(lease_spend_output(table, START + 3730 * MS, &w, 1), 0);
    assert_int_equal(lease_extend(table, START + 3730 * MS, &w, 0, 10, 1), LEASE_VERDICT_WAIT);
    grant(START + 3731 * MS, 10, 800);
    assert_int_equal(done_count(), 1);
    assert_int_equal(lease_spend_output(table, START + 3731 * MS, &w, 99), 10);
    lease_end(table, START + 3731 * MS, &w, NULL);
}

static void strict_slots_are_held_as_long_as_their_lease(void **state)
{
    struct lease_rule strict = slots;
    struct lease_waiter w;
    (void)state;
    strict.strict = true;
    want(&w, START, "c", &strict);
    assert_true(lease_collect(table, START, &batch));
    answer_as(START, "e1", granted(1, 2000));
    done_count();
    assert_true(lease_held_until(table, START + 100 * MS, &w) == START + 1980 * MS);
    assert_true(lease_held_until(table, START + 1980 * MS, &w) == START + 1980 * MS);
    lease_release(table, START + 1980 * MS, &w);
    assert_true(lease_held_until(table, START + 1980 * MS, &w) == UINT64_MAX);
}

static void counters_whose_names_end_alike_are_counted_apart(void **state)
{
    static const char *const names[] = { "first with the same end", "other with the same end" };
    struct lease_waiter w[2];
    (void)state;
    for (int i = 0; i < 2; i++)
        assert_int_equal(want(&w[i], START, names[i], &minute), LEASE_VERDICT_WAIT);
    assert_true(lease_collect(table, START, &batch));
    assert_int_equal(batch.n, 2);
    answer_as(START, "e1", granted(4, 2000));
    assert_int_equal(done_count(), 2);
    for (int k = 0; k < 3; k++)
        for (int i = 0; i < 2; i++)
            assert_int_equal(want(&w[i], START, names[i], &minute), LEASE_VERDICT_OK);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(want(&w[i], START, names[i], &minute), LEASE_VERDICT_WAIT);
        assert_true(lease_cancel(table, START, &w[i]));
    }
}

/* Not a timed test: prints what a decision over five policies costs. */
static void a_decision_over_five_policies(void **state)
{
    enum { ROUNDS = 100000 };
    static const char *const names[] = { "p1", "p2", "p3", "p4", "p5" };
    struct lease_rule big = { LEASE_RATE, LEASE_AWAY_DENY, 1000000000, 1000000000, 60000,
                              true,       false,           false };
    struct lease_waiter w = { 0 };
    (void)state;
    for (int i = 0; i < 5; i++) bind(&w, START, names[i], &big, false);
    assert_int_equal(lease_admit(table, START, &w), LEASE_VERDICT_WAIT);
    assert_true(lease_collect(table, START, &batch));
    answer_as(START, "e1", granted(10000000, 2000));
    assert_int_equal(done_count(), 1);
    uint64_t t0 = clock_mono_ns(clock_system());
    for (int k = 0; k < ROUNDS; k++) {
        w = (struct lease_waiter){ 0 };
        for (int i = 0; i < 5; i++) bind(&w, START, names[i], &big, false);
        assert_int_equal(lease_admit(table, START, &w), LEASE_VERDICT_OK);
    }
    print_message("%.0f ns for a decision over 5 policies\n",
                  (double)(clock_mono_ns(clock_system()) - t0) / ROUNDS);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(requests_that_lack_the_same_counter_share_one_ask),
        T(a_lease_ends_one_percent_before_its_time_counted_from_the_ask),
        T(if_one_limit_refuses_nothing_is_spent_of_any),
        T(a_limit_in_shadow_mode_is_counted_and_never_enforced),
        T(a_refusal_is_remembered_and_then_asked_again),
        T(idle_units_go_back_and_are_not_ours_from_then_on),
        T(a_lease_that_was_prolonged_a_moment_ago_is_renewed_all_the_same),
        T(a_short_lease_is_asked_for_twice_in_its_life),
        T(what_was_spent_is_reported_at_once_where_little_is_left),
        T(slots_are_released_and_small_limits_give_them_back_at_once),
        T(a_slot_that_comes_back_is_for_those_who_wait),
        T(running_requests_are_covered_again_after_a_lease_was_lost),
        T(nobody_waits_beyond_the_deadline),
        T(without_an_engine_each_rule_says_what_happens),
        T(without_an_engine_a_quota_that_is_used_up_has_its_share_in_the_next_period),
        T(without_an_engine_a_share_begins_empty_and_is_spent_evenly),
        T(an_edge_without_work_learns_among_how_many_it_shares),
        T(a_late_answer_makes_a_share_smaller_only),
        T(an_unknown_policy_is_asked_for_again_until_the_deadline),
        T(a_reply_that_does_not_fit_is_no_reply),
        T(a_full_table_forgets_idle_counters_and_shares_one_when_all_are_in_use),
        T(counters_whose_names_end_alike_are_counted_apart),
        T(at_the_end_everything_is_given_back),
        T(tokens_are_reserved_spent_extended_and_settled),
        T(a_reservation_gets_what_is_left_and_not_less_than_it_needs),
        T(what_is_charged_beyond_the_reservation_is_debt_once),
        T(a_reservation_is_renewed_and_dies_with_its_lease),
        T(strict_slots_are_held_as_long_as_their_lease),
        T(a_decision_over_five_policies),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
