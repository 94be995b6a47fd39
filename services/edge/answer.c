/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See the header. A stream's events are parsed, their texts fed to meters (one per text), and
 * passed on as they came as soon as all their bytes are deliverable; until then they wait in a
 * queue, in order. At a cut the event that holds the limit is rewritten by splices, and the
 * dialect's own ending follows.
 */
#include "answer.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/list.h"
#include "splice.h"
#include "sse.h"

enum { SCRATCH_KEPT = 256 };

struct text {
    enum delta_kind kind;
    uint32_t choice, item;
    struct token_meter *meter;
    uint64_t count; /* of the meter, when last asked, and of those before it */
    bool finished;
    /* What came before an end that was none: the text went on, with another meter. */
    uint64_t before_bytes, before_tokens;
};

/* Where a delta lies in its text. */
struct mark {
    uint8_t text;
    uint64_t start, end;
};

/* An event that waits: its bytes, and what of which text it brings. */
struct held {
    struct list_node node;
    size_t raw_n, data_at, data_n, name_at, name_n; /* in bytes */
    bool has_data, has_name, hide;
    char *bytes; /* behind the marks */
    size_t marks_n;
    struct mark marks[];
};

struct answer {
    struct answer_options o;
    struct sse sse;
    struct text *texts;
    size_t texts_n, texts_cap;
    struct list_node queue;
    size_t held_bytes;
    struct buf scratch;  /* decoded text of a delta */
    struct chunk *chunk; /* during a call, on its stack: streams that are idle are small */
    struct buf *out;     /* during a call */

    enum answer_state state;
    bool error, uncounted;
    uint32_t seen_choices, finished_choices; /* bit sets */
    bool block_open;
    uint32_t block;
    struct reported_usage reported;
    struct buf id, object, created, model; /* raw JSON of the stream's head members */
};

struct answer *answer_new(const struct answer_options *o)
{
    struct answer *a = calloc(1, sizeof *a);
    if (a == NULL) return NULL;
    a->o = *o;
    if (a->o.vocab != NULL) vocab_ref(a->o.vocab);
    sse_init(&a->sse, ANSWER_EVENT_MAX);
    list_init(&a->queue);
    buf_init(&a->scratch, ANSWER_EVENT_MAX * 64);
    buf_init(&a->id, 512), buf_init(&a->object, 512), buf_init(&a->created, 64),
        buf_init(&a->model, 512);
    return a;
}

void answer_free(struct answer *a)
{
    if (a == NULL) return;
    for (size_t i = 0; i < a->texts_n; i++) meter_free(a->texts[i].meter);
    free(a->texts);
    for (struct list_node *n; (n = list_pop_front(&a->queue)) != NULL;)
        free(LIST_ENTRY(n, struct held, node));
    sse_done(&a->sse);
    buf_done(&a->scratch);
    buf_done(&a->id), buf_done(&a->object), buf_done(&a->created), buf_done(&a->model);
    vocab_unref(a->o.vocab);
    free(a);
}

/* --- texts and their meters --- */

static enum err text_of(struct answer *a, const struct delta *d, size_t *ret)
{
    for (size_t i = 0; i < a->texts_n; i++) {
        struct text *t = &a->texts[i];
        if (t->kind == d->kind && t->choice == d->choice && t->item == d->item)
            return *ret = i, ERR_OK;
    }
    if (a->texts_n == ANSWER_MAX_TEXTS) return ERR_LIMIT;
    if (a->texts_n == a->texts_cap) {
        a->texts_cap = a->texts_cap > 0 ? a->texts_cap * 2 : 2;
        a->texts = xrealloc(a->texts, a->texts_cap * sizeof *a->texts);
    }
    struct text *t = &a->texts[a->texts_n];
    *t = (struct text){ .kind = d->kind, .choice = d->choice, .item = d->item };
    t->meter = meter_new(a->o.vocab, SPECIAL_CONTROL);
    if (t->meter == NULL) return ERR_NOMEM;
    return *ret = a->texts_n++, ERR_OK;
}

/* Of all the text's bytes, how many may be delivered. */
static uint64_t deliverable(const struct text *t)
{
    return t->before_bytes + meter_deliverable(t->meter);
}

/* A text that goes on behind its finish reason, as it should not: what was counted stays. */
static enum err reopen(struct answer *a, struct text *t)
{
    struct token_meter *next = meter_new(a->o.vocab, SPECIAL_CONTROL);
    if (next == NULL) return ERR_NOMEM;
    t->before_bytes += meter_fed(t->meter);
    t->before_tokens = t->count;
    meter_free(t->meter);
    t->meter = next;
    t->finished = false;
    a->uncounted = true; /* as one text it might be fewer tokens */
    return ERR_OK;
}

