/* SPDX-License-Identifier: Apache-2.0 */
/* See the header. The order of the decisions is that of flow.c. */
#include "explain.h"

#include <arpa/inet.h>
#include <stdio.h>

#include "limits/admit_list.h"
#include "limits/admit_local.h"
#include "match/match.h"

struct explanation {
    const struct explain_env *env;
    const struct explain_ask *ask;
    struct json *reply;
    struct h1_request request;
    struct match_input match;
    struct admit_subject subject;
    struct arena arena;
    struct buf body_text, claims_text;
    const struct snap_route *route;
    int status; /* of the first decision that refuses */
};

static void refuse(struct explanation *x, int status, const char *why)
{
    if (x->status != 200) return;
    x->status = status;
    json_setz(x->reply, "why", why);
}

static void put_named(struct json *o, const char *name, struct str id, struct str slug)
{
    struct json *it = json_object();
    json_set_str(it, "id", id);
    json_set_str(it, "slug", slug);
    json_set(o, name, it);
}

/* --- the request --- */

static enum err build_head(const struct explain_ask *a, struct buf *out)
{
    bool has_host = false;
    enum err e = buf_printf(out, "%.*s %.*s HTTP/1.1\r\n", STR_ARG(a->method), STR_ARG(a->target));
    for (size_t i = 0; i < a->headers_n && e == ERR_OK; i++) {
        has_host = has_host || str_ieqz(a->headers[i].name, "host");
        e = h1_put_field(out, a->headers[i].name, a->headers[i].value);
    }
    if (e == ERR_OK && !has_host) e = buf_appendz(out, "Host: localhost\r\n");
    return e == ERR_OK ? buf_appendz(out, "\r\n") : e;
}

static enum err parse_head(struct explanation *x, struct buf *head, struct why *why)
{
    const struct h1_limits limits = { 65536, 16384, H1_MAX_HEADERS };
    struct h1_error bad;
    enum err e = build_head(x->ask, head);
    if (e != ERR_OK) return e;
    if (h1_parse_request(head->data, head->len, &limits, &x->request, &bad) == H1_DONE)
        return ERR_OK;
    return why_set(why, ERR_INVALID, "HTTP does not allow this request: %s", bad.reason);
}

static enum err take_address(struct explanation *x, struct why *why)
{
    char text[65];
    struct admit_subject *s = &x->subject;
    if (x->ask->client_ip.p == NULL) return ERR_OK;
    (void)str_copyz(text, sizeof text, x->ask->client_ip);
    s->has_address = true;
    if (inet_pton(AF_INET6, text, s->address) == 1) return ERR_OK;
    memset(s->address, 0, sizeof s->address);
    s->address[10] = s->address[11] = 0xff;
    if (inet_pton(AF_INET, text, s->address + 12) == 1) return ERR_OK;
    return why_set(why, ERR_INVALID, "client_ip: not an address");
}

/* What matchers look at in a document of the sample, by the pass that reads real ones. */
static enum err take_document(struct explanation *x, const struct json *o, struct buf *text,
                              const struct js_wants *wants, struct js_val *ret_root,
                              const struct match_values **ret)
{
    struct js_val found[JS_WANTS_MAX];
    struct why why = { "" };
    size_t n = js_wants_count(wants);
    if (o == NULL) return ERR_OK;
    struct match_values *v = arena_calloc(&x->arena, (n + 1) * sizeof *v);
    if (v == NULL) return ERR_NOMEM;
    enum err e = json_print(o, text);
    if (e != ERR_OK) return e;
    if (js_parse_wanting(buf_str(text), wants, ret_root, found, &why) != ERR_OK) {
        refuse(x, 400, why.text);
        return ERR_OK;
    }
    for (size_t i = 0; i < n && e == ERR_OK; i++) {
        e = match_values_of(found[i], &x->arena, &v[i]);
        if (e == ERR_LIMIT) {
            refuse(x, 400, "a field that decides over the request is too long");
            return ERR_OK;
        }
    }
    *ret = v;
    return e;
}

static enum err take_documents(struct explanation *x)
{
    const struct matching *m = x->env->rules->matching;
    struct js_val root;
    enum err e = take_document(x, x->ask->body, &x->body_text, matching_body_wants(m), &root,
                               &x->match.body);
    return e == ERR_OK ? take_document(x, x->ask->claims, &x->claims_text, matching_claim_wants(m),
                                       &root, &x->match.claims)
                       : e;
}

/* --- namespace, key, route --- */

static void take_key(struct explanation *x)
{
    const struct snapshot *s = x->env->rules->snap;
    json_set_null(x->reply, "key");
    for (size_t i = 0; x->ask->key.p != NULL && i < s->keys_n; i++) {
        const struct snap_key *k = &s->keys[i];
        if (!str_eq(k->id, x->ask->key)) continue;
        bool expired = k->expires_at_ms != 0 && k->expires_at_ms <= x->env->now_wall_ms;
        put_named(x->reply, "key", k->id, k->slug);
        if (k->enabled && k->ns->enabled && !expired)
            x->subject.key = k;
        else
            refuse(x, 401,
                   expired ? "the key has expired" : "the key, or its namespace, is disabled");
        return;
    }
    if (x->ask->key.p != NULL) refuse(x, 401, "this edge has no such key");
}

