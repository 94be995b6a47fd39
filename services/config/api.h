/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The REST admin API under /api/v2/. Handlers run on the HTTP server's threads; each call has its
 * own arena, its own transaction, and answers exactly once.
 */
#ifndef CONFIG_API_H
#define CONFIG_API_H

#include "fleet.h"
#include "model.h"
#include "push.h"
#include "rt/bus.h"
#include "rt/http_server.h"

struct api {
    struct store *store;
    struct push *push;
    struct fleet *fleet;
    struct bus *bus; /* for questions to edges and policy engines */
    struct secrets secrets;
    const char *admin_token; /* "": every call is refused */
    struct json *openapi;    /* owned by main.c */
    void (*observe)(void *ctx, struct str method, const char *route, int status, uint64_t ns);
    void *ctx;
};

const struct http_route *api_routes(size_t *ret_n);

/* Hooks of the HTTP server; ctx is the struct api. */
bool api_before(void *ctx, const struct http_request *req, struct http_reply *reply);
void api_after(void *ctx, const struct http_request *req, const char *route, int status,
               uint64_t ns);
void api_error_body(void *ctx, int status, const char *message, struct http_reply *reply);

#endif
