/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From rows to a snapshot on the bus: parts, pages and manifest (proto/snapshot.h). Deterministic:
 * the same rows and the same revision give the same bytes, whichever instance builds them.
 */
#ifndef CONFIG_BUILD_H
#define CONFIG_BUILD_H

#include <stdatomic.h>

#include "proto/snapshot.h"
#include "store.h"

/* Parts are spread when they grow past this, so that a change moves little. */
enum { PART_TARGET_BYTES = 64 * 1024, PAGE_ENTRIES = 1000 };

struct blob {
    char digest[65];
    struct str text;
    bool is_page;
};

/* One revision, ready to be pushed. Immutable and reference counted: the push thread makes it,
 * handlers of config.get read it. */
struct built {
    uint64_t revision;
    char digest[65];
    struct str manifest;
    struct blob *blobs; /* parts, then pages, sorted by digest for blob_find() */
    size_t blobs_n;
    /* private */
    struct arena arena;
    _Atomic unsigned refs;
};

/* Who made the revision: goes into the manifest's envelope. */
struct origin {
    const char *message_id, *ts, *instance;
};

/* One thing that goes into a part, in any order. */
struct item {
    const char *kind;
    struct str ns; /* "" for global */
    struct str id, body;
    uint64_t place; /* private */
};

/* ERR_LIMIT when an entity does not fit a part. Returns owned, with one reference. */
enum err build_snapshot(uint64_t revision, const struct origin *o, const struct item *items,
                        size_t n, struct built **ret, struct why *why) MUSTCHECK;
struct built *built_ref(struct built *b);
void built_unref(struct built *b); /* NULL is fine */
/* NULL when the revision has no such part or page. */
const struct blob *built_find(const struct built *b, struct str digest);

#endif
