/* SPDX-License-Identifier: Apache-2.0 */
/* What an edge says it would do with a sample request: as it would do it, step by step. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include <dirent.h>
#include <stdio.h>

#include "services/edge/ops/explain.h"

static const char *const parts[] = {
    "{\"kind\":\"namespaces\",\"items\":[{\"id\":\"n1\",\"slug\":\"team-a\"},{\"id\":\"n2\","
    "\"slug\":\"open\",\"auth\":\"none\"},{\"id\":\"n3\",\"slug\":\"tokens\",\"auth\":\"jwt\",\"claims\":{\"source\":\"claim\",\"name\":\"groups\",\"value\":\"red\"}}]}",
    "{\"kind\":\"upstreams\",\"items\":[{\"id\":\"u1\",\"slug\":\"mock\",\"servers\":[{\"id\":"
    "\"s1\",\"slug\":\"a\",\"url\":\"http://127.0.0.1:1\"}]}]}",
    "{\"kind\":\"matchers\",\"items\":[{\"id\":\"m1\",\"namespace\":\"n2\",\"slug\":\"by-header\","
    "\"when\":{\"source\":\"header\",\"name\":\"x-team\",\"value\":\"open\"}},{\"id\":\"m2\",\"namespace\":\"n2\",\"slug\":\"by-body\",\"when\":{\"source\":\"body\",\"name\":\"/metadata/team\",\"value\":\"open\"}},{\"id\":\"m3\",\"namespace\":\"n3\",\"slug\":\"by-issuer\",\"when\":{\"source\":\"claim\",\"name\":\"iss\",\"value\":\"corp\"}},{\"id\":\"m4\",\"namespace\":\"n3\",\"slug\":\"by-path\",\"when\":{\"source\":\"header\",\"name\":\"x-team\",\"value\":\"tokens\"}}]}",
    "{\"kind\":\"routes\",\"items\":[{\"id\":\"r1\",\"namespace\":\"n1\",\"slug\":\"v1\",\"path\":"
    "{\"prefix\":\"/v1/\"},\"methods\":[\"POST\"],\"upstream\":\"u1\"},{\"id\":\"r2\","
    "\"namespace\":\"n2\",\"slug\":\"all\",\"path\":{\"prefix\":\"/\"},\"upstream\":\"u1\"},{\"id\":\"r3\",\"namespace\":\"n3\",\"slug\":\"all\",\"path\":{\"prefix\":\"/\"},\"upstream\":\"u1\"}]}",
    "{\"kind\":\"models\",\"items\":[{\"id\":\"mo1\",\"slug\":\"big\",\"patterns\":[\"big-*\"],"
    "\"price\":{\"currency\":\"USD\",\"input_nano\":3,\"output_nano\":10}}]}",
    "{\"kind\":\"keys\",\"items\":[{\"id\":\"k1\",\"namespace\":\"n1\",\"slug\":\"k\",\"hmac\":"
    "\"00000000000000000000000000000000000000000000000000000000000000aa\",\"models\":[\"big-1\","
    "\"other\"]},{\"id\":\"k2\",\"namespace\":\"n1\",\"slug\":\"gone\",\"enabled\":false,\"hmac\":"
    "\"00000000000000000000000000000000000000000000000000000000000000bb\"}]}",
    "{\"kind\":\"policies\",\"items\":["
    "{\"id\":\"p1\",\"slug\":\"qps\",\"kind\":\"request_rate\",\"limit\":5,\"window\":\"1s\","
    "\"priority\":9},"
    "{\"id\":\"p2\",\"namespace\":\"n1\",\"slug\":\"tpm\",\"kind\":\"token_rate\",\"limit\":100,"
    "\"window\":\"1m\",\"per\":[\"key\",\"model\"],\"priority\":8},"
    "{\"id\":\"p3\",\"namespace\":\"n1\",\"slug\":\"usd\",\"kind\":\"quota\",\"limit\":1000,"
    "\"unit\":\"cost\",\"currency\":\"USD\",\"period\":\"day\",\"priority\":7},"
    "{\"id\":\"p4\",\"namespace\":\"n1\",\"slug\":\"office\",\"kind\":\"access\",\"rules\":"
    "[{\"effect\":\"allow\",\"networks\":[\"10.0.0.0/8\"]}],\"priority\":6},"
    "{\"id\":\"p5\",\"namespace\":\"n1\",\"slug\":\"prompt\",\"kind\":\"input_tokens\",\"limit\":"
    "50,\"mode\":\"shadow\",\"priority\":5},"
    "{\"id\":\"p6\",\"namespace\":\"n1\",\"slug\":\"answer\",\"kind\":\"output_tokens\",\"limit\":"
    "64,\"priority\":4},"
    "{\"id\":\"p7\",\"namespace\":\"n1\",\"slug\":\"small\",\"kind\":\"concurrency\",\"limit\":1,"
    "\"models\":[\"small-*\"],\"priority\":3},"
    "{\"id\":\"p8\",\"namespace\":\"n2\",\"slug\":\"others\",\"kind\":\"concurrency\",\"limit\":1}"
    "]}",
};

static struct ruleset rules;
static struct json *reply;

static int setup(void **state)
{
    (void)state;
    struct str texts[ARRAY_LEN(parts)];
    struct why why = { "" };
    for (size_t i = 0; i < ARRAY_LEN(parts); i++) texts[i] = str_of(parts[i]);
    if (snapshot_build(7, "d", texts, ARRAY_LEN(parts), &rules.snap, &why) != ERR_OK)
        fail_msg("%s", why.text);
    if (matching_new(rules.snap, &rules.matching, &why) != ERR_OK) fail_msg("%s", why.text);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    matching_free(rules.matching);
    snapshot_unref(rules.snap);
    json_free(reply);
    reply = NULL;
    return 0;
}

static enum err try_sample(const char *request, struct why *why)
{
    static const unsigned char hash_key[16] = { 1 };
    struct explain_env env = { .rules = &rules, .hash_key = hash_key, .plain_addresses = true };
    struct explain_ask ask;
    struct json *o;
    json_free(reply);
    reply = json_object();
    assert_int_equal(json_parse(str_of(request), 65536, &o, NULL), ERR_OK);
    assert_true(explain_read(o, &ask, NULL, NULL));
    enum err e = explain(&env, &ask, reply, why);
    json_free(o);
    return e;
}

static void sample(const char *request)
{
    struct why why = { "" };
    enum err e = try_sample(request, &why);
    if (e != ERR_OK) fail_msg("%s: %s %s", request, err_name(e), why.text);
}

static const char *slug_of(const char *name)
{
    struct str s = json_str(json_get(json_get(reply, name), "slug"));
    return s.p != NULL ? s.p : "-";
}

static uint64_t status(void)
{
    uint64_t n = 0;
    assert_int_equal(json_get_u64(reply, "status", &n), ERR_OK);
    return n;
}

static const struct json *policy(const char *slug)
{
    const struct json *it = json_first(json_get(reply, "policies"));
    while (it != NULL && !str_eqz(json_str(json_get(it, "slug")), slug)) it = json_next(it);
    return it;
}

static void expect_text(const char *slug, const char *member, const char *want)
{
    struct str s = json_str(json_get(policy(slug), member));
    if (!str_eqz(s, want)) fail_msg("%s %s: %.*s", slug, member, STR_ARG(s));
}

static uint64_t number(const char *slug, const char *member)
{
    uint64_t n = UINT64_MAX;
    assert_int_equal(json_get_u64(policy(slug), member, &n), ERR_OK);
    return n;
}

static void a_key_chooses_the_namespace(void **state)
{
    (void)state;
    sample("{\"target\":\"/v1/chat/completions\",\"key\":\"k1\",\"client_ip\":\"10.1.2.3\","
           "\"model\":\"big-1\",\"input_tokens\":60,\"output_tokens\":100}");
    assert_int_equal(status(), 200);
    assert_string_equal(slug_of("namespace"), "team-a");
    assert_true(str_eqz(json_str(json_get(json_get(reply, "namespace"), "chosen_by")), "key"));
    assert_string_equal(slug_of("route"), "v1");
    assert_string_equal(slug_of("upstream"), "mock");
    assert_string_equal(slug_of("model"), "big");
    assert_string_equal(slug_of("key"), "k");
}

static void each_policy_says_what_it_would_do(void **state)
{
    (void)state;
    sample("{\"target\":\"/v1/chat/completions\",\"key\":\"k1\",\"client_ip\":\"10.1.2.3\","
           "\"model\":\"big-1\",\"input_tokens\":60,\"output_tokens\":100}");
    assert_int_equal(json_len(json_get(reply, "policies")), 7);
    expect_text("qps", "verdict", "counter");
    expect_text("qps", "key", "ns=n1");
    assert_int_equal(number("qps", "units"), 1);
    expect_text("tpm", "key", "key=k1;model=mo1");
    assert_int_equal(number("tpm", "units"), 160);
    expect_text("usd", "unit", "cost");
    assert_int_equal(number("usd", "units"), 60 * 3 + 100 * 10);
    expect_text("office", "verdict", "passes");
    expect_text("prompt", "verdict", "refuses"); /* but it is in shadow mode */
    expect_text("answer", "verdict", "clamps");
    expect_text("small", "why", "it is for other models");
    assert_null(policy("others"));
}

