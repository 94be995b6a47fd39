/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Builds a snapshot from its parts: parse all, count, decode what others refer to first, sort each
 * kind. Any thread; a finished snapshot is immutable.
 */
#include "proto/snapshot.h"

#include <stdio.h>
#include <stdlib.h>

#include "proto/snapshot_decode.h"

enum kind {
    KIND_NAMESPACES,
    KIND_UPSTREAMS, /* those above are referred to by those below */
    KIND_MATCHERS,
    KIND_POLICIES,
    KIND_ROUTES,
    KIND_MODELS,
    KIND_KEYS,
    KIND_ISSUERS,
    KIND_MAX
};

static const char *const kind_names[KIND_MAX] = {
    [KIND_NAMESPACES] = "namespaces",
    [KIND_UPSTREAMS] = "upstreams",
    [KIND_MATCHERS] = "matchers",
    [KIND_POLICIES] = "policies",
    [KIND_ROUTES] = "routes",
    [KIND_MODELS] = "models",
    [KIND_KEYS] = "keys",
    [KIND_ISSUERS] = "issuers",
};
static const size_t kind_sizes[KIND_MAX] = {
    [KIND_NAMESPACES] = sizeof(struct snap_namespace),
    [KIND_UPSTREAMS] = sizeof(struct snap_upstream),
    [KIND_MATCHERS] = sizeof(struct snap_matcher),
    [KIND_POLICIES] = sizeof(struct snap_policy),
    [KIND_ROUTES] = sizeof(struct snap_route),
    [KIND_MODELS] = sizeof(struct snap_model),
    [KIND_KEYS] = sizeof(struct snap_key),
    [KIND_ISSUERS] = sizeof(struct snap_issuer),
};

/* KIND_MAX: one that we do not know. */
static enum kind kind_of(struct str name)
{
    int k = 0;
    while (k < KIND_MAX && !str_eqz(name, kind_names[k])) k++;
    return (enum kind)k;
}

static void decode(enum kind kind, struct snap_decoder *d, const struct json *o, void *out)
{
    if (!json_is(o, JSON_OBJECT)) {
        dec_problem(d, "must be an object");
        return;
    }
    switch (kind) {
    case KIND_NAMESPACES: snap_decode_namespace(d, o, out); break;
    case KIND_UPSTREAMS: snap_decode_upstream(d, o, out); break;
    case KIND_MATCHERS: snap_decode_matcher(d, o, out); break;
    case KIND_POLICIES: snap_decode_policy(d, o, out); break;
    case KIND_ROUTES: snap_decode_route(d, o, out); break;
    case KIND_MODELS: snap_decode_model(d, o, out); break;
    case KIND_KEYS: snap_decode_key(d, o, out); break;
    case KIND_ISSUERS: snap_decode_issuer(d, o, out); break;
    case KIND_MAX: break;
    }
}

/* Every kind begins with its id. */
static struct str id_at(const void *array, size_t size, size_t i)
{
    struct str id;
    memcpy(&id, (const char *)array + i * size, sizeof(id));
    return id;
}

/* --- order --- */

static int by_number(int64_t a, int64_t b)
{
    return (a < b) - (a > b); /* the higher first */
}

static int by_id(const void *a, const void *b)
{
    return str_cmp(id_at(a, 0, 0), id_at(b, 0, 0));
}

static int by_slug(const void *a, const void *b)
{
    return str_cmp(((const struct snap_model *)a)->slug, ((const struct snap_model *)b)->slug);
}

static int compare_matchers(const void *a, const void *b)
{
    const struct snap_matcher *x = a, *y = b;
    int c = by_number(x->priority, y->priority);
    return c != 0 ? c : by_id(a, b);
}

static int compare_policies(const void *a, const void *b)
{
    const struct snap_policy *x = a, *y = b;
    int c = by_number(x->priority, y->priority);
    return c != 0 ? c : by_id(a, b);
}

static int compare_routes(const void *a, const void *b)
{
    const struct snap_route *x = a, *y = b;
    int c = by_number(x->priority, y->priority);
    if (c == 0) c = (int)x->path_kind - (int)y->path_kind;
    if (c == 0) c = (x->path.n < y->path.n) - (x->path.n > y->path.n);
    return c != 0 ? c : by_id(a, b);
}

