/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Streams that bytes decide about, and two ways to read them: in pieces of any size, where events
 * of a known form need no parsing, and byte by byte, where each is parsed. For test_known.c and the
 * fuzz target; one thread.
 */
#ifndef TESTS_SUPPORT_EVENTS_H
#define TESTS_SUPPORT_EVENTS_H

#include "services/edge/dialects/answer.h"

struct dice {
    const unsigned char *p;
    size_t n;
};

static inline unsigned dice_next(struct dice *d)
{
    if (d->n == 0) return 0;
    d->n--;
    return *d->p++;
}

/* --- a stream --- */

/* How the events look that come now; changes now and then. */
struct events_mode {
    unsigned kind, choice, extra, eol, padded, comment, limit;
};

static inline void events_put(struct buf *b, const char *z)
{
    if (buf_appendz(b, z) != ERR_OK) b->len = 0;
}

/* What stands between the quotes of a text: mostly words, now and then what must be looked at. */
static inline void events_text(struct dice *d, struct buf *b)
{
    static const char *const pieces[] = { " the", " harbour", "\\n", "a", "b", ". ", " I", "7",
                                          "\\u00e9", "\xe4\xbd\xa0", "\\ud83d\\ude00", "\\\"",
                                          "\\\\", " internationalization", "    ",
                                          "\xf0\x9f\x98\x80", "e\xcc\x81", "\\ud83d", "\\u0301",
                                          "<think>", "'s", "\\t", "\x7f", "!!!!",
                                          /* not valid */
                                          "\\x", "\xff", "\x01", "\\u12g4", "\xe4\xbd", "\\" };
    unsigned n = dice_next(d) % 4;
    for (unsigned i = 0; i <= n; i++) {
        unsigned k = dice_next(d);
        /* the last six rarely */
        size_t most = k < 8 ? ARRAY_LEN(pieces) : ARRAY_LEN(pieces) - 6;
        events_put(b, pieces[dice_next(d) % most]);
    }
    if (dice_next(d) == 1) b->len = 0;
}

static inline void events_number(struct buf *b, const char *before, unsigned n, const char *behind)
{
    if (buf_printf(b, "%s%u%s", before, n, behind) != ERR_OK) b->len = 0;
}

static inline void events_chat(const struct events_mode *m, struct str text, unsigned number,
                               struct dice *d, struct buf *b)
{
    static const char *const before[] = {
        "\"delta\":{\"content\":\"",
        "\"delta\":{\"role\":\"assistant\",\"content\":\"",
        "\"delta\":{\"reasoning_content\":\"",
        "\"delta\":{\"reasoning\":\"\",\"reasoning_content\":\"",
        "\"delta\":{\"tool_calls\":[{\"index\":1,\"function\":{\"arguments\":\"",
        "\"delta\": {\"refusal\" : \"",
        "\"text\":\"",
        "\"delta\":{\"content\":\"once\",\"content\":\"",
    };
    static const char *const behind[] = {
        "\"}", "\"}", "\"}", "\"}", "\"}}]}", "\" }", "\"", "\"}"
    };
    static const char *const extra[] = {
        ",\"finish_reason\":null",
        "",
        ",\"logprobs\":null,\"finish_reason\":\"\"",
        ",\"logprobs\":{\"content\":[{\"token\":\"x\"}]}",
        ",\"finish_reason\":\"stop\"",
    };
    unsigned k = m->kind % ARRAY_LEN(before);
    unsigned x = dice_next(d) % 16 == 0 ? 4 : m->extra % 4;
    events_put(b, "{\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"created\":");
    events_number(b, "", dice_next(d) % 32 == 0 ? number : 7, ",\"model\":\"m\",");
    if (m->padded & 2) events_number(b, "\"p\":\"p", number * 977 % 100000, "\",");
    if (m->padded & 4) events_put(b, "\"usage\":null,");
    events_number(b, "\"choices\":[{\"index\":", m->choice, ",");
    events_put(b, before[k]);
    if (buf_append_str(b, text) != ERR_OK) b->len = 0;
    events_put(b, behind[k]);
    events_put(b, extra[x]);
    events_put(b, "}]");
    if (m->padded & 8) events_put(b, " , \"usage\" : null");
    if (m->padded & 1) events_number(b, ",\"obfuscation\":\"", number * 31 % 1000, "\"");
    if (dice_next(d) % 32 == 0)
        events_put(b, ",\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":4}");
    events_put(b, "}");
}

