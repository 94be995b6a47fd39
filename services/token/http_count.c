/* SPDX-License-Identifier: Apache-2.0 */
/* What the HTTP API counts. Runs on the pool's threads: each function answers one request. */
#include <stdio.h>

#include "service.h"

enum {
    ARENA_BASE = 8 << 20, /* bytes of scratch any request may use */
    ARENA_PER_BYTE = 32,  /* and more for each byte of its body */
    RENDERED_MAX = 64 << 20,
};

static void fail(struct http_reply *reply, enum err e, const struct chat_error *error)
{
    const char *text = error->why.text[0] != '\0' ? error->why.text
                       : e == ERR_LIMIT           ? "the answer would be larger than 64 MiB"
                                                  : err_name(e);
    if (e == ERR_CLOSED)
        http_error(reply, SERVICE_GONE, "nobody waits for the answer", "", "gone");
    else if (error->raised)
        http_error(reply, 400, text, error->param, "template_error");
    else if (e == ERR_INVALID || e == ERR_UNSUPPORTED)
        http_error(reply, 400, text, error->param, "invalid_request");
    else if (e == ERR_LIMIT)
        http_error(reply, 413, text, error->param, "too_large");
    else if (e == ERR_NOMEM)
        http_error(reply, 503, "not enough memory for this request", error->param, "no_memory");
    else
        http_error(reply, 500, "the request could not be counted", error->param, "internal");
}

static enum err wrong(struct chat_error *error, enum err e, const char *param, const char *text)
{
    (void)str_copyz(error->param, sizeof error->param, str_of(param));
    return why_set(&error->why, e, "%s", text);
}

/* The body as a JSON object. */
static enum err read_body(const struct http_request *req, struct arena *a, struct jv *ret,
                          struct chat_error *error)
{
    enum err e = jv_read_json(a, req->body, ret, &error->why);
    if (e == ERR_LIMIT) return ERR_INVALID; /* of depth: the body itself is not too large */
    if (e != ERR_OK) return e;
    return ret->type == JV_DICT ? ERR_OK
                                : wrong(error, ERR_INVALID, "", "the body must be a JSON object");
}

static enum err need_model(const struct token_request *q, struct chat_error *error)
{
    return q->model.p != NULL ? ERR_OK : wrong(error, ERR_INVALID, "model", "model is missing");
}

static void scratch_init(struct arena *a, const struct http_request *req)
{
    arena_init(a, ARENA_BASE + ARENA_PER_BYTE * req->body.n);
}

void http_calculate(struct service *s, const struct http_request *req, const struct waiter *w,
                    struct http_reply *reply)
{
    struct models *models = service_models(s);
    struct arena a;
    struct jv body;
    struct token_request q;
    struct chat_count c;
    struct chat_error error = { .raised = false };
    scratch_init(&a, req);
    enum err e = read_body(req, &a, &body, &error);
    if (e == ERR_OK) e = token_request_read(&a, body, &q, &error);
    if (e == ERR_OK) e = need_model(&q, &error);
    if (e == ERR_OK) e = service_count(s, models, &q, req->body.n, w, &a, &c, &error);
    if (e == ERR_OK) e = buf_appendz(&reply->body, "{");
    if (e == ERR_OK) e = token_count_members(&reply->body, q.model, &c);
    if (e == ERR_OK) e = buf_appendz(&reply->body, "}\n");
    if (e != ERR_OK) fail(reply, e, &error);
    arena_done(&a);
    models_unref(models);
}

/* "ids":[...] and, of a text, "offsets":[[start,end],...] in bytes of its UTF-8 */
static enum err append_tokens(struct buf *b, const struct token_list *l)
{
    enum err e = buf_appendz(b, ",\"ids\":[");
    for (size_t i = 0; e == ERR_OK && i < l->len; i++)
        e = buf_printf(b, i > 0 ? ",%u" : "%u", l->ids[i]);
    if (e == ERR_OK) e = buf_appendz(b, "]");
    if (e != ERR_OK || !l->want_ends) return e;
    e = buf_appendz(b, ",\"offsets\":[");
    for (size_t i = 0; e == ERR_OK && i < l->len; i++)
        e = buf_printf(b, "%s[%llu,%llu]", i > 0 ? "," : "",
                       (unsigned long long)(i > 0 ? l->ends[i - 1] : 0),
                       (unsigned long long)l->ends[i]);
    return e == ERR_OK ? buf_appendz(b, "]") : e;
}

/* Only a text, or a chat with a template, has ids. */
static enum err check_has_ids(const struct models *models, const struct token_request *q,
                              struct chat_error *error)
{
    struct model_info info;
    models_find(models, q->model, &info);
    if (info.vocab == NULL)
        return wrong(error, ERR_INVALID, "model",
                     "no vocabulary is known for this model: it can be counted, not tokenized");
    if (!q->is_text && info.chat == NULL)
        return wrong(error, ERR_INVALID, "model",
                     "the chat template of this model is not public: only text can be tokenized");
    return ERR_OK;
}

