/* SPDX-License-Identifier: Apache-2.0 */
/* A compiled time zone from anywhere: refused, or its windows hold the moment and follow each
 * other. */
#include <stddef.h>
#include <stdint.h>

#include "base/zone.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static const int64_t moments[] = { 0, 951782400, 1774746000, 1793062800, 4102444800, -1 };
    struct zone *z;
    if (n > ZONE_FILE_MAX || zone_parse(data, n, &z) != ERR_OK) return 0;
    for (size_t i = 0; i < ARRAY_LEN(moments); i++)
        for (int p = ZONE_HOUR; p <= ZONE_MONTH; p++) {
            int64_t begin, end, begin2, end2;
            zone_window(z, (enum zone_period)p, moments[i], &begin, &end);
            ASSERT(begin <= moments[i] && moments[i] < end);
            zone_window(z, (enum zone_period)p, end, &begin2, &end2);
            ASSERT(begin2 <= end && end < end2);
        }
    zone_free(z);
    return 0;
}
