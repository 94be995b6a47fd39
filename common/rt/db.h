/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SQL databases behind one interface: SQLite (sqlite:PATH) and MySQL/MariaDB
 * (mysql://user:pass@host:port/database). A `struct db` is one connection, used by one thread at a
 * time. Statements are prepared, parameters are `?`. Lost connections are made again outside of
 * transactions.
 */
#ifndef RT_DB_H
#define RT_DB_H

#include <stdint.h>

#include "base/err.h"
#include "base/str.h"

struct db;
struct db_rows;

enum db_dialect { DB_SQLITE, DB_MYSQL };

/* A URL without its password, for logs. out is terminated. */
void db_redact_url(const char *url, char *out, size_t cap);
/* Whether url has the form of one of the two; ERR_INVALID says what is wanted. Opens nothing. */
enum err db_check_url(const char *url, struct why *why) MUSTCHECK;
enum err db_open(const char *url, struct db **ret, struct why *why) MUSTCHECK;
void db_close(struct db *d);
enum db_dialect db_dialect(const struct db *d);

enum db_type { DB_NULL, DB_INT, DB_DOUBLE, DB_TEXT, DB_BLOB };
struct db_value {
    enum db_type type;
    int64_t i;
    double d;
    struct str s;
};
#define DBV_NULL ((struct db_value){ .type = DB_NULL })
#define DBV_INT(v) ((struct db_value){ .type = DB_INT, .i = (int64_t)(v) })
#define DBV_TEXT(v) ((struct db_value){ .type = DB_TEXT, .s = (v) })
#define DBV_BLOB(v) ((struct db_value){ .type = DB_BLOB, .s = (v) })
#define DBV_DOUBLE(v) ((struct db_value){ .type = DB_DOUBLE, .d = (v) })

/* Runs a statement. ret_changed (may be NULL): rows changed. ERR_EXISTS: a unique key;
 * ERR_CONFLICT: a foreign key, or a lock that could not be had (run the transaction again);
 * ERR_UNAVAILABLE: the server is away. */
enum err db_exec(struct db *d, const char *sql, const struct db_value *params, size_t n,
                 uint64_t *ret_changed, struct why *why) MUSTCHECK;

/* Runs a query; rows are read one by one and freed with db_rows_free(). */
enum err db_query(struct db *d, const char *sql, const struct db_value *params, size_t n,
                  struct db_rows **ret, struct why *why) MUSTCHECK;
/* ERR_OK with a row, ERR_NOT_FOUND behind the last. */
enum err db_rows_next(struct db_rows *r) MUSTCHECK;
int64_t db_int(const struct db_rows *r, int column);
double db_double(const struct db_rows *r, int column);
struct str db_text(const struct db_rows *r,
                   int column); /* borrowed until the next row; p == NULL for NULL */
bool db_is_null(const struct db_rows *r, int column);
void db_rows_free(struct db_rows *r);

enum err db_begin(struct db *d, struct why *why) MUSTCHECK; /* SQLite: BEGIN IMMEDIATE */
enum err db_commit(struct db *d, struct why *why) MUSTCHECK;
void db_rollback(struct db *d);

struct db_migration {
    int version; /* 1, 2, 3 … */
    const char *title;
    const char *sql[8]; /* statements that both dialects take, NULL-terminated */
};
/* Applies what the database (table NAME_migrations) lacks, under a lock, each in order.
 * ERR_CONFLICT when the database is newer than the program.
 *
 * SQLite does it all in one transaction. MySQL commits each CREATE and ALTER by itself, so that a
 * migration which a crash interrupted runs again from its beginning: write CREATE TABLE IF NOT
 * EXISTS and the like. There, a statement that begins with "CREATE TABLE" gets the engine (InnoDB)
 * and the collation (utf8mb4_bin: text compares as in SQLite) appended, and CREATE INDEX of an
 * index that is there does nothing. Text columns that are keys need a length: VARCHAR(n). */
enum err db_migrate(struct db *d, const char *name, const struct db_migration *m, size_t n,
                    struct why *why) MUSTCHECK;

#endif
