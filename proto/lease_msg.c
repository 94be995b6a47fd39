/* SPDX-License-Identifier: Apache-2.0 */
/* The lease protocol's codecs; the contract is in the header. Pure: any thread. */
#include "proto/lease_msg.h"

#include <stdlib.h>

static const char *const op_names[LEASE_OP_MAX] = {
    [LEASE_ASK] = "ask",
    [LEASE_RENEW] = "renew",
    [LEASE_RETURN] = "return",
    [LEASE_SETTLE] = "settle",
};

static const char *const status_names[LEASE_STATUS_MAX] = {
    [LEASE_GRANTED] = "granted",
    [LEASE_REFUSED] = "refused",
    [LEASE_NEVER] = "never",
    [LEASE_ENDED] = "ended",
    [LEASE_UNKNOWN_POLICY] = "unknown_policy",
    [LEASE_STALE_EPOCH] = "stale_epoch",
    [LEASE_WARMING] = "warming",
    [LEASE_UNAVAILABLE] = "unavailable",
    [LEASE_INVALID] = "invalid",
};

const char *lease_op_name(enum lease_op_kind k)
{
    return k < LEASE_OP_MAX ? op_names[k] : "unknown";
}

const char *lease_status_name(enum lease_status s)
{
    return s < LEASE_STATUS_MAX ? status_names[s] : "unknown";
}

uint64_t lease_ttl_ms(uint64_t window_ms)
{
    if (window_ms == 0) return LEASE_TTL_MS;
    return MAX(MIN(window_ms / LEASE_TTL_PARTS, (uint64_t)LEASE_TTL_MS),
               (uint64_t)LEASE_TTL_MIN_MS);
}

/* --- encoding --- */

static void set_units(struct json *o, const char *key, uint64_t v)
{
    if (v != 0) json_set_u64(o, key, MIN(v, LEASE_UNITS_MAX));
}

static enum err print_and_free(struct json *m, struct buf *out)
{
    enum err e = json_print(m, out);
    json_free(m);
    return e;
}

enum err lease_ask_encode(const struct lease_ask *m, const struct clock *clock,
                          const struct rng *rng, const char *from, char *ret_id, struct buf *out)
{
    if (m->ops_n > LEASE_MAX_OPS) return ERR_LIMIT;
    struct json *root = envelope_new(clock, rng, from), *ops = json_array();
    json_set_str(root, "incarnation", m->incarnation);
    json_set_str(root, "epoch", m->epoch.n == 0 ? STR("") : m->epoch);
    json_set_u64(root, "revision", m->revision);
    if (m->leaving) json_set_bool(root, "leaving", true);
    for (size_t i = 0; i < m->ops_n; i++) {
        const struct lease_op *op = &m->ops[i];
        struct json *o = json_object();
        json_setz(o, "op", lease_op_name(op->kind));
        json_set_str(o, "policy", op->policy);
        json_set_str(o, "key", op->key);
        json_set_str(o, "lease", op->lease);
        set_units(o, "known", op->known);
        set_units(o, "want", op->want);
        set_units(o, "ahead", op->ahead);
        if (op->min > 1) set_units(o, "min", op->min);
        set_units(o, "spent", op->spent);
        set_units(o, "returned", op->returned);
        set_units(o, "debt", op->debt);
        json_push(ops, o);
    }
    json_set(root, "ops", ops);
    if (ret_id != NULL) {
        struct str id = json_str(json_get(root, "id"));
        (void)str_copyz(ret_id, 37, id);
    }
    return print_and_free(root, out);
}

enum err lease_reply_encode(const struct lease_reply *m, const struct clock *clock,
                            const struct rng *rng, const char *from, struct buf *out)
{
    if (m->results_n > LEASE_MAX_OPS) return ERR_LIMIT;
    struct json *root = envelope_new(clock, rng, from), *results = json_array();
    json_set_str(root, "re", m->re);
    json_set_str(root, "epoch", m->epoch);
    json_set_u64(root, "edges", m->edges);
    json_set_u64(root, "revision", m->revision);
    for (size_t i = 0; i < m->results_n; i++) {
        const struct lease_result *r = &m->results[i];
        struct json *o = json_object();
        json_setz(o, "status", lease_status_name(r->status));
        json_set_str(o, "lease", r->lease);
        set_units(o, "granted", r->granted);
        set_units(o, "ttl_ms", r->ttl_ms);
        set_units(o, "limit", r->limit);
        set_units(o, "remaining", r->remaining);
        set_units(o, "reset_ms", r->reset_ms);
        set_units(o, "retry_ms", r->retry_ms);
        set_units(o, "share", r->share);
        json_push(results, o);
    }
    json_set(root, "results", results);
    return print_and_free(root, out);
}

