/* SPDX-License-Identifier: Apache-2.0 */
/* Buckets of the fake; included by bus_fake.c. */

struct fake_entry {
    struct list_node node;
    char key[FAKE_SUBJECT];
    uint64_t revision;
    bool deleted;
    struct buf value;
};

struct fake_bucket {
    struct list_node node, entries;
    char name[FAKE_SUBJECT];
    uint64_t revision;
};

static void fake_buckets_free(struct bus_fake *f)
{
    struct list_node *n, *k;
    while ((n = list_pop_front(&f->buckets)) != NULL) {
        struct fake_bucket *b = LIST_ENTRY(n, struct fake_bucket, node);
        while ((k = list_pop_front(&b->entries)) != NULL) {
            struct fake_entry *e = LIST_ENTRY(k, struct fake_entry, node);
            buf_done(&e->value);
            free(e);
        }
        free(b);
    }
}

struct bus_kv {
    struct bus *bus;
    struct fake_bucket *bucket;
};

enum err bus_kv_open(struct bus *b, const char *bucket, bool create, struct bus_kv **ret,
                     struct why *why)
{
    struct fake_bucket *found = NULL;
    enum err e = ERR_OK;
    pthread_mutex_lock(&b->server->lock);
    LIST_EACH(n, &b->server->buckets)
    {
        struct fake_bucket *k = LIST_ENTRY(n, struct fake_bucket, node);
        if (str_eqz(str_of(bucket), k->name)) found = k;
    }
    if (b->server->away) {
        e = why_set(why, ERR_UNAVAILABLE, "away");
    } else if (found == NULL && !create) {
        e = why_set(why, ERR_NOT_FOUND, "no bucket %s", bucket);
    } else {
        if (found == NULL) {
            found = xcalloc(1, sizeof *found);
            list_init(&found->entries);
            fake_copy(found->name, str_of(bucket));
            list_push_back(&b->server->buckets, &found->node);
        }
        struct bus_kv *kv = xcalloc(1, sizeof *kv);
        kv->bus = b;
        kv->bucket = found;
        *ret = kv;
    }
    pthread_mutex_unlock(&b->server->lock);
    return e;
}

void bus_kv_close(struct bus_kv *kv)
{
    free(kv);
}

static struct fake_entry *fake_entry_find(struct bus_kv *kv, const char *key)
{
    LIST_EACH(n, &kv->bucket->entries)
    {
        struct fake_entry *e = LIST_ENTRY(n, struct fake_entry, node);
        if (str_eqz(str_of(key), e->key)) return e;
    }
    return NULL;
}

enum err bus_kv_get(struct bus_kv *kv, const char *key, struct buf *ret, uint64_t *ret_revision)
{
    pthread_mutex_lock(&kv->bus->server->lock);
    struct fake_entry *x = fake_entry_find(kv, key);
    enum err e = kv->bus->server->away     ? ERR_UNAVAILABLE
                 : x == NULL || x->deleted ? ERR_NOT_FOUND
                                           : buf_append_str(ret, buf_str(&x->value));
    if (e == ERR_OK && ret_revision != NULL) *ret_revision = x->revision;
    pthread_mutex_unlock(&kv->bus->server->lock);
    return e;
}

/* expected: NULL for whatever it is. */
static enum err fake_write(struct bus_kv *kv, const char *key, struct str value, bool deleted,
                           const uint64_t *expected, uint64_t *ret_revision)
{
    enum err e = ERR_OK;
    if (!fake_is_subject(key, false)) return ERR_INVALID;
    if (value.n > FAKE_MAX_PAYLOAD) return ERR_LIMIT;
    pthread_mutex_lock(&kv->bus->server->lock);
    struct fake_entry *x = fake_entry_find(kv, key);
    uint64_t have = x == NULL || x->deleted ? 0 : x->revision;
    if (kv->bus->server->away) {
        e = ERR_UNAVAILABLE;
    } else if (expected != NULL && *expected != have) {
        e = ERR_CONFLICT;
    } else {
        if (x == NULL) {
            x = xcalloc(1, sizeof *x);
            fake_copy(x->key, str_of(key));
            list_push_back(&kv->bucket->entries, &x->node);
        } else {
            buf_done(&x->value);
        }
        fake_fill(&x->value, value);
        x->deleted = deleted;
        x->revision = ++kv->bucket->revision;
        if (ret_revision != NULL) *ret_revision = x->revision;
    }
    pthread_mutex_unlock(&kv->bus->server->lock);
    return e;
}

enum err bus_kv_put(struct bus_kv *kv, const char *key, struct str value)
{
    return fake_write(kv, key, value, false, NULL, NULL);
}

enum err bus_kv_update(struct bus_kv *kv, const char *key, struct str value, uint64_t expected,
                       uint64_t *ret_revision)
{
    return fake_write(kv, key, value, false, &expected, ret_revision);
}

enum err bus_kv_delete(struct bus_kv *kv, const char *key)
{
    return fake_write(kv, key, STR(""), true, NULL, NULL);
}

enum err bus_kv_keys(struct bus_kv *kv, void (*fn)(void *ctx, struct str key), void *ctx)
{
    pthread_mutex_lock(&kv->bus->server->lock);
    enum err e = kv->bus->server->away ? ERR_UNAVAILABLE : ERR_OK;
    if (e == ERR_OK) LIST_EACH(n, &kv->bucket->entries)
        {
            struct fake_entry *x = LIST_ENTRY(n, struct fake_entry, node);
            if (!x->deleted) fn(ctx, str_of(x->key));
        }
    pthread_mutex_unlock(&kv->bus->server->lock);
    return e;
}
