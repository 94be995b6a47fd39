/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests whose reply comes to one inbox of ours, _INBOX_user.random.*, the last token of which
 * names the slot of a table. Callbacks run on the inbox's thread, or on the thread here that keeps
 * the time-outs. A slot is taken out of the table under the lock by exactly one of: the reply, the
 * time-out, a break of the connection, the end; whoever took it calls back.
 */
#include <nats/nats.h>
#include <stdio.h>
#include <stdlib.h>

#include "rt/bus_impl.h"
#include "rt/json.h"

struct slot {
    bus_reply_fn fn; /* one of these two */
    bus_ack_fn ack_fn;
    void (*raw_fn)(void *ctx, const struct js_ack *ack); /* or this */
    void *ctx;
    uint64_t deadline_ns;
    uint64_t born;       /* requests.breaks at the time */
    uint32_t generation; /* of the token; counts up each time the slot is freed */
    uint32_t place;      /* in the heap, 1-based; 0: the slot is free */
};

struct requests {
    struct bus *bus;
    struct bus_sub *inbox;
    char prefix[BUS_INBOX_LEN]; /* with its last dot */
    size_t prefix_len;

    pthread_mutex_t lock;
    pthread_cond_t changed; /* the earliest deadline, breaks, stop */
    pthread_cond_t idle;    /* the table is empty and no callback runs */
    struct slot *slots;
    uint32_t *free_slots, *heap; /* heap[1] is the slot that is due first */
    size_t cap, free_len, heap_len;
    unsigned running;        /* callbacks */
    uint64_t wakes_at;       /* when the thread looks again */
    uint64_t breaks, failed; /* connections lost, and up to which one requests have been failed */
    bool stop;
    pthread_t timer;
};

/* --- the heap of deadlines, holding the lock */

static void heap_place(struct requests *r, uint32_t slot, size_t i)
{
    r->heap[i] = slot;
    r->slots[slot].place = (uint32_t)i;
}

static void heap_up(struct requests *r, uint32_t slot, size_t i)
{
    uint64_t at = r->slots[slot].deadline_ns;
    for (; i > 1 && r->slots[r->heap[i / 2]].deadline_ns > at; i /= 2)
        heap_place(r, r->heap[i / 2], i);
    heap_place(r, slot, i);
}

static void heap_down(struct requests *r, uint32_t slot, size_t i)
{
    uint64_t at = r->slots[slot].deadline_ns;
    for (size_t child; (child = i * 2) <= r->heap_len; i = child) {
        if (child < r->heap_len &&
            r->slots[r->heap[child + 1]].deadline_ns < r->slots[r->heap[child]].deadline_ns)
            child++;
        if (r->slots[r->heap[child]].deadline_ns >= at) break;
        heap_place(r, r->heap[child], i);
    }
    heap_place(r, slot, i);
}

static void heap_remove(struct requests *r, size_t i)
{
    uint32_t last = r->heap[r->heap_len--];
    if (i > r->heap_len) return;
    if (i > 1 && r->slots[r->heap[i / 2]].deadline_ns > r->slots[last].deadline_ns)
        heap_up(r, last, i);
    else
        heap_down(r, last, i);
}

/* --- the table, holding the lock */

static bool grow(struct requests *r)
{
    if (r->cap >= BUS_REQUESTS_MAX) return false;
    size_t cap = r->cap > 0 ? r->cap * 2 : 256;
    r->slots = xrealloc(r->slots, cap * sizeof *r->slots);
    r->free_slots = xrealloc(r->free_slots, cap * sizeof *r->free_slots);
    r->heap = xrealloc(r->heap, (cap + 1) * sizeof *r->heap);
    for (size_t i = cap; i-- > r->cap;) {
        r->slots[i] = (struct slot){ 0 };
        r->free_slots[r->free_len++] = (uint32_t)i;
    }
    r->cap = cap;
    return true;
}

/* Takes a slot out of the table: *ret is what the caller then calls back, or gives up. */
static void take(struct requests *r, uint32_t i, struct slot *ret)
{
    struct slot *s = &r->slots[i];
    *ret = *s;
    heap_remove(r, s->place);
    uint32_t generation = s->generation + 1;
    *s = (struct slot){ .generation = generation };
    r->free_slots[r->free_len++] = i;
    r->running++;
}

static void leave(struct requests *r)
{
    if (--r->running == 0 && r->heap_len == 0) pthread_cond_broadcast(&r->idle);
}

/* --- what comes back */