void http_tokenize(struct service *s, const struct http_request *req, const struct waiter *w,
                   struct http_reply *reply)
{
    struct models *models = service_models(s);
    struct arena a;
    struct jv body;
    struct token_request q;
    struct chat_count c;
    struct chat_error error = { .raised = false };
    struct token_list tokens = { .ids = NULL };
    struct buf rendered;
    buf_init(&rendered, RENDERED_MAX);
    scratch_init(&a, req);
    enum err e = read_body(req, &a, &body, &error);
    if (e == ERR_OK) e = token_request_read(&a, body, &q, &error);
    if (e == ERR_OK) e = need_model(&q, &error);
    if (e == ERR_OK) e = check_has_ids(models, &q, &error);
    if (e == ERR_OK) {
        q.chat.to = &tokens;
        q.chat.rendered = &rendered;
        tokens.want_ends = q.is_text;
        e = service_count(s, models, &q, req->body.n, w, &a, &c, &error);
    }
    if (e == ERR_OK) e = buf_appendz(&reply->body, "{");
    if (e == ERR_OK) e = token_count_members(&reply->body, q.model, &c);
    if (e == ERR_OK) e = append_tokens(&reply->body, &tokens);
    if (e == ERR_OK && !q.is_text) {
        e = buf_appendz(&reply->body, ",\"text\":");
        if (e == ERR_OK) e = buf_append_json(&reply->body, buf_str(&rendered));
    }
    if (e == ERR_OK) e = buf_appendz(&reply->body, "}\n");
    if (e != ERR_OK) fail(reply, e, &error);
    token_list_done(&tokens);
    buf_done(&rendered);
    arena_done(&a);
    models_unref(models);
}

/* --- batches --- */

struct batch {
    struct service *s;
    const struct models *models;
    const struct waiter *w;
    struct arena *a;
    struct str model;     /* of inputs that name none */
    size_t bytes_of_chat; /* what a chat is taken to be of the body */
    uint64_t total;
};

/* An input's own error stands in its place: the others are counted. */
static enum err append_error(struct buf *out, uint32_t i, const struct chat_error *error)
{
    char param[sizeof error->param + 32];
    (void)snprintf(param, sizeof param, "inputs[%u]%s%s", i, error->param[0] != '\0' ? "." : "",
                   error->param);
    enum err e = buf_appendz(out, "{\"error\":{\"message\":");
    if (e == ERR_OK) e = buf_append_json(out, str_of(error->why.text));
    if (e == ERR_OK) e = buf_appendz(out, ",\"type\":\"invalid_request_error\",\"param\":");
    if (e == ERR_OK) e = buf_append_json(out, str_of(param));
    return e == ERR_OK ? buf_printf(out, ",\"code\":\"%s\"}}",
                                    error->raised ? "template_error" : "invalid_request")
                       : e;
}

/* A string is a text, an object as for /calculate. */
static enum err count_input(struct batch *b, struct jv input, uint32_t i, struct buf *out)
{
    struct token_request q = { .is_text = true };
    struct chat_count c;
    struct chat_error error = { .raised = false };
    enum err e = ERR_OK;
    if (input.type == JV_STR)
        q.text = jv_text(input);
    else if (input.type == JV_DICT)
        e = token_request_read(b->a, input, &q, &error);
    else
        e = wrong(&error, ERR_INVALID, "", "an input must be a string or an object");
    if (e == ERR_OK && q.model.p == NULL) q.model = b->model;
    if (e == ERR_OK) e = need_model(&q, &error);
    if (e == ERR_OK)
        e = service_count(b->s, b->models, &q, q.is_text ? q.text.n : b->bytes_of_chat, b->w, b->a,
                          &c, &error);
    if (e == ERR_NOMEM || e == ERR_CLOSED) return e;
    if (e != ERR_OK) return append_error(out, i, &error);
    b->total += c.tokens;
    e = buf_appendz(out, "{");
    if (e == ERR_OK) e = token_count_members(out, q.model, &c);
    return e == ERR_OK ? buf_appendz(out, "}") : e;
}

static enum err read_batch(struct jv body, struct batch *b, const struct jv_list **ret,
                           struct chat_error *error)
{
    const struct jv *inputs = jv_member(body, STR("inputs"));
    const struct jv *model = jv_member(body, STR("model"));
    if (model != NULL && model->type != JV_NONE) {
        if (model->type != JV_STR || model->n == 0)
            return wrong(error, ERR_INVALID, "model", "model must be a string");
        if (model->n > TOKEN_MSG_MODEL_MAX)
            return wrong(error, ERR_LIMIT, "model", "model is too long");
        b->model = jv_text(*model);
    }
    if (inputs == NULL || inputs->type != JV_LIST)
        return wrong(error, ERR_INVALID, "inputs", "inputs must be a list");
    if (inputs->list->n > MAX_INPUTS)
        return wrong(error, ERR_LIMIT, "inputs", "there are more than 4096 inputs");
    *ret = inputs->list;
    return ERR_OK;
}

void http_count_batch(struct service *s, const struct http_request *req, const struct waiter *w,
                      struct http_reply *reply)
{
    struct models *models = service_models(s);
    struct arena a;
    struct jv body;
    struct chat_error error = { .raised = false };
    struct batch b = { .s = s, .models = models, .w = w, .a = &a };
    const struct jv_list *inputs = NULL;
    scratch_init(&a, req);
    enum err e = read_body(req, &a, &body, &error);
    if (e == ERR_OK) e = read_batch(body, &b, &inputs, &error);
    if (e == ERR_OK) e = buf_appendz(&reply->body, "{\"data\":[");
    for (uint32_t i = 0; e == ERR_OK && i < inputs->n; i++) {
        b.bytes_of_chat = req->body.n / inputs->n;
        if (i % 64 == 63 && stop_asked(&w->stop)) e = ERR_CLOSED;
        if (e == ERR_OK && i > 0) e = buf_appendz(&reply->body, ",");
        if (e == ERR_OK) e = count_input(&b, inputs->items[i], i, &reply->body);
    }
    if (e == ERR_OK)
        e = buf_printf(&reply->body, "],\"total_tokens\":%llu}\n", (unsigned long long)b.total);
    if (e != ERR_OK) fail(reply, e, &error);
    arena_done(&a);
    models_unref(models);
}
