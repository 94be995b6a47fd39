/* SPDX-License-Identifier: Apache-2.0 */
/* The admin API over HTTP, on a store of its own; the bus is the fake one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "../../../services/config/api.h"
#include "../../../services/config/openapi.h"
#include "../../fake/bus_fake.c"
#include "rt/http_client.h"
#include "rt/yaml.h"
#include "support.h"

static struct bench bench;
static struct api api;
static struct bus_fake *server;
static struct bus *bus;
static struct http_server *http;
static struct http_client *client;
static const char *token = "a-token-of-twenty-chars";
static struct buf body;      /* of the last answer */
static struct json *answer;  /* the same, parsed, or NULL */
static char headers[2][300]; /* to send along; "" for none */

static int set_up(void **state)
{
    (void)state;
    bench_init(&bench);
    server = bus_fake_new();
    struct bus_options bo = { .url = bus_fake_url(server),
                              .instance = "config-1",
                              .service = "config",
                              .version = "0",
                              .description = "",
                              .prefix = "aigw",
                              .clock = clock_system(),
                              .rng = rng_system() };
    bus = bus_new(&bo);
    struct push_options po = {
        .store = bench.store, .bus = bus, .clock = clock_system(), .rng = rng_system()
    };
    api = (struct api){ .store = bench.store,
                        .push = push_new(&po),
                        .fleet = fleet_new(clock_system()),
                        .bus = bus,
                        .secrets = bench.secrets,
                        .admin_token = token };
    assert_int_equal(yaml_parse(openapi_yaml(), SIZE_MAX, &api.openapi, NULL), ERR_OK);
    for (int i = 0; i < 12000 && !store_is_open(bench.store); i++) usleep(5000);
    struct http_server_options o = { .bind = "127.0.0.1",
                                     .ctx = &api,
                                     .max_body = 16 << 20,
                                     .before = api_before,
                                     .after = api_after,
                                     .error_body = api_error_body };
    o.routes = api_routes(&o.routes_len);
    assert_int_equal(http_server_new(&o, &http, NULL), ERR_OK);
    client = http_client_new();
    buf_init(&body, 64 << 20);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    json_free(answer);
    answer = NULL;
    buf_done(&body);
    http_client_free(client);
    http_server_free(http);
    push_free(api.push);
    fleet_free(api.fleet);
    json_free(api.openapi);
    bus_free(bus);
    bus_fake_free(server);
    bench_done(&bench);
    return 0;
}

/* Sends, and keeps the answer in `body` and `answer`. Returns the status. */
static int call(const char *method, const char *path, const char *text)
{
    char url[512], auth[128];
    int status = 0;
    struct why why = { "" };
    (void)snprintf(url, sizeof(url), "http://127.0.0.1:%u%s%s", http_server_port(http),
                   path[0] == '/' ? "" : "/api/v2/", path);
    (void)snprintf(auth, sizeof(auth), "Authorization: Bearer %s", token);
    struct http_call c = { .method = method,
                           .url = url,
                           .body = str_of(text),
                           .headers = { auth },
                           .connect_timeout_ms = 60000,
                           .timeout_ms = 60000 };
    for (size_t i = 0, n = 1; i < 2; i++)
        if (headers[i][0] != '\0') c.headers[n++] = headers[i];
    buf_clear(&body);
    if (http_client_call(client, &c, &status, &body, &why) != ERR_OK) fail_msg("%s", why.text);
    headers[0][0] = headers[1][0] = '\0';
    json_free(answer);
    answer = NULL;
    if (body.len > 0 && body.data[0] == '{')
        assert_int_equal(json_parse(buf_str(&body), 64 << 20, &answer, NULL), ERR_OK);
    return status;
}

static void expect(int status, const char *method, const char *path, const char *text)
{
    int got = call(method, path, text);
    if (got != status) fail_msg("%s %s: %d %s", method, path, got, buf_z(&body));
}

static struct str text_of(const char *key)
{
    return json_str(json_get(answer, key));
}

static uint64_t number_of(const char *key)
{
    uint64_t n = 0;
    assert_int_equal(json_get_u64(answer, key, &n), ERR_OK);
    return n;
}

/* Whether the answer lists a violation at this pointer. */
static bool violates(const char *pointer)
{
    const struct json *it = json_first(json_get(answer, "violations"));
    for (; it != NULL; it = json_next(it))
        if (str_eqz(json_str(json_get(it, "pointer")), pointer)) return true;
    return false;
}

static void seed(void)
{
    expect(201, "POST", "namespaces", "{\"slug\":\"team\",\"name\":\"Team\"}");
    expect(201, "POST", "upstreams",
           "{\"slug\":\"mock\",\"servers\":[{\"slug\":\"a\",\"url\":"
           "\"http://h:1\"}]}");
    expect(201, "POST", "routes",
           "{\"namespace\":\"team\",\"slug\":\"r\",\"path\":{\"prefix\":"
           "\"/v1/\"},\"upstream\":\"mock\"}");
}

/* --- tests -------------------------------------------------------------------------------------
 */

