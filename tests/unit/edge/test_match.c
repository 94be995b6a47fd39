/* SPDX-License-Identifier: Apache-2.0 */
/* Which namespace and route a request belongs to, and which paths are refused because servers read
 * them differently. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "services/edge/dialects/dialect.h"
#include "services/edge/match/match.h"
#include "support_match.h"

static void parse(const char *text, struct h1_request *q)
{
    static const struct h1_limits limits = H1_LIMITS_DEFAULT;
    struct h1_error why;
    memset(q, 0, sizeof *q);
    assert_int_equal(h1_parse_request(text, strlen(text), &limits, q, &why), H1_DONE);
}

static void paths_that_all_servers_read_alike(void **state)
{
    static const char *const good[] = { "/",      "/v1/chat/completions",
                                        "/v1/",   "/a.b/..c/c../...",
                                        "/a%20b", "/%E4%BD%A0",
                                        "/a;b=c", "/v1/models/a:b@c" };
    static const char *const bad[] = { "",        "v1",        "*",       "//",      "/a//b",
                                       "/.",      "/..",       "/a/./b",  "/a/../b", "/a/..",
                                       "/%2e",    "/a/%2E%2e", "/.%2e/b", "/a%2fb",  "/a%2Fb",
                                       "/a%00",   "/a%5cb",    "/a\\b",   "/a%",     "/a%2",
                                       "/a%zz",   "/..;/b",    "/.;x=1",  "/a/;x/b", "/a/;",
                                       "/%63hat", "/ch%41t",   "/a%2Db",  "/a%7Eb",  "/a/..%3bx" };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(good); i++) assert_true(match_path_is_plain(str_of(good[i])));
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        if (match_path_is_plain(str_of(bad[i]))) fail_msg("taken: %s", bad[i]);
}

static void the_endpoint_of_a_path_however_it_is_spelled(void **state)
{
    static const struct {
        const char *path;
        enum snap_endpoint ep;
    } rows[] = {
        { "/v1/chat/completions", SNAP_EP_CHAT },
        { "/v1/chat/completions/", SNAP_EP_CHAT },
        { "/V1/Chat/Completions", SNAP_EP_CHAT },
        { "/v1/chat/completions;x=1", SNAP_EP_CHAT },
        { "/v1/completions", SNAP_EP_COMPLETIONS },
        { "/v1/embeddings", SNAP_EP_EMBEDDINGS },
        { "/v1/responses/", SNAP_EP_RESPONSES },
        { "/v1/messages", SNAP_EP_MESSAGES },
        { "/v1/messages/count_tokens", SNAP_EP_COUNT_TOKENS },
        { "/v1/threads/t1/messages", SNAP_EP_PASSTHROUGH },
        { "/v1/models", SNAP_EP_MODELS },
        { "/v1/models/m", SNAP_EP_PASSTHROUGH },
        { "/completion", SNAP_EP_PASSTHROUGH },
        { "/", SNAP_EP_PASSTHROUGH },
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        if (endpoint_of_path(str_of(rows[i].path)) != rows[i].ep) fail_msg("%s", rows[i].path);
    assert_ptr_equal(dialect_of_path(STR("/v1/messages/count_tokens")), &dialect_anthropic);
    assert_ptr_equal(dialect_of_path(STR("/v1/messages")), &dialect_anthropic);
    assert_ptr_equal(dialect_of_path(STR("/v1/chat/completions")), &dialect_openai);
}

static struct snap_namespace spaces[] = {
    { .slug = { "a", 1 }, .enabled = true },
    { .slug = { "b", 1 }, .enabled = true },
    { .slug = { "rest", 4 }, .enabled = true, .is_default = true },
};

static struct snap_cond test_of(enum snap_source source, const char *name, enum snap_op op,
                                const struct str *values, size_t n)
{
    return (struct snap_cond){ .kind = SNAP_COND_TEST,
                               .source = source,
                               .name = str_of(name),
                               .op = op,
                               .values = { values, n } };
}

static struct matching *compile(const struct snapshot *s)
{
    struct matching *m = NULL;
    struct why why = { "" };
    if (matching_new(s, &m, &why) != ERR_OK) fail_msg("%s", why.text);
    return m;
}

/* Whether a condition holds: as that of the only matcher. */
static bool holds(const struct snap_cond *c, const struct match_input *in)
{
    struct snap_matcher one = { .ns = &spaces[0], .when = c };
    struct snapshot s = {
        .namespaces = spaces, .namespaces_n = 2, .matchers = &one, .matchers_n = 1
    };
    struct matching *m = compile(&s);
    struct match_space space = match_namespace(m, in);
    matching_free(m);
    return space.ns == &spaces[0];
}

