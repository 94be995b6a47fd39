/* SPDX-License-Identifier: Apache-2.0 */
/* One HTTP call at a time, blocking (libcurl): probes, hooks, services by URL. Not for the proxy's
 * traffic. One thread per client. */
#ifndef RT_HTTP_CLIENT_H
#define RT_HTTP_CLIENT_H

#include "base/buf.h"

struct http_client;

struct http_client *http_client_new(void); /* keeps connections alive between calls */
void http_client_free(struct http_client *c);

struct http_call {
    const char *method, *url;
    struct str body;
    const char *headers[8]; /* "Name: value", NULL-terminated */
    const char *ca_file;    /* of authorities, for https; NULL: the system's */
    int connect_timeout_ms, timeout_ms;
};
/* ret_body is appended to (its maximum bounds the answer: ERR_LIMIT). Redirects are never followed.
 * ERR_TIMEOUT, ERR_UNAVAILABLE (cannot connect), ERR_IO. */
enum err http_client_call(struct http_client *c, const struct http_call *call, int *ret_status,
                          struct buf *ret_body, struct why *why) MUSTCHECK;

#endif
