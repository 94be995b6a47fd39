/* SPDX-License-Identifier: Apache-2.0 */
/* See the header. Texts are kept as they stood in the JSON, between the quotes: so they are put
 * together and repeated without a change. */
#include "transcript.h"

#include <stdlib.h>

#include "responses.h"
#include "splice.h"

struct part {
    enum responses_text t;
    uint64_t index;
    struct buf text;  /* raw JSON, no quotes */
    bool begun, done; /* its .added event was seen; its text's .done event was */
    bool part_done;
};

struct item {
    uint64_t index;
    struct buf raw; /* the item as the last event had it */
    bool done;
    struct part *parts;
    size_t parts_n;
};

struct transcript {
    struct buf response; /* the response object as it began */
    struct item *items;
    size_t items_n;
    uint64_t sequence; /* of the next event */
    size_t kept;
    bool lost; /* too much, or no memory: nothing is repeated */
};

struct transcript *transcript_new(void)
{
    struct transcript *t = calloc(1, sizeof *t);
    if (t != NULL) buf_init(&t->response, TRANSCRIPT_MAX);
    return t;
}

static void drop(struct transcript *t)
{
    for (size_t i = 0; i < t->items_n; i++) {
        for (size_t k = 0; k < t->items[i].parts_n; k++) buf_done(&t->items[i].parts[k].text);
        free(t->items[i].parts);
        buf_done(&t->items[i].raw);
    }
    free(t->items);
    t->items = NULL;
    t->items_n = 0;
    buf_done(&t->response);
}

void transcript_free(struct transcript *t)
{
    if (t == NULL) return;
    drop(t);
    free(t);
}

/* --- what was told --- */

static void keep(struct transcript *t, struct buf *b, struct str s)
{
    size_t start = b->len;
    t->kept += s.n;
    if (t->kept > TRANSCRIPT_MAX || buf_append_str(b, s) != ERR_OK) t->lost = true;
    /* It is to stand in one line of data; line ends can only be the JSON's white space. */
    for (size_t i = start; i < b->len; i++)
        if (b->data[i] == '\n' || b->data[i] == '\r') b->data[i] = ' ';
}

static void keep_only(struct transcript *t, struct buf *b, struct str s)
{
    t->kept -= b->len;
    buf_clear(b);
    keep(t, b, s);
}

static struct item *item_of(struct transcript *t, uint64_t index)
{
    for (size_t i = t->items_n; i-- > 0;)
        if (t->items[i].index == index) return &t->items[i];
    if (t->items_n == RT_MAX_ITEMS) return NULL;
    struct item *more = realloc(t->items, (t->items_n + 1) * sizeof *more);
    if (more == NULL) return NULL;
    t->items = more;
    struct item *it = &t->items[t->items_n++];
    *it = (struct item){ .index = index };
    buf_init(&it->raw, TRANSCRIPT_MAX);
    t->kept += sizeof *it;
    return it;
}

static struct part *part_of(struct transcript *t, uint64_t output_index, enum responses_text kind,
                            uint64_t index)
{
    struct item *it = item_of(t, output_index);
    if (it == NULL) return NULL;
    for (size_t i = it->parts_n; i-- > 0;)
        if (it->parts[i].t == kind && it->parts[i].index == index) return &it->parts[i];
    struct part *more = realloc(it->parts, (it->parts_n + 1) * sizeof *more);
    if (more == NULL) return NULL;
    it->parts = more;
    struct part *p = &it->parts[it->parts_n++];
    *p = (struct part){ .t = kind, .index = index };
    buf_init(&p->text, TRANSCRIPT_MAX);
    t->kept += sizeof *p;
    return p;
}

static void note_text(struct transcript *t, struct js_val root, enum responses_text kind,
                      struct str what)
{
    const struct responses_text_kind *k = &responses_texts[kind];
    struct part *p = part_of(t, responses_index(root, "output_index"), kind,
                             k->index != NULL ? responses_index(root, k->index) : 0);
    if (p == NULL) {
        t->lost = true;
    } else if (str_eqz(what, "delta")) {
        keep(t, &p->text, responses_word(js_get(root, "delta")));
    } else if (str_eqz(what, "done")) {
        keep_only(t, &p->text, responses_word(js_get(root, k->member)));
        p->done = true;
    }
}