static void what_refuses_says_why(void **state)
{
    (void)state;
    static const struct {
        const char *request, *why;
        uint64_t status;
    } rows[] = {
        { "{\"target\":\"/v1/x\",\"key\":\"k1\",\"client_ip\":\"192.0.2.1\"}",
          "policy office refuses it", 403 },
        { "{\"target\":\"/v1/x\",\"key\":\"k1\"}", "policy office refuses it", 403 },
        { "{\"target\":\"/v1/x\",\"key\":\"k2\"}", "the key, or its namespace, is disabled", 401 },
        { "{\"target\":\"/v1/x\",\"key\":\"nope\"}", "this edge has no such key", 401 },
        { "{\"target\":\"/v1/x\"}", "no key, no matcher holds, and there is no default namespace",
          404 },
        { "{\"target\":\"/v1/x\",\"key\":\"k1\",\"headers\":{\"X-Team\":\"open\"}}",
          "a matcher selects another namespace than the key's", 403 },
        { "{\"target\":\"/x\",\"key\":\"k1\",\"client_ip\":\"10.0.0.1\"}",
          "no route of the namespace takes this path", 404 },
        { "{\"target\":\"/v1/x\",\"method\":\"GET\",\"key\":\"k1\",\"client_ip\":\"10.0.0.1\"}",
          "no route of the namespace takes this method here", 405 },
        { "{\"target\":\"/v1/x\",\"key\":\"k1\",\"client_ip\":\"10.0.0.1\",\"model\":\"big-2\"}",
          "the key is not for this model", 403 },
        { "{\"target\":\"/v1/../x\",\"key\":\"k1\",\"client_ip\":\"10.0.0.1\"}",
          "the path can be read in two ways", 400 },
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        sample(rows[i].request);
        struct str why = json_str(json_get(reply, "why"));
        if (status() != rows[i].status || !str_eqz(why, rows[i].why))
            fail_msg("%s: %llu %.*s", rows[i].request, (unsigned long long)status(), STR_ARG(why));
    }
}

