/* SPDX-License-Identifier: Apache-2.0 */
/* See the header. */
#include "figures.h"

#include <stdlib.h>

#include "base/map.h"
#include "edge.h"
#include "match/ruleset.h"
#include "records/access_log.h"

/* clang-format off */
/* What has a name in OpenTelemetry's conventions too has their bounds, and some beside them. */
const struct metric_def figures[M_EDGE_MAX] = {
    [M_REQUESTS] = { "gateway_requests_total", METRIC_COUNTER, "Requests by how they ended.", { "namespace", "route", "model", "upstream", "status", "outcome" }, { 0 }, 5000 },
    [M_DURATION] = { "gateway_request_duration_seconds", METRIC_HISTOGRAM, "From the request's first byte to the answer's last.", { "namespace", "model" }, { 0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92, 163.84, 327.68 }, 0 },
    [M_TTFT] = { "gateway_time_to_first_token_seconds", METRIC_HISTOGRAM, "From the request's first byte to the answer's first token.", { "namespace", "model" }, { 0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 30, 60, 120, 300 }, 0 },
    [M_OVERHEAD] = { "gateway_overhead_seconds", METRIC_HISTOGRAM, "What the gateway itself takes between the whole request and sending it upstream.", { NULL }, { 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.1, 0.5 }, 0 },
    [M_TPOT] = { "gateway_time_per_output_token_seconds", METRIC_HISTOGRAM, "Time between tokens of streams, behind the first.", { "namespace", "model" }, { 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5 }, 0 },
    [M_INFLIGHT] = { "gateway_inflight_requests", METRIC_GAUGE, "Requests being served.", { NULL }, { 0 }, 0 },
    [M_OPEN_STREAMS] = { "gateway_open_streams", METRIC_GAUGE, "Streamed answers under way.", { NULL }, { 0 }, 0 },
    [M_TOKENS] = { "gateway_tokens_total", METRIC_COUNTER, "Tokens by type: input, output, cached, reasoning.", { "namespace", "model", "type" }, { 1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864 }, 0 },
    [M_COST] = { "gateway_cost_total", METRIC_COUNTER, "Cost of requests for models with a price, in units of the currency.", { "namespace", "model", "currency" }, { 0 }, 0 },
    [M_GENAI_USAGE] = { "gen_ai_client_token_usage", METRIC_HISTOGRAM_OF, "Tokens of a request by type; OpenTelemetry's name.", { "aigw_namespace", "gen_ai_request_model", "gen_ai_token_type" }, { 0 }, M_TOKENS },
    [M_GENAI_DURATION] = { "gen_ai_server_request_duration_seconds", METRIC_HISTOGRAM_OF, "gateway_request_duration_seconds by OpenTelemetry's name.", { "aigw_namespace", "gen_ai_request_model" }, { 0 }, M_DURATION },
    [M_GENAI_TTFT] = { "gen_ai_server_time_to_first_token_seconds", METRIC_HISTOGRAM_OF, "gateway_time_to_first_token_seconds by OpenTelemetry's name.", { "aigw_namespace", "gen_ai_request_model" }, { 0 }, M_TTFT },
    [M_GENAI_TPOT] = { "gen_ai_server_time_per_output_token_seconds", METRIC_HISTOGRAM_OF, "gateway_time_per_output_token_seconds by OpenTelemetry's name.", { "aigw_namespace", "gen_ai_request_model" }, { 0 }, M_TPOT },
    [M_REJECTIONS] = { "gateway_rejections_total", METRIC_COUNTER, "Requests the gateway refused, by policy and dimension.", { "namespace", "policy", "dimension" }, { 0 }, 0 },
    [M_SHADOW_REJECTIONS] = { "gateway_shadow_rejections_total", METRIC_COUNTER, "Requests that policies in shadow mode would have refused.", { "namespace", "policy", "dimension" }, { 0 }, 0 },
    [M_LIMIT_WAIT] = { "gateway_limit_wait_seconds", METRIC_HISTOGRAM, "How long admissions waited for the policy engine; most do not wait.", { NULL }, { 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1 }, 0 },
    [M_UNAVAILABLE] = { "gateway_limiter_unavailable_total", METRIC_GAUGE, "Decisions made without the policy engine, by what the policy says: share, deny or allow.", { "decision" }, { 0 }, 0 },
    [M_UTILIZATION] = { "gateway_limit_utilization_ratio", METRIC_GAUGE, "Of each limit the part in use, at the counter of the policy that is used most.", { "namespace", "policy" }, { 0 }, 0 },
    [M_CUT] = { "gateway_cut_streams_total", METRIC_COUNTER, "Answers cut where their budget of tokens ended.", { "namespace", "model" }, { 0 }, 0 },
    [M_UPSTREAM_ERRORS] = { "gateway_upstream_errors_total", METRIC_COUNTER, "Exchanges with upstream servers that failed.", { "upstream", "server", "why" }, { 0 }, 0 },
    [M_RETRIES] = { "gateway_retries_total", METRIC_COUNTER, "Attempts on another server.", { "upstream" }, { 0 }, 0 },
    [M_UPSTREAM_UP] = { "gateway_upstream_up", METRIC_GAUGE, "1: requests go to the server; 0: it is down, ejected, cooling, or its breaker is open.", { "upstream", "server" }, { 0 }, 0 },
    [M_UPSTREAM_ACTIVE] = { "gateway_upstream_active_requests", METRIC_GAUGE, "Requests that the server has now.", { "upstream", "server" }, { 0 }, 0 },
    [M_BREAKER] = { "gateway_upstream_breaker_state", METRIC_GAUGE, "The server's circuit breaker: 0 closed, 1 open, 2 half open.", { "upstream", "server" }, { 0 }, 0 },
    [M_UPSTREAM_NEWS] = { "gateway_upstream_events_total", METRIC_GAUGE, "What happened to the server: check_down, check_up, ejected, breaker_opened, breaker_closed, cooling; suspected: another edge told of a failure.", { "upstream", "server", "event" }, { 0 }, 5000 },
    [M_UPSTREAM_CHECKS] = { "gateway_upstream_checks_total", METRIC_GAUGE, "Active checks of the server, by result: good or bad.", { "upstream", "server", "result" }, { 0 }, 0 },
    [M_CURL_ANSWERS] = { "gateway_curl_answers_total", METRIC_COUNTER, "Answers that came by transport curl, by the version of HTTP: 1.1, 2.", { "upstream", "http" }, { 0 }, 0 },
    [M_CURL_CONNECTIONS] = { "gateway_curl_connections_total", METRIC_COUNTER, "Connections that were made for answers by transport curl; the others came on connections that were there.", { "upstream" }, { 0 }, 0 },
    [M_QUEUE_LENGTH] = { "gateway_upstream_queue_length", METRIC_GAUGE, "Requests that wait for a server with room.", { "upstream" }, { 0 }, 0 },
    [M_QUEUE_SECONDS] = { "gateway_upstream_queue_seconds", METRIC_HISTOGRAM, "How long requests waited that got a place.", { "upstream" }, { 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300 }, 0 },
    [M_QUEUE_REFUSED] = { "gateway_upstream_queue_refused_total", METRIC_GAUGE, "Requests refused since the queue was full, or no place came in time.", { "upstream", "why" }, { 0 }, 0 },
    [M_RETRIES_REFUSED] = { "gateway_retries_refused_total", METRIC_GAUGE, "Retries that the budget did not allow.", { "upstream" }, { 0 }, 0 },
    [M_CONNECTIONS] = { "gateway_connections", METRIC_GAUGE, "Client connections.", { NULL }, { 0 }, 0 },
    [M_TURNED_AWAY] = { "gateway_turned_away_total", METRIC_GAUGE, "Refused for want of room: connections beyond MAX_CONNECTIONS (full) or MAX_CONNECTIONS_PER_ADDRESS (address), those closed without a word since too many were being told (shut), requests beyond MEMORY_MAX_BYTES (memory).", { "why" }, { 0 }, 0 },
    [M_MEMORY] = { "gateway_memory_bytes", METRIC_GAUGE, "What requests, answers and connections hold, as MEMORY_MAX_BYTES counts it.", { NULL }, { 0 }, 0 },
    [M_LOG_DROPPED] = { "gateway_access_log_dropped_total", METRIC_GAUGE, "Lines of the access log that were not written: its thread was too slow, or the file refuses.", { NULL }, { 0 }, 0 },
    [M_DRIFT] = { "gateway_token_count_drift_ratio", METRIC_HISTOGRAM, "Our exact output count against the upstream's, relative.", { "namespace", "model" }, { -0.5, -0.1, -0.05, -0.01, 0.000001, 0.01, 0.05, 0.1, 0.5, 1 }, 0 },
    [M_LEASES] = { "gateway_lease_decisions_total", METRIC_GAUGE, "Admissions by how they were decided.", { "kind" }, { 0 }, 0 },
    [M_RECORDS] = { "gateway_usage_records", METRIC_GAUGE, "1: a usage record is kept of each request; 0: of none (USAGE_RECORDS=false).", { NULL }, { 0 }, 0 },
    [M_SPOOL] = { "gateway_usage_spool", METRIC_GAUGE, "The usage spool: records open, settled, published, lost, retries; bytes.", { "what" }, { 0 }, 0 },
};
/* clang-format on */

