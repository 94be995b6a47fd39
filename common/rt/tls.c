/* SPDX-License-Identifier: Apache-2.0 */
/* The only file that includes libssl's header. See tls.h for threads. */
#include "rt/tls.h"

#include <arpa/inet.h>
#include <errno.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

enum { PROBLEM_MAX = 160, NAME_MAX_BYTES = 255 };

struct tls_context {
    SSL_CTX *ssl;
    _Atomic unsigned refs;
};

struct tls_ticket {
    SSL_SESSION *session; /* the newest, or NULL */
    unsigned refs;
};

struct tls {
    SSL *ssl;
    struct tls_context *context;
    struct tls_ticket *ticket;
    bool wants_write, established;
    char problem[PROBLEM_MAX];
};

static const unsigned char alpn[] = { 8, 'h', 't', 't', 'p', '/', '1', '.', '1' };

/* The oldest error of this thread's queue says what went wrong first. */
static const char *first_error(void)
{
    unsigned long e = ERR_get_error();
    const char *text = e != 0 ? ERR_reason_error_string(e) : NULL;
    ERR_clear_error();
    return text != NULL ? text : "unknown reason";
}

/* --- contexts --- */

static int choose_protocol(SSL *s, const unsigned char **out, unsigned char *out_n,
                           const unsigned char *in, unsigned in_n, void *arg)
{
    unsigned char *chosen;
    (void)s;
    (void)arg;
    if (SSL_select_next_proto(&chosen, out_n, alpn, sizeof alpn, in, in_n) !=
        OPENSSL_NPN_NEGOTIATED)
        return SSL_TLSEXT_ERR_ALERT_FATAL;
    *out = chosen;
    return SSL_TLSEXT_ERR_OK;
}

/* A ticket came: the newest is kept, as a copy, since a connection that ends badly spoils its own.
 * 0: the session stays the library's. */
static int keep_ticket(SSL *s, SSL_SESSION *session)
{
    struct tls_ticket *t = SSL_get_app_data(s);
    if (t == NULL) return 0;
    SSL_SESSION_free(t->session);
    t->session = SSL_SESSION_dup(session);
    return 0;
}

static enum err use_identity(SSL_CTX *ssl, const char *cert_file, const char *key_file,
                             struct why *why)
{
    if (SSL_CTX_use_certificate_chain_file(ssl, cert_file) != 1)
        return why_set(why, ERR_INVALID, "the certificate %s cannot be used: %s", cert_file,
                       first_error());
    if (SSL_CTX_use_PrivateKey_file(ssl, key_file, SSL_FILETYPE_PEM) != 1)
        return why_set(why, ERR_INVALID, "the key %s cannot be used: %s", key_file, first_error());
    if (SSL_CTX_check_private_key(ssl) != 1)
        return why_set(why, ERR_INVALID, "the key %s is not that of the certificate %s", key_file,
                       cert_file);
    return ERR_OK;
}

