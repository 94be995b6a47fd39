/* SPDX-License-Identifier: Apache-2.0 */
/* Events that are alike, and then are not: in any pieces the same comes out as byte by byte, where
 * each event is parsed. */
#include <stdio.h>
#include <stdlib.h>

#include "tests/unit/edge/support_events.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct buf stream;
    if (size < 5 || size > 4096) return 0;
    struct answer_options o = {
        .dialect = data[0] & 1    ? &dialect_anthropic
                   : data[0] & 16 ? &dialect_responses
                                  : &dialect_openai,
        .limit = data[0] & 2 ? data[1] : METER_NO_LIMIT,
        .hide_usage = data[0] & 4,
        .want_usage = data[0] & 8,
        .reserved = data[0] & 32,
    };
    struct events_purse purse = { data[2], data[3] * 4u, 16 };
    struct dice d = { data + 5, size - 5 };
    struct events_result whole, some, each;
    buf_init(&stream, 1 << 20);
    events_make(o.dialect, &d, &stream);
    events_pass(o, buf_str(&stream), SIZE_MAX, purse, data[0] & 64, &whole);
    events_pass(o, buf_str(&stream), 1 + data[4] * 8u, purse, data[0] & 128, &some);
    events_pass(o, buf_str(&stream), 1, purse, false, &each);
    const char *what = events_differ(&whole, &each);
    if (what == NULL) what = events_differ(&some, &each);
    if (what != NULL) {
        fprintf(stderr, "%s\n", what);
        abort();
    }
    buf_done(&whole.out), buf_done(&some.out), buf_done(&each.out), buf_done(&stream);
    return 0;
}
