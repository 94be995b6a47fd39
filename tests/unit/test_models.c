/* SPDX-License-Identifier: Apache-2.0 */
/* Model names to vocabularies: what is built in, what configuration says, what is not known. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "support_bytes_vocab.h"
#include "tokenizer/models/models.h"
#include "tokenizer/models/models_memory.h"

static const char *const files[] = { "qwen3",       "cl100k_base", "o200k_base",
                                     "deepseek_v3", "llama3_2",    "My-Model" };

struct folder {
    char dir[64];
    struct models *models;
    int problems;
};

static void report(void *ctx, const char *file, const char *problem)
{
    struct folder *f = ctx;
    assert_non_null(file);
    assert_non_null(problem);
    f->problems++;
}

static void write_file(const struct folder *f, const char *name, const void *data, size_t n)
{
    char path[160];
    snprintf(path, sizeof path, "%s/%s", f->dir, name);
    FILE *to = fopen(path, "wb");
    assert_non_null(to);
    assert_int_equal(fwrite(data, 1, n, to), n);
    assert_int_equal(fclose(to), 0);
}

static int open_folder(void **state)
{
    static struct folder f;
    struct buf b;
    struct why why = { "" };
    f = (struct folder){ .dir = "/tmp/aigw-models-XXXXXX" };
    assert_non_null(mkdtemp(f.dir));
    for (size_t i = 0; i < ARRAY_LEN(files); i++) {
        char name[64];
        bool chat = strstr(files[i], "k_base") == NULL;
        buf_init(&b, 64u << 20);
        bytes_vocab_file(files[i], chat ? "{{ messages[0].content }}" : "", "", &b);
        snprintf(name, sizeof name, "%s%s", files[i], VOCAB_SUFFIX);
        write_file(&f, name, b.data, b.len);
        buf_done(&b);
    }
    buf_init(&b, 64u << 20);
    bytes_vocab_file("bad_template", "{% if %}", "", &b);
    write_file(&f, "bad_template.aigwvocab", b.data, b.len);
    buf_done(&b);
    write_file(&f, "broken.aigwvocab", "nonsense", 8);
    write_file(&f, "readme.txt", "x", 1);
    assert_int_equal(models_load(f.dir, NULL, 0, report, &f, &f.models, &why), ERR_OK);
    *state = &f;
    return 0;
}

static int close_folder(void **state)
{
    struct folder *f = *state;
    char path[160];
    models_unref(f->models);
    for (size_t i = 0; i < ARRAY_LEN(files); i++) {
        snprintf(path, sizeof path, "%s/%s%s", f->dir, files[i], VOCAB_SUFFIX);
        unlink(path);
    }
    static const char *const others[] = { "bad_template.aigwvocab", "broken.aigwvocab",
                                          "readme.txt" };
    for (size_t i = 0; i < ARRAY_LEN(others); i++) {
        snprintf(path, sizeof path, "%s/%s", f->dir, others[i]);
        unlink(path);
    }
    rmdir(f->dir);
    return 0;
}

/* vocabulary "": none */
static void expect(const struct models *m, const char *name, const char *vocabulary, bool sibling)
{
    struct model_info info;
    models_find(m, str_of(name), &info);
    struct str got = info.vocab != NULL ? info.vocabulary : STR("");
    if (!str_eqz(got, vocabulary))
        fail_msg("%s: want '%s', got '%.*s'", name, vocabulary, STR_ARG(got));
    if (info.sibling != sibling) fail_msg("%s: sibling %d", name, info.sibling);
}

static void what_cannot_be_read_is_left_out(void **state)
{
    struct folder *f = *state;
    assert_int_equal(f->problems, 2); /* a template that does not compile, a broken file */
    assert_int_equal(models_count(f->models), ARRAY_LEN(files) + 1);
    struct model_info info;
    models_find(f->models, STR("bad_template"), &info);
    assert_non_null(info.vocab);
    assert_null(info.chat);
    models_find(f->models, STR("qwen3"), &info);
    assert_non_null(info.chat);
}

static void names_lead_to_vocabularies(void **state)
{
    const struct models *m = ((struct folder *)*state)->models;
    static const char *const exact[][2] = {
        { "Qwen3-8B", "qwen3" },
        { "qwen3-8b-awq", "qwen3" },
        { "Qwen/Qwen3-8B", "qwen3" },
        { "unsloth/Qwen3-14B-GGUF", "qwen3" },
        { "qwen3", "qwen3" },
        { "gpt-4o", "o200k_base" },
        { "gpt-4o-2024-08-06", "o200k_base" },
        { "openai/gpt-4.1-mini", "o200k_base" },
        { "o3", "o200k_base" },
        { "gpt-4", "cl100k_base" },
        { "gpt-4-0613", "cl100k_base" },
        { "gpt-3.5-turbo", "cl100k_base" },
        { "ft:gpt-3.5-turbo-0125:acme::x", "cl100k_base" },
        { "deepseek-v3", "deepseek_v3" },
        { "deepseek-ai/DeepSeek-R1", "deepseek_v3" },
        { "meta-llama/Llama-3.2-3B-Instruct", "llama3_2" },
        { "gpt-5-mini", "o200k_base" },
        { "text-embedding-3-small", "cl100k_base" },
        { "deepseek-r1:671b", "deepseek_v3" },
        { "my-model", "My-Model" },
        { "someone/MY-MODEL", "My-Model" },
    };
    for (size_t i = 0; i < ARRAY_LEN(exact); i++) expect(m, exact[i][0], exact[i][1], false);
}

