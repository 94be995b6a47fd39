/* SPDX-License-Identifier: Apache-2.0 */
/* Keys of counters, and the limits that need none: body_size, access, input and output tokens. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "services/edge/limits/admit_list.h"
#include "services/edge/limits/admit_local.h"

static const unsigned char hash_key[16] = "0123456789abcdef";
static const struct snap_namespace ns = { .id = { "ns-1", 4 }, .slug = { "team", 4 } };
static const struct snap_key key = { .id = { "key-1", 5 }, .ns = &ns };
static const struct snap_upstream upstream = { .id = { "up-1", 4 } };
static const struct snap_model qwen = { .id = { "model-1", 7 },
                                        .slug = { "qwen", 4 },
                                        .name = { "Qwen3-8B", 8 } };

static void set_address(struct admit_subject *s, const char *text)
{
    struct snap_network n;
    assert_null(snap_network_parse(str_of(text), &n));
    memcpy(s->address, n.address, sizeof s->address);
    s->has_address = true;
}

static void expect_key(const struct admit_subject *s, const struct snap_policy *p, bool plain,
                       const char *want)
{
    struct admit_keys k;
    char out[ADMIT_KEY_ROOM];
    admit_keys_init(&k, s, hash_key, plain);
    struct str got = admit_key(&k, p, out);
    if (!str_eqz(got, want)) fail_msg("%.*s instead of %s", STR_ARG(got), want);
    /* the second time from what was made */
    assert_true(str_eqz(admit_key(&k, p, out), want));
}

static void a_key_has_what_its_policy_counts_by(void **state)
{
    struct admit_subject s = { .ns = &ns,
                               .key = &key,
                               .upstream = &upstream,
                               .model = STR("qwen3-8b"),
                               .model_known = &qwen };
    struct snap_policy p = { .per = { SNAP_PER_NAMESPACE, SNAP_PER_KEY, SNAP_PER_MODEL,
                                      SNAP_PER_UPSTREAM },
                             .per_n = 4,
                             .ipv6_prefix = 64 };
    struct snap_policy by_ip = { .per = { SNAP_PER_IP }, .per_n = 1, .ipv6_prefix = 64 };
    (void)state;
    expect_key(&s, &p, true, "ns=ns-1;key=key-1;model=model-1;up=up-1");
    set_address(&s, "203.0.113.7");
    expect_key(&s, &by_ip, true, "ip=203.0.113.7");
    set_address(&s, "2001:db8:1:2:3:4:5:6");
    expect_key(&s, &by_ip, true, "ip=2001:db8:1:2::/64");
    by_ip.ipv6_prefix = 52;
    set_address(&s, "2001:db8:1:2fff::1");
    expect_key(&s, &by_ip, true, "ip=2001:db8:1:2000::/52");
    by_ip.ipv6_prefix = 128;
    expect_key(&s, &by_ip, true, "ip=2001:db8:1:2fff::1");
}

static void what_is_missing_has_a_counter_of_its_own(void **state)
{
    struct admit_subject s = { .ns = &ns };
    struct snap_policy p = { .per = { SNAP_PER_KEY, SNAP_PER_MODEL, SNAP_PER_UPSTREAM, SNAP_PER_IP,
                                      SNAP_PER_USER, SNAP_PER_HEADER },
                             .per_n = 6 };
    (void)state;
    p.per_header[5] = STR("x-team");
    expect_key(&s, &p, true, "key=-;model=-;up=-;ip=-;user=-;header:x-team=-");
    expect_key(&s, &(struct snap_policy){ .per_n = 0 }, true, "all=1");
}

