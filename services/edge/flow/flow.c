/* SPDX-License-Identifier: Apache-2.0 */
/* From the head to admission. See flow.h. */
#include "flow_impl.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/hash.h"
#include "client/reply.h"
#include "dialects/responses_chat.h"

const char *flow_state_name(enum flow_state s)
{
    static const char *const names[] = { "body", "count", "admit", "wait", "relay", "done" };
    return names[s];
}

/* --- answers of ours --- */

static void answer_with(struct flow *f, int status, struct str fields, struct str body)
{
    struct client *c = f->client;
    f->status = status;
    client_answer(c, status, fields, f->is_head ? FRAME_NONE : FRAME_LENGTH, body.n);
    if (!client_send(c, body))
        client_answer_broken(c);
    else
        client_answer_end(c);
    f->client = NULL;
}

/* When to come back, as far as that helps. upstream_s: what the last server said of it. */
static enum err retry_fields(enum refusal r, const struct admit_outcome *limit, uint64_t upstream_s,
                             struct buf *out)
{
    enum err e = ERR_OK;
    if (limit == NULL) {
        uint64_t wait = MAX(upstream_s, (uint64_t)(refusal_status(r) == 503));
        bool ours = refusal_status(r) < 500 && r != REFUSE_UPSTREAM_LIMIT;
        if (r == REFUSE_UPSTREAM_DENIED) return buf_appendz(out, "x-should-retry: false\r\n");
        if (wait == 0 || ours) return ERR_OK;
        return buf_printf(out, "retry-after: %llu\r\n", (unsigned long long)wait);
    }
    if (!limit->for_good)
        e = buf_printf(out, "retry-after: %llu\r\n",
                       (unsigned long long)MAX((limit->retry_after_ms + 999) / 1000, UINT64_C(1)));
    if (e == ERR_OK && (limit->for_good || r == REFUSE_QUOTA))
        e = buf_appendz(out, "x-should-retry: false\r\n");
    return e;
}

static void refuse(struct flow *f, enum refusal r, struct str message, const char *param,
                   const struct snap_policy *policy, const struct admit_outcome *limit)
{
    struct buf body, fields;
    buf_init(&body, 16384);
    buf_init(&fields, 16384);
    flow_tokens_end(f);
    enum err e = reply_error_body(f->dialect, r, message, param, str_of(f->request_id), &body);
    if (e == ERR_OK) e = buf_appendz(&fields, "content-type: application/json\r\n");
    if (e == ERR_OK) e = flow_own_fields(f, &fields);
    if (e == ERR_OK) e = retry_fields(r, limit, f->retry_after_s, &fields);
    if (e == ERR_OK && policy != NULL)
        e = buf_printf(&fields, "x-aigw-limit: %.*s\r\n", STR_ARG(policy->slug));
    if (e == ERR_OK && r == REFUSE_METHOD) e = flow_allow(f, &fields);
    if (e == ERR_OK && r == REFUSE_BAD_KEY)
        e = buf_appendz(&fields, "www-authenticate: Bearer\r\n");
    if (f->client != NULL && e == ERR_OK)
        answer_with(f, refusal_status(r), buf_str(&fields), buf_str(&body));
    else if (f->client != NULL)
        client_answer_broken(f->client);
    f->client = NULL;
    buf_done(&body);
    buf_done(&fields);
}

static enum usage_outcome outcome_of(enum refusal r)
{
    switch (r) {
    case REFUSE_NO_UPSTREAM:
    case REFUSE_UPSTREAM_LIMIT:
    case REFUSE_UPSTREAM_BROKE:
    case REFUSE_UPSTREAM_DENIED: return USAGE_UPSTREAM_ERROR;
    case REFUSE_UPSTREAM_TIMEOUT: return USAGE_TIMEOUT;
    default: return USAGE_REJECTED;
    }
}

void flow_refuse(struct flow *f, enum refusal r, struct str message, const char *param)
{
    static const char *const dimension[REFUSE_MAX] = {
        [REFUSE_BAD_KEY] = "key",
        [REFUSE_FORBIDDEN] = "access",
        [REFUSE_NO_ROUTE] = "route",
        [REFUSE_NO_MODEL] = "model",
        [REFUSE_CONTEXT_LENGTH] = "input_tokens",
        [REFUSE_BODY_TOO_LARGE] = "body_size",
        [REFUSE_OVERLOADED] = "overloaded",
    };
    f->reject_dimension = str_of(dimension[r] != NULL ? dimension[r] : "request");
    refuse(f, r, message, param, NULL, NULL);
    flow_settle(f, outcome_of(r));
}

