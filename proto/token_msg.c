/* SPDX-License-Identifier: Apache-2.0 */
#include "proto/token_msg.h"

#include <string.h>

#include "base/uuid.h"
#include "proto/envelope.h"

enum { ANSWER_ARENA = 64 << 10 };

static enum err fail(struct chat_error *error, enum err e, const char *param, const char *text)
{
    if (error == NULL) return e;
    *error = (struct chat_error){ .raised = false };
    (void)str_copyz(error->param, sizeof error->param, str_of(param));
    return why_set(&error->why, e, "%s", text);
}

static bool given(const struct jv *v)
{
    return v != NULL && v->type != JV_NONE;
}

static enum err read_special(struct jv object, enum special_mode *ret, struct chat_error *error)
{
    const struct jv *v = jv_member(object, STR("special"));
    *ret = SPECIAL_TEXT;
    if (!given(v)) return ERR_OK;
    if (v->type == JV_STR && str_eqz(jv_text(*v), "text")) return ERR_OK;
    if (v->type != JV_STR || !str_eqz(jv_text(*v), "control"))
        return fail(error, ERR_INVALID, "special", "special must be \"text\" or \"control\"");
    *ret = SPECIAL_CONTROL;
    return ERR_OK;
}

static enum err read_chat(struct jv object, struct jv messages, struct chat_values *ret,
                          struct chat_error *error)
{
    const struct jv *tools = jv_member(object, STR("tools"));
    const struct jv *kwargs = jv_member(object, STR("chat_template_kwargs"));
    const struct jv *documents = jv_member(object, STR("documents"));
    const struct jv *prompt = jv_member(object, STR("add_generation_prompt"));
    *ret = (struct chat_values){ .messages = messages };
    if (given(tools)) ret->tools = *tools;
    if (given(kwargs)) ret->kwargs = *kwargs;
    if (given(documents)) ret->documents = *documents;
    if (!given(prompt)) return ERR_OK;
    if (prompt->type != JV_BOOL)
        return fail(error, ERR_INVALID, "add_generation_prompt",
                    "add_generation_prompt must be true or false");
    ret->no_generation_prompt = !prompt->b;
    return ERR_OK;
}

enum err token_request_read(struct arena *a, struct jv object, struct token_request *ret,
                            struct chat_error *error)
{
    (void)a;
    struct token_request q = { .model = STR_NULL };
    if (object.type != JV_DICT)
        return fail(error, ERR_INVALID, "", "the request must be a JSON object");
    const struct jv *model = jv_member(object, STR("model"));
    const struct jv *messages = jv_member(object, STR("messages"));
    const struct jv *text = jv_member(object, STR("text"));
    if (given(model)) {
        if (model->type != JV_STR || model->n == 0)
            return fail(error, ERR_INVALID, "model", "model must be a string");
        if (model->n > TOKEN_MSG_MODEL_MAX)
            return fail(error, ERR_LIMIT, "model", "model is too long");
        q.model = jv_text(*model);
    }
    enum err e = read_special(object, &q.special, error);
    if (e != ERR_OK) return e;
    if (given(text) && given(messages))
        return fail(error, ERR_INVALID, "text", "give messages or text, not both");
    if (given(text)) {
        if (text->type != JV_STR) return fail(error, ERR_INVALID, "text", "text must be a string");
        q.is_text = true;
        q.text = jv_text(*text);
    } else if (given(messages)) {
        e = read_chat(object, *messages, &q.chat, error);
    } else {
        return fail(error, ERR_INVALID, "messages", "give messages (a chat) or text");
    }
    if (e == ERR_OK) *ret = q;
    return e;
}

enum err token_request_count(const struct token_request *q, const struct model_info *m,
                             struct arena *a, struct chat_count *ret, struct chat_error *error)
{
    if (!q->is_text) return chat_count_values(m, &q->chat, a, ret, error);
    enum err e = chat_count_text_until(m, q->text, q->special, q->chat.to, q->chat.stop, ret);
    if (e == ERR_OK || e == ERR_CLOSED) return e;
    return fail(error, e, "text", "the text needs too much memory");
}

