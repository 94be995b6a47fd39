/* SPDX-License-Identifier: Apache-2.0 */
/* Prints, and copies that appear whole or not at all: written beside and renamed. */
#include "config/library_copy.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/hash.h"
#include "base/str.h"
#include "tokenizer/models/vocab.h"

enum { CHUNK = 1 << 20, STALE_TEMP_S = 60 };

/* --- prints --- */

static void mix(struct library_print *p, const void *data, size_t n)
{
    const uint64_t a[2] = { p->a, 1 }, b[2] = { p->b, 2 };
    p->a = hash_sip(data, n, a);
    p->b = hash_sip(data, n, b);
}

static void mix_stat(struct library_print *p, const struct stat *st)
{
    const uint64_t v[] = { (uint64_t)st->st_dev, (uint64_t)st->st_ino, (uint64_t)st->st_size,
                           (uint64_t)st->st_mtim.tv_sec, (uint64_t)st->st_mtim.tv_nsec };
    mix(p, v, sizeof v);
}

/* Of what a model's folder holds: the files a vocabulary is made of, not its weights. */
static int is_model_file(const struct dirent *d)
{
    struct str s = str_of(d->d_name);
    return d->d_name[0] != '.' && (str_ends(s, STR(".json")) || str_ends(s, STR(".jinja")) ||
                                   str_ends(s, STR(".tiktoken")) || str_ends(s, STR(".model")));
}

struct library_print library_print_of(const char *path)
{
    struct library_print p = { 0, 0 };
    struct stat st;
    struct dirent **files;
    if (stat(path, &st) != 0) return p;
    p = (struct library_print){ 1, 1 };
    if (!S_ISDIR(st.st_mode)) {
        mix_stat(&p, &st);
        return p;
    }
    int n = scandir(path, &files, is_model_file, alphasort);
    if (n < 0) return p;
    for (int i = 0; i < n; i++) {
        char file[PATH_MAX];
        int len = snprintf(file, sizeof file, "%s/%s", path, files[i]->d_name);
        if (len > 0 && (size_t)len < sizeof file && stat(file, &st) == 0 && S_ISREG(st.st_mode)) {
            mix(&p, files[i]->d_name, strlen(files[i]->d_name));
            mix_stat(&p, &st);
        }
        free(files[i]);
    }
    free(files);
    return p;
}

void library_copy_name(struct library_print print, char out[LIBRARY_KEY_LEN + 16])
{
    (void)snprintf(out, LIBRARY_KEY_LEN + 16, "%016llx%016llx" VOCAB_SUFFIX,
                   (unsigned long long)print.a, (unsigned long long)print.b);
}

/* --- copies --- */

void library_strip_path(struct why *why, const char *path)
{
    size_t n = strlen(path);
    if (strncmp(why->text, path, n) == 0 && strncmp(why->text + n, ": ", 2) == 0)
        memmove(why->text, why->text + n + 2, strlen(why->text + n + 2) + 1);
}

static bool usable(const char *path)
{
    return (mkdir(path, 0755) == 0 || errno == EEXIST) && access(path, W_OK | X_OK) == 0;
}

void library_copy_folder(const char *dir, const char *state_dir, char out[PATH_MAX])
{
    int n = snprintf(out, PATH_MAX, "%s/.mapped", dir);
    if (n > 0 && n < PATH_MAX && usable(out)) return;
    n = state_dir != NULL ? snprintf(out, PATH_MAX, "%s/vocab", state_dir) : -1;
    if (n > 0 && n < PATH_MAX && usable(out)) return;
    out[0] = '\0';
}

static enum err copy_bytes(int in, int out)
{
    if (ioctl(out, FICLONE, in) == 0) return ERR_OK;
    for (;;) {
        ssize_t n = copy_file_range(in, NULL, out, NULL, CHUNK, 0);
        if (n == 0) return ERR_OK;
        if (n > 0 || errno == EINTR) continue;
        if (errno != EXDEV && errno != EINVAL && errno != EOPNOTSUPP && errno != ENOSYS)
            return ERR_IO;
        break;
    }
    char *room = malloc(CHUNK);
    enum err e = room != NULL ? ERR_OK : ERR_NOMEM;
    ssize_t n;
    while (e == ERR_OK && (n = read(in, room, CHUNK)) != 0) {
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) e = ERR_IO;
        for (ssize_t at = 0; e == ERR_OK && at < n;) {
            ssize_t w = write(out, room + at, (size_t)(n - at));
            if (w > 0)
                at += w;
            else if (w == 0 || errno != EINTR)
                e = ERR_IO;
        }
    }
    free(room);
    return e;
}

/* Opening a vocabulary reads samples of it; a copy is read whole once, so that no damage of its
 * source is ever mapped. */
static enum err check_copy(const char *path, struct why *why)
{
    struct vocab *v = NULL;
    enum err e = vocab_open(path, &v, why);
    if (e == ERR_OK) e = vocab_verify(v, why);
    if (e != ERR_OK && why != NULL) library_strip_path(why, path);
    vocab_unref(v);
    return e;
}

enum err library_copy_make(const char *folder, const char *from, struct library_print print,
                           struct why *why)
{
    char name[LIBRARY_KEY_LEN + 16], path[PATH_MAX], temp[PATH_MAX];
    library_copy_name(print, name);
    int n = snprintf(path, sizeof path, "%s/%s", folder, name);
    int m = snprintf(temp, sizeof temp, "%s/%s.%d", folder, name, (int)getpid());
    if (n < 0 || (size_t)n >= sizeof path || m < 0 || (size_t)m >= sizeof temp)
        return why_set(why, ERR_LIMIT, "the path is too long");
    if (access(path, R_OK) == 0) return ERR_OK;
    int in = open(from, O_RDONLY | O_CLOEXEC);
    if (in < 0) return why_set(why, ERR_IO, "cannot be read: %s", strerror(errno));
    int out = open(temp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    enum err e = out >= 0 ? copy_bytes(in, out) : ERR_IO;
    if (e != ERR_OK) (void)why_set(why, e, "cannot be copied to %s: %s", folder, strerror(errno));
    close(in);
    if (out >= 0) close(out);
    struct library_print after = library_print_of(from);
    if (e == ERR_OK && (after.a != print.a || after.b != print.b))
        e = why_set(why, ERR_AGAIN, "it has changed while it was copied");
    if (e == ERR_OK) e = check_copy(temp, why);
    if (e == ERR_OK && rename(temp, path) != 0)
        e = why_set(why, ERR_IO, "cannot be copied to %s: %s", folder, strerror(errno));
    if (e != ERR_OK) (void)unlink(temp);
    return e;
}

void library_copy_sweep(const char *folder, bool (*keep)(void *ctx, const char *name), void *ctx)
{
    DIR *d = folder[0] != '\0' ? opendir(folder) : NULL;
    struct dirent *f;
    struct stat st;
    if (d == NULL) return;
    while ((f = readdir(d)) != NULL) {
        bool temp = !str_ends(str_of(f->d_name), STR(VOCAB_SUFFIX));
        if (f->d_name[0] == '.' || (!temp && keep(ctx, f->d_name))) continue;
        /* Somebody may be writing it. */
        if (fstatat(dirfd(d), f->d_name, &st, 0) != 0 || !S_ISREG(st.st_mode)) continue;
        if (temp && time(NULL) - st.st_mtime < STALE_TEMP_S) continue;
        (void)unlinkat(dirfd(d), f->d_name, 0);
    }
    closedir(d);
}
