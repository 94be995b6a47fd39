/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The public keys of token issuers: those of the configuration, and those that are fetched from
 * URLs, by a thread of its own, anew every so often and when a token names a key that is not there
 * (at most every KEYRING_REST_S seconds). Who names one can wait for that fetch. When a fetch fails
 * the last good keys stay. Any thread; one lock inside, not held while something is fetched or
 * verified.
 */
#ifndef EDGE_KEYRING_H
#define EDGE_KEYRING_H

#include "base/clock.h"
#include "base/list.h"
#include "proto/snapshot.h"
#include "rt/loop.h"

enum { KEYRING_REST_S = 10, KEYRING_WAITERS_MAX = 1024 };

struct keyring;

/* report: a fetch failed (why), or is well again (why == NULL); any thread; may be NULL. */
typedef void (*keyring_report_fn)(void *ctx, struct str issuer, const char *why);
struct keyring *keyring_new(const struct clock *clock, keyring_report_fn report, void *ctx);
void keyring_free(struct keyring *k); /* NULL is fine */

/* At each snapshot. Keys that are not had yet are fetched before it returns, as far as a few
 * seconds allow. */
void keyring_use(struct keyring *k, const struct snapshot *s);

/* ERR_OK; ERR_DENIED: not signed by a key of the issuer; ERR_AGAIN: by one that is not known, and
 * they are being fetched anew; ERR_NOT_FOUND: the same, but that was only a moment ago;
 * ERR_UNAVAILABLE: no keys could be had yet. */
enum err keyring_verify(struct keyring *k, const struct snap_issuer *issuer, enum jwt_alg alg,
                        struct str kid, struct str data, struct str signature) MUSTCHECK;

/* Changes with the keys: what was verified before is to be verified anew. */
uint64_t keyring_generation(const struct keyring *k);

/* One who waits for a fetch; embedded. */
struct keyring_waiter {
    struct list_node node;
    struct loop *loop;
    loop_fn fn; /* on the loop, when one has ended */
    void *ctx;
    bool waits;
};
/* How many fetches have ended, to be asked for before keyring_verify() says ERR_AGAIN. */
uint64_t keyring_fetches(const struct keyring *k);
/* Waits for one more than these. fn is called once, unless keyring_forget() says otherwise. False:
 * too many wait, fn will not be called. */
bool keyring_wait(struct keyring *k, uint64_t fetches, struct loop *loop, loop_fn fn, void *ctx,
                  struct keyring_waiter *w);
/* True: it waits no more, and is not called. False: it was called, or will be. */
bool keyring_forget(struct keyring *k, struct keyring_waiter *w);

#endif
