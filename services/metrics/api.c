/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Questions over HTTP and over the bus. Both become a struct metrics_query; the answer is text.
 * HTTP: threads of the server. Bus: the subscription's own thread, one question at a time.
 */
#include <stdio.h>

#include "metrics.h"
#include "proto/envelope.h"
#include "proto/subjects.h"
#include "query.h"

enum { ANSWER_MAX = 16 * 1024 * 1024, HTTP_THREADS = 2, HTTP_CONNECTIONS = 128 };

static void count_query(struct metrics_state *m, const char *via, enum err e)
{
    const struct str labels[] = { str_of(via), str_of(e == ERR_OK ? "ok" : err_name(e)) };
    metric_inc(metrics_get(daemon_metrics(m->daemon), M_QUERIES, labels));
}

/* --- HTTP --- */

static void reply_error(struct http_reply *r, int status, const char *message)
{
    buf_clear(&r->body);
    r->status = status;
    r->content_type = "application/problem+json";
    struct buf *b = &r->body;
    enum err e = buf_printf(b, "{\"status\":%d,\"detail\":", status);
    if (e == ERR_OK) e = buf_append_json(b, str_of(message));
    if (e == ERR_OK) e = buf_append_char(b, '}');
    if (e != ERR_OK) r->status = 500;
}

static int status_of(enum err e)
{
    switch (e) {
    case ERR_INVALID: return 400;
    case ERR_LIMIT: return 422;
    case ERR_UNAVAILABLE:
    case ERR_CONFLICT:
    case ERR_TIMEOUT: return 503;
    default: return 500;
    }
}

static enum err read_arguments(const struct http_request *req, struct metrics_query *q,
                               struct why *why)
{
    struct str s;
    uint64_t limit;
    for (size_t i = 0; i < METRICS_DIM_MAX; i++)
        q->filter[i] = http_query(req, metrics_dim_name((enum metrics_dim)i));
    enum err e = metrics_group_by_parse(http_query(req, "group_by"), q->group_by, why);
    if (e != ERR_OK) return e;
    s = http_query(req, "from");
    if (s.n > 0 && metrics_time_parse(s, &q->from_ms) != ERR_OK)
        return why_set(why, ERR_INVALID, "from: neither RFC 3339 in UTC nor milliseconds");
    s = http_query(req, "to");
    if (s.n > 0 && metrics_time_parse(s, &q->to_ms) != ERR_OK)
        return why_set(why, ERR_INVALID, "to: neither RFC 3339 in UTC nor milliseconds");
    s = http_query(req, "step");
    if (s.n > 0 && metrics_step_parse(s, &q->step_s) != ERR_OK)
        return why_set(why, ERR_INVALID, "step: neither 1m, 1h nor 1d");
    s = http_query(req, "limit");
    if (s.n > 0) {
        if (str_to_u64(s, &limit) != ERR_OK || limit == 0 || limit > METRICS_LIMIT_MAX)
            return why_set(why, ERR_INVALID, "limit: not a number from 1 to %d", METRICS_LIMIT_MAX);
        q->limit = (unsigned)limit;
    }
    q->cursor = http_query(req, "cursor");
    return ERR_OK;
}

static void answer_http(struct metrics_state *m, enum metrics_kind kind,
                        const struct http_request *req, struct http_reply *reply)
{
    struct metrics_query q = { .kind = kind };
    struct why why = { "" };
    enum err e = read_arguments(req, &q, &why);
    if (e == ERR_OK) e = metrics_answer(m, &q, &reply->body, &why);
    if (e != ERR_OK) reply_error(reply, status_of(e), why.text);
    count_query(m, "http", e);
}

static void get_totals(void *ctx, const struct http_request *req, struct http_reply *reply)
{
    answer_http(ctx, METRICS_TOTALS, req, reply);
}

static void get_series(void *ctx, const struct http_request *req, struct http_reply *reply)
{
    answer_http(ctx, METRICS_SERIES, req, reply);
}

static void get_records(void *ctx, const struct http_request *req, struct http_reply *reply)
{
    answer_http(ctx, METRICS_RECORDS, req, reply);
}

static void get_metrics(void *ctx, const struct http_request *req, struct http_reply *reply)
{
    struct metrics_state *m = ctx;
    (void)req;
    reply->content_type = "text/plain; version=0.0.4; charset=utf-8";
    if (daemon_render_metrics(m->daemon, &reply->body) != ERR_OK)
        reply_error(reply, 500, "cannot render the metrics");
}

