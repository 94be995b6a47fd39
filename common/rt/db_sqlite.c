/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SQLite behind db.h: the only file that includes its header. The thread that uses the connection.
 *
 * Write-ahead log with synchronous=FULL: what was committed survives the process and the machine,
 * and readers do not wait for the writer.
 */
#include <sqlite3.h>
#include <stdlib.h>

#include "base/map.h"
#include "rt/db_driver.h"

enum { BUSY_TIMEOUT_MS = 5000 };

struct statement {
    sqlite3_stmt *s;
    bool in_use, cached;
};

struct sqlite {
    struct db base;
    sqlite3 *db;
    struct map statements; /* by text */
    bool in_transaction;
};

struct sqlite_rows {
    struct db_rows base;
    struct sqlite *owner;
    struct statement *statement;
};

static struct sqlite *of(struct db *d)
{
    return (struct sqlite *)d;
}

static enum err error_of(sqlite3 *db, struct why *why)
{
    int code = sqlite3_extended_errcode(db);
    enum err e = ERR_INVALID;
    switch (code & 0xff) {
    case SQLITE_BUSY:
    case SQLITE_LOCKED: e = ERR_CONFLICT; break;
    case SQLITE_NOMEM: e = ERR_NOMEM; break;
    case SQLITE_FULL:
    case SQLITE_TOOBIG: e = ERR_LIMIT; break;
    case SQLITE_PERM:
    case SQLITE_AUTH:
    case SQLITE_READONLY: e = ERR_DENIED; break;
    case SQLITE_CANTOPEN:
    case SQLITE_IOERR:
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB: e = ERR_IO; break;
    case SQLITE_CONSTRAINT:
        if (code == SQLITE_CONSTRAINT_UNIQUE || code == SQLITE_CONSTRAINT_PRIMARYKEY ||
            code == SQLITE_CONSTRAINT_ROWID)
            e = ERR_EXISTS;
        else if (code == SQLITE_CONSTRAINT_FOREIGNKEY)
            e = ERR_CONFLICT;
        break;
    default: break;
    }
    return why_set(why, e, "sqlite: %s", sqlite3_errmsg(db));
}

/* --- statements --- */

static void drop_statement(struct statement *st)
{
    if (st == NULL) return;
    sqlite3_finalize(st->s);
    free(st);
}

static void release(struct statement *st)
{
    (void)sqlite3_reset(st->s);
    (void)sqlite3_clear_bindings(st->s);
    st->in_use = false;
    if (!st->cached) drop_statement(st);
}

/* Makes room for one more in the cache: any that is not in use goes. */
static void evict_one(struct sqlite *q)
{
    size_t i = 0;
    struct map_entry *e;
    while ((e = map_next(&q->statements, &i)) != NULL) {
        struct statement *st = e->value;
        if (st->in_use) continue;
        (void)map_remove(&q->statements, e->key);
        drop_statement(st);
        return;
    }
}

static enum err prepare(struct sqlite *q, const char *sql, struct statement **ret, struct why *why)
{
    struct statement *st = map_get(&q->statements, str_of(sql));
    if (st == NULL || st->in_use) {
        bool may_cache = st == NULL;
        st = calloc(1, sizeof(*st));
        if (st == NULL) return ERR_NOMEM;
        if (sqlite3_prepare_v2(q->db, sql, -1, &st->s, NULL) != SQLITE_OK || st->s == NULL) {
            enum err e = st->s == NULL && sqlite3_errcode(q->db) == SQLITE_OK
                             ? why_set(why, ERR_INVALID, "sqlite: an empty statement")
                             : error_of(q->db, why);
            drop_statement(st);
            return e;
        }
        if (may_cache) {
            if (q->statements.len >= DB_STATEMENTS) evict_one(q);
            st->cached = map_put(&q->statements, str_of(sql), st, NULL) == ERR_OK;
        }
    }
    st->in_use = true;
    *ret = st;
    return ERR_OK;
}

static int bind_one(sqlite3_stmt *s, int at, const struct db_value *v)
{
    const char *p = v->s.p != NULL ? v->s.p : "";
    switch (v->type) {
    case DB_NULL: return sqlite3_bind_null(s, at);
    case DB_INT: return sqlite3_bind_int64(s, at, v->i);
    case DB_DOUBLE: return sqlite3_bind_double(s, at, v->d);
    case DB_TEXT: return sqlite3_bind_text64(s, at, p, v->s.n, SQLITE_TRANSIENT, SQLITE_UTF8);
    case DB_BLOB: return sqlite3_bind_blob64(s, at, p, v->s.n, SQLITE_TRANSIENT);
    }
    return SQLITE_MISUSE;
}

static enum err start(struct sqlite *q, const char *sql, const struct db_value *params, size_t n,
                      struct statement **ret, struct why *why)
{
    struct statement *st = NULL;
    enum err e = prepare(q, sql, &st, why);
    if (e != ERR_OK) return e;
    if ((size_t)sqlite3_bind_parameter_count(st->s) != n) {
        e = why_set(why, ERR_INTERNAL, "sqlite: the statement takes %d parameters, not %zu",
                    sqlite3_bind_parameter_count(st->s), n);
    }
    for (size_t i = 0; i < n && e == ERR_OK; i++)
        if (bind_one(st->s, (int)i + 1, &params[i]) != SQLITE_OK) e = error_of(q->db, why);
    if (e != ERR_OK) {
        release(st);
        return e;
    }
    *ret = st;
    return ERR_OK;
}

