/* SPDX-License-Identifier: Apache-2.0 */
/*
 * OpenAI's chat completions, completions and embeddings, as vLLM and others speak them too.
 * Shapes: OpenAI API reference, "Chat", "Completions", "Embeddings", "Streaming".
 */
#include "dialect.h"

/* --- requests --- */

/* What is looked at of a request; some members only here. */
struct wanted {
    struct request_scan r;
    struct js_val stream, n, best_of;
};

#define M(name, field)                                         \
    {                                                          \
        name, sizeof(name) - 1, offsetof(struct wanted, field) \
    }

static const struct scan_member members[] = {
    M("model", r.model),
    M("messages", r.messages),
    M("prompt", r.prompt),
    M("input", r.input),
    M("tools", r.tools),
    M("stream_options", r.stream_options),
    M("max_completion_tokens", r.max_output[0]),
    M("max_tokens", r.max_output[1]),
    M("max_output_tokens", r.max_output[2]),
    M("user", r.user),
    M("add_generation_prompt", r.generation_prompt),
    M("chat_template_kwargs", r.template_kwargs),
    M("stream", stream),
    M("n", n),
    M("best_of", best_of),
};

static enum err scan_stream_options(struct request_scan *r, const char **ret_param, struct why *why)
{
    struct js_iter it;
    struct str key;
    struct js_val v;
    if (r->stream_options.raw.p == NULL || r->stream_options.type == JS_NULL) return ERR_OK;
    enum err e = scan_want(js_is(r->stream_options, JS_OBJECT), "stream_options",
                           "must be an object", ret_param, why);
    if (e != ERR_OK) return e;
    js_iter_init(&it, r->stream_options);
    while (js_next_member(&it, &key, &v)) {
        if (!js_key_is(key, "include_usage")) {
            e = scan_spelling(key, "include_usage", ret_param, why);
            if (e != ERR_OK) return e;
            continue;
        }
        if (r->include_usage.raw.p != NULL)
            return scan_want(false, "stream_options.include_usage", "given twice", ret_param, why);
        r->include_usage = v;
        r->wants_usage = v.type == JS_TRUE;
    }
    return ERR_OK;
}

/* What the body must have, by its endpoint. */
static enum err scan_required(enum snap_endpoint ep, const struct request_scan *r,
                              const char **ret_param, struct why *why)
{
    enum err e = scan_want(js_is(r->model, JS_STRING) && r->model.raw.n > 2, "model",
                           "required, a string", ret_param, why);
    if (e == ERR_OK && ep == SNAP_EP_CHAT)
        e = scan_want(js_is(r->messages, JS_ARRAY), "messages", "required, an array", ret_param,
                      why);
    if (e == ERR_OK && ep == SNAP_EP_COMPLETIONS)
        e = scan_want(r->prompt.raw.p != NULL, "prompt", "required", ret_param, why);
    if (e == ERR_OK && ep == SNAP_EP_EMBEDDINGS)
        e = scan_want(r->input.raw.p != NULL, "input", "required", ret_param, why);
    return e;
}

/* A list of texts, or of lists of token ids, is so many prompts. */
static uint64_t prompts(struct js_val prompt)
{
    struct js_iter it;
    struct js_val v;
    uint64_t n = 0;
    js_iter_init(&it, prompt);
    while (js_next_element(&it, &v))
        if (v.type != JS_NUMBER) n++;
    return MAX(n, UINT64_C(1));
}

/* Every parameter that bounds a choice, and how many choices there are. */
static enum err scan_output(struct wanted *o, const char **ret_param, struct why *why)
{
    struct request_scan *r = &o->r;
    static const char *const names[MAX_OUTPUT_PARAMS] = { "max_completion_tokens", "max_tokens",
                                                          "max_output_tokens" };
    uint64_t best_of = 1;
    enum err e = scan_positive(o->n, "n", &r->choices, ret_param, why);
    if (e == ERR_OK)
        e = scan_want(r->choices <= CHUNK_MAX_CHOICES, "n", "must be at most 32", ret_param, why);
    if (e == ERR_OK) e = scan_positive(o->best_of, "best_of", &best_of, ret_param, why);
    if (e == ERR_OK)
        e = scan_want(best_of <= CHUNK_MAX_CHOICES, "best_of", "must be at most 32", ret_param,
                      why);
    for (size_t i = 0; i < MAX_OUTPUT_PARAMS && e == ERR_OK; i++)
        e = scan_positive(r->max_output[i], names[i], &r->max_tokens, ret_param, why);
    r->choices = MAX(r->choices, best_of) * prompts(r->prompt);
    /* more are not told apart in the answer, and would pass uncounted */
    if (e == ERR_OK)
        e = scan_want(r->choices <= CHUNK_MAX_CHOICES, "prompt",
                      "prompts times choices must be at most 32", ret_param, why);
    return e;
}

