/* SPDX-License-Identifier: Apache-2.0 */
/* clang-format off */
/*
 * The life of one request. READ THIS FIRST.
 *
 *   FLOW_BODY   the head is read: credentials, namespace and route are checked; the body comes in
 *   FLOW_COUNT  the body is scanned; the input's tokens are counted (a long prompt elsewhere)
 *   FLOW_ADMIT  all limits at once, or none; usually decided at once from leases
 *   FLOW_WAIT   waits for a server with room, or is sent upstream; nothing of an answer came, and
 *               another server may still be tried
 *   FLOW_RELAY  the answer comes, is metered, and cut where its budget ends; until its first event
 *               or whole body is there nothing is passed on, and FLOW_WAIT may come again
 *   FLOW_DONE   settled: slots given back, the usage record complete
 *
 * Every way out goes through flow_settle(), once. What arrives (bytes, a count, a lease, a place at
 * a server, a time-out, a client that left) is dispatched on the state. On its worker's thread;
 * what comes from elsewhere is posted to it.
 */
/* clang-format on */
#ifndef EDGE_FLOW_H
#define EDGE_FLOW_H

#include "client/client_flow.h"

enum flow_state { FLOW_BODY, FLOW_COUNT, FLOW_ADMIT, FLOW_WAIT, FLOW_RELAY, FLOW_DONE };
const char *flow_state_name(enum flow_state s);

/* Sets up a worker's memory for flows; so many pieces of each kind may rest. */
void flow_slabs(struct worker *w, size_t most);
/* What it is and does, as a JSON object; no secret, addresses as in records. */
enum err flow_describe(const struct flow *f, struct buf *out) MUSTCHECK;
/* flow_shutdown() of one in the worker's list of those whose client is gone. */
void flow_shutdown_drained(struct list_node *n);

#endif
