/* SPDX-License-Identifier: Apache-2.0 */
/* Conditions, and the namespace they lead to. */
#include "match.h"

#include "match_impl.h"

struct str match_lower(struct str s, char *room, size_t cap)
{
    if (s.n > cap) return STR("");
    for (size_t i = 0; i < s.n; i++)
        room[i] = s.p[i] >= 'A' && s.p[i] <= 'Z' ? (char)(s.p[i] | 0x20) : s.p[i];
    return str_n(room, s.n);
}

/* "API.example.com.:8081" is api.example.com. */
static struct str plain_host(struct str host)
{
    const char *colon = host.n > 0 ? memrchr(host.p, ':', host.n) : NULL;
    const char *bracket = host.n > 0 ? memrchr(host.p, ']', host.n) : NULL;
    if (colon != NULL && (bracket == NULL || colon > bracket)) host.n = (size_t)(colon - host.p);
    if (host.n > 1 && host.p[host.n - 1] == '.') host.n--;
    return host;
}

void match_input_init(struct match_input *in, const struct h1_request *req)
{
    in->req = req;
    in->host = match_lower(plain_host(req->host), in->host_room, MATCH_HOST_MAX);
    in->body_known = false;
    in->model = STR_NULL;
    in->body = in->claims = NULL;
    in->key = NULL;
    in->address = NULL;
}

/* --- values --- */

static enum err text_of(struct js_val v, struct arena *a, struct str *ret)
{
    if (!js_is(v, JS_STRING)) return *ret = v.raw, ERR_OK;
    struct str inside = str_n(v.raw.p + 1, v.raw.n - 2);
    if (inside.n == 0 || memchr(inside.p, '\\', inside.n) == NULL) return *ret = inside, ERR_OK;
    struct buf b;
    buf_init(&b, inside.n);
    enum err e = js_decode(v, &b);
    if (e == ERR_OK) e = arena_dup(a, buf_str(&b), ret);
    buf_done(&b);
    return e;
}

static bool is_text(struct js_val v)
{
    return v.raw.p != NULL && v.type != JS_NULL && v.type != JS_OBJECT && v.type != JS_ARRAY;
}

enum err match_values_of(struct js_val v, struct arena *a, struct match_values *ret)
{
    struct js_val elements[MATCH_LIST_MAX], one;
    size_t n = 0;
    enum err e = ERR_OK;
    *ret = (struct match_values){ .present = v.raw.p != NULL && v.type != JS_NULL };
    if (is_text(v)) elements[n++] = v;
    if (js_is(v, JS_ARRAY)) {
        struct js_iter it;
        js_iter_init(&it, v);
        while (n < MATCH_LIST_MAX && js_next_element(&it, &one))
            if (is_text(one)) elements[n++] = one;
    }
    if (n == 0) return ERR_OK;
    struct str *texts = arena_alloc(a, n * sizeof *texts);
    if (texts == NULL) return ERR_LIMIT;
    for (size_t i = 0; i < n && e == ERR_OK; i++) e = text_of(elements[i], a, &texts[i]);
    ret->v = texts;
    ret->n = e == ERR_OK ? n : 0;
    return e;
}

static struct str query_value(struct str query, struct str name)
{
    while (query.n > 0) {
        struct str value = str_cut(&query, '&'), key = str_cut(&value, '=');
        if (str_eq(key, name)) return value.p != NULL ? value : STR("");
    }
    return STR_NULL;
}

void match_source(enum snap_source source, struct str name, size_t place,
                  const struct match_input *in, struct str one[2], struct match_values *ret)
{
    *ret = (struct match_values){ .v = one, .n = 1 };
    switch (source) {
    case SNAP_SRC_HEADER: one[0] = h1_header(&in->req->head, name); break;
    case SNAP_SRC_QUERY: one[0] = query_value(in->req->query, name); break;
    case SNAP_SRC_PATH: one[0] = in->req->path; break;
    case SNAP_SRC_METHOD: one[0] = in->req->method_str; break;
    case SNAP_SRC_HOST: one[0] = in->host; break;
    case SNAP_SRC_MODEL: one[0] = in->model; break;
    case SNAP_SRC_CLIENT_IP: one[0] = str_n((const char *)in->address, 16); break;
    case SNAP_SRC_KEY:
        one[0] = in->key != NULL ? in->key->id : STR_NULL;
        one[1] = in->key != NULL ? in->key->slug : STR_NULL;
        ret->n = 2;
        break;
    case SNAP_SRC_CLAIM:
    case SNAP_SRC_BODY: {
        const struct match_values *of = source == SNAP_SRC_BODY ? in->body : in->claims;
        *ret = of != NULL ? of[place] : (struct match_values){ .present = false };
        return;
    }
    }
    ret->present = one[0].p != NULL;
    if (!ret->present) ret->n = 0;
}

