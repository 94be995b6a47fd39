/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The follower's thread: waits for an announcement, the next check or a new connection, and brings
 * the snapshot up to date. `lock` guards what other threads touch: the snapshot in use, the
 * announcement that waits, and `stop`; nothing is called while it is held.
 *
 *      announced, newer than ours ─┐
 *      `latest` in the bucket ─────┼─▶ pages, parts we lack ─▶ build ─▶ apply ─▶ swap ─▶ disk
 *      config.get, when no bucket ─┘
 */
#include "config/follower.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"
#include "config/parts.h"
#include "proto/envelope.h"
#include "proto/subjects.h"

enum { TICK_MS = 200, CHECK_MS = 2000, RETRY_MS = 250, ASK_MS = 2000 };

struct follower {
    struct follower_options o;
    char *folder; /* NULL: nothing is kept on disk */
    pthread_t thread;
    struct bus_sub *sub;
    _Atomic uint64_t parts_fetched;

    pthread_mutex_t lock;
    pthread_cond_t wake;
    struct snapshot *snapshot;
    char *announced; /* the newest manifest that waits, or NULL */
    size_t announced_n;
    bool reapply, stop;

    /* The thread's own. */
    struct parts parts;
    struct bus_kv *kv;
    bool connected, confirmed; /* confirmed: published what we run on this connection */
    uint64_t next_check_ms;
    uint64_t refused_revision;
    char refused_digest[65];
    char last_report[320];
};

static void report(struct follower *f, int level, const char *what, uint64_t revision,
                   const char *why)
{
    if (f->o.report != NULL) f->o.report(f->o.ctx, level, what, revision, why);
}

/* What goes on being wrong is said once. */
static void report_once(struct follower *f, const char *what, uint64_t revision, const char *why)
{
    char line[sizeof(f->last_report)];
    (void)snprintf(line, sizeof(line), "%llu %s %s", (unsigned long long)revision, what, why);
    if (strcmp(line, f->last_report) == 0) return;
    (void)str_copyz(f->last_report, sizeof(f->last_report), str_of(line));
    report(f, LOG_WARN, what, revision, why);
}

static void publish_applied(struct follower *f, uint64_t revision, const char *digest,
                            const char *error)
{
    char subject[SUBJECT_LEN];
    struct buf b;
    struct json *m = envelope_new(f->o.clock, f->o.rng, bus_instance(f->o.bus));
    json_setz(m, "instance", bus_instance(f->o.bus));
    json_set_u64(m, "revision", revision);
    json_setz(m, "digest", digest);
    json_set_bool(m, "ok", error == NULL);
    if (error != NULL) json_setz(m, "error", error);
    buf_init(&b, 4096);
    subject_make(bus_prefix(f->o.bus), SUBJECT_CONFIG_APPLIED, NULL, subject);
    if (json_print(m, &b) == ERR_OK && bus_publish(f->o.bus, subject, buf_str(&b)) == ERR_OK &&
        error == NULL)
        f->confirmed = true;
    buf_done(&b);
    json_free(m);
}

/* --- fetching --- */

static enum err kv_read(struct follower *f, const char *key, struct buf *out)
{
    char bucket[SUBJECT_LEN];
    subject_store(bus_prefix(f->o.bus), STORE_BUCKET_CONFIG, bucket);
    if (f->kv == NULL) {
        enum err e = bus_kv_open(f->o.bus, bucket, false, &f->kv, NULL);
        if (e != ERR_OK) return e;
    }
    return bus_kv_get(f->kv, key, out, NULL);
}