enum err token_count_members(struct buf *out, struct str model, const struct chat_count *c)
{
    enum err e = buf_appendz(out, "\"model\":");
    if (e == ERR_OK) e = buf_append_json(out, model);
    if (e == ERR_OK)
        e = buf_printf(out, ",\"tokens\":%llu,\"exact\":%s,\"method\":\"%s\",\"vocabulary\":",
                       (unsigned long long)c->tokens, c->exact ? "true" : "false",
                       chat_method_name(c->method));
    if (e == ERR_OK)
        e = c->vocabulary.n > 0 ? buf_append_json(out, c->vocabulary) : buf_appendz(out, "null");
    if (e == ERR_OK && c->template_digest.p != NULL)
        e = buf_printf(out, ",\"template_digest\":\"%.*s\"", STR_ARG(c->template_digest));
    for (unsigned i = 0; e == ERR_OK && i < c->warnings_n; i++) {
        e = buf_appendz(out, i == 0 ? ",\"warnings\":[" : ",");
        if (e == ERR_OK) e = buf_append_json(out, str_of(c->warnings[i]));
    }
    if (e == ERR_OK && c->warnings_n > 0) e = buf_appendz(out, "]");
    return e;
}

/* {"v","id","ts","from" */
static enum err open_message(struct buf *out, const struct clock *clock, const struct rng *rng,
                             const char *from)
{
    char id[UUID_LEN + 1], ts[TIME_RFC3339_LEN + 1];
    uuid_v7(clock, rng, id);
    time_rfc3339(clock_wall_ns(clock), ts);
    enum err e = buf_printf(
        out, "{\"v\":%d,\"id\":\"%s\",\"ts\":\"%s\",\"from\":", ENVELOPE_VERSION, id, ts);
    return e == ERR_OK ? buf_append_json(out, str_of(from)) : e;
}

static enum err append_slice(struct buf *out, const char *name, struct str json)
{
    if (json.p == NULL) return ERR_OK;
    enum err e = buf_printf(out, ",\"%s\":", name);
    return e == ERR_OK ? buf_append_str(out, json) : e;
}

enum err token_msg_request(struct buf *out, const struct clock *clock, const struct rng *rng,
                           const char *from, const struct token_slices *s)
{
    size_t before = out->len;
    enum err e = open_message(out, clock, rng, from);
    if (e == ERR_OK) e = buf_appendz(out, ",\"model\":");
    if (e == ERR_OK) e = buf_append_json(out, s->model);
    if (e == ERR_OK) e = append_slice(out, "messages", s->messages);
    if (e == ERR_OK && s->text.p != NULL) {
        e = buf_appendz(out, ",\"text\":");
        if (e == ERR_OK) e = buf_append_json(out, s->text);
    }
    if (e == ERR_OK) e = append_slice(out, "tools", s->tools);
    if (e == ERR_OK) e = append_slice(out, "documents", s->documents);
    if (e == ERR_OK) e = append_slice(out, "chat_template_kwargs", s->kwargs);
    if (e == ERR_OK && s->no_generation_prompt)
        e = buf_appendz(out, ",\"add_generation_prompt\":false");
    if (e == ERR_OK && s->timeout_ms > 0) e = buf_printf(out, ",\"timeout_ms\":%u", s->timeout_ms);
    if (e == ERR_OK) e = buf_appendz(out, "}");
    if (e == ERR_OK && out->len - before > TOKEN_MSG_MAX) e = ERR_LIMIT;
    if (e != ERR_OK) out->len = before;
    return e;
}

/* Reads a message and checks its version. */
static enum err read_message(struct arena *a, struct str data, struct jv *ret,
                             struct chat_error *error)
{
    struct why why = { "" };
    if (data.n > TOKEN_MSG_MAX) return fail(error, ERR_LIMIT, "", "the message is too large");
    enum err e = jv_read_json(a, data, ret, &why);
    if (e != ERR_OK) return fail(error, e, "", why.text);
    const struct jv *v = jv_member(*ret, STR("v"));
    if (v == NULL || v->type != JV_INT)
        return fail(error, ERR_INVALID, "v", "v: missing or not a whole number");
    if (v->i != ENVELOPE_VERSION)
        return fail(error, ERR_UNSUPPORTED, "v", "v: this version is not supported");
    return ERR_OK;
}

static enum err read_timeout(struct jv object, uint64_t *ret, struct chat_error *error)
{
    const struct jv *v = jv_member(object, STR("timeout_ms"));
    *ret = 0;
    if (!given(v)) return ERR_OK;
    if (v->type != JV_INT || v->i < 1 || v->i > TOKEN_MSG_TIMEOUT_MAX_MS)
        return fail(error, ERR_INVALID, "timeout_ms",
                    "timeout_ms must be a whole number from 1 to 600000");
    *ret = (uint64_t)v->i;
    return ERR_OK;
}

enum err token_msg_request_parse(struct arena *a, struct str data, struct token_request *ret,
                                 struct chat_error *error)
{
    struct jv object;
    struct token_request q;
    enum err e = read_message(a, data, &object, error);
    if (e == ERR_OK) e = token_request_read(a, object, &q, error);
    if (e == ERR_OK && q.model.p == NULL)
        e = fail(error, ERR_INVALID, "model", "model must be a string");
    if (e == ERR_OK) e = read_timeout(object, &q.timeout_ms, error);
    if (e == ERR_OK) *ret = q;
    return e;
}

