/* SPDX-License-Identifier: Apache-2.0 */
/* Usage records as they come from the bus: no input may crash the decoder, and what it takes comes
 * back the same after encoding. */
#include <stdlib.h>

#include "proto/usage_msg.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct usage_record r, again;
    struct arena arena;
    struct buf b;
    struct why why;
    uint64_t ms;
    if (usage_parse_ts(str_n((const char *)data, n), &ms) == ERR_OK && n > 30) abort();
    arena_init(&arena, 256 * 1024);
    buf_init(&b, USAGE_MAX_BYTES);
    if (usage_decode(str_n((const char *)data, n), &arena, &r, &why) == ERR_OK &&
        usage_encode(&r, &b) == ERR_OK) {
        if (usage_decode(buf_str(&b), &arena, &again, &why) != ERR_OK) abort();
        if (again.ts_ms != r.ts_ms || again.output_tokens != r.output_tokens ||
            again.outcome != r.outcome || again.attempts_n != r.attempts_n ||
            again.cost.nano != r.cost.nano || !str_eq(again.id, r.id))
            abort();
    }
    buf_done(&b);
    arena_done(&arena);
    return 0;
}
