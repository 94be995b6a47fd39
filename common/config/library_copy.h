/* SPDX-License-Identifier: Apache-2.0 */
/* Copies of vocabulary files that nobody writes to: see library.h. The library's thread. */
#ifndef CONFIG_LIBRARY_COPY_H
#define CONFIG_LIBRARY_COPY_H

#include <limits.h>
#include <stdint.h>

#include "base/err.h"

/* What a file or a model folder looks like from outside: changes when its content does. */
struct library_print {
    uint64_t a, b; /* 0, 0: not there */
};
/* Of a file, or of a folder's model files. */
struct library_print library_print_of(const char *path);

enum { LIBRARY_KEY_LEN = 32 };
/* The name of the copy of what has that print, without its folder. */
void library_copy_name(struct library_print print, char out[LIBRARY_KEY_LEN + 16]);

/* Makes the folder for copies, the first of the two that can be written to; "" when none can. */
void library_copy_folder(const char *dir, const char *state_dir, char out[PATH_MAX]);
/* Makes the copy of the file `from`, which looked like `print`, unless it is there. ERR_AGAIN: the
 * file has changed meanwhile; ERR_INVALID, ERR_UNSUPPORTED: it is no vocabulary, or damaged;
 * ERR_IO, ERR_NOMEM. */
enum err library_copy_make(const char *folder, const char *from, struct library_print print,
                           struct why *why) MUSTCHECK;
/* Takes "PATH: " from the front of why: who is told knows which file it is about. */
void library_strip_path(struct why *why, const char *path);
/* Removes copies whose names keep() does not want. */
void library_copy_sweep(const char *folder, bool (*keep)(void *ctx, const char *name), void *ctx);

#endif
