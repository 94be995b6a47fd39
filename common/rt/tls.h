/* SPDX-License-Identifier: Apache-2.0 */
/*
 * TLS on non-blocking sockets (OpenSSL's libssl): TLS 1.2 and 1.3, ALPN http/1.1, no renegotiation,
 * no compression. A context is immutable, reference counted, any thread; a connection belongs to
 * one thread. The caller watches the socket and calls again when it is ready for what was wanted.
 * The process must ignore SIGPIPE.
 */
#ifndef RT_TLS_H
#define RT_TLS_H

#include <stdint.h>

#include "base/str.h"

struct tls_context; /* who we are, and whom we believe */
struct tls;         /* one connection */
struct tls_ticket;  /* what a server gave us for coming back sooner; one thread */

/* A server's certificate chain and key, PEM. ERR_INVALID with why: a file that cannot be read, or
 * a key that is not the certificate's. */
enum err tls_server_context(const char *cert_file, const char *key_file, struct tls_context **ret,
                            struct why *why) MUSTCHECK;
/* Servers are always verified, by name. ca_file: whom to believe instead of the system's list (may
 * be NULL); cert_file and key_file: who we are (both or neither). */
enum err tls_client_context(const char *ca_file, const char *cert_file, const char *key_file,
                            struct tls_context **ret, struct why *why) MUSTCHECK;
struct tls_context *tls_context_ref(struct tls_context *c);
void tls_context_unref(struct tls_context *c); /* NULL is fine */

struct tls_ticket *tls_ticket_new(void);
void tls_ticket_unref(struct tls_ticket *t); /* connections hold their own; NULL is fine */

/* A server's end on an accepted socket, which stays the caller's. NULL: out of memory. */
struct tls *tls_accept(struct tls_context *c, int fd);
/* A client's end. name: of the server, for SNI and verification, or an address. ticket may be NULL.
 */
struct tls *tls_connect(struct tls_context *c, int fd, struct str name, struct tls_ticket *ticket);
void tls_free(struct tls *t); /* does not close the socket; NULL is fine */

/* What an ERR_AGAIN waits for: reading, unless tls_wants_write(). */
bool tls_wants_write(const struct tls *t);

/* ERR_OK: done. ERR_AGAIN. ERR_DENIED: tls_problem() says why. */
enum err tls_handshake(struct tls *t) MUSTCHECK;
/* ERR_OK with *ret_n > 0; ERR_AGAIN; ERR_CLOSED: the peer said that it ends; ERR_IO: broken, or cut
 * off without that. */
enum err tls_read(struct tls *t, void *into, size_t cap, size_t *ret_n) MUSTCHECK;
/* ERR_OK with *ret_n > 0; ERR_AGAIN; ERR_IO. */
enum err tls_write(struct tls *t, const void *data, size_t n, size_t *ret_n) MUSTCHECK;
/* Bytes that can be read although the socket has none. */
bool tls_has_more(const struct tls *t);
/* Reads the records that carry no data (tickets). True when no data came and the peer has not
 * ended. */
bool tls_is_quiet(struct tls *t);
/* Says that we end; what the peer still sends can be read. */
void tls_end(struct tls *t);

/* What a connection holds at rest, about: the library's own state. */
enum { TLS_MEMORY = 15 * 1024 };
uint64_t tls_bytes_written(const struct tls *t); /* to the socket */
bool tls_was_resumed(const struct tls *t);
/* A sentence without anything secret; "" when nothing went wrong. */
const char *tls_problem(const struct tls *t);

#endif