static void note_part(struct transcript *t, struct js_val root, struct str type)
{
    struct js_val value = js_get(root, "part");
    struct str part_type = responses_word(js_get(value, "type"));
    for (enum responses_text i = 0; i < RT_MAX; i++) {
        const struct responses_text_kind *k = &responses_texts[i];
        if (k->list == NULL || !str_eqz(part_type, k->type)) continue;
        struct part *p = part_of(t, responses_index(root, "output_index"), i,
                                 responses_index(root, k->index));
        if (p == NULL) {
            t->lost = true;
            return;
        }
        keep_only(t, &p->text, responses_word(js_get(value, k->member)));
        p->begun = true;
        if (str_ends(type, STR(".done"))) p->done = p->part_done = true;
        return;
    }
}

static void note_item(struct transcript *t, struct js_val root, bool done)
{
    struct item *it = item_of(t, responses_index(root, "output_index"));
    if (it == NULL) {
        t->lost = true;
        return;
    }
    keep_only(t, &it->raw, js_get(root, "item").raw);
    it->done = done;
}

void transcript_note(struct transcript *t, struct str data)
{
    struct js_val root;
    struct str what;
    uint64_t sequence;
    if (js_parse(data, &root, NULL) != ERR_OK) return;
    if (js_u64(js_get(root, "sequence_number"), &sequence) == ERR_OK) t->sequence = sequence + 1;
    if (t->lost) return;
    struct str type = responses_word(js_get(root, "type"));
    enum responses_text kind = responses_text_of(type, &what);
    if (kind != RT_MAX)
        note_text(t, root, kind, what);
    else if (str_eqz(type, "response.output_item.added"))
        note_item(t, root, false);
    else if (str_eqz(type, "response.output_item.done"))
        note_item(t, root, true);
    else if (str_starts(type, STR("response.content_part.")) ||
             str_starts(type, STR("response.reasoning_summary_part.")))
        note_part(t, root, type);
    else if (t->response.len == 0 && js_is(js_get(root, "response"), JS_OBJECT))
        keep(t, &t->response, js_get(root, "response").raw);
    if (t->lost) drop(t);
}

void transcript_note_piece(struct transcript *t, uint32_t place, struct str piece,
                           const uint64_t *sequence)
{
    uint64_t output_index, part_index;
    if (sequence != NULL) t->sequence = *sequence + 1;
    if (t->lost) return;
    enum responses_text kind = responses_at(place, &output_index, &part_index);
    struct part *p = part_of(t, output_index, kind, part_index);
    if (p == NULL)
        t->lost = true;
    else
        keep(t, &p->text, piece);
    if (t->lost) drop(t);
}

/* --- the end --- */

/* Members of an object that are given other values, or added behind the others. */
struct change {
    const char *name;
    struct str value; /* raw JSON */
};

static enum err write_changed(struct str object, const struct change *changes, size_t n,
                              struct buf *out)
{
    struct js_val root;
    struct splice s[8];
    size_t splices = 0;
    struct buf added;
    ASSERT(n < ARRAY_LEN(s));
    enum err e = js_parse(object.n > 0 ? object : STR("{}"), &root, NULL);
    if (e != ERR_OK || !js_is(root, JS_OBJECT)) return ERR_INVALID;
    struct js_iter it;
    struct str key;
    struct js_val v;
    js_iter_init(&it, root);
    bool empty = !js_next_member(&it, &key, &v);
    buf_init(&added, TRANSCRIPT_MAX);
    for (size_t i = 0; i < n && e == ERR_OK; i++) {
        v = js_get(root, changes[i].name);
        if (v.raw.p != NULL) {
            s[splices++] = (struct splice){ v.raw.p, v.raw.n, changes[i].value };
            continue;
        }
        e = buf_printf(&added, "%s\"%s\":", empty && added.len == 0 ? "" : ",", changes[i].name);
        if (e == ERR_OK) e = buf_append_str(&added, changes[i].value);
    }
    if (added.len > 0)
        s[splices++] = (struct splice){ root.raw.p + root.raw.n - 1, 0, buf_str(&added) };
    if (e == ERR_OK) e = splice_apply(root.raw, s, splices, out);
    buf_done(&added);
    return e;
}