static void nobody_gets_in_without_the_token(void **state)
{
    (void)state;
    const char *real = token;
    static const char *const wrong[] = { "", "x", "a-token-of-twenty-char",
                                         "a-token-of-twenty-chars-", "A-token-of-twenty-chars" };
    for (size_t i = 0; i < ARRAY_LEN(wrong); i++) {
        token = wrong[i];
        expect(401, "GET", "namespaces", "");
        expect(401, "PUT", "config", "{}");
    }
    expect(200, "GET", "/openapi.json", "");
    assert_true(str_starts(text_of("openapi"), STR("3.")));
    api.admin_token = "";
    token = "";
    expect(401, "GET", "namespaces", "");
    api.admin_token = token = real;
    expect(200, "GET", "namespaces", "");
}

static void an_entity_lives_from_post_to_delete(void **state)
{
    (void)state;
    char path[128];
    expect(201, "POST", "namespaces", "{\"slug\":\"team\",\"name\":\"Team\"}");
    struct str id = text_of("id");
    assert_int_equal(id.n, 36);
    (void)snprintf(path, sizeof(path), "namespaces/%.*s", STR_ARG(id));
    assert_int_equal(number_of("revision"), 1);
    assert_true(str_eqz(text_of("auth"), "key")); /* defaults are filled in */
    expect(200, "GET", path, "");
    expect(200, "GET", "namespaces/team", "");
    assert_true(str_eqz(text_of("name"), "Team"));
    expect(200, "PUT", path, "{\"slug\":\"crew\",\"auth\":\"none\"}");
    assert_true(str_eqz(text_of("name"), "")); /* PUT replaces */
    expect(200, "PATCH", path, "{\"name\":\"Crew\",\"auth\":null}");
    assert_true(str_eqz(text_of("slug"), "crew")); /* PATCH merges; null is the default again */
    assert_true(str_eqz(text_of("auth"), "key"));
    assert_int_equal(number_of("revision"), 3);
    expect(200, "PATCH", path, "{}"); /* no change, no revision */
    assert_int_equal(number_of("revision"), 3);
    expect(404, "GET", "namespaces/team", "");
    expect(204, "DELETE", "namespaces/crew", "");
    expect(404, "GET", path, "");
    expect(404, "GET", "nothings", "");
    expect(405, "DELETE", "namespaces", "");
}

static void what_was_read_can_be_sent_back(void **state)
{
    (void)state;
    static const char *const paths[] = { "namespaces/team", "upstreams/mock", "routes/r" };
    seed();
    for (size_t i = 0; i < ARRAY_LEN(paths); i++) {
        expect(200, "GET", paths[i], "");
        char *copy = str_dupz(buf_str(&body));
        uint64_t revision = number_of("revision");
        expect(200, "PUT", paths[i], copy);
        assert_int_equal(number_of("revision"), revision);
        free(copy);
    }
}

static void every_violation_is_listed_with_its_pointer(void **state)
{
    (void)state;
    seed();
    expect(422, "POST", "policies",
           "{\"namespace\":\"nope\",\"slug\":\"Bad Slug\",\"kind\":\"request_rate\",\"limit\":0,"
           "\"per\":[\"moon\"],\"typo\":1}");
    static const char *const pointers[] = { "/namespace", "/slug",  "/limit",
                                            "/window",    "/per/0", "/typo" };
    for (size_t i = 0; i < ARRAY_LEN(pointers); i++)
        if (!violates(pointers[i])) fail_msg("%s: %s", pointers[i], buf_z(&body));
    expect(422, "POST", "upstreams",
           "{\"slug\":\"u\",\"servers\":[{\"slug\":\"a\",\"url\":\"http://h\"},{\"slug\":\"a\","
           "\"url\":\"gopher://h\"}]}");
    assert_true(violates("/servers/1/url") && violates("/servers/1/slug"));
    expect(422, "POST", "namespaces", "{\"slug\":\"team\"}");
    assert_true(violates("/slug"));
    expect(422, "POST", "namespaces", "{\"slug\":\"x\",\"id\":\"not-a-uuid\"}");
    assert_true(violates("/id"));
    expect(422, "PATCH", "namespaces/team", "{\"id\":\"01930000-0000-7000-8000-000000000001\"}");
    assert_true(violates("/id"));
    expect(422, "POST", "namespaces", "[]");
    expect(400, "POST", "namespaces", "{\"slug\":");
    expect(201, "POST", "namespaces", "{\"slug\":\"d1\",\"default\":true}");
    expect(422, "POST", "namespaces", "{\"slug\":\"d2\",\"default\":true}");
    assert_true(violates("/default"));
}

static void etags_keep_changes_from_being_lost(void **state)
{
    (void)state;
    expect(201, "POST", "namespaces", "{\"slug\":\"team\"}");
    (void)snprintf(headers[0], sizeof(headers[0]), "If-Match: \"1\"");
    expect(200, "PATCH", "namespaces/team", "{\"name\":\"first\"}");
    (void)snprintf(headers[0], sizeof(headers[0]), "If-Match: \"1\"");
    expect(412, "PATCH", "namespaces/team", "{\"name\":\"second\"}");
    (void)snprintf(headers[0], sizeof(headers[0]), "If-Match: \"1\"");
    expect(412, "DELETE", "namespaces/team", "");
    (void)snprintf(headers[0], sizeof(headers[0]), "If-Match: \"9\", \"2\"");
    expect(200, "PATCH", "namespaces/team", "{\"name\":\"third\"}");
    (void)snprintf(headers[0], sizeof(headers[0]), "If-None-Match: \"3\"");
    assert_int_equal(call("GET", "namespaces/team", ""), 304);
    assert_int_equal(body.len, 0);
}

