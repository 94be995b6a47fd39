/* SPDX-License-Identifier: Apache-2.0 */
/* Chooses the driver by URL, and migrates schemas. The thread that uses the connection. */
#include "rt/db.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/buf.h"
#include "rt/db_driver.h"
#include "rt/db_url.h"

void db_redact_url(const char *url, char *out, size_t cap)
{
    struct str u = str_of(url);
    const char *scheme = strstr(url, "://"), *at = strrchr(url, '@');
    const char *colon = scheme != NULL && at != NULL
                            ? memchr(scheme + 3, ':', (size_t)(at - scheme - 3))
                            : NULL;
    if (scheme == NULL || at == NULL || at < scheme || colon == NULL) {
        (void)str_copyz(out, cap, u);
        return;
    }
    (void)snprintf(out, cap, "%.*s:***%s", (int)(colon - url), url, at);
}

enum err db_check_url(const char *url, struct why *why)
{
    struct db_url parsed;
    struct str u = str_of(url);
    if (u.n > 7 && str_starts(u, STR("sqlite:"))) return ERR_OK;
    if (db_url_parse(url, &parsed, NULL) != ERR_OK)
        return why_set(why, ERR_INVALID,
                       "must be sqlite:PATH or mysql://user:password@host:port/database");
    db_url_done(&parsed);
    return ERR_OK;
}

enum err db_open(const char *url, struct db **ret, struct why *why)
{
    struct str u = str_of(url);
    if (str_starts(u, STR("sqlite:")) && u.n > 7) return db_sqlite_open(url + 7, ret, why);
    if (str_starts(u, STR("mysql://"))) return db_mysql_open(url, ret, why);
    return why_set(why, ERR_INVALID,
                   "a database is sqlite:PATH or mysql://user:password@host:port/database");
}

void db_close(struct db *d)
{
    if (d != NULL) d->driver->close(d);
}

enum db_dialect db_dialect(const struct db *d)
{
    return d->driver->dialect;
}

enum err db_exec(struct db *d, const char *sql, const struct db_value *params, size_t n,
                 uint64_t *ret_changed, struct why *why)
{
    ASSERT(n <= DB_MAX_PARAMS);
    return d->driver->exec(d, sql, params, n, ret_changed, why);
}

enum err db_query(struct db *d, const char *sql, const struct db_value *params, size_t n,
                  struct db_rows **ret, struct why *why)
{
    ASSERT(n <= DB_MAX_PARAMS);
    return d->driver->query(d, sql, params, n, ret, why);
}

enum err db_rows_next(struct db_rows *r)
{
    return r->driver->next(r);
}

int64_t db_int(const struct db_rows *r, int column)
{
    return r->driver->get_int(r, column);
}

double db_double(const struct db_rows *r, int column)
{
    return r->driver->get_double(r, column);
}

struct str db_text(const struct db_rows *r, int column)
{
    return r->driver->get_text(r, column);
}

bool db_is_null(const struct db_rows *r, int column)
{
    return r->driver->get_text(r, column).p == NULL;
}

void db_rows_free(struct db_rows *r)
{
    if (r != NULL) r->driver->rows_free(r);
}

enum err db_begin(struct db *d, struct why *why)
{
    return d->driver->begin(d, why);
}

enum err db_commit(struct db *d, struct why *why)
{
    return d->driver->commit(d, why);
}

void db_rollback(struct db *d)
{
    d->driver->rollback(d);
}

/* --- migrations --- */

/* MySQL compares text without case and may use another engine unless its tables say otherwise. */
static enum err run_statement(struct db *d, const char *sql, struct why *why)
{
    struct str s = str_of(sql);
    if (db_dialect(d) != DB_MYSQL || !str_starts(s, STR("CREATE TABLE"))) {
        enum err plain = db_exec(d, sql, NULL, 0, NULL, why);
        /* One that a crash left behind; not every MySQL knows IF NOT EXISTS for indexes. */
        bool there = plain == ERR_EXISTS && str_starts(s, STR("CREATE INDEX"));
        return there && db_dialect(d) == DB_MYSQL ? ERR_OK : plain;
    }
    struct buf text;
    buf_init(&text, 64 * 1024);
    enum err e = buf_printf(
        &text, "%s ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin", sql);
    if (e == ERR_OK) e = db_exec(d, buf_z(&text), NULL, 0, NULL, why);
    buf_done(&text);
    return e;
}

