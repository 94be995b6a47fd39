/* SPDX-License-Identifier: Apache-2.0 */
/* OpenAI's Responses: requests read and counted as chats; ends of streams that were cut; texts that
 * no delta brought. Without a vocabulary: what is counted here are estimates. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "services/edge/dialects/answer.h"
#include "services/edge/dialects/responses_chat.h"

/* --- requests --- */

static enum err scan(const char *text, struct request_scan *r, const char **param)
{
    struct js_val root;
    struct why why;
    *param = "";
    assert_int_equal(js_parse(str_of(text), &root, NULL), ERR_OK);
    return dialect_responses.scan_request(SNAP_EP_RESPONSES, root, r, param, &why);
}

static void reads_a_request(void **state)
{
    struct request_scan r;
    const char *param;
    (void)state;
    assert_int_equal(
        scan("{\"model\":\"m\",\"input\":\"x\",\"stream\":true,\"max_output_tokens\":20,"
             "\"background\":false,\"previous_response_id\":null}",
             &r, &param),
        ERR_OK);
    assert_true(r.stream && r.wants_usage && !r.context_elsewhere);
    assert_int_equal(r.max_tokens, 20);
    assert_int_equal(r.choices, 1);
    assert_int_equal(scan("{\"model\":\"m\",\"previous_response_id\":\"r\"}", &r, &param), ERR_OK);
    assert_true(r.context_elsewhere);
}

static void refuses_and_names_the_parameter(void **state)
{
    static const char *const rows[][2] = {
        { "{\"input\":\"x\"}", "model" },
        { "{\"model\":\"m\"}", "input" },
        { "{\"model\":\"m\",\"input\":7}", "input" },
        { "{\"model\":\"m\",\"input\":\"x\",\"input\":\"y\"}", "input" },
        { "{\"model\":\"m\",\"Input\":\"x\"}", "input" },
        { "{\"model\":\"m\",\"input\":\"x\",\"stream\":1}", "stream" },
        { "{\"model\":\"m\",\"input\":\"x\",\"background\":true}", "background" },
        { "{\"model\":\"m\",\"input\":\"x\",\"max_output_tokens\":0}", "max_output_tokens" },
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct request_scan r;
        const char *param;
        assert_int_equal(scan(rows[i][0], &r, &param), ERR_INVALID);
        assert_string_equal(param, rows[i][1]);
    }
}

static void is_the_chat_that_a_model_is_given(void **state)
{
    static const struct {
        const char *request, *messages, *tools;
        bool exact;
    } rows[] = {
        { "{\"model\":\"m\",\"input\":\"hi\"}", "[{\"role\":\"user\",\"content\":\"hi\"}]", "",
          true },
        { "{\"model\":\"m\",\"instructions\":\"be \\u0041\",\"input\":[{\"role\":\"user\",\"content\":"
          "[{\"type\":\"input_text\",\"text\":\"a\"}]},{\"type\":\"function_call\",\"call_id\":\"c\","
          "\"name\":\"f\",\"arguments\":\"{}\"},{\"type\":\"function_call_output\",\"call_id\":\"c\","
          "\"output\":\"5\"}],\"tools\":[{\"type\":\"function\",\"name\":\"f\",\"strict\":true,"
          "\"parameters\":{}}]}",
          "[{\"role\":\"system\",\"content\":\"be \\u0041\"},{\"role\":\"user\",\"content\":[{\"type\":"
          "\"input_text\",\"text\":\"a\"}]},{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[{"
          "\"id\":\"c\",\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":\"{}\"}}]},{"
          "\"role\":\"tool\",\"content\":\"5\",\"tool_call_id\":\"c\"}]",
          "[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"parameters\":{}}}]", true },
        { "{\"model\":\"m\",\"input\":[{\"type\":\"item_reference\",\"id\":\"i\"}],\"tools\":[{"
          "\"type\":\"web_search\"}]}",
          "[{\"role\":\"user\",\"content\":\"{\\\"type\\\":\\\"item_reference\\\",\\\"id\\\":"
          "\\\"i\\\"}\"}]",
          "[{\"type\":\"web_search\"}]", false },
        { "{\"model\":\"m\",\"input\":[],\"conversation\":\"c\"}", "[]", "", false },
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct request_scan r;
        struct responses_chat c;
        struct js_val v;
        const char *param;
        assert_int_equal(scan(rows[i].request, &r, &param), ERR_OK);
        assert_int_equal(responses_chat_make(&r, &c), ERR_OK);
        assert_string_equal(buf_z(&c.messages), rows[i].messages);
        assert_true(str_eqz(buf_str(&c.tools), rows[i].tools));
        assert_int_equal(js_parse(buf_str(&c.messages), &v, NULL), ERR_OK);
        assert_int_equal(c.exact, rows[i].exact);
        responses_chat_done(&c);
    }
}

