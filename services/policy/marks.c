/* SPDX-License-Identifier: Apache-2.0 */
/* See the header. */
#include "marks.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/hash.h"
#include "base/map.h"
#include "base/uuid.h"

/* Head: "aigw-marks 1 <id>\n". Record, little-endian: length of the name (4), CRC-32C of all behind
 * it (4), begin, end, used (8 each), name. */
#define HEAD_WORD "aigw-marks 1 "
enum {
    HEAD = sizeof HEAD_WORD - 1 + UUID_LEN + 1,
    RECORD = 32,
    NAME_MAX_BYTES = 1024,
    FILE_MAX_BYTES = 1 << 30,
    SLACK = 1 << 20 /* a file may hold so much that is over */
};

struct entry {
    struct mark mark; /* on the disk */
    struct mark next; /* put, not yet flushed */
    bool has_mark, has_next;
};

struct marks {
    char folder[256], id[UUID_LEN + 1];
    const struct clock *clock;
    const struct rng *rng;
    int fd;      /* -1: to be written anew */
    size_t size; /* of the file */
    struct map entries;
    struct buf out; /* records to be flushed */
    uint64_t writes, failures;
};

static void put_le(char *p, uint64_t v, int n)
{
    for (int i = 0; i < n; i++) p[i] = (char)(v >> (8 * i));
}

static uint64_t get_le(const char *p, int n)
{
    uint64_t v = 0;
    for (int i = 0; i < n; i++) v |= (uint64_t)(unsigned char)p[i] << (8 * i);
    return v;
}

static enum err add_record(struct buf *b, struct str name, const struct mark *m)
{
    char *p;
    enum err e = buf_reserve(b, RECORD + name.n, &p);
    if (e != ERR_OK) return e;
    put_le(p, name.n, 4);
    put_le(p + 8, m->begin, 8);
    put_le(p + 16, m->end, 8);
    put_le(p + 24, m->used, 8);
    memcpy(p + RECORD, name.p, name.n);
    put_le(p + 4, hash_crc32c(0, p + 8, RECORD - 8 + name.n), 4);
    b->len += RECORD + name.n;
    return ERR_OK;
}

static enum err entry_of(struct marks *m, struct str name, struct entry **ret)
{
    struct entry *e = map_get(&m->entries, name);
    if (e == NULL) {
        e = calloc(1, sizeof *e);
        if (e == NULL) return ERR_NOMEM;
        enum err err = map_put(&m->entries, name, e, NULL);
        if (err != ERR_OK) {
            free(e);
            return err;
        }
    }
    *ret = e;
    return ERR_OK;
}

/* --- reading --- */

/* How much of the text is whole; what it says goes into the map. */
static enum err take_records(struct marks *m, struct str text, size_t *ret_whole)
{
    size_t at = 0;
    while (text.n - at >= RECORD) {
        const char *p = text.p + at;
        size_t n = get_le(p, 4);
        struct entry *entry;
        if (n > NAME_MAX_BYTES || text.n - at < RECORD + n) break;
        if (get_le(p + 4, 4) != hash_crc32c(0, p + 8, RECORD - 8 + n)) break;
        enum err e = entry_of(m, str_n(p + RECORD, n), &entry);
        if (e != ERR_OK) return e;
        entry->mark = (struct mark){ get_le(p + 8, 8), get_le(p + 16, 8), get_le(p + 24, 8) };
        entry->has_mark = true;
        at += RECORD + n;
    }
    *ret_whole = at;
    return ERR_OK;
}

