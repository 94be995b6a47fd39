/* SPDX-License-Identifier: Apache-2.0 */
/* Revisions, what changed between them, the way back, and who runs what. HTTP server threads. */
#include <stdio.h>
#include <stdlib.h>

#include "api_impl.h"
#include "base/log.h"
#include "base/map.h"
#include "proto/gone_msg.h"
#include "proto/subjects.h"

enum { AUDIT_MAX = 100000 };

static struct json *revision_view(const struct revision *r)
{
    char ts[TIME_RFC3339_LEN + 1];
    struct json *o = json_object();
    time_rfc3339(r->created_ms * 1000000, ts);
    json_set_u64(o, "revision", r->revision);
    json_setz(o, "created_at", ts);
    json_set_str(o, "actor", r->actor);
    json_set_str(o, "instance", r->instance);
    json_set_str(o, "summary", r->summary);
    json_set_i64(o, "changes", r->changes);
    return o;
}

static bool parse_revision(struct call *c, struct str s, uint64_t *ret)
{
    if (str_to_u64(s, ret) == ERR_OK && *ret <= INT64_MAX) return true;
    answer_problem(c, 404, "a revision is a number");
    return false;
}

void api_revisions(void *ctx, const struct http_request *req, struct http_reply *reply)
{
    struct call c;
    struct db *d;
    struct revision *v;
    size_t n, limit;
    uint64_t before = 0;
    call_begin(&c, ctx, req, reply);
    struct str cursor = http_query(req, "cursor");
    if (!read_limit(&c, &limit)) goto out;
    if (cursor.p != NULL && (str_to_u64(cursor, &before) != ERR_OK || before > INT64_MAX)) {
        answer_problem(&c, 400, "?cursor= must be what an earlier page gave");
        goto out;
    }
    enum err e = store_borrow(c.api->store, &d, &c.why);
    if (e == ERR_OK) {
        e = store_revision_list(d, before, limit + 1, &c.arena, &v, &n, &c.why);
        store_return(c.api->store, d);
    }
    if (e != ERR_OK) {
        answer_error(&c, e);
        goto out;
    }
    struct json *o = json_object(), *items = json_array();
    for (size_t i = 0; i < MIN(n, limit); i++) json_push(items, revision_view(&v[i]));
    json_set(o, "items", items);
    if (n > limit) {
        char text[24];
        (void)snprintf(text, sizeof(text), "%llu", (unsigned long long)v[limit - 1].revision);
        json_setz(o, "next_cursor", text);
    } else {
        json_set_null(o, "next_cursor");
    }
    json_set_u64(o, "pushed", push_revision(c.api->push));
    answer_json(&c, 200, o);
out:
    call_end(&c);
}

void api_revision(void *ctx, const struct http_request *req, struct http_reply *reply)
{
    struct call c;
    struct db *d;
    struct revision r;
    struct audit *v;
    size_t n;
    uint64_t number;
    call_begin(&c, ctx, req, reply);
    if (!parse_revision(&c, req->params[0], &number)) goto out;
    enum err e = store_borrow(c.api->store, &d, &c.why);
    if (e == ERR_OK) {
        e = store_revision_get(d, number, &c.arena, &r, &c.why);
        if (e == ERR_OK)
            e = store_audit(d, number - 1, number, STR_NULL, AUDIT_MAX, &c.arena, &v, &n, &c.why);
        store_return(c.api->store, d);
    }
    if (e != ERR_OK) {
        answer_error(&c, e);
        goto out;
    }
    struct json *o = revision_view(&r);
    json_set(o, "items", changes_json(v, n, true));
    answer_json(&c, 200, o);
out:
    call_end(&c);
}

/* One record per entity: what it was before the first change and is after the last. Keeps the
 * order of the first changes; what ends as it began is left out. */
