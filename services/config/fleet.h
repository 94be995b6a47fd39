/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who runs, and with what configuration: put together from presence and config.applied messages.
 * In memory only; every instance of the config center hears the same. Any thread.
 */
#ifndef CONFIG_FLEET_H
#define CONFIG_FLEET_H

#include "base/clock.h"
#include "rt/json.h"

struct fleet;

struct fleet *fleet_new(const struct clock *clock);
void fleet_free(struct fleet *f);

/* A message from the bus; what cannot be read is counted and dropped. */
void fleet_presence(struct fleet *f, struct str message);
void fleet_applied(struct fleet *f, struct str message);
void fleet_gone(struct fleet *f, struct str message);
uint64_t fleet_dropped(struct fleet *f);

/* Heard of within 15 s, and it did not say that it leaves. */
bool fleet_is_alive(struct fleet *f, struct str instance);

/* [{"instance","service","version","revision","load","state","alive","last_seen","applied":{…}},…],
 * sorted by instance. alive: heard of within 15 s. Owned by the caller. */
struct json *fleet_list(struct fleet *f);

/* How many live instances of each service run the revision `current`, and how many another one. */
typedef void (*fleet_count_fn)(void *ctx, const char *service, size_t current, size_t behind);
void fleet_count(struct fleet *f, uint64_t current, fleet_count_fn fn, void *ctx);

#endif
