/* SPDX-License-Identifier: Apache-2.0 */
/* See the header. */
#include "rules.h"

#include <stdlib.h>

#include "base/map.h"

enum { MAX_POLICIES = 1000000, MAX_ZONES = 1024 };
#define SECOND_US UINT64_C(1000000)

struct rules {
    struct arena arena; /* ids and patterns */
    uint64_t revision;
    struct map by_id; /* -> struct rule in v */
    struct rule *v;
    struct str *ids;
    struct rule_use *uses;
    size_t n;
    struct map zones; /* name -> struct zone */
    _Atomic unsigned refs;
};

static char unit_of(const struct snap_policy *p)
{
    if (p->kind == SNAP_CONCURRENCY) return 's';
    if (p->kind == SNAP_REQUEST_RATE) return 'r';
    if (p->kind == SNAP_QUOTA && p->unit == SNAP_UNIT_REQUESTS) return 'r';
    if (p->kind == SNAP_QUOTA && p->unit == SNAP_UNIT_COST) return 'c';
    return p->count == SNAP_COUNT_INPUT ? 'i' : p->count == SNAP_COUNT_OUTPUT ? 'o' : 't';
}

const char *rule_unit_name(const struct rule *r)
{
    switch (r->unit) {
    case 's': return "slots";
    case 't': return "tokens";
    case 'i': return "input_tokens";
    case 'o': return "output_tokens";
    case 'c': return "cost";
    default: return "requests";
    }
}

bool rule_of(const struct snap_policy *p, struct rule *ret)
{
    static const enum ledger_kind kinds[] = {
        [SNAP_BUCKET] = LEDGER_BUCKET, [SNAP_SLIDING] = LEDGER_SLIDING, [SNAP_FIXED] = LEDGER_FIXED
    };
    static const enum zone_period periods[] = { [SNAP_PERIOD_HOUR] = ZONE_HOUR,
                                                [SNAP_PERIOD_DAY] = ZONE_DAY,
                                                [SNAP_PERIOD_WEEK] = ZONE_WEEK,
                                                [SNAP_PERIOD_MONTH] = ZONE_MONTH };
    struct rule r = { .unit = unit_of(p),
                      .shares = p->on_unavailable == SNAP_SHARE,
                      .ledger = { .limit = p->limit } };
    if (!snap_policy_is_leased(p)) return false;
    if (p->kind == SNAP_CONCURRENCY) {
        r.ledger.kind = LEDGER_SLOTS;
        r.ledger.lease_us = lease_ttl_ms(0) * 1000;
    } else {
        r.ledger.kind = kinds[p->algorithm];
        r.ledger.burst = p->burst;
        r.ledger.window_us = p->window_ms * 1000;
        r.ledger.lease_us = lease_ttl_ms(p->window_ms) * 1000;
    }
    if (p->kind == SNAP_QUOTA) {
        r.durable = r.calendar = true;
        r.period = periods[p->period];
        (void)str_copyz(r.currency, sizeof r.currency, p->currency);
    }
    (void)str_copyz(r.slug, sizeof r.slug, p->slug);
    if (p->ns != NULL) (void)str_copyz(r.ns, sizeof r.ns, p->ns->id);
    *ret = r;
    return true;
}

static enum err zone_of(struct rules *r, struct str name, const struct zone **ret, struct why *why)
{
    struct zone *z = map_get(&r->zones, name);
    if (z == NULL) {
        enum err e = zone_load(name, &z);
        if (e == ERR_OK) e = map_put(&r->zones, name, z, NULL);
        if (e != ERR_OK)
            return why_set(why, e, "the time zone %.*s is not on this machine (is tzdata there?)",
                           STR_ARG(name));
    }
    *ret = z;
    return ERR_OK;
}

static enum err copy_models(struct rules *r, const struct snap_strings *from,
                            struct snap_strings *ret)
{
    struct str *v = from->n > 0 ? arena_calloc(&r->arena, from->n * sizeof *v) : NULL;
    if (from->n > 0 && v == NULL) return ERR_NOMEM;
    for (size_t i = 0; i < from->n; i++) {
        enum err e = arena_dup(&r->arena, from->v[i], &v[i]);
        if (e != ERR_OK) return e;
    }
    *ret = (struct snap_strings){ v, from->n };
    return ERR_OK;
}