static void a_dry_run_shows_and_changes_nothing(void **state)
{
    (void)state;
    seed();
    expect(200, "PATCH", "namespaces/team?dry_run=true", "{\"name\":\"New\"}");
    const struct json *change = json_first(json_get(answer, "changes"));
    assert_true(str_eqz(json_str(json_get(change, "action")), "update"));
    assert_true(str_eqz(json_str(json_get(json_get(change, "before"), "name")), "Team"));
    assert_true(str_eqz(json_str(json_get(json_get(change, "after"), "name")), "New"));
    expect(422, "PATCH", "namespaces/team?dry_run=true", "{\"auth\":\"x\"}");
    expect(200, "POST", "namespaces?dry_run=true", "{\"slug\":\"other\"}");
    expect(200, "DELETE", "routes/r?dry_run=1", "");
    expect(400, "DELETE", "routes/r?dry_run=maybe", "");
    expect(200, "GET", "namespaces/team", "");
    assert_true(str_eqz(text_of("name"), "Team"));
    expect(404, "GET", "namespaces/other", "");
    expect(200, "GET", "revisions?limit=1", "");
    uint64_t newest = 0;
    assert_int_equal(json_get_u64(json_first(json_get(answer, "items")), "revision", &newest),
                     ERR_OK);
    assert_int_equal(newest, 3);
}

static void what_is_in_use_cannot_be_deleted(void **state)
{
    (void)state;
    seed();
    expect(409, "DELETE", "upstreams/mock", "");
    const struct json *by = json_first(json_get(answer, "referenced_by"));
    assert_true(str_eqz(json_str(json_get(by, "slug")), "r"));
    expect(409, "DELETE", "namespaces/team", "");
    expect(204, "DELETE", "routes/r", "");
    expect(204, "DELETE", "upstreams/mock", "");
    expect(204, "DELETE", "namespaces/team", "");
}

static void slugs_of_several_namespaces_need_a_namespace(void **state)
{
    (void)state;
    seed();
    expect(201, "POST", "namespaces", "{\"slug\":\"crew\"}");
    expect(201, "POST", "routes",
           "{\"namespace\":\"crew\",\"slug\":\"r\",\"path\":{\"exact\":\"/x\"},\"upstream\":"
           "\"mock\"}");
    expect(409, "GET", "routes/r", "");
    expect(200, "GET", "routes/r?namespace=crew", "");
    assert_true(str_eqz(json_str(json_get(json_get(answer, "path"), "exact")), "/x"));
    expect(200, "GET", "routes?namespace=team", "");
    assert_int_equal(json_len(json_get(answer, "items")), 1);
    expect(200, "GET", "routes?slug=r&upstream=mock", "");
    assert_int_equal(json_len(json_get(answer, "items")), 2);
    expect(400, "GET", "routes?namespace=nope", "");
}

static void lists_page_in_order(void **state)
{
    (void)state;
    char text[128], path[256];
    for (int i = 0; i < 25; i++) {
        (void)snprintf(text, sizeof(text), "{\"slug\":\"m-%02d\"}", (i * 7) % 25);
        expect(201, "POST", "models", text);
    }
    static const char *const sorts[] = { "id", "-id", "slug", "-slug" };
    for (size_t s = 0; s < ARRAY_LEN(sorts); s++) {
        int seen = 0;
        char last[64] = "";
        (void)snprintf(path, sizeof(path), "models?limit=10&sort=%s", sorts[s]);
        for (;;) {
            expect(200, "GET", path, "");
            const struct json *it = json_first(json_get(answer, "items"));
            for (; it != NULL; it = json_next(it), seen++) {
                struct str now = json_str(
                    json_get(it, sorts[s][0] == '-' ? sorts[s] + 1 : sorts[s]));
                if (seen > 0)
                    assert_true(sorts[s][0] == '-' ? str_cmp(now, str_of(last)) < 0
                                                   : str_cmp(now, str_of(last)) > 0);
                (void)str_copyz(last, sizeof(last), now);
            }
            struct str cursor = text_of("next_cursor");
            if (cursor.p == NULL) break;
            (void)snprintf(path, sizeof(path), "models?limit=10&sort=%s&cursor=%.*s", sorts[s],
                           STR_ARG(cursor));
        }
        assert_int_equal(seen, 25);
    }
    expect(400, "GET", "models?limit=0", "");
    expect(400, "GET", "models?limit=9999", "");
    expect(400, "GET", "models?sort=price", "");
    expect(400, "GET", "models?sort=slug&cursor=x", "");
}

