/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A bus without a server, for tests of what stands on rt/bus.h: the same functions, in this
 * process. A test program includes bus_fake.c, which then takes the place of the real bus.
 *
 *   struct bus_fake *server = bus_fake_new();
 *   struct bus_options o = { .url = bus_fake_url(server), ... };
 *   struct bus *a = bus_new(&o), *b = bus_new(&o);
 *
 * All callbacks run on one thread of the fake: a callback must not wait for another one, as
 * bus_request_wait() does. Time-outs of requests go by the clock of the bus, which may be a fake
 * one.
 */
#ifndef TESTS_BUS_FAKE_H
#define TESTS_BUS_FAKE_H

#include <stdbool.h>
#include <stddef.h>

struct bus_fake;

struct bus_fake *bus_fake_new(void);
void bus_fake_free(struct bus_fake *f); /* after all its buses */
const char *bus_fake_url(const struct bus_fake *f);

/* The server goes away, or comes back: fails what waits, tells on_state. What streams and buckets
 * hold stays. */
void bus_fake_away(struct bus_fake *f, bool away);
/* The next n messages whose subject is exactly this get lost on their way, as if they were sent. */
void bus_fake_lose(struct bus_fake *f, const char *subject, int n);
/* Waits until all messages that were sent are handled. */
void bus_fake_settle(struct bus_fake *f);
/* Messages that a stream holds now. */
size_t bus_fake_stored(struct bus_fake *f, const char *stream);

#endif
