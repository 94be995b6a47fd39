/* SPDX-License-Identifier: Apache-2.0 */
/* Routes: which requests of a namespace go where, and what is changed on the way. The decoder's
 * thread. */
#include <math.h>

#include "http/h1.h"
#include "proto/snapshot_decode.h"
#include "rt/regex.h"

enum { PATH_MAX_BYTES = 1024, PARAM_MAX_BYTES = 1024, FIELD_MAX_BYTES = 1024 };

/* --- path --- */

static bool is_path(struct str s)
{
    if (s.n == 0 || s.p[0] != '/') return false;
    for (size_t i = 0; i < s.n; i++)
        if ((unsigned char)s.p[i] <= 0x20 || s.p[i] == '?' || s.p[i] == '#' || s.p[i] == '\\')
            return false;
    return true;
}

static struct str decode_path(struct snap_decoder *d, const struct json *o, const char *key,
                              unsigned flags)
{
    struct str s = dec_text(d, o, key, flags, 1, PATH_MAX_BYTES);
    if (s.p != NULL && !is_path(s))
        dec_problem_at(d, key, "must begin with / and hold no space, ?, # or backslash");
    return s;
}

/* A pattern of whole paths, and a rewriting by its groups. */
static void check_regex(struct snap_decoder *d, const struct snap_route *r)
{
    struct regex *compiled;
    struct why why = { "" };
    if (regex_new(r->path, REGEX_WHOLE | REGEX_ANY_BYTES, SNAP_REGEX_STEPS, &compiled, &why) !=
        ERR_OK) {
        size_t mark = dec_enter(d, STR("path"));
        dec_problem_at(d, "regex", "is no regular expression: %s", why.text);
        dec_leave(d, mark);
        return;
    }
    struct str to = r->rewrite_path;
    for (size_t i = 0; to.p != NULL && i < to.n; i++) {
        if (to.p[i] != '$') continue;
        char c = ++i < to.n ? to.p[i] : '\0';
        if (c != '$' && !(c >= '0' && c <= '9'))
            dec_problem_at(d, "rewrite_path", "has a $ that is neither $0 to $9 nor $$");
        else if (c != '$' && (unsigned)(c - '0') > regex_groups(compiled))
            dec_problem_at(d, "rewrite_path", "says $%c, but the pattern has %u groups", c,
                           regex_groups(compiled));
    }
    regex_free(compiled);
}

static void decode_paths(struct snap_decoder *d, const struct json *o, struct snap_route *out)
{
    static const char *const words[] = {
        [SNAP_PATH_EXACT] = "exact", [SNAP_PATH_REGEX] = "regex", [SNAP_PATH_PREFIX] = "prefix"
    };
    static const char *const keys[] = { "exact", "regex", "prefix", NULL };
    const struct json *path = dec_member(o, "path");
    int given = 0;
    out->path = STR("");
    for (size_t i = 0; i < ARRAY_LEN(words); i++) {
        if (dec_member(path, words[i]) == NULL) continue;
        out->path_kind = (enum snap_path_kind)i;
        given++;
    }
    if (path == NULL) {
        dec_problem_at(d, "path", "is required");
    } else if (!json_is(path, JSON_OBJECT) || given != 1) {
        dec_problem_at(d, "path",
                       "must be an object with one of \"exact\", \"prefix\" and \"regex\"");
    } else {
        size_t mark = dec_enter(d, STR("path"));
        struct str s = out->path_kind == SNAP_PATH_REGEX
                           ? dec_text(d, path, "regex", DEC_REQUIRED, 1, PATH_MAX_BYTES)
                           : decode_path(d, path, words[out->path_kind], DEC_REQUIRED);
        if (s.p != NULL) out->path = s;
        dec_known(d, path, keys);
        dec_leave(d, mark);
    }
    out->rewrite_path = decode_path(d, o, "rewrite_path", 0);
    if (out->path_kind == SNAP_PATH_REGEX && out->path.n > 0) check_regex(d, out);
}

static bool is_host(struct str s)
{
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];
        bool alnum = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        if (!alnum && c != '-' && c != '.' && c != '_' && c != '*' && c != ':' && c != '[' &&
            c != ']')
            return false;
    }
    return true;
}

/* --- parameters --- */

/* What the request is about, how it is answered, and what the gateway sets itself. */
static bool is_param(struct str s)
{
    static const char *const others[] = { "model",  "messages",       "prompt", "input", "system",
                                          "stream", "stream_options", "tools",  "user" };
    for (size_t i = 0; i < ARRAY_LEN(others); i++)
        if (str_ieqz(s, others[i])) return false;
    for (size_t i = 0; i < s.n; i++)
        if (!((s.p[i] >= 'a' && s.p[i] <= 'z') || (s.p[i] >= '0' && s.p[i] <= '9') ||
              s.p[i] == '_'))
            return false;
    return s.n > 0 && s.n <= 64;
}

