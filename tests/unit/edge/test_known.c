/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Events of a form that was met before are not parsed (answer_forms.c). Whatever the stream holds,
 * and wherever a limit or an allowance ends it, the same comes out as when each event is parsed.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "support_events.h"
#include "support_vocab.h"

static uint32_t next(uint32_t *seed)
{
    *seed ^= *seed << 13;
    *seed ^= *seed >> 17;
    *seed ^= *seed << 5;
    return *seed;
}

static void one_stream(const struct dialect *dialect, uint32_t seed)
{
    unsigned char bytes[600];
    struct buf stream;
    uint32_t s = seed * 2654435761u + 1;
    size_t n = 40 + next(&s) % (sizeof bytes - 40);
    for (size_t i = 0; i < n; i++) bytes[i] = (unsigned char)(next(&s) >> 8);
    struct dice d = { bytes, n };
    buf_init(&stream, 1 << 20);
    events_make(dialect, &d, &stream);
    uint32_t how = next(&s);
    struct answer_options o = {
        .dialect = dialect,
        .vocab = how & 1 ? qwen3 : NULL,
        .limit = how & 2 ? next(&s) % 200 : METER_NO_LIMIT,
        .hide_usage = how & 4,
        .want_usage = how & 8,
        .reserved = how & 16,
    };
    struct events_purse purse = { next(&s) % 64, next(&s) % 400, 1 + next(&s) % 64 };
    struct events_result each, some;
    events_pass(o, buf_str(&stream), 1, purse, false, &each);
    for (size_t step = 64; step < 100000; step = step * 3 + next(&s) % 64) {
        events_pass(o, buf_str(&stream), step, purse, step & 1, &some);
        const char *what = events_differ(&some, &each);
        if (what != NULL) {
            size_t at = 0, both = MIN(some.out.len, each.out.len);
            while (at < both && some.out.data[at] == each.out.data[at]) at++;
            at -= MIN(at, (size_t)200);
            fail_msg(
                "stream %u, %s%s%s, in reads of %zu bytes: %s, from byte %zu\n%.*s\n--- parsed:"
                "\n%.*s",
                seed, o.vocab != NULL ? "counted" : "estimated",
                o.limit != METER_NO_LIMIT ? ", limit" : "", o.reserved ? ", reserved" : "", step,
                what, at, (int)MIN(some.out.len - at, (size_t)500), some.out.data + at,
                (int)MIN(each.out.len - at, (size_t)500), each.out.data + at);
        }
        buf_done(&some.out);
    }
    buf_done(&each.out), buf_done(&stream);
}

static void many(const struct dialect *dialect)
{
    for (uint32_t seed = 1; seed <= 1500; seed++) one_stream(dialect, seed);
}

static void chat(void **state)
{
    (void)state;
    many(&dialect_openai);
}

static void messages(void **state)
{
    (void)state;
    many(&dialect_anthropic);
}

static void responses(void **state)
{
    (void)state;
    many(&dialect_responses);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(chat),
        cmocka_unit_test(messages),
        cmocka_unit_test(responses),
    };
    return cmocka_run_group_tests(tests, vocab_load, vocab_unload);
}
