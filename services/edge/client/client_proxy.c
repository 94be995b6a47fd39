/* SPDX-License-Identifier: Apache-2.0 */
#include "client_proxy.h"

#include <netinet/in.h>

#include "http/proxy.h"
#include "net/address.h"

static enum err peer_of(const struct client *c, struct sockaddr_storage *ret)
{
    const struct address_networks *trusted = &c->w->edge->trusted_proxies;
    unsigned char address[16];
    socklen_t len = sizeof *ret;
    if (getpeername(c->conn.fd, (struct sockaddr *)ret, &len) != 0) return ERR_IO;
    if (trusted->n == 0) return ERR_OK;
    return address_of_socket(ret, address) && address_is_in(trusted, address) ? ERR_OK : ERR_DENIED;
}

static void take_source(const struct proxy_header *h, struct sockaddr_storage *out)
{
    memset(out, 0, sizeof *out);
    if (h->v4) {
        struct sockaddr_in *a = (void *)out;
        a->sin_family = AF_INET;
        a->sin_port = htons(h->port);
        memcpy(&a->sin_addr, h->source, 4);
    } else {
        struct sockaddr_in6 *a = (void *)out;
        a->sin6_family = AF_INET6;
        a->sin6_port = htons(h->port);
        memcpy(&a->sin6_addr, h->source, 16);
    }
}

/* What was taken so far is in c->in: all of it belongs to the header. */
static enum err read_header(struct client *c, struct proxy_header *h)
{
    for (;;) {
        char *room;
        const char *why;
        size_t had = c->in.len, n;
        enum err e = buf_reserve(&c->in, PROXY_MAX, &room);
        if (e != ERR_OK) return e;
        e = conn_peek(&c->conn, room, PROXY_MAX - MIN(had, (size_t)PROXY_MAX - 1), &n);
        if (e != ERR_OK) return e;
        enum proxy_status st = proxy_parse(c->in.data, had + n, h, &why);
        if (st == PROXY_BAD) return ERR_INVALID;
        size_t take = st == PROXY_DONE ? h->len - had : n;
        e = conn_read(&c->conn, room, take, &n);
        if (e != ERR_OK) return e;
        c->in.len += n;
        if (st == PROXY_DONE) return n == take ? ERR_OK : ERR_IO;
    }
}

enum err client_proxy_read(struct client *c)
{
    struct sockaddr_storage from, before;
    struct proxy_header h;
    enum err e = peer_of(c, &from);
    if (e == ERR_OK) e = read_header(c, &h);
    if (e != ERR_OK) return e;
    if (h.has_source) take_source(&h, &from);
    buf_done(&c->in);
    /* It counts for its own address from now on. */
    if (c->verdict == GUARD_IN) {
        client_address(c, &before);
        guard_leave(c->w->edge->guard, GUARD_IN, &before);
        c->verdict = guard_enter(c->w->edge->guard, &from);
    }
    client_set_address(c, &from);
    return ERR_OK;
}
