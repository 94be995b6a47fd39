/* SPDX-License-Identifier: Apache-2.0 */
/* Reading of the usage record: goes through rt/json and is strict about types, lenient about
 * members it does not know. Any thread, no state. */
#include "proto/usage_msg.h"

#include "base/uuid.h"
#include "rt/json.h"

static const char *const outcome_names[USAGE_OUTCOME_MAX] = {
#define X(symbol, word) word,
    USAGE_OUTCOMES(X)
#undef X
};
static const char *const source_names[USAGE_SOURCE_MAX] = {
#define X(symbol, word) word,
    USAGE_SOURCES(X)
#undef X
};

const char *usage_outcome_name(enum usage_outcome o)
{
    ASSERT(o < USAGE_OUTCOME_MAX);
    return outcome_names[o];
}

enum err usage_outcome_parse(struct str s, enum usage_outcome *ret)
{
    for (unsigned i = 0; i < USAGE_OUTCOME_MAX; i++) {
        if (!str_eqz(s, outcome_names[i])) continue;
        *ret = (enum usage_outcome)i;
        return ERR_OK;
    }
    return ERR_INVALID;
}

static enum err source_parse(struct str s, enum usage_source *ret)
{
    for (unsigned i = 0; i < USAGE_SOURCE_MAX; i++) {
        if (!str_eqz(s, source_names[i])) continue;
        *ret = (enum usage_source)i;
        return ERR_OK;
    }
    return ERR_INVALID;
}

/* --- time --- */

static bool is_leap(unsigned y)
{
    return (y % 4 == 0 && y % 100 != 0) || y % 400 == 0;
}

/* Days from 1970-01-01 to the first of a month (1..12) of a year from 1970 on. */
static uint64_t days_before(unsigned year, unsigned month)
{
    static const unsigned before[12] = { 0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334 };
    unsigned y = year - 1;
    uint64_t leaps = (uint64_t)(y / 4 - y / 100 + y / 400) - (1969 / 4 - 1969 / 100 + 1969 / 400);
    return (uint64_t)(year - 1970) * 365 + leaps + before[month - 1] +
           (month > 2 && is_leap(year) ? 1 : 0);
}

static bool two_digits(const char *p, unsigned n, unsigned *ret)
{
    unsigned v = 0;
    for (unsigned i = 0; i < n; i++) {
        if (p[i] < '0' || p[i] > '9') return false;
        v = v * 10 + (unsigned)(p[i] - '0');
    }
    *ret = v;
    return true;
}

enum err usage_parse_ts(struct str s, uint64_t *ret_ms)
{
    static const unsigned char month_days[12] = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 };
    unsigned year, month, day, h, m, sec, ms = 0;
    const char *p = s.p;
    if (s.n < 20 || s.n > 30 || p[4] != '-' || p[7] != '-' || p[10] != 'T' || p[13] != ':' ||
        p[16] != ':' || p[s.n - 1] != 'Z')
        return ERR_INVALID;
    if (!two_digits(p, 4, &year) || !two_digits(p + 5, 2, &month) || !two_digits(p + 8, 2, &day) ||
        !two_digits(p + 11, 2, &h) || !two_digits(p + 14, 2, &m) || !two_digits(p + 17, 2, &sec))
        return ERR_INVALID;
    if (year < 1970 || month < 1 || month > 12 || h > 23 || m > 59 || sec > 60) return ERR_INVALID;
    unsigned last = month_days[month - 1] + (month == 2 && is_leap(year) ? 1u : 0u);
    if (day < 1 || day > last) return ERR_INVALID;
    if (s.n > 20) {
        unsigned weight = 100, digit;
        if (p[19] != '.' || s.n == 21) return ERR_INVALID;
        for (size_t i = 20; i < s.n - 1; i++, weight /= 10) {
            if (!two_digits(p + i, 1, &digit)) return ERR_INVALID;
            ms += digit * weight; /* finer than a millisecond counts nothing */
        }
    }
    uint64_t days = days_before(year, month) + day - 1;
    *ret_ms = ((days * 24 + h) * 60 + m) * 60000 + (uint64_t)sec * 1000 + ms;
    return ERR_OK;
}

/* --- decoding --- */

/* A byte that was no UTF-8 became three, so a text can be that much longer than what was cut. */
enum { DECODED_TEXT_MAX = 3 * USAGE_TEXT_MAX };

struct reader {
    const struct json *o;
    struct arena *arena;
    struct why *why;
    enum err e;
};

