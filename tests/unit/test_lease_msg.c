/* SPDX-License-Identifier: Apache-2.0 */
/* The lease protocol's codecs, and that of refusals: round trips, bounds, samples. */
#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "proto/lease_msg.h"
#include "proto/gone_msg.h"
#include "proto/rejected_msg.h"

static void an_ask_comes_back_as_it_went(void **state)
{
    struct lease_op ops[2] = {
        { LEASE_ASK, STR("p1"), STR("ns=1;key=\"2\""), STR("inc.1"), 8, 3, 9, 2, 5, 1, 6 },
        { LEASE_RETURN, STR("p2"), STR("all=1"), STR("inc.2"), LEASE_UNITS_MAX, 0, 0, 1, 0, 7, 0 },
    };
    struct lease_ask m = { .incarnation = STR("inc"),
                           .epoch = STR("e"),
                           .revision = 42,
                           .leaving = true,
                           .ops = ops,
                           .ops_n = 2 },
                     back;
    struct buf b;
    struct why why = { "" };
    char id[37];
    (void)state;
    buf_init(&b, MESSAGE_MAX_BYTES);
    assert_int_equal(lease_ask_encode(&m, clock_system(), rng_system(), "edge-1", id, &b), ERR_OK);
    assert_int_equal(lease_ask_decode(buf_str(&b), &back, &why), ERR_OK);
    assert_true(str_eqz(back.id, id) && str_eqz(back.from, "edge-1"));
    assert_true(str_eq(back.incarnation, m.incarnation) && str_eq(back.epoch, m.epoch));
    assert_true(back.leaving && back.revision == 42 && back.ops_n == 2);
    for (int i = 0; i < 2; i++) {
        const struct lease_op *x = &ops[i], *y = &back.ops[i];
        assert_true(x->kind == y->kind && str_eq(x->policy, y->policy) && str_eq(x->key, y->key) &&
                    str_eq(x->lease, y->lease) && x->known == y->known && x->want == y->want &&
                    x->min == y->min && x->spent == y->spent && x->returned == y->returned &&
                    x->ahead == y->ahead && x->debt == y->debt);
    }
    lease_ask_done(&back);
    buf_done(&b);
}

static void a_reply_comes_back_as_it_went(void **state)
{
    struct lease_result results[LEASE_STATUS_MAX];
    struct lease_reply m = { .re = STR("m"),
                             .epoch = STR("e"),
                             .edges = 3,
                             .revision = 9,
                             .results = results,
                             .results_n = LEASE_STATUS_MAX },
                       back;
    struct buf b;
    struct why why = { "" };
    (void)state;
    for (uint64_t i = 0; i < LEASE_STATUS_MAX; i++)
        results[i] = (struct lease_result){
            (enum lease_status)i, STR("l"), i, i * 2, i * 3, i * 4, i * 5, i * 6, i * 7
        };
    buf_init(&b, MESSAGE_MAX_BYTES);
    assert_int_equal(lease_reply_encode(&m, clock_system(), rng_system(), "policy-1", &b), ERR_OK);
    assert_int_equal(lease_reply_decode(buf_str(&b), &back, &why), ERR_OK);
    assert_true(str_eq(back.re, m.re) && str_eq(back.epoch, m.epoch));
    assert_true(back.edges == 3 && back.revision == 9 && back.results_n == LEASE_STATUS_MAX);
    for (uint64_t i = 0; i < LEASE_STATUS_MAX; i++) {
        const struct lease_result *r = &back.results[i];
        assert_true(r->status == (enum lease_status)i && r->granted == i && r->ttl_ms == i * 2 &&
                    r->limit == i * 3 && r->remaining == i * 4 && r->reset_ms == i * 5 &&
                    r->retry_ms == i * 6 && r->share == i * 7);
    }
    lease_reply_done(&back);
    buf_done(&b);
}

static void an_error_of_the_engine_is_handed_on(void **state)
{
    struct json *m = envelope_error(clock_system(), rng_system(), "p", ERR_UNAVAILABLE, "no Redis");
    struct lease_reply r;
    struct buf b;
    struct why why = { "" };
    (void)state;
    buf_init(&b, 4096);
    assert_int_equal(json_print(m, &b), ERR_OK);
    assert_int_equal(lease_reply_decode(buf_str(&b), &r, &why), ERR_UNAVAILABLE);
    assert_string_equal(why.text, "no Redis");
    buf_done(&b);
    json_free(m);
}

static void a_word_from_the_future_spoils_only_its_own_op(void **state)
{
    struct lease_ask m;
    struct why why = { "" };
    (void)state;
    struct str text = STR(
        "{\"v\":1,\"id\":\"i\",\"from\":\"e\",\"incarnation\":\"i\",\"epoch\":\"\",\"ops\":["
        "{\"op\":\"borrow\",\"policy\":\"p\",\"key\":\"k\",\"lease\":\"l\"},"
        "{\"op\":\"settle\",\"policy\":\"p\",\"key\":\"k\",\"lease\":\"l\"}]}");
    assert_int_equal(lease_ask_decode(text, &m, &why), ERR_OK);
    assert_int_equal(m.ops[0].kind, LEASE_OP_MAX);
    assert_int_equal(m.ops[1].kind, LEASE_SETTLE);
    assert_int_equal(m.ops[1].min, 1);
    lease_ask_done(&m);
}

