/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The mock's listener and its worker threads: each has a loop of its own and owns the connections
 * that it accepted; all share the listening socket, the store and the counter.
 */
#ifndef SERVER_H
#define SERVER_H

#include "count.h"
#include "rt/loop.h"
#include "store.h"

struct server;

struct server_options {
    const char *bind;
    uint16_t port; /* 0: any */
    unsigned threads;
    const char *behaviour; /* the default one, as in x-mock */
    const char *api_key;   /* NULL or "": any key will do */
    const char *models;    /* separated by commas, for /v1/models */
    uint64_t idle_ms;      /* of connections between requests */
    bool record_all;
    size_t record_body;    /* bytes of a body that are kept */
    struct models *vocabs; /* taken over; NULL: none */
    const struct clock *clock;
};

/* Listens and starts the threads. Copies what it is given. */
enum err server_new(const struct server_options *o, struct server **ret, struct why *why) MUSTCHECK;
uint16_t server_port(const struct server *s);
struct store *server_store(struct server *s);
/* Any thread: accept no more, close what is idle, end each connection after its answer. */
void server_quiesce(struct server *s);
size_t server_inflight(struct server *s);
void server_free(struct server *s);

#endif
