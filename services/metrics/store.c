/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writing the ledger: see store.h. A record is inserted under its unique id; only when that is new
 * is it added to the roll-ups, in the same transaction. So whatever is delivered twice, to one
 * instance or to two, counts once.
 */
#include "store.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <unistd.h>

#include "store_impl.h"

enum { KNOWN_MAX = 100000, KEY_MAX = 128, EXPIRE_ROWS = 5000 };

struct store {
    struct db *db;
    struct rollup_labels models;
    struct rollup *rollup;
    struct map dims;  /* dim -> present: rows of usage_dims that are there for sure */
    struct map names; /* namespace id -> slug as it is in usage_names, heap */
    struct buf body;
    char *upsert_sql;
    uint64_t clients_done_ms; /* client data is gone up to here */
};

static const char *const count_columns[] = {
    "requests",   "input_tokens", "output_tokens", "cached_tokens", "reasoning_tokens",
    "cost_nano",  "duration_ms",  "overhead_us",   "ttft_ms",       "ttft_count",
    "latency_0",  "latency_1",    "latency_2",     "latency_3",     "latency_4",
    "latency_5",  "latency_6",    "latency_7",     "latency_8",     "latency_9",
    "latency_10", "latency_11",   "latency_12",    "latency_13",    "latency_14"
};
enum { COUNTS = ARRAY_LEN(count_columns) };
_Static_assert(COUNTS == 10 + ROLLUP_BUCKETS, "a column per count");

/* --- opening --- */

static enum err make_upsert(struct store *s, struct buf *b)
{
    bool mysql = db_dialect(s->db) == DB_MYSQL;
    enum err e = buf_appendz(b, "INSERT INTO usage_rollups (step_s, start_ms, dim");
    for (size_t i = 0; i < COUNTS && e == ERR_OK; i++) e = buf_printf(b, ", %s", count_columns[i]);
    if (e == ERR_OK) e = buf_appendz(b, ") VALUES (?, ?, ?");
    for (size_t i = 0; i < COUNTS && e == ERR_OK; i++) e = buf_appendz(b, ", ?");
    if (e == ERR_OK)
        e = buf_appendz(b, mysql ? ") ON DUPLICATE KEY UPDATE "
                                 : ") ON CONFLICT (step_s, start_ms, dim) DO UPDATE SET ");
    for (size_t i = 0; i < COUNTS && e == ERR_OK; i++)
        e = buf_printf(b, mysql ? "%s%s = %s + VALUES(%s)" : "%s%s = %s + excluded.%s",
                       i > 0 ? ", " : "", count_columns[i], count_columns[i], count_columns[i]);
    return e;
}

/* The bound of the label must hold over restarts: what is in the ledger has been seen. */
static enum err load_models(struct store *s, struct why *why)
{
    struct db_rows *rows;
    enum err e = db_query(s->db, "SELECT DISTINCT model FROM usage_dims", NULL, 0, &rows, why);
    if (e != ERR_OK) return e;
    while ((e = db_rows_next(rows)) == ERR_OK) (void)rollup_label(&s->models, db_text(rows, 0));
    db_rows_free(rows);
    return e == ERR_NOT_FOUND ? ERR_OK : e;
}

enum err store_open(const char *url, size_t models_max, struct store **ret, struct why *why)
{
    struct db *db;
    struct buf b;
    enum err e = db_open(url, &db, why);
    if (e != ERR_OK) return e;
    struct store *s = xcalloc(1, sizeof *s);
    s->db = db;
    rollup_labels_init(&s->models, models_max);
    s->rollup = rollup_new(&s->models);
    map_init(&s->dims, KNOWN_MAX);
    map_init(&s->names, KNOWN_MAX);
    buf_init(&s->body, USAGE_MAX_BYTES);
    buf_init(&b, 16 * 1024);
    e = db_migrate(db, "usage", store_migrations, store_migrations_n, why);
    if (e == ERR_OK) e = make_upsert(s, &b);
    if (e == ERR_OK) s->upsert_sql = xstrdup(buf_z(&b));
    if (e == ERR_OK) e = load_models(s, why);
    buf_done(&b);
    if (e != ERR_OK) {
        store_close(s);
        return e;
    }
    *ret = s;
    return ERR_OK;
}

void store_close(struct store *s)
{
    size_t i = 0;
    struct map_entry *m;
    if (s == NULL) return;
    while ((m = map_next(&s->names, &i)) != NULL) free(m->value);
    map_done(&s->names);
    map_done(&s->dims);
    rollup_free(s->rollup);
    rollup_labels_done(&s->models);
    buf_done(&s->body);
    free(s->upsert_sql);
    db_close(s->db);
    free(s);
}

struct db *store_db(struct store *s)
{
    return s->db;
}

