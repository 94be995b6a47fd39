/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The events of a stream are alike but for the text that each brings. One that was parsed leaves
 * its form: its bytes, with holes where they may be others. What has the same bytes around its
 * holes, and in them what a JSON string or a number may hold, says the same, and is known without
 * parsing:
 *
 *      data: {"id":"c","choices":[{"index":0,"delta":{"content":"▢"},"finish_reason":null}]}\n\n
 *
 * Such events are taken in runs: their texts are fed to the meter as one, and their bytes passed on
 * as one. Whatever is not quite so (another choice, a finish reason, usage, an id that changes) is
 * no event of that form, and is parsed. What comes out is the same either way. On the flow's
 * worker.
 */
#include <stdlib.h>

#include "answer_impl.h"
#include "base/prefetch.h"

enum {
    FORMS_MAX = 4, /* of a stream: choices in turn, reasoning and content */
    FORM_BYTES = 2048,
    HOLES_MAX = 3,
    NO_PLACE = HOLES_MAX + 1,
    RUN_TEXT = 2048,       /* bytes of text that are fed as one */
    RUN_BYTES = 64 * 1024, /* of events */
    TRIES = 16,            /* forms that are kept before any was met again */
    SLACK = 8,             /* tokens: what the last letters may count more in between */
    SCRATCH_KEPT = 256,
    LITERALS_USUAL = 256, /* bytes of a form */
};

enum hole { HOLE_TEXT, HOLE_PADDING, HOLE_SEQUENCE };

struct form {
    enum hole holes[HOLES_MAX];
    size_t holes_n, text_at, sequence_at; /* which hole; NO_PLACE: none */
    size_t literal_n[HOLES_MAX + 1];      /* bytes in front of each hole, and behind the last */
    size_t data_at, data_tail;            /* bytes of the event in front of its data, and behind */
    size_t name_at, name_n;
    bool has_name;
    size_t cut_in, cut_at, cut_n; /* what is taken out, in which literal; NO_PLACE: nothing */
    size_t text;                  /* of the answer's */
    uint32_t item;
    char bytes[]; /* the literals */
};

struct forms {
    struct form *v[FORMS_MAX];
    size_t n, next, last; /* the one that is replaced next, and the one that was met last */
    uint64_t made, met;
};

/* An event that has a form. */
struct known {
    struct str raw, hole[HOLES_MAX];
};

struct run {
    const struct form *form;
    struct str raw;
    uint64_t most; /* tokens, without the last one's */
    uint64_t sequence;
};

void answer_prefetch_forms(const struct answer *a)
{
    if (a->forms == NULL || a->forms->n == 0) return;
    const struct form *likely = a->forms->v[a->forms->last];
    prefetch(likely, sizeof *likely + LITERALS_USUAL);
}

void answer_forget_forms(struct answer *a)
{
    if (a->forms == NULL) return;
    for (size_t i = 0; i < a->forms->n; i++) free(a->forms->v[i]);
    free(a->forms);
}

/* --- known or not --- */

/* A whole number as JSON writes it, that any integer holds; else NULL. */
static const char *number_end(const char *p, const char *end)
{
    const char *start = p;
    while (p < end && *p >= '0' && *p <= '9') p++;
    bool fits = p - start >= 1 && p - start <= 18 && (*start != '0' || p - start == 1);
    return fits ? p : NULL;
}

static bool is_of(const struct form *f, struct str at, struct known *ret)
{
    const char *p = at.p, *end = at.p + at.n, *literal = f->bytes;
    for (size_t i = 0;; i++) {
        size_t n = f->literal_n[i];
        if ((size_t)(end - p) < n || memcmp(p, literal, n) != 0) return false;
        p += n, literal += n;
        if (i == f->holes_n) break;
        const char *start = p;
        p = f->holes[i] == HOLE_SEQUENCE ? number_end(p, end) : js_string_end(p, end);
        if (p == NULL) return false;
        ret->hole[i] = str_n(start, (size_t)(p - start));
    }
    ret->raw = str_n(at.p, (size_t)(p - at.p));
    return ret->hole[f->text_at].n > 0; /* else it brings nothing */
}

