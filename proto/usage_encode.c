/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writing of the usage record. It is on the edge's hot path, twice per request: it writes straight
 * into the buffer, without a tree and without printf. Any thread, no state.
 */
#include "base/clock.h"
#include "base/skip.h"
#include "proto/usage_msg.h"

static void put_digits(char *out, unsigned v, unsigned n)
{
    while (n-- > 0) out[n] = (char)('0' + v % 10), v /= 10;
}

/* The text time_rfc3339() makes, some ten times faster: no libc calendar. Years are counted from
 * March on, so that a leap day is the last of its year, in spans of 400 years from 0000-03-01. */
static void format_ts(uint64_t ms, char out[TIME_RFC3339_LEN])
{
    uint64_t days = ms / 86400000u + 719468;
    unsigned in_day = (unsigned)(ms % 86400000u), in_span = (unsigned)(days % 146097);
    unsigned year = (in_span - in_span / 1460 + in_span / 36524 - in_span / 146096) / 365;
    unsigned in_year = in_span - (365 * year + year / 4 - year / 100);
    unsigned from_march = (5 * in_year + 2) / 153, month = from_march + 3;
    unsigned day = in_year - (153 * from_march + 2) / 5 + 1;
    year += (unsigned)(days / 146097) * 400;
    if (month > 12) month -= 12, year++;
    memcpy(out, "0000-00-00T00:00:00.000Z", TIME_RFC3339_LEN);
    put_digits(out, year, 4);
    put_digits(out + 5, month, 2);
    put_digits(out + 8, day, 2);
    put_digits(out + 11, in_day / 3600000u, 2);
    put_digits(out + 14, in_day / 60000u % 60, 2);
    put_digits(out + 17, in_day / 1000u % 60, 2);
    put_digits(out + 20, in_day % 1000u, 3);
}

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
    size_t n = 1;
    if (v < 10 && has_room(w, n)) { /* most are 0 */
        *w->p++ = (char)('0' + v);
        return;
    }
    for (uint64_t rest = v; rest >= 10; rest /= 10) n++;
    if (!has_room(w, n)) return;
    for (char *at = w->p + n; at > w->p; v /= 10) *--at = (char)('0' + v % 10);
    w->p += n;
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

static inline skip_bytes odd_bytes(skip_bytes v)
{
    return skip_hits_json(v) | (skip_bytes)(v >= 0x7f);
}

/* Copies n >= 16 bytes, sixteen at a time of which the last may overlap. False: JSON does not take
 * all of them as they are. */
static inline bool copy_plain(char *to, const char *from, size_t n)
{
    skip_bytes v, odd = { 0 };
    for (size_t i = 0; i + 16 < n; i += 16) {
        v = skip_load(from + i);
        odd |= odd_bytes(v);
        memcpy(to + i, &v, 16);
    }
    v = skip_load(from + n - 16);
    odd |= odd_bytes(v);
    memcpy(to + n - 16, &v, 16);
    return skip_first(odd) == 16;
}

/* Whether a word has bytes that JSON does not take; that of a plain byte is not 0 only above such a
 * one. */
static inline bool is_odd(uint64_t v)
{
    const uint64_t ones = UINT64_C(0x0101010101010101);
    uint64_t quote = v ^ ones * '"', slash = v ^ ones * '\\', del = v ^ ones * 0x7f;
    uint64_t odd = v | (v - ones * 0x20) | ((quote - ones) & ~quote) | ((slash - ones) & ~slash) |
                   ((del - ones) & ~del);
    return (odd & ones << 7) != 0;
}

/* The same for n < 16. */
static inline bool copy_plain_short(char *to, const char *from, size_t n)
{
    uint64_t a, b;
    uint32_t c, d;
    if (n >= 8) {
        memcpy(&a, from, 8);
        memcpy(&b, from + n - 8, 8);
        memcpy(to, &a, 8);
        memcpy(to + n - 8, &b, 8);
        return !is_odd(a) && !is_odd(b);
    }
    if (n >= 4) {
        memcpy(&c, from, 4);
        memcpy(&d, from + n - 4, 4);
        memcpy(to, &c, 4);
        memcpy(to + n - 4, &d, 4);
        return !is_odd(c | (uint64_t)d << 32);
    }
    bool plain = true;
    for (size_t i = 0; i < n; i++) {
        unsigned char byte = (unsigned char)from[i];
        plain = plain && byte >= 0x20 && byte < 0x7f && byte != '"' && byte != '\\';
        to[i] = from[i];
    }
    return plain;
}