/* What is left of the budget for this text. */
static void set_limit(struct answer *a, struct text *t)
{
    uint64_t others = t->before_tokens;
    if (a->o.limit == METER_NO_LIMIT) return;
    for (size_t i = 0; i < a->texts_n; i++)
        if (&a->texts[i] != t) others += a->texts[i].count;
    meter_set_limit(t->meter, a->o.limit > others ? a->o.limit - others : 0);
}

static enum err finish_text(struct answer *a, struct text *t)
{
    if (t->finished) return ERR_OK;
    t->finished = true;
    set_limit(a, t);
    enum err e = meter_finish(t->meter);
    t->count = t->before_tokens + meter_count(t->meter);
    return e;
}

static enum err finish_all(struct answer *a)
{
    enum err e = ERR_OK;
    for (size_t i = 0; i < a->texts_n && e == ERR_OK; i++) e = finish_text(a, &a->texts[i]);
    return e;
}

static bool any_cut(const struct answer *a)
{
    for (size_t i = 0; i < a->texts_n; i++)
        if (meter_cut(a->texts[i].meter, NULL)) return true;
    return false;
}

/* Feeds one delta to its meter and notes where it lies. */
static enum err feed_delta(struct answer *a, const struct delta *d, struct mark *ret)
{
    size_t i;
    enum err e = text_of(a, d, &i);
    if (e != ERR_OK) return e;
    struct text *t = &a->texts[i];
    buf_clear(&a->scratch);
    e = js_decode(d->text, &a->scratch);
    if (e != ERR_OK) return e;
    if (t->finished && a->scratch.len > 0 && !meter_cut(t->meter, NULL)) e = reopen(a, t);
    if (e != ERR_OK) return e;
    *ret = (struct mark){ .text = (uint8_t)i, .start = t->before_bytes + meter_fed(t->meter) };
    ret->end = ret->start + a->scratch.len;
    if (t->finished) return ERR_OK; /* it was cut */
    set_limit(a, t);
    e = meter_feed(t->meter, buf_str(&a->scratch));
    t->count = t->before_tokens + meter_count(t->meter);
    if (a->scratch.cap > SCRATCH_KEPT) buf_done(&a->scratch);
    return e;
}

static bool is_deliverable(const struct answer *a, const struct mark *marks, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const struct text *t = &a->texts[marks[i].text];
        uint64_t upto = deliverable(t);
        if (marks[i].end > upto) return false;
    }
    return true;
}

/* --- writing events --- */

/* An event whose data were changed by splices. Line ends inside of the data can only be white space
 * of the JSON. */
static enum err write_spliced(struct answer *a, struct str name, struct str data, struct splice *s,
                              size_t n)
{
    enum err e = ERR_OK;
    if (name.p != NULL) e = buf_printf(a->out, "event: %.*s\n", STR_ARG(name));
    if (e == ERR_OK) e = buf_appendz(a->out, "data: ");
    size_t start = a->out->len;
    if (e == ERR_OK) e = splice_apply(data, s, n, a->out);
    for (size_t i = start; i < a->out->len && e == ERR_OK; i++)
        if (a->out->data[i] == '\n' || a->out->data[i] == '\r') a->out->data[i] = ' ';
    return e == ERR_OK ? buf_appendz(a->out, "\n\n") : e;
}

/* Passes an event on, without the usage member that the client did not ask for.
 */
static enum err write_event(struct answer *a, struct str raw, struct str name, struct str data)
{
    if (a->o.hide_usage && a->chunk->usage_member.p != NULL) {
        struct splice s = { a->chunk->usage_member.p, a->chunk->usage_member.n, STR_NULL };
        return write_spliced(a, name, data, &s, 1);
    }
    return buf_append_str(a->out, raw);
}

/* --- the end by a cut --- */

/* Splices that take out of the parsed chunk what may not be delivered. Returns how many; *ret_any:
 * text is left. */
