/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which policies apply to a request, what counters they are counted on, and for how many units.
 * Pure; what is made here is immutable and shared by all workers. The limiter is in limiter.c.
 */
#include "admit.h"

#include <stdlib.h>

#include "admit_claims.h"
#include "admit_list.h"
#include "admit_local.h"

struct admit_policies {
    const struct snapshot *snapshot;
    struct admit_list *lists; /* one per namespace */
};

static bool applies_to_ns(const struct snap_policy *p, const struct snap_namespace *ns)
{
    return p->enabled && (p->ns == NULL || p->ns == ns);
}

static enum err fill_list(const struct snapshot *s, const struct snap_namespace *ns,
                          struct admit_list *list, struct why *why)
{
    size_t n = 0, leased = 0;
    for (size_t i = 0; i < s->policies_n; i++) {
        if (!applies_to_ns(&s->policies[i], ns)) continue;
        n++;
        if (snap_policy_is_leased(&s->policies[i])) leased++;
    }
    if (leased > LEASE_MAX_CLAIMS)
        return why_set(why, ERR_LIMIT, "%zu limits apply to namespace %.*s, at most %d may", leased,
                       STR_ARG(ns->slug), LEASE_MAX_CLAIMS);
    if (n == 0) return ERR_OK;
    list->v = calloc(n, sizeof *list->v);
    if (list->v == NULL) return ERR_NOMEM;
    for (size_t i = 0; i < s->policies_n; i++)
        if (applies_to_ns(&s->policies[i], ns)) list->v[list->n++] = &s->policies[i];
    return ERR_OK;
}

enum err admit_policies_new(const struct snapshot *s, struct admit_policies **ret, struct why *why)
{
    struct admit_policies *p = calloc(1, sizeof *p);
    enum err e = ERR_OK;
    if (p == NULL) return ERR_NOMEM;
    p->snapshot = s;
    p->lists = calloc(MAX(s->namespaces_n, (size_t)1), sizeof *p->lists);
    if (p->lists == NULL) e = ERR_NOMEM;
    for (size_t i = 0; i < s->namespaces_n && e == ERR_OK; i++)
        e = fill_list(s, &s->namespaces[i], &p->lists[i], why);
    if (e == ERR_OK)
        *ret = p;
    else
        admit_policies_free(p);
    return e;
}

void admit_policies_free(struct admit_policies *p)
{
    if (p == NULL) return;
    for (size_t i = 0; p->lists != NULL && i < p->snapshot->namespaces_n; i++) free(p->lists[i].v);
    free(p->lists);
    free(p);
}

const struct admit_list *admit_policies_of(const struct admit_policies *p,
                                           const struct snap_namespace *ns)
{
    size_t i = (size_t)(ns - p->snapshot->namespaces);
    ASSERT(i < p->snapshot->namespaces_n);
    return p->lists[i].n > 0 ? &p->lists[i] : NULL;
}

struct admit_ticket *admit_ticket_new(const struct admit_list *policies)
{
    size_t claims = 0;
    for (size_t i = 0; policies != NULL && i < policies->n; i++)
        if (snap_policy_is_leased(policies->v[i])) claims++;
    const size_t head = offsetof(struct admit_ticket, waiter.claims);
    size_t more = claims * sizeof(struct lease_claim);
    /* glibc's calloc() does not look at what this thread has freed just now; malloc() does. Zeroed
     * in two steps, of which compilers do not make a calloc(). */
    struct admit_ticket *t = malloc(head + more);
    if (t == NULL) return NULL;
    memset(t, 0, head);
    if (more > 0) memset((char *)t + head, 0, more);
    return t;
}

struct admit_ticket *admit_ticket_shrink(struct admit_ticket *t)
{
    struct lease_waiter *w = &t->waiter;
    size_t n = 0;
    ASSERT(!w->waiting);
    if (t->note != NULL) return t; /* the log knows claims by their places */
    for (size_t i = 0; i < w->claims_n; i++)
        if (w->claims[i].counter != NULL) {
            w->claims[n] = w->claims[i];
            w->claims[n].place = (unsigned char)n;
            n++;
        }
    w->claims_n = w->tightest = w->tightest_reserve = n;
    w->refused_by = 0;
    w->shadow_mask = 0;
    struct admit_ticket *less = realloc(t, offsetof(struct admit_ticket, waiter.claims) +
                                               n * sizeof(struct lease_claim));
    return less != NULL ? less : t;
}

