/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Time zones of the IANA database, and the calendar's hours, days, weeks and months in them. Reads
 * the compiled files (TZif, RFC 8536) of the system, bounded; knows daylight saving past the end of
 * a file's table by its rule. No locale, no TZ of the process, no state: any thread.
 *
 * Times are whole seconds since 1970 (UTC, without leap seconds).
 */
#ifndef BASE_ZONE_H
#define BASE_ZONE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"

enum { ZONE_NAME_MAX = 64, ZONE_FILE_MAX = 64 * 1024 };

struct zone;

/* [A-Za-z0-9_+-] and single slashes, not at either end: what may be looked for in a folder. */
bool zone_name_is_valid(struct str name);
/* "UTC", or one that the system's database has and that can be read. */
bool zone_exists(struct str name);

/* Loads a zone from /usr/share/zoneinfo; UTC needs no file. ERR_NOT_FOUND, ERR_INVALID (not a TZif
 * file that we can read), ERR_NOMEM. */
enum err zone_load(struct str name, struct zone **ret) MUSTCHECK;
/* From a file's bytes. */
enum err zone_parse(const unsigned char *data, size_t n, struct zone **ret) MUSTCHECK;
void zone_free(struct zone *z); /* NULL is fine */

/* Local time less UTC at that moment. */
int32_t zone_offset(const struct zone *z, int64_t at);

enum zone_period { ZONE_HOUR, ZONE_DAY, ZONE_WEEK, ZONE_MONTH };
/*
 * The calendar's period that holds the moment: [*ret_begin, *ret_end). Periods follow each other
 * without gap or overlap, whatever the clocks do:
 *   - a day begins when the local date first changes; if midnight is skipped, at the first moment
 *     after the gap; if midnight comes twice, at the first of both; weeks begin on Monday;
 *   - a day is 23, 24 or 25 hours long, or what the zone makes of it;
 *   - an hour is 3600 s since the last change of the local hour, so that the hour which comes
 *     twice in autumn is two windows, and offsets of 30 or 45 minutes begin hours where the zone's
 *     clocks show :00. A change of the offset in the middle of an hour ends the window there.
 */
void zone_window(const struct zone *z, enum zone_period p, int64_t at, int64_t *ret_begin,
                 int64_t *ret_end);

#endif