/* --- conditions --- */

static bool is_of_body(enum snap_source s)
{
    return s == SNAP_SRC_MODEL || s == SNAP_SRC_BODY;
}

static bool value_holds(const struct match_node *n, struct str v)
{
    if (n->op == SNAP_OP_REGEX) return regex_matches(n->regex, v);
    for (size_t i = 0; i < n->values.n; i++) {
        struct str want = n->values.v[i];
        bool holds = false;
        switch (n->op) {
        case SNAP_OP_EQUALS:
        case SNAP_OP_IN:
            holds = n->source == SNAP_SRC_CLIENT_IP
                        ? snap_network_has(&n->networks[i], (const unsigned char *)v.p)
                        : str_eq(v, want);
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

static enum maybe test_says(const struct match_node *n, const struct match_input *in)
{
    struct str one[2];
    struct match_values values;
    if (!in->body_known && is_of_body(n->source)) return MAYBE;
    match_source(n->source, n->name, n->place, in, one, &values);
    if (!values.present) return NO;
    if (n->op == SNAP_OP_EXISTS) return YES;
    for (size_t i = 0; i < values.n; i++)
        if (value_holds(n, values.v[i])) return YES;
    return NO;
}

enum maybe match_node_says(const struct match_node *n, const struct match_input *in)
{
    if (n->kind == SNAP_COND_TEST) return test_says(n, in);
    bool all = n->kind == SNAP_COND_ALL;
    enum maybe sum = all ? YES : NO;
    for (size_t i = 0; i < n->children_n; i++) {
        enum maybe one = match_node_says(&n->children[i], in);
        if (n->kind == SNAP_COND_NOT) return one == MAYBE ? MAYBE : one == YES ? NO : YES;
        if (one == (all ? NO : YES)) return one;
        if (one == MAYBE) sum = MAYBE;
    }
    return sum;
}

/* --- namespaces --- */

/* The matchers that may hold, in their order. */
struct candidates {
    struct index_walk walk;
    uint32_t next; /* when all have to be looked at */
};

static void begin(struct candidates *c, const struct matching *m, const struct match_input *in)
{
    static const struct index_key always = { .group = GROUP_ALWAYS },
                                  pending = { .group = GROUP_PENDING };
    index_walk_init(&c->walk);
    c->next = 0;
    index_walk_add(&c->walk, m->index, &always);
    if (!in->body_known) index_walk_add(&c->walk, m->index, &pending);
    for (size_t i = 0; i < m->probes_n && !c->walk.overflow; i++) {
        const struct match_probe *p = &m->probes[i];
        struct str one[2];
        struct match_values values;
        if (!in->body_known && is_of_body(p->source)) continue;
        match_source(p->source, p->name, p->place, in, one, &values);
        struct index_key exists = { .group = p->group, .kind = INDEX_PREFIX, .bytes = STR("") };
        if (values.present && values.n == 0) index_walk_add(&c->walk, m->index, &exists);
        for (size_t k = 0; k < values.n; k++)
            index_walk_find(&c->walk, m->index, p->group, values.v[k]);
    }
}

static const struct match_rule *next(struct candidates *c, const struct matching *m)
{
    uint32_t rank;
    if (c->walk.overflow) return c->next < m->rules_n ? &m->rules[c->next++] : NULL;
    return index_walk_next(&c->walk, &rank) ? &m->rules[rank] : NULL;
}

struct match_space match_namespace(const struct matching *m, const struct match_input *in)
{
    struct candidates c;
    const struct match_rule *r;
    begin(&c, m, in);
    while ((r = next(&c, m)) != NULL) {
        bool found = r->sure && !c.walk.overflow;
        enum maybe says = found ? YES : match_node_says(r->when, in);
        if (says == YES) return (struct match_space){ r->ns, r->matcher, false };
        if (says == MAYBE) return (struct match_space){ NULL, NULL, true };
    }
    return (struct match_space){ m->otherwise, NULL, false };
}

void match_each_possible(const struct matching *m, const struct match_input *in, match_space_fn fn,
                         void *ctx)
{
    struct candidates c;
    const struct match_rule *r;
    begin(&c, m, in);
    while ((r = next(&c, m)) != NULL) {
        enum maybe says = match_node_says(r->when, in);
        if (says != NO && !fn(ctx, r->matcher->ns)) return;
        if (says == YES) return;
    }
    if (m->otherwise != NULL) (void)fn(ctx, m->otherwise);
}

bool match_claims(const struct matching *m, const struct snap_namespace *ns,
                  const struct match_values *claims)
{
    const struct match_node *n = m->claims_of[ns - m->snap->namespaces];
    struct match_input in = { .claims = claims, .body_known = true };
    return n == NULL || match_node_says(n, &in) == YES;
}