static void conditions(void **state)
{
    struct h1_request q;
    struct snap_network networks[2];
    const struct str x[] = { STR("x") }, xy[] = { STR("y"), STR("x") },
                     host[] = { STR("API.example") }, prefix[] = { STR("/v1/") },
                     two[] = { STR("10.0.0.0/8"), STR("2001:db8::/32") },
                     key[] = { STR("key-slug") }, key_id[] = { STR("key-id") },
                     regex[] = { STR("^x-(l|s)") }, dots[] = { STR(".EXAMPLE") };
    static const unsigned char v4[16] = { [10] = 0xff, [11] = 0xff, 10, 1, 2, 3 };
    const struct snap_key presented = { .id = STR("key-id"), .slug = STR("key-slug") };
    (void)state;
    parse("POST /v1/a?tier=x&empty&other=1 HTTP/1.1\r\nHost: api.EXAMPLE.:8081\r\n"
          "X-Channel: x\r\n\r\n",
          &q);
    struct match_input in;
    match_input_init(&in, &q);
    in.body_known = true;
    in.model = STR("x-large");
    in.key = &presented;
    in.address = v4;
    for (int i = 0; i < 2; i++) assert_null(snap_network_parse(two[i], &networks[i]));
    struct {
        struct snap_cond c;
        bool holds;
    } rows[] = {
        { test_of(SNAP_SRC_HEADER, "x-channel", SNAP_OP_EQUALS, x, 1), true },
        { test_of(SNAP_SRC_HEADER, "x-channel", SNAP_OP_IN, xy, 2), true },
        { test_of(SNAP_SRC_HEADER, "x-other", SNAP_OP_EXISTS, NULL, 0), false },
        { test_of(SNAP_SRC_QUERY, "tier", SNAP_OP_EQUALS, x, 1), true },
        { test_of(SNAP_SRC_QUERY, "empty", SNAP_OP_EXISTS, NULL, 0), true },
        { test_of(SNAP_SRC_QUERY, "ier", SNAP_OP_EXISTS, NULL, 0), false },
        { test_of(SNAP_SRC_HOST, "", SNAP_OP_EQUALS, host, 1), true },
        { test_of(SNAP_SRC_HOST, "", SNAP_OP_SUFFIX, dots, 1), true },
        { test_of(SNAP_SRC_PATH, "", SNAP_OP_PREFIX, prefix, 1), true },
        { test_of(SNAP_SRC_MODEL, "", SNAP_OP_PREFIX, x, 1), true },
        { test_of(SNAP_SRC_MODEL, "", SNAP_OP_SUFFIX, x, 1), false },
        { test_of(SNAP_SRC_MODEL, "", SNAP_OP_REGEX, regex, 1), true },
        { test_of(SNAP_SRC_PATH, "", SNAP_OP_REGEX, regex, 1), false },
        { test_of(SNAP_SRC_METHOD, "", SNAP_OP_CONTAINS, x, 1), false },
        { test_of(SNAP_SRC_CLIENT_IP, "", SNAP_OP_IN, two, 2), true },
        { test_of(SNAP_SRC_CLIENT_IP, "", SNAP_OP_EQUALS, two + 1, 1), false },
        { test_of(SNAP_SRC_KEY, "", SNAP_OP_EQUALS, key, 1), true },
        { test_of(SNAP_SRC_KEY, "", SNAP_OP_EQUALS, key_id, 1), true },
        { test_of(SNAP_SRC_KEY, "", SNAP_OP_EQUALS, x, 1), false },
        { test_of(SNAP_SRC_CLAIM, "/sub", SNAP_OP_EXISTS, NULL, 0), false },
        { test_of(SNAP_SRC_BODY, "/user", SNAP_OP_EXISTS, NULL, 0), false },
    };
    rows[14].c.networks = networks;
    rows[15].c.networks = networks + 1;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct snap_cond no = { .kind = SNAP_COND_NOT, .children = &rows[i].c, .children_n = 1 };
        if (holds(&rows[i].c, &in) != rows[i].holds) fail_msg("condition %zu", i);
        if (holds(&no, &in) == rows[i].holds) fail_msg("not condition %zu", i);
    }
    const struct snap_cond both[] = { rows[0].c, rows[2].c };
    struct snap_cond all = { .kind = SNAP_COND_ALL, .children = both, .children_n = 2 };
    struct snap_cond any = { .kind = SNAP_COND_ANY, .children = both, .children_n = 2 };
    assert_false(holds(&all, &in));
    assert_true(holds(&any, &in));
    all.children_n = any.children_n = 0;
    assert_true(holds(&all, &in));
    assert_false(holds(&any, &in));
    /* Without a model, an address or a key there is nothing to compare. */
    in.model = STR_NULL;
    in.address = NULL;
    in.key = NULL;
    assert_false(holds(&rows[9].c, &in));
    assert_false(holds(&rows[14].c, &in));
    assert_false(holds(&rows[16].c, &in));
}

