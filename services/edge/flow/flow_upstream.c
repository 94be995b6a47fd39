/* SPDX-License-Identifier: Apache-2.0 */
/*
 * FLOW_WAIT: which server a request goes to, how long it is waited for, and what is tried next.
 *
 * An attempt is one exchange with one server, and holds a seat there (fleet.h). Another follows
 * only while nothing of an answer was passed on: on another server of the upstream, as often as
 * `retries` says and its budget allows, then on the route's fallbacks, each with retries of its
 * own. What is not safe to be done twice is tried again only when it was not done: nothing was
 * sent, or the status says so.
 */
#include "flow_impl.h"

#include <stdio.h>
#include <stdlib.h>

#include "upstreams/cooldown.h"

enum { BACKOFF_DOUBLINGS = 6 };

static void on_timer(void *ctx);

void flow_count_upstream_error(struct flow *f, const char *why)
{
    struct str labels[] = { f->upstream->slug, f->server->slug, str_of(why) };
    metric_inc(flow_metric(f, M_UPSTREAM_ERRORS, labels));
}

static struct group *group(const struct flow *f)
{
    return f->rules->groups[f->upstream->index];
}

/* --- how long --- */

enum deadline {
    DEADLINE_TOTAL,
    DEADLINE_TOTAL_QUEUED,
    DEADLINE_QUEUE,
    DEADLINE_BACKOFF,
    DEADLINE_CONNECT,
    DEADLINE_FIRST_BYTE,
    DEADLINE_IDLE,
    DEADLINE_HOLD,
    DEADLINE_FIRST_TOKEN
};

/* Of the metric; for the client. */
static const struct {
    const char *why, *text;
} deadlines[] = {
    [DEADLINE_TOTAL] = { "timeout_total",
                         "The upstream took longer than the whole time an answer may take." },
    [DEADLINE_TOTAL_QUEUED] = { "timeout_total",
                                "No server became free within the whole time an answer may take." },
    [DEADLINE_QUEUE] = { "timeout_queue", "All servers are busy, and none became free in time." },
    [DEADLINE_BACKOFF] = { "backoff", "" },
    [DEADLINE_CONNECT] = { "timeout_connect", "The upstream could not be connected to in time." },
    [DEADLINE_FIRST_BYTE] = { "timeout_first_byte",
                              "The upstream did not begin to answer in time." },
    [DEADLINE_IDLE] = { "timeout_idle", "The upstream stopped in the middle of its answer." },
    [DEADLINE_HOLD] = { "hold", "" },
    [DEADLINE_FIRST_TOKEN] = { "timeout_first_token",
                               "The upstream did not send a first token in time." },
};

/* Which deadline comes first of what is waited for now, and when. */
struct patience {
    uint64_t until;
    enum deadline deadline;
};

static void no_longer_than(struct patience *p, uint64_t from, uint64_t ms, enum deadline deadline)
{
    uint64_t until = from + ms * 1000000u;
    if (until < p->until) *p = (struct patience){ until, deadline };
}

static struct patience patience(const struct flow *f, uint64_t now)
{
    const struct snap_upstream *u = f->upstream;
    struct patience p = { f->total_deadline, DEADLINE_TOTAL };
    if (f->exchange == NULL) {
        if (f->waiting) {
            p.deadline = DEADLINE_TOTAL_QUEUED;
            no_longer_than(&p, f->asked->waiter.since, u->queue_ms, DEADLINE_QUEUE);
        } else if (f->backing_off) {
            no_longer_than(&p, f->attempt_began_ns, f->backoff_ms, DEADLINE_BACKOFF);
        }
        return p;
    }
    if (!exchange_is_connected(f->exchange)) {
        no_longer_than(&p, f->attempt_began_ns, u->connect_ms, DEADLINE_CONNECT);
        return p;
    }
    if (f->state == FLOW_WAIT) {
        no_longer_than(&p, f->attempt_began_ns, u->first_byte_ms, DEADLINE_FIRST_BYTE);
        return p;
    }
    /* Activity does not move the timer; it is looked at when the timer fires. */
    uint64_t last = f->paused || f->token_paused ? now : f->last_byte_ns;
    no_longer_than(&p, last, u->idle_ms, DEADLINE_IDLE);
    if (f->opened_ns > 0 && !client_answer_begun(f->client))
        no_longer_than(&p, f->opened_ns, u->retry.hold_ms, DEADLINE_HOLD);
    if (f->mode == RELAY_STREAM && answer_tokens(f->answer) == 0)
        no_longer_than(&p, f->attempt_began_ns, u->first_token_ms, DEADLINE_FIRST_TOKEN);
    return p;
}

