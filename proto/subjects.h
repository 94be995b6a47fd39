/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every subject, queue group, stream and bucket of the bus, once. A subject is the configured
 * prefix (default aigw), a dot and the suffix in this table; a trailing %s stands for one token (a
 * slug).
 *
 *   X(symbol, suffix, queue group or NULL, pattern, from -> to, what)
 */
#ifndef PROTO_SUBJECTS_H
#define PROTO_SUBJECTS_H

#include "base/err.h"

/* clang-format off */
#define SUBJECTS(X)                                                                                                          \
    X(CONFIG_GET,      "config.get",      "config",  "request-reply", "any -> config",        "a snapshot's manifest by revision, or a part by digest") \
    X(CONFIG_CHANGED,  "config.changed",  NULL,      "pub-sub",       "config -> all",        "the manifest of a new revision") \
    X(CONFIG_APPLIED,  "config.applied",  NULL,      "pub-sub",       "all -> config",        "an instance took, or refused, a revision") \
    X(TOKEN_COUNT,     "token.count",     "token",   "request-reply", "edge -> token",        "count a text or a chat for a model (carries prompts)") \
    X(POLICY_LEASE,    "policy.lease",    "policy",  "request-reply", "edge -> policy",       "ask, renew, return and settle leases: a batch") \
    X(POLICY_REJECTED, "policy.rejected", NULL,      "pub-sub",       "edge -> all",          "a refusal and why, sampled") \
    X(POLICY_COUNTERS, "policy.counters", "policy",  "request-reply", "config -> policy",     "counters of a policy: what is used of them, or a reset") \
    X(EDGE_EXPLAIN,    "edge.explain",    "edge",    "request-reply", "config -> edge",       "what would be done with a sample request, and why") \
    X(USAGE,           "usage.%s",        NULL,      "JetStream",     "edge -> metrics",      "one usage record per request, by namespace") \
    X(USAGE_DEAD,      "dead.usage",      NULL,      "JetStream",     "metrics -> operators", "a usage record that could not be decoded, and why") \
    X(UPSTREAM_HEALTH, "upstream.health", NULL,      "pub-sub",       "edge -> edges, config","a server went up or down, seen by whom, why") \
    X(METRICS_QUERY,   "metrics.query",   "metrics", "request-reply", "config -> metrics",    "totals and time series for the console") \
    X(INSTANCE_GONE,   "instance.gone",   NULL,      "pub-sub",       "config -> policy, config", "an operator says that an instance will not come back") \
    X(PRESENCE,        "presence",        NULL,      "pub-sub",       "all -> config",        "every 5 s: who runs, what version, revision, load")
/* clang-format on */

enum subject {
#define X(symbol, ...) SUBJECT_##symbol,
    SUBJECTS(X)
#undef X
        SUBJECT_MAX
};

enum { SUBJECT_LEN = 160 };

/* The full subject, such as aigw.usage.team-a. token: what %s becomes (a slug, or "*" to
 * subscribe); NULL where there is none. Dies of a token that is neither. */
void subject_make(const char *prefix, enum subject which, const char *token, char out[SUBJECT_LEN]);
const char *subject_queue(enum subject which); /* NULL: none */

/* Names of streams and buckets: the prefix in upper case with '-' as '_', and "_USAGE",
 * "_USAGE_DEAD", "_CONFIG". */
enum bus_store {
    STORE_STREAM_USAGE,
    STORE_STREAM_USAGE_DEAD,
    STORE_BUCKET_CONFIG,
    STORE_BUCKET_CLAIMS
};
void subject_store(const char *prefix, enum bus_store which, char out[SUBJECT_LEN]);

/* [a-z0-9-]{1,32}: what SUBJECT_PREFIX may be. */
bool subject_prefix_is_valid(const char *prefix);

#endif
