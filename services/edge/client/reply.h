/* SPDX-License-Identifier: Apache-2.0 */
/* What the gateway itself says: reasons of status codes, bodies of refusals, header fields that
 * every answer carries. Pure. */
#ifndef EDGE_REPLY_H
#define EDGE_REPLY_H

#include "dialects/dialect.h"
#include "limits/admit.h"

/* "200 OK". Of a status without a known reason the number is written into room. */
enum { REPLY_STATUS_ROOM = 32 };
struct str reply_status(int status, char room[REPLY_STATUS_ROOM]);
/* The refusal that stands for a status of the HTTP parser. */
enum refusal reply_refusal_of(int status);
enum err reply_error_body(const struct dialect *d, enum refusal r, struct str message,
                          const char *param, struct str request_id, struct buf *out) MUSTCHECK;

/* x-ratelimit-{limit,remaining,reset}-{requests,tokens}, or Anthropic's names, of what is present.
 */
enum err reply_rate_fields(const struct dialect *d, const struct admit_outcome *o, uint64_t wall_ms,
                           struct buf *out) MUSTCHECK;
/* "250ms", "1s", "6m0s": as OpenAI writes durations. */
void reply_duration(uint64_t ms, char out[32]);

#endif
