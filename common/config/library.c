/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The library's thread: woken by inotify, by the end of a settling time, or by the next look, it
 * compares the folder with what it has and loads what changed. `lock` guards what other threads
 * read: the registry and the list of problems.
 *
 *      seen, changing ──settle_ms the same──▶ load ──good──▶ in use
 *                                              └──bad───▶ reported; the one before stays
 */
#include "config/library.h"

#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "config/library_copy.h"

#define IMAGE_RULES "images.rules"

enum { SETTLE_MS = 300, SCAN_MS = 5000, REST_MS = 50 };

static const uint32_t EVENTS = IN_CLOSE_WRITE | IN_MODIFY | IN_CREATE | IN_DELETE | IN_MOVED_TO |
                               IN_MOVED_FROM | IN_DELETE_SELF | IN_MOVE_SELF;

/* A member of the folder that is a vocabulary, or should be one. */
struct entry {
    char *file;
    struct library_print seen, tried; /* at the latest look; when it was loaded or failed last */
    uint64_t seen_ms;                 /* since when it has looked like that */
    bool there, gone;                 /* in this look; gone: since seen_ms */
    struct models_vocab *vocab;       /* in use, or NULL */
    char copy[LIBRARY_KEY_LEN + 16];  /* of what is in use; "": mapped where it lies */
    struct why problem;
    bool double_name; /* the name in it is another's */
};

struct library {
    struct library_options o;
    char *dir;
    char copies[PATH_MAX]; /* "": none can be made */
    pthread_t thread;
    bool started;
    int inotify, wake;

    pthread_mutex_t lock;
    struct models *models;
    struct library_problem *problems; /* strings owned */
    size_t problems_n;

    /* The thread's own. */
    struct entry **entries; /* in the order of their names */
    size_t entries_n, entries_cap;
    struct library_print rules_seen, rules_taken; /* of IMAGE_RULES */
    uint64_t rules_ms;
    struct why rules_problem;
    bool first;
};

static void report(struct library *l, int level, const char *what, const char *file,
                   const char *why)
{
    if (l->o.report != NULL) l->o.report(l->o.ctx, level, what, file, why);
}

static bool same_print(struct library_print a, struct library_print b)
{
    return a.a == b.a && a.b == b.b;
}

static bool path_of(const struct library *l, const char *file, char out[PATH_MAX])
{
    int n = snprintf(out, PATH_MAX, "%s/%s", l->dir, file);
    return n > 0 && n < PATH_MAX;
}

/* --- one vocabulary --- */

static enum err open_vocab(struct library *l, const struct entry *e, bool file,
                           char copy[LIBRARY_KEY_LEN + 16], struct models_vocab **ret,
                           struct why *why)
{
    char path[PATH_MAX], mapped[PATH_MAX];
    copy[0] = '\0';
    if (!path_of(l, e->file, path)) return why_set(why, ERR_LIMIT, "the path is too long");
    if (!file || l->copies[0] == '\0') {
        enum err err = models_vocab_open(path, ret, why);
        if (err != ERR_OK) library_strip_path(why, path);
        return err;
    }
    enum err err = library_copy_make(l->copies, path, e->seen, why);
    if (err != ERR_OK) return err;
    library_copy_name(e->seen, copy);
    int n = snprintf(mapped, sizeof mapped, "%s/%s", l->copies, copy);
    if (n < 0 || (size_t)n >= sizeof mapped) return why_set(why, ERR_LIMIT, "the path is too long");
    err = models_vocab_open(mapped, ret, why);
    if (err != ERR_OK) {
        library_strip_path(why, mapped);
        (void)unlink(mapped); /* of no use to anybody */
    }
    return err;
}