/* ERR_NOT_FOUND: there is none, or none that was ever finished. */
static enum err load(struct marks *m, const char *path, struct why *why)
{
    struct buf text;
    size_t whole;
    buf_init(&text, FILE_MAX_BYTES);
    enum err e = file_read(path, &text);
    struct str s = buf_str(&text);
    if (e == ERR_OK && !str_starts(s, str_n(HEAD_WORD, sizeof HEAD_WORD - 1)))
        e = str_starts(s, STR("aigw-marks ")) ? ERR_UNSUPPORTED : ERR_NOT_FOUND;
    if (e == ERR_OK && (s.n < HEAD || s.p[HEAD - 1] != '\n')) e = ERR_NOT_FOUND;
    if (e == ERR_OK) {
        (void)str_copyz(m->id, sizeof m->id, str_n(s.p + sizeof HEAD_WORD - 1, UUID_LEN));
        e = uuid_is_valid(str_of(m->id)) ? take_records(m, str_n(s.p + HEAD, s.n - HEAD), &whole)
                                         : ERR_NOT_FOUND;
    }
    buf_done(&text);
    if (e != ERR_OK && e != ERR_NOT_FOUND) return why_set(why, e, "%s: %s", path, err_name(e));
    return e;
}

/* --- writing --- */

static enum err sync_folder(const char *folder)
{
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return ERR_IO;
    enum err e = fsync(fd) == 0 ? ERR_OK : ERR_IO;
    close(fd);
    return e;
}

/* Everything that is not over, into a new file that takes the old one's place at once. */
static enum err write_anew(struct marks *m, struct why *why)
{
    char path[300], fresh[300];
    struct map_entry *it;
    struct buf text;
    uint64_t now_us = clock_wall_ns(m->clock) / 1000, day_us = UINT64_C(86400000000);
    enum err e;
    snprintf(path, sizeof path, "%s/quotas.marks", m->folder);
    snprintf(fresh, sizeof fresh, "%s/quotas.marks.new", m->folder);
    buf_init(&text, FILE_MAX_BYTES);
    e = buf_printf(&text, HEAD_WORD "%s\n", m->id);
    for (size_t i = 0; e == ERR_OK && (it = map_next(&m->entries, &i)) != NULL;) {
        struct entry *entry = it->value;
        const struct mark *mark = entry->has_next ? &entry->next : &entry->mark;
        if (mark->end + day_us < now_us) { /* a day late, should the clock be set back */
            free(map_remove(&m->entries, it->key));
            continue;
        }
        if (entry->has_next || entry->has_mark) e = add_record(&text, it->key, mark);
    }
    int fd = e == ERR_OK ? open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600) : -1;
    if (e == ERR_OK && fd < 0) e = ERR_IO;
    if (e == ERR_OK) e = file_write_all(fd, buf_str(&text));
    if (e == ERR_OK && fdatasync(fd) != 0) e = ERR_IO;
    if (e == ERR_OK && rename(fresh, path) != 0) e = ERR_IO;
    if (e == ERR_OK) e = sync_folder(m->folder);
    if (e == ERR_OK) {
        if (m->fd >= 0) close(m->fd);
        m->fd = fd;
        m->size = text.len;
    } else {
        if (fd >= 0) close(fd);
        e = why_set(why, e, "%s: %s", fresh, strerror(errno));
    }
    buf_done(&text);
    return e;
}

/* --- the object --- */

enum err marks_open(const char *folder, size_t most, const struct clock *clock,
                    const struct rng *rng, struct marks **ret, struct why *why)
{
    char path[300];
    struct marks *m = calloc(1, sizeof *m);
    if (m == NULL) return ERR_NOMEM;
    m->clock = clock;
    m->rng = rng;
    m->fd = -1;
    map_init(&m->entries, most);
    buf_init(&m->out, 64 * 1024 * 1024);
    enum err e = str_copyz(m->folder, sizeof m->folder, str_of(folder)) ? ERR_OK : ERR_LIMIT;
    snprintf(path, sizeof path, "%s/quotas.marks", m->folder);
    if (e == ERR_OK) e = load(m, path, why);
    if (e == ERR_NOT_FOUND) {
        uuid_v7(clock, rng, m->id);
        e = ERR_OK;
    }
    if (e == ERR_OK) e = write_anew(m, why);
    if (e == ERR_OK)
        *ret = m;
    else
        marks_free(m);
    return e;
}

