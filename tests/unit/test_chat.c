/* SPDX-License-Identifier: Apache-2.0 */
/* Counting chats: what is normalised, what is said about it, what is refused. With a vocabulary of
 * bytes, so that a count is the length of what the template makes. */
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "base/stop.h"
#include "support_bytes_vocab.h"
#include "tokenizer/chat/chat.h"

#define SIMPLE                                                                                 \
    "{% for m in messages %}{{ m.role }}:{{ m.content }};{% for c in m.tool_calls or [] %}"    \
    "{{ c.function.name }}={{ c.function.arguments | tojson }};{% endfor %}{% endfor %}"       \
    "{% if tools %}T{{ tools | tojson }}{% endif %}{% if add_generation_prompt %}>{% endif %}" \
    "{% if enable_thinking is defined %}{{ enable_thinking }}{% endif %}"

struct fixture {
    struct model_info info;
    struct chat_template *chat;
    struct buf text;
    struct chat_count count;
    struct chat_error error;
};

static void open_fixture(struct fixture *f, const char *source)
{
    struct why why;
    *f = (struct fixture){ .chat = NULL };
    f->info.vocab = bytes_vocab("bytes", source != NULL ? source : "",
                                "{\"bos_token\":\"<s>\",\"eos_token\":{\"content\":\"</s>\"}}");
    if (source != NULL) assert_int_equal(chat_template_new(f->info.vocab, &f->chat, &why), ERR_OK);
    f->info.chat = f->chat;
    f->info.vocabulary = STR("bytes");
    buf_init(&f->text, 1 << 20);
}

static void close_fixture(struct fixture *f)
{
    chat_template_free(f->chat);
    vocab_unref(f->info.vocab);
    buf_done(&f->text);
}

/* Counts {"messages":...,"tools":...,...} and keeps the rendered text. */
static enum err count(struct fixture *f, const char *request)
{
    struct arena a;
    struct jv v;
    struct why why;
    arena_init(&a, 16 << 20);
    buf_clear(&f->text);
    assert_int_equal(jv_read_json(&a, str_of(request), &v, &why), ERR_OK);
    struct chat_values in = { .rendered = &f->text, .now = 1767323045 };
    const struct jv *m;
    if ((m = jv_member(v, STR("messages"))) != NULL) in.messages = *m;
    if ((m = jv_member(v, STR("tools"))) != NULL) in.tools = *m;
    if ((m = jv_member(v, STR("kwargs"))) != NULL) in.kwargs = *m;
    in.no_generation_prompt = jv_member(v, STR("no_prompt")) != NULL;
    enum err e = chat_count_values(&f->info, &in, &a, &f->count, &f->error);
    arena_done(&a);
    return e;
}

static void expect(struct fixture *f, const char *request, const char *text)
{
    enum err e = count(f, request);
    if (e != ERR_OK) fail_msg("%s: %s", request, f->error.why.text);
    if (!str_eqz(buf_str(&f->text), text))
        fail_msg("%s\n  want %s\n  got  %.*s", request, text, STR_ARG(buf_str(&f->text)));
    assert_int_equal(f->count.tokens, strlen(text));
}

static bool warned(const struct fixture *f, const char *words)
{
    for (unsigned i = 0; i < f->count.warnings_n; i++)
        if (strstr(f->count.warnings[i], words) != NULL) return true;
    return false;
}

static void the_template_decides(void **state)
{
    (void)state;
    struct fixture f;
    open_fixture(&f, "{{ bos_token }}" SIMPLE "{{ eos_token }}{{ pad_token }}");
    expect(&f, "{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}", "<s>user:hi;></s>");
    assert_true(f.count.exact);
    assert_int_equal(f.count.method, CHAT_TEMPLATE);
    assert_int_equal(f.count.template_digest.n, 64);
    assert_int_equal(f.count.warnings_n, 0);
    expect(&f, "{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}],\"no_prompt\":1}",
           "<s>user:hi;</s>");
    expect(
        &f,
        "{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}],\"kwargs\":{\"enable_thinking\":false,\"messages\":[],\"bos_token\":\"B\"}}",
        "Buser:hi;>False</s>");
    close_fixture(&f);
}