static const struct http_route routes[] = {
    { "GET", "/api/v1/usage/totals", get_totals },
    { "GET", "/api/v1/usage/series", get_series },
    { "GET", "/api/v1/usage/records", get_records },
    { "GET", "/metrics", get_metrics },
};

static bool is_allowed(void *ctx, const struct http_request *req, struct http_reply *reply)
{
    const struct metrics_state *m = ctx;
    struct str want = str_of(m->settings->token), got = http_header(req, "authorization");
    if (want.n == 0) return true;
    if (got.n == want.n + 7 && str_ieq(str_n(got.p, 7), STR("Bearer ")) &&
        mem_eq_const_time(got.p + 7, want.p, want.n))
        return true;
    reply_error(reply, 401, "a bearer token is needed");
    http_reply_header(reply, "www-authenticate", "Bearer");
    return false;
}

/* --- bus --- */

static enum err answer_message(struct metrics_state *m, const struct bus_msg *msg, struct buf *out,
                               struct why *why)
{
    struct metrics_query q;
    struct json *request;
    struct arena arena;
    enum err e = envelope_parse(msg->data, &request, why);
    if (e != ERR_OK) return e;
    arena_init(&arena, 64 * 1024);
    e = metrics_query_decode(request, &arena, &q, why);
    if (e == ERR_OK) e = metrics_answer(m, &q, out, why);
    arena_done(&arena);
    json_free(request);
    return e;
}

static void on_query(void *ctx, const struct bus_msg *msg)
{
    struct metrics_state *m = ctx;
    struct daemon *d = m->daemon;
    struct why why = { "" };
    struct buf text, result;
    struct json *reply;
    buf_init(&text, MESSAGE_MAX_BYTES);
    buf_init(&result, MESSAGE_MAX_BYTES - 1024);
    enum err e = answer_message(m, msg, &result, &why);
    if (e == ERR_OK)
        reply = envelope_new(daemon_clock(d), daemon_rng(d), daemon_instance(d));
    else
        reply = envelope_error(daemon_clock(d), daemon_rng(d), daemon_instance(d), e, why.text);
    enum err sent = json_print(reply, &text);
    json_free(reply);
    if (sent == ERR_OK && e == ERR_OK) {
        text.len--; /* the closing brace: the result is text already */
        sent = buf_appendz(&text, ",\"result\":");
        if (sent == ERR_OK) sent = buf_append_str(&text, buf_str(&result));
        if (sent == ERR_OK) sent = buf_append_char(&text, '}');
    }
    if (sent == ERR_OK) sent = bus_reply(daemon_bus(d), msg->reply, buf_str(&text));
    if (e == ERR_OK) e = sent;
    if (e != ERR_OK) bus_endpoint_error(m->query_sub, err_name(e));
    count_query(m, "bus", e);
    buf_done(&text);
    buf_done(&result);
}

/* --- both --- */

enum err metrics_answer(struct metrics_state *m, const struct metrics_query *q, struct buf *out,
                        struct why *why)
{
    enum err e = ERR_UNAVAILABLE;
    (void)pthread_mutex_lock(&m->lock);
    if (m->db != NULL)
        e = query_answer(m->db, q, clock_wall_ms(daemon_clock(m->daemon)), out, why);
    else
        (void)why_set(why, e, "the ledger is not open yet");
    (void)pthread_mutex_unlock(&m->lock);
    return e;
}

enum err api_start(struct metrics_state *m, struct why *why)
{
    char subject[SUBJECT_LEN];
    struct bus *bus = daemon_bus(m->daemon);
    struct http_server_options o = { .bind = m->settings->bind,
                                     .port = (uint16_t)m->settings->port,
                                     .routes = routes,
                                     .routes_len = ARRAY_LEN(routes),
                                     .ctx = m,
                                     .max_body = 1024,
                                     .threads = HTTP_THREADS,
                                     .max_connections = HTTP_CONNECTIONS,
                                     .timeout_s = 30,
                                     .before = is_allowed };
    enum err e = http_server_new(&o, &m->http, why);
    if (e != ERR_OK) return e;
    subject_make(bus_prefix(bus), SUBJECT_METRICS_QUERY, NULL, subject);
    struct bus_endpoint endpoint = { "query", subject, subject_queue(SUBJECT_METRICS_QUERY) };
    e = bus_serve(bus, &endpoint, on_query, m, &m->query_sub);
    if (e != ERR_OK) {
        api_stop(m);
        return why_set(why, e, "cannot serve %s", subject);
    }
    return ERR_OK;
}

void api_stop(struct metrics_state *m)
{
    bus_unsubscribe(m->query_sub);
    m->query_sub = NULL;
    if (m->http != NULL) http_server_free(m->http);
    m->http = NULL;
}
