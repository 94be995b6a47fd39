/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who shares the limits when the engine is away: every edge that we heard of and that has not
 * signed off. Pure; not thread-safe. Times in microseconds of a clock that never goes back.
 *
 * An edge that we do not hear from may be using the share that it was told last, so that part of
 * each limit is set aside (ledger_rule.aside_ppm) from one lease time after its last word until it
 * speaks again, signs off, or an operator removes it. Never by time alone: an edge that is cut off
 * for a week uses its share for a week.
 *
 * How large its share is, it says itself twice a second: among how many it shares. What it was told
 * and may not have said yet counts as well, for at least silent_us: an answer that comes later than
 * that never makes a share larger (LEASE_LOWER_MS). So an edge that was never told a number has
 * nothing set aside, and one that was told a smaller number once, when fewer edges were there, does
 * not stand for that for ever. Edges of before say nothing: of them the larger share of the last
 * two that they were told counts.
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
/* The same, and it says among how many it shares; 0: it was never told. */
enum err shares_said(struct shares *s, struct str instance, uint64_t now_us,
                     uint64_t among) MUSTCHECK;
/* It signed off, or was removed. False: it was not known. */
bool shares_left(struct shares *s, struct str instance);

/* Among how many the limits are shared; 0: not known yet, since we have not listened for long
 * enough. What is told to an edge with a reply: one that is told 0 keeps what it was told before.
 */
uint64_t shares_count(const struct shares *s, uint64_t now_us);
/* The edge is told that number now: the answer may be lost, or arrive. */
void shares_tell(struct shares *s, struct str instance, uint64_t count);

/* Millionths of each limit that silent edges may be using, rounded up; how many they are. */
uint64_t shares_aside_ppm(const struct shares *s, uint64_t now_us);
size_t shares_silent(const struct shares *s, uint64_t now_us);

#endif