static void special_strings_become_control_tokens(void **state)
{
    (void)state;
    struct fixture f;
    open_fixture(&f, "<|a|>" SIMPLE);
    assert_int_equal(count(&f, "{\"messages\":[{\"role\":\"u\",\"content\":\"x<|b|>y\"}]}"),
                     ERR_OK);
    assert_int_equal(f.count.tokens, 1 + 2 + 1 + 1 + 1 + 2);
    close_fixture(&f);
}

static void content_is_normalised_as_servers_do(void **state)
{
    (void)state;
    struct fixture f;
    open_fixture(&f, SIMPLE);
    expect(&f, "{\"messages\":[{\"role\":\"user\",\"content\":null},{\"role\":\"user\"}]}",
           "user:;user:;>");
    expect(
        &f,
        "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"a\"},{\"type\":\"input_text\",\"text\":\"b\"},\"c\"]}]}",
        "user:a\nb\nc;>");
    expect(
        &f,
        "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"\"},{\"type\":\"text\",\"text\":\"\"},{\"type\":\"text\",\"text\":\"b\"}]}]}",
        "user:\n\nb;>");
    expect(&f, "{\"messages\":[{\"role\":\"user\",\"content\":[]}]}", "user:;>");
    assert_true(f.count.exact);
    expect(&f,
           "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"thinking\",\"thinking\":"
           "\"t\"},{\"type\":\"text\",\"text\":null}]}]}",
           "user:t;>");
    assert_true(f.count.exact);
    expect(&f,
           "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"see\"},"
           "{\"type\":\"input_audio\",\"input_audio\":{}}]}]}",
           "user:see;>");
    assert_false(f.count.exact);
    assert_true(warned(&f, "1 parts"));
    close_fixture(&f);
}

static void only_members_that_servers_hand_on_are_seen(void **state)
{
    (void)state;
    struct fixture f;
    open_fixture(&f, "{% for m in messages %}{{ m.keys() | join(',') }};{% endfor %}");
    expect(&f,
           "{\"messages\":[{\"tool_calls\":null,\"refusal\":null,\"content\":\"c\",\"role\":"
           "\"assistant\"},{\"role\":\"assistant\",\"tool_calls\":[],\"x\":1},"
           "{\"role\":\"assistant\",\"reasoning_content\":\"r\",\"name\":\"n\"},"
           "{\"role\":\"assistant\",\"reasoning\":\"r\"},"
           "{\"role\":\"tool\",\"tool_call_id\":\"1\",\"content\":\"c\",\"reasoning\":\"r\"},"
           "{\"role\":\"user\",\"name\":7,\"tool_calls\":[{}]},{\"role\":\"developer\"}]}",
           "role,content;role,content;role,content,reasoning,reasoning_content,name;"
           "role,content,reasoning,reasoning_content;role,content,tool_call_id;role,content;"
           "role,content,tools;");
    close_fixture(&f);
}

static void tools_have_the_members_that_servers_give_them(void **state)
{
    (void)state;
    struct fixture f;
    open_fixture(&f, "{{ tools | tojson }}");
#define WITH_TOOLS(tools) \
    "{\"messages\":[{\"role\":\"user\",\"content\":\"\"}],\"tools\":[" tools "]}"
    expect(&f,
           WITH_TOOLS("{\"function\":{\"strict\":true,\"parameters\":{\"a\":1.0},\"name\":\"f\"},"
                      "\"x\":1}"),
           "[{\"type\": \"function\", \"function\": {\"name\": \"f\", \"description\": null, "
           "\"parameters\": {\"a\": 1.0}, \"strict\": true}, \"x\": 1}]");
    expect(&f, WITH_TOOLS("{\"name\":\"f\"},7"), "[{\"name\": \"f\"}, 7]");
    close_fixture(&f);
}

#define IMAGE(url)                                                                              \
    "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\",\"image_url\":" url \
    "}]}]}"
#define PNG_2048_4096 "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAACAAAABAACAYAAAA="

