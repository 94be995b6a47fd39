/* SPDX-License-Identifier: Apache-2.0 */
/* Decoding snapshots: what is taken, with which defaults and in which order, and what is refused.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include <dirent.h>
#include <stdio.h>

#include "proto/snapshot.h"
#include "rt/crypto.h"

static const char namespaces[] =
    "{\"kind\":\"namespaces\",\"namespace\":\"n1\",\"index\":0,\"items\":[{\"id\":\"n1\",\"slug\":"
    "\"team-a\",\"auth\":\"none\",\"default\":true}]}";
static const char upstreams[] =
    "{\"kind\":\"upstreams\",\"namespace\":null,\"index\":0,\"items\":[{\"id\":\"u1\",\"slug\":"
    "\"mock\",\"auth\":{\"type\":\"bearer\",\"credential\":\"v1:xx\"},\"timeouts\":{\"idle_ms\":7},"
    "\"servers\":[{\"id\":\"s1\",\"slug\":\"a\",\"url\":\"http://127.0.0.1:8010/base//\"},{\"id\":"
    "\"s2\",\"slug\":\"b\",\"url\":\"https://[::1]\",\"weight\":3,\"enabled\":false}]}]}";

/* A part of one kind with one item. */
static struct str part_of(char *out, size_t cap, const char *kind, const char *item)
{
    int n = snprintf(out, cap, "{\"kind\":\"%s\",\"namespace\":\"n1\",\"index\":0,\"items\":[%s]}",
                     kind, item);
    assert_true(n > 0 && (size_t)n < cap);
    return str_n(out, (size_t)n);
}

/* Builds from namespaces, upstreams and the items of one more kind. */
static enum err build_with(const char *kind, const char *items, struct snapshot **ret,
                           struct why *why)
{
    static char text[16384];
    struct str parts[] = { part_of(text, sizeof(text), kind, items), str_of(namespaces),
                           str_of(upstreams) };
    return snapshot_build(7, "d", parts, 3, ret, why);
}

static struct snapshot *must_build(const char *kind, const char *items)
{
    struct snapshot *s = NULL;
    struct why why = { "" };
    if (build_with(kind, items, &s, &why) != ERR_OK) fail_msg("%s", why.text);
    return s;
}

static void refuses(const char *kind, const char *item, const char *message)
{
    struct snapshot *s = NULL;
    struct why why = { "" };
    if (build_with(kind, item, &s, &why) == ERR_OK) fail_msg("taken: %s %s", kind, item);
    assert_null(s);
    if (strstr(why.text, message) == NULL) fail_msg("%s: %s", item, why.text);
}

static void entities_come_with_their_defaults(void **state)
{
    (void)state;
    struct snapshot *s = must_build("models", "{\"id\":\"m1\",\"slug\":\"qwen3-8b\"}");
    assert_int_equal(s->revision, 7);
    assert_int_equal(s->namespaces_n, 1);
    assert_true(s->namespaces[0].enabled && s->namespaces[0].is_default);
    assert_int_equal(s->namespaces[0].auth, SNAP_AUTH_NONE);
    const struct snap_upstream *u = &s->upstreams[0];
    assert_int_equal(u->auth, SNAP_UPAUTH_BEARER);
    assert_true(str_eqz(u->credential_sealed, "v1:xx"));
    assert_int_equal(u->connect_ms, 5000);
    assert_int_equal(u->idle_ms, 7);
    assert_int_equal(u->retries, 1);
    assert_int_equal(u->servers_n, 2);
    assert_true(str_eqz(u->servers[0].host, "127.0.0.1"));
    assert_int_equal(u->servers[0].port, 8010);
    assert_true(str_eqz(u->servers[0].base_path, "/base"));
    assert_true(u->servers[0].enabled && !u->servers[0].tls);
    assert_true(str_eqz(u->servers[1].host, "::1"));
    assert_int_equal(u->servers[1].port, 443);
    assert_int_equal(u->servers[1].base_path.n, 0);
    assert_true(u->servers[1].tls && !u->servers[1].enabled);
    assert_true(str_eqz(u->servers[0].authority, "127.0.0.1:8010"));
    assert_true(str_eqz(u->servers[1].authority, "[::1]"));
    /* A model without patterns is what its slug says. */
    assert_int_equal(s->models[0].patterns.n, 1);
    assert_true(str_eqz(s->models[0].patterns.v[0], "qwen3-8b"));
    snapshot_unref(s);
}

