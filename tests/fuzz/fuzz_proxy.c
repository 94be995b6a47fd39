/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as a PROXY header: no crash; what is whole is not read otherwise when it comes in
 * parts; never more than its bound. */
#include <stdlib.h>

#include "http/proxy.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void check(bool ok)
{
    if (!ok) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct proxy_header whole, part;
    const char *why = NULL;
    /* The bytes stand alone, so that a sanitizer sees what reads beyond them. */
    char *buf = malloc(n + 1);
    if (buf == NULL) return 0;
    memcpy(buf, data, n);
    enum proxy_status st = proxy_parse(buf, n, &whole, &why), earlier;
    if (st == PROXY_BAD) check(why != NULL);
    if (st == PROXY_MORE) check(n < PROXY_MAX);
    if (st == PROXY_DONE) {
        check(whole.len <= n && whole.len <= PROXY_MAX);
        for (size_t i = 0; i < whole.len; i++) {
            earlier = proxy_parse(buf, i, &part, &why);
            check(earlier == PROXY_MORE);
        }
        check(proxy_parse(buf, whole.len, &part, &why) == PROXY_DONE && part.len == whole.len);
    }
    free(buf);
    return 0;
}
