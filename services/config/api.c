/* SPDX-License-Identifier: Apache-2.0 */
/* The table of routes, authorization, and what every handler needs. */
#include "api_impl.h"

#include <stdio.h>
#include <stdlib.h>

#include "rt/crypto.h"
#include "rt/yaml.h"

enum { CALL_ARENA_MAX = 512 << 20, BODY_MAX = 64 << 20, LIMIT_DEFAULT = 100, LIMIT_MAX = 1000 };

static void api_openapi(void *ctx, const struct http_request *req, struct http_reply *reply);

/* The first that matches path and method wins: fixed words before {}. */
static const struct http_route routes[] = {
    { "GET", "/openapi.json", api_openapi },
    { "GET", "/api/v2/config", api_export },
    { "PUT", "/api/v2/config", api_import },
    { "GET", "/api/v2/revisions", api_revisions },
    { "GET", "/api/v2/revisions/{}", api_revision },
    { "GET", "/api/v2/revisions/{}/diff/{}", api_diff },
    { "POST", "/api/v2/revisions/{}/rollback", api_rollback },
    { "GET", "/api/v2/audit", api_audit },
    { "GET", "/api/v2/instances", api_instances },
    { "DELETE", "/api/v2/instances/{}", api_instance_delete },
    { "POST", "/api/v2/keys/{}/rotate", api_key_rotate },
    { "GET", "/api/v2/policies/{}/usage", api_policy_usage },
    { "POST", "/api/v2/policies/{}/reset", api_policy_reset },
    { "POST", "/api/v2/explain", api_explain },
    { "GET", "/api/v2/servers", api_servers_list },
    { "POST", "/api/v2/servers", api_servers_create },
    { "GET", "/api/v2/servers/{}", api_server_get },
    { "PUT", "/api/v2/servers/{}", api_server_put },
    { "PATCH", "/api/v2/servers/{}", api_server_patch },
    { "DELETE", "/api/v2/servers/{}", api_server_delete },
    { "GET", "/api/v2/upstreams/{}/servers", api_servers_list },
    { "POST", "/api/v2/upstreams/{}/servers", api_servers_create },
    { "GET", "/api/v2/upstreams/{}/servers/{}", api_server_get },
    { "PUT", "/api/v2/upstreams/{}/servers/{}", api_server_put },
    { "PATCH", "/api/v2/upstreams/{}/servers/{}", api_server_patch },
    { "DELETE", "/api/v2/upstreams/{}/servers/{}", api_server_delete },
    { "GET", "/api/v2/{}", api_list },
    { "POST", "/api/v2/{}", api_create },
    { "GET", "/api/v2/{}/{}", api_get },
    { "PUT", "/api/v2/{}/{}", api_put },
    { "PATCH", "/api/v2/{}/{}", api_patch },
    { "DELETE", "/api/v2/{}/{}", api_delete },
};

const struct http_route *api_routes(size_t *ret_n)
{
    *ret_n = ARRAY_LEN(routes);
    return routes;
}

/* --- calls --- */

void call_begin(struct call *c, void *ctx, const struct http_request *req, struct http_reply *reply)
{
    *c = (struct call){ .api = ctx, .req = req, .reply = reply };
    arena_init(&c->arena, CALL_ARENA_MAX);
    problems_init(&c->problems);
}

void call_end(struct call *c)
{
    problems_done(&c->problems);
    arena_done(&c->arena);
}

/* --- answers --- */

static void print_into(struct http_reply *reply, struct json *takes)
{
    buf_clear(&reply->body);
    if (json_print(takes, &reply->body) != ERR_OK ||
        buf_append_char(&reply->body, '\n') != ERR_OK) {
        buf_clear(&reply->body);
        reply->status = 500;
    }
    json_free(takes);
}

void answer_json(struct call *c, int status, struct json *takes)
{
    c->reply->status = status;
    print_into(c->reply, takes);
}

static const char *title_of(int status)
{
    switch (status) {
    case 400: return "Bad request";
    case 401: return "Unauthorized";
    case 404: return "Not found";
    case 405: return "Method not allowed";
    case 409: return "Conflict";
    case 412: return "Precondition failed";
    case 413: return "Content too large";
    case 422: return "Validation failed";
    case 503: return "Service unavailable";
    default: return status < 500 ? "Request refused" : "Internal error";
    }
}