static void policies_choose_their_algorithm_by_window(void **state)
{
    (void)state;
    struct snapshot *s = must_build(
        "policies",
        "{\"id\":\"p1\",\"namespace\":\"n1\",\"slug\":\"a\",\"kind\":\"request_rate\",\"limit\":5,"
        "\"window\":\"1s\"},"
        "{\"id\":\"p2\",\"namespace\":null,\"slug\":\"b\",\"kind\":\"request_rate\",\"limit\":9,"
        "\"window\":\"10s\",\"per\":[\"key\",\"model\"],\"priority\":3},"
        "{\"id\":\"p3\",\"namespace\":\"n1\",\"slug\":\"c\",\"kind\":\"output_tokens\",\"limit\":"
        "64,"
        "\"mode\":\"shadow\",\"enabled\":false,\"on_unavailable\":\"deny\"}");
    assert_int_equal(s->policies_n, 3);
    /* Highest priority first, then by id. */
    assert_true(str_eqz(s->policies[0].id, "p2"));
    assert_true(str_eqz(s->policies[1].id, "p1"));
    assert_null(s->policies[0].ns);
    assert_int_equal(s->policies[0].algorithm, SNAP_SLIDING);
    assert_int_equal(s->policies[0].per_n, 2);
    assert_int_equal(s->policies[0].per[1], SNAP_PER_MODEL);
    assert_int_equal(s->policies[1].algorithm, SNAP_BUCKET);
    assert_int_equal(s->policies[1].burst, 5);
    assert_int_equal(s->policies[1].window_ms, 1000);
    assert_int_equal(s->policies[1].per[0], SNAP_PER_NAMESPACE);
    assert_ptr_equal(s->policies[1].ns, &s->namespaces[0]);
    assert_true(s->policies[2].shadow && !s->policies[2].enabled);
    assert_int_equal(s->policies[2].on_unavailable, SNAP_DENY);
    snapshot_unref(s);
}

static void routes_are_in_the_order_in_which_they_are_tried(void **state)
{
    (void)state;
#define ROUTE(id, path, priority)                            \
    "{\"id\":\"" id "\",\"namespace\":\"n1\",\"slug\":\"" id \
    "\",\"upstream\":\"u1\",\"path\":{" path "},\"priority\":" priority "}"
    static const char routes[] = ROUTE("r1", "\"prefix\":\"/\"", "0") "," ROUTE(
        "r2", "\"prefix\":\"/v1/chat/completions\"",
        "0") "," ROUTE("r3", "\"exact\":\"/v1\"",
                       "0") "," ROUTE("r4", "\"prefix\":\"/v1/\"",
                                      "0") "," ROUTE("r5", "\"prefix\":\"/a\"", "9");
    struct snapshot *s = must_build("routes", routes);
    static const char *const order[] = { "r5", "r3", "r2", "r4", "r1" };
    for (size_t i = 0; i < 5; i++) assert_true(str_eqz(s->routes[i].id, order[i]));
    assert_ptr_equal(s->routes[0].upstream, &s->upstreams[0]);
    assert_null(s->routes[0].rewrite_path.p);
    assert_int_equal(s->routes[0].endpoint, SNAP_EP_AUTO);
    snapshot_unref(s);
}

static void conditions_nest(void **state)
{
    (void)state;
    struct snapshot *s = must_build(
        "matchers",
        "{\"id\":\"m\",\"namespace\":\"n1\",\"slug\":\"m\",\"when\":{\"all\":[{\"source\":\"header\","
        "\"name\":\"X-Channel-Code\",\"op\":\"equals\",\"value\":\"test-channel\"},{\"not\":{\"any\":["
        "{\"source\":\"path\",\"op\":\"prefix\",\"value\":\"/x\"},{\"source\":\"model\",\"op\":"
        "\"in\",\"values\":[\"a\",\"b\"]}]}}]}}");
    const struct snap_cond *c = s->matchers[0].when;
    assert_int_equal(c->kind, SNAP_COND_ALL);
    assert_int_equal(c->children_n, 2);
    assert_int_equal(c->children[0].source, SNAP_SRC_HEADER);
    assert_true(str_eqz(c->children[0].name, "x-channel-code"));
    assert_true(str_eqz(c->children[0].values.v[0], "test-channel"));
    const struct snap_cond *not = &c->children[1];
    assert_int_equal(not ->kind, SNAP_COND_NOT);
    assert_int_equal(not ->children_n, 1);
    assert_int_equal(not ->children[0].children_n, 2);
    assert_int_equal(not ->children[0].children[1].values.n, 2);
    snapshot_unref(s);
}

