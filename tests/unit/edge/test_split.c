/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Streams of every dialect, in every form of server-sent events, cut at every byte: what comes out,
 * and what is counted, is the same as in one piece; without a limit, and with one that ends them
 * anywhere; and the same when it comes compressed.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "http/gzip.h"
#include "services/edge/dialects/answer.h"
#include "services/edge/flow/flow_impl.h"
#include "support_vocab.h"

/* --- the streams --- */

#define CHAT(choice, delta, finish)                                                           \
    "data: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"created\":7,\"model\":\"m\"," \
    "\"choices\":[{\"index\":" choice ",\"delta\":{" delta "},\"finish_reason\":" finish      \
    "}],\"usage\":null}\n\n"
#define USAGE                                                                             \
    "data: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"choices\":[],\"usage\":{" \
    "\"prompt_tokens\":9,\"completion_tokens\":12,\"total_tokens\":21}}\n\n"
#define BLOCK(what, rest) \
    "event: content_block_" what "\ndata: {\"type\":\"content_block_" what "\"," rest "}\n\n"
#define RESPONSE(n, type, rest)                                                              \
    "event: response." type "\ndata: {\"type\":\"response." type "\",\"sequence_number\":" n \
    "," rest "}\n\n"

static const struct recorded {
    const char *name;
    const struct dialect *dialect;
    const char *texts[6]; /* what it holds, each counted alone */
    const char *stream;
} recorded[] = {
    { "chat, two choices, reasoning, a call",
      &dialect_openai,
      { "think hard", "Hello \xe4\xbd\xa0\xe5\xa5\xbd \xf0\x9f\x98\x80", "no way out",
        "{\"city\":\"Rome\"}" },
      CHAT("0", "\"role\":\"assistant\",\"content\":\"\"",
           "null") CHAT("0", "\"reasoning_content\":\"think\",\"reasoning\":\"think\"",
                        "null") CHAT("0", "\"reasoning_content\":\" hard\"",
                                     "\"\"") CHAT("1", "\"refusal\":\"no way out\"",
                                                  "null") CHAT("0", "\"content\":\"Hel\"", "null")
          CHAT("0", "\"content\":\"lo \\u4f60\xe5\xa5\xbd\"", "null") CHAT(
              "0", "\"content\":\" \\ud83d\\ude00\"",
              "null") CHAT("0",
                           "\"tool_calls\":[{\"index\":0,\"function\":{\"name\":\"f\",\"arguments\":"
                           "\"{\\\"city\\\":\"}}]",
                           "null")
              CHAT("0",
                   "\"tool_calls\":[{\"index\":0,\"function\":{\"arguments\":\"\\\"Rome\\\"}\"}}]",
                   "null") CHAT("1", "", "\"stop\"")
                  CHAT("0", "",
                       "\"tool_calls\"") "data: {\"object\":\"chat.completion.chunk\"}\n\n" USAGE
                                         "data: [DONE]\n\n" },
    { "chat, a legacy call, no [DONE]",
      &dialect_openai,
      { "{\"a\":[1,2,3]}" },
      CHAT("0", "\"function_call\":{\"name\":\"f\",\"arguments\":\"{\\\"a\\\":\"}", "null")
          CHAT("0", "\"function_call\":{\"arguments\":\"[1,2,3]}\"}", "null")
              CHAT("0", "", "\"function_call\"") USAGE },
    { "completions",
      &dialect_openai,
      { "one two three", " four five" },
      "data: {\"object\":\"text_completion\",\"choices\":[{\"index\":0,\"text\":\"one two\","
      "\"logprobs\":{\"tokens\":[\"one\",\" two\"]},\"finish_reason\":null}]}\n\n"
      "data: {\"object\":\"text_completion\",\"choices\":[{\"index\":0,\"text\":\" three\","
      "\"finish_reason\":\"stop\"},{\"index\":1,\"text\":\" four five\",\"finish_reason\":"
      "\"stop\"}]}\n\n" USAGE "data: [DONE]\n\n" },
    { "messages, thinking and a tool",
      &dialect_anthropic,
      { "let me see", "Hello there, sea", "{\"city\":\"Rome\"}" },
      "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"m\",\"usage\":{"
      "\"input_tokens\":3,\"output_tokens\":1}}}\n\n" BLOCK(
          "start", "\"index\":0,\"content_block\":{\"type\":\"thinking\",\"thinking\":\"\"}")
          BLOCK("delta", "\"index\":0,\"delta\":{\"type\":\"thinking_delta\",\"thinking\":\"let me\"}") BLOCK(
              "delta", "\"index\":0,\"delta\":{\"type\":\"thinking_delta\",\"thinking\":\" see\"}")
              BLOCK("stop", "\"index\":0") "event: ping\ndata: {\"type\":\"ping\"}\n\n" BLOCK(
                  "start", "\"index\":1,\"content_block\":{\"type\":\"text\",\"text\":\"\"}")
                  BLOCK("delta",
                        "\"index\":1,\"delta\":{\"type\":\"text_delta\",\"text\":\"Hello the\"}")
                      BLOCK("delta",
                            "\"index\":1,\"delta\":{\"type\":\"text_delta\",\"text\":\"re, sea\"}")
                          BLOCK("stop", "\"index\":1") BLOCK(
                              "start",
                              "\"index\":2,\"content_block\":{\"type\":\"tool_use\",\"input\":{}}")
                              BLOCK(
                                  "delta",
                                  "\"index\":2,\"delta\":{\"type\":\"input_json_delta\",\"partial_json\":"
                                  "\"{\\\"city\\\":\"}")
                                  BLOCK(
                                      "delta",
                                      "\"index\":2,\"delta\":{\"type\":\"input_json_delta\",\"partial_json\":"
                                      "\"\\\"Rome\\\"}\"}")
                                      BLOCK(
                                          "stop",
                                          "\"index\":2") "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":"
                                                         "\"tool_use\"},\"usage\":{\"output_tokens\":11}}\n\n"
                                                         "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n" },
    { "responses, a summary, a message, a call",
      &dialect_responses,
      { "let me see", "Hello there, sea", "{\"city\":\"Rome\"}" },
      RESPONSE("0", "created", "\"response\":{\"id\":\"r\",\"status\":\"in_progress\",\"output\":[]}") RESPONSE(
          "1", "output_item.added",
          "\"output_index\":0,\"item\":{\"id\":\"i\",\"type\":\"reasoning\",\"summary\":[]}")
          RESPONSE("2", "reasoning_summary_text.delta",
                   "\"output_index\":0,\"summary_index\":0,\"delta\":\"let me\"")
              RESPONSE("3", "reasoning_summary_text.delta",
                       "\"output_index\":0,\"summary_index\":0,\"delta\":\" see\"")
                  RESPONSE("4", "reasoning_summary_text.done",
                           "\"output_index\":0,\"summary_index\":0,\"text\":\"let me see\"")
                      RESPONSE(
                          "5", "output_item.done",
                          "\"output_index\":0,\"item\":{\"id\":\"i\",\"type\":\"reasoning\",\"summary\":[{"
                          "\"type\":\"summary_text\",\"text\":\"let me see\"}]}")
                          RESPONSE(
                              "6", "output_item.added",
                              "\"output_index\":1,\"item\":{\"id\":\"j\",\"type\":\"message\",\"content\":[]}")
                              RESPONSE(
                                  "7", "content_part.added",
                                  "\"output_index\":1,\"content_index\":0,\"part\":{\"type\":\"output_text\","
                                  "\"text\":\"\"}") RESPONSE("8", "output_text.delta",
                                                             "\"output_index\":1,\"content_index\":0,\"delta\":\"Hello the\",\"logprobs\":[{}]")
                                  RESPONSE(
                                      "9",
                                      "output_text.delta",
                                      "\"output_index\":1,\"content_index\":0,\"delta\":\"re, sea\",\"logprobs\":[]")
                                      RESPONSE(
                                          "10", "output_text.done",
                                          "\"output_index\":1,\"content_index\":0,\"text\":\"Hello there, sea\"")
                                          RESPONSE(
                                              "11", "output_item.done",
                                              "\"output_index\":1,\"item\":{\"id\":\"j\",\"type\":\"message\",\"content\":[{"
                                              "\"type\":\"output_text\",\"text\":\"Hello there, sea\"}]}")
                                              RESPONSE(
                                                  "12", "function_call_arguments.delta",
                                                  "\"output_index\":2,\"delta\":\"{\\\"city\\\":\"")
                                                  RESPONSE(
                                                      "13", "function_call_arguments.delta",
                                                      "\"output_index\":2,\"delta\":\"\\\"Rome\\\"}\"")
                                                      RESPONSE(
                                                          "14", "completed",
                                                          "\"response\":{\"id\":\"r\",\"status\":\"completed\",\"output\":[{\"type\":"
                                                          "\"reasoning\",\"summary\":[{\"type\":\"summary_text\",\"text\":\"let me see\"}]},{"
                                                          "\"type\":\"message\",\"content\":[{\"type\":\"output_text\",\"text\":\"Hello there, "
                                                          "sea\"}]}],\"usage\":{\"input_tokens\":3,\"output_tokens\":11}}") },
};

