/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The texts of a snapshot's pages and parts by digest, in memory and in a folder:
 *
 *      <folder>/manifest.json        the last good manifest
 *      <folder>/<digest>.json        its pages and parts
 *
 * A text is only taken when its SHA-256 is its name, wherever it comes from. One thread: the
 * follower's.
 */
#ifndef CONFIG_PARTS_H
#define CONFIG_PARTS_H

#include "base/buf.h"
#include "base/map.h"
#include "proto/snapshot.h"

struct parts {
    struct map by_digest;
    unsigned round; /* raised by parts_begin() */
};

void parts_init(struct parts *p);
void parts_done(struct parts *p);

/* A new set is being put together: what is looked up or added from now on belongs to it. */
void parts_begin(struct parts *p);
/* The text, borrowed until the next parts_keep() or parts_drop(); p == NULL when it is not here. */
struct str parts_get(struct parts *p, const char *digest);
/* Takes a copy. ERR_INVALID when the digest is not the text's. */
enum err parts_add(struct parts *p, const char *digest, struct str text) MUSTCHECK;
/* The set is in use now: all other texts go. */
void parts_keep(struct parts *p);
/* The set was refused: what is not in use goes. */
void parts_drop(struct parts *p);

/* Writes what the folder lacks of the set in use, then the manifest, each by rename and with fsync,
 * then removes what is not in the set. Makes the folder (not its parents). */
enum err parts_save(struct parts *p, const char *folder, struct str manifest,
                    struct why *why) MUSTCHECK;
/* The manifest of the folder, appended to *ret. ERR_NOT_FOUND when there is none. */
enum err parts_read_manifest(const char *folder, struct buf *ret, struct why *why) MUSTCHECK;
/* Adds a text from the folder. ERR_NOT_FOUND, ERR_INVALID (its digest is not its name). */
enum err parts_load(struct parts *p, const char *folder, const char *digest,
                    struct why *why) MUSTCHECK;

#endif