static void drop_all(struct marks *m)
{
    struct map_entry *it;
    size_t most = m->entries.max;
    for (size_t i = 0; (it = map_next(&m->entries, &i)) != NULL;) free(it->value);
    map_done(&m->entries);
    map_init(&m->entries, most);
}

void marks_free(struct marks *m)
{
    if (m == NULL) return;
    if (m->fd >= 0) close(m->fd);
    drop_all(m);
    map_done(&m->entries);
    buf_done(&m->out);
    free(m);
}

const char *marks_id(const struct marks *m)
{
    return m->id;
}

const struct mark *marks_get(const struct marks *m, struct str name)
{
    const struct entry *e = map_get(&m->entries, name);
    return e != NULL && e->has_mark ? &e->mark : NULL;
}

bool marks_next(const struct marks *m, size_t *i, struct str *ret_name)
{
    struct map_entry *it;
    while ((it = map_next(&m->entries, i)) != NULL) {
        const struct entry *e = it->value;
        if (!e->has_mark) continue;
        *ret_name = it->key;
        return true;
    }
    return false;
}

bool marks_cover(const struct marks *m, struct str name, const struct mark *needed)
{
    const struct mark *on_disk = marks_get(m, name);
    return on_disk != NULL && on_disk->begin == needed->begin && on_disk->end == needed->end &&
           on_disk->used >= needed->used;
}

enum err marks_put(struct marks *m, struct str name, const struct mark *mark)
{
    struct entry *entry;
    if (name.n > NAME_MAX_BYTES) return ERR_LIMIT;
    enum err e = entry_of(m, name, &entry);
    if (e == ERR_OK) e = add_record(&m->out, name, mark);
    if (e != ERR_OK) return e;
    entry->next = *mark;
    entry->has_next = true;
    return ERR_OK;
}

/* What was put counts from now on, or never did. */
static void settle(struct marks *m, bool good)
{
    size_t at = 0;
    while (at < m->out.len) {
        const char *p = m->out.data + at;
        size_t n = get_le(p, 4);
        struct entry *entry = map_get(&m->entries, str_n(p + RECORD, n));
        if (entry != NULL && entry->has_next && good) {
            entry->mark = entry->next;
            entry->has_mark = true;
        }
        if (entry != NULL) entry->has_next = false;
        if (entry != NULL && !entry->has_mark) free(map_remove(&m->entries, str_n(p + RECORD, n)));
        at += RECORD + n;
    }
    buf_clear(&m->out);
}

enum err marks_flush(struct marks *m, struct why *why)
{
    enum err e = ERR_OK;
    size_t live = HEAD + m->entries.len * (RECORD + 128);
    if (m->out.len == 0) return ERR_OK;
    if (m->fd < 0 || m->size + m->out.len > SLACK + 4 * live) {
        e = write_anew(m, why);
    } else {
        e = file_write_all(m->fd, buf_str(&m->out));
        if (e == ERR_OK && fdatasync(m->fd) != 0) e = ERR_IO;
        if (e != ERR_OK) e = why_set(why, e, "%s/quotas.marks: %s", m->folder, strerror(errno));
        m->size += m->out.len;
    }
    if (e != ERR_OK && m->fd >= 0) { /* what stands in it now nobody knows */
        close(m->fd);
        m->fd = -1;
    }
    *(e == ERR_OK ? &m->writes : &m->failures) += 1;
    settle(m, e == ERR_OK);
    return e;
}

enum err marks_forget_all(struct marks *m, struct why *why)
{
    buf_clear(&m->out);
    drop_all(m);
    uuid_v7(m->clock, m->rng, m->id);
    return write_anew(m, why);
}

void marks_stats(const struct marks *m, struct marks_stats *ret)
{
    *ret = (struct marks_stats){ m->writes, m->failures, m->entries.len, m->size };
}