void flow_refuse_policy(struct flow *f, enum refusal r, const struct snap_policy *p,
                        struct str message, const char *param)
{
    f->reject_policy = p->slug;
    f->reject_dimension = str_of(admit_dimension(p));
    refuse(f, r, message, param, p, NULL);
    flow_settle(f, USAGE_REJECTED);
}

void flow_refuse_outcome(struct flow *f, enum refusal r, const struct admit_outcome *o,
                         struct str message)
{
    f->reject_policy = o->policy->slug;
    f->reject_dimension = str_of(admit_dimension(o->policy));
    refuse(f, r, message, NULL, o->policy, o);
    flow_settle(f, USAGE_REJECTED);
}

/* --- FLOW_BODY: the head --- */

/* The client's address as policies look at it, and as it will be recorded. */
static void note_address(struct flow *f, const struct client *c)
{
    struct admit_subject *s = &f->asked->subject;
    struct edge *e = flow_edge(f);
    char ip[ADDRESS_TEXT];
    struct sockaddr_storage from;
    client_address(c, &from);
    s->has_address = address_of_socket(&from, s->address);
    if (!s->has_address) return;
    address_of_client(&e->trusted_proxies, e->address_field, &c->request->head, s->address);
    /* Who finds two addresses for the same place has nothing of it. */
    uint64_t half[2];
    memcpy(half, s->address, sizeof half);
    uint64_t place = ((half[0] ^ half[1]) * UINT64_C(0x9e3779b97f4a7c15)) >> 32;
    struct shown_address *a = &f->w->shown[place % SHOWN_ADDRESSES];
    if (a->shown[0] == '\0' || memcmp(a->address, s->address, sizeof a->address) != 0) {
        address_print(s->address, ip);
        memcpy(a->address, s->address, sizeof a->address);
        identity_write(e->identities, e->key_pepper, str_of(ip), a->shown);
    }
    memcpy(f->client_ip, a->shown, sizeof f->client_ip);
}

size_t flow_memory(const struct flow *f)
{
    size_t n = sizeof *f + f->gather.cap + flow_decode_memory(f);
    if (f->asked != NULL) n += sizeof *f->asked + f->asked->arena.used + f->asked->edited.cap;
    if (f->state == FLOW_COUNT) n += f->body_len; /* a copy of it is being counted */
    if (f->exchange != NULL) n += exchange_memory(f->exchange);
    return f->answer != NULL ? n + answer_memory(f->answer) : n;
}

void flow_slabs(struct worker *w, size_t most)
{
    slab_init(&w->flow_memory, sizeof(struct flow), most);
    slab_init(&w->asked_memory, sizeof(struct asked), most);
}

struct flow *flow_new(struct client *c)
{
    struct flow *f = slab_get(&c->w->flow_memory);
    struct asked *asked = slab_get(&c->w->asked_memory);
    if (f == NULL || asked == NULL) {
        slab_put(&c->w->flow_memory, f);
        slab_put(&c->w->asked_memory, asked);
        return NULL;
    }
    memset(f, 0, sizeof *f);
    const size_t from = offsetof(struct asked, arena), to = offsetof(struct asked, match.host_room);
    memset((char *)asked + from, 0, to - from);
    f->asked = asked;
    arena_init(&asked->arena, FLOW_ARENA_MAX);
    f->w = c->w;
    f->client = c;
    f->began_ns = c->head_began;
    f->began_wall_ms = clock_wall_ms(c->w->edge->clock);
    f->dialect = &dialect_openai;
    f->output_limit = METER_NO_LIMIT;
    f->is_head = c->request->method == H1_HEAD;
    buf_init(&f->gather, ANSWER_WHOLE_MAX);
    note_address(f, c);
    uuid_v7_at(f->began_wall_ms, c->w->edge->rng, f->id);
    f->request_id = f->id;
    atomic_fetch_add(&c->w->edge->inflight, 1);
    c->w->flows++;
    return f;
}

