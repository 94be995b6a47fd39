/* SPDX-License-Identifier: Apache-2.0 */
/* W3C trace context: what a client's traceparent says, and ours behind it. Pure. */
#ifndef EDGE_TRACE_H
#define EDGE_TRACE_H

#include <stdint.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/str.h"

enum { TRACE_ID_LEN = 32, SPAN_ID_LEN = 16, TRACE_PARENT_LEN = 55 };

struct trace {
    char id[TRACE_ID_LEN + 1], span[SPAN_ID_LEN + 1];
    char parent[SPAN_ID_LEN + 1]; /* the client's span; "": it sent none */
    uint8_t flags;
};

/* Takes "00-<trace>-<span>-<flags>" (lower-case hex, neither of zeros only; of a higher version
 * what stands there the same way, but ff) and begins a span of ours. False: it is not that. */
bool trace_take(struct str traceparent, const struct rng *rng, struct trace *ret);
/* A trace that begins here; not sampled. */
void trace_begin(const struct rng *rng, struct trace *ret);
/* The field's value, with a NUL. */
void trace_write(const struct trace *t, char out[TRACE_PARENT_LEN + 1]);

#endif