static enum err condense(struct audit *v, size_t *n)
{
    struct map first;
    size_t out = 0;
    enum err e = ERR_OK;
    map_init(&first, SIZE_MAX / 2);
    for (size_t i = 0; i < *n && e == ERR_OK; i++) {
        struct audit *had = map_get(&first, v[i].id);
        if (had != NULL) {
            had->after = v[i].after;
            had->slug = v[i].slug;
            continue;
        }
        v[out] = v[i];
        e = map_put(&first, v[out].id, &v[out], NULL);
        out++;
    }
    map_done(&first);
    size_t kept = 0;
    for (size_t i = 0; i < out; i++) {
        if (v[i].before.p == NULL && v[i].after.p == NULL) continue;
        if (v[i].before.p != NULL && v[i].after.p != NULL && str_eq(v[i].before, v[i].after))
            continue;
        v[i].action = v[i].before.p == NULL  ? STR("create")
                      : v[i].after.p == NULL ? STR("delete")
                                             : STR("update");
        v[kept++] = v[i];
    }
    *n = kept;
    return e;
}

static void turn_around(struct audit *v, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct str before = v[i].before;
        v[i].before = v[i].after;
        v[i].after = before;
        if (str_eqz(v[i].action, "create")) {
            v[i].action = STR("delete");
        } else if (str_eqz(v[i].action, "delete")) {
            v[i].action = STR("create");
        }
    }
}

void api_diff(void *ctx, const struct http_request *req, struct http_reply *reply)
{
    struct call c;
    struct db *d;
    struct audit *v;
    size_t n = 0;
    uint64_t a, b, newest = 0;
    call_begin(&c, ctx, req, reply);
    if (!parse_revision(&c, req->params[0], &a) || !parse_revision(&c, req->params[1], &b))
        goto out;
    enum err e = store_borrow(c.api->store, &d, &c.why);
    if (e == ERR_OK) {
        e = store_revision(d, &newest, &c.why);
        if (e == ERR_OK && (a > newest || b > newest))
            e = why_set(&c.why, ERR_NOT_FOUND, "the newest revision is %llu",
                        (unsigned long long)newest);
        if (e == ERR_OK)
            e = store_audit(d, MIN(a, b), MAX(a, b), STR_NULL, AUDIT_MAX, &c.arena, &v, &n, &c.why);
        store_return(c.api->store, d);
    }
    if (e == ERR_OK) e = condense(v, &n);
    if (e != ERR_OK) {
        answer_error(&c, e);
        goto out;
    }
    if (a > b) turn_around(v, n);
    struct json *o = json_object();
    json_set_u64(o, "from", a);
    json_set_u64(o, "to", b);
    json_set(o, "changes", changes_json(v, n, true));
    answer_json(&c, 200, o);
out:
    call_end(&c);
}

/* --- the way back --- */

/* Undoes what happened after revision `to`: all that changed goes first, so that slugs are free,
 * then what was there before comes back. */
static enum err undo(struct call *c, struct tx *t, uint64_t to)
{
    struct audit *v;
    size_t n;
    struct row r;
    enum err e = store_audit(t->db, to, t->revision - 1, STR_NULL, 10000000, &c->arena, &v, &n,
                             &c->why);
    if (e == ERR_OK) e = condense(v, &n);
    for (size_t i = 0; i < n && e == ERR_OK; i++) {
        if (v[i].after.p == NULL) continue;
        if (v[i].before.p != NULL) {
            struct row before;
            e = row_from_body(v[i].kind, v[i].before, &c->arena, &before, &c->why);
            if (e == ERR_OK) e = row_from_body(v[i].kind, v[i].after, &c->arena, &r, &c->why);
            /* Stays where it is: changed in place, which keeps when it was made. */
            if (e == ERR_OK && str_eq(before.slug, r.slug) && str_eq(before.parent, r.parent) &&
                str_eq(before.uniq, r.uniq))
                continue;
        }
        if (e == ERR_OK) e = row_from_body(v[i].kind, v[i].after, &c->arena, &r, &c->why);
        if (e == ERR_OK) e = tx_delete(t, &r, &c->why);
    }
    for (size_t i = 0; i < n && e == ERR_OK; i++) {
        if (v[i].before.p == NULL) continue;
        e = row_from_body(v[i].kind, v[i].before, &c->arena, &r, &c->why);
        if (e == ERR_OK) e = tx_put(t, &r, &c->why);
    }
    return e;
}

