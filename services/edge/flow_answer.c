/* SPDX-License-Identifier: Apache-2.0 */
/* FLOW_WAIT and FLOW_RELAY: the exchange with a server, and the answer on its way to the client. */
#include <stdio.h>

#include "flow_impl.h"

enum { FIELDS_MAX = 128 * 1024, PROGRESS_NS_STEP = 1000000000 };

static void on_timer(void *ctx);
static void end_stream(struct flow *f);
static void on_head(void *ctx, const struct h1_response *res);
static void on_body(void *ctx, struct str data);
static void on_flush(void *ctx);
static void on_end(void *ctx);
static void on_fail(void *ctx, enum exchange_failure why, const char *text);

static const struct exchange_events events = { on_head, on_body, on_flush, on_end, on_fail };

static void set_deadline(struct flow *f, uint64_t ms)
{
    uint64_t at = loop_now_ns(f->w->loop) + ms * 1000000u;
    loop_timer_set(f->w->loop, &f->timer, MIN(at, f->total_deadline), on_timer, f);
}

static void start_attempt(struct flow *f, bool fresh)
{
    struct exchange_tls tls = { f->rules->tls[f->upstream->index], f->upstream->tls_server_name };
    flow_attempt_begins(f);
    f->exchange = exchange_start(f->w->pools, f->server, &tls, f->asked->head, f->asked->body,
                                 f->is_head, fresh, &events, f);
    f->sent_ns = edge_now_ns(f->w);
    set_deadline(f, exchange_is_connected(f->exchange) ? f->upstream->first_byte_ms
                                                       : f->upstream->connect_ms);
}

void flow_enter_wait(struct flow *f)
{
    f->state = FLOW_WAIT;
    f->total_deadline = loop_now_ns(f->w->loop) + f->upstream->total_ms * 1000000u;
    start_attempt(f, false);
}

static void count_upstream_error(struct flow *f, const char *why)
{
    struct str labels[] = { f->upstream->slug, f->server->slug, str_of(why) };
    metric_inc(edge_metric(flow_edge(f), M_UPSTREAM_ERRORS, labels));
}

/* Tries another server, or the same once when its pooled connection was stale. False: nothing is
 * left to try. */
static bool try_again(struct flow *f, enum exchange_failure why)
{
    if (why == EXCHANGE_STALE && !f->stale_retried) {
        f->stale_retried = true;
        start_attempt(f, true);
        return true;
    }
    pools_report(f->w->pools, f->server, false);
    if (f->retries_left == 0) return false;
    const struct snap_server *other = pools_choose(f->w->pools, f->upstream, f->server);
    if (other == NULL || other == f->server) return false;
    f->retries_left--;
    f->server = other;
    if (flow_build_head(f) != ERR_OK) return false;
    struct str labels[] = { f->upstream->slug };
    metric_inc(edge_metric(flow_edge(f), M_RETRIES, labels));
    start_attempt(f, true);
    return true;
}

void flow_break_answer(struct flow *f, enum refusal r, const char *text)
{
    struct client *c = f->client;
    f->client = NULL;
    if (f->mode == RELAY_STREAM) {
        if (flow_tokens_pump(f) != ERR_OK) buf_clear(&f->gather);
        if (f->gather.len > 0) (void)client_send(c, buf_str(&f->gather));
        buf_clear(&f->gather);
        if (f->dialect->write_error_event(r, str_of(text), str_of(f->request_id),
                                          answer_sequence(f->answer), &f->gather) == ERR_OK)
            (void)client_send(c, buf_str(&f->gather));
    }
    client_answer_broken(c);
}

static void fail_with(struct flow *f, enum refusal r, const char *text)
{
    enum usage_outcome outcome = r == REFUSE_UPSTREAM_TIMEOUT ? USAGE_TIMEOUT
                                 : r == REFUSE_LIMITER_AWAY   ? USAGE_REJECTED
                                                              : USAGE_UPSTREAM_ERROR;
    if (client_answer_begun(f->client)) {
        flow_break_answer(f, r, text);
        flow_settle(f, outcome);
    } else {
        flow_refuse(f, r, str_of(text), NULL);
    }
}

