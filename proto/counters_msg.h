/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Looking at the counters of a policy and resetting them (SUBJECT_POLICY_COUNTERS, request-reply).
 * Pure; any thread.
 *
 *   request {"v","id","ts","from","op":"look"|"reset","policy":<id>,"keys":[…]?,"cursor"?,"limit"?}
 *   reply   {"v","id","ts","from","policy","kind":"bucket"|"sliding"|"fixed"|"slots","unit":
 *            "requests"|"slots"|"tokens"|"input_tokens"|"output_tokens"|"cost","epoch","revision",
 *            "window":{"from","to"}?,
 *            "counters":[{"key","limit","used","leased","left","reset_ms"},…],"next":cursor|null}
 *        or {…,"reset":<how many>}  or the error of proto/envelope.h
 *
 * Without keys: all counters of the policy, a page at a time. used: spent, of the limit (of a
 * bucket: of its burst); leased: held by edges, not yet spent; left: could be granted now; all in
 * units. reset_ms: until the counter would be as if unused. window: of calendar periods, RFC 3339.
 * A key that nobody has asked for is not listed.
 */
#ifndef PROTO_COUNTERS_MSG_H
#define PROTO_COUNTERS_MSG_H

#include "proto/lease_msg.h"

enum { COUNTERS_KEYS_MAX = 64, COUNTERS_PAGE = 100, COUNTERS_PAGE_MAX = 1000 };

enum counters_op { COUNTERS_LOOK, COUNTERS_RESET };

struct counters_ask {
    enum counters_op op;
    struct str policy;
    struct str keys[COUNTERS_KEYS_MAX];
    size_t keys_n;
    struct str cursor; /* n == 0: from the beginning */
    size_t limit;      /* 0: COUNTERS_PAGE */
    struct str from;   /* set by decoding only */
    struct json *root; /* what the strings belong to, when decoded */
};

enum err counters_ask_encode(const struct counters_ask *m, const struct clock *clock,
                             const struct rng *rng, const char *from, struct buf *out) MUSTCHECK;
/* ERR_INVALID, ERR_UNSUPPORTED: nothing to free then. */
enum err counters_ask_decode(struct str data, struct counters_ask *ret, struct why *why) MUSTCHECK;
void counters_ask_done(struct counters_ask *m);

#endif
