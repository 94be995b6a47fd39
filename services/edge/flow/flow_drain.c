/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A request whose client left while its answer was coming, when ON_CLIENT_GONE=drain: the upstream
 * is read to its end, so that what it reports as used is recorded; at most CLIENT_GONE_DRAIN_MS.
 * What comes is counted and thrown away. On the request's worker.
 */
#include "flow_impl.h"

static enum err take(struct flow *f, struct str data)
{
    if (f->mode == RELAY_WHOLE) return buf_append_str(&f->gather, data);
    enum err e = answer_feed(f->answer, data, &f->gather);
    buf_clear(&f->gather);
    return e;
}

static void on_head(void *ctx, const struct h1_response *res)
{
    (void)ctx, (void)res; /* it came before */
}

static void on_body(void *ctx, struct str data)
{
    struct flow *f = ctx;
    if (flow_decode(f, data, take) != ERR_OK) flow_settle(f, USAGE_CLIENT_GONE);
}

static void on_flush(void *ctx)
{
    struct flow *f = ctx;
    if (f->mode == RELAY_STREAM && answer_state(f->answer) == ANSWER_CUT)
        flow_settle(f, USAGE_CLIENT_GONE); /* cancels the upstream */
}

static void on_end(void *ctx)
{
    struct flow *f = ctx;
    struct buf out;
    struct str body;
    flow_attempt_ends(f);
    f->exchange = NULL;
    buf_init(&out, ANSWER_WHOLE_MAX + 4096);
    enum err e = f->mode == RELAY_WHOLE ? answer_whole(f->answer, buf_str(&f->gather), &out, &body)
                                        : answer_end(f->answer, &out);
    (void)e; /* what was counted until then is what there is */
    buf_done(&out);
    flow_settle(f, USAGE_CLIENT_GONE);
}

static void on_fail(void *ctx, enum exchange_failure why, const char *text)
{
    struct flow *f = ctx;
    (void)why, (void)text;
    flow_attempt_ends(f);
    f->exchange = NULL;
    flow_settle(f, USAGE_CLIENT_GONE);
}

static void on_timer(void *ctx)
{
    flow_settle(ctx, USAGE_CLIENT_GONE);
}

bool flow_drain(struct flow *f)
{
    static const struct exchange_events events = {
        on_head, on_body, on_flush, on_end, on_fail, NULL
    };
    const struct edge_settings *s = flow_edge(f)->settings;
    bool open = f->state == FLOW_RELAY && f->mode != RELAY_RAW && f->exchange != NULL;
    /* One that waits for tokens would have to be called back. */
    if (!flow_edge(f)->drains || !open || f->extending || f->ended || flow_decode_rests(f))
        return false;
    f->client = NULL;
    f->drained = true;
    list_push_back(&f->w->drained, &f->in_drained);
    if (f->mode == RELAY_STREAM) buf_clear(&f->gather);
    answer_allow(f->answer, METER_NO_LIMIT);
    loop_timer_clear(f->w->loop, &f->slots_timer);
    loop_timer_set(f->w->loop, &f->timer,
                   loop_now_ns(f->w->loop) + (uint64_t)s->drain_ms * 1000000u, on_timer, f);
    exchange_redirect(f->exchange, &events);
    exchange_pause(f->exchange, false);
    return true;
}

void flow_shutdown_drained(struct list_node *n)
{
    flow_settle(LIST_ENTRY(n, struct flow, in_drained), USAGE_SHUTDOWN);
}
