/* SPDX-License-Identifier: Apache-2.0 */
/* A stream from an upstream, split where the first bytes say: never a crash, and the same output as
 * in one piece. */
#include <stdlib.h>

#include "services/edge/dialects/answer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void pass(const struct answer_options *o, struct str stream, size_t step, struct buf *out)
{
    struct answer *a = answer_new(o);
    enum err e = ERR_OK;
    buf_init(out, 1 << 22);
    while (stream.n > 0 && e == ERR_OK) {
        size_t n = MIN(step, stream.n);
        e = answer_feed(a, str_n(stream.p, n), out);
        stream.p += n, stream.n -= n;
    }
    if (e == ERR_OK) e = answer_end(a, out);
    if (e != ERR_OK) buf_clear(out); /* a bound was passed: where depends on the split */
    answer_free(a);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct buf whole, split, body;
    if (size < 3) return 0;
    struct answer_options o = {
        .dialect = data[0] & 1    ? &dialect_anthropic
                   : data[0] & 16 ? &dialect_responses
                                  : &dialect_openai,
        .limit = data[0] & 2 ? data[1] : METER_NO_LIMIT,
        .hide_usage = data[0] & 4,
        .want_usage = data[0] & 8,
    };
    struct str stream = str_n((const char *)data + 3, size - 3);
    pass(&o, stream, SIZE_MAX, &whole);
    pass(&o, stream, 1 + data[2], &split);
    if (whole.len > 0 && split.len > 0 && !str_eq(buf_str(&whole), buf_str(&split))) abort();
    struct answer *a = answer_new(&o);
    buf_init(&body, 1 << 22);
    struct str passed = STR("");
    if (answer_whole(a, stream, &body, &passed) == ERR_OK && passed.p != stream.p &&
        !str_eq(passed, buf_str(&body)))
        abort();
    answer_free(a);
    buf_done(&whole), buf_done(&split), buf_done(&body);
    return 0;
}
