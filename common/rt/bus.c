/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The connection. The connecting thread makes it; cnats reconnects by itself, but gives up for good
 * in some cases (the same refusal of a log-in twice): then the connecting thread makes a new one
 * and all subscriptions anew. See bus_impl.h for threads and locks.
 */
#include "rt/bus.h"

#include <nats/nats.h>
#include <stdio.h>
#include <stdlib.h>

#include "rt/bus_impl.h"

enum {
    CONNECT_TIMEOUT_MS = 2000,
    BACKOFF_MIN_MS = 50,
    BACKOFF_MAX_MS = 2000,
    PING_INTERVAL_MS = 2000,
    PINGS_OUT = 2,
    WRITE_DEADLINE_MS = 1000,
    BULK_BUFFER = 512 * 1024 /* what waits to be sent together, where it may */
};

/* --- errors and subjects */

enum err bus_err(natsStatus s)
{
    switch (s) {
    case NATS_OK: return ERR_OK;
    case NATS_TIMEOUT: return ERR_TIMEOUT;
    case NATS_MAX_PAYLOAD: return ERR_LIMIT;
    case NATS_NO_MEMORY: return ERR_NOMEM;
    case NATS_NOT_FOUND: return ERR_NOT_FOUND;
    case NATS_NOT_PERMITTED:
    case NATS_CONNECTION_AUTH_FAILED: return ERR_DENIED;
    case NATS_INVALID_ARG:
    case NATS_INVALID_SUBJECT:
    case NATS_INVALID_QUEUE_NAME: return ERR_INVALID;
    case NATS_NO_RESPONDERS:
    case NATS_CONNECTION_CLOSED:
    case NATS_CONNECTION_DISCONNECTED:
    case NATS_NO_SERVER:
    case NATS_NOT_YET_CONNECTED:
    case NATS_INSUFFICIENT_BUFFER: /* reconnecting, and we allow no buffer for that */
    case NATS_INVALID_SUBSCRIPTION:
    case NATS_STALE_CONNECTION:
    case NATS_DRAINING:
    case NATS_IO_ERROR: return ERR_UNAVAILABLE;
    default: return ERR_IO;
    }
}

enum err bus_why(struct why *why, natsStatus s, const char *what)
{
    const char *text = nats_GetLastError(NULL);
    /* "(file:line): words" */
    const char *words = text != NULL && text[0] == '(' ? strstr(text, "): ") : NULL;
    if (words != NULL) text = words + 3;
    return why_set(why, bus_err(s), "%s: %s", what,
                   text != NULL && text[0] != '\0' ? text : natsStatus_GetText(s));
}

bool bus_subject_is_valid(const char *subject, bool wildcards)
{
    struct str rest = str_of(subject);
    if (rest.n == 0) return false;
    while (rest.p != NULL) {
        struct str token = str_cut(&rest, '.');
        if (token.n == 0) return false;
        if (str_eq(token, STR(">")) && (!wildcards || rest.p != NULL)) return false;
        if (str_eq(token, STR("*")) && !wildcards) return false;
        for (size_t i = 0; i < token.n; i++)
            if ((unsigned char)token.p[i] <= ' ' || token.p[i] == 0x7f) return false;
    }
    return true;
}

enum err bus_subject_z(struct str subject, char *out, size_t cap)
{
    if (subject.n >= cap || memchr(subject.p, '\0', subject.n) != NULL) return ERR_INVALID;
    str_copyz(out, cap, subject);
    return bus_subject_is_valid(out, false) ? ERR_OK : ERR_INVALID;
}

void bus_token(struct bus *b, char out[BUS_TOKEN_LEN + 1])
{
    static const char digits[] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    for (size_t i = 0; i < BUS_TOKEN_LEN; i++) out[i] = digits[rng_below(b->o.rng, 62)];
    out[BUS_TOKEN_LEN] = '\0';
}

/* --- the connection */

natsConnection *bus_nc_get(struct bus *b)
{
    pthread_rwlock_rdlock(&b->nc_lock);
    return b->nc;
}

void bus_nc_put(struct bus *b)
{
    pthread_rwlock_unlock(&b->nc_lock);
}