void flow_arm(struct flow *f)
{
    uint64_t now = loop_now_ns(f->w->loop), until = patience(f, now).until;
    /* Nothing tells that a connection stands: it is looked at when the next wait could end. */
    if (f->exchange != NULL && !exchange_is_connected(f->exchange))
        until = MIN(until, MAX(now, f->attempt_began_ns) + f->upstream->first_byte_ms * 1000000u);
    /* A timer that fires too early is armed again. */
    if (!loop_timer_is_set(&f->timer) || until < f->timer.at_ns)
        loop_timer_set(f->w->loop, &f->timer, until, on_timer, f);
}

/* --- attempts --- */

static void start_attempt(struct flow *f, bool fresh)
{
    struct buf *head = &f->w->gather;
    struct exchange_tls tls = { f->rules->tls[f->upstream->index], f->upstream->tls_server_name,
                                f->rules->transports[f->upstream->index] };
    buf_clear(head);
    if (flow_build_head(f, head) != ERR_OK) {
        if (head->data != NULL)
            explicit_bzero(head->data, head->len); /* it may hold a credential */
        flow_refuse(f, REFUSE_INTERNAL, STR("The request's head cannot be built."), NULL);
        return;
    }
    flow_attempt_begins(f);
    f->state = FLOW_WAIT;
    f->exchange = exchange_start(f->w->pools, f->server, &tls, buf_str(head), f->asked->body,
                                 f->is_head, fresh, &flow_exchange_events, f);
    memset(head->data, 0, head->len); /* it held a credential */
    f->sent_ns = edge_now_ns(f->w);
    flow_arm(f);
}

/* The place in f->seat is taken: sends the request there. */
static void go(struct flow *f, bool fresh)
{
    f->server = &f->upstream->servers[f->seat.server];
    balance_mark_tried(f->asked->ask.tried, f->seat.server);
    start_attempt(f, fresh);
}

void flow_attempt_failed(struct flow *f, const char *why)
{
    flow_attempt_ends(f);
    f->exchange = NULL;
    if (f->seat.group != NULL) seat_failed(&f->seat, why);
    seat_leave(&f->seat);
    flow_count_upstream_error(f, why);
}

/* --- which server --- */

static struct str header_key(const struct flow *f)
{
    return h1_header(&f->client->request->head, f->upstream->hash.header);
}

/* The first bytes of what the model reads: requests that begin alike meet the same caches. */
static uint64_t prompt_hash(const struct flow *f)
{
    const struct request_scan *s = &f->asked->scan;
    const struct js_val parts[] = { s->system, s->instructions, s->messages, s->prompt, s->input };
    uint64_t left = f->upstream->hash.prompt_bytes, hash = 0;
    if (!f->scanned) return 0;
    for (size_t i = 0; i < ARRAY_LEN(parts) && left > 0; i++) {
        struct str raw = parts[i].raw;
        if (raw.p == NULL) continue;
        raw.n = (size_t)MIN((uint64_t)raw.n, left);
        left -= raw.n;
        hash = hash * 31 + balance_hash(raw);
    }
    return hash;
}

static uint64_t hash_of(const struct flow *f)
{
    struct str key = STR("");
    if (f->upstream->balance != SNAP_HASH) return 0;
    switch (f->upstream->hash.by) {
    case SNAP_HASH_HEADER: key = header_key(f); break;
    case SNAP_HASH_KEY:
        if (f->key != NULL) key = f->key->id;
        break;
    case SNAP_HASH_USER: return f->asked->subject.has_user ? f->asked->subject.user_hash : 0;
    case SNAP_HASH_PROMPT: return prompt_hash(f);
    case SNAP_HASH_PATH: key = f->client->request->path; break;
    }
    return key.n > 0 ? balance_hash(key) : 0;
}