static int compare_keys(const void *a, const void *b)
{
    return memcmp(((const struct snap_key *)a)->hmac, ((const struct snap_key *)b)->hmac,
                  SNAP_HMAC_LEN);
}

static int (*const orders[KIND_MAX])(const void *, const void *) = {
    [KIND_NAMESPACES] = by_id,          [KIND_UPSTREAMS] = by_id,
    [KIND_MATCHERS] = compare_matchers, [KIND_POLICIES] = compare_policies,
    [KIND_ROUTES] = compare_routes,     [KIND_MODELS] = by_slug,
    [KIND_KEYS] = compare_keys,         [KIND_ISSUERS] = by_id,
};

/* --- building --- */

struct build {
    struct snapshot *s;
    struct json **docs; /* the parts, parsed */
    size_t docs_n;
    size_t counts[KIND_MAX];
    void *arrays[KIND_MAX];
    struct map by_id[KIND_MAX];
    struct why *why;
    const char *kind; /* of what is being decoded, for the message */
    struct str slug;
};

static void first_problem(void *ctx, const char *pointer, const char *message)
{
    struct build *b = ctx;
    if (b->why != NULL && b->why->text[0] == '\0')
        (void)why_set(b->why, ERR_INVALID, "%s \"%.*s\": %s: %s", b->kind, (int)MIN(b->slug.n, 64),
                      b->slug.p != NULL ? b->slug.p : "", pointer, message);
}

static enum err parse_parts(struct build *b, const struct str *parts, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct why inner = { "" };
        enum err e = json_parse(parts[i], PART_MAX_BYTES, &b->docs[i], &inner);
        if (e == ERR_NOMEM) return e;
        if (e != ERR_OK) return why_set(b->why, ERR_INVALID, "part %zu: %s", i, inner.text);
        b->docs_n = i + 1;
        struct str kind = json_str(json_get(b->docs[i], "kind"));
        const struct json *items = json_get(b->docs[i], "items");
        if (kind.p == NULL || !json_is(items, JSON_ARRAY))
            return why_set(b->why, ERR_INVALID, "part %zu has no \"kind\" or no \"items\"", i);
        /* Kinds of a later minor version are skipped; one that must not be raises min_reader. */
        if (kind_of(kind) != KIND_MAX) b->counts[kind_of(kind)] += json_len(items);
    }
    return ERR_OK;
}

static enum err decode_kind(struct build *b, enum kind kind)
{
    size_t n = b->counts[kind], size = kind_sizes[kind], done = 0;
    struct snap_decoder d = { .arena = &b->s->arena,
                              .resolve = true,
                              .namespaces = &b->by_id[KIND_NAMESPACES],
                              .upstreams = &b->by_id[KIND_UPSTREAMS],
                              .fn = first_problem,
                              .ctx = b };
    if (n == 0) return ERR_OK;
    char *array = dec_alloc(&d, n, size);
    if (array == NULL) return ERR_NOMEM;
    b->kind = kind_names[kind];
    for (size_t i = 0; i < b->docs_n; i++) {
        if (kind_of(json_str(json_get(b->docs[i], "kind"))) != kind) continue;
        const struct json *it = json_first(json_get(b->docs[i], "items"));
        for (; it != NULL; it = json_next(it)) {
            b->slug = json_str(json_get(it, "slug"));
            decode(kind, &d, it, array + done++ * size);
            if (d.out_of_memory) return ERR_NOMEM;
            if (d.problems > 0) return ERR_INVALID;
        }
    }
    qsort(array, n, size, orders[kind]);
    for (size_t i = 0; i < n; i++) {
        void *old = NULL;
        struct str id = id_at(array, size, i);
        enum err e = map_put(&b->by_id[kind], id, array + i * size, &old);
        if (e != ERR_OK) return e;
        if (old != NULL)
            return why_set(b->why, ERR_INVALID, "%s: the id %.*s occurs twice", kind_names[kind],
                           STR_ARG(id));
    }
    b->arrays[kind] = array;
    return ERR_OK;
}

