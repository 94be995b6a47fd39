/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From a request's body to a stored one. The members of each kind stand in a table, in the order in
 * which they are stored, with their defaults; what they may hold is checked by the code that reads
 * snapshots, so that nothing is stored that an edge would refuse.
 */
#include "model.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/uuid.h"
#include "model_secret.h"
#include "model_wants.h"
#include "proto/snapshot.h"

enum { BODY_MAX_BYTES = 192 * 1024 };

struct member {
    const char *name;
    const char *def; /* JSON, or NULL: none is stored */
};

static const struct member namespace_members[] = {
    { "id", NULL },        { "slug", NULL },   { "name", "\"\"" },     { "enabled", "true" },
    { "auth", "\"key\"" }, { "claims", NULL }, { "default", "false" }, { NULL, NULL },
};
static const struct member upstream_members[] = {
    { "id", NULL },
    { "slug", NULL },
    { "name", "\"\"" },
    { "dialect", "\"openai\"" },
    { "balance", "\"round_robin\"" },
    { "hash", NULL },
    { "auth", "{\"type\":\"none\"}" },
    { "timeouts", "{\"connect_ms\":5000,\"first_byte_ms\":300000,\"first_token_ms\":300000,"
                  "\"idle_ms\":120000,\"total_ms\":3600000}" },
    { "retries", "1" },
    { "retry", NULL },
    { "health_check", NULL },
    { "ejection", NULL },
    { "breaker", NULL },
    { "cooldown", NULL },
    { "slow_start_ms", "0" },
    { "queue", NULL },
    { "tls", NULL },
    { "transport", NULL },
    { "http", NULL },
    { "max_streams", NULL },
    { "proxy", NULL },
    { "servers", "[]" },
    { NULL, NULL },
};
static const struct member model_members[] = {
    { "id", NULL },           { "slug", NULL },          { "name", "\"\"" }, { "patterns", "[]" },
    { "vocabulary", "\"\"" }, { "context_window", "0" }, { "price", NULL },  { NULL, NULL },
};
static const struct member issuer_members[] = {
    { "id", NULL },           { "slug", NULL },       { "enabled", "true" }, { "issuer", NULL },
    { "audiences", NULL },    { "algorithms", NULL }, { "jwks", NULL },      { "jwks_url", NULL },
    { "jwks_ca_file", NULL }, { "refresh_s", "600" }, { "leeway_s", "60" },  { NULL, NULL },
};
static const struct member matcher_members[] = {
    { "id", NULL },      { "namespace", NULL }, { "slug", NULL },
    { "priority", "0" }, { "when", NULL },      { NULL, NULL },
};
static const struct member policy_members[] = {
    { "id", NULL },
    { "namespace", NULL },
    { "slug", NULL },
    { "kind", NULL },
    { "enabled", "true" },
    { "mode", "\"enforce\"" },
    { "priority", "0" },
    { "per", NULL },
    { "ipv6_prefix", NULL },
    { "limit", NULL },
    { "window", NULL },
    { "algorithm", NULL },
    { "burst", NULL },
    { "count", NULL },
    { "unit", NULL },
    { "period", NULL },
    { "timezone", NULL },
    { "currency", NULL },
    { "on_unavailable", "\"share\"" },
    { "strict", "false" },
    { "models", "[]" },
    { "rules", NULL },
    { "otherwise", NULL },
    { NULL, NULL },
};
static const struct member route_members[] = {
    { "id", NULL },        { "namespace", NULL },    { "slug", NULL },
    { "priority", "0" },   { "path", NULL },         { "hosts", "[]" },
    { "methods", "[]" },   { "models", "[]" },       { "endpoint", "\"auto\"" },
    { "upstream", NULL },  { "rewrite_path", NULL }, { "upstream_model", NULL },
    { "defaults", NULL },  { "max", NULL },          { "headers", NULL },
    { "fallbacks", NULL }, { NULL, NULL },
};
static const struct member key_members[] = {
    { "id", NULL },         { "namespace", NULL }, { "slug", NULL },
    { "prefix", NULL },     { "hmac", NULL },      { "enabled", "true" },
    { "expires_at", NULL }, { "models", "[]" },    { NULL, NULL },
};
static const struct member *const members[KIND_COUNT] = {
    [KIND_NAMESPACE] = namespace_members, [KIND_UPSTREAM] = upstream_members,
    [KIND_MODEL] = model_members,         [KIND_ISSUER] = issuer_members,
    [KIND_MATCHER] = matcher_members,     [KIND_POLICY] = policy_members,
    [KIND_ROUTE] = route_members,         [KIND_KEY] = key_members,
};