static void fill_problem(struct http_reply *reply, int status, const char *detail,
                         const struct json *violations)
{
    struct json *o = json_object();
    json_setz(o, "type", "about:blank");
    json_setz(o, "title", title_of(status));
    json_set_u64(o, "status", (uint64_t)status);
    if (detail != NULL && detail[0] != '\0') json_setz(o, "detail", detail);
    if (violations != NULL && json_len(violations) > 0)
        json_set(o, "violations", json_copy(violations));
    reply->status = status;
    reply->content_type = "application/problem+json";
    print_into(reply, o);
}

void answer_problem(struct call *c, int status, const char *detail)
{
    fill_problem(c->reply, status, detail, c->problems.list);
}

void answer_error(struct call *c, enum err e)
{
    int status = 500;
    const char *detail = c->why.text;
    if (c->problems.n > 0) {
        answer_problem(c, 422, "the request breaks the rules that are listed");
        return;
    }
    switch (e) {
    case ERR_NOT_FOUND:
        status = 404;
        if (detail[0] == '\0') detail = "there is no such thing";
        break;
    case ERR_INVALID: status = 400; break;
    case ERR_LIMIT: status = 413; break;
    case ERR_EXISTS: status = 409; break;
    case ERR_CONFLICT:
    case ERR_UNAVAILABLE:
    case ERR_TIMEOUT:
        status = 503;
        http_reply_header(c->reply, "Retry-After", "1");
        break;
    default: break;
    }
    fill_problem(c->reply, status, detail, NULL);
}

void answer_headers(struct call *c, const struct row *r)
{
    http_reply_header(c->reply, "ETag", "\"%llu\"", (unsigned long long)r->revision);
}

/* --- the server's hooks --- */

static bool is_authorized(const struct api *api, const struct http_request *req)
{
    struct str h = http_header(req, "authorization"), token = str_of(api->admin_token);
    unsigned char given[SHA256_LEN], want[SHA256_LEN];
    if (token.n == 0 || h.n < 7 || !str_ieqz(str_n(h.p, 7), "Bearer ")) return false;
    /* Digests, so that the time tells nothing about the length either. */
    crypto_sha256(str_trim(str_n(h.p + 7, h.n - 7)), given);
    crypto_sha256(token, want);
    return mem_eq_const_time(given, want, sizeof(want));
}

bool api_before(void *ctx, const struct http_request *req, struct http_reply *reply)
{
    struct api *api = ctx;
    if (str_eqz(req->path, "/openapi.json") || is_authorized(api, req)) return true;
    http_reply_header(reply, "WWW-Authenticate", "Bearer realm=\"aigw-config\"");
    fill_problem(reply, 401,
                 api->admin_token[0] == '\0' ? "ADMIN_TOKEN is not set, so nobody may use this API"
                                             : "a bearer token is needed",
                 NULL);
    return false;
}

void api_after(void *ctx, const struct http_request *req, const char *route, int status,
               uint64_t ns)
{
    struct api *api = ctx;
    if (api->observe != NULL) api->observe(api->ctx, req->method, route, status, ns);
}

void api_error_body(void *ctx, int status, const char *message, struct http_reply *reply)
{
    (void)ctx;
    fill_problem(reply, status, message, NULL);
}

static void api_openapi(void *ctx, const struct http_request *req, struct http_reply *reply)
{
    struct api *api = ctx;
    (void)req;
    print_into(reply, json_copy(api->openapi));
}

/* --- requests --- */

static bool is_yaml(struct str type)
{
    static const char *const names[] = { "application/yaml", "application/x-yaml", "text/yaml",
                                         "text/x-yaml" };
    struct str base = str_trim(str_cut(&type, ';'));
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (str_ieqz(base, names[i])) return true;
    return false;
}

bool read_body(struct call *c, size_t max, struct json **ret)
{
    struct str type = http_header(c->req, "content-type");
    enum err e = type.p != NULL && is_yaml(type) ? yaml_parse(c->req->body, max, ret, &c->why)
                                                 : json_parse(c->req->body, max, ret, &c->why);
    if (e == ERR_OK) return true;
    char detail[400];
    (void)snprintf(detail, sizeof(detail), "the body: %s", c->why.text);
    answer_problem(c, e == ERR_LIMIT ? 413 : 400, detail);
    return false;
}