/* Asks a config center for a part, or for the latest manifest (digest NULL). */
static enum err ask(struct follower *f, const char *digest, struct buf *out, struct why *why)
{
    char subject[SUBJECT_LEN];
    struct json *m = envelope_new(f->o.clock, f->o.rng, bus_instance(f->o.bus)), *reply = NULL;
    struct buf text, answer;
    buf_init(&text, 4096);
    buf_init(&answer, MESSAGE_MAX_BYTES);
    subject_make(bus_prefix(f->o.bus), SUBJECT_CONFIG_GET, NULL, subject);
    if (digest != NULL) json_setz(m, "digest", digest);
    enum err e = json_print(m, &text);
    if (e == ERR_OK) e = bus_request_wait(f->o.bus, subject, buf_str(&text), ASK_MS, &answer);
    if (e != ERR_OK) {
        (void)why_set(why, e, "no answer from the config center");
        goto out;
    }
    e = envelope_parse(buf_str(&answer), &reply, why);
    if (e == ERR_OK) e = envelope_check_error(reply, why);
    if (e != ERR_OK) goto out;
    if (digest == NULL) {
        e = buf_append_str(out, buf_str(&answer)); /* the manifest is a message itself */
    } else {
        struct str part = json_str(json_get(reply, "part"));
        e = part.p != NULL ? buf_append_str(out, part)
                           : why_set(why, ERR_INVALID, "the config center's answer has no part");
    }
out:
    json_free(m);
    json_free(reply);
    buf_done(&text);
    buf_done(&answer);
    return e;
}

/* The text of a page or part: from memory, from the bucket, or from a config center. */
static enum err need(struct follower *f, const char *digest, bool is_part, struct str *ret,
                     struct why *why)
{
    char key[96];
    struct buf text;
    enum err e = ERR_OK;
    *ret = parts_get(&f->parts, digest);
    if (ret->p != NULL) return ERR_OK;
    buf_init(&text, PART_MAX_BYTES);
    (void)snprintf(key, sizeof(key), "part.%s", digest);
    if (kv_read(f, key, &text) != ERR_OK ||
        parts_add(&f->parts, digest, buf_str(&text)) != ERR_OK) {
        buf_clear(&text);
        e = ask(f, digest, &text, why);
        if (e == ERR_OK && parts_add(&f->parts, digest, buf_str(&text)) != ERR_OK)
            e = why_set(why, ERR_UNAVAILABLE, "part %.12s is not what its digest says", digest);
    }
    buf_done(&text);
    if (e != ERR_OK) return e;
    if (is_part) atomic_fetch_add(&f->parts_fetched, 1);
    *ret = parts_get(&f->parts, digest);
    return ERR_OK;
}

/* --- from a manifest to a snapshot --- */

struct gathered {
    struct str *texts;
    size_t n, cap;
};

static enum err gather_page(struct follower *f, const char *page, struct gathered *g,
                            struct why *why)
{
    struct str text, part;
    struct snap_digest *digests = NULL;
    size_t n = 0;
    enum err e = need(f, page, false, &text, why);
    if (e == ERR_OK) e = page_parse(text, &digests, &n, why);
    for (size_t i = 0; i < n && e == ERR_OK; i++) {
        e = need(f, digests[i].hex, true, &part, why);
        if (e != ERR_OK) break;
        if (g->n == g->cap) {
            size_t cap = g->cap == 0 ? 64 : g->cap * 2;
            struct str *p = realloc(g->texts, cap * sizeof(*p));
            if (p == NULL) {
                e = ERR_NOMEM;
                break;
            }
            g->texts = p;
            g->cap = cap;
        }
        g->texts[g->n++] = part;
    }
    free(digests);
    return e;
}

static void swap(struct follower *f, struct snapshot *s)
{
    pthread_mutex_lock(&f->lock);
    struct snapshot *old = f->snapshot;
    f->snapshot = s;
    pthread_mutex_unlock(&f->lock);
    snapshot_unref(old);
}

/* Builds, offers and swaps. What others sent and is wrong is ERR_INVALID (or what apply() says);
 * what could not be had is ERR_UNAVAILABLE, ERR_TIMEOUT, ERR_NOT_FOUND …: worth another try. */
