/* SPDX-License-Identifier: Apache-2.0 */
/* The claim on counters in memory: of several engines one holds it, whatever dies or is lost. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka wants the four above first */
#include <cmocka.h>

#include "services/policy/claim.h"

#define MS UINT64_C(1000000)

/* A bucket with one key. */
struct bucket {
    struct buf value;
    uint64_t revision; /* 0: there is none */
    bool away, answer_lost;
};

static struct bucket bucket;
static struct clock_fake fake;

static enum err get(void *ctx, const char *key, struct buf *ret, uint64_t *ret_revision)
{
    struct bucket *b = ctx;
    (void)key;
    if (b->away) return ERR_UNAVAILABLE;
    if (b->revision == 0) return ERR_NOT_FOUND;
    *ret_revision = b->revision;
    return buf_append_str(ret, buf_str(&b->value));
}

static enum err update(void *ctx, const char *key, struct str value, uint64_t expected,
                       uint64_t *ret_revision)
{
    struct bucket *b = ctx;
    (void)key;
    if (b->away) return ERR_UNAVAILABLE;
    if (b->revision != expected) return ERR_CONFLICT;
    buf_clear(&b->value);
    assert_int_equal(buf_append_str(&b->value, value), ERR_OK);
    b->revision++;
    if (b->answer_lost) return ERR_TIMEOUT;
    *ret_revision = b->revision;
    return ERR_OK;
}

static int setup(void **state)
{
    (void)state;
    bucket = (struct bucket){ 0 };
    buf_init(&bucket.value, 4096);
    clock_fake_init(&fake, 1000 * MS, 1000 * MS);
    return 0;
}
static int teardown(void **state)
{
    (void)state;
    buf_done(&bucket.value);
    return 0;
}

static struct claim engine(const char *name)
{
    struct claim c;
    struct claim_kv kv = { get, update, &bucket };
    claim_init(&c, &kv, "policy.memory", name, &fake.clock, rng_system());
    return c;
}

static enum claim_event step(struct claim *c)
{
    uint64_t until;
    return claim_step(c, &until);
}

static void one_of_two_gets_it_and_the_other_knows_who(void **state)
{
    struct claim a = engine("policy-1"), b = engine("policy-2");
    uint64_t until = 0;
    (void)state;
    assert_int_equal(claim_step(&a, &until), CLAIM_WON);
    assert_true(claim_is_first(&a));
    assert_int_equal(until, fake.mono + CLAIM_TTL_MS * MS / 100 * 99);
    for (int i = 0; i < 20; i++) {
        assert_int_equal(step(&b), CLAIM_OTHER);
        assert_string_equal(claim_holder(&b), "policy-1");
        clock_fake_advance(&fake, CLAIM_STEP_MS * MS);
        assert_int_equal(step(&a), CLAIM_HELD);
    }
}

static void a_successor_waits_until_the_right_of_a_dead_one_has_ended(void **state)
{
    struct claim a = engine("policy-1"), b = engine("policy-2");
    uint64_t until = 0;
    (void)state;
    claim_step(&a, &until);
    assert_int_equal(step(&b), CLAIM_OTHER);
    while (step(&b) == CLAIM_OTHER) clock_fake_advance(&fake, 100 * MS);
    assert_true(fake.mono >= until);
    assert_true(fake.mono <= until + CLAIM_STEP_MS * MS);
    assert_false(claim_is_first(&b)); /* something may have been granted */
    /* the dead one was only frozen: it finds out */
    assert_int_equal(step(&a), CLAIM_OTHER);
    assert_string_equal(claim_holder(&a), "policy-2");
}

static void one_that_signs_off_is_followed_at_once(void **state)
{
    struct claim a = engine("policy-1"), b = engine("policy-2");
    (void)state;
    step(&a);
    assert_int_equal(step(&b), CLAIM_OTHER);
    claim_release(&a);
    assert_int_equal(step(&b), CLAIM_WON);
    assert_false(claim_is_first(&b));
    claim_release(&a); /* a second time, by one that holds nothing */
    assert_int_equal(step(&b), CLAIM_HELD);
}

static void a_renewal_whose_answer_was_lost_is_recognised(void **state)
{
    struct claim a = engine("policy-1");
    (void)state;
    step(&a);
    bucket.answer_lost = true;
    assert_int_equal(step(&a), CLAIM_AWAY);
    bucket.answer_lost = false;
    assert_int_equal(step(&a), CLAIM_HELD);
}

static void without_the_bucket_it_goes_on_where_it_was(void **state)
{
    struct claim a = engine("policy-1"), b = engine("policy-2");
    (void)state;
    bucket.away = true;
    assert_int_equal(step(&a), CLAIM_AWAY);
    bucket.away = false;
    assert_int_equal(step(&a), CLAIM_WON);
    bucket.away = true;
    clock_fake_advance(&fake, 60000 * MS);
    assert_int_equal(step(&a), CLAIM_AWAY);
    bucket.away = false;
    assert_int_equal(step(&a), CLAIM_HELD);
    assert_int_equal(step(&b), CLAIM_OTHER);
}

static void a_value_of_strangers_is_a_claim_that_runs_out(void **state)
{
    struct claim a = engine("policy-1");
    (void)state;
    assert_int_equal(buf_appendz(&bucket.value, "not ours"), ERR_OK);
    bucket.revision = 7;
    assert_int_equal(step(&a), CLAIM_OTHER);
    clock_fake_advance(&fake, CLAIM_TTL_MS * MS);
    assert_int_equal(step(&a), CLAIM_WON);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(one_of_two_gets_it_and_the_other_knows_who),
        T(a_successor_waits_until_the_right_of_a_dead_one_has_ended),
        T(one_that_signs_off_is_followed_at_once),
        T(a_renewal_whose_answer_was_lost_is_recognised),
        T(without_the_bucket_it_goes_on_where_it_was),
        T(a_value_of_strangers_is_a_claim_that_runs_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
