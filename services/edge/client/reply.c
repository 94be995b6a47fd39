/* SPDX-License-Identifier: Apache-2.0 */
#include "reply.h"

#include <stdio.h>
#include <string.h>

#include "base/clock.h"

struct str reply_status(int status, char room[REPLY_STATUS_ROOM])
{
#define R(number, reason)                                      \
    {                                                          \
        number,                                                \
        {                                                      \
#number " " reason, sizeof(#number " " reason) - 1 \
        }                                                      \
    }
    static const struct {
        int status;
        struct str text;
    } known[] = {
        R(200, "OK"),
        R(201, "Created"),
        R(202, "Accepted"),
        R(204, "No Content"),
        R(400, "Bad Request"),
        R(401, "Unauthorized"),
        R(402, "Payment Required"),
        R(403, "Forbidden"),
        R(404, "Not Found"),
        R(405, "Method Not Allowed"),
        R(408, "Request Timeout"),
        R(409, "Conflict"),
        R(413, "Content Too Large"),
        R(414, "URI Too Long"),
        R(415, "Unsupported Media Type"),
        R(417, "Expectation Failed"),
        R(422, "Unprocessable Content"),
        R(429, "Too Many Requests"),
        R(431, "Request Header Fields Too Large"),
        R(500, "Internal Server Error"),
        R(501, "Not Implemented"),
        R(502, "Bad Gateway"),
        R(503, "Service Unavailable"),
        R(504, "Gateway Timeout"),
        R(505, "HTTP Version Not Supported"),
        R(529, "Site is overloaded"),
    };
#undef R
    for (size_t i = 0; i < ARRAY_LEN(known); i++)
        if (known[i].status == status) return known[i].text;
    int n = snprintf(room, REPLY_STATUS_ROOM, "%d Status", status);
    return str_n(room, (size_t)n);
}

enum refusal reply_refusal_of(int status)
{
    switch (status) {
    case 413: return REFUSE_BODY_TOO_LARGE;
    case 414:
    case 431: return REFUSE_HEAD_TOO_LARGE;
    case 501: return REFUSE_UNKNOWN_CODING;
    default: return REFUSE_BAD_REQUEST;
    }
}

enum err reply_error_body(const struct dialect *d, enum refusal r, struct str message,
                          const char *param, struct str request_id, struct buf *out)
{
    return d->write_error(r, message, param, request_id, out);
}

static char *put_number(char *w, uint64_t n, const char *unit)
{
    char room[STR_U64_ROOM];
    struct str s = str_of_u64(n, room);
    memcpy(w, s.p, s.n);
    memcpy(w + s.n, unit, strlen(unit) + 1);
    return w + s.n + strlen(unit);
}

void reply_duration(uint64_t ms, char out[32])
{
    uint64_t s = ms / 1000, part = ms % 1000;
    char *w = out;
    if (s >= 3600) w = put_number(w, s / 3600, "h");
    if (s >= 60) {
        w = put_number(w, s / 60 % 60, "m");
        (void)put_number(w, s % 60, "s");
    } else if (s > 0 && part > 0) {
        w = put_number(w, s, part < 10 ? ".00" : part < 100 ? ".0" : ".");
        (void)put_number(w, part, "s");
    } else {
        (void)put_number(w, s > 0 ? s : ms, s > 0 ? "s" : "ms");
    }
}

static enum err rate_fields(const struct dialect *d, const struct admit_rate *r, struct str what,
                            uint64_t wall_ms, struct buf *out)
{
    char reset[TIME_RFC3339_LEN + 8], room[2][STR_U64_ROOM];
    if (!r->present) return ERR_OK;
    struct str limit = str_of_u64(r->limit, room[0]), remaining = str_of_u64(r->remaining, room[1]);
    if (d == &dialect_anthropic) {
        time_rfc3339((wall_ms + r->reset_ms) * 1000000u, reset);
        return buf_put(out, STR("anthropic-ratelimit-"), what, STR("-limit: "), limit,
                       STR("\r\nanthropic-ratelimit-"), what, STR("-remaining: "), remaining,
                       STR("\r\nanthropic-ratelimit-"), what, STR("-reset: "), str_of(reset),
                       STR("\r\n"));
    }
    reply_duration(r->reset_ms, reset);
    return buf_put(out, STR("x-ratelimit-limit-"), what, STR(": "), limit,
                   STR("\r\nx-ratelimit-remaining-"), what, STR(": "), remaining,
                   STR("\r\nx-ratelimit-reset-"), what, STR(": "), str_of(reset), STR("\r\n"));
}

enum err reply_rate_fields(const struct dialect *d, const struct admit_outcome *o, uint64_t wall_ms,
                           struct buf *out)
{
    enum err e = rate_fields(d, &o->requests, STR("requests"), wall_ms, out);
    return e == ERR_OK ? rate_fields(d, &o->tokens, STR("tokens"), wall_ms, out) : e;
}
