/* SPDX-License-Identifier: Apache-2.0 */
/* A port of the loopback that nobody listens on, for a server of a test. Not one of those that
 * connections going out get: a client that keeps trying a server which is just not running could be
 * given its port, and be connected to itself. */
#ifndef TESTS_SUPPORT_PORT_H
#define TESTS_SUPPORT_PORT_H

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"

static inline uint16_t support_free_port(void)
{
    enum { FIRST = 10240 };
    unsigned end = 32768;
    FILE *f = fopen("/proc/sys/net/ipv4/ip_local_port_range", "re");
    if (f != NULL && (fscanf(f, "%u", &end) != 1 || end < FIRST + 2000)) end = 32768;
    if (f != NULL) fclose(f);
    for (;;) {
        uint16_t port = (uint16_t)(FIRST + rng_below(rng_system(), end - FIRST));
        struct sockaddr_in a = { .sin_family = AF_INET,
                                 .sin_port = htons(port),
                                 .sin_addr = { htonl(INADDR_LOOPBACK) } };
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        ASSERT(fd >= 0);
        int rc = bind(fd, (struct sockaddr *)&a, sizeof a);
        close(fd);
        if (rc == 0) return port;
    }
}

#endif
