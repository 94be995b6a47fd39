/* SPDX-License-Identifier: Apache-2.0 */
#include "bucket.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/map.h"
#include "proto/envelope.h"
#include "proto/subjects.h"

/* Manifests that may be there beyond those that are kept, so that tidying up comes in batches. */
enum { SLACK = 8, KEYS_MAX = 1 << 22, TRIES = 5 };

/* A manifest in the bucket, with everything that it needs once that is known. */
struct kept {
    uint64_t revision;
    struct snap_digest *needs; /* NULL: not known yet */
    size_t needs_n;
};

struct bucket {
    struct bus *bus;
    struct bus_kv *kv;
    bool listed;
    struct map parts; /* digests that are there, as keys */
    struct kept *kept;
    size_t kept_n, kept_cap;
};

struct bucket *bucket_new(struct bus *bus)
{
    struct bucket *b = xcalloc(1, sizeof(*b));
    b->bus = bus;
    map_init(&b->parts, KEYS_MAX);
    return b;
}

void bucket_forget(struct bucket *b)
{
    for (size_t i = 0; i < b->kept_n; i++) free(b->kept[i].needs);
    b->kept_n = 0;
    map_done(&b->parts);
    map_init(&b->parts, KEYS_MAX);
    b->listed = false;
}

void bucket_free(struct bucket *b)
{
    if (b == NULL) return;
    bucket_forget(b);
    map_done(&b->parts);
    free(b->kept);
    bus_kv_close(b->kv);
    free(b);
}

/* --- what is there --- */

static struct kept *keep(struct bucket *b, uint64_t revision)
{
    for (size_t i = 0; i < b->kept_n; i++)
        if (b->kept[i].revision == revision) return &b->kept[i];
    if (b->kept_n == b->kept_cap) {
        b->kept_cap = b->kept_cap == 0 ? 128 : b->kept_cap * 2;
        b->kept = xrealloc(b->kept, b->kept_cap * sizeof(*b->kept));
    }
    b->kept[b->kept_n] = (struct kept){ .revision = revision };
    return &b->kept[b->kept_n++];
}

static void on_key(void *ctx, struct str key)
{
    struct bucket *b = ctx;
    uint64_t revision;
    if (str_starts(key, STR("part.")) && key.n == 5 + 64) {
        (void)!map_put(&b->parts, str_n(key.p + 5, 64), b, NULL); /* full: it is put again */
    } else if (str_starts(key, STR("manifest.")) &&
               str_to_u64(str_n(key.p + 9, key.n - 9), &revision) == ERR_OK) {
        (void)keep(b, revision);
    }
}

static enum err open_bucket(struct bucket *b, struct why *why)
{
    char name[SUBJECT_LEN];
    if (b->kv == NULL) {
        subject_store(bus_prefix(b->bus), STORE_BUCKET_CONFIG, name);
        enum err e = bus_kv_open(b->bus, name, true, &b->kv, why);
        if (e != ERR_OK) return e;
    }
    if (b->listed) return ERR_OK;
    bucket_forget(b);
    enum err e = bus_kv_keys(b->kv, on_key, b);
    if (e != ERR_OK) {
        /* The bucket may be gone altogether: made anew at the next try. */
        bus_kv_close(b->kv);
        b->kv = NULL;
        return why_set(why, e, "the bucket's keys could not be listed");
    }
    b->listed = true;
    return ERR_OK;
}

/* revision and digest of `latest`; *ret_at its place for compare-and-set. ERR_NOT_FOUND. */
static enum err read_latest(struct bucket *b, uint64_t *ret_at, struct manifest *ret)
{
    struct buf text;
    buf_init(&text, MESSAGE_MAX_BYTES);
    enum err e = bus_kv_get(b->kv, "latest", &text, ret_at);
    /* One that cannot be read is as good as none, but it has a place. */
    if (e == ERR_OK && manifest_parse(buf_str(&text), ret, NULL) != ERR_OK)
        *ret = (struct manifest){ 0 };
    buf_done(&text);
    return e;
}