static void images_cost_what_the_models_rule_says(void **state)
{
    (void)state;
    struct fixture f;
    open_fixture(&f, "{% for m in messages %}{{ m.content }}{% endfor %}");
    assert_int_equal(count(&f, IMAGE("{\"url\":\"" PNG_2048_4096 "\"}")), ERR_OK);
    assert_int_equal(f.count.tokens, 1105);
    assert_false(f.count.exact);
    assert_int_equal(f.count.warnings_n, 1);
    assert_true(warned(&f, "an estimate"));
    assert_int_equal(count(&f, IMAGE("{\"url\":\"https://x/y.png\",\"detail\":\"low\"}")), ERR_OK);
    assert_int_equal(f.count.tokens, 85);
    assert_int_equal(f.count.warnings_n, 1);
    assert_int_equal(count(&f, IMAGE("{\"url\":\"https://x/y.png\"}")), ERR_OK);
    assert_int_equal(f.count.tokens, 765);
    assert_true(warned(&f, "1024 x 1024 is assumed"));
    f.info.image_rule = STR("x; grid; side=28 min=3136 max=12845056 extra=2 assume=280x280");
    assert_int_equal(count(&f, IMAGE("\"https://x/y.png\"")), ERR_OK);
    assert_int_equal(f.count.tokens, 102);
    f.info.image_rule = STR("nonsense");
    assert_int_equal(count(&f, IMAGE("\"\"")), ERR_OK);
    assert_true(warned(&f, "no rule"));
    close_fixture(&f);
}

static void parts_stay_when_the_template_walks_over_them(void **state)
{
    (void)state;
    struct fixture f;
    open_fixture(
        &f,
        "{% for m in messages %}{% if m.content is string %}{{ m.content }}{% else %}"
        "{% for p in m.content %}[{{ p.type }}{{ p.text }}]{% endfor %}{% endif %}{% endfor %}");
    expect(
        &f,
        "{\"messages\":[{\"role\":\"u\",\"content\":[{\"type\":\"input_text\",\"text\":\"a\"},\"b\"]},{\"role\":\"u\",\"content\":\"c\"}]}",
        "[texta][textb][textc]");
    assert_true(f.count.exact);
    assert_int_equal(
        count(
            &f,
            "{\"messages\":[{\"role\":\"u\",\"content\":[{\"type\":\"image_url\",\"image_url\":{}}]}]}"),
        ERR_OK);
    assert_true(str_eqz(buf_str(&f.text), "[image]"));
    assert_false(f.count.exact);
    expect(
        &f,
        "{\"messages\":[{\"role\":\"u\",\"content\":null},{\"role\":\"tool\",\"content\":[\"a\",\"b\"]"
        "}]}",
        "a\nb");
    assert_int_equal(count(&f,
                           "{\"messages\":[{\"role\":\"u\",\"content\":[{\"type\":\"input_audio\"},"
                           "{\"type\":\"video_url\"},{\"type\":\"file\"}]}]}"),
                     ERR_OK);
    assert_true(str_eqz(buf_str(&f.text), "[audio][video]"));
    assert_true(warned(&f, "3 parts"));
    close_fixture(&f);
}

