/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Event loop of one thread: file descriptors (epoll), timers (a heap), and tasks posted by other
 * threads (an eventfd). Everything but loop_post() and loop_stop() is called by the owner thread
 * only.
 */
#ifndef RT_LOOP_H
#define RT_LOOP_H

#include <stdint.h>

#include "base/clock.h"
#include "base/err.h"

struct loop;

/* What a descriptor is watched for, and what happened to it. LOOP_HANGUP and LOOP_ERROR are always
 * reported. */
enum { LOOP_READ = 1, LOOP_WRITE = 2, LOOP_HANGUP = 4, LOOP_ERROR = 8, LOOP_PEER_CLOSED = 16 };
/* For loop_add(): edge-triggered; or wake one loop of those that share a listening socket. */
enum { LOOP_EDGE = 32, LOOP_EXCLUSIVE = 64 };

typedef void (*loop_io_fn)(void *ctx, unsigned events);
typedef void (*loop_fn)(void *ctx);

/* Embedded in whatever owns the descriptor. Zero it before first use. */
struct loop_io {
    int fd;
    unsigned watch;
    loop_io_fn fn;
    void *ctx;
    uint32_t generation; /* nonzero while added */
    uint32_t slot;
    uint64_t watched_at,
        happened_at; /* turns: when `watch` was set, when something happened last */
};

/* Embedded in whatever waits. Zero it before first use; it may be set again while it is set, which
 * moves it. */
struct loop_timer {
    uint64_t at_ns; /* absolute, on the loop's clock */
    loop_fn fn;
    void *ctx;
    size_t place; /* in the heap, 1-based; 0 when not set */
};

struct loop *loop_new(const struct clock *clock);
void loop_free(struct loop *l); /* deferred tasks run, posted ones are dropped */

/* Runs until loop_stop(). */
void loop_run(struct loop *l);
/* Any thread, and signal-safe no: use a signalfd. */
void loop_stop(struct loop *l);

/* Time of the current turn: read once per wake-up, good enough for timeouts. */
uint64_t loop_now_ns(const struct loop *l);
/* Reads the clock again. */
uint64_t loop_refresh_now(struct loop *l);

enum err loop_add(struct loop *l, struct loop_io *io, int fd, unsigned watch, loop_io_fn fn,
                  void *ctx) MUSTCHECK;
void loop_watch(struct loop *l, struct loop_io *io, unsigned watch);
/* With LOOP_EDGE: what is there by now is told once more. */
void loop_rearm(struct loop *l, struct loop_io *io);
/* After this, fn is not called again, also not for events of the turn that is being handled. Does
 * not close the fd. */
void loop_remove(struct loop *l, struct loop_io *io);

/* Pieces of LOOP_BLOCK bytes for buffers, shared by what runs on this thread. */
enum { LOOP_BLOCK = 4096, LOOP_BLOCKS_RESTING = 512 };
struct slab *loop_blocks(struct loop *l);

/* Goes up with each wake-up. */
uint64_t loop_turn(const struct loop *l);
/* Whether nothing had happened to the descriptor, of what it is watched for, when this turn began:
 * known without a system call. False also when that is not known. */
bool loop_is_quiet(const struct loop *l, const struct loop_io *io);

void loop_timer_set(struct loop *l, struct loop_timer *t, uint64_t at_ns, loop_fn fn, void *ctx);
static inline bool loop_timer_is_set(const struct loop_timer *t)
{
    return t->place != 0;
}
void loop_timer_clear(struct loop *l, struct loop_timer *t);

/* Runs fn(ctx) on the loop's thread, soon; any thread. ERR_LIMIT when too many tasks wait (65536).
 */
enum err loop_post(struct loop *l, loop_fn fn, void *ctx) MUSTCHECK;
/* Owner thread: runs fn(ctx) at the end of this turn, so that an object can be freed when nobody
 * uses it any more. */
void loop_defer(struct loop *l, loop_fn fn, void *ctx);

#endif
