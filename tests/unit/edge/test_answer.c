/* SPDX-License-Identifier: Apache-2.0 */
/* Metering and cutting answers: exact counts, cuts that do not depend on splits, endings, hidden
 * usage. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "services/edge/dialects/answer.h"
#include "support_vocab.h"

#define HEAD "\"id\":\"c1\",\"object\":\"chat.completion.chunk\",\"created\":7,\"model\":\"m\","

/* A stream with one event per word. */
static void make_stream(const char *const *words, size_t n, bool usage_null, bool done,
                        struct buf *out)
{
    const char *null = usage_null ? ",\"usage\":null" : "";
    assert_int_equal(buf_printf(out,
                                "data: {" HEAD
                                "\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\","
                                "\"content\":\"\"},\"finish_reason\":null}]%s}\n\n",
                                null),
                     ERR_OK);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(buf_printf(out,
                                    "data: {" HEAD
                                    "\"choices\":[{\"index\":0,\"delta\":{\"content\":\"%s\"},"
                                    "\"finish_reason\":null}]%s}\n\n",
                                    words[i], null),
                         ERR_OK);
    if (!done) return;
    assert_int_equal(
        buf_printf(out,
                   "data: {" HEAD
                   "\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]%s}\n\n"
                   "data: {" HEAD
                   "\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":5,"
                   "\"total_tokens\":14}}\n\ndata: [DONE]\n\n",
                   null),
        ERR_OK);
}

struct result {
    struct buf out;
    uint64_t tokens;
    enum answer_state state;
    bool complete;
    struct reported_usage reported;
};

static void pass(struct str stream, uint64_t limit, bool hide, size_t step, struct result *r)
{
    struct answer_options o = { .dialect = &dialect_openai,
                                .vocab = qwen3,
                                .limit = limit,
                                .hide_usage = hide,
                                .want_usage = !hide,
                                .input_tokens = 9 };
    struct answer *a = answer_new(&o);
    assert_non_null(a);
    buf_init(&r->out, 1 << 20);
    while (stream.n > 0) {
        size_t n = MIN(step, stream.n);
        assert_int_equal(answer_feed(a, str_n(stream.p, n), &r->out), ERR_OK);
        stream.p += n, stream.n -= n;
    }
    assert_int_equal(answer_end(a, &r->out), ERR_OK);
    r->tokens = answer_tokens(a);
    r->state = answer_state(a);
    r->complete = answer_is_complete(a);
    r->reported = *answer_reported(a);
    answer_free(a);
}

/* All content of the events in a stream, joined. */
static void content_of(struct str stream, struct buf *out)
{
    while (stream.n > 0) {
        struct str line = str_cut(&stream, '\n');
        struct js_val root;
        if (!str_starts(line, STR("data: {"))) continue;
        assert_int_equal(js_parse(str_n(line.p + 6, line.n - 6), &root, NULL), ERR_OK);
        struct js_iter it;
        struct js_val choice;
        js_iter_init(&it, js_get(root, "choices"));
        while (js_next_element(&it, &choice)) {
            struct js_val c = js_get(js_get(choice, "delta"), "content");
            if (js_is(c, JS_STRING)) assert_int_equal(js_decode(c, out), ERR_OK);
        }
    }
}

static const char *const words[] = { "Hello",
                                     " wor",
                                     "ld",
                                     ",",
                                     " how",
                                     " are",
                                     " you",
                                     "?",
                                     " \\u4f60",
                                     "\\u597d",
                                     "\\n\\n",
                                     "  indented",
                                     " antidisestablish",
                                     "mentarianism",
                                     " \\ud83d\\ude00",
                                     " end" };

static void passes_a_stream_as_it_is_and_counts_it(void **state)
{
    struct buf in, text;
    struct result r;
    uint64_t want;
    (void)state;
    buf_init(&in, 1 << 16), buf_init(&text, 4096);
    make_stream(words, ARRAY_LEN(words), false, true, &in);
    pass(buf_str(&in), METER_NO_LIMIT, false, SIZE_MAX, &r);
    assert_true(str_eq(buf_str(&in), buf_str(&r.out)));
    content_of(buf_str(&in), &text);
    assert_int_equal(token_count(qwen3, buf_str(&text), SPECIAL_CONTROL, &want), ERR_OK);
    assert_int_equal(r.tokens, want);
    assert_int_equal(r.state, ANSWER_DONE);
    assert_int_equal(r.reported.output, 5);
    buf_done(&in), buf_done(&text), buf_done(&r.out);
}