static void a_keys_secret_is_shown_once(void **state)
{
    (void)state;
    char first[128];
    seed();
    expect(201, "POST", "keys", "{\"namespace\":\"team\",\"slug\":\"k\"}");
    struct str secret = text_of("secret");
    assert_int_equal(secret.n, 48);
    assert_true(str_starts(secret, STR("sk-aigw-")));
    assert_true(str_starts(secret, text_of("prefix")));
    assert_int_equal(text_of("prefix").n, 12);
    (void)str_copyz(first, sizeof(first), secret);
    expect(200, "GET", "keys/k", "");
    assert_null(json_get(answer, "secret"));
    assert_null(json_get(answer, "hmac"));
    expect(200, "PATCH", "keys/k", "{\"enabled\":false}");
    assert_null(json_get(answer, "secret"));
    expect(200, "POST", "keys/k/rotate", "");
    assert_true(text_of("secret").n == 48 && !str_eqz(text_of("secret"), first));
    /* One that is given; the same again is refused, since it could not be told apart. */
    expect(201, "POST", "keys",
           "{\"namespace\":\"team\",\"slug\":\"k2\",\"secret\":\"0123456789abcdef\"}");
    assert_null(json_get(answer, "secret"));
    assert_true(str_eqz(text_of("prefix"), "0123"));
    expect(422, "POST", "keys",
           "{\"namespace\":\"team\",\"slug\":\"k3\",\"secret\":\"0123456789abcdef\"}");
    assert_true(violates("/secret"));
    expect(422, "POST", "keys", "{\"namespace\":\"team\",\"slug\":\"k3\",\"secret\":\"short\"}");
    expect(422, "POST", "keys", "{\"namespace\":\"team\",\"slug\":\"k3\",\"hmac\":\"00\"}");
    /* Neither history nor the document shows any of it. */
    expect(200, "GET", "audit", "");
    assert_null(strstr(buf_z(&body), "hmac"));
    assert_null(strstr(buf_z(&body), first));
    expect(200, "GET", "config", "");
    assert_null(strstr(buf_z(&body), "hmac"));
}

static void credentials_go_in_and_do_not_come_out(void **state)
{
    (void)state;
    expect(201, "POST", "upstreams",
           "{\"slug\":\"paid\",\"auth\":{\"type\":\"bearer\",\"credential\":\"sk-very-secret\"}}");
    assert_null(strstr(buf_z(&body), "sk-very-secret"));
    assert_null(strstr(buf_z(&body), "v1:"));
    bool set = false;
    assert_int_equal(json_get_bool(json_get(answer, "auth"), "credential_set", &set), ERR_OK);
    assert_true(set);
    uint64_t revision = number_of("revision");
    /* The same again is no change; leaving it out keeps it. */
    expect(200, "PATCH", "upstreams/paid", "{\"auth\":{\"credential\":\"sk-very-secret\"}}");
    assert_int_equal(number_of("revision"), revision);
    expect(200, "PUT", "upstreams/paid", "{\"slug\":\"paid\",\"auth\":{\"type\":\"bearer\"}}");
    assert_int_equal(number_of("revision"), revision);
    expect(200, "PATCH", "upstreams/paid", "{\"auth\":{\"type\":\"none\"}}");
    expect(422, "PATCH", "upstreams/paid", "{\"auth\":{\"type\":\"bearer\"}}");
    assert_true(violates("/auth/credential"));
    expect(422, "PATCH", "upstreams/paid",
           "{\"auth\":{\"type\":\"bearer\",\"credential\":\"a b\"}}");
    expect(200, "GET", "audit", "");
    assert_null(strstr(buf_z(&body), "sk-very-secret"));
    assert_null(strstr(buf_z(&body), "v1:"));
    bench.secrets.has_master_key = api.secrets.has_master_key = false;
    expect(422, "POST", "upstreams",
           "{\"slug\":\"x\",\"auth\":{\"type\":\"bearer\",\"credential\":\"sk-secret\"}}");
    assert_non_null(strstr(buf_z(&body), "MASTER_KEY"));
    bench.secrets.has_master_key = api.secrets.has_master_key = true;
}

static void fallbacks_lead_to_upstreams_of_the_same_dialect(void **state)
{
    (void)state;
    seed();
    expect(201, "POST", "upstreams", "{\"slug\":\"spare\"}");
    char spare[64], text[256];
    (void)str_copyz(spare, sizeof(spare), text_of("id"));
    expect(201, "POST", "upstreams", "{\"slug\":\"other\",\"dialect\":\"anthropic\"}");
    expect(201, "POST", "routes",
           "{\"slug\":\"safe\",\"namespace\":\"team\",\"path\":{\"exact\":\"/safe\"},"
           "\"upstream\":\"mock\",\"fallbacks\":[{\"upstream\":\"spare\",\"upstream_model\":"
           "\"small\"},{\"upstream\":\"mock\"}]}");
    (void)snprintf(text, sizeof(text), "\"upstream\":\"%s\",\"upstream_model\":\"small\"", spare);
    assert_non_null(strstr(buf_z(&body), text)); /* kept by id */
    expect(409, "DELETE", "upstreams/spare", "");
    assert_non_null(strstr(buf_z(&body), "\"safe\""));
    expect(200, "GET", "config", "");
    assert_non_null(strstr(buf_z(&body), "\"upstream\":\"spare\"")); /* shown by slug */
    static const struct {
        const char *fallbacks, *pointer;
    } bad[] = { { "[{\"upstream\":\"nowhere\"}]", "/fallbacks/0/upstream" },
                { "[{\"upstream\":\"spare\"},{\"upstream\":\"other\"}]", "/fallbacks/1/upstream" },
                { "[{}]", "/fallbacks/0/upstream" },
                { "{}", "/fallbacks" } };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        (void)snprintf(text, sizeof(text),
                       "{\"slug\":\"x\",\"namespace\":\"team\",\"path\":{\"exact\":\"/x\"},"
                       "\"upstream\":\"mock\",\"fallbacks\":%s}",
                       bad[i].fallbacks);
        expect(422, "POST", "routes", text);
        assert_true(violates(bad[i].pointer));
    }
}

