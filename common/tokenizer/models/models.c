/* SPDX-License-Identifier: Apache-2.0 */
/* The registry of loaded vocabularies. Immutable once made; only the reference counts change. */
#include "tokenizer/models/models.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/file.h"
#include "tokenizer/models/folder.h"
#include "tokenizer/chat/images.h"

enum { IMAGE_RULES_MAX = 1 << 20 };

struct models_vocab {
    struct vocab *vocab;
    struct chat_template *chat; /* or NULL */
    bool openai;
    struct why problem;
    _Atomic unsigned refs;
};

/* Vocabularies in the order of their names: shared by all registries that differ in entries only.
 */
struct shelf {
    struct models_vocab **v;
    size_t n;
    struct buf image_rules; /* empty: those that are built in */
    _Atomic unsigned refs;
};

struct models {
    struct shelf *shelf;
    struct models_entry *entries; /* strings owned, in `text` */
    size_t entries_n;
    char *text;
    _Atomic unsigned refs;
};

struct models_vocab *models_vocab_ref(struct models_vocab *v)
{
    atomic_fetch_add(&v->refs, 1);
    return v;
}

void models_vocab_unref(struct models_vocab *v)
{
    if (v == NULL || atomic_fetch_sub(&v->refs, 1) != 1) return;
    chat_template_free(v->chat);
    vocab_unref(v->vocab);
    free(v);
}

struct str models_vocab_name(const struct models_vocab *v)
{
    return vocab_name(v->vocab);
}

const char *models_vocab_problem(const struct models_vocab *v)
{
    return v->problem.text;
}

static void shelf_unref(struct shelf *s)
{
    if (s == NULL || atomic_fetch_sub(&s->refs, 1) != 1) return;
    for (size_t i = 0; i < s->n; i++) models_vocab_unref(s->v[i]);
    buf_done(&s->image_rules);
    free(s->v);
    free(s);
}

static bool is_openai(struct str name)
{
    static const char *const names[] = { "cl100k_base", "o200k_base", "o200k_harmony" };
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (str_eqz(name, names[i])) return true;
    return false;
}