static void keys_are_sorted_and_expire(void **state)
{
    (void)state;
#define HMAC(c) "\"hmac\":\"" c c c c c c c c c c c c c c c c "\""
    struct snapshot *s = must_build(
        "keys", "{\"id\":\"k1\",\"namespace\":\"n1\",\"slug\":\"a\"," HMAC(
                    "ffff") ",\"expires_at\":\"2030-01-31T01:00:00.5+01:00\"},{\"id\":\"k2\","
                            "\"namespace\":\"n1\",\"slug\":\"b\"," HMAC("0001") "}");
    assert_true(str_eqz(s->keys[0].slug, "b"));
    assert_int_equal(s->keys[0].expires_at_ms, 0);
    assert_int_equal(s->keys[1].hmac[0], 0xff);
    assert_true(s->keys[1].expires_at_ms == 1896048000500ull); /* 2030-01-31T00:00:00.5Z */
    snapshot_unref(s);
    refuses("keys",
            "{\"id\":\"k1\",\"namespace\":\"n1\",\"slug\":\"a\"," HMAC(
                "ffff") "},{\"id\":\"k2\",\"namespace\":\"n1\",\"slug\":\"b\"," HMAC("ffff") "}",
            "same secret");
}

static void what_breaks_a_rule_is_refused_with_its_place(void **state)
{
    (void)state;
    static const struct {
        const char *kind, *item, *message;
    } bad[] = {
        { "models", "{\"id\":\"m\"}", "/slug: is required" },
        { "models", "{\"id\":\"m\",\"slug\":\"A b\"}", "/slug" },
        { "models", "{\"id\":\"m\",\"slug\":\"a\",\"context_window\":-1}", "/context_window" },
        { "models", "{\"id\":\"m\",\"slug\":\"a\",\"context_window\":1.5}", "/context_window" },
        { "models", "{\"id\":\"m\",\"slug\":\"a\",\"patterns\":[\"a\",7]}", "/patterns/1" },
        { "models", "{\"id\":\"m\",\"slug\":\"a\",\"price\":{\"currency\":\"usd\"}}",
          "/price/currency" },
        { "models", "{\"id\":\"m\",\"slug\":\"a\",\"vocabulary\":\"../etc\"}", "/vocabulary" },
        { "models", "{\"id\":\"m\",\"slug\":\"a\"},{\"id\":\"m\",\"slug\":\"b\"}", "occurs twice" },
        { "models", "7", "must be an object" },
        { "routes", "{\"id\":\"r\",\"namespace\":\"nope\",\"slug\":\"r\"}", "/namespace" },
        { "routes",
          "{\"id\":\"r\",\"namespace\":\"n1\",\"slug\":\"r\",\"path\":{\"exact\":\"/\"},"
          "\"upstream\":\"nope\"}",
          "there is no upstream nope" },
        { "routes",
          "{\"id\":\"r\",\"namespace\":\"n1\",\"slug\":\"r\",\"path\":{\"exact\":\"/\",\"prefix\":"
          "\"/\"},\"upstream\":\"u1\"}",
          "/path" },
        { "routes",
          "{\"id\":\"r\",\"namespace\":\"n1\",\"slug\":\"r\",\"path\":{\"exact\":\"x\"},"
          "\"upstream\":\"u1\"}",
          "/path/exact" },
        { "policies", "{\"id\":\"p\",\"slug\":\"p\",\"kind\":\"magic\",\"limit\":1}", "/kind" },
        { "policies", "{\"id\":\"p\",\"slug\":\"p\",\"kind\":\"concurrency\",\"limit\":0}",
          "/limit" },
        { "policies",
          "{\"id\":\"p\",\"slug\":\"p\",\"kind\":\"request_rate\",\"limit\":1,\"window\":\"1w\"}",
          "/window" },
        { "policies",
          "{\"id\":\"p\",\"slug\":\"p\",\"kind\":\"concurrency\",\"limit\":1,\"per\":[\"key\","
          "\"key\"]}",
          "/per" },
        { "keys", "{\"id\":\"k\",\"namespace\":\"n1\",\"slug\":\"k\",\"hmac\":\"zz\"}", "/hmac" },
        { "matchers", "{\"id\":\"m\",\"namespace\":\"n1\",\"slug\":\"m\"}", "/when" },
        { "matchers", "{\"id\":\"m\",\"namespace\":\"n1\",\"slug\":\"m\",\"when\":{\"all\":[]}}",
          "/when/all" },
        { "matchers",
          "{\"id\":\"m\",\"namespace\":\"n1\",\"slug\":\"m\",\"when\":{\"any\":[{\"source\":"
          "\"header\",\"value\":\"x\"}]}}",
          "/when/any/0/name" },
        { "upstreams", "{\"id\":\"u2\",\"slug\":\"x\",\"auth\":{\"type\":\"bearer\"}}",
          "/auth/credential" },
        { "upstreams",
          "{\"id\":\"u2\",\"slug\":\"x\",\"auth\":{\"type\":\"header\",\"header\":\"Host\","
          "\"credential\":\"v1:\"}}",
          "/auth/header" },
        { "namespaces", "{\"id\":\"n2\",\"slug\":\"x\",\"auth\":\"maybe\"}", "/auth" },
    };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) refuses(bad[i].kind, bad[i].item, bad[i].message);
}

