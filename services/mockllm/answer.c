/* SPDX-License-Identifier: Apache-2.0 */
/* Deciding an answer, taking pieces off it, and the form of an event; see the header. Pure. */
#include "answer.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/hash.h"

enum { MODEL_MAX = 4096, JSON_MAX = 1 << 30, TOOL_TOKENS = 12 };

static const struct answer_api *const apis[API_MAX] = {
    [API_CHAT] = &answer_chat,
    [API_COMPLETIONS] = &answer_completions,
    [API_EMBEDDINGS] = &answer_embeddings,
    [API_MESSAGES] = &answer_messages,
    [API_COUNT_TOKENS] = &answer_count_tokens,
    [API_RESPONSES] = &answer_responses,
};

/* --- deciding --- */

/* Arguments of a tool call of n pieces: an object with one text. */
static enum err make_tool_args(struct choice *c, uint64_t seed, uint64_t n)
{
    static const char open[] = "{\"query\": \"", close[] = "\"}";
    struct text words;
    char scratch[TEXT_PIECE_MAX];
    struct text *t = &c->parts[PART_TOOL];
    n = MAX(n, 3);
    text_exact(&words, seed, n - 2);
    t->ends = malloc((size_t)n * sizeof *t->ends);
    if (t->ends == NULL) return ERR_NOMEM;
    enum err e = buf_appendz(&c->tool_args, open);
    t->ends[0] = (uint32_t)c->tool_args.len;
    for (uint64_t i = 0; i < words.len && e == ERR_OK; i++) {
        e = buf_append_str(&c->tool_args, text_piece(&words, i, scratch));
        t->ends[i + 1] = (uint32_t)c->tool_args.len;
    }
    if (e == ERR_OK) e = buf_appendz(&c->tool_args, close);
    t->ends[n - 1] = (uint32_t)c->tool_args.len;
    t->copy = buf_str(&c->tool_args);
    t->len = n;
    return e;
}

static enum err make_choice(struct answer *a, struct choice *c, uint64_t seed, uint64_t max,
                            bool call_tool)
{
    const struct behave *b = a->behave;
    enum err e = ERR_OK;
    buf_init(&c->tool_args, JSON_MAX);
    c->finish = call_tool ? "tool_calls" : "stop";
    if (b->reasoning > 0 && a->api != API_COMPLETIONS)
        text_exact(&c->parts[PART_REASONING], seed + 7, (uint64_t)b->reasoning);
    struct text *content = &c->parts[PART_CONTENT];
    if (call_tool)
        e = make_tool_args(c, seed, b->tokens >= 0 ? (uint64_t)b->tokens : TOOL_TOKENS);
    else if (a->has_said && a->splitter != NULL)
        e = a->splitter->split(a->splitter->ctx, buf_str(&a->said), content);
    else if (a->has_said)
        e = text_copy(content, buf_str(&a->said));
    else if (b->tokens >= 0)
        text_exact(content, seed, (uint64_t)b->tokens);
    else
        text_natural(content, seed);
    if (e != ERR_OK) return e;
    for (size_t p = 0; p < PART_MAX; p++) {
        uint64_t room = b->ignore_max ? UINT64_MAX : max - c->len;
        if (c->parts[p].len > room) {
            c->parts[p].len = room;
            c->finish = "length";
        }
        c->len += c->parts[p].len;
    }
    if (b->finish[0] != '\0') c->finish = b->finish;
    a->completion_tokens += c->len;
    a->reasoning_tokens += c->parts[PART_REASONING].len;
    return ERR_OK;
}

static const char *id_prefix(enum api api)
{
    switch (api) {
    case API_CHAT: return "chatcmpl-";
    case API_MESSAGES: return "msg_";
    case API_RESPONSES: return "resp_";
    default: return "cmpl-";
    }
}

