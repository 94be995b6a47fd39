/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The one claim on counters in memory: a key in a bucket, taken and renewed by compare-and-set. So
 * of several engines with COUNTER_URL=memory: one serves, and the others stay unready until it is
 * gone.
 *
 * No two clocks are compared: the holder may serve for CLAIM_TTL_MS from the moment it SENT its
 * last successful renewal, less 1 %; another takes over when it has seen the key unchanged for
 * CLAIM_TTL_MS by its own clock, or at once when the holder signed off. A key that never was means
 * that nothing was ever granted.
 *
 *   {"instance","incarnation","renewed":N,"released":bool,"marks":<name of the file of quotas>}
 *
 * marks is what the counters of this claim are written down in (marks.h). A successor takes over
 * the word as it finds it, and puts its own only when it has drawn the consequence of finding
 * another.
 *
 * Not thread-safe; claim_step() blocks as long as the bucket does.
 */
#ifndef POLICY_CLAIM_H
#define POLICY_CLAIM_H

#include "base/buf.h"
#include "base/clock.h"
#include "base/uuid.h"

enum { CLAIM_TTL_MS = 4000, CLAIM_STEP_MS = 1000 };

/* The bucket; the contracts of bus_kv_get() and bus_kv_update(). */
struct claim_kv {
    enum err (*get)(void *ctx, const char *key, struct buf *ret, uint64_t *ret_revision);
    enum err (*update)(void *ctx, const char *key, struct str value, uint64_t expected,
                       uint64_t *ret_revision);
    void *ctx;
};

enum claim_event {
    CLAIM_HELD,  /* as before: *ret_until_ns says how long */
    CLAIM_WON,   /* from now on */
    CLAIM_OTHER, /* another one holds it, see claim_holder(); what we held is lost */
    CLAIM_AWAY   /* the bucket did not answer; what we hold ends at its time */
};

struct claim {
    struct claim_kv kv;
    const struct clock *clock;
    char key[64], instance[128], incarnation[UUID_LEN + 1], marks[UUID_LEN + 1];
    bool held, first;
    uint64_t revision, renewals;
    /* of the other one */
    uint64_t seen_revision, seen_ns;
    char holder[128];
};

void claim_init(struct claim *c, const struct claim_kv *kv, const char *key, const char *instance,
                const struct clock *clock, const struct rng *rng);
/* Takes, renews, or looks at the claim. With CLAIM_WON and CLAIM_HELD *ret_until_ns is the end of
 * the right to serve. */
enum claim_event claim_step(struct claim *c, uint64_t *ret_until_ns);
/* After CLAIM_WON: there was never a holder before. */
bool claim_is_first(const struct claim *c);
/* After CLAIM_WON: the marks of whoever held it before; "" when there is no word of any. */
const char *claim_marks(const struct claim *c);
/* From the next renewal on. */
void claim_set_marks(struct claim *c, const char *marks);
/* After CLAIM_OTHER: its instance. */
const char *claim_holder(const struct claim *c);
/* Signs off, so that a successor need not wait. */
void claim_release(struct claim *c);

#endif
