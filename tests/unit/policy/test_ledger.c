/* SPDX-License-Identifier: Apache-2.0 */
/* The counter's state machine: what each algorithm promises holds over every interval, whatever the
 * messages; repeating, losing and delaying them changes nothing for the worse. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka wants the four above first */
#include <cmocka.h>
#include <stdio.h>

#include "base/clock.h"
#include "interval_check.h"
#include "services/policy/ledger.h"

enum { SECOND = 1000000, START = 100 * SECOND };

static const struct ledger_birth full = { .full = true };

static struct ledger_rule bucket(uint64_t limit, uint64_t window_us, uint64_t burst)
{
    return (struct ledger_rule){
        LEDGER_BUCKET, limit, burst, window_us, lease_ttl_ms(window_us / 1000) * 1000, 0
    };
}
static struct ledger_rule window(enum ledger_kind kind, uint64_t limit, uint64_t window_us)
{
    return (
        struct ledger_rule){ kind, limit, 0, window_us, lease_ttl_ms(window_us / 1000) * 1000, 0 };
}
static struct ledger_rule slots(uint64_t limit)
{
    return (struct ledger_rule){ LEDGER_SLOTS, limit, 0, 0, LEASE_TTL_MS * 1000, 0 };
}

static void init(struct ledger *l, const struct ledger_rule *r, uint64_t now,
                 const struct ledger_birth *birth)
{
    struct ledger_window w = ledger_window_of(r, now);
    ledger_init(l, r, now, &w, birth);
}
static struct lease_result serve(struct ledger *l, const struct ledger_rule *r, uint64_t now,
                                 struct lease_op op)
{
    struct lease_result res = { 0 };
    struct ledger_window w = ledger_window_of(r, now);
    if (op.min == 0) op.min = 1;
    assert_int_equal(ledger_serve(l, r, now, &w, &op, &res), ERR_OK);
    return res;
}
static struct lease_result ask(struct ledger *l, const struct ledger_rule *r, uint64_t now,
                               const char *lease, uint64_t known, uint64_t want, uint64_t spent)
{
    return serve(l, r, now,
                 (struct lease_op){ .kind = LEASE_ASK,
                                    .lease = str_of(lease),
                                    .known = known,
                                    .want = want,
                                    .spent = spent });
}
static struct lease_result give(struct ledger *l, const struct ledger_rule *r, uint64_t now,
                                enum lease_op_kind kind, const char *lease, uint64_t known,
                                uint64_t spent, uint64_t returned)
{
    return serve(l, r, now,
                 (struct lease_op){ .kind = kind,
                                    .lease = str_of(lease),
                                    .known = known,
                                    .spent = spent,
                                    .returned = returned });
}

static void five_per_second_gives_five_and_says_when_the_next_comes(void **state)
{
    struct ledger_rule r = bucket(5, SECOND, 5);
    struct ledger l;
    struct lease_result res;
    (void)state;
    init(&l, &r, START, &full);
    for (uint64_t i = 0; i < 5; i++) {
        res = ask(&l, &r, START, "a", i, 1, i);
        assert_int_equal(res.status, LEASE_GRANTED);
        assert_int_equal(res.granted, i + 1); /* small limits: one at a time */
    }
    assert_int_equal(res.remaining, 0);
    res = ask(&l, &r, START, "a", 5, 1, 5);
    assert_int_equal(res.status, LEASE_REFUSED);
    assert_in_range(res.retry_ms, 200, 201);
    assert_int_equal(res.limit, 5);
    res = ask(&l, &r, START + 150000, "a", 5, 1, 5);
    assert_int_equal(res.status, LEASE_ENDED); /* refused asks prolong, but this one came late */
    res = ask(&l, &r, START + 199000, "b", 0, 1, 0);
    assert_int_equal(res.status, LEASE_REFUSED);
    res = ask(&l, &r, START + 200100, "b", 0, 1, 0);
    assert_int_equal(res.status, LEASE_GRANTED);
    ledger_done(&l);
}

