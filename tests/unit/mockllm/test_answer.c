/* SPDX-License-Identifier: Apache-2.0 */
/* Texts of exact length, and that a streamed answer of each API adds up to the whole one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "services/mockllm/answer.h"

static void test_texts_have_as_many_pieces_as_words_and_marks(void **state)
{
    (void)state;
    for (uint64_t n = 0; n < 700; n += 7) {
        struct text t;
        struct buf out;
        buf_init(&out, 1 << 16);
        text_exact(&t, n * 31, n);
        assert_int_equal(text_append(&t, &out), ERR_OK);
        /* every word and every mark counts one here, too */
        assert_int_equal(count_words(buf_str(&out)), n);
        buf_done(&out);
    }
}

static void test_natural_texts_end_with_a_sentence(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 50; seed++) {
        struct text t, again;
        char scratch[TEXT_PIECE_MAX];
        text_natural(&t, seed);
        text_natural(&again, seed);
        assert_in_range(t.len, 30, 60);
        assert_int_equal(t.len, again.len);
        assert_true(str_eqz(text_piece(&t, t.len - 1, scratch), "."));
        assert_true(str_eqz(text_piece(&t, 6, scratch), " It") || t.start != 6);
    }
}

static void test_copies_never_part_a_character(void **state)
{
    (void)state;
    static const char s[] = "a\xe4\xbd\xa0\xe5\xa5\xbd\xf0\x9f\x98\x80z\xf0\x9f\x98\x80";
    struct text t;
    char scratch[TEXT_PIECE_MAX];
    struct buf out;
    buf_init(&out, 100);
    assert_int_equal(text_copy(&t, str_of(s)), ERR_OK);
    for (uint64_t i = 0; i < t.len; i++) {
        struct str piece = text_piece(&t, i, scratch);
        assert_true(str_is_utf8(piece) && piece.n > 0);
        assert_int_equal(buf_append_str(&out, piece), ERR_OK);
    }
    assert_true(str_eqz(buf_str(&out), s));
    text_done(&t);
    buf_done(&out);
}

/* --- answers --- */

struct made {
    struct llm_request request;
    struct behave behave;
    struct answer answer;
};

static void make(struct made *m, enum api api, const char *body, const char *spec)
{
    struct why why = { "" };
    behave_init(&m->behave);
    assert_int_equal(behave_parse(&m->behave, str_of(spec), ';', &why), ERR_OK);
    if (llm_request_parse(api, str_of(body), &m->request, &why) != ERR_OK) fail_msg("%s", why.text);
    assert_int_equal(answer_init(&m->answer, &m->request, &m->behave, 10, 1000000000, 1,
                                 m->behave.echo == ECHO_PROMPT ? m->request.last_text : STR_NULL,
                                 NULL),
                     ERR_OK);
}

static void unmake(struct made *m)
{
    answer_done(&m->answer);
    llm_request_done(&m->request);
}

/* Appends the string values of `key` in all events of the stream. */
static void collect(const struct json *n, const char *key, struct buf *out)
{
    if (str_eqz(json_key(n), key) && json_is(n, JSON_STRING))
        assert_int_equal(buf_append_str(out, json_str(n)), ERR_OK);
    for (const struct json *c = json_first(n); c != NULL; c = json_next(c)) collect(c, key, out);
}

/* Runs the stream; the text of the members `key`, the tokens of all events. */
static uint64_t stream(struct made *m, const char *key, struct buf *text, size_t *ret_events)
{
    struct event_info info = { 0 };
    struct buf event;
    uint64_t tokens = 0;
    bool last = false;
    enum err e;
    *ret_events = 0;
    buf_init(&event, 1 << 20);
    while ((e = answer_next(&m->answer, &event, &info)) == ERR_OK) {
        assert_false(last);
        last = info.last;
        tokens += info.tokens;
        ++*ret_events;
        const char *data = strstr(buf_z(&event), "data: ");
        assert_non_null(data);
        data += 6;
        size_t n = strcspn(data, "\n");
        assert_string_equal(data + n, "\n\n");
        if (strncmp(data, "[DONE]", n) != 0) {
            struct json *root;
            assert_int_equal(json_parse(str_n(data, n), n, &root, NULL), ERR_OK);
            collect(root, key, text);
            json_free(root);
        }
        buf_clear(&event);
    }
    assert_int_equal(e, ERR_NOT_FOUND);
    assert_true(last);
    buf_done(&event);
    return tokens;
}

#define CHAT(more) "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]" more "}"
#define STREAM ",\"stream\":true"

