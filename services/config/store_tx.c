/* SPDX-License-Identifier: Apache-2.0 */
/* Changes: rows, audit, revision number and outbox in one transaction. The caller's thread. */
#include <stdio.h>

#include "base/uuid.h"
#include "store_impl.h"

enum err tx_begin(struct store *s, struct arena *a, struct tx *ret, struct why *why)
{
    struct tx t = { .store = s, .arena = a, .now_ms = clock_wall_ms(s->clock) };
    enum err e = store_borrow(s, &t.db, why);
    if (e != ERR_OK) return e;
    e = db_begin(t.db, why);
    if (e != ERR_OK) {
        store_return(s, t.db);
        return e;
    }
    /* Takes the row's lock: whoever else wants to write waits here. */
    e = db_exec(t.db, "UPDATE head SET revision = revision + 1 WHERE id = 1", NULL, 0, NULL, why);
    if (e == ERR_OK) e = store_revision(t.db, &t.revision, why);
    if (e != ERR_OK) {
        tx_rollback(&t);
        return e;
    }
    *ret = t;
    return ERR_OK;
}

const struct clock *tx_clock(const struct tx *t)
{
    return t->store->clock;
}

const struct rng *tx_rng(const struct tx *t)
{
    return t->store->rng;
}

void tx_rollback(struct tx *t)
{
    db_rollback(t->db);
    store_return(t->store, t->db);
    t->db = NULL;
}

