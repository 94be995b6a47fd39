/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The usage record: what one request used, sent by an edge on usage.<namespace slug> and kept in
 * its spool until JetStream has it. Exactly one per request, whatever its way out. No prompt, no
 * completion, no credential. Schema: proto/schema/usage_record.json.
 *
 * The struct holds views: on the edge they point into the request's arena and its snapshot, which
 * live as long as the request; a decoded record points into the arena that it was decoded into. A
 * zeroed record is valid: empty strings are left out of the message. Any thread, no state.
 */
#ifndef PROTO_USAGE_MSG_H
#define PROTO_USAGE_MSG_H

#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/buf.h"

enum {
    USAGE_VERSION = 1,
    USAGE_MAX_BYTES = 32 * 1024, /* of an encoded record */
    USAGE_TEXT_MAX = 256,        /* bytes of one string; encoding cuts longer ones */
    USAGE_ATTEMPTS_MAX = 8       /* the last ones count */
};

/* The namespace of a request that matched none: stands in the record and in the subject. */
#define USAGE_NO_NAMESPACE "-"

/* How it ended. CRASHED: the edge died on it; tokens are what was known by then. */
#define USAGE_OUTCOMES(X)               \
    X(OK, "ok")                         \
    X(CUT, "cut")                       \
    X(CLIENT_GONE, "client_gone")       \
    X(UPSTREAM_ERROR, "upstream_error") \
    X(TIMEOUT, "timeout")               \
    X(REJECTED, "rejected")             \
    X(SHUTDOWN, "shutdown")             \
    X(CRASHED, "crashed")

enum usage_outcome {
#define X(symbol, word) USAGE_##symbol,
    USAGE_OUTCOMES(X)
#undef X
        USAGE_OUTCOME_MAX
};

/* Where a token count comes from: our own count with the model's vocabulary, the upstream's word,
 * or a guess. NONE: there was nothing to count (left out of the message). */
#define USAGE_SOURCES(X)    \
    X(NONE, "none")         \
    X(EXACT, "exact")       \
    X(UPSTREAM, "upstream") \
    X(ESTIMATE, "estimate")

enum usage_source {
#define X(symbol, word) USAGE_SOURCE_##symbol,
    USAGE_SOURCES(X)
#undef X
        USAGE_SOURCE_MAX
};

struct usage_attempt {
    struct str upstream, server; /* slugs */
    unsigned status;             /* 0: no answer */
    uint64_t tokens;             /* output tokens that came */
    uint64_t ms;
};

struct usage_record {
    struct str id;   /* UUIDv7, ours: never a client's request id. Message id and unique key */
    uint64_t ts_ms;  /* wall clock, when the request's head was read */
    struct str from; /* instance that sends this message: a successor for a crashed edge */
    struct str edge; /* instance that served the request */

    struct str namespace_slug; /* "namespace" in the message; empty: USAGE_NO_NAMESPACE */
    struct str namespace_id, key_id;
    struct str route, route_id; /* slug and id */
    struct str dialect;         /* openai, responses, anthropic … */
    struct str model; /* the configured model's name; as the client sent it when none fits */
    struct str upstream_model;        /* what the upstream was asked for */
    struct str upstream, upstream_id; /* of the last attempt; empty: none was made */
    bool stream;
    unsigned status; /* sent to the client; 0: none was */
    enum usage_outcome outcome;

    struct {
        struct str policy;    /* slug; empty when no policy but a rule refused (key, route, body) */
        struct str dimension; /* requests, tokens, concurrency, key, route … */
    } reject;                 /* of REJECTED */

    uint64_t input_tokens, output_tokens, cached_tokens, reasoning_tokens;
    enum usage_source input_source, output_source;
    struct {
        bool known;
        uint64_t input, output;
    } upstream_reported; /* drift against our own count is a metric */

    struct {
        int64_t nano;        /* 10^-9 of the currency */
        struct str currency; /* ISO 4217; empty: no price is configured */
        int64_t price_revision;
    } cost;

    size_t attempts_n; /* of `attempts` */

    bool has_ttft; /* a first token came */
    uint64_t ttft_ms, duration_ms, overhead_us;
    uint64_t revision;          /* of the configuration it was served by */
    struct str client_ip, user; /* can be hashed or empty, by setting */
    struct str trace_id;        /* of W3C trace context; empty: none */

    struct usage_attempt attempts[USAGE_ATTEMPTS_MAX]; /* last: see usage_record_init() */
};

/* Empty, but for attempts beyond attempts_n, which nobody looks at. */
static inline void usage_record_init(struct usage_record *r)
{
    memset(r, 0, offsetof(struct usage_record, attempts));
}

const char *usage_outcome_name(enum usage_outcome o);
enum err usage_outcome_parse(struct str s, enum usage_outcome *ret) MUSTCHECK;

/* Appends the message as JSON text. Strings are cut at USAGE_TEXT_MAX bytes on a character's
 * border, bytes that are not UTF-8 become U+FFFD. On an error out is as it was: ERR_LIMIT,
 * ERR_NOMEM. */
enum err usage_encode(const struct usage_record *r, struct buf *out) MUSTCHECK;

/* The same in two parts, for a record that is written at the beginning of its request and again at
 * its end. The head says whose request it is and where it went (id to trace_id, revision), the tail
 * what became of it; the text is the one and then the other. parts() is usage_encode(), and says
 * how long the head is; opening() has the outcome that a record has unless it is settled
 * (USAGE_CRASHED), whatever r says; tail() appends the tail alone. places may be NULL: what heads
 * that were written lately have in common, as text; it is compared, so that nothing which it was
 * made of has to live on. For one thread at a time. */
struct usage_places;
struct usage_places *usage_places_new(void);
void usage_places_free(struct usage_places *p);
enum err usage_encode_parts(const struct usage_record *r, struct buf *out,
                            size_t *ret_head_n) MUSTCHECK;
enum err usage_encode_opening(const struct usage_record *r, struct usage_places *places,
                              struct buf *out, size_t *ret_head_n) MUSTCHECK;
enum err usage_encode_tail(const struct usage_record *r, struct buf *out) MUSTCHECK;
/* Of two records with the same stamp the heads are the same, provided that strings which lie at the
 * same place are: of one request, while what it points to lives. Nothing is read of the strings. */
uint64_t usage_head_stamp(const struct usage_record *r);

/* Strings are copied into the arena. ERR_UNSUPPORTED: a version that is not ours (may be a newer
 * edge's: keep it); ERR_INVALID: no record, with the reason in why; ERR_LIMIT: over
 * USAGE_MAX_BYTES; ERR_NOMEM: the arena's budget. */
enum err usage_decode(struct str text, struct arena *arena, struct usage_record *ret,
                      struct why *why) MUSTCHECK;

/* The same of a document that was parsed. */
struct json;
enum err usage_decode_node(const struct json *root, struct arena *arena, struct usage_record *ret,
                           struct why *why) MUSTCHECK;

/* 2026-01-31T23:59:59[.fraction]Z, 1970 to 9999, to milliseconds since 1970. */
enum err usage_parse_ts(struct str s, uint64_t *ret_ms) MUSTCHECK;

#endif
