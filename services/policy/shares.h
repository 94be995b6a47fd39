/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who shares the limits when the engine is away: every edge that we heard of and that has not
 * signed off. Pure; not thread-safe. Times in microseconds of a clock that never goes back.
 *
 * An edge that we do not hear from may be using the share that it was told last, so that part of
 * each limit is set aside (ledger_rule.aside_ppm) from one lease time after its last word until it
 * speaks again, signs off, or an operator removes it. Never by time alone: an edge that is cut off
 * for a week uses its share for a week.
 */
#ifndef POLICY_SHARES_H
#define POLICY_SHARES_H

#include "base/map.h"
#include "base/str.h"

struct shares {
    struct map edges; /* instance -> struct share_edge */
    uint64_t silent_us, known_us;
};

/* silent_us: after so long without a word an edge counts as silent; it is longer than the pause
 * between two words of an edge that is well. */
void shares_init(struct shares *s, uint64_t now_us, uint64_t silent_us);
void shares_done(struct shares *s);

/* A word of it: presence, or an ask. ERR_NOMEM, ERR_LIMIT: it is not known then. */
enum err shares_saw(struct shares *s, struct str instance, uint64_t now_us) MUSTCHECK;
/* It signed off, or was removed. False: it was not known. */
bool shares_left(struct shares *s, struct str instance);

/* Among how many the limits are shared; 0: not known yet, since we have not listened for long
 * enough. What is told to an edge with a reply: one that is told 0 keeps what it was told before.
 */
uint64_t shares_count(const struct shares *s, uint64_t now_us);
/* The edge is told that number now. It stands for the larger share of this and the last time, since
 * a reply may be lost. */
void shares_tell(struct shares *s, struct str instance, uint64_t count);

/* Millionths of each limit that silent edges may be using, rounded up; how many they are. */
uint64_t shares_aside_ppm(const struct shares *s, uint64_t now_us);
size_t shares_silent(const struct shares *s, uint64_t now_us);

#endif
