/* SPDX-License-Identifier: Apache-2.0 */
/*
 * aigw-vocab: makes vocabulary files, and says what is in one.
 *
 *   aigw-vocab convert DIR [--name NAME] [--out FILE]    a model's folder, as it is downloaded
 *   aigw-vocab convert --tokenizer tokenizer.json [--config tokenizer_config.json]
 *              [--template chat_template.jinja] --name NAME --out FILE
 *   aigw-vocab convert --tiktoken FILE --pattern cl100k|o200k|gpt2|... [--specials JSON] ...
 *   aigw-vocab convert --tekken tekken.json ...
 *   aigw-vocab info FILE
 *   aigw-vocab ids FILE [--control]      token ids of each text on stdin (see below) on stdout
 *
 * `ids` is for checking against other tokenizers: it reads texts as their length in bytes on a
 * line, then the bytes, and answers each with a line of ids. --text TEXT instead takes one from the
 * command line.
 */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/file.h"
#include "rt/crypto.h"
#include "tokenizer/models/folder.h"
#include "tokenizer/tokenizer.h"

enum { EXIT_USAGE = 2 };
enum { MOST_INPUT = 512 << 20, MOST_OUTPUT = 256 << 20 };

static const char usage[] =
    "usage: aigw-vocab convert DIR [--name NAME] [--out FILE] [--pattern NAME [--specials JSON]]\n"
    "       aigw-vocab convert (--tokenizer FILE [--config FILE] [--template FILE] | --tekken FILE |\n"
    "                  --tiktoken FILE --pattern NAME [--specials JSON] [--reserved FROM-TO])\n"
    "                  --name NAME --out FILE\n"
    "       aigw-vocab info FILE\n"
    "       aigw-vocab ids FILE [--control] [--text TEXT]\n";

struct args {
    const char *tokenizer, *config, *template, *tekken, *tiktoken, *pattern, *specials, *reserved,
        *name, *out;
    const char *text;
    bool control;
    const char *file;
};

static int fail(const char *what, const char *text)
{
    fprintf(stderr, "aigw-vocab: %s: %s\n", what, text);
    return EXIT_FAILURE;
}

static bool parse(int argc, char **argv, struct args *a)
{
    const struct {
        const char *name;
        const char **value;
    } options[] = {
        { "--tokenizer", &a->tokenizer }, { "--config", &a->config },
        { "--template", &a->template },   { "--tekken", &a->tekken },
        { "--tiktoken", &a->tiktoken },   { "--pattern", &a->pattern },
        { "--specials", &a->specials },   { "--reserved", &a->reserved },
        { "--name", &a->name },           { "--out", &a->out },
        { "--text", &a->text },
    };
    for (int i = 2; i < argc; i++) {
        size_t k = 0;
        if (strcmp(argv[i], "--control") == 0) {
            a->control = true;
            continue;
        }
        while (k < ARRAY_LEN(options) && strcmp(argv[i], options[k].name) != 0) k++;
        if (k < ARRAY_LEN(options)) {
            if (++i == argc) return false;
            *options[k].value = argv[i];
        } else if (argv[i][0] != '-' && a->file == NULL) {
            a->file = argv[i];
        } else {
            return false;
        }
    }
    return true;
}

/* Writes beside the file and renames: nobody maps half a vocabulary. */
static bool write_all(const char *path, struct str data)
{
    char temp[4096];
    if ((size_t)snprintf(temp, sizeof temp, "%s.%d", path, (int)getpid()) >= sizeof temp)
        return false;
    FILE *f = fopen(temp, "wb");
    if (f == NULL) return false;
    bool ok = fwrite(data.p, 1, data.n, f) == data.n;
    ok = fclose(f) == 0 && ok;
    ok = ok && rename(temp, path) == 0;
    if (!ok) (void)remove(temp);
    return ok;
}

/* Checks what was made by opening it, and writes it. */
static int keep(const char *input, enum err e, struct why *why, const struct buf *made,
                const char *out)
{
    struct vocab *v = NULL;
    if (e == ERR_OK) e = vocab_open_mem(made->data, made->len, &v, why);
    if (e == ERR_OK) e = vocab_verify(v, why);
    vocab_unref(v);
    if (e != ERR_OK) return fail(input, why->text[0] != '\0' ? why->text : err_name(e));
    return write_all(out, buf_str(made)) ? EXIT_SUCCESS : fail(out, strerror(errno));
}

/* "200013-201087" */
static bool parse_range(const char *text, uint32_t *ret_from, uint32_t *ret_end)
{
    struct str to = str_of(text), from = str_cut(&to, '-');
    uint64_t a, b;
    if (text == NULL) return true;
    if (str_to_u64(from, &a) != ERR_OK || str_to_u64(to, &b) != ERR_OK || a > b || b >= UINT32_MAX)
        return false;
    *ret_from = (uint32_t)a;
    *ret_end = (uint32_t)b + 1;
    return true;
}

static int convert_folder(const struct args *a)
{
    char whole[PATH_MAX], out[PATH_MAX];
    struct buf made;
    struct why why = { "" };
    if (realpath(a->file, whole) == NULL) return fail(a->file, strerror(errno));
    const char *name = a->name != NULL ? a->name : strrchr(whole, '/') + 1;
    int n = a->out != NULL ? snprintf(out, sizeof out, "%s", a->out)
                           : snprintf(out, sizeof out, "%s" VOCAB_SUFFIX, name);
    if (n < 0 || (size_t)n >= sizeof out) return fail(a->file, "the path is too long");
    struct convert_opts o = { .name = str_of(name),
                              .pattern = str_of(a->pattern),
                              .specials = str_of(a->specials) };
    buf_init(&made, MOST_OUTPUT);
    enum err e = folder_convert(whole, &o, &made, &why);
    int rc = keep(a->file, e, &why, &made, out);
    buf_done(&made);
    return rc;
}

