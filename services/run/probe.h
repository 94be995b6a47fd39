/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One readiness probe: GET over plain HTTP/1.1, of which the status code matters, and the first
 * line of a body that says why not. On the loop's thread.
 */
#ifndef RUN_PROBE_H
#define RUN_PROBE_H

#include "plan.h"
#include "rt/loop.h"

enum { PROBE_TIMEOUT_MS = 2000, PROBE_ANSWER_MAX = 1024, PROBE_SAID_MAX = 160 };

/* status: of the answer, or 0 when there was none in time. Called once per probe_start(). */
typedef void (*probe_fn)(void *ctx, int status);

/* Embedded; zero it before first use. */
struct probe {
    struct loop *loop;
    struct loop_io io;
    struct loop_timer deadline;
    probe_fn fn;
    void *ctx;
    bool running;
    char request[512];
    size_t request_n, sent;
    char
        answer[PROBE_ANSWER_MAX]; /* its beginning; no more than the status line when that is 200 */
    size_t answer_n;
};

/* The answer never comes before this returns. Does nothing while one is running. */
void probe_start(struct probe *p, struct loop *loop, const struct plan_url *url, probe_fn fn,
                 void *ctx);
void probe_cancel(struct probe *p); /* fn is not called */

/* The code of "HTTP/1.1 200…": 0 when it is no status line, or is not all there yet. */
int probe_status(struct str head);
/* The first line of an answer's body, without what is not printable; "" when there is none. Without
 * the "not ready: " that our daemons begin it with. */
void probe_said(struct str answer, char ret[PROBE_SAID_MAX]);

#endif
