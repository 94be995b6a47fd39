/* SPDX-License-Identifier: Apache-2.0 */
/* aigw-metrics: consumes usage records, keeps the ledger, answers questions about it. */
#include <stdio.h>
#include <stdlib.h>

#include "metrics.h"

#define F(member) offsetof(struct metrics_settings, member)
static const struct opt opts[] = {
    { "METRICS_BIND", OPT_ADDRESS, F(bind), "127.0.0.1", 0, 0, NULL, "Address of the query API." },
    { "METRICS_PORT", OPT_INT, F(port), "8003", 0, 65535, NULL,
      "Port of the query API; 0: any free one." },
    { "METRICS_TOKEN", OPT_SECRET, F(token), NULL, 0, 0, NULL,
      "Bearer token that the query API wants; unset: none." },
    { "STORE_URL", OPT_SECRET, F(store_url), NULL, 0, 0, NULL,
      "The ledger: sqlite:PATH (one instance) or mysql://user:password@host:port/database. "
      "Default: usage.db in STATE_DIR." },
    { "USAGE_BATCH", OPT_INT, F(batch), "256", 1, 1024, "records",
      "Records that are stored in one transaction; those of one message always are." },
    { "USAGE_MODELS_MAX", OPT_INT, F(models_max), "1000", 1, 100000, NULL,
      "Most different values of the label model in sums: every further one is \"other\"." },
    { "USAGE_STREAM_MAX_BYTES", OPT_INT, F(stream_max_bytes), "1073741824", 1 << 20,
      INT64_C(1) << 50, "bytes",
      "Size of the stream of usage records; when it is full, edges keep theirs on disk." },
    { "USAGE_STREAM_MAX_AGE_S", OPT_INT, F(stream_max_age_s), "0", 0, 315360000, "s",
      "Age at which records leave the stream even if they were never stored; 0: never." },
    { "USAGE_STREAM_KEEP", OPT_BOOL, F(stream_keep), "false", 0, 0, NULL,
      "false: a record leaves the stream when it is stored; true: it stays until its age limit, for other readers, "
      "and the stream must be large enough for all of that time. Cannot be changed while the stream exists." },
    { "USAGE_DUPLICATES_S", OPT_INT, F(duplicates_s), "120", 1, 86400, "s",
      "How long the stream knows a record's id; the ledger knows it as long as it keeps it." },
    { "USAGE_STREAM_REPLICAS", OPT_INT, F(replicas), "1", 1, 5, NULL,
      "Servers of the NATS cluster that keep the streams." },
    { "USAGE_RECORDS_DAYS", OPT_INT, F(records_days), "90", 0, 36500, "days",
      "How long single records are kept; 0: for ever. Sums per hour and day stay." },
    { "USAGE_CLIENTS_DAYS", OPT_INT, F(clients_days), "30", 0, 36500, "days",
      "How long a record keeps its client's address and user; 0: as long as the record." },
    { "USAGE_MINUTES_DAYS", OPT_INT, F(minutes_days), "35", 0, 36500, "days",
      "How long sums per minute are kept; 0: for ever." },
};
#undef F

enum { FLEET_SERIES = 10000 };

