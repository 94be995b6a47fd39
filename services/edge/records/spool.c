/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The spool's writers and its reader: see spool.h. A worker appends under its own writer's lock;
 * one thread reads behind them, over the same mapped memory, up to each segment's tail.
 */
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

/* A spare, or a new one when the keeper was too slow. */
static enum err take_segment(struct spool *s, bool beyond_max, struct spool_segment **ret)
{
    struct list_node *n = NULL;
    (void)pthread_mutex_lock(&s->lock);
    if (s->spares_n > 0) {
        n = list_pop_front(&s->spares);
        s->spares_n--;
    }
    if (s->spares_n == 0) {
        s->spare_wanted = true;
        (void)pthread_cond_signal(&s->wake);
    }
    (void)pthread_mutex_unlock(&s->lock);
    if (n != NULL) {
        *ret = LIST_ENTRY(n, struct spool_segment, in_todo);
        return ERR_OK;
    }
    return spool_segment_make(s, beyond_max, ret);
}

static enum err change_segment(struct spool *s, struct spool_writer *w, bool beyond_max)
{
    struct spool_segment *g;
    enum err e = take_segment(s, beyond_max, &g);
    if (e != ERR_OK) return e;
    g->turn = ++w->turns;
    (void)pthread_mutex_lock(&s->lock);
    list_push_back(&s->own.segments, &g->in_dir);
    list_push_back(&s->todo, &g->in_todo);
    g->order = s->next_order++;
    segment_use(g->map, g->order);
    (void)pthread_mutex_unlock(&s->lock);
    if (w->current != NULL) atomic_store(&w->current->sealed, true);
    w->current = g;
    return ERR_OK;
}

enum err spool_append(struct spool *s, struct spool_writer *w, const struct segment_entry *e,
                      bool beyond_max, struct spool_segment **ret_segment, size_t *ret_offset)
{
    size_t need = segment_frame_size(e);
    if (e->id.n != SEGMENT_ID_LEN || e->name.n > SEGMENT_NAME_MAX) return ERR_INVALID;
    if (e->text.n > s->o.segment_bytes / 4 || need > s->o.segment_bytes / 4) return ERR_LIMIT;
    size_t tail = w->current != NULL ? atomic_load(&w->current->tail) : 0;
    if (w->current == NULL || w->current->size - tail < need) {
        enum err err = change_segment(s, w, beyond_max);
        if (err != ERR_OK) return err;
        tail = atomic_load(&w->current->tail);
    }
    struct spool_segment *g = w->current;
    size_t n = segment_append(g->map, tail, e);
    g->live++;
    atomic_store_explicit(&g->tail, tail + n, memory_order_release);
    *ret_segment = g;
    *ret_offset = tail;
    return ERR_OK;
}

/* --- writing --- */

static bool is_full(struct spool *s)
{
    return s->bytes > s->o.max_bytes;
}

/* One that was used before, which is still in the cache, or a new one. The lock is held. */
static struct spool_ticket *take_ticket(struct spool_writer *w)
{
    struct list_node *n = list_pop_front(&w->idle);
    if (n != NULL) return LIST_ENTRY(n, struct spool_ticket, in_writer);
    struct spool_ticket *t = calloc(1, sizeof *t);
    if (t != NULL) t->writer = w;
    return t;
}

enum err spool_begin(struct spool *s, unsigned worker, struct str id, struct str name,
                     struct str text, struct spool_ticket **ret)
{
    struct segment_entry entry = { .type = SEGMENT_OPEN, .id = id, .name = name, .text = text };
    ASSERT(worker < s->o.workers);
    struct spool_writer *w = &s->writers[worker];
    if (is_full(s)) return ERR_LIMIT;
    (void)pthread_mutex_lock(&w->lock);
    struct spool_ticket *t = take_ticket(w);
    enum err e = t != NULL ? spool_append(s, w, &entry, false, &t->segment, &t->offset) : ERR_NOMEM;
    if (e == ERR_OK) {
        t->head_n = 0;
        t->segment->open++;
        list_push_back(&w->tickets, &t->in_writer);
    } else if (t != NULL) {
        list_push_front(&w->idle, &t->in_writer);
    }
    (void)pthread_mutex_unlock(&w->lock);
    if (e != ERR_OK) return e;
    s->open++;
    *ret = t;
    return ERR_OK;
}

void spool_progress(struct spool_ticket *t, const struct spool_progress *p)
{
    /* The lock is for the ticket's place, which the keeper may change. */
    (void)pthread_mutex_lock(&t->writer->lock);
    struct segment_frame *f = segment_at(t->segment->map, t->offset);
    __atomic_store_n(&f->output_tokens, p->output_tokens, __ATOMIC_RELAXED);
    __atomic_store_n(&f->cost_nano, p->cost_nano, __ATOMIC_RELAXED);
    __atomic_store_n(&f->duration_ms, p->duration_ms, __ATOMIC_RELAXED);
    (void)pthread_mutex_unlock(&t->writer->lock);
}