enum err answer_init(struct answer *a, const struct llm_request *r, const struct behave *b,
                     uint64_t prompt_tokens, uint64_t wall_ns, uint64_t serial, struct str said,
                     const struct splitter *splitter)
{
    *a = (struct answer){ .api_fns = apis[r->api], .api = r->api, .behave = b };
    a->stream = r->stream;
    a->send_usage = b->usage != USAGE_NONE &&
                    (!r->stream || r->include_usage || b->usage == USAGE_ALWAYS);
    a->created_s = wall_ns / 1000000000;
    a->prompt_tokens = prompt_tokens;
    a->dimensions = r->dimensions;
    a->base64 = r->base64;
    snprintf(a->id, sizeof a->id, "%s%08llx%08llx", id_prefix(r->api),
             (unsigned long long)(a->created_s & 0xffffffff), (unsigned long long)serial);
    buf_init(&a->model, MODEL_MAX * 6);
    buf_init(&a->json, JSON_MAX);
    buf_init(&a->said, JSON_MAX);
    if (r->model.n > MODEL_MAX) return ERR_LIMIT;
    enum err e = buf_append_json(&a->model, r->model);
    if (e == ERR_OK) e = buf_append_str(&a->said, said);
    a->has_said = said.p != NULL;
    a->splitter = splitter;
    if (e != ERR_OK) return e;
    if (r->api == API_EMBEDDINGS || r->api == API_COUNT_TOKENS) {
        a->embeddings = r->inputs;
        return ERR_OK;
    }
    bool call_tool = r->tools && r->api != API_COMPLETIONS &&
                     (b->tool[0] != '\0' || r->tool_forced);
    if (call_tool) {
        struct str name = b->tool[0] != '\0' && b->tool[0] != '*' ? str_of(b->tool) : r->tool_name;
        str_copyz(a->tool_name, sizeof a->tool_name, name.p != NULL ? name : STR("tool"));
    }
    a->choices = calloc((size_t)r->n, sizeof *a->choices);
    if (a->choices == NULL) return ERR_NOMEM;
    uint64_t seed = hash_crc32c(0, r->last_text.p, r->last_text.n);
    for (; a->choices_len < r->n && e == ERR_OK; a->choices_len++)
        e = make_choice(a, &a->choices[a->choices_len], seed + a->choices_len, r->max_tokens,
                        call_tool);
    a->splitter = NULL;
    return e;
}

void answer_done(struct answer *a)
{
    for (size_t i = 0; i < a->choices_len; i++) {
        for (size_t p = 0; p < PART_MAX; p++) text_done(&a->choices[i].parts[p]);
        buf_done(&a->choices[i].tool_args);
    }
    free(a->choices);
    buf_done(&a->model);
    buf_done(&a->json);
    buf_done(&a->said);
    *a = (struct answer){ 0 };
}

void answer_usage(const struct answer *a, uint64_t *ret_prompt, uint64_t *ret_completion)
{
    bool claim = a->behave->usage == USAGE_CLAIM;
    *ret_prompt = claim ? a->behave->claim_prompt : a->prompt_tokens;
    *ret_completion = claim ? a->behave->claim_completion : a->completion_tokens;
}

/* --- pieces --- */

enum part_kind answer_part(const struct choice *c, uint64_t at)
{
    enum part_kind p = PART_REASONING;
    while (p + 1 < PART_MAX && at >= c->parts[p].len) at -= c->parts[p++].len;
    return p;
}

/* How many pieces all choices advance by: per_event, but not over the end of the reasoning. */
static uint64_t step(const struct answer *a)
{
    uint64_t reasoning = a->choices[0].parts[PART_REASONING].len;
    uint64_t k = (uint64_t)a->behave->per_event;
    return a->at_piece < reasoning ? MIN(k, reasoning - a->at_piece) : k;
}

bool answer_at_token(const struct answer *a)
{
    return a->at_choice < a->choices_len && a->at_piece < a->choices[a->at_choice].len;
}

enum err answer_take(struct answer *a, struct buf *out, enum part_kind *ret_part,
                     uint32_t *ret_tokens)
{
    struct choice *c = &a->choices[a->at_choice];
    enum part_kind p = answer_part(c, a->at_piece);
    uint64_t at = a->at_piece;
    for (enum part_kind before = PART_REASONING; before < p; before++) at -= c->parts[before].len;
    const struct text *t = &c->parts[p];
    uint64_t n = MIN(step(a), t->len - at);
    enum err e = ERR_OK;
    if (t->copy.p != NULL) {
        size_t from = at > 0 ? t->ends[at - 1] : 0;
        e = buf_append_json(out, str_n(t->copy.p + from, t->ends[at + n - 1] - from));
    } else {
        char scratch[TEXT_PIECE_MAX];
        e = buf_append_char(out, '"');
        for (uint64_t i = 0; i < n && e == ERR_OK; i++)
            e = buf_append_str(out, text_piece(t, at + i, scratch));
        if (e == ERR_OK) e = buf_append_char(out, '"');
    }
    if (e != ERR_OK) return e;
    *ret_part = p;
    *ret_tokens = (uint32_t)n;
    return ERR_OK;
}

