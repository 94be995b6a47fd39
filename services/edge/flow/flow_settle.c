/* SPDX-License-Identifier: Apache-2.0 */
/* The one way out of a request: slots back, the usage record, metrics. */
#include <stdlib.h>

#include "flow_impl.h"
#include "client/reply.h"
#include "worker.h"

enum err flow_own_fields(struct flow *f, struct buf *out)
{
    static const struct admit_outcome none;
    const struct admit_outcome *o = f->ticket != NULL ? &f->ticket->outcome : &none;
    uint64_t ours_ns = (f->sent_ns > 0 ? f->sent_ns : edge_now_ns(f->w)) - f->began_ns;
    bool known = f->rules != NULL;
    char room[STR_U64_ROOM], number[STR_U64_ROOM];
    enum err e = buf_put(
        out, STR("x-request-id: "), str_of(f->request_id), STR("\r\nx-aigw-overhead-us: "),
        str_of_u64(ours_ns / 1000, room), known ? STR("\r\nx-aigw-revision: ") : STR(""),
        known ? str_of_u64(f->rules->snap->revision, number) : STR(""), STR("\r\n"));
    return e == ERR_OK ? reply_rate_fields(f->dialect, o, f->began_wall_ms, out) : e;
}

void flow_attempt_begins(struct flow *f)
{
    if (f->attempts_n == USAGE_ATTEMPTS_MAX) {
        memmove(f->attempts, f->attempts + 1, (USAGE_ATTEMPTS_MAX - 1) * sizeof *f->attempts);
        f->attempts_n--;
    }
    if (f->attempts == NULL) {
        f->attempts = &f->attempt;
    } else if (f->attempts == &f->attempt && f->attempts_n > 0) {
        f->attempts = xcalloc(USAGE_ATTEMPTS_MAX, sizeof *f->attempts);
        f->attempts[0] = f->attempt;
    }
    f->attempt_began_ns = loop_now_ns(f->w->loop);
    f->attempts[f->attempts_n++] = (struct attempt){ .upstream = f->upstream, .server = f->server };
}

void flow_attempt_answered(struct flow *f, unsigned status)
{
    f->attempts[f->attempts_n - 1].status = status;
}

void flow_attempt_ends(struct flow *f)
{
    f->attempts[f->attempts_n - 1].ms = (loop_now_ns(f->w->loop) - f->attempt_began_ns) / 1000000u;
}

void flow_forget_request(struct flow *f)
{
    if (f->asked == NULL) return;
    token_unref(f->asked->token);
    arena_done(&f->asked->arena);
    buf_done(&f->asked->edited);
    slab_put(&f->w->asked_memory, f->asked);
    f->asked = NULL;
}

static enum usage_source source(const struct flow *f, bool exact)
{
    return !f->scanned ? USAGE_SOURCE_NONE : exact ? USAGE_SOURCE_EXACT : USAGE_SOURCE_ESTIMATE;
}

int64_t flow_cost(const struct flow *f, uint64_t cached, uint64_t output)
{
    const struct snap_model *m = f->model_cfg;
    if (m == NULL || m->currency.n == 0) return 0;
    cached = MIN(cached, f->input_tokens);
    return (int64_t)(f->input_tokens - cached) * m->input_nano + (int64_t)cached * m->cached_nano +
           (int64_t)output * m->output_nano;
}

