/* SPDX-License-Identifier: Apache-2.0 */
/* Model folders. For threads that may wait. */
#include "tokenizer/models/folder.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "rt/crypto.h"
#include "tokenizer/convert/convert_parts.h"

enum {
    MAX_MODEL = 512 << 20,
    MAX_OTHER = 16 << 20,
    MAX_FILE = 512 << 20, /* of the vocabulary made */
    MAX_TEMPLATES = 16,
};

#define MORE_TEMPLATES "additional_chat_templates"

/* What OpenAI publishes without the special tokens: they stand in its library. */
static const struct {
    const char *file, *pattern, *specials;
} known_ranks[] = {
    { "cl100k_base.tiktoken", "cl100k",
      "{\"<|endoftext|>\":100257,\"<|fim_prefix|>\":100258,\"<|fim_middle|>\":100259,"
      "\"<|fim_suffix|>\":100260,\"<|endofprompt|>\":100276}" },
    { "o200k_base.tiktoken", "o200k", "{\"<|endoftext|>\":199999,\"<|endofprompt|>\":200018}" },
    { "p50k_base.tiktoken", "gpt2", "{\"<|endoftext|>\":50256}" },
    { "r50k_base.tiktoken", "gpt2", "{\"<|endoftext|>\":50256}" },
};

struct folder {
    char main[NAME_MAX + 1]; /* the file with the vocabulary; "" when there is none */
    enum { KIND_HF, KIND_TEKKEN, KIND_TIKTOKEN } kind;
    int ranks; /* how many *.tiktoken there are */
    bool sentencepiece;
};

static bool path_of(const char *dir, const char *name, char out[PATH_MAX])
{
    int n = snprintf(out, PATH_MAX, "%s/%s", dir, name);
    return n > 0 && n < PATH_MAX;
}

static bool is_file(const char *dir, const char *name)
{
    char path[PATH_MAX];
    struct stat st;
    return path_of(dir, name, path) && stat(path, &st) == 0 && S_ISREG(st.st_mode);
}

static void look(const char *dir, struct folder *f)
{
    *f = (struct folder){ .kind = KIND_HF };
    f->sentencepiece = is_file(dir, "tokenizer.model");
    if (is_file(dir, "tokenizer.json")) {
        (void)str_copyz(f->main, sizeof f->main, STR("tokenizer.json"));
        return;
    }
    if (is_file(dir, "tekken.json")) {
        f->kind = KIND_TEKKEN;
        (void)str_copyz(f->main, sizeof f->main, STR("tekken.json"));
        return;
    }
    DIR *d = opendir(dir);
    if (d == NULL) return;
    f->kind = KIND_TIKTOKEN;
    for (struct dirent *at; (at = readdir(d)) != NULL;) {
        struct str name = str_of(at->d_name);
        if (name.p[0] == '.' || !str_ends(name, STR(".tiktoken")) || !is_file(dir, name.p))
            continue;
        f->ranks++;
        (void)str_copyz(f->main, sizeof f->main, name);
    }
    (void)closedir(d);
}

bool folder_is_model(const char *dir)
{
    struct folder f;
    look(dir, &f);
    return f.main[0] != '\0' || f.sentencepiece;
}

/* ERR_NOT_FOUND: no such file. */
static enum err read_file(const char *dir, const char *name, struct buf *b, struct why *why)
{
    char path[PATH_MAX];
    if (!path_of(dir, name, path)) return why_set(why, ERR_LIMIT, "%s: the path is too long", name);
    enum err e = file_read(path, b);
    if (e == ERR_OK) return ERR_OK;
    return why_set(why, e, "%s: %s", name,
                   e == ERR_LIMIT || e == ERR_NOMEM ? "too large" : strerror(errno));
}

/* ---- templates ---- */

struct texts {
    struct buf config, template;
    struct buf more[MAX_TEMPLATES]; /* sources, then ... */
    char names[MAX_TEMPLATES][65];
    struct convert_template list[MAX_TEMPLATES];
    size_t n;
};

static void texts_init(struct texts *t)
{
    memset(t, 0, sizeof *t);
    buf_init(&t->config, MAX_OTHER);
    buf_init(&t->template, MAX_OTHER);
    for (size_t i = 0; i < MAX_TEMPLATES; i++) buf_init(&t->more[i], MAX_OTHER);
}

static void texts_done(struct texts *t)
{
    buf_done(&t->config);
    buf_done(&t->template);
    for (size_t i = 0; i < MAX_TEMPLATES; i++) buf_done(&t->more[i]);
}

