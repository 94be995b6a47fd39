/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whose request it is and where it goes: credentials first, then the namespace, the route, and what
 * the caller may use. Part of it may have to wait for the body (FLOW_BODY). On the request's
 * worker.
 */
#include <stdio.h>

#include "flow_impl.h"
#include "match/jwt.h"
#include "match/match.h"
#include "rt/crypto.h"

enum { KEYS_WAIT_MS = 5000 };

/* --- credentials --- */

/* The credential of the request; n == 0: none. */
static struct str credential(const struct h1_request *q)
{
    struct str v = h1_header_known(&q->head, H1_AUTHORIZATION);
    if (v.n > 7 && str_ieq(str_n(v.p, 7), STR("Bearer "))) return str_trim(str_n(v.p + 7, v.n - 7));
    v = h1_header_known(&q->head, H1_X_API_KEY);
    return v.n > 0 ? v : STR_NULL;
}

static const struct snap_key *find_key(const struct flow *f, struct str secret)
{
    unsigned char hmac[SNAP_HMAC_LEN];
    const struct edge *e = flow_edge(f);
    crypto_hmac_sha256(str_n((const char *)e->key_pepper, sizeof e->key_pepper), secret, hmac);
    const struct snap_key *k = match_key(f->rules->snap, hmac);
    if (k == NULL || !k->enabled || !k->ns->enabled) return NULL;
    return k->expires_at_ms == 0 || k->expires_at_ms > f->began_wall_ms ? k : NULL;
}

/* Only what a verified token claims is looked at by matchers. */
static void take_token(struct flow *f, struct str text)
{
    struct asked *asked = f->asked;
    struct why why = { "" };
    asked->key_fetches = keyring_fetches(flow_edge(f)->keyring);
    asked->token_err = tokens_verify(f->w->tokens, f->rules->snap, f->rules->matching, text,
                                     f->began_wall_ms / 1000, &asked->token, &why);
    if (asked->token_err == ERR_OK)
        asked->match.claims = asked->token->claims;
    else
        asked->token_why = arena_dupz(&asked->arena, str_of(why.text));
    if (asked->token_why == NULL) asked->token_why = "it cannot be read";
}

static void take_credential(struct flow *f)
{
    struct match_input *in = &f->asked->match;
    struct str secret = credential(f->client->request);
    match_input_init(in, f->client->request);
    if (f->asked->subject.has_address) in->address = f->asked->subject.address;
    if (secret.n > 0) f->key = find_key(f, secret);
    in->key = f->key;
    if (f->key == NULL && f->rules->snap->issuers_n > 0 && jwt_looks_like(secret))
        take_token(f, secret);
}

/* --- keys that are being fetched --- */

static void look_again(struct flow *f)
{
    take_token(f, credential(f->client->request));
}

static void on_keys(void *ctx)
{
    struct flow *f = ctx;
    f->async--;
    f->awaits_keys = false;
    if (f->state == FLOW_DONE) {
        flow_settle(f, f->outcome); /* only lets go */
        return;
    }
    look_again(f);
    if (flow_await_keys(f, f->asked->keys_then)) return;
    loop_timer_clear(f->w->loop, &f->timer);
    f->asked->keys_then(f);
}

static void on_keys_late(void *ctx)
{
    struct flow *f = ctx;
    if (!keyring_forget(flow_edge(f)->keyring, &f->asked->keys)) return; /* they come right now */
    f->async--;
    f->awaits_keys = false;
    f->asked->token_err = ERR_DENIED;
    f->asked->keys_then(f);
}

bool flow_await_keys(struct flow *f, void (*then)(struct flow *))
{
    struct asked *a = f->asked;
    if (a->token_err != ERR_AGAIN) return false;
    if (a->keys_until == 0) {
        a->keys_until = loop_now_ns(f->w->loop) + KEYS_WAIT_MS * UINT64_C(1000000);
        loop_timer_set(f->w->loop, &f->timer, a->keys_until, on_keys_late, f);
    }
    a->keys_then = then;
    f->async++;
    f->awaits_keys = keyring_wait(flow_edge(f)->keyring, a->key_fetches, f->w->loop, on_keys, f,
                                  &a->keys);
    if (f->awaits_keys) return true;
    f->async--;
    a->token_err = ERR_DENIED;
    return false;
}

