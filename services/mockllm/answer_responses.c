/* SPDX-License-Identifier: Apache-2.0 */
/* OpenAI's Responses: bodies and the events of its streams, as in its API reference. Pure. */
#include "answer.h"

enum phase { CREATED, IN_PROGRESS, PIECES, TEXT_DONE, PART_DONE, ITEM_DONE, COMPLETED, OVER };

static const char *const item_kind[PART_MAX] = { "rs", "msg", "fc" };

static bool cut(const struct answer *a)
{
    return strcmp(a->choices[0].finish, "length") == 0;
}

static unsigned item_index(const struct answer *a, enum part_kind p)
{
    unsigned n = 0;
    for (enum part_kind i = PART_REASONING; i < p; i++) n += a->choices[0].parts[i].len > 0;
    return n;
}

/* One output item; done: with its text and status completed, else as it begins. */
static enum err append_item(const struct answer *a, struct buf *out, enum part_kind p, bool done)
{
    const struct text *t = &a->choices[0].parts[p];
    enum err e = buf_printf(out, "{\"id\":\"%s_%s\",", item_kind[p], a->id);
    if (e != ERR_OK) return e;
    const char *status = done ? "completed" : "in_progress";
    if (p == PART_TOOL) {
        e = buf_printf(out,
                       "\"type\":\"function_call\",\"status\":\"%s\",\"call_id\":\"call_%s\","
                       "\"name\":",
                       status, a->id);
        if (e == ERR_OK) e = buf_append_json(out, str_of(a->tool_name));
        if (e == ERR_OK) e = buf_appendz(out, ",\"arguments\":");
        if (e == ERR_OK) e = done ? answer_part_json(out, t) : buf_appendz(out, "\"\"");
        return e == ERR_OK ? buf_append_char(out, '}') : e;
    }
    e = p == PART_CONTENT
            ? buf_printf(out,
                         "\"type\":\"message\",\"role\":\"assistant\",\"status\":\"%s\","
                         "\"content\":[",
                         status)
            : buf_appendz(out, "\"type\":\"reasoning\",\"summary\":[],\"content\":[");
    if (e == ERR_OK && done) {
        e = buf_appendz(out, p == PART_CONTENT ? "{\"type\":\"output_text\",\"annotations\":[],"
                                                 "\"text\":"
                                               : "{\"type\":\"reasoning_text\",\"text\":");
        if (e == ERR_OK) e = answer_part_json(out, t);
        if (e == ERR_OK) e = buf_append_char(out, '}');
    }
    return e == ERR_OK ? buf_appendz(out, "]}") : e;
}

/* The response object; done: with its output and usage. */
static enum err append_response(const struct answer *a, struct buf *out, bool done)
{
    bool first = true;
    const char *status = !done ? "in_progress" : cut(a) ? "incomplete" : "completed";
    enum err e = buf_printf(out,
                            "{\"id\":\"%s\",\"object\":\"response\",\"created_at\":%llu,"
                            "\"status\":\"%s\",\"error\":null,\"incomplete_details\":%s,\"model\":",
                            a->id, (unsigned long long)a->created_s, status,
                            done && cut(a) ? "{\"reason\":\"max_output_tokens\"}" : "null");
    if (e == ERR_OK) e = buf_append_str(out, buf_str(&a->model));
    if (e == ERR_OK) e = buf_appendz(out, ",\"output\":[");
    for (enum part_kind p = PART_REASONING; p < PART_MAX && done && e == ERR_OK; p++) {
        if (a->choices[0].parts[p].len == 0) continue;
        if (!first) e = buf_append_char(out, ',');
        if (e == ERR_OK) e = append_item(a, out, p, true);
        first = false;
    }
    if (e != ERR_OK) return e;
    if (!done || a->behave->usage == USAGE_NONE) return buf_appendz(out, "],\"usage\":null}");
    uint64_t prompt, completion;
    answer_usage(a, &prompt, &completion);
    return buf_printf(out,
                      "],\"usage\":{\"input_tokens\":%llu,\"input_tokens_details\":{"
                      "\"cached_tokens\":0},\"output_tokens\":%llu,\"output_tokens_details\":{"
                      "\"reasoning_tokens\":%llu},\"total_tokens\":%llu}}",
                      (unsigned long long)prompt, (unsigned long long)completion,
                      (unsigned long long)a->reasoning_tokens,
                      (unsigned long long)(prompt + completion));
}

/* {"type":TYPE,"sequence_number":N */
static enum err begin(struct answer *a, const char *type)
{
    return buf_printf(&a->json, "{\"type\":\"%s\",\"sequence_number\":%llu", type,
                      (unsigned long long)a->sequence++);
}

static enum err send(struct answer *a, struct buf *out, const char *type)
{
    enum err e = buf_append_char(&a->json, '}');
    return e == ERR_OK ? sse_event(out, a->behave, str_of(type), buf_str(&a->json)) : e;
}

static enum err response_event(struct answer *a, struct buf *out, const char *type, bool done)
{
    enum err e = begin(a, type);
    if (e == ERR_OK) e = buf_appendz(&a->json, ",\"response\":");
    if (e == ERR_OK) e = append_response(a, &a->json, done);
    return e == ERR_OK ? send(a, out, type) : e;
}

