/* SPDX-License-Identifier: Apache-2.0 */
/* The texts of an answer and their meters: one per choice, kind and item. On the flow's worker. */
#include <stdlib.h>

#include "answer_impl.h"

enum { SCRATCH_KEPT = 256 };

static enum err text_of(struct answer *a, const struct delta *d, size_t *ret)
{
    for (size_t i = a->texts_n; i-- > 0;) {
        struct text *t = &a->texts[i];
        if (t->kind == d->kind && t->choice == d->choice && t->item == d->item)
            return *ret = i, ERR_OK;
    }
    if (a->texts_n == ANSWER_MAX_TEXTS) return ERR_LIMIT;
    if (a->texts_n == a->texts_cap) {
        a->texts_cap = a->texts_cap > 0 ? a->texts_cap * 2 : 1;
        a->texts = xrealloc(a->texts, a->texts_cap * sizeof *a->texts);
    }
    struct text *t = &a->texts[a->texts_n];
    *t = (struct text){ .kind = d->kind, .choice = d->choice, .item = d->item };
    return *ret = a->texts_n++, ERR_OK;
}

/* Of all the text's bytes, how many may be delivered. */
uint64_t answer_deliverable(const struct text *t)
{
    return t->before_bytes + (t->meter != NULL ? meter_deliverable(t->meter) : 0);
}

uint64_t answer_fed(const struct text *t)
{
    return t->before_bytes + (t->meter != NULL ? meter_fed(t->meter) : 0);
}

bool answer_is_cut(const struct text *t)
{
    return t->meter != NULL && meter_cut(t->meter, NULL);
}

/* A text that goes on behind its finish reason, as it should not: what was counted stays. */
static enum err reopen(struct answer *a, struct text *t)
{
    struct token_meter *next = meter_new(a->o.vocab, SPECIAL_CONTROL);
    if (next == NULL) return ERR_NOMEM;
    t->before_bytes = answer_fed(t);
    t->before_tokens = t->count;
    meter_free(t->meter);
    t->meter = next;
    t->finished = false;
    a->uncounted = true; /* as one text it might be fewer tokens */
    return ERR_OK;
}

/* What is left of the budget for this text. */
static uint64_t budget(const struct answer *a, const struct text *t)
{
    uint64_t others = t->before_tokens;
    if (a->o.limit == METER_NO_LIMIT) return METER_NO_LIMIT;
    for (size_t i = 0; i < a->texts_n; i++)
        if (&a->texts[i] != t) others += a->texts[i].count;
    return a->o.limit > others ? a->o.limit - others : 0;
}

enum err answer_finish_text(struct answer *a, struct text *t)
{
    if (t->finished) return ERR_OK;
    t->finished = true;
    if (t->meter == NULL) return ERR_OK; /* it has no byte */
    meter_set_limit(t->meter, budget(a, t));
    enum err e = meter_finish(t->meter);
    t->count = t->before_tokens + meter_count(t->meter);
    return e;
}

enum err answer_finish_all(struct answer *a)
{
    enum err e = ERR_OK;
    for (size_t i = 0; i < a->texts_n && e == ERR_OK; i++) e = answer_finish_text(a, &a->texts[i]);
    return e;
}

bool answer_any_cut(const struct answer *a)
{
    for (size_t i = 0; i < a->texts_n; i++)
        if (answer_is_cut(&a->texts[i])) return true;
    return false;
}

/* The delta's own bytes, and what of them is behind what its text had already. */
static enum err decode(struct answer *a, const struct delta *d, uint64_t had, struct str *ret_all,
                       struct str *ret_new)
{
    buf_clear(&a->scratch);
    struct str all = d->text.raw;
    if (d->form != DELTA_OBJECT && memchr(all.p, '\\', all.n) == NULL) {
        all = str_n(all.p + 1, all.n - 2); /* as it is */
    } else if (d->form != DELTA_OBJECT) {
        enum err e = js_decode(d->text, &a->scratch);
        if (e != ERR_OK) return e;
        all = buf_str(&a->scratch);
    }
    bool repeats = d->form == DELTA_WHOLE || d->form == DELTA_SO_FAR;
    size_t skip = repeats ? (size_t)MIN(had, (uint64_t)all.n) : 0;
    *ret_all = all;
    *ret_new = str_n(all.p + skip, all.n - skip);
    return ERR_OK;
}