bool bus_is_connected(const struct bus *b)
{
    struct bus *m = (struct bus *)(uintptr_t)b; /* for its lock */
    natsConnection *nc = bus_nc_get(m);
    bool yes = nc != NULL && natsConnection_Status(nc) == NATS_CONN_STATUS_CONNECTED;
    bus_nc_put(m);
    return yes;
}

size_t bus_payload_max(const struct bus *b)
{
    struct bus *m = (struct bus *)(uintptr_t)b; /* for its lock */
    natsConnection *nc = bus_nc_get(m);
    int64_t n = nc != NULL ? natsConnection_GetMaxPayload(nc) : 0;
    bus_nc_put(m);
    return (size_t)MAX(n, 0);
}

bool bus_wait_change(struct bus *b, int ms)
{
    struct timespec until = clock_in_ms((uint64_t)MAX(ms, 0));
    pthread_mutex_lock(&b->wait_lock);
    if (!b->stop) pthread_cond_timedwait(&b->wait, &b->wait_lock, &until);
    bool go_on = !b->stop;
    pthread_mutex_unlock(&b->wait_lock);
    return go_on;
}

/* A server that does not take what we send: said at each connection, since nothing else tells why
 * that never arrives. */
static void report_payload(struct bus *b)
{
    size_t max = bus_payload_max(b);
    char why[160];
    if (max == 0 || max >= BUS_PAYLOAD_WANTED || b->o.on_error == NULL || b->o.batches) return;
    snprintf(
        why, sizeof why,
        "max_payload of the server is %zu bytes: longer messages do not go, set it to %d or more",
        max, (int)BUS_PAYLOAD_WANTED);
    b->o.on_error(b->o.ctx, why);
}

/* Tells on_state when it is not as it was told last. */
static void report_state(struct bus *b, bool connected, const char *why)
{
    pthread_mutex_lock(&b->state_lock);
    if (connected) connected = bus_is_connected(b); /* it may have gone meanwhile */
    if (connected != b->reported) {
        b->reported = connected;
        if (b->o.on_state != NULL) b->o.on_state(b->o.ctx, connected, why);
    }
    pthread_mutex_unlock(&b->state_lock);
    if (connected) report_payload(b);
    pthread_mutex_lock(&b->wait_lock);
    pthread_cond_broadcast(&b->wait);
    pthread_mutex_unlock(&b->wait_lock);
}

static void on_reconnected(natsConnection *nc, void *ctx)
{
    struct bus *b = ctx;
    (void)nc;
    atomic_fetch_add(&b->reconnects, 1);
    report_state(b, true, "connected again");
}

static void on_disconnected(natsConnection *nc, void *ctx)
{
    struct bus *b = ctx;
    (void)nc;
    atomic_fetch_add(&b->breaks, 1);
    requests_break(b->requests);
    report_state(b, false, "connection lost");
}

static void on_closed(natsConnection *nc, void *ctx)
{
    struct bus *b = ctx;
    const char *text = NULL;
    char why[200];
    natsConnection_GetLastError(nc, &text);
    snprintf(why, sizeof why, "connection closed: %s",
             text != NULL && text[0] != '\0' ? text : "no reason given");
    atomic_fetch_add(&b->breaks, 1);
    requests_break(b->requests);
    report_state(b, false, why);
    pthread_mutex_lock(&b->wait_lock);
    bool by_us = b->stop;
    pthread_mutex_unlock(&b->wait_lock);
    if (!by_us && b->o.on_error != NULL) b->o.on_error(b->o.ctx, why);
    pthread_mutex_lock(&b->wait_lock);
    b->nc_closed = true;
    pthread_cond_broadcast(&b->wait);
    pthread_mutex_unlock(&b->wait_lock);
}

