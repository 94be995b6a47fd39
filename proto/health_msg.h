/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an edge saw of an upstream server (SUBJECT_UPSTREAM_HEALTH, pub-sub): a hint for the other
 * edges to look themselves, and an event for people; never a verdict that others take over. At most
 * one per server, edge and second.
 *
 *   {"v","id","ts","from","upstream","upstream_slug","server","server_slug","state":"up"|"down",
 *    "seen":"check"|"requests","why"}
 */
#ifndef PROTO_HEALTH_MSG_H
#define PROTO_HEALTH_MSG_H

#include "proto/envelope.h"

struct health_msg {
    struct str from;                    /* the edge; set by decoding only */
    struct str upstream, upstream_slug; /* id and slug */
    struct str server, server_slug;
    bool up;
    bool by_check; /* an active check said so; else what became of requests */
    struct str why;
    struct json *root;
};

enum err health_msg_encode(const struct health_msg *m, const struct clock *clock,
                           const struct rng *rng, const char *from, struct buf *out) MUSTCHECK;
/* Done with health_msg_done(). */
enum err health_msg_decode(struct str data, struct health_msg *ret, struct why *why) MUSTCHECK;
void health_msg_done(struct health_msg *m);

#endif
