/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The keeper: the spool's own thread. Twice in sync_ms it keeps segments of which everything is
 * delivered for use again or deletes them, forces to disk what was there at its last turn of the
 * others, moves open records out of old segments, and now and then looks for directories of the
 * dead. In between it has a spare segment ready as soon as the last one was taken.
 *
 * Where records are delivered soon, most segments are small enough to be done with before their
 * turn: their pages are written again without having been on disk, and the system, which would have
 * to notice each first store to a page that is, has nothing to do.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "spool_impl.h"

enum {
    MOVES_MAX = 256, /* per turn of the keeper */
    MOVES_HELD = 16, /* per hold of a writer's lock: a worker waits at most for these copies */
    ADOPT_EVERY_S = 10
};

struct move {
    struct spool_segment *from;
    size_t offset;
};

/* --- moving --- */

/* Moves one record when its place is old and it is the only kind of thing that holds the segment.
 * False: nothing to do at this writer. Its lock is held. */
static bool move_oldest(struct spool *s, struct spool_writer *w, struct move *ret)
{
    if (list_empty(&w->tickets)) return false;
    struct spool_ticket *t = LIST_ENTRY(w->tickets.next, struct spool_ticket, in_writer);
    struct spool_segment *from = t->segment, *to;
    size_t at;
    if (w->turns - from->turn < s->o.keep || from->live > from->open + MOVES_MAX) return false;
    const struct segment_frame *f = segment_at(from->map, t->offset);
    struct segment_entry e = { .type = SEGMENT_OPEN,
                               .id = str_n(f->id, SEGMENT_ID_LEN),
                               .name = segment_name(f),
                               .text = segment_text(f),
                               .output_tokens = f->output_tokens,
                               .cost_nano = f->cost_nano,
                               .duration_ms = f->duration_ms };
    if (spool_append(s, w, &e, true, &to, &at) != ERR_OK) return false;
    *ret = (struct move){ from, t->offset };
    from->open--;
    to->open++;
    t->segment = to;
    t->offset = at;
    list_remove(&t->in_writer);
    list_push_back(&w->tickets, &t->in_writer);
    s->moved++;
    return true;
}

static size_t move_old(struct spool *s, struct move moves[MOVES_MAX])
{
    size_t n = 0;
    for (unsigned i = 0; i < s->o.workers; i++) {
        struct spool_writer *w = &s->writers[i];
        bool more = true;
        while (more && n < MOVES_MAX) {
            (void)pthread_mutex_lock(&w->lock);
            for (int k = 0; more && k < MOVES_HELD && n < MOVES_MAX; k++) {
                more = move_oldest(s, w, &moves[n]);
                n += more ? 1 : 0;
            }
            (void)pthread_mutex_unlock(&w->lock);
        }
    }
    return n;
}

/* --- syncing --- */

/* As fdatasync(2) of a part of the file, without keeping it open: up to where it was written at the
 * last turn, or all. */
static void sync_segment(struct spool *s, struct spool_segment *g, bool all)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t tail = atomic_load_explicit(&g->tail, memory_order_acquire);
    size_t to = all ? tail : g->seen;
    g->seen = tail;
    if (to <= g->synced) return;
    size_t from = g->synced / page * page;
    if (msync(g->map + from, to - from, MS_SYNC) != 0)
        s->sync_errors++; /* tried again next time */
    else
        g->synced = to;
}

/* The keeper's lock is held: segments stay where they are, and only writers add some. */
static void sync_all(struct spool *s, bool all)
{
    (void)pthread_mutex_lock(&s->lock);
    bool names = s->names_dirty;
    s->names_dirty = false;
    struct list_node *n = s->own.segments.next;
    (void)pthread_mutex_unlock(&s->lock);
    while (n != &s->own.segments) {
        sync_segment(s, LIST_ENTRY(n, struct spool_segment, in_dir), all);
        (void)pthread_mutex_lock(&s->lock);
        n = n->next;
        (void)pthread_mutex_unlock(&s->lock);
    }
    if (!names) return;
    int fd = open(s->own.path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || fsync(fd) != 0) s->sync_errors++;
    if (fd >= 0) (void)close(fd);
}

void spool_sync(struct spool *s)
{
    (void)pthread_mutex_lock(&s->keeper_lock);
    sync_all(s, true);
    (void)pthread_mutex_unlock(&s->keeper_lock);
}

/* --- using again, and deleting --- */

static size_t spares(struct spool *s)
{
    (void)pthread_mutex_lock(&s->lock);
    size_t n = s->spares_n;
    (void)pthread_mutex_unlock(&s->lock);
    return n;
}