static enum err take(struct follower *f, const struct manifest *m, bool *ret_refused,
                     struct why *why)
{
    struct gathered g = { 0 };
    struct snapshot *s = NULL;
    enum err e = ERR_OK;
    *ret_refused = false;
    parts_begin(&f->parts);
    for (size_t i = 0; i < m->pages_n && e == ERR_OK; i++)
        e = gather_page(f, m->pages[i].hex, &g, why);
    *ret_refused = e == ERR_INVALID || e == ERR_UNSUPPORTED;
    if (e != ERR_OK) goto out;
    e = snapshot_build(m->revision, m->digest, g.texts, g.n, &s, why);
    if (e == ERR_OK) e = f->o.apply != NULL ? f->o.apply(f->o.ctx, s, why) : ERR_OK;
    *ret_refused = e != ERR_OK && e != ERR_NOMEM;
    if (e != ERR_OK) goto out;
    parts_keep(&f->parts);
    swap(f, s);
    s = NULL;
out:
    if (*ret_refused) parts_drop(&f->parts);
    snapshot_unref(s);
    free(g.texts);
    return e;
}

static void save(struct follower *f, uint64_t revision, struct str manifest)
{
    struct why why = { "" };
    if (f->folder != NULL && parts_save(&f->parts, f->folder, manifest, &why) != ERR_OK)
        report_once(f, "configuration not kept on disk", revision, why.text);
}

/* Takes a manifest from the bus. False when it is worth another try. */
static bool follow(struct follower *f, const struct manifest *m, struct str text)
{
    struct why why = { "" };
    bool refused;
    if (m->revision == f->refused_revision && strcmp(m->digest, f->refused_digest) == 0)
        return true;
    enum err e = take(f, m, &refused, &why);
    if (e == ERR_OK) {
        f->refused_revision = 0;
        f->last_report[0] = '\0';
        publish_applied(f, m->revision, m->digest, NULL);
        report(f, LOG_INFO, "configuration applied", m->revision, m->digest);
        save(f, m->revision, text);
        return true;
    }
    if (!refused) {
        report_once(f, "configuration could not be fetched, the old one stays", m->revision,
                    why.text[0] != '\0' ? why.text : err_name(e));
        return false;
    }
    f->refused_revision = m->revision;
    (void)str_copyz(f->refused_digest, sizeof(f->refused_digest), str_of(m->digest));
    publish_applied(f, m->revision, m->digest, why.text);
    report(f, LOG_ERROR, "configuration refused, the old one stays", m->revision, why.text);
    return true;
}

/* --- what there is to follow --- */

static bool is_ours(const struct follower *f, const struct manifest *m)
{
    const struct snapshot *s = f->snapshot; /* only this thread changes it */
    return s != NULL && s->revision == m->revision && strcmp(s->digest, m->digest) == 0;
}

/* Looks what the newest revision is. False when it is worth another try soon. */
static bool check(struct follower *f)
{
    struct why why = { "" };
    struct manifest m = { 0 };
    struct buf text;
    bool done = true, authoritative = true;
    buf_init(&text, MESSAGE_MAX_BYTES);
    enum err e = kv_read(f, "latest", &text);
    if (e != ERR_OK) {
        buf_clear(&text);
        authoritative = false;
        e = ask(f, NULL, &text, &why);
    }
    if (e == ERR_OK) e = manifest_parse(buf_str(&text), &m, &why);
    if (e != ERR_OK) {
        if (e == ERR_INVALID || e == ERR_UNSUPPORTED)
            report_once(f, "manifest refused, the old configuration stays", 0, why.text);
        goto out;
    }
    if (is_ours(f, &m)) {
        if (!f->confirmed) publish_applied(f, m.revision, m.digest, NULL);
    } else if (authoritative || f->snapshot == NULL || m.revision > f->snapshot->revision) {
        /* The bucket decides, also backwards: then the config center began a new history. One
         * config center's word may be old news. */
        done = follow(f, &m, buf_str(&text));
    }
out:
    manifest_done(&m);
    buf_done(&text);
    return done;
}

