/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Codec of the usage record. Encoding is on the edge's hot path, twice per request: it appends
 * straight to the buffer, without a tree and without printf. Decoding goes through rt/json and is
 * strict about types, lenient about members it does not know. Any thread, no state.
 */
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

const char *usage_source_name(enum usage_source s)
{
    ASSERT(s < USAGE_SOURCE_MAX);
    return source_names[s];
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

static void put_digits(char *out, unsigned v, unsigned n)
{
    while (n-- > 0) out[n] = (char)('0' + v % 10), v /= 10;
}

/* The text time_rfc3339() makes, some ten times faster: no libc calendar. */
static void format_ts(uint64_t ms, char out[TIME_RFC3339_LEN])
{
    uint64_t days = ms / 86400000u;
    unsigned in_day = (unsigned)(ms % 86400000u), year, month = 1;
    year = 1970 + (unsigned)(days * 400 / 146097);
    while (days_before(year, 1) > days) year--;
    while (days_before(year + 1, 1) <= days) year++;
    while (month < 12 && days_before(year, month + 1) <= days) month++;
    memcpy(out, "0000-00-00T00:00:00.000Z", TIME_RFC3339_LEN);
    put_digits(out, year, 4);
    put_digits(out + 5, month, 2);
    put_digits(out + 8, (unsigned)(days - days_before(year, month)) + 1, 2);
    put_digits(out + 11, in_day / 3600000u, 2);
    put_digits(out + 14, in_day / 60000u % 60, 2);
    put_digits(out + 17, in_day / 1000u % 60, 2);
    put_digits(out + 20, in_day % 1000u, 3);
}

/* --- encoding --- */

/*
 * Writes straight into the room that a buffer has, and asks it for more when that is used up: the
 * buffer's length is set at the end. Keeps the first error, and writes no more then.
 */
struct writer {
    struct buf *out;
    char *p, *end; /* the room that is left */
    enum err e;
};

enum { WRITE_STEP = 2048 }; /* most records fit into what is asked for at first */

static bool more_room(struct writer *w, size_t n)
{
    if (w->e != ERR_OK) return false;
    if (w->p != NULL) w->out->len = (size_t)(w->p - w->out->data);
    size_t want = MAX(n, MIN((size_t)WRITE_STEP, buf_room(w->out)));
    w->e = buf_reserve(w->out, want, &w->p);
    if (w->e != ERR_OK) want = 0;
    w->end = w->p + want;
    return w->e == ERR_OK;
}

static inline bool has_room(struct writer *w, size_t n)
{
    return n <= (size_t)(w->end - w->p) || more_room(w, n);
}

static inline void put(struct writer *w, const char *p, size_t n)
{
    if (!has_room(w, n)) return;
    memcpy(w->p, p, n);
    w->p += n;
}
#define PUT(w, literal) put((w), "" literal "", sizeof(literal) - 1)

static void put_u64(struct writer *w, uint64_t v)
{
    char digits[20];
    size_t at = sizeof digits;
    do digits[--at] = (char)('0' + v % 10), v /= 10;
    while (v > 0);
    put(w, digits + at, sizeof digits - at);
}

static void put_i64(struct writer *w, int64_t v)
{
    if (v < 0) PUT(w, "-");
    put_u64(w, v < 0 ? 0 - (uint64_t)v : (uint64_t)v);
}

/* At most USAGE_TEXT_MAX bytes, not cut inside of a character. */
static struct str clip(struct str s)
{
    if (s.n <= USAGE_TEXT_MAX) return s;
    size_t n = USAGE_TEXT_MAX, back = 0;
    while (back < 3 && ((unsigned char)s.p[n - back] & 0xc0) == 0x80) back++;
    return str_n(s.p, n - back);
}

/* Bits of the bytes of a word that JSON does not take as they are: control characters, quotes,
 * backslashes, DEL, what is not ASCII. Some of plain bytes above such a one too. */
static inline uint64_t odd_bytes(uint64_t v)
{
    const uint64_t ones = UINT64_C(0x0101010101010101);
    uint64_t quote = v ^ ones * '"', slash = v ^ ones * '\\', del = v ^ ones * 0x7f;
    uint64_t odd = v | (v - ones * 0x20) | ((quote - ones) & ~quote) | ((slash - ones) & ~slash) |
                   ((del - ones) & ~del);
    return odd & ones << 7;
}

/* Copies n >= 8 bytes, in words of which the last may overlap. False: they are not all plain. */
static inline bool copy_plain(char *to, const char *from, size_t n)
{
    uint64_t v, odd = 0;
    for (size_t i = 0; i + 8 < n; i += 8) {
        memcpy(&v, from + i, 8);
        odd |= odd_bytes(v);
        memcpy(to + i, &v, 8);
    }
    memcpy(&v, from + n - 8, 8);
    odd |= odd_bytes(v);
    memcpy(to + n - 8, &v, 8);
    return odd == 0;
}

static inline bool copy_plain_short(char *to, const char *from, size_t n)
{
    bool plain = true;
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)from[i];
        plain = plain && c >= 0x20 && c < 0x7f && c != '"' && c != '\\';
        to[i] = from[i];
    }
    return plain;
}

static void put_text(struct writer *w, struct str s)
{
    s = clip(s);
    if (!has_room(w, s.n + 2)) return;
    char *p = w->p + 1;
    if (s.n >= 8 ? copy_plain(p, s.p, s.n) : copy_plain_short(p, s.p, s.n)) {
        *w->p = p[s.n] = '"';
        w->p = p + s.n + 1;
        return;
    }
    w->out->len = (size_t)(w->p - w->out->data);
    w->e = buf_append_json(w->out, s);
    w->p = w->end = NULL;
}

