/* SPDX-License-Identifier: Apache-2.0 */
/* See the header. Pure. */
#include "cooldown.h"

#include <stdio.h>
#include <time.h>

enum { MOST_S = 86400 };

static bool is_overload(int status)
{
    return status == 429 || status == 503 || status == 529;
}

/* A time of this format, in milliseconds from now; 0 when it is none, or over. */
static uint64_t until(struct str text, const char *format, uint64_t wall_ms)
{
    char z[64];
    struct tm tm = { 0 };
    if (text.n >= sizeof z) return 0;
    (void)str_copyz(z, sizeof z, text);
    const char *end = strptime(z, format, &tm);
    if (end == NULL || *end != '\0') return 0;
    time_t t = timegm(&tm);
    uint64_t at = t > 0 ? (uint64_t)t * 1000 : 0;
    return at > wall_ms ? MIN(at - wall_ms, (uint64_t)MOST_S * 1000) : 0;
}

/* RFC 3339 in UTC, with or without a fraction. */
static uint64_t until_rfc3339(struct str text, uint64_t wall_ms)
{
    struct str rest = text, seconds = str_cut(&rest, '.');
    if (seconds.n == text.n) return until(text, "%Y-%m-%dT%H:%M:%SZ", wall_ms);
    return until(seconds, "%Y-%m-%dT%H:%M:%S", wall_ms);
}

/* "1s", "6m0s", "250ms", "1h2m3.5s", "20": milliseconds; 0 when it is none of it. */
static uint64_t duration(struct str s)
{
    uint64_t sum = 0;
    while (s.n > 0) {
        size_t n = 0;
        uint64_t whole, unit = 1000, part = 0, scale = 1;
        while (n < s.n && s.p[n] >= '0' && s.p[n] <= '9') n++;
        if (n == 0 || n > 9 || str_to_u64(str_n(s.p, n), &whole) != ERR_OK) return 0;
        s = str_n(s.p + n, s.n - n);
        if (s.n > 0 && s.p[0] == '.') {
            for (n = 1; n < s.n && s.p[n] >= '0' && s.p[n] <= '9'; n++)
                if (scale < 1000) part = part * 10 + (uint64_t)(s.p[n] - '0'), scale *= 10;
            s = str_n(s.p + n, s.n - n);
        }
        if (str_starts(s, STR("ms")))
            unit = 1, n = 2;
        else if (s.n > 0 && (s.p[0] == 's' || s.p[0] == 'm' || s.p[0] == 'h'))
            unit = s.p[0] == 's' ? 1000 : s.p[0] == 'm' ? 60000 : 3600000, n = 1;
        else if (s.n > 0)
            return 0;
        else
            n = 0;
        s = str_n(s.p + n, s.n - n);
        sum += whole * unit + part * unit / scale;
        if (sum > (uint64_t)MOST_S * 1000) return (uint64_t)MOST_S * 1000;
    }
    return sum;
}

static uint64_t retry_after(const struct h1_response *res, uint64_t wall_ms)
{
    struct str v = h1_header_known(&res->head, H1_RETRY_AFTER_MS);
    uint64_t n;
    if (!is_overload(res->status)) return 0;
    if (v.n > 0 && v.n <= 9 && str_to_u64(v, &n) == ERR_OK) return MIN(n, (uint64_t)MOST_S * 1000);
    v = h1_header_known(&res->head, H1_RETRY_AFTER);
    if (v.n > 0 && v.n <= 9 && str_to_u64(v, &n) == ERR_OK) return MIN(n, (uint64_t)MOST_S) * 1000;
    return v.n > 0 ? until(v, "%a, %d %b %Y %H:%M:%S GMT", wall_ms) : 0;
}

/* Most answers say nothing of limits: that is seen at a glance. */
static bool tells_limits(const struct h1_head *h)
{
    static const struct str openai = { "x-ratelimit-", 12 },
                            anthropic = { "anthropic-ratelimit-", 20 };
    for (size_t i = 0; i < h->fields_len; i++) {
        struct str name = h->fields[i].name;
        if (h->fields[i].known != H1_UNKNOWN || name.n <= openai.n) continue;
        if (str_ieq(str_n(name.p, openai.n), openai)) return true;
        if (name.n > anthropic.n && str_ieq(str_n(name.p, anthropic.n), anthropic)) return true;
    }
    return false;
}

static uint64_t rate_limit(const struct h1_response *res, uint64_t wall_ms)
{
    static const char *const openai[] = { "requests", "tokens" };
    static const char *const anthropic[] = { "requests", "tokens", "input-tokens",
                                             "output-tokens" };
    char name[64];
    uint64_t most = 0, wait;
    if (!tells_limits(&res->head)) return 0;
    for (size_t i = 0; i < ARRAY_LEN(openai); i++) {
        (void)snprintf(name, sizeof name, "x-ratelimit-remaining-%s", openai[i]);
        if (!str_eqz(h1_header(&res->head, str_of(name)), "0")) continue;
        (void)snprintf(name, sizeof name, "x-ratelimit-reset-%s", openai[i]);
        wait = duration(h1_header(&res->head, str_of(name)));
        most = MAX(most, wait);
    }
    for (size_t i = 0; i < ARRAY_LEN(anthropic); i++) {
        (void)snprintf(name, sizeof name, "anthropic-ratelimit-%s-remaining", anthropic[i]);
        if (!str_eqz(h1_header(&res->head, str_of(name)), "0")) continue;
        (void)snprintf(name, sizeof name, "anthropic-ratelimit-%s-reset", anthropic[i]);
        wait = until_rfc3339(h1_header(&res->head, str_of(name)), wall_ms);
        most = MAX(most, wait);
    }
    return most;
}

uint64_t cooldown_of(const struct h1_response *res, uint64_t wall_ms)
{
    uint64_t a = retry_after(res, wall_ms), b = rate_limit(res, wall_ms);
    return MAX(a, b);
}

uint64_t cooldown_retry_after_s(const struct h1_response *res, uint64_t wall_ms)
{
    return (retry_after(res, wall_ms) + 999) / 1000;
}
