/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The public keys of token issuers: those of the configuration, and those that are fetched from
 * URLs, by a thread of its own, anew every so often and when a token names a key that is not there
 * (at most every KEYRING_REST_S seconds). When a fetch fails the last good keys stay. Any thread;
 * one lock inside, not held while something is fetched or verified.
 */
#ifndef EDGE_KEYRING_H
#define EDGE_KEYRING_H

#include "base/clock.h"
#include "proto/snapshot.h"

enum { KEYRING_REST_S = 10 };

struct keyring;

/* report: a fetch failed (why), or is well again (why == NULL); any thread; may be NULL. */
typedef void (*keyring_report_fn)(void *ctx, struct str issuer, const char *why);
struct keyring *keyring_new(const struct clock *clock, keyring_report_fn report, void *ctx);
void keyring_free(struct keyring *k); /* NULL is fine */

/* At each snapshot. Keys that are not had yet are fetched before it returns, as far as a few
 * seconds allow. */
void keyring_use(struct keyring *k, const struct snapshot *s);

/* ERR_OK; ERR_DENIED: not signed by a key of the issuer; ERR_NOT_FOUND: by one that is not known
 * (they are being fetched anew); ERR_UNAVAILABLE: no keys could be had yet. */
enum err keyring_verify(struct keyring *k, const struct snap_issuer *issuer, enum jwt_alg alg,
                        struct str kid, struct str data, struct str signature) MUSTCHECK;

/* Changes with the keys: what was verified before is to be verified anew. */
uint64_t keyring_generation(const struct keyring *k);

#endif