static void conditions_are_bounded(void **state)
{
    (void)state;
    char text[8192] = "{\"id\":\"m\",\"namespace\":\"n1\",\"slug\":\"m\",\"when\":";
    size_t n = strlen(text);
    for (int i = 0; i < 9; i++) n += (size_t)snprintf(text + n, sizeof(text) - n, "{\"not\":");
    n += (size_t)snprintf(text + n, sizeof(text) - n, "{\"source\":\"path\",\"value\":\"/\"}");
    for (int i = 0; i < 10; i++) n += (size_t)snprintf(text + n, sizeof(text) - n, "}");
    refuses("matchers", text, "nested");
    n = (size_t)snprintf(text, sizeof(text),
                         "{\"id\":\"m\",\"namespace\":\"n1\",\"slug\":\"m\",\"when\":{\"any\":[");
    for (int i = 0; i < 64; i++)
        n += (size_t)snprintf(text + n, sizeof(text) - n, "%s{\"source\":\"path\",\"value\":\"/\"}",
                              i > 0 ? "," : "");
    n += (size_t)snprintf(text + n, sizeof(text) - n, "]}}");
    refuses("matchers", text, "64 conditions");
}

static void server_urls_are_strict(void **state)
{
    (void)state;
    static const char *const bad[] = { "ftp://h",         "http://",        "http://u@h",
                                       "http://h:0",      "http://h:65536", "http://h:80x",
                                       "http://h?q",      "http://h/a?b",   "http://h/a#b",
                                       "http://h/a b",    "http://[::1",    "http://[]",
                                       "http://[::1]x",   "http://[zz]",    "h:80",
                                       "http://h:000080", "http://h:",      "HTTP//h" };
    char item[512];
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        (void)snprintf(item, sizeof(item),
                       "{\"id\":\"u2\",\"slug\":\"x\",\"servers\":[{\"id\":\"s\",\"slug\":\"s\","
                       "\"url\":\"%s\"}]}",
                       bad[i]);
        refuses("upstreams", item, "/servers/0/url");
    }
}

static void unknown_kinds_and_members_are_of_a_later_version(void **state)
{
    (void)state;
    struct snapshot *s = must_build("dreams", "{\"id\":\"x\"}");
    snapshot_unref(s);
    s = must_build("models", "{\"id\":\"m\",\"slug\":\"m\",\"colour\":\"red\"}");
    assert_int_equal(s->models_n, 1);
    snapshot_unref(s);
}

/* --- strict checks ------------------------------------------------------------------------------
 */

struct seen {
    char text[4096];
};

static void note(void *ctx, const char *pointer, const char *message)
{
    struct seen *s = ctx;
    size_t n = strlen(s->text);
    (void)snprintf(s->text + n, sizeof(s->text) - n, "%s: %s\n", pointer, message);
}

static void the_admin_api_hears_every_problem_at_once(void **state)
{
    (void)state;
    struct seen seen = { "" };
    struct json *o;
    assert_int_equal(json_parse(STR("{\"id\":\"p\",\"namespace\":\"anything\",\"slug\":\"P\","
                                    "\"kind\":\"concurrency\",\"window\":\"1s\",\"limt\":3,"
                                    "\"per\":[\"moon\"]}"),
                                4096, &o, NULL),
                     ERR_OK);
    snapshot_check_entity("policies", o, note, &seen);
    json_free(o);
    static const char *const want[] = { "/slug: ", "/limit: is required",
                                        "/window: ", "/limt: is not known", "/per/0: " };
    for (size_t i = 0; i < ARRAY_LEN(want); i++)
        if (strstr(seen.text, want[i]) == NULL) fail_msg("%s not in %s", want[i], seen.text);
    assert_null(strstr(seen.text, "/namespace"));
}