static enum err check_whole(struct build *b)
{
    struct snapshot *s = b->s;
    for (size_t i = 1; i < s->keys_n; i++)
        if (compare_keys(&s->keys[i - 1], &s->keys[i]) == 0)
            return why_set(b->why, ERR_INVALID, "keys \"%.*s\" and \"%.*s\" have the same secret",
                           STR_ARG(s->keys[i - 1].slug), STR_ARG(s->keys[i].slug));
    return ERR_OK;
}

static struct snapshot *snapshot_new(uint64_t revision, const char *digest, size_t bytes)
{
    struct snapshot *s = calloc(1, sizeof(*s));
    if (s == NULL) return NULL;
    s->revision = revision;
    (void)str_copyz(s->digest, sizeof(s->digest), str_of(digest));
    /* Decoded entities are a few times their text; the bound is against bugs, not for speed. */
    arena_init(&s->arena, 1024 * 1024 + bytes * 64);
    atomic_init(&s->refs, 1);
    return s;
}

enum err snapshot_build(uint64_t revision, const char *digest, const struct str *parts, size_t n,
                        struct snapshot **ret, struct why *why)
{
    enum err e = ERR_NOMEM;
    size_t bytes = 0;
    for (size_t i = 0; i < n; i++) bytes += parts[i].n;
    struct build b = { .why = why };
    if (why != NULL) why->text[0] = '\0';
    for (int k = 0; k < KIND_MAX; k++) map_init(&b.by_id[k], SIZE_MAX / 2);
    b.docs = calloc(n + 1, sizeof(struct json *));
    b.s = snapshot_new(revision, digest, bytes);
    if (b.docs == NULL || b.s == NULL) goto out;
    e = parse_parts(&b, parts, n);
    for (int k = 0; k < KIND_MAX && e == ERR_OK; k++) e = decode_kind(&b, (enum kind)k);
    if (e != ERR_OK) goto out;
    for (size_t i = 0; i < b.counts[KIND_UPSTREAMS]; i++)
        ((struct snap_upstream *)b.arrays[KIND_UPSTREAMS])[i].index = i;
#define TAKE(member, kind) (b.s->member = b.arrays[kind], b.s->member##_n = b.counts[kind])
    TAKE(namespaces, KIND_NAMESPACES);
    TAKE(upstreams, KIND_UPSTREAMS);
    TAKE(matchers, KIND_MATCHERS);
    TAKE(policies, KIND_POLICIES);
    TAKE(routes, KIND_ROUTES);
    TAKE(models, KIND_MODELS);
    TAKE(keys, KIND_KEYS);
    TAKE(issuers, KIND_ISSUERS);
#undef TAKE
    e = check_whole(&b);
    if (e != ERR_OK) goto out;
    *ret = b.s;
    b.s = NULL;
out:
    for (size_t i = 0; b.docs != NULL && i < b.docs_n; i++) json_free(b.docs[i]);
    free(b.docs);
    for (int k = 0; k < KIND_MAX; k++) map_done(&b.by_id[k]);
    snapshot_unref(b.s);
    return e;
}

struct snapshot *snapshot_ref(struct snapshot *s)
{
    atomic_fetch_add_explicit(&s->refs, 1, memory_order_relaxed);
    return s;
}

void snapshot_unref(struct snapshot *s)
{
    if (s == NULL || atomic_fetch_sub_explicit(&s->refs, 1, memory_order_acq_rel) != 1) return;
    arena_done(&s->arena);
    free(s);
}

void snapshot_check_entity(const char *kind, const struct json *entity, snap_problem_fn fn,
                           void *ctx)
{
    union {
        struct snap_namespace ns;
        struct snap_upstream upstream;
        struct snap_matcher matcher;
        struct snap_policy policy;
        struct snap_route route;
        struct snap_model model;
        struct snap_key key;
        struct snap_issuer issuer;
    } out;
    struct arena arena;
    enum kind k = kind_of(str_of(kind));
    ASSERT(k != KIND_MAX);
    memset(&out, 0, sizeof(out));
    arena_init(&arena, 16 * 1024 * 1024);
    struct snap_decoder d = { .arena = &arena, .strict = true, .fn = fn, .ctx = ctx };
    decode(k, &d, entity, &out);
    if (d.out_of_memory) fn(ctx, "", "is too large");
    arena_done(&arena);
}
