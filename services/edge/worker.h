/* SPDX-License-Identifier: Apache-2.0 */
/* The edge's threads: each accepts from the one listening socket, and owns the connections it
 * accepted. */
#ifndef EDGE_WORKER_H
#define EDGE_WORKER_H

#include "edge.h"

/* Listens at settings->bind:port. Owned fd. */
enum err worker_listen(const struct edge_settings *s, int *ret_fd, struct why *why) MUSTCHECK;
/* Starts the threads. */
void workers_start(struct edge *e);
/* Hands the newest ruleset to every worker; any thread. */
void workers_use_rules(struct edge *e, struct ruleset *r);
/* Stops accepting; idle connections are closed. */
void workers_quiesce(struct edge *e);
/* Ends what is left, and waits until no request has a callback to come: from then on nothing asks
 * the counter or the limiter. The threads go on, so that these find their loops. */
void workers_end(struct edge *e);
/* Stops and joins the threads. */
void workers_stop(struct edge *e);
/* A flow of this worker is gone; its thread. */
void worker_flow_gone(struct worker *w);

#endif
