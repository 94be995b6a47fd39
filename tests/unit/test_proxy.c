/* SPDX-License-Identifier: Apache-2.0 */
/* What load balancers write in front of a connection, and what is none of it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <arpa/inet.h>
#include <cmocka.h>

#include "base/hash.h"
#include "http/proxy.h"

static void lines_of_version_1(void **state)
{
    static const struct {
        const char *line, *source; /* NULL: none is told */
        uint16_t port;
    } good[] = {
        { "PROXY TCP4 203.0.113.7 192.0.2.1 51000 443\r\n", "203.0.113.7", 51000 },
        { "PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n", "255.255.255.255", 65535 },
        { "PROXY TCP6 2001:db8::7 ::1 1 0\r\n", "2001:db8::7", 1 },
        { "PROXY UNKNOWN\r\n", NULL, 0 },
        { "PROXY UNKNOWN ffff::1 whatever 1 2\r\n", NULL, 0 },
    };
    static const char *const bad[] = {
        "GET / HTTP/1.1\r\n",
        "PROXY TCP4 203.0.113.7 192.0.2.1 51000 443\n",
        "PROXY TCP4 203.0.113.7 192.0.2.1 51000 443\r\r\n",
        "PROXY  TCP4 203.0.113.7 192.0.2.1 51000 443\r\n",
        "PROXY TCP4 203.0.113.7 192.0.2.1 51000 443 \r\n",
        "PROXY TCP4 203.0.113.7 192.0.2.1 51000\r\n",
        "PROXY TCP4 203.0.113.7 192.0.2.1 051000 443\r\n",
        "PROXY TCP4 203.0.113.7 192.0.2.1 65536 443\r\n",
        "PROXY TCP4 203.0.113.7 192.0.2.1 -1 443\r\n",
        "PROXY TCP4 203.0.113.07 192.0.2.1 1 443\r\n",
        "PROXY TCP4 203.0.113 192.0.2.1 1 443\r\n",
        "PROXY TCP4 ::1 ::1 1 443\r\n",
        "PROXY TCP6 203.0.113.7 192.0.2.1 1 443\r\n",
        "PROXY TCP6 fe80::1%eth0 ::1 1 443\r\n",
        "PROXY TCP5 203.0.113.7 192.0.2.1 1 443\r\n",
        "proxy TCP4 203.0.113.7 192.0.2.1 1 443\r\n",
        "PROXY UNKNOWN aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
        "aaaaaaaaaaaaaaaaa\r\n",
    };
    struct proxy_header h;
    const char *why;
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(good); i++) {
        char text[INET6_ADDRSTRLEN];
        size_t n = strlen(good[i].line);
        for (size_t cut = 0; cut < n; cut++)
            assert_int_equal(proxy_parse(good[i].line, cut, &h, &why), PROXY_MORE);
        assert_int_equal(proxy_parse(good[i].line, n, &h, &why), PROXY_DONE);
        assert_int_equal(h.len, n);
        assert_int_equal(h.has_source, good[i].source != NULL);
        if (!h.has_source) continue;
        assert_non_null(inet_ntop(h.v4 ? AF_INET : AF_INET6, h.source, text, sizeof text));
        assert_string_equal(text, good[i].source);
        assert_int_equal(h.port, good[i].port);
    }
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        if (proxy_parse(bad[i], strlen(bad[i]), &h, &why) != PROXY_BAD) fail_msg("%s", bad[i]);
}

/* A header of version 2: command, family, then the rest. */
static size_t header(char *out, int command, int family, const char *rest, size_t n)
{
    memcpy(out, "\r\n\r\n\0\r\nQUIT\n", 12);
    out[12] = (char)command;
    out[13] = (char)family;
    out[14] = (char)(n >> 8);
    out[15] = (char)n;
    memcpy(out + 16, rest, n);
    return 16 + n;
}