void flow_leave_keys(struct flow *f)
{
    if (!f->awaits_keys || !keyring_forget(flow_edge(f)->keyring, &f->asked->keys)) return;
    f->awaits_keys = false;
    f->async--;
}

/* --- namespace --- */

static bool refuse_key(struct flow *f, const char *text)
{
    flow_refuse(f, REFUSE_BAD_KEY, str_of(text), NULL);
    return false;
}

/* A key decides; what a matcher selects must be the same. */
static bool enter_with_key(struct flow *f, const struct match_space *space)
{
    f->ns = f->key->ns;
    if (space->matcher != NULL && space->ns != f->ns) {
        flow_refuse(f, REFUSE_FORBIDDEN,
                    STR("The key belongs to another namespace than the one this request selects."),
                    NULL);
        return false;
    }
    if (f->ns->auth != SNAP_AUTH_JWT) return true;
    return refuse_key(f, "This namespace takes signed tokens, not API keys.");
}

/* A token was presented, and verified. */
static bool enter_with_token(struct flow *f)
{
    if (f->ns->auth == SNAP_AUTH_NONE) return true;
    if (f->ns->auth == SNAP_AUTH_KEY)
        return refuse_key(f, "This namespace takes API keys, not signed tokens.");
    if (match_claims(f->rules->matching, f->ns, f->asked->token->claims)) return true;
    flow_refuse(f, REFUSE_FORBIDDEN,
                STR("The token does not say what this namespace asks of tokens."), NULL);
    return false;
}

static bool refuse_token(struct flow *f)
{
    char text[400];
    if (f->asked->token_err != ERR_DENIED) {
        (void)snprintf(text, sizeof text, "The token cannot be checked: %s. Try again soon.",
                       f->asked->token_err == ERR_UNAVAILABLE ? f->asked->token_why
                                                              : "out of memory");
        flow_refuse(f, REFUSE_OVERLOADED, str_of(text), NULL);
        return false;
    }
    (void)snprintf(text, sizeof text, "The token is not taken: %s.", f->asked->token_why);
    return refuse_key(f, text);
}

/* A credential that is neither a key nor a token of ours. An open namespace does not look at it,
 * unless it is meant to be a key of this gateway. */
static bool refuse_secret(struct flow *f, struct str secret, bool open)
{
    if (open && !str_starts(secret, STR("sk-aigw-"))) return false;
    if (f->asked->token_err != ERR_OK)
        (void)refuse_token(f);
    else
        (void)refuse_key(f, "Incorrect API key provided.");
    return true;
}

/* False when it was answered. */
static bool enter(struct flow *f, const struct match_space *space)
{
    struct str secret = credential(f->client->request);
    f->head_decided = true;
    if (f->key != NULL) return enter_with_key(f, space);
    f->ns = space->ns;
    bool open = f->ns != NULL && f->ns->auth == SNAP_AUTH_NONE;
    if (secret.n > 0 && f->asked->token == NULL && refuse_secret(f, secret, open)) return false;
    if (f->ns == NULL) {
        flow_refuse(
            f, REFUSE_NO_ROUTE,
            STR("No namespace matches this request: give a key, or the header that selects one."),
            NULL);
        return false;
    }
    if (f->asked->token != NULL) return enter_with_token(f);
    if (open) return true;
    return refuse_key(f, f->ns->auth == SNAP_AUTH_JWT
                             ? "This namespace needs a signed token: send it as Authorization: "
                               "Bearer TOKEN."
                             : "You didn't provide an API key: send it as Authorization: Bearer "
                               "KEY.");
}

/* --- route --- */

