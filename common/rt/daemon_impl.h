/* SPDX-License-Identifier: Apache-2.0 */
/* What daemon.c (settings, signals, presence, the end) and daemon_ops.c (the ops listener) share.
 */
#ifndef RT_DAEMON_IMPL_H
#define RT_DAEMON_IMPL_H

#include <pthread.h>
#include <stdatomic.h>

#include "rt/daemon.h"

#ifndef AIGW_VERSION
#define AIGW_VERSION "0.0.0"
#endif

enum {
    METRICS_MAX = 257,
    MAX_REASONS = 8,
    REASON_LEN = 96,
    PRESENCE_MS = 5000,
    DRAIN_POLL_MS = 20,
    OPS_MAX_BODY = 65536
};

/* Settings that every daemon has. */
struct common_settings {
    const char *instance, *ops_bind, *state_dir, *nats_url, *nats_user, *nats_password, *prefix;
    int64_t ops_port, log_level, drain_grace_ms, drain_timeout_ms;
};

enum phase { PHASE_SERVING, PHASE_GRACE, PHASE_DRAINING, PHASE_STOPPED };

struct daemon {
    const struct daemon_desc *desc;
    struct common_settings common;
    void *settings;
    void *state;
    struct loop *loop;
    struct bus *bus;
    struct metrics *metrics[METRICS_MAX];
    _Atomic size_t metrics_n;
    struct http_server *ops;
    struct loop_io signals;
    struct loop_timer presence_timer, drain_timer;
    enum phase phase;
    _Atomic bool draining, started;
    uint64_t drain_deadline;
    _Atomic uint64_t revision, load;
    pthread_mutex_t lock; /* guards reasons */
    char reasons[MAX_REASONS][REASON_LEN];
    struct http_route *routes;
};

/* Opens /healthz, /readyz, /metrics and the daemon's own ops routes. */
enum err daemon_open_ops(struct daemon *d, struct why *why) MUSTCHECK;

#endif
