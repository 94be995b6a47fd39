/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The shape of every kind of entity: the members, their bounds and defaults. Used to read
 * snapshots and, strictly, by the admin API. The decoder's thread.
 */
#include "proto/snapshot_decode.h"

#include <stdio.h>

enum {
    NAME_MAX_BYTES = 200,
    MODEL_NAME_MAX_BYTES = DEC_MODEL_MAX,
    PATH_MAX_BYTES = 1024,
    VALUE_MAX_BYTES = 1024,
    VALUES_MAX = 256
};
static const int64_t priority_max = DEC_PRIORITY_MAX;
static const uint64_t window_max_tokens = 1000000000000;

/* --- references --- */

const struct snap_namespace *dec_namespace(struct snap_decoder *d, const struct json *o,
                                           bool optional)
{
    if (optional && dec_member(o, "namespace") == NULL) return NULL;
    struct str id = dec_id(d, o, "namespace");
    const struct snap_namespace *ns = d->resolve && id.n > 0 ? map_get(d->namespaces, id) : NULL;
    if (d->resolve && id.n > 0 && ns == NULL)
        dec_problem_at(d, "namespace", "there is no namespace %.*s", STR_ARG(id));
    return ns;
}

static struct str optional_text(struct snap_decoder *d, const struct json *o, const char *key,
                                size_t max)
{
    struct str s = dec_text(d, o, key, 0, 0, max);
    return s.p != NULL ? s : STR("");
}

/* --- namespaces --- */

void snap_decode_namespace(struct snap_decoder *d, const struct json *o, struct snap_namespace *out)
{
    static const char *const auths[] = { [SNAP_AUTH_KEY] = "key", [SNAP_AUTH_NONE] = "none" };
    static const char *const keys[] = { "id", "slug", "name", "enabled", "auth", "default", NULL };
    out->id = dec_id(d, o, "id");
    out->slug = dec_slug(d, o);
    out->name = optional_text(d, o, "name", NAME_MAX_BYTES);
    out->enabled = dec_bool(d, o, "enabled", true);
    out->is_default = dec_bool(d, o, "default", false);
    out->auth = (enum snap_auth)dec_word(d, o, "auth", auths, ARRAY_LEN(auths), SNAP_AUTH_KEY);
    dec_known(d, o, keys);
}

/* --- matchers --- */

static void decode_test(struct snap_decoder *d, const struct json *o, struct snap_cond *out)
{
    static const char *const sources[] = {
        [SNAP_SRC_HEADER] = "header", [SNAP_SRC_QUERY] = "query", [SNAP_SRC_PATH] = "path",
        [SNAP_SRC_METHOD] = "method", [SNAP_SRC_HOST] = "host",   [SNAP_SRC_MODEL] = "model",
    };
    static const char *const ops[] = {
        [SNAP_OP_EQUALS] = "equals",     [SNAP_OP_IN] = "in",
        [SNAP_OP_PREFIX] = "prefix",     [SNAP_OP_SUFFIX] = "suffix",
        [SNAP_OP_CONTAINS] = "contains", [SNAP_OP_EXISTS] = "exists",
    };
    static const char *const keys[] = { "source", "name", "op", "value", "values", NULL };
    out->kind = SNAP_COND_TEST;
    out->source = (enum snap_source)dec_word(d, o, "source", sources, ARRAY_LEN(sources), -1);
    out->op = (enum snap_op)dec_word(d, o, "op", ops, ARRAY_LEN(ops), SNAP_OP_EQUALS);
    if (out->source == SNAP_SRC_HEADER || out->source == SNAP_SRC_QUERY) {
        struct str name = dec_text(d, o, "name", DEC_REQUIRED, 1, 128);
        if (name.p != NULL && out->source == SNAP_SRC_HEADER) {
            if (!dec_is_token(name)) dec_problem_at(d, "name", "must be the name of a header");
            name = dec_copy_lower(d, name);
        }
        out->name = name;
    } else {
        dec_absent(d, o, "name", "only headers and query arguments have a name");
    }
    if (out->op == SNAP_OP_IN) {
        out->values = dec_strings(d, o, "values", VALUES_MAX, VALUE_MAX_BYTES, NULL, "");
        if (dec_member(o, "values") == NULL || json_len(json_get(o, "values")) == 0)
            dec_problem_at(d, "values", "must hold at least one value");
        dec_absent(d, o, "value", "\"in\" takes \"values\"");
    } else if (out->op == SNAP_OP_EXISTS) {
        dec_absent(d, o, "value", "\"exists\" takes no value");
        dec_absent(d, o, "values", "\"exists\" takes no values");
    } else {
        struct str *one = dec_alloc(d, 1, sizeof(*one));
        struct str value = dec_text(d, o, "value", DEC_REQUIRED, 0, VALUE_MAX_BYTES);
        bool runs = out->op != SNAP_OP_EQUALS;
        if (value.p != NULL && value.n == 0 && runs)
            dec_problem_at(d, "value", "must not be empty");
        if (one != NULL && value.p != NULL) {
            *one = value;
            out->values = (struct snap_strings){ one, 1 };
        }
        dec_absent(d, o, "values", "only \"in\" takes several values");
    }
    dec_known(d, o, keys);
}

