/* SPDX-License-Identifier: Apache-2.0 */
/* UUID version 7 (RFC 9562, 5.7) as text: time-ordered identifiers of entities, records and
 * messages. */
#ifndef BASE_UUID_H
#define BASE_UUID_H

#include "base/clock.h"
#include "base/str.h"

enum { UUID_LEN = 36 };

void uuid_v7(const struct clock *clock, const struct rng *rng, char out[UUID_LEN + 1]);
void uuid_v7_at(uint64_t wall_ms, const struct rng *rng, char out[UUID_LEN + 1]);
/* 8-4-4-4-12 lower-case hex digits. */
bool uuid_is_valid(struct str s);

#endif
