/* SPDX-License-Identifier: Apache-2.0 */
/* What is sent: made before anything is measured, a request for each line of the file of bodies. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "load.h"

static void *room(size_t n)
{
    void *p = malloc(n);
    if (p == NULL) abort();
    return p;
}

static struct request one(const char *body, size_t body_n, const struct request_form *f)
{
    const char *more = f->stream ? "\"stream\":true," : "";
    size_t more_n = strlen(more);
    char head[REQUEST_HEAD_MAX];
    int head_n = snprintf(head, sizeof head,
                          "POST %s HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n"
                          "%s%sContent-Length: %zu\r\n\r\n",
                          f->path, f->headers, f->how, body_n + more_n);
    if (head_n < 0 || (size_t)head_n >= sizeof head) abort();
    struct request r = { .n = (size_t)head_n + body_n + more_n };
    char *p = r.p = room(r.n);
    memcpy(p, head, (size_t)head_n);
    p += head_n;
    *p++ = '{';
    memcpy(p, more, more_n);
    memcpy(p + more_n, body + 1, body_n - 1);
    return r;
}

size_t requests_make(const char *file, const struct request_form *f, struct request **ret)
{
    FILE *in = fopen(file, "r");
    if (in == NULL) return 0;
    char *line = NULL;
    size_t line_cap = 0, n = 0, cap = 0;
    for (ssize_t got; (got = getline(&line, &line_cap, in)) > 0;) {
        size_t body_n = (size_t)got - (line[got - 1] == '\n');
        if (body_n < 2) continue;
        if (n == cap) {
            cap = cap > 0 ? cap * 2 : 64;
            *ret = realloc(*ret, cap * sizeof **ret);
            if (*ret == NULL) abort();
        }
        (*ret)[n++] = one(line, body_n, f);
    }
    free(line);
    fclose(in);
    return n;
}
