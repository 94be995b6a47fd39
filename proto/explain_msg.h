/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an edge would do with a sample request, and why (SUBJECT_EDGE_EXPLAIN, request-reply). Pure;
 * any thread. Nothing is admitted, sent or counted by it.
 *
 *   request {"v","id","ts","from","request":{"method","target","headers":{name:value,…}?,
 *            "key":<id>?,"client_ip"?,"model"?,"user"?,"input_tokens"?,"output_tokens"?,
 *            "body_bytes"?,"body":{…}?,"claims":{…}?}}
 *   reply   {"v","id","ts","from","revision","status","why",
 *            "namespace":{"id","slug","chosen_by":"key"|"matcher"|"default"}|null,
 *            "key","route","upstream","model":{"id","slug"}|null,
 *            "policies":[{"id","slug","kind","mode","priority","global","applies","why"?,"limit"?,
 *                         "verdict":"passes"|"refuses"|"counter"|"clamps"?,
 *                         "key"?,"unit"?,"units"?,…],
 *            "edge"}
 *        or the error of proto/envelope.h
 *
 * The key is named by its id, since nobody has its secret; claims are taken for those of a token
 * that was verified, and a request has a key or a token. body is what matchers look at, and tells
 * the model unless that is given. status: what the client would be
 * answered as far as the edge can tell without counters: 200, or 400, 401, 403, 404, 405, 413. A
 * policy whose verdict is "counter" decides by the counter (its id, key), of which the request
 * takes `units`; the policy engine knows what is left of it (proto/counters_msg.h).
 */
#ifndef PROTO_EXPLAIN_MSG_H
#define PROTO_EXPLAIN_MSG_H

#include "proto/envelope.h"

enum { EXPLAIN_HEADERS_MAX = 64, EXPLAIN_TEXT_MAX = 4096 };

struct explain_header {
    struct str name, value;
};

struct explain_ask {
    struct str method, target; /* a token; begins with '/' */
    struct explain_header headers[EXPLAIN_HEADERS_MAX];
    size_t headers_n;
    struct str key, client_ip, model, user; /* p == NULL: none */
    uint64_t input_tokens, output_tokens, body_bytes;
    const struct json *body, *claims; /* objects; NULL: none */
    struct json *root;                /* what the strings belong to, when decoded */
};

/* The member "request" of a message, or the body of the admin API: every problem is told with the
 * JSON pointer of its member. *ret borrows from o. True: there was none. */
typedef void (*explain_problem_fn)(void *ctx, const char *pointer, const char *message);
bool explain_read(const struct json *o, struct explain_ask *ret, explain_problem_fn fn, void *ctx);

/* request: what explain_read() takes; copied. */
enum err explain_ask_encode(const struct json *request, const struct clock *clock,
                            const struct rng *rng, const char *from, struct buf *out) MUSTCHECK;
/* ERR_INVALID, ERR_UNSUPPORTED: nothing to free then. */
enum err explain_ask_decode(struct str data, struct explain_ask *ret, struct why *why) MUSTCHECK;
void explain_ask_done(struct explain_ask *m);

#endif
