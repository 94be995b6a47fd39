/* SPDX-License-Identifier: Apache-2.0 */
/*
 * MySQL and MariaDB behind db.h, through Connector/C: the only file that includes its header. The
 * thread that uses the connection.
 *
 * A connection that was idle is tried before it is used, and made again when it is gone; inside a
 * transaction it is not, then everything fails until the rollback.
 */
#include <errmsg.h>
#include <mysql.h>
#include <mysqld_error.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/map.h"
#include "rt/db_driver.h"
#include "rt/db_url.h"

enum { CONNECT_TIMEOUT_S = 5, CALL_TIMEOUT_S = 30, IDLE_CHECK_MS = 1000 };

struct statement {
    MYSQL_STMT *s;
    bool in_use, cached;
};

struct mysql {
    struct db base;
    struct db_url url;
    MYSQL *conn;           /* NULL: to be connected */
    struct map statements; /* by text */
    size_t open_rows;
    bool in_transaction;
    bool lost; /* the connection is gone; another is made when nothing hangs on this one */
    uint64_t used_ms;
};

enum column_kind { COLUMN_INT, COLUMN_DOUBLE, COLUMN_TEXT };

struct column {
    enum column_kind kind;
    int64_t i;
    double d;
    unsigned long length;
    my_bool is_null, error;
    char *text;
    size_t cap;
    char number[32]; /* a number asked for as text */
};

struct mysql_rows {
    struct db_rows base;
    struct mysql *owner;
    struct statement *statement;
    size_t n;
    struct column *columns;
    MYSQL_BIND *binds;
};

static struct mysql *of(struct db *d)
{
    return (struct mysql *)d;
}

static bool is_lost(unsigned code)
{
    return code == CR_SERVER_GONE_ERROR || code == CR_SERVER_LOST || code == CR_CONNECTION_ERROR ||
           code == CR_CONN_HOST_ERROR || code == ER_SERVER_SHUTDOWN ||
           code == ER_CONNECTION_KILLED || code == CR_UNKNOWN_HOST || code == 5014;
}

static enum err error_of(unsigned code, const char *text, struct why *why)
{
    enum err e = ERR_INVALID;
    switch (code) {
    case ER_DUP_ENTRY:
    case ER_DUP_ENTRY_WITH_KEY_NAME:
    case ER_DUP_KEYNAME:
    case ER_DUP_UNIQUE: e = ERR_EXISTS; break;
    case ER_NO_REFERENCED_ROW:
    case ER_ROW_IS_REFERENCED:
    case ER_ROW_IS_REFERENCED_2:
    case ER_NO_REFERENCED_ROW_2:
    case ER_LOCK_WAIT_TIMEOUT:
    case ER_LOCK_DEADLOCK:
    case ER_CHECKREAD: e = ERR_CONFLICT; break;
    case ER_CON_COUNT_ERROR:
    case ER_TOO_MANY_USER_CONNECTIONS: e = ERR_UNAVAILABLE; break;
    case ER_ACCESS_DENIED_ERROR:
    case ER_DBACCESS_DENIED_ERROR:
    case ER_TABLEACCESS_DENIED_ERROR: e = ERR_DENIED; break;
    case ER_DATA_TOO_LONG:
    case ER_RECORD_FILE_FULL:
    case CR_NET_PACKET_TOO_LARGE: e = ERR_LIMIT; break;
    case ER_OUT_OF_RESOURCES:
    case CR_OUT_OF_MEMORY: e = ERR_NOMEM; break;
    default:
        if (is_lost(code)) e = ERR_UNAVAILABLE;
        break;
    }
    return why_set(why, e, "mysql: %s (%u)", text, code);
}

/* --- connection --- */

static void drop_statement(struct statement *st)
{
    (void)mysql_stmt_close(st->s);
    free(st);
}

static void disconnect(struct mysql *m)
{
    size_t i = 0;
    struct map_entry *e;
    while ((e = map_next(&m->statements, &i)) != NULL) drop_statement(e->value);
    map_done(&m->statements);
    map_init(&m->statements, DB_STATEMENTS + 1);
    if (m->conn != NULL) mysql_close(m->conn);
    m->conn = NULL;
    m->lost = false;
}

static void library_init(void)
{
    (void)mysql_library_init(0, NULL, NULL);
}