static void arguments_of_tool_calls_become_values(void **state)
{
    (void)state;
    struct fixture f;
    open_fixture(&f, SIMPLE);
#define CALL(role, arguments)                                     \
    "{\"messages\":[{\"role\":\"" role                            \
    "\",\"content\":null,\"tool_calls\":[{\"id\":\"1\",\"type\":" \
    "\"function\",\"function\":{\"name\":\"f\",\"arguments\":" arguments "}}]}]}"
    expect(&f, CALL("assistant", "\"{\\\"b\\\":1.0,\\\"a\\\":[]}\""),
           "assistant:;f={\"b\": 1.0, \"a\": []};>");
    expect(&f, CALL("assistant", "{\"b\":2}"), "assistant:;f={\"b\": 2};>");
    expect(&f, CALL("assistant", "\"\""), "assistant:;f={};>");
    expect(&f, CALL("assistant", "null"), "assistant:;f={};>");
    expect(&f, CALL("user", "\"{}\""), "user:;>");
    expect(&f, CALL("assistant", "[]"), "assistant:;f={};>");
    expect(&f, CALL("assistant", "\"null\""), "assistant:;f={};>");
    assert_int_equal(f.count.warnings_n, 0);
    expect(&f, CALL("assistant", "\"{oops\""), "assistant:;f=\"{oops\";>");
    assert_true(warned(&f, "no JSON"));
    close_fixture(&f);
    /* a template that can only take text is given text */
    open_fixture(
        &f,
        "{% for m in messages %}{% for c in m.tool_calls or [] %}{{ c.function.name + ':' + c.function.arguments }}{% endfor %}{% endfor %}");
    expect(&f, CALL("assistant", "\"{\\\"b\\\":1}\""), "f:{\"b\":1}");
    close_fixture(&f);
}

static void a_template_that_hides_tools_is_named(void **state)
{
    (void)state;
    struct fixture f;
    open_fixture(&f, "{% for m in messages %}{{ m.content }}{% endfor %}");
    assert_int_equal(
        count(
            &f,
            "{\"messages\":[{\"role\":\"u\",\"content\":\"x\"}],\"tools\":[{\"type\":\"function\"}]}"),
        ERR_OK);
    assert_true(warned(&f, "tools"));
    assert_int_equal(count(&f, CALL("assistant", "{}")), ERR_OK);
    assert_true(warned(&f, "tool calls"));
    close_fixture(&f);
}

static void what_is_wrong_is_named(void **state)
{
    (void)state;
    static const char *const requests[][2] = {
        { "{\"messages\":{}}", "messages" },
        { "{\"messages\":[]}", "messages" },
        { "{\"messages\":[1]}", "messages[0]" },
        { "{\"messages\":[{\"role\":\"u\",\"content\":\"\"},{\"content\":\"x\"}]}",
          "messages[1].role" },
        { "{\"messages\":[{\"role\":\"u\",\"content\":7}]}", "messages[0].content" },
        { "{\"messages\":[{\"role\":\"u\",\"tool_calls\":7}]}", "messages[0].tool_calls" },
        { "{\"messages\":[{\"role\":\"u\"}],\"tools\":{}}", "tools" },
        { "{\"messages\":[{\"role\":\"u\"}],\"kwargs\":[]}", "chat_template_kwargs" },
    };
    struct fixture f;
    open_fixture(&f, SIMPLE);
    for (size_t i = 0; i < ARRAY_LEN(requests); i++) {
        f.count.tokens = 99;
        assert_int_equal(count(&f, requests[i][0]), ERR_INVALID);
        assert_string_equal(f.error.param, requests[i][1]);
        assert_false(f.error.raised);
        assert_int_equal(f.count.tokens, 99);
    }
    close_fixture(&f);
}

static void a_templates_own_refusal_comes_through(void **state)
{
    (void)state;
    struct fixture f;
    open_fixture(&f, "{{ raise_exception('no system role, please') }}");
    assert_int_equal(count(&f, "{\"messages\":[{\"role\":\"u\"}]}"), ERR_INVALID);
    assert_true(f.error.raised);
    assert_string_equal(f.error.why.text, "no system role, please");
    close_fixture(&f);
    open_fixture(&f, "{{ messages[0].nope.x }}");
    assert_int_equal(count(&f, "{\"messages\":[{\"role\":\"u\"}]}"), ERR_INVALID);
    assert_false(f.error.raised);
    close_fixture(&f);
}

