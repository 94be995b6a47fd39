/* SPDX-License-Identifier: Apache-2.0 */
/* Questions as SQL, rows as JSON: see query.h. Values are always parameters. */
#include "query.h"

#include <stdio.h>

#include "base/clock.h"
#include "rollup.h"

enum { SQL_MAX = 8 * 1024, PARAMS_MAX = 24, SUMS = 9 };

/* The columns that are summed, in the order of the SELECT. */
static const char *const sums[SUMS] = { "requests",      "input_tokens",     "output_tokens",
                                        "cached_tokens", "reasoning_tokens", "duration_ms",
                                        "overhead_us",   "ttft_ms",          "ttft_count" };

static const char *const dim_columns[METRICS_DIM_MAX] = {
    [METRICS_DIM_NAMESPACE] = "COALESCE(n.slug, d.namespace_id)",
    [METRICS_DIM_MODEL] = "d.model",
    [METRICS_DIM_ROUTE] = "d.route",
    [METRICS_DIM_UPSTREAM] = "d.upstream",
    [METRICS_DIM_KEY] = "d.key_id",
    [METRICS_DIM_OUTCOME] = "d.outcome",
    [METRICS_DIM_STATUS] = "d.status",
};

/* A statement being made. */
struct sql {
    struct buf text;
    struct db_value params[PARAMS_MAX];
    size_t n;
    enum err e;
};

static void add(struct sql *s, const char *text)
{
    if (s->e == ERR_OK) s->e = buf_appendz(&s->text, text);
}

static void param(struct sql *s, struct db_value v)
{
    ASSERT(s->n < PARAMS_MAX);
    s->params[s->n++] = v;
}

static void param_ms(struct sql *s, uint64_t ms)
{
    param(s, DBV_INT(MIN(ms, (uint64_t)INT64_MAX)));
}

/* An output being made. */
struct out {
    struct buf *b;
    enum err e;
};

static void put(struct out *o, const char *fmt, ...) PRINTF_LIKE(2, 3);
static void put(struct out *o, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    if (o->e == ERR_OK) o->e = buf_vprintf(o->b, fmt, ap);
    va_end(ap);
}

static void put_json(struct out *o, struct str s)
{
    if (o->e == ERR_OK) o->e = buf_append_json(o->b, s);
}

static void put_ts(struct out *o, uint64_t ms)
{
    char ts[TIME_RFC3339_LEN + 1];
    time_rfc3339(ms * 1000000, ts);
    put(o, "\"%s\"", ts);
}

/* --- totals and series --- */

struct range {
    uint64_t from_ms, to_ms;
    unsigned step_s;
    bool all_time;
};

static bool aligned(const struct range *r, uint64_t step_ms)
{
    return r->from_ms % step_ms == 0 && r->to_ms % step_ms == 0;
}

static struct range totals_range(const struct metrics_query *q, uint64_t now_ms)
{
    struct range r = { q->from_ms, q->to_ms > 0 ? q->to_ms : now_ms + 60000, 60, false };
    if (q->from_ms == 0 && (q->to_ms == 0 || q->to_ms > now_ms + 60000)) {
        r.step_s = 0;
        r.all_time = true;
        return r;
    }
    if (aligned(&r, 86400000))
        r.step_s = 86400;
    else if (aligned(&r, 3600000))
        r.step_s = 3600;
    r.from_ms = r.from_ms / 60000 * 60000;
    r.to_ms = (r.to_ms + 59999) / 60000 * 60000;
    return r;
}

static enum err series_range(const struct metrics_query *q, uint64_t now_ms, struct range *ret,
                             struct why *why)
{
    struct range r = { q->from_ms, q->to_ms > 0 ? q->to_ms : now_ms + 1, q->step_s, false };
    if (r.from_ms == 0) { /* the last hour, two days, or two months */
        uint64_t back = r.step_s <= 60 ? 3600000u : r.step_s == 3600 ? 172800000u : 5184000000u;
        r.from_ms = r.to_ms > back ? r.to_ms - back : 0;
    }
    if (r.from_ms >= r.to_ms) return why_set(why, ERR_INVALID, "from must be before to");
    if (r.step_s == 0) {
        uint64_t span = r.to_ms - r.from_ms;
        r.step_s = span <= 6 * 3600000u ? 60 : span <= 7 * 86400000u ? 3600 : 86400;
    }
    uint64_t step_ms = (uint64_t)r.step_s * 1000;
    r.from_ms = r.from_ms / step_ms * step_ms;
    r.to_ms = (r.to_ms + step_ms - 1) / step_ms * step_ms;
    if ((r.to_ms - r.from_ms) / step_ms > METRICS_POINTS_MAX)
        return why_set(why, ERR_INVALID, "more than %d steps: take a longer one",
                       METRICS_POINTS_MAX);
    *ret = r;
    return ERR_OK;
}