static enum err sqlite_exec(struct db *d, const char *sql, const struct db_value *params, size_t n,
                            uint64_t *ret_changed, struct why *why)
{
    struct sqlite *q = of(d);
    struct statement *st = NULL;
    int rc;
    enum err e = start(q, sql, params, n, &st, why);
    if (e != ERR_OK) return e;
    while ((rc = sqlite3_step(st->s)) ==
           SQLITE_ROW) { /* a statement may return rows nobody wants */
    }
    if (rc != SQLITE_DONE) {
        e = error_of(q->db, why);
    } else if (ret_changed != NULL) {
        *ret_changed = (uint64_t)sqlite3_changes64(q->db);
    }
    release(st);
    return e;
}

/* --- rows --- */

static const struct db_driver driver;

static enum err sqlite_query(struct db *d, const char *sql, const struct db_value *params, size_t n,
                             struct db_rows **ret, struct why *why)
{
    struct statement *st = NULL;
    struct sqlite_rows *r = calloc(1, sizeof(*r));
    if (r == NULL) return ERR_NOMEM;
    enum err e = start(of(d), sql, params, n, &st, why);
    if (e != ERR_OK) {
        free(r);
        return e;
    }
    r->base.driver = &driver;
    r->owner = of(d);
    r->statement = st;
    *ret = &r->base;
    return ERR_OK;
}

static sqlite3_stmt *rows_of(const struct db_rows *r)
{
    return ((const struct sqlite_rows *)r)->statement->s;
}

static enum err sqlite_next(struct db_rows *r)
{
    int rc = sqlite3_step(rows_of(r));
    if (rc == SQLITE_ROW) return ERR_OK;
    if (rc == SQLITE_DONE) return ERR_NOT_FOUND;
    return error_of(((struct sqlite_rows *)r)->owner->db, NULL);
}

static int64_t sqlite_int(const struct db_rows *r, int column)
{
    return sqlite3_column_int64(rows_of(r), column);
}

static double sqlite_double(const struct db_rows *r, int column)
{
    return sqlite3_column_double(rows_of(r), column);
}

static struct str sqlite_text(const struct db_rows *r, int column)
{
    sqlite3_stmt *s = rows_of(r);
    if (sqlite3_column_type(s, column) == SQLITE_NULL) return STR_NULL;
    /* A blob stays as it is; its length must be asked for after the conversion. */
    const char *p = sqlite3_column_type(s, column) == SQLITE_BLOB
                        ? sqlite3_column_blob(s, column)
                        : (const char *)sqlite3_column_text(s, column);
    return str_n(p != NULL ? p : "", p != NULL ? (size_t)sqlite3_column_bytes(s, column) : 0);
}

static void sqlite_rows_free(struct db_rows *r)
{
    release(((struct sqlite_rows *)r)->statement);
    free(r);
}

/* --- transactions and connection --- */

static enum err sqlite_begin(struct db *d, struct why *why)
{
    ASSERT(!of(d)->in_transaction);
    enum err e = sqlite_exec(d, "BEGIN IMMEDIATE", NULL, 0, NULL, why);
    if (e == ERR_OK) of(d)->in_transaction = true;
    return e;
}

static void sqlite_rollback(struct db *d)
{
    if (!of(d)->in_transaction) return;
    of(d)->in_transaction = false;
    /* Some errors have rolled back already; then there is nothing to do. */
    if (sqlite3_get_autocommit(of(d)->db) == 0)
        (void)sqlite3_exec(of(d)->db, "ROLLBACK", NULL, NULL, NULL);
}

static enum err sqlite_commit(struct db *d, struct why *why)
{
    ASSERT(of(d)->in_transaction);
    enum err e = sqlite_exec(d, "COMMIT", NULL, 0, NULL, why);
    if (e != ERR_OK) sqlite_rollback(d);
    of(d)->in_transaction = false;
    return e;
}

static void sqlite_close(struct db *d)
{
    struct sqlite *q = of(d);
    size_t i = 0;
    struct map_entry *e;
    while ((e = map_next(&q->statements, &i)) != NULL) drop_statement(e->value);
    map_done(&q->statements);
    (void)sqlite3_close_v2(q->db);
    free(q);
}

static const struct db_driver driver = {
    .dialect = DB_SQLITE,
    .close = sqlite_close,
    .exec = sqlite_exec,
    .query = sqlite_query,
    .next = sqlite_next,
    .get_int = sqlite_int,
    .get_double = sqlite_double,
    .get_text = sqlite_text,
    .rows_free = sqlite_rows_free,
    .begin = sqlite_begin,
    .commit = sqlite_commit,
    .rollback = sqlite_rollback,
};

enum err db_sqlite_open(const char *path, struct db **ret, struct why *why)
{
    static const char *const setup[] = { "PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL",
                                         "PRAGMA foreign_keys=ON", "PRAGMA trusted_schema=OFF" };
    struct sqlite *q = calloc(1, sizeof(*q));
    if (q == NULL) return ERR_NOMEM;
    q->base.driver = &driver;
    map_init(&q->statements, DB_STATEMENTS + 1);
    enum err e = ERR_OK;
    int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX;
    if (sqlite3_open_v2(path, &q->db, flags, NULL) != SQLITE_OK) {
        e = q->db != NULL ? error_of(q->db, why) : ERR_NOMEM;
        sqlite_close(&q->base);
        return e;
    }
    (void)sqlite3_extended_result_codes(q->db, 1);
    (void)sqlite3_busy_timeout(q->db, BUSY_TIMEOUT_MS);
    for (size_t i = 0; i < ARRAY_LEN(setup) && e == ERR_OK; i++)
        if (sqlite3_exec(q->db, setup[i], NULL, NULL, NULL) != SQLITE_OK) e = error_of(q->db, why);
    if (e != ERR_OK) {
        sqlite_close(&q->base);
        return e;
    }
    *ret = &q->base;
    return ERR_OK;
}
