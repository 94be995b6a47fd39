/* SPDX-License-Identifier: Apache-2.0 */
/* A snapshot made ready for requests: policies by namespace, credentials unsealed. Immutable,
 * reference counted, any thread. */
#ifndef EDGE_RULESET_H
#define EDGE_RULESET_H

#include "limits/admit.h"
#include "match.h"
#include "net/certs.h"
#include "proto/snapshot.h"
#include "tokenizer/models/models.h"
#include "upstreams/fleet.h"
#include "upstreams/transport.h"

struct ruleset {
    struct snapshot *snap;
    struct admit_policies *policies;
    struct matching *matching; /* namespaces, routes and models, compiled */
    struct models *models; /* how each model counts: vocabularies with the configuration's names */
    char **credentials;    /* by upstream index: the plain text, or NULL */
    struct tls_context **tls;      /* by upstream index; NULL when it has no https server */
    struct transport **transports; /* by upstream index; NULL: direct */
    struct group **groups;         /* by upstream index: its servers, as all workers know them */
    _Atomic unsigned refs;
};

/* Takes a reference of the snapshot; base: the vocabularies that are loaded. ERR_INVALID with why:
 * a credential does not open, a certificate cannot be used, too many policies. */
enum err ruleset_new(struct snapshot *s, const struct models *base, struct certs *certs,
                     struct fleet *fleet, const unsigned char master_key[32], struct ruleset **ret,
                     struct why *why) MUSTCHECK;
struct ruleset *ruleset_ref(struct ruleset *r);
void ruleset_unref(struct ruleset *r); /* NULL is fine */

/* The header field with the credential for an upstream, if it has one. */
enum err ruleset_put_credential(const struct ruleset *r, const struct snap_upstream *u,
                                struct buf *out) MUSTCHECK;

#endif
