/* SPDX-License-Identifier: Apache-2.0 */
/* The calendar in a time zone; see the header. Reading files is in zone_file.c. Pure, any thread.
 */
#include "base/zone_impl.h"

#define DAY INT64_C(86400)
#define HOUR INT64_C(3600)

static int64_t floor_div(int64_t a, int64_t b)
{
    return a / b - (a % b != 0 && (a < 0) != (b < 0) ? 1 : 0);
}

/* --- dates: days since 1970-01-01 of the proleptic Gregorian calendar --- */

static bool is_leap(int64_t year)
{
    return (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
}

static int64_t days_to_year(int64_t year)
{
    int64_t y = year - 1;
    return 365 * (year - 1970) + (floor_div(y, 4) - 492) - (floor_div(y, 100) - 19) +
           (floor_div(y, 400) - 4);
}

/* month: 0 to 11. */
static int64_t days_to_month(int64_t year, int64_t month)
{
    static const int before[] = { 0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334 };
    return days_to_year(year) + before[month] + (month > 1 && is_leap(year) ? 1 : 0);
}

static int64_t year_of(int64_t days)
{
    int64_t year = 1970 + floor_div(days, 366);
    while (days_to_year(year + 1) <= days) year++;
    while (days_to_year(year) > days) year--;
    return year;
}

/* --- changes of the offset --- */

/* Seconds from the year's beginning (local) to the rule's moment. */
static int64_t rule_seconds(const struct zone_rule *r, int64_t year)
{
    int64_t day, first, weekday;
    switch (r->kind) {
    case ZONE_RULE_JULIAN: /* 1 to 365: 29 February is never counted */
        day = r->day - 1 + (r->day > 59 && is_leap(year) ? 1 : 0);
        break;
    case ZONE_RULE_DAY: day = r->day; break;
    case ZONE_RULE_MONTH:
    default:
        first = days_to_month(year, r->month - 1);
        weekday = (first + 4) % 7; /* 1970-01-01 was a Thursday; 0: Sunday */
        if (weekday < 0) weekday += 7;
        day = first + (r->day - weekday + 7) % 7 + 7 * (r->week - 1);
        if (day >= (r->month == 12 ? days_to_year(year + 1) : days_to_month(year, r->month)))
            day -= 7; /* the fifth is the last */
        day -= days_to_year(year);
        break;
    }
    return day * DAY + r->seconds;
}

/* The two changes of a year, as UTC. */
static void changes_of_year(const struct zone_tail *t, int64_t year, int64_t *ret_dst,
                            int64_t *ret_std)
{
    int64_t begin = days_to_year(year) * DAY;
    *ret_dst = begin + rule_seconds(&t->to_dst, year) - t->std_offset;
    *ret_std = begin + rule_seconds(&t->to_std, year) - t->dst_offset;
}

static int32_t tail_offset(const struct zone_tail *t, int64_t at)
{
    int64_t year = year_of(floor_div(at, DAY)), latest = INT64_MIN;
    int32_t offset = t->std_offset;
    for (int64_t y = year - 1; t->has_dst && y <= year + 1; y++) {
        int64_t dst, std;
        changes_of_year(t, y, &dst, &std);
        /* of two at the same moment the one to daylight saving counts: it never ends then */
        if (std <= at && std > latest) {
            latest = std;
            offset = t->std_offset;
        }
        if (dst <= at && dst >= latest) {
            latest = dst;
            offset = t->dst_offset;
        }
    }
    return offset;
}

/* How many changes of the table are not after `at`. */
static size_t changes_before(const struct zone *z, int64_t at)
{
    size_t low = 0, high = z->changes_n;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (z->changes[mid].at <= at)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

int32_t zone_offset(const struct zone *z, int64_t at)
{
    size_t n = changes_before(z, at);
    if (n < z->changes_n || !z->has_tail) return n > 0 ? z->changes[n - 1].offset : z->first_offset;
    return tail_offset(&z->tail, at);
}

/* The next moment after `at` where the offset may change. */
static int64_t next_change(const struct zone *z, int64_t at)
{
    size_t n = changes_before(z, at);
    int64_t next = INT64_MAX, year = year_of(floor_div(at, DAY));
    if (n < z->changes_n) return z->changes[n].at;
    for (int64_t y = year - 1; z->has_tail && z->tail.has_dst && y <= year + 2; y++) {
        int64_t dst, std;
        changes_of_year(&z->tail, y, &dst, &std);
        if (dst > at) next = MIN(next, dst);
        if (std > at) next = MIN(next, std);
    }
    return next;
}

/* The first moment whose local time is `local` or later. */
static int64_t first_at(const struct zone *z, int64_t local)
{
    int64_t t = local - 2 * DAY; /* no offset reaches so far */
    for (;;) {
        int64_t there = local - zone_offset(z, t), next = next_change(z, t);
        if (there <= t) return t; /* skipped by a change */
        if (there < next) return there;
        t = next;
    }
}

/* --- periods --- */

static int64_t index_of(enum zone_period p, int64_t days)
{
    if (p == ZONE_DAY) return days;
    if (p == ZONE_WEEK) return floor_div(days + 3, 7); /* 1970-01-01 was a Thursday */
    int64_t year = year_of(days), month = 11;
    while (days_to_month(year, month) > days) month--;
    return year * 12 + month;
}

static int64_t begin_of(const struct zone *z, enum zone_period p, int64_t index)
{
    int64_t days = p == ZONE_DAY ? index
                   : p == ZONE_WEEK
                       ? index * 7 - 3
                       : days_to_month(floor_div(index, 12), index - floor_div(index, 12) * 12);
    return first_at(z, days * DAY);
}

static void hour_window(const struct zone *z, int64_t at, int64_t *ret_begin, int64_t *ret_end)
{
    int32_t offset = zone_offset(z, at);
    int64_t begin = floor_div(at + offset, HOUR) * HOUR - offset, end = begin + HOUR, change;
    for (change = next_change(z, begin); change <= at; change = next_change(z, change))
        if (zone_offset(z, change) != zone_offset(z, change - 1)) begin = change;
    for (; change < end; change = next_change(z, change))
        if (zone_offset(z, change) != offset) end = change;
    *ret_begin = begin;
    *ret_end = end;
}

void zone_window(const struct zone *z, enum zone_period p, int64_t at, int64_t *ret_begin,
                 int64_t *ret_end)
{
    if (p == ZONE_HOUR) {
        hour_window(z, at, ret_begin, ret_end);
        return;
    }
    /* the local date may go back where clocks do: a period that has begun has begun */
    int64_t index = index_of(p, floor_div(at + zone_offset(z, at), DAY)), end;
    while ((end = begin_of(z, p, index + 1)) <= at) index++;
    *ret_begin = begin_of(z, p, index);
    *ret_end = end;
}