/* Not a request of a namespace: ends without a record. */
static void answer_own(struct flow *f, int status, const char *type, struct str body)
{
    char fields[128];
    (void)snprintf(fields, sizeof fields, "content-type: %s\r\n", type);
    answer_with(f, status, str_of(fields), body);
    f->state = FLOW_DONE;
    flow_settle(f, USAGE_OK);
}

/* /healthz, /readyz and /metrics beside the proxy's paths. */
static bool answer_ops(struct flow *f)
{
    const struct h1_request *q = f->client->request;
    struct daemon *d = flow_edge(f)->daemon;
    if (q->method != H1_GET && q->method != H1_HEAD) return false;
    if (str_eqz(q->path, "/healthz")) {
        answer_own(f, 200, "text/plain", STR("ok\n"));
    } else if (str_eqz(q->path, "/readyz")) {
        bool ready = daemon_is_ready(d);
        answer_own(f, ready ? 200 : 503, "text/plain", ready ? STR("ready\n") : STR("not ready\n"));
    } else if (str_eqz(q->path, "/metrics") && f->asked->subject.has_address &&
               address_is_private(f->asked->subject.address)) {
        struct buf b;
        buf_init(&b, 16 * 1024 * 1024);
        if (daemon_render_metrics(d, &b) != ERR_OK) buf_clear(&b);
        answer_own(f, 200, "text/plain; version=0.0.4", buf_str(&b));
        buf_done(&b);
    } else {
        return false;
    }
    return true;
}

/* A client's own id when it is harmless, else ours. */
static void take_request_id(struct flow *f)
{
    struct str given = h1_header_known(&f->client->request->head, H1_X_REQUEST_ID);
    if (given.n > 0 && given.n <= REQUEST_ID_MAX && h1_is_token(given))
        f->request_id = str_dupz(given);
}

bool flow_check_head(struct flow *f)
{
    const struct h1_request *q = f->client->request;
    take_request_id(f);
    f->dialect = dialect_of_path(q->path);
    flow_note_request(f);
    if (answer_ops(f)) return false;
    if (guard_is_full(flow_edge(f)->guard)) {
        guard_note_shed(flow_edge(f)->guard);
        flow_refuse(f, REFUSE_OVERLOADED,
                    STR("The gateway is out of memory for requests. Try again soon."), NULL);
        return false;
    }
    if (f->w->rules == NULL) {
        flow_refuse(f, REFUSE_OVERLOADED, STR("The gateway has no configuration yet."), NULL);
        return false;
    }
    f->rules = ruleset_ref(f->w->rules);
    if (!match_path_is_plain(q->path)) {
        f->client->must_close = true; /* as for every request that can be read in two ways */
        flow_refuse(
            f, REFUSE_BAD_REQUEST,
            STR("The path has empty, dot or encoded segments that servers read differently."),
            NULL);
        return false;
    }
    if (!flow_select_by_head(f)) return false;
    flow_bound_body(f);
    if (q->head.framing == H1_BODY_LENGTH && !flow_body_fits(f, q->head.content_length))
        return false;
    return !f->head_decided || flow_check_access(f, true);
}

/* --- FLOW_COUNT --- */

/* GET /v1/models: what the caller may use. */
static void answer_models(struct flow *f)
{
    struct buf b, fields;
    buf_init(&b, 4 * 1024 * 1024);
    buf_init(&fields, 4096);
    enum err e = flow_list_models(f, &b);
    if (e == ERR_OK) e = buf_appendz(&fields, "content-type: application/json\r\n");
    if (e == ERR_OK) e = flow_own_fields(f, &fields);
    if (e == ERR_OK) answer_with(f, 200, buf_str(&fields), buf_str(&b));
    buf_done(&b);
    buf_done(&fields);
    if (e == ERR_OK)
        flow_settle(f, USAGE_OK);
    else
        flow_refuse(f, REFUSE_INTERNAL, STR("The list of models is too long."), NULL);
}

