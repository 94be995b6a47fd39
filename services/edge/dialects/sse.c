/* SPDX-License-Identifier: Apache-2.0 */
#include "sse.h"

#include "base/skip.h"

void sse_init(struct sse *s, size_t event_max)
{
    *s = (struct sse){ 0 };
    buf_init(&s->pending, event_max);
    buf_init(&s->data, event_max);
}

void sse_done(struct sse *s)
{
    buf_done(&s->pending);
    buf_done(&s->data);
}

/* Takes one line into the event's fields. */
static enum err take_line(struct sse *s, struct str line, struct sse_event *ev)
{
    struct str value = line, field;
    if (line.n == 0 || line.p[0] == ':') return ERR_OK;
    field = str_cut(&value, ':');
    if (value.n > 0 && value.p[0] == ' ') value.p++, value.n--;
    if (value.p == NULL) value = STR("");
    if (str_eqz(field, "event")) {
        ev->name = value;
    } else if (str_eqz(field, "data")) {
        if (ev->data.p == NULL) {
            ev->data = value;
            return ERR_OK;
        }
        enum err e = ERR_OK;
        if (s->data.len == 0) e = buf_append_str(&s->data, ev->data);
        if (e == ERR_OK) e = buf_append_char(&s->data, '\n');
        if (e == ERR_OK) e = buf_append_str(&s->data, value);
        ev->data = buf_str(&s->data);
        return e;
    }
    return ERR_OK;
}

/* Where the line at p ends: at its line end, or at `end`. */
static const char *line_end(const char *p, const char *end)
{
    static const unsigned char ends[4] = { '\n', '\r', '\n', '\r' };
    return skip_to_any(p, end, ends);
}

/* Splits a whole event into lines. */
static enum err read_event(struct sse *s, struct str raw, struct sse_event *ret)
{
    struct sse_event ev = { .raw = raw, .data = STR_NULL, .name = STR_NULL };
    const char *p = raw.p, *end = raw.p + raw.n;
    if (!s->begun && str_starts(raw, STR("\xef\xbb\xbf"))) p += 3;
    s->begun = true;
    buf_clear(&s->data);
    while (p < end) {
        const char *stop = line_end(p, end);
        enum err e = take_line(s, str_n(p, (size_t)(stop - p)), &ev);
        if (e != ERR_OK) return e;
        p = stop;
        if (p < end) p += *p == '\r' && p + 1 < end && p[1] == '\n' ? 2 : 1;
    }
    *ret = ev;
    return ERR_OK;
}

/*
 * Where the first event in text ends (behind its empty line), or 0 when none is complete. *from:
 * how far the search got; *line_start: where the line at *from begins. A CR at the very end may be
 * the first half of a CRLF: that is waited for, but where lines end in CR, the event is complete
 * all the same, and a LF will be eaten by the caller.
 */
static size_t find_end(struct str text, size_t *from, size_t *line_start)
{
    size_t i = *from;
    while (i < text.n) {
        const char *p = line_end(text.p + i, text.p + text.n);
        i = (size_t)(p - text.p);
        if (i == text.n) break;
        bool empty = i == *line_start;
        if (*p == '\r') {
            /* Wait: is it a CRLF? Not so behind a line that a CR alone ended. */
            bool cr_alone = i > 0 && p[-1] == '\r';
            if (i + 1 == text.n && !(empty && cr_alone)) break;
            i += i + 1 < text.n && p[1] == '\n' ? 2 : 1;
        } else {
            i++;
        }
        *line_start = i;
        if (empty) {
            *from = i;
            return i;
        }
    }
    *from = i;
    return 0;
}

static void take(struct str *bytes, size_t n)
{
    bytes->p += n, bytes->n -= n;
}

/* An event that lies in the bytes as a whole is read where it lies. */
static enum err in_place(struct sse *s, struct str *bytes, struct sse_event *ret)
{
    struct str text = *bytes;
    s->scanned = s->line_start = 0;
    size_t end = find_end(text, &s->scanned, &s->line_start);
    if (end == 0) {
        take(bytes, text.n);
        enum err e = buf_append_str(&s->pending, text);
        return e == ERR_OK ? ERR_AGAIN : e;
    }
    take(bytes, end);
    s->after_cr = text.p[end - 1] == '\r' && end == text.n;
    return read_event(s, str_n(text.p, end), ret);
}

/* Of the bytes, what may end the pending event: up to the end of a line, which is looked at as a
 * whole. */
static size_t some(const struct sse *s, struct str bytes)
{
    const char *end = bytes.p + bytes.n, *p = bytes.p;
    if (s->pending.data[s->pending.len - 1] != '\r') p = line_end(p, end);
    if (p < end) p += *p == '\r' && p + 1 < end && p[1] == '\n' ? 2 : 1;
    return (size_t)(p - bytes.p);
}

static enum err go_on(struct sse *s, struct str *bytes, struct sse_event *ret)
{
    while (bytes->n > 0) {
        size_t n = some(s, *bytes);
        enum err e = buf_append(&s->pending, bytes->p, n);
        if (e != ERR_OK) return e;
        take(bytes, n);
        size_t end = find_end(buf_str(&s->pending), &s->scanned, &s->line_start);
        if (end == 0) continue;
        /* It may have ended before what was added. */
        size_t back = s->pending.len - end;
        bytes->p -= back, bytes->n += back;
        s->pending.len = end;
        s->after_cr = s->pending.data[end - 1] == '\r' && bytes->n == 0;
        s->given = true;
        return read_event(s, buf_str(&s->pending), ret);
    }
    return ERR_AGAIN;
}

enum err sse_next(struct sse *s, struct str *bytes, struct sse_event *ret)
{
    if (s->given) buf_done(&s->pending); /* idle streams keep no memory */
    s->given = false;
    if (bytes->n == 0) return ERR_AGAIN;
    if (s->after_cr) {
        s->after_cr = false;
        if (bytes->p[0] == '\n') {
            /* The second half of the CRLF that ended the last event: passed on as it came. */
            *ret = (struct sse_event){ .raw = str_n(bytes->p, 1) };
            take(bytes, 1);
            return ERR_OK;
        }
    }
    return s->pending.len == 0 ? in_place(s, bytes, ret) : go_on(s, bytes, ret);
}

bool sse_is_between(const struct sse *s)
{
    return s->begun && !s->after_cr && (s->pending.len == 0 || s->given);
}

enum err sse_last(struct sse *s, struct sse_event *ret)
{
    if (s->given) buf_done(&s->pending);
    s->given = false;
    if (s->pending.len == 0) return ERR_AGAIN;
    /* With the line ends that it lacks: what follows it must not become a part of it. */
    char last = s->pending.data[s->pending.len - 1];
    bool half = last == '\r' && s->pending.len > 1 && s->pending.data[s->pending.len - 2] == '\n';
    const char *ends = last == '\n' || half ? "\n" : last == '\r' ? "\r" : "\n\n";
    enum err e = buf_appendz(&s->pending, ends);
    s->given = true;
    return e == ERR_OK ? read_event(s, buf_str(&s->pending), ret) : e;
}