static inline const char *events_messages(const struct events_mode *m, struct str text,
                                          struct dice *d, struct buf *b)
{
    static const char *const types[] = { "text_delta\",\"text", "thinking_delta\",\"thinking",
                                         "input_json_delta\",\"partial_json" };
    unsigned other = dice_next(d) % 24;
    if (other == 0) {
        events_number(b, "{\"type\":\"content_block_stop\",\"index\":", m->choice, "}");
        return "content_block_stop";
    }
    if (other == 1) {
        events_put(b, "{\"type\":\"ping\"}");
        return "ping";
    }
    events_number(b, "{\"type\":\"content_block_delta\",\"index\":", m->choice,
                  ",\"delta\":{\"type\":\"");
    events_put(b, types[m->kind % ARRAY_LEN(types)]);
    events_put(b, "\":\"");
    if (buf_append_str(b, text) != ERR_OK) b->len = 0;
    events_put(b, "\"}}");
    return "content_block_delta";
}

static inline const char *events_responses(const struct events_mode *m, struct str text,
                                           unsigned number, struct dice *d, struct buf *b)
{
    static const char *const types[] = { "response.output_text.delta",
                                         "response.reasoning_summary_text.delta",
                                         "response.function_call_arguments.delta" };
    const char *type = types[m->kind % ARRAY_LEN(types)];
    unsigned other = dice_next(d) % 24;
    if (other == 0) type = "response.output_text.done";
    events_put(b, "{\"type\":\"");
    events_put(b, type);
    events_put(b, "\"");
    if (m->extra != 1) events_number(b, ",\"sequence_number\":", number, "");
    events_number(b, ",\"output_index\":", m->choice, ",\"content_index\":0");
    events_put(b, other == 0 ? ",\"text\":\"" : ",\"delta\":\"");
    if (buf_append_str(b, text) != ERR_OK) b->len = 0;
    events_put(b, m->extra == 2 ? "\",\"logprobs\":[{}]" : "\",\"logprobs\":[]");
    if (m->padded & 1) events_number(b, ",\"obfuscation\":\"", number * 31 % 1000, "\"");
    events_put(b, "}");
    return type;
}

/* Appends the events that the dice say, as one server after another might send them. */
static inline void events_make(const struct dialect *dialect, struct dice *d, struct buf *out)
{
    static const char *const ends[] = { "\n", "\n", "\r\n", "\r" };
    struct events_mode m = { 0 };
    unsigned number = 0;
    while (d->n > 0) {
        struct buf data, text;
        const char *name = "x", *eol;
        unsigned odd = dice_next(d);
        buf_init(&data, 4096), buf_init(&text, 1024);
        if (odd % 16 == 0)
            m = (struct events_mode){ dice_next(d),
                                      dice_next(d) % 3,
                                      dice_next(d) % 4,
                                      dice_next(d) % 8,
                                      dice_next(d) % 16,
                                      dice_next(d) % 8,
                                      0 };
        if (odd % 5 == 1) m.choice = dice_next(d) % 3;
        eol = ends[m.eol < 4 ? m.eol : 0];
        events_text(d, &text);
        number += odd == 3 ? 2 : 1;
        if (dialect == &dialect_openai)
            events_chat(&m, buf_str(&text), number, d, &data);
        else if (dialect == &dialect_anthropic)
            name = events_messages(&m, buf_str(&text), d, &data);
        else
            name = events_responses(&m, buf_str(&text), number, d, &data);
        if (odd == 17 && data.len > 0) data.data[dice_next(d) % data.len] ^= (char)(1 + odd % 7);
        if (odd == 18 && data.len > 0) data.len = dice_next(d) % data.len;
        if (m.comment == 1) events_put(out, ": ping"), events_put(out, eol);
        if (dialect != &dialect_openai || m.comment == 2) {
            events_put(out, "event: ");
            events_put(out, name);
            events_put(out, eol);
        }
        events_put(out, odd == 19 ? "data:{}" : odd == 20 ? "data: [DONE]" : "data: ");
        if (odd == 21) events_put(out, eol), events_put(out, "data:");
        if (odd != 19 && odd != 20 && buf_append_str(out, buf_str(&data)) != ERR_OK) out->len = 0;
        events_put(out, eol);
        if (m.comment == 3) events_put(out, "event: late"), events_put(out, eol);
        if (odd != 22) events_put(out, eol);
        buf_done(&data), buf_done(&text);
    }
}