static void relatives_are_marked(void **state)
{
    const struct models *m = ((struct folder *)*state)->models;
    expect(m, "deepseek-chat", "deepseek_v3", true);
    expect(m, "Qwen3-4B-Instruct-2507", "qwen3", true);
    expect(m, "Qwen/Qwen3-Coder-30B-A3B-Instruct", "qwen3", true);
    expect(m, "Llama-3.1-8B-Instruct", "llama3_2", true);
    expect(m, "qwen2.5-7b-instruct", "qwen3",
           true); /* qwen2_5 is not loaded, the merges are the same */
    expect(m, "deepseek-r1-distill-llama-8b", "llama3_2", true);
    expect(m, "deepseek-r1-distill-qwen-32b", "qwen3", true);
    expect(m, "deepseek-r1:70b", "llama3_2", true);
    expect(m, "gpt-oss-20b", "o200k_base", true); /* the ranks are the same */
    expect(m, "QwQ-32B", "qwen3", true);
    expect(m, "meta-llama/Meta-Llama-3-8B-Instruct", "llama3_2", true);
}

static void what_a_name_only_suggests_is_never_exact(void **state)
{
    const struct models *m = ((struct folder *)*state)->models;
    static const char *const names[][2] = {
        { "my-qwen3-8b-tuned", "qwen3" },
        { "NousResearch/Hermes-3-Llama-3.1-8B", "llama3_2" },
        { "us.meta.llama3-2-3b-instruct-v1:0", "llama3_2" },
    };
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        struct model_info info;
        struct chat_count c;
        expect(m, names[i][0], names[i][1], true);
        models_find(m, str_of(names[i][0]), &info);
        assert_true(info.guess);
        assert_int_equal(chat_count_text(&info, STR("abc"), SPECIAL_TEXT, NULL, &c), ERR_OK);
        assert_int_equal(c.tokens, 3);
        assert_false(c.exact);
        assert_int_equal(c.warnings_n, 1);
    }
}

static void other_families_are_not_guessed(void **state)
{
    const struct models *m = ((struct folder *)*state)->models;
    static const char *const unknown[] = { "claude-sonnet-4",
                                           "gemini-2.5-pro",
                                           "qwen3.5-9b",
                                           "qwen3-max",
                                           "llama-4-scout",
                                           "",
                                           "/",
                                           "qwen3.6-35b-a3b",
                                           "my-qwen3.5-9b-tuned",
                                           "qwen-vl-max",
                                           "qwen-plus",
                                           "codeqwen1.5-7b",
                                           "meta-llama/Llama-4-Scout-17B-16E-Instruct",
                                           "tuned-llama-4-maverick",
                                           "gemma-4-27b-it",
                                           "deepseek-v4",
                                           "deepseek-v2.5",
                                           "deepseek-coder-6.7b-instruct",
                                           "deepseek-r1:8b",
                                           "deepseek-r1-7b",
                                           "mistral-7b-instruct-v0.3",
                                           "mistral-small-2506",
                                           "yi-large",
                                           "internlm3-8b-instruct",
                                           "kimi-k2",
                                           "phi-4",
                                           "gpt2-chinese",
                                           "claude-3-opus-like-gpt-4",
                                           "gpt",
                                           "glm-4.6",
                                           "mistral-large",
                                           "deepseek-r1-distill-gemma" };
    struct model_info info;
    for (size_t i = 0; i < ARRAY_LEN(unknown); i++) expect(m, unknown[i], "", false);
    models_find(m, STR("glm-4.6"), &info);
    assert_false(info.not_installed);
    models_find(m, STR("mistral-nemo-instruct-2407"), &info);
    assert_true(info.not_installed);
    assert_true(str_eqz(info.vocabulary, "mistral_nemo"));
}

static void configuration_comes_first(void **state)
{
    struct folder *f = *state;
    const struct models_entry entries[] = {
        { STR("gpt-4o"), STR("qwen3") },
        { STR("my-qwen3-*"), STR("qwen3") },
        { STR("house/*"), STR("deepseek_v3") },
        { STR("lost"), STR("not-here") },
        { STR("auto"), STR("") },
    };
    struct models *m;
    assert_int_equal(models_with_entries(f->models, entries, ARRAY_LEN(entries), &m), ERR_OK);
    expect(m, "GPT-4o", "qwen3", false);
    expect(m, "gpt-4o-mini", "o200k_base", false);
    expect(m, "team/my-qwen3-8b-tuned", "qwen3", false);
    expect(m, "house/anything", "deepseek_v3", false);
    expect(m, "lost", "", false);
    expect(m, "auto", "", false);
    expect(f->models, "gpt-4o", "o200k_base", false); /* the other registry is as it was */
    models_unref(m);
}