enum err store_lock(const char *url, int *ret_fd, struct why *why)
{
    char path[1024];
    struct str u = str_of(url);
    if (!str_starts(u, STR("sqlite:"))) {
        *ret_fd = -1;
        return ERR_OK;
    }
    int n = snprintf(path, sizeof path, "%s.lock", url + 7);
    if (n < 0 || (size_t)n >= sizeof path)
        return why_set(why, ERR_INVALID, "the path of the database is too long");
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0) return why_set(why, ERR_IO, "cannot open %s: %s", path, strerror(errno));
    if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        enum err e = errno == EWOULDBLOCK ? ERR_CONFLICT : ERR_IO;
        (void)close(fd);
        return why_set(why, e,
                       "another instance uses %s: with sqlite there can be one, use mysql for more",
                       url + 7);
    }
    *ret_fd = fd;
    return ERR_OK;
}

/* --- one record --- */

/* At most KEY_MAX bytes of a text that is longer than any we make. */
static struct str cut(struct str s)
{
    if (s.n <= KEY_MAX) return s;
    size_t n = KEY_MAX;
    while (n > 0 && ((unsigned char)s.p[n] & 0xc0) == 0x80) n--;
    return str_n(s.p, n);
}

static struct db_value text_or_null(struct str s)
{
    return s.n > 0 ? DBV_TEXT(s) : DBV_NULL;
}

static enum err insert_record(struct store *s, const struct usage_record *r, uint64_t now_ms,
                              struct why *why)
{
    static const char sql[] =
        "INSERT INTO usage_records (id, ts_ms, stored_ms, namespace_id, key_id, model, outcome, status, "
        "input_tokens, output_tokens, client_ip, user_name, body) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
    struct usage_record kept = *r;
    kept.client_ip = kept.user = STR_NULL;
    buf_clear(&s->body);
    enum err e = usage_encode(&kept, &s->body);
    if (e != ERR_OK) return why_set(why, ERR_INVALID, "cannot be written again");
    struct str ns = cut(r->namespace_id.n > 0 ? r->namespace_id : r->namespace_slug);
    struct db_value params[] = { DBV_TEXT(r->id),
                                 DBV_INT(r->ts_ms),
                                 DBV_INT(now_ms),
                                 DBV_TEXT(ns),
                                 DBV_TEXT(cut(r->key_id)),
                                 DBV_TEXT(r->model),
                                 DBV_TEXT(str_of(usage_outcome_name(r->outcome))),
                                 DBV_INT(r->status),
                                 DBV_INT(r->input_tokens),
                                 DBV_INT(r->output_tokens),
                                 text_or_null(r->client_ip),
                                 text_or_null(r->user),
                                 DBV_TEXT(buf_str(&s->body)) };
    return db_exec(s->db, sql, params, ARRAY_LEN(params), NULL, why);
}

static enum err store_one(struct store *s, const struct usage_record *r, uint64_t now_ms,
                          enum store_verdict *ret, struct why *why)
{
    enum err e = insert_record(s, r, now_ms, why);
    switch (e) {
    case ERR_OK: *ret = STORE_NEW; return rollup_add(s->rollup, r);
    case ERR_EXISTS: *ret = STORE_DUPLICATE; return ERR_OK;
    case ERR_INVALID: *ret = STORE_REFUSED; return ERR_OK;
    default: return e;
    }
}

/* --- roll-ups --- */

static enum err write_dim(struct store *s, const struct rollup_dim *d, struct why *why)
{
    static const char sql[] =
        "INSERT INTO usage_dims (dim, namespace_id, model, route, upstream, "
        "key_id, outcome, status, currency) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)";
    if (map_get(&s->dims, str_of(d->id)) != NULL) return ERR_OK;
    struct db_value params[] = { DBV_TEXT(str_of(d->id)),
                                 DBV_TEXT(d->namespace_id),
                                 DBV_TEXT(d->model),
                                 DBV_TEXT(d->route),
                                 DBV_TEXT(d->upstream),
                                 DBV_TEXT(d->key_id),
                                 DBV_TEXT(str_of(usage_outcome_name(d->outcome))),
                                 DBV_INT(d->status),
                                 DBV_TEXT(d->currency) };
    enum err e = db_exec(s->db, sql, params, ARRAY_LEN(params), NULL, why);
    return e == ERR_EXISTS ? ERR_OK : e;
}

static enum err write_name(struct store *s, const struct rollup_dim *d, struct why *why)
{
    bool mysql = db_dialect(s->db) == DB_MYSQL;
    const char *known = map_get(&s->names, d->namespace_id);
    if (known != NULL && str_eqz(d->namespace_slug, known)) return ERR_OK;
    struct db_value params[] = { DBV_TEXT(d->namespace_id), DBV_TEXT(d->namespace_slug) };
    return db_exec(s->db,
                   mysql ? "INSERT INTO usage_names (namespace_id, slug) VALUES (?, ?) "
                           "ON DUPLICATE KEY UPDATE slug = VALUES(slug)"
                         : "INSERT INTO usage_names (namespace_id, slug) VALUES (?, ?) "
                           "ON CONFLICT (namespace_id) DO UPDATE SET slug = excluded.slug",
                   params, ARRAY_LEN(params), NULL, why);
}