/* The exchange is over without a whole answer. */
static void attempt_failed(struct flow *f, const char *why)
{
    flow_attempt_ends(f);
    f->exchange = NULL;
    count_upstream_error(f, why);
}

/* The stream's own end came already: what breaks behind it takes nothing from the client. */
static bool has_ended(const struct flow *f)
{
    return f->state == FLOW_RELAY && f->mode == RELAY_STREAM &&
           answer_state(f->answer) == ANSWER_DONE;
}

static void on_fail(void *ctx, enum exchange_failure why, const char *text)
{
    struct flow *f = ctx;
    char message[200];
    if (why == EXCHANGE_STALE && !f->stale_retried) {
        /* The server never saw it: the same attempt goes on with a connection of its own. */
        f->exchange = NULL;
        f->attempts_n--;
    } else {
        attempt_failed(f, "broken");
    }
    if (has_ended(f)) {
        end_stream(f);
        return;
    }
    if (f->state == FLOW_WAIT && try_again(f, why)) return;
    (void)snprintf(message, sizeof message, "The upstream failed: %s.", text);
    fail_with(f, REFUSE_UPSTREAM_BROKE, message);
}

/* The upstream's answer cannot be used. */
static void give_up(struct flow *f, const char *text)
{
    exchange_cancel(f->exchange);
    attempt_failed(f, "broken");
    fail_with(f, REFUSE_UPSTREAM_BROKE, text);
}

/* When the state's own patience is over, or 0 when it is. */
static uint64_t patience(const struct flow *f, uint64_t now)
{
    uint64_t at = 0;
    if (f->state == FLOW_RELAY)
        /* Activity does not move the timer; it is looked at when the timer fires. */
        at = (f->paused || f->token_paused ? now : f->last_byte_ns) +
             f->upstream->idle_ms * 1000000u;
    else if (exchange_is_connected(f->exchange))
        at = f->attempt_began_ns + f->upstream->first_byte_ms * 1000000u;
    return now < at && now < f->total_deadline ? MIN(at, f->total_deadline) : 0;
}

static void on_timer(void *ctx)
{
    struct flow *f = ctx;
    uint64_t now = loop_now_ns(f->w->loop), later = patience(f, now);
    if (later > 0) {
        loop_timer_set(f->w->loop, &f->timer, later, on_timer, f);
        return;
    }
    bool connected = exchange_is_connected(f->exchange);
    exchange_cancel(f->exchange);
    attempt_failed(f, "timeout");
    if (has_ended(f)) {
        end_stream(f);
        return;
    }
    if (f->state == FLOW_WAIT && !connected && now < f->total_deadline &&
        try_again(f, EXCHANGE_CONNECT))
        return;
    fail_with(f, REFUSE_UPSTREAM_TIMEOUT, "The upstream did not answer in time.");
}

/* --- the answer's head --- */

static bool is_event_stream(const struct h1_response *res)
{
    struct str type = h1_header_known(&res->head, H1_CONTENT_TYPE);
    type = str_trim(str_cut(&type, ';'));
    return str_ieqz(type, "text/event-stream");
}

/* Fields of the upstream that end here: connection, framing, and what the gateway says itself. */
static bool is_dropped(const struct flow *f, const struct h1_head *h, const struct h1_field *fl)
{
    static const char *const prefixes[] = { "x-aigw-", "x-ratelimit-", "anthropic-ratelimit-" };
    if (fl->known == H1_CONTENT_LENGTH || fl->known == H1_X_REQUEST_ID ||
        fl->known == H1_SET_COOKIE)
        return true;
    if (fl->known == H1_CONTENT_ENCODING && f->mode != RELAY_RAW) return true;
    if (h1_is_hop_by_hop(fl->name) ||
        (h->first[H1_CONNECTION] != 0 && h1_connection_has(h, fl->name)))
        return true;
    for (size_t i = 0; i < ARRAY_LEN(prefixes); i++) {
        struct str p = str_of(prefixes[i]);
        bool ours = i == 0 || f->ticket->outcome.requests.present ||
                    f->ticket->outcome.tokens.present;
        if (ours && fl->name.n > p.n && str_ieq(str_n(fl->name.p, p.n), p)) return true;
    }
    return false;
}

