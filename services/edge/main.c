/* SPDX-License-Identifier: Apache-2.0 */
/*
 * aigw-edge: the proxy. Terminates client HTTP, matches a namespace, checks limits, forwards,
 * meters and relays answers.
 *
 * Bus: asks policy.lease and token.count, publishes usage.<namespace>, policy.rejected, presence,
 * config.applied; follows the configuration. Owns nothing durable but its usage spool and the last
 * good snapshot. Signals: see rt/daemon.h.
 */
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/heap.h"
#include "base/map.h"
#include "checks/checker.h"
#include "config/library.h"
#include "edge.h"
#include "flow/count.h"
#include "match/keyring.h"
#include "match/ruleset.h"
#include "net/certs.h"
#include "ops/debug.h"
#include "ops/explain.h"
#include "records/access_log.h"
#include "rt/crypto.h"
#include "upstreams/resolve.h"
#include "worker.h"

#define CERTS_LOOK_NS 1000000000ull

#define F(member) offsetof(struct edge_settings, member)
/* clang-format off */
static const struct opt opts[] = {
    { "GATEWAY_BIND", OPT_ADDRESS, F(bind), "127.0.0.1", 0, 0, NULL, "Address of the proxy's listener." },
    { "GATEWAY_PORT", OPT_INT, F(port), "8081", 1, 65535, NULL, "Port of the proxy's listener." },
    { "TLS_CERT_FILE", OPT_STR, F(tls_cert), NULL, 0, 0, NULL, "Certificate chain of the proxy's listener (PEM): set, the listener speaks TLS. A renewed file is taken without a restart." },
    { "TLS_KEY_FILE", OPT_STR, F(tls_key), NULL, 0, 0, NULL, "The certificate's key (PEM)." },
    { "TRUSTED_PROXIES", OPT_STR, F(trusted_proxies), NULL, 0, 0, NULL, "Networks of proxies in front, such as 10.0.0.0/8, 2001:db8::/32: from them ADDRESS_HEADER tells the client's address, taken from its right end." },
    { "ADDRESS_HEADER", OPT_STR, F(address_field), "x-forwarded-for", 0, 0, NULL, "The header field in which TRUSTED_PROXIES tell the client's address: x-forwarded-for or forwarded (RFC 7239). The other one is not looked at." },
    { "PROXY_PROTOCOL", OPT_BOOL, F(proxy_protocol), "false", 0, 0, NULL, "Every connection begins with a PROXY header (version 1 or 2), before TLS, from a load balancer; where TRUSTED_PROXIES is set, from those only." },
    { "EDGE_WORKERS", OPT_INT, F(workers), "0", 0, 256, NULL, "Threads that serve requests; 0: one per CPU." },
    { "MAX_BODY_BYTES", OPT_INT, F(max_body), "16777216", 1024, 1073741824, "bytes", "Largest request body: 413 beyond." },
    { "MAX_CONNECTIONS", OPT_INT, F(max_connections), "60000", 1, 1000000, NULL, "Client connections at a time; further ones are answered with 503 and closed." },
    { "MAX_CONNECTIONS_PER_ADDRESS", OPT_INT, F(max_per_address), "0", 0, 1000000, NULL, "Client connections at a time from one IPv4 address or IPv6 /64, as the edge sees it (behind a load balancer that is the balancer's): further ones are answered with 503 and closed. 0: no limit." },
    { "MAX_REQUESTS_PER_CONNECTION", OPT_INT, F(max_requests), "10000", 0, INT64_C(1) << 40, NULL, "Requests on one connection; the last one's answer says Connection: close. 0: no limit." },
    { "MAX_HEAD_BYTES", OPT_INT, F(max_head), "65536", 1024, 262144, "bytes", "Largest request line and header fields together: 431 beyond; the request line alone at most 16384: 414 beyond." },
    { "MAX_HEADER_FIELDS", OPT_INT, F(max_fields), "100", 8, H1_MAX_HEADERS, NULL, "Header fields of a request: 431 beyond." },
    { "MEMORY_MAX_BYTES", OPT_INT, F(memory_max), "1073741824", 0, INT64_C(1) << 40, "bytes", "Memory that requests, answers and connections may hold, before new requests (and bodies that are still coming) are refused with 503. 0: no limit." },
    { "HEAD_TIMEOUT_MS", OPT_INT, F(head_timeout_ms), "10000", 100, 600000, "ms", "How long a request's head may take." },
    { "BODY_TIMEOUT_MS", OPT_INT, F(body_timeout_ms), "60000", 100, 3600000, "ms", "How long a request's body may take." },
    { "IDLE_TIMEOUT_MS", OPT_INT, F(idle_timeout_ms), "75000", 100, 3600000, "ms", "How long a client's connection may be idle between requests." },
    { "WRITE_TIMEOUT_MS", OPT_INT, F(write_timeout_ms), "60000", 100, 3600000, "ms", "How long a client may take nothing of its answer." },
    { "VOCAB_DIR", OPT_STR, F(vocab_dir), "vocab", 0, 0, NULL, "Folder of the vocabularies (*.aigwvocab and models' folders), which is watched." },
    { "TOKEN_SERVICE_URL", OPT_URL, F(token_service_url), NULL, 0, 0, NULL, "Address of a token service, such as http://token:8002: long prompts are counted there over HTTP instead of over the bus." },
    { "USE_PRECISE_TOKEN_CALCULATION", OPT_BOOL, F(precise), "true", 0, 0, NULL, "false: estimate tokens (marked as such) instead of counting them." },
    { "REMOTE_COUNT_BYTES", OPT_INT, F(remote_count_bytes), "65536", 0, 1073741824, "bytes", "Prompts above this are counted off the worker's thread, so that they do not stall its streams." },
    { "ASK_TIMEOUT_MS", OPT_INT, F(ask_timeout_ms), "50", 5, 10000, "ms", "How long a request waits for the policy engine when leases do not cover it; then on_unavailable of its policies decides." },
    { "MASTER_KEY", OPT_SECRET, F(master_key), NULL, 0, 0, NULL, "64 hex digits: opens the upstreams' credentials; the same as the config center's." },
    { "KEY_PEPPER", OPT_SECRET, F(key_pepper), NULL, 0, 0, NULL, "64 hex digits: virtual keys are known by their HMAC under it; the same as the config center's." },
    { "USAGE_IDENTITIES", OPT_STR, F(identities), "hash", 0, 0, NULL, "The client's address and user in usage records: plain, hash (the same value always gives the same digits, under KEY_PEPPER), or none." },
    { "ACCESS_LOG", OPT_STR, F(access_log), "off", 0, 0, NULL, "A file to which each request is written as a line of JSON, - for standard output, or off. A file that was renamed is opened anew, at SIGHUP at once." },
    { "ACCESS_LOG_SAMPLE", OPT_STR, F(access_sample), "1", 0, 0, NULL, "The part of requests that are written to the access log, 0 to 1; those that did not end well all are." },
    { "TRACE_CONTEXT", OPT_STR, F(trace), "take", 0, 0, NULL, "W3C trace context: take (a traceparent that is valid is passed on with a span of ours), make (requests without one get one), off (it passes like any field)." },
    { "ON_CLIENT_GONE", OPT_STR, F(client_gone), "cancel", 0, 0, NULL, "What becomes of an answer that has begun when its client leaves: cancel (the upstream is closed at once) or drain (it is read to its end, so that the usage it reports is known; what comes is counted and thrown away)." },
    { "CLIENT_GONE_DRAIN_MS", OPT_INT, F(drain_ms), "10000", 100, 600000, "ms", "How long drain may take; then the upstream is closed." },
    { "ADMISSION_LOG", OPT_STR, F(admission_log), NULL, 0, 0, NULL, "For tests: a file to which every admission and every paid token is written, with the clock reading that decided it. Slow." },
    USAGE_OPTS(struct edge_settings, usage),
};
#undef F