/* AUTO: by the path that goes upstream, else by the client's. */
static enum snap_endpoint endpoint_of_route(const struct snap_route *r, struct str upstream_path,
                                            struct str path)
{
    enum snap_endpoint ep = r->endpoint;
    if (ep == SNAP_EP_AUTO) ep = endpoint_of_path(upstream_path);
    if (ep == SNAP_EP_PASSTHROUGH && r->endpoint == SNAP_EP_AUTO) ep = endpoint_of_path(path);
    /* A route of messages whose prefix takes in this path, too. */
    if (ep == SNAP_EP_MESSAGES && endpoint_of_path(path) == SNAP_EP_COUNT_TOKENS)
        ep = SNAP_EP_COUNT_TOKENS;
    return ep;
}

static bool take_route(struct flow *f)
{
    struct str path = f->client->request->path;
    enum err e = match_rewrite(f->rules->matching, f->route, path, &f->asked->arena,
                               &f->asked->upstream_path);
    if (e != ERR_OK) {
        flow_refuse(f, REFUSE_BAD_REQUEST,
                    STR("The path that the route makes of this one is not a plain path."), NULL);
        return false;
    }
    f->upstream = f->route->upstream;
    f->endpoint = endpoint_of_route(f->route, f->asked->upstream_path, path);
    if (f->endpoint != SNAP_EP_PASSTHROUGH) f->dialect = dialect_of(f->endpoint);
    return true;
}

static bool find_route(struct flow *f)
{
    const struct h1_request *q = f->client->request;
    struct match_input *in = &f->asked->match;
    char text[256];
    enum match_result m = match_route(f->rules->matching, f->ns, in, &f->route);
    if (m == MATCH_OK) return take_route(f);
    enum refusal r = m == MATCH_NO_METHOD  ? REFUSE_METHOD
                     : m == MATCH_NO_MODEL ? REFUSE_NO_MODEL
                                           : REFUSE_NO_ROUTE;
    if (r == REFUSE_NO_MODEL)
        (void)snprintf(text, sizeof text,
                       "The model \"%.*s\" does not exist or you do not have access to it.",
                       (int)MIN(f->model.n, (size_t)100), f->model.p);
    else
        (void)snprintf(text, sizeof text, "No route of namespace %.*s takes %.*s %.*s.",
                       STR_ARG(f->ns->slug), (int)MIN(q->method_str.n, (size_t)20), q->method_str.p,
                       (int)MIN(q->path.n, (size_t)100), q->path.p);
    flow_refuse(f, r, str_of(text), r == REFUSE_NO_MODEL ? "model" : NULL);
    return false;
}

enum err flow_allow(const struct flow *f, struct buf *out)
{
    size_t had = out->len;
    enum err e = buf_appendz(out, "allow: ");
    if (e == ERR_OK && f->ns != NULL && f->route == NULL)
        e = match_allow(f->rules->matching, f->ns, &f->asked->match, out);
    if (e == ERR_OK && out->len == had + 7) e = buf_appendz(out, "POST");
    return e == ERR_OK ? buf_appendz(out, "\r\n") : e;
}

/* --- in order --- */

bool flow_select_by_head(struct flow *f)
{
    take_credential(f);
    /* Its token may be good in a moment: decided when the body is there. */
    if (f->asked->token_err == ERR_AGAIN) return true;
    struct match_space space = match_namespace(f->rules->matching, &f->asked->match);
    /* What the body says may decide: then its namespace is known when it is there. */
    return space.pending || (enter(f, &space) && find_route(f));
}

/* The route's parameters, of bodies that ask for text. False when it was answered. */
static bool apply_params(struct flow *f)
{
    const struct js_val *found[SNAP_PARAMS_MAX];
    const struct snap_route *r = f->route;
    struct asked *asked = f->asked;
    if (!f->scanned || r->params_n == 0 || !endpoint_is_metered(f->endpoint)) return true;
    asked->params = arena_alloc(&asked->arena, sizeof *asked->params);
    if (asked->params == NULL) {
        flow_refuse(f, REFUSE_OVERLOADED, STR("out of memory"), NULL);
        return false;
    }
    for (size_t i = 0; i < r->params_n; i++)
        found[i] = &asked->found[match_param(f->rules->matching, r, i)];
    params_apply(r, found, &asked->scan, asked->params);
    if (asked->scan.choices <= CHUNK_MAX_CHOICES) return true;
    /* As when the client asks for so many: what is beyond would pass uncounted. */
    flow_refuse(f, REFUSE_BAD_BODY,
                STR("With the route's parameters the answer would have more than 32 texts."), "n");
    return false;
}