static enum err version_of(struct db *d, const char *name, int64_t *ret, struct why *why)
{
    char sql[128];
    struct db_rows *rows;
    (void)snprintf(sql, sizeof(sql), "SELECT COALESCE(MAX(version), 0) FROM %s_migrations", name);
    enum err e = db_query(d, sql, NULL, 0, &rows, why);
    if (e != ERR_OK) return e;
    e = db_rows_next(rows);
    if (e == ERR_OK) *ret = db_int(rows, 0);
    db_rows_free(rows);
    return e;
}

static enum err apply_one(struct db *d, const char *name, const struct db_migration *m,
                          struct why *why)
{
    char sql[128];
    struct why inner = { "" };
    enum err e = ERR_OK;
    for (size_t i = 0; i < ARRAY_LEN(m->sql) && m->sql[i] != NULL && e == ERR_OK; i++)
        e = run_statement(d, m->sql[i], &inner);
    (void)snprintf(sql, sizeof(sql), "INSERT INTO %s_migrations (version, title) VALUES (?, ?)",
                   name);
    if (e == ERR_OK) {
        struct db_value params[] = { DBV_INT(m->version), DBV_TEXT(str_of(m->title)) };
        e = db_exec(d, sql, params, ARRAY_LEN(params), NULL, &inner);
    }
    if (e != ERR_OK)
        return why_set(why, e, "migration %d of %s (%s): %s", m->version, name, m->title,
                       inner.text);
    return ERR_OK;
}

static enum err migrate_locked(struct db *d, const char *name, const struct db_migration *m,
                               size_t n, struct why *why)
{
    char sql[192];
    int64_t have = 0;
    (void)snprintf(sql, sizeof(sql),
                   "CREATE TABLE IF NOT EXISTS %s_migrations (version BIGINT NOT NULL PRIMARY KEY, "
                   "title VARCHAR(190) NOT NULL)",
                   name);
    enum err e = run_statement(d, sql, why);
    if (e == ERR_OK) e = version_of(d, name, &have, why);
    if (e != ERR_OK) return e;
    int64_t newest = n > 0 ? m[n - 1].version : 0;
    if (have > newest)
        return why_set(why, ERR_CONFLICT,
                       "the database has schema version %lld of %s, this program knows %lld",
                       (long long)have, name, (long long)newest);
    for (size_t i = 0; i < n && e == ERR_OK; i++) {
        ASSERT(i == 0 || m[i].version > m[i - 1].version);
        if (m[i].version > have) e = apply_one(d, name, &m[i], why);
    }
    return e;
}

/* SQLite: all in one transaction. MySQL commits each statement that changes a schema by itself, so
 * a named lock keeps others out; what a crash left half done is done again. */
enum err db_migrate(struct db *d, const char *name, const struct db_migration *m, size_t n,
                    struct why *why)
{
    enum err e;
    if (db_dialect(d) == DB_SQLITE) {
        e = db_begin(d, why);
        if (e != ERR_OK) return e;
        e = migrate_locked(d, name, m, n, why);
        if (e == ERR_OK) return db_commit(d, why);
        db_rollback(d);
        return e;
    }
    struct db_rows *rows;
    struct db_value lock = DBV_TEXT(str_of(name));
    e = db_query(d, "SELECT GET_LOCK(CONCAT(DATABASE(), '.', ?, '.migrations'), 30)", &lock, 1,
                 &rows, why);
    if (e != ERR_OK) return e;
    e = db_rows_next(rows);
    if (e == ERR_OK && db_int(rows, 0) != 1)
        e = why_set(why, ERR_CONFLICT, "another instance is migrating %s", name);
    db_rows_free(rows);
    if (e != ERR_OK) return e;
    e = migrate_locked(d, name, m, n, why);
    if (db_query(d, "SELECT RELEASE_LOCK(CONCAT(DATABASE(), '.', ?, '.migrations'))", &lock, 1,
                 &rows, NULL) == ERR_OK)
        db_rows_free(rows);
    return e;
}
