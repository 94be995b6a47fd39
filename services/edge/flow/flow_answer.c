/* SPDX-License-Identifier: Apache-2.0 */
/* FLOW_RELAY: the answer on its way to the client. A stream's first event is looked at before
 * anything of it is passed on; an answer in one piece goes when it is whole. Until then another
 * server may be tried (flow_upstream.c). */
#include <stdio.h>
#include <stdlib.h>

#include "base/prefetch.h"
#include "match/edits.h"
#include "flow_impl.h"

enum {
    PROGRESS_NS_STEP = 1000000000,
    HOLD_MAX = 64 * 1024 /* bytes in front of a stream's first output that are held back */
};

static void on_head(void *ctx, const struct h1_response *res);
static void on_body(void *ctx, struct str data);
static void on_flush(void *ctx);
static void on_end(void *ctx);
static void on_fail(void *ctx, enum exchange_failure why, const char *text);
static bool begin_stream(struct flow *f, bool ended);

/* A stream among a thousand has waited longer than anything stays in the caches, and an event of it
 * looks at some thirty places: they come while the kernel reads. */
static void on_expect(void *ctx)
{
    const struct flow *f = ctx;
    prefetch(f, sizeof *f);
    if (f->mode != RELAY_STREAM) return;
    prefetch(f->client, sizeof *f->client);
    prefetch(f->ticket, offsetof(struct admit_ticket, waiter.claims[3])); /* more are rarely held */
    answer_prefetch(f->answer);
}

const struct exchange_events flow_exchange_events = { on_head, on_body, on_flush,
                                                      on_end,  on_fail, on_expect };

void flow_break_answer(struct flow *f, enum refusal r, const char *text)
{
    struct client *c = f->client;
    f->client = NULL;
    if (f->mode == RELAY_STREAM) {
        if (flow_tokens_pump(f) != ERR_OK) buf_clear(&f->gather);
        flow_tokens_end(f);
        if (f->gather.len > 0) (void)client_send(c, buf_str(&f->gather));
        buf_clear(&f->gather);
        if (f->dialect->write_error_event(r, str_of(text), str_of(f->request_id),
                                          answer_sequence(f->answer), &f->gather) == ERR_OK)
            (void)client_send(c, buf_str(&f->gather));
    }
    flow_tokens_end(f);
    client_answer_broken(c);
}

void flow_fail_with(struct flow *f, enum refusal r, const char *text)
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

/* The stream's own end came already: what breaks behind it takes nothing from the client. */
bool flow_has_ended(const struct flow *f)
{
    return f->state == FLOW_RELAY && f->mode == RELAY_STREAM &&
           answer_state(f->answer) == ANSWER_DONE;
}

static void on_fail(void *ctx, enum exchange_failure why, const char *text)
{
    struct flow *f = ctx;
    char message[200];
    /* Whether the server had read it before it closed cannot be told from here. */
    if (why == EXCHANGE_STALE && !f->stale_retried && flow_is_safe(f)) {
        flow_again_on_fresh(f);
        return;
    }
    flow_attempt_failed(f, why == EXCHANGE_CONNECT ? "connect" : "broken");
    if (flow_has_ended(f)) {
        /* All of it may have come in one read, and nothing have gone to the client yet. */
        if (begin_stream(f, true)) flow_end_stream(f);
        return;
    }
    if (flow_try_again(f, why == EXCHANGE_CONNECT ? SNAP_RETRY_CONNECT : SNAP_RETRY_RESET, 0))
        return;
    (void)snprintf(message, sizeof message, "The upstream failed: %s.", text);
    flow_fail_with(f, REFUSE_UPSTREAM_BROKE, message);
}

/* The upstream's answer cannot be used. */
static void give_up(struct flow *f, const char *text)
{
    exchange_cancel(f->exchange);
    flow_attempt_failed(f, "broken");
    flow_fail_with(f, REFUSE_UPSTREAM_BROKE, text);
}