static void hides_what_the_client_did_not_ask_for(void **state)
{
    struct buf in, plain, want;
    struct result r;
    (void)state;
    buf_init(&in, 1 << 16), buf_init(&plain, 1 << 16), buf_init(&want, 1 << 16);
    make_stream(words, ARRAY_LEN(words), true, true, &in);
    pass(buf_str(&in), METER_NO_LIMIT, true, 7, &r);
    assert_false(str_contains(buf_str(&r.out), STR("usage")));
    assert_true(str_ends(buf_str(&r.out), STR("data: [DONE]\n\n")));
    assert_true(r.reported.present);
    make_stream(words, ARRAY_LEN(words), false, false, &want);
    assert_true(str_starts(buf_str(&r.out), buf_str(&want)));
    buf_done(&in), buf_done(&plain), buf_done(&want), buf_done(&r.out);
}

static void cuts_at_the_token_whatever_the_split(void **state)
{
    struct buf in;
    (void)state;
    buf_init(&in, 1 << 16);
    make_stream(words, ARRAY_LEN(words), false, true, &in);
    for (uint64_t limit = 1; limit < 20; limit++) {
        struct result whole;
        struct buf text;
        uint64_t delivered;
        pass(buf_str(&in), limit, false, SIZE_MAX, &whole);
        assert_int_equal(whole.state, ANSWER_CUT);
        assert_true(whole.tokens <= limit);
        assert_true(str_ends(buf_str(&whole.out), STR("data: [DONE]\n\n")));
        assert_true(str_contains(buf_str(&whole.out), STR("\"finish_reason\":\"length\"")));
        assert_false(str_contains(buf_str(&whole.out), STR("\"stop\"")));
        buf_init(&text, 4096);
        content_of(buf_str(&whole.out), &text);
        assert_int_equal(token_count(qwen3, buf_str(&text), SPECIAL_CONTROL, &delivered), ERR_OK);
        assert_int_equal(delivered, whole.tokens);
        /* Less than the limit only where a character or a merge made it so: never by more than a
         * few. */
        assert_true(delivered + 4 >= limit);
        for (size_t step = 1; step < 60; step += 3) {
            struct result r;
            pass(buf_str(&in), limit, false, step, &r);
            if (!str_eq(buf_str(&r.out), buf_str(&whole.out)))
                fail_msg("limit %d step %zu:\n%s\n--- whole:\n%s", (int)limit, step, buf_z(&r.out),
                         buf_z(&whole.out));
            assert_int_equal(r.tokens, whole.tokens);
            buf_done(&r.out);
        }
        buf_done(&text), buf_done(&whole.out);
    }
    buf_done(&in);
}

static void does_not_cut_what_fits_exactly(void **state)
{
    struct buf in;
    struct result free_run, r;
    (void)state;
    buf_init(&in, 1 << 16);
    make_stream(words, ARRAY_LEN(words), false, true, &in);
    pass(buf_str(&in), METER_NO_LIMIT, false, SIZE_MAX, &free_run);
    pass(buf_str(&in), free_run.tokens, false, 11, &r);
    assert_int_equal(r.state, ANSWER_DONE);
    assert_true(str_eq(buf_str(&in), buf_str(&r.out)));
    buf_done(&r.out);
    pass(buf_str(&in), free_run.tokens - 1, false, 11, &r);
    assert_int_equal(r.state, ANSWER_CUT);
    buf_done(&in), buf_done(&r.out), buf_done(&free_run.out);
}

static void knows_a_stream_that_broke(void **state)
{
    struct buf in;
    struct result r;
    (void)state;
    buf_init(&in, 1 << 16);
    make_stream(words, 3, false, false, &in);
    pass(buf_str(&in), METER_NO_LIMIT, false, 5, &r);
    assert_false(r.complete);
    assert_true(str_eq(buf_str(&in), buf_str(&r.out)));
    buf_done(&in), buf_done(&r.out);
}

static void one_budget_for_all_texts(void **state)
{
    static const char stream[] =
        "data: {\"choices\":[{\"index\":0,\"delta\":{\"reasoning_content\":\"one two three four five\"},\"finish_reason\":null}]}\n\n"
        "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\" alpha beta gamma delta\"},\"finish_reason\":null}]}\n\n"
        "data: {\"choices\":[{\"index\":1,\"delta\":{\"content\":\"red green blue\"},\"finish_reason\":null}]}\n\n"
        "data: [DONE]\n\n";
    struct result r;
    (void)state;
    for (uint64_t limit = 1; limit < 12; limit++) {
        struct result bytes;
        pass(str_of(stream), limit, false, SIZE_MAX, &r);
        pass(str_of(stream), limit, false, 1, &bytes);
        assert_int_equal(r.state, ANSWER_CUT);
        assert_int_equal(r.tokens, limit);
        assert_true(str_eq(buf_str(&r.out), buf_str(&bytes.out)));
        buf_done(&r.out), buf_done(&bytes.out);
    }
}