static void add_spare(struct spool *s, struct spool_segment *g)
{
    (void)pthread_mutex_lock(&s->lock);
    list_push_front(&s->spares, &g->in_todo); /* what was used last is still in the cache */
    s->spares_n++;
    (void)pthread_mutex_unlock(&s->lock);
}

static bool is_dead(struct spool_segment *g)
{
    return atomic_load(&g->sealed) && atomic_load(&g->read) && atomic_load(&g->live) == 0;
}

/* The keeper's lock is held. */
static void reclaim(struct spool *s)
{
    struct list_node dead, dirs;
    list_init(&dead);
    list_init(&dirs);
    (void)pthread_mutex_lock(&s->lock);
    LIST_EACH_SAFE(n, &s->dirs)
    {
        struct spool_dir *d = LIST_ENTRY(n, struct spool_dir, in_spool);
        LIST_EACH_SAFE(m, &d->segments)
        {
            struct spool_segment *g = LIST_ENTRY(m, struct spool_segment, in_dir);
            if (!is_dead(g)) continue;
            list_remove(m);
            list_push_back(&dead, m);
        }
        if (!d->adopted || d->kept || !list_empty(&d->segments)) continue;
        list_remove(n);
        list_push_back(&dirs, n);
    }
    (void)pthread_mutex_unlock(&s->lock);
    struct list_node *n;
    while ((n = list_pop_front(&dead)) != NULL) {
        struct spool_segment *g = LIST_ENTRY(n, struct spool_segment, in_dir);
        if (g->dir != &s->own || s->bytes > s->o.max_bytes || spares(s) >= s->o.spares) {
            spool_segment_remove(s, g);
        } else {
            spool_segment_renew(g);
            add_spare(s, g);
        }
    }
    while ((n = list_pop_front(&dirs)) != NULL)
        spool_adopted_remove(s, LIST_ENTRY(n, struct spool_dir, in_spool));
}

static void make_spare(struct spool *s)
{
    struct spool_segment *g;
    (void)pthread_mutex_lock(&s->lock);
    bool wanted = s->spares_n == 0;
    s->spare_wanted = false;
    (void)pthread_mutex_unlock(&s->lock);
    if (!wanted) return;
    (void)pthread_mutex_lock(&s->keeper_lock);
    reclaim(s);
    (void)pthread_mutex_unlock(&s->keeper_lock);
    if (spares(s) > 0) return;
    if (spool_segment_make(s, false, &g) != ERR_OK) return; /* the writer will try, and report it */
    spool_segment_prepare(g);
    add_spare(s, g);
}

/* --- the thread --- */

static void turn(struct spool *s, bool last)
{
    struct move moves[MOVES_MAX];
    (void)pthread_mutex_lock(&s->keeper_lock);
    uint64_t now = clock_mono_ns(s->o.clock);
    if (now >= s->next_adoption_ns) {
        if (s->next_adoption_ns > 0) spool_adopt(s);
        s->next_adoption_ns = now + (uint64_t)ADOPT_EVERY_S * 1000000000u;
    }
    size_t n = move_old(s, moves);
    reclaim(s); /* first: what is delivered need not be on disk any more */
    sync_all(s, last || n > 0 || s->o.sync_ms < 2);
    /* Only now that the new places are on disk the old ones may go. */
    for (size_t i = 0; i < n; i++) {
        segment_set_state(segment_at(moves[i].from->map, moves[i].offset), SEGMENT_DONE);
        moves[i].from->live--;
    }
    (void)pthread_mutex_unlock(&s->keeper_lock);
}

static void *run(void *arg)
{
    struct spool *s = arg;
    bool stopping = false;
    (void)pthread_setname_np(pthread_self(), "usage-spool");
    while (!stopping) {
        struct timespec until = clock_in_ms(MAX(s->o.sync_ms / 2, 1u));
        int e = 0;
        make_spare(s);
        (void)pthread_mutex_lock(&s->lock);
        while (!s->stopping && e == 0) {
            if (s->spare_wanted) {
                (void)pthread_mutex_unlock(&s->lock);
                make_spare(s);
                (void)pthread_mutex_lock(&s->lock);
                continue;
            }
            e = pthread_cond_timedwait(&s->wake, &s->lock, &until);
        }
        stopping = s->stopping;
        (void)pthread_mutex_unlock(&s->lock);
        turn(s, stopping);
    }
    return NULL;
}

enum err spool_keeper_start(struct spool *s)
{
    return pthread_create(&s->keeper, NULL, run, s) == 0 ? ERR_OK : ERR_IO;
}

void spool_keeper_stop(struct spool *s)
{
    (void)pthread_mutex_lock(&s->lock);
    s->stopping = true;
    (void)pthread_cond_signal(&s->wake);
    (void)pthread_mutex_unlock(&s->lock);
    (void)pthread_join(s->keeper, NULL);
}