/* What cnats reports beside the calls: slow consumers, missing permissions. */
static void on_error(natsConnection *nc, natsSubscription *sub, natsStatus s, void *ctx)
{
    struct bus *b = ctx;
    const char *text = NULL;
    char why[256], name[160];
    if (b->o.on_error == NULL) return;
    natsConnection_GetLastError(nc, &text);
    if (s == NATS_SLOW_CONSUMER) {
        bus_sub_name(b, sub, name, sizeof name);
        snprintf(why, sizeof why, "messages dropped on %s: their handler is too slow", name);
    } else {
        snprintf(why, sizeof why, "%s%s%s", natsStatus_GetText(s),
                 text != NULL && text[0] != '\0' ? ": " : "", text != NULL ? text : "");
    }
    b->o.on_error(b->o.ctx, why);
}

static int backoff_ms(struct bus *b, int attempts)
{
    int ms = attempts < 7 ? BACKOFF_MIN_MS << MAX(attempts - 1, 0) : BACKOFF_MAX_MS;
    ms = MIN(ms, BACKOFF_MAX_MS);
    return ms / 2 + (int)rng_below(b->o.rng, (uint64_t)(ms / 2) + 1);
}

static int64_t reconnect_delay(natsConnection *nc, int attempts, void *ctx)
{
    (void)nc;
    return backoff_ms(ctx, attempts);
}

static natsStatus make_options(struct bus *b, natsOptions **ret)
{
    natsOptions *o = NULL;
    int n = 0;
    while (b->servers[n] != NULL) n++;
    natsStatus s = natsOptions_Create(&o);
    if (s != NATS_OK) return s;
    s = natsOptions_SetServers(o, (const char **)(void *)b->servers, n);
    if (s == NATS_OK && b->o.user[0] != '\0')
        s = natsOptions_SetUserInfo(o, b->o.user, b->o.password);
    if (s == NATS_OK) s = natsOptions_SetName(o, b->o.instance);
    if (s == NATS_OK) s = natsOptions_SetTimeout(o, CONNECT_TIMEOUT_MS);
    if (s == NATS_OK) s = natsOptions_SetWriteDeadline(o, WRITE_DEADLINE_MS);
    if (s == NATS_OK) s = natsOptions_SetSendAsap(o, !b->o.batches);
    if (s == NATS_OK && b->o.batches) s = natsOptions_SetIOBufSize(o, BULK_BUFFER);
    if (s == NATS_OK) s = natsOptions_SetCustomInboxPrefix(o, b->inbox_prefix);
    if (s == NATS_OK) s = natsOptions_SetAllowReconnect(o, true);
    if (s == NATS_OK) s = natsOptions_SetMaxReconnect(o, -1);
    if (s == NATS_OK) s = natsOptions_SetCustomReconnectDelay(o, reconnect_delay, b);
    if (s == NATS_OK) s = natsOptions_SetReconnectBufSize(o, 0);
    if (s == NATS_OK) s = natsOptions_SetFailRequestsOnDisconnect(o, true);
    if (s == NATS_OK) s = natsOptions_SetPingInterval(o, PING_INTERVAL_MS);
    if (s == NATS_OK) s = natsOptions_SetMaxPingsOut(o, PINGS_OUT);
    if (s == NATS_OK) s = natsOptions_SetDisconnectedCB(o, on_disconnected, b);
    if (s == NATS_OK) s = natsOptions_SetReconnectedCB(o, on_reconnected, b);
    if (s == NATS_OK) s = natsOptions_SetClosedCB(o, on_closed, b);
    if (s == NATS_OK) s = natsOptions_SetErrorHandler(o, on_error, b);
    if (s == NATS_OK)
        *ret = o;
    else
        natsOptions_Destroy(o);
    return s;
}

bool bus_add_counts(natsConnection *nc, struct bus_stats *to)
{
    natsStatistics *stats = NULL;
    uint64_t in_msgs = 0, in_bytes = 0, out_msgs = 0, out_bytes = 0;
    if (natsStatistics_Create(&stats) != NATS_OK) return false;
    bool known = natsConnection_GetStats(nc, stats) == NATS_OK &&
                 natsStatistics_GetCounts(stats, &in_msgs, &in_bytes, &out_msgs, &out_bytes,
                                          NULL) == NATS_OK;
    natsStatistics_Destroy(stats);
    to->in_msgs += in_msgs;
    to->in_bytes += in_bytes;
    to->out_msgs += out_msgs;
    to->out_bytes += out_bytes;
    return known;
}