/* What is known of the request by now. */
void flow_fill_record(const struct flow *f, struct usage_record *r)
{
    const struct edge *e = flow_edge(f);
    r->id = str_n(f->id, UUID_LEN);
    r->ts_ms = f->began_wall_ms;
    r->from = r->edge = str_of(daemon_instance(e->daemon));
    if (f->ns != NULL) r->namespace_slug = f->ns->slug, r->namespace_id = f->ns->id;
    if (f->key != NULL) r->key_id = f->key->id;
    if (f->route != NULL) r->route = f->route->slug, r->route_id = f->route->id;
    r->dialect = f->dialect == &dialect_anthropic   ? STR("anthropic")
                 : f->dialect == &dialect_responses ? STR("responses")
                                                    : STR("openai");
    r->model = f->model_cfg != NULL ? f->model_cfg->name : f->model;
    r->upstream_model = f->upstream_model;
    if (f->server != NULL) r->upstream = f->upstream->slug, r->upstream_id = f->upstream->id;
    r->stream = f->stream;
    r->client_ip = str_of(f->client_ip);
    if (f->trace != NULL) r->trace_id = str_of(f->trace->id);
    if (f->user != NULL) r->user = str_of(f->user);
    r->input_tokens = f->input_tokens;
    r->input_source = f->state >= FLOW_ADMIT ? source(f, f->input_exact) : USAGE_SOURCE_NONE;
    r->revision = f->rules != NULL ? f->rules->snap->revision : 0;
    if (f->model_cfg != NULL && f->model_cfg->currency.n > 0) {
        r->cost.currency = f->model_cfg->currency;
        r->cost.price_revision = f->model_cfg->price_revision;
        r->cost.nano = flow_cost(f, 0, 0);
    }
}

static void fill_attempts(const struct flow *f, struct usage_record *r)
{
    for (size_t i = 0; i < f->attempts_n; i++) {
        const struct attempt *a = &f->attempts[i];
        r->attempts[i] = (struct usage_attempt){ .upstream = a->upstream->slug,
                                                 .server = a->server->slug,
                                                 .status = a->status,
                                                 .ms = a->ms };
    }
    r->attempts_n = f->attempts_n;
}

static void fill_answer(const struct flow *f, uint64_t now, struct usage_record *r)
{
    r->reject.policy = f->reject_policy;
    r->reject.dimension = f->reject_dimension;
    fill_attempts(f, r);
    r->status = (unsigned)f->status;
    r->duration_ms = (now - f->began_ns) / 1000000u;
    if (f->ready_ns > 0)
        r->overhead_us = ((f->sent_ns > 0 ? f->sent_ns : now) - f->ready_ns) / 1000u;
    if (f->first_token_ns > 0) {
        r->has_ttft = true;
        r->ttft_ms = (f->first_token_ns - f->began_ns) / 1000000u;
    }
    if (f->sent_ns == 0) {
        /* Counted, but never sent upstream: nothing was used. */
        r->input_tokens = 0;
        r->input_source = USAGE_SOURCE_NONE;
        r->cost.nano = 0;
    }
    if (f->answer == NULL) return;
    const struct reported_usage *rep = answer_reported(f->answer);
    r->output_tokens = answer_tokens(f->answer);
    r->reasoning_tokens = answer_reasoning_tokens(f->answer);
    r->output_source = source(f, answer_is_exact(f->answer));
    r->cached_tokens = rep->cached;
    r->upstream_reported.known = rep->present;
    r->upstream_reported.input = rep->input;
    r->upstream_reported.output = rep->output;
    if (r->attempts_n > 0) r->attempts[r->attempts_n - 1].tokens = r->output_tokens;
    r->cost.nano = flow_cost(f, rep->cached, r->output_tokens);
}

/* --- metrics: only configured names become label values --- */

static void count_tokens(struct flow *f, const struct usage_record *r, struct str ns,
                         struct str model)
{
    struct {
        const char *type;
        uint64_t n;
    } kinds[] = { { "input", r->input_tokens },
                  { "output", r->output_tokens },
                  { "cached", r->cached_tokens },
                  { "reasoning", r->reasoning_tokens } };
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
        struct str labels[] = { ns, model, str_of(kinds[i].type) };
        if (kinds[i].n > 0) metric_observe(flow_metric(f, M_TOKENS, labels), (double)kinds[i].n);
    }
    if (r->cost.nano > 0) {
        struct str labels[] = { ns, model, r->cost.currency };
        metric_add(flow_metric(f, M_COST, labels), (double)r->cost.nano / 1e9);
    }
}

