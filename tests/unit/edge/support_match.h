/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For tests of matching: random conditions and requests out of few words, so that they often meet,
 * and the reference: every matcher tried in its order, each condition as it is configured.
 */
#ifndef TESTS_UNIT_EDGE_SUPPORT_MATCH_H
#define TESTS_UNIT_EDGE_SUPPORT_MATCH_H

#include <stdio.h>

#include "base/clock.h"
#include "rt/regex.h"
#include "services/edge/match/match.h"

/* --- random conditions --- */

struct random_conds {
    struct arena arena;
};

static inline void random_conds_init(struct random_conds *r)
{
    arena_init(&r->arena, 64 << 20);
}

static inline void random_conds_done(struct random_conds *r)
{
    arena_done(&r->arena);
}

static const char *const random_words[] = { "a", "ab", "abc", "b", "ba", "/a", "/ab", "a.b", "" };
static const char *const random_networks[] = { "10.0.0.0/8", "10.1.0.0/16", "10.1.2.3", "::/0",
                                               "2001:db8::/32" };

static inline struct str random_word(struct rng *rng, bool may_be_empty)
{
    return str_of(random_words[rng_below(rng, ARRAY_LEN(random_words) - !may_be_empty)]);
}

static inline void random_test(struct random_conds *made, struct rng *rng, struct snap_cond *c)
{
    static const char *const headers[] = { "x-a", "x-b" }, *const members[] = { "/a", "/b/c" };
    c->kind = SNAP_COND_TEST;
    c->source = (enum snap_source)rng_below(rng, SNAP_SRC_BODY + 1);
    c->op = (enum snap_op)rng_below(rng, SNAP_OP_REGEX + 1);
    if (c->source == SNAP_SRC_CLIENT_IP) c->op = rng_below(rng, 2) ? SNAP_OP_IN : SNAP_OP_EQUALS;
    c->name = STR("");
    if (c->source == SNAP_SRC_HEADER || c->source == SNAP_SRC_QUERY)
        c->name = str_of(headers[rng_below(rng, 2)]);
    if (c->source == SNAP_SRC_CLAIM || c->source == SNAP_SRC_BODY)
        c->name = str_of(members[rng_below(rng, 2)]);
    size_t n = c->op == SNAP_OP_EXISTS ? 0 : c->op == SNAP_OP_IN ? 1 + rng_below(rng, 3) : 1;
    struct str *v = arena_calloc(&made->arena, (n + 1) * sizeof *v);
    struct snap_network *w = arena_calloc(&made->arena, (n + 1) * sizeof *w);
    ASSERT(v != NULL && w != NULL);
    for (size_t i = 0; i < n; i++) {
        bool equal = c->op == SNAP_OP_EQUALS || c->op == SNAP_OP_IN;
        v[i] = random_word(rng, equal);
        if (c->op == SNAP_OP_REGEX) v[i] = rng_below(rng, 2) ? STR("^a.?$") : STR("b");
        if (c->source == SNAP_SRC_CLIENT_IP) {
            v[i] = str_of(random_networks[rng_below(rng, ARRAY_LEN(random_networks))]);
            ASSERT(snap_network_parse(v[i], &w[i]) == NULL);
        }
    }
    c->values = (struct snap_strings){ v, n };
    c->networks = w;
}

static inline const struct snap_cond *random_cond(struct random_conds *made, struct rng *rng,
                                                  int depth)
{
    struct snap_cond *c = arena_calloc(&made->arena, sizeof *c);
    ASSERT(c != NULL);
    uint64_t kind = depth == 3 ? 0 : rng_below(rng, 8);
    if (kind < 4) {
        random_test(made, rng, c);
        return c;
    }
    c->kind = kind < 6 ? SNAP_COND_ALL : kind == 6 ? SNAP_COND_ANY : SNAP_COND_NOT;
    c->children_n = c->kind == SNAP_COND_NOT ? 1 : 1 + rng_below(rng, 3);
    struct snap_cond *children = arena_calloc(&made->arena, c->children_n * sizeof *children);
    ASSERT(children != NULL);
    for (size_t i = 0; i < c->children_n; i++) children[i] = *random_cond(made, rng, depth + 1);
    c->children = children;
    return c;
}

/* --- random requests --- */

struct random_request {
    char head[512];
    struct match_input in;
    bool body_known, has_key, has_address, has_claims, has_body;
    unsigned char address[16];
    struct snap_key key;
    struct str model;
    struct str texts[2][4][2]; /* of claims and of the body, by place */
    struct match_values values[2][4];
};