static MYSQL *try_connect(const struct db_url *u, const char *database, unsigned *ret_code,
                          char *text, size_t cap)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    unsigned connect_s = CONNECT_TIMEOUT_S, call_s = CALL_TIMEOUT_S, no = 0;
    (void)pthread_once(&once, library_init);
    MYSQL *c = mysql_init(NULL);
    *ret_code = CR_OUT_OF_MEMORY;
    (void)str_copyz(text, cap, STR("out of memory"));
    if (c == NULL) return NULL;
    (void)mysql_options(c, MYSQL_OPT_CONNECT_TIMEOUT, &connect_s);
    (void)mysql_options(c, MYSQL_OPT_READ_TIMEOUT, &call_s);
    (void)mysql_options(c, MYSQL_OPT_WRITE_TIMEOUT, &call_s);
    (void)mysql_options(c, MYSQL_OPT_LOCAL_INFILE, &no);
    (void)mysql_options(c, MYSQL_SET_CHARSET_NAME, "utf8mb4");
    /* CLIENT_FOUND_ROWS: "changed" is the rows that were matched, as in SQLite. */
    if (mysql_real_connect(c, u->host, u->user, u->password, database, u->port, NULL,
                           CLIENT_FOUND_ROWS) != NULL)
        return c;
    *ret_code = mysql_errno(c);
    (void)str_copyz(text, cap, str_of(mysql_error(c)));
    mysql_close(c);
    return NULL;
}

/* Backticks double inside a quoted name. */
static enum err create_database(MYSQL *c, const char *name)
{
    char sql[256] = "CREATE DATABASE IF NOT EXISTS `";
    size_t n = strlen(sql);
    for (const char *p = name; *p != '\0'; p++) {
        if (n + 80 > sizeof(sql)) return ERR_LIMIT;
        if (*p == '`') sql[n++] = '`';
        sql[n++] = *p;
    }
    (void)snprintf(sql + n, sizeof(sql) - n, "` CHARACTER SET utf8mb4 COLLATE utf8mb4_bin");
    return mysql_query(c, sql) == 0 ? ERR_OK : ERR_DENIED;
}

static enum err connect_now(struct mysql *m, struct why *why)
{
    static const char setup[] =
        "SET SESSION sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION,ANSI_QUOTES,"
        "PIPES_AS_CONCAT', time_zone = '+00:00', innodb_lock_wait_timeout = 10";
    unsigned code;
    char text[256];
    MYSQL *c = try_connect(&m->url, m->url.database, &code, text, sizeof(text));
    if (c == NULL && code == ER_BAD_DB_ERROR) {
        c = try_connect(&m->url, NULL, &code, text, sizeof(text));
        if (c != NULL && (create_database(c, m->url.database) != ERR_OK ||
                          mysql_select_db(c, m->url.database) != 0)) {
            enum err e = error_of(mysql_errno(c), mysql_error(c), why);
            mysql_close(c);
            return e;
        }
    }
    if (c == NULL) {
        enum err e = error_of(code, text, why);
        /* Not our statement's fault, whatever the server's reason is. */
        return e == ERR_INVALID ? ERR_UNAVAILABLE : e;
    }
    if (mysql_query(c, setup) != 0) {
        enum err e = error_of(mysql_errno(c), mysql_error(c), why);
        mysql_close(c);
        return e;
    }
    m->conn = c;
    m->used_ms = clock_mono_ms(clock_system());
    return ERR_OK;
}

/* A connection that stood when last seen, or a new one. */
static enum err ensure(struct mysql *m, struct why *why)
{
    uint64_t now = clock_mono_ms(clock_system());
    bool idle = now - m->used_ms > IDLE_CHECK_MS, held = m->in_transaction || m->open_rows > 0;
    if (m->conn != NULL && !m->lost && !held && idle) m->lost = mysql_ping(m->conn) != 0;
    if (m->lost && held) return why_set(why, ERR_UNAVAILABLE, "mysql: the connection was lost");
    if (m->lost) disconnect(m);
    m->used_ms = now;
    return m->conn != NULL ? ERR_OK : connect_now(m, why);
}

/* After a failed call: notes a connection that is gone. */
static enum err failed(struct mysql *m, unsigned code, const char *text, struct why *why)
{
    if (is_lost(code)) m->lost = true;
    return error_of(code, text, why);
}

/* --- statements --- */

static void release(struct statement *st)
{
    (void)mysql_stmt_free_result(st->s);
    st->in_use = false;
    if (!st->cached) drop_statement(st);
}

