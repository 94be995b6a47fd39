/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The limits of a request before it is forwarded: sizes and access as early as they can be decided,
 * then all counters at once. On the request's worker.
 */
#include <inttypes.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>

#include "limits/admit_local.h"
#include "flow_impl.h"
#include "match/match.h"

#define OUTPUT_MOST ((uint64_t)1 << 40) /* tokens: more than any answer has */

static const struct admit_list *policies_of(const struct flow *f, const struct snap_namespace *ns)
{
    return ns != NULL ? admit_policies_of(f->rules->policies, ns) : NULL;
}

/* What is known of the request by now, in the words of policies. */
static struct admit_subject *subject(struct flow *f)
{
    struct admit_subject *s = &f->asked->subject;
    s->ns = f->ns;
    s->key = f->key;
    s->upstream = f->upstream;
    s->model = f->model;
    s->model_known = f->model_cfg;
    s->head = &f->client->request->head;
    return s;
}

/* --- limits that need no counter --- */

static void count_shadow(struct flow *f, const struct snap_policy *p)
{
    struct str labels[] = { f->ns->slug, p->slug, str_of(admit_dimension(p)) };
    metric_inc(flow_metric(f, M_SHADOW_REJECTIONS, labels));
}

/* Tells of what a check found. True when nothing in force refuses. */
static bool passes(struct flow *f, const struct admit_check *c, uint64_t used)
{
    struct limiter *l = flow_edge(f)->limiter;
    for (size_t i = 0; i < c->shadow_n; i++) {
        limiter_report(l, f->ns, c->shadow[i], used, true);
        count_shadow(f, c->shadow[i]);
    }
    if (c->policy != NULL) limiter_report(l, f->ns, c->policy, used, false);
    return c->policy == NULL;
}

/* The bounds of the namespaces that may still turn out to be the request's. */
struct bounds {
    const struct flow *f;
    uint64_t largest;
    const struct snap_policy *policy;
    bool none; /* one has no bound */
    int left;  /* how many are looked at */
};
enum { BOUNDS_MAX = 256 };

static bool widen(void *ctx, const struct snap_namespace *ns)
{
    struct bounds *b = ctx;
    const struct snap_policy *p;
    if (ns->auth == SNAP_AUTH_KEY) return true; /* there is no key */
    if (b->left-- == 0 || !admit_body_bound(policies_of(b->f, ns), &p)) {
        b->none = true;
        return false;
    }
    if (p->limit > b->largest) b->largest = p->limit, b->policy = p;
    return true;
}

void flow_bound_body(struct flow *f)
{
    const struct snap_policy *p;
    const struct snap_namespace *ns = f->ns != NULL ? f->ns : f->key != NULL ? f->key->ns : NULL;
    f->body_max = (uint64_t)flow_edge(f)->settings->max_body;
    f->body_policy = NULL;
    if (ns != NULL) {
        if (admit_body_bound(policies_of(f, ns), &p) && p->limit < f->body_max)
            f->body_max = p->limit, f->body_policy = p;
        return;
    }
    struct bounds b = { .f = f, .left = BOUNDS_MAX };
    match_each_possible(f->rules->matching, &f->asked->match, widen, &b);
    if (!b.none && b.policy != NULL && b.largest < f->body_max)
        f->body_max = b.largest, f->body_policy = b.policy;
}

bool flow_body_fits(struct flow *f, uint64_t bytes)
{
    char text[160];
    if (bytes <= f->body_max) return true;
    if (f->body_policy == NULL) {
        flow_refuse(f, REFUSE_BODY_TOO_LARGE, STR("The body is larger than this gateway takes."),
                    NULL);
        return false;
    }
    if (f->ns != NULL) limiter_report(flow_edge(f)->limiter, f->ns, f->body_policy, bytes, false);
    (void)snprintf(text, sizeof text,
                   "The body is larger than policy %.*s allows (limit %" PRIu64 " bytes).",
                   STR_ARG(f->body_policy->slug), f->body_policy->limit);
    flow_refuse_policy(f, REFUSE_BODY_TOO_LARGE, f->body_policy, str_of(text), NULL);
    return false;
}