static void a_matcher_chooses_where_there_is_no_key(void **state)
{
    (void)state;
    sample("{\"target\":\"/any\",\"method\":\"GET\",\"headers\":{\"x-team\":\"open\"},"
           "\"client_ip\":\"2001:db8::1\"}");
    assert_int_equal(status(), 200);
    assert_string_equal(slug_of("namespace"), "open");
    assert_true(str_eqz(json_str(json_get(json_get(reply, "namespace"), "chosen_by")), "matcher"));
    assert_string_equal(slug_of("route"), "all");
    assert_true(json_is(json_get(reply, "key"), JSON_NULL));
}

static void what_http_does_not_allow_is_no_request(void **state)
{
    (void)state;
    struct why why = { "" };
    assert_int_equal(try_sample("{\"target\":\"/v1/x\",\"client_ip\":\"ten\"}", &why), ERR_INVALID);
    assert_int_equal(try_sample("{\"target\":\"/v1/x\",\"headers\":{\"Host\":\"a b\"}}", &why),
                     ERR_INVALID);
}

static int samples(bool good)
{
    char folder[128], path[512], text[8192];
    int n = 0;
    snprintf(folder, sizeof folder, "proto/samples/explain_ask/%s", good ? "good" : "bad");
    DIR *dir = opendir(folder);
    assert_non_null(dir);
    for (struct dirent *d; (d = readdir(dir)) != NULL;) {
        struct explain_ask ask;
        struct why why = { "" };
        if (!str_ends(str_of(d->d_name), STR(".json"))) continue;
        snprintf(path, sizeof path, "%s/%s", folder, d->d_name);
        FILE *f = fopen(path, "rb");
        size_t len = fread(text, 1, sizeof text, f);
        fclose(f);
        bool taken = explain_ask_decode(str_n(text, len), &ask, &why) == ERR_OK;
        if (taken != good) fail_msg("%s: %s", path, why.text);
        if (taken) explain_ask_done(&ask);
        n++;
    }
    closedir(dir);
    return n;
}

