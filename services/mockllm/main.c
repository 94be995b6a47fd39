/* SPDX-License-Identifier: Apache-2.0 */
/*
 * aigw-mockllm: a model server without a model, for demonstrations, tests and benchmarks. What it
 * says and how it fails is chosen per request: docs/mockllm.md. The main thread runs the skeleton,
 * workers answer (server.h).
 */
#include "rt/daemon.h"
#include "server.h"

struct settings {
    const char *bind, *behaviour, *api_key, *models, *vocab_dir;
    int64_t port, threads, idle_ms, record_body;
    bool record_all;
};

#define F(member) offsetof(struct settings, member)
static const struct opt opts[] = {
    { "MOCKLLM_BIND", OPT_ADDRESS, F(bind), "127.0.0.1", 0, 0, NULL, "Address to listen on." },
    { "MOCKLLM_PORT", OPT_INT, F(port), "8010", 0, 65535, NULL, "Port; 0: any free one." },
    { "MOCKLLM_THREADS", OPT_INT, F(threads), "1", 1, 64, NULL, "Worker threads." },
    { "MOCKLLM_DEFAULT", OPT_STR, F(behaviour), NULL, 0, 0, NULL,
      "Behaviour of requests that ask for none, as in the header x-mock." },
    { "MOCKLLM_API_KEY", OPT_SECRET, F(api_key), NULL, 0, 0, NULL,
      "The only key that is let in; unset: any, and none." },
    { "MOCKLLM_MODELS", OPT_STR, F(models), "Qwen3-8B,gpt-4o,claude-sonnet-4", 0, 0, NULL,
      "What /v1/models lists, separated by commas; every other name is answered as well." },
    { "VOCAB_DIR", OPT_STR, F(vocab_dir), NULL, 0, 0, NULL,
      "Folder of vocabularies for exact prompt counts; unset: words are counted." },
    { "MOCKLLM_IDLE_MS", OPT_INT, F(idle_ms), "75000", 1, 86400000, "ms",
      "How long a connection may stay without a request." },
    { "MOCKLLM_RECORD_ALL", OPT_BOOL, F(record_all), "false", 0, 0, NULL,
      "Keep every request for /mock/requests, not only those with an id." },
    { "MOCKLLM_RECORD_BODY", OPT_INT, F(record_body), "1048576", 0, 1 << 30, "bytes",
      "How much of a body is kept for /mock/requests." },
};
#undef F

static void report_vocab(void *ctx, const char *file, const char *problem)
{
    (void)ctx;
    log_warn("vocabulary", LS("file", file), LS("problem", problem));
}

/* A worker's loop has two. */
static uint64_t descriptors(const void *settings)
{
    const struct settings *s = settings;
    return 2 * (uint64_t)s->threads;
}

static enum err start(struct daemon *d, struct why *why)
{
    const struct settings *s = daemon_settings(d);
    struct models *vocabs = NULL;
    struct server *server;
    enum err e = ERR_OK;
    if (s->vocab_dir != NULL && s->vocab_dir[0] != '\0')
        e = models_load(s->vocab_dir, NULL, 0, report_vocab, NULL, &vocabs, why);
    if (e != ERR_OK) return e;
    struct server_options o = { .bind = s->bind,
                                .port = (uint16_t)s->port,
                                .threads = (unsigned)s->threads,
                                .behaviour = s->behaviour,
                                .api_key = s->api_key,
                                .models = s->models,
                                .idle_ms = (uint64_t)s->idle_ms,
                                .record_all = s->record_all,
                                .record_body = (size_t)s->record_body,
                                .vocabs = vocabs,
                                .clock = daemon_clock(d) };
    e = server_new(&o, &server, why);
    if (e != ERR_OK) {
        models_unref(vocabs);
        return e;
    }
    daemon_set_state(d, server);
    return ERR_OK;
}

static void quiesce(struct daemon *d)
{
    server_quiesce(daemon_state(d));
}

static size_t inflight(struct daemon *d)
{
    return server_inflight(daemon_state(d));
}

static void stop(struct daemon *d)
{
    server_free(daemon_state(d));
}

static void scrape(struct daemon *d)
{
    store_scrape(server_store(daemon_state(d)), daemon_metrics(d));
}

int main(int argc, char **argv)
{
    const struct daemon_desc desc = { .name = "mockllm",
                                      .about = "A model server without a model.",
                                      .opts = opts,
                                      .opts_len = ARRAY_LEN(opts),
                                      .settings_size = sizeof(struct settings),
                                      .metrics = store_metric_defs,
                                      .metrics_len = store_metric_defs_len,
                                      .ops_port = 9010,
                                      .no_bus = true,
                                      .descriptors = descriptors,
                                      .start = start,
                                      .quiesce = quiesce,
                                      .inflight = inflight,
                                      .stop = stop,
                                      .scrape = scrape };
    return daemon_main(argc, argv, &desc);
}