const struct metric_def metrics_defs[M_MAX] = {
    [M_INGESTED] = { "aigw_metrics_records_total", METRIC_COUNTER,
                     "Usage records taken from the stream: new, duplicate, refused by the database.",
                     .labels = { "result" } },
    [M_BATCH_ERRORS] = { "aigw_metrics_batch_errors_total", METRIC_COUNTER,
                         "Batches that could not be stored, and were tried again.",
                         .labels = { NULL } },
    [M_DEAD] = { "aigw_metrics_dead_records_total", METRIC_COUNTER,
                 "Messages that are no usage record, moved to the dead stream.",
                 .labels = { NULL } },
    [M_LAG] = { "aigw_metrics_lag_seconds", METRIC_GAUGE,
                "Age of the newest record of the last batch when it was stored.",
                .labels = { NULL } },
    [M_QUERIES] = { "aigw_metrics_queries_total", METRIC_COUNTER,
                    "Questions answered, by way (http, bus) and result.",
                    .labels = { "via", "result" } },
    [M_FLEET_REQUESTS] = { "aigw_fleet_requests_total",
                           METRIC_COUNTER,
                           "Requests in the ledger. Every instance shows the same: take the maximum.",
                           { "namespace", "route", "model", "upstream", "status", "outcome" },
                           .max_series = FLEET_SERIES },
    [M_FLEET_TOKENS] = { "aigw_fleet_tokens_total",
                         METRIC_COUNTER,
                         "Tokens in the ledger: input, output, cached (part of input), reasoning "
                         "(part of output).",
                         { "namespace", "model", "type" },
                         .max_series = FLEET_SERIES },
    [M_FLEET_COST] = { "aigw_fleet_cost_total",
                       METRIC_COUNTER,
                       "Cost in the ledger, in units of the currency.",
                       { "namespace", "model", "currency" },
                       .max_series = FLEET_SERIES },
    [M_FLEET_DURATION] = { "aigw_fleet_request_seconds_total",
                           METRIC_COUNTER,
                           "Sum of the durations of the requests in the ledger.",
                           { "namespace", "model" },
                           .max_series = FLEET_SERIES },
    [M_FLEET_TTFT_SUM] = { "aigw_fleet_time_to_first_token_seconds_total",
                           METRIC_COUNTER,
                           "Sum of the times to the first token.",
                           { "namespace", "model" },
                           .max_series = FLEET_SERIES },
    [M_FLEET_TTFT_COUNT] = { "aigw_fleet_first_tokens_total",
                             METRIC_COUNTER,
                             "Requests that had a first token.",
                             { "namespace", "model" },
                             .max_series = FLEET_SERIES },
};

static void stop(struct daemon *d)
{
    struct metrics_state *m = daemon_state(d);
    api_stop(m);
    ingest_stop(m);
    db_close(m->db);
    (void)pthread_mutex_destroy(&m->lock);
    free(m);
}

static enum err start(struct daemon *d, struct why *why)
{
    struct metrics_state *m = xcalloc(1, sizeof *m);
    m->daemon = d;
    m->settings = daemon_settings(d);
    (void)pthread_mutex_init(&m->lock, NULL);
    int n = m->settings->store_url[0] != '\0'
                ? snprintf(m->url, sizeof m->url, "%s", m->settings->store_url)
                : snprintf(m->url, sizeof m->url, "sqlite:%s/usage.db", daemon_state_dir(d));
    daemon_set_state(d, m);
    enum err e = n > 0 && (size_t)n < sizeof m->url
                     ? ERR_OK
                     : why_set(why, ERR_INVALID, "STORE_URL is too long");
    if (e == ERR_OK) e = api_start(m, why);
    if (e == ERR_OK) e = ingest_start(m, why);
    if (e != ERR_OK) {
        stop(d);
        return e;
    }
    log_info("serving", LS("bind", m->settings->bind), LI("port", http_server_port(m->http)));
    return ERR_OK;
}

static void quiesce(struct daemon *d)
{
    struct metrics_state *m = daemon_state(d);
    http_server_quiesce(m->http);
}

static size_t inflight(struct daemon *d)
{
    const struct metrics_state *m = daemon_state(d);
    return http_server_inflight(m->http);
}

static void scrape(struct daemon *d)
{
    fleet_refresh(daemon_state(d));
}

static void check(const void *settings, struct opt_problems *p)
{
    const struct metrics_settings *s = settings;
    struct why why;
    if (s->store_url[0] != '\0' && db_check_url(s->store_url, &why) != ERR_OK)
        opt_problem(p, "STORE_URL: %s", why.text);
}

int main(int argc, char **argv)
{
    static const struct daemon_desc desc = {
        .name = "metrics",
        .about = "Keeps the ledger of usage, and answers questions about it.",
        .opts = opts,
        .opts_len = ARRAY_LEN(opts),
        .settings_size = sizeof(struct metrics_settings),
        .metrics = metrics_defs,
        .metrics_len = M_MAX,
        .ops_port = 9003,
        .check = check,
        .start = start,
        .quiesce = quiesce,
        .inflight = inflight,
        .stop = stop,
        .scrape = scrape,
    };
    return daemon_main(argc, argv, &desc);
}
