/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ops listener of every daemon: health, readiness, metrics. Handlers run on the listener's
 * thread.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "rt/daemon_impl.h"

/* --- readiness --- */

void daemon_unready(struct daemon *d, const char *reason)
{
    char *place = NULL;
    bool known = false;
    pthread_mutex_lock(&d->lock);
    for (size_t i = 0; i < MAX_REASONS; i++) {
        if (strcmp(d->reasons[i], reason) == 0) known = true;
        if (d->reasons[i][0] == '\0' && place == NULL) place = d->reasons[i];
    }
    ASSERT(known || place != NULL);
    if (!known) (void)str_copyz(place, REASON_LEN, str_of(reason));
    pthread_mutex_unlock(&d->lock);
    if (!known) log_info("not ready", LS("reason", reason));
}

void daemon_ready(struct daemon *d, const char *reason)
{
    bool cleared = false, any = false;
    pthread_mutex_lock(&d->lock);
    for (size_t i = 0; i < MAX_REASONS; i++) {
        if (strcmp(d->reasons[i], reason) == 0) {
            d->reasons[i][0] = '\0';
            cleared = true;
        }
        any = any || d->reasons[i][0] != '\0';
    }
    pthread_mutex_unlock(&d->lock);
    if (cleared && !any) log_info("ready");
}

bool daemon_is_ready(struct daemon *d)
{
    bool any = false;
    pthread_mutex_lock(&d->lock);
    for (size_t i = 0; i < MAX_REASONS; i++) any = any || d->reasons[i][0] != '\0';
    pthread_mutex_unlock(&d->lock);
    return !any;
}

static void healthz(void *ctx, const struct http_request *req, struct http_reply *reply)
{
    (void)ctx, (void)req;
    reply->content_type = "text/plain";
    if (buf_appendz(&reply->body, "ok\n") != ERR_OK) reply->status = 500;
}

static void readyz(void *ctx, const struct http_request *req, struct http_reply *reply)
{
    struct daemon *d = ctx;
    enum err e = ERR_OK;
    (void)req;
    reply->content_type = "text/plain";
    pthread_mutex_lock(&d->lock);
    for (size_t i = 0; i < MAX_REASONS && e == ERR_OK; i++)
        if (d->reasons[i][0] != '\0')
            e = buf_printf(&reply->body, "not ready: %s\n", d->reasons[i]);
    pthread_mutex_unlock(&d->lock);
    if (reply->body.len > 0)
        reply->status = 503;
    else
        e = buf_appendz(&reply->body, "ready\n");
    if (e != ERR_OK) reply->status = 500;
}

/* --- metrics of the process --- */

static enum err process_metrics(const struct daemon *d, struct buf *b)
{
    struct rusage u;
    char line[256];
    unsigned long long pages = 0, resident = 0;
    getrusage(RUSAGE_SELF, &u);
    FILE *f = fopen("/proc/self/statm", "re");
    if (f != NULL) {
        if (fgets(line, sizeof line, f) != NULL &&
            sscanf(line, "%llu %llu", &pages, &resident) != 2)
            resident = 0;
        fclose(f);
    }
    enum err e = buf_printf(
        b,
        "# HELP process_cpu_seconds_total CPU time used.\n# TYPE process_cpu_seconds_total counter\n"
        "process_cpu_seconds_total %.6f\n"
        "# HELP process_resident_memory_bytes Resident memory.\n# TYPE process_resident_memory_bytes gauge\n"
        "process_resident_memory_bytes %llu\n"
        "# HELP aigw_build_info Version of the program.\n# TYPE aigw_build_info gauge\n"
        "aigw_build_info{service=\"%s\",version=\"" AIGW_VERSION "\"} 1\n"
        "# HELP aigw_config_revision Revision of the configuration in use.\n# TYPE aigw_config_revision gauge\n"
        "aigw_config_revision %llu\n",
        (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
            (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6,
        resident * (unsigned long long)sysconf(_SC_PAGESIZE), d->desc->name,
        (unsigned long long)atomic_load(&d->revision));
    if (e == ERR_OK && d->bus != NULL) {
        struct bus_stats s;
        bus_stats(d->bus, &s);
        e = buf_printf(b,
                       "# HELP aigw_bus_connected Whether there is a connection to the bus.\n"
                       "# TYPE aigw_bus_connected gauge\naigw_bus_connected %d\n"
                       "# HELP aigw_bus_messages_total Messages by direction.\n"
                       "# TYPE aigw_bus_messages_total counter\n"
                       "aigw_bus_messages_total{direction=\"in\"} %llu\n"
                       "aigw_bus_messages_total{direction=\"out\"} %llu\n"
                       "# HELP aigw_bus_dropped_total Messages dropped because a queue was full.\n"
                       "# TYPE aigw_bus_dropped_total counter\naigw_bus_dropped_total %llu\n"
                       "# HELP aigw_bus_reconnects_total Connections made again.\n"
                       "# TYPE aigw_bus_reconnects_total counter\naigw_bus_reconnects_total %llu\n",
                       bus_is_connected(d->bus), (unsigned long long)s.in_msgs,
                       (unsigned long long)s.out_msgs, (unsigned long long)s.dropped,
                       (unsigned long long)s.reconnects);
    }
    return e;
}

static void metrics_page(void *ctx, const struct http_request *req, struct http_reply *reply)
{
    struct daemon *d = ctx;
    (void)req;
    reply->content_type = "text/plain; version=0.0.4";
    if (d->desc->scrape != NULL && atomic_load(&d->started)) d->desc->scrape(d);
    if (metrics_render(d->metrics, atomic_load(&d->metrics_n), &reply->body) != ERR_OK ||
        process_metrics(d, &reply->body) != ERR_OK)
        reply->status = 500;
}

enum err daemon_render_metrics(struct daemon *d, struct buf *out)
{
    if (d->desc->scrape != NULL && atomic_load(&d->started)) d->desc->scrape(d);
    return metrics_render(d->metrics, atomic_load(&d->metrics_n), out);
}

enum err daemon_open_ops(struct daemon *d, struct why *why)
{
    const struct http_route own[] = {
        { "GET", "/healthz", healthz },
        { "GET", "/readyz", readyz },
        { "GET", "/metrics", metrics_page },
    };
    size_t n = ARRAY_LEN(own) + d->desc->ops_routes_len;
    d->routes = xcalloc(n, sizeof *d->routes);
    memcpy(d->routes, own, sizeof own);
    if (d->desc->ops_routes_len > 0)
        memcpy(d->routes + ARRAY_LEN(own), d->desc->ops_routes,
               d->desc->ops_routes_len * sizeof *own);
    struct http_server_options o = {
        .bind = d->common.ops_bind,
        .port = (uint16_t)d->common.ops_port,
        .routes = d->routes,
        .routes_len = n,
        .ctx = d,
        .max_body = OPS_MAX_BODY,
        .threads = 1,
        .max_connections = 64,
        .timeout_s = 30,
    };
    return http_server_new(&o, &d->ops, why);
}
