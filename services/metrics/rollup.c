/* SPDX-License-Identifier: Apache-2.0 */
/* Adding usage records up: see rollup.h. */
#include "rollup.h"

#include <stdio.h>
#include <stdlib.h>

#include "rt/crypto.h"

const uint32_t rollup_steps_s[ROLLUP_STEPS] = { 0, 60, 3600, 86400 };
const uint32_t rollup_bounds_ms[ROLLUP_BUCKETS - 1] = {
    10, 20, 40, 80, 160, 320, 640, 1280, 2560, 5120, 10240, 20480, 40960, 81920
};

enum { LABEL_MAX = 128, ARENA_BUDGET = 8 * 1024 * 1024 };

struct rollup {
    struct rollup_labels *models;
    struct arena arena;
    struct map dims; /* id -> rollup_dim */
    struct map at;   /* row key -> index + 1 in rows */
    struct rollup_row *rows;
    const struct rollup_dim **list;
    size_t rows_n, rows_cap, list_n, list_cap;
    bool sorted;
};

struct row_key {
    uint64_t start_ms, step_s;
    char dim[ROLLUP_ID_LEN];
};

/* --- labels --- */

void rollup_labels_init(struct rollup_labels *l, size_t max)
{
    l->max = max;
    map_init(&l->seen, max + 1);
}

void rollup_labels_done(struct rollup_labels *l)
{
    map_done(&l->seen);
}

struct str rollup_label(struct rollup_labels *l, struct str value)
{
    static char present;
    if (value.n == 0) return value;
    if (map_get(&l->seen, value) != NULL) return value;
    if (value.n > LABEL_MAX || l->seen.len >= l->max ||
        map_put(&l->seen, value, &present, NULL) != ERR_OK)
        return STR("other");
    return value;
}

/* --- adding --- */

struct rollup *rollup_new(struct rollup_labels *models)
{
    struct rollup *r = xcalloc(1, sizeof *r);
    r->models = models;
    arena_init(&r->arena, ARENA_BUDGET);
    map_init(&r->dims, SIZE_MAX / 64);
    map_init(&r->at, SIZE_MAX / 64);
    return r;
}

void rollup_free(struct rollup *r)
{
    if (r == NULL) return;
    arena_done(&r->arena);
    map_done(&r->dims);
    map_done(&r->at);
    free(r->rows);
    free(r->list);
    free(r);
}

void rollup_clear(struct rollup *r)
{
    map_done(&r->dims);
    map_done(&r->at);
    map_init(&r->dims, SIZE_MAX / 64);
    map_init(&r->at, SIZE_MAX / 64);
    arena_reset(&r->arena);
    r->rows_n = r->list_n = 0;
}

/* Each value with its length before it, so that no two lists of values make the same text. */
static enum err digest(const struct rollup_dim *d, char out[ROLLUP_ID_LEN + 1])
{
    const struct str values[] = { d->namespace_id, d->model,  d->route,
                                  d->upstream,     d->key_id, d->currency };
    char hex[SHA256_HEX_LEN + 1];
    struct buf b;
    buf_init(&b, 16 * 1024);
    enum err e = buf_printf(&b, "%s %u", usage_outcome_name(d->outcome), d->status);
    for (size_t i = 0; i < ARRAY_LEN(values) && e == ERR_OK; i++) {
        e = buf_printf(&b, " %zu:", values[i].n);
        if (e == ERR_OK) e = buf_append_str(&b, values[i]);
    }
    if (e == ERR_OK) {
        crypto_sha256_hex(buf_str(&b), hex);
        memcpy(out, hex, ROLLUP_ID_LEN);
        out[ROLLUP_ID_LEN] = '\0';
    }
    buf_done(&b);
    return e;
}

static struct str clipped(struct str s)
{
    return s.n <= LABEL_MAX ? s : STR("other");
}

static enum err grow(void **list, size_t *cap, size_t need, size_t size)
{
    if (need <= *cap) return ERR_OK;
    size_t n = MAX(need, *cap * 2 + 64);
    void *p = realloc(*list, n * size);
    if (p == NULL) return ERR_NOMEM;
    *list = p;
    *cap = n;
    return ERR_OK;
}