/* Disabled ones too: an edge may not have heard of it yet. */
static enum err add(struct rules *r, const struct snap_policy *p, struct why *why)
{
    struct rule *rule = &r->v[r->n];
    enum err e;
    if (!rule_of(p, rule)) return ERR_OK;
    e = copy_models(r, &p->models, &rule->models);
    if (e == ERR_OK) e = arena_dup(&r->arena, p->id, &r->ids[r->n]);
    if (e == ERR_OK && rule->calendar) e = zone_of(r, p->timezone, &rule->zone, why);
    if (e == ERR_OK) e = map_put(&r->by_id, r->ids[r->n], rule, NULL);
    rule->use = &r->uses[r->n];
    if (e == ERR_OK) r->n++;
    if (e == ERR_NOMEM) (void)why_set(why, e, "out of memory for the policies");
    return e;
}

enum err rules_new(const struct snapshot *s, struct rules **ret, struct why *why)
{
    struct rules *r = calloc(1, sizeof *r);
    enum err e = ERR_OK;
    if (r == NULL) return why_set(why, ERR_NOMEM, "out of memory for the policies");
    atomic_init(&r->refs, 1);
    r->revision = s->revision;
    arena_init(&r->arena, SIZE_MAX / 2);
    map_init(&r->by_id, MAX_POLICIES);
    map_init(&r->zones, MAX_ZONES);
    r->v = calloc(s->policies_n + 1, sizeof *r->v);
    r->ids = calloc(s->policies_n + 1, sizeof *r->ids);
    r->uses = calloc(s->policies_n + 1, sizeof *r->uses);
    if (r->v == NULL || r->ids == NULL || r->uses == NULL)
        e = why_set(why, ERR_NOMEM, "out of memory");
    for (size_t i = 0; i < s->policies_n && e == ERR_OK; i++) e = add(r, &s->policies[i], why);
    if (e == ERR_OK)
        *ret = r;
    else
        rules_unref(r);
    return e;
}

struct rules *rules_ref(struct rules *r)
{
    atomic_fetch_add_explicit(&r->refs, 1, memory_order_relaxed);
    return r;
}

void rules_unref(struct rules *r)
{
    struct map_entry *it;
    if (r == NULL || atomic_fetch_sub_explicit(&r->refs, 1, memory_order_acq_rel) != 1) return;
    for (size_t i = 0; (it = map_next(&r->zones, &i)) != NULL;) zone_free(it->value);
    map_done(&r->zones);
    map_done(&r->by_id);
    free(r->v);
    free(r->ids);
    free(r->uses);
    arena_done(&r->arena);
    free(r);
}

const struct rule *rules_get(const struct rules *r, struct str policy)
{
    return map_get(&r->by_id, policy);
}

size_t rules_count(const struct rules *r)
{
    return r->n;
}

uint64_t rules_revision(const struct rules *r)
{
    return r->revision;
}

const struct rule *rules_next(const struct rules *r, size_t *i, struct str *ret_policy)
{
    if (*i >= r->n) return NULL;
    *ret_policy = r->ids[*i];
    return &r->v[(*i)++];
}

struct ledger_window rule_window(const struct rule *r, uint64_t wall_us)
{
    int64_t begin, end;
    if (r->ledger.kind != LEDGER_FIXED) return (struct ledger_window){ 0 };
    if (!r->calendar) return ledger_window_of(&r->ledger, wall_us);
    zone_window(r->zone, r->period, (int64_t)(wall_us / SECOND_US), &begin, &end);
    return (struct ledger_window){ .begin = (uint64_t)MAX(begin, INT64_C(0)) * SECOND_US,
                                   .end = (uint64_t)end * SECOND_US,
                                   .left_us = (uint64_t)end * SECOND_US - wall_us };
}
