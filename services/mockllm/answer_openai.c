/* SPDX-License-Identifier: Apache-2.0 */
/*
 * OpenAI's chat completions, completions and embeddings: bodies and stream chunks as in its API
 * reference; `reasoning_content` as vLLM and DeepSeek send it. Pure.
 */
#include <math.h>

#include "answer.h"

enum phase { ROLES, TOOL_HEADS, PIECES, FINISHES, USAGE, TERMINATOR, OVER };

static enum err append_usage(const struct answer *a, struct buf *out)
{
    uint64_t prompt, completion;
    answer_usage(a, &prompt, &completion);
    enum err e = buf_printf(
        out, "{\"prompt_tokens\":%llu,\"completion_tokens\":%llu,\"total_tokens\":%llu",
        (unsigned long long)prompt, (unsigned long long)completion,
        (unsigned long long)(prompt + completion));
    if (e == ERR_OK && a->reasoning_tokens > 0)
        e = buf_printf(out, ",\"completion_tokens_details\":{\"reasoning_tokens\":%llu}",
                       (unsigned long long)a->reasoning_tokens);
    return e == ERR_OK ? buf_append_char(out, '}') : e;
}

/* {"id":…,"object":…,"created":…,"model":…,"choices":[ */
static enum err begin_object(const struct answer *a, struct buf *out)
{
    const char *object = a->api == API_COMPLETIONS ? "text_completion"
                         : a->stream               ? "chat.completion.chunk"
                                                   : "chat.completion";
    enum err e = buf_printf(out,
                            "{\"id\":\"%s\",\"object\":\"%s\",\"created\":%llu,\"model\":", a->id,
                            object, (unsigned long long)a->created_s);
    if (e == ERR_OK) e = buf_append_str(out, buf_str(&a->model));
    return e == ERR_OK ? buf_appendz(out, ",\"choices\":[") : e;
}

/* Ends the chunk in a->json and sends it. */
static enum err send_chunk(struct answer *a, struct buf *out)
{
    enum err e = buf_appendz(&a->json, a->send_usage ? "],\"usage\":null}" : "]}");
    return e == ERR_OK ? sse_event(out, a->behave, STR_NULL, buf_str(&a->json)) : e;
}

static enum err tool_head(struct answer *a, struct buf *out)
{
    enum err e = buf_printf(out,
                            "[{\"index\":0,\"id\":\"call_%s_%zu\",\"type\":\"function\","
                            "\"function\":{\"name\":",
                            a->id, a->at_choice);
    if (e == ERR_OK) e = buf_append_json(out, str_of(a->tool_name));
    return e;
}

/* The delta of the choice at hand in its phase. */
static enum err append_choice(struct answer *a, struct buf *j, struct event_info *ret)
{
    bool chat = a->api == API_CHAT;
    const struct choice *c = &a->choices[a->at_choice];
    enum part_kind part;
    enum err e = buf_printf(j, "{\"index\":%zu,%s", a->at_choice, chat ? "\"delta\":{" : "");
    if (e != ERR_OK) return e;
    switch ((enum phase)a->phase) {
    case ROLES: e = buf_appendz(j, "\"role\":\"assistant\",\"content\":\"\""); break;
    case TOOL_HEADS:
        e = buf_appendz(j, "\"tool_calls\":");
        if (e == ERR_OK) e = tool_head(a, j);
        if (e == ERR_OK) e = buf_appendz(j, ",\"arguments\":\"\"}}]");
        break;
    case PIECES:
        part = answer_part(c, a->at_piece);
        e = buf_appendz(j, !chat                    ? "\"text\":"
                           : part == PART_REASONING ? "\"reasoning_content\":"
                           : part == PART_CONTENT
                               ? "\"content\":"
                               : "\"tool_calls\":[{\"index\":0,\"function\":{\"arguments\":");
        if (e == ERR_OK) e = answer_take(a, j, &part, &ret->tokens);
        if (e == ERR_OK && chat && part == PART_TOOL) e = buf_appendz(j, "}}]");
        break;
    default: e = chat ? ERR_OK : buf_appendz(j, "\"text\":\"\""); break;
    }
    if (e != ERR_OK) return e;
    e = buf_appendz(j, chat ? "},\"logprobs\":null,\"finish_reason\":"
                            : ",\"logprobs\":null,\"finish_reason\":");
    if (e != ERR_OK) return e;
    if (a->phase != FINISHES) return buf_appendz(j, "null}");
    e = buf_append_json(j, str_of(c->finish));
    return e == ERR_OK ? buf_append_char(j, '}') : e;
}