static enum err scan_request(enum snap_endpoint ep, struct js_val root, struct request_scan *ret,
                             const char **ret_param, struct why *why)
{
    struct wanted w = { .r = { .root = root, .choices = 1 } };
    enum err e = scan_members(root, members, ARRAY_LEN(members), &w, ret_param, why);
    if (e == ERR_OK) e = scan_required(ep, &w.r, ret_param, why);
    if (e == ERR_OK && w.stream.raw.p != NULL && w.stream.type != JS_NULL) {
        e = scan_want(w.stream.type == JS_TRUE || w.stream.type == JS_FALSE, "stream",
                      "must be true or false", ret_param, why);
        w.r.stream = w.stream.type == JS_TRUE;
    }
    if (e == ERR_OK) e = scan_output(&w, ret_param, why);
    if (e == ERR_OK) e = scan_stream_options(&w.r, ret_param, why);
    if (e == ERR_OK) *ret = w.r;
    return e;
}

/* --- answers --- */

static bool take_tool_calls(struct chunk *c, uint64_t choice, struct js_val calls)
{
    struct js_iter it;
    struct js_val call;
    uint64_t position = 0;
    js_iter_init(&it, calls);
    for (; js_next_element(&it, &call); position++) {
        uint64_t index = position;
        if (js_u64(js_get(call, "index"), &index) != ERR_OK) index = position;
        struct js_val fn = js_get(call, "function");
        struct js_val input = js_get(js_get(call, "custom"), "input");
        if (!chunk_add_delta(c, DELTA_TOOL, choice, index, js_get(fn, "arguments")) ||
            !chunk_add_delta(c, DELTA_TOOL, choice, index, input))
            return false;
    }
    return true;
}

/* Content as a list of parts, of which those with a text have one; thinking may be a list again. */
static bool take_parts(struct chunk *c, enum delta_kind kind, uint64_t choice, struct js_val parts,
                       int depth)
{
    struct js_iter it;
    struct js_val part;
    bool ok = true;
    js_iter_init(&it, parts);
    while (ok && js_next_element(&it, &part)) {
        struct js_val text = js_get(part, "text"), thinking = js_get(part, "thinking");
        ok = chunk_add_delta(c, kind, choice, 0, text) &&
             chunk_add_delta(c, DELTA_REASONING, choice, 0, thinking);
        if (ok && js_is(thinking, JS_ARRAY) && depth < 2)
            ok = take_parts(c, DELTA_REASONING, choice, thinking, depth + 1);
        if (text.raw.p == NULL && thinking.raw.p == NULL) c->uncountable = true;
    }
    return ok;
}

/* Reasoning goes by two names, and some servers send both: the second is that text once more. */
static bool take_reasoning(struct chunk *c, uint64_t choice, struct js_val v, size_t first)
{
    size_t n = c->deltas_n;
    if (!chunk_add_delta(c, DELTA_REASONING, choice, 0, v)) return false;
    for (size_t i = first; i < n && c->deltas_n > n; i++)
        if (c->deltas[i].kind == DELTA_REASONING && str_eq(c->deltas[i].text.raw, v.raw)) {
            c->deltas[n].form = DELTA_MIRROR;
            c->deltas[n].of = (uint32_t)i;
            break;
        }
    return true;
}

