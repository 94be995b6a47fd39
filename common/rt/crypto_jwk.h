/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Public keys as JSON Web Key Sets (RFC 7517) and signatures as JSON Web Signatures have them
 * (RFC 7518, RFC 8037). Only public-key algorithms: there is neither "none" nor a shared secret. A
 * set is immutable once parsed; any thread.
 */
#ifndef RT_CRYPTO_JWK_H
#define RT_CRYPTO_JWK_H

#include "base/buf.h"

enum jwt_alg {
    JWT_RS256,
    JWT_RS384,
    JWT_RS512,
    JWT_PS256,
    JWT_PS384,
    JWT_PS512,
    JWT_ES256,
    JWT_ES384,
    JWT_EDDSA, /* Ed25519 */
    JWT_ALGS
};
/* "RS256". */
const char *jwt_alg_name(enum jwt_alg a);
bool jwt_alg_parse(struct str name, enum jwt_alg *ret);

struct jwks;
enum { JWKS_MAX_BYTES = 64 * 1024, JWKS_MAX_KEYS = 64 };

/* Takes the keys that verify signatures; others (of other types, for encryption, RSA of less than
 * 2048 bits, damaged ones) are left out. ERR_INVALID: not a key set, or one with a private key in
 * it; ERR_LIMIT; ERR_NOMEM. */
enum err jwks_parse(struct str text, struct jwks **ret, struct why *why) MUSTCHECK;
void jwks_free(struct jwks *s); /* NULL is fine */
size_t jwks_count(const struct jwks *s);

/* Checks the signature of `data`. kid: the key's name, or p == NULL. ERR_NOT_FOUND: no key of that
 * name for the algorithm (a newer set may have it); ERR_DENIED: not signed with it. */
enum err jwks_verify(const struct jwks *s, enum jwt_alg alg, struct str kid, struct str data,
                     struct str signature) MUSTCHECK;

/* Base64 of RFC 7515: URL's alphabet, no padding, no bit that is hidden. */
enum err base64url_decode(struct str s, struct buf *out) MUSTCHECK;

#endif
