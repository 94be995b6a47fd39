/* SPDX-License-Identifier: Apache-2.0 */
#include "proto/query_msg.h"

#include <stdio.h>

#include "base/uuid.h"
#include "proto/usage_msg.h"

static const char *const dim_names[METRICS_DIM_MAX] = {
#define X(symbol, word) word,
    METRICS_DIMS(X)
#undef X
};
static const char *const kind_names[] = { "totals", "series", "records" };

const char *metrics_dim_name(enum metrics_dim d)
{
    ASSERT(d < METRICS_DIM_MAX);
    return dim_names[d];
}

static enum err find_dim(struct str s, size_t *ret)
{
    for (size_t i = 0; i < METRICS_DIM_MAX; i++) {
        if (!str_eqz(s, dim_names[i])) continue;
        *ret = i;
        return ERR_OK;
    }
    return ERR_NOT_FOUND;
}

enum err metrics_group_by_parse(struct str s, bool ret[METRICS_DIM_MAX], struct why *why)
{
    bool set[METRICS_DIM_MAX] = { false };
    while (s.p != NULL && s.n > 0) {
        struct str word = str_trim(str_cut(&s, ','));
        size_t i;
        if (find_dim(word, &i) != ERR_OK)
            return why_set(why, ERR_INVALID,
                           "group_by: %.*s is not one of namespace, model, "
                           "route, upstream, key_id, outcome, status",
                           (int)MIN(word.n, (size_t)40), word.p != NULL ? word.p : "");
        set[i] = true;
    }
    memcpy(ret, set, sizeof set);
    return ERR_OK;
}

enum err metrics_step_parse(struct str s, unsigned *ret_s)
{
    static const struct {
        const char *word;
        unsigned s;
    } steps[] = { { "1m", 60 }, { "1h", 3600 },   { "1d", 86400 },
                  { "60", 60 }, { "3600", 3600 }, { "86400", 86400 } };
    for (size_t i = 0; i < ARRAY_LEN(steps); i++) {
        if (!str_eqz(s, steps[i].word)) continue;
        *ret_s = steps[i].s;
        return ERR_OK;
    }
    return ERR_INVALID;
}

enum err metrics_time_parse(struct str s, uint64_t *ret_ms)
{
    uint64_t ms;
    if (str_to_u64(s, &ms) != ERR_OK && usage_parse_ts(s, &ms) != ERR_OK) return ERR_INVALID;
    if (ms > UINT64_MAX / 1000000 - 86400000u) return ERR_INVALID; /* as nanoseconds, with room */
    *ret_ms = ms;
    return ERR_OK;
}

enum err metrics_query_check(const struct metrics_query *q, struct why *why)
{
    if (q->from_ms > 0 && q->to_ms > 0 && q->from_ms >= q->to_ms)
        return why_set(why, ERR_INVALID, "from must be before to");
    if (q->step_s != 0 && q->step_s != 60 && q->step_s != 3600 && q->step_s != 86400)
        return why_set(why, ERR_INVALID, "step must be 1m, 1h or 1d");
    if (q->limit > METRICS_LIMIT_MAX)
        return why_set(why, ERR_INVALID, "limit must be at most %d", METRICS_LIMIT_MAX);
    if (q->cursor.n > 0 && !uuid_is_valid(q->cursor))
        return why_set(why, ERR_INVALID, "cursor is none that was given out");
    if (q->kind == METRICS_RECORDS &&
        (q->filter[METRICS_DIM_ROUTE].p != NULL || q->filter[METRICS_DIM_UPSTREAM].p != NULL))
        return why_set(why, ERR_INVALID,
                       "records are filtered by namespace, model, key_id, outcome and status");
    return ERR_OK;
}

/* --- the message --- */

static void set_time(struct json *o, const char *key, uint64_t ms)
{
    char ts[TIME_RFC3339_LEN + 1];
    if (ms == 0) return;
    time_rfc3339(ms * 1000000, ts);
    json_setz(o, key, ts);
}

void metrics_query_encode(const struct metrics_query *q, struct json *message)
{
    struct json *filter = json_object(), *group_by = json_array();
    json_setz(message, "kind", kind_names[q->kind]);
    for (size_t i = 0; i < METRICS_DIM_MAX; i++) {
        if (q->filter[i].p != NULL) json_set_str(filter, dim_names[i], q->filter[i]);
        if (q->group_by[i]) json_push_str(group_by, str_of(dim_names[i]));
    }
    json_set(message, "filter", filter);
    json_set(message, "group_by", group_by);
    set_time(message, "from_ts", q->from_ms);
    set_time(message, "to_ts", q->to_ms);
    if (q->step_s > 0)
        json_setz(message, "step", q->step_s == 60 ? "1m" : q->step_s == 3600 ? "1h" : "1d");
    if (q->limit > 0) json_set_u64(message, "limit", q->limit);
    if (q->cursor.n > 0) json_set_str(message, "cursor", q->cursor);
}