static bool is_folder(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

enum err models_vocab_open(const char *path, struct models_vocab **ret, struct why *why)
{
    struct models_vocab *v = calloc(1, sizeof *v);
    if (v == NULL) return why_set(why, ERR_NOMEM, "out of memory for a vocabulary");
    v->refs = 1;
    enum err e = is_folder(path) ? folder_open(path, &v->vocab, why)
                                 : vocab_open(path, &v->vocab, why);
    if (e == ERR_OK) {
        enum err t = chat_template_new(v->vocab, &v->chat, &v->problem);
        if (t == ERR_OK || t == ERR_NOT_FOUND) v->problem.text[0] = '\0';
        if (t == ERR_NOMEM) e = why_set(why, t, "out of memory for a chat template");
    }
    if (e != ERR_OK) {
        models_vocab_unref(v);
        return e;
    }
    v->openai = is_openai(vocab_name(v->vocab));
    *ret = v;
    return ERR_OK;
}

static bool join_path(const char *dir, const char *name, char out[PATH_MAX])
{
    int n = snprintf(out, PATH_MAX, "%s/%s", dir, name);
    return n > 0 && n < PATH_MAX;
}

bool models_is_source(const char *dir, const char *name)
{
    char path[PATH_MAX];
    struct str s = str_of(name);
    if (s.n == 0 || s.p[0] == '.' || !join_path(dir, name, path)) return false;
    if (is_folder(path)) return folder_is_model(path);
    return s.n > sizeof VOCAB_SUFFIX - 1 && str_ends(s, STR(VOCAB_SUFFIX));
}

static int by_name(const void *a, const void *b)
{
    struct models_vocab *const *x = a, *const *y = b;
    return str_cmp(models_vocab_name(*x), models_vocab_name(*y));
}

/* Takes the reference, unless there is one of that name. */
static bool shelf_add(struct shelf *s, struct models_vocab *takes)
{
    for (size_t i = 0; i < s->n; i++) {
        if (!str_eq(models_vocab_name(s->v[i]), models_vocab_name(takes))) continue;
        models_vocab_unref(takes);
        return false;
    }
    s->v[s->n++] = takes;
    return true;
}

static void load_one(struct shelf *s, const char *dir, const char *file, models_report_fn *report,
                     void *ctx)
{
    char path[PATH_MAX];
    struct why why = { "" };
    struct models_vocab *v = NULL;
    if (!models_is_source(dir, file)) return;
    enum err e = join_path(dir, file, path) ? models_vocab_open(path, &v, &why) : ERR_LIMIT;
    if (e == ERR_OK && v->problem.text[0] != '\0') why = v->problem;
    if (e == ERR_OK && !shelf_add(s, v))
        (void)why_set(&why, ERR_EXISTS, "a vocabulary of this name is loaded already");
    else if (e != ERR_OK && why.text[0] == '\0')
        (void)why_set(&why, e, "%s", err_name(e));
    if (why.text[0] != '\0' && report != NULL) report(ctx, file, why.text);
}

static enum err load_shelf(struct shelf *s, const char *dir, models_report_fn *report, void *ctx,
                           struct why *why)
{
    struct dirent **files;
    int n = scandir(dir, &files, NULL, alphasort);
    if (n < 0) {
        if (errno == ENOMEM) return why_set(why, ERR_NOMEM, "out of memory");
        return why_set(why, errno == ENOENT ? ERR_NOT_FOUND : ERR_IO,
                       "the vocabulary folder %s cannot be read", dir);
    }
    s->v = calloc((size_t)n + 1, sizeof *s->v);
    for (int i = 0; i < n; i++) {
        if (s->v != NULL) load_one(s, dir, files[i]->d_name, report, ctx);
        free(files[i]);
    }
    free(files);
    if (s->v == NULL) return why_set(why, ERR_NOMEM, "out of memory for vocabularies");
    qsort(s->v, s->n, sizeof *s->v, by_name);
    return ERR_OK;
}

/* A registry over the shelf, whose reference it takes on success. */
static enum err make(struct shelf *shelf, const struct models_entry *entries, size_t n,
                     struct models **ret)
{
    size_t bytes = 1;
    for (size_t i = 0; i < n; i++) bytes += entries[i].pattern.n + entries[i].vocabulary.n;
    struct models *m = calloc(1, sizeof *m);
    struct models_entry *copy = calloc(n + 1, sizeof *copy);
    char *text = malloc(bytes), *w = text;
    if (m == NULL || copy == NULL || text == NULL) {
        free(m);
        free(copy);
        free(text);
        return ERR_NOMEM;
    }
    for (size_t i = 0; i < n; i++) {
        const struct str from[2] = { entries[i].pattern, entries[i].vocabulary };
        struct str *to[2] = { &copy[i].pattern, &copy[i].vocabulary };
        for (int k = 0; k < 2; k++) {
            if (from[k].n > 0) memcpy(w, from[k].p, from[k].n);
            *to[k] = str_n(w, from[k].n);
            w += from[k].n;
        }
    }
    m->shelf = shelf;
    m->entries = copy;
    m->entries_n = n;
    m->text = text;
    m->refs = 1;
    *ret = m;
    return ERR_OK;
}

enum err models_load(const char *dir, const struct models_entry *entries, size_t n,
                     models_report_fn *report, void *report_ctx, struct models **ret,
                     struct why *why)
{
    struct shelf *s = calloc(1, sizeof *s);
    if (s == NULL) return why_set(why, ERR_NOMEM, "out of memory");
    s->refs = 1;
    buf_init(&s->image_rules, IMAGE_RULES_MAX);
    enum err e = ERR_OK;
    if (dir != NULL && dir[0] != '\0') e = load_shelf(s, dir, report, report_ctx, why);
    if (e == ERR_OK) e = make(s, entries, n, ret);
    if (e != ERR_OK) shelf_unref(s);
    if (e != ERR_OK || dir == NULL) return e;
    struct why problem = { "" };
    if (models_read_image_rules(*ret, dir, &problem) != ERR_OK && report != NULL)
        report(report_ctx, "images.rules", problem.text);
    return ERR_OK;
}

enum err models_new(struct models_vocab *const *vocabs, size_t n, struct models **ret)
{
    struct shelf *s = calloc(1, sizeof *s);
    struct models_vocab **v = calloc(n + 1, sizeof *v);
    if (s == NULL || v == NULL) {
        free(s);
        free(v);
        return ERR_NOMEM;
    }
    *s = (struct shelf){ .v = v, .refs = 1 };
    buf_init(&s->image_rules, IMAGE_RULES_MAX);
    for (size_t i = 0; i < n; i++) (void)shelf_add(s, models_vocab_ref(vocabs[i]));
    qsort(s->v, s->n, sizeof *s->v, by_name);
    enum err e = make(s, NULL, 0, ret);
    if (e != ERR_OK) shelf_unref(s);
    return e;
}

enum err models_with_entries(const struct models *m, const struct models_entry *entries, size_t n,
                             struct models **ret)
{
    enum err e = make(m->shelf, entries, n, ret);
    if (e == ERR_OK) atomic_fetch_add(&m->shelf->refs, 1);
    return e;
}

struct models *models_ref(struct models *m)
{
    atomic_fetch_add(&m->refs, 1);
    return m;
}

void models_unref(struct models *m)
{
    if (m == NULL || atomic_fetch_sub(&m->refs, 1) != 1) return;
    shelf_unref(m->shelf);
    free(m->entries);
    free(m->text);
    free(m);
}

static const struct models_vocab *find_vocab(const struct models *m, struct str vocabulary)
{
    size_t lo = 0, hi = m->shelf->n;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        int c = str_cmp(vocab_name(m->shelf->v[mid]->vocab), vocabulary);
        if (c == 0) return m->shelf->v[mid];
        if (c < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    return NULL;
}

static void fill(const struct models_vocab *f, enum models_fit fit, struct model_info *ret)
{
    *ret = (struct model_info){ .vocab = f->vocab,
                                .chat = f->chat,
                                .vocabulary = vocab_name(f->vocab),
                                .openai = f->openai,
                                .sibling = fit != FIT_OWN,
                                .guess = fit == FIT_GUESS };
}

/* Known, but not to be counted: its vocabulary (which may be none) is not here. */
static void fill_missing(struct str vocabulary, struct model_info *ret)
{
    *ret = (struct model_info){ .vocabulary = vocabulary, .not_installed = vocabulary.n > 0 };
}

static bool by_entries(const struct models *m, struct str name, struct model_info *ret)
{
    for (size_t i = 0; i < m->entries_n; i++) {
        if (m->entries[i].vocabulary.n == 0 || !models_match(m->entries[i].pattern, name)) continue;
        const struct models_vocab *f = find_vocab(m, m->entries[i].vocabulary);
        if (f != NULL)
            fill(f, FIT_OWN, ret);
        else
            fill_missing(m->entries[i].vocabulary, ret);
        return true;
    }
    return false;
}

static bool by_vocabulary(const struct models *m, struct str name, struct model_info *ret)
{
    for (size_t i = 0; i < m->shelf->n; i++) {
        if (!str_ieq(vocab_name(m->shelf->v[i]->vocab), name)) continue;
        fill(m->shelf->v[i], FIT_OWN, ret);
        return true;
    }
    return false;
}

static bool by_patterns(const struct models *m, struct str name, struct model_info *ret)
{
    bool found = false;
    const struct models_pattern *p;
    for (size_t i = 0; (p = models_pattern(i)) != NULL; i++) {
        if (!models_match(str_of(p->pattern), name)) continue;
        if (p->vocabulary == NULL) break;
        const struct models_vocab *f = find_vocab(m, str_of(p->vocabulary));
        if (f != NULL) {
            fill(f, p->fit, ret);
            return true;
        }
        if (!found) fill_missing(str_of(p->vocabulary), ret);
        found = true;
    }
    return found;
}

static bool find(const struct models *m, struct str model, struct str last, struct model_info *ret)
{
    bool two = last.p != model.p;
    return by_entries(m, model, ret) || (two && by_entries(m, last, ret)) ||
           by_vocabulary(m, model, ret) || (two && by_vocabulary(m, last, ret)) ||
           by_patterns(m, last, ret); /* they know no '/' */
}

void models_find(const struct models *m, struct str model, struct model_info *ret)
{
    struct str last = model;
    for (size_t i = model.n; i > 0; i--) {
        if (model.p[i - 1] != '/') continue;
        last = str_n(model.p + i, model.n - i);
        break;
    }
    if (str_starts(last, STR("ft:")))
        last = str_n(last.p + 3, last.n - 3); /* OpenAI's tuned ones */
    *ret = (struct model_info){ .vocabulary = STR("") };
    if (!find(m, model, last, ret)) *ret = (struct model_info){ .vocabulary = STR("") };
    struct str own = buf_str(&m->shelf->image_rules);
    ret->image_rule = image_rules_find(own.n > 0 ? own : image_rules_builtin(), last);
}

enum err models_read_image_rules(struct models *m, const char *dir, struct why *why)
{
    char path[PATH_MAX];
    struct buf text;
    if (!join_path(dir, "images.rules", path)) return ERR_OK;
    buf_init(&text, IMAGE_RULES_MAX);
    enum err e = file_read(path, &text);
    if (e == ERR_NOT_FOUND) return ERR_OK;
    if (e == ERR_OK)
        e = image_rules_check(buf_str(&text), why);
    else
        why_set(why, e, "images.rules cannot be read");
    if (e != ERR_OK) {
        buf_done(&text);
        return e;
    }
    buf_done(&m->shelf->image_rules);
    m->shelf->image_rules = text;
    return ERR_OK;
}

size_t models_count(const struct models *m)
{
    return m->shelf->n;
}

void models_at(const struct models *m, size_t i, struct model_info *ret)
{
    ASSERT(i < m->shelf->n);
    fill(m->shelf->v[i], FIT_OWN, ret);
}