static void more_ops_than_fit_are_not_encoded(void **state)
{
    struct lease_ask m = { .incarnation = STR("i"), .ops_n = LEASE_MAX_OPS + 1 };
    struct buf b;
    (void)state;
    buf_init(&b, MESSAGE_MAX_BYTES);
    assert_int_equal(lease_ask_encode(&m, clock_system(), rng_system(), "e", NULL, &b), ERR_LIMIT);
    buf_done(&b);
}

static void a_lease_lives_a_twentieth_of_its_window(void **state)
{
    (void)state;
    assert_int_equal(lease_ttl_ms(0), 2000);
    assert_int_equal(lease_ttl_ms(100), 5);
    assert_int_equal(lease_ttl_ms(1000), 50);
    assert_int_equal(lease_ttl_ms(40000), 2000);
    assert_int_equal(lease_ttl_ms(86400000), 2000);
}

static void a_refusal_comes_back_as_it_went(void **state)
{
    struct rejected_msg m = { .ns = STR("team"),
                              .policy = STR("p"),
                              .slug = STR("qps"),
                              .dimension = STR("requests"),
                              .limit = 5,
                              .used = 4,
                              .retry_ms = 3,
                              .for_good = true,
                              .shadow = true,
                              .unavailable = true,
                              .count = 2 },
                        back;
    struct buf b;
    struct why why = { "" };
    (void)state;
    buf_init(&b, 4096);
    assert_int_equal(rejected_msg_encode(&m, clock_system(), rng_system(), "edge-1", &b), ERR_OK);
    assert_int_equal(rejected_msg_decode(buf_str(&b), &back, &why), ERR_OK);
    assert_true(str_eqz(back.from, "edge-1") && str_eq(back.ns, m.ns) &&
                str_eq(back.policy, m.policy) && str_eq(back.slug, m.slug) &&
                str_eq(back.dimension, m.dimension));
    assert_true(back.limit == 5 && back.used == 4 && back.retry_ms == 3 && back.count == 2);
    assert_true(back.for_good && back.shadow && back.unavailable);
    rejected_msg_done(&back);
    buf_done(&b);
}

/* --- samples --- */

static enum err decode(const char *what, struct str text, struct why *why)
{
    struct lease_ask a;
    struct lease_reply r;
    struct rejected_msg m;
    enum err e;
    if (strcmp(what, "lease_ask") == 0) {
        if ((e = lease_ask_decode(text, &a, why)) == ERR_OK) lease_ask_done(&a);
    } else if (strcmp(what, "lease_reply") == 0) {
        e = lease_reply_decode(text, &r, why);
        if (e == ERR_OK) lease_reply_done(&r);
        if (e == ERR_UNAVAILABLE) e = ERR_OK; /* the sample of an error */
    } else if (strcmp(what, "instance_gone") == 0) {
        char instance[GONE_INSTANCE_MAX + 1];
        e = gone_msg_decode(text, instance, why);
    } else if ((e = rejected_msg_decode(text, &m, why)) == ERR_OK) {
        rejected_msg_done(&m);
    }
    return e;
}

static int each_sample(const char *what, const char *kind, bool good)
{
    char dir[256], path[600], text[65536];
    struct dirent *d;
    int n = 0;
    snprintf(dir, sizeof dir, "proto/samples/%s/%s", what, kind);
    DIR *samples = opendir(dir);
    assert_non_null(samples);
    while ((d = readdir(samples)) != NULL) {
        struct why why = { "" };
        if (d->d_name[0] == '.') continue;
        snprintf(path, sizeof path, "%s/%s", dir, d->d_name);
        FILE *f = fopen(path, "r");
        assert_non_null(f);
        size_t len = fread(text, 1, sizeof text, f);
        fclose(f);
        bool taken = decode(what, str_n(text, len), &why) == ERR_OK;
        if (taken != good) fail_msg("%s: %s %s", path, taken ? "taken" : "refused", why.text);
        if (!good && why.text[0] == '\0') fail_msg("%s: no reason", path);
        n++;
    }
    closedir(samples);
    return n;
}

static void good_samples_are_taken_and_bad_ones_refused_with_a_reason(void **state)
{
    static const char *const messages[] = { "lease_ask", "lease_reply", "policy_rejected",
                                            "instance_gone" };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(messages); i++) {
        assert_true(each_sample(messages[i], "good", true) >= 2);
        assert_true(each_sample(messages[i], "bad", false) >= 5);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_ask_comes_back_as_it_went),
        cmocka_unit_test(a_reply_comes_back_as_it_went),
        cmocka_unit_test(an_error_of_the_engine_is_handed_on),
        cmocka_unit_test(a_word_from_the_future_spoils_only_its_own_op),
        cmocka_unit_test(more_ops_than_fit_are_not_encoded),
        cmocka_unit_test(a_lease_lives_a_twentieth_of_its_window),
        cmocka_unit_test(a_refusal_comes_back_as_it_went),
        cmocka_unit_test(good_samples_are_taken_and_bad_ones_refused_with_a_reason),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
