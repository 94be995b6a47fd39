/* SPDX-License-Identifier: Apache-2.0 */
/* The token count message: round trips, samples, bounds, and that a client's bytes pass unchanged.
 */
#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "proto/token_msg.h"

static struct buf read_file(const char *dir, const char *name)
{
    char path[512];
    struct buf b;
    char chunk[4096];
    size_t n;
    buf_init(&b, 1 << 20);
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    while ((n = fread(chunk, 1, sizeof chunk, f)) > 0)
        assert_int_equal(buf_append(&b, chunk, n), ERR_OK);
    fclose(f);
    return b;
}

typedef enum err parse_fn(struct str data, struct chat_error *error);

static enum err parse_request(struct str data, struct chat_error *error)
{
    struct arena a;
    struct token_request q;
    arena_init(&a, 4 << 20);
    enum err e = token_msg_request_parse(&a, data, &q, error);
    arena_done(&a);
    return e;
}

static enum err parse_answer(struct str data, struct chat_error *error)
{
    struct token_answer a;
    enum err e = token_msg_answer_parse(data, &a, error);
    return error->raised ? ERR_OK : e; /* the sample of an error is a good answer */
}

static int samples(const char *dir, parse_fn *parse, bool good)
{
    int seen = 0;
    DIR *d = opendir(dir);
    assert_non_null(d);
    for (const struct dirent *f; (f = readdir(d)) != NULL;) {
        struct chat_error error = { .raised = false };
        if (f->d_name[0] == '.') continue;
        struct buf b = read_file(dir, f->d_name);
        enum err e = parse(buf_str(&b), &error);
        if ((e == ERR_OK) != good)
            fail_msg("%s/%s: %s %s", dir, f->d_name, err_name(e), error.why.text);
        if (!good && error.why.text[0] == '\0') fail_msg("%s/%s: no reason", dir, f->d_name);
        buf_done(&b);
        seen++;
    }
    closedir(d);
    return seen;
}

static void samples_are_what_they_are_called(void **state)
{
    (void)state;
    assert_true(samples("proto/samples/token_request/good", parse_request, true) >= 3);
    assert_true(samples("proto/samples/token_request/bad", parse_request, false) >= 10);
    assert_true(samples("proto/samples/token_answer/good", parse_answer, true) >= 3);
    assert_true(samples("proto/samples/token_answer/bad", parse_answer, false) >= 8);
}

static void a_request_carries_the_clients_bytes(void **state)
{
    (void)state;
    struct clock_fake clock;
    struct rng_fake rng;
    struct arena a;
    struct buf b;
    struct token_request q;
    struct chat_error error;
    clock_fake_init(&clock, 0, 1767323045000000000);
    rng_fake_init(&rng, 1);
    arena_init(&a, 1 << 20);
    buf_init(&b, 1 << 20);
    struct token_slices s = {
        .model = STR("Qwen3-8B"),
        .messages = STR("[ {\"role\":\"user\", \"content\":\"\\u4f60\\/\"} ]"),
        .tools = STR("[{\"big\":12345678901234567890,\"one\":1.0}]"),
        .kwargs = STR("{\"enable_thinking\":false}"),
        .no_generation_prompt = true,
    };
    assert_int_equal(token_msg_request(&b, &clock.clock, &rng.rng, "edge-1", &s), ERR_OK);
    assert_true(str_contains(buf_str(&b), s.messages));
    assert_true(str_contains(buf_str(&b), s.tools));
    assert_true(str_contains(buf_str(&b), STR("\"ts\":\"2026-01-02T03:04:05.000Z\"")));
    assert_int_equal(token_msg_request_parse(&a, buf_str(&b), &q, &error), ERR_OK);
    assert_true(str_eqz(q.model, "Qwen3-8B"));
    assert_false(q.is_text);
    assert_true(q.chat.no_generation_prompt);
    assert_true(str_eqz(jv_text(*jv_member(q.chat.messages.list->items[0], STR("content"))),
                        "\xe4\xbd\xa0/"));
    assert_int_equal(jv_member(q.chat.tools.list->items[0], STR("big"))->type, JV_BIGINT);
    assert_int_equal(jv_member(q.chat.tools.list->items[0], STR("one"))->type, JV_FLOAT);
    buf_clear(&b);
    struct token_slices text = { .model = STR("m"), .text = STR("a \"text\"\n\x01") };
    assert_int_equal(token_msg_request(&b, &clock.clock, &rng.rng, "edge-1", &text), ERR_OK);
    assert_int_equal(token_msg_request_parse(&a, buf_str(&b), &q, &error), ERR_OK);
    assert_true(q.is_text && str_eq(q.text, text.text));
    buf_done(&b);
    arena_done(&a);
}

static void a_large_request_is_refused_before_it_is_sent(void **state)
{
    (void)state;
    struct buf b;
    char *big = xmalloc(TOKEN_MSG_MAX);
    memset(big, 'x', TOKEN_MSG_MAX);
    buf_init(&b, 4 << 20);
    assert_int_equal(buf_appendz(&b, "before"), ERR_OK);
    struct token_slices s = { .model = STR("m"), .text = str_n(big, TOKEN_MSG_MAX) };
    assert_int_equal(token_msg_request(&b, clock_system(), rng_system(), "edge-1", &s), ERR_LIMIT);
    assert_true(str_eqz(buf_str(&b), "before"));
    buf_done(&b);
    free(big);
}

static void an_answer_says_how_it_was_counted(void **state)
{
    (void)state;
    struct chat_count c = {
        .tokens = 9, .exact = true, .method = CHAT_OPENAI, .vocabulary = STR("o200k_base")
    };
    struct token_answer t;
    struct chat_error error;
    struct buf b;
    buf_init(&b, 1 << 16);
    chat_warn(&c, "a %s", "\"warning\"");
    assert_int_equal(
        token_msg_answer(&b, clock_system(), rng_system(), "token-1", STR("gpt-4o"), &c), ERR_OK);
    assert_true(str_contains(buf_str(&b), STR("\"warnings\":[\"a \\\"warning\\\"\"]")));
    assert_int_equal(token_msg_answer_parse(buf_str(&b), &t, &error), ERR_OK);
    assert_int_equal(t.tokens, 9);
    assert_true(t.exact);
    assert_int_equal(t.method, CHAT_OPENAI);
    assert_string_equal(t.vocabulary, "o200k_base");
    buf_done(&b);
}

static void an_error_keeps_its_code_field_and_words(void **state)
{
    (void)state;
    struct chat_error sent = { .param = "messages[1].role",
                               .raised = true,
                               .why = { "no \"such\" role" } },
                      got;
    struct token_answer t;
    struct buf b;
    buf_init(&b, 1 << 16);
    assert_int_equal(
        token_msg_error(&b, clock_system(), rng_system(), "token-1", ERR_INVALID, &sent), ERR_OK);
    assert_int_equal(token_msg_answer_parse(buf_str(&b), &t, &got), ERR_INVALID);
    assert_string_equal(got.param, sent.param);
    assert_string_equal(got.why.text, sent.why.text);
    assert_true(got.raised);
    buf_done(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(samples_are_what_they_are_called),
        cmocka_unit_test(a_request_carries_the_clients_bytes),
        cmocka_unit_test(a_large_request_is_refused_before_it_is_sent),
        cmocka_unit_test(an_answer_says_how_it_was_counted),
        cmocka_unit_test(an_error_keeps_its_code_field_and_words),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
