/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An instance will not come back, says an operator (SUBJECT_INSTANCE_GONE, pub-sub): what policy
 * engines have set aside for an edge that fell silent is free again, and it is listed no more. Who
 * makes itself heard afterwards is there again, and nothing else happened.
 *
 *   {"v","id","ts","from","instance"}
 */
#ifndef PROTO_GONE_MSG_H
#define PROTO_GONE_MSG_H

#include "proto/envelope.h"

enum { GONE_INSTANCE_MAX = 127 };

/* instance: 1 to GONE_INSTANCE_MAX bytes. */
enum err gone_msg_encode(struct str instance, const struct clock *clock, const struct rng *rng,
                         const char *from, struct buf *out) MUSTCHECK;
enum err gone_msg_decode(struct str data, char ret_instance[GONE_INSTANCE_MAX + 1],
                         struct why *why) MUSTCHECK;

#endif