static bool takes_text(const struct answer *a, const struct form *f)
{
    const struct text *t = &a->texts[f->text];
    return !t->finished && !answer_is_cut(t);
}

static const struct form *find(struct answer *a, struct str at, struct known *ret)
{
    struct forms *fs = a->forms;
    for (size_t k = 0; k < fs->n; k++) {
        size_t i = (fs->last + k) % fs->n;
        if (!takes_text(a, fs->v[i]) || !is_of(fs->v[i], at, ret)) continue;
        fs->last = i;
        fs->met++;
        return fs->v[i];
    }
    return NULL;
}

/* --- a form --- */

static bool is_inside(struct str s, struct str of)
{
    return s.p >= of.p && s.p + s.n <= of.p + of.n;
}

/* It brings one piece of text, and nothing else that anybody would note. */
static bool is_plain(const struct chunk *c)
{
    if (c->is_done || c->is_error || c->usage_only || c->uncountable) return false;
    if (c->block_started || c->block_stopped || c->reported.present) return false;
    for (size_t i = 0; i < c->choices_n; i++)
        if (c->choices[i].finished) return false;
    return c->deltas_n == 1 && c->deltas[0].form == DELTA_PIECE;
}

/* Its bytes can be compared: all of it is in them, as it is. */
static bool is_comparable(const struct sse_event *ev, const struct delta *d)
{
    bool named = ev->name.n > 0;
    if (ev->raw.n > FORM_BYTES || ev->raw.p[0] == '\xef') return false; /* a byte order mark */
    if (!is_inside(ev->data, ev->raw) || !is_inside(d->text.raw, ev->data)) return false;
    return !named || (is_inside(ev->name, ev->raw) && ev->name.p < ev->data.p);
}

static void add_hole(struct form *f, struct str *where, enum hole kind, struct str s)
{
    size_t i = f->holes_n++;
    for (; i > 0 && where[i - 1].p > s.p; i--) {
        where[i] = where[i - 1];
        f->holes[i] = f->holes[i - 1];
    }
    where[i] = s;
    f->holes[i] = kind;
}

static struct str inside_quotes(struct js_val v)
{
    return str_n(v.raw.p + 1, v.raw.n - 2);
}

/* The literals are what is around the holes. */
static bool set_literals(struct form *f, const struct str *where, struct str raw)
{
    const char *p = raw.p;
    char *to = f->bytes;
    f->text_at = f->sequence_at = NO_PLACE;
    for (size_t i = 0; i <= f->holes_n; i++) {
        const char *stop = i < f->holes_n ? where[i].p : raw.p + raw.n;
        if (stop < p) return false;
        f->literal_n[i] = (size_t)(stop - p);
        memcpy(to, p, f->literal_n[i]);
        to += f->literal_n[i];
        if (i == f->holes_n) break;
        p = stop + where[i].n;
        if (f->holes[i] == HOLE_TEXT) f->text_at = i;
        if (f->holes[i] == HOLE_SEQUENCE) f->sequence_at = i;
    }
    return true;
}

/* What is taken out of such an event stands between two holes. */
static bool set_cut(struct form *f, const struct str *where, struct str raw, struct str cut)
{
    const char *p = raw.p;
    f->cut_in = NO_PLACE;
    if (cut.p == NULL) return true;
    for (size_t i = 0; i <= f->holes_n; i++) {
        struct str literal = str_n(p, f->literal_n[i]);
        if (is_inside(cut, literal)) {
            f->cut_in = i;
            f->cut_at = (size_t)(cut.p - p);
            f->cut_n = cut.n;
            return true;
        }
        p += literal.n + (i < f->holes_n ? where[i].n : 0);
    }
    return false;
}

