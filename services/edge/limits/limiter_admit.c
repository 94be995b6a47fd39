/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The limiter as a request sees it: admission, its tokens, its end. On the request's worker; what
 * had to wait is concluded on the thread that brought the reply.
 */
#include "limiter_impl.h"

/* --- conclusions --- */

/* Fills the outcome of a ticket that was decided, and counts it. */
static void conclude(struct limiter *l, struct admit_ticket *t)
{
    const struct lease_waiter *w = &t->waiter;
    struct admit_outcome *o = &t->outcome;
    const struct snap_policy *p;
    admit_conclude(w, o);
    t->held = o->verdict == ADMIT_OK;
    limiter_bump(&l->shadow_refused, w->shadow_refused);
    limiter_bump(&l->allowed, w->allowed);
    limiter_warn_allowed(l, o->decided_ns, w->allowed);
    limiter_bump(&l->shared, w->shared);
    limiter_bump(o->verdict == ADMIT_OK        ? &l->admitted
                 : o->verdict == ADMIT_REFUSED ? &l->refused
                                               : &l->unavailable,
                 1);
    if (t->held) limiter_log(l, t, o->decided_ns, LIMITER_LOG_ADMIT, 0);
    if (!t->held) limiter_log_forget(t);
    if (o->policy != NULL) limiter_publish(l, t->ns, o->policy, o, false, o->decided_ns);
    for (size_t i = 0; (p = admit_shadow(t, i)) != NULL; i++)
        limiter_publish(l, t->ns, p, o, true, o->decided_ns);
}

static void conclude_extension(struct limiter *l, struct admit_ticket *t)
{
    t->extending = false;
    t->extended = admit_verdict_of(t->waiter.verdict);
    limiter_bump(&l->extensions, 1);
    if (t->extended != ADMIT_OK) limiter_bump(&l->extensions_refused, 1);
    limiter_bump(&l->allowed, t->waiter.allowed);
    limiter_bump(&l->shared, t->waiter.shared);
}

void limiter_call_back(struct limiter *l, struct list_node *done)
{
    for (struct list_node *n; (n = list_pop_front(done)) != NULL;) {
        struct lease_waiter *w = LIST_ENTRY(n, struct lease_waiter, node);
        struct admit_ticket *t = LIST_ENTRY(w, struct admit_ticket, waiter);
        if (t->extending)
            conclude_extension(l, t);
        else
            conclude(l, t);
        t->done(t->done_ctx, t); /* t may be gone now */
    }
}

/* --- admission --- */

enum admit_verdict limiter_admit(struct limiter *l, const struct admit_request *r,
                                 struct admit_ticket *t, admit_done_fn done, void *ctx)
{
    struct admit_outcome *o = &t->outcome;
    uint64_t now = r->policies != NULL ? limiter_now(l) : 0;
    struct admit_bindings bindings;
    *o = (struct admit_outcome){ .verdict = ADMIT_OK, .decided_ns = now };
    t->held = t->extending = false;
    t->waiter.claims_n = 0;
    t->waiter.shadow_mask = 0;
    t->slice = 0;
    t->covers = UINT64_MAX;
    if (r->policies == NULL) return ADMIT_OK;
    admit_claim(r, l->o.hash_key, l->o.plain_addresses, t, &bindings);
    limiter_bump(&l->unpriced, t->unpriced);
    if (t->waiter.claims_n == 0) {
        limiter_bump(&l->admitted, 1);
        return ADMIT_OK;
    }
    t->done = done;
    t->done_ctx = ctx;
    t->ns = r->subject.ns;
    for (size_t i = 0; i < t->waiter.claims_n; i++) limiter_log_bind(l, t, i, bindings.v[i].key);
    if (lease_bind_and_admit(l->table, now, &t->waiter, bindings.v, r->input_tokens, &t->covers) ==
        LEASE_VERDICT_WAIT) {
        limiter_bump(&l->waited, 1);
        limiter_flush(l); /* from here on t may be decided by another thread */
        return ADMIT_WAIT;
    }
    conclude(l, t);
    limiter_kick_if_due(l); /* it may have run low, or been wanted while the engine is away */
    return o->verdict;
}

