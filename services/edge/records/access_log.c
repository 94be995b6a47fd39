/* SPDX-License-Identifier: Apache-2.0 */
#include "access_log.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/queue.h"

enum {
    QUEUE_MAX = 8192,
    LOOK_MS = 1000,
    LOOK_LINES = 256,
    FEW = 64,       /* while fewer lines wait than this */
    LINGER_MS = 20, /* others are waited for so long */
    END_MS = 3000,  /* that the end waits while nothing can be written */
    WHOLE = 10000,
    GATHER = 64 * 1024,      /* bytes of lines that are written at once */
    GATHER_MAX = 1024 * 1024 /* and with the last line */
};

struct access_log {
    char *path; /* NULL: standard output */
    unsigned sample;
    int fd; /* -1: it could not be opened; tried again. The writer's */
    struct queue *queue;
    pthread_t writer;
    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t end;   /* ending or ended has become true */
    bool ending, ended;
    bool left; /* nobody waits for the writer: it is the last one here */
    _Atomic uint64_t writes;
    _Atomic bool reopen;
    _Atomic uint64_t dropped;
};

enum err access_log_parse_sample(struct str s, unsigned *ret)
{
    unsigned whole = 0, part = 0, scale = WHOLE;
    size_t i = 0;
    if (s.n == 0) return ERR_INVALID;
    for (; i < s.n && s.p[i] != '.'; i++) {
        if (s.p[i] < '0' || s.p[i] > '1' || i > 0) return ERR_INVALID;
        whole = (unsigned)(s.p[i] - '0');
    }
    for (i++; i < s.n; i++) {
        if (s.p[i] < '0' || s.p[i] > '9') return ERR_INVALID;
        if ((scale /= 10) > 0) part += (unsigned)(s.p[i] - '0') * scale;
    }
    if (whole * WHOLE + part > WHOLE) return ERR_INVALID;
    *ret = whole * WHOLE + part;
    return ERR_OK;
}

static int open_file(const char *path)
{
    return open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOCTTY, 0640);
}

/* What stands at the path is another file than ours, or none. */
static bool was_moved(const struct access_log *l)
{
    struct stat ours, there;
    return l->fd < 0 || fstat(l->fd, &ours) != 0 || stat(l->path, &there) != 0 ||
           ours.st_ino != there.st_ino || ours.st_dev != there.st_dev;
}

static void look(struct access_log *l)
{
    bool asked = atomic_exchange(&l->reopen, false);
    if (l->path == NULL || (!asked && !was_moved(l))) return;
    int fd = open_file(l->path);
    if (fd < 0) return; /* the old one is written to until it can be had */
    if (l->fd >= 0) (void)close(l->fd);
    l->fd = fd;
}

/* The line, and those that wait behind it. Returns how many there are. */
static uint64_t gather(struct access_log *l, void *line, struct buf *lines)
{
    uint64_t n = 0;
    do {
        if (buf_appendz(lines, line) == ERR_OK)
            n += *(char *)line != '\0'; /* an empty one only wakes */
        else
            atomic_fetch_add(&l->dropped, 1);
        free(line);
    } while (lines->len < GATHER && queue_pop(l->queue, 0, &line) == ERR_OK);
    return n;
}

static void make_end(struct access_log *l)
{
    pthread_condattr_t attr;
    pthread_mutex_init(&l->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&l->end, &attr);
    pthread_condattr_destroy(&attr);
}

/* At most so long, until what is there; with the lock. */
static void wait_for(struct access_log *l, const bool *what, unsigned ms)
{
    struct timespec until = clock_in_ms(ms);
    while (!*what && pthread_cond_timedwait(&l->end, &l->lock, &until) != ETIMEDOUT) continue;
}

/* Lines add up meanwhile: who puts one wakes nobody. */
static void linger(struct access_log *l)
{
    pthread_mutex_lock(&l->lock);
    wait_for(l, &l->ending, LINGER_MS);
    pthread_mutex_unlock(&l->lock);
}

static void tell_ending(struct access_log *l)
{
    pthread_mutex_lock(&l->lock);
    l->ending = true;
    pthread_cond_signal(&l->end);
    pthread_mutex_unlock(&l->lock);
}

