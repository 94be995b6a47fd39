/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Streams and pull consumers of JetStream. Streams and consumers are made with cnats; fetching and
 * acknowledging is a few messages that we send ourselves, so that what we hold of a message does
 * not depend on the connection that brought it. A consumer is used by one thread at a time.
 */
#include <inttypes.h>
#include <nats/nats.h>
#include <stdio.h>
#include <stdlib.h>

#include "rt/bus_impl.h"

enum {
    SLICE_MS = 100, /* how long one wait lasts before we look whether the connection broke */
    GRACE_MS = 500, /* after which a server that should have said "time-out" is not heard */
    AFTER_REFUSAL_MS = 50,
    STUCK_FETCHES = 2,  /* that brought nothing, though there was something to bring */
    STUCK_ACK_WAITS = 4 /* without a move, while all it may hand out is out */
};

/* --- streams */

static enum err js_err(natsStatus s, jsErrCode code)
{
    if (code == 0) return bus_err(s);
    switch (code) {
    case JSStreamNotFoundErr:
    case JSConsumerNotFoundErr: return ERR_NOT_FOUND;
    case JSStreamNameExistErr: return ERR_EXISTS;
    case JSInsufficientResourcesErr:
    case JSStorageResourcesExceededErr:
    case JSMaximumStreamsLimitErr:
    case JSMaximumConsumersLimitErr: return ERR_LIMIT;
    case JSNotEnabledErr:
    case JSNotEnabledForAccountErr:
    case JSClusterNotAvailErr:
    case JSClusterNotLeaderErr:
    case JSClusterNoPeersErr: return ERR_UNAVAILABLE;
    default: return ERR_INVALID;
    }
}

static enum err js_why(struct why *why, natsStatus s, jsErrCode code, const char *what)
{
    (void)bus_why(why, s, what);
    return js_err(s, code);
}

static natsStatus open_js(natsConnection *nc, jsCtx **ret)
{
    jsOptions o;
    if (nc == NULL || natsConnection_Status(nc) != NATS_CONN_STATUS_CONNECTED)
        return NATS_CONNECTION_DISCONNECTED;
    natsStatus s = jsOptions_Init(&o);
    o.Wait = BUS_BLOCKING_MS;
    return s == NATS_OK ? natsConnection_JetStream(ret, nc, &o) : s;
}

static void fill_config(const struct bus_stream *s, const char **subjects, jsStreamConfig *ret)
{
    ret->Name = s->name;
    ret->Subjects = subjects;
    ret->SubjectsLen = 0;
    while (ret->SubjectsLen < (int)ARRAY_LEN(s->subjects) &&
           s->subjects[ret->SubjectsLen] != NULL) {
        subjects[ret->SubjectsLen] = s->subjects[ret->SubjectsLen];
        ret->SubjectsLen++;
    }
    ret->MaxBytes = s->max_bytes > 0 ? s->max_bytes : -1;
    ret->MaxAge = s->max_age_ns;
    ret->Duplicates = s->duplicates_ns;
    ret->Discard = s->discard_new ? js_DiscardNew : js_DiscardOld;
    ret->Retention = s->work_queue ? js_WorkQueuePolicy : js_LimitsPolicy;
    ret->Replicas = MAX(s->replicas, 1);
    ret->Storage = js_FileStorage;
}

static bool same_config(const jsStreamConfig *have, const jsStreamConfig *want)
{
    if (have->SubjectsLen != want->SubjectsLen) return false;
    for (int i = 0; i < want->SubjectsLen; i++) {
        bool found = false;
        for (int k = 0; k < have->SubjectsLen; k++)
            if (str_eqz(str_of(have->Subjects[k]), want->Subjects[i])) found = true;
        if (!found) return false;
    }
    return have->MaxBytes == want->MaxBytes && have->MaxAge == want->MaxAge &&
           (want->Duplicates == 0 || have->Duplicates == want->Duplicates) &&
           have->Discard == want->Discard && have->Retention == want->Retention &&
           have->Replicas == want->Replicas;
}

