/* SPDX-License-Identifier: Apache-2.0 */
/* Anthropic's Messages: bodies and the events of its streams, as in its API reference. Pure. */
#include "answer.h"

enum phase { START, PING, PIECES, BLOCK_STOP, DELTA, STOP, OVER };

static const char *stop_reason(const struct choice *c)
{
    if (strcmp(c->finish, "stop") == 0) return "end_turn";
    if (strcmp(c->finish, "length") == 0) return "max_tokens";
    if (strcmp(c->finish, "tool_calls") == 0) return "tool_use";
    return c->finish;
}

static enum err send(struct answer *a, struct buf *out, struct str name)
{
    return sse_event(out, a->behave, name, buf_str(&a->json));
}

/* Up to and with the opening quote-less "content":[ */
static enum err begin_message(const struct answer *a, struct buf *out)
{
    enum err e = buf_printf(
        out, "{\"id\":\"%s\",\"type\":\"message\",\"role\":\"assistant\",\"model\":", a->id);
    if (e == ERR_OK) e = buf_append_str(out, buf_str(&a->model));
    return e == ERR_OK ? buf_appendz(out, ",\"content\":[") : e;
}

static enum err append_usage(const struct answer *a, struct buf *out, bool with_prompt,
                             bool at_start)
{
    uint64_t prompt, completion;
    answer_usage(a, &prompt, &completion);
    if (at_start) completion = 1;
    if (!with_prompt)
        return buf_printf(out, "{\"output_tokens\":%llu}", (unsigned long long)completion);
    return buf_printf(out,
                      "{\"input_tokens\":%llu,\"cache_creation_input_tokens\":0,"
                      "\"cache_read_input_tokens\":0,\"output_tokens\":%llu}",
                      (unsigned long long)prompt, (unsigned long long)completion);
}

/* How many parts with something in them come before part p: the index of its block. */
static unsigned block_index(const struct answer *a, enum part_kind p)
{
    unsigned n = 0;
    for (enum part_kind i = PART_REASONING; i < p; i++) n += a->choices[0].parts[i].len > 0;
    return n;
}

static enum err block_start(struct answer *a, struct buf *out, enum part_kind p)
{
    struct buf *j = &a->json;
    enum err e = buf_printf(
        j, "{\"type\":\"content_block_start\",\"index\":%u,\"content_block\":", block_index(a, p));
    if (e != ERR_OK) return e;
    if (p == PART_REASONING) {
        e = buf_appendz(j, "{\"type\":\"thinking\",\"thinking\":\"\",\"signature\":\"\"}}");
    } else if (p == PART_CONTENT) {
        e = buf_appendz(j, "{\"type\":\"text\",\"text\":\"\"}}");
    } else {
        e = buf_printf(j, "{\"type\":\"tool_use\",\"id\":\"toolu_%s\",\"name\":", a->id);
        if (e == ERR_OK) e = buf_append_json(j, str_of(a->tool_name));
        if (e == ERR_OK) e = buf_appendz(j, ",\"input\":{}}}");
    }
    return e == ERR_OK ? send(a, out, STR("content_block_start")) : e;
}

static enum err block_delta(struct answer *a, struct buf *out, enum part_kind p,
                            struct event_info *ret)
{
    static const char *const head[PART_MAX] = {
        [PART_REASONING] = "{\"type\":\"thinking_delta\",\"thinking\":",
        [PART_CONTENT] = "{\"type\":\"text_delta\",\"text\":",
        [PART_TOOL] = "{\"type\":\"input_json_delta\",\"partial_json\":",
    };
    struct buf *j = &a->json;
    enum err e = buf_printf(j, "{\"type\":\"content_block_delta\",\"index\":%u,\"delta\":%s",
                            block_index(a, p), head[p]);
    if (e == ERR_OK) e = answer_take(a, j, &p, &ret->tokens);
    if (e == ERR_OK) e = buf_appendz(j, "}}");
    if (e == ERR_OK) e = send(a, out, STR("content_block_delta"));
    if (e != ERR_OK) return e;
    answer_advance(a);
    if (!answer_at_token(a) || answer_part(&a->choices[0], a->at_piece) != p) a->phase = BLOCK_STOP;
    return ERR_OK;
}

