/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Answers that come compressed, although none was asked for: what is metered is decoded, and the
 * client gets it as it is inside. Bounded: a few bytes can stand for gigabytes, so that no more is
 * decoded than is taken. On the request's worker.
 */
#include <stdlib.h>

#include "flow_impl.h"

enum { DECODE_PIECE = 64 * 1024, CODED_MAX = 1024 * 1024 };
static const uint64_t DECODED_STREAM_MAX = UINT64_C(16) << 30;

struct decoding {
    struct inflater *inflater;
    struct buf coded; /* read, and not decoded yet */
    bool rests;       /* not all is decoded of what was read */
    bool ended;       /* the end of the compressed data came */
};

bool flow_decode_begin(struct flow *f, struct str coding)
{
    struct decoding *d;
    bool gzip = str_ieqz(coding, "gzip") || str_ieqz(coding, "x-gzip");
    if (coding.n == 0 || str_ieqz(coding, "identity")) return true;
    if (!gzip && !str_ieqz(coding, "deflate")) return false;
    f->decoding = d = xcalloc(1, sizeof *d);
    buf_init(&d->coded, CODED_MAX);
    d->inflater = inflater_new(gzip ? CODING_GZIP : CODING_DEFLATE,
                               f->mode == RELAY_WHOLE ? ANSWER_WHOLE_MAX : DECODED_STREAM_MAX);
    return d->inflater != NULL;
}

void flow_decode_done(struct flow *f)
{
    if (f->decoding == NULL) return;
    inflater_free(f->decoding->inflater);
    buf_done(&f->decoding->coded);
    free(f->decoding);
    f->decoding = NULL;
}

/* What was decoded waits for tokens. */
static bool is_held_up(const struct flow *f)
{
    return f->mode == RELAY_STREAM && answer_waits(f->answer);
}

typedef enum err (*take_fn)(struct flow *f, struct str data);

/* As far as it is taken: *data moves behind what was used. */
static enum err decode(struct flow *f, struct str *data, take_fn take)
{
    struct buf piece;
    struct decoding *d = f->decoding;
    enum err e = ERR_AGAIN;
    buf_init(&piece, DECODE_PIECE);
    while (e == ERR_AGAIN && !is_held_up(f)) {
        buf_clear(&piece);
        e = inflater_feed(d->inflater, data, &piece);
        d->ended = e == ERR_CLOSED;
        bool ok = e == ERR_OK || e == ERR_AGAIN || e == ERR_CLOSED;
        enum err taken = ok && piece.len > 0 ? take(f, buf_str(&piece)) : ERR_OK;
        if (taken != ERR_OK) e = taken;
    }
    buf_done(&piece);
    d->rests = e == ERR_AGAIN;
    return e == ERR_AGAIN || e == ERR_CLOSED ? ERR_OK : e;
}

enum err flow_decode(struct flow *f, struct str data, take_fn take)
{
    struct decoding *d = f->decoding;
    if (d == NULL) return take(f, data);
    struct buf *kept = &d->coded;
    size_t had = kept->len;
    enum err e = had > 0 ? buf_append_str(kept, data) : ERR_OK;
    struct str rest = had > 0 ? buf_str(kept) : data;
    if (e == ERR_OK) e = decode(f, &rest, take);
    if (e != ERR_OK) return e;
    if (!d->rests)
        buf_done(kept);
    else if (had > 0)
        buf_consume(kept, kept->len - rest.n);
    else
        e = buf_append_str(kept, rest);
    return e;
}

bool flow_decode_rests(const struct flow *f)
{
    return f->decoding != NULL && f->decoding->rests;
}

bool flow_decode_ended(const struct flow *f)
{
    return f->decoding == NULL || f->decoding->ended;
}

size_t flow_decode_memory(const struct flow *f)
{
    return f->decoding != NULL ? sizeof *f->decoding + f->decoding->coded.cap : 0;
}