/* Loads what has settled. True: what is in use has changed. */
static bool load(struct library *l, struct entry *e)
{
    char path[PATH_MAX], copy[LIBRARY_KEY_LEN + 16];
    struct models_vocab *v = NULL;
    struct stat st;
    struct why why = { "" };
    bool file = path_of(l, e->file, path) && stat(path, &st) == 0 && S_ISREG(st.st_mode);
    enum err err = open_vocab(l, e, file, copy, &v, &why);
    if (err == ERR_AGAIN || err == ERR_NOT_FOUND) return false; /* the next look sees more */
    e->tried = e->seen;
    if (err != ERR_OK) {
        if (why.text[0] == '\0') (void)why_set(&why, err, "%s", err_name(err));
        e->problem = why;
        report(l, LOG_WARN,
               e->vocab != NULL ? "a vocabulary cannot be used, the one before it stays"
                                : "a vocabulary cannot be used",
               e->file, why.text);
        return false;
    }
    (void)why_set(&e->problem, ERR_OK, "%s", models_vocab_problem(v));
    if (e->problem.text[0] != '\0')
        report(l, LOG_WARN, "a vocabulary comes without its chat template", e->file,
               e->problem.text);
    if (!l->first) report(l, LOG_INFO, "a vocabulary was loaded", e->file, NULL);
    models_vocab_unref(e->vocab);
    e->vocab = v;
    (void)str_copyz(e->copy, sizeof e->copy, str_of(copy));
    return true;
}

/* --- the folder --- */

static struct entry *find_entry(struct library *l, const char *file)
{
    for (size_t i = 0; i < l->entries_n; i++)
        if (strcmp(l->entries[i]->file, file) == 0) return l->entries[i];
    return NULL;
}

static void free_entry(struct entry *e)
{
    models_vocab_unref(e->vocab);
    free(e->file);
    free(e);
}

static void note_file(struct library *l, const char *file, uint64_t now)
{
    char path[PATH_MAX];
    if (!path_of(l, file, path)) return;
    struct library_print print = library_print_of(path);
    struct entry *e = find_entry(l, file);
    if (print.a == 0 && print.b == 0) return;
    if (e == NULL) {
        if (l->entries_n == l->entries_cap) {
            l->entries_cap = l->entries_cap * 2 + 16;
            l->entries = xrealloc(l->entries, l->entries_cap * sizeof(struct entry *));
        }
        e = xcalloc(1, sizeof *e);
        e->file = xstrdup(file);
        size_t at = l->entries_n++;
        for (; at > 0 && strcmp(l->entries[at - 1]->file, file) > 0; at--)
            l->entries[at] = l->entries[at - 1];
        l->entries[at] = e;
    }
    e->there = true;
    e->gone = false;
    if (same_print(e->seen, print)) return;
    e->seen = print;
    e->seen_ms = now;
}

static void note_rules(struct library *l, uint64_t now)
{
    char path[PATH_MAX];
    if (!path_of(l, IMAGE_RULES, path)) return;
    struct library_print print = library_print_of(path);
    if (same_print(l->rules_seen, print)) return;
    l->rules_seen = print;
    l->rules_ms = now;
}

/* What is there now; and watches for what will be. */
static void look(struct library *l, uint64_t now)
{
    char path[PATH_MAX];
    struct stat st;
    for (size_t i = 0; i < l->entries_n; i++) l->entries[i]->there = false;
    DIR *d = l->dir[0] != '\0' ? opendir(l->dir) : NULL;
    note_rules(l, now);
    if (d == NULL) return;
    if (l->copies[0] == '\0') library_copy_folder(l->dir, l->o.state_dir, l->copies);
    if (l->inotify >= 0) (void)inotify_add_watch(l->inotify, l->dir, EVENTS);
    for (struct dirent *f; (f = readdir(d)) != NULL;) {
        if (f->d_name[0] == '.' || !path_of(l, f->d_name, path)) continue;
        if (l->inotify >= 0 && stat(path, &st) == 0 && S_ISDIR(st.st_mode))
            (void)inotify_add_watch(l->inotify, path, EVENTS);
        if (models_is_source(l->dir, f->d_name)) note_file(l, f->d_name, now);
    }
    closedir(d);
}

/* Takes what has settled and drops what is gone. *ret_wait_ms: until something else has settled, or
 * what it was. True: what is in use has changed. */
static bool settle(struct library *l, uint64_t now, int *ret_wait_ms)
{
    bool changed = false;
    size_t kept = 0;
    for (size_t i = 0; i < l->entries_n; i++) {
        struct entry *e = l->entries[i];
        bool due = !e->there || !same_print(e->seen, e->tried);
        if (!e->there && !e->gone) {
            e->gone = true;
            e->seen_ms = now;
            e->seen = (struct library_print){ 0, 0 };
        }
        uint64_t at = e->seen_ms + (uint64_t)l->o.settle_ms;
        if (due && now < at && !l->first) {
            *ret_wait_ms = MIN(*ret_wait_ms, (int)(at - now) + 1);
        } else if (due && !e->there) {
            if (e->vocab != NULL) {
                report(l, LOG_INFO, "a vocabulary was removed", e->file, NULL);
                changed = true;
            }
            free_entry(e);
            continue;
        } else if (due) {
            changed = load(l, e) || changed;
        }
        l->entries[kept++] = e;
    }
    l->entries_n = kept;
    if (same_print(l->rules_seen, l->rules_taken)) return changed;
    uint64_t at = l->rules_ms + (uint64_t)l->o.settle_ms;
    if (now < at && !l->first) {
        *ret_wait_ms = MIN(*ret_wait_ms, (int)(at - now) + 1);
        return changed;
    }
    l->rules_taken = l->rules_seen;
    return true;
}