static void a_repeated_ask_grants_once(void **state)
{
    struct ledger_rule r = bucket(1000, SECOND, 1000);
    struct ledger l;
    (void)state;
    init(&l, &r, START, &full);
    assert_int_equal(ask(&l, &r, START, "a", 0, 3, 0).granted, 3);
    assert_int_equal(ask(&l, &r, START, "a", 0, 3, 0).granted, 3);
    assert_int_equal(ledger_left(&l, &r), 997);
    /* the reply was lost: the next ask, knowing of nothing, finds out what it has */
    assert_int_equal(ask(&l, &r, START, "a", 0, 2, 0).granted, 3);
    assert_int_equal(ask(&l, &r, START, "a", 0, 5, 0).granted, 5);
    assert_int_equal(ledger_outstanding(&l), 5);
    ledger_done(&l);
}

static void repeated_returns_and_settlements_count_once_and_late_ones_not_at_all(void **state)
{
    struct ledger_rule r = bucket(1000, SECOND, 1000);
    struct ledger l;
    (void)state;
    init(&l, &r, START, &full);
    ask(&l, &r, START, "a", 0, 8, 0);
    for (int i = 0; i < 3; i++) give(&l, &r, START, LEASE_RETURN, "a", 8, 3, 2);
    assert_int_equal(ledger_left(&l, &r), 994);
    assert_int_equal(ledger_outstanding(&l), 3);
    give(&l, &r, START, LEASE_SETTLE, "a", 8, 1, 0); /* an older one, overtaken */
    assert_int_equal(ledger_outstanding(&l), 3);
    /* more than it holds cannot come back */
    give(&l, &r, START, LEASE_RETURN, "a", 8, 3, 500);
    assert_int_equal(ledger_left(&l, &r), 997);
    assert_int_equal(ledger_outstanding(&l), 0);
    ask(&l, &r, START, "b", 0, 8, 0);
    uint64_t left = ledger_left(&l, &r);
    assert_int_equal(give(&l, &r, START + r.lease_us, LEASE_RETURN, "b", 8, 0, 8).status,
                     LEASE_ENDED);
    /* the refill of that time is all there is, not the 8 */
    assert_true(ledger_left(&l, &r) <= left + r.lease_us / 1000);
    ledger_done(&l);
}

/* An edge that died has sent it long ago; the others wait for what its lease holds. */
static void an_overtaken_op_prolongs_nothing_and_takes_nothing(void **state)
{
    struct ledger_rule r = window(LEDGER_SLIDING, 10, 60 * SECOND);
    struct ledger l;
    uint64_t late = START + r.lease_us - 1000;
    (void)state;
    init(&l, &r, START, &full);
    ask(&l, &r, START, "a", 0, 2, 0);
    assert_int_equal(ask(&l, &r, START, "a", 2, 2, 2).granted, 4);
    assert_int_equal(ask(&l, &r, late, "a", 2, 5, 1).granted, 4);
    assert_int_equal(give(&l, &r, late, LEASE_RENEW, "a", 4, 1, 0).ttl_ms, 1);
    assert_int_equal(ledger_outstanding(&l), 2);
    /* one that says as much as the last one may be the edge's, whose reply was lost */
    assert_int_equal(ask(&l, &r, START + 1000, "a", 2, 2, 2).ttl_ms, r.lease_us / 1000);
    assert_int_equal(give(&l, &r, late, LEASE_RENEW, "a", 4, 1, 0).ttl_ms, 2);
    assert_int_equal(ask(&l, &r, START + r.lease_us + 1000, "a", 4, 1, 2).status, LEASE_ENDED);
    assert_int_equal(ledger_outstanding(&l), 0);
    ledger_done(&l);
}

