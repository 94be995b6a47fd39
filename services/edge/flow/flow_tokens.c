/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tokens of an answer under limits: paid before they go to the client, reserved slice by slice
 * while a stream flows, settled at the end. On the request's worker.
 *
 * A stream asks for its next slice when half of the last is used, long before it needs it; where it
 * comes to the end of what it has, its events wait (answer.h) until the engine has answered, at
 * most the limiter's time-out. When there is no more, it is cut at its last token.
 */
#include <sched.h>

#include "flow_impl.h"

enum { AGAIN_NS = 50000000 }; /* how soon a slice that was not to be had is asked for ahead again */

static struct limiter *limiter(const struct flow *f)
{
    return flow_edge(f)->limiter;
}

bool flow_tokens_limited(const struct flow *f)
{
    return f->admitted && f->ticket->slice > 0;
}

uint64_t flow_tokens_had(const struct flow *f)
{
    uint64_t more = limiter_covers(limiter(f), f->ticket, 0);
    return more < METER_NO_LIMIT - f->paid ? f->paid + more : METER_NO_LIMIT;
}

/* --- more of them --- */

static void extension_posted(void *ctx)
{
    struct flow *f = ctx;
    f->async--;
    f->extending = false;
    if (f->state == FLOW_DONE) {
        flow_settle(f, f->outcome);
        return;
    }
    flow_tokens_came(f);
}

/* On a thread of the bus or of the limiter. */
static void on_extended(void *ctx, struct admit_ticket *t)
{
    struct flow *f = ctx;
    (void)t;
    while (loop_post(f->w->loop, extension_posted, f) != ERR_OK) sched_yield();
}

enum admit_verdict flow_tokens_extend(struct flow *f, uint64_t tokens)
{
    ASSERT(!f->extending);
    f->async++;
    f->extending = true;
    enum admit_verdict v = limiter_extend(limiter(f), f->ticket, tokens, on_extended, f);
    if (v == ADMIT_WAIT) return v;
    f->async--;
    f->extending = false;
    return v;
}

uint64_t flow_tokens_more(void *ctx, uint64_t wants)
{
    struct flow *f = ctx;
    uint64_t had = flow_tokens_had(f);
    if (wants <= had || f->extending || loop_now_ns(f->w->loop) < f->extend_at_ns) return had;
    enum admit_verdict v = flow_tokens_extend(f, MAX(f->ticket->slice, wants - had));
    if (v == ADMIT_REFUSED || v == ADMIT_UNAVAILABLE)
        f->extend_at_ns = loop_now_ns(f->w->loop) + AGAIN_NS;
    return flow_tokens_had(f);
}

/* --- a stream --- */

/* Pays for what is about to go to the client. What cannot be paid for does not go: its reservation
 * died this very moment. */
static enum err pay(struct flow *f)
{
    uint64_t tokens = answer_due(f->answer);
    if (tokens <= f->paid) return ERR_OK;
    uint64_t want = tokens - f->paid, got = limiter_spend_output(limiter(f), f->ticket, want);
    if (got == want) {
        f->paid = tokens;
        return ERR_OK;
    }
    buf_clear(&f->gather);
    return answer_stop(f->answer, f->paid, &f->gather);
}

/* Lets the events that wait pass as far as tokens are had; `last`: there will be no more. */
static enum err let_pass(struct flow *f, bool last)
{
    uint64_t had = flow_tokens_had(f);
    answer_allow(f->answer, had);
    if (last) {
        answer_deny(f->answer);
        f->output_limit = MIN(f->output_limit, had);
    }
    enum err e = answer_resume(f->answer, &f->gather);
    return e == ERR_OK ? pay(f) : e;
}

/* Before it is needed: half of the slice is used. */
static void extend_ahead(struct flow *f)
{
    uint64_t had = flow_tokens_had(f), now = loop_now_ns(f->w->loop);
    if (had - f->paid >= f->ticket->slice / 2 || had >= f->output_limit) return;
    if (f->extending || now < f->extend_at_ns) return;
    enum admit_verdict v = flow_tokens_extend(f, f->ticket->slice);
    if (v == ADMIT_REFUSED || v == ADMIT_UNAVAILABLE) f->extend_at_ns = now + AGAIN_NS;
}

enum err flow_tokens_pump(struct flow *f)
{
    enum err e = ERR_OK;
    if (!flow_tokens_limited(f)) return ERR_OK;
    e = pay(f);
    while (e == ERR_OK && answer_waits(f->answer) && !f->extending) {
        uint64_t had = flow_tokens_had(f), wants = answer_wants(f->answer);
        enum admit_verdict v = ADMIT_OK;
        if (wants > had) v = flow_tokens_extend(f, MAX(f->ticket->slice, wants - had));
        if (v == ADMIT_WAIT) break;
        e = let_pass(f, v != ADMIT_OK);
    }
    if (e == ERR_OK && answer_state(f->answer) == ANSWER_OPEN) extend_ahead(f);
    return e;
}

bool flow_tokens_pay(struct flow *f)
{
    uint64_t tokens = answer_tokens(f->answer);
    if (!flow_tokens_limited(f)) return true;
    f->paid = limiter_spend_output(limiter(f), f->ticket, tokens);
    return f->paid == tokens;
}

/* --- the end --- */

void flow_tokens_end(struct flow *f)
{
    struct limiter *l = limiter(f);
    if (f->extending && limiter_cancel(l, f->ticket)) {
        f->extending = false;
        f->async--;
    }
    /* Else the callback is on its way, and comes here again. */
    if (!f->admitted || f->extending) return;
    f->admitted = false;
    if (f->sent_ns > 0) {
        const struct reported_usage none = { .present = false };
        const struct reported_usage *r = f->answer != NULL ? answer_reported(f->answer) : &none;
        uint64_t output = f->answer != NULL ? answer_tokens(f->answer) : 0;
        /* Hidden tokens are charged as the upstream reports them; input is when we did not count
         * it exactly. */
        limiter_end(l, f->ticket,
                    r->present && !f->input_exact ? MAX(f->input_tokens, r->input)
                                                  : f->input_tokens,
                    r->present ? MAX(output, r->output) : output);
    } else {
        limiter_release(l, f->ticket);
    }
}