/* The writer's lock is held. */
static void forget_ticket(struct spool *s, struct spool_ticket *t)
{
    t->segment->open--;
    list_remove(&t->in_writer);
    list_push_front(&t->writer->idle, &t->in_writer);
    s->open--;
}

/* How many bytes at the beginning of both are the same, when that is worth it. */
static uint16_t shared_bytes(struct str a, struct str b)
{
    enum { STEP = 16, LEAST = 64 };
    size_t most = MIN(MIN(a.n, b.n), (size_t)UINT16_MAX / STEP * STEP), n = 0;
    while (n + STEP <= most && memcmp(a.p + n, b.p + n, STEP) == 0) n += STEP;
    return n >= LEAST ? (uint16_t)n : 0;
}

void spool_mark(struct spool_ticket *t, size_t head_n, uint64_t stamp)
{
    t->head_n = head_n <= UINT16_MAX ? (uint16_t)head_n : 0;
    t->stamp = stamp;
}

size_t spool_marked(const struct spool_ticket *t, uint64_t stamp)
{
    return t->stamp == stamp ? t->head_n : 0;
}

/* head_n bytes of the opening's text, then text. */
static enum err settle(struct spool *s, struct spool_ticket *t, size_t head_n, struct str text)
{
    struct spool_writer *w = t->writer;
    struct spool_segment *g;
    size_t at;
    (void)pthread_mutex_lock(&w->lock);
    struct segment_frame *f = segment_at(t->segment->map, t->offset);
    ASSERT(head_n <= f->text_n && head_n <= UINT16_MAX);
    uint16_t same = head_n == 0 ? shared_bytes(segment_text(f), text) : 0;
    struct segment_entry entry = { .type = SEGMENT_SETTLE,
                                   .id = str_n(f->id, SEGMENT_ID_LEN),
                                   .name = segment_name(f),
                                   .text = str_n(text.p + same, text.n - same),
                                   .shared = (uint16_t)(head_n + same),
                                   .open_number = t->segment->number,
                                   .open_offset = (uint32_t)t->offset };
    /* The reader may deliver it, and count it down, before we are back: count it up first. */
    s->settled++;
    enum err e = spool_append(s, w, &entry, true, &g, &at);
    if (e == ERR_OK)
        forget_ticket(s, t);
    else
        s->settled--;
    (void)pthread_mutex_unlock(&w->lock);
    return e;
}

enum err spool_settle(struct spool *s, struct spool_ticket *t, struct str text)
{
    return settle(s, t, 0, text);
}

enum err spool_settle_tail(struct spool *s, struct spool_ticket *t, size_t head_n, struct str tail)
{
    return settle(s, t, head_n, tail);
}

void spool_abandon(struct spool *s, struct spool_ticket *t)
{
    struct spool_writer *w = t->writer;
    (void)pthread_mutex_lock(&w->lock);
    forget_ticket(s, t); /* its frame stays live: the segment is kept for a successor */
    (void)pthread_mutex_unlock(&w->lock);
}

enum err spool_put(struct spool *s, unsigned worker, struct str id, struct str name,
                   struct str text)
{
    struct segment_entry entry = { .type = SEGMENT_SETTLE, .id = id, .name = name, .text = text };
    ASSERT(worker < s->o.workers);
    struct spool_writer *w = &s->writers[worker];
    struct spool_segment *g;
    size_t at;
    if (is_full(s)) return ERR_LIMIT;
    s->settled++;
    (void)pthread_mutex_lock(&w->lock);
    enum err e = spool_append(s, w, &entry, false, &g, &at);
    (void)pthread_mutex_unlock(&w->lock);
    if (e != ERR_OK) s->settled--;
    return e;
}

/* --- reading --- */

/* The segment of that number in the same directory, or NULL. The spool's lock is held. */
static struct spool_segment *find_segment(struct spool_segment *from, uint32_t number)
{
    /* A record is opened in a segment that came into use before the one it is settled in. */
    const struct list_node *head = &from->dir->segments;
    for (struct list_node *n = &from->in_dir; n != head; n = n->prev) {
        struct spool_segment *g = LIST_ENTRY(n, struct spool_segment, in_dir);
        if (g->number == number) return g;
    }
    return NULL;
}

/* The OPEN that a SETTLE in g names, and its segment. NULL: it names none, or it is not there, as
 * may be after a power failure. The spool's lock is held. */
static struct segment_frame *find_open(struct spool_segment *g, const struct segment_frame *f,
                                       struct spool_segment **ret)
{
    if (f->type != SEGMENT_SETTLE || f->open_number == 0) return NULL;
    struct spool_segment *o = find_segment(g, f->open_number);
    if (o == NULL || (g->dir->adopted && !segment_is_frame(o->map, o->size, f->open_offset)))
        return NULL;
    struct segment_frame *open = segment_at(o->map, f->open_offset);
    if (open->type != SEGMENT_OPEN || memcmp(open->id, f->id, SEGMENT_ID_LEN) != 0) return NULL;
    *ret = o;
    return open;
}