static void cuts_a_whole_answer(void **state)
{
    static const char body[] =
        "{\"id\":\"x\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":"
        "\"one two three four five six\"},\"finish_reason\":\"stop\"}],"
        "\"usage\":{\"prompt_tokens\":4,\"completion_tokens\":6,\"total_tokens\":10}}";
    struct answer_options o = { .dialect = &dialect_openai, .vocab = qwen3, .limit = 3 };
    struct answer *a = answer_new(&o);
    struct buf out;
    struct str passed;
    (void)state;
    buf_init(&out, 4096);
    assert_int_equal(answer_whole(a, str_of(body), &out, &passed), ERR_OK);
    assert_ptr_equal(passed.p, out.data);
    assert_int_equal(passed.n, out.len);
    assert_int_equal(answer_state(a), ANSWER_CUT);
    assert_int_equal(answer_tokens(a), 3);
    assert_string_equal(
        buf_z(&out),
        "{\"id\":\"x\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":"
        "\"one two three\"},\"finish_reason\":\"length\"}],"
        "\"usage\":{\"prompt_tokens\":4,\"completion_tokens\":3,\"total_tokens\":7}}");
    answer_free(a);
    buf_done(&out);
}

static void ends_an_anthropic_stream_its_own_way(void **state)
{
    static const char stream[] =
        "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"m\",\"usage\":{\"input_tokens\":3,\"output_tokens\":1}}}\n\n"
        "event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\n"
        "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"one two three four five six\"}}\n\n"
        "event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":0}\n\n"
        "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"},\"usage\":{\"output_tokens\":6}}\n\n"
        "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";
    struct answer_options o = { .dialect = &dialect_anthropic, .vocab = qwen3, .limit = 3 };
    struct buf out;
    (void)state;
    for (int limited = 0; limited < 2; limited++) {
        o.limit = limited ? 3 : METER_NO_LIMIT;
        struct answer *a = answer_new(&o);
        buf_init(&out, 4096);
        assert_int_equal(answer_feed(a, str_of(stream), &out), ERR_OK);
        assert_int_equal(answer_end(a, &out), ERR_OK);
        assert_int_equal(answer_state(a), limited ? ANSWER_CUT : ANSWER_DONE);
        if (limited) {
            assert_int_equal(answer_tokens(a), 3);
            assert_true(str_contains(buf_str(&out), STR("\"text\":\"one two three\"")));
            assert_true(str_contains(buf_str(&out), STR("\"stop_reason\":\"max_tokens\"")));
            assert_false(str_contains(buf_str(&out), STR("end_turn")));
            assert_true(str_ends(
                buf_str(&out), STR("event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n")));
        } else {
            assert_true(str_eqz(buf_str(&out), stream));
            assert_int_equal(answer_reported(a)->input, 3);
            assert_int_equal(answer_reported(a)->output, 6);
        }
        answer_free(a);
        buf_done(&out);
    }
}

/* Some servers go on behind a finish reason. It passes, is counted, and does not hold the end back.
 */
static void text_behind_a_finish_reason_passes_and_counts(void **state)
{
#define PIECE(text, finish)                                                          \
    "data: {" HEAD "\"choices\":[{\"index\":0,\"delta\":{\"content\":\"" text "\"}," \
    "\"finish_reason\":" finish "}]}\n\n"
    static const char stream[] = PIECE("Hello", "\"stop\"") PIECE(" there", "\"stop\"")
        PIECE(" again", "null") "data: [DONE]\n\n";
    (void)state;
    for (size_t step = 1; step < sizeof stream; step += 13) {
        struct result r;
        pass(str_of(stream), METER_NO_LIMIT, false, step, &r);
        assert_true(str_eqz(buf_str(&r.out), stream));
        assert_int_equal(r.tokens, 3);
        assert_int_equal(r.state, ANSWER_DONE);
        buf_done(&r.out);
        pass(str_of(stream), 2, false, step, &r);
        assert_int_equal(r.tokens, 2);
        assert_int_equal(r.state, ANSWER_CUT);
        assert_true(str_contains(buf_str(&r.out), STR(" there")));
        assert_false(str_contains(buf_str(&r.out), STR(" again")));
        assert_true(str_ends(buf_str(&r.out), STR("data: [DONE]\n\n")));
        buf_done(&r.out);
    }
}