/* What has a name in OpenTelemetry's conventions too has their bounds, and some beside them. */
static const struct metric_def metrics[M_EDGE_MAX] = {
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

static void report_vocab(void *ctx, int level, const char *what, const char *file, const char *why)
{
    (void)ctx;
    LOG_AT((enum log_level)level, what, LS("file", file), LS("why", why != NULL ? why : ""));
}

/* Any thread. */
static void report_keys(void *ctx, struct str issuer, const char *why)
{
    (void)ctx;
    if (why != NULL)
        log_warn("an issuer's keys cannot be fetched: those it had stay", LSTR("issuer", issuer),
                 LS("why", why));
    else
        log_info("an issuer's keys are fetched again", LSTR("issuer", issuer));
}

/* On the library's thread: the follower's builds the rules anew, and workers swap as for any. */
static void vocabularies_changed(void *ctx, struct models *vocabularies)
{
    struct edge *e = ctx;
    (void)vocabularies;
    pthread_mutex_lock(&e->rules_lock);
    struct follower *f = e->follower;
    pthread_mutex_unlock(&e->rules_lock);
    if (f != NULL) follower_reapply(f);
}

/* On the main thread, every second. */
static void look_at_certs(void *ctx)
{
    struct edge *e = ctx;
    struct loop *loop = daemon_loop(e->daemon);
    struct why why;
    unsigned changes = certs_check(e->certs, &why);
    if (changes & CERTS_LISTENER) log_info("the listener's new certificate is in use");
    if (changes & CERTS_BAD)
        log_error("the listener's new certificate cannot be used: the old one stays",
                  LS("why", why.text));
    if (changes & CERTS_UPSTREAMS) follower_reapply(e->follower);
    loop_timer_set(loop, &e->certs_timer, loop_now_ns(loop) + CERTS_LOOK_NS, look_at_certs, e);
}

/* On the follower's thread: builds the rules beside the old ones and swaps. */
static enum err apply(void *ctx, struct snapshot *s, struct why *why)
{
    struct edge *e = ctx;
    struct ruleset *r;
    struct models *vocabularies = library_models(e->library);
    enum err err = ruleset_new(s, vocabularies, e->certs, e->fleet, e->master_key, &r, why);
    models_unref(vocabularies);
    if (err != ERR_OK) return err;
    resolver_use(e->resolver, s);
    keyring_use(e->keyring, s);
    limiter_set_revision(e->limiter, s->revision);
    checker_use(e->checker, r);
    workers_use_rules(e, r);
    pthread_mutex_lock(&e->rules_lock);
    struct ruleset *old = e->rules;
    e->rules = r;
    pthread_mutex_unlock(&e->rules_lock);
    ruleset_unref(old);
    daemon_set_revision(e->daemon, s->revision);
    daemon_ready(e->daemon, "no configuration yet");
    return ERR_OK;
}

static enum err trace_mode_parse(struct str s, enum trace_mode *ret)
{
    static const char *const words[] = { "off", "take", "make" };
    for (size_t i = 0; i < ARRAY_LEN(words); i++)
        if (str_eqz(s, words[i])) return *ret = (enum trace_mode)i, ERR_OK;
    return ERR_INVALID;
}

static void check(const void *settings, struct opt_problems *problems)
{
    const struct edge_settings *s = settings;
    unsigned char key[32];
    struct why why;
    if (crypto_parse_key(str_of(s->master_key), key, &why) != ERR_OK)
        opt_problem(problems, "MASTER_KEY: %s", why.text);
    if (crypto_parse_key(str_of(s->key_pepper), key, &why) != ERR_OK)
        opt_problem(problems, "KEY_PEPPER: %s", why.text);
    if ((*s->tls_cert != '\0') != (*s->tls_key != '\0'))
        opt_problem(problems, "TLS_CERT_FILE and TLS_KEY_FILE go together: %s is not set",
                    *s->tls_cert != '\0' ? "TLS_KEY_FILE" : "TLS_CERT_FILE");
    if (*s->token_service_url != '\0' && strncmp(s->token_service_url, "http://", 7) != 0 &&
        strncmp(s->token_service_url, "https://", 8) != 0)
        opt_problem(problems, "TOKEN_SERVICE_URL: must be http://host:port or https://host:port");
    enum address_field field;
    struct address_networks networks;
    if (address_networks_parse(s->trusted_proxies, &networks, &why) != ERR_OK)
        opt_problem(problems, "TRUSTED_PROXIES: %s", why.text);
    if (address_field_parse(str_of(s->address_field), &field) != ERR_OK)
        opt_problem(problems, "ADDRESS_HEADER: \"%s\" is not x-forwarded-for or forwarded",
                    s->address_field);
    unsigned sample;
    enum trace_mode trace;
    if (strcmp(s->client_gone, "cancel") != 0 && strcmp(s->client_gone, "drain") != 0)
        opt_problem(problems, "ON_CLIENT_GONE: \"%s\" is not cancel or drain", s->client_gone);
    if (access_log_parse_sample(str_of(s->access_sample), &sample) != ERR_OK)
        opt_problem(problems, "ACCESS_LOG_SAMPLE: \"%s\" is not from 0 to 1", s->access_sample);
    if (trace_mode_parse(str_of(s->trace), &trace) != ERR_OK)
        opt_problem(problems, "TRACE_CONTEXT: \"%s\" is not off, take or make", s->trace);
    enum identity_mode mode;
    if (identity_mode_parse(str_of(s->identities), &mode) != ERR_OK)
        opt_problem(problems, "USAGE_IDENTITIES: \"%s\" is not plain, hash or none", s->identities);
}

/* Any thread. */
static void upstream_changed(void *ctx, const struct fleet_event *ev)
{
    struct edge *e = ctx;
    checker_tell(e->checker, ev);
}

static struct guard *make_guard(const struct edge_settings *s)
{
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) != 0) files.rlim_cur = RLIM_INFINITY;
    struct guard *g = guard_new((uint64_t)s->max_connections, (uint64_t)s->max_per_address,
                                (uint64_t)s->memory_max, files.rlim_cur);
    if (guard_connections_max(g) < (uint64_t)s->max_connections)
        log_warn("MAX_CONNECTIONS are not to be had: the process may have too few descriptors",
                 LI("connections", guard_connections_max(g)), LI("descriptors", files.rlim_cur));
    return g;
}

