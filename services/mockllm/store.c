/* SPDX-License-Identifier: Apache-2.0 */
/* Counters and records under one lock; see the header. Any thread. */
#include "store.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "base/map.h"

enum { MAX_NAMES = 4096, MAX_RECORDS = 4096, MAX_ABORTS = 4096, NAME_LEN = 96 };

struct counts {
    uint64_t requests, prompt_tokens, completion_tokens, done, aborted, errors, faults;
};

struct record {
    uint64_t number, connection, at_ms;
    char id[NAME_LEN];
    char *head, *body; /* owned */
    size_t head_len, body_len, body_kept;
    bool over;
    int status;
    enum ended how;
    uint64_t events, bytes, completion_tokens, ended_ms;
};

struct abort_note {
    char id[NAME_LEN], model[NAME_LEN], tag[NAME_LEN];
    uint64_t at_ms, after_ms, events, tokens;
    enum ended how;
};

struct table {
    const char *name;
    struct map map; /* of struct counts */
};
enum { BY_ENDPOINT, BY_MODEL, BY_USER, BY_TAG, BY_MAX };

struct store {
    const struct clock *clock;
    bool record_all;
    size_t body_max;
    _Atomic uint64_t serial;
    pthread_mutex_t lock; /* all below */
    uint64_t since_ms;
    struct counts total;
    uint64_t accepted, open, bad_requests, inflight, streams_open, streams_started;
    struct table by[BY_MAX];
    struct map strikes;     /* of uint64_t */
    struct record *records; /* a ring: number n is at n % MAX_RECORDS */
    uint64_t records_next;
    struct abort_note *aborts; /* a ring */
    uint64_t aborts_next;
};

static const char *const ended_name[ENDED_MAX] = { "done",  "client_closed", "client_reset",
                                                   "fault", "error",         "shutdown" };

const struct metric_def store_metric_defs[] = {
    [METRIC_REQUESTS] = { "mockllm_requests_total",
                          METRIC_COUNTER,
                          "Requests to model endpoints that have ended, by how.",
                          { "ended" },
                          { 0 },
                          0 },
    [METRIC_TOKENS] = { "mockllm_tokens_total",
                        METRIC_COUNTER,
                        "Tokens of prompts answered, and of answers sent.",
                        { "type" },
                        { 0 },
                        0 },
    [METRIC_OPEN_STREAMS] = { "mockllm_open_streams",
                              METRIC_GAUGE,
                              "Streams being sent.",
                              { NULL },
                              { 0 },
                              0 },
    [METRIC_ABORTED] = { "mockllm_aborted_total",
                         METRIC_COUNTER,
                         "Answers that the client did not wait for.",
                         { NULL },
                         { 0 },
                         0 },
    [METRIC_CONNECTIONS] = { "mockllm_connections",
                             METRIC_GAUGE,
                             "Open connections.",
                             { NULL },
                             { 0 },
                             0 },
};
const size_t store_metric_defs_len = ARRAY_LEN(store_metric_defs);

/* --- life --- */

static void clear(struct store *s)
{
    struct map_entry *e;
    for (size_t b = 0; b < BY_MAX; b++) {
        for (size_t i = 0; (e = map_next(&s->by[b].map, &i)) != NULL;) free(e->value);
        map_done(&s->by[b].map);
        map_init(&s->by[b].map, MAX_NAMES);
    }
    for (size_t i = 0; (e = map_next(&s->strikes, &i)) != NULL;) free(e->value);
    map_done(&s->strikes);
    map_init(&s->strikes, MAX_NAMES);
    for (size_t i = 0; i < MAX_RECORDS; i++) {
        free(s->records[i].head);
        free(s->records[i].body);
        s->records[i] = (struct record){ 0 };
    }
    s->aborts_next = 0;
    s->total = (struct counts){ 0 };
    s->accepted = s->bad_requests = s->streams_started = 0;
    s->since_ms = clock_wall_ms(s->clock);
}

struct store *store_new(const struct clock *clock, bool record_all, size_t body_max)
{
    static const char *const names[BY_MAX] = { "endpoints", "models", "users", "tags" };
    struct store *s = xcalloc(1, sizeof *s);
    s->clock = clock;
    s->record_all = record_all;
    s->body_max = body_max;
    s->records = xcalloc(MAX_RECORDS, sizeof *s->records);
    s->records_next = 1;
    s->aborts = xcalloc(MAX_ABORTS, sizeof *s->aborts);
    pthread_mutex_init(&s->lock, NULL);
    for (size_t b = 0; b < BY_MAX; b++) {
        s->by[b].name = names[b];
        map_init(&s->by[b].map, MAX_NAMES);
    }
    map_init(&s->strikes, MAX_NAMES);
    clear(s);
    return s;
}