static void next_choice_or_phase(struct answer *a)
{
    if (a->phase == PIECES) {
        answer_advance(a);
    } else {
        a->at_choice++;
    }
    if (a->at_choice < a->choices_len) return;
    a->at_choice = 0;
    a->phase++;
    if (a->phase == TOOL_HEADS && a->tool_name[0] == '\0') a->phase++;
    if (a->phase == PIECES) {
        while (a->at_choice < a->choices_len && a->choices[a->at_choice].len == 0) a->at_choice++;
        if (a->at_choice < a->choices_len) return;
        a->at_choice = 0;
        a->phase++;
    }
}

static enum err next(struct answer *a, struct buf *out, struct event_info *ret)
{
    enum err e;
    buf_clear(&a->json);
    if (a->phase == ROLES && a->api == API_COMPLETIONS) { /* has no such chunks */
        a->at_choice = a->choices_len;
        next_choice_or_phase(a);
    }
    if (a->phase == USAGE && !a->send_usage) a->phase++;
    switch ((enum phase)a->phase) {
    case OVER: return ERR_NOT_FOUND;
    case TERMINATOR:
        a->phase = OVER;
        ret->last = true;
        return sse_event(out, a->behave, STR_NULL, STR("[DONE]"));
    case USAGE:
        a->phase = TERMINATOR;
        e = begin_object(a, &a->json);
        if (e == ERR_OK) e = buf_appendz(&a->json, "],\"usage\":");
        if (e == ERR_OK) e = append_usage(a, &a->json);
        if (e == ERR_OK) e = buf_append_char(&a->json, '}');
        return e == ERR_OK ? sse_event(out, a->behave, STR_NULL, buf_str(&a->json)) : e;
    default:
        e = begin_object(a, &a->json);
        if (e == ERR_OK) e = append_choice(a, &a->json, ret);
        if (e == ERR_OK) e = send_chunk(a, out);
        if (e == ERR_OK) next_choice_or_phase(a);
        return e;
    }
}

/* --- whole bodies --- */

static enum err append_message(struct answer *a, const struct choice *c, struct buf *out)
{
    enum err e;
    if (a->api == API_COMPLETIONS) {
        e = buf_appendz(out, "\"text\":");
        return e == ERR_OK ? answer_part_json(out, &c->parts[PART_CONTENT]) : e;
    }
    e = buf_appendz(out, "\"message\":{\"role\":\"assistant\",\"content\":");
    if (e != ERR_OK) return e;
    e = a->tool_name[0] != '\0' ? buf_appendz(out, "null")
                                : answer_part_json(out, &c->parts[PART_CONTENT]);
    if (e == ERR_OK && c->parts[PART_REASONING].len > 0) {
        e = buf_appendz(out, ",\"reasoning_content\":");
        if (e == ERR_OK) e = answer_part_json(out, &c->parts[PART_REASONING]);
    }
    if (e == ERR_OK && a->tool_name[0] != '\0') {
        e = buf_appendz(out, ",\"tool_calls\":");
        if (e == ERR_OK) e = tool_head(a, out);
        if (e == ERR_OK) e = buf_appendz(out, ",\"arguments\":");
        if (e == ERR_OK) e = answer_part_json(out, &c->parts[PART_TOOL]);
        if (e == ERR_OK) e = buf_appendz(out, "}}]");
    }
    return e == ERR_OK ? buf_append_char(out, '}') : e;
}

