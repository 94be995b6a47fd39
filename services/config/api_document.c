/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The whole configuration as one document, JSON or YAML. Importing is declarative: what the
 * document does not have goes, unless ?prune=false. HTTP server threads.
 */
#include <stdio.h>
#include <stdlib.h>

#include "api_impl.h"
#include "model_wants.h"
#include "base/map.h"
#include "rt/yaml.h"

enum { DOCUMENT_MAX_BYTES = 64 << 20, DOCUMENT_VERSION = 1, LISTED_CHANGES = 1000 };

/* --- exporting --- */

static enum err export_kind(struct call *c, struct db *d, enum kind k, bool with_ids,
                            struct json *doc)
{
    struct rows found;
    struct row_filter f = { .by_slug = true };
    enum err e = store_list(d, k, &f, &c->arena, &found, &c->why);
    struct json *list = json_array(), *o;
    for (size_t i = 0; e == ERR_OK && i < found.n; i++) {
        e = model_export(d, &found.v[i], with_ids, &c->arena, &o, &c->why);
        if (e == ERR_OK) json_push(list, o);
    }
    json_set(doc, kind_name(k), list);
    return e;
}

static bool wants_yaml(struct call *c)
{
    struct str format = http_query(c->req, "format"), accept = http_header(c->req, "accept");
    if (format.p != NULL) return str_ieqz(format, "yaml");
    return accept.p != NULL && str_contains(accept, STR("yaml"));
}

static void answer_yaml(struct call *c, struct json *takes)
{
    c->reply->content_type = "application/yaml";
    buf_clear(&c->reply->body);
    if (yaml_print(takes, &c->reply->body) != ERR_OK) answer_problem(c, 500, "cannot be printed");
    json_free(takes);
}

void api_export(void *ctx, const struct http_request *req, struct http_reply *reply)
{
    struct call c;
    struct db *d;
    bool ids;
    uint64_t revision = 0;
    call_begin(&c, ctx, req, reply);
    if (!read_flag(&c, "ids", true, &ids)) goto out;
    enum err e = store_borrow(c.api->store, &d, &c.why);
    if (e != ERR_OK) {
        answer_error(&c, e);
        goto out;
    }
    struct json *doc = json_object();
    json_set_u64(doc, "version", DOCUMENT_VERSION);
    /* All of one revision: in one transaction. */
    e = db_begin(d, &c.why);
    if (e == ERR_OK) {
        e = store_revision(d, &revision, &c.why);
        for (int k = 0; e == ERR_OK && k < KIND_COUNT; k++)
            e = export_kind(&c, d, (enum kind)k, ids, doc);
        db_rollback(d);
    }
    store_return(c.api->store, d);
    if (e != ERR_OK) {
        json_free(doc);
        answer_error(&c, e);
        goto out;
    }
    http_reply_header(reply, "x-aigw-revision", "%llu", (unsigned long long)revision);
    if (wants_yaml(&c)) {
        answer_yaml(&c, doc);
    } else {
        answer_json(&c, 200, doc);
    }
out:
    call_end(&c);
}

/* --- importing --- */

struct import {
    struct call *c;
    struct tx *t;
    bool prune;
    struct json *secrets; /* of keys that were made, to be shown once */
};

static void set_prefix(struct call *c, enum kind k, size_t i)
{
    buf_clear(&c->problems.prefix);
    if (buf_printf(&c->problems.prefix, "/%s/%zu", kind_name(k), i) != ERR_OK)
        buf_clear(&c->problems.prefix);
}

/* What an item of the document means to replace: by id, else by its slug where it belongs.
 * ERR_NOT_FOUND: it is new. */
static enum err match_existing(struct import *im, enum kind k, const struct json *item,
                               struct row *ret)
{
    struct call *c = im->c;
    struct str id = json_str(json_get(item, "id")), slug = json_str(json_get(item, "slug")),
               ns = json_str(json_get(item, "namespace")), parent = STR("");
    enum err e = ERR_NOT_FOUND;
    if (id.p != NULL && id.n <= 64) {
        e = store_get(im->t->db, k, id, &c->arena, ret, &c->why);
        if (e != ERR_NOT_FOUND) return e;
    }
    if (slug.p == NULL) return ERR_NOT_FOUND;
    if (kind_has_namespace(k) && ns.p != NULL) {
        e = model_resolve(im->t->db, KIND_NAMESPACE, STR(""), ns, &c->arena, &parent, &c->why);
        if (e != ERR_OK) return e;
    }
    e = store_find(im->t->db, k, parent, slug, &c->arena, ret, &c->why);
    /* With another id it is another entity that takes the slug over. */
    if (e == ERR_OK && id.p != NULL && im->prune && !str_eq(id, ret->id)) return ERR_NOT_FOUND;
    return e;
}

