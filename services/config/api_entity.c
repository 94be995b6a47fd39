/* SPDX-License-Identifier: Apache-2.0 */
/* Create, read, update, delete: the same for every kind. HTTP server threads. */
#include <stdio.h>
#include <stdlib.h>

#include "api_impl.h"

enum { ENTITY_MAX_BYTES = 1 << 20 };

/* The kind in the path. False: answered. */
static bool take_kind(struct call *c, enum kind *ret)
{
    if (kind_parse(c->req->params[0], ret) == ERR_OK) return true;
    answer_problem(c, 404, "there is no such collection");
    return false;
}

static void answer_missing(struct call *c, enum err e)
{
    if (e == ERR_EXISTS) {
        answer_problem(c, 409,
                       "several namespaces have that slug: name one with ?namespace=, or use the "
                       "id");
    } else {
        answer_error(c, e);
    }
}

/* --- lists --- */

/* "<id>", or "<slug>/<id>" when sorted by slug. False: not one of ours. */
static bool parse_cursor(struct str cursor, bool by_slug, struct row_filter *f)
{
    struct str rest = cursor;
    f->after_slug = STR_NULL;
    if (by_slug) {
        f->after_slug = str_cut(&rest, '/');
        if (rest.p == NULL || !str_is_slug(f->after_slug)) return false;
    }
    f->after_id = rest;
    return rest.n > 0 && rest.n <= 64;
}

/* False: answered. */
static bool take_filters(struct call *c, struct db *d, enum kind k, struct row_filter *f)
{
    struct str ns = http_query(c->req, "namespace"), sort = http_query(c->req, "sort"),
               upstream = http_query(c->req, "upstream"), cursor = http_query(c->req, "cursor");
    enum err e = ERR_OK;
    f->slug = http_query(c->req, "slug");
    if (ns.p != NULL && kind_has_namespace(k)) {
        f->parent = STR(""); /* ?namespace= : those of no namespace */
        if (ns.n > 0)
            e = model_resolve(d, KIND_NAMESPACE, STR(""), ns, &c->arena, &f->parent, &c->why);
    }
    if (e == ERR_OK && upstream.p != NULL && k == KIND_ROUTE)
        e = model_resolve(d, KIND_UPSTREAM, STR(""), upstream, &c->arena, &f->ref, &c->why);
    if (e != ERR_OK) {
        if (e == ERR_NOT_FOUND)
            e = why_set(&c->why, ERR_INVALID, "the filter names something that does not exist");
        answer_error(c, e);
        return false;
    }
    if (sort.p != NULL) {
        f->descending = sort.n > 0 && sort.p[0] == '-';
        if (f->descending) sort = str_n(sort.p + 1, sort.n - 1);
        f->by_slug = str_eqz(sort, "slug");
        if (!f->by_slug && !str_eqz(sort, "id")) {
            (void)why_set(&c->why, ERR_INVALID, "?sort= must be id, -id, slug or -slug");
            answer_error(c, ERR_INVALID);
            return false;
        }
    }
    if (cursor.p != NULL && !parse_cursor(cursor, f->by_slug, f)) {
        (void)why_set(&c->why, ERR_INVALID, "?cursor= must be what an earlier page gave");
        answer_error(c, ERR_INVALID);
        return false;
    }
    return true;
}

static void answer_list(struct call *c, const struct row_filter *f, struct rows found, size_t limit)
{
    struct json *o = json_object(), *items = json_array();
    bool more = found.n > limit;
    for (size_t i = 0; i < found.n && i < limit; i++) json_push(items, model_view(&found.v[i]));
    json_set(o, "items", items);
    if (more) {
        char cursor[160];
        const struct row *last = &found.v[limit - 1];
        (void)snprintf(cursor, sizeof(cursor), "%s%s%s", f->by_slug ? last->slug.p : "",
                       f->by_slug ? "/" : "", last->id.p);
        json_setz(o, "next_cursor", cursor);
    } else {
        json_set_null(o, "next_cursor");
    }
    answer_json(c, 200, o);
}

