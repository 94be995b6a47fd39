/* SPDX-License-Identifier: Apache-2.0 */
#include "match.h"

#include "tokenizer/models.h"

static struct str query_value(struct str query, struct str name)
{
    while (query.n > 0) {
        struct str value = str_cut(&query, '&'), key = str_cut(&value, '=');
        if (str_eq(key, name)) return value.p != NULL ? value : STR("");
    }
    return STR_NULL;
}

static struct str source_value(const struct snap_cond *c, const struct match_input *in)
{
    switch (c->source) {
    case SNAP_SRC_HEADER: return h1_header(&in->req->head, c->name);
    case SNAP_SRC_QUERY: return query_value(in->req->query, c->name);
    case SNAP_SRC_PATH: return in->req->path;
    case SNAP_SRC_METHOD: return in->req->method_str;
    case SNAP_SRC_HOST: return in->req->host;
    case SNAP_SRC_MODEL: return in->model;
    case SNAP_SRC_CLIENT_IP:
    case SNAP_SRC_KEY:
    case SNAP_SRC_CLAIM:
    case SNAP_SRC_BODY: break;
    }
    return STR_NULL;
}

static bool test(const struct snap_cond *c, const struct match_input *in)
{
    struct str v = source_value(c, in);
    if (v.p == NULL) return false;
    if (c->op == SNAP_OP_EXISTS) return true;
    for (size_t i = 0; i < c->values.n; i++) {
        struct str want = c->values.v[i];
        bool holds = false;
        switch (c->op) {
        case SNAP_OP_EQUALS:
        case SNAP_OP_IN:
            holds = c->source == SNAP_SRC_HOST ? str_ieq(v, want) : str_eq(v, want);
            break;
        case SNAP_OP_PREFIX: holds = str_starts(v, want); break;
        case SNAP_OP_SUFFIX: holds = str_ends(v, want); break;
        case SNAP_OP_CONTAINS: holds = str_contains(v, want); break;
        case SNAP_OP_EXISTS:
        case SNAP_OP_REGEX: break;
        }
        if (holds) return true;
    }
    return false;
}

bool match_cond(const struct snap_cond *c, const struct match_input *in)
{
    if (c->kind == SNAP_COND_TEST) return test(c, in);
    if (c->kind == SNAP_COND_NOT) return !match_cond(&c->children[0], in);
    for (size_t i = 0; i < c->children_n; i++)
        if (match_cond(&c->children[i], in) == (c->kind == SNAP_COND_ANY))
            return c->kind == SNAP_COND_ANY;
    return c->kind == SNAP_COND_ALL;
}

const struct snap_namespace *match_namespace(const struct snapshot *s, const struct match_input *in,
                                             bool *ret_by_matcher)
{
    *ret_by_matcher = false;
    for (size_t i = 0; i < s->matchers_n; i++) {
        const struct snap_matcher *m = &s->matchers[i];
        if (!m->ns->enabled || !match_cond(m->when, in)) continue;
        *ret_by_matcher = true;
        return m->ns;
    }
    for (size_t i = 0; i < s->namespaces_n; i++)
        if (s->namespaces[i].is_default && s->namespaces[i].enabled) return &s->namespaces[i];
    return NULL;
}

/* What a condition says while the model is not known. */
enum maybe { NO, YES, MAYBE };

static enum maybe cond_maybe(const struct snap_cond *c, const struct match_input *in)
{
    bool all = c->kind == SNAP_COND_ALL;
    enum maybe sum = all ? YES : NO;
    if (c->kind == SNAP_COND_TEST)
        return c->source == SNAP_SRC_MODEL && in->model.p == NULL ? MAYBE : test(c, in) ? YES : NO;
    for (size_t i = 0; i < c->children_n; i++) {
        enum maybe one = cond_maybe(&c->children[i], in);
        if (c->kind == SNAP_COND_NOT) return one == MAYBE ? MAYBE : one == YES ? NO : YES;
        if (one == (all ? NO : YES)) return one;
        if (one == MAYBE) sum = MAYBE;
    }
    return sum;
}