static void what_clients_say_is_hashed(void **state)
{
    struct h1_head head = { .fields_len = 2 };
    struct admit_subject s = { .ns = &ns, .model = STR("no=such;model"), .head = &head };
    struct snap_policy p = { .per = { SNAP_PER_MODEL, SNAP_PER_HEADER }, .per_n = 2 };
    struct admit_keys k;
    char a[ADMIT_KEY_ROOM], b[ADMIT_KEY_ROOM];
    (void)state;
    p.per_header[1] = STR("x-team");
    head.fields[0] = (struct h1_field){ STR("accept"), STR("*/*"), H1_ACCEPT };
    head.fields[1] = (struct h1_field){ STR("X-Team"), STR("red;ns=ns-2"), H1_UNKNOWN };
    admit_keys_init(&k, &s, hash_key, false);
    struct str one = admit_key(&k, &p, a);
    assert_false(str_contains(one, STR("such")) || str_contains(one, STR("red")));
    assert_true(str_starts(one, STR("model=h:")) && str_contains(one, STR(";header:x-team=h:")));
    head.fields[1].value = STR("blue");
    admit_keys_init(&k, &s, hash_key, false);
    assert_false(str_eq(one, admit_key(&k, &p, b)));
    /* an address is not for everybody's eyes either, unless the setting says so */
    set_address(&s, "203.0.113.7");
    p.per_n = 1, p.per[0] = SNAP_PER_IP;
    admit_keys_init(&k, &s, hash_key, false);
    assert_true(str_starts(admit_key(&k, &p, b), STR("ip=h:")));
}

static void a_long_key_ends_in_a_hash_of_the_whole(void **state)
{
    static char name[64];
    struct h1_head head = { .fields_len = 1 };
    struct admit_subject s = { .ns = &ns, .head = &head };
    struct snap_policy p = { .per_n = SNAP_PER_MAX };
    struct admit_keys k;
    char a[ADMIT_KEY_ROOM], b[ADMIT_KEY_ROOM];
    (void)state;
    memset(name, 'x', sizeof name);
    for (size_t i = 0; i < SNAP_PER_MAX; i++) {
        p.per[i] = SNAP_PER_HEADER;
        p.per_header[i] = str_n(name, sizeof name - i);
    }
    head.fields[0] = (struct h1_field){ str_n(name, sizeof name - 5), STR("one"), H1_UNKNOWN };
    admit_keys_init(&k, &s, hash_key, false);
    struct str one = admit_key(&k, &p, a);
    head.fields[0].value = STR("two");
    admit_keys_init(&k, &s, hash_key, false);
    struct str two = admit_key(&k, &p, b);
    assert_true(one.n <= LEASE_KEY_MAX && two.n == one.n);
    assert_false(str_eq(one, two));
}

/* --- the kinds --- */

static void a_body_is_bound_by_the_smallest_limit_that_is_for_it(void **state)
{
    struct str only_qwen[] = { STR("QWEN*") };
    const struct snap_policy a = { .kind = SNAP_BODY_SIZE, .limit = 1000 },
                             b = { .kind = SNAP_BODY_SIZE,
                                   .limit = 100,
                                   .models = { only_qwen, 1 } },
                             c = { .kind = SNAP_BODY_SIZE, .limit = 10, .shadow = true },
                             d = { .kind = SNAP_INPUT_TOKENS, .limit = 1 };
    const struct snap_policy *all[] = { &d, &a, &b, &c }, *bound;
    struct admit_list l = { all, 4 };
    struct admit_subject s = { .ns = &ns };
    struct admit_check check;
    (void)state;
    assert_true(admit_body_bound(&l, &bound) && bound == &a);
    assert_false(admit_body_bound(NULL, &bound));
    admit_body_size(&l, &s, 500, &check);
    assert_null(check.policy);
    assert_true(check.shadow_n == 1 && check.shadow[0] == &c);
    s.model = STR("alias"), s.model_known = &qwen;
    admit_body_size(&l, &s, 101, &check);
    assert_ptr_equal(check.policy, &b);
    assert_int_equal(check.used, 101);
    admit_body_size(&l, &s, 10, &check);
    assert_true(check.policy == NULL && check.shadow_n == 0);
    admit_input_tokens(&l, &s, 2, &check);
    assert_ptr_equal(check.policy, &d);
    admit_input_tokens(&l, &s, 1, &check);
    assert_null(check.policy);
}