/* --- forms --- */

enum form { LF, CRLF, CR, DRESSED, FORMS };

/* The stream with other line ends; or with a byte order mark, comments, fields of no meaning, and
 * data over two lines. */
static void dress(const char *stream, enum form form, struct buf *out)
{
    const char *const eol[FORMS] = { "\n", "\r\n", "\r", "\n" };
    if (form == DRESSED) assert_int_equal(buf_appendz(out, "\xef\xbb\xbf: hello\n"), ERR_OK);
    for (const char *p = stream; *p != '\0'; p++) {
        enum err e;
        if (*p == '\n')
            e = buf_appendz(out, eol[form]);
        else if (form == DRESSED && strncmp(p, "data: {", 7) == 0)
            e = buf_appendz(out, "id: 5\nretry:7\n: ping\ndata:{\ndata: "), p += 6;
        else
            e = buf_append_char(out, *p);
        assert_int_equal(e, ERR_OK);
    }
}

/* --- passing --- */

struct result {
    struct buf out;
    uint64_t tokens, reported;
    bool complete, exact;
    enum answer_state state;
};

static void end(struct answer *a, struct result *r)
{
    assert_int_equal(answer_end(a, &r->out), ERR_OK);
    r->tokens = answer_tokens(a);
    r->reported = answer_reported(a)->output;
    r->complete = answer_is_complete(a);
    r->exact = answer_is_exact(a);
    r->state = answer_state(a);
    answer_free(a);
}

