/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Compiles a snapshot's rules. A matcher is put down in the index under keys of which at least one
 * must hold for it: those of a test, of each branch of an "any", or of the one branch of an "all"
 * whose keys the fewest other matchers share. One that has none ("not") is looked at each time.
 */
#include <stdio.h>
#include <stdlib.h>

#include "match_impl.h"

enum { MODEL_MAX = 1024 };

struct builder {
    struct matching *m;
    struct arena scratch;
    struct match_index *uses; /* how many matchers test each key */
    struct why *why;
};

static void *room_for(struct builder *b, size_t n, size_t size)
{
    void *p = arena_calloc(&b->m->arena, n * size + 1);
    ASSERT(p != NULL); /* the snapshot's own bound holds for what is made of it */
    return p;
}

/* --- conditions --- */

static enum err want_place(struct builder *b, struct js_wants *w, struct str pointer,
                           size_t *ret_place)
{
    enum err e = js_wants_add(w, pointer, ret_place);
    if (e == ERR_LIMIT)
        e = why_set(b->why, ERR_INVALID, "more than %d members of %s are looked at: %.*s",
                    SNAP_POINTERS_MAX, w == b->m->body ? "bodies" : "tokens", STR_ARG(pointer));
    else if (e != ERR_OK)
        e = why_set(b->why, ERR_INVALID, "no JSON pointer: %.*s", STR_ARG(pointer));
    return e;
}

static enum err compile_regex(struct builder *b, struct str pattern, unsigned flags,
                              const struct regex **ret)
{
    struct matching *m = b->m;
    struct regex *r;
    enum err e = regex_new(pattern, flags | REGEX_ANY_BYTES | REGEX_JIT, SNAP_REGEX_STEPS, &r,
                           b->why);
    if (e != ERR_OK) return e;
    m->regexes = xrealloc(m->regexes, (m->regexes_n + 1) * sizeof *m->regexes);
    m->regexes[m->regexes_n++] = r;
    *ret = r;
    return ERR_OK;
}

static uint32_t group_of(struct matching *m, const struct match_node *n)
{
    for (size_t i = 0; i < m->probes_n; i++)
        if (m->probes[i].source == n->source && str_eq(m->probes[i].name, n->name))
            return m->probes[i].group;
    m->probes = xrealloc(m->probes, (m->probes_n + 1) * sizeof *m->probes);
    m->probes[m->probes_n] = (struct match_probe){ n->source, n->name, n->place,
                                                   (uint32_t)(GROUP_FIRST + m->probes_n) };
    return m->probes[m->probes_n++].group;
}

/* Hosts are compared in lower case. */
static struct snap_strings lowered(struct builder *b, struct snap_strings in)
{
    struct str *v = room_for(b, in.n, sizeof *v);
    for (size_t i = 0; i < in.n; i++)
        v[i] = match_lower(in.v[i], room_for(b, in.v[i].n, 1), in.v[i].n);
    return (struct snap_strings){ v, in.n };
}

static enum err compile_test(struct builder *b, const struct snap_cond *c, struct match_node *n)
{
    enum err e = ERR_OK;
    n->source = c->source;
    n->op = c->op;
    n->name = c->name;
    n->values = c->source == SNAP_SRC_HOST && c->op != SNAP_OP_REGEX ? lowered(b, c->values)
                                                                     : c->values;
    n->networks = c->networks;
    if (c->source == SNAP_SRC_BODY) e = want_place(b, b->m->body, c->name, &n->place);
    if (c->source == SNAP_SRC_CLAIM) e = want_place(b, b->m->claims, c->name, &n->place);
    if (e == ERR_OK && c->op == SNAP_OP_REGEX) {
        unsigned flags = c->source == SNAP_SRC_HOST ? REGEX_FOLD : 0;
        e = compile_regex(b, c->values.v[0], flags, &n->regex);
    }
    return e;
}

