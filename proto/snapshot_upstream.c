/* SPDX-License-Identifier: Apache-2.0 */
/* The shape of upstreams and their servers: URLs, timeouts, credentials. The decoder's thread. */
#include "proto/snapshot_decode.h"

#include <stdio.h>

enum {
    NAME_MAX_BYTES = 200,
    URL_MAX_BYTES = 1024,
    SEALED_MAX_BYTES = 16384,
    FILE_MAX_BYTES = 1024
};
static const uint64_t timeout_max_ms = 86400000, weight_max = 1000;

static bool is_host_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '.' || c == '_';
}

static bool is_ipv6_char(char c)
{
    return (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F') || (c >= '0' && c <= '9') || c == ':' ||
           c == '.';
}

const char *dec_host_port(struct str *rest, struct str *ret_host, uint16_t *ret_port)
{
    struct str r = *rest;
    size_t host_n = 0, n = 1;
    uint64_t port = 0;
    if (r.n > 0 && r.p[0] == '[') {
        while (1 + host_n < r.n && is_ipv6_char(r.p[1 + host_n])) host_n++;
        if (host_n < 2 || 1 + host_n >= r.n || r.p[1 + host_n] != ']')
            return "must have an IPv6 address in its brackets";
        *ret_host = str_n(r.p + 1, host_n);
        r = str_n(r.p + host_n + 2, r.n - host_n - 2);
    } else {
        while (host_n < r.n && is_host_char(r.p[host_n])) host_n++;
        if (host_n == 0 || host_n > 253) return "must have a host name or address";
        *ret_host = str_n(r.p, host_n);
        r = str_n(r.p + host_n, r.n - host_n);
    }
    if (r.n > 0 && r.p[0] == ':') {
        while (n < r.n && r.p[n] != '/') n++;
        if (n > 6 || str_to_u64(str_n(r.p + 1, n - 1), &port) != ERR_OK || port == 0 ||
            port > 65535)
            return "must have a port from 1 to 65535 behind its colon";
        r = str_n(r.p + n, r.n - n);
    }
    *ret_port = (uint16_t)port;
    *rest = r;
    return NULL;
}

/* scheme "://" host [":" port] [path]; NULL when it is one, else what is wrong. The parts point
 * into url. */
static const char *split_url(struct str url, struct snap_server *out)
{
    struct str rest = url;
    if (str_starts(rest, STR("http://"))) {
        out->tls = false;
    } else if (str_starts(rest, STR("https://"))) {
        out->tls = true;
    } else {
        return "must begin with http:// or https://";
    }
    size_t scheme_n = out->tls ? 8 : 7;
    rest = str_n(rest.p + scheme_n, rest.n - scheme_n);
    const char *wrong = dec_host_port(&rest, &out->host, &out->port);
    if (wrong != NULL) return wrong;
    if (out->port == 0) out->port = out->tls ? 443 : 80;
    if (rest.n > 0 && rest.p[0] != '/') return "must hold nothing but a path behind its host";
    for (size_t i = 0; i < rest.n; i++)
        if ((unsigned char)rest.p[i] <= 0x20 || strchr("?#\\", rest.p[i]) != NULL)
            return "must have no query, fragment, space or backslash";
    while (rest.n > 0 && rest.p[rest.n - 1] == '/') rest.n--;
    out->base_path = rest;
    return NULL;
}

/* The port is left out where it is the scheme's. */
static struct str authority_of(struct snap_decoder *d, const struct snap_server *s)
{
    char text[URL_MAX_BYTES + 16];
    bool v6 = memchr(s->host.p, ':', s->host.n) != NULL;
    int n = snprintf(text, sizeof text, "%s%.*s%s", v6 ? "[" : "", STR_ARG(s->host), v6 ? "]" : "");
    if (s->port != (s->tls ? 443 : 80))
        n += snprintf(text + n, sizeof text - (size_t)n, ":%u", s->port);
    return dec_copy(d, str_n(text, (size_t)n));
}

static void decode_server(struct snap_decoder *d, const struct json *o, struct snap_server *out)
{
    static const char *const keys[] = { "id",       "slug",         "url",     "weight",
                                        "priority", "max_requests", "enabled", NULL };
    if (!json_is(o, JSON_OBJECT)) {
        dec_problem(d, "must be an object");
        return;
    }
    out->id = dec_id(d, o, "id");
    out->slug = dec_slug(d, o);
    out->host = out->base_path = STR("");
    out->url = dec_text(d, o, "url", DEC_REQUIRED, 1, URL_MAX_BYTES);
    const char *problem = out->url.p != NULL ? split_url(out->url, out) : NULL;
    if (problem != NULL) dec_problem_at(d, "url", "%s", problem);
    if (out->url.p == NULL) out->url = STR("");
    out->authority = problem == NULL && out->host.n > 0 ? authority_of(d, out) : STR("");
    out->weight = dec_u64(d, o, "weight", 0, 1, 1, weight_max);
    out->priority = (unsigned)dec_u64(d, o, "priority", 0, 0, 0, 100);
    out->max_requests = dec_u64(d, o, "max_requests", 0, 0, 0, 1000000);
    out->enabled = dec_bool(d, o, "enabled", true);
    dec_known(d, o, keys);
}

static void decode_servers(struct snap_decoder *d, const struct json *o, struct snap_upstream *out)
{
    const struct json *list = dec_member(o, "servers");
    size_t n = json_len(list), i = 0;
    if (list == NULL) return;
    if (!json_is(list, JSON_ARRAY) || n > SNAP_SERVERS_MAX) {
        dec_problem_at(d, "servers", "must be a list of at most %d servers", SNAP_SERVERS_MAX);
        return;
    }
    struct snap_server *servers = n > 0 ? dec_alloc(d, n, sizeof(*servers)) : NULL;
    if (servers == NULL) return;
    size_t mark = dec_enter(d, STR("servers"));
    for (const struct json *it = json_first(list); it != NULL; it = json_next(it), i++) {
        size_t inner = dec_enter_index(d, i);
        decode_server(d, it, &servers[i]);
        for (size_t k = 0; k < i; k++) {
            if (servers[i].slug.n > 0 && str_eq(servers[i].slug, servers[k].slug))
                dec_problem_at(d, "slug", "another server of this upstream has it");
            if (servers[i].id.n > 0 && str_eq(servers[i].id, servers[k].id))
                dec_problem_at(d, "id", "another server of this upstream has it");
        }
        dec_leave(d, inner);
    }
    dec_leave(d, mark);
    out->servers = servers;
    out->servers_n = n;
}

/* Headers that the edge writes itself, or that belong to one connection. */
static bool is_reserved_header(struct str s)
{
    static const char *const names[] = { "host",       "content-length", "transfer-encoding",
                                         "connection", "keep-alive",     "upgrade",
                                         "te",         "trailer",        "expect" };
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (str_ieqz(s, names[i])) return true;
    return false;
}

static void decode_auth(struct snap_decoder *d, const struct json *o, struct snap_upstream *out)
{
    static const char *const types[] = { [SNAP_UPAUTH_NONE] = "none",
                                         [SNAP_UPAUTH_BEARER] = "bearer",
                                         [SNAP_UPAUTH_HEADER] = "header" };
    static const char *const keys[] = { "type", "header", "credential", NULL };
    const struct json *auth = dec_member(o, "auth");
    out->auth_header = out->credential_sealed = STR("");
    if (auth == NULL) return;
    if (!json_is(auth, JSON_OBJECT)) {
        dec_problem_at(d, "auth", "must be an object");
        return;
    }
    size_t mark = dec_enter(d, STR("auth"));
    out->auth = (enum snap_upstream_auth)dec_word(d, auth, "type", types, ARRAY_LEN(types), -1);
    if (out->auth == SNAP_UPAUTH_HEADER) {
        struct str header = dec_text(d, auth, "header", DEC_REQUIRED, 1, 64);
        if (header.p != NULL && (!dec_is_token(header) || is_reserved_header(header)))
            dec_problem_at(d, "header", "must be the name of a header that carries a credential");
        if (header.p != NULL) out->auth_header = header;
    } else {
        dec_absent(d, auth, "header", "is of type \"header\" only");
    }
    if (out->auth == SNAP_UPAUTH_NONE) {
        dec_absent(d, auth, "credential", "type \"none\" takes no credential");
    } else {
        struct str sealed = dec_text(d, auth, "credential", DEC_REQUIRED, 1, SEALED_MAX_BYTES);
        if (sealed.p != NULL) out->credential_sealed = sealed;
    }
    dec_known(d, auth, keys);
    dec_leave(d, mark);
}

static void decode_timeouts(struct snap_decoder *d, const struct json *o, struct snap_upstream *out)
{
    static const char *const keys[] = { "connect_ms", "first_byte_ms", "first_token_ms",
                                        "idle_ms",    "total_ms",      NULL };
    const struct json *t = dec_member(o, "timeouts");
    size_t mark = dec_enter(d, STR("timeouts"));
    if (t != NULL && !json_is(t, JSON_OBJECT)) dec_problem(d, "must be an object");
    out->connect_ms = dec_u64(d, t, "connect_ms", 0, 5000, 1, timeout_max_ms);
    out->first_byte_ms = dec_u64(d, t, "first_byte_ms", 0, 300000, 1, timeout_max_ms);
    out->first_token_ms = dec_u64(d, t, "first_token_ms", 0, 300000, 1, timeout_max_ms);
    out->idle_ms = dec_u64(d, t, "idle_ms", 0, 120000, 1, timeout_max_ms);
    out->total_ms = dec_u64(d, t, "total_ms", 0, 3600000, 1, timeout_max_ms);
    dec_known(d, t, keys);
    dec_leave(d, mark);
}

static struct str tls_text(struct snap_decoder *d, const struct json *o, const char *key,
                           size_t max)
{
    struct str s = dec_text(d, o, key, 0, 0, max);
    return s.p != NULL ? s : STR("");
}

static void decode_tls(struct snap_decoder *d, const struct json *o, struct snap_upstream *out)
{
    static const char *const keys[] = { "ca_file", "cert_file", "key_file", "server_name", NULL };
    const struct json *t = dec_member(o, "tls");
    size_t mark = dec_enter(d, STR("tls"));
    if (t != NULL && !json_is(t, JSON_OBJECT)) dec_problem(d, "must be an object");
    out->tls_ca_file = tls_text(d, t, "ca_file", FILE_MAX_BYTES);
    out->tls_cert_file = tls_text(d, t, "cert_file", FILE_MAX_BYTES);
    out->tls_key_file = tls_text(d, t, "key_file", FILE_MAX_BYTES);
    out->tls_server_name = tls_text(d, t, "server_name", 253);
    if ((out->tls_cert_file.n > 0) != (out->tls_key_file.n > 0))
        dec_problem(d, "cert_file and key_file go together");
    dec_known(d, t, keys);
    dec_leave(d, mark);
}

void snap_decode_upstream(struct snap_decoder *d, const struct json *o, struct snap_upstream *out)
{
    static const char *const dialects[] = {
        [SNAP_OPENAI] = "openai", [SNAP_ANTHROPIC] = "anthropic"
    };
    static const char *const keys[] = { "id",          "slug",    "name",      "dialect",
                                        "balance",     "hash",    "auth",      "timeouts",
                                        "retries",     "retry",   "breaker",   "health_check",
                                        "ejection",    "servers", "cooldown",  "slow_start_ms",
                                        "queue",       "tls",     "transport", "http",
                                        "max_streams", "proxy",   NULL };
    out->id = dec_id(d, o, "id");
    out->slug = dec_slug(d, o);
    struct str name = dec_text(d, o, "name", 0, 0, NAME_MAX_BYTES);
    out->name = name.p != NULL ? name : STR("");
    out->dialect = (enum snap_dialect)dec_word(d, o, "dialect", dialects, ARRAY_LEN(dialects),
                                               SNAP_OPENAI);
    decode_auth(d, o, out);
    decode_timeouts(d, o, out);
    decode_tls(d, o, out);
    dec_balance(d, o, out);
    dec_transport(d, o, out);
    decode_servers(d, o, out);
    dec_known(d, o, keys);
}
