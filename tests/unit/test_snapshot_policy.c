/* SPDX-License-Identifier: Apache-2.0 */
/* Policies of every kind: what each takes, with which defaults, and what the admin API says about
 * the rest. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <stdio.h>

#include "proto/snapshot.h"

static struct snapshot *snapshot;

/* The policy with these members, which is the snapshot's only one. */
static const struct snap_policy *policy(const char *members)
{
    char text[4096];
    struct why why = { "" };
    int n = snprintf(text, sizeof text,
                     "{\"kind\":\"policies\",\"namespace\":null,\"index\":0,\"items\":[{\"id\":"
                     "\"p\",\"slug\":\"p\",%s}]}",
                     members);
    struct str part = str_n(text, (size_t)n);
    snapshot_unref(snapshot);
    snapshot = NULL;
    if (snapshot_build(1, "d", &part, 1, &snapshot, &why) != ERR_OK) fail_msg("%s", why.text);
    return &snapshot->policies[0];
}

static int tear_down(void **state)
{
    (void)state;
    snapshot_unref(snapshot);
    snapshot = NULL;
    return 0;
}

struct seen {
    char text[2048];
};

static void note(void *ctx, const char *pointer, const char *message)
{
    struct seen *s = ctx;
    size_t n = strlen(s->text);
    (void)snprintf(s->text + n, sizeof s->text - n, "%s: %s\n", pointer, message);
}

/* What the admin API says about a policy with these members. */
static const char *said(const char *members)
{
    static struct seen seen;
    char text[4096];
    struct json *o;
    int n = snprintf(text, sizeof text, "{\"id\":\"p\",\"slug\":\"p\",%s}", members);
    assert_int_equal(json_parse(str_n(text, (size_t)n), sizeof text, &o, NULL), ERR_OK);
    seen.text[0] = '\0';
    snapshot_check_entity("policies", o, note, &seen);
    json_free(o);
    return seen.text;
}

static void rates_of_tokens_choose_like_rates_of_requests(void **state)
{
    (void)state;
    const struct snap_policy *p = policy("\"kind\":\"token_rate\",\"limit\":100,\"window\":\"1m\"");
    assert_int_equal(p->kind, SNAP_TOKEN_RATE);
    assert_int_equal(p->algorithm, SNAP_SLIDING);
    assert_int_equal(p->unit, SNAP_UNIT_TOKENS);
    assert_int_equal(p->count, SNAP_COUNT_TOTAL);
    p = policy("\"kind\":\"token_rate\",\"limit\":100,\"window\":\"5s\",\"count\":\"output\"");
    assert_int_equal(p->algorithm, SNAP_BUCKET);
    assert_int_equal(p->burst, 100);
    assert_int_equal(p->count, SNAP_COUNT_OUTPUT);
    assert_true(snap_policy_is_leased(p));
}

static void quotas_are_of_the_calendar(void **state)
{
    (void)state;
    const struct snap_policy *p = policy("\"kind\":\"quota\",\"limit\":7,\"period\":\"day\"");
    assert_int_equal(p->algorithm, SNAP_FIXED);
    assert_int_equal(p->unit, SNAP_UNIT_TOKENS);
    assert_int_equal(p->period, SNAP_PERIOD_DAY);
    assert_true(str_eqz(p->timezone, "UTC"));
    assert_int_equal(p->window_ms, 25 * 3600 * 1000);
    assert_true(snap_policy_is_leased(p));
    p = policy(
        "\"kind\":\"quota\",\"limit\":9000000000000000,\"period\":\"month\",\"unit\":\"cost\","
        "\"currency\":\"EUR\",\"timezone\":\"Europe/Berlin\"");
    assert_int_equal(p->unit, SNAP_UNIT_COST);
    assert_true(p->limit == 9000000000000000);
    assert_true(str_eqz(p->currency, "EUR") && str_eqz(p->timezone, "Europe/Berlin"));
    p = policy("\"kind\":\"quota\",\"limit\":7,\"period\":\"week\",\"unit\":\"requests\"");
    assert_int_equal(p->unit, SNAP_UNIT_REQUESTS);
}

static void counters_are_kept_per_what_is_listed(void **state)
{
    (void)state;
    const struct snap_policy *p = policy(
        "\"kind\":\"concurrency\",\"limit\":3,\"per\":[\"ip\",\"header:X-Team\",\"header:x-b\","
        "\"user\"],\"strict\":true");
    assert_int_equal(p->per_n, 4);
    assert_int_equal(p->per[0], SNAP_PER_IP);
    assert_int_equal(p->ipv6_prefix, 64);
    assert_int_equal(p->per[1], SNAP_PER_HEADER);
    assert_true(str_eqz(p->per_header[1], "x-team") && str_eqz(p->per_header[2], "x-b"));
    assert_int_equal(p->per[3], SNAP_PER_USER);
    assert_true(p->strict);
}

