/* SPDX-License-Identifier: Apache-2.0 */
/* Digests, sealed secrets and key material (OpenSSL's libcrypto). All functions are pure and may
 * run on any thread. */
#ifndef RT_CRYPTO_H
#define RT_CRYPTO_H

#include "base/buf.h"
#include "base/clock.h"

enum { SHA256_LEN = 32, SHA256_HEX_LEN = 64 };

void crypto_sha256(struct str data, unsigned char out[SHA256_LEN]);
void crypto_sha256_hex(struct str data, char out[SHA256_HEX_LEN + 1]);
void crypto_hmac_sha256(struct str key, struct str data, unsigned char out[SHA256_LEN]);

/* MASTER_KEY and the pepper: 64 hex digits (32 bytes). */
enum err crypto_parse_key(struct str hex, unsigned char out[32], struct why *why) MUSTCHECK;

/* AES-256-GCM with a random 96-bit nonce. The result is text: "v1:" and base64 of nonce,
 * ciphertext, tag. aad binds it to its place (the entity's id), so that a sealed value moved
 * elsewhere does not open. */
enum err crypto_seal(const unsigned char key[32], struct str aad, struct str plain,
                     const struct rng *rng, struct buf *out) MUSTCHECK;
/* ERR_DENIED when it was not sealed with this key and aad, or was changed. */
enum err crypto_open(const unsigned char key[32], struct str aad, struct str sealed,
                     struct buf *out) MUSTCHECK;

/* n random characters of [A-Za-z0-9], for keys and tokens; out holds n+1. */
void crypto_random_text(const struct rng *rng, size_t n, char *out);

#endif
