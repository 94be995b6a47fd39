/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as a chunked body: no crash, and the same body and verdict in one part as in two. The
 * first byte says where to cut. */
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "http/chunked.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct result {
    enum chunked_status status;
    uint64_t body;
    uint32_t sum;
    size_t used;
};

static struct result run(const char *text, size_t n, size_t cut)
{
    struct chunked c = { 0 };
    struct result r = { .status = CHUNKED_MORE };
    size_t ends[2] = { cut, n }, from = 0;
    for (int i = 0; i < 2 && r.status == CHUNKED_MORE; i++) {
        struct str in = { text + from, ends[i] - from }, piece;
        while ((r.status = chunked_decode(&c, &in, &piece)) == CHUNKED_DATA) {
            if (piece.n == 0) abort();
            r.sum = hash_crc32c(r.sum, piece.p, piece.n);
        }
        r.used = ends[i] - in.n;
        from = ends[i];
    }
    r.body = c.body;
    return r;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1) return 0;
    const char *text = (const char *)data + 1;
    size_t n = size - 1;
    struct result a = run(text, n, n), b = run(text, n, data[0] % (n + 1));
    if (a.status != b.status || a.body != b.body || a.sum != b.sum || a.used != b.used) abort();
    return 0;
}
