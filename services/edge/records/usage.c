/* SPDX-License-Identifier: Apache-2.0 */
/* Usage records on their way: workers write them into the spool, the publisher takes them to
 * JetStream. See usage.h. */
#include "usage.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"
#include "publisher.h"
#include "spool.h"

/* Segments are small, so that under load most are delivered before the disk has to take them, but
 * not too many. */
enum {
    POLL_MS = 20,
    SEGMENT_MIN = 256 * 1024,
    SEGMENT_MAX = 4 * 1024 * 1024,
    SEGMENTS_MAX = 4096,
    SPARE_BYTES = 8 * 1024 * 1024,
    KEEP_BYTES = 32 * 1024 * 1024
};

struct worker {
    struct buf text; /* of the record being written */
    struct usage_places *places;
} __attribute__((aligned(64)));

struct usage {
    struct usage_options o;
    struct usage_settings settings;
    struct spool *spool;
    struct publisher *publisher;
    struct worker *workers;
    _Atomic uint64_t refused, unprotected, lost, unsettled;
    _Atomic uint64_t complain_at_ns;
};

/* --- writing --- */

static struct str slug_of(const struct usage_record *r)
{
    return str_is_slug(r->namespace_slug) ? r->namespace_slug : STR(USAGE_NO_NAMESPACE);
}

/* At most one line per second, however many records fail. */
static void complain(struct usage *u, const char *msg, enum err e)
{
    uint64_t now = clock_mono_ns(u->o.clock), at = u->complain_at_ns;
    if (now < at || !atomic_compare_exchange_strong(&u->complain_at_ns, &at, now + 1000000000u))
        return;
    log_error(msg, LERR(e), LI("lost", u->lost), LI("unprotected", u->unprotected));
}

enum err usage_open(struct usage *u, unsigned worker, const struct usage_record *r,
                    struct usage_handle **ret)
{
    if (u == NULL) return *ret = NULL, ERR_OK;
    ASSERT(worker < u->o.workers);
    struct buf *text = &u->workers[worker].text;
    struct spool_ticket *t = NULL;
    buf_clear(text);
    size_t head_n = 0;
    enum err e = usage_encode_opening(r, u->workers[worker].places, text, &head_n);
    if (e == ERR_OK) e = spool_begin(u->spool, worker, r->id, slug_of(r), buf_str(text), &t);
    if (e == ERR_OK) spool_mark(t, head_n, usage_head_stamp(r));
    if (e != ERR_OK) {
        if (u->settings.full_refuses) {
            u->refused++;
            complain(u, "usage spool: a request is refused", e);
            return e;
        }
        u->unprotected++;
        complain(u, "usage spool: a request is served without its record on disk", e);
    }
    *ret = (struct usage_handle *)t;
    return ERR_OK;
}

void usage_progress(struct usage_handle *h, uint64_t output_tokens, int64_t cost_nano,
                    uint64_t duration_ms)
{
    struct spool_progress p = { output_tokens, cost_nano, duration_ms };
    if (h != NULL) spool_progress((struct spool_ticket *)h, &p);
}

void usage_settle(struct usage *u, unsigned worker, struct usage_handle *h,
                  const struct usage_record *r)
{
    if (u == NULL) return;
    ASSERT(worker < u->o.workers);
    struct buf *text = &u->workers[worker].text;
    struct spool_ticket *t = (struct spool_ticket *)h;
    size_t head_n = t != NULL ? spool_marked(t, usage_head_stamp(r)) : 0;
    buf_clear(text);
    enum err e = head_n > 0 ? usage_encode_tail(r, text) : usage_encode(r, text);
    if (e == ERR_OK && head_n + text->len > USAGE_MAX_BYTES) e = ERR_LIMIT;
    if (e == ERR_OK)
        e = t == NULL    ? spool_put(u->spool, worker, r->id, slug_of(r), buf_str(text))
            : head_n > 0 ? spool_settle_tail(u->spool, t, head_n, buf_str(text))
                         : spool_settle(u->spool, t, buf_str(text));
    if (e == ERR_OK) return;
    if (t != NULL) {
        /* It stays open on disk with its final amounts: a successor sends it as crashed. */
        usage_progress(h, r->output_tokens, r->cost.nano, r->duration_ms);
        spool_abandon(u->spool, t);
        u->unsettled++;
        complain(u, "usage spool: a record could not be settled, and is kept for the next start",
                 e);
    } else {
        u->lost++;
        complain(u, "usage spool: a record is lost", e);
    }
}