static void decode_cond(struct snap_decoder *d, const struct json *o, struct snap_cond *out,
                        int depth, int *nodes)
{
    static const char *const groups[] = { "all", "any", "not" };
    static const enum snap_cond_kind kinds[] = { SNAP_COND_ALL, SNAP_COND_ANY, SNAP_COND_NOT };
    size_t found = ARRAY_LEN(groups), i = 0;
    out->kind = SNAP_COND_ANY; /* of nothing: holds never */
    if (depth >= SNAP_COND_MAX_DEPTH) {
        dec_problem(d, "conditions may be nested %d deep", SNAP_COND_MAX_DEPTH);
        return;
    }
    if (++*nodes > SNAP_COND_MAX_NODES) {
        if (*nodes == SNAP_COND_MAX_NODES + 1)
            dec_problem(d, "a matcher may have %d conditions", SNAP_COND_MAX_NODES);
        return;
    }
    for (size_t g = 0; g < ARRAY_LEN(groups) && found == ARRAY_LEN(groups); g++)
        if (dec_member(o, groups[g]) != NULL) found = g;
    if (!json_is(o, JSON_OBJECT)) {
        dec_problem(d, "must be an object with \"all\", \"any\", \"not\" or a test");
        return;
    }
    if (found == ARRAY_LEN(groups)) {
        decode_test(d, o, out);
        return;
    }
    if (json_len(o) != 1)
        dec_problem(d, "\"%s\" must be the only member of its object", groups[found]);
    const struct json *under = json_get(o, groups[found]);
    size_t mark = dec_enter(d, str_of(groups[found])), n = json_len(under);
    bool not = kinds[found] == SNAP_COND_NOT;
    if (!not &&(!json_is(under, JSON_ARRAY) || n == 0)) {
        dec_problem(d, "must be a list of at least one condition");
    } else {
        n = not ? 1 : MIN(n, (size_t)SNAP_COND_MAX_NODES + 1);
        struct snap_cond *children = dec_alloc(d, n, sizeof(*children));
        const struct json *it = not ? under : json_first(under);
        for (; children != NULL && i < n && it != NULL; i++, it = not ? NULL : json_next(it)) {
            size_t inner = not ? d->pointer_n : dec_enter_index(d, i);
            decode_cond(d, it, &children[i], depth + 1, nodes);
            dec_leave(d, inner);
        }
        out->kind = kinds[found];
        out->children = children;
        out->children_n = children != NULL ? i : 0;
    }
    dec_leave(d, mark);
}

void snap_decode_matcher(struct snap_decoder *d, const struct json *o, struct snap_matcher *out)
{
    static const char *const keys[] = { "id", "namespace", "slug", "priority", "when", NULL };
    out->id = dec_id(d, o, "id");
    out->slug = dec_slug(d, o);
    out->ns = dec_namespace(d, o, false);
    out->priority = dec_i64(d, o, "priority", 0, -priority_max, priority_max);
    struct snap_cond *when = dec_alloc(d, 1, sizeof(*when));
    if (dec_member(o, "when") == NULL) {
        dec_problem_at(d, "when", "is required");
    } else if (when != NULL) {
        int nodes = 0;
        size_t mark = dec_enter(d, STR("when"));
        decode_cond(d, json_get(o, "when"), when, 0, &nodes);
        dec_leave(d, mark);
    }
    out->when = when;
    dec_known(d, o, keys);
}

/* --- routes --- */

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
    static const char *const keys[] = { "id",       "namespace",    "slug",           "priority",
                                        "path",     "methods",      "models",         "endpoint",
                                        "upstream", "rewrite_path", "upstream_model", NULL };
    static const char *const path_keys[] = { "exact", "prefix", NULL };
    out->id = dec_id(d, o, "id");
    out->slug = dec_slug(d, o);
    out->ns = dec_namespace(d, o, false);
    out->priority = dec_i64(d, o, "priority", 0, -priority_max, priority_max);
    const struct json *path = dec_member(o, "path");
    bool exact = dec_member(path, "exact") != NULL, prefix = dec_member(path, "prefix") != NULL;
    if (path == NULL) {
        dec_problem_at(d, "path", "is required");
    } else if (!json_is(path, JSON_OBJECT) || exact == prefix) {
        dec_problem_at(d, "path", "must be an object with either \"exact\" or \"prefix\"");
    } else {
        size_t mark = dec_enter(d, STR("path"));
        out->path_is_prefix = prefix;
        out->path = decode_path(d, path, prefix ? "prefix" : "exact", DEC_REQUIRED);
        dec_known(d, path, path_keys);
        dec_leave(d, mark);
    }
    if (out->path.p == NULL) out->path = STR("");
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
    out->rewrite_path = decode_path(d, o, "rewrite_path", 0);
    out->upstream_model = dec_text(d, o, "upstream_model", 0, 1, MODEL_NAME_MAX_BYTES);
    dec_known(d, o, keys);
}