static void a_registry_lives_as_long_as_somebody_holds_it(void **state)
{
    struct folder *f = *state;
    struct models *a, *b;
    struct why why;
    struct model_info info;
    assert_int_equal(models_load(f->dir, NULL, 0, NULL, NULL, &a, &why), ERR_OK);
    assert_int_equal(models_with_entries(a, NULL, 0, &b), ERR_OK);
    models_find(b, STR("qwen3"), &info);
    models_unref(a);
    struct chat_count c;
    assert_int_equal(chat_count_text(&info, STR("abc"), SPECIAL_TEXT, NULL, &c), ERR_OK);
    assert_int_equal(c.tokens, 3);
    models_unref(models_ref(b));
    models_unref(b);
}

/* The same as without a memory, for names old and new, with one registry and with another. */
static void what_is_remembered_is_what_would_be_found(void **state)
{
    static const char *const some[] = {
        "qwen3",  "gpt-4o",       "GPT-4o",  "gpt-4o-2024-11-20", "deepseek_v3", "my-qwen3-8b",
        "",       "nobody-knows", "auto",    "team/my-qwen3-8b",  "ft:gpt-4o:x", "qwen2.5-vl-7b",
        "llava7", "hermes-3",     "qwen3-8", "house/x",
    };
    const struct models_entry entries[] = { { STR("gpt-4o"), STR("qwen3") },
                                            { STR("my-qwen3-*"), STR("deepseek_v3") } };
    struct folder *f = *state;
    struct models *other;
    struct models_memory *mm = models_memory_new();
    char name[200];
    assert_int_equal(models_with_entries(f->models, entries, ARRAY_LEN(entries), &other), ERR_OK);
    for (unsigned round = 0; round < 4000; round++) {
        struct models *m = round / 700 % 2 == 0 ? f->models : other;
        struct model_info found, remembered;
        /* Some of many, so that they push each other out; some too long to be remembered. */
        int n = snprintf(name, sizeof name, "%s%.*u", some[round * 7 % ARRAY_LEN(some)],
                         round % 5 == 0 ? 150 : 0, round % 3 == 0 ? round % 400 : 0);
        models_find(m, str_n(name, (size_t)n), &found);
        models_memory_find(mm, m, str_n(name, (size_t)n), &remembered);
        assert_ptr_equal(found.vocab, remembered.vocab);
        assert_ptr_equal(found.chat, remembered.chat);
        assert_true(str_eq(found.vocabulary, remembered.vocabulary));
        assert_true(str_eq(found.image_rule, remembered.image_rule));
        assert_int_equal(found.openai, remembered.openai);
        assert_int_equal(found.sibling, remembered.sibling);
        assert_int_equal(found.guess, remembered.guess);
        assert_int_equal(found.not_installed, remembered.not_installed);
    }
    models_unref(other);
    models_memory_free(mm);
}

static void no_folder_is_said(void **state)
{
    (void)state;
    struct models *m;
    struct why why;
    assert_int_equal(models_load("/nonexistent/vocab", NULL, 0, NULL, NULL, &m, &why),
                     ERR_NOT_FOUND);
    assert_int_equal(models_load("", NULL, 0, NULL, NULL, &m, &why), ERR_OK);
    assert_int_equal(models_count(m), 0);
    expect(m, "gpt-4o", "", false);
    models_unref(m);
}

static void patterns_match_runs_and_single_characters(void **state)
{
    (void)state;
    static const struct {
        const char *pattern, *s;
        bool yes;
    } cases[] = {
        { "a*c", "abbc", true },
        { "a*c", "ac", true },
        { "a*c", "acb", false },
        { "*", "", true },
        { "", "", true },
        { "", "a", false },
        { "a?c", "abc", true },
        { "a?c", "ac", false },
        { "ABC", "abc", true },
        { "a*b*c", "aXbYc", true },
        { "a**", "a", true },
        { "*x*x*", "xx", true },
        { "*aaab", "aaaaaaaab", true },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        if (models_match(str_of(cases[i].pattern), str_of(cases[i].s)) != cases[i].yes)
            fail_msg("%s on %s", cases[i].pattern, cases[i].s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_cannot_be_read_is_left_out),
        cmocka_unit_test(names_lead_to_vocabularies),
        cmocka_unit_test(relatives_are_marked),
        cmocka_unit_test(what_a_name_only_suggests_is_never_exact),
        cmocka_unit_test(other_families_are_not_guessed),
        cmocka_unit_test(configuration_comes_first),
        cmocka_unit_test(a_registry_lives_as_long_as_somebody_holds_it),
        cmocka_unit_test(what_is_remembered_is_what_would_be_found),
        cmocka_unit_test(no_folder_is_said),
        cmocka_unit_test(patterns_match_runs_and_single_characters),
    };
    return cmocka_run_group_tests(tests, open_folder, close_folder);
}