static struct answer *begin(const struct recorded *rec, uint64_t limit, bool hide, struct result *r)
{
    struct answer_options o = { .dialect = rec->dialect,
                                .vocab = qwen3,
                                .limit = limit,
                                .hide_usage = hide,
                                .want_usage = !hide,
                                .input_tokens = 9 };
    struct answer *a = answer_new(&o);
    assert_non_null(a);
    buf_init(&r->out, 1 << 20);
    return a;
}

static void feed(struct answer *a, struct str bytes, struct result *r)
{
    assert_int_equal(answer_feed(a, bytes, &r->out), ERR_OK);
}

static void same(const struct recorded *rec, const struct result *x, const struct result *y,
                 size_t at)
{
    if (!str_eq(buf_str(&x->out), buf_str(&y->out)))
        fail_msg("%s, cut at %zu:\n%.*s\n--- in one piece:\n%.*s", rec->name, at, (int)x->out.len,
                 x->out.data, (int)y->out.len, y->out.data);
    assert_int_equal(x->tokens, y->tokens);
    assert_int_equal(x->state, y->state);
    assert_int_equal(x->complete, y->complete);
    if (x->state != ANSWER_CUT) assert_int_equal(x->reported, y->reported);
}

static uint64_t tokens_of(const struct recorded *rec)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < ARRAY_LEN(rec->texts) && rec->texts[i] != NULL; i++) {
        uint64_t n;
        assert_int_equal(token_count(qwen3, str_of(rec->texts[i]), SPECIAL_CONTROL, &n), ERR_OK);
        sum += n;
    }
    return sum;
}

/* In two pieces at every byte, and byte by byte. */
static void split_everywhere(const struct recorded *rec, struct str in, uint64_t limit, bool hide,
                             struct result *ret_whole)
{
    struct result r;
    struct answer *a = begin(rec, limit, hide, ret_whole);
    feed(a, in, ret_whole);
    end(a, ret_whole);
    for (size_t at = 1; at < in.n; at++) {
        a = begin(rec, limit, hide, &r);
        feed(a, str_n(in.p, at), &r);
        feed(a, str_n(in.p + at, in.n - at), &r);
        end(a, &r);
        same(rec, &r, ret_whole, at);
        buf_done(&r.out);
    }
    a = begin(rec, limit, hide, &r);
    for (size_t i = 0; i < in.n; i++) feed(a, str_n(in.p + i, 1), &r);
    end(a, &r);
    same(rec, &r, ret_whole, in.n);
    buf_done(&r.out);
}

static void each_stream(enum form form)
{
    for (size_t i = 0; i < ARRAY_LEN(recorded); i++) {
        const struct recorded *rec = &recorded[i];
        uint64_t all = tokens_of(rec);
        struct buf in;
        struct result r;
        buf_init(&in, 1 << 20);
        dress(rec->stream, form, &in);
        split_everywhere(rec, buf_str(&in), METER_NO_LIMIT, false, &r);
        assert_true(str_eq(buf_str(&in), buf_str(&r.out)));
        assert_int_equal(r.tokens, all);
        assert_true(r.complete && r.exact && r.reported > 0);
        buf_done(&r.out);
        /* What the gateway asked for on its own account is not there. */
        if (rec->dialect == &dialect_openai) {
            split_everywhere(rec, buf_str(&in), METER_NO_LIMIT, true, &r);
            assert_false(str_contains(buf_str(&r.out), STR("usage")));
            assert_int_equal(r.tokens, all);
            buf_done(&r.out);
        }
        split_everywhere(rec, buf_str(&in), all / 2 + i % 2, i % 2 == 0, &r);
        assert_int_equal(r.state, ANSWER_CUT);
        assert_true(r.tokens <= all / 2 + i % 2);
        buf_done(&r.out), buf_done(&in);
    }
}

