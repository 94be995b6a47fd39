/* SPDX-License-Identifier: Apache-2.0 */
/* See the header. */
#include "transport.h"

#include <stdatomic.h>
#include <stdlib.h>

#include "rt/tls.h"

enum { PASSWORD_MAX = 8192, ID_TEXT_MAX = 32 * 1024 };

static char *text(struct str s)
{
    return s.n > 0 ? str_dupz(s) : NULL;
}

static const char *said(const char *s)
{
    return s != NULL ? s : "";
}

/* All that tells one from another. Files that were written anew are another context. */
static void make_id(struct transport *t)
{
    struct buf b;
    buf_init(&b, ID_TEXT_MAX);
    enum err e = buf_printf(&b, "%d %u %s\n%s\n%s\n%s\n%s\n%s\n%s\n%s\n%p", (int)t->http,
                            t->max_streams, said(t->proxy), said(t->proxy_user),
                            said(t->proxy_password), said(t->proxy_ca_file), said(t->ca_file),
                            said(t->cert_file), said(t->key_file), said(t->server_name),
                            (void *)t->tls);
    ASSERT(e == ERR_OK); /* all of them are bounded */
    crypto_sha256_hex(buf_str(&b), t->id);
    explicit_bzero(b.data, b.len);
    buf_done(&b);
}

static enum err open_password(struct transport *t, const struct snap_upstream *u,
                              const unsigned char master_key[32], struct why *why)
{
    struct buf plain;
    if (u->proxy.password_sealed.n == 0) return ERR_OK;
    buf_init(&plain, PASSWORD_MAX);
    enum err e = crypto_open(master_key, u->id, u->proxy.password_sealed, &plain);
    if (e == ERR_OK)
        t->proxy_password = str_dupz(buf_str(&plain));
    else
        e = why_set(why, ERR_INVALID,
                    "upstream %.*s: its proxy's password does not open with this MASTER_KEY",
                    STR_ARG(u->slug));
    if (plain.data != NULL) explicit_bzero(plain.data, plain.cap);
    buf_done(&plain);
    return e;
}

enum err transport_new(const struct snap_upstream *u, const unsigned char master_key[32],
                       struct tls_context *tls, struct transport **ret, struct why *why)
{
    if (u->transport != SNAP_CURL) {
        *ret = NULL;
        return ERR_OK;
    }
    struct transport *t = xcalloc(1, sizeof *t);
    atomic_init(&t->refs, 1);
    t->http = u->http;
    t->max_streams = u->max_streams;
    t->proxy_kind = u->proxy.kind;
    t->proxy = text(u->proxy.url);
    t->proxy_host = text(u->proxy.host);
    t->proxy_port = u->proxy.port;
    t->proxy_user = text(u->proxy.user);
    t->proxy_ca_file = text(u->proxy.ca_file);
    t->ca_file = text(u->tls_ca_file);
    t->cert_file = text(u->tls_cert_file);
    t->key_file = text(u->tls_key_file);
    t->server_name = text(u->tls_server_name);
    if (tls != NULL) t->tls = tls_context_ref(tls);
    enum err e = open_password(t, u, master_key, why);
    if (e != ERR_OK) {
        transport_unref(t);
        return e;
    }
    make_id(t);
    *ret = t;
    return ERR_OK;
}

struct transport *transport_ref(struct transport *t)
{
    atomic_fetch_add_explicit(&t->refs, 1, memory_order_relaxed);
    return t;
}

void transport_unref(struct transport *t)
{
    if (t == NULL || atomic_fetch_sub_explicit(&t->refs, 1, memory_order_acq_rel) != 1) return;
    if (t->proxy_password != NULL) explicit_bzero(t->proxy_password, strlen(t->proxy_password));
    free(t->proxy_password);
    free(t->proxy);
    free(t->proxy_host);
    free(t->proxy_user);
    free(t->proxy_ca_file);
    free(t->ca_file);
    free(t->cert_file);
    free(t->key_file);
    free(t->server_name);
    tls_context_unref(t->tls);
    free(t);
}