static void bad(struct reader *r, enum err e, const char *key, const char *what)
{
    if (r->e == ERR_OK) r->e = why_set(r->why, e, "%s: %s", key, what);
}

static void get_str(struct reader *r, const char *key, struct str *ret)
{
    struct str s;
    enum err e = json_get_str(r->o, key, &s);
    if (r->e != ERR_OK || e == ERR_NOT_FOUND) return;
    if (e != ERR_OK) {
        bad(r, ERR_INVALID, key, "not a string");
    } else if (s.n > DECODED_TEXT_MAX) {
        bad(r, ERR_INVALID, key, "too long");
    } else if (memchr(s.p, 0, s.n) != NULL) {
        bad(r, ERR_INVALID, key, "has a NUL");
    } else if (!str_is_utf8(s)) {
        bad(r, ERR_INVALID, key, "is not UTF-8");
    } else if (arena_dup(r->arena, s, ret) != ERR_OK) {
        bad(r, ERR_NOMEM, key, "no memory");
    }
}

static void get_u64(struct reader *r, const char *key, uint64_t *ret)
{
    enum err e = json_get_u64(r->o, key, ret);
    if (e != ERR_OK && e != ERR_NOT_FOUND) bad(r, ERR_INVALID, key, "not a whole number");
    /* Sums of these are kept in 64 bits, signed. */
    if (e == ERR_OK && *ret > INT64_C(1) << 53) bad(r, ERR_INVALID, key, "too large");
}

static void get_i64(struct reader *r, const char *key, int64_t *ret)
{
    enum err e = json_get_i64(r->o, key, ret);
    if (e != ERR_OK && e != ERR_NOT_FOUND) bad(r, ERR_INVALID, key, "not a whole number");
    if (e == ERR_OK && (*ret > INT64_C(1) << 53 || *ret < -(INT64_C(1) << 53)))
        bad(r, ERR_INVALID, key, "too large");
}

static void get_status(struct reader *r, unsigned *ret)
{
    uint64_t v = 0;
    get_u64(r, "status", &v);
    if (v > 999) bad(r, ERR_INVALID, "status", "no HTTP status");
    if (r->e == ERR_OK) *ret = (unsigned)v;
}

static void get_source(struct reader *r, const char *key, enum usage_source *ret)
{
    struct str s = STR_NULL;
    get_str(r, key, &s);
    if (s.p != NULL && source_parse(s, ret) != ERR_OK)
        bad(r, ERR_INVALID, key, "neither exact, upstream nor estimate");
}

/* Goes into an object member. False: it is absent, or no object (then an error is set). */
static bool enter(struct reader *r, const char *key, const struct json **ret_outer)
{
    const struct json *n = json_get(r->o, key);
    if (n == NULL || json_is(n, JSON_NULL) || r->e != ERR_OK) return false;
    if (!json_is(n, JSON_OBJECT)) {
        bad(r, ERR_INVALID, key, "not an object");
        return false;
    }
    *ret_outer = r->o;
    r->o = n;
    return true;
}

static void get_identity(struct reader *r, struct usage_record *u)
{
    struct str ts = STR_NULL;
    get_str(r, "id", &u->id);
    if (!uuid_is_valid(u->id)) bad(r, ERR_INVALID, "id", "missing, or no UUID");
    get_str(r, "ts", &ts);
    if (ts.p == NULL || usage_parse_ts(ts, &u->ts_ms) != ERR_OK)
        bad(r, ERR_INVALID, "ts", "missing, or not RFC 3339 in UTC");
    get_str(r, "from", &u->from);
    get_str(r, "edge", &u->edge);
    get_str(r, "namespace", &u->namespace_slug);
    if (!str_is_slug(u->namespace_slug)) bad(r, ERR_INVALID, "namespace", "missing, or no slug");
    get_str(r, "namespace_id", &u->namespace_id);
    get_str(r, "key_id", &u->key_id);
    get_str(r, "route", &u->route);
    get_str(r, "route_id", &u->route_id);
    get_str(r, "dialect", &u->dialect);
    get_str(r, "model", &u->model);
    get_str(r, "upstream_model", &u->upstream_model);
    get_str(r, "upstream", &u->upstream);
    get_str(r, "upstream_id", &u->upstream_id);
    get_str(r, "client_ip", &u->client_ip);
    get_str(r, "user", &u->user);
    get_str(r, "trace_id", &u->trace_id);
    get_u64(r, "revision", &u->revision);
}