/* --- the answer's head --- */

static bool is_event_stream(const struct h1_response *res)
{
    struct str type = h1_header_known(&res->head, H1_CONTENT_TYPE);
    type = str_trim(str_cut(&type, ';'));
    return str_ieqz(type, "text/event-stream");
}

/* What an upstream says of where and how it is reached: of the gateway that would be wrong. */
static bool is_of_origin(struct str name)
{
    return str_ieqz(name, "alt-svc") || str_ieqz(name, "strict-transport-security");
}

/* Fields of the upstream that end here: connection, framing, and what the gateway says itself. */
static bool is_dropped(const struct flow *f, const struct h1_head *h, const struct h1_field *fl)
{
    static const struct str prefixes[] = { { "x-aigw-", 7 },
                                           { "x-ratelimit-", 12 },
                                           { "anthropic-ratelimit-", 20 } };
    if (fl->known == H1_CONTENT_LENGTH || fl->known == H1_X_REQUEST_ID ||
        fl->known == H1_SET_COOKIE)
        return true;
    if (fl->known == H1_CONTENT_ENCODING && f->mode != RELAY_RAW) return true;
    if (h1_field_is_hop_by_hop(fl) ||
        (h->first[H1_CONNECTION] != 0 && h1_connection_has(h, fl->name)))
        return true;
    if (fl->known == H1_UNKNOWN && is_of_origin(fl->name)) return true;
    for (size_t i = 0; i < ARRAY_LEN(prefixes) && fl->known == H1_UNKNOWN; i++) {
        struct str p = prefixes[i];
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
        if (!is_dropped(f, &res->head, fl) && !edits_drop(&f->route->response, fl->name))
            e = h1_put_field(out, fl->name, fl->value);
    }
    if (e == ERR_OK) e = edits_append(&f->route->response, out);
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
        .allowance = !flow_tokens_limited(f)   ? METER_NO_LIMIT
                     : f->mode == RELAY_STREAM ? flow_tokens_had(f)
                                               : 0, /* have_whole_tokens() allows it */
        .more = flow_tokens_more,
        .more_ctx = f,
        .ahead = f->ticket->slice / 2,
        .hide_usage = f->injected_usage,
        .want_usage = f->wants_usage && f->dialect == &dialect_openai,
        .input_tokens = f->input_tokens,
    };
    f->answer = answer_new(&o);
    return f->answer != NULL;
}

/* Nothing can be tried again from here on. */
static void begun(struct flow *f)
{
    client_release_request(f->client);
    flow_forget_request(f);
}

static void begin_raw(struct flow *f, const struct h1_response *res, struct str fields)
{
    if (f->is_head || res->head.framing == H1_BODY_NONE)
        client_answer(f->client, res->status, fields, FRAME_NONE, 0);
    else if (res->head.framing == H1_BODY_LENGTH)
        client_answer(f->client, res->status, fields, FRAME_LENGTH, res->head.content_length);
    else
        client_answer(f->client, res->status, fields, FRAME_CHUNKED, 0);
    begun(f);
}

/* Whether what only opens the stream waits for what follows. It does as long as another server
 * could be tried, for a while. */
static bool is_held(struct flow *f, bool ended)
{
    uint64_t hold_ms = f->upstream->retry.hold_ms, now = loop_now_ns(f->w->loop);
    if (ended || answer_has_begun(f->answer) || !answer_has_opened(f->answer)) return false;
    if (hold_ms == 0 || f->gather.len > HOLD_MAX || !flow_may_try_again(f)) return false;
    if (f->opened_ns > 0) return now - f->opened_ns < hold_ms * 1000000u;
    f->opened_ns = now;
    flow_arm(f);
    return true;
}

/* Looks at what a stream begins with, and passes its head on. False: that is not known yet, or the
 * request is tried elsewhere. ended: nothing more will come. */