/* A status to look for; what is none matches no row. */
static uint64_t status_of(struct str s)
{
    uint64_t status;
    return str_to_u64(s, &status) == ERR_OK && status <= 999 ? status : 1000;
}

static void add_filters(struct sql *s, const struct metrics_query *q)
{
    for (size_t i = 0; i < METRICS_DIM_MAX; i++) {
        if (q->filter[i].p == NULL) continue;
        if (i == METRICS_DIM_NAMESPACE) {
            add(s, " AND (n.slug = ? OR d.namespace_id = ?)");
            param(s, DBV_TEXT(q->filter[i]));
        } else if (i == METRICS_DIM_STATUS) {
            add(s, " AND d.status = ?");
            param(s, DBV_INT(status_of(q->filter[i])));
            continue;
        } else {
            add(s, " AND ");
            add(s, dim_columns[i]);
            add(s, " = ?");
        }
        param(s, DBV_TEXT(q->filter[i]));
    }
}

/* The columns that make a group; the currency comes last, so that the rows of one group stand
 * together. */
static void add_group_columns(struct sql *s, const struct metrics_query *q, bool series)
{
    if (series) add(s, "r.start_ms, ");
    for (size_t i = 0; i < METRICS_DIM_MAX; i++) {
        if (!q->group_by[i]) continue;
        add(s, dim_columns[i]);
        add(s, ", ");
    }
    add(s, "d.currency");
}

static void make_sums_sql(struct sql *s, const struct metrics_query *q, const struct range *r)
{
    char column[64];
    bool series = q->kind == METRICS_SERIES;
    add(s, "SELECT ");
    add_group_columns(s, q, series);
    add(s, ", CAST(SUM(r.cost_nano) AS SIGNED)");
    for (size_t i = 0; i < SUMS; i++) {
        (void)snprintf(column, sizeof column, ", CAST(SUM(r.%s) AS SIGNED)", sums[i]);
        add(s, column);
    }
    for (size_t i = 0; i < ROLLUP_BUCKETS; i++) {
        (void)snprintf(column, sizeof column, ", CAST(SUM(r.latency_%zu) AS SIGNED)", i);
        add(s, column);
    }
    add(s, " FROM usage_rollups r JOIN usage_dims d ON d.dim = r.dim "
           "LEFT JOIN usage_names n ON n.namespace_id = d.namespace_id WHERE r.step_s = ?");
    param(s, DBV_INT(r->step_s));
    if (!r->all_time) {
        add(s, " AND r.start_ms >= ? AND r.start_ms < ?");
        param_ms(s, r->from_ms);
        param_ms(s, r->to_ms);
    }
    add_filters(s, q);
    add(s, " GROUP BY ");
    add_group_columns(s, q, series);
    add(s, " ORDER BY ");
    add_group_columns(s, q, series);
    add(s, " LIMIT ?");
    param(s, DBV_INT(METRICS_ROWS_MAX + 1));
}

/* One group while its rows (one per currency) come in. */
struct group {
    bool open;
    struct buf key, cost; /* JSON: members that name it, and the list of costs */
    int64_t sums[SUMS], latency[ROLLUP_BUCKETS];
};

static void close_group(struct out *o, struct group *g, size_t *n)
{
    if (!g->open) return;
    put(o, "%s{", *n > 0 ? "," : "");
    if (o->e == ERR_OK) o->e = buf_append_str(o->b, buf_str(&g->key));
    for (size_t i = 0; i < SUMS; i++)
        put(o, "%s\"%s\":%lld", i > 0 || g->key.len > 0 ? "," : "", sums[i], (long long)g->sums[i]);
    put(o, ",\"cost\":[");
    if (o->e == ERR_OK) o->e = buf_append_str(o->b, buf_str(&g->cost));
    put(o, "],\"latency\":[");
    for (size_t i = 0; i < ROLLUP_BUCKETS; i++)
        put(o, "%s%lld", i > 0 ? "," : "", (long long)g->latency[i]);
    put(o, "]}");
    ++*n;
    g->open = false;
}