static void servers_have_addresses_of_their_own(void **state)
{
    (void)state;
    char path[128];
    seed();
    expect(201, "POST", "upstreams/mock/servers", "{\"slug\":\"b\",\"url\":\"http://h:2\"}");
    (void)snprintf(path, sizeof(path), "servers/%.*s", STR_ARG(text_of("id")));
    expect(200, "GET", path, "");
    assert_true(str_eqz(text_of("url"), "http://h:2"));
    expect(200, "GET", "upstreams/mock/servers/b", "");
    expect(200, "PATCH", path, "{\"enabled\":false,\"weight\":5}");
    assert_int_equal(number_of("weight"), 5);
    expect(422, "PATCH", path, "{\"url\":\"nonsense\"}");
    assert_true(violates("/url"));
    expect(422, "POST", "upstreams/mock/servers", "{\"slug\":\"b\",\"url\":\"http://h:3\"}");
    assert_true(violates("/slug"));
    expect(422, "POST", "servers", "{\"slug\":\"c\",\"url\":\"http://h:3\"}");
    assert_true(violates("/upstream"));
    expect(201, "POST", "servers", "{\"upstream\":\"mock\",\"slug\":\"c\",\"url\":\"http://h:3\"}");
    expect(200, "GET", "servers?upstream=mock", "");
    assert_int_equal(json_len(json_get(answer, "items")), 3);
    expect(204, "DELETE", path, "");
    expect(404, "GET", path, "");
    expect(404, "GET", "servers/nonsense", "");
    expect(200, "GET", "upstreams/mock", "");
    assert_int_equal(json_len(json_get(answer, "servers")), 2);
}

static const char document[] =
    "version: 1\n"
    "namespaces:\n- {slug: test-channel, auth: none}\n- {slug: demo}\n"
    "upstreams:\n- slug: mock\n  servers: [{slug: a, url: 'http://127.0.0.1:8010'}]\n"
    "models:\n- {slug: qwen3-8b, name: Qwen3-8B, vocabulary: qwen3}\n"
    "matchers:\n- namespace: test-channel\n  slug: by-channel\n"
    "  when: {source: header, name: X-Channel-Code, value: test-channel}\n"
    "routes:\n- {namespace: test-channel, slug: chat, path: {exact: /api/chat}, upstream: mock,\n"
    "   endpoint: chat, rewrite_path: /v1/chat/completions}\n"
    "policies:\n- {namespace: demo, slug: qps, kind: request_rate, limit: 5, window: 1s}\n"
    "keys:\n- {namespace: demo, slug: k, secret: sk-aigw-0123456789}\n";

static void import_yaml(int status, const char *path, const char *text)
{
    (void)snprintf(headers[0], sizeof(headers[0]), "Content-Type: application/yaml");
    expect(status, "PUT", path, text);
}

static void a_document_makes_everything_as_it_says(void **state)
{
    (void)state;
    import_yaml(200, "config", document);
    assert_int_equal(number_of("created"), 8);
    assert_int_equal(number_of("revision"), 1);
    import_yaml(200, "config", document); /* the same again is no change */
    assert_int_equal(number_of("revision"), 1);
    /* What was exported imports back without a change, as JSON and as YAML, here and elsewhere. */
    expect(200, "GET", "config", "");
    char *json = str_dupz(buf_str(&body));
    expect(200, "GET", "config?format=yaml", "");
    char *yaml = str_dupz(buf_str(&body));
    expect(200, "PUT", "config", json);
    assert_int_equal(number_of("revision"), 1);
    import_yaml(200, "config", yaml);
    assert_int_equal(number_of("revision"), 1);
    free(json);
    free(yaml);
    /* Without ids, the slugs decide. */
    expect(200, "GET", "config?ids=false", "");
    assert_null(strstr(buf_z(&body), "\"id\""));
    json = str_dupz(buf_str(&body));
    expect(200, "PUT", "config", json);
    assert_int_equal(number_of("revision"), 1);
    free(json);
}