/* --- streams --- */

#define EV(n, type, rest)                                                                    \
    "event: response." type "\ndata: {\"type\":\"response." type "\",\"sequence_number\":" n \
    "," rest "}\n\n"
#define CREATED                                                                               \
    EV("0", "created",                                                                        \
       "\"response\":{\"id\":\"r\",\"status\":\"in_progress\",\"model\":\"m\",\"output\":[]," \
       "\"incomplete_details\":null,\"tools\":[],\"usage\":null}")

struct seen {
    struct buf out;
    struct js_val last; /* data of the last event */
    uint64_t tokens, events, sequence;
    enum answer_state state;
    bool complete, error;
    struct reported_usage reported;
};

/* Every event is one line of name and one of data, and their numbers run on. */
static void read_events(struct seen *s)
{
    struct str rest = buf_str(&s->out);
    while (rest.n > 0) {
        struct js_val root;
        uint64_t n = 0;
        struct str line = str_cut(&rest, '\n');
        if (!str_starts(line, STR("data: {"))) continue;
        assert_int_equal(js_parse(str_n(line.p + 6, line.n - 6), &root, NULL), ERR_OK);
        assert_int_equal(js_u64(js_get(root, "sequence_number"), &n), ERR_OK);
        assert_int_equal(n, s->events++);
        s->last = root;
    }
}

static void pass(const char *stream, uint64_t limit, struct seen *s)
{
    struct answer_options o = {
        .dialect = &dialect_responses, .limit = limit, .input_tokens = 9, .want_usage = true
    };
    struct answer *a = answer_new(&o);
    *s = (struct seen){ .tokens = 0 };
    buf_init(&s->out, 1 << 20);
    assert_int_equal(answer_feed(a, str_of(stream), &s->out), ERR_OK);
    assert_int_equal(answer_end(a, &s->out), ERR_OK);
    s->tokens = answer_tokens(a);
    s->state = answer_state(a);
    s->complete = answer_is_complete(a);
    s->error = answer_saw_error(a);
    s->reported = *answer_reported(a);
    s->sequence = answer_sequence(a);
    answer_free(a);
    read_events(s);
}

#define ITEM(n, i, type, rest)                                               \
    EV(n, "output_item.added",                                               \
       "\"output_index\":" i ",\"item\":{\"id\":\"i" i "\",\"type\":\"" type \
       "\",\"status\":\"in_progress\"" rest "}")
#define SUMMARY(n, delta)                 \
    EV(n, "reasoning_summary_text.delta", \
       "\"item_id\":\"i0\",\"output_index\":0,\"summary_index\":0,\"delta\":\"" delta "\"")
#define TEXT(n, delta)                                                                                \
    EV(n, "output_text.delta",                                                                        \
       "\"item_id\":\"i1\",\"output_index\":1,\"content_index\":0,\"logprobs\":[],\"delta\":\"" delta \
       "\"")

static const char answer[] = CREATED ITEM("1", "0", "reasoning", ",\"summary\":[]") EV(
    "2", "reasoning_summary_part.added",
    "\"output_index\":0,\"summary_index\":0,\"part\":{\"type\":\"summary_text\",\"text\":\"\"}")
    SUMMARY("3", "let me") SUMMARY("4", " see now") EV(
        "5", "output_item.done",
        "\"output_index\":0,\"item\":{\"id\":\"i0\",\"type\":\"reasoning\",\"summary\":[{\"type\":"
        "\"summary_text\",\"text\":\"let me see now\"}]}")
        ITEM("6", "1", "message", ",\"role\":\"assistant\",\"content\":[]") EV(
            "7", "content_part.added",
            "\"output_index\":1,\"content_index\":0,\"part\":{\"type\":"
            "\"output_text\",\"annotations\":[],\"text\":\"\"}") TEXT("8", "one two")
            TEXT("9", " three \\\"four\\\"") TEXT("10", " five six") EV(
                "11", "output_text.done",
                "\"output_index\":1,\"content_index\":0,\"text\":"
                "\"one two three \\\"four\\\" five six\"")
                EV("12", "completed",
                   "\"response\":{\"id\":\"r\",\"status\":\"completed\",\"usage\":{"
                   "\"input_tokens\":3,\"output_tokens\":14,\"output_tokens_details\":{\"reasoning_tokens\":4}}}");