/* Removes what no item of the document matched. */
static enum err prune_kind(struct import *im, enum kind k, const struct row *matched,
                           const bool *has, size_t n)
{
    struct call *c = im->c;
    struct rows all;
    struct map keep;
    struct row_filter f = { .limit = 0 };
    static char mark;
    if (!im->prune) return ERR_OK;
    enum err e = store_list(im->t->db, k, &f, &c->arena, &all, &c->why);
    map_init(&keep, SIZE_MAX / 2);
    for (size_t i = 0; i < n && e == ERR_OK; i++)
        if (has[i]) e = map_put(&keep, matched[i].id, &mark, NULL);
    for (size_t i = 0; e == ERR_OK && i < all.n; i++)
        if (map_get(&keep, all.v[i].id) == NULL) e = tx_delete(im->t, &all.v[i], &c->why);
    map_done(&keep);
    return e;
}

static enum err put_item(struct import *im, enum kind k, const struct json *item,
                         const struct row *existing)
{
    struct call *c = im->c;
    struct entity made;
    enum err e = model_prepare(im->t, &c->api->secrets, k, item, existing, &c->problems, &made,
                               &c->why);
    if (e == ERR_INVALID && c->problems.n > 0) return ERR_OK; /* go on: all violations count */
    if (e == ERR_OK) e = tx_put(im->t, &made.row, &c->why);
    if (e == ERR_EXISTS) {
        problem_add(&c->problems, "/slug", "is in use");
        return ERR_OK;
    }
    if (e == ERR_OK && made.new_secret[0] != '\0') {
        struct json *o = json_object();
        json_set_str(o, "id", made.row.id);
        json_set_str(o, "slug", made.row.slug);
        json_setz(o, "secret", made.new_secret);
        json_push(im->secrets, o);
    }
    explicit_bzero(made.new_secret, sizeof(made.new_secret));
    return e;
}

static enum err import_kind(struct import *im, enum kind k, const struct json *list)
{
    struct call *c = im->c;
    size_t n = json_len(list), i = 0;
    struct row *matched = arena_alloc(&c->arena, (n + 1) * sizeof(*matched));
    bool *has = arena_calloc(&c->arena, n + 1);
    struct map seen;
    enum err e = matched == NULL || has == NULL ? ERR_LIMIT : ERR_OK;
    map_init(&seen, SIZE_MAX / 2);
    for (const struct json *it = json_first(list); e == ERR_OK && it != NULL;
         it = json_next(it), i++) {
        void *old = NULL;
        e = match_existing(im, k, it, &matched[i]);
        has[i] = e == ERR_OK;
        if (e == ERR_NOT_FOUND) e = ERR_OK;
        if (has[i]) e = map_put(&seen, matched[i].id, matched, &old);
        if (old != NULL) {
            set_prefix(c, k, i);
            problem_add(&c->problems, "/slug", "the document has this one twice");
        }
    }
    map_done(&seen);
    if (e == ERR_OK) e = prune_kind(im, k, matched, has, n);
    i = 0;
    for (const struct json *it = json_first(list); e == ERR_OK && it != NULL;
         it = json_next(it), i++) {
        set_prefix(c, k, i);
        e = put_item(im, k, it, has[i] ? &matched[i] : NULL);
    }
    buf_clear(&c->problems.prefix);
    return e;
}

static void check_document(struct call *c, const struct json *doc)
{
    uint64_t version = DOCUMENT_VERSION;
    enum kind k;
    if (!json_is(doc, JSON_OBJECT)) {
        problem_add(&c->problems, "", "must be an object");
        return;
    }
    if (json_get(doc, "version") != NULL &&
        (json_get_u64(doc, "version", &version) != ERR_OK || version != DOCUMENT_VERSION))
        problem_add(&c->problems, "/version", "must be %d", DOCUMENT_VERSION);
    for (const struct json *m = json_first(doc); m != NULL; m = json_next(m)) {
        char pointer[80];
        struct str key = json_key(m);
        (void)snprintf(pointer, sizeof(pointer), "/%.*s", (int)MIN(key.n, 64), key.p);
        if (str_eqz(key, "version")) continue;
        if (kind_parse(key, &k) != ERR_OK) {
            problem_add(&c->problems, pointer, "is not known");
        } else if (!json_is(m, JSON_ARRAY) && !json_is(m, JSON_NULL)) {
            problem_add(&c->problems, pointer, "must be a list");
        }
    }
}

