/* SPDX-License-Identifier: Apache-2.0 */
/* Inside http_client_multi*.c only: what a transfer is made of, and how curl is told of it. Behind
 * <curl/curl.h>. */
#ifndef RT_HTTP_CLIENT_MULTI_IMPL_H
#define RT_HTTP_CLIENT_MULTI_IMPL_H

#include "base/list.h"
#include "rt/http_client_multi.h"
#include "rt/loop.h"

enum {
    HTTP_MULTI_HEAD_MAX = 64 * 1024,
    HTTP_MULTI_SPARES = 64 /* handles that are kept for the next transfers */
};

struct http_socket;

struct http_multi {
    struct loop *loop;
    CURLM *multi;
    CURLSH *share; /* sessions of TLS */
    struct loop_timer timer;
    struct list_node all, ready; /* transfers; those that have something to tell */
    size_t held;                 /* transfers of which curl holds more */
    struct http_socket *acting;  /* whose event is being handled; NULL when it is gone */
    bool telling, tell_planned;
    CURL *spare[HTTP_MULTI_SPARES];
    size_t spares;
    struct curl_slist *connect_to, *resolve;
    char *url, *connect_text, *resolve_text, *ca_file, *cert_file, *key_file;
    char *proxy, *proxy_user, *proxy_password, *proxy_ca_file;
    long http_version;
    bool tunnel, once; /* once: a connection serves one transfer */
    bool has_streams;  /* an answer came in HTTP/2 */
    unsigned resets;   /* streams that were given up */
};

struct http_transfer {
    struct http_multi *m;
    CURL *easy;
    const struct http_transfer_events *ev;
    void *ctx;
    struct list_node node, in_all; /* in ready, in all */
    struct buf head, in;           /* what came, and was not told */
    uint64_t taken;                /* of the body, from curl */
    char *body, *target;           /* of the request */
    size_t body_n;
    struct curl_slist *fields, *connect_to, *resolve;
    unsigned interims;
    int local_port; /* which tells connections apart; 0: there is none yet */
    bool connected, head_whole, head_told, holding /* curl has more */, paused, done, dead;
    bool discards;     /* what curl still brings is thrown away */
    const char *wrong; /* why we refused what came; NULL: we did not */
    CURLcode code;     /* when done */
    long version;
    char error[CURL_ERROR_SIZE];
};

/* http_client_multi_set.c: options of curl. False: it does not take them, or memory is out. */
long http_multi_version(const struct http_multi_options *o);
bool http_multi_set_once(const struct http_multi *m, CURL *h);
bool http_transfer_set(struct http_transfer *t, const struct http_transfer_request *r);
/* curl's callbacks; ctx: the transfer. */
size_t http_transfer_on_header(char *data, size_t size, size_t n, void *ctx);
size_t http_transfer_on_body(char *data, size_t size, size_t n, void *ctx);
int http_transfer_on_connected(void *ctx, char *primary_ip, char *local_ip, int primary_port,
                               int local_port);

/* http_client_multi_resets.c: from now on streams that are over are not reset. Once, first. */
void http_multi_spare_resets(void);

/* http_client_multi_loop.c: curl's callbacks; ctx: the multi. */
int http_multi_on_socket(CURL *easy, curl_socket_t fd, int what, void *ctx, void *of_socket);
int http_multi_on_timer(CURLM *multi, long ms, void *ctx);
/* http_client_multi.c: lets curl see to what happened, and tells what it brings. */
void http_multi_act(struct http_multi *m, curl_socket_t fd, int what);

#endif
