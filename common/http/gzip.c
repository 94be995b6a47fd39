/* SPDX-License-Identifier: Apache-2.0 */
/* gzip and deflate by zlib; the only file that knows it. */
#include "http/gzip.h"

#include <stdlib.h>
#include <zlib.h>

enum { STEP = 16 * 1024, WINDOW = 15, GZIP = 16, MEMORY = 8 };

struct deflater {
    z_stream z;
};

struct inflater {
    z_stream z;
    bool may_be_raw, ended; /* raw: decided by the first two bytes */
    bool gzip;
    bool full; /* the last call filled all its room: there may be more */
    uint8_t first[2];
    unsigned first_len;
    uint64_t left;
};

struct deflater *deflater_new(enum http_coding coding)
{
    struct deflater *d = calloc(1, sizeof *d);
    if (d == NULL) return NULL;
    int window = coding == CODING_GZIP ? WINDOW + GZIP : WINDOW;
    if (deflateInit2(&d->z, Z_DEFAULT_COMPRESSION, Z_DEFLATED, window, MEMORY,
                     Z_DEFAULT_STRATEGY) != Z_OK) {
        free(d);
        return NULL;
    }
    return d;
}

void deflater_free(struct deflater *d)
{
    if (d == NULL) return;
    (void)deflateEnd(&d->z);
    free(d);
}

/* zlib does not write through next_in, but has no const there in this version. */
static Bytef *input(const char *p)
{
    union {
        const char *in;
        Bytef *out;
    } u = { p };
    return u.out;
}

enum err deflater_add(struct deflater *d, struct str in, bool finish, struct buf *out)
{
    while (in.n > 0 || finish) {
        uInt part = (uInt)MIN(in.n, (size_t)1 << 30);
        bool last = part == in.n;
        d->z.next_in = input(in.p);
        d->z.avail_in = part;
        do {
            char *room;
            size_t want = MIN((size_t)STEP, buf_room(out));
            if (want == 0) return ERR_LIMIT;
            enum err e = buf_reserve(out, want, &room);
            if (e != ERR_OK) return e;
            d->z.next_out = (Bytef *)room;
            d->z.avail_out = (uInt)want;
            int r = deflate(&d->z, !last ? Z_NO_FLUSH : finish ? Z_FINISH : Z_SYNC_FLUSH);
            if (r == Z_STREAM_ERROR) return ERR_INTERNAL;
            out->len += want - d->z.avail_out;
        } while (d->z.avail_out == 0);
        in = str_n(in.p + part, in.n - part);
        if (last) break;
    }
    return ERR_OK;
}

struct inflater *inflater_new(enum http_coding coding, uint64_t max_out)
{
    struct inflater *i = calloc(1, sizeof *i);
    if (i == NULL) return NULL;
    i->left = max_out;
    i->may_be_raw = coding == CODING_DEFLATE;
    i->gzip = coding == CODING_GZIP;
    if (inflateInit2(&i->z, coding == CODING_GZIP ? WINDOW + GZIP : WINDOW) != Z_OK) {
        free(i);
        return NULL;
    }
    return i;
}

void inflater_free(struct inflater *i)
{
    if (i == NULL) return;
    (void)inflateEnd(&i->z);
    free(i);
}

/* The zlib header is a multiple of 31 and says method 8 (RFC 1950, 2.2); anything else is raw. */
static enum err decide_raw(struct inflater *i)
{
    i->may_be_raw = false;
    bool zlib = (i->first[0] & 15) == 8 && (i->first[0] * 256 + i->first[1]) % 31 == 0;
    if (!zlib && inflateReset2(&i->z, -WINDOW) != Z_OK) return ERR_NOMEM;
    return ERR_OK;
}

/* Whether nothing is to come: no member behind the last one (RFC 1952, 2.2; some servers compress
 * each piece of an answer as one). */
static bool has_ended(struct inflater *i, struct str in)
{
    static const char member = '\x1f'; /* begins with it */
    if (i->ended && i->gzip && in.n > 0 && in.p[0] == member)
        i->ended = inflateReset(&i->z) != Z_OK;
    return i->ended;
}

static enum err run(struct inflater *i, struct str *in, struct buf *out)
{
    while (!has_ended(i, *in)) {
        char *room;
        size_t want = MIN(buf_room(out), (size_t)STEP);
        /* One byte more than is allowed is asked for, to see whether there is more. */
        if (want > i->left) want = (size_t)i->left + 1;
        want = MIN(want, buf_room(out));
        if (want == 0) return in->n > 0 || i->full ? ERR_AGAIN : ERR_OK;
        enum err e = buf_reserve(out, want, &room);
        if (e != ERR_OK) return e;
        i->z.next_in = input(in->p);
        i->z.avail_in = (uInt)MIN(in->n, (size_t)1 << 30);
        i->z.next_out = (Bytef *)room;
        i->z.avail_out = (uInt)want;
        uInt had = i->z.avail_in;
        int r = inflate(&i->z, Z_NO_FLUSH);
        size_t used = had - i->z.avail_in, made = want - i->z.avail_out;
        *in = str_n(in->p + used, in->n - used);
        if (made > i->left) return ERR_LIMIT;
        i->left -= made;
        out->len += made;
        i->full = i->z.avail_out == 0;
        if (r == Z_STREAM_END)
            i->ended = true;
        else if (r == Z_MEM_ERROR)
            return ERR_NOMEM;
        else if (r != Z_OK && r != Z_BUF_ERROR)
            return ERR_INVALID;
        else if (in->n == 0 && i->z.avail_out > 0)
            return ERR_OK; /* nothing is held back */
        else if (r == Z_BUF_ERROR && used == 0 && made == 0)
            return ERR_OK;
    }
    return ERR_CLOSED;
}

enum err inflater_feed(struct inflater *i, struct str *in, struct buf *out)
{
    if (i->may_be_raw) {
        if (buf_room(out) == 0) return ERR_AGAIN;
        while (i->first_len < 2 && in->n > 0) {
            i->first[i->first_len++] = (uint8_t)*in->p;
            *in = str_n(in->p + 1, in->n - 1);
        }
        if (i->first_len < 2) return ERR_OK;
        enum err e = decide_raw(i);
        if (e != ERR_OK) return e;
        struct str first = { (const char *)i->first, 2 };
        e = run(i, &first, out);
        if (e != ERR_OK && e != ERR_AGAIN) return e;
    }
    return run(i, in, out);
}
