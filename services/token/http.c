/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The HTTP listener of aigw-token. Its threads read requests and send answers; what has to be
 * counted is answered later by the pool (http_count.c), so that a long count delays nobody.
 *
 *   POST /calculate    {"model", "messages" | "text", ...}  -> {"model","tokens","exact",...}
 *   POST /v1/tokenize  the same                             -> the same with "ids" (and "offsets")
 *   POST /v1/count     {"model"?, "inputs": [...]}           -> {"data": [...], "total_tokens"}
 *   GET  /v1/models    the vocabularies; /v1/models/NAME: how that model counts
 *   GET  /openapi.json what this API is
 */
#include <stdlib.h>

#include "config/library.h"
#include "rt/json.h"
#include "service.h"

enum {
    CONNECTIONS_MAX = 1024,
    BODIES_MAX = 256 << 20, /* bytes of all bodies that are here at a time */
    TIMEOUT_S = 60,
    RETRY_AFTER_S = 1,
};

void http_error(struct http_reply *reply, int status, const char *message, const char *param,
                const char *code)
{
    struct buf *b = &reply->body;
    buf_clear(b);
    reply->status = status;
    enum err e = buf_appendz(b, "{\"error\":{\"message\":");
    if (e == ERR_OK) e = buf_append_json(b, str_of(message));
    if (e == ERR_OK)
        e = buf_printf(b, ",\"type\":\"%s\",\"param\":",
                       status >= 500 ? "server_error" : "invalid_request_error");
    if (e == ERR_OK)
        e = param[0] != '\0' ? buf_append_json(b, str_of(param)) : buf_appendz(b, "null");
    if (e == ERR_OK) e = buf_printf(b, ",\"code\":\"%s\"}}", code);
    if (e != ERR_OK) buf_clear(b);
}

/* JSON, or what curl says when it is told nothing. */
static bool check_media_type(const struct http_request *req, struct http_reply *reply)
{
    struct str type = http_header(req, "Content-Type"),
               coding = http_header(req, "Content-Encoding");
    struct str rest = type, main_type = str_trim(str_cut(&rest, ';'));
    bool json = type.p == NULL || main_type.n == 0 || str_ieqz(main_type, "application/json") ||
                str_ieqz(main_type, "application/x-www-form-urlencoded");
    if (!json && main_type.n > 5 && str_ieqz(str_n(main_type.p + main_type.n - 5, 5), "+json"))
        json = true;
    if (!json)
        http_error(reply, 415, "the body must be application/json", "", "unsupported_media_type");
    else if (coding.p != NULL && coding.n > 0 && !str_ieqz(coding, "identity"))
        http_error(reply, 415, "an encoded body is not accepted", "", "unsupported_media_type");
    else
        return true;
    return false;
}

/* --- what the pool answers --- */

struct task {
    struct service *service;
    const struct http_request *req;
    struct http_reply *reply;
    http_work *work;
};

static void run_task(void *ctx)
{
    struct task *t = ctx;
    struct waiter w;
    waiter_init(&w, t->service, t->req);
    if (stop_asked(&w.stop)) /* it went while it waited */
        http_error(t->reply, SERVICE_GONE, "nobody waits for the answer", "", "gone");
    else
        t->work(t->service, t->req, &w, t->reply);
    http_answer(t->req);
    free(t);
}

static void hand_over(struct service *s, const struct http_request *req, struct http_reply *reply,
                      http_work *work)
{
    if (!check_media_type(req, reply)) return;
    struct task *t = malloc(sizeof *t);
    if (t == NULL) {
        http_error(reply, 503, "not enough memory for this request", "", "no_memory");
        return;
    }
    *t = (struct task){ s, req, http_later(req), work };
    if (pool_add(s->pool, req->body.n, run_task, t) == ERR_OK) return;
    http_error(t->reply, 503, "too many requests wait already", "", "busy");
    http_reply_header(t->reply, "Retry-After", "%d", RETRY_AFTER_S);
    http_answer(req);
    free(t);
}

static void calculate(void *ctx, const struct http_request *req, struct http_reply *reply)
{
    hand_over(ctx, req, reply, http_calculate);
}

static void tokenize(void *ctx, const struct http_request *req, struct http_reply *reply)
{
    hand_over(ctx, req, reply, http_tokenize);
}

static void count_batch(void *ctx, const struct http_request *req, struct http_reply *reply)
{
    hand_over(ctx, req, reply, http_count_batch);
}

/* --- what is answered at once --- */

/* How a model counts: {"vocabulary","size","digest","method","template_digest"?} without braces. */
static enum err append_info(struct buf *b, const struct model_info *m)
{
    if (m->vocab == NULL) return buf_appendz(b, "\"vocabulary\":null,\"method\":\"estimate\"");
    enum err e = buf_appendz(b, "\"vocabulary\":");
    if (e == ERR_OK) e = buf_append_json(b, m->vocabulary);
    if (e == ERR_OK)
        e = buf_printf(b, ",\"size\":%u,\"digest\":\"%.*s\",\"method\":\"%s\"",
                       vocab_size(m->vocab), STR_ARG(vocab_digest(m->vocab)),
                       chat_method_name(m->chat != NULL ? CHAT_TEMPLATE
                                        : m->openai     ? CHAT_OPENAI
                                                        : CHAT_TEXT));
    if (e == ERR_OK && m->chat != NULL)
        e = buf_printf(b, ",\"template_digest\":\"%.*s\"", STR_ARG(chat_template_digest(m->chat)));
    if (e == ERR_OK && m->sibling) e = buf_appendz(b, ",\"template_of_a_relative\":true");
    return e;
}