/* What the server says to a publish: {"stream":…,"seq":…,"duplicate":…} or {"error":{…}}. */
static struct js_ack parse_ack(struct str data)
{
    struct js_ack ack = { .e = ERR_UNAVAILABLE };
    struct json *doc = NULL;
    if (json_parse(data, 65536, &doc, NULL) != ERR_OK) return ack;
    const struct json *error = json_get(doc, "error");
    if (error == NULL) {
        if (json_get_u64(doc, "seq", &ack.seq) == ERR_OK) ack.e = ERR_OK;
        if (json_get_bool(doc, "duplicate", &ack.dup) != ERR_OK) ack.dup = false;
        json_free(doc);
        return ack;
    }
    enum {
        STORE_FAILED = 10077,
        NO_STORAGE = 10047,
        NO_RESOURCES = 10023,
        TOO_LONG = 10054,
        OTHER_SEQUENCE = 10071
    };
    uint64_t code = 0;
    struct str text = STR_NULL;
    if (json_get_u64(error, "err_code", &code) != ERR_OK) code = 0;
    if (json_get_str(error, "description", &text) != ERR_OK) text = STR("");
    /* A store fails for many reasons, of which only the words tell: "maximum bytes exceeded". */
    if ((code == STORE_FAILED && str_contains(text, STR("exceeded"))) || code == NO_STORAGE ||
        code == NO_RESOURCES || code == TOO_LONG)
        ack.e = ERR_LIMIT;
    else if (code == OTHER_SEQUENCE)
        ack.e = ERR_CONFLICT;
    json_free(doc);
    return ack;
}

static void call_back(struct slot *s, enum err e, struct str data)
{
    if (s->fn != NULL) {
        s->fn(s->ctx, e, data);
        return;
    }
    struct js_ack ack = { .e = e };
    if (e == ERR_OK) ack = parse_ack(data);
    if (s->ack_fn != NULL)
        s->ack_fn(s->ctx, ack.e, ack.dup);
    else
        s->raw_fn(s->ctx, &ack);
}

/* Calls back a slot that was taken. The lock is not held. */
static void finish(struct requests *r, struct slot *s, enum err e, struct str data)
{
    call_back(s, e, data);
    pthread_mutex_lock(&r->lock);
    leave(r);
    pthread_mutex_unlock(&r->lock);
}

static void on_reply(void *ctx, natsMsg *m)
{
    struct requests *r = ctx;
    struct str subject = str_of(natsMsg_GetSubject(m));
    struct slot taken;
    uint64_t token;
    if (subject.n <= r->prefix_len ||
        str_hex_to_u64(str_n(subject.p + r->prefix_len, subject.n - r->prefix_len), &token) !=
            ERR_OK)
        return;
    uint32_t i = (uint32_t)token, generation = (uint32_t)(token >> 32);
    pthread_mutex_lock(&r->lock);
    bool known = i < r->cap && r->slots[i].place != 0 && r->slots[i].generation == generation;
    if (known) take(r, i, &taken);
    pthread_mutex_unlock(&r->lock);
    if (!known) return; /* too late, or a second reply */
    if (natsMsg_IsNoResponders(m))
        finish(r, &taken, ERR_UNAVAILABLE, STR_NULL);
    else
        finish(r, &taken, ERR_OK, str_n(natsMsg_GetData(m), (size_t)natsMsg_GetDataLength(m)));
}

static void wait_until(struct requests *r, uint64_t now, uint64_t at)
{
    if (at == UINT64_MAX) {
        pthread_cond_wait(&r->changed, &r->lock);
        return;
    }
    struct timespec t = clock_in_ns(at - now);
    pthread_cond_timedwait(&r->changed, &r->lock, &t);
}

/* Fails what was sent before the connection was lost. Holds the lock, but not during callbacks. */
static void fail_broken(struct requests *r)
{
    uint64_t now_at = r->breaks;
    for (size_t i = 0; i < r->cap; i++) {
        struct slot taken;
        if (r->slots[i].place == 0 || r->slots[i].born >= now_at) continue;
        take(r, (uint32_t)i, &taken);
        pthread_mutex_unlock(&r->lock);
        finish(r, &taken, ERR_UNAVAILABLE, STR_NULL);
        pthread_mutex_lock(&r->lock);
    }
    r->failed = now_at;
}

static void *timer_main(void *ctx)
{
    struct requests *r = ctx;
    (void)pthread_setname_np(pthread_self(), "bus-timer");
    pthread_mutex_lock(&r->lock);
    for (;;) {
        while (r->failed < r->breaks) fail_broken(r);
        if (r->stop) break;
        uint64_t now = clock_mono_ns(r->bus->o.clock);
        uint64_t due = r->heap_len > 0 ? r->slots[r->heap[1]].deadline_ns : UINT64_MAX;
        if (due > now) {
            r->wakes_at = due;
            wait_until(r, now, due);
            continue;
        }
        struct slot taken;
        take(r, r->heap[1], &taken);
        pthread_mutex_unlock(&r->lock);
        finish(r, &taken, ERR_TIMEOUT, STR_NULL);
        pthread_mutex_lock(&r->lock);
    }
    pthread_mutex_unlock(&r->lock);
    nats_ReleaseThreadMemory();
    return NULL;
}

