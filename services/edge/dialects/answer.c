/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See the header. A stream's events are parsed, their texts fed to meters (one per text), and
 * passed on as they came as soon as all their bytes are deliverable; until then they wait in a
 * queue, in order. At a cut the event that holds the limit is rewritten by splices, and the
 * dialect's own ending follows.
 */
#include "answer.h"

#include <stdlib.h>

#include "answer_impl.h"
#include "base/prefetch.h"

enum {
    HEAD_MEMBER_MAX = 512,
    REPORTED_MOST = 100000000 /* tokens: more than any model takes or gives */
};

struct answer *answer_new(const struct answer_options *o)
{
    struct answer *a = calloc(1, sizeof *a);
    if (a == NULL) return NULL;
    a->o = *o;
    if (a->o.vocab != NULL) vocab_ref(a->o.vocab);
    sse_init(&a->sse, ANSWER_EVENT_MAX);
    list_init(&a->queue);
    list_init(&a->unfed);
    if (!a->o.reserved) a->o.allowance = METER_NO_LIMIT;
    bool may_cut = a->o.limit != METER_NO_LIMIT || a->o.reserved;
    if (may_cut && a->o.dialect->keeps_transcript) a->transcript = transcript_new();
    buf_init(&a->scratch, ANSWER_EVENT_MAX * 64);
    return a;
}

static void drop_all(struct list_node *queue)
{
    for (struct list_node *n; (n = list_pop_front(queue)) != NULL;)
        free(LIST_ENTRY(n, struct held, node));
}

void answer_prefetch(const struct answer *a)
{
    prefetch(a, sizeof *a);
    if (a->texts_n > 0) meter_prefetch(a->texts[0].meter);
    answer_prefetch_forms(a);
}

void answer_free(struct answer *a)
{
    if (a == NULL) return;
    for (size_t i = 0; i < a->texts_n; i++) meter_free(a->texts[i].meter);
    free(a->texts);
    drop_all(&a->queue);
    drop_all(&a->unfed);
    transcript_free(a->transcript);
    answer_forget_forms(a);
    sse_done(&a->sse);
    buf_done(&a->scratch);
    free(a->heads);
    vocab_unref(a->o.vocab);
    free(a);
}

/* --- events --- */

/* The members that an ending repeats: taken from the first event that has them, when a limit is in
 * force. */
static void note_head(struct answer *a, struct str data)
{
    static const char *const names[] = { "id", "object", "created", "model" };
    struct str *const kept[] = { &a->id, &a->object, &a->created, &a->model };
    struct js_val root, v[ARRAY_LEN(names)];
    size_t total = 0;
    bool may_cut = a->o.limit != METER_NO_LIMIT || a->o.reserved;
    if (!may_cut || a->heads != NULL || js_parse(data, &root, NULL) != ERR_OK) return;
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        v[i] = js_get(root, names[i]);
        if (v[i].raw.p == NULL || v[i].raw.n > HEAD_MEMBER_MAX) v[i].raw = STR("");
        total += v[i].raw.n;
    }
    if (v[0].raw.n == 0) return;
    char *at = a->heads = xmalloc(total);
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        if (v[i].raw.n == 0) continue;
        *kept[i] = str_n(memcpy(at, v[i].raw.p, v[i].raw.n), v[i].raw.n);
        at += v[i].raw.n;
    }
}

void answer_note_usage(struct answer *a, const struct reported_usage *r)
{
    /* What cannot be true is no report: nobody shall be charged for it. */
    if (!r->present || MAX(MAX(r->input, r->output), MAX(r->cached, r->reasoning)) > REPORTED_MOST)
        return;
    /* Anthropic tells input at the start and output at the end; others everything at the end. */
    a->reported.present = true;
    a->reported.input = MAX(a->reported.input, r->input);
    a->reported.output = MAX(a->reported.output, r->output);
    a->reported.cached = MAX(a->reported.cached, r->cached);
    a->reported.reasoning = MAX(a->reported.reasoning, r->reasoning);
}

/* Which texts end with this event. */
static enum err note_ends(struct answer *a)
{
    const struct chunk *c = a->chunk;
    enum err e = ERR_OK;
    for (size_t i = 0; i < c->choices_n && e == ERR_OK; i++) {
        uint32_t bit = 1u << c->choices[i].index;
        a->seen_choices |= bit;
        if (!c->choices[i].finished) continue;
        a->finished_choices |= bit;
        for (size_t k = 0; k < a->texts_n && e == ERR_OK; k++)
            if (a->texts[k].choice == c->choices[i].index) e = answer_finish_text(a, &a->texts[k]);
    }
    if (c->block_started) a->block_open = true, a->block = c->block;
    if (c->block_stopped) {
        a->block_open = false;
        for (size_t k = 0; k < a->texts_n && e == ERR_OK; k++)
            if (a->texts[k].item == c->block) e = answer_finish_text(a, &a->texts[k]);
    }
    if (c->is_done && e == ERR_OK) e = answer_finish_all(a);
    if (c->is_error) a->error = true;
    return e;
}

