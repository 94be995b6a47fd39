/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writing of the usage record. It is on the edge's hot path, twice per request: it writes straight
 * into the buffer, without a tree and without printf. Any thread; what is kept from one record to
 * the next (usage_places) is the caller's.
 */
#include <stdlib.h>

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

static void put_word(struct writer *w, const struct str *words, unsigned i, unsigned n)
{
    ASSERT(i < n);
    put(w, words[i].p, words[i].n);
}

/* The digits of v, of which are at most twenty; returns their end. Most are few. */
static inline char *digits(char *p, uint64_t v)
{
    if (v < 100) {
        if (v >= 10) *p++ = (char)('0' + v / 10);
        *p++ = (char)('0' + v % 10);
        return p;
    }
    size_t n = 3;
    for (uint64_t rest = v / 1000; rest > 0; rest /= 10) n++;
    for (char *at = p + n; at > p; v /= 10) *--at = (char)('0' + v % 10);
    return p + n;
}

static void put_u64(struct writer *w, uint64_t v)
{
    if (has_room(w, 20)) w->p = digits(w->p, v);
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

#define PUT_NUMBER(w, head, v)                        \
    do {                                              \
        if (!has_room((w), sizeof(head) + 20)) break; \
        memcpy((w)->p, (head), sizeof(head) - 1);     \
        (w)->p += sizeof(head) - 1;                   \
        (w)->p = digits((w)->p, (v));                 \
    } while (0)
#define PUT_U64(w, key, v) PUT_NUMBER((w), ",\"" key "\":", (v))
#define PUT_FIRST_U64(w, key, v) PUT_NUMBER((w), "\"" key "\":", (v))

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

/* --- the head: what stands here is also in usage_head_stamp() --- */

enum { PLACES = 64, PLACE_BYTES = 976, WHERE = 12 };

/* What of heads is the same for many requests: from `from` to `upstream_id`. */
static const struct {
    char key[20];
    bool always;
} where_keys[WHERE] = {
    { ",\"from\":", true },      { ",\"edge\":", false },
    { ",\"namespace\":", true }, { ",\"namespace_id\":", false },
    { ",\"key_id\":", false },   { ",\"route\":", false },
    { ",\"route_id\":", false }, { ",\"dialect\":", false },
    { ",\"model\":", false },    { ",\"upstream_model\":", false },
    { ",\"upstream\":", false }, { ",\"upstream_id\":", false },
};

/* As text, with where in it each string lies: those that JSON takes as they are, so that the text
 * is what a record is compared with, too. */
struct place {
    uint16_t len; /* 0: none */
    uint16_t at[WHERE], n[WHERE];
    char text[PLACE_BYTES];
};

struct usage_places {
    uint64_t second; /* of ts, plus one; 0: none */
    char ts[TIME_RFC3339_LEN];
    struct place list[PLACES];
};

struct usage_places *usage_places_new(void)
{
    return xcalloc(1, sizeof(struct usage_places));
}

void usage_places_free(struct usage_places *p)
{
    free(p);
}

static inline void gather_where(const struct usage_record *r, struct str ret[WHERE])
{
    ret[0] = r->from.n > 0 ? r->from : r->edge;
    ret[1] = r->edge;
    ret[2] = r->namespace_slug.n > 0 ? r->namespace_slug : STR(USAGE_NO_NAMESPACE);
    ret[3] = r->namespace_id;
    ret[4] = r->key_id;
    ret[5] = r->route;
    ret[6] = r->route_id;
    ret[7] = r->dialect;
    ret[8] = r->model;
    ret[9] = r->upstream_model;
    ret[10] = r->upstream;
    ret[11] = r->upstream_id;
}

/* Where a record's place is, if it is there: strings of one configuration lie where they lay. */
static struct place *find_place(struct usage_places *p, const struct str where[WHERE])
{
    uint64_t h = mix_str(mix_str(0, where[3]), where[4]);
    h = mix_str(mix_str(h, where[6]), where[11]);
    return &p->list[(h ^ where[8].n ^ where[9].n) >> 7 & (PLACES - 1)];
}

static bool is_place(const struct place *p, const struct str where[WHERE])
{
    if (p->len == 0) return false;
    for (size_t i = 0; i < WHERE; i++)
        if (!str_eq(str_n(p->text + p->at[i], p->n[i]), where[i])) return false;
    return true;
}

static size_t written(const struct writer *w)
{
    return w->p != NULL ? (size_t)(w->p - w->out->data) : w->out->len;
}

/* Writes it, and keeps it at *keep unless that is NULL, or a string is not as it was given. */
static void put_where(struct writer *w, const struct str where[WHERE], struct place *keep)
{
    struct place p = { .len = 0 };
    size_t start = written(w);
    bool plain = true;
    for (size_t i = 0; i < WHERE; i++) {
        struct str s = where[i];
        if (s.n == 0 && !where_keys[i].always) continue;
        put(w, where_keys[i].key, strlen(where_keys[i].key));
        size_t at = written(w);
        put_text(w, s);
        plain = plain && w->p != NULL && written(w) == at + s.n + 2;
        p.at[i] = (uint16_t)(at + 1 - start);
        p.n[i] = (uint16_t)s.n;
    }
    size_t n = written(w) - start;
    if (keep == NULL || !plain || w->e != ERR_OK || n > sizeof keep->text) return;
    memcpy(keep->at, p.at, sizeof p.at);
    memcpy(keep->n, p.n, sizeof p.n);
    memcpy(keep->text, w->out->data + start, n);
    keep->len = (uint16_t)n;
}

static void put_ts(struct writer *w, uint64_t ms, struct usage_places *places)
{
    char ts[TIME_RFC3339_LEN];
    if (places == NULL) {
        format_ts(ms, ts);
        put(w, ts, sizeof ts);
        return;
    }
    if (places->second != ms / 1000 + 1) {
        format_ts(ms, places->ts);
        places->second = ms / 1000 + 1;
    }
    put_digits(places->ts + 20, (unsigned)(ms % 1000), 3);
    put(w, places->ts, sizeof places->ts);
}

static void put_identity(struct writer *w, const struct usage_record *r,
                         struct usage_places *places)
{
    struct str where[WHERE];
    PUT(w, "{");
    PUT_FIRST_U64(w, "v", USAGE_VERSION);
    PUT(w, ",\"id\":");
    put_text(w, r->id);
    PUT(w, ",\"ts\":\"");
    put_ts(w, r->ts_ms, places);
    PUT(w, "\"");
    gather_where(r, where);
    struct place *p = places != NULL ? find_place(places, where) : NULL;
    if (p != NULL && is_place(p, where))
        put(w, p->text, p->len);
    else
        put_where(w, where, p);
    PUT_STR(w, "client_ip", r->client_ip);
    PUT_STR(w, "user", r->user);
    PUT_STR(w, "trace_id", r->trace_id);
    PUT_U64(w, "revision", r->revision);
}

/* --- the tail --- */

/* Words with their keys. */
static const struct str outcomes[] = {
#define X(symbol, word) { ",\"outcome\":\"" word "\"", sizeof(",\"outcome\":\"" word "\"") - 1 },
    USAGE_OUTCOMES(X)
#undef X
};
static const struct str input_sources[] = {
#define X(symbol, word) \
    { ",\"input_source\":\"" word "\"", sizeof(",\"input_source\":\"" word "\"") - 1 },
    USAGE_SOURCES(X)
#undef X
};
static const struct str output_sources[] = {
#define X(symbol, word) \
    { ",\"output_source\":\"" word "\"", sizeof(",\"output_source\":\"" word "\"") - 1 },
    USAGE_SOURCES(X)
#undef X
};

static void put_result(struct writer *w, const struct usage_record *r, enum usage_outcome outcome)
{
    if (r->stream)
        PUT(w, ",\"stream\":true");
    else
        PUT(w, ",\"stream\":false");
    PUT_U64(w, "status", r->status);
    put_word(w, outcomes, outcome, USAGE_OUTCOME_MAX);
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
        put_word(w, input_sources, r->input_source, USAGE_SOURCE_MAX);
    if (r->output_source != USAGE_SOURCE_NONE)
        put_word(w, output_sources, r->output_source, USAGE_SOURCE_MAX);
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

static enum err encode(const struct usage_record *r, enum usage_outcome outcome,
                       struct usage_places *places, struct buf *out, size_t *ret_head_n)
{
    struct writer w = { .out = out };
    size_t start = out->len;
    put_identity(&w, r, places);
    size_t head_n = written(&w) - start;
    put_tail(&w, r, outcome);
    enum err e = finish(&w, start);
    if (e == ERR_OK) *ret_head_n = head_n;
    return e;
}

enum err usage_encode_parts(const struct usage_record *r, struct buf *out, size_t *ret_head_n)
{
    return encode(r, r->outcome, NULL, out, ret_head_n);
}

enum err usage_encode_opening(const struct usage_record *r, struct usage_places *places,
                              struct buf *out, size_t *ret_head_n)
{
    return encode(r, USAGE_CRASHED, places, out, ret_head_n);
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