static void what_a_document_leaves_out_goes(void **state)
{
    (void)state;
    import_yaml(200, "config", document);
    import_yaml(200, "config?prune=false", "models: [{slug: extra}]\n");
    assert_int_equal(number_of("created"), 1);
    assert_int_equal(number_of("deleted"), 0);
    import_yaml(200, "config?dry_run=true", "namespaces: [{slug: demo}]\n");
    assert_int_equal(json_len(json_get(answer, "changes")), 8);
    import_yaml(200, "config", "namespaces: [{slug: demo}]\n");
    assert_int_equal(number_of("deleted"), 8);
    assert_int_equal(number_of("updated"), 0);
    expect(200, "GET", "routes", "");
    assert_int_equal(json_len(json_get(answer, "items")), 0);
    import_yaml(200, "config", document);
    assert_int_equal(number_of("created"), 7);
}

static void a_wrong_document_changes_nothing_and_says_all(void **state)
{
    (void)state;
    import_yaml(200, "config", document);
    import_yaml(422, "config",
                "namespaces: [{slug: a, default: true}, {slug: b, default: true}, {slug: a}]\n"
                "routes: [{namespace: a, slug: r, path: {exact: /}, upstream: gone}]\n"
                "keys: [{namespace: nope, slug: k, secret: x}]\n");
    static const char *const pointers[] = { "/namespaces", "/routes/0/upstream",
                                            "/keys/0/namespace", "/keys/0/secret" };
    for (size_t i = 0; i < ARRAY_LEN(pointers); i++)
        if (!violates(pointers[i])) fail_msg("%s: %s", pointers[i], buf_z(&body));
    import_yaml(422, "config", "version: 2\nwishes: []\nroutes: 7\n");
    assert_true(violates("/version") && violates("/wishes") && violates("/routes"));
    import_yaml(400, "config", "a: &x 1\nb: *x\n");
    expect(200, "GET", "revisions", "");
    assert_int_equal(json_len(json_get(answer, "items")), 1);
    expect(200, "GET", "namespaces", "");
    assert_int_equal(json_len(json_get(answer, "items")), 2);
}

static void the_default_can_move_within_a_document(void **state)
{
    (void)state;
    import_yaml(200, "config", "namespaces: [{slug: a, default: true}, {slug: b}]\n");
    import_yaml(200, "config", "namespaces: [{slug: b, default: true}, {slug: a}]\n");
    assert_int_equal(number_of("updated"), 2);
}

static void keys_without_a_secret_get_one_at_import(void **state)
{
    (void)state;
    static const char doc[] = "namespaces: [{slug: a}]\nkeys: [{namespace: a, slug: k}]\n";
    import_yaml(200, "config", doc);
    const struct json *one = json_first(json_get(answer, "secrets"));
    assert_int_equal(json_str(json_get(one, "secret")).n, 48);
    import_yaml(200, "config", doc); /* and keep it */
    assert_int_equal(json_len(json_get(answer, "secrets")), 0);
    assert_int_equal(number_of("revision"), 1);
}

static void history_can_be_read_compared_and_undone(void **state)
{
    (void)state;
    import_yaml(200, "config", document);                                  /* 1 */
    expect(200, "PATCH", "namespaces/demo", "{\"name\":\"Two\"}");         /* 2 */
    expect(204, "DELETE", "policies/qps", "");                             /* 3 */
    expect(201, "POST", "models", "{\"slug\":\"qwen2\"}");                 /* 4 */
    expect(200, "PATCH", "keys/k", "{\"secret\":\"sk-aigw-9876543210\"}"); /* 5 */
    expect(200, "GET", "revisions/3", "");
    assert_true(str_eqz(text_of("summary"), "delete policies qps"));
    assert_int_equal(json_len(json_get(answer, "items")), 1);
    expect(404, "GET", "revisions/99", "");
    expect(404, "GET", "revisions/x", "");
    expect(200, "GET", "revisions/1/diff/5", "");
    assert_int_equal(json_len(json_get(answer, "changes")), 4);
    expect(200, "GET", "revisions/5/diff/1", "");
    assert_int_equal(json_len(json_get(answer, "changes")), 4);
    expect(404, "GET", "revisions/1/diff/9", "");
    expect(200, "POST", "revisions/1/rollback?dry_run=true", "");
    assert_int_equal(json_len(json_get(answer, "changes")), 5);
    expect(200, "POST", "revisions/1/rollback", "");
    assert_int_equal(number_of("revision"), 6);
    expect(200, "GET", "revisions/1/diff/6", "");
    assert_int_equal(json_len(json_get(answer, "changes")), 0);
    expect(200, "GET", "policies/qps", "");
    expect(404, "GET", "models/qwen2", "");
    import_yaml(200, "config", document);
    assert_int_equal(number_of("revision"), 6); /* the key's old secret is back too */
    expect(404, "POST", "revisions/7/rollback", "");
    expect(200, "POST", "revisions/0/rollback", "");
    expect(200, "GET", "namespaces", "");
    assert_int_equal(json_len(json_get(answer, "items")), 0);
}