static bool begin_stream(struct flow *f, bool ended)
{
    if (client_answer_begun(f->client)) return true;
    if (is_held(f, ended)) return false;
    bool begun_well = answer_has_begun(f->answer), failed = answer_begins_with_error(f->answer);
    bool some = begun_well || (answer_has_opened(f->answer) && !ended);
    if (failed || (!some && ended)) {
        if (f->seat.group != NULL) seat_failed(&f->seat, "stream");
        if (flow_try_again(f, SNAP_RETRY_STREAM, 0)) return false;
    }
    if (!some) return ended;
    client_answer(f->client, f->status, f->whole_fields, FRAME_CHUNKED, 0);
    free((char *)(uintptr_t)f->whole_fields.p);
    f->whole_fields = STR_NULL;
    atomic_fetch_add(&flow_edge(f)->streams, 1);
    f->stream_counted = true;
    begun(f);
    if (f->admitted && !f->extending) f->ticket = admit_ticket_shrink(f->ticket);
    return true;
}

/* What is passed on as it is, when it has no body that could be metered. */
static enum relay_mode relay_mode(const struct flow *f, const struct h1_response *res)
{
    bool metered = f->scanned && endpoint_is_metered(f->endpoint) && res->status >= 200 &&
                   res->status < 300;
    if (!metered) return RELAY_RAW;
    if (!is_event_stream(res)) return RELAY_WHOLE;
    return f->is_head || res->head.framing == H1_BODY_NONE ? RELAY_RAW : RELAY_STREAM;
}

/* What a provider says of a key often repeats it, or half of it: that stays here. */
static void refuse_denied(struct flow *f, int status)
{
    char text[120];
    flow_attempt_ends(f);
    exchange_discard(f->exchange);
    f->exchange = NULL;
    (void)snprintf(text, sizeof text, "The upstream refused the gateway's credential (status %d).",
                   status);
    flow_fail_with(f, REFUSE_UPSTREAM_DENIED, text);
}

static void on_head(void *ctx, const struct h1_response *res)
{
    struct flow *f = ctx;
    struct buf *fields = &f->w->fields;
    struct str coding = h1_header_known(&res->head, H1_CONTENT_ENCODING);
    f->last_byte_ns = loop_now_ns(f->w->loop);
    flow_attempt_answered(f, (unsigned)res->status);
    flow_note_head(f, res);
    if (res->status >= 400 && flow_try_again(f, 0, (unsigned)res->status)) return;
    if (flow_is_denied(f, (unsigned)res->status)) {
        refuse_denied(f, res->status);
        return;
    }
    f->mode = relay_mode(f, res);
    if (f->mode != RELAY_RAW && !flow_decode_begin(f, coding)) {
        give_up(f, "The upstream failed: it sent a content coding that was not accepted.");
        return;
    }
    f->status = res->status;
    buf_clear(fields);
    enum err e = answer_fields(f, res, fields);
    if (e == ERR_OK && f->mode != RELAY_RAW && !begin_meter(f)) e = ERR_NOMEM;
    if (e == ERR_OK && f->mode != RELAY_RAW)
        f->whole_fields = str_n(str_dupz(buf_str(fields)), fields->len);
    if (e == ERR_OK) {
        f->state = FLOW_RELAY;
        if (f->mode == RELAY_RAW) begin_raw(f, res, buf_str(fields));
        flow_arm(f);
    }
    if (e != ERR_OK) give_up(f, "The upstream failed: its answer's head is too large.");
}

/* --- the answer's body --- */

static enum err take_body(struct flow *f, struct str data)
{
    switch (f->mode) {
    case RELAY_RAW: return client_send(f->client, data) ? ERR_OK : ERR_CLOSED;
    case RELAY_STREAM:
        slab_lend(loop_blocks(f->w->loop), &f->gather);
        return answer_feed(f->answer, data, &f->gather);
    case RELAY_WHOLE: slab_lend(loop_blocks(f->w->loop), &f->gather); break;
    }
    return buf_append_str(&f->gather, data);
}

