/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as a traceparent, and as the fraction of an access log: no crash; what is taken is
 * written as something that is taken again. */
#include <stdlib.h>

#include "services/edge/records/access_log.h"
#include "services/edge/records/trace.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void check(bool ok)
{
    if (!ok) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct trace t, again;
    unsigned sample;
    char out[TRACE_PARENT_LEN + 1], *text = malloc(n + 1);
    if (text == NULL) return 0;
    memcpy(text, data, n);
    if (trace_take(str_n(text, n), rng_system(), &t)) {
        trace_write(&t, out);
        check(trace_take(str_of(out), rng_system(), &again));
        check(strcmp(again.id, t.id) == 0 && strcmp(again.parent, t.span) == 0);
    }
    if (access_log_parse_sample(str_n(text, n), &sample) == ERR_OK) check(sample <= 10000);
    free(text);
    return 0;
}