static void get_attempts(struct reader *r, struct usage_record *u)
{
    const struct json *list = json_get(r->o, "attempts"), *outer = r->o;
    if (list == NULL || json_is(list, JSON_NULL)) return;
    if (!json_is(list, JSON_ARRAY) || json_len(list) > USAGE_ATTEMPTS_MAX) {
        bad(r, ERR_INVALID, "attempts", "not a list, or too long");
        return;
    }
    for (const struct json *n = json_first(list); n != NULL; n = json_next(n)) {
        struct usage_attempt *a = &u->attempts[u->attempts_n++];
        if (!json_is(n, JSON_OBJECT)) bad(r, ERR_INVALID, "attempts", "holds what is no object");
        r->o = n;
        get_str(r, "upstream", &a->upstream);
        get_str(r, "server", &a->server);
        get_status(r, &a->status);
        get_u64(r, "tokens", &a->tokens);
        get_u64(r, "ms", &a->ms);
    }
    r->o = outer;
}

static void get_result(struct reader *r, struct usage_record *u)
{
    struct str outcome = STR_NULL;
    const struct json *outer;
    enum err e = json_get_bool(r->o, "stream", &u->stream);
    if (e != ERR_OK && e != ERR_NOT_FOUND) bad(r, ERR_INVALID, "stream", "neither true nor false");
    get_status(r, &u->status);
    get_str(r, "outcome", &outcome);
    if (usage_outcome_parse(outcome, &u->outcome) != ERR_OK)
        bad(r, ERR_INVALID, "outcome", "missing, or no known word");
    if (enter(r, "reject", &outer)) {
        get_str(r, "policy", &u->reject.policy);
        get_str(r, "dimension", &u->reject.dimension);
        r->o = outer;
    }
    get_attempts(r, u);
    u->has_ttft = json_is(json_get(r->o, "ttft_ms"), JSON_NUMBER);
    get_u64(r, "ttft_ms", &u->ttft_ms);
    get_u64(r, "duration_ms", &u->duration_ms);
    get_u64(r, "overhead_us", &u->overhead_us);
}

static void get_amounts(struct reader *r, struct usage_record *u)
{
    const struct json *outer;
    get_u64(r, "input_tokens", &u->input_tokens);
    get_u64(r, "output_tokens", &u->output_tokens);
    get_u64(r, "cached_tokens", &u->cached_tokens);
    get_u64(r, "reasoning_tokens", &u->reasoning_tokens);
    get_source(r, "input_source", &u->input_source);
    get_source(r, "output_source", &u->output_source);
    if (enter(r, "upstream_reported", &outer)) {
        u->upstream_reported.known = true;
        get_u64(r, "input", &u->upstream_reported.input);
        get_u64(r, "output", &u->upstream_reported.output);
        r->o = outer;
    }
    if (enter(r, "cost", &outer)) {
        get_i64(r, "nano", &u->cost.nano);
        get_str(r, "currency", &u->cost.currency);
        get_i64(r, "price_revision", &u->cost.price_revision);
        if (u->cost.currency.n == 0) bad(r, ERR_INVALID, "cost", "has no currency");
        r->o = outer;
    }
}

enum err usage_decode_node(const struct json *root, struct arena *arena, struct usage_record *ret,
                           struct why *why)
{
    uint64_t v = 0;
    struct usage_record u = { 0 };
    struct reader r = { root, arena, why, ERR_OK };
    if (!json_is(root, JSON_OBJECT) || json_get_u64(root, "v", &v) != ERR_OK) {
        bad(&r, ERR_INVALID, "v", "missing or not a whole number");
    } else if (v != USAGE_VERSION) {
        r.e = why_set(why, ERR_UNSUPPORTED, "v: version %llu is not supported, %d is",
                      (unsigned long long)v, USAGE_VERSION);
    }
    if (r.e == ERR_OK) get_identity(&r, &u);
    if (r.e == ERR_OK) get_result(&r, &u);
    if (r.e == ERR_OK) get_amounts(&r, &u);
    if (r.e == ERR_OK) *ret = u;
    return r.e;
}

enum err usage_decode(struct str text, struct arena *arena, struct usage_record *ret,
                      struct why *why)
{
    struct json *root;
    enum err e = json_parse(text, USAGE_MAX_BYTES, &root, why);
    if (e != ERR_OK) return e;
    e = usage_decode_node(root, arena, ret, why);
    json_free(root);
    return e;
}
