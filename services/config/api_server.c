/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Servers: members of an upstream's document with addresses of their own. Each change is a change
 * of the upstream, whose revision is the server's ETag. HTTP server threads.
 */
#include <stdio.h>

#include "api_impl.h"
#include "base/uuid.h"

enum { SERVER_MAX_BYTES = 64 * 1024 };

/* An upstream's document, and the place of one of its servers. */
struct place {
    struct row upstream;
    struct json *view; /* of the upstream, owned */
    size_t index;
};

static struct json *server_view(const struct place *p, const struct json *server)
{
    struct json *o = json_copy(server);
    json_set_str(o, "upstream", p->upstream.id);
    json_set_u64(o, "revision", p->upstream.revision);
    return o;
}

static const struct json *server_at(const struct json *upstream, size_t index)
{
    const struct json *it = json_first(json_get(upstream, "servers"));
    for (size_t i = 0; it != NULL && i < index; i++) it = json_next(it);
    return it;
}

/* The upstream that has a server of this id. */
static enum err find_upstream_of(struct call *c, struct db *d, struct str id, struct row *ret)
{
    char pattern[64];
    struct rows found;
    if (!uuid_is_valid(id)) return ERR_NOT_FOUND; /* so it holds nothing special to LIKE */
    (void)snprintf(pattern, sizeof(pattern), "%%{\"id\":\"%.36s\"%%", id.p);
    struct row_filter f = { .body_like = pattern };
    enum err e = store_list(d, KIND_UPSTREAM, &f, &c->arena, &found, &c->why);
    if (e != ERR_OK) return e;
    if (found.n == 0) return ERR_NOT_FOUND;
    *ret = found.v[0];
    return ERR_OK;
}

/* /servers/{id}, or /upstreams/{id or slug}/servers/{id or slug}. */
static enum err find_place(struct call *c, struct db *d, struct place *ret)
{
    struct str server = c->req->params[0];
    enum err e;
    if (c->req->params[1].p != NULL) {
        server = c->req->params[1];
        e = find_row(c, d, KIND_UPSTREAM, c->req->params[0], &ret->upstream);
    } else {
        e = find_upstream_of(c, d, server, &ret->upstream);
    }
    if (e != ERR_OK) return e;
    bool by_slug = c->req->params[1].p != NULL;
    ret->view = model_view(&ret->upstream);
    const struct json *it = json_first(json_get(ret->view, "servers"));
    for (ret->index = 0; it != NULL; it = json_next(it), ret->index++) {
        if (str_eq(json_str(json_get(it, "id")), server)) return ERR_OK;
        if (by_slug && str_eq(json_str(json_get(it, "slug")), server)) return ERR_OK;
    }
    return ERR_NOT_FOUND;
}

/* --- reading --- */

void api_servers_list(void *ctx, const struct http_request *req, struct http_reply *reply)
{
    struct call c;
    struct db *d;
    struct rows found = { NULL, 0 };
    struct row one;
    struct row_filter all = { .limit = 0 };
    call_begin(&c, ctx, req, reply);
    struct str upstream = req->params[0].p != NULL ? req->params[0] : http_query(req, "upstream");
    enum err e = store_borrow(c.api->store, &d, &c.why);
    if (e == ERR_OK) {
        if (upstream.p != NULL) {
            e = find_row(&c, d, KIND_UPSTREAM, upstream, &one);
            found = (struct rows){ &one, 1 };
        } else {
            e = store_list(d, KIND_UPSTREAM, &all, &c.arena, &found, &c.why);
        }
        store_return(c.api->store, d);
    }
    if (e != ERR_OK) {
        answer_error(&c, e);
        goto out;
    }
    struct json *o = json_object(), *items = json_array();
    for (size_t i = 0; i < found.n; i++) {
        struct place p = { .upstream = found.v[i], .view = model_view(&found.v[i]) };
        const struct json *it = json_first(json_get(p.view, "servers"));
        for (; it != NULL; it = json_next(it)) json_push(items, server_view(&p, it));
        json_free(p.view);
    }
    json_set(o, "items", items);
    json_set_null(o, "next_cursor"); /* an upstream has few enough */
    answer_json(&c, 200, o);
out:
    call_end(&c);
}

void api_server_get(void *ctx, const struct http_request *req, struct http_reply *reply)
{
    struct call c;
    struct db *d;
    struct place p = { .view = NULL };
    call_begin(&c, ctx, req, reply);
    enum err e = store_borrow(c.api->store, &d, &c.why);
    if (e == ERR_OK) {
        e = find_place(&c, d, &p);
        store_return(c.api->store, d);
    }
    if (e == ERR_OK) {
        answer_headers(&c, &p.upstream);
        answer_json(&c, 200, server_view(&p, server_at(p.view, p.index)));
    } else {
        answer_error(&c, e);
    }
    json_free(p.view);
    call_end(&c);
}

/* --- changing --- */

/* Violations of the upstream's document, as the sender of a server sees them. */
static void shorten_pointers(struct call *c, size_t index)
{
    char prefix[48];
    (void)snprintf(prefix, sizeof(prefix), "/servers/%zu", index);
    struct json *list = json_array();
    for (const struct json *it = json_first(c->problems.list); it != NULL; it = json_next(it)) {
        struct json *o = json_copy(it);
        struct str pointer = json_str(json_get(it, "pointer"));
        if (str_starts(pointer, str_of(prefix)))
            json_set_str(o, "pointer",
                         str_n(pointer.p + strlen(prefix), pointer.n - strlen(prefix)));
        json_push(list, o);
    }
    json_free(c->problems.list);
    c->problems.list = list;
}

/* Puts `server` (NULL: nothing) in the place's index of the upstream's list, stores the upstream,
 * and answers. Ends t. takes server. */