static void members_of_bodies_and_claims_of_tokens(void **state)
{
    struct h1_request q;
    struct match_input in;
    struct match_values values[2];
    struct arena a;
    struct js_val found[2];
    const struct str team[] = { STR("caf\xc3\xa9") }, seven[] = { STR("7") };
    (void)state;
    parse("GET / HTTP/1.1\r\nHost: h\r\n\r\n", &q);
    arena_init(&a, 65536);
    const struct snap_cond both[] = {
        test_of(SNAP_SRC_BODY, "/metadata/team", SNAP_OP_EQUALS, team, 1),
        test_of(SNAP_SRC_BODY, "/n", SNAP_OP_EQUALS, seven, 1),
    };
    struct snap_cond all = { .kind = SNAP_COND_ALL, .children = both, .children_n = 2 };
    struct snap_matcher one = { .ns = &spaces[0], .when = &all };
    struct snapshot s = {
        .namespaces = spaces, .namespaces_n = 2, .matchers = &one, .matchers_n = 1
    };
    static const struct {
        const char *body;
        bool holds;
    } rows[] = {
        { "{\"n\":7,\"metadata\":{\"team\":\"caf\\u00e9\"}}", true },
        { "{\"n\":\"7\",\"metadata\":{\"team\":[1,\"x\",\"caf\xc3\xa9\"]}}", true },
        { "{\"n\":7.0,\"metadata\":{\"team\":\"caf\xc3\xa9\"}}", false },
        { "{\"n\":null,\"metadata\":{\"team\":\"caf\xc3\xa9\"}}", false },
        { "{\"n\":7,\"metadata\":{\"team\":[]}}", false },
        { "{\"n\":7,\"metadata\":[\"team\"]}", false },
        { "[]", false },
    };
    struct matching *m = compile(&s);
    assert_int_equal(js_wants_count(matching_body_wants(m)), 2);
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct js_val root;
        match_input_init(&in, &q);
        assert_true(match_namespace(m, &in).pending);
        assert_int_equal(
            js_parse_wanting(str_of(rows[i].body), matching_body_wants(m), &root, found, NULL),
            ERR_OK);
        for (int k = 0; k < 2; k++)
            assert_int_equal(match_values_of(found[k], &a, &values[k]), ERR_OK);
        in.body_known = true;
        in.body = values;
        if ((match_namespace(m, &in).ns != NULL) != rows[i].holds) fail_msg("%s", rows[i].body);
    }
    in.body = NULL;
    assert_null(match_namespace(m, &in).ns);
    matching_free(m);
    arena_done(&a);

    /* What a namespace asks of tokens. */
    const struct str admin[] = { STR("admin") };
    const struct snap_cond group = test_of(SNAP_SRC_CLAIM, "/groups", SNAP_OP_EQUALS, admin, 1);
    struct snap_namespace guarded[] = { { .slug = STR("g"), .enabled = true, .claims = &group },
                                        { .slug = STR("h"), .enabled = true } };
    struct snapshot t = { .namespaces = guarded, .namespaces_n = 2 };
    const struct str groups[] = { STR("dev"), STR("admin") };
    const struct match_values yes = { .present = true, .v = groups, .n = 2 },
                              no = { .present = true, .v = groups, .n = 1 };
    m = compile(&t);
    assert_int_equal(js_wants_count(matching_claim_wants(m)), 1);
    assert_true(match_claims(m, &guarded[0], &yes));
    assert_false(match_claims(m, &guarded[0], &no));
    assert_false(match_claims(m, &guarded[0], NULL));
    assert_true(match_claims(m, &guarded[1], &no));
    matching_free(m);
}