bool flow_select_by_body(struct flow *f)
{
    struct match_input *in = &f->asked->match;
    if (!f->head_decided) {
        if (!f->scanned && !flow_peek_body(f)) return false;
        in->body_known = true;
        in->body = f->asked->members;
        struct match_space space = match_namespace(f->rules->matching, in);
        if (!enter(f, &space)) return false;
    }
    /* The route may depend on the model, and say that the body is another endpoint's. */
    bool found = f->route != NULL && f->model.n == 0;
    if ((!found && !find_route(f)) || !flow_read_body(f, f->endpoint)) return false;
    if (!apply_params(f)) return false;
    if (f->model.p == NULL || match_key_allows(f->key, f->model, f->model_cfg)) return true;
    flow_refuse(f, REFUSE_FORBIDDEN, STR("This key may not use this model."), "model");
    return false;
}

/* --- what the caller may use --- */

/* Whether a route of the namespace, of those at which models are asked, takes it. */
static bool is_routed(const struct flow *f, struct str name)
{
    const struct snapshot *s = f->rules->snap;
    for (size_t i = 0; i < s->routes_n; i++) {
        const struct snap_route *r = &s->routes[i];
        enum snap_endpoint ep = r->path_kind == SNAP_PATH_EXACT && r->endpoint == SNAP_EP_AUTO
                                    ? endpoint_of_path(r->path)
                                    : r->endpoint;
        if (r->ns == f->ns && ep != SNAP_EP_MODELS && match_route_takes_model(r, name)) return true;
    }
    return false;
}

static enum err put_model(struct buf *out, bool *first, struct str name)
{
    enum err e = buf_appendz(out, *first ? "{\"id\":" : ",{\"id\":");
    *first = false;
    if (e == ERR_OK) e = buf_append_json(out, name);
    return e == ERR_OK
               ? buf_appendz(out,
                             ",\"object\":\"model\",\"created\":0,\"owned_by\":\"ai-gateway\"}")
               : e;
}

static bool has_wildcard(struct str s)
{
    return memchr(s.p, '*', s.n) != NULL;
}

/* Names that routes and keys speak of beside the configured models: aliases. */
static enum err put_aliases(const struct flow *f, struct buf *out, bool *first)
{
    const struct snapshot *s = f->rules->snap;
    enum err e = ERR_OK;
    for (size_t i = 0; i < s->routes_n && e == ERR_OK; i++) {
        const struct snap_route *r = &s->routes[i];
        for (size_t k = 0; r->ns == f->ns && k < r->models.n && e == ERR_OK; k++) {
            struct str name = r->models.v[k];
            const struct snap_model *known = match_model(f->rules->matching, name);
            bool listed = known != NULL && str_ieq(known->name, name);
            for (size_t b = 0; b <= i && !listed; b++) {
                struct snap_strings before = s->routes[b].models;
                if (s->routes[b].ns != f->ns) continue;
                if (b == i) before.n = k;
                listed = match_in(&before, name);
            }
            if (listed || has_wildcard(name) || !match_key_allows(f->key, name, known)) continue;
            e = put_model(out, first, name);
        }
    }
    return e;
}

enum err flow_list_models(const struct flow *f, struct buf *out)
{
    const struct snapshot *s = f->rules->snap;
    bool first = true;
    enum err e = buf_appendz(out, "{\"object\":\"list\",\"data\":[");
    for (size_t i = 0; i < s->models_n && e == ERR_OK; i++) {
        const struct snap_model *m = &s->models[i];
        struct str name = m->name.n > 0 ? m->name : m->slug;
        if (match_key_allows(f->key, name, m) && is_routed(f, name))
            e = put_model(out, &first, name);
    }
    if (e == ERR_OK) e = put_aliases(f, out, &first);
    return e == ERR_OK ? buf_appendz(out, "]}") : e;
}
