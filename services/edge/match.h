/* SPDX-License-Identifier: Apache-2.0 */
/* Which namespace and which route a request belongs to. Pure: a snapshot and the parsed request in,
 * a decision out. */
#ifndef EDGE_MATCH_H
#define EDGE_MATCH_H

#include "http/h1.h"
#include "proto/snapshot.h"

/* What matching looks at. model: p == NULL while the body is not read. */
struct match_input {
    const struct h1_request *req;
    struct str model;
};

/* The namespace of the first matcher (by priority) that holds; else the default one; else NULL.
 * *ret_by_matcher: a matcher chose it. Disabled namespaces do not match. */
const struct snap_namespace *match_namespace(const struct snapshot *s, const struct match_input *in,
                                             bool *ret_by_matcher);
/* Whether the request may turn out to be that namespace's when its model is known. Says nothing of
 * credentials. */
bool match_is_possible(const struct snapshot *s, const struct match_input *in,
                       const struct snap_namespace *ns);
/* Whether a matcher needs the body to decide. */
bool match_needs_body(const struct snapshot *s);
bool match_cond(const struct snap_cond *c, const struct match_input *in);

enum match_result { MATCH_OK, MATCH_NO_PATH, MATCH_NO_METHOD, MATCH_NO_MODEL };
/* The first route of the namespace that takes path, method and model. Not OK: how near the nearest
 * one came. */
enum match_result match_route(const struct snapshot *s, const struct snap_namespace *ns,
                              const struct match_input *in, const struct snap_route **ret);

/* The key with this HMAC, or NULL. */
const struct snap_key *match_key(const struct snapshot *s, const unsigned char hmac[SNAP_HMAC_LEN]);
bool match_in(const struct snap_strings *list, struct str s);

/* The configured model of that name: by name or alias pattern, without case; NULL when none. */
const struct snap_model *match_model(const struct snapshot *s, struct str model);

/* A path that every server reads as the same one: no empty, "." or ".." segment, plain or
 * percent-encoded or in front of a ';', no encoded slash or NUL, no backslash, and nothing encoded
 * that need not be (a route, or the meter, must not be passed by under another spelling). */
bool match_path_is_plain(struct str path);

#endif