/* --- decoding --- */

/* A string member of min..max bytes. */
static enum err get_text(const struct json *o, const char *key, size_t min, size_t max,
                         struct str *ret, struct why *why)
{
    struct str s;
    if (json_get_str(o, key, &s) != ERR_OK)
        return why_set(why, ERR_INVALID, "%s: missing or not a string", key);
    if (s.n < min || s.n > max)
        return why_set(why, ERR_INVALID, "%s: %zu bytes, allowed are %zu to %zu", key, s.n, min,
                       max);
    *ret = s;
    return ERR_OK;
}

/* A count that may be absent. */
static enum err get_units(const struct json *o, const char *key, uint64_t *ret, struct why *why)
{
    uint64_t v = 0;
    enum err e = json_get_u64(o, key, &v);
    if (e == ERR_NOT_FOUND) v = 0;
    if ((e != ERR_OK && e != ERR_NOT_FOUND) || v > LEASE_UNITS_MAX)
        return why_set(why, ERR_INVALID, "%s: not a whole number up to 2^53", key);
    *ret = v;
    return ERR_OK;
}

static enum err get_list(const struct json *root, const char *key, const struct json **ret,
                         struct why *why)
{
    const struct json *list = json_get(root, key);
    if (!json_is(list, JSON_ARRAY)) return why_set(why, ERR_INVALID, "%s: not a list", key);
    if (json_len(list) > LEASE_MAX_OPS)
        return why_set(why, ERR_LIMIT, "%s: more than %d", key, LEASE_MAX_OPS);
    *ret = list;
    return ERR_OK;
}

static enum err decode_op(const struct json *o, struct lease_op *ret, struct why *why)
{
    struct lease_op op = { .kind = LEASE_OP_MAX };
    struct str word;
    enum err e = get_text(o, "op", 1, LEASE_ID_MAX, &word, why);
    for (int k = 0; e == ERR_OK && k < LEASE_OP_MAX; k++)
        if (str_eqz(word, op_names[k])) op.kind = (enum lease_op_kind)k;
    if (e == ERR_OK) e = get_text(o, "policy", 1, LEASE_ID_MAX, &op.policy, why);
    if (e == ERR_OK) e = get_text(o, "key", 1, LEASE_KEY_MAX, &op.key, why);
    if (e == ERR_OK) e = get_text(o, "lease", 1, LEASE_ID_MAX, &op.lease, why);
    if (e == ERR_OK) e = get_units(o, "known", &op.known, why);
    if (e == ERR_OK) e = get_units(o, "want", &op.want, why);
    if (e == ERR_OK) e = get_units(o, "ahead", &op.ahead, why);
    if (e == ERR_OK) e = get_units(o, "min", &op.min, why);
    if (e == ERR_OK) e = get_units(o, "spent", &op.spent, why);
    if (e == ERR_OK) e = get_units(o, "returned", &op.returned, why);
    if (e == ERR_OK) e = get_units(o, "debt", &op.debt, why);
    if (e != ERR_OK) return e;
    if (op.min == 0) op.min = 1;
    *ret = op;
    return ERR_OK;
}

