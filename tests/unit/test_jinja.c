/* SPDX-License-Identifier: Apache-2.0 */
/* The Jinja interpreter: what templates print (as Jinja2 3.1 prints it), what they may not do, and
 * that it is bounded. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/buf.h"
#include "tokenizer/jinja/jinja.h"

#define CONTEXT                                                                       \
    "{\"s\":\"Hello\",\"u\":\"h\xc3\xa9 \xe4\xb8\x96\",\"i\":7,\"f\":1.0,\"n\":null," \
    "\"yes\":true,\"no\":false,\"l\":[3,1,2],\"d\":{\"b\":1,\"a\":[1,{\"x\":null}]}," \
    "\"big\":12345678901234567890123,\"q\":\"it's \\\"so\\\"\",\"people\":["          \
    "{\"name\":\"ann\",\"age\":3},{\"name\":\"bob\",\"age\":4,\"tags\":[]}],"         \
    "\"tree\":[{\"v\":1,\"kids\":[{\"v\":2,\"kids\":[]}]},{\"v\":3,\"kids\":[]}]}"

static enum err to_buf(void *ctx, const char *p, size_t n)
{
    return buf_append(ctx, p, n);
}

struct result {
    enum err err;
    struct buf text;
    struct why why;
    bool raised, used_clock;
};

static void render(const char *source, const char *context, const struct jinja_limits *limits,
                   struct result *r)
{
    struct jinja *t = NULL;
    struct arena a;
    struct jinja_run run = { .now = 1767323045, .sink = to_buf, .sink_ctx = &r->text };
    *r = (struct result){ .err = ERR_OK };
    buf_init(&r->text, 1 << 20);
    arena_init(&a, 4 << 20);
    if (limits != NULL) run.limits = *limits;
    r->err = jinja_compile(str_of(source), &t, &r->why);
    if (r->err == ERR_OK) r->err = jv_read_json(&a, str_of(context), &run.context, &r->why);
    if (r->err == ERR_OK) r->err = jinja_render(t, &a, &run, &r->why);
    r->raised = run.template_raised;
    r->used_clock = run.used_clock;
    jinja_free(t);
    arena_done(&a);
}

static void expect(const char *source, const char *want)
{
    struct result r;
    render(source, CONTEXT, NULL, &r);
    if (r.err != ERR_OK) fail_msg("%s\n  failed: %s", source, r.why.text);
    if (!str_eqz(buf_str(&r.text), want))
        fail_msg("%s\n  want '%s'\n  got  '%.*s'", source, want, STR_ARG(buf_str(&r.text)));
    buf_done(&r.text);
}

static void expect_error(const char *source, enum err want, const char *words)
{
    struct result r;
    render(source, CONTEXT, NULL, &r);
    buf_done(&r.text);
    if (r.err != want)
        fail_msg("%s\n  want %s, got %s: %s", source, err_name(want), err_name(r.err), r.why.text);
    if (strstr(r.why.text, words) == NULL)
        fail_msg("%s\n  '%s' does not say '%s'", source, r.why.text, words);
}

static void values_print_as_python_prints_them(void **state)
{
    (void)state;
    expect("{{ s }}{{ i }}{{ f }}{{ big }}{{ n }}{{ yes }}",
           "Hello71.012345678901234567890123NoneTrue");
    expect("{{ l }}{{ d }}{{ [q] }}", "[3, 1, 2]{'b': 1, 'a': [1, {'x': None}]}['it\\'s \"so\"']");
    expect("{{ 1e16 }} {{ 1e-5 }} {{ 0.1 + 0.2 }} {{ 100.0 }}",
           "1e+16 1e-05 0.30000000000000004 100.0");
    expect("{{ nope }}|{{ d.nope }}|{{ l[9] }}", "||");
    expect("{{ (1,) }}{{ {} }}{{ ['\\n'] }}", "(1,){}['\\n']");
}

static void json_is_dumped_as_python_dumps_it(void **state)
{
    (void)state;
    expect("{{ d | tojson }}", "{\"b\": 1, \"a\": [1, {\"x\": null}]}");
    expect("{{ [f, big, q, u] | tojson }}",
           "[1.0, 12345678901234567890123, \"it's \\\"so\\\"\", \"h\xc3\xa9 \xe4\xb8\x96\"]");
    expect("{{ d | tojson(indent=2) }}",
           "{\n  \"b\": 1,\n  \"a\": [\n    1,\n    {\n      \"x\": null\n    }\n  ]\n}");
    expect("{{ u | tojson(ensure_ascii=True) }}", "\"h\\u00e9 \\u4e16\"");
    expect("{{ '<&>\\x01' | tojson }}{{ [] | tojson(indent=4) }}", "\"<&>\\u0001\"[]");
    expect_error("{{ nope | tojson }}", ERR_INVALID, "'nope' is undefined");
}

static void white_space_follows_trim_and_lstrip_blocks(void **state)
{
    (void)state;
    expect("a\n  {% if yes %}\n  b\n  {% endif %}\nc\n", "a\n  b\nc");
    expect("a {%- if yes -%} b {%- endif -%} c", "abc");
    expect("  {{ s }}\n  {# x #}\n{{- s }}", "  Hello\nHello");
    expect("a\n  {%+ if yes %}b{% endif +%}\nc", "a\n  b\nc");
    expect("{% raw %}{{ x }}{% endraw %}|{% set x = 1 %}\r\ny", "{{ x }}|y");
}

static void scopes_are_those_of_jinja(void **state)
{
    (void)state;
    expect("{% set x = 1 %}{% for y in l %}{{ x }}{% set x = y %}{{ x }}{% endfor %}{{ x }}",
           "1311121");
    expect(
        "{% set ns = namespace(a=0) %}{% for y in l %}{% set ns.a = ns.a + y %}{% endfor %}{{ ns.a }}",
        "6");
    expect(
        "{% if no %}{% set s = 'x' %}{% endif %}{{ s }}{% if yes %}{% set s = 'x' %}{% endif %}{{ s }}",
        "Hellox");
    expect("{% macro m(x) %}{{ later }}{{ x }}{% endmacro %}{% set later = 'L' %}{{ m(1) }}", "L1");
    expect("{{ loop is defined }}{% for x in [1] %}{{ loop is defined }}{% endfor %}", "FalseTrue");
    expect_error("{% set d.x = 1 %}", ERR_INVALID, "namespace");
}

static void loops_know_where_they_are(void **state)
{
    (void)state;
    expect(
        "{% for x in l %}{{ loop.index }}{{ loop.first }}{{ loop.last }}{{ loop.previtem }};{% endfor %}",
        "1TrueFalse;2FalseFalse3;3FalseTrue1;");
    expect("{% for x in l if x > 1 %}{{ x }}{{ loop.length }}{% else %}none{% endfor %}", "3222");
    expect(
        "{% for k, v in d.items() %}{{ k }}{% endfor %}{% for x in nope %}x{% else %}-{% endfor %}",
        "ba-");
    expect(
        "{% for n in tree recursive %}{{ n.v }}{{ loop.depth }}[{{ loop(n.kids) }}]{{ n.v }}{% endfor %}",
        "11[22[]2]131[]3");
    expect("{% for x in l[::-1] %}{{ x }}{% if x == 1 %}{% break %}{% endif %}{% endfor %}", "21");
}

static void a_loop_keeps_its_variables_wherever_it_is_called(void **state)
{
    (void)state;
    expect("{% macro m(l, with) %}{{ l(with) }}{% endmacro %}"
           "{% set a = 1 %}{% set b = 2 %}{% set c = 3 %}{% set d = 4 %}"
           "{% for x in [[8, 9], 7] recursive %}{{ loop.depth }}:"
           "{{ m(loop, x) if x is iterable else x }},{{ a }}{{ d }} {% endfor %}",
           "1:2:8,14 2:9,14 ,14 1:7,14 ");
}

static void macros_take_arguments_and_call_themselves(void **state)
{
    (void)state;
    expect(
        "{% macro m(a, b=2) %}[{{ a }}{{ b }}{{ varargs }}{{ kwargs }}]{% endmacro %}{{ m(1) }}{{ m(1, 3, 4, z=5) }}",
        "[12(){}][13(4,){'z': 5}]");
    expect("{% macro f(n) %}{{ n }}{% if n > 0 %}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(3) }}",
           "3210");
    expect(
        "{% macro w() %}<{{ caller(1) }}>{% endmacro %}{% call(x) w() %}{{ x }}{{ s }}{% endcall %}",
        "<1Hello>");
}

static void filters_and_tests_do_what_templates_use(void **state)
{
    (void)state;
    expect("{{ people | selectattr('tags', 'undefined') | map(attribute='name') | list }}",
           "['ann']");
    expect("{{ people | rejectattr('age', 'equalto', 3) | map(attribute='name') | join('+') }}",
           "bob");
    expect("{{ '  x ' | trim }}{{ u | length }}{{ nope | default('d') }}{{ d | dictsort }}",
           "x4d[('a', [1, {'x': None}]), ('b', 1)]");
    expect("{% if l | select('gt', 9) %}a generator is true{% endif %}", "a generator is true");
    expect("{% set g = l | map('string') %}{{ g | list }}{{ g | list }}", "['3', '1', '2'][]");
    expect(
        "{{ n is none }}{{ s is string }}{{ d is mapping }}{{ l is iterable }}{{ 5 is iterable }}"
        "{{ nope is defined }}{{ d is sequence }}",
        "TrueTrueTrueTrueFalseFalseTrue");
    expect_error("{{ l | map('string') | length }}", ERR_INVALID, "length");
}

static void strings_are_of_characters(void **state)
{
    (void)state;
    expect("{{ u[1] }}{{ u[-1] }}{{ u[::-1] }}{{ u[1:3] }}|",
           "\xc3\xa9\xe4\xb8\x96\xe4\xb8\x96 \xc3\xa9h\xc3\xa9 |");
    expect(
        "{{ 'a</think>b'.split('</think>')[-1] }}{{ ' a  b '.split() }}{{ '\\n x'.lstrip('\\n') }}",
        "b['a', 'b'] x");
    expect("{{ s.startswith('He') }}{{ s.endswith(('x', 'lo')) }}{{ s.replace('l', '') }}",
           "TrueTrueHeo");
    expect("{{ 'x' * 3 }}{{ 'a' ~ 1 ~ none }}{{ '%s-%d' % ('a', 2) }}", "xxxa1Nonea-2");
}

static void a_template_refuses_with_its_own_words(void **state)
{
    (void)state;
    struct result r;
    render("{{ raise_exception('roles must alternate: ' ~ i) }}", CONTEXT, NULL, &r);
    assert_int_equal(r.err, ERR_INVALID);
    assert_true(r.raised);
    assert_string_equal(r.why.text, "roles must alternate: 7");
    buf_done(&r.text);
    render("{{ n.x.y }}", CONTEXT, NULL, &r);
    assert_int_equal(r.err, ERR_INVALID);
    assert_false(r.raised);
    buf_done(&r.text);
}

static void the_clock_is_the_callers(void **state)
{
    (void)state;
    struct result r;
    render("{{ strftime_now('%d %b %Y') }}", CONTEXT, NULL, &r);
    assert_int_equal(r.err, ERR_OK);
    assert_true(str_eqz(buf_str(&r.text), "02 Jan 2026"));
    assert_true(r.used_clock);
    buf_done(&r.text);
}

static void numbers_in_strings_are_read_as_python_reads_them(void **state)
{
    (void)state;
    static const struct {
        const char *filter, *want;
    } cases[] = {
        { "'42' | int", "42" },
        { "' 42\\n' | int", "42" },
        { "'\xc2\xa0"
          "12\xe2\x80\x83' | int",
          "12" },
        { "'+7' | int", "7" },
        { "'-0' | int", "0" },
        { "'007' | int", "7" },
        { "'-7.9' | int", "-7" },
        { "'1e3' | int", "1000" },
        { "'1_000' | int", "1000" },
        { "'-1_0' | int", "-10" },
        { "'1__0' | int(5)", "5" },
        { "'_1' | int(5)", "5" },
        { "'1_' | int(5)", "5" },
        { "'' | int(5)", "5" },
        { "'- 7' | int(5)", "5" },
        { "'--5' | int(5)", "5" },
        { "'0x10' | int", "0" },
        { "'0x10' | int(5)", "5" },
        { "'0x1p3' | int(5)", "5" },
        { "'inf' | int(5)", "5" },
        { "'nan' | int(5)", "5" },
        { "'1e400' | int(4)", "4" },
        { "'12345678901234567890' | int", "12345678901234567890" },
        { "'-0000000000000000000000012' | int", "-12" },
        { "'-9223372036854775808' | int", "-9223372036854775808" },
        { "'9223372036854775807' | int", "9223372036854775807" },
        { "'9223372036854775808' | int", "9223372036854775808" },
        { "'1e30' | int", "1000000000000000019884624838656" },
        { "1e30 | int", "1000000000000000019884624838656" },
        { "'0x10' | int(0, 16)", "16" },
        { "'0x_f' | int(0, 16)", "15" },
        { "'ff' | int(0, base=16)", "255" },
        { "'z' | int(0, 36)", "35" },
        { "'0b101' | int(0, 0)", "5" },
        { "'010' | int(5, 0)", "10" },
        { "'0_0' | int(3, 0)", "0" },
        { "'12' | int(1, 1)", "12" },
        { "'99' | int(3, 2)", "99" },
        { "'0x10' | float", "0.0" },
        { "'0x1p3' | float(2.0)", "2.0" },
        { "'inf' | float", "inf" },
        { "'-Infinity' | float", "-inf" },
        { "'-nan' | float", "nan" },
        { "'nan(1)' | float(2.0)", "2.0" },
        { "'infinit' | float(2.0)", "2.0" },
        { "'1e400' | float", "inf" },
        { "'1_000.5' | float", "1000.5" },
        { "'1_.5' | float(2.0)", "2.0" },
        { "'1e1_0' | float", "10000000000.0" },
        { "' .5 ' | float", "0.5" },
        { "'5.' | float", "5.0" },
        { "'.' | float(2.0)", "2.0" },
        { "'e5' | float(2.0)", "2.0" },
        { "'+-5' | float(2.0)", "2.0" },
        { "big | float", "1.2345678901234568e+22" },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char source[100];
        (void)snprintf(source, sizeof source, "{{ %s }}", cases[i].filter);
        expect(source, cases[i].want);
    }
    expect_error("{{ ('f' * 20) | int(0, 16) }}", ERR_LIMIT, "64 bits");
}

static void what_is_wrong_is_refused_when_compiling(void **state)
{
    (void)state;
    expect_error("{% if %}x{% endif %}", ERR_INVALID, "line 1");
    expect_error("a\nb{% for x in l %}", ERR_INVALID, "endfor");
    expect_error("{{ 'x }}", ERR_INVALID, "not closed");
    expect_error("{{ s | nope }}", ERR_UNSUPPORTED, "nope");
    expect_error("{% include 'x' %}", ERR_UNSUPPORTED, "include");
    expect_error("{{ 1 +", ERR_INVALID, "");
    expect_error("{{ (1 }}", ERR_INVALID, "");
    expect_error("{{ l.append(1) }}", ERR_INVALID, "append");
}

static void work_is_bounded(void **state)
{
    (void)state;
    struct result r;
    const struct jinja_limits few = { .steps = 1000, .output = 100 };
    render("{% for a in range(1000) %}{% for b in range(1000) %}{% endfor %}{% endfor %}", "{}",
           &few, &r);
    assert_int_equal(r.err, ERR_LIMIT);
    buf_done(&r.text);
    render("{% for a in range(60) %}0123456789{% endfor %}", "{}", &few, &r);
    assert_int_equal(r.err, ERR_LIMIT);
    assert_true(r.text.len <= 100);
    buf_done(&r.text);
    render(
        "{% set ns = namespace(s='xxxxxxxx') %}{% for a in range(99) %}{% set ns.s = ns.s + ns.s %}{% endfor %}",
        "{}", NULL, &r);
    assert_int_equal(r.err, ERR_NOMEM);
    buf_done(&r.text);
    expect_error("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", ERR_LIMIT, "deep");
    expect_error("{% set n = namespace() %}{% set n.n = n %}{{ n }}", ERR_LIMIT, "deep");
    expect_error("{{ 'x' * 99999999999 }}", ERR_NOMEM, "memory");
    expect_error("{{ 2 ** 64 }}", ERR_LIMIT, "64 bits");
    expect_error("{{ '%d' % 1e300 }}", ERR_LIMIT, "64 bits");
    /* as trees, these have more items than can be compared in a lifetime */
    expect_error("{% set ns = namespace(a=[1], b=[1]) %}{% for i in range(60) %}"
                 "{% set ns.a = [ns.a, ns.a] %}{% set ns.b = [ns.b, ns.b] %}{% endfor %}"
                 "{{ ns.a == ns.b }}",
                 ERR_LIMIT, "steps");
    expect("{% set ns = namespace(a=(1,), b=(1,)) %}{% for i in range(60) %}"
           "{% set ns.a = (ns.a, ns.a) %}{% set ns.b = (ns.b, ns.b) %}{% endfor %}"
           "{{ ns.a in { ns.b: 1 } }}",
           "False");
}