static unsigned workers_of(const struct edge_settings *s)
{
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    return s->workers > 0 ? (unsigned)s->workers : (unsigned)MAX(cpus, 1L);
}

/* A worker's loop has two. */
static uint64_t descriptors(const void *settings)
{
    return 2 * (uint64_t)workers_of(settings);
}

static struct edge *make(struct daemon *d)
{
    struct edge *e = xcalloc(1, sizeof *e);
    const struct edge_settings *s = daemon_settings(d);
    e->daemon = d;
    e->settings = s;
    e->clock = daemon_clock(d);
    e->rng = daemon_rng(d);
    e->metrics = daemon_metrics(d);
    e->listen_fd = -1;
    e->drains = strcmp(s->client_gone, "drain") == 0;
    e->guard = make_guard(s);
    e->workers_n = workers_of(s);
    e->workers = xcalloc(e->workers_n, sizeof *e->workers);
    pthread_mutex_init(&e->rules_lock, NULL);
    ASSERT(identity_mode_parse(str_of(s->identities), &e->identities) ==
           ERR_OK); /* check() saw to it */
    return e;
}

static enum err open_parts(struct edge *e, struct why *why)
{
    const struct edge_settings *s = e->settings;
    struct usage_options uo = {
        .state_dir = daemon_state_dir(e->daemon),
        .workers = e->workers_n,
        .settings = &s->usage,
        .bus = s->usage.records ? bus_new_bulk(daemon_bus(e->daemon)) : NULL,
        .instance = daemon_instance(e->daemon),
        .clock = e->clock,
        .rng = e->rng,
    };
    struct library_options vo = {
        .dir = s->vocab_dir,
        .state_dir = daemon_state_dir(e->daemon),
        .clock = e->clock,
        .changed = vocabularies_changed,
        .report = report_vocab,
        .ctx = e,
    };
    unsigned sample;
    e->usage_bus = uo.bus;
    ASSERT(access_log_parse_sample(str_of(s->access_sample), &sample) == ERR_OK &&
           trace_mode_parse(str_of(s->trace), &e->trace_context) == ERR_OK); /* see check() */
    enum err err = crypto_parse_key(str_of(s->master_key), e->master_key, why);
    if (err == ERR_OK) err = access_log_new(s->access_log, sample, &e->access_log, why);
    if (err == ERR_OK) err = crypto_parse_key(str_of(s->key_pepper), e->key_pepper, why);
    if (err == ERR_OK) err = address_networks_parse(s->trusted_proxies, &e->trusted_proxies, why);
    if (err == ERR_OK) err = address_field_parse(str_of(s->address_field), &e->address_field);
    if (err == ERR_OK) err = certs_new(s->tls_cert, s->tls_key, &e->certs, why);
    if (err == ERR_OK) err = library_new(&vo, &e->library, why);
    if (err == ERR_OK) err = worker_listen(s, &e->listen_fd, why);
    if (err == ERR_OK) err = usage_new(&uo, &e->usage, why);
    return err;
}

