/* SPDX-License-Identifier: Apache-2.0 */
/*
 * aigw-config: the source of truth of all configuration. The admin API writes the database, the
 * push thread brings each revision to the bus. Main thread: signals and the ops listener's timers.
 */
#include <stdio.h>
#include <stdlib.h>

#include "api.h"
#include "openapi.h"
#include "proto/subjects.h"
#include "rt/crypto.h"
#include "rt/daemon.h"
#include "rt/db_url.h"
#include "rt/yaml.h"

struct settings {
    const char *store_url, *bind, *admin_token, *master_key, *key_pepper;
    const char *mysql_host, *mysql_user, *mysql_password, *mysql_database;
    int64_t port, mysql_port, threads;
};

#define F(member) offsetof(struct settings, member)
static const struct opt opts[] = {
    { "CONFIG_CENTER_PORT", OPT_INT, F(port), "8001", 0, 65535, NULL,
      "Port of the admin API; 0: any free one." },
    { "CONFIG_CENTER_BIND", OPT_ADDRESS, F(bind), "127.0.0.1", 0, 0, NULL,
      "Address that the admin API listens on." },
    { "CONFIG_CENTER_THREADS", OPT_INT, F(threads), "4", 1, 64, NULL,
      "Threads that answer the admin API." },
    { "STORE_URL", OPT_SECRET, F(store_url), NULL, 0, 0, NULL,
      "Where the configuration is kept: sqlite:PATH or mysql://user:password@host:port/database. "
      "Default: from MYSQL_* when MYSQL_DATABASE is set, else config.db in STATE_DIR." },
    { "MYSQL_HOST", OPT_STR, F(mysql_host), "127.0.0.1", 0, 0, NULL,
      "Host of the database, when STORE_URL is not set." },
    { "MYSQL_PORT", OPT_INT, F(mysql_port), "3306", 1, 65535, NULL,
      "Port of the database, when STORE_URL is not set." },
    { "MYSQL_DATABASE", OPT_STR, F(mysql_database), NULL, 0, 0, NULL,
      "Name of the database, when STORE_URL is not set." },
    { "MYSQL_USER", OPT_STR, F(mysql_user), NULL, 0, 0, NULL,
      "User at the database, when STORE_URL is not set." },
    { "MYSQL_PASSWORD", OPT_SECRET, F(mysql_password), NULL, 0, 0, NULL,
      "Password of MYSQL_USER." },
    { "ADMIN_TOKEN", OPT_SECRET, F(admin_token), NULL, 0, 0, NULL,
      "Bearer token of the admin API, at least 16 characters; without it every call is refused." },
    { "MASTER_KEY", OPT_SECRET, F(master_key), NULL, 0, 0, NULL,
      "64 hexadecimal digits: the key under which upstream credentials are sealed." },
    { "KEY_PEPPER", OPT_SECRET, F(key_pepper), NULL, 0, 0, NULL,
      "64 hexadecimal digits: the key of the HMAC as which virtual keys are stored." },
};
#undef F

enum { M_REQUESTS, M_DURATION, M_PUSHES, M_PUSH_SECONDS, M_INSTANCES, M_DROPPED, M_MAX };
static const struct metric_def metrics[M_MAX] = {
    [M_REQUESTS] = { "aigw_config_requests_total",
                     METRIC_COUNTER,
                     "Requests to the admin API.",
                     { "method", "route", "status" },
                     { 0 },
                     0 },
    [M_DURATION] = { "aigw_config_request_duration_seconds",
                     METRIC_HISTOGRAM,
                     "Time to answer a request to the admin API.",
                     { "route" },
                     { 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5 },
                     0 },
    [M_PUSHES] = { "aigw_config_pushes_total",
                   METRIC_COUNTER,
                   "Revisions that were brought to the bus.",
                   { NULL },
                   { 0 },
                   0 },
    [M_PUSH_SECONDS] = { "aigw_config_push_duration_seconds",
                         METRIC_HISTOGRAM,
                         "Time to build a revision and bring it to the bus.",
                         { NULL },
                         { 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5 },
                         0 },
    [M_INSTANCES] = { "aigw_config_instances",
                      METRIC_GAUGE,
                      "Live instances, by whether they run the newest revision.",
                      { "service", "revision" },
                      { 0 },
                      64 },
    [M_DROPPED] = { "aigw_config_bad_messages",
                    METRIC_GAUGE,
                    "Presence and applied messages that could not be read, since the start.",
                    { NULL },
                    { 0 },
                    0 },
};

struct config {
    struct daemon *daemon;
    struct store *store;
    struct push *push;
    struct fleet *fleet;
    struct http_server *http;
    struct bus_sub *presence, *applied, *gone;
    struct api api;
};

static const char reason_store[] = "the store is not open";

/* --- settings --- */

static void check_key(struct opt_problems *p, const char *name, const char *value)
{
    unsigned char key[32];
    struct why why;
    if (value[0] != '\0' && crypto_parse_key(str_of(value), key, &why) != ERR_OK)
        opt_problem(p, "%s: %s", name, why.text);
    explicit_bzero(key, sizeof(key));
}

