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
#include "checks/checker.h"
#include "config/library.h"
#include "edge.h"
#include "flow/count.h"
#include "match/keyring.h"
#include "match/ruleset.h"
#include "net/certs.h"
#include "ops/debug.h"
#include "ops/explain.h"
#include "ops/figures.h"
#include "records/access_log.h"
#include "rt/crypto.h"
#include "upstreams/resolve.h"
#include "worker.h"

#define CERTS_LOOK_NS 1000000000ull

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
           ERR_OK); /* edge_settings_check() saw to it */
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
           trace_mode_parse(str_of(s->trace), &e->trace_context) ==
               ERR_OK); /* see edge_settings_check() */
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

/* What the policy engine may have to set aside for us. */
static void say_share(struct daemon *d, struct json *m)
{
    json_set_u64(m, "share_among", limiter_share_among(((struct edge *)daemon_state(d))->limiter));
}

int main(int argc, char **argv)
{
    static const struct http_route ops[] = { { "GET", "/debug/requests", debug_requests } };
    const struct daemon_desc desc = {
        .name = "edge",
        .about = "The proxy: namespaces, limits, exact token counts, streams.",
        .opts = edge_opts,
        .opts_len = edge_opts_len,
        .settings_size = sizeof(struct edge_settings),
        .metrics = figures,
        .metrics_len = M_EDGE_MAX,
        .ops_port = 9081,
        .ops_routes = ops,
        .ops_routes_len = ARRAY_LEN(ops),
        .presence_ms = 500, /* well within a lease time, so that silence is noticed within one */
        .check = edge_settings_check,
        .descriptors = descriptors,
        .start = start,
        .quiesce = quiesce,
        .inflight = inflight,
        .presence = say_share,
        .hangup = hangup,
        .stop = stop,
        .scrape = figures_scrape,
    };
    heap_keep();
    return daemon_main(argc, argv, &desc);
}