static size_t cut_splices(struct answer *a, const struct mark *marks, size_t marks_n,
                          struct splice *s, bool *ret_any)
{
    const struct chunk *c = a->chunk;
    size_t n = 0;
    *ret_any = false;
    for (size_t i = 0; i < c->deltas_n && i < marks_n; i++) {
        uint64_t upto = deliverable(&a->texts[marks[i].text]);
        if (upto > marks[i].start) *ret_any = true;
        if (upto >= marks[i].end) continue;
        uint64_t keep = upto > marks[i].start ? upto - marks[i].start : 0;
        size_t raw_keep = js_raw_prefix(c->deltas[i].text, keep);
        const char *at = c->deltas[i].text.raw.p + 1 + raw_keep;
        s[n++] = (struct splice){
            at, (size_t)(c->deltas[i].text.raw.p + c->deltas[i].text.raw.n - 1 - at), STR_NULL
        };
    }
    for (size_t i = 0; i < c->choices_n; i++) {
        if (js_is(c->choices[i].logprobs, JS_OBJECT))
            s[n++] = (struct splice){ c->choices[i].logprobs.raw.p, c->choices[i].logprobs.raw.n,
                                      STR("null") };
    }
    return n;
}

static enum err write_ending(struct answer *a)
{
    struct ending e = {
        .id = a->id.len > 0 ? buf_str(&a->id) : STR_NULL,
        .object = a->object.len > 0 ? buf_str(&a->object) : STR_NULL,
        .created = a->created.len > 0 ? buf_str(&a->created) : STR_NULL,
        .model = a->model.len > 0 ? buf_str(&a->model) : STR_NULL,
        .block_open = a->block_open,
        .block = a->block,
        .want_usage = a->o.want_usage,
        .input_tokens = a->o.input_tokens,
        .output_tokens = answer_tokens(a),
    };
    for (uint32_t i = 0; i < CHUNK_MAX_CHOICES; i++)
        if (a->seen_choices >> i & 1u && !(a->finished_choices >> i & 1u))
            e.open_choices[e.open_n++] = i;
    a->state = ANSWER_CUT;
    return a->o.dialect->write_ending(&e, a->out);
}

/* The event at which the limit was passed: what of it may be delivered, then the ending. */
static enum err write_cut(struct answer *a, struct str name, struct str data,
                          const struct mark *marks, size_t marks_n)
{
    struct splice s[CHUNK_MAX_DELTAS + 2 * CHUNK_MAX_CHOICES + 1];
    bool any;
    size_t n = cut_splices(a, marks, marks_n, s, &any);
    for (size_t i = 0; i < a->chunk->choices_n; i++) {
        /* The choices that end here end by the cut. */
        if (!a->chunk->choices[i].finished) continue;
        a->finished_choices &= ~(1u << a->chunk->choices[i].index);
        struct js_val reason = a->chunk->choices[i].finish_reason;
        s[n++] = (struct splice){ reason.raw.p, reason.raw.n, STR("null") };
    }
    if (a->o.hide_usage && a->chunk->usage_member.p != NULL)
        s[n++] = (struct splice){ a->chunk->usage_member.p, a->chunk->usage_member.n, STR_NULL };
    enum err e = any ? write_spliced(a, name, data, s, n) : ERR_OK;
    return e == ERR_OK ? write_ending(a) : e;
}

/* --- the queue --- */

static enum err hold(struct answer *a, const struct sse_event *ev, const struct mark *marks,
                     size_t marks_n, bool hide)
{
    /* data points into raw, or was joined from several lines and is kept behind it. */
    bool inside = ev->data.p >= ev->raw.p && ev->data.p < ev->raw.p + ev->raw.n;
    size_t n = ev->raw.n + (ev->data.p != NULL && !inside ? ev->data.n : 0);
    if (n > ANSWER_HELD_MAX - MIN(a->held_bytes, (size_t)ANSWER_HELD_MAX)) return ERR_LIMIT;
    struct held *h = malloc(sizeof *h + marks_n * sizeof *marks + n);
    if (h == NULL) return ERR_NOMEM;
    h->node = (struct list_node){ 0 };
    h->bytes = (char *)(h->marks + marks_n);
    h->raw_n = ev->raw.n;
    memcpy(h->bytes, ev->raw.p, ev->raw.n);
    h->has_data = ev->data.p != NULL;
    h->data_n = ev->data.n;
    h->data_at = inside ? (size_t)(ev->data.p - ev->raw.p) : ev->raw.n;
    if (h->has_data && !inside && ev->data.n > 0)
        memcpy(h->bytes + ev->raw.n, ev->data.p, ev->data.n);
    h->has_name = ev->name.p != NULL;
    h->name_n = ev->name.n;
    h->name_at = h->has_name && ev->name.n > 0 ? (size_t)(ev->name.p - ev->raw.p) : 0;
    h->hide = hide;
    h->marks_n = marks_n;
    if (marks_n > 0) memcpy(h->marks, marks, marks_n * sizeof *marks);
    list_push_back(&a->queue, &h->node);
    a->held_bytes += n;
    return ERR_OK;
}