/* --- problems --- */

void problems_init(struct problems *p)
{
    p->list = json_array();
    p->n = 0;
    buf_init(&p->prefix, 512);
}

void problems_done(struct problems *p)
{
    json_free(p->list);
    buf_done(&p->prefix);
}

void problem_add(struct problems *p, const char *pointer, const char *fmt, ...)
{
    char text[320], place[1024];
    va_list ap;
    p->n++;
    if (p->n > 1000) return; /* enough to work on */
    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    (void)snprintf(place, sizeof(place), "%s%s", buf_z(&p->prefix), pointer);
    struct json *o = json_object();
    json_setz(o, "pointer", place);
    json_setz(o, "message", text);
    json_push(p->list, o);
}

static void on_problem(void *ctx, const char *pointer, const char *message)
{
    problem_add(ctx, pointer, "%s", message);
}

/* --- the pieces of model_prepare() --- */

/* Members that the server sets: accepted and ignored, so that what was read can be sent back. */
static bool is_read_only(enum kind k, const char *name)
{
    static const char *const always[] = { "revision", "created_at", "updated_at" };
    for (size_t i = 0; i < ARRAY_LEN(always); i++)
        if (strcmp(name, always[i]) == 0) return true;
    return k == KIND_KEY && strcmp(name, "prefix") == 0;
}

static bool is_member(enum kind k, struct str name)
{
    for (const struct member *m = members[k]; m->name != NULL; m++)
        if (str_eqz(name, m->name)) return true;
    return false;
}

/* The known members in their order, then the unknown ones, for the check to complain about. */
static struct json *ordered(enum kind k, const struct json *input)
{
    struct json *o = json_object(), *def;
    for (const struct member *m = members[k]; m->name != NULL; m++) {
        const struct json *v = json_get(input, m->name);
        if (is_read_only(k, m->name) || (k == KIND_KEY && strcmp(m->name, "hmac") == 0)) continue;
        if (strcmp(m->name, "id") == 0) {
            json_setz(o, "id", ""); /* its place; take_id() decides */
        } else if (v != NULL && !json_is(v, JSON_NULL)) {
            json_set(o, m->name, json_copy(v));
        } else if (m->def != NULL) {
            if (json_parse(str_of(m->def), SIZE_MAX, &def, NULL) != ERR_OK) abort();
            json_set(o, m->name, def);
        }
    }
    for (const struct json *v = json_first(input); v != NULL; v = json_next(v)) {
        struct str name = json_key(v);
        bool hidden = k == KIND_KEY && str_eqz(name, "hmac"); /* cannot be set by clients */
        bool known = is_member(k, name) || is_read_only(k, name.p) ||
                     (k == KIND_KEY && str_eqz(name, "secret"));
        if (hidden) json_set(o, "hmac (send secret instead)", json_copy(v));
        if (!known) json_set(o, name.p, json_copy(v));
    }
    return o;
}