/* --- sending */

/* Takes a slot for s and writes its inbox. */
static enum err enter(struct requests *r, struct slot *s, int timeout_ms, char *inbox,
                      uint64_t *ret_token)
{
    enum err e = ERR_OK;
    s->deadline_ns = clock_mono_ns(r->bus->o.clock) + (uint64_t)MAX(timeout_ms, 1) * 1000000;
    pthread_mutex_lock(&r->lock);
    if (r->stop) {
        e = ERR_UNAVAILABLE;
    } else if (r->free_len == 0 && !grow(r)) {
        e = ERR_LIMIT;
    } else {
        uint32_t i = r->free_slots[--r->free_len];
        s->generation = r->slots[i].generation;
        s->born = r->breaks;
        r->slots[i] = *s;
        heap_up(r, i, ++r->heap_len);
        *ret_token = (uint64_t)s->generation << 32 | i;
        if (s->deadline_ns < r->wakes_at) pthread_cond_signal(&r->changed);
    }
    pthread_mutex_unlock(&r->lock);
    if (e == ERR_OK)
        snprintf(inbox, BUS_INBOX_LEN + 24, "%s%llx", r->prefix, (unsigned long long)*ret_token);
    return e;
}

/* Gives up a request that could not be sent. False: it has been called back already. */
static bool withdraw(struct requests *r, uint64_t token)
{
    uint32_t i = (uint32_t)token;
    struct slot unused;
    pthread_mutex_lock(&r->lock);
    bool mine = r->slots[i].place != 0 && r->slots[i].generation == (uint32_t)(token >> 32);
    if (mine) {
        take(r, i, &unused);
        leave(r);
    }
    pthread_mutex_unlock(&r->lock);
    return mine;
}

static natsStatus send(struct bus *b, natsConnection *nc, const char *subject, const char *inbox,
                       const char *const *headers, struct str data)
{
    natsMsg *m = NULL;
    if (headers == NULL || headers[0] == NULL)
        return natsConnection_PublishRequest(nc, subject, inbox, data.p, (int)data.n);
    natsStatus s = natsMsg_Create(&m, subject, inbox, data.p, (int)data.n);
    for (; s == NATS_OK && *headers != NULL; headers += 2)
        s = natsMsgHeader_Set(m, headers[0], headers[1]);
    if (s == NATS_OK) s = natsConnection_PublishMsg(nc, m);
    if (m != NULL) bus_msg_done(b, m);
    return s;
}

static enum err request(struct bus *b, const char *subject, const char *const *headers,
                        struct str data, int timeout_ms, struct slot *s)
{
    struct requests *r = b->requests;
    char inbox[BUS_INBOX_LEN + 24];
    uint64_t token;
    if (!bus_subject_is_valid(subject, false)) return ERR_INVALID;
    if (data.n > INT32_MAX) return ERR_LIMIT;
    if (!bus_is_connected(b)) return ERR_UNAVAILABLE;
    enum err e = enter(r, s, timeout_ms, inbox, &token);
    if (e != ERR_OK) return e;
    natsConnection *nc = bus_nc_get(b);
    natsStatus st = nc == NULL ? NATS_NOT_YET_CONNECTED
                               : send(b, nc, subject, inbox, headers, data);
    bus_nc_put(b);
    return st == NATS_OK || !withdraw(r, token) ? ERR_OK : bus_err(st);
}

enum err bus_request(struct bus *b, const char *subject, struct str data, int timeout_ms,
                     bus_reply_fn fn, void *ctx)
{
    struct slot s = { .fn = fn, .ctx = ctx };
    return request(b, subject, NULL, data, timeout_ms, &s);
}

enum err bus_js_publish(struct bus *b, const char *subject, const char *msg_id, struct str data,
                        int timeout_ms, bus_ack_fn fn, void *ctx)
{
    struct slot s = { .ack_fn = fn, .ctx = ctx };
    const char *const headers[] = { msg_id != NULL ? "Nats-Msg-Id" : NULL, msg_id, NULL };
    for (const char *c = msg_id; c != NULL && *c != '\0'; c++)
        if ((unsigned char)*c < ' ' || *c == 0x7f) return ERR_INVALID;
    return request(b, subject, headers, data, timeout_ms, &s);
}

/* --- blocking forms */

struct waiter {
    pthread_mutex_t lock;
    pthread_cond_t done_cond;
    bool done;
    enum err e;
    struct js_ack ack;
    struct buf *out;
};