/* The members that name the group of this row; *ret_column: the one behind them. */
static enum err group_key(const struct metrics_query *q, const struct db_rows *rows, struct buf *b,
                          int *ret_column)
{
    struct out o = { b, ERR_OK };
    int column = 0;
    buf_clear(b);
    if (q->kind == METRICS_SERIES) {
        put(&o, "\"ts\":");
        put_ts(&o, (uint64_t)db_int(rows, column++));
    }
    for (size_t i = 0; i < METRICS_DIM_MAX; i++) {
        if (!q->group_by[i]) continue;
        put(&o, "%s\"%s\":", column > 0 ? "," : "", metrics_dim_name((enum metrics_dim)i));
        if (i == METRICS_DIM_STATUS)
            put(&o, "%lld", (long long)db_int(rows, column++));
        else
            put_json(&o, db_text(rows, column++));
    }
    *ret_column = column;
    return o.e;
}

static enum err add_row(struct out *o, const struct metrics_query *q, const struct db_rows *rows,
                        struct group *g, struct buf *key, size_t *n)
{
    int c;
    enum err e = group_key(q, rows, key, &c);
    if (e != ERR_OK) return e;
    if (!g->open || !str_eq(buf_str(key), buf_str(&g->key))) {
        close_group(o, g, n);
        buf_clear(&g->key);
        buf_clear(&g->cost);
        memset(g->sums, 0, sizeof g->sums);
        memset(g->latency, 0, sizeof g->latency);
        e = buf_append_str(&g->key, buf_str(key));
        if (e != ERR_OK) return e;
        g->open = true;
    }
    struct str currency = db_text(rows, c);
    if (currency.n > 0) {
        struct out cost = { &g->cost, ERR_OK };
        put(&cost, "%s{\"currency\":", g->cost.len > 0 ? "," : "");
        put_json(&cost, currency);
        put(&cost, ",\"nano\":%lld}", (long long)db_int(rows, c + 1));
        if (cost.e != ERR_OK) return cost.e;
    }
    for (int i = 0; i < SUMS; i++) g->sums[i] += db_int(rows, c + 2 + i);
    for (int i = 0; i < ROLLUP_BUCKETS; i++) g->latency[i] += db_int(rows, c + 2 + SUMS + i);
    return o->e;
}

static enum err put_groups(struct out *o, const struct metrics_query *q, struct db_rows *rows,
                           struct why *why)
{
    struct group g = { 0 };
    struct buf key;
    size_t n = 0, seen = 0;
    enum err e;
    buf_init(&key, 16 * 1024);
    buf_init(&g.key, 16 * 1024);
    buf_init(&g.cost, 64 * 1024);
    while ((e = db_rows_next(rows)) == ERR_OK) {
        if (++seen > METRICS_ROWS_MAX)
            e = why_set(why, ERR_LIMIT, "more than %d rows: ask for less", METRICS_ROWS_MAX);
        if (e == ERR_OK) e = add_row(o, q, rows, &g, &key, &n);
        if (e != ERR_OK) break;
    }
    if (e == ERR_NOT_FOUND) {
        e = ERR_OK;
        close_group(o, &g, &n);
    }
    buf_done(&key);
    buf_done(&g.key);
    buf_done(&g.cost);
    return e != ERR_OK ? e : o->e;
}

static enum err answer_sums(struct db *db, const struct metrics_query *q, uint64_t now_ms,
                            struct out *o, struct why *why)
{
    struct sql s = { .e = ERR_OK };
    struct range r = { 0 };
    struct db_rows *rows;
    enum err e = ERR_OK;
    if (q->kind == METRICS_SERIES)
        e = series_range(q, now_ms, &r, why);
    else
        r = totals_range(q, now_ms);
    if (e != ERR_OK) return e;
    buf_init(&s.text, SQL_MAX);
    make_sums_sql(&s, q, &r);
    e = s.e;
    if (e == ERR_OK) e = db_query(db, buf_z(&s.text), s.params, s.n, &rows, why);
    buf_done(&s.text);
    if (e != ERR_OK) return e;
    put(o, "{\"from\":");
    if (r.all_time)
        put(o, "null,\"to\":null");
    else
        put_ts(o, r.from_ms), put(o, ",\"to\":"), put_ts(o, r.to_ms);
    put(o, ",\"step\":%u,\"latency_bounds_ms\":[", r.step_s);
    for (size_t i = 0; i < ROLLUP_BUCKETS - 1; i++)
        put(o, "%s%u", i > 0 ? "," : "", rollup_bounds_ms[i]);
    put(o, "],\"%s\":[", q->kind == METRICS_SERIES ? "points" : "groups");
    e = put_groups(o, q, rows, why);
    db_rows_free(rows);
    put(o, "]}");
    return e;
}

