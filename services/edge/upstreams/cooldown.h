/* SPDX-License-Identifier: Apache-2.0 */
/* How long a server asks to be left alone, by its answer's head. Pure. */
#ifndef EDGE_COOLDOWN_H
#define EDGE_COOLDOWN_H

#include "http/h1.h"

/* Milliseconds; 0: not at all. Of an error (429, 503, 529): Retry-After-Ms, else Retry-After as
 * seconds or date. Of any answer: rate-limit fields, of OpenAI's names or Anthropic's, that say
 * that nothing remains, until the time that they name. The longest counts. wall_ms: now. */
uint64_t cooldown_of(const struct h1_response *res, uint64_t wall_ms);
/* Of an error: what of the above is to be told to a client that gets an answer of ours; in seconds,
 * 0: nothing. */
uint64_t cooldown_retry_after_s(const struct h1_response *res, uint64_t wall_ms);

#endif
