/* SPDX-License-Identifier: Apache-2.0 */
/* See the header. */
#include "rebuild.h"

#include "proto/envelope.h"

/* The value of one source in a counter's key, such as "ns=<id>;key=<id>"; p == NULL: none, or "-".
 */
static struct str source_of(struct str key, const char *name)
{
    while (key.n > 0) {
        struct str part = str_cut(&key, ';'), word = str_cut(&part, '=');
        if (str_eqz(word, name)) return str_eqz(part, "-") ? STR_NULL : part;
    }
    return STR_NULL;
}

void rebuild_ask(const struct rule *r, struct str key, const struct ledger_window *w,
                 struct metrics_query *ret)
{
    struct str ns = source_of(key, "ns");
    if (ns.p == NULL && r->ns[0] != '\0') ns = str_of(r->ns);
    *ret = (struct metrics_query){ .kind = METRICS_TOTALS, .from_ms = w->begin / 1000 };
    ret->filter[METRICS_DIM_NAMESPACE] = ns;
    ret->filter[METRICS_DIM_KEY] = source_of(key, "key");
    ret->group_by[METRICS_DIM_OUTCOME] = true;
}

static uint64_t figure(const struct json *group, const char *name)
{
    uint64_t v;
    return json_get_u64(group, name, &v) == ERR_OK ? v : 0;
}

static uint64_t cost_of(const struct json *group, const char *currency)
{
    uint64_t sum = 0;
    const struct json *list = json_get(group, "cost");
    for (const struct json *it = json_first(list); it != NULL; it = json_next(it))
        if (str_eqz(json_str(json_get(it, "currency")), currency)) sum += figure(it, "nano");
    return sum;
}

static uint64_t used_of(const struct rule *r, const struct json *group)
{
    if (str_eqz(json_str(json_get(group, "outcome")), "rejected")) return 0;
    switch (r->unit) {
    case 'i': return figure(group, "input_tokens");
    case 'o': return figure(group, "output_tokens");
    case 't': return figure(group, "input_tokens") + figure(group, "output_tokens");
    case 'c': return cost_of(group, r->currency);
    default: return figure(group, "requests");
    }
}

enum err rebuild_answer(const struct rule *r, struct str reply, unsigned margin_percent,
                        uint64_t *ret_used, struct why *why)
{
    struct json *m;
    uint64_t used = 0, limit = r->ledger.limit;
    enum err e = envelope_parse(reply, &m, why);
    if (e != ERR_OK) return e;
    e = envelope_check_error(m, why);
    const struct json *groups = json_get(json_get(m, "result"), "groups");
    if (e == ERR_OK && !json_is(groups, JSON_ARRAY))
        e = why_set(why, ERR_INVALID, "the usage ledger's answer has no groups");
    for (const struct json *it = json_first(groups); it != NULL && e == ERR_OK; it = json_next(it))
        used += used_of(r, it);
    json_free(m);
    if (e == ERR_OK)
        *ret_used = used + limit / 100 * margin_percent + (limit % 100 * margin_percent + 99) / 100;
    return e;
}