static struct js_val at(struct js_val array, size_t n)
{
    struct js_iter it;
    struct js_val v = JS_ABSENT;
    js_iter_init(&it, array);
    for (size_t i = 0; i <= n; i++)
        if (!js_next_element(&it, &v)) return JS_ABSENT;
    return v;
}

static void passes_what_is_within_its_limit(void **state)
{
    struct seen s, same;
    (void)state;
    pass(answer, METER_NO_LIMIT, &s);
    assert_string_equal(buf_z(&s.out), answer);
    assert_true(s.complete && !s.error && s.state == ANSWER_DONE);
    assert_int_equal(s.reported.output, 14);
    assert_int_equal(s.reported.reasoning, 4);
    pass(answer, s.tokens, &same);
    assert_string_equal(buf_z(&same.out), answer);
    assert_int_equal(same.state, ANSWER_DONE);
    buf_done(&s.out), buf_done(&same.out);
}

/* Wherever the limit is: what was open is closed with the text that was delivered. */
static void a_cut_closes_all_that_was_open(void **state)
{
    struct seen all, s;
    (void)state;
    pass(answer, METER_NO_LIMIT, &all);
    for (uint64_t limit = 1; limit < all.tokens; limit++) {
        pass(answer, limit, &s);
        assert_int_equal(s.state, ANSWER_CUT);
        assert_true(s.tokens <= limit);
        struct js_val r = js_get(s.last, "response"), output = js_get(r, "output");
        assert_true(str_eqz(js_get(s.last, "type").raw, "\"response.incomplete\""));
        assert_true(str_eqz(js_get(r, "status").raw, "\"incomplete\""));
        assert_true(str_eqz(js_get(r, "id").raw, "\"r\""));
        assert_true(str_eqz(js_get(js_get(r, "incomplete_details"), "reason").raw,
                            "\"max_output_tokens\""));
        uint64_t reported;
        assert_int_equal(js_u64(js_get(js_get(r, "usage"), "output_tokens"), &reported), ERR_OK);
        assert_int_equal(reported, s.tokens);
        struct js_val summary = js_get(at(js_get(at(output, 0), "summary"), 0), "text");
        struct js_val text = js_get(at(js_get(at(output, 1), "content"), 0), "text");
        assert_false(
            str_contains(buf_str(&s.out), STR("in_progress\"}}\n\nevent: response.incomplete")));
        if (at(output, 1).raw.p == NULL) {
            assert_true(str_eqz(js_get(at(output, 0), "status").raw, "\"incomplete\""));
            assert_true(str_contains(buf_str(&s.out), STR("response.reasoning_summary_text.done")));
            assert_true(str_contains(buf_str(&s.out), STR("response.reasoning_summary_part.done")));
        } else {
            assert_true(str_eqz(summary.raw, "\"let me see now\""));
            assert_true(str_eqz(js_get(at(output, 1), "status").raw, "\"incomplete\""));
        }
        if (text.raw.p != NULL && text.raw.n > 2) {
            assert_true(str_starts(STR("\"one two three \\\"four\\\" five six"),
                                   str_n(text.raw.p, text.raw.n - 1)));
            assert_true(str_contains(buf_str(&s.out), STR("response.output_text.done")));
            assert_true(str_contains(buf_str(&s.out), STR("response.content_part.done")));
        }
        assert_false(str_contains(buf_str(&s.out), STR("response.completed")));
        buf_done(&s.out);
    }
    buf_done(&all.out);
}

/* Servers that only tell of texts when they are complete do not get around a limit. */
static void what_no_delta_brought_is_counted(void **state)
{
    static const char done[] = CREATED EV(
        "1", "output_item.done",
        "\"output_index\":0,\"item\":{\"type\":\"message\",\"content\":[{"
        "\"type\":\"output_text\",\"text\":\"one two three four five six\"}]}")
        EV("2", "completed",
           "\"response\":{\"output\":[{\"type\":\"message\",\"content\":[{\"type\":"
           "\"output_text\",\"text\":\"one two three four five six\"}]},{\"type\":\"custom_tool_call\","
           "\"input\":\"seven eight\"}]}");
    struct seen all, s;
    (void)state;
    pass(done, METER_NO_LIMIT, &all);
    assert_string_equal(buf_z(&all.out), done);
    assert_true(all.tokens >= 8);
    for (uint64_t limit = 1; limit < all.tokens; limit++) {
        pass(done, limit, &s);
        assert_int_equal(s.state, ANSWER_CUT);
        assert_true(s.tokens <= limit);
        assert_false(str_contains(buf_str(&s.out), STR("seven")));
        assert_true(str_eqz(js_get(s.last, "type").raw, "\"response.incomplete\""));
        buf_done(&s.out);
    }
    buf_done(&all.out);
}

