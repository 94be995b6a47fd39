/* SPDX-License-Identifier: Apache-2.0 */
/* W3C trace context: what is taken as a traceparent, and what is made of it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "services/edge/records/trace.h"

#define ID "4bf92f3577b34da6a3ce929d0e0e4736"
#define SPAN "00f067aa0ba902b7"

static void what_is_taken(void **state)
{
    static const struct {
        const char *text;
        int flags; /* -1: not taken */
    } rows[] = {
        { "00-" ID "-" SPAN "-01", 1 },
        { "00-" ID "-" SPAN "-00", 0 },
        { "00-" ID "-" SPAN "-ff", 1 }, /* of flags that are not known only the known one goes on */
        { "00-" ID "-" SPAN "-02", 0 },
        { "01-" ID "-" SPAN "-01", 1 }, /* a later version, read as far as it is known */
        { "fe-" ID "-" SPAN "-01-what-is-to-come", 1 },
        { "00-" ID "-" SPAN "-01-x", -1 },
        { "01-" ID "-" SPAN "-01x", -1 },
        { "ff-" ID "-" SPAN "-01", -1 },
        { "00-00000000000000000000000000000000-" SPAN "-01", -1 },
        { "00-" ID "-0000000000000000-01", -1 },
        { "00-4BF92F3577B34DA6A3CE929D0E0E4736-" SPAN "-01", -1 },
        { "00-" ID "-00F067AA0BA902B7-01", -1 },
        { "00-" ID "-" SPAN "-0g", -1 },
        { "0g-" ID "-" SPAN "-01", -1 },
        { "00-" ID "-" SPAN "-0", -1 },
        { "00-" ID "-" SPAN, -1 },
        { "00_" ID "-" SPAN "-01", -1 },
        { "00-" ID "_" SPAN "-01", -1 },
        { "00-" ID "-" SPAN "_01", -1 },
        { " 00-" ID "-" SPAN "-01", -1 },
        { "", -1 },
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct trace t = { .flags = 77 };
        bool taken = trace_take(str_of(rows[i].text), rng_system(), &t);
        if (taken != (rows[i].flags >= 0)) fail_msg("%s", rows[i].text);
        if (!taken) {
            assert_int_equal(t.flags, 77);
            continue;
        }
        assert_string_equal(t.id, ID);
        assert_string_equal(t.parent, SPAN);
        assert_int_equal(t.flags, rows[i].flags);
    }
}

static void a_span_of_ours_goes_on(void **state)
{
    struct trace t, made, again;
    char out[TRACE_PARENT_LEN + 1];
    (void)state;
    assert_true(trace_take(STR("00-" ID "-" SPAN "-01"), rng_system(), &t));
    assert_string_not_equal(t.span, SPAN);
    trace_write(&t, out);
    assert_int_equal(strlen(out), TRACE_PARENT_LEN);
    assert_true(trace_take(str_of(out), rng_system(), &made));
    assert_string_equal(made.id, ID);
    assert_string_equal(made.parent, t.span);
    assert_int_equal(made.flags, 1);
    trace_begin(rng_system(), &made);
    trace_begin(rng_system(), &again);
    assert_string_not_equal(made.id, again.id);
    assert_string_equal(made.parent, "");
    trace_write(&made, out);
    assert_true(trace_take(str_of(out), rng_system(), &t));
    assert_string_equal(t.id, made.id);
    assert_int_equal(t.flags, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_taken),
        cmocka_unit_test(a_span_of_ours_goes_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