enum err bus_stream_ensure(struct bus *b, const struct bus_stream *stream, struct why *why)
{
    const char *subjects[ARRAY_LEN(stream->subjects)];
    jsStreamConfig want;
    jsStreamInfo *info = NULL;
    jsCtx *js = NULL;
    jsErrCode code = 0;
    enum err e = ERR_OK;
    natsConnection *nc = bus_nc_get(b);
    natsStatus s = open_js(nc, &js);
    if (s == NATS_OK) s = jsStreamConfig_Init(&want);
    if (s != NATS_OK) {
        e = bus_why(why, s, "JetStream");
        goto out;
    }
    fill_config(stream, subjects, &want);
    s = js_GetStreamInfo(&info, js, stream->name, NULL, &code);
    if (s == NATS_NOT_FOUND || code == JSStreamNotFoundErr) {
        code = 0;
        s = js_AddStream(NULL, js, &want, NULL, &code);
        if (code == JSStreamNameExistErr) { /* another one was faster: look again, next time */
            s = NATS_OK;
            code = 0;
        }
    } else if (s == NATS_OK && !same_config(info->Config, &want)) {
        s = js_UpdateStream(NULL, js, &want, NULL, &code);
    }
    if (s != NATS_OK) e = js_why(why, s, code, stream->name);
out:
    jsStreamInfo_Destroy(info);
    jsCtx_Destroy(js);
    bus_nc_put(b);
    return e;
}

/* --- messages */

struct bus_js_msg {
    struct bus *bus;
    natsMsg *msg;
    struct str data;
    uint64_t sequence, deliveries, pending;
};

/*
 * The reply subject says it all:
 *   $JS.ACK.stream.consumer.deliveries.sequence.consumer sequence.time.pending
 * or, from servers with domains, with two more tokens after ACK and maybe one at the end.
 */
static bool read_metadata(struct bus_js_msg *m)
{
    struct str rest = str_of(natsMsg_GetReply(m->msg)), tokens[12];
    size_t n = 0;
    while (rest.p != NULL && n < ARRAY_LEN(tokens)) tokens[n++] = str_cut(&rest, '.');
    if (n < 9 || !str_eqz(tokens[0], "$JS") || !str_eqz(tokens[1], "ACK")) return false;
    size_t at = n >= 11 ? 6 : 4;
    return str_to_u64(tokens[at], &m->deliveries) == ERR_OK &&
           str_to_u64(tokens[at + 1], &m->sequence) == ERR_OK &&
           str_to_u64(tokens[at + 4], &m->pending) == ERR_OK;
}

struct str bus_js_data(const struct bus_js_msg *m)
{
    return m->data;
}

struct str bus_js_subject(const struct bus_js_msg *m)
{
    return str_of(natsMsg_GetSubject(m->msg));
}

uint64_t bus_js_sequence(const struct bus_js_msg *m)
{
    return m->sequence;
}

uint64_t bus_js_deliveries(const struct bus_js_msg *m)
{
    return m->deliveries;
}

void bus_js_release(struct bus_js_msg *m)
{
    if (m == NULL) return;
    natsMsg_Destroy(m->msg);
    free(m);
}

/* When it cannot be sent the server delivers the message again, which is always allowed. */
static void answer(struct bus_js_msg *m, struct str what)
{
    enum err e = bus_reply(m->bus, str_of(natsMsg_GetReply(m->msg)), what);
    (void)e;
    bus_js_release(m);
}

void bus_js_ack(struct bus_js_msg *m)
{
    answer(m, STR("+ACK"));
}

void bus_js_nak(struct bus_js_msg *m, int delay_ms)
{
    char text[64];
    if (delay_ms <= 0) {
        answer(m, STR("-NAK"));
        return;
    }
    snprintf(text, sizeof text, "-NAK {\"delay\":%" PRId64 "}", (int64_t)delay_ms * 1000000);
    answer(m, str_of(text));
}

void bus_js_term(struct bus_js_msg *m)
{
    answer(m, STR("+TERM"));
}

/* --- consumers */