static void the_first_matcher_wins_and_disabled_spaces_do_not_match(void **state)
{
    const struct str x[] = { STR("x") };
    struct h1_request q;
    (void)state;
    struct snap_cond is_x = test_of(SNAP_SRC_HEADER, "x-channel", SNAP_OP_EQUALS, x, 1);
    struct snap_cond has = test_of(SNAP_SRC_HEADER, "x-channel", SNAP_OP_EXISTS, NULL, 0);
    struct snap_matcher matchers[] = { { .ns = &spaces[0], .when = &is_x },
                                       { .ns = &spaces[1], .when = &has } };
    struct snapshot s = {
        .namespaces = spaces, .namespaces_n = 3, .matchers = matchers, .matchers_n = 2
    };
    struct match_input in;
    struct matching *m = compile(&s);
    parse("GET / HTTP/1.1\r\nHost: h\r\nX-Channel: x\r\n\r\n", &q);
    match_input_init(&in, &q);
    assert_ptr_equal(match_namespace(m, &in).ns, &spaces[0]);
    assert_ptr_equal(match_namespace(m, &in).matcher, &matchers[0]);
    matching_free(m);
    spaces[0].enabled = false;
    m = compile(&s);
    assert_ptr_equal(match_namespace(m, &in).ns, &spaces[1]);
    matching_free(m);
    spaces[0].enabled = true;
    m = compile(&s);
    parse("GET / HTTP/1.1\r\nHost: h\r\n\r\n", &q);
    match_input_init(&in, &q);
    assert_ptr_equal(match_namespace(m, &in).ns, &spaces[2]);
    assert_null(match_namespace(m, &in).matcher);
    matching_free(m);
    s.namespaces_n = 2;
    m = compile(&s);
    assert_null(match_namespace(m, &in).ns);
    matching_free(m);
}

/* --- the same as trying one matcher after the other --- */

enum { SPACES = 24, MATCHERS = 40 };

struct possible {
    const struct snap_namespace *v[MATCHERS + 1];
    size_t n;
};

static bool collect(void *ctx, const struct snap_namespace *ns)
{
    struct possible *p = ctx;
    assert_true(p->n < MATCHERS + 1);
    p->v[p->n++] = ns;
    return true;
}

static void the_same_as_trying_one_after_the_other(void **state)
{
    struct rng_fake fake;
    struct rng *rng = &fake.rng;
    struct h1_request q;
    (void)state;
    rng_fake_init(&fake, 11);
    uint64_t found = 0, pending = 0, defaults = 0;
    for (int round = 0; round < 3000; round++) {
        struct snap_namespace ns[SPACES] = { 0 };
        struct snap_matcher matchers[MATCHERS];
        struct random_conds made;
        random_conds_init(&made);
        for (int i = 0; i < SPACES; i++) ns[i].enabled = rng_below(rng, 8) > 0;
        ns[rng_below(rng, SPACES)].is_default = rng_below(rng, 2) == 0;
        for (int i = 0; i < MATCHERS; i++) {
            matchers[i] = (struct snap_matcher){ .ns = &ns[rng_below(rng, SPACES)],
                                                 .when = random_cond(&made, rng, 0) };
        }
        struct snapshot s = { .namespaces = ns,
                              .namespaces_n = SPACES,
                              .matchers = matchers,
                              .matchers_n = 1 + rng_below(rng, MATCHERS) };
        struct matching *m = compile(&s);
        for (int k = 0; k < 20; k++) {
            struct random_request r;
            random_request(&r, rng, matching_body_wants(m), matching_claim_wants(m));
            parse(r.head, &q);
            match_input_init(&r.in, &q);
            random_request_fill(&r);
            struct match_space want = linear_namespace(&s, &r.in, m),
                               got = match_namespace(m, &r.in);
            assert_ptr_equal(got.ns, want.ns);
            assert_ptr_equal(got.matcher, want.matcher);
            assert_int_equal(got.pending, want.pending);
            found += got.matcher != NULL;
            pending += got.pending;
            defaults += got.ns != NULL && got.matcher == NULL;
            struct possible p = { .n = 0 }, l = { .n = 0 };
            match_each_possible(m, &r.in, collect, &p);
            linear_possible(&s, &r.in, m, collect, &l);
            assert_int_equal(p.n, l.n);
            assert_memory_equal(p.v, l.v, p.n * sizeof p.v[0]);
        }
        matching_free(m);
        random_conds_done(&made);
    }
    /* All of it happens. */
    assert_true(found > 5000 && pending > 1000 && defaults > 500);
}

