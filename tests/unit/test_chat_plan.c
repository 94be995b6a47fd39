/* SPDX-License-Identifier: Apache-2.0 */
/* Chats of a known form: what a plan writes is what the template writes, for any texts. */
#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "base/file.h"
#include "support_bytes_vocab.h"
#include "support_plan.h"
#include "tokenizer/added.h"
#include "tokenizer/chat/chat.h"

#define EACH(body) "{% for m in messages %}" body "{% endfor %}"

/* Texts that templates look at, and others. */
static const char *const texts[] = {
    "",
    "plain words",
    "other words, \\u00e9\\n and \\\"quotes\\\"",
    "  spaces around \\t ",
    "<tool_response>x</tool_response>",
    "<think>hidden</think>shown",
    "a</think>",
    "<|a|>",
    "\\ud800 alone",
    "plain words",
    "{{ m }}",
    "yes",
};
static const char *const roles[] = { "system", "user", "assistant", "user", "assistant", "tool" };

static struct chat_template *compiled(const char *source)
{
    struct chat_template *t;
    struct why why = { "" };
    enum err e = chat_template_new_source(str_of(source), NULL, &t, &why);
    if (e != ERR_OK) fail_msg("%s: %s", source, why.text);
    return t;
}

/* Texts that meet added tokens, at whose ends plans are cut. */
static const char *const near_tokens[] = {
    "",
    " ",
    "\\n",
    "\\n\\n code",
    "text\\n ",
    "<",
    "<|im",
    "|im_start|>",
    "a<|im_start|>b",
    "x <|eot_id|>",
    "[INST",
    "[/INST] [",
    "<s></s",
    "<|a|><|b|>",
    "<|a",
    "\\u0338x",
    "e\\u0301",
    "e<think>\\n",
    "</think>\\u0301\\n",
    "it's 12345",
    "\\u4f60\\u597d",
    "\\u2581 \\u2581",
    "\\ud83d\\ude00",
};

/* Conversations of n messages with all those texts in all places, `turns` of them. */
static void converse_with(const char *const *in_turn, size_t texts_n, struct planned *s,
                          const struct chat_template *t, size_t n, size_t turns,
                          const struct chat_slices *as)
{
    struct buf b;
    buf_init(&b, 1 << 20);
    for (size_t k = 0; k < turns; k++) {
        struct chat_slices in = *as;
        buf_clear(&b);
        for (size_t i = 0; i < n; i++)
            assert_int_equal(buf_printf(&b, "%s{\"role\": \"%s\",\"content\":\"%s\"}",
                                        i > 0 ? ", " : "[", roles[i % ARRAY_LEN(roles)],
                                        in_turn[(k * (i + 1) + k / texts_n * i) % texts_n]),
                             ERR_OK);
        assert_int_equal(buf_appendz(&b, " ]"), ERR_OK);
        in.messages = buf_str(&b);
        assert_true(planned_agrees(s, t, &in));
    }
    buf_done(&b);
}

static void converse(struct planned *s, const struct chat_template *t, size_t n, size_t turns,
                     const struct chat_slices *as)
{
    converse_with(texts, ARRAY_LEN(texts), s, t, n, turns, as);
}

/* How many of 200 conversations of two messages a plan wrote. */
static size_t written_by(const char *source)
{
    struct planned s;
    struct chat_template *t = compiled(source);
    planned_init(&s);
    converse(&s, t, 2, 200, &(struct chat_slices){ .now = 1767323045 });
    size_t n = s.written;
    planned_done(&s);
    chat_template_free(t);
    return n;
}

