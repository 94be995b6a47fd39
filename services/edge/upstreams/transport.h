/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How the servers of an upstream with `transport: curl` are spoken to, ready for use: files,
 * HTTP version, egress proxy with its password in clear. Immutable, reference counted, any thread.
 */
#ifndef EDGE_TRANSPORT_H
#define EDGE_TRANSPORT_H

#include "proto/snapshot.h"
#include "rt/crypto.h"

struct tls_context;

struct transport {
    char id[SHA256_HEX_LEN + 1]; /* equal when everything is: connections are kept by it */
    enum snap_http http;
    unsigned max_streams;
    enum snap_proxy_kind proxy_kind;
    char *proxy, *proxy_host, *proxy_user, *proxy_password, *proxy_ca_file; /* NULL: none */
    uint16_t proxy_port;
    char *ca_file, *cert_file, *key_file, *server_name; /* of https servers; NULL: none */
    struct tls_context *tls; /* stands for what the files hold; NULL: no server has https */
    _Atomic unsigned refs;
};

/* *ret NULL: the upstream's transport is direct. ERR_INVALID with why: its password does not open.
 */
enum err transport_new(const struct snap_upstream *u, const unsigned char master_key[32],
                       struct tls_context *tls, struct transport **ret, struct why *why) MUSTCHECK;
struct transport *transport_ref(struct transport *t);
void transport_unref(struct transport *t); /* NULL is fine */

#endif
