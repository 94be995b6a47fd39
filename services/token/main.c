/* SPDX-License-Identifier: Apache-2.0 */
/*
 * aigw-token: exact token counts over HTTP and over the bus.
 *
 * Bus: answers token.count (queue group token), publishes presence and config.applied; follows the
 * configuration for its models, and counts without one. Owns nothing; watches the vocabularies of
 * VOCAB_DIR. Signals: see rt/daemon.h.
 */
#include <stdlib.h>
#include <unistd.h>

#include "config/follower.h"
#include "config/library.h"
#include "config/names.h"
#include "rt/yaml.h"
#include "service.h"

#define F(member) offsetof(struct settings, member)
/* clang-format off */
static const struct opt opts[] = {
    { "TOKEN_SERVICE_BIND", OPT_ADDRESS, F(bind), "127.0.0.1", 0, 0, NULL, "Address of the HTTP listener." },
    { "TOKEN_SERVICE_PORT", OPT_INT, F(port), "8002", 0, 65535, NULL, "Port of the HTTP listener; 0: any." },
    { "TOKEN_THREADS", OPT_INT, F(threads), "0", 0, 64, NULL, "Threads that count requests of up to 64 KiB, and as many for larger ones; 0: one per CPU." },
    { "TOKEN_QUEUE_MAX", OPT_INT, F(queue_jobs), "1024", 1, 1000000, NULL, "Requests that may wait to be counted, of each of both sizes: 503 beyond." },
    { "TOKEN_QUEUE_BYTES", OPT_INT, F(queue_bytes), "134217728", 65536, 1099511627776, "bytes", "Their bytes: 503 beyond." },
    { "VOCAB_DIR", OPT_STR, F(vocab_dir), "vocab", 0, 0, NULL, "Folder of the vocabularies (*.aigwvocab and models' folders), which is watched." },
};

static const struct metric_def metrics[M_MAX] = {
    [M_REQUESTS] = { "aigw_token_requests_total", METRIC_COUNTER, "Requests by endpoint (a path; bus: those of edges), status and outcome: ok, invalid, too_large, busy (refused: too many wait), gone (nobody waits for the answer any more), failed.", { "endpoint", "status", "outcome" }, { 0 }, 200 },
    [M_TOKENS] = { "aigw_token_counted_tokens_total", METRIC_COUNTER, "Tokens counted.", { "vocabulary" }, { 0 }, 100 },
    [M_BYTES] = { "aigw_token_counted_bytes_total", METRIC_COUNTER, "Bytes of the requests that were counted.", { "vocabulary" }, { 0 }, 100 },
    [M_SECONDS] = { "aigw_token_count_seconds", METRIC_HISTOGRAM, "Time that a count takes.", { "vocabulary" }, { 0.00001, 0.00003, 0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3 }, 100 },
    [M_WAITING] = { "aigw_token_requests_waiting", METRIC_GAUGE, "Requests that wait to be counted, by lane: small, large.", { "lane" }, { 0 }, 0 },
    [M_RUNNING] = { "aigw_token_requests_running", METRIC_GAUGE, "Requests that are being counted, by lane.", { "lane" }, { 0 }, 0 },
    [M_VOCABULARIES] = { "aigw_token_vocabularies", METRIC_GAUGE, "Vocabularies that are loaded.", { NULL }, { 0 }, 0 },
    [M_UNUSABLE] = { "aigw_token_vocabularies_unusable", METRIC_GAUGE, "Members of VOCAB_DIR that cannot be used as they are; GET /v1/models says why.", { NULL }, { 0 }, 0 },
    [M_PIECES] = { "aigw_token_cache_lookups_total", METRIC_COUNTER, "Pieces of text looked up among those counted before, by result: hit, miss. From 0 again when the vocabulary is loaded anew.", { "vocabulary", "result" }, { 0 }, 200 },
};
/* clang-format on */
#undef F

static void report_vocab(void *ctx, int level, const char *what, const char *file, const char *why)
{
    (void)ctx;
    LOG_AT((enum log_level)level, what, LS("file", file), LS("why", why != NULL ? why : ""));
}

/* On the follower's thread: the configuration's models on top of the built-in names. */
static enum err apply(void *ctx, struct snapshot *s, struct why *why)
{
    struct service *t = ctx;
    struct models *models, *vocabularies = service_vocabularies(t);
    enum err e = config_models(vocabularies, s, &models);
    models_unref(vocabularies);
    if (e != ERR_OK) return why_set(why, e, "out of memory for the models");
    service_use_models(t, models);
    daemon_set_revision(t->daemon, s->revision);
    return ERR_OK;
}

