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
/* Ends what is left, stops and joins the threads. */
void workers_stop(struct edge *e);

#endif
