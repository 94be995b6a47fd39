/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Runs a plan: starts each process when those it waits for are ready, starts one that dies again
 * after a pause, and ends all in reverse order on SIGTERM or SIGINT (a second one: at once). One
 * thread, which owns everything; signals are blocked and come through a descriptor.
 */
#ifndef RUN_SUPERVISE_H
#define RUN_SUPERVISE_H

#include "plan.h"

/* A process that dies so often before it was ever ready makes the start fail. */
enum {
    START_MAX_DEATHS = 5,
    PROBE_FIRST_MS = 50,
    PROBE_MAX_MS = 500,
    PROBE_IDLE_MS = 5000,
    TELL_EVERY_MS = 5000
};

struct supervise_options {
    const struct plan *plan;
    const char *log_dir; /* of NAME.log */
    const char *run_dir; /* of NAME.pid and status */
    /* Where progress is told until all are ready: each line begins with ' ' (progress), '+' (all
     * are ready; the last line) or '!' (failed; the last line). When its reader goes away before
     * that, everything is stopped. -1: nowhere. */
    int report_fd;
};

/* Returns when all have ended: true when that was asked for, false when the start failed. */
bool supervise(const struct supervise_options *o);

/* The file that says what runs: one line per process, "name state pid restarts since", separated by
 * tabs; since in seconds since 1970. */
#define SUPERVISE_STATUS_FILE "status"

#endif
