/* SPDX-License-Identifier: Apache-2.0 */
/* Whole files, and writes that the system takes in pieces. Any thread; blocks. */
#ifndef BASE_FILE_H
#define BASE_FILE_H

#include "base/buf.h"

/* The content of a file, appended to ret. ERR_NOT_FOUND, ERR_IO, ERR_LIMIT, ERR_NOMEM. */
enum err file_read(const char *path, struct buf *ret) MUSTCHECK;
/* All of it, or ERR_IO; errno tells why. */
enum err file_write_all(int fd, struct str data) MUSTCHECK;

#endif