static void set_gauge(struct edge *e, enum edge_metric m, const char *label, uint64_t v)
{
    struct str l = str_of(label);
    metric_set(edge_metric(e, m, &l), (double)v);
}

static void note_use(void *ctx, struct str policy_id, double part)
{
    double *most = map_get(ctx, policy_id);
    if (most != NULL && part > *most) *most = part;
}

/* Of each policy its counter that is used most. */
static void scrape_use(struct edge *e)
{
    struct map by_id;
    pthread_mutex_lock(&e->rules_lock);
    struct ruleset *r = e->rules != NULL ? ruleset_ref(e->rules) : NULL;
    pthread_mutex_unlock(&e->rules_lock);
    if (r == NULL) return;
    const struct snapshot *s = r->snap;
    double *most = xcalloc(s->policies_n + 1, sizeof *most);
    map_init(&by_id, s->policies_n + 1);
    for (size_t i = 0; i < s->policies_n; i++)
        if (map_put(&by_id, s->policies[i].id, &most[i], NULL) != ERR_OK) most[i] = 0;
    limiter_each_use(e->limiter, note_use, &by_id);
    for (size_t i = 0; i < s->policies_n; i++) {
        const struct snap_policy *p = &s->policies[i];
        struct str labels[] = { p->ns != NULL ? p->ns->slug : STR("-"), p->slug };
        if (p->enabled && snap_policy_is_leased(p))
            metric_set(edge_metric(e, M_UTILIZATION, labels), most[i]);
    }
    map_done(&by_id);
    free(most);
    ruleset_unref(r);
}