/* The request goes to this upstream from now on. */
static void turn_to(struct flow *f, const struct snap_upstream *u, struct str model)
{
    f->upstream = u;
    f->model_wanted = model;
    f->retries_left = u->retries;
    f->asked->ask = (struct balance_ask){ .hash = hash_of(f) };
    group_count_request(group(f), loop_now_ns(f->w->loop));
}

static bool has_fallback(const struct flow *f)
{
    return f->fallbacks_used < f->route->fallbacks_n;
}

/* On to the next fallback. */
static void fall_back(struct flow *f)
{
    const struct snap_fallback *b = &f->route->fallbacks[f->fallbacks_used++];
    turn_to(f, b->upstream, b->upstream_model.p != NULL ? b->upstream_model : STR_NULL);
}

enum { ADMISSIONS_MAX = 3 };

/* What the whole attempt needs once, or once more when the model is another. */
static bool prepare(struct flow *f)
{
    struct usage_record record;
    struct why why;
    enum err e = flow_build_body(f);
    if (e != ERR_OK) {
        (void)why_set(&why, e, "The request cannot be forwarded: %s.", err_name(e));
        flow_refuse(f, REFUSE_INTERNAL, str_of(why.text), NULL);
        return false;
    }
    if (f->usage == NULL) {
        f->server = &f->upstream->servers[f->seat.server];
        struct usage *u = flow_edge(f)->usage;
        usage_record_init(&record);
        if (u != NULL) flow_fill_record(f, &record);
        if (usage_open(u, f->w->index, &record, &f->usage) != ERR_OK) {
            flow_refuse(f, REFUSE_OVERLOADED, STR("Usage cannot be recorded now."), NULL);
            return false;
        }
    }
    if (f->input_paid) return true;
    f->input_paid = limiter_spend_input(flow_edge(f)->limiter, f->ticket, f->input_tokens);
    if (f->input_paid) return true;
    /* What was reserved is gone: its lease ended while the request waited for a place, or for this
     * thread. It is asked for again; without an end only if that happens every time. */
    seat_leave(&f->seat);
    if (f->admissions < ADMISSIONS_MAX)
        flow_admit_again(f);
    else
        flow_refuse(f, REFUSE_LIMITER_AWAY, STR("The limiter is away. Try again soon."), NULL);
    return false;
}

static void launch(struct flow *f, bool fresh)
{
    if (!prepare(f)) return;
    go(f, fresh);
    if (f->state == FLOW_WAIT) flow_watch_slots(f);
}

static void on_place(void *ctx)
{
    struct flow *f = ctx;
    f->async--;
    f->waiting = false;
    if (f->state == FLOW_DONE) {
        seat_leave(&f->asked->waiter.seat);
        flow_settle(f, f->outcome);
        return;
    }
    f->seat = f->asked->waiter.seat;
    struct str labels[] = { f->upstream->slug };
    metric_observe(flow_metric(f, M_QUEUE_SECONDS, labels),
                   (double)(edge_now_ns(f->w) - f->asked->waiter.since) / 1e9);
    launch(f, false);
}

/* Waits for a place. False: the queue is full. */
static bool wait_for_place(struct flow *f)
{
    f->state = FLOW_WAIT;
    f->async++;
    f->waiting = true;
    if (group_wait(group(f), &f->asked->ask, f->w->loop, on_place, f, &f->asked->waiter) ==
        ERR_OK) {
        flow_arm(f);
        return true;
    }
    f->async--;
    f->waiting = false;
    return false;
}

bool flow_leave_queue(struct flow *f)
{
    if (!f->waiting || !group_forget(&f->asked->waiter)) return false;
    f->waiting = false;
    f->async--;
    return true;
}

static void refuse_unserved(struct flow *f, enum balance_verdict v, uint64_t wait_ms)
{
    if (wait_ms > 0) f->retry_after_s = MAX(f->retry_after_s, (wait_ms + 999) / 1000);
    if (v == BALANCE_FULL)
        flow_refuse(f, REFUSE_OVERLOADED,
                    STR("All servers of the upstream are busy, and so is its queue."), NULL);
    else if (v == BALANCE_LIMITED)
        flow_refuse(f, REFUSE_UPSTREAM_LIMIT,
                    STR("The upstream's rate limit is used up. It said when to come again."), NULL);
    else
        flow_refuse(f, REFUSE_NO_UPSTREAM, STR("No server of the upstream can take requests now."),
                    NULL);
}