static void close_parts(struct edge *e)
{
    usage_free(e->usage);
    if (e->usage_bus != NULL) bus_free(e->usage_bus);
    if (e->listen_fd >= 0) close(e->listen_fd);
    library_free(e->library);
    certs_free(e->certs);
    pthread_mutex_destroy(&e->rules_lock);
    guard_free(e->guard);
    access_log_free(e->access_log);
    free(e);
}

static enum err start(struct daemon *d, struct why *why)
{
    struct edge *e = make(d);
    enum err err = open_parts(e, why);
    if (err != ERR_OK) {
        free(e->workers);
        close_parts(e);
        return err;
    }
    struct counter_options co = {
        .precise = e->settings->precise,
        .url = e->settings->token_service_url,
        .remote_bytes = (size_t)e->settings->remote_count_bytes,
        .bus = daemon_bus(d),
        .clock = e->clock,
        .rng = e->rng,
    };
    struct limiter_options lo = {
        .bus = daemon_bus(d),
        .prefix = bus_prefix(daemon_bus(d)),
        .instance = daemon_instance(d),
        .clock = e->clock,
        .rng = e->rng,
        .ask_timeout_ms = (int)e->settings->ask_timeout_ms,
    };
    lo.plain_addresses = e->identities == IDENTITY_PLAIN;
    lo.admission_log = e->settings->admission_log;
    memcpy(lo.hash_key, e->key_pepper, sizeof lo.hash_key);
    struct follower_options fo = {
        .bus = daemon_bus(d),
        .state_dir = daemon_state_dir(d),
        .clock = e->clock,
        .rng = e->rng,
        .apply = apply,
        .report = daemon_log_report,
        .ctx = e,
    };
    daemon_unready(d, "no configuration yet");
    daemon_set_state(d, e);
    e->counter = counter_new(&co);
    e->limiter = limiter_new(&lo);
    e->resolver = resolver_new();
    e->keyring = keyring_new(e->clock, report_keys, e);
    e->fleet = fleet_new(&(struct fleet_options){
        .clock = e->clock, .rng = e->rng, .event = upstream_changed, .ctx = e });
    e->checker = checker_new(&(struct checker_options){ .clock = e->clock,
                                                        .rng = e->rng,
                                                        .bus = daemon_bus(d),
                                                        .resolver = e->resolver,
                                                        .fleet = e->fleet });
    workers_start(e);
    atomic_store(&e->running, true);
    struct follower *follower = follower_new(&fo);
    pthread_mutex_lock(&e->rules_lock);
    e->follower = follower;
    pthread_mutex_unlock(&e->rules_lock);
    follower_reapply(follower); /* vocabularies may have changed in between */
    e->explainer = explainer_new(e);
    look_at_certs(e);
    if (e->usage == NULL)
        log_warn(
            "USAGE_RECORDS=false: no request is accounted for, and what runs when this process "
            "is killed is known to nobody");
    log_info("listening", LS("bind", e->settings->bind), LI("port", e->settings->port),
             LI("workers", e->workers_n));
    return ERR_OK;
}