static void deep_nesting_is_refused_not_crashed(void **state)
{
    (void)state;
    static const char *const parts[][2] = { { "(", ")" }, { "[", "]" },    { "not ", "" },
                                            { "-", "" },  { "1 if ", "" }, { "{1:", "}" } };
    for (size_t k = 0; k < ARRAY_LEN(parts); k++) {
        struct result r;
        struct buf b;
        buf_init(&b, 1 << 20);
        assert_int_equal(buf_appendz(&b, "{{ "), ERR_OK);
        for (int i = 0; i < 5000; i++) assert_int_equal(buf_appendz(&b, parts[k][0]), ERR_OK);
        assert_int_equal(buf_appendz(&b, "1"), ERR_OK);
        for (int i = 0; i < 5000; i++) assert_int_equal(buf_appendz(&b, parts[k][1]), ERR_OK);
        assert_int_equal(buf_appendz(&b, " }}"), ERR_OK);
        render(buf_z(&b), "{}", NULL, &r);
        assert_int_equal(r.err, ERR_LIMIT);
        buf_done(&r.text);
        buf_done(&b);
    }
}

static void json_is_read_as_python_reads_it(void **state)
{
    (void)state;
    struct arena a;
    struct jv v;
    struct why why;
    static const char *const bad[] = { "",    "{",     "[1,]",  "{\"a\":1,}", "01",       "1.",
                                       ".5",  "NaN",   "+1",    "\"\\x\"",    "\"a\nb\"", "\"",
                                       "nul", "[1 2]", "{1:2}", "1 1",        "\"\\ud8",  "\"\\" };
    struct result r;
    arena_init(&a, 1 << 20);
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        if (jv_read_json(&a, str_of(bad[i]), &v, &why) != ERR_INVALID) fail_msg("took %s", bad[i]);
    arena_done(&a);
    render("{{ x | tojson }}",
           "{\"x\":{\"a\":1,\"b\":2,\"a\":3,\"\\ud83d\\ude00\":-0,\"\\ud83d\":1E2}}", NULL, &r);
    assert_int_equal(r.err, ERR_OK);
    if (!str_eqz(buf_str(&r.text),
                 "{\"a\": 3, \"b\": 2, \"\xf0\x9f\x98\x80\": 0, \"\xef\xbf\xbd\": 100.0}"))
        fail_msg("%.*s", STR_ARG(buf_str(&r.text)));
    buf_done(&r.text);
}