static void evict_one(struct mysql *m)
{
    size_t i = 0;
    struct map_entry *e;
    while ((e = map_next(&m->statements, &i)) != NULL) {
        struct statement *st = e->value;
        if (st->in_use) continue;
        (void)map_remove(&m->statements, e->key);
        drop_statement(st);
        return;
    }
}

/* Takes st out of the cache and frees it: after an error its state on the server is not known. */
static void forget(struct mysql *m, const char *sql, struct statement *st)
{
    if (st->cached) (void)map_remove(&m->statements, str_of(sql));
    drop_statement(st);
}

static enum err prepare(struct mysql *m, const char *sql, struct statement **ret, struct why *why)
{
    struct statement *st = map_get(&m->statements, str_of(sql));
    if (st == NULL || st->in_use) {
        bool may_cache = st == NULL;
        st = calloc(1, sizeof(*st));
        if (st == NULL) return ERR_NOMEM;
        st->s = mysql_stmt_init(m->conn);
        if (st->s == NULL) {
            free(st);
            return ERR_NOMEM;
        }
        if (mysql_stmt_prepare(st->s, sql, strlen(sql)) != 0) {
            enum err e = failed(m, mysql_stmt_errno(st->s), mysql_stmt_error(st->s), why);
            drop_statement(st);
            return e;
        }
        if (may_cache) {
            if (m->statements.len >= DB_STATEMENTS) evict_one(m);
            st->cached = map_put(&m->statements, str_of(sql), st, NULL) == ERR_OK;
        }
    }
    st->in_use = true;
    *ret = st;
    return ERR_OK;
}

/* The library writes to nothing that a parameter points at, though its types do not say so. */
static void bind_param(MYSQL_BIND *b, const struct db_value *v, int64_t *i, double *d)
{
    memset(b, 0, sizeof(*b));
    *i = v->i;
    *d = v->d;
    switch (v->type) {
    case DB_NULL: b->buffer_type = MYSQL_TYPE_NULL; break;
    case DB_INT:
        b->buffer_type = MYSQL_TYPE_LONGLONG;
        b->buffer = i;
        break;
    case DB_DOUBLE:
        b->buffer_type = MYSQL_TYPE_DOUBLE;
        b->buffer = d;
        break;
    case DB_TEXT:
    case DB_BLOB: {
        union {
            const void *in;
            void *out;
        } p = { .in = v->s.p != NULL ? v->s.p : "" };
        b->buffer_type = v->type == DB_TEXT ? MYSQL_TYPE_STRING : MYSQL_TYPE_BLOB;
        b->buffer = p.out;
        b->buffer_length = v->s.n;
        break;
    }
    }
}

/* Prepares, binds and executes; the statement is in use afterwards. */
static enum err run(struct mysql *m, const char *sql, const struct db_value *params, size_t n,
                    struct statement **ret, struct why *why)
{
    MYSQL_BIND binds[DB_MAX_PARAMS];
    int64_t ints[DB_MAX_PARAMS];
    double doubles[DB_MAX_PARAMS];
    struct statement *st = NULL;
    enum err e = ensure(m, why);
    if (e == ERR_OK) e = prepare(m, sql, &st, why);
    if (e != ERR_OK) return e;
    if (mysql_stmt_param_count(st->s) != n) {
        e = why_set(why, ERR_INTERNAL, "mysql: the statement takes %lu parameters, not %zu",
                    mysql_stmt_param_count(st->s), n);
        release(st);
        return e;
    }
    for (size_t i = 0; i < n; i++) bind_param(&binds[i], &params[i], &ints[i], &doubles[i]);
    if ((n > 0 && mysql_stmt_bind_param(st->s, binds) != 0) || mysql_stmt_execute(st->s) != 0) {
        e = failed(m, mysql_stmt_errno(st->s), mysql_stmt_error(st->s), why);
        forget(m, sql, st);
        return e;
    }
    *ret = st;
    return ERR_OK;
}

static enum err my_exec(struct db *d, const char *sql, const struct db_value *params, size_t n,
                        uint64_t *ret_changed, struct why *why)
{
    struct statement *st = NULL;
    enum err e = run(of(d), sql, params, n, &st, why);
    if (e != ERR_OK) return e;
    if (mysql_stmt_field_count(st->s) > 0) (void)mysql_stmt_store_result(st->s);
    if (ret_changed != NULL) *ret_changed = mysql_stmt_affected_rows(st->s);
    release(st);
    return ERR_OK;
}

/* --- rows --- */