static void check(const void *settings, struct opt_problems *p)
{
    const struct settings *s = settings;
    if (s->admin_token[0] != '\0' && strlen(s->admin_token) < 16)
        opt_problem(p, "ADMIN_TOKEN: must have at least 16 characters");
    check_key(p, "MASTER_KEY", s->master_key);
    check_key(p, "KEY_PEPPER", s->key_pepper);
    struct why why;
    bool has_url = s->store_url[0] != '\0';
    if (has_url && db_check_url(s->store_url, &why) != ERR_OK)
        opt_problem(p, "STORE_URL: %s", why.text);
    if (!has_url && s->mysql_database[0] != '\0' && s->mysql_user[0] == '\0')
        opt_problem(p, "MYSQL_USER: is needed with MYSQL_DATABASE");
}

static enum err store_url(const struct settings *s, const char *state_dir, struct buf *out)
{
    if (s->store_url[0] != '\0') return buf_appendz(out, s->store_url);
    if (s->mysql_database[0] != '\0')
        return db_url_compose(s->mysql_user, s->mysql_password, s->mysql_host,
                              (uint16_t)s->mysql_port, s->mysql_database, out);
    return buf_printf(out, "sqlite:%s/config.db", state_dir);
}

/* --- what others tell us --- */

static void on_bus_presence(void *ctx, const struct bus_msg *msg)
{
    struct config *c = ctx;
    fleet_presence(c->fleet, msg->data);
}

static void on_bus_applied(void *ctx, const struct bus_msg *msg)
{
    struct config *c = ctx;
    fleet_applied(c->fleet, msg->data);
}

static void on_bus_gone(void *ctx, const struct bus_msg *msg)
{
    struct config *c = ctx;
    fleet_gone(c->fleet, msg->data);
}

static void on_store_change(void *ctx)
{
    struct config *c = ctx;
    push_wake(c->push);
}

/* Push thread. */
static void on_open(void *ctx)
{
    struct config *c = ctx;
    log_info("the store is open");
    daemon_ready(c->daemon, reason_store);
}

/* Push thread. */
static void on_pushed(void *ctx, uint64_t revision, uint64_t ms)
{
    struct config *c = ctx;
    daemon_set_revision(c->daemon, revision);
    metric_inc(metrics_get(daemon_metrics(c->daemon), M_PUSHES, NULL));
    metric_observe(metrics_get(daemon_metrics(c->daemon), M_PUSH_SECONDS, NULL), (double)ms / 1000);
    log_info("revision pushed", LI("revision", revision), LI("ms", ms));
}

/* Push thread. */
static void on_report(void *ctx, int level, const char *what, uint64_t revision, const char *why)
{
    (void)ctx;
    LOG_AT((enum log_level)level, what, LI("revision", revision), LS("why", why));
}

/* HTTP server threads. */
static void on_request(void *ctx, struct str method, const char *route, int status, uint64_t ns)
{
    struct config *c = ctx;
    char code[16];
    (void)snprintf(code, sizeof(code), "%d", status);
    struct str r = str_of(route[0] != '\0' ? route : "none");
    struct str labels[] = { method, r, str_of(code) };
    metric_inc(metrics_get(daemon_metrics(c->daemon), M_REQUESTS, labels));
    metric_observe(metrics_get(daemon_metrics(c->daemon), M_DURATION, &r), (double)ns / 1e9);
}

static void count_service(void *ctx, const char *service, size_t current, size_t behind)
{
    struct metrics *m = ctx;
    struct str labels[] = { str_of(service), STR("current") };
    metric_set(metrics_get(m, M_INSTANCES, labels), (double)current);
    labels[1] = STR("other");
    metric_set(metrics_get(m, M_INSTANCES, labels), (double)behind);
}

static void scrape(struct daemon *d)
{
    struct config *c = daemon_state(d);
    if (c == NULL) return;
    uint64_t revision = push_revision(c->push);
    metric_set(metrics_get(daemon_metrics(d), M_DROPPED, NULL), (double)fleet_dropped(c->fleet));
    fleet_count(c->fleet, revision, count_service, daemon_metrics(d));
}

/* --- life --- */

static void stop(struct daemon *d)
{
    struct config *c = daemon_state(d);
    if (c == NULL) return;
    daemon_set_state(d, NULL);
    http_server_free(c->http);
    bus_unsubscribe(c->presence);
    bus_unsubscribe(c->applied);
    bus_unsubscribe(c->gone);
    push_free(c->push);
    fleet_free(c->fleet);
    store_free(c->store);
    json_free(c->api.openapi);
    explicit_bzero(&c->api.secrets, sizeof(c->api.secrets));
    free(c);
}