static bool network_has(const char *network, const char *address)
{
    unsigned char bytes[16] = { [10] = 0xff, [11] = 0xff };
    struct snap_network n;
    const char *problem = snap_network_parse(str_of(network), &n);
    if (problem != NULL) fail_msg("%s %s", network, problem);
    if (inet_pton(AF_INET, address, bytes + 12) != 1)
        assert_int_equal(inet_pton(AF_INET6, address, bytes), 1);
    return snap_network_has(&n, bytes);
}

static void networks_hold_addresses(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",           "10.0.0.0/33", "10.0.0.1/8",   "10.0.0/8",
        "10.0.0.0/",  "10.0.0.0/-1", "10.0.0.0/08x", "::/129",
        "fe80::1%lo", "a.example",   "1.2.3.4:80",   "2001:db8::1/32"
    };
    struct snap_network n;
    assert_true(network_has("10.0.0.0/8", "10.255.0.1"));
    assert_false(network_has("10.0.0.0/8", "11.0.0.1"));
    assert_true(network_has("192.0.2.128/25", "192.0.2.129"));
    assert_false(network_has("192.0.2.128/25", "192.0.2.127"));
    assert_true(network_has("192.0.2.7", "192.0.2.7"));
    assert_false(network_has("192.0.2.7", "192.0.2.6"));
    assert_true(network_has("0.0.0.0/0", "203.0.113.9"));
    assert_false(network_has("0.0.0.0/0", "2001:db8::1"));
    assert_true(network_has("::/0", "2001:db8::1"));
    assert_true(network_has("::ffff:10.0.0.0/104", "10.1.2.3"));
    assert_true(network_has("2001:db8:8000::/33", "2001:db8:ffff::1"));
    assert_false(network_has("2001:db8:8000::/33", "2001:db8:7fff::1"));
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        if (snap_network_parse(str_of(bad[i]), &n) == NULL) fail_msg("taken: %s", bad[i]);
}

static void lists_of_what_is_allowed_deny_the_rest(void **state)
{
    (void)state;
    const struct snap_policy *p = policy(
        "\"kind\":\"access\",\"rules\":[{\"effect\":\"deny\",\"models\":[\"gpt-*\"]},{\"effect\":"
        "\"allow\",\"networks\":[\"10.0.0.0/8\",\"::1\"],\"paths\":[\"/v1/*\"],\"methods\":"
        "[\"POST\"]}]");
    assert_int_equal(p->rules_n, 2);
    assert_false(p->rules[0].allow);
    assert_int_equal(p->rules[0].models.n, 1);
    assert_true(p->rules[1].allow);
    assert_int_equal(p->rules[1].networks_n, 2);
    assert_int_equal(p->rules[1].networks[0].bits, 104);
    assert_false(p->otherwise_allow);
    assert_false(snap_policy_is_leased(p));
    p = policy("\"kind\":\"access\",\"rules\":[{\"effect\":\"deny\",\"paths\":[\"*/files\"]}]");
    assert_true(p->otherwise_allow);
    p = policy("\"kind\":\"access\",\"rules\":[{\"effect\":\"deny\"}],\"otherwise\":\"deny\"");
    assert_false(p->otherwise_allow);
}

static void patterns_match_runs(void **state)
{
    (void)state;
    assert_true(snap_glob(STR("/v1/*"), STR("/v1/chat/completions"), false));
    assert_false(snap_glob(STR("/v1/*"), STR("/v2/"), false));
    assert_true(snap_glob(STR("*mini*"), STR("GPT-5-MINI-x"), true));
    assert_false(snap_glob(STR("*mini*"), STR("GPT-5-MINI-x"), false));
    assert_true(snap_glob(STR(""), STR(""), false));
    assert_true(snap_glob(STR("**"), STR(""), false));
    assert_false(snap_glob(STR(""), STR("a"), false));
}