static enum err write_part(const struct part *p, struct buf *out)
{
    const struct responses_text_kind *k = &responses_texts[p->t];
    enum err e = buf_printf(out, "{\"type\":\"%s\",\"%s\":\"", k->type, k->member);
    if (e == ERR_OK) e = buf_append_str(out, buf_str(&p->text));
    return e == ERR_OK ? buf_appendz(out, p->t == RT_OUTPUT ? "\",\"annotations\":[]}" : "\"}") : e;
}

static enum err write_parts(const struct item *it, const char *list, struct buf *out)
{
    bool first = true;
    enum err e = buf_append_char(out, '[');
    for (size_t i = 0; i < it->parts_n && e == ERR_OK; i++) {
        const char *own = responses_texts[it->parts[i].t].list;
        if (own == NULL || !str_eqz(str_of(own), list)) continue;
        if (!first) e = buf_append_char(out, ',');
        if (e == ERR_OK) e = write_part(&it->parts[i], out);
        first = false;
    }
    return e == ERR_OK ? buf_append_char(out, ']') : e;
}

/* An item that the cut left open, with the texts that it came to have. */
static enum err write_open_item(const struct item *it, struct buf *out)
{
    static const char *const lists[] = { "content", "summary" };
    struct buf values[3];
    struct change changes[4] = { { "status", STR("\"incomplete\"") } };
    size_t n = 1, used = 0;
    enum err e = ERR_OK;
    for (size_t i = 0; i < ARRAY_LEN(values); i++) buf_init(&values[i], TRANSCRIPT_MAX + 65536);
    for (size_t i = 0; i < it->parts_n && e == ERR_OK; i++) {
        const struct responses_text_kind *k = &responses_texts[it->parts[i].t];
        if (k->list != NULL || used > 0) continue;
        e = buf_append_char(&values[used], '"');
        if (e == ERR_OK) e = buf_append_str(&values[used], buf_str(&it->parts[i].text));
        if (e == ERR_OK) e = buf_append_char(&values[used], '"');
        changes[n++] = (struct change){ k->member, buf_str(&values[used++]) };
    }
    for (size_t i = 0; i < ARRAY_LEN(lists) && e == ERR_OK; i++) {
        e = write_parts(it, lists[i], &values[used]);
        if (values[used].len > 2) /* more than [] */
            changes[n++] = (struct change){ lists[i], buf_str(&values[used++]) };
        else
            buf_clear(&values[used]);
    }
    if (e == ERR_OK) e = write_changed(buf_str(&it->raw), changes, n, out);
    for (size_t i = 0; i < ARRAY_LEN(values); i++) buf_done(&values[i]);
    return e;
}

/* event: and data: up to the sequence number. */
static enum err begin(const char *stem, const char *what, uint64_t sequence, struct buf *out)
{
    return buf_printf(out,
                      "event: response.%s%s\ndata: {\"type\":\"response.%s%s\","
                      "\"sequence_number\":%llu",
                      stem, what, stem, what, (unsigned long long)sequence);
}

static enum err place(const struct item *it, const struct part *p, struct buf *out)
{
    struct js_val root;
    const struct responses_text_kind *k = &responses_texts[p->t];
    enum err e = buf_printf(out, ",\"output_index\":%llu", (unsigned long long)it->index);
    if (e == ERR_OK && k->index != NULL)
        e = buf_printf(out, ",\"%s\":%llu", k->index, (unsigned long long)p->index);
    if (e == ERR_OK && it->raw.len > 0 && js_parse(buf_str(&it->raw), &root, NULL) == ERR_OK &&
        js_is(js_get(root, "id"), JS_STRING))
        e = buf_printf(out, ",\"item_id\":%.*s", STR_ARG(js_get(root, "id").raw));
    return e;
}