static void put_text(struct writer *w, struct str s)
{
    s = clip(s);
    if (!has_room(w, s.n + 2)) return;
    char *p = w->p + 1;
    if (s.n >= 16 ? copy_plain(p, s.p, s.n) : copy_plain_short(p, s.p, s.n)) {
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

/* The head of a record. What stands here is also in usage_head_stamp(). */
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
    PUT_STR(w, "trace_id", r->trace_id);
    PUT_U64(w, "revision", r->revision);
}

static void put_result(struct writer *w, const struct usage_record *r, enum usage_outcome outcome)
{
    if (r->stream)
        PUT(w, ",\"stream\":true");
    else
        PUT(w, ",\"stream\":false");
    PUT_U64(w, "status", r->status);
    PUT_STR(w, "outcome", str_of(usage_outcome_name(outcome)));
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

/* The writer's end, and what became of all of it. */
static enum err finish(struct writer *w, size_t start)
{
    if (w->e == ERR_OK && w->p != NULL) w->out->len = (size_t)(w->p - w->out->data);
    if (w->e == ERR_OK && w->out->len - start > USAGE_MAX_BYTES) w->e = ERR_LIMIT;
    if (w->e != ERR_OK) w->out->len = start;
    return w->e;
}

/* Whether nothing is known of the request's end, as when its record is opened. */
static bool has_no_end(const struct usage_record *r)
{
    uint64_t any = r->status | r->attempts_n | r->duration_ms | r->overhead_us | r->input_tokens |
                   r->output_tokens | r->cached_tokens | r->reasoning_tokens;
    any |= r->reject.policy.n | r->reject.dimension.n | r->cost.currency.n;
    return any == 0 && !r->stream && !r->has_ttft && r->input_source == USAGE_SOURCE_NONE &&
           r->output_source == USAGE_SOURCE_NONE && !r->upstream_reported.known;
}

static void put_tail(struct writer *w, const struct usage_record *r, enum usage_outcome outcome)
{
    if (outcome == USAGE_CRASHED && has_no_end(r)) {
        PUT(w, ",\"stream\":false,\"status\":0,\"outcome\":\"crashed\",\"duration_ms\":0,"
               "\"overhead_us\":0,\"input_tokens\":0,\"output_tokens\":0}");
        return;
    }
    put_result(w, r, outcome);
    put_amounts(w, r);
    PUT(w, "}");
}

static enum err encode(const struct usage_record *r, enum usage_outcome outcome, struct buf *out,
                       size_t *ret_head_n)
{
    struct writer w = { .out = out };
    size_t start = out->len;
    put_identity(&w, r);
    size_t head_n = (w.p != NULL ? (size_t)(w.p - out->data) : out->len) - start;
    put_tail(&w, r, outcome);
    enum err e = finish(&w, start);
    if (e == ERR_OK) *ret_head_n = head_n;
    return e;
}

enum err usage_encode_parts(const struct usage_record *r, struct buf *out, size_t *ret_head_n)
{
    return encode(r, r->outcome, out, ret_head_n);
}

enum err usage_encode_opening(const struct usage_record *r, struct buf *out, size_t *ret_head_n)
{
    return encode(r, USAGE_CRASHED, out, ret_head_n);
}

enum err usage_encode(const struct usage_record *r, struct buf *out)
{
    size_t head_n;
    return usage_encode_parts(r, out, &head_n);
}

enum err usage_encode_tail(const struct usage_record *r, struct buf *out)
{
    struct writer w = { .out = out };
    size_t start = out->len;
    put_tail(&w, r, r->outcome);
    return finish(&w, start);
}

/* No step loses anything: where one of the values is another, so is the result. */
static inline uint64_t rotate(uint64_t v, unsigned by)
{
    return v << by | v >> (64 - by);
}

static inline uint64_t mix(uint64_t h, uint64_t v)
{
    return rotate(h ^ v, 27) * UINT64_C(0x9e3779b97f4a7c15);
}

static inline uint64_t mix_str(uint64_t h, struct str s)
{
    return mix(h, (uint64_t)(uintptr_t)s.p ^ rotate(s.n, 48));
}

uint64_t usage_head_stamp(const struct usage_record *r)
{
    uint64_t h = mix(mix(0, r->ts_ms), r->revision);
    h = mix_str(mix_str(mix_str(h, r->id), r->from), r->edge);
    h = mix_str(mix_str(mix_str(h, r->namespace_slug), r->namespace_id), r->key_id);
    h = mix_str(mix_str(mix_str(h, r->route), r->route_id), r->dialect);
    h = mix_str(mix_str(h, r->model), r->upstream_model);
    h = mix_str(mix_str(h, r->upstream), r->upstream_id);
    return mix_str(mix_str(mix_str(h, r->client_ip), r->user), r->trace_id);
}