static enum column_kind kind_of(const MYSQL_FIELD *f)
{
    switch (f->type) {
    case MYSQL_TYPE_TINY:
    case MYSQL_TYPE_SHORT:
    case MYSQL_TYPE_INT24:
    case MYSQL_TYPE_LONG:
    case MYSQL_TYPE_LONGLONG:
    case MYSQL_TYPE_YEAR: return COLUMN_INT;
    case MYSQL_TYPE_FLOAT:
    case MYSQL_TYPE_DOUBLE: return COLUMN_DOUBLE;
    default: return COLUMN_TEXT;
    }
}

static void my_rows_free(struct db_rows *rows)
{
    struct mysql_rows *r = (struct mysql_rows *)rows;
    for (size_t i = 0; r->columns != NULL && i < r->n; i++) free(r->columns[i].text);
    free(r->columns);
    free(r->binds);
    release(r->statement);
    r->owner->open_rows--;
    free(r);
}

static const struct db_driver driver;

/* Numbers arrive as numbers; texts with no room at first, so that their length is known. */
static void bind_columns(struct mysql_rows *r, const MYSQL_FIELD *fields)
{
    for (size_t i = 0; i < r->n; i++) {
        struct column *c = &r->columns[i];
        MYSQL_BIND *b = &r->binds[i];
        c->kind = kind_of(&fields[i]);
        b->is_null = &c->is_null;
        b->length = &c->length;
        b->error = &c->error;
        if (c->kind == COLUMN_INT) {
            b->buffer_type = MYSQL_TYPE_LONGLONG;
            b->buffer = &c->i;
            b->buffer_length = sizeof(c->i);
            b->is_unsigned = (fields[i].flags & UNSIGNED_FLAG) != 0;
        } else if (c->kind == COLUMN_DOUBLE) {
            b->buffer_type = MYSQL_TYPE_DOUBLE;
            b->buffer = &c->d;
            b->buffer_length = sizeof(c->d);
        } else {
            b->buffer_type = MYSQL_TYPE_STRING;
        }
    }
}

static enum err my_query(struct db *d, const char *sql, const struct db_value *params, size_t n,
                         struct db_rows **ret, struct why *why)
{
    struct mysql *m = of(d);
    struct statement *st = NULL;
    enum err e = run(m, sql, params, n, &st, why);
    if (e != ERR_OK) return e;
    size_t columns = mysql_stmt_field_count(st->s);
    MYSQL_RES *meta = columns > 0 ? mysql_stmt_result_metadata(st->s) : NULL;
    struct mysql_rows *r = calloc(1, sizeof(*r));
    if (meta == NULL || r == NULL) {
        free(r);
        if (meta != NULL) mysql_free_result(meta);
        release(st);
        return why_set(why, columns == 0 ? ERR_INTERNAL : ERR_NOMEM,
                       "mysql: the statement returned no rows to read");
    }
    *r = (struct mysql_rows){
        .base = { &driver },
        .owner = m,
        .statement = st,
        .n = columns,
        .columns = calloc(columns, sizeof(struct column)),
        .binds = calloc(columns, sizeof(MYSQL_BIND)),
    };
    m->open_rows++;
    e = r->columns == NULL || r->binds == NULL ? ERR_NOMEM : ERR_OK;
    if (e == ERR_OK) {
        bind_columns(r, mysql_fetch_fields(meta));
        if (mysql_stmt_bind_result(st->s, r->binds) != 0 || mysql_stmt_store_result(st->s) != 0)
            e = failed(m, mysql_stmt_errno(st->s), mysql_stmt_error(st->s), why);
    }
    mysql_free_result(meta);
    if (e != ERR_OK) {
        my_rows_free(&r->base);
        return e;
    }
    *ret = &r->base;
    return ERR_OK;
}

static enum err my_next(struct db_rows *rows)
{
    struct mysql_rows *r = (struct mysql_rows *)rows;
    int rc = mysql_stmt_fetch(r->statement->s);
    if (rc == MYSQL_NO_DATA) return ERR_NOT_FOUND;
    if (rc != 0 && rc != MYSQL_DATA_TRUNCATED)
        return error_of(mysql_stmt_errno(r->statement->s), "", NULL);
    for (size_t i = 0; i < r->n; i++) {
        struct column *c = &r->columns[i];
        if (c->kind != COLUMN_TEXT || c->is_null) continue;
        size_t length = c->length;
        if (length + 1 > c->cap) {
            char *p = realloc(c->text, length + 1);
            if (p == NULL) return ERR_NOMEM;
            c->text = p;
            c->cap = length + 1;
        }
        c->text[0] = '\0';
        if (length == 0) continue;
        unsigned long got = 0;
        MYSQL_BIND b = { .buffer_type = MYSQL_TYPE_STRING,
                         .buffer = c->text,
                         .buffer_length = length,
                         .length = &got,
                         .is_null = &c->is_null,
                         .error = &c->error };
        if (mysql_stmt_fetch_column(r->statement->s, &b, (unsigned)i, 0) != 0) return ERR_IO;
        c->text[length] = '\0';
    }
    return ERR_OK;
}