/* --- windows, manifests, pages ------------------------------------------------------------------
 */

static void windows_have_units(void **state)
{
    (void)state;
    uint64_t ms = 0;
    assert_int_equal(snapshot_parse_window(STR("250ms"), &ms), ERR_OK);
    assert_int_equal(ms, 250);
    assert_int_equal(snapshot_parse_window(STR("10m"), &ms), ERR_OK);
    assert_int_equal(ms, 600000);
    assert_int_equal(snapshot_parse_window(STR("1d"), &ms), ERR_OK);
    assert_int_equal(ms, 86400000);
    static const char *const bad[] = { "", "s", "1", "1x", "-1s", "1 s", "1.5s", "99999999999s" };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        assert_int_equal(snapshot_parse_window(str_of(bad[i]), &ms), ERR_INVALID);
}

#define PAGE "1111111111111111111111111111111111111111111111111111111111111111"

static void manifest_text(char *out, size_t cap, const char *head, const char *digest)
{
    (void)snprintf(out, cap,
                   "{\"v\":1,\"id\":\"i\",\"ts\":\"t\",\"from\":\"c\",%s,\"revision\":9,\"digest\":"
                   "\"%s\",\"pages\":[\"" PAGE "\"]}",
                   head, digest);
}

static void manifests_are_checked_against_their_digest(void **state)
{
    (void)state;
    char digest[65], text[1024];
    struct manifest m;
    struct why why;
    crypto_sha256_hex(STR(PAGE "\n"), digest);
    manifest_text(text, sizeof(text), "\"format\":1,\"min_reader\":1", digest);
    assert_int_equal(manifest_parse(str_of(text), &m, &why), ERR_OK);
    assert_int_equal(m.revision, 9);
    assert_int_equal(m.pages_n, 1);
    assert_string_equal(m.pages[0].hex, PAGE);
    manifest_done(&m);
    manifest_text(text, sizeof(text), "\"format\":2,\"min_reader\":1", digest);
    assert_int_equal(manifest_parse(str_of(text), &m, &why), ERR_OK); /* of a later version */
    manifest_done(&m);
    manifest_text(text, sizeof(text), "\"format\":2,\"min_reader\":2", digest);
    assert_int_equal(manifest_parse(str_of(text), &m, &why), ERR_UNSUPPORTED);
    manifest_text(text, sizeof(text), "\"format\":1,\"min_reader\":1", PAGE);
    assert_int_equal(manifest_parse(str_of(text), &m, &why), ERR_INVALID);
    assert_int_equal(manifest_parse(STR("{\"v\":1}"), &m, &why), ERR_INVALID);
    assert_int_equal(manifest_parse(STR("{\"v\":2}"), &m, &why), ERR_UNSUPPORTED);
}

static void pages_list_parts(void **state)
{
    (void)state;
    struct snap_digest *d = NULL;
    size_t n = 0;
    assert_int_equal(page_parse(STR("{\"kind\":\"index\",\"parts\":[{\"kind\":\"x\",\"namespace\":"
                                    "null,\"index\":0,\"digest\":\"" PAGE "\",\"bytes\":10}]}"),
                                &d, &n, NULL),
                     ERR_OK);
    assert_int_equal(n, 1);
    assert_string_equal(d[0].hex, PAGE);
    free(d);
    static const char *const bad[] = {
        "{\"kind\":\"policies\",\"parts\":[]}",
        "{\"kind\":\"index\"}",
        "{\"kind\":\"index\",\"parts\":[{\"digest\":\"" PAGE "\"}]}",
        "{\"kind\":\"index\",\"parts\":[{\"digest\":\"" PAGE "\",\"bytes\":1000000}]}",
        "{\"kind\":\"index\",\"parts\":[{\"digest\":\"AAA\",\"bytes\":1}]}",
        "{\"kind\":\"index\",\"parts\":[7]}",
    };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        assert_int_equal(page_parse(str_of(bad[i]), &d, &n, NULL), ERR_INVALID);
}

