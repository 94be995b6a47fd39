/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside the snapshot code only: reads members of JSON objects into an arena and reports what is
 * wrong with them, each with its JSON pointer (RFC 6901). One decoder, one thread.
 */
#ifndef PROTO_SNAPSHOT_DECODE_H
#define PROTO_SNAPSHOT_DECODE_H

#include "base/map.h"
#include "proto/snapshot.h"

enum { DEC_POINTER_MAX = 512, DEC_MODEL_MAX = 128, DEC_PRIORITY_MAX = 1000000 };

struct snap_decoder {
    struct arena *arena;
    /* For the admin API: members that nobody reads, and those that mean nothing for the entity's
     * kind, are problems too. Readers of a snapshot ignore them. */
    bool strict;
    bool resolve; /* references must lead to an entry of the maps */
    const struct map *namespaces, *upstreams;
    snap_problem_fn fn;
    void *ctx;
    size_t problems;
    bool out_of_memory;
    char pointer[DEC_POINTER_MAX];
    size_t pointer_n;
};

void dec_problem(struct snap_decoder *d, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* Goes down to a member or element; returns what dec_leave() needs to come back. */
size_t dec_enter(struct snap_decoder *d, struct str key);
size_t dec_enter_index(struct snap_decoder *d, size_t i);
void dec_leave(struct snap_decoder *d, size_t mark);
/* A problem with the member `key`. */
void dec_problem_at(struct snap_decoder *d, const char *key, const char *fmt, ...)
    PRINTF_LIKE(3, 4);

/* NULL when memory is out (remembered in the decoder). */
void *dec_alloc(struct snap_decoder *d, size_t n, size_t size);
/* A copy in the arena; never with p == NULL. */
struct str dec_copy(struct snap_decoder *d, struct str s);
/* The same in lower case (ASCII). */
struct str dec_copy_lower(struct snap_decoder *d, struct str s);

/* The member, or NULL when it is absent or null. */
const struct json *dec_member(const struct json *o, const char *key);

enum { DEC_REQUIRED = 1 };
/* Text of min..max bytes of UTF-8 without control characters. p == NULL when absent or wrong. */
struct str dec_text(struct snap_decoder *d, const struct json *o, const char *key, unsigned flags,
                    size_t min, size_t max);
struct str dec_id(struct snap_decoder *d, const struct json *o, const char *key);
struct str dec_slug(struct snap_decoder *d, const struct json *o);
bool dec_bool(struct snap_decoder *d, const struct json *o, const char *key, bool def);
uint64_t dec_u64(struct snap_decoder *d, const struct json *o, const char *key, unsigned flags,
                 uint64_t def, uint64_t min, uint64_t max);
int64_t dec_i64(struct snap_decoder *d, const struct json *o, const char *key, int64_t def,
                int64_t min, int64_t max);
/* The place of the member's value among words, def when absent (-1: required). */
int dec_word(struct snap_decoder *d, const struct json *o, const char *key,
             const char *const *words, size_t n, int def);
/* A list of at most max_n texts of 1..max_len bytes that `ok` (may be NULL) accepts; a problem says
 * `must`. */
struct snap_strings dec_strings(struct snap_decoder *d, const struct json *o, const char *key,
                                size_t max_n, size_t max_len, bool (*ok)(struct str),
                                const char *must);
/* A list of patterns of models' names. */
struct snap_strings dec_models(struct snap_decoder *d, const struct json *o, const char *key);
/* In strict mode: members that are not in the NULL-terminated list are problems. */
void dec_known(struct snap_decoder *d, const struct json *o, const char *const *keys);
/* In strict mode: the member must be absent, because `why`. */
void dec_absent(struct snap_decoder *d, const struct json *o, const char *key, const char *why);

/* RFC 9110 token: names of methods and fields. */
bool dec_is_token(struct str s);
/* RFC 3339 in milliseconds since 1970. */
enum err dec_parse_time(struct str s, uint64_t *ret_ms) MUSTCHECK;

/* Takes host [":" port] off the front of *rest; the host without brackets. Port 0: none was there.
 * NULL, or what is wrong. */
const char *dec_host_port(struct str *rest, struct str *ret_host, uint16_t *ret_port);
/* snapshot_transport.c: how servers of an upstream are reached; its checks are known. */
void dec_transport(struct snap_decoder *d, const struct json *o, struct snap_upstream *out);

/* snapshot_balance.c: how servers of an upstream are chosen and watched; fallbacks of a route whose
 * upstream is known. */
void dec_balance(struct snap_decoder *d, const struct json *o, struct snap_upstream *out);
void dec_fallbacks(struct snap_decoder *d, const struct json *o, struct snap_route *out);

/* One per kind: fills *out as far as it can, and reports every problem. */
void snap_decode_namespace(struct snap_decoder *d, const struct json *o,
                           struct snap_namespace *out);
void snap_decode_matcher(struct snap_decoder *d, const struct json *o, struct snap_matcher *out);
void snap_decode_policy(struct snap_decoder *d, const struct json *o, struct snap_policy *out);
void snap_decode_upstream(struct snap_decoder *d, const struct json *o, struct snap_upstream *out);
void snap_decode_route(struct snap_decoder *d, const struct json *o, struct snap_route *out);
void snap_decode_model(struct snap_decoder *d, const struct json *o, struct snap_model *out);
void snap_decode_key(struct snap_decoder *d, const struct json *o, struct snap_key *out);
void snap_decode_issuer(struct snap_decoder *d, const struct json *o, struct snap_issuer *out);
/* The condition that the member `key` of `o` holds; claims_only: about tokens. */
const struct snap_cond *dec_condition(struct snap_decoder *d, const struct json *o, const char *key,
                                      bool claims_only);
/* The namespace that `o` names; NULL when there is none (also with optional and an absent member).
 */
const struct snap_namespace *dec_namespace(struct snap_decoder *d, const struct json *o,
                                           bool optional);

#endif