/* Tells on_error why there is no connection, unless it was told the same last. */
static void report_failure(struct bus *b, natsStatus s, struct why *last)
{
    struct why why;
    (void)bus_why(&why, s, "cannot connect");
    if (strcmp(why.text, last->text) == 0) return;
    *last = why;
    if (b->o.on_error != NULL) b->o.on_error(b->o.ctx, why.text);
}

/* Makes the connection and waits until it is closed, by us or for good. */
static natsStatus live_once(struct bus *b, natsOptions *o)
{
    natsConnection *nc = NULL;
    natsStatus s = natsConnection_Connect(&nc, o);
    if (s != NATS_OK) return s;

    /* Nobody may publish on it before it is subscribed to what answers come to. */
    pthread_mutex_lock(&b->lock);
    bus_subs_attach(b, nc);
    pthread_rwlock_wrlock(&b->nc_lock);
    b->nc = nc;
    if (b->epoch++ > 0) atomic_fetch_add(&b->reconnects, 1);
    pthread_rwlock_unlock(&b->nc_lock);
    pthread_mutex_unlock(&b->lock);
    report_state(b, true, "connected");

    pthread_mutex_lock(&b->wait_lock);
    while (!b->stop && !b->nc_closed) pthread_cond_wait(&b->wait, &b->wait_lock);
    pthread_mutex_unlock(&b->wait_lock);
    natsConnection_Close(nc);
    /* The last callback that names us comes from another thread: wait for it. */
    pthread_mutex_lock(&b->wait_lock);
    while (!b->nc_closed) pthread_cond_wait(&b->wait, &b->wait_lock);
    b->nc_closed = false;
    pthread_mutex_unlock(&b->wait_lock);

    pthread_mutex_lock(&b->lock);
    bus_subs_detach(b);
    (void)bus_add_counts(nc, &b->past);
    pthread_rwlock_wrlock(&b->nc_lock);
    b->nc = NULL;
    pthread_rwlock_unlock(&b->nc_lock);
    pthread_mutex_unlock(&b->lock);
    natsConnection_Destroy(nc);
    return NATS_OK;
}

static void *connector_main(void *ctx)
{
    struct bus *b = ctx;
    struct why last = { "" };
    int attempts = 0;
    bool stop = false;
    /* The client library's threads inherit the name, and that answers are not worth preempting
     * anybody. */
    (void)pthread_setname_np(pthread_self(), b->o.batches ? "bus-bulk" : "bus");
    if (b->o.batches)
        (void)pthread_setschedparam(pthread_self(), SCHED_BATCH, &(struct sched_param){ 0 });
    while (!stop) {
        natsOptions *o = NULL;
        natsStatus s = make_options(b, &o);
        if (s == NATS_OK) s = live_once(b, o);
        natsOptions_Destroy(o);
        if (s == NATS_OK) {
            attempts = 0;
            last.text[0] = '\0';
        } else {
            report_failure(b, s, &last);
        }
        struct timespec until = clock_in_ms((uint64_t)backoff_ms(b, ++attempts));
        pthread_mutex_lock(&b->wait_lock);
        while (!b->stop && pthread_cond_timedwait(&b->wait, &b->wait_lock, &until) == 0) continue;
        stop = b->stop;
        pthread_mutex_unlock(&b->wait_lock);
    }
    nats_ReleaseThreadMemory();
    return NULL;
}

/* --- publishing */

static enum err publish(struct bus *b, const char *subject, struct str data)
{
    if (data.n > INT32_MAX) return ERR_LIMIT;
    natsConnection *nc = bus_nc_get(b);
    natsStatus s = nc == NULL ? NATS_NOT_YET_CONNECTED
                              : natsConnection_Publish(nc, subject, data.p, (int)data.n);
    bus_nc_put(b);
    return bus_err(s);
}

enum err bus_publish(struct bus *b, const char *subject, struct str data)
{
    return bus_subject_is_valid(subject, false) ? publish(b, subject, data) : ERR_INVALID;
}