static enum err compile(struct builder *b, const struct snap_cond *c, struct match_node *n)
{
    n->kind = c->kind;
    if (c->kind == SNAP_COND_TEST) return compile_test(b, c, n);
    struct match_node *children = room_for(b, c->children_n, sizeof *children);
    n->children = children;
    n->children_n = c->children_n;
    enum err e = ERR_OK;
    for (size_t i = 0; i < c->children_n && e == ERR_OK; i++)
        e = compile(b, &c->children[i], &children[i]);
    return e;
}

static void assign_groups(struct matching *m, struct match_node *n)
{
    if (n->kind == SNAP_COND_TEST) n->group = group_of(m, n);
    for (size_t i = 0; i < n->children_n; i++)
        assign_groups(m, (struct match_node *)(uintptr_t)&n->children[i]);
}

/* --- keys --- */

/* Keys of which at least one holds whenever the condition does. v == NULL: there are none. */
struct keys {
    struct index_key *v;
    size_t n;
    uint64_t uses; /* how many matchers are under them, in all */
};

static struct index_key key_of(const struct match_node *n, size_t i)
{
    struct index_key k = { .group = n->group, .kind = INDEX_PREFIX, .bytes = STR("") };
    switch (n->op) {
    case SNAP_OP_EQUALS:
    case SNAP_OP_IN:
        k.kind = n->source == SNAP_SRC_CLIENT_IP ? INDEX_NETWORK : INDEX_EXACT;
        if (k.kind == INDEX_EXACT)
            k.bytes = n->values.v[i];
        else
            k.network = &n->networks[i];
        break;
    case SNAP_OP_SUFFIX: k.kind = INDEX_SUFFIX; /* fallthrough */
    case SNAP_OP_PREFIX: k.bytes = n->values.v[i]; break;
    /* There must be a value at all, which is what a prefix of nothing says. */
    case SNAP_OP_CONTAINS:
    case SNAP_OP_EXISTS:
    case SNAP_OP_REGEX: break;
    }
    return k;
}

static size_t keys_count(const struct match_node *n)
{
    bool by_value = n->op == SNAP_OP_EQUALS || n->op == SNAP_OP_IN || n->op == SNAP_OP_PREFIX ||
                    n->op == SNAP_OP_SUFFIX;
    return by_value ? n->values.n : 1;
}

static void count_uses(struct builder *b, const struct match_node *n, uint32_t rank)
{
    if (n->kind == SNAP_COND_TEST) {
        for (size_t i = 0; i < keys_count(n); i++) {
            struct index_key k = key_of(n, i);
            match_index_add(b->uses, &k, rank);
        }
    } else if (n->kind != SNAP_COND_NOT) {
        for (size_t i = 0; i < n->children_n; i++) count_uses(b, &n->children[i], rank);
    }
}

static struct keys keys_of(struct builder *b, const struct match_node *n)
{
    struct keys best = { NULL, 0, UINT64_MAX }, sum = { NULL, 0, 0 };
    if (n->kind == SNAP_COND_TEST) {
        sum.n = keys_count(n);
        sum.v = arena_alloc(&b->scratch, (sum.n + 1) * sizeof *sum.v);
        ASSERT(sum.v != NULL);
        for (size_t i = 0; i < sum.n; i++) {
            sum.v[i] = key_of(n, i);
            sum.uses += match_index_count(b->uses, &sum.v[i]);
        }
        return sum;
    }
    if (n->kind == SNAP_COND_NOT) return best;
    struct keys *each = arena_alloc(&b->scratch, (n->children_n + 1) * sizeof *each);
    ASSERT(each != NULL);
    for (size_t i = 0; i < n->children_n; i++) {
        each[i] = keys_of(b, &n->children[i]);
        if (each[i].v != NULL && each[i].uses < best.uses) best = each[i];
        sum.n += each[i].n;
        sum.uses += each[i].v != NULL ? each[i].uses : 0;
    }
    if (n->kind == SNAP_COND_ALL) return best;
    sum.v = arena_alloc(&b->scratch, (sum.n + 1) * sizeof *sum.v);
    ASSERT(sum.v != NULL);
    size_t at = 0;
    for (size_t i = 0; i < n->children_n; i++) {
        if (each[i].v == NULL) return (struct keys){ NULL, 0, UINT64_MAX };
        memcpy(sum.v + at, each[i].v, each[i].n * sizeof *sum.v);
        at += each[i].n;
    }
    return sum;
}