/* --- claims --- */

static void rule_of(const struct snap_policy *p, struct lease_rule *out)
{
    static const enum lease_away away[] = { [SNAP_SHARE] = LEASE_AWAY_SHARE,
                                            [SNAP_DENY] = LEASE_AWAY_DENY,
                                            [SNAP_ALLOW] = LEASE_AWAY_ALLOW };
    bool slots = p->kind == SNAP_CONCURRENCY;
    bool bucket = !slots && p->algorithm == SNAP_BUCKET;
    *out = (struct lease_rule){ .kind = slots ? LEASE_SLOTS : LEASE_RATE,
                                .away = away[p->on_unavailable],
                                .limit = p->limit,
                                .capacity = bucket ? p->burst : p->limit,
                                .window_ms = slots ? 0 : p->window_ms,
                                .steady = !slots && !bucket,
                                .calendar = !slots && p->algorithm == SNAP_FIXED,
                                .strict = slots && p->strict };
}

static bool counts_tokens(const struct snap_policy *p)
{
    return p->kind == SNAP_TOKEN_RATE || (p->kind == SNAP_QUOTA && p->unit == SNAP_UNIT_TOKENS);
}

static bool counts_cost(const struct snap_policy *p)
{
    return p->kind == SNAP_QUOTA && p->unit == SNAP_UNIT_COST;
}

/* What a token of input and one of output cost. */
struct price {
    uint64_t input, output;
};

/* False: the policy does not count this request. */
static bool prices(const struct snap_policy *p, const struct admit_request *r, struct price *out,
                   unsigned *unpriced)
{
    if (!r->counted) return false;
    if (counts_cost(p)) {
        const struct snap_model *m = r->subject.model_known;
        if (m == NULL || !str_eq(m->currency, p->currency)) {
            (*unpriced)++;
            return false;
        }
        out->input = (uint64_t)MAX(m->input_nano, INT64_C(0));
        out->output = (uint64_t)MAX(m->output_nano, INT64_C(0));
    } else {
        out->input = p->count != SNAP_COUNT_OUTPUT;
        out->output = p->count != SNAP_COUNT_INPUT;
    }
    if (!r->answers) out->output = 0;
    return out->input > 0 || out->output > 0;
}

uint64_t admit_charge(const struct lease_claim *c, uint64_t input, uint64_t output)
{
    uint64_t a, b, sum;
    if (__builtin_mul_overflow(c->per_input, input, &a) ||
        __builtin_mul_overflow(c->per_output, output, &b) || __builtin_add_overflow(a, b, &sum))
        return LEASE_UNITS_MAX;
    return MIN(sum, LEASE_UNITS_MAX);
}

/* What a request reserves: its input, and of its output a slice or all of it, but not more than the
 * limit can hold; with less it begins too, if there is a token for each choice. */
static void reserve(const struct admit_request *r, const struct lease_rule *rule, uint64_t slice,
                    struct lease_claim *c)
{
    uint64_t want = MAX(r->stream ? MIN(slice, r->output_most) : r->output_most, r->choices);
    c->reserve = true;
    c->least = MAX(admit_charge(c, r->input_tokens, r->choices), UINT64_C(1));
    c->units = MAX(MIN(admit_charge(c, r->input_tokens, want), rule->capacity), c->least);
}

/* The smallest slice of all policies that count output; 0: none does. */
static uint64_t slice_of(const struct admit_request *r)
{
    uint64_t slice = 0;
    unsigned unpriced = 0;
    for (size_t i = 0; i < r->policies->n; i++) {
        const struct snap_policy *p = r->policies->v[i];
        struct price price;
        if (!counts_tokens(p) && !counts_cost(p)) continue;
        if (!admit_is_for_model(p, &r->subject) || !prices(p, r, &price, &unpriced)) continue;
        if (price.output == 0) continue;
        uint64_t part = MAX(p->limit / price.output / ADMIT_SLICE_PARTS, UINT64_C(1));
        part = MIN(part, (uint64_t)ADMIT_SLICE);
        slice = slice == 0 ? part : MIN(slice, part);
    }
    return slice > 0 ? MAX(slice, r->choices) : 0;
}

