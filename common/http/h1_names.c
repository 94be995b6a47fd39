/* SPDX-License-Identifier: Apache-2.0 */
/* Well-known field names, and looking fields up in a parsed head. Pure functions, any thread. */
#include "http/h1.h"

/* --- well-known names --- */

static const struct str known_names[H1_KNOWN_MAX] = {
    [H1_UNKNOWN] = { "", 0 },
#define N(k, s) [k] = { s, sizeof(s) - 1 }
    N(H1_TE, "te"),
    N(H1_DATE, "date"),
    N(H1_HOST, "host"),
    N(H1_ALLOW, "allow"),
    N(H1_ACCEPT, "accept"),
    N(H1_COOKIE, "cookie"),
    N(H1_EXPECT, "expect"),
    N(H1_ORIGIN, "origin"),
    N(H1_SERVER, "server"),
    N(H1_TRAILER, "trailer"),
    N(H1_UPGRADE, "upgrade"),
    N(H1_FORWARDED, "forwarded"),
    N(H1_X_API_KEY, "x-api-key"),
    N(H1_CONNECTION, "connection"),
    N(H1_KEEP_ALIVE, "keep-alive"),
    N(H1_SET_COOKIE, "set-cookie"),
    N(H1_TRACESTATE, "tracestate"),
    N(H1_USER_AGENT, "user-agent"),
    N(H1_RETRY_AFTER, "retry-after"),
    N(H1_TRACEPARENT, "traceparent"),
    N(H1_CONTENT_TYPE, "content-type"),
    N(H1_X_REQUEST_ID, "x-request-id"),
    N(H1_AUTHORIZATION, "authorization"),
    N(H1_CONTENT_LENGTH, "content-length"),
    N(H1_RETRY_AFTER_MS, "retry-after-ms"),
    N(H1_X_SHOULD_RETRY, "x-should-retry"),
    N(H1_ACCEPT_ENCODING, "accept-encoding"),
    N(H1_X_FORWARDED_FOR, "x-forwarded-for"),
    N(H1_CONTENT_ENCODING, "content-encoding"),
    N(H1_PROXY_CONNECTION, "proxy-connection"),
    N(H1_X_FORWARDED_HOST, "x-forwarded-host"),
    N(H1_TRANSFER_ENCODING, "transfer-encoding"),
    N(H1_ANTHROPIC_VERSION, "anthropic-version"),
    N(H1_X_FORWARDED_PROTO, "x-forwarded-proto"),
    N(H1_PROXY_AUTHENTICATE, "proxy-authenticate"),
    N(H1_PROXY_AUTHORIZATION, "proxy-authorization"),
#undef N
};

/* The first well-known name of each length. */
enum { KNOWN_LONGEST = 19 };
static const uint8_t first_of_length[KNOWN_LONGEST + 1] = {
    [2] = H1_TE,
    [4] = H1_DATE,
    [5] = H1_ALLOW,
    [6] = H1_ACCEPT,
    [7] = H1_TRAILER,
    [9] = H1_FORWARDED,
    [10] = H1_CONNECTION,
    [11] = H1_RETRY_AFTER,
    [12] = H1_CONTENT_TYPE,
    [13] = H1_AUTHORIZATION,
    [14] = H1_CONTENT_LENGTH,
    [15] = H1_ACCEPT_ENCODING,
    [16] = H1_CONTENT_ENCODING,
    [17] = H1_TRANSFER_ENCODING,
    [18] = H1_PROXY_AUTHENTICATE,
    [19] = H1_PROXY_AUTHORIZATION,
};

/* Eight characters, made small. */
static inline uint64_t small_at(const char *s)
{
    uint64_t v;
    memcpy(&v, s, sizeof v);
    return v | 0x2020202020202020u;
}

/* Without regard to case, eight characters at a time, of which the last may be looked at twice:
 * they are of one length. Setting the bit that makes letters small changes no other character of a
 * name into one of a known name; all of those have it set. */
static bool is_same(const char *s, const char *known, size_t n)
{
    if (n < 8) {
        for (size_t i = 0; i < n; i++)
            if ((s[i] | 0x20) != known[i]) return false;
        return true;
    }
    for (size_t i = 0; i < n - 8; i += 8)
        if (small_at(s + i) != small_at(known + i)) return false;
    return small_at(s + n - 8) == small_at(known + n - 8);
}

/* The same, with '_' in s for '-'. */
static bool is_same_loosely(const char *s, const char *known, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if ((s[i] == '_' ? '-' : s[i] | 0x20) != known[i]) return false;
    return true;
}

enum h1_known h1_known_lookup(struct str s, bool loose)
{
    if (s.n > KNOWN_LONGEST || first_of_length[s.n] == 0) return H1_UNKNOWN;
    for (unsigned k = first_of_length[s.n]; k < H1_KNOWN_MAX && known_names[k].n == s.n; k++) {
        const char *name = known_names[k].p;
        if (loose ? is_same_loosely(s.p, name, s.n) : is_same(s.p, name, s.n))
            return (enum h1_known)k;
    }
    return H1_UNKNOWN;
}

enum h1_known h1_known_of(struct str name)
{
    return h1_known_lookup(name, false);
}

struct str h1_known_name(enum h1_known k)
{
    return known_names[k];
}

bool h1_known_is_hop_by_hop(enum h1_known k)
{
    switch (k) {
    case H1_CONNECTION:
    case H1_KEEP_ALIVE:
    case H1_PROXY_AUTHENTICATE:
    case H1_PROXY_AUTHORIZATION:
    case H1_PROXY_CONNECTION:
    case H1_TE:
    case H1_TRAILER:
    case H1_TRANSFER_ENCODING:
    case H1_UPGRADE: return true;
    default: return false;
    }
}

bool h1_is_hop_by_hop(struct str name)
{
    const struct h1_field f = { .name = name, .known = h1_known_of(name) };
    return h1_field_is_hop_by_hop(&f);
}

bool h1_field_is_hop_by_hop(const struct h1_field *f)
{
    return f->known != H1_UNKNOWN ? h1_known_is_hop_by_hop(f->known)
                                  : str_ieq(f->name, STR("http2-settings"));
}

/* --- looking things up --- */

void h1_begin(struct h1_head *head)
{
    memset(head, 0, offsetof(struct h1_head, fields));
}

struct str h1_header(const struct h1_head *head, struct str name)
{
    enum h1_known k = h1_known_of(name);
    if (k != H1_UNKNOWN) return h1_header_known(head, k);
    for (size_t i = 0; i < head->fields_len; i++)
        if (head->fields[i].known == H1_UNKNOWN && str_ieq(head->fields[i].name, name))
            return head->fields[i].value;
    return STR_NULL;
}

bool h1_connection_next(const struct h1_head *head, struct h1_tokens *it, struct str *ret)
{
    for (;;) {
        while (it->rest.p != NULL) {
            struct str token = str_trim(str_cut(&it->rest, ','));
            if (token.n == 0) continue; /* empty elements are allowed: RFC 9110, 5.6.1 */
            *ret = token;
            return true;
        }
        while (it->field < head->fields_len && head->fields[it->field].known != H1_CONNECTION)
            it->field++;
        if (it->field >= head->fields_len) return false;
        it->rest = head->fields[it->field++].value;
    }
}

bool h1_connection_has(const struct h1_head *head, struct str token)
{
    struct h1_tokens it = { 0 };
    struct str t;
    while (h1_connection_next(head, &it, &t))
        if (str_ieq(t, token)) return true;
    return false;
}