static void scrape_server(struct edge *e, const struct snap_upstream *u,
                          const struct fleet_server_stats *s)
{
    struct str labels[] = { u->slug, s->server->slug, STR("") };
    metric_set(edge_metric(e, M_UPSTREAM_UP, labels), s->bar == HEALTH_FIT ? 1 : 0);
    metric_set(edge_metric(e, M_UPSTREAM_ACTIVE, labels), (double)s->active);
    metric_set(edge_metric(e, M_BREAKER, labels), (double)s->breaker);
    if (u->check.kind != SNAP_CHECK_NONE) {
        labels[2] = STR("good");
        metric_set(edge_metric(e, M_UPSTREAM_CHECKS, labels), (double)s->checks_good);
        labels[2] = STR("bad");
        metric_set(edge_metric(e, M_UPSTREAM_CHECKS, labels), (double)s->checks_bad);
    }
    for (int n = 0; n < FLEET_NEWS_MAX; n++) {
        labels[2] = str_of(fleet_news_name((enum fleet_news)n));
        if (s->news[n] > 0) metric_set(edge_metric(e, M_UPSTREAM_NEWS, labels), (double)s->news[n]);
    }
}

static void scrape_upstreams(struct edge *e)
{
    struct fleet_server_stats servers[SNAP_SERVERS_MAX];
    struct fleet_group_stats g;
    pthread_mutex_lock(&e->rules_lock);
    struct ruleset *r = e->rules != NULL ? ruleset_ref(e->rules) : NULL;
    pthread_mutex_unlock(&e->rules_lock);
    for (size_t i = 0; r != NULL && i < r->snap->upstreams_n; i++) {
        const struct snap_upstream *u = &r->snap->upstreams[i];
        struct str labels[] = { u->slug, STR("full") };
        group_stats(r->groups[i], &g, servers);
        for (size_t k = 0; k < u->servers_n; k++) scrape_server(e, u, &servers[k]);
        metric_set(edge_metric(e, M_QUEUE_LENGTH, labels), (double)g.queued);
        metric_set(edge_metric(e, M_QUEUE_REFUSED, labels), (double)g.queue_refused);
        metric_set(edge_metric(e, M_RETRIES_REFUSED, labels), (double)g.retries_refused);
        labels[1] = STR("timeout");
        metric_set(edge_metric(e, M_QUEUE_REFUSED, labels), (double)g.queue_timeouts);
    }
    ruleset_unref(r);
}