static bool group_is_of_body(const struct matching *m, uint32_t group)
{
    enum snap_source s = m->probes[group - GROUP_FIRST].source;
    return s == SNAP_SRC_MODEL || s == SNAP_SRC_BODY;
}

/* Whether the condition is no more than what its keys say. */
static bool is_sure(const struct match_node *n)
{
    if (n->kind == SNAP_COND_TEST)
        return n->source != SNAP_SRC_MODEL && n->source != SNAP_SRC_BODY &&
               n->op != SNAP_OP_CONTAINS && n->op != SNAP_OP_REGEX;
    for (size_t i = 0; i < n->children_n; i++)
        if (!is_sure(&n->children[i])) return false;
    return n->kind == SNAP_COND_ANY;
}

static void put_down(struct builder *b, const struct match_node *n, uint32_t rank)
{
    static const struct index_key always = { .group = GROUP_ALWAYS, .kind = INDEX_EXACT },
                                  pending = { .group = GROUP_PENDING, .kind = INDEX_EXACT };
    struct matching *m = b->m;
    arena_reset(&b->scratch);
    struct keys k = keys_of(b, n);
    if (k.v == NULL) match_index_add(m->index, &always, rank);
    for (size_t i = 0; k.v != NULL && i < k.n; i++) {
        match_index_add(m->index, &k.v[i], rank);
        if (group_is_of_body(m, k.v[i].group)) match_index_add(m->index, &pending, rank);
    }
}

static enum err build_matchers(struct builder *b)
{
    struct matching *m = b->m;
    const struct snapshot *s = m->snap;
    enum err e = ERR_OK;
    m->rules = xcalloc(s->matchers_n + 1, sizeof *m->rules);
    for (size_t i = 0; i < s->matchers_n && e == ERR_OK; i++) {
        if (!s->matchers[i].ns->enabled) continue;
        struct match_node *n = room_for(b, 1, sizeof *n);
        e = compile(b, s->matchers[i].when, n);
        if (e != ERR_OK) break;
        assign_groups(m, n);
        count_uses(b, n, (uint32_t)m->rules_n);
        m->rules[m->rules_n++] = (struct match_rule){ &s->matchers[i], n, s->matchers[i].ns,
                                                      is_sure(n) };
    }
    for (uint32_t i = 0; i < m->rules_n && e == ERR_OK; i++) put_down(b, m->rules[i].when, i);
    return e;
}

static enum err build_namespaces(struct builder *b)
{
    struct matching *m = b->m;
    const struct snapshot *s = m->snap;
    enum err e = ERR_OK;
    m->claims_of = xcalloc(s->namespaces_n + 1, sizeof *m->claims_of);
    for (size_t i = 0; i < s->namespaces_n && e == ERR_OK; i++) {
        const struct snap_namespace *ns = &s->namespaces[i];
        if (m->otherwise == NULL && ns->is_default && ns->enabled) m->otherwise = ns;
        if (ns->claims == NULL) continue;
        struct match_node *n = room_for(b, 1, sizeof *n);
        e = compile(b, ns->claims, n);
        m->claims_of[i] = n;
    }
    return e;
}

/* --- routes --- */

static enum err build_params(struct builder *b, const struct snap_route *r, const size_t **ret)
{
    size_t *places = room_for(b, r->params_n, sizeof *places);
    enum err e = ERR_OK;
    for (size_t i = 0; i < r->params_n && e == ERR_OK; i++) {
        char pointer[80];
        (void)snprintf(pointer, sizeof pointer, "/%.*s", STR_ARG(r->params[i].name));
        e = want_place(b, b->m->body, str_of(pointer), &places[i]);
    }
    *ret = places;
    return e;
}

