/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside of the spool: what spool.c (segments, and its life), spool_write.c, spool_read.c,
 * spool_keeper.c (the thread that syncs, moves and deletes) and spool_adopt.c (directories of the
 * dead) share. Nobody else includes this.
 *
 * Lock order: the keeper's lock, a writer's lock, the spool's. No system call is made under a
 * writer's lock but to make a segment when no spare is ready; none under the spool's lock.
 */
#ifndef EDGE_SPOOL_IMPL_H
#define EDGE_SPOOL_IMPL_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/list.h"
#include "base/uuid.h"
#include "spool.h"
#include "spool_segment.h"

enum {
    SPOOL_PATH_MAX = 1024,
    SPOOL_SPARES = 2, /* unless options say more */
    SPOOL_KEEP = 8    /* the same */
};

/* A directory of segments whose lock we hold: our own, or an adopted one. */
struct spool_dir {
    struct list_node in_spool;
    struct list_node segments; /* in the order of their use; under the spool's lock */
    char path[SPOOL_PATH_MAX];
    int lock_fd;
    bool adopted;
    bool kept; /* holds a file that is no segment: the directory stays, for a person to look at */
};

struct spool_segment {
    struct list_node in_dir;  /* under the spool's lock */
    struct list_node in_todo; /* of the spool: what spool_next() has not read to its end */
    struct spool_dir *dir;
    uint32_t number;
    uint64_t order; /* as in the header */
    uint64_t turn;  /* of its writer: how many segments it had used before */
    char *map;
    size_t size;
    _Atomic size_t tail;   /* written up to here; a frame below it does not move */
    _Atomic uint32_t live; /* frames that keep the segment: open, or settled and not delivered */
    uint32_t open;         /* of those: tickets. Under the writer's lock */
    _Atomic bool sealed;   /* nothing is appended any more */
    _Atomic bool read;     /* spool_next() is through; then nobody but live frames needs it */
    size_t read_at;        /* spool_next()'s own */
    size_t synced, seen;   /* on disk; tail at the keeper's last turn. Under the keeper's lock */
};

struct spool_ticket {
    struct list_node in_writer; /* oldest place first; under the writer's lock */
    struct spool_writer *writer;
    struct spool_segment *segment;
    size_t offset;
    uint64_t stamp; /* these two: of spool_mark() */
    uint16_t head_n;
};

struct spool_writer {
    pthread_mutex_t lock;
    struct spool_segment *current;
    struct list_node tickets, idle; /* in use, and for use again */
    uint64_t turns;
} __attribute__((aligned(64)));

struct spool {
    struct spool_options o;
    char root[SPOOL_PATH_MAX];
    int root_lock_fd;
    struct spool_dir own;
    struct spool_writer *writers;

    pthread_mutex_t lock;
    pthread_cond_t wake;     /* the keeper */
    struct list_node dirs;   /* own first */
    struct list_node todo;   /* segments to read, in the order of their making */
    struct list_node spares; /* segments that no writer uses yet: linked by in_todo */
    size_t spares_n;
    uint32_t next_number;
    uint64_t next_order;
    bool stopping, spare_wanted;

    pthread_t keeper;
    pthread_mutex_t keeper_lock; /* held while segments are synced or removed */
    uint64_t next_adoption_ns;   /* under the keeper's lock */
    bool names_dirty;            /* segments were made: the directory is to be synced. Under lock */

    _Atomic uint64_t open, settled, bytes, segments, adopted, crashed, moved, damaged, sync_errors;
};

/* --- spool.c --- */

/* Makes an empty segment file in our directory; not in any list yet. ERR_LIMIT: would pass
 * max_bytes (unless beyond_max); ERR_IO: the disk refused. */
enum err spool_segment_make(struct spool *s, bool beyond_max, struct spool_segment **ret) MUSTCHECK;
/* One of our own of which all is done is as if it were new, but for what is in it. Not in any list
 * any more. */
void spool_segment_renew(struct spool_segment *g);
/* Has the system get ready what the first store into each page would have to wait for. */
void spool_segment_prepare(struct spool_segment *g);
/* Unmaps, deletes the file, frees. Not in any list any more. */
void spool_segment_remove(struct spool *s, struct spool_segment *g);
void spool_segment_free(struct spool_segment *g); /* leaves the file */

/* --- spool_write.c --- */

/* Appends to the writer's segment, changing over to the next when it is full; its lock is held.
 * beyond_max: may pass max_bytes. */
enum err spool_append(struct spool *s, struct spool_writer *w, const struct segment_entry *e,
                      bool beyond_max, struct spool_segment **ret_segment,
                      size_t *ret_offset) MUSTCHECK;

/* --- spool_adopt.c --- */

/* Takes an exclusive lock on a file, making it. ERR_AGAIN: somebody has it (only with wait false).
 */
enum err spool_lock_file(const char *path, bool wait, int *ret_fd) MUSTCHECK;
/* Looks for directories whose owner is dead and takes them over. */
void spool_adopt(struct spool *s);
/* Removes an adopted directory without segments, and frees it. Not in any list any more. */
void spool_adopted_remove(struct spool *s, struct spool_dir *d);

/* --- spool_keeper.c --- */

enum err spool_keeper_start(struct spool *s) MUSTCHECK;
void spool_keeper_stop(struct spool *s);

#endif
