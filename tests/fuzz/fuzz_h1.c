/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as a request and as a response head: no crash, and the same verdict whether they come
 * at once or in two parts. The first byte says where to cut. */
#include <stdlib.h>

#include "http/h1.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool ok)
{
    if (!ok) abort();
}

static void inside(const char *buf, size_t n, struct str s)
{
    check(s.n == 0 || (s.p >= buf && s.p + s.n <= buf + n));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct h1_request a, b;
    static struct h1_response ra, rb;
    const struct h1_limits limits = { .head = 2048, .line = 512, .headers = 20 };
    struct h1_error ea, eb;
    if (size < 1) return 0;
    const char *text = (const char *)data + 1;
    size_t n = size - 1, cut = data[0] % (n + 1);

    h1_begin(&a.head);
    h1_begin(&b.head);
    enum h1_status sa = h1_parse_request(text, n, &limits, &a, &ea);
    enum h1_status sb = h1_parse_request(text, cut, &limits, &b, &eb);
    if (sb == H1_MORE) sb = h1_parse_request(text, n, &limits, &b, &eb);
    check(sa == sb);
    if (sa == H1_DONE) {
        check(a.head.len == b.head.len && a.head.len <= n && a.head.fields_len <= 20);
        check(a.head.framing == b.head.framing && a.head.framing != H1_BODY_CLOSE);
        inside(text, a.head.len, a.target);
        inside(text, a.head.len, a.query);
        inside(text, a.head.len, a.host);
        check(a.path.n > 0 && (a.path.p[0] == '/' || a.path.p[0] == '*'));
        check(a.host.n > 0 || a.head.version_minor == 0);
        for (size_t i = 0; i < a.head.fields_len; i++) {
            inside(text, a.head.len, a.head.fields[i].value);
            check(h1_is_token(a.head.fields[i].name));
            check(h1_is_field_value(a.head.fields[i].value));
        }
    }

    h1_begin(&ra.head);
    h1_begin(&rb.head);
    sa = h1_parse_response(text, n, &limits, data[0] & 1, &ra, &ea);
    sb = h1_parse_response(text, cut, &limits, data[0] & 1, &rb, &eb);
    if (sb == H1_MORE) sb = h1_parse_response(text, n, &limits, data[0] & 1, &rb, &eb);
    check(sa == sb);
    if (sa == H1_DONE) check(ra.head.framing == rb.head.framing && ra.status == rb.status);
    return 0;
}