static enum err answer_fields(struct flow *f, const struct h1_response *res, struct buf *out)
{
    enum err e = ERR_OK;
    for (size_t i = 0; i < res->head.fields_len && e == ERR_OK; i++) {
        const struct h1_field *fl = &res->head.fields[i];
        if (!is_dropped(f, &res->head, fl))
            e = buf_printf(out, "%.*s: %.*s\r\n", STR_ARG(fl->name), STR_ARG(fl->value));
    }
    return e == ERR_OK ? flow_own_fields(f, out) : e;
}

static bool begin_meter(struct flow *f)
{
    struct answer_options o = {
        .dialect = f->dialect,
        .vocab = flow_edge(f)->settings->precise ? f->info.vocab : NULL,
        .guess = f->info.guess,
        .limit = f->output_limit,
        .reserved = flow_tokens_limited(f),
        .allowance = flow_tokens_limited(f) ? flow_tokens_had(f) : METER_NO_LIMIT,
        .hide_usage = f->injected_usage,
        .want_usage = f->wants_usage && f->dialect == &dialect_openai,
        .input_tokens = f->input_tokens,
    };
    f->answer = answer_new(&o);
    return f->answer != NULL;
}

static void begin_answer(struct flow *f, const struct h1_response *res, struct str fields)
{
    f->status = res->status;
    if (f->mode == RELAY_WHOLE) return;
    if (f->is_head || res->head.framing == H1_BODY_NONE)
        client_answer(f->client, res->status, fields, FRAME_NONE, 0);
    else if (f->mode == RELAY_RAW && res->head.framing == H1_BODY_LENGTH)
        client_answer(f->client, res->status, fields, FRAME_LENGTH, res->head.content_length);
    else
        client_answer(f->client, res->status, fields, FRAME_CHUNKED, 0);
    client_release_request(f->client);
    flow_forget_request(f);
}

static void on_head(void *ctx, const struct h1_response *res)
{
    struct flow *f = ctx;
    struct buf fields;
    bool metered = f->scanned && endpoint_is_metered(f->endpoint) && res->status >= 200 &&
                   res->status < 300;
    struct str coding = h1_header_known(&res->head, H1_CONTENT_ENCODING);
    f->last_byte_ns = loop_now_ns(f->w->loop);
    flow_attempt_answered(f, (unsigned)res->status);
    pools_report(f->w->pools, f->server, true);
    f->mode = !metered ? RELAY_RAW : is_event_stream(res) ? RELAY_STREAM : RELAY_WHOLE;
    if (metered && !flow_decode_begin(f, coding)) {
        give_up(f, "The upstream failed: it sent a content coding that was not accepted.");
        return;
    }
    buf_init(&fields, FIELDS_MAX);
    enum err e = answer_fields(f, res, &fields);
    if (e == ERR_OK && f->mode != RELAY_RAW && !begin_meter(f)) e = ERR_NOMEM;
    if (e == ERR_OK && f->mode == RELAY_WHOLE)
        f->whole_fields = str_n(str_dupz(buf_str(&fields)), fields.len);
    if (e == ERR_OK) {
        f->state = FLOW_RELAY;
        if (f->mode == RELAY_STREAM) {
            atomic_fetch_add(&flow_edge(f)->streams, 1);
            f->stream_counted = true;
        }
        begin_answer(f, res, buf_str(&fields));
        set_deadline(f, f->upstream->idle_ms);
    }
    buf_done(&fields);
    if (e != ERR_OK) give_up(f, "The upstream failed: its answer's head is too large.");
}

/* --- the answer's body --- */

static enum err take_body(struct flow *f, struct str data)
{
    switch (f->mode) {
    case RELAY_RAW: return client_send(f->client, data) ? ERR_OK : ERR_LIMIT;
    case RELAY_STREAM: return answer_feed(f->answer, data, &f->gather);
    case RELAY_WHOLE: break;
    }
    return buf_append_str(&f->gather, data);
}

