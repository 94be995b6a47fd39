/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The fleet's metrics, from the ledger: totals of all time, so that restarts keep them and every
 * instance of aigw-metrics shows the same (take the maximum over instances, not the sum). Label
 * sets are bounded by the table in main.c; what does not fit is under "other".
 *
 * Runs at a scrape, on the thread that serves it, under the state's lock.
 */
#include <stdio.h>
#include <stdlib.h>

#include "metrics.h"

enum { REFRESH_MS = 1000, LABEL = 256 };

/* Series are set, not added to: rows that share one (those under "other") are added up first. */
struct sums {
    struct map by_series; /* address of the series -> struct sum */
};
struct sum {
    struct metric *series;
    double value;
};

static void add(struct sums *s, struct metric *series, double v)
{
    struct str key = str_n((const char *)&series, sizeof series);
    struct sum *sum = map_get(&s->by_series, key);
    if (sum == NULL) {
        sum = xcalloc(1, sizeof *sum);
        sum->series = series;
        if (map_put(&s->by_series, key, sum, NULL) != ERR_OK) {
            free(sum);
            return;
        }
    }
    sum->value += v;
}

static void set_all(struct sums *s)
{
    size_t i = 0;
    struct map_entry *e;
    while ((e = map_next(&s->by_series, &i)) != NULL) {
        struct sum *sum = e->value;
        metric_set(sum->series, sum->value);
        free(sum);
    }
    map_done(&s->by_series);
}

static const char requests_sql[] =
    "SELECT COALESCE(n.slug, d.namespace_id), d.route, d.model, d.upstream, d.status, d.outcome, "
    "CAST(SUM(r.requests) AS SIGNED), CAST(SUM(r.duration_ms) AS SIGNED), "
    "CAST(SUM(r.ttft_ms) AS SIGNED), CAST(SUM(r.ttft_count) AS SIGNED) "
    "FROM usage_rollups r JOIN usage_dims d ON d.dim = r.dim "
    "LEFT JOIN usage_names n ON n.namespace_id = d.namespace_id WHERE r.step_s = 0 "
    "GROUP BY COALESCE(n.slug, d.namespace_id), d.route, d.model, d.upstream, d.status, d.outcome "
    "ORDER BY 7 DESC";

static const char amounts_sql[] =
    "SELECT COALESCE(n.slug, d.namespace_id), d.model, d.currency, "
    "CAST(SUM(r.input_tokens) AS SIGNED), CAST(SUM(r.output_tokens) AS SIGNED), "
    "CAST(SUM(r.cached_tokens) AS SIGNED), CAST(SUM(r.reasoning_tokens) AS SIGNED), "
    "CAST(SUM(r.cost_nano) AS SIGNED) "
    "FROM usage_rollups r JOIN usage_dims d ON d.dim = r.dim "
    "LEFT JOIN usage_names n ON n.namespace_id = d.namespace_id WHERE r.step_s = 0 "
    "GROUP BY COALESCE(n.slug, d.namespace_id), d.model, d.currency ORDER BY 4 DESC";

/* A row's text is valid until the next column is read in some drivers: keep copies. */
static struct str keep(const struct db_rows *rows, int column, char out[LABEL])
{
    (void)str_copyz(out, LABEL, db_text(rows, column));
    return str_of(out);
}

static enum err read_requests(struct metrics_state *m, struct sums *s, struct why *why)
{
    struct metrics *metrics = daemon_metrics(m->daemon);
    struct db_rows *rows;
    enum err e = db_query(m->db, requests_sql, NULL, 0, &rows, why);
    if (e != ERR_OK) return e;
    while ((e = db_rows_next(rows)) == ERR_OK) {
        char text[6][LABEL];
        struct str ns = keep(rows, 0, text[0]), route = keep(rows, 1, text[1]),
                   model = keep(rows, 2, text[2]), upstream = keep(rows, 3, text[3]),
                   outcome = keep(rows, 5, text[5]);
        (void)snprintf(text[4], LABEL, "%lld", (long long)db_int(rows, 4));
        const struct str all[] = { ns, route, model, upstream, str_of(text[4]), outcome };
        const struct str few[] = { ns, model };
        add(s, metrics_get(metrics, M_FLEET_REQUESTS, all), (double)db_int(rows, 6));
        add(s, metrics_get(metrics, M_FLEET_DURATION, few), (double)db_int(rows, 7) / 1000);
        add(s, metrics_get(metrics, M_FLEET_TTFT_SUM, few), (double)db_int(rows, 8) / 1000);
        add(s, metrics_get(metrics, M_FLEET_TTFT_COUNT, few), (double)db_int(rows, 9));
    }
    db_rows_free(rows);
    return e == ERR_NOT_FOUND ? ERR_OK : e;
}

static enum err read_amounts(struct metrics_state *m, struct sums *s, struct why *why)
{
    static const char *const types[] = { "input", "output", "cached", "reasoning" };
    struct metrics *metrics = daemon_metrics(m->daemon);
    struct db_rows *rows;
    enum err e = db_query(m->db, amounts_sql, NULL, 0, &rows, why);
    if (e != ERR_OK) return e;
    while ((e = db_rows_next(rows)) == ERR_OK) {
        char text[3][LABEL];
        struct str ns = keep(rows, 0, text[0]), model = keep(rows, 1, text[1]),
                   currency = keep(rows, 2, text[2]);
        for (size_t i = 0; i < ARRAY_LEN(types); i++) {
            const struct str labels[] = { ns, model, str_of(types[i]) };
            add(s, metrics_get(metrics, M_FLEET_TOKENS, labels), (double)db_int(rows, 3 + (int)i));
        }
        const struct str labels[] = { ns, model, currency };
        if (currency.n > 0)
            add(s, metrics_get(metrics, M_FLEET_COST, labels), (double)db_int(rows, 7) / 1e9);
    }
    db_rows_free(rows);
    return e == ERR_NOT_FOUND ? ERR_OK : e;
}

void fleet_refresh(struct metrics_state *m)
{
    struct why why = { "" };
    struct sums s;
    uint64_t now = clock_mono_ms(daemon_clock(m->daemon));
    (void)pthread_mutex_lock(&m->lock);
    if (m->db != NULL && (m->fleet_at_ms == 0 || now >= m->fleet_at_ms + REFRESH_MS)) {
        map_init(&s.by_series, SIZE_MAX / 64);
        enum err e = read_requests(m, &s, &why);
        if (e == ERR_OK) e = read_amounts(m, &s, &why);
        if (e == ERR_OK) m->fleet_at_ms = now;
        /* With the database away what was read before stays. */
        if (e != ERR_OK)
            log_warn("the fleet's metrics stay as they were", LERR(e), LS("why", why.text));
        if (e == ERR_OK) {
            set_all(&s);
        } else {
            size_t i = 0;
            struct map_entry *entry;
            while ((entry = map_next(&s.by_series, &i)) != NULL) free(entry->value);
            map_done(&s.by_series);
        }
    }
    (void)pthread_mutex_unlock(&m->lock);
}