static void bodies_are_bounded(void **state)
{
    (void)state;
    struct buf text;
    buf_init(&text, 4 << 20);
    assert_int_equal(buf_appendz(&text, "{\"slug\":\"a\",\"name\":\""), ERR_OK);
    while (text.len < 2 << 20) assert_int_equal(buf_appendz(&text, "xxxxxxxxxxxxxxxx"), ERR_OK);
    assert_int_equal(buf_appendz(&text, "\"}"), ERR_OK);
    expect(413, "POST", "namespaces", buf_z(&text));
    buf_done(&text);
}

/* --- what others know ---------------------------------------------------------------------------
 */

/* A policy engine and an edge that answer by heart, and keep what they were asked. */
static struct bus *others;
static char asked[4096];

static void on_question(void *ctx, const struct bus_msg *msg)
{
    (void)str_copyz(asked, sizeof(asked), msg->data);
    enum err e = bus_reply(others, msg->reply, str_of(ctx));
    (void)e; /* whoever asked sees whether it came */
}

static struct bus_sub *answer_with(const char *subject, const char *text)
{
    struct bus_sub *sub;
    union {
        const char *in;
        void *out;
    } ctx = { .in = text };
    assert_int_equal(bus_subscribe(others, subject, NULL, on_question, ctx.out, &sub), ERR_OK);
    return sub;
}

static void begin_others(void)
{
    struct bus_options o = { .url = bus_fake_url(server),
                             .instance = "policy-1",
                             .service = "policy",
                             .version = "0",
                             .description = "",
                             .prefix = "aigw",
                             .clock = clock_system(),
                             .rng = rng_system() };
    others = bus_new(&o);
}

#define ENVELOPE "\"v\":1,\"id\":\"x\",\"ts\":\"2026-11-23T02:27:53.390Z\",\"from\":\"policy-1\""

static void counters_are_asked_of_the_policy_engine(void **state)
{
    (void)state;
    char path[200];
    begin_others();
    seed();
    expect(201, "POST", "policies",
           "{\"namespace\":\"team\",\"slug\":\"qps\",\"kind\":\"request_rate\",\"limit\":5,"
           "\"window\":\"1s\"}");
    struct str id = text_of("id");
    char policy[64];
    (void)str_copyz(policy, sizeof(policy), id);
    expect(503, "GET", "policies/qps/usage", ""); /* nobody answers */
    struct bus_sub *sub = answer_with("aigw.policy.counters",
                                      "{" ENVELOPE ",\"policy\":\"p\",\"counters\":[{\"key\":"
                                      "\"ns=a\",\"used\":3}],\"next\":null}");
    (void)snprintf(path, sizeof(path), "policies/%s/usage?key=ns%%3Da&limit=7", policy);
    expect(200, "GET", path, "");
    assert_true(str_eqz(text_of("slug"), "qps"));
    assert_null(json_get(answer, "from")); /* of the bus, not of the API */
    assert_int_equal(json_len(json_get(answer, "counters")), 1);
    assert_non_null(strstr(asked, policy));
    assert_non_null(strstr(asked, "\"op\":\"look\""));
    assert_non_null(strstr(asked, "\"keys\":[\"ns=a\"]"));
    assert_non_null(strstr(asked, "\"limit\":7"));
    expect(404, "GET", "policies/nope/usage", "");
    bus_unsubscribe(sub);
    sub = answer_with("aigw.policy.counters",
                      "{" ENVELOPE
                      ",\"error\":{\"code\":\"not_found\",\"message\":\"no policy that "
                      "is counted\"}}");
    expect(404, "GET", "policies/qps/usage", "");
    assert_non_null(strstr(buf_z(&body), "no policy that is counted"));
    bus_unsubscribe(sub);
    bus_free(others);
}

static void resets_are_written_down(void **state)
{
    (void)state;
    begin_others();
    seed();
    expect(201, "POST", "policies",
           "{\"namespace\":\"team\",\"slug\":\"month\",\"kind\":\"quota\",\"limit\":5,\"period\":"
           "\"month\"}");
    uint64_t before = number_of("revision");
    static const char *const wrong[] = { "{}",
                                         "{\"all\":false}",
                                         "{\"key\":\"\"}",
                                         "{\"key\":\"a\",\"all\":true}",
                                         "{\"keys\":[]}",
                                         "{\"keys\":[7]}" };
    for (size_t i = 0; i < ARRAY_LEN(wrong); i++)
        expect(422, "POST", "policies/month/reset", wrong[i]);
    expect(503, "POST", "policies/month/reset", "{\"all\":true}"); /* nobody answers */
    expect(200, "GET", "revisions", "");
    struct bus_sub *sub = answer_with("aigw.policy.counters",
                                      "{" ENVELOPE ",\"policy\":\"p\",\"reset\":2}");
    expect(200, "POST", "policies/month/reset", "{\"keys\":[\"ns=a\",\"ns=b\"]}");
    assert_int_equal(number_of("reset"), 2);
    assert_non_null(strstr(asked, "\"op\":\"reset\""));
    assert_non_null(strstr(asked, "\"keys\":[\"ns=a\",\"ns=b\"]"));
    char path[64];
    (void)snprintf(path, sizeof(path), "audit?after=%llu", (unsigned long long)before);
    expect(200, "GET", path, "");
    const struct json *entry = json_first(json_get(answer, "items"));
    assert_int_equal(json_len(json_get(answer, "items")), 1); /* none of what failed */
    assert_true(str_eqz(json_str(json_get(entry, "action")), "reset"));
    assert_true(str_eqz(json_str(json_get(entry, "slug")), "month"));
    (void)snprintf(path, sizeof(path), "revisions/%llu/diff/%llu", (unsigned long long)before,
                   (unsigned long long)before + 1);
    expect(200, "GET", path, "");
    assert_int_equal(json_len(json_get(answer, "changes")), 0); /* the configuration is the same */
    bus_unsubscribe(sub);
    bus_free(others);
}

