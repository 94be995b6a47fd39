/* SPDX-License-Identifier: Apache-2.0 */
/* The enabled policies of one namespace, its own and those for all: between admit*.c. */
#ifndef EDGE_ADMIT_LIST_H
#define EDGE_ADMIT_LIST_H

#include "proto/snapshot.h"

struct admit_list {
    const struct snap_policy **v; /* in the snapshot's order: highest priority first */
    size_t n;
};

#endif