/* A delta of a stream, or the message of a whole answer. */
static bool take_message(struct chunk *c, uint64_t choice, struct js_val message)
{
    struct js_iter it;
    struct str key;
    struct js_val v;
    bool ok = true;
    size_t first = c->deltas_n;
    js_iter_init(&it, message);
    while (ok && js_next_member(&it, &key, &v)) {
        if (js_key_is(key, "content")) {
            ok = js_is(v, JS_ARRAY) ? take_parts(c, DELTA_CONTENT, choice, v, 0)
                                    : chunk_add_delta(c, DELTA_CONTENT, choice, 0, v);
        } else if (js_key_is(key, "reasoning_content") || js_key_is(key, "reasoning")) {
            ok = take_reasoning(c, choice, v, first);
        } else if (js_key_is(key, "refusal")) {
            ok = chunk_add_delta(c, DELTA_REFUSAL, choice, 0, v);
        } else if (js_key_is(key, "tool_calls")) {
            ok = take_tool_calls(c, choice, v);
        } else if (js_key_is(key, "function_call")) {
            ok = chunk_add_delta(c, DELTA_TOOL, choice, 0, js_get(v, "arguments"));
        } else if (js_key_is(key, "audio") && js_is(v, JS_OBJECT)) {
            /* What was said is text; the sound itself has tokens that nobody here can count. */
            ok = chunk_add_delta(c, DELTA_CONTENT, choice, 1, js_get(v, "transcript"));
            c->uncountable = true;
        }
    }
    return ok;
}

static bool take_choice(struct chunk *c, uint64_t position, struct js_val choice)
{
    struct js_iter it;
    struct str key;
    struct js_val v, message = JS_ABSENT, text = message, finish = message, logprobs = message;
    uint64_t index = position;
    js_iter_init(&it, choice);
    while (js_next_member(&it, &key, &v)) {
        if (js_key_is(key, "index")) {
            if (js_u64(v, &index) != ERR_OK) return false;
        } else if (js_key_is(key, "delta") || js_key_is(key, "message")) {
            message = v;
        } else if (js_key_is(key, "text")) {
            text = v;
        } else if (js_key_is(key, "finish_reason")) {
            finish = v;
        } else if (js_key_is(key, "logprobs")) {
            logprobs = v;
        }
    }
    if (c->choices_n == CHUNK_MAX_CHOICES || index >= CHUNK_MAX_CHOICES) return false;
    c->choices[c->choices_n].index = (uint32_t)index;
    /* Some servers write "" where others have null. */
    c->choices[c->choices_n].finished = js_is(finish, JS_STRING) && finish.raw.n > 2;
    c->choices[c->choices_n].finish_reason = finish;
    c->choices[c->choices_n].logprobs = logprobs;
    c->choices_n++;
    return take_message(c, index, message) && chunk_add_delta(c, DELTA_CONTENT, index, 0, text);
}

static void take_usage(struct chunk *c, struct js_val usage)
{
    struct js_iter it;
    struct str key;
    struct js_val v;
    c->usage = usage;
    if (!js_is(usage, JS_OBJECT)) return;
    struct reported_usage r = { .present = true };
    js_iter_init(&it, usage);
    while (js_next_member(&it, &key, &v)) {
        uint64_t n = 0;
        if (js_is(v, JS_NUMBER) && js_u64(v, &n) != ERR_OK) continue;
        if (js_key_is(key, "prompt_tokens")) {
            r.input = n;
        } else if (js_key_is(key, "completion_tokens")) {
            r.output = n;
            c->completion_tokens = v;
        } else if (js_key_is(key, "total_tokens")) {
            c->total_tokens = v;
        } else if (js_key_is(key, "prompt_tokens_details")) {
            if (js_u64(js_get(v, "cached_tokens"), &r.cached) != ERR_OK) r.cached = 0;
        } else if (js_key_is(key, "completion_tokens_details")) {
            if (js_u64(js_get(v, "reasoning_tokens"), &r.reasoning) != ERR_OK) r.reasoning = 0;
        }
    }
    c->reported = r;
}

/* The member from its key's quote to its value's end, with one comma beside it, so that it can be
 * taken out. */
static struct str member_with_comma(struct js_val object, struct str key, struct js_val v)
{
    const char *start = key.p - 1, *end = v.raw.p + v.raw.n, *p;
    for (p = start - 1; p > object.raw.p && (*p == ' ' || *p == '\n' || *p == '\r' || *p == '\t');
         p--) {
    }
    if (*p == ',') return str_n(p, (size_t)(end - p));
    for (p = end; *p == ' ' || *p == '\n' || *p == '\r' || *p == '\t'; p++) {
    }
    return str_n(start, (size_t)((*p == ',' ? p + 1 : end) - start));
}

