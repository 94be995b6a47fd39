/* SPDX-License-Identifier: Apache-2.0 */
/*
 * OpenAI's Responses. Each text of an output item (a part of a message, of reasoning or of its
 * summary, a call's arguments) is a text of its own; the whole answer is one choice. The events
 * that repeat a text when it is complete are compared by length: what no delta brought is counted
 * there. Shapes: OpenAI API reference, "Responses", "Streaming events".
 */
#include "dialect.h"
#include "responses.h"
#include "transcript.h"

/* --- requests --- */

struct wanted {
    struct request_scan r;
    struct js_val stream, background, previous, conversation, prompt;
};

#define M(name, field)                                         \
    {                                                          \
        name, sizeof(name) - 1, offsetof(struct wanted, field) \
    }

static const struct scan_member members[] = {
    M("model", r.model),
    M("input", r.input),
    M("instructions", r.instructions),
    M("tools", r.tools),
    M("max_output_tokens", r.max_output[0]),
    M("user", r.user),
    M("chat_template_kwargs", r.template_kwargs),
    M("stream", stream),
    M("background", background),
    M("previous_response_id", previous),
    M("conversation", conversation),
    M("prompt", prompt),
};

static bool is_given(struct js_val v)
{
    return v.raw.p != NULL && v.type != JS_NULL;
}

static bool is_flag(struct js_val v)
{
    return !is_given(v) || v.type == JS_TRUE || v.type == JS_FALSE;
}

static enum err scan_request(enum snap_endpoint ep, struct js_val root, struct request_scan *ret,
                             const char **ret_param, struct why *why)
{
    struct wanted w = { .r = { .root = root, .choices = 1, .wants_usage = true } };
    (void)ep;
    enum err e = scan_members(root, members, ARRAY_LEN(members), &w, ret_param, why);
    if (e == ERR_OK)
        e = scan_want(js_is(w.r.model, JS_STRING) && w.r.model.raw.n > 2, "model",
                      "required, a string", ret_param, why);
    if (e == ERR_OK)
        e = scan_want(!is_given(w.r.input) || w.r.input.type == JS_STRING ||
                          w.r.input.type == JS_ARRAY,
                      "input", "must be a string or an array", ret_param, why);
    if (e == ERR_OK)
        e = scan_want(is_given(w.r.input) || is_given(w.previous) || is_given(w.conversation) ||
                          is_given(w.prompt),
                      "input", "required", ret_param, why);
    if (e == ERR_OK)
        e = scan_want(is_flag(w.stream), "stream", "must be true or false", ret_param, why);
    if (e == ERR_OK)
        e = scan_want(is_flag(w.background), "background", "must be true or false", ret_param, why);
    /* Its answer would be fetched later, by a request that nothing counts. */
    if (e == ERR_OK)
        e = scan_want(!js_is(w.background, JS_TRUE), "background",
                      "this gateway does not serve answers in the background", ret_param, why);
    if (e == ERR_OK)
        e = scan_positive(w.r.max_output[0], "max_output_tokens", &w.r.max_tokens, ret_param, why);
    if (e != ERR_OK) return e;
    w.r.stream = js_is(w.stream, JS_TRUE);
    w.r.context_elsewhere = is_given(w.previous) || is_given(w.conversation) || is_given(w.prompt);
    *ret = w.r;
    return ERR_OK;
}

/* --- answers --- */

static enum err add(struct chunk *c, enum delta_form form, enum responses_text t,
                    uint64_t output_index, uint64_t part_index, struct js_val text)
{
    uint32_t place;
    enum err e = responses_place(t, output_index, part_index, &place);
    if (e != ERR_OK) return e;
    return chunk_add_form(c, form, responses_texts[t].kind, place, text) ? ERR_OK : ERR_LIMIT;
}

/* A part of an item's list, by its type. */
static enum err take_part(struct chunk *c, enum delta_form form, uint64_t output_index,
                          uint64_t part_index, struct js_val part)
{
    struct str type = responses_word(js_get(part, "type"));
    for (enum responses_text t = 0; t < RT_MAX; t++)
        if (responses_texts[t].list != NULL && str_eqz(type, responses_texts[t].type))
            return add(c, form, t, output_index, part_index,
                       js_get(part, responses_texts[t].member));
    return ERR_OK;
}

static enum err take_item(struct chunk *c, enum delta_form form, uint64_t output_index,
                          struct js_val item)
{
    static const char *const lists[] = { "summary", "content" };
    struct str type = responses_word(js_get(item, "type"));
    enum err e = ERR_OK;
    for (enum responses_text t = 0; t < RT_MAX; t++)
        if (responses_texts[t].list == NULL && str_eqz(type, responses_texts[t].type))
            return add(c, form, t, output_index, 0, js_get(item, responses_texts[t].member));
    for (size_t i = 0; i < ARRAY_LEN(lists); i++) {
        struct js_iter it;
        struct js_val part;
        uint64_t index = 0;
        js_iter_init(&it, js_get(item, lists[i]));
        while (e == ERR_OK && js_next_element(&it, &part))
            e = take_part(c, form, output_index, index++, part);
    }
    return e;
}

static void take_usage(struct chunk *c, struct js_val usage)
{
    if (!js_is(usage, JS_OBJECT)) return;
    struct reported_usage r = { .present = true };
    c->usage = usage;
    c->completion_tokens = js_get(usage, "output_tokens");
    c->total_tokens = js_get(usage, "total_tokens");
    r.input = responses_index(usage, "input_tokens");
    r.output = responses_index(usage, "output_tokens");
    r.cached = responses_index(js_get(usage, "input_tokens_details"), "cached_tokens");
    r.reasoning = responses_index(js_get(usage, "output_tokens_details"), "reasoning_tokens");
    c->reported = r;
}