bool limiter_cancel(struct limiter *l, struct admit_ticket *t)
{
    if (!lease_cancel(l->table, limiter_now(l), &t->waiter)) return false;
    t->extending = false;
    if (!t->held) limiter_log_forget(t);
    return true;
}

void limiter_release(struct limiter *l, struct admit_ticket *t)
{
    if (!t->held) return;
    t->held = false;
    lease_release(l->table, limiter_now(l), &t->waiter);
    limiter_log_forget(t);
    limiter_kick_if_due(l);
}

/* --- tokens --- */

static bool reserves(const struct admit_ticket *t)
{
    if (!t->held) return false;
    for (size_t i = 0; i < t->waiter.claims_n; i++)
        if (t->waiter.claims[i].reserve) return true;
    return false;
}

uint64_t limiter_covers(struct limiter *l, const struct admit_ticket *t, uint64_t input)
{
    return t->slice > 0 && t->held ? lease_covers(l->table, limiter_now(l), &t->waiter, input)
                                   : UINT64_MAX;
}

bool limiter_spend_input(struct limiter *l, struct admit_ticket *t, uint64_t tokens)
{
    if (!reserves(t) || tokens == 0) return true;
    uint64_t now = limiter_now(l);
    if (!lease_spend_input(l->table, now, &t->waiter, tokens)) return false;
    limiter_log(l, t, now, LIMITER_LOG_INPUT, tokens);
    return true;
}

uint64_t limiter_spend_output(struct limiter *l, struct admit_ticket *t, uint64_t tokens)
{
    if (t->slice == 0 || !t->held || tokens == 0) return tokens;
    uint64_t now = limiter_now(l);
    tokens = lease_spend_output(l->table, now, &t->waiter, tokens);
    if (tokens > 0) limiter_log(l, t, now, LIMITER_LOG_OUTPUT, tokens);
    return tokens;
}

enum admit_verdict limiter_extend(struct limiter *l, struct admit_ticket *t, uint64_t tokens,
                                  admit_done_fn done, void *ctx)
{
    ASSERT(t->held && !t->extending);
    t->done = done;
    t->done_ctx = ctx;
    t->extending = true;
    if (lease_extend(l->table, limiter_now(l), &t->waiter, 0, tokens, 1) == LEASE_VERDICT_WAIT) {
        limiter_flush(l); /* from here on t may be decided by another thread */
        return ADMIT_WAIT;
    }
    conclude_extension(l, t);
    limiter_kick_if_due(l);
    return t->extended;
}

/* What each reservation has to pay for so many tokens. */
static void charge_all(const struct admit_ticket *t, uint64_t input, uint64_t output,
                       uint64_t charges[LEASE_MAX_CLAIMS])
{
    for (size_t i = 0; i < t->waiter.claims_n; i++) {
        const struct lease_claim *c = &t->waiter.claims[i];
        charges[i] = c->reserve ? MAX(admit_charge(c, input, output), c->spent) : 0;
    }
}

void limiter_end(struct limiter *l, struct admit_ticket *t, uint64_t input, uint64_t output)
{
    uint64_t charges[LEASE_MAX_CLAIMS];
    if (!reserves(t)) {
        limiter_release(l, t);
        return;
    }
    t->held = false;
    charge_all(t, input, output, charges);
    lease_end(l->table, limiter_now(l), &t->waiter, charges);
    limiter_log_forget(t);
    limiter_kick_if_due(l);
}

uint64_t limiter_held_until(struct limiter *l, const struct admit_ticket *t)
{
    if (!t->held || !lease_may_be_strict(l->table)) return UINT64_MAX;
    uint64_t now = limiter_now(l);
    uint64_t until = lease_held_until(l->table, now, &t->waiter);
    return until > now ? until : 0;
}