/* --- routes --- */

static void routes_by_path_host_method_and_model(void **state)
{
    const struct str post[] = { STR("POST") }, m1[] = { STR("m1"), STR("qwen3-*") },
                     hosts[] = { STR("*.example.com") };
    struct h1_request q;
    const struct snap_route *r;
    (void)state;
    struct snap_route routes[] = {
        { .slug = STR("other"), .ns = &spaces[1], .path = STR("/v1/chat") },
        { .slug = STR("hosted"), .ns = &spaces[0], .path = STR("/v1/chat"), .hosts = { hosts, 1 } },
        { .slug = STR("m1"),
          .ns = &spaces[0],
          .path = STR("/v1/chat"),
          .methods = { post, 1 },
          .models = { m1, 2 } },
        { .slug = STR("regex"),
          .ns = &spaces[0],
          .path_kind = SNAP_PATH_REGEX,
          .path = STR("/teams/([a-z]+)/(.*)"),
          .rewrite_path = STR("/v1/$2/$1$$") },
        { .slug = STR("v1"),
          .ns = &spaces[0],
          .path = STR("/v1/"),
          .path_kind = SNAP_PATH_PREFIX,
          .methods = { post, 1 } },
    };
    struct snapshot s = {
        .namespaces = spaces, .namespaces_n = 3, .routes = routes, .routes_n = 5
    };
    struct matching *m = compile(&s);
    struct match_input in;
    struct arena a;
    struct str path;
    struct buf allow;
    arena_init(&a, 65536);
    buf_init(&allow, 1024);
    parse("POST /v1/chat HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n", &q);
    match_input_init(&in, &q);
    in.model = STR("Qwen3-8B");
    assert_int_equal(match_route(m, &spaces[0], &in, &r), MATCH_OK);
    assert_ptr_equal(r, &routes[2]);
    in.model = STR("m2");
    assert_int_equal(match_route(m, &spaces[0], &in, &r), MATCH_OK);
    assert_ptr_equal(r, &routes[4]);
    assert_int_equal(match_rewrite(m, r, q.path, &a, &path), ERR_OK);
    assert_true(str_eq(path, q.path));
    parse("POST /v1/chat HTTP/1.1\r\nHost: A.example.COM:80\r\nContent-Length: 0\r\n\r\n", &q);
    match_input_init(&in, &q);
    assert_int_equal(match_route(m, &spaces[0], &in, &r), MATCH_OK);
    assert_ptr_equal(r, &routes[1]);
    parse("GET /v1/chat HTTP/1.1\r\nHost: h\r\n\r\n", &q);
    match_input_init(&in, &q);
    assert_int_equal(match_route(m, &spaces[0], &in, &r), MATCH_NO_METHOD);
    assert_int_equal(match_allow(m, &spaces[0], &in, &allow), ERR_OK);
    assert_true(str_eqz(buf_str(&allow), "POST"));
    parse("GET /v1 HTTP/1.1\r\nHost: h\r\n\r\n", &q);
    match_input_init(&in, &q);
    assert_int_equal(match_route(m, &spaces[0], &in, &r), MATCH_NO_PATH);
    parse("GET /teams/red/chat/completions HTTP/1.1\r\nHost: h\r\n\r\n", &q);
    match_input_init(&in, &q);
    assert_int_equal(match_route(m, &spaces[0], &in, &r), MATCH_OK);
    assert_ptr_equal(r, &routes[3]);
    assert_int_equal(match_rewrite(m, r, q.path, &a, &path), ERR_OK);
    assert_true(str_eqz(path, "/v1/chat/completions/red$"));
    /* A group that is empty would make a path that servers read differently. */
    parse("GET /teams/red/ HTTP/1.1\r\nHost: h\r\n\r\n", &q);
    match_input_init(&in, &q);
    assert_int_equal(match_route(m, &spaces[0], &in, &r), MATCH_OK);
    assert_int_equal(match_rewrite(m, r, q.path, &a, &path), ERR_INVALID);
    matching_free(m);
    s.routes_n = 3;
    m = compile(&s);
    in.model = STR("m3");
    parse("POST /v1/chat HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n", &q);
    match_input_init(&in, &q);
    in.model = STR("m3");
    assert_int_equal(match_route(m, &spaces[0], &in, &r), MATCH_NO_MODEL);
    matching_free(m);
    buf_done(&allow);
    arena_done(&a);
}