static void a_lease_that_ends_counts_as_spent(void **state)
{
    struct ledger_rule r = window(LEDGER_SLIDING, 100, 60 * SECOND);
    struct ledger l;
    (void)state;
    init(&l, &r, START, &full);
    struct lease_result res = ask(&l, &r, START, "a", 0, 10, 0);
    assert_int_equal(res.granted, 10);
    assert_int_equal(res.ttl_ms, 2000);
    give(&l, &r, START + SECOND, LEASE_SETTLE, "a", 10, 4, 0);
    ledger_advance(&l, &r, START + 2 * SECOND, NULL);
    assert_int_equal(ledger_outstanding(&l), 0);
    assert_int_equal(ledger_left(&l, &r), 90);
    /* four leave the window after their report, six after the lease's end (rule 7) */
    ledger_advance(&l, &r, START + 61 * SECOND - 1, NULL);
    assert_int_equal(ledger_left(&l, &r), 90);
    ledger_advance(&l, &r, START + 61 * SECOND, NULL);
    assert_int_equal(ledger_left(&l, &r), 94);
    ledger_advance(&l, &r, START + 62 * SECOND, NULL);
    assert_int_equal(ledger_left(&l, &r), 100);
    assert_true(ledger_is_idle(&l, &r));
    ledger_done(&l);
}

static void nothing_refills_while_leases_hold_the_room(void **state)
{
    struct ledger_rule r = bucket(10, 60 * SECOND, 10);
    struct ledger l;
    (void)state;
    init(&l, &r, START, &full);
    for (uint64_t i = 0; i < 10; i++) ask(&l, &r, START, "a", i, 1, 0);
    /* kept alive and unspent: the naive lease would let the level fill up again beside it */
    for (uint64_t t = 1; t <= 120; t++)
        give(&l, &r, START + t * SECOND, LEASE_RENEW, "a", 10, 0, 0);
    assert_int_equal(ledger_outstanding(&l), 10);
    assert_int_equal(ledger_left(&l, &r), 0);
    struct lease_result res = ask(&l, &r, START + 120 * SECOND, "b", 0, 1, 0);
    assert_int_equal(res.status, LEASE_REFUSED);
    assert_in_range(res.retry_ms, 2000, 6001);
    ledger_done(&l);
}

static void slots_are_given_back_by_return_or_by_the_end_of_the_lease(void **state)
{
    struct ledger_rule r = slots(3);
    struct ledger l;
    (void)state;
    init(&l, &r, START, &full);
    ask(&l, &r, START, "a", 0, 2, 0);
    ask(&l, &r, START, "b", 0, 1, 0);
    assert_int_equal(ask(&l, &r, START, "c", 0, 1, 0).status, LEASE_REFUSED);
    give(&l, &r, START, LEASE_RENEW, "a", 2, 0, 1);
    assert_int_equal(ask(&l, &r, START, "c", 0, 1, 0).status, LEASE_GRANTED);
    /* a is renewed, b and c are not: their edge died */
    give(&l, &r, START + SECOND, LEASE_RENEW, "a", 2, 0, 1);
    ledger_advance(&l, &r, START + 2 * SECOND, NULL);
    assert_int_equal(ledger_outstanding(&l), 1);
    assert_int_equal(ledger_left(&l, &r), 2);
    ledger_done(&l);
}

static void more_than_it_can_hold_is_refused_for_good(void **state)
{
    struct ledger_rule r = window(LEDGER_SLIDING, 5, 60 * SECOND);
    struct ledger l;
    struct lease_op op = { .kind = LEASE_ASK, .lease = STR("a"), .want = 6, .min = 6 };
    (void)state;
    init(&l, &r, START, &full);
    assert_int_equal(serve(&l, &r, START, op).status, LEASE_NEVER);
    op.min = 5;
    assert_int_equal(serve(&l, &r, START, op).status, LEASE_GRANTED);
    op.lease = STR("b");
    op.want = op.min = 2;
    assert_int_equal(serve(&l, &r, START, op).status, LEASE_REFUSED);
    assert_int_equal(ledger_outstanding(&l), 5);
    ledger_done(&l);
}

