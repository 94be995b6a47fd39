/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The least that a proxy can do, as a measure for others in `make bench`: what comes from a client
 * goes to a connection of its own to the upstream, and back, unread. One thread. What is left of a
 * proxy's cost when this is taken away is what it does. Usage: relay PORT UPSTREAM_PORT
 */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BATCH = 256, AT_ONCE = 64 * 1024 };

/* One direction; the other one is its peer. */
struct side {
    int fd;
    bool gone;
    struct side *peer;
};

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static struct sockaddr_in loopback(const char *port)
{
    return (struct sockaddr_in){ .sin_family = AF_INET,
                                 .sin_port = htons((uint16_t)strtoul(port, NULL, 10)),
                                 .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
}

static void watch(int ep, struct side *s)
{
    struct epoll_event ev = { .events = EPOLLIN | EPOLLRDHUP | EPOLLET, .data.ptr = s };
    int one = 1;
    (void)setsockopt(s->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (epoll_ctl(ep, EPOLL_CTL_ADD, s->fd, &ev) != 0) die("epoll_ctl");
}

static void open_pair(int ep, int client, const struct sockaddr_in *upstream)
{
    struct side *pair = calloc(2, sizeof *pair);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (pair == NULL || fd < 0) die("socket");
    if (connect(fd, (const struct sockaddr *)upstream, sizeof *upstream) != 0) die("connect");
    pair[0] = (struct side){ client, false, &pair[1] };
    pair[1] = (struct side){ fd, false, &pair[0] };
    watch(ep, &pair[0]);
    watch(ep, &pair[1]);
}

/* Waits where the socket takes no more: nothing that is measured gets there. */
static bool send_all(int fd, const char *p, size_t n)
{
    while (n > 0) {
        ssize_t sent = send(fd, p, n, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0 && errno == EAGAIN) {
            struct pollfd w = { .fd = fd, .events = POLLOUT };
            (void)poll(&w, 1, 1000);
            continue;
        }
        if (sent < 0) return false;
        p += sent, n -= (size_t)sent;
    }
    return true;
}

/* Both ends go; the memory of the few pairs there are stays, since events may still name it. */
static void end(struct side *s)
{
    if (s->gone) return;
    s->gone = s->peer->gone = true;
    close(s->fd);
    close(s->peer->fd);
}

/* What is less than was asked for is all there is, unless the end is behind it. */
static void pass_on(struct side *s, bool ended)
{
    static char bytes[AT_ONCE];
    while (!s->gone) {
        ssize_t n = recv(s->fd, bytes, sizeof bytes, MSG_DONTWAIT);
        if (n < 0 && errno == EAGAIN) return;
        if (n <= 0 || !send_all(s->peer->fd, bytes, (size_t)n))
            end(s);
        else if ((size_t)n < sizeof bytes && !ended)
            return;
    }
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "usage: relay PORT UPSTREAM_PORT\n");
        return 2;
    }
    struct sockaddr_in here = loopback(argv[1]), upstream = loopback(argv[2]);
    int ep = epoll_create1(EPOLL_CLOEXEC), one = 1;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    (void)setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&here, sizeof here) != 0) die("bind");
    if (listen(listener, 4096) != 0) die("listen");
    struct epoll_event ev = { .events = EPOLLIN, .data.ptr = NULL }, events[BATCH];
    if (epoll_ctl(ep, EPOLL_CTL_ADD, listener, &ev) != 0) die("epoll_ctl");
    for (;;) {
        int n = epoll_wait(ep, events, BATCH, -1);
        for (int i = 0; i < n; i++) {
            if (events[i].data.ptr != NULL) {
                pass_on(events[i].data.ptr, (events[i].events & EPOLLRDHUP) != 0);
                continue;
            }
            for (int fd; (fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC)) >= 0;)
                open_pair(ep, fd, &upstream);
        }
    }
}