static void store_server(struct call *c, struct tx *t, struct place *p, struct json *takes,
                         const char *verb)
{
    struct entity made;
    struct json *list = json_array(), *after = NULL;
    uint64_t revision;
    char summary[200];
    size_t i = 0;
    bool append = server_at(p->view, p->index) == NULL, remove = takes == NULL;
    for (const struct json *it = json_first(json_get(p->view, "servers")); it != NULL;
         it = json_next(it), i++) {
        if (i != p->index) {
            json_push(list, json_copy(it));
        } else if (!remove) {
            json_push(list, takes);
        }
    }
    if (append) json_push(list, takes);
    json_set(p->view, "servers", list);
    enum err e = model_prepare(t, &c->api->secrets, KIND_UPSTREAM, p->view, &p->upstream,
                               &c->problems, &made, &c->why);
    if (e == ERR_OK) e = tx_put(t, &made.row, &c->why);
    if (e != ERR_OK) {
        shorten_pointers(c, p->index);
        abandon_change(c, t, e);
        return;
    }
    (void)snprintf(summary, sizeof(summary), "%s a server of upstreams %s", verb, made.row.slug.p);
    if (!finish_change(c, t, summary, &revision)) return;
    if (remove) {
        c->reply->status = 204;
        return;
    }
    p->upstream = made.row;
    after = model_view(&made.row);
    const struct json *server = server_at(after, p->index);
    answer_headers(c, &made.row);
    if (append)
        http_reply_header(c->reply, "Location", "/api/v2/servers/%s",
                          json_str(json_get(server, "id")).p);
    answer_json(c, append ? 201 : 200, server_view(p, server));
    json_free(after);
}

static struct json *without_read_only(const struct json *input)
{
    struct json *o = json_copy(input);
    json_remove(o, "upstream");
    json_remove(o, "revision");
    return o;
}

void api_servers_create(void *ctx, const struct http_request *req, struct http_reply *reply)
{
    struct call c;
    struct tx t;
    struct place p = { .index = SIZE_MAX };
    struct json *input = NULL;
    call_begin(&c, ctx, req, reply);
    if (!read_flag(&c, "dry_run", false, &c.dry_run) || !read_body(&c, SERVER_MAX_BYTES, &input))
        goto out;
    struct str upstream = req->params[0].p != NULL ? req->params[0]
                                                   : json_str(json_get(input, "upstream"));
    if (!json_is(input, JSON_OBJECT) || upstream.p == NULL) {
        if (json_is(input, JSON_OBJECT)) {
            problem_add(&c.problems, "/upstream", "is required");
        } else {
            problem_add(&c.problems, "", "must be an object");
        }
        answer_error(&c, ERR_INVALID);
        goto out;
    }
    enum err e = tx_begin(c.api->store, &c.arena, &t, &c.why);
    if (e != ERR_OK) {
        answer_error(&c, e);
        goto out;
    }
    e = find_row(&c, t.db, KIND_UPSTREAM, upstream, &p.upstream);
    if (e == ERR_NOT_FOUND && req->params[0].p == NULL)
        problem_add(&c.problems, "/upstream", "there is no such upstream");
    if (e != ERR_OK) {
        abandon_change(&c, &t, e);
    } else if (!check_if_match(&c, &p.upstream)) {
        tx_rollback(&t);
    } else {
        p.view = model_view(&p.upstream);
        p.index = json_len(json_get(p.view, "servers"));
        store_server(&c, &t, &p, without_read_only(input), "add");
    }
out:
    json_free(p.view);
    json_free(input);
    call_end(&c);
}

enum change { CHANGE_PUT, CHANGE_PATCH, CHANGE_DELETE };

static void change(void *ctx, const struct http_request *req, struct http_reply *reply,
                   enum change how)
{
    struct call c;
    struct tx t;
    struct place p = { .view = NULL };
    struct json *input = NULL, *server = NULL;
    call_begin(&c, ctx, req, reply);
    if (!read_flag(&c, "dry_run", false, &c.dry_run) ||
        (how != CHANGE_DELETE && !read_body(&c, SERVER_MAX_BYTES, &input)))
        goto out;
    enum err e = tx_begin(c.api->store, &c.arena, &t, &c.why);
    if (e != ERR_OK) {
        answer_error(&c, e);
        goto out;
    }
    e = find_place(&c, t.db, &p);
    if (e != ERR_OK) {
        abandon_change(&c, &t, e);
        goto out;
    }
    if (!check_if_match(&c, &p.upstream)) {
        tx_rollback(&t);
        goto out;
    }
    const struct json *old = server_at(p.view, p.index);
    if (how == CHANGE_PATCH) {
        struct json *merged = model_merge(old, input);
        server = without_read_only(merged);
        json_free(merged);
    } else if (how == CHANGE_PUT) {
        server = without_read_only(input);
    }
    if (json_is(server, JSON_OBJECT)) {
        struct str given = json_str(json_get(server, "id")), id = json_str(json_get(old, "id"));
        if (given.p != NULL && !str_eq(given, id))
            problem_add(&c.problems, "/id", "cannot be changed");
        json_set_str(server, "id", id);
    }
    store_server(&c, &t, &p, server, how == CHANGE_DELETE ? "delete" : "update");
out:
    json_free(p.view);
    json_free(input);
    call_end(&c);
}

void api_server_put(void *ctx, const struct http_request *req, struct http_reply *reply)
{
    change(ctx, req, reply, CHANGE_PUT);
}

void api_server_patch(void *ctx, const struct http_request *req, struct http_reply *reply)
{
    change(ctx, req, reply, CHANGE_PATCH);
}

void api_server_delete(void *ctx, const struct http_request *req, struct http_reply *reply)
{
    change(ctx, req, reply, CHANGE_DELETE);
}