static void texts_that_are_only_printed_need_no_template(void **state)
{
    (void)state;
    static const char *const templates[] = {
        EACH("{{ m.role }}:{{ m.content }};"),
        EACH("{{ '<' + m['role'] + '>' + m.content + '\n' }}"),
        EACH("{{ m.content | trim }}|{{ m.content.strip() }}|{{ m.content.lstrip(' p') }}"),
        "{% set ns = namespace(last='', n=0) %}" EACH(
            "{% set ns.last = m.content %}{% set ns.n = ns.n + 1 %}") "{{ ns.n }}{{ ns.last }}",
        "{% for m in messages[::-1] %}{{ loop.index }}{{ m.content }}{% endfor %}{{ "
        "messages[0].content }}",
        EACH("{% for key, value in m.items() %}{{ key }}={{ value }}{% endfor %}"),
        "{% macro show(m) %}{{ m.role }}{% endmacro %}" EACH("{{ show(m) }}{{ m.content }}"),
        EACH("{% if m.content is string and m.content is not none %}{{ m.content }}{% endif %}"),
        EACH("{% for p in m.content %}{% if p.type == 'text' %}[{{ p.text }}]{% endif %}{% endfor "
             "%}"),
        EACH("{{ m.get('content', 'x') }}{{ (messages | last).content | default('none') }}"),
    };
    for (size_t i = 0; i < ARRAY_LEN(templates); i++) {
        size_t n = written_by(templates[i]);
        if (n != 198) fail_msg("%s: %zu by plan", templates[i], n);
    }
}

static void texts_that_decide_are_asked_again(void **state)
{
    (void)state;
    static const char *const templates[] = {
        EACH("{% if m.content %}{{ m.content }}{% else %}nothing{% endif %}"),
        EACH("{% if '</think>' in m.content %}T{% endif %}{{ m.content }}"),
        EACH("{% if m.content.startswith('<tool') and m.content.endswith('se>') %}T{% endif %}"
             "{{ m.content }}"),
        EACH("{{ 'Y' if m.content == 'yes' else 'N' }}{{ m.content != 'yes' }}"),
        EACH("{{ m.content or 'empty' }}{{ not m.content }}{{ m.content | default('d', true) }}"),
        EACH("{% if m.content | trim %}{{ m.content | trim }}{% endif %}"),
        "{% for m in messages if m.content %}{{ loop.index }}{{ m.content }}{% endfor %}",
        EACH("{% if 'x' not in m.content.strip() %}{{ m.content }}{% endif %}{{ m.content is not "
             "none }}"),
    };
    for (size_t i = 0; i < ARRAY_LEN(templates); i++) {
        size_t n = written_by(templates[i]);
        if (n < 60) fail_msg("%s: %zu by plan", templates[i], n);
    }
}

static void texts_that_are_taken_apart_need_the_template(void **state)
{
    (void)state;
    static const char *const templates[] = {
        EACH("{{ m.content.split('</think>')[-1] }}"),
        EACH("{{ m.content | length }}"),
        EACH("{{ m.content | upper }}"),
        EACH("{{ m.content[0] }}"),
        EACH("{{ m.content[:3] }}"),
        EACH("{{ m | tojson }}"),
        EACH("{{ m }}"),
        EACH("{{ [m.content] }}"),
        EACH("{% set x %}{{ m.content }}{% endset %}{{ x }}"),
        EACH("{% set x = m.content + '!' %}{{ x }}"),
        EACH("{{ m.content ~ '!' }}"),
        EACH("{{ '%s' % m.content }}"),
        EACH("{% if m.content > 'm' %}a{% endif %}"),
        EACH("{% if m.content in ['yes', 'no'] %}a{% endif %}"),
        EACH("{% if m.content == messages[0].content %}same{% endif %}"),
        EACH("{% if m == messages[0] %}same{% endif %}"),
        EACH("{{ {m.content: 1} }}"),
        EACH("{{ {'yes': 1}[m.content] }}"),
        EACH("{% set f = m.content.strip %}{{ f() }}"),
        EACH("{{ m['content']['upper']() }}"),
        EACH("{{ m.values() | join(',') }}"),
        "{{ messages | map(attribute='content') | join(',') }}",
        "{{ messages | selectattr('content', 'equalto', 'yes') | list | length }}",
        "{{ messages | selectattr('content') | list | length }}",
        "{{ messages | sort(attribute='content') | first }}",
        "{% macro show(x) %}{{ x }}{% endmacro %}" EACH("{{ show(m.content) | trim }}"),
        "{% macro show(x) %}{{ x | length }}{% endmacro %}" EACH("{{ show(m.content) }}"),
        EACH("{% if m.content is eq 'yes' %}a{% endif %}"),
        EACH("{% if m.content is lower %}a{% endif %}"),
        EACH("{% if 'yes' is in m.content %}a{% endif %}"),
        EACH("{% if m.content.startswith(messages[0].content) %}a{% endif %}"),
        EACH("{% for a, b in [m.content] %}{{ a }}{% endfor %}x"),
        EACH("{{ m.content * 2 }}"),
        EACH("{{ m.content.find('e') }}{{ m.content.count('e') }}"),
        EACH("{{ 'a' | replace('a', m.content) }}"),
        EACH("{% filter upper %}{{ m.content }}{% endfilter %}"),
        EACH("{% if loop.changed(m.content) %}c{% endif %}"),
        EACH("{{ loop.cycle(m.content, 'b') }}"),
        EACH("{{ strftime_now('%Y') }}{{ m.content }}"),
        EACH("{% if 'yes' in m.content %}{{ raise_exception('no ' + m.content) }}{% endif %}"
             "{{ m.content[1:] }}"),
    };
    for (size_t i = 0; i < ARRAY_LEN(templates); i++) {
        size_t n = written_by(templates[i]);
        if (n != 0) fail_msg("%s: %zu by plan", templates[i], n);
    }
}

