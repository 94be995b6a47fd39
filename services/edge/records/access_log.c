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

#include "base/file.h"
#include "base/hash.h"
#include "base/queue.h"

enum { QUEUE_MAX = 8192, LOOK_MS = 1000, WHOLE = 10000 };

struct access_log {
    char *path; /* NULL: standard output */
    unsigned sample;
    int fd; /* -1: it could not be opened; tried again. The writer's */
    struct queue *queue;
    pthread_t writer;
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
    if (l->path == NULL || !was_moved(l)) return;
    int fd = open_file(l->path);
    if (fd < 0) return; /* the old one is written to until it can be had */
    if (l->fd >= 0) (void)close(l->fd);
    l->fd = fd;
}

static void *write_lines(void *ctx)
{
    struct access_log *l = ctx;
    void *line;
    uint64_t n = 0;
    for (;;) {
        enum err e = queue_pop(l->queue, LOOK_MS, &line);
        if (e == ERR_CLOSED) return NULL;
        /* With lines coming without end it looks now and then. */
        if (e != ERR_OK || n++ % 256 == 0) look(l);
        if (e != ERR_OK) continue;
        if (l->fd < 0 || file_write_all(l->fd, str_of(line)) != ERR_OK)
            atomic_fetch_add(&l->dropped, 1);
        free(line);
    }
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
    ASSERT(pthread_create(&l->writer, NULL, write_lines, l) == 0);
    *ret = l;
    return ERR_OK;
}

void access_log_free(struct access_log *l)
{
    if (l == NULL) return;
    queue_close(l->queue);
    pthread_join(l->writer, NULL);
    queue_free(l->queue);
    if (l->path != NULL && l->fd >= 0) (void)close(l->fd);
    free(l->path);
    free(l);
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

uint64_t access_log_dropped(const struct access_log *l)
{
    return l != NULL ? atomic_load(&l->dropped) : 0;
}
