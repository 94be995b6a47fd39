/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A route's default and maximum parameters, as edits of a request's body, which is otherwise kept
 * as the client wrote it. What bounds the output (max_tokens and its other names) is one bound, and
 * enters what is reserved. Pure.
 */
#ifndef EDGE_PARAMS_H
#define EDGE_PARAMS_H

#include "dialects/dialect.h"
#include "proto/snapshot.h"

/* A value that is put in the place of another, or in as a new member (at.raw.p == NULL). */
struct param_edit {
    struct js_val at;
    struct str name, value; /* JSON; the name without quotes */
};

struct params {
    struct param_edit edits[SNAP_PARAMS_MAX];
    size_t edits_n;
    uint64_t output_max;    /* tokens of a choice; PARAMS_NO_MAX: none */
    struct str output_name; /* a default bound, to be inserted when there is none: p == NULL */
    uint64_t output_default;
};
#define PARAMS_NO_MAX UINT64_MAX

/* What the route wants changed. found: by parameter of the route, what the body has. Updates the
 * scan's max_tokens and choices to what will be sent. */
void params_apply(const struct snap_route *r, const struct js_val *const *found,
                  struct request_scan *scan, struct params *ret);

#endif