static void headers_of_version_2(void **state)
{
    static const char v4[] = "\xcb\x00\x71\x07\xc0\x00\x02\x01\xc7\x38\x01\xbb",
                      tlv[] = "\xcb\x00\x71\x07\xc0\x00\x02\x01\xc7\x38\x01\xbb\x04\x00\x02xx",
                      cut[] = "\xcb\x00\x71\x07\xc0\x00\x02\x01\xc7\x38\x01\xbb\x04\x00\x05xx";
    char buf[4096], big[3000] = { 0 };
    struct proxy_header h;
    const char *why;
    (void)state;
    size_t n = header(buf, 0x21, 0x11, v4, 12);
    buf[n] = 'G';
    for (size_t i = 0; i < n; i++) assert_int_equal(proxy_parse(buf, i, &h, &why), PROXY_MORE);
    assert_int_equal(proxy_parse(buf, n + 1, &h, &why), PROXY_DONE);
    assert_int_equal(h.len, n);
    assert_true(h.has_source && h.v4);
    assert_memory_equal(h.source, v4, 4);
    assert_int_equal(h.port, 51000);
    n = header(buf, 0x21, 0x11, tlv, sizeof tlv - 1);
    assert_int_equal(proxy_parse(buf, n, &h, &why), PROXY_DONE);
    n = header(buf, 0x21, 0x21, "0123456789abcdef0123456789abcdef\x01\x02\x03\x04", 36);
    assert_int_equal(proxy_parse(buf, n, &h, &why), PROXY_DONE);
    assert_true(h.has_source && !h.v4);
    assert_memory_equal(h.source, "0123456789abcdef", 16);
    assert_int_equal(h.port, 0x102);
    /* Health checks of the balancer itself, and connections of unknown kind. */
    n = header(buf, 0x20, 0x00, "", 0);
    assert_int_equal(proxy_parse(buf, n, &h, &why), PROXY_DONE);
    assert_false(h.has_source);
    n = header(buf, 0x20, 0x11, "junk", 4);
    assert_int_equal(proxy_parse(buf, n, &h, &why), PROXY_DONE);
    n = header(buf, 0x21, 0x00, "", 0);
    assert_int_equal(proxy_parse(buf, n, &h, &why), PROXY_DONE);
    n = header(buf, 0x21, 0x31, big, 216);
    assert_int_equal(proxy_parse(buf, n, &h, &why), PROXY_DONE);
    assert_false(h.has_source);

    n = header(buf, 0x11, 0x11, v4, 12);
    assert_int_equal(proxy_parse(buf, n, &h, &why), PROXY_BAD);
    n = header(buf, 0x22, 0x11, v4, 12);
    assert_int_equal(proxy_parse(buf, n, &h, &why), PROXY_BAD);
    n = header(buf, 0x21, 0x12, v4, 12);
    assert_int_equal(proxy_parse(buf, n, &h, &why), PROXY_BAD);
    n = header(buf, 0x21, 0x11, v4, 11);
    assert_int_equal(proxy_parse(buf, n, &h, &why), PROXY_BAD);
    n = header(buf, 0x21, 0x11, cut, sizeof cut - 1);
    assert_int_equal(proxy_parse(buf, n, &h, &why), PROXY_BAD);
    n = header(buf, 0x21, 0x11, tlv, 14);
    assert_int_equal(proxy_parse(buf, n, &h, &why), PROXY_BAD);
    n = header(buf, 0x21, 0x31, big, 215);
    assert_int_equal(proxy_parse(buf, n, &h, &why), PROXY_BAD);
    n = header(buf, 0x21, 0x11, big, sizeof big);
    assert_int_equal(proxy_parse(buf, 16, &h, &why), PROXY_BAD);
}

static void checksums_are_checked(void **state)
{
    char rest[] = "\xcb\x00\x71\x07\xc0\x00\x02\x01\xc7\x38\x01\xbb\x03\x00\x04\0\0\0\0", buf[64];
    struct proxy_header h;
    const char *why;
    (void)state;
    size_t n = header(buf, 0x21, 0x11, rest, sizeof rest - 1);
    uint32_t sum = hash_crc32c(0, buf, n);
    for (int i = 0; i < 4; i++) buf[n - 4 + (size_t)i] = (char)(sum >> (24 - 8 * i));
    assert_int_equal(proxy_parse(buf, n, &h, &why), PROXY_DONE);
    buf[16] ^= 1;
    assert_int_equal(proxy_parse(buf, n, &h, &why), PROXY_BAD);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines_of_version_1),
        cmocka_unit_test(headers_of_version_2),
        cmocka_unit_test(checksums_are_checked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
