/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The access log: one JSON object per line and request, written by a thread of its own, so that a
 * slow disk or pipe never holds a worker; a few at a time, some milliseconds behind. What finds the
 * queue full is dropped and counted. A file that was renamed or removed is opened anew within a
 * second, or when that is asked for. Any thread.
 */
#ifndef EDGE_ACCESS_LOG_H
#define EDGE_ACCESS_LOG_H

#include <stdint.h>

#include "base/err.h"
#include "base/str.h"

struct access_log;

/* A fraction from 0 to 1 as ten-thousandths, such as "0.05". */
enum err access_log_parse_sample(struct str s, unsigned *ret) MUSTCHECK;

/* path: of a file; "-": standard output; "off": *ret is NULL, which every function takes. sample:
 * of 10000 requests that went well so many are logged; those that did not all are. */
enum err access_log_new(const char *path, unsigned sample, struct access_log **ret,
                        struct why *why) MUSTCHECK;
/* Writes what is queued, as long as it can be written: not for longer than some seconds to a pipe
 * that nobody reads. What is left then is lost, and its memory goes with the writer. */
void access_log_free(struct access_log *l);

/* Whether a request is to be logged: the same for the same id at every edge. */
bool access_log_wants(const struct access_log *l, struct str id, bool went_well);
/* One line with its end; copied. */
void access_log_put(struct access_log *l, struct str line);
/* The file is opened anew, whatever stands at the path: lines that come now are in it. */
void access_log_reopen(struct access_log *l); /* NULL is fine */
/* Lines that were not written so far. */
uint64_t access_log_dropped(const struct access_log *l);

#endif
