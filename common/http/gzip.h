/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The content codings gzip and deflate (RFC 9110, 8.4.1) as streams, with bounds: a few bytes can
 * stand for gigabytes. One owner thread.
 */
#ifndef HTTP_GZIP_H
#define HTTP_GZIP_H

#include "base/buf.h"

enum http_coding { CODING_GZIP, CODING_DEFLATE /* the zlib format, RFC 1950 */ };

struct deflater;
struct inflater;

struct deflater *deflater_new(enum http_coding coding) MUSTCHECK; /* NULL: no memory */
void deflater_free(struct deflater *z);                           /* NULL is fine */
/* Compresses in and appends what comes out, all that is needed to read in again (sync flush);
 * finish: this is the end. ERR_LIMIT or ERR_NOMEM: of out. */
enum err deflater_add(struct deflater *z, struct str in, bool finish, struct buf *out) MUSTCHECK;

/* max_out: total bytes that may come out; ERR_LIMIT beyond. With CODING_DEFLATE also the raw form
 * (RFC 1951) that some servers send is understood. NULL: no memory. */
struct inflater *inflater_new(enum http_coding coding, uint64_t max_out) MUSTCHECK;
void inflater_free(struct inflater *z); /* NULL is fine */
/*
 * Decodes from *in, which is moved behind what was used, and appends to out as far as buf_room()
 * goes. ERR_OK: all of in was used; ERR_AGAIN: out is full, make room and call again; ERR_CLOSED:
 * the end of the compressed data, of gzip that of a member: another may follow, now or with the
 * next call (other bytes behind it stay in *in); ERR_INVALID: damaged; ERR_LIMIT:
 * max_out; ERR_NOMEM.
 */
enum err inflater_feed(struct inflater *z, struct str *in, struct buf *out) MUSTCHECK;

#endif
