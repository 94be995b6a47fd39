/* SPDX-License-Identifier: Apache-2.0 */
/* A request's line in the access log, and its place in a trace. On its worker. */
#include <stdlib.h>

#include "records/access_log.h"
#include "flow_impl.h"

enum { LINE_MAX_BYTES = 16 * 1024, PATH_SHOWN = 256, AGENT_SHOWN = 128, SAID_MAX = 4096 };

void flow_note_request(struct flow *f)
{
    const struct h1_request *q = f->client->request;
    struct edge *e = flow_edge(f);
    f->bytes_in = q->head.len;
    if (e->trace_context != TRACE_OFF) {
        struct trace t;
        struct str given = h1_header_known(&q->head, H1_TRACEPARENT);
        bool taken = given.n > 0 && trace_take(given, e->rng, &t);
        if (!taken && e->trace_context == TRACE_MAKE) trace_begin(e->rng, &t);
        if (taken || e->trace_context == TRACE_MAKE) {
            f->trace = xcalloc(1, sizeof *f->trace);
            *f->trace = t;
        }
    }
    if (e->access_log == NULL) return;
    struct buf b;
    struct str agent = h1_header_known(&q->head, H1_USER_AGENT);
    buf_init(&b, SAID_MAX);
    enum err err = buf_appendz(&b, ",\"method\":");
    if (err == ERR_OK) err = buf_append_json(&b, q->method_str);
    if (err == ERR_OK) err = buf_appendz(&b, ",\"path\":");
    if (err == ERR_OK)
        err = buf_append_json(&b, str_n(q->path.p, MIN(q->path.n, (size_t)PATH_SHOWN)));
    if (err == ERR_OK && agent.n > 0) err = buf_appendz(&b, ",\"user_agent\":");
    if (err == ERR_OK && agent.n > 0)
        err = buf_append_json(&b, str_n(agent.p, MIN(agent.n, (size_t)AGENT_SHOWN)));
    if (err == ERR_OK) f->said = str_dupz(buf_str(&b));
    buf_done(&b);
}

enum err flow_trace_fields(const struct flow *f, struct buf *b)
{
    char parent[TRACE_PARENT_LEN + 1];
    if (f->trace == NULL) return ERR_OK;
    trace_write(f->trace, parent);
    return buf_printf(b, "traceparent: %s\r\n", parent);
}

bool flow_is_trace_field(const struct flow *f, const struct h1_field *fl)
{
    if (flow_edge(f)->trace_context == TRACE_OFF) return false;
    if (str_ieq(fl->name, STR("traceparent"))) return true;
    /* It says nothing without the parent it came with. */
    return str_ieq(fl->name, STR("tracestate")) &&
           (f->trace == NULL || f->trace->parent[0] == '\0');
}

void flow_note_sent(struct flow *f, size_t n)
{
    f->bytes_out += n;
}

/* How its server is reached; of an answer by curl in which version. */
static enum err way(const struct flow *f, struct buf *b)
{
    enum err e = buf_printf(b, ",\"transport\":\"%s\"",
                            f->upstream->transport == SNAP_CURL ? "curl" : "direct");
    if (e == ERR_OK && f->http != NULL) e = buf_printf(b, ",\"upstream_http\":\"%s\"", f->http);
    return e;
}

/* The line: the usage record, and what it does not say. */
void flow_log(struct flow *f, const struct usage_record *r)
{
    struct access_log *l = flow_edge(f)->access_log;
    bool well = r->outcome == USAGE_OK || r->outcome == USAGE_CUT;
    struct buf b;
    if (!access_log_wants(l, str_of(f->id), well && r->status < 400)) return;
    buf_init(&b, USAGE_MAX_BYTES + LINE_MAX_BYTES);
    enum err e = usage_encode(r, &b);
    if (e == ERR_OK) {
        ASSERT(b.data[b.len - 1] == '}');
        b.len--;
        e = buf_printf(&b, ",\"request_id\":\"%s\",\"bytes_in\":%zu,\"bytes_out\":%zu%s",
                       f->request_id, f->bytes_in + f->body_len, f->bytes_out,
                       f->said != NULL ? f->said : "");
    }
    if (e == ERR_OK && f->server != NULL) e = way(f, &b);
    if (e == ERR_OK && f->trace != NULL) {
        e = buf_printf(&b, ",\"span_id\":\"%s\"", f->trace->span);
        if (e == ERR_OK && f->trace->parent[0] != '\0')
            e = buf_printf(&b, ",\"parent_id\":\"%s\"", f->trace->parent);
    }
    if (e == ERR_OK) e = buf_appendz(&b, "}\n");
    if (e == ERR_OK) access_log_put(l, buf_str(&b));
    buf_done(&b);
}

void flow_log_forget(struct flow *f)
{
    free(f->said);
    free(f->trace);
}

/* --- what is in flight --- */

static enum err name(struct buf *b, const char *key, struct str v)
{
    if (v.n == 0) return ERR_OK;
    enum err e = buf_printf(b, ",\"%s\":", key);
    return e == ERR_OK ? buf_append_json(b, v) : e;
}

enum err flow_describe(const struct flow *f, struct buf *b)
{
    uint64_t now = edge_now_ns(f->w);
    enum err e = buf_printf(b,
                            "{\"id\":\"%s\",\"request_id\":\"%s\",\"state\":\"%s\",\"worker\":%u",
                            f->id, f->request_id, flow_state_name(f->state), f->w->index);
    if (e == ERR_OK && f->ns != NULL) e = name(b, "namespace", f->ns->slug);
    if (e == ERR_OK && f->key != NULL) e = name(b, "key_id", f->key->id);
    if (e == ERR_OK && f->route != NULL) e = name(b, "route", f->route->slug);
    if (e == ERR_OK) e = name(b, "model", f->model);
    if (e == ERR_OK && f->server != NULL) e = name(b, "upstream", f->upstream->slug);
    if (e == ERR_OK && f->server != NULL) e = name(b, "server", f->server->slug);
    if (e == ERR_OK && f->server != NULL) e = way(f, b);
    if (e == ERR_OK && f->client_ip[0] != '\0') e = name(b, "client_ip", str_of(f->client_ip));
    if (e == ERR_OK && f->trace != NULL) e = name(b, "trace_id", str_of(f->trace->id));
    if (e == ERR_OK)
        e = buf_printf(b, ",\"stream\":%s,\"age_ms\":%llu,\"input_tokens\":%llu",
                       f->stream ? "true" : "false",
                       (unsigned long long)((now - f->began_ns) / 1000000u),
                       (unsigned long long)f->input_tokens);
    if (e == ERR_OK && f->sent_ns > 0)
        e = buf_printf(b, ",\"sent_ms\":%llu", (unsigned long long)((now - f->sent_ns) / 1000000u));
    if (e == ERR_OK && f->state == FLOW_RELAY)
        e = buf_printf(b, ",\"silent_ms\":%llu",
                       (unsigned long long)((now - MIN(now, f->last_byte_ns)) / 1000000u));
    if (e == ERR_OK && f->answer != NULL)
        e = buf_printf(b, ",\"output_tokens\":%llu", (unsigned long long)answer_tokens(f->answer));
    if (e == ERR_OK)
        e = buf_printf(b, ",\"attempts\":%zu,\"memory\":%zu", f->attempts_n, flow_memory(f));
    if (e == ERR_OK && f->client != NULL)
        e = buf_printf(b, ",\"waiting\":%zu", client_waiting(f->client));
    return e == ERR_OK ? buf_appendz(b, "}") : e;
}