/* A text's characters may be iterated only when it is a list: here it is a string all the same. */
static void a_loop_over_a_string_is_no_plan(void **state)
{
    (void)state;
    assert_int_equal(
        written_by(EACH("{% set c = m.content %}{% for x in c %}{{ x }}-{% endfor %}")), 0);
}

static void forms_are_told_apart(void **state)
{
    (void)state;
    struct planned s;
    struct chat_template *t = compiled("{% if tools %}{{ tools | tojson }}{% endif %}" EACH(
        "{{ m.role }}{{ m.content }}") "{% if add_generation_prompt %}>{% endif %}{{ "
                                       "enable_thinking is defined and enable_thinking }}");
    static const struct chat_slices ways[] = {
        { .now = 1 },
        { .no_generation_prompt = true },
        { .kwargs = STR("{\"enable_thinking\":true}") },
        { .kwargs = STR("{\"enable_thinking\":false}") },
        { .tools = STR("[{\"type\":\"function\",\"function\":{\"name\":\"f\"}}]") },
        { .tools = STR("[{\"type\":\"function\",\"function\":{\"name\":\"g\"}}]") },
        { .tools = STR("[]") },
    };
    planned_init(&s);
    for (size_t round = 0; round < 4; round++)
        for (size_t i = 0; i < ARRAY_LEN(ways); i++)
            for (size_t n = 1; n < 5; n++) converse(&s, t, n, 2, &ways[i]);
    assert_int_equal(s.forms, 4 * 7 * 4 * 2);
    assert_true(s.written > s.forms / 2);
    planned_done(&s);
    chat_template_free(t);
}

static void only_plain_messages_have_a_form(void **state)
{
    (void)state;
    static const char *const others[] = {
        "[]",
        "[1]",
        "{\"role\":\"u\",\"content\":\"x\"}",
        "[{\"role\":\"u\"}]",
        "[{\"role\":\"u\",\"content\":null}]",
        "[{\"role\":\"u\",\"content\":[{\"type\":\"text\",\"text\":\"x\"}]}]",
        "[{\"role\":\"u\",\"content\":\"x\",\"name\":\"n\"}]",
        "[{\"role\":\"u\",\"role\":\"u\",\"content\":\"x\"}]",
        "[{\"role\":\"u\",\"role\":\"u\"}]",
        "[{\"role\":1,\"content\":\"x\"}]",
        "[{\"role\":\"u\",\"content\":\"x\"},]",
        "[{\"role\":\"u\",\"content\":\"x\"}] x",
        "[{\"role\":\"u\",\"content\":\"x\"}",
        "[{\"role\":\"u\",\"content\":\"x\\q\"}]",
        "[{\"role\":\"u\",\"content\":\"x\n\"}]",
        "",
    };
    struct planned s;
    struct chat_template *t = compiled(EACH("{{ m.content }}"));
    planned_init(&s);
    s.arena.budget = 1 << 20;
    for (size_t i = 0; i < ARRAY_LEN(others); i++) {
        struct chat_slices in = { .messages = str_of(others[i]) };
        if (chat_form_read(&s.form, t, &in, &s.arena)) fail_msg("%s has a form", others[i]);
    }
    struct chat_slices in = { .messages = STR(" [ {\"content\":\"x\\u0041\", \"role\":\"u\"}\n]") };
    assert_true(chat_form_read(&s.form, t, &in, &s.arena));
    assert_int_equal(s.form.n, 1);
    assert_true(str_eqz(s.form.texts[0], "xA"));
    /* The same by those who know already where they lie. */
    struct chat_message known = { STR("\"\\u0075\""), STR("\"x\\u0041\"") };
    struct buf key;
    buf_init(&key, 1024);
    assert_int_equal(buf_append_str(&key, buf_str(&s.form.key)), ERR_OK);
    in.plain = &known, in.plain_n = 1;
    assert_true(chat_form_read(&s.form, t, &in, &s.arena));
    assert_true(str_eq(buf_str(&key), buf_str(&s.form.key)));
    assert_int_equal(s.form.n, 1);
    assert_int_equal(s.form.bytes, 2);
    assert_true(str_eqz(s.form.texts[0], "xA"));
    buf_done(&key);
    planned_done(&s);
    chat_template_free(t);
}