static void failed_and_incomplete_tell_their_usage_too(void **state)
{
    struct seen s;
    (void)state;
    pass(CREATED EV("1", "incomplete",
                    "\"response\":{\"status\":\"incomplete\",\"usage\":{"
                    "\"input_tokens\":4,\"output_tokens\":5}}"),
         METER_NO_LIMIT, &s);
    assert_int_equal(s.reported.output, 5);
    assert_true(s.complete && !s.error);
    buf_done(&s.out);
    pass(CREATED EV("1", "failed",
                    "\"response\":{\"status\":\"failed\",\"error\":{},\"usage\":{"
                    "\"input_tokens\":4,\"output_tokens\":6}}"),
         METER_NO_LIMIT, &s);
    assert_int_equal(s.reported.output, 6);
    assert_true(s.complete && s.error);
    buf_done(&s.out);
    pass(CREATED
         "event: error\ndata: {\"type\":\"error\",\"sequence_number\":1,\"message\":\"x\"}\n\n",
         METER_NO_LIMIT, &s);
    assert_true(!s.complete && s.error);
    assert_int_equal(s.sequence, 2);
    buf_done(&s.out);
}

static void an_error_event_goes_on_with_the_numbers(void **state)
{
    struct buf out;
    struct js_val root;
    (void)state;
    buf_init(&out, 4096);
    assert_int_equal(dialect_responses.write_error_event(REFUSE_UPSTREAM_TIMEOUT,
                                                         STR("too \"late\""), STR("id"), 7, &out),
                     ERR_OK);
    struct str text = buf_str(&out), name = str_cut(&text, '\n');
    assert_true(str_eqz(name, "event: error"));
    text = str_cut(&text, '\n');
    assert_int_equal(js_parse(str_n(text.p + 6, text.n - 6), &root, NULL), ERR_OK);
    assert_true(str_eqz(js_get(root, "sequence_number").raw, "7"));
    assert_true(str_eqz(js_get(root, "code").raw, "\"upstream_timeout\""));
    assert_true(str_eqz(js_get(js_get(root, "error"), "message").raw, "\"too \\\"late\\\"\""));
    buf_done(&out);
}

static void a_whole_answer_is_cut(void **state)
{
    static const char body[] =
        "{\"id\":\"r\",\"status\":\"completed\",\"incomplete_details\":null,\"error\":null,\"output\":[{"
        "\"type\":\"message\",\"content\":[{\"type\":\"output_text\",\"text\":\"one two three four "
        "five\"}]},{\"type\":\"function_call\",\"arguments\":\"{\\\"a\\\":1}\"}],\"usage\":{"
        "\"input_tokens\":3,\"output_tokens\":9,\"total_tokens\":12}}";
    struct answer_options o = { .dialect = &dialect_responses, .limit = 2 };
    struct answer *a = answer_new(&o);
    struct buf out;
    struct str passed;
    struct js_val r;
    (void)state;
    buf_init(&out, 4096);
    assert_int_equal(answer_whole(a, str_of(body), &out, &passed), ERR_OK);
    assert_ptr_equal(passed.p, out.data);
    assert_int_equal(passed.n, out.len);
    assert_int_equal(answer_state(a), ANSWER_CUT);
    assert_int_equal(js_parse(buf_str(&out), &r, NULL), ERR_OK);
    assert_true(str_eqz(js_get(r, "status").raw, "\"incomplete\""));
    assert_true(
        str_eqz(js_get(js_get(r, "incomplete_details"), "reason").raw, "\"max_output_tokens\""));
    assert_true(str_eqz(js_get(at(js_get(r, "output"), 1), "arguments").raw, "\"\""));
    assert_true(str_eqz(js_get(js_get(r, "usage"), "output_tokens").raw, "2"));
    answer_free(a);
    buf_done(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_a_request),
        cmocka_unit_test(refuses_and_names_the_parameter),
        cmocka_unit_test(is_the_chat_that_a_model_is_given),
        cmocka_unit_test(passes_what_is_within_its_limit),
        cmocka_unit_test(a_cut_closes_all_that_was_open),
        cmocka_unit_test(what_no_delta_brought_is_counted),
        cmocka_unit_test(failed_and_incomplete_tell_their_usage_too),
        cmocka_unit_test(an_error_event_goes_on_with_the_numbers),
        cmocka_unit_test(a_whole_answer_is_cut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
