/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Anthropic's Messages. A content block is a text of its own; the whole message is one choice.
 * Shapes: Anthropic API reference, "Messages", "Streaming Messages", "Errors".
 */
#include "dialect.h"

/* --- requests --- */

static enum err refuse(const char *name, const char *what, const char **ret_param, struct why *why)
{
    *ret_param = name;
    return why_set(why, ERR_INVALID, "%s: %s", name, what);
}

static enum err scan_request(enum snap_endpoint ep, struct js_val root, struct request_scan *ret,
                             const char **ret_param, struct why *why)
{
    struct request_scan r = { .root = root, .choices = 1 };
    struct js_val stream = JS_ABSENT, metadata = stream;
    struct js_iter it;
    struct str key;
    struct js_val v;
    struct {
        const char *name;
        struct js_val *to;
    } known[] = {
        { "model", &r.model },     { "messages", &r.messages }, { "system", &r.system },
        { "tools", &r.tools },     { "stream", &stream },       { "max_tokens", &r.max_output[0] },
        { "metadata", &metadata },
    };
    (void)ep;
    if (!js_is(root, JS_OBJECT)) return refuse("body", "must be a JSON object", ret_param, why);
    js_iter_init(&it, root);
    while (js_next_member(&it, &key, &v)) {
        for (size_t i = 0; i < ARRAY_LEN(known); i++) {
            if (!js_key_is(key, known[i].name)) {
                enum err e = scan_spelling(key, known[i].name, ret_param, why);
                if (e != ERR_OK) return e;
                continue;
            }
            if (known[i].to->raw.p != NULL)
                return refuse(known[i].name, "given twice", ret_param, why);
            *known[i].to = v;
        }
    }
    if (!js_is(r.model, JS_STRING) || r.model.raw.n <= 2)
        return refuse("model", "required, a string", ret_param, why);
    if (!js_is(r.messages, JS_ARRAY))
        return refuse("messages", "required, an array", ret_param, why);
    if (stream.raw.p != NULL && stream.type != JS_NULL && stream.type != JS_TRUE &&
        stream.type != JS_FALSE)
        return refuse("stream", "must be true or false", ret_param, why);
    r.stream = stream.raw.p != NULL && stream.type == JS_TRUE;
    r.wants_usage = true; /* its streams always tell */
    js_iter_init(&it, metadata);
    while (js_next_member(&it, &key, &v)) {
        if (!js_key_is(key, "user_id")) continue;
        if (r.user.raw.p != NULL) return refuse("metadata.user_id", "given twice", ret_param, why);
        r.user = v;
    }
    enum err e = scan_positive(r.max_output[0], "max_tokens", &r.max_tokens, ret_param, why);
    if (e == ERR_OK) *ret = r;
    return e;
}

/* --- answers --- */

static void take_usage(struct chunk *c, struct js_val usage)
{
    uint64_t cached = 0, created = 0;
    if (!js_is(usage, JS_OBJECT)) return;
    struct reported_usage r = { .present = true };
    c->usage = usage;
    c->completion_tokens = js_get(usage, "output_tokens");
    if (js_u64(js_get(usage, "input_tokens"), &r.input) != ERR_OK) r.input = 0;
    if (js_u64(c->completion_tokens, &r.output) != ERR_OK) r.output = 0;
    if (js_u64(js_get(usage, "cache_read_input_tokens"), &cached) != ERR_OK) cached = 0;
    if (js_u64(js_get(usage, "cache_creation_input_tokens"), &created) != ERR_OK) created = 0;
    r.cached = cached;
    /* input_tokens leaves out what the cache holds */
    if (__builtin_add_overflow(r.input, cached, &r.input) ||
        __builtin_add_overflow(r.input, created, &r.input))
        r.input = UINT64_MAX;
    c->reported = r;
}

static bool take_block(struct chunk *c, uint64_t index, struct js_val block)
{
    struct js_val input = js_get(block, "input");
    /* A whole tool call has its arguments as a value, written by the server; and hidden thinking is
     * no text. */
    if (js_is(input, JS_OBJECT) && input.raw.n > 2) c->uncountable = true;
    if (js_get(block, "data").raw.p != NULL) c->uncountable = true;
    return chunk_add_form(c, DELTA_OBJECT, DELTA_TOOL, index, input) &&
           chunk_add_delta(c, DELTA_CONTENT, 0, index, js_get(block, "text")) &&
           chunk_add_delta(c, DELTA_REASONING, 0, index, js_get(block, "thinking")) &&
           chunk_add_delta(c, DELTA_TOOL, 0, index, js_get(block, "partial_json"));
}

static void take_stop(struct chunk *c, struct js_val reason)
{
    c->choices_n = 1;
    c->choices[0].index = 0;
    c->choices[0].finished = js_is(reason, JS_STRING);
    c->choices[0].finish_reason = reason;
    c->choices[0].logprobs = JS_ABSENT;
}