void answer_advance(struct answer *a)
{
    uint64_t by = step(a);
    for (int round = 0; round < 2; round++) {
        while (++a->at_choice < a->choices_len)
            if (a->at_piece < a->choices[a->at_choice].len) return;
        /* All had theirs: the next piece, from the first choice that has one. */
        if (round == 0) {
            a->at_piece += by;
            a->at_choice = (size_t)-1;
        }
    }
}

enum err answer_part_json(struct buf *out, const struct text *t)
{
    if (t->copy.p != NULL) {
        size_t n = t->len > 0 ? t->ends[t->len - 1] : 0;
        return buf_append_json(out, str_n(t->copy.p, n));
    }
    /* The words have nothing to escape. */
    enum err e = buf_append_char(out, '"');
    if (e == ERR_OK) e = text_append(t, out);
    return e == ERR_OK ? buf_append_char(out, '"') : e;
}

/* --- going on --- */

enum err answer_next(struct answer *a, struct buf *out, struct event_info *ret)
{
    *ret = (struct event_info){ 0 };
    enum err e = a->api_fns->next(a, out, ret);
    if (e == ERR_OK) a->sent_tokens += ret->tokens;
    return e;
}

enum err answer_whole(struct answer *a, struct buf *out)
{
    return a->api_fns->whole(a, out);
}

enum err answer_error_event(struct answer *a, struct buf *out)
{
    return a->api_fns->error_event(a, out);
}

static const char *error_type(int status)
{
    switch (status) {
    case 400: return "invalid_request_error";
    case 401: return "authentication_error";
    case 403: return "permission_error";
    case 404: return "not_found_error";
    case 429: return "rate_limit_error";
    case 529: return "overloaded_error";
    default: return status < 500 ? "invalid_request_error" : "api_error";
    }
}

enum err answer_error(enum api api, int status, const char *message, struct buf *out)
{
    bool anthropic = api == API_MESSAGES || api == API_COUNT_TOKENS;
    enum err e = buf_printf(out, "%s\"error\":{\"type\":\"%s\",\"message\":",
                            anthropic ? "{\"type\":\"error\"," : "{", error_type(status));
    if (e == ERR_OK) e = buf_append_json(out, str_of(message));
    if (e == ERR_OK && !anthropic) e = buf_appendz(out, ",\"param\":null,\"code\":null");
    return e == ERR_OK ? buf_appendz(out, "}}") : e;
}

/* --- events --- */

enum err sse_event(struct buf *out, const struct behave *b, struct str name, struct str data)
{
    const char *nl = b->eol == EOL_CRLF ? "\r\n" : b->eol == EOL_CR ? "\r" : "\n";
    const char *colon = b->nospace ? ":" : ": ";
    enum err e = ERR_OK;
    if (b->comments) e = buf_printf(out, ": keep-alive%s%s", nl, nl);
    if (e == ERR_OK && b->extra_fields)
        e = buf_printf(out, "id: 1%sretry: 3000%sx-unknown: data: no%sdata-less%s", nl, nl, nl, nl);
    if (e == ERR_OK && name.p != NULL)
        e = buf_printf(out, "event%s%.*s%s", colon, STR_ARG(name), nl);
    /* JSON may be broken over lines behind a comma between members; the one we find must not be in
     * a string: behind the first, an id, there is none in front. */
    const char *comma = b->multiline && data.n > 0 ? memchr(data.p, ',', data.n) : NULL;
    if (e == ERR_OK && comma != NULL) {
        size_t n = (size_t)(comma - data.p) + 1;
        e = buf_printf(out, "data%s%.*s%s", colon, (int)n, data.p, nl);
        data = str_n(data.p + n, data.n - n);
    }
    if (e == ERR_OK) e = buf_printf(out, "data%s", colon);
    if (e == ERR_OK) e = buf_append_str(out, data);
    if (e == ERR_OK) e = buf_appendz(out, nl);
    return e == ERR_OK ? buf_appendz(out, nl) : e;
}