static const struct {
    enum api api;
    const char *whole, *streamed, *key, *whole_key;
} apis[] = {
    { API_CHAT, CHAT(""), CHAT(STREAM), "content", "content" },
    { API_COMPLETIONS, "{\"model\":\"m\",\"prompt\":\"hi\"}",
      "{\"model\":\"m\",\"prompt\":\"hi\"" STREAM "}", "text", "text" },
    { API_MESSAGES, CHAT(",\"max_tokens\":1000"), CHAT(",\"max_tokens\":1000" STREAM), "text",
      "text" },
    { API_RESPONSES, "{\"model\":\"m\",\"input\":\"hi\"}",
      "{\"model\":\"m\",\"input\":\"hi\"" STREAM "}", "delta", "text" },
};

static void test_streams_add_up_to_the_whole_answer(void **state)
{
    (void)state;
    static const char *const specs[] = { "",
                                         "tokens=0",
                                         "tokens=1",
                                         "tokens=50",
                                         "tokens=50;per_event=7",
                                         "tokens=5;per_event=100",
                                         "reasoning=9;tokens=20;per_event=4",
                                         "echo=prompt" };
    for (size_t a = 0; a < ARRAY_LEN(apis); a++) {
        for (size_t i = 0; i < ARRAY_LEN(specs); i++) {
            struct made m;
            struct buf body, whole, text;
            struct json *root;
            size_t events;
            buf_init(&body, 1 << 20);
            buf_init(&whole, 1 << 20);
            buf_init(&text, 1 << 20);
            make(&m, apis[a].api, apis[a].whole, specs[i]);
            assert_int_equal(answer_whole(&m.answer, &body), ERR_OK);
            assert_int_equal(json_parse(buf_str(&body), body.len, &root, NULL), ERR_OK);
            uint64_t total = m.answer.completion_tokens;
            unmake(&m);
            if (apis[a].api == API_MESSAGES || apis[a].api == API_RESPONSES) {
                /* the text of the last block; reasoning has another key or stands in front */
                const struct json *list = json_get(root, apis[a].api == API_MESSAGES ? "content"
                                                                                     : "output");
                for (const struct json *n = json_first(list); n != NULL; n = json_next(n))
                    if (!str_eqz(json_str(json_get(n, "type")), "reasoning"))
                        collect(n, apis[a].whole_key, &whole);
            } else {
                collect(json_get(root, "choices"), apis[a].whole_key, &whole);
            }
            json_free(root);

            make(&m, apis[a].api, apis[a].streamed, specs[i]);
            uint64_t tokens = stream(&m, apis[a].key, &text, &events);
            assert_int_equal(tokens, total);
            struct str got = buf_str(&text), want = buf_str(&whole);
            /* Anthropic and Responses repeat nothing under this key but the deltas; Responses'
             * reasoning deltas stand in front. */
            assert_true(str_ends(got, want));
            if (m.behave.reasoning == 0) assert_int_equal(got.n, want.n);
            unmake(&m);
            buf_done(&body);
            buf_done(&whole);
            buf_done(&text);
        }
    }
}

static void test_max_tokens_is_honoured_unless_told_otherwise(void **state)
{
    (void)state;
    struct made m;
    make(&m, API_CHAT, CHAT(",\"max_tokens\":5"), "tokens=9");
    assert_int_equal(m.answer.completion_tokens, 5);
    assert_string_equal(m.answer.choices[0].finish, "length");
    unmake(&m);
    make(&m, API_CHAT, CHAT(",\"max_completion_tokens\":5"), "tokens=3;reasoning=4");
    assert_int_equal(m.answer.completion_tokens, 5);
    assert_int_equal(m.answer.reasoning_tokens, 4);
    unmake(&m);
    make(&m, API_CHAT, CHAT(",\"max_tokens\":5"), "tokens=9;ignore_max");
    assert_int_equal(m.answer.completion_tokens, 9);
    assert_string_equal(m.answer.choices[0].finish, "stop");
    unmake(&m);
    make(&m, API_CHAT, CHAT(",\"max_tokens\":9"), "tokens=9");
    assert_string_equal(m.answer.choices[0].finish, "stop");
    unmake(&m);
}

static void test_choices_advance_together_and_all_end(void **state)
{
    (void)state;
    struct made m;
    struct buf text;
    size_t events;
    buf_init(&text, 1 << 20);
    make(&m, API_CHAT, CHAT(",\"n\":3,\"stream_options\":{\"include_usage\":true}" STREAM), "");
    uint64_t total = m.answer.completion_tokens;
    assert_int_equal(total,
                     m.answer.choices[0].len + m.answer.choices[1].len + m.answer.choices[2].len);
    assert_int_equal(stream(&m, "content", &text, &events), total);
    /* roles, pieces, finish reasons, usage, [DONE] */
    assert_int_equal(events, 3 + total + 3 + 1 + 1);
    unmake(&m);
    buf_done(&text);
}