static void line_ends_are_lf(void **state)
{
    (void)state;
    each_stream(LF);
}

static void line_ends_are_crlf(void **state)
{
    (void)state;
    each_stream(CRLF);
}

static void line_ends_are_cr(void **state)
{
    (void)state;
    each_stream(CR);
}

static void with_everything_that_may_stand_in_a_stream(void **state)
{
    (void)state;
    each_stream(DRESSED);
}

/* Whatever the limit: never more, and no split makes a difference. */
static void cut_at_any_token(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(recorded); i++) {
        const struct recorded *rec = &recorded[i];
        struct str in = str_of(rec->stream);
        uint64_t all = tokens_of(rec);
        for (uint64_t limit = 1; limit <= all; limit++) {
            struct result whole, r;
            struct answer *a = begin(rec, limit, false, &whole);
            feed(a, in, &whole);
            end(a, &whole);
            assert_true(whole.tokens <= limit && whole.complete);
            assert_int_equal(whole.state == ANSWER_CUT, limit < all);
            for (size_t step = 1; step < 200; step += 23) {
                a = begin(rec, limit, false, &r);
                for (size_t at = 0; at < in.n; at += step)
                    feed(a, str_n(in.p + at, MIN(step, in.n - at)), &r);
                end(a, &r);
                same(rec, &r, &whole, step);
                buf_done(&r.out);
            }
            buf_done(&whole.out);
        }
    }
}

/* --- compressed --- */

static enum err take(struct flow *f, struct str data)
{
    return answer_feed(f->answer, data, &f->gather);
}

/* As it comes compressed, `first` bytes and the others, or each alone (0), decoded as in a flow. */
static void unpacked(const struct recorded *rec, struct str packed, const char *coding,
                     size_t first, struct result *ret)
{
    struct flow *f = calloc(1, sizeof *f);
    assert_non_null(f);
    f->mode = RELAY_STREAM;
    f->answer = begin(rec, METER_NO_LIMIT, false, ret);
    buf_init(&f->gather, 1 << 20);
    assert_true(flow_decode_begin(f, str_of(coding)));
    for (size_t at = 0, n; at < packed.n; at += n) {
        assert_false(flow_decode_ended(f));
        n = first == 0 ? 1 : at == 0 ? MIN(first, packed.n) : packed.n - at;
        assert_int_equal(flow_decode(f, str_n(packed.p + at, n), take), ERR_OK);
    }
    assert_true(flow_decode_ended(f));
    assert_int_equal(buf_append_str(&ret->out, buf_str(&f->gather)), ERR_OK);
    buf_done(&f->gather);
    flow_decode_done(f);
    end(f->answer, ret);
    free(f);
}

static void compressed_and_cut_at_every_byte(void **state)
{
    static const char *const codings[] = { [CODING_GZIP] = "gzip", [CODING_DEFLATE] = "deflate" };
    (void)state;
    for (size_t i = 0; i < 2 * ARRAY_LEN(recorded); i++) {
        const struct recorded *rec = &recorded[i / 2];
        enum http_coding coding = i % 2 == 0 ? CODING_GZIP : CODING_DEFLATE;
        struct deflater *d = deflater_new(coding);
        struct buf packed;
        struct result r;
        buf_init(&packed, 1 << 20);
        assert_non_null(d);
        assert_int_equal(deflater_add(d, str_of(rec->stream), true, &packed), ERR_OK);
        deflater_free(d);
        for (size_t first = 0; first < packed.len; first++) {
            unpacked(rec, buf_str(&packed), codings[coding], first, &r);
            assert_true(str_eqz(buf_str(&r.out), rec->stream));
            assert_int_equal(r.tokens, tokens_of(rec));
            assert_true(r.complete && r.exact);
            buf_done(&r.out);
        }
        buf_done(&packed);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(line_ends_are_lf),
        cmocka_unit_test(line_ends_are_crlf),
        cmocka_unit_test(line_ends_are_cr),
        cmocka_unit_test(with_everything_that_may_stand_in_a_stream),
        cmocka_unit_test(cut_at_any_token),
        cmocka_unit_test(compressed_and_cut_at_every_byte),
    };
    return cmocka_run_group_tests(tests, vocab_load, vocab_unload);
}