static bool gated(const struct answer *a)
{
    return a->o.allowance < a->o.limit;
}

bool answer_has_allowance(struct answer *a, uint64_t wants)
{
    if (wants > a->o.allowance && a->o.more != NULL && !a->asked) {
        a->o.allowance = a->o.more(a->o.more_ctx, wants);
        a->asked = wants > a->o.allowance;
    }
    return wants <= a->o.allowance;
}

void answer_weigh(struct answer *a)
{
    if (!gated(a)) return;
    /* answer_most_tokens() sees to it that it is not over, but for texts whose last letters count
     * more by what follows them. */
    uint64_t tokens = answer_tokens(a);
    a->over = tokens > a->o.allowance;
    if (a->over)
        a->wants = tokens;
    else
        a->written = tokens;
}

/* False: a last event that was torn off. */
static bool parse(struct answer *a, const struct sse_event *ev)
{
    chunk_clear(a->chunk);
    if (ev->data.p == NULL) return true;
    if (a->o.dialect->parse_event(ev->name, ev->data, a->chunk) == ERR_OK) {
        note_head(a, ev->data);
        return true;
    }
    chunk_clear(a->chunk);
    if (a->at_end && list_empty(&a->unfed)) return false;
    /* Not what the dialect sends: passes as it is, and nobody can say what it held. */
    a->uncounted = a->begun = true;
    return true;
}

/* Takes an event that was parsed, whose texts were fed. */
static enum err pass_event(struct answer *a, const struct sse_event *ev, const struct mark *marks)
{
    size_t marks_n = a->chunk->deltas_n;
    bool hide = a->o.hide_usage && a->chunk->usage_only, done = a->chunk->is_done;
    enum err e = note_ends(a);
    if (e != ERR_OK) return e;
    answer_note_usage(a, &a->chunk->reported);
    if (a->chunk->has_sequence) a->sequence = a->chunk->sequence + 1;
    if (a->chunk->uncountable) a->uncounted = true;

    bool cut = answer_any_cut(a);
    answer_weigh(a);
    if (list_empty(&a->queue) && !cut && !a->over && answer_is_deliverable(a, marks, marks_n)) {
        if (!hide) e = answer_write_event(a, ev->raw, ev->name, ev->data);
    } else {
        e = answer_hold(a, &a->queue, ev, marks, marks_n, hide);
        if (e == ERR_OK && !a->over) e = answer_release(a);
    }
    if (done && e == ERR_OK && a->state == ANSWER_OPEN) a->state = ANSWER_DONE;
    return e;
}

static enum err take_event(struct answer *a, const struct sse_event *ev)
{
    struct mark few[MARKS_FEW], *marks = answer_marks(a->chunk->deltas_n, few);
    if (marks == NULL) return ERR_NOMEM;
    enum err e = answer_feed_chunk(a, false, marks);
    if (e == ERR_OK) answer_learn(a, ev, marks);
    if (e == ERR_OK) e = pass_event(a, ev, marks);
    answer_marks_done(marks, few);
    return e;
}

/* Takes it, or says that it must wait. */
static enum err try_event(struct answer *a, const struct sse_event *ev, bool *ret_waits)
{
    bool torn = !parse(a, ev);
    *ret_waits = a->over;
    if (torn) return ERR_OK; /* half an event is none */
    if (!a->over && gated(a) && a->chunk->deltas_n > 0) {
        a->wants = answer_tokens(a) + answer_most_tokens(a);
        *ret_waits = !answer_has_allowance(a, a->wants);
    }
    return *ret_waits ? ERR_OK : take_event(a, ev);
}

/* The event that was parsed only opens the stream. */
static bool is_opening(const struct chunk *c)
{
    for (size_t i = 0; i < c->choices_n; i++)
        if (c->choices[i].finished) return false;
    return c->deltas_n == 0 && !c->is_done && !c->is_error && !c->uncountable && !c->usage_only;
}

static enum err on_event(struct answer *a, const struct sse_event *ev)
{
    bool waits = true;
    bool first = !a->begun && ev->data.p != NULL;
    if (a->state == ANSWER_CUT) return ERR_OK;
    enum err e = list_empty(&a->unfed) ? try_event(a, ev, &waits) : ERR_OK;
    if (first) {
        a->opened = true;
        a->begun = a->begun || !is_opening(a->chunk);
        a->error_first = a->error;
    }
    return waits && e == ERR_OK ? answer_hold(a, &a->unfed, ev, NULL, 0, false) : e;
}

bool answer_waits(const struct answer *a)
{
    return a->state != ANSWER_CUT && (a->over || !list_empty(&a->unfed));
}

uint64_t answer_wants(const struct answer *a)
{
    return answer_waits(a) ? a->wants : answer_tokens(a);
}

uint64_t answer_due(const struct answer *a)
{
    return a->over ? a->written : MIN(answer_tokens(a), a->o.limit);
}

void answer_allow(struct answer *a, uint64_t tokens)
{
    a->o.allowance = tokens;
}

