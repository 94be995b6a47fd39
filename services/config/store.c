/* SPDX-License-Identifier: Apache-2.0 */
/* Schema, connections and reading. See the header for threads. */
#include "store.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <unistd.h>

#include "store_impl.h"

static const struct db_migration migrations[] = {
    { 1,
      "entities, history, outbox",
      {
          "CREATE TABLE IF NOT EXISTS head (id BIGINT NOT NULL PRIMARY KEY, revision BIGINT NOT "
          "NULL)",
          "INSERT INTO head (id, revision) SELECT 1, 0 FROM (SELECT 1 AS one) AS t WHERE NOT "
          "EXISTS (SELECT 1 FROM head)",
          "CREATE TABLE IF NOT EXISTS entities (id VARCHAR(64) NOT NULL PRIMARY KEY, kind "
          "VARCHAR(16) NOT NULL, parent VARCHAR(64) NOT NULL, slug VARCHAR(63) NOT NULL, ref "
          "VARCHAR(64) NOT NULL, uniq VARCHAR(64) NULL, body MEDIUMTEXT NOT NULL, revision BIGINT "
          "NOT NULL, created_ms BIGINT NOT NULL, updated_ms BIGINT NOT NULL, UNIQUE (kind, parent, "
          "slug), UNIQUE (uniq))",
          "CREATE TABLE IF NOT EXISTS revisions (revision BIGINT NOT NULL PRIMARY KEY, message_id "
          "VARCHAR(36) NOT NULL, created_ms BIGINT NOT NULL, actor VARCHAR(190) NOT NULL, instance "
          "VARCHAR(190) NOT NULL, summary VARCHAR(500) NOT NULL, changes BIGINT NOT NULL)",
          "CREATE TABLE IF NOT EXISTS audit (revision BIGINT NOT NULL, seq BIGINT NOT NULL, action "
          "VARCHAR(8) NOT NULL, kind VARCHAR(16) NOT NULL, entity_id VARCHAR(64) NOT NULL, slug "
          "VARCHAR(63) NOT NULL, before_body MEDIUMTEXT NULL, after_body MEDIUMTEXT NULL, PRIMARY "
          "KEY (revision, seq))",
          "CREATE TABLE IF NOT EXISTS outbox (revision BIGINT NOT NULL PRIMARY KEY, created_ms "
          "BIGINT NOT NULL)",
          "CREATE TABLE IF NOT EXISTS push (id BIGINT NOT NULL PRIMARY KEY, revision BIGINT NOT "
          "NULL, digest VARCHAR(64) NOT NULL, instance VARCHAR(190) NOT NULL)",
          "INSERT INTO push (id, revision, digest, instance) SELECT 1, 0, '', '' FROM (SELECT 1 AS "
          "one) AS t WHERE NOT EXISTS (SELECT 1 FROM push)",
      } },
    { 2,
      "look-ups by kind, reference and entity",
      {
          "CREATE INDEX entities_by_kind ON entities (kind, id)",
          "CREATE INDEX entities_by_parent ON entities (parent)",
          "CREATE INDEX entities_by_ref ON entities (ref)",
          "CREATE INDEX audit_by_entity ON audit (entity_id)",
      } },
};

static const char *const kind_names[KIND_COUNT] = {
    [KIND_NAMESPACE] = "namespaces", [KIND_UPSTREAM] = "upstreams", [KIND_MODEL] = "models",
    [KIND_ISSUER] = "issuers",       [KIND_MATCHER] = "matchers",   [KIND_POLICY] = "policies",
    [KIND_ROUTE] = "routes",         [KIND_KEY] = "keys",
};

const char *kind_name(enum kind k)
{
    return kind_names[k];
}

enum err kind_parse(struct str s, enum kind *ret)
{
    for (int k = 0; k < KIND_COUNT; k++)
        if (str_eqz(s, kind_names[k])) return *ret = (enum kind)k, ERR_OK;
    return ERR_NOT_FOUND;
}

/* --- connections --- */

struct store *store_new(const char *url, const char *lock_path, const struct clock *clock,
                        const struct rng *rng, const char *instance)
{
    struct store *s = xcalloc(1, sizeof(*s));
    s->url = xstrdup(url);
    s->lock_path = xstrdup(lock_path);
    s->instance = xstrdup(instance);
    s->clock = clock;
    s->rng = rng;
    s->lock_fd = -1;
    ASSERT(pthread_mutex_init(&s->mutex, NULL) == 0);
    ASSERT(pthread_cond_init(&s->returned, NULL) == 0);
    return s;
}

void store_free(struct store *s)
{
    if (s == NULL) return;
    for (size_t i = 0; i < s->idle_n; i++) db_close(s->idle[i]);
    if (s->lock_fd >= 0) close(s->lock_fd);
    pthread_cond_destroy(&s->returned);
    pthread_mutex_destroy(&s->mutex);
    free(s->url);
    free(s->lock_path);
    free(s->instance);
    free(s);
}