static void after_count(struct flow *f)
{
    char text[160];
    uint64_t window = f->model_cfg != NULL ? f->model_cfg->context_window : 0;
    const struct count_result *r = &f->asked->count;
    f->input_tokens = r->tokens;
    f->input_exact = r->exact;
    if (r->err != ERR_OK) {
        flow_refuse(f, REFUSE_BAD_BODY, str_of(r->why.text),
                    f->endpoint == SNAP_EP_RESPONSES ? "input" : "messages");
        return;
    }
    if (window > 0 && r->tokens > window) {
        (void)snprintf(text, sizeof text,
                       "This model's maximum context length is %llu tokens, the input has %llu.",
                       (unsigned long long)window, (unsigned long long)r->tokens);
        flow_refuse(f, REFUSE_CONTEXT_LENGTH, str_of(text), "messages");
        return;
    }
    if (flow_check_input(f)) flow_enter_admit(f);
}

static void on_counted(void *ctx, const struct count_result *r)
{
    struct flow *f = ctx;
    f->async--;
    if (f->state == FLOW_DONE) {
        flow_settle(f, f->outcome); /* only lets go */
        return;
    }
    f->asked->count = *r;
    after_count(f);
}

/* Counts a request of Responses as the chat that it is. */
static bool count_as_chat(struct flow *f, struct count_input *in)
{
    struct responses_chat chat;
    struct request_scan scan = f->asked->scan;
    bool done = true;
    if (responses_chat_make(&scan, &chat) == ERR_OK) {
        scan.messages = (struct js_val){ JS_ARRAY, buf_str(&chat.messages), NULL };
        scan.tools = (struct js_val){ JS_ARRAY, buf_str(&chat.tools), NULL };
        scan.input.raw = scan.prompt.raw = STR_NULL;
        in->ep = SNAP_EP_CHAT;
        in->scan = &scan;
        in->estimate = !chat.exact;
        done = counter_count(flow_edge(f)->counter, in, &f->asked->count, on_counted, f);
    } else {
        f->asked->count = (struct count_result){ .tokens = scan.root.raw.n / 4 };
    }
    responses_chat_done(&chat);
    return done;
}

static void enter_count(struct flow *f)
{
    f->state = FLOW_COUNT;
    count_model(f->w->counting, f->rules->models, f->model, &f->info);
    struct count_input in = {
        .ep = f->endpoint,
        .model = f->model,
        .info = &f->info,
        .scan = &f->asked->scan,
        .loop = f->w->loop,
        .scratch = f->w->counting,
        .given_up = &f->gone,
    };
    f->async++;
    bool counted = f->endpoint == SNAP_EP_RESPONSES
                       ? count_as_chat(f, &in)
                       : counter_count(flow_edge(f)->counter, &in, &f->asked->count, on_counted, f);
    if (counted) {
        f->async--;
        after_count(f);
    }
}

static void run(struct flow *f)
{
    const struct h1_request *q = f->client->request;
    enum snap_endpoint ep = f->route != NULL ? f->endpoint : endpoint_of_path(q->path);
    f->ready_ns = edge_now_ns(f->w);
    if (!flow_read_body(f, ep)) return;
    if (!flow_select_by_body(f)) return;
    if (!flow_check_body(f) || !flow_check_access(f, false)) return;
    if (f->endpoint == SNAP_EP_MODELS && (q->method == H1_GET || q->method == H1_HEAD)) {
        answer_models(f);
        return;
    }
    if (f->scanned && f->endpoint != SNAP_EP_COUNT_TOKENS)
        enter_count(f);
    else
        flow_enter_admit(f);
}

void flow_run(struct flow *f)
{
    if (!flow_await_keys(f, run)) run(f);
}

/* --- the client leaves --- */

static void abandon(struct flow *f, enum usage_outcome outcome)
{
    f->client = NULL;
    if (f->state == FLOW_DONE) return;
    if (f->state == FLOW_ADMIT && f->async > 0 && limiter_cancel(flow_edge(f)->limiter, f->ticket))
        f->async--;
    flow_settle(f, outcome);
}

void flow_client_gone(struct flow *f)
{
    if (flow_drain(f)) return;
    abandon(f, USAGE_CLIENT_GONE);
}

void flow_shutdown(struct flow *f)
{
    struct str text = STR("The gateway is going down.");
    if (f->client != NULL && client_answer_begun(f->client))
        flow_break_answer(f, REFUSE_DRAINING, text.p);
    else if (f->client != NULL)
        refuse(f, REFUSE_DRAINING, text, NULL, NULL, NULL);
    abandon(f, USAGE_SHUTDOWN);
}