/* Two namespaces may not both take what no matcher matches. */
static enum err check_defaults(struct import *im)
{
    struct rows found;
    struct row_filter f = { .body_like = "%\"default\":true%" };
    enum err e = store_list(im->t->db, KIND_NAMESPACE, &f, &im->c->arena, &found, &im->c->why);
    if (e == ERR_OK && found.n > 1)
        problem_add(&im->c->problems, "/namespaces", "%.*s and %.*s are both the default",
                    STR_ARG(found.v[0].slug), STR_ARG(found.v[1].slug));
    return e;
}

/* Kinds come in the order of their references: what a kind refers to is there, or gone, when its
 * turn comes. */
static enum err run_import(struct import *im, const struct json *doc)
{
    enum err e = ERR_OK;
    im->t->bulk = true;
    for (int k = 0; k < KIND_COUNT && e == ERR_OK; k++)
        e = import_kind(im, (enum kind)k, json_get(doc, kind_name((enum kind)k)));
    if (e == ERR_OK) e = check_defaults(im);
    if (e == ERR_OK) e = model_check_wants(im->t, NULL, NULL, &im->c->problems, &im->c->why);
    if (e == ERR_OK && im->c->problems.n > 0) e = ERR_INVALID;
    return e;
}

static void count_changes(const struct audit *v, size_t n, size_t out[3])
{
    out[0] = out[1] = out[2] = 0;
    for (size_t i = 0; i < n; i++) {
        if (str_eqz(v[i].action, "create")) {
            out[0]++;
        } else if (str_eqz(v[i].action, "update")) {
            out[1]++;
        } else {
            out[2]++;
        }
    }
}

static void answer_import(struct call *c, struct tx *t, struct import *im)
{
    struct audit *v;
    size_t n, counts[3];
    uint64_t revision;
    char summary[200];
    enum err e = store_audit(t->db, t->revision - 1, t->revision, STR_NULL, 10000000, &c->arena, &v,
                             &n, &c->why);
    if (e != ERR_OK) {
        abandon_change(c, t, e);
        return;
    }
    count_changes(v, n, counts);
    (void)snprintf(summary, sizeof(summary), "import: %zu created, %zu updated, %zu deleted",
                   counts[0], counts[1], counts[2]);
    if (!finish_change(c, t, summary, &revision)) return;
    struct json *o = json_object();
    json_set_u64(o, "revision", revision);
    json_set_bool(o, "changed", n > 0);
    json_set_u64(o, "created", counts[0]);
    json_set_u64(o, "updated", counts[1]);
    json_set_u64(o, "deleted", counts[2]);
    json_set(o, "changes", changes_json(v, MIN(n, (size_t)LISTED_CHANGES), false));
    json_set(o, "secrets", json_copy(im->secrets));
    answer_json(c, 200, o);
}

void api_import(void *ctx, const struct http_request *req, struct http_reply *reply)
{
    struct call c;
    struct tx t;
    struct json *doc = NULL;
    struct import im = { .c = &c, .t = &t };
    call_begin(&c, ctx, req, reply);
    if (!read_flag(&c, "dry_run", false, &c.dry_run) || !read_flag(&c, "prune", true, &im.prune) ||
        !read_body(&c, DOCUMENT_MAX_BYTES, &doc))
        goto out;
    check_document(&c, doc);
    enum err e = c.problems.n > 0 ? ERR_INVALID : ERR_OK;
    if (e == ERR_OK) e = tx_begin(c.api->store, &c.arena, &t, &c.why);
    if (e != ERR_OK) {
        answer_error(&c, e);
        goto out;
    }
    im.secrets = json_array();
    e = run_import(&im, doc);
    if (e == ERR_OK) {
        answer_import(&c, &t, &im);
    } else {
        abandon_change(&c, &t, e);
    }
out:
    json_free(im.secrets);
    json_free(doc);
    call_end(&c);
}
