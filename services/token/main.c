/* SPDX-License-Identifier: Apache-2.0 */
/*
 * aigw-token: exact token counts over HTTP and over the bus.
 *
 * Bus: answers token.count (queue group token), publishes presence and config.applied; follows the
 * configuration for its models, and counts without one. Owns nothing; reads the vocabularies of
 * VOCAB_DIR. Signals: see rt/daemon.h.
 */
#include <stdlib.h>
#include <unistd.h>

#include "config/follower.h"
#include "config/names.h"
#include "service.h"

#define F(member) offsetof(struct settings, member)
/* clang-format off */
static const struct opt opts[] = {
    { "TOKEN_SERVICE_BIND", OPT_STR, F(bind), "127.0.0.1", 0, 0, NULL, "Address of the HTTP listener." },
    { "TOKEN_SERVICE_PORT", OPT_INT, F(port), "8002", 0, 65535, NULL, "Port of the HTTP listener; 0: any." },
    { "TOKEN_THREADS", OPT_INT, F(threads), "0", 0, 64, NULL, "Threads that count for HTTP, and as many for the bus; 0: one per CPU." },
    { "VOCAB_DIR", OPT_STR, F(vocab_dir), "vocab", 0, 0, NULL, "Folder of the vocabularies (*.aigwvocab)." },
};

static const struct metric_def metrics[M_MAX] = {
    [M_REQUESTS] = { "aigw_token_requests_total", METRIC_COUNTER, "Requests by endpoint (a path; bus: those of edges) and status.", { "endpoint", "status" }, { 0 }, 200 },
    [M_TOKENS] = { "aigw_token_counted_tokens_total", METRIC_COUNTER, "Tokens counted.", { "vocabulary" }, { 0 }, 100 },
    [M_BYTES] = { "aigw_token_counted_bytes_total", METRIC_COUNTER, "Bytes of the requests that were counted.", { "vocabulary" }, { 0 }, 100 },
    [M_SECONDS] = { "aigw_token_count_seconds", METRIC_HISTOGRAM, "Time that a count takes.", { "vocabulary" }, { 0.00001, 0.00003, 0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3 }, 100 },
    [M_QUEUE] = { "aigw_token_bus_requests_inflight", METRIC_GAUGE, "Requests of the bus that wait or are being counted.", { NULL }, { 0 }, 0 },
    [M_VOCABULARIES] = { "aigw_token_vocabularies", METRIC_GAUGE, "Vocabularies that are loaded.", { NULL }, { 0 }, 0 },
};
/* clang-format on */
#undef F

static void report_vocab(void *ctx, const char *file, const char *problem)
{
    (void)ctx;
    log_warn("a vocabulary is left out, or comes without its chat template", LS("file", file),
             LS("why", problem));
}

/* On the follower's thread: the configuration's models on top of the built-in names. */
static enum err apply(void *ctx, struct snapshot *s, struct why *why)
{
    struct service *t = ctx;
    struct models *models;
    enum err e = config_models(t->vocabularies, s, &models);
    if (e != ERR_OK) return why_set(why, e, "out of memory for the models");
    service_use_models(t, models);
    daemon_set_revision(t->daemon, s->revision);
    return ERR_OK;
}

static enum err load(struct service *s, struct why *why)
{
    const char *dir = s->settings->vocab_dir;
    enum err e = models_load(dir, NULL, 0, report_vocab, NULL, &s->vocabularies, why);
    if (e == ERR_NOT_FOUND) {
        log_warn("no vocabularies: tokens are estimated", LS("vocab_dir", dir));
        e = models_load(NULL, NULL, 0, report_vocab, NULL, &s->vocabularies, why);
    }
    if (e != ERR_OK) return e;
    s->models = models_ref(s->vocabularies);
    metric_set(metrics_get(s->metrics, M_VOCABULARIES, NULL),
               (double)models_count(s->vocabularies));
    return ERR_OK;
}

static void release(struct service *s)
{
    if (s->follower != NULL) follower_free(s->follower);
    http_server_free(s->http);
    bus_workers_free(s->workers);
    models_unref(s->models);
    models_unref(s->vocabularies);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

static enum err start(struct daemon *d, struct why *why)
{
    struct service *s = xcalloc(1, sizeof *s);
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    s->daemon = d;
    s->settings = daemon_settings(d);
    s->threads = (unsigned)(s->settings->threads > 0 ? s->settings->threads
                                                     : MIN(MAX(cpus, 1), 64));
    s->bus = daemon_bus(d);
    s->clock = daemon_clock(d);
    s->rng = daemon_rng(d);
    s->metrics = daemon_metrics(d);
    pthread_mutex_init(&s->lock, NULL);
    enum err e = load(s, why);
    if (e == ERR_OK) e = bus_workers_start(s, s->threads, &s->workers, why);
    if (e == ERR_OK) e = http_start(s, why);
    if (e != ERR_OK) {
        release(s);
        return e;
    }
    struct follower_options fo = {
        .bus = daemon_bus(d),
        .state_dir = daemon_state_dir(d),
        .clock = s->clock,
        .rng = s->rng,
        .apply = apply,
        .report = daemon_log_report,
        .ctx = s,
    };
    daemon_set_state(d, s);
    s->follower = follower_new(&fo);
    log_info("listening", LS("bind", s->settings->bind), LI("port", http_server_port(s->http)),
             LI("vocabularies", models_count(s->vocabularies)));
    return ERR_OK;
}

static void quiesce(struct daemon *d)
{
    struct service *s = daemon_state(d);
    http_server_quiesce(s->http);
    bus_workers_quiesce(s->workers);
}

static size_t inflight(struct daemon *d)
{
    struct service *s = daemon_state(d);
    return http_server_inflight(s->http) + bus_workers_inflight(s->workers);
}

static void stop(struct daemon *d)
{
    release(daemon_state(d));
}

static void scrape(struct daemon *d)
{
    struct service *s = daemon_state(d);
    if (s == NULL) return; /* not started yet */
    metric_set(metrics_get(s->metrics, M_QUEUE, NULL), (double)bus_workers_inflight(s->workers));
}

int main(int argc, char **argv)
{
    static const struct daemon_desc desc = {
        .name = "token",
        .about = "Counts tokens exactly, over HTTP and over NATS.",
        .opts = opts,
        .opts_len = ARRAY_LEN(opts),
        .settings_size = sizeof(struct settings),
        .metrics = metrics,
        .metrics_len = ARRAY_LEN(metrics),
        .ops_port = 9002,
        .start = start,
        .quiesce = quiesce,
        .inflight = inflight,
        .stop = stop,
        .scrape = scrape,
    };
    return daemon_main(argc, argv, &desc);
}