static void what_was_spent_beyond_the_grant_is_debt(void **state)
{
    struct ledger_rule r = bucket(100, SECOND, 100);
    struct ledger l;
    (void)state;
    init(&l, &r, START, &full);
    ask(&l, &r, START, "a", 0, 1, 0);
    for (int i = 0; i < 2; i++) give(&l, &r, START, LEASE_SETTLE, "a", 6, 150, 0);
    assert_int_equal(give(&l, &r, START, LEASE_SETTLE, "a", 1, 150, 0).remaining, 0);
    assert_true(l.level < 0);
    assert_int_equal(ask(&l, &r, START, "b", 0, 1, 0).status, LEASE_REFUSED);
    ledger_done(&l);
}

static void a_calendar_window_admits_its_limit_and_leases_end_with_it(void **state)
{
    struct ledger_rule r = window(LEDGER_FIXED, 4, 60 * SECOND);
    struct ledger l;
    uint64_t end = (uint64_t)60 * 60 * SECOND; /* a boundary */
    (void)state;
    init(&l, &r, end - SECOND, &full);
    struct lease_result res = ask(&l, &r, end - SECOND, "a", 0, 4, 0);
    assert_int_equal(res.granted, 4);
    assert_int_equal(res.ttl_ms, 1000);
    res = ask(&l, &r, end - SECOND / 2, "b", 0, 1, 0);
    assert_int_equal(res.status, LEASE_REFUSED);
    assert_int_equal(res.retry_ms, 500);
    assert_int_equal(give(&l, &r, end, LEASE_SETTLE, "a", 4, 4, 0).status, LEASE_ENDED);
    assert_int_equal(ledger_left(&l, &r), 4);
    /* the wall clock goes back: no second helping */
    assert_int_equal(ask(&l, &r, end, "c", 0, 4, 0).granted, 4);
    res = (struct lease_result){ 0 };
    struct lease_op op = { .kind = LEASE_ASK, .lease = STR("d"), .want = 1, .min = 1 };
    struct ledger_window before = ledger_window_of(&r, end - SECOND);
    assert_int_equal(ledger_serve(&l, &r, end + 1000, &before, &op, &res), ERR_OK);
    assert_int_equal(res.status, LEASE_REFUSED);
    ledger_done(&l);
}

static void a_counter_whose_past_is_unknown_begins_empty(void **state)
{
    struct ledger_birth lost = { .empty_us = START };
    struct ledger_rule rules[] = { bucket(10, SECOND, 10), window(LEDGER_SLIDING, 10, SECOND),
                                   window(LEDGER_FIXED, 10, 10 * SECOND) };
    struct ledger l;
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rules); i++) {
        init(&l, &rules[i], START, &lost);
        assert_int_equal(ledger_left(&l, &rules[i]), 0);
        ledger_done(&l);
        /* first asked for long after: as if it had stood unused since then */
        init(&l, &rules[i], START + 20 * SECOND, &lost);
        assert_int_equal(ledger_left(&l, &rules[i]), 10);
        ledger_done(&l);
    }
    init(&l, &rules[0], START + SECOND / 2, &lost);
    assert_in_range(ledger_left(&l, &rules[0]), 4, 5);
    ledger_done(&l);
}

static void a_lower_limit_keeps_what_was_used(void **state)
{
    struct ledger_rule r = window(LEDGER_SLIDING, 100, 60 * SECOND), lower = r;
    struct ledger l;
    (void)state;
    lower.limit = 20;
    init(&l, &r, START, &full);
    ask(&l, &r, START, "a", 0, 15, 0);
    give(&l, &r, START, LEASE_SETTLE, "a", 15, 15, 0);
    assert_int_equal(ask(&l, &lower, START, "b", 0, 8, 0).granted, 5);
    ledger_done(&l);
}