void answer_deny(struct answer *a)
{
    a->o.limit = MIN(a->o.limit, a->o.allowance);
}

/* Ends behind what was passed on. */
static enum err stop_here(struct answer *a)
{
    a->stopped = true;
    drop_all(&a->queue);
    drop_all(&a->unfed);
    return answer_write_ending(a);
}

static enum err resume(struct answer *a)
{
    enum err e = ERR_OK;
    bool waits = false;
    if (a->over) {
        if (answer_tokens(a) > a->o.allowance) return gated(a) ? ERR_OK : stop_here(a);
        a->over = false;
        e = answer_release(a);
    }
    while (e == ERR_OK && !waits && !list_empty(&a->unfed) && a->state != ANSWER_CUT) {
        struct sse_event ev;
        struct held *h = answer_unhold(a, &a->unfed, &ev);
        e = try_event(a, &ev, &waits);
        if (waits) {
            list_push_front(&a->unfed, &h->node);
            a->held_bytes += h->raw_n + (h->has_data && h->data_at == h->raw_n ? h->data_n : 0);
        } else {
            free(h);
        }
    }
    return e;
}

enum err answer_stop(struct answer *a, uint64_t tokens, struct buf *out)
{
    a->written = tokens;
    a->out = out;
    return stop_here(a);
}

enum err answer_resume(struct answer *a, struct buf *out)
{
    struct chunk chunk;
    if (a->state == ANSWER_CUT) return ERR_OK;
    a->out = out;
    a->asked = false;
    a->chunk = &chunk;
    chunk_init(&chunk);
    enum err e = resume(a);
    chunk_done(&chunk);
    a->chunk = NULL;
    return e;
}

enum err answer_feed(struct answer *a, struct str bytes, struct buf *out)
{
    struct chunk chunk;
    struct sse_event ev;
    enum err e = ERR_OK;
    a->out = out;
    a->asked = false;
    a->chunk = &chunk;
    chunk_init(&chunk);
    while (e == ERR_OK && a->state != ANSWER_CUT) {
        e = answer_feed_known(a, &bytes);
        if (e == ERR_OK && a->state != ANSWER_CUT) e = sse_next(&a->sse, &bytes, &ev);
        if (e == ERR_OK && a->state != ANSWER_CUT) e = on_event(a, &ev);
    }
    chunk_done(&chunk);
    a->chunk = NULL;
    return e == ERR_AGAIN ? ERR_OK : e;
}

enum err answer_end(struct answer *a, struct buf *out)
{
    struct chunk chunk;
    struct sse_event ev;
    if (a->state == ANSWER_CUT) return ERR_OK;
    a->out = out;
    a->asked = false;
    a->chunk = &chunk;
    chunk_init(&chunk);
    a->at_end = true;
    enum err e = sse_last(&a->sse, &ev);
    e = e == ERR_AGAIN ? ERR_OK : e == ERR_OK ? on_event(a, &ev) : e;
    if (answer_waits(a)) goto out;
    if (e == ERR_OK && a->state == ANSWER_OPEN) e = answer_finish_all(a);
    if (e == ERR_OK) e = answer_release(a);
out:
    chunk_done(&chunk);
    a->chunk = NULL;
    return e;
}

/* --- questions --- */

enum answer_state answer_state(const struct answer *a)
{
    return a->state;
}

bool answer_is_complete(const struct answer *a)
{
    return a->state != ANSWER_OPEN ||
           (a->seen_choices != 0 && a->seen_choices == a->finished_choices);
}

uint64_t answer_tokens(const struct answer *a)
{
    uint64_t n = 0;
    if (a->stopped) return a->written;
    for (size_t i = 0; i < a->texts_n; i++) n += a->texts[i].count;
    return n;
}

uint64_t answer_reasoning_tokens(const struct answer *a)
{
    uint64_t n = 0;
    for (size_t i = 0; i < a->texts_n; i++)
        if (a->texts[i].kind == DELTA_REASONING) n += a->texts[i].count;
    return n;
}

size_t answer_memory(const struct answer *a)
{
    return sizeof *a + a->held_bytes + a->scratch.cap;
}

bool answer_is_exact(const struct answer *a)
{
    if (a->o.vocab == NULL || a->o.guess || a->uncounted) return false;
    for (size_t i = 0; i < a->texts_n; i++) {
        const struct token_meter *m = a->texts[i].meter;
        if (m != NULL ? !meter_exact(m) : !vocab_exact(a->o.vocab)) return false;
    }
    return true;
}

bool answer_has_opened(const struct answer *a)
{
    return a->opened;
}

bool answer_has_begun(const struct answer *a)
{
    return a->begun;
}

bool answer_begins_with_error(const struct answer *a)
{
    return a->error_first;
}

bool answer_saw_error(const struct answer *a)
{
    return a->error;
}

uint64_t answer_sequence(const struct answer *a)
{
    return a->sequence;
}

const struct reported_usage *answer_reported(const struct answer *a)
{
    return &a->reported;
}
