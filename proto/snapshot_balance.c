/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The shape of what an upstream says about choosing among its servers: balancing, health, queue,
 * retries; and of a route's fallbacks. The decoder's thread.
 */
#include "proto/snapshot_decode.h"

enum { RETRY_STATUSES_MAX = 16, PATH_MAX_BYTES = 1024 };
static const uint64_t ms_max = 86400000;

/* The member as an object that the decoder stands in; NULL when it is absent or none. */
static const struct json *enter(struct snap_decoder *d, const struct json *o, const char *key,
                                size_t *ret_mark)
{
    const struct json *v = dec_member(o, key);
    *ret_mark = dec_enter(d, str_of(key));
    if (v == NULL || json_is(v, JSON_OBJECT)) return v;
    dec_problem(d, "must be an object");
    return NULL;
}

static void decode_hash(struct snap_decoder *d, const struct json *o, struct snap_upstream *out)
{
    static const char *const words[] = {
        [SNAP_HASH_HEADER] = "header", [SNAP_HASH_KEY] = "key",   [SNAP_HASH_USER] = "user",
        [SNAP_HASH_PROMPT] = "prompt", [SNAP_HASH_PATH] = "path",
    };
    static const char *const keys[] = { "by", "header", "prompt_bytes", "load_percent", NULL };
    struct snap_hash *h = &out->hash;
    size_t mark;
    h->header = STR("");
    if (out->balance != SNAP_HASH) {
        dec_absent(d, o, "hash", "only balance \"hash\" takes it");
        return;
    }
    o = enter(d, o, "hash", &mark);
    h->by = (enum snap_hash_by)dec_word(d, o, "by", words, ARRAY_LEN(words), SNAP_HASH_PROMPT);
    if (h->by == SNAP_HASH_HEADER) {
        struct str name = dec_text(d, o, "header", DEC_REQUIRED, 1, 128);
        if (name.p != NULL && !dec_is_token(name))
            dec_problem_at(d, "header", "must be the name of a header");
        if (name.p != NULL) h->header = dec_copy_lower(d, name);
    } else {
        dec_absent(d, o, "header", "is of \"by\": \"header\" only");
    }
    h->prompt_bytes = dec_u64(d, o, "prompt_bytes", 0, 1024, 1, 1048576);
    h->load_percent = dec_u64(d, o, "load_percent", 0, 150, 100, 1000);
    dec_known(d, o, keys);
    dec_leave(d, mark);
}

static void decode_check(struct snap_decoder *d, const struct json *o, struct snap_upstream *out)
{
    static const char *const words[] = { [SNAP_CHECK_NONE] = "none",
                                         [SNAP_CHECK_HTTP] = "http",
                                         [SNAP_CHECK_TCP] = "tcp",
                                         [SNAP_CHECK_MODELS] = "models" };
    static const char *const keys[] = { "type",    "path",        "status",
                                        "model",   "interval_ms", "timeout_ms",
                                        "healthy", "unhealthy",   NULL };
    struct snap_check *c = &out->check;
    size_t mark;
    o = enter(d, o, "health_check", &mark);
    c->kind = (enum snap_check_kind)dec_word(d, o, "type", words, ARRAY_LEN(words),
                                             o != NULL ? -1 : SNAP_CHECK_NONE);
    bool http = c->kind == SNAP_CHECK_HTTP || c->kind == SNAP_CHECK_MODELS;
    struct str path = dec_text(d, o, "path", 0, 1, PATH_MAX_BYTES);
    for (size_t i = 0; i < path.n; i++)
        if ((unsigned char)path.p[i] <= 0x20 || path.p[i] == '#' || path.p[0] != '/') {
            dec_problem_at(d, "path", "must begin with / and hold no space or #");
            break;
        }
    if (!http) dec_absent(d, o, "path", "only types \"http\" and \"models\" have one");
    c->path = path.p != NULL                 ? path
              : c->kind == SNAP_CHECK_MODELS ? STR("/v1/models")
                                             : STR("/health");
    c->status = (unsigned)dec_u64(d, o, "status", 0, 200, 100, 599);
    if (c->kind != SNAP_CHECK_HTTP) dec_absent(d, o, "status", "only type \"http\" has one");
    struct str model = dec_text(d, o, "model", 0, 1, DEC_MODEL_MAX);
    if (c->kind != SNAP_CHECK_MODELS) dec_absent(d, o, "model", "only type \"models\" has one");
    c->model = model.p != NULL ? model : STR("");
    c->interval_ms = dec_u64(d, o, "interval_ms", 0, 5000, 100, ms_max);
    c->timeout_ms = dec_u64(d, o, "timeout_ms", 0, 2000, 10, ms_max);
    c->healthy = (unsigned)dec_u64(d, o, "healthy", 0, 2, 1, 100);
    c->unhealthy = (unsigned)dec_u64(d, o, "unhealthy", 0, 3, 1, 100);
    dec_known(d, o, keys);
    dec_leave(d, mark);
}