struct bus_consumer {
    struct bus *bus;
    struct bus_consumer_options o; /* its strings are ours */
    char *stream, *durable;
    char inbox[BUS_INBOX_LEN + 1]; /* ends in a star, the place of which is inbox_len */
    size_t inbox_len;
    char next[320];        /* the subject to ask on */
    natsSubscription *sub; /* to inbox, on the connection of that epoch */
    uint64_t epoch;
    uint32_t request;               /* number of the latest */
    bool lost;                      /* the server does not know it (any more) */
    int empty;                      /* fetches that brought nothing of what there was */
    uint64_t moved_ns, moved_at[2]; /* since when the server's view of it is that */
};

/* Creates the consumer at the server, or finds it there. */
static enum err create(struct bus_consumer *c, natsConnection *nc, struct why *why)
{
    jsCtx *js = NULL;
    jsConsumerConfig cfg;
    jsErrCode code = 0;
    enum err e = ERR_OK;
    natsStatus s = open_js(nc, &js);
    if (s == NATS_OK) s = jsConsumerConfig_Init(&cfg);
    if (s == NATS_OK) {
        cfg.Durable = c->durable;
        cfg.AckPolicy = js_AckExplicit;
        cfg.DeliverPolicy = js_DeliverAll;
        cfg.AckWait = (int64_t)c->o.ack_wait_ms * 1000000;
        cfg.MaxAckPending = c->o.max_ack_pending;
        s = js_AddConsumer(NULL, js, c->stream, &cfg, NULL, &code);
    }
    if (s != NATS_OK) e = js_why(why, s, code, c->durable);
    jsCtx_Destroy(js);
    return e;
}

/* Makes what the present connection lacks. */
static enum err ready(struct bus_consumer *c, natsConnection *nc, struct why *why)
{
    if (nc == NULL || natsConnection_Status(nc) != NATS_CONN_STATUS_CONNECTED)
        return why_set(why, ERR_UNAVAILABLE, "no connection");
    if (c->sub == NULL || c->epoch != c->bus->epoch) {
        natsSubscription_Destroy(c->sub); /* its connection is closed */
        c->sub = NULL;
        natsStatus s = natsConnection_SubscribeSync(&c->sub, nc, c->inbox);
        if (s != NATS_OK) return bus_why(why, s, c->inbox);
        (void)natsSubscription_SetPendingLimits(c->sub, BUS_PENDING_MSGS, BUS_PENDING_BYTES);
        c->epoch = c->bus->epoch;
    }
    if (!c->lost) return ERR_OK;
    enum err e = create(c, nc, why);
    if (e == ERR_OK) c->lost = false;
    return e;
}

enum err bus_consumer_open(struct bus *b, const struct bus_consumer_options *o,
                           struct bus_consumer **ret, struct why *why)
{
    char token[BUS_TOKEN_LEN + 1];
    struct bus_consumer *c = xcalloc(1, sizeof *c);
    c->bus = b;
    c->o = *o;
    c->o.stream = c->stream = xstrdup(o->stream);
    c->o.durable = c->durable = xstrdup(o->durable);
    c->lost = true;
    bus_token(b, token);
    int n = snprintf(c->inbox, sizeof c->inbox, "%s.%s.*", b->inbox_prefix, token);
    ASSERT(n > 0 && (size_t)n < sizeof c->inbox);
    c->inbox_len = (size_t)n - 1;
    n = snprintf(c->next, sizeof c->next, "$JS.API.CONSUMER.MSG.NEXT.%s.%s", o->stream, o->durable);
    enum err e = n > 0 && (size_t)n < sizeof c->next && bus_subject_is_valid(c->next, false)
                     ? ERR_OK
                     : why_set(why, ERR_INVALID, "not a name of a stream or consumer");
    if (e == ERR_OK) {
        natsConnection *nc = bus_nc_get(b);
        e = ready(c, nc, why);
        bus_nc_put(b);
    }
    if (e == ERR_OK)
        *ret = c;
    else
        bus_consumer_close(c);
    return e;
}

void bus_consumer_close(struct bus_consumer *c)
{
    if (c == NULL) return;
    pthread_mutex_lock(&c->bus->lock);
    bus_sub_end(c->bus, c->sub);
    pthread_mutex_unlock(&c->bus->lock);
    free(c->stream);
    free(c->durable);
    free(c);
}

/*
 * "no_wait" with "expires" asks for what there is, at most batch; when there is nothing it waits
 * for the first to come. The end is either the batch, or a message without data that has a status.
 */