enum err lease_ask_decode(struct str data, struct lease_ask *ret, struct why *why)
{
    struct lease_ask m = { 0 };
    const struct json *list = NULL;
    enum err e = envelope_parse(data, &m.root, why);
    if (e != ERR_OK) return e;
    e = get_text(m.root, "id", 1, LEASE_ID_MAX, &m.id, why);
    if (e == ERR_OK) e = get_text(m.root, "from", 1, LEASE_ID_MAX, &m.from, why);
    if (e == ERR_OK) e = get_text(m.root, "incarnation", 1, LEASE_ID_MAX, &m.incarnation, why);
    if (e == ERR_OK) e = get_text(m.root, "epoch", 0, LEASE_ID_MAX, &m.epoch, why);
    if (e == ERR_OK) e = get_units(m.root, "revision", &m.revision, why);
    if (e == ERR_OK && json_get_bool(m.root, "leaving", &m.leaving) == ERR_INVALID)
        e = why_set(why, ERR_INVALID, "leaving: not true or false");
    if (e == ERR_OK) e = get_list(m.root, "ops", &list, why);
    if (e == ERR_OK && json_len(list) > 0) {
        m.ops = calloc(json_len(list), sizeof *m.ops);
        if (m.ops == NULL) e = ERR_NOMEM;
        for (const struct json *o = json_first(list); o != NULL && e == ERR_OK; o = json_next(o)) {
            e = decode_op(o, &m.ops[m.ops_n], why);
            if (e == ERR_OK) m.ops_n++;
        }
    }
    if (e != ERR_OK) {
        lease_ask_done(&m);
        return e;
    }
    *ret = m;
    return ERR_OK;
}

void lease_ask_done(struct lease_ask *m)
{
    free(m->ops);
    json_free(m->root);
    *m = (struct lease_ask){ 0 };
}

static enum err decode_result(const struct json *o, struct lease_result *ret, struct why *why)
{
    struct lease_result r = { .status = LEASE_STATUS_MAX };
    struct str word;
    enum err e = get_text(o, "status", 1, LEASE_ID_MAX, &word, why);
    for (int s = 0; e == ERR_OK && s < LEASE_STATUS_MAX; s++)
        if (str_eqz(word, status_names[s])) r.status = (enum lease_status)s;
    if (e == ERR_OK && r.status == LEASE_STATUS_MAX)
        e = why_set(why, ERR_INVALID, "status: unknown word");
    if (e == ERR_OK) e = get_text(o, "lease", 1, LEASE_ID_MAX, &r.lease, why);
    if (e == ERR_OK) e = get_units(o, "granted", &r.granted, why);
    if (e == ERR_OK) e = get_units(o, "ttl_ms", &r.ttl_ms, why);
    if (e == ERR_OK) e = get_units(o, "limit", &r.limit, why);
    if (e == ERR_OK) e = get_units(o, "remaining", &r.remaining, why);
    if (e == ERR_OK) e = get_units(o, "reset_ms", &r.reset_ms, why);
    if (e == ERR_OK) e = get_units(o, "retry_ms", &r.retry_ms, why);
    if (e == ERR_OK) e = get_units(o, "share", &r.share, why);
    if (e == ERR_OK) *ret = r;
    return e;
}

enum err lease_reply_decode(struct str data, struct lease_reply *ret, struct why *why)
{
    struct lease_reply m = { 0 };
    const struct json *list = NULL;
    enum err e = envelope_parse(data, &m.root, why);
    if (e != ERR_OK) return e;
    e = envelope_check_error(m.root, why);
    if (e == ERR_OK) e = get_text(m.root, "re", 1, LEASE_ID_MAX, &m.re, why);
    if (e == ERR_OK) e = get_text(m.root, "epoch", 1, LEASE_ID_MAX, &m.epoch, why);
    if (e == ERR_OK) e = get_units(m.root, "edges", &m.edges, why);
    if (e == ERR_OK) e = get_units(m.root, "revision", &m.revision, why);
    if (e == ERR_OK) e = get_list(m.root, "results", &list, why);
    if (e == ERR_OK && json_len(list) > 0) {
        m.results = calloc(json_len(list), sizeof *m.results);
        if (m.results == NULL) e = ERR_NOMEM;
        for (const struct json *o = json_first(list); o != NULL && e == ERR_OK; o = json_next(o)) {
            e = decode_result(o, &m.results[m.results_n], why);
            if (e == ERR_OK) m.results_n++;
        }
    }
    if (e != ERR_OK) {
        lease_reply_done(&m);
        return e;
    }
    *ret = m;
    return ERR_OK;
}

void lease_reply_done(struct lease_reply *m)
{
    free(m->results);
    json_free(m->root);
    *m = (struct lease_reply){ 0 };
}