/* --- records --- */

static void make_records_sql(struct sql *s, const struct metrics_query *q, unsigned limit)
{
    const struct str *f = q->filter;
    add(s, "SELECT r.id, r.client_ip, r.user_name, r.body FROM usage_records r "
           "LEFT JOIN usage_names n ON n.namespace_id = r.namespace_id WHERE r.id < ?");
    param(s, DBV_TEXT(q->cursor.n > 0 ? q->cursor : STR("g"))); /* behind every hexadecimal digit */
    if (f[METRICS_DIM_NAMESPACE].p != NULL) {
        add(s, " AND (n.slug = ? OR r.namespace_id = ?)");
        param(s, DBV_TEXT(f[METRICS_DIM_NAMESPACE]));
        param(s, DBV_TEXT(f[METRICS_DIM_NAMESPACE]));
    }
    if (f[METRICS_DIM_KEY].p != NULL) {
        add(s, " AND r.key_id = ?");
        param(s, DBV_TEXT(f[METRICS_DIM_KEY]));
    }
    if (f[METRICS_DIM_MODEL].p != NULL) {
        add(s, " AND r.model = ?");
        param(s, DBV_TEXT(f[METRICS_DIM_MODEL]));
    }
    if (f[METRICS_DIM_OUTCOME].p != NULL) {
        add(s, " AND r.outcome = ?");
        param(s, DBV_TEXT(f[METRICS_DIM_OUTCOME]));
    }
    if (f[METRICS_DIM_STATUS].p != NULL) {
        add(s, " AND r.status = ?");
        param(s, DBV_INT(status_of(f[METRICS_DIM_STATUS])));
    }
    if (q->from_ms > 0) {
        add(s, " AND r.ts_ms >= ?");
        param_ms(s, q->from_ms);
    }
    if (q->to_ms > 0) {
        add(s, " AND r.ts_ms < ?");
        param_ms(s, q->to_ms);
    }
    add(s, " ORDER BY r.id DESC LIMIT ?");
    param(s, DBV_INT(limit + 1));
}

/* The kept message with the client's data, as long as that is there. */
static void put_record(struct out *o, const struct db_rows *rows)
{
    struct str body = db_text(rows, 3), ip = db_text(rows, 1), user = db_text(rows, 2);
    if (body.n < 2) return;
    if (o->e == ERR_OK) o->e = buf_append(o->b, body.p, body.n - 1);
    if (ip.n > 0) put(o, ",\"client_ip\":"), put_json(o, ip);
    if (user.n > 0) put(o, ",\"user\":"), put_json(o, user);
    put(o, "}");
}

static enum err answer_records(struct db *db, const struct metrics_query *q, struct out *o,
                               struct why *why)
{
    struct sql s = { .e = ERR_OK };
    struct db_rows *rows;
    char last[64] = "";
    unsigned limit = q->limit > 0 ? q->limit : METRICS_LIMIT_DEFAULT, n = 0;
    bool more = false;
    buf_init(&s.text, SQL_MAX);
    make_records_sql(&s, q, limit);
    enum err e = s.e;
    if (e == ERR_OK) e = db_query(db, buf_z(&s.text), s.params, s.n, &rows, why);
    buf_done(&s.text);
    if (e != ERR_OK) return e;
    put(o, "{\"records\":[");
    while ((e = db_rows_next(rows)) == ERR_OK) {
        more = n == limit;
        if (more) break;
        put(o, "%s", n > 0 ? "," : "");
        put_record(o, rows);
        (void)str_copyz(last, sizeof last, db_text(rows, 0));
        n++;
    }
    db_rows_free(rows);
    if (more)
        put(o, "],\"next\":\"%s\"}", last);
    else
        put(o, "],\"next\":null}");
    return e == ERR_NOT_FOUND ? ERR_OK : e;
}

enum err query_answer(struct db *db, const struct metrics_query *q, uint64_t now_ms,
                      struct buf *out, struct why *why)
{
    struct out o = { out, ERR_OK };
    size_t start = out->len;
    enum err e = metrics_query_check(q, why);
    if (e != ERR_OK) return e;
    e = q->kind == METRICS_RECORDS ? answer_records(db, q, &o, why)
                                   : answer_sums(db, q, now_ms, &o, why);
    if (e == ERR_OK && o.e != ERR_OK)
        e = why_set(why, o.e, o.e == ERR_LIMIT ? "the answer is too long" : "no memory");
    if (e != ERR_OK) out->len = start;
    return e;
}