static void dicts_with_many_keys_find_them(void **state)
{
    (void)state;
    struct arena a;
    struct jv_dict *d;
    char key[16];
    arena_init(&a, 1 << 20);
    d = jv_dict_new(&a, 0);
    assert_non_null(d);
    for (int i = 0; i < 1000; i++) {
        struct str copy;
        snprintf(key, sizeof key, "k%d", i % 700);
        assert_int_equal(arena_dup(&a, str_of(key), &copy), ERR_OK);
        assert_int_equal(jv_dict_set(&a, d, jv_str(copy), jv_int(i)), ERR_OK);
    }
    assert_int_equal(d->n, 700);
    assert_int_equal(jv_dict_getz(d, STR("k5"))->i, 705);
    assert_int_equal(jv_dict_getz(d, STR("k650"))->i, 650);
    assert_null(jv_dict_getz(d, STR("k700")));
    arena_done(&a);
}

/* --- one template, many threads */

static void *render_often(void *arg)
{
    const struct jinja *t = arg;
    for (int i = 0; i < 200; i++) {
        struct arena a;
        struct buf b;
        struct jinja_run run = { .sink = to_buf, .sink_ctx = &b };
        char json[64];
        arena_init(&a, 1 << 20);
        buf_init(&b, 1 << 16);
        snprintf(json, sizeof json, "{\"x\":%d}", i);
        if (jv_read_json(&a, str_of(json), &run.context, NULL) != ERR_OK ||
            jinja_render(t, &a, &run, NULL) != ERR_OK || b.len < 4 ||
            strtol(buf_z(&b), NULL, 10) != i)
            return arg;
        buf_done(&b);
        arena_done(&a);
    }
    return NULL;
}

