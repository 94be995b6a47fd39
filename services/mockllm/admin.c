/* SPDX-License-Identifier: Apache-2.0 */
/* /mock/…: what tests ask the mock about itself. Runs on the connection's worker thread. */
#include "conn.h"

static void respond_json(struct conn *c, struct json *takes)
{
    struct buf *body = &c->worker->body;
    buf_clear(body);
    enum err e = json_print(takes, body);
    json_free(takes);
    if (e != ERR_OK) buf_clear(body);
    respond_simple(c, e == ERR_OK ? 200 : 500, "application/json", buf_str(body), NULL, AFTER_NEXT);
}

/* The value of a query argument; not decoded: ids are plain. */
static struct str query_arg(struct str query, struct str name)
{
    while (query.p != NULL) {
        struct str value = str_cut(&query, '&'), key = str_cut(&value, '=');
        if (str_eq(key, name)) return value;
    }
    return STR_NULL;
}

static void set_default(struct conn *c, struct str spec)
{
    struct server *s = c->worker->server;
    struct behave b;
    struct why why = { "" };
    struct buf *body = &c->worker->body;
    behave_init(&b);
    enum err e = spec.n >= BEHAVIOUR_MAX ? why_set(&why, ERR_LIMIT, "too long")
                                         : behave_parse(&b, spec, ';', &why);
    if (e != ERR_OK) {
        buf_clear(body);
        if (answer_error(API_CHAT, 400, why.text, body) != ERR_OK) buf_clear(body);
        respond_simple(c, 400, "application/json", buf_str(body), NULL, AFTER_NEXT);
        return;
    }
    pthread_mutex_lock(&s->lock);
    str_copyz(s->behaviour, sizeof s->behaviour, spec);
    pthread_mutex_unlock(&s->lock);
    respond_simple(c, 200, "application/json", STR("{\"ok\":true}"), NULL, AFTER_NEXT);
}

static void get_default(struct conn *c)
{
    struct server *s = c->worker->server;
    struct json *o = json_object();
    pthread_mutex_lock(&s->lock);
    json_setz(o, "default", s->behaviour);
    pthread_mutex_unlock(&s->lock);
    respond_json(c, o);
}

bool admin_respond(struct conn *c, const struct h1_request *r, struct str body)
{
    struct store *store = c->worker->server->store;
    bool get = r->method == H1_GET, put = r->method == H1_PUT || r->method == H1_POST;
    if (!str_starts(r->path, STR("/mock/"))) return false;
    behave_init(&c->behave);
    if (get && str_eqz(r->path, "/mock/stats")) {
        respond_json(c, store_stats(store));
    } else if (get && str_eqz(r->path, "/mock/requests")) {
        respond_json(c, store_requests(store, query_arg(r->query, STR("id"))));
    } else if (put && str_eqz(r->path, "/mock/reset")) {
        store_reset(store);
        respond_simple(c, 200, "application/json", STR("{\"ok\":true}"), NULL, AFTER_NEXT);
    } else if (put && str_eqz(r->path, "/mock/default")) {
        set_default(c, str_trim(body));
    } else if (get && str_eqz(r->path, "/mock/default")) {
        get_default(c);
    } else if (get && str_eqz(r->path, "/mock/help")) {
        struct buf *out = &c->worker->body;
        buf_clear(out);
        if (behave_markdown(out) != ERR_OK) buf_clear(out);
        respond_simple(c, 200, "text/markdown; charset=utf-8", buf_str(out), NULL, AFTER_NEXT);
    } else {
        respond_simple(c, 404, "application/json",
                       STR("{\"error\":{\"message\":\"no such page\"}}"), NULL, AFTER_NEXT);
    }
    return true;
}