static enum err context_new(const SSL_METHOD *method, struct tls_context **ret, struct why *why)
{
    struct tls_context *c = calloc(1, sizeof *c);
    if (c == NULL) return why_set(why, ERR_NOMEM, "out of memory");
    c->ssl = SSL_CTX_new(method);
    if (c->ssl == NULL) {
        free(c);
        return why_set(why, ERR_NOMEM, "TLS cannot be set up: %s", first_error());
    }
    atomic_init(&c->refs, 1);
    (void)SSL_CTX_set_min_proto_version(c->ssl, TLS1_2_VERSION);
    (void)SSL_CTX_set_options(c->ssl, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION |
                                          SSL_OP_CIPHER_SERVER_PREFERENCE);
    /* Idle connections keep no buffers; a write that is tried again may come from elsewhere. */
    (void)SSL_CTX_set_mode(c->ssl, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE |
                                       SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    *ret = c;
    return ERR_OK;
}

enum err tls_server_context(const char *cert_file, const char *key_file, struct tls_context **ret,
                            struct why *why)
{
    struct tls_context *c;
    enum err e = context_new(TLS_server_method(), &c, why);
    if (e != ERR_OK) return e;
    SSL_CTX_set_alpn_select_cb(c->ssl, choose_protocol, NULL);
    /* Tickets resume sessions: nothing is kept here for clients that may never come back. */
    (void)SSL_CTX_set_session_cache_mode(c->ssl, SSL_SESS_CACHE_OFF);
    e = use_identity(c->ssl, cert_file, key_file, why);
    if (e == ERR_OK)
        *ret = c;
    else
        tls_context_unref(c);
    return e;
}

enum err tls_client_context(const char *ca_file, const char *cert_file, const char *key_file,
                            struct tls_context **ret, struct why *why)
{
    struct tls_context *c;
    enum err e = context_new(TLS_client_method(), &c, why);
    if (e != ERR_OK) return e;
    SSL_CTX_set_verify(c->ssl, SSL_VERIFY_PEER, NULL);
    (void)SSL_CTX_set_session_cache_mode(c->ssl,
                                         SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(c->ssl, keep_ticket);
    if (SSL_CTX_set_alpn_protos(c->ssl, alpn, sizeof alpn) != 0) e = ERR_NOMEM;
    if (e == ERR_OK && ca_file != NULL && SSL_CTX_load_verify_file(c->ssl, ca_file) != 1)
        e = why_set(why, ERR_INVALID, "the CA file %s cannot be used: %s", ca_file, first_error());
    if (e == ERR_OK && ca_file == NULL && SSL_CTX_set_default_verify_paths(c->ssl) != 1)
        e = why_set(why, ERR_INVALID, "the system's certificates cannot be used: %s",
                    first_error());
    if (e == ERR_OK && cert_file != NULL && key_file != NULL)
        e = use_identity(c->ssl, cert_file, key_file, why);
    if (e == ERR_OK)
        *ret = c;
    else
        tls_context_unref(c);
    return e;
}

struct tls_context *tls_context_ref(struct tls_context *c)
{
    atomic_fetch_add_explicit(&c->refs, 1, memory_order_relaxed);
    return c;
}

void tls_context_unref(struct tls_context *c)
{
    if (c == NULL || atomic_fetch_sub_explicit(&c->refs, 1, memory_order_acq_rel) != 1) return;
    SSL_CTX_free(c->ssl);
    free(c);
}

struct tls_ticket *tls_ticket_new(void)
{
    struct tls_ticket *t = xcalloc(1, sizeof *t);
    t->refs = 1;
    return t;
}

void tls_ticket_unref(struct tls_ticket *t)
{
    if (t == NULL || --t->refs > 0) return;
    SSL_SESSION_free(t->session);
    free(t);
}

/* --- connections --- */

static struct tls *connection_new(struct tls_context *c, int fd)
{
    struct tls *t = calloc(1, sizeof *t);
    if (t == NULL) return NULL;
    t->ssl = SSL_new(c->ssl);
    if (t->ssl == NULL || SSL_set_fd(t->ssl, fd) != 1) {
        ERR_clear_error();
        SSL_free(t->ssl);
        free(t);
        return NULL;
    }
    t->context = tls_context_ref(c);
    return t;
}

struct tls *tls_accept(struct tls_context *c, int fd)
{
    struct tls *t = connection_new(c, fd);
    if (t != NULL) SSL_set_accept_state(t->ssl);
    return t;
}

/* Whom the certificate must name. SNI carries names only (RFC 6066, 3). */
static bool expect_peer(SSL *s, char *name)
{
    unsigned char address[sizeof(struct in6_addr)];
    X509_VERIFY_PARAM *want = SSL_get0_param(s);
    if (inet_pton(AF_INET, name, address) == 1 || inet_pton(AF_INET6, name, address) == 1)
        return X509_VERIFY_PARAM_set1_ip_asc(want, name) == 1;
    return SSL_set1_host(s, name) == 1 && SSL_set_tlsext_host_name(s, name) == 1;
}

struct tls *tls_connect(struct tls_context *c, int fd, struct str name, struct tls_ticket *ticket)
{
    char host[NAME_MAX_BYTES + 1];
    if (!str_copyz(host, sizeof host, name)) return NULL;
    struct tls *t = connection_new(c, fd);
    if (t == NULL) return NULL;
    if (!expect_peer(t->ssl, host)) {
        ERR_clear_error();
        tls_free(t);
        return NULL;
    }
    SSL_set_connect_state(t->ssl);
    if (ticket == NULL) return t;
    t->ticket = ticket;
    ticket->refs++;
    SSL_set_app_data(t->ssl, ticket);
    if (ticket->session != NULL)
        (void)SSL_set_session(t->ssl, ticket->session); /* without it: a full handshake */
    return t;
}

void tls_free(struct tls *t)
{
    if (t == NULL) return;
    SSL_free(t->ssl);
    tls_ticket_unref(t->ticket);
    tls_context_unref(t->context);
    free(t);
}

bool tls_wants_write(const struct tls *t)
{
    return t->wants_write;
}

static void note_problem(struct tls *t)
{
    long verified = SSL_get_verify_result(t->ssl);
    if (t->problem[0] != '\0') return;
    if (!SSL_is_server(t->ssl) && verified != X509_V_OK)
        (void)snprintf(t->problem, sizeof t->problem,
                       "the server's certificate is not accepted: %s",
                       X509_verify_cert_error_string(verified));
    else if (ERR_peek_error() != 0)
        (void)snprintf(t->problem, sizeof t->problem, "TLS failed: %s", first_error());
    else
        (void)snprintf(t->problem, sizeof t->problem, "the peer ended it");
}

/* What a call that did not succeed means. */
static enum err result(struct tls *t, int rc)
{
    int why = SSL_get_error(t->ssl, rc);
    t->wants_write = why == SSL_ERROR_WANT_WRITE;
    switch (why) {
    case SSL_ERROR_WANT_READ:
    case SSL_ERROR_WANT_WRITE: return ERR_AGAIN;
    case SSL_ERROR_ZERO_RETURN: return ERR_CLOSED;
    default:
        note_problem(t);
        ERR_clear_error();
        return ERR_IO;
    }
}

enum err tls_handshake(struct tls *t)
{
    ERR_clear_error();
    int rc = SSL_do_handshake(t->ssl);
    if (rc == 1) {
        t->wants_write = false;
        t->established = true;
        return ERR_OK;
    }
    enum err e = result(t, rc);
    if (e == ERR_AGAIN) return e;
    note_problem(t);
    return ERR_DENIED;
}

enum err tls_read(struct tls *t, void *into, size_t cap, size_t *ret_n)
{
    ERR_clear_error();
    int rc = SSL_read_ex(t->ssl, into, cap, ret_n);
    return rc == 1 ? ERR_OK : result(t, rc);
}

enum err tls_write(struct tls *t, const void *data, size_t n, size_t *ret_n)
{
    ERR_clear_error();
    int rc = SSL_write_ex(t->ssl, data, n, ret_n);
    if (rc == 1) return ERR_OK;
    enum err e = result(t, rc);
    return e == ERR_CLOSED ? ERR_IO : e;
}

bool tls_has_more(const struct tls *t)
{
    return SSL_pending(t->ssl) > 0;
}

bool tls_is_quiet(struct tls *t)
{
    char byte;
    size_t n;
    ERR_clear_error();
    int rc = SSL_peek_ex(t->ssl, &byte, 1, &n);
    return rc != 1 && result(t, rc) == ERR_AGAIN;
}

void tls_end(struct tls *t)
{
    if (!t->established || SSL_get_shutdown(t->ssl) & SSL_SENT_SHUTDOWN) return;
    ERR_clear_error();
    (void)SSL_shutdown(t->ssl); /* the alert is small: it goes, or the connection is gone anyway */
    ERR_clear_error();
}

uint64_t tls_bytes_written(const struct tls *t)
{
    return BIO_number_written(SSL_get_wbio(t->ssl));
}

bool tls_was_resumed(const struct tls *t)
{
    return SSL_session_reused(t->ssl) == 1;
}

const char *tls_problem(const struct tls *t)
{
    return t->problem;
}
