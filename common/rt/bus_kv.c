/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Buckets of the key-value store: reading goes through cnats, writing is a message to the bucket's
 * stream with the headers that ADR-8 of nats-io/nats-architecture-and-design gives them, because
 * cnats does not say which refusal was a conflict. One thread at a time per handle.
 */
#include <inttypes.h>
#include <nats/nats.h>
#include <stdio.h>
#include <stdlib.h>

#include "rt/bus_impl.h"

enum { KEY_MAX = 256 };

struct bus_kv {
    struct bus *bus;
    char *bucket;
    kvStore *store; /* on the connection of that epoch */
    jsCtx *js;
    uint64_t epoch;
};

static bool name_is_valid(const char *z, const char *also, size_t max)
{
    struct str s = str_of(z);
    if (s.n == 0 || s.n > max || s.p[0] == '.' || s.p[s.n - 1] == '.') return false;
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];
        bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                     c == '-' || c == '_';
        if (!plain && (c == '\0' || strchr(also, c) == NULL)) return false;
        if (c == '.' && i > 0 && s.p[i - 1] == '.') return false;
    }
    return true;
}

static void forget(struct bus_kv *kv)
{
    kvStore_Destroy(kv->store);
    jsCtx_Destroy(kv->js);
    kv->store = NULL;
    kv->js = NULL;
}

/* Opens the bucket on the present connection, if it is not already. */
static natsStatus ready(struct bus_kv *kv, natsConnection *nc, bool create)
{
    jsOptions o;
    if (nc == NULL || natsConnection_Status(nc) != NATS_CONN_STATUS_CONNECTED)
        return NATS_CONNECTION_DISCONNECTED;
    if (kv->store != NULL && kv->epoch == kv->bus->epoch) return NATS_OK;
    forget(kv);
    natsStatus s = jsOptions_Init(&o);
    o.Wait = BUS_BLOCKING_MS;
    if (s == NATS_OK) s = natsConnection_JetStream(&kv->js, nc, &o);
    if (s == NATS_OK) s = js_KeyValue(&kv->store, kv->js, kv->bucket);
    if (s == NATS_NOT_FOUND && create) {
        kvConfig cfg;
        s = kvConfig_Init(&cfg);
        cfg.Bucket = kv->bucket;
        cfg.History = 1;
        if (s == NATS_OK) s = js_CreateKeyValue(&kv->store, kv->js, &cfg);
        /* Another one may have been faster. */
        if (s != NATS_OK && js_KeyValue(&kv->store, kv->js, kv->bucket) == NATS_OK) s = NATS_OK;
    }
    if (s == NATS_OK)
        kv->epoch = kv->bus->epoch;
    else
        forget(kv);
    return s;
}

enum err bus_kv_open(struct bus *b, const char *bucket, bool create, struct bus_kv **ret,
                     struct why *why)
{
    if (!name_is_valid(bucket, "", 128)) return why_set(why, ERR_INVALID, "not a bucket's name");
    struct bus_kv *kv = xcalloc(1, sizeof *kv);
    kv->bus = b;
    kv->bucket = xstrdup(bucket);
    natsConnection *nc = bus_nc_get(b);
    natsStatus s = ready(kv, nc, create);
    enum err e = s == NATS_OK ? ERR_OK : bus_why(why, s, bucket);
    bus_nc_put(b);
    if (e == ERR_OK)
        *ret = kv;
    else
        bus_kv_close(kv);
    return e;
}

void bus_kv_close(struct bus_kv *kv)
{
    if (kv == NULL) return;
    forget(kv);
    free(kv->bucket);
    free(kv);
}

/* --- reading */

enum err bus_kv_get(struct bus_kv *kv, const char *key, struct buf *ret, uint64_t *ret_revision)
{
    kvEntry *entry = NULL;
    enum err e;
    if (!name_is_valid(key, "/=.", KEY_MAX)) return ERR_INVALID;
    natsConnection *nc = bus_nc_get(kv->bus);
    natsStatus s = ready(kv, nc, false);
    if (s == NATS_OK) s = kvStore_Get(&entry, kv->store, key);
    bus_nc_put(kv->bus);
    e = bus_err(s);
    if (e != ERR_OK) return e;
    e = buf_append(ret, kvEntry_Value(entry), (size_t)kvEntry_ValueLen(entry));
    if (e == ERR_OK && ret_revision != NULL) *ret_revision = kvEntry_Revision(entry);
    kvEntry_Destroy(entry);
    return e;
}