enum err bus_reply(struct bus *b, struct str reply_to, struct str data)
{
    char subject[512];
    if (reply_to.n == 0) return ERR_OK;
    enum err e = bus_subject_z(reply_to, subject, sizeof subject);
    return e == ERR_OK ? publish(b, subject, data) : e;
}

/* --- life */

const char *bus_instance(const struct bus *b)
{
    return b->o.instance;
}

const char *bus_prefix(const struct bus *b)
{
    return b->o.prefix;
}

static char **split_servers(const char *url)
{
    struct str rest = str_of(url);
    size_t n = 0;
    char **list = xcalloc(1, sizeof *list);
    while (rest.p != NULL) {
        struct str one = str_trim(str_cut(&rest, ','));
        if (one.n == 0) continue;
        list = xrealloc(list, (n + 2) * sizeof *list);
        list[n++] = str_dupz(one);
        list[n] = NULL;
    }
    return list;
}

static const char *copy(const char *z)
{
    return xstrdup(z != NULL ? z : "");
}

static void free_copy(const char *z)
{
    free((void *)(uintptr_t)z);
}

/* The client library frees what was received on a thread of its own, which it wakes for each
 * message. Its threads inherit that nobody is preempted for them: they then do much at once. */
static void open_library(void)
{
    struct sched_param ours, batch = { 0 };
    char name[16];
    int policy;
    bool known = pthread_getschedparam(pthread_self(), &policy, &ours) == 0;
    bool named = pthread_getname_np(pthread_self(), name, sizeof name) == 0;
    if (known) (void)pthread_setschedparam(pthread_self(), SCHED_BATCH, &batch);
    if (named) (void)pthread_setname_np(pthread_self(), "bus-lib");
    (void)nats_Open(-1); /* for the second time it does nothing */
    if (named) (void)pthread_setname_np(pthread_self(), name);
    if (known) (void)pthread_setschedparam(pthread_self(), policy, &ours);
}

struct bus *bus_new(const struct bus_options *o)
{
    open_library();
    struct bus *b = xcalloc(1, sizeof *b);
    b->o = *o;
    b->o.url = copy(o->url);
    b->o.user = copy(o->user);
    b->o.password = copy(o->password);
    b->o.instance = copy(o->instance);
    b->o.service = copy(o->service);
    b->o.version = copy(o->version);
    b->o.description = copy(o->description);
    b->o.prefix = copy(o->prefix);
    b->servers = split_servers(b->o.url);
    struct str user = str_of(b->o.user);
    b->inbox_prefix = xcalloc(1, user.n + sizeof "_INBOX_");
    snprintf(b->inbox_prefix, user.n + sizeof "_INBOX_", "_INBOX%s%s", user.n > 0 ? "_" : "",
             b->o.user);