static enum err write_row(struct store *s, const struct rollup_row *r, struct why *why)
{
    const struct rollup_counts *c = &r->counts;
    struct db_value params[3 + COUNTS] = {
        DBV_INT(r->step_s),        DBV_INT(r->start_ms),         DBV_TEXT(str_of(r->dim->id)),
        DBV_INT(c->requests),      DBV_INT(c->input_tokens),     DBV_INT(c->output_tokens),
        DBV_INT(c->cached_tokens), DBV_INT(c->reasoning_tokens), DBV_INT(c->cost_nano),
        DBV_INT(c->duration_ms),   DBV_INT(c->overhead_us),      DBV_INT(c->ttft_ms),
        DBV_INT(c->ttft_count)
    };
    for (size_t i = 0; i < ROLLUP_BUCKETS; i++) params[13 + i] = DBV_INT(c->latency[i]);
    return db_exec(s->db, s->upsert_sql, params, ARRAY_LEN(params), NULL, why);
}

static enum err write_rollups(struct store *s, struct why *why)
{
    size_t dims_n, rows_n;
    const struct rollup_dim *const *dims = rollup_dims(s->rollup, &dims_n);
    const struct rollup_row *rows = rollup_rows(s->rollup, &rows_n);
    enum err e = ERR_OK;
    for (size_t i = 0; i < dims_n && e == ERR_OK; i++) {
        e = write_dim(s, dims[i], why);
        if (e == ERR_OK) e = write_name(s, dims[i], why);
    }
    for (size_t i = 0; i < rows_n && e == ERR_OK; i++) e = write_row(s, &rows[i], why);
    return e;
}

/* After the commit: what is in the database for sure need not be written again. */
static void remember(struct store *s)
{
    static char present;
    size_t n;
    const struct rollup_dim *const *dims = rollup_dims(s->rollup, &n);
    for (size_t i = 0; i < n; i++) {
        void *old = NULL;
        char *slug = str_dupz(dims[i]->namespace_slug);
        if (map_put(&s->dims, str_of(dims[i]->id), &present, NULL) != ERR_OK) {
            map_done(&s->dims); /* full: begin anew */
            map_init(&s->dims, KNOWN_MAX);
        }
        if (map_put(&s->names, dims[i]->namespace_id, slug, &old) != ERR_OK) free(slug);
        free(old);
    }
}

enum err store_ingest(struct store *s, const struct usage_record *const *records, size_t n,
                      uint64_t now_ms, enum store_verdict *ret, struct why *why)
{
    rollup_clear(s->rollup);
    enum err e = db_begin(s->db, why);
    if (e != ERR_OK) return e;
    for (size_t i = 0; i < n && e == ERR_OK; i++)
        e = store_one(s, records[i], now_ms, &ret[i], why);
    if (e == ERR_OK) e = write_rollups(s, why);
    if (e != ERR_OK) {
        db_rollback(s->db);
        return e;
    }
    e = db_commit(s->db, why);
    if (e == ERR_OK) remember(s);
    return e;
}

/* --- what is too old --- */

static enum err expire(struct store *s, const char *mysql, const char *sqlite, uint64_t before_ms,
                       bool *more, struct why *why)
{
    uint64_t changed = 0;
    struct db_value params[] = { DBV_INT(before_ms), DBV_INT(EXPIRE_ROWS) };
    if (before_ms == 0) return ERR_OK;
    enum err e = db_exec(s->db, db_dialect(s->db) == DB_MYSQL ? mysql : sqlite, params, 2, &changed,
                         why);
    if (changed >= EXPIRE_ROWS) *more = true;
    return e;
}

enum err store_expire(struct store *s, const struct store_retention *r, bool *ret_more,
                      struct why *why)
{
    bool more = false;
    enum err e = expire(
        s, "DELETE FROM usage_records WHERE stored_ms < ? ORDER BY stored_ms LIMIT ?",
        "DELETE FROM usage_records WHERE id IN "
        "(SELECT id FROM usage_records WHERE stored_ms < ? ORDER BY stored_ms LIMIT ?)",
        r->records_before_ms, &more, why);
    if (e == ERR_OK)
        e = expire(s,
                   "DELETE FROM usage_rollups WHERE step_s = 60 AND start_ms < ? "
                   "ORDER BY start_ms LIMIT ?",
                   "DELETE FROM usage_rollups WHERE rowid IN "
                   "(SELECT rowid FROM usage_rollups WHERE step_s = 60 AND start_ms < ? "
                   "ORDER BY start_ms LIMIT ?)",
                   r->minutes_before_ms, &more, why);
    if (e == ERR_OK && r->clients_before_ms > s->clients_done_ms) {
        struct db_value params[] = { DBV_INT(s->clients_done_ms), DBV_INT(r->clients_before_ms) };
        e = db_exec(s->db,
                    "UPDATE usage_records SET client_ip = NULL, user_name = NULL "
                    "WHERE stored_ms >= ? AND stored_ms < ? "
                    "AND (client_ip IS NOT NULL OR user_name IS NOT NULL)",
                    params, 2, NULL, why);
        /* Clocks of other instances may be behind: look an hour back again. */
        uint64_t done = r->clients_before_ms;
        if (e == ERR_OK) s->clients_done_ms = done > 3600000 ? done - 3600000 : 0;
    }
    if (e == ERR_OK) *ret_more = more;
    return e;
}