static natsStatus ask(struct bus_consumer *c, natsConnection *nc, int batch, int64_t expires_ms)
{
    char reply[BUS_INBOX_LEN + 24], body[128];
    snprintf(reply, sizeof reply, "%.*s%x", (int)c->inbox_len, c->inbox, ++c->request);
    int n = snprintf(body, sizeof body, "{\"batch\":%d,\"no_wait\":true,\"expires\":%" PRId64 "}",
                     batch, expires_ms * 1000000);
    return natsConnection_PublishRequest(nc, c->next, reply, body, n);
}

enum answer { ANSWER_MESSAGE, ANSWER_END, ANSWER_REFUSED, ANSWER_LOST, ANSWER_STALE };

/* What a message on the inbox is. It is taken when it is ANSWER_MESSAGE. */
static enum answer read_answer(struct bus_consumer *c, natsMsg *m, struct bus_js_msg **ret)
{
    const char *status = NULL;
    if (natsMsg_GetDataLength(m) == 0 && natsMsgHeader_Get(m, "Status", &status) == NATS_OK) {
        struct str token = str_of(natsMsg_GetSubject(m));
        uint64_t request;
        token = str_n(token.p + MIN(c->inbox_len, token.n), token.n - MIN(c->inbox_len, token.n));
        if (str_hex_to_u64(token, &request) != ERR_OK || request != c->request) return ANSWER_STALE;
        struct str code = str_of(status);
        if (str_eqz(code, "100")) return ANSWER_STALE; /* heartbeat */
        if (str_eqz(code, "503")) return ANSWER_LOST;
        if (str_eqz(code, "404") || str_eqz(code, "408")) return ANSWER_END;
        return ANSWER_REFUSED; /* 409: deleted, too many requests, ... */
    }
    struct bus_js_msg *out = calloc(1, sizeof *out);
    if (out == NULL) return ANSWER_REFUSED; /* comes again, in time */
    out->bus = c->bus;
    out->msg = m;
    out->data = str_n(natsMsg_GetData(m), (size_t)natsMsg_GetDataLength(m));
    if (!read_metadata(out)) {
        free(out);
        return ANSWER_STALE;
    }
    *ret = out;
    return ANSWER_MESSAGE;
}

/* Takes what has arrived and what arrives until the request is answered. Holds the connection. */
static enum err collect(struct bus_consumer *c, natsConnection *nc, int max, uint64_t deadline,
                        struct bus_js_msg **ret, int *n)
{
    const struct clock *clock = c->bus->o.clock;
    uint64_t breaks = atomic_load(&c->bus->breaks);
    for (;;) {
        natsMsg *m = NULL;
        uint64_t now = clock_mono_ns(clock);
        if (now >= deadline + (uint64_t)GRACE_MS * 1000000) {
            /* A request to a consumer that is no more gets no answer at all from some servers. */
            c->lost = true;
            return *n > 0 ? ERR_OK : ERR_TIMEOUT;
        }
        uint64_t left_ms = (deadline + (uint64_t)GRACE_MS * 1000000 - now) / 1000000 + 1;
        natsStatus s = natsSubscription_NextMsg(&m, c->sub, (int64_t)MIN(left_ms, SLICE_MS));
        if (s == NATS_TIMEOUT) {
            if (*n > 0) return ERR_OK; /* the rest is held back by unacknowledged ones */
            if (atomic_load(&c->bus->breaks) != breaks ||
                natsConnection_Status(nc) != NATS_CONN_STATUS_CONNECTED)
                return ERR_UNAVAILABLE; /* our request is lost with it */
            continue;
        }
        if (s != NATS_OK) return *n > 0 ? ERR_OK : bus_err(s);
        enum answer a = read_answer(c, m, &ret[*n]);
        if (a == ANSWER_MESSAGE) {
            (*n)++;
            if (*n == max || ret[*n - 1]->pending == 0) return ERR_OK;
            continue;
        }
        natsMsg_Destroy(m);
        if (a == ANSWER_STALE) continue;
        if (*n > 0) return ERR_OK;
        if (a == ANSWER_END) return ERR_TIMEOUT;
        c->lost = true;
        return ERR_UNAVAILABLE;
    }
}

