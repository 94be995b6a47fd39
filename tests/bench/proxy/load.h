/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the load generator share: load.c (options, connections, the run),
 * load_request.c (what is sent), load_http.c (reading answers), load_result.c (CPU time of the
 * measured processes, percentiles).
 */
#ifndef BENCH_LOAD_H
#define BENCH_LOAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { LOAD_PIDS_MAX = 8, HEADERS_MAX = 2048, REQUEST_HEAD_MAX = HEADERS_MAX + 1024 };

/* --- load_request.c --- */

struct request {
    char *p;
    size_t n;
};

/* What all of them have in common. */
struct request_form {
    const char *path;
    const char *headers, *how; /* lines of the head */
    bool stream;               /* the body asks for one, beside what it has */
};

/* A request for each line of a file, which is its body: an object of JSON. *ret starts as NULL and
 * is never freed. Returns how many; 0 when the file cannot be read or has none. */
size_t requests_make(const char *file, const struct request_form *f, struct request **ret);

/* --- load_http.c --- */

struct reader {
    char head[8192];
    size_t head_n;
    unsigned state;
    bool last_was_newline;
    /* of the answer under way */
    int status;
    bool in_body;
    size_t left;   /* of the body, or of the chunk */
    size_t length; /* of the body, so far */
    uint64_t events;
};

/* For the next answer on this connection. */
void reader_init(struct reader *r);
/* Takes what was received. 1: the answer is whole; 0: more is to come; -1: it is no HTTP. */
int reader_take(struct reader *r, const char *p, size_t n);

/* --- load_result.c --- */

struct samples {
    uint32_t *us10; /* tenths of a microsecond */
    size_t n, cap;
};
void samples_add(struct samples *s, uint64_t ns);
/* Sorts. p: 0 to 1. In microseconds; 0 of none. */
double samples_percentile(struct samples *s, double p);

/* CPU time of all threads of these processes, in ns. */
uint64_t cpu_of(const int *pids, size_t n);

#endif
