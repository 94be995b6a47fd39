/* SPDX-License-Identifier: Apache-2.0 */
/* Revisions, audit records and the outbox. The caller's thread. */
#include "store_impl.h"

#define REVISION_COLUMNS "revision, created_ms, message_id, actor, instance, summary, changes"

static enum err take_revision(struct arena *a, const struct db_rows *rows, struct revision *ret)
{
    struct revision r = { .revision = (uint64_t)db_int(rows, 0),
                          .created_ms = (uint64_t)db_int(rows, 1),
                          .changes = db_int(rows, 6) };
    enum err e = store_take_text(a, rows, 2, &r.message_id);
    if (e == ERR_OK) e = store_take_text(a, rows, 3, &r.actor);
    if (e == ERR_OK) e = store_take_text(a, rows, 4, &r.instance);
    if (e == ERR_OK) e = store_take_text(a, rows, 5, &r.summary);
    if (e == ERR_OK) *ret = r;
    return e;
}

enum err store_revision_get(struct db *d, uint64_t revision, struct arena *a, struct revision *ret,
                            struct why *why)
{
    struct db_rows *rows;
    struct db_value p = DBV_INT(revision);
    enum err e = db_query(d, "SELECT " REVISION_COLUMNS " FROM revisions WHERE revision = ?", &p, 1,
                          &rows, why);
    if (e != ERR_OK) return e;
    e = db_rows_next(rows);
    if (e == ERR_OK) e = take_revision(a, rows, ret);
    db_rows_free(rows);
    return e;
}

enum err store_revision_list(struct db *d, uint64_t before, size_t limit, struct arena *a,
                             struct revision **ret, size_t *ret_n, struct why *why)
{
    struct db_rows *rows;
    size_t n = 0;
    struct db_value p[] = { DBV_INT(before > 0 ? before : INT64_MAX), DBV_INT(limit) };
    struct revision *v = arena_alloc(a, limit * sizeof(*v));
    if (v == NULL) return ERR_LIMIT;
    enum err e = db_query(d,
                          "SELECT " REVISION_COLUMNS
                          " FROM revisions WHERE revision < ? ORDER BY revision DESC LIMIT ?",
                          p, 2, &rows, why);
    if (e != ERR_OK) return e;
    while (n < limit && (e = db_rows_next(rows)) == ERR_OK) {
        e = take_revision(a, rows, &v[n]);
        if (e != ERR_OK) break;
        n++;
    }
    db_rows_free(rows);
    if (e != ERR_OK && e != ERR_NOT_FOUND) return e;
    *ret = v;
    *ret_n = n;
    return ERR_OK;
}

/* A body, or p == NULL. */
static enum err take_body(struct arena *a, const struct db_rows *rows, int column, struct str *ret)
{
    *ret = STR_NULL;
    return db_is_null(rows, column) ? ERR_OK : store_take_text(a, rows, column, ret);
}

static enum err take_audit(struct arena *a, const struct db_rows *rows, struct audit *ret)
{
    struct audit x = { .revision = (uint64_t)db_int(rows, 0) };
    enum err e = kind_parse(db_text(rows, 2), &x.kind);
    if (e != ERR_OK) return ERR_INTERNAL;
    e = store_take_text(a, rows, 1, &x.action);
    if (e == ERR_OK) e = store_take_text(a, rows, 3, &x.id);
    if (e == ERR_OK) e = store_take_text(a, rows, 4, &x.slug);
    if (e == ERR_OK) e = take_body(a, rows, 5, &x.before);
    if (e == ERR_OK) e = take_body(a, rows, 6, &x.after);
    if (e == ERR_OK) *ret = x;
    return e;
}

