/* SPDX-License-Identifier: Apache-2.0 */
/* Heads of answers that ask to be left alone: whatever they say, a day is the most. */
#include <stddef.h>
#include <stdint.h>

#include "services/edge/upstreams/cooldown.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static const struct h1_limits limits = H1_LIMITS_DEFAULT;
    static struct h1_response res;
    struct h1_error why;
    h1_begin(&res.head);
    if (h1_parse_response((const char *)data, n, &limits, false, &res, &why) != H1_DONE) return 0;
    ASSERT(cooldown_of(&res, UINT64_C(1767225600000)) <= 86400000);
    ASSERT(cooldown_retry_after_s(&res, UINT64_C(1767225600000)) <= 86400);
    return 0;
}