/*
 * After a crash the server may hold thousands of messages for handed out that were acknowledged and
 * so are deleted, and it spends a whole request on each of them (2.9 does): nothing comes, for up
 * to hours. Called when a fetch brought nothing: whether that is so.
 */
static bool is_stuck(struct bus_consumer *c, jsCtx *js)
{
    jsConsumerInfo *i = NULL;
    if (js_GetConsumerInfo(&i, js, c->stream, c->durable, NULL, NULL) != NATS_OK) return false;
    uint64_t out = (uint64_t)MAX(i->NumAckPending, 0), at[2] = { i->Delivered.Consumer, out };
    uint64_t now = clock_mono_ns(c->bus->o.clock);
    bool may_have_more = c->o.max_ack_pending <= 0 || out < (uint64_t)c->o.max_ack_pending;
    c->empty = i->NumPending > 0 && may_have_more ? c->empty + 1 : 0;
    if ((i->NumPending == 0 && out == 0) || memcmp(at, c->moved_at, sizeof at) != 0) {
        memcpy(c->moved_at, at, sizeof at);
        c->moved_ns = now;
    }
    jsConsumerInfo_Destroy(i);
    uint64_t patience = STUCK_ACK_WAITS * (uint64_t)MAX(c->o.ack_wait_ms, 1) * 1000000;
    return c->empty >= STUCK_FETCHES || now - c->moved_ns >= patience;
}

/* Makes a stuck consumer anew. What was handed out and not acknowledged comes again at once; what
 * is acknowledged later still counts. */
static void free_if_stuck(struct bus_consumer *c, natsConnection *nc)
{
    jsCtx *js = NULL;
    if (c->lost || open_js(nc, &js) != NATS_OK) return;
    if (is_stuck(c, js)) {
        natsStatus s = js_DeleteConsumer(js, c->stream, c->durable, NULL, NULL);
        c->lost = s == NATS_OK || s == NATS_NOT_FOUND;
        c->empty = 0;
        c->moved_ns = clock_mono_ns(c->bus->o.clock);
        if (c->bus->o.on_error != NULL)
            c->bus->o.on_error(c->bus->o.ctx, c->lost
                                                  ? "a consumer was stuck: made anew"
                                                  : "a consumer is stuck, and may not be removed");
    }
    jsCtx_Destroy(js);
}

enum err bus_consumer_fetch(struct bus_consumer *c, int max, int timeout_ms,
                            struct bus_js_msg **ret, int *ret_n)
{
    const struct clock *clock = c->bus->o.clock;
    uint64_t deadline = clock_mono_ns(clock) + (uint64_t)MAX(timeout_ms, 1) * 1000000;
    enum err e;
    int n = 0;
    for (;;) {
        uint64_t now = clock_mono_ns(clock);
        int64_t left_ms = now < deadline ? (int64_t)((deadline - now) / 1000000) + 1 : 1;
        natsConnection *nc = bus_nc_get(c->bus);
        e = ready(c, nc, NULL);
        if (e == ERR_OK) e = bus_err(ask(c, nc, max, left_ms));
        if (e == ERR_OK) e = collect(c, nc, max, deadline, ret, &n);
        if (e == ERR_OK && n == max) c->empty = 0;
        if (e == ERR_TIMEOUT) free_if_stuck(c, nc);
        bus_nc_put(c->bus);
        if (e == ERR_OK) {
            *ret_n = n;
            return ERR_OK;
        }
        /* Not served, but there is time: wait for a change, which keeps callers from spinning. */
        now = clock_mono_ns(clock);
        if (now >= deadline) break;
        int64_t pause = e == ERR_TIMEOUT ? AFTER_REFUSAL_MS : 10 * AFTER_REFUSAL_MS;
        left_ms = (int64_t)((deadline - now) / 1000000) + 1;
        if (!bus_wait_change(c->bus, (int)MIN(left_ms, pause))) return ERR_UNAVAILABLE;
    }
    return e == ERR_TIMEOUT ? ERR_TIMEOUT : ERR_UNAVAILABLE;
}
