/* SPDX-License-Identifier: Apache-2.0 */
/* Connections that begin with a PROXY header: whose they are. On the connection's worker. */
#ifndef EDGE_CLIENT_PROXY_H
#define EDGE_CLIENT_PROXY_H

#include "client.h"

/* Reads the header, and not a byte behind it, which may be TLS. ERR_OK: its address is the
 * client's, and c->verdict what the guard says of it. ERR_AGAIN: more has to come. ERR_INVALID: it
 * is none; ERR_DENIED: the peer is not trusted to send one; ERR_CLOSED, ERR_IO, ERR_NOMEM. */
enum err client_proxy_read(struct client *c) MUSTCHECK;

#endif