/* --- tokens that are had piece by piece --- */

/* Gives `slice` tokens more whenever the stream waits, up to `most`, and then no more. */
static void pass_in_slices(struct str stream, uint64_t limit, uint64_t slice, uint64_t most,
                           size_t step, struct result *r)
{
    struct answer_options o = { .dialect = &dialect_openai,
                                .vocab = qwen3,
                                .limit = limit,
                                .reserved = true,
                                .allowance = MIN(slice, most),
                                .want_usage = true,
                                .input_tokens = 9 };
    struct answer *a = answer_new(&o);
    uint64_t had = o.allowance;
    assert_non_null(a);
    buf_init(&r->out, 1 << 20);
    while (stream.n > 0 || answer_waits(a)) {
        size_t n = MIN(step, stream.n);
        if (n > 0) assert_int_equal(answer_feed(a, str_n(stream.p, n), &r->out), ERR_OK);
        stream.p += n, stream.n -= n;
        assert_true(answer_due(a) <= had);
        if (!answer_waits(a)) continue;
        assert_true(answer_wants(a) > had);
        had = MIN(had + slice, most);
        answer_allow(a, had);
        if (had == most) answer_deny(a);
        assert_int_equal(answer_resume(a, &r->out), ERR_OK);
        assert_true(answer_due(a) <= had);
    }
    assert_int_equal(answer_end(a, &r->out), ERR_OK);
    r->tokens = answer_tokens(a);
    r->state = answer_state(a);
    answer_free(a);
}

static void a_stream_that_gets_its_tokens_in_slices_comes_out_as_it_went_in(void **state)
{
    static const size_t steps[] = { 1, 7, 100, SIZE_MAX };
    struct buf in;
    struct result r;
    (void)state;
    buf_init(&in, 1 << 16);
    make_stream(words, ARRAY_LEN(words), true, true, &in);
    for (uint64_t slice = 1; slice <= 300; slice = slice * 2 + 1)
        for (size_t i = 0; i < ARRAY_LEN(steps); i++) {
            pass_in_slices(buf_str(&in), METER_NO_LIMIT, slice, UINT32_MAX, steps[i], &r);
            assert_true(str_eq(buf_str(&in), buf_str(&r.out)));
            assert_int_equal(r.state, ANSWER_DONE);
            buf_done(&r.out);
        }
    buf_done(&in);
}

/* Wherever the tokens end, the stream ends as if that had been its limit from the start. */
static void where_no_slice_is_to_be_had_the_stream_is_cut_at_its_last_token(void **state)
{
    struct buf in, text;
    struct result gated, limited;
    uint64_t n;
    (void)state;
    buf_init(&in, 1 << 16), buf_init(&text, 4096);
    make_stream(words, ARRAY_LEN(words), false, true, &in);
    for (uint64_t most = 1; most < 24; most++)
        for (uint64_t slice = 1; slice <= 8; slice++) {
            pass_in_slices(buf_str(&in), METER_NO_LIMIT, slice, most, 50, &gated);
            pass(buf_str(&in), most, false, 50, &limited);
            content_of(buf_str(&gated.out), &text);
            assert_int_equal(token_count(qwen3, buf_str(&text), SPECIAL_CONTROL, &n), ERR_OK);
            assert_true(n <= most);
            assert_int_equal(gated.state, limited.state);
            assert_int_equal(gated.tokens, limited.tokens);
            assert_true(str_eq(buf_str(&gated.out), buf_str(&limited.out)));
            buf_clear(&text), buf_done(&gated.out), buf_done(&limited.out);
        }
    buf_done(&in), buf_done(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(passes_a_stream_as_it_is_and_counts_it),
        cmocka_unit_test(hides_what_the_client_did_not_ask_for),
        cmocka_unit_test(cuts_at_the_token_whatever_the_split),
        cmocka_unit_test(does_not_cut_what_fits_exactly),
        cmocka_unit_test(knows_a_stream_that_broke),
        cmocka_unit_test(one_budget_for_all_texts),
        cmocka_unit_test(cuts_a_whole_answer),
        cmocka_unit_test(ends_an_anthropic_stream_its_own_way),
        cmocka_unit_test(text_behind_a_finish_reason_passes_and_counts),
        cmocka_unit_test(a_stream_that_gets_its_tokens_in_slices_comes_out_as_it_went_in),
        cmocka_unit_test(where_no_slice_is_to_be_had_the_stream_is_cut_at_its_last_token),
    };
    return cmocka_run_group_tests(tests, vocab_load, vocab_unload);
}
