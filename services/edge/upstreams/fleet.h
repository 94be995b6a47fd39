/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The upstream servers as this edge knows them: health, requests under way, queues, retry budgets.
 * One per process, shared by its workers: a short lock per upstream, none held while calling out.
 *
 * State outlives configurations: a server keeps its own as long as some ruleset names its upstream,
 * id and URL. A ruleset holds one `struct group` per upstream; requests use the group of the
 * ruleset that they began with, on the state that all share.
 *
 * A request that finds every fit server full waits in the upstream's queue: one queue per edge
 * process, in order of arrival over all its workers, at most queue.max long and queue.timeout_ms of
 * patience. Whoever leaves a server hands its place to the first in the queue.
 */
#ifndef EDGE_FLEET_H
#define EDGE_FLEET_H

#include "balance.h"
#include "base/list.h"
#include "rt/loop.h"

struct fleet;
struct group;

enum fleet_news {
    FLEET_CHECK_DOWN,
    FLEET_CHECK_UP,
    FLEET_EJECTED,
    FLEET_BREAKER_OPENED,
    FLEET_BREAKER_CLOSED,
    FLEET_COOLING,
    FLEET_SUSPECTED, /* another edge saw it fail; no event of ours */
    FLEET_NEWS_MAX
};
const char *fleet_news_name(enum fleet_news n);
struct fleet_event {
    enum fleet_news what;
    const struct snap_upstream *upstream;
    const struct snap_server *server;
    const char *why; /* never NULL */
};

struct fleet_options {
    const struct clock *clock;
    const struct rng *rng;
    /* A server's state changed; any thread, no lock held. May be NULL. */
    void (*event)(void *ctx, const struct fleet_event *ev);
    void *ctx;
};

struct fleet *fleet_new(const struct fleet_options *o);
void fleet_free(struct fleet *f); /* no group may be left; NULL is fine */

/* u is borrowed: the group must go before its snapshot does. Any thread. */
struct group *group_new(struct fleet *f, const struct snap_upstream *u);
void group_free(struct group *g); /* NULL is fine */

/* A place at a server, for one attempt. Zeroed: none. */
struct seat {
    struct group *group; /* NULL: none */
    size_t server;       /* its place in the upstream's list */
    unsigned probe;      /* of a half-open breaker: in which turn, until something was told */
    bool retry;
};

/* Chooses a server and takes a place there. hash and tried of *ask are the request's. None is fit:
 * *ret_wait_ms is when one may be fit again; 0: unknown. queue: with BALANCE_FULL the caller is
 * going to wait, so it does not pass others who do. now: a reading of the fleet's clock, which may
 * be a little old; each request would read it several times. */
enum balance_verdict group_take(struct group *g, const struct balance_ask *ask, uint64_t now,
                                bool queue, struct seat *ret, uint64_t *ret_wait_ms);
/* What became of it; once or more often, before the place is left. why: of a failure. */
void seat_succeeded(struct seat *s, uint64_t now);
void seat_failed(struct seat *s, const char *why);
/* The server asks to be left alone for so long; limited: until its rate limit lets it go on. */
void seat_cool(struct seat *s, uint64_t ms, bool limited);
/* Leaves it; nothing happens when there is none. */
void seat_leave(struct seat *s);

/* One who waits; embedded in the request. */
struct waiter {
    struct list_node node;
    struct group *group;
    struct balance_ask ask;
    struct seat seat; /* what it got */
    struct loop *loop;
    loop_fn fn; /* on the loop, when it got a place */
    void *ctx;
    uint64_t since, deadline; /* ns */
};
/* ERR_LIMIT: the queue is full. fn is called once, unless group_forget() says otherwise. */
enum err group_wait(struct group *g, const struct balance_ask *ask, struct loop *loop, loop_fn fn,
                    void *ctx, struct waiter *w) MUSTCHECK;
/* True: it waits no more, and is not called. False: it got a place, and will be called. */
bool group_forget(struct waiter *w);

/* A request for this upstream began: its share of the retry budget. */
void group_count_request(struct group *g, uint64_t now);
/* Takes one retry out of the budget; false when it is used up. */
bool group_may_retry(struct group *g);

/* Result of an active check; why: of a failure. */
void group_checked(struct group *g, size_t server, bool ok, const char *why);
/* Another edge saw it fail. */
void group_suspect(struct group *g, size_t server);
/* Gives places to those who wait where time has made one: to be called now and then. */
void fleet_tick(struct fleet *f);

struct fleet_server_stats {
    const struct snap_server *server;
    enum health_bar bar;
    enum breaker_state breaker;
    uint64_t active, news[FLEET_NEWS_MAX];
    uint64_t checks_good, checks_bad;
};
struct fleet_group_stats {
    uint64_t queued, queue_refused, queue_timeouts, retries, retries_refused;
};
/* servers: as many as the group's upstream has. Any thread. */
void group_stats(struct group *g, struct fleet_group_stats *ret,
                 struct fleet_server_stats *ret_servers);

#endif
