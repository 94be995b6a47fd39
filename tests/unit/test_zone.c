/* SPDX-License-Identifier: Apache-2.0 */
/* Time zones: offsets as the C library has them, and the calendar's windows where clocks change. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include <stdio.h>
#include <time.h>

#include "base/zone.h"

static const char *const zones[] = {
    "Europe/Berlin",     "America/New_York",   "America/Santiago",  "Australia/Lord_Howe",
    "Asia/Kathmandu",    "Asia/Kolkata",       "Pacific/Apia",      "Pacific/Kwajalein",
    "Africa/Casablanca", "Europe/Dublin",      "America/Sao_Paulo", "Antarctica/Troll",
    "Asia/Tehran",       "Africa/Monrovia",    "America/Nuuk",      "Asia/Gaza",
    "Etc/GMT+12",        "Pacific/Kiritimati", "America/St_Johns",  "Asia/Shanghai",
};

static struct zone *load(const char *name)
{
    struct zone *z = NULL;
    if (zone_load(str_of(name), &z) != ERR_OK) fail_msg("%s", name);
    return z;
}

/* "2026-03-29 01:30" of a zone's standard of UTC. */
static int64_t utc(const char *text)
{
    struct tm tm = { 0 };
    assert_non_null(strptime(text, "%Y-%m-%d %H:%M", &tm));
    return timegm(&tm);
}

static void expect_window(const char *name, enum zone_period p, const char *at, const char *begin,
                          const char *end)
{
    struct zone *z = load(name);
    int64_t b, e;
    zone_window(z, p, utc(at), &b, &e);
    if (b != utc(begin) || e != utc(end))
        fail_msg("%s at %s: from %+lld s to %+lld s of what was expected", name, at,
                 (long long)(b - utc(begin)), (long long)(e - utc(end)));
    zone_free(z);
}

static void offsets_are_those_of_the_c_library(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(zones); i++) {
        struct zone *z = load(zones[i]);
        setenv("TZ", zones[i], 1);
        tzset();
        /* every 6 h and 5 min from 1975 to 2060, so that each time of day comes by */
        for (int64_t at = 157766400; at < 2840140800; at += 21900) {
            time_t t = (time_t)at;
            struct tm tm;
            localtime_r(&t, &tm);
            if (tm.tm_gmtoff != zone_offset(z, at))
                fail_msg("%s at %lld: %ld, not %d", zones[i], (long long)at, tm.tm_gmtoff,
                         zone_offset(z, at));
        }
        zone_free(z);
    }
    unsetenv("TZ");
    tzset();
}

static void windows_follow_each_other_without_gap(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(zones); i++) {
        struct zone *z = load(zones[i]);
        for (int p = ZONE_HOUR; p <= ZONE_MONTH; p++) {
            int64_t at = 1104537600 + 7777, begin, end, last = 0;               /* 2005 */
            int64_t until = p == ZONE_HOUR ? at + 3 * 366 * 86400 : 2208988800; /* 2040 */
            for (; at < until; at = end) {
                zone_window(z, (enum zone_period)p, at, &begin, &end);
                if (begin > at || end <= at) fail_msg("%s: not in its own window", zones[i]);
                if (last != 0 && begin != last)
                    fail_msg("%s: a gap at %lld", zones[i], (long long)at);
                int64_t b, e;
                zone_window(z, (enum zone_period)p, end - 1, &b, &e);
                if (b != begin || e != end) fail_msg("%s: two windows in one", zones[i]);
                last = end;
            }
        }
        zone_free(z);
    }
}

/* A window begins when the C library's local time shows the beginning of a day, week or month. */
static void windows_begin_where_the_calendar_does(void **state)
{
    (void)state;
    struct zone *z = load("Europe/Berlin");
    setenv("TZ", "Europe/Berlin", 1);
    tzset();
    for (int64_t at = 1104537600; at < 2208988800; at += 3 * 86400 + 4001) {
        int64_t begin, end;
        struct tm tm;
        time_t t;
        zone_window(z, ZONE_DAY, at, &begin, &end);
        t = (time_t)begin;
        localtime_r(&t, &tm);
        assert_int_equal(tm.tm_hour + tm.tm_min + tm.tm_sec, 0);
        zone_window(z, ZONE_WEEK, at, &begin, &end);
        t = (time_t)begin;
        localtime_r(&t, &tm);
        assert_int_equal(tm.tm_hour, 0);
        assert_int_equal(tm.tm_wday, 1);
        zone_window(z, ZONE_MONTH, at, &begin, &end);
        t = (time_t)begin;
        localtime_r(&t, &tm);
        assert_int_equal(tm.tm_hour, 0);
        assert_int_equal(tm.tm_mday, 1);
    }
    unsetenv("TZ");
    tzset();
    zone_free(z);
}

