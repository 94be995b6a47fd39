/* SPDX-License-Identifier: Apache-2.0 */
/* Codec of messages with usage records: see usage_batch.h. */
#include "proto/usage_batch.h"

#include "base/clock.h"
#include "base/uuid.h"
#include "rt/json.h"

static const char records_head[] = ",\"records\":[\n";
static const char records_end[] = "\n]}";

bool usage_batch_fits(size_t n, size_t bytes)
{
    return n <= USAGE_BATCH_RECORDS && bytes <= USAGE_BATCH_MAX_BYTES &&
           bytes + 2 * n + USAGE_BATCH_HEAD <= USAGE_BATCH_MAX_BYTES;
}

/* --- writing --- */

enum err usage_batch_begin(struct buf *out, struct str id, uint64_t ts_ms, struct str from)
{
    char ts[TIME_RFC3339_LEN + 1];
    time_rfc3339(ts_ms * 1000000u, ts);
    enum err e = buf_printf(out, "{\"v\":%d,\"id\":\"%.*s\",\"ts\":\"%s\",\"from\":",
                            USAGE_BATCH_VERSION, STR_ARG(id), ts);
    if (e == ERR_OK) e = buf_append_json(out, str_n(from.p, MIN(from.n, (size_t)USAGE_TEXT_MAX)));
    return e == ERR_OK ? buf_appendz(out, records_head) : e;
}

enum err usage_batch_add(struct buf *out, struct str head, struct str tail)
{
    bool first = out->len > 0 && out->data[out->len - 1] == '\n';
    enum err e = first ? ERR_OK : buf_append(out, ",\n", 2);
    if (e == ERR_OK) e = buf_append_str(out, head);
    return e == ERR_OK ? buf_append_str(out, tail) : e;
}

enum err usage_batch_end(struct buf *out)
{
    return buf_appendz(out, records_end);
}

/* --- reading --- */

struct reading {
    struct arena *arena;
    usage_part_fn fn;
    void *ctx;
};

static void tell(const struct reading *r, struct usage_part *p, const struct usage_record *record,
                 const struct why *why)
{
    p->record = p->e == ERR_OK ? record : NULL;
    p->why = p->e == ERR_OK ? NULL : why->text;
    r->fn(r->ctx, p);
}

/* One record of a list. What is none is given as text again, which may not be that which came. */
static void read_node(const struct reading *r, const struct json *node, size_t index)
{
    struct usage_record record;
    struct why why = { "" };
    struct usage_part p = { .index = index };
    struct buf text;
    buf_init(&text, 6 * (size_t)USAGE_BATCH_MAX_BYTES);
    p.e = usage_decode_node(node, r->arena, &record, &why);
    if (p.e != ERR_OK) {
        if (json_print(node, &text) != ERR_OK) p.e = ERR_NOMEM;
        p.text = buf_str(&text);
    }
    tell(r, &p, &record, &why);
    buf_done(&text);
}

static enum err read_list(const struct reading *r, const struct json *list, struct why *why)
{
    size_t n = json_len(list), i = 0;
    if (n > USAGE_BATCH_RECORDS) return why_set(why, ERR_LIMIT, "records: too many");
    if (n == 0) return why_set(why, ERR_INVALID, "records: empty");
    for (const struct json *node = json_first(list); node != NULL; node = json_next(node))
        read_node(r, node, i++);
    return ERR_OK;
}

static enum err read_document(const struct reading *r, const struct json *root, struct why *why)
{
    uint64_t v = 0;
    struct usage_record record;
    struct usage_part p = { .alone = true };
    const struct json *list = json_get(root, "records");
    if (json_is(list, JSON_ARRAY) && json_get_u64(root, "v", &v) == ERR_OK &&
        v == USAGE_BATCH_VERSION)
        return read_list(r, list, why);
    enum err e = usage_decode_node(root, r->arena, &record, why);
    if (e == ERR_OK) tell(r, &p, &record, why);
    return e;
}

/* The next line of a message's records, without its comma. False: there is none. */
static bool next_line(struct str *rest, struct str *ret)
{
    if (rest->p == NULL) return false;
    *ret = str_cut(rest, '\n');
    if (str_ends(*ret, STR(","))) ret->n--;
    return ret->n > 0 && ret->p[0] != ']';
}

/* A batch that is no JSON: most of its lines may be. False: it is no batch, or of too many. */
static bool read_lines(const struct reading *r, struct str text)
{
    struct str rest = text, line = str_cut(&rest, '\n'), list = rest;
    size_t n = 0;
    if (!str_starts(line, STR("{\"v\":2,")) || !str_ends(line, STR(",\"records\":["))) return false;
    while (next_line(&rest, &line)) n++;
    if (n == 0 || n > USAGE_BATCH_RECORDS) return false;
    for (size_t i = 0; i < n; i++) {
        struct usage_record record;
        struct why why = { "" };
        struct usage_part p = { .index = i };
        (void)next_line(&list, &p.text);
        p.e = usage_decode(p.text, r->arena, &record, &why);
        tell(r, &p, &record, &why);
    }
    return true;
}

enum err usage_read(struct str text, struct arena *arena, usage_part_fn fn, void *ctx,
                    struct why *why)
{
    const struct reading r = { arena, fn, ctx };
    struct json *root;
    enum err e = json_parse(text, USAGE_BATCH_MAX_BYTES, &root, why);
    if (e == ERR_INVALID && read_lines(&r, text)) return ERR_OK;
    if (e != ERR_OK) return e;
    e = read_document(&r, root, why);
    json_free(root);
    return e;
}