static void debt_is_charged_once_also_when_nothing_can_be_granted(void **state)
{
    struct ledger_rule rules[] = { bucket(100, 60 * SECOND, 100),
                                   window(LEDGER_SLIDING, 100, 60 * SECOND),
                                   window(LEDGER_FIXED, 100, 60 * SECOND) };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rules); i++) {
        struct ledger l;
        struct lease_op op = { .kind = LEASE_ASK, .lease = STR("a"), .want = 90, .min = 1 };
        init(&l, &rules[i], START, &full);
        assert_int_equal(serve(&l, &rules[i], START, op).granted, 90);
        op.kind = LEASE_SETTLE;
        op.known = op.spent = 90;
        op.debt = 30;
        for (int k = 0; k < 2; k++) serve(&l, &rules[i], START, op);
        assert_int_equal(ledger_used(&l, &rules[i]), 120); /* below zero by 20 */
        /* another edge owes as well, and has no lease */
        struct lease_op owes = { .kind = LEASE_ASK, .lease = STR("b"), .debt = 5 };
        for (int k = 0; k < 2; k++)
            assert_int_equal(serve(&l, &rules[i], START, owes).status, LEASE_GRANTED);
        owes.want = 1;
        assert_int_equal(serve(&l, &rules[i], START, owes).status, LEASE_REFUSED);
        assert_int_equal(ledger_used(&l, &rules[i]), 125);
        assert_int_equal(ledger_outstanding(&l), 0);
        ledger_done(&l);
    }
}

static void what_lies_ahead_leaves_enough_for_the_others(void **state)
{
    struct ledger_rule r = window(LEDGER_SLIDING, 1000, 60 * SECOND);
    struct ledger l;
    struct lease_op op = { .kind = LEASE_ASK, .lease = STR("a"), .want = 1, .ahead = 5000 };
    (void)state;
    init(&l, &r, START, &full);
    assert_int_equal(serve(&l, &r, START, op).granted, 1 + 999 / 8);
    op.lease = STR("b");
    uint64_t second = serve(&l, &r, START, op).granted;
    assert_in_range(second, 50, 100);
    /* what is needed is granted as far as there is; ahead of that nothing when little is left */
    op.lease = STR("c");
    op.want = ledger_left(&l, &r) - 3;
    assert_int_equal(serve(&l, &r, START, op).granted, op.want);
    op.lease = STR("d");
    op.want = 1;
    assert_int_equal(serve(&l, &r, START, op).granted, 1);
    ledger_done(&l);
}

static void shares_of_silent_edges_are_set_aside_and_come_back(void **state)
{
    struct ledger_rule rules[] = { bucket(80, SECOND, 80), window(LEDGER_SLIDING, 80, SECOND),
                                   window(LEDGER_FIXED, 80, 60 * SECOND), slots(80) };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rules); i++) {
        struct ledger_rule aside = rules[i];
        struct ledger_window w = ledger_window_of(&rules[i], START);
        struct ledger l;
        aside.aside_ppm = 250000;
        init(&l, &rules[i], START, &full);
        ledger_advance(&l, &aside, START, &w);
        assert_int_equal(ledger_left(&l, &aside), 60);
        ledger_advance(&l, &rules[i], START + SECOND, &w);
        assert_int_equal(ledger_left(&l, &rules[i]), 80);
        ledger_done(&l);
    }
    /* of a quota, a part of what remained */
    struct ledger l;
    struct ledger_rule aside = rules[2];
    init(&l, &rules[2], START, &full);
    ask(&l, &rules[2], START, "a", 0, 40, 0);
    aside.aside_ppm = 250000;
    struct lease_result res = ask(&l, &aside, START, "b", 0, 100, 0);
    assert_int_equal(res.granted, 30);
    ledger_done(&l);
}

