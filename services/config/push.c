/* SPDX-License-Identifier: Apache-2.0 */
/* See the header. `lock` guards the wake-up flags and the built revision that config.get reads. */
#include "push.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"
#include "base/uuid.h"
#include "build.h"
#include "bucket.h"
#include "proto/envelope.h"
#include "proto/subjects.h"

enum { TICK_MS = 1000, COALESCE_MS = 50, VERIFY_MS = 5000, ARENA_MAX = 1 << 30 };

struct push {
    struct push_options o;
    pthread_t thread;

    pthread_mutex_t lock;
    pthread_cond_t wake;
    bool woken, stop;
    struct bus_sub *get_sub; /* NULL until there is something to answer with */
    struct built *built;

    /* The thread's own. */
    struct db *db;
    struct bucket *bucket;
    bool connected;
    uint64_t pushed_ms, verified_ms; /* when last */
    uint64_t pushed_revision;
    char pushed_digest[65];
    char last_report[320];
};

static void report(struct push *p, int level, const char *what, uint64_t revision, const char *why)
{
    char line[sizeof(p->last_report)];
    (void)snprintf(line, sizeof(line), "%llu %s %s", (unsigned long long)revision, what, why);
    if (level >= LOG_WARN && strcmp(line, p->last_report) == 0) return; /* said already */
    (void)str_copyz(p->last_report, sizeof(p->last_report), str_of(line));
    if (p->o.report != NULL) p->o.report(p->o.ctx, level, what, revision, why);
}

static struct built *take_built(struct push *p)
{
    pthread_mutex_lock(&p->lock);
    struct built *b = p->built != NULL ? built_ref(p->built) : NULL;
    pthread_mutex_unlock(&p->lock);
    return b;
}

static void set_built(struct push *p, struct built *b)
{
    pthread_mutex_lock(&p->lock);
    struct built *old = p->built;
    p->built = b;
    pthread_mutex_unlock(&p->lock);
    built_unref(old);
}

uint64_t push_revision(struct push *p)
{
    pthread_mutex_lock(&p->lock);
    uint64_t revision = p->pushed_revision;
    pthread_mutex_unlock(&p->lock);
    return revision;
}

/* --- from the database to a built revision --- */

/* One statement, so that revision and entities belong together. */
static enum err read_items(struct db *d, struct arena *a, uint64_t *ret_revision, struct item **ret,
                           size_t *ret_n, struct why *why)
{
    struct db_rows *rows;
    struct item *v = NULL;
    size_t n = 0, cap = 0;
    enum err e = db_query(d,
                          "SELECT h.revision, e.kind, e.id, e.parent, e.body FROM head h LEFT "
                          "JOIN entities e ON 1 = 1 WHERE h.id = 1",
                          NULL, 0, &rows, why);
    if (e != ERR_OK) return e;
    while ((e = db_rows_next(rows)) == ERR_OK) {
        enum kind k;
        struct str parent;
        *ret_revision = (uint64_t)db_int(rows, 0);
        if (db_is_null(rows, 1)) continue; /* no entities at all */
        if (n == cap) {
            cap = cap == 0 ? 64 : cap * 2;
            struct item *bigger = realloc(v, cap * sizeof(*v));
            e = bigger == NULL ? ERR_NOMEM : ERR_OK;
            if (e != ERR_OK) break;
            v = bigger;
        }
        e = kind_parse(db_text(rows, 1), &k);
        if (e == ERR_OK) e = arena_dup(a, db_text(rows, 2), &v[n].id);
        if (e == ERR_OK) e = arena_dup(a, db_text(rows, 3), &parent);
        if (e == ERR_OK) e = arena_dup(a, db_text(rows, 4), &v[n].body);
        if (e != ERR_OK) break;
        v[n].kind = kind_name(k);
        v[n].ns = k == KIND_NAMESPACE ? v[n].id : parent;
        n++;
    }
    db_rows_free(rows);
    if (e != ERR_NOT_FOUND) {
        free(v);
        return e;
    }
    *ret = v;
    *ret_n = n;
    return ERR_OK;
}

