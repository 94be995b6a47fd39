/* SPDX-License-Identifier: Apache-2.0 */
/* See the header. */
#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

enum err file_read(const char *path, struct buf *ret)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return errno == ENOENT ? ERR_NOT_FOUND : ERR_IO;
    enum err e = ERR_OK;
    for (;;) {
        char *room;
        e = buf_reserve(ret, MIN((size_t)16384, buf_room(ret)), &room);
        if (e == ERR_OK && buf_room(ret) == 0) e = ERR_LIMIT;
        if (e != ERR_OK) break;
        ssize_t n = read(fd, room, MIN((size_t)16384, buf_room(ret)));
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) e = ERR_IO;
        if (n <= 0) break;
        ret->len += (size_t)n;
    }
    close(fd);
    return e;
}

enum err file_write_all(int fd, struct str s)
{
    while (s.n > 0) {
        ssize_t n = write(fd, s.p, s.n);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return ERR_IO;
        s = str_n(s.p + n, s.n - (size_t)n);
    }
    return ERR_OK;
}