/* The upstream is read as long as the client takes its answer, and tokens are had for it. */
static void set_paused(struct flow *f, bool *which, bool paused)
{
    if (*which == paused || f->exchange == NULL) return;
    *which = paused;
    if (!paused) f->last_byte_ns = loop_now_ns(f->w->loop);
    exchange_pause(f->exchange, f->paused || f->token_paused);
}

static void on_body(void *ctx, struct str data)
{
    struct flow *f = ctx;
    f->last_byte_ns = loop_now_ns(f->w->loop);
    f->raw_bytes += data.n;
    if (f->mode == RELAY_STREAM && flow_tokens_limited(f))
        answer_allow(f->answer, flow_tokens_had(f));
    enum err e = flow_decode(f, data, take_body);
    /* A turn reads more than may be held: what waits for tokens ends it. */
    if (e == ERR_OK && f->mode == RELAY_STREAM && answer_waits(f->answer))
        set_paused(f, &f->token_paused, true);
    if (e == ERR_CLOSED)
        client_kill(f->client); /* it is gone, or much too slow: no fault of the server's */
    else if (e == ERR_INVALID)
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

/* Of a stream: lets pass what tokens are had for; what was not decoded meanwhile follows. */
static enum err pump(struct flow *f)
{
    enum err e = flow_tokens_pump(f);
    while (e == ERR_OK && flow_decode_rests(f) && !answer_waits(f->answer)) {
        e = flow_decode(f, STR(""), take_body);
        if (e == ERR_OK) e = flow_tokens_pump(f);
    }
    return e;
}

/* What a stream has brought goes to the client as one piece. False: the client is gone. */
static bool send_gathered(struct flow *f)
{
    if (f->gather.len == 0) return true;
    note_first_token(f);
    note_progress(f);
    bool sent = client_send(f->client, buf_str(&f->gather));
    slab_take_back(loop_blocks(f->w->loop), &f->gather);
    if (!sent) client_kill(f->client);
    return sent;
}

static void on_flush(void *ctx)
{
    struct flow *f = ctx;
    if (f->mode == RELAY_WHOLE || f->state != FLOW_RELAY) return;
    if (f->mode == RELAY_STREAM && !begin_stream(f, false)) return;
    if (f->mode == RELAY_STREAM && pump(f) != ERR_OK) {
        give_up(f, "The answer cannot be metered.");
        return;
    }
    if (f->mode == RELAY_STREAM && answer_state(f->answer) == ANSWER_CUT) flow_tokens_end(f);
    if (f->mode == RELAY_STREAM && !send_gathered(f)) return;
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

void flow_hold_no_longer(struct flow *f)
{
    on_flush(f);
    if (f->client != NULL && f->state == FLOW_RELAY) flow_arm(f);
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
        /* A stream that broke before this answer may have asked, too: that must do. */
        if (f->extending || flow_tokens_extend(f, need - had) == ADMIT_WAIT) return false;
        had = flow_tokens_had(f);
    }
    answer_allow(f->answer, had);
    answer_deny(f->answer);
    return true;
}

static void end_whole(struct flow *f)
{
    struct buf out;
    struct str body;
    struct client *c = f->client;
    if (!flow_decode_ended(f)) {
        flow_count_upstream_error(f, "broken");
        flow_fail_with(f, REFUSE_UPSTREAM_BROKE,
                       "The upstream failed: its compressed answer is not complete.");
        return;
    }
    if (!have_whole_tokens(f)) return;
    buf_init(&out, ANSWER_WHOLE_MAX + 4096);
    if (answer_whole(f->answer, buf_str(&f->gather), &out, &body) != ERR_OK) {
        buf_done(&out);
        flow_count_upstream_error(f, "broken");
        flow_fail_with(f, REFUSE_UPSTREAM_BROKE,
                       "The upstream failed: its answer cannot be metered.");
        return;
    }
    if (!flow_tokens_pay(f)) {
        buf_done(&out);
        flow_fail_with(f, REFUSE_LIMITER_AWAY, "The limiter is away. Try again soon.");
        return;
    }
    note_first_token(f);
    f->client = NULL;
    flow_tokens_end(f);
    client_answer(c, f->status, f->whole_fields, FRAME_LENGTH, body.n);
    if (client_send(c, body))
        client_answer_end(c);
    else
        client_answer_broken(c);
    buf_done(&out);
    slab_take_back(loop_blocks(f->w->loop), &f->gather);
    flow_settle(f, answer_state(f->answer) == ANSWER_CUT ? USAGE_CUT : USAGE_OK);
}

void flow_end_stream(struct flow *f)
{
    struct client *c = f->client;
    bool waited = true;
    enum err e = ERR_OK;
    while (waited && e == ERR_OK) {
        e = flow_decode_rests(f) ? ERR_OK : answer_end(f->answer, &f->gather);
        waited = answer_waits(f->answer);
        if (e == ERR_OK) e = pump(f);
        if (e == ERR_OK && answer_waits(f->answer)) {
            if (!send_gathered(f)) return;
            client_flush(f->client);
            wait_for_tokens(f);
            return;
        }
    }
    if (e != ERR_OK) {
        flow_count_upstream_error(f, "broken");
        flow_fail_with(f, REFUSE_UPSTREAM_BROKE,
                       "The upstream failed: its stream cannot be metered.");
        return;
    }
    note_first_token(f);
    flow_tokens_end(f);
    if (!answer_is_complete(f->answer)) {
        flow_count_upstream_error(f, "broken");
        if (answer_saw_error(f->answer)) {
            /* It told of its error itself: that passes, and the end is no proper one. */
            if (f->gather.len > 0) (void)client_send(c, buf_str(&f->gather));
            f->client = NULL;
            client_answer_broken(c);
            flow_settle(f, USAGE_UPSTREAM_ERROR);
            return;
        }
        flow_fail_with(f, REFUSE_UPSTREAM_BROKE,
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

/* Nothing at all is no answer to what was asked, as a stream without output is none. */
static void end_empty(struct flow *f)
{
    if (f->seat.group != NULL) seat_failed(&f->seat, "stream");
    if (flow_try_again(f, SNAP_RETRY_STREAM, 0)) return;
    seat_leave(&f->seat);
    flow_count_upstream_error(f, "broken");
    flow_fail_with(f, REFUSE_UPSTREAM_BROKE, "The upstream failed: its answer is empty.");
}

static void on_end(void *ctx)
{
    struct flow *f = ctx;
    struct client *c = f->client;
    flow_attempt_ends(f);
    f->exchange = NULL;
    if (f->mode == RELAY_STREAM && !begin_stream(f, true)) return;
    if (f->mode == RELAY_WHOLE && f->gather.len == 0 && f->status != 204) {
        end_empty(f);
        return;
    }
    seat_leave(&f->seat);
    if (f->mode == RELAY_WHOLE) {
        end_whole(f);
    } else if (f->mode == RELAY_STREAM) {
        flow_end_stream(f);
    } else {
        f->client = NULL;
        flow_tokens_end(f);
        client_answer_end(c);
        flow_settle(f, f->status < 500 ? USAGE_OK : USAGE_UPSTREAM_ERROR);
    }
}

void flow_tokens_came(struct flow *f)
{
    if (f->answer == NULL) return; /* that one failed, and another is tried */
    if (!f->ended)
        on_flush(f);
    else if (f->mode == RELAY_WHOLE)
        end_whole(f);
    else
        flow_end_stream(f);
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
    seat_leave(&f->seat);
    flow_fail_with(
        f, REFUSE_LIMITER_AWAY,
        "The slot of this request is lost: the limiter is away, and the limit is strict.");
}
