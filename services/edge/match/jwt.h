/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Signed tokens (RFC 7519, in the compact form of RFC 7515), taken apart and checked but for their
 * signature. Pure.
 */
#ifndef EDGE_JWT_H
#define EDGE_JWT_H

#include "base/arena.h"
#include "dialects/json_want.h"
#include "proto/snapshot.h"

enum { JWT_MAX_BYTES = 16 * 1024 };

struct jwt {
    enum jwt_alg alg;
    struct str kid;         /* p == NULL: none */
    struct str signed_part; /* header and claims as they were sent */
    struct str signature;   /* decoded */
    struct js_val claims;   /* an object */
    struct js_val iss, aud; /* of the claims */
    bool has_exp, has_nbf, has_iat;
    double exp, nbf, iat; /* seconds since 1970 */
};

/* Whether it looks like a token: three parts, the first an encoded object. */
bool jwt_looks_like(struct str text);

/* wants and found: as in js_parse_wanting(), of the claims. What is decoded lies in the arena; kid
 * and signed_part may be slices of text. ERR_INVALID with why: it is none, or says in its header
 * what this gateway does not understand ("none", shared secrets, "crit"); ERR_LIMIT; ERR_NOMEM. */
enum err jwt_parse(struct str text, const struct js_wants *wants, struct arena *a, struct jwt *ret,
                   struct js_val *ret_found, struct why *why) MUSTCHECK;

/* Whether the issuer's settings take it at this time (seconds since 1970): algorithm, issuer,
 * audience, and its times. ERR_DENIED with why. */
enum err jwt_check(const struct jwt *t, const struct snap_issuer *issuer, uint64_t now_s,
                   struct why *why) MUSTCHECK;
/* Whether iss is this text. */
bool jwt_is_from(const struct jwt *t, struct str issuer);

#endif