static struct column *column_of(const struct db_rows *rows, int column)
{
    const struct mysql_rows *r = (const struct mysql_rows *)rows;
    ASSERT(column >= 0 && (size_t)column < r->n);
    return &r->columns[column];
}

static int64_t my_int(const struct db_rows *rows, int column)
{
    const struct column *c = column_of(rows, column);
    if (c->is_null) return 0;
    if (c->kind == COLUMN_INT) return c->i;
    if (c->kind == COLUMN_DOUBLE) return (int64_t)c->d;
    return strtoll(c->text, NULL, 10);
}

static double my_double(const struct db_rows *rows, int column)
{
    const struct column *c = column_of(rows, column);
    if (c->is_null) return 0;
    if (c->kind == COLUMN_INT) return (double)c->i;
    if (c->kind == COLUMN_DOUBLE) return c->d;
    return strtod(c->text, NULL);
}

static struct str my_text(const struct db_rows *rows, int column)
{
    struct column *c = column_of(rows, column);
    if (c->is_null) return STR_NULL;
    if (c->kind == COLUMN_TEXT) return str_n(c->text, c->length);
    int n = c->kind == COLUMN_INT ? snprintf(c->number, sizeof(c->number), "%lld", (long long)c->i)
                                  : snprintf(c->number, sizeof(c->number), "%.17g", c->d);
    return str_n(c->number, (size_t)n);
}

/* --- transactions --- */

static enum err command(struct mysql *m, const char *sql, struct why *why)
{
    if (mysql_query(m->conn, sql) == 0) return ERR_OK;
    return failed(m, mysql_errno(m->conn), mysql_error(m->conn), why);
}

static enum err my_begin(struct db *d, struct why *why)
{
    struct mysql *m = of(d);
    ASSERT(!m->in_transaction);
    enum err e = ensure(m, why);
    if (e == ERR_OK) e = command(m, "START TRANSACTION", why);
    if (e == ERR_OK) m->in_transaction = true;
    return e;
}

static void my_rollback(struct db *d)
{
    struct mysql *m = of(d);
    if (!m->in_transaction) return;
    m->in_transaction = false;
    /* A server that lost us rolls back by itself. */
    if (!m->lost && mysql_query(m->conn, "ROLLBACK") != 0) m->lost = true;
}

static enum err my_commit(struct db *d, struct why *why)
{
    struct mysql *m = of(d);
    ASSERT(m->in_transaction);
    enum err e = m->lost ? why_set(why, ERR_UNAVAILABLE, "mysql: the connection was lost")
                         : command(m, "COMMIT", why);
    if (e != ERR_OK) my_rollback(d);
    m->in_transaction = false;
    return e;
}

static void my_close(struct db *d)
{
    struct mysql *m = of(d);
    disconnect(m);
    map_done(&m->statements);
    db_url_done(&m->url);
    free(m);
}

static const struct db_driver driver = {
    .dialect = DB_MYSQL,
    .close = my_close,
    .exec = my_exec,
    .query = my_query,
    .next = my_next,
    .get_int = my_int,
    .get_double = my_double,
    .get_text = my_text,
    .rows_free = my_rows_free,
    .begin = my_begin,
    .commit = my_commit,
    .rollback = my_rollback,
};

enum err db_mysql_open(const char *url, struct db **ret, struct why *why)
{
    struct mysql *m = calloc(1, sizeof(*m));
    if (m == NULL) return ERR_NOMEM;
    m->base.driver = &driver;
    map_init(&m->statements, DB_STATEMENTS + 1);
    enum err e = db_url_parse(url, &m->url, why);
    if (e == ERR_OK) e = connect_now(m, why);
    if (e != ERR_OK) {
        my_close(&m->base);
        return e;
    }
    *ret = &m->base;
    return ERR_OK;
}
