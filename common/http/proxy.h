/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The PROXY protocol, versions 1 (a line) and 2 (binary): what a load balancer writes in front of a
 * connection, before TLS, to tell whose it is. Strict: what is not exactly a header is refused.
 * Pure.
 */
#ifndef HTTP_PROXY_H
#define HTTP_PROXY_H

#include "base/str.h"

enum proxy_status {
    PROXY_MORE, /* all bytes so far belong to the header, and it goes on */
    PROXY_DONE,
    PROXY_BAD
};

enum { PROXY_MAX = 16 + 2048 }; /* bytes of a header that is taken */

struct proxy_header {
    size_t len;      /* bytes of it; what follows is the connection's own */
    bool has_source; /* else it speaks for itself, or does not tell */
    bool v4;
    unsigned char source[16]; /* of IPv4 the first 4 */
    uint16_t port;
};

/* Reads the header at the beginning of buf. Of PROXY_BAD *ret_why is a static sentence. */
enum proxy_status proxy_parse(const char *buf, size_t n, struct proxy_header *ret,
                              const char **ret_why);

#endif