static enum err append_model(struct buf *b, struct str id, const struct model_info *m)
{
    enum err e = buf_appendz(b, "{\"id\":");
    if (e == ERR_OK) e = buf_append_json(b, id);
    if (e == ERR_OK) e = buf_appendz(b, ",\"object\":\"model\",");
    if (e == ERR_OK) e = append_info(b, m);
    return e == ERR_OK ? buf_appendz(b, "}") : e;
}

struct problems {
    struct buf *b;
    enum err e;
    size_t n;
};

static void append_problem(void *ctx, const struct library_problem *p)
{
    struct problems *list = ctx;
    struct buf *b = list->b;
    if (list->e == ERR_OK) list->e = buf_appendz(b, list->n++ > 0 ? ",{\"file\":" : "{\"file\":");
    if (list->e == ERR_OK) list->e = buf_append_json(b, str_of(p->file));
    if (list->e == ERR_OK) list->e = buf_appendz(b, ",\"reason\":");
    if (list->e == ERR_OK) list->e = buf_append_json(b, str_of(p->reason));
    if (list->e == ERR_OK)
        list->e = buf_printf(b, ",\"serving\":\"%s\"}",
                             p->served == LIBRARY_NOT      ? "nothing"
                             : p->served == LIBRARY_BEFORE ? "the one before it"
                                                           : "without its chat template");
}

static void list_models(void *ctx, const struct http_request *req, struct http_reply *reply)
{
    struct service *s = ctx;
    struct models *models = service_models(s);
    (void)req;
    enum err e = buf_appendz(&reply->body, "{\"object\":\"list\",\"data\":[");
    for (size_t i = 0; e == ERR_OK && i < models_count(models); i++) {
        struct model_info m;
        models_at(models, i, &m);
        if (i > 0) e = buf_appendz(&reply->body, ",");
        if (e == ERR_OK) e = append_model(&reply->body, m.vocabulary, &m);
    }
    if (e == ERR_OK) e = buf_appendz(&reply->body, "],\"problems\":[");
    struct problems list = { &reply->body, e, 0 };
    library_problems(s->library, append_problem, &list);
    e = list.e == ERR_OK ? buf_appendz(&reply->body, "]}\n") : list.e;
    if (e != ERR_OK) http_error(reply, 500, "the list could not be made", "", "internal");
    models_unref(models);
}

static void show_model(void *ctx, const struct http_request *req, struct http_reply *reply)
{
    struct models *models = service_models(ctx);
    struct model_info m;
    models_find(models, req->params[0], &m);
    enum err e = append_model(&reply->body, req->params[0], &m);
    if (e == ERR_OK) e = buf_appendz(&reply->body, "\n");
    if (e != ERR_OK) http_error(reply, 500, "the answer could not be made", "", "internal");
    models_unref(models);
}

static void show_openapi(void *ctx, const struct http_request *req, struct http_reply *reply)
{
    const struct service *s = ctx;
    (void)req;
    if (json_print(s->openapi, &reply->body) != ERR_OK)
        http_error(reply, 500, "the answer could not be made", "", "internal");
}

static void after(void *ctx, const struct http_request *req, const char *route, int status,
                  uint64_t ns)
{
    (void)req, (void)ns;
    service_note_request(ctx, route[0] != '\0' ? route : "other", status);
}

static void own_error(void *ctx, int status, const char *message, struct http_reply *reply)
{
    (void)ctx;
    http_error(reply, status, message, "",
               status == 404   ? "not_found"
               : status == 405 ? "method_not_allowed"
               : status == 413 ? "too_large"
               : status == 503 ? "busy"
                               : "invalid_request");
}

enum err http_start(struct service *s, struct why *why)
{
    static const struct http_route routes[] = {
        { "POST", "/calculate", calculate },   { "POST", "/v1/tokenize", tokenize },
        { "POST", "/v1/count", count_batch },  { "GET", "/v1/models", list_models },
        { "GET", "/v1/models/*", show_model }, { "GET", "/openapi.json", show_openapi },
    };
    struct http_server_options o = {
        .bind = s->settings->bind,
        .port = (uint16_t)s->settings->port,
        .routes = routes,
        .routes_len = ARRAY_LEN(routes),
        .ctx = s,
        .max_body = MAX_BODY,
        .max_bodies = BODIES_MAX,
        .threads = s->threads,
        .max_connections = CONNECTIONS_MAX,
        .timeout_s = TIMEOUT_S,
        .after = after,
        .error_body = own_error,
    };
    return http_server_new(&o, &s->http, why);
}