/* --- what becomes of it --- */

struct events_result {
    struct buf out;
    enum err err;
    uint64_t tokens, reasoning, sequence;
    struct reported_usage reported;
    enum answer_state state;
    bool complete, exact, error;
};

struct events_purse {
    uint64_t had, cap, step;
};

static inline uint64_t events_more(void *ctx, uint64_t wants)
{
    struct events_purse *p = ctx;
    if (wants > p->had) p->had = MAX(p->had, MIN(MAX(p->had + p->step, wants), p->cap));
    return p->had;
}

/* Lets pass what waits: as far as the purse goes, and no further. */
static inline enum err events_pump(struct answer *a, struct events_purse *p, struct buf *out)
{
    enum err e = ERR_OK;
    while (e == ERR_OK && answer_waits(a)) {
        uint64_t wants = answer_wants(a);
        answer_allow(a, events_more(p, wants));
        if (p->had < wants) answer_deny(a);
        e = answer_resume(a, out);
    }
    return e;
}

/* step: bytes of each read. asks: the answer asks for more by itself. */
static inline void events_pass(struct answer_options o, struct str stream, size_t step,
                               struct events_purse purse, bool asks, struct events_result *r)
{
    bool reserved = o.reserved;
    if (reserved) o.allowance = purse.had;
    if (asks) o.more = events_more, o.more_ctx = &purse, o.ahead = purse.step / 2;
    struct answer *a = answer_new(&o);
    *r = (struct events_result){ .err = a != NULL ? ERR_OK : ERR_NOMEM };
    buf_init(&r->out, 1 << 22);
    while (stream.n > 0 && r->err == ERR_OK) {
        size_t n = MIN(step, stream.n);
        r->err = answer_feed(a, str_n(stream.p, n), &r->out);
        if (r->err == ERR_OK && reserved) r->err = events_pump(a, &purse, &r->out);
        stream.p += n, stream.n -= n;
    }
    bool waited = true;
    while (r->err == ERR_OK && waited) {
        r->err = answer_end(a, &r->out);
        waited = answer_waits(a);
        if (r->err == ERR_OK) r->err = events_pump(a, &purse, &r->out);
    }
    if (a == NULL) return;
    r->tokens = answer_tokens(a);
    r->reasoning = answer_reasoning_tokens(a);
    r->sequence = answer_sequence(a);
    r->reported = *answer_reported(a);
    r->state = answer_state(a);
    r->complete = answer_is_complete(a);
    r->exact = answer_is_exact(a);
    r->error = answer_saw_error(a);
    answer_free(a);
}

/* What differs, or NULL. Behind a cut nothing is read any more: what the rest would have told is
 * not there in either, but an answer that is ahead has seen more of it. */
static inline const char *events_differ(const struct events_result *x,
                                        const struct events_result *y)
{
    if (x->err != ERR_OK || y->err != ERR_OK) return NULL; /* a bound: where depends on the split */
    if (!str_eq(buf_str(&x->out), buf_str(&y->out))) return "the bytes that come out";
    if (x->tokens != y->tokens) return "the tokens";
    if (x->reasoning != y->reasoning) return "the tokens of reasoning";
    if (x->state != y->state) return "the state";
    if (x->exact != y->exact) return "whether it is exact";
    if (x->complete != y->complete) return "whether it is complete";
    if (x->error != y->error) return "whether there was an error";
    if (x->state == ANSWER_CUT) return NULL;
    if (x->sequence != y->sequence) return "the number";
    if (memcmp(&x->reported.input, &y->reported.input, 4 * sizeof(uint64_t)) != 0)
        return "what was reported";
    return NULL;
}

#endif