bool match_is_possible(const struct snapshot *s, const struct match_input *in,
                       const struct snap_namespace *ns)
{
    if (!ns->enabled) return false;
    for (size_t i = 0; i < s->matchers_n; i++) {
        const struct snap_matcher *m = &s->matchers[i];
        enum maybe says = m->ns->enabled ? cond_maybe(m->when, in) : NO;
        if (says != NO && m->ns == ns) return true;
        if (says == YES) return false;
    }
    return ns->is_default;
}

static bool cond_needs_body(const struct snap_cond *c)
{
    if (c->kind == SNAP_COND_TEST) return c->source == SNAP_SRC_MODEL;
    for (size_t i = 0; i < c->children_n; i++)
        if (cond_needs_body(&c->children[i])) return true;
    return false;
}

bool match_needs_body(const struct snapshot *s)
{
    for (size_t i = 0; i < s->matchers_n; i++)
        if (cond_needs_body(s->matchers[i].when)) return true;
    return false;
}

bool match_in(const struct snap_strings *list, struct str s)
{
    for (size_t i = 0; i < list->n; i++)
        if (str_eq(list->v[i], s)) return true;
    return false;
}

enum match_result match_route(const struct snapshot *s, const struct snap_namespace *ns,
                              const struct match_input *in, const struct snap_route **ret)
{
    enum match_result nearest = MATCH_NO_PATH;
    for (size_t i = 0; i < s->routes_n; i++) {
        const struct snap_route *r = &s->routes[i];
        if (r->ns != ns) continue;
        if (r->path_kind == SNAP_PATH_PREFIX ? !str_starts(in->req->path, r->path)
                              : !str_eq(in->req->path, r->path))
            continue;
        if (r->methods.n > 0 && !match_in(&r->methods, in->req->method_str)) {
            nearest = MAX(nearest, MATCH_NO_METHOD);
        } else if (r->models.n > 0 && in->model.p != NULL && !match_in(&r->models, in->model)) {
            nearest = MAX(nearest, MATCH_NO_MODEL);
        } else {
            return *ret = r, MATCH_OK;
        }
    }
    return nearest;
}

const struct snap_key *match_key(const struct snapshot *s, const unsigned char hmac[SNAP_HMAC_LEN])
{
    size_t low = 0, high = s->keys_n;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        /* The order of keyed digests tells nothing about the key. */
        int c = memcmp(s->keys[mid].hmac, hmac, SNAP_HMAC_LEN);
        if (c == 0) return &s->keys[mid];
        if (c < 0)
            low = mid + 1;
        else
            high = mid;
    }
    return NULL;
}

const struct snap_model *match_model(const struct snapshot *s, struct str model)
{
    for (size_t i = 0; i < s->models_n; i++)
        if (str_ieq(s->models[i].name, model)) return &s->models[i];
    for (size_t i = 0; i < s->models_n; i++)
        for (size_t k = 0; k < s->models[i].patterns.n; k++)
            if (models_match(s->models[i].patterns.v[k], model)) return &s->models[i];
    return NULL;
}

static bool is_unreserved(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '.' || c == '_' || c == '~';
}

bool match_path_is_plain(struct str path)
{
    char segment[3];
    size_t len = 0;      /* of the segment, decoded; more than 2 is not told apart */
    bool params = false; /* behind a ';' of the segment, which some servers drop */
    if (path.n == 0 || path.p[0] != '/') return false;
    for (size_t i = 1; i <= path.n; i++) {
        char c = i < path.n ? path.p[i] : '/';
        if (c == '/') {
            bool dots = (len == 1 && segment[0] == '.') ||
                        (len == 2 && segment[0] == '.' && segment[1] == '.');
            if (dots || (len == 0 && (i < path.n || params))) return false;
            len = 0;
            params = false;
            continue;
        }
        if (c == '%') {
            uint64_t v;
            if (path.n - i < 3) return false;
            if (str_hex_to_u64(str_n(path.p + i + 1, 2), &v) != ERR_OK) return false;
            c = (char)v;
            i += 2;
            if (c == '/' || c == '\0' || is_unreserved(c)) return false;
        }
        if (c == '\\') return false;
        if (c == ';') params = true;
        if (!params && len < 3) segment[len++] = c;
    }
    return true;
}