const char *store_instance(const struct store *s)
{
    return s->instance;
}

static enum err take_lock(struct store *s, struct why *why)
{
    if (!str_starts(str_of(s->url), STR("sqlite:")) || s->lock_fd >= 0) return ERR_OK;
    int fd = open(s->lock_path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0) return why_set(why, ERR_IO, "cannot open %s: %s", s->lock_path, strerror(errno));
    if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        close(fd);
        return why_set(why, ERR_CONFLICT,
                       "an SQLite store serves one instance, and another one holds %s",
                       s->lock_path);
    }
    s->lock_fd = fd;
    return ERR_OK;
}

enum err store_connect(struct store *s, struct db **ret, struct why *why)
{
    return db_open(s->url, ret, why);
}

enum err store_open(struct store *s, struct why *why)
{
    struct db *d;
    enum err e = take_lock(s, why);
    if (e == ERR_OK) e = store_connect(s, &d, why);
    if (e != ERR_OK) return e;
    e = db_migrate(d, "config", migrations, ARRAY_LEN(migrations), why);
    if (e != ERR_OK) {
        db_close(d);
        return e;
    }
    pthread_mutex_lock(&s->mutex);
    s->open = true;
    s->idle[s->idle_n++] = d;
    s->made = 1;
    pthread_mutex_unlock(&s->mutex);
    return ERR_OK;
}

bool store_is_open(struct store *s)
{
    pthread_mutex_lock(&s->mutex);
    bool open = s->open;
    pthread_mutex_unlock(&s->mutex);
    return open;
}

void store_on_change(struct store *s, void (*fn)(void *ctx), void *ctx)
{
    s->changed = fn;
    s->changed_ctx = ctx;
}

enum err store_borrow(struct store *s, struct db **ret, struct why *why)
{
    struct db *d = NULL;
    enum err e = ERR_OK;
    pthread_mutex_lock(&s->mutex);
    while (s->open && s->idle_n == 0 && s->made == STORE_CONNECTIONS)
        pthread_cond_wait(&s->returned, &s->mutex);
    bool open = s->open;
    if (open && s->idle_n > 0) {
        d = s->idle[--s->idle_n];
    } else if (open) {
        s->made++;
    }
    pthread_mutex_unlock(&s->mutex);
    if (!open) return why_set(why, ERR_UNAVAILABLE, "the store is not open yet");
    if (d == NULL) e = store_connect(s, &d, why);
    if (e != ERR_OK) {
        pthread_mutex_lock(&s->mutex);
        s->made--;
        pthread_cond_signal(&s->returned);
        pthread_mutex_unlock(&s->mutex);
        return e;
    }
    *ret = d;
    return ERR_OK;
}

void store_return(struct store *s, struct db *d)
{
    pthread_mutex_lock(&s->mutex);
    s->idle[s->idle_n++] = d;
    pthread_cond_signal(&s->returned);
    pthread_mutex_unlock(&s->mutex);
}

/* --- reading --- */

enum err store_take_text(struct arena *a, const struct db_rows *rows, int column, struct str *ret)
{
    struct str s = db_text(rows, column);
    const char *p = arena_dupz(a, s.p != NULL ? s : STR(""));
    if (p == NULL) return ERR_LIMIT;
    *ret = str_n(p, s.n);
    return ERR_OK;
}

#define ROW_COLUMNS "kind, id, parent, slug, ref, uniq, body, revision, created_ms, updated_ms"

static enum err take_row(struct arena *a, const struct db_rows *rows, struct row *ret)
{
    struct row r = { 0 };
    enum err e = kind_parse(db_text(rows, 0), &r.kind);
    if (e == ERR_OK) e = store_take_text(a, rows, 1, &r.id);
    if (e == ERR_OK) e = store_take_text(a, rows, 2, &r.parent);
    if (e == ERR_OK) e = store_take_text(a, rows, 3, &r.slug);
    if (e == ERR_OK) e = store_take_text(a, rows, 4, &r.ref);
    if (e == ERR_OK) e = store_take_text(a, rows, 5, &r.uniq);
    if (e == ERR_OK) e = store_take_text(a, rows, 6, &r.body);
    if (e != ERR_OK) return e == ERR_NOT_FOUND ? ERR_INTERNAL : e;
    r.revision = (uint64_t)db_int(rows, 7);
    r.created_ms = (uint64_t)db_int(rows, 8);
    r.updated_ms = (uint64_t)db_int(rows, 9);
    *ret = r;
    return ERR_OK;
}

enum err store_revision(struct db *d, uint64_t *ret, struct why *why)
{
    struct db_rows *rows;
    enum err e = db_query(d, "SELECT revision FROM head WHERE id = 1", NULL, 0, &rows, why);
    if (e != ERR_OK) return e;
    e = db_rows_next(rows);
    if (e == ERR_OK) *ret = (uint64_t)db_int(rows, 0);
    db_rows_free(rows);
    return e;
}