static void a_calendar_window_that_the_policy_changed_keeps_what_was_used(void **state)
{
    struct ledger_rule r = window(LEDGER_FIXED, 100, 60 * SECOND);
    struct ledger_window hour = { 3600, 7200, 1800 * (uint64_t)SECOND };
    struct ledger_window day = { 0, 86400, 80000 * (uint64_t)SECOND };
    struct ledger_window next = { 7200, 10800, 3600 * (uint64_t)SECOND };
    struct ledger l;
    struct lease_op op = { .kind = LEASE_ASK, .lease = STR("a"), .want = 60, .min = 1 };
    struct lease_result res = { 0 };
    (void)state;
    ledger_init(&l, &r, START, &hour, &full);
    assert_int_equal(ledger_serve(&l, &r, START, &hour, &op, &res), ERR_OK);
    assert_int_equal(ledger_mark(&l), 60);
    ledger_advance(&l, &r, START + 1, &day);
    assert_int_equal(ledger_mark(&l), 60);
    ledger_advance(&l, &r, START + 2, &hour);
    assert_int_equal(ledger_mark(&l), 60);
    ledger_advance(&l, &r, START + 3, &next);
    assert_int_equal(ledger_mark(&l), 0);
    ledger_done(&l);
    /* a mark that survived says where it stood, for its window */
    struct ledger_birth mark = { .marked = true, .begin = 3600, .end = 7200, .used = 70 };
    ledger_init(&l, &r, START, &hour, &mark);
    assert_int_equal(ledger_left(&l, &r), 30);
    ledger_reset(&l, &r, START);
    assert_int_equal(ledger_left(&l, &r), 100);
    ledger_done(&l);
    ledger_init(&l, &r, START, &next, &mark);
    assert_int_equal(ledger_left(&l, &r), 100);
    ledger_done(&l);
}

static void a_higher_burst_keeps_what_was_used(void **state)
{
    struct ledger_rule r = bucket(10, 60 * SECOND, 10), higher = bucket(10, 60 * SECOND, 50);
    struct ledger l;
    (void)state;
    init(&l, &r, START, &full);
    ask(&l, &r, START, "a", 0, 8, 0);
    ledger_advance(&l, &higher, START, NULL);
    assert_int_equal(ledger_left(&l, &higher), 42);
    ledger_done(&l);
}

/* --- every interval, at random --- */

enum { HOLDERS = 4 };

/* What an edge would know, so that it spends only what a valid lease holds. */
struct holder {
    char id[16];
    uint64_t number, granted, spent, returned, end_us;
};