static int convert(const struct args *a)
{
    const char *input = a->tokenizer != NULL ? a->tokenizer
                        : a->tekken != NULL  ? a->tekken
                                             : a->tiktoken;
    if (input == NULL && a->file != NULL) return convert_folder(a);
    if (input == NULL || a->name == NULL || a->out == NULL || a->file != NULL) {
        fputs(usage, stderr);
        return EXIT_USAGE;
    }
    struct buf in, config, template, out;
    struct why why = { "" };
    char digest[SHA256_HEX_LEN + 1];
    int rc;
    buf_init(&in, MOST_INPUT);
    buf_init(&config, MOST_INPUT);
    buf_init(&template, MOST_INPUT);
    buf_init(&out, MOST_OUTPUT);
    const char *bad = file_read(input, &in) != ERR_OK                                ? input
                      : a->config != NULL && file_read(a->config, &config) != ERR_OK ? a->config
                      : a->template != NULL && file_read(a->template, &template) != ERR_OK
                          ? a->template
                          : NULL;
    if (bad != NULL) {
        rc = fail(bad, strerror(errno));
        goto out;
    }
    crypto_sha256_hex(buf_str(&in), digest);
    struct convert_opts o = { .name = str_of(a->name),
                              .digest = str_of(digest),
                              .config = buf_str(&config),
                              .template = buf_str(&template),
                              .pattern = str_of(a->pattern),
                              .specials = str_of(a->specials) };
    if (!parse_range(a->reserved, &o.reserved, &o.reserved_end)) {
        rc = fail("--reserved", "two numbers with a hyphen between them are wanted");
        goto out;
    }
    enum err e = a->tokenizer != NULL ? convert_huggingface(buf_str(&in), &o, &out, &why)
                 : a->tekken != NULL  ? convert_tekken(buf_str(&in), &o, &out, &why)
                                      : convert_tiktoken(buf_str(&in), &o, &out, &why);
    rc = keep(input, e, &why, &out, a->out);
out:
    buf_done(&in);
    buf_done(&config);
    buf_done(&template);
    buf_done(&out);
    return rc;
}

static void info(const struct vocab *v)
{
    static const char *const keys[] = { "bos_token", "eos_token", "pad_token", "unk_token" };
    printf("name      %.*s\n", STR_ARG(vocab_name(v)));
    printf("sha256    %.*s\n", STR_ARG(vocab_digest(v)));
    printf("size      %u\n", vocab_size(v));
    printf("exact     %s\n", vocab_exact(v) ? "yes" : "no: its pattern is run by PCRE2");
    printf("template  %zu bytes\n", vocab_chat_template(v).n);
    for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
        struct str s = vocab_special(v, keys[i]);
        if (s.p != NULL) printf("%-9s %.*s\n", keys[i], STR_ARG(s));
    }
}

static bool print_ids(const struct vocab *v, struct str text, bool control, struct token_list *l)
{
    l->len = 0;
    if (token_encode(v, text, control ? SPECIAL_CONTROL : SPECIAL_TEXT, l) != ERR_OK) return false;
    uint64_t count;
    if (token_count(v, text, control ? SPECIAL_CONTROL : SPECIAL_TEXT, &count) != ERR_OK)
        return false;
    if (count != l->len) {
        fprintf(stderr, "aigw-vocab: counted %llu, but there are %zu\n", (unsigned long long)count,
                l->len);
        return false;
    }
    for (size_t i = 0; i < l->len; i++) printf("%s%u", i > 0 ? " " : "", l->ids[i]);
    putchar('\n');
    return true;
}

static int ids(const struct vocab *v, const struct args *a)
{
    struct token_list l = { 0 };
    char line[32];
    bool ok = true;
    if (a->text != NULL) {
        ok = print_ids(v, str_of(a->text), a->control, &l);
    } else {
        while (ok && fgets(line, sizeof line, stdin) != NULL) {
            uint64_t n;
            struct str s = str_of(line);
            if (s.n > 0 && s.p[s.n - 1] == '\n') s.n--;
            if (str_to_u64(s, &n) != ERR_OK || n > MOST_INPUT) {
                ok = false;
                break;
            }
            char *text = malloc(n + 1);
            ok = text != NULL && fread(text, 1, n, stdin) == n &&
                 print_ids(v, str_n(text, n), a->control, &l);
            free(text);
        }
    }
    token_list_done(&l);
    return ok ? EXIT_SUCCESS : fail("ids", "bad input");
}

int main(int argc, char **argv)
{
    struct args a = { 0 };
    if (argc < 2 || !parse(argc, argv, &a)) {
        fputs(usage, stderr);
        return EXIT_USAGE;
    }
    if (strcmp(argv[1], "convert") == 0) return convert(&a);
    if (a.file == NULL || (strcmp(argv[1], "info") != 0 && strcmp(argv[1], "ids") != 0)) {
        fputs(usage, stderr);
        return EXIT_USAGE;
    }
    struct why why = { "" };
    struct vocab *v;
    enum err e = vocab_open(a.file, &v, &why);
    if (e == ERR_OK && strcmp(argv[1], "info") == 0) e = vocab_verify(v, &why);
    if (e != ERR_OK) return fail("open", why.text[0] != '\0' ? why.text : err_name(e));
    int rc = EXIT_SUCCESS;
    if (strcmp(argv[1], "info") == 0)
        info(v);
    else
        rc = ids(v, &a);
    vocab_unref(v);
    return rc;
}