static enum err next(struct answer *a, struct buf *out, struct event_info *ret)
{
    struct buf *j = &a->json;
    const struct choice *c = &a->choices[0];
    enum part_kind p;
    enum err e;
    buf_clear(j);
    switch ((enum phase)a->phase) {
    case START:
        a->phase = PING;
        e = buf_appendz(j, "{\"type\":\"message_start\",\"message\":");
        if (e == ERR_OK) e = begin_message(a, j);
        if (e == ERR_OK)
            e = buf_appendz(j, "],\"stop_reason\":null,\"stop_sequence\":null,\"usage\":");
        if (e == ERR_OK) e = append_usage(a, j, true, true);
        if (e == ERR_OK) e = buf_appendz(j, "}}");
        return e == ERR_OK ? send(a, out, STR("message_start")) : e;
    case PING:
        a->phase = c->len > 0 ? PIECES : DELTA;
        e = buf_appendz(j, "{\"type\":\"ping\"}");
        return e == ERR_OK ? send(a, out, STR("ping")) : e;
    case PIECES:
        p = answer_part(c, a->at_piece);
        if ((a->open_parts & 1u << p) == 0) {
            a->open_parts |= 1u << p;
            return block_start(a, out, p);
        }
        return block_delta(a, out, p, ret);
    case BLOCK_STOP: {
        bool more = answer_at_token(a);
        a->phase = more ? PIECES : DELTA;
        /* The block that is open is the last one begun. */
        for (p = PART_TOOL; (a->open_parts & 1u << p) == 0;) p--;
        e = buf_printf(j, "{\"type\":\"content_block_stop\",\"index\":%u}", block_index(a, p));
        return e == ERR_OK ? send(a, out, STR("content_block_stop")) : e;
    }
    case DELTA:
        a->phase = STOP;
        e = buf_appendz(j, "{\"type\":\"message_delta\",\"delta\":{\"stop_reason\":");
        if (e == ERR_OK) e = buf_append_json(j, str_of(stop_reason(c)));
        if (e == ERR_OK) e = buf_appendz(j, ",\"stop_sequence\":null},\"usage\":");
        if (e == ERR_OK) e = append_usage(a, j, false, false);
        if (e == ERR_OK) e = buf_append_char(j, '}');
        return e == ERR_OK ? send(a, out, STR("message_delta")) : e;
    case STOP:
        a->phase = OVER;
        ret->last = true;
        e = buf_appendz(j, "{\"type\":\"message_stop\"}");
        return e == ERR_OK ? send(a, out, STR("message_stop")) : e;
    case OVER: break;
    }
    return ERR_NOT_FOUND;
}

static enum err append_block(struct answer *a, struct buf *out, enum part_kind p)
{
    const struct text *t = &a->choices[0].parts[p];
    enum err e = ERR_OK;
    if (p == PART_TOOL) {
        e = buf_printf(out, "{\"type\":\"tool_use\",\"id\":\"toolu_%s\",\"name\":", a->id);
        if (e == ERR_OK) e = buf_append_json(out, str_of(a->tool_name));
        if (e == ERR_OK) e = buf_appendz(out, ",\"input\":");
        /* A call that max_tokens cut has no JSON to show. */
        bool complete = t->ends[t->len - 1] == t->copy.n;
        if (e == ERR_OK) e = complete ? buf_append_str(out, t->copy) : buf_appendz(out, "{}");
    } else {
        e = buf_appendz(out, p == PART_CONTENT ? "{\"type\":\"text\",\"text\":"
                                               : "{\"type\":\"thinking\",\"signature\":\"\","
                                                 "\"thinking\":");
        if (e == ERR_OK) e = answer_part_json(out, t);
    }
    return e == ERR_OK ? buf_append_char(out, '}') : e;
}

static enum err whole(struct answer *a, struct buf *out)
{
    const struct choice *c = &a->choices[0];
    bool first = true;
    enum err e = begin_message(a, out);
    for (enum part_kind p = PART_REASONING; p < PART_MAX && e == ERR_OK; p++) {
        if (c->parts[p].len == 0) continue;
        if (!first) e = buf_append_char(out, ',');
        if (e == ERR_OK) e = append_block(a, out, p);
        first = false;
    }
    if (e == ERR_OK) e = buf_appendz(out, "],\"stop_reason\":");
    if (e == ERR_OK) e = buf_append_json(out, str_of(stop_reason(c)));
    if (e == ERR_OK) e = buf_appendz(out, ",\"stop_sequence\":null");
    if (e == ERR_OK && a->behave->usage != USAGE_NONE) {
        e = buf_appendz(out, ",\"usage\":");
        if (e == ERR_OK) e = append_usage(a, out, true, false);
    }
    return e == ERR_OK ? buf_append_char(out, '}') : e;
}

static enum err error_event(struct answer *a, struct buf *out)
{
    buf_clear(&a->json);
    enum err e = answer_error(API_MESSAGES, 529, "The mock was told to fail here.", &a->json);
    return e == ERR_OK ? send(a, out, STR("error")) : e;
}

const struct answer_api answer_messages = { next, whole, error_event };

static enum err count_whole(struct answer *a, struct buf *out)
{
    return buf_printf(out, "{\"input_tokens\":%llu}", (unsigned long long)a->prompt_tokens);
}

static enum err no_stream(struct answer *a, struct buf *out, struct event_info *ret)
{
    return (void)a, (void)out, (void)ret, ERR_NOT_FOUND;
}

const struct answer_api answer_count_tokens = { no_stream, count_whole, error_event };