static void on_body(void *ctx, struct str data)
{
    struct flow *f = ctx;
    f->last_byte_ns = loop_now_ns(f->w->loop);
    f->raw_bytes += data.n;
    if (f->mode == RELAY_STREAM && flow_tokens_limited(f))
        answer_allow(f->answer, flow_tokens_had(f));
    enum err e = flow_decode(f, data, take_body);
    if (e == ERR_INVALID)
        give_up(f, "The upstream failed: its compressed answer is damaged.");
    else if (e != ERR_OK)
        give_up(f, "The upstream failed: its answer is larger than this gateway takes.");
}

static void note_first_token(struct flow *f)
{
    if (f->first_token_ns == 0 && answer_tokens(f->answer) > 0)
        f->first_token_ns = edge_now_ns(f->w);
}

static void note_progress(struct flow *f)
{
    uint64_t now = loop_now_ns(f->w->loop);
    if (now - f->progress_ns < PROGRESS_NS_STEP) return;
    f->progress_ns = now;
    uint64_t tokens = answer_tokens(f->answer);
    usage_progress(f->usage, tokens, flow_cost(f, 0, tokens), (now - f->began_ns) / 1000000u);
}

/* The upstream is read as long as the client takes its answer, and tokens are had for it. */
static void set_paused(struct flow *f, bool *which, bool paused)
{
    if (*which == paused || f->exchange == NULL) return;
    *which = paused;
    if (!paused) f->last_byte_ns = loop_now_ns(f->w->loop);
    exchange_pause(f->exchange, f->paused || f->token_paused);
}

/* What a stream has brought goes to the client as one piece. */
static void on_flush(void *ctx)
{
    struct flow *f = ctx;
    if (f->mode == RELAY_WHOLE) return;
    if (f->mode == RELAY_STREAM && flow_tokens_pump(f) != ERR_OK) {
        give_up(f, "The answer cannot be metered.");
        return;
    }
    if (f->mode == RELAY_STREAM && f->gather.len > 0) {
        note_first_token(f);
        note_progress(f);
        bool sent = client_send(f->client, buf_str(&f->gather));
        buf_done(&f->gather);
        if (!sent) {
            give_up(f, "The client does not take its answer.");
            return;
        }
    }
    if (f->mode == RELAY_STREAM && answer_state(f->answer) == ANSWER_CUT) {
        struct client *c = f->client;
        f->client = NULL;
        client_answer_end(c);
        flow_settle(f, USAGE_CUT); /* cancels the upstream */
        return;
    }
    client_flush(f->client);
    if (client_waiting(f->client) > CLIENT_HIGH_WATER) set_paused(f, &f->paused, true);
    set_paused(f, &f->token_paused, f->mode == RELAY_STREAM && answer_waits(f->answer));
}

void flow_client_drained(struct flow *f)
{
    set_paused(f, &f->paused, false);
}

/* The answer is whole, and waits only for tokens: at most as long as the limiter does. */
static void wait_for_tokens(struct flow *f)
{
    f->ended = true;
    loop_timer_clear(f->w->loop, &f->timer);
}

/* Sees to it that an answer in one piece has its tokens. False: it waits for them. */
static bool have_whole_tokens(struct flow *f)
{
    if (!flow_tokens_limited(f)) return true;
    /* Reserved before it was sent; or of a stream that came as one piece, or of a lease that ended
     * meanwhile, asked for now. A token has a byte at least. */
    uint64_t need = MIN(f->output_limit, (uint64_t)f->gather.len), had = flow_tokens_had(f);
    if (had < need && !f->ended) {
        wait_for_tokens(f);
        if (flow_tokens_extend(f, need - had) == ADMIT_WAIT) return false;
    }
    answer_allow(f->answer, flow_tokens_had(f));
    answer_deny(f->answer);
    return true;
}