static enum err find_dim(struct rollup *r, const struct usage_record *u,
                         const struct rollup_dim **ret)
{
    struct rollup_dim d = {
        .namespace_id = clipped(u->namespace_id.n > 0 ? u->namespace_id : u->namespace_slug),
        .namespace_slug = u->namespace_slug,
        .model = rollup_label(r->models, u->model),
        .route = clipped(u->route),
        .upstream = clipped(u->upstream),
        .key_id = clipped(u->key_id),
        .currency = clipped(u->cost.currency),
        .outcome = u->outcome,
        .status = u->status,
    };
    enum err e = digest(&d, d.id);
    if (e != ERR_OK) return e;
    struct rollup_dim *kept = map_get(&r->dims, str_n(d.id, ROLLUP_ID_LEN));
    if (kept != NULL) {
        *ret = kept;
        return ERR_OK;
    }
    void *list = r->list;
    e = grow(&list, &r->list_cap, r->list_n + 1, sizeof *r->list);
    r->list = list;
    kept = e == ERR_OK ? arena_alloc(&r->arena, sizeof *kept) : NULL;
    if (kept == NULL) return ERR_NOMEM;
    *kept = d;
    const struct str *from[] = { &d.namespace_id, &d.namespace_slug, &d.model,   &d.route,
                                 &d.upstream,     &d.key_id,         &d.currency };
    struct str *to[] = { &kept->namespace_id, &kept->namespace_slug, &kept->model,   &kept->route,
                         &kept->upstream,     &kept->key_id,         &kept->currency };
    for (size_t i = 0; i < ARRAY_LEN(to); i++)
        if (arena_dup(&r->arena, *from[i], to[i]) != ERR_OK) return ERR_NOMEM;
    e = map_put(&r->dims, str_n(d.id, ROLLUP_ID_LEN), kept, NULL);
    if (e != ERR_OK) return e;
    r->list[r->list_n++] = kept;
    *ret = kept;
    return ERR_OK;
}

static enum err find_row(struct rollup *r, uint32_t step_s, uint64_t ts_ms,
                         const struct rollup_dim *dim, size_t *ret)
{
    struct row_key key;
    memset(&key, 0, sizeof key);
    uint64_t step_ms = (uint64_t)step_s * 1000;
    key.start_ms = step_ms > 0 ? ts_ms / step_ms * step_ms : 0;
    key.step_s = step_s;
    memcpy(key.dim, dim->id, ROLLUP_ID_LEN);
    struct str k = str_n((const char *)&key, sizeof key);
    uintptr_t at = (uintptr_t)map_get(&r->at, k);
    if (at == 0) {
        void *rows = r->rows;
        enum err e = grow(&rows, &r->rows_cap, r->rows_n + 1, sizeof *r->rows);
        r->rows = rows;
        if (e == ERR_OK) e = map_put(&r->at, k, (void *)(uintptr_t)(r->rows_n + 1), NULL);
        if (e != ERR_OK) return e;
        r->rows[r->rows_n] = (struct rollup_row){ step_s, key.start_ms, dim, { 0 } };
        at = ++r->rows_n;
    }
    *ret = at - 1;
    return ERR_OK;
}

static size_t bucket_of(uint64_t ms)
{
    size_t i = 0;
    while (i < ROLLUP_BUCKETS - 1 && ms > rollup_bounds_ms[i]) i++;
    return i;
}

static void count(struct rollup_counts *c, const struct usage_record *u)
{
    c->requests++;
    c->input_tokens += u->input_tokens;
    c->output_tokens += u->output_tokens;
    c->cached_tokens += u->cached_tokens;
    c->reasoning_tokens += u->reasoning_tokens;
    c->cost_nano += u->cost.nano;
    c->duration_ms += u->duration_ms;
    c->overhead_us += u->overhead_us;
    if (u->has_ttft) c->ttft_ms += u->ttft_ms, c->ttft_count++;
    c->latency[bucket_of(u->duration_ms)]++;
}

enum err rollup_add(struct rollup *r, const struct usage_record *u)
{
    const struct rollup_dim *dim;
    size_t at[ROLLUP_STEPS];
    ASSERT(!r->sorted || r->rows_n == 0);
    r->sorted = false;
    enum err e = find_dim(r, u, &dim);
    /* All rows first: what follows cannot fail. */
    for (size_t i = 0; i < ROLLUP_STEPS && e == ERR_OK; i++)
        e = find_row(r, rollup_steps_s[i], u->ts_ms, dim, &at[i]);
    if (e != ERR_OK) return ERR_NOMEM;
    for (size_t i = 0; i < ROLLUP_STEPS; i++) count(&r->rows[at[i]].counts, u);
    return ERR_OK;
}

static int compare(const void *pa, const void *pb)
{
    const struct rollup_row *a = pa, *b = pb;
    if (a->step_s != b->step_s) return a->step_s < b->step_s ? -1 : 1;
    if (a->start_ms != b->start_ms) return a->start_ms < b->start_ms ? -1 : 1;
    return memcmp(a->dim->id, b->dim->id, ROLLUP_ID_LEN);
}

const struct rollup_row *rollup_rows(struct rollup *r, size_t *ret_n)
{
    if (r->rows_n > 0) qsort(r->rows, r->rows_n, sizeof *r->rows, compare);
    r->sorted = true; /* indexes in the map are void: clear before adding more */
    *ret_n = r->rows_n;
    return r->rows;
}

const struct rollup_dim *const *rollup_dims(const struct rollup *r, size_t *ret_n)
{
    *ret_n = r->list_n;
    return r->list;
}