bool flow_check_body(struct flow *f)
{
    struct admit_check c;
    admit_body_size(policies_of(f, f->ns), subject(f), f->body_len, &c);
    if (passes(f, &c, f->body_len)) return true;
    f->body_policy = c.policy;
    f->body_max = c.policy->limit;
    return flow_body_fits(f, f->body_len);
}

bool flow_check_access(struct flow *f, bool model_pending)
{
    const struct h1_request *q = f->client->request;
    struct admit_check c;
    char text[160];
    admit_access(policies_of(f, f->ns), subject(f), q->method_str, q->path, model_pending, &c);
    if (model_pending) c.shadow_n = 0; /* told when all is known */
    if (passes(f, &c, 1)) return true;
    (void)snprintf(text, sizeof text, "Policy %.*s does not allow this request.",
                   STR_ARG(c.policy->slug));
    flow_refuse_policy(f, REFUSE_FORBIDDEN, c.policy, str_of(text), NULL);
    return false;
}

bool flow_check_input(struct flow *f)
{
    struct admit_check c;
    char text[200];
    admit_input_tokens(policies_of(f, f->ns), subject(f), f->input_tokens, &c);
    if (passes(f, &c, f->input_tokens)) return true;
    (void)snprintf(text, sizeof text,
                   "The input has %" PRIu64 " tokens; policy %.*s allows %" PRIu64 ".",
                   f->input_tokens, STR_ARG(c.policy->slug), c.policy->limit);
    flow_refuse_policy(f, REFUSE_CONTEXT_LENGTH, c.policy, str_of(text),
                       f->endpoint == SNAP_EP_COMPLETIONS  ? "prompt"
                       : f->endpoint == SNAP_EP_EMBEDDINGS ? "input"
                                                           : "messages");
    return false;
}

/* --- refusals of counters --- */

static enum refusal refusal_of(const struct snap_policy *p)
{
    switch (p->kind) {
    case SNAP_CONCURRENCY: return REFUSE_CONCURRENCY;
    case SNAP_TOKEN_RATE: return REFUSE_TOKENS;
    case SNAP_QUOTA: return REFUSE_QUOTA;
    default: return REFUSE_REQUESTS;
    }
}

void flow_refuse_limit(struct flow *f, const struct admit_outcome *o)
{
    char text[320];
    const struct snap_policy *p = o->policy;
    const char *what = admit_dimension(p);
    enum refusal r = refusal_of(p);
    if (o->verdict == ADMIT_UNAVAILABLE) {
        r = REFUSE_LIMITER_AWAY;
        (void)snprintf(text, sizeof text,
                       "Policy %.*s cannot be decided: the limiter is away. Try again soon.",
                       STR_ARG(p->slug));
    } else if (o->for_good) {
        (void)snprintf(text, sizeof text,
                       "The request is larger than policy %.*s can ever allow (limit %" PRIu64
                       " %s).",
                       STR_ARG(p->slug), o->limit, what);
    } else {
        (void)snprintf(text, sizeof text,
                       "%s reached by policy %.*s: limit %" PRIu64 " %s%s%s, used %" PRIu64
                       ". Try again in %" PRIu64 " ms.",
                       p->kind == SNAP_QUOTA ? "Quota" : "Rate limit", STR_ARG(p->slug), o->limit,
                       what, p->kind == SNAP_QUOTA ? " per " : "",
                       p->kind == SNAP_QUOTA ? snap_period_name(p->period) : "", o->used,
                       o->retry_after_ms);
    }
    flow_refuse_outcome(f, r, o, str_of(text));
}

/* --- FLOW_ADMIT --- */