/* The spool's lock is held. A SETTLE whose OPEN is lost gives what it has: no record, but the
 * ledger's reader keeps it for a person to look at. */
static void look(struct spool_segment *g, size_t at, struct spool_item *ret)
{
    struct spool_segment *o = NULL;
    const struct segment_frame *f = segment_at(g->map, at);
    *ret = (struct spool_item){ .id = str_n(f->id, SEGMENT_ID_LEN),
                                .name = segment_name(f),
                                .text = segment_text(f),
                                .adopted = g->dir->adopted,
                                .crashed = f->type == SEGMENT_OPEN,
                                .ref = { .segment = g, .offset = at } };
    if (ret->crashed)
        ret->progress = (struct spool_progress){ f->output_tokens, f->cost_nano, f->duration_ms };
    const struct segment_frame *open = find_open(g, f, &o);
    if (open == NULL) return;
    if (f->shared > 0 && open->text_n >= f->shared)
        ret->head = str_n(segment_text(open).p, f->shared);
    /* Of our own, one SETTLE names one OPEN, which stays until that is done. */
    if (!g->dir->adopted) ret->ref.opened_in = o, ret->ref.opened_at = f->open_offset;
}

void spool_look(struct spool *s, const struct spool_ref *ref, struct spool_item *ret)
{
    (void)pthread_mutex_lock(&s->lock);
    look(ref->segment, ref->offset, ret);
    (void)pthread_mutex_unlock(&s->lock);
}

/* The next frame of one segment that is to be delivered. False: none up to its tail. */
static bool next_in(struct spool_segment *g, size_t tail, struct spool_item *ret)
{
    while (g->read_at < tail) {
        size_t at = g->read_at;
        if (g->dir->adopted) {
            bool damaged; /* counted when it was adopted */
            if (segment_next(g->map, g->size, &at, &damaged) != ERR_OK) {
                g->read_at = tail;
                return false;
            }
        }
        const struct segment_frame *f = segment_at(g->map, at);
        g->read_at = at + f->length;
        enum segment_state state = segment_state(f);
        bool orphan = f->type == SEGMENT_OPEN && state == SEGMENT_ORPHAN;
        if (!orphan && (f->type != SEGMENT_SETTLE || state != SEGMENT_LIVE)) continue;
        look(g, at, ret);
        return true;
    }
    return false;
}

enum err spool_next(struct spool *s, struct spool_item *ret)
{
    enum err e = ERR_NOT_FOUND;
    (void)pthread_mutex_lock(&s->lock);
    LIST_EACH_SAFE(n, &s->todo)
    {
        struct spool_segment *g = LIST_ENTRY(n, struct spool_segment, in_todo);
        /* In this order: what is sealed has its last tail. */
        bool sealed = atomic_load(&g->sealed);
        size_t tail = atomic_load_explicit(&g->tail, memory_order_acquire);
        if (next_in(g, tail, ret)) {
            e = ERR_OK;
            break;
        }
        if (sealed) {
            list_remove(&g->in_todo);
            atomic_store(&g->read, true);
        }
    }
    (void)pthread_mutex_unlock(&s->lock);
    return e;
}

/* The OPEN of a record that was delivered, and its segment; NULL: none. */
static struct segment_frame *opening_of(struct spool *s, const struct spool_ref *ref,
                                        struct spool_segment **ret)
{
    struct spool_segment *g = ref->segment;
    *ret = ref->opened_in;
    if (!g->dir->adopted) return *ret != NULL ? segment_at((*ret)->map, ref->opened_at) : NULL;
    (void)pthread_mutex_lock(&s->lock);
    struct segment_frame *open = find_open(g, segment_at(g->map, ref->offset), ret);
    (void)pthread_mutex_unlock(&s->lock);
    return open;
}

static void done(struct spool *s, const struct spool_ref *ref)
{
    struct spool_segment *g = ref->segment, *o;
    struct segment_frame *f = segment_at(g->map, ref->offset);
    struct segment_frame *open = opening_of(s, ref, &o);
    /* In this order: a SETTLE that is to be delivered, by a successor too, needs its OPEN. */
    segment_set_state(f, SEGMENT_DONE);
    if (open != NULL && segment_state(open) == SEGMENT_LIVE) {
        segment_set_state(open, SEGMENT_DONE);
        o->live--;
    }
    g->live--; /* last: from here on the segment may go */
}

void spool_done(struct spool *s, const struct spool_ref *refs, size_t n)
{
    for (size_t i = 0; i < n; i++) done(s, &refs[i]);
    s->settled -= n;
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
