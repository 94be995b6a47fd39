/* SPDX-License-Identifier: Apache-2.0 */
/*
 * aigw-token's state, shared by its HTTP handlers (server threads), its pool, its bus callbacks,
 * the configuration's follower and the thread that watches VOCAB_DIR. Only the registry changes
 * after the start: under `lock`, by a swap; everyone else takes a reference.
 */
#ifndef TOKEN_SERVICE_H
#define TOKEN_SERVICE_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/stop.h"
#include "pool.h"
#include "proto/token_msg.h"
#include "rt/daemon.h"
#include "tokenizer/models/models.h"

enum { MAX_BODY = 8 << 20, MAX_INPUTS = 4096 };

struct settings {
    const char *bind, *vocab_dir;
    int64_t port, threads, queue_jobs, queue_bytes;
};

enum metric_id {
    M_REQUESTS, /* endpoint, status, outcome */
    M_TOKENS,   /* vocabulary */
    M_BYTES,    /* vocabulary */
    M_SECONDS,  /* vocabulary */
    M_WAITING,  /* lane */
    M_RUNNING,  /* lane */
    M_VOCABULARIES,
    M_UNUSABLE,
    M_PIECES, /* vocabulary, result */
    M_MAX
};

struct bus_face;
struct library;

struct service {
    struct daemon *daemon;
    const struct settings *settings;
    unsigned threads;
    const struct clock *clock;
    const struct rng *rng;
    struct metrics *metrics;
    struct pool *pool;
    struct library *library;
    pthread_mutex_t lock;        /* guards the next three */
    struct models *vocabularies; /* as they are in VOCAB_DIR: without the configuration's entries */
    struct models *models;
    bool configured; /* models has entries of a configuration */
    struct http_server *http;
    struct json *openapi;
    struct bus *bus;
    struct bus_face *face;
    struct follower *follower;
};

/* The registry in use, with a reference of its own. */
struct models *service_models(struct service *s);
/* The same of the vocabularies alone. */
struct models *service_vocabularies(struct service *s);
/* Other vocabularies: in use at once while there is no configuration; otherwise the caller sees to
 * it that service_use_models() follows. */
void service_use_vocabularies(struct service *s, struct models *takes);
/* The vocabularies with a configuration's entries. */
void service_use_models(struct service *s, struct models *takes);

/* Who waits for an answer. Counting asks `stop` and gives up when nobody does any more. */
struct waiter {
    struct stop stop;
    const struct service *service;
    const struct http_request *http; /* or NULL */
    uint64_t deadline_ns;            /* 0: none */
};
void waiter_init(struct waiter *w, const struct service *s, const struct http_request *http);

/* Counts one request and notes it in the metrics. bytes: of what was asked. ERR_CLOSED: nobody
 * waits any more; else as token_request_count(). */
enum err service_count(struct service *s, const struct models *models, struct token_request *q,
                       size_t bytes, const struct waiter *w, struct arena *a,
                       struct chat_count *ret, struct chat_error *error) MUSTCHECK;
/* status as HTTP has it; SERVICE_GONE: nobody waits any more. */
enum { SERVICE_GONE = 499 };
void service_note_request(struct service *s, const char *endpoint, int status);

/* http.c: the listener, and what is answered at once */
enum err http_start(struct service *s, struct why *why) MUSTCHECK;
/* {"error":{"message","type","param","code"}}; param "": null */
void http_error(struct http_reply *reply, int status, const char *message, const char *param,
                const char *code);

/* http_count.c: what is counted, on the pool's threads */
typedef void http_work(struct service *s, const struct http_request *req, const struct waiter *w,
                       struct http_reply *reply);
http_work http_calculate, http_tokenize, http_count_batch;

/* openapi.c */
struct str openapi_yaml(void);

/* bus.c: answers token.count on the pool's threads */
enum err bus_face_start(struct service *s, struct bus_face **ret, struct why *why) MUSTCHECK;
void bus_face_quiesce(struct bus_face *f); /* no new requests */
void bus_face_free(struct bus_face *f);    /* the pool is gone by then; NULL is fine */

#endif
