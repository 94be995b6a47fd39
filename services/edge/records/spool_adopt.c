/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Taking over what dead edges left: see spool.h. A directory whose lock can be had has no living
 * owner. Its segments stay where they are; they are read in the order of their use, and every OPEN
 * without a SETTLE behind it is marked in place as an orphan. Should we die as well, the next one
 * finds the same. Runs before the keeper starts, then on the keeper's thread.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/map.h"
#include "spool_impl.h"

enum err spool_lock_file(const char *path, bool wait, int *ret_fd)
{
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600), rc;
    if (fd < 0) return ERR_IO;
    do rc = flock(fd, LOCK_EX | (wait ? 0 : LOCK_NB));
    while (rc != 0 && errno == EINTR);
    if (rc != 0) {
        enum err e = errno == EWOULDBLOCK ? ERR_AGAIN : ERR_IO;
        (void)close(fd);
        return e;
    }
    *ret_fd = fd;
    return ERR_OK;
}

/* Where the latest OPEN of an id is. */
struct open_ref {
    struct spool_segment *segment;
    struct segment_frame *frame;
};

static void drop_open(struct open_ref *r)
{
    segment_set_state(r->frame, SEGMENT_DONE);
    r->segment->live--;
}

/* An OPEN replaces an earlier one of the same id, from which it was moved. */
static void see_open(struct map *open, struct spool_segment *g, struct segment_frame *f)
{
    void *old = NULL;
    if (segment_state(f) == SEGMENT_DONE) return;
    struct open_ref *r = xmalloc(sizeof *r);
    *r = (struct open_ref){ g, f };
    g->live++;
    if (map_put(open, str_n(f->id, SEGMENT_ID_LEN), r, &old) != ERR_OK) {
        /* Memory is out: counted once more rather than not at all, the ledger knows its id. */
        segment_set_state(f, SEGMENT_ORPHAN);
        free(r);
        return;
    }
    if (old != NULL) {
        drop_open(old);
        free(old);
    }
}

static void see_settle(struct map *open, struct spool_segment *g, struct segment_frame *f)
{
    bool live = segment_state(f) == SEGMENT_LIVE;
    struct open_ref *r = map_remove(open, str_n(f->id, SEGMENT_ID_LEN));
    if (live) g->live++;
    if (r == NULL) return;
    /* Delivering the SETTLE ends the OPEN that it names; any other is of no use any more. */
    bool named = live && f->open_offset == (size_t)((char *)r->frame - r->segment->map) &&
                 f->open_number == r->segment->number;
    if (!named)
        drop_open(r);
    else
        segment_set_state(r->frame, SEGMENT_LIVE);
    free(r);
}

static void read_segment(struct spool *s, struct map *open, struct spool_segment *g,
                         uint64_t *ret_settled)
{
    size_t at = sizeof(struct segment_header);
    bool damaged;
    while (segment_next(g->map, g->size, &at, &damaged) == ERR_OK) {
        struct segment_frame *f = segment_at(g->map, at);
        if (damaged) s->damaged++;
        if (f->type == SEGMENT_OPEN) {
            see_open(open, g, f);
        } else {
            if (segment_state(f) == SEGMENT_LIVE) ++*ret_settled;
            see_settle(open, g, f);
        }
        at += f->length;
    }
    if (damaged) s->damaged++;
}

/* Maps a segment file; NULL: it is none (then it stays where it is), or it is empty (then it is
 * removed). */
static struct spool_segment *map_segment(struct spool *s, struct spool_dir *d, const char *name)
{
    char path[SPOOL_PATH_MAX + 280];
    struct segment_header h;
    struct stat st;
    char *map = MAP_FAILED;
    struct spool_segment *g = NULL;
    (void)snprintf(path, sizeof path, "%s/%s", d->path, name);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0) return NULL;
    if (fstat(fd, &st) != 0) goto out;
    size_t size = (size_t)st.st_size;
    if (size < sizeof h) {
        (void)unlink(path);
        goto out;
    }
    map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED) goto out;
    char expect[32];
    if (segment_check(map, size, &h) == ERR_OK) {
        (void)snprintf(expect, sizeof expect, "%08" PRIu32 ".seg", h.number);
        if (strcmp(expect, name) != 0) goto bad;
        g = xcalloc(1, sizeof *g);
        *g = (struct spool_segment){ .dir = d,
                                     .number = h.number,
                                     .order = h.order,
                                     .map = map,
                                     .size = size,
                                     .tail = size,
                                     .sealed = true,
                                     .read_at = sizeof h,
                                     .synced = size,
                                     .seen = size };
        s->bytes += size;
        s->segments++;
        goto out;
    }
    size_t at = sizeof h;
    bool damaged;
    static const char zeros[sizeof h];
    if (memcmp(map, zeros, sizeof zeros) == 0 &&
        segment_next(map, size, &at, &damaged) == ERR_NOT_FOUND && !damaged) {
        (void)unlink(path);
        goto out;
    }
