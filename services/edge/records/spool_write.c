/* SPDX-License-Identifier: Apache-2.0 */
/* The spool's writers: see spool.h. A worker appends under its own writer's lock. */
#include <stdlib.h>
#include <string.h>

#include "spool_impl.h"

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
