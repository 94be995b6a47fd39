/* SPDX-License-Identifier: Apache-2.0 */
/* GET /debug/requests of the ops listener: what is in flight, and in which state. */
#ifndef EDGE_DEBUG_H
#define EDGE_DEBUG_H

#include "rt/http_server.h"

/* ctx: the daemon. On the ops listener's thread: asks every worker, and waits for each at most a
 * second; what has not answered by then is left out, and "complete" is false. */
void debug_requests(void *ctx, const struct http_request *req, struct http_reply *reply);

#endif
