/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Runs a fuzz target over files instead of libFuzzer: every file of the folders and files named on
 * the command line goes through it once. So the corpus is a regression test in any build.
 */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "base/buf.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
/* Some targets set up once. */
__attribute__((weak)) int LLVMFuzzerInitialize(int *argc, char ***argv);

enum { FILE_MAX_BYTES = 16 * 1024 * 1024 };

static bool replay_file(const char *path)
{
    FILE *f = fopen(path, "rb");
    if (f == NULL) {
        perror(path);
        return false;
    }
    struct buf b;
    buf_init(&b, FILE_MAX_BYTES);
    enum err e = ERR_OK;
    for (;;) {
        char *room;
        e = buf_reserve(&b, 64 * 1024, &room);
        if (e != ERR_OK) break;
        size_t n = fread(room, 1, 64 * 1024, f);
        b.len += n;
        if (n == 0) break;
    }
    fclose(f);
    if (e != ERR_OK) {
        fprintf(stderr, "%s: %s\n", path, err_name(e));
    } else {
        /* A block of its own of the exact size, so that a sanitizer sees one byte too far. */
        uint8_t *exact = malloc(b.len > 0 ? b.len : 1);
        if (exact == NULL) abort();
        if (b.len > 0) memcpy(exact, b.data, b.len);
        LLVMFuzzerTestOneInput(exact, b.len);
        free(exact);
    }
    buf_done(&b);
    return e == ERR_OK;
}

static bool replay(const char *path, size_t *count)
{
    struct stat st;
    if (stat(path, &st) != 0) {
        perror(path);
        return false;
    }
    if (!S_ISDIR(st.st_mode)) {
        (*count)++;
        return replay_file(path);
    }
    DIR *d = opendir(path);
    if (d == NULL) {
        perror(path);
        return false;
    }
    bool ok = true;
    struct dirent *e;
    while ((e = readdir(d)) != NULL) {
        if (e->d_name[0] == '.') continue;
        char sub[4096];
        int n = snprintf(sub, sizeof sub, "%s/%s", path, e->d_name);
        ok &= n > 0 && (size_t)n < sizeof sub && replay(sub, count);
    }
    closedir(d);
    return ok;
}

int main(int argc, char **argv)
{
    if (LLVMFuzzerInitialize != NULL) LLVMFuzzerInitialize(&argc, &argv);
    size_t count = 0;
    bool ok = true;
    for (int i = 1; i < argc; i++) ok &= replay(argv[i], &count);
    printf("%zu inputs\n", count);
    return ok && count > 0 ? 0 : 1;
}
