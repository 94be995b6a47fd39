/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The lease protocol: what an edge asks of the policy engine (SUBJECT_POLICY_LEASE, request-reply)
 * and what it is told.
 *
 *   ask    {"v","id","ts","from","incarnation","epoch","revision","leaving"?,
 *           "ops":[{"op":"ask"|"renew"|"return"|"settle","policy","key","lease",
 *                   "known"?,"want"?,"ahead"?,"min"?,"spent"?,"returned"?,"debt"?},…]}
 *   reply  {"v","id","ts","from","re":<id of the ask>,"epoch","edges","revision",
 *           "results":[{"status","lease","granted"?,"ttl_ms"?,"limit"?,"remaining"?,
 *                       "reset_ms"?,"retry_ms"?,"share"?},…]}
 *
 * results[i] answers ops[i]. Absent numbers are 0. An engine that cannot serve the message at all
 * answers with the error of proto/envelope.h.
 *
 * A counter is (policy id, key). The edge builds the key from the policy's `per` list; what clients
 * supply enters it only as a keyed hash. A lease is so many units of one counter, held by one
 * edge. The edge names it: unique among all leases of all edges for ever, since it begins with the
 * edge's incarnation. An edge may hold any number of leases of one counter.
 *
 * Everything is CUMULATIVE over the life of a lease, which makes every op idempotent and heals
 * losses: a repeated, late or reordered op changes nothing that was not true already.
 *   known     units the edge knows it was granted so far
 *   want      units it would like on top: the engine brings the total to at least known + want, or
 *             as near as the limit allows. A dup finds the total reached.
 *   ahead     units it expects to need besides, before the lease ends: the engine grants as much of
 *             them as leaves enough for the others
 *   min       of the wanted units, the least that is of any use (default 1)
 *   spent     units it has spent
 *   debt      units to be charged beyond all that was granted: the level goes below zero. An ask
 *             with debt makes the lease even when nothing can be granted
 *   returned  units it has given back and will not spend
 *   granted   (reply) units granted so far
 * The lease holds granted - spent - returned. For concurrency nothing is ever spent: a lease holds
 * granted - returned slots, in use or not.
 *
 *   ask     reports, extends the lease to its full time, and grants
 *   renew   reports and extends
 *   return  reports, with more returned than before; does not extend
 *   settle  reports; does not extend
 * An op with less spent, returned or debt than a lease was told before is a late one: nobody waits
 * for its answer, and it neither grants nor extends.
 *
 * Time. `ttl_ms` counts at the edge from the moment when it SENT the ask, less 1 %; at the engine
 * from the moment when it granted. All times are durations; no clock is compared with another.
 *
 * Epoch. Names one uninterrupted memory of the engine (or of its store). `epoch` of an ask is the
 * epoch under which its leases were granted, "" when the edge knows none; leases of another epoch
 * cannot be renewed or settled (stale_epoch), but may be used up to their end: a new epoch begins
 * with one lease time in which nothing is granted (warming).
 *
 * Status.
 *   granted         as far as `granted` says; for renew, return and settle: done
 *   refused         nothing (more) to be had now; retry_ms says when there may be
 *   never           `min` is more than this limit can ever hold
 *   ended           the lease is over (or was never known): use nothing of it, name a new one
 *   unknown_policy  the engine's configuration (see `revision`) does not have it yet, or any more
 *   stale_epoch     see above; the reply's epoch is the current one
 *   warming         see above; retry_ms says how long
 *   unavailable     the store is away
 *   invalid         this op made no sense to the engine
 *
 * limit, remaining: of the counter, in units; remaining is what could still be granted now.
 * reset_ms: until it would be as if unused. share: units per window (slots) that this edge may use
 * by itself, beginning empty, when the engine is away; `edges`: how many edges share; 0: not known
 * yet, keep the shares told before.
 * leaving: this edge gives up its share and all its leases.
 */
#ifndef PROTO_LEASE_MSG_H
#define PROTO_LEASE_MSG_H

#include "proto/envelope.h"

enum {
    LEASE_MAX_OPS = 256,  /* of one message */
    LEASE_ID_MAX = 80,    /* bytes of a lease id, incarnation, epoch or policy id */
    LEASE_KEY_MAX = 512,  /* bytes of a counter's key */
    LEASE_TTL_MS = 2000,  /* the longest life of a lease, and how long a new epoch warms */
    LEASE_TTL_PARTS = 20, /* a lease lives at most this part of its window */
    LEASE_TTL_MIN_MS = 5, /* but not less than this */
    LEASE_ASK_TIMEOUT_MS = 50
};
/* Numbers of units are exact in JSON up to here. */
#define LEASE_UNITS_MAX ((uint64_t)1 << 53)

enum lease_op_kind { LEASE_ASK, LEASE_RENEW, LEASE_RETURN, LEASE_SETTLE, LEASE_OP_MAX };
const char *lease_op_name(enum lease_op_kind k);

enum lease_status {
    LEASE_GRANTED,
    LEASE_REFUSED,
    LEASE_NEVER,
    LEASE_ENDED,
    LEASE_UNKNOWN_POLICY,
    LEASE_STALE_EPOCH,
    LEASE_WARMING,
    LEASE_UNAVAILABLE,
    LEASE_INVALID,
    LEASE_STATUS_MAX
};
const char *lease_status_name(enum lease_status s);

struct lease_op {
    enum lease_op_kind kind; /* LEASE_OP_MAX when decoded from a word we do not know */
    struct str policy, key, lease;
    uint64_t known, want, ahead, min, spent, returned, debt;
};

struct lease_ask {
    struct str id, from;           /* of the envelope; set by decoding only */
    struct str incarnation, epoch; /* epoch.n == 0: knows none */
    uint64_t revision;             /* of the configuration in use, for information */
    bool leaving;
    struct lease_op *ops;
    size_t ops_n;
    struct json *root; /* what the strings belong to, when decoded */
};

struct lease_result {
    enum lease_status status;
    struct str lease;
    uint64_t granted, ttl_ms, limit, remaining, reset_ms, retry_ms, share;
};

struct lease_reply {
    struct str re; /* id of the ask */
    struct str epoch;
    uint64_t edges, revision;
    struct lease_result *results;
    size_t results_n;
    struct json *root;
};

/* Appends the message to out. The id that it was given goes to ret_id (37 bytes; may be NULL). */
enum err lease_ask_encode(const struct lease_ask *m, const struct clock *clock,
                          const struct rng *rng, const char *from, char *ret_id,
                          struct buf *out) MUSTCHECK;
enum err lease_reply_encode(const struct lease_reply *m, const struct clock *clock,
                            const struct rng *rng, const char *from, struct buf *out) MUSTCHECK;

/* ERR_INVALID, ERR_UNSUPPORTED (version), ERR_LIMIT (too many ops): nothing to free then. An op
 * with a kind we do not know is decoded as LEASE_OP_MAX, so that the others can be served. */
enum err lease_ask_decode(struct str data, struct lease_ask *ret, struct why *why) MUSTCHECK;
void lease_ask_done(struct lease_ask *m);
/* Also returns the error that the engine answered with. */
enum err lease_reply_decode(struct str data, struct lease_reply *ret, struct why *why) MUSTCHECK;
void lease_reply_done(struct lease_reply *m);

/* How long a lease of a counter with this window lives (window_ms 0: no window). */
uint64_t lease_ttl_ms(uint64_t window_ms);

#endif