static struct form *form_of(const struct answer *a, const struct sse_event *ev, size_t text)
{
    const struct chunk *c = a->chunk;
    struct str where[HOLES_MAX];
    struct form *f = calloc(1, sizeof *f + ev->raw.n);
    if (f == NULL) return NULL;
    add_hole(f, where, HOLE_TEXT, inside_quotes(c->deltas[0].text));
    if (js_is(c->padding, JS_STRING)) add_hole(f, where, HOLE_PADDING, inside_quotes(c->padding));
    if (c->has_sequence) add_hole(f, where, HOLE_SEQUENCE, c->sequence_at.raw);
    struct str cut = a->o.hide_usage ? c->usage_member : STR_NULL;
    bool ok = set_literals(f, where, ev->raw) && set_cut(f, where, ev->raw, cut) &&
              (cut.p == NULL || a->transcript == NULL);
    if (!ok) {
        free(f);
        return NULL;
    }
    f->text = text;
    f->item = c->deltas[0].item;
    f->data_at = (size_t)(ev->data.p - ev->raw.p);
    f->data_tail = ev->raw.n - f->data_at - ev->data.n;
    f->has_name = ev->name.p != NULL;
    f->name_n = ev->name.n;
    f->name_at = ev->name.n > 0 ? (size_t)(ev->name.p - ev->raw.p) : 0;
    return f;
}

void answer_learn(struct answer *a, const struct sse_event *ev, const struct mark *marks)
{
    struct known k;
    if (!is_plain(a->chunk) || !is_comparable(ev, &a->chunk->deltas[0])) return;
    if (!a->alike) { /* one alone is not worth its memory */
        a->alike = true;
        return;
    }
    if (a->forms == NULL) a->forms = calloc(1, sizeof *a->forms);
    struct forms *fs = a->forms;
    if (fs == NULL || fs->made > fs->met + TRIES) return;
    for (size_t i = 0; i < fs->n; i++)
        if (is_of(fs->v[i], ev->raw, &k) && k.raw.n == ev->raw.n) return;
    struct form *f = form_of(a, ev, marks[0].text);
    if (f == NULL) return;
    free(fs->v[fs->next]);
    fs->v[fs->next] = f;
    fs->n = MAX(fs->n, fs->next + 1);
    fs->next = (fs->next + 1) % FORMS_MAX;
    fs->made++;
}

/* --- runs --- */

static struct sse_event event_of(const struct form *f, const struct known *k)
{
    struct sse_event ev = { .raw = k->raw, .name = STR_NULL };
    ev.data = str_n(k->raw.p + f->data_at, k->raw.n - f->data_at - f->data_tail);
    if (f->has_name) ev.name = str_n(k->raw.p + f->name_at, f->name_n);
    return ev;
}

static uint64_t sequence_of(const struct form *f, const struct known *k)
{
    uint64_t n = 0;
    return str_to_u64(k->hole[f->sequence_at], &n) == ERR_OK ? n : 0;
}

/* The next event of the run, which was of the form when the run was gathered. */
static bool next_of(const struct run *r, struct str *rest, struct known *ret)
{
    if (rest->n == 0) return false;
    ASSERT(is_of(r->form, *rest, ret));
    rest->p += ret->raw.n, rest->n -= ret->raw.n;
    return true;
}

static enum err write_without_cut(struct answer *a, const struct form *f, const struct known *k)
{
    struct sse_event ev = event_of(f, k);
    const char *at = k->raw.p + f->cut_at, *end = ev.data.p + ev.data.n;
    for (size_t i = 0; i < f->cut_in; i++) at = k->hole[i].p + k->hole[i].n + f->cut_at;
    enum err e = ERR_OK;
    if (f->has_name) e = buf_printf(a->out, "event: %.*s\n", STR_ARG(ev.name));
    if (e == ERR_OK) e = buf_appendz(a->out, "data: ");
    if (e == ERR_OK) e = buf_append(a->out, ev.data.p, (size_t)(at - ev.data.p));
    at += f->cut_n;
    if (e == ERR_OK) e = buf_append(a->out, at, (size_t)(end - at));
    return e == ERR_OK ? buf_appendz(a->out, "\n\n") : e;
}

static enum err write_run(struct answer *a, const struct run *r)
{
    const struct form *f = r->form;
    struct str rest = r->raw;
    struct known k;
    bool cuts = f->cut_in != NO_PLACE;
    enum err e = ERR_OK;
    while (e == ERR_OK && (cuts || a->transcript != NULL) && next_of(r, &rest, &k)) {
        if (cuts) e = write_without_cut(a, f, &k);
        if (a->transcript != NULL)
            transcript_note_piece(a->transcript, f->item, k.hole[f->text_at],
                                  f->sequence_at != NO_PLACE ? &r->sequence : NULL);
    }
    return cuts || e != ERR_OK ? e : buf_append_str(a->out, r->raw);
}