static enum err write_audit(struct tx *t, const char *action, const struct row *r,
                            struct str before, struct str after, struct why *why)
{
    struct db_value p[] = { DBV_INT(t->revision),
                            DBV_INT(t->changes),
                            DBV_TEXT(str_of(action)),
                            DBV_TEXT(str_of(kind_name(r->kind))),
                            DBV_TEXT(r->id),
                            DBV_TEXT(r->slug),
                            before.p != NULL ? DBV_TEXT(before) : DBV_NULL,
                            after.p != NULL ? DBV_TEXT(after) : DBV_NULL };
    enum err e = db_exec(t->db,
                         "INSERT INTO audit (revision, seq, action, kind, entity_id, slug, "
                         "before_body, after_body) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                         p, ARRAY_LEN(p), NULL, why);
    if (e == ERR_OK) t->changes++;
    return e;
}

static struct db_value uniq_value(const struct row *r)
{
    return r->uniq.n > 0 ? DBV_TEXT(r->uniq) : DBV_NULL;
}

static enum err insert(struct tx *t, struct row *r, struct why *why)
{
    r->created_ms = r->updated_ms = t->now_ms;
    struct db_value p[] = { DBV_TEXT(r->id),        DBV_TEXT(str_of(kind_name(r->kind))),
                            DBV_TEXT(r->parent),    DBV_TEXT(r->slug),
                            DBV_TEXT(r->ref),       uniq_value(r),
                            DBV_TEXT(r->body),      DBV_INT(t->revision),
                            DBV_INT(r->created_ms), DBV_INT(r->updated_ms) };
    return db_exec(t->db,
                   "INSERT INTO entities (id, kind, parent, slug, ref, uniq, body, revision, "
                   "created_ms, updated_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                   p, ARRAY_LEN(p), NULL, why);
}

static enum err update(struct tx *t, struct row *r, const struct row *old, struct why *why)
{
    r->created_ms = old->created_ms;
    r->updated_ms = t->now_ms;
    struct db_value p[] = { DBV_TEXT(r->parent), DBV_TEXT(r->slug), DBV_TEXT(r->ref),
                            uniq_value(r),       DBV_TEXT(r->body), DBV_INT(t->revision),
                            DBV_INT(t->now_ms),  DBV_TEXT(r->id) };
    return db_exec(t->db,
                   "UPDATE entities SET parent = ?, slug = ?, ref = ?, uniq = ?, body = ?, "
                   "revision = ?, updated_ms = ? WHERE id = ?",
                   p, ARRAY_LEN(p), NULL, why);
}

enum err tx_put(struct tx *t, struct row *r, struct why *why)
{
    struct row old;
    enum err e = store_get(t->db, r->kind, r->id, t->arena, &old, why);
    if (e == ERR_OK && str_eq(old.body, r->body)) {
        *r = old;
        return ERR_OK;
    }
    if (e == ERR_NOT_FOUND) {
        e = insert(t, r, why);
        if (e == ERR_OK) e = write_audit(t, "create", r, STR_NULL, r->body, why);
    } else if (e == ERR_OK) {
        e = update(t, r, &old, why);
        if (e == ERR_OK) e = write_audit(t, "update", r, old.body, r->body, why);
    }
    if (e == ERR_OK) r->revision = t->revision;
    return e;
}

enum err tx_delete(struct tx *t, const struct row *r, struct why *why)
{
    struct db_value id = DBV_TEXT(r->id);
    uint64_t changed = 0;
    enum err e = db_exec(t->db, "DELETE FROM entities WHERE id = ?", &id, 1, &changed, why);
    if (e == ERR_OK && changed == 0) return ERR_NOT_FOUND;
    return e == ERR_OK ? write_audit(t, "delete", r, r->body, STR_NULL, why) : e;
}

enum err tx_note(struct tx *t, const char *action, const struct row *r, struct why *why)
{
    return write_audit(t, action, r, r->body, r->body, why);
}

static enum err write_revision(struct tx *t, const char *actor, const char *summary,
                               struct why *why)
{
    char id[UUID_LEN + 1], text[500];
    uuid_v7(t->store->clock, t->store->rng, id);
    (void)str_copyz(text, sizeof(text), str_of(summary));
    struct db_value p[] = { DBV_INT(t->revision),
                            DBV_TEXT(str_of(id)),
                            DBV_INT(t->now_ms),
                            DBV_TEXT(str_of(actor)),
                            DBV_TEXT(str_of(t->store->instance)),
                            DBV_TEXT(str_of(text)),
                            DBV_INT(t->changes) };
    enum err e = db_exec(t->db,
                         "INSERT INTO revisions (revision, message_id, created_ms, actor, "
                         "instance, summary, changes) VALUES (?, ?, ?, ?, ?, ?, ?)",
                         p, ARRAY_LEN(p), NULL, why);
    struct db_value o[] = { DBV_INT(t->revision), DBV_INT(t->now_ms) };
    if (e == ERR_OK)
        e = db_exec(t->db, "INSERT INTO outbox (revision, created_ms) VALUES (?, ?)", o, 2, NULL,
                    why);
    return e;
}

enum err tx_commit(struct tx *t, const char *actor, const char *summary, uint64_t *ret_revision,
                   struct why *why)
{
    if (t->changes == 0) {
        *ret_revision = t->revision - 1;
        tx_rollback(t);
        return ERR_OK;
    }
    enum err e = write_revision(t, actor, summary, why);
    if (e == ERR_OK) e = db_commit(t->db, why);
    if (e != ERR_OK) {
        tx_rollback(t);
        return e;
    }
    store_return(t->store, t->db);
    t->db = NULL;
    *ret_revision = t->revision;
    if (t->store->changed != NULL) t->store->changed(t->store->changed_ctx);
    return ERR_OK;
}

static enum err member(struct arena *a, const struct json *o, const char *key, struct str *ret)
{
    struct str s = json_str(json_get(o, key));
    const char *p = arena_dupz(a, s.p != NULL ? s : STR(""));
    if (p == NULL) return ERR_LIMIT;
    *ret = str_n(p, s.n);
    return ERR_OK;
}

enum err row_from_body(enum kind k, struct str body, struct arena *a, struct row *ret,
                       struct why *why)
{
    struct json *o;
    struct row r = { .kind = k, .ref = STR(""), .uniq = STR(""), .parent = STR("") };
    enum err e = json_parse(body, body.n, &o, why);
    if (e != ERR_OK) return e;
    e = member(a, o, "id", &r.id);
    if (e == ERR_OK) e = member(a, o, "slug", &r.slug);
    if (e == ERR_OK && kind_has_namespace(k)) e = member(a, o, "namespace", &r.parent);
    if (e == ERR_OK && k == KIND_ROUTE) e = member(a, o, "upstream", &r.ref);
    if (e == ERR_OK && k == KIND_KEY) e = member(a, o, "hmac", &r.uniq);
    if (e == ERR_OK) e = arena_dup(a, body, &r.body);
    json_free(o);
    if (e == ERR_OK) *ret = r;
    return e;
}