bad:
    s->damaged++;
    d->kept = true;
out:
    if (g == NULL && map != MAP_FAILED) (void)munmap(map, size);
    (void)close(fd);
    return g;
}

static void insert_in_order(struct spool_dir *d, struct spool_segment *g)
{
    struct list_node *at = &d->segments;
    while (at->prev != &d->segments &&
           LIST_ENTRY(at->prev, struct spool_segment, in_dir)->order > g->order)
        at = at->prev;
    list_insert_before(at, &g->in_dir);
}

static void load_segments(struct spool *s, struct spool_dir *d)
{
    DIR *dir = opendir(d->path);
    struct dirent *e;
    if (dir == NULL) return;
    while ((e = readdir(dir)) != NULL) {
        if (!str_ends(str_of(e->d_name), STR(".seg"))) continue;
        struct spool_segment *g = map_segment(s, d, e->d_name);
        if (g != NULL) insert_in_order(d, g);
    }
    (void)closedir(dir);
}

static void read_all(struct spool *s, struct spool_dir *d)
{
    struct map open;
    struct map_entry *e;
    uint64_t settled = 0, crashed = 0;
    size_t i = 0;
    map_init(&open, SIZE_MAX / 64);
    LIST_EACH(n, &d->segments)
    {
        read_segment(s, &open, LIST_ENTRY(n, struct spool_segment, in_dir), &settled);
    }
    while ((e = map_next(&open, &i)) != NULL) {
        struct open_ref *r = e->value;
        segment_set_state(r->frame, SEGMENT_ORPHAN);
        crashed++;
        free(r);
    }
    map_done(&open);
    s->adopted += settled + crashed;
    s->crashed += crashed;
    s->settled += settled + crashed;
}

static void adopt(struct spool *s, const char *name, int lock_fd)
{
    struct spool_dir *d = xcalloc(1, sizeof *d);
    (void)snprintf(d->path, sizeof d->path, "%.*s/%.36s", SPOOL_PATH_MAX - UUID_LEN - 2, s->root,
                   name);
    d->lock_fd = lock_fd;
    d->adopted = true;
    list_init(&d->segments);
    load_segments(s, d);
    read_all(s, d);
    (void)pthread_mutex_lock(&s->lock);
    LIST_EACH(n, &d->segments)
    {
        list_push_back(&s->todo, &LIST_ENTRY(n, struct spool_segment, in_dir)->in_todo);
    }
    list_push_back(&s->dirs, &d->in_spool); /* empty ones go at the keeper's next turn */
    (void)pthread_mutex_unlock(&s->lock);
}

static bool is_ours(struct spool *s, const char *name)
{
    bool ours = false;
    (void)pthread_mutex_lock(&s->lock);
    LIST_EACH(n, &s->dirs)
    {
        struct str path = str_of(LIST_ENTRY(n, struct spool_dir, in_spool)->path);
        ours = ours || str_ends(path, str_of(name));
    }
    (void)pthread_mutex_unlock(&s->lock);
    return ours;
}

void spool_adopt(struct spool *s)
{
    char path[SPOOL_PATH_MAX + 280];
    struct dirent *e;
    int root_lock, fd;
    (void)snprintf(path, sizeof path, "%s/lock", s->root);
    if (spool_lock_file(path, true, &root_lock) != ERR_OK) return;
    DIR *dir = opendir(s->root);
    while (dir != NULL && (e = readdir(dir)) != NULL) {
        if (!uuid_is_valid(str_of(e->d_name)) || is_ours(s, e->d_name)) continue;
        (void)snprintf(path, sizeof path, "%s/%s/lock", s->root, e->d_name);
        if (spool_lock_file(path, false, &fd) == ERR_OK) adopt(s, e->d_name, fd);
    }
    if (dir != NULL) (void)closedir(dir);
    (void)close(root_lock);
}

void spool_adopted_remove(struct spool *s, struct spool_dir *d)
{
    char path[SPOOL_PATH_MAX + 16];
    int root_lock = -1;
    (void)snprintf(path, sizeof path, "%s/lock", s->root);
    if (spool_lock_file(path, true, &root_lock) != ERR_OK) root_lock = -1;
    (void)snprintf(path, sizeof path, "%s/lock", d->path);
    (void)unlink(path);
    (void)rmdir(d->path);
    (void)close(d->lock_fd);
    if (root_lock >= 0) (void)close(root_lock);
    free(d);
}