static enum err close_part(const struct item *it, const struct part *p, uint64_t *sequence,
                           struct buf *out)
{
    const struct responses_text_kind *k = &responses_texts[p->t];
    enum err e = ERR_OK;
    if (!p->done) {
        e = begin(k->stem, ".done", (*sequence)++, out);
        if (e == ERR_OK) e = place(it, p, out);
        if (e == ERR_OK && p->t == RT_OUTPUT) e = buf_appendz(out, ",\"logprobs\":[]");
        if (e == ERR_OK) e = buf_printf(out, ",\"%s\":\"", k->member);
        if (e == ERR_OK) e = buf_append_str(out, buf_str(&p->text));
        if (e == ERR_OK) e = buf_appendz(out, "\"}\n\n");
    }
    if (e != ERR_OK || !p->begun || p->part_done) return e;
    e = begin(k->part_stem, ".done", (*sequence)++, out);
    if (e == ERR_OK) e = place(it, p, out);
    if (e == ERR_OK) e = buf_appendz(out, ",\"part\":");
    if (e == ERR_OK) e = write_part(p, out);
    return e == ERR_OK ? buf_appendz(out, "}\n\n") : e;
}

static enum err close_item(const struct item *it, uint64_t *sequence, struct buf *out)
{
    enum err e = ERR_OK;
    if (it->done) return ERR_OK;
    for (size_t i = 0; i < it->parts_n && e == ERR_OK; i++)
        e = close_part(it, &it->parts[i], sequence, out);
    if (e == ERR_OK) e = begin("output_item", ".done", (*sequence)++, out);
    if (e == ERR_OK)
        e = buf_printf(out, ",\"output_index\":%llu,\"item\":", (unsigned long long)it->index);
    if (e == ERR_OK) e = write_open_item(it, out);
    return e == ERR_OK ? buf_appendz(out, "}\n\n") : e;
}

static enum err write_output(const struct transcript *t, struct buf *out)
{
    enum err e = buf_append_char(out, '[');
    for (size_t i = 0; i < t->items_n && e == ERR_OK; i++) {
        if (i > 0) e = buf_append_char(out, ',');
        if (e == ERR_OK)
            e = t->items[i].done ? buf_append_str(out, buf_str(&t->items[i].raw))
                                 : write_open_item(&t->items[i], out);
    }
    return e == ERR_OK ? buf_append_char(out, ']') : e;
}

static enum err write_usage(const struct ending *e, struct buf *out)
{
    return buf_printf(
        out,
        "{\"input_tokens\":%llu,\"input_tokens_details\":{\"cached_tokens\":0},"
        "\"output_tokens\":%llu,\"output_tokens_details\":{\"reasoning_tokens\":%llu},"
        "\"total_tokens\":%llu}",
        (unsigned long long)e->input_tokens, (unsigned long long)e->output_tokens,
        (unsigned long long)e->reasoning_tokens,
        (unsigned long long)(e->input_tokens + e->output_tokens));
}

/* The response object as it is now. */
static enum err write_response(const struct transcript *t, const struct ending *end,
                               struct buf *out)
{
    struct buf output, usage;
    buf_init(&output, 2 * TRANSCRIPT_MAX);
    buf_init(&usage, 512);
    enum err e = write_output(t, &output);
    if (e == ERR_OK) e = write_usage(end, &usage);
    const struct change changes[] = {
        { "object", STR("\"response\"") },
        { "status", STR("\"incomplete\"") },
        { "incomplete_details", STR("{\"reason\":\"max_output_tokens\"}") },
        { "output", buf_str(&output) },
        { "usage", buf_str(&usage) },
    };
    if (e == ERR_OK) e = write_changed(buf_str(&t->response), changes, ARRAY_LEN(changes), out);
    buf_done(&output);
    buf_done(&usage);
    return e;
}

enum err transcript_write_ending(const struct transcript *t, const struct ending *end,
                                 struct buf *out)
{
    static const struct transcript none = { .lost = true };
    enum err e = ERR_OK;
    if (t == NULL) t = &none;
    uint64_t sequence = t->sequence;
    for (size_t i = 0; i < t->items_n && e == ERR_OK; i++)
        e = close_item(&t->items[i], &sequence, out);
    if (e == ERR_OK) e = begin("incomplete", "", sequence, out);
    if (e == ERR_OK) e = buf_appendz(out, ",\"response\":");
    if (e == ERR_OK) e = write_response(t, end, out);
    return e == ERR_OK ? buf_appendz(out, "}\n\n") : e;
}