static enum err get_text(const struct json *o, const char *key, struct arena *arena,
                         struct str *ret, struct why *why)
{
    struct str s;
    enum err e = json_get_str(o, key, &s);
    if (e == ERR_NOT_FOUND) return ERR_OK;
    if (e != ERR_OK || s.n > USAGE_TEXT_MAX)
        return why_set(why, ERR_INVALID, "%s: not a string, or too long", key);
    return arena_dup(arena, s, ret);
}

static enum err get_time(const struct json *o, const char *key, uint64_t *ret, struct why *why)
{
    struct str s;
    enum err e = json_get_str(o, key, &s);
    if (e == ERR_NOT_FOUND) return ERR_OK;
    if (e != ERR_OK || metrics_time_parse(s, ret) != ERR_OK)
        return why_set(why, ERR_INVALID, "%s: not RFC 3339 in UTC", key);
    return ERR_OK;
}

static enum err get_kind(const struct json *o, enum metrics_kind *ret, struct why *why)
{
    struct str kind = json_str(json_get(o, "kind"));
    for (size_t i = 0; i < ARRAY_LEN(kind_names); i++) {
        if (!str_eqz(kind, kind_names[i])) continue;
        *ret = (enum metrics_kind)i;
        return ERR_OK;
    }
    return why_set(why, ERR_INVALID, "kind: neither totals, series nor records");
}

static enum err get_group_by(const struct json *o, bool ret[METRICS_DIM_MAX], struct why *why)
{
    const struct json *list = json_get(o, "group_by");
    if (list == NULL || json_is(list, JSON_NULL)) return ERR_OK;
    if (!json_is(list, JSON_ARRAY)) return why_set(why, ERR_INVALID, "group_by: not a list");
    for (const struct json *n = json_first(list); n != NULL; n = json_next(n)) {
        size_t i;
        if (find_dim(json_str(n), &i) != ERR_OK)
            return why_set(why, ERR_INVALID, "group_by: holds an unknown word");
        ret[i] = true;
    }
    return ERR_OK;
}

static enum err get_filter(const struct json *o, struct arena *arena, struct metrics_query *q,
                           struct why *why)
{
    const struct json *filter = json_get(o, "filter");
    enum err e = ERR_OK;
    if (filter == NULL || json_is(filter, JSON_NULL)) return ERR_OK;
    if (!json_is(filter, JSON_OBJECT)) return why_set(why, ERR_INVALID, "filter: not an object");
    for (size_t i = 0; i < METRICS_DIM_MAX && e == ERR_OK; i++)
        e = get_text(filter, dim_names[i], arena, &q->filter[i], why);
    return e;
}

enum err metrics_query_decode(const struct json *message, struct arena *arena,
                              struct metrics_query *ret, struct why *why)
{
    struct metrics_query q = { 0 };
    struct str step = STR_NULL;
    uint64_t limit = 0;
    enum err e = get_kind(message, &q.kind, why);
    if (e == ERR_OK) e = get_filter(message, arena, &q, why);
    if (e == ERR_OK) e = get_group_by(message, q.group_by, why);
    if (e == ERR_OK) e = get_time(message, "from_ts", &q.from_ms, why);
    if (e == ERR_OK) e = get_time(message, "to_ts", &q.to_ms, why);
    if (e == ERR_OK) e = get_text(message, "step", arena, &step, why);
    if (e == ERR_OK && step.n > 0 && metrics_step_parse(step, &q.step_s) != ERR_OK)
        e = why_set(why, ERR_INVALID, "step: neither 1m, 1h nor 1d");
    if (e == ERR_OK) e = get_text(message, "cursor", arena, &q.cursor, why);
    if (e != ERR_OK) return e;
    e = json_get_u64(message, "limit", &limit);
    if ((e != ERR_OK && e != ERR_NOT_FOUND) || limit > METRICS_LIMIT_MAX)
        return why_set(why, ERR_INVALID, "limit: not a number up to %d", METRICS_LIMIT_MAX);
    q.limit = (unsigned)limit;
    e = metrics_query_check(&q, why);
    if (e == ERR_OK) *ret = q;
    return e;
}
