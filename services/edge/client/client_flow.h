/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a client's connection asks of the flow that answers its request. flow/ defines these: it
 * knows the client, the client knows no more of it than this. On the connection's worker.
 */
#ifndef EDGE_CLIENT_FLOW_H
#define EDGE_CLIENT_FLOW_H

#include "client.h"
#include "dialects/dialect.h"

/* For a request whose head is parsed. NULL: out of memory. */
struct flow *flow_new(struct client *c);
/* Checks what the head tells. False when it was answered (the flow is gone). */
bool flow_check_head(struct flow *f);

enum flow_body_status { FLOW_BODY_MORE, FLOW_BODY_READY, FLOW_BODY_REFUSED };
/* Takes body bytes that the client has read. REFUSED: answered, the flow is gone. */
enum flow_body_status flow_take_body(struct flow *f);
size_t flow_body_room(const struct flow *f); /* bytes the client may read now */
/* Bytes behind the head that belong to this request. */
size_t flow_body_bytes(const struct flow *f);
void flow_refuse_body(struct flow *f, enum refusal r, const char *why);

/* The body is whole: goes on until the flow has to wait. */
void flow_run(struct flow *f);
/* Bytes went to its client. */
void flow_note_sent(struct flow *f, size_t n);
/* All output was taken: go on reading upstream. */
void flow_client_drained(struct flow *f);
/* The client's connection is gone. */
void flow_client_gone(struct flow *f);
/* The process ends: outcome shutdown. */
void flow_shutdown(struct flow *f);
/* Bytes that it holds beside its client's buffers, about. */
size_t flow_memory(const struct flow *f);

#endif
