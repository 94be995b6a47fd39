/* SPDX-License-Identifier: Apache-2.0 */
#include "sse.h"

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

/* Splits a whole event into lines and hands it over. */
static enum err emit(struct sse *s, struct str raw, sse_fn fn, void *ctx)
{
    struct sse_event ev = { .raw = raw, .data = STR_NULL, .name = STR_NULL };
    struct str rest = raw;
    if (!s->begun && str_starts(rest, STR("\xef\xbb\xbf"))) rest.p += 3, rest.n -= 3;
    s->begun = true;
    buf_clear(&s->data);
    while (rest.n > 0) {
        size_t n = 0;
        while (n < rest.n && rest.p[n] != '\n' && rest.p[n] != '\r') n++;
        enum err e = take_line(s, str_n(rest.p, n), &ev);
        if (e != ERR_OK) return e;
        if (n < rest.n) n += rest.p[n] == '\r' && n + 1 < rest.n && rest.p[n + 1] == '\n' ? 2 : 1;
        rest.p += n, rest.n -= n;
    }
    return fn(ctx, &ev);
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
        const char *p = text.p + i;
        while (i < text.n && *p != '\n' && *p != '\r') i++, p++;
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

enum err sse_feed(struct sse *s, struct str bytes, sse_fn fn, void *ctx)
{
    if (s->after_cr && bytes.n > 0) {
        s->after_cr = false;
        if (bytes.p[0] == '\n') {
            /* The second half of the CRLF that ended the last event: passed on as it came. */
            struct sse_event rest = { .raw = STR("\n"), .data = STR_NULL, .name = STR_NULL };
            enum err first = fn(ctx, &rest);
            if (first != ERR_OK) return first;
            bytes.p++, bytes.n--;
        }
    }
    /* While nothing is pending, events are read where they lie. */
    bool in_place = s->pending.len == 0;
    enum err e = ERR_OK;
    if (!in_place) e = buf_append_str(&s->pending, bytes);
    if (e != ERR_OK) return e;
    struct str text = in_place ? bytes : buf_str(&s->pending);
    size_t done = 0, from = s->scanned, line_start = s->line_start, end;
    while ((end = find_end(text, &from, &line_start)) > 0) {
        struct str raw = str_n(text.p, end);
        s->after_cr = raw.p[end - 1] == '\r' && end == text.n;
        e = emit(s, raw, fn, ctx);
        if (e != ERR_OK) return e;
        text.p += end, text.n -= end, done += end;
        from = line_start = 0;
    }
    if (in_place)
        e = text.n > 0 ? buf_append_str(&s->pending, text) : ERR_OK;
    else
        buf_consume(&s->pending, done);
    if (s->pending.len == 0) buf_done(&s->pending); /* idle streams keep no memory */
    s->scanned = from;
    s->line_start = line_start;
    return e;
}

enum err sse_finish(struct sse *s, sse_fn fn, void *ctx)
{
    if (s->pending.len == 0) return ERR_OK;
    /* With the line ends that it lacks: what follows it must not become a part of it. */
    char last = s->pending.data[s->pending.len - 1];
    bool half = last == '\r' && s->pending.len > 1 && s->pending.data[s->pending.len - 2] == '\n';
    const char *ends = last == '\n' || half ? "\n" : last == '\r' ? "\r" : "\n\n";
    enum err e = buf_appendz(&s->pending, ends);
    if (e == ERR_OK) e = emit(s, buf_str(&s->pending), fn, ctx);
    buf_clear(&s->pending);
    s->scanned = s->line_start = 0;
    return e;
}