static enum err take_id(struct tx *t, const struct json *input, struct json *o,
                        const struct row *existing, struct problems *p, struct why *why)
{
    char fresh[UUID_LEN + 1];
    const struct json *member = json_get(input, "id");
    struct str given = json_str(member);
    bool wrong_type = member != NULL && !json_is(member, JSON_NULL) && given.p == NULL;
    if (existing != NULL) {
        if (wrong_type || (given.p != NULL && !str_eq(given, existing->id)))
            problem_add(p, "/id", "cannot be changed");
        json_set_str(o, "id", existing->id);
        return ERR_OK;
    }
    if (given.p != NULL && uuid_is_valid(given)) {
        struct row_filter f = { .id = given };
        struct rows found;
        enum err e = store_list(t->db, KIND_COUNT, &f, t->arena, &found, why);
        if (e != ERR_OK) return e;
        if (found.n > 0) problem_add(p, "/id", "is in use");
        json_set_str(o, "id", given);
        return ERR_OK;
    }
    if (given.p != NULL || wrong_type) problem_add(p, "/id", "must be a UUID in lower case");
    uuid_v7(tx_clock(t), tx_rng(t), fresh);
    json_setz(o, "id", fresh);
    return ERR_OK;
}

/* Puts the id in the place of an id or a slug. */
static enum err take_reference(struct tx *t, struct json *o, const char *key, enum kind to,
                               struct problems *p, struct why *why)
{
    char pointer[64];
    struct str text = json_str(json_get(o, key)), id;
    if (text.p == NULL) return ERR_OK; /* absent or of a wrong type: the check says so */
    enum err e = model_resolve(t->db, to, STR(""), text, t->arena, &id, why);
    if (e == ERR_OK) {
        json_set_str(o, key, id);
    } else if (e == ERR_NOT_FOUND) {
        (void)snprintf(pointer, sizeof(pointer), "/%s", key);
        problem_add(p, pointer, "there is no such %.*s: %.*s", (int)strlen(kind_name(to)) - 1,
                    kind_name(to), (int)MIN(text.n, 64), text.p);
        e = ERR_OK;
    }
    return e;
}

/* "openai" unless it says otherwise. */
static enum err dialect_of(struct tx *t, struct str upstream, char ret[16], struct why *why)
{
    struct row r;
    struct json *o;
    enum err e = store_get(t->db, KIND_UPSTREAM, upstream, t->arena, &r, why);
    if (e == ERR_OK) e = json_parse(r.body, r.body.n, &o, why);
    if (e != ERR_OK) return e;
    struct str dialect = json_str(json_get(o, "dialect"));
    (void)str_copyz(ret, 16, dialect.p != NULL ? dialect : STR("openai"));
    json_free(o);
    return ERR_OK;
}

/* A request is not translated: fallback i, whose upstream is `id`, reads what the first one does.
 */
static enum err check_dialect(struct tx *t, const struct json *route, struct str id, size_t i,
                              struct problems *p, struct why *why)
{
    char first[16], other[16], pointer[64];
    struct str upstream = json_str(json_get(route, "upstream"));
    if (upstream.p == NULL) return ERR_OK; /* the check says so */
    enum err e = dialect_of(t, upstream, first, why);
    if (e == ERR_NOT_FOUND) return ERR_OK;
    if (e == ERR_OK) e = dialect_of(t, id, other, why);
    if (e == ERR_OK && strcmp(first, other) != 0) {
        (void)snprintf(pointer, sizeof(pointer), "/fallbacks/%zu/upstream", i);
        problem_add(p, pointer,
                    "speaks the dialect %s, the route's upstream %s: take one that speaks the same",
                    other, first);
    }
    return e;
}