void admit_claim(const struct admit_request *r, const unsigned char hash_key[16],
                 bool plain_addresses, struct admit_ticket *t, struct admit_bindings *out)
{
    struct lease_waiter *w = &t->waiter;
    struct admit_keys keys;
    char *key = out->keys;
    w->claims_n = 0;
    t->unpriced = 0;
    t->slice = slice_of(r);
    admit_keys_init(&keys, &r->subject, hash_key, plain_addresses);
    for (size_t i = 0; i < r->policies->n; i++) {
        const struct snap_policy *p = r->policies->v[i];
        if (!snap_policy_is_leased(p) || !admit_is_for_model(p, &r->subject)) continue;
        struct lease_claim *c = &w->claims[w->claims_n];
        struct lease_binding *b = &out->v[w->claims_n];
        ASSERT(w->claims_n < LEASE_MAX_CLAIMS);
        *c = (struct lease_claim){
            .owner = p, .units = 1, .shadow = p->shadow, .quiet = counts_cost(p)
        };
        rule_of(p, &b->rule);
        if (counts_tokens(p) || counts_cost(p)) {
            struct price price;
            if (!prices(p, r, &price, &t->unpriced)) continue;
            c->per_input = price.input;
            c->per_output = price.output;
            reserve(r, &b->rule, t->slice, c);
        }
        b->policy = p->id;
        b->key = admit_key(&keys, p, key);
        key += b->key.n;
        w->claims_n++;
    }
}

/* --- the outcome --- */

const char *admit_dimension(const struct snap_policy *p)
{
    switch (p->kind) {
    case SNAP_REQUEST_RATE: return "requests";
    case SNAP_CONCURRENCY: return "concurrency";
    case SNAP_TOKEN_RATE: return "tokens";
    case SNAP_QUOTA:
        return p->unit == SNAP_UNIT_REQUESTS ? "requests"
               : p->unit == SNAP_UNIT_COST   ? "cost"
                                             : "tokens";
    case SNAP_INPUT_TOKENS: return "input_tokens";
    case SNAP_OUTPUT_TOKENS: return "output_tokens";
    case SNAP_ACCESS: return "access";
    case SNAP_BODY_SIZE: return "body_size";
    }
    return "unknown";
}

enum admit_verdict admit_verdict_of(enum lease_verdict v)
{
    static const enum admit_verdict verdicts[] = {
        [LEASE_VERDICT_OK] = ADMIT_OK,
        [LEASE_VERDICT_WAIT] = ADMIT_WAIT,
        [LEASE_VERDICT_REFUSED] = ADMIT_REFUSED,
        [LEASE_VERDICT_UNAVAILABLE] = ADMIT_UNAVAILABLE,
    };
    return verdicts[v];
}

static struct admit_rate rate_of(const struct lease_waiter *w, size_t i, const struct lease_view *v)
{
    if (i >= w->claims_n) return (struct admit_rate){ .present = false };
    const struct snap_policy *p = w->claims[i].owner;
    return (struct admit_rate){ true, p->limit, MIN(v->remaining, p->limit), v->reset_ms };
}

void admit_conclude(const struct lease_waiter *w, struct admit_outcome *out)
{
    out->verdict = admit_verdict_of(w->verdict);
    out->decided_ns = w->decided_ns;
    out->unavailable_allowed = w->allowed;
    out->requests = rate_of(w, w->tightest, &w->tightest_view);
    out->tokens = rate_of(w, w->tightest_reserve, &w->tightest_reserve_view);
    if (w->verdict != LEASE_VERDICT_REFUSED && w->verdict != LEASE_VERDICT_UNAVAILABLE) return;
    const struct snap_policy *p = w->claims[w->refused_by].owner;
    const struct lease_view *v = &w->refused_view;
    out->policy = p;
    out->limit = p->limit;
    out->used = p->limit - MIN(v->remaining, p->limit);
    out->for_good = w->verdict == LEASE_VERDICT_REFUSED && v->never;
    out->retry_after_ms = out->for_good ? 0 : MAX(v->retry_ms, UINT64_C(1));
    if (w->verdict == LEASE_VERDICT_UNAVAILABLE) out->retry_after_ms = 1000;
}

const struct snap_policy *admit_shadow(const struct admit_ticket *t, size_t i)
{
    for (size_t k = 0; k < t->waiter.claims_n; k++)
        if ((t->waiter.shadow_mask >> k & 1) != 0 && i-- == 0) return t->waiter.claims[k].owner;
    return NULL;
}