static void samples_are_what_they_are_called(void **state)
{
    (void)state;
    assert_int_equal(samples(true), 3);
    assert_int_equal(samples(false), 12);
}

static void bodies_and_claims_are_looked_at(void **state)
{
    static const struct {
        const char *sample;
        uint64_t status;
        const char *ns;
    } rows[] = {
        { "{\"target\":\"/x\",\"body\":{\"metadata\":{\"team\":\"open\"}}}", 200, "open" },
        { "{\"target\":\"/x\",\"body\":{\"metadata\":{\"team\":[\"a\",\"open\"]}}}", 200, "open" },
        { "{\"target\":\"/x\",\"body\":{\"metadata\":{\"team\":\"shut\"}}}", 404, "-" },
        { "{\"target\":\"/x\",\"body\":{\"Metadata\":{\"team\":\"open\"}}}", 400, "-" },
        { "{\"target\":\"/x\",\"claims\":{\"iss\":\"corp\",\"groups\":[\"red\"]}}", 200, "tokens" },
        { "{\"target\":\"/x\",\"claims\":{\"iss\":\"corp\",\"groups\":[\"blue\"]}}", 403,
          "tokens" },
        { "{\"target\":\"/x\",\"claims\":{\"iss\":\"other\"}}", 404, "-" },
        { "{\"target\":\"/x\",\"headers\":{\"x-team\":\"tokens\"}}", 401, "tokens" },
        { "{\"target\":\"/x\",\"headers\":{\"x-team\":\"open\"},\"claims\":{}}", 200, "open" },
    };
    struct explain_ask ask;
    struct json *o;
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        sample(rows[i].sample);
        if (status() != rows[i].status || strcmp(slug_of("namespace"), rows[i].ns) != 0)
            fail_msg("%s: %d %s", rows[i].sample, (int)status(), slug_of("namespace"));
    }
    sample("{\"target\":\"/v1/x\",\"key\":\"k1\",\"body\":{\"model\":\"big-1\"}}");
    assert_string_equal(slug_of("model"), "big");
    sample(
        "{\"target\":\"/v1/x\",\"key\":\"k1\",\"model\":\"other\",\"body\":{\"model\":\"big-1\"}}");
    assert_string_equal(slug_of("model"), "-");
    static const char *const bad[] = { "{\"target\":\"/x\",\"body\":\"x\"}",
                                       "{\"target\":\"/x\",\"claims\":[]}",
                                       "{\"target\":\"/x\",\"key\":\"k1\",\"claims\":{}}" };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        assert_int_equal(json_parse(str_of(bad[i]), 65536, &o, NULL), ERR_OK);
        assert_false(explain_read(o, &ask, NULL, NULL));
        json_free(o);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_key_chooses_the_namespace, setup, teardown),
        cmocka_unit_test_setup_teardown(each_policy_says_what_it_would_do, setup, teardown),
        cmocka_unit_test_setup_teardown(what_refuses_says_why, setup, teardown),
        cmocka_unit_test_setup_teardown(a_matcher_chooses_where_there_is_no_key, setup, teardown),
        cmocka_unit_test_setup_teardown(what_http_does_not_allow_is_no_request, setup, teardown),
        cmocka_unit_test(samples_are_what_they_are_called),
        cmocka_unit_test_setup_teardown(bodies_and_claims_are_looked_at, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