static void quiesce(struct daemon *d)
{
    workers_quiesce(daemon_state(d));
}

static size_t inflight(struct daemon *d)
{
    struct edge *e = daemon_state(d);
    return atomic_load(&e->inflight) + atomic_load(&e->flushing);
}

/* For those who rename log files. */
static void hangup(struct daemon *d)
{
    struct edge *e = daemon_state(d);
    access_log_reopen(e->access_log);
}

static void stop(struct daemon *d)
{
    struct edge *e = daemon_state(d);
    loop_timer_clear(daemon_loop(d), &e->certs_timer);
    explainer_free(e->explainer);
    library_end(e->library); /* it calls the follower, which asks it */
    follower_free(e->follower);
    workers_end(e);
    counter_free(e->counter);
    limiter_free(e->limiter);
    workers_stop(e);
    int wait_ms = e->usage_bus != NULL && bus_is_connected(e->usage_bus) ? 2000 : 0;
    if (!usage_flush(e->usage, wait_ms))
        log_warn("usage records stay in the spool: the next edge here sends them",
                 LI("records", usage_pending(e->usage)));
    checker_free(e->checker);
    resolver_free(e->resolver);
    keyring_free(e->keyring);
    ruleset_unref(e->rules);
    fleet_free(e->fleet);
    close_parts(e);
}

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

static void scrape(struct daemon *d)
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

/* What the policy engine may have to set aside for us. */
static void say_share(struct daemon *d, struct json *m)
{
    json_set_u64(m, "share_among", limiter_share_among(((struct edge *)daemon_state(d))->limiter));
}

int main(int argc, char **argv)
{
    static const struct http_route ops[] = { { "GET", "/debug/requests", debug_requests } };
    static const struct daemon_desc desc = {
        .name = "edge",
        .about = "The proxy: namespaces, limits, exact token counts, streams.",
        .opts = opts,
        .opts_len = ARRAY_LEN(opts),
        .settings_size = sizeof(struct edge_settings),
        .metrics = metrics,
        .metrics_len = M_EDGE_MAX,
        .ops_port = 9081,
        .ops_routes = ops,
        .ops_routes_len = ARRAY_LEN(ops),
        .presence_ms = 500, /* well within a lease time, so that silence is noticed within one */
        .check = check,
        .descriptors = descriptors,
        .start = start,
        .quiesce = quiesce,
        .inflight = inflight,
        .presence = say_share,
        .hangup = hangup,
        .stop = stop,
        .scrape = scrape,
    };
    heap_keep();
    return daemon_main(argc, argv, &desc);
}
