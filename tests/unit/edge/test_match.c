/* SPDX-License-Identifier: Apache-2.0 */
/* Which namespace and route a request belongs to, and which paths are refused because servers read
 * them differently. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "services/edge/dialect.h"
#include "services/edge/match.h"

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
        { "/v1/messages/count_tokens", SNAP_EP_PASSTHROUGH },
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

static void conditions(void **state)
{
    struct h1_request q;
    const struct str x[] = { STR("x") }, xy[] = { STR("y"), STR("x") },
                     host[] = { STR("API.example") }, prefix[] = { STR("/v1/") };
    (void)state;
    parse("POST /v1/a?tier=x&empty&other=1 HTTP/1.1\r\nHost: api.EXAMPLE\r\nX-Channel: x\r\n\r\n",
          &q);
    struct match_input in = { .req = &q, .model = STR("x-large") };
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
        { test_of(SNAP_SRC_PATH, "", SNAP_OP_PREFIX, prefix, 1), true },
        { test_of(SNAP_SRC_MODEL, "", SNAP_OP_PREFIX, x, 1), true },
        { test_of(SNAP_SRC_MODEL, "", SNAP_OP_SUFFIX, x, 1), false },
        { test_of(SNAP_SRC_METHOD, "", SNAP_OP_CONTAINS, x, 1), false },
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct snap_cond no = { .kind = SNAP_COND_NOT, .children = &rows[i].c, .children_n = 1 };
        assert_int_equal(match_cond(&rows[i].c, &in), rows[i].holds);
        assert_int_equal(match_cond(&no, &in), !rows[i].holds);
    }
    const struct snap_cond both[] = { rows[0].c, rows[2].c };
    struct snap_cond all = { .kind = SNAP_COND_ALL, .children = both, .children_n = 2 };
    struct snap_cond any = { .kind = SNAP_COND_ANY, .children = both, .children_n = 2 };
    assert_false(match_cond(&all, &in));
    assert_true(match_cond(&any, &in));
    all.children_n = any.children_n = 0;
    assert_true(match_cond(&all, &in));
    assert_false(match_cond(&any, &in));
    /* A model that is not known yet is no model. */
    in.model = STR_NULL;
    assert_false(match_cond(&rows[8].c, &in));
}

static void the_first_matcher_wins_and_disabled_spaces_do_not_match(void **state)
{
    const struct str x[] = { STR("x") };
    struct h1_request q;
    bool by_matcher;
    (void)state;
    struct snap_cond is_x = test_of(SNAP_SRC_HEADER, "x-channel", SNAP_OP_EQUALS, x, 1);
    struct snap_cond has = test_of(SNAP_SRC_HEADER, "x-channel", SNAP_OP_EXISTS, NULL, 0);
    struct snap_matcher matchers[] = { { .ns = &spaces[0], .when = &is_x },
                                       { .ns = &spaces[1], .when = &has } };
    struct snapshot s = {
        .namespaces = spaces, .namespaces_n = 3, .matchers = matchers, .matchers_n = 2
    };
    struct match_input in = { .req = &q };
    parse("GET / HTTP/1.1\r\nHost: h\r\nX-Channel: x\r\n\r\n", &q);
    assert_ptr_equal(match_namespace(&s, &in, &by_matcher), &spaces[0]);
    assert_true(by_matcher);
    spaces[0].enabled = false;
    assert_ptr_equal(match_namespace(&s, &in, &by_matcher), &spaces[1]);
    spaces[0].enabled = true;
    parse("GET / HTTP/1.1\r\nHost: h\r\n\r\n", &q);
    assert_ptr_equal(match_namespace(&s, &in, &by_matcher), &spaces[2]);
    assert_false(by_matcher);
    s.namespaces_n = 2;
    assert_null(match_namespace(&s, &in, &by_matcher));
    assert_false(match_needs_body(&s));
    has.source = SNAP_SRC_MODEL;
    assert_true(match_needs_body(&s));
}

static void routes_by_path_method_and_model(void **state)
{
    const struct str post[] = { STR("POST") }, m[] = { STR("m1") };
    struct h1_request q;
    const struct snap_route *r;
    (void)state;
    struct snap_route routes[] = {
        { .slug = STR("other"), .ns = &spaces[1], .path = STR("/v1/chat") },
        { .slug = STR("m1"),
          .ns = &spaces[0],
          .path = STR("/v1/chat"),
          .methods = { post, 1 },
          .models = { m, 1 } },
        { .slug = STR("v1"),
          .ns = &spaces[0],
          .path = STR("/v1/"),
          .path_kind = SNAP_PATH_PREFIX,
          .methods = { post, 1 } },
    };
    struct snapshot s = { .routes = routes, .routes_n = 3 };
    struct match_input in = { .req = &q, .model = STR("m1") };
    parse("POST /v1/chat HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n", &q);
    assert_int_equal(match_route(&s, &spaces[0], &in, &r), MATCH_OK);
    assert_ptr_equal(r, &routes[1]);
    in.model = STR("m2");
    assert_int_equal(match_route(&s, &spaces[0], &in, &r), MATCH_OK);
    assert_ptr_equal(r, &routes[2]);
    s.routes_n = 2;
    assert_int_equal(match_route(&s, &spaces[0], &in, &r), MATCH_NO_MODEL);
    s.routes_n = 3;
    parse("GET /v1/chat HTTP/1.1\r\nHost: h\r\n\r\n", &q);
    assert_int_equal(match_route(&s, &spaces[0], &in, &r), MATCH_NO_METHOD);
    parse("GET /v1 HTTP/1.1\r\nHost: h\r\n\r\n", &q);
    assert_int_equal(match_route(&s, &spaces[0], &in, &r), MATCH_NO_PATH);
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
    const struct str stars[] = { STR("Q*") }, own[] = { STR("Qwen3-8B") };
    (void)state;
    struct snap_model models[] = { { .name = STR("any"), .patterns = { stars, 1 } },
                                   { .name = STR("Qwen3-8B"), .patterns = { own, 1 } } };
    struct snapshot s = { .models = models, .models_n = 2 };
    assert_ptr_equal(match_model(&s, STR("qwen3-8b")), &models[1]);
    assert_ptr_equal(match_model(&s, STR("qwq")), &models[0]);
    assert_null(match_model(&s, STR("gpt")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(paths_that_all_servers_read_alike),
        cmocka_unit_test(the_endpoint_of_a_path_however_it_is_spelled),
        cmocka_unit_test(conditions),
        cmocka_unit_test(the_first_matcher_wins_and_disabled_spaces_do_not_match),
        cmocka_unit_test(routes_by_path_method_and_model),
        cmocka_unit_test(keys_by_their_digest),
        cmocka_unit_test(models_by_name_before_patterns),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
