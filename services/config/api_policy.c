/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is used of a policy's counters, resets, and explanations of sample requests: asked of the
 * policy engine and of an edge over the bus, which have the answers. The handler's thread waits,
 * ASK_MS at most for each question.
 */
#include "api_impl.h"

#include <stdio.h>

#include "proto/counters_msg.h"
#include "proto/explain_msg.h"
#include "proto/subjects.h"

enum { ASK_MS = 2000, BODY_MAX = 64 * 1024, COUNTERS_LOOKS_MAX = 32 };

/* Asks; *ret is the reply without its envelope. The other side's error is ours. */
static enum err ask(struct call *c, enum subject subject, struct str question, const char *who,
                    struct json **ret)
{
    static const char *const envelope[] = { "v", "id", "ts", "from" };
    char to[SUBJECT_LEN];
    struct json *m = NULL;
    struct buf reply;
    buf_init(&reply, MESSAGE_MAX_BYTES);
    subject_make(bus_prefix(c->api->bus), subject, NULL, to);
    enum err e = bus_request_wait(c->api->bus, to, question, ASK_MS, &reply);
    if (e != ERR_OK) e = why_set(&c->why, ERR_UNAVAILABLE, "no %s answers (%s)", who, err_name(e));
    if (e == ERR_OK) e = envelope_parse(buf_str(&reply), &m, &c->why);
    if (e == ERR_OK) e = envelope_check_error(m, &c->why);
    for (size_t i = 0; e == ERR_OK && i < ARRAY_LEN(envelope); i++) json_remove(m, envelope[i]);
    buf_done(&reply);
    if (e == ERR_OK)
        *ret = m;
    else
        json_free(m);
    return e;
}

static enum err ask_counters(struct call *c, const struct counters_ask *q, struct json **ret)
{
    struct buf text;
    buf_init(&text, MESSAGE_MAX_BYTES);
    enum err e = counters_ask_encode(q, clock_system(), rng_system(), store_instance(c->api->store),
                                     &text);
    if (e == ERR_OK) e = ask(c, SUBJECT_POLICY_COUNTERS, buf_str(&text), "policy engine", ret);
    buf_done(&text);
    return e;
}

static enum err find_policy(struct call *c, struct row *ret)
{
    struct db *d;
    enum err e = store_borrow(c->api->store, &d, &c->why);
    if (e != ERR_OK) return e;
    e = find_row(c, d, KIND_POLICY, c->req->params[0], ret);
    store_return(c->api->store, d);
    if (e == ERR_EXISTS)
        return why_set(&c->why, e, "several namespaces have such a policy: add ?namespace=");
    return e;
}

/* --- usage --- */

void api_policy_usage(void *ctx, const struct http_request *req, struct http_reply *reply)
{
    struct call c;
    struct row r;
    struct json *o;
    call_begin(&c, ctx, req, reply);
    struct counters_ask q = { .op = COUNTERS_LOOK };
    struct str cursor = http_query(req, "cursor"), key = http_query(req, "key");
    if (!read_limit(&c, &q.limit)) goto out;
    if (cursor.p != NULL) q.cursor = cursor;
    if (key.p != NULL) q.keys[q.keys_n++] = key;
    enum err e = find_policy(&c, &r);
    if (e == ERR_OK) {
        q.policy = r.id;
        e = ask_counters(&c, &q, &o);
    }
    if (e != ERR_OK) {
        answer_error(&c, e);
        goto out;
    }
    json_set_str(o, "slug", r.slug);
    answer_json(&c, 200, o);
out:
    call_end(&c);
}

/* --- reset --- */