void store_free(struct store *s)
{
    if (s == NULL) return;
    clear(s);
    for (size_t b = 0; b < BY_MAX; b++) map_done(&s->by[b].map);
    map_done(&s->strikes);
    pthread_mutex_destroy(&s->lock);
    free(s->records);
    free(s->aborts);
    free(s);
}

void store_reset(struct store *s)
{
    pthread_mutex_lock(&s->lock);
    clear(s);
    pthread_mutex_unlock(&s->lock);
}

/* --- taking notes --- */

void store_connection(struct store *s, bool opened)
{
    pthread_mutex_lock(&s->lock);
    if (opened) {
        s->accepted++;
        s->open++;
    } else {
        s->open--;
    }
    pthread_mutex_unlock(&s->lock);
}

void store_bad_request(struct store *s)
{
    pthread_mutex_lock(&s->lock);
    s->bad_requests++;
    pthread_mutex_unlock(&s->lock);
}

uint64_t store_serial(struct store *s)
{
    return atomic_fetch_add(&s->serial, 1) + 1;
}

/* The value of name in m, made when there is none; NULL when it cannot be. */
static void *find_or_make(struct map *m, struct str name, size_t size)
{
    void *v = map_get(m, name);
    if (v != NULL) return v;
    v = calloc(1, size);
    if (v != NULL && map_put(m, name, v, NULL) != ERR_OK) {
        free(v);
        v = NULL;
    }
    return v;
}

uint64_t store_strike(struct store *s, struct str id)
{
    pthread_mutex_lock(&s->lock);
    uint64_t *n = find_or_make(&s->strikes, id, sizeof *n);
    uint64_t v = n != NULL ? ++*n : UINT64_MAX;
    pthread_mutex_unlock(&s->lock);
    return v;
}

static char *keep(struct str s, size_t max, size_t *ret)
{
    size_t n = MIN(s.n, max);
    char *p = malloc(n + 1);
    *ret = p != NULL ? n : 0;
    if (p != NULL && n > 0) memcpy(p, s.p, n);
    return p;
}

uint64_t store_record(struct store *s, struct str id, uint64_t connection, struct str head,
                      struct str body)
{
    if (id.n == 0 && !s->record_all) return 0;
    struct record r = { .connection = connection, .at_ms = clock_wall_ms(s->clock) };
    str_copyz(r.id, sizeof r.id, id);
    r.head = keep(head, head.n, &r.head_len);
    r.body = keep(body, s->body_max, &r.body_kept);
    r.body_len = body.n;
    pthread_mutex_lock(&s->lock);
    r.number = s->records_next++;
    struct record *old = &s->records[r.number % MAX_RECORDS];
    free(old->head);
    free(old->body);
    *old = r;
    pthread_mutex_unlock(&s->lock);
    return r.number;
}

void store_begin(struct store *s)
{
    pthread_mutex_lock(&s->lock);
    s->inflight++;
    pthread_mutex_unlock(&s->lock);
}

void store_stream(struct store *s)
{
    pthread_mutex_lock(&s->lock);
    s->streams_open++;
    s->streams_started++;
    pthread_mutex_unlock(&s->lock);
}

static void count(struct counts *c, const struct ending *e)
{
    c->requests++;
    c->prompt_tokens += e->prompt_tokens;
    c->completion_tokens += e->completion_tokens;
    c->done += e->how == ENDED_DONE;
    c->aborted += e->how == ENDED_CLIENT_CLOSED || e->how == ENDED_CLIENT_RESET;
    c->errors += e->how == ENDED_ERROR;
    c->faults += e->how == ENDED_FAULT;
}

static void note_abort(struct store *s, const struct ending *e)
{
    struct abort_note *a = &s->aborts[s->aborts_next++ % MAX_ABORTS];
    *a = (struct abort_note){ .at_ms = clock_wall_ms(s->clock),
                              .after_ms = (clock_mono_ns(s->clock) - e->began_ns) / 1000000,
                              .events = e->events,
                              .tokens = e->completion_tokens,
                              .how = e->how };
    str_copyz(a->id, sizeof a->id, e->id);
    str_copyz(a->model, sizeof a->model, e->model);
    str_copyz(a->tag, sizeof a->tag, e->tag);
}

