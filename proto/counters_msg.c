/* SPDX-License-Identifier: Apache-2.0 */
/* The codec of looks at counters; see the header. Pure: any thread. */
#include "proto/counters_msg.h"

static const char *const ops[] = { [COUNTERS_LOOK] = "look", [COUNTERS_RESET] = "reset" };

enum err counters_ask_encode(const struct counters_ask *m, const struct clock *clock,
                             const struct rng *rng, const char *from, struct buf *out)
{
    struct json *o = envelope_new(clock, rng, from);
    json_setz(o, "op", ops[m->op]);
    json_set_str(o, "policy", m->policy);
    if (m->keys_n > 0) {
        struct json *keys = json_array();
        for (size_t i = 0; i < m->keys_n; i++) json_push_str(keys, m->keys[i]);
        json_set(o, "keys", keys);
    }
    if (m->cursor.n > 0) json_set_str(o, "cursor", m->cursor);
    if (m->limit > 0) json_set_u64(o, "limit", m->limit);
    enum err e = json_print(o, out);
    json_free(o);
    return e;
}

static enum err read_keys(struct counters_ask *m, struct why *why)
{
    const struct json *list = json_get(m->root, "keys");
    if (list == NULL) return ERR_OK;
    if (!json_is(list, JSON_ARRAY) || json_len(list) == 0 || json_len(list) > COUNTERS_KEYS_MAX)
        return why_set(why, ERR_INVALID, "keys: not a list of 1 to %d", COUNTERS_KEYS_MAX);
    for (const struct json *it = json_first(list); it != NULL; it = json_next(it)) {
        struct str key = json_str(it);
        if (key.p == NULL || key.n == 0 || key.n > LEASE_KEY_MAX)
            return why_set(why, ERR_INVALID, "keys: not a string of 1 to %d bytes", LEASE_KEY_MAX);
        m->keys[m->keys_n++] = key;
    }
    return ERR_OK;
}

static enum err read_rest(struct counters_ask *m, struct why *why)
{
    struct str op;
    uint64_t limit = 0;
    if (json_get_str(m->root, "op", &op) != ERR_OK) op = STR("");
    size_t k = 0;
    while (k < ARRAY_LEN(ops) && !str_eqz(op, ops[k])) k++;
    if (k == ARRAY_LEN(ops)) return why_set(why, ERR_INVALID, "op: must be look or reset");
    m->op = (enum counters_op)k;
    if (json_get_str(m->root, "from", &m->from) != ERR_OK) m->from = STR("");
    if (json_get_str(m->root, "policy", &m->policy) != ERR_OK || m->policy.n == 0 ||
        m->policy.n > LEASE_ID_MAX)
        return why_set(why, ERR_INVALID, "policy: not an identifier");
    enum err e = json_get_str(m->root, "cursor", &m->cursor);
    if (e == ERR_NOT_FOUND)
        m->cursor = STR("");
    else if (e != ERR_OK || m->cursor.n > 24)
        return why_set(why, ERR_INVALID, "cursor: none of ours");
    e = json_get_u64(m->root, "limit", &limit);
    if ((e != ERR_OK && e != ERR_NOT_FOUND) || limit > COUNTERS_PAGE_MAX)
        return why_set(why, ERR_INVALID, "limit: not a whole number up to %d", COUNTERS_PAGE_MAX);
    m->limit = limit;
    return read_keys(m, why);
}

enum err counters_ask_decode(struct str data, struct counters_ask *ret, struct why *why)
{
    struct counters_ask m = { .op = COUNTERS_LOOK };
    enum err e = envelope_parse(data, &m.root, why);
    if (e != ERR_OK) return e;
    e = read_rest(&m, why);
    if (e != ERR_OK) {
        json_free(m.root);
        return e;
    }
    *ret = m;
    return ERR_OK;
}

void counters_ask_done(struct counters_ask *m)
{
    json_free(m->root);
    *m = (struct counters_ask){ .op = COUNTERS_LOOK };
}
