/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The TLS contexts of the edge: the listener's certificate, and what each upstream is spoken to
 * with. Files are looked at again when certs_check() says so, so that a renewed certificate is
 * taken without a restart. Any thread; one lock inside.
 */
#ifndef EDGE_CERTS_H
#define EDGE_CERTS_H

#include "proto/snapshot.h"
#include "rt/tls.h"

struct certs;

/* The listener's files; both NULL or "": it speaks plain HTTP. ERR_INVALID with why. */
enum err certs_new(const char *cert_file, const char *key_file, struct certs **ret,
                   struct why *why) MUSTCHECK;
void certs_free(struct certs *c); /* NULL is fine */

/* The listener's context as a reference of the caller, or NULL: plain. */
struct tls_context *certs_listener(struct certs *c);
/* The context for the https servers of an upstream, as a reference of the caller; upstreams with
 * the same files share one. ERR_INVALID with why. */
enum err certs_upstream(struct certs *c, const struct snap_upstream *u, struct tls_context **ret,
                        struct why *why) MUSTCHECK;

enum certs_change {
    CERTS_SAME,
    CERTS_LISTENER = 1,  /* the listener's was taken */
    CERTS_UPSTREAMS = 2, /* files of upstreams changed: ask certs_upstream() again */
    CERTS_BAD = 4 /* the listener's changed and cannot be used: the old one stays; why says more */
};
/* Looks whether files have changed; a set of the above. */
unsigned certs_check(struct certs *c, struct why *why);

#endif