static void test_tool_calls_have_arguments_that_are_json(void **state)
{
    (void)state;
    static const char tools[] = ",\"tools\":[{\"type\":\"function\",\"function\":{\"name\":"
                                "\"look\"}}],\"tool_choice\":\"required\",\"max_tokens\":100"
                                ",\"stream\":true}";
    struct buf body, text;
    struct made m;
    struct json *root;
    size_t events;
    buf_init(&body, 1 << 16);
    buf_init(&text, 1 << 16);
    assert_int_equal(buf_printf(&body,
                                "{\"model\":\"m\",\"messages\":[{\"role\":\"user\","
                                "\"content\":\"hi\"}]%s",
                                tools),
                     ERR_OK);
    make(&m, API_CHAT, buf_z(&body), "tokens=20");
    assert_int_equal(stream(&m, "arguments", &text, &events), 20);
    assert_int_equal(json_parse(buf_str(&text), text.len, &root, NULL), ERR_OK);
    assert_true(json_is(json_get(root, "query"), JSON_STRING));
    json_free(root);
    assert_string_equal(m.answer.choices[0].finish, "tool_calls");
    unmake(&m);
    buf_done(&text);
    buf_init(&text, 1 << 16);
    make(&m, API_MESSAGES, buf_z(&body), "tool;tokens=20");
    assert_int_equal(stream(&m, "partial_json", &text, &events), 20);
    assert_int_equal(json_parse(buf_str(&text), text.len, &root, NULL), ERR_OK);
    json_free(root);
    unmake(&m);
    buf_done(&text);
    buf_done(&body);
}

static void test_event_styles_mean_the_same(void **state)
{
    (void)state;
    struct behave b;
    struct buf out;
    buf_init(&out, 1000);
    behave_init(&b);
    assert_int_equal(behave_parse(&b, STR("eol=crlf;nospace;multiline"), ';', NULL), ERR_OK);
    assert_int_equal(sse_event(&out, &b, STR("x"), STR("{\"a\":1,\"b\":2}")), ERR_OK);
    assert_string_equal(buf_z(&out), "event:x\r\ndata:{\"a\":1,\r\ndata:\"b\":2}\r\n\r\n");
    buf_clear(&out);
    behave_init(&b);
    assert_int_equal(behave_parse(&b, STR("eol=cr;comments"), ';', NULL), ERR_OK);
    assert_int_equal(sse_event(&out, &b, STR_NULL, STR("[DONE]")), ERR_OK);
    assert_string_equal(buf_z(&out), ": keep-alive\r\rdata: [DONE]\r\r");
    buf_done(&out);
}

static void test_requests_that_a_server_would_refuse(void **state)
{
    (void)state;
    static const struct {
        enum api api;
        const char *body;
    } rows[] = {
        { API_CHAT, "" },
        { API_CHAT, "[]" },
        { API_CHAT, "{\"messages\":[{}]}" },
        { API_CHAT, "{\"model\":5,\"messages\":[{}]}" },
        { API_CHAT, "{\"model\":\"m\"}" },
        { API_CHAT, "{\"model\":\"m\",\"messages\":[]}" },
        { API_CHAT, "{\"model\":\"m\",\"messages\":\"hi\"}" },
        { API_CHAT, CHAT(",\"n\":0") },
        { API_CHAT, CHAT(",\"n\":1000") },
        { API_CHAT, CHAT(",\"max_tokens\":\"5\"") },
        { API_CHAT, CHAT(",\"max_tokens\":-1") },
        { API_CHAT, CHAT(",\"stream\":1") },
        { API_MESSAGES, CHAT("") },
        { API_EMBEDDINGS, "{\"model\":\"m\",\"input\":[]}" },
        { API_COMPLETIONS, "{\"model\":\"m\",\"prompt\":{}}" },
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct llm_request r;
        struct why why = { "" };
        assert_int_equal(llm_request_parse(rows[i].api, str_of(rows[i].body), &r, &why),
                         ERR_INVALID);
        assert_true(why.text[0] != '\0');
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_texts_have_as_many_pieces_as_words_and_marks),
        cmocka_unit_test(test_natural_texts_end_with_a_sentence),
        cmocka_unit_test(test_copies_never_part_a_character),
        cmocka_unit_test(test_streams_add_up_to_the_whole_answer),
        cmocka_unit_test(test_max_tokens_is_honoured_unless_told_otherwise),
        cmocka_unit_test(test_choices_advance_together_and_all_end),
        cmocka_unit_test(test_tool_calls_have_arguments_that_are_json),
        cmocka_unit_test(test_event_styles_mean_the_same),
        cmocka_unit_test(test_requests_that_a_server_would_refuse),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