/* The same for the upstream of each fallback. */
static enum err take_fallbacks(struct tx *t, struct json *o, struct problems *p, struct why *why)
{
    const struct json *list = json_get(o, "fallbacks");
    enum err e = ERR_OK;
    size_t i = 0;
    if (!json_is(list, JSON_ARRAY)) return ERR_OK;
    struct json *made = json_array();
    for (const struct json *it = json_first(list); it != NULL && e == ERR_OK;
         it = json_next(it), i++) {
        struct json *fallback = json_copy(it);
        struct str text = json_str(json_get(it, "upstream")), id;
        char pointer[64];
        if (text.p != NULL)
            e = model_resolve(t->db, KIND_UPSTREAM, STR(""), text, t->arena, &id, why);
        if (text.p != NULL && e == ERR_OK) json_set_str(fallback, "upstream", id);
        if (text.p != NULL && e == ERR_OK) e = check_dialect(t, o, id, i, p, why);
        if (e == ERR_NOT_FOUND) {
            (void)snprintf(pointer, sizeof(pointer), "/fallbacks/%zu/upstream", i);
            problem_add(p, pointer, "there is no such upstream: %.*s", (int)MIN(text.n, 64),
                        text.p);
            e = ERR_OK;
        }
        json_push(made, fallback);
    }
    json_set(o, "fallbacks", made);
    return e;
}

/* Servers keep their ids by id or by slug; new ones get one. */
static void take_server_ids(struct tx *t, struct json *o, const struct json *old,
                            struct problems *p)
{
    const struct json *list = json_get(o, "servers");
    size_t i = 0;
    if (!json_is(list, JSON_ARRAY)) return;
    struct json *made = json_array();
    for (const struct json *it = json_first(list); it != NULL; it = json_next(it), i++) {
        char fresh[UUID_LEN + 1], pointer[64];
        if (!json_is(it, JSON_OBJECT)) {
            json_push(made, json_copy(it));
            continue;
        }
        struct str id = json_str(json_get(it, "id")), slug = json_str(json_get(it, "slug"));
        const struct json *was = json_first(json_get(old, "servers"));
        for (; was != NULL; was = json_next(was)) {
            if (id.p != NULL ? str_eq(id, json_str(json_get(was, "id")))
                             : slug.p != NULL && str_eq(slug, json_str(json_get(was, "slug"))))
                break;
        }
        if (id.p == NULL && was != NULL) id = json_str(json_get(was, "id"));
        if (id.p != NULL && !uuid_is_valid(id)) {
            (void)snprintf(pointer, sizeof(pointer), "/servers/%zu/id", i);
            problem_add(p, pointer, "must be a UUID in lower case");
        }
        if (id.p == NULL) {
            uuid_v7(tx_clock(t), tx_rng(t), fresh);
            id = str_of(fresh);
        }
        struct json *server = json_object();
        json_set_str(server, "id", id);
        for (const struct json *m = json_first(it); m != NULL; m = json_next(m)) {
            struct str key = json_key(m);
            if (str_eqz(key, "id") || str_eqz(key, "upstream") || json_is(m, JSON_NULL)) continue;
            json_set(server, key.p, json_copy(m));
        }
        if (json_get(server, "weight") == NULL) json_set_u64(server, "weight", 1);
        if (json_get(server, "enabled") == NULL) json_set_bool(server, "enabled", true);
        json_push(made, server);
    }
    json_set(o, "servers", made);
}

/* --- rules that need the database --- */

static enum err check_unique(struct tx *t, const struct row *r, struct problems *p, struct why *why)
{
    struct row other;
    struct rows found;
    struct row_filter f = { .uniq = r->uniq };
    enum err e = store_find(t->db, r->kind, r->parent, r->slug, t->arena, &other, why);
    if (e == ERR_OK && !str_eq(other.id, r->id))
        problem_add(p, "/slug", "is in use by another of the %s", kind_name(r->kind));
    if (e != ERR_OK && e != ERR_NOT_FOUND) return e;
    if (r->uniq.n == 0) return ERR_OK;
    e = store_list(t->db, r->kind, &f, t->arena, &found, why);
    for (size_t i = 0; e == ERR_OK && i < found.n; i++)
        if (!str_eq(found.v[i].id, r->id))
            problem_add(p, "/secret", "another key has the same secret");
    return e;
}