static void explanations_join_the_edges_view_and_the_counters(void **state)
{
    (void)state;
    begin_others();
    seed();
    expect(201, "POST", "keys", "{\"namespace\":\"team\",\"slug\":\"k1\"}");
    char key[64];
    (void)str_copyz(key, sizeof(key), text_of("id"));
    expect(422, "POST", "explain", "{\"methd\":\"GET\",\"headers\":[]}");
    assert_true(violates("/methd") && violates("/target") && violates("/headers"));
    expect(503, "POST", "explain", "{\"target\":\"/v1/models\"}");
    expect(422, "POST", "explain", "{\"target\":\"/\",\"key\":\"nope\"}");
    struct bus_sub *edge = answer_with(
        "aigw.edge.explain",
        "{" ENVELOPE ",\"edge\":\"edge-1\",\"status\":200,\"why\":\"\",\"policies\":["
        "{\"id\":\"p0\",\"slug\":\"s\",\"mode\":\"shadow\",\"verdict\":\"counter\",\"key\":\"ns=a\","
        "\"units\":9,\"limit\":10},"
        "{\"id\":\"p1\",\"slug\":\"qps\",\"mode\":\"enforce\",\"verdict\":\"counter\",\"key\":"
        "\"ns=a\",\"units\":9,\"limit\":10},"
        "{\"id\":\"p2\",\"slug\":\"a\",\"mode\":\"enforce\",\"verdict\":\"passes\"}]}");
    expect(200, "POST", "explain", "{\"target\":\"/v1/models\"}");
    const struct json *first = json_first(json_get(answer, "policies"));
    assert_true(str_eqz(json_str(json_get(first, "verdict")), "unknown")); /* no engine */
    assert_int_equal(number_of("status"), 200);
    struct bus_sub *engine = answer_with("aigw.policy.counters",
                                         "{" ENVELOPE ",\"counters\":[{\"key\":\"ns=a\",\"left\":"
                                         "8}],\"next\":null}");
    expect(200, "POST", "explain",
           "{\"target\":\"/v1/models\",\"key\":\"k1\",\"namespace\":\"team\"}");
    assert_int_equal(number_of("status"), 429);
    assert_non_null(strstr(buf_z(&body), "policy qps has too little left"));
    first = json_first(json_get(answer, "policies"));
    assert_true(str_eqz(json_str(json_get(first, "verdict")), "refuses"));
    bus_unsubscribe(engine);
    engine = answer_with("aigw.policy.counters", "{" ENVELOPE ",\"counters\":[],\"next\":null}");
    expect(200, "POST", "explain", "{\"target\":\"/v1/models\"}");
    assert_int_equal(number_of("status"), 200); /* a counter that nobody asked for is unused */
    bus_unsubscribe(engine);
    bus_unsubscribe(edge);
    edge = answer_with("aigw.edge.explain", "{" ENVELOPE ",\"policies\":[]}");
    expect(200, "POST", "explain", "{\"target\":\"/\",\"key\":\"k1\",\"namespace\":\"team\"}");
    assert_non_null(strstr(asked, key)); /* the edge knows ids */
    bus_unsubscribe(edge);
    bus_free(others);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(nobody_gets_in_without_the_token),
        TEST(an_entity_lives_from_post_to_delete),
        TEST(what_was_read_can_be_sent_back),
        TEST(every_violation_is_listed_with_its_pointer),
        TEST(etags_keep_changes_from_being_lost),
        TEST(a_dry_run_shows_and_changes_nothing),
        TEST(what_is_in_use_cannot_be_deleted),
        TEST(slugs_of_several_namespaces_need_a_namespace),
        TEST(lists_page_in_order),
        TEST(a_keys_secret_is_shown_once),
        TEST(credentials_go_in_and_do_not_come_out),
        TEST(fallbacks_lead_to_upstreams_of_the_same_dialect),
        TEST(servers_have_addresses_of_their_own),
        TEST(a_document_makes_everything_as_it_says),
        TEST(what_a_document_leaves_out_goes),
        TEST(a_wrong_document_changes_nothing_and_says_all),
        TEST(the_default_can_move_within_a_document),
        TEST(keys_without_a_secret_get_one_at_import),
        TEST(history_can_be_read_compared_and_undone),
        TEST(bodies_are_bounded),
        TEST(counters_are_asked_of_the_policy_engine),
        TEST(resets_are_written_down),
        TEST(explanations_join_the_edges_view_and_the_counters),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