void store_end(struct store *s, const struct ending *e)
{
    const struct str names[BY_MAX] = { e->endpoint, e->model, e->user, e->tag };
    pthread_mutex_lock(&s->lock);
    s->inflight--;
    s->streams_open -= e->stream;
    count(&s->total, e);
    for (size_t b = 0; b < BY_MAX; b++) {
        if (names[b].n == 0) continue;
        struct counts *c = find_or_make(&s->by[b].map, names[b], sizeof *c);
        if (c == NULL) c = find_or_make(&s->by[b].map, STR("other"), sizeof *c);
        if (c != NULL) count(c, e);
    }
    if (e->how == ENDED_CLIENT_CLOSED || e->how == ENDED_CLIENT_RESET) note_abort(s, e);
    struct record *r = &s->records[e->record % MAX_RECORDS];
    if (e->record != 0 && r->number == e->record) {
        r->over = true;
        r->status = e->status;
        r->how = e->how;
        r->events = e->events;
        r->bytes = e->bytes;
        r->completion_tokens = e->completion_tokens;
        r->ended_ms = clock_wall_ms(s->clock);
    }
    pthread_mutex_unlock(&s->lock);
}

size_t store_inflight(struct store *s)
{
    pthread_mutex_lock(&s->lock);
    size_t n = (size_t)s->inflight;
    pthread_mutex_unlock(&s->lock);
    return n;
}

/* --- telling --- */

static void put_counts(struct json *o, const struct counts *c)
{
    json_set_u64(o, "requests", c->requests);
    json_set_u64(o, "prompt_tokens", c->prompt_tokens);
    json_set_u64(o, "completion_tokens", c->completion_tokens);
    json_set_u64(o, "done", c->done);
    json_set_u64(o, "aborted", c->aborted);
    json_set_u64(o, "errors", c->errors);
    json_set_u64(o, "faults", c->faults);
}

static struct json *aborts_json(const struct store *s)
{
    struct json *list = json_array();
    uint64_t from = s->aborts_next > MAX_ABORTS ? s->aborts_next - MAX_ABORTS : 0;
    for (uint64_t i = from; i < s->aborts_next; i++) {
        const struct abort_note *a = &s->aborts[i % MAX_ABORTS];
        struct json *o = json_object();
        json_setz(o, "id", a->id);
        json_setz(o, "model", a->model);
        json_setz(o, "tag", a->tag);
        json_setz(o, "how", ended_name[a->how]);
        json_set_u64(o, "at_ms", a->at_ms);
        json_set_u64(o, "after_ms", a->after_ms);
        json_set_u64(o, "events", a->events);
        json_set_u64(o, "tokens", a->tokens);
        json_push(list, o);
    }
    return list;
}

struct json *store_stats(struct store *s)
{
    struct json *o = json_object(), *part;
    pthread_mutex_lock(&s->lock);
    json_set_u64(o, "since_ms", s->since_ms);
    json_set_u64(o, "now_ms", clock_wall_ms(s->clock));
    put_counts(o, &s->total);
    json_set_u64(o, "inflight", s->inflight);
    json_set_u64(o, "bad_requests", s->bad_requests);
    part = json_object();
    json_set_u64(part, "open", s->open);
    json_set_u64(part, "accepted", s->accepted);
    json_set(o, "connections", part);
    part = json_object();
    json_set_u64(part, "open", s->streams_open);
    json_set_u64(part, "started", s->streams_started);
    json_set(o, "streams", part);
    for (size_t b = 0; b < BY_MAX; b++) {
        struct map_entry *e;
        part = json_object();
        for (size_t i = 0; (e = map_next(&s->by[b].map, &i)) != NULL;) {
            struct json *c = json_object();
            put_counts(c, e->value);
            json_set(part, e->key.p, c);
        }
        json_set(o, s->by[b].name, part);
    }
    json_set(o, "aborts", aborts_json(s));
    pthread_mutex_unlock(&s->lock);
    return o;
}