static inline void random_request(struct random_request *r, struct rng *rng,
                                  const struct js_wants *body, const struct js_wants *claims)
{
    static const char *const addresses[] = { "10.1.2.3", "10.9.9.9", "192.0.2.1", "2001:db8::7" };
    struct snap_network n;
    size_t counts[2] = { js_wants_count(claims), js_wants_count(body) };
    struct str w[6];
    memset(r, 0, sizeof *r);
    for (int i = 0; i < 6; i++) w[i] = random_word(rng, i < 4);
    (void)snprintf(
        r->head, sizeof r->head,
        "%s /%.*s?x-a=%.*s&x-b=%.*s HTTP/1.1\r\nHost: %.*s\r\n%s%.*s\r\n%s%.*s\r\n\r\n",
        rng_below(rng, 2) ? "a" : "GET", w[4].n > 0 && w[4].p[0] == '/' ? 1 : (int)w[4].n, w[4].p,
        STR_ARG(w[0]), STR_ARG(w[1]), w[5].p[0] == '/' ? 1 : (int)w[5].n,
        w[5].p[0] == '/' ? "B" : w[5].p, rng_below(rng, 3) ? "X-A: " : "X-Z: ", STR_ARG(w[2]),
        rng_below(rng, 3) ? "X-B: " : "X-Y: ", STR_ARG(w[3]));
    r->body_known = rng_below(rng, 2);
    r->has_key = rng_below(rng, 2);
    r->has_address = rng_below(rng, 4) > 0;
    r->has_claims = rng_below(rng, 2);
    r->has_body = r->body_known && rng_below(rng, 2);
    r->key = (struct snap_key){ .id = random_word(rng, false), .slug = random_word(rng, false) };
    r->model = rng_below(rng, 3) ? random_word(rng, true) : STR_NULL;
    ASSERT(snap_network_parse(str_of(addresses[rng_below(rng, 4)]), &n) == NULL);
    memcpy(r->address, n.address, 16);
    for (int of = 0; of < 2; of++) {
        for (size_t i = 0; i < counts[of]; i++) {
            struct match_values *v = &r->values[of][i];
            v->present = rng_below(rng, 3) > 0;
            v->n = v->present ? rng_below(rng, 3) : 0;
            v->v = r->texts[of][i];
            for (size_t k = 0; k < v->n; k++) r->texts[of][i][k] = random_word(rng, true);
        }
    }
}

/* Behind match_input_init(). */
static inline void random_request_fill(struct random_request *r)
{
    r->in.body_known = r->body_known;
    if (r->body_known) r->in.model = r->model;
    if (r->has_key) r->in.key = &r->key;
    if (r->has_address) r->in.address = r->address;
    if (r->has_claims) r->in.claims = r->values[0];
    if (r->has_body) r->in.body = r->values[1];
}

/* --- the reference --- */

enum linear_maybe { LINEAR_NO, LINEAR_YES, LINEAR_MAYBE };

static inline struct str linear_query(struct str query, struct str name)
{
    while (query.n > 0) {
        struct str value = str_cut(&query, '&'), key = str_cut(&value, '=');
        if (str_eq(key, name)) return value.p != NULL ? value : STR("");
    }
    return STR_NULL;
}

static inline bool linear_value(const struct snap_cond *c, struct str v, struct str want)
{
    struct regex *r;
    bool fold = c->source == SNAP_SRC_HOST, holds;
    switch (c->op) {
    case SNAP_OP_EQUALS:
    case SNAP_OP_IN: return fold ? str_ieq(v, want) : str_eq(v, want);
    case SNAP_OP_PREFIX: return str_starts(v, want);
    case SNAP_OP_SUFFIX: return str_ends(v, want);
    case SNAP_OP_CONTAINS: return str_contains(v, want);
    case SNAP_OP_EXISTS: return true;
    case SNAP_OP_REGEX:
        ASSERT(regex_new(want, fold ? REGEX_FOLD : 0, 10000, &r, NULL) == ERR_OK);
        holds = regex_matches(r, v);
        regex_free(r);
        return holds;
    }
    return false;
}