/* Strings of an answer that say what it is, and are the same in all events of a stream. Another one
 * that nobody reads is there to hide how long the text is: "obfuscation", "p". */
static bool is_of_head(struct str key)
{
    return js_key_is(key, "id") || js_key_is(key, "object") || js_key_is(key, "model") ||
           js_key_is(key, "service_tier") || js_key_is(key, "system_fingerprint");
}

static enum err parse_answer(struct js_val root, struct chunk *ret)
{
    struct js_iter it, choices_it;
    struct str key;
    struct js_val v, choice;
    bool has_choices = false;
    uint64_t position = 0;
    if (!js_is(root, JS_OBJECT)) return ERR_INVALID;
    chunk_clear(ret);
    js_iter_init(&it, root);
    while (js_next_member(&it, &key, &v)) {
        if (js_key_is(key, "choices")) {
            has_choices = js_is(v, JS_ARRAY);
            js_iter_init(&choices_it, v);
            while (js_next_element(&choices_it, &choice))
                if (!take_choice(ret, position++, choice)) return ERR_LIMIT;
        } else if (js_key_is(key, "usage")) {
            take_usage(ret, v);
            ret->usage_member = member_with_comma(root, key, v);
        } else if (js_key_is(key, "error")) {
            ret->is_error = v.type != JS_NULL;
        } else if (js_is(v, JS_STRING) && !is_of_head(key)) {
            ret->padding = v;
        }
    }
    ret->usage_only = has_choices && ret->choices_n == 0 && ret->reported.present;
    return ERR_OK;
}

static enum err parse_event(struct str name, struct str data, struct chunk *ret)
{
    struct js_val root;
    (void)name;
    if (str_eqz(str_trim(data), "[DONE]")) {
        chunk_clear(ret);
        ret->is_done = true;
        return ERR_OK;
    }
    enum err e = js_parse(data, &root, NULL);
    return e == ERR_OK ? parse_answer(root, ret) : e;
}

static enum err head(const struct ending *e, struct buf *out)
{
    enum err err = buf_appendz(out, "data: {");
    struct {
        const char *name;
        struct str raw;
    } f[] = {
        { "id", e->id }, { "object", e->object }, { "created", e->created }, { "model", e->model }
    };
    for (size_t i = 0; i < ARRAY_LEN(f) && err == ERR_OK; i++)
        if (f[i].raw.p != NULL) err = buf_printf(out, "\"%s\":%.*s,", f[i].name, STR_ARG(f[i].raw));
    return err;
}

static enum err write_ending(const struct ending *e, struct buf *out)
{
    /* Completions have "text" where chat has "delta"; their object tells which it is. */
    bool text = str_eqz(e->object, "\"text_completion\"");
    enum err err = ERR_OK;
    if (e->open_n > 0) {
        err = head(e, out);
        if (err == ERR_OK) err = buf_appendz(out, "\"choices\":[");
        for (size_t i = 0; i < e->open_n && err == ERR_OK; i++)
            err = buf_printf(
                out, "%s{\"index\":%u,%s,\"logprobs\":null,\"finish_reason\":\"length\"}",
                i > 0 ? "," : "", e->open_choices[i], text ? "\"text\":\"\"" : "\"delta\":{}");
        if (err == ERR_OK) err = buf_appendz(out, "]}\n\n");
    }
    if (err == ERR_OK && e->want_usage) {
        err = head(e, out);
        if (err == ERR_OK)
            err = buf_printf(
                out,
                "\"choices\":[],\"usage\":{\"prompt_tokens\":%llu,\"completion_tokens\":%llu,"
                "\"total_tokens\":%llu}}\n\n",
                (unsigned long long)e->input_tokens, (unsigned long long)e->output_tokens,
                (unsigned long long)(e->input_tokens + e->output_tokens));
    }
    return err == ERR_OK ? buf_appendz(out, "data: [DONE]\n\n") : err;
}

/* --- errors --- */

