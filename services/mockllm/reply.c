/* SPDX-License-Identifier: Apache-2.0 */
/* Heads of answers and broken events; see the header. Pure. */
#include "reply.h"

static const char *reason_of(int status)
{
    switch (status) {
    case 200: return "OK";
    case 204: return "No Content";
    case 400: return "Bad Request";
    case 401: return "Unauthorized";
    case 404: return "Not Found";
    case 405: return "Method Not Allowed";
    case 413: return "Content Too Large";
    case 429: return "Too Many Requests";
    case 500: return "Internal Server Error";
    case 502: return "Bad Gateway";
    case 503: return "Service Unavailable";
    case 504: return "Gateway Timeout";
    case 529: return "Overloaded";
    default: return "Status";
    }
}

static enum err append_filler(struct buf *out, uint64_t n)
{
    char *room;
    enum err e = buf_reserve(out, (size_t)n, &room);
    if (e != ERR_OK) return e;
    memset(room, 'x', (size_t)n);
    out->len += (size_t)n;
    return ERR_OK;
}

/* Fields that faults add. */
static enum err append_fault_fields(struct buf *out, const struct reply_head *h)
{
    const struct behave *b = h->behave;
    enum err e = ERR_OK;
    switch (b->fail) {
    case FAULT_TWO_LENGTHS:
        return buf_printf(out, "Content-Length: %llu\r\n", (unsigned long long)h->length + 1);
    case FAULT_LENGTH_AND_CHUNKED: return buf_appendz(out, "Transfer-Encoding: chunked\r\n");
    case FAULT_BIG_HEADER:
        e = buf_appendz(out, "X-Big: ");
        if (e == ERR_OK) e = append_filler(out, b->fail_arg);
        return e == ERR_OK ? buf_appendz(out, "\r\n") : e;
    case FAULT_MANY_HEADERS:
        for (uint64_t i = 0; i < b->fail_arg && e == ERR_OK; i++)
            e = buf_printf(out, "X-Many-%llu: 1\r\n", (unsigned long long)i);
        return e;
    case FAULT_NUL_HEADER: return buf_append(out, "X-Nul: a\0b\r\n", 12);
    default: return ERR_OK;
    }
}

enum err reply_head(struct buf *out, const struct reply_head *h)
{
    const struct behave *b = h->behave;
    enum err e = ERR_OK;
    int status = h->status;
    if (b != NULL && b->fail == FAULT_INTERIM)
        for (uint64_t i = 0; i < b->fail_arg && e == ERR_OK; i++)
            e = buf_appendz(out, "HTTP/1.1 103 Early Hints\r\nLink: </>; rel=preload\r\n\r\n");
    if (b != NULL && b->fail == FAULT_BODY_ON_204) status = 204;
    if (e == ERR_OK)
        e = buf_printf(out,
                       "HTTP/1.1 %d %s\r\nServer: aigw-mockllm\r\nX-Mock-Serial: %llu\r\n"
                       "Content-Type: %s\r\n",
                       status, reason_of(status), (unsigned long long)h->serial, h->content_type);
    if (e == ERR_OK && h->framing == FRAMING_LENGTH) {
        uint64_t extra = b != NULL && b->fail == FAULT_LONG_LENGTH ? 100 : 0;
        e = buf_printf(out, "Content-Length: %llu\r\n", (unsigned long long)(h->length + extra));
    }
    if (e == ERR_OK && h->framing == FRAMING_CHUNKED)
        e = buf_appendz(out, "Transfer-Encoding: chunked\r\n");
    if (e == ERR_OK && !h->keep_alive) e = buf_appendz(out, "Connection: close\r\n");
    if (b != NULL) {
        if (e == ERR_OK && b->encoding != ENCODING_NONE)
            e = buf_printf(out, "Content-Encoding: %s\r\n",
                           b->encoding == ENCODING_GZIP ? "gzip" : "deflate");
        if (e == ERR_OK && b->fail == FAULT_STATUS && b->retry_after[0] != '\0')
            e = buf_printf(out, "Retry-After: %s\r\n", b->retry_after);
        for (size_t i = 0; i < b->headers_len && e == ERR_OK; i++)
            e = buf_printf(out, "%s\r\n", b->headers[i]);
        if (e == ERR_OK) e = append_fault_fields(out, h);
    }
    return e == ERR_OK ? buf_appendz(out, "\r\n") : e;
}

void event_cut_newlines(struct buf *event)
{
    while (event->len > 0 &&
           (event->data[event->len - 1] == '\n' || event->data[event->len - 1] == '\r'))
        event->len--;
}

enum err event_cut_json(struct buf *event, const struct behave *b)
{
    const char *nl = b->eol == EOL_CRLF ? "\r\n" : b->eol == EOL_CR ? "\r" : "\n";
    const char *brace = event->len > 0 ? memchr(event->data, '{', event->len) : NULL;
    if (brace == NULL) return ERR_OK;
    size_t at = (size_t)(brace - event->data);
    event->len = at + (event->len - at) / 2;
    event_cut_newlines(event);
    return buf_printf(event, "%s%s", nl, nl);
}

enum err event_grow(struct buf *event, uint64_t n)
{
    static const char *const keys[] = {
        "\"content\":\"",          "\"text\":\"",         "\"delta\":\"",
        "\"thinking\":\"",         "\"partial_json\":\"", "\"arguments\":\"",
        "\"reasoning_content\":\""
    };
    for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
        size_t len = strlen(keys[i]);
        const char *at = event->len > 0 ? memmem(event->data, event->len, keys[i], len) : NULL;
        if (at == NULL) continue;
        size_t from = (size_t)(at - event->data) + len, behind = event->len - from;
        enum err e = append_filler(event, n);
        if (e != ERR_OK) return e;
        memmove(event->data + from + n, event->data + from, behind);
        memset(event->data + from, 'x', (size_t)n);
        return ERR_OK;
    }
    return ERR_OK;
}
