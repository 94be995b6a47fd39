/* SPDX-License-Identifier: Apache-2.0 */
#include "http/proxy.h"

#include <arpa/inet.h>

#include "base/hash.h"

static const char signature[12] = { '\r', '\n', '\r', '\n', '\0', '\r',
                                    '\n', 'Q',  'U',  'I',  'T',  '\n' };

enum {
    V1_MAX = 107, /* with its CRLF */
    V2_HEAD = 16,
    V2_LOCAL = 0x20,
    V2_PROXY = 0x21,
    V2_TCP4 = 0x11,
    V2_TCP6 = 0x21,
    V2_UNSPEC = 0x00,
    V2_UNIX = 0x31,
    TLV_CRC32C = 0x03
};

static enum proxy_status bad(const char **ret_why, const char *why)
{
    *ret_why = why;
    return PROXY_BAD;
}

/* --- version 1 --- */

static bool parse_port(struct str s, uint16_t *ret)
{
    uint64_t port;
    if (s.n == 0 || s.n > 5 || (s.n > 1 && s.p[0] == '0')) return false;
    if (str_to_u64(s, &port) != ERR_OK || port > 65535) return false;
    *ret = (uint16_t)port;
    return true;
}

static bool parse_address(struct str s, bool v4, unsigned char out[16])
{
    char text[INET6_ADDRSTRLEN];
    return s.n > 0 && memchr(s.p, '\0', s.n) == NULL && str_copyz(text, sizeof text, s) &&
           inet_pton(v4 ? AF_INET : AF_INET6, text, out) == 1;
}

static enum proxy_status parse_line(struct str line, struct proxy_header *h, const char **ret_why)
{
    unsigned char destination[16];
    uint16_t port;
    struct str rest = line;
    struct str word = str_cut(&rest, ' '), family = str_cut(&rest, ' ');
    if (!str_eqz(word, "PROXY")) return bad(ret_why, "not a PROXY header");
    if (str_eqz(family, "UNKNOWN")) return PROXY_DONE; /* what follows is to be ignored */
    h->v4 = str_eqz(family, "TCP4");
    if (!h->v4 && !str_eqz(family, "TCP6")) return bad(ret_why, "neither TCP4, TCP6 nor UNKNOWN");
    struct str from = str_cut(&rest, ' '), to = str_cut(&rest, ' '),
               from_port = str_cut(&rest, ' ');
    if (!parse_address(from, h->v4, h->source) || !parse_address(to, h->v4, destination))
        return bad(ret_why, "an address is none");
    if (!parse_port(from_port, &h->port) || !parse_port(rest, &port))
        return bad(ret_why, "a port is none");
    h->has_source = true;
    return PROXY_DONE;
}

static enum proxy_status parse_v1(const char *buf, size_t n, struct proxy_header *h,
                                  const char **ret_why)
{
    const char *cr = memchr(buf, '\r', MIN(n, (size_t)V1_MAX));
    if (memchr(buf, '\n', cr != NULL ? (size_t)(cr - buf) : MIN(n, (size_t)V1_MAX)) != NULL)
        return bad(ret_why, "a line feed without carriage return");
    if (cr == NULL) return n < V1_MAX ? PROXY_MORE : bad(ret_why, "the line is too long");
    size_t len = (size_t)(cr - buf);
    if (len + 2 > V1_MAX) return bad(ret_why, "the line is too long");
    if (n < len + 2) return PROXY_MORE;
    if (cr[1] != '\n') return bad(ret_why, "a carriage return without line feed");
    h->len = len + 2;
    return parse_line(str_n(buf, len), h, ret_why);
}

/* --- version 2 --- */

static uint32_t big16(const unsigned char *p)
{
    return (uint32_t)p[0] << 8 | p[1];
}

/* Of the whole header with the checksum's own bytes as zeros. */
static bool sum_is_right(const unsigned char *buf, size_t n, size_t at)
{
    static const char zeros[4];
    uint32_t want = big16(buf + at) << 16 | big16(buf + at + 2);
    uint32_t sum = hash_crc32c(0, buf, at);
    sum = hash_crc32c(sum, zeros, sizeof zeros);
    return hash_crc32c(sum, buf + at + 4, n - at - 4) == want;
}

/* Type, length and value of each; only a checksum is looked at. */
static const char *check_tlvs(const unsigned char *buf, size_t n, size_t at)
{
    while (at < n) {
        if (n - at < 3) return "a field is cut off";
        unsigned char type = buf[at];
        size_t len = big16(buf + at + 1);
        at += 3;
        if (len > n - at) return "a field is longer than the header";
        if (type == TLV_CRC32C && (len != 4 || !sum_is_right(buf, n, at)))
            return "the checksum does not fit";
        at += len;
    }
    return NULL;
}

static enum proxy_status parse_v2(const unsigned char *buf, size_t n, struct proxy_header *h,
                                  const char **ret_why)
{
    if (n < V2_HEAD) return PROXY_MORE;
    if (buf[12] != V2_LOCAL && buf[12] != V2_PROXY)
        return bad(ret_why, "neither a LOCAL nor a PROXY command of version 2");
    size_t len = V2_HEAD + big16(buf + 14), fields = V2_HEAD;
    if (len > PROXY_MAX) return bad(ret_why, "the header is too long");
    if (n < len) return PROXY_MORE;
    h->len = len;
    if (buf[12] == V2_LOCAL) return PROXY_DONE; /* its addresses are to be ignored */
    h->v4 = buf[13] == V2_TCP4;
    if (buf[13] == V2_TCP4 || buf[13] == V2_TCP6) {
        size_t size = h->v4 ? 4 : 16;
        fields = V2_HEAD + 2 * size + 4;
        if (len < fields) return bad(ret_why, "the addresses are cut off");
        memcpy(h->source, buf + V2_HEAD, size);
        h->port = (uint16_t)big16(buf + V2_HEAD + 2 * size);
        h->has_source = true;
    } else if (buf[13] == V2_UNIX) {
        fields = V2_HEAD + 216;
        if (len < fields) return bad(ret_why, "the addresses are cut off");
    } else if (buf[13] != V2_UNSPEC) {
        return bad(ret_why, "neither TCP over IPv4 nor over IPv6");
    }
    const char *why = check_tlvs(buf, len, fields);
    return why == NULL ? PROXY_DONE : bad(ret_why, why);
}

enum proxy_status proxy_parse(const char *buf, size_t n, struct proxy_header *ret,
                              const char **ret_why)
{
    struct proxy_header h = { 0 };
    enum proxy_status st;
    if (n == 0) return PROXY_MORE;
    if (memcmp(buf, signature, MIN(n, sizeof signature)) == 0)
        st = n < sizeof signature ? PROXY_MORE
                                  : parse_v2((const unsigned char *)buf, n, &h, ret_why);
    else if (memcmp(buf, "PROXY ", MIN(n, (size_t)6)) == 0)
        st = parse_v1(buf, n, &h, ret_why);
    else
        st = bad(ret_why, "not a PROXY header");
    if (st == PROXY_DONE) *ret = h;
    return st;
}
