/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A refusal and why (SUBJECT_POLICY_REJECTED, pub-sub): an event for people and dashboards,
 * sampled, never the source of a count.
 *
 *   {"v","id","ts","from","namespace","policy","slug","dimension":"requests"|"tokens"|"concurrency"|
 *    "cost"|"input_tokens"|"access"|"body_size",
 *    "limit","used","retry_ms"?,"for_good"?,"shadow"?,"unavailable"?,"count"}
 */
#ifndef PROTO_REJECTED_MSG_H
#define PROTO_REJECTED_MSG_H

#include "proto/envelope.h"

struct rejected_msg {
    struct str from;         /* the edge; set by decoding only */
    struct str ns;           /* slug of the namespace */
    struct str policy, slug; /* id and slug of the policy */
    struct str dimension;
    uint64_t limit, used, retry_ms;
    bool for_good;    /* could never be admitted */
    bool shadow;      /* would have been refused, was not */
    bool unavailable; /* not over the limit: the engine was away, and the policy says deny */
    uint64_t count;   /* refusals by this policy at this edge that the message stands for, >= 1 */
    struct json *root;
};

enum err rejected_msg_encode(const struct rejected_msg *m, const struct clock *clock,
                             const struct rng *rng, const char *from, struct buf *out) MUSTCHECK;
enum err rejected_msg_decode(struct str data, struct rejected_msg *ret, struct why *why) MUSTCHECK;
void rejected_msg_done(struct rejected_msg *m);

#endif