/* `,"key":"text"`, nothing when the text is empty. key comes with all its punctuation. */
static void put_str_at(struct writer *w, const char *key, size_t key_n, struct str s)
{
    if (s.n == 0) return;
    put(w, key, key_n);
    put_text(w, s);
}
#define PUT_STR(w, key, s) put_str_at((w), ",\"" key "\":", sizeof(key) + 3, (s))

static void put_number_at(struct writer *w, const char *key, size_t key_n, uint64_t v)
{
    put(w, key, key_n);
    put_u64(w, v);
}
#define PUT_U64(w, key, v) put_number_at((w), ",\"" key "\":", sizeof(key) + 3, (v))
#define PUT_FIRST_U64(w, key, v) put_number_at((w), "\"" key "\":", sizeof(key) + 2, (v))

static void put_attempt(struct writer *w, const struct usage_attempt *a)
{
    PUT(w, "{\"upstream\":");
    put_text(w, a->upstream);
    PUT(w, ",\"server\":");
    put_text(w, a->server);
    PUT_U64(w, "status", a->status);
    PUT_U64(w, "tokens", a->tokens);
    PUT_U64(w, "ms", a->ms);
    PUT(w, "}");
}

static void put_identity(struct writer *w, const struct usage_record *r)
{
    char ts[TIME_RFC3339_LEN];
    format_ts(r->ts_ms, ts);
    PUT(w, "{");
    PUT_FIRST_U64(w, "v", USAGE_VERSION);
    PUT(w, ",\"id\":");
    put_text(w, r->id);
    PUT(w, ",\"ts\":\"");
    put(w, ts, sizeof ts);
    PUT(w, "\",\"from\":");
    put_text(w, r->from.n > 0 ? r->from : r->edge);
    PUT_STR(w, "edge", r->edge);
    PUT(w, ",\"namespace\":");
    put_text(w, r->namespace_slug.n > 0 ? r->namespace_slug : STR(USAGE_NO_NAMESPACE));
    PUT_STR(w, "namespace_id", r->namespace_id);
    PUT_STR(w, "key_id", r->key_id);
    PUT_STR(w, "route", r->route);
    PUT_STR(w, "route_id", r->route_id);
    PUT_STR(w, "dialect", r->dialect);
    PUT_STR(w, "model", r->model);
    PUT_STR(w, "upstream_model", r->upstream_model);
    PUT_STR(w, "upstream", r->upstream);
    PUT_STR(w, "upstream_id", r->upstream_id);
    PUT_STR(w, "client_ip", r->client_ip);
    PUT_STR(w, "user", r->user);
    PUT_U64(w, "revision", r->revision);
}

static void put_result(struct writer *w, const struct usage_record *r)
{
    if (r->stream)
        PUT(w, ",\"stream\":true");
    else
        PUT(w, ",\"stream\":false");
    PUT_U64(w, "status", r->status);
    PUT_STR(w, "outcome", str_of(usage_outcome_name(r->outcome)));
    if (r->reject.policy.n > 0 || r->reject.dimension.n > 0) {
        PUT(w, ",\"reject\":{\"policy\":");
        put_text(w, r->reject.policy);
        PUT_STR(w, "dimension", r->reject.dimension);
        PUT(w, "}");
    }
    if (r->attempts_n > 0) {
        size_t n = MIN(r->attempts_n, (size_t)USAGE_ATTEMPTS_MAX);
        PUT(w, ",\"attempts\":[");
        for (size_t i = 0; i < n; i++) {
            if (i > 0) PUT(w, ",");
            put_attempt(w, &r->attempts[i]);
        }
        PUT(w, "]");
    }
    if (r->has_ttft) PUT_U64(w, "ttft_ms", r->ttft_ms);
    PUT_U64(w, "duration_ms", r->duration_ms);
    PUT_U64(w, "overhead_us", r->overhead_us);
}

static void put_amounts(struct writer *w, const struct usage_record *r)
{
    PUT_U64(w, "input_tokens", r->input_tokens);
    PUT_U64(w, "output_tokens", r->output_tokens);
    if (r->cached_tokens > 0) PUT_U64(w, "cached_tokens", r->cached_tokens);
    if (r->reasoning_tokens > 0) PUT_U64(w, "reasoning_tokens", r->reasoning_tokens);
    if (r->input_source != USAGE_SOURCE_NONE)
        PUT_STR(w, "input_source", str_of(usage_source_name(r->input_source)));
    if (r->output_source != USAGE_SOURCE_NONE)
        PUT_STR(w, "output_source", str_of(usage_source_name(r->output_source)));
    if (r->upstream_reported.known) {
        PUT(w, ",\"upstream_reported\":{");
        PUT_FIRST_U64(w, "input", r->upstream_reported.input);
        PUT_U64(w, "output", r->upstream_reported.output);
        PUT(w, "}");
    }
    if (r->cost.currency.n > 0) {
        PUT(w, ",\"cost\":{\"nano\":");
        put_i64(w, r->cost.nano);
        PUT_STR(w, "currency", r->cost.currency);
        PUT(w, ",\"price_revision\":");
        put_i64(w, r->cost.price_revision);
        PUT(w, "}");
    }
}

enum err usage_encode(const struct usage_record *r, struct buf *out)
{
    struct writer w = { .out = out };
    size_t start = out->len;
    put_identity(&w, r);
    put_result(&w, r);
    put_amounts(&w, r);
    PUT(&w, "}");
    if (w.e == ERR_OK && w.p != NULL) out->len = (size_t)(w.p - out->data);
    if (w.e == ERR_OK && out->len - start > USAGE_MAX_BYTES) w.e = ERR_LIMIT;
    if (w.e != ERR_OK) out->len = start;
    return w.e;
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