/* Each names the field and what to do. */
static void the_admin_api_says_where_a_member_belongs(void **state)
{
    (void)state;
    static const struct {
        const char *members, *says;
    } bad[] = {
        { "\"kind\":\"concurrency\",\"limit\":1,\"window\":\"1s\"",
          "/window: is of request_rate and token_rate only" },
        { "\"kind\":\"quota\",\"limit\":1,\"window\":\"1d\",\"period\":\"day\"",
          "a quota has a period" },
        { "\"kind\":\"quota\",\"limit\":1", "/period: is required" },
        { "\"kind\":\"quota\",\"limit\":1,\"period\":\"year\"",
          "/period: must be one of: hour, day, week, month" },
        { "\"kind\":\"quota\",\"limit\":1,\"period\":\"day\",\"timezone\":\"Mars/Olympus\"",
          "/timezone: must be a name of the IANA time zone database" },
        { "\"kind\":\"quota\",\"limit\":1,\"period\":\"day\",\"timezone\":\"../../etc/passwd\"",
          "/timezone: " },
        { "\"kind\":\"quota\",\"limit\":1,\"period\":\"day\",\"unit\":\"cost\"",
          "/currency: is required" },
        { "\"kind\":\"quota\",\"limit\":1,\"period\":\"day\",\"unit\":\"cost\",\"currency\":"
          "\"usd\"",
          "/currency: must be three capital letters" },
        { "\"kind\":\"quota\",\"limit\":1,\"period\":\"day\",\"currency\":\"USD\"",
          "/currency: is of quotas" },
        { "\"kind\":\"quota\",\"limit\":1,\"period\":\"day\",\"unit\":\"requests\",\"count\":"
          "\"input\"",
          "/count: is of tokens only" },
        { "\"kind\":\"request_rate\",\"limit\":1,\"window\":\"1m\",\"burst\":3",
          "/burst: is a bucket's only" },
        { "\"kind\":\"request_rate\",\"limit\":1,\"window\":\"1m\",\"count\":\"input\"",
          "/count: is of token_rate" },
        { "\"kind\":\"token_rate\",\"limit\":1", "/window: is required" },
        { "\"kind\":\"access\"", "/rules: must be a list of 1 to 64 rules" },
        { "\"kind\":\"access\",\"rules\":[]", "/rules: must be" },
        { "\"kind\":\"access\",\"rules\":[{\"models\":[\"a\"]}]", "/rules/0/effect: is required" },
        { "\"kind\":\"access\",\"rules\":[{\"effect\":\"deny\",\"network\":[\"::1\"]}]",
          "/rules/0/network: is not known" },
        { "\"kind\":\"access\",\"rules\":[{\"effect\":\"deny\",\"networks\":[\"10.0.0.1/8\"]}]",
          "/rules/0/networks/0: has bits set behind its prefix length" },
        { "\"kind\":\"access\",\"rules\":[{\"effect\":\"deny\",\"paths\":[\"v1/*\"]}]",
          "/rules/0/paths/0: must begin with / or *" },
        { "\"kind\":\"access\",\"rules\":[{\"effect\":\"deny\"}],\"limit\":1",
          "/limit: access has rules instead" },
        { "\"kind\":\"access\",\"rules\":[{\"effect\":\"deny\"}],\"models\":[\"a\"]",
          "/models: access names models in its rules" },
        { "\"kind\":\"body_size\",\"limit\":1,\"models\":[\"a\"]", "/models: a body is bounded" },
        { "\"kind\":\"body_size\",\"limit\":1,\"per\":[\"key\"]",
          "/per: each request is bounded by itself" },
        { "\"kind\":\"input_tokens\",\"limit\":1,\"on_unavailable\":\"deny\"",
          "/on_unavailable: input_tokens needs no policy engine" },
        { "\"kind\":\"request_rate\",\"limit\":1,\"window\":\"1s\",\"strict\":true",
          "/strict: is of concurrency only" },
        { "\"kind\":\"concurrency\",\"limit\":1,\"per\":[\"key\",\"key\"]",
          "/per/1: is named twice" },
        { "\"kind\":\"concurrency\",\"limit\":1,\"per\":[\"header:\"]", "/per/0: must be header:" },
        { "\"kind\":\"concurrency\",\"limit\":1,\"ipv6_prefix\":64", "/ipv6_prefix: is for" },
        { "\"kind\":\"concurrency\",\"limit\":1,\"per\":[\"ip\"],\"ipv6_prefix\":200",
          "/ipv6_prefix: must be a whole number from 16 to 128" },
    };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        const char *text = said(bad[i].members);
        if (strstr(text, bad[i].says) == NULL) fail_msg("%s: %s", bad[i].members, text);
    }
}

static void the_admin_api_takes_what_is_right(void **state)
{
    (void)state;
    static const char *const good[] = {
        "\"kind\":\"quota\",\"limit\":1,\"period\":\"hour\",\"timezone\":\"Asia/Kathmandu\"",
        "\"kind\":\"quota\",\"limit\":1,\"period\":\"day\",\"unit\":\"cost\",\"currency\":\"USD\","
        "\"per\":[\"key\"],\"on_unavailable\":\"share\",\"strict\":false,\"models\":[]",
        "\"kind\":\"access\",\"rules\":[{\"effect\":\"allow\",\"models\":[\"a\"]}],\"strict\":"
        "false,\"on_unavailable\":\"share\",\"models\":[]",
        "\"kind\":\"body_size\",\"limit\":1048576,\"mode\":\"shadow\"",
        "\"kind\":\"input_tokens\",\"limit\":10,\"models\":[\"qwen*\"]",
        "\"kind\":\"token_rate\",\"limit\":10,\"window\":\"1s\",\"burst\":20,\"per\":[\"user\"]",
    };
    for (size_t i = 0; i < ARRAY_LEN(good); i++) {
        const char *text = said(good[i]);
        if (text[0] != '\0') fail_msg("%s: %s", good[i], text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rates_of_tokens_choose_like_rates_of_requests),
        cmocka_unit_test(quotas_are_of_the_calendar),
        cmocka_unit_test(counters_are_kept_per_what_is_listed),
        cmocka_unit_test(networks_hold_addresses),
        cmocka_unit_test(lists_of_what_is_allowed_deny_the_rest),
        cmocka_unit_test(patterns_match_runs),
        cmocka_unit_test(the_admin_api_says_where_a_member_belongs),
        cmocka_unit_test(the_admin_api_takes_what_is_right),
    };
    return cmocka_run_group_tests(tests, NULL, tear_down);
}