/* True when there is nothing more to do. */
static bool handle_announcement(struct follower *f, struct str text)
{
    struct why why = { "" };
    struct manifest m;
    bool done = true;
    enum err e = manifest_parse(text, &m, &why);
    if (e != ERR_OK) {
        report_once(f, "announcement refused, the old configuration stays", 0, why.text);
        return true;
    }
    if (f->snapshot == NULL || m.revision > f->snapshot->revision) {
        done = follow(f, &m, text);
    } else if (!is_ours(f, &m)) {
        done = check(f); /* late news, or a new history: the bucket knows */
    }
    manifest_done(&m);
    return done;
}

/* --- the disk --- */

/* Puts the pages and parts that the manifest names into memory. */
static enum err load_parts(struct follower *f, const struct manifest *m, struct why *why)
{
    enum err e = ERR_OK;
    for (size_t i = 0; i < m->pages_n && e == ERR_OK; i++) {
        struct snap_digest *digests = NULL;
        size_t n = 0;
        e = parts_load(&f->parts, f->folder, m->pages[i].hex, why);
        if (e == ERR_OK) e = page_parse(parts_get(&f->parts, m->pages[i].hex), &digests, &n, why);
        for (size_t k = 0; k < n && e == ERR_OK; k++)
            e = parts_load(&f->parts, f->folder, digests[k].hex, why);
        free(digests);
    }
    return e;
}

static void start_from_disk(struct follower *f)
{
    struct why why = { "" };
    struct manifest m = { 0 };
    struct buf text;
    bool refused;
    buf_init(&text, MESSAGE_MAX_BYTES);
    enum err e = parts_read_manifest(f->folder, &text, &why);
    if (e == ERR_NOT_FOUND) goto out; /* a first start */
    if (e == ERR_OK) e = manifest_parse(buf_str(&text), &m, &why);
    if (e == ERR_OK) e = load_parts(f, &m, &why);
    if (e == ERR_OK) e = take(f, &m, &refused, &why);
    if (e == ERR_OK) {
        report(f, LOG_INFO, "configuration loaded from disk", m.revision, m.digest);
    } else {
        parts_drop(&f->parts);
        report(f, LOG_WARN, "configuration on disk not used", m.revision, why.text);
    }
out:
    manifest_done(&m);
    buf_done(&text);
}

/* --- the thread --- */

static void on_changed(void *ctx, const struct bus_msg *msg)
{
    struct follower *f = ctx;
    if (msg->data.n > MESSAGE_MAX_BYTES) return;
    char *copy = malloc(msg->data.n + 1);
    if (copy == NULL) return; /* the next check finds out */
    if (msg->data.n > 0) memcpy(copy, msg->data.p, msg->data.n);
    pthread_mutex_lock(&f->lock);
    free(f->announced); /* only the newest matters */
    f->announced = copy;
    f->announced_n = msg->data.n;
    pthread_cond_signal(&f->wake);
    pthread_mutex_unlock(&f->lock);
}

/* Waits for an announcement (returned, to be freed), for a wish to apply again, for a tick (NULL)
 * or the end (false). */
static bool wait_for_work(struct follower *f, char **ret, size_t *ret_n, bool *ret_reapply)
{
    struct timespec until = clock_in_ms(TICK_MS);
    pthread_mutex_lock(&f->lock);
    int rc = 0;
    while (!f->stop && !f->reapply && f->announced == NULL && rc == 0)
        rc = pthread_cond_timedwait(&f->wake, &f->lock, &until);
    *ret = f->announced;
    *ret_n = f->announced_n;
    f->announced = NULL;
    *ret_reapply = f->reapply;
    f->reapply = false;
    bool go_on = !f->stop;
    pthread_mutex_unlock(&f->lock);
    return go_on;
}