/* As flow_select.c does: a key, or the claims of a token. */
static void check_credential(struct explanation *x, const struct snap_namespace *ns)
{
    bool token = x->ask->claims != NULL;
    if (x->subject.key != NULL) {
        if (ns->auth == SNAP_AUTH_JWT) refuse(x, 401, "the namespace takes tokens, not keys");
    } else if (ns->auth == SNAP_AUTH_NONE) {
        return;
    } else if (token && ns->auth == SNAP_AUTH_KEY) {
        refuse(x, 401, "the namespace takes keys, not tokens");
    } else if (token && !match_claims(x->env->rules->matching, ns, x->match.claims)) {
        refuse(x, 403, "the token does not say what the namespace asks of tokens");
    } else if (!token) {
        refuse(x, 401,
               ns->auth == SNAP_AUTH_JWT ? "the namespace needs a token, and the request has none"
                                         : "the namespace needs a key, and the request has none");
    }
}

static void take_namespace(struct explanation *x)
{
    struct match_space space = match_namespace(x->env->rules->matching, &x->match);
    const struct snap_namespace *matched = space.ns;
    bool by_matcher = space.matcher != NULL;
    const struct snap_key *key = x->subject.key;
    const struct snap_namespace *ns = key != NULL ? key->ns : matched;
    json_set_null(x->reply, "namespace");
    if (ns == NULL) {
        refuse(x, 404, "no key, no matcher holds, and there is no default namespace");
        return;
    }
    put_named(x->reply, "namespace", ns->id, ns->slug);
    json_setz((struct json *)(uintptr_t)json_get(x->reply, "namespace"), "chosen_by",
              key != NULL  ? "key"
              : by_matcher ? "matcher"
                           : "default");
    x->subject.ns = ns;
    if (key != NULL && by_matcher && matched != ns)
        refuse(x, 403, "a matcher selects another namespace than the key's");
    check_credential(x, ns);
}

static void take_route(struct explanation *x)
{
    json_set_null(x->reply, "route");
    json_set_null(x->reply, "upstream");
    if (x->subject.ns == NULL) return;
    enum match_result m = match_route(x->env->rules->matching, x->subject.ns, &x->match, &x->route);
    if (m == MATCH_NO_PATH) refuse(x, 404, "no route of the namespace takes this path");
    if (m == MATCH_NO_METHOD) refuse(x, 405, "no route of the namespace takes this method here");
    if (m == MATCH_NO_MODEL) refuse(x, 404, "no route of the namespace takes this model here");
    if (m != MATCH_OK) return;
    x->subject.upstream = x->route->upstream;
    put_named(x->reply, "route", x->route->id, x->route->slug);
    put_named(x->reply, "upstream", x->route->upstream->id, x->route->upstream->slug);
}

static void take_model(struct explanation *x)
{
    struct admit_subject *s = &x->subject;
    json_set_null(x->reply, "model");
    s->model = x->ask->model.p != NULL ? x->ask->model : json_str(json_get(x->ask->body, "model"));
    if (s->model.p == NULL) return;
    s->model_known = match_model(x->env->rules->matching, s->model);
    if (s->model_known != NULL)
        put_named(x->reply, "model", s->model_known->id, s->model_known->slug);
}

static void check_key_models(struct explanation *x)
{
    const struct admit_subject *s = &x->subject;
    if (s->model.n > 0 && !match_key_allows(s->key, s->model, s->model_known))
        refuse(x, 403, "the key is not for this model");
}

/* --- policies --- */

/* Tokens of that kind that the request would take, at least; cost in nano-units. */
static uint64_t units_of(const struct explanation *x, const struct snap_policy *p, const char **why)
{
    uint64_t in = x->ask->input_tokens, out = x->ask->output_tokens;
    const struct snap_model *m = x->subject.model_known;
    if (p->kind != SNAP_TOKEN_RATE && (p->kind != SNAP_QUOTA || p->unit == SNAP_UNIT_REQUESTS))
        return 1;
    if (p->kind == SNAP_QUOTA && p->unit == SNAP_UNIT_COST) {
        if (m != NULL && str_eq(m->currency, p->currency))
            return in * (uint64_t)m->input_nano + out * (uint64_t)m->output_nano;
        *why = "the model has no price in the policy's currency";
        return 0;
    }
    return p->count == SNAP_COUNT_INPUT ? in : p->count == SNAP_COUNT_OUTPUT ? out : in + out;
}

static const char *unit_of(const struct snap_policy *p)
{
    if (p->kind == SNAP_CONCURRENCY) return "slots";
    if (p->kind == SNAP_REQUEST_RATE || p->unit == SNAP_UNIT_REQUESTS) return "requests";
    if (p->unit == SNAP_UNIT_COST) return "cost";
    return p->count == SNAP_COUNT_INPUT    ? "input_tokens"
           : p->count == SNAP_COUNT_OUTPUT ? "output_tokens"
                                           : "tokens";
}

