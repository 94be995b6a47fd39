/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The request as it goes upstream: a head built anew from parsed parts, and the client's body with
 * splices. Providers cache prompts by prefix, so the body is never written anew.
 */
#include <stdio.h>

#include "match/edits.h"
#include "flow_impl.h"
#include "dialects/splice.h"

enum { MAX_SPLICES = 8 + SNAP_PARAMS_MAX, SPLICE_MAX = 4096 };

struct splices {
    struct splice v[MAX_SPLICES];
    size_t n;
    enum err err; /* the first that occurred */
};

static void add(struct flow *f, struct splices *s, const char *at, size_t del, const char *fmt, ...)
    PRINTF_LIKE(5, 6);

static void add(struct flow *f, struct splices *s, const char *at, size_t del, const char *fmt, ...)
{
    va_list ap;
    struct buf text;
    ASSERT(s->n < MAX_SPLICES);
    struct splice *x = &s->v[s->n++];
    *x = (struct splice){ .at = at, .del = del };
    buf_init(&text, SPLICE_MAX);
    va_start(ap, fmt);
    enum err e = buf_vprintf(&text, fmt, ap);
    va_end(ap);
    if (e == ERR_OK) e = arena_dup(&f->asked->arena, buf_str(&text), &x->ins);
    if (s->err == ERR_OK) s->err = e;
    buf_done(&text);
}

/* The place behind the object's opening brace, and whether a comma is needed behind what is
 * inserted there. */
static const char *inside(struct js_val object, const char **ret_comma)
{
    const char *p = object.raw.p + 1, *q = p;
    while (*q == ' ' || *q == '\t' || *q == '\r' || *q == '\n') q++;
    *ret_comma = *q == '}' ? "" : ",";
    return p;
}

static void insert(struct flow *f, struct splices *s, struct str name, struct str value)
{
    const char *comma, *at = inside(f->asked->scan.root, &comma);
    add(f, s, at, 0, "\"%.*s\":%.*s%s", STR_ARG(name), STR_ARG(value), comma);
}

/* The route's default and maximum parameters. */
static void edit_params(struct flow *f, struct splices *s)
{
    const struct params *p = f->asked->params;
    for (size_t i = 0; p != NULL && i < p->edits_n; i++) {
        const struct param_edit *e = &p->edits[i];
        if (e->at.raw.p != NULL)
            add(f, s, e->at.raw.p, e->at.raw.n, "%.*s", STR_ARG(e->value));
        else
            insert(f, s, e->name, e->value);
    }
}

/* The most that a choice may have; UINT64_MAX: no bound. */
static uint64_t most_of_choice(const struct flow *f)
{
    uint64_t most = f->asked->params != NULL ? f->asked->params->output_max : PARAMS_NO_MAX;
    /* The limit is of all choices together; the parameter is each choice's. */
    if (f->output_limit != METER_NO_LIMIT)
        most = MIN(most,
                   MAX(f->output_limit / f->asked->scan.choices, f->dialect->max_output_least));
    return most;
}

/* No bound of the request may be above the limit, and there must be one. */
static void clamp_output(struct flow *f, struct splices *s)
{
    struct str param = str_of(f->dialect->max_output_param);
    const struct params *p = f->asked->params;
    bool any = false;
    bool has_default = p != NULL && p->output_name.p != NULL;
    uint64_t most = most_of_choice(f);
    char number[24];
    if ((most == UINT64_MAX && !has_default) || !endpoint_is_metered(f->endpoint)) return;
    /* null is no bound; what is inserted would stand beside it. */
    uint64_t instead = has_default ? MIN(most, p->output_default) : most;
    for (size_t i = 0; i < MAX_OUTPUT_PARAMS; i++) {
        struct js_val v = f->asked->scan.max_output[i];
        uint64_t n = UINT64_MAX;
        if (v.raw.p == NULL) continue;
        any = true;
        if (v.type == JS_NULL)
            add(f, s, v.raw.p, v.raw.n, "%llu", (unsigned long long)instead);
        else if (js_u64(v, &n) == ERR_OK && n > most)
            add(f, s, v.raw.p, v.raw.n, "%llu", (unsigned long long)most);
    }
    if (f->endpoint == SNAP_EP_COMPLETIONS) param = STR("max_tokens");
    if (has_default) param = p->output_name;
    if (any || param.p == NULL) return;
    int n = snprintf(number, sizeof number, "%llu", (unsigned long long)instead);
    insert(f, s, param, str_n(number, (size_t)n));
}

/* A stream whose client did not ask for usage: we do, and keep it to ourselves. */
static void ask_usage(struct flow *f, struct splices *s)
{
    const char *comma;
    if (f->dialect != &dialect_openai || !f->asked->scan.stream || f->asked->scan.wants_usage ||
        !endpoint_is_metered(f->endpoint))
        return;
    f->injected_usage = true;
    if (f->asked->scan.include_usage.raw.p != NULL) {
        add(f, s, f->asked->scan.include_usage.raw.p, f->asked->scan.include_usage.raw.n, "true");
    } else if (js_is(f->asked->scan.stream_options, JS_OBJECT)) {
        const char *at = inside(f->asked->scan.stream_options, &comma);
        add(f, s, at, 0, "\"include_usage\":true%s", comma);
    } else if (f->asked->scan.stream_options.raw.p != NULL) {
        add(f, s, f->asked->scan.stream_options.raw.p, f->asked->scan.stream_options.raw.n,
            "{\"include_usage\":true}");
    } else {
        const char *at = inside(f->asked->scan.root, &comma);
        add(f, s, at, 0, "\"stream_options\":{\"include_usage\":true}%s", comma);
    }
}