void figures_scrape(struct daemon *d)
{
    struct edge *e = daemon_state(d);
    struct limiter_stats l;
    struct usage_stats u;
    metric_set(edge_metric(e, M_INFLIGHT, NULL), (double)atomic_load(&e->inflight));
    metric_set(edge_metric(e, M_OPEN_STREAMS, NULL), (double)atomic_load(&e->streams));
    metric_set(edge_metric(e, M_LOG_DROPPED, NULL), (double)access_log_dropped(e->access_log));
    struct guard_stats g;
    guard_stats(e->guard, &g);
    metric_set(edge_metric(e, M_CONNECTIONS, NULL), (double)g.connections);
    metric_set(edge_metric(e, M_MEMORY, NULL), (double)g.memory);
    set_gauge(e, M_TURNED_AWAY, "full", g.full);
    set_gauge(e, M_TURNED_AWAY, "address", g.address);
    set_gauge(e, M_TURNED_AWAY, "shut", g.shut);
    set_gauge(e, M_TURNED_AWAY, "memory", g.shed);
    limiter_stats(e->limiter, &l);
    set_gauge(e, M_LEASES, "admitted", l.admitted);
    set_gauge(e, M_LEASES, "waited", l.waited);
    set_gauge(e, M_LEASES, "refused", l.refused);
    set_gauge(e, M_LEASES, "unavailable", l.unavailable);
    set_gauge(e, M_LEASES, "messages", l.messages);
    set_gauge(e, M_LEASES, "asks", l.asks);
    set_gauge(e, M_LEASES, "extensions", l.extensions);
    set_gauge(e, M_LEASES, "extensions_refused", l.extensions_refused);
    set_gauge(e, M_LEASES, "granted_units", l.granted_units);
    set_gauge(e, M_LEASES, "debt_units", l.debt);
    set_gauge(e, M_LEASES, "overflows", l.overflows);
    set_gauge(e, M_LEASES, "unpriced", l.unpriced);
    set_gauge(e, M_LEASES, "repeats", l.repeats);
    set_gauge(e, M_LEASES, "timeouts", l.timeouts);
    set_gauge(e, M_UNAVAILABLE, "share", l.shared);
    set_gauge(e, M_UNAVAILABLE, "deny", l.unavailable);
    set_gauge(e, M_UNAVAILABLE, "allow", l.allowed_unavailable);
    scrape_use(e);
    scrape_upstreams(e);
    metric_set(edge_metric(e, M_RECORDS, NULL), e->usage != NULL ? 1 : 0);
    usage_stats(e->usage, &u);
    set_gauge(e, M_SPOOL, "open", u.open);
    set_gauge(e, M_SPOOL, "settled", u.settled);
    set_gauge(e, M_SPOOL, "published", u.published);
    set_gauge(e, M_SPOOL, "lost", u.lost);
    set_gauge(e, M_SPOOL, "retries", u.retries);
    set_gauge(e, M_SPOOL, "bytes", u.spool_bytes);
    daemon_set_load(d, atomic_load(&e->inflight));
}