void api_list(void *ctx, const struct http_request *req, struct http_reply *reply)
{
    struct call c;
    enum kind k;
    struct db *d;
    struct rows found;
    size_t limit;
    call_begin(&c, ctx, req, reply);
    if (!take_kind(&c, &k) || !read_limit(&c, &limit)) goto out;
    enum err e = store_borrow(c.api->store, &d, &c.why);
    if (e != ERR_OK) {
        answer_error(&c, e);
        goto out;
    }
    struct row_filter f = { .limit = limit + 1 };
    if (take_filters(&c, d, k, &f)) {
        e = store_list(d, k, &f, &c.arena, &found, &c.why);
        if (e == ERR_OK) {
            answer_list(&c, &f, found, limit);
        } else {
            answer_error(&c, e);
        }
    }
    store_return(c.api->store, d);
out:
    call_end(&c);
}

/* --- one --- */

static bool is_not_modified(struct call *c, const struct row *r)
{
    char tag[32];
    struct str h = http_header(c->req, "if-none-match");
    (void)snprintf(tag, sizeof(tag), "\"%llu\"", (unsigned long long)r->revision);
    while (h.p != NULL) {
        struct str one = str_trim(str_cut(&h, ','));
        if (str_eqz(one, tag) || str_eqz(one, "*")) return true;
    }
    return false;
}

void api_get(void *ctx, const struct http_request *req, struct http_reply *reply)
{
    struct call c;
    enum kind k;
    struct db *d;
    struct row r;
    call_begin(&c, ctx, req, reply);
    if (!take_kind(&c, &k)) goto out;
    enum err e = store_borrow(c.api->store, &d, &c.why);
    if (e == ERR_OK) {
        e = find_row(&c, d, k, req->params[1], &r);
        store_return(c.api->store, d);
    }
    if (e != ERR_OK) {
        answer_missing(&c, e);
        goto out;
    }
    answer_headers(&c, &r);
    if (is_not_modified(&c, &r)) {
        reply->status = 304;
    } else {
        answer_json(&c, 200, model_view(&r));
    }
out:
    call_end(&c);
}

/* --- changes --- */

/* Validates, stores, commits and answers with the entity. Ends t. */
static void store_entity(struct call *c, struct tx *t, enum kind k, const struct json *input,
                         const struct row *existing)
{
    struct entity made;
    uint64_t revision;
    char summary[200];
    enum err e = model_prepare(t, &c->api->secrets, k, input, existing, &c->problems, &made,
                               &c->why);
    if (e == ERR_OK) e = tx_put(t, &made.row, &c->why);
    if (e != ERR_OK) {
        abandon_change(c, t, e);
        return;
    }
    (void)snprintf(summary, sizeof(summary), "%s %s %s", existing != NULL ? "update" : "create",
                   kind_name(k), made.row.slug.p);
    if (!finish_change(c, t, summary, &revision)) return;
    struct json *o = model_view(&made.row);
    if (made.new_secret[0] != '\0') json_setz(o, "secret", made.new_secret);
    explicit_bzero(made.new_secret, sizeof(made.new_secret));
    answer_headers(c, &made.row);
    if (existing == NULL)
        http_reply_header(c->reply, "Location", "/api/v2/%s/%s", kind_name(k), made.row.id.p);
    answer_json(c, existing == NULL ? 201 : 200, o);
}

void api_create(void *ctx, const struct http_request *req, struct http_reply *reply)
{
    struct call c;
    enum kind k;
    struct tx t;
    struct json *input = NULL;
    call_begin(&c, ctx, req, reply);
    if (!take_kind(&c, &k) || !read_flag(&c, "dry_run", false, &c.dry_run) ||
        !read_body(&c, ENTITY_MAX_BYTES, &input))
        goto out;
    enum err e = tx_begin(c.api->store, &c.arena, &t, &c.why);
    if (e == ERR_OK) {
        store_entity(&c, &t, k, input, NULL);
    } else {
        answer_error(&c, e);
    }
out:
    json_free(input);
    call_end(&c);
}

/* Begins a change of what the path names, and checks If-Match. False: answered. */
static bool begin_update(struct call *c, enum kind *ret_k, struct tx *t, struct row *ret)
{
    if (!take_kind(c, ret_k) || !read_flag(c, "dry_run", false, &c->dry_run)) return false;
    enum err e = tx_begin(c->api->store, &c->arena, t, &c->why);
    if (e != ERR_OK) {
        answer_error(c, e);
        return false;
    }
    e = find_row(c, t->db, *ret_k, c->req->params[1], ret);
    if (e != ERR_OK) {
        tx_rollback(t);
        answer_missing(c, e);
        return false;
    }
    if (check_if_match(c, ret)) return true;
    tx_rollback(t);
    return false;
}

