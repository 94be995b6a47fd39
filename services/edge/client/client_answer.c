/* SPDX-License-Identifier: Apache-2.0 */
/* What of an answer is put together for a client's connection, and what a request leaves behind. On
 * its worker's thread. */
#include "client_flow.h"
#include "http/chunked.h"
#include "reply.h"

enum { SEND_AT_ONCE = 8192 }; /* bytes */

/* Whether the whole body of the request in progress has been read, and how many bytes it has. While
 * a flow is busy it is. */
static bool body_is_here(const struct client *c, size_t *ret_n)
{
    const struct h1_head *h = &c->request->head;
    *ret_n = 0;
    if (c->state == CLIENT_BUSY) {
        *ret_n = c->flow != NULL ? flow_body_bytes(c->flow) : 0;
        return true;
    }
    if (h->framing == H1_BODY_NONE) return true;
    if (h->framing != H1_BODY_LENGTH || c->in.len - h->len < h->content_length) return false;
    *ret_n = (size_t)h->content_length;
    return true;
}

/* --- memory --- */

void client_drop_input(struct client *c)
{
    slab_take_back(loop_blocks(c->w->loop), &c->in);
}

void client_drop_request(struct client *c)
{
    slab_put(&c->w->request_memory, c->request);
    c->request = NULL;
}

void client_release_request(struct client *c)
{
    if (c->request == NULL) return;
    size_t n = 0;
    size_t used = body_is_here(c, &n) ? c->request->head.len + n : c->in.len;
    client_drop_request(c);
    buf_consume(&c->in, MIN(used, c->in.len));
    if (c->in.len == 0) client_drop_input(c);
    conn_pause(&c->conn, false);
}

/* --- the answer --- */

void client_answer(struct client *c, int status, struct str fields, enum client_framing framing,
                   uint64_t length)
{
    struct buf *b = &c->w->gather;
    bool old = c->request != NULL && c->request->head.len > 0 &&
               c->request->head.version_minor == 0;
    size_t n;
    if (c->dead) return;
    if (c->state == CLIENT_BODY && !body_is_here(c, &n)) c->must_close = true;
    if (daemon_is_draining(c->w->edge->daemon)) c->must_close = true;
    if (framing == FRAME_CHUNKED && old) framing = FRAME_CLOSE;
    if (framing == FRAME_CLOSE) c->must_close = true;
    c->framing = framing;
    c->answer_begun = true;
    buf_clear(b);
    char room[REPLY_STATUS_ROOM], number[STR_U64_ROOM];
    bool sized = framing == FRAME_LENGTH;
    struct str how = sized                      ? STR("content-length: ")
                     : framing == FRAME_CHUNKED ? STR("transfer-encoding: chunked\r\n")
                                                : STR("");
    struct str end = c->must_close ? STR("connection: close\r\n\r\n")
                     : old         ? STR("connection: keep-alive\r\n\r\n")
                                   : STR("\r\n");
    enum err e = buf_put(b, STR("HTTP/1.1 "), reply_status(status, room), STR("\r\n"), fields, how,
                         sized ? str_of_u64(length, number) : STR(""),
                         sized ? STR("\r\n") : STR(""), end);
    if (e == ERR_OK) e = conn_write(&c->conn, buf_str(b));
    if (e != ERR_OK) c->broken = true;
    if (c->flow != NULL) flow_note_sent(c->flow, b->len);
}

bool client_answer_begun(const struct client *c)
{
    return c->answer_begun;
}

bool client_send(struct client *c, struct str data)
{
    char head[CHUNKED_HEADER_MAX];
    struct str parts[] = { STR(""), data, STR("") };
    enum err e = ERR_IO;
    if (c->dead || c->broken) return false;
    if (data.n == 0 || c->framing == FRAME_NONE) return true;
    if (c->flow != NULL) flow_note_sent(c->flow, data.n);
    if (c->framing == FRAME_CHUNKED) {
        parts[0] = str_n(head, chunked_header(data.n, head));
        parts[2] = STR("\r\n");
    }
    /* Much goes at once, without a copy. Should the connection prove broken, nothing of it went:
     * the next flush will tell. */
    if (data.n >= SEND_AT_ONCE && conn_waiting(&c->conn) < SEND_AT_ONCE)
        e = conn_send(&c->conn, parts, ARRAY_LEN(parts));
    if (e != ERR_IO) return e == ERR_OK;
    e = ERR_OK;
    for (size_t i = 0; i < ARRAY_LEN(parts) && e == ERR_OK; i++) e = conn_write(&c->conn, parts[i]);
    return e == ERR_OK;
}