static void destroy(struct access_log *l)
{
    queue_free(l->queue);
    pthread_cond_destroy(&l->end);
    pthread_mutex_destroy(&l->lock);
    if (l->path != NULL && l->fd >= 0) (void)close(l->fd);
    free(l->path);
    free(l);
}

static void *write_lines(void *ctx)
{
    struct access_log *l = ctx;
    struct buf lines;
    void *line;
    uint64_t since_look = LOOK_LINES;
    (void)pthread_setname_np(pthread_self(), "access-log");
    buf_init(&lines, GATHER_MAX);
    for (;;) {
        enum err e = queue_pop(l->queue, LOOK_MS, &line);
        if (e == ERR_CLOSED) break;
        /* With lines coming without end it looks now and then. */
        if (e != ERR_OK || since_look >= LOOK_LINES || atomic_load(&l->reopen))
            look(l), since_look = 0;
        if (e != ERR_OK) continue;
        if (queue_len(l->queue) < FEW) linger(l);
        uint64_t n = gather(l, line, &lines);
        since_look += n;
        if (l->fd < 0 || file_write_all(l->fd, buf_str(&lines)) != ERR_OK)
            atomic_fetch_add(&l->dropped, n);
        atomic_fetch_add(&l->writes, 1);
        buf_clear(&lines);
    }
    buf_done(&lines);
    pthread_mutex_lock(&l->lock);
    bool left = l->left;
    l->ended = true;
    pthread_cond_signal(&l->end);
    pthread_mutex_unlock(&l->lock);
    if (left) destroy(l);
    return NULL;
}

enum err access_log_new(const char *path, unsigned sample, struct access_log **ret, struct why *why)
{
    *ret = NULL;
    if (strcmp(path, "off") == 0) return ERR_OK;
    bool standard = strcmp(path, "-") == 0;
    int fd = standard ? STDOUT_FILENO : open_file(path);
    if (fd < 0) return why_set(why, ERR_IO, "ACCESS_LOG: %s: %s", path, strerror(errno));
    struct access_log *l = xcalloc(1, sizeof *l);
    l->path = standard ? NULL : str_dupz(str_of(path));
    l->sample = sample;
    l->fd = fd;
    l->queue = queue_new(QUEUE_MAX);
    make_end(l);
    ASSERT(pthread_create(&l->writer, NULL, write_lines, l) == 0);
    *ret = l;
    return ERR_OK;
}

void access_log_free(struct access_log *l)
{
    if (l == NULL) return;
    pthread_t writer = l->writer;
    uint64_t writes;
    tell_ending(l);
    queue_close(l->queue);
    pthread_mutex_lock(&l->lock);
    do {
        writes = atomic_load(&l->writes);
        wait_for(l, &l->ended, END_MS);
    } while (!l->ended && atomic_load(&l->writes) != writes);
    bool ended = l->ended;
    l->left = !ended; /* it is in the middle of a write: what is here is its own from now on */
    pthread_mutex_unlock(&l->lock);
    if (!ended) {
        (void)pthread_detach(writer);
        return;
    }
    pthread_join(writer, NULL);
    destroy(l);
}

bool access_log_wants(const struct access_log *l, struct str id, bool went_well)
{
    if (l == NULL) return false;
    if (!went_well || l->sample == WHOLE) return true;
    return hash_crc32c(0, id.p, id.n) % WHOLE < l->sample;
}

void access_log_put(struct access_log *l, struct str line)
{
    char *copy = str_dupz(line);
    if (queue_push(l->queue, copy) == ERR_OK) return;
    free(copy);
    atomic_fetch_add(&l->dropped, 1);
}

void access_log_reopen(struct access_log *l)
{
    if (l == NULL) return;
    atomic_store(&l->reopen, true);
    char *wake = str_dupz(STR(""));
    if (queue_push(l->queue, wake) != ERR_OK) free(wake); /* full: it is awake */
}

uint64_t access_log_dropped(const struct access_log *l)
{
    return l != NULL ? atomic_load(&l->dropped) : 0;
}
