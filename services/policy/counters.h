/* SPDX-License-Identifier: Apache-2.0 */
/* Answers looks at counters and resets (proto/counters_msg.h) from the engine. Any thread. */
#ifndef POLICY_COUNTERS_H
#define POLICY_COUNTERS_H

#include "engine.h"

/* Appends the reply, which is an error message when the ask could not be served (then that error is
 * returned as well, and *why says it). *ret_note: what is worth a log line, or "". */
enum err counters_serve(struct engine *e, const struct clock *clock, const struct rng *rng,
                        const char *instance, struct str ask, struct buf *reply, char ret_note[256],
                        struct why *why);

#endif