enum err token_msg_answer(struct buf *out, const struct clock *clock, const struct rng *rng,
                          const char *from, struct str model, const struct chat_count *c)
{
    size_t before = out->len;
    enum err e = open_message(out, clock, rng, from);
    if (e == ERR_OK) e = buf_appendz(out, ",");
    if (e == ERR_OK) e = token_count_members(out, model, c);
    if (e == ERR_OK) e = buf_appendz(out, "}");
    if (e != ERR_OK) out->len = before;
    return e;
}

enum err token_msg_error(struct buf *out, const struct clock *clock, const struct rng *rng,
                         const char *from, enum err code, const struct chat_error *error)
{
    size_t before = out->len;
    enum err e = open_message(out, clock, rng, from);
    if (e == ERR_OK)
        e = buf_printf(out, ",\"error\":{\"code\":\"%s\",\"message\":", err_name(code));
    if (e == ERR_OK) e = buf_append_json(out, str_of(error->why.text));
    if (e == ERR_OK && error->param[0] != '\0') {
        e = buf_appendz(out, ",\"param\":");
        if (e == ERR_OK) e = buf_append_json(out, str_of(error->param));
    }
    if (e == ERR_OK && error->raised) e = buf_appendz(out, ",\"raised\":true");
    if (e == ERR_OK) e = buf_appendz(out, "}}");
    if (e != ERR_OK) out->len = before;
    return e;
}

static enum err read_error(struct jv error, struct chat_error *ret)
{
    const struct jv *code = jv_member(error, STR("code")), *text = jv_member(error, STR("message"));
    const struct jv *param = jv_member(error, STR("param")),
                    *raised = jv_member(error, STR("raised"));
    enum err e = ERR_INTERNAL;
    char message[sizeof ret->why.text] = "", name[sizeof ret->param] = "";
    for (int i = ERR_OK + 1; code != NULL && code->type == JV_STR && i < ERR_MAX; i++)
        if (str_eqz(jv_text(*code), err_name((enum err)i))) e = (enum err)i;
    if (text != NULL && text->type == JV_STR)
        (void)str_copyz(message, sizeof message, jv_text(*text));
    if (param != NULL && param->type == JV_STR) (void)str_copyz(name, sizeof name, jv_text(*param));
    (void)fail(ret, e, name, message);
    if (ret != NULL) ret->raised = raised != NULL && raised->type == JV_BOOL && raised->b;
    return e;
}

static enum err read_answer(struct jv object, struct token_answer *ret, struct chat_error *error)
{
    struct token_answer t = { .tokens = 0 };
    const struct jv *tokens = jv_member(object, STR("tokens"));
    const struct jv *exact = jv_member(object, STR("exact"));
    const struct jv *method = jv_member(object, STR("method"));
    const struct jv *vocabulary = jv_member(object, STR("vocabulary"));
    if (tokens == NULL || tokens->type != JV_INT || tokens->i < 0)
        return fail(error, ERR_INVALID, "tokens", "tokens: missing or not a whole number");
    if (exact == NULL || exact->type != JV_BOOL)
        return fail(error, ERR_INVALID, "exact", "exact: missing or not true or false");
    int m = CHAT_TEMPLATE;
    while (m <= CHAT_ESTIMATE &&
           (method == NULL || method->type != JV_STR ||
            !str_eqz(jv_text(*method), chat_method_name((enum chat_method)m))))
        m++;
    if (m > CHAT_ESTIMATE) return fail(error, ERR_INVALID, "method", "method: not known");
    t.tokens = (uint64_t)tokens->i;
    t.exact = exact->b;
    t.method = (enum chat_method)m;
    if (given(vocabulary) && (vocabulary->type != JV_STR ||
                              !str_copyz(t.vocabulary, sizeof t.vocabulary, jv_text(*vocabulary))))
        return fail(error, ERR_INVALID, "vocabulary", "vocabulary: not a short string");
    *ret = t;
    return ERR_OK;
}

enum err token_msg_answer_parse(struct str data, struct token_answer *ret, struct chat_error *error)
{
    struct arena a;
    struct jv object;
    arena_init(&a, ANSWER_ARENA + data.n * 24);
    enum err e = read_message(&a, data, &object, error);
    if (e == ERR_OK) {
        const struct jv *bad = jv_member(object, STR("error"));
        e = bad != NULL ? read_error(*bad, error) : read_answer(object, ret, error);
    }
    arena_done(&a);
    return e;
}
