/* SPDX-License-Identifier: Apache-2.0 */
/* Reads answers: framing, body length, events of streams. Only as strict as it must be to know
 * where an answer ends. */
#include <stdlib.h>
#include <string.h>

#include "load.h"

enum { HEAD, LENGTH, CHUNK_SIZE, CHUNK_DATA, CHUNK_END, TRAILER };

void reader_init(struct reader *r)
{
    r->head_n = r->left = r->length = 0;
    r->state = HEAD;
    r->status = 0;
    r->events = 0;
    r->in_body = r->last_was_newline = false;
}

static void body_bytes(struct reader *r, const char *p, size_t n)
{
    const char *end = p + n;
    r->length += n;
    if (n == 0) return;
    for (const char *at = p; (at = memchr(at, '\n', (size_t)(end - at))) != NULL; at++) {
        if (at == p ? r->last_was_newline : at[-1] == '\n') r->events++;
        if (at + 1 == end) break;
    }
    r->last_was_newline = end[-1] == '\n';
}

static int begin_body(struct reader *r)
{
    r->head[r->head_n] = 0;
    if (strncmp(r->head, "HTTP/1.1 ", 9) != 0) return -1;
    r->status = (int)strtol(r->head + 9, NULL, 10);
    r->head_n = 0;
    if (r->status < 200) return 0; /* an interim one */
    const char *length = strcasestr(r->head, "\r\ncontent-length:");
    r->in_body = true;
    if (length != NULL) {
        r->left = strtoul(length + 17, NULL, 10);
        r->state = LENGTH;
        return r->left == 0;
    }
    if (strcasestr(r->head, "\r\ntransfer-encoding: chunked") == NULL) return -1;
    r->state = CHUNK_SIZE;
    return 0;
}

/* A line into head, without its end. 1: it is whole. */
static int take_line(struct reader *r, const char **p, const char *end)
{
    const char *nl = memchr(*p, '\n', (size_t)(end - *p));
    const char *to = nl != NULL ? nl : end;
    size_t n = (size_t)(to - *p);
    if (r->head_n + n >= sizeof r->head) return -1;
    memcpy(r->head + r->head_n, *p, n);
    r->head_n += n;
    *p = nl != NULL ? nl + 1 : end;
    if (nl == NULL) return 0;
    if (r->head_n > 0 && r->head[r->head_n - 1] == '\r') r->head_n--;
    r->head[r->head_n] = 0;
    return 1;
}

static int take_head(struct reader *r, const char **p, const char *end)
{
    size_t n = (size_t)(end - *p), room = sizeof r->head - 1 - r->head_n;
    size_t k = n < room ? n : room, from = r->head_n > 3 ? r->head_n - 3 : 0;
    if (k == 0) return -1;
    memcpy(r->head + r->head_n, *p, k);
    char *stop = memmem(r->head + from, r->head_n + k - from, "\r\n\r\n", 4);
    if (stop == NULL) {
        r->head_n += k;
        *p += k;
        return 0;
    }
    size_t all = (size_t)(stop + 4 - r->head);
    *p += all - r->head_n;
    r->head_n = all;
    return begin_body(r);
}

int reader_take(struct reader *r, const char *p, size_t n)
{
    const char *end = p + n;
    while (p < end) {
        int got = 0;
        size_t k;
        switch (r->state) {
        case HEAD: got = take_head(r, &p, end); break;
        case LENGTH:
        case CHUNK_DATA:
            k = (size_t)(end - p) < r->left ? (size_t)(end - p) : r->left;
            body_bytes(r, p, k);
            p += k;
            r->left -= k;
            if (r->left > 0) break;
            if (r->state == LENGTH)
                got = 1;
            else
                r->state = CHUNK_END;
            break;
        case CHUNK_SIZE:
            got = take_line(r, &p, end);
            if (got != 1) break;
            got = 0;
            r->left = strtoul(r->head, NULL, 16);
            r->head_n = 0;
            r->state = r->left > 0 ? CHUNK_DATA : TRAILER;
            break;
        case CHUNK_END:
        default:
            got = take_line(r, &p, end);
            if (got != 1) break;
            got = r->state == TRAILER && r->head_n == 0;
            r->head_n = 0;
            if (r->state == CHUNK_END) r->state = CHUNK_SIZE;
            break;
        }
        if (got != 0) return p < end ? -1 : got;
    }
    return 0;
}