enum err bus_kv_keys(struct bus_kv *kv, void (*fn)(void *ctx, struct str key), void *ctx)
{
    kvKeysList list = { 0 };
    kvWatchOptions o;
    natsConnection *nc = bus_nc_get(kv->bus);
    natsStatus s = ready(kv, nc, false);
    if (s == NATS_OK) s = kvWatchOptions_Init(&o);
    if (s == NATS_OK) {
        o.Timeout = BUS_BLOCKING_MS;
        s = kvStore_Keys(&list, kv->store, &o);
    }
    bus_nc_put(kv->bus);
    if (s != NATS_OK) return s == NATS_NOT_FOUND ? ERR_OK : bus_err(s);
    for (int i = 0; i < list.Count; i++) fn(ctx, str_of(list.Keys[i]));
    kvKeysList_Destroy(&list);
    return ERR_OK;
}

/* --- writing */

static enum err write_entry(struct bus_kv *kv, const char *key, const char *const *headers,
                            struct str value, uint64_t *ret_revision)
{
    char subject[KEY_MAX + 160];
    if (!name_is_valid(key, "/=.", KEY_MAX)) return ERR_INVALID;
    snprintf(subject, sizeof subject, "$KV.%s.%s", kv->bucket, key);
    return bus_js_publish_wait(kv->bus, subject, headers, value, BUS_BLOCKING_MS, ret_revision);
}

enum err bus_kv_put(struct bus_kv *kv, const char *key, struct str value)
{
    return write_entry(kv, key, NULL, value, NULL);
}

static enum err write_at(struct bus_kv *kv, const char *key, struct str value, uint64_t expected,
                         uint64_t *ret_revision)
{
    char revision[24];
    snprintf(revision, sizeof revision, "%" PRIu64, expected);
    const char *const headers[] = { "Nats-Expected-Last-Subject-Sequence", revision, NULL };
    return write_entry(kv, key, headers, value, ret_revision);
}

/* Where a key that is deleted stands: the revision of the mark that says so. Asks for the message
 * itself: a watch, which the history would take, needs rights that not every service has. */
static enum err deleted_at(struct bus_kv *kv, const char *key, uint64_t *ret_revision)
{
    char stream[160], subject[KEY_MAX + 160];
    natsMsg *last = NULL;
    const char *op;
    enum err e = ERR_CONFLICT;
    snprintf(stream, sizeof stream, "KV_%s", kv->bucket);
    snprintf(subject, sizeof subject, "$KV.%s.%s", kv->bucket, key);
    natsConnection *nc = bus_nc_get(kv->bus);
    natsStatus s = ready(kv, nc, false);
    if (s == NATS_OK) s = js_GetLastMsg(&last, kv->js, stream, subject, NULL, NULL);
    bus_nc_put(kv->bus);
    if (s != NATS_OK) return s == NATS_NOT_FOUND ? ERR_CONFLICT : bus_err(s);
    if (natsMsgHeader_Get(last, "KV-Operation", &op) == NATS_OK &&
        (strcmp(op, "DEL") == 0 || strcmp(op, "PURGE") == 0)) {
        *ret_revision = natsMsg_GetSequence(last);
        e = ERR_OK;
    }
    natsMsg_Destroy(last);
    return e;
}

enum err bus_kv_update(struct bus_kv *kv, const char *key, struct str value, uint64_t expected,
                       uint64_t *ret_revision)
{
    uint64_t revision = 0;
    enum err e = write_at(kv, key, value, expected, &revision);
    if (e == ERR_CONFLICT && expected == 0) {
        uint64_t mark = 0;
        e = deleted_at(kv, key, &mark);
        if (e == ERR_OK) e = write_at(kv, key, value, mark, &revision);
    }
    if (e == ERR_OK && ret_revision != NULL) *ret_revision = revision;
    return e;
}

enum err bus_kv_delete(struct bus_kv *kv, const char *key)
{
    static const char *const headers[] = { "KV-Operation", "PURGE", "Nats-Rollup", "sub", NULL };
    return write_entry(kv, key, headers, STR_NULL, NULL);
}