static enum err origin_of(struct push *p, uint64_t revision, struct arena *a, struct origin *ret,
                          struct why *why)
{
    struct revision r;
    enum err e = store_revision_get(p->db, revision, a, &r, why);
    if (e == ERR_OK) {
        char *ts = arena_alloc(a, TIME_RFC3339_LEN + 1);
        if (ts == NULL) return ERR_LIMIT;
        time_rfc3339(r.created_ms * 1000000, ts);
        *ret = (struct origin){ r.message_id.p, ts, r.instance.p };
    } else if (e == ERR_NOT_FOUND && revision == 0) {
        /* Nothing was ever written: the same message for everybody. */
        *ret = (struct origin){ "00000000-0000-7000-8000-000000000000", "1970-01-01T00:00:00.000Z",
                                "config" };
        e = ERR_OK;
    }
    return e;
}

static enum err build(struct push *p, struct why *why)
{
    struct arena a;
    struct item *items = NULL;
    size_t n = 0;
    uint64_t revision = 0;
    struct origin origin;
    struct built *b;
    arena_init(&a, ARENA_MAX);
    enum err e = read_items(p->db, &a, &revision, &items, &n, why);
    if (e == ERR_OK) e = origin_of(p, revision, &a, &origin, why);
    if (e == ERR_OK) e = build_snapshot(revision, &origin, items, n, &b, why);
    if (e == ERR_OK) set_built(p, b);
    free(items);
    arena_done(&a);
    return e;
}

/* --- to the bus --- */

static void announce(struct push *p, const struct built *b)
{
    char subject[SUBJECT_LEN];
    subject_make(bus_prefix(p->o.bus), SUBJECT_CONFIG_CHANGED, NULL, subject);
    if (bus_publish(p->o.bus, subject, b->manifest) != ERR_OK) {
        /* The followers' own checks find it out. */
    }
}

static enum err transfer(struct push *p, const struct built *b, struct why *why)
{
    struct arena a;
    struct str instance;
    uint64_t last, moved = 0;
    arena_init(&a, 65536);
    enum err e = push_last(p->db, &a, &instance, &last, why);
    if (e == ERR_OK && !str_eqz(instance, store_instance(p->o.store)))
        bucket_forget(p->bucket); /* another instance may have tidied up */
    arena_done(&a);
    if (e == ERR_OK) e = bucket_put(p->bucket, b, &moved, why);
    return e;
}

/* Builds and pushes the newest revision. ERR_AGAIN: there is a newer one already. */
static enum err push_newest(struct push *p, struct why *why)
{
    uint64_t began = clock_mono_ms(p->o.clock);
    enum err e = push_lock(p->db, why);
    if (e != ERR_OK) return e;
    bool locked = db_dialect(p->db) != DB_SQLITE;
    e = build(p, why);
    struct built *b = e == ERR_OK ? take_built(p) : NULL;
    if (e == ERR_OK) e = transfer(p, b, why);
    if (e == ERR_OK) {
        e = push_unlock(p->o.store, p->db, b->revision, b->digest, why);
        announce(p, b);
    } else if (locked) {
        db_rollback(p->db);
    }
    if (e == ERR_OK) {
        pthread_mutex_lock(&p->lock);
        p->pushed_revision = b->revision;
        pthread_mutex_unlock(&p->lock);
        (void)str_copyz(p->pushed_digest, sizeof(p->pushed_digest), str_of(b->digest));
        p->pushed_ms = p->verified_ms = clock_mono_ms(p->o.clock);
        if (p->o.on_pushed != NULL) p->o.on_pushed(p->o.ctx, b->revision, p->pushed_ms - began);
        p->last_report[0] = '\0';
    }
    built_unref(b);
    return e;
}