/* What is the same in all chats of a form is not counted again, and nothing else is left out. */
static void what_stands_between_added_tokens_is_counted_once(void **state)
{
    (void)state;
    static const char *const templates[] = {
        EACH("<|a|>{{ m.role }}\n{{ m.content }}<|b|>\n") "<|a|>",
        "a rule<|a|>one<|b|>" EACH("{{ m.content }}<|a|>x<|b|>{{ m.content }}") "more <|a",
        EACH("{{ m.content }}|><|b|{{ m.content }}<|a|><|a|>{{ m.content | trim }}"),
        "<|a|>nothing of it",
    };
    for (size_t i = 0; i < ARRAY_LEN(templates); i++) {
        struct planned s;
        struct chat_template *t = compiled(templates[i]);
        struct vocab *v = bytes_vocab("bytes", templates[i], "");
        planned_init(&s);
        s.vocab = v;
        for (size_t n = 1; n < 5; n++)
            converse_with(near_tokens, ARRAY_LEN(near_tokens), &s, t, n, 80,
                          &(struct chat_slices){ .now = 1767323045 });
        assert_int_equal(s.written, 4 * 78);
        assert_true(s.spared > s.written);
        planned_done(&s);
        chat_template_free(t);
        vocab_unref(v);
    }
}

static void a_token_cuts_a_text_where_it_is_one_in_any_text(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int from, to; /* -1: nowhere */
    } rows[] = {
        { "", -1, -1 },      { "a<|a", -1, -1 },         { "|>x<|b", -1, -1 },   { "<|a|>", 0, 5 },
        { "x<|a|>y", 1, 6 }, { "x<|a|>y<|b|>z", 1, 12 }, { "<|a<|a|>|>", 3, 8 },
    };
    struct vocab *v = bytes_vocab("bytes", "", "");
    struct added_cuts cuts;
    added_cuts_init(&cuts, v);
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        size_t from = 0, to = 0;
        bool found = added_cuts_find(&cuts, str_of(rows[i].text), &from, &to);
        assert_int_equal(found, rows[i].from >= 0);
        if (!found) continue;
        assert_int_equal(from, rows[i].from);
        assert_int_equal(to, rows[i].to);
    }
    vocab_unref(v);
}

/* Through the front: with memory that is kept a chat counts what it counts without. */
static void counts_are_the_same_with_and_without_memory(void **state)
{
    (void)state;
    struct why why;
    struct chat_template *t;
    struct vocab *v = bytes_vocab("bytes", EACH("<|a|>{{ m.content | trim }}<|b|>"), "");
    assert_int_equal(chat_template_new(v, &t, &why), ERR_OK);
    struct model_info info = { .vocab = v, .chat = t, .vocabulary = STR("bytes"), .sibling = true };
    struct chat_scratch *scratch = chat_scratch_new();
    assert_non_null(scratch);
    for (size_t i = 0; i < 10 * ARRAY_LEN(texts); i++) {
        char messages[256];
        struct chat_count with, without;
        (void)snprintf(messages, sizeof messages, "[{\"role\":\"user\",\"content\":\"%s%zu\"}]",
                       texts[i % ARRAY_LEN(texts)], i);
        struct chat_slices in = { .messages = str_of(messages) };
        assert_int_equal(chat_count(&info, &in, &without, NULL), ERR_OK);
        in.scratch = scratch;
        assert_int_equal(chat_count(&info, &in, &with, NULL), ERR_OK);
        assert_int_equal(with.tokens, without.tokens);
        assert_int_equal(with.exact, without.exact);
        assert_int_equal(with.method, without.method);
        assert_int_equal(with.warnings_n, without.warnings_n);
        assert_string_equal(with.warnings[0], without.warnings[0]);
        assert_true(str_eq(with.template_digest, without.template_digest));
    }
    chat_scratch_free(scratch);
    chat_template_free(t);
    vocab_unref(v);
}