/* --- models --- */

static bool is_vocabulary(struct str s)
{
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];
        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
              strchr("-_.", c) != NULL))
            return false;
    }
    return s.n == 0 || s.p[0] != '.';
}

static void decode_price(struct snap_decoder *d, const struct json *o, struct snap_model *out)
{
    static const char *const keys[] = { "currency",    "revision",    "input_nano",
                                        "output_nano", "cached_nano", NULL };
    const int64_t max = 1000000000000000;
    const struct json *price = dec_member(o, "price");
    out->currency = STR("");
    if (price == NULL) return;
    if (!json_is(price, JSON_OBJECT)) {
        dec_problem_at(d, "price", "must be an object");
        return;
    }
    size_t mark = dec_enter(d, STR("price"));
    struct str currency = dec_text(d, price, "currency", DEC_REQUIRED, 3, 3);
    if (currency.p != NULL) out->currency = currency;
    for (size_t i = 0; i < out->currency.n; i++) {
        if (out->currency.p[i] >= 'A' && out->currency.p[i] <= 'Z') continue;
        dec_problem_at(d, "currency", "must be three capital letters (ISO 4217)");
        break;
    }
    out->price_revision = dec_i64(d, price, "revision", 1, 0, max);
    out->input_nano = dec_i64(d, price, "input_nano", 0, 0, max);
    out->output_nano = dec_i64(d, price, "output_nano", 0, 0, max);
    out->cached_nano = dec_i64(d, price, "cached_nano", out->input_nano, 0, max);
    dec_known(d, price, keys);
    dec_leave(d, mark);
}

void snap_decode_model(struct snap_decoder *d, const struct json *o, struct snap_model *out)
{
    static const char *const keys[] = { "id",         "slug",           "name",  "patterns",
                                        "vocabulary", "context_window", "price", NULL };
    out->id = dec_id(d, o, "id");
    out->slug = dec_slug(d, o);
    out->name = optional_text(d, o, "name", MODEL_NAME_MAX_BYTES);
    out->patterns = dec_models(d, o, "patterns");
    if (out->patterns.n == 0) { /* a model without patterns is what its name says */
        struct str *one = dec_alloc(d, 1, sizeof(*one));
        if (one != NULL) {
            *one = out->name.n > 0 ? out->name : out->slug;
            out->patterns = (struct snap_strings){ one, 1 };
        }
    }
    out->vocabulary = optional_text(d, o, "vocabulary", 64);
    if (!is_vocabulary(out->vocabulary))
        dec_problem_at(d, "vocabulary", "must be made of letters, digits, -, _ and .");
    out->context_window = dec_u64(d, o, "context_window", 0, 0, 0, window_max_tokens);
    decode_price(d, o, out);
    dec_known(d, o, keys);
}

/* --- keys --- */

void snap_decode_key(struct snap_decoder *d, const struct json *o, struct snap_key *out)
{
    static const char *const keys[] = { "id",      "namespace",  "slug",   "prefix", "hmac",
                                        "enabled", "expires_at", "models", NULL };
    out->id = dec_id(d, o, "id");
    out->slug = dec_slug(d, o);
    out->ns = dec_namespace(d, o, false);
    out->prefix = optional_text(d, o, "prefix", 32);
    struct str hmac = dec_text(d, o, "hmac", DEC_REQUIRED, 0, 128);
    if (hmac.p != NULL && hex_decode(hmac, out->hmac, SNAP_HMAC_LEN) != ERR_OK)
        dec_problem_at(d, "hmac", "must be 64 hexadecimal digits");
    out->enabled = dec_bool(d, o, "enabled", true);
    struct str expires = dec_text(d, o, "expires_at", 0, 0, 64);
    if (expires.p != NULL && dec_parse_time(expires, &out->expires_at_ms) != ERR_OK)
        dec_problem_at(d, "expires_at", "must be a time of RFC 3339, such as 2030-01-31T00:00:00Z");
    out->models = dec_models(d, o, "models");
    dec_known(d, o, keys);
}
