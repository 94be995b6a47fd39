/* SPDX-License-Identifier: Apache-2.0 */
#include "build.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/hash.h"
#include "proto/envelope.h"
#include "rt/crypto.h"

enum { MAX_PARTS_PER_KIND = 1 << 16, ARENA_MAX = 1 << 30 };

/* The place of something in a power of two of places: a fixed key, for every instance must agree.
 */
static uint64_t place_hash(struct str a, struct str b)
{
    static const uint64_t key[2] = { 0x61696777636f6e66, 0x736e617073686f74 };
    return hash_sip(a.p, a.n, key) ^ (b.n > 0 ? hash_sip(b.p, b.n, key) * 3 : 0);
}

static int compare_items(const void *a, const void *b)
{
    const struct item *x = a, *y = b;
    int c = strcmp(x->kind, y->kind);
    if (c == 0) c = str_cmp(x->ns, y->ns);
    return c != 0 ? c : str_cmp(x->id, y->id);
}

static int compare_blobs(const void *a, const void *b)
{
    return strcmp(((const struct blob *)a)->digest, ((const struct blob *)b)->digest);
}

/* A part as its page lists it. */
struct entry {
    const char *kind;
    struct str ns;
    size_t index, bytes;
    char digest[65];
};

struct builder {
    struct built *out;
    size_t blobs_cap;
    struct entry *entries;
    size_t entries_n, entries_cap;
    struct buf text; /* of the part or page being made */
    struct why *why;
};

/* Adds the text that was made as a blob. */
static enum err add_blob(struct builder *b, bool is_page, struct blob **ret)
{
    struct built *o = b->out;
    if (o->blobs_n == b->blobs_cap) {
        size_t cap = b->blobs_cap == 0 ? 64 : b->blobs_cap * 2;
        struct blob *v = realloc(o->blobs, cap * sizeof(*v));
        if (v == NULL) return ERR_NOMEM;
        o->blobs = v;
        b->blobs_cap = cap;
    }
    struct blob *blob = &o->blobs[o->blobs_n];
    enum err e = arena_dup(&o->arena, buf_str(&b->text), &blob->text);
    if (e != ERR_OK) return e;
    crypto_sha256_hex(blob->text, blob->digest);
    blob->is_page = is_page;
    o->blobs_n++;
    *ret = blob;
    return ERR_OK;
}

static enum err add_entry(struct builder *b, const char *kind, struct str ns, size_t index,
                          const struct blob *blob)
{
    if (b->entries_n == b->entries_cap) {
        size_t cap = b->entries_cap == 0 ? 64 : b->entries_cap * 2;
        struct entry *v = realloc(b->entries, cap * sizeof(*v));
        if (v == NULL) return ERR_NOMEM;
        b->entries = v;
        b->entries_cap = cap;
    }
    struct entry *e = &b->entries[b->entries_n++];
    *e = (struct entry){ .kind = kind, .ns = ns, .index = index, .bytes = blob->text.n };
    memcpy(e->digest, blob->digest, sizeof(e->digest));
    return ERR_OK;
}

static enum err append_ns(struct buf *out, struct str ns)
{
    return ns.n > 0 ? buf_append_json(out, ns) : buf_appendz(out, "null");
}

static enum err begin_part(struct builder *b, const struct item *it, size_t index)
{
    buf_clear(&b->text);
    enum err e = buf_printf(&b->text, "{\"kind\":\"%s\",\"namespace\":", it->kind);
    if (e == ERR_OK) e = append_ns(&b->text, it->ns);
    if (e == ERR_OK) e = buf_printf(&b->text, ",\"index\":%zu,\"items\":[", index);
    return e;
}

/* --- parts --- */

enum { PART_FRAME_BYTES = 256 }; /* of a part's text around its items */

/* How many parts the items of one kind and namespace are spread over. The sizes of the places are
 * what counts, so that the answer depends on nothing but the items. */
