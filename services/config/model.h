/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What clients send becomes what is stored: references as ids, secrets sealed, defaults filled in,
 * every rule checked. And back: what is stored becomes what may be shown. The handler's thread.
 */
#ifndef CONFIG_MODEL_H
#define CONFIG_MODEL_H

#include "store.h"

/* Every violation, with the JSON pointer of its place in the request's body. */
struct problems {
    struct json *list; /* [{"pointer","message"},…], owned */
    size_t n;
    struct buf prefix; /* before the pointers that are added */
};
void problems_init(struct problems *p);
void problems_done(struct problems *p);
void problem_add(struct problems *p, const char *pointer, const char *fmt, ...) PRINTF_LIKE(3, 4);

struct secrets {
    bool has_master_key, has_pepper;
    unsigned char master_key[32], pepper[32];
};

enum { SECRET_MAX = 256 };

/* What is to be stored. */
struct entity {
    struct row row;                  /* body and the rest, in the transaction's arena */
    char new_secret[SECRET_MAX + 1]; /* of a key: to be shown once, when we made it; else "" */
};

/* Checks `input` and fills *ret. existing: what it replaces, or NULL for a new one. Violations go
 * to `problems`, then ERR_INVALID; other errors come from the store. */
enum err model_prepare(struct tx *t, const struct secrets *secrets, enum kind k,
                       const struct json *input, const struct row *existing,
                       struct problems *problems, struct entity *ret, struct why *why) MUSTCHECK;

/* The row as clients see it: no secrets, with revision and times. Owned by the caller. */
struct json *model_view(const struct row *r);
/* The row as a document holds it: references as slugs, nothing that the server sets but (with_ids)
 * the ids. */
enum err model_export(struct db *d, const struct row *r, bool with_ids, struct arena *a,
                      struct json **ret, struct why *why) MUSTCHECK;
/* A stored body without its secrets. */
struct json *model_redact(enum kind k, struct str body);

/* A new object: base with patch merged into it (RFC 7396). */
struct json *model_merge(const struct json *base, const struct json *patch);

/* An id or a slug to an id. parent as in store_find(). ERR_NOT_FOUND. */
enum err model_resolve(struct db *d, enum kind k, struct str parent, struct str text,
                       struct arena *a, struct str *ret_id, struct why *why) MUSTCHECK;

#endif