/* --- the samples in proto/samples ---------------------------------------------------------------
 */

static void read_sample(const char *folder, const char *name, struct buf *out)
{
    char path[512], *room;
    (void)snprintf(path, sizeof(path), "%s/%s", folder, name);
    FILE *f = fopen(path, "rb");
    if (f == NULL) fail_msg("%s", path);
    buf_clear(out);
    assert_int_equal(buf_reserve(out, 65536, &room), ERR_OK);
    out->len = fread(room, 1, 65536, f);
    fclose(f);
}

static enum err take_manifest(struct str text, struct why *why)
{
    struct manifest m;
    enum err e = manifest_parse(text, &m, why);
    if (e == ERR_OK) manifest_done(&m);
    return e;
}

static enum err take_page(struct str text, struct why *why)
{
    struct snap_digest *d = NULL;
    size_t n;
    enum err e = page_parse(text, &d, &n, why);
    free(d);
    return e;
}

/* The part, with the parts that it may refer to. */
static enum err take_part(struct str text, struct why *why)
{
    static const char folder[] = "proto/samples/snapshot_part/good";
    static const char *const names[] = { "namespaces", "upstreams" };
    struct buf others[2];
    struct str parts[3] = { text };
    size_t n = 1;
    struct snapshot *s = NULL;
    for (size_t i = 0; i < 2; i++) {
        char file[64], begin[64];
        (void)snprintf(file, sizeof(file), "%s.json", names[i]);
        (void)snprintf(begin, sizeof(begin), "{\"kind\": \"%s\"", names[i]);
        buf_init(&others[i], 65536);
        read_sample(folder, file, &others[i]);
        if (!str_starts(text, str_of(begin))) parts[n++] = buf_str(&others[i]);
    }
    enum err e = snapshot_build(1, "", parts, n, &s, why);
    snapshot_unref(s);
    buf_done(&others[0]);
    buf_done(&others[1]);
    return e;
}

static int samples(const char *name, enum err (*fn)(struct str, struct why *), bool good)
{
    char folder[256];
    int n = 0;
    struct dirent *entry;
    struct buf text;
    (void)snprintf(folder, sizeof(folder), "proto/samples/%s/%s", name, good ? "good" : "bad");
    DIR *dir = opendir(folder);
    if (dir == NULL) fail_msg("%s", folder);
    buf_init(&text, 65536);
    while ((entry = readdir(dir)) != NULL) {
        struct why why = { "" };
        if (!str_ends(str_of(entry->d_name), STR(".json"))) continue;
        read_sample(folder, entry->d_name, &text);
        enum err e = fn(buf_str(&text), &why);
        if ((e == ERR_OK) != good)
            fail_msg("%s/%s: %s %s", folder, entry->d_name, err_name(e), why.text);
        n++;
    }
    closedir(dir);
    buf_done(&text);
    return n;
}

static void samples_are_what_they_are_called(void **state)
{
    (void)state;
    assert_int_equal(samples("snapshot_manifest", take_manifest, true), 3);
    assert_int_equal(samples("snapshot_manifest", take_manifest, false), 9);
    assert_int_equal(samples("config_changed", take_manifest, true), 1);
    assert_int_equal(samples("config_changed", take_manifest, false), 3);
    assert_int_equal(samples("snapshot_page", take_page, true), 2);
    assert_int_equal(samples("snapshot_page", take_page, false), 6);
    assert_int_equal(samples("snapshot_part", take_part, true), 18);
    assert_int_equal(samples("snapshot_part", take_part, false), 46);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(entities_come_with_their_defaults),
        cmocka_unit_test(policies_choose_their_algorithm_by_window),
        cmocka_unit_test(routes_are_in_the_order_in_which_they_are_tried),
        cmocka_unit_test(conditions_nest),
        cmocka_unit_test(keys_are_sorted_and_expire),
        cmocka_unit_test(what_breaks_a_rule_is_refused_with_its_place),
        cmocka_unit_test(conditions_are_bounded),
        cmocka_unit_test(server_urls_are_strict),
        cmocka_unit_test(unknown_kinds_and_members_are_of_a_later_version),
        cmocka_unit_test(the_admin_api_hears_every_problem_at_once),
        cmocka_unit_test(windows_have_units),
        cmocka_unit_test(manifests_are_checked_against_their_digest),
        cmocka_unit_test(pages_list_parts),
        cmocka_unit_test(samples_are_what_they_are_called),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
