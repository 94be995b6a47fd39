/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the edge's files share: the process, its workers, its settings. A worker is a thread with a
 * loop; everything that belongs to a request lives and dies on one worker. `struct edge` is made
 * before the workers start and changes only where a member says so.
 */
#ifndef EDGE_EDGE_H
#define EDGE_EDGE_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/list.h"
#include "base/slab.h"
#include "config/follower.h"
#include "http/h1.h"
#include "limits/admit.h"
#include "net/address.h"
#include "net/conn.h"
#include "net/guard.h"
#include "records/identity.h"
#include "records/usage.h"
#include "rt/daemon.h"
#include "settings.h"

struct access_log;
struct certs;
struct ruleset;
struct resolver;
struct counter;
struct count_scratch;
struct models;
struct pools;
struct keyring;
struct tokens;
struct explainer;

enum edge_metric {
    M_REQUESTS,
    M_DURATION,
    M_TTFT,
    M_OVERHEAD,
    M_TPOT,
    M_INFLIGHT,
    M_OPEN_STREAMS,
    M_TOKENS,
    M_COST,
    M_GENAI_USAGE,
    M_GENAI_DURATION,
    M_GENAI_TTFT,
    M_GENAI_TPOT,
    M_REJECTIONS,
    M_SHADOW_REJECTIONS,
    M_LIMIT_WAIT,
    M_UNAVAILABLE,
    M_UTILIZATION,
    M_CUT,
    M_UPSTREAM_ERRORS,
    M_RETRIES,
    M_UPSTREAM_UP,
    M_UPSTREAM_ACTIVE,
    M_BREAKER,
    M_UPSTREAM_NEWS,
    M_UPSTREAM_CHECKS,
    M_CURL_ANSWERS,
    M_CURL_CONNECTIONS,
    M_QUEUE_LENGTH,
    M_QUEUE_SECONDS,
    M_QUEUE_REFUSED,
    M_RETRIES_REFUSED,
    M_CONNECTIONS,
    M_TURNED_AWAY,
    M_MEMORY,
    M_LOG_DROPPED,
    M_DRIFT,
    M_LEASES,
    M_RECORDS,
    M_SPOOL,
    M_EDGE_MAX
};

/* An address as it is recorded: the same clients come again, and a hash is dear. */
struct shown_address {
    unsigned char address[16];
    char shown[IDENTITY_LEN + 1]; /* "": not in use */
};
enum { SHOWN_ADDRESSES = 64 };

struct worker {
    struct edge *edge;
    unsigned index;
    pthread_t thread;
    struct loop *loop;
    struct metrics *metrics; /* its own set, which nobody else counts in */
    struct loop_io listen_io;
    struct ruleset *rules; /* ours, swapped between requests; NULL until there is a configuration */
    struct list_node clients;
    struct list_node drained;  /* requests whose client is gone, see flow_drain.c */
    struct guard_share memory; /* what clients and requests of this worker hold */
    size_t flows;              /* requests under way, until the last callback has come */
    void *ended;               /* at the end: told when flows is 0; see worker.c */
    struct loop_timer accept_timer;
    struct tokens *tokens; /* that were verified */
    struct pools *pools;   /* connections to upstream servers */
    struct loop_timer housekeeping;
    struct shown_address shown[SHOWN_ADDRESSES];
    char scratch[SCRATCH_SIZE];                            /* one read at a time */
    struct slab request_memory, flow_memory, asked_memory; /* of what each request needs */
    struct buf gather, fields; /* for building heads, and lines of them */
    struct count_scratch *counting;
};

struct edge {
    struct daemon *daemon;
    const struct edge_settings *settings;
    const struct clock *clock;
    const struct rng *rng;
    struct metrics *metrics;
    int listen_fd;
    struct worker *workers;
    unsigned workers_n;
    unsigned char master_key[32], key_pepper[32];
    enum identity_mode identities;
    struct address_networks trusted_proxies;
    enum address_field address_field; /* that they write */
    struct explainer *explainer;
    struct follower *follower;
    struct limiter *limiter;
    struct usage *usage;   /* NULL: no records are kept */
    struct bus *usage_bus; /* NULL then. Records go in bulk, and delay nothing else */
    struct resolver *resolver;
    struct keyring *keyring;
    struct fleet *fleet;
    struct checker *checker;
    struct certs *certs;
    struct loop_timer certs_timer; /* of the main thread */
    struct library *library;       /* the vocabularies of VOCAB_DIR */
    struct counter *counter;
    _Atomic uint64_t inflight, streams;
    struct guard *guard;
    struct access_log *access_log; /* NULL: off */
    enum trace_mode trace_context;
    bool drains;                /* ON_CLIENT_GONE=drain */
    _Atomic bool running;       /* the workers are */
    _Atomic uint64_t flushing;  /* connections whose answer is whole but not yet taken */
    pthread_mutex_t rules_lock; /* guards rules */
    struct ruleset *rules;      /* the newest; workers hold their own references */
};

static inline uint64_t edge_now_ns(const struct worker *w)
{
    return clock_mono_ns(w->edge->clock);
}

/* Series of a family, by label values (as many as it has labels). */
static inline struct metric *edge_metric(struct edge *e, enum edge_metric m,
                                         const struct str *labels)
{
    return metrics_get(e->metrics, m, labels);
}

#endif