static const struct {
    const char *type, *code;
} errors[REFUSE_MAX] = {
    [REFUSE_BAD_KEY] = { "invalid_request_error", "invalid_api_key" },
    [REFUSE_FORBIDDEN] = { "permission_error", "access_denied" },
    [REFUSE_NO_ROUTE] = { "invalid_request_error", "route_not_found" },
    [REFUSE_NO_MODEL] = { "invalid_request_error", "model_not_found" },
    [REFUSE_BAD_BODY] = { "invalid_request_error", NULL },
    [REFUSE_CONTEXT_LENGTH] = { "invalid_request_error", "context_length_exceeded" },
    [REFUSE_BODY_TOO_LARGE] = { "invalid_request_error", "body_too_large" },
    [REFUSE_REQUESTS] = { "requests", "rate_limit_exceeded" },
    [REFUSE_TOKENS] = { "tokens", "rate_limit_exceeded" },
    [REFUSE_CONCURRENCY] = { "concurrency", "rate_limit_exceeded" },
    [REFUSE_QUOTA] = { "insufficient_quota", "insufficient_quota" },
    [REFUSE_NO_UPSTREAM] = { "service_unavailable_error", "no_healthy_upstream" },
    [REFUSE_UPSTREAM_LIMIT] = { "requests", "upstream_rate_limited" },
    [REFUSE_LIMITER_AWAY] = { "service_unavailable_error", "limiter_unavailable" },
    [REFUSE_OVERLOADED] = { "service_unavailable_error", "overloaded" },
    [REFUSE_DRAINING] = { "service_unavailable_error", "draining" },
    [REFUSE_UPSTREAM_BROKE] = { "upstream_error", "upstream_error" },
    [REFUSE_UPSTREAM_DENIED] = { "upstream_error", "upstream_denied" },
    [REFUSE_UPSTREAM_TIMEOUT] = { "upstream_error", "upstream_timeout" },
    [REFUSE_METHOD] = { "invalid_request_error", "method_not_allowed" },
    [REFUSE_CLIENT_TIMEOUT] = { "invalid_request_error", "request_timeout" },
    [REFUSE_MEDIA_TYPE] = { "invalid_request_error", "unsupported_media_type" },
    [REFUSE_HEAD_TOO_LARGE] = { "invalid_request_error", "head_too_large" },
    [REFUSE_UNKNOWN_CODING] = { "invalid_request_error", "unsupported_coding" },
    [REFUSE_BAD_REQUEST] = { "invalid_request_error", "bad_request" },
    [REFUSE_INTERNAL] = { "server_error", "internal_error" },
};

static enum err write_error(enum refusal r, struct str message, const char *param,
                            struct str request_id, struct buf *out)
{
    (void)request_id;
    enum err e = buf_appendz(out, "{\"error\":{\"message\":");
    if (e == ERR_OK) e = buf_append_json(out, message);
    if (e == ERR_OK) e = buf_printf(out, ",\"type\":\"%s\",\"param\":", errors[r].type);
    if (e == ERR_OK)
        e = param != NULL ? buf_append_json(out, str_of(param)) : buf_appendz(out, "null");
    if (e == ERR_OK) e = buf_appendz(out, ",\"code\":");
    if (e == ERR_OK)
        e = errors[r].code != NULL ? buf_append_json(out, str_of(errors[r].code))
                                   : buf_appendz(out, "null");
    return e == ERR_OK ? buf_appendz(out, "}}") : e;
}

static enum err write_error_event(enum refusal r, struct str message, struct str request_id,
                                  uint64_t sequence, struct buf *out)
{
    (void)sequence;
    enum err e = buf_appendz(out, "data: ");
    if (e == ERR_OK) e = write_error(r, message, NULL, request_id, out);
    return e == ERR_OK ? buf_appendz(out, "\n\n") : e;
}

const struct dialect dialect_openai = {
    .scan_request = scan_request,
    .parse_event = parse_event,
    .parse_answer = parse_answer,
    .write_ending = write_ending,
    .write_error_event = write_error_event,
    .write_error = write_error,
    .max_output_param = "max_completion_tokens",
    .max_output_least = 1,
    .length_reason = { "\"length\"", 8 },
};
