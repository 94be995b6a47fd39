/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The config center's database: entities as rows with a JSON body each, the history of what changed
 * (audit), revisions, and the outbox of revisions that the bus has not seen.
 *
 * Connections are pooled; a handler's thread takes one for a request and gives it back. Every
 * change is a struct tx: one database transaction that takes the next revision number first, so
 * that writers wait for each other, over all instances that share the database.
 */
#ifndef CONFIG_STORE_H
#define CONFIG_STORE_H

#include "base/arena.h"
#include "base/clock.h"
#include "rt/db.h"
#include "rt/json.h"

enum kind {
    KIND_NAMESPACE,
    KIND_UPSTREAM,
    KIND_MODEL,
    KIND_ISSUER,
    KIND_MATCHER,
    KIND_POLICY,
    KIND_ROUTE,
    KIND_KEY,
    KIND_COUNT
};
/* "namespaces" …: in paths, in documents, in the database. */
const char *kind_name(enum kind k);
enum err kind_parse(struct str s, enum kind *ret) MUSTCHECK;
static inline bool kind_has_namespace(enum kind k)
{
    return k == KIND_MATCHER || k == KIND_POLICY || k == KIND_ROUTE || k == KIND_KEY;
}

/* One entity. The strings are NUL-terminated, borrowed from the arena that it was read into. */
struct row {
    enum kind kind;
    struct str id, slug;
    struct str parent; /* the namespace's id, "" when it has none */
    struct str ref;    /* a route's upstream, else "" */
    struct str uniq;   /* a key's HMAC, else "": unique over all */
    struct str body;   /* JSON, as it goes into the snapshot */
    uint64_t revision; /* that changed it last */
    uint64_t created_ms, updated_ms;
};

struct store;

/* Borrows url. Nothing is opened yet. lock_path: a file that one process locks as long as it uses
 * an SQLite database; ignored for other databases. */
struct store *store_new(const char *url, const char *lock_path, const struct clock *clock,
                        const struct rng *rng, const char *instance);
void store_free(struct store *s);
/* Opens the database and brings its schema up to date. May be called again after an error. */
enum err store_open(struct store *s, struct why *why) MUSTCHECK;
bool store_is_open(struct store *s);
/* Runs after each committed change, on the thread that made it. */
void store_on_change(struct store *s, void (*fn)(void *ctx), void *ctx);

/* A connection of the pool; waits for one. ERR_UNAVAILABLE when the store is not open yet. */
enum err store_borrow(struct store *s, struct db **ret, struct why *why) MUSTCHECK;
void store_return(struct store *s, struct db *d);

/* --- reading --- */

enum err store_revision(struct db *d, uint64_t *ret, struct why *why) MUSTCHECK;
/* By id. ERR_NOT_FOUND. */
enum err store_get(struct db *d, enum kind k, struct str id, struct arena *a, struct row *ret,
                   struct why *why) MUSTCHECK;
/* By slug within a parent ("" for kinds without namespace and for global policies). */
enum err store_find(struct db *d, enum kind k, struct str parent, struct str slug, struct arena *a,
                    struct row *ret, struct why *why) MUSTCHECK;

struct rows {
    struct row *v;
    size_t n;
};
struct row_filter {
    struct str id; /* p == NULL: any; so the others */
    struct str parent, slug, ref, uniq;
    const char *body_like;           /* an SQL LIKE pattern, or NULL */
    bool by_slug, descending;        /* else by id */
    struct str after_slug, after_id; /* continue behind this one (after_slug with by_slug) */
    size_t limit;                    /* 0: all */
};
/* kind KIND_COUNT: of every kind. */
enum err store_list(struct db *d, enum kind k, const struct row_filter *f, struct arena *a,
                    struct rows *ret, struct why *why) MUSTCHECK;

/* --- changing --- */

struct tx {
    struct store *store;
    struct db *db;
    struct arena *arena;
    uint64_t revision; /* the one that this change will be */
    uint64_t now_ms;
    int changes;
    bool bulk; /* rules over several entities are checked by the caller, at the end */
};

enum err tx_begin(struct store *s, struct arena *a, struct tx *ret, struct why *why) MUSTCHECK;
/* Inserts or replaces by id. An equal one is left alone and counts as no change. r->revision and
 * the times are filled in. ERR_EXISTS: slug or uniq are in use. */
enum err tx_put(struct tx *t, struct row *r, struct why *why) MUSTCHECK;
enum err tx_delete(struct tx *t, const struct row *r, struct why *why) MUSTCHECK;
/* Writes down that something was done to an entity that is not changed by it; counts as a change.
 */
enum err tx_note(struct tx *t, const char *action, const struct row *r, struct why *why) MUSTCHECK;
/* Without changes, nothing is written, and *ret_revision is the present one. */
enum err tx_commit(struct tx *t, const char *actor, const char *summary, uint64_t *ret_revision,
                   struct why *why) MUSTCHECK;
void tx_rollback(struct tx *t);
const struct clock *tx_clock(const struct tx *t);
const struct rng *tx_rng(const struct tx *t);

/* Fills parent, ref, uniq, slug and id of r from its kind and body. */
enum err row_from_body(enum kind k, struct str body, struct arena *a, struct row *ret,
                       struct why *why) MUSTCHECK;

/* --- history --- */

struct revision {
    uint64_t revision, created_ms;
    struct str message_id, actor, instance, summary;
    int64_t changes;
};
enum err store_revision_get(struct db *d, uint64_t revision, struct arena *a, struct revision *ret,
                            struct why *why) MUSTCHECK;
/* Newest first, below `before` (0: from the newest). */
enum err store_revision_list(struct db *d, uint64_t before, size_t limit, struct arena *a,
                             struct revision **ret, size_t *ret_n, struct why *why) MUSTCHECK;

struct audit {
    uint64_t revision;
    struct str action; /* create, update, delete; reset (of counters: before and after are equal) */
    enum kind kind;
    struct str id, slug;
    struct str before, after; /* bodies; p == NULL: there was, or is, none */
};
/* What changed in revisions (from, to], oldest first. entity p == NULL: all. */
enum err store_audit(struct db *d, uint64_t from, uint64_t to, struct str entity, size_t limit,
                     struct arena *a, struct audit **ret, size_t *ret_n, struct why *why) MUSTCHECK;

/* --- the outbox --- */

/* Revisions that were committed and not yet pushed. */
enum err outbox_pending(struct db *d, uint64_t *ret_n, struct why *why) MUSTCHECK;
/* Begins a transaction that keeps other instances from pushing until push_unlock(); SQLite has one
 * instance and needs none. */
enum err push_lock(struct db *d, struct why *why) MUSTCHECK;
/* Who pushed last, and which revision. */
enum err push_last(struct db *d, struct arena *a, struct str *ret_instance, uint64_t *ret_revision,
                   struct why *why) MUSTCHECK;
enum err push_unlock(struct store *s, struct db *d, uint64_t revision, const char *digest,
                     struct why *why) MUSTCHECK;

/* A connection of one's own, for a thread that keeps one. */
enum err store_connect(struct store *s, struct db **ret, struct why *why) MUSTCHECK;
const char *store_instance(const struct store *s);

#endif
