/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The HTTP API of aigw-token. Handlers run on the HTTP server's threads and may take as long as a
 * count takes.
 *
 *   POST /calculate    {"model", "messages" | "text", ...}  -> {"model","tokens","exact",...}
 *   POST /v1/tokenize  the same                             -> the same with "ids" (and "offsets")
 *   POST /v1/count     {"model"?, "inputs": [...]}           -> {"data": [...], "total_tokens"}
 *   GET  /v1/models    the vocabularies; /v1/models/NAME: how that model counts
 */
#include "service.h"

enum {
    ARENA_BASE = 8 << 20, /* bytes of scratch any request may use */
    ARENA_PER_BYTE = 32,  /* and more for each byte of its body */
    RENDERED_MAX = 64 << 20,
    CONNECTIONS_MAX = 1024,
    TIMEOUT_S = 60,
};

/* {"error":{"message","type","param","code"}} */
static void error_body(struct http_reply *reply, int status, const char *message, const char *param,
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

static void fail(struct http_reply *reply, enum err e, const struct chat_error *error)
{
    const char *text = error->why.text[0] != '\0' ? error->why.text : err_name(e);
    if (error->raised)
        error_body(reply, 400, text, error->param, "template_error");
    else if (e == ERR_INVALID || e == ERR_UNSUPPORTED)
        error_body(reply, 400, text, error->param, "invalid_request");
    else if (e == ERR_LIMIT)
        error_body(reply, 413, text, error->param, "too_large");
    else if (e == ERR_NOMEM)
        error_body(reply, 503, "not enough memory for this request", error->param, "no_memory");
    else
        error_body(reply, 500, "the request could not be counted", error->param, "internal");
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
        error_body(reply, 415, "the body must be application/json", "", "unsupported_media_type");
    else if (coding.p != NULL && coding.n > 0 && !str_ieqz(coding, "identity"))
        error_body(reply, 415, "an encoded body is not accepted", "", "unsupported_media_type");
    else
        return true;
    return false;
}

/* The body as a JSON object. */
static bool read_body(const struct http_request *req, struct arena *a, struct jv *ret,
                      struct http_reply *reply)
{
    struct chat_error error = { .raised = false };
    if (!check_media_type(req, reply)) return false;
    enum err e = jv_read_json(a, req->body, ret, &error.why);
    if (e == ERR_OK && ret->type != JV_DICT)
        e = why_set(&error.why, ERR_INVALID, "the body must be a JSON object");
    if (e != ERR_OK) fail(reply, e, &error);
    return e == ERR_OK;
}

static enum err need_model(const struct token_request *q, struct chat_error *error)
{
    if (q->model.p != NULL) return ERR_OK;
    (void)str_copyz(error->param, sizeof error->param, STR("model"));
    return why_set(&error->why, ERR_INVALID, "model is missing");
}

static void scratch_init(struct arena *a, const struct http_request *req)
{
    arena_init(a, ARENA_BASE + ARENA_PER_BYTE * req->body.n);
}

static void calculate(void *ctx, const struct http_request *req, struct http_reply *reply)
{
    struct service *s = ctx;
    struct arena a;
    struct jv body;
    struct token_request q;
    struct chat_count c;
    struct chat_error error = { .raised = false };
    scratch_init(&a, req);
    if (read_body(req, &a, &body, reply)) {
        struct models *models = service_models(s);
        enum err e = token_request_read(&a, body, &q, &error);
        if (e == ERR_OK) e = need_model(&q, &error);
        if (e == ERR_OK) e = service_count(s, models, &q, req->body.n, &a, &c, &error);
        if (e == ERR_OK) e = buf_appendz(&reply->body, "{");
        if (e == ERR_OK) e = token_count_members(&reply->body, q.model, &c);
        if (e == ERR_OK) e = buf_appendz(&reply->body, "}\n");
        if (e != ERR_OK) fail(reply, e, &error);
        models_unref(models);
    }
    arena_done(&a);
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
    (void)str_copyz(error->param, sizeof error->param, STR("model"));
    if (info.vocab == NULL)
        return why_set(&error->why, ERR_INVALID,
                       "no vocabulary is known for this model: it can be counted, not tokenized");
    if (!q->is_text && info.chat == NULL)
        return why_set(&error->why, ERR_INVALID,
                       "the chat template of this model is not public: only text can be tokenized");
    error->param[0] = '\0';
    return ERR_OK;
}

static void tokenize(void *ctx, const struct http_request *req, struct http_reply *reply)
{
    struct service *s = ctx;
    struct arena a;
    struct jv body;
    struct token_request q;
    struct chat_count c;
    struct chat_error error = { .raised = false };
    struct token_list tokens = { .ids = NULL };
    struct buf rendered;
    buf_init(&rendered, RENDERED_MAX);
    scratch_init(&a, req);
    if (read_body(req, &a, &body, reply)) {
        struct models *models = service_models(s);
        enum err e = token_request_read(&a, body, &q, &error);
        if (e == ERR_OK) e = need_model(&q, &error);
        if (e == ERR_OK) e = check_has_ids(models, &q, &error);
        if (e == ERR_OK) {
            q.chat.to = &tokens;
            q.chat.rendered = &rendered;
            tokens.want_ends = q.is_text;
            e = service_count(s, models, &q, req->body.n, &a, &c, &error);
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
        models_unref(models);
    }
    token_list_done(&tokens);
    buf_done(&rendered);
    arena_done(&a);
}

/* One of a batch's inputs: its answer, or {"error":...} in its place. A string is a text. */
static enum err count_input(struct service *s, const struct models *models, struct jv input,
                            struct str model, struct arena *a, struct buf *out, uint64_t *total)
{
    struct token_request q = { .is_text = true };
    struct chat_count c;
    struct chat_error error = { .raised = false };
    enum err e = ERR_OK;
    if (input.type == JV_STR)
        q.text = jv_text(input);
    else
        e = token_request_read(a, input, &q, &error);
    if (e == ERR_OK && q.model.p == NULL) q.model = model;
    if (e == ERR_OK) e = need_model(&q, &error);
    if (e == ERR_OK) e = service_count(s, models, &q, q.is_text ? q.text.n : 0, a, &c, &error);
    if (e == ERR_NOMEM) return e;
    if (e == ERR_OK) {
        *total += c.tokens;
        e = buf_appendz(out, "{");
        if (e == ERR_OK) e = token_count_members(out, q.model, &c);
        return e == ERR_OK ? buf_appendz(out, "}") : e;
    }
    e = buf_appendz(out, "{\"error\":{\"message\":");
    if (e == ERR_OK) e = buf_append_json(out, str_of(error.why.text));
    if (e == ERR_OK) e = buf_appendz(out, ",\"param\":");
    if (e == ERR_OK)
        e = error.param[0] != '\0' ? buf_append_json(out, str_of(error.param))
                                   : buf_appendz(out, "null");
    return e == ERR_OK ? buf_appendz(out, "}}") : e;
}

static void count_batch(void *ctx, const struct http_request *req, struct http_reply *reply)
{
    struct service *s = ctx;
    struct arena a;
    struct jv body;
    struct chat_error error = { .raised = false };
    uint64_t total = 0;
    scratch_init(&a, req);
    if (read_body(req, &a, &body, reply)) {
        const struct jv *inputs = jv_member(body, STR("inputs"));
        const struct jv *model = jv_member(body, STR("model"));
        struct models *models = service_models(s);
        enum err e = ERR_OK;
        (void)str_copyz(error.param, sizeof error.param, STR("inputs"));
        if (inputs == NULL || inputs->type != JV_LIST)
            e = why_set(&error.why, ERR_INVALID, "inputs must be a list");
        else if (inputs->list->n > MAX_INPUTS)
            e = why_set(&error.why, ERR_LIMIT, "more than %d inputs", MAX_INPUTS);
        struct str name = model != NULL && model->type == JV_STR ? jv_text(*model) : STR_NULL;
        if (e == ERR_OK) e = buf_appendz(&reply->body, "{\"data\":[");
        for (uint32_t i = 0; e == ERR_OK && i < inputs->list->n; i++) {
            if (i > 0) e = buf_appendz(&reply->body, ",");
            if (e == ERR_OK)
                e = count_input(s, models, inputs->list->items[i], name, &a, &reply->body, &total);
        }
        if (e == ERR_OK)
            e = buf_printf(&reply->body, "],\"total_tokens\":%llu}\n", (unsigned long long)total);
        if (e != ERR_OK) fail(reply, e, &error);
        models_unref(models);
    }
    arena_done(&a);
}

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

static void list_models(void *ctx, const struct http_request *req, struct http_reply *reply)
{
    struct models *models = service_models(ctx);
    (void)req;
    enum err e = buf_appendz(&reply->body, "{\"object\":\"list\",\"data\":[");
    for (size_t i = 0; e == ERR_OK && i < models_count(models); i++) {
        struct model_info m;
        models_at(models, i, &m);
        if (i > 0) e = buf_appendz(&reply->body, ",");
        if (e == ERR_OK) e = append_model(&reply->body, m.vocabulary, &m);
    }
    if (e == ERR_OK) e = buf_appendz(&reply->body, "]}\n");
    if (e != ERR_OK) error_body(reply, 500, "the list could not be made", "", "internal");
    models_unref(models);
}

static void show_model(void *ctx, const struct http_request *req, struct http_reply *reply)
{
    struct models *models = service_models(ctx);
    struct model_info m;
    models_find(models, req->params[0], &m);
    enum err e = append_model(&reply->body, req->params[0], &m);
    if (e == ERR_OK) e = buf_appendz(&reply->body, "\n");
    if (e != ERR_OK) error_body(reply, 500, "the answer could not be made", "", "internal");
    models_unref(models);
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
    error_body(reply, status, message, "",
               status == 404   ? "not_found"
               : status == 405 ? "method_not_allowed"
               : status == 413 ? "body_too_large"
                               : "invalid_request");
}

enum err http_start(struct service *s, struct why *why)
{
    static const struct http_route routes[] = {
        { "POST", "/calculate", calculate },   { "POST", "/v1/tokenize", tokenize },
        { "POST", "/v1/count", count_batch },  { "GET", "/v1/models", list_models },
        { "GET", "/v1/models/*", show_model },
    };
    struct http_server_options o = {
        .bind = s->settings->bind,
        .port = (uint16_t)s->settings->port,
        .routes = routes,
        .routes_len = ARRAY_LEN(routes),
        .ctx = s,
        .max_body = MAX_BODY,
        .threads = s->threads,
        .max_connections = CONNECTIONS_MAX,
        .timeout_s = TIMEOUT_S,
        .after = after,
        .error_body = own_error,
    };
    return http_server_new(&o, &s->http, why);
}