static void decode_passive(struct snap_decoder *d, const struct json *o, struct snap_upstream *out)
{
    static const char *const eject_keys[] = { "failures", "base_ms", "most_ms", "max_percent",
                                              NULL };
    static const char *const breaker_keys[] = { "error_percent", "min_requests", "window_ms",
                                                "open_ms",       "probes",       NULL };
    static const char *const cool_keys[] = { "max_ms", NULL };
    size_t mark;
    const struct json *e = enter(d, o, "ejection", &mark);
    out->eject.failures = (unsigned)dec_u64(d, e, "failures", 0, 3, 0, 1000);
    out->eject.base_ms = dec_u64(d, e, "base_ms", 0, 1000, 1, ms_max);
    out->eject.most_ms = dec_u64(d, e, "most_ms", 0, MAX(out->eject.base_ms, UINT64_C(30000)), 1,
                                 ms_max);
    out->eject.max_percent = (unsigned)dec_u64(d, e, "max_percent", 0, 50, 0, 100);
    if (out->eject.most_ms < out->eject.base_ms)
        dec_problem_at(d, "most_ms", "must be at least base_ms");
    dec_known(d, e, eject_keys);
    dec_leave(d, mark);

    const struct json *b = enter(d, o, "breaker", &mark);
    out->breaker.error_percent = (unsigned)dec_u64(d, b, "error_percent", 0, 50, 0, 100);
    out->breaker.min_requests = (unsigned)dec_u64(d, b, "min_requests", 0, 20, 1, 1000000);
    out->breaker.window_ms = dec_u64(d, b, "window_ms", 0, 10000, 100, ms_max);
    out->breaker.open_ms = dec_u64(d, b, "open_ms", 0, 5000, 1, ms_max);
    out->breaker.probes = (unsigned)dec_u64(d, b, "probes", 0, 1, 1, 1000);
    dec_known(d, b, breaker_keys);
    dec_leave(d, mark);

    const struct json *c = enter(d, o, "cooldown", &mark);
    out->cooldown_max_ms = dec_u64(d, c, "max_ms", 0, 60000, 0, ms_max);
    dec_known(d, c, cool_keys);
    dec_leave(d, mark);
    out->slow_start_ms = dec_u64(d, o, "slow_start_ms", 0, 0, 0, ms_max);
}

static void decode_queue(struct snap_decoder *d, const struct json *o, struct snap_upstream *out)
{
    static const char *const keys[] = { "max", "timeout_ms", NULL };
    size_t mark;
    o = enter(d, o, "queue", &mark);
    out->queue_max = dec_u64(d, o, "max", 0, 128, 0, 100000);
    out->queue_ms = dec_u64(d, o, "timeout_ms", 0, 10000, 1, ms_max);
    dec_known(d, o, keys);
    dec_leave(d, mark);
}

static const struct {
    const char *word;
    unsigned bit;
} causes[] = { { "connect", SNAP_RETRY_CONNECT },
               { "reset", SNAP_RETRY_RESET },
               { "timeout", SNAP_RETRY_TIMEOUT },
               { "stream", SNAP_RETRY_STREAM } };

/* A status of 400 to 599; 0: none. */
static unsigned retry_status(struct str s)
{
    uint64_t n;
    return s.n == 3 && str_to_u64(s, &n) == ERR_OK && n >= 400 && n <= 599 ? (unsigned)n : 0;
}

static unsigned retry_cause(struct str s)
{
    for (size_t i = 0; i < ARRAY_LEN(causes); i++)
        if (str_eqz(s, causes[i].word)) return causes[i].bit;
    return 0;
}

static bool is_retry_word(struct str s)
{
    return retry_cause(s) != 0 || retry_status(s) != 0;
}