static void the_first_rule_that_matches_decides(void **state)
{
    struct str qwens[] = { STR("qwen*") }, v1[] = { STR("/v1/*") }, get[] = { STR("GET") };
    struct snap_network inside;
    assert_null(snap_network_parse(STR("10.0.0.0/8"), &inside));
    const struct snap_rule rules[] = {
        { .allow = false, .methods = { get, 1 } },
        { .allow = true, .models = { qwens, 1 }, .paths = { v1, 1 } },
        { .allow = false, .models = { qwens, 1 } },
        { .allow = true, .networks = &inside, .networks_n = 1 },
    };
    const struct snap_policy p = { .kind = SNAP_ACCESS, .rules = rules, .rules_n = 4 };
    const struct snap_policy *all[] = { &p };
    struct admit_list l = { all, 1 };
    static const struct {
        const char *method, *path, *model, *address;
        bool pending, refused;
    } rows[] = {
        { "POST", "/v1/chat/completions", "Qwen3-8B", "192.0.2.1", false, false },
        { "GET", "/v1/chat/completions", "Qwen3-8B", "10.0.0.1", false, true },
        { "GET", "/v1/x", "", "10.0.0.1", true, true }, /* needs no model */
        { "POST", "/api/chat", "Qwen3-8B", "10.0.0.1", false, true },
        { "POST", "/api/chat", "gpt", "10.200.0.1", false, false },
        { "POST", "/api/chat", "gpt", "11.0.0.1", false, true },
        { "POST", "/v1/chat/completions", "", "11.0.0.1", true, false }, /* not yet */
        { "POST", "/v1/chat/completions", "", "11.0.0.1", false, true },
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct admit_subject s = { .ns = &ns, .model = str_of(rows[i].model) };
        struct admit_check check;
        set_address(&s, rows[i].address);
        admit_access(&l, &s, str_of(rows[i].method), str_of(rows[i].path), rows[i].pending, &check);
        if ((check.policy == &p) != rows[i].refused) fail_msg("row %zu", i);
    }
}

static void all_access_policies_must_agree_and_shadows_only_tell(void **state)
{
    const struct snap_policy yes = { .kind = SNAP_ACCESS, .otherwise_allow = true },
                             no = { .kind = SNAP_ACCESS },
                             shadow = { .kind = SNAP_ACCESS, .shadow = true };
    const struct snap_policy *all[] = { &yes, &shadow, &no };
    struct admit_list l = { all, 2 };
    struct admit_subject s = { .ns = &ns };
    struct admit_check check;
    (void)state;
    admit_access(&l, &s, STR("POST"), STR("/"), false, &check);
    assert_true(check.policy == NULL && check.shadow_n == 1 && check.shadow[0] == &shadow);
    l.n = 3;
    admit_access(&l, &s, STR("POST"), STR("/"), false, &check);
    assert_ptr_equal(check.policy, &no);
}

static void the_smallest_output_limit_counts(void **state)
{
    struct str others[] = { STR("gpt*") };
    const struct snap_policy a = { .kind = SNAP_OUTPUT_TOKENS, .limit = 50 },
                             b = { .kind = SNAP_OUTPUT_TOKENS, .limit = 40, .shadow = true },
                             c = { .kind = SNAP_OUTPUT_TOKENS,
                                   .limit = 5,
                                   .models = { others, 1 } };
    const struct snap_policy *all[] = { &a, &b, &c }, *p, *shadow;
    struct admit_list l = { all, 3 };
    struct admit_subject s = { .ns = &ns, .model = STR("qwen") };
    (void)state;
    admit_output_tokens(&l, &s, &p, &shadow);
    assert_true(p == &a && shadow == &b);
    admit_output_tokens(NULL, &s, &p, &shadow);
    assert_true(p == NULL && shadow == NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_key_has_what_its_policy_counts_by),
        cmocka_unit_test(what_is_missing_has_a_counter_of_its_own),
        cmocka_unit_test(what_clients_say_is_hashed),
        cmocka_unit_test(a_long_key_ends_in_a_hash_of_the_whole),
        cmocka_unit_test(a_body_is_bound_by_the_smallest_limit_that_is_for_it),
        cmocka_unit_test(the_first_rule_that_matches_decides),
        cmocka_unit_test(all_access_policies_must_agree_and_shadows_only_tell),
        cmocka_unit_test(the_smallest_output_limit_counts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