/* Whether there is anything to push. */
static enum err is_due(struct push *p, bool *ret, struct why *why)
{
    uint64_t revision, now = clock_mono_ms(p->o.clock);
    enum err e = store_revision(p->db, &revision, why);
    if (e != ERR_OK) return e;
    *ret = p->pushed_digest[0] == '\0' || revision != p->pushed_revision;
    if (*ret || now - p->verified_ms < VERIFY_MS) return ERR_OK;
    p->verified_ms = now;
    *ret = !bucket_holds(p->bucket, p->pushed_revision, p->pushed_digest);
    if (*ret) bucket_forget(p->bucket);
    return ERR_OK;
}

/* --- config.get --- */

static void count_error(struct push *p, const char *why)
{
    pthread_mutex_lock(&p->lock);
    struct bus_sub *sub = p->get_sub;
    pthread_mutex_unlock(&p->lock);
    if (sub != NULL) bus_endpoint_error(sub, why);
}

/* A reply that is lost: the asker asks again. */
static void reply_json(struct push *p, const struct bus_msg *msg, struct json *takes)
{
    struct buf b;
    buf_init(&b, MESSAGE_MAX_BYTES);
    if (json_print(takes, &b) != ERR_OK || bus_reply(p->o.bus, msg->reply, buf_str(&b)) != ERR_OK)
        count_error(p, "the reply could not be sent");
    buf_done(&b);
    json_free(takes);
}

static void reply_error(struct push *p, const struct bus_msg *msg, enum err code, const char *text)
{
    reply_json(p, msg, envelope_error(p->o.clock, p->o.rng, bus_instance(p->o.bus), code, text));
    count_error(p, text);
}

static void reply_part(struct push *p, const struct bus_msg *msg, const struct blob *blob)
{
    struct json *m = envelope_new(p->o.clock, p->o.rng, bus_instance(p->o.bus));
    json_setz(m, "digest", blob->digest);
    json_set_str(m, "part", blob->text);
    reply_json(p, msg, m);
}

/* A bus thread. The newest revision comes from memory; older ones are in the bucket. */
static void on_get(void *ctx, const struct bus_msg *msg)
{
    struct push *p = ctx;
    struct why why = { "" };
    struct json *m = NULL;
    uint64_t revision;
    struct built *b = take_built(p);
    enum err e = envelope_parse(msg->data, &m, &why);
    struct str digest = e == ERR_OK ? json_str(json_get(m, "digest")) : STR_NULL;
    const struct blob *blob = b != NULL && digest.p != NULL ? built_find(b, digest) : NULL;
    bool any = e == ERR_OK && json_get_u64(m, "revision", &revision) != ERR_OK;
    if (e != ERR_OK) {
        reply_error(p, msg, e, why.text);
    } else if (b == NULL) {
        reply_error(p, msg, ERR_UNAVAILABLE, "no revision was built yet");
    } else if (blob != NULL) {
        reply_part(p, msg, blob);
    } else if (digest.p != NULL || (!any && revision != b->revision)) {
        reply_error(p, msg, ERR_NOT_FOUND, "only the newest revision is served here");
    } else if (bus_reply(p->o.bus, msg->reply, b->manifest) != ERR_OK) {
        count_error(p, "the reply could not be sent");
    }
    built_unref(b);
    json_free(m);
}

/* --- the thread --- */

static void wait_until(struct push *p, uint64_t ms, bool woken_ends)
{
    struct timespec until = clock_in_ms(ms);
    int rc = 0;
    pthread_mutex_lock(&p->lock);
    while (!p->stop && !(woken_ends && p->woken) && rc == 0)
        rc = pthread_cond_timedwait(&p->wake, &p->lock, &until);
    p->woken = false;
    pthread_mutex_unlock(&p->lock);
}

static bool is_stopped(struct push *p)
{
    pthread_mutex_lock(&p->lock);
    bool stop = p->stop;
    pthread_mutex_unlock(&p->lock);
    return stop;
}