static struct str printed(struct snap_decoder *d, const struct json *v)
{
    struct buf b;
    struct str s = STR_NULL;
    buf_init(&b, PARAM_MAX_BYTES);
    enum err e = json_print(v, &b);
    if (e == ERR_OK)
        s = dec_copy(d, buf_str(&b));
    else if (e == ERR_NOMEM)
        d->out_of_memory = true;
    else
        dec_problem(d, "must be at most %d bytes long", PARAM_MAX_BYTES);
    buf_done(&b);
    return s;
}

static struct snap_param *param_named(struct snap_route *out, struct snap_param *list,
                                      struct str name)
{
    for (size_t i = 0; i < out->params_n; i++)
        if (str_eq(list[i].name, name)) return &list[i];
    if (out->params_n == SNAP_PARAMS_MAX) return NULL;
    list[out->params_n].name = name;
    return &list[out->params_n++];
}

static void decode_param(struct snap_decoder *d, const struct json *group, const struct json *v,
                         bool is_max, struct snap_route *out, struct snap_param *list)
{
    struct str name = json_key(v);
    if (!is_param(name)) {
        dec_problem(d, "is no parameter that a route may set: a-z, 0-9 and _, and nothing of what "
                       "is asked");
        return;
    }
    struct snap_param *p = param_named(out, list, dec_copy(d, name));
    if (p == NULL) {
        dec_problem(d, "is too much: a route may have %d parameters", SNAP_PARAMS_MAX);
    } else if (!is_max) {
        p->value = printed(d, v);
    } else if (json_get_double(group, name.p, &p->max_number) != ERR_OK ||
               !isfinite(p->max_number)) {
        dec_problem(d, "must be a number");
    } else {
        p->max = printed(d, v);
    }
}

static void decode_params(struct snap_decoder *d, const struct json *o, struct snap_route *out)
{
    static const char *const groups[] = { "defaults", "max" };
    struct snap_param *list = NULL;
    for (int g = 0; g < 2; g++) {
        const struct json *group = dec_member(o, groups[g]);
        if (group == NULL) continue;
        if (!json_is(group, JSON_OBJECT)) {
            dec_problem_at(d, groups[g], "must be an object of parameters");
            continue;
        }
        if (list == NULL) list = dec_alloc(d, SNAP_PARAMS_MAX, sizeof *list);
        if (list == NULL) return;
        size_t mark = dec_enter(d, str_of(groups[g]));
        for (const struct json *v = json_first(group); v != NULL; v = json_next(v)) {
            size_t inner = dec_enter(d, json_key(v));
            decode_param(d, group, v, g == 1, out, list);
            dec_leave(d, inner);
        }
        dec_leave(d, mark);
    }
    out->params = list;
}

/* --- header fields --- */

/* What the gateway itself decides: framing, credentials, identity. */
static const char *field_problem(struct str name, bool request)
{
    static const char *const ours[] = { "content-length", "content-encoding", "content-type",
                                        "x-request-id", "date" };
    static const char *const of_requests[] = { "host",      "expect",          "authorization",
                                               "x-api-key", "accept-encoding", "cookie" };
    if (!dec_is_token(name) || name.n > 128) return "must be the name of a header";
    if (h1_is_hop_by_hop(name)) return "belongs to one connection and cannot be edited";
    for (size_t i = 0; i < ARRAY_LEN(ours); i++)
        if (str_ieqz(name, ours[i])) return "is set by the gateway and cannot be edited";
    for (size_t i = 0; request && i < ARRAY_LEN(of_requests); i++)
        if (str_ieqz(name, of_requests[i]))
            return "is set by the gateway and cannot be edited; credentials belong to the upstream";
    if (name.n > 7 && str_ieq(str_n(name.p, 7), STR("x-aigw-")))
        return "is set by the gateway and cannot be edited";
    return NULL;
}

static const struct snap_field *decode_fields(struct snap_decoder *d, const struct json *o,
                                              const char *key, bool request, size_t *ret_n)
{
    const struct json *list = dec_member(o, key);
    size_t n = json_len(list), i = 0;
    *ret_n = 0;
    if (list == NULL || (json_is(list, JSON_OBJECT) && n == 0)) return NULL;
    if (!json_is(list, JSON_OBJECT) || n > SNAP_EDITS_MAX) {
        dec_problem_at(d, key, "must be an object of at most %d fields", SNAP_EDITS_MAX);
        return NULL;
    }
    struct snap_field *v = dec_alloc(d, n, sizeof *v);
    if (v == NULL) return NULL;
    size_t mark = dec_enter(d, str_of(key));
    for (const struct json *it = json_first(list); it != NULL; it = json_next(it), i++) {
        struct str name = json_key(it), value = json_str(it);
        const char *problem = field_problem(name, request);
        if (problem == NULL &&
            (value.p == NULL || value.n > FIELD_MAX_BYTES || !h1_is_field_value(value)))
            problem = "must be a string that HTTP takes as a field's value, of at most 1024 bytes";
        size_t inner = dec_enter(d, name);
        if (problem != NULL) dec_problem(d, "%s", problem);
        dec_leave(d, inner);
        v[i] = (struct snap_field){ dec_copy_lower(d, name),
                                    dec_copy(d, value.p != NULL ? value : STR("")) };
    }
    dec_leave(d, mark);
    *ret_n = n;
    return v;
}

