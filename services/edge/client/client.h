/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A client's connection: reads requests one after the other (what is pipelined waits), writes
 * answers in order, keeps the connection or ends it. What a request means is the flow's affair
 * (flow.h). On its worker's thread.
 */
#ifndef EDGE_CLIENT_H
#define EDGE_CLIENT_H

#include <netinet/in.h>
#include <string.h>

#include "edge.h"
#include "net/conn.h"

struct flow;

enum client_state {
    CLIENT_PROXY,  /* waits for the header of a load balancer; the address is not known yet */
    CLIENT_HEAD,   /* waits for, or reads, a request's head */
    CLIENT_BODY,   /* reads its body */
    CLIENT_BUSY,   /* a flow answers */
    CLIENT_ENDING, /* the answer is whole and is sent when this turn ends; nothing is read */
    CLIENT_FLUSH, /* the answer is whole and waits for the client to take it; then HEAD or LINGER */
    CLIENT_LINGER /* the last answer is sent; what the client still sends is thrown away, so that it
                     can read that answer */
};

enum client_framing { FRAME_LENGTH, FRAME_CHUNKED, FRAME_CLOSE, FRAME_NONE };

struct client {
    struct worker *w;
    struct list_node node; /* in worker.clients */
    struct conn conn;
    enum client_state state;
    struct buf in; /* request bytes: head and body of the one in progress, and what follows */
    struct h1_request
        *request; /* slices of in; goes when the answer has begun and nobody needs it */
    struct flow *flow;
    struct loop_timer timer;
    uint64_t deadline; /* when what is waited for must have come; 0: nothing is */
    uint64_t head_began, linger_bytes;
    int64_t accounted;          /* bytes of memory that this connection stands for */
    uint64_t requests;          /* so far */
    enum guard_verdict verdict; /* not GUARD_IN: it is only told why it cannot stay */
    uint64_t taken_mark;        /* conn_taken() when the write timer was set */
    bool must_close, answer_begun, dead;
    bool broken;                 /* the output cannot be completed: nothing more is taken */
    enum client_framing framing; /* of the answer */
    struct sockaddr_in6 peer;    /* or sockaddr_in, as its family tells: client_address() */
};

/* Takes the fd. */
void client_accept(struct worker *w, int fd, const struct sockaddr_storage *addr,
                   enum guard_verdict verdict);
/* Whom it is from: AF_UNSPEC as long as that is not known. */
static inline void client_address(const struct client *c, struct sockaddr_storage *ret)
{
    memset(ret, 0, sizeof *ret);
    memcpy(ret, &c->peer, sizeof c->peer);
}
static inline void client_set_address(struct client *c, const struct sockaddr_storage *addr)
{
    memcpy(&c->peer, addr, sizeof c->peer);
}
/* Tells the memory account what the connection and its request hold now. */
void client_account(struct client *c);
/* The memory of what it read, and of the request in progress, is of no use any more. */
void client_drop_input(struct client *c);
void client_drop_request(struct client *c);
/* Ends the connection at once; the flow is told. */
void client_kill(struct client *c);
/* Draining: idle ones are closed, busy ones end after their answer. */
void client_drain(struct client *c);
/* The process ends: a flow is told to shut down; what the kernel has taken is still delivered. */
void client_stop(struct client *c);

/* --- for the flow --- */

/* Begins the answer. fields: further header lines, each with CRLF. length: of FRAME_LENGTH. The
 * client adds connection and framing fields. FRAME_CHUNKED becomes FRAME_CLOSE with HTTP/1.0. */
void client_answer(struct client *c, int status, struct str fields, enum client_framing framing,
                   uint64_t length);
/* A piece of the answer's body; sent by client_flush(). False when too much waits or the connection
 * is gone. */
bool client_send(struct client *c, struct str data);
void client_flush(struct client *c);
size_t client_waiting(const struct client *c);
/* The answer is whole: the connection goes on to the next request, or ends. The flow is forgotten.
 */
void client_answer_end(struct client *c);
/* The answer cannot be completed: the connection ends without its terminator. The flow is
 * forgotten. */
void client_answer_broken(struct client *c);
/* The input buffer moved: finds the request's slices again. */
void client_rebase(struct client *c);
/* The request's head and body are not needed any more: frees their memory. */
void client_release_request(struct client *c);
bool client_answer_begun(const struct client *c);

#endif
