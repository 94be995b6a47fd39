/* SPDX-License-Identifier: Apache-2.0 */
/* Content coding, transfer coding and cuts of an answer; see the header. Pure. */
#include "shaper.h"

#include "http/chunked.h"

enum { BODY_MAX = 1 << 30, SPLIT_MAX = 64 };

enum err shaper_init(struct shaper *s, const struct behave *b, enum framing framing, bool stream)
{
    *s = (struct shaper){ .behave = b, .framing = framing, .bad_unit = stream ? 2 : 0 };
    buf_init(&s->body, BODY_MAX);
    if (b->chunking == CHUNKING_SPLIT) {
        rng_fake_init(&s->rng, b->chunking_arg);
        s->next_split = 1 + rng_below(&s->rng.rng, SPLIT_MAX);
    }
    if (b->encoding == ENCODING_NONE) return ERR_OK;
    s->z = deflater_new(b->encoding == ENCODING_GZIP ? CODING_GZIP : CODING_DEFLATE);
    return s->z != NULL ? ERR_OK : ERR_NOMEM;
}

void shaper_done(struct shaper *s)
{
    deflater_free(s->z);
    buf_done(&s->body);
    *s = (struct shaper){ 0 };
}

enum err shaper_add(struct shaper *s, struct str event)
{
    s->batched++;
    return s->z != NULL ? deflater_add(s->z, event, false, &s->body)
                        : buf_append_str(&s->body, event);
}

enum err shaper_end(struct shaper *s)
{
    s->ended = true;
    return s->z != NULL ? deflater_add(s->z, STR(""), true, &s->body) : ERR_OK;
}

bool shaper_is_cut(const struct shaper *s)
{
    return s->behave->chunking == CHUNKING_BYTES || s->behave->chunking == CHUNKING_SPLIT;
}

/* How many bytes the next unit has; 0: not yet complete. */
static size_t unit_len(const struct shaper *s)
{
    uint64_t want = s->body.len;
    switch (s->behave->chunking) {
    case CHUNKING_EVENT: return s->body.len;
    case CHUNKING_BATCH: return s->ended || s->batched >= s->behave->chunking_arg ? s->body.len : 0;
    case CHUNKING_BYTES: want = s->behave->chunking_arg; break;
    case CHUNKING_SPLIT: want = s->next_split; break;
    }
    if (s->body.len >= want) return (size_t)want;
    return s->ended ? s->body.len : 0;
}

/* The malformed line in front of a chunk of n bytes. */
static enum err bad_header(enum bad_chunk how, size_t n, struct buf *out)
{
    switch (how) {
    case BAD_LETTER: return buf_printf(out, "%zxz\r\n", n);
    case BAD_PLUS: return buf_printf(out, "+%zx\r\n", n);
    case BAD_PREFIX: return buf_printf(out, "0x%zx\r\n", n);
    case BAD_SPACE: return buf_printf(out, "%zx \r\n", n);
    case BAD_LONG: return buf_printf(out, "%017zx\r\n", n);
    case BAD_BARE_LF: return buf_printf(out, "%zx\n", n);
    case BAD_NO_CRLF: break; /* behind the data */
    }
    return buf_printf(out, "%zx\r\n", n);
}

static enum err append_chunk(struct shaper *s, struct str data, struct buf *out)
{
    bool bad = s->behave->fail == FAULT_BAD_CHUNK && s->units == s->bad_unit;
    char header[CHUNKED_HEADER_MAX];
    enum err e = bad ? bad_header(s->behave->bad_chunk, data.n, out)
                     : buf_append(out, header, chunked_header(data.n, header));
    if (e == ERR_OK) e = buf_append_str(out, data);
    if (e == ERR_OK && !(bad && s->behave->bad_chunk == BAD_NO_CRLF)) e = buf_appendz(out, "\r\n");
    return e;
}

enum err shaper_take(struct shaper *s, struct buf *out)
{
    enum err e = ERR_OK;
    if (s->over) return ERR_CLOSED;
    size_t n = unit_len(s);
    if (n > 0) {
        struct str data = str_n(s->body.data, n);
        e = s->framing == FRAMING_CHUNKED ? append_chunk(s, data, out) : buf_append_str(out, data);
        if (e != ERR_OK) return e;
        buf_consume(&s->body, n);
        s->units++;
        s->batched = 0;
        if (s->behave->chunking == CHUNKING_SPLIT)
            s->next_split = 1 + rng_below(&s->rng.rng, SPLIT_MAX);
        return ERR_OK;
    }
    if (!s->ended) return ERR_AGAIN;
    s->over = true;
    return s->framing == FRAMING_CHUNKED ? buf_appendz(out, CHUNKED_END) : ERR_CLOSED;
}
