/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Between the two kinds of exchange: upstream.c has those over connections of its own
 * (`transport: direct`), curl_exchange.c those that libcurl does. Both begin with a struct
 * exchange_base, by which upstream.c knows where a call belongs.
 */
#ifndef EDGE_EXCHANGE_IMPL_H
#define EDGE_EXCHANGE_IMPL_H

#include "upstream.h"

/* Of those that are not direct. */
struct exchange_ops {
    void (*cancel)(struct exchange *x);
    void (*discard)(struct exchange *x);
    void (*redirect)(struct exchange *x, const struct exchange_events *ev);
    void (*pause)(struct exchange *x, bool paused);
    size_t (*memory)(const struct exchange *x);
    bool (*is_connected)(const struct exchange *x);
    struct exchange_way (*way)(const struct exchange *x);
};

struct exchange_base {
    const struct exchange_ops *ops; /* NULL: direct */
};

struct curl_links;
struct curl_links *curl_links_new(const struct pools_options *o);
void curl_links_free(struct curl_links *l); /* no exchange may be left; NULL is fine */
/* Closes connections to servers that nobody asks any more. */
void curl_links_sweep(struct curl_links *l);
/* As exchange_start(); tls->transport is set. */
struct exchange *curl_exchange_start(struct curl_links *l, const struct snap_server *s,
                                     const struct exchange_tls *tls, struct str head,
                                     struct str body, bool is_head, bool fresh,
                                     const struct exchange_events *ev, void *ctx);

#endif