void api_rollback(void *ctx, const struct http_request *req, struct http_reply *reply)
{
    struct call c;
    struct tx t;
    uint64_t to, revision;
    char summary[64];
    call_begin(&c, ctx, req, reply);
    if (!parse_revision(&c, req->params[0], &to) || !read_flag(&c, "dry_run", false, &c.dry_run))
        goto out;
    enum err e = tx_begin(c.api->store, &c.arena, &t, &c.why);
    if (e != ERR_OK) {
        answer_error(&c, e);
        goto out;
    }
    if (to >= t.revision) {
        e = why_set(&c.why, ERR_NOT_FOUND, "the newest revision is %llu",
                    (unsigned long long)(t.revision - 1));
    } else {
        e = undo(&c, &t, to);
    }
    if (e != ERR_OK) {
        abandon_change(&c, &t, e);
        goto out;
    }
    int changes = t.changes;
    (void)snprintf(summary, sizeof(summary), "rollback to %llu", (unsigned long long)to);
    if (!finish_change(&c, &t, summary, &revision)) goto out;
    struct json *o = json_object();
    json_set_u64(o, "revision", revision);
    json_set_bool(o, "changed", changes > 0);
    answer_json(&c, 200, o);
out:
    call_end(&c);
}

/* --- audit and instances --- */

void api_audit(void *ctx, const struct http_request *req, struct http_reply *reply)
{
    struct call c;
    struct db *d;
    struct audit *v;
    size_t n, limit;
    uint64_t after = 0;
    call_begin(&c, ctx, req, reply);
    struct str cursor = http_query(req, "after");
    if (!read_limit(&c, &limit)) goto out;
    if (cursor.p != NULL && (str_to_u64(cursor, &after) != ERR_OK || after > INT64_MAX)) {
        answer_problem(&c, 400, "?after= must be a revision");
        goto out;
    }
    enum err e = store_borrow(c.api->store, &d, &c.why);
    if (e == ERR_OK) {
        e = store_audit(d, after, INT64_MAX, http_query(req, "entity"), limit, &c.arena, &v, &n,
                        &c.why);
        store_return(c.api->store, d);
    }
    if (e != ERR_OK) {
        answer_error(&c, e);
        goto out;
    }
    struct json *o = json_object(), *items = json_array();
    for (size_t i = 0; i < n; i++) {
        struct json *one = changes_json(&v[i], 1, true), *entry = json_copy(json_first(one));
        json_set_u64(entry, "revision", v[i].revision);
        json_push(items, entry);
        json_free(one);
    }
    json_set(o, "items", items);
    answer_json(&c, 200, o);
out:
    call_end(&c);
}

void api_instances(void *ctx, const struct http_request *req, struct http_reply *reply)
{
    struct call c;
    call_begin(&c, ctx, req, reply);
    struct json *o = json_object();
    json_set(o, "items", fleet_list(c.api->fleet));
    json_set_u64(o, "revision", push_revision(c.api->push));
    answer_json(&c, 200, o);
    call_end(&c);
}

/* Also of one that we never heard of: policy engines may have. Each of them has to be told. */
void api_instance_delete(void *ctx, const struct http_request *req, struct http_reply *reply)
{
    struct call c;
    char to[SUBJECT_LEN];
    struct buf text;
    struct str instance = req->params[0];
    call_begin(&c, ctx, req, reply);
    buf_init(&text, MESSAGE_MAX_BYTES);
    if (instance.n == 0 || instance.n > GONE_INSTANCE_MAX) {
        answer_problem(&c, 404, "there is no such instance");
        goto out;
    }
    if (fleet_is_alive(c.api->fleet, instance)) {
        answer_problem(&c, 409, "the instance is there: it was heard of within 15 s");
        goto out;
    }
    subject_make(bus_prefix(c.api->bus), SUBJECT_INSTANCE_GONE, NULL, to);
    enum err e = gone_msg_encode(instance, clock_system(), rng_system(),
                                 store_instance(c.api->store), &text);
    if (e == ERR_OK) e = bus_publish(c.api->bus, to, buf_str(&text));
    if (e != ERR_OK) {
        answer_error(&c, why_set(&c.why, ERR_UNAVAILABLE, "the bus is away"));
        goto out;
    }
    char name[GONE_INSTANCE_MAX + 1];
    (void)str_copyz(name, sizeof name, instance);
    log_info("an operator removed an instance", LS("instance", name));
    reply->status = 204;
out:
    buf_done(&text);
    call_end(&c);
}
