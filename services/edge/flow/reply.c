/* SPDX-License-Identifier: Apache-2.0 */
#include "reply.h"

#include <stdio.h>

#include "base/clock.h"

const char *reply_reason(int status)
{
    static const struct {
        int status;
        const char *reason;
    } reasons[] = {
        { 200, "OK" },
        { 201, "Created" },
        { 202, "Accepted" },
        { 204, "No Content" },
        { 400, "Bad Request" },
        { 401, "Unauthorized" },
        { 402, "Payment Required" },
        { 403, "Forbidden" },
        { 404, "Not Found" },
        { 405, "Method Not Allowed" },
        { 408, "Request Timeout" },
        { 409, "Conflict" },
        { 413, "Content Too Large" },
        { 414, "URI Too Long" },
        { 415, "Unsupported Media Type" },
        { 417, "Expectation Failed" },
        { 422, "Unprocessable Content" },
        { 429, "Too Many Requests" },
        { 431, "Request Header Fields Too Large" },
        { 500, "Internal Server Error" },
        { 501, "Not Implemented" },
        { 502, "Bad Gateway" },
        { 503, "Service Unavailable" },
        { 504, "Gateway Timeout" },
        { 505, "HTTP Version Not Supported" },
        { 529, "Site is overloaded" },
    };
    for (size_t i = 0; i < ARRAY_LEN(reasons); i++)
        if (reasons[i].status == status) return reasons[i].reason;
    return "Status";
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

void reply_duration(uint64_t ms, char out[32])
{
    unsigned long long s = ms / 1000;
    if (ms < 1000)
        (void)snprintf(out, 32, "%llums", (unsigned long long)ms);
    else if (s < 60 && ms % 1000 != 0)
        (void)snprintf(out, 32, "%llu.%03llus", s, (unsigned long long)(ms % 1000));
    else if (s < 60)
        (void)snprintf(out, 32, "%llus", s);
    else if (s < 3600)
        (void)snprintf(out, 32, "%llum%llus", s / 60, s % 60);
    else
        (void)snprintf(out, 32, "%lluh%llum%llus", s / 3600, s / 60 % 60, s % 60);
}

static enum err rate_fields(const struct dialect *d, const struct admit_rate *r, const char *what,
                            uint64_t wall_ms, struct buf *out)
{
    char reset[TIME_RFC3339_LEN + 8];
    if (!r->present) return ERR_OK;
    if (d == &dialect_anthropic) {
        time_rfc3339((wall_ms + r->reset_ms) * 1000000u, reset);
        return buf_printf(
            out,
            "anthropic-ratelimit-%s-limit: %llu\r\nanthropic-ratelimit-%s-remaining: %llu\r\n"
            "anthropic-ratelimit-%s-reset: %s\r\n",
            what, (unsigned long long)r->limit, what, (unsigned long long)r->remaining, what,
            reset);
    }
    reply_duration(r->reset_ms, reset);
    return buf_printf(
        out,
        "x-ratelimit-limit-%s: %llu\r\nx-ratelimit-remaining-%s: %llu\r\nx-ratelimit-reset-%s: %s\r\n",
        what, (unsigned long long)r->limit, what, (unsigned long long)r->remaining, what, reset);
}

enum err reply_rate_fields(const struct dialect *d, const struct admit_outcome *o, uint64_t wall_ms,
                           struct buf *out)
{
    enum err e = rate_fields(d, &o->requests, "requests", wall_ms, out);
    return e == ERR_OK ? rate_fields(d, &o->tokens, "tokens", wall_ms, out) : e;
}