/* --- life --- */

static uint64_t segment_bytes(const struct usage_options *o)
{
    uint64_t n = (uint64_t)o->settings->max_bytes / SEGMENTS_MAX;
    return MIN(MAX(n, (uint64_t)SEGMENT_MIN), (uint64_t)SEGMENT_MAX);
}

static void free_all(struct usage *u)
{
    publisher_free(u->publisher);
    spool_free(u->spool);
    for (unsigned i = 0; u->workers != NULL && i < u->o.workers; i++) {
        buf_done(&u->workers[i].text);
        usage_places_free(u->workers[i].places);
    }
    free(u->workers);
    free(u);
}

enum err usage_new(const struct usage_options *o, struct usage **ret, struct why *why)
{
    char dir[1024];
    ASSERT(o->workers > 0);
    if (!o->settings->records) return *ret = NULL, ERR_OK;
    int n = snprintf(dir, sizeof dir, "%s/spool", o->state_dir);
    if (n < 0 || (size_t)n >= sizeof dir)
        return why_set(why, ERR_INVALID, "spool: the path is too long");
    struct usage *u = xcalloc(1, sizeof *u);
    u->o = *o;
    u->settings = *o->settings;
    u->o.settings = &u->settings;
    u->workers = aligned_alloc(64, o->workers * sizeof *u->workers);
    ASSERT(u->workers != NULL);
    for (unsigned i = 0; i < o->workers; i++) {
        buf_init(&u->workers[i].text, USAGE_MAX_BYTES);
        u->workers[i].places = usage_places_new();
    }
    uint64_t segment = segment_bytes(o);
    enum err e = spool_new(&(struct spool_options){ .dir = dir,
                                                    .workers = o->workers,
                                                    .segment_bytes = segment,
                                                    .max_bytes = (uint64_t)o->settings->max_bytes,
                                                    .sync_ms = (unsigned)o->settings->sync_ms,
                                                    .spares = (unsigned)(SPARE_BYTES / segment),
                                                    .keep = (unsigned)(KEEP_BYTES / segment),
                                                    .clock = o->clock,
                                                    .rng = o->rng },
                           &u->spool, why);
    if (e == ERR_OK) {
        e = publisher_new(&(struct publisher_options){ u->spool, o->bus, o->instance, o->clock },
                          &u->publisher);
        if (e != ERR_OK) (void)why_set(why, e, "usage: cannot start the publisher");
    }
    if (e != ERR_OK) {
        free_all(u);
        return e;
    }
    *ret = u;
    return ERR_OK;
}

void usage_free(struct usage *u)
{
    if (u != NULL) free_all(u);
}

static uint64_t count_settled(struct usage *u)
{
    struct spool_stats st;
    spool_stats(u->spool, &st);
    return st.settled;
}

size_t usage_pending(struct usage *u)
{
    struct spool_stats st;
    if (u == NULL) return 0;
    spool_stats(u->spool, &st);
    return (size_t)(st.open + st.settled);
}

bool usage_flush(struct usage *u, int timeout_ms)
{
    if (u == NULL) return true;
    uint64_t deadline = clock_mono_ms(u->o.clock) + (uint64_t)MAX(timeout_ms, 0);
    while (count_settled(u) > 0 && clock_mono_ms(u->o.clock) < deadline)
        publisher_wait(u->publisher, POLL_MS);
    return count_settled(u) == 0;
}

void usage_stats(struct usage *u, struct usage_stats *ret)
{
    struct spool_stats st;
    struct publisher_stats ps;
    *ret = (struct usage_stats){ 0 };
    if (u == NULL) return;
    spool_stats(u->spool, &st);
    publisher_stats(u->publisher, &ps);
    *ret = (struct usage_stats){
        .open = st.open,
        .settled = st.settled,
        .spool_bytes = st.bytes,
        .published = ps.published,
        .messages = ps.messages,
        .duplicates = ps.duplicates,
        .retries = ps.retries,
        .refused = u->refused,
        .unprotected = u->unprotected,
        .unsettled = u->unsettled,
        .lost = u->lost,
        .adopted = st.adopted,
        .crashed = st.crashed,
        .damaged = st.damaged,
        .sync_errors = st.sync_errors,
    };
}
