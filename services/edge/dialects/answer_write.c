/* SPDX-License-Identifier: Apache-2.0 */
/* What of an answer goes to the client: events as they came or spliced, the end by a cut, and the
 * queue of events that are not decided yet. On the flow's worker. */
#include <stdlib.h>

#include "answer_impl.h"

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
    if (e == ERR_OK && a->transcript != NULL)
        transcript_note(a->transcript, str_n(a->out->data + start, a->out->len - start));
    for (size_t i = start; i < a->out->len && e == ERR_OK; i++)
        if (a->out->data[i] == '\n' || a->out->data[i] == '\r') a->out->data[i] = ' ';
    return e == ERR_OK ? buf_appendz(a->out, "\n\n") : e;
}

/* Passes an event on, without the usage member that the client did not ask for.
 */
enum err answer_write_event(struct answer *a, struct str raw, struct str name, struct str data)
{
    if (a->o.hide_usage && a->chunk->usage_member.p != NULL) {
        struct splice s = { a->chunk->usage_member.p, a->chunk->usage_member.n, STR_NULL };
        return write_spliced(a, name, data, &s, 1);
    }
    if (a->transcript != NULL && data.p != NULL) transcript_note(a->transcript, data);
    return buf_append_str(a->out, raw);
}

/* --- the end by a cut --- */

/* Splices that take out of the parsed chunk what may not be delivered. Returns how many; *ret_any:
 * text is left. */
size_t answer_cut_splices(struct answer *a, const struct mark *marks, size_t marks_n,
                          struct splice *s, bool *ret_any)
{
    const struct chunk *c = a->chunk;
    size_t n = 0;
    *ret_any = false;
    for (size_t i = 0; i < c->deltas_n && i < marks_n; i++) {
        uint64_t upto = answer_deliverable(&a->texts[marks[i].text]);
        if (upto > marks[i].start) *ret_any = true;
        if (upto >= marks[i].end) continue;
        if (c->deltas[i].form == DELTA_OBJECT) {
            s[n++] = (struct splice){ c->deltas[i].text.raw.p, c->deltas[i].text.raw.n, STR("{}") };
            continue;
        }
        uint64_t keep = upto > marks[i].start ? upto - marks[i].start : 0;
        size_t raw_keep = js_raw_prefix(c->deltas[i].text, keep);
        const char *at = c->deltas[i].text.raw.p + 1 + raw_keep;
        s[n++] = (struct splice){
            at, (size_t)(c->deltas[i].text.raw.p + c->deltas[i].text.raw.n - 1 - at), STR_NULL
        };
    }
    for (size_t i = 0; i < c->choices_n; i++) {
        struct js_val l = c->choices[i].logprobs;
        if (js_is(l, JS_OBJECT) || js_is(l, JS_ARRAY))
            s[n++] = (struct splice){ l.raw.p, l.raw.n,
                                      l.type == JS_ARRAY ? STR("[]") : STR("null") };
    }
    return n;
}

enum err answer_write_ending(struct answer *a)
{
    struct ending e = {
        .id = a->id,
        .object = a->object,
        .created = a->created,
        .model = a->model,
        .block_open = a->block_open,
        .block = a->block,
        .want_usage = a->o.want_usage,
        .input_tokens = a->o.input_tokens,
        .output_tokens = answer_tokens(a),
        .reasoning_tokens = answer_reasoning_tokens(a),
        .transcript = a->transcript,
    };
    for (uint32_t i = 0; i < CHUNK_MAX_CHOICES; i++)
        if (a->seen_choices >> i & 1u && !(a->finished_choices >> i & 1u))
            e.open_choices[e.open_n++] = i;
    a->state = ANSWER_CUT;
    return a->o.dialect->write_ending(&e, a->out);
}

/* Whether the cut lies in a text that an event repeats from its beginning. Such an event also says
 * that something is complete, which is not so: the answer ends before it. */
static bool cuts_whole(const struct answer *a, const struct mark *marks, size_t marks_n)
{
    for (size_t i = 0; i < marks_n && i < a->chunk->deltas_n; i++) {
        enum delta_form form = a->chunk->deltas[i].form;
        if ((form == DELTA_WHOLE || form == DELTA_SO_FAR) &&
            answer_deliverable(&a->texts[marks[i].text]) < marks[i].end)
            return true;
    }
    return false;
}

/* The event at which the limit was passed: what of it may be delivered, then the ending. */
static enum err write_cut(struct answer *a, struct str name, struct str data,
                          const struct mark *marks, size_t marks_n)
{
    bool any;
    if (cuts_whole(a, marks, marks_n)) {
        a->written = a->before_whole;
        a->stopped = true;
        return answer_write_ending(a);
    }
    struct splice *s = malloc((a->chunk->deltas_n + 2 * CHUNK_MAX_CHOICES + 1) * sizeof *s);
    if (s == NULL) return ERR_NOMEM;
    size_t n = answer_cut_splices(a, marks, marks_n, s, &any);
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
    free(s);
    return e == ERR_OK ? answer_write_ending(a) : e;
}

/* --- the queue --- */

enum err answer_hold(struct answer *a, struct list_node *queue, const struct sse_event *ev,
                     const struct mark *marks, size_t marks_n, bool hide)
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
    list_push_back(queue, &h->node);
    a->held_bytes += n;
    return ERR_OK;
}

static struct sse_event event_of(const struct held *h)
{
    struct sse_event ev = { .raw = str_n(h->bytes, h->raw_n), .data = STR_NULL, .name = STR_NULL };
    if (h->has_data) ev.data = str_n(h->bytes + h->data_at, h->data_n);
    if (h->has_name) ev.name = str_n(h->bytes + h->name_at, h->name_n);
    return ev;
}

static void take_out(struct answer *a, struct held *h)
{
    list_remove(&h->node);
    a->held_bytes -= h->raw_n + (h->has_data && h->data_at == h->raw_n ? h->data_n : 0);
}

struct held *answer_unhold(struct answer *a, struct list_node *queue, struct sse_event *ret)
{
    struct held *h = LIST_ENTRY(queue->next, struct held, node);
    *ret = event_of(h);
    take_out(a, h);
    return h;
}

enum err answer_release(struct answer *a)
{
    bool cut = answer_any_cut(a);
    enum err e = cut ? answer_finish_all(a) : ERR_OK;
    while (e == ERR_OK && !list_empty(&a->queue) && a->state != ANSWER_CUT) {
        struct held *h = LIST_ENTRY(a->queue.next, struct held, node);
        bool whole = answer_is_deliverable(a, h->marks, h->marks_n);
        if (!whole && !cut) break;
        struct sse_event ev = event_of(h);
        chunk_clear(a->chunk);
        if (h->has_data && a->o.dialect->parse_event(ev.name, ev.data, a->chunk) != ERR_OK)
            chunk_clear(a->chunk);
        if (!whole)
            e = write_cut(a, ev.name, ev.data, h->marks, h->marks_n);
        else if (!h->hide)
            e = answer_write_event(a, ev.raw, ev.name, ev.data);
        take_out(a, h);
        free(h);
    }
    return e;
}