/* {"key":…}, {"keys":[…]} or {"all":true}: exactly one. */
static bool read_reset(struct call *c, const struct json *body, struct counters_ask *q)
{
    bool all = false;
    struct str key = json_str(json_get(body, "key"));
    const struct json *keys = json_get(body, "keys"), *it;
    int ways = (json_get(body, "key") != NULL) + (keys != NULL) + (json_get(body, "all") != NULL);
    *q = (struct counters_ask){ .op = COUNTERS_RESET };
    if (key.p != NULL) q->keys[q->keys_n++] = key;
    for (it = json_first(keys); it != NULL && q->keys_n < COUNTERS_KEYS_MAX; it = json_next(it))
        if (json_str(it).p != NULL) q->keys[q->keys_n++] = json_str(it);
    bool whole = json_get_bool(body, "all", &all) == ERR_OK && all;
    bool listed = keys == NULL || (json_len(keys) == q->keys_n && q->keys_n > 0);
    for (size_t i = 0; i < q->keys_n; i++)
        listed = listed && q->keys[i].n > 0 && q->keys[i].n <= LEASE_KEY_MAX;
    if (ways == 1 && listed && (q->keys_n > 0 || whole)) return true;
    problem_add(&c->problems, "",
                "must be {\"key\": …}, {\"keys\": […]} with 1 to %d keys, or {\"all\": true}",
                COUNTERS_KEYS_MAX);
    return false;
}

static void summarize(const struct row *r, const struct counters_ask *q, char out[400])
{
    if (q->keys_n == 0)
        (void)snprintf(out, 400, "reset policies %.*s: all counters", STR_ARG(r->slug));
    else
        (void)snprintf(out, 400, "reset policies %.*s: %.*s%s", STR_ARG(r->slug),
                       (int)MIN(q->keys[0].n, (size_t)250), q->keys[0].p,
                       q->keys_n > 1 ? " and others" : "");
}

/* Written down first and committed last, so that none goes unseen. */
static enum err reset_counters(struct call *c, const struct counters_ask *q, const struct row *r,
                               struct json **ret)
{
    struct tx t;
    uint64_t revision;
    char summary[400];
    summarize(r, q, summary);
    enum err e = tx_begin(c->api->store, &c->arena, &t, &c->why);
    if (e != ERR_OK) return e;
    e = tx_note(&t, "reset", r, &c->why);
    if (e == ERR_OK) e = ask_counters(c, q, ret);
    if (e != ERR_OK) {
        tx_rollback(&t);
        return e;
    }
    e = tx_commit(&t, "admin", summary, &revision, &c->why);
    if (e != ERR_OK) {
        json_free(*ret);
        return why_set(&c->why, e, "the counters were reset, but that could not be written down");
    }
    http_reply_header(c->reply, "x-aigw-revision", "%llu", (unsigned long long)revision);
    return ERR_OK;
}

void api_policy_reset(void *ctx, const struct http_request *req, struct http_reply *reply)
{
    struct call c;
    struct row r;
    struct counters_ask q;
    struct json *o, *body = NULL;
    call_begin(&c, ctx, req, reply);
    if (!read_body(&c, BODY_MAX, &body)) goto out;
    enum err e = read_reset(&c, body, &q) ? find_policy(&c, &r) : ERR_INVALID;
    if (e == ERR_OK) {
        q.policy = r.id;
        e = reset_counters(&c, &q, &r, &o);
    }
    if (e == ERR_OK)
        answer_json(&c, 200, o);
    else
        answer_error(&c, e);
out:
    json_free(body);
    call_end(&c);
}

/* --- explain --- */

static void on_problem(void *ctx, const char *pointer, const char *message)
{
    problem_add(ctx, pointer, "%s", message);
}

/* The id in the place of the key's slug; the edge knows ids. */
static enum err resolve_key(struct call *c, struct json *body)
{
    struct str text = json_str(json_get(body, "key")), ns = json_str(json_get(body, "namespace"));
    struct str parent = STR(""), id;
    struct db *d;
    struct row r;
    if (text.p == NULL) return ERR_OK;
    enum err e = store_borrow(c->api->store, &d, &c->why);
    if (e != ERR_OK) return e;
    e = store_get(d, KIND_KEY, text, &c->arena, &r, &c->why);
    if (e == ERR_OK) id = r.id;
    if (e == ERR_NOT_FOUND && ns.p != NULL) {
        e = model_resolve(d, KIND_NAMESPACE, STR(""), ns, &c->arena, &parent, &c->why);
        if (e == ERR_OK) e = model_resolve(d, KIND_KEY, parent, text, &c->arena, &id, &c->why);
    }
    store_return(c->api->store, d);
    if (e == ERR_NOT_FOUND) {
        problem_add(&c->problems, "/key",
                    "there is no such key; one that is given by its slug needs \"namespace\"");
        return ERR_INVALID;
    }
    if (e == ERR_OK) json_set_str(body, "key", id);
    return e;
}

