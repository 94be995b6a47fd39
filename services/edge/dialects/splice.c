/* SPDX-License-Identifier: Apache-2.0 */
/* See the header; any thread. */
#include "splice.h"

#include <stdlib.h>

static int by_place(const void *x, const void *y)
{
    const struct splice *a = x, *b = y;
    return (a->at > b->at) - (a->at < b->at);
}

enum err splice_apply(struct str text, struct splice *s, size_t n, struct buf *out)
{
    const char *p = text.p, *end = text.p + text.n;
    size_t start = out->len;
    enum err e = ERR_OK;
    if (n > 0) qsort(s, n, sizeof *s, by_place);
    for (size_t i = 0; i < n && e == ERR_OK; i++) {
        if (s[i].at < p || s[i].at > end || s[i].del > (size_t)(end - s[i].at)) {
            e = ERR_INVALID;
            break;
        }
        e = buf_append(out, p, (size_t)(s[i].at - p));
        if (e == ERR_OK) e = buf_append_str(out, s[i].ins);
        p = s[i].at + s[i].del;
    }
    if (e == ERR_OK) e = buf_append(out, p, (size_t)(end - p));
    if (e != ERR_OK) out->len = start;
    return e;
}
