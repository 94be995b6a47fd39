/* SPDX-License-Identifier: Apache-2.0 */
/* A port of the loopback for a server of a test, which may come, go and come again on it.
 *
 * Nobody listens on it, and no other test gets it while this program runs: whoever chooses a port
 * keeps a socket whose name in the abstract namespace has its number, as the end-to-end tests do
 * (tests/e2e/lib/util.mjs). It is not one of those that connections going out get either: a client
 * that keeps trying a server which is just not running could be given its port, and be connected to
 * itself. */
#ifndef TESTS_SUPPORT_PORT_H
#define TESTS_SUPPORT_PORT_H

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"

/* Whether it is ours until the program ends: nobody else has that name. */
static inline bool support_claim_port(uint16_t port)
{
    struct sockaddr_un a = { .sun_family = AF_UNIX };
    int n = snprintf(a.sun_path + 1, sizeof a.sun_path - 1, "aigw-test-port-%u", port);
    socklen_t len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)n);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ASSERT(fd >= 0);
    if (bind(fd, (struct sockaddr *)&a, len) == 0) return true;
    close(fd);
    return false;
}

static inline bool support_port_is_free(uint16_t port)
{
    struct sockaddr_in a = { .sin_family = AF_INET,
                             .sin_port = htons(port),
                             .sin_addr = { htonl(INADDR_LOOPBACK) } };
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ASSERT(fd >= 0);
    int rc = bind(fd, (struct sockaddr *)&a, sizeof a);
    close(fd);
    return rc == 0;
}

static inline uint16_t support_free_port(void)
{
    enum { FIRST = 10240 };
    unsigned end = 32768;
    FILE *f = fopen("/proc/sys/net/ipv4/ip_local_port_range", "re");
    if (f != NULL && (fscanf(f, "%u", &end) != 1 || end < FIRST + 2000)) end = 32768;
    if (f != NULL) fclose(f);
    for (;;) {
        uint16_t port = (uint16_t)(FIRST + rng_below(rng_system(), end - FIRST));
        if (support_claim_port(port) && support_port_is_free(port)) return port;
    }
}

#endif
