/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What every message on the bus has: v (schema version), id (UUIDv7), ts (RFC 3339, UTC), from
 * (instance). Flat: these four stand beside the message's own members. Unknown members are ignored,
 * unknown versions refused.
 */
#ifndef PROTO_ENVELOPE_H
#define PROTO_ENVELOPE_H

#include "base/clock.h"
#include "rt/json.h"

enum { ENVELOPE_VERSION = 1, MESSAGE_MAX_BYTES = 768 * 1024 };

/* A new message object with the four members set. */
struct json *envelope_new(const struct clock *clock, const struct rng *rng, const char *from);

/* Parses data and checks v; ERR_UNSUPPORTED for a version that is not ours, ERR_INVALID for what is
 * no message. */
enum err envelope_parse(struct str data, struct json **ret, struct why *why) MUSTCHECK;

/* {"v","id","ts","from","error":{"code","message"}}: the reply to a request that could not be
 * served. */
struct json *envelope_error(const struct clock *clock, const struct rng *rng, const char *from,
                            enum err code, const char *message);
/* ERR_OK when the reply is no error; else the error's code, with its message in why. */
enum err envelope_check_error(const struct json *reply, struct why *why) MUSTCHECK;

#endif
