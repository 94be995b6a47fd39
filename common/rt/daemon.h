/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The skeleton of every daemon: a main() is a table and a call. daemon_main() parses argv (-h, -V,
 * -t), blocks signals before any thread exists, reads the settings and reports all errors at once,
 * opens the ops listener (/healthz, /readyz, /metrics), begins to connect the bus, calls start(),
 * and serves until SIGTERM: not ready, grace, quiesce, wait until nothing is in flight or the
 * deadline, stop in reverse, return. A second SIGTERM exits at once.
 */
#ifndef RT_DAEMON_H
#define RT_DAEMON_H

#include "base/clock.h"
#include "base/log.h"
#include "base/metric.h"
#include "base/opt.h"
#include "rt/bus.h"
#include "rt/http_server.h"
#include "rt/loop.h"

struct daemon;
struct json;

enum { DAEMON_DESCRIPTORS = 64 }; /* that any daemon may need, idle */

struct daemon_desc {
    const char *name;       /* service name, such as edge: log field svc, $SRV name aigw-edge */
    const char *about;      /* one sentence */
    const struct opt *opts; /* the daemon's own settings; the common ones are added */
    size_t opts_len, settings_size;
    const struct metric_def *metrics;
    size_t metrics_len;
    uint16_t ops_port; /* default of OPS_PORT */
    bool no_bus;       /* does not use NATS at all (mockllm) */
    int presence_ms;   /* how often it says that it is there; 0: every 5 s */
    /* More routes on the ops listener; ctx is the struct daemon. May be NULL. */
    const struct http_route *ops_routes;
    size_t ops_routes_len;

    /* Checks settings that depend on each other; adds a sentence per problem with opt_problem().
     * May be NULL. */
    void (*check)(const void *settings, struct opt_problems *problems);
    /* How many file descriptors start() may need beside DAEMON_DESCRIPTORS: with fewer the daemon
     * does not start. May be NULL. */
    uint64_t (*descriptors)(const void *settings);
    /* Makes everything; keeps its state with daemon_set_state(). On error nothing may be left
     * running. */
    enum err (*start)(struct daemon *d, struct why *why);
    /* Stop accepting new work. May be NULL. */
    void (*quiesce)(struct daemon *d);
    /* SIGHUP came: what was renamed is to be opened anew. May be NULL: nothing happens then. */
    void (*hangup)(struct daemon *d);
    /* How many pieces of work are in flight: what a drain waits for, and the load that presence
     * tells. May be NULL. */
    size_t (*inflight)(struct daemon *d);
    /* Adds members to what presence says. Between start() and stop(). May be NULL. */
    void (*presence)(struct daemon *d, struct json *m);
    /* Ends and frees everything that start() made. */
    void (*stop)(struct daemon *d);
    /* Adds metrics that are computed at scrape time to m (set gauges). May be NULL. */
    void (*scrape)(struct daemon *d);
};

int daemon_main(int argc, char **argv, const struct daemon_desc *desc);

/* What the hooks and the code behind them use. */
const void *daemon_settings(const struct daemon *d);
void daemon_set_state(struct daemon *d, void *state);
void *daemon_state(const struct daemon *d);
struct loop *
daemon_loop(const struct daemon *d); /* of the main thread: signals, timers, small tasks */
struct bus *daemon_bus(const struct daemon *d); /* NULL with no_bus */
struct metrics *daemon_metrics(const struct daemon *d);
/* One more set of the same metrics, for a thread that counts much: shown as the sum of all sets (so
 * no gauges). The main thread's call; the last is shared when there are too many. */
struct metrics *daemon_more_metrics(struct daemon *d);
const struct clock *daemon_clock(const struct daemon *d);
const struct rng *daemon_rng(const struct daemon *d);
const char *daemon_instance(const struct daemon *d);
const char *daemon_state_dir(const struct daemon *d); /* exists, mode 0700 */
/* Ready when every reason to be unready is gone. A daemon starts with none but "starting", which
 * goes when start() returns: add more in start(), such as daemon_unready(d, "configuration"), and
 * clear them later. Any thread. */
void daemon_unready(struct daemon *d, const char *reason);
void daemon_ready(struct daemon *d, const char *reason);
bool daemon_is_draining(const struct daemon *d);
bool daemon_is_ready(struct daemon *d);
/* One log line about the configuration: what a follower's report() does. Any thread; ctx is not
 * used. */
void daemon_log_report(void *ctx, int level, const char *what, uint64_t revision, const char *why);
/* Tells presence and $SRV what configuration revision is in use, and how loaded we are. Any thread.
 */
void daemon_set_revision(struct daemon *d, uint64_t revision);
void daemon_set_load(struct daemon *d, uint64_t load);
/* The daemon's own metrics (with scrape() called first), for a /metrics beside the ops listener's.
 * Any thread. */
enum err daemon_render_metrics(struct daemon *d, struct buf *out) MUSTCHECK;
/* Ask the daemon to end, as SIGTERM does (for fatal conditions noticed later). Any thread. */
void daemon_end(struct daemon *d, const char *why);

#endif