static enum err read_one(struct db *d, const char *sql, const struct db_value *params, size_t n,
                         struct arena *a, struct row *ret, struct why *why)
{
    struct db_rows *rows;
    enum err e = db_query(d, sql, params, n, &rows, why);
    if (e != ERR_OK) return e;
    e = db_rows_next(rows);
    if (e == ERR_OK) e = take_row(a, rows, ret);
    db_rows_free(rows);
    return e;
}

enum err store_get(struct db *d, enum kind k, struct str id, struct arena *a, struct row *ret,
                   struct why *why)
{
    struct db_value p[] = { DBV_TEXT(id), DBV_TEXT(str_of(kind_name(k))) };
    return read_one(d, "SELECT " ROW_COLUMNS " FROM entities WHERE id = ? AND kind = ?", p, 2, a,
                    ret, why);
}

enum err store_find(struct db *d, enum kind k, struct str parent, struct str slug, struct arena *a,
                    struct row *ret, struct why *why)
{
    struct db_value p[] = { DBV_TEXT(str_of(kind_name(k))), DBV_TEXT(parent), DBV_TEXT(slug) };
    return read_one(
        d, "SELECT " ROW_COLUMNS " FROM entities WHERE kind = ? AND parent = ? AND slug = ?", p, 3,
        a, ret, why);
}

/* Builds the WHERE clause; only constant text goes into it. */
struct clause {
    struct buf sql;
    struct db_value params[12];
    size_t n;
    enum err e;
};

static void add(struct clause *c, const char *sql)
{
    if (c->e == ERR_OK) c->e = buf_appendz(&c->sql, sql);
}

static void param(struct clause *c, struct str value)
{
    ASSERT(c->n < ARRAY_LEN(c->params));
    c->params[c->n++] = DBV_TEXT(value);
}

static void where(struct clause *c, const char *sql, struct str value)
{
    if (value.p == NULL) return;
    add(c, sql);
    param(c, value);
}

static void where_after(struct clause *c, const struct row_filter *f)
{
    if (f->after_id.p == NULL) return;
    if (!f->by_slug) {
        where(c, f->descending ? " AND id < ?" : " AND id > ?", f->after_id);
        return;
    }
    add(c, f->descending ? " AND (slug < ? OR (slug = ? AND id < ?))"
                         : " AND (slug > ? OR (slug = ? AND id > ?))");
    param(c, f->after_slug);
    param(c, f->after_slug);
    param(c, f->after_id);
}

static enum err take_rows(struct arena *a, struct db_rows *rows, struct rows *ret)
{
    struct rows r = { NULL, 0 };
    size_t cap = 0;
    enum err e;
    while ((e = db_rows_next(rows)) == ERR_OK) {
        if (r.n == cap) {
            size_t bigger = cap == 0 ? 16 : cap * 2;
            struct row *v = arena_alloc(a, bigger * sizeof(*v));
            if (v == NULL) return ERR_LIMIT;
            if (r.n > 0) memcpy(v, r.v, r.n * sizeof(*v));
            r.v = v;
            cap = bigger;
        }
        e = take_row(a, rows, &r.v[r.n]);
        if (e != ERR_OK) return e;
        r.n++;
    }
    if (e != ERR_NOT_FOUND) return e;
    *ret = r;
    return ERR_OK;
}

enum err store_list(struct db *d, enum kind k, const struct row_filter *f, struct arena *a,
                    struct rows *ret, struct why *why)
{
    struct clause c = { .e = ERR_OK };
    struct db_rows *rows;
    buf_init(&c.sql, 4096);
    add(&c, "SELECT " ROW_COLUMNS " FROM entities WHERE 1 = 1");
    if (k != KIND_COUNT) where(&c, " AND kind = ?", str_of(kind_name(k)));
    where(&c, " AND id = ?", f->id);
    where(&c, " AND parent = ?", f->parent);
    where(&c, " AND slug = ?", f->slug);
    where(&c, " AND ref = ?", f->ref);
    where(&c, " AND uniq = ?", f->uniq);
    where(&c, " AND body LIKE ?", str_of(f->body_like));
    where_after(&c, f);
    if (k == KIND_COUNT) {
        add(&c, " ORDER BY kind, parent, id");
    } else if (f->by_slug) {
        add(&c, f->descending ? " ORDER BY slug DESC, id DESC" : " ORDER BY slug, id");
    } else {
        add(&c, f->descending ? " ORDER BY id DESC" : " ORDER BY id");
    }
    if (f->limit > 0) {
        add(&c, " LIMIT ?");
        ASSERT(c.n < ARRAY_LEN(c.params));
        c.params[c.n++] = DBV_INT(f->limit);
    }
    enum err e = c.e;
    if (e == ERR_OK) e = db_query(d, buf_z(&c.sql), c.params, c.n, &rows, why);
    if (e == ERR_OK) {
        e = take_rows(a, rows, ret);
        db_rows_free(rows);
        if (e == ERR_LIMIT) (void)why_set(why, e, "too many rows for one answer");
    }
    buf_done(&c.sql);
    return e;
}