static size_t spread(const struct item *items, size_t n)
{
    size_t total = 0, parts = 1;
    for (size_t i = 0; i < n; i++) total += items[i].body.n + 1;
    while (parts < MAX_PARTS_PER_KIND) {
        size_t largest = 0, *sizes = xcalloc(parts, sizeof(*sizes));
        for (size_t i = 0; i < n; i++) {
            size_t at = items[i].place & (parts - 1);
            sizes[at] += items[i].body.n + 1;
            largest = MAX(largest, sizes[at]);
        }
        free(sizes);
        /* Beyond four times the number that an even spread would need, more places do not help
         * against large entities; they only must not pass the hard bound. */
        bool enough = largest <= PART_TARGET_BYTES || parts > 4 * (total / PART_TARGET_BYTES + 1);
        if (enough && largest + PART_FRAME_BYTES <= PART_MAX_BYTES) break;
        parts *= 2;
    }
    return parts;
}

static enum err build_one_part(struct builder *b, const struct item *items, size_t n, size_t index,
                               size_t parts)
{
    bool any = false;
    struct blob *blob;
    enum err e = begin_part(b, items, index);
    for (size_t i = 0; i < n && e == ERR_OK; i++) {
        if ((items[i].place & (parts - 1)) != index) continue;
        if (any) e = buf_append_char(&b->text, ',');
        if (e == ERR_OK) e = buf_append_str(&b->text, items[i].body);
        any = true;
    }
    if (e == ERR_OK) e = buf_appendz(&b->text, "]}");
    if (e != ERR_OK)
        return why_set(b->why, e, "%s do not fit into parts of %d bytes", items[0].kind,
                       PART_MAX_BYTES);
    if (!any) return ERR_OK; /* an empty place is not a part */
    e = add_blob(b, false, &blob);
    return e == ERR_OK ? add_entry(b, items[0].kind, items[0].ns, index, blob) : e;
}

static enum err build_parts(struct builder *b, const struct item *items, size_t n)
{
    enum err e = ERR_OK;
    for (size_t from = 0, to; from < n && e == ERR_OK; from = to) {
        const struct item *group = &items[from];
        for (to = from + 1; to < n; to++)
            if (strcmp(items[to].kind, group->kind) != 0 || !str_eq(items[to].ns, group->ns)) break;
        size_t parts = spread(group, to - from);
        for (size_t i = 0; i < parts && e == ERR_OK; i++)
            e = build_one_part(b, group, to - from, i, parts);
    }
    return e;
}

/* --- pages --- */

static size_t page_of(const struct entry *e, size_t pages)
{
    char text[64];
    int n = snprintf(text, sizeof(text), "%s/%zu", e->kind, e->index);
    return place_hash(str_n(text, (size_t)n), e->ns) & (pages - 1);
}

static enum err build_page(struct builder *b, size_t index, size_t pages)
{
    bool any = false;
    struct blob *blob;
    buf_clear(&b->text);
    enum err e = buf_appendz(&b->text, "{\"kind\":\"index\",\"parts\":[");
    for (size_t i = 0; i < b->entries_n && e == ERR_OK; i++) {
        const struct entry *x = &b->entries[i];
        if (page_of(x, pages) != index) continue;
        e = buf_printf(&b->text, "%s{\"kind\":\"%s\",\"namespace\":", any ? "," : "", x->kind);
        if (e == ERR_OK) e = append_ns(&b->text, x->ns);
        if (e == ERR_OK)
            e = buf_printf(&b->text, ",\"index\":%zu,\"digest\":\"%s\",\"bytes\":%zu}", x->index,
                           x->digest, x->bytes);
        any = true;
    }
    if (e == ERR_OK) e = buf_appendz(&b->text, "]}");
    if (e == ERR_OK) e = add_blob(b, true, &blob);
    return e;
}