static inline enum linear_maybe linear_test(const struct snap_cond *c, const struct match_input *in,
                                            const struct matching *m)
{
    struct match_values list = { .present = false };
    struct str v = STR_NULL, second = STR_NULL;
    size_t place = 0;
    switch (c->source) {
    case SNAP_SRC_HEADER: v = h1_header(&in->req->head, c->name); break;
    case SNAP_SRC_QUERY: v = linear_query(in->req->query, c->name); break;
    case SNAP_SRC_PATH: v = in->req->path; break;
    case SNAP_SRC_METHOD: v = in->req->method_str; break;
    case SNAP_SRC_HOST: v = in->host; break;
    case SNAP_SRC_MODEL:
        if (!in->body_known) return LINEAR_MAYBE;
        v = in->model;
        break;
    case SNAP_SRC_CLIENT_IP:
        for (size_t i = 0; in->address != NULL && i < c->values.n; i++)
            if (snap_network_has(&c->networks[i], in->address)) return LINEAR_YES;
        return LINEAR_NO;
    case SNAP_SRC_KEY:
        if (in->key != NULL) v = in->key->id, second = in->key->slug;
        break;
    case SNAP_SRC_CLAIM:
    case SNAP_SRC_BODY: {
        bool body = c->source == SNAP_SRC_BODY;
        const struct js_wants *w = body ? matching_body_wants(m) : matching_claim_wants(m);
        const struct match_values *of = body ? in->body : in->claims;
        if (body && !in->body_known) return LINEAR_MAYBE;
        ASSERT(js_wants_add((struct js_wants *)(uintptr_t)w, c->name, &place) == ERR_OK);
        if (of != NULL) list = of[place];
        if (c->op == SNAP_OP_EXISTS) return list.present ? LINEAR_YES : LINEAR_NO;
    }
    }
    if (v.p != NULL && c->op == SNAP_OP_EXISTS) return LINEAR_YES;
    for (size_t i = 0; i < c->values.n; i++) {
        if (v.p != NULL && linear_value(c, v, c->values.v[i])) return LINEAR_YES;
        if (second.p != NULL && linear_value(c, second, c->values.v[i])) return LINEAR_YES;
        for (size_t k = 0; list.present && k < list.n; k++)
            if (linear_value(c, list.v[k], c->values.v[i])) return LINEAR_YES;
    }
    return LINEAR_NO;
}

static inline enum linear_maybe linear_cond(const struct snap_cond *c, const struct match_input *in,
                                            const struct matching *m)
{
    if (c->kind == SNAP_COND_TEST) return linear_test(c, in, m);
    bool all = c->kind == SNAP_COND_ALL, unsure = false;
    for (size_t i = 0; i < c->children_n; i++) {
        enum linear_maybe one = linear_cond(&c->children[i], in, m);
        if (c->kind == SNAP_COND_NOT)
            return one == LINEAR_MAYBE ? LINEAR_MAYBE : one == LINEAR_YES ? LINEAR_NO : LINEAR_YES;
        if (one == (all ? LINEAR_NO : LINEAR_YES)) return one;
        unsure = unsure || one == LINEAR_MAYBE;
    }
    return unsure ? LINEAR_MAYBE : all ? LINEAR_YES : LINEAR_NO;
}

static inline const struct snap_namespace *linear_default(const struct snapshot *s)
{
    for (size_t i = 0; i < s->namespaces_n; i++)
        if (s->namespaces[i].is_default && s->namespaces[i].enabled) return &s->namespaces[i];
    return NULL;
}

/* m: for places of members only. */
static inline struct match_space
linear_namespace(const struct snapshot *s, const struct match_input *in, const struct matching *m)
{
    for (size_t i = 0; i < s->matchers_n; i++) {
        const struct snap_matcher *one = &s->matchers[i];
        if (!one->ns->enabled) continue;
        enum linear_maybe says = linear_cond(one->when, in, m);
        if (says == LINEAR_YES) return (struct match_space){ one->ns, one, false };
        if (says == LINEAR_MAYBE) return (struct match_space){ NULL, NULL, true };
    }
    return (struct match_space){ linear_default(s), NULL, false };
}

static inline void linear_possible(const struct snapshot *s, const struct match_input *in,
                                   const struct matching *m, match_space_fn fn, void *ctx)
{
    for (size_t i = 0; i < s->matchers_n; i++) {
        const struct snap_matcher *one = &s->matchers[i];
        if (!one->ns->enabled) continue;
        enum linear_maybe says = linear_cond(one->when, in, m);
        if (says != LINEAR_NO && !fn(ctx, one->ns)) return;
        if (says == LINEAR_YES) return;
    }
    if (linear_default(s) != NULL) (void)fn(ctx, linear_default(s));
}

#endif