/* At most one namespace takes what no matcher matches. */
static enum err check_default(struct tx *t, const struct row *r, const struct json *o,
                              struct problems *p, struct why *why)
{
    bool is_default = false;
    struct rows found;
    struct row_filter f = { .body_like = "%\"default\":true%" };
    if (t->bulk || r->kind != KIND_NAMESPACE ||
        json_get_bool(o, "default", &is_default) != ERR_OK || !is_default)
        return ERR_OK;
    enum err e = store_list(t->db, KIND_NAMESPACE, &f, t->arena, &found, why);
    for (size_t i = 0; e == ERR_OK && i < found.n; i++)
        if (!str_eq(found.v[i].id, r->id))
            problem_add(p, "/default", "the namespace %.*s is the default already",
                        STR_ARG(found.v[i].slug));
    return e;
}

static enum err finish(struct tx *t, enum kind k, const struct json *o, struct problems *p,
                       struct entity *ret, struct why *why)
{
    struct buf body;
    buf_init(&body, 4 * 1024 * 1024);
    snapshot_check_entity(kind_name(k), o, on_problem, p);
    enum err e = json_print(o, &body);
    if (e == ERR_OK && body.len > BODY_MAX_BYTES)
        problem_add(p, "", "is %zu bytes long, %d are allowed", body.len, BODY_MAX_BYTES);
    if (e == ERR_OK && p->n == 0) e = row_from_body(k, buf_str(&body), t->arena, &ret->row, why);
    buf_done(&body);
    if (e != ERR_OK || p->n > 0) return e;
    e = check_unique(t, &ret->row, p, why);
    if (e == ERR_OK) e = check_default(t, &ret->row, o, p, why);
    return e == ERR_OK && !t->bulk ? model_check_wants(t, &ret->row, o, p, why) : e;
}

enum err model_prepare(struct tx *t, const struct secrets *secrets, enum kind k,
                       const struct json *input, const struct row *existing,
                       struct problems *problems, struct entity *ret, struct why *why)
{
    size_t before = problems->n;
    struct json *old = NULL, *o = NULL;
    struct entity made = { 0 };
    enum err e = ERR_OK;
    if (!json_is(input, JSON_OBJECT)) {
        problem_add(problems, "", "must be an object");
        return ERR_INVALID;
    }
    /* Problems of this entity only decide about this entity. */
    problems->n = 0;
    if (existing != NULL) e = json_parse(existing->body, existing->body.n, &old, why);
    if (e != ERR_OK) goto out;
    o = ordered(k, input);
    e = take_id(t, input, o, existing, problems, why);
    if (e == ERR_OK && kind_has_namespace(k))
        e = take_reference(t, o, "namespace", KIND_NAMESPACE, problems, why);
    if (e == ERR_OK && k == KIND_ROUTE)
        e = take_reference(t, o, "upstream", KIND_UPSTREAM, problems, why);
    if (e == ERR_OK && k == KIND_ROUTE) e = take_fallbacks(t, o, problems, why);
    if (k == KIND_UPSTREAM) take_server_ids(t, o, old, problems);
    if (e == ERR_OK && k == KIND_UPSTREAM)
        e = secret_take_credentials(secrets, tx_rng(t), o, old, problems);
    if (e == ERR_OK && k == KIND_KEY)
        e = secret_take_key(secrets, tx_rng(t), input, o, old, problems, made.new_secret);
    if (e == ERR_OK) e = finish(t, k, o, problems, &made, why);
    if (e == ERR_OK && problems->n > 0) e = ERR_INVALID;
    if (e == ERR_OK) *ret = made;
out:
    problems->n += before;
    json_free(o);
    json_free(old);
    return e;
}

enum err model_resolve(struct db *d, enum kind k, struct str parent, struct str text,
                       struct arena *a, struct str *ret_id, struct why *why)
{
    struct row r;
    enum err e = ERR_NOT_FOUND;
    if (text.n <= 64) e = store_get(d, k, text, a, &r, why);
    if (e == ERR_NOT_FOUND && str_is_slug(text)) e = store_find(d, k, parent, text, a, &r, why);
    if (e == ERR_OK) *ret_id = r.id;
    return e;
}