/* The most that the answer may have, all choices together. */
static uint64_t output_most(struct flow *f)
{
    const struct request_scan *scan = &f->asked->scan;
    uint64_t most = OUTPUT_MOST, window = f->model_cfg != NULL ? f->model_cfg->context_window : 0;
    if (window > 0) most = (window - MIN(f->input_tokens, window - 1)) * scan->choices;
    if (scan->max_tokens > 0 && scan->max_tokens < most / scan->choices)
        most = scan->max_tokens * scan->choices;
    return MAX(MIN(most, f->output_limit), scan->choices);
}

static void limit_output(struct flow *f)
{
    const struct snap_policy *p, *shadow;
    admit_output_tokens(policies_of(f, f->ns), subject(f), &p, &shadow);
    f->output_limit = p != NULL ? p->limit : METER_NO_LIMIT;
    f->output_shadow = shadow;
}

static void after_admit(struct flow *f)
{
    const struct admit_ticket *t = f->ticket;
    const struct snap_policy *p;
    if (f->asked_at_ns > 0)
        metric_observe(flow_metric(f, M_LIMIT_WAIT, NULL),
                       (double)(edge_now_ns(f->w) - f->asked_at_ns) / 1e9);
    for (size_t i = 0; (p = admit_shadow(t, i)) != NULL; i++) count_shadow(f, p);
    if (t->outcome.verdict != ADMIT_OK) {
        flow_refuse_limit(f, &t->outcome);
        return;
    }
    f->admitted = true;
    /* What is had must do for an answer in one piece; a stream can get more. */
    if (!f->stream) {
        uint64_t covers = f->asked_at_ns > 0
                              ? limiter_covers(flow_edge(f)->limiter, t, f->input_tokens)
                              : t->covers;
        f->output_limit = MIN(f->output_limit, covers);
    }
    flow_forward(f);
}

static void admit_posted(void *ctx)
{
    struct flow *f = ctx;
    f->async--;
    if (f->state == FLOW_DONE) {
        /* The client left while the answer was on its way: what was granted goes back. */
        if (f->ticket->outcome.verdict == ADMIT_OK)
            limiter_release(flow_edge(f)->limiter, f->ticket);
        flow_settle(f, f->outcome);
        return;
    }
    after_admit(f);
}

/* On a thread of the bus or of the limiter. */
static void on_admitted(void *ctx, struct admit_ticket *t)
{
    struct flow *f = ctx;
    (void)t;
    /* A full queue empties within a turn of the loop; there is no other way to tell the flow. */
    while (loop_post(f->w->loop, admit_posted, f) != ERR_OK) sched_yield();
}

void flow_enter_admit(struct flow *f)
{
    bool metered = f->scanned && endpoint_is_metered(f->endpoint);
    f->state = FLOW_ADMIT;
    struct admit_request r = {
        .policies = policies_of(f, f->ns),
        .counted = f->scanned && f->endpoint != SNAP_EP_COUNT_TOKENS,
        .answers = metered,
        .stream = f->stream,
        .input_tokens = f->input_tokens,
        .choices = 1,
    };
    r.subject = *subject(f);
    if (metered) {
        limit_output(f);
        r.output_most = output_most(f);
        r.choices = f->asked->scan.choices;
    }
    f->admissions++;
    f->ticket = admit_ticket_new(r.policies);
    if (f->ticket == NULL) {
        flow_refuse(f, REFUSE_OVERLOADED, STR("out of memory"), NULL);
        return;
    }
    f->async++;
    if (limiter_admit(flow_edge(f)->limiter, &r, f->ticket, on_admitted, f) == ADMIT_WAIT) {
        f->asked_at_ns = edge_now_ns(f->w);
        return;
    }
    f->async--;
    after_admit(f);
}

void flow_admit_again(struct flow *f)
{
    limiter_release(flow_edge(f)->limiter, f->ticket);
    free(f->ticket);
    f->ticket = NULL;
    f->admitted = false;
    flow_enter_admit(f);
}
