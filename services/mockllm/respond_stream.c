/* SPDX-License-Identifier: Apache-2.0 */
/* A stream's next bytes, when they are due, with the faults that were asked for. Runs on the
 * connection's worker thread. */
#include "conn.h"
#include "reply.h"

enum { HIGH_WATER = 64 * 1024 };

/* When the next event may go out. */
static uint64_t due_at(const struct conn *c)
{
    uint64_t at = c->began_ns + (uint64_t)c->behave.ttft_ms * 1000000;
    if (!answer_at_token(&c->answer)) return c->ending.events == 0 ? at : c->began_ns;
    return at + c->answer.at_piece * c->behave.interval_ns;
}

static enum err send_head(struct conn *c)
{
    const struct behave *b = &c->behave;
    struct reply_head head = { .status = 200,
                               .content_type = "text/event-stream; charset=utf-8",
                               .framing = c->shaper.framing,
                               .length = 1 << 20,
                               .keep_alive = c->keep_alive && c->shaper.framing == FRAMING_CHUNKED,
                               .behave = b,
                               .serial = c->serial };
    enum err e = reply_head(&c->out, &head);
    c->head_sent = true;
    c->slow_left = b->fail == FAULT_SLOW_HEADERS ? c->out.len : 0;
    c->after = head.keep_alive ? AFTER_NEXT : AFTER_CLOSE;
    if (e == ERR_OK && b->bom) e = shaper_add(&c->shaper, STR("\xef\xbb\xbf"));
    return e;
}

/* A fault whose event has come. ERR_CLOSED: the stream ends here. */
static enum err fault_now(struct conn *c)
{
    enum fault f = c->behave.fail;
    bool stop = f == FAULT_HANG_AFTER || f == FAULT_RESET_AFTER || f == FAULT_CLOSE_AFTER;
    if ((!stop && f != FAULT_ERROR_EVENT) || c->ending.events < c->behave.fail_arg) return ERR_OK;
    c->ending.how = ENDED_FAULT;
    if (stop) {
        c->after = f == FAULT_HANG_AFTER    ? AFTER_HANG
                   : f == FAULT_RESET_AFTER ? AFTER_RESET
                                            : AFTER_CLOSE;
        return ERR_CLOSED;
    }
    buf_clear(&c->event);
    enum err e = answer_error_event(&c->answer, &c->event);
    if (e == ERR_OK) e = shaper_add(&c->shaper, buf_str(&c->event));
    return e == ERR_OK ? shaper_end(&c->shaper) : e;
}

/* Makes the next event and hands it to the shaper. */
static enum err make_event(struct conn *c)
{
    const struct behave *b = &c->behave;
    struct event_info info;
    buf_clear(&c->event);
    enum err e = answer_next(&c->answer, &c->event, &info);
    if (e == ERR_NOT_FOUND) return shaper_end(&c->shaper);
    if (e != ERR_OK) return e;
    if (info.last && b->fail == FAULT_NO_DONE) {
        c->ending.how = ENDED_FAULT;
        return shaper_end(&c->shaper);
    }
    if (info.last && b->fail == FAULT_NO_NEWLINE) event_cut_newlines(&c->event);
    if (b->fail == FAULT_BAD_JSON && c->ending.events == b->fail_arg)
        e = event_cut_json(&c->event, b);
    if (e == ERR_OK && b->fail == FAULT_BIG_EVENT && c->ending.events == 2)
        e = event_grow(&c->event, b->fail_arg);
    c->ending.events++;
    if (e == ERR_OK) e = shaper_add(&c->shaper, buf_str(&c->event));
    return e == ERR_OK && info.last ? shaper_end(&c->shaper) : e;
}

enum err respond_stream(struct conn *c, uint64_t *ret_at)
{
    enum err e = ERR_OK;
    size_t had = c->out.len;
    if (!c->head_sent) {
        if (!c->behave.early_head && conn_now(c) < due_at(c)) {
            *ret_at = due_at(c);
            return ERR_AGAIN;
        }
        e = send_head(c);
    }
    while (e == ERR_OK && c->out.len < HIGH_WATER) {
        e = shaper_take(&c->shaper, &c->out);
        if (e == ERR_OK && shaper_is_cut(&c->shaper)) return ERR_OK;
        if (e == ERR_CLOSED && c->behave.fail == FAULT_EXTRA_BYTES)
            return buf_appendz(&c->out, "extra bytes\r\n") == ERR_OK ? ERR_CLOSED : ERR_NOMEM;
        if (e != ERR_AGAIN) continue;
        /* The shaper needs more. A whole answer that is cut by a fault has no more. */
        if (!c->answer.stream) return ERR_CLOSED;
        uint64_t at = due_at(c);
        if (at > conn_now(c)) {
            *ret_at = at;
            return c->out.len > had ? ERR_OK : ERR_AGAIN;
        }
        /* A fault comes when the next event would have come. */
        e = fault_now(c);
        if (e == ERR_OK && !c->shaper.ended) e = make_event(c);
    }
    return e;
}