static enum err whole(struct answer *a, struct buf *out)
{
    enum err e = begin_object(a, out);
    for (a->at_choice = 0; a->at_choice < a->choices_len && e == ERR_OK; a->at_choice++) {
        const struct choice *c = &a->choices[a->at_choice];
        e = buf_printf(out, "%s{\"index\":%zu,", a->at_choice > 0 ? "," : "", a->at_choice);
        if (e == ERR_OK) e = append_message(a, c, out);
        if (e == ERR_OK) e = buf_appendz(out, ",\"logprobs\":null,\"finish_reason\":");
        if (e == ERR_OK) e = buf_append_json(out, str_of(c->finish));
        if (e == ERR_OK) e = buf_append_char(out, '}');
    }
    if (e == ERR_OK) e = buf_append_char(out, ']');
    if (e == ERR_OK && a->send_usage) {
        e = buf_appendz(out, ",\"usage\":");
        if (e == ERR_OK) e = append_usage(a, out);
    }
    return e == ERR_OK ? buf_append_char(out, '}') : e;
}

static enum err error_event(struct answer *a, struct buf *out)
{
    buf_clear(&a->json);
    enum err e = answer_error(API_CHAT, 500, "The mock was told to fail here.", &a->json);
    return e == ERR_OK ? sse_event(out, a->behave, STR_NULL, buf_str(&a->json)) : e;
}

const struct answer_api answer_chat = { next, whole, error_event };
const struct answer_api answer_completions = { next, whole, error_event };

/* --- embeddings --- */

static enum err append_base64(struct buf *out, const unsigned char *p, size_t n)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    enum err e = buf_append_char(out, '"');
    for (size_t i = 0; i < n && e == ERR_OK; i += 3) {
        uint32_t v = (uint32_t)p[i] << 16 | (i + 1 < n ? (uint32_t)p[i + 1] << 8 : 0) |
                     (i + 2 < n ? p[i + 2] : 0);
        char four[4] = { digits[v >> 18], digits[v >> 12 & 63],
                         i + 1 < n ? digits[v >> 6 & 63] : '=', i + 2 < n ? digits[v & 63] : '=' };
        e = buf_append(out, four, 4);
    }
    return e == ERR_OK ? buf_append_char(out, '"') : e;
}

static enum err append_vector(struct answer *a, struct buf *out, uint64_t seed)
{
    float v[4096];
    size_t n = (size_t)MIN(a->dimensions, (uint64_t)ARRAY_LEN(v));
    for (size_t i = 0; i < n; i++) v[i] = (float)sin((double)(seed + 1) * (double)(i + 1));
    if (a->base64) return append_base64(out, (const unsigned char *)v, n * sizeof v[0]);
    enum err e = buf_append_char(out, '[');
    for (size_t i = 0; i < n && e == ERR_OK; i++)
        e = buf_printf(out, "%s%.6f", i > 0 ? "," : "", (double)v[i]);
    return e == ERR_OK ? buf_append_char(out, ']') : e;
}

static enum err embeddings_whole(struct answer *a, struct buf *out)
{
    enum err e = buf_appendz(out, "{\"object\":\"list\",\"data\":[");
    for (uint64_t i = 0; i < a->embeddings && e == ERR_OK; i++) {
        e = buf_printf(out, "%s{\"object\":\"embedding\",\"index\":%llu,\"embedding\":",
                       i > 0 ? "," : "", (unsigned long long)i);
        if (e == ERR_OK) e = append_vector(a, out, a->prompt_tokens + i);
        if (e == ERR_OK) e = buf_append_char(out, '}');
    }
    if (e == ERR_OK) e = buf_appendz(out, "],\"model\":");
    if (e == ERR_OK) e = buf_append_str(out, buf_str(&a->model));
    if (e == ERR_OK)
        e = buf_printf(out, ",\"usage\":{\"prompt_tokens\":%llu,\"total_tokens\":%llu}}",
                       (unsigned long long)a->prompt_tokens, (unsigned long long)a->prompt_tokens);
    return e;
}

static enum err no_stream(struct answer *a, struct buf *out, struct event_info *ret)
{
    return (void)a, (void)out, (void)ret, ERR_NOT_FOUND;
}

const struct answer_api answer_embeddings = { no_stream, embeddings_whole, error_event };