/* The check of one policy by the function that a real request goes through. */
static bool passes(const struct explanation *x, const struct snap_policy *p)
{
    struct snap_policy alone = *p;
    const struct snap_policy *one = &alone;
    struct admit_list list = { &one, 1 };
    struct admit_check c = { .policy = NULL };
    alone.shadow = false;
    if (p->kind == SNAP_ACCESS)
        admit_access(&list, &x->subject, x->request.method_str, x->request.path, false, &c);
    if (p->kind == SNAP_BODY_SIZE)
        admit_body_size(&list, &x->subject, MAX(x->ask->body_bytes, (uint64_t)x->body_text.len),
                        &c);
    if (p->kind == SNAP_INPUT_TOKENS)
        admit_input_tokens(&list, &x->subject, x->ask->input_tokens, &c);
    return c.policy == NULL;
}

static void judge(struct explanation *x, const struct snap_policy *p, struct admit_keys *keys,
                  struct json *o)
{
    static const int statuses[] = {
        [SNAP_ACCESS] = 403, [SNAP_BODY_SIZE] = 413, [SNAP_INPUT_TOKENS] = 400
    };
    char key[ADMIT_KEY_ROOM], text[120];
    const char *why = NULL;
    if (snap_policy_is_leased(p)) {
        json_setz(o, "verdict", "counter");
        json_set_str(o, "key", admit_key(keys, p, key));
        json_setz(o, "unit", unit_of(p));
        json_set_u64(o, "units", units_of(x, p, &why));
        if (why != NULL) json_setz(o, "why", why);
    } else if (p->kind == SNAP_OUTPUT_TOKENS) {
        bool clamps = x->ask->output_tokens == 0 || x->ask->output_tokens > p->limit;
        json_setz(o, "verdict", clamps ? "clamps" : "passes");
    } else {
        bool good = passes(x, p);
        json_setz(o, "verdict", good ? "passes" : "refuses");
        (void)snprintf(text, sizeof text, "policy %.*s refuses it", STR_ARG(p->slug));
        if (!good && !p->shadow) refuse(x, statuses[p->kind], text);
    }
}

static void take_policies(struct explanation *x)
{
    const struct snapshot *s = x->env->rules->snap;
    struct json *list = json_array();
    struct admit_keys keys;
    admit_keys_init(&keys, &x->subject, x->env->hash_key, x->env->plain_addresses);
    for (size_t i = 0; x->subject.ns != NULL && i < s->policies_n; i++) {
        const struct snap_policy *p = &s->policies[i];
        if (p->ns != NULL && p->ns != x->subject.ns) continue;
        bool for_model = admit_is_for_model(p, &x->subject);
        struct json *o = json_object();
        json_set_str(o, "id", p->id);
        json_set_str(o, "slug", p->slug);
        json_setz(o, "kind", snap_policy_kind_name(p->kind));
        json_setz(o, "mode", p->shadow ? "shadow" : "enforce");
        json_set_i64(o, "priority", p->priority);
        json_set_bool(o, "global", p->ns == NULL);
        json_set_bool(o, "applies", p->enabled && for_model);
        if (p->kind != SNAP_ACCESS) json_set_u64(o, "limit", p->limit);
        if (!p->enabled)
            json_setz(o, "why", "it is disabled");
        else if (!for_model)
            json_setz(o, "why", "it is for other models");
        else
            judge(x, p, &keys, o);
        json_push(list, o);
    }
    json_set(x->reply, "policies", list);
}

enum err explain(const struct explain_env *env, const struct explain_ask *ask, struct json *reply,
                 struct why *why)
{
    struct explanation x = { .env = env, .ask = ask, .reply = reply, .status = 200 };
    struct buf head;
    buf_init(&head, 1 << 20);
    buf_init(&x.body_text, MESSAGE_MAX_BYTES);
    buf_init(&x.claims_text, MESSAGE_MAX_BYTES);
    arena_init(&x.arena, MESSAGE_MAX_BYTES);
    enum err e = parse_head(&x, &head, why);
    if (e == ERR_OK) e = take_address(&x, why);
    if (e == ERR_OK) {
        x.subject.head = &x.request.head;
        x.subject.has_user = ask->user.p != NULL;
        if (x.subject.has_user) x.subject.user_hash = admit_hash(ask->user, env->hash_key);
        json_set_u64(reply, "revision", env->rules->snap->revision);
        json_set_u64(reply, "status", 200); /* its place */
        json_setz(reply, "why", "");
        if (!match_path_is_plain(x.request.path))
            refuse(&x, 400, "the path can be read in two ways");
        take_key(&x);
        take_model(&x);
        match_input_init(&x.match, &x.request);
        x.match.body_known = true;
        x.match.model = x.subject.model;
        x.match.key = x.subject.key;
        if (x.subject.has_address) x.match.address = x.subject.address;
        e = take_documents(&x);
        take_namespace(&x);
        take_route(&x);
        check_key_models(&x);
        take_policies(&x);
        json_set_u64(reply, "status", (uint64_t)x.status);
    }
    buf_done(&head);
    buf_done(&x.body_text);
    buf_done(&x.claims_text);
    arena_done(&x.arena);
    return e;
}
