/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The plan: which processes to run, in what order, and how to tell that one is ready. A text file:
 *
 *   # comment
 *   process edge-1
 *     after config policy-1                 start when these have been ready once
 *     command build/bin/aigw-edge           words; "…" keeps spaces; no shell
 *     directory /path                       where to run; default: where aigw-run was started
 *     env-file state/secrets/edge.env       NAME=VALUE lines, read at each start
 *     env PORT=8081                         one per line; the value is the rest of the line
 *     ready http://127.0.0.1:9081/readyz    200 means ready; without it, running is ready
 *     ready-timeout 60s
 *     stop-timeout 40s                      from SIGTERM to SIGKILL
 *     port 8081 GATEWAY_PORT                must be free at the start; the setting that moves it
 *
 * Pure: text in, structs out. A plan belongs to whoever parsed it and does not change.
 */
#ifndef RUN_PLAN_H
#define RUN_PLAN_H

#include <stdint.h>

#include "base/arena.h"

enum {
    PLAN_MAX_BYTES = 1024 * 1024,
    PLAN_MAX_PROCESSES = 256,
    PLAN_MAX_WORDS = 64,
    PLAN_READY_TIMEOUT_MS = 60000,
    PLAN_STOP_TIMEOUT_MS = 40000,
};

/* http://HOST:PORT/PATH with a numeric host (or localhost, which is 127.0.0.1). */
struct plan_url {
    const char *host, *path; /* host NULL: none given */
    uint16_t port;
};

struct plan_port {
    uint16_t port;
    const char *setting; /* "" when not given */
};

struct plan_process {
    const char *name;
    char *const *argv; /* NULL-terminated */
    char *const *env;  /* NAME=VALUE, NULL-terminated */
    size_t env_n;
    const char *directory, *env_file; /* NULL: none */
    struct plan_url ready;
    const struct plan_port *ports;
    size_t ports_n;
    const size_t *after; /* indices of processes */
    size_t after_n;
    uint64_t ready_timeout_ms, stop_timeout_ms;
};

struct plan {
    struct plan_process *processes; /* each after all that it comes after */
    size_t n;
    struct arena arena; /* private */
};

/* ERR_INVALID with the line number in why; ERR_LIMIT when it is too large. */
enum err plan_parse(struct str text, struct plan *ret, struct why *why) MUSTCHECK;
void plan_done(struct plan *p);

/* The NAME=VALUE lines of an env-file (empty lines and # comments are skipped), in the arena. The
 * array is NULL-terminated. */
enum err plan_parse_env(struct str text, struct arena *arena, char ***ret, size_t *ret_n,
                        struct why *why) MUSTCHECK;

/* "500ms", "10s", "2m" in milliseconds, at most a day. */
enum err plan_parse_duration(struct str s, uint64_t *ret_ms) MUSTCHECK;
enum err plan_parse_url(struct str s, struct arena *arena, struct plan_url *ret) MUSTCHECK;

#endif