enum err store_audit(struct db *d, uint64_t from, uint64_t to, struct str entity, size_t limit,
                     struct arena *a, struct audit **ret, size_t *ret_n, struct why *why)
{
    struct db_rows *rows;
    struct audit *v = NULL;
    size_t n = 0, cap = 0;
    struct db_value p[] = { DBV_INT(from), DBV_INT(to), DBV_INT(limit), DBV_NULL };
    const char *sql = "SELECT revision, action, kind, entity_id, slug, before_body, after_body "
                      "FROM audit WHERE revision > ? AND revision <= ? ORDER BY revision, seq "
                      "LIMIT ?";
    if (entity.p != NULL) {
        sql = "SELECT revision, action, kind, entity_id, slug, before_body, after_body FROM audit "
              "WHERE revision > ? AND revision <= ? AND entity_id = ? ORDER BY revision, seq "
              "LIMIT ?";
        p[2] = DBV_TEXT(entity);
        p[3] = DBV_INT(limit);
    }
    enum err e = db_query(d, sql, p, entity.p != NULL ? 4 : 3, &rows, why);
    if (e != ERR_OK) return e;
    while ((e = db_rows_next(rows)) == ERR_OK) {
        if (n == cap) {
            cap = cap == 0 ? 16 : cap * 2;
            struct audit *bigger = arena_alloc(a, cap * sizeof(*v));
            e = bigger == NULL ? ERR_LIMIT : ERR_OK;
            if (e != ERR_OK) break;
            if (n > 0) memcpy(bigger, v, n * sizeof(*v));
            v = bigger;
        }
        e = take_audit(a, rows, &v[n]);
        if (e != ERR_OK) break;
        n++;
    }
    db_rows_free(rows);
    if (e == ERR_LIMIT) return why_set(why, e, "too many changes for one answer");
    if (e != ERR_NOT_FOUND) return e;
    *ret = v;
    *ret_n = n;
    return ERR_OK;
}

/* --- the outbox --- */

enum err outbox_pending(struct db *d, uint64_t *ret_n, struct why *why)
{
    struct db_rows *rows;
    enum err e = db_query(d, "SELECT COUNT(*) FROM outbox", NULL, 0, &rows, why);
    if (e != ERR_OK) return e;
    e = db_rows_next(rows);
    if (e == ERR_OK) *ret_n = (uint64_t)db_int(rows, 0);
    db_rows_free(rows);
    return e;
}

enum err push_lock(struct db *d, struct why *why)
{
    if (db_dialect(d) == DB_SQLITE) return ERR_OK;
    enum err e = db_begin(d, why);
    if (e != ERR_OK) return e;
    /* Locks the row until the end of the transaction. */
    struct db_rows *rows;
    e = db_query(d, "SELECT revision FROM push WHERE id = 1 FOR UPDATE", NULL, 0, &rows, why);
    if (e != ERR_OK) {
        db_rollback(d);
        return e;
    }
    db_rows_free(rows);
    return ERR_OK;
}

enum err push_last(struct db *d, struct arena *a, struct str *ret_instance, uint64_t *ret_revision,
                   struct why *why)
{
    struct db_rows *rows;
    struct str instance;
    enum err e = db_query(d, "SELECT instance, revision FROM push WHERE id = 1", NULL, 0, &rows,
                          why);
    if (e != ERR_OK) return e;
    e = db_rows_next(rows);
    if (e == ERR_OK) e = store_take_text(a, rows, 0, &instance);
    if (e == ERR_OK) {
        *ret_instance = instance;
        *ret_revision = (uint64_t)db_int(rows, 1);
    }
    db_rows_free(rows);
    return e;
}

enum err push_unlock(struct store *s, struct db *d, uint64_t revision, const char *digest,
                     struct why *why)
{
    struct db_value p[] = { DBV_INT(revision), DBV_TEXT(str_of(digest)),
                            DBV_TEXT(str_of(s->instance)) };
    if (db_dialect(d) == DB_SQLITE) {
        enum err b = db_begin(d, why);
        if (b != ERR_OK) return b;
    }
    enum err e = db_exec(d, "UPDATE push SET revision = ?, digest = ?, instance = ? WHERE id = 1",
                         p, 3, NULL, why);
    if (e == ERR_OK) e = db_exec(d, "DELETE FROM outbox WHERE revision <= ?", p, 1, NULL, why);
    if (e == ERR_OK) return db_commit(d, why);
    db_rollback(d);
    return e;
}