static void keys_by_their_digest(void **state)
{
    struct snap_key keys[64] = { { .ns = &spaces[0] } };
    unsigned char none[SNAP_HMAC_LEN] = { 7, 7 };
    struct snapshot s = { .keys = keys };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(keys); i++) keys[i].hmac[0] = (unsigned char)(2 * i);
    for (s.keys_n = 0; s.keys_n <= ARRAY_LEN(keys); s.keys_n++) {
        for (size_t i = 0; i < s.keys_n; i++)
            assert_ptr_equal(match_key(&s, keys[i].hmac), &keys[i]);
        assert_null(match_key(&s, none));
    }
}

static void models_by_name_before_patterns(void **state)
{
    const struct str stars[] = { STR("Q*") }, own[] = { STR("Qwen3-8B") },
                     middle[] = { STR("*-mini"), STR("gpt-?o") };
    (void)state;
    struct snap_model models[] = { { .name = STR("any"), .patterns = { stars, 1 } },
                                   { .name = STR("Qwen3-8B"), .patterns = { own, 1 } },
                                   { .name = STR("small"), .patterns = { middle, 2 } } };
    struct snapshot s = { .models = models, .models_n = 3 };
    struct matching *m = compile(&s);
    assert_ptr_equal(match_model(m, STR("qwen3-8b")), &models[1]);
    assert_ptr_equal(match_model(m, STR("qwq")), &models[0]);
    assert_ptr_equal(match_model(m, STR("q-mini")), &models[0]);
    assert_ptr_equal(match_model(m, STR("GPT-4o")), &models[2]);
    assert_ptr_equal(match_model(m, STR("o4-mini")), &models[2]);
    assert_ptr_equal(match_model(m, STR("SMALL")), &models[2]);
    assert_null(match_model(m, STR("gpt")));
    assert_null(match_model(m, STR("")));
    matching_free(m);
}

static void what_keys_allow(void **state)
{
    const struct str list[] = { STR("qwen3-*"), STR("house") };
    const struct snap_key key = { .models = { list, 2 } }, all = { .slug = STR("k") };
    const struct snap_model house = { .name = STR("House") };
    (void)state;
    assert_true(match_key_allows(NULL, STR("x"), NULL));
    assert_true(match_key_allows(&all, STR("x"), NULL));
    assert_true(match_key_allows(&key, STR("Qwen3-8B"), NULL));
    assert_true(match_key_allows(&key, STR("alias"), &house));
    assert_false(match_key_allows(&key, STR("alias"), NULL));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(paths_that_all_servers_read_alike),
        cmocka_unit_test(the_endpoint_of_a_path_however_it_is_spelled),
        cmocka_unit_test(conditions),
        cmocka_unit_test(members_of_bodies_and_claims_of_tokens),
        cmocka_unit_test(the_first_matcher_wins_and_disabled_spaces_do_not_match),
        cmocka_unit_test(the_same_as_trying_one_after_the_other),
        cmocka_unit_test(routes_by_path_host_method_and_model),
        cmocka_unit_test(keys_by_their_digest),
        cmocka_unit_test(models_by_name_before_patterns),
        cmocka_unit_test(what_keys_allow),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