enum err flow_build_body(struct flow *f)
{
    struct splices s = { .n = 0 };
    struct client *c = f->client;
    struct str body = str_n(c->in.data + c->request->head.len, f->body_len);
    buf_done(&f->asked->edited); /* of another attempt */
    f->asked->body = body;
    f->upstream_model = f->model;
    if (!f->scanned) return ERR_OK;
    if (f->model_wanted.p != NULL && !str_eq(f->model_wanted, f->model)) {
        struct buf quoted;
        buf_init(&quoted, SPLICE_MAX);
        enum err e = buf_append_json(&quoted, f->model_wanted);
        if (e == ERR_OK)
            add(f, &s, f->asked->scan.model.raw.p, f->asked->scan.model.raw.n, "%.*s",
                (int)quoted.len, quoted.data);
        buf_done(&quoted);
        if (e != ERR_OK) return e;
        f->upstream_model = f->model_wanted;
    }
    edit_params(f, &s);
    clamp_output(f, &s);
    ask_usage(f, &s);
    if (s.n == 0) return ERR_OK;

    struct buf edited;
    buf_init(&edited, body.n + MAX_SPLICES * SPLICE_MAX);
    enum err e = s.err;
    if (e == ERR_OK) e = splice_apply(body, s.v, s.n, &edited);
    f->asked->edited = edited;
    f->asked->body = buf_str(&edited);
    return e;
}

/* --- the head --- */

/* Fields that the gateway sets itself, or that end here: credentials, addresses, framing. */
static bool is_ours(const struct flow *f, const struct h1_head *h, const struct h1_field *fl)
{
    if (f->upstream->auth == SNAP_UPAUTH_HEADER && str_ieq(fl->name, f->upstream->auth_header))
        return true;
    switch (fl->known) {
    case H1_HOST:
    case H1_AUTHORIZATION:
    case H1_X_API_KEY:
    case H1_CONTENT_LENGTH:
    case H1_EXPECT:
    case H1_ACCEPT_ENCODING:
    case H1_X_REQUEST_ID:
    case H1_COOKIE:
    case H1_FORWARDED:
    case H1_X_FORWARDED_FOR:
    case H1_X_FORWARDED_HOST:
    case H1_X_FORWARDED_PROTO: return true;
    default: break;
    }
    if (h1_field_is_hop_by_hop(fl) || flow_is_trace_field(f, fl)) return true;
    if (fl->known == H1_UNKNOWN && fl->name.n > 7 && str_ieq(str_n(fl->name.p, 7), STR("x-aigw-")))
        return true;
    /* What Connection names goes too, but it cannot strip what the request needs. */
    return h->first[H1_CONNECTION] != 0 && fl->known != H1_CONTENT_TYPE &&
           h1_connection_has(h, fl->name);
}

static enum err target(const struct flow *f, struct buf *b)
{
    const struct h1_request *q = f->client->request;
    struct str none = STR("");
    /* The client's own path moves with its buffer, which a body may outgrow. */
    struct str path = f->route->rewrite_path.p == NULL ? q->path : f->asked->upstream_path;
    return buf_put(b, q->method_str, STR(" "), f->server->base_path, path,
                   q->query.n > 0 ? STR("?") : none, q->query, STR(" HTTP/1.1\r\nhost: "),
                   f->server->authority, STR("\r\n"));
}

enum err flow_build_head(struct flow *f, struct buf *b)
{
    const struct h1_request *q = f->client->request;
    char room[STR_U64_ROOM];
    enum err e = target(f, b);
    for (size_t i = 0; i < q->head.fields_len && e == ERR_OK; i++) {
        const struct h1_field *fl = &q->head.fields[i];
        if (!is_ours(f, &q->head, fl) && !edits_drop(&f->route->request, fl->name))
            e = h1_put_field(b, fl->name, fl->value);
    }
    if (e == ERR_OK) e = edits_append(&f->route->request, b);
    if (e == ERR_OK) e = ruleset_put_credential(f->rules, f->upstream, b);
    if (e == ERR_OK)
        e = buf_put(b, STR("accept-encoding: identity\r\nx-request-id: "), str_of(f->request_id),
                    STR("\r\n"));
    if (e == ERR_OK) e = flow_trace_fields(f, b);
    if (e != ERR_OK) return e;
    if (f->body_len == 0 && q->head.framing == H1_BODY_NONE) return buf_append(b, "\r\n", 2);
    return buf_put(b, STR("content-length: "), str_of_u64(f->asked->body.n, room), STR("\r\n\r\n"));
}
