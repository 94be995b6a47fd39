/* SPDX-License-Identifier: Apache-2.0 */
/* What servers send beside the usual: many texts in an event, names twice, parts, sound, torn ends.
 * Without a vocabulary: what is counted here are estimates. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "services/edge/dialects/answer.h"

struct result {
    struct buf out;
    uint64_t tokens, reasoning;
    enum answer_state state;
    bool complete;
};

static struct answer *begin(const struct dialect *d, uint64_t limit, struct result *r)
{
    struct answer_options o = { .dialect = d, .limit = limit };
    struct answer *a = answer_new(&o);
    assert_non_null(a);
    buf_init(&r->out, 1 << 22);
    return a;
}

static void take(struct answer *a, struct result *r)
{
    r->tokens = answer_tokens(a);
    r->reasoning = answer_reasoning_tokens(a);
    r->state = answer_state(a);
    r->complete = answer_is_complete(a);
    answer_free(a);
}

static void stream(const struct dialect *d, struct str s, uint64_t limit, struct result *r)
{
    struct answer *a = begin(d, limit, r);
    assert_int_equal(answer_feed(a, s, &r->out), ERR_OK);
    assert_int_equal(answer_end(a, &r->out), ERR_OK);
    take(a, r);
}

static void whole(const struct dialect *d, const char *body, uint64_t limit, struct result *r)
{
    struct answer *a = begin(d, limit, r);
    struct str passed;
    assert_int_equal(answer_whole(a, str_of(body), &r->out, &passed), ERR_OK);
    if (passed.p == body) assert_int_equal(buf_append_str(&r->out, passed), ERR_OK);
    take(a, r);
}

static void an_event_with_very_many_texts_is_counted_and_cut(void **state)
{
    struct buf in;
    struct result all, cut;
    (void)state;
    buf_init(&in, 1 << 20);
    assert_int_equal(
        buf_appendz(&in, "data: {\"choices\":[{\"index\":0,\"delta\":{\"tool_calls\":["), ERR_OK);
    for (int i = 0; i < 500; i++)
        assert_int_equal(buf_printf(&in, "%s{\"index\":%d,\"function\":{\"arguments\":\"word%d\"}}",
                                    i > 0 ? "," : "", i, i),
                         ERR_OK);
    assert_int_equal(buf_appendz(&in, "]},\"finish_reason\":\"tool_calls\"}]}\n\ndata: [DONE]\n\n"),
                     ERR_OK);
    stream(&dialect_openai, buf_str(&in), METER_NO_LIMIT, &all);
    assert_true(str_eq(buf_str(&in), buf_str(&all.out)));
    assert_true(all.tokens >= 500);
    stream(&dialect_openai, buf_str(&in), 100, &cut);
    assert_int_equal(cut.state, ANSWER_CUT);
    assert_true(cut.tokens <= 100);
    assert_false(str_contains(buf_str(&cut.out), STR("word300")));
    assert_true(str_contains(buf_str(&cut.out), STR("\"finish_reason\":\"length\"")));
    buf_done(&in), buf_done(&all.out), buf_done(&cut.out);
}

static void reasoning_under_two_names_counts_once_and_is_cut_in_both(void **state)
{
#define THINK(names) \
    "data: {\"choices\":[{\"index\":0,\"delta\":{" names "},\"finish_reason\":null}]}\n\n"
    static const char twice[] = THINK(
        "\"reasoning\":\"one two three four\",\"reasoning_content\":\"one two three four\"");
    static const char once[] = THINK("\"reasoning\":\"one two three four\"");
    struct result a, b, cut;
    (void)state;
    stream(&dialect_openai, str_of(twice), METER_NO_LIMIT, &a);
    stream(&dialect_openai, str_of(once), METER_NO_LIMIT, &b);
    assert_int_equal(a.tokens, b.tokens);
    assert_int_equal(a.reasoning, b.tokens);
    stream(&dialect_openai, str_of(twice), 2, &cut);
    assert_int_equal(cut.state, ANSWER_CUT);
    assert_false(str_contains(buf_str(&cut.out), STR("four")));
    buf_done(&a.out), buf_done(&b.out), buf_done(&cut.out);
}

static void parts_of_content_count_as_what_they_are(void **state)
{
    struct result r;
    (void)state;
    stream(
        &dialect_openai,
        STR(THINK("\"content\":[{\"type\":\"thinking\",\"thinking\":[{\"type\":\"text\",\"text\":"
                  "\"think hard\"}]},{\"type\":\"text\",\"text\":\"well\"}]")),
        METER_NO_LIMIT, &r);
    assert_true(r.reasoning > 0 && r.tokens > r.reasoning);
    buf_done(&r.out);
    stream(&dialect_openai,
           STR(THINK("\"audio\":{\"id\":\"a\",\"data\":\"UklGRg==\",\"transcript\":\"hello\"}")),
           METER_NO_LIMIT, &r);
    assert_true(r.tokens > 0);
    buf_done(&r.out);
}

/* Chunks of other shapes than the usual take nothing from the stream, and pass as they are. */
static void odd_chunks_pass_untouched(void **state)
{
    static const char odd[] =
        "data: {\"object\":\"chat.completion.chunk\"}\n\n"
        "data: {\"choices\":[],\"usage\":null}\n\ndata: {\"choices\":null}\n\n"
        "data: {\"choices\":[{\"index\":0,\"delta\":null,\"finish_reason\":null}]}\n\n"
        "data: {\"choices\":[{}]}\n\nevent: x\ndata: {\"new\":[1]}\n\nid: 4\n\n: ping\n\n"
        "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\",\"images\":[{\"u\":1}]},"
        "\"logprobs\":{\"content\":[]},\"finish_reason\":\"stop\"}],\"usage\":null}\n\n"
        "data: {\"choices\":[],\"usage\":{\"completion_tokens\":0}}\n\ndata: [DONE]\n\n";
    struct result r;
    (void)state;
    stream(&dialect_openai, str_of(odd), METER_NO_LIMIT, &r);
    assert_string_equal(buf_z(&r.out), odd);
    assert_int_equal(r.tokens, 1);
    assert_true(r.complete && r.state == ANSWER_DONE);
    buf_done(&r.out);
}