static void random_run(const struct ledger_rule *r, uint64_t seed, int steps)
{
    struct rng_fake rng;
    struct ledger l;
    struct holder h[HOLDERS] = { 0 };
    struct bucket_check b = { .burst = (double)r->burst,
                              .per_us = (double)r->limit / (double)MAX(r->window_us, 1u) };
    struct window_check w = { .limit = r->limit, .window_us = r->window_us };
    uint64_t now = START, spent_total = 0;
    struct lease_op old[8] = { 0 };
    char old_id[8][16];
    rng_fake_init(&rng, seed);
    init(&l, r, now, &full);
    for (int i = 0; i < steps; i++) {
        struct holder *x = &h[rng_below(&rng.rng, HOLDERS)];
        struct lease_result res;
        struct lease_op op = { .min = 1 };
        now += rng_below(&rng.rng, rng_below(&rng.rng, 8) == 0 ? r->lease_us * 2 : r->lease_us / 8);
        if (x->number == 0 || now >= x->end_us) { /* over, or never begun: a new one */
            *x = (struct holder){ .number = (uint64_t)i + 1 };
            snprintf(x->id, sizeof x->id, "%d.%d", (int)(x - h), i);
        }
        /* spend some of what is held */
        uint64_t holds = now < x->end_us ? x->granted - x->returned - x->spent : 0;
        uint64_t units = holds > 0 ? rng_below(&rng.rng, holds + 1) : 0;
        if (units > 0) {
            x->spent += units;
            spent_total += units;
            if (r->kind == LEDGER_BUCKET) bucket_check_add(&b, now, units);
            if (r->kind == LEDGER_SLIDING) window_check_add(&w, now, units);
        }
        op.kind = (enum lease_op_kind)rng_below(&rng.rng, LEASE_OP_MAX);
        op.lease = str_of(x->id);
        if (op.kind == LEASE_ASK) op.want = 1 + rng_below(&rng.rng, 4);
        if (op.kind == LEASE_RETURN && holds > units)
            x->returned += 1 + rng_below(&rng.rng, holds - units);
        op.known = x->granted;
        op.spent = x->spent;
        op.returned = x->returned;
        uint64_t asked = now;
        if (rng_below(&rng.rng, 10) == 0) continue; /* the message is lost */
        now += rng_below(&rng.rng, 2000);           /* on its way */
        int times = rng_below(&rng.rng, 10) == 0 ? 2 : 1;
        while (times-- > 0) res = serve(&l, r, now, op);
        size_t k = rng_below(&rng.rng, 8); /* and an old one arrives again */
        if (old[k].lease.n > 0) serve(&l, r, now, old[k]);
        old[k] = op;
        memcpy(old_id[k], x->id, sizeof x->id);
        old[k].lease = str_of(old_id[k]);
        assert_true(l.kind == LEDGER_BUCKET
                        ? l.level + (double)ledger_outstanding(&l) <= (double)r->burst + 1e-6
                        : ledger_outstanding(&l) <= r->limit);
        if (rng_below(&rng.rng, 10) == 0) continue; /* the reply is lost */
        if (res.status == LEASE_ENDED) {
            x->number = 0;
        } else {
            x->granted = MAX(x->granted, res.granted);
            if (op.kind == LEASE_ASK || op.kind == LEASE_RENEW)
                x->end_us = MAX(x->end_us, asked + res.ttl_ms * 990);
        }
    }
    if (r->kind == LEDGER_BUCKET) assert_true(bucket_check_ok(&b));
    if (r->kind == LEDGER_SLIDING) assert_true(window_check_ok(&w));
    assert_true(spent_total > (uint64_t)steps / 500); /* or this would prove nothing */
    window_check_done(&w);
    ledger_done(&l);
}

static void no_interval_is_over_the_bound(void **state)
{
    struct ledger_rule rules[] = {
        bucket(5, SECOND, 5),
        bucket(200, SECOND, 200),
        bucket(100, 10 * SECOND, 3),
        window(LEDGER_SLIDING, 3, SECOND / 2),
        window(LEDGER_SLIDING, 100, SECOND),
        window(LEDGER_SLIDING, 1000, 2 * SECOND),
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rules); i++)
        for (uint64_t seed = 1; seed <= 10; seed++) random_run(&rules[i], seed * 77 + i, 5000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(five_per_second_gives_five_and_says_when_the_next_comes),
        cmocka_unit_test(a_repeated_ask_grants_once),
        cmocka_unit_test(repeated_returns_and_settlements_count_once_and_late_ones_not_at_all),
        cmocka_unit_test(an_overtaken_op_prolongs_nothing_and_takes_nothing),
        cmocka_unit_test(a_lease_that_ends_counts_as_spent),
        cmocka_unit_test(nothing_refills_while_leases_hold_the_room),
        cmocka_unit_test(slots_are_given_back_by_return_or_by_the_end_of_the_lease),
        cmocka_unit_test(more_than_it_can_hold_is_refused_for_good),
        cmocka_unit_test(what_was_spent_beyond_the_grant_is_debt),
        cmocka_unit_test(a_calendar_window_admits_its_limit_and_leases_end_with_it),
        cmocka_unit_test(a_counter_whose_past_is_unknown_begins_empty),
        cmocka_unit_test(a_lower_limit_keeps_what_was_used),
        cmocka_unit_test(debt_is_charged_once_also_when_nothing_can_be_granted),
        cmocka_unit_test(what_lies_ahead_leaves_enough_for_the_others),
        cmocka_unit_test(shares_of_silent_edges_are_set_aside_and_come_back),
        cmocka_unit_test(a_calendar_window_that_the_policy_changed_keeps_what_was_used),
        cmocka_unit_test(a_higher_burst_keeps_what_was_used),
        cmocka_unit_test(no_interval_is_over_the_bound),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
