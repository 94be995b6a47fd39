/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The services protocol of NATS, version 1 (ADR-32 of nats-io/nats-architecture-and-design):
 * answers $SRV.PING, INFO and STATS, to all, by name and by name and id, with JSON of our own
 * writing. Runs on the threads of three subscriptions, one for each form of the subject.
 */
#include <nats/nats.h>
#include <stdio.h>
#include <stdlib.h>

#include "rt/bus_impl.h"

enum { FORMS = 3, ANSWER_MAX = 1 << 20 };

struct services {
    struct bus *bus;
    char name[64], id[64], started[TIME_RFC3339_LEN + 1];
    struct bus_sub *subs[FORMS];
};

/* Names and ids are one token of letters, digits, '-' and '_'. */
static void service_token(const char *prefix, const char *z, char out[64])
{
    snprintf(out, 64, "%s%s", prefix, z);
    for (char *c = out; *c != '\0'; c++) {
        bool fine = (*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z') ||
                    (*c >= '0' && *c <= '9') || *c == '-' || *c == '_';
        if (!fine) *c = '-';
    }
    if (out[0] == '\0') snprintf(out, 64, "unnamed");
}

static enum err member(struct buf *out, const char *key, const char *value)
{
    enum err e = buf_printf(out, ",\"%s\":", key);
    return e == ERR_OK ? buf_append_json(out, str_of(value)) : e;
}

/* What all three answers begin with; leaves the object open. */
static enum err head(const struct services *s, const char *type, struct buf *out)
{
    enum err e = buf_printf(out, "{\"type\":\"io.nats.micro.v1.%s_response\"", type);
    if (e == ERR_OK) e = member(out, "name", s->name);
    if (e == ERR_OK) e = member(out, "id", s->id);
    if (e == ERR_OK) e = member(out, "version", s->bus->o.version);
    if (e == ERR_OK) e = buf_appendz(out, ",\"metadata\":{}");
    return e;
}

static enum err endpoint_info(const struct bus_sub *s, struct buf *out)
{
    enum err e = buf_appendz(out, "{\"name\":");
    if (e == ERR_OK) e = buf_append_json(out, str_of(s->endpoint->name));
    if (e == ERR_OK) e = member(out, "subject", s->subject);
    if (e == ERR_OK) e = member(out, "queue_group", s->queue != NULL ? s->queue : "");
    return e == ERR_OK ? buf_appendz(out, ",\"metadata\":{}}") : e;
}

static enum err endpoint_stats(struct bus_sub *s, struct buf *out)
{
    pthread_mutex_lock(&s->gate);
    struct endpoint p = *s->endpoint;
    pthread_mutex_unlock(&s->gate);
    enum err e = buf_appendz(out, "{\"name\":");
    if (e == ERR_OK) e = buf_append_json(out, str_of(s->endpoint->name));
    if (e == ERR_OK) e = member(out, "subject", s->subject);
    if (e == ERR_OK) e = member(out, "queue_group", s->queue != NULL ? s->queue : "");
    if (e == ERR_OK) e = member(out, "last_error", p.last_error);
    if (e == ERR_OK)
        e = buf_printf(out,
                       ",\"num_requests\":%llu,\"num_errors\":%llu,\"processing_time\":%llu,"
                       "\"average_processing_time\":%llu}",
                       (unsigned long long)p.requests, (unsigned long long)p.errors,
                       (unsigned long long)p.ns,
                       (unsigned long long)(p.requests > 0 ? p.ns / p.requests : 0));
    return e;
}

static enum err endpoints(struct services *s, bool stats, struct buf *out)
{
    enum err e = buf_appendz(out, ",\"endpoints\":[");
    bool first = true;
    pthread_mutex_lock(&s->bus->lock);
    LIST_EACH(n, &s->bus->subs)
    {
        struct bus_sub *sub = LIST_ENTRY(n, struct bus_sub, node);
        if (sub->endpoint == NULL || e != ERR_OK) continue;
        if (!first) e = buf_append_char(out, ',');
        first = false;
        if (e == ERR_OK) e = stats ? endpoint_stats(sub, out) : endpoint_info(sub, out);
    }
    pthread_mutex_unlock(&s->bus->lock);
    return e == ERR_OK ? buf_append_char(out, ']') : e;
}

static enum err write_answer(struct services *s, struct str verb, struct buf *out)
{
    enum err e;
    if (str_eq(verb, STR("PING"))) {
        e = head(s, "ping", out);
    } else if (str_eq(verb, STR("INFO"))) {
        e = head(s, "info", out);
        if (e == ERR_OK) e = member(out, "description", s->bus->o.description);
        if (e == ERR_OK) e = endpoints(s, false, out);
    } else if (str_eq(verb, STR("STATS"))) {
        e = head(s, "stats", out);
        if (e == ERR_OK) e = member(out, "started", s->started);
        if (e == ERR_OK) e = endpoints(s, true, out);
    } else {
        return ERR_UNSUPPORTED;
    }
    return e == ERR_OK ? buf_append_char(out, '}') : e;
}

static void on_question(void *ctx, natsMsg *m)
{
    struct services *s = ctx;
    struct str rest = str_of(natsMsg_GetSubject(m));
    struct buf out;
    (void)str_cut(&rest, '.'); /* $SRV */
    struct str verb = str_cut(&rest, '.');
    buf_init(&out, ANSWER_MAX);
    enum err e = write_answer(s, verb, &out);
    if (e == ERR_OK) e = bus_reply(s->bus, str_of(natsMsg_GetReply(m)), buf_str(&out));
    (void)e; /* who asked will ask again */
    buf_done(&out);
}

struct services *services_new(struct bus *b)
{
    struct services *s = xcalloc(1, sizeof *s);
    s->bus = b;
    service_token("aigw-", b->o.service, s->name);
    service_token("", b->o.instance, s->id);
    time_rfc3339(clock_wall_ns(b->o.clock), s->started);
    /* The * stands for PING, INFO and STATS. */
    char subject[FORMS][160];
    snprintf(subject[0], sizeof subject[0], "$SRV.*");
    snprintf(subject[1], sizeof subject[1], "$SRV.*.%s", s->name);
    snprintf(subject[2], sizeof subject[2], "$SRV.*.%s.%s", s->name, s->id);
    for (size_t i = 0; i < FORMS; i++) {
        enum err e = bus_sub_new(b, subject[i], NULL, NULL, on_question, s, NULL, &s->subs[i]);
        ASSERT(e == ERR_OK);
    }
    return s;
}

void services_free(struct services *s)
{
    if (s == NULL) return;
    for (size_t i = 0; i < FORMS; i++) bus_unsubscribe(s->subs[i]);
    free(s);
}

enum err bus_serve(struct bus *b, const struct bus_endpoint *e, bus_msg_fn fn, void *ctx,
                   struct bus_sub **ret)
{
    return bus_sub_new(b, e->subject, e->queue, fn, NULL, ctx, e->name, ret);
}

void bus_endpoint_error(struct bus_sub *s, const char *why)
{
    if (s == NULL) return; /* the first message may come before bus_serve() has returned */
    ASSERT(s->endpoint != NULL);
    pthread_mutex_lock(&s->gate);
    s->endpoint->errors++;
    str_copyz(s->endpoint->last_error, sizeof s->endpoint->last_error, str_of(why));
    pthread_mutex_unlock(&s->gate);
}

void bus_endpoint_time(struct bus_sub *s, uint64_t ns)
{
    if (s == NULL) return; /* the first message may come before bus_serve() has returned */
    ASSERT(s->endpoint != NULL);
    pthread_mutex_lock(&s->gate);
    s->endpoint->ns += ns;
    pthread_mutex_unlock(&s->gate);
}