bool bucket_holds(struct bucket *b, uint64_t revision, const char *digest)
{
    struct manifest m = { 0 };
    uint64_t at;
    if (b->kv == NULL) return false;
    enum err e = read_latest(b, &at, &m);
    bool same = m.revision == revision && strcmp(m.digest, digest) == 0;
    manifest_done(&m);
    return e == ERR_OK ? same : e != ERR_NOT_FOUND;
}

/* --- tidying up --- */

static void need_add(struct kept *k, const char *digest)
{
    k->needs = xrealloc(k->needs, (k->needs_n + 1) * sizeof(*k->needs));
    memcpy(k->needs[k->needs_n++].hex, digest, sizeof(k->needs->hex));
}

/* Finds out what a manifest of an earlier process needs. */
static enum err learn_needs(struct bucket *b, struct kept *k)
{
    char key[96];
    struct manifest m = { 0 };
    struct buf text;
    struct kept learnt = { .revision = k->revision, .needs = xcalloc(1, sizeof(*k->needs)) };
    buf_init(&text, MESSAGE_MAX_BYTES);
    (void)snprintf(key, sizeof(key), "manifest.%llu", (unsigned long long)k->revision);
    enum err e = bus_kv_get(b->kv, key, &text, NULL);
    if (e == ERR_OK) e = manifest_parse(buf_str(&text), &m, NULL);
    for (size_t i = 0; i < m.pages_n && e == ERR_OK; i++) {
        struct snap_digest *parts = NULL;
        size_t n = 0;
        (void)snprintf(key, sizeof(key), "part.%s", m.pages[i].hex);
        buf_clear(&text);
        e = bus_kv_get(b->kv, key, &text, NULL);
        if (e == ERR_OK) e = page_parse(buf_str(&text), &parts, &n, NULL);
        need_add(&learnt, m.pages[i].hex);
        for (size_t j = 0; j < n && e == ERR_OK; j++) need_add(&learnt, parts[j].hex);
        free(parts);
    }
    manifest_done(&m);
    buf_done(&text);
    /* A broken one needs what could be found; only a bus that is away is a reason to wait. */
    if (e == ERR_UNAVAILABLE || e == ERR_TIMEOUT) {
        free(learnt.needs);
        return e;
    }
    *k = learnt;
    return ERR_OK;
}

static int newest_first(const void *a, const void *b)
{
    uint64_t x = ((const struct kept *)a)->revision, y = ((const struct kept *)b)->revision;
    return (x < y) - (x > y);
}

/* Removes the manifests beyond SNAPSHOT_KEEP (the newest, and never `current`), then the parts that
 * none of the others needs. What fails is tried again at the next revision. */
static void tidy(struct bucket *b, uint64_t current)
{
    struct map needed;
    char key[96];
    size_t stay = 0, i = 0;
    struct map_entry *entry;
    if (b->kept_n <= SNAPSHOT_KEEP + SLACK) return;
    qsort(b->kept, b->kept_n, sizeof(*b->kept), newest_first);
    /* Revisions above ours are of a history that is over. */
    map_init(&needed, KEYS_MAX);
    for (size_t k = 0; k < b->kept_n; k++) {
        struct kept *it = &b->kept[k];
        bool old = it->revision > current || stay >= SNAPSHOT_KEEP;
        if (!old) {
            if (it->needs == NULL && learn_needs(b, it) != ERR_OK) goto out;
            for (size_t n = 0; n < it->needs_n; n++)
                if (map_put(&needed, str_of(it->needs[n].hex), b, NULL) != ERR_OK) goto out;
            b->kept[stay++] = *it;
            if (k != stay - 1) it->needs = NULL;
            continue;
        }
        (void)snprintf(key, sizeof(key), "manifest.%llu", (unsigned long long)it->revision);
        if (bus_kv_delete(b->kv, key) != ERR_OK) goto out;
        free(it->needs);
        it->needs = NULL;
    }
    b->kept_n = stay;
    while ((entry = map_next(&b->parts, &i)) != NULL) {
        if (map_get(&needed, entry->key) != NULL) continue;
        (void)snprintf(key, sizeof(key), "part.%.64s", entry->key.p);
        if (bus_kv_delete(b->kv, key) != ERR_OK) break;
        (void)map_remove(&b->parts, entry->key);
    }
    map_done(&needed);
    return;
out:
    map_done(&needed);
    bucket_forget(b); /* half done: list again */
}