/* Passes on what is decided, from the front. */
static enum err release(struct answer *a)
{
    bool cut = any_cut(a);
    enum err e = cut ? finish_all(a) : ERR_OK;
    while (e == ERR_OK && !list_empty(&a->queue) && a->state != ANSWER_CUT) {
        struct held *h = LIST_ENTRY(a->queue.next, struct held, node);
        bool whole = is_deliverable(a, h->marks, h->marks_n);
        if (!whole && !cut) break;
        struct str raw = str_n(h->bytes, h->raw_n), data = STR_NULL, name = STR_NULL;
        if (h->has_data) data = str_n(h->bytes + h->data_at, h->data_n);
        if (h->has_name) name = str_n(h->bytes + h->name_at, h->name_n);
        chunk_clear(a->chunk);
        if (h->has_data && a->o.dialect->parse_event(name, data, a->chunk) != ERR_OK)
            chunk_clear(a->chunk);
        if (!whole)
            e = write_cut(a, name, data, h->marks, h->marks_n);
        else if (!h->hide)
            e = write_event(a, raw, name, data);
        list_remove(&h->node);
        a->held_bytes -= h->raw_n + (h->has_data && h->data_at == h->raw_n ? h->data_n : 0);
        free(h);
    }
    return e;
}

/* --- events --- */

static void keep_first(struct buf *b, struct js_val v)
{
    if (b->len == 0 && v.raw.p != NULL && buf_append_str(b, v.raw) != ERR_OK) buf_clear(b);
}

/* The members that an ending repeats: taken from the first event that has them, when a limit is in
 * force. */
static void note_head(struct answer *a, struct str data)
{
    struct js_val root;
    if (a->o.limit == METER_NO_LIMIT || a->id.len > 0 || js_parse(data, &root, NULL) != ERR_OK)
        return;
    keep_first(&a->id, js_get(root, "id"));
    keep_first(&a->object, js_get(root, "object"));
    keep_first(&a->created, js_get(root, "created"));
    keep_first(&a->model, js_get(root, "model"));
}

static void note_usage(struct answer *a, const struct reported_usage *r)
{
    if (!r->present) return;
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
            if (a->texts[k].choice == c->choices[i].index) e = finish_text(a, &a->texts[k]);
    }
    if (c->block_started) a->block_open = true, a->block = c->block;
    if (c->block_stopped) {
        a->block_open = false;
        for (size_t k = 0; k < a->texts_n && e == ERR_OK; k++)
            if (a->texts[k].item == c->block) e = finish_text(a, &a->texts[k]);
    }
    if (c->is_done && e == ERR_OK) e = finish_all(a);
    if (c->is_error) a->error = true;
    return e;
}

static enum err on_event(void *ctx, const struct sse_event *ev)
{
    struct answer *a = ctx;
    struct mark marks[CHUNK_MAX_DELTAS];
    size_t marks_n = 0;
    enum err e = ERR_OK;
    if (a->state == ANSWER_CUT) return ERR_OK;
    chunk_clear(a->chunk);
    if (ev->data.p != NULL) {
        e = a->o.dialect->parse_event(ev->name, ev->data, a->chunk);
        if (e != ERR_OK) {
            /* Not what the dialect sends: passes as it is, and nobody can say what it held. */
            chunk_clear(a->chunk);
            a->uncounted = true;
            e = ERR_OK;
        } else {
            note_head(a, ev->data);
        }
    }
    for (; marks_n < a->chunk->deltas_n && e == ERR_OK; marks_n++) {
        a->seen_choices |= 1u << a->chunk->deltas[marks_n].choice;
        e = feed_delta(a, &a->chunk->deltas[marks_n], &marks[marks_n]);
    }
    if (e == ERR_OK) e = note_ends(a);
    if (e != ERR_OK) return e;
    note_usage(a, &a->chunk->reported);
    bool hide = a->o.hide_usage && a->chunk->usage_only, done = a->chunk->is_done;

