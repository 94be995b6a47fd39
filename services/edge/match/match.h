/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which namespace and which route a request belongs to. Pure: rules compiled once per snapshot and
 * the parsed request in, a decision out. What a decision costs does not grow with the number of
 * namespaces: rules are found by hash look-ups (match_index.h), then tried in their order.
 */
#ifndef EDGE_MATCH_H
#define EDGE_MATCH_H

#include "http/h1.h"
#include "dialects/json_want.h"
#include "proto/snapshot.h"

/* --- what matching looks at --- */

/* What a member of a body or of a token is: one text, or those of a list; numbers, true and false
 * as they were written. null is not present; an object is present without texts. */
struct match_values {
    bool present;
    const struct str *v;
    size_t n;
};
enum { MATCH_LIST_MAX = 64, MATCH_HOST_MAX = 255 };
/* The texts are slices, or decoded into the arena. Of a list the first MATCH_LIST_MAX elements.
 * ERR_LIMIT, ERR_NOMEM. */
enum err match_values_of(struct js_val v, struct arena *a, struct match_values *ret) MUSTCHECK;

struct match_input {
    const struct h1_request *req;
    struct str host; /* without port and last dot, in lower case; match_input_init() */
    bool body_known; /* the two below are what they are: nothing more is to come */
    struct str model;
    const struct match_values *body;   /* by place in matching_body_wants(); NULL: no JSON body */
    const struct match_values *claims; /* of a verified token, by place in matching_claim_wants() */
    const struct snap_key *key;        /* that was presented and found; NULL: none */
    const unsigned char *address;      /* the client's, 16 bytes, IPv4 as IPv4-mapped; NULL: none */
    char host_room[MATCH_HOST_MAX + 1];
};
void match_input_init(struct match_input *in, const struct h1_request *req);

/* --- the rules --- */

struct matching;

/* Borrows the snapshot: free before it goes. ERR_INVALID with why: an expression that this library
 * refuses, or more members of bodies or tokens than SNAP_POINTERS_MAX. */
enum err matching_new(const struct snapshot *s, struct matching **ret, struct why *why) MUSTCHECK;
void matching_free(struct matching *m); /* NULL is fine */
/* The members that conditions and routes' parameters look at. */
const struct js_wants *matching_body_wants(const struct matching *m);
const struct js_wants *matching_claim_wants(const struct matching *m);

/* --- namespaces --- */

struct match_space {
    const struct snap_namespace *ns;    /* NULL: none, or pending */
    const struct snap_matcher *matcher; /* that chose it; NULL: it is the default */
    bool pending;                       /* the body decides */
};
/* The namespace of the first matcher (by priority) that holds; else the default one; else NULL.
 * Disabled namespaces do not match. */
struct match_space match_namespace(const struct matching *m, const struct match_input *in);
/* Calls fn for each namespace that the request may turn out to be of when its body is known, until
 * it returns false. Some perhaps twice. Says nothing of credentials. */
typedef bool (*match_space_fn)(void *ctx, const struct snap_namespace *ns);
void match_each_possible(const struct matching *m, const struct match_input *in, match_space_fn fn,
                         void *ctx);
/* Whether a token says what the namespace asks of tokens. */
bool match_claims(const struct matching *m, const struct snap_namespace *ns,
                  const struct match_values *claims);

/* --- routes --- */

enum match_result { MATCH_OK, MATCH_NO_PATH, MATCH_NO_METHOD, MATCH_NO_MODEL };
/* The first route of the namespace that takes path, host, method and model (any, when it is not
 * known). Not OK: how near the nearest one came. */
enum match_result match_route(const struct matching *m, const struct snap_namespace *ns,
                              const struct match_input *in, const struct snap_route **ret);
/* The methods that routes take at this path, comma separated: for Allow. */
enum err match_allow(const struct matching *m, const struct snap_namespace *ns,
                     const struct match_input *in, struct buf *out) MUSTCHECK;
/* The path that goes upstream: the client's, or the route's with its groups filled in. ERR_INVALID:
 * what comes out is no plain path; ERR_LIMIT; ERR_NOMEM. */
enum err match_rewrite(const struct matching *m, const struct snap_route *r, struct str path,
                       struct arena *a, struct str *ret) MUSTCHECK;
/* Where in matching_body_wants() the route's i-th parameter is. */
size_t match_param(const struct matching *m, const struct snap_route *r, size_t i);
bool match_route_takes_model(const struct snap_route *r, struct str model);

/* --- keys and models --- */

/* The key with this HMAC, or NULL. */
const struct snap_key *match_key(const struct snapshot *s, const unsigned char hmac[SNAP_HMAC_LEN]);
/* Whether the key (NULL: none) is for the model; known: its configured model, or NULL. */
bool match_key_allows(const struct snap_key *k, struct str model, const struct snap_model *known);
bool match_in(const struct snap_strings *list, struct str s);
/* The configured model of that name: by name or alias pattern, without case; NULL when none. */
const struct snap_model *match_model(const struct matching *m, struct str model);

/* A path that every server reads as the same one: no empty, "." or ".." segment, plain or
 * percent-encoded or in front of a ';', no encoded slash or NUL, no backslash, and nothing encoded
 * that need not be (a route, or the meter, must not be passed by under another spelling). */
bool match_path_is_plain(struct str path);

#endif