static enum balance_verdict take_place(struct flow *f, bool queue, struct seat *ret,
                                       uint64_t *ret_wait_ms)
{
    return group_take(group(f), &f->asked->ask, loop_now_ns(f->w->loop), queue, ret, ret_wait_ms);
}

/* A place at the upstream, or at a fallback; or a wait for one; or an answer of ours. */
static void find_place(struct flow *f)
{
    uint64_t wait_ms = 0;
    for (;;) {
        enum balance_verdict v = take_place(f, true, &f->seat, &wait_ms);
        if (v == BALANCE_OK) {
            launch(f, false);
            return;
        }
        if (v == BALANCE_FULL && !has_fallback(f) && wait_for_place(f)) return;
        if (!has_fallback(f)) {
            refuse_unserved(f, v, wait_ms);
            return;
        }
        fall_back(f);
    }
}

void flow_forward(struct flow *f)
{
    loop_timer_clear(f->w->loop, &f->timer);
    f->total_deadline = loop_now_ns(f->w->loop) + f->upstream->total_ms * 1000000u;
    turn_to(f, f->upstream, f->route->upstream_model);
    find_place(f);
}

/* --- what is tried next --- */

bool flow_is_safe(const struct flow *f)
{
    enum h1_method m = f->client->request->method;
    return m == H1_GET || m == H1_HEAD || m == H1_OPTIONS || f->endpoint != SNAP_EP_PASSTHROUGH;
}

static bool is_cause(const struct flow *f, unsigned cause, unsigned status)
{
    bool undone = cause == SNAP_RETRY_CONNECT || status == 429 || status == 503;
    if (!undone && !flow_is_safe(f)) return false;
    if (status != 0) return snap_retries_status(f->upstream, status);
    return (f->upstream->retry.causes & cause) != 0;
}

/* Forgets what of an answer was there. */
static void forget_answer(struct flow *f)
{
    answer_free(f->answer);
    f->answer = NULL;
    free((char *)(uintptr_t)f->whole_fields.p);
    f->whole_fields = STR_NULL;
    buf_done(&f->gather);
    flow_decode_done(f);
    f->status = 0;
    f->http = NULL;
    f->opened_ns = 0;
    f->ended = f->paused = f->token_paused = false;
    f->state = FLOW_WAIT;
}

static void next_attempt(struct flow *f)
{
    struct str labels[] = { f->upstream->slug };
    uint64_t base = f->upstream->retry.backoff_ms;
    unsigned made = (unsigned)(f->upstream->retries - f->retries_left);
    metric_inc(flow_metric(f, M_RETRIES, labels));
    if (base == 0 || made == 0) {
        launch(f, true);
        return;
    }
    base <<= MIN(made - 1, (unsigned)BACKOFF_DOUBLINGS);
    f->backoff_ms = (uint32_t)(base / 2 + rng_below(flow_edge(f)->rng, base / 2 + 1));
    f->backing_off = true;
    f->attempt_began_ns = loop_now_ns(f->w->loop);
    flow_arm(f);
}

static bool can_retry(const struct flow *f)
{
    return f->client != NULL && f->asked != NULL && !client_answer_begun(f->client) &&
           loop_now_ns(f->w->loop) < f->total_deadline;
}

bool flow_may_try_again(const struct flow *f)
{
    return can_retry(f) && ((f->retries_left > 0 && f->upstream->servers_n > 1) || has_fallback(f));
}

/* A place for the next attempt: on another server, or at a fallback. */
static bool find_next(struct flow *f, struct seat *ret)
{
    uint64_t wait_ms;
    bool found = f->retries_left > 0 && take_place(f, false, ret, &wait_ms) == BALANCE_OK;
    if (found && !group_may_retry(group(f))) {
        seat_leave(ret);
        found = false;
    }
    if (found) {
        f->retries_left--;
        return true;
    }
    while (!found && has_fallback(f)) {
        fall_back(f);
        found = take_place(f, false, ret, &wait_ms) == BALANCE_OK;
    }
    return found;
}