/* What follows an event that was torn off, or lacks its line ends, stands on lines of its own. */
static void a_torn_last_event_is_dropped_and_a_whole_one_completed(void **state)
{
    static const char first[] =
        "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"},\"finish_reason\":null}]}\n\n";
    static const char *const tails[][2] = {
        { "data: {\"choices\":[{\"ind", "" },
        { "data: [DONE]", "data: [DONE]\n\n" },
        { "data: [DONE]\n", "data: [DONE]\n\n" },
        { "data: [DONE]\r\n\r", "data: [DONE]\r\n\r\n" },
        { ": bye", ": bye\n\n" },
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(tails); i++) {
        struct buf in, want;
        struct result r;
        buf_init(&in, 4096), buf_init(&want, 4096);
        assert_int_equal(buf_printf(&in, "%s%s", first, tails[i][0]), ERR_OK);
        assert_int_equal(buf_printf(&want, "%s%s", first, tails[i][1]), ERR_OK);
        stream(&dialect_openai, buf_str(&in), METER_NO_LIMIT, &r);
        assert_string_equal(buf_z(&r.out), buf_z(&want));
        assert_int_equal(r.complete, str_contains(buf_str(&in), STR("[DONE]")));
        buf_done(&in), buf_done(&want), buf_done(&r.out);
    }
}

static void whole_answers_of_all_shapes_are_cut(void **state)
{
    static const char chat[] =
        "{\"choices\":[{\"index\":0,\"message\":{\"reasoning_content\":\"one two\",\"content\":"
        "\"three four\"},\"finish_reason\":\"stop\"},{\"index\":1,\"message\":{\"content\":null,"
        "\"tool_calls\":[{\"id\":\"c\",\"function\":{\"name\":\"f\",\"arguments\":\"{\\\"city\\\":1}\"}"
        "}]},\"finish_reason\":\"tool_calls\"}],\"usage\":{\"completion_tokens\":9,\"total_tokens\":11,"
        "\"prompt_tokens\":2}}";
    static const char message[] =
        "{\"type\":\"message\",\"content\":[{\"type\":\"text\",\"text\":\"one two\"},{\"type\":"
        "\"tool_use\",\"name\":\"f\",\"input\":{\"city\":\"Rome\"}}],\"stop_reason\":\"tool_use\","
        "\"usage\":{\"input_tokens\":3,\"output_tokens\":9}}";
    struct result all, r;
    (void)state;
    whole(&dialect_openai, chat, METER_NO_LIMIT, &all);
    assert_string_equal(buf_z(&all.out), chat);
    for (uint64_t limit = 1; limit < all.tokens; limit++) {
        struct js_val root;
        whole(&dialect_openai, chat, limit, &r);
        assert_int_equal(r.state, ANSWER_CUT);
        assert_true(r.tokens <= limit);
        assert_int_equal(js_parse(buf_str(&r.out), &root, NULL), ERR_OK);
        assert_true(str_contains(buf_str(&r.out), STR("\"finish_reason\":\"length\"")));
        assert_false(str_contains(buf_str(&r.out), STR("\"tool_calls\"}]")));
        buf_done(&r.out);
    }
    buf_done(&all.out);
    /* Arguments that are a value count as its text, and cannot be cut in the middle. */
    whole(&dialect_anthropic, message, METER_NO_LIMIT, &all);
    assert_string_equal(buf_z(&all.out), message);
    whole(&dialect_anthropic, message, all.tokens - 1, &r);
    assert_int_equal(r.state, ANSWER_CUT);
    assert_true(str_contains(buf_str(&r.out), STR("\"input\":{}}")));
    assert_true(str_contains(buf_str(&r.out), STR("\"stop_reason\":\"max_tokens\"")));
    buf_done(&r.out), buf_done(&all.out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_event_with_very_many_texts_is_counted_and_cut),
        cmocka_unit_test(reasoning_under_two_names_counts_once_and_is_cut_in_both),
        cmocka_unit_test(parts_of_content_count_as_what_they_are),
        cmocka_unit_test(odd_chunks_pass_untouched),
        cmocka_unit_test(a_torn_last_event_is_dropped_and_a_whole_one_completed),
        cmocka_unit_test(whole_answers_of_all_shapes_are_cut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