static void openais_rule_counts_messages_names_and_tools(void **state)
{
    (void)state;
    struct fixture f;
    open_fixture(&f, NULL);
    f.info.openai = true;
    f.info.vocabulary = STR("o200k_base");
    assert_int_equal(
        count(
            &f,
            "{\"messages\":[{\"role\":\"user\",\"content\":\"hello\",\"name\":\"ann\"},{\"role\":\"x\",\"content\":null}]}"),
        ERR_OK);
    /* 3 + user + hello + ann + 1, 3 + x, 3 */
    assert_int_equal(f.count.tokens, 3 + 4 + 5 + 3 + 1 + 3 + 1 + 3);
    assert_int_equal(f.count.method, CHAT_OPENAI);
    assert_false(f.count.exact);
    assert_int_equal(
        count(
            &f,
            "{\"messages\":[{\"role\":\"u\",\"content\":\"\"}],\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"description\":\"D.\","
            "\"parameters\":{\"properties\":{\"p\":{\"type\":\"string\",\"description\":\"q.\",\"enum\":[\"a\",\"bc\"]}}}}}]}"),
        ERR_OK);
    /* message 3 + 1, answer 3; 7 + "f:D", 3, property 3 + (-3 + 3 + 1 + 3 + 2) + "p:string:q", 12
     */
    assert_int_equal(f.count.tokens, 4 + 3 + 7 + 3 + 3 + 3 + 6 + 10 + 12);
    assert_true(warned(&f, "tools"));
    close_fixture(&f);
}

static void a_model_whose_harmony_template_is_missing_says_so(void **state)
{
    (void)state;
    struct fixture f;
    open_fixture(&f, NULL);
    f.info.openai = true;
    f.info.vocabulary = STR("o200k_harmony");
    assert_int_equal(count(&f, "{\"messages\":[{\"role\":\"user\",\"content\":\"abc\"}]}"), ERR_OK);
    assert_int_equal(f.count.method, CHAT_OPENAI);
    assert_false(f.count.exact);
    assert_true(warned(&f, "harmony"));
    close_fixture(&f);
}

/* Any allocation of a count may be the one that fails: it says so, and the next count is right. */
static void a_count_that_runs_out_of_memory_says_so(void **state)
{
    (void)state;
    static const char request[] =
        "[{\"role\":\"system\",\"content\":[\"a\",\"b\"]},{\"role\":\"user\",\"content\":\"\\n\"},"
        "{\"role\":\"assistant\",\"tool_calls\":[{\"function\":{\"name\":\"f\",\"arguments\":"
        "\"{\\\"x\\\":[1]}\"}}]}]";
    static const char tools[] = "[{\"function\":{\"name\":\"f\",\"a\":1}}]";
    struct fixture f;
    struct why why;
    bool done = false;
    open_fixture(&f, "{% macro m(x) %}{{ x | tojson }}{% endmacro %}{% for t in tools %}{{ m(t) }}"
                     "{% endfor %}" SIMPLE);
    for (size_t budget = 0; !done; budget += 16) {
        struct arena a;
        struct chat_values in = { .now = 0 };
        arena_init(&a, budget);
        enum err e = jv_read_json(&a, str_of(request), &in.messages, &why);
        if (e == ERR_OK) e = jv_read_json(&a, str_of(tools), &in.tools, &why);
        if (e == ERR_OK) e = chat_count_values(&f.info, &in, &a, &f.count, &f.error);
        if (e != ERR_OK && e != ERR_NOMEM) fail_msg("%zu: %s", budget, f.error.why.text);
        done = e == ERR_OK;
        arena_done(&a);
    }
    assert_true(f.count.tokens > 100);
    close_fixture(&f);
}

static void unknown_models_are_estimates_that_say_so(void **state)
{
    (void)state;
    struct model_info unknown = { .vocabulary = STR("") };
    struct chat_count c;
    struct chat_slices in = { .messages = STR(
                                  "[{\"role\":\"user\",\"content\":\"How are you today?\"}]") };
    assert_int_equal(chat_count(&unknown, &in, &c, NULL), ERR_OK);
    assert_false(c.exact);
    assert_int_equal(c.method, CHAT_ESTIMATE);
    assert_int_equal(c.vocabulary.n, 0);
    assert_true(c.tokens > 6 && c.tokens < 30);
    assert_int_equal(c.warnings_n, 1);
    unknown.not_installed = true;
    unknown.vocabulary = STR("glm");
    assert_int_equal(chat_count_text(&unknown, STR("text"), SPECIAL_TEXT, NULL, &c), ERR_OK);
    assert_false(c.exact);
    assert_non_null(strstr(c.warnings[0], "glm"));
}