static int is_template(const struct dirent *d)
{
    struct str name = str_of(d->d_name);
    return name.n > 6 && name.n <= 70 && name.p[0] != '.' && str_ends(name, STR(".jinja"));
}

/* additional_chat_templates/NAME.jinja */
static enum err read_more(const char *dir, struct texts *t, struct why *why)
{
    char path[PATH_MAX];
    struct dirent **list;
    if (!path_of(dir, MORE_TEMPLATES, path)) return ERR_OK;
    int n = scandir(path, &list, is_template, alphasort);
    enum err e = ERR_OK;
    for (int i = 0; i < n; i++) {
        struct str name = str_of(list[i]->d_name);
        if (e == ERR_OK && t->n == MAX_TEMPLATES)
            e = why_set(why, ERR_LIMIT, "%s: more than %d templates", MORE_TEMPLATES,
                        MAX_TEMPLATES);
        if (e == ERR_OK) e = read_file(path, name.p, &t->more[t->n], why);
        if (e == ERR_OK) {
            (void)str_copyz(t->names[t->n], sizeof t->names[0], str_n(name.p, name.n - 6));
            t->list[t->n] = (struct convert_template){ str_of(t->names[t->n]),
                                                       buf_str(&t->more[t->n]) };
            t->n++;
        }
        free(list[i]);
    }
    if (n >= 0) free(list);
    return e;
}

/* {"chat_template": "..."}, as processors of images keep it */
static enum err template_of_json(struct str json, struct buf *out, struct why *why)
{
    struct jpull j;
    struct str key;
    struct why what = { "" };
    jpull_init(&j, json);
    for (jpull_enter(&j, '{'); jpull_key(&j, &key);) {
        if (str_eqz(key, "chat_template") && out->len == 0 && jpull_peek(&j) == '"')
            jpull_string(&j, out);
        else
            (void)jpull_skip(&j);
    }
    enum err e = jpull_end(&j, &what);
    jpull_done(&j);
    return e == ERR_OK ? e : why_set(why, e, "chat_template.json: %s", what.text);
}

static enum err read_texts(const char *dir, struct texts *t, struct why *why)
{
    enum err e = read_file(dir, "tokenizer_config.json", &t->config, why);
    if (e == ERR_OK || e == ERR_NOT_FOUND)
        e = read_file(dir, "chat_template.jinja", &t->template, why);
    if (e == ERR_NOT_FOUND) {
        struct buf json;
        buf_init(&json, MAX_OTHER);
        e = read_file(dir, "chat_template.json", &json, why);
        if (e == ERR_OK) e = template_of_json(buf_str(&json), &t->template, why);
        if (e == ERR_NOT_FOUND) e = ERR_OK;
        buf_done(&json);
    }
    return e == ERR_OK ? read_more(dir, t, why) : e;
}

/* ---- converting ---- */

static enum err convert_ranks(const struct folder *f, struct str in, struct convert_opts *o,
                              struct buf *ret, struct why *why)
{
    for (size_t i = 0; i < ARRAY_LEN(known_ranks) && o->pattern.n == 0; i++) {
        if (strcmp(f->main, known_ranks[i].file) != 0) continue;
        o->pattern = str_of(known_ranks[i].pattern);
        if (o->specials.n == 0) o->specials = str_of(known_ranks[i].specials);
    }
    if (o->pattern.n == 0)
        return why_set(why, ERR_UNSUPPORTED,
                       "%s: the file does not say how text is split (--pattern does)", f->main);
    return convert_tiktoken(in, o, ret, why);
}

enum err folder_convert(const char *dir, const struct convert_opts *opts, struct buf *ret,
                        struct why *why)
{
    struct folder f;
    struct texts t;
    struct buf in;
    struct convert_opts o = *opts;
    struct why what = { "" };
    char digest[SHA256_HEX_LEN + 1];
    look(dir, &f);
    if (f.ranks > 1)
        return why_set(why, ERR_UNSUPPORTED, "more than one .tiktoken file: which one is it?");
    if (f.main[0] == '\0' && f.sentencepiece)
        return why_set(
            why, ERR_UNSUPPORTED,
            "tokenizer.model is in SentencePiece's own format: tokenizer.json is needed");
    if (f.main[0] == '\0')
        return why_set(why, ERR_NOT_FOUND, "no tokenizer.json, tekken.json or .tiktoken in it");
    texts_init(&t);
    buf_init(&in, MAX_MODEL);
    enum err e = read_file(dir, f.main, &in, why);
    if (e == ERR_OK) e = read_texts(dir, &t, why);
    if (e != ERR_OK) goto out;
    crypto_sha256_hex(buf_str(&in), digest);
    o.digest = str_of(digest);
    o.config = buf_str(&t.config);
    o.template = buf_str(&t.template);
    o.templates = t.list;
    o.templates_n = t.n;
    e = f.kind == KIND_HF       ? convert_huggingface(buf_str(&in), &o, ret, &what)
        : f.kind == KIND_TEKKEN ? convert_tekken(buf_str(&in), &o, ret, &what)
                                : convert_ranks(&f, buf_str(&in), &o, ret, &what);
    if (e != ERR_OK) e = why_set(why, e, "%s: %s", f.main, what.text);
out:
    buf_done(&in);
    texts_done(&t);
    return e;
}