static void threads_share_a_template(void **state)
{
    (void)state;
    struct jinja *t;
    pthread_t threads[4];
    assert_int_equal(
        jinja_compile(STR("{% set y = x %}{{ y }}{% for i in range(3) %}-{% endfor %}"), &t, NULL),
        ERR_OK);
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, render_often, t), 0);
    for (int i = 0; i < 4; i++) {
        void *failed;
        pthread_join(threads[i], &failed);
        assert_null(failed);
    }
    jinja_free(t);
}

static void a_template_tells_what_it_uses(void **state)
{
    (void)state;
    struct jinja *t;
    assert_int_equal(
        jinja_compile(
            STR("{% for m in messages %}{% for p in m.content %}{{ p }}{% endfor %}{% endfor %}"),
            &t, NULL),
        ERR_OK);
    assert_true(jinja_uses(t, STR("messages")));
    assert_false(jinja_uses(t, STR("tools")));
    assert_false(jinja_uses(t, STR("m")));
    assert_true(jinja_loops_over_content(t));
    jinja_free(t);
    assert_int_equal(
        jinja_compile(STR("{% for m in messages %}{{ m.content }}{% endfor %}"), &t, NULL), ERR_OK);
    assert_false(jinja_loops_over_content(t));
    jinja_free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_print_as_python_prints_them),
        cmocka_unit_test(json_is_dumped_as_python_dumps_it),
        cmocka_unit_test(white_space_follows_trim_and_lstrip_blocks),
        cmocka_unit_test(scopes_are_those_of_jinja),
        cmocka_unit_test(loops_know_where_they_are),
        cmocka_unit_test(a_loop_keeps_its_variables_wherever_it_is_called),
        cmocka_unit_test(macros_take_arguments_and_call_themselves),
        cmocka_unit_test(filters_and_tests_do_what_templates_use),
        cmocka_unit_test(strings_are_of_characters),
        cmocka_unit_test(a_template_refuses_with_its_own_words),
        cmocka_unit_test(the_clock_is_the_callers),
        cmocka_unit_test(numbers_in_strings_are_read_as_python_reads_them),
        cmocka_unit_test(what_is_wrong_is_refused_when_compiling),
        cmocka_unit_test(work_is_bounded),
        cmocka_unit_test(deep_nesting_is_refused_not_crashed),
        cmocka_unit_test(json_is_read_as_python_reads_it),
        cmocka_unit_test(dicts_with_many_keys_find_them),
        cmocka_unit_test(threads_share_a_template),
        cmocka_unit_test(a_template_tells_what_it_uses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