/* What the counter says of one policy; true: it refuses. */
static bool judge(struct call *c, struct json *policy)
{
    struct counters_ask q = { .op = COUNTERS_LOOK, .keys_n = 1 };
    struct json *o;
    uint64_t units = 0, left = 0;
    q.policy = json_str(json_get(policy, "id"));
    q.keys[0] = json_str(json_get(policy, "key"));
    if (q.policy.p == NULL || q.keys[0].p == NULL) return false;
    if (json_get_u64(policy, "units", &units) != ERR_OK) units = 1;
    if (ask_counters(c, &q, &o) != ERR_OK) {
        json_setz(policy, "verdict", "unknown");
        json_setz(policy, "why", c->why.text);
        return false;
    }
    const struct json *counter = json_first(json_get(o, "counters"));
    if (json_get_u64(counter, "left", &left) != ERR_OK &&
        json_get_u64(policy, "limit", &left) != ERR_OK)
        left = 0;
    if (counter != NULL)
        json_set(policy, "counter", json_copy(counter));
    else
        json_set_null(policy, "counter"); /* nobody has asked for it: unused */
    json_setz(policy, "verdict", left >= MAX(units, UINT64_C(1)) ? "passes" : "refuses");
    json_free(o);
    return left < MAX(units, UINT64_C(1));
}

static void judge_all(struct call *c, struct json *o)
{
    size_t looks = 0;
    uint64_t status = 200;
    const struct json *refused_by = NULL;
    struct json *list = (struct json *)(uintptr_t)json_get(o, "policies");
    if (json_get_u64(o, "status", &status) != ERR_OK) status = 200;
    for (const struct json *it = json_first(list); it != NULL; it = json_next(it)) {
        struct json *p = (struct json *)(uintptr_t)it;
        bool counted = str_eqz(json_str(json_get(p, "verdict")), "counter");
        if (!counted || looks++ >= COUNTERS_LOOKS_MAX) continue;
        bool enforced = str_eqz(json_str(json_get(p, "mode")), "enforce");
        if (judge(c, p) && enforced && refused_by == NULL) refused_by = p;
    }
    if (refused_by == NULL || status != 200) return;
    char why[200];
    struct str slug = json_str(json_get(refused_by, "slug"));
    (void)snprintf(why, sizeof why, "policy %.*s has too little left", STR_ARG(slug));
    json_set_u64(o, "status", 429);
    json_setz(o, "why", why);
}

void api_explain(void *ctx, const struct http_request *req, struct http_reply *reply)
{
    struct call c;
    struct explain_ask sample;
    struct json *body = NULL, *o = NULL;
    struct buf text;
    call_begin(&c, ctx, req, reply);
    buf_init(&text, MESSAGE_MAX_BYTES);
    if (!read_body(&c, BODY_MAX, &body)) goto out;
    enum err e = explain_read(body, &sample, on_problem, &c.problems) ? ERR_OK : ERR_INVALID;
    if (e == ERR_OK) e = resolve_key(&c, body);
    if (e == ERR_OK)
        e = explain_ask_encode(body, clock_system(), rng_system(), store_instance(c.api->store),
                               &text);
    if (e == ERR_OK) e = ask(&c, SUBJECT_EDGE_EXPLAIN, buf_str(&text), "edge", &o);
    if (e == ERR_OK) {
        judge_all(&c, o);
        answer_json(&c, 200, o);
    } else {
        answer_error(&c, e);
    }
out:
    buf_done(&text);
    json_free(body);
    call_end(&c);
}