/* On the library's thread: the follower's builds the rest anew. */
static void vocabularies_changed(void *ctx, struct models *vocabularies)
{
    struct service *s = ctx;
    service_use_vocabularies(s, models_ref(vocabularies));
    pthread_mutex_lock(&s->lock);
    struct follower *f = s->follower;
    pthread_mutex_unlock(&s->lock);
    if (f != NULL) follower_reapply(f);
}

static enum err load(struct service *s, struct why *why)
{
    struct library_options o = {
        .dir = s->settings->vocab_dir,
        .state_dir = daemon_state_dir(s->daemon),
        .clock = s->clock,
        .changed = vocabularies_changed,
        .report = report_vocab,
        .ctx = s,
    };
    enum err e = models_new(NULL, 0, &s->vocabularies);
    if (e != ERR_OK) return why_set(why, e, "out of memory");
    s->models = models_ref(s->vocabularies);
    e = library_new(&o, &s->library, why);
    if (e == ERR_OK) service_use_vocabularies(s, library_models(s->library));
    return e;
}

static void release(struct service *s)
{
    library_end(s->library); /* it calls the follower, */
    if (s->follower != NULL) follower_free(s->follower);
    if (s->face != NULL) bus_face_quiesce(s->face);
    pool_end(s->pool); /* it answers on both faces, */
    http_server_free(s->http);
    bus_face_free(s->face);
    pool_free(s->pool); /* and both ask it */
    library_free(s->library);
    models_unref(s->models);
    models_unref(s->vocabularies);
    json_free(s->openapi);
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
    struct pool_options po = { .threads = s->threads,
                               .jobs = (size_t)s->settings->queue_jobs,
                               .bytes = (size_t)s->settings->queue_bytes };
    enum err e = yaml_parse(openapi_yaml(), SIZE_MAX, &s->openapi, why);
    if (e == ERR_OK) e = load(s, why);
    if (e == ERR_OK) e = pool_new(&po, &s->pool, why);
    if (e == ERR_OK) e = bus_face_start(s, &s->face, why);
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
    struct follower *follower = follower_new(&fo);
    pthread_mutex_lock(&s->lock);
    s->follower = follower;
    pthread_mutex_unlock(&s->lock);
    follower_reapply(follower); /* vocabularies may have changed in between */
    struct models *models = service_vocabularies(s);
    log_info("listening", LS("bind", s->settings->bind), LI("port", http_server_port(s->http)),
             LI("vocabularies", models_count(models)));
    models_unref(models);
    return ERR_OK;
}

static void quiesce(struct daemon *d)
{
    struct service *s = daemon_state(d);
    http_server_quiesce(s->http);
    bus_face_quiesce(s->face);
}

static size_t inflight(struct daemon *d)
{
    struct service *s = daemon_state(d);
    return MAX(http_server_inflight(s->http), pool_inflight(s->pool));
}

static void stop(struct daemon *d)
{
    release(daemon_state(d));
}

static void one_more(void *ctx, const struct library_problem *p)
{
    size_t *n = ctx;
    (void)p;
    ++*n;
}

static void scrape_caches(struct service *s, const struct models *models)
{
    for (size_t i = 0; i < models_count(models); i++) {
        struct model_info info;
        struct vocab_cache_stats stats;
        models_at(models, i, &info);
        vocab_cache_stats(info.vocab, &stats);
        struct str hit[] = { info.vocabulary, STR("hit") },
                   miss[] = { info.vocabulary, STR("miss") };
        metric_set(metrics_get(s->metrics, M_PIECES, hit), (double)stats.hits);
        metric_set(metrics_get(s->metrics, M_PIECES, miss), (double)stats.misses);
    }
}

static void scrape(struct daemon *d)
{
    static const char *const lanes[POOL_LANES] = { "small", "large" };
    struct service *s = daemon_state(d);
    size_t problems = 0;
    if (s == NULL) return; /* not started yet */
    for (int i = 0; i < POOL_LANES; i++) {
        struct str label = str_of(lanes[i]);
        struct pool_stats stats;
        pool_stats(s->pool, (enum pool_lane)i, &stats);
        metric_set(metrics_get(s->metrics, M_WAITING, &label), (double)stats.waiting);
        metric_set(metrics_get(s->metrics, M_RUNNING, &label), (double)stats.running);
    }
    struct models *models = service_vocabularies(s);
    metric_set(metrics_get(s->metrics, M_VOCABULARIES, NULL), (double)models_count(models));
    scrape_caches(s, models);
    models_unref(models);
    library_problems(s->library, one_more, &problems);
    metric_set(metrics_get(s->metrics, M_UNUSABLE, NULL), (double)problems);
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