enum err answer_feed_text(struct answer *a, struct text *t, struct str bytes)
{
    if (t->meter == NULL) t->meter = meter_new(a->o.vocab, SPECIAL_CONTROL);
    if (t->meter == NULL) return ERR_NOMEM;
    meter_set_limit(t->meter, budget(a, t));
    enum err e = meter_feed(t->meter, bytes);
    t->count = t->before_tokens + meter_count(t->meter);
    return e;
}

/* All of a text, of which nothing came before: where it is within the limit, it needs no meter. */
static enum err count_whole(struct answer *a, struct text *t, struct str all)
{
    uint64_t n;
    if (a->o.vocab == NULL || t->finished || answer_fed(t) > 0) return ERR_OK;
    enum err e = token_count(a->o.vocab, all, SPECIAL_CONTROL, &n);
    if (e != ERR_OK || n > budget(a, t)) return e;
    t->finished = true;
    t->before_bytes = all.n;
    t->count = n;
    return ERR_OK;
}

/* Feeds one delta to its meter and notes where it lies. whole: it is all of its text. */
static enum err feed_delta(struct answer *a, const struct delta *d, bool whole, struct mark *ret)
{
    size_t i;
    struct str all, more;
    enum err e = text_of(a, d, &i);
    if (e != ERR_OK) return e;
    struct text *t = &a->texts[i];
    uint64_t had = answer_fed(t);
    e = decode(a, d, had, &all, &more);
    if (e != ERR_OK) return e;
    if (t->finished && more.n > 0 && !answer_is_cut(t)) e = reopen(a, t);
    if (e == ERR_OK && whole) e = count_whole(a, t, more);
    if (e != ERR_OK) return e;
    bool repeats = d->form == DELTA_WHOLE || d->form == DELTA_SO_FAR;
    *ret = (struct mark){ .text = (uint16_t)i, .start = repeats ? 0 : had };
    ret->end = ret->start + all.n;
    /* else it was cut, or has all of it */
    if (!t->finished && more.n > 0) e = answer_feed_text(a, t, more);
    if (a->scratch.cap > SCRATCH_KEPT) buf_done(&a->scratch);
    return e == ERR_OK && d->form == DELTA_WHOLE ? answer_finish_text(a, t) : e;
}

enum err answer_feed_chunk(struct answer *a, bool each, struct mark *marks)
{
    const struct chunk *c = a->chunk;
    enum err e = ERR_OK;
    a->before_whole = answer_tokens(a);
    for (size_t i = 0; i < c->deltas_n && e == ERR_OK; i++) {
        const struct delta *d = &c->deltas[i];
        a->seen_choices |= 1u << d->choice;
        if (d->form == DELTA_MIRROR) {
            marks[i] = marks[d->of];
            continue;
        }
        e = feed_delta(a, d, each, &marks[i]);
        if (e == ERR_OK && each) e = answer_finish_text(a, &a->texts[marks[i].text]);
    }
    return e;
}

struct mark *answer_marks(size_t n, struct mark few[MARKS_FEW])
{
    return n <= MARKS_FEW ? few : malloc(n * sizeof *few);
}

void answer_marks_done(struct mark *marks, const struct mark few[MARKS_FEW])
{
    if (marks != few) free(marks);
}

/* A byte is at most one token, and what is not ASCII may become three bytes when it is normalized.
 */
uint64_t answer_most_of(struct str raw)
{
    uint64_t n = raw.n;
    for (size_t k = 0; k < raw.n; k++)
        n += (unsigned char)raw.p[k] < 0x80 && raw.p[k] != '\\' ? 0 : 2;
    return n;
}

uint64_t answer_most_tokens(struct answer *a)
{
    const struct chunk *c = a->chunk;
    uint64_t n = 0;
    for (size_t i = 0; i < c->deltas_n; i++) {
        const struct delta *d = &c->deltas[i];
        struct str text = str_n(d->text.raw.p + 1, d->text.raw.n - 2), all;
        size_t at;
        if (d->form == DELTA_MIRROR) continue;
        if (d->form != DELTA_PIECE &&
            (text_of(a, d, &at) != ERR_OK ||
             decode(a, d, answer_fed(&a->texts[at]), &all, &text) != ERR_OK))
            return UINT32_MAX;
        n += answer_most_of(text);
        if (a->scratch.cap > SCRATCH_KEPT) buf_done(&a->scratch);
    }
    return n;
}

bool answer_is_deliverable(const struct answer *a, const struct mark *marks, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const struct text *t = &a->texts[marks[i].text];
        uint64_t upto = answer_deliverable(t);
        if (marks[i].end > upto) return false;
    }
    return true;
}