static enum err build_pages(struct builder *b)
{
    size_t pages = 1;
    while (b->entries_n > pages * PAGE_ENTRIES) pages *= 2;
    enum err e = ERR_OK;
    for (size_t i = 0; i < pages && e == ERR_OK; i++) {
        e = build_page(b, i, pages);
        if (e != ERR_LIMIT || pages >= MAX_PARTS_PER_KIND) continue;
        /* Uneven: begin again with twice as many. */
        while (b->out->blobs_n > 0 && b->out->blobs[b->out->blobs_n - 1].is_page) b->out->blobs_n--;
        pages *= 2;
        i = SIZE_MAX;
        e = ERR_OK;
    }
    return e;
}

/* --- the manifest --- */

static enum err build_manifest(struct builder *b, uint64_t revision, const struct origin *o)
{
    struct built *out = b->out;
    size_t n = 0;
    struct snap_digest *pages = calloc(out->blobs_n + 1, sizeof(*pages));
    if (pages == NULL) return ERR_NOMEM;
    struct json *m = json_object(), *list = json_array();
    for (size_t i = 0; i < out->blobs_n; i++) {
        if (!out->blobs[i].is_page) continue;
        memcpy(pages[n++].hex, out->blobs[i].digest, 65);
        json_push_str(list, str_of(out->blobs[i].digest));
    }
    manifest_digest(pages, n, out->digest);
    json_set_u64(m, "v", ENVELOPE_VERSION);
    json_setz(m, "id", o->message_id);
    json_setz(m, "ts", o->ts);
    json_setz(m, "from", o->instance);
    json_set_u64(m, "format", SNAPSHOT_FORMAT);
    json_set_u64(m, "min_reader", SNAPSHOT_FORMAT);
    json_set_u64(m, "revision", revision);
    json_setz(m, "digest", out->digest);
    json_set(m, "pages", list);
    struct buf text;
    buf_init(&text, MESSAGE_MAX_BYTES);
    enum err e = json_print(m, &text);
    if (e == ERR_OK) e = arena_dup(&out->arena, buf_str(&text), &out->manifest);
    buf_done(&text);
    json_free(m);
    free(pages);
    return e;
}

enum err build_snapshot(uint64_t revision, const struct origin *o, const struct item *items,
                        size_t n, struct built **ret, struct why *why)
{
    struct builder b = { .why = why, .out = calloc(1, sizeof(struct built)) };
    struct item *sorted = calloc(n + 1, sizeof(*sorted));
    enum err e = b.out == NULL || sorted == NULL ? ERR_NOMEM : ERR_OK;
    buf_init(&b.text, PART_MAX_BYTES);
    if (b.out != NULL) {
        arena_init(&b.out->arena, ARENA_MAX);
        atomic_init(&b.out->refs, 1);
        b.out->revision = revision;
    }
    if (e != ERR_OK) goto out;
    if (n > 0) memcpy(sorted, items, n * sizeof(*sorted));
    for (size_t i = 0; i < n; i++) sorted[i].place = place_hash(sorted[i].id, STR_NULL);
    qsort(sorted, n, sizeof(*sorted), compare_items);
    e = build_parts(&b, sorted, n);
    if (e == ERR_OK) e = build_pages(&b);
    if (e == ERR_OK) e = build_manifest(&b, revision, o);
    if (e != ERR_OK) goto out;
    qsort(b.out->blobs, b.out->blobs_n, sizeof(*b.out->blobs), compare_blobs);
    *ret = b.out;
    b.out = NULL;
out:
    built_unref(b.out);
    free(b.entries);
    free(sorted);
    buf_done(&b.text);
    return e;
}

struct built *built_ref(struct built *b)
{
    atomic_fetch_add_explicit(&b->refs, 1, memory_order_relaxed);
    return b;
}

void built_unref(struct built *b)
{
    if (b == NULL || atomic_fetch_sub_explicit(&b->refs, 1, memory_order_acq_rel) != 1) return;
    arena_done(&b->arena);
    free(b->blobs);
    free(b);
}

const struct blob *built_find(const struct built *b, struct str digest)
{
    struct blob key;
    if (!str_copyz(key.digest, sizeof(key.digest), digest)) return NULL;
    return b->blobs_n > 0 ? bsearch(&key, b->blobs, b->blobs_n, sizeof(key), compare_blobs) : NULL;
}
