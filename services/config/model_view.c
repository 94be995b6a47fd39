/* SPDX-License-Identifier: Apache-2.0 */
/* What is stored, as it may be shown and exported; merge patches. Pure but for look-ups of slugs.
 */
#include <stdlib.h>

#include "model.h"

/* In its place stands the fact that there is one. */
static void hide(struct json *o, const char *object, const char *member, const char *is_set)
{
    const struct json *from = json_get(o, object);
    if (json_get(from, member) == NULL) return;
    struct json *shown = json_copy(from);
    json_remove(shown, member);
    json_set_bool(shown, is_set, true);
    json_set(o, object, shown);
}

/* Copies o without the hidden members. */
static struct json *without_secrets(enum kind k, const struct json *o)
{
    struct json *copy = json_copy(o);
    if (k == KIND_KEY) json_remove(copy, "hmac");
    if (k != KIND_UPSTREAM) return copy;
    hide(copy, "auth", "credential", "credential_set");
    hide(copy, "proxy", "password", "password_set");
    return copy;
}

/* Bodies are ours: one that does not parse is a bug. */
static struct json *parse_body(struct str body)
{
    struct json *o = NULL;
    enum err e = json_parse(body, body.n, &o, NULL);
    ASSERT(e == ERR_OK);
    return o;
}

struct json *model_redact(enum kind k, struct str body)
{
    struct json *o = parse_body(body), *shown = without_secrets(k, o);
    json_free(o);
    return shown;
}

struct json *model_view(const struct row *r)
{
    char ts[TIME_RFC3339_LEN + 1];
    struct json *o = model_redact(r->kind, r->body);
    json_set_u64(o, "revision", r->revision);
    time_rfc3339(r->created_ms * 1000000, ts);
    json_setz(o, "created_at", ts);
    time_rfc3339(r->updated_ms * 1000000, ts);
    json_setz(o, "updated_at", ts);
    return o;
}

static enum err slug_of(struct db *d, enum kind k, struct json *o, const char *key, struct arena *a,
                        struct why *why)
{
    struct row r;
    struct str id = json_str(json_get(o, key));
    if (id.p == NULL) return ERR_OK;
    enum err e = store_get(d, k, id, a, &r, why);
    if (e == ERR_OK) json_set_str(o, key, r.slug);
    return e == ERR_NOT_FOUND ? ERR_OK : e;
}

/* Fallbacks name their upstreams by slug, too. */
static enum err slugs_of_fallbacks(struct db *d, struct json *o, struct arena *a, struct why *why)
{
    const struct json *list = json_get(o, "fallbacks");
    enum err e = ERR_OK;
    if (list == NULL) return ERR_OK;
    struct json *made = json_array();
    for (const struct json *it = json_first(list); it != NULL && e == ERR_OK; it = json_next(it)) {
        struct json *fallback = json_copy(it);
        e = slug_of(d, KIND_UPSTREAM, fallback, "upstream", a, why);
        json_push(made, fallback);
    }
    json_set(o, "fallbacks", made);
    return e;
}

enum err model_export(struct db *d, const struct row *r, bool with_ids, struct arena *a,
                      struct json **ret, struct why *why)
{
    struct json *o = model_redact(r->kind, r->body);
    enum err e = ERR_OK;
    if (kind_has_namespace(r->kind)) e = slug_of(d, KIND_NAMESPACE, o, "namespace", a, why);
    if (e == ERR_OK && r->kind == KIND_ROUTE) e = slug_of(d, KIND_UPSTREAM, o, "upstream", a, why);
    if (e == ERR_OK && r->kind == KIND_ROUTE) e = slugs_of_fallbacks(d, o, a, why);
    if (e != ERR_OK) {
        json_free(o);
        return e;
    }
    if (!with_ids) {
        json_remove(o, "id");
        const struct json *list = json_get(o, "servers");
        if (list != NULL) {
            struct json *servers = json_array();
            for (const struct json *it = json_first(list); it != NULL; it = json_next(it)) {
                struct json *server = json_copy(it);
                json_remove(server, "id");
                json_push(servers, server);
            }
            json_set(o, "servers", servers);
        }
    }
    *ret = o;
    return ERR_OK;
}

struct json *model_merge(const struct json *base, const struct json *patch)
{
    if (!json_is(patch, JSON_OBJECT)) return json_copy(patch);
    struct json *out = json_is(base, JSON_OBJECT) ? json_copy(base) : json_object();
    for (const struct json *m = json_first(patch); m != NULL; m = json_next(m)) {
        const char *key = json_key(m).p;
        if (json_is(m, JSON_NULL)) {
            json_remove(out, key);
        } else {
            json_set(out, key, model_merge(json_get(out, key), m));
        }
    }
    return out;
}
