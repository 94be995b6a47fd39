/* SPDX-License-Identifier: Apache-2.0 */
/* How long a server asks to be left alone. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>

#include "services/edge/upstreams/cooldown.h"

#define NOW UINT64_C(1767225600000) /* 2026-01-01T00:00:00Z */

static struct h1_response parse(char *text, size_t cap, int status, const char *fields)
{
    static const struct h1_limits limits = H1_LIMITS_DEFAULT;
    static struct h1_response res;
    struct h1_error why;
    int n = snprintf(text, cap, "HTTP/1.1 %d X\r\n%s\r\ncontent-length: 0\r\n\r\n", status, fields);
    h1_begin(&res.head);
    assert_int_equal(h1_parse_response(text, (size_t)n, &limits, false, &res, &why), H1_DONE);
    return res;
}

static uint64_t cool(int status, const char *fields)
{
    char text[1024];
    struct h1_response res = parse(text, sizeof text, status, fields);
    return cooldown_of(&res, NOW);
}

static void retry_after_of_an_overload_counts(void **state)
{
    (void)state;
    assert_int_equal(cool(429, "retry-after: 7"), 7000);
    assert_int_equal(cool(503, "Retry-After: 7"), 7000);
    assert_int_equal(cool(529, "retry-after: 7"), 7000);
    assert_int_equal(cool(429, "retry-after-ms: 250\r\nretry-after: 7"), 250);
    assert_int_equal(cool(429, "retry-after: Thu, 01 Jan 2026 00:00:09 GMT"), 9000);
    assert_int_equal(cool(429, "retry-after: 999999999"), 86400000);
    assert_int_equal(cool(500, "retry-after: 7"), 0);
    assert_int_equal(cool(200, "retry-after: 7"), 0);
    char text[1024];
    struct h1_response res = parse(text, sizeof text, 503, "retry-after-ms: 1001");
    assert_int_equal(cooldown_retry_after_s(&res, NOW), 2);
}

static void what_makes_no_sense_is_nothing(void **state)
{
    (void)state;
    static const char *const fields[] = {
        "retry-after: -1",
        "retry-after: soon",
        "retry-after: 99999999999999999999",
        "retry-after: 1.5",
        "x-a: b",
        "retry-after: Thu, 01 Jan 2015 00:00:09 GMT",
        "retry-after-ms: -250",
        "retry-after: ",
    };
    for (size_t i = 0; i < ARRAY_LEN(fields); i++) assert_int_equal(cool(429, fields[i]), 0);
}

static void rate_limits_that_are_used_up_count_whatever_the_status(void **state)
{
    (void)state;
    static const struct {
        const char *reset;
        uint64_t ms;
    } durations[] = { { "1s", 1000 },        { "6m0s", 360000 }, { "250ms", 250 }, { "1.5s", 1500 },
                      { "1h2m3s", 3723000 }, { "20", 20000 },    { "soon", 0 },    { "", 0 },
                      { "1x", 0 },           { "99h", 86400000 } };
    char fields[256];
    for (size_t i = 0; i < ARRAY_LEN(durations); i++) {
        (void)snprintf(fields, sizeof fields,
                       "x-ratelimit-remaining-tokens: 0\r\nx-ratelimit-reset-tokens: %s",
                       durations[i].reset);
        assert_int_equal(cool(200, fields), durations[i].ms);
    }
    assert_int_equal(cool(200, "x-ratelimit-remaining-tokens: 1\r\nx-ratelimit-reset-tokens: 9s"),
                     0);
    assert_int_equal(cool(200, "anthropic-ratelimit-input-tokens-remaining: 0\r\n"
                               "anthropic-ratelimit-input-tokens-reset: 2026-01-01T00:00:30Z"),
                     30000);
    assert_int_equal(cool(429, "retry-after: 3\r\nanthropic-ratelimit-requests-remaining: 0\r\n"
                               "anthropic-ratelimit-requests-reset: 2026-01-01T00:00:30.5Z"),
                     30000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(retry_after_of_an_overload_counts),
        cmocka_unit_test(what_makes_no_sense_is_nothing),
        cmocka_unit_test(rate_limits_that_are_used_up_count_whatever_the_status),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
