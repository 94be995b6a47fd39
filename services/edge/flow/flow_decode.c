/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Answers that come compressed, although none was asked for: what is metered is decoded, and the
 * client gets it as it is inside. Bounded: a few bytes can stand for gigabytes. On the request's
 * worker.
 */
#include "flow_impl.h"

enum { DECODE_PIECE = 64 * 1024 };
static const uint64_t DECODED_STREAM_MAX = UINT64_C(16) << 30;

bool flow_decode_begin(struct flow *f, struct str coding)
{
    bool gzip = str_ieqz(coding, "gzip") || str_ieqz(coding, "x-gzip");
    if (coding.n == 0 || str_ieqz(coding, "identity")) return true;
    if (!gzip && !str_ieqz(coding, "deflate")) return false;
    f->inflater = inflater_new(gzip ? CODING_GZIP : CODING_DEFLATE,
                               f->mode == RELAY_WHOLE ? ANSWER_WHOLE_MAX : DECODED_STREAM_MAX);
    return f->inflater != NULL;
}

enum err flow_decode(struct flow *f, struct str data, enum err (*take)(struct flow *, struct str))
{
    struct buf piece;
    enum err e = ERR_AGAIN;
    if (f->inflater == NULL) return take(f, data);
    buf_init(&piece, DECODE_PIECE);
    while (e == ERR_AGAIN) {
        buf_clear(&piece);
        e = inflater_feed(f->inflater, &data, &piece);
        f->decoded_all = e == ERR_CLOSED;
        bool ok = e == ERR_OK || e == ERR_AGAIN || e == ERR_CLOSED;
        enum err taken = ok && piece.len > 0 ? take(f, buf_str(&piece)) : ERR_OK;
        if (taken != ERR_OK) e = taken;
    }
    buf_done(&piece);
    return e == ERR_CLOSED ? ERR_OK : e;
}

bool flow_decode_ended(const struct flow *f)
{
    return f->inflater == NULL || f->decoded_all;
}
