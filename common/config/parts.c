/* SPDX-License-Identifier: Apache-2.0 */
#include "config/parts.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "proto/envelope.h"
#include "rt/crypto.h"

struct part {
    char *text;
    size_t n;
    unsigned round;
    bool in_use, on_disk;
};

void parts_init(struct parts *p)
{
    *p = (struct parts){ .round = 1 };
    map_init(&p->by_digest, SIZE_MAX / 2);
}

static void part_free(struct part *part)
{
    free(part->text);
    free(part);
}

void parts_done(struct parts *p)
{
    size_t i = 0;
    struct map_entry *e;
    while ((e = map_next(&p->by_digest, &i)) != NULL) part_free(e->value);
    map_done(&p->by_digest);
}

void parts_begin(struct parts *p)
{
    p->round++;
}

struct str parts_get(struct parts *p, const char *digest)
{
    struct part *part = map_get(&p->by_digest, str_of(digest));
    if (part == NULL) return STR_NULL;
    part->round = p->round;
    return str_n(part->text, part->n);
}

static bool has_digest(struct str text, const char *digest)
{
    char hex[SHA256_HEX_LEN + 1];
    crypto_sha256_hex(text, hex);
    return strcmp(hex, digest) == 0;
}

enum err parts_add(struct parts *p, const char *digest, struct str text)
{
    void *old = NULL;
    if (!has_digest(text, digest)) return ERR_INVALID;
    if (parts_get(p, digest).p != NULL) return ERR_OK;
    struct part *part = calloc(1, sizeof(*part));
    if (part == NULL) return ERR_NOMEM;
    part->text = malloc(text.n + 1);
    enum err e = part->text != NULL ? map_put(&p->by_digest, str_of(digest), part, &old)
                                    : ERR_NOMEM;
    if (e != ERR_OK) {
        part_free(part);
        return e;
    }
    if (text.n > 0) memcpy(part->text, text.p, text.n);
    part->n = text.n;
    part->round = p->round;
    return ERR_OK;
}

void parts_keep(struct parts *p)
{
    size_t i = 0;
    struct map_entry *e;
    while ((e = map_next(&p->by_digest, &i)) != NULL) {
        struct part *part = e->value;
        part->in_use = part->round == p->round;
        if (part->in_use) continue;
        (void)map_remove(&p->by_digest, e->key);
        part_free(part);
    }
}

void parts_drop(struct parts *p)
{
    size_t i = 0;
    struct map_entry *e;
    while ((e = map_next(&p->by_digest, &i)) != NULL) {
        struct part *part = e->value;
        if (part->in_use) continue;
        (void)map_remove(&p->by_digest, e->key);
        part_free(part);
    }
}

/* --- files --- */

enum { FILE_NAME_LEN = 80 };

static void file_name(const char *digest, char out[FILE_NAME_LEN])
{
    (void)snprintf(out, FILE_NAME_LEN, "%s.json", digest != NULL ? digest : "manifest");
}

/* Beside, fsync, rename: a reader sees the whole file or none. */
static enum err write_file(int dir, const char *digest, struct str text)
{
    char name[FILE_NAME_LEN];
    file_name(digest, name);
    int fd = openat(dir, "new.tmp", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0) return ERR_IO;
    enum err e = file_write_all(fd, text);
    if (e == ERR_OK && fsync(fd) != 0) e = ERR_IO;
    if (close(fd) != 0 && e == ERR_OK) e = ERR_IO;
    if (e == ERR_OK && renameat(dir, "new.tmp", dir, name) != 0) e = ERR_IO;
    return e;
}

static void remove_strangers(const struct parts *p, int dir)
{
    int again = dup(dir);
    DIR *list = again >= 0 ? fdopendir(again) : NULL;
    struct dirent *entry;
    if (list == NULL) {
        if (again >= 0) close(again);
        return;
    }
    rewinddir(list);
    while ((entry = readdir(list)) != NULL) {
        struct str name = str_of(entry->d_name);
        if (name.n != SHA256_HEX_LEN + 5 || !str_ends(name, STR(".json"))) continue;
        if (map_get(&p->by_digest, str_n(name.p, SHA256_HEX_LEN)) == NULL)
            (void)unlinkat(dir, entry->d_name, 0);
    }
    closedir(list);
}

enum err parts_save(struct parts *p, const char *folder, struct str manifest, struct why *why)
{
    enum err e = ERR_OK;
    size_t i = 0;
    struct map_entry *entry;
    if (mkdir(folder, 0700) != 0 && errno != EEXIST)
        return why_set(why, ERR_IO, "cannot make %s: %s", folder, strerror(errno));
    int dir = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0) return why_set(why, ERR_IO, "cannot open %s: %s", folder, strerror(errno));
    while (e == ERR_OK && (entry = map_next(&p->by_digest, &i)) != NULL) {
        struct part *part = entry->value;
        if (!part->in_use || part->on_disk) continue;
        e = write_file(dir, entry->key.p, str_n(part->text, part->n));
        part->on_disk = e == ERR_OK;
    }
    /* The parts are there for good before a manifest names them. */
    if (e == ERR_OK && fsync(dir) != 0) e = ERR_IO;
    if (e == ERR_OK) e = write_file(dir, NULL, manifest);
    if (e == ERR_OK && fsync(dir) != 0) e = ERR_IO;
    if (e != ERR_OK) (void)why_set(why, e, "cannot write to %s: %s", folder, strerror(errno));
    if (e == ERR_OK) remove_strangers(p, dir);
    close(dir);
    return e;
}

/* digest NULL: the manifest. */
static enum err read_file(const char *folder, const char *digest, struct buf *ret, struct why *why)
{
    char name[FILE_NAME_LEN], *room;
    enum err e = ERR_OK;
    size_t before = ret->len;
    ssize_t n = 1;
    file_name(digest, name);
    int dir = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int fd = dir >= 0 ? openat(dir, name, O_RDONLY | O_CLOEXEC) : -1;
    if (dir >= 0) close(dir);
    if (fd < 0)
        return why_set(why, errno == ENOENT ? ERR_NOT_FOUND : ERR_IO, "%s/%s: %s", folder, name,
                       strerror(errno));
    while (e == ERR_OK && n > 0) {
        e = buf_reserve(ret, MIN(buf_room(ret), 65536), &room);
        if (e == ERR_OK && buf_room(ret) == 0) e = ERR_LIMIT;
        if (e != ERR_OK) break;
        n = read(fd, room, MIN(buf_room(ret), 65536));
        if (n < 0 && errno == EINTR) {
            n = 1;
        } else if (n < 0) {
            e = ERR_IO;
        } else {
            ret->len += (size_t)n;
        }
    }
    close(fd);
    if (e != ERR_OK) {
        ret->len = before;
        return why_set(why, e, "%s/%s: cannot be used (%s)", folder, name, err_name(e));
    }
    return ERR_OK;
}

enum err parts_read_manifest(const char *folder, struct buf *ret, struct why *why)
{
    return read_file(folder, NULL, ret, why);
}

enum err parts_load(struct parts *p, const char *folder, const char *digest, struct why *why)
{
    struct buf text;
    buf_init(&text, PART_MAX_BYTES);
    enum err e = read_file(folder, digest, &text, why);
    if (e == ERR_OK) {
        e = parts_add(p, digest, buf_str(&text));
        if (e == ERR_INVALID)
            (void)why_set(why, e, "%s/%s.json: its digest is not its name", folder, digest);
    }
    buf_done(&text);
    if (e != ERR_OK) return e;
    struct part *part = map_get(&p->by_digest, str_of(digest));
    part->on_disk = true;
    return ERR_OK;
}
