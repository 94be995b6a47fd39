/* SPDX-License-Identifier: Apache-2.0 */
/* See the header. On the request's worker. */
#include "admit_local.h"

#include "admit_list.h"

/* Each policy of a kind that is for the model; l may be NULL. */
#define EACH_POLICY(p, l, of_kind)                        \
    for (size_t i_ = 0; (l) != NULL && i_ < (l)->n; i_++) \
        for (const struct snap_policy *p = (l)->v[i_]; p != NULL && p->kind == (of_kind); p = NULL)

static bool model_is(const struct snap_strings *patterns, const struct admit_subject *s)
{
    for (size_t i = 0; i < patterns->n; i++) {
        struct str pattern = patterns->v[i];
        if (s->model.n > 0 && snap_glob(pattern, s->model, true)) return true;
        if (s->model_known == NULL) continue;
        if (snap_glob(pattern, s->model_known->name, true) ||
            snap_glob(pattern, s->model_known->slug, true))
            return true;
    }
    return false;
}

bool admit_is_for_model(const struct snap_policy *p, const struct admit_subject *s)
{
    return p->models.n == 0 || model_is(&p->models, s);
}

static void refuses(struct admit_check *c, const struct snap_policy *p, uint64_t used)
{
    if (p->shadow) {
        if (c->shadow_n < ADMIT_SHADOW_MAX) c->shadow[c->shadow_n++] = p;
    } else if (c->policy == NULL) {
        c->policy = p;
        c->used = used;
    }
}

/* --- sizes --- */

bool admit_body_bound(const struct admit_list *l, const struct snap_policy **ret)
{
    const struct snap_policy *least = NULL;
    EACH_POLICY(p, l, SNAP_BODY_SIZE)
    {
        if (p->shadow || p->models.n > 0) continue;
        if (least == NULL || p->limit < least->limit) least = p;
    }
    if (least != NULL) *ret = least;
    return least != NULL;
}

static void check_size(const struct admit_list *l, enum snap_policy_kind kind,
                       const struct admit_subject *s, uint64_t n, struct admit_check *ret)
{
    *ret = (struct admit_check){ .policy = NULL };
    EACH_POLICY(p, l, kind)
    {
        if (n > p->limit && admit_is_for_model(p, s)) refuses(ret, p, n);
    }
}

void admit_body_size(const struct admit_list *l, const struct admit_subject *s, uint64_t bytes,
                     struct admit_check *ret)
{
    check_size(l, SNAP_BODY_SIZE, s, bytes, ret);
}

void admit_input_tokens(const struct admit_list *l, const struct admit_subject *s, uint64_t tokens,
                        struct admit_check *ret)
{
    check_size(l, SNAP_INPUT_TOKENS, s, tokens, ret);
}

void admit_output_tokens(const struct admit_list *l, const struct admit_subject *s,
                         const struct snap_policy **ret, const struct snap_policy **ret_shadow)
{
    *ret = *ret_shadow = NULL;
    EACH_POLICY(p, l, SNAP_OUTPUT_TOKENS)
    {
        const struct snap_policy **least = p->shadow ? ret_shadow : ret;
        if (admit_is_for_model(p, s) && (*least == NULL || p->limit < (*least)->limit)) *least = p;
    }
}

/* --- access --- */

enum answer { NO, YES, PENDING };

static bool any(const struct snap_strings *patterns, struct str s)
{
    if (patterns->n == 0) return true;
    for (size_t i = 0; i < patterns->n; i++)
        if (snap_glob(patterns->v[i], s, false)) return true;
    return false;
}

static bool from_network(const struct snap_rule *r, const struct admit_subject *s)
{
    if (r->networks_n == 0) return true;
    for (size_t i = 0; i < r->networks_n && s->has_address; i++)
        if (snap_network_has(&r->networks[i], s->address)) return true;
    return false;
}

static enum answer matches(const struct snap_rule *r, const struct admit_subject *s,
                           struct str method, struct str path, bool model_pending)
{
    if (!any(&r->methods, method) || !any(&r->paths, path) || !from_network(r, s)) return NO;
    if (r->models.n == 0) return YES;
    if (model_pending) return PENDING;
    return model_is(&r->models, s) ? YES : NO;
}

/* NO: refused. */
static enum answer allows(const struct snap_policy *p, const struct admit_subject *s,
                          struct str method, struct str path, bool model_pending)
{
    if (p->models.n > 0 && model_pending) return PENDING;
    if (!admit_is_for_model(p, s)) return YES;
    for (size_t i = 0; i < p->rules_n; i++) {
        enum answer a = matches(&p->rules[i], s, method, path, model_pending);
        if (a == PENDING) return PENDING;
        if (a == YES) return p->rules[i].allow ? YES : NO;
    }
    return p->otherwise_allow ? YES : NO;
}

void admit_access(const struct admit_list *l, const struct admit_subject *s, struct str method,
                  struct str path, bool model_pending, struct admit_check *ret)
{
    *ret = (struct admit_check){ .policy = NULL };
    EACH_POLICY(p, l, SNAP_ACCESS)
    {
        if (allows(p, s, method, path, model_pending) == NO) refuses(ret, p, 1);
    }
}
