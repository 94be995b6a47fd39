/* SPDX-License-Identifier: Apache-2.0 */
/* What comes on a connection to an upstream server: the head of an answer, its body, its end. On
 * its loop's thread. */
#include "upstream_impl.h"

enum { INTERIM_MAX = 10, READS_PER_TURN = 8 };

static void finish(struct exchange *x, bool clean)
{
    const struct exchange_events *ev = x->ev;
    void *ctx = x->ctx;
    if (clean && x->keep_alive && conn_waiting(&x->conn) == 0)
        pool_keep(x);
    else
        exchange_bury(x, false);
    ev->end(ctx);
}

/* Each take_*() returns false when the exchange is over. */

/* All chunks that are here are handed on as one piece. */
static bool take_chunks(struct exchange *x, struct str data)
{
    size_t n, used;
    char *p = (char *)(uintptr_t)data.p; /* of a buffer of ours */
    enum chunked_status st = chunked_unwrap(&x->chunked, p, data.n, &n, &used);
    if (n > 0) x->ev->body(x->ctx, str_n(p, n));
    if (x->state != X_BODY) return false;
    if (st == CHUNKED_BAD) return exchange_fail(x, EXCHANGE_MALFORMED, x->chunked.reason), false;
    if (st == CHUNKED_DONE) return finish(x, used == data.n), false;
    return true;
}

static bool take_body(struct exchange *x, struct str data)
{
    if (x->framing == H1_BODY_CHUNKED) return data.n == 0 || take_chunks(x, data);
    while (data.n > 0) {
        struct str piece = data;
        if (x->framing == H1_BODY_LENGTH) {
            piece.n = (size_t)MIN((uint64_t)data.n, x->left);
            data.p += piece.n, data.n -= piece.n, x->left -= piece.n;
        } else {
            data.n = 0;
        }
        x->ev->body(x->ctx, piece);
        if (x->state != X_BODY) return false;
        if (x->framing == H1_BODY_LENGTH && x->left == 0) return finish(x, data.n == 0), false;
    }
    return true;
}

/* On a connection that was idle, what comes first may be no answer to our request: bytes behind the
 * answer before, or a 408 that crossed the request. A fresh connection tells. */
static bool is_leftover(const struct exchange *x, enum h1_status st, const struct h1_response *res)
{
    if (!x->reused || x->interims > 0) return false;
    return st == H1_BAD || (st == H1_DONE && res->status == 408 && !res->head.keep_alive);
}

static bool take_head(struct exchange *x, struct str *data)
{
    static const struct h1_limits limits = { .head = UPSTREAM_HEAD_MAX,
                                             .line = 16 * 1024,
                                             .headers = H1_MAX_HEADERS };
    struct h1_response *res = &x->pool->pools->response;
    struct h1_error why;
    for (;;) {
        h1_begin(&res->head);
        enum h1_status st = h1_parse_response(data->p, data->n, &limits, x->is_head, res, &why);
        if (is_leftover(x, st, res))
            return exchange_fail(x, EXCHANGE_STALE, "it said something while it was idle"), false;
        if (st == H1_BAD) return exchange_fail(x, EXCHANGE_MALFORMED, why.reason), false;
        if (st == H1_MORE) return true;
        data->p += res->head.len, data->n -= res->head.len;
        if (res->status >= 200) break;
        if (res->status == 101 || ++x->interims > INTERIM_MAX)
            return exchange_fail(x, EXCHANGE_MALFORMED,
                                 "too many interim answers, or an upgrade nobody asked for"),
                   false;
    }
    x->framing = res->head.framing;
    x->left = res->head.content_length;
    x->keep_alive = res->head.keep_alive && x->framing != H1_BODY_CLOSE;
    x->state = X_BODY;
    x->ev->head(x->ctx, res);
    if (x->state != X_BODY) return false;
    if (x->framing == H1_BODY_NONE || (x->framing == H1_BODY_LENGTH && x->left == 0))
        return finish(x, data->n == 0), false;
    return true;
}

static bool take(struct exchange *x, struct str data)
{
    x->got_bytes = true;
    if (x->state == X_WAIT_HEAD) {
        if (x->in.len > 0) {
            if (buf_append_str(&x->in, data) != ERR_OK)
                return exchange_fail(x, EXCHANGE_MALFORMED, "the head is too large"), false;
            data = buf_str(&x->in);
        }
        if (!take_head(x, &data)) return false;
        if (x->state == X_WAIT_HEAD) {
            /* Keep what is there of the head. */
            if (x->in.len > 0)
                buf_consume(&x->in, (size_t)(data.p - x->in.data));
            else if (buf_append_str(&x->in, data) != ERR_OK)
                return exchange_fail(x, EXCHANGE_MALFORMED, "the head is too large"), false;
            return true;
        }
        bool more = take_body(x, data);
        if (more) buf_done(&x->in);
        return more;
    }
    return take_body(x, data);
}

void exchange_gone(struct exchange *x, bool orderly)
{
    if (x->state == X_BODY && x->framing == H1_BODY_CLOSE && orderly)
        finish(x, false);
    else if (x->state == X_BODY)
        exchange_fail(x, EXCHANGE_TRUNCATED, "closed before the end of its answer");
    else if (x->reused && !x->got_bytes)
        exchange_fail(x, EXCHANGE_STALE, "closed while it was idle");
    else
        exchange_fail(x, EXCHANGE_RESET, "closed before it answered");
}

void exchange_read(struct exchange *x)
{
    char *scratch = x->pool->pools->o.scratch;
    if (x->state == X_BODY && x->ev->expect != NULL) x->ev->expect(x->ctx);
    for (int i = 0; i < READS_PER_TURN; i++) {
        size_t n;
        enum err e = conn_read(&x->conn, scratch, SCRATCH_SIZE, &n);
        if (e == ERR_AGAIN) break;
        if (x->state == X_IDLE) {
            exchange_bury(x, false); /* closed by the server, or bytes nobody asked for */
            return;
        }
        if (e != ERR_OK) {
            if (x->state == X_BODY) x->ev->flush(x->ctx);
            if (x->state != X_DEAD) exchange_gone(x, e == ERR_CLOSED);
            return;
        }
        if (!take(x, str_n(scratch, n))) return;
        if (x->conn.read_paused || n < SCRATCH_SIZE) break;
    }
    if (x->state == X_BODY) x->ev->flush(x->ctx);
}