bool read_flag(struct call *c, const char *name, bool def, bool *ret)
{
    struct str v = http_query(c->req, name);
    *ret = def;
    if (v.p == NULL || str_to_bool(v, ret) == ERR_OK) return true;
    (void)why_set(&c->why, ERR_INVALID, "?%s= must be true or false", name);
    answer_error(c, ERR_INVALID);
    return false;
}

bool read_limit(struct call *c, size_t *ret)
{
    struct str v = http_query(c->req, "limit");
    uint64_t n = LIMIT_DEFAULT;
    if (v.p != NULL && (str_to_u64(v, &n) != ERR_OK || n == 0 || n > LIMIT_MAX)) {
        (void)why_set(&c->why, ERR_INVALID, "?limit= must be from 1 to %d", LIMIT_MAX);
        answer_error(c, ERR_INVALID);
        return false;
    }
    *ret = n;
    return true;
}

bool check_if_match(struct call *c, const struct row *r)
{
    char tag[32];
    struct str h = http_header(c->req, "if-match");
    if (h.p == NULL || str_eqz(str_trim(h), "*")) return true;
    (void)snprintf(tag, sizeof(tag), "\"%llu\"", (unsigned long long)r->revision);
    while (h.p != NULL)
        if (str_eqz(str_trim(str_cut(&h, ',')), tag)) return true;
    http_reply_header(c->reply, "ETag", "%s", tag);
    answer_problem(c, 412, "it was changed meanwhile: If-Match does not name its ETag");
    return false;
}

enum err find_row(struct call *c, struct db *d, enum kind k, struct str text, struct row *ret)
{
    struct rows found;
    struct row_filter f = { .slug = text };
    struct str ns = http_query(c->req, "namespace");
    enum err e = ERR_NOT_FOUND;
    if (text.n <= 64) e = store_get(d, k, text, &c->arena, ret, &c->why);
    if (e != ERR_NOT_FOUND || !str_is_slug(text)) return e;
    if (kind_has_namespace(k) && ns.p != NULL) {
        f.parent = STR("");
        if (ns.n > 0)
            e = model_resolve(d, KIND_NAMESPACE, STR(""), ns, &c->arena, &f.parent, &c->why);
        if (ns.n > 0 && e != ERR_OK) return e;
    }
    e = store_list(d, k, &f, &c->arena, &found, &c->why);
    if (e != ERR_OK) return e;
    if (found.n == 0) return ERR_NOT_FOUND;
    if (found.n > 1) return ERR_EXISTS;
    *ret = found.v[0];
    return ERR_OK;
}

/* --- changes --- */

struct json *changes_json(const struct audit *v, size_t n, bool with_bodies)
{
    struct json *list = json_array();
    for (size_t i = 0; i < n; i++) {
        struct json *o = json_object();
        json_set_str(o, "action", v[i].action);
        json_setz(o, "kind", kind_name(v[i].kind));
        json_set_str(o, "id", v[i].id);
        json_set_str(o, "slug", v[i].slug);
        if (with_bodies && v[i].before.p != NULL)
            json_set(o, "before", model_redact(v[i].kind, v[i].before));
        if (with_bodies && v[i].after.p != NULL)
            json_set(o, "after", model_redact(v[i].kind, v[i].after));
        json_push(list, o);
    }
    return list;
}

void abandon_change(struct call *c, struct tx *t, enum err e)
{
    tx_rollback(t);
    answer_error(c, e);
}

static void answer_dry_run(struct call *c, struct tx *t)
{
    struct audit *v;
    size_t n;
    enum err e = store_audit(t->db, t->revision - 1, t->revision, STR_NULL, 100000, &c->arena, &v,
                             &n, &c->why);
    tx_rollback(t);
    if (e != ERR_OK) {
        answer_error(c, e);
        return;
    }
    struct json *o = json_object();
    json_set_bool(o, "dry_run", true);
    json_set_bool(o, "changed", n > 0);
    json_set(o, "changes", changes_json(v, n, true));
    answer_json(c, 200, o);
}

bool finish_change(struct call *c, struct tx *t, const char *summary, uint64_t *ret_revision)
{
    if (c->dry_run) {
        answer_dry_run(c, t);
        return false;
    }
    enum err e = tx_commit(t, "admin", summary, ret_revision, &c->why);
    if (e != ERR_OK) {
        answer_error(c, e);
        return false;
    }
    http_reply_header(c->reply, "x-aigw-revision", "%llu", (unsigned long long)*ret_revision);
    return true;
}
