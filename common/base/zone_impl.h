/* SPDX-License-Identifier: Apache-2.0 */
/* Inside zone.c and zone_file.c only: a zone as read. Immutable. */
#ifndef BASE_ZONE_IMPL_H
#define BASE_ZONE_IMPL_H

#include "base/zone.h"

struct zone_change {
    int64_t at;
    int32_t offset; /* from then on */
};

/* "M3.5.0/2": a moment of each year, in the local time before it. */
struct zone_rule {
    enum { ZONE_RULE_JULIAN, ZONE_RULE_DAY, ZONE_RULE_MONTH } kind;
    int day; /* JULIAN: 1 to 365, DAY: 0 to 365, MONTH: weekday, 0 is Sunday */
    int month, week;
    int32_t seconds; /* may be negative, and more than a day */
};

/* What holds behind the last change of the table. */
struct zone_tail {
    int32_t std_offset, dst_offset;
    bool has_dst;
    struct zone_rule to_dst, to_std;
};

struct zone {
    struct zone_change *changes; /* by time */
    size_t changes_n;
    int32_t first_offset; /* before the first change */
    bool has_tail;
    struct zone_tail tail;
};

#endif