static enum err parse_event(struct str name, struct str data, struct chunk *ret)
{
    struct js_val root;
    uint64_t index = 0;
    (void)name; /* "type" in the data says the same */
    enum err e = js_parse(data, &root, NULL);
    if (e != ERR_OK) return e;
    chunk_clear(ret);
    struct js_val type = js_get(root, "type");
    struct str t = js_is(type, JS_STRING) ? str_n(type.raw.p + 1, type.raw.n - 2) : STR("");
    if (js_u64(js_get(root, "index"), &index) != ERR_OK) index = 0;
    if (index > UINT32_MAX) return ERR_INVALID;
    ret->block = (uint32_t)index;
    if (str_eqz(t, "content_block_delta")) {
        if (!take_block(ret, index, js_get(root, "delta"))) return ERR_LIMIT;
    } else if (str_eqz(t, "content_block_start")) {
        ret->block_started = true;
        if (!take_block(ret, index, js_get(root, "content_block"))) return ERR_LIMIT;
    } else if (str_eqz(t, "content_block_stop")) {
        ret->block_stopped = true;
    } else if (str_eqz(t, "message_start")) {
        take_usage(ret, js_get(js_get(root, "message"), "usage"));
    } else if (str_eqz(t, "message_delta")) {
        take_usage(ret, js_get(root, "usage"));
        take_stop(ret, js_get(js_get(root, "delta"), "stop_reason"));
    } else if (str_eqz(t, "message_stop")) {
        ret->is_done = true;
    } else if (str_eqz(t, "error")) {
        ret->is_error = true;
    }
    return ERR_OK;
}

static enum err parse_answer(struct js_val root, struct chunk *ret)
{
    struct js_iter it;
    struct js_val block;
    uint64_t index = 0;
    if (!js_is(root, JS_OBJECT)) return ERR_INVALID;
    chunk_clear(ret);
    js_iter_init(&it, js_get(root, "content"));
    while (js_next_element(&it, &block))
        if (!take_block(ret, index++, block)) return ERR_LIMIT;
    take_usage(ret, js_get(root, "usage"));
    take_stop(ret, js_get(root, "stop_reason"));
    struct js_val type = js_get(root, "type");
    ret->is_error = js_is(type, JS_STRING) && str_eqz(type.raw, "\"error\"");
    return ERR_OK;
}

static enum err write_ending(const struct ending *e, struct buf *out)
{
    enum err err = ERR_OK;
    if (e->block_open)
        err = buf_printf(
            out,
            "event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":%u}\n\n",
            e->block);
    if (err == ERR_OK)
        err = buf_printf(
            out,
            "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":"
            "\"max_tokens\",\"stop_sequence\":null},\"usage\":{\"output_tokens\":%llu}}\n\n",
            (unsigned long long)e->output_tokens);
    return err == ERR_OK
               ? buf_appendz(out, "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n")
               : err;
}

/* --- errors --- */

static const char *error_type(enum refusal r)
{
    switch (r) {
    case REFUSE_BAD_KEY: return "authentication_error";
    case REFUSE_FORBIDDEN: return "permission_error";
    case REFUSE_NO_ROUTE:
    case REFUSE_NO_MODEL: return "not_found_error";
    case REFUSE_BODY_TOO_LARGE: return "request_too_large";
    case REFUSE_REQUESTS:
    case REFUSE_TOKENS:
    case REFUSE_CONCURRENCY:
    case REFUSE_QUOTA:
    case REFUSE_UPSTREAM_LIMIT: return "rate_limit_error";
    case REFUSE_NO_UPSTREAM:
    case REFUSE_LIMITER_AWAY:
    case REFUSE_OVERLOADED:
    case REFUSE_DRAINING: return "overloaded_error";
    case REFUSE_UPSTREAM_BROKE:
    case REFUSE_UPSTREAM_DENIED:
    case REFUSE_INTERNAL: return "api_error";
    case REFUSE_UPSTREAM_TIMEOUT: return "timeout_error";
    default: return "invalid_request_error";
    }
}

static enum err write_error(enum refusal r, struct str message, const char *param,
                            struct str request_id, struct buf *out)
{
    (void)param; /* the message names it */
    enum err e = buf_printf(
        out, "{\"type\":\"error\",\"error\":{\"type\":\"%s\",\"message\":", error_type(r));
    if (e == ERR_OK) e = buf_append_json(out, message);
    if (e == ERR_OK) e = buf_appendz(out, "},\"request_id\":");
    if (e == ERR_OK) e = buf_append_json(out, request_id);
    return e == ERR_OK ? buf_append_char(out, '}') : e;
}

static enum err write_error_event(enum refusal r, struct str message, struct str request_id,
                                  uint64_t sequence, struct buf *out)
{
    (void)sequence;
    enum err e = buf_appendz(out, "event: error\ndata: ");
    if (e == ERR_OK) e = write_error(r, message, NULL, request_id, out);
    return e == ERR_OK ? buf_appendz(out, "\n\n") : e;
}

const struct dialect dialect_anthropic = {
    .scan_request = scan_request,
    .parse_event = parse_event,
    .parse_answer = parse_answer,
    .write_ending = write_ending,
    .write_error_event = write_error_event,
    .write_error = write_error,
    .max_output_param = NULL, /* required by the API */
    .max_output_least = 1,
    .length_reason = { "\"max_tokens\"", 12 },
};