static enum err item_event(struct answer *a, struct buf *out, enum part_kind p, bool done)
{
    const char *type = done ? "response.output_item.done" : "response.output_item.added";
    enum err e = begin(a, type);
    if (e == ERR_OK) e = buf_printf(&a->json, ",\"output_index\":%u,\"item\":", item_index(a, p));
    if (e == ERR_OK) e = append_item(a, &a->json, p, done);
    return e == ERR_OK ? send(a, out, type) : e;
}

/* item_id, output_index and content_index of part p. */
static enum err place(struct answer *a, enum part_kind p)
{
    return buf_printf(&a->json, ",\"item_id\":\"%s_%s\",\"output_index\":%u%s", item_kind[p], a->id,
                      item_index(a, p), p == PART_TOOL ? "" : ",\"content_index\":0");
}

static enum err content_part_event(struct answer *a, struct buf *out, enum part_kind p, bool done)
{
    const char *type = done ? "response.content_part.done" : "response.content_part.added";
    enum err e = begin(a, type);
    if (e == ERR_OK) e = place(a, p);
    if (e == ERR_OK)
        e = buf_appendz(&a->json, p == PART_CONTENT
                                      ? ",\"part\":{\"type\":\"output_text\",\"annotations\":[],"
                                        "\"text\":"
                                      : ",\"part\":{\"type\":\"reasoning_text\",\"text\":");
    if (e == ERR_OK)
        e = done ? answer_part_json(&a->json, &a->choices[0].parts[p])
                 : buf_appendz(&a->json, "\"\"");
    if (e == ERR_OK) e = buf_append_char(&a->json, '}');
    return e == ERR_OK ? send(a, out, type) : e;
}

static const char *const delta_type[PART_MAX] = {
    "response.reasoning_text.delta",
    "response.output_text.delta",
    "response.function_call_arguments.delta",
};
static const char *const done_type[PART_MAX] = {
    "response.reasoning_text.done",
    "response.output_text.done",
    "response.function_call_arguments.done",
};

static enum err delta(struct answer *a, struct buf *out, enum part_kind p, struct event_info *ret)
{
    enum err e = begin(a, delta_type[p]);
    if (e == ERR_OK) e = place(a, p);
    if (e == ERR_OK) e = buf_appendz(&a->json, ",\"delta\":");
    if (e == ERR_OK) e = answer_take(a, &a->json, &p, &ret->tokens);
    if (e == ERR_OK) e = send(a, out, delta_type[p]);
    if (e != ERR_OK) return e;
    answer_advance(a);
    if (!answer_at_token(a) || answer_part(&a->choices[0], a->at_piece) != p) a->phase = TEXT_DONE;
    return ERR_OK;
}

static enum err text_done_event(struct answer *a, struct buf *out, enum part_kind p)
{
    enum err e = begin(a, done_type[p]);
    if (e == ERR_OK) e = place(a, p);
    if (e == ERR_OK) e = buf_appendz(&a->json, p == PART_TOOL ? ",\"arguments\":" : ",\"text\":");
    if (e == ERR_OK) e = answer_part_json(&a->json, &a->choices[0].parts[p]);
    return e == ERR_OK ? send(a, out, done_type[p]) : e;
}

/* open_parts: bit p: the item was added; bit p + PART_MAX: its content part was. */
static enum err next(struct answer *a, struct buf *out, struct event_info *ret)
{
    const struct choice *c = &a->choices[0];
    enum part_kind p = PART_TOOL;
    buf_clear(&a->json);
    /* The part whose item is open is the last one begun. */
    while (p > PART_REASONING && (a->open_parts & 1u << p) == 0) p--;
    switch ((enum phase)a->phase) {
    case CREATED: a->phase = IN_PROGRESS; return response_event(a, out, "response.created", false);
    case IN_PROGRESS:
        a->phase = c->len > 0 ? PIECES : COMPLETED;
        return response_event(a, out, "response.in_progress", false);
    case PIECES:
        p = answer_part(c, a->at_piece);
        if ((a->open_parts & 1u << p) == 0) {
            a->open_parts |= 1u << p;
            return item_event(a, out, p, false);
        }
        if (p != PART_TOOL && (a->open_parts & 1u << (p + PART_MAX)) == 0) {
            a->open_parts |= 1u << (p + PART_MAX);
            return content_part_event(a, out, p, false);
        }
        return delta(a, out, p, ret);
    case TEXT_DONE:
        a->phase = p != PART_TOOL ? PART_DONE : ITEM_DONE;
        return text_done_event(a, out, p);
    case PART_DONE: a->phase = ITEM_DONE; return content_part_event(a, out, p, true);
    case ITEM_DONE:
        a->phase = answer_at_token(a) ? PIECES : COMPLETED;
        return item_event(a, out, p, true);
    case COMPLETED:
        a->phase = OVER;
        ret->last = true;
        return response_event(a, out, cut(a) ? "response.incomplete" : "response.completed", true);
    case OVER: break;
    }
    return ERR_NOT_FOUND;
}

static enum err whole(struct answer *a, struct buf *out)
{
    return append_response(a, out, true);
}

static enum err error_event(struct answer *a, struct buf *out)
{
    buf_clear(&a->json);
    enum err e = begin(a, "error");
    if (e == ERR_OK)
        e = buf_appendz(&a->json, ",\"code\":\"server_error\",\"param\":null,"
                                  "\"message\":\"The mock was told to fail here.\"");
    return e == ERR_OK ? send(a, out, "error") : e;
}

const struct answer_api answer_responses = { next, whole, error_event };
