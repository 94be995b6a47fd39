/* SPDX-License-Identifier: Apache-2.0 */
/*
 * aigw-token's state, shared by its HTTP handlers (server threads), its bus workers and the
 * configuration's follower thread. Only the registry changes after the start: under `lock`, by a
 * swap; everyone else takes a reference.
 */
#ifndef TOKEN_SERVICE_H
#define TOKEN_SERVICE_H

#include <pthread.h>
#include <stdatomic.h>

#include "proto/token_msg.h"
#include "rt/daemon.h"
#include "tokenizer/models.h"

enum { MAX_BODY = 8 << 20, MAX_INPUTS = 4096 };

struct settings {
    const char *bind, *vocab_dir;
    int64_t port, threads;
};

enum metric_id {
    M_REQUESTS, /* endpoint, status */
    M_TOKENS,   /* vocabulary */
    M_BYTES,    /* vocabulary */
    M_SECONDS,  /* vocabulary */
    M_QUEUE,
    M_VOCABULARIES,
    M_MAX
};

struct bus_workers;

struct service {
    struct daemon *daemon;
    const struct settings *settings;
    unsigned threads;
    const struct clock *clock;
    const struct rng *rng;
    struct metrics *metrics;
    struct models *vocabularies; /* as loaded: without the configuration's entries */
    pthread_mutex_t lock;        /* guards the next one */
    struct models *models;
    struct http_server *http;
    struct bus *bus;
    struct bus_workers *workers;
    struct follower *follower;
};

/* The registry in use, with a reference of its own. */
struct models *service_models(struct service *s);
void service_use_models(struct service *s, struct models *takes);

/* Counts one request and notes it in the metrics. bytes: of what was asked. */
enum err service_count(struct service *s, const struct models *models, struct token_request *q,
                       size_t bytes, struct arena *a, struct chat_count *ret,
                       struct chat_error *error) MUSTCHECK;
void service_note_request(struct service *s, const char *endpoint, int status);

/* http.c */
enum err http_start(struct service *s, struct why *why) MUSTCHECK;

/* bus.c: answers token.count on worker threads, so that a long prompt does not delay short ones. */
enum err bus_workers_start(struct service *s, unsigned threads, struct bus_workers **ret,
                           struct why *why) MUSTCHECK;
void bus_workers_quiesce(struct bus_workers *w); /* no new requests */
size_t bus_workers_inflight(const struct bus_workers *w);
void bus_workers_free(struct bus_workers *w); /* waits for what is under way; NULL is fine */

#endif