/* Not before there is something to answer with: another instance of the queue group may have it. */
static void serve(struct push *p)
{
    char subject[SUBJECT_LEN];
    struct bus_sub *sub;
    subject_make(bus_prefix(p->o.bus), SUBJECT_CONFIG_GET, NULL, subject);
    struct bus_endpoint get = { "get", subject, subject_queue(SUBJECT_CONFIG_GET) };
    if (bus_serve(p->o.bus, &get, on_get, p, &sub) != ERR_OK) return;
    pthread_mutex_lock(&p->lock);
    p->get_sub = sub;
    pthread_mutex_unlock(&p->lock);
}

static bool have_store(struct push *p)
{
    struct why why = { "" };
    enum err e = ERR_OK;
    if (p->db != NULL && p->get_sub != NULL) return true;
    if (!store_is_open(p->o.store)) {
        e = store_open(p->o.store, &why);
        if (e == ERR_OK && p->o.on_open != NULL) p->o.on_open(p->o.ctx);
    }
    if (e == ERR_OK && p->db == NULL) e = store_connect(p->o.store, &p->db, &why);
    if (e == ERR_OK) e = build(p, &why); /* config.get answers before the bus has it all */
    if (e != ERR_OK) report(p, LOG_WARN, "the store is not there yet, trying again", 0, why.text);
    if (e == ERR_OK) serve(p);
    return p->db != NULL;
}

static void work(struct push *p)
{
    struct why why = { "" };
    bool due = false, connected = bus_is_connected(p->o.bus);
    if (!have_store(p)) return;
    if (connected && !p->connected) {
        bucket_forget(p->bucket);
        p->pushed_digest[0] = '\0'; /* look again what the bucket has */
    }
    p->connected = connected;
    if (!connected) return;
    enum err e = is_due(p, &due, &why);
    if (e == ERR_OK && due) {
        uint64_t since = clock_mono_ms(p->o.clock) - p->pushed_ms;
        if (p->pushed_ms != 0 && since < COALESCE_MS) wait_until(p, COALESCE_MS - since, false);
        e = push_newest(p, &why);
    }
    if (e != ERR_OK)
        report(p, LOG_WARN, "not pushed, trying again", push_revision(p),
               why.text[0] != '\0' ? why.text : err_name(e));
}

static void *run(void *ctx)
{
    struct push *p = ctx;
    while (!is_stopped(p)) {
        work(p);
        wait_until(p, p->connected ? TICK_MS : TICK_MS / 4, true);
    }
    return NULL;
}

struct push *push_new(const struct push_options *o)
{
    pthread_condattr_t attr;
    struct push *p = xcalloc(1, sizeof(*p));
    p->o = *o;
    p->bucket = bucket_new(o->bus);
    ASSERT(pthread_mutex_init(&p->lock, NULL) == 0);
    ASSERT(pthread_condattr_init(&attr) == 0);
    ASSERT(pthread_condattr_setclock(&attr, CLOCK_MONOTONIC) == 0);
    ASSERT(pthread_cond_init(&p->wake, &attr) == 0);
    (void)pthread_condattr_destroy(&attr);
    ASSERT(pthread_create(&p->thread, NULL, run, p) == 0);
    return p;
}

void push_free(struct push *p)
{
    if (p == NULL) return;
    pthread_mutex_lock(&p->lock);
    p->stop = true;
    pthread_cond_signal(&p->wake);
    pthread_mutex_unlock(&p->lock);
    (void)pthread_join(p->thread, NULL);
    bus_unsubscribe(p->get_sub);
    bucket_free(p->bucket);
    db_close(p->db);
    built_unref(p->built);
    pthread_cond_destroy(&p->wake);
    pthread_mutex_destroy(&p->lock);
    free(p);
}

void push_wake(struct push *p)
{
    pthread_mutex_lock(&p->lock);
    p->woken = true;
    pthread_cond_signal(&p->wake);
    pthread_mutex_unlock(&p->lock);
}
