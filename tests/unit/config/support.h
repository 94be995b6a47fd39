/* SPDX-License-Identifier: Apache-2.0 */
/* A store in a temporary folder, and changes made through the same functions as the admin API's. */
#ifndef TESTS_CONFIG_SUPPORT_H
#define TESTS_CONFIG_SUPPORT_H

#include <stdio.h>
#include <unistd.h>

#include "../../../services/config/model.h"

struct bench {
    char folder[64], url[128], lock[128];
    struct store *store;
    struct secrets secrets;
};

static inline void bench_init(struct bench *b)
{
    (void)snprintf(b->folder, sizeof(b->folder), "/tmp/aigw-config-XXXXXX");
    assert_non_null(mkdtemp(b->folder));
    (void)snprintf(b->url, sizeof(b->url), "sqlite:%s/config.db", b->folder);
    (void)snprintf(b->lock, sizeof(b->lock), "%s/config.db.lock", b->folder);
    b->secrets = (struct secrets){ .has_master_key = true, .has_pepper = true };
    memset(b->secrets.master_key, 7, 32);
    memset(b->secrets.pepper, 9, 32);
    b->store = store_new(b->url, b->lock, clock_system(), rng_system(), "test");
}

static inline void bench_open(struct bench *b)
{
    struct why why = { "" };
    if (store_open(b->store, &why) != ERR_OK) fail_msg("%s", why.text);
}

static inline void bench_done(struct bench *b)
{
    char command[128];
    store_free(b->store);
    (void)snprintf(command, sizeof(command), "rm -rf %s", b->folder);
    assert_int_equal(system(command), 0);
}

static inline struct json *parse_json(const char *text)
{
    struct json *o = NULL;
    struct why why = { "" };
    if (json_parse(str_of(text), 1 << 20, &o, &why) != ERR_OK) fail_msg("%s: %s", why.text, text);
    return o;
}

/* Creates or replaces (by slug, where it belongs) one entity in a change of its own. Violations go
 * to `problems` (owned by the caller; may be NULL: then there must be none). Returns the revision,
 * 0 when it was refused. id_out may be NULL. */
static inline uint64_t bench_put(struct bench *b, enum kind k, const char *text,
                                 struct problems *problems, char id_out[65])
{
    struct arena a;
    struct tx t;
    struct problems own;
    struct why why = { "" };
    struct row old;
    struct entity made;
    uint64_t revision = 0;
    struct str parent = STR("");
    arena_init(&a, 64 << 20);
    problems_init(&own);
    struct problems *p = problems != NULL ? problems : &own;
    struct json *o = parse_json(text);
    assert_int_equal(tx_begin(b->store, &a, &t, &why), ERR_OK);
    struct str slug = json_str(json_get(o, "slug")), ns = json_str(json_get(o, "namespace"));
    if (kind_has_namespace(k) && ns.p != NULL)
        (void)!model_resolve(t.db, KIND_NAMESPACE, STR(""), ns, &a, &parent, NULL);
    bool has = slug.p != NULL && store_find(t.db, k, parent, slug, &a, &old, &why) == ERR_OK;
    enum err e = model_prepare(&t, &b->secrets, k, o, has ? &old : NULL, p, &made, &why);
    if (e == ERR_OK) e = tx_put(&t, &made.row, &why);
    if (e == ERR_OK) {
        assert_int_equal(tx_commit(&t, "test", "put", &revision, &why), ERR_OK);
        if (id_out != NULL) (void)str_copyz(id_out, 65, made.row.id);
    } else {
        tx_rollback(&t);
        if (p->n == 0) fail_msg("%s: %s", err_name(e), why.text);
        if (problems == NULL) {
            struct buf text_of;
            buf_init(&text_of, 65536);
            (void)!json_print(own.list, &text_of);
            fail_msg("%s: %s", text, buf_z(&text_of));
        }
    }
    json_free(o);
    problems_done(&own);
    arena_done(&a);
    return revision;
}

#endif