static void decode_retry(struct snap_decoder *d, const struct json *o, struct snap_upstream *out)
{
    static const unsigned usual[] = { 429, 502, 503, 504, 529 };
    static const char *const keys[] = { "causes",     "budget_percent", "budget_min",
                                        "backoff_ms", "hold_ms",        NULL };
    struct snap_retry *r = &out->retry;
    size_t mark;
    out->retries = dec_u64(d, o, "retries", 0, 1, 0, 10);
    o = enter(d, o, "retry", &mark);
    struct snap_strings on = dec_strings(
        d, o, "causes", RETRY_STATUSES_MAX + ARRAY_LEN(causes), 16, is_retry_word,
        "must be connect, reset, timeout, stream, or a status from 400 to 599 such as \"503\"");
    unsigned *statuses = dec_alloc(d, RETRY_STATUSES_MAX + ARRAY_LEN(causes), sizeof *statuses);
    if (dec_member(o, "causes") == NULL) {
        r->causes = SNAP_RETRY_CONNECT | SNAP_RETRY_RESET | SNAP_RETRY_TIMEOUT | SNAP_RETRY_STREAM;
        r->statuses = usual;
        r->statuses_n = ARRAY_LEN(usual);
    } else if (statuses != NULL) {
        for (size_t i = 0; i < on.n; i++) {
            r->causes |= retry_cause(on.v[i]);
            if (retry_status(on.v[i]) != 0) statuses[r->statuses_n++] = retry_status(on.v[i]);
        }
        r->statuses = statuses;
    }
    r->budget_percent = (unsigned)dec_u64(d, o, "budget_percent", 0, 20, 0, 100);
    r->budget_min = (unsigned)dec_u64(d, o, "budget_min", 0, 20, 0, 100000);
    r->backoff_ms = dec_u64(d, o, "backoff_ms", 0, 0, 0, 60000);
    r->hold_ms = dec_u64(d, o, "hold_ms", 0, 1000, 0, 60000);
    dec_known(d, o, keys);
    dec_leave(d, mark);
}

bool snap_retries_status(const struct snap_upstream *u, unsigned status)
{
    for (size_t i = 0; i < u->retry.statuses_n; i++)
        if (u->retry.statuses[i] == status) return true;
    return false;
}

void dec_balance(struct snap_decoder *d, const struct json *o, struct snap_upstream *out)
{
    static const char *const words[] = {
        [SNAP_ROUND_ROBIN] = "round_robin",
        [SNAP_WEIGHTED_ROUND_ROBIN] = "weighted_round_robin",
        [SNAP_RANDOM] = "random",
        [SNAP_LEAST_REQUESTS] = "least_requests",
        [SNAP_HASH] = "hash",
    };
    out->balance = (enum snap_balance)dec_word(d, o, "balance", words, ARRAY_LEN(words),
                                               SNAP_ROUND_ROBIN);
    decode_hash(d, o, out);
    decode_check(d, o, out);
    decode_passive(d, o, out);
    decode_queue(d, o, out);
    decode_retry(d, o, out);
}

/* --- fallbacks of a route --- */

static void decode_fallback(struct snap_decoder *d, const struct json *o,
                            const struct snap_upstream *first, struct snap_fallback *out)
{
    static const char *const keys[] = { "upstream", "upstream_model", NULL };
    out->upstream_model = STR_NULL;
    if (!json_is(o, JSON_OBJECT)) {
        dec_problem(d, "must be an object with \"upstream\"");
        return;
    }
    struct str id = dec_id(d, o, "upstream");
    if (d->resolve && id.n > 0) {
        out->upstream = map_get(d->upstreams, id);
        if (out->upstream == NULL)
            dec_problem_at(d, "upstream", "there is no upstream %.*s", STR_ARG(id));
        else if (first != NULL && out->upstream->dialect != first->dialect)
            dec_problem_at(d, "upstream", "must speak the same dialect as the route's upstream");
    }
    out->upstream_model = dec_text(d, o, "upstream_model", 0, 1, DEC_MODEL_MAX);
    dec_known(d, o, keys);
}

void dec_fallbacks(struct snap_decoder *d, const struct json *o, struct snap_route *out)
{
    const struct json *list = dec_member(o, "fallbacks");
    size_t n = json_len(list), i = 0;
    if (list == NULL) return;
    if (!json_is(list, JSON_ARRAY) || n > SNAP_FALLBACKS_MAX) {
        dec_problem_at(d, "fallbacks", "must be a list of at most %d upstreams",
                       SNAP_FALLBACKS_MAX);
        return;
    }
    struct snap_fallback *v = n > 0 ? dec_alloc(d, n, sizeof *v) : NULL;
    if (v == NULL) return;
    size_t mark = dec_enter(d, STR("fallbacks"));
    for (const struct json *it = json_first(list); it != NULL; it = json_next(it), i++) {
        size_t inner = dec_enter_index(d, i);
        decode_fallback(d, it, out->upstream, &v[i]);
        dec_leave(d, inner);
    }
    dec_leave(d, mark);
    out->fallbacks = v;
    out->fallbacks_n = n;
}