/* --- putting --- */

static enum err put_blobs(struct bucket *b, const struct built *built, uint64_t *moved)
{
    char key[96];
    for (size_t i = 0; i < built->blobs_n; i++) {
        const struct blob *blob = &built->blobs[i];
        if (map_get(&b->parts, str_of(blob->digest)) != NULL) continue;
        (void)snprintf(key, sizeof(key), "part.%s", blob->digest);
        enum err e = bus_kv_put(b->kv, key, blob->text);
        if (e != ERR_OK) return e;
        (*moved)++;
        e = map_put(&b->parts, str_of(blob->digest), b, NULL);
        if (e != ERR_OK) return e;
    }
    return ERR_OK;
}

/* A store that is still empty does not wipe out what the bus holds. */
static enum err check_empty(struct bucket *b, struct why *why)
{
    struct manifest m = { 0 };
    uint64_t at;
    enum err e = read_latest(b, &at, &m);
    uint64_t theirs = m.revision;
    manifest_done(&m);
    if (e == ERR_NOT_FOUND || (e == ERR_OK && theirs == 0)) return ERR_OK;
    if (e != ERR_OK) return e;
    return why_set(why, ERR_CONFLICT,
                   "the store is empty and the bus holds revision %llu, which stays until "
                   "something is written here",
                   (unsigned long long)theirs);
}

static enum err set_latest(struct bucket *b, const struct built *built)
{
    enum err e = ERR_CONFLICT;
    for (int i = 0; i < TRIES && e == ERR_CONFLICT; i++) {
        struct manifest m = { 0 };
        uint64_t at = 0, now;
        e = read_latest(b, &at, &m);
        if (e == ERR_NOT_FOUND) e = ERR_OK;
        bool same = m.revision == built->revision && strcmp(m.digest, built->digest) == 0;
        manifest_done(&m);
        if (e != ERR_OK || same) return e;
        e = bus_kv_update(b->kv, "latest", built->manifest, at, &now);
    }
    return e;
}

enum err bucket_put(struct bucket *b, const struct built *built, uint64_t *ret_moved,
                    struct why *why)
{
    char key[96];
    uint64_t moved = 0;
    enum err e = open_bucket(b, why);
    if (e == ERR_OK && built->revision == 0) e = check_empty(b, why);
    if (e != ERR_OK) return e;
    e = put_blobs(b, built, &moved);
    (void)snprintf(key, sizeof(key), "manifest.%llu", (unsigned long long)built->revision);
    if (e == ERR_OK) e = bus_kv_put(b->kv, key, built->manifest);
    if (e == ERR_OK) e = set_latest(b, built);
    if (e != ERR_OK) {
        if (why != NULL && why->text[0] == '\0')
            (void)why_set(why, e, "writing to the bucket: %s", err_name(e));
        bucket_forget(b);
        return e;
    }
    struct kept *k = keep(b, built->revision);
    free(k->needs);
    k->needs = NULL;
    k->needs_n = 0;
    for (size_t i = 0; i < built->blobs_n; i++) need_add(k, built->blobs[i].digest);
    tidy(b, built->revision);
    *ret_moved = moved;
    return ERR_OK;
}