/* --- what others see --- */

static void free_problems(struct library_problem *p, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        free((void *)(uintptr_t)p[i].file);
        free((void *)(uintptr_t)p[i].reason);
    }
    free(p);
}

static void publish_problems(struct library *l)
{
    struct library_problem *list = xcalloc(l->entries_n + 2, sizeof *list), *old;
    size_t n = 0, old_n;
    if (l->rules_problem.text[0] != '\0')
        list[n++] = (struct library_problem){ xstrdup(IMAGE_RULES), xstrdup(l->rules_problem.text),
                                              LIBRARY_NOT };
    for (size_t i = 0; i < l->entries_n; i++) {
        const struct entry *e = l->entries[i];
        if (e->problem.text[0] == '\0' && !e->double_name) continue;
        enum library_served served = e->vocab == NULL || e->double_name ? LIBRARY_NOT
                                     : models_vocab_problem(e->vocab)[0] != '\0' &&
                                             strcmp(models_vocab_problem(e->vocab),
                                                    e->problem.text) == 0
                                         ? LIBRARY_NO_TEMPLATE
                                         : LIBRARY_BEFORE;
        list[n++] = (struct library_problem){
            xstrdup(e->file),
            xstrdup(e->double_name ? "a vocabulary of this name is loaded already"
                                   : e->problem.text),
            served,
        };
    }
    pthread_mutex_lock(&l->lock);
    old = l->problems, old_n = l->problems_n;
    l->problems = list, l->problems_n = n;
    pthread_mutex_unlock(&l->lock);
    free_problems(old, old_n);
}

/* The registry of what is loaded now. Of two with the same name the first in the order of the files
 * is taken. */
static enum err publish_models(struct library *l)
{
    struct models_vocab **v = xcalloc(l->entries_n + 1, sizeof *v);
    struct models *models = NULL;
    size_t n = 0;
    for (size_t i = 0; i < l->entries_n; i++) {
        struct entry *e = l->entries[i];
        bool twice = false;
        for (size_t k = 0; e->vocab != NULL && k < n; k++)
            twice = twice || str_eq(models_vocab_name(v[k]), models_vocab_name(e->vocab));
        if (twice && !e->double_name)
            report(l, LOG_WARN, "a vocabulary cannot be used", e->file,
                   "a vocabulary of this name is loaded already");
        e->double_name = twice;
        if (e->vocab != NULL && !twice) v[n++] = e->vocab;
    }
    enum err e = models_new(v, n, &models);
    free(v);
    if (e != ERR_OK) return e;
    l->rules_problem.text[0] = '\0';
    if (l->dir[0] != '\0' && models_read_image_rules(models, l->dir, &l->rules_problem) != ERR_OK)
        report(l, LOG_WARN, "rules for images cannot be used, those built in are", IMAGE_RULES,
               l->rules_problem.text);
    else
        l->rules_problem.text[0] = '\0';
    pthread_mutex_lock(&l->lock);
    struct models *old = l->models;
    l->models = models;
    pthread_mutex_unlock(&l->lock);
    models_unref(old);
    return ERR_OK;
}

static bool is_used(void *ctx, const char *name)
{
    const struct library *l = ctx;
    char wanted[LIBRARY_KEY_LEN + 16];
    for (size_t i = 0; i < l->entries_n; i++) {
        library_copy_name(l->entries[i]->seen, wanted);
        if (strcmp(l->entries[i]->copy, name) == 0 || strcmp(wanted, name) == 0) return true;
    }
    return false;
}

