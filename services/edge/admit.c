/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which policies apply to a request, and what counters they are counted on. Pure; what is made here
 * is immutable and shared by all workers. The limiter is in limiter.c.
 */
#include "admit.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>

#include "admit_claims.h"
#include "base/hash.h"

struct admit_list {
    const struct snap_policy **v; /* in the snapshot's order: highest priority first */
    size_t n;
};

struct admit_policies {
    const struct snapshot *snapshot;
    struct admit_list *lists; /* one per namespace */
};

static bool applies_to_ns(const struct snap_policy *p, const struct snap_namespace *ns)
{
    return p->enabled && (p->ns == NULL || p->ns == ns);
}

static bool needs_lease(const struct snap_policy *p)
{
    return p->kind == SNAP_REQUEST_RATE || p->kind == SNAP_CONCURRENCY;
}

static enum err fill_list(const struct snapshot *s, const struct snap_namespace *ns,
                          struct admit_list *list, struct why *why)
{
    size_t n = 0, leased = 0;
    for (size_t i = 0; i < s->policies_n; i++) {
        if (!applies_to_ns(&s->policies[i], ns)) continue;
        n++;
        if (needs_lease(&s->policies[i])) leased++;
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

/* --- models --- */

static bool same(char a, char b)
{
    return tolower((unsigned char)a) == tolower((unsigned char)b);
}

/* '*' matches any run; compared without case. */
static bool glob(struct str pattern, struct str s)
{
    size_t p = 0, i = 0, star = SIZE_MAX, from = 0;
    while (i < s.n) {
        if (p < pattern.n && pattern.p[p] == '*') {
            star = p++;
            from = i;
        } else if (p < pattern.n && same(pattern.p[p], s.p[i])) {
            p++;
            i++;
        } else if (star != SIZE_MAX) {
            p = star + 1;
            i = ++from;
        } else {
            return false;
        }
    }
    while (p < pattern.n && pattern.p[p] == '*') p++;
    return p == pattern.n;
}

/* By the name the client wrote and by the names of the model it stands for, so that an alias does
 * not lead around a limit. */
static bool applies_to_model(const struct snap_policy *p, const struct admit_request *r)
{
    if (p->models.n == 0) return true;
    for (size_t i = 0; i < p->models.n; i++) {
        struct str pattern = p->models.v[i];
        if (r->model.n > 0 && glob(pattern, r->model)) return true;
        if (r->model_known == NULL) continue;
        if (glob(pattern, r->model_known->name) || glob(pattern, r->model_known->slug)) return true;
    }
    return false;
}

bool admit_output_limit(const struct admit_request *r, uint64_t *ret_tokens,
                        const struct snap_policy **ret_policy, uint64_t *ret_shadow)
{
    const struct snap_policy *least = NULL;
    uint64_t shadow = 0;
    for (size_t i = 0; r->policies != NULL && i < r->policies->n; i++) {
        const struct snap_policy *p = r->policies->v[i];
        if (p->kind != SNAP_OUTPUT_TOKENS || !applies_to_model(p, r)) continue;
        if (p->shadow)
            shadow = shadow == 0 ? p->limit : MIN(shadow, p->limit);
        else if (least == NULL || p->limit < least->limit)
            least = p;
    }
    if (ret_shadow != NULL) *ret_shadow = shadow;
    if (least == NULL) return false;
    *ret_tokens = least->limit;
    if (ret_policy != NULL) *ret_policy = least;
    return true;
}

/* --- keys --- */

struct key_text {
    char text[LEASE_KEY_MAX];
    size_t n;
};

static void add(struct key_text *k, const char *name, struct str value)
{
    size_t name_n = strlen(name), sep = k->n > 0 ? 1 : 0;
    if (value.p == NULL || value.n == 0) value = STR("-");
    /* ids have at most 64 bytes, and each of four sources comes once */
    ASSERT(k->n + sep + name_n + 1 + value.n <= sizeof k->text);
    if (sep > 0) k->text[k->n++] = ';';
    memcpy(k->text + k->n, name, name_n);
    k->n += name_n;
    k->text[k->n++] = '=';
    memcpy(k->text + k->n, value.p, value.n);
    k->n += value.n;
}

static struct str hashed(struct str s, const unsigned char hash_key[16], char out[20])
{
    uint64_t key[2];
    memcpy(key, hash_key, sizeof key);
    int n = snprintf(out, 20, "h:%016llx", (unsigned long long)hash_sip(s.p, s.n, key));
    return str_n(out, (size_t)n);
}

static struct str counter_key(const struct snap_policy *p, const struct admit_request *r,
                              const unsigned char hash_key[16], struct key_text *k)
{
    char hex[20];
    k->n = 0;
    for (size_t i = 0; i < p->per_n; i++) {
        switch (p->per[i]) {
        case SNAP_PER_NAMESPACE: add(k, "ns", r->ns->id); break;
        case SNAP_PER_KEY: add(k, "key", r->key != NULL ? r->key->id : STR_NULL); break;
        case SNAP_PER_MODEL:
            if (r->model_known != NULL)
                add(k, "model", r->model_known->id);
            else
                add(k, "model", r->model.n > 0 ? hashed(r->model, hash_key, hex) : STR_NULL);
            break;
        case SNAP_PER_UPSTREAM:
            add(k, "up", r->upstream != NULL ? r->upstream->id : STR_NULL);
            break;
        case SNAP_PER_IP:
        case SNAP_PER_USER:
        case SNAP_PER_HEADER: break;
        }
    }
    if (k->n == 0) add(k, "all", STR("1"));
    return str_n(k->text, k->n);
}

/* --- claims --- */

static void rule_of(const struct snap_policy *p, struct lease_rule *out)
{
    static const enum lease_away away[] = { [SNAP_SHARE] = LEASE_AWAY_SHARE,
                                            [SNAP_DENY] = LEASE_AWAY_DENY,
                                            [SNAP_ALLOW] = LEASE_AWAY_ALLOW };
    bool rate = p->kind == SNAP_REQUEST_RATE, bucket = rate && p->algorithm == SNAP_BUCKET;
    *out = (struct lease_rule){ .kind = rate ? LEASE_RATE : LEASE_SLOTS,
                                .away = away[p->on_unavailable],
                                .limit = p->limit,
                                .capacity = bucket ? p->burst : p->limit,
                                .window_ms = rate ? p->window_ms : 0,
                                .steady = rate && !bucket };
}

void admit_claim(struct lease_table *t, uint64_t now, const struct admit_request *r,
                 const unsigned char hash_key[16], struct lease_waiter *w)
{
    w->claims_n = 0;
    for (size_t i = 0; r->policies != NULL && i < r->policies->n; i++) {
        const struct snap_policy *p = r->policies->v[i];
        struct lease_rule rule;
        struct key_text k;
        if (!needs_lease(p) || !applies_to_model(p, r)) continue;
        ASSERT(w->claims_n < LEASE_MAX_CLAIMS);
        rule_of(p, &rule);
        w->claims[w->claims_n] = (struct lease_claim){ .owner = p,
                                                       .units = 1,
                                                       .shadow = p->shadow };
        w->claims_n++;
        lease_bind(t, now, w, w->claims_n - 1, p->id, counter_key(p, r, hash_key, &k), &rule);
    }
}

const char *admit_dimension_name(enum admit_dimension d)
{
    static const char *const names[] = { [ADMIT_REQUESTS] = "requests",
                                         [ADMIT_CONCURRENCY] = "concurrency",
                                         [ADMIT_TOKENS] = "tokens" };
    return d < ARRAY_LEN(names) ? names[d] : "unknown";
}

void admit_conclude(const struct lease_waiter *w, struct admit_outcome *out)
{
    static const enum admit_verdict verdicts[] = {
        [LEASE_VERDICT_OK] = ADMIT_OK,
        [LEASE_VERDICT_WAIT] = ADMIT_WAIT,
        [LEASE_VERDICT_REFUSED] = ADMIT_REFUSED,
        [LEASE_VERDICT_UNAVAILABLE] = ADMIT_UNAVAILABLE,
    };
    out->verdict = verdicts[w->verdict];
    out->decided_ns = w->decided_ns;
    out->shadow_refused = w->shadow_refused;
    out->unavailable_allowed = w->allowed;
    if (w->tightest < w->claims_n) {
        const struct snap_policy *p = w->claims[w->tightest].owner;
        const struct lease_view *v = &w->tightest_view;
        out->requests = (struct admit_rate){ true, p->limit, MIN(v->remaining, p->limit),
                                             v->reset_ms };
    }
    if (w->verdict != LEASE_VERDICT_REFUSED && w->verdict != LEASE_VERDICT_UNAVAILABLE) return;
    const struct snap_policy *p = w->claims[w->refused_by].owner;
    const struct lease_view *v = &w->refused_view;
    out->policy = p;
    out->dimension = p->kind == SNAP_CONCURRENCY ? ADMIT_CONCURRENCY : ADMIT_REQUESTS;
    out->limit = p->limit;
    out->used = p->limit - MIN(v->remaining, p->limit);
    out->for_good = w->verdict == LEASE_VERDICT_REFUSED && v->never;
    out->retry_after_ms = out->for_good ? 0 : MAX(v->retry_ms, UINT64_C(1));
    if (w->verdict == LEASE_VERDICT_UNAVAILABLE) out->retry_after_ms = 1000;
}
