/* SPDX-License-Identifier: Apache-2.0 */
/* The codec of refusals; see the header. Pure: any thread. */
#include "proto/rejected_msg.h"

enum { TEXT_MAX = 128 };

enum err rejected_msg_encode(const struct rejected_msg *m, const struct clock *clock,
                             const struct rng *rng, const char *from, struct buf *out)
{
    struct json *o = envelope_new(clock, rng, from);
    json_set_str(o, "namespace", m->ns);
    json_set_str(o, "policy", m->policy);
    json_set_str(o, "slug", m->slug);
    json_set_str(o, "dimension", m->dimension);
    json_set_u64(o, "limit", m->limit);
    json_set_u64(o, "used", m->used);
    if (m->retry_ms > 0) json_set_u64(o, "retry_ms", m->retry_ms);
    if (m->for_good) json_set_bool(o, "for_good", true);
    if (m->shadow) json_set_bool(o, "shadow", true);
    if (m->unavailable) json_set_bool(o, "unavailable", true);
    json_set_u64(o, "count", MAX(m->count, UINT64_C(1)));
    enum err e = json_print(o, out);
    json_free(o);
    return e;
}

static enum err get_text(const struct json *o, const char *key, struct str *ret, struct why *why)
{
    if (json_get_str(o, key, ret) != ERR_OK || ret->n == 0 || ret->n > TEXT_MAX)
        return why_set(why, ERR_INVALID, "%s: not a string of 1 to %d bytes", key, TEXT_MAX);
    return ERR_OK;
}

static enum err get_count(const struct json *o, const char *key, bool required, uint64_t *ret,
                          struct why *why)
{
    enum err e = json_get_u64(o, key, ret);
    if (e == ERR_NOT_FOUND && !required) return ERR_OK;
    return e == ERR_OK ? ERR_OK : why_set(why, ERR_INVALID, "%s: not a whole number", key);
}

static enum err get_flag(const struct json *o, const char *key, bool *ret, struct why *why)
{
    enum err e = json_get_bool(o, key, ret);
    if (e == ERR_OK || e == ERR_NOT_FOUND) return ERR_OK;
    return why_set(why, ERR_INVALID, "%s: not true or false", key);
}

enum err rejected_msg_decode(struct str data, struct rejected_msg *ret, struct why *why)
{
    struct rejected_msg m = { 0 };
    enum err e = envelope_parse(data, &m.root, why);
    if (e != ERR_OK) return e;
    e = get_text(m.root, "from", &m.from, why);
    if (e == ERR_OK) e = get_text(m.root, "namespace", &m.ns, why);
    if (e == ERR_OK) e = get_text(m.root, "policy", &m.policy, why);
    if (e == ERR_OK) e = get_text(m.root, "slug", &m.slug, why);
    if (e == ERR_OK) e = get_text(m.root, "dimension", &m.dimension, why);
    if (e == ERR_OK) e = get_count(m.root, "limit", true, &m.limit, why);
    if (e == ERR_OK) e = get_count(m.root, "used", true, &m.used, why);
    if (e == ERR_OK) e = get_count(m.root, "retry_ms", false, &m.retry_ms, why);
    if (e == ERR_OK) e = get_count(m.root, "count", true, &m.count, why);
    if (e == ERR_OK) e = get_flag(m.root, "for_good", &m.for_good, why);
    if (e == ERR_OK) e = get_flag(m.root, "shadow", &m.shadow, why);
    if (e == ERR_OK) e = get_flag(m.root, "unavailable", &m.unavailable, why);
    if (e == ERR_OK && m.count == 0) e = why_set(why, ERR_INVALID, "count: must be at least 1");
    if (e != ERR_OK) {
        rejected_msg_done(&m);
        return e;
    }
    *ret = m;
    return ERR_OK;
}

void rejected_msg_done(struct rejected_msg *m)
{
    json_free(m->root);
    *m = (struct rejected_msg){ 0 };
}
