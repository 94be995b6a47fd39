/* SPDX-License-Identifier: Apache-2.0 */
/* What the handlers share: inside api*.c only. */
#ifndef CONFIG_API_IMPL_H
#define CONFIG_API_IMPL_H

#include "api.h"

/* One request being answered. */
struct call {
    struct api *api;
    const struct http_request *req;
    struct http_reply *reply;
    struct arena arena;
    struct problems problems;
    struct why why;
    bool dry_run;
};
void call_begin(struct call *c, void *ctx, const struct http_request *req,
                struct http_reply *reply);
void call_end(struct call *c);

/* --- answers --- */

void answer_json(struct call *c, int status, struct json *takes);
/* application/problem+json (RFC 9457) with the call's violations, if there are any. */
void answer_problem(struct call *c, int status, const char *detail);
/* The same for an error of the store or of a check; detail comes from c->why. */
void answer_error(struct call *c, enum err e);
/* ETag, x-aigw-revision. */
void answer_headers(struct call *c, const struct row *r);

/* --- requests --- */

/* JSON, or YAML when the content type says so. Owned by the caller; false: answered. */
bool read_body(struct call *c, size_t max, struct json **ret);
/* A query argument that is true or false; false: answered. */
bool read_flag(struct call *c, const char *name, bool def, bool *ret);
bool read_limit(struct call *c, size_t *ret);
/* If-Match against the row: false: answered with 412. */
bool check_if_match(struct call *c, const struct row *r);
/* By id, or by slug (with ?namespace= where it is not the only one). ERR_CONFLICT: ambiguous. */
enum err find_row(struct call *c, struct db *d, enum kind k, struct str text, struct row *ret);

/* --- changes --- */

/* With ?dry_run=true: answers what would change and rolls back; else commits and sets
 * x-aigw-revision. False: answered (an error, or the dry run). */
bool finish_change(struct call *c, struct tx *t, const char *summary, uint64_t *ret_revision);
/* [{"action","kind","id","slug","before","after"},…] without secrets; with_bodies false leaves the
 * last two out. */
struct json *changes_json(const struct audit *v, size_t n, bool with_bodies);
/* After a failed change: rolls back and answers. */
void abandon_change(struct call *c, struct tx *t, enum err e);

/* --- handlers --- */

void api_list(void *ctx, const struct http_request *req, struct http_reply *reply);
void api_create(void *ctx, const struct http_request *req, struct http_reply *reply);
void api_get(void *ctx, const struct http_request *req, struct http_reply *reply);
void api_put(void *ctx, const struct http_request *req, struct http_reply *reply);
void api_patch(void *ctx, const struct http_request *req, struct http_reply *reply);
void api_delete(void *ctx, const struct http_request *req, struct http_reply *reply);
void api_key_rotate(void *ctx, const struct http_request *req, struct http_reply *reply);

void api_policy_usage(void *ctx, const struct http_request *req, struct http_reply *reply);
void api_policy_reset(void *ctx, const struct http_request *req, struct http_reply *reply);
void api_explain(void *ctx, const struct http_request *req, struct http_reply *reply);

void api_servers_list(void *ctx, const struct http_request *req, struct http_reply *reply);
void api_servers_create(void *ctx, const struct http_request *req, struct http_reply *reply);
void api_server_get(void *ctx, const struct http_request *req, struct http_reply *reply);
void api_server_put(void *ctx, const struct http_request *req, struct http_reply *reply);
void api_server_patch(void *ctx, const struct http_request *req, struct http_reply *reply);
void api_server_delete(void *ctx, const struct http_request *req, struct http_reply *reply);

void api_export(void *ctx, const struct http_request *req, struct http_reply *reply);
void api_import(void *ctx, const struct http_request *req, struct http_reply *reply);

void api_revisions(void *ctx, const struct http_request *req, struct http_reply *reply);
void api_revision(void *ctx, const struct http_request *req, struct http_reply *reply);
void api_diff(void *ctx, const struct http_request *req, struct http_reply *reply);
void api_rollback(void *ctx, const struct http_request *req, struct http_reply *reply);
void api_audit(void *ctx, const struct http_request *req, struct http_reply *reply);
void api_instances(void *ctx, const struct http_request *req, struct http_reply *reply);
void api_instance_delete(void *ctx, const struct http_request *req, struct http_reply *reply);

#endif