/* ---- the cache ---- */

/* What changes when a file does: "tokenizer.json 11422654 1700000000.000000000\n...". */
static enum err signature(const char *dir, struct buf *out)
{
    static const char *const names[] = { "tokenizer_config.json", "chat_template.jinja",
                                         "chat_template.json", MORE_TEMPLATES };
    struct folder f;
    enum err e = ERR_OK;
    look(dir, &f);
    for (size_t i = 0; i <= ARRAY_LEN(names) && e == ERR_OK; i++) {
        const char *name = i < ARRAY_LEN(names) ? names[i] : f.main;
        char path[PATH_MAX];
        struct stat st;
        if (!path_of(dir, name, path) || stat(path, &st) != 0) continue;
        e = buf_printf(out, "%s %lld %lld.%09ld\n", name, (long long)st.st_size,
                       (long long)st.st_mtim.tv_sec, st.st_mtim.tv_nsec);
    }
    return e;
}

static struct str base_name(const char *dir)
{
    struct str s = str_of(dir);
    while (s.n > 1 && s.p[s.n - 1] == '/') s.n--;
    for (size_t i = s.n; i > 0; i--)
        if (s.p[i - 1] == '/') return str_n(s.p + i, s.n - i);
    return s;
}

static bool open_cache(const char *path, struct str name, struct str source, struct vocab **ret)
{
    struct vocab *v;
    if (vocab_open(path, &v, NULL) != ERR_OK) return false;
    if (str_eq(vocab_source(v), source) && str_eq(vocab_name(v), name)) {
        *ret = v;
        return true;
    }
    vocab_unref(v);
    return false;
}

/* Beside the place and renamed: nobody maps half a vocabulary. */
static bool write_cache(const char *path, struct str data)
{
    char temp[PATH_MAX];
    int n = snprintf(temp, sizeof temp, "%s.%d", path, (int)getpid());
    if (n < 0 || (size_t)n >= sizeof temp) return false;
    int fd = open(temp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0) return false;
    bool ok = true;
    while (data.n > 0 && ok) {
        ssize_t k = write(fd, data.p, data.n);
        ok = k > 0 || (k < 0 && errno == EINTR);
        if (k > 0) data = str_n(data.p + k, data.n - (size_t)k);
    }
    ok = close(fd) == 0 && ok;
    ok = ok && rename(temp, path) == 0;
    if (!ok) (void)unlink(temp);
    return ok;
}

static enum err convert_and_open(const char *dir, const char *path, const struct convert_opts *o,
                                 struct vocab **ret, struct why *why)
{
    struct buf file;
    buf_init(&file, MAX_FILE);
    enum err e = folder_convert(dir, o, &file, why);
    if (e == ERR_OK &&
        !(write_cache(path, buf_str(&file)) && open_cache(path, o->name, o->source, ret)))
        e = vocab_open_mem(file.data, file.len, ret, why);
    buf_done(&file);
    return e;
}

enum err folder_open(const char *dir, struct vocab **ret, struct why *why)
{
    char path[PATH_MAX];
    struct buf source;
    struct convert_opts o = { .name = base_name(dir) };
    if (!path_of(dir, FOLDER_CACHE, path))
        return why_set(why, ERR_LIMIT, "%s: the path is too long", dir);
    buf_init(&source, 1 << 16);
    enum err e = signature(dir, &source);
    o.source = buf_str(&source);
    if (e != ERR_OK || open_cache(path, o.name, o.source, ret)) {
        buf_done(&source);
        return e;
    }
    int lock = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (lock >= 0)
        while (flock(lock, LOCK_EX) != 0 && errno == EINTR) continue;
    if (!open_cache(path, o.name, o.source, ret)) e = convert_and_open(dir, path, &o, ret, why);
    if (lock >= 0) (void)close(lock);
    buf_done(&source);
    return e;
}