static void slices_of_a_body_are_read_where_they_stand(void **state)
{
    (void)state;
    struct fixture f;
    open_fixture(&f, SIMPLE);
    struct chat_slices in = {
        .messages = STR("[{\"role\":\"u\",\"content\":\"x\"}]"),
        .tools = STR("[{\"a\":1e2}]"),
        .kwargs = STR("{\"enable_thinking\":true}"),
    };
    assert_int_equal(chat_count(&f.info, &in, &f.count, &f.error), ERR_OK);
    assert_int_equal(f.count.tokens, strlen("u:x;T[{\"a\": 100.0}]>True"));
    in.tools = STR("[{]");
    assert_int_equal(chat_count(&f.info, &in, &f.count, &f.error), ERR_INVALID);
    assert_string_equal(f.error.param, "tools");
    close_fixture(&f);
}

static bool always(void *ctx)
{
    (void)ctx;
    return true;
}

static void long_chats_are_counted_as_they_are_rendered(void **state)
{
    (void)state;
    struct fixture f;
    struct buf b;
    open_fixture(&f, SIMPLE);
    buf_init(&b, 8 << 20);
    assert_int_equal(buf_appendz(&b, "["), ERR_OK);
    for (int i = 0; i < 2000; i++)
        assert_int_equal(
            buf_printf(&b, "%s{\"role\":\"u\",\"content\":\"%0200d\"}", i > 0 ? "," : "", i),
            ERR_OK);
    assert_int_equal(buf_appendz(&b, "]"), ERR_OK);
    struct chat_slices in = { .messages = buf_str(&b), .no_generation_prompt = true };
    assert_int_equal(chat_count(&f.info, &in, &f.count, &f.error), ERR_OK);
    assert_int_equal(f.count.tokens, 2000 * 203);
    in.stop = &(struct stop){ always, NULL };
    assert_int_equal(chat_count(&f.info, &in, &f.count, &f.error), ERR_CLOSED);
    buf_done(&b);
    close_fixture(&f);
}

static void a_relatives_template_is_not_called_exact(void **state)
{
    (void)state;
    struct fixture f;
    open_fixture(&f, SIMPLE "{{ strftime_now('%Y') }}");
    f.info.sibling = true;
    assert_int_equal(count(&f, "{\"messages\":[{\"role\":\"u\"}]}"), ERR_OK);
    assert_false(f.count.exact);
    assert_true(warned(&f, "bytes"));
    assert_true(warned(&f, "date"));
    assert_int_equal(chat_count_text(&f.info, STR("abc"), SPECIAL_TEXT, NULL, &f.count), ERR_OK);
    assert_true(f.count.exact);
    close_fixture(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_template_decides),
        cmocka_unit_test(special_strings_become_control_tokens),
        cmocka_unit_test(content_is_normalised_as_servers_do),
        cmocka_unit_test(only_members_that_servers_hand_on_are_seen),
        cmocka_unit_test(tools_have_the_members_that_servers_give_them),
        cmocka_unit_test(images_cost_what_the_models_rule_says),
        cmocka_unit_test(parts_stay_when_the_template_walks_over_them),
        cmocka_unit_test(arguments_of_tool_calls_become_values),
        cmocka_unit_test(a_template_that_hides_tools_is_named),
        cmocka_unit_test(what_is_wrong_is_named),
        cmocka_unit_test(a_templates_own_refusal_comes_through),
        cmocka_unit_test(openais_rule_counts_messages_names_and_tools),
        cmocka_unit_test(a_model_whose_harmony_template_is_missing_says_so),
        cmocka_unit_test(a_count_that_runs_out_of_memory_says_so),
        cmocka_unit_test(unknown_models_are_estimates_that_say_so),
        cmocka_unit_test(slices_of_a_body_are_read_where_they_stand),
        cmocka_unit_test(long_chats_are_counted_as_they_are_rendered),
        cmocka_unit_test(a_relatives_template_is_not_called_exact),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