static void take_secrets(struct config *c, const struct settings *s)
{
    struct secrets *x = &c->api.secrets;
    x->has_master_key = crypto_parse_key(str_of(s->master_key), x->master_key, NULL) == ERR_OK;
    x->has_pepper = crypto_parse_key(str_of(s->key_pepper), x->pepper, NULL) == ERR_OK;
    if (!x->has_master_key) log_warn("MASTER_KEY is not set: no upstream credential can be kept");
    if (!x->has_pepper) log_warn("KEY_PEPPER is not set: no virtual key can be made");
    c->api.admin_token = s->admin_token;
    if (s->admin_token[0] == '\0') log_warn("ADMIN_TOKEN is not set: the admin API refuses all");
}

static enum err open_store(struct config *c, const struct settings *s, struct why *why)
{
    struct buf url, lock;
    char shown[256];
    buf_init(&url, 4096);
    buf_init(&lock, 4096);
    enum err e = store_url(s, daemon_state_dir(c->daemon), &url);
    if (e == ERR_OK && str_starts(buf_str(&url), STR("sqlite:")))
        e = buf_printf(&lock, "%s.lock", buf_z(&url) + 7);
    if (e == ERR_OK) {
        db_redact_url(buf_z(&url), shown, sizeof(shown));
        log_info("the store", LS("url", shown));
        c->store = store_new(buf_z(&url), buf_z(&lock), daemon_clock(c->daemon),
                             daemon_rng(c->daemon), daemon_instance(c->daemon));
    } else {
        (void)why_set(why, e, "STORE_URL is too long");
    }
    if (url.data != NULL) explicit_bzero(url.data, url.cap);
    buf_done(&url);
    buf_done(&lock);
    return e;
}

static enum err subscribe(struct config *c)
{
    struct bus *bus = daemon_bus(c->daemon);
    char subject[SUBJECT_LEN];
    subject_make(bus_prefix(bus), SUBJECT_PRESENCE, NULL, subject);
    enum err e = bus_subscribe(bus, subject, NULL, on_bus_presence, c, &c->presence);
    if (e != ERR_OK) return e;
    subject_make(bus_prefix(bus), SUBJECT_CONFIG_APPLIED, NULL, subject);
    e = bus_subscribe(bus, subject, NULL, on_bus_applied, c, &c->applied);
    if (e != ERR_OK) return e;
    subject_make(bus_prefix(bus), SUBJECT_INSTANCE_GONE, NULL, subject);
    return bus_subscribe(bus, subject, NULL, on_bus_gone, c, &c->gone);
}

static enum err start(struct daemon *d, struct why *why)
{
    const struct settings *s = daemon_settings(d);
    struct config *c = xcalloc(1, sizeof(*c));
    c->daemon = d;
    daemon_set_state(d, c);
    take_secrets(c, s);
    c->fleet = fleet_new(daemon_clock(d));
    enum err e = yaml_parse(openapi_yaml(), SIZE_MAX, &c->api.openapi, why);
    if (e == ERR_OK) e = open_store(c, s, why);
    if (e != ERR_OK) goto out;
    daemon_unready(d, reason_store);
    struct push_options push = { .store = c->store,
                                 .bus = daemon_bus(d),
                                 .clock = daemon_clock(d),
                                 .rng = daemon_rng(d),
                                 .on_open = on_open,
                                 .on_pushed = on_pushed,
                                 .report = on_report,
                                 .ctx = c };
    c->push = push_new(&push);
    store_on_change(c->store, on_store_change, c);
    e = subscribe(c);
    if (e != ERR_OK) goto out;
    c->api.store = c->store;
    c->api.push = c->push;
    c->api.fleet = c->fleet;
    c->api.bus = daemon_bus(d);
    c->api.observe = on_request;
    c->api.ctx = c;
    struct http_server_options http = { .bind = s->bind,
                                        .port = (uint16_t)s->port,
                                        .ctx = &c->api,
                                        .max_body = 64 << 20,
                                        .threads = (unsigned)s->threads,
                                        .before = api_before,
                                        .after = api_after,
                                        .error_body = api_error_body };
    http.routes = api_routes(&http.routes_len);
    e = http_server_new(&http, &c->http, why);
    if (e == ERR_OK)
        log_info("the admin API listens", LS("bind", s->bind),
                 LI("port", http_server_port(c->http)));
out:
    if (e != ERR_OK) stop(d);
    return e;
}

static void quiesce(struct daemon *d)
{
    http_server_quiesce(((struct config *)daemon_state(d))->http);
}

static size_t inflight(struct daemon *d)
{
    return http_server_inflight(((struct config *)daemon_state(d))->http);
}

int main(int argc, char **argv)
{
    static const struct daemon_desc desc = {
        .name = "config",
        .about = "The config center: admin API, source of truth, pushes every revision.",
        .opts = opts,
        .opts_len = ARRAY_LEN(opts),
        .settings_size = sizeof(struct settings),
        .metrics = metrics,
        .metrics_len = M_MAX,
        .ops_port = 9001,
        .check = check,
        .start = start,
        .quiesce = quiesce,
        .inflight = inflight,
        .stop = stop,
        .scrape = scrape,
    };
    return daemon_main(argc, argv, &desc);
}
