/* SPDX-License-Identifier: Apache-2.0 */
/* Between db.c and its drivers only: what a database has to be able to do. */
#ifndef RT_DB_DRIVER_H
#define RT_DB_DRIVER_H

#include "rt/db.h"

enum { DB_MAX_PARAMS = 64, DB_MAX_COLUMNS = 64, DB_STATEMENTS = 64 };

struct db_driver {
    enum db_dialect dialect;
    void (*close)(struct db *d);
    enum err (*exec)(struct db *d, const char *sql, const struct db_value *params, size_t n,
                     uint64_t *ret_changed, struct why *why) MUSTCHECK;
    enum err (*query)(struct db *d, const char *sql, const struct db_value *params, size_t n,
                      struct db_rows **ret, struct why *why) MUSTCHECK;
    enum err (*next)(struct db_rows *r) MUSTCHECK;
    int64_t (*get_int)(const struct db_rows *r, int column);
    double (*get_double)(const struct db_rows *r, int column);
    struct str (*get_text)(const struct db_rows *r, int column);
    void (*rows_free)(struct db_rows *r);
    enum err (*begin)(struct db *d, struct why *why) MUSTCHECK;
    enum err (*commit)(struct db *d, struct why *why) MUSTCHECK;
    void (*rollback)(struct db *d);
};

/* The first member of each driver's own struct. */
struct db {
    const struct db_driver *driver;
};
struct db_rows {
    const struct db_driver *driver;
};

/* path: a file, or ":memory:". */
enum err db_sqlite_open(const char *path, struct db **ret, struct why *why) MUSTCHECK;
/* url: mysql://user:pass@host:port/database */
enum err db_mysql_open(const char *url, struct db **ret, struct why *why) MUSTCHECK;

#endif
