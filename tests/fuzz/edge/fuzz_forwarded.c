/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as a Forwarded field: no crash; what is read lies within, and what a client writes in
 * front of a proxy's own element can keep that from being read, but never change it. */
#include <stdlib.h>

#include "services/edge/net/forwarded.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void check(bool ok)
{
    if (!ok) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static const char own[] = ", for=\"[2001:db8::1]:80\";proto=https";
    struct str of[FORWARDED_MAX], again[FORWARDED_MAX];
    size_t count, both;
    char *field = malloc(n + sizeof own);
    if (field == NULL) return 0;
    memcpy(field, data, n);
    bool good = forwarded_parse(str_n(field, n), of, &count);
    if (good) {
        check(count > 0 && count <= FORWARDED_MAX);
        for (size_t i = 0; i < count; i++)
            check(of[i].p == NULL || (of[i].p >= field && of[i].p + of[i].n <= field + n));
    }
    memcpy(field + n, own, sizeof own);
    if (forwarded_parse(str_n(field, n + sizeof own - 1), again, &both)) {
        check(good && both == count + 1);
        check(str_eqz(again[both - 1], "[2001:db8::1]:80"));
    }
    free(field);
    return 0;
}
