/* SPDX-License-Identifier: Apache-2.0 */
#include "ruleset.h"

#include <stdatomic.h>
#include <stdlib.h>

#include "config/names.h"
#include "http/h1.h"
#include "rt/crypto.h"

enum { CREDENTIAL_MAX = 8192 };

static enum err open_credential(struct ruleset *r, const struct snap_upstream *u,
                                const unsigned char master_key[32], struct why *why)
{
    struct buf plain;
    if (u->auth == SNAP_UPAUTH_NONE || u->credential_sealed.n == 0) return ERR_OK;
    buf_init(&plain, CREDENTIAL_MAX);
    enum err e = crypto_open(master_key, u->id, u->credential_sealed, &plain);
    if (e == ERR_OK)
        r->credentials[u->index] = str_dupz(buf_str(&plain));
    else
        e = why_set(why, ERR_INVALID,
                    "upstream %.*s: its credential does not open with this MASTER_KEY",
                    STR_ARG(u->slug));
    if (plain.data != NULL) explicit_bzero(plain.data, plain.cap);
    buf_done(&plain);
    return e;
}

static enum err open_tls(struct ruleset *r, const struct snap_upstream *u, struct certs *certs,
                         struct why *why)
{
    for (size_t i = 0; i < u->servers_n; i++)
        if (u->servers[i].tls) return certs_upstream(certs, u, &r->tls[u->index], why);
    return ERR_OK;
}

enum err ruleset_new(struct snapshot *s, const struct models *base, struct certs *certs,
                     struct fleet *fleet, const unsigned char master_key[32], struct ruleset **ret,
                     struct why *why)
{
    struct ruleset *r = xcalloc(1, sizeof *r);
    enum err e = ERR_OK;
    r->snap = snapshot_ref(s);
    r->credentials = xcalloc(s->upstreams_n + 1, sizeof *r->credentials);
    r->tls = xcalloc(s->upstreams_n + 1, sizeof *r->tls);
    r->transports = xcalloc(s->upstreams_n + 1, sizeof *r->transports);
    r->groups = xcalloc(s->upstreams_n + 1, sizeof *r->groups);
    atomic_init(&r->refs, 1);
    for (size_t i = 0; i < s->upstreams_n && e == ERR_OK; i++) {
        e = open_credential(r, &s->upstreams[i], master_key, why);
        if (e == ERR_OK) e = open_tls(r, &s->upstreams[i], certs, why);
        if (e == ERR_OK)
            e = transport_new(&s->upstreams[i], master_key, r->tls[i], &r->transports[i], why);
    }
    if (e == ERR_OK) e = matching_new(s, &r->matching, why);
    if (e == ERR_OK) e = config_models(base, s, &r->models);
    if (e == ERR_OK) e = admit_policies_new(s, &r->policies, why);
    for (size_t i = 0; i < s->upstreams_n && e == ERR_OK; i++)
        r->groups[i] = group_new(fleet, &s->upstreams[i]);
    if (e == ERR_OK)
        *ret = r;
    else
        ruleset_unref(r);
    return e;
}

struct ruleset *ruleset_ref(struct ruleset *r)
{
    atomic_fetch_add_explicit(&r->refs, 1, memory_order_relaxed);
    return r;
}

void ruleset_unref(struct ruleset *r)
{
    if (r == NULL || atomic_fetch_sub_explicit(&r->refs, 1, memory_order_acq_rel) != 1) return;
    admit_policies_free(r->policies);
    models_unref(r->models);
    matching_free(r->matching);
    for (size_t i = 0; i < r->snap->upstreams_n; i++) {
        transport_unref(r->transports[i]);
        tls_context_unref(r->tls[i]);
        group_free(r->groups[i]);
        if (r->credentials[i] == NULL) continue;
        explicit_bzero(r->credentials[i], strlen(r->credentials[i]));
        free(r->credentials[i]);
    }
    free(r->credentials);
    free(r->tls);
    free(r->transports);
    free(r->groups);
    snapshot_unref(r->snap);
    free(r);
}

enum err ruleset_put_credential(const struct ruleset *r, const struct snap_upstream *u,
                                struct buf *out)
{
    const char *secret = r->credentials[u->index];
    if (secret == NULL) return ERR_OK;
    if (u->auth == SNAP_UPAUTH_HEADER) return h1_put_field(out, u->auth_header, str_of(secret));
    return buf_put(out, STR("authorization: Bearer "), str_of(secret), STR("\r\n"));
}