    bool cut = any_cut(a);
    if (list_empty(&a->queue) && !cut && is_deliverable(a, marks, marks_n)) {
        if (!hide) e = write_event(a, ev->raw, ev->name, ev->data);
    } else {
        e = hold(a, ev, marks, marks_n, hide);
        if (e == ERR_OK) e = release(a);
    }
    if (done && e == ERR_OK && a->state == ANSWER_OPEN) a->state = ANSWER_DONE;
    return e;
}

enum err answer_feed(struct answer *a, struct str bytes, struct buf *out)
{
    struct chunk chunk;
    if (a->state == ANSWER_CUT) return ERR_OK;
    a->out = out;
    a->chunk = &chunk;
    enum err e = sse_feed(&a->sse, bytes, on_event, a);
    a->chunk = NULL;
    return e;
}

enum err answer_end(struct answer *a, struct buf *out)
{
    struct chunk chunk;
    if (a->state == ANSWER_CUT) return ERR_OK;
    a->out = out;
    a->chunk = &chunk;
    enum err e = sse_finish(&a->sse, on_event, a);
    if (e == ERR_OK && a->state == ANSWER_OPEN) e = finish_all(a);
    if (e == ERR_OK) e = release(a);
    a->chunk = NULL;
    return e;
}

/* --- whole answers --- */

/* What the usage of a cut answer says: tokens delivered. The numbers live in text. */
static size_t usage_splices(struct answer *a, char text[2][24], struct splice *s)
{
    const struct chunk *c = a->chunk;
    uint64_t values[2] = { answer_tokens(a), a->reported.input + answer_tokens(a) };
    struct js_val at[2] = { c->completion_tokens, c->total_tokens };
    size_t n = 0;
    for (int i = 0; i < 2; i++) {
        if (!js_is(at[i], JS_NUMBER)) continue;
        int len = snprintf(text[i], sizeof text[i], "%llu", (unsigned long long)values[i]);
        s[n++] = (struct splice){ at[i].raw.p, at[i].raw.n, str_n(text[i], (size_t)len) };
    }
    return n;
}

static enum err write_cut_answer(struct answer *a, struct str body, const struct mark *marks)
{
    struct splice s[CHUNK_MAX_DELTAS + 2 * CHUNK_MAX_CHOICES + 2];
    char numbers[2][24];
    bool any;
    size_t n = cut_splices(a, marks, a->chunk->deltas_n, s, &any);
    for (size_t i = 0; i < a->chunk->choices_n; i++) {
        bool was_cut = false;
        for (size_t k = 0; k < a->chunk->deltas_n; k++)
            if (a->chunk->deltas[k].choice == a->chunk->choices[i].index &&
                deliverable(&a->texts[marks[k].text]) < marks[k].end)
                was_cut = true;
        struct js_val reason = a->chunk->choices[i].finish_reason;
        if (was_cut && reason.raw.p != NULL)
            s[n++] = (struct splice){ reason.raw.p, reason.raw.n, a->o.dialect->length_reason };
    }
    n += usage_splices(a, numbers, s + n);
    a->state = ANSWER_CUT;
    return splice_apply(body, s, n, a->out);
}

enum err answer_whole(struct answer *a, struct str body, struct buf *out)
{
    struct js_val root;
    struct mark marks[CHUNK_MAX_DELTAS];
    struct chunk chunk;
    a->out = out;
    a->chunk = &chunk;
    chunk_clear(&chunk);
    enum err e = js_parse(body, &root, NULL);
    if (e == ERR_OK) e = a->o.dialect->parse_answer(root, a->chunk);
    if (e != ERR_OK) {
        a->uncounted = true;
        return buf_append_str(out, body);
    }
    note_usage(a, &a->chunk->reported);
    a->error = a->chunk->is_error;
    for (size_t i = 0; i < a->chunk->deltas_n && e == ERR_OK; i++) {
        e = feed_delta(a, &a->chunk->deltas[i], &marks[i]);
        if (e == ERR_OK) e = finish_text(a, &a->texts[marks[i].text]);
    }
    if (e != ERR_OK) return e;
    if (any_cut(a)) return write_cut_answer(a, body, marks);
    a->state = ANSWER_DONE;
    return buf_append_str(out, body);
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

bool answer_is_exact(const struct answer *a)
{
    if (a->o.vocab == NULL || a->uncounted) return false;
    for (size_t i = 0; i < a->texts_n; i++)
        if (!meter_exact(a->texts[i].meter)) return false;
    return true;
}

bool answer_saw_error(const struct answer *a)
{
    return a->error;
}

const struct reported_usage *answer_reported(const struct answer *a)
{
    return &a->reported;
}