    pthread_rwlockattr_t rw;
    pthread_rwlockattr_init(&rw);
    pthread_rwlockattr_setkind_np(&rw, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
    pthread_rwlock_init(&b->nc_lock, &rw);
    pthread_rwlockattr_destroy(&rw);
    pthread_condattr_t mono;
    pthread_condattr_init(&mono);
    pthread_condattr_setclock(&mono, CLOCK_MONOTONIC);
    pthread_cond_init(&b->wait, &mono);
    pthread_condattr_destroy(&mono);
    pthread_mutex_init(&b->lock, NULL);
    pthread_mutex_init(&b->wait_lock, NULL);
    pthread_mutex_init(&b->state_lock, NULL);
    pthread_mutex_init(&b->spent_lock, NULL);
    list_init(&b->subs);

    b->requests = requests_new(b);
    if (!b->o.batches) b->services = services_new(b); /* one answers for the process */
    ASSERT(pthread_create(&b->connector, NULL, connector_main, b) == 0);
    return b;
}

/* The client library wakes a thread to free a message: once for many, where there are many. Large
 * ones are not kept for long: the memory of one is that of the next, and still in the cache. */
void bus_msg_done(struct bus *b, natsMsg *m)
{
    natsMsg *spent[BUS_SPENT];
    size_t n = 0;
    if (!b->o.batches) {
        natsMsg_Destroy(m);
        return;
    }
    pthread_mutex_lock(&b->spent_lock);
    b->spent[b->spent_n++] = m;
    b->spent_bytes += (size_t)MAX(natsMsg_GetDataLength(m), 0);
    if (b->spent_n == BUS_SPENT || b->spent_bytes >= BUS_SPENT_BYTES) {
        n = b->spent_n;
        memcpy(spent, b->spent, n * sizeof *spent);
        b->spent_n = b->spent_bytes = 0;
    }
    pthread_mutex_unlock(&b->spent_lock);
    while (n > 0) natsMsg_Destroy(spent[--n]);
}

struct bus *bus_new_bulk(const struct bus *like)
{
    struct bus_options o = like->o;
    o.batches = true;
    o.on_state = NULL;
    return bus_new(&o);
}

void bus_drain(struct bus *b, int timeout_ms)
{
    uint64_t deadline = clock_mono_ns(b->o.clock) + (uint64_t)MAX(timeout_ms, 1) * 1000000;
    /* Requests on their way to us stop; those that came are still handled. Our inbox stays. */
    pthread_mutex_lock(&b->lock);
    b->drained = true;
    LIST_EACH(n, &b->subs)
    {
        struct bus_sub *s = LIST_ENTRY(n, struct bus_sub, node);
        if (s->sub != NULL && s->raw == NULL)
            (void)natsSubscription_DrainTimeout(s->sub, MAX(timeout_ms, 1));
    }
    pthread_mutex_unlock(&b->lock);
    requests_wait_idle(b->requests, deadline);
    uint64_t now = clock_mono_ns(b->o.clock);
    int64_t left = now < deadline ? (int64_t)((deadline - now) / 1000000) : 0;
    natsConnection *nc = bus_nc_get(b);
    if (nc != NULL && natsConnection_Status(nc) == NATS_CONN_STATUS_CONNECTED)
        (void)natsConnection_FlushTimeout(nc, MAX(left, 1));
    bus_nc_put(b);
}

void bus_free(struct bus *b)
{
    if (b == NULL) return;
    services_free(b->services);
    pthread_mutex_lock(&b->wait_lock);
    b->stop = true;
    pthread_cond_broadcast(&b->wait);
    pthread_mutex_unlock(&b->wait_lock);
    pthread_join(b->connector, NULL);
    requests_stop(b->requests);
    while (!list_empty(&b->subs)) bus_unsubscribe(LIST_ENTRY(b->subs.next, struct bus_sub, node));
    requests_free(b->requests);

    pthread_rwlock_destroy(&b->nc_lock);
    pthread_cond_destroy(&b->wait);
    pthread_mutex_destroy(&b->lock);
    pthread_mutex_destroy(&b->wait_lock);
    pthread_mutex_destroy(&b->state_lock);
    while (b->spent_n > 0) natsMsg_Destroy(b->spent[--b->spent_n]);
    pthread_mutex_destroy(&b->spent_lock);
    for (char **s = b->servers; *s != NULL; s++) free(*s);
    free(b->servers);
    free(b->ended);
    free(b->inbox_prefix);
    free_copy(b->o.url);
    free_copy(b->o.user);
    free_copy(b->o.password);
    free_copy(b->o.instance);
    free_copy(b->o.service);
    free_copy(b->o.version);
    free_copy(b->o.description);
    free_copy(b->o.prefix);
    free(b);
}

void bus_stats(const struct bus *b, struct bus_stats *ret)
{
    struct bus *m = (struct bus *)(uintptr_t)b; /* for its locks */
    pthread_mutex_lock(&m->lock);
    struct bus_stats out = m->past;
    LIST_EACH(n, &m->subs)
    {
        struct bus_sub *s = LIST_ENTRY(n, struct bus_sub, node);
        int64_t dropped = 0;
        if (s->sub != NULL && natsSubscription_GetDropped(s->sub, &dropped) == NATS_OK)
            out.dropped += (uint64_t)MAX(dropped, 0);
    }
    natsConnection *nc = bus_nc_get(m);
    if (nc != NULL) (void)bus_add_counts(nc, &out);
    bus_nc_put(m);
    pthread_mutex_unlock(&m->lock);
    out.reconnects = atomic_load(&m->reconnects);
    *ret = out;
}