static void update(void *ctx, const struct http_request *req, struct http_reply *reply, bool patch)
{
    struct call c;
    enum kind k;
    struct tx t;
    struct row r;
    struct json *input = NULL;
    call_begin(&c, ctx, req, reply);
    if (!read_body(&c, ENTITY_MAX_BYTES, &input) || !begin_update(&c, &k, &t, &r)) goto out;
    if (patch) {
        struct json *view = model_view(&r), *merged = model_merge(view, input);
        json_free(view);
        json_free(input);
        input = merged;
    }
    store_entity(&c, &t, k, input, &r);
out:
    json_free(input);
    call_end(&c);
}

void api_put(void *ctx, const struct http_request *req, struct http_reply *reply)
{
    update(ctx, req, reply, false);
}

void api_patch(void *ctx, const struct http_request *req, struct http_reply *reply)
{
    update(ctx, req, reply, true);
}

/* A new secret in the place of the old one, which ends at once. */
void api_key_rotate(void *ctx, const struct http_request *req, struct http_reply *reply)
{
    struct call c;
    enum kind k;
    struct tx t;
    struct row r;
    struct http_request as_key = *req;
    as_key.params[0] = STR("keys");
    as_key.params[1] = req->params[0];
    call_begin(&c, ctx, &as_key, reply);
    if (!begin_update(&c, &k, &t, &r)) goto out;
    struct json *input = model_view(&r);
    json_setz(input, "secret", "");
    store_entity(&c, &t, k, input, &r);
    json_free(input);
out:
    call_end(&c);
}

/* What keeps an entity from going: its own entities, and routes that lead to it, also when it is
 * only a fallback. */
static enum err find_referrers(struct call *c, struct tx *t, const struct row *r, struct json **ret)
{
    char pattern[128];
    struct rows found[2] = { { NULL, 0 }, { NULL, 0 } };
    struct row_filter by_parent = { .parent = r->id, .limit = 100 },
                      by_ref = { .body_like = pattern, .limit = 100 };
    enum err e = ERR_OK;
    (void)snprintf(pattern, sizeof(pattern), "%%\"upstream\":\"%.*s\"%%", STR_ARG(r->id));
    *ret = json_array();
    if (r->kind == KIND_NAMESPACE)
        e = store_list(t->db, KIND_COUNT, &by_parent, &c->arena, &found[0], &c->why);
    if (e == ERR_OK && r->kind == KIND_UPSTREAM)
        e = store_list(t->db, KIND_ROUTE, &by_ref, &c->arena, &found[1], &c->why);
    for (size_t i = 0; e == ERR_OK && i < 2; i++) {
        for (size_t j = 0; j < found[i].n; j++) {
            struct json *o = json_object();
            json_setz(o, "kind", kind_name(found[i].v[j].kind));
            json_set_str(o, "id", found[i].v[j].id);
            json_set_str(o, "slug", found[i].v[j].slug);
            json_push(*ret, o);
        }
    }
    return e;
}

static void answer_in_use(struct call *c, const struct json *referrers)
{
    struct json *o = json_object();
    json_setz(o, "type", "about:blank");
    json_setz(o, "title", "Conflict");
    json_set_u64(o, "status", 409);
    json_setz(o, "detail", "it is still in use by what is listed");
    json_set(o, "referenced_by", json_copy(referrers));
    c->reply->content_type = "application/problem+json";
    answer_json(c, 409, o);
}

void api_delete(void *ctx, const struct http_request *req, struct http_reply *reply)
{
    struct call c;
    enum kind k;
    struct tx t;
    struct row r;
    struct json *referrers = NULL;
    uint64_t revision;
    char summary[200];
    call_begin(&c, ctx, req, reply);
    if (!begin_update(&c, &k, &t, &r)) goto out;
    enum err e = find_referrers(&c, &t, &r, &referrers);
    if (e == ERR_OK && json_len(referrers) > 0) {
        tx_rollback(&t);
        answer_in_use(&c, referrers);
        goto out;
    }
    if (e == ERR_OK) e = tx_delete(&t, &r, &c.why);
    if (e != ERR_OK) {
        abandon_change(&c, &t, e);
        goto out;
    }
    (void)snprintf(summary, sizeof(summary), "delete %s %s", kind_name(k), r.slug.p);
    if (finish_change(&c, &t, summary, &revision)) reply->status = 204;
out:
    json_free(referrers);
    call_end(&c);
}
