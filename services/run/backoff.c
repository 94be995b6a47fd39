/* SPDX-License-Identifier: Apache-2.0 */
#include "backoff.h"

#include "base/err.h"

uint64_t backoff_died(struct backoff *b, uint64_t lived_ms)
{
    if (b->delay_ms == 0 || lived_ms >= BACKOFF_HEALTHY_MS)
        b->delay_ms = BACKOFF_FIRST_MS;
    else
        b->delay_ms = MIN(2 * b->delay_ms, (uint64_t)BACKOFF_MAX_MS);
    return b->delay_ms;
}