static void days_have_23_or_25_hours_where_clocks_change(void **state)
{
    (void)state;
    expect_window("Europe/Berlin", ZONE_DAY, "2026-03-29 12:00", "2026-03-28 23:00",
                  "2026-03-29 22:00");
    expect_window("Europe/Berlin", ZONE_DAY, "2026-10-25 12:00", "2026-10-24 22:00",
                  "2026-10-25 23:00");
    expect_window("America/New_York", ZONE_DAY, "2026-03-08 12:00", "2026-03-08 05:00",
                  "2026-03-09 04:00");
    /* far behind the end of any table: by the rule */
    expect_window("America/New_York", ZONE_DAY, "2093-03-08 12:00", "2093-03-08 05:00",
                  "2093-03-09 04:00");
    expect_window("Europe/Berlin", ZONE_WEEK, "2026-10-25 22:59", "2026-10-18 22:00",
                  "2026-10-25 23:00");
    expect_window("Europe/Berlin", ZONE_MONTH, "2026-10-31 22:59", "2026-09-30 22:00",
                  "2026-10-31 23:00");
}

static void a_midnight_that_is_skipped_or_comes_twice_begins_one_day(void **state)
{
    (void)state;
    /* Sao Paulo went from 00:00 to 01:00 on 2018-11-04: the day begins at 01:00 */
    expect_window("America/Sao_Paulo", ZONE_DAY, "2018-11-04 03:30", "2018-11-04 03:00",
                  "2018-11-05 02:00");
    expect_window("America/Sao_Paulo", ZONE_DAY, "2018-11-04 02:59", "2018-11-03 03:00",
                  "2018-11-04 03:00");
    /* and from 00:00 back to 23:00 on 2018-02-18: Saturday's last hour comes twice, and Sunday
     * begins at the second midnight, since the first one is never shown */
    expect_window("America/Sao_Paulo", ZONE_DAY, "2018-02-18 02:30", "2018-02-17 02:00",
                  "2018-02-18 03:00");
    /* Havana goes back from 01:00 to 00:00: midnight comes twice, the day begins at the first */
    expect_window("America/Havana", ZONE_DAY, "2026-11-01 05:30", "2026-11-01 04:00",
                  "2026-11-02 05:00");
    /* Apia had no 30 December 2011 */
    expect_window("Pacific/Apia", ZONE_DAY, "2011-12-30 09:00", "2011-12-29 10:00",
                  "2011-12-30 10:00");
    expect_window("Pacific/Apia", ZONE_DAY, "2011-12-30 10:00", "2011-12-30 10:00",
                  "2011-12-31 10:00");
}

static void an_hour_that_comes_twice_is_two_windows(void **state)
{
    (void)state;
    expect_window("Europe/Berlin", ZONE_HOUR, "2026-10-25 00:30", "2026-10-25 00:00",
                  "2026-10-25 01:00");
    expect_window("Europe/Berlin", ZONE_HOUR, "2026-10-25 01:30", "2026-10-25 01:00",
                  "2026-10-25 02:00");
    /* clocks of India show :00 at half past */
    expect_window("Asia/Kolkata", ZONE_HOUR, "2026-05-05 10:15", "2026-05-05 09:30",
                  "2026-05-05 10:30");
    /* Lord Howe moves by half an hour: 02:00 becomes 02:30, at 15:30 UTC */
    expect_window("Australia/Lord_Howe", ZONE_HOUR, "2026-10-03 15:45", "2026-10-03 15:30",
                  "2026-10-03 16:00");
}

static void utc_needs_no_file(void **state)
{
    (void)state;
    expect_window("UTC", ZONE_MONTH, "2024-02-29 23:59", "2024-02-01 00:00", "2024-03-01 00:00");
    expect_window("UTC", ZONE_WEEK, "1970-01-01 00:00", "1969-12-29 00:00", "1970-01-05 00:00");
    expect_window("UTC", ZONE_HOUR, "2024-02-29 23:59", "2024-02-29 23:00", "2024-03-01 00:00");
}

static void names_lead_nowhere_else(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",       "/etc/passwd",  "../zoneinfo/UTC", "Europe//Berlin", "Eu/",     "Europe/Berlin ",
        "Europe", "Mars/Olympus", "posix\\UTC",      "tzdata.zi",      "zone.tab"
    };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        if (zone_exists(str_of(bad[i]))) fail_msg("taken: %s", bad[i]);
    assert_true(zone_exists(STR("America/Argentina/Buenos_Aires")));
}

static void what_is_no_zone_is_refused(void **state)
{
    (void)state;
    unsigned char data[ZONE_FILE_MAX];
    struct zone *z = NULL;
    FILE *f = fopen("/usr/share/zoneinfo/Europe/Berlin", "rb");
    assert_non_null(f);
    size_t n = fread(data, 1, sizeof data, f);
    fclose(f);
    assert_int_equal(zone_parse(data, n, &z), ERR_OK);
    zone_free(z);
    for (size_t cut = 0; cut < n; cut++)
        if (zone_parse(data, cut, &z) == ERR_OK) fail_msg("taken when cut at %zu", cut);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(offsets_are_those_of_the_c_library),
        cmocka_unit_test(windows_follow_each_other_without_gap),
        cmocka_unit_test(windows_begin_where_the_calendar_does),
        cmocka_unit_test(days_have_23_or_25_hours_where_clocks_change),
        cmocka_unit_test(a_midnight_that_is_skipped_or_comes_twice_begins_one_day),
        cmocka_unit_test(an_hour_that_comes_twice_is_two_windows),
        cmocka_unit_test(utc_needs_no_file),
        cmocka_unit_test(names_lead_nowhere_else),
        cmocka_unit_test(what_is_no_zone_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