static void waiter_done(struct waiter *w)
{
    pthread_mutex_lock(&w->lock);
    w->done = true;
    pthread_cond_signal(&w->done_cond);
    pthread_mutex_unlock(&w->lock);
}

static void on_waited_reply(void *ctx, enum err e, struct str data)
{
    struct waiter *w = ctx;
    w->e = e == ERR_OK ? buf_append_str(w->out, data) : e;
    waiter_done(w);
}

static void on_waited_ack(void *ctx, const struct js_ack *ack)
{
    struct waiter *w = ctx;
    w->ack = *ack;
    w->e = ack->e;
    waiter_done(w);
}

static enum err wait_for(struct bus *b, const char *subject, const char *const *headers,
                         struct str data, int timeout_ms, struct waiter *w)
{
    struct slot s = { .ctx = w };
    if (w->out != NULL)
        s.fn = on_waited_reply;
    else
        s.raw_fn = on_waited_ack;
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->done_cond, NULL);
    enum err e = request(b, subject, headers, data, timeout_ms, &s);
    if (e == ERR_OK) {
        pthread_mutex_lock(&w->lock);
        while (!w->done) pthread_cond_wait(&w->done_cond, &w->lock);
        pthread_mutex_unlock(&w->lock);
        e = w->e;
    }
    pthread_cond_destroy(&w->done_cond);
    pthread_mutex_destroy(&w->lock);
    return e;
}

enum err bus_request_wait(struct bus *b, const char *subject, struct str data, int timeout_ms,
                          struct buf *ret)
{
    struct waiter w = { .out = ret };
    return wait_for(b, subject, NULL, data, timeout_ms, &w);
}

enum err bus_js_publish_wait(struct bus *b, const char *subject, const char *const *headers,
                             struct str data, int timeout_ms, uint64_t *ret_seq)
{
    struct waiter w = { 0 };
    enum err e = wait_for(b, subject, headers, data, timeout_ms, &w);
    if (e == ERR_OK && ret_seq != NULL) *ret_seq = w.ack.seq;
    return e;
}

/* --- life */

struct requests *requests_new(struct bus *b)
{
    struct requests *r = xcalloc(1, sizeof *r);
    char token[BUS_TOKEN_LEN + 1], subject[BUS_INBOX_LEN + 1];
    pthread_condattr_t mono;
    r->bus = b;
    r->wakes_at = UINT64_MAX;
    bus_token(b, token);
    int n = snprintf(r->prefix, sizeof r->prefix, "%s.%s.", b->inbox_prefix, token);
    ASSERT(n > 0 && (size_t)n < sizeof r->prefix - 16);
    r->prefix_len = (size_t)n;
    snprintf(subject, sizeof subject, "%s*", r->prefix);
    pthread_mutex_init(&r->lock, NULL);
    pthread_condattr_init(&mono);
    pthread_condattr_setclock(&mono, CLOCK_MONOTONIC);
    pthread_cond_init(&r->changed, &mono);
    pthread_cond_init(&r->idle, &mono);
    pthread_condattr_destroy(&mono);
    enum err e = bus_sub_new(b, subject, NULL, NULL, on_reply, r, NULL, &r->inbox);
    ASSERT(e == ERR_OK);
    ASSERT(pthread_create(&r->timer, NULL, timer_main, r) == 0);
    return r;
}

void requests_break(struct requests *r)
{
    pthread_mutex_lock(&r->lock);
    r->breaks++;
    pthread_cond_signal(&r->changed);
    pthread_mutex_unlock(&r->lock);
}

bool requests_wait_idle(struct requests *r, uint64_t deadline_ns)
{
    pthread_mutex_lock(&r->lock);
    bool idle;
    while (!(idle = r->heap_len == 0 && r->running == 0)) {
        uint64_t now = clock_mono_ns(r->bus->o.clock);
        if (now >= deadline_ns) break;
        struct timespec t = clock_in_ns(deadline_ns - now);
        pthread_cond_timedwait(&r->idle, &r->lock, &t);
    }
    pthread_mutex_unlock(&r->lock);
    return idle;
}

void requests_stop(struct requests *r)
{
    pthread_mutex_lock(&r->lock);
    r->stop = true;
    r->breaks++; /* the last one, for what still waits */
    pthread_cond_signal(&r->changed);
    pthread_mutex_unlock(&r->lock);
    pthread_join(r->timer, NULL);
    bus_unsubscribe(r->inbox);
}

void requests_free(struct requests *r)
{
    pthread_mutex_destroy(&r->lock);
    pthread_cond_destroy(&r->changed);
    pthread_cond_destroy(&r->idle);
    free(r->slots);
    free(r->free_slots);
    free(r->heap);
    free(r);
}