static void end_whole(struct flow *f)
{
    struct buf out;
    struct client *c = f->client;
    if (!flow_decode_ended(f)) {
        count_upstream_error(f, "broken");
        fail_with(f, REFUSE_UPSTREAM_BROKE,
                  "The upstream failed: its compressed answer is not complete.");
        return;
    }
    if (!have_whole_tokens(f)) return;
    buf_init(&out, ANSWER_WHOLE_MAX + 4096);
    if (answer_whole(f->answer, buf_str(&f->gather), &out) != ERR_OK) {
        buf_done(&out);
        count_upstream_error(f, "broken");
        fail_with(f, REFUSE_UPSTREAM_BROKE, "The upstream failed: its answer cannot be metered.");
        return;
    }
    if (!flow_tokens_pay(f)) {
        buf_done(&out);
        fail_with(f, REFUSE_LIMITER_AWAY, "The limiter is away. Try again soon.");
        return;
    }
    note_first_token(f);
    f->client = NULL;
    client_answer(c, f->status, f->whole_fields, FRAME_LENGTH, out.len);
    if (client_send(c, buf_str(&out)))
        client_answer_end(c);
    else
        client_answer_broken(c);
    buf_done(&out);
    flow_settle(f, answer_state(f->answer) == ANSWER_CUT ? USAGE_CUT : USAGE_OK);
}

static void end_stream(struct flow *f)
{
    struct client *c = f->client;
    bool waited = true;
    enum err e = ERR_OK;
    while (waited && e == ERR_OK) {
        e = answer_end(f->answer, &f->gather);
        waited = answer_waits(f->answer);
        if (e == ERR_OK) e = flow_tokens_pump(f);
        if (e == ERR_OK && answer_waits(f->answer)) {
            wait_for_tokens(f);
            return;
        }
    }
    if (e != ERR_OK) {
        count_upstream_error(f, "broken");
        fail_with(f, REFUSE_UPSTREAM_BROKE, "The upstream failed: its stream cannot be metered.");
        return;
    }
    note_first_token(f);
    if (!answer_is_complete(f->answer)) {
        count_upstream_error(f, "broken");
        if (answer_saw_error(f->answer)) {
            /* It told of its error itself: that passes, and the end is no proper one. */
            if (f->gather.len > 0) (void)client_send(c, buf_str(&f->gather));
            f->client = NULL;
            client_answer_broken(c);
            flow_settle(f, USAGE_UPSTREAM_ERROR);
            return;
        }
        fail_with(f, REFUSE_UPSTREAM_BROKE,
                  "The upstream failed: its stream ended before it was complete.");
        return;
    }
    f->client = NULL;
    if (f->gather.len == 0 || client_send(c, buf_str(&f->gather)))
        client_answer_end(c);
    else
        client_answer_broken(c);
    flow_settle(f, answer_state(f->answer) == ANSWER_CUT ? USAGE_CUT
                   : answer_saw_error(f->answer)         ? USAGE_UPSTREAM_ERROR
                                                         : USAGE_OK);
}

static void on_end(void *ctx)
{
    struct flow *f = ctx;
    struct client *c = f->client;
    flow_attempt_ends(f);
    f->exchange = NULL;
    if (f->mode == RELAY_WHOLE) {
        end_whole(f);
    } else if (f->mode == RELAY_STREAM) {
        end_stream(f);
    } else {
        f->client = NULL;
        client_answer_end(c);
        flow_settle(f, f->status < 500 ? USAGE_OK : USAGE_UPSTREAM_ERROR);
    }
}

void flow_tokens_came(struct flow *f)
{
    if (!f->ended)
        on_flush(f);
    else if (f->mode == RELAY_WHOLE)
        end_whole(f);
    else
        end_stream(f);
}

/* --- strict slots --- */

static void on_slots_timer(void *ctx)
{
    flow_watch_slots(ctx);
}

void flow_watch_slots(struct flow *f)
{
    uint64_t until = limiter_held_until(flow_edge(f)->limiter, f->ticket);
    if (until == UINT64_MAX) return;
    if (until > 0) {
        loop_timer_set(f->w->loop, &f->slots_timer, until, on_slots_timer, f);
        return;
    }
    if (f->exchange != NULL) {
        exchange_cancel(f->exchange);
        flow_attempt_ends(f);
        f->exchange = NULL;
    }
    fail_with(f, REFUSE_LIMITER_AWAY,
              "The slot of this request is lost: the limiter is away, and the limit is strict.");
}