/* By lower-case name; several fields of one name are joined as a recipient may join them. */
static void put_header(struct json *headers, const struct h1_field *f)
{
    char *name = str_dupz(f->name);
    for (char *p = name; *p != '\0'; p++)
        if (*p >= 'A' && *p <= 'Z') *p = (char)(*p | 0x20);
    struct str had;
    if (json_get_str(headers, name, &had) == ERR_OK) {
        struct buf both;
        buf_init(&both, had.n + f->value.n + 2);
        if (buf_append_str(&both, had) == ERR_OK && buf_appendz(&both, ", ") == ERR_OK &&
            buf_append_str(&both, f->value) == ERR_OK)
            json_set_str(headers, name, buf_str(&both));
        buf_done(&both);
    } else {
        json_set_str(headers, name, f->value);
    }
    free(name);
}

static void put_request(struct json *o, const struct record *r)
{
    const struct h1_limits limits = { .head = SIZE_MAX,
                                      .line = SIZE_MAX,
                                      .headers = H1_MAX_HEADERS };
    struct h1_request *h = xcalloc(1, sizeof *h);
    struct h1_error err;
    if (h1_parse_request(r->head, r->head_len, &limits, h, &err) == H1_DONE) {
        struct json *raw = json_array(), *headers = json_object();
        for (size_t i = 0; i < h->head.fields_len; i++) {
            struct json *pair = json_array();
            json_push_str(pair, h->head.fields[i].name);
            json_push_str(pair, h->head.fields[i].value);
            json_push(raw, pair);
            put_header(headers, &h->head.fields[i]);
        }
        json_set_str(o, "method", h->method_str);
        json_set_str(o, "target", h->target);
        json_set(o, "headers", headers);
        json_set(o, "raw_headers", raw);
    }
    free(h);
}

static struct json *record_json(const struct record *r)
{
    struct json *o = json_object();
    json_setz(o, "id", r->id);
    json_set_u64(o, "number", r->number);
    json_set_u64(o, "connection", r->connection);
    json_set_u64(o, "at_ms", r->at_ms);
    put_request(o, r);
    json_set_u64(o, "body_bytes", r->body_len);
    struct str body = str_n(r->body, r->body_kept);
    if (str_is_utf8(body)) {
        json_set_str(o, "body", body);
    } else {
        char *hex = xmalloc(body.n * 2 + 1);
        hex_encode(body.p, body.n, hex);
        json_setz(o, "body_hex", hex);
        free(hex);
    }
    if (r->over) {
        json_setz(o, "ended", ended_name[r->how]);
        json_set_u64(o, "status", (uint64_t)r->status);
        json_set_u64(o, "events", r->events);
        json_set_u64(o, "bytes", r->bytes);
        json_set_u64(o, "completion_tokens", r->completion_tokens);
        json_set_u64(o, "ended_ms", r->ended_ms);
    } else {
        json_set_null(o, "ended");
    }
    return o;
}

struct json *store_requests(struct store *s, struct str id)
{
    struct json *list = json_array();
    pthread_mutex_lock(&s->lock);
    uint64_t from = s->records_next > MAX_RECORDS ? s->records_next - MAX_RECORDS : 1;
    for (uint64_t n = from; n < s->records_next; n++) {
        const struct record *r = &s->records[n % MAX_RECORDS];
        if (r->number == n && (id.p == NULL || str_eqz(id, r->id))) json_push(list, record_json(r));
    }
    pthread_mutex_unlock(&s->lock);
    return list;
}

void store_scrape(struct store *s, struct metrics *m)
{
    pthread_mutex_lock(&s->lock);
    struct counts c = s->total;
    uint64_t streams = s->streams_open, open = s->open;
    pthread_mutex_unlock(&s->lock);
    const struct {
        const char *name;
        uint64_t value;
    } ends[] = {
        { "done", c.done }, { "aborted", c.aborted }, { "error", c.errors }, { "fault", c.faults }
    };
    for (size_t i = 0; i < ARRAY_LEN(ends); i++) {
        struct str label = str_of(ends[i].name);
        metric_set(metrics_get(m, METRIC_REQUESTS, &label), (double)ends[i].value);
    }
    metric_set(metrics_get(m, METRIC_TOKENS, &(struct str){ "prompt", 6 }),
               (double)c.prompt_tokens);
    metric_set(metrics_get(m, METRIC_TOKENS, &(struct str){ "completion", 10 }),
               (double)c.completion_tokens);
    metric_set(metrics_get(m, METRIC_OPEN_STREAMS, NULL), (double)streams);
    metric_set(metrics_get(m, METRIC_ABORTED, NULL), (double)c.aborted);
    metric_set(metrics_get(m, METRIC_CONNECTIONS, NULL), (double)open);
}
