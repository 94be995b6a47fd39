/* SPDX-License-Identifier: Apache-2.0 */
/* Redis (hiredis): one blocking connection with time-outs, scripts by digest, run_id checked on
 * every connection. */
#ifndef RT_REDIS_H
#define RT_REDIS_H

#include <stdint.h>

#include "base/buf.h"

struct redis;

/* An address of rt/redis_url.h. Does not connect yet. With Sentinels each new connection asks where
 * the master is. Until a connection is set up, each step of it may take the connect time-out: one
 * that recovers has much to do at first. */
enum err redis_new(const char *url, int connect_timeout_ms, int call_timeout_ms, struct redis **ret,
                   struct why *why) MUSTCHECK;
void redis_free(struct redis *r);
/* Connects when needed. ret_run_id may be NULL. */
enum err redis_connect(struct redis *r, char ret_run_id[41], struct why *why) MUSTCHECK;

/* A reply as a tree, borrowed until the next call. */
struct redis_value;
enum redis_type { REDIS_NIL, REDIS_INT, REDIS_STRING, REDIS_ARRAY };
enum redis_type redis_type(const struct redis_value *v);
int64_t redis_int(const struct redis_value *v);
struct str redis_str(const struct redis_value *v);
size_t redis_len(const struct redis_value *v);
const struct redis_value *redis_at(const struct redis_value *v, size_t i);

/* ERR_UNAVAILABLE or ERR_TIMEOUT: the connection is closed, the next call makes a new one.
 * ERR_INVALID: Redis refused. */
enum err redis_command(struct redis *r, const struct str *args, size_t n,
                       const struct redis_value **ret, struct why *why) MUSTCHECK;
/* EVALSHA, loading the script when the server lacks it. */
enum err redis_eval(struct redis *r, const char *script, const struct str *keys, size_t keys_n,
                    const struct str *args, size_t args_n, const struct redis_value **ret,
                    struct why *why) MUSTCHECK;

#endif