static void decode_edits(struct snap_decoder *d, const struct json *headers, const char *key,
                         struct snap_header_edits *out)
{
    static const char *const keys[] = { "set", "add", "remove", NULL };
    const struct json *o = dec_member(headers, key);
    bool request = strcmp(key, "request") == 0;
    if (o == NULL) return;
    if (!json_is(o, JSON_OBJECT)) {
        dec_problem_at(d, key, "must be an object with \"set\", \"add\" and \"remove\"");
        return;
    }
    size_t mark = dec_enter(d, str_of(key));
    out->set = decode_fields(d, o, "set", request, &out->set_n);
    out->add = decode_fields(d, o, "add", request, &out->add_n);
    out->remove = dec_strings(d, o, "remove", SNAP_EDITS_MAX, 128, dec_is_token,
                              "must be the name of a header");
    size_t list = dec_enter(d, STR("remove"));
    for (size_t i = 0; i < out->remove.n; i++) {
        struct str name = out->remove.v[i];
        const char *problem = name.p != NULL ? field_problem(name, request) : NULL;
        size_t inner = dec_enter_index(d, i);
        if (problem != NULL) dec_problem(d, "%s", problem);
        dec_leave(d, inner);
    }
    dec_leave(d, list);
    dec_known(d, o, keys);
    dec_leave(d, mark);
}

static void decode_headers(struct snap_decoder *d, const struct json *o, struct snap_route *out)
{
    static const char *const keys[] = { "request", "response", NULL };
    const struct json *headers = dec_member(o, "headers");
    if (headers == NULL) return;
    if (!json_is(headers, JSON_OBJECT)) {
        dec_problem_at(d, "headers", "must be an object with \"request\" and \"response\"");
        return;
    }
    size_t mark = dec_enter(d, STR("headers"));
    decode_edits(d, headers, "request", &out->request);
    decode_edits(d, headers, "response", &out->response);
    dec_known(d, headers, keys);
    dec_leave(d, mark);
}

/* --- the whole --- */

void snap_decode_route(struct snap_decoder *d, const struct json *o, struct snap_route *out)
{
    static const char *const endpoints[] = {
        [SNAP_EP_AUTO] = "auto",
        [SNAP_EP_CHAT] = "chat",
        [SNAP_EP_COMPLETIONS] = "completions",
        [SNAP_EP_EMBEDDINGS] = "embeddings",
        [SNAP_EP_RESPONSES] = "responses",
        [SNAP_EP_MESSAGES] = "messages",
        [SNAP_EP_MODELS] = "models",
        [SNAP_EP_PASSTHROUGH] = "passthrough",
    };
    static const char *const keys[] = { "id",        "namespace", "slug",         "priority",
                                        "path",      "hosts",     "methods",      "models",
                                        "endpoint",  "upstream",  "rewrite_path", "upstream_model",
                                        "fallbacks", "defaults",  "max",          "headers",
                                        NULL };
    out->id = dec_id(d, o, "id");
    out->slug = dec_slug(d, o);
    out->ns = dec_namespace(d, o, false);
    out->priority = dec_i64(d, o, "priority", 0, -DEC_PRIORITY_MAX, DEC_PRIORITY_MAX);
    decode_paths(d, o, out);
    out->hosts = dec_strings(d, o, "hosts", SNAP_HOSTS_MAX, 255, is_host,
                             "must be a host's name, or one with * such as *.example.com");
    out->methods = dec_strings(d, o, "methods", 16, 32, dec_is_token, "must be an HTTP method");
    out->models = dec_models(d, o, "models");
    out->endpoint = (enum snap_endpoint)dec_word(d, o, "endpoint", endpoints, ARRAY_LEN(endpoints),
                                                 0);
    struct str upstream = dec_id(d, o, "upstream");
    if (d->resolve && upstream.n > 0) {
        out->upstream = map_get(d->upstreams, upstream);
        if (out->upstream == NULL)
            dec_problem_at(d, "upstream", "there is no upstream %.*s", STR_ARG(upstream));
    }
    out->upstream_model = dec_text(d, o, "upstream_model", 0, 1, DEC_MODEL_MAX);
    dec_fallbacks(d, o, out);
    decode_params(d, o, out);
    decode_headers(d, o, out);
    dec_known(d, o, keys);
}
