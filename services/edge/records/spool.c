/* SPDX-License-Identifier: Apache-2.0 */
/* The spool's life, and its segments as files: see spool.h. */
#include "spool.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "spool_impl.h"

/* --- segments --- */

enum err spool_segment_make(struct spool *s, bool beyond_max, struct spool_segment **ret)
{
    char path[SPOOL_PATH_MAX + 32];
    struct spool_segment *g = calloc(1, sizeof *g);
    enum err e = ERR_IO;
    if (g == NULL) return ERR_NOMEM;
    (void)pthread_mutex_lock(&s->lock);
    bool fits = beyond_max || s->bytes + s->o.segment_bytes <= s->o.max_bytes;
    if (fits) s->bytes += s->o.segment_bytes;
    g->number = s->next_number++;
    (void)pthread_mutex_unlock(&s->lock);
    if (!fits) {
        free(g);
        return ERR_LIMIT;
    }
    g->dir = &s->own;
    g->size = s->o.segment_bytes;
    g->tail = g->read_at = g->synced = g->seen = sizeof(struct segment_header);
    (void)snprintf(path, sizeof path, "%s/%08" PRIu32 ".seg", s->own.path, g->number);
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    /* Blocks are allocated now: a store into the mapping cannot find the disk full later. */
    if (fd < 0) goto out;
    if (posix_fallocate(fd, 0, (off_t)g->size) != 0) goto remove;
    g->map = mmap(NULL, g->size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (g->map == MAP_FAILED) goto remove;
    segment_init(g->map, g->number);
    s->segments++;
    (void)pthread_mutex_lock(&s->lock);
    s->names_dirty = true;
    (void)pthread_mutex_unlock(&s->lock);
    *ret = g;
    e = ERR_OK;
    goto out;
remove:
    (void)unlink(path);
out:
    if (fd >= 0) (void)close(fd);
    if (e != ERR_OK) {
        s->bytes -= g->size;
        free(g);
    }
    return e;
}

void spool_segment_renew(struct spool_segment *g)
{
    g->tail = g->read_at = g->synced = g->seen = sizeof(struct segment_header);
    g->open = 0;
    g->sealed = g->read = false;
    spool_segment_prepare(g);
}

void spool_segment_prepare(struct spool_segment *g)
{
#ifdef MADV_POPULATE_WRITE
    /* Its pages and blocks are had here, not at a worker's first store into each. Only faster. */
    (void)madvise(g->map, g->size, MADV_POPULATE_WRITE);
#else
    (void)g;
#endif
}

void spool_segment_free(struct spool_segment *g)
{
    (void)munmap(g->map, g->size);
    free(g);
}

void spool_segment_remove(struct spool *s, struct spool_segment *g)
{
    char path[SPOOL_PATH_MAX + 32];
    (void)snprintf(path, sizeof path, "%s/%08" PRIu32 ".seg", g->dir->path, g->number);
    (void)unlink(path);
    s->bytes -= g->size;
    s->segments--;
    spool_segment_free(g);
}

/* --- life --- */

void spool_stats(struct spool *s, struct spool_stats *ret)
{
    *ret = (struct spool_stats){
        .open = s->open,
        .settled = s->settled,
        .bytes = s->bytes,
        .segments = s->segments,
        .adopted = s->adopted,
        .crashed = s->crashed,
        .moved = s->moved,
        .damaged = s->damaged,
        .sync_errors = s->sync_errors,
    };
}

/* Our own directory, locked before anybody else can see it as abandoned. */
static enum err make_own_dir(struct spool *s, struct why *why)
{
    char id[UUID_LEN + 1], path[SPOOL_PATH_MAX + 16];
    int n = snprintf(s->root, sizeof s->root, "%s", s->o.dir);
    if (n < 0 || (size_t)n + UUID_LEN + 16 > SPOOL_PATH_MAX)
        return why_set(why, ERR_INVALID, "spool: the path is too long");
    if (mkdir(s->root, 0700) != 0 && errno != EEXIST)
        return why_set(why, ERR_IO, "spool: cannot make %s: %s", s->root, strerror(errno));
    (void)snprintf(path, sizeof path, "%s/lock", s->root);
    if (spool_lock_file(path, true, &s->root_lock_fd) != ERR_OK)
        return why_set(why, ERR_IO, "spool: cannot lock %s: %s", path, strerror(errno));
    /* A process forked from another may draw the same numbers as that once: then again. */
    for (int tries = 0, made = -1; made != 0; tries++) {
        uuid_v7(s->o.clock, s->o.rng, id);
        n = snprintf(s->own.path, sizeof s->own.path, "%.*s/%s", SPOOL_PATH_MAX - UUID_LEN - 2,
                     s->root, id);
        ASSERT(n > 0 && (size_t)n < sizeof s->own.path);
        made = mkdir(s->own.path, 0700);
        if (made == 0 || (errno == EEXIST && tries < 10)) continue;
        return why_set(why, ERR_IO, "spool: cannot make %s: %s", s->own.path, strerror(errno));
    }
    (void)snprintf(path, sizeof path, "%s/lock", s->own.path);
    if (spool_lock_file(path, false, &s->own.lock_fd) != ERR_OK)
        return why_set(why, ERR_IO, "spool: cannot lock %s: %s", path, strerror(errno));
    return ERR_OK;
}

static void free_all(struct spool *s)
{
    char path[SPOOL_PATH_MAX + 16];
    struct list_node *n;
    while ((n = list_pop_front(&s->spares)) != NULL)
        spool_segment_remove(s, LIST_ENTRY(n, struct spool_segment, in_todo));
    while ((n = list_pop_front(&s->dirs)) != NULL) {
        struct spool_dir *d = LIST_ENTRY(n, struct spool_dir, in_spool);
        struct list_node *m;
        bool empty = !d->kept;
        while ((m = list_pop_front(&d->segments)) != NULL) {
            struct spool_segment *g = LIST_ENTRY(m, struct spool_segment, in_dir);
            if (g->live == 0) {
                spool_segment_remove(s, g);
            } else {
                spool_segment_free(g);
                empty = false;
            }
        }
        if (empty && d->path[0] != '\0') {
            (void)snprintf(path, sizeof path, "%s/lock", d->path);
            (void)unlink(path);
            (void)rmdir(d->path);
        }
        if (d->lock_fd >= 0) (void)close(d->lock_fd);
        if (d != &s->own) free(d);
    }
    for (unsigned i = 0; i < s->o.workers; i++) {
        struct spool_writer *w = &s->writers[i];
        while ((n = list_pop_front(&w->tickets)) != NULL || (n = list_pop_front(&w->idle)) != NULL)
            free(LIST_ENTRY(n, struct spool_ticket, in_writer));
        (void)pthread_mutex_destroy(&w->lock);
    }
    if (s->root_lock_fd >= 0) (void)close(s->root_lock_fd);
    (void)pthread_cond_destroy(&s->wake);
    (void)pthread_mutex_destroy(&s->keeper_lock);
    (void)pthread_mutex_destroy(&s->lock);
    free(s->writers);
    free(s);
}

static void init(struct spool *s, const struct spool_options *o)
{
    pthread_condattr_t attr;
    long page = sysconf(_SC_PAGESIZE);
    s->o = *o;
    s->o.segment_bytes = MAX(o->segment_bytes / (uint64_t)page, 1u) * (uint64_t)page;
    if (o->spares == 0) s->o.spares = SPOOL_SPARES;
    if (o->keep == 0) s->o.keep = SPOOL_KEEP;
    s->root_lock_fd = s->own.lock_fd = -1;
    s->next_number = 1;
    s->next_order = 1;
    list_init(&s->dirs);
    list_init(&s->todo);
    list_init(&s->spares);
    list_init(&s->own.segments);
    list_push_back(&s->dirs, &s->own.in_spool);
    (void)pthread_mutex_init(&s->lock, NULL);
    (void)pthread_mutex_init(&s->keeper_lock, NULL);
    (void)pthread_condattr_init(&attr);
    (void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&s->wake, &attr);
    (void)pthread_condattr_destroy(&attr);
    s->writers = aligned_alloc(64, o->workers * sizeof *s->writers);
    ASSERT(s->writers != NULL);
    memset(s->writers, 0, o->workers * sizeof *s->writers);
    for (unsigned i = 0; i < o->workers; i++) {
        (void)pthread_mutex_init(&s->writers[i].lock, NULL);
        list_init(&s->writers[i].tickets);
        list_init(&s->writers[i].idle);
    }
}

enum err spool_new(const struct spool_options *o, struct spool **ret, struct why *why)
{
    ASSERT(o->workers > 0 && o->sync_ms > 0);
    struct spool *s = xcalloc(1, sizeof *s);
    init(s, o);
    enum err e = make_own_dir(s, why);
    if (s->root_lock_fd >= 0) (void)close(s->root_lock_fd);
    s->root_lock_fd = -1;
    if (e == ERR_OK) {
        spool_adopt(s);
        e = spool_keeper_start(s);
        if (e != ERR_OK) (void)why_set(why, e, "spool: cannot start its thread");
    }
    if (e != ERR_OK) {
        free_all(s);
        return e;
    }
    *ret = s;
    return ERR_OK;
}

void spool_free(struct spool *s)
{
    if (s == NULL) return;
    spool_keeper_stop(s);
    free_all(s);
}