/* The templates of the vocabularies that are installed, if any. */
static void the_templates_of_models_are_followed(void **state)
{
    (void)state;
    const char *folder = getenv("VOCAB_DIR") != NULL ? getenv("VOCAB_DIR") : "vocab";
    DIR *d = opendir(folder);
    if (d == NULL) skip();
    for (struct dirent *entry; (entry = readdir(d)) != NULL;) {
        char path[512];
        struct why why;
        struct vocab *v;
        struct chat_template *t;
        struct planned s;
        if (!str_ends(str_of(entry->d_name), STR(".aigwvocab"))) continue;
        (void)snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
        if (vocab_open(path, &v, &why) != ERR_OK) continue;
        if (chat_template_new(v, &t, &why) == ERR_OK) {
            planned_init(&s);
            s.vocab = v;
            for (size_t n = 1; n < 7; n++) {
                converse(&s, t, n, 60, &(struct chat_slices){ .now = 1767323045 });
                converse(&s, t, n, 20,
                         &(struct chat_slices){ .kwargs = STR("{\"enable_thinking\":false}") });
                converse_with(near_tokens, ARRAY_LEN(near_tokens), &s, t, n, 80,
                              &(struct chat_slices){ .now = 1767323045 });
            }
            print_message("%s: %zu of %zu by plan, %zu bytes not counted again\n", entry->d_name,
                          s.written, s.forms, s.spared);
            planned_done(&s);
            chat_template_free(t);
        }
        vocab_unref(v);
    }
    closedir(d);
}

static void made_up_templates_are_followed(void **state)
{
    (void)state;
    static const char *const names[] = { "compact_tools",    "plain_text_macro",
                                         "schema_to_python", "schema_to_typescript",
                                         "sorted_schema",    "xml_calls" };
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        char path[128];
        struct buf source;
        struct planned s;
        buf_init(&source, 1 << 20);
        (void)snprintf(path, sizeof path, "tests/oracle/synthetic/%s.jinja", names[i]);
        if (file_read(path, &source) != ERR_OK) fail_msg("no %s", path);
        struct chat_template *t = compiled(buf_z(&source));
        planned_init(&s);
        for (size_t n = 1; n < 7; n++) {
            converse(&s, t, n, 60, &(struct chat_slices){ .now = 1767323045 });
            converse(
                &s, t, n, 20,
                &(struct chat_slices){
                    .tools = STR(
                        "[{\"function\":{\"name\":\"f\","
                        "\"parameters\":{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"string\"}}}}}]") });
        }
        print_message("%s: %zu of %zu by plan\n", names[i], s.written, s.forms);
        planned_done(&s);
        chat_template_free(t);
        buf_done(&source);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(texts_that_are_only_printed_need_no_template),
        cmocka_unit_test(texts_that_decide_are_asked_again),
        cmocka_unit_test(texts_that_are_taken_apart_need_the_template),
        cmocka_unit_test(a_loop_over_a_string_is_no_plan),
        cmocka_unit_test(forms_are_told_apart),
        cmocka_unit_test(only_plain_messages_have_a_form),
        cmocka_unit_test(what_stands_between_added_tokens_is_counted_once),
        cmocka_unit_test(a_token_cuts_a_text_where_it_is_one_in_any_text),
        cmocka_unit_test(counts_are_the_same_with_and_without_memory),
        cmocka_unit_test(the_templates_of_models_are_followed),
        cmocka_unit_test(made_up_templates_are_followed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
