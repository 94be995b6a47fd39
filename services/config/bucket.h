/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bucket of the configuration: "part.<digest>", "manifest.<revision>", "latest". Puts what is
 * missing, and removes what the newest SNAPSHOT_KEEP manifests do not need. The push thread.
 */
#ifndef CONFIG_BUCKET_H
#define CONFIG_BUCKET_H

#include "build.h"
#include "rt/bus.h"

struct bucket;

struct bucket *bucket_new(struct bus *bus);
void bucket_free(struct bucket *b);
/* What is known of its content is in doubt: it is listed again before the next put. */
void bucket_forget(struct bucket *b);

/* Puts parts, pages, the manifest, then `latest`. *ret_moved: texts that were missing. A `latest`
 * that is ahead of us belongs to another history (a revision is only pushed after its commit, and
 * we have just read the newest): ours replaces it, unless ours is still empty (revision 0):
 * ERR_CONFLICT then. */
enum err bucket_put(struct bucket *b, const struct built *built, uint64_t *ret_moved,
                    struct why *why) MUSTCHECK;
/* Whether `latest` is this revision; true when that cannot be found out now. */
bool bucket_holds(struct bucket *b, uint64_t revision, const char *digest);

#endif