static void apply_again(struct follower *f)
{
    struct why why = { "" };
    struct snapshot *s = f->snapshot; /* only this thread changes it */
    if (s != NULL && f->o.apply != NULL && f->o.apply(f->o.ctx, s, &why) != ERR_OK)
        report(f, LOG_ERROR, "configuration could not be applied again", s->revision, why.text);
}

static void *run(void *ctx)
{
    struct follower *f = ctx;
    char *announced = NULL;
    size_t n = 0;
    bool reapply = false;
    if (f->folder != NULL) start_from_disk(f);
    do {
        bool connected = bus_is_connected(f->o.bus), done = true;
        uint64_t now = clock_mono_ms(f->o.clock);
        if (connected && !f->connected) {
            f->confirmed = false;
            f->next_check_ms = 0;
        }
        f->connected = connected;
        if (reapply) apply_again(f);
        if (announced != NULL) done = handle_announcement(f, str_n(announced, n));
        if (done && connected && now >= f->next_check_ms) {
            done = check(f);
            f->next_check_ms = clock_mono_ms(f->o.clock) + CHECK_MS;
        }
        if (!done) f->next_check_ms = clock_mono_ms(f->o.clock) + RETRY_MS;
        free(announced);
    } while (wait_for_work(f, &announced, &n, &reapply));
    free(announced);
    return NULL;
}

struct follower *follower_new(const struct follower_options *o)
{
    char subject[SUBJECT_LEN];
    pthread_condattr_t attr;
    struct follower *f = xcalloc(1, sizeof(*f));
    f->o = *o;
    if (o->state_dir != NULL) {
        size_t n = strlen(o->state_dir) + sizeof("/snapshot");
        f->folder = xmalloc(n);
        (void)snprintf(f->folder, n, "%s/snapshot", o->state_dir);
    }
    parts_init(&f->parts);
    ASSERT(pthread_mutex_init(&f->lock, NULL) == 0);
    ASSERT(pthread_condattr_init(&attr) == 0);
    ASSERT(pthread_condattr_setclock(&attr, CLOCK_MONOTONIC) == 0);
    ASSERT(pthread_cond_init(&f->wake, &attr) == 0);
    (void)pthread_condattr_destroy(&attr);
    subject_make(bus_prefix(o->bus), SUBJECT_CONFIG_CHANGED, NULL, subject);
    if (bus_subscribe(o->bus, subject, NULL, on_changed, f, &f->sub) != ERR_OK) f->sub = NULL;
    ASSERT(pthread_create(&f->thread, NULL, run, f) == 0);
    return f;
}

void follower_free(struct follower *f)
{
    if (f == NULL) return;
    bus_unsubscribe(f->sub);
    pthread_mutex_lock(&f->lock);
    f->stop = true;
    pthread_cond_signal(&f->wake);
    pthread_mutex_unlock(&f->lock);
    (void)pthread_join(f->thread, NULL);
    bus_kv_close(f->kv);
    snapshot_unref(f->snapshot);
    parts_done(&f->parts);
    free(f->announced);
    free(f->folder);
    pthread_cond_destroy(&f->wake);
    pthread_mutex_destroy(&f->lock);
    free(f);
}

void follower_reapply(struct follower *f)
{
    pthread_mutex_lock(&f->lock);
    f->reapply = true;
    pthread_cond_signal(&f->wake);
    pthread_mutex_unlock(&f->lock);
}

struct snapshot *follower_snapshot(struct follower *f)
{
    pthread_mutex_lock(&f->lock);
    struct snapshot *s = f->snapshot != NULL ? snapshot_ref(f->snapshot) : NULL;
    pthread_mutex_unlock(&f->lock);
    return s;
}

uint64_t follower_parts_fetched(const struct follower *f)
{
    return atomic_load(&f->parts_fetched);
}