/* The response object, with what it has of output and usage. */
static enum err take_response(struct chunk *c, struct js_val response)
{
    struct js_iter it;
    struct js_val item, error = js_get(response, "error");
    uint64_t index = 0;
    enum err e = ERR_OK;
    js_iter_init(&it, js_get(response, "output"));
    while (e == ERR_OK && js_next_element(&it, &item)) e = take_item(c, DELTA_WHOLE, index++, item);
    take_usage(c, js_get(response, "usage"));
    if (is_given(error)) c->is_error = true;
    return e;
}

static enum err take_event(struct chunk *c, struct str type, struct js_val root)
{
    struct str what;
    uint64_t output_index = responses_index(root, "output_index");
    enum responses_text t = responses_text_of(type, &what);
    if (t != RT_MAX) {
        const struct responses_text_kind *k = &responses_texts[t];
        uint64_t part = k->index != NULL ? responses_index(root, k->index) : 0;
        if (str_eqz(what, "delta"))
            return add(c, DELTA_PIECE, t, output_index, part, js_get(root, "delta"));
        if (str_eqz(what, "done"))
            return add(c, DELTA_WHOLE, t, output_index, part, js_get(root, k->member));
        return ERR_OK;
    }
    enum delta_form form = str_ends(type, STR(".done")) ? DELTA_WHOLE : DELTA_SO_FAR;
    if (str_starts(type, STR("response.output_item.")))
        return take_item(c, form, output_index, js_get(root, "item"));
    if (str_starts(type, STR("response.content_part.")))
        return take_part(c, form, output_index, responses_index(root, "content_index"),
                         js_get(root, "part"));
    if (str_starts(type, STR("response.reasoning_summary_part.")))
        return take_part(c, form, output_index, responses_index(root, "summary_index"),
                         js_get(root, "part"));
    if (str_eqz(type, "error")) c->is_error = true;
    bool failed = str_eqz(type, "response.failed");
    if (!failed && !str_eqz(type, "response.completed") && !str_eqz(type, "response.incomplete"))
        return ERR_OK;
    c->is_done = true;
    c->is_error = failed;
    return take_response(c, js_get(root, "response"));
}

/* The pieces of text in one event are its choice's logprobs' too: they go at a cut. */
static void take_logprobs(struct chunk *c, struct js_val root)
{
    const struct js_val absent = JS_ABSENT;
    struct js_val v = js_get(root, "logprobs");
    if (!js_is(v, JS_ARRAY)) return;
    c->choices_n = 1;
    c->choices[0].index = 0;
    c->choices[0].finished = false;
    c->choices[0].finish_reason = absent;
    c->choices[0].logprobs = v;
}

static enum err parse_event(struct str name, struct str data, struct chunk *ret)
{
    struct js_val root;
    chunk_clear(ret);
    if (str_eqz(str_trim(data), "[DONE]")) { /* some servers send one here, too */
        ret->is_done = true;
        return ERR_OK;
    }
    enum err e = js_parse(data, &root, NULL);
    if (e != ERR_OK) return e;
    struct str type = responses_word(js_get(root, "type"));
    if (type.p == NULL && name.p != NULL) type = name;
    ret->sequence_at = js_get(root, "sequence_number");
    ret->has_sequence = js_u64(ret->sequence_at, &ret->sequence) == ERR_OK;
    ret->padding = js_get(root, "obfuscation");
    take_logprobs(ret, root);
    return take_event(ret, type, root);
}

static enum err parse_answer(struct js_val root, struct chunk *ret)
{
    if (!js_is(root, JS_OBJECT)) return ERR_INVALID;
    chunk_clear(ret);
    enum err e = take_response(ret, root);
    ret->choices_n = 1;
    ret->choices[0].index = 0;
    ret->choices[0].finish_reason = js_get(root, "status");
    ret->choices[0].finished = js_is(ret->choices[0].finish_reason, JS_STRING);
    ret->choices[0].logprobs = JS_ABSENT;
    ret->incomplete_details = js_get(root, "incomplete_details");
    return e;
}

static enum err write_ending(const struct ending *e, struct buf *out)
{
    return transcript_write_ending(e->transcript, e, out);
}

/* --- errors --- */

static enum err write_error(enum refusal r, struct str message, const char *param,
                            struct str request_id, struct buf *out)
{
    return dialect_openai.write_error(r, message, param, request_id, out);
}

/* The documented members, and the error as an object, which clients look for in every event. */
static enum err write_error_event(enum refusal r, struct str message, struct str request_id,
                                  uint64_t sequence, struct buf *out)
{
    struct buf error;
    struct js_val root, o;
    buf_init(&error, 65536);
    enum err e = write_error(r, message, NULL, request_id, &error);
    if (e == ERR_OK) e = js_parse(buf_str(&error), &root, NULL);
    if (e == ERR_OK) {
        o = js_get(root, "error");
        e = buf_printf(out,
                       "event: error\ndata: {\"type\":\"error\",\"sequence_number\":%llu,"
                       "\"code\":%.*s,\"message\":%.*s,\"param\":null,\"error\":%.*s}\n\n",
                       (unsigned long long)sequence, STR_ARG(js_get(o, "code").raw),
                       STR_ARG(js_get(o, "message").raw), STR_ARG(o.raw));
    }
    buf_done(&error);
    return e;
}

const struct dialect dialect_responses = {
    .scan_request = scan_request,
    .parse_event = parse_event,
    .parse_answer = parse_answer,
    .write_ending = write_ending,
    .write_error_event = write_error_event,
    .write_error = write_error,
    .max_output_param = "max_output_tokens",
    .max_output_least = 16,
    .length_reason = { "\"incomplete\"", 12 },
    .keeps_transcript = true,
};