bool flow_try_again(struct flow *f, unsigned cause, unsigned status)
{
    struct seat next = { .group = NULL };
    if (!can_retry(f) || !is_cause(f, cause, status)) return false;
    const struct snap_upstream *upstream = f->upstream;
    struct str model = f->model_wanted;
    if (!find_next(f, &next)) {
        f->upstream = upstream;
        f->model_wanted = model;
        f->retries_left = 0;
        return false;
    }
    if (f->exchange != NULL) {
        flow_attempt_ends(f);
        exchange_discard(f->exchange);
        f->exchange = NULL;
    }
    seat_leave(&f->seat);
    f->seat = next;
    forget_answer(f);
    next_attempt(f);
    return true;
}

void flow_again_on_fresh(struct flow *f)
{
    f->stale_retried = true;
    f->attempts_n--; /* the server never saw it: the same attempt, on a connection of its own */
    f->exchange = NULL;
    start_attempt(f, true);
}

bool flow_is_denied(const struct flow *f, unsigned status)
{
    return f->upstream->auth != SNAP_UPAUTH_NONE &&
           (status == 401 || status == 402 || status == 403);
}

static void note_way(struct flow *f)
{
    struct exchange_way way = exchange_way(f->exchange);
    struct str labels[] = { f->upstream->slug, str_of(way.http) };
    f->http = way.http;
    metric_inc(flow_metric(f, M_CURL_ANSWERS, labels));
    if (way.connections > 0)
        metric_add(flow_metric(f, M_CURL_CONNECTIONS, labels), way.connections);
}

void flow_note_head(struct flow *f, const struct h1_response *res)
{
    uint64_t now = loop_now_ns(f->w->loop);
    uint64_t wall_ms = f->began_wall_ms + (now - f->began_ns) / 1000000u;
    uint64_t wait = cooldown_of(res, wall_ms);
    /* A credential of ours that is not taken, or not paid for, is the server's failure. A 403 may
     * be about what was asked: who asks so must not be able to take the server from others. */
    bool denied = flow_is_denied(f, (unsigned)res->status), ours = denied && res->status != 403;
    char why[32];
    if (f->upstream->transport == SNAP_CURL) note_way(f);
    f->retry_after_s = cooldown_retry_after_s(res, wall_ms);
    if (wait > 0) seat_cool(&f->seat, wait, res->status != 503 && res->status != 529);
    if (denied) flow_count_upstream_error(f, "credential");
    if ((res->status >= 500 && res->status != 501) || ours) {
        (void)snprintf(why, sizeof why, "status %d", res->status);
        seat_failed(&f->seat, why);
    } else if (res->status != 429) {
        seat_succeeded(&f->seat, now);
    }
}

/* --- time is over --- */

static void on_timer(void *ctx)
{
    struct flow *f = ctx;
    uint64_t now = loop_now_ns(f->w->loop);
    struct patience p = patience(f, now);
    if (now < p.until) {
        flow_arm(f);
        return;
    }
    const char *text = deadlines[p.deadline].text;
    if (f->waiting) {
        if (!flow_leave_queue(f)) return; /* a place came this very moment */
        flow_refuse(f, p.deadline == DEADLINE_QUEUE ? REFUSE_OVERLOADED : REFUSE_UPSTREAM_TIMEOUT,
                    str_of(text), NULL);
        return;
    }
    if (f->backing_off) {
        f->backing_off = false;
        launch(f, true);
        return;
    }
    if (p.deadline == DEADLINE_HOLD) {
        flow_hold_no_longer(f);
        return;
    }
    bool connected = exchange_is_connected(f->exchange);
    exchange_cancel(f->exchange);
    flow_attempt_failed(f, deadlines[p.deadline].why);
    if (flow_has_ended(f)) {
        flow_end_stream(f);
        return;
    }
    if (flow_try_again(f, connected ? SNAP_RETRY_TIMEOUT : SNAP_RETRY_CONNECT, 0)) return;
    flow_fail_with(f, REFUSE_UPSTREAM_TIMEOUT, text);
}
