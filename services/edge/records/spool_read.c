/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The spool's reader: see spool.h. One thread reads behind the writers, over the same mapped
 * memory, up to each segment's tail; what is delivered is marked by any.
 */
#include <string.h>

#include "spool_impl.h"

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