/* Not all of it is decided: each event waits for itself. */
static enum err hold_run(struct answer *a, const struct run *r, uint64_t had)
{
    const struct form *f = r->form;
    struct str rest = r->raw;
    struct known k;
    enum err e = ERR_OK;
    while (e == ERR_OK && next_of(r, &rest, &k)) {
        struct sse_event ev = event_of(f, &k);
        struct js_val text = { JS_STRING, str_n(k.hole[f->text_at].p - 1, k.hole[f->text_at].n + 2),
                               NULL };
        buf_clear(&a->scratch);
        e = js_decode(text, &a->scratch);
        struct mark m = { .text = (uint16_t)f->text, .start = had, .end = had + a->scratch.len };
        had = m.end;
        if (e == ERR_OK) e = answer_hold(a, &a->queue, &ev, &m, 1, false);
    }
    return e == ERR_OK && !a->over ? answer_release(a) : e;
}

static enum err pass_run(struct answer *a, const struct run *r)
{
    struct text *t = &a->texts[r->form->text];
    uint64_t had = answer_fed(t);
    enum err e = answer_feed_text(a, t, buf_str(&a->scratch));
    if (e != ERR_OK) return e;
    if (r->form->sequence_at != NO_PLACE) a->sequence = r->sequence + 1;
    answer_weigh(a);
    bool passes = !a->over && !answer_any_cut(a) && answer_deliverable(t) >= answer_fed(t);
    return passes ? write_run(a, r) : hold_run(a, r, had);
}

/* Nothing waits, and nothing is over. */
static bool is_flowing(const struct answer *a)
{
    return a->forms != NULL && a->state == ANSWER_OPEN && !a->over && !a->stopped &&
           list_empty(&a->queue) && list_empty(&a->unfed) && sse_is_between(&a->sse);
}

/* Whether the event may be one more of the run. */
static bool has_room(struct answer *a, struct run *r, const struct known *k, uint64_t tokens)
{
    struct str text = k->hole[r->form->text_at];
    if (a->o.allowance < a->o.limit) {
        r->most += answer_most_of(text);
        uint64_t wants = tokens + r->most + SLACK;
        bool first = r->raw.n == 0;
        if (first) (void)answer_has_allowance(a, MAX(wants, tokens + a->o.ahead));
        if (wants > a->o.allowance) return false;
    }
    return r->raw.n == 0 ||
           (a->scratch.len + text.n <= RUN_TEXT && r->raw.n + k->raw.n <= RUN_BYTES);
}

/* As many events of one form as come in a row, and may be taken as one; their text is in scratch.
 */
static enum err gather(struct answer *a, struct str bytes, struct run *ret)
{
    uint64_t tokens = answer_tokens(a);
    struct known k;
    enum err e = ERR_OK;
    *ret = (struct run){ .form = find(a, bytes, &k), .raw = str_n(bytes.p, 0) };
    buf_clear(&a->scratch);
    bool more = ret->form != NULL;
    while (more && e == ERR_OK && has_room(a, ret, &k, tokens)) {
        struct str text = k.hole[ret->form->text_at];
        e = js_decode((struct js_val){ JS_STRING, str_n(text.p - 1, text.n + 2), NULL },
                      &a->scratch);
        ret->raw.n += k.raw.n;
        if (ret->form->sequence_at != NO_PLACE) ret->sequence = sequence_of(ret->form, &k);
        bytes.p += k.raw.n, bytes.n -= k.raw.n;
        more = is_of(ret->form, bytes, &k);
    }
    return e;
}

enum err answer_feed_known(struct answer *a, struct str *bytes)
{
    struct run r;
    enum err e = ERR_OK;
    while (e == ERR_OK && bytes->n > 0 && is_flowing(a)) {
        e = gather(a, *bytes, &r);
        if (e == ERR_OK && r.raw.n == 0) break;
        if (e == ERR_OK) e = pass_run(a, &r);
        bytes->p += r.raw.n, bytes->n -= r.raw.n;
    }
    if (a->scratch.cap > SCRATCH_KEPT) buf_done(&a->scratch);
    return e;
}