/* Looks, and takes what there is to take. Returns how long to wait until the next time. */
static int round_trip(struct library *l)
{
    int wait_ms = l->o.scan_ms;
    look(l, clock_mono_ms(l->o.clock));
    bool changed = settle(l, clock_mono_ms(l->o.clock), &wait_ms);
    if (changed && publish_models(l) != ERR_OK) {
        report(l, LOG_ERROR, "vocabularies cannot be taken up", l->dir, "out of memory");
        changed = false;
    }
    publish_problems(l);
    if (changed) {
        library_copy_sweep(l->copies, is_used, l);
        if (!l->first && l->o.changed != NULL) {
            struct models *m = library_models(l);
            l->o.changed(l->o.ctx, m);
            models_unref(m);
        }
    }
    return wait_ms;
}

/* --- the thread --- */

static void drain(int fd)
{
    char room[4096];
    while (read(fd, room, sizeof room) > 0) {
    }
}

static void *run(void *ctx)
{
    struct library *l = ctx;
    for (;;) {
        int wait_ms = round_trip(l);
        struct pollfd p[2] = { { .fd = l->wake, .events = POLLIN },
                               { .fd = l->inotify, .events = POLLIN } };
        (void)poll(p, 2, wait_ms);
        if (p[0].revents != 0) break;
        if (p[1].revents == 0) continue;
        /* Events come in swarms: one look for many. */
        (void)poll(p, 1, REST_MS);
        if (p[0].revents != 0) break;
        drain(l->inotify);
    }
    return NULL;
}

enum err library_new(const struct library_options *o, struct library **ret, struct why *why)
{
    struct library *l = xcalloc(1, sizeof *l);
    l->o = *o;
    if (l->o.settle_ms == 0) l->o.settle_ms = SETTLE_MS;
    if (l->o.scan_ms == 0) l->o.scan_ms = SCAN_MS;
    l->dir = xstrdup(o->dir != NULL ? o->dir : "");
    l->first = true;
    pthread_mutex_init(&l->lock, NULL);
    l->inotify = inotify_init1(IN_NONBLOCK | IN_CLOEXEC); /* without it we look now and then */
    l->wake = eventfd(0, EFD_CLOEXEC);
    enum err e = l->wake < 0 ? why_set(why, ERR_IO, "eventfd: %s", strerror(errno)) : ERR_OK;
    struct stat st;
    const char *lacks = l->dir[0] == '\0'        ? "VOCAB_DIR is not set"
                        : stat(l->dir, &st) != 0 ? strerror(errno)
                        : !S_ISDIR(st.st_mode)   ? "it is no folder"
                                                 : NULL;
    if (lacks != NULL) report(l, LOG_WARN, "no vocabularies: tokens are estimated", l->dir, lacks);
    if (e == ERR_OK && models_new(NULL, 0, &l->models) != ERR_OK)
        e = why_set(why, ERR_NOMEM, "out of memory for vocabularies");
    if (e == ERR_OK) (void)round_trip(l);
    l->first = false;
    if (e == ERR_OK && pthread_create(&l->thread, NULL, run, l) != 0)
        e = why_set(why, ERR_NOMEM, "cannot start a thread");
    l->started = e == ERR_OK;
    if (e != ERR_OK)
        library_free(l);
    else
        *ret = l;
    return e;
}

void library_end(struct library *l)
{
    const uint64_t one = 1;
    if (l == NULL || !l->started) return;
    while (write(l->wake, &one, sizeof one) < 0 && errno == EINTR) {
    }
    pthread_join(l->thread, NULL);
    l->started = false;
}

void library_free(struct library *l)
{
    if (l == NULL) return;
    library_end(l);
    for (size_t i = 0; i < l->entries_n; i++) free_entry(l->entries[i]);
    free(l->entries);
    free_problems(l->problems, l->problems_n);
    models_unref(l->models);
    if (l->inotify >= 0) close(l->inotify);
    if (l->wake >= 0) close(l->wake);
    pthread_mutex_destroy(&l->lock);
    free(l->dir);
    free(l);
}

struct models *library_models(struct library *l)
{
    pthread_mutex_lock(&l->lock);
    struct models *m = models_ref(l->models);
    pthread_mutex_unlock(&l->lock);
    return m;
}

void library_problems(struct library *l, void (*fn)(void *ctx, const struct library_problem *p),
                      void *ctx)
{
    if (l == NULL) return;
    pthread_mutex_lock(&l->lock);
    for (size_t i = 0; i < l->problems_n; i++) fn(ctx, &l->problems[i]);
    pthread_mutex_unlock(&l->lock);
}