static enum err build_routes(struct builder *b)
{
    static const enum index_kind kinds[] = { [SNAP_PATH_EXACT] = INDEX_EXACT,
                                             [SNAP_PATH_REGEX] = INDEX_PREFIX,
                                             [SNAP_PATH_PREFIX] = INDEX_PREFIX };
    struct matching *m = b->m;
    const struct snapshot *s = m->snap;
    enum err e = ERR_OK;
    m->route_regexes = xcalloc(s->routes_n + 1, sizeof *m->route_regexes);
    m->route_params = xcalloc(s->routes_n + 1, sizeof *m->route_params);
    for (size_t i = 0; i < s->routes_n && e == ERR_OK; i++) {
        const struct snap_route *r = &s->routes[i];
        bool is_regex = r->path_kind == SNAP_PATH_REGEX;
        struct index_key k = { .group = (uint32_t)(r->ns - s->namespaces),
                               .kind = kinds[r->path_kind],
                               .bytes = is_regex ? STR("") : r->path };
        match_index_add(m->routes, &k, (uint32_t)i);
        if (is_regex) e = compile_regex(b, r->path, REGEX_WHOLE, &m->route_regexes[i]);
        if (e == ERR_OK && r->params_n > 0) e = build_params(b, r, &m->route_params[i]);
    }
    return e;
}

/* --- models --- */

/* What stands before the first wildcard. */
static struct str literal(struct str pattern)
{
    size_t n = 0;
    while (n < pattern.n && pattern.p[n] != '*' && pattern.p[n] != '?') n++;
    return str_n(pattern.p, n);
}

static enum err build_models(struct builder *b)
{
    struct matching *m = b->m;
    const struct snapshot *s = m->snap;
    char room[MODEL_MAX];
    for (size_t i = 0; i < s->models_n; i++) {
        const struct snap_model *model = &s->models[i];
        struct str name = match_lower(model->name, room, sizeof room);
        if (name.n > 0 && map_get(&m->model_names, name) == NULL &&
            map_put(&m->model_names, name, (void *)(uintptr_t)model, NULL) != ERR_OK)
            return ERR_NOMEM;
        for (size_t k = 0; k < model->patterns.n; k++) {
            struct str p = model->patterns.v[k], begin = literal(p);
            struct index_key key = { .kind = begin.n < p.n ? INDEX_PREFIX : INDEX_EXACT,
                                     .bytes = match_lower(begin, room, sizeof room) };
            match_index_add(m->model_patterns, &key, (uint32_t)i);
        }
    }
    return ERR_OK;
}

/* --- the whole --- */

enum err matching_new(const struct snapshot *s, struct matching **ret, struct why *why)
{
    struct matching *m = xcalloc(1, sizeof *m);
    struct builder b = { .m = m, .uses = match_index_new(), .why = why };
    m->snap = s;
    arena_init(&m->arena, SIZE_MAX / 2);
    arena_init(&b.scratch, SIZE_MAX / 2);
    map_init(&m->model_names, SIZE_MAX / 2);
    m->body = js_wants_new();
    m->claims = js_wants_new();
    m->index = match_index_new();
    m->routes = match_index_new();
    m->model_patterns = match_index_new();
    enum err e = build_matchers(&b);
    if (e == ERR_OK) e = build_namespaces(&b);
    if (e == ERR_OK) e = build_routes(&b);
    if (e == ERR_OK) e = build_models(&b);
    match_index_free(b.uses);
    arena_done(&b.scratch);
    if (e == ERR_OK)
        *ret = m;
    else
        matching_free(m);
    return e;
}

void matching_free(struct matching *m)
{
    if (m == NULL) return;
    for (size_t i = 0; i < m->regexes_n; i++) regex_free(m->regexes[i]);
    free(m->regexes);
    match_index_free(m->index);
    match_index_free(m->routes);
    match_index_free(m->model_patterns);
    map_done(&m->model_names);
    js_wants_free(m->body);
    js_wants_free(m->claims);
    free(m->rules);
    free(m->probes);
    free((void *)(uintptr_t)m->claims_of);
    free((void *)(uintptr_t)m->route_regexes);
    free((void *)(uintptr_t)m->route_params);
    arena_done(&m->arena);
    free(m);
}

const struct js_wants *matching_body_wants(const struct matching *m)
{
    return m->body;
}

const struct js_wants *matching_claim_wants(const struct matching *m)
{
    return m->claims;
}
