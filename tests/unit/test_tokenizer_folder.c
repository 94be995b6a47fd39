/* SPDX-License-Identifier: Apache-2.0 */
/* Model folders: what is found in them, the converted form that is kept, and when it is made anew.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "support_chars.h"
#include "tokenizer/models/folder.h"
#include "tokenizer/models/models.h"
#include "tokenizer/tokenizer.h"

static struct support_vocab made;
static char root[64], dir[96];

static void put(const char *name, struct str data)
{
    char path[256];
    (void)snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(data.p, 1, data.n, f), data.n);
    assert_int_equal(fclose(f), 0);
}

static bool there(const char *name)
{
    char path[256];
    (void)snprintf(path, sizeof path, "%s/%s", dir, name);
    return access(path, F_OK) == 0;
}

static void take_away(const char *name)
{
    char path[256];
    (void)snprintf(path, sizeof path, "%s/%s", dir, name);
    (void)remove(path);
}

static int make_folder(void **state)
{
    (void)state;
    chars_init(&made);
    (void)snprintf(root, sizeof root, "/tmp/aigw-folder-XXXXXX");
    if (mkdtemp(root) == NULL) return -1;
    (void)snprintf(dir, sizeof dir, "%s/My-Model-7B", root);
    return mkdir(dir, 0755);
}

static int remove_folder(void **state)
{
    static const char *const names[] = { "tokenizer.json",
                                         "tokenizer_config.json",
                                         "chat_template.jinja",
                                         "additional_chat_templates/rag.jinja",
                                         "additional_chat_templates",
                                         "tokenizer.model",
                                         "a.tiktoken",
                                         "cl100k_base.tiktoken",
                                         FOLDER_CACHE };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(names); i++) take_away(names[i]);
    (void)rmdir(dir);
    return rmdir(root);
}

static void put_model(void)
{
    struct buf json;
    buf_init(&json, 1 << 20);
    chars_json(&made, &chars_shapes[0], "", &json);
    put("tokenizer.json", buf_str(&json));
    buf_done(&json);
}

static void a_folder_is_served_and_kept_converted(void **state)
{
    (void)state;
    struct why why = { "" };
    struct vocab *v = NULL;
    uint64_t n;
    char more[256];
    assert_false(folder_is_model(dir));
    assert_int_equal(folder_open(dir, &v, &why), ERR_NOT_FOUND);
    put_model();
    put("tokenizer_config.json",
        STR("{\"eos_token\":\"<|end|>\",\"chat_template\":\"from the config\"}"));
    put("chat_template.jinja", STR("its own file"));
    (void)snprintf(more, sizeof more, "%s/additional_chat_templates", dir);
    assert_int_equal(mkdir(more, 0755), 0);
    put("additional_chat_templates/rag.jinja", STR("with documents"));
    assert_true(folder_is_model(dir));
    assert_int_equal(folder_open(dir, &v, &why), ERR_OK);
    assert_true(str_eqz(vocab_name(v), "My-Model-7B"));
    assert_true(str_eqz(vocab_chat_template(v), "its own file"));
    assert_true(str_eqz(vocab_chat_template_named(v, "rag"), "with documents"));
    assert_true(str_eqz(vocab_eos(v), "<|end|>"));
    assert_int_equal(token_count(v, STR("hello the"), SPECIAL_TEXT, &n), ERR_OK);
    assert_int_equal(n, 2);
    vocab_unref(v);
    assert_true(there(FOLDER_CACHE));
    /* taken as it is for as long as the files are the same */
    char path[256];
    struct stat first, second;
    (void)snprintf(path, sizeof path, "%s/%s", dir, FOLDER_CACHE);
    assert_int_equal(stat(path, &first), 0);
    assert_int_equal(folder_open(dir, &v, &why), ERR_OK);
    vocab_unref(v);
    assert_int_equal(stat(path, &second), 0);
    assert_int_equal(first.st_ino, second.st_ino);
    put("chat_template.jinja", STR("another"));
    assert_int_equal(folder_open(dir, &v, &why), ERR_OK);
    assert_true(str_eqz(vocab_chat_template(v), "another"));
    vocab_unref(v);
    /* a damaged one is made anew */
    put(FOLDER_CACHE, STR("nonsense"));
    assert_int_equal(folder_open(dir, &v, &why), ERR_OK);
    assert_true(str_eqz(vocab_chat_template(v), "another"));
    vocab_unref(v);
}

static void a_registry_takes_folders_in(void **state)
{
    (void)state;
    struct models *m;
    struct model_info info;
    struct why why = { "" };
    put_model();
    assert_int_equal(models_load(root, NULL, 0, NULL, NULL, &m, &why), ERR_OK);
    models_find(m, STR("someone/my-model-7b"), &info);
    assert_non_null(info.vocab);
    assert_true(str_eqz(info.vocabulary, "My-Model-7B"));
    models_unref(m);
}

static void what_is_half_there_is_refused_with_the_reason(void **state)
{
    (void)state;
    struct why why = { "" };
    struct vocab *v = NULL;
    put("tokenizer.json", STR("{\"model\":{\"type\":\"BPE\",\"vo"));
    assert_int_equal(folder_open(dir, &v, &why), ERR_INVALID);
    assert_non_null(strstr(why.text, "tokenizer.json"));
    put("tokenizer.json", STR("{\"model\":{\"type\":\"Unigram\",\"vocab\":[]}}"));
    assert_int_equal(folder_open(dir, &v, &why), ERR_UNSUPPORTED);
    assert_non_null(strstr(why.text, "Unigram"));
    take_away("tokenizer.json");
    put("tokenizer.model", STR("x"));
    assert_true(folder_is_model(dir));
    assert_int_equal(folder_open(dir, &v, &why), ERR_UNSUPPORTED);
    assert_non_null(strstr(why.text, "SentencePiece"));
    take_away("tokenizer.model");
    put("a.tiktoken", STR("YQ== 0\n"));
    assert_int_equal(folder_open(dir, &v, &why), ERR_UNSUPPORTED);
    assert_non_null(strstr(why.text, "how text is split"));
    put("cl100k_base.tiktoken", STR("YQ== 0\n"));
    assert_int_equal(folder_open(dir, &v, &why), ERR_UNSUPPORTED);
    assert_non_null(strstr(why.text, "more than one"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_folder_is_served_and_kept_converted),
        cmocka_unit_test(a_registry_takes_folders_in),
        cmocka_unit_test(what_is_half_there_is_refused_with_the_reason),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
