/* SPDX-License-Identifier: Apache-2.0 */
/* What is measured: CPU time of processes, latencies. */
#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "load.h"

void samples_add(struct samples *s, uint64_t ns)
{
    if (s->n == s->cap) {
        s->cap = s->cap > 0 ? s->cap * 2 : 65536;
        s->us10 = realloc(s->us10, s->cap * sizeof *s->us10);
        if (s->us10 == NULL) abort();
    }
    s->us10[s->n++] = ns / 100 < UINT32_MAX ? (uint32_t)(ns / 100) : UINT32_MAX;
}

static int by_size(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

double samples_percentile(struct samples *s, double p)
{
    if (s->n == 0) return 0;
    qsort(s->us10, s->n, sizeof *s->us10, by_size);
    size_t i = (size_t)(p * (double)s->n);
    return s->us10[i < s->n ? i : s->n - 1] / 10.0;
}

uint64_t cpu_of(const int *pids, size_t n)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < n; i++) {
        char path[400];
        snprintf(path, sizeof path, "/proc/%d/task", pids[i]);
        DIR *d = opendir(path);
        for (struct dirent *e; d != NULL && (e = readdir(d)) != NULL;) {
            uint64_t ns;
            snprintf(path, sizeof path, "/proc/%d/task/%s/schedstat", pids[i], e->d_name);
            FILE *f = e->d_name[0] != '.' ? fopen(path, "r") : NULL;
            if (f != NULL && fscanf(f, "%" SCNu64, &ns) == 1) sum += ns;
            if (f != NULL) fclose(f);
        }
        if (d != NULL) closedir(d);
    }
    return sum;
}