static void count_metrics(struct flow *f, const struct usage_record *r, uint64_t now)
{
    char status[STR_U64_ROOM];
    struct str ns = f->ns != NULL ? f->ns->slug : STR("-"),
               route = f->route != NULL ? f->route->slug : STR("-");
    struct str model = f->model_cfg != NULL ? f->model_cfg->name
                       : f->model.n > 0     ? STR("other")
                                            : STR("-");
    struct str upstream = f->server != NULL ? f->upstream->slug : STR("-");
    struct str labels[] = { ns,
                            route,
                            model,
                            upstream,
                            str_of_u64((uint64_t)f->status, status),
                            str_of(usage_outcome_name(r->outcome)) };
    struct str by_model[] = { ns, model };
    metric_inc(flow_metric(f, M_REQUESTS, labels));
    metric_observe(flow_metric(f, M_DURATION, by_model), (double)(now - f->began_ns) / 1e9);
    if (r->has_ttft) metric_observe(flow_metric(f, M_TTFT, by_model), (double)r->ttft_ms / 1e3);
    if (r->has_ttft && r->output_tokens > 1 && f->mode == RELAY_STREAM)
        metric_observe(flow_metric(f, M_TPOT, by_model),
                       (double)(now - f->first_token_ns) / 1e9 / (double)(r->output_tokens - 1));
    if (f->sent_ns > 0)
        metric_observe(flow_metric(f, M_OVERHEAD, NULL), (double)r->overhead_us / 1e6);
    count_tokens(f, r, ns, model);
    if (r->outcome == USAGE_REJECTED) {
        struct str policy = r->reject.policy.n > 0 ? r->reject.policy : STR("-");
        struct str why[] = { ns, policy, r->reject.dimension };
        metric_inc(flow_metric(f, M_REJECTIONS, why));
    }
    if (r->outcome == USAGE_CUT) metric_inc(flow_metric(f, M_CUT, by_model));
    if (r->outcome == USAGE_OK && r->upstream_reported.known && r->upstream_reported.output > 0 &&
        r->output_source == USAGE_SOURCE_EXACT)
        metric_observe(flow_metric(f, M_DRIFT, by_model),
                       ((double)r->output_tokens - (double)r->upstream_reported.output) /
                           (double)r->upstream_reported.output);
}

/* --- the end --- */

static void release(void *ctx)
{
    struct flow *f = ctx;
    atomic_fetch_sub(&flow_edge(f)->inflight, 1);
    answer_free(f->answer);
    ruleset_unref(f->rules);
    buf_done(&f->gather);
    flow_decode_done(f);
    flow_forget_request(f);
    free(f->ticket);
    flow_log_forget(f);
    if (f->attempts != &f->attempt) free(f->attempts);
    free(f->user);
    if (f->request_id != f->id) free(f->request_id);
    free((char *)(uintptr_t)f->model.p);
    free((char *)(uintptr_t)f->whole_fields.p);
    worker_flow_gone(f->w);
    slab_put(&f->w->flow_memory, f);
}

void flow_settle(struct flow *f, enum usage_outcome outcome)
{
    struct edge *e = flow_edge(f);
    flow_tokens_end(f);
    (void)flow_leave_queue(f);
    flow_leave_keys(f);
    if (f->state != FLOW_DONE) {
        struct usage_record r;
        uint64_t now = edge_now_ns(f->w);
        if (f->exchange != NULL) flow_attempt_ends(f);
        usage_record_init(&r);
        r.outcome = outcome;
        flow_fill_record(f, &r);
        fill_answer(f, now, &r);
        f->outcome = outcome;
        if (f->drained) list_remove(&f->in_drained);
        exchange_cancel(f->exchange);
        f->exchange = NULL;
        seat_leave(&f->seat);
        loop_timer_clear(f->w->loop, &f->timer);
        loop_timer_clear(f->w->loop, &f->slots_timer);
        usage_settle(e->usage, f->w->index, f->usage, &r);
        flow_log(f, &r);
        count_metrics(f, &r, now);
        if (f->stream_counted) atomic_fetch_sub(&e->streams, 1);
        f->state = FLOW_DONE;
        atomic_store_explicit(&f->gone, true, memory_order_relaxed);
    }
    /* Callers up the stack may still look at it; a callback that is to come calls again. */
    if (f->async == 0) loop_defer(f->w->loop, release, f);
}
